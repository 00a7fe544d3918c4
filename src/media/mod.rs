//! A tree of files out of folders: a path that came from the network to an open file.
//!
//! 1. [`clean`] (or [`clean_plain`]) makes a relative path of a name, or refuses it.
//! 2. [`resolve`] opens it below the folder; the kernel keeps it there, symbolic links included.

mod disk;
mod iso;
mod library;
mod overlay;
mod source;
pub mod sums;
mod tree;
mod udf;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use percent_encoding::percent_decode_str;

use crate::config::{Config, Root};
use crate::model::profile::Source;
use crate::model::{Profile, Why};

pub use disk::{images, open_beneath};
pub use library::{Identity, Image, Library, Tree};
pub use tree::Odd;

/// The longest path, PATH_MAX of Linux.
const PATH_LIMIT: usize = 4096;
/// Entries of a folder that are listed.
pub const LISTED: usize = 10_000;

/// What a path stands for.
#[derive(Debug)]
pub enum Found {
    /// A regular file and its size.
    File(File, u64),
    /// A file in an image.
    Image(Stretches),
    /// A folder's entries by name.
    Dir(Vec<Entry>),
}

/// Where a file is in an image that is open.
#[derive(Clone, Debug)]
pub struct Stretches {
    pub image: Arc<Image>,
    /// In bytes.
    pub len: u64,
    /// The time of its record, as far as that has one.
    pub modified: Option<SystemTime>,
    pub parts: tree::Parts,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Of its first byte in the image; `None`: it is recorded nowhere, and is zeros.
    pub offset: Option<u64>,
    /// In bytes.
    pub len: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: OsString,
    pub is_dir: bool,
    pub size: u64,
}

/// Why a path is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("there is no such file")]
    NotThere,
    #[error("the path leads out of its folder")]
    Outside,
    #[error("the path has a character that no path of ours has, or is too long")]
    BadName,
    #[error("it is neither a file nor a folder")]
    NotAFile,
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("its symbolic links go round in a circle, or are more than 40")]
    Links,
    #[error("{0} has changed while it was being read: ask again")]
    Changed(String),
    #[error("{0} is gone: put it back, or take it out of the configuration")]
    Gone(String),
    #[error("{0} {1}")]
    Image(String, Bad),
    #[error(
        "{0}: {1}, so it cannot be served out of the image: copy the image's files to a folder"
    )]
    Odd(String, Odd),
}

/// What is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error(
        "is no image that can be read: neither an ISO 9660 volume nor a UDF one begins in it. Is it \
         packed, or the image of a disk?"
    )]
    Unknown,
    #[error("is cut: it has {has} bytes and should have {should}. Fetch it again")]
    Cut { has: u64, should: u64 },
    #[error("is damaged: {0} is recorded beyond its end. Fetch it again")]
    Beyond(String),
    #[error("is damaged: {0} holds what no image has there. Fetch it again")]
    Damaged(String),
    #[error("is damaged: the folder {0} is recorded where another one is. Fetch it again")]
    Loop(String),
    #[error("has folders more than {limit} deep, or longer paths than 4096 bytes, below {path}: copy its files to a folder", limit = tree::DEPTH)]
    Deep { path: String },
    #[error("has more than {limit} files, too long names, or files in too many pieces: copy its files to a folder", limit = tree::ENTRIES)]
    Many,
    #[error("is damaged: its folder {0} would have {1} bytes. Fetch it again")]
    Absurd(String, u64),
    #[error(
        "is damaged: its lists of files lead to the same places again and again, at {0} at the \
         latest. Fetch it again"
    )]
    Endless(String),
    #[error("is a UDF volume of a kind that is not read ({0}): copy its files to a folder")]
    Kind(&'static str),
    #[error("is no regular file")]
    NoFile,
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl Why for Refused {
    fn name(&self) -> &'static str {
        match self {
            Refused::NotThere => "no-such-file",
            Refused::Outside => "outside-its-folder",
            Refused::BadName => "bad-path",
            Refused::NotAFile => "not-a-file",
            Refused::Unreadable(_) => "unreadable-file",
            Refused::Links => "too-many-links",
            Refused::Changed(_) => "image-changed",
            Refused::Gone(_) => "image-gone",
            Refused::Image(_, bad) => bad.name(),
            Refused::Odd(..) => "odd-file",
        }
    }
}

impl Why for Bad {
    fn name(&self) -> &'static str {
        match self {
            Bad::Unknown => "no-image",
            Bad::Cut { .. } => "image-cut",
            Bad::Beyond(_) => "beyond-its-image",
            Bad::Damaged(_) => "image-damaged",
            Bad::Loop(_) => "image-loops",
            Bad::Deep { .. } => "image-too-deep",
            Bad::Many => "image-too-large",
            Bad::Absurd(..) => "absurd-folder",
            Bad::Endless(_) => "image-endless",
            Bad::Kind(_) => "unknown-udf",
            Bad::NoFile => "image-no-file",
            Bad::Unreadable(_) => "unreadable-image",
        }
    }
}

/// A kernel or initrd of a profile that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: profile {profile}: {folder}/{path}: {why}")]
pub struct Missing {
    at: String,
    profile: String,
    folder: String,
    path: String,
    why: String,
}

impl Why for Missing {
    fn name(&self) -> &'static str {
        "missing-file"
    }
}

/// The files of a profile that are ours and not there; for `check`, and before each boot.
pub fn missing(library: &Library, config: &Config, profile: &Profile) -> Vec<Missing> {
    let why = |folder: &str, path: &str| {
        let Some(folder) = config.folder(folder) else {
            return Some("there is no [[files]] or [[media]] of that name".to_string());
        };
        match clean_plain(path).and_then(|path| resolve(library, &folder.root, &path)) {
            Ok(Found::File(..) | Found::Image(_)) => None,
            Ok(Found::Dir(_)) => Some("it is a folder".into()),
            Err(refused) => Some(format!("{refused} (in {})", folder.root)),
        }
    };
    let check = |source: &Source| match source {
        Source::Ours { folder, path } => why(folder, path).map(|why| Missing {
            at: profile.at.clone(),
            profile: profile.name.clone(),
            folder: folder.clone(),
            path: path.clone(),
            why,
        }),
        Source::Mirror { .. } | Source::Url(_) | Source::Answer(_) => None,
    };
    profile.sources().filter_map(check).collect()
}

/// What is at `path` of a tree of files. `path` is clean, see [`clean`].
///
/// # Errors
/// [`Refused`], by name.
pub fn resolve(library: &Library, root: &Root, path: &Path) -> Result<Found, Refused> {
    match root {
        Root::Dir(dir) => disk::resolve(dir, path),
        Root::Images(images) => library.resolve(images, path),
    }
}

/// The same, if nothing has to be waited for. `None` says no more than that [`resolve`] has to look.
pub fn resolve_now(library: &Library, root: &Root, path: &Path) -> Option<Found> {
    match root {
        Root::Dir(dir) => {
            disk::resolve_now(dir, path).map(|(file, meta)| Found::File(file, meta.len()))
        }
        Root::Images(images) => library.resolve_now(images, path),
    }
}

/// The relative path that a percent-encoded URL path (RFC 3986 section 2.1) means; `""` is the
/// folder itself. It is split before it is decoded, so that an encoded slash is no separator.
pub fn clean(url_path: &str) -> Result<PathBuf, Refused> {
    parts(url_path.split('/').map(|part| percent_decode_str(part).collect()))
}

/// The same for a name that is not encoded.
pub fn clean_plain(name: &str) -> Result<PathBuf, Refused> {
    parts(name.split('/').map(|part| part.as_bytes().to_vec()))
}

fn parts(parts: impl Iterator<Item = Vec<u8>>) -> Result<PathBuf, Refused> {
    let mut path = PathBuf::new();
    for part in parts {
        match &part[..] {
            b"" | b"." => {}
            b".." => return Err(Refused::Outside),
            bad if bad.iter().any(|b| *b == b'/' || b.is_ascii_control()) => {
                return Err(Refused::BadName);
            }
            _ => path.push(OsString::from_vec(part)),
        }
        if path.as_os_str().len() >= PATH_LIMIT {
            return Err(Refused::BadName);
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    #[test]
    fn a_path_is_cleaned_or_refused() {
        for (given, path) in [
            ("a/b", "a/b"),
            ("//a/./b/", "a/b"),
            ("%64ebian/linux", "debian/linux"),
            ("a%20b", "a b"),
            ("...", "..."),
            ("", ""),
        ] {
            assert_eq!(clean(given), Ok(PathBuf::from(path)), "{given}");
        }
        for out in ["..", "a/../b", "%2e%2e/x", "a/%2E./x", "/../etc/passwd"] {
            assert_eq!(clean(out), Err(Refused::Outside), "{out}");
        }
        for bad in ["a%2fb", "..%2f..%2fetc", "a%00b", "a%0ab", &"a/".repeat(3000)] {
            assert_eq!(clean(bad), Err(Refused::BadName), "{bad}");
        }
    }

    fn read(root: &Path, path: &str) -> Result<String, Refused> {
        match disk::resolve(root, &clean(path)?)? {
            Found::Image(_) => panic!("{path}: a folder has no images"),
            Found::File(mut file, len) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text.len() as u64, len);
                Ok(text)
            }
            Found::Dir(entries) => {
                Ok(entries.iter().map(|e| format!("{} ", e.name.display())).collect())
            }
        }
    }

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("sub/file"), "f").unwrap();
        std::fs::write(root.join(".treeinfo"), "t").unwrap();
        symlink("sub/file", root.join("inside")).unwrap();
        symlink("../sub/file", root.join("sub/back")).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink(dir.path(), root.join("sub/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();

        assert_eq!(read(&root, "inside").unwrap(), "f");
        assert_eq!(read(&root, "sub/back").unwrap(), "f");
        assert_eq!(read(&root, ".treeinfo").unwrap(), "t", "hidden files are served");
        let listed = read(&root, "").unwrap();
        assert_eq!(
            listed, ".treeinfo inside sub ",
            "and listed; of links those that lead somewhere"
        );
        assert_eq!(read(&root, "out"), Err(Refused::Outside));
        assert_eq!(read(&root, "sub/up/secret"), Err(Refused::Outside));
        assert!(matches!(read(&root, "loop"), Err(Refused::Unreadable(_))));
        assert_eq!(read(&root, "pipe"), Err(Refused::NotAFile), "and it does not block");
        let now = |path| disk::resolve_now(&root, Path::new(path)).map(|(_, meta)| meta.len());
        // None is always allowed: a rename anywhere on the system between two steps of the walk ends
        // it (EAGAIN), and beside other tests that happens. Among many tries one is undisturbed.
        let soon = |path| (0..10_000).find_map(|_| now(path));
        assert_eq!((soon("inside"), soon("sub/back")), (Some(1), Some(1)));
        for path in ["", "sub", "out", "sub/up/secret", "loop", "pipe", "none"] {
            assert_eq!(now(path), None, "{path}: not without a closer look");
        }
        assert_eq!(read(&root, "sub/file/x"), Err(Refused::NotThere));
        assert_eq!(read(&root, &"n".repeat(300)), Err(Refused::NotThere));
        assert_eq!(open_beneath(&root, "/sub/file").unwrap().1, 1);
        assert!(open_beneath(&root, "../secret").is_err());
        assert!(open_beneath(&root, "sub").is_err());
        // Where the kernel has no openat2, the same by canonical paths.
        for (path, stays) in [("inside", true), ("sub/back", true), ("out", false)] {
            assert_eq!(disk::open_checked(&root, Path::new(path)).is_ok(), stays, "{path}");
        }
    }
}
