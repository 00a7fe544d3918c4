//! Each installer as a machine meets it: what it is recognised by, what its script loads, and the
//! answers it is sent, for BIOS and UEFI; as goldens in `tests/golden/installers/`, which the
//! installers' own validators read. The cases are in `tests/installers/NAME.toml`. After a change:
//! `BLESS=1 cargo test --test installers`, then read the difference.

#[path = "installers/kickstart.rs"]
mod kickstart;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pilotlight::boot::Urls;
use pilotlight::boot::render::{Scene, check_templates, machine_script, template, whole_answer};
use pilotlight::boot::script::For;
use pilotlight::config::disk::read_installers;
use pilotlight::config::{Config, Installers, Look, Root, Tree, parse_with};
use pilotlight::model::{Facts, Profile, machine};
use serde::Deserialize;

#[path = "installers/debian.rs"]
mod debian;
#[path = "installers/esxi.rs"]
mod esxi;
#[path = "common/left_out.rs"]
mod left_out;
#[path = "installers/live.rs"]
mod live;
#[path = "installers/standin.rs"]
mod standin;
#[path = "installers/suse.rs"]
mod suse;
#[path = "installers/windows.rs"]
mod windows;

pub use left_out::left_out;

/// Made by `hash-password` of a password that nobody has.
pub const HASH: &str = "$6$zOVAwQyTFsTd2/fG$GlQVTzWLsoBLfrzrMeHlPNSTUEp/Uh6rGbAY2R9vL5BMbtCHQ24vR71zl4PY9IFVIeLhPlbm.XJqP9BmiQAeY/";
const FIRMWARE: [(&str, &str); 2] = [("bios", "bios"), ("uefi", "uefi-x64")];

pub fn home(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// What is recognised; without it `install` says what is installed.
    tree: Option<Made>,
    install: Option<String>,
    /// What else the profile says.
    #[serde(default)]
    profile: toml::Table,
    /// What it must be recognised as.
    #[serde(default)]
    version: String,
    #[serde(default = "x86_64")]
    arch: String,
    title: Option<String>,
    #[serde(default)]
    interactive: bool,
    /// With HTTPS and a CA of ours.
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    machine_settings: toml::Table,
    #[serde(default)]
    vars: toml::Table,
    #[serde(default)]
    parts: toml::Table,
    /// In place of root_password and user_password.
    secrets: Option<toml::Table>,
    /// Names of answers of the user's own; their text is one line.
    #[serde(default)]
    own: Vec<String>,
    #[serde(default = "both")]
    firmware: Vec<String>,
}

fn x86_64() -> String {
    "x86_64".into()
}

fn both() -> Vec<String> {
    FIRMWARE.map(|(name, _)| name.into()).into()
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    #[serde(default)]
    volume: String,
    /// Bytes of the image.
    size: Option<u64>,
    files: BTreeMap<String, String>,
}

impl Tree for Made {
    fn volume(&self) -> Option<String> {
        Some(self.volume.clone())
    }

    fn text(&self, path: &str) -> Option<String> {
        let same = |p: &&String| p.eq_ignore_ascii_case(path);
        self.files.iter().find(|(p, _)| same(p)).map(|(_, text)| text.clone())
    }

    fn has(&self, path: &str) -> bool {
        let (path, below) = (path.to_lowercase(), format!("{}/", path.to_lowercase()));
        let is = |p: &String| p.to_lowercase() == path || p.to_lowercase().starts_with(&below);
        self.files.keys().any(is)
    }

    fn size(&self) -> Option<u64> {
        self.size
    }
}

struct Eyes<'a>(&'a Case);

impl Look for Eyes<'_> {
    fn tree(&self, _: &Root) -> Result<Box<dyn Tree>, String> {
        Ok(Box::new(self.0.tree.clone().unwrap()))
    }

    fn images(&self, _: &Path) -> Result<Vec<PathBuf>, String> {
        unreachable!("no case watches")
    }

    /// As they are on the disk, so that a text that is changed needs no build.
    fn installers(&self, dir: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
        read_installers(dir)
    }
}

fn table(title: &str, of: &toml::Table) -> String {
    if of.is_empty() {
        return String::new();
    }
    let mut whole = toml::Table::new();
    let mut inner = toml::Table::new();
    let (outer, name) = title.split_once('.').unwrap();
    inner.insert(name.into(), of.clone().into());
    whole.insert(outer.into(), inner.into());
    // The parent is an array of tables, whose last one this goes to.
    toml::to_string(&whole).unwrap()
}

fn config(case: &Case, of: &str, arch: &str) -> Config {
    let secrets = case.secrets.clone().unwrap_or_else(|| {
        ["root_password", "user_password"]
            .map(|name| (name.into(), HASH.into()))
            .into_iter()
            .collect()
    });
    let medium = match &case.tree {
        Some(_) => "[[media]]\nname = \"m\"\niso = \"m.iso\"\n",
        None => "",
    };
    let install = case.install.as_deref().unwrap_or("m");
    let own: toml::Table =
        case.own.iter().map(|name| (name.clone(), format!("/own/{name}").into())).collect();
    let settings = match (case.interactive, case.settings.is_empty()) {
        (true, _) => String::new(),
        (false, true) => "[profile.settings]\n".into(),
        (false, false) => table("profile.settings", &case.settings),
    };
    let secrets = if case.interactive { String::new() } else { table("profile.secrets", &secrets) };
    let text = format!(
        "[dhcp]\nmode = \"full\"\n[installers]\ndir = {:?}\n\
         [[subnet]]\nnetwork = \"192.0.2.0/24\"\nrange = \"192.0.2.100-192.0.2.200\"\n\
         router = \"192.0.2.254\"\ndns = [\"192.0.2.53\", \"192.0.2.54\"]\n\
         [[files]]\nname = \"tools\"\ndir = \"/srv/tools\"\n{medium}\
         [[profile]]\nname = \"p\"\ninstall = {install:?}\n{}{}{}{}{settings}{secrets}\
         [[machine]]\nname = \"web1\"\nmac = \"52:54:00:12:34:56\"\nprofile = \"p\"\n\
         address = \"192.0.2.10\"\narch = {arch:?}\n{}",
        home("assets/installers"),
        case.profile,
        table("profile.answers", &own),
        table("profile.vars", &case.vars),
        table("profile.parts", &case.parts),
        table("machine.settings", &case.machine_settings),
    );
    match parse_with(&[("pilotlight.toml".into(), text.clone())], &Eyes(case)) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{of}, {}: {errors}\n{text}", case.name),
    }
}

/// What a script loads and runs: its commands without those that try again.
fn commands(script: &str) -> String {
    let loads = |line: &&str| line.contains(" && goto have") || line.contains(" || goto failed");
    let plain = |line: &str| {
        let end = line.find(" && goto have").or_else(|| line.find(" || goto failed"));
        format!("{}\n", &line[..end.unwrap_or(line.len())])
    };
    script.lines().filter(loads).filter(|l| !l.starts_with("iseq ")).map(plain).collect()
}

/// What one case is on one firmware: the commands of its script, and its answers.
fn met(case: &Case, of: &str, arch: &str) -> (String, BTreeMap<String, String>) {
    let config = config(case, of, arch);
    let profile: &Profile = config.profile("p").unwrap();
    let release = profile.release.as_ref().unwrap();
    let what = format!("{of}, {}", case.name);
    assert_eq!(release.installer, of, "{what}");
    if !case.version.is_empty() {
        assert_eq!((&release.version, release.arch), (&case.version, &*case.arch), "{what}");
    }
    if let Some(title) = &case.title {
        assert_eq!(profile.title, *title, "{what}");
    }
    let mut facts = Facts::of("52:54:00:12:34:56".parse().unwrap());
    facts.ip = Some([192, 0, 2, 10].into());
    facts.arch = Some(pilotlight::model::Firmware::by_name(arch).unwrap().arch);
    let urls = Urls {
        base: if case.tls { "https://192.0.2.1" } else { "http://192.0.2.1" }.into(),
        http: "http://192.0.2.1".into(),
        ca: case.tls.then(|| "(the CA)".into()),
        address: "192.0.2.1".into(),
        token: "0".repeat(32),
    };
    let machine = machine::find(&config.machines, &facts);
    assert!(machine.is_some(), "{what}");
    let scene = Scene::new(&config, machine, profile, &facts, &urls);
    let who = For { mac: facts.mac, name: "web1", base: &urls.base, choose: None };
    let script = machine_script(&who, &scene, profile, &urls, &[]);
    let script = script.unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut answers = BTreeMap::new();
    for answer in profile.answers.iter().filter(|a| !case.own.contains(&a.name)) {
        let text = template(profile, answer).unwrap();
        let whole = whole_answer(&scene, answer, &text).unwrap_or_else(|e| panic!("{what}: {e}"));
        let whole: String = whole.reveal().into();
        assert!(!whole.contains("{{") && !whole.contains("{%"), "{what}: {whole}");
        answers.insert(answer.name.clone(), whole);
    }
    if case.own.is_empty() {
        assert_eq!(check_templates(&config, profile), [], "{what}");
    }
    (commands(&script), answers)
}

fn cases(name: &str) -> Vec<Case> {
    let path = home(&format!("tests/installers/{name}.toml"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let cases: Cases = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    cases.case
}

/// All the installers, as they are on the disk.
fn installers() -> Installers {
    Installers::of(&read_installers(&home("assets/installers")).unwrap()).unwrap()
}

/// The golden files of an installer whose names end so.
pub fn goldens(installer: &str, ends: &str) -> Vec<PathBuf> {
    let dir = home(&format!("tests/golden/installers/{installer}"));
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.file_name().unwrap().to_string_lossy().ends_with(ends));
    all.sort();
    assert!(!all.is_empty(), "{installer} has no {ends}");
    all
}

#[test]
fn each_is_as_it_was_read_by_a_person() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut differ = Vec::new();
    for installer in installers().iter() {
        let name = &installer.name;
        let dir = home(&format!("tests/golden/installers/{name}"));
        fs::create_dir_all(&dir).unwrap();
        let mut wanted = BTreeMap::new();
        for case in cases(name) {
            let mut said = String::new();
            let mut before: Option<BTreeMap<String, String>> = None;
            for (firmware, arch) in FIRMWARE {
                if !case.firmware.iter().any(|f| f == firmware) {
                    continue;
                }
                let arch = if case.arch == "arm64" { "uefi-arm64" } else { arch };
                let (commands, answers) = met(&case, name, arch);
                said.push_str(&format!("{firmware}\n{commands}"));
                for (answer, text) in &answers {
                    let same = before.as_ref().is_some_and(|b| b.get(answer) == Some(text));
                    if !same {
                        let more = if before.is_some() { ".uefi" } else { "" };
                        wanted.insert(format!("{}{more}.{answer}", case.name), text.clone());
                    }
                }
                before = Some(answers);
            }
            wanted.insert(format!("{}.boot", case.name), said);
        }
        let there: BTreeSet<String> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        for gone in there.iter().filter(|file| !wanted.contains_key(*file)) {
            match bless {
                true => fs::remove_file(dir.join(gone)).unwrap(),
                false => differ.push(format!("no case makes {name}/{gone}")),
            }
        }
        for (file, text) in wanted {
            if bless {
                fs::write(dir.join(&file), &text).unwrap();
            }
            if fs::read_to_string(dir.join(&file)).unwrap_or_default() != text {
                differ.push(format!("--- {name}/{file}\n{text}"));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// What is a system by one installer is not one by another.
#[test]
fn each_is_recognised_as_itself() {
    let all = installers();
    for installer in all.iter() {
        for case in cases(&installer.name) {
            let Some(tree) = &case.tree else { continue };
            let (found, captures) = all.recognise(tree).unwrap_or_else(|| {
                panic!("{}, {}: it is not recognised", installer.name, case.name)
            });
            assert_eq!(found.name, installer.name, "{}: {captures:?}", case.name);
        }
    }
    let nothing = Made { volume: "NOTHING".into(), size: None, files: BTreeMap::new() };
    assert!(all.recognise(&nothing).is_none());
}

/// What a validator says of a file, where it does not like it.
pub fn complaint(mut command: Command) -> Option<String> {
    let out = command.output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (!out.status.success()).then_some(said)
}
