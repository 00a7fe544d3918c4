//! Images of disks with the shapes of real media, made by xorriso and genisoimage out of a folder.

#[path = "left_out.rs"]
mod left_out;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use left_out::left_out;

/// Paths and lengths of a DVD as Red Hat lays it out; stand-ins for kernel and packages.
pub const REDHAT: &[(&str, usize)] = &[
    (".discinfo", 60),
    (".treeinfo", 400),
    ("EFI/BOOT/BOOTX64.EFI", 70_000),
    ("GPL", 18_092),
    ("Packages/z/zlib-1.2.7-21.el7.x86_64.rpm", 92_160),
    ("Packages/a/a-package-whose-name-is-as-long-as-some-are-in-fact-1.2.3-45.el7_9.x86_64.rpm", 1),
    ("images/empty", 0),
    ("images/pxeboot/initrd.img", 3_000_001),
    ("images/pxeboot/vmlinuz", 2048),
    ("isolinux/isolinux.bin", 2047),
    ("repodata/repomd.xml", 2049),
    ("repodata/a file with spaces & <marks>.txt", 33),
    ("a/b/c/d/e/f/g/h/i/j/deep.txt", 5000),
    ("a/b/c/d/e/f/g/h/i/j/k/l/deeper.txt", 70),
    ("i18n/Möhre – 漢字.txt", 9),
];

/// The same for a disc of plain ISO 9660: names as they were in 1988.
pub const PLAIN: &[(&str, usize)] = &[
    ("README", 12),
    ("I386/SETUP.EXE", 40_000),
    ("I386/NT.CAT", 2048),
    ("BOOT/KERNEL.IMG", 100_001),
    ("A/B/C/D/LAST.TXT", 5),
];

/// The same for Windows: a UDF volume, and beside it an ISO 9660 one that holds README.TXT alone.
pub const WINDOWS: &[(&str, usize)] = &[
    ("README.TXT", 300),
    ("bootmgr", 410_000),
    ("bootmgr.efi", 2_048),
    ("boot/bcd", 16_384),
    ("boot/boot.sdi", 3_170_304),
    ("boot/fonts/wgl4_boot.ttf", 47_452),
    ("efi/microsoft/boot/efisys_noprompt.bin", 1_474_560),
    ("sources/boot.wim", 5_000_003),
    ("sources/a name that is too long for Joliet on its sixty-four characters, but UDF.txt", 77),
    ("sources/empty.ini", 0),
    ("sources/Zeichen – 漢字.txt", 9),
];

/// Bytes that tell of which file they are and where in it.
pub fn content(path: &str, len: usize) -> Vec<u8> {
    let seed = path
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (0..len as u64 / 8 + 1).flat_map(|n| (seed ^ n).to_be_bytes()).take(len).collect()
}

/// Lays the files out below `at`.
pub fn lay(at: &Path, files: &[(&str, usize)]) {
    for (path, len) in files {
        put(at, path, &content(path, *len));
    }
}

pub fn put(at: &Path, path: &str, bytes: &[u8]) {
    let path = at.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn link(at: &Path, path: &str, to: &str) {
    let path = at.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(to, path).unwrap();
}

/// Whether the makers of images are there; otherwise the test is left out, and says so.
pub fn makers(test: &str) -> bool {
    let there = |tool: &str| Command::new(tool).arg("-version").output().is_ok();
    match ["xorriso", "genisoimage"].into_iter().find(|tool| !there(tool)) {
        None => true,
        Some(tool) => {
            left_out(test, &format!("no {tool}: scripts/deps test brings it"));
            false
        }
    }
}

/// `xorriso -as mkisofs ARGUMENTS FOLDER`, into `image`.
pub fn xorriso(image: &Path, folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet"]).args(arguments).arg("-o").arg(image).arg(folder);
    run(command);
}

/// `genisoimage ARGUMENTS FOLDER`, into `image`.
pub fn genisoimage(image: &Path, folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("genisoimage");
    command.args(["-quiet", "-input-charset", "utf-8"]).args(arguments);
    command.arg("-o").arg(image).arg(folder);
    run(command);
}

/// As Microsoft's maker lays it out: all is in the UDF volume, README.TXT alone in the other.
pub fn windows(image: &Path, folder: &Path) {
    let mut arguments = vec!["-udf", "-D", "-allow-limited-size", "-V", "CCCOMA_X64"];
    let names =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name != "README.TXT").collect();
    arguments.extend(names.iter().flat_map(|name| ["-hide", name]));
    genisoimage(image, folder, &arguments);
}

fn run(mut command: Command) {
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The same as [`xorriso`] for what is large and mostly zeros: takes no room for these.
pub fn xorriso_sparse(image: &Path, folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("xorriso");
    command.args(["-as", "mkisofs", "-quiet"]).args(arguments).arg(folder);
    sparse(command, image);
}

/// The same as [`genisoimage`] for that.
pub fn genisoimage_sparse(image: &Path, folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("genisoimage");
    command.args(["-quiet"]).args(arguments).arg(folder);
    sparse(command, image);
}

fn sparse(mut command: Command, image: &Path) {
    let mut maker =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
    let mut from = maker.stdout.take().unwrap();
    let mut to = File::create(image).unwrap();
    let (mut chunk, zeros, mut len) = (vec![0; 1 << 16], vec![0; 1 << 16], 0);
    loop {
        let n = from.read(&mut chunk).unwrap();
        match n {
            0 => break,
            _ if chunk[..n] == zeros[..n] => drop(to.seek(SeekFrom::Current(n as i64)).unwrap()),
            _ => to.write_all(&chunk[..n]).unwrap(),
        }
        len += n as u64;
    }
    assert!(maker.wait().unwrap().success(), "{command:?}");
    to.set_len(len).unwrap();
}

/// A file of zeros but for its first and last bytes and some at `at`, that takes no room.
pub fn hole(path: &Path, len: u64, marks: &[(u64, &[u8])]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    for (at, bytes) in marks {
        file.seek(SeekFrom::Start(*at)).unwrap();
        file.write_all(bytes).unwrap();
    }
}
