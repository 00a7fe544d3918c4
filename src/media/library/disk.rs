//! Opens images, looks whether they are still what they were, and keeps what was found in them.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::super::source::Source;
use super::super::{Bad, Found, Refused};
use super::Tree;

/// An image's path is looked at no more often than this: another one may be there by now.
const LOOK: Duration = Duration::from_secs(1);
/// What nobody has asked for in so long is forgotten when something new is read.
const KEPT: Duration = Duration::from_secs(3600);

/// An image that is open.
#[derive(Debug)]
pub struct Image {
    pub path: PathBuf,
    pub file: Arc<File>,
    /// What it was when it was opened.
    pub is: Identity,
}

/// What tells one version of an image from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub dev: u64,
    pub ino: u64,
    pub len: u64,
    /// Of its last change, in nanoseconds since 1970.
    pub modified: i128,
    /// The same of its inode: whoever writes can set the other one back, but not this.
    pub changed: i128,
}

impl Identity {
    fn of(meta: &Metadata) -> Identity {
        let nanos = |s: i64, n: i64| i128::from(s) * 1_000_000_000 + i128::from(n);
        Identity {
            dev: meta.dev(),
            ino: meta.ino(),
            len: meta.len(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Image {
    /// # Errors
    /// [`Refused::Gone`] and [`Refused::Image`].
    pub fn open(path: &Path) -> Result<Image, Refused> {
        let shown = || path.display().to_string();
        let refused = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Refused::Gone(shown()),
            _ => Refused::Image(shown(), Bad::Unreadable(e.to_string())),
        };
        // Not to hang on a FIFO.
        let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
        let file = File::options().read(true).custom_flags(flags).open(path).map_err(refused)?;
        let meta = file.metadata().map_err(refused)?;
        if !meta.is_file() {
            return Err(Refused::Image(shown(), Bad::NoFile));
        }
        Ok(Image { path: path.into(), file: Arc::new(file), is: Identity::of(&meta) })
    }

    /// Whether nobody has written to it since.
    pub fn is_intact(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| Identity::of(&meta) == self.is)
    }

    /// The same, and it has not been removed.
    pub fn is_there(&self) -> bool {
        let there = |meta: &Metadata| meta.nlink() > 0 && Identity::of(meta) == self.is;
        self.file.metadata().is_ok_and(|meta| there(&meta))
    }
}

impl Source for Image {
    fn size(&self) -> u64 {
        self.is.len
    }

    fn read(&self, to: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(to, at)
    }
}

/// Keeps what was learned of images, so that each is walked once. Shared by all that serve.
#[derive(Debug, Default)]
pub struct Library {
    sets: Mutex<HashMap<Vec<PathBuf>, Arc<Set>>>,
}

/// Images that are laid over one another. Whoever asks while they are being read waits.
#[derive(Debug, Default)]
struct Set(RwLock<Option<Known>>);

#[derive(Debug)]
struct Known {
    /// What was at the paths.
    ids: Vec<Option<Identity>>,
    /// When that was looked at last.
    looked: Instant,
    tree: Result<Arc<Tree>, Refused>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    /// The tree of these images; the first one that has a path wins. Walks them where that was not
    /// done yet, or one of them has changed since.
    ///
    /// # Errors
    /// [`Refused`], by name.
    pub fn tree(&self, images: &[PathBuf]) -> Result<Arc<Tree>, Refused> {
        let set = self.set(images);
        let mut known = set.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|k| k.looked.elapsed() < LOOK) {
            return known.tree.clone();
        }
        let ids: Vec<_> = images.iter().map(|path| identity(path)).collect();
        if let Some(known) = known.as_mut().filter(|k| k.ids == ids && k.holds()) {
            known.looked = Instant::now();
            return known.tree.clone();
        }
        let tree = read(images).map(Arc::new);
        let ids = match &tree {
            // What was opened may be newer than what was looked at.
            Ok(tree) => tree.images().iter().map(|image| Some(image.is)).collect(),
            Err(_) => ids,
        };
        *known = Some(Known { ids, looked: Instant::now(), tree: tree.clone() });
        tree
    }

    fn set(&self, images: &[PathBuf]) -> Arc<Set> {
        let mut sets = lock(&self.sets);
        if let Some(set) = sets.get(images) {
            return set.clone();
        }
        sets.retain(|_, set| match set.0.try_read() {
            Ok(known) => known.as_ref().is_some_and(|k| k.looked.elapsed() < KEPT),
            // It is being read.
            Err(_) => true,
        });
        sets.entry(images.to_vec()).or_default().clone()
    }

    /// What is at `path` of these images.
    ///
    /// # Errors
    /// [`Refused`], by name.
    pub fn resolve(&self, images: &[PathBuf], path: &Path) -> Result<Found, Refused> {
        match self.tree(images)?.resolve(path) {
            Err(Refused::Changed(_)) => {
                // It was seen before the second was over; what is there now is read at once.
                *self.set(images).0.write().unwrap_or_else(PoisonError::into_inner) = None;
                self.tree(images)?.resolve(path)
            }
            found => found,
        }
    }

    /// The same, if no disk and nobody else has to be waited for.
    pub fn resolve_now(&self, images: &[PathBuf], path: &Path) -> Option<Found> {
        let set = lock(&self.sets).get(images)?.clone();
        let known = set.0.try_read().ok()?;
        let known = known.as_ref().filter(|k| k.looked.elapsed() < LOOK)?;
        known.tree.as_ref().ok()?.resolve(path).ok()
    }
}

impl Known {
    /// Whether the same is found again where the paths are the same: not so where a permission or a
    /// disk was at fault.
    fn holds(&self) -> bool {
        match &self.tree {
            Ok(tree) => tree.images().iter().all(|image| image.is_there()),
            Err(Refused::Image(_, bad)) => !matches!(bad, Bad::Unreadable(_)),
            Err(_) => false,
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|meta| Identity::of(&meta))
}

/// More than 255 images have no number in the index.
fn read(images: &[PathBuf]) -> Result<Tree, Refused> {
    let opened =
        images.iter().take(usize::from(u8::MAX)).map(|path| Image::open(path).map(Arc::new));
    Tree::of(opened.collect::<Result<_, _>>()?)
}
