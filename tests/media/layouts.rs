//! The layouts that real media have: each file of each is what went in.

use std::fs;
use std::path::Path;

use pilotlight::media::{Found, Refused};
use rstest::rstest;

use super::hand::{self, Data, GOES_ON, Record, SECTOR};
use super::images;
use super::{Shelf, bytes, same, stretches};

type Maker = fn(&Path, &Path, &[&str]);

/// Folders of more than eight levels are moved aside by makers that keep to ECMA-119 section 6.8.2.1,
/// which without Rock Ridge loses them.
fn shallow(files: &[(&'static str, usize)]) -> Vec<(&'static str, usize)> {
    files.iter().copied().filter(|(path, _)| path.split('/').count() < 8).collect()
}

#[rstest]
#[case::rock_ridge(images::xorriso, &["-R", "-V", "CentOS 7 x86_64"])]
#[case::rock_ridge_and_joliet(images::xorriso, &["-R", "-J", "-joliet-long", "-V", "CentOS 7 x86_64"])]
#[case::deep_folders_as_they_are(images::xorriso, &["-R", "-D", "-V", "CentOS 7 x86_64"])]
#[case::deep_folders_hidden(images::xorriso, &["-R", "-hide-rr-moved", "-V", "CentOS 7 x86_64"])]
#[case::deep_folders_moved(images::genisoimage, &["-R", "-V", "CentOS 7 x86_64"])]
#[case::level_three(images::genisoimage, &["-r", "-J", "-joliet-long", "-iso-level", "3", "-T", "-V", "CentOS 7 x86_64"])]
#[case::udf_beside_rock_ridge(images::genisoimage, &["-R", "-udf", "-V", "CentOS 7 x86_64"])]
fn a_dvd_of_red_hats_is_read(#[case] maker: Maker, #[case] arguments: &[&str]) {
    if !images::makers("a_dvd_of_red_hats_is_read") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    images::lay(&from, images::REDHAT);
    maker(&shelf.add("a.iso"), &from, arguments);
    is_all_there(&shelf, images::REDHAT);
    let tree = shelf.library.tree(&shelf.images).unwrap();
    assert_eq!(tree.volume(), "CentOS 7 x86_64");
    assert!(tree.has("images/pxeboot/vmlinuz") && tree.has("images") && !tree.has("images/none"));
    same(&tree.read_small(".treeinfo", 65_536).unwrap(), &images::content(".treeinfo", 400), "all");
    same(&tree.read_small(".treeinfo", 9).unwrap(), &images::content(".treeinfo", 9), "some");
    assert_eq!(tree.read_small("images", 9), None, "a folder has no text");
}

#[rstest]
#[case::by_genisoimage(images::genisoimage, &["-J", "-joliet-long"])]
#[case::by_xorriso(images::xorriso, &["--norock", "-J", "-joliet-long"])]
fn a_disc_with_joliet_alone_is_read(#[case] maker: Maker, #[case] arguments: &[&str]) {
    if !images::makers("a_disc_with_joliet_alone_is_read") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    let files = shallow(images::REDHAT);
    images::lay(&from, &files);
    maker(&shelf.add("a.iso"), &from, arguments);
    is_all_there(&shelf, &files);
}

#[rstest]
#[case::by_genisoimage(images::genisoimage, &["-iso-level", "1"])]
#[case::by_xorriso(images::xorriso, &["--norock", "-iso-level", "1"])]
#[case::names_without_versions(images::genisoimage, &["-iso-level", "1", "-N", "-d"])]
#[case::of_1999(images::genisoimage, &["-iso-level", "4", "-input-charset", "iso8859-1"])]
fn a_plain_disc_is_read_by_any_case(#[case] maker: Maker, #[case] arguments: &[&str]) {
    if !images::makers("a_plain_disc_is_read_by_any_case") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    images::lay(&from, images::PLAIN);
    maker(&shelf.add("a.iso"), &from, arguments);
    is_all_there(&shelf, images::PLAIN);
    for (path, len) in images::PLAIN {
        let want = images::content(path, *len);
        same(&shelf.read(&path.to_lowercase()).unwrap(), &want, path);
    }
    assert_eq!(shelf.names("i386"), ["NT.CAT", "SETUP.EXE"]);
    assert_eq!(shelf.read("i386/setup.ex"), Err(Refused::NotThere));
}

#[test]
fn a_disc_of_windows_is_read() {
    if !images::makers("a_disc_of_windows_is_read") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    images::lay(&from, images::WINDOWS);
    images::windows(&shelf.add("a.iso"), &from);
    is_all_there(&shelf, images::WINDOWS);
    assert_eq!(shelf.library.tree(&shelf.images).unwrap().volume(), "CCCOMA_X64");
    let (path, len) = ("sources/boot.wim", 5_000_003);
    same(&shelf.read("SOURCES/BOOT.WIM").unwrap(), &images::content(path, len), "any case");
}

fn is_all_there(shelf: &Shelf, files: &[(&str, usize)]) {
    for (path, len) in files {
        let found = shelf.read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        same(&found, &images::content(path, *len), path);
    }
    let mut want: Vec<_> =
        files.iter().map(|(path, len)| ((*path).to_string(), *len as u64)).collect();
    want.sort();
    let mut all = shelf.all();
    // What makers add of their own.
    all.retain(|(path, _)| !path.ends_with("TRANS.TBL"));
    assert_eq!(all, want, "what the listings show");
    assert_eq!(shelf.read("none"), Err(Refused::NotThere));
    assert_eq!(shelf.read(&format!("{}/x", files[0].0)), Err(Refused::NotThere));
}

#[test]
fn an_exact_name_goes_before_one_of_another_case() {
    if !images::makers("an_exact_name_goes_before_one_of_another_case") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    for name in ["Dir/file", "dir/FILE", "dir/File", "DIR/only"] {
        images::put(&from, name, name.as_bytes());
    }
    images::xorriso(&shelf.add("a.iso"), &from, &["-R"]);
    for name in ["Dir/file", "dir/FILE", "dir/File", "DIR/only"] {
        assert_eq!(shelf.read(name).unwrap(), name.as_bytes(), "{name}");
    }
    assert_eq!(shelf.read("dir/fILE").unwrap()[..4], *b"dir/", "one of both");
    assert_eq!(shelf.read("DIR/ONLY").unwrap(), b"DIR/only");
}

#[rstest]
#[case::by_xorriso(images::xorriso)]
#[case::by_genisoimage(images::genisoimage)]
fn links_stay_inside(#[case] maker: Maker) {
    if !images::makers("links_stay_inside") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    images::put(&from, "dists/bookworm/Release", b"release");
    images::put(&from, "pool/a.deb", b"package");
    for (path, to) in [
        // As Debian's own media have them.
        ("debian", "."),
        ("dists/stable", "bookworm"),
        ("dists/bookworm/a.deb", "../../pool/a.deb"),
        ("pool/up", "./../dists//stable/"),
        ("two", "pool/up/../stable/Release"),
        ("out", "../secret"),
        ("dists/far", "../../../../../etc/passwd"),
        ("self", "self"),
        ("ping", "pong"),
        ("pong", "ping"),
        ("none", "pool/none"),
        ("through", "pool/a.deb/x"),
    ] {
        images::link(&from, path, to);
    }
    // A chain of forty is followed, one of forty-one is not.
    images::link(&from, "chain/1", "../pool/a.deb");
    for n in 2..=41 {
        images::link(&from, &format!("chain/{n}"), &(n - 1).to_string());
    }
    maker(&shelf.add("a.iso"), &from, &["-R"]);
    for (path, want) in [
        ("dists/stable/Release", "release"),
        ("debian/debian/debian/pool/a.deb", "package"),
        ("dists/stable/a.deb", "package"),
        ("pool/up/Release", "release"),
        ("two", "release"),
        ("chain/40", "package"),
    ] {
        let found = shelf.read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(String::from_utf8(found).unwrap(), want, "{path}");
    }
    for path in ["out", "dists/far"] {
        assert_eq!(shelf.read(path), Err(Refused::Outside), "{path}");
    }
    for path in ["self", "ping", "chain/41", "none", "through", "none/x"] {
        assert!(shelf.read(path).is_err(), "{path}");
    }
    assert_eq!(shelf.names("dists"), ["bookworm/", "stable/"], "only what leads somewhere");
    assert_eq!(shelf.names("pool"), ["a.deb", "up/"]);
}

/// A link to an absolute path was made for the root of the installed system, or of the maker's: it
/// is no more of the tree than one that climbs out.
#[test]
fn an_absolute_link_leads_nowhere_else() {
    if !images::makers("an_absolute_link_leads_nowhere_else") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    images::put(&from, "inside", b"inside");
    images::link(&from, "passwd", "/etc/passwd");
    images::link(&from, "root", "/");
    images::xorriso(&shelf.add("a.iso"), &from, &["-R"]);
    assert!(shelf.read("passwd").is_err());
    match shelf.at("root") {
        Err(why) => assert_eq!(why, Refused::Outside),
        Ok(Found::Dir(entries)) => assert!(entries.iter().any(|e| e.name == "inside")),
        Ok(other) => panic!("{other:?}"),
    }
}

#[test]
fn images_are_laid_over_one_another() {
    if !images::makers("images_are_laid_over_one_another") {
        return;
    }
    let mut shelf = Shelf::new();
    let (one, two) = (shelf.folder("one"), shelf.folder("two"));
    for (from, name, text) in [
        (&one, ".treeinfo", "one"),
        (&two, ".treeinfo", "two"),
        (&one, "Packages/a.rpm", "a of one"),
        (&two, "Packages/a.rpm", "a of two"),
        (&two, "Packages/b.rpm", "b of two"),
        (&one, "is/a/folder", "in a folder"),
        (&two, "is/a", "a file"),
        (&one, "and", "a file"),
        (&two, "and/a/folder", "in a folder"),
        (&one, "images/vmlinuz", "kernel"),
        (&two, "images/VMLINUZ", "another"),
    ] {
        images::put(from, name, text.as_bytes());
    }
    images::link(&one, "latest", "Packages/b.rpm");
    images::link(&two, "oldest", "Packages/a.rpm");
    images::xorriso(&shelf.add("1.iso"), &one, &["-R", "-V", "CentOS_6.8_Final"]);
    images::genisoimage(&shelf.add("2.iso"), &two, &["-R", "-J", "-V", "Disc 2"]);
    for (path, want) in [
        (".treeinfo", "one"),
        ("Packages/a.rpm", "a of one"),
        ("Packages/b.rpm", "b of two"),
        ("is/a/folder", "in a folder"),
        ("and", "a file"),
        ("images/vmlinuz", "kernel"),
        ("images/VMLINUZ", "another"),
        ("latest", "b of two"),
        ("oldest", "a of one"),
    ] {
        let found = shelf.read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(String::from_utf8(found).unwrap(), want, "{path}");
    }
    assert_eq!(shelf.read("and/a/folder"), Err(Refused::NotThere), "the first has a file there");
    assert_eq!(shelf.names("Packages"), ["a.rpm", "b.rpm"]);
    assert_eq!(shelf.library.tree(&shelf.images).unwrap().volume(), "CentOS_6.8_Final");
    shelf.images.reverse();
    assert_eq!(shelf.read("Packages/a.rpm").unwrap(), b"a of two", "in the order that is said");
    assert_eq!(shelf.read("is/a").unwrap(), b"a file");
}

/// Larger than a directory record can say (4 GiB): several records are one file (ECMA-119 section
/// 6.5.1).
#[test]
fn a_file_of_more_than_four_gigabytes_is_one() {
    if !images::makers("a_file_of_more_than_four_gigabytes_is_one") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    let len: u64 = (4 << 30) + 70_001;
    let marks: [(u64, &[u8]); 4] =
        [(0, b"begin"), ((4 << 30) - 4096, b"near"), (4 << 30, b"over"), (len - 3, b"end")];
    images::hole(&from.join("LiveOS/squashfs.img"), len, &marks);
    images::put(&from, "after", b"after");
    images::xorriso_sparse(&shelf.add("a.iso"), &from, &["-R", "-iso-level", "3"]);
    is_marked(&shelf, "LiveOS/squashfs.img", len, &marks);
    assert_eq!(shelf.read("after").unwrap(), b"after");
    assert_eq!(shelf.names("LiveOS"), ["squashfs.img"], "once");
}

/// An extent of UDF is at most a GiB (ECMA-167 4/14.14.1.1).
#[test]
fn a_file_of_several_gigabytes_is_one_in_udf() {
    if !images::makers("a_file_of_several_gigabytes_is_one_in_udf") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    let len: u64 = (2 << 30) + 12_345;
    let marks: [(u64, &[u8]); 4] =
        [(0, b"begin"), ((1 << 30) - 2050, b"near"), (2 << 30, b"over"), (len - 3, b"end")];
    images::hole(&from.join("install.wim"), len, &marks);
    let arguments = ["-udf", "-iso-level", "3", "-hide", "install.wim"];
    images::genisoimage_sparse(&shelf.add("a.iso"), &from, &arguments);
    is_marked(&shelf, "install.wim", len, &marks);
}

fn is_marked(shelf: &Shelf, path: &str, len: u64, marks: &[(u64, &[u8])]) {
    use std::os::unix::fs::FileExt;
    let found = shelf.at(path).unwrap();
    let parts = stretches(&found);
    assert_eq!(parts.iter().map(|(_, len)| len).sum::<u64>(), len);
    let Found::Image(file) = &found else { unreachable!() };
    for (at, want) in marks {
        let mut got = vec![0; want.len()];
        let mut begin = 0;
        for (offset, len) in &parts {
            if (begin..begin + len).contains(at) {
                file.image.file.read_exact_at(&mut got, offset.unwrap() + at - begin).unwrap();
            }
            begin += len;
        }
        assert_eq!(got, *want, "at {at}");
    }
}

/// The parts of a file need not follow one another in the image.
#[test]
fn the_parts_of_a_file_are_read_wherever_they_are() {
    let free = hand::place(1);
    let part = |at: u32, len: usize| Record::file("BIG.;1", free + at, len as u32).named(b"big");
    let shelf = Shelf::of(&hand::iso(
        &[vec![
            part(9, 2 * SECTOR).flags(GOES_ON),
            part(2, SECTOR).flags(GOES_ON),
            part(5, 100),
            Record::file("NEXT.;1", free + 3, 8).named(b"next"),
        ]],
        free + 20,
    ));
    let n = |at: u32, len: usize| (free + at).to_be_bytes().repeat(len / 4);
    let want = [n(9, SECTOR), n(10, SECTOR), n(2, SECTOR), n(5, 100)].concat();
    same(&shelf.read("big").unwrap(), &want, "big");
    assert_eq!(shelf.read("next").unwrap(), n(3, 8));
    assert_eq!(shelf.all(), [("big".into(), want.len() as u64), ("next".into(), 8)]);
}

#[rstest]
#[case::of_revision_102(false)]
#[case::of_revision_201(true)]
fn the_parts_of_a_file_of_udf_are_read_wherever_they_are(#[case] extended: bool) {
    let free = hand::free(4);
    let files = [
        ("within.txt", Data::Within(b"in its own entry".to_vec())),
        (
            "short",
            Data::Short(vec![(free + 7, 2 * SECTOR as u32), (free, SECTOR as u32), (free + 3, 9)]),
        ),
        ("long", Data::Long(vec![(free + 4, SECTOR as u32), (free + 1, 1000)])),
        ("Größe", Data::Short(vec![])),
    ];
    let shelf = Shelf::of(&hand::udf(&files, extended, 257 + free + 20));
    let n = |at: u32, len: usize| {
        (hand::PARTITION as u32 + free + at).to_be_bytes().repeat(len.div_ceil(4))[..len].to_vec()
    };
    assert_eq!(shelf.read("within.txt").unwrap(), b"in its own entry");
    let short = [n(7, SECTOR), n(8, SECTOR), n(0, SECTOR), n(3, 9)].concat();
    same(&shelf.read("short").unwrap(), &short, "short");
    same(&shelf.read("long").unwrap(), &[n(4, SECTOR), n(1, 1000)].concat(), "long");
    assert_eq!(shelf.read("Größe").unwrap(), b"");
    assert_eq!(shelf.library.tree(&shelf.images).unwrap().volume(), "BY_HAND");
}

#[test]
fn a_hundred_thousand_files_are_found() {
    if !images::makers("a_hundred_thousand_files_are_found") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    let source = |n: usize| from.join((n % 97).to_string());
    for n in 0..97 {
        fs::write(source(n), images::content(&n.to_string(), n * 50)).unwrap();
    }
    let name = |n: usize| format!("Packages/{:02}/package-{n}-1.2.3.el9.noarch.rpm", n % 20);
    let list: String =
        (0..100_000).map(|n| format!("{}={}\n", name(n), source(n).display())).collect();
    let path = shelf.dir.path().join("list");
    fs::write(&path, list).unwrap();
    let path = path.to_str().unwrap().to_string();
    let grafted = Path::new(&format!("sources={}", from.display())).to_path_buf();
    let arguments = ["-R", "-J", "-joliet-long", "-graft-points", "-path-list", &path];
    images::genisoimage(&shelf.add("a.iso"), &grafted, &arguments);
    for n in (0..100_000).step_by(617).chain([99_999]) {
        let want = images::content(&(n % 97).to_string(), n % 97 * 50);
        same(&shelf.read(&name(n)).unwrap(), &want, &name(n));
    }
    assert_eq!(shelf.names("Packages").len(), 20);
    assert_eq!(shelf.names("Packages/07").len(), 5000);
    assert_eq!(shelf.read("Packages/07/package-8-1.2.3.el9.noarch.rpm"), Err(Refused::NotThere));
}

/// Once in each of a set's images.
#[test]
fn what_is_seen_once_is_not_walked_again() {
    if !images::makers("what_is_seen_once_is_not_walked_again") {
        return;
    }
    let mut shelf = Shelf::new();
    let from = shelf.folder("from");
    images::lay(&from, images::PLAIN);
    images::xorriso(&shelf.add("a.iso"), &from, &["-R"]);
    let tree = shelf.library.tree(&shelf.images).unwrap();
    let again = shelf.library.tree(&shelf.images).unwrap();
    assert!(std::sync::Arc::ptr_eq(&tree, &again));
    assert_eq!(bytes(&tree.resolve(Path::new("README")).unwrap()).len(), 12);
}
