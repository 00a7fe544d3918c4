//! The catalogue of public mirrors: every entry is a profile that renders, goes through our cache and
//! asks before it touches a disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pilotlight::boot::Urls;
use pilotlight::boot::render::{self, Scene, check_templates};
use pilotlight::config::catalog::{self, Entry, FILES, Known};
use pilotlight::config::{Blind, Config, Look, Note, Root, Tree, Verify, load, parse, parse_with};
use pilotlight::model::profile::Source;
use pilotlight::model::{Facts, Mac};

/// The three lines of the README.
fn lines(entry: &Entry) -> String {
    format!("[[profile]]\nname = \"it\"\ninstall = \"{}\"\n", entry.name)
}

fn read(text: &str) -> (Config, Vec<Note>) {
    parse(&[("pilotlight.toml".into(), text.into())]).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn host(url: &str) -> &str {
    url.split('/').nth(2).unwrap()
}

#[test]
fn every_file_is_compiled_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/catalog");
    let there: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    assert_eq!(there, FILES.map(|(name, _)| name.to_string()).into());
    assert!(catalog::all().entries.len() >= 30);
    for wanted in [
        "debian-11",
        "debian-12",
        "debian-13",
        "debian-13-arm64",
        "ubuntu-20.04",
        "ubuntu-22.04",
        "ubuntu-24.04",
        "centos-7",
        "centos-8",
        "centos-stream-9",
        "centos-stream-10",
        "rocky-8",
        "rocky-10",
        "almalinux-8",
        "almalinux-10-arm64",
        "fedora-44",
        "opensuse-leap-15.6",
        "opensuse-tumbleweed",
        "opensuse-leap-15.6-arm64",
        "alpine-3.24",
        "fedora-coreos",
        "fedora-coreos-arm64",
        "arch",
    ] {
        assert!(catalog::entry(wanted).is_some(), "{wanted}");
    }
}

#[test]
fn names_are_unique_and_none_is_left_out() {
    let all = catalog::all();
    let names: BTreeSet<&str> = all.entries.iter().map(|e| &*e.name).collect();
    assert_eq!(names.len(), all.entries.len());
    let mirrors: BTreeSet<&str> = all.mirrors.iter().map(|m| &*m.name).collect();
    assert_eq!(mirrors.len(), all.mirrors.len());
    let used: BTreeSet<&str> = all.entries.iter().flat_map(|e| &e.mirrors).map(|m| &**m).collect();
    assert_eq!(used, mirrors);
    for entry in &all.entries {
        let boots = match entry.kernel.is_empty() {
            true => [&entry.installer, &entry.version, &entry.tree],
            false => [&entry.kernel, &entry.args, &entry.title],
        };
        for text in boots.into_iter().chain(&entry.initrd).chain(&entry.mirrors) {
            assert!(!text.is_empty(), "{}", entry.name);
            assert!(!text.contains("{arch}") && !text.contains("{suite}"), "{text}");
        }
    }
}

#[test]
fn every_mirror_could_be_declared() {
    for Known { name, urls, verify, keys, package, pin } in &catalog::all().mirrors {
        let declared =
            serde_json::json!({ "name": name, "urls": urls, "verify": verify, "pin": pin });
        let text = toml::to_string(&serde_json::json!({ "mirror": [declared] })).unwrap();
        let (config, _) = read(&text);
        assert_eq!(config.mirrors[0].urls, *urls, "as they are written, slash and all");
        assert_eq!(config.mirrors[0].pins, *pin);
        let hosts: BTreeSet<&str> = urls.iter().map(|u| host(u)).collect();
        // Behind each of these many are.
        let wide = ["coreos", "flatcar"].contains(&&**name);
        assert!(hosts.len() >= 2 || wide, "{name}: one host is no choice");
        assert!(hosts.len() == urls.len(), "{name}: a host is there twice");
        assert_eq!(keys.is_empty(), package.is_empty(), "{name}");
        assert!(keys.iter().all(|k| k.is_absolute()), "{name}");
        assert!(*verify != Verify::Plain || keys.is_empty(), "{name}");
        let open = urls.iter().filter(|u| u.starts_with("http://")).count();
        assert!(open == 0 || !keys.is_empty(), "{name}: neither TLS nor signatures");
    }
}

#[test]
fn every_entry_is_a_profile_of_three_lines() {
    let urls = Urls {
        base: "https://10.0.0.1:8443".into(),
        http: "http://10.0.0.1:8080".into(),
        ca: None,
        address: "10.0.0.1".into(),
        token: "0".repeat(32),
    };
    let facts = Facts::of(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    for entry in &catalog::all().entries {
        let (config, notes) = read(&lines(entry));
        assert_eq!(notes, [], "{}", entry.name);
        let mirrors: Vec<&str> = config.mirrors.iter().map(|m| &*m.name).collect();
        assert_eq!(mirrors, entry.mirrors);
        let profile = config.profile("it").unwrap();
        assert_eq!(profile.title, entry.title);
        assert!(profile.menu, "it hands out no answers");
        for source in profile.sources() {
            let Source::Mirror { mirror, .. } = source else { panic!("{source:?}") };
            assert!(entry.mirrors.contains(mirror), "{}: {mirror}", entry.name);
        }
        assert_eq!(check_templates(&config, profile), [], "{}", entry.name);

        let scene = Scene::new(&config, None, profile, &facts, &urls);
        let args = render::args(&scene, profile, &profile.boot).unwrap();
        let args = args.as_str();
        let through = ["http://10.0.0.1:8080/mirror/", "mirror/http/hostname=10.0.0.1:8080 "];
        // Flatcar is whole when its initrd has come.
        let more = entry.installer != "flatcar";
        assert!(!more || through.iter().any(|t| args.contains(t)), "{}: {args}", entry.name);
        for (at, _) in args.match_indices("://") {
            assert!(args[at..].starts_with("://10.0.0.1:8080/mirror/"), "{}: {args}", entry.name);
        }
        // Nothing is installed because somebody chose a line of a menu.
        for unattended in [
            "auto=true",
            "priority=",
            "preseed",
            "url=http://10.0.0.1:8080/b",
            "inst.ks",
            "ks=",
            "autoinstall",
            "autoyast",
            "apkovl",
            "script=",
            "nocloud",
        ] {
            assert!(!args.contains(unattended), "{}: {args}", entry.name);
        }
        // Linux on x86 reads 2048 bytes of them.
        assert!(args.len() < 1500, "{}", entry.name);
    }
}

#[test]
fn what_the_user_says_comes_last_or_first() {
    let entry = catalog::entry("debian-12").unwrap();
    let text = lines(entry)
        + "title = \"Mine\"\nargs = \"mirror/suite=testing\"\n\
           [[mirror]]\nname = \"debian\"\nurls = \"http://10.0.0.9/debian\"\nprivate = true\n\
           verify = \"debian\"\nkeys = \"own.gpg\"\n\
           [[profile]]\nname = \"again\"\ninstall = \"debian-13\"\n";
    let (config, _) = read(&text);
    let profile = config.profile("it").unwrap();
    assert_eq!(profile.title, "Mine");
    assert_eq!(profile.boot.args, format!("{} mirror/suite=testing", entry.args));
    let mirrors: Vec<(&str, usize)> =
        config.mirrors.iter().map(|m| (&*m.name, m.urls.len())).collect();
    assert_eq!(mirrors, [("debian", 1), ("debian-security", 2)], "each once, the declared first");
    assert_eq!(config.mirror("debian").unwrap().keys, [Path::new("own.gpg")]);
    assert_eq!(config.place("profile/again/install").line, 14);
    let of_ubuntu = "vars = { iso = \"x.iso\" }\n";
    let (config, _) = read(&(lines(catalog::entry("ubuntu-24.04").unwrap()) + of_ubuntu));
    let urls = Urls {
        base: "http://h".into(),
        http: "http://h".into(),
        ca: None,
        address: "h".into(),
        token: "t".into(),
    };
    let (profile, facts) = (&config.profiles[0], Facts::of(Mac([0; 6])));
    let scene = Scene::new(&config, None, profile, &facts, &urls);
    let args = render::args(&scene, profile, &profile.boot).unwrap();
    assert!(args.as_str().contains("url=http://h/mirror/ubuntu-releases/24.04/x.iso "), "{args}");
}

#[test]
fn keys_are_those_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("pilotlight.toml");
    for known in catalog::all().mirrors.iter().filter(|m| !m.keys.is_empty()) {
        let needs = |e: &&Entry| e.mirrors.contains(&known.name);
        let entry = catalog::all().entries.iter().find(needs).unwrap();
        fs::write(&main, lines(entry)).unwrap();
        let (config, notes) = load(Some(&main), &Blind).unwrap();
        let here: Vec<_> = known.keys.iter().filter(|k| k.exists()).cloned().collect();
        assert_eq!(config.mirror(&known.name).unwrap().keys, here);
        let said = format!("no key of the mirror {} is", known.name);
        let note = notes.iter().find(|n| n.message.starts_with(&said));
        assert_eq!(note.is_none(), !here.is_empty(), "{notes:?}");
        if let Some(note) = note {
            let hint = note.hint.as_ref().unwrap();
            assert!(hint.contains(&known.package), "{hint}");
            let command = format!("`pilotlight catalog {}`", entry.name);
            assert!(hint.contains("keys = [\"FILE\"]") && hint.contains(&command), "{hint}");
            assert_eq!((note.place.line, note.place.column), (3, 11), "at `install`");
        }
    }
}

/// Each image is the README's.
struct Dvds;

impl Look for Dvds {
    fn tree(&self, _: &Root) -> Result<Box<dyn Tree>, String> {
        Ok(Box::new(Dvds))
    }

    fn images(&self, _: &Path) -> Result<Vec<PathBuf>, String> {
        unreachable!("no example watches")
    }

    fn installers(&self, _: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
        unreachable!("no example has installers")
    }
}

impl Tree for Dvds {
    fn volume(&self) -> Option<String> {
        Some("CentOS 7 x86_64".into())
    }

    fn text(&self, path: &str) -> Option<String> {
        let text = "[general]\nname = CentOS-7\nfamily = CentOS\nversion = 7\narch = x86_64\n";
        (path == ".treeinfo").then(|| text.into())
    }

    fn has(&self, path: &str) -> bool {
        path.starts_with("images/pxeboot")
    }

    fn size(&self) -> Option<u64> {
        None
    }
}

/// All that a page says of a configuration can stand in one file.
#[test]
fn the_examples_of_a_page_get_along() {
    let parsed = |page: &str, count: usize| {
        let parts = page.split("```toml\n").skip(1);
        let examples: Vec<&str> = parts.map(|rest| rest.split_once("```").unwrap().0).collect();
        assert_eq!(examples.len(), count, "{examples:#?}");
        parse_with(&[("pilotlight.toml".into(), examples.concat())], &Dvds).unwrap().0
    };
    let config = parsed(include_str!("../README.md"), 1);
    assert_eq!((config.profiles.len(), config.machines.len()), (1, 1));
    let config = parsed(include_str!("../docs/guide.md"), 6);
    assert_eq!((config.profiles.len(), config.machines.len()), (2, 1));
    assert_eq!((config.folders.len(), config.mirrors.len()), (1, 2));
}

/// A file that was renamed would come unverified.
#[test]
fn what_is_pinned_is_what_is_booted() {
    for entry in catalog::all().entries.iter().filter(|e| e.installer == "coreos") {
        let mirror = catalog::all().mirrors.iter().find(|m| m.name == "coreos").unwrap();
        let of = |path: &String| path.strip_prefix("coreos/").unwrap().to_string();
        let rootfs = entry.args.split_once("}}/").unwrap().1.split(' ').next().unwrap();
        let files: Vec<String> = entry.initrd.iter().chain([&entry.kernel]).map(of).collect();
        for file in files.iter().map(String::as_str).chain([rootfs]) {
            assert!(mirror.pin.contains_key(file), "{}: {file}", entry.name);
        }
    }
}
