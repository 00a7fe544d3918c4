//! The answer templates that are built in, as machines are sent them: `tests/golden/answers/`, which
//! the installers' own validators read. After a change: `BLESS=1 cargo test --test answers`, then
//! read the difference.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use pilotlight::boot::Urls;
use pilotlight::boot::render::{Scene, check_templates, template, whole_answer};
use pilotlight::config::{Config, answers, parse};
use pilotlight::model::{Facts, machine};

/// Made by `hash-password` of a password that nobody has.
const HASH: &str = "$6$zOVAwQyTFsTd2/fG$GlQVTzWLsoBLfrzrMeHlPNSTUEp/Uh6rGbAY2R9vL5BMbtCHQ24vR71zl4PY9IFVIeLhPlbm.XJqP9BmiQAeY/";

fn home(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A profile that gives its machine all the templates, and what `more` adds to it.
fn config(more: &str) -> Config {
    let all: String = answers::names().map(|n| format!("\"{n}\" = \"builtin:{n}\"\n")).collect();
    let text = format!(
        "[[machine]]\nname = \"web1\"\nmac = \"52:54:00:12:34:56\"\nprofile = \"p\"\n\
         [[profile]]\nname = \"p\"\nkernel = \"http://h/k\"\n[profile.answers]\n{all}{more}"
    );
    parse(&[("pilotlight.toml".into(), text)]).unwrap().0
}

fn filled(config: &Config, name: &str) -> Result<String, String> {
    let profile = &config.profiles[0];
    let mut facts = Facts::of("52:54:00:12:34:56".parse().unwrap());
    facts.ip = Some([192, 0, 2, 10].into());
    let urls = Urls {
        base: "http://192.0.2.1".into(),
        http: "http://192.0.2.1".into(),
        address: "192.0.2.1".into(),
        token: "0".repeat(32),
    };
    let machine = machine::find(&config.machines, &facts);
    let scene = Scene::new(config, machine, profile, &facts, &urls);
    let of = profile.answers.iter().find(|a| a.name == name).unwrap();
    let text = template(profile, of).unwrap();
    whole_answer(&scene, of, &text).map(|t| t.reveal().into()).map_err(|e| e.to_string())
}

/// With nothing but a password of root's, of a user's, and with all there is.
fn cases() -> [(&'static str, Config); 3] {
    let root = format!("[profile.secrets]\nroot_password = \"{HASH}\"\n");
    let user = format!("[profile.secrets]\nuser_password = \"{HASH}\"\n");
    let all = format!(
        "{root}user_password = \"{HASH}\"\n[profile.vars]\nlocale = \"de_DE.UTF-8\"\n\
         keyboard = \"de\"\ntimezone = \"Europe/Berlin\"\ndisk = \"/dev/vda\"\nuser = \"eva\"\n\
         domain = \"lab.example\"\npackages = [\"vim\", \"tmux\"]\n"
    );
    [("root", config(&root)), ("user", config(&user)), ("all", config(&all))]
}

/// The goldens of a template, each a file.
fn golden(name: &str) -> Vec<PathBuf> {
    cases().iter().map(|(case, _)| home(&format!("tests/golden/answers/{case}-{name}"))).collect()
}

#[test]
fn each_is_as_it_was_read_by_a_person() {
    let mut differ = Vec::new();
    for (case, config) in cases() {
        for name in answers::names() {
            let said = filled(&config, name).unwrap();
            assert!(said.ends_with('\n') && !said.contains("\n\n\n"), "{said}");
            let path = home(&format!("tests/golden/answers/{case}-{name}"));
            if std::env::var_os("BLESS").is_some() {
                fs::write(&path, &said).unwrap();
            }
            if fs::read_to_string(&path).unwrap_or_default() != said {
                differ.push(format!("--- {}\n{said}", path.display()));
            }
        }
        assert!(check_templates(&config, &config.profiles[0]).is_empty());
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn what_nobody_could_log_in_to_is_refused() {
    let config = config("");
    for name in answers::names().filter(|n| *n != "meta-data") {
        let said = filled(&config, name).unwrap_err();
        let start = format!("pilotlight.toml:5: profile p: answer {name}: builtin:{name}: ");
        assert!(said.starts_with(&start), "{said}");
        assert!(said.contains("nobody could log in to this system: give the profile"), "{said}");
    }
    assert_eq!(check_templates(&config, &config.profiles[0]).len(), 4, "and `check` says so");
}

#[test]
fn each_ends_with_the_report() {
    for name in answers::names().filter(|n| *n != "meta-data") {
        let said = filled(&cases()[0].1, name).unwrap();
        let at = said.rfind("/report/done").unwrap_or_else(|| panic!("{name}: {said}"));
        let line = said[..at].lines().next_back().unwrap();
        assert!(line.contains("http://192.0.2.1/b/"), "{name}: {line}");
    }
}

#[test]
fn a_name_that_is_not_built_in_is_told() {
    let text = "[[profile]]\nname = \"p\"\nkernel = \"http://h/k\"\n\
                answers = { a = \"builtin:presed.cfg\", b = \"builtin:zzz\" }\n";
    let said = parse(&[("p.toml".into(), text.into())]).unwrap_err().to_string();
    let want = "p.toml:4:17: no template is built in as \"presed.cfg\" (did you mean \
                \"preseed.cfg\"?)\np.toml:4:43: no template is built in as \"zzz\" (there are \
                preseed.cfg, kickstart.cfg, user-data, meta-data, autoinst.xml)";
    assert_eq!(said, want);
}

/// Says so: a failure where everything is wanted.
fn left_out(test: &str, why: &str) {
    let all = ["CI", "PILOTLIGHT_TESTS_ALL"];
    assert!(all.iter().all(|v| std::env::var_os(v).is_none()), "nothing may be left out: {why}");
    // Past the capture of the test harness: what was left out must be seen.
    let _ = writeln!(io::stderr(), "left out: {test}: {why}");
}

/// What a validator says of a file, where it does not like it.
fn complaint(mut command: Command) -> Option<String> {
    let out = command.output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (!out.status.success()).then_some(said)
}

#[test]
fn anaconda_reads_the_kickstart() {
    let dir = home(".cache/python/pykickstart");
    let tool = dir.join("bin/ksvalidator");
    if !tool.exists() {
        left_out("anaconda_reads_the_kickstart", "no ksvalidator: scripts/deps test brings it");
        return;
    }
    let read = |path: &Path, version: &str| {
        let mut command = Command::new("/usr/bin/python3");
        command.env("PYTHONPATH", &dir).arg(&tool).args(["-e", "-v", version]).arg(path);
        complaint(command)
    };
    for path in golden("kickstart.cfg") {
        for version in ["RHEL8", "RHEL9", "RHEL10", "F40", "F43"] {
            assert_eq!(read(&path, version), None, "{version} {}", path.display());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.cfg");
    fs::write(&bad, "rootpw --iscryptd x\n").unwrap();
    assert!(read(&bad, "RHEL9").is_some(), "it can complain");
}

#[test]
fn debconf_reads_the_preseed() {
    let read = |path: &Path| {
        let mut command = Command::new("debconf-set-selections");
        command.arg("--checkonly").arg(path);
        complaint(command)
    };
    if Command::new("debconf-set-selections").arg("--version").output().is_err() {
        left_out("debconf_reads_the_preseed", "no debconf-set-selections here");
        return;
    }
    for path in golden("preseed.cfg") {
        assert_eq!(read(&path), None, "{}", path.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.cfg");
    fs::write(&bad, "d-i passwd/root-login\n").unwrap();
    assert!(read(&bad).is_some(), "it can complain");
}

#[test]
fn cloud_init_reads_the_user_data() {
    let python = |code: &str, path: &Path| {
        Command::new("/usr/bin/python3").args(["-c", code]).arg(path).output().ok()
    };
    let read = |path: &Path| {
        let code = "import json, sys, yaml\n\
                    print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
        let out = python(code, path).unwrap();
        assert!(out.status.success(), "{}: {out:?}", path.display());
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    if !python("import yaml", Path::new("/")).is_some_and(|out| out.status.success()) {
        left_out("cloud_init_reads_the_user_data", "no python3-yaml: scripts/deps test brings it");
        return;
    }
    let [root, user, all] = &golden("user-data")[..] else { panic!() };
    for path in [root, user, all] {
        assert!(fs::read_to_string(path).unwrap().starts_with("#cloud-config\n"));
    }
    let [root, user, all] = [root, user, all].map(|path| read(path)["autoinstall"].clone());
    assert_eq!(root["user-data"]["chpasswd"]["users"][0]["password"], HASH);
    assert!(root["identity"].is_null() && root["packages"] == serde_json::json!([]));
    assert_eq!(user["identity"]["password"], HASH);
    assert_eq!(user["identity"]["username"], "admin");
    assert!(user["user-data"]["chpasswd"].is_null() && user["version"] == 1);
    assert_eq!(all["storage"]["layout"]["match"]["path"], "/dev/vda");
    assert_eq!(all["packages"], serde_json::json!(["vim", "tmux"]));
    for one in [&root, &user, &all] {
        let last = one["late-commands"].as_array().unwrap().last().unwrap().as_str().unwrap();
        assert!(last.contains("/report/done") && last.ends_with("done\n"), "{last}");
    }
    for path in golden("meta-data") {
        assert_eq!(read(&path)["local-hostname"], "web1");
    }
}

#[test]
fn autoyast_is_well_formed() {
    use quick_xml::Reader;
    use quick_xml::events::Event;
    for path in golden("autoinst.xml") {
        let text = fs::read_to_string(&path).unwrap();
        let mut reader = Reader::from_str(&text);
        let (mut depth, mut elements) = (0, 0);
        loop {
            match reader.read_event().unwrap_or_else(|e| panic!("{}: {e}", path.display())) {
                Event::Start(_) => (depth, elements) = (depth + 1, elements + 1),
                Event::End(_) => depth -= 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!(depth, 0, "{}", path.display());
        assert!(elements > 30 && text.starts_with("<?xml"), "{}", path.display());
    }
}
