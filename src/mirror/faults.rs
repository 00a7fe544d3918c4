#![cfg(test)]
//! The cache's folder on a disk that fails and forgets: the power is cut, the process is killed, or
//! an error comes, at each operation in turn. Then what is complete is right to the byte, what is
//! partial resumes with bytes that are right, and what was checkpointed is not fetched again.
//!
//! Files are real ones, in a folder of the test's own; beside them a model keeps what of them the
//! disk would have, and a power cut puts that in their place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use nix::libc;
use tempfile::TempDir;

use super::digest::Digest;
use super::disk::{Begun, Disk, Hand, Held, Partial, Place, Real, Trouble};
use super::record::{About, Damage, Id};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The power: of what is not synced any part is on the disk, a write in pieces of 512 bytes.
    Cut,
    /// The process: all it did is done; of a write, its first half.
    Kill,
    /// This error, for so many operations. A sync that fails has written any part, and what is in
    /// memory passes for clean from then on.
    Error(i32, usize),
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Len(len) => bytes.resize(*len as usize, 0),
            Change::Write(at, new) => {
                let (at, end) = (*at as usize, *at as usize + new.len());
                bytes.resize(bytes.len().max(end), 0);
                bytes[at..end].copy_from_slice(new);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Inode {
    disk: Vec<u8>,
    unsynced: Vec<Change>,
}

/// `None`: a folder.
type Names = BTreeMap<PathBuf, Option<u64>>;

#[derive(Default)]
struct World {
    inodes: BTreeMap<u64, Inode>,
    /// Where they are in the model, by their number in the file system, which is given again.
    numbers: HashMap<u64, u64>,
    /// What the disk may have: as it was synced, and after each change since, with the folders
    /// that the change was in. File systems with a journal keep the order.
    names: Vec<(Names, Vec<PathBuf>)>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    dice: u64,
    /// Of the process that runs; what others do fails.
    process: u32,
    dead: bool,
}

impl World {
    fn roll(&mut self, n: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 16) % n
    }

    /// Any part of what is not synced reaches the disk.
    fn tear(&mut self, inode: u64) {
        let Some(mut torn) = self.inodes.remove(&inode) else { return };
        for change in std::mem::take(&mut torn.unsynced) {
            match &change {
                Change::Len(_) if self.roll(2) == 0 => change.apply(&mut torn.disk),
                Change::Len(_) => {}
                Change::Write(at, bytes) => {
                    let whole = self.roll(3);
                    for (i, piece) in bytes.chunks(512).enumerate() {
                        if whole == 0 || whole == 1 && self.roll(2) == 0 {
                            Change::Write(at + i as u64 * 512, piece.into()).apply(&mut torn.disk);
                        }
                    }
                }
            }
        }
        self.inodes.insert(inode, torn);
    }

    fn add(&mut self, file: &File, inode: Inode) -> u64 {
        let new = self.inodes.last_key_value().map_or(0, |(last, _)| last + 1);
        self.numbers.insert(file.metadata().unwrap().ino(), new);
        self.inodes.insert(new, inode);
        new
    }

    fn number(&self, file: &File) -> u64 {
        self.numbers[&file.metadata().unwrap().ino()]
    }

    fn rename(&mut self, change: impl FnOnce(&mut Names), folders: &[&Path]) {
        let mut names = self.names.last().map(|(n, _)| n.clone()).unwrap_or_default();
        change(&mut names);
        let folders = folders.iter().map(|p| p.parent().unwrap().into()).collect();
        self.names.push((names, folders));
    }
}

#[derive(Clone)]
struct Sim {
    world: Arc<Mutex<World>>,
    process: u32,
    dir: Arc<TempDir>,
}

impl Sim {
    fn new(dice: u64) -> Sim {
        let dice = dice.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 40;
        let world = World { dice, names: vec![Default::default()], ..World::default() };
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Sim { world: Arc::new(Mutex::new(world)), process: 0, dir }
    }

    fn opens(&self) -> Result<Disk, Trouble> {
        Disk::with(self.dir.path(), Box::new(self.clone()))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The process begins again.
    fn restart(&self) -> Sim {
        let mut w = self.world();
        w.process += 1;
        (w.dead, w.fault) = (false, None);
        Sim { process: w.process, ..self.clone() }
    }

    /// The machine begins again, with what the disk has.
    fn power(&self) -> Sim {
        let mut w = self.world();
        let all: Vec<u64> = w.inodes.keys().copied().collect();
        all.into_iter().for_each(|i| w.tear(i));
        let kept = w.names.len() as u64;
        let kept = w.roll(kept) as usize;
        let names = w.names[kept].0.clone();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
        let inodes = std::mem::take(&mut w.inodes);
        let mut now = Names::new();
        for (path, inode) in names {
            match inode {
                None => {
                    fs::create_dir(&path).unwrap();
                    now.insert(path, None);
                }
                Some(inode) => {
                    let kept = inodes[&inode].clone();
                    fs::write(&path, &kept.disk).unwrap();
                    let inode = w.add(&File::open(&path).unwrap(), kept);
                    now.insert(path, Some(inode));
                }
            }
        }
        w.names = vec![(now, vec![])];
        drop(w);
        self.restart()
    }

    /// The world before an operation that changes it; `syncing` is what is being synced.
    fn operation(&self, syncing: Option<&File>) -> io::Result<MutexGuard<'_, World>> {
        let mut w = self.world();
        if w.dead || w.process != self.process {
            return Err(ErrorKind::BrokenPipe.into());
        }
        w.operations += 1;
        match w.fault {
            Some((at, Fault::Cut | Fault::Kill)) if w.operations == at => w.dead = true,
            Some((at, Fault::Error(e, times))) if (at..at + times).contains(&w.operations) => {
                if let Some(inode) = syncing.map(|file| w.number(file)) {
                    w.tear(inode);
                }
                return Err(io::Error::from_raw_os_error(e));
            }
            _ => {}
        }
        Ok(w)
    }

    /// A change of names, in the world and in its model.
    fn named(
        &self,
        folders: &[&Path],
        real: impl FnOnce() -> io::Result<()>,
        model: impl FnOnce(&mut Names),
    ) -> io::Result<()> {
        let mut w = self.operation(None)?;
        if w.dead {
            return Err(ErrorKind::BrokenPipe.into());
        }
        real()?;
        w.rename(model, folders);
        Ok(())
    }

    fn change(&self, file: &File, change: Change) -> io::Result<()> {
        let mut w = self.operation(None)?;
        let change = match change {
            Change::Write(at, bytes) if w.dead => {
                Change::Write(at, bytes[..bytes.len() / 2].into())
            }
            Change::Len(_) if w.dead => return Err(ErrorKind::BrokenPipe.into()),
            change => change,
        };
        match &change {
            Change::Write(at, bytes) => file.write_all_at(bytes, *at)?,
            Change::Len(len) => file.set_len(*len)?,
        }
        let inode = w.number(file);
        w.inodes.entry(inode).or_default().unsynced.push(change);
        if w.dead { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Hand for Sim {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut made = None;
        let real = || {
            made = Some(Real::of(self.dir.path()).create(path)?);
            Ok(())
        };
        let model = |_: &mut Names| {};
        self.named(&[path], real, model)?;
        let file = made.unwrap();
        let mut w = self.world();
        let inode = w.add(&file, Inode::default());
        w.names.last_mut().unwrap().0.insert(path.into(), Some(inode));
        Ok(file)
    }

    fn write(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(file, Change::Write(at, bytes.into()))
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.change(file, Change::Len(len))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut w = self.operation(Some(file))?;
        if w.dead {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let inode = w.number(file);
        let inode = w.inodes.entry(inode).or_default();
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.disk);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let model = |names: &mut Names| {
            let inode = names.remove(from).unwrap_or_default();
            names.insert(to.into(), inode);
        };
        self.named(&[from, to], || fs::rename(from, to), model)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let model = |names: &mut Names| names.retain(|name, _| name != path);
        self.named(&[path], || fs::remove_file(path), model)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let model = |names: &mut Names| names.extend([(path.into(), None)]);
        self.named(&[path], || fs::create_dir(path), model)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut w = self.operation(None)?;
        if w.dead {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let last = w.names.iter().rposition(|(_, folders)| folders.iter().any(|f| f == path));
        w.names.drain(..last.unwrap_or(0));
        Ok(())
    }
}

// --- a life ----------------------------------------------------------------------------------

const LEN: u64 = 9 * 4096 + 77;

/// The bytes of an object, each version of them others, and their digest.
static BODIES: LazyLock<Vec<(Vec<u8>, Digest)>> = LazyLock::new(|| {
    let body = |version: u8| -> Vec<u8> {
        (0..LEN).map(|n| (n / 3 % 251) as u8 ^ version.wrapping_mul(17)).collect()
    };
    (0..8).map(body).map(|body| (Digest::sha256(&body), body)).map(|(d, b)| (b, d)).collect()
});

fn body(version: u8) -> &'static [u8] {
    &BODIES[version as usize].0
}

fn about(version: u8) -> About {
    About {
        mirror: "debian".into(),
        path: format!("pool/{version}"),
        url: format!("http://deb.example/pool/{version}"),
        status: 200,
        headers: vec![("etag".into(), format!("\"{version}\""))],
        request: vec![],
        digest: Some(BODIES[version as usize].1),
        len: Some(LEN),
        requested: "2026-11-21T10:00:00Z".parse().unwrap(),
        received: "2026-11-21T10:00:01Z".parse().unwrap(),
        pinned: false,
    }
}

fn payload(version: u8) -> Id {
    Id::content(&BODIES[version as usize].1)
}

fn metadata() -> Id {
    Id::named("debian", "dists/bookworm/InRelease", "")
}

fn bytes_of(held: &Held) -> Vec<u8> {
    let mut out = vec![0; held.len as usize];
    held.file.read_exact_at(&mut out, held.offset).unwrap();
    out
}

/// What was acknowledged.
#[derive(Default)]
struct Life {
    /// Complete, and which version of it.
    complete: BTreeMap<Id, u8>,
    /// What may be there: of those that were committed, or nearly.
    possible: BTreeMap<Id, BTreeSet<u8>>,
    /// Checkpointed, and which version of it.
    kept: BTreeMap<Id, (u8, Vec<Range<u64>>)>,
}

impl Life {
    fn fill(&mut self, disk: &Disk, id: Id, version: u8, stop: Option<u64>) -> Result<(), Trouble> {
        let (bytes, mut written) = (body(version), 0);
        let partial = disk.begin(&id, about(version))?;
        self.right(&partial, id, version);
        // From two places in turn, as two connections would.
        let (front, back) = (0..LEN / 2, LEN / 2..LEN);
        for at in 0..5 {
            for half in [&front, &back] {
                let start = half.start + at * 4096;
                for gap in partial.covered().missing(start..(start + 4096).min(half.end)) {
                    let piece = &bytes[gap.start as usize..gap.end as usize];
                    partial.write_at(gap.start, piece).map_err(|source| Trouble::Io {
                        what: "write",
                        path: "body".into(),
                        source,
                    })?;
                    written += gap.end - gap.start;
                }
            }
            if at % 2 == 1 {
                partial.checkpoint()?;
                self.kept.insert(id, (version, partial.covered().iter().collect()));
            }
            if stop.is_some_and(|stop| written >= stop) {
                return Ok(());
            }
        }
        self.possible.entry(id).or_default().insert(version);
        let held = partial.commit(about(version))?;
        self.kept.remove(&id);
        self.complete.insert(id, version);
        assert!(bytes_of(&held) == bytes);
        assert!(partial.write_at(0, b"x").is_err(), "a complete object takes no more");
        Ok(())
    }

    /// What a partial file brings along is right, and all that was checkpointed.
    fn right(&mut self, partial: &Partial, id: Id, version: u8) {
        let (bytes, covered) = (body(version), partial.covered());
        for range in covered.iter() {
            let mut there = vec![0; (range.end - range.start) as usize];
            partial.file().read_exact_at(&mut there, partial.offset() + range.start).unwrap();
            assert!(there == bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        match self.kept.get(&id) {
            Some((kept, ranges)) if *kept == version => {
                assert!(ranges.iter().all(|r| covered.contains(r.clone())), "{ranges:?} kept");
            }
            _ => drop(self.kept.remove(&id)),
        }
        assert!(!matches!(partial.begun(), Begun::Damaged(_)), "{:?}", partial.begun());
    }

    fn lives(&mut self, disk: &Disk) -> Result<(), Trouble> {
        self.fill(disk, payload(1), 1, None)?;
        self.fill(disk, payload(2), 2, Some(LEN / 2))?;
        self.fill(disk, metadata(), 3, None)?;
        disk.rewrite(&payload(1), &About { pinned: true, ..about(1) })?;
        // Another process's object of the same name would be replaced just so.
        self.fill(disk, metadata(), 4, Some(LEN / 2))?;
        self.fill(disk, metadata(), 5, None)?;
        disk.rewrite(&payload(1), &about(1))?;
        self.fill(disk, payload(2), 2, None)?;
        self.complete.remove(&payload(2));
        disk.remove(&payload(2))?;
        self.fill(disk, payload(6), 6, Some(LEN / 2))?;
        let partial = disk.begin(&payload(6), about(6))?;
        self.kept.remove(&payload(6));
        partial.set_aside(Damage::Digest)?;
        self.fill(disk, payload(7), 7, Some(LEN / 2))
    }

    /// Everything that is there is right, and all that was acknowledged is there.
    fn holds(&mut self, disk: &Disk) {
        for id in [payload(1), payload(2), metadata(), payload(6), payload(7)] {
            let held = disk.get(&id).unwrap_or_else(|e| panic!("{e}"));
            let versions = self.possible.get(&id).cloned().unwrap_or_default();
            match &held {
                Some(held) => {
                    let there = bytes_of(held);
                    let version = versions.iter().find(|v| body(**v) == there);
                    let version = version.expect("right to the byte");
                    assert_eq!(held.about.etag(), about(*version).etag());
                    // A later version that was on its way may have come, an older one not.
                    assert!(self.complete.get(&id).is_none_or(|v| version >= v));
                    self.complete.insert(id, *version);
                    self.kept.retain(|of, (v, _)| *of != id || v != version);
                }
                None => assert!(!self.complete.contains_key(&id), "acknowledged and gone"),
            }
        }
        disk.each(|found| {
            let found = found.unwrap_or_else(|e| panic!("{e}"));
            assert!(found.place != Place::Complete || found.about.is_some());
        });
    }

    /// Everything is fetched that is not there.
    fn goes_on(&mut self, disk: &Disk) {
        for (id, version) in [(payload(1), 1), (payload(2), 2), (metadata(), 5), (payload(7), 7)] {
            if self.complete.get(&id) != Some(&version) {
                self.fill(disk, id, version, None).unwrap_or_else(|e| panic!("{e}"));
            }
        }
        self.holds(disk);
    }
}

fn long() -> bool {
    std::env::var("PILOTLIGHT_SWEEP").is_ok_and(|v| v == "long")
}

fn operations() -> usize {
    let sim = Sim::new(1);
    Life::default().lives(&sim.opens().unwrap()).unwrap();
    let n = sim.world().operations;
    assert!(n > 100, "the sweep has something to sweep: {n}");
    n
}

fn sweep(fault: Fault, seeds: u64, step: usize) {
    for at in (1..=operations()).step_by(step) {
        for seed in 1..=seeds {
            one(fault, at, seed);
        }
    }
}

fn one(fault: Fault, at: usize, seed: u64) {
    let run = std::panic::catch_unwind(|| {
        let mut sim = Sim::new(seed ^ (at as u64) << 8);
        let mut life = Life::default();
        sim.world().fault = Some((at, fault));
        if let Ok(disk) = sim.opens() {
            let lived = life.lives(&disk);
            if !matches!(fault, Fault::Error(..)) {
                assert_ne!(lived.is_ok(), sim.world().dead, "{lived:?}");
            } else {
                // It goes on by itself, in the same process.
                sim.world().fault = None;
                life.holds(&disk);
                life.goes_on(&disk);
            }
        }
        for cut in [fault != Fault::Kill, false, true] {
            sim = if cut { sim.power() } else { sim.restart() };
            let disk = sim.opens().unwrap();
            life.holds(&disk);
            life.goes_on(&disk);
        }
    });
    assert!(run.is_ok(), "{fault:?} at {at}, seed {seed}");
}

#[test]
fn the_power_fails_at_any_operation() {
    sweep(Fault::Cut, if long() { 20 } else { 2 }, 1);
}

#[test]
fn the_process_is_killed_at_any_operation() {
    sweep(Fault::Kill, 1, 1);
}

#[test]
fn the_disk_says_no_at_any_operation() {
    for (error, times) in [(libc::EIO, 1), (libc::EDQUOT, 3), (libc::ENOSPC, usize::MAX / 2)] {
        sweep(Fault::Error(error, times), if long() { 10 } else { 1 }, 1);
    }
}

/// Linux passes pages for clean that a failed sync did not write: the next sync that succeeds says
/// nothing of them.
#[test]
fn what_a_failed_sync_lost_is_never_complete() {
    for seed in 1..20 {
        let sim = Sim::new(seed);
        let disk = sim.opens().unwrap();
        let partial = disk.begin(&payload(1), about(1)).unwrap();
        partial.write_at(0, &body(1)[..20_000]).unwrap();
        partial.checkpoint().unwrap();
        partial.write_at(20_000, &body(1)[20_000..]).unwrap();
        let next = sim.world().operations + 1;
        sim.world().fault = Some((next, Fault::Error(libc::EIO, 1)));
        assert!(matches!(partial.checkpoint(), Err(Trouble::Io { what: "sync", .. })));
        assert!(matches!(partial.checkpoint(), Err(Trouble::Lost { .. })));
        assert!(matches!(partial.commit(about(1)), Err(Trouble::Lost { .. })));
        drop(partial);
        let partial = disk.begin(&payload(1), about(1)).unwrap();
        assert_eq!((partial.begun(), partial.covered().total()), (Begun::Resumed, 20_000));
        partial.write_at(20_000, &body(1)[20_000..]).unwrap();
        partial.commit(about(1)).unwrap();
        drop(partial);
        let disk = sim.power().opens().unwrap();
        assert!(bytes_of(&disk.get(&payload(1)).unwrap().unwrap()) == body(1));
    }
}
