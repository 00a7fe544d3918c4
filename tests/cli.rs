//! The command line as a person and a program meet it: what is printed, where, and with which exit
//! code.
//!
//! `tests/cli/NAME.out` is what a command prints word by word. After a change of words:
//! `BLESS=1 cargo test --test cli`, then read the difference.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use assert_cmd::cargo::CommandCargoExt;
use jiff::{SignedDuration, Timestamp};
use pilotlight::ledger::Ledger;
use pilotlight::model::{Event, Facts, Mac, Stage};
use serde_json::{Value, json};

#[path = "common/left_out.rs"]
mod left_out;
use left_out::left_out;

const MAC: &str = "52:54:00:12:34:56";
const COLUMNS: usize = 80;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli")
}

fn pilotlight() -> Command {
    let mut command = Command::cargo_bin("pilotlight").unwrap();
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "RUST_LOG", "COLUMNS", "http_proxy"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A folder with everything that the configurations of `tests/cli` name, and some that they miss.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for entry in fs::read_dir(home()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let name = path.file_name().unwrap().to_str().unwrap();
            put(name, &fs::read_to_string(&path).unwrap());
        }
    }
    for loader in ["undionly.kpxe", "snponly.efi", "own.efi"] {
        put(&format!("loaders/{loader}"), loader);
    }
    put("debian/linux", "kernel");
    put("debian/initrd.gz", "initrd");
    let images = "dists/bookworm/main/installer-amd64/current/images/netboot";
    put("debian/.disk/info", "Debian GNU/Linux 12.5.0 \"Bookworm\" - made here amd64 DVD\n");
    for file in ["linux", "initrd.gz"] {
        put(&format!("debian/{images}/debian-installer/amd64/{file}"), file);
    }
    put("preseed.cfg", "password SECRET-{{ vars.rack }}\n");
    put("one.cfg", "ok\n  {{ machine.hostnam }}\n");
    put("two.cfg", "{% if %}\n");
    let many = "{% for a in range(end=10000) %}".repeat(4) + &"{% endfor %}".repeat(4);
    put("loop.cfg", &many);
    put("chain.pem", "no certificate\n");
    put("key.pem", "no key\n");
    // Made for this test; its secret half is gone.
    put("archive.asc", &fs::read_to_string(home().join("archive.asc")).unwrap());
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(dir.path().join("life.toml"), open).unwrap();
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(dir.path().join("key.pem"), private).unwrap();
    dir
}

fn run(dir: &Path, args: &str) -> Output {
    pilotlight().current_dir(dir).args(args.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One sentence on standard error, and nothing else.
#[track_caller]
fn refused(out: &Output, code: i32, words: &[&str]) {
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{said}");
    assert!(out.stdout.is_empty(), "{}", text(&out.stdout));
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A secret that belongs to somebody else: the user that has no right, and what gives it.
#[test]
fn a_secret_that_may_not_be_read_names_the_user_and_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str, mode| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    put("root.hash", "$6$x$y\n", 0o000);
    let secret = r#"secrets = { x = { file = "root.hash" } }"#;
    let boot = "args = \"a\"\nkernel = \"http://h/k\"";
    put(
        "p.toml",
        &format!("[[profile]]\nname = \"p\"\nkind = \"live\"\n{boot}\n{secret}\n"),
        0o644,
    );
    let mut check = pilotlight();
    check.current_dir(dir.path()).args(["check", "--config", "p.toml"]);
    // Root reads everything.
    if nix::unistd::geteuid().is_root() {
        check.uid(65534);
    }
    let out = match check.output() {
        Ok(out) => out,
        Err(e) => return left_out("a_secret_that_may_not_be_read", &format!("its user: {e}")),
    };
    let said = text(&out.stderr) + &text(&out.stdout);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(out.status.code(), Some(1), "{said}");
    let uid = if nix::unistd::geteuid().is_root() { 65534.into() } else { nix::unistd::geteuid() };
    let user = nix::unistd::User::from_uid(uid).unwrap().map_or(uid.to_string(), |u| u.name);
    assert!(said.contains(&format!("cannot be read by user {user}")), "{said}");
    assert!(said.contains(&format!("`sudo chown {user} ")), "{said}");
}

/// A fault in a template of an installer of the user's own is told where it is; behind an include the
/// lines are others, and the file alone is named.
#[test]
fn a_fault_in_an_installers_own_template_is_told_at_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("own/common/more", "more\nand more\n");
    let installer = "title = \"Y\"\nanswers = [\"a.cfg\"]\n[boot]\nkernel = \"http://h/k\"\n\
                     args = \"u={{ answers['a.cfg'] }}\"\n";
    put("own/y/installer.toml", installer);
    let profile = "[installers]\ndir = \"own\"\n[[profile]]\nname = \"y\"\ninstall = \"y\"\n\
                   [profile.settings]\n";
    put("p.toml", profile);
    for (template, place) in [
        ("a\n{{ nosuch.x }}\n", "own/y/a.cfg:2:"),
        ("{{ nosuch.x }}\n{% include \"common/more\" %}\n", "own/y/a.cfg:1:"),
        ("{% include \"common/more\" %}\n{{ nosuch.x }}\n", "own/y/a.cfg"),
    ] {
        put("own/y/a.cfg", template);
        let out = run(dir.path(), "check --config p.toml");
        let said = text(&out.stderr) + &text(&out.stdout);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains("nosuch") && said.contains(place), "{place}: {said}");
        let pictured = place.ends_with(':');
        assert_eq!(said.contains("{{ nosuch.x }}"), pictured, "{place}: {said}");
    }
}

/// What differs from the file, with what depends on the machine and the build taken out.
fn golden(name: &str, dir: &Path, said: &str) -> String {
    let here = dir.canonicalize().unwrap();
    let said = said.replace(here.to_str().unwrap(), "HERE");
    let said: String = said
        .lines()
        .map(|l| match l.split_once("this build holds ") {
            Some((before, _)) => format!("{before}this build holds …\n"),
            None => format!("{l}\n"),
        })
        .collect();
    let file = home().join(format!("{name}.out"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&file, &said).unwrap();
    }
    let want = fs::read_to_string(&file).unwrap_or_default();
    match said == want {
        true => String::new(),
        false => format!("{name}\n--- wanted\n{want}--- said\n{said}"),
    }
}

fn fits(said: &str) {
    for line in said.lines() {
        // A single word, a URL say, is never broken; nor is a line of TOML, which is to be copied.
        let words = line.split_whitespace().count();
        let copied = line.contains("\" = \"sha256:");
        assert!(line.chars().count() <= COLUMNS || words == 1 || copied, "{line}");
    }
}

#[test]
fn check_tells_all_of_it_and_changes_nothing() {
    let dir = folder();
    let listing = || -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
        let mut all = BTreeMap::new();
        for sub in [".", "loaders", "debian"] {
            for entry in fs::read_dir(dir.path().join(sub)).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                all.insert(entry.path(), (meta.len(), meta.modified().unwrap()));
            }
        }
        all
    };
    let before = listing();
    let mut differ = String::new();
    for (name, code) in
        [("good", 0), ("full", 0), ("mirror", 0), ("bad", 1), ("nowhere", 1), ("life", 1)]
    {
        let out = run(dir.path(), &format!("check --config {name}.toml"));
        assert_eq!(out.status.code(), Some(code), "{name}: {}", text(&out.stdout));
        assert!(out.stderr.is_empty(), "{}", text(&out.stderr));
        assert!(!text(&out.stdout).contains("= \"SECRET\""), "{}", text(&out.stdout));
        differ += &golden(&format!("check-{name}"), dir.path(), &text(&out.stdout));
    }
    assert!(differ.is_empty(), "{differ}");
    assert_eq!(listing(), before);
}

#[test]
fn check_for_programs() {
    let dir = folder();
    let read =
        |args: &str| -> Value { serde_json::from_slice(&run(dir.path(), args).stdout).unwrap() };
    let good = read("check --config good.toml --json");
    assert_eq!((&good["good"], &good["errors"]), (&json!(true), &json!([])));
    assert_eq!(good["serves"].as_array().unwrap().len(), 3);
    let mirror = read("check --config mirror.toml --json");
    assert_eq!(
        mirror["serves"][3],
        "mirrors debian, debian-security; cache /var/lib/pilotlight/cache, up to 50 GB"
    );
    let mut many =
        "state-dir = \"s\"\n[ipxe]\ndir = \"loaders\"\n[cache]\noffline = true\n".to_string();
    for n in 0..20 {
        many += &format!("[[mirror]]\nname = \"mirror{n}\"\nurls = [\"https://deb.example/\"]\n");
    }
    fs::write(dir.path().join("many.toml"), many).unwrap();
    let said = text(&run(dir.path(), "check --config many.toml").stdout);
    fits(&said);
    assert!(said.contains(" mirror19; cache\n          s/cache, up to 50 GB; offline\n"), "{said}");
    let bad = read("check --config bad.toml --json");
    assert_eq!((&bad["good"], &bad["serves"]), (&json!(false), &Value::Null));
    let typo = bad["errors"].as_array().unwrap().iter().find(|e| e["file"] == "one.cfg").unwrap();
    assert_eq!((&typo["line"], &typo["column"]), (&json!(2), &json!(14)));
}

/// What a system of the user's own fetches by HTTPS: under our root, or one that everybody trusts.
#[test]
fn check_tells_whose_answers_want_our_ca() {
    let dir = folder();
    let own = |tls: &str, profile: &str| {
        let config = format!(
            "state-dir = \"s\"\n[tls]\nenabled = true\n{tls}[ipxe]\ndir = \"loaders\"\n\
             [[profile]]\nname = \"own\"\nkind = \"live\"\nkernel = \"http://h/k\"\nmenu = false\n\
             args = \"{{% if ca is defined %}}ca{{% endif %}} {{{{ answers.preseed }}}}\"\n\
             answers = {{ preseed = \"own.cfg\" }}\n{profile}"
        );
        fs::write(dir.path().join("own.cfg"), "x").unwrap();
        fs::write(dir.path().join("own.toml"), config).unwrap();
        let out = run(dir.path(), "check --config own.toml");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
        text(&out.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let note = "profile own: its installer fetches preseed by HTTPS and must know our CA";
    let said = own("", "");
    assert!(said.contains(note), "{said}");
    assert!(said.contains("carried = { \"preseed\" = \"/preseed\" }"), "{said}");
    assert!(!said.contains("answers of"), "{said}");
    let said = own("", "carried = { preseed = \"/preseed.cfg\" }\n");
    assert!(!said.contains(note), "{said}");
    let said = own("", "plain-answers = true\n");
    assert!(!said.contains(note), "{said}");
    assert!(said.contains("by HTTPS, port 443; answers of own by HTTP"), "{said}");
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(["boot.example".to_string()]).unwrap();
    fs::write(dir.path().join("chain.pem"), cert.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
    let said = own("certificate = \"chain.pem\"\nkey = \"key.pem\"\n", "");
    assert!(!said.contains(note), "{said}");
}

#[test]
fn a_keyring_is_read() {
    let dir = folder();
    let config = "[[mirror]]\nname = \"m\"\nurls = [\"http://mirror.example/\"]\n\
                  verify = \"debian\"\nkeys = [\"keyring.gpg\"]\n";
    fs::write(dir.path().join("keyring.toml"), config).unwrap();
    // It begins as an OpenPGP public key does (RFC 9580 section 4.2), and ends in the middle.
    fs::write(dir.path().join("keyring.gpg"), [0x99, 0x01, 0x0d, 0x04, 0, 0]).unwrap();
    let out = run(dir.path(), "check --config keyring.toml");
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stdout));
    let said = text(&out.stdout);
    assert!(said.contains("keyring.toml:5:9") && said.contains("keyring.gpg: "), "{said}");
}

#[test]
fn an_own_certificate_is_read() {
    let dir = folder();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(["boot.example".to_string()]).unwrap();
    let cert = cert.self_signed(&key).unwrap();
    let config = "[tls]\nenabled = true\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n\
                  [ipxe]\ndir = \"loaders\"\n";
    fs::write(dir.path().join("own.toml"), config).unwrap();
    fs::write(dir.path().join("chain.pem"), cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
    let out = run(dir.path(), "check --config own.toml");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.path().join("key.pem"), other.serialize_pem()).unwrap();
    let out = run(dir.path(), "check --config own.toml");
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stdout);
    assert!(said.contains("is not that of the first certificate in chain.pem"), "{said}");
    assert!(said.contains("own.toml:3:15") && said.contains("1 error."), "{said}");
}

#[test]
fn explain_in_all_its_forms() {
    let dir = folder();
    fs::write(dir.path().join("user.hash"), "$6$SECRET\n").unwrap();
    let mut differ = String::new();
    for (name, args) in [
        ("bios", format!("{MAC} --arch bios --config good.toml")),
        ("uefi", format!("{MAC} --arch 7 --config good.toml")),
        ("own-loader", "52:54:00:12:34:66 --arch bios --config good.toml".into()),
        ("http-boot", format!("{MAC} --arch uefi-x64-http --config good.toml --tls")),
        ("rom-http", format!("{MAC} --arch bios --ipxe http --config good.toml")),
        ("rom-https", format!("{MAC} --arch bios --ipxe http,https --config good.toml --tls")),
        ("full", format!("{MAC} --arch bios --config full.toml")),
        ("relay", format!("{MAC} --arch bios --ipxe http --config full.toml --via 10.7.0.1")),
        ("no-subnet", format!("{MAC} --arch bios --config full.toml --via 10.9.0.1")),
        ("off", format!("{MAC} --arch bios --config off.toml --server 10.0.0.9/24")),
        ("no-loader", format!("{MAC} --arch uefi-arm32 --config good.toml")),
        ("nearest", "52:54:00:12:34:57 --config good.toml --serial X".into()),
        ("mirror", format!("{MAC} --arch bios --config mirror.toml --tls")),
        ("disk", "02:00:00:00:00:01 --config good.toml --serial CZ1".into()),
        ("once", format!("{MAC} --arch bios --config life.toml --ipxe http")),
        ("live", "52:54:00:12:34:66 --arch bios --config life.toml --ipxe http".into()),
        ("stranger", "02:00:00:00:00:01 --arch bios --config good.toml".into()),
        ("profile", "--profile rescue --arch bios --ipxe http --config good.toml".into()),
        (
            "profile-of",
            format!("{MAC} --profile rescue --arch bios --ipxe http --config good.toml"),
        ),
        ("profile-hidden", "--profile debian-12 --arch bios --ipxe http --config life.toml".into()),
    ] {
        let out = run(dir.path(), &format!("explain {args}"));
        let said = text(&out.stdout);
        assert_eq!(out.status.code(), Some(0), "{name}: {}", text(&out.stderr));
        assert!(!said.contains("SECRET"), "an answer is shown:\n{said}");
        fits(&said);
        differ += &golden(&format!("explain-{name}"), dir.path(), &said);
    }
    assert!(differ.is_empty(), "{differ}");
}

#[test]
fn explain_without_a_configuration_and_for_programs() {
    let dir = folder();
    let out = run(dir.path(), &format!("explain {MAC} --arch bios"));
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("No [[machine]] is declared"), "{}", text(&out.stdout));

    let out = run(dir.path(), &format!("explain {MAC} --arch bios --config good.toml --json"));
    let tale: Value = serde_json::from_slice(&out.stdout).unwrap();
    let steps = tale["steps"].as_array().unwrap();
    let field = |step: &Value, option: u8| {
        let all = step["fields"].as_array().unwrap();
        all.iter().find(|f| f["option"] == option).map(|f| f["value"].clone())
    };
    assert_eq!(tale["mac"], MAC);
    assert_eq!(field(&steps[0], 67), Some(json!("undionly.kpxe")));
    assert_eq!(field(&steps[2], 67), Some(json!("http://192.0.2.1/boot.ipxe")));
    let script = steps.last().unwrap()["script"].as_str().unwrap();
    assert!(script.starts_with("#!ipxe\n") && script.contains("\nkernel http://"), "{script}");

    fs::write(dir.path().join("preseed.cfg"), fs::read(dir.path().join("loop.cfg")).unwrap())
        .unwrap();
    let out = run(dir.path(), &format!("explain {MAC} --config good.toml"));
    assert_eq!(out.status.code(), Some(0));
    assert!(text(&out.stdout).contains("take more than 2 s"), "{}", text(&out.stdout));
}

/// The block of a mirror whose keys are nowhere here, with where the user has saved them.
fn saved(dir: &Path, mirrors: &str) -> String {
    let key = fs::read(home().join("archive.asc")).unwrap();
    for name in mirrors.split("keys = [\"/PATH/TO/").skip(1) {
        fs::write(dir.join(name.split('"').next().unwrap()), &key).unwrap();
    }
    mirrors.replace("/PATH/TO/", "")
}

#[test]
fn the_catalogue_is_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let whole = text(&run(dir.path(), "catalog").stdout);
    fits(&whole);
    let row = whole.lines().find(|l| l.trim_start().starts_with("debian-12 ")).unwrap();
    assert!(row.contains("bookworm") && row.contains("x86_64, arm64"), "{row}");
    let some = text(&run(dir.path(), "catalog ALMA").stdout);
    assert!(some.contains("almalinux-9") && !some.contains("debian"), "{some}");

    for entry in &pilotlight::config::catalog::all().entries {
        let said = text(&run(dir.path(), &format!("catalog {}", entry.name)).stdout);
        fits(&said);
        assert!(said.starts_with(&format!("{}: ", entry.name)), "{said}");
        // Its lines, copied out of the terminal, are a configuration.
        let lines = said.split_once("\n[[profile]]\n").unwrap().1;
        let (profile, mirrors) = lines.split_once("\nWith URLs or keys of your own:\n").unwrap();
        let mirrors = saved(dir.path(), mirrors);
        for (n, config) in
            [format!("[[profile]]\n{profile}"), format!("[[profile]]\n{profile}{mirrors}")]
                .into_iter()
                .enumerate()
        {
            fs::write(dir.path().join("copied.toml"), format!("state-dir = \"s\"\n{config}"))
                .unwrap();
            let out = run(dir.path(), "check --json --config copied.toml");
            let checked: Value = serde_json::from_slice(&out.stdout).unwrap();
            let errors = checked["errors"].as_array().unwrap();
            // A build without loaders says so; nothing else may be wrong.
            let wrong = errors.iter().filter(|e| e["file"] != "").count();
            assert_eq!(wrong, 0, "{} {n}: {errors:?}\n{config}", entry.name);
        }
    }

    for m in &pilotlight::config::catalog::all().mirrors {
        let entry = pilotlight::config::catalog::entry_with(&m.name).unwrap();
        let said = text(&run(dir.path(), &format!("catalog {}", entry.name)).stdout);
        let block = said.split_once(&format!("\n[[mirror]]\nname = \"{}\"\n", m.name)).unwrap().1;
        let block = block.split("[[mirror]]").next().unwrap();
        assert_eq!(block.contains("keys = ["), !m.keys.is_empty(), "{block}");
        let here = m.keys.iter().any(|k| k.is_file());
        assert_eq!(block.contains("/PATH/TO/"), !here && !m.keys.is_empty(), "{block}");
    }

    let out = run(dir.path(), "catalog --json rocky");
    let read: Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<&str> =
        read["entries"].as_array().unwrap().iter().filter_map(|e| e["name"].as_str()).collect();
    assert!(
        names.contains(&"rocky-9") && names.iter().all(|n| n.starts_with("rocky")),
        "{names:?}"
    );
    assert_eq!(read["mirrors"].as_array().unwrap().len(), 3);
}

#[test]
fn installers_are_listed_shown_and_copied() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path();
    let put = |name: &str, text: &str| {
        fs::create_dir_all(here.join(name).parent().unwrap()).unwrap();
        fs::write(here.join(name), text).unwrap();
    };
    let mut differ = String::new();
    for (name, args) in [
        ("help-installers", "--help"),
        ("help-installers-list", "list --help"),
        ("help-installers-show", "show --help"),
        ("help-installers-export", "export --help"),
        ("installers-list", "list"),
        ("installers-centos-7", "show centos-7"),
        ("installers-windows", "show windows"),
    ] {
        let out = run(here, &format!("installers {args}"));
        assert_eq!(out.status.code(), Some(0), "{name}: {}", text(&out.stderr));
        let said = text(&out.stdout);
        fits(&said);
        differ += &golden(name, here, &said);
    }
    assert!(differ.is_empty(), "{differ}");
    for one in pilotlight::config::Installers::builtin().iter() {
        let said = text(&run(here, &format!("installers show {}", one.name)).stdout);
        fits(&said);
        assert!(said.contains("installer.toml") && !said.contains("{version}"), "{said}");
    }

    // A copy, and the lines that it says, are a configuration in which it counts.
    let out = run(here, "installers export centos-7/ks.cfg own");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    let lines = said.split_once("\n[installers]\n").unwrap().1;
    put("p.toml", &format!("[installers]\n{}", lines.split_once("\n\n").unwrap().0));
    let ours =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/installers/centos-7/ks.cfg"));
    assert_eq!(fs::read(here.join("own/centos-7/ks.cfg")).unwrap(), ours.unwrap());
    assert!(said.contains("common/disks.sh") && said.contains("export redhat/tell.sh"), "{said}");
    put("own/x/installer.toml", "title = \"X\"\n[boot]\nkernel = \"http://h/k\"\n");
    put("own/common/wipe.sh", "mine\n");
    let said = text(&run(here, "installers list --config p.toml").stdout);
    let row = |name: &str| said.lines().find(|l| l.trim_start().starts_with(name)).unwrap();
    assert!(row("centos-7 ").ends_with("ks.cfg") && row("x ").ends_with("all of it"), "{said}");
    assert!(said.contains("include it: wipe.sh"), "{said}");
    let said = text(&run(here, "installers show centos-7 --config p.toml").stdout);
    assert!(said.contains("in place of ours"), "{said}");
    let said = text(&run(here, "installers list --config p.toml --json").stdout);
    let all: Value = serde_json::from_str(&said).unwrap();
    let one = all.as_array().unwrap().iter().find(|i| i["name"] == "centos-7").unwrap();
    assert_eq!((&one["own"], &one["kind"]), (&json!(["ks.cfg"]), &json!("install")));
    let said = text(&run(here, "installers show centos-7 --config p.toml --json").stdout);
    let one: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(one["files"][0]["from"], "ours");
    assert!(one["files"][1]["from"]["instead"].as_str().unwrap().ends_with("own/centos-7/ks.cfg"));

    // Into the folder that the configuration names, where it counts at once.
    let out = run(here, "installers export debian --config p.toml");
    assert!(text(&out.stdout).contains("counts from now on"), "{}", text(&out.stdout));
    assert!(here.join("own/debian/preseed.cfg").is_file());
    let out = run(here, "check --json --config p.toml");
    let checked: Value = serde_json::from_slice(&out.stdout).unwrap();
    let wrong = checked["errors"].as_array().unwrap().iter().filter(|e| e["file"] != "");
    assert_eq!(wrong.count(), 0, "{checked}");

    // Nothing is written over, and nothing beside the folder.
    put("own/centos-7/ks.cfg", "mine\n");
    let out = run(here, "installers export centos-7 own");
    refused(&out, 1, &["own/centos-7/ks.cfg is there already", "--force"]);
    assert!(!here.join("own/centos-7/installer.toml").exists(), "all of it or nothing");
    assert_eq!(fs::read_to_string(here.join("own/centos-7/ks.cfg")).unwrap(), "mine\n");
    put("outside", "outside\n");
    let ks = here.join("own/centos-7/ks.cfg");
    fs::remove_file(&ks).unwrap();
    std::os::unix::fs::symlink(here.join("outside"), &ks).unwrap();
    assert_eq!(run(here, "installers export centos-7 own").status.code(), Some(1));
    assert_eq!(run(here, "installers export centos-7 own --force").status.code(), Some(0));
    assert!(fs::symlink_metadata(&ks).unwrap().is_file());
    assert_eq!(fs::read_to_string(here.join("outside")).unwrap(), "outside\n");
    // One that cannot be written leaves all as they were.
    fs::write(&ks, "mine\n").unwrap();
    let hindrances = [
        ("own/centos-7/installer.toml", "is a folder"),
        ("own/centos-7/.ks.cfg.new", "centos-7: "),
    ];
    for (folder, word) in hindrances {
        let _ = fs::remove_file(here.join(folder));
        fs::create_dir(here.join(folder)).unwrap();
        refused(&run(here, "installers export centos-7 own --force"), 1, &[word]);
        fs::remove_dir(here.join(folder)).unwrap();
        assert_eq!(fs::read_to_string(&ks).unwrap(), "mine\n");
        assert_eq!(fs::read_dir(here.join("own/centos-7")).unwrap().count(), 1, "{folder}");
    }
    fs::create_dir(here.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(here.join("elsewhere"), here.join("own/suse")).unwrap();
    refused(&run(here, "installers export suse own --force"), 1, &["own/suse is no folder"]);
    assert_eq!(fs::read_dir(here.join("elsewhere")).unwrap().count(), 0);
    for (args, words) in [
        ("show centos7", &["did you mean centos-7?", "`pilotlight installers list`"][..]),
        ("export ../own", &["there is no installer \"..\""]),
        ("export centos-7/../x", &["centos-7 has no file", "ks.cfg"]),
    ] {
        refused(&run(here, &format!("installers {args}")), 1, words);
    }
}

#[test]
fn wrong_words_are_told_and_end_with_2() {
    let dir = folder();
    for (args, words) in [
        ("", &["Usage: pilotlight <COMMAND>", "serve", "hash-password"][..]),
        ("serv", &["'serve'"]),
        ("explain", &["<MACHINE>"]),
        ("explain 52:54:00", &["is not a MAC address", "six pairs of hex digits"]),
        ("explain 52:54:00:12:34:56 --arch uefi", &["uefi-x64-http", "uefi-loong64"]),
        ("explain 52:54:00:12:34:56 --arch 1", &["no firmware of the table"]),
        ("explain 52:54:00:12:34:56 --ipxe tftp", &["possible values: http, https"]),
        ("explain 52:54:00:12:34:56 --via relay", &["--via <ADDRESS>"]),
        ("timeline 52:54:00:zz", &["is not a MAC address"]),
        ("machine show 52:54:00:zz", &["is not a MAC address"]),
        ("machine list --state fail", &["the states are discovered, assigned,"]),
        ("machine power up web1", &["\"up\" is none of on, off, cycle, pxe"]),
        ("machine reinstall", &["<MACHINE>..."]),
        ("machine reinstall web1 --state failed", &["cannot be used with"]),
        ("status --watch --json", &["cannot be used with"]),
        ("completions sh", &["bash"]),
        ("check --colour", &["--colour"]),
        ("serve", &["which network shall be served?"]),
    ] {
        refused(&run(dir.path(), args), 2, words);
    }
    for (args, words) in [
        ("serve --interface nope0", &["there is no interface nope0 here"][..]),
        ("serve --interface lo --config bad2.toml", &["`pilotlight check --config bad2.toml`"]),
        ("explain 52:54:00:12:34:56 --config none.toml", &["none.toml", "`pilotlight check"]),
        ("explain wbe1 --config good.toml", &["did you mean \"web1\"?", "machine show"]),
        ("explain --profile rescu --config good.toml", &["did you mean \"rescue\"?", "[[media]]"]),
        ("catalog nextstep", &["nothing that is called \"nextstep\"", "`pilotlight catalog`"]),
        ("man serv", &["there is no command \"serv\"", "hash-password"]),
    ] {
        fs::write(dir.path().join("bad2.toml"), "[http]\nprot = 80\n").unwrap();
        refused(&run(dir.path(), args), 1, words);
    }
}

/// A stand-in for the admin door: answers of these paths, to as many requests as come.
fn door(answers: Vec<(&'static str, u16, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                asked.push(byte[0]);
            }
            let asked = String::from_utf8_lossy(&asked).into_owned();
            let path = asked.split(' ').nth(1).unwrap_or("").to_string();
            let (status, body) = answers
                .iter()
                .find(|(p, ..)| *p == path)
                .map_or((404, "no such machine has been seen\n"), |(_, s, b)| (*s, b));
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
            // A client that has gone away is its own business.
            let _ = stream.write_all((head + body).as_bytes());
        }
    });
    at
}

/// A machine that has booted a minute and a half ago, with a maker that is after the terminal.
fn booted() -> Ledger {
    let ledger = Ledger::new();
    let mac: Mac = MAC.parse().unwrap();
    let start = Timestamp::now() - SignedDuration::from_secs(90);
    let at = |ms: i64| start + SignedDuration::from_millis(ms);
    let facts = Facts {
        manufacturer: Some("Maker\x1b[2J".into()),
        arch: Some("uefi-x64"),
        ..Facts::of(mac)
    };
    ledger.learn(facts, start);
    let url =
        "/b/0123456789abcdef0123456789abcdef/files/debian/dists/bookworm/main/installer/linux";
    for (stage, what, detail, ms) in [
        (Stage::Firmware, "DHCPDISCOVER", "from 52:54:00:12:34:56 (uefi-x64) via eth1", 0),
        (
            Stage::Firmware,
            "DHCPOFFER",
            "on 10.0.0.112 to 52:54:00:12:34:56 via eth1: loader snponly.efi",
            2,
        ),
        (Stage::Loader, "TFTP", "snponly.efi to 10.0.0.112: 296448 bytes in 0.2 s", 3_904),
        (Stage::Kernel, "GET", url, 4_412),
    ] {
        ledger.record(mac, Event::new(stage, what, detail), at(ms));
    }
    ledger.named(mac, "web1", at(4_412));
    ledger
}

#[test]
fn timelines_and_leases_fit_80_columns() {
    let machines = booted().list();
    let ends = Timestamp::now() + SignedDuration::from_secs(3_630);
    let leases = json!([
        { "address": "10.0.0.112", "mac": MAC, "state": "bound", "ends": ends,
          "hostname": "a-host-name-of-the-full-length-of-sixty-three-letters-as-rfc-1123" },
        { "address": "10.0.0.113", "mac": MAC, "state": "declined", "ends": Timestamp::UNIX_EPOCH },
    ]);
    let alarms = json!([{ "name": "address-in-use", "about": "10.0.0.113", "times": 2,
        "last": Timestamp::UNIX_EPOCH, "text": "10.0.0.113 answers a ping\x1b[2J ".repeat(9) }]);
    let one = serde_json::to_string(&machines[0]).unwrap();
    let all = serde_json::to_string(&machines).unwrap();
    let at = door(vec![
        ("/api/v1/machines?timeline=true", 200, all.clone()),
        ("/api/v1/machines/52:54:00:12:34:56", 200, one),
        ("/api/v1/leases", 200, leases.to_string()),
        ("/api/v1/alarms", 200, alarms.to_string()),
    ]);
    let dir = tempfile::tempdir().unwrap();
    for args in ["timeline", "timeline 5254.0012.3456"] {
        let out = run(dir.path(), &format!("{args} --server {at}"));
        let said = text(&out.stdout);
        assert!(!said.contains('\x1b'), "{said:?}");
        fits(&said);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], format!("{MAC}  web1, Maker?[2J, uefi-x64, 1 min ago"));
        for (start, rest) in [
            (" 0.000", "firmware  DHCPDISCOVER from"),
            (" 0.002", "firmware  DHCPOFFER on 10.0.0.112"),
            (" 3.904", "loader    TFTP snponly.efi"),
            (" 4.412", "kernel    GET"),
        ] {
            let found = lines.iter().any(|l| l.starts_with(start) && l.contains(rest));
            assert!(found, "{start} {rest}:\n{said}");
        }
    }
    let out = run(dir.path(), &format!("timeline --json --server {at}"));
    assert_eq!(
        serde_json::from_slice::<Value>(&out.stdout).unwrap(),
        serde_json::from_str::<Value>(&all).unwrap()
    );

    let out = run(dir.path(), &format!("leases --server {at}"));
    let said = text(&out.stdout);
    fits(&said);
    let row = said.lines().find(|l| l.contains("10.0.0.112")).unwrap();
    assert!(row.contains(MAC) && row.contains("bound") && row.contains("in 1 h 0 min"), "{said}");
    assert!(said.contains("Look: 10.0.0.113 answers a ping?[2J"), "{said:?}");
    assert!(said.contains("declined") && said.contains(" d ") && said.contains(" ago"), "{said}");
    let out = run(dir.path(), &format!("leases --json --server {at}"));
    assert_eq!(serde_json::from_slice::<Value>(&out.stdout).unwrap(), leases);
}

#[test]
fn a_server_that_has_nothing_or_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = door(vec![
        ("/api/v1/machines?timeline=true", 200, "[]".into()),
        ("/api/v1/leases", 200, "[]".into()),
        ("/api/v1/alarms", 200, "[]".into()),
    ]);
    let out = run(dir.path(), &format!("timeline --server {at}"));
    assert_eq!(
        text(&out.stdout),
        "No machine has asked yet: switch one on, and boot it from the network.\n"
    );
    let out = run(dir.path(), &format!("leases --server {at}"));
    assert!(text(&out.stdout).starts_with("No leases."));
    let out = run(dir.path(), &format!("timeline {MAC} --server {at}"));
    refused(&out, 1, &["no such machine has been seen"]);

    let at = door(vec![("/api/v1/leases", 200, "<html>".into())]);
    refused(&run(dir.path(), &format!("leases --server {at}")), 1, &["is no pilotlight"]);
    // Plain HTTP where TLS is spoken to, TLS where plain HTTP is, and a name that is none.
    let says = |words: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut asked, _) = listener.accept().unwrap();
            let _ = asked.read(&mut [0; 4096]);
            let _ = asked.write_all(words);
        });
        at
    };
    let at = says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    let out = run(dir.path(), &format!("leases --server https://{at}"));
    refused(&out, 1, &[&at.to_string(), "speaks no TLS", "leave out https://"]);
    // A fatal alert, "decode_error" (RFC 8446 section 6.2).
    let at = says(&[21, 3, 3, 0, 2, 2, 50]);
    let out = run(dir.path(), &format!("leases --server {at}"));
    refused(&out, 1, &["speaks no HTTP", &format!("--server https://{at}")]);
    // RFC 6761 section 6.4: no resolver knows it.
    let out = run(dir.path(), "leases --server bogus.invalid");
    refused(&out, 1, &["no host is called \"bogus.invalid\"", "ADDRESS:PORT"]);

    // A port that was just free, and that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in [
        "leases",
        "timeline",
        "status",
        "status --watch",
        "machine list",
        "machine show web1",
        "diagnose web1",
        "events",
        "token list",
    ] {
        let out = run(dir.path(), &format!("{command} --server {free}"));
        refused(&out, 1, &["no server answers at", "`pilotlight serve`", "--server"]);
        assert_eq!(text(&out.stderr).lines().count(), 1);
    }
}

#[test]
fn a_configuration_beside_is_not_forgotten_in_silence() {
    let dir = folder();
    fs::rename(dir.path().join("good.toml"), dir.path().join("pilotlight.toml")).unwrap();
    for command in ["check", "explain 02:00:00:00:00:01", "installers list", "cache list"] {
        let said = text(&run(dir.path(), command).stderr);
        let option = "--config pilotlight.toml reads the one that is there";
        assert_eq!(said.matches(option).count(), 1, "{command}: {said}");
    }
    let out = run(dir.path(), "explain web1 --config pilotlight.toml");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
}

fn piped(args: &[&str], input: &[u8]) -> Output {
    let mut child = pilotlight()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_hash_is_crypts_own() {
    for password in ["secret", "with space, ü and $", &"x".repeat(511)] {
        let out = piped(&["hash-password", "--stdin"], format!("{password}\n").as_bytes());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let ours = text(&out.stdout).trim().to_string();
        // crypt(3) itself: all up to the last `$` is its salt.
        let salt = &ours[..ours.rfind('$').unwrap()];
        let theirs = Command::new("perl")
            .args(["-e", "print crypt($ARGV[0], $ARGV[1])", password, salt])
            .output()
            .expect("perl is everywhere that Debian is");
        assert_eq!(text(&theirs.stdout), ours, "{password:?}");
    }
    let one = piped(&["hash-password", "--stdin"], b"secret\n").stdout;
    assert_ne!(one, piped(&["hash-password", "--stdin"], b"secret\n").stdout, "salted");
}

#[test]
fn what_crypt_would_not_read_is_refused() {
    for (input, word) in [
        (&b""[..], "empty"),
        (b"\n", "empty"),
        (b"a\0b\n", "U+0000"),
        (b"a\tb\n", "U+0009"),
        (b"one\ntwo\n", "more than one line"),
        (b"\xff\xfe\n", "UTF-8"),
        (&[b'x'; 512][..], "512 bytes"),
        (&[b'x'; 5000][..], "bytes"),
    ] {
        refused(&piped(&["hash-password", "--stdin"], input), 1, &[word]);
    }
    refused(&piped(&["hash-password"], b""), 1, &["no terminal", "--stdin"]);
}

#[test]
fn completions_and_pages_know_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let commands = [
        "serve",
        "check",
        "explain",
        "catalog",
        "installers",
        "status",
        "machine",
        "diagnose",
        "status",
        "machine",
        "diagnose",
        "events",
        "leases",
        "timeline",
        "cache",
        "token",
        "hash-password",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = text(&run(dir.path(), &format!("completions {shell}")).stdout);
        assert!(commands.iter().all(|c| said.contains(c)), "{shell}");
    }
    let whole = text(&run(dir.path(), "man").stdout);
    assert!(whole.contains(".TH pilotlight 1"), "{whole}");
    for command in commands {
        let title = format!(".SH \"PILOTLIGHT {}\"", command.to_uppercase());
        assert!(whole.contains(&title), "{title}");
        let page = text(&run(dir.path(), &format!("man {command}")).stdout);
        assert!(page.contains(&format!(".TH pilotlight-{command} 1")), "{page}");
    }
    assert!(whole.contains(".SH \"PILOTLIGHT CACHE FETCH\""), "{whole}");
    let page = text(&run(dir.path(), "man cache-fetch").stdout);
    assert!(page.contains(".TH pilotlight-cache-fetch 1"), "{page}");
    for word in ["log\\-json", "\\-\\-via", "EXIT", "/etc/pilotlight/pilotlight.toml"] {
        assert!(whole.to_uppercase().contains(&word.to_uppercase()), "{word}");
    }
    let groff = Command::new("groff")
        .args(["-man", "-ww", "-Tutf8", "-z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mut groff) = groff {
        groff.stdin.take().unwrap().write_all(whole.as_bytes()).unwrap();
        let out = groff.wait_with_output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
    }
}

#[test]
fn help_teaches_by_example_in_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    for command in [
        "",
        "serve",
        "check",
        "explain",
        "catalog",
        "installers",
        "installers list",
        "installers show",
        "installers export",
        "status",
        "machine",
        "machine list",
        "machine show",
        "machine assign",
        "machine reinstall",
        "machine local",
        "machine rescue",
        "machine delete",
        "machine power",
        "diagnose",
        "events",
        "leases",
        "timeline",
        "token",
        "token list",
        "token make",
        "token revoke",
        "cache",
        "cache list",
        "cache verify",
        "cache pin",
        "cache unpin",
        "cache fetch",
        "cache clear",
        "hash-password",
        "completions",
        "man",
    ] {
        for flag in ["--help", "-h"] {
            let out = run(dir.path(), &format!("{command} {flag}"));
            let said = text(&out.stdout);
            assert_eq!(out.status.code(), Some(0));
            assert!(said.contains("Examples:\n"), "{command}: {said}");
            fits(&said);
        }
    }
    for (command, word) in [
        ("pin", "no digest"),
        ("pin", "it is exceeded"),
        ("fetch", "has a digest"),
        ("fetch", "is exceeded"),
        ("verify", "no digest"),
    ] {
        let said = text(&run(dir.path(), &format!("cache {command} --help")).stdout);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(word), "{word:?} is missing in:\n{said}");
    }
    let serve = text(&run(dir.path(), "serve --help").stdout);
    assert!(serve.contains("exit code 2"), "{serve}");
}

#[test]
fn the_long_version_names_the_loaders() {
    let dir = tempfile::tempdir().unwrap();
    let short = text(&run(dir.path(), "-V").stdout);
    assert_eq!(short, format!("pilotlight {}\n", env!("CARGO_PKG_VERSION")));
    let long = text(&run(dir.path(), "--version").stdout);
    assert!(long.starts_with(short.trim()) && long.contains("\niPXE loaders: "), "{long}");
    assert!(pilotlight::ipxe::embedded().iter().all(|e| long.contains(e.name)), "{long}");
    fits(&long);
}

#[test]
fn a_pipe_that_nobody_reads_is_no_failure_and_a_full_disk_is_one() {
    let dir = folder();
    for (args, code) in [
        ("man".to_string(), 0),
        ("completions bash".into(), 0),
        ("catalog".into(), 0),
        (format!("explain {MAC} --config good.toml"), 0),
        ("check --config good.toml".into(), 0),
        ("check --config nowhere.toml".into(), 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = pilotlight();
        command.current_dir(dir.path()).args(args.split(' ')).stdout(writer);
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{args}: {}", text(&out.stderr));
        assert!(out.stderr.is_empty(), "{args}: {}", text(&out.stderr));

        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        command.stdout(full);
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args}");
        assert!(text(&out.stderr).starts_with("pilotlight: No space left"), "{args}");
    }
}

#[test]
fn colours_only_where_they_are_wanted() {
    let dir = folder();
    let said = |env: &[(&str, &str)]| {
        let mut command = pilotlight();
        command.current_dir(dir.path()).args(["check", "--config", "nowhere.toml"]);
        text(&command.envs(env.iter().copied()).output().unwrap().stdout)
    };
    assert!(!said(&[]).contains('\x1b'), "a pipe gets none");
    assert!(said(&[("CLICOLOR_FORCE", "1")]).contains("\x1b["));
    assert!(!said(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\x1b'));
}
