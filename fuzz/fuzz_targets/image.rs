//! Images under any bytes: no panic, no hang, and no file that is not inside its image.
//!
//! The input is which image it starts with (ISO 9660, UDF of two kinds, or nothing), and changes to
//! that: where (in all that is not a file's bytes), length, bytes.

#![no_main]

#[path = "../../tests/common/hand.rs"]
mod hand;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pilotlight::media::{Found, Library, Tree, clean_plain};

use hand::{Data, GOES_ON, PARTITION, Record, SECTOR, place};

/// ISO 9660, and UDF of two kinds. Made once: to make one takes a hundred times as long as to read it.
static IMAGES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| [iso(), udf(false), udf(true)]);

/// Files that are looked at.
const LOOKS: usize = 500;

fuzz_target!(|input: &[u8]| {
    let Some((which, mut rest)) = input.split_first() else { return };
    let which = usize::from(which % 4);
    let made = IMAGES.get(which);
    let mut image = made.map_or_else(|| rest.to_vec(), Vec::clone);
    if made.is_some() {
        let begin = if which == 1 { PARTITION * SECTOR } else { 16 * SECTOR };
        while let Some((&[high, low, len], after)) = rest.split_first_chunk() {
            let at = begin + usize::from(u16::from_be_bytes([high, low]));
            let (bytes, after) = after.split_at(usize::from(len % 32).min(after.len()));
            rest = after;
            if let Some(place) = image.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
    }
    // What the library opens is a file that has a name.
    let path = std::env::temp_dir().join(format!("pilotlight-fuzz-{}.iso", std::process::id()));
    std::fs::write(&path, &image).unwrap();
    match Library::default().tree(&[path]) {
        Ok(tree) => look(&tree, image.len() as u64),
        Err(why) => assert!(!why.to_string().is_empty()),
    }
});

fn look(tree: &Tree, end: u64) {
    assert!(tree.volume().len() < 1000);
    let mut folders = vec![(String::new(), 0)];
    let mut looks = 0;
    while let Some((at, depth)) = folders.pop() {
        let Ok(Found::Dir(entries)) = resolve(tree, &at) else { continue };
        for entry in entries {
            looks += 1;
            if looks > LOOKS {
                return;
            }
            let path = format!("{at}/{}", entry.name.to_string_lossy());
            match resolve(tree, &path) {
                Ok(Found::Image(file)) => {
                    let inside = |at: u64, len| at.checked_add(len).is_some_and(|e| e <= end);
                    assert!(file.parts.iter().all(|p| p.offset.is_none_or(|at| inside(at, p.len))));
                    assert_eq!(file.parts.iter().map(|p| p.len).sum::<u64>(), file.len);
                }
                Ok(Found::Dir(_)) if depth < 8 => folders.push((path, depth + 1)),
                Ok(Found::Dir(_)) => {}
                Ok(Found::File(..)) => panic!("{path} is a file of this machine"),
                Err(why) => assert!(!why.to_string().is_empty()),
            }
        }
    }
}

fn resolve(tree: &Tree, path: &str) -> Result<Found, pilotlight::media::Refused> {
    clean_plain(path).and_then(|path| tree.resolve(&path))
}

/// One of all that directory records can be.
fn iso() -> Vec<u8> {
    let free = place(3);
    let mut moved = b"CL\x0c\x01".to_vec();
    hand::both(&mut moved, place(2));
    let mut on = b"CE\x1c\x01".to_vec();
    for n in [free + 4, 0, 20] {
        hand::both(&mut on, n);
    }
    let root = vec![
        Record::file("A.;1", free, 100).named(b"a"),
        Record::file("B.;1", free, 2048).named(b"b").flags(GOES_ON),
        Record::file("B.;1", free + 2, 10).named(b"b"),
        Record::folder("D", 1).named(b"d"),
        Record::file("L.;1", 0, 0).named(b"l").link(&[(4, b""), (0, b"d"), (0, b"c")]),
        Record::file("M.;1", free, 0).named(b"m").with(&moved),
        Record::file("O.;1", free, 0).with(&on),
    ];
    let inner = vec![Record::file("C.;1", free, 100).named(b"c")];
    hand::iso(&[root, inner, vec![Record::file("E.;1", free, 9)]], free + 8)
}

fn udf(extended: bool) -> Vec<u8> {
    let free = hand::free(3);
    let files = [
        ("short", Data::Short(vec![(free, 2048), (free + 3, 100)])),
        ("long", Data::Long(vec![(free + 1, 100)])),
        ("Größe", Data::Within(b"within".to_vec())),
    ];
    hand::udf(&files, extended, PARTITION as u32 + free + 8)
}
