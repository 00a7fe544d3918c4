//! What happens, as it happens: a stream of server-sent events (the HTML standard, section 9.2).
//!
//! 1. A listener takes one of [`LISTENERS`] seats; who finds none is told so.
//! 2. Everything that the ledger tells is an event of its kind, its data JSON: `entry`, `life`,
//!    `alarm`. What happens at once leaves at once.
//! 3. A listener that is too slow is not waited for: it gets `resync`, and looks anew.
//! 4. The stream ends when the server stops, or the listener's credential is revoked.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream::unfold;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::api::machines::LifeShown;
use super::api::{Refusal, read};
use super::auth::{self, Visitor};
use super::error::No;
use super::{Web, view};
use crate::ledger::News;
use crate::model::{Life, Mac};

/// Streams at once, those of pages among them.
pub const LISTENERS: usize = 64;
/// Something is sent this often, so that both sides notice when the other is gone.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that leave in one piece.
const AT_ONCE: usize = 256;

/// The places of listeners, and the word that the server stops.
pub struct Seats {
    free: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Default for Seats {
    fn default() -> Self {
        let free = Arc::new(Semaphore::new(LISTENERS));
        Seats { free, closing: watch::Sender::new(false) }
    }
}

impl Seats {
    /// # Errors
    /// Where all are taken.
    pub fn take(&self) -> Result<Seat, Refusal> {
        let place = self.free.clone().try_acquire_owned();
        let place = place.map_err(|_| Refusal::Listeners(LISTENERS))?;
        Ok(Seat { _place: place, closing: self.closing.subscribe() })
    }

    pub fn taken(&self) -> usize {
        LISTENERS.saturating_sub(self.free.available_permits())
    }

    /// Ends all streams; a server that stops gracefully would wait for them.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// The place of one listener, free again when it is dropped.
pub struct Seat {
    _place: OwnedSemaphorePermit,
    closing: watch::Receiver<bool>,
}

impl Seat {
    /// Returns when the server stops.
    pub async fn closed(&mut self) {
        // An error is a server that is gone.
        let _ = self.closing.wait_for(|closing| *closing).await;
    }
}

/// Of what a listener wants to hear.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// By name or MAC.
    machine: Option<String>,
    /// Of `entry`, `life` and `alarm`, with commas between.
    kind: Option<String>,
}

/// One who listens.
struct Listener {
    seat: Seat,
    news: Receiver<News>,
    web: web::Data<Web>,
    visitor: Visitor,
    of: Option<Mac>,
    kinds: Option<Vec<String>>,
}

/// `/api/v1/events`
pub async fn stream(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let Wanted { machine, kind } = read::query(&req)?;
    let of = match machine {
        Some(who) => Some(view::named(&web, &who).ok_or_else(|| Refusal::no_machine(&who))?),
        None => None,
    };
    let kinds = kind.map(|k| k.split(',').map(|k| k.trim().to_string()).collect::<Vec<_>>());
    let known = |k: &String| matches!(k.as_str(), "entry" | "life" | "alarm");
    if let Some(odd) = kinds.iter().flatten().find(|k| !known(k)) {
        let odd = crate::model::event::plain(odd, 40);
        return Err(Refusal::Query(format!("kind {odd:?} is not entry, life or alarm")).into());
    }
    let news = web.ledger.listen();
    let seat = web.seats.take()?;
    let visitor = auth::visitor(&req);
    let listener = Listener { seat, news, web: web.clone(), visitor, of, kinds };
    let hello = json!({ "version": env!("CARGO_PKG_VERSION"), "at": Timestamp::now() });
    let hello = format!("retry: 2000\n{}", event("hello", &hello));
    let body = unfold((Some(listener), Some(hello)), |(listener, first)| async move {
        let mut listener = listener?;
        let text = match first {
            Some(text) => text,
            None => listener.next().await?,
        };
        Some((Ok::<_, std::io::Error>(web::Bytes::from(text)), (Some(listener), None)))
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CONTENT_ENCODING, "identity"))
        .streaming(body))
}

impl Listener {
    /// The next piece; none when it is over.
    async fn next(&mut self) -> Option<String> {
        loop {
            let got = tokio::select! {
                biased;
                () = self.seat.closed() => return None,
                got = self.news.recv() => got,
                () = tokio::time::sleep(HEARTBEAT) => {
                    return self.is_let_in().then(|| ": still here\n\n".to_string());
                }
            };
            if !self.is_let_in() {
                return None;
            }
            let mut text = String::new();
            match got {
                Ok(news) => self.say(&news, &mut text),
                Err(RecvError::Lagged(missed)) => text += &resync(missed),
                Err(RecvError::Closed) => return None,
            }
            for _ in 1..AT_ONCE {
                match self.news.try_recv() {
                    Ok(news) => self.say(&news, &mut text),
                    Err(TryRecvError::Lagged(missed)) => text += &resync(missed),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            if !text.is_empty() {
                return Some(text);
            }
        }
    }

    fn is_let_in(&self) -> bool {
        self.web.auth.still(&self.visitor, Timestamp::now())
    }

    fn say(&self, news: &News, text: &mut String) {
        let (kind, of) = match news {
            News::Entry { mac, .. } => ("entry", Some(*mac)),
            News::Life { mac, .. } => ("life", Some(*mac)),
            News::Alarm(_) => ("alarm", None),
        };
        let heard = self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|k| k == kind));
        if heard && (self.of.is_none() || self.of == of) {
            *text += &event(kind, &data(&self.web, news));
        }
    }
}

fn data(web: &Web, news: &News) -> Value {
    match news {
        News::Entry { mac, entry } => {
            let mut data = json!(**entry);
            data["mac"] = json!(mac);
            data
        }
        News::Life { mac, before, after } => {
            let word = |life: &Option<Arc<Life>>| life.as_ref().map(|l| l.state.word());
            json!({
                "mac": mac,
                "name": view::one(web, *mac).and_then(|v| v.name),
                "before": word(before),
                "after": word(after),
                "life": after.as_deref().map(LifeShown::from),
            })
        }
        News::Alarm(alarm) => json!(**alarm),
    }
}

fn resync(missed: u64) -> String {
    event("resync", &json!({ "missed": missed }))
}

/// JSON has no line breaks of its own, which would end the data.
fn event(kind: &str, data: &Value) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data() {
        let said = event("entry", &json!({ "detail": "a\nb\r\ndata: c" }));
        assert_eq!(said, "event: entry\ndata: {\"detail\":\"a\\nb\\r\\ndata: c\"}\n\n");
    }

    #[tokio::test]
    async fn seats_are_bounded_and_end_with_the_server() {
        let seats = Seats::default();
        let mut taken: Vec<Seat> = (0..LISTENERS).map(|_| seats.take().unwrap()).collect();
        assert!(matches!(seats.take(), Err(Refusal::Listeners(_))));
        taken.pop();
        let mut last = seats.take().unwrap();
        assert_eq!(seats.taken(), LISTENERS);
        seats.close();
        last.closed().await;
    }
}
