//! The shell around files and dice.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};

use super::Error;

/// More than any chain needs.
const LIMIT: u64 = 256 * 1024;

/// Which of the two roots.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Ecdsa,
    Rsa,
}

impl Kind {
    /// In the order in which clients get them.
    pub const BOTH: [Kind; 2] = [Kind::Ecdsa, Kind::Rsa];

    pub fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Kind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            // 2048 bits.
            Kind::Rsa => &PKCS_RSA_SHA256,
        }
    }

    /// Certificate and key.
    pub fn paths(self, dir: &Path) -> (PathBuf, PathBuf) {
        match self {
            Kind::Ecdsa => (dir.join("ca.pem"), dir.join("ca.key")),
            Kind::Rsa => (dir.join("ca-rsa.pem"), dir.join("ca-rsa.key")),
        }
    }
}

/// A folder for keys, made where there is none. In one where others may write they could put their
/// own root in the place of ours.
pub fn folder(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot("make", path))?;
    if let Some(parent) = path.parent() {
        sync_folder(parent)?;
    }
    private_folder(path)
}

/// The same for a folder that may not be there yet, which is no fault.
pub fn private_folder(path: &Path) -> Result<(), Error> {
    let meta = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(cannot("look at", path))?,
    };
    owned(path, &meta)?;
    match meta.mode() & 0o7777 {
        mode if mode & 0o022 != 0 => Err(Error::OpenFolder { path: path.into(), mode }),
        _ => Ok(()),
    }
}

/// A text file, or `None` where there is none.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    open(path)?.map(|file| text(path, file)).transpose()
}

/// A private key, or `None` where there is none. The file that was opened is the one that is
/// looked at, so nobody can swap it in between.
pub fn read_key(path: &Path) -> Result<Option<String>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let meta = file.metadata().map_err(cannot("look at", path))?;
    match meta.mode() & 0o7777 {
        mode if mode & 0o077 != 0 => return Err(Error::Exposed { path: path.into(), mode }),
        _ => owned(path, &meta)?,
    }
    text(path, file).map(Some)
}

/// Root can read everything anyway: what belongs to root is as private as what is ours.
fn owned(path: &Path, meta: &Metadata) -> Result<(), Error> {
    let us = nix::unistd::geteuid().as_raw();
    match meta.uid() {
        owner if owner == us || owner == 0 => Ok(()),
        owner => Err(Error::Owner { path: path.into(), owner, us }),
    }
}

/// Not blocking: a named pipe in the place of a key must not hang the start.
fn open(path: &Path) -> Result<Option<File>, Error> {
    match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(cannot("open", path)),
    }
}

fn text(path: &Path, file: File) -> Result<String, Error> {
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text).map_err(cannot("read", path))?;
    match text.len() as u64 {
        0..=LIMIT => Ok(text),
        _ => Err(Error::TooLarge { path: path.into(), limit: LIMIT }),
    }
}

/// Writes a file whole or not at all, on the disk when this returns, readable by its owner alone
/// from its first byte.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(cannot("remove", &new)(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(cannot("make", &new))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(cannot("write", &new))?;
    fs::rename(&new, path).map_err(cannot("write", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|f| f.sync_all()).map_err(cannot("write", path))
}

fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { what, path: path.into(), source }
}

/// Bytes for a serial number.
pub fn dice() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Random(e.to_string()))?;
    Ok(bytes)
}
