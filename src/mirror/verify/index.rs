//! The indexes of a set, and which of them may list a path.

use super::{Expect, paths};

/// What an index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packages of a Debian archive; a flat one has no component or architecture (`""`).
    Packages { archive: String, component: String, architecture: String, installer: bool },
    /// SHA256SUMS of images, all of it below `folder`.
    Sums { folder: String },
    /// primary.xml of an RPM repository at `base`.
    Primary { base: String },
}

/// One packing of an index.
#[derive(Clone, Debug)]
pub struct Packed {
    pub path: String,
    pub fetch: String,
    pub expect: Expect,
}

/// An index with its packings, the one to be tried first.
#[derive(Debug)]
pub struct Index {
    pub kind: Kind,
    packings: Vec<Packed>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The packing of this number is next. Beyond the last: none can be had.
    Wanted(usize),
    /// Read from the packing of this number.
    Read(usize),
}

impl Index {
    pub fn new(kind: Kind, packings: Vec<Packed>) -> Index {
        Index { kind, packings, state: State::Wanted(0) }
    }

    /// What is to be fetched, unless it was read or can't be had.
    pub fn wanted(&self) -> Option<&Packed> {
        match self.state {
            State::Wanted(at) => self.packings.get(at),
            State::Read(_) => None,
        }
    }

    /// The path that it was read from.
    pub fn was_read(&self) -> Option<&str> {
        match self.state {
            State::Read(at) => self.packings.get(at).map(|p| p.path.as_str()),
            State::Wanted(_) => None,
        }
    }

    pub fn has(&self, path: &str) -> bool {
        self.position(path).is_some()
    }

    fn position(&self, path: &str) -> Option<usize> {
        self.packings.iter().position(|p| p.path == path)
    }

    pub fn mark_read(&mut self, path: &str) {
        if let Some(at) = self.position(path) {
            self.state = State::Read(at);
        }
    }

    /// The packing at `path` is of no use; the one after it is next.
    pub fn skip(&mut self, path: &str) {
        if let (Some(at), State::Wanted(next)) = (self.position(path), self.state) {
            self.state = State::Wanted(next.max(at + 1));
        }
    }

    fn architecture(&self) -> Option<&str> {
        match &self.kind {
            Kind::Packages { architecture, .. } => Some(architecture),
            _ => None,
        }
    }
}

/// The index to be read next for a path that no index so far lists. Of several, the likeliest.
pub fn next<'a>(indexes: &'a [Index], path: &str) -> Option<&'a Packed> {
    // The component tells where a pool is laid out by it; where it is not, all are looked at.
    let fitting = || indexes.iter().filter(|i| may_list(&i.kind, path));
    let by_component = fitting().any(|i| is_component_of(&i.kind, path));
    fitting()
        .filter(|i| !by_component || is_component_of(&i.kind, path))
        .filter_map(|i| Some((rank(i, indexes), i.wanted()?)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, wanted)| wanted)
}

fn may_list(kind: &Kind, path: &str) -> bool {
    match kind {
        Kind::Sums { folder } => is_below(folder, path),
        Kind::Primary { base } => path.ends_with(".rpm") && is_below(base, path),
        Kind::Packages { archive, architecture, installer, .. } => {
            let Some((stem, extension)) = path.rsplit_once('.') else { return false };
            let right = match extension {
                "deb" => !installer,
                "udeb" => *installer,
                _ => false,
            };
            // A flat archive has both in one file.
            let right = right || (architecture.is_empty() && extension == "udeb");
            let of = paths::split(stem).1.rsplit_once('_').map_or("all", |(_, of)| of);
            let fits = architecture.is_empty()
                || of == "all"
                || architecture == "all"
                || of == architecture;
            right && fits && is_below(archive, path)
        }
    }
}

fn is_below(folder: &str, path: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// `pool/main/l/linux/…` is of `main`, `pool/updates/main/…` too.
fn is_component_of(kind: &Kind, path: &str) -> bool {
    let Kind::Packages { component, .. } = kind else { return true };
    let component = paths::split(component).1;
    let mut parts = path.split('/').skip_while(|p| *p != "pool").skip(1);
    parts.by_ref().take(2).any(|p| p == component)
}

/// Packages of all architectures are listed with each: those of the architectures in use come
/// first, then the usual ones.
fn rank(index: &Index, indexes: &[Index]) -> u32 {
    let Some(architecture) = index.architecture() else { return 0 };
    let in_use =
        indexes.iter().any(|i| i.was_read().is_some() && i.architecture() == Some(architecture));
    match architecture {
        _ if in_use => 0,
        "amd64" => 1,
        "arm64" => 2,
        "all" => 3,
        _ => 4,
    }
}
