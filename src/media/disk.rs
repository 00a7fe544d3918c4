//! Opens files below a folder, and lists folders.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

use super::{Entry, Found, LISTED, Library, Refused, clean_plain};
use crate::config::{self, Look, Root, installers};

/// What is at `path` below `root`. `path` is clean, see [`super::clean`].
///
/// # Errors
/// [`Refused`], by name.
pub fn resolve(root: &Path, path: &Path) -> Result<Found, Refused> {
    let file = open(root, path)?;
    let meta = file.metadata().map_err(unreadable)?;
    if meta.is_file() {
        Ok(Found::File(file, meta.len()))
    } else if meta.is_dir() {
        list(root, path, &file).map(Found::Dir).map_err(unreadable)
    } else {
        Err(Refused::NotAFile)
    }
}

/// A file, if nothing has to be waited for: all of its path is in the kernel's memory. `None` says
/// no more than that [`resolve`] has to look. `path` is clean, as there.
pub fn resolve_now(root: &Path, path: &Path) -> Option<(File, Metadata)> {
    // Linux 5.12; nix does not name it.
    const RESOLVE_CACHED: u64 = 0x20;
    let cached = ResolveFlag::from_bits_retain(RESOLVE_CACHED);
    // Without a link on all of the way a clean path cannot lead out, and one call does.
    let direct =
        || openat2(AT_FDCWD, &root.join(path), how(cached | ResolveFlag::RESOLVE_NO_SYMLINKS));
    let below = || {
        let dir = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(cached);
        openat2(openat2(AT_FDCWD, root, dir)?, path, how(cached | INSIDE))
    };
    let file = File::from(direct().or_else(|_| below()).ok()?);
    let meta = file.metadata().ok()?;
    meta.is_file().then_some((file, meta))
}

/// The file of that name below `dir`, and its size; `name` as a TFTP client writes it, with or
/// without a leading slash.
///
/// # Errors
/// `NotFound` for what is not there, or no regular file; `PermissionDenied` for what leads out.
pub fn open_beneath(dir: &Path, name: &str) -> io::Result<(File, u64)> {
    let kind = |refused: Refused| {
        let kind = match refused {
            Refused::NotThere | Refused::NotAFile => io::ErrorKind::NotFound,
            Refused::Outside | Refused::BadName => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, refused)
    };
    match clean_plain(name).and_then(|path| resolve(dir, &path)).map_err(kind)? {
        Found::File(file, len) => Ok((file, len)),
        Found::Dir(_) | Found::Image(_) => Err(kind(Refused::NotAFile)),
    }
}

/// `openat2` with RESOLVE_BENEATH (Linux 5.6): the kernel itself refuses whatever would leave the
/// folder at any point of the walk, so nobody can change a link between a check and the opening.
fn open(root: &Path, path: &Path) -> Result<File, Refused> {
    let base = File::open(root).map_err(refused)?;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // EAGAIN says that something was renamed meanwhile, and the walk cannot be vouched for.
    for _ in 0..8 {
        match openat2(&base, path, how(INSIDE)) {
            Ok(fd) => return Ok(File::from(fd)),
            Err(Errno::EAGAIN) => {}
            Err(Errno::ENOSYS | Errno::EPERM) => return open_checked(root, path),
            Err(errno) => return Err(refused(errno.into())),
        }
    }
    Err(Refused::Unreadable("it is being moved".into()))
}

const INSIDE: ResolveFlag = ResolveFlag::RESOLVE_BENEATH.union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

fn how(resolve: ResolveFlag) -> OpenHow {
    // Not to hang on a FIFO that lies in the folder.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenHow::new().flags(flags).resolve(resolve)
}

/// Where the kernel or a container's filter has no `openat2`: the canonical path must be below the
/// canonical folder, and its last part is opened without following a link.
pub(super) fn open_checked(root: &Path, path: &Path) -> Result<File, Refused> {
    let root = root.canonicalize().map_err(refused)?;
    let full = root.join(path).canonicalize().map_err(refused)?;
    if !full.starts_with(&root) {
        return Err(Refused::Outside);
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let opened = File::options().read(true).custom_flags(flags.bits()).open(full);
    opened.map_err(refused)
}

fn refused(e: io::Error) -> Refused {
    match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => Refused::NotThere,
        Errno::EXDEV => Refused::Outside,
        // A socket.
        Errno::ENXIO => Refused::NotAFile,
        _ => unreadable(e),
    }
}

fn unreadable(e: io::Error) -> Refused {
    Refused::Unreadable(e.to_string())
}

/// Hidden files too: what copies a tree by its listings needs `.treeinfo` and `.disk/info` (wget -m
/// knows no other way). What a link leads to is looked up as it would be served: not at all, if it
/// leads out.
fn list(root: &Path, path: &Path, dir: &File) -> io::Result<Vec<Entry>> {
    // The folder that is open, wherever its name points by now.
    let opened = format!("/proc/self/fd/{}", dir.as_raw_fd());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(opened)?.take(LISTED) {
        let entry = entry?;
        let name = entry.file_name();
        let Ok(mut meta) = entry.metadata() else { continue };
        if meta.is_symlink() {
            match open(root, &path.join(&name)).map(|target| target.metadata()) {
                Ok(Ok(target)) => meta = target,
                _ => continue,
            }
        }
        if meta.is_file() || meta.is_dir() {
            entries.push(Entry { name, is_dir: meta.is_dir(), size: meta.len() });
        }
    }
    entries.sort();
    Ok(entries)
}

/// A folder, as systems are recognised in it.
struct Below(PathBuf);

impl installers::Tree for Below {
    fn volume(&self) -> Option<String> {
        None
    }

    fn text(&self, path: &str) -> Option<String> {
        let Ok(Found::File(file, _)) = resolve(&self.0, &clean_plain(path).ok()?) else {
            return None;
        };
        let mut bytes = Vec::new();
        file.take(installers::TEXT_LIMIT as u64).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn has(&self, path: &str) -> bool {
        clean_plain(path).is_ok_and(|path| resolve(&self.0, &path).is_ok())
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

/// The tree of images.
struct Images(Arc<super::Tree>);

impl installers::Tree for Images {
    fn volume(&self) -> Option<String> {
        Some(self.0.volume().to_string())
    }

    fn text(&self, path: &str) -> Option<String> {
        let bytes = self.0.read_small(path, installers::TEXT_LIMIT)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn has(&self, path: &str) -> bool {
        self.0.has(path)
    }

    fn size(&self) -> Option<u64> {
        self.0.images().first().map(|image| image.is.len)
    }
}

/// The images in a folder, in the order of their names.
///
/// # Errors
/// A sentence: the folder cannot be read.
pub fn images(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |e: io::Error| format!("{} cannot be read: {e}", dir.display());
    let all = std::fs::read_dir(dir).map_err(wrong)?.filter_map(Result::ok).take(LISTED);
    let is_image = |path: &PathBuf| {
        let end = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("iso"));
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        end && !hidden && path.is_file()
    };
    let mut images: Vec<PathBuf> = all.map(|e| e.path()).filter(is_image).collect();
    images.sort();
    Ok(images)
}

impl Look for Library {
    fn tree(&self, root: &Root) -> Result<Box<dyn installers::Tree>, String> {
        let images = match root {
            Root::Dir(dir) => return Ok(Box::new(Below(dir.clone()))),
            Root::Images(images) => images,
        };
        let tree = Library::tree(self, images).map_err(|why| why.to_string())?;
        Ok(Box::new(Images(tree)))
    }

    fn images(&self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        images(dir)
    }

    fn installers(&self, dir: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
        config::disk::read_installers(dir)
    }
}
