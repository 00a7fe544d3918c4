//! One boot of a machine: its timeline, and what goes on beside it.
//!
//! 1. [`Known::push`] puts an entry on the timeline, or begins the next one with it; the one before
//!    is [`Over`] then.
//! 2. Files that leave are counted while they do ([`Course::sending`]), and are an entry when they
//!    have. Those that an installation fetches by the thousand are one running entry ([`Tree`]).
//! 3. [`Course::progress`] compares what has left with what the last installation of the same
//!    profile took ([`Took`]).
//! 4. [`Over::past`] is a boot as it is kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Known;
use crate::model::diagnosis::{Case, Diagnosis, diagnose};
use crate::model::event::size;
use crate::model::{Entry, Event, Facts, Life, Mac, Stage, State, Transfer};

/// Events kept of one boot; the first and the newest tell most, so the middle goes.
pub const EVENTS: usize = 400;
/// Longer than any stage of a boot keeps silent before iPXE's DHCP.
const PAUSE: SignedDuration = SignedDuration::from_secs(120);
/// Entries whose times differ by less, in the wrong order, came at once; a clock that is set back
/// differs by more.
const AT_ONCE: SignedDuration = SignedDuration::from_secs(5);
/// Of [`EVENTS`]: what is asked for and not there, over and over.
const REFUSALS: usize = 40;
/// Files on their way to one machine that are looked at; apt and dnf have five or six.
const SENDING: usize = 16;
/// Seconds of the past that a rate is made of.
const LATE: i64 = 5;
/// Seconds that are remembered for it.
const MARKS: usize = 12;
/// Names of files that a running entry shows.
const NEWEST: usize = 3;
/// Characters of each.
const NAME: usize = 60;
/// The name of the running entry's transfer.
pub const TREE: &str = "package tree";
/// Listeners hear of a running entry this often.
const TREE_NEWS: SignedDuration = SignedDuration::from_secs(1);

/// How far an installation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Of all of it, 0 to 99; not known before the profile was installed once.
    pub percent: Option<u8>,
    /// Bytes that have left for it in this boot.
    pub bytes: u64,
    /// Bytes a second, of late.
    pub rate: u64,
    /// Seconds that are left, by how long the one before took.
    pub left: Option<u64>,
}

/// What the last installation of a profile took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    pub bytes: u64,
    /// From the script to the report.
    pub seconds: u64,
}

/// How a boot came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It has not ended, as far as is known.
    Runs,
    /// Its system reported that it is installed.
    Installed,
    /// Its installation failed.
    Failed,
    /// It went on to the machine's own disk.
    Local,
    /// The system that it booted was seen at work.
    Booted,
    /// Nothing came after its `stage`.
    Stopped,
}

/// One boot of a machine as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub began: Timestamp,
    /// Its newest entry.
    pub last: Timestamp,
    /// `None` while it runs.
    pub ended: Option<Timestamp>,
    pub end: End,
    /// How far it came.
    pub stage: Stage,
    /// What it booted.
    pub profile: Option<String>,
    /// Of an installation, from 1 on.
    pub attempt: Option<u32>,
    /// Bytes of files that have left for it.
    pub bytes: u64,
    /// Where and why it stopped, if it did.
    pub diagnosis: Option<Diagnosis>,
    pub timeline: Vec<Entry>,
}

/// A file on its way.
#[derive(Clone, Debug)]
struct Sending {
    sent: Weak<AtomicU64>,
}

/// What goes on beside the timeline of a boot.
#[derive(Clone, Debug, Default)]
pub struct Course {
    pub began: Option<Timestamp>,
    /// The farthest stage.
    pub stage: Option<Stage>,
    pub profile: Option<String>,
    /// What the token of its script is known by.
    boot: Option<String>,
    pub attempt: Option<u32>,
    pub ended: Option<(Timestamp, End)>,
    /// Whether anything happened since it was last kept.
    pub changed: bool,
    /// When its machine was given a script that boots something.
    since: Option<Timestamp>,
    /// Bytes of the files that have left, or were cut.
    sent: u64,
    sending: Vec<Sending>,
    marks: VecDeque<(Timestamp, u64)>,
    tree: Tree,
    refusals: usize,
}

/// The files of an installation, as one entry.
#[derive(Clone, Debug, Default)]
struct Tree {
    /// When its first byte left.
    first: Option<Timestamp>,
    files: u64,
    cut: u64,
    sent: u64,
    total: u64,
    newest: VecDeque<String>,
    told: Option<Timestamp>,
}

/// A boot that another one has followed, or that is to be kept as it is now.
#[derive(Clone, Debug)]
pub struct Over {
    pub mac: Mac,
    pub facts: Facts,
    pub timeline: Vec<Entry>,
    pub course: Course,
    /// Whether nothing more can come.
    pub over: bool,
}

/// Whether `event` is the first of a new boot. A `DHCPDISCOVER` of the firmware is, unless the
/// timeline there is has got no further itself (a client repeats its DISCOVER until it likes an
/// offer). One of iPXE is where iPXE is the machine's own ROM: then the boot before has reached its
/// kernel, or lies [`PAUSE`] back. A machine that is chain-loaded from elsewhere shows no DISCOVER:
/// there it is the first script that is asked for after a kernel.
fn begins(timeline: &[Entry], event: &Event, now: Timestamp) -> bool {
    let beyond = |stage| timeline.iter().any(|e| e.event.stage > stage);
    let paused = timeline.last().is_some_and(|e| now.duration_since(e.at) > PAUSE);
    match (event.what, event.stage) {
        ("DHCPDISCOVER", Stage::Firmware) => beyond(Stage::Firmware),
        ("DHCPDISCOVER", Stage::Ipxe) => beyond(Stage::Script) || paused,
        ("GET", Stage::Script) => beyond(Stage::Script),
        _ => false,
    }
}

impl Known {
    /// Puts `event` on the timeline; the boot before, where it is the first of a new one.
    pub(super) fn push(&mut self, event: Event, now: Timestamp) -> Option<Over> {
        let first = self.timeline.is_empty() && event.what == "DHCPDISCOVER";
        let begins = begins(&self.timeline, &event, now);
        self.restarted |= first || begins && event.what == "DHCPDISCOVER";
        let over = if begins { self.turn() } else { None };
        match event.what {
            "refused" => self.course.refusals += 1,
            "DHCPREQUEST" if self.renews(&event, now) => {
                // A system renews its lease for as long as it runs: the newest time tells all.
                self.timeline.truncate(self.timeline.len() - 2);
            }
            _ => self.course.changed = true,
        }
        // Two that come at once take their times before their places.
        let newest = self.timeline.last().map(|e| e.at).filter(|at| *at > now);
        let now = newest.filter(|at| at.duration_since(now) < AT_ONCE).unwrap_or(now);
        let course = &mut self.course;
        course.began.get_or_insert(now);
        course.stage = course.stage.max(Some(event.stage));
        if self.timeline.len() >= EVENTS {
            self.timeline.remove(EVENTS / 2);
        }
        self.timeline.push(Entry { at: now, event });
        over
    }

    /// The boot as it was kept.
    pub(super) fn again(&mut self, past: Past, life: Option<&Life>) {
        let ended = past.ended.filter(|_| matches!(past.end, End::Installed | End::Failed));
        let runs = life.and_then(|l| l.attempt.as_ref());
        self.course = Course {
            began: Some(past.began),
            stage: Some(past.stage),
            profile: past.profile,
            boot: runs.map(|a| a.boot.clone()),
            attempt: past.attempt,
            ended: ended.map(|at| (at, past.end)),
            sent: past.bytes,
            ..Course::default()
        };
        self.timeline = past.timeline;
    }

    /// A script under another token, or after a kernel, is another start, also where no DISCOVER was
    /// seen: the boot before, if it is.
    pub(super) fn starts(&mut self, boot: &str) -> Option<Over> {
        let course = &self.course;
        let same = course.boot.as_deref() == Some(boot);
        let other = course.boot.is_some() || course.ended.is_some();
        let new = !same && (other || course.stage > Some(Stage::Script));
        let over = if new { self.turn() } else { None };
        self.course.boot = Some(boot.into());
        over
    }

    /// The timeline that there is, and an empty one in its place.
    fn turn(&mut self) -> Option<Over> {
        let (timeline, course) =
            (std::mem::take(&mut self.timeline), std::mem::take(&mut self.course));
        let facts = self.facts.clone();
        (!timeline.is_empty()).then_some(Over {
            mac: self.mac,
            facts,
            timeline,
            course,
            over: true,
        })
    }

    /// The boot as it is now.
    pub(super) fn so_far(&self) -> Option<Over> {
        let over = Over {
            mac: self.mac,
            facts: self.facts.clone(),
            timeline: self.timeline.clone(),
            course: self.course.clone(),
            over: self.course.ended.is_some(),
        };
        (!over.timeline.is_empty()).then_some(over)
    }

    fn renews(&self, event: &Event, now: Timestamp) -> bool {
        let system = |e: &Entry, what| e.event.stage == Stage::System && e.event.what == what;
        match &self.timeline[..] {
            [.., asked, given] => {
                event.stage == Stage::System
                    && system(asked, "DHCPREQUEST")
                    && system(given, "DHCPACK")
                    && now.duration_since(given.at) > PAUSE
            }
            _ => false,
        }
    }

    /// Whether one more refusal is shown.
    pub(super) fn takes_refusal(&self, detail: &str) -> bool {
        let again = self.timeline.last().is_some_and(|e| e.event.detail == detail);
        !again && self.course.refusals < REFUSALS
    }

    /// A file has left, or was cut, at `now`. What is to be told of it, if anything is.
    pub(super) fn sent(
        &mut self,
        stage: Stage,
        transfer: Transfer,
        counter: Option<&Arc<AtomicU64>>,
        now: Timestamp,
    ) -> Option<Event> {
        let course = &mut self.course;
        course.sending.retain(|s| counter.is_none_or(|c| s.sent.as_ptr() != Arc::as_ptr(c)));
        course.sent = course.sent.saturating_add(transfer.sent);
        let bytes = course.bytes();
        course.mark(now, bytes);
        if stage != Stage::System {
            let event = Event::of(stage, transfer);
            self.push(event.clone(), now);
            return Some(event);
        }
        let event = course.tree.add(transfer, now);
        // It stands where its newest file does.
        if let Some(place) = self.timeline.iter().rposition(|e| is_tree(&e.event)) {
            self.timeline.remove(place);
        }
        self.push(event.clone(), now);
        self.course.tree.tells(now).then_some(event)
    }
}

fn is_tree(event: &Event) -> bool {
    event.stage == Stage::System && matches!(event.what, "sent" | "cut")
}

impl Course {
    /// A script was handed out that boots `profile`.
    pub fn boots(&mut self, profile: &str, now: Timestamp) {
        if self.profile.as_deref() != Some(profile) {
            self.profile = Some(profile.to_string());
        }
        self.since = Some(now);
    }

    /// A file begins to leave, and `sent` counts its bytes.
    pub fn sending(&mut self, sent: &Arc<AtomicU64>, now: Timestamp) {
        self.sending.retain(|s| s.sent.strong_count() > 0);
        let bytes = self.bytes();
        self.mark(now, bytes);
        if self.sending.len() < SENDING {
            self.sending.push(Sending { sent: Arc::downgrade(sent) });
        }
    }

    /// All that has left, in the middle of files, too.
    pub fn bytes(&self) -> u64 {
        let now = |s: &Sending| s.sent.upgrade().map_or(0, |sent| sent.load(Ordering::Relaxed));
        self.sending.iter().map(now).fold(self.sent, u64::saturating_add)
    }

    /// Remembers how much had left by now: once a second, and the first time for good.
    fn mark(&mut self, now: Timestamp, bytes: u64) {
        let many = self.marks.len() > 1;
        match self.marks.back_mut() {
            Some(last) if many && last.0.as_second() == now.as_second() => *last = (now, bytes),
            _ => self.marks.push_back((now, bytes)),
        }
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
    }

    /// Bytes a second since [`LATE`] seconds ago.
    fn rate(&self, now: Timestamp, bytes: u64) -> u64 {
        let age = |at: Timestamp| now.duration_since(at).as_millis();
        let old = self.marks.iter().rev().find(|(at, _)| age(*at) >= i128::from(LATE) * 1000);
        let Some((at, then)) = old.or(self.marks.front()) else { return 0 };
        let millis = u64::try_from(age(*at)).unwrap_or(0).max(100);
        bytes.saturating_sub(*then).saturating_mul(1000) / millis
    }

    /// How far what it boots has come; nothing where it boots nothing, or is through.
    pub fn progress(&mut self, took: Option<Took>, now: Timestamp) -> Option<Progress> {
        self.profile.as_ref().filter(|_| self.ended.is_none())?;
        let bytes = self.bytes();
        let rate = self.rate(now, bytes);
        self.mark(now, bytes);
        let gone = now.duration_since(self.since.or(self.began)?).as_secs().max(0) as f64;
        let part = took.map(|took| {
            // Both halves: bytes stop long before the end, and a slow link makes time mean little.
            let of = |is: f64, all: u64| (is / all.max(1) as f64).clamp(0.0, 1.0);
            (of(bytes as f64, took.bytes) + of(gone, took.seconds)) / 2.0
        });
        let percent = part.map(|part| (part * 100.0).min(99.0) as u8);
        let left = took.zip(part).map(|(took, part)| (took.seconds as f64 * (1.0 - part)) as u64);
        Some(Progress { percent, bytes, rate, left })
    }

    /// What it took, once it is installed.
    pub fn took(&self, installed: Timestamp) -> Option<(String, Took)> {
        let seconds = installed.duration_since(self.since?).as_secs();
        let took = Took { bytes: self.bytes(), seconds: u64::try_from(seconds).ok()? };
        self.profile.clone().filter(|_| took.bytes > 0).zip(Some(took))
    }

    /// What a machine's record says of this boot. Whether it has come to its end by that.
    pub fn lives(&mut self, before: Option<&Life>, after: Option<&Life>, now: Timestamp) -> bool {
        let ran = before.and_then(|l| l.attempt.as_ref());
        if let Some(attempt) = after.and_then(|l| l.attempt.as_ref()) {
            self.attempt = Some(attempt.number);
        }
        let end = match (ran, after.map(|l| l.state)) {
            (_, Some(State::Installed)) if before.is_none_or(|l| l.state != State::Installed) => {
                End::Installed
            }
            (Some(_), Some(State::Assigned | State::Failed)) => End::Failed,
            _ => return false,
        };
        self.attempt = ran.map(|a| a.number).or(self.attempt);
        self.ended = Some((now, end));
        self.changed = true;
        true
    }
}

impl Tree {
    fn add(&mut self, transfer: Transfer, now: Timestamp) -> Event {
        let Transfer { name, sent, total, millis } = &transfer;
        let began = SignedDuration::try_from(Duration::from_millis(*millis)).unwrap_or_default();
        let began = now.checked_sub(began).unwrap_or(now);
        let first = self.first.map_or(began, |first| first.min(began));
        self.first = Some(first);
        self.files += 1;
        self.cut += u64::from(sent < total);
        self.sent = self.sent.saturating_add(*sent);
        self.total = self.total.saturating_add(*total);
        if self.newest.len() == NEWEST {
            self.newest.pop_back();
        }
        let short = name.rsplit('/').next().unwrap_or_default();
        self.newest.push_front(short.chars().take(NAME).collect());
        if self.files == 1 {
            return Event::of(Stage::System, transfer);
        }
        let millis = u64::try_from(now.duration_since(first).as_millis()).unwrap_or(0);
        let all = Transfer { name: TREE.into(), sent: self.sent, total: self.total, millis };
        let cut = match self.cut {
            0 => String::new(),
            n => format!(", {n} of them cut"),
        };
        let newest: Vec<&str> = self.newest.iter().map(String::as_str).collect();
        let detail = format!(
            "{TREE}: {} files{cut}, {}, {}/s; newest {}",
            self.files,
            size(self.sent),
            size(all.rate()),
            newest.join(", ")
        );
        let what = if sent < total { "cut" } else { "sent" };
        Event::new(Stage::System, what, detail).with(all)
    }

    fn tells(&mut self, now: Timestamp) -> bool {
        let due = self.told.is_none_or(|told| now.duration_since(told).abs() >= TREE_NEWS);
        if due {
            self.told = Some(now);
        }
        due
    }
}

impl Over {
    /// As it is kept. `rivals` are the addresses of other DHCP servers that were heard of.
    pub fn past(self, life: Option<&Life>, rivals: &[String], now: Timestamp) -> Option<Past> {
        let (began, last) = (self.timeline.first()?.at, self.timeline.last()?.at);
        let end = self.end();
        let case = Case {
            timeline: &self.timeline,
            facts: &self.facts,
            life,
            rivals,
            over: self.over,
            now,
        };
        let diagnosis = diagnose(&case).filter(|_| end != End::Installed || !self.over);
        let ended = self.course.ended.map(|(at, _)| at).or(self.over.then_some(last));
        Some(Past {
            began: self.course.began.unwrap_or(began),
            last,
            ended,
            end,
            stage: self.course.stage.unwrap_or(Stage::Firmware),
            profile: self.course.profile.clone(),
            attempt: self.course.attempt,
            bytes: self.course.bytes(),
            diagnosis,
            timeline: self.timeline,
        })
    }

    fn end(&self) -> End {
        if let Some((_, end)) = self.course.ended {
            return end;
        }
        let local =
            |e: &Entry| e.event.stage == Stage::Script && e.event.detail.contains(": local disk: ");
        match self.course.stage {
            _ if self.timeline.iter().any(local) => End::Local,
            Some(Stage::System) if self.course.profile.is_some() => match self.over {
                true => End::Booted,
                false => End::Runs,
            },
            _ if self.over => End::Stopped,
            _ => End::Runs,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Ledger, Script};
    use super::*;

    /// What recording costs a boot of 20 steps, in microseconds, with a listener and without: `cargo
    /// test --release --lib ledger::timeline::tests::cost -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost() {
        const BOOTS: u32 = 20_000;
        for (silent, listens) in [(true, false), (false, false), (false, true)] {
            let ledger = Ledger::new();
            let news = listens.then(|| ledger.listen());
            if silent {
                ledger.silence();
            }
            let began = Instant::now();
            for n in 0..BOOTS {
                boot(&ledger, n);
            }
            let each = began.elapsed().as_nanos() / u128::from(BOOTS);
            println!("silent {silent}, a listener {listens}: {} us a boot", each as f64 / 1000.0);
            drop(news);
        }
    }

    fn boot(ledger: &Ledger, n: u32) {
        let b = (n % 2000).to_be_bytes();
        let mac = Mac([2, 0, b[0], b[1], b[2], b[3]]);
        let now = Timestamp::from_second(1_800_000_000 + i64::from(n)).unwrap();
        let text = "on 10.77.0.156 to 52:54:00:77:00:01 via boot0: loader snponly.efi";
        let record =
            |stage, what| ledger.record(mac, Event::new(stage, what, text.to_string()), now);
        for stage in [Stage::Firmware, Stage::Ipxe] {
            for what in ["DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK"] {
                record(stage, what);
            }
        }
        let event = Event::new(Stage::Script, "GET", text.to_string());
        ledger.booted(Script { facts: Facts::of(mac), name: Some("n"), boot: None, event }, now);
        for stage in [Stage::Loader, Stage::Kernel, Stage::Initrd, Stage::System] {
            let counter = Arc::new(AtomicU64::new(0));
            ledger.sending(mac, &counter, now);
            record(stage, "GET");
            let transfer = Transfer { name: "guest/linux".into(), sent: 9, total: 9, millis: 250 };
            ledger.sent(mac, stage, transfer, Some(&counter), now);
        }
        for what in ["report", "GET", "report"] {
            record(Stage::System, what);
        }
    }
}
