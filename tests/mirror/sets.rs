//! An archive that changes, goes back, ends, or is in the middle of it: what a boot is given is of
//! one set.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::archive::{Debian, IMAGES, files};
use crate::debian::{Apt, NAMES, all_here, begin, through};
use crate::faults::HELD;
use crate::lab::{Lab, Reading, Server, get, mirror, open_from, try_from, until};
use crate::namespace::{in_a_namespace, ip};
use crate::upstream::noise;

const ROOT: &str = "dists/bookworm/InRelease";
const PACKAGES: &str = "dists/bookworm/main/binary-amd64/Packages.gz";

fn image(name: &str) -> String {
    format!("{IMAGES}/netboot/debian-installer/amd64/{name}")
}

fn direct(debian: &Debian, path: &str) -> Vec<u8> {
    fs::read(debian.site.www().join(path)).unwrap()
}

/// Whoever this is, it is no machine's address.
fn root() -> Vec<u8> {
    open_from([127, 0, 0, 9], &format!("/mirror/debian/{ROOT}")).rest().body
}

static VERSION: AtomicU32 = AtomicU32::new(2);

/// A new set, with a Date of its own.
fn renew(debian: &Debian) {
    let date = || {
        let text = String::from_utf8(direct(debian, "dists/bookworm/Release")).unwrap();
        text.lines().find(|l| l.starts_with("Date: ")).unwrap().to_string()
    };
    let before = date();
    loop {
        let n = VERSION.fetch_add(1, Ordering::Relaxed);
        debian.add("alpha", &format!("{n}.0"), false);
        if date() != before {
            break;
        }
    }
    debian.publish(&debian.signer);
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        fs::create_dir_all(to.join(&file).parent().unwrap()).unwrap();
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
}

fn boots() -> (Debian, Lab, Server) {
    let (debian, lab, server) = begin();
    server.kill();
    let keys = format!("verify = \"debian\"\nkeys = [{:?}]", lab.path("debian.asc"));
    let table = mirror("debian", &[&debian.site.url()], &keys);
    let (linux, initrd) = (image("linux"), image("initrd.gz"));
    let mut text = format!(
        "{table}[[profile]]\nname = \"p\"\nkind = \"live\"\nkernel = \"debian/{linux}\"\ninitrd = \"debian/{initrd}\"\n"
    );
    for n in 1..=4 {
        text += &format!(
            "[[machine]]\nname = \"web{n}\"\nmac = \"52:54:00:00:00:0{n}\"\nprofile = \"p\"\n"
        );
        ip(&format!("address add 10.77.0.10{n}/32 dev lo"));
    }
    lab.configure(&text);
    let server = lab.start();
    (debian, lab, server)
}

fn address(n: u8) -> [u8; 4] {
    [10, 77, 0, 100 + n]
}

/// The machine and the token of the boot that begins with this.
fn token(n: u8) -> (u8, String) {
    let path = format!("/boot/52-54-00-00-00-0{n}.ipxe");
    let script = String::from_utf8(open_from(address(n), &path).rest().body).unwrap();
    let at = script.find("/b/").unwrap_or_else(|| panic!("{script}")) + 3;
    (n, script[at..].split('/').next().unwrap().to_string())
}

fn of_boot((n, token): &(u8, String), path: &str) -> crate::lab::Got {
    open_from(address(*n), &format!("/b/{token}/mirror/debian/{path}")).rest()
}

#[test]
fn a_boot_is_given_one_set() {
    const ME: &str = "sets::a_boot_is_given_one_set";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, _lab, _server) = boots();
    let www = debian.site.www();
    let paths = [image("linux"), image("initrd.gz"), ROOT.into(), PACKAGES.into()];
    let old = paths.each_ref().map(|p| direct(&debian, p));
    // One boot has all of A, one has its kernel, and one has only begun.
    let all = token(1);
    for (path, right) in paths.iter().zip(&old) {
        assert!(of_boot(&all, path).body == *right, "{path}");
    }
    let begun = token(2);
    assert!(of_boot(&begun, &paths[0]).body == old[0]);

    fs::write(www.join(&paths[0]), noise(41, 900_000)).unwrap();
    fs::write(www.join(&paths[1]), noise(42, 2_100_000)).unwrap();
    renew(&debian);
    let new = paths.each_ref().map(|p| direct(&debian, p));
    until("the new set", || root() == new[2]);
    for (path, right) in paths.iter().zip(&old) {
        assert!(of_boot(&all, path).body == *right, "{path}");
        assert!(of_boot(&begun, path).body == *right, "{path}: another boot has fetched it");
        let got = open_from(address(2), &format!("/mirror/debian/{path}")).rest();
        assert!(got.body == *right, "{path}: by the machine's address");
    }
    // The next boot of the same machine, too.
    for n in [1, 3] {
        let next = token(n);
        for (path, right) in paths.iter().zip(&new) {
            assert!(of_boot(&next, path).body == *right, "{path}: the next boot");
            let got = open_from(address(n), &format!("/mirror/debian/{path}")).rest();
            assert!(got.body == *right, "{path}: by the machine's address");
        }
    }
}

#[test]
fn what_is_gone_upstream_is_refused_and_not_mixed() {
    const ME: &str = "sets::what_is_gone_upstream_is_refused_and_not_mixed";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, _lab, mut server) = boots();
    let [linux, initrd] = [image("linux"), image("initrd.gz")];
    let kernel = direct(&debian, &linux);
    let one = token(1);
    assert!(of_boot(&one, &linux).body == kernel);
    // Its list has digests and no sizes: only the whole file tells.
    for (seed, len) in [(42, 2_000_000), (43, 2_100_000)] {
        fs::write(debian.site.www().join(&initrd), noise(seed, len)).unwrap();
        renew(&debian);
        let new = direct(&debian, ROOT);
        until("the new set", || root() == new);
        // An end of the connection is a refusal, too.
        let path = format!("/b/{}/mirror/debian/{initrd}", one.1);
        if let Ok(got) = try_from(address(one.0), &path).map(Reading::rest) {
            assert!(!got.whole || got.status >= 500, "{}: it is of another set", got.status);
            assert!(got.status >= 500 || got.body.len() <= len - HELD, "{}", got.body.len());
        }
        server.says_all(&["initrd.gz", "not what the metadata says"]);
        assert!(of_boot(&one, &linux).body == kernel);
    }
    let two = token(2);
    assert!(of_boot(&two, &initrd).body == noise(43, 2_100_000), "who begins now has all of it");
    assert!(of_boot(&two, &linux).body == kernel);
}

#[test]
fn a_set_that_is_older_or_over_is_not_believed() {
    const ME: &str = "sets::a_set_that_is_older_or_over_is_not_believed";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, lab, mut server) = begin();
    let (www, kept) = (debian.site.www(), tempfile::tempdir().unwrap());
    copy(&www.join("dists"), kept.path());
    assert!(root() == direct(&debian, ROOT));
    renew(&debian);
    let new = direct(&debian, ROOT);
    until("the new set", || root() == new);
    let alpha = debian.pool().into_iter().rfind(|p| p.contains("/alpha_")).unwrap();
    assert_eq!(get(&format!("/mirror/debian/{alpha}")).status, 200);
    // Somebody plays the old one again.
    copy(kept.path(), &www.join("dists"));
    let asked = || debian.site.sent(&format!("/{ROOT}")).len();
    let before = asked();
    until("asked again", || {
        assert!(root() == new, "the old one is not believed");
        asked() > before
    });
    server.says_all(&["InRelease", "older"]);
    assert!(root() == new);
    // After a restart, too.
    server.kill();
    server = lab.start();
    assert!(root() == new);
    server.says_all(&["InRelease", "older"]);

    // And one that was valid until yesterday.
    renew(&debian);
    let release = www.join("dists/bookworm/Release");
    let text = fs::read_to_string(&release).unwrap();
    let over = "Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures:";
    fs::write(&release, text.replacen("Architectures:", over, 1)).unwrap();
    debian.publish(&debian.signer);
    server.kill();
    server = lab.start();
    let got = get(&format!("/mirror/debian/{ROOT}"));
    assert!(got.status == 502 || got.body == new, "{}", got.status);
    server.says_all(&["InRelease", "valid until"]);
    assert_eq!(get(&format!("/mirror/debian/{alpha}")).status, 200, "what was held is right");
}

#[test]
fn a_mirror_in_the_middle_of_its_own_update_is_read_by_hash() {
    const ME: &str = "sets::a_mirror_in_the_middle_of_its_own_update_is_read_by_hash";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, _lab, _server) = begin();
    let folder = debian.site.www().join("dists/bookworm/main/binary-amd64");
    let right = direct(&debian, PACKAGES);
    let beta = debian.pool().into_iter().find(|p| p.contains("/beta_")).unwrap();
    let spoil = |seed: u64, more: usize| {
        for file in ["Packages", "Packages.gz"] {
            let len = fs::metadata(folder.join(file)).unwrap().len() as usize;
            fs::write(folder.join(file), noise(seed, len + more)).unwrap();
        }
    };
    // Of another size, and of the same.
    spoil(1, 1000);
    assert_eq!(get(&format!("/mirror/debian/{ROOT}")).status, 200);
    assert!(get(&format!("/mirror/debian/{PACKAGES}")).body == right);
    assert_eq!(get(&format!("/mirror/debian/{beta}")).status, 200);
    renew(&debian);
    let (new, right) = (direct(&debian, ROOT), direct(&debian, PACKAGES));
    spoil(2, 0);
    until("the new set", || root() == new);
    assert!(get(&format!("/mirror/debian/{PACKAGES}")).body == right);
    let alpha = debian.pool().into_iter().rfind(|p| p.contains("/alpha_")).unwrap();
    assert_eq!(get(&format!("/mirror/debian/{alpha}")).status, 200);
}

#[test]
fn a_restart_without_upstream_installs_what_is_held() {
    const ME: &str = "sets::a_restart_without_upstream_installs_what_is_held";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (mut debian, lab, server) = begin();
    Apt::new(&debian.signer, &through()).everything(&debian, NAMES);
    let linux = image("linux");
    assert!(get(&format!("/mirror/debian/{linux}")).body == direct(&debian, &linux));
    lab.settled();
    server.kill();
    debian.site.down();
    let _server = lab.start();
    // What is deepest first: nothing else has been asked for.
    assert!(get(&format!("/mirror/debian/{linux}")).body == direct(&debian, &linux));
    Apt::new(&debian.signer, &through()).everything(&debian, NAMES);
}

#[test]
fn a_restart_without_upstream_installs_what_is_held_by_rpm() {
    const ME: &str = "sets::a_restart_without_upstream_installs_what_is_held_by_rpm";
    if !crate::rpm::all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (mut rpm, lab, server) = crate::rpm::begin();
    let mut paths = rpm.packages();
    paths.extend(["images/pxeboot/vmlinuz", "repodata/repomd.xml"].map(String::from));
    let www = rpm.site.www();
    let all = || {
        for path in &paths {
            let right = fs::read(www.join(path)).unwrap();
            let got = get(&format!("/mirror/rocky/{path}"));
            assert!(got.body == right, "{path}: {}", got.status);
        }
    };
    all();
    lab.settled();
    server.kill();
    rpm.site.down();
    let _server = lab.start();
    all();
}
