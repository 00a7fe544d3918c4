//! The cache's folder: one file an object, and the file system is the index.
//!
//! `objects/ab/ID` are complete, `partial/ID` are being filled or wait to be resumed, `aside/` has
//! what was damaged. Each begins with its header block ([`record`](super::record)).
//!
//! 1. [`Disk::begin`] opens the partial file, locked: what the last checkpoint kept, if the bytes
//!    are the same; else a new one.
//! 2. [`Partial::write_at`] fills it. A [`checkpoint`](Partial::checkpoint) syncs the bytes, and
//!    only then writes and syncs a header that says that they are there.
//! 3. [`Partial::commit`] writes a header that says complete, syncs bytes and header together, and
//!    renames. A header that says complete is believed in `objects/` alone, so a crash before the
//!    rename leaves what the last checkpoint said.
//! 4. [`Disk::get`] looks at the header block and the length whenever a file is opened. What is not
//!    as it was left goes to `aside/`, and is told.
//!
//! Open files are not kept for later hits: a hit costs 12 us of processor, of which a look whether
//! the name still means the same file would save nine, and there is nothing to go stale.
//!
//! Several processes may have the folder open. Whoever writes a header holds the file's lock, and
//! nobody calls a file damaged without it. Where root writes into a folder of another user's, what
//! is made belongs to that user; no symbolic link is followed.

use std::fs::{self, DirEntry, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sys::statvfs::fstatvfs;

use super::digest::Hasher;
use super::ranges::Ranges;
use super::record::{self, About, BODY, Damage, Header, Id, TooLong};

/// Bytes written between two checkpoints. A crash costs twice as many at the most, for the next ones
/// come while a checkpoint is being made.
pub const CHECKPOINT: u64 = 32 << 20;
/// Files that were set aside; of more, or of more bytes than these together, the oldest go.
pub const ASIDE_FILES: usize = 32;
pub const ASIDE_BYTES: u64 = 2 << 30;
/// The use of an object is noted on the disk (as its time of modification) at most this often.
const NOTED: Duration = Duration::from_secs(3600);
/// A file that another process renames or removes just then is looked for again.
const ATTEMPTS: usize = 8;
/// Read at once by [`Disk::verify`].
const PIECE: usize = 256 << 10;

/// What the disk did not do.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// ENOSPC or EDQUOT.
    #[error("there is no room to {what} {}: {source}", path.display())]
    Full { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("somebody else is at {} just now", path.display())]
    InUse { path: PathBuf },
    /// It is in `aside/` now, and there is no such object any more.
    #[error("{} was damaged and is set aside: {damage}", path.display())]
    Damaged { path: PathBuf, damage: Damage },
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// After a failed sync Linux has pages that pass for written and are not: what came after the
    /// last checkpoint is not kept, and is fetched again.
    #[error("{} is not kept: the disk lost what was written to it", path.display())]
    Lost { path: PathBuf },
    #[error("{} is complete or given up, and takes no more", path.display())]
    Closed { path: PathBuf },
    #[error("{} has {there} of its {len} bytes and cannot be complete", path.display())]
    Unfinished { path: PathBuf, there: u64, len: u64 },
    #[error("{} is not there", path.display())]
    Gone { path: PathBuf },
}

impl crate::model::Why for Trouble {
    fn name(&self) -> &'static str {
        match self {
            Trouble::Full { .. } => "disk-full",
            Trouble::Io { .. } => "disk-error",
            Trouble::InUse { .. } => "in-use",
            Trouble::Damaged { .. } => "damaged",
            Trouble::TooLong(_) => "long-header",
            Trouble::Lost { .. } => "disk-lost",
            Trouble::Closed { .. } => "closed",
            Trouble::Unfinished { .. } => "unfinished",
            Trouble::Gone { .. } => "gone",
        }
    }
}

impl Trouble {
    /// No room on the disk, or none of the user's quota: serve on without keeping.
    pub fn is_full(&self) -> bool {
        matches!(self, Trouble::Full { .. })
    }
}

/// ENOSPC or EDQUOT, of an error of [`Partial::write_at`].
pub fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Trouble {
    move |source| match is_full(&source) {
        true => Trouble::Full { what, path: path.into(), source },
        false => Trouble::Io { what, path: path.into(), source },
    }
}

/// What changes the folder, so that tests can have a disk that fails and forgets.
pub(super) trait Hand: Send + Sync {
    /// A new file, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// All of the bytes.
    fn write(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, file: &File, len: u64) -> io::Result<()>;
    /// What was written stays so.
    fn sync(&self, file: &File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// What was created, renamed and removed in it stays so.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// The file system. What is made belongs to this user and group, where they are not ours.
pub(super) struct Real(Option<(u32, u32)>);

impl Real {
    /// For this folder, or the nearest above it that is there.
    pub(super) fn of(dir: &Path) -> Real {
        let there = dir.ancestors().find_map(|d| fs::metadata(d).ok());
        let other = there.map(|m| (m.uid(), m.gid())).filter(|(user, _)| *user != 0);
        Real(other.filter(|_| nix::unistd::geteuid().is_root()))
    }

    fn give(&self, file: &File) -> io::Result<()> {
        self.0.map_or(Ok(()), |(user, group)| fchown(file, Some(user), Some(group)))
    }
}

impl Hand for Real {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).create_new(true).mode(0o640);
        let file = how.open(path)?;
        self.give(&file)?;
        Ok(file)
    }

    fn write(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o750).create(path)?;
        self.give(&folder(path)?)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        folder(path)?.sync_all()
    }
}

fn folder(path: &Path) -> io::Result<File> {
    let how = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(how).open(path)
}

/// A file of ours. Not blocking: a named pipe in its place must not hang us.
fn open(path: &Path, write: bool) -> io::Result<File> {
    let how = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    OpenOptions::new().read(true).write(write).custom_flags(how).open(path)
}

/// Whether it is no file of ours that is in the way: a link, a folder, a pipe.
fn is_stray(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO))
}

/// The lock of an open file, for as long as it lives; the descriptor beside it is another.
/// `None`: somebody else has it. A file system without locks is taken as it is.
struct Lock(#[expect(dead_code, reason = "held")] Option<Flock<File>>);

fn lock(file: &File) -> io::Result<Option<Lock>> {
    match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Some(Lock(Some(held)))),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err(_) => Ok(Some(Lock(None))),
    }
}

/// Whether this open file is still the one of that name.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(m) => Ok((m.dev(), m.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(t) => Ok(Some(t)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_at(file: &File, mut out: &mut [u8], mut at: u64) -> io::Result<usize> {
    let wanted = out.len();
    while !out.is_empty() {
        match file.read_at(out, at) {
            Ok(0) => break,
            Ok(n) => {
                out = &mut out[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(wanted - out.len())
}

/// What a file's header block says, judged by the file.
struct Look {
    header: Header,
    sequence: u64,
    meta: Metadata,
}

impl Look {
    /// Bytes of the body.
    fn len(&self) -> u64 {
        self.meta.len().saturating_sub(BODY)
    }
}

/// The header block of the file that has the name `id`. The outer error is the disk's.
fn look(file: &File, id: &Id) -> io::Result<Result<Look, Damage>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Err(Damage::Stray));
    }
    let mut block = [0; BODY as usize];
    let n = read_at(file, &mut block, 0)?;
    Ok(record::read(&block[..n]).and_then(|(header, sequence)| match header.id == *id {
        true => Ok(Look { header, sequence, meta }),
        false => Err(Damage::Misnamed),
    }))
}

/// The same of an object in its final place.
fn look_complete(file: &File, id: &Id) -> io::Result<Result<Look, Damage>> {
    Ok(look(file, id)?.and_then(|look| match look.header.about.len {
        _ if !look.header.complete => Err(Damage::Incomplete),
        None => Err(Damage::Incomplete),
        Some(len) if look.len() < len => Err(Damage::Short),
        Some(len) if look.len() > len => Err(Damage::Long),
        Some(_) => Ok(look),
    }))
}

fn is_unwritten(file: &File) -> io::Result<bool> {
    let mut block = [0; BODY as usize];
    let n = read_at(file, &mut block, 0)?;
    Ok(record::is_unwritten(&block[..n]))
}

/// On the disk.
fn bytes(meta: &Metadata) -> u64 {
    meta.blocks() * 512
}

/// A complete object. The descriptor stays good whatever becomes of the file's name.
#[derive(Clone, Debug)]
pub struct Held {
    pub file: Arc<File>,
    /// Where the body begins in it.
    pub offset: u64,
    /// Bytes of the body.
    pub len: u64,
    /// On the disk, the header block included.
    pub bytes: u64,
    pub about: Arc<About>,
}

impl Held {
    fn new(file: Arc<File>, about: About, meta: &Metadata) -> Held {
        let len = meta.len().saturating_sub(BODY);
        Held { file, offset: BODY, len, bytes: bytes(meta), about: Arc::new(about) }
    }
}

/// Where a file of the folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Complete,
    Partial,
    Aside,
}

/// One file of the folder.
#[derive(Clone, Debug)]
pub struct Listed {
    pub place: Place,
    /// `None`: set aside, and never was an object.
    pub id: Option<Id>,
    pub path: PathBuf,
    /// On the disk, the header block included.
    pub bytes: u64,
    /// Within an hour; of what was set aside, when it was written.
    pub used: Timestamp,
    /// `None`: nothing readable is said of it, as of a partial file before its first checkpoint.
    pub about: Option<About>,
    /// Of a partial file: what the last checkpoint kept.
    pub covered: Ranges,
    /// Of what was set aside: [`Damage::name`].
    pub why: Option<String>,
}

/// What the bytes of an object are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// Not those of its digest. It is still in its place: [`Disk::set_aside`].
    Wrong,
    /// It has no digest; its length is right.
    NoDigest,
}

/// How a partial file was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    New,
    /// With what the last checkpoint kept.
    Resumed,
    /// There was one of other bytes: other validators, digest or size.
    Changed,
    /// There was one that was not as we left it; it is set aside.
    Damaged(Damage),
}

/// The folder. Calls block.
#[derive(Clone)]
pub struct Disk(Arc<Folder>);

struct Folder {
    dir: PathBuf,
    hand: Box<dyn Hand>,
}

impl Disk {
    /// Makes the folder and those in it where they are not there. Reads no object.
    ///
    /// # Errors
    /// Where they cannot be made, or are no folders.
    pub fn open(dir: &Path) -> Result<Disk, Trouble> {
        Disk::with(dir, Box::new(Real::of(dir)))
    }

    pub(super) fn with(dir: &Path, hand: Box<dyn Hand>) -> Result<Disk, Trouble> {
        let folder = Folder { dir: dir.into(), hand };
        let above: Vec<&Path> = dir.ancestors().skip(1).collect();
        for path in above.into_iter().rev().filter(|p| !p.as_os_str().is_empty()) {
            folder.make(path, false)?;
        }
        folder.make(dir, false)?;
        for name in ["objects", "partial", "aside"] {
            folder.make(&dir.join(name), true)?;
        }
        Ok(Disk(Arc::new(folder)))
    }

    /// A complete object; notes its use.
    ///
    /// # Errors
    /// [`Trouble::Damaged`]: it has been set aside, and is fetched again.
    pub fn get(&self, id: &Id) -> Result<Option<Held>, Trouble> {
        let path = self.0.object(id);
        let Some((file, look)) = self.0.complete(id, &path)? else { return Ok(None) };
        note_use(&file, &look.meta);
        Ok(Some(Held::new(Arc::new(file), look.header.about, &look.meta)))
    }

    /// A file to be filled: what the last checkpoint kept of it if the bytes are the same
    /// ([`About::same_bytes`]), else a new one.
    ///
    /// # Errors
    /// [`Trouble::InUse`]: another [`Partial`] of this object is open, here or elsewhere.
    pub fn begin(&self, id: &Id, about: About) -> Result<Partial, Trouble> {
        // Said now and not after an hour's fetching.
        let header = Header { id: *id, complete: true, covered: Ranges::default(), about };
        record::write(&header, 0)?;
        let (path, about) = (self.0.partial(id), header.about);
        let mut begun = Begun::New;
        for _ in 0..ATTEMPTS {
            let Some((file, lock)) = self.0.open_partial(&path, &mut begun)? else { continue };
            let start = self.0.judge(&file, id, &path, &about, &mut begun)?;
            let Some((covered, sequence)) = start else { continue };
            return Ok(Partial {
                folder: self.0.clone(),
                id: *id,
                path,
                file: Arc::new(file),
                begun,
                gate: RwLock::new(Some(lock)),
                there: Mutex::new(There { covered: covered.clone(), since: 0 }),
                said: Mutex::new(Said { kept: covered, sequence, named: false, lost: false }),
                about,
            });
        }
        Err(Trouble::InUse { path })
    }

    /// A new header of a complete object: fresh again after a 304, pinned or not. The length is the
    /// file's, whatever `about` says.
    ///
    /// # Errors
    /// [`Trouble::Gone`], [`Trouble::InUse`], [`Trouble::TooLong`], or the disk's.
    pub fn rewrite(&self, id: &Id, about: &About) -> Result<(), Trouble> {
        let path = self.0.object(id);
        let failed = || cannot("write the header of", &path);
        let Some(file) = there(open(&path, true)).map_err(failed())? else {
            return Err(Trouble::Gone { path });
        };
        let Some(_lock) = lock(&file).map_err(failed())? else {
            return Err(Trouble::InUse { path });
        };
        let mut look = self.0.judged(&file, id, &path)?;
        let len = Some(look.len());
        look.header.about = About { len, ..about.clone() };
        let next = look.sequence.saturating_add(1);
        let slot = record::write(&look.header, next)?;
        // The slot of the sequence number before is on the disk before this one is written over
        // the one before that.
        self.0.hand.write(&file, record::place(next), &slot).map_err(failed())?;
        self.0.hand.sync(&file).map_err(failed())
    }

    /// Removes a complete object; whether there was one. Whoever reads it reads on.
    pub fn remove(&self, id: &Id) -> Result<bool, Trouble> {
        self.0.remove(&self.0.object(id))
    }

    /// Removes a partial file; whether there was one.
    ///
    /// # Errors
    /// [`Trouble::InUse`]: it is being filled.
    pub fn remove_partial(&self, id: &Id) -> Result<bool, Trouble> {
        let path = self.0.partial(id);
        let failed = || cannot("remove", &path);
        let Some(file) = there(open(&path, false)).map_err(failed())? else { return Ok(false) };
        let lock = lock(&file).map_err(failed())?;
        if lock.is_none() {
            return Err(Trouble::InUse { path });
        }
        // Complete since, by another process.
        if !is_named(&file, &path).map_err(failed())? {
            return Ok(false);
        }
        self.0.remove(&path)
    }

    /// Removes all files that were set aside.
    pub fn clear_aside(&self) -> Result<(), Trouble> {
        self.0.prune(0, 0)
    }

    /// All files, in no order; on the way damaged ones are set aside and told. About 10 us each:
    /// for a thread of its own. Folders that are not ours are passed over.
    pub fn each(&self, mut f: impl FnMut(Result<Listed, Trouble>)) {
        let objects = self.0.dir.join("objects");
        entries(&objects, &mut f, &mut |entry, f| {
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { return };
            let name = entry.file_name();
            let half = match name.to_str() {
                _ if !meta.is_dir() => return self.0.listed(entry, Place::Complete, None, f),
                Some(half) if is_half(half) => half,
                _ => return,
            };
            entries(&path, f, &mut |entry, f| {
                let name = entry.file_name();
                let id = name.to_str().filter(|n| n.starts_with(half)).and_then(|n| n.parse().ok());
                self.0.listed(entry, Place::Complete, id, f);
            });
        });
        for place in [Place::Partial, Place::Aside] {
            let folder = self.0.dir.join(if place == Place::Partial { "partial" } else { "aside" });
            entries(&folder, &mut f, &mut |entry, f| {
                let name = entry.file_name();
                let name = name.to_str().unwrap_or_default();
                let id = name.split('.').next().and_then(|n| n.parse().ok());
                self.0.listed(entry, place, id, f);
            });
        }
    }

    /// Bytes on the disk of all files: a look at each of them.
    pub fn used(&self) -> u64 {
        fn below(dir: &Path, depth: usize) -> u64 {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let size = |e: DirEntry| match e.metadata() {
                Ok(m) if m.is_dir() && depth > 0 => below(&e.path(), depth - 1),
                Ok(m) => bytes(&m),
                Err(_) => 0,
            };
            entries.map(size).sum()
        }
        below(&self.0.dir, 2)
    }

    /// Bytes of the file system that are free, for us.
    ///
    /// # Errors
    /// The disk's.
    pub fn room(&self) -> io::Result<u64> {
        let found = fstatvfs(File::open(&self.0.dir)?)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }

    /// Reads a complete object, from the disk and not from memory, and takes its digest. `None`:
    /// there is no such object.
    ///
    /// # Errors
    /// As [`Disk::get`].
    pub fn verify(&self, id: &Id) -> Result<Option<Verdict>, Trouble> {
        let path = self.0.object(id);
        let Some((file, look)) = self.0.complete(id, &path)? else { return Ok(None) };
        let Some(digest) = look.header.about.digest else { return Ok(Some(Verdict::NoDigest)) };
        // Advice only: where it is not taken, what is read is what is served.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let (mut hasher, mut piece, mut at) = (Hasher::like(digest), vec![0; PIECE], BODY);
        loop {
            match read_at(&file, &mut piece, at).map_err(cannot("read", &path))? {
                0 => break,
                n => {
                    hasher.update(&piece[..n]);
                    at += n as u64;
                }
            }
        }
        let right = hasher.finish() == digest;
        Ok(Some(if right { Verdict::Right } else { Verdict::Wrong }))
    }

    /// A complete object that proved wrong goes to `aside/`; whether there was one.
    pub fn set_aside(&self, id: &Id, damage: Damage) -> Result<bool, Trouble> {
        self.0.put_aside(&self.0.object(id), damage)
    }
}

/// Notes that it was asked for. The clock is the file system's own measure; an error is no more
/// than a note that is lost.
fn note_use(file: &File, meta: &Metadata) {
    let now = SystemTime::now();
    let fresh = meta.modified().is_ok_and(|then| match now.duration_since(then) {
        Ok(since) => since < NOTED,
        Err(ahead) => ahead.duration() < NOTED,
    });
    if !fresh {
        let _ = file.set_modified(now);
    }
}

/// A folder of objects: the first two digits of their names.
fn is_half(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// All of a folder; one that another process has removed is empty.
fn entries<F: FnMut(Result<Listed, Trouble>)>(
    dir: &Path,
    f: &mut F,
    each: &mut dyn FnMut(&DirEntry, &mut F),
) {
    match there(fs::read_dir(dir)) {
        Ok(entries) => {
            for entry in entries.into_iter().flatten() {
                match entry {
                    Ok(entry) => each(&entry, f),
                    Err(e) => return f(Err(cannot("read", dir)(e))),
                }
            }
        }
        Err(e) => f(Err(cannot("read", dir)(e))),
    }
}

impl Folder {
    fn object(&self, id: &Id) -> PathBuf {
        let name = id.to_string();
        let mut path = PathBuf::with_capacity(self.dir.as_os_str().len() + 80);
        path.push(&self.dir);
        path.extend(["objects", &name[..2], &name]);
        path
    }

    fn partial(&self, id: &Id) -> PathBuf {
        self.dir.join("partial").join(id.to_string())
    }

    /// A folder of ours is no symbolic link; those above it are the user's own affair.
    fn make(&self, path: &Path, ours: bool) -> Result<(), Trouble> {
        let failed = || cannot("make the folder", path);
        let found = if ours { fs::symlink_metadata(path) } else { fs::metadata(path) };
        match there(found).map_err(failed())? {
            Some(m) if m.is_dir() => Ok(()),
            Some(_) => Err(failed()(ErrorKind::NotADirectory.into())),
            None => match self.hand.make_folder(path) {
                // Another process did.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                made => {
                    made.map_err(failed())?;
                    let above = path.parent().filter(|p| !p.as_os_str().is_empty());
                    let above = above.unwrap_or(Path::new("."));
                    self.hand.sync_folder(above).map_err(failed())
                }
            },
        }
    }

    /// A complete object and its header; what is damaged is set aside.
    fn complete(&self, id: &Id, path: &Path) -> Result<Option<(File, Look)>, Trouble> {
        let failed = || cannot("read", path);
        let file = match there(open(path, false)) {
            Err(e) if is_stray(&e) => return Err(self.condemn(path, Damage::Stray)),
            found => found.map_err(failed())?,
        };
        let Some(file) = file else { return Ok(None) };
        if let Ok(look) = look_complete(&file, id).map_err(failed())? {
            return Ok(Some((file, look)));
        }
        // A header that is being written looks torn.
        let held = lock(&file).map_err(failed())?;
        if held.is_none() {
            return Err(Trouble::InUse { path: path.into() });
        }
        self.judged(&file, id, path).map(|look| Some((file, look)))
    }

    /// Of a complete object whose lock is held.
    fn judged(&self, file: &File, id: &Id, path: &Path) -> Result<Look, Trouble> {
        let failed = || cannot("read", path);
        // Replaced meanwhile: the next look finds that.
        if !is_named(file, path).map_err(failed())? {
            return Err(Trouble::InUse { path: path.into() });
        }
        let found = look_complete(file, id).map_err(failed())?;
        found.map_err(|damage| self.condemn(path, damage))
    }

    /// Set aside, and what is to be told of it: that it could not be, for one.
    fn condemn(&self, path: &Path, damage: Damage) -> Trouble {
        match self.put_aside(path, damage) {
            Ok(_) => Trouble::Damaged { path: path.into(), damage },
            Err(trouble) => trouble,
        }
    }

    /// Out of the way, under a name that tells why; whether it was there.
    fn put_aside(&self, path: &Path, damage: Damage) -> Result<bool, Trouble> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let name = match name.parse::<Id>() {
            Ok(id) => id.to_string(),
            // The names of others may be of any length and make.
            Err(_) => {
                format!("stray-{:.16}", Id::named("", &path.to_string_lossy(), "").to_string())
            }
        };
        let to = self.dir.join("aside").join(format!("{name}.{}", damage.name()));
        let moved = there(self.hand.rename(path, &to)).map_err(cannot("set aside", path))?;
        self.prune(ASIDE_FILES, ASIDE_BYTES)?;
        Ok(moved.is_some())
    }

    /// The oldest that were set aside go. A folder stays: what is in it is not ours to remove.
    fn prune(&self, files: usize, most: u64) -> Result<(), Trouble> {
        let aside = self.dir.join("aside");
        let failed = || cannot("clean up", &aside);
        let mut all = Vec::new();
        for entry in fs::read_dir(&aside).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if let Some(meta) = there(entry.metadata()).map_err(failed())?.filter(|m| !m.is_dir()) {
                // The time of the change is that of the renaming.
                all.push(((meta.ctime(), meta.ctime_nsec()), bytes(&meta), entry.path()));
            }
        }
        all.sort();
        let (mut count, mut total) = (all.len(), all.iter().map(|(_, n, _)| n).sum::<u64>());
        for (_, bytes, path) in all {
            if count <= files && total <= most {
                break;
            }
            self.remove(&path)?;
            (count, total) = (count - 1, total - bytes);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<bool, Trouble> {
        let removed = there(self.hand.remove(path)).map_err(cannot("remove", path))?;
        Ok(removed.is_some())
    }

    /// A partial file and its lock, made where there is none; `None`: to be tried again.
    fn open_partial(
        &self,
        path: &Path,
        begun: &mut Begun,
    ) -> Result<Option<(File, Lock)>, Trouble> {
        let failed = || cannot("open", path);
        let file = match there(open(path, true)) {
            Err(e) if is_stray(&e) => {
                *begun = Begun::Damaged(Damage::Stray);
                return self.put_aside(path, Damage::Stray).map(|_| None);
            }
            found => found.map_err(failed())?,
        };
        let file = match file {
            Some(file) => file,
            None => match self.hand.create(path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(None),
                made => made.map_err(cannot("make", path))?,
            },
        };
        match lock(&file).map_err(failed())? {
            None => Err(Trouble::InUse { path: path.into() }),
            // Complete or removed since it was opened.
            Some(_) if !is_named(&file, path).map_err(failed())? => Ok(None),
            Some(lock) => Ok(Some((file, lock))),
        }
    }

    /// What of a locked partial file can be resumed, and the next sequence number of its header.
    /// `None`: nothing, it is out of the way, and the next attempt makes a new one.
    fn judge(
        &self,
        file: &File,
        id: &Id,
        path: &Path,
        about: &About,
        begun: &mut Begun,
    ) -> Result<Option<(Ranges, u64)>, Trouble> {
        let failed = || cannot("read", path);
        let meta = file.metadata().map_err(failed())?;
        if meta.is_file() && meta.len() == 0 && meta.nlink() == 1 {
            return Ok(Some((Ranges::default(), 0)));
        }
        let damage = match look(file, id).map_err(failed())? {
            // A file of two names could be an object as well.
            Ok(look) if look.meta.nlink() != 1 => Damage::Stray,
            Ok(look) if look.len() < look.header.covered.end() => Damage::Short,
            Ok(look) if look.header.about.same_bytes(about) => {
                *begun = Begun::Resumed;
                return Ok(Some((look.header.covered, look.sequence.saturating_add(1))));
            }
            Ok(_) => {
                *begun = Begun::Changed;
                return self.remove(path).map(|_| None);
            }
            Err(Damage::Strange | Damage::Torn) if is_unwritten(file).map_err(failed())? => {
                return self.remove(path).map(|_| None);
            }
            Err(damage) => damage,
        };
        *begun = Begun::Damaged(damage);
        self.put_aside(path, damage).map(|_| None)
    }

    fn listed<F: FnMut(Result<Listed, Trouble>)>(
        &self,
        entry: &DirEntry,
        place: Place,
        id: Option<Id>,
        f: &mut F,
    ) {
        let path = entry.path();
        match self.list(path.clone(), place, id) {
            Ok(Some(listed)) => f(Ok(listed)),
            Ok(None) => {}
            Err(trouble) => f(Err(trouble)),
        }
    }

    /// `None`: a folder, or a file that has gone meanwhile.
    fn list(&self, path: PathBuf, place: Place, id: Option<Id>) -> Result<Option<Listed>, Trouble> {
        let failed = || cannot("read", &path);
        let Some(meta) = there(fs::symlink_metadata(&path)).map_err(failed())? else {
            return Ok(None);
        };
        if meta.is_dir() {
            return Ok(None);
        }
        let (mut about, mut covered) = (None, Ranges::default());
        match (place, &id) {
            (Place::Complete, Some(id)) => match self.complete(id, &path)? {
                Some((_, look)) => about = Some(look.header.about),
                None => return Ok(None),
            },
            (Place::Complete | Place::Partial, None) => {
                return Err(self.condemn(&path, Damage::Stray));
            }
            // Judged when it is resumed; what was set aside has been.
            (Place::Partial | Place::Aside, Some(id)) if meta.is_file() => {
                let file = there(open(&path, false)).map_err(failed())?;
                let found = file.map(|file| look(&file, id)).transpose().map_err(failed())?;
                if let Some(Ok(look)) = found {
                    (about, covered) = (Some(look.header.about), look.header.covered);
                }
            }
            (Place::Partial | Place::Aside, _) => {}
        }
        let used = Timestamp::new(meta.mtime(), 0).unwrap_or_default();
        let why = path.extension().and_then(|e| e.to_str()).map(String::from);
        let why = why.filter(|_| place == Place::Aside);
        Ok(Some(Listed { place, id, bytes: bytes(&meta), used, about, covered, why, path }))
    }
}

/// A file that is being filled, by several at once at different places, while others read it.
/// Dropped, it stays as the last checkpoint left it, to be resumed.
pub struct Partial {
    folder: Arc<Folder>,
    id: Id,
    path: PathBuf,
    file: Arc<File>,
    begun: Begun,
    about: About,
    /// Closed once it is complete or given up. Those who write hold it open.
    gate: RwLock<Option<Lock>>,
    there: Mutex<There>,
    said: Mutex<Said>,
}

struct There {
    covered: Ranges,
    /// Bytes written since the last checkpoint.
    since: u64,
}

/// What the header block says.
struct Said {
    /// At the last checkpoint.
    kept: Ranges,
    /// Of the next slot.
    sequence: u64,
    /// The file's name is on the disk, as far as we know.
    named: bool,
    /// A sync failed.
    lost: bool,
}

impl Partial {
    pub fn begun(&self) -> Begun {
        self.begun
    }

    /// Writes bytes of the body at this place of it; then they are covered.
    ///
    /// # Errors
    /// The disk's (see [`is_full`]); `InvalidInput` beyond the object's length; `BrokenPipe` where
    /// it is complete or was given up.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if gate.is_none() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        // The longest file there can be: off_t.
        let most = self.about.len.unwrap_or(i64::MAX.cast_unsigned() - BODY);
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= most);
        let end = end.ok_or(ErrorKind::InvalidInput)?;
        self.folder.hand.write(&self.file, BODY + offset, bytes)?;
        let mut there = self.there();
        there.covered.insert(offset..end);
        there.since += bytes.len() as u64;
        Ok(())
    }

    /// What is there and can be read.
    pub fn covered(&self) -> Ranges {
        self.there().covered.clone()
    }

    /// [`Ranges::prefix_from`] of it.
    pub fn prefix_from(&self, offset: u64) -> u64 {
        self.there().covered.prefix_from(offset)
    }

    /// Whether [`CHECKPOINT`] bytes were written since the last checkpoint.
    pub fn due(&self) -> bool {
        self.there().since >= CHECKPOINT
    }

    /// What is covered now is on the disk when this returns, and survives a crash.
    ///
    /// # Errors
    /// [`Trouble::Closed`]; [`Trouble::Lost`]; the disk's.
    pub fn checkpoint(&self) -> Result<(), Trouble> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if gate.is_none() {
            return Err(Trouble::Closed { path: self.path.clone() });
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = {
            let mut there = self.there();
            there.since = 0;
            there.covered.clone()
        };
        self.sync(&mut said)?;
        let about = self.about.clone();
        let header = Header { id: self.id, complete: false, covered, about };
        self.say(&mut said, &header)?;
        self.sync(&mut said)?;
        if let Some(folder) = self.path.parent().filter(|_| !said.named) {
            self.folder.hand.sync_folder(folder).map_err(cannot("write", &self.path))?;
        }
        said.named = true;
        said.kept = header.covered;
        Ok(())
    }

    /// Whole and right, says the caller: it gets its final place. `about.len` may be `None`: then it
    /// is what is covered. After [`Trouble::Full`] it may be tried again.
    ///
    /// # Errors
    /// [`Trouble::Unfinished`]; [`Trouble::Closed`]; [`Trouble::Lost`]; the disk's.
    pub fn commit(&self, about: About) -> Result<Held, Trouble> {
        let mut gate = self.closing()?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let covered = self.covered();
        let len = about.len.unwrap_or(covered.end());
        if !covered.contains(0..len) || covered.end() > len {
            let there = covered.total();
            return Err(Trouble::Unfinished { path: self.path.clone(), there, len });
        }
        let failed = || cannot("write", &self.path);
        // Bytes that were written and never covered, when the length was not known.
        if self.file.metadata().map_err(failed())?.len() > BODY + len {
            self.folder.hand.set_len(&self.file, BODY + len).map_err(failed())?;
        }
        let about = About { len: Some(len), ..about };
        let covered = said.kept.clone();
        let header = Header { id: self.id, complete: true, covered, about };
        self.say(&mut said, &header)?;
        self.sync(&mut said)?;
        self.settle()?;
        *gate = None;
        let meta = self.file.metadata().map_err(failed())?;
        Ok(Held::new(self.file.clone(), header.about, &meta))
    }

    /// Into its final place, and both folders on the disk.
    fn settle(&self) -> Result<(), Trouble> {
        let (hand, to) = (&self.folder.hand, self.folder.object(&self.id));
        let failed = || cannot("write", &to);
        let (Some(half), Some(from)) = (to.parent(), self.path.parent()) else {
            return Err(Trouble::Gone { path: to });
        };
        self.folder.make(half, true)?;
        match hand.rename(&self.path, &to) {
            // Something that is no file of ours has its place.
            Err(e) if is_stray(&e) => {
                self.folder.put_aside(&to, Damage::Stray)?;
                hand.rename(&self.path, &to)
            }
            done => done,
        }
        .map_err(failed())?;
        hand.sync_folder(half).and_then(|()| hand.sync_folder(from)).map_err(failed())
    }

    /// Its bytes are wrong: it goes to `aside/`, to be looked at.
    ///
    /// # Errors
    /// [`Trouble::Closed`]; the disk's.
    pub fn set_aside(&self, damage: Damage) -> Result<(), Trouble> {
        let mut gate = self.closing()?;
        self.folder.put_aside(&self.path, damage)?;
        *gate = None;
        Ok(())
    }

    /// Of no use to anybody: the file is removed.
    ///
    /// # Errors
    /// [`Trouble::Closed`]; the disk's.
    pub fn discard(&self) -> Result<(), Trouble> {
        let mut gate = self.closing()?;
        self.folder.remove(&self.path)?;
        *gate = None;
        Ok(())
    }

    /// For reading, from [`Partial::offset`] on; good whatever becomes of the file's name.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where the body begins in the file.
    pub fn offset(&self) -> u64 {
        BODY
    }

    fn there(&self) -> MutexGuard<'_, There> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closing(&self) -> Result<std::sync::RwLockWriteGuard<'_, Option<Lock>>, Trouble> {
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        match *gate {
            Some(_) => Ok(gate),
            None => Err(Trouble::Closed { path: self.path.clone() }),
        }
    }

    /// Writes the next slot. One that was not written whole is written again by the next.
    fn say(&self, said: &mut Said, header: &Header) -> Result<(), Trouble> {
        let slot = record::write(header, said.sequence)?;
        let written = self.folder.hand.write(&self.file, record::place(said.sequence), &slot);
        written.map_err(cannot("write the header of", &self.path))?;
        said.sequence = said.sequence.saturating_add(1);
        Ok(())
    }

    fn sync(&self, said: &mut Said) -> Result<(), Trouble> {
        if said.lost {
            return Err(Trouble::Lost { path: self.path.clone() });
        }
        let synced = self.folder.hand.sync(&self.file);
        said.lost = synced.is_err();
        synced.map_err(cannot("sync", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeVal;

    use super::*;

    /// What a hit and a commit cost, in microseconds of processor; a table to read, run by hand:
    /// `cargo test --release --lib mirror::disk::tests::cost -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        let header = |n: usize| (format!("x-header-{n}"), "Sat, 21 Nov 2026 10:00:00 GMT".into());
        let about = About {
            mirror: "debian".into(),
            path: "pool/main/l/linux/linux-image-6.1.0-13-amd64_6.1.55-1_amd64.deb".into(),
            url: "http://deb.example/debian/pool/main/l/linux/linux-image-6.1.0.deb".into(),
            status: 200,
            headers: (0..8).map(header).collect(),
            request: vec![],
            digest: Some(super::super::Digest::sha256(b"")),
            len: Some(2000),
            requested: Timestamp::UNIX_EPOCH,
            received: Timestamp::UNIX_EPOCH,
            pinned: false,
        };
        let ids: Vec<Id> = (0..1000).map(|n| Id::named("m", &format!("{n}"), "")).collect();
        let measured = |what: &str, rounds: usize, f: &mut dyn FnMut(&Id)| {
            let (wall, before) = (SystemTime::now(), processor());
            (0..rounds).for_each(|n| f(&ids[n * 7 % ids.len()]));
            let each = |d: Duration| d.as_nanos() as f64 / 1000.0 / rounds as f64;
            let cpu = each(processor() - before);
            println!(
                "{what:<30} {cpu:>8.1} us processor {:>8.1} us wall",
                each(wall.elapsed().unwrap())
            );
        };
        measured("begin, write 2 KB, commit", 1000, &mut |id| {
            let partial = disk.begin(id, about.clone()).unwrap();
            partial.write_at(0, &[7; 2000]).unwrap();
            partial.commit(about.clone()).unwrap();
        });
        measured("get", 100_000, &mut |id| drop(disk.get(id).unwrap().unwrap()));
        let open = |id: &Id| open(&disk.0.object(id), false).unwrap();
        measured("  open and close", 100_000, &mut |id| drop(open(id)));
        let file = open(&ids[0]);
        measured("  header block, read and parsed", 100_000, &mut |_| {
            drop(look_complete(&file, &ids[0]).unwrap().unwrap());
        });
        measured("  look at the name", 100_000, &mut |id| {
            fs::metadata(disk.0.object(id)).unwrap();
        });
        measured("rewrite", 200, &mut |id| disk.rewrite(id, &about).unwrap());
        measured("all of them, listed", 100, &mut |_| disk.each(|found| drop(found.unwrap())));
    }

    fn processor() -> Duration {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let time = |t: TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
        time(usage.user_time()) + time(usage.system_time())
    }
}
