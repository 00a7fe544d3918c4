//! Installers as data: how a system is recognised, what boots it, and the answers it takes. Each is a
//! folder in `assets/installers/`, compiled in; the user's own folder adds others, and puts files of
//! its own in place of single ones of ours. `docs/installers.md` shows how one is written.
//!
//! 1. The texts of all folders are put over one another, and each `installer.toml` is read.
//! 2. [`Installers::recognise`] says which of them a tree of files is: the first rule that agrees.
//! 3. [`Installer::plan`] fills in what it was recognised by, and gives boots, answers and trees.

pub mod about;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use regex::Regex;
use serde::Deserialize;

use super::Root;
use crate::model::profile::{
    Answer, Boot, Initrd, Kind, Release, Source, Start, Template, unbroken,
};

include!(concat!(env!("OUT_DIR"), "/installers.rs"));

/// The file that describes an installer.
pub const FILE: &str = "installer.toml";
/// Whose files others include, and which is no installer.
const COMMON: &str = "common";
/// Bytes of a file of an installer, and of one that a system is recognised by.
pub const TEXT_LIMIT: usize = 64 << 10;
/// Our words for architectures, the first of which needs no mention.
const ARCHES: [&str; 2] = ["x86_64", "arm64"];

/// A tree of files that a system may be recognised in.
pub trait Tree {
    /// The volume identifier of its first image.
    fn volume(&self) -> Option<String>;
    /// The first [`TEXT_LIMIT`] bytes of a file, as text.
    fn text(&self, path: &str) -> Option<String>;
    /// Whether there is a file or a folder.
    fn has(&self, path: &str) -> bool;
    /// Bytes of its first image.
    fn size(&self) -> Option<u64>;
}

/// Looks at what the configuration names and does not open itself. Errors are sentences.
pub trait Look {
    fn tree(&self, root: &Root) -> Result<Box<dyn Tree>, String>;
    /// The images in a folder, in the order of their names.
    fn images(&self, dir: &Path) -> Result<Vec<PathBuf>, String>;
    /// The user's own installers: `NAME/FILE`, where it is, and its text.
    fn installers(&self, dir: &Path) -> Result<Vec<(String, PathBuf, String)>, String>;
}

/// Why nothing is known of a medium that nobody looked at, which is no fault of it.
pub const UNSEEN: &str = "it was not looked at";

/// Looks at nothing: for a configuration that is judged by its text alone.
pub struct Blind;

impl Look for Blind {
    fn tree(&self, _: &Root) -> Result<Box<dyn Tree>, String> {
        Err(UNSEEN.into())
    }

    fn images(&self, _: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }

    fn installers(&self, _: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
        Ok(Vec::new())
    }
}

/// All that are known, by name.
#[derive(Clone, Debug)]
pub struct Installers(BTreeMap<String, Installer>, Vec<(String, PathBuf, String)>);

/// One of them.
#[derive(Clone, Debug)]
pub struct Installer {
    pub name: String,
    base: Form,
    kind: Kind,
    /// Our word for an architecture to theirs.
    arches: BTreeMap<String, String>,
    rules: Vec<Rule>,
    variants: Vec<(Pattern, Form)>,
    /// What a profile must name itself, and what that is.
    pub parts: BTreeMap<String, String>,
    /// What does without them.
    pub instead: String,
    reads: Vec<String>,
    crlf: Vec<String>,
    /// Answers that it cannot boot without, asked for or not.
    always: Vec<String>,
    /// Whether all of the image is loaded into the machine's memory, besides what it needs itself.
    loads_image: bool,
    /// Whether its kernel is no program for UEFI.
    bios_only: bool,
    /// Templates by their file's name, with what they include, and as [`Template::Of`] has it where
    /// they are the user's.
    texts: BTreeMap<String, (Arc<str>, Theirs)>,
}

/// An `installer.toml` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: String,
    #[serde(default)]
    arches: BTreeMap<String, String>,
    #[serde(default)]
    kind: Word,
    memory: Option<u64>,
    #[serde(default)]
    loads_image: bool,
    #[serde(default)]
    bios_only: bool,
    carried: Option<Carried>,
    knows_no_ca: Option<bool>,
    #[serde(default)]
    note: String,
    #[serde(default)]
    answers: Vec<String>,
    #[serde(default)]
    trees: BTreeMap<String, String>,
    #[serde(default)]
    parts: BTreeMap<String, String>,
    #[serde(default)]
    instead: String,
    #[serde(default)]
    reads: Vec<String>,
    #[serde(default)]
    crlf: Vec<String>,
    #[serde(default)]
    always: Vec<String>,
    #[serde(default)]
    recognise: Vec<Rule>,
    boot: BootForm,
    #[serde(default)]
    uefi: BootForm,
    #[serde(default)]
    variant: Vec<Variant>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Install,
    Live,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    r#match: Pattern,
    title: Option<String>,
    memory: Option<u64>,
    note: Option<String>,
    answers: Option<Vec<String>>,
    trees: Option<BTreeMap<String, String>>,
    carried: Option<Carried>,
    knows_no_ca: Option<bool>,
    #[serde(default)]
    boot: BootForm,
    #[serde(default)]
    uefi: BootForm,
}

/// What is booted, with `{version}` and the like still in it.
#[derive(Clone, Debug, Default)]
struct Form {
    title: Option<String>,
    memory: Option<u64>,
    note: Option<String>,
    answers: Option<Vec<String>>,
    trees: Option<BTreeMap<String, String>>,
    /// Where in its initrd an answer is looked for that iPXE brought over TLS.
    carried: Option<Carried>,
    /// Whether it fetches answers itself, and trusts no CA of ours.
    knows_no_ca: Option<bool>,
    boot: BootForm,
    uefi: BootForm,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootForm {
    kernel: Option<String>,
    initrd: Option<Vec<String>>,
    args: Option<String>,
    unattended: Option<String>,
    script: Option<Vec<String>>,
    /// Whether `initrd=NAME` is put into the arguments, as Linux wants it under UEFI.
    initrd_args: Option<bool>,
}

/// A system is the one where all of a rule agrees.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
    volume: Option<Pattern>,
    file: Option<String>,
    #[serde(default)]
    r#match: Patterns,
    arch: Option<String>,
    version: Option<String>,
    /// Further captures that are always the same.
    #[serde(default)]
    set: BTreeMap<String, String>,
}

/// Read with its installer, and made ready when something is compared with it: all of ours would take
/// as long as the rest of the start, five times over, and megabytes.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    made: OnceLock<Result<Regex, regex::Error>>,
}

impl Pattern {
    fn of(text: &str) -> Result<Pattern, Box<regex_syntax::Error>> {
        regex_syntax::parse(text).map_err(Box::new)?;
        Ok(Pattern { text: text.into(), made: OnceLock::new() })
    }

    /// An error is one that is too large.
    fn made(&self) -> Result<&Regex, &regex::Error> {
        self.made.get_or_init(|| Regex::new(&self.text)).as_ref()
    }

    /// One that is too large agrees with nothing; [`Installers::of`] lets none of the user's be so.
    fn is_match(&self, text: &str) -> bool {
        self.made().is_ok_and(|made| made.is_match(text))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Pattern, D::Error> {
        Pattern::of(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// One, or a list.
#[derive(Clone, Debug, Default)]
struct Patterns(Vec<Pattern>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Patterns, D::Error> {
        struct Seen;
        impl<'de> serde::de::Visitor<'de> for Seen {
            type Value = Patterns;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a pattern, or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Patterns, E> {
                Pattern::of(text).map(|one| Patterns(vec![one])).map_err(E::custom)
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Patterns, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Patterns(all))
            }
        }
        from.deserialize_any(Seen)
    }
}

/// What a system was recognised by: `version`, `arch` and what else the rule names.
pub type Captures = BTreeMap<String, String>;

/// What is wrong with the user's own installers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub file: PathBuf,
    /// From 1; 0 is not known.
    pub line: usize,
    pub message: String,
}

static BUILTIN: LazyLock<Installers> = LazyLock::new(|| {
    // A test reads each of them.
    Installers::of(&[]).expect("compiled in; a test reads each of them")
});

impl PartialEq for Installers {
    /// By their texts, since patterns know no equality.
    fn eq(&self, other: &Installers) -> bool {
        self.1 == other.1
    }
}

impl Installers {
    /// Those that are compiled in.
    pub fn builtin() -> &'static Installers {
        &BUILTIN
    }

    /// Ours, with the user's own over them: `NAME/FILE`, where it is, and its text.
    ///
    /// # Errors
    /// All that is wrong with the user's.
    pub fn of(own: &[(String, PathBuf, String)]) -> Result<Installers, Vec<Wrong>> {
        let mut texts: BTreeMap<&str, (PathBuf, &str)> = BTreeMap::new();
        for (name, text) in FILES {
            texts.insert(name, (Path::new("assets/installers").join(name), text));
        }
        for (name, path, text) in own {
            texts.insert(name, (path.clone(), text));
        }
        let mut wrong = Vec::new();
        let mut all = BTreeMap::new();
        for (file, (path, text)) in &texts {
            let Some(name) = file.strip_suffix(FILE).and_then(|n| n.strip_suffix('/')) else {
                continue;
            };
            let is_own = || own.iter().any(|(own, ..)| own == file);
            match Installer::read(name, text, &texts) {
                Ok(one) => {
                    let large = |p: &Pattern| Some(format!("the pattern {p}: {}", p.made().err()?));
                    if is_own()
                        && let Some(message) = one.patterns().find_map(large)
                    {
                        let message = one_line(&message);
                        wrong.push(Wrong { file: path.clone(), line: 0, message });
                    }
                    all.insert(name.to_string(), one);
                }
                Err((file, line, message)) => {
                    let file = file.unwrap_or_else(|| path.clone());
                    wrong.push(Wrong { file, line, message });
                }
            }
        }
        for (name, path, _) in own {
            let folder = name.split('/').next().unwrap_or_default();
            if folder != COMMON && !all.contains_key(folder) && wrong.is_empty() {
                let message = format!("the folder {folder} has no {FILE}, and is none of ours");
                wrong.push(Wrong { file: path.clone(), line: 0, message });
            }
        }
        if wrong.is_empty() { Ok(Installers(all, own.to_vec())) } else { Err(wrong) }
    }

    pub fn get(&self, name: &str) -> Option<&Installer> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Installer> {
        self.0.values()
    }

    /// Which system a tree is, and what that was told by.
    pub fn recognise(&self, tree: &dyn Tree) -> Option<(&Installer, Captures)> {
        self.iter().find_map(|one| Some((one, one.recognise(tree)?)))
    }

    /// The folder of the user's own, if there are any.
    pub fn folder(&self) -> Option<&Path> {
        self.1.first().and_then(|(_, path, _)| path.parent()?.parent())
    }

    /// The installer that most signs of a tree agree with, and what does not; `None` if none does.
    pub fn nearest(&self, tree: &dyn Tree) -> Option<Nearest> {
        let rules = self.iter().flat_map(|one| one.rules.iter().map(move |rule| (one, rule)));
        let near = rules.filter_map(|(one, rule)| {
            let (agrees, fails) = rule.compared(&one.arches, tree);
            (agrees > 0 && !fails.is_empty()).then(|| Nearest {
                installer: one.name.clone(),
                agrees,
                fails,
            })
        });
        // The first of the best, so that it is always the same one.
        near.reduce(|best, next| {
            match (next.agrees, best.fails.len()) > (best.agrees, next.fails.len()) {
                true => next,
                false => best,
            }
        })
    }

    /// What was looked for, a line for each installer: for a tree that is none of them.
    pub fn looked_for(&self) -> Vec<(String, String)> {
        let line = |one: &Installer| {
            let signs: Vec<String> = one.rules.iter().map(Rule::signs).collect();
            (!signs.is_empty()).then(|| (one.name.clone(), signs.join(", or ")))
        };
        self.iter().filter_map(line).collect()
    }
}

/// Where it is wrong (another file than the installer's own), the line, and what.
type Fault = (Option<PathBuf>, usize, String);

impl Installer {
    fn read(
        name: &str,
        text: &str,
        texts: &BTreeMap<&str, (PathBuf, &str)>,
    ) -> Result<Installer, Fault> {
        let written: Written = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            (None, line, one_line(e.message()))
        })?;
        if let Some(arch) = written.arches.keys().find(|a| !ARCHES.contains(&a.as_str())) {
            let known = ARCHES.join(", ");
            return Err((None, 0, format!("`arches` has {arch}, and we know {known}")));
        }
        let mut own = BTreeMap::new();
        let folder = format!("{name}/");
        for (file, (path, text)) in texts.range(folder.as_str()..) {
            let Some(short) = file.strip_prefix(&folder) else { break };
            if short != FILE {
                let whole = included(text, texts).map_err(|m| (Some(path.clone()), 0, m))?;
                // One of ours is the very text that is compiled in.
                let ours = FILES.iter().any(|(_, ours)| std::ptr::eq(*ours, *text));
                let theirs = (!ours).then(|| (path.clone(), before_includes(text)));
                own.insert(short.to_string(), (Arc::from(whole), theirs));
            }
        }
        let named = written.variant.iter().flat_map(|v| v.answers.iter().flatten());
        let missing = written.answers.iter().chain(named).find(|a| !own.contains_key(*a));
        if let Some(answer) = missing {
            return Err((None, 0, format!("`answers` names {answer}, and no such file is beside")));
        }
        let variant = |v: Variant| {
            let Variant {
                r#match, title, memory, note, answers, trees, carried, knows_no_ca, ..
            } = v;
            let (boot, uefi) = (v.boot, v.uefi);
            (
                r#match,
                Form { title, memory, note, answers, trees, carried, knows_no_ca, boot, uefi },
            )
        };
        Ok(Installer {
            name: name.into(),
            base: Form {
                title: Some(written.title),
                memory: written.memory,
                note: Some(written.note),
                answers: Some(written.answers),
                trees: Some(written.trees),
                carried: written.carried,
                knows_no_ca: written.knows_no_ca,
                boot: written.boot,
                uefi: written.uefi,
            },
            kind: match written.kind {
                Word::Install => Kind::Install,
                Word::Live => Kind::Live,
            },
            arches: written.arches,
            rules: written.recognise,
            variants: written.variant.into_iter().map(variant).collect(),
            parts: written.parts,
            instead: written.instead,
            reads: written.reads,
            crlf: written.crlf,
            always: written.always,
            loads_image: written.loads_image,
            bios_only: written.bios_only,
            texts: own,
        })
    }

    fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        let of_rules = self.rules.iter().flat_map(|r| r.volume.iter().chain(&r.r#match.0));
        of_rules.chain(self.variants.iter().map(|(pattern, _)| pattern))
    }

    /// Whether it needs no tree of files.
    pub fn is_bare(&self) -> bool {
        self.rules.is_empty()
    }

    /// What a tree is told by, if it is one of its systems.
    pub fn recognise(&self, tree: &dyn Tree) -> Option<Captures> {
        self.rules.iter().find_map(|rule| self.agrees(rule, tree))
    }

    fn agrees(&self, rule: &Rule, tree: &dyn Tree) -> Option<Captures> {
        let mut found = Captures::new();
        let mut take = |pattern: &Pattern, text: &str| {
            let pattern = pattern.made().ok()?;
            let caught = pattern.captures(text)?;
            for name in pattern.capture_names().flatten() {
                found.extend(caught.name(name).map(|m| (name.to_string(), m.as_str().to_string())));
            }
            Some(())
        };
        if let Some(volume) = &rule.volume {
            take(volume, &tree.volume()?)?;
        }
        if let Some(file) = &rule.file {
            let text = tree.text(file)?;
            rule.r#match.0.iter().try_for_each(|pattern| take(pattern, &text))?;
        }
        found.extend(rule.set.iter().map(|(name, value)| (name.clone(), value.clone())));
        for (key, value) in [("arch", &rule.arch), ("version", &rule.version)] {
            if let Some(value) = value {
                found.entry(key.into()).or_insert_with(|| value.clone());
            }
        }
        let there = |found: &Captures| {
            rule.has.iter().all(|path| tree.has(&fill(path, found)))
                && !rule.lacks.iter().any(|path| tree.has(&fill(path, found)))
        };
        match found.get("arch") {
            Some(arch) => self.arches.values().any(|a| a == arch).then_some(())?,
            None => {
                // The first whose files are there.
                let theirs = ARCHES.iter().filter_map(|ours| self.arches.get(*ours));
                let with = |arch: &String| {
                    let mut found = found.clone();
                    found.insert("arch".into(), arch.clone());
                    found
                };
                found = theirs.map(with).find(there)?;
            }
        }
        found.entry("version".into()).or_default();
        there(&found).then_some(found)
    }

    /// What a release of it boots.
    ///
    /// # Errors
    /// A sentence: a part that the profile does not name.
    pub fn plan(&self, of: &Known<'_>) -> Result<Plan, String> {
        let captures = &of.captures;
        let version = captures.get("version").cloned().unwrap_or_default();
        let form = self.form(&version);
        let theirs = captures.get("arch").map_or("", String::as_str);
        let ours = |arch: &&&str| self.arches.get(**arch).is_some_and(|t| t == theirs);
        let arch = ARCHES.iter().find(ours).copied().unwrap_or(ARCHES[0]);
        let answers = form.answers.unwrap_or_default();
        let unattended = of.unattended || answers.iter().any(|a| of.own.contains(&a.as_str()));
        let answers = answers.iter().filter(|a| unattended || self.always.contains(a));
        let answers: Vec<&String> = answers.collect();
        let here = |name: &str| answers.iter().any(|a| *a == name) || of.own.contains(&name);
        let boot = self.boot(&form.boot, None, of, unattended, &here)?;
        let uefi = match form.uefi.is_empty() {
            true => None,
            false => Some(self.boot(&form.uefi, Some(&form.boot), of, unattended, &here)?),
        };
        let carried = form.carried.unwrap_or_default();
        let answers = answers.into_iter();
        let answers = answers
            .map(|name| Answer { carried: carried.place(name), ..self.answer(name) })
            .collect();
        let trees = form.trees.unwrap_or_default();
        let trees = trees.into_iter().map(|(name, path)| (name, fill(&path, captures)));
        let trees = trees.filter(|(_, path)| of.seen.is_some_and(|tree| tree.has(path)));
        let below = |path: &str| of.tree.as_ref().map(|tree| beneath(tree, path));
        let reads = self.reads.iter().filter_map(|path| {
            let path = fill(path, captures);
            let text = of.seen?.text(&path)?;
            Some((path, text))
        });
        Ok(Plan {
            kind: self.kind,
            memory: self.memory(form.memory, of.seen),
            boot,
            uefi,
            more: match &form.boot.unattended {
                Some(more) if unattended => fill(more, captures),
                _ => String::new(),
            },
            answers,
            carried,
            release: Release {
                installer: self.name.clone(),
                title: self.title(captures),
                version,
                arch,
                captures: captures.clone(),
                trees: trees.filter_map(|(name, path)| Some((name, below(&path)?))).collect(),
                tree: of.tree.clone(),
                files: reads.collect(),
                parts: of.parts.clone(),
                unattended,
                bios_only: self.bios_only,
                knows_no_ca: form.knows_no_ca.unwrap_or(false),
                note: form.note.map_or(String::new(), |note| fill(&note, captures)),
            },
        })
    }

    /// What a release of it is called.
    pub fn title(&self, captures: &Captures) -> String {
        let form = self.form(captures.get("version").map_or("", String::as_str));
        fill(form.title.as_deref().unwrap_or(&self.name), captures)
    }

    /// An answer of ours, whether a profile names it or not.
    fn answer(&self, name: &str) -> Answer {
        // Reading it proved that it is there.
        let (text, own) = self.texts.get(name).cloned().unwrap_or_default();
        Answer {
            name: name.into(),
            template: Template::Of { name: format!("{}/{name}", self.name), text, own },
            crlf: self.crlf.iter().any(|c| c == name),
            carried: None,
        }
    }

    /// In MiB.
    fn memory(&self, own: Option<u64>, seen: Option<&dyn Tree>) -> Option<u64> {
        let image = seen.and_then(Tree::size).filter(|_| self.loads_image);
        let image = image.map(|bytes| bytes.div_ceil(1 << 20));
        match (own, image) {
            (Some(own), Some(image)) => Some(own + image),
            (own, image) => own.or(image),
        }
    }

    fn form(&self, version: &str) -> Form {
        let mut form = self.base.clone();
        if let Some((_, over)) = self.variants.iter().find(|(m, _)| m.is_match(version)) {
            let over = over.clone();
            form = Form {
                title: over.title.or(form.title),
                memory: over.memory.or(form.memory),
                note: over.note.or(form.note),
                answers: over.answers.or(form.answers),
                trees: over.trees.or(form.trees),
                carried: over.carried.or(form.carried),
                knows_no_ca: over.knows_no_ca.or(form.knows_no_ca),
                boot: over.boot.over(&form.boot),
                uefi: over.uefi.over(&form.uefi),
            };
        }
        form
    }

    fn boot(
        &self,
        form: &BootForm,
        base: Option<&BootForm>,
        of: &Known<'_>,
        unattended: bool,
        here: &dyn Fn(&str) -> bool,
    ) -> Result<Boot, String> {
        let form = &base.map_or_else(|| form.clone(), |base| form.over(base));
        let fill = |text: &str| fill(text, &of.captures);
        let files = form.kernel.iter().chain(form.initrd.iter().flatten());
        let files: Vec<String> = files.map(|text| fill(text)).collect();
        // All at once, and not one after the other.
        let lack: Vec<(&str, &str)> = files
            .iter()
            .filter_map(|text| self.parts.get_key_value(text.strip_prefix(PART)?))
            .filter(|(part, _)| !of.parts.contains_key(*part))
            .map(|(part, what)| (part.as_str(), what.as_str()))
            .collect();
        if !lack.is_empty() {
            return Err(self.wants(&lack));
        }
        let start = match (&form.script, &form.kernel) {
            (Some(lines), _) => Start::Script(lines.iter().map(|line| fill(line)).collect()),
            (None, Some(kernel)) => Start::Kernel(self.source(&fill(kernel), of)?),
            (None, None) => return Err(format!("the installer {} boots nothing", self.name)),
        };
        let mut initrds = Vec::new();
        for text in form.initrd.iter().flatten() {
            let (from, name) = match text.rsplit_once(" as ") {
                Some((from, name)) => (from, Some(name.to_string())),
                None => (text.as_str(), None),
            };
            let (from, optional) = match from.strip_suffix('?') {
                Some(from) => (from, true),
                None => (from, false),
            };
            let there = match (from.strip_prefix(ANSWER), from.strip_prefix(PART)) {
                (Some(answer), _) => here(answer),
                (_, Some(part)) => of.parts.contains_key(part),
                _ => of.seen.is_none_or(|tree| tree.has(&fill(from))),
            };
            if there || !optional {
                initrds.push(Initrd { source: self.source(&fill(from), of)?, name });
            }
        }
        let more = form.unattended.as_deref().filter(|_| unattended);
        let args = [form.args.as_deref().unwrap_or(""), more.unwrap_or("")].map(fill);
        Ok(Boot {
            start,
            initrds,
            args: unbroken(&args.join(" ")),
            initrd_args: form.initrd_args.unwrap_or(true),
        })
    }

    fn wants(&self, parts: &[(&str, &str)]) -> String {
        let all: Vec<String> = parts.iter().map(|(p, _)| format!("{p} = \"NAME/path\"")).collect();
        let what: Vec<String> = match parts {
            [(_, what)] => vec![what.to_string()],
            all => all.iter().map(|(part, what)| format!("{part} is {what}")).collect(),
        };
        let wants = format!("wants parts = {{ {} }}: {}", all.join(", "), what.join("; "));
        match self.instead.as_str() {
            "" => format!("{} {wants}", self.name),
            instead => format!("{instead}; or {} {wants}", self.name),
        }
    }

    fn source(&self, text: &str, of: &Known<'_>) -> Result<Source, String> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Source::Url(text.into()));
        }
        if let Some(answer) = text.strip_prefix(ANSWER) {
            return Ok(Source::Answer(answer.into()));
        }
        if let Some(part) = text.strip_prefix(PART) {
            return of.parts.get(part).cloned().ok_or_else(|| {
                let what = self.parts.get(part).map_or("a file of yours", String::as_str);
                self.wants(&[(part, what)])
            });
        }
        // What a rule would have told: somebody named the installer, and the tree is none of its.
        if text.contains('{') && of.seen.is_some() {
            let name = &self.name;
            return Err(format!("the installer {name} finds nothing in it that it knows"));
        }
        let tree = of.tree.as_ref();
        let tree = tree.ok_or_else(|| format!("{} wants a tree of files", self.name))?;
        Ok(beneath(tree, text))
    }
}

/// As [`Template::Of`] has it.
type Theirs = Option<(PathBuf, usize)>;

const ANSWER: &str = "answer:";
const PART: &str = "part:";

/// A release that was recognised, and what its profile says.
pub struct Known<'a> {
    pub captures: Captures,
    /// Where its files are.
    pub tree: Option<Source>,
    pub seen: Option<&'a dyn Tree>,
    /// What the profile names of [`Installer::parts`].
    pub parts: BTreeMap<String, Source>,
    /// Whether it shall ask nothing.
    pub unattended: bool,
    /// Names of answers that the profile has of its own.
    pub own: Vec<&'a str>,
}

/// What a profile of it is.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub memory: Option<u64>,
    pub boot: Boot,
    pub uefi: Option<Boot>,
    /// Arguments that it is given where it shall ask nothing; the boots have them already.
    pub more: String,
    pub answers: Vec<Answer>,
    pub carried: Carried,
    pub release: Release,
}

/// Where in an initrd answers are put: an answer's name, or `*` for all others, to a path, which is a
/// folder where a slash ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Carried(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Carried {
    type Error = String;

    fn try_from(of: BTreeMap<String, String>) -> Result<Carried, String> {
        match of.values().find(|path| !is_inside(path)) {
            None => Ok(Carried(of)),
            Some(path) => Err(format!(
                "`carried` has {path:?}, and wants a path in the initrd like \"/ks.cfg\", or a folder \
                 like \"/tmp/\": letters, digits and ._-"
            )),
        }
    }
}

/// iPXE takes a path up to the first space, and makes the folders on its way.
fn is_inside(path: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    path.starts_with('/') && path.len() <= 200 && path.chars().all(word) && !path.contains("..")
}

impl Carried {
    pub fn place(&self, answer: &str) -> Option<String> {
        let path = self.0.get(answer).or_else(|| self.0.get("*"))?;
        let name = if path.ends_with('/') { answer } else { "" };
        Some(format!("{path}{name}"))
    }

    /// With another's places over these.
    pub fn with(mut self, own: Carried) -> Carried {
        self.0.extend(own.0);
        self
    }
}

impl BootForm {
    fn is_empty(&self) -> bool {
        let BootForm { kernel, initrd, args, unattended, script, initrd_args } = self;
        kernel.is_none()
            && initrd.is_none()
            && args.is_none()
            && unattended.is_none()
            && script.is_none()
            && initrd_args.is_none()
    }

    /// A kernel takes the place of a script, and the other way round.
    fn over(&self, base: &BootForm) -> BootForm {
        let (own, base) = (self.clone(), base.clone());
        let starts = own.kernel.is_some() || own.script.is_some();
        BootForm {
            kernel: own.kernel.or(base.kernel.filter(|_| !starts)),
            script: own.script.or(base.script.filter(|_| !starts)),
            initrd: own.initrd.or(base.initrd),
            args: own.args.or(base.args),
            unattended: own.unattended.or(base.unattended),
            initrd_args: own.initrd_args.or(base.initrd_args),
        }
    }
}

/// The installer that a tree is nearly one of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Nearest {
    pub installer: String,
    /// How many signs agree.
    pub agrees: usize,
    /// The others, each in words.
    pub fails: Vec<String>,
}

impl Rule {
    /// How many of its signs a tree has, and which it has not.
    fn compared(&self, arches: &BTreeMap<String, String>, tree: &dyn Tree) -> (usize, Vec<String>) {
        let (mut agrees, mut fails) = (0, Vec::new());
        let mut sign = |good: bool, why: String| match good {
            true => agrees += 1,
            false => fails.push(why),
        };
        if let Some(pattern) = &self.volume {
            let volume = tree.volume().unwrap_or_default();
            sign(pattern.is_match(&volume), format!("its volume is not named like {pattern}"));
        }
        if let Some(file) = &self.file {
            match tree.text(file) {
                None => sign(false, format!("there is no {file}")),
                // That it is there is a sign only where nothing is looked for in it.
                Some(_) if self.r#match.0.is_empty() => sign(true, String::new()),
                Some(text) => {
                    for pattern in &self.r#match.0 {
                        let why = format!("{file} has nothing like {pattern}");
                        sign(pattern.is_match(&text), why);
                    }
                }
            }
        }
        let of = |path: &str| -> Vec<String> {
            let all = arches.values();
            all.map(|arch| fill(path, &Captures::from([("arch".into(), arch.clone())]))).collect()
        };
        // What has more than the architecture in it is not known before the rest agrees.
        for path in self.has.iter().filter(|p| !p.replace("{arch}", "").contains('{')) {
            let there = tree.has(path) || of(path).iter().any(|path| tree.has(path));
            sign(there, format!("there is no {}", path.replace("{arch}", "ARCH")));
        }
        // That a file is not there is no likeness.
        let lacks = self.lacks.iter().find(|path| tree.has(path));
        if let Some(path) = lacks {
            sign(false, format!("there is a {path}"));
        }
        (agrees, fails)
    }

    /// What it looks for, in words.
    fn signs(&self) -> String {
        let volume = self.volume.as_ref().map(|p| format!("a volume like {p}"));
        let file = self.file.as_ref().map(|file| match self.r#match.0.first() {
            Some(pattern) => format!("{file} like {pattern}"),
            None => file.clone(),
        });
        let all: Vec<String> = volume.into_iter().chain(file).chain(self.has.clone()).collect();
        all.join(" and ")
    }
}

/// A message of several lines in one. Of a pattern's it leaves out the line that points.
fn one_line(message: &str) -> String {
    let points = |line: &&str| !line.is_empty() && line.chars().all(|c| c == '^');
    let lines = message.lines().map(str::trim).filter(|l| !l.is_empty() && !points(l));
    lines.collect::<Vec<_>>().join(" ")
}

/// A path below a tree.
fn beneath(tree: &Source, below: &str) -> Source {
    let join = |path: &str| match (path.is_empty(), below.is_empty()) {
        (true, _) => below.to_string(),
        (_, true) => path.to_string(),
        _ => format!("{path}/{below}"),
    };
    match tree {
        Source::Ours { folder, path } => Source::Ours { folder: folder.clone(), path: join(path) },
        Source::Mirror { mirror, path } => {
            Source::Mirror { mirror: mirror.clone(), path: join(path) }
        }
        Source::Url(url) => Source::Url(join(url)),
        Source::Answer(name) => Source::Answer(name.clone()),
    }
}

/// Puts captures into `{NAME}`; what stands in `{{ }}` is a template's and stays.
fn fill(text: &str, captures: &Captures) -> String {
    let mut text = text.to_string();
    for (name, value) in captures {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}

static INCLUDE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"\{% include "([^"]+)" %\}\n?"#).expect("a pattern of ours; a test uses it")
});

/// How many lines of a template come before what it includes first.
fn before_includes(text: &str) -> usize {
    let first = INCLUDE.find(text);
    first.map_or(usize::MAX, |found| text[..found.start()].matches('\n').count())
}

/// A template with the files that it includes in their places; those include nothing.
fn included(text: &str, texts: &BTreeMap<&str, (PathBuf, &str)>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for found in INCLUDE.captures_iter(text) {
        let (whole, name) = (found.get_match(), &found[1]);
        let Some((_, other)) = texts.get(name) else {
            return Err(format!("it includes {name}, which there is not"));
        };
        out.push_str(&text[end..whole.start()]);
        out.push_str(other);
        end = whole.end();
    }
    out.push_str(&text[end..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made(&'static str, &'static [(&'static str, &'static str)]);

    impl Tree for Made {
        fn volume(&self) -> Option<String> {
            Some(self.0.into())
        }

        fn text(&self, path: &str) -> Option<String> {
            self.1.iter().find(|(p, _)| *p == path).map(|(_, text)| text.to_string())
        }

        fn has(&self, path: &str) -> bool {
            self.1.iter().any(|(p, _)| *p == path || p.starts_with(&format!("{path}/")))
        }

        fn size(&self) -> Option<u64> {
            None
        }
    }

    const OWN: &str = r#"
title = "Own {version} {flavour}"
arches = { x86_64 = "amd64", arm64 = "arm64" }
answers = ["a.txt"]
trees = { more = "more", none = "none" }
parts = { tool = "the tool" }
reads = ["boot.cfg"]

[[recognise]]
volume = '^OWN'
file = "about"
match = ['v(?<version>\d+)', 'f=(?<flavour>\w+)']
has = ["boot/{arch}/linux"]

[boot]
kernel = "boot/{arch}/linux"
initrd = ["boot/initrd as i", "answer:a.txt? as a.txt", "part:other?"]
args = "root={{ tree.url }}"
unattended = "answers={{ answers['a.txt'] }}"

[uefi]
kernel = "part:tool"

[[variant]]
match = '^1$'
boot = { args = "old" }
"#;

    fn own() -> Installers {
        let file = |name: &str, text: &str| (name.to_string(), PathBuf::from(name), text.into());
        let texts = [
            file("own/installer.toml", OWN),
            file("own/a.txt", "a\n{% include \"common/x\" %}\nb\n"),
            file("common/x", "included\n"),
        ];
        Installers::of(&texts).unwrap()
    }

    fn known<'a>(captures: Captures, seen: &'a Made, unattended: bool) -> Known<'a> {
        Known {
            captures,
            tree: Some(Source::Ours { folder: "m".into(), path: String::new() }),
            seen: Some(seen),
            parts: BTreeMap::from([("tool".into(), Source::Url("http://h/tool".into()))]),
            unattended,
            own: Vec::new(),
        }
    }

    #[test]
    fn what_is_carried_has_a_place() {
        let of = |name: &str, path: &str| {
            Carried::try_from(BTreeMap::from([(name.into(), path.into())]))
        };
        let all = of("*", "/tmp/").unwrap().with(of("ks.cfg", "/ks.cfg").unwrap());
        assert_eq!(all.place("late.sh").as_deref(), Some("/tmp/late.sh"));
        assert_eq!(all.place("ks.cfg").as_deref(), Some("/ks.cfg"));
        assert_eq!(of("ks.cfg", "/ks.cfg").unwrap().place("late.sh"), None);
        for bad in ["", "ks.cfg", "/a b", "/a/../b", "/a;b", "/${net0}", &"/a".repeat(101)] {
            assert!(of("*", bad).unwrap_err().contains("wants a path in the initrd"), "{bad}");
        }
    }

    #[test]
    fn a_tree_is_recognised_and_planned() {
        let all = own();
        let files =
            [("about", "v2 f=big"), ("boot/arm64/linux", ""), ("more/x", ""), ("boot.cfg", "b")];
        let tree = Made("OWN 2", Box::leak(Box::new(files)));
        let (one, captures) = all.recognise(&tree).unwrap();
        assert_eq!((one.name.as_str(), captures["version"].as_str()), ("own", "2"));
        let plan = one.plan(&known(captures.clone(), &tree, false)).unwrap();
        assert_eq!((plan.release.title.as_str(), plan.release.arch), ("Own 2 big", "arm64"));
        let kernel = Source::Ours { folder: "m".into(), path: "boot/arm64/linux".into() };
        assert_eq!(plan.boot.kernel(), Some(&kernel));
        assert_eq!(plan.boot.args, "root={{ tree.url }}");
        assert_eq!(plan.boot.initrds.len(), 1, "nobody asked for its answer");
        assert_eq!(plan.uefi.unwrap().kernel(), Some(&Source::Url("http://h/tool".into())));
        assert_eq!(plan.release.trees.keys().collect::<Vec<_>>(), ["more"], "what is there");
        assert_eq!(plan.release.files["boot.cfg"], "b");
        let plan = one.plan(&known(captures.clone(), &tree, true)).unwrap();
        assert_eq!(plan.boot.args, "root={{ tree.url }} answers={{ answers['a.txt'] }}");
        assert_eq!(plan.boot.initrds[1].source, Source::Answer("a.txt".into()));
        let Template::Of { name, text, own } = &plan.answers[0].template else { panic!() };
        assert_eq!(own.as_ref().map(|(_, lines)| *lines), Some(1), "the second line is an include");
        assert_eq!((name.as_str(), &**text), ("own/a.txt", "a\nincluded\nb\n"));
        let mut without = known(captures, &tree, true);
        without.parts.clear();
        let said = one.plan(&without).unwrap_err();
        assert_eq!(said, "own wants parts = { tool = \"NAME/path\" }: the tool");
        // All that is missing, after what does without.
        let debian = Installers::builtin().get("debian").unwrap();
        let set = [("LINUX", "part:linux"), ("INITRD", "part:initrd"), ("version", "13")];
        let set = set.map(|(name, text)| (name.to_string(), text.to_string()));
        let mut lone = known(Captures::from(set), &tree, false);
        lone.parts.clear();
        let said = debian.plan(&lone).unwrap_err();
        let parts =
            "debian wants parts = { linux = \"NAME/path\", initrd = \"NAME/path\" }: linux is";
        let lay = "iso = [\"netinst.iso\", \"mini.iso\"]; or ";
        assert!(said.contains(&format!("{lay}{parts}")) && said.contains("; initrd is"), "{said}");
        let old = known(
            Captures::from([("version".into(), "1".into()), ("arch".into(), "amd64".into())]),
            &tree,
            false,
        );
        assert_eq!(one.plan(&old).unwrap().boot.args, "old");
        for not in [
            Made("OTHER", &[("about", "v2 f=big"), ("boot/amd64/linux", "")]),
            Made("OWN", &[("about", "v2 f=big"), ("boot/riscv/linux", "")]),
            Made("OWN", &[("about", "f=big"), ("boot/amd64/linux", "")]),
            Made("OWN", &[("boot/amd64/linux", "")]),
        ] {
            assert!(one.recognise(&not).is_none(), "{:?}", not.1);
        }
    }

    #[test]
    fn the_nearest_is_told_with_what_it_has_not() {
        let all = own();
        let tree = Made("OWN 2", &[("about", "v2"), ("boot/arm64/linux", "")]);
        let near = all.nearest(&tree).unwrap();
        assert_eq!((near.installer.as_str(), near.agrees), ("own", 3));
        assert_eq!(near.fails, [r"about has nothing like f=(?<flavour>\w+)"]);
        assert!(all.nearest(&Made("X", &[("hello", "")])).is_none());
    }

    #[test]
    fn what_is_wrong_says_where() {
        let wrong = |file: &str, text: &str| {
            let path = PathBuf::from(format!("/own/{file}"));
            let all = Installers::of(&[(file.into(), path, text.into())]).unwrap_err();
            all.into_iter().map(|w| (w.line, w.message)).collect::<Vec<_>>()
        };
        let said = wrong("x/installer.toml", "title = \"x\"\nkernl = 1\n[boot]\n");
        assert!(said[0].0 == 2 && said[0].1.contains("unknown field `kernl`"), "{said:?}");
        let said =
            wrong("x/installer.toml", "title = \"x\"\n[boot]\n[[recognise]]\nvolume = '('\n");
        assert_eq!(said[0], (4, "regex parse error: ( error: unclosed group".to_string()));
        let said = wrong(
            "x/installer.toml",
            "title = \"x\"\n[boot]\n[[recognise]]\nvolume = '\\w{999}{999}'\n",
        );
        assert!(said[0].1.starts_with(r"the pattern \w{999}{999}: "), "{said:?}");
        let said = wrong("x/installer.toml", "title = \"x\"\nanswers = [\"y\"]\n[boot]\n");
        assert_eq!(said[0].1, "`answers` names y, and no such file is beside");
        let said = wrong("x/ks.cfg", "text");
        assert_eq!(said[0].1, "the folder x has no installer.toml, and is none of ours");
    }

    #[test]
    fn ours_are_read() {
        let mut patterns = Installers::builtin().iter().flat_map(Installer::patterns);
        assert!(patterns.all(|p| p.made().is_ok()));
        assert_eq!(
            Installers::builtin().iter().count(),
            FILES.iter().filter(|(n, _)| n.ends_with(FILE)).count()
        );
    }
}
