//! One machine's page: its state, what it told of itself, and the waterfall of its newest boot.

use jiff::Timestamp;
use serde::Serialize;

use super::super::{View, Web};
use super::look::{self, Look};
use super::{board, text};
use crate::ledger::{End, Entry, Past};
use crate::model::diagnosis::Diagnosis;
use crate::model::event::size;
use crate::model::profile::Kind;
use crate::model::{Event, Facts, Mac, Power, Stage, Transfer, machine};

/// The width of the waterfall, in parts; a bar is never so thin that it is not seen.
const WIDTH: i64 = 1000;
const THIN: i64 = 3;

const STAGES: [(Stage, &str); 8] = [
    (Stage::Firmware, "Firmware's DHCP"),
    (Stage::Loader, "Loader"),
    (Stage::Ipxe, "iPXE's DHCP"),
    (Stage::Script, "Script"),
    (Stage::Kernel, "Kernel"),
    (Stage::Initrd, "Initrd"),
    (Stage::Answer, "Answers"),
    (Stage::System, "System"),
];

/// What is known of a machine, as its page shows it.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub id: String,
    pub name: String,
    pub mac: String,
    look: &'static Look,
    declared: bool,
    profile: Option<String>,
    attempt: Option<u32>,
    failures: u32,
    failure: Option<Failed>,
    since: Option<String>,
    seen: Option<String>,
    installed: Option<String>,
    percent: Option<u8>,
    bytes: Option<String>,
    rate: Option<String>,
    left: Option<String>,
    last: Option<String>,
}

#[derive(Debug, Serialize)]
struct Failed {
    why: String,
    step: &'static str,
    attempt: u32,
    at: String,
}

impl Shown {
    pub fn of(view: &View, now: Timestamp) -> Shown {
        let progress = view.progress.as_ref();
        let left = |s: u64| text::span(i64::try_from(s).unwrap_or(i64::MAX));
        let failed = |f: &crate::model::lifecycle::Failure| Failed {
            why: f.why.clone(),
            step: f.step.word(),
            attempt: f.attempt,
            at: text::ago(f.at, now),
        };
        Shown {
            id: text::id(view.mac),
            name: board::shown(view),
            mac: view.mac.to_string(),
            look: look::of(view.state),
            declared: view.declared,
            profile: view.profile.clone(),
            attempt: view.attempt,
            failures: view.failures,
            failure: view.failure.as_ref().map(failed),
            since: view.since.map(|at| text::span(now.duration_since(at).as_secs().max(0))),
            seen: view.seen.map(|at| text::ago(at, now)),
            installed: view.installed.map(|at| text::ago(at, now)),
            percent: progress.and_then(|p| p.percent),
            bytes: progress.map(|p| size(p.bytes)),
            rate: progress.filter(|p| p.rate > 0).map(|p| text::rate(p.rate)),
            left: progress.and_then(|p| p.left).filter(|s| *s > 0).map(left),
            last: view.last.clone(),
        }
    }
}

/// One thing that a machine told of itself.
#[derive(Debug, Serialize)]
pub struct Fact {
    name: &'static str,
    value: String,
}

pub fn facts(view: &View) -> Vec<Fact> {
    let none = Facts::of(view.mac);
    let facts = view.facts.as_ref().unwrap_or(&none);
    let all = [
        ("MAC", Some(view.mac.to_string())),
        ("Address", facts.ip.map(|ip| ip.to_string())),
        ("Architecture", facts.arch.map(str::to_string)),
        ("Maker", facts.manufacturer.clone()),
        ("Product", facts.product.clone()),
        ("Serial", facts.serial.clone()),
        ("Asset tag", facts.asset.clone()),
        ("UUID", facts.uuid.clone()),
        ("Memory", facts.memsize.map(|mib| format!("{mib} MiB"))),
        ("iPXE", facts.version.clone()),
    ];
    all.into_iter().filter_map(|(name, value)| Some(Fact { name, value: value? })).collect()
}

/// What can be asked of a machine.
#[derive(Debug, Serialize)]
pub struct Choices {
    /// Profiles that install, and whether each is the one that it has.
    pub installs: Vec<(String, bool)>,
    /// Profiles that run without being installed.
    pub live: Vec<(String, bool)>,
    /// Whether it can be switched on, and whether also off.
    pub on: bool,
    pub off: bool,
}

impl Choices {
    pub fn of(web: &Web, view: &View) -> Choices {
        let config = web.config.load();
        let has = view.profile.as_deref();
        let named = |kind: Kind, chosen: Option<&str>| {
            let of = |p: &&crate::model::Profile| p.kind == kind;
            let pair =
                |p: &crate::model::Profile| (p.name.clone(), Some(p.name.as_str()) == chosen);
            config.profiles.iter().filter(of).map(pair).collect()
        };
        let facts = view.facts.clone().unwrap_or_else(|| Facts::of(view.mac));
        let power = machine::find(&config.machines, &facts).map(|m| &m.power);
        Choices {
            installs: named(Kind::Install, has),
            live: named(Kind::Live, config.life.rescue.as_deref()),
            on: web.power.is_some(),
            off: web.power.is_some() && power.is_some_and(|p| *p != Power::WakeOnLan),
        }
    }
}

/// A boot as a waterfall.
#[derive(Debug, Default, Serialize)]
pub struct Waterfall {
    began: Option<String>,
    lasts: Option<String>,
    lanes: Vec<Lane>,
    rows: Vec<Row>,
}

/// A stage of it, from its first sign to its last.
#[derive(Debug, Serialize)]
struct Lane {
    title: &'static str,
    word: &'static str,
    x: i64,
    width: i64,
    /// How long it was, or when, where it was a moment.
    lasts: String,
}

/// One entry, or a file that was asked for and then sent.
#[derive(Debug, Serialize)]
struct Row {
    at: String,
    stage: &'static str,
    what: &'static str,
    detail: String,
    x: i64,
    width: i64,
    /// How far it came, if that was not all.
    note: Option<String>,
    /// It wants a person's eye.
    bad: bool,
}

/// From one moment to another, in milliseconds since the boot began.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: i64,
    to: i64,
}

impl Span {
    /// Where it lies on the whole width.
    fn place(self, whole: i64) -> (i64, i64) {
        let part = |ms: i64| ms.clamp(0, whole) * WIDTH / whole.max(1);
        let width = (part(self.to) - part(self.from)).max(THIN);
        (part(self.from).min(WIDTH - width), width)
    }
}

impl Waterfall {
    pub fn of(timeline: &[Entry], now: Timestamp) -> Waterfall {
        let Some(began) = timeline.iter().map(start).min() else {
            return Waterfall::default();
        };
        let last = timeline.iter().filter(|e| is_of_boot(e)).map(|e| e.at).max();
        let last = last.unwrap_or(began);
        let whole = text::between(began, last).max(1);
        let mut all: Vec<(Span, &Entry)> = Vec::new();
        for entry in timeline {
            let span = Span {
                from: text::between(began, start(entry)),
                to: text::between(began, entry.at),
            };
            // What was asked for and what was sent are one bar.
            let asked = entry.event.transfer.as_ref().and_then(|sent| {
                let same = |(_, e): &(Span, &Entry)| asks_for(e, entry.event.stage, sent);
                all.iter().rposition(same)
            });
            match asked {
                Some(asked) => {
                    let from = all[asked].0.from.min(span.from);
                    all[asked] = (Span { from, to: span.to }, entry);
                }
                None => all.push((span, entry)),
            }
        }
        let lane = |(stage, title): &(Stage, &'static str)| {
            let its = || {
                all.iter()
                    .filter(|(_, e)| e.event.stage == *stage && is_of_boot(e))
                    .map(|(s, _)| *s)
            };
            let from = its().map(|s| s.from).min()?;
            let to = its().map(|s| s.to).max()?;
            let (x, width) = Span { from, to }.place(whole);
            let lasts = match to - from {
                0 => format!("at {}", text::millis(from)),
                lasts => text::millis(lasts),
            };
            Some(Lane { title, word: stage.word(), x, width, lasts })
        };
        Waterfall {
            began: Some(text::ago(began, now)),
            lasts: Some(text::millis(whole)),
            lanes: STAGES.iter().filter_map(lane).collect(),
            rows: all.iter().map(|(span, entry)| Row::of(*span, entry, whole)).collect(),
        }
    }
}

/// Whether an entry is a part of the boot itself. What a person orders weeks later, and a system that
/// renews its lease for as long as it runs, stretch no bar.
fn is_of_boot(entry: &Entry) -> bool {
    let Event { stage, what, .. } = &entry.event;
    let ordered = matches!(*what, "assigned" | "local" | "rescue" | "forgotten" | "alarm");
    let renewed = *stage == Stage::System && what.starts_with("DHCP");
    !(ordered || renewed)
}

/// When what an entry tells began: a file that was sent took its time until then.
fn start(entry: &Entry) -> Timestamp {
    let took = entry.event.transfer.as_ref().map_or(0, |t| i64::try_from(t.millis).unwrap_or(0));
    let took = jiff::SignedDuration::from_millis(took);
    entry.at.checked_sub(took).unwrap_or(entry.at)
}

fn asks_for(entry: &Entry, stage: Stage, sent: &Transfer) -> bool {
    let event = &entry.event;
    event.transfer.is_none()
        && event.stage == stage
        && matches!(event.what, "GET" | "RRQ")
        && event.detail.starts_with(&sent.name)
}

impl Row {
    fn of(span: Span, entry: &Entry, whole: i64) -> Row {
        let event = &entry.event;
        let (x, width) = span.place(whole);
        // How fast the others left is in their words.
        let cut = event.transfer.as_ref().filter(|t| t.sent < t.total);
        let note = cut.map(|t| {
            let percent = u128::from(t.sent) * 100 / u128::from(t.total.max(1));
            format!("{percent} % of {}", size(t.total))
        });
        Row {
            at: text::millis(span.from),
            stage: event.stage.word(),
            what: event.what,
            detail: event.detail.clone(),
            x,
            width,
            note,
            bad: matches!(event.what, "refused" | "cut" | "failed"),
        }
    }
}

/// A boot as it is kept.
#[derive(Debug, Serialize)]
pub struct Boot {
    /// What its page is known by: when it began, in milliseconds.
    key: i64,
    began: String,
    at: String,
    lasted: String,
    end: &'static str,
    /// It came to no good end.
    bad: bool,
    profile: Option<String>,
    attempt: Option<u32>,
    bytes: String,
    diagnosis: Option<Diagnosis>,
}

impl Boot {
    pub fn of(past: &Past, now: Timestamp) -> Boot {
        let (end, bad) = match past.end {
            End::Runs => ("On its way", false),
            End::Installed => ("Installed", false),
            End::Failed => ("Failed", true),
            End::Local => ("Its own disk", false),
            End::Booted => ("Booted", false),
            End::Stopped => ("Stopped", true),
        };
        let last = past.ended.unwrap_or(past.last);
        Boot {
            key: past.began.as_millisecond(),
            began: text::ago(past.began, now),
            at: format!("{:.0}", past.began),
            lasted: text::millis(text::between(past.began, last).max(0)),
            end,
            bad,
            profile: past.profile.clone(),
            attempt: past.attempt,
            bytes: size(past.bytes),
            diagnosis: past.diagnosis.clone(),
        }
    }

    pub fn is(past: &Past, key: i64) -> bool {
        past.began.as_millisecond() == key
    }
}

/// The newest boot of a machine.
pub fn waterfall(web: &Web, mac: Mac, now: Timestamp) -> Waterfall {
    Waterfall::of(&web.ledger.get(mac).map(|k| k.timeline).unwrap_or_default(), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: i64, event: Event) -> Entry {
        Entry { at: Timestamp::from_millisecond(ms).unwrap(), event }
    }

    #[test]
    fn a_file_is_one_bar() {
        let transfer = Transfer { name: "linux".into(), sent: 500, total: 1000, millis: 400 };
        let timeline = [
            entry(1000, Event::new(Stage::Firmware, "DHCPDISCOVER", "")),
            entry(1500, Event::new(Stage::Kernel, "GET", "linux (1.00 kB)")),
            entry(2000, Event::new(Stage::Kernel, "cut", "linux").with(transfer)),
        ];
        let fall = Waterfall::of(&timeline, Timestamp::from_millisecond(3000).unwrap());
        assert_eq!(
            (fall.rows.len(), fall.lanes.len(), fall.lasts.as_deref()),
            (2, 2, Some("1.00 s"))
        );
        let row = &fall.rows[1];
        assert_eq!((row.x, row.width, row.bad), (500, 500, true));
        assert_eq!(row.note.as_deref(), Some("50 % of 1.00 kB"));
        assert_eq!((fall.rows[0].x, fall.rows[0].width), (0, THIN));
    }

    #[test]
    fn what_comes_weeks_later_stretches_nothing() {
        let timeline = [
            entry(1000, Event::new(Stage::Firmware, "DHCPDISCOVER", "")),
            entry(3000, Event::new(Stage::System, "report", "done")),
            entry(86_400_000, Event::new(Stage::System, "DHCPACK", "10.0.0.9")),
            entry(99_000_000, Event::new(Stage::System, "assigned", "is to be installed")),
        ];
        let fall = Waterfall::of(&timeline, Timestamp::UNIX_EPOCH);
        assert_eq!((fall.rows.len(), fall.lasts.as_deref()), (4, Some("2.00 s")));
        assert_eq!(fall.lanes[1].lasts, "at 2.00 s");
        assert!(fall.rows.iter().all(|r| r.x + r.width <= WIDTH), "{:?}", fall.rows);
    }

    #[test]
    fn clocks_and_times_that_make_no_sense_stay_on_the_page() {
        let far = Transfer { name: "x".into(), sent: 1, total: 1, millis: u64::MAX };
        let timeline = [
            entry(1000, Event::new(Stage::System, "sent", "x").with(far)),
            entry(0, Event::new(Stage::Firmware, "DHCPDISCOVER", "")),
        ];
        let fall = Waterfall::of(&timeline, Timestamp::UNIX_EPOCH);
        for row in &fall.rows {
            assert!(row.x >= 0 && row.width >= THIN && row.x + row.width <= WIDTH, "{row:?}");
        }
        assert!(Waterfall::of(&[], Timestamp::UNIX_EPOCH).rows.is_empty());
    }
}
