//! The fleet at a glance: tiles, counts and installations, made of what is known. One board is
//! shared by all pages that are open; what did not change is taken over from the one before.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::super::View;
use super::super::error::No;
use super::look::{self, LOOKS, Look};
use super::{html, text};
use crate::model::Mac;
use crate::model::event::size;

/// Installations that are listed; the hall shows the others.
const LISTED: usize = 16;
/// The longest name on a tile, in characters.
const NAME: usize = 64;

/// One machine in the hall.
#[derive(Debug)]
pub struct Tile {
    pub mac: Mac,
    pub look: &'static Look,
    pub html: String,
    face: Face,
    /// What a search looks into, in lower case.
    words: String,
}

/// What of a machine is on its tile.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Face {
    id: String,
    name: String,
    class: &'static str,
    percent: Option<u8>,
}

/// One installation on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Install {
    id: String,
    name: String,
    profile: Option<String>,
    attempt: u32,
    stage: Option<&'static str>,
    percent: Option<u8>,
    bytes: Option<String>,
    rate: Option<String>,
    left: Option<String>,
    since: Option<String>,
}

#[derive(Debug, Default)]
pub struct Board {
    /// Grows with each change of a tile.
    pub version: u64,
    /// By name, numbers in it by their value: as machines stand in a hall.
    pub tiles: Vec<Arc<Tile>>,
    /// The longest under way first.
    pub installs: Vec<Install>,
    /// How many are being installed, listed or not.
    pub installing: usize,
}

/// Which machines are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Filter {
    pub state: Option<String>,
    pub q: Option<String>,
}

impl Filter {
    /// Nothing that was asked for by an empty field.
    pub fn tidy(self) -> Filter {
        let tidy = |text: Option<String>| {
            let text: String = text?.trim().to_lowercase().chars().take(NAME).collect();
            (!text.is_empty()).then_some(text)
        };
        Filter { state: tidy(self.state), q: tidy(self.q) }
    }

    pub fn takes(&self, tile: &Tile) -> bool {
        self.state.as_ref().is_none_or(|s| tile.look.word == s)
            && self.q.as_ref().is_none_or(|q| q.split_whitespace().all(|w| tile.words.contains(w)))
    }
}

impl Board {
    /// The board of `views`; tiles that look as they did are those of `before`.
    ///
    /// # Errors
    /// Where a tile cannot be made.
    pub fn after(before: &Board, views: &[View], now: Timestamp) -> Result<Board, No> {
        let old: HashMap<Mac, &Arc<Tile>> = before.tiles.iter().map(|t| (t.mac, t)).collect();
        let tile = |view: &View| {
            let (face, words) = (Face::of(view), words(view));
            match old.get(&view.mac).filter(|t| t.face == face && t.words == words) {
                Some(tile) => Ok(Arc::clone(tile)),
                None => Tile::new(view, face, words),
            }
        };
        let mut tiles = views.iter().map(tile).collect::<Result<Vec<_>, No>>()?;
        tiles.sort_by_cached_key(|t| (natural(&t.face.name), t.mac));
        let same = tiles.len() == before.tiles.len()
            && tiles.iter().zip(&before.tiles).all(|(a, b)| Arc::ptr_eq(a, b));

        let mut under_way: Vec<&View> = views.iter().filter(|v| v.state == "installing").collect();
        under_way.sort_by_key(|v| (v.since, v.mac));
        let installing = under_way.len();
        let installs = under_way.into_iter().take(LISTED).map(|v| Install::of(v, now)).collect();
        let version = before.version + u64::from(!same);
        Ok(Board { version, tiles, installs, installing })
    }

    pub fn counts(&self, filter: &Filter) -> Counts {
        let mut by: HashMap<&str, usize> = HashMap::new();
        for tile in &self.tiles {
            *by.entry(tile.look.word).or_default() += 1;
        }
        let all = self.tiles.len();
        let q = filter.q.as_deref();
        let mut x = 0;
        let counts = LOOKS.iter().filter_map(|look| {
            let n = by.get(look.word).copied().unwrap_or(0);
            let current = filter.state.as_deref() == Some(look.word);
            if n == 0 && !current {
                return None;
            }
            let (from, to) = (x * 1000 / all.max(1), (x + n) * 1000 / all.max(1));
            x += n;
            Some(Count {
                look,
                n,
                current,
                href: address("/", Some(look.word), q),
                x: from,
                width: to - from,
            })
        });
        Counts {
            counts: counts.collect(),
            all,
            whole: filter.state.is_none(),
            href: address("/", None, q),
        }
    }
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Counts {
    counts: Vec<Count>,
    all: usize,
    /// Whether all states are shown.
    whole: bool,
    href: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Count {
    look: &'static Look,
    n: usize,
    current: bool,
    href: String,
    /// Its place in the bar of all, in thousandths.
    x: usize,
    width: usize,
}

/// The address of a page of some of the machines.
pub fn address(path: &str, state: Option<&str>, q: Option<&str>) -> String {
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let parts = [("state", state), ("q", q)];
    let parts: Vec<String> =
        parts.iter().filter_map(|(k, v)| v.map(|v| format!("{k}={}", encode(v)))).collect();
    if parts.is_empty() { path.into() } else { format!("{path}?{}", parts.join("&")) }
}

impl Tile {
    fn new(view: &View, face: Face, words: String) -> Result<Arc<Tile>, No> {
        let html = html::fill("tile.html", &face)?.trim_end().to_string();
        let look = look::of(view.state);
        Ok(Arc::new(Tile { mac: view.mac, look, html, face, words }))
    }

    /// To be put in the place of the one that a page has. Where another tile follows, HTML needs no
    /// end tag, and two thousand are sent without.
    pub fn anew(&self) -> String {
        self.html.replacen("<li", "<li hx-swap-oob=outerMorph", 1) + "</li>"
    }
}

impl Face {
    fn of(view: &View) -> Face {
        let installing = view.state == "installing";
        Face {
            id: text::id(view.mac),
            name: shown(view),
            class: look::of(view.state).class,
            percent: view.progress.as_ref().and_then(|p| p.percent).filter(|_| installing),
        }
    }
}

impl Install {
    fn of(view: &View, now: Timestamp) -> Install {
        let progress = view.progress.as_ref();
        let left = |s: u64| text::span(i64::try_from(s).unwrap_or(i64::MAX));
        Install {
            id: text::id(view.mac),
            name: shown(view),
            profile: view.profile.clone(),
            attempt: view.attempt.unwrap_or(1),
            stage: view.stage.map(|s| s.word()),
            percent: progress.and_then(|p| p.percent),
            bytes: progress.map(|p| size(p.bytes)),
            rate: progress.filter(|p| p.rate > 0).map(|p| text::rate(p.rate)),
            left: progress.and_then(|p| p.left).filter(|s| *s > 0).map(left),
            since: view.since.map(|at| text::span(now.duration_since(at).as_secs().max(0))),
        }
    }
}

/// The name of a machine, or what stands for one.
pub fn shown(view: &View) -> String {
    match &view.name {
        Some(name) if name.chars().nth(NAME).is_some() => {
            name.chars().take(NAME).chain(['…']).collect()
        }
        Some(name) => name.clone(),
        None => view.mac.to_string(),
    }
}

fn words(view: &View) -> String {
    let facts = view.facts.as_ref();
    let of = |get: fn(&crate::model::Facts) -> &Option<String>| {
        facts.and_then(|f| get(f).clone()).unwrap_or_default()
    };
    let words = [
        view.name.clone().unwrap_or_default(),
        view.mac.to_string(),
        text::id(view.mac),
        facts.and_then(|f| f.ip).map(|ip| ip.to_string()).unwrap_or_default(),
        view.profile.clone().unwrap_or_default(),
        of(|f| &f.serial),
        of(|f| &f.product),
        of(|f| &f.manufacturer),
        of(|f| &f.asset),
    ];
    words.join(" ").to_lowercase()
}

/// A name as a key to sort by, in which `node9` comes before `node10`.
fn natural(name: &str) -> Vec<(bool, u64, String)> {
    let mut key: Vec<(bool, u64, String)> = Vec::new();
    for c in name.chars() {
        let digit = c.to_digit(10).map(u64::from);
        match (key.last_mut(), digit) {
            (Some((false, n, _)), Some(d)) => *n = n.saturating_mul(10).saturating_add(d),
            (_, Some(d)) => key.push((false, d, String::new())),
            (Some((true, _, text)), None) => text.extend(c.to_lowercase()),
            (_, None) => key.push((true, 0, c.to_lowercase().collect())),
        }
    }
    key
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn view(n: u8, name: Option<&str>, state: &'static str) -> View {
        View {
            mac: Mac([2, 0, 0, 0, 0, n]),
            name: name.map(str::to_string),
            declared: true,
            state,
            since: Some(Timestamp::UNIX_EPOCH),
            profile: Some("web".into()),
            attempt: None,
            failures: 0,
            failure: None,
            installed: None,
            facts: None,
            seen: None,
            stage: None,
            last: None,
            progress: None,
        }
    }

    fn after(before: &Board, views: &[View]) -> Board {
        Board::after(before, views, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn only_what_changed_is_made_anew() {
        let views = [
            view(1, Some("node10"), "assigned"),
            view(2, Some("node9"), "assigned"),
            view(3, None, "seen"),
        ];
        let one = after(&Board::default(), &views);
        let names: Vec<&str> = one.tiles.iter().map(|t| t.face.name.as_str()).collect();
        assert_eq!(names, ["02:00:00:00:00:03", "node9", "node10"], "as they stand in a hall");
        assert_eq!(after(&one, &views).version, one.version);

        let mut views = views;
        views[1].state = "installing";
        let two = after(&one, &views);
        assert!(two.version > one.version && Arc::ptr_eq(&two.tiles[2], &one.tiles[2]));
        assert!(!Arc::ptr_eq(&two.tiles[1], &one.tiles[1]));
        assert_eq!((two.installing, two.installs.len()), (1, 1));
    }

    #[test]
    fn a_filter_finds_by_every_word() {
        let board = after(
            &Board::default(),
            &[view(1, Some("Web1"), "failed"), view(2, Some("db1"), "seen")],
        );
        let count = |state: Option<&str>, q: Option<&str>| {
            let filter = Filter { state: state.map(Into::into), q: q.map(Into::into) }.tidy();
            board.tiles.iter().filter(|t| filter.takes(t)).count()
        };
        assert_eq!(
            (count(None, None), count(None, Some(" ")), count(Some("failed"), None)),
            (2, 2, 1)
        );
        assert_eq!((count(None, Some("WEB1 02:00")), count(None, Some("web1 db1"))), (1, 0));
        assert_eq!(address("/", Some("failed"), Some("a&b")), "/?state=failed&q=a%26b");
    }

    #[test]
    fn a_name_stays_a_name() {
        let evil = "<script>alert(1)</script>\n\u{202e}\"' onmouseover=x";
        let long = "x".repeat(10_000);
        let board =
            after(&Board::default(), &[view(1, Some(evil), "seen"), view(2, Some(&long), "seen")]);
        let html = &board.tiles[0].html;
        assert!(
            html.contains("&lt;script&gt;alert(1)&lt;/script&gt;\u{fffd}\u{fffd}&quot;&#39;"),
            "{html}"
        );
        assert!(!html.contains("<script") && !html.contains('\n'));
        assert!(board.tiles[1].html.len() < 300);
        assert!(board.tiles[1].anew().starts_with("<li hx-swap-oob=outerMorph id=m0200"));
    }
}
