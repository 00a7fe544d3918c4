//! The mirrors at work: a path in, bytes that are there or on their way out.
//!
//! 1. [`Mirrors::ask`] finds the mirror, and what the file must be: a pin, or a set of verified
//!    metadata ([`sets`]); a plain mirror's file is judged by RFC 9111 ([`fresh`]).
//! 2. What is held is handed over. What is not flies: one [`Flight`] for all who ask.
//! 3. What ended well is counted by [`Keeper`], which makes room.
//! 4. What a boot asked for is learned, and fetched when the next one begins.

mod fill;
pub mod order;
mod pass;
mod sets;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderMap;
use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::disk::{self, Disk, Held, Listed, Place, Trouble as DiskTrouble};
use super::evict::Evict;
use super::fetch::{Body, Get, Head, Trouble, Upstreams};
use super::fresh::{self, Verdict};
use super::learn::{self, Learned};
use super::record::{About, Id};
use super::verify::{self, Expect, Role, Trust};
use super::wire::{Ident, MirrorPath, kept};
use super::{Digest, No};
use crate::config::{self, Config, Verify};
use crate::ledger::Ledger;
use crate::model::Why;
use crate::model::profile::Source;
use crate::store::{Store, Write};
use fill::{Had, Piece, Tail, What};
use sets::Sets;

pub use fill::{End, Flight};
pub use pass::Stream;

/// Room that is made at once when the disk is full, in bytes.
pub const ROOM: u64 = 64 << 20;
/// Bytes that a reader in memory is given at once.
const PIECE: u64 = 256 << 10;
/// Files on their way at once.
const FLIGHTS: usize = 512;
/// Of those, how many are fetched ahead of a machine that has only just appeared.
const AHEAD: usize = 8;
/// The same profile is not fetched ahead again for so long.
const AHEAD_AGAIN: Duration = Duration::from_secs(60);
/// What was learned is in the store after this.
const WRITTEN: Duration = Duration::from_secs(5);
/// What a boot asked for, by profile.
const LEARNED: &str = "mirror-learned";

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub mirror: String,
    /// Below the mirror, percent-encoded.
    pub path: String,
    pub query: Option<String>,
    /// The token of the boot that it belongs to: what one boot is given comes from one set.
    pub boot: Option<String>,
    /// The client's.
    pub headers: HeaderMap,
    /// The first byte that is wanted.
    pub from: u64,
}

/// A URL, and the bytes a second that it delivers.
pub type UrlRate = (String, Option<f64>);

/// How what is held may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Hit,
    /// The mirror has said that it is still right.
    Revalidated,
    /// The mirror is away.
    Stale,
}

pub enum Answer {
    Held(Held, Use),
    /// On its way.
    Filling(Arc<About>, Arc<Flight>),
    /// Straight through, kept by nobody.
    Passing(Box<Pass>),
}

/// A file that goes straight through.
pub struct Pass {
    pub about: About,
    /// Of the whole, where it is known.
    pub total: Option<u64>,
    pub why: No,
    straight: Arc<Straight>,
    begun: Option<(Head, Body)>,
}

/// What [`Pass`] needs to ask by itself.
pub struct Straight {
    ups: Arc<Upstreams>,
    names: Vec<MirrorPath>,
    query: Option<String>,
    expect: Option<Expect>,
    headers: HeaderMap,
    /// What has been told of the file; every answer must be of that one.
    ident: Option<Ident>,
}

/// One declared mirror.
pub(super) struct House {
    pub name: String,
    pub verify: Verify,
    pub ups: Arc<Upstreams>,
    /// Read when it is first needed: the keys of a distribution take a while to be checked.
    pub trust: OnceLock<Result<Trust, String>>,
    pub pins: BTreeMap<String, Digest>,
    pub sets: Sets,
}

/// Counts what the cache holds, makes room, and tells of trouble.
pub struct Keeper {
    disk: Arc<Disk>,
    ledger: Arc<Ledger>,
    limit: AtomicU64,
    evict: Mutex<Evict>,
    needed: Mutex<Needed>,
}

/// What is not evicted.
#[derive(Default)]
struct Needed {
    /// Kernels and initrds of profiles: mirror and path.
    wanted: HashSet<(String, String)>,
    /// What these are now, and the metadata that is in force.
    held: HashMap<(String, String), Id>,
    /// By the command line.
    pinned: HashSet<Id>,
}

impl Needed {
    fn all(&self) -> HashSet<Id> {
        self.held.values().chain(&self.pinned).copied().collect()
    }
}

pub struct Mirrors {
    pub(super) disk: Arc<Disk>,
    keeper: Arc<Keeper>,
    store: Arc<dyn Store>,
    houses: Mutex<HashMap<String, Arc<House>>>,
    flights: Mutex<HashMap<Id, Arc<Flight>>>,
    offline: AtomicBool,
    prefetch: AtomicBool,
    learned: Mutex<Learned>,
    /// Profiles of which more was learned than the store has.
    unwritten: Mutex<HashSet<String>>,
    ahead: Mutex<HashMap<String, Instant>>,
    places: Arc<Semaphore>,
    /// `None` once it has stopped.
    runtime: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal with the mirror that it is about, for the log.
struct Named<'a> {
    mirror: &'a str,
    no: &'a No,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.no {
            No::Upstream(_) | No::Digest { .. } | No::NoRoom | No::Large => {
                write!(f, "{}: {}", self.mirror, self.no)
            }
            no => no.fmt(f),
        }
    }
}

impl Why for Named<'_> {
    fn name(&self) -> &'static str {
        self.no.name()
    }

    fn is_everyday(&self) -> bool {
        self.no.is_everyday()
    }
}

impl Keeper {
    /// No URL of a mirror answers: a person should know, since what is not held does not come.
    pub fn away(&self, mirror: &str, trouble: &Trouble) {
        let text =
            format!("mirror {mirror}: none of its URLs answers; what is held is served: {trouble}");
        self.ledger.alarm("mirror-away", mirror, text, Timestamp::now());
    }

    pub fn told(&self, mirror: &str, no: &No) {
        let now = Timestamp::now();
        self.ledger.refused("mirror", None, &Named { mirror, no }, now);
        if matches!(no, No::Digest { .. } | No::Fault { .. } | No::Keys { .. } | No::NoRoom) {
            let text = Named { mirror, no }.to_string();
            self.ledger.alarm(no.name(), mirror, text, now);
        }
    }

    /// Counts a file, whole or not, of so many bytes on the disk.
    fn counted(&self, id: Id, bytes: u64) {
        lock(&self.evict).insert(id, bytes);
        let over = self.over(0);
        if over > 0 {
            self.evicts(over, Some(id));
        }
        if self.over(0) > 0 && !lock(&self.needed).all().contains(&id) {
            // All that is left is needed more than this.
            lock(&self.evict).remove(&id);
            self.removed(&id);
        }
    }

    /// Bytes that are too many, with so many more.
    fn over(&self, more: u64) -> u64 {
        let limit = self.limit.load(Ordering::Relaxed);
        lock(&self.evict).total().saturating_add(more).saturating_sub(limit)
    }

    /// Removes what is to go first, at least `bytes` of it; nothing that is needed, and never `but`.
    /// Whether there was anything.
    fn evicts(&self, bytes: u64, but: Option<Id>) -> bool {
        let needed = lock(&self.needed).all();
        let victims =
            lock(&self.evict).victims(bytes, |id| needed.contains(id) || Some(*id) == but);
        let mut gone = false;
        for victim in victims {
            // Pinned by the command line, which is another process.
            let held = self.disk.get(&victim.id);
            let pinned = matches!(held, Ok(Some(held)) if held.about.pinned);
            if pinned {
                lock(&self.needed).pinned.insert(victim.id);
            }
            if pinned || victim.kept {
                lock(&self.evict).insert(victim.id, victim.bytes);
                continue;
            }
            gone |= self.removed(&victim.id);
        }
        gone
    }

    /// Removes a file, or what there is of one.
    fn removed(&self, id: &Id) -> bool {
        match self.disk.remove(id) {
            Ok(true) => true,
            // Somebody fills it just now: it is counted when that ends.
            Ok(false) => matches!(self.disk.remove_partial(id), Ok(true)),
            Err(e) => {
                self.told("", &No::Disk(e.to_string()));
                false
            }
        }
    }

    /// This file is there now: whether a profile needs it.
    fn has(&self, mirror: &str, path: &str, id: Id) {
        let file = (mirror.to_string(), path.to_string());
        let mut needed = lock(&self.needed);
        if needed.wanted.contains(&file) {
            needed.held.insert(file, id);
        }
    }
}

impl fill::House for Keeper {
    fn make_room(&self, bytes: u64) -> bool {
        self.evicts(bytes, None)
    }

    fn may_keep(&self, what: &What, about: &About) -> bool {
        fresh::may_keep(about, &what.headers)
    }

    fn fits(&self, bytes: u64) -> bool {
        let over = self.over(bytes);
        if over > 0 {
            self.evicts(over, None);
        }
        bytes <= self.limit.load(Ordering::Relaxed)
    }

    fn trouble(&self, mirror: &str, no: &No) {
        self.told(mirror, no);
    }
}

impl Mirrors {
    /// Opens the cache; its size is counted on a thread of its own.
    ///
    /// # Errors
    /// Of the disk, or where no thread can be had.
    pub fn open(
        config: &Config,
        ledger: Arc<Ledger>,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<Arc<Mirrors>> {
        let disk = Arc::new(Disk::open(&config.cache_dir())?);
        // Two threads: what they do is wait, copy and hash.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(64)
            .thread_name("mirror")
            .enable_all()
            .build()?;
        let keeper = Arc::new(Keeper {
            disk: disk.clone(),
            ledger,
            limit: AtomicU64::new(config.cache.limit),
            evict: Mutex::default(),
            needed: Mutex::default(),
        });
        let mirrors = Arc::new(Mirrors {
            disk,
            keeper,
            store,
            houses: Mutex::default(),
            flights: Mutex::default(),
            offline: AtomicBool::new(config.cache.offline),
            prefetch: AtomicBool::new(config.cache.prefetch),
            learned: Mutex::default(),
            unwritten: Mutex::default(),
            ahead: Mutex::default(),
            places: Arc::new(Semaphore::new(AHEAD)),
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
        });
        for (profile, record) in mirrors.store.list(LEARNED)? {
            if let Ok(profile) = String::from_utf8(profile) {
                lock(&mirrors.learned).read(&profile, &record);
            }
        }
        mirrors.configure(config);
        let scans = mirrors.clone();
        std::thread::Builder::new().name("cache".into()).spawn(move || scans.scan())?;
        Ok(mirrors)
    }

    /// Takes a new configuration. Mirrors that did not change keep all that is known of them.
    pub fn configure(&self, config: &Config) {
        self.offline.store(config.cache.offline, Ordering::Relaxed);
        self.prefetch.store(config.cache.prefetch, Ordering::Relaxed);
        self.keeper.limit.store(config.cache.limit, Ordering::Relaxed);
        {
            let mut needed = lock(&self.keeper.needed);
            let wanted = needs(config);
            let Needed { wanted: before, held, .. } = &mut *needed;
            held.retain(|file, _| !before.contains(file) || wanted.contains(file));
            *before = wanted;
        }
        let mut houses = lock(&self.houses);
        let mut old = std::mem::take(&mut *houses);
        for mirror in &config.mirrors {
            let house = match old.remove(&mirror.name) {
                Some(house) if house.ups.mirror == *mirror => house,
                _ => match House::new(mirror) {
                    Ok(house) => Arc::new(house),
                    Err(why) => {
                        let mirror = mirror.name.clone();
                        self.told(&mirror.clone(), &No::Keys { mirror, why });
                        continue;
                    }
                },
            };
            if let Some(Err(why)) = house.trust.get() {
                let no = No::Keys { mirror: house.name.clone(), why: why.clone() };
                self.told(&house.name, &no);
            }
            houses.insert(mirror.name.clone(), house);
        }
    }

    /// Counts what is there.
    fn scan(&self) {
        // What is in force is needed, and is known by the store.
        let houses: Vec<_> = lock(&self.houses).values().cloned().collect();
        for house in houses {
            if let Err(why) = house.trust() {
                let (mirror, why) = (house.name.clone(), why.clone());
                self.told(&house.name, &No::Keys { mirror, why });
            }
            if let Err(no) = self.load(&house) {
                self.told(&house.name, &no);
            }
        }
        let mut found = Vec::new();
        let mut newest: HashMap<(String, String), Timestamp> = HashMap::new();
        self.disk.each(|listed| match listed {
            Ok(Listed { place: Place::Aside, .. }) => {}
            Ok(Listed { place, id: Some(id), bytes, used, about, .. }) => {
                if let Some(about) = about.filter(|_| place == Place::Complete) {
                    if about.pinned {
                        lock(&self.keeper.needed).pinned.insert(id);
                    }
                    let file = (about.mirror, about.path);
                    if newest.get(&file).is_none_or(|at| *at < about.received) {
                        self.keeper.has(&file.0, &file.1, id);
                        newest.insert(file, about.received);
                    }
                }
                found.push((id, bytes, used.as_second()));
            }
            Ok(_) => {}
            Err(e) => self.told("", &No::Disk(e.to_string())),
        });
        lock(&self.keeper.evict).load(found);
        let over = self.keeper.over(0);
        if over > 0 {
            self.keeper.evicts(over, None);
        }
    }

    pub(super) fn told(&self, mirror: &str, no: &No) {
        self.keeper.told(mirror, no);
    }

    pub(super) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Ends the downloads: what is there of them is taken up again by the next start.
    pub fn stop(&self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
        let unwritten = lock(&self.unwritten).clone();
        unwritten.iter().for_each(|profile| self.write_learned(profile));
    }

    /// Runs `job` where downloads live, whoever waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.handle.spawn(job).await.ok()
    }

    /// What is answered to one request.
    ///
    /// # Errors
    /// [`No`]: why nothing is.
    pub async fn ask(self: &Arc<Self>, ask: Ask) -> Result<Answer, No> {
        let me = self.clone();
        let answered = self.run(async move { me.answer(&ask).await }).await;
        answered.unwrap_or(Err(No::Busy))
    }

    async fn answer(self: &Arc<Self>, ask: &Ask) -> Result<Answer, No> {
        self.find(MirrorPath::encoded(&ask.path)?, ask).await
    }

    async fn find(self: &Arc<Self>, path: MirrorPath, ask: &Ask) -> Result<Answer, No> {
        let house = self.house(&ask.mirror)?;
        if let Some(digest) = house.pins.get(path.as_str()) {
            let expect = Expect { digest: *digest, size: None };
            return self.payload(&house, &path, Vec::new(), expect, ask.from).await;
        }
        if house.verify == Verify::Plain {
            return self.plain(&house, path, ask).await;
        }
        if ask.query.is_some() {
            return Err(No::Query(house.name.clone()));
        }
        if let Err(why) = house.trust() {
            return Err(No::Keys { mirror: house.name.clone(), why: why.clone() });
        }
        match verify::role(house.verify, path.as_str()) {
            Role::Root | Role::Signature => {
                let fresh = match wants_newest(&ask.headers) {
                    true => sets::FRESH_AT_LEAST,
                    false => sets::FRESH,
                };
                let held = self.root_file(&house, &path, ask.boot.as_deref(), fresh).await?;
                Ok(Answer::Held(held, Use::Revalidated))
            }
            Role::Listed => {
                let (expect, names) = self.expected(&house, &path, ask.boot.as_deref()).await?;
                self.payload(&house, &path, names, expect, ask.from).await
            }
        }
    }

    pub(super) fn house(&self, name: &str) -> Result<Arc<House>, No> {
        let house = lock(&self.houses).get(name).cloned();
        house.ok_or_else(|| No::NoMirror(crate::model::event::plain(name, 80)))
    }

    pub(super) fn held(&self, id: &Id) -> Option<Held> {
        let held = match self.disk.get(id) {
            Ok(held) => held,
            Err(e @ DiskTrouble::Damaged { .. }) => {
                lock(&self.keeper.evict).remove(id);
                self.told("", &No::Disk(e.to_string()));
                None
            }
            Err(e) => {
                self.told("", &No::Disk(e.to_string()));
                None
            }
        };
        if held.is_some() {
            lock(&self.keeper.evict).used(id);
        }
        held
    }

    /// A file that is known by its digest; `names` are other names that upstream may have it under.
    pub(super) async fn payload(
        self: &Arc<Self>,
        house: &Arc<House>,
        path: &MirrorPath,
        names: Vec<MirrorPath>,
        expect: Expect,
        from: u64,
    ) -> Result<Answer, No> {
        let id = Id::content(&expect.digest);
        self.keeper.has(&house.name, path.as_str(), id);
        if let Some(held) = self.held(&id) {
            return Ok(Answer::Held(held, Use::Hit));
        }
        if self.is_offline() {
            return Err(No::Offline(house.name.clone(), path.to_string()));
        }
        let names = if names.is_empty() { vec![path.clone()] } else { names };
        let what = What {
            id,
            path: path.clone(),
            names,
            query: None,
            expect: Some(expect),
            headers: HeaderMap::new(),
            of: HeaderMap::new(),
            stale: None,
        };
        let (flight, _) = self.fly(what, &house.ups, from)?;
        match flight.met_or_ended().await {
            Ok(about) => Ok(Answer::Filling(about, flight)),
            Err(end) => self.landed(&flight, end),
        }
    }

    /// A flight that ended before anything could be read of it.
    fn landed(&self, flight: &Arc<Flight>, end: End) -> Result<Answer, No> {
        match end {
            End::Whole(held) => Ok(Answer::Held(held, Use::Hit)),
            End::Unkept(about) => Ok(Answer::Filling(about, flight.clone())),
            End::Straight(why) => {
                Ok(Answer::Passing(Box::new(Pass::of(flight, why, flight.ident(), None))))
            }
            End::Passed(begun) => {
                let begun = lock(&begun).take();
                Ok(Answer::Passing(Box::new(Pass::of(flight, No::Unkept, None, begun))))
            }
            End::Failed(no) => Err(no),
            End::Fresh(_) => Err(No::Busy),
        }
    }

    /// The flight of this file: the one that there is, or a new one, and then it is the caller's.
    fn fly(
        self: &Arc<Self>,
        what: What,
        ups: &Arc<Upstreams>,
        from: u64,
    ) -> Result<(Arc<Flight>, bool), No> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&what.id) {
            return Ok((flight.clone(), false));
        }
        if flights.len() >= FLIGHTS {
            return Err(No::Busy);
        }
        let id = what.id;
        let me = self.clone();
        let done = move |flight: &Arc<Flight>, end: &End| me.done(flight, end);
        let (house, disk) = (self.keeper.clone(), self.disk.clone());
        let flight = Flight::start(what, ups.clone(), house, disk, from, done);
        flights.insert(id, flight.clone());
        Ok((flight, true))
    }

    fn done(&self, flight: &Arc<Flight>, end: &End) {
        let id = flight.what.id;
        match end {
            End::Failed(No::Upstream(trouble)) if trouble.is_away() => {
                self.keeper.away(&flight.ups.mirror.name, trouble);
            }
            End::Whole(held) => self.keeper.counted(id, held.bytes),
            End::Fresh(head) => {
                let old = flight.what.stale.as_ref();
                let brought = kept(&head.headers);
                let new = old.and_then(|old| {
                    fresh::renewed(&old.about, &flight.what.headers, &brought, Timestamp::now())
                });
                let written = new.map(|about| self.disk.rewrite(&id, &about));
                if let Some(Err(e)) = written {
                    self.told(&flight.ups.mirror.name, &No::Disk(e.to_string()));
                }
            }
            end => {
                if let Some(bytes) = flight.left(end) {
                    self.keeper.counted(id, bytes);
                }
            }
        }
        lock(&self.flights).remove(&id);
    }

    /// A file of a mirror that nothing verifies: RFC 9111 alone.
    async fn plain(
        self: &Arc<Self>,
        house: &Arc<House>,
        path: MirrorPath,
        ask: &Ask,
    ) -> Result<Answer, No> {
        let place = match &ask.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_string(),
        };
        let id = Id::named(&house.name, &place, "");
        self.keeper.has(&house.name, &place, id);
        let of = fresh::forwarded(&ask.headers);
        let alone = || Straight {
            ups: house.ups.clone(),
            names: vec![path.clone()],
            query: ask.query.clone(),
            expect: None,
            headers: fresh::sent(&of),
            ident: None,
        };
        if ask.headers.contains_key(http::header::AUTHORIZATION) {
            // Whatever comes of it is for nobody else (RFC 9111 section 3.5).
            return alone().answer(&house.name, &place).await;
        }
        // Twice: what somebody else has just fetched or revalidated is looked at once more.
        for turn in 0..3 {
            let held = self.held(&id);
            let (headers, stale) = match &held {
                None => (of.clone(), None),
                Some(h) => match fresh::judge(&h.about, &of, Timestamp::now()) {
                    Verdict::Fresh(_) if turn > 0 => {
                        return Ok(Answer::Held(h.clone(), Use::Revalidated));
                    }
                    Verdict::Fresh(_) => return Ok(Answer::Held(h.clone(), Use::Hit)),
                    Verdict::Ask { headers, matches } => (headers, matches.then(|| h.clone())),
                },
            };
            if self.is_offline() {
                // Somebody asked for this: what is there is used as it is.
                return match held.filter(|h| fresh::suits(&h.about, &of)) {
                    Some(held) => Ok(Answer::Held(held, Use::Stale)),
                    None => Err(No::Offline(house.name.clone(), place)),
                };
            }
            let usable = |h: &&Held| fresh::suits(&h.about, &of) && fresh::may_be_stale(&h.about);
            // Nobody waits for mirrors that have just failed.
            if house.ups.all_rest()
                && let Some(held) = held.as_ref().filter(usable)
            {
                return Ok(Answer::Held(held.clone(), Use::Stale));
            }
            let revalidates = stale.is_some();
            let what = What {
                id,
                path: path.clone(),
                names: vec![path.clone()],
                query: ask.query.clone(),
                expect: None,
                headers: fresh::sent(&headers),
                of: of.clone(),
                stale,
            };
            let (flight, mine) = self.fly(what, &house.ups, ask.from)?;
            // Who comes while it arrives may have it, too; who comes after that asks again.
            let late = flight.is_done();
            let end = match flight.met_or_ended().await {
                Ok(about) if !late && fresh::suits(&about, &of) => {
                    return Ok(Answer::Filling(about, flight));
                }
                Ok(_) => flight.ended().await,
                Err(end) => end,
            };
            if late {
                continue;
            }
            match end {
                // What has been revalidated answers those who waited for it, however soon it must
                // be asked about again (no-cache).
                End::Fresh(_) => {
                    if let Some(held) = self.held(&id).filter(|h| fresh::suits(&h.about, &of)) {
                        return Ok(Answer::Held(held, Use::Revalidated));
                    }
                }
                End::Whole(held) if fresh::suits(&held.about, &of) => {
                    return Ok(Answer::Held(held, Use::Hit));
                }
                End::Whole(_) => {}
                End::Failed(no) => {
                    let away = matches!(&no, No::Upstream(t) if t.is_away());
                    return match held {
                        Some(held) if away && revalidates && fresh::may_be_stale(&held.about) => {
                            self.told(&house.name, &no);
                            Ok(Answer::Held(held, Use::Stale))
                        }
                        _ => Err(no),
                    };
                }
                end if mine => return self.landed(&flight, end),
                // It was for whoever asked first, by his headers.
                _ => return alone().answer(&house.name, &place).await,
            }
        }
        Err(No::Busy)
    }

    /// Keeps a small file that was fetched whole, under its digest.
    pub(super) fn keep(&self, about: About, bytes: &[u8]) -> Result<Held, No> {
        let digest = about.digest.unwrap_or_else(|| Digest::sha256(bytes));
        let id = Id::content(&digest);
        if let Some(held) = self.held(&id) {
            return Ok(held);
        }
        let about = About { digest: Some(digest), len: Some(bytes.len() as u64), ..about };
        let kept = tokio::task::block_in_place(|| {
            let partial = self.disk.begin(&id, about.clone()).map_err(|e| No::of_disk(&e))?;
            let mut written = partial.write_at(0, bytes);
            if written.as_ref().is_err_and(disk::is_full) && self.keeper.evicts(ROOM, None) {
                written = partial.write_at(0, bytes);
            }
            written.map_err(|e| {
                if disk::is_full(&e) { No::NoRoom } else { No::Disk(e.to_string()) }
            })?;
            partial.commit(about).map_err(|e| No::of_disk(&e))
        });
        let held = kept?;
        self.keeper.counted(id, held.bytes);
        Ok(held)
    }

    /// All bytes of an answer, at most `limit` of them.
    pub(super) async fn whole(&self, answer: Answer, limit: u64) -> Result<Vec<u8>, No> {
        let large = || No::Disk("this file is too large for metadata".into());
        let mut reader = match answer {
            Answer::Held(held, _) => {
                let len = usize::try_from(held.len).ok().filter(|_| held.len <= limit);
                let mut bytes = vec![0; len.ok_or_else(large)?];
                let all = held.file.read_exact_at(&mut bytes, held.offset);
                return all.map(|()| bytes).map_err(|e| No::Disk(e.to_string()));
            }
            Answer::Filling(about, flight) => Reader::of(&flight, &about, 0, None),
            Answer::Passing(pass) => Reader::alone(pass.from(0, None).await?),
        };
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await? {
            if (all.len() + bytes.len()) as u64 > limit {
                return Err(large());
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// A boot of `profile` asked for a file: it is remembered, and kept from eviction as long as
    /// there is anything else.
    pub fn asked(self: &Arc<Self>, boot: &str, profile: &str, mirror: &str, path: &str) {
        let Ok(path) = MirrorPath::encoded(path) else { return };
        let file = (mirror.to_string(), path.to_string());
        let changed = lock(&self.learned).asked(boot, profile, file, Timestamp::now());
        if !changed || !lock(&self.unwritten).insert(profile.to_string()) {
            return;
        }
        let (me, profile) = (self.clone(), profile.to_string());
        self.handle.spawn(async move {
            tokio::time::sleep(WRITTEN).await;
            tokio::task::block_in_place(|| me.write_learned(&profile));
        });
    }

    fn write_learned(&self, profile: &str) {
        if !lock(&self.unwritten).remove(profile) {
            return;
        }
        let files = lock(&self.learned).of(profile).to_vec();
        let record = learn::record(&files);
        if let Err(e) = self.store.commit(&[Write::put(LEARNED, profile, record)]) {
            tracing::warn!(
                target: "pilotlight",
                "mirror: what profile {profile} asks for is not kept: {e}"
            );
        }
    }

    /// This file of the metadata is in force: held against eviction, and not what it was before.
    pub fn needs(&self, mirror: &str, path: &str, id: Id) {
        lock(&self.keeper.needed).held.insert((mirror.into(), path.into()), id);
    }

    /// Whether [`Mirrors::appeared`] could have anything to do.
    pub fn has_learned(&self) -> bool {
        self.prefetch.load(Ordering::Relaxed) && !lock(&self.learned).is_empty()
    }

    /// A machine that will boot `profile` has appeared: what the last one asked for is fetched.
    pub fn appeared(self: &Arc<Self>, profile: &str) {
        if !self.prefetch.load(Ordering::Relaxed) || self.is_offline() {
            return;
        }
        {
            let mut ahead = lock(&self.ahead);
            ahead.retain(|_, at| at.elapsed() < AHEAD_AGAIN);
            if ahead.contains_key(profile) {
                return;
            }
            ahead.insert(profile.to_string(), Instant::now());
        }
        let files = lock(&self.learned).of(profile).to_vec();
        let me = self.clone();
        let profile = profile.to_string();
        self.handle.spawn(async move {
            let before = Instant::now();
            let fetched = me.fetch_all(files, |_| {}).await;
            tracing::info!(
                target: "pilotlight",
                "mirror: fetched {} files ahead for profile {profile} in {:.1} s",
                fetched.iter().filter(|f| matches!(f.state, FetchState::Fetched(_))).count(),
                before.elapsed().as_secs_f64()
            );
        });
    }

    /// Fetches files that are not held, a few at a time, in their order; tells of each.
    pub async fn fetch_all(
        self: &Arc<Self>,
        files: Vec<(String, String)>,
        told: impl Fn(&Fetched),
    ) -> Vec<Fetched> {
        let mut jobs = tokio::task::JoinSet::new();
        let mut all = Vec::new();
        for (mirror, path) in files {
            let Ok(place) = self.places.clone().acquire_owned().await else { break };
            let me = self.clone();
            jobs.spawn(async move {
                let _place = place;
                let state = me.fetch_one(&mirror, &path).await;
                Fetched { mirror, path, state }
            });
            while let Some(Ok(done)) = jobs.try_join_next() {
                told(&done);
                all.push(done);
            }
        }
        while let Some(done) = jobs.join_next().await {
            if let Ok(done) = done {
                told(&done);
                all.push(done);
            }
        }
        all
    }

    async fn fetch_one(self: &Arc<Self>, mirror: &str, path: &str) -> FetchState {
        let plain = match MirrorPath::plain(path) {
            Ok(path) => path,
            Err(e) => return FetchState::Failed(No::Path(e)),
        };
        let ask = Ask { mirror: mirror.into(), ..Ask::default() };
        let began = Timestamp::now();
        match self.find(plain, &ask).await {
            // A small file is whole before anything is said of it.
            Ok(Answer::Held(held, Use::Hit)) if held.about.received >= began => {
                FetchState::Fetched(held.len)
            }
            Ok(Answer::Held(held, _)) => FetchState::Held(held.len),
            Ok(Answer::Filling(_, flight)) => match flight.ended().await {
                End::Whole(held) => FetchState::Fetched(held.len),
                End::Failed(no) | End::Straight(no) => FetchState::Failed(no),
                End::Unkept(_) | End::Passed(_) | End::Fresh(_) => FetchState::Failed(No::Unkept),
            },
            Ok(Answer::Passing(pass)) => match pass.about.status {
                404 | 410 => FetchState::Failed(No::NotThere(mirror.into(), path.into())),
                _ => FetchState::Failed(pass.why),
            },
            Err(no) => FetchState::Failed(no),
        }
    }

    /// Bytes as a file that is nowhere, for a data plane that sends files: its descriptor and
    /// length.
    ///
    /// # Errors
    /// The kernel's.
    pub fn in_memory(bytes: &[u8]) -> std::io::Result<(Arc<File>, u64)> {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let file = File::from(memfd_create("pilotlight", MFdFlags::MFD_CLOEXEC)?);
        file.write_all_at(bytes, 0)?;
        Ok((Arc::new(file), bytes.len() as u64))
    }

    /// Files on their way: mirror, path, bytes there, of how many, and since when.
    pub fn flying(&self) -> Vec<(String, String, u64, Option<u64>, Duration)> {
        let flights: Vec<Arc<Flight>> = lock(&self.flights).values().cloned().collect();
        let line = |f: Arc<Flight>| {
            let (there, total) = f.progress();
            let name = f.ups.mirror.name.clone();
            (name, f.what.path.to_string(), there, total, f.began.elapsed())
        };
        flights.into_iter().map(line).collect()
    }

    /// How far the fill of one file is.
    pub fn progress(&self, mirror: &str, path: &str) -> Option<(u64, Option<u64>)> {
        let flights = lock(&self.flights);
        let mut all = flights.values();
        let this = all.find(|f| f.ups.mirror.name == mirror && f.what.path.as_str() == path)?;
        Some(this.progress())
    }

    /// Files in the cache, and the bytes of the disk that they take.
    pub fn kept(&self) -> (usize, u64) {
        let evict = lock(&self.keeper.evict);
        (evict.len(), evict.total())
    }

    /// Each mirror's URLs and the bytes a second that they deliver.
    pub fn standing(&self) -> Vec<(String, Vec<UrlRate>)> {
        let houses = lock(&self.houses);
        let mut all: Vec<_> = houses.values().map(|h| (h.name.clone(), h.ups.standing())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Drop for Mirrors {
    /// A runtime that is dropped waits, which a thread of another runtime may not.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a client has said that no old answer will do (RFC 9111 section 5.2.1).
fn wants_newest(headers: &HeaderMap) -> bool {
    let said = headers.get_all(http::header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    said.flat_map(|v| v.split(',')).any(|d| matches!(d.trim(), "no-cache" | "max-age=0"))
}

/// What became of a file that was to be fetched.
pub struct Fetched {
    pub mirror: String,
    pub path: String,
    pub state: FetchState,
}

pub enum FetchState {
    /// It was there; bytes.
    Held(u64),
    Fetched(u64),
    Failed(No),
}

/// Kernels and initrds that profiles take from mirrors: mirror and path.
fn needs(config: &Config) -> HashSet<(String, String)> {
    let sources = config.profiles.iter().flat_map(|p| p.sources());
    let mirrored = sources.filter_map(|source| match source {
        Source::Mirror { mirror, path } => {
            Some((mirror.clone(), MirrorPath::plain(path).ok()?.to_string()))
        }
        _ => None,
    });
    mirrored.collect()
}

impl House {
    /// Who may sign. Reads files.
    pub fn trust(&self) -> &Result<Trust, String> {
        self.trust.get_or_init(|| {
            let read = |path: &PathBuf| {
                let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
                Ok((path.clone(), bytes))
            };
            let keys: Result<Vec<_>, String> = self.ups.mirror.keys.iter().map(read).collect();
            keys.and_then(|keys| Trust::read(&keys).map_err(|e| e.to_string()))
        })
    }

    fn new(mirror: &config::Mirror) -> Result<House, String> {
        Ok(House {
            name: mirror.name.clone(),
            verify: mirror.verify,
            ups: Arc::new(Upstreams::new(mirror.clone())?),
            trust: OnceLock::new(),
            pins: mirror.pins.clone(),
            sets: Sets::default(),
        })
    }
}

impl Pass {
    fn of(
        flight: &Arc<Flight>,
        why: No,
        ident: Option<Ident>,
        begun: Option<(Head, Body)>,
    ) -> Pass {
        let what = &flight.what;
        let known = flight.known();
        let about = match &begun {
            Some((head, _)) => {
                About { digest: known.digest, ..About::of(&known.mirror, &known.path, head) }
            }
            None => known,
        };
        let mut headers = what.headers.clone();
        headers.remove(http::header::IF_NONE_MATCH);
        headers.remove(http::header::IF_MODIFIED_SINCE);
        Pass {
            total: about.len,
            about,
            why,
            straight: Arc::new(Straight {
                ups: flight.ups.clone(),
                names: what.names.clone(),
                query: what.query.clone(),
                expect: what.expect,
                headers,
                ident,
            }),
            begun,
        }
    }

    /// The bytes `at..end`, as they come.
    ///
    /// # Errors
    /// No URL answers.
    pub async fn from(self, at: u64, end: Option<u64>) -> Result<Stream, No> {
        match self.begun {
            Some((head, body)) if at == 0 => {
                Ok(Stream::of(self.straight.expect, None, (head, body), at, end))
            }
            _ => self.straight.open(None, at, end).await,
        }
    }

    /// The bytes `at..end` for one who was told what a flight met, and `had` these; it could not go
    /// on.
    async fn after(
        flight: &Arc<Flight>,
        why: No,
        had: Option<Had>,
        at: u64,
        end: Option<u64>,
    ) -> Result<Stream, No> {
        let pass = Pass::of(flight, why, flight.ident(), None);
        pass.straight.open(had, at, end).await
    }
}

impl Straight {
    /// An answer for one client alone.
    async fn answer(self, mirror: &str, place: &str) -> Result<Answer, No> {
        let mut last = No::Busy;
        for which in self.ups.order() {
            let Some(name) = self.names.first() else { break };
            let any = self.ups.mirror.urls.len() == 1;
            let get = Get { headers: self.headers.clone(), any, ..Get::default() };
            match self.ups.get(which, name, self.query.as_deref(), &get).await {
                Ok(begun) => {
                    let about = About::of(mirror, place, &begun.0);
                    let total = about.len;
                    let begun = Some(begun);
                    let (straight, why) = (Arc::new(self), No::Unkept);
                    let pass = Pass { about, total, why, straight, begun };
                    return Ok(Answer::Passing(Box::new(pass)));
                }
                Err(trouble) => last = No::Upstream(trouble),
            }
        }
        Err(last)
    }

    async fn open(&self, mut had: Option<Had>, at: u64, end: Option<u64>) -> Result<Stream, No> {
        // The digest is of all of it, from the first byte on.
        let from = if self.expect.is_some() { 0 } else { at };
        // Who has had nothing may have what no validator tells from what he was told of.
        let loose = had.is_none() && self.ident.as_ref().is_some_and(|i| i.if_range().is_none());
        let get = Get {
            from,
            ident: self.ident.clone(),
            digest: self.expect.is_some() || loose,
            headers: self.headers.clone(),
            ..Get::default()
        };
        let mut last = No::Busy;
        for which in self.ups.order() {
            for name in &self.names {
                match self.ups.get(which, name, self.query.as_deref(), &get).await {
                    Ok(begun) => {
                        return Ok(Stream::of(self.expect, had.take(), begun, at, end));
                    }
                    Err(trouble) => {
                        if !trouble.is_absence() {
                            self.ups.failed(which);
                        }
                        last = No::Upstream(trouble);
                    }
                }
            }
        }
        Err(last)
    }
}

impl Trouble {
    /// Whether the mirror itself is not to be reached, or out of order.
    pub fn is_away(&self) -> bool {
        match self {
            Trouble::Status { status, .. } => *status >= 500,
            Trouble::Unreachable { .. } | Trouble::Silent { .. } | Trouble::Cut { .. } => true,
            _ => false,
        }
    }
}

/// A reader of an answer that fills, whatever becomes of the flight.
pub struct Reader {
    state: Reading,
    end: Option<u64>,
    /// What [`Reader::next`] has not read yet: file, offset and length.
    there: Option<(Arc<File>, u64, u64)>,
}

enum Reading {
    Tail(Tail),
    Alone(Box<Stream>),
}

impl Reader {
    /// Of what the flight met as `about`.
    pub fn of(flight: &Arc<Flight>, about: &Arc<About>, at: u64, end: Option<u64>) -> Reader {
        Reader { state: Reading::Tail(flight.tail(about, at, end)), end, there: None }
    }

    pub fn alone(stream: Stream) -> Reader {
        Reader { state: Reading::Alone(Box::new(stream)), end: None, there: None }
    }

    /// The next bytes where they lie; `None` at the end.
    ///
    /// # Errors
    /// Why the rest does not come.
    pub async fn part(&mut self) -> Result<Option<Part>, No> {
        loop {
            match &mut self.state {
                Reading::Alone(stream) => return Ok(stream.next().await?.map(Part::Bytes)),
                Reading::Tail(tail) => match tail.next().await? {
                    Piece::There { file, offset, len } => {
                        return Ok(Some(Part::File { file, offset, len }));
                    }
                    Piece::End => return Ok(None),
                    Piece::Straight { at, why, had } => {
                        let stream = Pass::after(tail.flight(), why, had, at, self.end).await?;
                        self.state = Reading::Alone(Box::new(stream));
                    }
                },
            }
        }
    }

    /// The next bytes in memory, at most 256 KiB of them; `None` at the end.
    ///
    /// # Errors
    /// Why the rest does not come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, No> {
        if self.there.is_none() {
            match self.part().await? {
                None => return Ok(None),
                Some(Part::Bytes(bytes)) => return Ok(Some(bytes)),
                Some(Part::File { file, offset, len }) => self.there = Some((file, offset, len)),
            }
        }
        let Some((file, offset, len)) = self.there.take() else { return Ok(None) };
        let now = len.min(PIECE);
        let mut bytes = vec![0; usize::try_from(now).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset).map_err(|e| No::Disk(e.to_string()))?;
        if now < len {
            self.there = Some((file, offset + now, len - now));
        }
        Ok(Some(Bytes::from(bytes)))
    }
}

/// Bytes of a file on its way.
pub enum Part {
    File { file: Arc<File>, offset: u64, len: u64 },
    Bytes(Bytes),
}
