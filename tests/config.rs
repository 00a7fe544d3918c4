//! The configuration as a user meets it: what is wrong is told with its place and a hint, several
//! files are one, and what is named is looked for.
//!
//! Each `tests/config/NAME.toml` is wrong in the ways that `NAME.err` tells, line by line. After a
//! change of words: `BLESS=1 cargo test --test config`, then read the difference.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pilotlight::config::{
    Blind, Cache, Config, Errors, Finding, Folder, Life, Look, Mirror, Mode, Note, OwnCertificate,
    Root, Tree, Unknown, Verify, Webhook, check_disk, load, open_secrets, parse, parse_with,
    reveal,
};
use pilotlight::model::profile::{Answer, Kind, Source, Template};
use pilotlight::model::{Digest, Hidden, Power, Secret};
use proptest::prelude::*;
use serde_json::json;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn one(text: &str) -> Result<(Config, Vec<Note>), Errors> {
    parse(&[("pilotlight.toml".into(), text.into())])
}

fn good(text: &str) -> Config {
    one(text).unwrap_or_else(|e| panic!("{e}")).0
}

/// The texts of what is wrong, or nothing.
fn lines<T>(result: Result<T, Errors>) -> Vec<String> {
    result.err().map_or(Vec::new(), |e| e.errors.iter().map(Finding::to_string).collect())
}

#[test]
fn what_is_wrong_is_told_word_by_word() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut seen = 0;
    let mut differ = String::new();
    for entry in fs::read_dir(home().join("tests/config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let said = match parse(&[(path.file_name().unwrap().into(), text)]) {
            Ok(_) => "nothing is wrong".to_string(),
            Err(errors) => format!("{errors}\n"),
        };
        let golden = path.with_extension("err");
        if bless {
            fs::write(&golden, &said).unwrap();
        }
        let want = fs::read_to_string(&golden).unwrap_or_default();
        if said != want {
            writeln!(differ, "{}\n--- wanted\n{want}--- said\n{said}", path.display()).unwrap();
        }
    }
    assert!(seen >= 15, "the bad configurations are not where they were: {seen}");
    assert!(differ.is_empty(), "{differ}");
}

#[test]
fn a_picture_shows_the_line_and_both_places_of_a_clash() {
    let files = [
        ("pilotlight.toml".into(), "[http]\nport = 80\n".into()),
        ("pilotlight.d/web.toml".into(), "[http]\n port = 8080\n".into()),
    ];
    let errors = parse(&files).unwrap_err();
    let want = "\
error: `port` of [http] is set twice
 --> pilotlight.d/web.toml:2:2
  |
2 |  port = 8080
  |  ^^^^
  |
 ::: pilotlight.toml:2:1
  |
2 | port = 80
  | ---- the other place
  |
  = help: leave one of them out";
    assert_eq!(errors.picture(false), want);
    assert_eq!(
        errors.to_string(),
        "pilotlight.d/web.toml:2:2: `port` of [http] is set twice; the other place is \
         pilotlight.toml:2:1 (leave one of them out)"
    );
    assert_eq!(
        serde_json::to_value(&errors).unwrap(),
        json!({
            "errors": [{
                "file": "pilotlight.d/web.toml",
                "line": 2,
                "column": 2,
                "message": "`port` of [http] is set twice",
                "hint": "leave one of them out",
                "first": "pilotlight.toml:2:1",
            }],
            "more": 0,
        })
    );
    assert!(errors.picture(true).contains("\x1b["));
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(load(None, &Blind).unwrap(), (Config::default(), Vec::new()));
    assert_eq!(parse(&[]).unwrap(), (Config::default(), Vec::new()));
    let empty = good("");
    assert_eq!(empty, Config { sources: vec!["pilotlight.toml".into()], ..Config::default() });
}

#[test]
fn the_example_is_what_it_says() {
    let path = home().join("assets/pilotlight.toml");
    let text = fs::read_to_string(path).unwrap();
    let (c, notes) = parse(&[("/etc/pilotlight/pilotlight.toml".into(), text)]).unwrap();
    assert_eq!(notes, []);
    let beside = |name: &str| Path::new("/etc/pilotlight").join(name);
    assert_eq!(c.interfaces, ["eth1"]);
    assert_eq!(c.state_dir, Path::new("/var/lib/pilotlight"));
    assert_eq!(c.dhcp.mode, Mode::Full);
    assert!(c.dhcp.router_advertisement);

    let [s] = &c.dhcp.subnets[..] else { panic!("{:?}", c.dhcp.subnets) };
    let ip = |last| Ipv4Addr::new(10, 0, 0, last);
    assert_eq!(s.network.to_string(), "10.0.0.0/24");
    assert_eq!(s.ranges, [ip(100)..=ip(200)]);
    assert_eq!((&s.router[..], &s.dns[..]), (&[ip(1)][..], &[ip(1), ip(2)][..]));
    assert_eq!(s.domain.as_deref(), Some("lab.example"));
    assert_eq!((s.broadcast, &s.ntp[..], s.mtu), (ip(255), &[ip(1)][..], Some(1500)));
    assert_eq!(s.lease_time, Duration::from_secs(3600));
    assert_eq!(s.max_lease_time, Duration::from_secs(86400));
    assert_eq!(
        s.options,
        [
            (66, b"tftp.lab.example".to_vec()),
            (150, vec![10, 0, 0, 5, 10, 0, 0, 6]),
            (23, vec![64]),
            (22, vec![0x05, 0x78]),
            (2, vec![0, 0, 0x0e, 0x10]),
            (19, vec![0]),
            (224, vec![10, 11, 12]),
        ]
    );

    assert_eq!(c.tftp.dir, Some(beside("tftp")));
    assert_eq!((c.http.port, c.http.https_port), (80, 443));
    assert_eq!(c.http.admin, "127.0.0.1:8067".parse().ok());
    assert!(!c.tls.enabled);
    let own = OwnCertificate {
        chain: beside("chain.pem"),
        key: beside("key.pem"),
        root: Some(beside("root.pem")),
    };
    assert_eq!(c.tls.own, Some(own));
    assert_eq!(c.tls.names, ["boot.lab.example"]);
    assert_eq!(c.tls.addresses, [Ipv4Addr::new(192, 0, 2, 7)]);
    assert_eq!(c.ipxe.dir, Some(beside("loaders")));
    assert_eq!(c.ipxe.loaders, [("uefi-x64", "ipxe-amd64.efi".to_string())]);
    assert_eq!((&*c.menu.title, c.menu.timeout), ("Lab 3", Duration::from_secs(30)));
    let folder = |name: &str, root| Folder { name: name.into(), root, is: None };
    let discs = ["CentOS-7-DVD-1.iso", "CentOS-7-DVD-2.iso"].map(beside).to_vec();
    let want = [
        folder("images", Root::Dir("/srv/images".into())),
        folder("centos7", Root::Images(discs)),
        folder("netboot", Root::Dir("/srv/netboot".into())),
    ];
    assert_eq!(c.folders, want);
    assert_eq!(c.watched, [Path::new("/srv/iso")]);
    assert_eq!(c.own_installers, Some(beside("installers")));
    let web = c.profile("web").unwrap();
    let release = web.release.as_ref().unwrap();
    assert_eq!((&*release.installer, &*release.version), ("centos-7", "7.9"));
    assert_eq!(web.settings.as_ref().unwrap().len(), 15, "all there are");
    assert!(web.boot.args.contains("answers['ks.cfg']"), "{}", web.boot.args);
    let names: Vec<&str> = web.answers.iter().map(|a| &*a.name).collect();
    assert_eq!(names, ["post.sh", "ks.cfg"]);
    assert_eq!(c.http.pace, Some(40_000_000));
    let cache = Cache {
        dir: Some("/var/cache/pilotlight".into()),
        limit: 50_000_000_000,
        offline: false,
        prefetch: true,
    };
    assert_eq!(c.cache, cache);
    let mirror = Mirror {
        name: "debian".into(),
        urls: vec![
            "https://ftp.debian.org/debian/".into(),
            "https://mirror.example/debian/".into(),
        ],
        verify: Verify::Debian,
        keys: vec!["/usr/share/keyrings/debian-archive-keyring.gpg".into()],
        redirects: vec!["cdn.example".into(), "*.debian.org".into()],
        pins: [("tools/memtest.bin".to_string(), Digest::sha256(b""))].into(),
        private: false,
        connections: 8,
    };
    assert_eq!(c.mirrors[0], mirror, "and not the catalogue's");
    assert_eq!(
        c.mirrors.iter().map(|m| &*m.name).collect::<Vec<_>>(),
        ["debian", "debian-security"]
    );

    let p = c.profile("debian").unwrap();
    assert_eq!((&*p.title, p.menu), ("Debian 12 (bookworm)", true));
    assert!(p.boot.args.starts_with("mirror/country=manual"));
    assert!(p.boot.args.ends_with(" priority=medium"));
    assert!(matches!(p.boot.kernel(), Some(Source::Mirror { mirror, .. }) if mirror == "debian"));

    let p = c.profile("debian-12").unwrap();
    let ours = |path: &str| Source::Ours { folder: "images".into(), path: path.into() };
    assert_eq!((&*p.title, p.menu), ("Debian 12 (automatic)", true));
    let sources: Vec<&Source> = p.boot.sources().collect();
    assert_eq!(sources, [&ours("debian/linux"), &ours("debian/initrd.gz")]);
    assert_eq!(p.boot.args, "auto=true priority=critical url={{ answers.preseed }}");
    assert_eq!(p.console.as_deref(), Some("ttyS0,115200"));
    let template = Template::File(beside("preseed.cfg"));
    let answer = Answer {
        name: "preseed".into(),
        template,
        crlf: false,
        carried: Some("/preseed.cfg".into()),
    };
    assert_eq!(p.answers, [answer]);
    assert_eq!(serde_json::to_value(&p.vars).unwrap(), json!({"release": "bookworm"}));
    let secret = |name: &str| p.secrets[name].clone();
    assert_eq!(p.secrets.len(), 3);
    assert_eq!(secret("root_password"), Secret::File("/etc/pilotlight/root.hash".into()));
    assert_eq!(secret("user_password"), Secret::Env("USER_PASSWORD".into()));
    assert_eq!(secret("wifi"), Secret::Literal(Hidden::new("correct horse")));
    assert_eq!((p.kind, p.attempts), (Kind::Install, Some(2)));
    assert_eq!(p.timeout, Some(Duration::from_secs(3600)));
    assert_eq!(c.profile("rescue").unwrap().kind, Kind::Live);
    let life = Life {
        unknown: Unknown::Install("debian-12".into()),
        attempts: 3,
        timeout: Duration::from_secs(2 * 3600),
        held_rescue: true,
        rescue: Some("rescue".into()),
        boots: 5,
    };
    assert_eq!(c.life, life);
    let webhook = Webhook {
        url: "https://chat.example/hooks/lab3".into(),
        secret: Some(Secret::Env("WEBHOOK_SECRET".into())),
        events: vec!["installed", "failed", "alarm"],
    };
    assert_eq!(c.webhooks, [webhook]);
    let line = c.place("profile/debian-12").line - 1;
    assert_eq!(p.at, format!("/etc/pilotlight/pilotlight.toml:{line}"), "the line of [[profile]]");

    let [m] = &c.machines[..] else { panic!("{:?}", c.machines) };
    assert_eq!((&*m.name, m.profile.as_deref()), ("web1", Some("debian-12")));
    assert_eq!(m.mac(), "52:54:00:12:34:56".parse().ok());
    assert_eq!(m.matches.uuid.as_deref(), Some("8d2f0c64-6f0e-4a57-9f5e-0d4a3c1b2e10"));
    assert_eq!(m.matches.serial.as_deref(), Some("CZ1234567"));
    assert_eq!(m.matches.vendor.as_deref(), Some("QEMU"));
    assert_eq!(m.matches.arch, Some("uefi-x64"));
    assert_eq!((m.address, m.hostname.as_deref()), (Some(ip(50)), Some("web1")));
    assert_eq!(m.loader.as_deref(), Some("ipxe.efi"));
    assert_eq!(serde_json::to_value(&m.vars).unwrap(), json!({"rack": 7}));
    assert_eq!(m.secrets["disk_key"], Secret::File("/etc/pilotlight/web1.key".into()));
    let power = Power::Redfish {
        url: "https://bmc-web1.example/redfish/v1/Systems/1".into(),
        user: Some("admin".into()),
        password: Some(Secret::File("/etc/pilotlight/bmc.password".into())),
        insecure: false,
    };
    assert_eq!(m.power, power);
}

#[test]
fn short_forms_mean_what_long_ones_do() {
    let c = good(
        "[http]\nadmin = \"off\"\n[dhcp]\nmode = \"full\"\nrouter-advertisement = false\n\
         [[subnet]]\nnetwork = \"10.0.0.0/24\"\nmax-lease-time = \"10m\"\n\
         range = [\"10.0.0.10 - 10.0.0.20\", \"10.0.0.30-10.0.0.30\"]\n\
         [[profile]]\nname = \"p\"\nkernel = \"https://h/k\"\ninitrd = \"http://h/i\"\n\
         vars = { list = [1, 2.5, true], day = 2026-01-02, deep = { er = \"x\" } }\n\
         [[machine]]\nname = \"m\"\nuuid = \"8D2F0C646F0E4A579F5E0D4A3C1B2E10\"\n",
    );
    assert_eq!(c.http.admin, None);
    assert!(!c.dhcp.router_advertisement);
    let s = &c.dhcp.subnets[0];
    assert_eq!(s.ranges.len(), 2);
    assert_eq!(s.broadcast, Ipv4Addr::new(10, 0, 0, 255));
    assert_eq!(s.lease_time, Duration::from_secs(600), "no more than the most");
    let p = &c.profiles[0];
    assert_eq!((&*p.title, p.menu, &*p.boot.args), ("p", true, ""));
    assert_eq!(p.boot.kernel(), Some(&Source::Url("https://h/k".into())));
    assert_eq!(
        serde_json::to_value(&p.vars).unwrap(),
        json!({"list": [1, 2.5, true], "day": "2026-01-02", "deep": {"er": "x"}})
    );
    let uuid = c.machines[0].matches.uuid.as_deref();
    assert_eq!(uuid, Some("8d2f0c64-6f0e-4a57-9f5e-0d4a3c1b2e10"), "as iPXE writes it");
    let s = &good("[[subnet]]\nnetwork = \"10.0.0.0/24\"\nlease-time = \"2d\"\n").dhcp.subnets[0];
    assert_eq!(s.max_lease_time, s.lease_time, "no less than what all get");
}

#[test]
fn a_program_and_a_key_are_beside_the_file_that_names_them() {
    let text = "[http]\nadmin = \"[::]:8067\"\n[[machine]]\nname = \"m\"\nserial = \"1\"\n\
                secrets = { key = { file = \"k\" } }\npower = { command = [\"./pdu\", \"7\"] }\n\
                [[machine]]\nname = \"n\"\nserial = \"2\"\npower = { command = \"pdu\" }\n\
                [[webhook]]\nurl = \"http://h/a?b=c\"\n";
    let (c, _) = parse(&[("/etc/p/p.toml".into(), text.into())]).unwrap();
    assert_eq!(c.http.admin, "[::]:8067".parse().ok(), "and any other address");
    assert_eq!(c.machines[0].secrets["key"], Secret::File("/etc/p/k".into()));
    assert_eq!(c.machines[0].power, Power::Command(vec!["/etc/p/./pdu".into(), "7".into()]));
    assert_eq!(c.machines[1].power, Power::Command(vec!["pdu".into()]), "of PATH");
    assert_eq!((c.webhooks[0].url.as_str(), c.webhooks[0].events.len()), ("http://h/a?b=c", 3));
}

#[test]
fn no_picture_shows_a_secret() {
    let text = "[[profile]]\nname = \"a\"\nkernel = \"http://h/k\"\n\
                secrets = { \"ä\" = \"hunter2\", b = \"hunter2\", c = 7, d = 1, e = \"\"\"hunt\nhunter2\"\"\", 2 = {} }\n\
                [[machine]]\nname = \"m\"\nserial = \"1\"\nsecrets = { x = [\"hunter2\"], y = \"hunter2\" }\n\
                power = { redfish = \"ftp://h\", user = \"u\", password = \"hunter2\" }\n";
    let errors = one(text).unwrap_err();
    assert!(errors.errors.len() >= 6, "{errors}");
    let shown = errors.picture(false) + &errors.to_string() + &format!("{errors:?}");
    assert!(!shown.contains("hunt"), "{shown}");
    assert!(shown.contains("b = *********, c = *,"), "{shown}");
    let good =
        "[[profile]]\nname = \"a\"\nkernel = \"http://h/k\"\nsecrets = { b = \"hunter2\" }\n";
    let (c, notes) = one(good).unwrap();
    assert!(!format!("{c:?}{notes:?}").contains("hunter2"));
    let picture = Finding::new(c.place("profile/a/secret/b"), "x", "").picture(false);
    assert!(picture.contains("b = *********"), "{picture}");
}

#[test]
fn a_kernel_comes_from_a_folder_or_a_mirror() {
    let c = good(
        "[http]\npace = \"1 MiB\"\n[[files]]\nname = \"f\"\ndir = \"f\"\n\
         [[mirror]]\nname = \"m\"\nurls = \"http://127.0.0.1:8080/a\"\nprivate = true\n\
         [[profile]]\nname = \"p\"\nkernel = \"m/dists/linux\"\ninitrd = \"f/initrd\"\n",
    );
    assert_eq!(c.http.pace, Some(1 << 20));
    let m = c.mirror("m").unwrap();
    assert_eq!(m.urls, ["http://127.0.0.1:8080/a/"], "with a slash behind it");
    assert_eq!((m.verify, m.connections, m.private), (Verify::Plain, 8, true));
    let p = &c.profiles[0];
    let kernel = Source::Mirror { mirror: "m".into(), path: "dists/linux".into() };
    let initrd = Source::Ours { folder: "f".into(), path: "initrd".into() };
    assert_eq!(p.boot.sources().collect::<Vec<_>>(), [&kernel, &initrd]);
    assert_eq!(c.cache_dir(), Path::new("/var/lib/pilotlight/cache"));
}

#[test]
fn a_mirror_without_keys_is_noted() {
    let text = "[[mirror]]\nname = \"m\"\nurls = \"http://h/\"\nverify = \"rpm\"\n\
                [[mirror]]\nname = \"n\"\nurls = \"http://h/\"\n";
    let said: Vec<String> = one(text).unwrap().1.iter().map(Note::to_string).collect();
    assert_eq!(
        said,
        ["pilotlight.toml:4:10: without `keys` no signature is looked at: digests count from the \
          mirror's own word on (name the files with its public keys: keys = [\"….gpg\"])"]
    );
}

#[test]
fn what_surprises_is_noted() {
    let text = "[[subnet]]\nnetwork = \"10.0.0.0/24\"\nrouter = [\"10.0.0.9\", \"10.9.0.1\"]\n\
                range = \"10.0.0.5-10.0.0.20\"\n\
                [[profile]]\nname = \"auto\"\nkernel = \"http://h/k\"\n\
                answers = { preseed = \"preseed.cfg\" }\n\
                [[profile]]\nname = \"said\"\nmenu = false\nkernel = \"http://h/k\"\n\
                answers = { preseed = \"preseed.cfg\" }\n\
                plain-answers = true\ncarried = { \"*\" = \"/preseed.cfg\" }\n";
    let (c, notes) = one(text).unwrap();
    assert_eq!(c.profiles.iter().map(|p| p.menu).collect::<Vec<_>>(), [false, false]);
    let said: Vec<String> = notes.iter().map(Note::to_string).collect();
    assert_eq!(
        said,
        [
            "pilotlight.toml:2:11: a [[subnet]] is used in mode \"full\" only (write mode = \
             \"full\" under [dhcp] to hand out addresses)",
            "pilotlight.toml:3:23: the router 10.9.0.1 is not in 10.0.0.0/24 (machines reach a \
             router only in their own network)",
            "pilotlight.toml:4:9: the range holds the router 10.0.0.9 (leave it out of the range, \
             lest a machine is given it)",
            "pilotlight.toml:6:8: profile \"auto\" hands out answer files, so the menu of unknown \
             machines leaves it out (menu = true offers it to everybody on the network)",
            "pilotlight.toml:15:1: profile \"said\": its answers go by HTTP (plain-answers), so \
             `carried` is not used (iPXE carries answers in place of HTTPS; one of the two can go)",
        ]
    );
    assert!(notes[0].picture_of_note(false).starts_with("warning: "));
}

#[test]
fn a_keyboard_that_is_not_known_is_noted_with_the_nearest() {
    let noted = |keyboard: &str| {
        let settings = format!("[profile.settings]\nkeyboard = {keyboard:?}\n");
        let text = format!("[[profile]]\nname = \"p\"\ninstall = \"debian-12\"\n{settings}");
        let (_, notes) = one(&text).unwrap();
        let of_it = notes.iter().filter(|n| n.message.contains("keyboard"));
        of_it.map(ToString::to_string).collect::<Vec<_>>()
    };
    for known in
        ["us", "de", "gb", "uk", "de-latin1-nodeadkeys", "cz-qwertz", "fr_CH", "english-us"]
    {
        assert!(noted(known).is_empty(), "{known}");
    }
    assert_eq!(
        noted("de-latin2"),
        ["pilotlight.toml:5:12: no keyboard \"de-latin2\" is known here (did you mean \
          \"de-latin1\"?)"]
    );
    assert_eq!(
        noted("klingon"),
        [
            "pilotlight.toml:5:12: no keyboard \"klingon\" is known here (the installer is told it as \
          it is)"
        ]
    );
    // What our own templates have in their tables.
    for file in ["windows/autounattend.xml", "esxi/ks.cfg", "suse/autoinst.xml"] {
        let text = fs::read_to_string(home().join("assets/installers").join(file)).unwrap();
        let tables = ["keyboards = {", "layouts = {", "keymaps = {"];
        let table = tables.iter().find_map(|t| text.split_once(t)).unwrap().1;
        let table = table.split_once('}').unwrap().0;
        let names: Vec<&str> = table.split('"').skip(1).step_by(4).collect();
        assert!(names.len() > 20 && names.contains(&"de"), "{file}: {names:?}");
        for name in names {
            assert!(noted(name).is_empty(), "{file}: {name}");
        }
    }
}

#[test]
fn notes_are_bounded() {
    let profile = |n| {
        format!("[[profile]]\nname = \"p{n}\"\nkernel = \"http://h/k\"\nanswers = {{a = \"a\"}}\n")
    };
    let (_, notes) = one(&(0..150).map(profile).collect::<String>()).unwrap();
    assert_eq!(notes.len(), 101);
    assert_eq!(notes[100].message, "and 50 more notes like these");
}

#[test]
fn several_files_are_one() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let main = dir.path().join("pilotlight.toml");
    put("pilotlight.toml", "[http]\nport = 8080\n[[files]]\nname = \"a\"\ndir = \"a\"\n");
    put("pilotlight.d/20.toml", "[[files]]\nname = \"c\"\ndir = \"c\"\n");
    put(
        "pilotlight.d/10.toml",
        "[http]\nhttps-port = 8443\n[[files]]\nname = \"b\"\ndir = \"b\"\n\
         [[profile]]\nname = \"p\"\nkernel = \"c/linux\"\n",
    );
    put("pilotlight.d/.10.toml.swp.toml", "an editor's");
    put("pilotlight.d/10.toml~", "an editor's");
    let (c, notes) = load(Some(&main), &Blind).unwrap();
    assert_eq!(notes, []);
    assert_eq!((c.http.port, c.http.https_port), (8080, 8443));
    let folders: Vec<_> = c.folders.iter().map(|f| (&*f.name, f.root.clone())).collect();
    let below = dir.path().join("pilotlight.d");
    let want = [("a", dir.path().join("a")), ("b", below.join("b")), ("c", below.join("c"))];
    let want = want.map(|(name, dir)| (name, Root::Dir(dir)));
    assert_eq!(folders, want, "in order, and beside the file that names them");
    assert_eq!(c.sources, [main.clone(), below.join("10.toml"), below.join("20.toml")]);

    put("pilotlight.d/30.toml", "[http]\nport = 80\n[[files]]\nname = \"a\"\ndir = \"x\"\n");
    let said = lines(load(Some(&main), &Blind));
    let (at, first) = (below.join("30.toml"), main.display());
    assert_eq!(
        said,
        [
            format!(
                "{}:2:1: `port` of [http] is set twice; the other place is {first}:2:1 (leave one \
                 of them out)",
                at.display()
            ),
            format!(
                "{}:4:8: there are two folders \"a\"; the other place is {first}:4:8 (give one of \
                 them another name)",
                at.display()
            ),
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("pilotlight.toml");
    let at = main.display();
    assert_eq!(
        lines(load(Some(&main), &Blind)),
        [format!(
            "{at}:1:1: this file cannot be read: there is no such file (a relative path is beside \
             the file that names it)"
        )]
    );
    assert_eq!(
        lines(load(Some(dir.path()), &Blind)),
        [format!("{}:1:1: this file cannot be read: it is not a file", dir.path().display())]
    );
    fs::write(&main, b"a = 1\nb = \"\xff\"\n").unwrap();
    assert_eq!(
        lines(load(Some(&main), &Blind)),
        [format!("{at}:2:6: this is not UTF-8 (save the file as UTF-8)")]
    );
    fs::File::create(&main).unwrap().set_len((8 << 20) + 1).unwrap();
    let want = format!("{at}:1:1: this file has more than 8 MiB (split it)");
    assert_eq!(lines(load(Some(&main), &Blind)), [want]);
    fs::write(&main, "").unwrap();
    let below = dir.path().join("pilotlight.d");
    fs::write(&below, "").unwrap();
    assert_eq!(lines(load(Some(&main), &Blind)).len(), 1, "the folder is a file");
}

#[test]
fn what_is_named_is_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let main = dir.path().join("pilotlight.toml");
    let text = "[tftp]\ndir = \"tftp\"\n[ipxe]\ndir = \"loaders\"\n\
                [tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\nroot = \"root.pem\"\n\
                [[files]]\nname = \"d\"\ndir = \"debian\"\n\
                [[files]]\nname = \"gone\"\ndir = \"gone\"\n\
                [[profile]]\nname = \"p\"\nkernel = \"d/linux\"\n\
                initrd = [\"d/a/initrd\", \"http://h/i\", \"d/link\"]\n\
                answers = { preseed = \"preseed.cfg\" }\nmenu = true\n\
                [[profile]]\nname = \"q\"\nkernel = \"gone/linux\"\n";
    put("pilotlight.toml", text);
    let (c, _) = load(Some(&main), &Blind).unwrap();
    let name = |n: &str| dir.path().join(n).display().to_string();
    let place = |at: &str| format!("{}:{at}: ", main.display());
    let missing = |at: &str, n: &str| {
        place(at)
            + &name(n)
            + " cannot be read: there is no such file (a relative path is beside the file that \
               names it)"
    };

    let real = fs::canonicalize(dir.path()).unwrap();
    put("debian/x", "x");
    assert_eq!(
        lines(check_disk(&c)),
        [
            missing("2:7", "tftp"),
            missing("4:7", "loaders"),
            missing("6:15", "chain.pem"),
            missing("7:7", "key.pem"),
            missing("8:8", "root.pem"),
            missing("14:7", "gone"),
            missing("17:10", &format!("{}/debian/linux", real.display())),
            missing("18:11", &format!("{}/debian/a/initrd", real.display())),
            missing("18:39", &format!("{}/debian/link", real.display())),
            missing("19:23", "preseed.cfg"),
        ],
        "and nothing of a kernel whose folder is not there"
    );

    for file in ["tftp/x", "loaders/x", "gone/linux", "chain.pem", "root.pem", "preseed.cfg"] {
        put(file, "x");
    }
    put("debian/linux", "");
    fs::create_dir_all(dir.path().join("debian/a/initrd")).unwrap();
    symlink("../chain.pem", dir.path().join("debian/link")).unwrap();
    put("key.pem", "x");
    fs::set_permissions(dir.path().join("key.pem"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        lines(check_disk(&c)),
        [
            place("7:7")
                + &format!(
                    "the key {0} can be read by others: its mode is 640 (chmod 600 {0})",
                    name("key.pem")
                ),
            place("17:10") + &format!("{}/debian/linux is empty", real.display()),
            place("18:11")
                + &format!("{}/debian/a/initrd cannot be read: it is not a file", real.display()),
            place("18:39")
                + &format!(
                    "d/link leads out of its folder, to {}/chain.pem (a symbolic link must stay \
                     inside the folder)",
                    real.display()
                ),
        ]
    );

    put("debian/linux", "x");
    fs::remove_dir(dir.path().join("debian/a/initrd")).unwrap();
    put("debian/a/initrd", "x");
    fs::remove_file(dir.path().join("debian/link")).unwrap();
    symlink("linux", dir.path().join("debian/link")).unwrap();
    fs::set_permissions(dir.path().join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(lines(check_disk(&c)), Vec::<String>::new());
}

#[test]
fn secrets_are_read_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("pilotlight.toml");
    let put = |name: &str, bytes: &[u8], mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let text = "[[profile]]\nname = \"p\"\nkernel = \"http://h/k\"\n[profile.secrets]\n\
                good = { file = \"good\" }\nbad = { file = \"bad\" }\nbig = { file = \"big\" }\n\
                none = { file = \"none\" }\nvoid = { file = \"void\" }\n\
                env = { env = \"PILOTLIGHT_NOT_SET\" }\npath = { env = \"PATH\" }\n\
                written = \"hunter2\"\nagain = \"hunter2\"\n";
    put("pilotlight.toml", text.as_bytes(), 0o644);
    put("good", b"hunter2 \r\n", 0o604);
    put("bad", b"hunter2\xff\n", 0o600);
    put("big", &b"hunter2".repeat(10_000), 0o600);
    put("void", b"\n", 0o600);
    let (c, notes) = load(Some(&main), &Blind).unwrap();
    assert_eq!(notes, []);
    let of = |name: &str| reveal(&c.profiles[0].secrets[name]).map(|h| h.reveal().to_string());
    assert_eq!(of("good").unwrap(), "hunter2 ", "but for the line break");
    assert_eq!(of("written").unwrap(), "hunter2");
    assert_eq!(of("path").unwrap(), std::env::var("PATH").unwrap());
    let said = lines(check_disk(&c));
    let want = [
        ("6:16", "bad is not UTF-8 (a secret is a text)"),
        ("7:16", "big has more than 64 KiB (a secret is a text)"),
        ("8:17", "none cannot be read: there is no such file (a relative path is beside the file"),
        ("9:17", "void is empty (write it into the file)"),
        (
            "10:15",
            "the variable PILOTLIGHT_NOT_SET of the environment has a secret, and is not set",
        ),
    ];
    assert_eq!(said.len(), want.len(), "{said:?}");
    for (at, words) in want {
        let place = format!("{}:{at}: ", main.display());
        assert!(said.iter().any(|s| s.starts_with(&place) && s.contains(words)), "{at} {said:?}");
    }
    let notes = open_secrets(&c);
    let all = notes.iter().map(|n| n.picture_of_note(false)).collect::<String>();
    assert_eq!(notes.len(), 2, "each file once: {all}");
    assert!(all.contains("good holds a secret, and all can read it: its mode is 604"), "{all}");
    assert!(all.contains("pilotlight.toml holds a secret") && all.contains("*********"), "{all}");
    assert!(!format!("{said:?} {all}").contains("hunter2"));
    for file in ["pilotlight.toml", "good"] {
        fs::set_permissions(dir.path().join(file), fs::Permissions::from_mode(0o640)).unwrap();
    }
    assert_eq!(open_secrets(&c), []);
}

/// The notes of `check` on a file with these files beside it.
fn noted(text: &str, beside: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in beside {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let main = dir.path().join("pilotlight.toml");
    fs::write(&main, text).unwrap();
    let notes = pilotlight::app::check(Some(&main)).notes;
    notes.iter().map(|n| format!("{}: {}", n.message, n.hint.clone().unwrap_or_default())).collect()
}

#[test]
fn a_profile_that_never_reports_is_noted() {
    let profile = "[[profile]]\nname = \"web\"\nkernel = \"http://192.0.2.9/k\"\nargs = \"ks={{ \
                   answers['ks.cfg'] }}\"\nanswers = { \"ks.cfg\" = \"ks.cfg\" }\n";
    let said = "no answer of profile web reports: a machine installs again until it is held: end it \
                with curl -fsS {{ report }}/done";
    let has =
        |text: &str, answer: &str| noted(text, &[("ks.cfg", answer)]).iter().any(|n| n == said);
    assert!(has(profile, "%packages\n%end\n"));
    assert!(!has(profile, "%post\ncurl -fsS {{ report }}/done\n%end\n"));
    assert!(!has(&format!("{profile}kind = \"live\"\n"), "%packages\n%end\n"), "it need not");
}

#[test]
fn a_medium_that_asks_on_its_screen_is_noted_where_a_machine_has_it() {
    let profile = "[installers]\ndir = \"installers\"\n[[media]]\nname = \"pub\"\ndir = \"pub\"\n\
                   installer = \"own\"\n[[profile]]\nname = \"web\"\ninstall = \"pub\"\n";
    let machine = "[[machine]]\nname = \"m\"\nmac = \"52:54:00:00:00:01\"\nprofile = \"web\"\n";
    let about = "title = \"Own\"\narches = { x86_64 = \"x\" }\nanswers = [\"own.cfg\", \"host.cfg\"]\n\
                 always = [\"host.cfg\"]\n[boot]\nkernel = \"linux\"\n";
    let beside = [
        ("pub/linux", "k"),
        ("installers/own/installer.toml", about),
        ("installers/own/own.cfg", "curl {{ report }}/done\n"),
        ("installers/own/host.cfg", "host\n"),
    ];
    let noted = |text: &str| -> Vec<String> {
        let notes = noted(text, &beside);
        notes.into_iter().filter(|n| n.contains("report")).collect()
    };
    assert_eq!(noted(profile), [""; 0]);
    assert_eq!(
        noted(&format!("{profile}{machine}")),
        ["profile web asks on the screen and does not report: its installer starts again: after \
             it, `pilotlight machine local NAME`"]
    );
    let answered = format!("{profile}[profile.settings]\nlanguage = \"de_DE\"\n{machine}");
    assert_eq!(noted(&answered), [""; 0]);
}

#[test]
fn what_an_installer_wants_to_be_known_is_noted() {
    let text = "[[profile]]\nname = \"p\"\ninstall = \"netboot-xyz\"\n";
    let notes = noted(text, &[]);
    let loaded =
        |n: &String| n.starts_with("profile p: It is loaded from boot.netboot.xyz by plain");
    assert!(notes.iter().any(loaded), "{notes:?}");
}

/// Sees no image, and an installer that is wrong.
struct Bad(&'static str);

impl Look for Bad {
    fn tree(&self, _: &Root) -> Result<Box<dyn Tree>, String> {
        Err("/iso/a.iso cannot be read: it is cut".into())
    }

    fn images(&self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(vec![dir.join("b.iso")])
    }

    fn installers(&self, dir: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
        Ok(vec![("own/installer.toml".into(), dir.join("own/installer.toml"), self.0.into())])
    }
}

/// Each image is a stand-in for CentOS 7's, and a folder has these.
struct Dvds(&'static [&'static str]);

impl Look for Dvds {
    fn tree(&self, _: &Root) -> Result<Box<dyn Tree>, String> {
        Ok(Box::new(Dvds(&[])))
    }

    fn images(&self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(self.0.iter().map(|name| dir.join(name)).collect())
    }

    fn installers(&self, _: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
        // Like the CentOS installer, and before it in the order of names.
        let text = "title = \"A {mark}\"\narches = { x86_64 = \"x86_64\" }\n[[recognise]]\n\
                    volume = '^(?<mark>CentOS)'\n[boot]\nkernel = \"{mark}\"\n";
        Ok(vec![("a/installer.toml".into(), "a/installer.toml".into(), text.into())])
    }
}

impl Tree for Dvds {
    fn volume(&self) -> Option<String> {
        Some("CentOS 7 x86_64".into())
    }

    fn text(&self, _: &str) -> Option<String> {
        None
    }

    fn has(&self, path: &str) -> bool {
        path.starts_with("images/pxeboot")
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

#[test]
fn what_lies_in_a_watched_folder_is_in_nobodys_way() {
    const IMAGES: [&str; 5] = ["Corp.iso", "debian-12.iso", "debian.iso", "ours.iso", "镜像.iso"];
    let text = "[[media]]\nwatch = \"/iso\"\n[[files]]\nname = \"ours\"\ndir = \"/ours\"\n\
                [[mirror]]\nname = \"corp\"\nurls = \"https://corp.example/\"\n\
                [[profile]]\nname = \"p\"\ninstall = \"debian-12\"\n";
    let (c, _) = parse_with(&[("p.toml".into(), text.into())], &Dvds(&IMAGES)).unwrap();
    let names: Vec<&str> = c.folders.iter().map(|f| &*f.name).collect();
    let want = ["ours", "corp-iso", "debian-12-iso", "debian-iso", "ours-iso", "image"];
    assert_eq!(names, want);
    assert!(c.folders[0].is.is_none());
    assert!(c.folders[1..].iter().all(|f| f.is.as_deref() == Some("CentOS 7")), "{:?}", c.folders);
    let kernel = c.profile("p").unwrap().boot.kernel();
    assert!(matches!(kernel, Some(Source::Mirror { .. })), "as it was before: {kernel:?}");
}

#[test]
fn an_installer_that_is_named_is_asked_first() {
    let boots = |installer: &str| {
        let text = format!(
            "[installers]\ndir = \"own\"\n[[media]]\nname = \"m\"\niso = \"m.iso\"\n{installer}"
        );
        let (c, _) = parse_with(&[("p.toml".into(), text)], &Dvds(&[])).unwrap();
        let release = c.profile("m").unwrap().release.clone().unwrap();
        (release.installer, release.version)
    };
    assert_eq!(boots(""), ("a".into(), String::new()), "the first by name");
    let named = boots("installer = \"centos-7\"\n");
    assert_eq!(named, ("centos-7".into(), "7".into()), "with what its own rules tell");
}

#[test]
fn an_image_that_cannot_be_read_is_noted_and_keeps_nothing_from_being_served() {
    let text = "[[media]]\nname = \"a\"\niso = \"/iso/a.iso\"\n[[media]]\nwatch = \"/iso\"\n";
    let files = [("pilotlight.toml".into(), text.to_string())];
    let (c, notes) = parse_with(&files, &Bad("")).unwrap();
    let said: Vec<&str> = notes.iter().map(|n| &*n.message).collect();
    let want = ["a", "b"].map(|n| {
        format!("the medium \"{n}\" cannot be served: /iso/a.iso cannot be read: it is cut")
    });
    assert_eq!(said, want);
    assert_eq!(c.profiles.len(), 0);
    assert_eq!(one(text).unwrap().1, [], "nobody has looked");
    let told = format!("{text}[[profile]]\nname = \"p\"\ninstall = \"a\"\n");
    let (c, notes) = parse_with(&[("pilotlight.toml".into(), told)], &Bad("")).unwrap();
    let why = c.profile("p").unwrap().unready.as_deref();
    assert_eq!(why, Some("/iso/a.iso cannot be read: it is cut"), "its machines wait");
    assert!(!c.profile("p").unwrap().menu && notes.len() == 2, "{notes:#?}");
    let gone = format!("{text}[[profile]]\nname = \"p\"\ninstall = \"gone\"\n");
    let (c, _) = parse_with(&[("pilotlight.toml".into(), gone)], &Bad("")).unwrap();
    assert!(c.profile("p").unwrap().unready.is_some(), "it may come into the folder");
    let slip = format!("{text}[[profile]]\nname = \"p\"\ninstall = \"debian-13x\"\n");
    let (c, _) = parse_with(&[("pilotlight.toml".into(), slip)], &Bad("")).unwrap();
    let why = c.profile("p").unwrap().unready.as_deref();
    assert!(why.is_some_and(|why| why.ends_with("did you mean \"debian-13\"?")), "{why:?}");
    let machine = "[[machine]]\nname = \"m\"\nmac = \"52:54:00:00:00:01\"\nprofile = \"gone\"\n";
    assert!(parse_with(&[("p.toml".into(), format!("{text}{machine}"))], &Bad("")).is_ok());
    assert!(one(machine).is_err(), "where no folder is watched it is a slip");
}

#[test]
fn a_broken_installer_is_told_of_once_and_in_one_line() {
    let text = "[installers]\ndir = \"own\"\n[[profile]]\nname = \"p\"\ninstall = \"own\"\n\
                settings = {}\n[[media]]\nname = \"m\"\niso = \"/m.iso\"\ninstaller = \"own\"\n";
    let bad = Bad("title = \"x\"\n[boot]\n[[recognise]]\nvolume = '('\n");
    let errors = parse_with(&[("pilotlight.toml".into(), text.into())], &bad).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "pilotlight.toml:2:7: own/own/installer.toml:4: regex parse error: ( error: unclosed group \
         (docs/installers.md shows how one is written)"
    );
}

#[test]
fn a_subnet_without_a_name_server_is_noted() {
    let text = "[dhcp]\nmode = \"full\"\n[[subnet]]\nnetwork = \"10.0.0.0/24\"\nrange = \
                \"10.0.0.10-10.0.0.20\"\nrouter = \"10.0.0.1\"\n";
    let notes =
        |text: &str| one(text).unwrap().1.iter().map(|n| n.message.clone()).collect::<Vec<_>>();
    assert_eq!(notes(text), ["this [[subnet]] names no name server"]);
    assert_eq!(notes(&format!("{text}dns = \"10.0.0.1\"\n")), Vec::<String>::new());
}

#[test]
fn the_name_that_was_meant_begins_alike() {
    let names = ["rocky-9", "ubuntu-24.04", "debian-11", "debian-12"];
    let near = |word| pilotlight::config::nearest(word, names);
    assert_eq!(near("debian12"), Some("debian-12"));
    assert_eq!(near("bedian-11"), None, "two slips, and it begins otherwise");
    assert_eq!(pilotlight::config::nearest("webs", ["nebs", "web1"]), Some("web1"));
}

#[test]
fn keys_of_mirrors_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("pilotlight.toml");
    let text = "[cache]\ndir = \"cache\"\n\
                [[mirror]]\nname = \"m\"\nurls = \"http://h/\"\nverify = \"sums\"\n\
                keys = [\"gone.gpg\", \"binary.gpg\", \"armored.asc\", \"text.gpg\", \"big.gpg\"]\n";
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("pilotlight.toml", text.as_bytes());
    put("binary.gpg", b"\x99\x02\x0d\x04");
    put("armored.asc", b"Key of M\n\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n");
    put("text.gpg", b"-----BEGIN PGP SIGNATURE-----\n");
    fs::File::create(dir.path().join("big.gpg")).unwrap().set_len((4 << 20) + 1).unwrap();
    let (c, notes) = load(Some(&main), &Blind).unwrap();
    assert_eq!(notes, [], "and no word of a cache that is not there yet");
    let here = |at: &str, file: &str, said: &str| {
        format!("{}:{at}: {} {said}", main.display(), dir.path().join(file).display())
    };
    let said = [
        here(
            "7:9",
            "gone.gpg",
            "cannot be read: there is no such file (a relative path is beside the file that names \
             it)",
        ),
        here(
            "7:50",
            "text.gpg",
            "holds no OpenPGP public key (`gpg --export KEY >FILE` writes one)",
        ),
        here(
            "7:62",
            "big.gpg",
            "has more than 4 MiB (name files that hold the keys of this mirror only)",
        ),
    ];
    assert_eq!(lines(check_disk(&c)), said);
    put("cache", b"");
    assert!(lines(check_disk(&c))[3].starts_with(&format!("{}:2:7: ", main.display())));
}

#[test]
fn depth_is_bounded() {
    let deep = 100_000;
    for text in [
        format!("a = {}", "[".repeat(deep)),
        format!("a = {}1{}", "[".repeat(deep), "]".repeat(deep)),
        format!("a = {}", "{a=".repeat(deep)),
        format!("{}a = 1", "a.".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
        format!("a = {{{}a = 1}}", "a.".repeat(deep)),
    ] {
        assert!(one(&text).is_err());
    }
}

#[test]
fn errors_are_bounded_and_so_is_their_cost() {
    // Each machine names a profile that does not exist, among many that do.
    let mut text = String::new();
    for n in 0..2000 {
        write!(text, "[[profile]]\nname = \"p{n}\"\nkernel = \"http://h/k\"\n").unwrap();
    }
    for n in 0..20_000 {
        write!(text, "[[machine]]\nname = \"m{n}\"\nserial = \"{n}\"\nprofile = \"q{n}\"\n")
            .unwrap();
    }
    let errors = one(&text).unwrap_err();
    assert_eq!((errors.errors.len(), errors.more), (100, 19_900));
    assert!(errors.picture(false).ends_with("… and 19900 more"));
}

#[test]
fn a_hundred_thousand_machines_are_read() {
    let mut text = String::from("[[subnet]]\nnetwork = \"10.0.0.0/8\"\n");
    for n in 0..100_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        write!(text, "[[machine]]\nname=\"m{n}\"\nmac=\"5254:00{a:02x}:{b:02x}{c:02x}\"\n")
            .unwrap();
        writeln!(text, "address=\"10.1{a}.{b}.{c}\"").unwrap();
    }
    assert!(text.len() < 8 << 20, "{}", text.len());
    let before = Instant::now();
    let c = good(&text);
    assert_eq!(c.machines.len(), 100_000);
    // Generous, since this is a debug build on a busy machine: squared costs would take hours.
    assert!(before.elapsed() < Duration::from_secs(60), "{:?}", before.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever stands in a file, there is an answer, and it can be shown.
    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,200}|[\\[\\]a-z=\"\\n .#0-9{},']{0,300}") {
        if let Err(errors) = one(&text) {
            prop_assert!(!errors.picture(false).is_empty());
        }
    }

    /// The example with some bytes cut out, doubled or changed.
    #[test]
    fn no_slip_of_the_hand_is_too_strange(
        slips in prop::collection::vec((0usize..8000, 0usize..3, 0usize..20, any::<char>()), 1..6),
    ) {
        let mut text: Vec<char> = include_str!("../assets/pilotlight.toml").chars().collect();
        for (at, how, length, with) in slips {
            let at = at % text.len();
            let end = (at + length).min(text.len());
            match how {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, text[at..end].to_vec())),
                _ => text[at] = with,
            }
        }
        match one(&text.iter().collect::<String>()) {
            Ok((_, notes)) => for n in notes {
                prop_assert!(!n.picture_of_note(false).is_empty());
            },
            Err(errors) => {
                prop_assert!(!errors.picture(true).is_empty());
                prop_assert!(errors.errors.iter().all(|e| e.place.line > 0));
            }
        }
    }
}
