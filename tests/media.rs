//! Trees of files out of images as they are: read right whoever made them, served as files are,
//! and neither damage nor malice in them does any harm.

#[path = "media/damage.rs"]
mod damage;
#[path = "common/hand.rs"]
mod hand;
#[path = "common/images.rs"]
mod images;
#[path = "media/layouts.rs"]
mod layouts;
#[path = "media/served.rs"]
mod served;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use pilotlight::config::Root;
use pilotlight::media::{self, Found, Library, Refused};
use tempfile::TempDir;

/// Images in a folder of their own, and the library that reads them.
struct Shelf {
    dir: TempDir,
    library: Library,
    images: Vec<PathBuf>,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf { dir: tempfile::tempdir().unwrap(), library: Library::default(), images: Vec::new() }
    }

    /// The place of one more image, laid under the others.
    fn add(&mut self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        self.images.push(path.clone());
        path
    }

    /// The folder that goes into an image.
    fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// One image of these bytes.
    fn of(bytes: &[u8]) -> Shelf {
        let mut shelf = Shelf::new();
        std::fs::write(shelf.add("a.iso"), bytes).unwrap();
        shelf
    }

    fn at(&self, path: &str) -> Result<Found, Refused> {
        let path = media::clean_plain(path)?;
        media::resolve(&self.library, &Root::Images(self.images.clone()), &path)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, Refused> {
        self.at(path).map(|found| bytes(&found))
    }

    /// A folder's entries: folders end with a slash.
    fn names(&self, path: &str) -> Vec<String> {
        let Found::Dir(entries) = self.at(path).unwrap() else { panic!("{path} is no folder") };
        let shown =
            |e: media::Entry| format!("{}{}", e.name.display(), if e.is_dir { "/" } else { "" });
        entries.into_iter().map(shown).collect()
    }

    /// All the files that listings show, with their sizes; where links go round, only some.
    fn all(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        self.walk("", 20, &mut found);
        found.sort();
        found
    }

    fn walk(&self, at: &str, depth: usize, found: &mut Vec<(String, u64)>) {
        let Ok(Found::Dir(entries)) = self.at(at) else { return };
        for entry in entries {
            let path = format!("{at}{}", entry.name.display());
            match entry.is_dir {
                true if depth > 0 && found.len() < 50_000 => {
                    self.walk(&format!("{path}/"), depth - 1, found)
                }
                true => {}
                false => found.push((path, entry.size)),
            }
        }
    }
}

/// What a file of an image has. Each of its stretches lies in the image.
fn bytes(found: &Found) -> Vec<u8> {
    let Found::Image(file) = found else { panic!("{found:?} is no file of an image") };
    let mut out = Vec::new();
    for (offset, len) in stretches(found) {
        let mut part = vec![0; usize::try_from(len).unwrap()];
        if let Some(offset) = offset {
            file.image.file.read_exact_at(&mut part, offset).unwrap();
        }
        out.extend(part);
    }
    out
}

/// Where a file is in its image: all inside it, and as long as the file.
fn stretches(found: &Found) -> Vec<(Option<u64>, u64)> {
    let Found::Image(file) = found else { panic!("{found:?} is no file of an image") };
    let end = file.image.file.metadata().unwrap().len();
    for part in &file.parts {
        let inside =
            part.offset.is_none_or(|at| at.checked_add(part.len).is_some_and(|e| e <= end));
        assert!(inside, "{part:?} is not in an image of {end} bytes");
    }
    assert_eq!(file.parts.iter().map(|p| p.len).sum::<u64>(), file.len, "{:?}", file.parts);
    file.parts.iter().map(|p| (p.offset, p.len)).collect()
}

/// Not by assert_eq, which would print megabytes.
fn same(got: &[u8], want: &[u8], what: &str) {
    let differ = got.iter().zip(want).position(|(a, b)| a != b);
    assert_eq!((got.len(), differ), (want.len(), None), "{what}");
}
