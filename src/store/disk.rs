//! The folder that a store lives in: what is asked of a disk, so that tests can have one that
//! fails and forgets.

use std::fmt::Debug;
use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};
use nix::sys::uio::pwritev;

/// IOV_MAX of Linux.
const PARTS: usize = 1024;

pub trait Disk: Send + Sync {
    /// A file that is there, locked for us alone.
    ///
    /// # Errors
    /// `WouldBlock`: another process has it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// An empty file, locked likewise.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// What was created, renamed and removed stays so.
    fn sync(&self) -> io::Result<()>;
    /// For people.
    fn path(&self, name: &str) -> String;
}

pub trait File: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// All of `out`, from `at` on.
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
    /// All of the parts, one behind the other.
    fn write(&self, at: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// From here on it is read from the disk itself. After a failed sync Linux has pages in its
    /// cache that pass for written and are not.
    fn forget(&self);
}

/// A folder of the file system, held for as long as this lives: the files in it come and go.
pub struct Folder(PathBuf, #[expect(dead_code, reason = "held")] Option<Flock<fs::File>>);

impl Folder {
    /// # Errors
    /// `WouldBlock`: another process has it. A file system that locks no folders is taken as it is,
    /// for the files have locks of their own.
    pub fn hold(dir: &Path) -> io::Result<Folder> {
        let held = match Flock::lock(fs::File::open(dir)?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Some(held),
            Err((_, Errno::EWOULDBLOCK)) => return Err(ErrorKind::WouldBlock.into()),
            Err(_) => None,
        };
        Ok(Folder(dir.into(), held))
    }
}

fn locked(file: fs::File) -> io::Result<Arc<dyn File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Arc::new(file)),
        Err((_, e)) => Err(e.into()),
    }
}

impl Disk for Folder {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        locked(fs::OpenOptions::new().read(true).write(true).open(self.0.join(name))?)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut how = fs::OpenOptions::new();
        locked(how.read(true).write(true).create(true).truncate(true).open(self.0.join(name))?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl File for Flock<fs::File> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, at)
    }

    fn write(&self, mut at: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !parts.is_empty() {
            match pwritev(&**self, &parts[..parts.len().min(PARTS)], at.cast_signed()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut parts, n);
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn forget(&self) {
        // Advice only: where it is not taken, what is read passes the same checks.
        let _ = posix_fadvise(&**self, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}
