//! Reads lists and images.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use md5::{Digest as _, Md5};

use super::{Bad, Implant, Proof, is_list, listed};
use crate::model::Digest;
use crate::model::digest::Hasher;

/// Bytes of a list.
const LIST: u64 = 1 << 20;
/// Files beside the image that are looked at.
const BESIDE: usize = 10_000;
/// Bytes between two tellings of how far it is.
const STEP: usize = 1 << 20;

/// Whether the image at `path` is whole. `told` hears how many bytes of how many were read.
///
/// # Errors
/// It is not; or it cannot be read.
pub fn check(path: &Path, told: &mut dyn FnMut(u64, u64)) -> Result<Proof, Bad> {
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    if let Some((list, should)) = beside(path) {
        let mut hasher = Hasher::like(should);
        read(&file, size, told, |bytes, _| hasher.update(bytes))?;
        let is = hasher.finish();
        return match is == should {
            true => Ok(Proof::Listed(list)),
            false => Err(Bad::Listed { list, is: is.to_string(), should: should.to_string() }),
        };
    }
    let Some(implant) = implanted(&file).filter(|i| i.len <= size) else { return Ok(Proof::None) };
    let mut hasher = Md5::new();
    read(&file, implant.len, told, |bytes, at| {
        implant.blank(bytes, at);
        hasher.update(bytes);
    })?;
    let is: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    match is == implant.md5 {
        true => Ok(Proof::Implanted),
        false => Err(Bad::Implanted { is, should: implant.md5 }),
    }
}

fn unreadable(e: io::Error) -> Bad {
    Bad::Unreadable(e.to_string())
}

/// All of the first `len` bytes.
fn read(
    file: &File,
    len: u64,
    told: &mut dyn FnMut(u64, u64),
    mut each: impl FnMut(&mut [u8], u64),
) -> Result<(), Bad> {
    let mut bytes = vec![0; STEP];
    let mut at = 0;
    while at < len {
        let most = usize::try_from(len - at).unwrap_or(STEP).min(STEP);
        file.read_exact_at(&mut bytes[..most], at).map_err(unreadable)?;
        each(&mut bytes[..most], at);
        at += most as u64;
        told(at, len);
    }
    Ok(())
}

/// The list that names the image, and what it says; of several the first by name.
fn beside(image: &Path) -> Option<(PathBuf, Digest)> {
    let name = image.file_name().and_then(OsStr::to_str)?;
    let folder = image.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = fs::read_dir(folder).ok()?.take(BESIDE).flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|n| is_list(n, name)) && path.is_file()
    };
    let mut lists: Vec<PathBuf> = all.filter(is_one).collect();
    lists.sort();
    lists.into_iter().find_map(|list| {
        let mut text = Vec::new();
        File::open(&list).ok()?.take(LIST).read_to_end(&mut text).ok()?;
        let digest = listed(&String::from_utf8_lossy(&text), name)?;
        Some((list, digest))
    })
}

/// What the first primary volume descriptor holds (ECMA-119 8.4).
fn implanted(file: &File) -> Option<Implant> {
    let mut sector = [0; 2048];
    for n in 16u64..80 {
        file.read_exact_at(&mut sector, n * 2048).ok()?;
        match (&sector[1..6], sector[0]) {
            (b"CD001", 1) => return Implant::read(&sector, n * 2048),
            (b"CD001", kind) if kind != 255 => {}
            _ => return None,
        }
    }
    None
}
