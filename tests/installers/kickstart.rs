//! Kickstarts: Anaconda's own parser reads each golden, with the lines in it that its %pre writes on
//! machines with made-up disks, BIOS and UEFI; and a disk that no setting names is in none of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::{complaint, goldens, home, left_out};

const INSTALLERS: [&str; 3] = ["centos-6", "centos-7", "redhat"];
/// All that these installers may be run by; busybox has `ash` in it.
const SHELLS: [&[&str]; 2] = [&["bash"], &["busybox", "ash"]];
const INCLUDE: &str = "%include /tmp/disks.ks\n";
/// Has a name that no setting has, and the size that no rule takes.
const NOT_NAMED: &str = "sdm";

/// Which Anaconda a golden is for, in the words of pykickstart.
fn version(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let number = name.split('-').nth(1).unwrap();
    let major: String = number.chars().take_while(char::is_ascii_digit).collect();
    if name.starts_with("fedora") { format!("F{major}") } else { format!("RHEL{major}") }
}

/// A machine: its disks, its firmware, and the commands of its installer that are of no use here.
struct Made(TempDir);

impl Made {
    fn new(disks: &[(&str, u64)], efi: bool) -> Made {
        let made = Made(tempfile::tempdir().unwrap());
        for (name, size) in disks {
            let block = made.at(&format!("sys/block/{name}"));
            fs::create_dir_all(&block).unwrap();
            for (file, value) in [("size", *size), ("removable", 0), ("ro", 0)] {
                fs::write(block.join(file), format!("{value}\n")).unwrap();
            }
            fs::create_dir_all(made.at("dev")).unwrap();
            fs::write(made.at("dev").join(name), "").unwrap();
        }
        if efi {
            fs::create_dir_all(made.at("sys/firmware/efi")).unwrap();
        }
        // Keeps what it was to send, and makes what it was to bring.
        made.command(
            "curl",
            "for a; do case $last in\n\
             -o) [ \"$a\" = /dev/null ] || echo 'echo own >>HERE/own' >\"$a\" ;;\n\
             --data-binary) cat \"${a#@}\" >>HERE/told ;;\n\
             esac; last=$a; done\n\
             echo \"$last\" >>HERE/asked\n",
        );
        // CentOS 6 has neither (anaconda 13, scripts/upd-instroot).
        for missing in ["seq", "tr"] {
            made.command(missing, "echo missing >&2; exit 127\n");
        }
        made
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self, name: &str, text: &str) {
        let path = self.at("bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = text.replace("HERE", self.0.path().to_str().unwrap());
        fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// Runs a section as this machine's installer would.
    fn run(&self, shell: &[&str], section: &str) -> Output {
        let here = self.0.path().to_str().unwrap();
        // What lies in /tmp comes first: so does this machine itself.
        let section = section
            .replace("/tmp/", &format!("{here}/"))
            .replace("'/dev/", &format!("'{here}/dev/"))
            .replace(" /dev/disk", &format!(" {here}/dev/disk"))
            .replace("/etc/yum", &format!("{here}/etc/yum"))
            .replace("/mnt/", &format!("{here}/mnt/"));
        Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &section])
            .env("SYS", self.at("sys"))
            .env("DEV", self.at("dev"))
            .env("MOUNTS", "/dev/null")
            .env("PATH", format!("{here}/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
            .output()
            .unwrap()
    }
}

/// The text between `%NAME` and its `%end`.
fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, after) = text.split_once(&format!("\n%{name}")).unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    after.split_once("\n%end").unwrap().0
}

/// Disks that suit what the golden wants, and one that it may not touch.
fn disks(text: &str) -> Vec<(&'static str, u64)> {
    let wants = |word: &str| text.contains(&format!("\nRULE={word} "));
    let mut all = vec![("sda", 600_000_000)];
    if wants("named") {
        all.push(("nvme0n1", 500_000_000));
    }
    all.extend(match () {
        () if wants("largest") => Some((NOT_NAMED, 1)),
        () if wants("only") => None,
        () => Some((NOT_NAMED, 900_000_000)),
    });
    all
}

/// What %pre makes of a golden, the same by every shell.
fn parts(path: &Path, text: &str, efi: bool) -> String {
    let mut said = Vec::new();
    for shell in SHELLS {
        let made = Made::new(&disks(text), efi);
        fs::create_dir_all(made.at("dev/disk/by-id")).unwrap();
        std::os::unix::fs::symlink("../../nvme0n1", made.at("dev/disk/by-id/nvme-X1")).unwrap();
        let out = made.run(shell, section(text, "pre --erroronfail"));
        let what = format!("{} {shell:?} {out:?} {}", path.display(), made.read("pre.said"));
        assert!(out.status.success(), "{what}");
        assert!(made.read("pre.said").is_empty() && made.read("told").is_empty(), "{what}");
        assert_eq!(made.read("own"), if text.contains("/pre.sh") { "own\n" } else { "" }, "{what}");
        said.push(made.read("disks.ks"));
    }
    assert_eq!(said[0], said[1], "{}", path.display());
    said.remove(0)
}

fn all() -> Vec<PathBuf> {
    INSTALLERS.iter().flat_map(|name| goldens(name, ".ks.cfg")).collect()
}

/// A golden of an installer that takes a machine's only disk.
fn only_disk(installer: &str) -> String {
    let all = goldens(installer, ".ks.cfg");
    let mut all = all.iter().map(|p| fs::read_to_string(p).unwrap());
    all.find(|t| t.contains("\nRULE=only ")).unwrap()
}

fn shells_are_there(test: &str) -> bool {
    let there = SHELLS.iter().all(|s| Command::new(s[0]).args(["-c", ":"]).output().is_ok());
    if !there {
        left_out(test, "no bash or no busybox here: scripts/deps test brings them");
    }
    there
}

#[test]
fn a_disk_that_no_setting_names_is_left_alone() {
    if !shells_are_there("a_disk_that_no_setting_names_is_left_alone") {
        return;
    }
    for path in all() {
        let text = fs::read_to_string(&path).unwrap();
        for efi in [false, true] {
            let parts = parts(&path, &text, efi);
            let what = format!("{}\n{parts}", path.display());
            assert!(!parts.contains(NOT_NAMED), "{what}");
            let mirror = text.contains("COUNT=2");
            let drives = if mirror { "sda,nvme0n1" } else { "sda" };
            assert!(parts.contains(&format!("ignoredisk --only-use={drives}\n")), "{what}");
            assert!(parts.contains(&format!("clearpart --all --drives={drives} ")), "{what}");
            // Each partition says which disk it is on.
            let of = |line: &&str| line.starts_with("part ");
            assert!(parts.lines().filter(of).all(|l| l.contains(" --ondisk=")), "{what}");
            assert_eq!(parts.contains("/boot/efi "), efi, "{what}");
            let gpt = !path.to_str().unwrap().contains("/centos-6/");
            let gaps = parts.matches("--fstype=biosboot").count();
            let wanted = if mirror { 2 } else { 1 };
            assert_eq!(gaps, if gpt && !efi { wanted } else { 0 }, "{what}");
        }
    }
}

#[test]
fn what_fails_before_the_disks_are_known_is_told() {
    if !shells_are_there("what_fails_before_the_disks_are_known_is_told") {
        return;
    }
    for (installer, shell) in INSTALLERS.iter().flat_map(|i| SHELLS.map(|s| (i, s))) {
        let text = only_disk(installer);
        let made = Made::new(&[("sda", 1), ("sdb", 1)], false);
        let out = made.run(shell, section(&text, "pre --erroronfail"));
        let why = "no disk was touched: this machine has 2 disks";
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stdout).starts_with(why), "{out:?}");
        assert!(made.read("told").starts_with(why), "{}", made.read("told"));
        assert!(made.read("asked").ends_with("/report/failed\n"), "{}", made.read("asked"));
        assert!(!made.at("disks.ks").exists(), "nothing is said of any disk");
    }
}

/// As the controllers of old have them, in a folder below /dev.
#[test]
fn a_disk_may_have_a_folder_in_its_name() {
    if !shells_are_there("a_disk_may_have_a_folder_in_its_name") {
        return;
    }
    for (installer, shell) in INSTALLERS.iter().flat_map(|i| SHELLS.map(|s| (i, s))) {
        let text = only_disk(installer);
        let made = Made::new(&[("cciss!c0d0", 1)], false);
        let out = made.run(shell, section(&text, "pre --erroronfail"));
        assert!(out.status.success(), "{out:?} {}", made.read("pre.said"));
        let parts = made.read("disks.ks");
        assert!(parts.starts_with("ignoredisk --only-use=cciss/c0d0\n"), "{parts}");
        assert!(made.read("pre.said").is_empty(), "{}", made.read("pre.said"));
    }
}

#[test]
fn the_last_section_reports() {
    for path in all() {
        let text = fs::read_to_string(&path).unwrap();
        let last = section(&text, "post --nochroot");
        assert!(last.ends_with("tell done 90 /dev/null"), "{}", path.display());
        assert!(!text.split_once(last).unwrap().1.contains("\n%post"), "{}", path.display());
        let made = Made::new(&[], false);
        fs::create_dir_all(made.at("mnt/sysimage/root")).unwrap();
        // Not as root of a system of its own, which a test cannot have.
        made.command("chroot", "exec \"$1$2\"\n");
        let out = made.run(SHELLS[0], last);
        assert!(out.status.success(), "{out:?}");
        assert!(made.read("asked").ends_with("/report/done\n"), "{}", made.read("asked"));
        let own = text.contains("/post.sh");
        assert_eq!(made.read("own"), if own { "own\n" } else { "" });
        assert!(!made.at("mnt/sysimage/root/post.sh").exists(), "it may hold secrets");
        if !own {
            continue;
        }
        made.command("chroot", "echo it went wrong; exit 3\n");
        fs::remove_file(made.at("asked")).unwrap();
        assert_eq!(made.run(SHELLS[0], last).status.code(), Some(1));
        assert!(made.read("asked").ends_with("/report/failed\n"), "{}", made.read("asked"));
        assert_eq!(made.read("told"), "it went wrong\n");
    }
}

/// The sources of an installed system, as CentOS 6 (which does not write what is the default) and
/// Rocky have theirs.
#[test]
fn the_distributions_own_sources_are_kept_and_off() {
    let theirs = "[base]\nname=Base\nmirrorlist=http://h/\ngpgkey=file:///k/6\n\n\
                  [updates]\nname=Updates\nenabled=1\ngpgkey=file:///k/6\n";
    for path in all() {
        let text = fs::read_to_string(&path).unwrap();
        let Some(at) = text.find("%post\n# What this system installs later") else {
            assert!(path.to_str().unwrap().contains("-lvm"), "{}", path.display());
            continue;
        };
        let section = section(&text[at - 1..], "post");
        let made = Made::new(&[], false);
        let repos = made.at("etc/yum.repos.d");
        fs::create_dir_all(&repos).unwrap();
        fs::write(repos.join("a.repo"), theirs).unwrap();
        fs::remove_file(made.at("bin/tr")).unwrap();
        let out = made.run(SHELLS[0], section);
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        let off = "[base]\nenabled=0\nname=Base\nmirrorlist=http://h/\ngpgkey=file:///k/6\n\n\
                   [updates]\nenabled=0\nname=Updates\ngpgkey=file:///k/6\n";
        assert_eq!(made.read("etc/yum.repos.d/a.repo"), off);
        let ours = made.read("etc/yum.repos.d/pilotlight.repo");
        let sections = ours.matches("[pilotlight-").count();
        for line in
            ["enabled=1\n", "gpgcheck=1\n", "gpgkey=file:///k/6 \n", "baseurl=http://192.0.2."]
        {
            assert_eq!(ours.matches(line).count(), sections, "{ours}");
        }
        assert!(sections > 0, "{ours}");
    }
}

#[test]
fn anaconda_reads_each() {
    let dir = home(".cache/python/pykickstart");
    let tool = dir.join("bin/ksvalidator");
    if !tool.exists() {
        left_out("anaconda_reads_each", "no ksvalidator: scripts/deps test brings it");
        return;
    }
    if !shells_are_there("anaconda_reads_each") {
        return;
    }
    let read = |version: &str, paths: &[PathBuf]| {
        let mut command = Command::new("/usr/bin/python3");
        command.env("PYTHONPATH", &dir).arg(&tool).args(["-e", "-v", version]).args(paths);
        complaint(command)
    };
    let work = tempfile::tempdir().unwrap();
    let mut by_version: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in all() {
        let text = fs::read_to_string(&path).unwrap();
        for (firmware, efi) in [("bios", false), ("uefi", true)] {
            let whole = text.replacen(INCLUDE, &parts(&path, &text, efi), 1);
            assert!(!whole.contains(INCLUDE), "{}", path.display());
            let name = format!("{firmware}-{}", path.file_name().unwrap().to_str().unwrap());
            fs::write(work.path().join(&name), whole).unwrap();
            by_version.entry(version(&path)).or_default().push(work.path().join(&name));
        }
    }
    let wanted = ["F40", "F41", "F42", "F43", "RHEL10", "RHEL6", "RHEL7", "RHEL8", "RHEL9"];
    assert_eq!(by_version.keys().collect::<Vec<_>>(), wanted);
    for (version, paths) in &by_version {
        assert_eq!(read(version, paths), None, "{version}");
        // Each can complain, also of what is only no longer as it was.
        let bad = work.path().join("bad.cfg");
        for line in ["rootpw --iscryptd x\n", "part /boot --size=1\npart /boot --size=1\n"] {
            fs::write(&bad, line).unwrap();
            assert!(read(version, std::slice::from_ref(&bad)).is_some(), "{version} {line}");
        }
    }
}
