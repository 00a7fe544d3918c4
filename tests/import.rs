//! Moving in: what people have becomes a configuration that boots the same.
//!
//! Each folder `tests/import/NAME` has what somebody has, and `args`, what `pilotlight import` is
//! told of it. `NAME.toml` is the configuration that comes of it, `NAME.err` what is said about it.
//! After a change of words: `BLESS=1 cargo test --test import`, then read the difference.

#[path = "common/left_out.rs"]
mod left_out;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use pilotlight::boot::{Ask, Decision, decide};
use pilotlight::config::installers::Blind;
use pilotlight::config::{Config, parse};
use pilotlight::import::disk::Disk;
use pilotlight::import::draft::{Draft, Moved};
use pilotlight::import::pxelinux::{self, Roots};
use pilotlight::import::{Files, NoFile, dhcpd, dnsmasq, kind, leases};
use pilotlight::model::profile::Source;
use pilotlight::model::{Facts, Mac};
use proptest::prelude::*;

use left_out::left_out;

const CASES: [&str; 5] = ["first", "menus", "chained", "site", "branch"];
const COLUMNS: usize = 80;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

fn pilotlight() -> Command {
    let mut command = Command::cargo_bin("pilotlight").unwrap();
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "RUST_LOG", "COLUMNS"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

/// A copy of a case, in a folder of its own.
fn case(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&home().join(name), dir.path());
    dir
}

fn run(dir: &Path, args: &str) -> Output {
    pilotlight().current_dir(dir).arg("import").args(args.split_whitespace()).output().unwrap()
}

fn args(name: &str) -> String {
    fs::read_to_string(home().join(name).join("args")).unwrap()
}

fn config(toml: &str) -> Config {
    parse(&[("moved.toml".into(), toml.into())]).unwrap_or_else(|e| panic!("{e}\n{toml}")).0
}

#[test]
fn what_comes_of_it_is_what_a_person_has_read() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut differ = String::new();
    for name in CASES {
        let dir = case(name);
        let out = run(dir.path(), &args(name));
        assert_eq!(out.status.code(), Some(0), "{name}: {}", text(&out.stderr));
        let here = dir.path().canonicalize().unwrap();
        for (end, said) in [("toml", text(&out.stdout)), ("err", text(&out.stderr))] {
            let said = said.replace(here.to_str().unwrap(), "/HERE");
            let golden = home().join(format!("{name}.{end}"));
            if bless {
                fs::write(&golden, &said).unwrap();
            }
            let want = fs::read_to_string(&golden).unwrap_or_default();
            if said != want {
                differ += &format!("{}\n--- wanted\n{want}--- said\n{said}", golden.display());
            }
            if end == "toml" {
                config(&said);
            } else {
                let wide = said.lines().find(|l| l.chars().count() > COLUMNS && l.contains("  "));
                assert_eq!(wide, None);
            }
        }
    }
    assert!(differ.is_empty(), "{differ}");
}

fn facts(mac: &str) -> Facts {
    Facts::of(mac.parse().unwrap())
}

/// What a choice in the menu boots: files and arguments.
fn chosen(config: &Config, choose: &str) -> (String, Vec<String>, String) {
    let ask = Ask { choose: Some(choose.into()), ..Ask::default() };
    match decide(config, &facts("02:00:00:00:00:01"), None, &ask) {
        Decision::Install { profile, .. } | Decision::Live(profile) => booted(profile),
        other => panic!("{choose}: {other:?}"),
    }
}

fn booted(profile: &pilotlight::model::Profile) -> (String, Vec<String>, String) {
    let place = |s: &Source| match s {
        Source::Ours { folder, path } => format!("{folder}/{path}"),
        Source::Url(url) => url.clone(),
        other => panic!("{other:?}"),
    };
    let initrds = profile.boot.initrds.iter().map(|i| place(&i.source)).collect();
    (place(profile.boot.kernel().unwrap()), initrds, profile.boot.args.clone())
}

#[test]
fn a_choice_boots_what_pxelinux_would_have_loaded() {
    for (name, choose, kernel, initrds, arguments) in [
        (
            "first",
            "linux",
            "tftp/vmlinuz",
            &["tftp/initrd.img"][..],
            "inst.stage2=http://10.20.0.4/dvd ks=http://10.20.0.4/ks.cfg quiet",
        ),
        ("menus", "Ubuntu-12.04", "tftp/linux", &["tftp/initrd.gz"], "vga=normal locale=en_US"),
        (
            "chained",
            "centos68",
            "http/yum/centos/images/pxeboot/vmlinuz",
            &["http/yum/centos/images/pxeboot/initrd.img"],
            "ks=http://192.168.40.6/yum/small.cfg ksdevice=eth0",
        ),
        (
            "site",
            "all-defaults",
            "tftp/any/vmlinuz",
            &["tftp/any/one.img", "tftp/any/two.img"],
            "console=tty0 BOOTIF=01-{{ machine.hexhyp }}",
        ),
        ("site", "memtest", "tftp/tools/memtest.bin", &[], "console=tty0"),
        (
            "site",
            "rescue",
            "http://10.40.0.4/rescue/vmlinuz",
            &["http://10.40.0.4/rescue/initrd.img"],
            "rescue",
        ),
    ] {
        let config = config(&fs::read_to_string(home().join(format!("{name}.toml"))).unwrap());
        let initrds: Vec<String> = initrds.iter().map(ToString::to_string).collect();
        let want = (kernel.to_string(), initrds, arguments.to_string());
        assert_eq!(chosen(&config, choose), want, "{name}");
        // Whoever chooses nothing is never installed.
        let stranger = decide(&config, &facts("02:00:00:00:00:01"), None, &Ask::default());
        assert!(matches!(stranger, Decision::Menu(_)), "{name}: {stranger:?}");
    }
}

#[test]
fn a_machine_boots_what_its_own_file_said() {
    let config = config(&fs::read_to_string(home().join("site.toml")).unwrap());
    let of = |mac: &str| decide(&config, &facts(mac), None, &Ask::default());
    let Decision::Install { profile, chosen: false } = of("52:54:00:40:00:01") else {
        panic!("its file names an installer");
    };
    let (kernel, initrds, arguments) = booted(profile);
    assert_eq!(
        (kernel.as_str(), &initrds[..]),
        ("tftp/any/vmlinuz", &["tftp/any/one.img".into()][..])
    );
    assert_eq!(arguments, "auto=true url=http://10.40.0.4/web1.cfg");
    // By its address in hex: 10.40.0.12 is reserved for it.
    assert!(matches!(of("52:54:00:40:00:02"), Decision::Live(p) if p.boot.args == "rescue"));
    assert!(matches!(of("52:54:00:40:02:99"), Decision::Local(_)));
    let mut by_uuid = facts("02:00:00:00:00:09");
    by_uuid.uuid = Some("b8945908-d6a6-41a9-611d-74a6ab80b83d".into());
    let live = decide(&config, &by_uuid, None, &Ask::default());
    assert!(matches!(live, Decision::Live(p) if p.name == "clone"), "{live:?}");
}

#[test]
fn what_is_not_a_template_stays_as_it_is() {
    let dir = case("site");
    let toml = text(&run(dir.path(), &args("site")).stdout);
    let toml = format!(
        "{toml}\n[[machine]]\nname = \"odd\"\nmac = \"02:00:00:00:00:77\"\nprofile = \"braces\"\n"
    );
    fs::write(dir.path().join("moved.toml"), toml).unwrap();
    fs::create_dir(dir.path().join("tftp/any")).unwrap();
    fs::write(dir.path().join("tftp/any/vmlinuz"), "kernel").unwrap();
    let mut explain = pilotlight();
    explain.current_dir(dir.path()).args(["explain", "odd", "--arch", "bios"]);
    let out =
        explain.args(["--config", "moved.toml", "--server", "10.40.0.4/24"]).output().unwrap();
    let said = text(&out.stdout).replace("\n   : ", "");
    assert!(said.contains("fmt={{x}} {%y%} plain"), "{said}{}", text(&out.stderr));
}

/// Reads one file with the others of its folder.
fn read(dir: &Path, file: &str, text: &str) -> Result<Moved, String> {
    let (mut draft, disk) = (Draft::default(), Disk::default());
    let path = dir.join(file);
    match kind::of(text) {
        Some(kind::Kind::Dhcpd) => {
            dhcpd::import(&mut draft, &disk, &path, text).map_err(|e| e.to_string())?;
        }
        Some(kind::Kind::Dnsmasq) => dnsmasq::import(&mut draft, &disk, &path, text),
        _ => pxelinux::import(&mut draft, &disk, &Roots::default(), &path, Some(text))
            .map_err(|e| e.to_string())?,
    }
    draft.finish("x", &Blind).map_err(|e| e.to_string())
}

#[test]
fn every_line_is_in_the_configuration_or_in_the_list() {
    // Without the line something is other: else it would have been dropped in silence.
    let mut silent = Vec::new();
    let mut seen = 0;
    for (name, file) in [
        ("first", "dhcpd.conf"),
        ("site", "dhcpd.conf"),
        ("chained", "dnsmasq.conf"),
        ("branch", "dnsmasq.conf"),
        ("first", "pxelinux.cfg/default"),
        ("menus", "pxelinux.cfg/default"),
        ("chained", "www/pxelinux.cfg/default"),
        ("site", "tftp/pxelinux.cfg/default"),
    ] {
        let dir = case(name);
        let whole = fs::read_to_string(dir.path().join(file)).unwrap();
        let told = |text: &str| {
            read(dir.path(), file, text).map(|moved| {
                let lines = moved.left.lines.iter();
                (moved.toml, lines.map(|l| (l.text.clone(), l.why.clone())).collect::<Vec<_>>())
            })
        };
        let all = told(&whole).unwrap();
        for (n, line) in whole.lines().enumerate() {
            let bare = line.trim();
            if bare.is_empty() || bare.starts_with('#') || matches!(bare, "{" | "}") {
                continue;
            }
            seen += 1;
            let rest: Vec<&str> =
                whole.lines().enumerate().filter(|(m, _)| *m != n).map(|(_, l)| l).collect();
            if told(&rest.join("\n")).is_ok_and(|without| without == all) {
                silent.push(format!("{name}/{file}:{}: {line}", n + 1));
            }
        }
    }
    assert!(seen > 150, "{seen}");
    // The default where there is no other; the end of a text; inside of a block that is told whole.
    let known = [
        "prompt",
        "ENDTEXT",
        "Looks for",
        "Takes hours",
        "primary",
        "address 10.40",
        "mclt",
        "split",
        "load balance",
    ];
    silent.retain(|l| !known.iter().any(|k| l.contains(k)));
    silent.retain(|l| {
        !["peer address", "match if", "filename \"", "} else {"].iter().any(|k| l.contains(k))
    });
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn files_that_cannot_be_understood_are_told_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let big = "# x\n".repeat(3 << 20);
    let deep = "group {\n".repeat(60_000);
    for (file, bytes, words) in [
        (
            "a.conf",
            "subnet 10.0.0.0 netmask 255.0.0.0 {\n  range 10.0.0.1\n}\n",
            &["a.conf:2:16", "line 2 has no \";\" at its end"][..],
        ),
        (
            "semi.conf",
            "subnet 10.0.0.0 netmask 255.0.0.0 {\n  range 10.0.0.1 10.0.0.9\n  option routers \
             10.0.0.1;\n}\n",
            &["semi.conf:2:25", "line 2 has no \";\" at its end"],
        ),
        (
            "b.conf",
            "host a { hardware ethernet 52:54:00:00:00:01; }\n}\n",
            &["b.conf:2:1", "closes nothing"],
        ),
        (
            "c.conf",
            "option domain-name \"x;\nsubnet 10.0.0.0 netmask 255.0.0.0 { }\n",
            &["c.conf:1:20", "no end"],
        ),
        ("d.conf", "subnet 10.0.0.0 netmask 255.0.0.0 {\n", &["d.conf:1:1", "not closed"]),
        ("e.conf", deep.as_str(), &["e.conf:33:7", "32 deep"]),
        ("f.conf", big.as_str(), &["f.conf", "more than 8 MiB"]),
        ("g.conf", "hello\n", &["g.conf", "not known what it is", "dhcp-range"]),
        ("h.conf", "\0\0\0", &["h.conf", "not known what it is"]),
        ("i.leases", "lease 10.0.0.1 {\n starts never\n}\n", &["i.leases:2:13"]),
    ] {
        fs::write(dir.path().join(file), bytes).unwrap();
        let out = run(dir.path(), file);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(out.stdout.is_empty());
        for word in words {
            assert_eq!(said.matches(word).count(), 1, "{word:?}, told once, in:\n{said}");
        }
    }
    let out = run(dir.path(), "nowhere.conf");
    assert!(text(&out.stderr).contains("nowhere.conf: No such file"), "{}", text(&out.stderr));
    fs::create_dir(dir.path().join("empty")).unwrap();
    let out = run(dir.path(), "empty");
    assert!(text(&out.stderr).contains("no file in it is known"), "{}", text(&out.stderr));
}

/// An expression goes over lines, and so do the addresses of a list.
#[test]
fn a_statement_may_go_over_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text = "option arch code 93 = unsigned integer 16;\n\
        if option arch = 00:07 or\n   option arch = 00:09 {\n filename \"x.efi\";\n}\n\
        option domain-search = concat(\n option a,\n option b);\n\
        subnet 10.0.0.0\n netmask 255.0.0.0 {\n range\n 10.0.0.1\n 10.0.0.9;\n\
        option domain-name-servers 10.0.0.2,\n 10.0.0.3;\n}\n\
        host a { hardware ethernet 52:54:00:0g:00:01; }\n";
    let moved = read(dir.path(), "x.conf", text).unwrap();
    assert!(moved.toml.contains("range = \"10.0.0.1-10.0.0.9\""), "{}", moved.toml);
    assert!(moved.toml.contains("10.0.0.3"), "{}", moved.toml);
    let why: Vec<String> = moved.left.lines.iter().map(|l| l.why.to_string()).collect();
    assert!(why.iter().any(|w| w.contains("\"0g\" is no byte")), "{why:?}");
}

#[test]
fn one_bad_file_is_in_nobodys_way() {
    let dir = case("site");
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put(
        "gone.conf",
        "option domain-name \"gone.example\";\nsubnet 10.99.0.0 netmask 255.255.0.0 {\n",
    );
    put("gone.leases", "lease 10.40.0.150 {\n starts never\n}\n");
    put("hello.txt", "hello\n");
    let good = run(dir.path(), "dhcpd.conf dhcpd.leases");
    let line = "gone.conf hello.txt dhcpd.conf gone.leases dhcpd.leases --state-dir state";
    let out = run(dir.path(), line);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert_eq!(
        text(&out.stdout),
        text(&good.stdout),
        "nothing of the bad one, all of the good one"
    );
    for bad in ["gone.conf:2:1", "gone.leases:2:13", "hello.txt: it is not known"] {
        assert!(said.contains(bad), "{bad}: {said}");
    }
    assert!(said.contains("of which 2 came along"), "{said}");
    // With a file to write it is the same, and the next step is told.
    let line = "hello.txt dhcpd.conf gone.conf --write new.toml --json";
    let out = run(dir.path(), line);
    assert_eq!(out.status.code(), Some(1));
    let as_json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(as_json["failed"].as_array().unwrap().len(), 2, "{as_json}");
    let written = fs::read_to_string(dir.path().join("new.toml")).unwrap();
    assert!(!written.contains("10.99") && !config(&written).dhcp.subnets.is_empty(), "{written}");
    let anew = "mend it, remove new.toml, and import all of them anew";
    assert!(text(&out.stderr).contains(anew), "{}", text(&out.stderr));
    // A file that cannot be written keeps the leases out of the store; and leases that cannot be kept
    // leave no file.
    let out = run(dir.path(), "dhcpd.conf dhcpd.leases --write no/x.toml --state-dir other");
    assert!(text(&out.stderr).contains("no/x.toml: No such file"), "{}", text(&out.stderr));
    assert!(!dir.path().join("other").exists());
    fs::create_dir(dir.path().join("held")).unwrap();
    let running = pilotlight::store::open(&dir.path().join("held")).unwrap();
    let out = run(dir.path(), "dhcpd.conf dhcpd.leases --write x.toml --state-dir held");
    assert!(text(&out.stderr).contains("stop it first"), "{}", text(&out.stderr));
    assert!(!dir.path().join("x.toml").exists());
    drop(running);
    // One that is there already keeps the leases out of the store, too.
    let out = run(dir.path(), "dhcpd.conf dhcpd.leases --write new.toml --state-dir other");
    assert!(text(&out.stderr).contains("is there already"), "{}", text(&out.stderr));
    assert!(!dir.path().join("other").exists());
}

#[test]
fn nothing_is_written_over_and_the_file_is_good() {
    let dir = case("first");
    let out = run(dir.path(), "dhcpd.conf pxelinux.cfg --write new.toml");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout.is_empty());
    let written = fs::read_to_string(dir.path().join("new.toml")).unwrap();
    assert_eq!(config(&written).profiles.len(), 1);
    let out = run(dir.path(), "dhcpd.conf pxelinux.cfg --write new.toml");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("is there already"), "{}", text(&out.stderr));
    let out = run(dir.path(), "dhcpd.conf --json");
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["files"][0]["kind"], "dhcpd");
    let loader = |l: &serde_json::Value| l["reason"] == "loader" && l["line"] == 14;
    assert!(said["left_out"].as_array().unwrap().iter().any(loader), "{said}");
    config(said["toml"].as_str().unwrap());
}

#[test]
fn what_files_include_stays_in_their_folder_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    put("secret.conf", "SECRET\n");
    put(
        "in/a.conf",
        "include \"b.conf\";\ninclude \"../secret.conf\";\nauthoritative;\nallow booting;\n",
    );
    put("in/b.conf", "include \"a.conf\";\nhost x { hardware ethernet 52:54:00:00:00:01; }\n");
    let out = run(dir.path(), "in/a.conf");
    let said = text(&out.stderr) + &text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("in a circle") && said.contains("outside of the folder"), "{said}");
    assert!(said.contains("52:54:00:00:00:01") && !said.contains("SECRET"), "{said}");
    // Each file names the next twice: the number of files is bounded, not only their depth.
    for n in 0..30 {
        let next = format!("conf-file=in/d{}\n", n + 1);
        put(&format!("in/d{n}"), &format!("port=0\n{next}{next}"));
    }
    put("in/d30", "port=0\n");
    put("start.conf", "port=0\nconf-file=in/d0\n");
    let out = run(dir.path(), "start.conf");
    assert_eq!(out.status.code(), Some(0));
    let said = text(&out.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("too deeply"), "{said}");
    put("twice.conf", &"conf-file=in/d29\n".repeat(2000));
    let out = run(dir.path(), "twice.conf start.conf");
    let said = text(&out.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("more than 1024 files"), "{said}");
}

#[test]
fn leases_come_along_once_and_never_over_one_in_force() {
    let dir = case("site");
    let state = dir.path().join("state");
    let line = "dhcpd.conf dhcpd.leases --state-dir state --json";
    let said = |out: &Output| -> serde_json::Value { serde_json::from_slice(&out.stdout).unwrap() };
    let first = run(dir.path(), line);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let first = said(&first);
    // 10.40.0.200 was of a pool for phones alone, which is no range here.
    assert_eq!((&first["leases"]["found"], &first["leases"]["kept"]), (&3.into(), &2.into()));
    let store = pilotlight::store::open(&state).unwrap();
    let (kept, unread) =
        pilotlight::dhcp::lease::Leases::load(&store.list(pilotlight::dhcp::lease::TABLE).unwrap());
    assert!(unread.is_empty());
    let address: Ipv4Addr = "10.40.0.101".parse().unwrap();
    let lease = kept.get(address).unwrap();
    assert_eq!(lease.mac, "52:54:00:40:01:01".parse::<Mac>().unwrap());
    assert_eq!(lease.hostname.as_deref(), Some("guest-1"));
    // While somebody has the store, it is said so.
    let out = run(dir.path(), line);
    assert!(text(&out.stderr).contains("stop it first"), "{}", text(&out.stderr));
    drop(store);
    let again = said(&run(dir.path(), line));
    assert_eq!(again["leases"]["kept"], 0);
    let reasons: Vec<_> = again["leases"]["left_out"].as_array().unwrap().iter().collect();
    assert_eq!(reasons.iter().filter(|r| r["reason"] == "in-force").count(), 2, "{again}");
    let out = run(dir.path(), "dhcpd.leases --state-dir state");
    assert!(text(&out.stderr).contains("--config"), "{}", text(&out.stderr));
    let dir = case("branch");
    let said = said(&run(dir.path(), "dnsmasq.conf dnsmasq.leases --state-dir . --json"));
    assert_eq!(said["leases"]["kept"], 2, "{said}");
}

/// An image of these files.
fn image(dir: &Path, name: &str, volume: &str, files: &[(&str, &str)]) -> bool {
    let tree = dir.join("tree");
    for (file, text) in files {
        fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
        fs::write(tree.join(file), text).unwrap();
    }
    let mut make = Command::new("xorriso");
    make.args(["-as", "mkisofs", "-quiet", "-R", "-J", "-V", volume, "-o", name]).arg("tree");
    let made = make.current_dir(dir).output().is_ok_and(|o| o.status.success());
    let _ = fs::remove_dir_all(tree);
    made
}

#[test]
fn an_image_says_what_it_is_and_gets_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let info = "[general]\nname = CentOS-7\nfamily = CentOS\nversion = 7\narch = x86_64\n";
    let seven = [
        (".treeinfo", info),
        ("images/pxeboot/vmlinuz", "kernel"),
        ("images/pxeboot/initrd.img", "initrd"),
        ("LiveOS/squashfs.img", "system"),
    ];
    if !image(dir.path(), "C7-DVD1.iso", "CentOS 7 x86_64", &seven)
        || !image(dir.path(), "C7-DVD2.iso", "CentOS 7 x86_64", &[("Packages/more.rpm", "rpm")])
        || !image(dir.path(), "other.iso", "OTHER", &[("hello", "hello")])
    {
        return left_out("an_image_says_what_it_is_and_gets_its_lines", "no xorriso");
    }
    let out = run(dir.path(), "C7-DVD2.iso C7-DVD1.iso");
    let (toml, said) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("CentOS 7 (x86_64)") && said.contains("nothing says what it should be"));
    assert!(toml.contains("install = \"c7-dvd1\"") && toml.contains("[[media]]"), "{toml}");
    let (one, two) = (toml.find("C7-DVD1.iso\""), toml.find("C7-DVD2.iso\""));
    assert!(one < two && one.is_some(), "{toml}");
    // The lines boot: the whole configuration is read, with its image.
    fs::write(dir.path().join("moved.toml"), &toml).unwrap();
    let mut check = pilotlight();
    let out = check.current_dir(dir.path()).args(["check", "--config", "moved.toml"]).output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));

    let out = run(dir.path(), "other.iso");
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(
        out.stdout.is_empty() && !said.contains("Looked for") && said.contains("OTHER"),
        "{said}"
    );
    assert!(said.contains("has        hello") && said.contains("[[media]]"), "{said}");
    let said = text(&run(dir.path(), "other.iso --verbose").stderr);
    assert!(said.contains("Looked for") && said.contains("centos-6"), "{said}");

    // One that is not known, and one that is not there, keep nothing from the third.
    let out = run(dir.path(), "other.iso C7-DVD1.iso nowhere.iso");
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(text(&out.stdout).contains("install = \"c7-dvd1\""), "{said}");
    assert!(said.contains("nowhere.iso: No such file") && said.contains("1 image of no"), "{said}");
    let out = run(dir.path(), "other.iso C7-DVD1.iso --write new.toml");
    assert!(text(&out.stderr).contains("that is not in new.toml"), "{}", text(&out.stderr));
    let written = fs::read_to_string(dir.path().join("new.toml")).unwrap();
    assert!(written.contains("install = \"c7-dvd1\""), "{written}");
    fs::create_dir(dir.path().join("below")).unwrap();
    let out = run(&dir.path().join("below"), "../C7-DVD1.iso");
    assert!(!text(&out.stdout).contains(".."), "{}", text(&out.stdout));

    // Most of what makes it a CentOS 7 is there.
    let nearly = [(".treeinfo", info), ("isolinux/vmlinuz", "k"), ("isolinux/initrd.img", "i")];
    assert!(image(dir.path(), "nearly.iso", "NEARLY", &nearly));
    let said = text(&run(dir.path(), "nearly.iso").stderr);
    assert!(said.contains("nearest    centos-7 (3 signs), but there is no images/"), "{said}");
    assert!(said.contains("kernel = \"nearly/isolinux/vmlinuz\""), "{said}");

    let sums = format!("{}  C7-DVD1.iso\n", "0".repeat(64));
    fs::write(dir.path().join("SHA256SUMS"), sums).unwrap();
    let out = run(dir.path(), "C7-DVD1.iso");
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty() && text(&out.stderr).contains("fetch it again"));
}

#[test]
fn an_image_says_what_it_wants_besides() {
    let dir = tempfile::tempdir().unwrap();
    let info = "[general]\nfamily = CentOS\nversion = 6.10\narch = x86_64\n";
    let six = [
        (".treeinfo", info),
        ("images/pxeboot/vmlinuz", "kernel"),
        ("images/pxeboot/initrd.img", "initrd"),
        ("images/install.img", "system"),
    ];
    let disc = [(".discinfo", "1530286202.2\nCentOS 6.10\nx86_64\n2\n"), ("Packages/a.rpm", "a")];
    if !image(dir.path(), "six.iso", "CentOS_6.10_Final", &six)
        || !image(dir.path(), "more.iso", "CentOS_6.10_Final", &disc)
        || !image(dir.path(), "plan9.iso", "PLAN9", &[("386/9pc", "kernel")])
    {
        return left_out("an_image_says_what_it_wants_besides", "no xorriso");
    }
    let out = run(dir.path(), "six.iso");
    let (toml, said) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("by UEFI    cannot boot"), "{said}");
    assert!(said.contains("two DVDs") && toml.contains("# CentOS 6 is two DVDs"), "{said}{toml}");
    for line in
        ["# [profile.settings]", "# [[machine]]", "# secrets = {", "# profile = \"centos-6\""]
    {
        assert!(toml.contains(line), "{line} is missing in:\n{toml}");
    }
    // Without their marks the lines are good.
    let bare = |l: &str| match l.strip_prefix("# ") {
        Some(t) if t.contains(" = ") && !t.contains("iso =") || t.starts_with('[') => t.to_string(),
        _ => l.to_string(),
    };
    let bare: Vec<String> = toml.lines().map(bare).collect();
    let bare = bare.join("\n");
    fs::write(dir.path().join("root.hash"), "$6$x$y\n").unwrap();
    fs::write(dir.path().join("bare.toml"), &bare).unwrap();
    let mut check = pilotlight();
    let out = check.current_dir(dir.path()).args(["check", "--config", "bare.toml"]).output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(0), "{}\n{bare}", text(&out.stdout));

    let out = run(dir.path(), "more.iso");
    let said = text(&out.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(out.status.code(), Some(1));
    assert!(
        said.contains("disc 2 of CentOS 6.10") && said.contains("the first before it"),
        "{said}"
    );

    // An installer of the user's own, by the configuration that names it.
    let own = "title = \"Plan 9\"\narches = { x86_64 = \"386\" }\n[[recognise]]\nvolume = '^PLAN9'\n\
               arch = \"386\"\n[boot]\nkernel = \"386/9pc\"\n";
    fs::create_dir_all(dir.path().join("own/plan9")).unwrap();
    fs::write(dir.path().join("own/plan9/installer.toml"), own).unwrap();
    fs::write(dir.path().join("p.toml"), "[installers]\ndir = \"own\"\n").unwrap();
    assert_eq!(run(dir.path(), "plan9.iso").status.code(), Some(1));
    let out = run(dir.path(), "plan9.iso --config p.toml --write new.toml");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("Plan 9 (x86_64)"), "{said}");
    let mut check = pilotlight();
    let out = check.current_dir(dir.path()).args(["check", "--config", "new.toml"]).output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
}

#[test]
fn what_the_web_server_had_is_served_by_us() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("tftp/vmlinuz", "kernel");
    put("www/ks.cfg", "text\n");
    put("www/cdrom/.treeinfo", "x\n");
    put("www/initrd.img", "initrd");
    put(
        "tftp/pxelinux.cfg/default",
        "LABEL c\n KERNEL vmlinuz\n APPEND initrd=http://10.0.0.1/initrd.img \
         ks=http://10.0.0.1/ks.cfg inst.repo=http://10.0.0.1/cdrom/ x=http://10.0.0.1/gone a={{b\n\
         LABEL m\n KERNEL memdisk\n",
    );
    put(
        "dnsmasq.conf",
        "dhcp-range=10.0.0.50,10.0.0.99,255.255.255.0,1h\ndhcp-option=209,menu\ndhcp-option=66,x\n",
    );
    let out = run(dir.path(), "dnsmasq.conf tftp --http-root www");
    let (toml, said) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{said}");
    let (kernel, initrds, arguments) = chosen(&config(&toml), "c");
    assert_eq!((kernel.as_str(), &initrds[..]), ("tftp/vmlinuz", &["http/initrd.img".into()][..]));
    assert_eq!(
        arguments,
        "ks={{ server.http }}/files/http/ks.cfg inst.repo={{ server.http }}/files/http/cdrom/ \
         x=http://10.0.0.1/gone a={{ '{{' }}b"
    );
    assert!(toml.contains("code = 209") == toml.contains("code = 66") && !toml.contains("code ="));
    let plain = |t: &str| t.replace("\n#", "").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(plain(&toml).contains("answers = { \"ks.cfg\" = \"/"), "{toml}");
    assert!(plain(&toml).contains("curl {{ report }}/done"), "{toml}");
    assert!(said.contains("it takes their ports"), "{said}");
    let said = text(&run(dir.path(), "dnsmasq.conf tftp --http-root www --json").stdout);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let why: Vec<_> = said["left_out"].as_array().unwrap().iter().map(|l| &l["why"]).collect();
    for word in ["http://SERVER/files/http/ks.cfg", "tftp/memdisk is not there", "own here"] {
        let told = why.iter().any(|w| w.as_str().unwrap().contains(word));
        assert!(told, "{word} is missing in {why:?}");
    }
    // The URL that a machine is sent is one of ours.
    fs::write(dir.path().join("moved.toml"), &toml).unwrap();
    let mut explain = pilotlight();
    explain.current_dir(dir.path()).args(["explain", "02:00:00:00:00:01", "--arch", "bios"]);
    explain.args(["--config", "moved.toml", "--server", "10.0.0.2/24"]);
    let out = explain.output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn what_is_not_imported_is_told_to_be_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for (file, bytes, words) in [
        ("ks.cfg", "text\ninclude x\nlang en_US\n%packages\n%end\n", "a kickstart"),
        ("menu.ipxe", "#!ipxe\nmenu\nitem a A\n", "a script of iPXE"),
    ] {
        fs::write(dir.path().join(file), bytes).unwrap();
        let out = run(dir.path(), file);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1));
        assert!(out.stdout.is_empty() && said.contains(words), "{said}");
    }
}

/// What the other servers themselves say of the fixtures.
#[test]
fn the_other_servers_take_the_fixtures() {
    let test = "the_other_servers_take_the_fixtures";
    for (name, tool, args) in [
        ("first", "dhcpd", &["-t", "-cf", "dhcpd.conf"][..]),
        ("site", "dhcpd", &["-t", "-cf", "dhcpd.conf"]),
        ("chained", "dnsmasq", &["--test", "-C", "dnsmasq.conf"]),
        ("branch", "dnsmasq", &["--test", "-C", "dnsmasq.conf"]),
    ] {
        let dir = case(name);
        let path = dir.path().join(args[args.len() - 1]);
        // What names a file that is nowhere, and an option that nobody knows.
        let kept = fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = kept
            .lines()
            .filter(|l| !["/etc/elsewhere", "nonesuch"].iter().any(|w| l.contains(w)))
            .collect();
        fs::write(&path, kept.join("\n") + "\n").unwrap();
        let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers");
        let brought = brought.join(tool).join("usr/sbin").join(tool);
        let places = ["/usr/sbin", "/usr/bin", "/sbin"].map(|d| Path::new(d).join(tool));
        let Some(tool) = places.iter().chain([&brought]).find(|p| p.exists()) else {
            left_out(test, &format!("no {tool}: scripts/deps test brings it"));
            continue;
        };
        let out = Command::new(tool).current_dir(dir.path()).args(args).output().unwrap();
        let said = text(&out.stderr);
        assert!(out.status.success(), "{name}: {said}");
        let warns = said.lines().find(|l| l.contains("WARNING") || l.contains("unknown"));
        assert_eq!(warns, None, "{name}: {said}");
    }
}

/// No files but the one that is read.
struct None_;

impl Files for None_ {
    fn read(&self, _: &Path) -> Result<String, NoFile> {
        Err(NoFile::Outside)
    }

    fn list(&self, _: &Path) -> Result<Vec<PathBuf>, NoFile> {
        Err(NoFile::Outside)
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }

    fn is_folder(&self, _: &Path) -> bool {
        false
    }

    fn here(&self) -> PathBuf {
        "/srv".into()
    }
}

/// What comes of any text is good, or is refused with its place; nothing panics.
fn take(text: &str) {
    for which in 0..3 {
        let mut draft = Draft::default();
        let path = Path::new("/srv/pxelinux.cfg/default");
        match which {
            0 => {
                if let Err(why) = dhcpd::import(&mut draft, &None_, path, text) {
                    assert!(why.place.line >= 1 && !why.message.is_empty());
                    continue;
                }
            }
            1 => dnsmasq::import(&mut draft, &None_, path, text),
            _ => pxelinux::import(&mut draft, &None_, &Roots::default(), path, Some(text)).unwrap(),
        }
        let moved = draft.finish("a test", &Blind).unwrap_or_else(|e| panic!("{e}"));
        config(&moved.toml);
    }
    let now = jiff::Timestamp::UNIX_EPOCH;
    let _ = leases::of_dhcpd(Path::new("x"), text, now);
    leases::of_dnsmasq(Path::new("x"), text, now);
}

const WORDS: [&str; 60] = [
    "subnet",
    "netmask",
    "range",
    "host",
    "hardware",
    "ethernet",
    "fixed-address",
    "option",
    "routers",
    "domain-name",
    "pool",
    "group",
    "shared-network",
    "include",
    "allow",
    "deny",
    "{",
    "}",
    ";",
    ",",
    "\"",
    "\\",
    "#",
    "=",
    "\n",
    "\n",
    "\n",
    " ",
    "10.0.0.0",
    "255.255.255.0",
    "10.0.0.9",
    "10.0.0.99",
    "255.255.0.255",
    "52:54:00:00:00:01",
    "52:54:00:*:*:*",
    "code",
    "300",
    "99999999999999999999",
    "dhcp-range=",
    "dhcp-option=",
    "dhcp-host=",
    "domain=",
    "interface=",
    "set:a",
    "tag:a",
    "option:router",
    "12h",
    "infinite",
    "label ",
    "kernel ",
    "append ",
    "menu ",
    "default",
    "timeout ",
    "initrd=",
    "../..",
    "${x}",
    "{{",
    "é\u{202e}",
    "title ",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_words_are_read_without_a_panic(words in prop::collection::vec(0..WORDS.len(), 0..120)) {
        let text: Vec<&str> = words.iter().map(|n| WORDS[*n]).collect();
        take(&text.join(" "));
        take(&text.concat());
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,200}|[ -~\\n\\t]{0,400}") {
        take(&text);
    }
}
