//! Verified metadata at work: sets that are in force, their renewal, and what each boot is given.
//!
//! 1. A root (InRelease, repomd.xml, …) is asked for again when it was last looked at some time ago;
//!    a new one is verified, and the indexes that the old one had read are fetched for it.
//! 2. Only then does it take the old one's place, in the store too: kernel, initrd, modules and
//!    packages come from one set, never from two.
//! 3. A boot stays with the set that it began with for [`PINNED`].

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::{House, Mirrors};
use crate::config::Verify;
use crate::mirror::disk::Held;
use crate::mirror::fetch::Get;
use crate::mirror::record::{About, Id};
use crate::mirror::verify::{self, Expect, Find, Role, Root, Set};
use crate::mirror::wire::MirrorPath;
use crate::mirror::{Digest, No};
use crate::store::Write;

/// A root is not asked for again before this.
pub const FRESH: Duration = Duration::from_secs(30);
/// When something is missing in it, or the client wants the newest (RFC 9111 section 5.2.1.4, as apt
/// does), not before this.
pub const FRESH_AT_LEAST: Duration = Duration::from_secs(5);
/// A root that is not there is not looked for again before this.
const ABSENT: Duration = Duration::from_secs(60);
/// How long a boot keeps its sets: longer than an installation.
const PINNED: Duration = Duration::from_secs(2 * 3600);
const PINS: usize = 20_000;
/// Roots of one mirror that are remembered.
const ROOTS: usize = 1000;
/// Bytes of a root or its signature.
const ROOT_LIMIT: usize = 16 << 20;
/// Bytes of an index.
const INDEX_LIMIT: u64 = 512 << 20;
/// Indexes that are read to find one file.
const READS: usize = 400;
/// What is in force, by mirror and root.
const TABLE: &str = "mirror-root";

/// The sets of one mirror.
#[derive(Default)]
pub struct Sets {
    roots: Mutex<HashMap<String, Arc<Slot>>>,
    /// By token and root.
    boots: Mutex<HashMap<(String, String), Given>>,
    loaded: Mutex<bool>,
}

/// What a boot is given of one root.
struct Given {
    current: Arc<Current>,
    since: Instant,
}

impl Given {
    fn counts(&self) -> bool {
        self.since.elapsed() < PINNED
    }
}

/// One root: what is in force, and one at a time who looks for a newer one.
struct Slot {
    root: Root,
    current: Mutex<Option<Arc<Current>>>,
    looked: Mutex<Option<Instant>>,
    /// Why the newest look brought nothing.
    trouble: Mutex<Option<No>>,
    /// The store says that it was in force.
    was: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

/// A set in force, with the files that it was read from.
pub struct Current {
    pub set: Set,
    pub root: Held,
    pub signature: Option<(String, Held)>,
}

/// [`Current`] in the store.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    root: String,
    signature: Option<(String, String)>,
    read: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sets {
    fn slot(&self, root: &Root) -> Result<Arc<Slot>, No> {
        let mut roots = lock(&self.roots);
        if let Some(slot) = roots.get(&root.path) {
            return Ok(slot.clone());
        }
        if roots.len() >= ROOTS {
            roots.retain(|_, slot| lock(&slot.current).is_some());
        }
        if roots.len() >= ROOTS {
            return Err(No::Busy);
        }
        let slot = Arc::new(Slot {
            root: root.clone(),
            current: Mutex::default(),
            looked: Mutex::default(),
            trouble: Mutex::default(),
            was: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
        });
        roots.insert(root.path.clone(), slot.clone());
        Ok(slot)
    }

    fn all(&self) -> Vec<Arc<Slot>> {
        lock(&self.roots).values().cloned().collect()
    }

    /// What this boot has been given before, or `current` where that is nothing.
    fn given(&self, boot: Option<&str>, current: &Arc<Current>) -> Arc<Current> {
        let Some(boot) = boot else { return current.clone() };
        let key = (boot.to_string(), current.set.root().path.clone());
        let boots = lock(&self.boots);
        let pin = boots.get(&key).filter(|given| given.counts());
        pin.map_or(current, |given| &given.current).clone()
    }

    /// From now on this boot is given nothing else.
    fn pin(&self, boot: Option<&str>, current: &Arc<Current>) {
        let Some(boot) = boot else { return };
        let key = (boot.to_string(), current.set.root().path.clone());
        let mut boots = lock(&self.boots);
        if boots.get(&key).is_some_and(Given::counts) {
            return;
        }
        // Each holds its set in memory.
        boots.retain(|_, given| given.counts());
        if boots.len() < PINS {
            boots.insert(key, Given { current: current.clone(), since: Instant::now() });
        }
    }
}

impl Slot {
    /// Whether it is worth looking for though nobody names it: it was in force, or is there and not
    /// believed.
    fn is_wanted(&self) -> bool {
        self.was.load(Ordering::Relaxed) || matches!(*lock(&self.trouble), Some(No::Fault { .. }))
    }

    fn looked_within(&self, time: Duration) -> bool {
        lock(&self.looked).is_some_and(|at| at.elapsed() < time)
    }
}

impl Mirrors {
    /// A root or its signature, of the set that is in force.
    pub(super) async fn root_file(
        self: &Arc<Self>,
        house: &Arc<House>,
        path: &MirrorPath,
        boot: Option<&str>,
        fresh: Duration,
    ) -> Result<Held, No> {
        let there = || No::NotThere(house.name.clone(), path.to_string());
        let name = path.as_str();
        let roots = verify::roots(house.verify, name);
        let is = |r: &&Root| r.path == name || r.signatures.iter().any(|s| s == name);
        let root = roots.iter().find(is).ok_or_else(there)?;
        let slot = house.sets.slot(root)?;
        let current = self.look(house, &slot, fresh).await?;
        let trouble = lock(&slot.trouble).clone();
        if let Some(no @ No::Fault { .. }) = trouble {
            // What is in force is right, and serves whoever asks for a file; but who asks for the
            // root wants the newest, and that is not to be believed.
            return Err(no);
        }
        let current = house.sets.given(boot, &current);
        house.sets.pin(boot, &current);
        if root.path == name {
            return Ok(current.root.clone());
        }
        match &current.signature {
            Some((path, held)) if path == name => Ok(held.clone()),
            _ => Err(there()),
        }
    }

    /// What a listed file must be, and the names that upstream may have it under.
    pub(super) async fn expected(
        self: &Arc<Self>,
        house: &Arc<House>,
        path: &MirrorPath,
        boot: Option<&str>,
    ) -> Result<(Expect, Vec<MirrorPath>), No> {
        self.loaded(house)?;
        let roots = verify::roots(house.verify, path.as_str());
        let pooled = roots.is_empty();
        let roots: Result<Vec<_>, No> = roots.iter().map(|root| house.sets.slot(root)).collect();
        let in_force = |slot: &Arc<Slot>| lock(&slot.current).is_some();
        // Those in force come first: while upstream is away nobody knows of the others whether they
        // are there.
        let (known, others): (Vec<_>, Vec<_>) = roots?.into_iter().partition(in_force);
        let (mut slots, mut last) = (Vec::new(), None);
        for slot in known.into_iter().chain(others) {
            match self.look(house, &slot, FRESH).await {
                Ok(_) => {}
                Err(No::NotThere(..)) => continue,
                Err(no) => {
                    let away = matches!(&no, No::Upstream(trouble) if trouble.is_away());
                    last = last.or(Some(no));
                    if away {
                        break;
                    }
                    continue;
                }
            }
            if let Some(found) = self.search(house, &slot, path, boot).await? {
                return Ok(found);
            }
            slots.push(slot);
        }
        // A pool's file is listed by any of the suites: first those in force, then those that once
        // were, and what was held of them is gone. Never one that a client has made up.
        let (known, gone): (Vec<_>, Vec<_>) = house.sets.all().into_iter().partition(in_force);
        for slot in known.into_iter().chain(gone.into_iter().filter(|s| pooled && s.is_wanted())) {
            if !in_force(&slot)
                && let Err(no @ No::Fault { .. }) = self.look(house, &slot, FRESH).await
            {
                last = Some(no);
            }
            if in_force(&slot) && !slots.iter().any(|s| Arc::ptr_eq(s, &slot)) {
                if let Some(found) = self.search(house, &slot, path, boot).await? {
                    return Ok(found);
                }
                slots.push(slot);
            }
        }
        let not_listed = || No::NotListed(house.name.clone(), path.to_string());
        // It may be newer than what we know; a boot that is bound to a set does not look further.
        for slot in &slots {
            if slot.looked_within(FRESH_AT_LEAST) {
                continue;
            }
            self.look(house, slot, FRESH_AT_LEAST).await?;
            if let Some(found) = self.search(house, slot, path, boot).await? {
                return Ok(found);
            }
        }
        match last {
            Some(No::Offline(..)) if !slots.is_empty() => Err(not_listed()),
            Some(no) => Err(no),
            None => Err(not_listed()),
        }
    }

    /// Looks for a path in one set, reading the indexes that it takes.
    async fn search(
        self: &Arc<Self>,
        house: &Arc<House>,
        slot: &Arc<Slot>,
        path: &MirrorPath,
        boot: Option<&str>,
    ) -> Result<Option<(Expect, Vec<MirrorPath>)>, No> {
        let Some(current) = lock(&slot.current).clone() else { return Ok(None) };
        let in_force = current.clone();
        let current = house.sets.given(boot, &current);
        // What an older boot has read is no more than its own.
        let write = |grown: bool| match grown && Arc::ptr_eq(&in_force, &current) {
            true => self.write(house, &slot.root, &current),
            false => Ok(()),
        };
        let mut grown = false;
        for _ in 0..READS {
            match current.set.find(path.as_str()) {
                Find::Listed(expect) => {
                    house.sets.pin(boot, &current);
                    write(grown)?;
                    return Ok(Some((expect, names(house.verify, path, &expect))));
                }
                Find::NotListed => break,
                Find::Read { path, fetch, expect } => {
                    grown = true;
                    let mut names = vec![MirrorPath::plain(&fetch)?];
                    if fetch != path {
                        names.push(MirrorPath::plain(&path)?);
                    }
                    self.read_index(house, &current.set, &path, names, expect).await?;
                }
            }
        }
        write(grown)?;
        Ok(None)
    }

    async fn read_index(
        self: &Arc<Self>,
        house: &Arc<House>,
        set: &Set,
        path: &str,
        names: Vec<MirrorPath>,
        expect: Expect,
    ) -> Result<(), No> {
        let own = MirrorPath::plain(path)?;
        let answer = Box::pin(self.payload(house, &own, names, expect, 0)).await;
        let answer = match answer {
            Err(No::NotThere(..)) => {
                set.skip(path);
                return Ok(());
            }
            other => other?,
        };
        let bytes = self.whole(answer, INDEX_LIMIT).await?;
        let read = tokio::task::block_in_place(|| set.read(path, &bytes));
        if let Err(fault) = read {
            // Right by its digest, and not to be read: the others may do.
            self.told(&house.name, &self.fault(house, path, fault));
        }
        Ok(())
    }

    fn fault(&self, house: &House, path: &str, fault: verify::Fault) -> No {
        No::Fault { mirror: house.name.clone(), path: path.into(), fault }
    }

    /// The set of a root, looked for anew where the last look is older than `fresh`.
    ///
    /// # Errors
    /// There is none, and none is to be had.
    async fn look(
        self: &Arc<Self>,
        house: &Arc<House>,
        slot: &Arc<Slot>,
        fresh: Duration,
    ) -> Result<Arc<Current>, No> {
        let _turn = slot.turn.lock().await;
        self.loaded(house)?;
        let current = lock(&slot.current).clone();
        let fresh = if current.is_none() { ABSENT.min(fresh.max(FRESH)) } else { fresh };
        if slot.looked_within(fresh) {
            let trouble = lock(&slot.trouble).clone();
            return match (current, trouble) {
                (Some(current), _) => Ok(current),
                (None, Some(no)) => Err(no),
                (None, None) => Err(No::NotThere(house.name.clone(), slot.root.path.clone())),
            };
        }
        if self.is_offline() {
            let offline = || No::Offline(house.name.clone(), slot.root.path.clone());
            return current.ok_or_else(offline);
        }
        if let Some(current) = current.clone().filter(|_| house.ups.all_rest()) {
            // Nobody waits for mirrors that have just failed.
            return Ok(current);
        }
        let newer = self.renew(house, slot, current.as_ref()).await;
        *lock(&slot.looked) = Some(Instant::now());
        match newer {
            Ok(newer) => {
                *lock(&slot.trouble) = None;
                if let Some(newer) = newer {
                    self.write(house, &slot.root, &newer)?;
                    *lock(&slot.current) = Some(newer);
                }
            }
            Err(no) => {
                *lock(&slot.trouble) = Some(no.clone());
                self.told(&house.name, &no);
                if let No::Upstream(trouble) = &no
                    && trouble.is_away()
                {
                    self.keeper.away(&house.name, trouble);
                }
                if current.is_none() {
                    return Err(no);
                }
                // The old set stays in force: stale, and right.
            }
        }
        let current = lock(&slot.current).clone();
        current.ok_or_else(|| No::NotThere(house.name.clone(), slot.root.path.clone()))
    }

    /// A newer set than `current`, whole; `None` where that is the newest.
    async fn renew(
        self: &Arc<Self>,
        house: &Arc<House>,
        slot: &Slot,
        current: Option<&Arc<Current>>,
    ) -> Result<Option<Arc<Current>>, No> {
        let path = MirrorPath::plain(&slot.root.path)?;
        let mut conditions = HeaderMap::new();
        // Proxies on the way shall look, too (RFC 9111 section 5.2.1.4).
        conditions.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
        if let Some(current) = current {
            let text = |t: Option<&str>| t.and_then(|t| HeaderValue::from_str(t).ok());
            if let Some(etag) = text(current.root.about.etag()) {
                conditions.insert(header::IF_NONE_MATCH, etag);
            }
            if let Some(date) = text(current.root.about.last_modified()) {
                conditions.insert(header::IF_MODIFIED_SINCE, date);
            }
        }
        let mut last = No::NotThere(house.name.clone(), path.to_string());
        let mut older = false;
        for which in house.ups.order() {
            match self.renew_from(house, slot, current, which, &path, &conditions).await {
                Ok(newer) => return Ok(newer),
                Err(no @ No::Older { .. }) => {
                    self.told(&house.name, &no);
                    house.ups.failed(which);
                    older = true;
                }
                Err(no) => {
                    let absent = matches!(&no, No::Upstream(t) if t.is_absence());
                    if !absent {
                        house.ups.failed(which);
                        last = no;
                    }
                }
            }
        }
        // Nobody has a newer one, and the one in force is right.
        if older { Ok(None) } else { Err(last) }
    }

    async fn renew_from(
        self: &Arc<Self>,
        house: &Arc<House>,
        slot: &Slot,
        current: Option<&Arc<Current>>,
        which: usize,
        path: &MirrorPath,
        conditions: &HeaderMap,
    ) -> Result<Option<Arc<Current>>, No> {
        let root = &slot.root;
        let get = Get { headers: conditions.clone(), ..Get::default() };
        let (head, body) = house.ups.get(which, path, None, &get).await?;
        if head.status == http::StatusCode::NOT_MODIFIED && current.is_some() {
            return Ok(None);
        }
        let bytes = body.whole(ROOT_LIMIT).await?;
        if current.is_some_and(|c| c.set.generation() == Digest::sha256(&bytes)) {
            return Ok(None);
        }
        let mut signature = None;
        for path in &root.signatures {
            let name = MirrorPath::plain(path)?;
            match house.ups.get(which, &name, None, &Get::default()).await {
                Ok((head, body)) => {
                    signature = Some((path.clone(), head, body.whole(ROOT_LIMIT).await?));
                    break;
                }
                Err(trouble) if trouble.is_absence() => {}
                Err(trouble) => return Err(trouble.into()),
            }
        }
        let trust = house
            .trust()
            .as_ref()
            .map_err(|why| No::Keys { mirror: house.name.clone(), why: why.clone() })?;
        let signed = signature.as_ref().map(|(_, _, bytes)| bytes.as_slice());
        let set = Set::new(house.verify, root, &bytes, signed, trust, Timestamp::now());
        let set = set.map_err(|fault| self.fault(house, &root.path, fault))?;
        if let (Some(known), Some(found)) = (current.and_then(|c| c.set.dated()), set.dated())
            && found < known
        {
            let (mirror, path) = (house.name.clone(), root.path.clone());
            return Err(No::Older { mirror, path, found, known });
        }
        // As a set: what the old one had read must be there for the new one, or it stays.
        for index in current.map(|c| c.set.indexes()).unwrap_or_default() {
            if let Find::Listed(expect) = set.find(&index) {
                let mut names = names(house.verify, &MirrorPath::plain(&index)?, &expect);
                // The mirror may be in the middle of its own renewal: by its digest first.
                names.reverse();
                self.read_index(house, &set, &index, names, expect).await?;
            }
        }
        let held = self.keep(About::of(&house.name, &root.path, &head), &bytes)?;
        let signature = match signature {
            Some((path, head, bytes)) => {
                let held = self.keep(About::of(&house.name, &path, &head), &bytes)?;
                Some((path, held))
            }
            None => None,
        };
        Ok(Some(Arc::new(Current { set, root: held, signature })))
    }

    /// Writes down what is in force.
    fn write(&self, house: &House, root: &Root, current: &Current) -> Result<(), No> {
        let key = format!("{}\0{}", house.name, root.path);
        let digest = |held: &Held| held.about.digest.map(|d| d.to_string()).unwrap_or_default();
        let record = Record {
            root: digest(&current.root),
            signature: current.signature.as_ref().map(|(path, held)| (path.clone(), digest(held))),
            read: current.set.indexes(),
        };
        self.needs_all(house, current);
        let value = serde_json::to_vec(&record).unwrap_or_default();
        if key.len() > crate::store::KEY_LIMIT || value.len() > crate::store::VALUE_LIMIT {
            return Ok(());
        }
        let put = Write::put(TABLE, key, value);
        let done = tokio::task::block_in_place(|| self.store().commit(&[put]));
        done.map_err(|e| No::Disk(e.to_string()))
    }

    /// What is in force stays, or nothing could be proven while upstream is away.
    fn needs_all(&self, house: &House, current: &Current) {
        let root = &current.set.root().path;
        let signature = current.signature.as_ref().map(|(path, held)| (path, held));
        for (path, held) in [(root, &current.root)].into_iter().chain(signature) {
            if let Some(digest) = held.about.digest {
                self.needs(&house.name, path, Id::content(&digest));
            }
        }
        for index in current.set.indexes() {
            if let Find::Listed(expect) = current.set.find(&index) {
                self.needs(&house.name, &index, Id::content(&expect.digest));
            }
        }
    }

    fn loaded(&self, house: &House) -> Result<(), No> {
        match house.sets.loaded.try_lock() {
            Ok(loaded) if *loaded => Ok(()),
            // It has to be let go first.
            other => {
                drop(other);
                tokio::task::block_in_place(|| self.load(house))
            }
        }
    }

    /// Takes up what the store says was in force, once.
    pub(super) fn load(&self, house: &House) -> Result<(), No> {
        let mut loaded = lock(&house.sets.loaded);
        if *loaded {
            return Ok(());
        }
        *loaded = true;
        let all = self.store().list(TABLE).map_err(|e| No::Disk(e.to_string()))?;
        for (key, value) in all {
            let Ok(key) = String::from_utf8(key) else { continue };
            let Some((mirror, path)) = key.split_once('\0') else { continue };
            if mirror != house.name || verify::role(house.verify, path) != Role::Root {
                continue;
            }
            let roots = verify::roots(house.verify, path);
            let Some(root) = roots.iter().find(|r| r.path == path) else { continue };
            let slot = house.sets.slot(root)?;
            slot.was.store(true, Ordering::Relaxed);
            if let Some(current) = self.reread(house, root, &value) {
                self.needs_all(house, &current);
                *lock(&slot.current) = Some(Arc::new(current));
            }
        }
        Ok(())
    }

    /// A set out of what is held; nothing where any of it is gone, or is not believed any more.
    fn reread(&self, house: &House, root: &Root, value: &[u8]) -> Option<Current> {
        let record: Record = serde_json::from_slice(value).ok()?;
        let find = |digest: &str| self.held(&Id::content(&digest.parse().ok()?));
        let bytes = |held: &Held| bytes_of(held, ROOT_LIMIT as u64);
        let held = find(&record.root)?;
        let signature = match &record.signature {
            Some((path, digest)) => Some((path.clone(), find(digest)?)),
            None => None,
        };
        let signed = match &signature {
            Some((_, held)) => Some(bytes(held)?),
            None => None,
        };
        let trust = house.trust().as_ref().ok()?;
        let (text, at) = (bytes(&held)?, held.about.received);
        let set = Set::new(house.verify, root, &text, signed.as_deref(), trust, at);
        let set = match set {
            Ok(set) => set,
            Err(fault) => {
                self.told(&house.name, &self.fault(house, &root.path, fault));
                return None;
            }
        };
        for path in &record.read {
            // What is not held is fetched when it is needed.
            if let Find::Listed(expect) = set.find(path)
                && let Some(index) = self.held(&Id::content(&expect.digest))
                && let Some(text) = bytes_of(&index, INDEX_LIMIT)
            {
                // A fault was told of when it was first read.
                let _ = set.read(path, &text);
            }
        }
        Some(Current { set, root: held, signature })
    }
}

fn bytes_of(held: &Held, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(held.len).ok().filter(|_| held.len <= limit)?];
    held.file.read_exact_at(&mut bytes, held.offset).ok().map(|()| bytes)
}

/// Where an archive changes while we read it, a list's old version is still there by its digest
/// (Debian's Acquire-By-Hash).
fn names(kind: Verify, path: &MirrorPath, expect: &Expect) -> Vec<MirrorPath> {
    let mut names = vec![path.clone()];
    if kind == Verify::Debian
        && path.as_str().starts_with("dists/")
        && !path.as_str().contains("/by-hash/")
        && !path.as_str().contains("/installer-")
        && let Some((folder, _)) = path.as_str().rsplit_once('/')
        && let Digest::Sha256(_) = expect.digest
        && let Ok(name) =
            MirrorPath::plain(&format!("{folder}/by-hash/SHA256/{}", expect.digest.hex()))
    {
        names.push(name);
    }
    names
}
