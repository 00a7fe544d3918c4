//! The only writer of what is known of machines.
//!
//! 1. [`Ledger::learn`] keeps the facts that a machine told of itself.
//! 2. [`Ledger::record`] puts an event on the machine's timeline, and writes it to the log.
//! 3. [`Ledger::open_boot`] knows the random token under which one boot of one machine finds its
//!    answers and reports back ([`boots`]); [`Ledger::booted`] is all that one script tells.
//! 4. [`Ledger::refused`] counts and logs every silence and refusal by its name.
//! 5. [`Ledger::step`] changes a machine's life: durable first ([`serve`]), then seen.
//! 6. [`Ledger::listen`] tells whoever wants to know: entries, lives, alarms; [`Ledger::turns`]
//!    leaves the entries out.
//! 7. A boot that is over goes from its [`timeline`] onto the [`disk`]: [`Ledger::boots`].
//!
//! All of it is bounded: a network full of made-up MAC addresses pushes out the machine that was
//! heard of longest ago, never more than [`MACHINES`] at once.

mod boots;
mod disk;
mod leases;
mod serve;
mod tally;
mod timeline;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;

use crate::config;
use crate::model::diagnosis::{Case, Diagnosis, diagnose};
use crate::model::event::{DETAIL_LIMIT, plain};
use crate::model::{Event, Facts, Life, LifeEvent, Mac, Stage, Transfer, Why, token};
use crate::store::{self, Store};
use turn::Turn;

pub use crate::model::Entry;
pub use boots::{BOOTS, Boot};
pub use disk::{BOOTS as KEPT, IDLE};
pub use leases::{LEASES, Leased};
pub use serve::{LIVES, NotDone, Stepped};
pub use tally::Counted;
pub use timeline::{EVENTS, End, Past, Progress, TREE, Took};

/// Machines kept at once.
pub const MACHINES: usize = 20_000;
/// A boot's token is forgotten after this long.
pub const BOOT_LIFE: Duration = Duration::from_secs(24 * 3600);
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
/// News that a listener may be behind; one that is further behind is told so, and looks anew.
const NEWS: usize = 8192;
/// The same for who hears of turns alone: several commits of as many lives as one holds.
const TURNS: usize = 2048;

/// What listeners are told.
#[derive(Clone, Debug)]
pub enum News {
    /// An entry of a machine's timeline.
    Entry { mac: Mac, entry: Arc<Entry> },
    /// A machine's record has changed, and is on the disk; without one it is forgotten.
    Life { mac: Mac, before: Option<Arc<Life>>, after: Option<Arc<Life>> },
    /// Something that a person has to look at has begun, or goes on.
    Alarm(Arc<Alarm>),
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
    #[serde(skip)]
    course: timeline::Course,
    /// When our loader was last handed to the machine, and to whom: the end of every loop (see
    /// `dhcp::decide`).
    #[serde(skip)]
    pub handed: Option<Handed>,
    /// The time under which it stands in the order of who was heard of.
    #[serde(skip)]
    ordered: Timestamp,
    /// Whether it has a lease or a life, as of that order.
    #[serde(skip)]
    firm: bool,
    /// Whether it has been started again since its last script, as far as DHCP has seen.
    #[serde(skip)]
    restarted: bool,
}

/// What is known of one machine, without its timeline.
#[derive(Clone, Debug)]
pub struct Brief {
    pub mac: Mac,
    pub name: Option<String>,
    pub facts: Facts,
    pub seen: Timestamp,
    /// How far its newest boot has come.
    pub stage: Option<Stage>,
    /// The newest entry of its timeline, in words.
    pub last: Option<String>,
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

/// One script for one machine, as the ledger sees it.
#[derive(Debug)]
pub struct Script<'a> {
    pub facts: Facts,
    /// The name that the machine is declared by.
    pub name: Option<&'a str>,
    /// The boot that it opens.
    pub boot: Option<Boot>,
    pub event: Event,
}

#[derive(Default)]
struct State {
    machines: HashMap<Mac, Known>,
    /// Those with a lease or a life last, and each kind by when they were last heard of: who makes
    /// room is found without a search.
    order: BTreeSet<(bool, Timestamp, Mac)>,
    leases: leases::Leases,
    /// Those that have a life.
    alive: HashSet<Mac>,
    by_ip: HashMap<Ipv4Addr, Mac>,
    boots: boots::Boots,
    /// Those that are only pretended: beside the others, so that none of those ends by it.
    rehearsed: boots::Boots,
    refused: BTreeMap<(&'static str, &'static str), u64>,
    alarms: BTreeMap<(&'static str, String), Alarm>,
    lines: Lines,
    /// What the last installation of each profile took.
    took: HashMap<String, Took>,
    jobs: disk::Jobs,
    /// Whether timelines stay empty: for the benchmark that shows what they cost.
    silent: bool,
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

pub struct Ledger {
    state: Arc<Mutex<State>>,
    shelf: Arc<disk::Shelf>,
    lives: serve::Writer,
    news: broadcast::Sender<News>,
    /// The same without entries.
    turns: broadcast::Sender<News>,
    tally: Arc<tally::Tally>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::open(Arc::new(store::Memory::default())).expect("a memory can be read")
    }
}

impl Ledger {
    /// One that forgets, for tests.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// With the lives that are stored.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn open(store: Arc<dyn Store>) -> Result<Ledger, store::Error> {
        let (news, turns) = (broadcast::Sender::new(NEWS), broadcast::Sender::new(TURNS));
        let (jobs, queue) = disk::queue();
        let took = disk::took(&*store)?;
        let kept = jobs.clone();
        let state = Arc::new(Mutex::new(State { took, jobs, ..State::default() }));
        let (told, shown) = (state.clone(), news.clone());
        let changed = move |change: &Turn<'_>| turned(&told, &shown, change);
        let tally = Arc::new(tally::Tally::default());
        let (counted, heard) = (tally.clone(), [turns.clone(), news.clone()]);
        let said = move |news: News| {
            counted.told(&news);
            if let News::Life { mac, before, after } = &news {
                let (before, after) = (before.clone(), after.clone());
                kept.push(disk::Job::Life { mac: *mac, before, after });
            }
            heard.iter().for_each(|to| tell(to, || news.clone()));
        };
        let (lives, unread) = serve::Writer::open(store.clone(), changed, said, disk::now())?;
        let boots = boots::Boots::of(lives.lives().values().map(|life| &**life));
        let alive = lives.lives().keys().copied().collect();
        {
            let mut state = locked(&state);
            (state.boots, state.alive) = (boots, alive);
        }
        let shelf = Arc::new(disk::Shelf::default());
        shelf.keep(config::Life::default().boots);
        let (weak, shared) = (Arc::downgrade(&state), shelf.clone());
        disk::Clerk { state: weak, lives: lives.shared(), shelf: shared, store }.start(queue)?;
        let ledger = Ledger { state, shelf, lives, news, turns, tally };
        for mac in unread {
            let text = format!(
                "the stored state of {mac} cannot be read: it is held until `pilotlight machine \
                 reinstall`, `local` or `delete` says what it is"
            );
            ledger.alarm("state-unreadable", &mac.to_string(), text, disk::now());
        }
        Ok(ledger)
    }

    /// Boots that are over are kept in files below `dir`, from now on; in memory without. Machines
    /// that were kept there before are known by their newest one.
    pub fn keep_in(&self, dir: PathBuf) {
        self.shelf.open(dir);
        let jobs = self.state().jobs.clone();
        jobs.push(disk::Job::Load);
    }

    /// How many boots of each machine are kept: `[life] boots`, [`KEPT`] at most.
    pub fn keep(&self, boots: usize) {
        self.shelf.keep(boots);
    }

    /// Records nothing on timelines from now on, and tells nobody of entries.
    pub fn silence(&self) {
        self.state().silent = true;
    }

    /// Keeps the boots that run as they are now, before the process ends: within 3 s.
    pub fn settle(&self) {
        let jobs = self.state().jobs.clone();
        jobs.settle(true);
    }

    /// The boots of a machine, the newest first: the one that runs or came last, and those before
    /// it. Reads a file: not for a thread that must not wait.
    pub fn boots(&self, mac: Mac) -> Vec<Past> {
        self.boots_at(mac, disk::now())
    }

    /// The same as it looks at `now`.
    pub fn boots_at(&self, mac: Mac, now: Timestamp) -> Vec<Past> {
        let jobs = self.state().jobs.clone();
        jobs.settle(false);
        let life = self.life(mac);
        let (newest, rivals) = {
            let state = self.state();
            (state.machines.get(&mac).and_then(Known::so_far), state.rivals())
        };
        let newest = newest.and_then(|mut over| {
            over.over |= disk::is_idle(&over.timeline, life.as_deref(), now);
            over.past(life.as_deref(), &rivals, now)
        });
        let mut before = self.shelf.boots(mac);
        before.retain(|p| newest.as_ref().is_none_or(|n| n.began != p.began));
        before.iter_mut().for_each(disk::settled);
        let kept = self.shelf.kept();
        newest.into_iter().chain(before).take(kept.max(1)).collect()
    }

    /// Where the newest boot of a machine stopped, and why.
    pub fn diagnosis(&self, mac: Mac, now: Timestamp) -> Option<Diagnosis> {
        let life = self.life(mac);
        let state = self.state();
        let rivals = state.rivals();
        let known = state.machines.get(&mac)?;
        diagnose(&Case {
            timeline: &known.timeline,
            facts: &known.facts,
            life: life.as_deref(),
            rivals: &rivals,
            over: false,
            now,
        })
    }

    /// How far the boot that runs has come; nothing where none runs.
    pub fn progress(&self, mac: Mac, now: Timestamp) -> Option<Progress> {
        let mut state = self.state();
        let State { machines, took, .. } = &mut *state;
        let course = &mut machines.get_mut(&mac)?.course;
        let took = course.profile.as_ref().and_then(|p| took.get(p)).copied();
        course.progress(took, now)
    }

    /// A file begins to leave for a machine; `sent` counts its bytes as they do.
    pub fn sending(&self, mac: Mac, sent: &Arc<AtomicU64>, now: Timestamp) {
        let mut state = self.state();
        if !state.silent {
            state.known(mac, now).course.sending(sent, now);
        }
    }

    /// A file has left for a machine, or was cut: onto its timeline. `counter` is what
    /// [`Ledger::sending`] was given.
    pub fn sent(
        &self,
        mac: Mac,
        stage: Stage,
        transfer: Transfer,
        counter: Option<&Arc<AtomicU64>>,
        now: Timestamp,
    ) {
        self.tally.file(stage, &transfer);
        let (event, may) = {
            let mut state = self.state();
            if state.silent {
                return;
            }
            let event = state.known(mac, now).sent(stage, transfer, counter, now);
            let Some(event) = event else { return };
            (event, state.lines.take(1, now))
        };
        log(may, mac, std::slice::from_ref(&event));
        self.told_of(mac, &[event], now);
    }

    /// What happens from now on.
    pub fn listen(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// The same without entries of timelines, for who listens all the time: to be woken for each
    /// would cost as much as the script or the lease that it tells of.
    pub fn turns(&self) -> broadcast::Receiver<News> {
        self.turns.subscribe()
    }

    /// Changes a machine's life; when it returns, that is on the disk. `attempts` is how many it
    /// has before it is held.
    ///
    /// # Errors
    /// Where the event does not fit, or the store takes nothing: nothing has changed then.
    pub async fn step(&self, mac: Mac, event: LifeEvent, attempts: u32, now: Timestamp) -> Stepped {
        self.lives.step(mac, event, attempts, now).await.unwrap_or(Err(NotDone::Busy))
    }

    /// The same where nobody waits for it.
    pub fn step_later(&self, mac: Mac, event: LifeEvent, attempts: u32, now: Timestamp) {
        self.lives.step_later(mac, event, attempts, now);
    }

    /// What has happened since the start, in numbers.
    pub fn counted(&self) -> Counted {
        self.tally.now()
    }

    /// Why the state of machines cannot be written, where the last try has failed.
    pub fn trouble(&self) -> Option<String> {
        self.lives.trouble()
    }

    /// What is stored of a machine.
    pub fn life(&self, mac: Mac) -> Option<Arc<Life>> {
        self.lives.lives().get(&mac).cloned()
    }

    /// Another machine than `mac` that began to install with this UUID, and is not armed any more: a
    /// machine's second card, or the one that took the old one's place.
    pub fn twin(&self, mac: Mac, uuid: &str) -> Option<Arc<Life>> {
        self.lives.lives().twin(mac, uuid)
    }

    /// All that are stored, by MAC.
    pub fn lives(&self) -> Vec<Arc<Life>> {
        let mut all: Vec<_> = self.lives.lives().values().cloned().collect();
        all.sort_by_key(|l| l.mac);
        all
    }

    fn told_of(&self, mac: Mac, events: &[Event], now: Timestamp) {
        for event in events {
            tell(&self.news, || News::Entry {
                mac,
                entry: Arc::new(Entry { at: now, event: event.clone() }),
            });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// What a machine told of itself, kept; the newest word on each fact counts.
    pub fn learn(&self, facts: Facts, now: Timestamp) {
        let mut state = self.state();
        state.at(facts.ip, facts.mac);
        state.known(facts.mac, now).facts.learn(facts);
    }

    /// What a machine told of itself by HTTP, in place of all that was told so before: a fact that
    /// somebody else planted under its address does not outlive its own next word. Returns what is
    /// known now; architecture, UUID and address that DHCP told stay where this has none. `peer` is
    /// the address that it spoke from: what is fetched from there is its own, and not what is
    /// fetched from an address that it says to have.
    pub fn told(&self, mut facts: Facts, peer: Option<Ipv4Addr>, now: Timestamp) -> Facts {
        let mut state = self.state();
        let old = &mut state.known(facts.mac, now).facts;
        facts = of_http(facts, old);
        *old = facts.clone();
        state.at(peer, facts.mac);
        facts
    }

    /// Puts `event` on the machine's timeline and into the log; see [`begins`] for where a new
    /// timeline begins.
    pub fn record(&self, mac: Mac, event: Event, now: Timestamp) {
        let may = self.state().lines.take(1, now);
        log(may, mac, std::slice::from_ref(&event));
        self.told_of(mac, std::slice::from_ref(&event), now);
        self.state().push(mac, [event], now);
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
        self.told_of(mac, &events, now);
        let mut state = self.state();
        state.at(facts.ip, mac);
        let known = state.known(mac, now);
        known.facts.learn(facts);
        if let Some(handed) = handed {
            known.handed = handed;
        }
        state.push(mac, events, now);
    }

    /// All that one script tells, in one step: the loader that was handed out works, so that what
    /// comes next is another boot; [`Ledger::named`] and [`Ledger::open_boot`] where there is a name
    /// and a profile, and [`Ledger::record`].
    pub fn booted(&self, script: Script<'_>, now: Timestamp) {
        let mac = script.facts.mac;
        let may = self.state().lines.take(1, now);
        log(may, mac, std::slice::from_ref(&script.event));
        self.told_of(mac, std::slice::from_ref(&script.event), now);
        let mut state = self.state();
        if let Some(boot) = &script.boot {
            state.starts(mac, &boot.key, now);
        }
        // It may begin a timeline, and what follows belongs to that.
        state.push(mac, [script.event], now);
        let known = state.known(mac, now);
        known.handed = None;
        known.restarted = false;
        if script.name.is_some() && known.name.as_deref() != script.name {
            known.name = script.name.map(str::to_string);
        }
        if let Some(boot) = &script.boot {
            known.course.boots(&boot.profile, now);
        }
        if let Some(boot) = script.boot {
            self.tally.boot();
            state.boots.open(boot);
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
        let Some(mac) = mac.filter(|m| state.machines.contains_key(m)) else { return };
        let known = state.known(mac, now);
        // It belongs to whatever the machine was at.
        let stage = known.timeline.last().map_or(Stage::Firmware, |e| e.event.stage);
        let event = Event::new(stage, "refused", why.to_string());
        if known.takes_refusal(&event.detail) {
            state.push(mac, [event], now);
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
        let told = Arc::new(alarm.clone());
        for to in [&self.turns, &self.news] {
            tell(to, || News::Alarm(told.clone()));
        }
        // The log may be a pipe that nobody reads just now.
        drop(state);
        tracing::warn!(target: "pilotlight", alarm = name, "{}", told.text);
    }

    /// Alarms of this kind are over.
    pub fn calm(&self, name: &'static str) {
        self.state().alarms.retain(|(kind, _), _| *kind != name);
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

    pub fn brief(&self, mac: Mac) -> Option<Brief> {
        self.state().machines.get(&mac).map(Known::brief)
    }

    /// How far a machine's newest boot has come.
    pub fn stage(&self, mac: Mac) -> Option<Stage> {
        self.state().machines.get(&mac)?.course.stage
    }

    /// The newest entry of a machine's timeline.
    pub fn last(&self, mac: Mac) -> Option<Event> {
        self.state().machines.get(&mac)?.timeline.last().map(|e| e.event.clone())
    }

    /// The timeline of a machine's newest boot.
    pub fn timeline(&self, mac: Mac) -> Vec<Entry> {
        self.state().machines.get(&mac).map(|k| k.timeline.clone()).unwrap_or_default()
    }

    /// All machines in no order, without their timelines.
    pub fn briefs(&self) -> Vec<Brief> {
        self.state().machines.values().map(Known::brief).collect()
    }

    /// The facts of all machines in no order. Nobody else gets at the ledger meanwhile.
    pub fn each_facts(&self, look: impl FnMut(&Facts)) {
        self.state().machines.values().map(|k| &k.facts).for_each(look);
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

    /// A new boot of a machine; whatever it had before is dead.
    pub fn open_boot(&self, boot: Boot) {
        self.state().boots.open(boot);
    }

    /// A boot that is only pretended, beside the one that the machine may be in.
    pub fn rehearses(&self, boot: Boot) {
        self.state().rehearsed.open(boot);
    }

    /// The newest boot of a machine, while it lives.
    pub fn newest_boot(&self, mac: Mac, now: Timestamp) -> Option<Boot> {
        let life = self.life(mac);
        self.state().boots.newest(mac, life.as_deref(), now).cloned()
    }

    /// The boot that a token belongs to, while it lives.
    pub fn boot(&self, token: &str, now: Timestamp) -> Option<Boot> {
        let key = token::key(token);
        if let Some(boot) = self.state().rehearsed.live(&key, now) {
            return Some(boot.clone());
        }
        let mac = self.state().boots.machine(&key)?;
        self.newest_boot(mac, now).filter(|b| b.key == key)
    }

    /// The machine that a report word belongs to, and its boot while that lives: the report of one
    /// that is over may come late.
    pub fn reported(&self, report: &str, now: Timestamp) -> Option<(Mac, Option<Boot>)> {
        let (mac, boot) = {
            let state = self.state();
            let rehearsed = state.rehearsed.reported(report).and_then(|(_, boot)| boot);
            if let Some(boot) = rehearsed.and_then(|b| state.rehearsed.live(&b.key, now)) {
                return Some((boot.mac, Some(boot.clone())));
            }
            let (mac, boot) = state.boots.reported(report)?;
            (mac, boot.cloned())
        };
        let alive = self.newest_boot(mac, now).map(|b| b.key);
        Some((mac, boot.filter(|b| alive.as_ref() == Some(&b.key))))
    }

    /// DHCP's word of where a machine is; nobody else says it.
    pub fn leased(&self, mac: Mac, leased: Leased) {
        let mut state = self.state();
        let gone = state.leases.put(mac, leased);
        state.placed(mac);
        gone.into_iter().for_each(|gone| state.placed(gone));
    }

    /// Where DHCP says that the machine is.
    pub fn lease(&self, mac: Mac) -> Option<Leased> {
        self.state().leases.get(mac).cloned()
    }

    /// Whether the machine has been started again since its last script, as far as DHCP has seen.
    pub fn restarted(&self, mac: Mac) -> bool {
        self.state().machines.get(&mac).is_some_and(|k| k.restarted)
    }

    /// What would be known of a machine that tells `facts` by HTTP: [`Ledger::told`] changes nothing
    /// beyond that.
    pub fn would_know(&self, facts: Facts) -> Facts {
        match self.state().machines.get(&facts.mac) {
            Some(known) => of_http(facts, &known.facts),
            None => facts,
        }
    }

    /// Those whose installation should have reported by now.
    pub fn overdue(&self, now: Timestamp) -> Vec<Arc<Life>> {
        let late = |l: &&Arc<Life>| l.attempt.as_ref().is_some_and(|a| a.is_over(now));
        self.lives.lives().values().filter(late).cloned().collect()
    }
}

/// Architecture, UUID and address that DHCP told stay where a machine's own word has none.
fn of_http(facts: Facts, old: &Facts) -> Facts {
    Facts {
        arch: facts.arch.or(old.arch),
        uuid: facts.uuid.or_else(|| old.uuid.clone()),
        ip: facts.ip.or(old.ip),
        ..facts
    }
}

fn tell(to: &broadcast::Sender<News>, news: impl FnOnce() -> News) {
    // Nobody need listen, and then it costs nothing.
    if to.receiver_count() > 0 {
        let _ = to.send(news());
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere must not silence every other machine; the state is valid between any
    // two statements of this file.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a change of a machine's life, which is on the disk, onto its timeline and into the log.
fn turned(state: &Mutex<State>, news: &broadcast::Sender<News>, turn: &Turn<'_>) {
    let (mac, now) = (turn.mac, turn.now);
    let mut state = locked(state);
    let changed = match turn.after {
        Some(_) => state.alive.insert(mac),
        None => state.alive.remove(&mac),
    };
    if changed {
        state.placed(mac);
    }
    let Some((what, said)) = turn.words() else { return };
    let may = state.lines.take(1, now);
    let Some(known) = state.machines.get(&mac) else {
        drop(state);
        return say(may, mac, turn.name(None), what, &said);
    };
    let name = known.name.clone();
    if let Some(boot) = turn.begins() {
        state.starts(mac, boot, now);
    }
    let known = state.known(mac, now);
    let stage = turn.stage().or_else(|| known.timeline.last().map(|e| e.event.stage));
    let event = Event::new(stage.unwrap_or(Stage::Firmware), what, turn::short(what, &said));
    let entry = Entry { at: now, event: event.clone() };
    state.push(mac, [event], now);
    drop(state);
    // Nobody need listen.
    let _ = news.send(News::Entry { mac, entry: Arc::new(entry) });
    say(may, mac, turn.name(name), what, &said);
}

fn say(may: Option<u64>, mac: Mac, name: String, what: &'static str, said: &str) {
    if may.is_some() {
        tracing::info!(target: "pilotlight", mac = %mac, state = what, "{name} {said}");
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
    fn brief(&self) -> Brief {
        let last = self.timeline.last().map(|e| &e.event);
        Brief {
            mac: self.mac,
            name: self.name.clone(),
            facts: self.facts.clone(),
            seen: self.seen,
            stage: self.course.stage,
            last: last.map(|e| format!("{} {}", e.what, e.detail)),
        }
    }
}

impl State {
    fn push(&mut self, mac: Mac, events: impl IntoIterator<Item = Event>, now: Timestamp) {
        if self.silent {
            return;
        }
        for event in events {
            if let Some(over) = self.known(mac, now).push(event, now) {
                self.jobs.push(disk::Job::Over(Box::new(over)));
            }
        }
    }

    /// A machine as it was kept before the server started, unless it has asked meanwhile.
    fn known_again(&mut self, mac: Mac, past: timeline::Past, life: Option<&Life>) {
        if self.silent || self.machines.contains_key(&mac) || self.machines.len() >= MACHINES {
            return;
        }
        let known = self.known(mac, past.last);
        if let Some(attempt) = life.and_then(|l| l.attempt.as_ref()) {
            known.facts = attempt.facts.clone();
        }
        known.facts.uuid = known.facts.uuid.take().or_else(|| life.and_then(|l| l.uuid.clone()));
        known.name = life.and_then(|l| l.name.clone());
        known.again(past, life);
    }

    /// The timeline is that of the boot with this key from now on.
    fn starts(&mut self, mac: Mac, boot: &str, now: Timestamp) {
        if let Some(over) = self.known(mac, now).starts(boot) {
            self.jobs.push(disk::Job::Over(Box::new(over)));
        }
    }

    /// Other DHCP servers that were heard of.
    fn rivals(&self) -> Vec<String> {
        let kinds = ["other-dhcp-server", "other-dhcp-server-chosen"];
        let all = self.alarms.values().filter(|a| kinds.contains(&a.name));
        all.map(|a| a.about.clone()).collect()
    }

    fn at(&mut self, ip: Option<Ipv4Addr>, mac: Mac) {
        let Some(ip) = ip else { return };
        if self.by_ip.len() >= 2 * MACHINES {
            self.by_ip.clear();
        }
        self.by_ip.insert(ip, mac);
    }

    /// Whether somebody other than whoever sends requests in its name has said something of it.
    fn is_firm(&self, mac: Mac) -> bool {
        self.alive.contains(&mac) || self.leases.get(mac).is_some()
    }

    /// Whether its boots are worth a file: made-up machines leave none.
    fn is_kept(&self, mac: Mac) -> bool {
        let named = || self.machines.get(&mac).is_some_and(|k| k.name.is_some());
        self.is_firm(mac) || named()
    }

    /// Puts a machine among its kind, which may have changed.
    fn placed(&mut self, mac: Mac) {
        let firm = self.is_firm(mac);
        let Some(known) = self.machines.get_mut(&mac).filter(|k| k.firm != firm) else { return };
        self.order.remove(&(known.firm, known.ordered, mac));
        self.order.insert((firm, known.ordered, mac));
        known.firm = firm;
    }

    fn known(&mut self, mac: Mac, now: Timestamp) -> &mut Known {
        if self.machines.len() >= MACHINES
            && !self.machines.contains_key(&mac)
            && let Some((_, _, oldest)) = self.order.pop_first()
            && let Some(gone) = self.machines.remove(&oldest)
            && let Some(ip) = gone.facts.ip
            && self.by_ip.get(&ip) == Some(&oldest)
        {
            self.by_ip.remove(&ip);
        }
        let firm = self.is_firm(mac);
        let order = &mut self.order;
        let known = self.machines.entry(mac).or_insert_with(|| {
            order.insert((firm, now, mac));
            Known {
                mac,
                name: None,
                facts: Facts::of(mac),
                seen: now,
                timeline: Vec::new(),
                course: timeline::Course::default(),
                handed: None,
                ordered: now,
                firm,
                restarted: false,
            }
        });
        // A machine says many things in a second, and the second is exact enough to tell who was
        // heard of longest ago.
        if now.duration_since(known.ordered).unsigned_abs() >= Duration::from_secs(1) {
            order.remove(&(known.firm, known.ordered, mac));
            order.insert((known.firm, now, mac));
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
    fn made_up_machines_push_out_nothing_that_dhcp_or_a_person_has_said() {
        let ledger = Ledger::new();
        let at = |n: i64| Timestamp::from_second(n).unwrap();
        let leased = Leased { address: Ipv4Addr::LOCALHOST, relay: None, uuid: None };
        for n in 1..4 {
            ledger.learn(Facts::of(mac(n)), at(0));
        }
        ledger.leased(mac(1), leased.clone());
        let local = ledger.lives.step(mac(2), LifeEvent::Local, 3, at(0));
        local.blocking_recv().unwrap().unwrap();
        for n in 0..2 * MACHINES as u32 {
            let b = n.to_be_bytes();
            ledger.learn(Facts::of(Mac([6, 0, b[0], b[1], b[2], b[3]])), at(1 + i64::from(n)));
        }
        assert_eq!(ledger.list().len(), MACHINES);
        assert_eq!([1, 2, 3].map(|n| ledger.get(mac(n)).is_some()), [true, true, false]);
        assert_eq!((ledger.lease(mac(1)), ledger.lease(mac(2))), (Some(leased), None));
    }

    #[test]
    fn an_address_belongs_to_who_speaks_from_it() {
        let ledger = Ledger::new();
        let [own, planted] = [1, 2].map(|n| Ipv4Addr::new(127, 0, 0, n));
        let facts = Facts { ip: Some(planted), ..Facts::of(mac(1)) };
        ledger.told(facts, Some(own), Timestamp::UNIX_EPOCH);
        assert_eq!((ledger.by_ip(own), ledger.by_ip(planted)), (Some(mac(1)), None));
    }

    #[test]
    fn a_planted_fact_does_not_outlive_the_machines_own_word() {
        let ledger = Ledger::new();
        let now = Timestamp::UNIX_EPOCH;
        let arch = Some("bios");
        ledger.learn(Facts { arch, ..Facts::of(mac(1)) }, now);
        ledger.told(Facts { serial: Some("S1".into()), ..Facts::of(mac(1)) }, None, now);
        let own = ledger.told(Facts::of(mac(1)), None, now);
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
    fn a_token_ends_with_its_day_and_with_the_next() {
        let ledger = Ledger::new();
        let now = Timestamp::UNIX_EPOCH;
        let open = |n: u8, token: &str| {
            ledger.open_boot(Boot::new(token.into(), Facts::of(mac(n)), "p", None, false, now));
        };
        open(1, "t");
        assert_eq!(ledger.boot("t", now).unwrap().mac, mac(1));
        let report = token::report("t");
        assert!(ledger.reported(&report, now).unwrap().1.is_some());
        let later = now + SignedDuration::from_secs(24 * 3600);
        assert!(ledger.boot("t", later).is_none());
        open(2, "other");
        open(1, "u");
        assert!(ledger.boot("t", now).is_none(), "one boot of a machine at once");
        assert_eq!(ledger.reported(&report, now).unwrap().0, mac(1), "its report may come late");
        open(1, "v");
        assert!(ledger.reported(&report, now).is_none());
        assert!(ledger.boot("other", now).is_some() && ledger.boot("v", now).is_some());
    }
}
