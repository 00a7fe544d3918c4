//! The twin on a disk that fails and forgets: the power is cut, the process is killed, or an error
//! comes, at each operation in turn; then all that was acknowledged must be there, and nothing that
//! was never asked for.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::libc;

use super::disk::{Disk, File};
use redb::StorageBackend;

use super::mirror::Mirror;
use super::twin::{NAMES, Twin};
use super::{Error, Store, Write};

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The power: of what is not synced any part is on the disk, a write in pieces of 512 bytes.
    Cut,
    /// The process: all it did is done.
    Kill,
    /// This error, for so many operations. A sync that fails has written any part, and the cache
    /// passes for clean from then on.
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

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    disk: Vec<u8>,
    unsynced: Vec<Change>,
    locked_by: Option<u32>,
}

type Names = BTreeMap<String, usize>;

#[derive(Default)]
struct World {
    inodes: Vec<Inode>,
    names: Names,
    /// What the folder may be after a power cut: as it was synced, and after each change since.
    folders: Vec<Names>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    dice: u64,
    /// Of the process that runs; what others do fails.
    process: u32,
    dead: bool,
    /// Where the cache is kept whatever is asked, as on some file systems.
    forgets: bool,
}

impl World {
    fn roll(&mut self, n: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 16) % n
    }

    /// Any part of what is not synced reaches the disk.
    fn tear(&mut self, inode: usize) {
        for change in std::mem::take(&mut self.inodes[inode].unsynced) {
            match &change {
                Change::Len(_) if self.roll(2) == 0 => change.apply(&mut self.inodes[inode].disk),
                Change::Len(_) => {}
                Change::Write(at, bytes) => {
                    let whole = self.roll(3);
                    for (i, piece) in bytes.chunks(512).enumerate() {
                        if whole == 0 || whole == 1 && self.roll(2) == 0 {
                            let at = at + i as u64 * 512;
                            Change::Write(at, piece.into()).apply(&mut self.inodes[inode].disk);
                        }
                    }
                }
            }
        }
    }

    fn cut(&mut self) {
        for i in 0..self.inodes.len() {
            self.tear(i);
            self.inodes[i].seen = self.inodes[i].disk.clone();
        }
        let kept = self.roll(self.folders.len() as u64) as usize;
        self.names = self.folders[kept].clone();
        self.folders = vec![self.names.clone()];
        self.dead = true;
    }
}

#[derive(Clone)]
struct Sim(Arc<Mutex<World>>, u32);

struct Handle {
    sim: Sim,
    inode: usize,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.inode)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut w = self.sim.0.lock().unwrap();
        if w.inodes[self.inode].locked_by == Some(self.sim.1) {
            w.inodes[self.inode].locked_by = None;
        }
    }
}

impl Sim {
    fn new(dice: u64) -> Sim {
        let world = World { dice: dice | 1 << 40, folders: vec![Names::new()], ..World::default() };
        Sim(Arc::new(Mutex::new(world)), 0)
    }

    /// The machine or the process begins again.
    fn restart(&self) -> Sim {
        let mut w = self.0.lock().unwrap();
        w.process += 1;
        (w.dead, w.fault) = (false, None);
        w.inodes.iter_mut().for_each(|i| i.locked_by = None);
        Sim(self.0.clone(), w.process)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let w = self.0.lock().unwrap();
        match w.dead || w.process != self.1 {
            true => Err(ErrorKind::BrokenPipe.into()),
            false => Ok(w),
        }
    }

    /// The world before an operation that changes it; `syncing` is what is being synced.
    fn operation(&self, syncing: Option<usize>) -> io::Result<MutexGuard<'_, World>> {
        let mut w = self.alive()?;
        w.operations += 1;
        let Some((at, fault)) = w.fault else { return Ok(w) };
        match fault {
            Fault::Cut if w.operations == at => w.cut(),
            Fault::Kill if w.operations == at => w.dead = true,
            Fault::Error(e, times) if (at..at + times).contains(&w.operations) => {
                if let Some(inode) = syncing {
                    w.tear(inode);
                }
                return Err(io::Error::from_raw_os_error(e));
            }
            _ => {}
        }
        if w.dead { Err(ErrorKind::BrokenPipe.into()) } else { Ok(w) }
    }

    fn handle(&self, w: &mut World, inode: usize) -> io::Result<Arc<dyn File>> {
        if w.inodes[inode].locked_by.is_some() {
            return Err(ErrorKind::WouldBlock.into());
        }
        w.inodes[inode].locked_by = Some(self.1);
        Ok(Arc::new(Handle { sim: self.clone(), inode }))
    }

    /// A file as it is, to be damaged.
    fn touch(&self, name: &str, f: impl FnOnce(&mut Vec<u8>)) {
        let mut w = self.0.lock().unwrap();
        let inode = w.names[name];
        f(&mut w.inodes[inode].seen);
        w.inodes[inode].disk = w.inodes[inode].seen.clone();
    }
}

impl Disk for Sim {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut w = self.alive()?;
        let inode = *w.names.get(name).ok_or(ErrorKind::NotFound)?;
        self.handle(&mut w, inode)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut w = self.operation(None)?;
        let inode = w.inodes.len();
        w.inodes.push(Inode::default());
        w.names.insert(name.into(), inode);
        let names = w.names.clone();
        w.folders.push(names);
        self.handle(&mut w, inode)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut w = self.operation(None)?;
        let inode = w.names.remove(from).ok_or(ErrorKind::NotFound)?;
        w.names.insert(to.into(), inode);
        let names = w.names.clone();
        w.folders.push(names);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut w = self.operation(None)?;
        w.names.remove(name).ok_or(ErrorKind::NotFound)?;
        let names = w.names.clone();
        w.folders.push(names);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut w = self.operation(None)?;
        w.folders = vec![w.names.clone()];
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        name.into()
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sim.alive()?.inodes[self.inode].seen.len() as u64)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let w = self.sim.alive()?;
        let bytes = w.inodes[self.inode].seen.get(at as usize..at as usize + out.len());
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, at: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let change = Change::Write(at, parts.iter().flat_map(|p| p.to_vec()).collect());
        self.change(change)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len))
    }

    fn sync(&self) -> io::Result<()> {
        let mut w = self.sim.operation(Some(self.inode))?;
        let inode = &mut w.inodes[self.inode];
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.disk);
        }
        Ok(())
    }

    fn forget(&self) {
        let mut w = self.sim.0.lock().unwrap();
        if w.forgets && w.inodes[self.inode].unsynced.is_empty() {
            w.inodes[self.inode].seen = w.inodes[self.inode].disk.clone();
        }
    }
}

impl Handle {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut w = self.sim.operation(None)?;
        let inode = &mut w.inodes[self.inode];
        change.apply(&mut inode.seen);
        inode.unsynced.push(change);
        Ok(())
    }
}

/// A server's life: each commit brings a record and all those before it that failed, and says how
/// many there are.
#[derive(Default)]
struct Life {
    acknowledged: u32,
    asked: u32,
}

impl Life {
    fn opens(disk: &Sim) -> Result<Twin, Error> {
        Twin::with(Box::new(disk.clone()), Duration::ZERO)
    }

    fn goes_on(&mut self, twin: &Twin, commits: u32) {
        for _ in 0..commits {
            self.asked += 1;
            let mut writes: Vec<Write> = (self.acknowledged..self.asked)
                .map(|n| Write::put("lease", n.to_be_bytes(), vec![n as u8; 700]))
                .collect();
            writes.push(Write::put("state", *b"count", self.asked.to_be_bytes()));
            if twin.commit(&writes).is_ok() {
                self.acknowledged = self.asked;
            }
        }
    }

    fn holds(&mut self, twin: &Twin) {
        let count = twin.get("state", b"count").unwrap();
        let count = count.map_or(0, |c| u32::from_be_bytes(c.try_into().unwrap()));
        assert!((self.acknowledged..=self.asked).contains(&count), "{count} of {}", self.asked);
        let wanted: Vec<_> =
            (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 700])).collect();
        assert!(twin.list("lease").unwrap() == wanted, "all or nothing of a commit");
        (self.acknowledged, self.asked) = (count, count);
    }
}

fn long() -> bool {
    std::env::var("PILOTLIGHT_SWEEP").is_ok_and(|v| v == "long")
}

/// Operations from the first start to the last commit.
fn operations(forgets: bool) -> usize {
    let disk = Sim::new(1);
    disk.0.lock().unwrap().forgets = forgets;
    Life::default().goes_on(&Life::opens(&disk).unwrap(), 5);
    let n = disk.0.lock().unwrap().operations;
    assert!(n > 20, "the sweep has something to sweep");
    n
}

/// Mostly on file systems whose cache keeps what the disk has not, and nobody can make it forget.
fn sweep(fault: Fault, seeds: u64) {
    for forgets in if long() { vec![false, true] } else { vec![false] } {
        for at in 1..=operations(forgets) {
            for seed in 1..=seeds {
                let sides = if matches!(fault, Fault::Error(..)) { 2 } else { 1 };
                (0..sides).for_each(|gone| one(fault, at, seed, forgets, gone));
            }
        }
    }
}

/// A life with the fault, and whatever is left of it, then a power cut: a disk that claimed to
/// have what it had not would show it now.
fn one(fault: Fault, at: usize, seed: u64, forgets: bool, gone: usize) {
    let case = format!("{fault:?} at {at}, seed {seed}, forgets: {forgets}, gone: {gone}");
    let run = std::panic::catch_unwind(|| {
        let mut disk = Sim::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at as u64);
        let mut life = Life::default();
        {
            let mut w = disk.0.lock().unwrap();
            (w.fault, w.forgets) = (Some((at, fault)), forgets);
        }
        match Life::opens(&disk) {
            Ok(twin) => {
                life.goes_on(&twin, 5);
                if matches!(fault, Fault::Error(..)) {
                    // Once there is room it goes on, without a restart.
                    disk.0.lock().unwrap().fault = None;
                    life.goes_on(&twin, 1);
                    assert_eq!(life.acknowledged, life.asked, "it goes on by itself");
                    life.holds(&twin);
                    drop(twin);
                    // And either file alone is enough.
                    disk.0.lock().unwrap().cut();
                    disk = disk.restart();
                    disk.0.lock().unwrap().names.remove(NAMES[gone]);
                }
            }
            Err(e) => assert!(life.asked == 0 && !matches!(e, Error::Damaged { .. }), "{e}"),
        }
        for cut in [false, true, true] {
            if cut {
                disk.0.lock().unwrap().cut();
            }
            disk = disk.restart();
            let twin = Life::opens(&disk).unwrap_or_else(|e| panic!("{e}"));
            life.holds(&twin);
            life.goes_on(&twin, 2);
            assert_eq!(life.acknowledged, life.asked);
        }
    });
    assert!(run.is_ok(), "{case}");
}

#[test]
fn the_power_fails_at_any_operation() {
    sweep(Fault::Cut, if long() { 100 } else { 2 });
}

#[test]
fn the_process_is_killed_at_any_operation() {
    sweep(Fault::Kill, 1);
}

#[test]
fn the_disk_says_no_at_any_operation() {
    let seeds = if long() { 20 } else { 1 };
    for (error, times) in [(libc::EIO, 1), (libc::EIO, 3), (libc::ENOSPC, 1000)] {
        sweep(Fault::Error(error, times), seeds);
    }
}

/// A store of some commits, closed as a stopped server closes it, or as a killed one leaves it.
fn kept(closed: bool) -> (Sim, Life) {
    let (disk, mut life) = (Sim::new(7), Life::default());
    let twin = Life::opens(&disk).unwrap();
    life.goes_on(&twin, 20);
    if !closed {
        disk.0.lock().unwrap().dead = true;
    }
    drop(twin);
    (disk, life)
}

fn survives(damage: impl Fn(&mut Vec<u8>), side: usize, closed: bool, case: &str) {
    let (disk, mut life) = kept(closed);
    let mut damaged = Vec::new();
    disk.touch(NAMES[side], |bytes| {
        damage(bytes);
        damaged = bytes.clone();
    });
    let disk = disk.restart();
    let twin = Life::opens(&disk).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(life.acknowledged, 20);
    life.holds(&twin);
    life.goes_on(&twin, 1);
    life.holds(&twin);
    assert_eq!(life.acknowledged, 21, "{case}");
    let w = disk.0.lock().unwrap();
    if let Some(inode) = w.names.get(&format!("{}.damaged", NAMES[side])) {
        assert!(w.inodes[*inode].seen == damaged, "kept as it was found");
    }
}

#[test]
fn any_bit_flips_in_either_file() {
    let mut dice = World { dice: 1 << 41 | 5, ..World::default() };
    let length = kept(true).0.0.lock().unwrap().inodes[0].seen.len() as u64;
    for round in 0..if long() { 20_000 } else { 120 } {
        // Half of them where the header is; the rest anywhere.
        let at = dice.roll(if round % 2 == 0 { 400 } else { length }) as usize;
        let (bit, side, closed) = (dice.roll(8), dice.roll(2) as usize, dice.roll(2) == 0);
        let case = format!("bit {bit} of byte {at} of file {side}, closed: {closed}");
        survives(|bytes| bytes[at] ^= 1 << bit, side, closed, &case);
    }
}

#[test]
fn either_file_is_cut_short_or_overwritten_or_gone() {
    let mut dice = World { dice: 1 << 41 | 9, ..World::default() };
    let length = kept(true).0.0.lock().unwrap().inodes[0].seen.len() as u64;
    let mut lengths = vec![0, 1, 63, 64, 320, 4095, 4096, 4097, length - 4096, length - 1];
    lengths.extend((0..if long() { 2_000 } else { 20 }).map(|_| dice.roll(length)));
    for (i, len) in lengths.into_iter().enumerate() {
        let (side, closed) = (i % 2, i % 3 == 0);
        survives(|b| b.truncate(len as usize), side, closed, &format!("cut at {len}"));
        survives(|b| b[len as usize..].fill(0), side, closed, &format!("zeros from {len}"));
    }
    for side in [0, 1] {
        let (disk, mut life) = kept(false);
        disk.0.lock().unwrap().names.remove(NAMES[side]);
        life.holds(&Life::opens(&disk.restart()).unwrap());
    }
}

#[test]
fn an_older_file_is_brought_up_to_date() {
    for side in [0, 1] {
        let (disk, mut life) = kept(true);
        let mut old = Vec::new();
        disk.touch(NAMES[side], |bytes| old = bytes.clone());
        let disk = disk.restart();
        let twin = Life::opens(&disk).unwrap();
        life.goes_on(&twin, 3);
        drop(twin);
        disk.touch(NAMES[side], |bytes| *bytes = old);
        life.holds(&Life::opens(&disk.restart()).unwrap());
        assert_eq!(life.acknowledged, 23);
    }
}

#[test]
fn a_store_of_one_file_gets_its_second() {
    let (disk, mut life) = kept(true);
    disk.0.lock().unwrap().names.remove(NAMES[1]);
    life.holds(&Life::opens(&disk.restart()).unwrap());
    let w = disk.0.lock().unwrap();
    let [first, second] = NAMES.map(|n| &w.inodes[w.names[n]].seen);
    assert!(first == second, "alike, byte for byte");
}

#[test]
fn what_is_damaged_on_both_sides_is_not_begun_anew() {
    let (disk, _) = kept(true);
    disk.touch(NAMES[0], |b| b.truncate(5000));
    disk.0.lock().unwrap().names.remove(NAMES[1]);
    let e = Life::opens(&disk.restart()).err().unwrap();
    assert!(matches!(e, Error::Damaged { .. }));
    let text = e.to_string();
    assert!(NAMES.iter().all(|n| text.contains(n)) && text.contains("move"), "{text}");
}

#[test]
fn damage_while_it_runs_is_not_spread() {
    for side in [0, 1] {
        let (disk, mut life) = kept(true);
        let disk = disk.restart();
        let twin = Life::opens(&disk).unwrap();
        // All of the pages; the next that is read again is one of them.
        disk.touch(NAMES[side], |b| b[4096..].iter_mut().for_each(|b| *b ^= 1));
        let open =
            |n| Arc::new(Handle { sim: disk.clone(), inode: disk.0.lock().unwrap().names[n] });
        let both = Mirror::new([open(NAMES[0]), open(NAMES[1])]);
        assert!(both.read(0, &mut [0; 64]).is_ok());
        assert!(both.read(4096, &mut [0; 64]).is_err(), "they differ");
        life.goes_on(&twin, 5);
        assert_eq!(life.acknowledged, 25);
        life.holds(&twin);
        drop(twin);
        let disk = disk.restart();
        life.holds(&Life::opens(&disk).unwrap());
    }
}

#[test]
fn without_room_it_is_read_and_says_what_to_do() {
    let (disk, mut life) = kept(false);
    // The second is to be made again, and cannot be.
    disk.touch(NAMES[1], |b| b.truncate(5000));
    let disk = disk.restart();
    disk.0.lock().unwrap().fault = Some((0, Fault::Error(libc::ENOSPC, usize::MAX)));
    let twin = Life::opens(&disk).unwrap();
    life.holds(&twin);
    let e = twin.commit(&[Write::put("lease", *b"1", *b"")]).unwrap_err().to_string();
    assert!(e.contains("No space left") && e.contains("make room"), "{e}");
    disk.0.lock().unwrap().fault = None;
    life.goes_on(&twin, 1);
    assert_eq!(life.acknowledged, 21);
    assert!(matches!(Life::opens(&disk), Err(Error::InUse { .. })));
}
