//! Reads what is to be imported.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FILE_LIMIT, FILES_LIMIT, Files, NoFile};

/// The disk, as far as one import may read it.
#[derive(Default)]
pub struct Disk {
    files: Cell<usize>,
    bytes: Cell<usize>,
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, NoFile> {
        let said = |e: io::Error| NoFile::Disk(format!("{}: {e}", path.display()));
        self.files.set(self.files.get() + 1);
        if self.files.get() > FILES_LIMIT {
            return Err(NoFile::TooMany);
        }
        // A pipe would be waited for.
        if !fs::metadata(path).map_err(said)?.is_file() {
            return Err(NoFile::Disk(format!("{} is no file", path.display())));
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|f| f.take(FILE_LIMIT as u64 + 1).read_to_end(&mut bytes))
            .map_err(said)?;
        if bytes.len() > FILE_LIMIT {
            return Err(NoFile::TooLong);
        }
        self.bytes.set(self.bytes.get() + bytes.len());
        if self.bytes.get() > 2 * FILE_LIMIT {
            return Err(NoFile::TooMany);
        }
        text(&bytes)
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, NoFile> {
        let said = |e: io::Error| NoFile::Disk(format!("{}: {e}", dir.display()));
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(said)?.take(16 * FILES_LIMIT) {
            let path = entry.map_err(said)?.path();
            let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.is_file() {
                found.push(path);
            }
        }
        found.sort();
        if found.len() > FILES_LIMIT {
            return Err(NoFile::TooMany);
        }
        Ok(found)
    }

    fn exists(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn here(&self) -> PathBuf {
        // A folder that is gone has no files: what is relative is not found then.
        std::env::current_dir().unwrap_or_default()
    }
}

/// Comments are in any encoding: what is no UTF-8 is shown as such. A NUL is in no text.
fn text(bytes: &[u8]) -> Result<String, NoFile> {
    match bytes.contains(&0) {
        true => Err(NoFile::NoText),
        false => Ok(String::from_utf8_lossy(bytes).trim_start_matches('\u{feff}').to_string()),
    }
}
