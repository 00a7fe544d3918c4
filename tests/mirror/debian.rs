//! A Debian archive, and apt that knows its key.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::archive::{Debian, IMAGES, Signer, missing};
use crate::lab::{Lab, PORT, Server, get, mirror, refused, until};
use crate::namespace::{in_a_namespace, left_out};

const UPSTREAM: u16 = 8801;

/// apt in a root of its own, which reads nothing of this machine's configuration.
pub struct Apt {
    root: TempDir,
}

impl Apt {
    pub fn new(signer: &Signer, archive: &str) -> Apt {
        let apt = Apt { root: tempfile::tempdir().unwrap() };
        for dir in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/log/apt",
            "var/lib/dpkg",
        ] {
            fs::create_dir_all(apt.path(dir)).unwrap();
        }
        let (root, key) = (apt.path(""), apt.path("key.asc"));
        signer.export(&key);
        let source = |components| {
            format!("deb [signed-by={}] {archive} bookworm {components}\n", key.display())
        };
        let sources = source("main") + &source("main/debian-installer");
        fs::write(apt.path("etc/apt/sources.list"), sources).unwrap();
        fs::write(apt.path("var/lib/dpkg/status"), "").unwrap();
        let conf = format!(
            "Dir \"{}\";\nDir::State::status \"{}\";\nAPT::Architecture \"amd64\";\n\
             APT::Sandbox::User \"root\";\nAcquire::http::Proxy \"false\";\nAcquire::Retries \"0\";\n\
             Acquire::Languages \"none\";\n",
            root.display(),
            apt.path("var/lib/dpkg/status").display()
        );
        fs::write(apt.path("apt.conf"), conf).unwrap();
        apt
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn try_get(&self, words: &[&str]) -> Output {
        Command::new("apt-get")
            .env("APT_CONFIG", self.path("apt.conf"))
            .args(["--quiet", "--yes"])
            .args(words)
            .output()
            .unwrap()
    }

    fn get(&self, words: &[&str]) -> String {
        let out = self.try_get(words);
        let text = String::from_utf8_lossy(&out.stdout).into_owned()
            + &String::from_utf8_lossy(&out.stderr);
        // apt takes a list that it could not renew for a warning.
        let good = out.status.success() && !text.contains("W:") && !text.contains("E:");
        assert!(good, "apt-get {words:?}: {text}");
        text
    }

    /// The lists, and every package; what apt has checked is compared with the archive besides.
    pub fn everything(&self, debian: &Debian, names: &[&str]) {
        self.get(&["update"]);
        self.get(&[&["install", "--download-only", "--reinstall"], names].concat());
        for name in names {
            let path = debian.pool().into_iter().filter(|p| p.contains(&format!("/{name}_")));
            let path = path.max().unwrap();
            let file = path.rsplit('/').next().unwrap();
            let here = fs::read(self.path("var/cache/apt/archives").join(file)).unwrap();
            assert!(here == fs::read(debian.site.www().join(&path)).unwrap(), "{file}");
        }
        fs::remove_dir_all(self.path("var/cache/apt/archives")).unwrap();
        fs::create_dir_all(self.path("var/cache/apt/archives/partial")).unwrap();
    }
}

pub fn all_here(test: &str) -> bool {
    missing(Debian::TOOLS).is_none_or(|why| left_out(test, &why))
}

pub fn through() -> String {
    format!("http://10.77.0.1:{PORT}/mirror/debian")
}

/// The archive up, its key with the server, and the server.
pub fn begin() -> (Debian, Lab, Server) {
    let lab = Lab::new("");
    let mut debian = Debian::new(UPSTREAM);
    debian.site.up();
    debian.signer.export(&lab.path("debian.asc"));
    let keys = format!("verify = \"debian\"\nkeys = [{:?}]", lab.path("debian.asc"));
    lab.configure(&mirror("debian", &[&debian.site.url()], &keys));
    let server = lab.start();
    (debian, lab, server)
}

pub const NAMES: &[&str] = &["alpha", "beta", "gamma"];

#[test]
fn the_archive_of_these_tests_is_one_to_apt() {
    const ME: &str = "debian::the_archive_of_these_tests_is_one_to_apt";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    crate::namespace::ip("link set lo up");
    let mut debian = Debian::new(UPSTREAM);
    debian.site.up();
    let apt = Apt::new(&debian.signer, &debian.site.url());
    apt.everything(&debian, NAMES);
    let sums = String::from_utf8(debian.site.direct(&format!("/{IMAGES}/SHA256SUMS"))).unwrap();
    assert!(sums.contains("  ./netboot/debian-installer/amd64/linux\n"), "{sums}");
    let asked = debian.site.sent("/dists/bookworm/main/binary-amd64/Packages.gz");
    assert!(asked.is_empty(), "apt asks by digest where Release says that it can");
    debian.publish(&Signer::new("stranger"));
    assert!(!apt.try_get(&["update", "-o", "APT::Update::Error-Mode=any"]).status.success());
}

#[test]
fn apt_installs_through_the_mirror_and_again_without_its_upstream() {
    const ME: &str = "debian::apt_installs_through_the_mirror_and_again_without_its_upstream";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (mut debian, _lab, _server) = begin();
    Apt::new(&debian.signer, &through()).everything(&debian, NAMES);
    let image = format!("{IMAGES}/netboot/debian-installer/amd64/linux");
    let linux = fs::read(debian.site.www().join(&image)).unwrap();
    assert!(get(&format!("/mirror/debian/{image}")).body == linux);
    let udeb = debian.pool().into_iter().find(|p| p.ends_with(".udeb")).unwrap();
    let netcfg = fs::read(debian.site.www().join(&udeb)).unwrap();
    assert!(get(&format!("/mirror/debian/{udeb}")).body == netcfg);

    debian.site.down();
    Apt::new(&debian.signer, &through()).everything(&debian, NAMES);
    assert!(get(&format!("/mirror/debian/{image}")).body == linux);
    assert!(get(&format!("/mirror/debian/{udeb}")).body == netcfg);
    debian.site.up();
    for path in debian.pool().iter().chain([&image]) {
        let sent = debian.site.sent(&format!("/{path}"));
        assert_eq!(sent.len(), 1, "{path}: one copy is fetched, and no more: {sent:?}");
    }
}

#[test]
fn a_package_that_its_metadata_does_not_know_never_arrives_whole() {
    const ME: &str = "debian::a_package_that_its_metadata_does_not_know_never_arrives_whole";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, _lab, mut server) = begin();
    let path = debian.pool().into_iter().find(|p| p.contains("/beta_")).unwrap();
    let image = format!("{IMAGES}/netboot/debian-installer/amd64/initrd.gz");
    // What is in the pool is known by a suite that somebody has asked for.
    assert_eq!(get("/mirror/debian/dists/bookworm/InRelease").status, 200);
    for path in [&path, &image] {
        let file = debian.site.www().join(path);
        let right = fs::read(&file).unwrap();
        let mut wrong = right.clone();
        let last = wrong.len() - 1;
        wrong[last] ^= 1;
        fs::write(&file, &wrong).unwrap();
        let got = refused(&format!("/mirror/debian/{path}"));
        let len = got.map_or(0, |got| got.body.len());
        assert!(len <= wrong.len() - (64 << 10), "the end waits for the digest");
        server.says(path.rsplit('/').next().unwrap());
        fs::write(&file, &right).unwrap();
        assert!(get(&format!("/mirror/debian/{path}")).body == right, "{path}");
    }
    // One that no list names is not the archive's, whatever the upstream has there.
    fs::write(debian.site.www().join("pool/main/stray.deb"), "stray").unwrap();
    let got = get("/mirror/debian/pool/main/stray.deb");
    assert!(got.status >= 400, "{got:?}");
}

#[test]
fn what_inrelease_lists_is_replaced_as_a_set() {
    const ME: &str = "debian::what_inrelease_lists_is_replaced_as_a_set";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, _lab, _server) = begin();
    let apt = Apt::new(&debian.signer, &through());
    apt.everything(&debian, NAMES);
    debian.add("alpha", "2.0", false);
    debian.add("delta", "1.0", false);
    debian.publish(&debian.signer);
    // The mirror looks for a newer one now and then, whoever asks.
    let new = debian.site.direct("/dists/bookworm/InRelease");
    until("the new InRelease", || get("/mirror/debian/dists/bookworm/InRelease").body == new);
    apt.everything(&debian, &["alpha", "beta", "gamma", "delta"]);
    let list = apt.get(&["install", "--download-only", "--print-uris", "alpha"]);
    assert!(list.contains("alpha_2.0_amd64.deb"), "{list}");
}

#[test]
fn a_signature_of_a_stranger_is_502() {
    const ME: &str = "debian::a_signature_of_a_stranger_is_502";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (debian, lab, mut server) = begin();
    debian.publish(&Signer::new("stranger"));
    assert_eq!(get("/mirror/debian/dists/bookworm/InRelease").status, 502);
    server.says("InRelease");
    let path = debian.pool().into_iter().find(|p| p.contains("/beta_")).unwrap();
    // No list that could name it is proven.
    assert!(get(&format!("/mirror/debian/{path}")).status >= 400);
    debian.publish(&debian.signer);
    server.kill();
    server = lab.start();
    assert_eq!(get("/mirror/debian/dists/bookworm/InRelease").status, 200);
    assert_eq!(get(&format!("/mirror/debian/{path}")).status, 200);
    // The set in force goes on where a stranger's comes; he is named.
    let all = get("/mirror/debian/dists/bookworm/InRelease").body;
    debian.publish(&Signer::new("stranger"));
    server.kill();
    server = lab.start();
    let got = get("/mirror/debian/dists/bookworm/InRelease");
    assert!(got.status == 502 || got.body == all, "{got:?}");
    server.says("InRelease");
    assert_eq!(get(&format!("/mirror/debian/{path}")).status, 200);
}
