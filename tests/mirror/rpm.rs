//! An RPM repository with an installer's tree, and dnf that knows its key.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::archive::{Rpm, Signer, files, missing};
use crate::lab::{Lab, PORT, Server, get, mirror, program, refused};
use crate::namespace::{in_a_namespace, left_out};

const UPSTREAM: u16 = 8802;
const NAMES: &[&str] = &["alpha", "beta", "gamma"];

pub fn all_here(test: &str) -> bool {
    missing(Rpm::TOOLS).is_none_or(|why| left_out(test, &why))
}

fn through() -> String {
    format!("http://10.77.0.1:{PORT}/mirror/rocky/")
}

pub fn begin() -> (Rpm, Lab, Server) {
    let lab = Lab::new("");
    let mut rpm = Rpm::new(UPSTREAM);
    rpm.site.up();
    rpm.signer.export(&lab.path("rpm.asc"));
    let keys = format!("verify = \"rpm\"\nkeys = [{:?}]", lab.path("rpm.asc"));
    lab.configure(&mirror("rocky", &[&rpm.site.url()], &keys));
    let server = lab.start();
    (rpm, lab, server)
}

/// dnf in a root of its own: refreshes the metadata, whose signature it checks, and downloads.
fn try_dnf(signer: &Signer, base: &str, names: &[&str], into: &Path) -> Output {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).display().to_string();
    signer.export(&root.path().join("key.asc"));
    let conf = format!(
        "[main]\ncachedir={}\nreposdir={}\nlogdir={}\npersistdir={}\npluginpath={}\nretries=1\n\
         install_weak_deps=0\nbest=1\n\
         [test]\nname=test\nbaseurl={base}\nrepo_gpgcheck=1\ngpgcheck=0\ngpgkey=file://{}\n",
        at("cache"),
        at("repos"),
        at("log"),
        at("persist"),
        at("plugins"),
        at("key.asc")
    );
    fs::write(root.path().join("dnf.conf"), conf).unwrap();
    Command::new("dnf")
        .env_remove("http_proxy")
        .env_remove("all_proxy")
        .args(["--config", &at("dnf.conf"), "--installroot", &at("root"), "--releasever", "9"])
        .args(["--assumeyes", "--forcearch", "x86_64", "--downloadonly", "--downloaddir"])
        .arg(into)
        .arg("install")
        .args(names)
        .output()
        .unwrap()
}

fn everything(rpm: &Rpm, base: &str, names: &[&str]) {
    if program("dnf").is_none() {
        left_out("rpm::everything", "dnf is not here; scripts/deps test brings it");
        return;
    }
    let into = TempDir::new().unwrap();
    let out = try_dnf(&rpm.signer, base, names, into.path());
    let words = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{words}");
    let got = files(into.path());
    assert_eq!(got.len(), names.len(), "{got:?}: {words}");
    for path in rpm.packages() {
        let name = path.rsplit('/').next().unwrap();
        if let Ok(here) = fs::read(into.path().join(name)) {
            assert!(here == fs::read(rpm.site.www().join(&path)).unwrap(), "{name}");
        }
    }
}

#[test]
fn the_repository_of_these_tests_is_one_to_dnf() {
    const ME: &str = "rpm::the_repository_of_these_tests_is_one_to_dnf";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    crate::namespace::ip("link set lo up");
    let mut rpm = Rpm::new(UPSTREAM);
    rpm.site.up();
    everything(&rpm, &rpm.site.url(), NAMES);
    if program("dnf").is_some() {
        let into = TempDir::new().unwrap();
        let out = try_dnf(&Signer::new("stranger"), &rpm.site.url(), NAMES, into.path());
        assert!(!out.status.success(), "dnf checks the signature");
    }
}

#[test]
fn dnf_installs_through_the_mirror_and_again_without_its_upstream() {
    const ME: &str = "rpm::dnf_installs_through_the_mirror_and_again_without_its_upstream";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (mut rpm, _lab, _server) = begin();
    let boot = ["images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", ".treeinfo"];
    let all = |rpm: &Rpm| {
        everything(rpm, &through(), NAMES);
        for path in boot {
            let right = fs::read(rpm.site.www().join(path)).unwrap();
            assert!(get(&format!("/mirror/rocky/{path}")).body == right, "{path}");
        }
    };
    all(&rpm);
    rpm.site.down();
    all(&rpm);
    for path in rpm.packages().iter().map(String::as_str).chain(boot[..2].iter().copied()) {
        let sent = rpm.site.sent(&format!("/{path}"));
        assert_eq!(sent.len(), 1, "{path}: one copy is fetched, and no more: {sent:?}");
    }
}

/// Changes the last byte of a file of the upstream; its right bytes.
fn tamper(rpm: &Rpm, path: &str) -> Vec<u8> {
    let file = rpm.site.www().join(path);
    let right = fs::read(&file).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(file, wrong).unwrap();
    right
}

#[test]
fn a_file_that_its_metadata_does_not_know_never_arrives_whole() {
    const ME: &str = "rpm::a_file_that_its_metadata_does_not_know_never_arrives_whole";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (rpm, _lab, mut server) = begin();
    let package = rpm.packages().into_iter().find(|p| p.contains("beta-")).unwrap();
    for path in [package.as_str(), "images/pxeboot/vmlinuz"] {
        let right = tamper(&rpm, path);
        let got = refused(&format!("/mirror/rocky/{path}"));
        let len = got.map_or(0, |got| got.body.len());
        assert!(len <= right.len() - (64 << 10), "the end waits for the digest");
        server.says(path.rsplit('/').next().unwrap());
        fs::write(rpm.site.www().join(path), &right).unwrap();
        assert!(get(&format!("/mirror/rocky/{path}")).body == right, "{path}");
    }
}

#[test]
fn metadata_that_is_not_what_was_signed_is_502() {
    const ME: &str = "rpm::metadata_that_is_not_what_was_signed_is_502";
    if !all_here(ME) || !in_a_namespace(ME) {
        return;
    }
    let (rpm, lab, mut server) = begin();
    let path = "repodata/repomd.xml";
    let right = tamper(&rpm, path);
    assert_eq!(get("/mirror/rocky/repodata/repomd.xml").status, 502);
    server.says("repomd.xml");
    fs::write(rpm.site.www().join(path), &right).unwrap();
    rpm.publish(&Signer::new("stranger"));
    assert_eq!(get("/mirror/rocky/repodata/repomd.xml").status, 502);
    rpm.publish(&rpm.signer);
    // A new one asks at once what an older one has asked just now.
    server.kill();
    let _server = lab.start();
    everything(&rpm, &through(), NAMES);
    // An index that is not the one that repomd.xml lists, and that dnf had no use for.
    let listed = files(&rpm.site.www()).into_iter().find(|f| f.contains("-other.xml")).unwrap();
    tamper(&rpm, &listed);
    assert!(get(&format!("/mirror/rocky/{listed}")).status >= 500);
}
