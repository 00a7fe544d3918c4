//! A tree of files out of folders: a path that came from the network to an open file.
//!
//! 1. [`clean`] (or [`clean_plain`]) makes a relative path of a name, or refuses it.
//! 2. [`resolve`] opens it below the folder; the kernel keeps it there, symbolic links included.

mod disk;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::config::Config;
use crate::model::profile::Source;
use crate::model::{Profile, Why};

pub use disk::{open_beneath, resolve, resolve_now};

/// The longest path, PATH_MAX of Linux.
const PATH_LIMIT: usize = 4096;
/// Entries of a folder that are listed.
pub const LISTED: usize = 10_000;

/// What a path stands for.
#[derive(Debug)]
pub enum Found {
    /// A regular file and its size.
    File(File, u64),
    /// A folder's entries by name, hidden ones left out.
    Dir(Vec<Entry>),
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
}

impl Why for Refused {
    fn name(&self) -> &'static str {
        match self {
            Refused::NotThere => "no-such-file",
            Refused::Outside => "outside-its-folder",
            Refused::BadName => "bad-path",
            Refused::NotAFile => "not-a-file",
            Refused::Unreadable(_) => "unreadable-file",
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
pub fn missing(config: &Config, profile: &Profile) -> Vec<Missing> {
    let why = |folder: &str, path: &str| {
        let Some(folder) = config.folder(folder) else {
            return Some("there is no [[files]] of that name".to_string());
        };
        match clean_plain(path).and_then(|path| resolve(&folder.dir, &path)) {
            Ok(Found::File(..)) => None,
            Ok(Found::Dir(_)) => Some("it is a folder".into()),
            Err(refused) => Some(format!("{refused} (in {})", folder.dir.display())),
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
        Source::Mirror { .. } | Source::Url(_) => None,
    };
    std::iter::once(&profile.kernel).chain(&profile.initrds).filter_map(check).collect()
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
        match resolve(root, &clean(path)?)? {
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
        assert_eq!(read(&root, "").unwrap(), "inside sub ", "but only what leads somewhere listed");
        assert_eq!(read(&root, "out"), Err(Refused::Outside));
        assert_eq!(read(&root, "sub/up/secret"), Err(Refused::Outside));
        assert!(matches!(read(&root, "loop"), Err(Refused::Unreadable(_))));
        assert_eq!(read(&root, "pipe"), Err(Refused::NotAFile), "and it does not block");
        let now = |path| disk::resolve_now(&root, Path::new(path)).map(|(_, meta)| meta.len());
        assert_eq!((now("inside"), now("sub/back")), (Some(1), Some(1)));
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
