//! The writer of lives: one thread that takes what has happened to machines, in order.
//!
//! 1. All that waits is taken at once, [`AT_ONCE`] at most.
//! 2. Each event is one [`step`] on what the one before has left.
//! 3. One transaction writes what has changed.
//! 4. Only then it is to be seen, listeners are told, and whoever waits gets an answer. If the store
//!    takes nothing, nothing has happened, and each of them is told so.

use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::News;
use super::turn::Turn;
use crate::model::lifecycle::{Change, Refused, step};
use crate::model::{Life, LifeEvent, Mac, State, Why};
use crate::store::{self, Store, Write};

/// The table of lives: the six bytes of a MAC, and the record as JSON.
const TABLE: &str = "life";
/// Records at most; one that nobody has said a word of makes room.
pub const LIVES: usize = 20_000;
/// Events in one transaction.
const AT_ONCE: usize = 512;
/// Events that wait.
const QUEUE: usize = 16_384;

/// Why an event did not change what is known of a machine.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotDone {
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("the state of machines cannot be written: {0}")]
    Store(store::Error),
    #[error(
        "{LIVES} machines are known, and no more are taken: `pilotlight machine delete` makes room"
    )]
    Full,
    #[error("too much happens at once; ask again")]
    Busy,
}

impl Why for NotDone {
    fn name(&self) -> &'static str {
        match self {
            NotDone::Refused(why) => why.name(),
            NotDone::Store(_) => "store-unwritable",
            NotDone::Full => "too-many-machines",
            NotDone::Busy => "ledger-busy",
        }
    }
}

/// What an event has led to: the record as it is now, if there is one.
pub type Stepped = Result<Option<Arc<Life>>, NotDone>;

/// All lives, and which machines began to install with a UUID.
#[derive(Debug, Default, PartialEq, Clone)]
pub struct Lives {
    all: HashMap<Mac, Arc<Life>>,
    by_uuid: HashMap<String, BTreeSet<Mac>>,
}

impl Deref for Lives {
    type Target = HashMap<Mac, Arc<Life>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Lives {
    fn set(&mut self, mac: Mac, life: Option<Arc<Life>>) {
        let uuid = |life: Option<&Arc<Life>>| life.and_then(|l| own(l.uuid.as_deref()?));
        let (old, new) = (uuid(self.all.get(&mac)), uuid(life.as_ref()));
        if old != new {
            if let Some(old) = old
                && let Some(macs) = self.by_uuid.get_mut(&old)
            {
                macs.remove(&mac);
                if macs.is_empty() {
                    self.by_uuid.remove(&old);
                }
            }
            if let Some(new) = new {
                self.by_uuid.entry(new).or_default().insert(mac);
            }
        }
        match life {
            Some(life) => drop(self.all.insert(mac, life)),
            None => drop(self.all.remove(&mac)),
        }
    }

    /// Another machine than `mac` with this UUID of which it is decided already what it boots.
    pub fn twin(&self, mac: Mac, uuid: &str) -> Option<Arc<Life>> {
        let decided = |l: &&Arc<Life>| {
            l.mac != mac && !matches!(l.state, State::Discovered | State::Assigned)
        };
        let macs = self.by_uuid.get(&own(uuid)?)?;
        macs.iter().filter_map(|mac| self.all.get(mac)).find(decided).cloned()
    }
}

/// UUIDs that makers of mainboards leave in thousands of them.
const NOBODYS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

/// A UUID that is a machine's own.
fn own(uuid: &str) -> Option<String> {
    Some(uuid.trim().to_lowercase()).filter(|u| !u.is_empty() && !NOBODYS.contains(&&**u))
}

struct Job {
    mac: Mac,
    event: LifeEvent,
    attempts: u32,
    now: Timestamp,
    reply: Option<oneshot::Sender<Stepped>>,
}

/// The way to the thread, and what it has published.
pub struct Writer {
    jobs: SyncSender<Job>,
    lives: Arc<Mutex<Lives>>,
    /// Why the store has not taken what was last to be written.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Writer {
    /// Reads what is stored, and begins. A record that cannot be read stays as it is on the disk, and
    /// its machine, which is among those that are returned, is held: to count as none it would be
    /// installed anew.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn open(
        store: Arc<dyn Store>,
        turned: impl Fn(&Turn<'_>) + Send + 'static,
        said: impl Fn(News) + Send + 'static,
        now: Timestamp,
    ) -> Result<(Writer, Vec<Mac>), store::Error> {
        let (mut lives, mut unread) = (Lives::default(), Vec::new());
        for (key, value) in store.list(TABLE)? {
            let Ok(mac) = <[u8; 6]>::try_from(&*key).map(Mac) else {
                tracing::warn!(target: "pilotlight", "a stored state of no machine is left alone: {key:02x?}");
                continue;
            };
            let read = serde_json::from_slice::<Life>(&value).ok().filter(|l| l.mac == mac);
            if read.is_none() {
                unread.push(mac);
            }
            let life = read.unwrap_or_else(|| Life::unreadable(mac, now));
            lives.set(mac, Some(Arc::new(life)));
        }
        let lives = Arc::new(Mutex::new(lives));
        let (jobs, queue) = sync_channel(QUEUE);
        let shared = lives.clone();
        let trouble = Arc::new(Mutex::new(None));
        let troubled = trouble.clone();
        std::thread::Builder::new()
            .name("lives".into())
            .spawn(move || write(&queue, &*store, &shared, &turned, &said, &troubled))
            .map_err(|e| store::Error::Engine { path: "a thread".into(), why: e.to_string() })?;
        Ok((Writer { jobs, lives, trouble }, unread))
    }

    /// All of them, for another thread.
    pub fn shared(&self) -> Arc<Mutex<Lives>> {
        self.lives.clone()
    }

    pub fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands an event over; the answer comes when it is on the disk.
    pub fn step(
        &self,
        mac: Mac,
        event: LifeEvent,
        attempts: u32,
        now: Timestamp,
    ) -> oneshot::Receiver<Stepped> {
        let (reply, answer) = oneshot::channel();
        let job = Job { mac, event, attempts, now, reply: Some(reply) };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.jobs.try_send(job)
        {
            job.answer(Err(NotDone::Busy));
        }
        answer
    }

    /// The same where nobody waits.
    pub fn step_later(&self, mac: Mac, event: LifeEvent, attempts: u32, now: Timestamp) {
        // One that finds the queue full is lost, and what it told is told again by the next.
        let _ = self.jobs.try_send(Job { mac, event, attempts, now, reply: None });
    }
}

impl Job {
    fn answer(self, stepped: Stepped) {
        // Who asked may be gone.
        let _ = self.reply.map(|reply| reply.send(stepped));
    }
}

/// Ends with the last [`Writer`].
fn write(
    queue: &Receiver<Job>,
    store: &dyn Store,
    lives: &Mutex<Lives>,
    turned: &dyn Fn(&Turn<'_>),
    said: &dyn Fn(News),
    trouble: &Mutex<Option<String>>,
) {
    while let Ok(first) = queue.recv() {
        let mut batch = Batch::default();
        let mut answers = Vec::new();
        for job in std::iter::once(first).chain(queue.try_iter().take(AT_ONCE - 1)) {
            let stepped = batch.take(&lives.lock().unwrap_or_else(PoisonError::into_inner), &job);
            answers.push((job, stepped));
        }
        let committed = match batch.writes() {
            writes if writes.is_empty() => Ok(()),
            writes => {
                let committed = store.commit(&writes);
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) =
                    committed.as_ref().err().map(ToString::to_string);
                committed
            }
        };
        if committed.is_ok() {
            batch.publish(lives, turned, said);
        }
        for (job, stepped) in answers {
            let stepped = match (&committed, stepped) {
                (Ok(()), Ok((_, life))) => Ok(life),
                // What changes nothing needs no store.
                (_, Ok((false, life))) => Ok(life),
                (Err(e), Ok((true, _))) => Err(NotDone::Store(e.clone())),
                (_, Err(why)) => Err(why),
            };
            job.answer(stepped);
        }
    }
}

/// What a transaction will change.
#[derive(Default)]
struct Batch {
    changed: HashMap<Mac, Option<Arc<Life>>>,
    told: Vec<Told>,
    added: usize,
}

impl Batch {
    /// The record after the job's event, and whether it has changed it.
    fn take(&mut self, lives: &Lives, job: &Job) -> Result<(bool, Option<Arc<Life>>), NotDone> {
        let Job { mac, event, attempts, now, .. } = job;
        let before = match self.changed.get(mac) {
            Some(changed) => changed.clone(),
            None => lives.get(mac).cloned(),
        };
        let after = match step(*mac, before.as_deref(), event.clone(), *attempts, *now)? {
            Change::Same => return Ok((false, before)),
            Change::To(life) => life.map(|life| Arc::new(*life)),
        };
        if before.is_none() {
            self.make_room(lives, *now)?;
        }
        let (mac, attempts, now) = (*mac, *attempts, *now);
        self.told.push(Told { mac, before, after: after.clone(), attempts, now });
        self.changed.insert(mac, after.clone());
        Ok((true, after))
    }

    fn make_room(&mut self, lives: &Lives, now: Timestamp) -> Result<(), NotDone> {
        if lives.len() + self.added >= LIVES {
            let idle = |l: &&Arc<Life>| is_idle(l) && !self.changed.contains_key(&l.mac);
            let age = |l: &&Arc<Life>| (l.state != State::Discovered, l.since);
            let oldest = lives.values().filter(idle).min_by_key(age).ok_or(NotDone::Full)?;
            let (mac, before) = (oldest.mac, Some(oldest.clone()));
            self.changed.insert(mac, None);
            self.told.push(Told { mac, before, after: None, attempts: 0, now });
            return Ok(());
        }
        self.added += 1;
        Ok(())
    }

    fn writes(&self) -> Vec<Write> {
        let write = |(mac, life): (&Mac, &Option<Arc<Life>>)| match life {
            Some(life) => Write::put(TABLE, mac.0, serde_json::json!(**life).to_string()),
            None => Write::remove(TABLE, mac.0),
        };
        self.changed.iter().map(write).collect()
    }

    /// Timelines and the log say it before it is to be seen, and listeners hear of it last.
    fn publish(self, lives: &Mutex<Lives>, turned: &dyn Fn(&Turn<'_>), said: &dyn Fn(News)) {
        for Told { mac, before, after, attempts, now } in &self.told {
            let (before, after) = (before.as_deref(), after.as_deref());
            turned(&Turn { mac: *mac, before, after, attempts: *attempts, now: *now });
        }
        let mut shown = lives.lock().unwrap_or_else(PoisonError::into_inner);
        for (mac, life) in self.changed {
            shown.set(mac, life);
        }
        drop(shown);
        for Told { mac, before, after, .. } in self.told {
            said(News::Life { mac, before, after });
        }
    }
}

/// Whether it may make room: nobody has said a word of it, and nothing was installed. Such records,
/// and no others, can be made from outside, by the thousand.
fn is_idle(life: &Life) -> bool {
    match life.state {
        State::Discovered => true,
        State::Assigned => life.wish.is_none() && life.name.is_none() && life.installed.is_none(),
        _ => false,
    }
}

/// A change that a transaction holds.
struct Told {
    mac: Mac,
    before: Option<Arc<Life>>,
    after: Option<Arc<Life>>,
    attempts: u32,
    now: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::*;
    use crate::model::Stage;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Default)]
    struct Disk {
        memory: store::Memory,
        full: AtomicBool,
    }

    impl Store for Disk {
        fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, store::Error> {
            self.memory.get(table, key)
        }

        fn list(&self, table: &'static str) -> Result<Vec<store::Record>, store::Error> {
            self.memory.list(table)
        }

        fn commit(&self, writes: &[Write]) -> Result<(), store::Error> {
            match self.full.load(Ordering::SeqCst) {
                true => Err(store::Error::Engine { path: "p".into(), why: "full".into() }),
                false => self.memory.commit(writes),
            }
        }
    }

    fn open(disk: &Arc<Disk>) -> Ledger {
        Ledger::open(disk.clone()).unwrap()
    }

    fn mac(n: u32) -> Mac {
        let b = n.to_be_bytes();
        Mac([2, 0, b[0], b[1], b[2], b[3]])
    }

    fn stepped(writer: &Writer, n: u32, event: LifeEvent) -> Stepped {
        let now = Timestamp::from_second(n.into()).unwrap();
        writer.step(mac(n), event, 3, now).blocking_recv().unwrap()
    }

    #[test]
    fn what_the_store_does_not_take_has_not_happened() {
        let disk = Arc::new(Disk::default());
        let ledger = open(&disk);
        let (writer, mut heard) = (&ledger.lives, ledger.listen());
        let first = stepped(writer, 1, LifeEvent::Local).unwrap().unwrap();
        assert!(matches!(heard.try_recv(), Ok(News::Life { before: None, after: Some(_), .. })));
        disk.full.store(true, Ordering::SeqCst);
        let not = stepped(writer, 1, LifeEvent::Forget);
        assert!(matches!(not, Err(NotDone::Store(_))), "{not:?}");
        assert_eq!(writer.lives()[&mac(1)], first);
        assert!(heard.try_recv().is_err(), "nobody is told");
        // What changes nothing, and what does not fit, needs no store.
        assert_eq!(stepped(writer, 1, LifeEvent::Local).unwrap(), Some(first));
        let no = stepped(writer, 2, LifeEvent::Step(Stage::Kernel));
        assert!(matches!(no, Err(NotDone::Refused(Refused::Unknown))), "{no:?}");
        disk.full.store(false, Ordering::SeqCst);
        assert_eq!(stepped(writer, 1, LifeEvent::Forget).unwrap(), None);
        assert!(disk.list(TABLE).unwrap().is_empty());
    }

    #[test]
    fn what_is_stored_is_there_again_and_what_cannot_be_read_is_held() {
        let disk = Arc::new(Disk::default());
        let lives = {
            let ledger = open(&disk);
            let writer = &ledger.lives;
            stepped(writer, 1, LifeEvent::Local).unwrap();
            let assign = LifeEvent::Assign { name: Some("n".into()), profile: "p".into() };
            stepped(writer, 2, assign).unwrap();
            writer.lives().clone()
        };
        let other = disk.get(TABLE, &mac(1).0).unwrap().unwrap();
        let odd = [
            Write::put(TABLE, mac(3).0, *b"{"),
            Write::put(TABLE, mac(4).0, other),
            Write::put(TABLE, *b"x", *b"{}"),
        ];
        disk.commit(&odd).unwrap();
        let ledger = open(&disk);
        let found = ledger.lives.lives().clone();
        for n in 1..3 {
            assert_eq!(found[&mac(n)], lives[&mac(n)]);
        }
        for n in 3..5 {
            let life = &found[&mac(n)];
            assert_eq!((life.mac, life.state), (mac(n), State::Failed), "another record is none");
            assert_eq!(life.failure.as_ref().unwrap().why, "its stored state cannot be read");
        }
        assert_eq!((found.len(), ledger.alarms().len()), (4, 2));
        assert_eq!(disk.get(TABLE, &mac(3).0).unwrap().as_deref(), Some(&b"{"[..]));
        // A person's word, and nothing else, leads on.
        let assign = LifeEvent::Assign { name: None, profile: "p".into() };
        let no = stepped(&ledger.lives, 3, assign);
        assert!(matches!(no, Err(NotDone::Refused(Refused::Decided))), "{no:?}");
        stepped(&ledger.lives, 3, LifeEvent::Forget).unwrap();
        assert_eq!(disk.get(TABLE, &mac(3).0).unwrap(), None);
    }

    #[test]
    fn machines_of_one_uuid_are_found_without_a_search() {
        let mut lives = Lives::default();
        let life = |n, state, uuid: &str| {
            let uuid = Some(uuid.to_string());
            Some(Arc::new(Life { state, uuid, ..Life::unreadable(mac(n), Timestamp::UNIX_EPOCH) }))
        };
        lives.set(mac(1), life(1, State::Installed, "A-b"));
        lives.set(mac(2), life(2, State::Assigned, "c"));
        let twin = |lives: &Lives, n, uuid| lives.twin(mac(n), uuid).map(|l| l.mac);
        assert_eq!(twin(&lives, 9, "a-B"), Some(mac(1)));
        assert_eq!(
            (twin(&lives, 1, "a-b"), twin(&lives, 9, "c"), twin(&lives, 9, "")),
            (None, None, None)
        );
        for nobodys in NOBODYS {
            lives.set(mac(3), life(3, State::Installed, nobodys));
            assert_eq!(twin(&lives, 9, nobodys), None);
        }
        lives.set(mac(1), life(1, State::Installed, "d"));
        assert_eq!((twin(&lives, 9, "a-b"), twin(&lives, 9, "d")), (None, Some(mac(1))));
        lives.set(mac(1), None);
        lives.set(mac(2), None);
        assert!(lives.by_uuid.is_empty(), "{lives:?}");
    }

    #[test]
    fn records_that_anybody_can_make_make_room_and_others_do_not() {
        let base = |state| Life { state, ..Life::unreadable(mac(1), Timestamp::UNIX_EPOCH) };
        assert!(is_idle(&base(State::Discovered)) && is_idle(&base(State::Assigned)));
        let word = || Some("x".to_string());
        let assigned = || base(State::Assigned);
        let kept = [
            Life { wish: word(), ..assigned() },
            Life { name: word(), ..assigned() },
            Life { installed: Some(Timestamp::UNIX_EPOCH), ..assigned() },
        ];
        let states = State::ALL.into_iter().filter(|s| *s > State::Assigned).map(base);
        for life in kept.into_iter().chain(states) {
            assert!(!is_idle(&life), "{life:?}");
        }
    }

    #[test]
    fn a_machine_that_only_showed_itself_makes_room() {
        let disk = Arc::new(Disk::default());
        let ledger = open(&disk);
        let writer = &ledger.lives;
        stepped(writer, 0, LifeEvent::Local).unwrap();
        for n in 1..LIVES as u32 {
            let now = Timestamp::from_second(n.into()).unwrap();
            writer.step_later(mac(n), LifeEvent::Discover, 3, now);
            if n % 1000 == 0 {
                // The queue is not for all of them at once.
                stepped(writer, n, LifeEvent::Discover).unwrap();
            }
        }
        stepped(writer, 50_000, LifeEvent::Discover).unwrap();
        let lives = writer.lives();
        assert_eq!(lives.len(), LIVES);
        assert!(lives.contains_key(&mac(0)) && !lives.contains_key(&mac(1)));
        assert!(lives.contains_key(&mac(50_000)));
        drop(lives);
        assert_eq!(disk.list(TABLE).unwrap().len(), LIVES);
    }
}
