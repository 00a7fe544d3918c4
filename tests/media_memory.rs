//! What the index of an image costs in memory, and what an image made to cost a lot can have it cost,
//! counted at the allocator: alone in its process.

#[path = "common/hand.rs"]
mod hand;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicIsize, Ordering};

use hand::{FOLDER, GOES_ON, Record, SECTOR, place};
use pilotlight::media::{Found, Library};

static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: it is the system's allocator with a count beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as isize;
        MOST.fetch_max(HELD.fetch_add(size, Ordering::Relaxed) + size, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes held by what `work` leaves, and at most meanwhile.
fn cost<T>(work: impl FnOnce() -> T) -> (isize, isize, T) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let left = work();
    let (held, most) = (HELD.load(Ordering::Relaxed), MOST.load(Ordering::Relaxed));
    (held - before, most - before, left)
}

#[test]
fn memory_is_small() {
    let dir = tempfile::tempdir().unwrap();
    the_index_is_small(dir.path());
    no_image_makes_it_large(dir.path());
}

/// Folders in each of three levels, and files in each of the last.
const FAN: usize = 32;
const EACH: usize = 40;
const FILES: usize = FAN * FAN * EACH;

fn file(n: usize) -> String {
    format!("package-{n}-1.2.3-4.el9.noarch.rpm")
}

/// A medium of forty thousand packages, with a link in each folder.
fn packages() -> Vec<u8> {
    let folder = |nth: usize| {
        let name = format!("D{nth}");
        Record::folder(&name, nth).named(name.to_lowercase().as_bytes())
    };
    let (inner, free) = (1 + FAN, place(1 + FAN + FAN * FAN));
    let mut folders = vec![(1..=FAN).map(folder).collect::<Vec<_>>()];
    folders.extend((0..FAN).map(|n| (0..FAN).map(|m| folder(inner + n * FAN + m)).collect()));
    folders.extend((0..FAN * FAN).map(|nth| {
        let packages = (nth * EACH..(nth + 1) * EACH).map(|n| {
            Record::file(&format!("P{n}.;1"), free + n as u32, 2000).named(file(n).as_bytes())
        });
        let link =
            Record::file("L.;1", 0, 0).named(b"latest").link(&[(0, file(nth * EACH).as_bytes())]);
        packages.chain([link]).collect()
    }));
    hand::iso(&folders, free + FILES as u32)
}

fn the_index_is_small(dir: &Path) {
    let image = dir.join("a.iso");
    std::fs::write(&image, packages()).unwrap();
    let names: usize = (0..FILES).map(|n| file(n).len()).sum();
    let paths = vec![image];
    let library = Library::default();
    let (held, most, tree) = cost(|| library.tree(&paths).unwrap());
    assert!(tree.entries() > FILES);
    let each = (held as usize - names) as f64 / FILES as f64;
    eprintln!("{each:.1} bytes for each file besides its name; {most} at most meanwhile");
    assert!(each <= 60.0, "{each} bytes for each file besides its name");
    assert!(most < 4 * held, "{most} bytes meanwhile, for {held}");
    let (told, of_names) = tree.memory();
    assert!(told.abs_diff(held as usize) < 64 << 10, "{told} bytes are told, {held} are held");
    assert!((names..names * 5 / 4).contains(&of_names), "{of_names} bytes of names are told");
    // What was walked is kept once.
    let (again, _, _) = cost(|| drop(library.tree(&paths).unwrap()));
    assert!(again < 10_000, "{again} bytes more for a second look");
    // A path that is looked up costs nothing that stays.
    let path = Path::new("d1/d33").join(file(5));
    let (after, _, ()) = cost(|| {
        for _ in 0..1000 {
            assert!(matches!(tree.resolve(&path), Ok(Found::Image(_))));
        }
    });
    assert!(after < 10_000, "{after} bytes after a thousand looks");
    let Ok(Found::Image(latest)) = tree.resolve(Path::new("d1/d33/latest")) else {
        panic!("no link")
    };
    assert_eq!(latest.len, 2000);
}

/// Bytes that an image of any size may have a reader hold.
const BOUND: isize = 512 << 20;

fn no_image_makes_it_large(dir: &Path) {
    let image = dir.join("b.iso");
    let gigabytes = 6_u64 << 30;
    let look = |what: &str, bytes: &[u8]| {
        let file = File::create(&image).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        // Of zeros that take no room: whatever it says is there.
        file.set_len(gigabytes).unwrap();
        let (_, most, _) = cost(|| {
            let library = Library::default();
            let tree = library.tree(std::slice::from_ref(&image));
            tree.map(|tree| tree.resolve(Path::new("big")).is_ok())
        });
        assert!(most < BOUND, "{what}: {most} bytes");
    };
    let far = (gigabytes / SECTOR as u64 / 2) as u32;
    let folder =
        |n: u32, len| Record::file(&format!("D{n}"), far + n, len).named(b"big").flags(FOLDER);
    for len in [1 << 20, 63 << 20, 1 << 30, u32::MAX - 2047] {
        let many = (0..40).map(|n| folder(n, len)).collect();
        look("large folders", &hand::iso(&[many], place(1)));
    }
    // A file of as many parts as there is room for, again and again.
    let part = Record::file("BIG.;1", far, 2048).flags(GOES_ON);
    let records: Vec<Record> = (0..80).map(|_| part.clone()).collect();
    look("many parts", &hand::iso(&[records], place(1)));
    look("a file of many parts by many names", &hand::crowd(600, 260, false));
    for kind in [false, true] {
        let within = hand::Data::Within(vec![7; 9]);
        let entries = [("big", hand::Data::Long(vec![(0, 0x3fff_ffff); 100])), ("small", within)];
        look("udf", &hand::udf(&entries, kind, 300));
        let mut image = hand::udf(&entries, kind, 300);
        // The root folder has as many bytes as it likes.
        let at = (hand::PARTITION + 1) * SECTOR + 56;
        for len in [u64::MAX, 1 << 40, 1 << 31] {
            image[at..at + 8].copy_from_slice(&len.to_le_bytes());
            look("a large folder of udf", &image);
        }
    }
}
