//! Several indexes laid over one another: of two files with one path the first wins, and folders
//! become one. Pure.

use super::Bad;
use super::tree::{self, Id, Index, Raw};

/// A folder of the tree that is made, as the folders that it is made of: which index, which entry.
type Layers = Vec<(u8, Id)>;

/// # Errors
/// [`Bad::Many`]: together they are more than one may be.
pub fn overlay(all: &[Index]) -> Result<Index, Bad> {
    let roots = (0..=u8::MAX).zip(all).map(|(n, _)| (n, 0)).collect();
    tree::grow(roots, |layers: Layers, _| Ok(folder(all, &layers)))
}

fn folder(all: &[Index], layers: &Layers) -> Vec<Raw<Layers>> {
    let mut found: Vec<(&[u8], u8, Id)> = Vec::new();
    for (n, id) in layers {
        let index = &all[usize::from(*n)];
        found.extend(index.entries(*id).map(|id| (index.name(id), *n, id)));
    }
    // Stable: those of one name remain in the order of the images.
    found.sort_by(|a, b| a.0.cmp(b.0));
    let same = found.chunk_by(|a, b| a.0 == b.0);
    same.map(|same| {
        let (_, n, id) = same[0];
        let folders = |_| {
            let these = same.iter().filter(|(_, n, id)| all[usize::from(*n)].is_folder(*id));
            these.map(|(_, n, id)| (*n, *id)).collect()
        };
        all[usize::from(n)].raw(id, n, folders)
    })
    .collect()
}
