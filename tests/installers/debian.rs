//! Debian and Ubuntu: what reads their answers reads ours, and what writes to disks writes to those
//! that it shall, and to no other.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pilotlight::model::profile::Kind;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{cases, complaint, config, goldens, home, left_out};

const OURS: [&str; 2] = ["debian", "ubuntu-netboot"];

fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

#[test]
fn debconf_reads_the_preseeds() {
    let read = |path: &Path| {
        let mut command = Command::new("debconf-set-selections");
        command.arg("--checkonly").arg(path);
        complaint(command)
    };
    if !there("debconf-set-selections") {
        left_out("debconf_reads_the_preseeds", "no debconf-set-selections here");
        return;
    }
    for path in OURS.iter().flat_map(|of| goldens(of, ".preseed.cfg")) {
        assert_eq!(read(&path), None, "{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        // The installer's own reader lets the shell expand names in each line.
        let live = |line: &&str| line.contains(['*', '?', '[', '\\']);
        assert_eq!(text.lines().find(live), None, "{}", path.display());
        assert_eq!(text.find("partman-auto/disk"), None, "{}", path.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.cfg");
    fs::write(&bad, "d-i passwd/root-login\n").unwrap();
    assert!(read(&bad).is_some(), "it can complain");
}

/// What kickseed has handlers for, with the options that it knows, as Debian's package of it has
/// them (0.63, lib/kickseed/handlers).
const KICKSEED: &[(&str, &[&str])] = &[
    ("install", &[]),
    ("text", &[]),
    ("lang", &[]),
    ("keyboard", &[]),
    ("timezone", &["--utc"]),
    ("url", &["--url"]),
    ("skipx", &[]),
    ("reboot", &[]),
    ("rootpw", &["--iscrypted", "--disabled"]),
    ("user", &["--fullname", "--iscrypted", "--password", "--disabled"]),
    ("preseed", &["--owner"]),
];

/// What kickseed would not do with a line of a kickstart, or would wait for an answer over.
fn unread(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut section = "";
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word.starts_with('%') {
            if !["%packages", "%post"].contains(&word) {
                wrong.push(format!("{word}: it runs to the next section, or the end"));
            }
            section = word;
            continue;
        }
        if !section.is_empty() {
            continue;
        }
        let Some((_, options)) = KICKSEED.iter().find(|(name, _)| *name == word) else {
            wrong.push(format!("{word}: no handler"));
            continue;
        };
        let mut given = rest.split_whitespace().filter(|w| w.starts_with("--"));
        wrong.extend(given.find(|w| !options.contains(w)).map(|w| format!("{word} {w}: unknown")));
        if word == "timezone" && !rest.contains("--utc") {
            wrong.push("timezone: it waits for an answer without --utc".into());
        }
    }
    wrong
}

#[test]
fn kickseed_reads_the_kickstarts() {
    for path in goldens("ubuntu-netboot", ".ks.cfg") {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(unread(&text), [""; 0], "{}", path.display());
    }
    let bad = "timezone Etc/UTC\nclearpart --all\nuser --uid 3 x\n%packages\nvim\n%end\n";
    assert_eq!(unread(bad).len(), 4, "{:?}", unread(bad));
}

/// A file of YAML as JSON, with a complaint of `schema` where there is one.
fn yaml(path: &Path, schema: Option<&Path>) -> Result<Value, String> {
    let code = "import json, sys, yaml\n\
                read = yaml.safe_load(open(sys.argv[1]))\n\
                if len(sys.argv) > 2:\n    import jsonschema\n    \
                jsonschema.validate(read, json.load(open(sys.argv[2])))\n\
                print(json.dumps(read))";
    let out = Command::new("/usr/bin/python3").args(["-c", code]).arg(path).args(schema).output();
    let out = out.map_err(|e| e.to_string())?;
    match out.status.success() {
        true => Ok(serde_json::from_slice(&out.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

fn no_python(test: &str) -> bool {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", "import yaml, jsonschema"]);
    let gone = command.output().map_or(true, |out| !out.status.success());
    if gone {
        left_out(test, "no python3-yaml and python3-jsonschema: scripts/deps test brings them");
    }
    gone
}

/// As early.sh leaves it: `/autoinstall.yaml` of a machine with these disks.
fn early(user_data: &Path, script: &Path, machine: &Machine) -> Result<PathBuf, String> {
    let at = machine.0.path().join("autoinstall.yaml");
    fs::copy(user_data, &at).unwrap();
    let text = fs::read_to_string(script).unwrap();
    machine.run(&text.replace("/autoinstall.yaml", at.to_str().unwrap()))?;
    Ok(at)
}

#[test]
fn subiquity_reads_the_user_data() {
    if no_python("subiquity_reads_the_user_data") {
        return;
    }
    let schema = home("tests/installers/autoinstall.schema.json");
    for path in goldens("ubuntu", ".user-data") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#cloud-config\n"), "{}", path.display());
        let script = path.with_file_name(
            path.file_name().unwrap().to_str().unwrap().replace(".user-data", ".early.sh"),
        );
        let two = text.contains("pilotlight1");
        let names: &[&str] = if two { &["nvme0n1", "nvme1n1"] } else { &["vda"] };
        for efi in [false, true] {
            let machine = names.iter().fold(Machine::new(efi), |m, name| m.disk(name, 8, &[]));
            let at = early(&path, &script, &machine).unwrap();
            let whole = fs::read_to_string(&at).unwrap();
            let whole = whole.replace(machine.0.path().to_str().unwrap(), "");
            fs::write(&at, &whole).unwrap();
            assert!(!whole.contains("pilotlight0") && !whole.contains("-bios"), "{whole}");
            let read = yaml(&at, Some(&schema));
            let read = read.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let storage = &read["autoinstall"]["storage"];
            let first = format!("/dev/{}", names[0]);
            if let Some(config) = storage["config"].as_array() {
                assert_eq!(config[0]["path"], json!(first));
                assert_eq!(config[0]["grub_device"], json!(!efi));
                let esp = config.iter().find(|a| a["id"] == "esp0").unwrap();
                assert_eq!(esp["grub_device"], json!(efi));
                whole_actions(config);
            } else {
                assert_eq!(storage["layout"]["match"]["path"], json!(first));
            }
        }
        assert!(yaml(&path, None).is_ok());
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad");
    fs::write(&bad, "autoinstall: {version: 1, storge: {}}\n").unwrap();
    assert!(yaml(&bad, Some(&schema)).is_err(), "it can complain");
    for path in goldens("ubuntu", ".meta-data") {
        assert_eq!(yaml(&path, None).unwrap()["local-hostname"], "web1");
    }
    for path in goldens("ubuntu", ".vendor-data") {
        assert_eq!(yaml(&path, None).unwrap(), json!({}));
    }
    for path in goldens("ubuntu", ".network-config") {
        assert_eq!(yaml(&path, None).unwrap(), json!(null), "as if there were none");
    }
}

/// Each action names only what came before it, and each mount and format is of something.
fn whole_actions(config: &[Value]) {
    let mut seen = Vec::new();
    for action in config {
        let named = ["device", "volume", "volgroup"].map(|key| action[key].as_str());
        let devices = action["devices"].as_array().into_iter().flatten().map(Value::as_str);
        for name in named.into_iter().chain(devices).flatten() {
            assert!(seen.contains(&name), "{name} of {action}");
        }
        seen.push(action["id"].as_str().unwrap());
    }
    let paths = config.iter().filter(|a| a["type"] == "mount").map(|a| a["path"].as_str().unwrap());
    assert!(paths.clone().any(|p| p == "/") && paths.clone().any(|p| p == "/boot/efi"));
}

#[test]
fn each_shell_reads_the_scripts() {
    let scripts = ["debian", "ubuntu-netboot", "ubuntu"];
    for path in scripts.iter().flat_map(|of| goldens(of, ".sh")) {
        for shell in [&["dash"] as &[&str], &["bash"], &["busybox", "ash"]] {
            if !there(shell[0]) {
                left_out("each_shell_reads_the_scripts", &format!("no {}", shell[0]));
                continue;
            }
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]).arg("-n").arg(&path);
            assert_eq!(complaint(command), None, "{shell:?} {}", path.display());
        }
    }
}

/// A machine with disks that are files, and programs that only write down what they are told.
struct Machine(TempDir);

/// MiB of each disk.
const DISK: u64 = 8;

impl Machine {
    fn new(efi: bool) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for made in ["sys/block", "dev", "bin", "devices"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        if efi {
            fs::create_dir_all(dir.path().join("sys/firmware/efi")).unwrap();
        }
        fs::write(dir.path().join("mounts"), "").unwrap();
        let log = dir.path().join("log");
        for program in
            ["wget", "mdadm", "vgchange", "blockdev", "udevadm", "debconf-set-selections"]
        {
            let file = dir.path().join("bin").join(program);
            fs::write(&file, format!("#!/bin/sh\necho {program} \"$@\" >>{}\n", log.display()))
                .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Machine(dir)
    }

    /// A disk full of what must not be lost, with partitions.
    fn disk(self, name: &str, mib: u64, parts: &[&str]) -> Machine {
        let home = self.0.path();
        let node = home.join("sys/block").join(name);
        fs::create_dir(&node).unwrap();
        fs::write(node.join("size"), format!("{}\n", mib * 2048)).unwrap();
        fs::write(home.join("dev").join(name), vec![b'x'; (DISK << 20) as usize]).unwrap();
        for part in parts {
            fs::create_dir(node.join(part)).unwrap();
            fs::write(node.join(part).join("size"), "4096\n").unwrap();
            fs::write(home.join("dev").join(part), vec![b'x'; 2 << 20]).unwrap();
        }
        self
    }

    fn array(self, name: &str, members: &[&str]) -> Machine {
        let slaves = self.0.path().join("sys/block").join(name).join("slaves");
        fs::create_dir_all(&slaves).unwrap();
        for member in members {
            symlink("../../x", slaves.join(member)).unwrap();
        }
        self
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join("dev").join(name)).unwrap()
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.0.path().join("log")).unwrap_or_default();
        log.replace(self.0.path().to_str().unwrap(), "")
    }

    /// What debconf was told, by name.
    fn told(&self, name: &str) -> Option<String> {
        let home = self.0.path();
        let text = fs::read_to_string(home.join("selections")).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("d-i {name} ")))?;
        let (_, value) = line.split_once(' ')?;
        Some(value.replace(home.to_str().unwrap(), ""))
    }

    fn run(&self, script: &str) -> Result<(), String> {
        let home = self.0.path();
        let selections = home.join("selections");
        let script = script
            .replace("/tmp/selections", selections.to_str().unwrap())
            .replace("/etc/resolv.conf", home.join("resolv.conf").to_str().unwrap())
            .replace("/tmp/pre.sh", "/dev/null")
            .replace("/run/pre.sh", "/dev/null")
            .replace("sleep 10", ":")
            .replace("NAMES='/dev/disk", &format!("NAMES='{}/dev/disk", home.display()))
            .replace(" /dev/sda'", &format!(" {}/dev/sda'", home.display()))
            .replace("/dev/nvme", &format!("{}/dev/nvme", home.display()));
        let path = std::env::var("PATH").unwrap();
        let shell: &[&str] = if there("busybox") { &["busybox", "ash"] } else { &["sh"] };
        let out = Command::new(shell[0])
            .args(&shell[1..])
            .args(["-c", &script])
            .env("PATH", format!("{}:{path}", home.join("bin").display()))
            .env("SYS", home.join("sys"))
            .env("DEV", home.join("dev"))
            .env("MOUNTS", home.join("mounts"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.status.success() { Ok(()) } else { Err(said) }
    }
}

fn golden(installer: &str, name: &str) -> String {
    fs::read_to_string(home(&format!("tests/golden/installers/{installer}/{name}"))).unwrap()
}

fn is_wiped(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0; 4096]) && bytes.ends_with(&[0; 4096])
}

#[test]
fn partman_gets_the_disk_and_no_other() {
    let script = golden("debian", "12-lvm.disks.sh");
    let all = || Machine::new(false).disk("sdb", 8, &["sdb1"]).disk("sda", 8, &["sda1", "sda2"]);
    let machine = all().array("md127", &["sda2", "sdb1"]).array("md126", &["sdb1"]);
    machine.run(&script).unwrap();
    let told = |name| machine.told(name).unwrap();
    assert_eq!(told("partman-auto/disk"), "/dev/sda");
    assert_eq!(told("grub-installer/bootdev"), "/dev/sda");
    assert_eq!(told("partman-auto/method"), "lvm");
    assert_eq!(told("partman-partitioning/default_label"), "msdos");
    let recipe = told("partman-auto/expert_recipe");
    assert!(recipe.starts_with("pilotlight ::  768 788 1024 ext4 $primary{ }"), "{recipe}");
    assert!(recipe.ends_with("2048 2048 2048 linux-swap $lvmok{ } method{ swap } format{ } ."));
    assert!(is_wiped(&machine.bytes("sda")) && machine.bytes("sda").len() == (DISK << 20) as usize);
    assert!(is_wiped(&machine.bytes("sda1")) && is_wiped(&machine.bytes("sda2")));
    for other in ["sdb", "sdb1"] {
        assert!(machine.bytes(other).iter().all(|b| *b == b'x'), "{other} was written to");
    }
    let log = machine.log();
    assert!(log.contains("mdadm --stop /dev/md127\n") && !log.contains("md126"), "{log}");
    assert!(log.contains("blockdev --rereadpt /dev/sda\n") && !log.contains("sdb"), "{log}");
    assert!(!log.contains("/report/"), "nothing failed: {log}");
}

#[test]
fn two_disks_become_one() {
    let script = golden("debian", "12-arm64.disks.sh");
    let all =
        |efi, mib| Machine::new(efi).disk("nvme0n1", mib, &[]).disk("nvme1n1", mib, &["nvme1n1p1"]);
    for (efi, mib, label, first) in
        [(false, 8, "msdos", 1), (true, 8, "gpt", 2), (false, 3 << 20, "gpt", 2)]
    {
        let machine = all(efi, mib);
        machine.run(&script).unwrap();
        let told = |name| machine.told(name).unwrap();
        assert_eq!(told("partman-auto/disk"), "/dev/nvme0n1 /dev/nvme1n1");
        assert_eq!(told("partman-auto/method"), "raid");
        assert_eq!(told("partman-partitioning/default_label"), label);
        let arrays = format!(
            "1 2 0 ext4 / /dev/nvme0n1p{first}#/dev/nvme1n1p{first} . \
             1 2 0 swap - /dev/nvme0n1p{}#/dev/nvme1n1p{} .",
            first + 1,
            first + 1
        );
        assert_eq!(told("partman-auto-raid/recipe"), arrays);
        // What stands before the arrays' members is as many as their numbers say.
        let recipe = told("partman-auto/expert_recipe");
        let before = recipe.split(" . ").position(|p| p.contains("method{ raid }")).unwrap();
        assert_eq!(before + 1, first, "{recipe}");
        assert_eq!(recipe.contains("method{ efi }"), efi, "{recipe}");
    }
}

#[test]
fn without_the_disks_nothing_is_touched_and_it_is_told() {
    for (installer, name) in [("debian", "13.disks.sh"), ("ubuntu-netboot", "12.04.disks.sh")] {
        let machine = Machine::new(false).disk("sda", 8, &[]).disk("sdb", 8, &[]);
        let said = machine.run(&golden(installer, name)).unwrap_err();
        assert!(said.contains("no disk was touched: this machine has 2 disks"), "{said}");
        let log = machine.log();
        assert!(log.ends_with("/report/failed\n") && log.lines().count() == 1, "{log}");
        assert_eq!(machine.told("partman-auto/method"), None);
        assert!(["sda", "sdb"].iter().all(|d| machine.bytes(d).iter().all(|b| *b == b'x')));
    }
    let machine = Machine::new(true).disk("sda", 8, &[]).disk("sdb", 8, &[]);
    let golden = |name: &str| home(&format!("tests/golden/installers/ubuntu/{name}"));
    let said = early(&golden("24.04.user-data"), &golden("24.04.early.sh"), &machine).unwrap_err();
    assert!(said.contains("no disk was touched"), "{said}");
    let left = fs::read_to_string(machine.0.path().join("autoinstall.yaml")).unwrap();
    assert!(left.contains("path: /dev/pilotlight0\n"), "a disk that no machine has: {left}");
}

#[test]
fn each_ends_with_the_report() {
    let late = |of: &&str| goldens(of, ".late.sh");
    for path in ["debian", "ubuntu-netboot", "ubuntu"].iter().flat_map(late) {
        let text = fs::read_to_string(&path).unwrap();
        let at = text.rfind("http://192.0.2.1/b/").unwrap();
        assert!(text[at..].contains("/report/done"), "{}", path.display());
    }
    for path in goldens("ubuntu", ".user-data") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("/report/failed\n"), "{}", path.display());
    }
}

/// Nothing that is booted so is an attempt to install, of which a machine has three.
#[test]
fn the_rescue_mode_installs_nothing() {
    let all: Vec<_> = cases("debian").into_iter().filter(|c| c.name.contains("rescue")).collect();
    assert_eq!(all.len(), 2);
    for case in all {
        let config = config(&case, "debian", "bios");
        assert_eq!(config.profile("p").unwrap().kind, Kind::Live, "{}", case.name);
    }
}
