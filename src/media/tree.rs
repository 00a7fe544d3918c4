//! The index of an image's files: where each of them is, in few bytes. Pure.
//!
//! 1. [`grow`] asks a format for one folder after the other, from the root on, breadth first: so
//!    the entries of a folder lie side by side, and need no list of their own.
//! 2. [`Index::find`] walks a path, symbolic links included, and never leaves the tree.
//! 3. [`Index::parts`] tells where a file's bytes are.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

use smallvec::SmallVec;

use super::{Bad, PATH_LIMIT, Refused, Stretch};

/// Files and folders of a tree.
pub const ENTRIES: usize = 2_000_000;
/// Folders within folders. (A path has at most 4096 bytes, too.)
pub const DEPTH: u16 = 128;
/// Bytes of a name: UDF's longest, 254 characters, in UTF-8.
pub const NAME_LIMIT: usize = 1024;
/// Symbolic links on the way to a file, as Linux has it.
const HOPS: usize = 40;
/// Stretches that a file may be in.
pub const PARTS: usize = 1 << 16;
/// Stretches of all files that need more than one.
const ALL_PARTS: usize = 1 << 20;
/// Bytes of all names and targets of links.
const NAMES: usize = 128 << 20;
/// What an extent of one entry is counted in.
const BLOCK: u64 = 2048;
/// Where a stretch is that is recorded nowhere.
const HOLE: u64 = u64::MAX;

pub type Parts = SmallVec<[Stretch; 1]>;

/// An entry of a folder as a format reads it. `D` is what the format knows a folder by.
pub struct Raw<D> {
    pub name: Vec<u8>,
    /// Seconds since 1970; 0 where it is not known.
    pub modified: u32,
    pub image: u8,
    pub what: What<D>,
}

pub enum What<D> {
    Folder(D),
    File(Parts),
    Link(Vec<u8>),
    /// A file that cannot be served as it is, and why.
    Odd(Odd),
}

/// What entries take, counted by a format as it reads them: those of one folder alone may have the
/// same long name, the same target and the same million parts.
#[derive(Default)]
pub struct Tally {
    entries: usize,
    names: usize,
    parts: usize,
}

impl Tally {
    /// # Errors
    /// [`Bad::Many`].
    pub fn add<D>(&mut self, raw: &Raw<D>) -> Result<(), Bad> {
        self.entries += 1;
        self.names += raw.name.len();
        match &raw.what {
            What::Link(target) => self.names += target.len(),
            What::File(parts) if parts.len() > 1 => self.parts += parts.len(),
            What::File(_) | What::Folder(_) | What::Odd(_) => {}
        }
        match self.entries > ENTRIES || self.names > NAMES || self.parts > ALL_PARTS {
            true => Err(Bad::Many),
            false => Ok(()),
        }
    }
}

/// Why a file of an image is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Odd {
    #[error("it is compressed inside the image (zisofs)")]
    Compressed,
    #[error("it is interleaved with another file")]
    Interleaved,
    #[error("it is in more than {PARTS} pieces")]
    Scattered,
    #[error("its descriptor is of a kind that no medium for installing has")]
    Descriptor,
}

const ODD: [Odd; 4] = [Odd::Compressed, Odd::Interleaved, Odd::Scattered, Odd::Descriptor];

impl Odd {
    fn kept(self) -> (Kind, u32, u64) {
        (Kind::Odd, number(ODD.iter().position(|odd| *odd == self).unwrap_or(0)), 0)
    }

    fn of(first: u32) -> Odd {
        ODD.get(first as usize).copied().unwrap_or(Odd::Descriptor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `first` is its first entry, `size` their number.
    Folder,
    /// In one stretch that begins with block `first`.
    File,
    /// In several; `first` is the first of them in `parts`.
    Parts,
    /// Its target has `size` bytes from `first` on in `names`.
    Link,
    /// `first` is its place in [`ODD`].
    Odd,
}

/// 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Node {
    size: u64,
    first: u32,
    name: u32,
    modified: u32,
    name_len: u16,
    kind: Kind,
    image: u8,
}

/// Every file of one image, or of several that are laid over one another.
#[derive(Debug)]
pub struct Index {
    /// Number 0 is the root.
    nodes: Vec<Node>,
    names: Vec<u8>,
    parts: Vec<Kept>,
}

/// A stretch, as it is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    offset: u64,
    len: u64,
}

/// The number of an entry.
pub type Id = u32;

/// What an entry is to whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    Folder,
    /// Its image, its size, its time.
    File {
        image: u8,
        len: u64,
        modified: u32,
    },
    Odd(Odd),
}

/// A folder that is still to be read: its entry, and the way to it.
struct Way {
    id: Id,
    /// Its place in the list of ways.
    up: u32,
    depth: u16,
    /// Of its path, in bytes.
    len: u16,
}

/// The index of all that is below `root`, as `read` tells of each folder. It is given the folder's
/// path where it wants it, for what it has to complain of.
///
/// # Errors
/// What `read` says, and bounds.
pub fn grow<D>(
    root: D,
    mut read: impl FnMut(D, &dyn Fn() -> String) -> Result<Vec<Raw<D>>, Bad>,
) -> Result<Index, Bad> {
    let top =
        Node { size: 0, first: 0, name: 0, modified: 0, name_len: 0, kind: Kind::Folder, image: 0 };
    let mut index = Index { nodes: vec![top], names: Vec::new(), parts: Vec::new() };
    let mut ways = vec![Way { id: 0, up: 0, depth: 0, len: 0 }];
    let mut queue = VecDeque::from([(0, root)]);
    while let Some((at, folder)) = queue.pop_front() {
        let (depth, len) = (ways[at].depth, usize::from(ways[at].len));
        let mut raw = read(folder, &|| index.way(&ways, at))?;
        raw.retain(|r| is_name(&r.name));
        // The sort is stable: of two that have the same name, the first remains.
        raw.sort_by(|a, b| order(&a.name, &b.name));
        raw.dedup_by(|later, first| later.name == first.name);
        if index.nodes.len() + raw.len() > ENTRIES {
            return Err(Bad::Many);
        }
        let id = ways[at].id as usize;
        index.nodes[id].first = number(index.nodes.len());
        index.nodes[id].size = raw.len() as u64;
        for raw in raw {
            if index.names.len() > NAMES || index.parts.len() > ALL_PARTS {
                return Err(Bad::Many);
            }
            let here = number(index.nodes.len());
            let long = len + raw.name.len() + 1;
            let below = index.push(raw);
            if let Some(folder) = below {
                if depth >= DEPTH || long >= PATH_LIMIT {
                    return Err(Bad::Deep { path: index.way(&ways, at) });
                }
                let len = u16::try_from(long).unwrap_or(u16::MAX);
                ways.push(Way { id: here, up: number(at), depth: depth + 1, len });
                queue.push_back((ways.len() - 1, folder));
            }
        }
    }
    index.nodes.shrink_to_fit();
    index.names.shrink_to_fit();
    index.parts.shrink_to_fit();
    Ok(index)
}

/// Whether anything could ask for it: no path of ours has other names, see [`super::clean`].
fn is_name(name: &[u8]) -> bool {
    let bad = |b: &u8| *b == b'/' || b.is_ascii_control();
    !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_LIMIT && !name.iter().any(bad)
}

/// Names that differ in case only are neighbours, so one search finds both.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    folded(a, b).then_with(|| a.cmp(b))
}

fn folded(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().map(u8::to_ascii_lowercase).cmp(b.iter().map(u8::to_ascii_lowercase))
}

/// Lengths of lists that are bounded far below.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Index {
    /// Adds an entry; the folder comes back if it is one.
    fn push<D>(&mut self, raw: Raw<D>) -> Option<D> {
        let name = self.text(&raw.name);
        let mut below = None;
        let (kind, first, size) = match raw.what {
            What::Folder(folder) => {
                below = Some(folder);
                (Kind::Folder, 0, 0)
            }
            What::Link(target) => (Kind::Link, self.text(&target), target.len() as u64),
            What::Odd(odd) => odd.kept(),
            What::File(parts) => self.file(parts),
        };
        let name_len = u16::try_from(raw.name.len()).unwrap_or(0);
        let (modified, image) = (raw.modified, raw.image);
        self.nodes.push(Node { size, first, name, modified, name_len, kind, image });
        below
    }

    fn text(&mut self, text: &[u8]) -> u32 {
        let at = number(self.names.len());
        self.names.extend_from_slice(text);
        at
    }

    fn file(&mut self, parts: Parts) -> (Kind, u32, u64) {
        let parts = joined(parts);
        let size = parts.iter().fold(0, |sum: u64, p| sum.saturating_add(p.len));
        match parts[..] {
            [] => (Kind::File, 0, 0),
            [Stretch { offset: Some(offset), .. }]
                if offset % BLOCK == 0 && u32::try_from(offset / BLOCK).is_ok() =>
            {
                (Kind::File, u32::try_from(offset / BLOCK).unwrap_or(0), size)
            }
            _ if parts.len() > PARTS => Odd::Scattered.kept(),
            _ => {
                let at = number(self.parts.len());
                let kept = |p: &Stretch| Kept { offset: p.offset.unwrap_or(HOLE), len: p.len };
                self.parts.extend(parts.iter().map(kept));
                (Kind::Parts, at, size)
            }
        }
    }

    /// The path of a folder that is being read.
    fn way(&self, ways: &[Way], mut at: usize) -> String {
        let mut names = Vec::new();
        while at != 0 {
            names.push(String::from_utf8_lossy(self.name(ways[at].id)));
            at = ways[at].up as usize;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn name(&self, id: Id) -> &[u8] {
        let node = self.node(id);
        let at = node.name as usize;
        &self.names[at..at + usize::from(node.name_len)]
    }

    fn target(&self, id: Id) -> &[u8] {
        let node = self.node(id);
        let at = node.first as usize;
        &self.names[at..at + usize::try_from(node.size).unwrap_or(0)]
    }

    pub fn is_folder(&self, id: Id) -> bool {
        self.node(id).kind == Kind::Folder
    }

    /// The entries of a folder, in the order of their names.
    pub fn entries(&self, folder: Id) -> Range<Id> {
        let node = self.node(folder);
        match node.kind {
            Kind::Folder => node.first..node.first + u32::try_from(node.size).unwrap_or(0),
            _ => 0..0,
        }
    }

    /// The entry of that name: exactly, or else without regard to the case of ASCII letters.
    fn entry(&self, folder: Id, name: &[u8]) -> Option<Id> {
        let first = |order: fn(&[u8], &[u8]) -> Ordering| {
            let Range { start: mut low, end: mut high } = self.entries(folder);
            let end = high;
            while low < high {
                let middle = low + (high - low) / 2;
                match order(self.name(middle), name) {
                    Ordering::Less => low = middle + 1,
                    _ => high = middle,
                }
            }
            Some(low).filter(|id| *id < end && order(self.name(*id), name).is_eq())
        };
        first(order).or_else(|| first(folded))
    }

    /// The entry at the end of a path, after the links on it.
    ///
    /// # Errors
    /// [`Refused::NotThere`], [`Refused::Outside`] and [`Refused::Links`].
    pub fn find(&self, path: &[u8]) -> Result<Id, Refused> {
        self.walk(vec![0], path)
    }

    /// What the entry `id` of the folder at `path` is, after the links that it leads through.
    pub fn follow(&self, path: &[u8], id: Id) -> Result<Id, Refused> {
        match self.node(id).kind {
            Kind::Link => {
                let full = [path, b"/", self.name(id)].concat();
                self.find(&full)
            }
            _ => Ok(id),
        }
    }

    fn walk(&self, mut way: Vec<Id>, path: &[u8]) -> Result<Id, Refused> {
        let mut hops = 0;
        let mut left: Vec<&[u8]> = path.rsplit(|b| *b == b'/').collect();
        while let Some(part) = left.pop() {
            let here = way.last().copied().unwrap_or(0);
            match part {
                b"" | b"." => continue,
                b".." => {
                    way.pop();
                    if way.is_empty() {
                        return Err(Refused::Outside);
                    }
                    continue;
                }
                _ => {}
            }
            let id = self.entry(here, part).ok_or(Refused::NotThere)?;
            if self.node(id).kind != Kind::Link {
                way.push(id);
                continue;
            }
            hops += 1;
            let target = self.target(id);
            if hops > HOPS {
                return Err(Refused::Links);
            }
            match target.first() {
                None => return Err(Refused::NotThere),
                Some(b'/') => return Err(Refused::Outside),
                Some(_) => {}
            }
            left.extend(target.rsplit(|b| *b == b'/'));
        }
        Ok(way.last().copied().unwrap_or(0))
    }

    pub fn is(&self, id: Id) -> Is {
        let Node { kind, image, size: len, modified, first, .. } = *self.node(id);
        match kind {
            Kind::Folder => Is::Folder,
            Kind::File | Kind::Parts => Is::File { image, len, modified },
            Kind::Odd => Is::Odd(Odd::of(first)),
            // Nobody asks for what a link itself is.
            Kind::Link => Is::Odd(Odd::Descriptor),
        }
    }

    /// Where a file's bytes are.
    pub fn parts(&self, id: Id) -> Parts {
        let node = self.node(id);
        match node.kind {
            Kind::File if node.size > 0 => {
                let offset = Some(u64::from(node.first) * BLOCK);
                Parts::from_elem(Stretch { offset, len: node.size }, 1)
            }
            Kind::Parts => {
                let mut left = node.size;
                let kept = self.parts[node.first as usize..].iter();
                kept.take_while(|part| {
                    let more = left > 0;
                    left = left.saturating_sub(part.len);
                    more
                })
                .map(|p| Stretch { offset: Some(p.offset).filter(|o| *o != HOLE), len: p.len })
                .collect()
            }
            _ => Parts::new(),
        }
    }

    /// The entry as a format would tell of it, for a tree that is made of several.
    pub fn raw<D>(&self, id: Id, image: u8, folder: impl FnOnce(Id) -> D) -> Raw<D> {
        let node = self.node(id);
        let what = match node.kind {
            Kind::Folder => What::Folder(folder(id)),
            Kind::File | Kind::Parts => What::File(self.parts(id)),
            Kind::Link => What::Link(self.target(id).to_vec()),
            Kind::Odd => What::Odd(Odd::of(node.first)),
        };
        Raw { name: self.name(id).to_vec(), modified: node.modified, image, what }
    }

    /// Entries, the root among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes that it takes, and how many of them are names.
    pub fn memory(&self) -> (usize, usize) {
        let nodes = self.nodes.capacity() * size_of::<Node>();
        let parts = self.parts.capacity() * size_of::<Kept>();
        (nodes + parts + self.names.capacity(), self.names.len())
    }
}

/// Stretches that follow one another are one; such as have no bytes are none.
fn joined(parts: Parts) -> Parts {
    let mut all = Parts::new();
    parts.into_iter().for_each(|part| join(&mut all, part));
    all
}

/// The same for the next one.
pub fn join(all: &mut Parts, part: Stretch) {
    let follows = |last: &Stretch| match (last.offset, part.offset) {
        (Some(at), Some(next)) => at.checked_add(last.len) == Some(next),
        (None, None) => true,
        _ => false,
    };
    match all.last_mut() {
        _ if part.len == 0 => {}
        Some(last) if follows(last) => last.len = last.len.saturating_add(part.len),
        _ => all.push(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, offset: u64, len: u64) -> Raw<usize> {
        let parts = Parts::from_elem(Stretch { offset: Some(offset), len }, 1);
        raw(name, What::File(parts))
    }

    fn raw(name: &str, what: What<usize>) -> Raw<usize> {
        Raw { name: name.into(), modified: 0, image: 0, what }
    }

    fn link(name: &str, target: &str) -> Raw<usize> {
        raw(name, What::Link(target.into()))
    }

    /// A tree of folders by number.
    fn of(folders: Vec<Vec<Raw<usize>>>) -> Result<Index, Bad> {
        let mut folders: Vec<Option<Vec<_>>> = folders.into_iter().map(Some).collect();
        grow(0, |n, _| Ok(folders[n].take().unwrap()))
    }

    fn sample() -> Index {
        of(vec![
            vec![
                raw("sub", What::Folder(1)),
                file("Kernel", 2048, 10),
                file("kernel", 4096, 20),
                file("README.TXT", 6144, 30),
                link("boot", "sub/../sub/inner"),
                link("loop", "loop"),
                link("out", "../etc/passwd"),
                link("abs", "/sub"),
                link("nowhere", "none"),
                link("empty", ""),
                file("../evil", 0, 1),
                file("..", 0, 1),
                file("a\nb", 0, 1),
                file("kernel", 8192, 40),
            ],
            vec![file("inner", 5000, 5), link("up", "../Kernel"), raw("sub", What::Folder(2))],
            vec![file("deep", 0, 1)],
        ])
        .unwrap()
    }

    fn at(index: &Index, path: &str) -> Result<(u64, Option<u64>), Refused> {
        let id = index.find(path.as_bytes())?;
        match index.is(id) {
            Is::File { len, .. } => Ok((len, index.parts(id).first().and_then(|p| p.offset))),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths_are_looked_up() {
        let index = sample();
        for (path, found) in [
            ("kernel", (20, 4096)),
            ("Kernel", (10, 2048)),
            ("KERNEL", (10, 2048)),
            ("readme.txt", (30, 6144)),
            ("sub/inner", (5, 5000)),
            ("SUB/sub/Deep", (1, 0)),
            ("boot", (5, 5000)),
            ("sub/up", (10, 2048)),
        ] {
            assert_eq!(at(&index, path), Ok((found.0, Some(found.1))), "{path}");
        }
        for (path, refused) in [
            ("none", Refused::NotThere),
            ("kernel/x", Refused::NotThere),
            ("nowhere", Refused::NotThere),
            ("empty", Refused::NotThere),
            ("loop", Refused::Links),
            ("out", Refused::Outside),
            ("abs", Refused::Outside),
            ("a\nb", Refused::NotThere),
        ] {
            assert_eq!(at(&index, path), Err(refused), "{path}");
        }
        assert_eq!(index.is(index.find(b"").unwrap()), Is::Folder);
        let names: Vec<_> = index.entries(0).map(|id| index.name(id).to_vec()).collect();
        assert_eq!(names.len(), 10, "each name once, and none that no path has: {names:?}");
    }

    #[test]
    fn stretches_that_meet_are_one() {
        let part = |offset, len| Stretch { offset, len };
        let big = u64::from(u32::MAX);
        let files = [
            (vec![part(Some(2048), big), part(Some(2048 + big), 5)], 1),
            (vec![part(Some(0), 0), part(Some(4096), 7)], 1),
            (vec![part(Some(4096), 7), part(None, 3), part(None, 4), part(Some(0), 1)], 3),
            (vec![], 0),
        ];
        let all = files.iter().enumerate();
        let raws = all.map(|(n, (parts, _))| {
            raw(&n.to_string(), What::File(parts.iter().copied().collect()))
        });
        let index = of(vec![raws.collect()]).unwrap();
        for (n, (parts, want)) in files.iter().enumerate() {
            let found = index.parts(index.find(n.to_string().as_bytes()).unwrap());
            assert_eq!(found.len(), *want, "{n}");
            let sum = |parts: &[Stretch]| parts.iter().map(|p| p.len).sum::<u64>();
            assert_eq!(sum(&found), sum(parts), "{n}");
        }
        let scattered = (0..=PARTS as u64).map(|n| part(Some(n * 4096), 1)).collect();
        let index = of(vec![vec![raw("x", What::File(scattered))]]).unwrap();
        assert_eq!(index.is(1), Is::Odd(Odd::Scattered));
    }

    #[test]
    fn a_tree_has_bounds() {
        let endless = grow(0u32, |n, _| {
            let what = What::Folder(n + 1);
            Ok(vec![Raw { name: b"d".to_vec(), modified: 0, image: 0, what }])
        });
        let Err(Bad::Deep { path }) = endless else { panic!("{endless:?}") };
        assert_eq!(path.matches("/d").count(), usize::from(DEPTH), "{path}");

        let long = grow(0u32, |n, _| {
            let name = vec![b'n'; 1000];
            Ok(vec![Raw { name, modified: 0, image: 0, what: What::Folder(n + 1) }])
        });
        assert!(matches!(long, Err(Bad::Deep { .. })), "{long:?}");

        let wide = grow(0u32, |_, _| {
            let one = |n: u32| Raw {
                name: format!("{n:04}").into_bytes(),
                modified: 0,
                image: 0,
                what: What::Folder(n),
            };
            Ok((0..2000).map(one).collect())
        });
        assert_eq!(wide.map(|i| i.len()), Err(Bad::Many));
    }

    #[test]
    fn what_is_read_is_counted_at_once() {
        let target = "t".repeat(4000);
        let parts = || Parts::from_elem(Stretch { offset: None, len: 1 }, PARTS);
        let most = |of: &dyn Fn() -> Raw<usize>| {
            let mut tally = Tally::default();
            (0..=ENTRIES).find(|_| tally.add(&of()) == Err(Bad::Many))
        };
        assert_eq!(most(&|| link("l", &target)), Some(NAMES / 4001));
        assert_eq!(most(&|| raw("f", What::File(parts()))), Some(ALL_PARTS / PARTS));
        assert_eq!(most(&|| file("f", 0, 1)), Some(ENTRIES));
    }

    #[test]
    fn a_file_costs_few_bytes() {
        let files = (0..10_000).map(|n| file(&format!("package-{n:05}.rpm"), n * 2048, 1));
        let index = of(vec![files.collect()]).unwrap();
        let (all, names) = index.memory();
        assert_eq!(names, 10_000 * 17);
        assert!((all - names) / 10_000 <= 25, "{all} bytes, {names} of them names");
    }

    #[test]
    fn layers_become_one() {
        let first = sample();
        let second = of(vec![
            vec![
                raw("sub", What::Folder(1)),
                file("kernel", 0, 99),
                file("more", 12288, 50),
                raw("README.TXT", What::Folder(2)),
            ],
            vec![file("inner", 0, 98), file("extra", 14336, 60)],
            vec![file("hidden", 0, 97)],
        ]);
        let index = super::super::overlay::overlay(&[first, second.unwrap()]).unwrap();
        for (path, found) in [
            ("kernel", (20, 4096)),
            ("more", (50, 12288)),
            ("sub/inner", (5, 5000)),
            ("sub/extra", (60, 14336)),
            ("sub/up", (10, 2048)),
            ("README.TXT", (30, 6144)),
        ] {
            assert_eq!(at(&index, path), Ok((found.0, Some(found.1))), "{path}");
        }
        let image = |path: &str| match index.is(index.find(path.as_bytes()).unwrap()) {
            Is::File { image, .. } => image,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!((image("kernel"), image("more"), image("sub/extra")), (0, 1, 1));
        assert_eq!(at(&index, "README.TXT/hidden"), Err(Refused::NotThere));
    }
}
