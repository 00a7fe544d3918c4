//! What a mirror's own metadata says a file must be: no IO, no clock.
//!
//! 1. `role` and `roots` tell by names alone which file begins a set, and which set may list a path.
//! 2. `Trust` holds the certificates that may sign; `Set::new` checks a root's signature and reads
//!    only what was signed.
//! 3. `Set::find` answers what a path must be, or which index has to be read first.
//! 4. `Set::read` takes such an index, which the caller has checked against what `find` expected.
//!
//! A chain of digests leads from the signature to each file: Debian's InRelease to Packages and to
//! the installer's SHA256SUMS, RPM's repomd.xml to primary.xml. Where no keys are named the chain
//! begins at the mirror's own word. SHA-1 and MD5 are no links of it.

mod debian;
mod index;
mod paths;
mod rpm;
mod sums;
mod table;
mod trust;
mod unpack;

use std::fmt::Display;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;

use crate::config::Verify;
use crate::mirror::Digest;
use crate::model::Why;
use crate::model::event::plain;
use index::{Index, Kind};
use table::Table;
pub use trust::{BadKey, SIGNATURE_LIMIT, Trust};
use unpack::Packing;

/// The longest root, in bytes. Ubuntu's InRelease has 300 KiB.
pub const ROOT_LIMIT: usize = 32 << 20;
/// The most roots that `roots` names.
const ROOTS: usize = 12;

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    pub digest: Digest,
    /// In bytes, where the list says it.
    pub size: Option<u64>,
}

/// A file that begins a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Below the mirror: `dists/bookworm/InRelease`.
    pub path: String,
    /// Where its detached signature may be, the likeliest first: the first that is there counts.
    /// None: the signature is inside, or this kind of root has none (`.treeinfo`).
    pub signatures: Vec<String>,
}

/// What kind of file a path is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Begins a set: revalidated, never listed.
    Root,
    /// Of a root: goes with it.
    Signature,
    /// Right if a set lists it.
    Listed,
}

/// What a set says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Find {
    Listed(Expect),
    /// An index must be read first: fetch `fetch`, check it against `expect`, and give it to
    /// `Set::read` as `path`; or tell `Set::skip` that it can't be had. Then ask again.
    Read {
        path: String,
        /// The name by digest where the archive has such names, else `path`.
        fetch: String,
        expect: Expect,
    },
    NotListed,
}

/// Why a root or an index is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it is not signed, and keys are named for this mirror")]
    Unsigned,
    #[error(
        "text stands around what is signed, or the signed text is malformed (RFC 9580 section 7)"
    )]
    NotClearsigned,
    #[error("its signature is none that counts (RFC 9580 section 5.2)")]
    NotASignature,
    #[error("signed by {0}, which is none of the keys named for this mirror")]
    UnknownKey(String),
    #[error("the signature of key {0} does not fit: it was changed after it was signed")]
    BadSignature(String),
    #[error("signed over {0}, which proves nothing any more")]
    WeakSignature(String),
    #[error("key {0} was not valid when it signed: expired, or not made yet")]
    KeyExpired(String),
    #[error("key {0} was revoked")]
    KeyRevoked(String),
    #[error("the signature of key {0} has expired")]
    SignatureExpired(String),
    #[error("the signature of key {0} is of a day to come: one of the clocks is wrong")]
    SignatureAhead(String),
    #[error("it was valid until {0}: the mirror is stale")]
    Stale(Timestamp),
    #[error("not a Release file: {0}")]
    NotRelease(&'static str),
    #[error("it is the Release of {0}, and not of this folder")]
    OtherSuite(String),
    #[error("not the XML of a repository: {0}")]
    NotXml(String),
    #[error("not a .treeinfo: {0}")]
    NotTreeinfo(String),
    #[error("not a list of digests")]
    NotSums,
    #[error("it has MD5 or SHA-1 digests only, which prove nothing any more")]
    WeakDigests,
    #[error("it does not unpack: {0}")]
    Unpack(String),
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    #[error("it lists more than {0} files")]
    TooMany(usize),
    #[error("this set names no such index")]
    NotAnIndex,
    #[error("nothing is verified by metadata in this kind of mirror")]
    NotVerified,
}

/// What a crate says of an error, short and fit for a log: it may repeat what the mirror sent.
fn said(error: &impl Display) -> String {
    plain(&error.to_string(), 200)
}

impl Why for Fault {
    fn name(&self) -> &'static str {
        match self {
            Fault::Unsigned => "unsigned",
            Fault::NotClearsigned => "not-clearsigned",
            Fault::NotASignature => "not-a-signature",
            Fault::UnknownKey(_) => "unknown-key",
            Fault::BadSignature(_) => "bad-signature",
            Fault::WeakSignature(_) => "weak-signature",
            Fault::KeyExpired(_) => "key-expired",
            Fault::KeyRevoked(_) => "key-revoked",
            Fault::SignatureExpired(_) => "signature-expired",
            Fault::SignatureAhead(_) => "signature-ahead",
            Fault::Stale(_) => "stale-release",
            Fault::NotRelease(_) => "not-a-release",
            Fault::OtherSuite(_) => "another-suite",
            Fault::NotXml(_) => "not-xml",
            Fault::NotTreeinfo(_) => "not-treeinfo",
            Fault::NotSums => "not-sums",
            Fault::WeakDigests => "weak-digests",
            Fault::Unpack(_) => "does-not-unpack",
            Fault::TooLarge(_) => "metadata-too-large",
            Fault::TooMany(_) => "lists-too-many",
            Fault::NotAnIndex => "not-an-index",
            Fault::NotVerified => "not-verified",
        }
    }
}

/// What a root lists.
#[derive(Default)]
struct Listing {
    table: Table,
    indexes: Vec<Index>,
    dated: Option<Timestamp>,
    expires: Option<Timestamp>,
}

/// One verified root and what it lists. Its indexes are read as they are needed, and belong to it.
pub struct Set {
    root: Root,
    generation: Digest,
    dated: Option<Timestamp>,
    expires: Option<Timestamp>,
    known: RwLock<Known>,
}

struct Known {
    table: Table,
    indexes: Vec<Index>,
}

/// What the bytes of a root are, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Release,
    Repomd,
    Treeinfo,
    Sums,
}

fn form(kind: Verify, path: &str) -> Option<Form> {
    match kind {
        Verify::Debian if debian::is_root(path) => Some(Form::Release),
        Verify::Rpm if rpm::is_repomd(path) => Some(Form::Repomd),
        Verify::Rpm if rpm::is_treeinfo(path) => Some(Form::Treeinfo),
        Verify::Rpm if rpm::is_checksums(path) => Some(Form::Sums),
        Verify::Sums if sums::is_list(paths::split(path).1) => Some(Form::Sums),
        _ => None,
    }
}

/// By the name alone.
pub fn role(kind: Verify, path: &str) -> Role {
    let name = paths::split(path).1;
    let signature = match kind {
        Verify::Debian => path.strip_suffix(".gpg").is_some_and(debian::is_root),
        Verify::Rpm => rpm::is_signature(path),
        Verify::Sums => sums::is_signature(name),
        Verify::Plain => false,
    };
    match form(kind, path) {
        Some(_) => Role::Root,
        None if signature => Role::Signature,
        None => Role::Listed,
    }
}

/// Where the set that lists `path` may be rooted, the likeliest first, at most 12. None for
/// `pool/…`, which every set of the mirror may list, and for what is no path.
pub fn roots(kind: Verify, path: &str) -> Vec<Root> {
    let Some(path) = paths::normal(path) else { return Vec::new() };
    let mut roots = match kind {
        Verify::Debian => debian::roots(&path),
        Verify::Rpm => rpm::roots(&path),
        Verify::Sums => {
            let signed = |list: String| {
                let signatures = sums::signatures(&list);
                Root::new(list, signatures)
            };
            sums::lists(&path).into_iter().map(signed).collect()
        }
        Verify::Plain => Vec::new(),
    };
    roots.truncate(ROOTS);
    roots
}

impl Root {
    fn new(path: String, signatures: Vec<String>) -> Root {
        Root { path, signatures }
    }
}

impl Set {
    /// `signature`: the bytes of the first of `root.signatures` that is there. A root that was kept
    /// is read again with the time when it was fetched as `now`, or it could not be used offline
    /// after its Valid-Until.
    ///
    /// # Errors
    /// A `Fault`: the root is not believed.
    pub fn new(
        kind: Verify,
        root: &Root,
        bytes: &[u8],
        signature: Option<&[u8]>,
        trust: &Trust,
        now: Timestamp,
    ) -> Result<Set, Fault> {
        let form = form(kind, &root.path).ok_or(Fault::NotVerified)?;
        if bytes.len() > ROOT_LIMIT {
            return Err(Fault::TooLarge(ROOT_LIMIT as u64));
        }
        let inner = match form {
            Form::Release | Form::Sums => signed_text(bytes, signature, trust, now)?,
            Form::Repomd => {
                detached(bytes, signature, trust, now)?;
                None
            }
            Form::Treeinfo => None,
        };
        let bytes_of_it = inner.as_deref().map_or(bytes, str::as_bytes);
        let listing = match form {
            Form::Release => {
                let text = std::str::from_utf8(bytes_of_it)
                    .map_err(|_| Fault::NotRelease("it is no text"))?;
                debian::release(&root.path, text, now)?
            }
            Form::Repomd => rpm::repomd_xml(&root.path, bytes_of_it)?,
            Form::Treeinfo => rpm::treeinfo(&root.path, bytes_of_it)?,
            Form::Sums => {
                let mut listing = Listing::default();
                let text = unpack::unpack(Packing::Plain, bytes_of_it)?;
                sums::read(&root.path, text, &mut listing.table)?;
                listing
            }
        };
        Ok(Set {
            root: root.clone(),
            generation: Digest::sha256(bytes),
            dated: listing.dated,
            expires: listing.expires,
            known: RwLock::new(Known { table: listing.table, indexes: listing.indexes }),
        })
    }

    /// SHA-256 of the root file.
    pub fn generation(&self) -> Digest {
        self.generation
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// What a path must be. Each `Find::Read` is answered by `read` or `skip`, after which another
    /// index is named or none: it ends.
    pub fn find(&self, path: &str) -> Find {
        let Some(path) = paths::normal(path) else { return Find::NotListed };
        if rpm::is_treeinfo(&self.root.path) && !rpm::is_of_tree(&path) {
            return Find::NotListed;
        }
        let known = self.known();
        if let Some(expect) = known.table.find(&path) {
            return Find::Listed(expect);
        }
        index::next(&known.indexes, &path).map_or(Find::NotListed, |packed| Find::Read {
            path: packed.path.clone(),
            fetch: packed.fetch.clone(),
            expect: packed.expect,
        })
    }

    /// Takes an index file whose digest was checked. Takes seconds for a large one: not for a
    /// thread that serves.
    ///
    /// # Errors
    /// It is not what its name says, or unpacks to too much: it is not asked for again.
    pub fn read(&self, path: &str, bytes: &[u8]) -> Result<(), Fault> {
        let kind = {
            let known = self.known();
            let index = known.indexes.iter().find(|i| i.has(path)).ok_or(Fault::NotAnIndex)?;
            if index.was_read().is_some() {
                return Ok(());
            }
            index.kind.clone()
        };
        // Without the lock: others go on to find what is known.
        let mut table = Table::default();
        let done = parse(&kind, path, bytes, &mut table);
        let mut known = self.known_mut();
        let Known { table: all, indexes } = &mut *known;
        for index in indexes.iter_mut().filter(|i| i.has(path)) {
            if done.is_ok() { index.mark_read(path) } else { index.skip(path) }
        }
        done?;
        if all.len() + table.len() > table::ROWS {
            return Err(Fault::TooMany(table::ROWS));
        }
        all.merge(table);
        Ok(())
    }

    /// An index that the mirror does not have: `find` names another packing of it, or goes on
    /// without it.
    pub fn skip(&self, path: &str) {
        self.known_mut().indexes.iter_mut().for_each(|i| i.skip(path));
    }

    /// Paths of the indexes read so far, for a renewal.
    pub fn indexes(&self) -> Vec<String> {
        let known = self.known();
        known.indexes.iter().filter_map(|i| i.was_read().map(str::to_string)).collect()
    }

    /// Date of a Release: an older one must not take the place of a newer.
    pub fn dated(&self) -> Option<Timestamp> {
        self.dated
    }

    /// Valid-Until of a Release.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    // A reader that panicked has changed nothing by halves: rows are added whole.
    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(kind: &Kind, path: &str, bytes: &[u8], table: &mut Table) -> Result<(), Fault> {
    let (packing, _) = Packing::of(path).ok_or(Fault::NotAnIndex)?;
    let text = unpack::unpack(packing, bytes)?;
    match kind {
        Kind::Packages { archive, .. } => debian::packages(archive, text, table),
        Kind::Sums { .. } => sums::read(path, text, table),
        Kind::Primary { base } => rpm::primary_xml(base, text, table),
    }
}

/// The text inside a clearsigned file, if it is one; of others the detached signature is checked.
fn signed_text(
    bytes: &[u8],
    signature: Option<&[u8]>,
    trust: &Trust,
    now: Timestamp,
) -> Result<Option<String>, Fault> {
    if !bytes.starts_with(trust::CLEARSIGNED.as_bytes()) {
        return detached(bytes, signature, trust, now).map(|()| None);
    }
    let signed = trust::unwrap(bytes).ok_or(Fault::NotClearsigned)?;
    if !trust.is_empty() {
        trust.inline(&signed, now)?;
    }
    Ok(Some(signed.text))
}

fn detached(
    bytes: &[u8],
    signature: Option<&[u8]>,
    trust: &Trust,
    now: Timestamp,
) -> Result<(), Fault> {
    match signature {
        _ if trust.is_empty() => Ok(()),
        Some(signature) => trust.detached(signature, bytes, now),
        None => Err(Fault::Unsigned),
    }
}
