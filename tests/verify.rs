//! Metadata of mirrors, signed by GnuPG with keys of every kind, and changed in every place.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jiff::Timestamp;
use pilotlight::config::Verify;
use pilotlight::mirror::Digest;
use pilotlight::mirror::verify::{
    BadKey, Expect, Fault, Find, Role, Root, Set, Trust, role, roots,
};
use pilotlight::model::Why as _;

// ---- GnuPG ----

/// GnuPG with keys of its own, which end with the test.
struct Gpg {
    home: tempfile::TempDir,
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let mut kill = Command::new("gpgconf");
        let _ = kill.env("GNUPGHOME", self.home.path()).args(["--kill", "gpg-agent"]).output();
    }
}

impl Gpg {
    /// None where there is no gpg, which is a failure where everything is wanted.
    fn new(test: &str) -> Option<Gpg> {
        if Command::new("gpg").arg("--version").output().is_err() {
            let all = ["CI", "PILOTLIGHT_TESTS_ALL"];
            assert!(
                all.iter().all(|v| std::env::var_os(v).is_none()),
                "nothing may be left out: there is no gpg"
            );
            let _ = writeln!(io::stderr(), "left out: {test}: there is no gpg");
            return None;
        }
        Some(Gpg { home: tempfile::Builder::new().prefix("gpg").tempdir().unwrap() })
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .env("GNUPGHOME", self.home())
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"])
            .args(["--passphrase", "", "--trust-model", "always"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let run = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "gpg {arguments:?}: {said}");
        run.stdout
    }

    /// A key; gives its fingerprint.
    fn key(&self, name: &str, algorithm: &str, usage: &str, arguments: &[&str]) -> String {
        let mut all = arguments.to_vec();
        all.extend(["--quick-gen-key", name, algorithm, usage, "never"]);
        self.run(&all, b"");
        self.fingerprint(name)
    }

    fn fingerprint(&self, name: &str) -> String {
        let list = self.run(&["--with-colons", "--list-keys", name], b"");
        let list = String::from_utf8(list).unwrap();
        let line = list.lines().find(|l| l.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_string()
    }

    fn export(&self, names: &[&str]) -> Vec<u8> {
        self.run(&[&["--export"], names].concat(), b"")
    }

    fn armored(&self, names: &[&str]) -> Vec<u8> {
        self.run(&[&["--armor", "--export"], names].concat(), b"")
    }

    fn clearsign(&self, names: &[&str], arguments: &[&str], text: &str) -> Vec<u8> {
        let mut all = arguments.to_vec();
        names.iter().for_each(|name| all.extend(["--local-user", name]));
        all.push("--clearsign");
        self.run(&all, text.as_bytes())
    }

    fn detach(&self, name: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
        let mut all = arguments.to_vec();
        all.extend(["--local-user", name, "--detach-sign"]);
        self.run(&all, bytes)
    }
}

fn trust(files: &[&[u8]]) -> Trust {
    let named = |(i, bytes): (usize, &&[u8])| (PathBuf::from(format!("key{i}")), bytes.to_vec());
    Trust::read(&files.iter().enumerate().map(named).collect::<Vec<_>>()).unwrap()
}

fn nobody() -> Trust {
    Trust::default()
}

// ---- a small Debian archive ----

/// The clock of the tests: GnuPG signs by the real one.
fn now() -> Timestamp {
    std::time::SystemTime::now().try_into().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn root(path: &str, signatures: &[&str]) -> Root {
    Root {
        path: path.to_string(),
        signatures: signatures.iter().map(|s| (*s).to_string()).collect(),
    }
}

fn inrelease() -> Root {
    root("dists/bookworm/InRelease", &[])
}

fn expect(bytes: &[u8]) -> Expect {
    Expect { digest: Digest::sha256(bytes), size: Some(bytes.len() as u64) }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut to = liblzma::write::XzEncoder::new(Vec::new(), 1);
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A paragraph of Packages.
fn package(path: &str, bytes: &[u8]) -> String {
    let name = path.rsplit('/').next().unwrap().split('_').next().unwrap();
    format!(
        "Package: {name}\nVersion: 1\nDescription: a package\n of no use: SHA256: 00\nFilename: \
         {path}\nSize: {}\nMD5sum: 0123\nSHA256: {}\n\n",
        bytes.len(),
        Digest::sha256(bytes).hex()
    )
}

fn release(files: &[(&str, &[u8])], more: &str) -> String {
    let mut text = format!(
        "Origin: Debian\nSuite: stable\nCodename: bookworm\nDate: Sat, 10 Feb 2024 11:07:25 \
         UTC\n{more}MD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 nothing\nSHA256:\n"
    );
    for (name, bytes) in files {
        let _ = writeln!(text, " {} {:>8} {name}", Digest::sha256(bytes).hex(), bytes.len());
    }
    text
}

const KERNEL: &[u8] = b"a kernel";
const INSTALLER: &str = "main/installer-amd64/current/images";

fn sums(entries: &[(&str, &[u8])]) -> String {
    entries.iter().fold(String::new(), |mut text, (name, bytes)| {
        let _ = writeln!(text, "{}  {name}", Digest::sha256(bytes).hex());
        text
    })
}

/// A set of Debian that nobody signed.
fn debian(files: &[(&str, &[u8])], more: &str) -> Set {
    let text = release(files, more);
    Set::new(Verify::Debian, &inrelease(), text.as_bytes(), None, &nobody(), now()).unwrap()
}

fn wanted(set: &Set, path: &str) -> String {
    match set.find(path) {
        Find::Read { path, .. } => path,
        other => panic!("{path}: {other:?}"),
    }
}

fn fault(set: Result<Set, Fault>) -> Fault {
    set.err().expect("it is refused")
}

// ---- signatures ----

#[test]
fn what_a_named_key_signed_is_believed() {
    let Some(gpg) = Gpg::new("what_a_named_key_signed_is_believed") else { return };
    let rsa = gpg.key("rsa", "rsa2048", "sign", &[]);
    let ed = gpg.key("ed", "ed25519", "sign", &[]);
    let nist = gpg.key("nist", "nistp256", "sign", &[]);
    // As older distributions' are: bound by SHA-1.
    let old = gpg.key("old", "rsa2048", "sign", &["--cert-digest-algo", "SHA1"]);
    let certifies = gpg.key("sub", "rsa2048", "cert", &[]);
    gpg.run(&["--quick-add-key", &certifies, "ed25519", "sign", "never"], b"");

    // A dash, a line of spaces at its end, and no line end at the last: all that is escaped or
    // normalised on the way.
    let text = release(&[("-x", b"1"), ("y", b"2")], "Description: x \t\n-Dashed: yes\n");
    let text = text.trim_end();
    let ring = gpg.export(&["rsa", "ed", "nist", "old", "sub"]);
    let blocks =
        [gpg.armored(&["rsa"]), gpg.armored(&["ed"]), gpg.armored(&["nist", "old", "sub"])];
    let blocks = [&b"Our keys:\n\n"[..], &blocks.concat()].concat();
    for keys in [&ring, &blocks] {
        let trust = trust(&[keys]);
        assert!(!trust.is_empty());
        for key in [&rsa, &ed, &nist, &old, &certifies] {
            let signed = gpg.clearsign(&[key], &[], text);
            let windows = String::from_utf8(signed.clone()).unwrap().replace('\n', "\r\n");
            for bytes in [&signed[..], windows.as_bytes()] {
                let set = Set::new(Verify::Debian, &inrelease(), bytes, None, &trust, now());
                let set = set.unwrap_or_else(|e| panic!("{key}: {e}"));
                assert_eq!(set.generation(), Digest::sha256(bytes));
                assert_eq!(set.root(), &inrelease());
                assert_eq!(set.dated(), Some(at("2024-02-10T11:07:25Z")));
                let expect = Expect { digest: Digest::sha256(b"1"), size: Some(1) };
                assert_eq!(set.find("dists/bookworm/-x"), Find::Listed(expect));
            }
            for arguments in [&[][..], &["--armor"], &["--textmode"]] {
                let release = root("dists/bookworm/Release", &["dists/bookworm/Release.gpg"]);
                let signature = gpg.detach(key, arguments, text.as_bytes());
                let of = |text: &str| {
                    let bytes = text.as_bytes();
                    Set::new(Verify::Debian, &release, bytes, Some(&signature), &trust, now())
                };
                of(text).unwrap_or_else(|e| panic!("{key} {arguments:?}: {e}"));
                let changed = fault(of(&text.replace("stable", "Stable")));
                assert_eq!(changed.name(), "bad-signature", "{key}");
            }
        }
    }
}

#[test]
fn what_no_named_key_signed_is_refused() {
    let Some(gpg) = Gpg::new("what_no_named_key_signed_is_refused") else { return };
    let rsa = gpg.key("rsa", "rsa2048", "sign", &[]);
    let other = gpg.key("other", "ed25519", "sign", &[]);
    let ours = trust(&[&gpg.export(&["rsa"])]);
    let text = release(&[("x", b"1")], "");
    let read = |bytes: &[u8]| Set::new(Verify::Debian, &inrelease(), bytes, None, &ours, now());
    let refused = |bytes: &[u8]| fault(read(bytes));

    assert_eq!(refused(text.as_bytes()), Fault::Unsigned);
    let theirs = gpg.clearsign(&[&other], &[], &text);
    assert_eq!(refused(&theirs), Fault::UnknownKey(other[24..].to_lowercase()));
    // Two signatures of which one is of ours suffice, in either order.
    read(&gpg.clearsign(&[&other, &rsa], &[], &text)).unwrap();
    read(&gpg.clearsign(&[&rsa, &other], &[], &text)).unwrap();

    // GnuPG refuses to make one over MD5.
    let weak = gpg.clearsign(&[&rsa], &["--digest-algo", "SHA1"], &text);
    assert_eq!(refused(&weak), Fault::WeakSignature("SHA1".to_string()));

    let good = String::from_utf8(gpg.clearsign(&[&rsa], &[], &text)).unwrap();
    read(good.as_bytes()).unwrap();
    let hex = Digest::sha256(b"1").hex();
    let evil = good.replace(&hex, &Digest::sha256(b"2").hex());
    assert_eq!(refused(evil.as_bytes()), Fault::BadSignature(rsa[24..].to_lowercase()));

    // Around the signed part, and in its armor headers.
    let list = format!("SHA256:\n {} 1 x\n", Digest::sha256(b"2").hex());
    assert_eq!(refused(format!("{list}{good}").as_bytes()), Fault::Unsigned);
    assert_eq!(refused(format!("\n{good}").as_bytes()), Fault::Unsigned);
    let begin = "-----BEGIN PGP SIGNED MESSAGE-----\n";
    for evil in [
        format!("{good}{list}"),
        format!("{good}{good}"),
        good.replace(begin, &format!("{begin}{list}")),
        good.replace("\nSHA256:", "\n-\nSHA256:"),
        good.replace("Suite: stable\n", "Suite: stable\rSHA256:\n"),
        good.replace("\n-----END PGP SIGNATURE-----", "\n"),
    ] {
        assert_ne!(evil, good);
        assert_eq!(refused(evil.as_bytes()), Fault::NotClearsigned, "{evil}");
    }

    // A signature of another kind than over data: this one is over a key.
    let release = root("dists/bookworm/Release", &["dists/bookworm/Release.gpg"]);
    let key = gpg.export(&["rsa"]);
    for signature in [&key[..], b"", b"-----BEGIN PGP SIGNATURE-----\n", b"<html>"] {
        let bytes = text.as_bytes();
        let set = Set::new(Verify::Debian, &release, bytes, Some(signature), &ours, now());
        assert_eq!(fault(set), Fault::NotASignature);
    }
}

#[test]
fn a_key_signs_while_it_is_valid() {
    let Some(gpg) = Gpg::new("a_key_signs_while_it_is_valid") else { return };
    let in_2020 = ["--faked-system-time", "20200101T000000!"];
    let in_2022 = ["--faked-system-time", "20220101T000000!"];
    let key = gpg.key("key", "ed25519", "sign", &in_2020);
    let text = release(&[("x", b"1")], "");
    let early = gpg.clearsign(&[&key], &["--faked-system-time", "20200601T000000!"], &text);
    let late = gpg.clearsign(&[&key], &in_2022, &text);
    let short = [&in_2020[..], &["--default-sig-expire", "30d"]].concat();
    let short = gpg.clearsign(&[&key], &short, &text);
    let id = key[24..].to_lowercase();
    let read = |trust: &Trust, bytes: &[u8], now: Timestamp| {
        Set::new(Verify::Debian, &inrelease(), bytes, None, trust, now).map(|_| ())
    };

    let unlimited = trust(&[&gpg.export(&["key"])]);
    assert_eq!(read(&unlimited, &early, now()), Ok(()));
    assert_eq!(read(&unlimited, &late, now()), Ok(()));
    assert_eq!(
        read(&unlimited, &late, at("2021-12-01T00:00:00Z")),
        Err(Fault::SignatureAhead(id.clone()))
    );
    assert_eq!(read(&unlimited, &short, at("2020-01-20T00:00:00Z")), Ok(()));
    assert_eq!(
        read(&unlimited, &short, at("2020-03-01T00:00:00Z")),
        Err(Fault::SignatureExpired(id.clone()))
    );

    // Its end is a year after its making: what it signed before still counts.
    let year = [&["--faked-system-time", "20200701T000000!"], &["--quick-set-expire"][..]].concat();
    gpg.run(&[&year[..], &[&key, "2021-01-01"]].concat(), b"");
    let limited = trust(&[&gpg.export(&["key"])]);
    assert_eq!(read(&limited, &early, now()), Ok(()));
    assert_eq!(read(&limited, &late, now()), Err(Fault::KeyExpired(id)));
}

#[test]
fn a_revoked_key_signs_no_more() {
    let Some(gpg) = Gpg::new("a_revoked_key_signs_no_more") else { return };
    let text = release(&[("x", b"1")], "");
    let read = |trust: &Trust, bytes: &[u8]| {
        Set::new(Verify::Debian, &inrelease(), bytes, None, trust, now()).map(|_| ())
    };
    // 0: no reason told, 1: stolen, 2: superseded, 3: retired.
    for (reason, keeps_the_old) in [("0", false), ("1", false), ("2", true), ("3", true)] {
        let name = format!("key{reason}");
        let key = gpg.key(&name, "ed25519", "sign", &["--faked-system-time", "20200101T000000!"]);
        let id = key[24..].to_lowercase();
        let sign = |time: &str| gpg.clearsign(&[&key], &["--faked-system-time", time], &text);
        let (early, late) = (sign("20200601T000000!"), sign("20220101T000000!"));
        let before = trust(&[&gpg.export(&[&name])]);
        assert_eq!((read(&before, &early), read(&before, &late)), (Ok(()), Ok(())));

        let arguments = [
            "--no-batch",
            "--no-tty",
            "--command-fd",
            "0",
            "--faked-system-time",
            "20210101T000000!",
        ];
        let revoke = [&arguments[..], &["--gen-revoke", &key]].concat();
        let revocation = gpg.run(&revoke, format!("y\n{reason}\n\ny\n").as_bytes());
        gpg.run(&["--import"], &revocation);
        let revoked = trust(&[&gpg.export(&[&name])]);
        assert_eq!(read(&revoked, &late), Err(Fault::KeyRevoked(id.clone())), "{reason}");
        let of_old = if keeps_the_old { Ok(()) } else { Err(Fault::KeyRevoked(id)) };
        assert_eq!(read(&revoked, &early), of_old, "{reason}");
    }
}

#[test]
fn a_subkey_ends_by_itself_or_with_its_certificate() {
    let Some(gpg) = Gpg::new("a_subkey_ends_by_itself_or_with_its_certificate") else { return };
    let text = release(&[("x", b"1")], "");
    let in_2020 = ["--faked-system-time", "20200101T000000!"];
    let signed = |name: &str| {
        let primary = gpg.key(name, "ed25519", "cert", &in_2020);
        let add = ["--quick-add-key", &primary, "ed25519", "sign", "never"];
        gpg.run(&[&in_2020[..], &add].concat(), b"");
        let late = ["--faked-system-time", "20220101T000000!"];
        (primary.clone(), gpg.clearsign(&[&primary], &late, &text))
    };
    let read = |name: &str, bytes: &[u8]| {
        let trust = trust(&[&gpg.export(&[name])]);
        Set::new(Verify::Debian, &inrelease(), bytes, None, &trust, now()).map(|_| ())
    };
    let refused = |name: &str, bytes: &[u8]| read(name, bytes).unwrap_err().name();
    let in_2021 = ["--faked-system-time", "20210101T000000!"];
    let expire = |arguments: &[&str]| {
        let all = [&in_2021[..], &["--quick-set-expire"], arguments].concat();
        gpg.run(&all, b"");
    };

    let (primary, bytes) = signed("ends itself");
    assert_eq!(read("ends itself", &bytes), Ok(()));
    expire(&[&primary, "2021-06-01", "*"]);
    assert_eq!(refused("ends itself", &bytes), "key-expired");

    let (primary, bytes) = signed("ends with it");
    expire(&[&primary, "2021-06-01"]);
    assert_eq!(refused("ends with it", &bytes), "key-expired");

    let (primary, bytes) = signed("is revoked");
    let edit = ["--no-batch", "--no-tty", "--command-fd", "0", "--edit-key", &primary];
    gpg.run(&[&in_2021[..], &edit].concat(), b"key 1\nrevkey\ny\n0\n\ny\nsave\n");
    assert_eq!(refused("is revoked", &bytes), "key-revoked");
}

#[test]
fn a_file_that_is_no_key_is_named() {
    let Some(gpg) = Gpg::new("a_file_that_is_no_key_is_named") else { return };
    gpg.key("ed", "ed25519", "sign", &[]);
    gpg.key("only certifies", "ed25519", "cert", &[]);
    gpg.key("short", "rsa1024", "sign", &[]);
    let path = PathBuf::from("mirror.gpg");
    let read = |bytes: &[u8]| Trust::read(&[(path.clone(), bytes.to_vec())]).map(|_| ());
    let good = gpg.armored(&["ed"]);
    assert_eq!(read(&good), Ok(()));
    assert_eq!(read(b""), Err(BadKey::NotAKey(path.clone())));
    assert_eq!(read(b"a text"), Err(BadKey::NotAKey(path.clone())));
    assert_eq!(read(&gpg.export(&["only"])), Err(BadKey::NoneSigns(path.clone())));
    assert_eq!(read(&gpg.export(&["short"])), Err(BadKey::NoneSigns(path.clone())));
    let private = gpg.run(&["--export-secret-keys", "ed"], b"");
    assert_eq!(read(&private), Err(BadKey::Private(path.clone())));
    let private = gpg.run(&["--armor", "--export-secret-keys", "ed"], b"");
    assert_eq!(read(&private), Err(BadKey::Private(path.clone())));
    let keybox = std::iter::once(gpg.home().join("pubring.kbx"));
    for keybox in keybox.map(|p| std::fs::read(p).unwrap()) {
        assert_eq!(read(&keybox), Err(BadKey::Keybox(path.clone())));
    }
    let cut = &good[..good.len() / 2];
    assert!(matches!(read(cut), Err(BadKey::Damaged(..))), "{:?}", read(cut));
    for at in (0..good.len()).step_by(7) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        // Either it is refused or it is a key; a panic is neither.
        let _ = read(&changed);
    }
}

/// Every bit of every byte matters, or makes no difference to what is listed.
#[test]
fn no_changed_byte_changes_what_is_listed() {
    let Some(gpg) = Gpg::new("no_changed_byte_changes_what_is_listed") else { return };
    let key = gpg.key("ed", "ed25519", "sign", &[]);
    let ours = trust(&[&gpg.export(&["ed"])]);
    let text = release(&[("x", b"1"), ("main/binary-amd64/Packages", b"2")], "");
    let signed = gpg.clearsign(&[&key], &[], &text);
    let told = |set: &Set| (set.find("dists/bookworm/x"), set.find("pool/main/a/a_1_amd64.deb"));
    let right = Set::new(Verify::Debian, &inrelease(), &signed, None, &ours, now()).unwrap();
    let mut refused = 0;
    for at in 0..signed.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = signed.clone();
            changed[at] ^= bit;
            match Set::new(Verify::Debian, &inrelease(), &changed, None, &ours, now()) {
                Ok(set) => assert_eq!(told(&set), told(&right), "byte {at}, bit {bit:#x}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > signed.len() * 2, "{refused} of {}", 3 * signed.len());
    // The same of a binary signature beside its file.
    let repomd = root("repodata/repomd.xml", &["repodata/repomd.xml.asc"]);
    let bytes = repomd_of(&[("primary", "repodata/primary.xml", b"1")]);
    let signature = gpg.detach(&key, &[], bytes.as_bytes());
    let read = |signature: &[u8]| {
        Set::new(Verify::Rpm, &repomd, bytes.as_bytes(), Some(signature), &ours, now()).map(|_| ())
    };
    assert_eq!(read(&signature), Ok(()));
    let changed = |at: usize| {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        changed
    };
    let refused = (0..signature.len()).filter(|at| read(&changed(*at)).is_err()).count();
    assert!(refused > signature.len() / 2, "{refused} of {}", signature.len());
}

// ---- Debian ----

#[test]
fn a_release_leads_to_every_file() {
    let deb: &[u8] = b"a package";
    let udeb: &[u8] = b"a package of the installer";
    let main =
        package("pool/main/a/a/a_1_amd64.deb", deb) + &package("pool/main/a/d_1_all.deb", b"d");
    let contrib = package("pool/contrib/c/c/c_1_amd64.deb", b"c");
    let udebs = package("pool/main/u/u/u_1_amd64.udeb", udeb);
    let arm =
        package("pool/main/a/a/a_1_arm64.deb", b"arm") + &package("pool/main/a/e_1_all.deb", b"e");
    let (main_xz, main_gz) = (xz(main.as_bytes()), gzip(main.as_bytes()));
    let contrib = zstd(contrib.as_bytes());
    let images = sums(&[("./netboot/debian-installer/amd64/linux", KERNEL), ("./../evil", b"x")]);
    let sums_path = format!("{INSTALLER}/SHA256SUMS");
    let files: &[(&str, &[u8])] = &[
        ("main/binary-amd64/Packages", main.as_bytes()),
        ("main/binary-amd64/Packages.gz", &main_gz),
        ("main/binary-amd64/Packages.xz", &main_xz),
        ("main/binary-amd64/Release", b"inner"),
        ("main/binary-arm64/Packages", arm.as_bytes()),
        ("main/binary-s390x/Packages", b""),
        ("main/binary-s390x/Packages.gz", b"packed"),
        ("contrib/binary-amd64/Packages.zst", &contrib),
        ("main/debian-installer/binary-amd64/Packages", udebs.as_bytes()),
        ("main/i18n/Translation-en.xz", b"t"),
        (&sums_path, images.as_bytes()),
        ("../../evil", b"x"),
    ];
    let set = debian(files, "Acquire-By-Hash: yes\n");
    // Many requests ask one set.
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&set);
    let below = |name: &str| format!("dists/bookworm/{name}");
    for (name, bytes) in &files[..files.len() - 1] {
        assert_eq!(set.find(&below(name)), Find::Listed(expect(bytes)), "{name}");
    }
    assert_eq!(set.find("evil"), Find::NotListed);
    let by_hash = format!("main/binary-amd64/by-hash/SHA256/{}", Digest::sha256(&main_xz).hex());
    assert_eq!(set.find(&below(&by_hash)), Find::Listed(expect(&main_xz)));

    // A package: the index of its component and architecture, the smallest packing, by its digest.
    let path = "pool/main/a/a/a_1_amd64.deb";
    let index = below("main/binary-amd64/Packages.xz");
    let read = Find::Read { path: index.clone(), fetch: below(&by_hash), expect: expect(&main_xz) };
    assert_eq!(set.find(path), read);
    assert_eq!(set.find(path), read, "until it is read");
    assert_eq!(set.read("dists/bookworm/no", b""), Err(Fault::NotAnIndex));
    set.read(&index, &main_xz).unwrap();
    set.read(&index, b"read once").unwrap();
    assert_eq!(set.find(path), Find::Listed(expect(deb)));
    assert_eq!(set.find("pool/main/a/a/a_2_amd64.deb"), Find::NotListed);
    assert_eq!(set.indexes(), [index]);
    for bad in ["/pool/main/a/a/a_1_amd64.deb", "pool//main/a", "pool/main/../x_1_amd64.deb", ""] {
        assert_eq!(set.find(bad), Find::NotListed, "{bad}");
    }

    // Other components, architectures and kinds are read when they are asked for.
    assert_eq!(set.find("pool/main/a/d_1_all.deb"), Find::Listed(expect(b"d")));
    let other = below("contrib/binary-amd64/Packages.zst");
    assert_eq!(wanted(&set, "pool/contrib/c/c/c_1_amd64.deb"), other);
    set.read(&other, &contrib).unwrap();
    assert_eq!(set.find("pool/contrib/c/c/c_1_amd64.deb"), Find::Listed(expect(b"c")));
    let other = below("main/debian-installer/binary-amd64/Packages");
    assert_eq!(wanted(&set, "pool/main/u/u/u_1_amd64.udeb"), other);
    set.read(&other, udebs.as_bytes()).unwrap();
    assert_eq!(set.find("pool/main/u/u/u_1_amd64.udeb"), Find::Listed(expect(udeb)));
    assert_eq!(set.find("pool/main/s/s_1_s390x.deb"), Find::NotListed, "an empty index");
    let other = below("main/binary-arm64/Packages");
    assert_eq!(wanted(&set, "pool/main/a/e_1_all.deb"), other);
    set.read(&other, arm.as_bytes()).unwrap();
    assert_eq!(set.find("pool/main/a/e_1_all.deb"), Find::Listed(expect(b"e")));

    // The installer's files, by the list that the Release lists.
    let list = below(&sums_path);
    let linux = below(&format!("{INSTALLER}/netboot/debian-installer/amd64/linux"));
    let read =
        Find::Read { path: list.clone(), fetch: list.clone(), expect: expect(images.as_bytes()) };
    assert_eq!(set.find(&linux), read, "by its name, as installers ask for it");
    set.read(&list, images.as_bytes()).unwrap();
    let kernel = Expect { digest: Digest::sha256(KERNEL), size: None };
    assert_eq!(set.find(&linux), Find::Listed(kernel));
    let unlisted =
        below("main/installer-arm64/current/images/netboot/debian-installer/arm64/linux");
    assert_eq!(set.find(&unlisted), Find::NotListed);
}

#[test]
fn an_index_that_is_not_there_is_gone_round() {
    let text = package("pool/main/a/a_1_amd64.deb", b"a");
    let gz = gzip(text.as_bytes());
    let files: &[(&str, &[u8])] = &[
        ("main/binary-amd64/Packages", text.as_bytes()),
        ("main/binary-amd64/Packages.gz", &gz),
        ("main/binary-amd64/Packages.xz", b"no xz"),
        ("main/binary-amd64/Packages.bz2", b"nor this"),
    ];
    let path = "pool/main/a/a_1_amd64.deb";
    let below = |e: &str| format!("dists/bookworm/main/binary-amd64/Packages{e}");
    let set = debian(files, "");
    assert_eq!(wanted(&set, path), below(".xz"));
    // One that does not unpack is not asked for again.
    assert_eq!(set.read(&below(".xz"), b"no xz").unwrap_err().name(), "does-not-unpack");
    assert_eq!(wanted(&set, path), below(".gz"));
    set.skip(&below(".gz"));
    set.skip(&below(".gz"));
    assert_eq!(wanted(&set, path), below(""));
    set.skip(&below(""));
    assert_eq!(set.find(path), Find::NotListed);
    assert!(set.indexes().is_empty());
}

#[test]
fn archives_are_laid_out_in_many_ways() {
    let read = |path: &str, files: &[(&str, &[u8])]| {
        let text = release(files, "");
        Set::new(Verify::Debian, &root(path, &[]), text.as_bytes(), None, &nobody(), now()).unwrap()
    };
    // Below a folder of the mirror, a suite with a slash, and a component with one.
    let text = package("pool/updates/main/a/a_1_amd64.deb", b"a");
    let name = "updates/main/binary-amd64/Packages";
    let other = "updates/contrib/binary-amd64/Packages";
    let files = [(other, &b"o"[..]), (name, text.as_bytes())];
    let set = read("debian/dists/bookworm/updates/InRelease", &files);
    let path = "debian/pool/updates/main/a/a_1_amd64.deb";
    let index = format!("debian/dists/bookworm/updates/{name}");
    assert_eq!(wanted(&set, path), index);
    assert_eq!(set.find("pool/updates/main/a/a_1_amd64.deb"), Find::NotListed);
    set.read(&index, text.as_bytes()).unwrap();
    assert_eq!(set.find(path), Find::Listed(expect(b"a")));

    // Flat: all in one folder, whose names begin there.
    let text = package("./a_1_amd64.deb", b"a") + &package("sub/b_1_all.udeb", b"b");
    let set = read("deb/InRelease", &[("Packages", text.as_bytes())]);
    assert_eq!(wanted(&set, "deb/a_1_amd64.deb"), "deb/Packages");
    assert_eq!(wanted(&set, "deb/sub/b_1_all.udeb"), "deb/Packages");
    set.read("deb/Packages", text.as_bytes()).unwrap();
    assert_eq!(set.find("deb/a_1_amd64.deb"), Find::Listed(expect(b"a")));

    // A pool inside of the suite, and one whose folders are no components.
    let path = "dists/bookworm/pool/stable/amd64/a_1_amd64.deb";
    let set = read(inrelease().path.as_str(), &[("stable/binary-amd64/Packages", b"x")]);
    assert_eq!(wanted(&set, path), "dists/bookworm/stable/binary-amd64/Packages");
    let set = read(inrelease().path.as_str(), &[("main/binary-amd64/Packages", b"x")]);
    assert_eq!(wanted(&set, "pool/a/a_1_amd64.deb"), "dists/bookworm/main/binary-amd64/Packages");

    // SHA-512 alone, and both.
    let long = Digest::of(b"1", Digest::Sha512([0; 64]));
    let only = format!("SHA512:\n {} 1 x\n", long.hex());
    let release = |text: &str| {
        Set::new(Verify::Debian, &inrelease(), text.as_bytes(), None, &nobody(), now())
    };
    let listed = Find::Listed(Expect { digest: long, size: Some(1) });
    assert_eq!(release(&only).unwrap().find("dists/bookworm/x"), listed);
    let both = format!("SHA256:\n {} 1 x\n{only}", Digest::sha256(b"1").hex());
    let both = release(&both).unwrap();
    assert_eq!(both.find("dists/bookworm/x"), Find::Listed(expect(b"1")));
    let by_hash = format!("dists/bookworm/by-hash/SHA512/{}", long.hex());
    assert_eq!(both.find(&by_hash), Find::Listed(expect(b"1")));
}

#[test]
fn a_release_that_is_none_is_refused() {
    let day = at("2024-02-12T00:00:00Z");
    let read =
        |text: &str| Set::new(Verify::Debian, &inrelease(), text.as_bytes(), None, &nobody(), day);
    let with = |more: &str| release(&[("x", b"1")], more);
    let until = with("Valid-Until: Sat, 17 Feb 2024 11:07:25 UTC\n");
    assert_eq!(read(&until).unwrap().expires(), Some(at("2024-02-17T11:07:25Z")));
    let ended = with("Valid-Until: Sun, 11 Feb 2024 11:07:25 UTC\n");
    assert_eq!(fault(read(&ended)), Fault::Stale(at("2024-02-11T11:07:25Z")));
    assert_eq!(fault(read(&with("Valid-Until: soon\n"))).name(), "not-a-release");
    let weak = "Suite: bookworm\nMD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 x\n";
    assert_eq!(fault(read(weak)), Fault::WeakDigests);
    for text in ["", "<html>", "SHA256:\n x 1 y\n", "SHA256:\n 00 1 y\n", "SHA256:\n 1\n"] {
        assert_eq!(fault(read(text)).name(), "not-a-release", "{text}");
    }
    let short = until.replace("SHA256:", "SHA512:");
    assert_eq!(fault(read(&short)).name(), "not-a-release");
    let large = vec![b' '; pilotlight::mirror::verify::ROOT_LIMIT + 1];
    let set = Set::new(Verify::Debian, &inrelease(), &large, None, &nobody(), day);
    assert_eq!(fault(set).name(), "metadata-too-large");
    let set = Set::new(Verify::Plain, &inrelease(), b"", None, &nobody(), day);
    assert_eq!(fault(set), Fault::NotVerified);
}

// ---- RPM ----

fn repomd_of(files: &[(&str, &str, &[u8])]) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd \
                    xmlns=\"http://linux.duke.edu/metadata/repo\">\n<revision>1</revision>\n"
        .to_string();
    for (kind, href, bytes) in files {
        let _ = writeln!(
            text,
            "<data type=\"{kind}\"><checksum type=\"sha256\">{}</checksum><open-checksum \
             type=\"sha256\">{}</open-checksum><location href=\"{href}\"/><timestamp>1</timestamp>\
             <size>{}</size><open-size>9</open-size></data>",
            Digest::sha256(bytes).hex(),
            Digest::sha256(b"open").hex(),
            bytes.len()
        );
    }
    text + "</repomd>\n"
}

fn primary_of(packages: &[(&str, &str, &[u8])]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
         packages=\"{}\">\n",
        packages.len()
    );
    for (location, algorithm, bytes) in packages {
        let _ = writeln!(
            text,
            "<package type=\"rpm\"><name>x</name><version epoch=\"0\" ver=\"1\" rel=\"1\"/>\
             <checksum type=\"{algorithm}\" pkgid=\"YES\">{}</checksum><summary>a &lt; b &amp; \
             c</summary><size package=\"{}\" installed=\"7\" archive=\"8\"/><location \
             {location}/><format><file>/size</file></format></package>",
            Digest::sha256(bytes).hex(),
            bytes.len()
        );
    }
    text + "</metadata>\n"
}

fn rpm(path: &str, bytes: &[u8]) -> Result<Set, Fault> {
    Set::new(Verify::Rpm, &root(path, &[]), bytes, None, &nobody(), now())
}

#[test]
fn a_repomd_leads_to_every_package() {
    let primary = primary_of(&[
        ("href=\"Packages/a/a-1.x86_64.rpm\"", "sha256", b"a"),
        ("href=\"Packages/b/b&amp;b-1.x86_64.rpm\"", "sha256", b"b"),
        ("href=\"../evil-1.x86_64.rpm\"", "sha256", b"e"),
        ("href=\"/evil-2.x86_64.rpm\"", "sha256", b"e"),
        ("href=\"e-3.x86_64.rpm\" xml:base=\"http://evil.example/\"", "sha256", b"e"),
        ("href=\"weak-1.x86_64.rpm\"", "sha", b"w"),
    ]);
    let plain = primary.as_bytes();
    let (one, two) = plain.split_at(500);
    for (ext, packed) in [
        ("", plain.to_vec()),
        (".gz", gzip(plain)),
        (".xz", xz(plain)),
        (".zst", zstd(plain)),
        // In two members, streams or frames, as parallel packers write them.
        (".2.gz", [gzip(one), gzip(two)].concat()),
        (".2.xz", [xz(one), xz(two)].concat()),
        (".2.zst", [zstd(one), zstd(two)].concat()),
    ] {
        let href = format!("repodata/primary.xml{ext}");
        let repomd =
            repomd_of(&[("primary", &href, &packed), ("group", "repodata/comps.xml", b"g")]);
        let set = rpm("9/os/repodata/repomd.xml", repomd.as_bytes()).unwrap();
        let index = format!("9/os/{href}");
        assert_eq!(set.find("9/os/repodata/comps.xml"), Find::Listed(expect(b"g")));
        assert_eq!(set.find(&index), Find::Listed(expect(&packed)));
        assert_eq!(set.find("9/os/images/vmlinuz"), Find::NotListed);
        let path = "9/os/Packages/a/a-1.x86_64.rpm";
        let read =
            Find::Read { path: index.clone(), fetch: index.clone(), expect: expect(&packed) };
        assert_eq!(set.find(path), read);
        set.read(&index, &packed).unwrap();
        assert_eq!(set.find(path), Find::Listed(expect(b"a")));
        assert_eq!(set.find("9/os/Packages/b/b&b-1.x86_64.rpm"), Find::Listed(expect(b"b")));
        for evil in ["evil-1", "9/evil-1", "evil-2", "9/os/evil-2", "9/os/e-3", "9/os/weak-1"] {
            assert_eq!(set.find(&format!("{evil}.x86_64.rpm")), Find::NotListed, "{evil}");
        }
        assert_eq!(set.indexes(), [index]);
    }
}

#[test]
fn xml_that_is_none_is_refused() {
    let good = repomd_of(&[("primary", "repodata/p.xml", b"p")]);
    let read = |text: &str| rpm("repodata/repomd.xml", text.as_bytes());
    read(&good).unwrap();
    for bad in [
        String::new(),
        "text".to_string(),
        "<repomd></repomd>".to_string(),
        good[..good.len() / 2].to_string(),
        good.replace("</data>", "</date\u{1b}[31m>"),
        good.replace("<repomd", "<!DOCTYPE x [<!ENTITY a \"b\">]><repomd"),
        good.replace("repodata/p.xml", "&a;"),
    ] {
        let fault = fault(read(&bad));
        assert_eq!(fault.name(), "not-xml", "{bad}");
        assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
    }
    let weak = good.replace("type=\"sha256\"", "type=\"sha\"");
    assert_eq!(fault(read(&weak)), Fault::WeakDigests);
    let many: Vec<_> = (0..1001).map(|_| ("x", "repodata/x", &b"x"[..])).collect();
    assert_eq!(fault(read(&repomd_of(&many))), Fault::TooMany(1000));
    let set = read(&good).unwrap();
    let weak = primary_of(&[("href=\"a.rpm\"", "sha", b"a")]);
    assert_eq!(set.read("repodata/p.xml", weak.as_bytes()), Err(Fault::WeakDigests));
    assert_eq!(set.find("a.rpm"), Find::NotListed);
}

#[test]
fn a_tree_lists_its_kernel_and_no_package() {
    let Some(gpg) = Gpg::new("a_tree_lists_its_kernel_and_no_package") else { return };
    let key = gpg.key("ed", "ed25519", "sign", &[]);
    let ours = trust(&[&gpg.export(&["ed"])]);
    let hex = Digest::sha256(KERNEL).hex();
    let text = format!(
        "[checksums]\nimages/pxeboot/vmlinuz = sha256:{hex}\nimages/old = md5:00\n../up = \
         sha256:{hex}\nPackages/a.rpm = sha256:{hex}\nrepodata/repomd.xml = sha256:{hex}\n\n\
         [general]\nfamily = Rocky\n"
    );
    let treeinfo = root("9/os/.treeinfo", &[]);
    let read = |text: &str| Set::new(Verify::Rpm, &treeinfo, text.as_bytes(), None, &ours, now());
    let set = read(&text).unwrap();
    let kernel = Find::Listed(Expect { digest: Digest::sha256(KERNEL), size: None });
    assert_eq!(set.find("9/os/images/pxeboot/vmlinuz"), kernel);
    for no in ["images/old", "../up", "Packages/a.rpm", "repodata/repomd.xml", "images/no"] {
        assert_eq!(set.find(&format!("9/os/{no}")), Find::NotListed, "{no}");
    }
    assert_eq!(fault(read("[general]\n")).name(), "not-treeinfo");
    assert_eq!(fault(read("[checksums]\na = md5:00\n")), Fault::WeakDigests);

    // What can be signed must be: repomd.xml, and openSUSE's list of the same files.
    let repomd = root("repodata/repomd.xml", &["repodata/repomd.xml.asc"]);
    let bytes = repomd_of(&[("primary", "repodata/p.xml", b"p")]);
    let read = |root: &Root, bytes: &[u8], signature: Option<&[u8]>| {
        Set::new(Verify::Rpm, root, bytes, signature, &ours, now())
    };
    assert_eq!(fault(read(&repomd, bytes.as_bytes(), None)), Fault::Unsigned);
    let signature = gpg.detach(&key, &["--armor"], bytes.as_bytes());
    read(&repomd, bytes.as_bytes(), Some(&signature)).unwrap();
    let checksums = root("oss/CHECKSUMS", &["oss/CHECKSUMS.asc"]);
    let text = sums(&[("boot/x86_64/loader/linux", KERNEL)]);
    assert_eq!(fault(read(&checksums, text.as_bytes(), None)), Fault::Unsigned);
    let signature = gpg.detach(&key, &["--armor"], text.as_bytes());
    let set = read(&checksums, text.as_bytes(), Some(&signature)).unwrap();
    assert_eq!(set.find("oss/boot/x86_64/loader/linux"), kernel);
}

// ---- lists of digests ----

#[test]
fn lists_are_written_in_many_ways() {
    let hex = Digest::sha256(KERNEL).hex();
    let long = Digest::of(KERNEL, Digest::Sha512([0; 64]));
    let text = format!(
        "# a comment\n{hex}  a\n{hex} *b/c\n{hex}  ./d e\r\nSHA256 (f (1)) = {hex}\n{}  g\n{}  \
         h\n\n{hex}  ../up\n{hex}  /top\n{hex}\n",
        long.hex(),
        &hex[..40]
    );
    let read = |path: &str, text: &str, trust: &Trust| {
        Set::new(Verify::Sums, &root(path, &[]), text.as_bytes(), None, trust, now())
    };
    let set = read("x/SHA256SUMS", &text, &nobody()).unwrap();
    let kernel = Find::Listed(Expect { digest: Digest::sha256(KERNEL), size: None });
    for name in ["a", "b/c", "d e", "f (1)"] {
        assert_eq!(set.find(&format!("x/{name}")), kernel, "{name}");
    }
    assert_eq!(set.find("x/g"), Find::Listed(Expect { digest: long, size: None }));
    for no in ["x/h", "up", "top", "x/top", "x"] {
        assert_eq!(set.find(no), Find::NotListed, "{no}");
    }
    // Of one file, with its name or without.
    for text in [format!("{hex}\n"), format!("{hex}  vmlinuz\n")] {
        assert_eq!(read("x/vmlinuz.sha256", &text, &nobody()).unwrap().find("x/vmlinuz"), kernel);
    }
    assert_eq!(fault(read("SHA256SUMS", "<html>", &nobody())), Fault::NotSums);
    let sha1 = format!("{}  a\n", &hex[..40]);
    assert_eq!(fault(read("SHA256SUMS", &sha1, &nobody())), Fault::WeakDigests);

    let Some(gpg) = Gpg::new("lists_are_written_in_many_ways") else { return };
    let key = gpg.key("ed", "ed25519", "sign", &[]);
    let ours = trust(&[&gpg.export(&["ed"])]);
    let signed = String::from_utf8(gpg.clearsign(&[&key], &[], &text)).unwrap();
    let set = read("x/Fedora-Server-39-1.5-x86_64-CHECKSUM", &signed, &ours).unwrap();
    assert_eq!(set.find("x/b/c"), kernel);
    assert_eq!(fault(read("SHA256SUMS", &text, &ours)), Fault::Unsigned);
    let beside = gpg.detach(&key, &[], text.as_bytes());
    let list = root("SHA256SUMS", &["SHA256SUMS.gpg"]);
    Set::new(Verify::Sums, &list, text.as_bytes(), Some(&beside), &ours, now()).unwrap();
}

// ---- names ----

#[test]
fn names_tell_what_a_file_is() {
    use Verify::{Debian, Plain, Rpm, Sums};
    for (kind, path, is) in [
        (Debian, "dists/bookworm/InRelease", Role::Root),
        (Debian, "dists/bookworm/Release", Role::Root),
        (Debian, "dists/bookworm/updates/Release.gpg", Role::Signature),
        (Debian, "dists/bookworm/main/binary-amd64/Release", Role::Listed),
        (Debian, "dists/bookworm/main/installer-amd64/current/images/SHA256SUMS", Role::Listed),
        (Debian, "InRelease", Role::Root),
        (Debian, "pool/main/a/a_1_amd64.deb", Role::Listed),
        (Rpm, "repodata/repomd.xml", Role::Root),
        (Rpm, "9/os/repodata/repomd.xml", Role::Root),
        (Rpm, "9/os/repodata/repomd.xml.asc", Role::Signature),
        (Rpm, "9/os/repodata/repomd.xml.key", Role::Signature),
        (Rpm, "9/os/.treeinfo", Role::Root),
        (Rpm, "9/os/treeinfo", Role::Root),
        (Rpm, "CHECKSUMS", Role::Root),
        (Rpm, "CHECKSUMS.asc", Role::Signature),
        (Rpm, "repodata/primary.xml.gz", Role::Listed),
        (Sums, "x/SHA256SUMS", Role::Root),
        (Sums, "x/SHA256SUMS.gpg", Role::Signature),
        (Sums, "x/SHA256SUMS.sign", Role::Signature),
        (Sums, "sha256sum.txt.asc", Role::Root),
        (Sums, "x/vmlinuz.sha256", Role::Root),
        (Sums, "x/vmlinuz.asc", Role::Listed),
        (Sums, "x/vmlinuz", Role::Listed),
        (Plain, "dists/bookworm/InRelease", Role::Listed),
    ] {
        assert_eq!(role(kind, path), is, "{kind:?} {path}");
    }
}

#[test]
fn names_tell_where_a_set_may_begin() {
    use Verify::{Debian, Plain, Rpm, Sums};
    let first = |kind: Verify, path: &str, n: usize| -> Vec<String> {
        let all = roots(kind, path);
        assert!(all.len() <= 12, "{path}: {}", all.len());
        assert!(all.iter().all(|r| role(kind, &r.path) == Role::Root), "{all:?}");
        let signature = |r: &Root| r.signatures.iter().all(|s| role(kind, s) == Role::Signature);
        assert!(all.iter().all(signature), "{all:?}");
        all.into_iter().take(n).map(|r| r.path).collect()
    };
    let netboot = "dists/bookworm/main/installer-amd64/current/images/netboot/linux";
    assert_eq!(first(Debian, netboot, 9), ["dists/bookworm/InRelease", "dists/bookworm/Release"]);
    assert_eq!(
        first(Debian, "debian/dists/buster/updates/main/binary-amd64/Packages.xz", 2),
        ["debian/dists/buster/InRelease", "debian/dists/buster/updates/InRelease"]
    );
    assert_eq!(first(Debian, "dists/bookworm/Contents-amd64.gz", 1), ["dists/bookworm/InRelease"]);
    assert!(first(Debian, "pool/main/a/a_1_amd64.deb", 9).is_empty());
    assert!(first(Debian, "dists/bookworm", 9).is_empty());
    assert_eq!(first(Debian, "deb/a_1_amd64.deb", 2), ["deb/InRelease", "InRelease"]);

    assert_eq!(
        first(Rpm, "9/os/Packages/a/a-1.rpm", 2),
        ["9/os/repodata/repomd.xml", "9/os/Packages/a/repodata/repomd.xml"]
    );
    assert_eq!(first(Rpm, "9/os/repodata/primary.xml.gz", 9), ["9/os/repodata/repomd.xml"]);
    assert_eq!(first(Rpm, "9/os/images/pxeboot/vmlinuz", 2), ["9/os/.treeinfo", "9/os/CHECKSUMS"]);
    assert_eq!(first(Rpm, "a-1.rpm", 9), ["repodata/repomd.xml"]);

    assert_eq!(first(Sums, "x/y/linux", 1), ["x/y/SHA256SUMS"]);
    let all = first(Sums, "x/y/linux", 12);
    for list in ["x/SHA256SUMS", "SHA256SUMS", "x/y/linux.sha256", "x/y/sha256sums.txt"] {
        assert!(all.iter().any(|l| l == list), "{list}: {all:?}");
    }
    assert!(first(Plain, netboot, 9).is_empty());
    for bad in ["", "/", "../x", "a//b", "a/./b", "a\n", &"x/".repeat(600)] {
        assert!([Debian, Rpm, Sums].iter().all(|k| roots(*k, bad).is_empty()), "{bad:?}");
    }
    first(Rpm, &format!("{}x", "x/".repeat(400)), 12);
}

// ---- hostile ----

#[test]
fn what_unpacks_without_end_is_stopped() {
    let lines = "Package: x\n\n".repeat(4 << 20);
    let one_line = vec![b'x'; 8 << 20];
    let set = |packed: &[u8], name: &str| {
        let name = format!("main/binary-amd64/{name}");
        let set = debian(&[(&name, packed)], "");
        set.read(&format!("dists/bookworm/{name}"), packed)
    };
    for bomb in [lines.as_bytes(), &one_line] {
        let (gz, xz) = (gzip(bomb), xz(bomb));
        assert_eq!(set(&gz, "Packages.gz").unwrap_err().name(), "metadata-too-large");
        assert_eq!(set(&xz, "Packages.xz").unwrap_err().name(), "metadata-too-large");
    }
    let open = [b"<metadata><package><checksum type=\"".to_vec(), one_line].concat();
    let zst = zstd(&open);
    let repomd = repomd_of(&[("primary", "repodata/p.xml.zst", &zst)]);
    let set = rpm("repodata/repomd.xml", repomd.as_bytes()).unwrap();
    let fault = set.read("repodata/p.xml.zst", &zst).unwrap_err();
    assert_eq!(fault.name(), "metadata-too-large");
}

/// A generator without a seed from outside: what fails, fails again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }

    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.roll(4) {
            let at = self.roll(out.len());
            match self.roll(5) {
                0 => out.truncate(at),
                1 => out.insert(at.min(out.len()), u8::try_from(self.roll(256)).unwrap()),
                2 => {
                    let end = (at + self.roll(40)).min(out.len());
                    out.drain(at.min(end)..end);
                }
                3 => {
                    let piece = out[at.min(out.len())..].to_vec();
                    out.extend(piece.into_iter().take(200));
                }
                _ => {
                    if let Some(byte) = out.get_mut(at) {
                        *byte = b"\0\n\r -=<>\"'&/.\xff"[self.roll(14)];
                    }
                }
            }
        }
        out
    }
}

#[test]
fn spoilt_metadata_never_panic() {
    let primary = primary_of(&[("href=\"a.rpm\"", "sha256", b"a")]);
    let packages = package("pool/main/a/a_1_amd64.deb", b"a");
    let debian_files: &[(&str, &[u8])] = &[("main/binary-amd64/Packages", packages.as_bytes())];
    let treeinfo = format!("[checksums]\nimages/x = sha256:{}\n", Digest::sha256(b"x").hex());
    let list = sums(&[("a", b"a")]) + "SHA256 (b) = 00\n";
    let repomd = repomd_of(&[("primary", "repodata/p.xml", b"p")]);
    let release = release(debian_files, "Valid-Until: Sat, 17 Feb 2034 11:07:25 UTC\n");
    let inputs: &[(Verify, &str, &[u8])] = &[
        (Verify::Debian, "dists/bookworm/InRelease", release.as_bytes()),
        (Verify::Rpm, "repodata/repomd.xml", repomd.as_bytes()),
        (Verify::Rpm, ".treeinfo", treeinfo.as_bytes()),
        (Verify::Sums, "SHA256SUMS", list.as_bytes()),
    ];
    let packings = [
        ("main/binary-amd64/Packages", packages.as_bytes().to_vec()),
        ("main/binary-amd64/Packages.gz", gzip(packages.as_bytes())),
        ("main/binary-amd64/Packages.xz", xz(packages.as_bytes())),
        ("main/binary-amd64/Packages.zst", zstd(packages.as_bytes())),
    ];
    let mut dice = Dice(0x5eed_1234_5678_9abc);
    let mut taken = 0;
    for _ in 0..1500 {
        for (kind, path, bytes) in inputs {
            let spoilt = dice.spoil(bytes);
            let set = Set::new(*kind, &root(path, &[]), &spoilt, None, &nobody(), now());
            taken += usize::from(set.is_ok());
        }
        let set = rpm("repodata/repomd.xml", repomd.as_bytes()).unwrap();
        let _ = set.read("repodata/p.xml", &dice.spoil(primary.as_bytes()));
        for (name, packed) in &packings {
            let set = debian(&[(name, packed)], "");
            let _ = set.read(&format!("dists/bookworm/{name}"), &dice.spoil(packed));
        }
    }
    assert!(taken > 100, "the dice spoil everything: {taken}");
}

#[test]
fn spoilt_signatures_never_panic() {
    let Some(gpg) = Gpg::new("spoilt_signatures_never_panic") else { return };
    let key = gpg.key("ed", "ed25519", "sign", &[]);
    let ours = trust(&[&gpg.export(&["ed"])]);
    let text = release(&[("x", b"1")], "");
    let clear = gpg.clearsign(&[&key], &[], &text);
    let list = root("dists/bookworm/Release", &["dists/bookworm/Release.gpg"]);
    let mut dice = Dice(0x0dd5_1234_5678_9abc);
    let kinds =
        [gpg.detach(&key, &[], text.as_bytes()), gpg.detach(&key, &["-a"], text.as_bytes())];
    let mut refused = 0;
    for _ in 0..1500 {
        let spoilt = dice.spoil(&clear);
        let set = Set::new(Verify::Debian, &inrelease(), &spoilt, None, &ours, now());
        refused += usize::from(set.is_err());
        for signature in &kinds {
            let spoilt = dice.spoil(signature);
            let bytes = text.as_bytes();
            let set = Set::new(Verify::Debian, &list, bytes, Some(&spoilt), &ours, now());
            refused += usize::from(set.is_err());
        }
    }
    assert!(refused > 1500, "{refused}");
}
