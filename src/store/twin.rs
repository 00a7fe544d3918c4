//! The embedded store: two files that each hold everything.
//!
//! One file, however careful, ends with one flipped bit. Two are kept byte for byte alike
//! (`mirror.rs`), and one redb works on both, so that the second costs writes but no thinking.
//!
//! 1. Both files are read from the disk and judged, without being touched: checksums of every page,
//!    and the number of the newest commit.
//! 2. The one that is whole and newest is the truth. If there is none, nothing is opened; only where
//!    there is neither file, a new store begins.
//! 3. A file that is whole but older gets the pages that differ. One that is damaged or missing, or
//!    that a sync has failed for, is written anew beside its place, synced, and put there; what was
//!    damaged is kept under another name.
//! 4. A commit is done when both files are synced. If it fails, the files are judged again (1), and
//!    it is tried once more; after that once a second at most, with the next commit that comes.
//! 5. Where the truth can be read and the disk takes nothing, it is read from memory meanwhile.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;

use super::disk::{Disk, File};
use super::mirror::{Bytes, Fault, LONGEST, Mirror};
use super::tree::{Failed, Tree};
use super::{Error, Record, Store, Write, check};

/// The two files of a store.
pub const NAMES: [&str; 2] = ["pilotlight.redb", "pilotlight.redb.copy"];
/// A file while it is written, and one that was damaged: behind the file's own name.
const NEW: &str = ".new";
const DAMAGED: &str = ".damaged";
/// Of redb and of Linux, in bytes.
const PAGE: usize = 4096;
/// Between one try to mend and the next.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Twin {
    disk: Box<dyn Disk>,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// Files that a sync failed for: what the page cache says of them need not be on the disk.
    suspect: [bool; 2],
    /// What went wrong, and when the next try is due.
    failed: Option<(Instant, Error)>,
    /// Told already, and no commit has gone through since.
    told: bool,
}

struct Live {
    tree: Tree,
    /// Without it the tree is in memory, to be read.
    mirror: Option<Mirror>,
}

/// A file as it was found.
struct Side {
    file: Option<Arc<dyn File>>,
    bytes: Vec<u8>,
    /// Open in memory.
    found: Result<Tree, Flaw>,
}

enum Flaw {
    Missing,
    Damaged(String),
}

impl Twin {
    /// # Errors
    /// [`Error::InUse`], [`Error::Damaged`], and what the disk says where nothing can be read, or
    /// no store begun.
    pub fn open(disk: impl Disk + 'static) -> Result<Twin, Error> {
        Twin::with(Box::new(disk), PAUSE)
    }

    pub(super) fn with(disk: Box<dyn Disk>, pause: Duration) -> Result<Twin, Error> {
        let twin = Twin { disk, pause, state: Mutex::default() };
        let mut state = twin.state();
        twin.restore(&mut state)?;
        if let Some((_, e)) = state.failed.clone() {
            tracing::error!(target: "pilotlight", "the store can be read but not written: {e}");
            state.told = true;
        }
        drop(state);
        Ok(twin)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens both files again. An error where nothing can be read.
    fn restore(&self, state: &mut State) -> Result<(), Error> {
        // Closed before it is opened again: the files are locked for one.
        state.live = None;
        let restored = self.judge(state).and_then(|sides| self.mend(state, sides));
        if let Err(e) = restored {
            state.failed = Some((Instant::now() + self.pause, e.clone()));
            return if state.live.is_some() { Ok(()) } else { Err(e) };
        }
        state.failed = None;
        Ok(())
    }

    // --- 1: what is there ---------------------------------------------------------------------

    fn judge(&self, state: &mut State) -> Result<[Side; 2], Error> {
        let [first, second] = [0, 1].map(|i| self.look(i, &mut state.suspect[i]));
        Ok([first?, second?])
    }

    fn look(&self, i: usize, suspect: &mut bool) -> Result<Side, Error> {
        let flawed = |file, flaw| Side { file, bytes: Vec::new(), found: Err(flaw) };
        let file = match self.disk.open(NAMES[i]) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(flawed(None, Flaw::Missing)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(Error::InUse { path: self.disk.path(NAMES[i]) });
            }
            // The file system has lost it.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EUCLEAN)) => {
                return Ok(flawed(None, Flaw::Damaged(e.to_string())));
            }
            Err(e) => return Err(self.error(i, "open", &e)),
        };
        *suspect |= file.sync().is_err();
        file.forget();
        let bytes = match read(&*file) {
            Ok(bytes) => bytes,
            Err(why) => return Ok(flawed(Some(file), Flaw::Damaged(why))),
        };
        let found = Tree::verify(Bytes::new(bytes.clone())).map_err(Flaw::Damaged);
        Ok(Side { file: Some(file), bytes, found })
    }

    // --- 2, 3: both made to hold the truth ----------------------------------------------------

    fn mend(&self, state: &mut State, mut sides: [Side; 2]) -> Result<(), Error> {
        let sequences = sides.each_ref().map(|s| s.found.as_ref().ok().map(Tree::sequence));
        // Of two that are equally new the first: it is written first. None is less than any.
        let from = usize::from(sequences[1] > sequences[0]);
        let newest = sequences[from];
        let truth = match newest {
            Some(_) => std::mem::take(&mut sides[from].bytes),
            None if sides.iter().all(|s| matches!(s.found, Err(Flaw::Missing))) => self.empty()?,
            None => return Err(self.both_damaged(&sides)),
        };
        let files = [0, 1].map(|i| {
            let alike = newest.is_some() && i == from || sides[i].bytes == truth;
            match &sides[i].file {
                Some(file) if alike && !state.suspect[i] => Ok(file.clone()),
                Some(file) if sides[i].found.is_ok() && !state.suspect[i] => {
                    let updated = update(&**file, &sides[i].bytes, &truth);
                    updated.map_err(|(what, e)| {
                        state.suspect[i] = what == "sync";
                        self.error(i, what, &e)
                    })?;
                    // Where they are equally new, what differs is in no use.
                    if sequences[i] != newest {
                        self.say(i, &sides[i], newest, false);
                    }
                    Ok(file.clone())
                }
                _ => self.rebuild(i, &sides[i], &truth).inspect(|_| {
                    self.say(i, &sides[i], newest, state.suspect[i]);
                    state.suspect[i] = false;
                }),
            }
        });
        // If the two will not be in order, it is read from here.
        let tree = sides.into_iter().nth(from).and_then(|side| side.found.ok());
        state.live = tree.map(|tree| Live { tree, mirror: None });
        let [first, second] = files;
        let mirror = Mirror::new([first?, second?]);
        match Tree::open(mirror.clone()) {
            Ok(tree) => state.live = Some(Live { tree, mirror: Some(mirror) }),
            Err(why) => return Err(self.broken(state, mirror.fault(), why)),
        }
        Ok(())
    }

    /// A store with nothing in it.
    fn empty(&self) -> Result<Vec<u8>, Error> {
        let bytes = Bytes::default();
        Tree::open(bytes.clone()).map_err(|why| self.engine(0, why))?;
        Ok(bytes.take())
    }

    fn rebuild(&self, i: usize, side: &Side, bytes: &[u8]) -> Result<Arc<dyn File>, Error> {
        let new = format!("{}{NEW}", NAMES[i]);
        let written = self.disk.create(&new).and_then(|file| {
            update(&*file, &[], bytes).map_err(|(_, e)| e)?;
            Ok(file)
        });
        let placed = written.and_then(|file| {
            if matches!(side.found, Err(Flaw::Damaged(_))) {
                self.disk.rename(NAMES[i], &format!("{}{DAMAGED}", NAMES[i]))?;
            }
            self.disk.rename(&new, NAMES[i])?;
            self.disk.sync()?;
            Ok(file)
        });
        placed.map_err(|e| {
            // What was written of it takes room that there may be none of. If it cannot be removed
            // either, the next try writes over it.
            let _ = self.disk.remove(&new);
            self.error(i, "write", &e)
        })
    }

    /// What was done to a file, and why.
    fn say(&self, i: usize, side: &Side, newest: Option<u64>, suspect: bool) {
        let (path, from) = (self.disk.path(NAMES[i]), self.disk.path(NAMES[1 - i]));
        match &side.found {
            // A store begins, or gets its second file.
            Err(Flaw::Missing) if newest.unwrap_or(0) == 0 => {}
            Err(Flaw::Missing) => {
                tracing::warn!(target: "pilotlight", "{path} was missing: made again from {from}");
            }
            Err(Flaw::Damaged(why)) => {
                tracing::warn!(target: "pilotlight", "{path} was damaged ({why}): made again from {from}; the damaged file is kept as {path}{DAMAGED}");
            }
            Ok(_) if suspect => {
                tracing::warn!(target: "pilotlight", "{path} was not written by the disk: written again, in another place");
            }
            Ok(_) => {
                tracing::warn!(target: "pilotlight", "{path} was older than {from}, as after a crash: brought up to date");
            }
        }
    }

    // --- 4: commits ---------------------------------------------------------------------------

    /// Both files in order, or why they are not.
    fn ready<'a>(&self, state: &'a mut State) -> Result<&'a mut Live, Error> {
        if let Some((due, e)) = &state.failed {
            if Instant::now() < *due {
                return Err(e.clone());
            }
            self.restore(state)?;
            if let Some((_, e)) = &state.failed {
                return Err(e.clone());
            }
        }
        state.live.as_mut().ok_or_else(|| self.engine(0, "closed".into()))
    }

    /// Closes after a failure, and says what failed.
    fn broken(&self, state: &mut State, fault: Option<Fault>, why: String) -> Error {
        let Some(fault) = fault else { return self.engine(0, why) };
        state.suspect[fault.side] |= fault.syncing;
        self.engine(fault.side, advise(fault.kind, fault.why))
    }

    // --- words --------------------------------------------------------------------------------

    fn engine(&self, i: usize, why: String) -> Error {
        Error::Engine { path: self.disk.path(NAMES[i]), why }
    }

    fn error(&self, i: usize, what: &str, e: &io::Error) -> Error {
        self.engine(i, advise(e.kind(), format!("{what}: {e}")))
    }

    fn both_damaged(&self, sides: &[Side; 2]) -> Error {
        let [first, second] = [0, 1].map(|i| {
            let why = match &sides[i].found {
                Err(Flaw::Damaged(why)) => why,
                _ => "missing",
            };
            format!("{} ({why})", self.disk.path(NAMES[i]))
        });
        Error::Damaged { first, second }
    }
}

/// Makes `old` into `new` by the pages that differ: where a disk is full, that is what there is
/// room for.
fn update(file: &dyn File, old: &[u8], new: &[u8]) -> Result<(), (&'static str, io::Error)> {
    if old.len() != new.len() {
        file.set_len(new.len() as u64).map_err(|e| ("length", e))?;
    }
    // What a file is lengthened by reads as zeros.
    let olds = old.chunks(PAGE).map(Some).chain(std::iter::repeat(None));
    for (i, (new, old)) in new.chunks(PAGE).zip(olds).enumerate() {
        let alike = match old {
            Some(old) if old.len() == new.len() => old == new,
            Some(_) => false,
            None => new.iter().all(|b| *b == 0),
        };
        if !alike {
            let at = (i * PAGE) as u64;
            file.write(at, &mut [IoSlice::new(new)]).map_err(|e| ("write", e))?;
        }
    }
    file.sync().map_err(|e| ("sync", e))
}

fn read(file: &dyn File) -> Result<Vec<u8>, String> {
    let text = |e: io::Error| e.to_string();
    let len = file.len().map_err(text)?;
    if len == 0 {
        return Err("it is empty".into());
    }
    if len > LONGEST {
        return Err("it is longer than a store can be".into());
    }
    let mut bytes = vec![0; len as usize];
    file.read(0, &mut bytes).map_err(text)?;
    Ok(bytes)
}

/// What to do about it.
fn advise(kind: ErrorKind, why: String) -> String {
    let what = match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on this disk (`df -h` and `df -i` show it)"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let pilotlight write there, or name another state-dir"
        }
        ErrorKind::FileTooLarge => "this is more than a store is made for",
        _ => "look to the disk (`dmesg` says more)",
    };
    format!("{why}; {what}")
}

impl Store for Twin {
    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.read(|tree| tree.get(table, key))
    }

    fn list(&self, table: &'static str) -> Result<Vec<Record>, Error> {
        self.read(|tree| tree.list(table))
    }

    fn commit(&self, writes: &[Write]) -> Result<(), Error> {
        check(writes)?;
        let mut state = self.state();
        let tree = &mut self.ready(&mut state)?.tree;
        let next = tree.sequence() + 1;
        let Some(e) = self.attempt(&mut state, writes)? else { return Ok(()) };
        if !state.told {
            tracing::warn!(target: "pilotlight", "{e}: trying again");
        }
        self.restore(&mut state)?;
        // It may be whole on the one file that was synced, and is on both by now.
        if self.ready(&mut state)?.tree.sequence() == next {
            return Ok(());
        }
        match self.attempt(&mut state, writes)? {
            None => Ok(()),
            Some(e) => {
                // So that it can be read meanwhile.
                let _ = self.restore(&mut state);
                state.failed = Some((Instant::now() + self.pause, e.clone()));
                state.told = true;
                Err(e)
            }
        }
    }
}

impl Twin {
    /// A commit. `Ok(Some(…))` says why the files must be opened again.
    fn attempt(&self, state: &mut State, writes: &[Write]) -> Result<Option<Error>, Error> {
        let live = self.ready(state)?;
        let why = match live.tree.commit(writes) {
            Ok(()) => {
                if std::mem::take(&mut state.told) {
                    tracing::warn!(target: "pilotlight", "{}: the store takes changes again", self.disk.path(NAMES[0]));
                }
                return Ok(None);
            }
            Err(Failed::Refused(e)) => return Err(e),
            Err(Failed::Broken(why)) => why,
        };
        let fault = live.mirror.as_ref().and_then(Mirror::fault);
        Ok(Some(self.broken(state, fault, why)))
    }

    fn read<T>(&self, read: impl Fn(&Tree) -> Result<T, String>) -> Result<T, Error> {
        let mut state = self.state();
        if let Some(live) = &state.live {
            let why = match read(&live.tree) {
                Ok(value) => return Ok(value),
                Err(why) => why,
            };
            let fault = live.mirror.as_ref().and_then(Mirror::fault);
            let e = self.broken(&mut state, fault, why);
            tracing::warn!(target: "pilotlight", "{e}: reading again");
        }
        self.restore(&mut state)?;
        match &state.live {
            Some(live) => read(&live.tree).map_err(|why| self.engine(0, why)),
            None => Err(self.engine(0, "closed".into())),
        }
    }
}
