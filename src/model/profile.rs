//! What a machine is booted into.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Secret;

/// Where a kernel or an initrd comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An answer of this boot, by its name: what is made for one machine, and read by its loader.
    Answer(String),
    /// A file in one of our folders: `[[files]]` name and the path below it.
    Ours { folder: String, path: String },
    /// A file of a public mirror, through our cache: `[[mirror]]` name and the path below it.
    Mirror { mirror: String, path: String },
    /// Somebody else's URL, handed to iPXE as it is.
    Url(String),
}

/// Whether a profile is booted once or each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It installs: once, until its system reports; then the machine boots its own disk.
    #[default]
    Install,
    /// It runs from the network at each start: a rescue system, a memory test, a diskless machine.
    Live,
}

/// What a firmware is given to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Boot {
    pub start: Start,
    pub initrds: Vec<Initrd>,
    /// The kernel's arguments, a tera template on one line.
    pub args: String,
    /// Whether `initrd=NAME` is put behind them for each of `initrds`: Linux finds them by that under
    /// UEFI, and others take it for an argument of their own.
    pub initrd_args: bool,
}

/// How a boot starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    Kernel(Source),
    /// Commands of iPXE, each a tera template on one line.
    Script(Vec<String>),
}

/// One of the files that are loaded beside a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initrd {
    pub source: Source,
    /// What it is called where the file's own name will not do: wimboot knows its files by name.
    pub name: Option<String>,
}

impl From<Source> for Initrd {
    fn from(source: Source) -> Initrd {
        Initrd { source, name: None }
    }
}

/// Arguments that were written on several lines to keep these short.
pub fn unbroken(args: &str) -> String {
    args.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Boot {
    /// A Linux kernel with its initrds and arguments.
    pub fn linux(kernel: Source, initrds: Vec<Source>, args: &str) -> Boot {
        Boot {
            start: Start::Kernel(kernel),
            initrds: initrds.into_iter().map(Initrd::from).collect(),
            args: unbroken(args),
            initrd_args: true,
        }
    }

    /// Whether it starts a kernel that takes files in its initrd.
    pub fn is_linux(&self) -> bool {
        self.initrd_args && self.kernel().is_some()
    }

    pub fn kernel(&self) -> Option<&Source> {
        match &self.start {
            Start::Kernel(source) => Some(source),
            Start::Script(_) => None,
        }
    }

    /// All the files that it loads: the kernel, then the rest.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.kernel().into_iter().chain(self.initrds.iter().map(|i| &i.source))
    }
}

/// The system that a profile boots, as an installer knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The folder in `assets/installers/`.
    pub installer: String,
    pub title: String,
    pub version: String,
    /// Our word: `x86_64`, `arm64`.
    pub arch: &'static str,
    /// What it was recognised by, `version` and `arch` (the distribution's word) among them.
    pub captures: BTreeMap<String, String>,
    /// Where its files are; [`Source::Url`] never. The path may be empty.
    pub tree: Option<Source>,
    /// Further trees, by name.
    pub trees: BTreeMap<String, Source>,
    /// Texts out of the tree that a template reads, by path.
    pub files: BTreeMap<String, String>,
    /// Files of the user's that the installer wants.
    pub parts: BTreeMap<String, Source>,
    /// Whether it shall ask nothing.
    pub unattended: bool,
    /// Whether BIOS alone can start it, whatever the machine's processor.
    pub bios_only: bool,
    /// Whether it fetches answers where nothing can tell it of a CA of ours.
    pub knows_no_ca: bool,
    /// What its installer wants to be known beforehand, a sentence or more; may be empty.
    pub note: String,
}

/// An answer file: kickstart, preseed, user-data, anything; a tera template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The last part of its URL, and its name in `{{ answers.NAME }}`.
    pub name: String,
    pub template: Template,
    /// Whether its lines end with CR LF, as cmd.exe wants them.
    pub crlf: bool,
    /// Where iPXE puts it in the initrd when TLS is on: most installers know no CA of ours.
    pub carried: Option<String>,
}

/// Where an answer's template is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// The user's own; read for each answer.
    File(PathBuf),
    /// An installer's, `INSTALLER/FILE`; where that is the user's, its path, and how many lines are as
    /// they stand in it: those behind an include are not.
    Of { name: String, text: Arc<str>, own: Option<(PathBuf, usize)> },
}

impl Template {
    pub fn is_builtin(&self) -> bool {
        matches!(self, Template::Of { .. })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Template::File(path) => path.display().fmt(f),
            Template::Of { name, .. } => f.write_str(name),
        }
    }
}

/// A `[[profile]]` of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub name: String,
    /// What the menu shows; the name where it is not given.
    pub title: String,
    /// Whether the menu of unknown machines offers it. A profile with answer files is offered only
    /// if the configuration says so: whoever can reach the menu can read what it hands out.
    pub menu: bool,
    /// Why it cannot be booted now: its medium is away, or not what it should be.
    pub unready: Option<String>,
    /// For BIOS, and for UEFI where that has none of its own.
    pub boot: Boot,
    pub uefi: Option<Boot>,
    pub answers: Vec<Answer>,
    /// `ttyS0,115200` and the like: becomes `console=` arguments, and the script's words go there
    /// too where iPXE has a serial console.
    pub console: Option<String>,
    /// Values of the user's own for the templates; a machine's `vars` win over these.
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// Seen by answer templates alone, as `secrets.NAME`.
    pub secrets: BTreeMap<String, Secret>,
    pub kind: Kind,
    /// What it is known to boot.
    pub release: Option<Release>,
    /// What `[profile.settings]` says, checked; `None` where it asks its questions on the screen.
    pub settings: Option<serde_json::Map<String, serde_json::Value>>,
    /// Memory in MiB that a machine needs for it, as far as is known.
    pub memory: Option<u64>,
    /// How long an installation may take until it reports; `[life] timeout` where it is not given.
    pub timeout: Option<Duration>,
    /// Attempts until the machine is held; `[life] attempts` where it is not given.
    pub attempts: Option<u32>,
    /// Whether its answers go by plain HTTP though TLS is on, since it could not read them else.
    pub plain_answers: bool,
    /// The file and line it was declared at, for errors: `pilotlight.toml:12`.
    pub at: String,
}

impl Profile {
    /// What that firmware is given.
    pub fn boot(&self, uefi: bool) -> &Boot {
        self.uefi.as_ref().filter(|_| uefi).unwrap_or(&self.boot)
    }

    /// Whether no UEFI can start it.
    pub fn is_bios_only(&self) -> bool {
        self.release.as_ref().is_some_and(|r| r.bios_only)
    }

    pub fn boots(&self) -> impl Iterator<Item = &Boot> {
        std::iter::once(&self.boot).chain(&self.uefi)
    }

    /// All the files that it loads, for any firmware.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.boots().flat_map(Boot::sources)
    }
}
