//! What redb writes to: two files alike, one after the other.
//!
//! 1. Writes wait in memory until redb asks for a sync.
//! 2. Then they go to the first file, and that is synced; then to the second, and that is synced.
//!    At any time at most one of the two is in between: whatever happens to it, the other is whole.
//! 3. What fails is remembered with its file, and nothing is written from then on: the two are
//!    looked at anew (`twin.rs`).

use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::disk::File;

/// The longest a store file gets, in bytes: it is read into memory to be checked.
pub const LONGEST: u64 = 2 << 30;

/// What failed, and at which of the two files.
#[derive(Clone, Debug)]
pub struct Fault {
    pub side: usize,
    /// The kernel did not say which of the pages are on the disk.
    pub syncing: bool,
    pub kind: ErrorKind,
    pub why: String,
}

#[derive(Clone, Debug)]
pub struct Mirror(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: [Arc<dyn File>; 2],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Since the last sync, in order.
    writes: Vec<(u64, Vec<u8>)>,
    resized: bool,
    fault: Option<Fault>,
}

impl Mirror {
    pub fn new(files: [Arc<dyn File>; 2]) -> Mirror {
        Mirror(Arc::new(Inner { files, state: Mutex::default() }))
    }

    /// The first thing that failed.
    pub fn fault(&self) -> Option<Fault> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).fault.clone()
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.fault {
            None => Ok(state),
            Some(f) => Err(io::Error::new(f.kind, f.why.clone())),
        }
    }

    /// `f` of both files, one after the other.
    fn both(
        &self,
        state: &mut State,
        f: impl Fn(&dyn File, &State) -> Result<(), (&'static str, io::Error)>,
    ) -> io::Result<()> {
        for (side, file) in self.0.files.iter().enumerate() {
            if let Err((what, e)) = f(&**file, state) {
                return Err(failed(state, side, what, e));
            }
        }
        Ok(())
    }
}

/// Pages that lie side by side go in one call.
fn write(file: &dyn File, writes: &[(u64, Vec<u8>)]) -> io::Result<()> {
    let end = |(at, bytes): &(u64, Vec<u8>)| at + bytes.len() as u64;
    let mut sorted: Vec<_> = writes.iter().collect();
    sorted.sort_by_key(|(at, _)| *at);
    if sorted.windows(2).any(|w| end(w[0]) > w[1].0) {
        // Written twice: what was written last is to stay.
        return writes.iter().try_for_each(|(at, b)| file.write(*at, &mut [IoSlice::new(b)]));
    }
    sorted.chunk_by(|a, b| end(a) == b.0).try_for_each(|run| {
        let mut parts: Vec<_> = run.iter().map(|(_, b)| IoSlice::new(b)).collect();
        file.write(run[0].0, &mut parts)
    })
}

fn failed(state: &mut State, side: usize, what: &'static str, e: io::Error) -> io::Error {
    let (kind, why) = (e.kind(), format!("{what}: {e}"));
    state.fault = Some(Fault { side, syncing: what == "sync", kind, why });
    e
}

impl StorageBackend for Mirror {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        self.0.files[0].len().map_err(|e| failed(&mut state, 0, "length", e))
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        self.0.files[0].read(at, out).map_err(|e| failed(&mut state, 0, "read", e))?;
        if state.writes.is_empty() {
            // redb checks its checksums at the start only: what it reads wrong later it would
            // write again with the right checksum, into both.
            let mut other = vec![0; out.len()];
            self.0.files[1].read(at, &mut other).map_err(|e| failed(&mut state, 1, "read", e))?;
            if other != out {
                let e = io::Error::new(ErrorKind::InvalidData, "the two files differ");
                return Err(failed(&mut state, 0, "read", e));
            }
        }
        let end = at + out.len() as u64;
        for (start, bytes) in &state.writes {
            let (from, to) = (at.max(*start), end.min(start + bytes.len() as u64));
            if from < to {
                let new = &bytes[(from - start) as usize..(to - start) as usize];
                out[(from - at) as usize..(to - at) as usize].copy_from_slice(new);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        if len > LONGEST {
            let e = io::Error::new(ErrorKind::FileTooLarge, "a store ends at 2 GiB");
            return Err(failed(&mut state, 0, "longer", e));
        }
        state.resized = true;
        state.writes.retain_mut(|(at, bytes)| {
            bytes.truncate(len.saturating_sub(*at).min(bytes.len() as u64) as usize);
            !bytes.is_empty()
        });
        self.both(&mut state, |file, _| file.set_len(len).map_err(|e| ("length", e)))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if state.writes.is_empty() && !state.resized {
            return Ok(());
        }
        self.both(&mut state, |file, state| {
            write(file, &state.writes).map_err(|e| ("write", e))?;
            file.sync().map_err(|e| ("sync", e))
        })?;
        state.writes.clear();
        state.resized = false;
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.state()?.writes.push((at, bytes.to_vec()));
        Ok(())
    }
}

/// A file's bytes in memory: to look at without touching it, and to make a new one.
#[derive(Clone, Debug, Default)]
pub struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    pub fn new(bytes: Vec<u8>) -> Bytes {
        Bytes(Arc::new(Mutex::new(bytes)))
    }

    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let all = self.lock();
        let bytes = all.get(at..).and_then(|b| b.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > LONGEST {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let mut all = self.lock();
        let place = all.get_mut(at..).and_then(|b| b.get_mut(..bytes.len()));
        place.ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }
}
