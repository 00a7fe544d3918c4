//! Images that are cut, damaged, or made to do harm: none is read outside its bounds, none takes
//! long, and what is told of them is said in words.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use pilotlight::media::{Found, Library, Refused};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;

use super::hand::{self, Data, FOLDER, GOES_ON, Record, SECTOR, place};
use super::images;
use super::{Shelf, stretches};

/// What does not hang.
fn within(what: &str, limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    if let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(limit) {
        panic!("{what}: not done after {limit:?}");
    }
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Looks at all there is to see of an image: how many files that were.
fn survives(shelf: &Shelf) -> usize {
    let Ok(tree) = shelf.library.tree(&shelf.images) else { return 0 };
    drop((tree.volume().to_string(), tree.has("a/b"), tree.read_small(".treeinfo", 100)));
    let all = shelf.all();
    for (path, size) in all.iter().take(2000) {
        // A name that no URL has is shown at most.
        if let Ok(found @ Found::Image(_)) = shelf.at(path) {
            let len: u64 = stretches(&found).iter().map(|(_, len)| len).sum();
            assert_eq!(len, *size, "{path}");
        }
    }
    all.len()
}

/// Small images of all kinds.
fn small(shelf: &mut Shelf, kind: &str) -> Vec<u8> {
    let from = shelf.folder("from");
    for (path, len) in [("a/b/c/d/e/f/g/h/i/deep", 5), ("boot/kernel", 3000), ("a/empty", 0)] {
        images::put(&from, path, &images::content(path, len));
    }
    images::put(&from, &format!("a/{}", "long".repeat(15)), b"long");
    let image = shelf.add("a.iso");
    match kind {
        "windows" => {
            images::put(&from, "README.TXT", b"readme");
            images::windows(&image, &from);
        }
        _ => {
            images::link(&from, "a/link", "../boot/kernel");
            let arguments = ["-R", "-J", "-joliet-long", "-no-pad", "-V", "SMALL"];
            match kind {
                "xorriso" => images::xorriso(&image, &from, &arguments),
                _ => images::genisoimage(&image, &from, &arguments),
            }
        }
    }
    fs::read(image).unwrap()
}

#[rstest]
#[case("xorriso")]
#[case("genisoimage")]
#[case("windows")]
fn an_image_that_is_cut_says_so(#[case] kind: &'static str) {
    if !images::makers("an_image_that_is_cut_says_so") {
        return;
    }
    within(kind, Duration::from_secs(300), move || {
        let mut shelf = Shelf::new();
        let whole = small(&mut shelf, kind);
        assert!(shelf.read("boot/kernel").is_ok());
        let file = File::options().write(true).open(&shelf.images[0]).unwrap();
        for sectors in (0..whole.len() / SECTOR).rev() {
            let len = sectors * SECTOR;
            file.set_len(len as u64).unwrap();
            // A few bytes more or less are no sector.
            if sectors % 5 == 0 {
                file.set_len(len as u64 + 1000).unwrap();
            }
            let has = file.metadata().unwrap().len();
            shelf.library = Library::default();
            let told = match shelf.at("boot/kernel") {
                Err(why) => why.to_string(),
                Ok(_) => panic!("{kind}: {has} of {} bytes are taken for all", whole.len()),
            };
            // The volume's own descriptor has to be there to tell what is missing.
            if sectors > 20 {
                assert!(told.contains(&format!("is cut: it has {has} bytes")), "{has}: {told}");
                let want = told.split("should have ").nth(1).unwrap_or_else(|| panic!("{told}"));
                let want: String = want.chars().filter(char::is_ascii_digit).collect();
                let want: usize = want.parse().unwrap();
                assert!((len + 1..=whole.len()).contains(&want), "{told}, of {}", whole.len());
            }
        }
        assert!(Shelf::of(&[]).at("x").is_err());
    });
}

#[rstest]
#[case("xorriso", 1500)]
#[case("genisoimage", 1000)]
#[case("windows", 1000)]
fn an_image_whose_bytes_are_changed_harms_nobody(#[case] kind: &'static str, #[case] times: u32) {
    if !images::makers("an_image_whose_bytes_are_changed_harms_nobody") {
        return;
    }
    within(kind, Duration::from_secs(400), move || {
        let mut shelf = Shelf::new();
        let whole = small(&mut shelf, kind);
        // Of zeros there are many, and most of them mean nothing.
        let telling: Vec<usize> = (16 * SECTOR..whole.len()).filter(|at| whole[*at] != 0).collect();
        let file = File::options().write(true).open(&shelf.images[0]).unwrap();
        let place = prop_oneof![
            4 => proptest::sample::select(telling),
            1 => 16 * SECTOR..whole.len(),
        ];
        let value = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0x80), Just(1)];
        let changes = proptest::collection::vec((place, value), 1..6);
        let seen = AtomicU64::new(0);
        let library = shelf.library.tree(&shelf.images).is_ok();
        assert!(library, "it is whole before");
        let shelf = std::cell::RefCell::new(shelf);
        let config = Config { cases: times, failure_persistence: None, ..Config::default() };
        let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &[6; 32]);
        let outcome = TestRunner::new_with_rng(config, dice).run(&changes, |changes| {
            for (at, value) in &changes {
                file.write_all_at(&[*value], *at as u64).unwrap();
            }
            let mut shelf = shelf.borrow_mut();
            shelf.library = Library::default();
            seen.fetch_add(survives(&shelf) as u64, Ordering::Relaxed);
            for (at, _) in &changes {
                file.write_all_at(&whole[*at..=*at], *at as u64).unwrap();
            }
            Ok(())
        });
        outcome.unwrap();
        assert!(seen.into_inner() > u64::from(times), "most of them are still read");
    });
}

// --- made to do harm -------------------------------------------------------------------------------

const FREE: u32 = place(3);
const SECTORS: u32 = FREE + 20;

/// The files of an image with these records in its root, beside one that is honest.
fn with(records: Vec<Record>) -> Shelf {
    let mut root = vec![Record::file("GOOD.;1", FREE + 1, 100).named(b"good")];
    root.extend(records);
    let folder = vec![Record::file("INNER.;1", FREE + 2, 10).named(b"inner")];
    Shelf::of(&hand::iso(&[root, folder, vec![]], SECTORS))
}

fn good(shelf: &Shelf) -> bool {
    shelf.read("good").is_ok_and(|bytes| bytes == (FREE + 1).to_be_bytes().repeat(25))
}

/// What is at such a path is refused, and what is beside it is served or refused, but not wrong.
fn refused(what: &str, shelf: &Shelf, path: &str) {
    survives(shelf);
    let told = match shelf.at(path) {
        Err(why) => why.to_string(),
        Ok(found) => panic!("{what}: {path} is {found:?}"),
    };
    assert!(told.len() > 10, "{what}: {told}");
    assert!(good(shelf) || shelf.at("good").is_err(), "{what}");
}

#[test]
fn what_is_said_to_be_beyond_the_end_is_refused() {
    for (what, extent, len) in [
        ("behind the end", SECTORS, 1),
        ("far behind the end", u32::MAX, 1),
        ("over the end", SECTORS - 1, SECTOR as u32 + 1),
        ("of four gigabytes", FREE, u32::MAX),
    ] {
        let shelf = with(vec![Record::file("BAD.;1", extent, len).named(b"bad")]);
        refused(what, &shelf, "bad");
        let folder = Record::file("BAD", extent, len).named(b"bad").flags(FOLDER);
        refused(what, &with(vec![folder]), "bad/inner");
        let part = |flags| Record::file("BAD.;1", extent, len).named(b"bad").flags(flags);
        let parts = (0..9).map(|_| part(GOES_ON)).chain([part(0)]).collect();
        refused(what, &with(parts), "bad");
    }
    let last = Record::file("LAST.;1", SECTORS - 1, SECTOR as u32).named(b"last");
    assert_eq!(with(vec![last]).read("last").unwrap(), (SECTORS - 1).to_be_bytes().repeat(512));
}

#[test]
fn folders_that_lead_in_circles_end() {
    within("circles", Duration::from_secs(60), || {
        let folder = |n: usize, to: usize| {
            Record::folder(&format!("D{n}"), to).named(format!("d{n}").as_bytes())
        };
        // To itself, to the root, to one another: thirty ways at each turn.
        for (what, records) in [
            ("the root in itself", (0..30).map(|n| folder(n, 0)).collect::<Vec<_>>()),
            ("one folder by many names", (0..30).map(|n| folder(n, 1)).collect()),
        ] {
            let shelf = with(records);
            survives(&shelf);
            assert!(good(&shelf) || shelf.at("good").is_err(), "{what}");
        }
        let ring = |to| (0..20).map(|n| folder(n, to)).collect::<Vec<_>>();
        let shelf = Shelf::of(&hand::iso(&[ring(1), ring(2), ring(1)], SECTORS));
        survives(&shelf);
        // As Rock Ridge moves folders aside (RRIP 1.12 section 4.1.5): to itself, to the root.
        let moved = |at: u32| {
            let mut entry = b"CL\x0c\x01".to_vec();
            hand::both(&mut entry, at);
            Record::file("MOVED.;1", FREE, 0).named(b"moved").with(&entry)
        };
        for at in [place(0), place(1), place(2), FREE, SECTORS, u32::MAX] {
            let shelf = with(vec![moved(at)]);
            survives(&shelf);
            assert!(good(&shelf) || shelf.at("good").is_err(), "moved to {at}");
        }
        // A continuation that is continued by itself (SUSP 1.12 section 5.1).
        for (block, offset, len) in [
            (FREE, 0, 28),
            (FREE, 2040, 28),
            (SECTORS, 0, 28),
            (FREE, u32::MAX, u32::MAX),
            (u32::MAX, 0, 2048),
        ] {
            let mut entry = b"CE\x1c\x01".to_vec();
            for n in [block, offset, len] {
                hand::both(&mut entry, n);
            }
            let root = vec![
                Record::file("GOOD.;1", FREE + 1, 100).named(b"good"),
                Record::file("ON.;1", FREE + 3, 10).with(&entry),
            ];
            let mut image = hand::iso(&[root, vec![], vec![]], SECTORS);
            image[FREE as usize * SECTOR..][..28].copy_from_slice(&entry);
            let shelf = Shelf::of(&image);
            survives(&shelf);
            assert!(good(&shelf) || shelf.at("good").is_err(), "goes on at {block}");
        }
    });
}

#[test]
fn names_that_no_path_has_lead_nowhere() {
    let long = [b'n'; 200];
    let file = |n: u32| Record::file(&format!("F{n}.;1"), FREE + 4, 10);
    let very_long = (0..100).fold(file(9), |record, _| match record.more.len() {
        0..150 => record.with(b"NM\x0a\x01\x01nnnnn"),
        _ => record,
    });
    let shelf = with(vec![
        file(0).named(b".."),
        file(1).named(b"."),
        file(2).named(b"a/b"),
        file(3).named(b"/etc/passwd"),
        file(4).named(b"line\nbreak"),
        file(5).named(b"nul\0"),
        file(6).named(b""),
        file(7).named(b"\x1b[2J"),
        Record::folder("F8", 1).named(b".."),
        very_long,
        // The name of one that is there already.
        file(10).named(b"good"),
        file(11).named(&long),
        file(12).named(b"<script>alert(1)"),
        file(13).named(b"100%"),
        file(14).named(b"\xff\xfe not UTF-8"),
        Record::file("A/B.;1", FREE + 4, 10),
        Record::file("..;1", FREE + 4, 10),
    ]);
    survives(&shelf);
    for path in ["..", "a/b", "../good", "etc/passwd", "line\nbreak", "nul\0", "\x1b[2J"] {
        assert!(shelf.at(path).is_err(), "{path:?}");
    }
    let Found::Dir(entries) = shelf.at("").unwrap() else { panic!("no folder") };
    for entry in &entries {
        let name = entry.name.as_encoded_bytes();
        let plain = !name.is_empty() && name != b"." && name != b"..";
        let harmless = !name.iter().any(|b| *b == b'/' || b.is_ascii_control());
        assert!(plain && harmless && name.len() <= 255, "{entry:?} is shown");
    }
    assert!(good(&shelf), "the first of a name");
    assert_eq!(entries.iter().filter(|e| e.name == "good").count(), 1, "a name is there once");
    assert_eq!(shelf.read("<script>alert(1)").unwrap().len(), 10);
    assert_eq!(shelf.read("100%").unwrap().len(), 10);
    assert_eq!(shelf.read(&"n".repeat(200)).unwrap().len(), 10);
}

#[test]
fn links_by_hand_stay_inside() {
    const UP: u8 = 4;
    const ROOT: u8 = 8;
    let link = |name: &str, parts: &[(u8, &[u8])]| {
        Record::file(&format!("{}.;1", name.to_uppercase()), 0, 0)
            .named(name.as_bytes())
            .link(parts)
    };
    let etc: &[(u8, &[u8])] = &[(UP, b""), (UP, b""), (0, b"etc"), (0, b"passwd")];
    let many: Vec<(u8, &[u8])> = vec![(UP, b"" as &[u8]); 50];
    let shelf = with(vec![
        link("up", etc),
        link("root", &[(ROOT, b""), (0, b"etc"), (0, b"passwd")]),
        link("slash", &[(0, b"../../etc/passwd")]),
        link("dots", &[(0, b".."), (0, b".."), (0, b"etc")]),
        link("nothing", &[]),
        link("empty", &[(0, b"")]),
        link("nul", &[(0, b"go\0od")]),
        link("many", &many),
        link("fine", &[(2, b""), (0, b"good")]),
        // Goes on in a record that does not come.
        link("cut", &[(1, b"go")]),
        // Longer than its entry.
        Record::file("LIE.;1", 0, 0).named(b"lie").with(b"SL\x09\x01\0\0\xfago"),
    ]);
    survives(&shelf);
    for path in ["up", "root", "slash", "dots", "nothing", "empty", "nul", "many", "lie", "cut"] {
        match shelf.at(path) {
            Err(_) => {}
            // The tree's own root, at most.
            Ok(Found::Dir(entries)) => assert!(entries.iter().any(|e| e.name == "good"), "{path}"),
            // One that says where it is, but nothing else: a file without bytes.
            Ok(found) => assert_eq!(stretches(&found), [], "{path}"),
        }
    }
    assert!(shelf.read("fine").is_ok_and(|bytes| bytes.len() == 100));
    assert!(good(&shelf));
}

/// A directory, byte by byte.
fn root(bytes: &[u8]) -> Shelf {
    let mut image = hand::iso(&[vec![], vec![], vec![]], SECTORS);
    let at = place(0) as usize * SECTOR;
    image[at..at + bytes.len()].copy_from_slice(bytes);
    Shelf::of(&image)
}

#[test]
fn records_that_lie_about_their_length_end() {
    within("lengths", Duration::from_secs(60), || {
        for length in [0, 1, 32, 33, 34, 254, 255] {
            for name in [0, 1, 2, 222, 255] {
                let mut bytes = vec![0x5a; 2 * SECTOR];
                bytes[..34].fill(0);
                (bytes[0], bytes[32]) = (length, name);
                survives(&root(&bytes));
            }
            survives(&root(&[length; 2 * SECTOR]));
        }
        // A descriptor whose numbers are absurd: block size, root folder, length of the volume.
        let image = hand::iso(&[vec![Record::file("A.;1", FREE, 10)], vec![], vec![]], SECTORS);
        let descriptor = 16 * SECTOR;
        for (what, at, len) in [
            ("blocks", 128, 4),
            ("root", 158, 8),
            ("length", 166, 8),
            ("volume", 80, 8),
            ("record", 156, 1),
        ] {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut image = image.clone();
                image[descriptor + at..][..len].fill(value);
                let shelf = Shelf::of(&image);
                survives(&shelf);
                assert!(shelf.at("none").is_err(), "{what} {value}");
            }
        }
        // No end of descriptors.
        let mut image = image.clone();
        let first = image[descriptor..descriptor + SECTOR].to_vec();
        for sector in 17..SECTORS as usize {
            image[sector * SECTOR..][..SECTOR].copy_from_slice(&first);
        }
        survives(&Shelf::of(&image));
        // No image at all.
        for bytes in [&b""[..], b"x", &[0; 40_000], &[0xff; 100_000]] {
            let told = Shelf::of(bytes).at("x").unwrap_err();
            assert!(told.to_string().len() > 10, "{told}");
            assert_ne!(told, Refused::NotThere, "no image: {} bytes", bytes.len());
        }
    });
}

#[test]
fn udf_that_lies_ends() {
    within("udf", Duration::from_secs(60), || {
        let free = hand::free(3);
        let blocks = free + 20;
        let files = |bad: Data| {
            let fine = Data::Short(vec![(free, 100)]);
            [("good", fine), ("bad", bad), ("worse", Data::Within(vec![7; 100]))]
        };
        let sectors = hand::PARTITION as u32 + blocks;
        for (what, bad) in [
            ("behind the end", Data::Short(vec![(blocks, 1)])),
            ("over the end", Data::Short(vec![(blocks - 1, 4096)])),
            ("far", Data::Long(vec![(u32::MAX, 2048)])),
            ("a gigabyte", Data::Short(vec![(0, 0x3fff_ffff); 100])),
            // The upper two bits say that it goes on elsewhere: here, at its own entry.
            ("in circles", Data::Short(vec![(free - 2, 0xc000_0800)])),
        ] {
            let shelf = Shelf::of(&hand::udf(&files(bad), false, sectors));
            survives(&shelf);
            assert!(shelf.read("bad").is_err(), "{what}");
            let good = shelf.read("good");
            assert!(good.is_err() || good.unwrap().len() == 100, "{what}");
        }
        // Each byte of what leads to the files, one after the other, as large as can be.
        let image = hand::udf(&files(Data::Short(vec![])), false, sectors);
        let begin = hand::PARTITION * SECTOR;
        let telling = |from: usize, len: usize| (from..from + len).filter(|at| image[*at] != 0);
        let all: Vec<usize> = (32..36)
            .flat_map(|n| telling(n * SECTOR, 512))
            .chain(telling(256 * SECTOR, 32))
            .chain(telling(begin, 4 * SECTOR))
            .collect();
        assert!(all.len() > 300);
        let mut shelf = Shelf::of(&image);
        let file = File::options().write(true).open(&shelf.images[0]).unwrap();
        for at in all {
            for value in [0, 0xff, image[at].wrapping_add(1)] {
                file.write_all_at(&[value], at as u64).unwrap();
                shelf.library = Library::default();
                survives(&shelf);
            }
            file.write_all_at(&image[at..=at], at as u64).unwrap();
        }
    });
}

#[test]
fn names_of_one_file_do_not_multiply_it() {
    within("names", Duration::from_secs(10), || {
        // Extents that lead to themselves, and a file of 65 000 parts by 500 names.
        for (extents, ring) in [(1, true), (3, true), (260, false)] {
            let shelf = Shelf::of(&hand::crowd(500, extents, ring));
            let told = shelf.at("n1").unwrap_err().to_string();
            let why = if ring { "holds what no image has there" } else { "too many pieces" };
            assert!(told.contains(why), "{extents}: {told}");
        }
        let shelf = Shelf::of(&hand::crowd(3, 3, false));
        assert_eq!(shelf.all().len(), 3);
        let found = shelf.at("n1").unwrap();
        assert_eq!(stretches(&found).len(), 750, "a few are a file");
    });
}

#[test]
fn a_record_of_udf_has_no_sum_over_others() {
    let files = [("a", Data::Within(vec![7; 9])), ("b", Data::Within(vec![7; 9]))];
    let image = hand::udf(&files, false, 300);
    assert!(Shelf::of(&image).at("a").is_ok());
    // The first of the folder's records is 40 bytes long.
    let mut image = image;
    let at = (hand::PARTITION + 2) * SECTOR;
    let sum = hand::crc(&image[at + 16..at + 80]).to_le_bytes();
    image[at + 8..at + 12].copy_from_slice(&[sum[0], sum[1], 64, 0]);
    let head = image[at..at + 16].iter().enumerate().filter(|(n, _)| *n != 4);
    image[at + 4] = head.fold(0, |sum: u8, (_, b)| sum.wrapping_add(*b));
    let told = Shelf::of(&image).at("a").unwrap_err().to_string();
    assert!(told.contains("holds what no image has there"), "{told}");
}

#[test]
fn a_record_goes_on_eight_times_at_most() {
    // SUSP 1.12 section 5.1; each area leads to the next one, in another block.
    let on = |hop: u32| {
        let mut entry = b"CE\x1c\x01".to_vec();
        for n in [FREE + 2 + hop % 2, hop * 40, 40] {
            hand::both(&mut entry, n);
        }
        entry
    };
    for (hops, is_read) in [(8, true), (9, false)] {
        let root = vec![Record::file("ON.;1", FREE + 4, 10).with(&on(0))];
        let mut image = hand::iso(&[root, vec![], vec![]], SECTORS);
        for hop in 0..hops {
            let at = (FREE + 2 + hop % 2) as usize * SECTOR + hop as usize * 40;
            image[at..at + 40].fill(0);
            let entry = if hop + 1 < hops { on(hop + 1) } else { b"NM\x09\x01\0last".to_vec() };
            image[at..at + entry.len()].copy_from_slice(&entry);
        }
        let read = Shelf::of(&image).read("last");
        assert_eq!(read.is_ok(), is_read, "{hops}: {read:?}");
    }
}

#[test]
fn what_is_no_file_is_no_image() {
    let mut shelf = Shelf::new();
    let path = shelf.add("a.iso");
    let gone = shelf.at("x").unwrap_err();
    assert_ne!(gone, Refused::NotThere, "the image is not there, which is not the path's fault");
    fs::create_dir(&path).unwrap();
    assert_ne!(shelf.at("x").unwrap_err(), Refused::NotThere);
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    within("a pipe", Duration::from_secs(20), move || {
        assert_ne!(shelf.at("x").unwrap_err(), Refused::NotThere);
    });
    let mut shelf = Shelf::new();
    shelf.images.push(Path::new("/dev/zero").into());
    within("a device", Duration::from_secs(20), move || {
        assert_ne!(shelf.at("x").unwrap_err(), Refused::NotThere);
    });
}
