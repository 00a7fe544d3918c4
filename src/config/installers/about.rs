//! What an installer is, in words, and which of its files come from where.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;

use super::{BootForm, COMMON, FILES, Form, INCLUDE, Installer, Installers, Rule};
use crate::model::profile::Kind;

/// An installer as a person reads it.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    pub name: String,
    /// With words in capitals for what it is recognised by.
    pub title: String,
    pub kind: &'static str,
    /// Our words for architectures, and theirs.
    pub arches: BTreeMap<String, String>,
    /// MiB; of the image besides, where that is loaded.
    pub memory: Option<u64>,
    pub loads_image: bool,
    pub bios_only: bool,
    /// Any of these says that a tree is one.
    pub told_by: Vec<String>,
    pub boot: Boots,
    /// What UEFI has in place of that.
    pub uefi: Boots,
    pub answers: Vec<String>,
    /// What a user must bring, and what it is.
    pub parts: BTreeMap<String, String>,
    /// What does without them.
    pub instead: String,
    /// Patterns on the version, and what those have of their own.
    pub variants: Vec<(String, Vec<&'static str>)>,
    pub note: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Boots {
    pub kernel: Option<String>,
    pub initrd: Vec<String>,
    pub args: Option<String>,
    /// More arguments, where it shall ask nothing.
    pub unattended: Option<String>,
    pub script: Vec<String>,
}

/// A file of an installer.
#[derive(Clone, Debug, Serialize)]
pub struct Part<'i> {
    /// `ks.cfg`
    pub name: &'i str,
    pub from: From<'i>,
    /// `common/disks.sh`
    pub includes: Vec<&'i str>,
    #[serde(skip)]
    pub text: &'i str,
}

/// Where a file is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum From<'i> {
    /// Compiled in.
    Ours,
    /// The user's, in place of ours.
    Instead(&'i PathBuf),
    /// The user's, where we have none.
    New(&'i PathBuf),
}

/// The files that are compiled in of a folder, by name.
pub fn ours(folder: &str) -> Vec<Part<'static>> {
    let of = |(name, text): &(&'static str, &'static str)| {
        let name = name.strip_prefix(folder)?.strip_prefix('/')?;
        Some(Part { name, from: From::Ours, includes: includes(text), text })
    };
    FILES.iter().filter_map(of).collect()
}

/// The folders that are compiled in: installers, and what they include.
pub fn folders() -> Vec<&'static str> {
    let mut all: Vec<_> = FILES.iter().filter_map(|(n, _)| Some(n.split_once('/')?.0)).collect();
    all.dedup();
    all
}

fn includes(text: &str) -> Vec<&str> {
    let mut all: Vec<&str> = Vec::new();
    for found in INCLUDE.captures_iter(text) {
        let name = found.get(1).map_or("", |m| m.as_str());
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

impl Installers {
    /// The files of an installer, or of those that others include, by name.
    pub fn parts(&self, folder: &str) -> Vec<Part<'_>> {
        let mut all: Vec<Part<'_>> = ours(folder);
        for (name, path, text) in &self.1 {
            let Some(name) = name.strip_prefix(folder).and_then(|n| n.strip_prefix('/')) else {
                continue;
            };
            let there = all.iter().position(|part| part.name == name);
            let from = match there {
                Some(_) => From::Instead(path),
                None => From::New(path),
            };
            let part = Part { name, from, includes: includes(text), text };
            match there {
                Some(at) => all[at] = part,
                None => all.push(part),
            }
        }
        all.sort_by_key(|part| part.name);
        all
    }

    /// What the user's own folder has of those that others include.
    pub fn own_common(&self) -> Vec<Part<'_>> {
        self.parts(COMMON).into_iter().filter(|part| part.from != From::Ours).collect()
    }
}

impl Installer {
    pub fn about(&self) -> About {
        let Form { title, memory, note, answers, boot, uefi, .. } = &self.base;
        About {
            name: self.name.clone(),
            title: in_capitals(&named(title.as_deref().unwrap_or(&self.name), &self.rules)),
            kind: match self.kind {
                Kind::Install => "install",
                Kind::Live => "live",
            },
            arches: self.arches.clone(),
            memory: *memory,
            loads_image: self.loads_image,
            bios_only: self.bios_only,
            told_by: self.rules.iter().map(told_by).collect(),
            boot: boots(boot),
            uefi: boots(uefi),
            answers: answers.clone().unwrap_or_default(),
            parts: self.parts.clone(),
            instead: self.instead.clone(),
            variants: self.variants.iter().map(|(m, form)| (m.to_string(), own(form))).collect(),
            note: in_capitals(note.as_deref().unwrap_or_default()),
        }
    }
}

fn boots(form: &BootForm) -> Boots {
    let BootForm { kernel, initrd, args, unattended, script, initrd_args: _ } = form.clone();
    Boots {
        kernel: kernel.as_deref().map(in_capitals),
        initrd: initrd.iter().flatten().map(|i| in_capitals(i)).collect(),
        args: args.as_deref().map(in_capitals),
        unattended: unattended.as_deref().map(in_capitals),
        script: script.iter().flatten().map(|line| in_capitals(line)).collect(),
    }
}

/// A title with all the names that the rules can tell: whoever looks for Rocky Linux finds it.
fn named(title: &str, rules: &[Rule]) -> String {
    static NAMES: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\(\?<name>([^()]+)\)").expect("a pattern of ours; a test uses it")
    });
    let texts = |rule: &Rule| -> Vec<String> {
        let texts = rule.r#match.0.iter().map(ToString::to_string);
        let caught = texts.filter_map(|text| Some(NAMES.captures(&text)?[1].to_string()));
        caught.chain(rule.set.get("name").cloned()).collect()
    };
    let volume = |rule: &Rule| {
        let text = rule.volume.as_ref()?.to_string();
        Some(NAMES.captures(&text)?[1].to_string())
    };
    let mut found: Vec<String> = rules.iter().flat_map(texts).collect();
    // Volumes have them in short.
    if found.is_empty() {
        found = rules.iter().filter_map(volume).collect();
    }
    let mut names: Vec<&str> = Vec::new();
    for name in found.iter().flat_map(|all| all.split('|')) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.is_empty() {
        true => title.to_string(),
        false => title.replace("{name}", &names.join(", ")),
    }
}

/// `{version}` is VERSION for a person; what stands in `{{ }}` is a template's and stays.
fn in_capitals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest[1..].split_once('}').map_or("", |(name, _)| name);
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            out.push_str(&name.to_uppercase());
            rest = &rest[name.len() + 2..];
        } else {
            let braces = rest.len() - rest.trim_start_matches('{').len();
            out.push_str(&rest[..braces]);
            rest = &rest[braces..];
        }
    }
    out + rest
}

/// What a rule looks for.
fn told_by(rule: &Rule) -> String {
    let mut all = Vec::new();
    all.extend(rule.volume.as_ref().map(|p| format!("a volume named like {p}")));
    if let Some(file) = &rule.file {
        let likes: Vec<String> = rule.r#match.0.iter().map(ToString::to_string).collect();
        all.push(match likes.is_empty() {
            true => file.clone(),
            false => format!("{file} with {}", likes.join(" and ")),
        });
    }
    all.extend(rule.has.iter().map(|path| in_capitals(path)));
    all.extend(rule.lacks.iter().map(|path| format!("no {}", in_capitals(path))));
    all.join(", ")
}

/// The keys that a variant has.
fn own(form: &Form) -> Vec<&'static str> {
    let of_boot = |boot: &BootForm| {
        [
            ("kernel", boot.kernel.is_some()),
            ("initrd", boot.initrd.is_some()),
            ("args", boot.args.is_some()),
            ("unattended", boot.unattended.is_some()),
            ("script", boot.script.is_some()),
        ]
    };
    let own = [
        ("title", form.title.is_some()),
        ("memory", form.memory.is_some()),
        ("note", form.note.is_some()),
        ("answers", form.answers.is_some()),
        ("trees", form.trees.is_some()),
    ];
    let mut all: Vec<&'static str> = Vec::new();
    for (key, there) in own.into_iter().chain(of_boot(&form.boot)).chain(of_boot(&form.uefi)) {
        if there && !all.contains(&key) {
            all.push(key);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_capitals_and_templates_stay() {
        for (text, want) in [
            ("{name} {version}", "NAME VERSION"),
            ("a={{ tree.url }}/{arch}", "a={{ tree.url }}/ARCH"),
            ("{% if {x} %}", "{% if X %}"),
            ("{", "{"),
            ("{}{ä}", "{}{ä}"),
        ] {
            assert_eq!(in_capitals(text), want, "{text}");
        }
    }

    #[test]
    fn each_file_tells_where_it_is_from() {
        let own = |name: &str, text: &str| {
            (name.to_string(), PathBuf::from("/own").join(name), text.to_string())
        };
        let all = [
            own("centos-7/ks.cfg", "{% include \"common/disks.sh\" %}\nmine\n"),
            own("common/wipe.sh", "mine\n"),
            own("x/installer.toml", "title = \"X\"\n[boot]\nkernel = \"http://h/k\"\n"),
        ];
        let all = Installers::of(&all).unwrap();
        let title = all.get("centos-7").unwrap().about().title;
        assert_eq!(
            title,
            "CentOS, Red Hat Enterprise Linux, Oracle Linux, Scientific Linux VERSION"
        );
        let parts = all.parts("centos-7");
        let named: Vec<_> = parts.iter().map(|p| (p.name, p.from)).collect();
        let path = PathBuf::from("/own/centos-7/ks.cfg");
        assert_eq!(named, [("installer.toml", From::Ours), ("ks.cfg", From::Instead(&path))]);
        assert_eq!(parts[1].includes, ["common/disks.sh"]);
        assert!(matches!(all.parts("x")[..], [Part { from: From::New(_), .. }]));
        assert_eq!(all.own_common().len(), 1);
        assert!(all.parts("centos").is_empty() && ours("x").is_empty());
        assert!(folders().contains(&"common") && folders().contains(&"windows"));
    }
}
