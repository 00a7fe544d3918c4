//! openSUSE and SLES: the profiles are read, and the scripts that put the disks into them are run on
//! machines made up.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;

use super::standin::{Machine, text};
use super::{goldens, home};

fn golden(name: &str) -> String {
    text(home(&format!("tests/golden/installers/suse/{name}")))
}

/// Elements of a profile, which has to be well-formed.
fn elements(what: &str, xml: &str) -> usize {
    let mut reader = Reader::from_str(xml);
    let (mut depth, mut elements) = (0, 0);
    loop {
        match reader.read_event().unwrap_or_else(|e| panic!("{what}: {e}")) {
            Event::Start(_) => (depth, elements) = (depth + 1, elements + 1),
            Event::End(_) => depth -= 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0, "{what}");
    elements
}

#[test]
fn profiles_are_well_formed() {
    for path in goldens("suse", ".autoinst.xml") {
        let xml = text(&path);
        assert!(xml.starts_with("<?xml"), "{}", path.display());
        assert!(elements(&path.display().to_string(), &xml) > 50, "{}", path.display());
    }
    for path in goldens("suse", ".agama.json") {
        let json: Value = serde_json::from_str(&text(&path)).unwrap();
        assert!(json["product"]["id"].is_string(), "{}", path.display());
    }
}

/// A name may hold `--`, which no comment of XML may.
#[test]
fn no_name_is_in_a_comment() {
    for path in ["suse/autoinst.xml", "windows/autounattend.xml"] {
        let xml = text(home(&format!("assets/installers/{path}")));
        let mut comments = xml.split("<!--").skip(1).map(|c| c.split("-->").next().unwrap());
        let named = comments.find(|comment| comment.contains(".name"));
        assert_eq!(named, None, "{path}");
    }
}

/// What pick.sh makes of a case's profile on a machine.
fn picked(case: &str, machine: &Machine) -> Result<String, String> {
    machine.file("answers/autoinst.xml", &golden(&format!("{case}.autoinst.xml")));
    let script = golden(&format!("{case}.pick.sh"));
    let ran = machine.run(&["bash"], &script, &["/tmp/profile"]);
    if !ran.ok {
        assert_eq!(ran.calls, ["report failed"], "{}", ran.said);
        assert!(!machine.path("tmp/profile/modified.xml").exists());
        return Err(ran.said);
    }
    let xml = text(machine.path("tmp/profile/modified.xml"));
    elements(case, &xml);
    Ok(xml)
}

#[test]
fn autoyast_is_given_the_disk_and_the_network_card() {
    let machine = Machine::new(&[1000, 5000, 2000]);
    let xml = picked("leap-15.6-lvm", &machine).unwrap();
    let has = |part: &str| xml.contains(part);
    assert!(has(&format!("<device>{}</device>", machine.disk("sdb"))), "the largest: {xml}");
    assert!(!has(">DISK") && !has("<!--START") && !has(">NIC<"), "{xml}");
    assert!(has("<device>ens3</device>"), "{xml}");
    assert!(has(">263<") && !has("/boot/efi"), "BIOS: {xml}");
}

#[test]
fn autoyast_is_given_an_esp_where_the_firmware_wants_one() {
    let machine = Machine::new(&[1000]);
    machine.file("sys/firmware/efi/fw_platform_size", "64\n");
    let xml = picked("tumbleweed", &machine).unwrap();
    let esp = "<mount>/boot/efi</mount><partition_id config:type=\"integer\">259</partition_id>";
    assert!(xml.contains(esp) && !xml.contains(">263<"), "{xml}");
}

#[test]
fn a_mirror_has_a_start_on_both_disks_and_one_of_them_mounted() {
    let machine = Machine::new(&[1000, 1000]);
    machine.file("sys/firmware/efi/fw_platform_size", "64\n");
    let script = golden("leap-15.6-raid1.pick.sh").replace("RULE='named'", "RULE='smallest'");
    machine.file("answers/autoinst.xml", &golden("leap-15.6-raid1.autoinst.xml"));
    let ran = machine.run(&["bash"], &script, &["/tmp/profile"]);
    assert!(ran.ok, "{}", ran.said);
    let xml = text(machine.path("tmp/profile/modified.xml"));
    elements("raid1", &xml);
    for disk in ["sda", "sdb"] {
        assert!(xml.contains(&format!("<device>{}</device>", machine.disk(disk))), "{disk}: {xml}");
    }
    assert_eq!(xml.matches(">259<").count(), 2, "{xml}");
    assert_eq!(xml.matches("/boot/efi").count(), 1, "{xml}");
}

/// AutoYaST would go on with the profile that it has: the script must not end.
#[test]
fn a_machine_with_two_disks_is_not_installed_by_the_rule_for_one() {
    let said = picked("leap-15.6", &Machine::new(&[1000, 2000])).unwrap_err();
    assert!(said.contains("no disk was touched: this machine has 2 disks"), "{said}");
    assert!(said.contains("the installation stops here"), "{said}");
}

#[test]
fn agama_is_given_the_smallest_disks() {
    let machine = Machine::new(&[3000, 1000, 2000]);
    machine.file("answers/agama.json", &golden("sles-16.0-raid1.agama.json"));
    let script = golden("sles-16.0-raid1.agama.sh");
    let ran = machine.run(&["bash"], &script, &["/run"]);
    assert!(ran.ok, "{}", ran.said);
    let json: Value = serde_json::from_str(&text(machine.path("run/pilotlight.json"))).unwrap();
    let drives = json["storage"]["drives"].as_array().unwrap();
    let found: Vec<&Value> = drives.iter().map(|d| &d["search"]).collect();
    assert_eq!(found, [&machine.disk("sdb"), &machine.disk("sdc")], "{json}");
    assert_eq!(ran.calls, [""; 0], "the installation says how it ends");
}

#[test]
fn agama_has_no_profile_where_there_is_no_disk() {
    let machine = Machine::new(&[]);
    machine.file("answers/agama.json", &golden("leap-16.0.agama.json"));
    let ran = machine.run(&["bash"], &golden("leap-16.0.agama.sh"), &["/run"]);
    assert!(!ran.ok && ran.said.contains("no disk that could be installed to"), "{}", ran.said);
    assert_eq!(ran.calls, ["report failed"]);
    assert!(!machine.path("run/pilotlight.json").exists());
}
