//! The boots that are over: a file for each machine, and the thread that writes them.
//!
//! 1. What is over comes in by [`Jobs`], which never wait: a full queue costs a piece of history and
//!    holds up no machine.
//! 2. Each machine's file has its last boots, the newest first, and is replaced whole (a new file
//!    that takes the old one's name). A boot that goes on after all replaces itself there.
//! 3. What was not heard of for [`IDLE`] is kept as it is: a restart of the server loses at most the
//!    boots that run. So is everything when it stops ([`Jobs::settle`]).
//! 4. A disk that takes nothing costs the history alone, is told once, and memory keeps [`RECENT`]
//!    entries in its place.
//! 5. What an installation took goes into the store, by its profile.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::State;
use super::serve::Lives;
use super::timeline::{End, Over, Past, Took};
use crate::model::{self, Entry, Life, Mac, Stage};
use crate::store::{self, Store, Write};

/// The table of what installations took: the profile's name, and [`Took`] as JSON.
const TABLE: &str = "took";
/// Profiles of which that is known.
const PROFILES: usize = 1000;
/// Boots of one machine that are kept at the most.
pub const BOOTS: usize = 50;
/// Boots that wait to be written.
const QUEUE: usize = 4096;
/// A boot is kept as it is when nothing was heard of it for so long.
pub const IDLE: SignedDuration = SignedDuration::from_mins(5);
/// How often that is looked for.
const LOOK: Duration = Duration::from_secs(60);
/// Boots that are taken out of the ledger at once.
const AT_ONCE: usize = 200;
/// The largest file, in bytes: five boots with all of their entries are 300 kB.
const FILE: usize = 1 << 20;
/// Files; beyond them the oldest go.
const FILES: usize = 20_000;
/// Entries that memory keeps where there is no disk.
const RECENT: usize = 100_000;
/// For whoever asks for boots, or stops.
const PATIENCE: Duration = Duration::from_secs(3);

/// What has happened to a boot.
pub enum Job {
    /// Another one has followed.
    Over(Box<Over>),
    /// Its machine's record has changed.
    Life { mac: Mac, before: Option<Arc<Life>>, after: Option<Arc<Life>> },
    /// What was kept before the server started is known again.
    Load,
    /// All that was put in before is through; with `true`, what runs is kept, too.
    Settle(bool, SyncSender<()>),
}

/// The way to the thread.
#[derive(Clone, Default)]
pub struct Jobs(Option<SyncSender<Job>>);

impl Jobs {
    pub fn push(&self, job: Job) {
        // One that finds the queue full is lost: see the head of this file.
        let _ = self.0.as_ref().map(|jobs| jobs.try_send(job));
    }

    /// Waits until what was put in before is kept, 3 s at most; what runs, too, if `all`.
    pub fn settle(&self, all: bool) {
        let (done, wait) = sync_channel(1);
        if self.0.as_ref().is_some_and(|jobs| jobs.try_send(Job::Settle(all, done)).is_ok()) {
            let _ = wait.recv_timeout(PATIENCE);
        }
    }
}

/// What is kept, and where.
#[derive(Default)]
pub struct Shelf {
    dir: OnceLock<PathBuf>,
    /// Boots of each machine.
    keep: AtomicUsize,
    recent: Mutex<Recent>,
    /// Whether it was told that the disk takes nothing.
    told: AtomicBool,
}

#[derive(Default)]
struct Recent {
    boots: VecDeque<(Mac, Past)>,
    entries: usize,
}

/// A file of boots.
#[derive(Default, Serialize, Deserialize)]
struct Book {
    boots: Vec<Past>,
}

impl Shelf {
    pub fn keep(&self, boots: usize) {
        self.keep.store(boots.min(BOOTS), Ordering::Relaxed);
    }

    pub fn kept(&self) -> usize {
        self.keep.load(Ordering::Relaxed)
    }

    /// Files are below `dir` from now on; the first one that is named counts.
    pub fn open(&self, dir: PathBuf) {
        if let Err(e) = DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
            self.trouble(&dir, &e);
        }
        let _ = self.dir.set(dir);
    }

    /// The last boots of a machine, the newest first.
    pub fn boots(&self, mac: Mac) -> Vec<Past> {
        let recent = self.recent();
        let mut all: Vec<Past> =
            recent.boots.iter().rev().filter(|(m, _)| *m == mac).map(|(_, p)| p.clone()).collect();
        drop(recent);
        for past in self.dir.get().map(|dir| read(&path(dir, mac)).boots).unwrap_or_default() {
            if !all.iter().any(|p| p.began == past.began) {
                all.push(past);
            }
        }
        all.sort_by_key(|p| std::cmp::Reverse(p.began));
        all.truncate(self.keep.load(Ordering::Relaxed));
        all
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a boot to the others of its machine. One that never got past DHCP makes no file of its
    /// own: anybody can make up the addresses of machines.
    fn put(&self, mac: Mac, past: Past, known: bool, files: &mut Option<usize>) {
        let keep = self.keep.load(Ordering::Relaxed);
        if keep == 0 {
            return;
        }
        let Some(dir) = self.dir.get() else { return self.remember(mac, past) };
        let path = path(dir, mac);
        let new = !path.exists();
        if new && !known && matches!(past.stage, Stage::Firmware | Stage::Ipxe) {
            return;
        }
        if new {
            let files = files.get_or_insert_with(|| count(dir));
            if *files >= FILES {
                *files = thin(dir);
            }
            *files += 1;
        }
        match write(&path, past.clone(), keep) {
            Ok(()) => self.told.store(false, Ordering::Relaxed),
            Err(e) => {
                self.trouble(&path, &e);
                self.remember(mac, past);
            }
        }
    }

    fn remember(&self, mac: Mac, past: Past) {
        let mut recent = self.recent();
        recent.entries += past.timeline.len();
        if let Some(old) = recent.boots.iter().position(|(m, p)| *m == mac && p.began == past.began)
            && let Some((_, old)) = recent.boots.remove(old)
        {
            recent.entries -= old.timeline.len();
        }
        recent.boots.push_back((mac, past));
        while recent.entries > RECENT
            && let Some((_, old)) = recent.boots.pop_front()
        {
            recent.entries -= old.timeline.len();
        }
    }

    fn trouble(&self, path: &Path, e: &io::Error) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(target: "pilotlight", "{}: {e}: the timelines of boots that are over are kept in memory only", path.display());
        }
    }
}

/// `boots/525400123456.json`
fn path(dir: &Path, mac: Mac) -> PathBuf {
    let name: String = mac.0.iter().map(|b| format!("{b:02x}")).collect();
    dir.join(name + ".json")
}

/// A file that is not there, or that cannot be understood, holds nothing.
fn read(path: &Path) -> Book {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|f| f.take(2 * FILE as u64).read_to_end(&mut text));
    match read.map(|_| serde_json::from_slice(&text)) {
        Ok(Ok(book)) => book,
        Ok(Err(e)) => {
            tracing::warn!(target: "pilotlight", "{}: {e}: these boots are forgotten", path.display());
            Book::default()
        }
        Err(_) => Book::default(),
    }
}

fn write(path: &Path, past: Past, keep: usize) -> io::Result<()> {
    let mut book = read(path);
    book.boots.retain(|p| p.began != past.began);
    book.boots.insert(0, past);
    book.boots.sort_by_key(|p| std::cmp::Reverse(p.began));
    book.boots.truncate(keep);
    let mut text = serde_json::to_vec(&book)?;
    while text.len() > FILE && book.boots.len() > 1 {
        book.boots.pop();
        text = serde_json::to_vec(&book)?;
    }
    let new = path.with_extension("new");
    let written = fs::write(&new, &text).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What a full disk took of it only takes room.
        let _ = fs::remove_file(&new);
    }
    written
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, |all| all.flatten().count())
}

/// Takes away a hundredth of the files, the oldest; how many are left.
fn thin(dir: &Path) -> usize {
    let aged = |e: fs::DirEntry| Some((e.metadata().ok()?.modified().ok()?, e.path()));
    let mut all: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(aged).collect();
    all.sort();
    let gone = (all.len() / 100).max(1);
    all.iter().take(gone).filter(|(_, path)| fs::remove_file(path).is_err()).count() + all.len()
        - gone.min(all.len())
}

/// What installations took, by profile.
///
/// # Errors
/// Where the store cannot be read.
pub fn took(store: &dyn Store) -> Result<HashMap<String, Took>, store::Error> {
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        Some((String::from_utf8(key).ok()?, serde_json::from_slice(&value).ok()?))
    };
    Ok(store.list(TABLE)?.into_iter().filter_map(read).take(PROFILES).collect())
}

/// What the thread works with.
pub struct Clerk {
    /// Of the ledger, whose end is the thread's.
    pub(super) state: Weak<Mutex<State>>,
    pub lives: Arc<Mutex<Lives>>,
    pub shelf: Arc<Shelf>,
    pub store: Arc<dyn Store>,
}

impl Clerk {
    /// Begins, and works for as long as there is a [`Jobs`].
    ///
    /// # Errors
    /// Where the system has no thread.
    pub fn start(self, queue: Receiver<Job>) -> Result<(), store::Error> {
        std::thread::Builder::new()
            .name("boots".into())
            .spawn(move || self.run(&queue))
            .map_err(|e| store::Error::Engine { path: "a thread".into(), why: e.to_string() })?;
        Ok(())
    }

    fn run(&self, queue: &Receiver<Job>) {
        let mut files = None;
        let mut looked = Instant::now();
        loop {
            match queue.recv_timeout(LOOK) {
                Ok(Job::Over(over)) => self.keep(*over, &mut files),
                Ok(Job::Life { mac, before, after }) => {
                    self.lived(mac, before.as_deref(), after.as_deref(), &mut files);
                }
                Ok(Job::Load) => self.load(),
                Ok(Job::Settle(all, done)) => {
                    if all {
                        self.look(SignedDuration::MIN, &mut files);
                    }
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= LOOK {
                self.look(IDLE, &mut files);
                looked = Instant::now();
            }
        }
    }

    /// The newest boot of each machine is the one that it is known by until it asks again.
    fn load(&self) {
        let all = self.shelf.dir.get().and_then(|dir| fs::read_dir(dir).ok());
        for file in all.into_iter().flatten().flatten().take(FILES) {
            let path = file.path();
            let mac = path.file_stem().and_then(|name| name.to_str()?.parse::<Mac>().ok());
            let Some(mac) = mac.filter(|_| path.extension().is_some_and(|e| e == "json")) else {
                continue;
            };
            if let Some(past) = read(&path).boots.into_iter().next() {
                let life = self.life(mac);
                self.with(|state| state.known_again(mac, past, life.as_deref()));
            }
        }
    }

    fn life(&self, mac: Mac) -> Option<Arc<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).get(&mac).cloned()
    }

    fn keep(&self, over: Over, files: &mut Option<usize>) {
        let (mac, life) = (over.mac, self.life(over.mac));
        let about = self.with(|state| (state.rivals(), state.is_kept(mac)));
        let (rivals, kept) = about.unwrap_or_default();
        if !kept {
            return;
        }
        if let Some(past) = over.past(life.as_deref(), &rivals, now()) {
            self.shelf.put(mac, past, life.is_some(), files);
        }
    }

    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> Option<T> {
        let state = self.state.upgrade()?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        Some(what(&mut state))
    }

    /// A machine's record has changed: its boot may have ended by that.
    fn lived(
        &self,
        mac: Mac,
        before: Option<&Life>,
        after: Option<&Life>,
        files: &mut Option<usize>,
    ) {
        let now = after.map_or_else(now, |life| life.since);
        let ended = self.with(|state| {
            let known = state.machines.get_mut(&mac)?;
            if !known.course.lives(before, after, now) {
                return None;
            }
            let installed = after.is_some_and(|l| l.state == model::State::Installed);
            let took = known.course.took(now).filter(|_| installed);
            known.course.changed = false;
            let over = known.so_far()?;
            if let Some((profile, took)) = &took
                && (state.took.len() < PROFILES || state.took.contains_key(profile))
            {
                state.took.insert(profile.clone(), *took);
            }
            Some((over, took))
        });
        let Some((over, took)) = ended.flatten() else { return };
        self.keep(over, files);
        if let Some((profile, took)) = took {
            let put = Write::put(TABLE, profile, serde_json::json!(took).to_string());
            if let Err(e) = self.store.commit(&[put]) {
                tracing::debug!(target: "pilotlight", "what the installation took is known until the restart: {e}");
            }
        }
    }

    /// Keeps what was not heard of for so long.
    fn look(&self, idle: SignedDuration, files: &mut Option<usize>) {
        let now = now();
        loop {
            let some: Vec<Over> = self
                .with(|state| {
                    let due = |k: &&mut super::Known| {
                        let last = k.timeline.last().map_or(now, |e| e.at);
                        k.course.changed && now.duration_since(last) >= idle
                    };
                    let due = state.machines.values_mut().filter(due).take(AT_ONCE);
                    due.filter_map(|known| {
                        known.course.changed = false;
                        known.so_far()
                    })
                    .collect()
                })
                .unwrap_or_default();
            if some.is_empty() {
                return;
            }
            for mut over in some {
                let life = self.life(over.mac);
                over.over |= !installs(life.as_deref());
                self.keep(over, files);
            }
        }
    }
}

/// A queue for [`Clerk::start`], and the way into it.
pub fn queue() -> (Jobs, Receiver<Job>) {
    let (jobs, queue) = sync_channel(QUEUE);
    (Jobs(Some(jobs)), queue)
}

/// Whether a boot was not heard of for so long that it counts as over. An installation may be silent
/// for longer; its timeout ends it.
pub fn is_idle(timeline: &[Entry], life: Option<&Life>, now: Timestamp) -> bool {
    let idle = timeline.last().is_some_and(|e| now.duration_since(e.at) >= IDLE);
    idle && !installs(life)
}

fn installs(life: Option<&Life>) -> bool {
    life.is_some_and(|l| l.state == model::State::Installing)
}

/// For whoever shows boots.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// One that was not the newest cannot run any more.
pub fn settled(past: &mut Past) {
    if past.end == End::Runs {
        past.end = End::Stopped;
    }
    past.ended.get_or_insert(past.last);
}
