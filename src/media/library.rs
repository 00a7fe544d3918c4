//! Images, and what is in them.
//!
//! 1. [`Library::tree`] opens a set of images, walks each of them once, and keeps what it found for
//!    as long as they stay as they are.
//! 2. [`Tree::resolve`] looks a path up in memory: no disk is asked but for whether the images are
//!    still what they were.

mod disk;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use disk::{Identity, Image, Library};

use super::source::Reader;
use super::tree::{Id, Index, Is, Parts};
use super::{Bad, Entry, Found, LISTED, Refused, Stretch, Stretches};
use super::{clean_plain, iso, overlay, udf};

/// The files of images that are laid over one another.
#[derive(Debug)]
pub struct Tree {
    volume: String,
    index: Index,
    images: Vec<Arc<Image>>,
}

/// The files of one image and the name of its volume, whichever format it has.
///
/// # Errors
/// [`Bad`], by name.
fn indexed(image: &Image) -> Result<(Index, String), Bad> {
    let from = Reader::new(image);
    let volumes = iso::volumes(&from)?;
    let name = volumes.primary.as_ref().map(|v| v.name.clone()).unwrap_or_default();
    // Windows' media have a file in the ISO volume that says that all others are in the UDF one;
    // where there is Rock Ridge, both have all files, and its names are the real ones.
    match iso::index(&from, &volumes, volumes.udf) {
        Ok(Some(index)) => Ok((index, name)),
        Err(Bad::Unknown) | Ok(None) if volumes.udf => udf::index(&from).map(|(index, label)| {
            let label = if name.is_empty() { label } else { name };
            (index, label)
        }),
        Ok(None) => Err(Bad::Unknown),
        Err(no) => Err(no),
    }
}

impl Tree {
    /// # Errors
    /// [`Refused::Image`], and [`Refused::Changed`] where one did while it was read.
    fn of(images: Vec<Arc<Image>>) -> Result<Tree, Refused> {
        let mut all = Vec::new();
        let mut volume = None;
        for image in &images {
            let found = indexed(image);
            if !image.is_intact() {
                return Err(Refused::Changed(image.path.display().to_string()));
            }
            let (index, name) =
                found.map_err(|bad| Refused::Image(image.path.display().to_string(), bad))?;
            volume.get_or_insert(name);
            all.push(index);
        }
        let index = match all.len() {
            1 => all.pop(),
            _ => None,
        };
        let together = || {
            let first = images.first().map(|i| i.path.display().to_string()).unwrap_or_default();
            overlay::overlay(&all).map_err(|bad| Refused::Image(first, bad))
        };
        let index = index.map_or_else(together, Ok)?;
        Ok(Tree { volume: volume.unwrap_or_default(), index, images })
    }

    /// The volume identifier of the first image.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// The images, the first one that has a path first.
    pub fn images(&self) -> &[Arc<Image>] {
        &self.images
    }

    /// Files, folders and links.
    pub fn entries(&self) -> usize {
        self.index.len()
    }

    /// Bytes that the index takes in memory, and how many of them are the names themselves.
    pub fn memory(&self) -> (usize, usize) {
        self.index.memory()
    }

    /// Whether there is a file or folder of that name.
    pub fn has(&self, path: &str) -> bool {
        clean_plain(path).is_ok_and(|p| self.index.find(p.as_os_str().as_bytes()).is_ok())
    }

    /// The first `limit` bytes of a file.
    pub fn read_small(&self, path: &str, limit: usize) -> Option<Vec<u8>> {
        match self.resolve(&clean_plain(path).ok()?).ok()? {
            Found::Image(file) => file.read(limit).ok(),
            _ => None,
        }
    }

    /// What is at `path`, which is clean.
    ///
    /// # Errors
    /// [`Refused`], by name.
    pub fn resolve(&self, path: &Path) -> Result<Found, Refused> {
        if let Some(image) = self.images.iter().find(|image| !image.is_there()) {
            return Err(Refused::Changed(image.path.display().to_string()));
        }
        let path = path.as_os_str().as_bytes();
        let id = self.index.find(path)?;
        match self.index.is(id) {
            Is::Folder => Ok(Found::Dir(self.listed(path, id))),
            Is::File { image, len, modified } => self.file(id, image, len, modified),
            Is::Odd(odd) => Err(Refused::Odd(String::from_utf8_lossy(path).into_owned(), odd)),
        }
    }

    fn file(&self, id: Id, image: u8, len: u64, modified: u32) -> Result<Found, Refused> {
        let image = self.images.get(usize::from(image)).ok_or(Refused::NotThere)?;
        let parts = self.index.parts(id);
        let is_in = |at: u64, len| at.checked_add(len).is_some_and(|end| end <= image.is.len);
        if parts.iter().any(|p| p.offset.is_some_and(|at| !is_in(at, p.len))) {
            let name = String::from_utf8_lossy(self.index.name(id)).into_owned();
            return Err(Refused::Image(image.path.display().to_string(), Bad::Beyond(name)));
        }
        let modified = (modified > 0)
            .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(modified)));
        Ok(Found::Image(Stretches { image: image.clone(), len, modified, parts }))
    }

    /// Links that lead nowhere are left out, as of a folder on a disk.
    fn listed(&self, path: &[u8], folder: Id) -> Vec<Entry> {
        let shown = |id: Id| {
            let name = self.index.name(id);
            let target = self.index.follow(path, id).ok()?;
            let (is_dir, size) = match self.index.is(target) {
                Is::Folder => (true, 0),
                Is::File { len, .. } => (false, len),
                Is::Odd(_) => return None,
            };
            Some(Entry { name: OsString::from_vec(name.to_vec()), is_dir, size })
        };
        let mut all: Vec<Entry> =
            self.index.entries(folder).filter_map(shown).take(LISTED).collect();
        all.sort();
        all
    }
}

impl Stretches {
    /// All of an image, as one file.
    pub fn whole(image: Image) -> Stretches {
        let len = image.is.len;
        let since = u64::try_from(image.is.modified).ok().map(Duration::from_nanos);
        let modified = since.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        let parts = Parts::from_elem(Stretch { offset: Some(0), len }, 1);
        Stretches { image: Arc::new(image), len, modified, parts }
    }

    /// What tells this version of the file from another; the same after a restart.
    pub fn etag(&self) -> String {
        let Identity { ino, modified, changed, .. } = self.image.is;
        let first = self.parts.first().and_then(|p| p.offset).unwrap_or(0);
        format!("\"{ino:x}-{modified:x}-{changed:x}-{first:x}-{:x}\"", self.len)
    }

    /// The stretches of some of its bytes.
    pub fn part(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = super::Stretch> {
        let mut at = 0;
        self.parts.iter().filter_map(move |part| {
            let (from, to) = (range.start.max(at), range.end.min(at + part.len));
            let skip = from.saturating_sub(at);
            at += part.len;
            let offset = part.offset.map(|o| o + skip);
            (from < to).then(|| super::Stretch { offset, len: to - from })
        })
    }

    /// Its first `limit` bytes.
    ///
    /// # Errors
    /// The disk's, and that the image has changed.
    pub fn read(&self, limit: usize) -> std::io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for part in self.part(0..self.len.min(limit as u64)) {
            let from = all.len();
            all.resize(from + usize::try_from(part.len).unwrap_or(0), 0);
            if let Some(at) = part.offset {
                super::source::Source::read(&*self.image, &mut all[from..], at)?;
            }
        }
        match self.image.is_intact() {
            true => Ok(all),
            false => Err(std::io::Error::other("the image has changed")),
        }
    }
}
