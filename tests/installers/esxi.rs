//! VMware ESXi: boot.cfg as mboot reads it, and the script that picks the disk, run on machines made
//! up.

use super::standin::{Machine, Ran, text};
use super::{goldens, home};

#[test]
fn boot_cfg_has_its_files_below_the_tree() {
    for path in goldens("esxi", ".boot.cfg") {
        let (what, cfg) = (path.display(), text(&path));
        let one = |key: &str| {
            let of = |line: &'_ str| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_string());
            let all: Vec<String> = cfg.lines().filter_map(of).collect();
            assert_eq!(all.len(), 1, "{what}: {key}");
            all[0].clone()
        };
        assert_eq!(one("prefix"), "http://192.0.2.1/files/m", "{what}");
        let (kernel, modules) = (one("kernel"), one("modules"));
        for file in modules.split(" --- ").chain([&*kernel]) {
            assert!(!file.is_empty() && !file.contains(['/', ' ']), "{what}: {file:?}");
        }
        let options = one("kernelopt");
        assert!(options.starts_with("runweasel") && !options.contains("cdromBoot"), "{what}");
        assert_eq!(options.contains(" ks=http://"), !what.to_string().contains("asked"), "{what}");
        assert!(cfg.lines().all(|line| line.contains('=')) && !cfg.contains('\r'), "{what}");
    }
}

/// A disk as localcli lists it.
fn disk(name: &str, mib: u64, loose: bool) -> String {
    format!(
        "{name}:\n   Display Name: Local Disk ({name})\n   Has Settable Display Name: true\n   \
         Size: {mib}\n   Device Type: Direct-Access \n   Devfs Path: /vmfs/devices/disks/{name}\n   \
         Is Removable: {loose}\n   Is Offline: false\n   Is USB: {loose}\n"
    )
}

fn cd(name: &str) -> String {
    disk(name, 0, true).replace("Direct-Access", "CD-ROM")
}

/// What %pre of a case makes of a machine: the line that is included.
fn picked(case: &str, disks: &[String]) -> Result<String, Ran> {
    let ks = text(home(&format!("tests/golden/installers/esxi/{case}.ks.cfg")));
    let from = ks.find("%pre").unwrap();
    let script = &ks[from + ks[from..].find('\n').unwrap()..ks.find("\n%post").unwrap()];
    let machine = Machine::new(&[]);
    machine.file("answers/pre.sh", "true\n");
    machine.file("disks", &disks.concat());
    machine.records("localcli", "cat \"$HOME/disks\"\n");
    let ran = machine.run(&["sh"], script, &["/tmp"]);
    let file = machine.path("tmp/disk.cfg");
    if ran.ok {
        return Ok(text(file));
    }
    assert!(!file.exists(), "{}", ran.said);
    assert!(ran.calls.iter().any(|c| c.starts_with("report failed?")), "{:?}", ran.calls);
    Err(ran)
}

fn line(disk: &str) -> String {
    format!("install --disk={disk} --overwritevmfs\n")
}

#[test]
fn the_only_disk_is_taken_and_of_several_none() {
    let (one, other) = (disk("naa.5000c500a", 953_869, false), disk("t10.NVMe____x", 5, false));
    let (stick, cd) = (disk("mpx.vmhba32:C0:T0:L0", 7640, true), cd("mpx.vmhba1:C0:T4:L0"));
    let with = [cd.clone(), one.clone(), stick.clone()];
    assert_eq!(picked("8", &with).ok().unwrap(), line("naa.5000c500a"));
    let none = picked("8", &[stick, cd]).err().unwrap();
    assert!(none.said.contains("no disk was touched: there is none"), "{}", none.said);
    let two = picked("8", &[one, other]).err().unwrap();
    assert!(two.said.contains("no disk was touched: this machine has 2"), "{}", two.said);
    assert!(two.calls.contains(&"report failed?2-disks".to_string()), "{:?}", two.calls);
}

#[test]
fn the_smallest_is_by_number_and_no_stick() {
    let disks = [disk("naa.a", 20_000, false), disk("naa.b", 9_000, false)];
    let with = [&disks[..], &[disk("mpx.x", 100, true)]].concat();
    assert_eq!(picked("6.7-smallest", &with).ok().unwrap(), line("naa.b"));
}

/// Its names are wwn-0x600508b1001c0001 and then naa.5000*.
#[test]
fn named_disks_are_taken_in_the_order_of_the_names() {
    let all = [
        disk("naa.5000a", 9, true),
        disk("naa.5000b", 9, false),
        disk("naa.600508b1001c0001", 9, false),
        disk("naa.5000c", 9, false),
    ];
    assert_eq!(picked("7-static", &all).ok().unwrap(), line("naa.600508b1001c0001"));
    assert_eq!(picked("7-static", &all[..2]).ok().unwrap(), line("naa.5000b"), "no stick by *");
    let none = picked("7-static", &[disk("naa.600508b1001c00012", 9, false)]).err().unwrap();
    assert!(none.said.contains("none of /dev/disk/by-id/wwn-0x6"), "{}", none.said);
}
