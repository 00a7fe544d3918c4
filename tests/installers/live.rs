//! Systems that are installed by a live system of theirs: Fedora CoreOS and Flatcar by Ignition, Alpine
//! and Arch by scripts of ours. The configurations are read by Ignition's own validator, and the
//! scripts are read by their shells and run on machines made up.

use std::process::Command;

use serde_json::Value;

use super::standin::{Machine, Ran, text};
use super::{Case, check_templates, complaint, config, goldens, home, left_out};

fn golden(name: &str) -> String {
    text(home(&format!("tests/golden/installers/{name}")))
}

fn missing(test: &str, tool: &str) -> bool {
    let missing = Command::new(tool).arg("--version").output().is_err();
    if missing {
        left_out(test, &format!("no {tool}: scripts/deps test brings it"));
    }
    missing
}

#[test]
fn ignition_reads_what_it_is_given() {
    let test = "ignition_reads_what_it_is_given";
    for path in goldens("coreos", ".ign").into_iter().chain(goldens("flatcar", ".ign")) {
        let json: Value = serde_json::from_str(&text(&path)).unwrap();
        assert_eq!(json["ignition"]["version"], "3.3.0", "{}", path.display());
    }
    if missing(test, "ignition-validate") {
        return;
    }
    let read = |path: &std::path::Path| {
        let mut command = Command::new("ignition-validate");
        command.arg(path);
        complaint(command)
    };
    for path in goldens("coreos", ".ign").into_iter().chain(goldens("flatcar", ".ign")) {
        assert_eq!(read(&path), None, "{}", path.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.ign");
    std::fs::write(&bad, r#"{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"x"}]}}"#)
        .unwrap();
    assert!(read(&bad).is_some(), "it can complain");
}

/// The scripts of these installers, and of openSUSE's.
fn scripts() -> Vec<std::path::PathBuf> {
    let all = [
        ("coreos", ".sh"),
        ("flatcar", ".sh"),
        ("arch", ".sh"),
        ("suse", ".sh"),
        ("alpine", ".user-data"),
    ];
    all.into_iter().flat_map(|(of, ends)| goldens(of, ends)).collect()
}

#[test]
fn shellcheck_reads_the_scripts() {
    if missing("shellcheck_reads_the_scripts", "shellcheck") {
        return;
    }
    let read = |path: &std::path::Path| {
        let mut command = Command::new("shellcheck");
        command.args(["-S", "warning"]).arg(path);
        complaint(command)
    };
    for path in scripts() {
        assert_eq!(read(&path), None, "{}", path.display());
    }
}

/// Where a script has its disks, and has done nothing yet.
fn until_disks(script: &str, next: &str) -> String {
    let (first, _) = script.split_once(next).unwrap_or_else(|| panic!("{next}: {script}"));
    format!("{first}\necho \"disks $DISKS\"\n")
}

#[test]
fn alpine_and_arch_pick_their_disks() {
    let scripts: [(&[&str], String); 2] = [
        (
            &["busybox", "ash"],
            until_disks(&golden("alpine/3.23.user-data"), "# This system is what becomes"),
        ),
        (&["bash"], until_disks(&golden("arch/image.install.sh"), "# The live system has started")),
    ];
    for (shell, script) in scripts {
        if missing("alpine_and_arch_pick_their_disks", shell[0]) {
            continue;
        }
        let machine = Machine::new(&[1000]);
        let ran = machine.run(shell, &script, &[]);
        assert!(ran.ok && ran.calls.is_empty(), "{shell:?}: {}", ran.said);
        assert_eq!(ran.said, format!("disks {}\n", machine.disk("sda")));
        let machine = Machine::new(&[1000, 1000]);
        let ran = machine.run(shell, &script, &[]);
        assert!(!ran.ok && ran.said.starts_with("no disk was touched:"), "{shell:?}: {}", ran.said);
        assert_eq!(ran.calls, ["report failed"]);
    }
}

/// An installation of the case on a machine whose installer is a stand-in that keeps the
/// configuration of the new system.
fn installed(of: &str, script: &str, machine: &Machine, config: &str) -> Ran {
    machine.file("answers/config.ign", &golden(config));
    machine.records("coreos-installer", "cp \"$4\" \"$HOME/installed.ign\"\n");
    machine.records("flatcar-install", "cp \"$4\" \"$HOME/installed.ign\"\n");
    machine.records("systemctl", "");
    let moved = ["/etc/NetworkManager/system-connections"];
    let ran = machine.run(&["bash"], script, &moved);
    if ran.ok {
        let json = text(machine.path("installed.ign"));
        let _: Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{of}: {e}: {json}"));
    }
    ran
}

#[test]
fn coreos_is_installed_and_told_in_this_order() {
    let machine = Machine::new(&[1000]);
    let script = golden("coreos/43.install.sh");
    let ran = installed("coreos", &script, &machine, "coreos/43.config.ign");
    assert!(ran.ok, "{}", ran.said);
    let install =
        format!("coreos-installer install {} --ignition-file config.ign", machine.disk("sda"));
    assert_eq!(ran.calls, [&install, "report done", "systemctl reboot"]);
}

#[test]
fn coreos_mirrors_the_disks_that_were_picked() {
    if missing("coreos_mirrors_the_disks_that_were_picked", "jq") {
        return;
    }
    let machine = Machine::new(&[2000, 1000, 3000]);
    let script = golden("coreos/43-raid1.install.sh").replace("RULE='named'", "RULE='smallest'");
    let ran = installed("coreos", &script, &machine, "coreos/43-raid1.config.ign");
    assert!(ran.ok, "{}", ran.said);
    let json: Value = serde_json::from_str(&text(machine.path("installed.ign"))).unwrap();
    let disks = json["storage"]["disks"].as_array().unwrap();
    let devices: Vec<&Value> = disks.iter().map(|d| &d["device"]).collect();
    assert_eq!(devices, [&machine.disk("sdb"), &machine.disk("sda")], "{json}");
    let more =
        "--copy-network --append-karg enforcing=0 --append-karg console=ttyS0 --append-karg quiet";
    assert!(ran.calls[0].ends_with(more), "{:?}", ran.calls);
    let network = "etc/NetworkManager/system-connections/pilotlight.nmconnection";
    assert!(text(machine.path(network)).contains("address1=192.0.2.10/24,192.0.2.254\n"));
}

#[test]
fn flatcar_comes_by_the_mirror_that_it_was_booted_by() {
    let machine = Machine::new(&[1000]);
    let script = golden("flatcar/mirror.install.sh");
    let ran = installed("flatcar", &script, &machine, "flatcar/mirror.config.ign");
    assert!(ran.ok, "{}", ran.said);
    let install = format!(
        "flatcar-install -d {} -i config.ign -b http://192.0.2.1/mirror/flatcar/amd64-usr",
        machine.disk("sda")
    );
    assert_eq!(ran.calls, [&install, "report done", "systemctl reboot"]);
}

#[test]
fn what_cannot_be_installed_is_told_as_failed() {
    for of in ["coreos/43", "flatcar/image"] {
        let machine = Machine::new(&[1000, 1000]);
        let script = golden(&format!("{of}.install.sh"));
        let ran = installed(of, &script, &machine, &format!("{of}.config.ign"));
        assert!(!ran.ok && ran.said.starts_with("no disk was touched:"), "{}", ran.said);
        assert_eq!(ran.calls, ["report failed"], "{of}");
        let machine = Machine::new(&[1000]);
        let failing =
            script.replace("coreos-installer install", "false").replace("flatcar-install", "false");
        let ran = installed(of, &failing, &machine, &format!("{of}.config.ign"));
        assert!(!ran.ok, "{}", ran.said);
        assert_eq!(ran.calls, ["report failed"], "{of}");
    }
}

/// What an image cannot do is refused before a machine is installed without it.
#[test]
fn arch_gives_grub_each_argument() {
    let script = golden("arch/image-raid1.install.sh");
    let line = script.lines().find(|line| line.contains("GRUB_CMDLINE_LINUX")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let grub = dir.path().join("grub");
    std::fs::write(&grub, "A=1\nGRUB_CMDLINE_LINUX=\"\"\nB=2\n").unwrap();
    let line = line.replace("/mnt/etc/default/grub", &grub.display().to_string());
    let ran = Command::new("bash").args(["-c", &line]).status().unwrap();
    assert!(ran.success(), "{line}");
    let want = "A=1\nGRUB_CMDLINE_LINUX=\"console=ttyS0 quiet foo=a|b/c\"\nB=2\n";
    assert_eq!(text(&grub), want);
}

#[test]
fn settings_that_a_system_has_not_are_refused() {
    for (install, settings, why) in [
        ("flatcar-stable", "packages = [\"vim\"]", "Flatcar has no packages"),
        ("flatcar-stable", "layout = \"lvm\"", "Flatcar comes as an image"),
        ("alpine-3.23", "filesystem = \"ntfs\"", "ext4, xfs or btrfs"),
        ("arch", "filesystem = \"zfs\"", "ext4, xfs or btrfs"),
    ] {
        let case = format!("name = \"x\"\ninstall = {install:?}\n[settings]\n{settings}\n");
        let case: Case = toml::from_str(&case).unwrap();
        let config = config(&case, install, "uefi-x64");
        let said = check_templates(&config, config.profile("p").unwrap());
        assert!(said.iter().any(|e| e.error.message.contains(why)), "{install}: {said:?}");
    }
}
