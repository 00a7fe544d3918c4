//! Paths and what they must be, small: a suite has 70,000 packages.

use sha2::{Digest as _, Sha256};

use super::Expect;
use crate::mirror::Digest;

/// The most paths that a set lists.
pub const ROWS: usize = 4_000_000;

/// Half a SHA-256 of a path: nobody finds two paths with the same one.
type Key = [u8; 16];

/// Rows of the two sizes of digest, each sorted by key.
#[derive(Debug, Default)]
pub struct Table {
    short: Vec<Row<32>>,
    long: Vec<Row<64>>,
}

#[derive(Debug)]
struct Row<const N: usize> {
    key: Key,
    digest: [u8; N],
    /// `UNKNOWN`, or in bytes.
    size: u64,
}

const UNKNOWN: u64 = u64::MAX;

fn key(path: &str) -> Key {
    let digest: [u8; 32] = Sha256::digest(path.as_bytes()).into();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

impl Table {
    /// One path more; `settle` before anything is found.
    pub fn add(&mut self, path: &str, expect: Expect) {
        let (key, size) = (key(path), expect.size.unwrap_or(UNKNOWN));
        match expect.digest {
            Digest::Sha256(digest) => self.short.push(Row { key, digest, size }),
            Digest::Sha512(digest) => self.long.push(Row { key, digest, size }),
        }
    }

    pub fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    /// Takes the rows of `other`; what was there first stays.
    pub fn merge(&mut self, other: Table) {
        self.short.extend(other.short);
        self.long.extend(other.long);
        self.settle();
    }

    /// Sorts, and keeps of a path that is listed twice what was listed first.
    pub fn settle(&mut self) {
        settle(&mut self.short);
        settle(&mut self.long);
    }

    pub fn find(&self, path: &str) -> Option<Expect> {
        let key = key(path);
        let short = find(&self.short, key).map(|r| (Digest::Sha256(r.digest), r.size));
        let (digest, size) =
            short.or_else(|| find(&self.long, key).map(|r| (Digest::Sha512(r.digest), r.size)))?;
        Some(Expect { digest, size: (size != UNKNOWN).then_some(size) })
    }
}

fn settle<const N: usize>(rows: &mut Vec<Row<N>>) {
    rows.sort_by_key(|r| r.key);
    rows.dedup_by_key(|r| r.key);
    rows.shrink_to_fit();
}

fn find<const N: usize>(rows: &[Row<N>], key: Key) -> Option<&Row<N>> {
    rows.binary_search_by_key(&key, |r| r.key).ok().map(|at| &rows[at])
}
