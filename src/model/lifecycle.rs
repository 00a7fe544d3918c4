//! The life of a machine: what it is to be booted into next, and why. Pure: what was, what happened
//! and `now` in, what is out.
//!
//! ```text
//!  (unknown) ── discover ──▶ Discovered
//!      │                        │
//!      └────────── assign ──────┤        from nowhere else
//!                               ▼
//!        ┌──── begin ────── Assigned ◀── reinstall (from any state, also arms it once)
//!        ▼                      ▲
//!    Installing (attempt n)     │ failed, timed out, started again; attempts are left
//!        │ │ │                  │
//!        │ │ └──────────────────┘
//!        │ └── the same, and none is left ──▶ Failed: held, never another wipe
//!        │                                      │
//!        └── done ──▶ Installed ◀─── done, late ┘
//!
//!  local:  any state ──▶ Local       its own disk, by a person's word
//!  rescue: any state ──▶ Rescue      the rescue profile at each start, until told otherwise
//!  forget: any state ──▶ (unknown)
//! ```
//!
//! Where somebody chose the profile in the menu, and nobody assigned it, a failure leads to
//! Discovered instead: it gets the menu again, and is never installed unasked.
//!
//! A machine that is declared with a profile and has no record counts as Assigned. Installed and
//! Local boot the machine's own disk, network first or not, and nothing but `reinstall` leads from
//! there to another installation: a configuration that changes never wipes a disk.
//!
//! Every event is safe to come twice, late, or forged: what does not fit the state is a [`Refused`]
//! and changes nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::plain;
use super::{Facts, Mac, Stage, Why};

/// Where a machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It showed itself and waits to be assigned.
    Discovered,
    /// Its next boot from the network installs.
    Assigned,
    Installing,
    Installed,
    /// All attempts failed; it is held.
    Failed,
    /// A person sent it to its own disk.
    Local,
    /// A person sent it to the rescue system.
    Rescue,
}

impl State {
    pub const ALL: [State; 7] = [
        State::Discovered,
        State::Assigned,
        State::Installing,
        State::Installed,
        State::Failed,
        State::Local,
        State::Rescue,
    ];

    /// As the API has it.
    pub fn word(self) -> &'static str {
        match self {
            State::Discovered => "discovered",
            State::Assigned => "assigned",
            State::Installing => "installing",
            State::Installed => "installed",
            State::Failed => "failed",
            State::Local => "local",
            State::Rescue => "rescue",
        }
    }
}

/// The durable record of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    pub mac: Mac,
    pub state: State,
    /// When it came into this state.
    pub since: Timestamp,
    /// The name it was assigned with, where the configuration declares none.
    pub name: Option<String>,
    /// The profile it was assigned, installs or has installed; of `Rescue` the rescue system.
    pub profile: Option<String>,
    /// The profile that a person wants it to be installed with, which comes before the declared
    /// one; of `Rescue` what it had before.
    #[serde(default)]
    pub wish: Option<String>,
    /// Attempts that failed since it was last armed.
    pub failures: u32,
    /// The installation that runs, while `Installing`.
    pub attempt: Option<Attempt>,
    /// The newest failure.
    pub failure: Option<Failure>,
    /// The report key of the attempt that ended last: its report may come twice, and late.
    pub ended: Option<String>,
    /// The address that it had in that attempt.
    #[serde(default)]
    pub ended_at: Option<Ipv4Addr>,
    /// The UUID it had when it last began to install: another one under its MAC is another machine.
    pub uuid: Option<String>,
    /// When it was last installed.
    pub installed: Option<Timestamp>,
}

/// One installation on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1 on.
    pub number: u32,
    pub profile: String,
    /// What its token and its report word are known by: SHA-256, in hex.
    pub boot: String,
    pub report: String,
    /// The address that the machine asked for its script from.
    pub address: Option<Ipv4Addr>,
    /// As they were when it began: its answers are made of these.
    pub facts: Facts,
    pub began: Timestamp,
    /// Without a report it counts as failed from then on.
    pub until: Timestamp,
    /// Where it was last seen.
    pub step: Stage,
    /// Somebody chose the profile in the menu.
    #[serde(default)]
    pub chosen: bool,
}

/// Why an attempt did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: Timestamp,
    pub attempt: u32,
    /// Where it was last seen.
    pub step: Stage,
    pub why: String,
}

/// What happens to a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum LifeEvent {
    /// An unknown machine showed itself, where unknown ones are to be discovered.
    Discover,
    Assign {
        name: Option<String>,
        profile: String,
    },
    /// It asks for its script, and is to be installed.
    Begin(Box<Begin>),
    /// It was seen at this step.
    Step(Stage),
    /// The installed system reports, or the installer that it gives up.
    Report {
        /// What the word in its URL is known by: SHA-256, in hex.
        report: String,
        word: Word,
    },
    /// Time passed.
    Tick,
    /// A person wants it installed again, with another profile or as before.
    Reinstall {
        profile: Option<String>,
    },
    Local,
    Rescue {
        profile: String,
    },
    Forget,
}

/// What a report says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Done,
    Failed(String),
}

/// A boot that installs.
#[derive(Clone, Debug, PartialEq)]
pub struct Begin {
    pub profile: String,
    pub boot: String,
    pub report: String,
    pub address: Option<Ipv4Addr>,
    pub facts: Facts,
    /// How long until its report must have come.
    pub timeout: Duration,
    /// How many attempts it has.
    pub attempts: u32,
    /// Whether the machine has been switched on or started again since its last script, as far as
    /// DHCP has seen.
    pub restarted: bool,
    /// Somebody chose the profile in the menu.
    pub chosen: bool,
}

/// What an event has made of a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It was so already: nothing is written, nobody is told.
    Same,
    /// The record as it is now; without one it is forgotten.
    To(Option<Box<Life>>),
}

/// Why an event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is installed: `pilotlight machine reinstall NAME --profile P` installs it again")]
    Installed,
    #[error(
        "it is being installed: `pilotlight machine reinstall NAME --profile P` ends that and \
         installs it anew"
    )]
    Installing,
    #[error(
        "it is held, or was sent to its disk or to the rescue system, and an assignment does not \
         arm it: `pilotlight machine reinstall NAME --profile P` installs it"
    )]
    Decided,
    #[error("it is not armed to be installed")]
    NotArmed,
    #[error("the report belongs to no installation that runs")]
    Stale,
    #[error("nothing is known of this machine")]
    Unknown,
}

impl Why for Refused {
    fn name(&self) -> &'static str {
        match self {
            Refused::Installed => "installed-already",
            Refused::Installing => "installing-already",
            Refused::Decided => "decided-otherwise",
            Refused::NotArmed => "not-armed",
            Refused::Stale => "stale-report",
            Refused::Unknown => "unknown-machine",
        }
    }
}

/// The longest reason of a failure that is kept, in characters.
const WHY_LIMIT: usize = 200;
/// A script that is asked for again within this time, and before anything else was fetched, is the
/// same start: iPXE repeats a request whose answer was lost, and `again.ipxe` asks for an hour.
const SAME_START: SignedDuration = SignedDuration::from_secs(3600);
/// An attempt that began further ahead than this began under a clock that was wrong: its end would
/// come that much too late.
const AHEAD: SignedDuration = SignedDuration::from_secs(3600);

impl Attempt {
    /// Whether its report should have come by `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until <= now || self.began.duration_since(now) > AHEAD
    }
}

impl Life {
    /// One whose stored record cannot be read: whatever it was, nothing installs it until a person
    /// has said so.
    pub fn unreadable(mac: Mac, now: Timestamp) -> Life {
        let why = "its stored state cannot be read".into();
        let failure = Some(Failure { at: now, attempt: 0, step: Stage::Firmware, why });
        Life { failure, ..Life::new(mac, State::Failed, now) }
    }

    fn new(mac: Mac, state: State, now: Timestamp) -> Life {
        Life {
            mac,
            state,
            since: now,
            name: None,
            profile: None,
            wish: None,
            failures: 0,
            attempt: None,
            failure: None,
            ended: None,
            ended_at: None,
            uuid: None,
            installed: None,
        }
    }

    fn into(self, state: State, now: Timestamp) -> Life {
        let attempt = self.attempt.filter(|_| state == State::Installing);
        Life { state, since: now, attempt, ..self }
    }

    /// Whether a script that is asked for now belongs to the start in which the attempt began that
    /// runs: nothing was fetched since. `restarted` is [`Begin::restarted`].
    pub fn same_start(&self, restarted: bool, now: Timestamp) -> bool {
        let same = |a: &Attempt| {
            let long_ago = now.duration_since(a.began).abs() > SAME_START;
            a.step <= Stage::Script && !restarted && !long_ago
        };
        self.attempt.as_ref().is_some_and(same)
    }

    /// The profile that it is installed with again where nobody says otherwise.
    pub fn as_before(&self) -> Option<&str> {
        let last = self.profile.as_deref().filter(|_| self.state != State::Rescue);
        self.wish.as_deref().or(last)
    }

    /// The attempt that runs, if one does, is over.
    fn end(&mut self) -> Option<Attempt> {
        let attempt = self.attempt.take()?;
        self.ended = Some(attempt.report.clone());
        self.ended_at = attempt.address;
        Some(attempt)
    }

    /// The attempt that runs did not come to its end.
    fn failed(mut self, why: &str, attempts: u32, now: Timestamp) -> Life {
        let mut chosen = false;
        if let Some(attempt) = self.end() {
            self.failures = self.failures.saturating_add(1);
            chosen = attempt.chosen;
            let why = plain(why, WHY_LIMIT);
            let (attempt, step) = (attempt.number, attempt.step);
            self.failure = Some(Failure { at: now, attempt, step, why });
        }
        if self.failures >= attempts {
            return self.into(State::Failed, now);
        }
        match chosen && self.wish.is_none() {
            true => Life { profile: None, ..self }.into(State::Discovered, now),
            false => self.into(State::Assigned, now),
        }
    }

    /// Out of the rescue system, if it is in there.
    fn back(self) -> Life {
        match self.state {
            State::Rescue => Life { profile: self.wish.clone(), ..self },
            _ => self,
        }
    }

    fn begun(mut self, begin: Begin, now: Timestamp) -> Life {
        let Begin { profile, boot, report, address, facts, timeout, chosen, .. } = begin;
        self.uuid = facts.uuid.clone().or(self.uuid);
        self.profile = Some(profile.clone());
        let timeout = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
        let until = now.checked_add(timeout).unwrap_or(Timestamp::MAX);
        let number = self.failures.saturating_add(1);
        let step = Stage::Script;
        self.attempt = Some(Attempt {
            number,
            profile,
            boot,
            report,
            address,
            facts,
            began: now,
            until,
            step,
            chosen,
        });
        self.into(State::Installing, now)
    }
}

/// What `event` makes of a machine. `attempts` is how many it has before it is held.
///
/// # Errors
/// Where the event does not fit: nothing has changed then.
pub fn step(
    mac: Mac,
    life: Option<&Life>,
    event: LifeEvent,
    attempts: u32,
    now: Timestamp,
) -> Result<Change, Refused> {
    let to = |life: Life| Ok(Change::To(Some(Box::new(life))));
    let known = || life.cloned().unwrap_or_else(|| Life::new(mac, State::Assigned, now));
    let state = life.map(|l| l.state);
    match event {
        LifeEvent::Discover => match life {
            None => to(Life::new(mac, State::Discovered, now)),
            Some(_) => Ok(Change::Same),
        },
        LifeEvent::Assign { name, profile } => match state {
            Some(State::Installed) => Err(Refused::Installed),
            Some(State::Installing) => Err(Refused::Installing),
            Some(State::Failed | State::Local | State::Rescue) => Err(Refused::Decided),
            None | Some(State::Discovered | State::Assigned) => {
                let life = known();
                let name = name.or_else(|| life.name.clone());
                let profile = Some(profile);
                let wish = profile.clone();
                let new = Life { name, profile, wish, failures: 0, ended: None, ..life.clone() };
                match new == life && state == Some(State::Assigned) {
                    true => Ok(Change::Same),
                    false => to(new.into(State::Assigned, now)),
                }
            }
        },
        LifeEvent::Begin(begin) => match state {
            None | Some(State::Discovered | State::Assigned) => to(known().begun(*begin, now)),
            Some(State::Installing) => again(known(), *begin, attempts, now),
            Some(State::Installed | State::Failed | State::Local | State::Rescue) => {
                Err(Refused::NotArmed)
            }
        },
        LifeEvent::Step(step) => {
            let mut life = life.cloned().ok_or(Refused::Unknown)?;
            match life.attempt.as_mut().filter(|a| a.step < step) {
                Some(attempt) => attempt.step = step,
                None => return Ok(Change::Same),
            }
            to(life)
        }
        LifeEvent::Report { report, word } => {
            reported(life.cloned().ok_or(Refused::Stale)?, &report, word, attempts, now)
        }
        LifeEvent::Tick => match life.and_then(|l| l.attempt.as_ref()).filter(|a| a.is_over(now)) {
            Some(_) => to(known().failed("no report came in time", attempts, now)),
            None => Ok(Change::Same),
        },
        LifeEvent::Reinstall { profile } => {
            let before = || life?.as_before().map(str::to_string);
            let wish = profile.or_else(before);
            let mut life = known();
            life.attempt = None;
            // What is armed anew is not for a report of before to end, which anybody on the way may
            // have heard; and it may be another mainboard.
            (life.ended, life.uuid) = (None, None);
            life.failures = 0;
            (life.profile, life.wish) = (wish.clone(), wish);
            to(life.into(State::Assigned, now))
        }
        LifeEvent::Local => match state {
            Some(State::Local) => Ok(Change::Same),
            _ => {
                let mut life = known().back();
                life.end();
                to(life.into(State::Local, now))
            }
        },
        LifeEvent::Rescue { profile } => {
            let mut life = known();
            let profile = Some(profile);
            if state == Some(State::Rescue) && life.profile == profile {
                return Ok(Change::Same);
            }
            life = life.back();
            life.end();
            life.wish = life.wish.or(life.profile);
            to(Life { profile, ..life }.into(State::Rescue, now))
        }
        LifeEvent::Forget => life.map(|_| Change::To(None)).ok_or(Refused::Unknown),
    }
}

/// A machine that is being installed asks for its script once more: the same start, or one that
/// shows that the attempt before came to nothing.
fn again(life: Life, begin: Begin, attempts: u32, now: Timestamp) -> Result<Change, Refused> {
    let Some(attempt) = &life.attempt else { return Err(Refused::NotArmed) };
    let to = |life: Life| Ok(Change::To(Some(Box::new(life))));
    if attempt.profile == begin.profile && life.same_start(begin.restarted, now) {
        // Its token is a new one unless the caller still had the old one.
        let same = attempt.boot == begin.boot && attempt.address == begin.address;
        if same {
            return Ok(Change::Same);
        }
        let mut life = life;
        if let Some(attempt) = life.attempt.as_mut() {
            (attempt.boot, attempt.report) = (begin.boot, begin.report);
            (attempt.address, attempt.facts) = (begin.address, begin.facts);
        }
        return to(life);
    }
    if attempt.step <= Stage::Script {
        // Nothing was wiped: it was switched off before it had its kernel.
        return to(life.begun(begin, now));
    }
    let failed = life.failed("it started again before it reported", attempts, now);
    match failed.state {
        State::Failed => to(failed),
        _ => to(failed.begun(begin, now)),
    }
}

fn reported(
    life: Life,
    report: &str,
    word: Word,
    attempts: u32,
    now: Timestamp,
) -> Result<Change, Refused> {
    let to = |life: Life| Ok(Change::To(Some(Box::new(life))));
    let runs = life.attempt.as_ref().is_some_and(|a| a.report == report);
    let ended = life.ended.as_deref() == Some(report);
    match word {
        Word::Done if runs => to(installed(life, now)),
        // It was given up too early, and its disk is done: another attempt would wipe it.
        Word::Done
            if ended
                && matches!(life.state, State::Assigned | State::Discovered | State::Failed) =>
        {
            to(installed(life, now))
        }
        Word::Done if ended && life.state == State::Installed => Ok(Change::Same),
        Word::Failed(why) if runs => {
            let why = if why.is_empty() { "the installer gave up".into() } else { why };
            to(life.failed(&why, attempts, now))
        }
        Word::Failed(_) if ended && life.failure.is_some() && life.state != State::Installed => {
            Ok(Change::Same)
        }
        _ => Err(Refused::Stale),
    }
}

fn installed(mut life: Life, now: Timestamp) -> Life {
    if let Some(attempt) = life.end() {
        life.profile = Some(attempt.profile);
    }
    life.wish = None;
    life.failures = 0;
    life.failure = None;
    life.installed = Some(now);
    life.into(State::Installed, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn begin(boot: &str) -> Begin {
        Begin {
            profile: "web".into(),
            boot: boot.into(),
            report: format!("r{boot}"),
            address: Some(Ipv4Addr::LOCALHOST),
            facts: Facts { uuid: Some("u".into()), ..Facts::of(MAC) },
            timeout: Duration::from_secs(100),
            attempts: 3,
            restarted: false,
            chosen: false,
        }
    }

    fn report(report: &str, word: Word) -> LifeEvent {
        LifeEvent::Report { report: report.into(), word }
    }

    /// The machine after these events, each a second after the one before; what does not fit is left
    /// out.
    fn after(events: &[LifeEvent]) -> Option<Life> {
        let mut life: Option<Life> = None;
        for (second, event) in events.iter().enumerate() {
            if let Ok(Change::To(new)) =
                step(MAC, life.as_ref(), event.clone(), 3, at(second as i64))
            {
                life = new.map(|new| *new);
            }
        }
        life
    }

    fn installing() -> Vec<LifeEvent> {
        vec![LifeEvent::Begin(begin("1").into()), LifeEvent::Step(Stage::Kernel)]
    }

    fn gave_up(boot: &str) -> [LifeEvent; 3] {
        let failed = report(&format!("r{boot}"), Word::Failed(String::new()));
        [LifeEvent::Begin(begin(boot).into()), LifeEvent::Step(Stage::Kernel), failed]
    }

    /// A machine in each state, as it comes there.
    fn states() -> Vec<(&'static str, Option<Life>)> {
        let assign = LifeEvent::Assign { name: None, profile: "web".into() };
        let held: Vec<_> = ["1", "2", "3"].iter().flat_map(|b| gave_up(b)).collect();
        let installed = [installing(), vec![report("r1", Word::Done)]].concat();
        let all = vec![
            ("unknown", None),
            ("discovered", after(&[LifeEvent::Discover])),
            ("assigned", after(&[assign])),
            ("installing", after(&installing())),
            ("installed", after(&installed)),
            ("failed", after(&held)),
            ("local", after(&[LifeEvent::Local])),
            ("rescue", after(&[LifeEvent::Rescue { profile: "help".into() }])),
        ];
        for (name, life) in &all {
            assert_eq!(life.as_ref().map_or("unknown", |l| l.state.word()), *name);
        }
        all
    }

    #[test]
    fn every_state_and_every_event() {
        let events = [
            ("discover", LifeEvent::Discover),
            ("assign", LifeEvent::Assign { name: None, profile: "web".into() }),
            ("begin", LifeEvent::Begin(Box::new(Begin { restarted: true, ..begin("9") }))),
            ("same", LifeEvent::Begin(begin("1").into())),
            ("step", LifeEvent::Step(Stage::Answer)),
            ("done", report("r1", Word::Done)),
            ("forged", report("r8", Word::Done)),
            ("gave up", report("r1", Word::Failed("x".into()))),
            ("tick", LifeEvent::Tick),
            ("reinstall", LifeEvent::Reinstall { profile: None }),
            ("local", LifeEvent::Local),
            ("rescue", LifeEvent::Rescue { profile: "help".into() }),
            ("forget", LifeEvent::Forget),
        ];
        // By state, in the order of the events: the state that follows, `=` for no change, `-` for a
        // refusal, `*` for another attempt.
        let table = [
            "discovered assigned * * - - - - = assigned local rescue -",
            "= assigned * * = - - - = assigned local rescue unknown",
            "= = * * = - - - = assigned local rescue unknown",
            "= - * installing installing installed - assigned assigned assigned local rescue unknown",
            "= - - - = = - - = assigned local rescue unknown",
            "= - - - = - - - = assigned local rescue unknown",
            "= - - - = - - - = assigned = rescue unknown",
            "= - - - = - - - = assigned local = unknown",
        ];
        for ((state, life), row) in states().iter().zip(table) {
            let wanted: Vec<&str> = row.split(' ').collect();
            assert_eq!(wanted.len(), events.len(), "{state}");
            for ((event, what), want) in events.iter().zip(wanted) {
                let number = |l: &Life| l.attempt.as_ref().map(|a| a.boot.clone());
                let got = match step(MAC, life.as_ref(), what.clone(), 3, at(1000)) {
                    Err(_) => "-",
                    Ok(Change::Same) => "=",
                    Ok(Change::To(None)) => "unknown",
                    Ok(Change::To(Some(new))) => {
                        let old = life.as_ref().and_then(number);
                        let another = new.state == State::Installing && number(&new) != old;
                        if another { "*" } else { new.state.word() }
                    }
                };
                assert_eq!(got, want, "{state}, {event}");
            }
        }
    }

    #[test]
    fn the_same_start_is_one_attempt() {
        let began = after(&[LifeEvent::Begin(begin("1").into())]).unwrap();
        let again =
            |begin: Begin, now| step(MAC, Some(&began), LifeEvent::Begin(begin.into()), 3, now);
        assert_eq!(again(begin("1"), at(2)), Ok(Change::Same));
        let to = |change| match change {
            Ok(Change::To(Some(life))) => *life,
            other => panic!("{other:?}"),
        };
        // The server was started again, and has made another token.
        let other = to(again(begin("2"), at(2))).attempt.unwrap();
        assert_eq!((other.boot.as_str(), other.number, other.began), ("2", 1, at(0)));
        // Switched off before the kernel, after an hour, or with another profile: not a failure.
        let restarted = Begin { restarted: true, ..begin("2") };
        let profile = Begin { profile: "other".into(), ..begin("2") };
        for (begin, now) in [(restarted, at(5)), (begin("2"), at(4000)), (profile, at(5))] {
            let new = to(again(begin, now));
            assert_eq!((new.failures, new.attempt.unwrap().began), (0, now));
        }
        let fetched = after(&installing()).unwrap();
        let new = to(step(MAC, Some(&fetched), LifeEvent::Begin(begin("2").into()), 3, at(9)));
        assert_eq!((new.failures, new.attempt.unwrap().number), (1, 2));
        assert_eq!(new.failure.unwrap().step, Stage::Kernel);
        assert_eq!(new.ended.as_deref(), Some("r1"));
        // The last one: held instead.
        let held = to(step(MAC, Some(&fetched), LifeEvent::Begin(begin("2").into()), 1, at(9)));
        assert_eq!((held.state, held.attempt), (State::Failed, None));
    }

    #[test]
    fn late_and_double_reports() {
        let done = || report("r1", Word::Done);
        let late = [installing(), vec![report("r1", Word::Failed("x".into())), done()]].concat();
        let life = after(&late).unwrap();
        assert_eq!((life.state, life.failures, life.failure), (State::Installed, 0, None));
        let held: Vec<_> = ["1", "2", "3"]
            .iter()
            .flat_map(|b| gave_up(b))
            .chain([report("r3", Word::Done)])
            .collect();
        assert_eq!(after(&held).unwrap().state, State::Installed);
        // Armed by a person since: a report of before is nothing any more.
        for arms in [
            LifeEvent::Reinstall { profile: None },
            LifeEvent::Assign { name: None, profile: "other".into() },
        ] {
            let events = [&gave_up("1")[..], &[arms, done()]].concat();
            assert_eq!(after(&events).unwrap().state, State::Assigned);
        }
        let twice = [installing(), vec![done()]].concat();
        let life = after(&twice).unwrap();
        assert_eq!(step(MAC, Some(&life), done(), 3, at(50)), Ok(Change::Same));
        let failed = report("r1", Word::Failed(String::new()));
        assert_eq!(step(MAC, Some(&life), failed, 3, at(50)), Err(Refused::Stale));
    }

    #[test]
    fn an_attempt_of_a_clock_that_was_set_back_is_over() {
        let began = Begin { timeout: Duration::from_secs(100), ..begin("1") };
        let begun = step(MAC, None, LifeEvent::Begin(began.into()), 3, at(1_000_000));
        let Ok(Change::To(Some(life))) = begun else { panic!("{begun:?}") };
        let tick = |now| step(MAC, Some(&life), LifeEvent::Tick, 3, at(now));
        for (now, over) in [(999_000, false), (1_000_050, false), (1_000_100, true), (10, true)] {
            assert_eq!(tick(now) != Ok(Change::Same), over, "{now}");
        }
    }

    #[test]
    fn a_choice_is_never_repeated_unasked() {
        let chosen = |boot: &str| LifeEvent::Begin(Box::new(Begin { chosen: true, ..begin(boot) }));
        let failed = report("r1", Word::Failed(String::new()));
        let life = after(&[chosen("1"), failed.clone()]).unwrap();
        assert_eq!((life.state, life.profile), (State::Discovered, None));
        let done = report("r1", Word::Done);
        assert_eq!(after(&[chosen("1"), failed, done]).unwrap().state, State::Installed);
    }

    #[test]
    fn reinstall_is_with_what_it_was_before_the_rescue_system() {
        let help = || LifeEvent::Rescue { profile: "help".into() };
        let again = || LifeEvent::Reinstall { profile: None };
        let installed = [installing(), vec![report("r1", Word::Done)]].concat();
        for (more, want) in [
            (vec![help(), again()], Some("web")),
            (vec![help(), LifeEvent::Rescue { profile: "more".into() }, again()], Some("web")),
            (vec![help(), LifeEvent::Local, again()], Some("web")),
            (vec![again()], Some("web")),
            (vec![LifeEvent::Reinstall { profile: Some("new".into()) }], Some("new")),
        ] {
            let life = after(&[installed.clone(), more].concat()).unwrap();
            assert_eq!((life.wish.as_deref(), life.uuid), (want, None));
        }
        assert_eq!(after(&[help(), again()]).unwrap().wish, None, "never a rescue system");
    }

    #[test]
    fn a_record_of_before_is_read() {
        let life = after(&installing()).unwrap();
        let mut json = serde_json::to_value(&life).unwrap();
        assert_eq!(serde_json::from_value::<Life>(json.clone()).unwrap(), life);
        for new in ["wish", "ended_at"] {
            json.as_object_mut().unwrap().remove(new);
        }
        json["attempt"].as_object_mut().unwrap().remove("chosen");
        assert_eq!(serde_json::from_value::<Life>(json).unwrap(), life);
    }

    fn any_event() -> impl Strategy<Value = LifeEvent> {
        let boot = prop::sample::select(vec!["1", "2", "3"]);
        let begins =
            (boot.clone(), any::<bool>(), any::<bool>()).prop_map(|(b, restarted, chosen)| {
                LifeEvent::Begin(Box::new(Begin { restarted, chosen, ..begin(b) }))
            });
        let reports = (boot, any::<bool>()).prop_map(|(b, done)| {
            report(&format!("r{b}"), if done { Word::Done } else { Word::Failed("x".into()) })
        });
        let stage = prop::sample::select(vec![Stage::Script, Stage::Kernel, Stage::System]);
        prop_oneof![
            3 => begins,
            3 => reports,
            2 => stage.prop_map(LifeEvent::Step),
            1 => Just(LifeEvent::Tick),
            1 => Just(LifeEvent::Discover),
            1 => Just(LifeEvent::Local),
            1 => Just(LifeEvent::Rescue { profile: "help".into() }),
            1 => Just(LifeEvent::Assign { name: None, profile: "web".into() }),
            1 => Just(LifeEvent::Reinstall { profile: None }),
        ]
    }

    proptest! {
        #[test]
        fn nothing_but_a_persons_word_leads_to_another_installation(
            events in prop::collection::vec((any_event(), 0..300_i64), 1..40)
        ) {
            let mut life: Option<Life> = None;
            let mut now = 0;
            for (event, later) in events {
                now += later;
                let before = life.clone();
                match step(MAC, before.as_ref(), event.clone(), 3, at(now)) {
                    Ok(Change::To(new)) => life = new.map(|new| *new),
                    Ok(Change::Same) | Err(_) => continue,
                }
                let (Some(old), Some(new)) = (before, &life) else { continue };
                let closed = [State::Installed, State::Failed, State::Local, State::Rescue];
                let opens = matches!(event, LifeEvent::Reinstall { .. });
                if closed.contains(&old.state) {
                    prop_assert!(new.state != State::Installing);
                    let armed = matches!(new.state, State::Assigned | State::Discovered);
                    prop_assert!(!armed || opens, "{event:?} armed {old:?}");
                }
                prop_assert_eq!(new.attempt.is_some(), new.state == State::Installing);
                prop_assert!(new.failures <= 3);
                if new.state == State::Failed {
                    prop_assert!(new.failures == 3 && new.failure.is_some());
                }
            }
        }
    }
}
