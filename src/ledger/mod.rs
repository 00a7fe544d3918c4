//! The only writer of what is known of machines.
//!
//! 1. [`Ledger::learn`] keeps the facts that a machine told of itself.
//! 2. [`Ledger::record`] puts an event on the machine's timeline, and writes it to the log.
//! 3. [`Ledger::open_boot`] makes the random token under which one boot of one machine finds its
//!    answers and reports back; [`Ledger::booted`] is all that one script tells.
//! 4. [`Ledger::refused`] counts and logs every silence and refusal by its name.
//!
//! All of it is bounded: a network full of made-up MAC addresses pushes out the machine that was
//! heard of longest ago, never more than [`MACHINES`] at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::model::event::{DETAIL_LIMIT, plain};
use crate::model::{Event, Facts, Mac, Stage, Why};

/// Machines kept at once.
pub const MACHINES: usize = 20_000;
/// Events kept of one boot; the first and the newest tell most, so the middle goes.
pub const EVENTS: usize = 400;
/// A boot's token is forgotten after this long.
pub const BOOT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Longer than any stage of a boot keeps silent before iPXE's DHCP.
const PAUSE: SignedDuration = SignedDuration::from_secs(120);
/// Alarms kept; the one that was last heard of longest ago makes room.
pub const ALARMS: usize = 200;
/// Lines of machines' steps in the log: at once (2,000 machines boot with some 20 each), and a
/// second in the long run. Timelines have them all.
const LINES: u64 = 50_000;
const LINES_A_SECOND: u64 = 500;
/// One that nothing is heard of any more is over.
const ALARM_LIFE: SignedDuration = SignedDuration::from_secs(24 * 3600);
/// Of one kind; more are not taken up.
const ALARMS_ALIKE: usize = 64;
/// One that goes on is in the log this often.
const ALARM_AGAIN: SignedDuration = SignedDuration::from_secs(3600);
/// Characters of what an alarm is about.
const ABOUT_LIMIT: usize = 64;
/// Boots with a living token at once.
pub const BOOTS: usize = 40_000;

/// One entry of a timeline.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Entry {
    pub at: Timestamp,
    #[serde(flatten)]
    pub event: Event,
}

/// What is known of one machine.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Known {
    pub mac: Mac,
    /// The name it is declared by, once a decision has found it.
    pub name: Option<String>,
    pub facts: Facts,
    pub seen: Timestamp,
    /// The timeline of the newest boot.
    pub timeline: Vec<Entry>,
    /// When our loader was last handed to the machine, and to whom: the end of every loop (see
    /// `dhcp::decide`).
    #[serde(skip)]
    pub handed: Option<Handed>,
    /// The time under which it stands in the order of who was heard of.
    #[serde(skip)]
    ordered: Timestamp,
}

/// Our loader handed to a machine, and not yet seen at work by a request for its script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    pub at: Timestamp,
    /// To an iPXE that was there already: the features it named in option 175. `None`: to the
    /// firmware.
    pub features: Option<Vec<u8>>,
    /// How many times in a row.
    pub times: u8,
}

/// One boot of one machine.
#[derive(Clone, Debug)]
pub struct Boot {
    pub mac: Mac,
    pub profile: String,
    /// As they were when it began: its answers are made of these.
    pub facts: Facts,
    pub since: Timestamp,
}

/// One script for one machine, as the ledger sees it.
#[derive(Debug)]
pub struct Script<'a> {
    pub facts: Facts,
    /// The name that the machine is declared by.
    pub name: Option<&'a str>,
    /// The token (128 random bits in hex) and the profile of the boot that it opens.
    pub boot: Option<(String, &'a str)>,
    pub event: Event,
}

#[derive(Default)]
struct State {
    machines: HashMap<Mac, Known>,
    /// By when they were last heard of: who makes room is found without a search.
    order: BTreeSet<(Timestamp, Mac)>,
    by_ip: HashMap<Ipv4Addr, Mac>,
    boots: HashMap<String, Boot>,
    /// The token of each machine's newest boot.
    newest: HashMap<Mac, String>,
    /// Those of the boots, in the order in which they were opened.
    tokens: VecDeque<String>,
    refused: BTreeMap<(&'static str, &'static str), u64>,
    alarms: BTreeMap<(&'static str, String), Alarm>,
    lines: Lines,
}

/// How many lines the log may still have: a flood of made-up machines shall not fill the disk.
#[derive(Default)]
struct Lines {
    left: u64,
    filled: Option<Timestamp>,
    left_out: u64,
}

impl Lines {
    /// Whether `n` more may be written; and how many were not, since the last that were.
    fn take(&mut self, n: u64, now: Timestamp) -> Option<u64> {
        let millis = |f| u64::try_from(now.duration_since(f).as_millis()).unwrap_or(0);
        // A clock that was set back starts the count anew.
        self.filled = self.filled.map(|f| f.min(now));
        let since = self.filled.map_or(u64::MAX, millis);
        let more = since.saturating_mul(LINES_A_SECOND) / 1000;
        if more > 0 {
            self.filled = Some(now);
            self.left = self.left.saturating_add(more).min(LINES);
        }
        if self.left < n {
            self.left_out += n;
            return None;
        }
        self.left -= n;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Something that a person has to look at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Alarm {
    /// What kind: `other-dhcp-server`.
    pub name: &'static str,
    /// Who or what it is about: an address, a MAC.
    pub about: String,
    pub text: String,
    pub first: Timestamp,
    pub last: Timestamp,
    pub times: u64,
    /// When it was last put into the log.
    #[serde(skip)]
    told: Timestamp,
}

#[derive(Default)]
pub struct Ledger {
    state: Mutex<State>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger::default()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere must not silence every other machine; the state is valid between any
        // two statements of this file.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What a machine told of itself, kept; the newest word on each fact counts.
    pub fn learn(&self, facts: Facts, now: Timestamp) {
        let mut state = self.state();
        state.at(facts.ip, facts.mac);
        state.known(facts.mac, now).facts.learn(facts);
    }

    /// What a machine told of itself by HTTP, in place of all that was told so before: a fact that
    /// somebody else planted under its address does not outlive its own next word. Returns what is
    /// known now; architecture, UUID and address that DHCP told stay where this has none.
    pub fn told(&self, mut facts: Facts, now: Timestamp) -> Facts {
        let mut state = self.state();
        let old = &mut state.known(facts.mac, now).facts;
        facts.arch = facts.arch.or(old.arch);
        facts.uuid = facts.uuid.or_else(|| old.uuid.take());
        facts.ip = facts.ip.or(old.ip);
        *old = facts.clone();
        state.at(facts.ip, facts.mac);
        facts
    }

    /// Puts `event` on the machine's timeline and into the log; see [`begins`] for where a new
    /// timeline begins.
    pub fn record(&self, mac: Mac, event: Event, now: Timestamp) {
        let may = self.state().lines.take(1, now);
        log(may, mac, std::slice::from_ref(&event));
        self.state().known(mac, now).push(event, now);
    }

    /// All that one exchange of DHCP tells, in one step: [`Ledger::learn`], [`Ledger::set_handed`]
    /// where there is something to remember, and [`Ledger::record`].
    pub fn exchanged(
        &self,
        facts: Facts,
        handed: Option<Option<Handed>>,
        events: Vec<Event>,
        now: Timestamp,
    ) {
        let mac = facts.mac;
        let may = self.state().lines.take(events.len() as u64, now);
        log(may, mac, &events);
        let mut state = self.state();
        state.at(facts.ip, mac);
        let known = state.known(mac, now);
        known.facts.learn(facts);
        if let Some(handed) = handed {
            known.handed = handed;
        }
        for event in events {
            known.push(event, now);
        }
    }

    /// All that one script tells, in one step: the loader that was handed out works, so that what
    /// comes next is another boot; [`Ledger::named`] and [`Ledger::open_boot`] where there is a name
    /// and a profile, and [`Ledger::record`].
    pub fn booted(&self, script: Script<'_>, now: Timestamp) {
        let mac = script.facts.mac;
        let may = self.state().lines.take(1, now);
        log(may, mac, std::slice::from_ref(&script.event));
        let mut state = self.state();
        let known = state.known(mac, now);
        known.handed = None;
        if script.name.is_some() && known.name.as_deref() != script.name {
            known.name = script.name.map(str::to_string);
        }
        known.push(script.event, now);
        if let Some((token, profile)) = script.boot {
            state.open_boot(token, script.facts, profile, now);
        }
    }

    /// A silence or refusal, counted under its room and name and logged with its sentence; on the
    /// timeline too where the machine is known.
    pub fn refused(&self, room: &'static str, mac: Option<Mac>, why: &dyn Why, now: Timestamp) {
        let times = {
            let mut state = self.state();
            let times = state.refused.entry((room, why.name())).or_default();
            *times += 1;
            *times
        };
        let who = mac.map(|m| format!(" ({m})")).unwrap_or_default();
        if why.is_everyday() {
            tracing::debug!(target: "pilotlight", room, why = why.name(), times, "{room}: {why}{who}");
            return;
        }
        // A flood of one kind is not a flood of the log: the first hundred, then every hundredth.
        if times <= 100 || times.is_multiple_of(100) {
            tracing::info!(target: "pilotlight", room, why = why.name(), times, "{room}: {why}{who}");
        }
        let mut state = self.state();
        let Some(known) =
            mac.filter(|m| state.machines.contains_key(m)).map(|m| state.known(m, now))
        else {
            return;
        };
        // It belongs to whatever the machine was at.
        let stage = known.timeline.last().map_or(Stage::Firmware, |e| e.event.stage);
        let event = Event::new(stage, "refused", why.to_string());
        let again = known.timeline.last().is_some_and(|e| e.event.detail == event.detail);
        if !again && known.timeline.len() < EVENTS {
            known.timeline.push(Entry { at: now, event });
        }
    }

    /// Something that a person has to look at: into the log when it begins and while it goes on
    /// every hour, and among [`Ledger::alarms`].
    pub fn alarm(&self, name: &'static str, about: &str, text: String, now: Timestamp) {
        let mut state = self.state();
        let about = plain(about, ABOUT_LIMIT);
        let key = (name, about.clone());
        let again = state.alarms.contains_key(&key);
        state.alarms.retain(|_, a| now.duration_since(a.last).abs() < ALARM_LIFE);
        let alike = state.alarms.keys().filter(|(n, _)| *n == name).count();
        if !again && alike >= ALARMS_ALIKE {
            // Whoever makes up a thousand of them shall not hide the first.
            return;
        }
        if !again && state.alarms.len() >= ALARMS {
            let oldest = state.alarms.iter().min_by_key(|(_, a)| a.last).map(|(k, _)| k.clone());
            oldest.and_then(|k| state.alarms.remove(&k));
        }
        let text = plain(&text, DETAIL_LIMIT);
        let new = Alarm { name, about, text, first: now, last: now, times: 0, told: now };
        let alarm = state.alarms.entry(key).or_insert(new);
        alarm.times += 1;
        alarm.last = now;
        if again && now.duration_since(alarm.told).abs() < ALARM_AGAIN {
            return;
        }
        alarm.told = now;
        tracing::warn!(target: "pilotlight", alarm = name, "{}", alarm.text);
    }

    /// What a person has to look at, by kind.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.state().alarms.values().cloned().collect()
    }

    /// How often each refusal happened: `((room, name), times)`.
    pub fn refusals(&self) -> Vec<((&'static str, &'static str), u64)> {
        self.state().refused.iter().map(|(k, v)| (*k, *v)).collect()
    }

    /// The name a machine is declared by.
    pub fn named(&self, mac: Mac, name: &str, now: Timestamp) {
        self.state().known(mac, now).name = Some(name.to_string());
    }

    pub fn facts(&self, mac: Mac) -> Option<Facts> {
        self.state().machines.get(&mac).map(|k| k.facts.clone())
    }

    pub fn get(&self, mac: Mac) -> Option<Known> {
        self.state().machines.get(&mac).cloned()
    }

    /// What was known of a machine before it asked: its facts, and the loader that was handed to it.
    pub fn before(&self, mac: Mac) -> Option<(Facts, Option<Handed>)> {
        self.state().machines.get(&mac).map(|k| (k.facts.clone(), k.handed.clone()))
    }

    /// All machines, by MAC.
    pub fn list(&self) -> Vec<Known> {
        let mut all: Vec<Known> = self.state().machines.values().cloned().collect();
        all.sort_by_key(|k| k.mac);
        all
    }

    /// Who was last known to have this address: from its lease, or from what it told us.
    pub fn by_ip(&self, ip: Ipv4Addr) -> Option<Mac> {
        self.state().by_ip.get(&ip).copied()
    }

    pub fn set_handed(&self, mac: Mac, handed: Option<Handed>, now: Timestamp) {
        self.state().known(mac, now).handed = handed;
    }

    /// A new boot of `mac` with `profile` under `token` (128 random bits in hex, made by the
    /// caller, who has the dice).
    pub fn open_boot(&self, token: String, facts: Facts, profile: &str, now: Timestamp) {
        self.state().open_boot(token, facts, profile, now);
    }

    /// The newest boot of a machine that still lives, and its token.
    pub fn newest_boot(&self, mac: Mac, now: Timestamp) -> Option<(String, Boot)> {
        let token = self.state().newest.get(&mac).cloned()?;
        let boot = self.boot(&token, now)?;
        Some((token, boot))
    }

    /// The boot that a token belongs to, while it lives.
    pub fn boot(&self, token: &str, now: Timestamp) -> Option<Boot> {
        let old = now - SignedDuration::try_from(BOOT_LIFE).unwrap_or(SignedDuration::MAX);
        self.state().boots.get(token).filter(|b| b.since > old).cloned()
    }
}

/// Whether `event` is the first of a new boot. A `DHCPDISCOVER` of the firmware is, unless the
/// timeline there is has got no further itself (a client repeats its DISCOVER until it likes an
/// offer). One of iPXE is where iPXE is the machine's own ROM: then the boot before has reached its
/// kernel, or lies [`PAUSE`] back.
fn begins(timeline: &[Entry], event: &Event, now: Timestamp) -> bool {
    let beyond = |stage| timeline.iter().any(|e| e.event.stage > stage);
    let paused = timeline.last().is_some_and(|e| now.duration_since(e.at) > PAUSE);
    event.what == "DHCPDISCOVER"
        && match event.stage {
            Stage::Firmware => beyond(Stage::Firmware),
            Stage::Ipxe => beyond(Stage::Script) || paused,
            _ => false,
        }
}

fn log(may: Option<u64>, mac: Mac, events: &[Event]) {
    let Some(left_out) = may else { return };
    if left_out > 0 {
        tracing::warn!(
            target: "pilotlight",
            "{left_out} lines of machines' steps were left out of this log: more than {LINES} at \
             once; `pilotlight timeline` has them"
        );
    }
    for event in events {
        tracing::info!(target: "pilotlight", mac = %mac, stage = event.stage.word(), "{} {}", event.what, event.detail);
    }
}

impl Known {
    fn push(&mut self, event: Event, now: Timestamp) {
        if begins(&self.timeline, &event, now) {
            self.timeline.clear();
        }
        if self.timeline.len() >= EVENTS {
            self.timeline.remove(EVENTS / 2);
        }
        self.timeline.push(Entry { at: now, event });
    }
}

impl State {
    fn open_boot(&mut self, token: String, facts: Facts, profile: &str, now: Timestamp) {
        // The oldest makes room, without a search.
        while self.boots.len() >= BOOTS
            && let Some(oldest) = self.tokens.pop_front()
        {
            let gone = self.boots.remove(&oldest);
            if let Some(boot) = gone
                && self.newest.get(&boot.mac) == Some(&oldest)
            {
                self.newest.remove(&boot.mac);
            }
        }
        self.newest.insert(facts.mac, token.clone());
        let boot = Boot { mac: facts.mac, profile: profile.to_string(), facts, since: now };
        self.tokens.push_back(token.clone());
        self.boots.insert(token, boot);
    }

    fn at(&mut self, ip: Option<Ipv4Addr>, mac: Mac) {
        let Some(ip) = ip else { return };
        if self.by_ip.len() >= 2 * MACHINES {
            self.by_ip.clear();
        }
        self.by_ip.insert(ip, mac);
    }

    fn known(&mut self, mac: Mac, now: Timestamp) -> &mut Known {
        if self.machines.len() >= MACHINES
            && !self.machines.contains_key(&mac)
            && let Some((_, oldest)) = self.order.pop_first()
            && let Some(gone) = self.machines.remove(&oldest)
            && let Some(ip) = gone.facts.ip
            && self.by_ip.get(&ip) == Some(&oldest)
        {
            self.by_ip.remove(&ip);
        }
        let order = &mut self.order;
        let known = self.machines.entry(mac).or_insert_with(|| {
            order.insert((now, mac));
            Known {
                mac,
                name: None,
                facts: Facts::of(mac),
                seen: now,
                timeline: Vec::new(),
                handed: None,
                ordered: now,
            }
        });
        // A machine says many things in a second, and the second is exact enough to tell who was
        // heard of longest ago.
        if now.duration_since(known.ordered).unsigned_abs() >= Duration::from_secs(1) {
            order.remove(&(known.ordered, mac));
            order.insert((now, mac));
            known.ordered = now;
        }
        known.seen = now;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn a_timeline_begins_with_the_firmware_and_is_bounded() {
        let ledger = Ledger::new();
        let now = Timestamp::UNIX_EPOCH;
        let discover = || Event::new(Stage::Firmware, "DHCPDISCOVER", "");
        ledger.record(mac(1), discover(), now);
        ledger.record(mac(1), discover(), now);
        assert_eq!(ledger.get(mac(1)).unwrap().timeline.len(), 2, "a repeated DISCOVER");
        ledger.record(mac(1), Event::new(Stage::Kernel, "GET", "/k"), now);
        ledger.record(mac(1), discover(), now);
        assert_eq!(ledger.get(mac(1)).unwrap().timeline.len(), 1, "the next boot");
        for _ in 0..2 * EVENTS {
            ledger.record(mac(1), Event::new(Stage::System, "GET", "/x"), now);
        }
        let timeline = ledger.get(mac(1)).unwrap().timeline;
        assert_eq!(timeline.len(), EVENTS);
        assert_eq!(timeline[0].event.what, "DHCPDISCOVER");
    }

    #[test]
    fn who_was_heard_of_longest_ago_makes_room() {
        let ledger = Ledger::new();
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let numbered = |n: u32| {
            let b = n.to_be_bytes();
            Mac([2, 0, b[0], b[1], b[2], b[3]])
        };
        for n in 0..MACHINES as u32 {
            ledger.learn(Facts::of(numbered(n)), at(n.into()));
        }
        ledger.learn(Facts::of(numbered(0)), at(100_000));
        ledger.learn(Facts::of(numbered(99_999)), at(100_001));
        assert_eq!(ledger.list().len(), MACHINES);
        assert!(ledger.get(numbered(0)).is_some() && ledger.get(numbered(1)).is_none());
    }

    #[test]
    fn a_planted_fact_does_not_outlive_the_machines_own_word() {
        let ledger = Ledger::new();
        let now = Timestamp::UNIX_EPOCH;
        let arch = Some("bios");
        ledger.learn(Facts { arch, ..Facts::of(mac(1)) }, now);
        ledger.told(Facts { serial: Some("S1".into()), ..Facts::of(mac(1)) }, now);
        let own = ledger.told(Facts::of(mac(1)), now);
        assert_eq!((own.serial, own.arch), (None, arch));
    }

    #[test]
    fn a_flood_does_not_fill_the_disk() {
        let mut lines = Lines::default();
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        let written = |lines: &mut Lines, ms, n: u64| {
            (0..n).filter(|_| lines.take(1, at(ms)).is_some()).count() as u64
        };
        assert_eq!(written(&mut lines, 0, 60_000), LINES);
        assert_eq!(written(&mut lines, 1, 10), 0, "half a line is none");
        assert_eq!(lines.take(1, at(4)), Some(10_010), "and says how many are missing");
        assert_eq!(written(&mut lines, 1000, 1000), 499);
        assert_eq!(lines.take(2, at(500)), None, "a clock that goes back");
        assert_eq!(lines.take(2, at(2_000_000)), Some(503));
        written(&mut lines, 2_000_000, LINES);
        assert_eq!(lines.take(1, at(1_000)), None);
        assert!(lines.take(1, at(2_000)).is_some(), "counted anew from where the clock is");
    }

    #[test]
    fn alarms_are_bounded_and_told_again() {
        let ledger = Ledger::new();
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        for n in 0..2 * ALARMS as i64 {
            ledger.alarm("other-dhcp-server", &format!("{n:04}"), "text\n".into(), at(n));
        }
        let alarms = ledger.alarms();
        assert_eq!((alarms.len(), alarms[0].about.as_str()), (ALARMS_ALIKE, "0000"));
        ledger.alarm("other-dhcp-server", "0000", "text".into(), at(9000));
        let first = &ledger.alarms()[0];
        assert_eq!((first.times, first.first, first.last), (2, at(0), at(9000)));
        assert_eq!(first.text, "text?");
    }

    #[test]
    fn a_token_ends_with_its_day() {
        let ledger = Ledger::new();
        let now = Timestamp::UNIX_EPOCH;
        ledger.open_boot("t".into(), Facts::of(mac(1)), "p", now);
        assert_eq!(ledger.boot("t", now).unwrap().mac, mac(1));
        let later = now + SignedDuration::from_secs(24 * 3600);
        assert!(ledger.boot("t", later).is_none());
        for n in 0..BOOTS {
            ledger.open_boot(n.to_string(), Facts::of(mac(1)), "p", now);
        }
        assert!(ledger.boot("t", now).is_none(), "the oldest made room");
        assert!(ledger.boot("0", now).is_some());
    }
}
