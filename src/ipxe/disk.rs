//! The operator's own loaders, read and kept for as long as the file does not change: a hall of
//! machines shares one copy.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::{Bytes, Loader, NoLoader};

const LIMIT: u64 = 16 << 20;
/// Loaders kept in memory; a folder has one for each architecture.
const KEPT: usize = 16;

/// What tells that a file is still the same.
type Stamp = (Option<SystemTime>, u64);

static CACHE: LazyLock<Mutex<HashMap<PathBuf, (Stamp, Loader)>>> = LazyLock::new(Mutex::default);

/// The loader at `path`, `None` where there is no such file.
pub fn read(path: &Path, name: &str) -> Result<Option<Loader>, NoLoader> {
    let wrong = |e: io::Error| NoLoader::Unreadable(name.into(), e.to_string());
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(e)),
    };
    if !meta.is_file() {
        return Err(NoLoader::Unreadable(name.into(), "it is not a file".into()));
    }
    if meta.len() > LIMIT {
        return Err(NoLoader::TooLarge(name.into()));
    }
    let stamp = (meta.modified().ok(), meta.len());
    let mut cache = CACHE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((kept, loader)) = cache.get(path)
        && *kept == stamp
    {
        return Ok(Some(loader.clone()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(LIMIT).read_to_end(&mut bytes)).map_err(wrong)?;
    let sha256 = Sha256::digest(&bytes).into();
    let loader = Loader { name: name.into(), bytes: Bytes::Read(Arc::from(bytes)), sha256 };
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(path.into(), (stamp, loader.clone()));
    Ok(Some(loader))
}
