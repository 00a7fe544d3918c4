//! What has changed, sent to the pages that are open: one stream of server-sent events each, whose
//! messages are pieces of HTML that htmx puts in their places.
//!
//! 1. The ledger's news wake a stream; they say that something is new, never what.
//! 2. [`GAP`] after its last message at the earliest the board is looked at, and the tiles that are
//!    not as the page has them are sent; the other parts of a page are no more than a second behind.
//! 3. A page that comes back says which board it has. If another is in force, or it had fallen
//!    behind, it gets whatever differs: there is no history to run out of.
//!
//! Streams are bounded, and end when the server stops, or the credential that they were opened with
//! opens nothing any more.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream::unfold;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};

use super::super::Web;
use super::super::auth::{self, Visitor};
use super::super::error::No;
use super::board::{Board, Filter, Tile};
use super::parts::{self, Part};
use crate::ledger::News;
use crate::model::Mac;

/// Between two messages of tiles, and how long news are gathered when nothing was sent for long.
const GAP: Duration = Duration::from_millis(100);
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks at the other parts of a page.
const SLOW: Duration = Duration::from_secs(1);
/// Times grow old without any news, and a configuration changes.
const ANYWAY: Duration = Duration::from_secs(10);
/// Pages that are open at once.
pub const STREAMS: usize = 64;
/// Machines that come at once, beyond which the whole hall is sent.
const COMING: usize = 500;

/// What a page asks for when it opens its stream.
#[derive(Debug, Deserialize)]
pub struct Asked {
    page: Option<String>,
    id: Option<String>,
    /// The board that the page was made from.
    at: Option<String>,
    #[serde(flatten)]
    filter: Filter,
}

/// The pages that are kept up to date.
#[derive(Clone, Debug, PartialEq)]
pub enum Page {
    Fleet(Filter),
    Machine(Mac),
    Leases,
    Mirrors,
    Alarms,
}

impl Page {
    fn of(asked: &Asked) -> Result<Page, No> {
        Ok(match asked.page.as_deref() {
            None => Page::Fleet(asked.filter.clone().tidy()),
            Some("machine") => Page::Machine(asked.id.as_deref().unwrap_or_default().parse()?),
            Some("leases") => Page::Leases,
            Some("mirrors") => Page::Mirrors,
            Some("alarms") => Page::Alarms,
            Some(_) => return Err(No::NoSuchPage),
        })
    }

    fn concerns(&self, news: &News) -> bool {
        match (self, news) {
            (Page::Machine(its), News::Entry { mac, .. } | News::Life { mac, .. }) => its == mac,
            (Page::Fleet(_), _) | (_, News::Alarm(_)) => true,
            _ => false,
        }
    }
}

/// `GET /live`.
pub async fn live(
    req: HttpRequest,
    web: web::Data<Web>,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, No> {
    let page = Page::of(&asked)?;
    let seat = Seat::take(&web)?;
    let again = req.headers().get("last-event-id").and_then(|v| v.to_str().ok());
    let at = again.or(asked.at.as_deref()).unwrap_or_default();
    let stream = Stream::new(web.clone(), auth::visitor(&req), page, at, seat)?;
    let messages = unfold(stream, |mut stream| async {
        let message = stream.next().await?;
        Some((Ok::<_, io::Error>(Bytes::from(message)), stream))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(messages))
}

/// One of [`STREAMS`], given back when the stream ends.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(web: &Web) -> Result<Seat, No> {
        let seats = web.pages.streams.clone();
        let taken = seats.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(seats);
        if taken >= STREAMS { Err(No::Watchers) } else { Ok(seat) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Stream {
    web: web::Data<Web>,
    visitor: Visitor,
    page: Page,
    news: broadcast::Receiver<News>,
    closing: watch::Receiver<bool>,
    /// The tiles that the page has, in its order; `None`: not known.
    hall: Option<Vec<Arc<Tile>>>,
    /// The other parts as they were sent last.
    parts: HashMap<&'static str, String>,
    begun: bool,
    sent: Instant,
    looked: Instant,
    /// News have come since the tiles, and since the other parts, were looked at.
    fresh: bool,
    fresh_parts: bool,
    _seat: Seat,
}

impl Stream {
    fn new(
        web: web::Data<Web>,
        visitor: Visitor,
        page: Page,
        at: &str,
        seat: Seat,
    ) -> Result<Stream, No> {
        // Before the board is looked at: what happens from here on is news.
        let news = web.ledger.listen();
        let closing = web.pages.closing.subscribe();
        let mut hall = None;
        if let Page::Fleet(filter) = &page {
            let board = web.pages.board(&web, GAP)?;
            if at == web.pages.stamp(&board) {
                hall = Some(wanted(&board, filter));
            }
        }
        let now = Instant::now();
        let (parts, begun) = (HashMap::new(), false);
        let (fresh, fresh_parts) = (true, true);
        Ok(Stream {
            web,
            visitor,
            page,
            news,
            closing,
            hall,
            parts,
            begun,
            sent: now,
            looked: now,
            fresh,
            fresh_parts,
            _seat: seat,
        })
    }

    /// The next message; none when it is over.
    async fn next(&mut self) -> Option<String> {
        loop {
            if *self.closing.borrow() {
                return None;
            }
            if !self.begun {
                self.begun = true;
                return self.message(true);
            }
            let due = self.due();
            tokio::select! {
                _ = self.closing.changed() => return None,
                told = self.news.recv(), if !self.fresh => {
                    self.heard(told)?;
                    if self.fresh {
                        self.sent = self.sent.max(Instant::now() + GATHER - GAP);
                    }
                }
                () = sleep_until(due) => {
                    let slow = Instant::now() >= self.looked + SLOW;
                    while let Ok(news) = self.news.try_recv() {
                        self.fresh_parts |= self.page.concerns(&news);
                    }
                    return self.message(slow);
                }
            }
        }
    }

    /// When the page is looked at again.
    fn due(&self) -> Instant {
        let slow = if self.fresh_parts { self.looked + SLOW } else { self.looked + ANYWAY };
        match self.fresh {
            true => (self.sent + GAP).min(slow),
            false => slow,
        }
    }

    fn heard(&mut self, told: Result<News, broadcast::error::RecvError>) -> Option<()> {
        use broadcast::error::RecvError;
        let concerns = match told {
            Ok(news) => self.page.concerns(&news),
            // What was missed is seen on the board.
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return None,
        };
        self.fresh |= concerns;
        self.fresh_parts |= concerns;
        Some(())
    }

    /// What differs from what the page has; a comment where nothing does, by which a connection is
    /// found that nobody reads any more.
    fn message(&mut self, slow: bool) -> Option<String> {
        // Asked before each message, so that none leaves for somebody who was shown out.
        if !self.web.auth.still(&self.visitor, Timestamp::now()) {
            return None;
        }
        let mut html = String::new();
        let mut id = None;
        let now = Instant::now();
        (self.sent, self.fresh) = (now, false);
        if let Page::Fleet(filter) = &self.page {
            let board = self.web.pages.board(&self.web, GAP).ok()?;
            let hall = wanted(&board, filter);
            differences(self.hall.as_deref(), &hall, &mut html);
            self.hall = Some(hall);
            id = Some(self.web.pages.stamp(&board));
        }
        // A machine's page is small, and is watched for what it does just now.
        let quick = !matches!(self.page, Page::Fleet(_));
        if slow || quick {
            (self.looked, self.fresh_parts) = (now, false);
        }
        for Part { place, html: part } in
            parts::of(&self.web, &self.page, slow || quick, Timestamp::now()).ok()?
        {
            if self.parts.get(place) != Some(&part) {
                let _ = write!(
                    html,
                    "<hx-partial hx-target=\"#{place}\" hx-swap=\"innerMorph\">{part}</hx-partial>"
                );
                self.parts.insert(place, part);
            }
        }
        Some(event(id.as_deref(), &html))
    }
}

fn wanted(board: &Board, filter: &Filter) -> Vec<Arc<Tile>> {
    board.tiles.iter().filter(|t| filter.takes(t)).cloned().collect()
}

/// One server-sent event (HTML Living Standard, section 9.2.5).
fn event(id: Option<&str>, html: &str) -> String {
    let mut out = String::with_capacity(html.len() + 64);
    if html.is_empty() {
        return ": \n\n".into();
    }
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    for line in html.lines() {
        let _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
    out
}

/// What makes the hall that a page has into the one that is.
fn differences(has: Option<&[Arc<Tile>]>, is: &[Arc<Tile>], out: &mut String) {
    let whole = |out: &mut String| {
        out.push_str("<hx-partial hx-target=\"#hall\" hx-swap=\"innerMorph\">");
        is.iter().for_each(|t| out.push_str(&t.html));
        out.push_str("</hx-partial>");
    };
    let Some(has) = has else { return whole(out) };
    let theirs: HashMap<Mac, &Arc<Tile>> = has.iter().map(|t| (t.mac, t)).collect();
    let stay: HashSet<Mac> = is.iter().map(|t| t.mac).filter(|m| theirs.contains_key(m)).collect();
    let staying = |tiles: &[Arc<Tile>]| -> Vec<Mac> {
        tiles.iter().map(|t| t.mac).filter(|m| stay.contains(m)).collect()
    };
    let coming = is.len() - stay.len();
    if coming > COMING || staying(has) != staying(is) {
        return whole(out);
    }
    for gone in has.iter().filter(|t| !stay.contains(&t.mac)) {
        let id = super::text::id(gone.mac);
        let _ = write!(out, "<hx-partial hx-target=\"#m{id}\" hx-swap=\"delete\"></hx-partial>");
    }
    // Those that come are put behind the one that stays before them, a run of them at once.
    let mut behind: Option<Mac> = None;
    let mut open = false;
    for tile in is {
        match theirs.get(&tile.mac) {
            Some(old) => {
                if std::mem::take(&mut open) {
                    out.push_str("</hx-partial>");
                }
                behind = Some(tile.mac);
                if old.html != tile.html {
                    out.push_str(&tile.anew());
                }
            }
            None => {
                if !std::mem::replace(&mut open, true) {
                    let _ = match behind {
                        Some(mac) => write!(
                            out,
                            "<hx-partial hx-target=\"#m{}\" hx-swap=\"afterend\">",
                            super::text::id(mac)
                        ),
                        None => {
                            write!(out, "<hx-partial hx-target=\"#hall\" hx-swap=\"afterbegin\">")
                        }
                    };
                }
                out.push_str(&tile.html);
            }
        }
    }
    if open {
        out.push_str("</hx-partial>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pages::board::tests::view;

    fn board(before: &Board, of: &[(u8, &'static str)]) -> Board {
        let views: Vec<_> = of.iter().map(|(n, state)| view(*n, None, state)).collect();
        Board::after(before, &views, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn between(has: &Board, is: &Board) -> String {
        let mut out = String::new();
        differences(Some(&has.tiles), &is.tiles, &mut out);
        out
    }

    #[test]
    fn a_page_gets_what_differs_and_nothing_else() {
        let one = board(&Board::default(), &[(1, "seen"), (3, "seen"), (5, "seen")]);
        assert_eq!(between(&one, &one), "");

        let two = board(&one, &[(1, "seen"), (3, "failed"), (5, "seen")]);
        let sent = between(&one, &two);
        assert!(
            sent.starts_with("<li hx-swap-oob=outerMorph id=m020000000003><a class=f "),
            "{sent}"
        );
        assert_eq!(sent.matches("<li").count(), 1);

        let three =
            board(&two, &[(0, "seen"), (3, "failed"), (4, "seen"), (6, "seen"), (7, "seen")]);
        let sent = between(&two, &three);
        let gone = |n| {
            format!("<hx-partial hx-target=\"#m02000000000{n}\" hx-swap=\"delete\"></hx-partial>")
        };
        assert!(sent.contains(&gone(1)) && sent.contains(&gone(5)), "{sent}");
        assert!(sent.contains("hx-target=\"#hall\" hx-swap=\"afterbegin\"><li id=m020000000000>"));
        // A run of those that come is put behind one that the page has.
        assert_eq!(sent.matches("hx-target=\"#m020000000003\" hx-swap=\"afterend\"").count(), 1);
        assert_eq!(sent.matches("<hx-partial").count(), sent.matches("</hx-partial>").count());
    }

    #[test]
    fn what_is_not_known_is_sent_whole() {
        let many: Vec<_> = (0..250).map(|n| (n, "seen")).collect();
        let all = board(&Board::default(), &many);
        let mut out = String::new();
        differences(None, &all.tiles, &mut out);
        assert_eq!((out.matches("<li id").count(), out.matches("<hx-partial").count()), (250, 1));
    }

    #[test]
    fn an_event_is_lines_of_data() {
        assert_eq!(event(None, ""), ": \n\n");
        assert_eq!(event(Some("1-2"), "a\nb"), "id: 1-2\ndata: a\ndata: b\n\n");
    }
}
