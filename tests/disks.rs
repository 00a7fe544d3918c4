//! `common/disks.sh`, which decides on a machine what an installation may overwrite, under each of
//! the shells that installers have, over made-up `/sys/block`s.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A shell and how its words start.
const SHELLS: &[&[&str]] = &[&["dash"], &["bash"], &["bash", "--posix"], &["busybox", "ash"]];

/// What a machine has: `sys`, `dev` and `mounts`.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for made in ["sys/block", "sys/devices", "dev/disk/by-id"] {
            fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        fs::write(dir.path().join("mounts"), "proc /proc proc rw 0 0\n").unwrap();
        Self(dir)
    }

    /// Disks at `on`, as Linux lays them out: `block/NAME` is a link to where the device hangs.
    fn disk_on(self, on: &str, name: &str, sectors: u64, facts: &[(&str, &str)]) -> Self {
        let home = self.0.path();
        let device = home.join("sys/devices").join(on).join("block").join(name);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("size"), format!("{sectors}\n")).unwrap();
        fs::write(device.join("removable"), "0\n").unwrap();
        for (fact, value) in facts {
            fs::write(device.join(fact), format!("{value}\n")).unwrap();
        }
        symlink(&device, home.join("sys/block").join(name)).unwrap();
        let node = home.join("dev").join(name.replace('!', "/"));
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        fs::write(node, "").unwrap();
        self
    }

    fn disk(self, name: &str, sectors: u64) -> Self {
        self.disk_on("pci0000:00/0000:00:05.0", name, sectors, &[])
    }

    /// What Linux tells of a disk below its `device`, or itself.
    fn fact(self, disk: &str, fact: &str, value: &str) -> Self {
        let at = self.0.path().join("sys/block").join(disk).join(fact);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, format!("{value}\n")).unwrap();
        self
    }

    fn part(self, disk: &str, name: &str) -> Self {
        fs::create_dir(self.0.path().join("sys/block").join(disk).join(name)).unwrap();
        fs::write(self.0.path().join("dev").join(name), "").unwrap();
        self
    }

    fn id(self, id: &str, name: &str) -> Self {
        symlink(Path::new("../..").join(name), self.0.path().join("dev/disk/by-id").join(id))
            .unwrap();
        self
    }

    fn mounted(self, name: &str) -> Self {
        let line =
            format!("{}/{name} /cdrom iso9660 ro 0 0\n", self.0.path().join("dev").display());
        fs::write(self.0.path().join("mounts"), line).unwrap();
        self
    }

    /// The disks, or the sentence, the same under each shell.
    fn chosen(&self, rule: &str, names: &str, count: u32) -> Result<String, String> {
        let home = self.0.path().to_str().unwrap();
        let mut all = shells().map(|shell| run(&shell, home, rule, names, count));
        let first = all.next().unwrap();
        all.for_each(|other| assert_eq!(other, first));
        first
    }
}

fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

/// Those shells that are there; one is everywhere.
fn shells() -> impl Iterator<Item = Vec<&'static str>> {
    SHELLS.iter().filter(|shell| present(shell[0])).map(|shell| shell.to_vec())
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/installers/common/disks.sh")
}

fn run(shell: &[&str], home: &str, rule: &str, names: &str, count: u32) -> Result<String, String> {
    let names: Vec<_> =
        names.split(' ').map(|n| n.replace("/dev", &format!("{home}/dev"))).collect();
    let text = fs::read_to_string(script()).unwrap();
    let out = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", &format!("set -eu\n{text}\necho \"$DISKS\"")])
        .env("RULE", rule)
        .env("NAMES", names.join(" "))
        .env("COUNT", count.to_string())
        .env("SYS", format!("{home}/sys"))
        .env("DEV", format!("{home}/dev"))
        .env("MOUNTS", format!("{home}/mounts"))
        .output()
        .unwrap();
    let plain = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(home, "").trim().into();
    let (said, why) = (plain(out.stdout), plain(out.stderr));
    match out.status.code() {
        Some(0) => Ok(assert_quiet(said, &why)),
        Some(1) => Err(assert_quiet(why, &said)),
        other => panic!("{shell:?} ended with {other:?}: {why}"),
    }
}

fn assert_quiet(said: String, other: &str) -> String {
    assert_eq!(other, "");
    said
}

/// What no rule may take: nothing that is not a disk, not built in, or not to be written.
fn junk(machine: Machine) -> Machine {
    let virt = "virtual";
    let machine = ["loop0", "ram0", "zram0", "dm-0", "md127", "nbd0", "pmem0"]
        .into_iter()
        .fold(machine, |m, name| m.disk_on(virt, name, 50_000_000, &[]));
    machine
        .disk("sr0", 1_400_000)
        .disk("fd0", 2880)
        .disk("mmcblk9boot0", 8192)
        .disk("mmcblk9rpmb", 8192)
        .disk("sdx", 0)
        .disk_on("pci/nvme", "nvme9c0n1", 90_000_000, &[("hidden", "1")])
        .disk_on("pci/ata9", "sdy", 90_000_000, &[("removable", "1")])
        .disk_on("pci/ata8", "sdw", 90_000_000, &[("ro", "1")])
        .disk_on("pci/0000:00:14.0/usb2/2-1/2-1:1.0/host6", "sdz", 60_000_000, &[])
}

#[test]
fn every_shell_is_tried() {
    for shell in SHELLS.iter().filter(|shell| !present(shell[0])) {
        let all = ["CI", "PILOTLIGHT_TESTS_ALL"];
        assert!(all.iter().all(|v| std::env::var_os(v).is_none()), "no {}", shell[0]);
        let _ = writeln!(io::stderr(), "left out: every_shell_is_tried: no {}", shell[0]);
    }
    assert!(shells().count() > 0, "no shell at all");
}

#[test]
fn the_only_disk_is_found_among_what_is_none() {
    for name in ["sda", "vda", "xvda", "nvme0n1", "mmcblk0", "hda"] {
        let machine = junk(Machine::new().disk(name, 20_000_000));
        for rule in ["only", "smallest", "largest"] {
            assert_eq!(machine.chosen(rule, "", 1), Ok(format!("/dev/{name}")));
        }
    }
}

#[test]
fn what_linux_writes_with_a_mark_is_a_path() {
    let machine = Machine::new().disk("cciss!c0d0", 20_000_000);
    assert_eq!(machine.chosen("only", "", 1), Ok("/dev/cciss/c0d0".into()));
    assert_eq!(machine.chosen("named", "/dev/cciss/c0d*", 1), Ok("/dev/cciss/c0d0".into()));
}

#[test]
fn several_disks_are_told_and_none_is_guessed() {
    let machine = junk(Machine::new().disk("sdb", 40).disk("sda", 50));
    let said = "no disk was touched: this machine has 2 disks (/dev/sdb /dev/sda): the setting disk \
                must say which";
    assert_eq!(machine.chosen("only", "", 1), Err(said.into()));
}

#[test]
fn without_a_disk_it_says_so() {
    let said =
        "no disk was touched: this machine has no disk that could be installed to; wanted: 1";
    for machine in [Machine::new(), junk(Machine::new())] {
        for rule in ["only", "smallest", "largest"] {
            assert_eq!(machine.chosen(rule, "", 1), Err(said.into()));
        }
    }
}

#[test]
fn by_size() {
    // Past 32 bits, and numbers that letters would order otherwise.
    let machine = junk(
        Machine::new()
            .disk("sda", 9_000_000_000)
            .disk("sdb", 10_000_000_000)
            .disk("nvme0n1", 500_000_000)
            .disk("sdc", 10_000_000_000)
            .disk("nvme1n1", 500_000_000),
    );
    assert_eq!(machine.chosen("smallest", "", 1), Ok("/dev/nvme0n1".into()));
    assert_eq!(machine.chosen("smallest", "", 2), Ok("/dev/nvme0n1 /dev/nvme1n1".into()));
    assert_eq!(machine.chosen("largest", "", 1), Ok("/dev/sdb".into()));
    assert_eq!(machine.chosen("largest", "", 2), Ok("/dev/sdb /dev/sdc".into()));
}

#[test]
fn two_for_a_mirror() {
    let two = Machine::new().disk("vda", 20).disk("vdb", 20);
    assert_eq!(two.chosen("only", "", 2), Ok("/dev/vda /dev/vdb".into()));
    // Members of an array of before, and of a volume group, are disks all the same.
    let members = junk(Machine::new().disk("sda", 20).disk("sdb", 20).part("sda", "sda1"));
    let holders = members.0.path().join("sys/block/sda/holders/md127");
    fs::create_dir_all(holders).unwrap();
    assert_eq!(members.chosen("only", "", 2), Ok("/dev/sda /dev/sdb".into()));

    let said =
        "no disk was touched: this machine has /dev/vda that could be installed to; wanted: 2";
    assert_eq!(Machine::new().disk("vda", 20).chosen("only", "", 2), Err(said.into()));
    let three = Machine::new().disk("vda", 20).disk("vdb", 20).disk("vdc", 20);
    assert!(three.chosen("only", "", 2).unwrap_err().contains("has 3 disks"));
}

#[test]
fn by_name_in_the_order_of_the_names() {
    let machine = junk(Machine::new().disk("sda", 20).disk("sdb", 30).disk("nvme0n1", 40))
        .part("sda", "sda1")
        .part("nvme0n1", "nvme0n1p1")
        .id("ata-OLD_1", "sda")
        .id("ata-OLD_1-part1", "sda1")
        .id("nvme-X_2", "nvme0n1")
        .id("nvme-X_2-part1", "nvme0n1p1")
        .id("usb-STICK", "sdz");
    let of = |names, count| machine.chosen("named", names, count);
    assert_eq!(of("/dev/sdb", 1), Ok("/dev/sdb".into()));
    assert_eq!(of("/dev/sdq /dev/nvme0n1 /dev/sda", 1), Ok("/dev/nvme0n1".into()));
    assert_eq!(of("/dev/disk/by-id/nvme-X*", 1), Ok("/dev/nvme0n1".into()));
    assert_eq!(
        of("/dev/disk/by-id/nvme-X* /dev/disk/by-id/ata-*", 2),
        Ok("/dev/nvme0n1 /dev/sda".into())
    );
    // The same disk by two names is one disk, and a partition is none.
    let said = "no disk was touched: of the disks /dev/sda /dev/disk/by-id/ata-OLD_1 this machine \
                has /dev/sda; wanted: 2";
    assert_eq!(of("/dev/sda /dev/disk/by-id/ata-OLD_1", 2), Err(said.into()));
    assert!(of("/dev/sda1", 1).is_err());
    assert!(of("/dev/sdq", 1).unwrap_err().contains("has none; wanted: 1"));
    // A glob takes no stick; its name in full does.
    assert!(of("/dev/sd[xyzw] /dev/disk/by-id/usb-*", 1).is_err());
    assert_eq!(of("/dev/sdz", 1), Ok("/dev/sdz".into()));
    assert!(of("/dev/loop0 /dev/md127 /dev/sdw /dev/sdx", 1).is_err());
}

/// What is reached by a network, and a card, with the names of each.
fn far(machine: Machine) -> Machine {
    let machine = machine
        .disk_on("pci/mmc_host/mmc0/mmc0:aaaa", "mmcblk0", 60, &[])
        .disk_on("pci/host3/rport-3:0-1/target3:0:0/3:0:0:0", "sdf", 70, &[])
        .disk_on("platform/host4/session1/target4:0:0/4:0:0:1", "sdg", 80, &[])
        .disk_on("virtual/nvme-fabrics/ctl/nvme5", "nvme5n1", 90, &[])
        .disk_on("virtual/nvme-subsystem/nvme-subsys6", "nvme6n1", 95, &[]);
    machine
        .fact("mmcblk0", "device/type", "SD")
        .fact("nvme5n1", "device/transport", "tcp")
        .fact("nvme6n1", "device/nvme6/transport", "pcie")
        .fact("nvme6n1", "device/nvme7/transport", "fc")
}

#[test]
fn what_is_not_built_in_is_named_in_full_or_left_alone() {
    let machine = far(Machine::new())
        .disk_on("pci/mmc_host/mmc1/mmc1:0001", "mmcblk1", 20, &[])
        .fact("mmcblk1", "device/type", "MMC");
    for rule in ["only", "smallest", "largest"] {
        assert_eq!(machine.chosen(rule, "", 1), Ok("/dev/mmcblk1".into()));
    }
    assert_eq!(machine.chosen("named", "/dev/mmc*", 1), Ok("/dev/mmcblk1".into()));
    assert!(machine.chosen("named", "/dev/sd* /dev/nvme*", 1).is_err());
    for name in ["mmcblk0", "sdf", "sdg", "nvme5n1", "nvme6n1"] {
        let name = format!("/dev/{name}");
        assert_eq!(machine.chosen("named", &name, 1), Ok(name));
    }
    let near = far(Machine::new())
        .disk("nvme0n1", 20)
        .fact("nvme0n1", "device/transport", "pcie")
        .disk("nvme1n1", 20)
        .fact("nvme1n1", "device/nvme1/transport", "pcie");
    assert_eq!(near.chosen("only", "", 2), Ok("/dev/nvme0n1 /dev/nvme1n1".into()));
}

#[test]
fn two_paths_to_a_disk_are_one() {
    let both = |fact: &str, id: &str| {
        let machine = Machine::new().disk("sda", 20).disk("sdb", 20);
        machine.fact("sda", fact, id).fact("sdb", fact, id)
    };
    for (fact, id) in [
        ("device/wwid", "naa.5000c500a1b2c3d4"),
        ("wwid", "eui.0025385b71b0a1b2"),
        ("wwid", "uuid.5b71b0a1-0000-4000-8000-000000000001"),
    ] {
        let machine = both(fact, id);
        assert_eq!(machine.chosen("only", "", 1), Ok("/dev/sda".into()));
        assert_eq!(machine.chosen("named", "/dev/sdb /dev/sda", 1), Ok("/dev/sdb".into()));
        for rule in ["only", "smallest", "named"] {
            let said = machine.chosen(rule, "/dev/sda /dev/sdb", 2).unwrap_err();
            assert!(said.contains("/dev/sda") && said.contains("wanted: 2"), "{said}");
        }
        let third = machine.disk("sdc", 20).fact("sdc", fact, &format!("{id}0"));
        assert_eq!(third.chosen("only", "", 2), Ok("/dev/sda /dev/sdc".into()));
    }
    // What cheap disks share, and one of another size.
    assert!(both("device/wwid", "t10.ATA     DISK").chosen("only", "", 1).is_err());
    let sizes = Machine::new().disk("sda", 20).disk("sdb", 30);
    let sizes = sizes.fact("sda", "wwid", "naa.5000").fact("sdb", "wwid", "naa.5000");
    assert!(sizes.chosen("only", "", 1).is_err());
}

#[test]
fn the_medium_is_never_taken() {
    let machine = || Machine::new().disk("sda", 20).disk("sdb", 30).part("sdb", "sdb1");
    for medium in ["sdb", "sdb1"] {
        let machine = machine().mounted(medium);
        assert_eq!(machine.chosen("only", "", 1), Ok("/dev/sda".into()));
        assert_eq!(machine.chosen("largest", "", 1), Ok("/dev/sda".into()));
        assert!(machine.chosen("named", "/dev/sdb", 1).is_err());
    }
}

#[test]
fn a_rule_that_does_not_exist_takes_nothing() {
    let said = Machine::new().disk("sda", 20).chosen("any", "", 1).unwrap_err();
    assert_eq!(
        said,
        "no disk was touched: there is no rule \"any\": it is only, smallest, largest or named"
    );
}
