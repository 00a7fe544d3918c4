//! One file on its way from upstream, and everybody who reads along.
//!
//! 1. [`Flight::start`] opens the partial file where the bytes are known by their digest, and sends
//!    the first worker out; where they are not, the first answer tells what they are.
//! 2. Each worker takes parts of the [`Plan`] and writes what comes; more of them go out where a
//!    reader waits far ahead, where another URL may share a large file, and where one falls silent.
//! 3. Readers ([`Tail`]) are told how far they may read. Where a digest is known its last
//!    [`WITHHELD`] bytes wait for it.
//! 4. When all is there the digest judges, and the file is committed or set aside.

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, block_in_place, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::mirror::No;
use crate::mirror::decide::{Plan, SHARED, Worker};
use crate::mirror::digest::Hasher;
use crate::mirror::disk::{self, Disk, Held, Partial};
use crate::mirror::fetch::{Body, Get, Head, Place, Trouble, Upstreams};
use crate::mirror::fresh;
use crate::mirror::ranges::Ranges;
use crate::mirror::record::{About, Damage, Id};
use crate::mirror::verify::Expect;
use crate::mirror::wire::{self, Ident, MirrorPath};

/// Of a file with a digest these many bytes at the end are not sent before it has been judged, so
/// that a wrong file never arrives whole.
pub const WITHHELD: u64 = 64 << 10;
/// A worker that brings nothing for this long is hedged, where there is somebody to do it.
const SILENT: Duration = Duration::from_secs(2);
/// Workers of one file.
const WORKERS: usize = 4;
/// Rounds over all URLs without a new byte, with these pauses between them.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_secs(2), Duration::from_secs(5)];
/// The longest that an upstream's Retry-After is waited for.
const RETRY_AFTER: u64 = 15;

/// What is to be fetched.
pub struct What {
    pub id: Id,
    pub path: MirrorPath,
    /// Under which names upstream may have it, the best first.
    pub names: Vec<MirrorPath>,
    pub query: Option<String>,
    pub expect: Option<Expect>,
    /// Sent with each request.
    pub headers: HeaderMap,
    /// Of a client's request, where the mirror is a plain cache: what Vary may name.
    pub of: HeaderMap,
    /// What there is already, to be revalidated by the conditions in `headers`.
    pub stale: Option<Held>,
}

/// How it ended.
#[derive(Clone)]
pub enum End {
    /// In the cache.
    Whole(Held),
    /// 304: what there was is fresh again, by this answer.
    Fresh(Arc<Head>),
    /// Right, but the disk did not keep it: for those who read along.
    Unkept(Arc<About>),
    /// It may not be stored: for the first who takes it.
    Passed(Arc<Mutex<Option<(Head, Body)>>>),
    /// Nobody can read along; each reader asks upstream itself.
    Straight(No),
    Failed(No),
}

struct Inner {
    plan: Plan,
    about: Option<Arc<About>>,
    ident: Option<Ident>,
    partial: Option<Arc<Partial>>,
    proven: bool,
    /// Somebody waits far ahead, or a worker has fallen silent.
    called: bool,
    doubt: Doubt,
    /// Why it was begun anew the last time.
    anew: Option<No>,
    end: Option<End>,
}

/// What is known of who sent wrong bytes, and of what has not been tried yet.
#[derive(Default)]
struct Doubt {
    /// URLs that bytes came from.
    used: BTreeSet<usize>,
    /// Some of them came from an earlier run.
    resumed: bool,
    /// URLs that have sent all of it, and wrong.
    wrong: BTreeSet<usize>,
    /// Several had a part in what was wrong: from now on one after the other sends all of it.
    alone: bool,
    /// Of the names; those before it were of something else.
    name: usize,
    tries: usize,
}

struct Hashing {
    at: u64,
    hasher: Hasher,
}

/// Room on the disk, and who tells of trouble.
pub trait House: Send + Sync {
    /// Makes room for at least this many bytes more. False: there is none to be made.
    fn make_room(&self, bytes: u64) -> bool;
    /// Whether a response to this request may be kept (RFC 9111 section 3), where nothing else
    /// proves it.
    fn may_keep(&self, what: &What, about: &About) -> bool;
    /// Whether there is room for a file of so many bytes in the cache, which is made if need be.
    fn fits(&self, bytes: u64) -> bool;
    fn trouble(&self, mirror: &str, no: &No);
}

pub struct Flight {
    pub what: What,
    pub ups: Arc<Upstreams>,
    house: Arc<dyn House>,
    disk: Arc<Disk>,
    inner: Mutex<Inner>,
    hashing: Mutex<Option<Hashing>>,
    tick: watch::Sender<()>,
    /// Wakes who sends workers out: see [`Inner::called`].
    call: Notify,
    /// One at a time learns what the file is.
    meeting: Mutex<()>,
    checking: AtomicBool,
    /// Who writes looks at what is there, writes and hashes without another between.
    writing: Mutex<()>,
    pub began: Instant,
}

/// What becomes of a worker.
enum Done {
    Idle,
    NotModified(Box<Head>),
    Failed(Trouble),
    /// The disk has no room, or another process fills the same file.
    Straight(No),
    /// It may not be stored.
    Passed(Box<(Head, Body)>),
}

type Workers = JoinSet<(Worker, usize, usize, Done)>;

impl Flight {
    /// To be called in the mirrors' runtime; `want` is the first byte that is waited for.
    pub fn start(
        what: What,
        ups: Arc<Upstreams>,
        house: Arc<dyn House>,
        disk: Arc<Disk>,
        want: u64,
        done: impl FnOnce(&Arc<Flight>, &End) + Send + 'static,
    ) -> Arc<Flight> {
        let total = what.expect.and_then(|e| e.size);
        let hashing = what.expect.map(|e| Hashing { at: 0, hasher: Hasher::like(e.digest) });
        let flight = Arc::new(Flight {
            what,
            ups,
            house,
            disk,
            inner: Mutex::new(Inner {
                plan: Plan::new(total, Ranges::default(), want),
                about: None,
                ident: None,
                partial: None,
                proven: false,
                called: false,
                doubt: Doubt::default(),
                anew: None,
                end: None,
            }),
            hashing: Mutex::new(hashing),
            tick: watch::Sender::new(()),
            call: Notify::new(),
            meeting: Mutex::default(),
            checking: AtomicBool::new(false),
            writing: Mutex::default(),
            began: Instant::now(),
        });
        let flying = flight.clone();
        tokio::spawn(async move {
            // In a task of its own: should it ever panic, nobody waits for it for ever.
            let flown = flying.clone();
            let end = tokio::spawn(async move { flown.fly(want).await }).await;
            let end = end.unwrap_or(End::Failed(No::Busy));
            if let End::Failed(no) | End::Straight(no) = &end {
                flying.house.trouble(&flying.ups.mirror.name, no);
            }
            done(&flying, &end);
            flying.inner().end = Some(end);
            flying.tick.send_replace(());
        });
        flight
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fly(self: &Arc<Self>, want: u64) -> End {
        loop {
            if self.what.expect.is_some()
                && let Err(no) = self.open(self.known(), want)
            {
                return End::Straight(no);
            }
            let end = match self.work().await {
                Ok(end) => end.unwrap_or_else(|| self.judged()),
                Err(no) => End::Failed(no),
            };
            match &end {
                End::Failed(no @ No::Digest { .. }) if self.elsewhere(no) => {
                    self.house.trouble(&self.ups.mirror.name, no);
                }
                End::Whole(_) => {
                    // Now it is known that it was them.
                    self.inner().doubt.wrong.iter().for_each(|which| self.ups.wrong(*which));
                    return end;
                }
                _ => return end,
            }
        }
    }

    /// What came was wrong: whether something else can be tried. A reader that has had no byte goes
    /// on with what comes of that.
    fn elsewhere(&self, no: &No) -> bool {
        let (urls, names) = (self.ups.mirror.urls.len(), self.what.names.len());
        let mut inner = self.inner();
        let doubt = &mut inner.doubt;
        let used = std::mem::take(&mut doubt.used);
        match (used.len(), used.first(), std::mem::take(&mut doubt.resumed)) {
            (1, Some(which), false) => {
                doubt.wrong.insert(*which);
            }
            _ => doubt.alone = true,
        }
        doubt.tries += 1;
        if doubt.wrong.len() >= urls && doubt.name + 1 < names {
            doubt.name += 1;
            doubt.wrong.clear();
        }
        if doubt.wrong.len() >= urls || doubt.tries > 2 * urls * names {
            return false;
        }
        inner.about = None;
        inner.ident = None;
        inner.partial = None;
        inner.anew = Some(no.clone());
        drop(inner);
        let anew = self.what.expect.map(|e| Hashing { at: 0, hasher: Hasher::like(e.digest) });
        *self.hashing.lock().unwrap_or_else(PoisonError::into_inner) = anew;
        true
    }

    /// What is left of it, to go on from: its bytes on the disk, where there are any.
    pub fn left(&self, end: &End) -> Option<u64> {
        let (partial, keeps) = match end {
            // Nobody holds it after this: the next flight goes on with it.
            End::Failed(_) => (self.inner().partial.take()?, true),
            End::Straight(_) => (self.inner().partial.clone()?, false),
            _ => return None,
        };
        let there = partial.covered().total();
        let kept = keeps && there > 0 && block_in_place(|| partial.checkpoint()).is_ok();
        if !kept {
            // Its readers have it open; where it cannot be removed the next start sweeps it.
            let _ = block_in_place(|| partial.discard());
        }
        kept.then_some(there)
    }

    /// What is known of the file: what upstream said of it, or as long as nobody has answered, what
    /// it must be.
    pub fn known(&self) -> About {
        if let Some(about) = &self.inner().about {
            return About::clone(about);
        }
        let now = Timestamp::now();
        let place = match &self.what.query {
            Some(query) => format!("{}?{query}", self.what.path),
            None => self.what.path.to_string(),
        };
        About {
            mirror: self.ups.mirror.name.clone(),
            path: place,
            url: String::new(),
            status: 200,
            headers: Vec::new(),
            request: Vec::new(),
            digest: self.what.expect.map(|e| e.digest),
            len: self.what.expect.and_then(|e| e.size),
            requested: now,
            received: now,
            pinned: self.what.stale.as_ref().is_some_and(|old| old.about.pinned),
        }
    }

    /// Opens the partial file, and takes up what an earlier run left of it.
    fn open(&self, about: About, want: u64) -> Result<(), No> {
        let partial = block_in_place(|| self.disk.begin(&self.what.id, about.clone()));
        let partial = partial.map_err(|e| No::of_disk(&e))?;
        let mut inner = self.inner();
        inner.doubt.resumed = !partial.covered().is_empty();
        inner.plan = Plan::new(about.len, partial.covered(), want);
        inner.partial = Some(Arc::new(partial));
        Ok(())
    }

    /// Sends workers out until all is there. `Some`: it ends without a file to be judged.
    async fn work(self: &Arc<Self>) -> Result<Option<End>, No> {
        let mut workers = JoinSet::new();
        let ended = self.work_by(&mut workers).await;
        // None of them writes when this returns.
        workers.shutdown().await;
        ended
    }

    async fn work_by(self: &Arc<Self>, workers: &mut Workers) -> Result<Option<End>, No> {
        let (wrong, mut name) = {
            let inner = self.inner();
            (inner.doubt.wrong.clone(), inner.doubt.name)
        };
        let (mut next, mut out): (Worker, Vec<(Worker, usize)>) = (0, Vec::new());
        let (mut tried, mut round) = (wrong.clone(), 0);
        let mut last = None;
        let (mut had, mut changed, mut absent) = (0, false, false);
        // Each URL's trouble is told once.
        let mut told = BTreeSet::new();
        loop {
            if self.inner().plan.is_done() {
                return Ok(None);
            }
            // As many as there is something to do for.
            while out.len() < WORKERS {
                let Some(which) = self.free_url(&out, &tried) else { break };
                if !out.is_empty() && !self.needs_another(&out) {
                    break;
                }
                next += 1;
                out.push((next, which));
                let (me, worker) = (self.clone(), next);
                workers.spawn(async move {
                    let done = me.fetch(worker, which, name).await;
                    (worker, which, name, done)
                });
            }
            let joined = tokio::select! {
                joined = workers.join_next(), if !workers.is_empty() => joined,
                () = self.call.notified(), if !workers.is_empty() => continue,
                else => None,
            };
            let Some(joined) = joined else {
                // Every URL has failed since the last new byte.
                let Some(trouble): Option<Trouble> = last.clone() else {
                    return Err(No::Busy);
                };
                if (absent || trouble.is_of_the_name()) && name + 1 < self.what.names.len() {
                    (name, absent) = (name + 1, false);
                    tried.clone_from(&wrong);
                    continue;
                }
                // What is there will do, or another has said that there is no such file.
                let over = trouble.is_final() || self.what.stale.is_some() || absent;
                let (Some(pause), false) = (PAUSES.get(round), over) else {
                    if changed && self.what.expect.is_none() && self.begin_anew(&trouble) {
                        (had, round, changed, last) = (0, 0, false, None);
                        tried.clone_from(&wrong);
                        continue;
                    }
                    let nowhere = absent && !changed;
                    return Err(if nowhere { self.nowhere() } else { self.failed(trouble) });
                };
                round += 1;
                tried.clone_from(&wrong);
                sleep(trouble.pause(*pause, RETRY_AFTER)).await;
                continue;
            };
            let Ok((worker, which, by, done)) = joined else { return Err(No::Busy) };
            out.retain(|(w, _)| *w != worker);
            self.inner().plan.gone(worker);
            let have = self.inner().plan.covered().total();
            if have > had {
                (had, round) = (have, 0);
                tried.clone_from(&wrong);
            }
            match done {
                Done::Idle => {}
                Done::NotModified(head) => return Ok(Some(End::Fresh(Arc::new(*head)))),
                Done::Straight(no) => return Ok(Some(End::Straight(no))),
                Done::Passed(begun) => {
                    return Ok(Some(End::Passed(Arc::new(Mutex::new(Some(*begun))))));
                }
                Done::Failed(trouble) => {
                    absent |= trouble.is_absence();
                    if !trouble.is_absence() && told.insert(which) {
                        self.house.trouble(&self.ups.mirror.name, &No::Upstream(trouble.clone()));
                    }
                    let differs = matches!(trouble, Trouble::Changed { .. });
                    let other = self.what.expect.is_none() || self.what.names.len() > 1;
                    if !(trouble.is_absence() || (differs && other)) {
                        self.ups.failed(which);
                    }
                    if by == name {
                        tried.insert(which);
                    }
                    // Who had the file as it was may come back, and that is worth more.
                    if !(differs && last.as_ref().is_some_and(|l| !l.is_final())) {
                        last = Some(trouble);
                    }
                    changed |= differs;
                }
            }
        }
    }

    /// The best URL that nobody of this flight uses and that has not failed in this round.
    fn free_url(&self, out: &[(Worker, usize)], tried: &BTreeSet<usize>) -> Option<usize> {
        let order = self.ups.order();
        let fit = |w: &&usize| !tried.contains(*w);
        let unused = |w: &&usize| !out.iter().any(|(_, used)| used == *w);
        order.iter().filter(fit).find(unused).or(order.iter().find(fit)).copied()
    }

    /// Whether one more worker would find something to do.
    fn needs_another(&self, out: &[(Worker, usize)]) -> bool {
        let mut inner = self.inner();
        let urls = self.ups.mirror.urls.len();
        let called = std::mem::take(&mut inner.called);
        called || (self.share(&inner) > out.len() && out.len() < urls)
    }

    /// Among how many URLs the file is divided.
    fn share(&self, inner: &Inner) -> usize {
        let proof = self.what.expect.is_some()
            || inner.ident.as_ref().is_some_and(|i| i.if_range().is_some());
        match inner.plan.total() {
            Some(total) if total >= SHARED && proof && !inner.doubt.alone => {
                let fit = |w: &usize| !inner.doubt.wrong.contains(w) && !self.ups.rests(*w);
                let fit = (0..self.ups.mirror.urls.len()).filter(fit).count();
                if self.what.names.len() == 1 { fit.clamp(1, WORKERS) } else { 1 }
            }
            _ => 1,
        }
    }

    /// The upstream file has changed: from the beginning, for those who have not been told of the
    /// old one. Nobody writes.
    fn begin_anew(&self, trouble: &Trouble) -> bool {
        let mut inner = self.inner();
        inner.doubt.tries += 1;
        if inner.doubt.tries > self.ups.mirror.urls.len() {
            return false;
        }
        if let Some(partial) = inner.partial.take() {
            // What is left of it is refused when it is begun again.
            let _ = block_in_place(|| partial.discard());
        }
        inner.plan = Plan::new(None, Ranges::default(), 0);
        inner.ident = None;
        inner.about = None;
        inner.anew = Some(No::Upstream(trouble.clone()));
        drop(inner);
        self.tick.send_replace(());
        true
    }

    fn nowhere(&self) -> No {
        No::NotThere(self.ups.mirror.name.clone(), self.what.path.to_string())
    }

    fn failed(&self, trouble: Trouble) -> No {
        if trouble.is_absence() { self.nowhere() } else { No::Upstream(trouble) }
    }

    /// One worker's life: part after part from one URL.
    async fn fetch(self: &Arc<Self>, worker: Worker, which: usize, name: usize) -> Done {
        loop {
            // First the place, then the part: who waits for one keeps nobody from the other.
            let Ok(place) = self.place(which).await else { return Done::Idle };
            let (part, get) = {
                let mut inner = self.inner();
                let share = self.share(&inner);
                let Some(part) = inner.plan.next(worker, share) else { return Done::Idle };
                let total = inner.plan.total();
                let sized = || total.map(|t| Ident { total: Some(t), ..Ident::default() });
                let get = Get {
                    from: part.from,
                    to: part.end.filter(|end| Some(*end) != total),
                    ident: inner.ident.clone().or_else(sized),
                    digest: self.what.expect.is_some(),
                    headers: self.what.headers.clone(),
                    head: false,
                    any: inner.about.is_none() && self.passes_all(),
                };
                (part, get)
            };
            let began = Instant::now();
            let Some(path) = self.what.names.get(name) else { return Done::Idle };
            let asked = self.ups.get_at(place, which, path, self.what.query.as_deref(), &get);
            let (head, mut body) = match self.patiently(worker, asked).await {
                Ok(answer) => answer,
                Err(Trouble::Status { status: 416, .. }) if self.begins_behind(part.from) => {
                    continue;
                }
                Err(trouble) => return Done::Failed(trouble),
            };
            if head.status == StatusCode::NOT_MODIFIED {
                return match self.what.stale.is_some() {
                    true => Done::NotModified(Box::new(head)),
                    false => Done::Failed(Trouble::Garbage { url: head.url, what: "304 unasked" }),
                };
            }
            let away = head.status.is_server_error() && self.what.stale.is_some();
            if away {
                let status = head.status.as_u16();
                let trouble = Trouble::Status { url: head.url, status, retry_after: None };
                return Done::Failed(trouble);
            }
            if !matches!(head.status.as_u16(), 200 | 206) {
                body.leaves(&self.ups);
                return Done::Passed(Box::new((head, body)));
            }
            match self.met(worker, &head) {
                Ok(true) => {}
                Ok(false) => {
                    body.leaves(&self.ups);
                    return Done::Passed(Box::new((head, body)));
                }
                Err(done) => return done,
            }
            match self.take((worker, which), part.from, &head, &mut body).await {
                Ok(got) => self.ups.delivered(which, got, began.elapsed()),
                Err(done) => return done,
            }
        }
    }

    /// Somebody asked for what lies behind the end of a file that nobody knows the size of: it is
    /// fetched from its beginning. False: that is not how it is.
    fn begins_behind(&self, from: u64) -> bool {
        let mut inner = self.inner();
        let unknown = from > 0 && inner.about.is_none() && inner.plan.total().is_none();
        if unknown {
            inner.plan = Plan::new(None, Ranges::default(), 0);
        }
        unknown
    }

    /// Of a plain mirror with one URL, its word is passed on whatever it is.
    fn passes_all(&self) -> bool {
        self.what.expect.is_none() && self.ups.mirror.urls.len() == 1
    }

    /// All of it has come; what follows is the disk's.
    pub fn is_done(&self) -> bool {
        self.inner().plan.is_done()
    }

    fn call(&self) {
        self.inner().called = true;
        self.call.notify_one();
    }

    /// A place among the connections to a URL's host; where that takes long another URL is asked.
    async fn place(&self, which: usize) -> Result<Place, Trouble> {
        let mut place = std::pin::pin!(self.ups.place(which));
        if let Ok(place) = timeout(SILENT, &mut place).await {
            return place;
        }
        if self.ups.mirror.urls.len() > 1 {
            self.call();
        }
        place.await
    }

    /// Waits for `job`, and says so when it takes long.
    async fn patiently<T>(&self, worker: Worker, job: impl Future<Output = T>) -> T {
        let mut job = std::pin::pin!(job);
        loop {
            match timeout(SILENT, &mut job).await {
                Ok(done) => return done,
                Err(_) => {
                    let silent = self.inner().plan.silent(worker);
                    if silent {
                        self.call();
                    }
                }
            }
        }
    }

    /// The head of an answer: the first one tells what the file is, the others must agree. False: it
    /// may not be stored.
    fn met(&self, worker: Worker, head: &Head) -> Result<bool, Done> {
        let _turn = self.meeting.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = self.what.expect.is_some();
        let first = self.inner().about.is_none();
        if first {
            let now = Timestamp::now();
            let mut headers = wire::kept(&head.headers);
            if head.status == StatusCode::PARTIAL_CONTENT {
                // Of the part, and not of the file.
                headers.retain(|(name, _)| name != "content-range");
            }
            let about = About {
                url: head.url.clone(),
                request: fresh::chosen_by(&headers, &self.what.of),
                headers,
                len: head.ident.total.or(self.what.expect.and_then(|e| e.size)),
                requested: now,
                received: now,
                ..self.known()
            };
            // Whatever becomes of it: who is served past the cache knows by this what it is.
            let told = Arc::new(about.clone());
            let may_keep = digest || self.house.may_keep(&self.what, &about);
            if !may_keep {
                return Ok(false);
            }
            {
                let mut inner = self.inner();
                inner.ident = Some(head.ident.clone());
                inner.about = Some(told);
                if let Some(total) = about.len {
                    inner.plan.set_total(total);
                }
            }
            if about.len.is_some_and(|len| !self.house.fits(len)) {
                return Err(Done::Straight(No::Large));
            }
            if !digest {
                self.open(about.clone(), 0).map_err(Done::Straight)?;
                // The claim went with the plan that knew nothing.
                self.inner().plan.next(worker, 1);
            }
            let mut inner = self.inner();
            if about.len.is_some() {
                let share = self.share(&inner);
                inner.plan.cut(worker, share);
            }
            drop(inner);
            self.tick.send_replace(());
            // Others may help, now that the size is known.
            self.call.notify_one();
            return Ok(true);
        }
        let inner = self.inner();
        let agrees = inner.ident.as_ref().is_none_or(|known| known.agrees(&head.ident, digest));
        match agrees {
            true => Ok(true),
            false => Err(Done::Failed(Trouble::Changed { url: head.url.clone() })),
        }
    }

    /// Writes what comes, until the claim ends or others have what follows. Bytes taken.
    async fn take(
        self: &Arc<Self>,
        (worker, which): (Worker, usize),
        from: u64,
        head: &Head,
        body: &mut Body,
    ) -> Result<u64, Done> {
        let mut at = head.from;
        self.inner().plan.begins(worker, at);
        loop {
            let chunk = self.patiently(worker, body.chunk()).await.map_err(Done::Failed)?;
            let Some(chunk) = chunk else {
                let mut inner = self.inner();
                // One without a length ends where it likes; the file does not.
                if inner.plan.total().is_some_and(|total| at < head.to.unwrap_or(total)) {
                    let (url, got) = (head.url.clone(), at - head.from);
                    let why = "more was promised".into();
                    return Err(Done::Failed(Trouble::Cut { url, got, why }));
                }
                if inner.plan.total().is_none() {
                    inner.plan.set_total(at);
                }
                return Ok(at - head.from);
            };
            let room = self.inner().plan.room(worker, at, chunk.len() as u64);
            let chunk = chunk.slice(..usize::try_from(room).unwrap_or(0).min(chunk.len()));
            self.write(at, &chunk)?;
            let go = {
                let mut inner = self.inner();
                inner.doubt.used.insert(which);
                inner.plan.wrote(worker, at..at + room)
            };
            at += room;
            self.tick.send_replace(());
            // A server without ranges sends what comes before the part, too.
            if !go && at >= from {
                return Ok(at - head.from);
            }
        }
    }

    fn write(self: &Arc<Self>, at: u64, bytes: &Bytes) -> Result<(), Done> {
        let Some(partial) = self.inner().partial.clone() else {
            return Err(Done::Straight(No::Disk("the file is gone".into())));
        };
        {
            let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let end = at + bytes.len() as u64;
            // Never over what is there: it may have been hashed, and read.
            let gaps: Vec<_> = partial.covered().missing(at..end).collect();
            for gap in &gaps {
                // Both are at most the length of a chunk in memory.
                let part = &bytes[(gap.start - at) as usize..(gap.end - at) as usize];
                let mut written = partial.write_at(gap.start, part);
                if written.as_ref().is_err_and(disk::is_full)
                    && block_in_place(|| self.house.make_room(super::ROOM))
                {
                    written = partial.write_at(gap.start, part);
                }
                if let Err(e) = written {
                    let no = if disk::is_full(&e) { No::NoRoom } else { No::Disk(e.to_string()) };
                    return Err(Done::Straight(no));
                }
            }
            let ours = gaps.len() == 1 && gaps.first() == Some(&(at..end));
            self.hash(at, if ours { bytes } else { &[] }, &partial);
        }
        if partial.due() && self.checking.swap(true, Ordering::AcqRel) {
            // The disk is slower than the mirror: no more than two checkpoints' bytes are at stake.
            let checked = block_in_place(|| partial.checkpoint());
            if let Err(e) = checked {
                self.house.trouble(&self.ups.mirror.name, &No::of_disk(&e));
            }
        } else if partial.due() {
            let me = self.clone();
            spawn_blocking(move || {
                if let Err(e) = partial.checkpoint() {
                    me.house.trouble(&me.ups.mirror.name, &No::Disk(e.to_string()));
                }
                me.checking.store(false, Ordering::Release);
            });
        }
        Ok(())
    }

    /// The digest of what is there without a gap: as it comes, or out of the file where a gap has
    /// been closed.
    fn hash(&self, at: u64, bytes: &[u8], partial: &Partial) {
        let mut hashing = self.hashing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(h) = hashing.as_mut() else { return };
        if h.at == at {
            h.hasher.update(bytes);
            h.at += bytes.len() as u64;
        }
        let there = partial.prefix_from(h.at);
        if there > h.at {
            block_in_place(|| catch_up(h, there, partial));
        }
    }

    /// All is there.
    fn judged(&self) -> End {
        let (partial, about) = {
            let inner = self.inner();
            (inner.partial.clone(), inner.about.clone())
        };
        let Some(partial) = partial else { return End::Failed(No::Busy) };
        if let Some(expect) = self.what.expect {
            let there = partial.prefix_from(0);
            let hashing = self.hashing.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(mut h) = hashing else { return End::Failed(No::Busy) };
            block_in_place(|| catch_up(&mut h, there, &partial));
            if h.at != there || h.hasher.finish() != expect.digest {
                let url = about.map_or(String::new(), |a| a.url.clone());
                if let Err(e) = block_in_place(|| partial.set_aside(Damage::Digest)) {
                    tracing::warn!(target: "pilotlight", "mirror: {e}");
                }
                let (path, expect) = (self.what.path.to_string(), expect.digest);
                return End::Failed(No::Digest { path, url, expect });
            }
        }
        self.inner().proven = true;
        self.tick.send_replace(());
        let about = self.known();
        match block_in_place(|| partial.commit(About { len: None, ..about.clone() })) {
            Ok(held) => End::Whole(held),
            Err(e) => {
                self.house.trouble(&self.ups.mirror.name, &No::Disk(e.to_string()));
                End::Unkept(self.inner().about.clone().unwrap_or_else(|| Arc::new(about)))
            }
        }
    }

    /// Bytes of the whole, once known, of the file that was met as `about`.
    pub fn total(&self, about: &Arc<About>) -> Option<u64> {
        let inner = self.inner();
        let same = inner.about.as_ref().is_some_and(|now| Arc::ptr_eq(now, about));
        about.len.or(inner.plan.total().filter(|_| same))
    }

    /// How far it is, for people: bytes there, and of how many.
    pub fn progress(&self) -> (u64, Option<u64>) {
        let inner = self.inner();
        (inner.plan.covered().total(), inner.plan.total())
    }

    /// What tells that other bytes are of the same file.
    pub fn ident(&self) -> Option<Ident> {
        self.inner().ident.clone()
    }

    pub fn end(&self) -> Option<End> {
        self.inner().end.clone()
    }

    /// What is there up to now is on the disk, and taken up again by whoever begins it anew. Blocks.
    ///
    /// # Errors
    /// [`disk::Trouble::Closed`]: it has ended meanwhile; or the disk's.
    pub fn settle(&self) -> Result<(), disk::Trouble> {
        let partial = self.inner().partial.clone();
        partial.map_or(Ok(()), |partial| partial.checkpoint())
    }

    /// Waits for the end.
    pub async fn ended(&self) -> End {
        let mut tick = self.tick.subscribe();
        loop {
            if let Some(end) = self.end() {
                return end;
            }
            if tick.changed().await.is_err() {
                return End::Failed(No::Busy);
            }
        }
    }

    /// Waits until it is known what the file is, and that its first bytes can be sent: a file that
    /// is withheld whole until it is judged can still be refused as a whole.
    pub async fn met_or_ended(&self) -> Result<Arc<About>, End> {
        let mut tick = self.tick.subscribe();
        loop {
            {
                let inner = self.inner();
                let small = self.what.expect.is_some()
                    && inner.plan.total().is_none_or(|total| total <= WITHHELD);
                match (&inner.end, &inner.about) {
                    (Some(end), _) => return Err(end.clone()),
                    (None, Some(about)) if !small || inner.proven => return Ok(about.clone()),
                    _ => {}
                }
            }
            if tick.changed().await.is_err() {
                return Err(End::Failed(No::Busy));
            }
        }
    }

    /// A reader of `at..end` of the file that was met as `about`.
    pub fn tail(self: &Arc<Self>, about: &Arc<About>, at: u64, end: Option<u64>) -> Tail {
        let tick = self.tick.subscribe();
        let ahead = self.inner().plan.wants(at);
        if ahead {
            self.call();
        }
        Tail { flight: self.clone(), about: about.clone(), tick, start: at, at, end }
    }
}

impl Inner {
    /// How far may be read from `at` on, and whether the file ends there.
    fn readable(&self, at: u64, judged: bool) -> (u64, bool) {
        let there = self.plan.covered().prefix_from(at);
        let total = self.plan.total();
        if !judged || self.proven {
            return (there, Some(there) == total);
        }
        let bound = match total {
            Some(total) => total.saturating_sub(WITHHELD),
            None => there.saturating_sub(WITHHELD),
        };
        (there.min(bound).max(at), false)
    }
}

fn catch_up(h: &mut Hashing, to: u64, partial: &Partial) {
    let mut buffer = vec![0; 1 << 20];
    while h.at < to {
        let len = usize::try_from(to - h.at).unwrap_or(usize::MAX).min(buffer.len());
        match partial.file().read_at(&mut buffer[..len], partial.offset() + h.at) {
            // What cannot be read is not hashed, and so the digest will be another.
            Ok(0) | Err(_) => return,
            Ok(got) => {
                h.hasher.update(&buffer[..got]);
                h.at += got as u64;
            }
        }
    }
}

/// A reader of a file that fills.
pub struct Tail {
    flight: Arc<Flight>,
    /// What its client was told.
    about: Arc<About>,
    tick: watch::Receiver<()>,
    start: u64,
    at: u64,
    end: Option<u64>,
}

/// What a reader is told next.
pub enum Piece {
    There {
        file: Arc<File>,
        offset: u64,
        len: u64,
    },
    End,
    /// From here on each reader asks for itself.
    Straight {
        at: u64,
        why: No,
        had: Option<Had>,
    },
}

/// What a reader has been given: these bytes, which begin at this offset of the file.
pub struct Had {
    pub file: Arc<File>,
    pub offset: u64,
    pub bytes: Range<u64>,
}

impl Had {
    /// Whether `bytes`, which begin at `at` of the whole, are the same as far as they were given.
    pub fn agrees(&self, at: u64, bytes: &[u8]) -> bool {
        let from = self.bytes.start.max(at);
        let to = self.bytes.end.min(at + bytes.len() as u64);
        if from >= to {
            return true;
        }
        // Both are at most the length of a piece in memory.
        let (first, last) = ((from - at) as usize, (to - at) as usize);
        let mut own = vec![0; last - first];
        let start = self.offset + from - self.bytes.start;
        self.file.read_exact_at(&mut own, start).is_ok() && own == bytes[first..last]
    }
}

impl Tail {
    pub fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// The next bytes, all that are there; waits for the first of them.
    ///
    /// # Errors
    /// Why the rest does not come.
    pub async fn next(&mut self) -> Result<Piece, No> {
        loop {
            self.tick.borrow_and_update();
            if self.end.is_some_and(|end| self.at >= end) {
                return Ok(Piece::End);
            }
            if let Some(piece) = self.look()? {
                return Ok(piece);
            }
            if self.tick.changed().await.is_err() {
                return Err(No::Busy);
            }
        }
    }

    fn look(&mut self) -> Result<Option<Piece>, No> {
        let judged = self.flight.what.expect.is_some();
        let flight = self.flight.clone();
        let inner = flight.inner();
        let had = self.at > self.start;
        let anew = || inner.anew.clone().unwrap_or(No::Busy);
        match &inner.about {
            Some(now) if Arc::ptr_eq(now, &self.about) => {}
            // Who has had nothing yet has it all by the digest, if it is as long as he was told.
            Some(now) if judged && !had && now.len == self.about.len => self.about = now.clone(),
            None if judged && !had && inner.end.is_none() => return Ok(None),
            None if !had && inner.end.is_some() => {}
            _ => return Err(anew()),
        }
        let (to, ends) = match &inner.about {
            Some(_) => inner.readable(self.at, judged),
            None => (self.at, false),
        };
        let to = self.end.map_or(to, |end| to.min(end));
        if let Some(partial) = inner.partial.as_ref().filter(|_| to > self.at) {
            let (file, offset) = (partial.file().clone(), partial.offset() + self.at);
            let len = to - self.at;
            self.at = to;
            return Ok(Some(Piece::There { file, offset, len }));
        }
        if ends {
            return Ok(Some(Piece::End));
        }
        let why = match &inner.end {
            Some(End::Failed(no)) => return Err(no.clone()),
            Some(End::Straight(why)) => why.clone(),
            Some(End::Passed(_)) => No::Unkept,
            Some(End::Fresh(_)) => return Err(No::Busy),
            Some(End::Whole(_) | End::Unkept(_)) | None => return Ok(None),
        };
        let given = inner.partial.as_ref().filter(|_| had).map(|partial| Had {
            file: partial.file().clone(),
            offset: partial.offset() + self.start,
            bytes: self.start..self.at,
        });
        Ok(Some(Piece::Straight { at: self.at, why, had: given }))
    }
}
