//! What can be booted straight from public mirrors: data in `assets/catalog/`, a file a
//! distribution, compiled in.
//!
//! 1. Each file is read: its mirrors, its entries, and what all of its entries share.
//! 2. Each entry becomes one [`Entry`] an architecture, with `{arch}` and `{suite}` filled in; what
//!    stands in `{{ }}` is the profile's template and stays.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{Mirror, Verify};
use crate::model::Digest;
use crate::model::firmware::Cpu;

/// In the order of the list.
pub const FILES: [(&str, &str); 13] = [
    ("debian", include_str!("../../assets/catalog/debian.toml")),
    ("ubuntu", include_str!("../../assets/catalog/ubuntu.toml")),
    ("centos-stream", include_str!("../../assets/catalog/centos-stream.toml")),
    ("centos-vault", include_str!("../../assets/catalog/centos-vault.toml")),
    ("rocky", include_str!("../../assets/catalog/rocky.toml")),
    ("almalinux", include_str!("../../assets/catalog/almalinux.toml")),
    ("fedora", include_str!("../../assets/catalog/fedora.toml")),
    ("opensuse", include_str!("../../assets/catalog/opensuse.toml")),
    ("opensuse-arm64", include_str!("../../assets/catalog/opensuse-arm64.toml")),
    ("alpine", include_str!("../../assets/catalog/alpine.toml")),
    ("arch", include_str!("../../assets/catalog/arch.toml")),
    ("coreos", include_str!("../../assets/catalog/coreos.toml")),
    ("flatcar", include_str!("../../assets/catalog/flatcar.toml")),
];

/// Our words for architectures, the first of which needs no mention in a name.
const ARCHES: [&str; 2] = ["x86_64", "arm64"];

/// What `install` can name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// `debian-12`, `debian-12-arm64`.
    pub name: String,
    pub title: String,
    /// `x86_64` or `arm64`.
    pub arch: &'static str,
    /// Names of the mirrors that it needs.
    pub mirrors: Vec<String>,
    /// `MIRROR/path`, as a profile's.
    pub kernel: String,
    pub initrd: Vec<String>,
    /// A template, as a profile's.
    pub args: String,
    /// What a user must know; may be empty.
    pub note: String,
    /// Whose answers it takes, the version that it is to it, and its trees: `MIRROR` or
    /// `MIRROR/path`. Empty where there is none.
    pub installer: String,
    pub version: String,
    pub tree: String,
    pub trees: BTreeMap<String, String>,
    /// The distribution's word for `arch`.
    pub theirs: String,
}

/// A mirror that needs no `[[mirror]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    pub name: String,
    pub urls: Vec<String>,
    #[serde(default)]
    pub verify: Verify,
    /// Where distributions keep its keys: those that are there are taken.
    #[serde(default)]
    pub keys: Vec<PathBuf>,
    /// What brings them.
    #[serde(default)]
    pub package: String,
    /// Digests of files that no list of the mirror's has.
    #[serde(default)]
    pub pin: BTreeMap<String, Digest>,
}

#[derive(Default, Serialize)]
pub struct Catalog {
    pub entries: Vec<Entry>,
    pub mirrors: Vec<Known>,
}

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    let mut all = Catalog::default();
    for (_, text) in FILES {
        // A test parses each of them.
        all.extend(toml::from_str(text).expect("compiled in; a test parses each of them"));
    }
    all
});

pub fn all() -> &'static Catalog {
    &CATALOG
}

pub fn entry(name: &str) -> Option<&'static Entry> {
    CATALOG.entries.iter().find(|e| e.name == name)
}

pub fn mirror(name: &str) -> Option<&'static Known> {
    CATALOG.mirrors.iter().find(|m| m.name == name)
}

/// The first that comes from this mirror.
pub fn entry_with(mirror: &str) -> Option<&'static Entry> {
    CATALOG.entries.iter().find(|e| e.mirrors.iter().any(|m| m == mirror))
}

impl Entry {
    /// Whether that processor's firmware can start its kernel. BIOS and 32-bit UEFI say nothing of
    /// what the processor can do beyond that.
    pub fn runs_on(&self, cpu: Cpu) -> bool {
        runs_on(self.arch, cpu)
    }

    /// The same release for that processor.
    pub fn built_for(&self, cpu: Cpu) -> Option<&'static Entry> {
        CATALOG.entries.iter().find(|e| e.release() == self.release() && e.runs_on(cpu))
    }

    /// Its name without the architecture.
    fn release(&self) -> &str {
        let bare = self.name.strip_suffix(self.arch).and_then(|name| name.strip_suffix('-'));
        bare.unwrap_or(&self.name)
    }
}

/// Whether a processor's firmware can start a kernel of our word `arch`.
pub fn runs_on(arch: &str, cpu: Cpu) -> bool {
    match cpu {
        Cpu::X86 | Cpu::X64 => arch == ARCHES[0],
        Cpu::Arm64 => arch == ARCHES[1],
        Cpu::Arm32 | Cpu::Riscv64 | Cpu::Loong64 => false,
    }
}

impl Known {
    /// As if it had been declared, with all the places where keys may be.
    pub fn declared(&self) -> Mirror {
        Mirror {
            name: self.name.clone(),
            urls: self.urls.clone(),
            verify: self.verify,
            keys: self.keys.clone(),
            redirects: Vec::new(),
            pins: self.pin.clone(),
            private: false,
            connections: super::mirrors::CONNECTIONS.0,
        }
    }
}

/// A file as written. What stands at its top is meant for every entry that has none of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Our word for an architecture to the distribution's.
    arches: BTreeMap<String, String>,
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    kernel: String,
    #[serde(default)]
    initrd: Vec<String>,
    #[serde(default)]
    args: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    installer: String,
    #[serde(default)]
    tree: String,
    #[serde(default)]
    trees: BTreeMap<String, String>,
    mirror: Vec<Known>,
    entry: Vec<Release>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    name: String,
    title: String,
    #[serde(default)]
    suite: String,
    mirrors: Option<Vec<String>>,
    kernel: Option<String>,
    initrd: Option<Vec<String>>,
    args: Option<String>,
    note: Option<String>,
    installer: Option<String>,
    #[serde(default)]
    version: String,
    tree: Option<String>,
    trees: Option<BTreeMap<String, String>>,
}

impl Catalog {
    fn extend(&mut self, file: File) {
        for release in &file.entry {
            for arch in ARCHES {
                self.entries
                    .extend(file.arches.get(arch).map(|a| entry_of(&file, release, arch, a)));
            }
        }
        self.mirrors.extend(file.mirror);
    }
}

fn entry_of(file: &File, release: &Release, arch: &'static str, theirs: &str) -> Entry {
    let fill = |text: &String| text.replace("{arch}", theirs).replace("{suite}", &release.suite);
    let all = |texts: &Vec<String>| texts.iter().map(fill).collect();
    let (name, title) = match arch == ARCHES[0] {
        true => (release.name.clone(), release.title.clone()),
        false => (format!("{}-{arch}", release.name), format!("{}, {arch}", release.title)),
    };
    Entry {
        name,
        title,
        arch,
        mirrors: all(release.mirrors.as_ref().unwrap_or(&file.mirrors)),
        kernel: fill(release.kernel.as_ref().unwrap_or(&file.kernel)),
        initrd: all(release.initrd.as_ref().unwrap_or(&file.initrd)),
        args: fill(release.args.as_ref().unwrap_or(&file.args)),
        note: release.note.clone().unwrap_or(file.note.clone()),
        installer: release.installer.clone().unwrap_or(file.installer.clone()),
        version: release.version.clone(),
        tree: fill(release.tree.as_ref().unwrap_or(&file.tree)),
        trees: release
            .trees
            .as_ref()
            .unwrap_or(&file.trees)
            .iter()
            .map(|(name, tree)| (name.clone(), fill(tree)))
            .collect(),
        theirs: theirs.into(),
    }
}
