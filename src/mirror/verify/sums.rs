//! Lists of digests: `HEX  name`, `HEX *name` and `SHA256 (name) = HEX`.

use super::table::{ROWS, Table};
use super::unpack::Unpacked;
use super::{Expect, Fault, paths};
use crate::mirror::Digest;

/// Names of lists beside the files they list or above them, the likeliest first. The `.asc` among
/// them is CentOS's: the list itself, clearsigned.
const LISTS: &[&str] = &[
    "SHA256SUMS",
    "sha256sum.txt",
    "sha256sums.txt",
    "CHECKSUM",
    "SHA256SUM",
    "sha256sum.txt.asc",
    "SHA512SUMS",
];
const OF_ONE: &[&str] = &[".sha256", ".sha512"];
const SIGNATURES: &[&str] = &[".gpg", ".sign", ".asc", ".sig"];

/// Whether a name is one of a list, of many files or of one.
pub fn is_list(name: &str) -> bool {
    LISTS.contains(&name)
        || name.ends_with("-CHECKSUM")
        || OF_ONE.iter().any(|e| name.len() > e.len() && name.ends_with(e))
}

pub fn is_signature(name: &str) -> bool {
    SIGNATURES.iter().any(|e| name.strip_suffix(e).is_some_and(is_list))
}

/// Where the signature of a list may be.
pub fn signatures(path: &str) -> Vec<String> {
    let named = SIGNATURES.iter().map(|e| format!("{path}{e}"));
    named.filter(|s| !is_list(paths::split(s).1)).collect()
}

/// Where the list that lists `path` may be: beside it, then above it.
pub fn lists(path: &str) -> Vec<String> {
    let beside = paths::split(path).0;
    let mut all: Vec<String> = LISTS.iter().map(|l| paths::join(beside, l)).collect();
    all.extend(OF_ONE.iter().map(|e| format!("{path}{e}")));
    // Arch: airootfs.sfs and airootfs.sha512.
    all.extend(path.strip_suffix(".sfs").map(|stem| format!("{stem}.sha512")));
    let above = paths::above(path).skip(1);
    all.extend(above.map(|folder| paths::join(folder, LISTS[0])));
    all
}

/// Adds to `table` what the list at `path` lists. Lines that name no digest that counts are passed
/// over: comments, and SHA-1.
pub fn read(path: &str, mut text: Unpacked<'_>, table: &mut Table) -> Result<(), Fault> {
    let (folder, name) = paths::split(path);
    let mut buffer = Vec::new();
    let mut weak = false;
    while let Some(line) = text.line(&mut buffer)? {
        let Ok(line) = std::str::from_utf8(line) else { return Err(Fault::NotSums) };
        let Some((hex, file)) = entry(line) else { continue };
        // A list of one file may have its digest alone.
        let alone = OF_ONE.iter().find_map(|e| name.strip_suffix(e)).filter(|_| file.is_empty());
        let Some(file) = paths::below(folder, alone.unwrap_or(file)) else { continue };
        match Digest::from_hex(hex) {
            Ok(digest) => table.add(&file, Expect { digest, size: None }),
            Err(_) => weak |= matches!(hex.len(), 32 | 40),
        }
        if table.len() > ROWS {
            return Err(Fault::TooMany(ROWS));
        }
    }
    table.settle();
    match table.len() {
        0 if weak => Err(Fault::WeakDigests),
        0 => Err(Fault::NotSums),
        _ => Ok(()),
    }
}

/// The digits and the name of a line.
fn entry(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_end();
    if let Some((head, hex)) = line.rsplit_once(") = ") {
        let (_, name) = head.split_once(" (")?;
        return Some((hex, name));
    }
    let (hex, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is_hex = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    // The second character tells text from binary, which are the same here.
    let name = rest.strip_prefix([' ', '*']).unwrap_or(rest);
    is_hex.then_some((hex, name))
}
