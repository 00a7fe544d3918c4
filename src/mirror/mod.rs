//! Public mirrors through a cache: `/mirror/NAME/PATH`.
//!
//! 1. [`serve::Mirrors::ask`] takes a path below a declared mirror.
//! 2. [`verify`] tells what the file must be, out of metadata that was itself proven right.
//! 3. What is held leaves at once ([`disk`]); the rest is fetched once for all who ask for it:
//!    [`decide`] plans the parts, [`upstream`] ranks the URLs, [`fetch`] asks one of them, and
//!    [`serve::Flight`] brings them together for everybody who reads along.
//! 4. A file is kept when it is whole and right; [`evict`] makes room, [`learn`] remembers what an
//!    installation asked for.

pub mod decide;
pub mod disk;
pub mod evict;
#[cfg(test)]
mod faults;
pub mod fetch;
pub mod fresh;
pub mod learn;
pub mod ranges;
pub mod record;
pub mod serve;
pub mod upstream;
pub mod verify;
pub mod wire;

pub use crate::model::digest::{self, Digest};
pub use wire::MirrorPath;

use jiff::Timestamp;

use crate::model::Why;

/// Why a file of a mirror does not come, or is not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum No {
    #[error("there is no [[mirror]] named {0:?}")]
    NoMirror(String),
    #[error("{0}")]
    Path(#[from] wire::BadPath),
    #[error("mirror {0} is verified, and no list has an address with a query")]
    Query(String),
    #[error("mirror {0}: {1} is not in the cache, and [cache] offline = true asks no upstream")]
    Offline(String, String),
    #[error("mirror {0} has no {1}")]
    NotThere(String, String),
    #[error("mirror {0}: no metadata that was proven right lists {1}")]
    NotListed(String, String),
    #[error("{0}")]
    Upstream(#[from] fetch::Trouble),
    #[error(
        "{path} from {url} is not what the metadata says, or its `pin`: {expect} was expected; set aside"
    )]
    Digest { path: String, url: String, expect: Digest },
    #[error("mirror {mirror}: {path}: {fault}")]
    Fault { mirror: String, path: String, fault: verify::Fault },
    #[error("mirror {mirror}: {why}")]
    Keys { mirror: String, why: String },
    #[error("the cache: {0}")]
    Disk(String),
    #[error(
        "the disk of the cache is full, and nothing in the cache may go: passed on without being \
         kept; free some room on it"
    )]
    NoRoom,
    #[error("larger than [cache] limit: passed on without being kept")]
    Large,
    #[error(
        "mirror {mirror}: {path} is of {found}, older than that of {known}, which stays in force: \
         the mirror lags behind, or somebody plays it again"
    )]
    Older { mirror: String, path: String, found: Timestamp, known: Timestamp },
    #[error("the mirror says that this is not to be kept")]
    Unkept,
    #[error("too much is on its way just now; ask again")]
    Busy,
}

impl No {
    fn of_disk(e: &disk::Trouble) -> No {
        if e.is_full() { No::NoRoom } else { No::Disk(e.to_string()) }
    }
}

impl Why for No {
    fn name(&self) -> &'static str {
        use fetch::Trouble;
        match self {
            No::NoMirror(_) => "no-mirror",
            No::Path(_) => "bad-path",
            No::Query(_) => "query",
            No::Offline(..) => "offline",
            No::NotThere(..) => "not-on-the-mirror",
            No::NotListed(..) => "not-listed",
            No::Upstream(trouble) => match trouble {
                Trouble::Unreachable { .. } => "mirror-unreachable",
                Trouble::Silent { .. } => "mirror-silent",
                Trouble::Private { .. } => "private-address",
                Trouble::Redirect { .. } => "redirect-refused",
                Trouble::Redirects { .. } => "redirects-without-end",
                Trouble::Status { .. } => "mirror-status",
                Trouble::Garbage { .. } => "mirror-garbage",
                Trouble::Cut { .. } => "mirror-cut",
                Trouble::Changed { .. } => "mirror-changed",
            },
            No::Digest { .. } => "wrong-digest",
            No::Fault { .. } => "wrong-metadata",
            No::Keys { .. } => "mirror-keys",
            No::Disk(_) => "cache-disk",
            No::NoRoom => "cache-full",
            No::Large => "larger-than-the-cache",
            No::Older { .. } => "older-metadata",
            No::Unkept => "not-to-be-kept",
            No::Busy => "mirror-busy",
        }
    }

    fn is_everyday(&self) -> bool {
        matches!(self, No::Unkept | No::NotThere(..) | No::NotListed(..))
    }
}
