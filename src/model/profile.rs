//! What a machine is booted into.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// Where a kernel or an initrd comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
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

/// An answer file: kickstart, preseed, user-data, anything; a tera template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The last part of its URL, and its name in `{{ answers.NAME }}`.
    pub name: String,
    pub template: Template,
}

/// Where an answer's template is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// The user's own; read for each answer.
    File(PathBuf),
    /// One of those that are compiled in.
    Builtin { name: &'static str, text: &'static str },
}

impl Template {
    pub fn is_builtin(&self) -> bool {
        matches!(self, Template::Builtin { .. })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Template::File(path) => path.display().fmt(f),
            Template::Builtin { name, .. } => write!(f, "builtin:{name}"),
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
    pub kernel: Source,
    pub initrds: Vec<Source>,
    /// The kernel's arguments, a tera template on one line.
    pub args: String,
    pub answers: Vec<Answer>,
    /// `ttyS0,115200` and the like: becomes `console=` arguments, and the script's words go there
    /// too where iPXE has a serial console.
    pub console: Option<String>,
    /// Values of the user's own for the templates; a machine's `vars` win over these.
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// Seen by answer templates alone, as `secrets.NAME`.
    pub secrets: BTreeMap<String, Secret>,
    pub kind: Kind,
    /// How long an installation may take until it reports; `[life] timeout` where it is not given.
    pub timeout: Option<Duration>,
    /// Attempts until the machine is held; `[life] attempts` where it is not given.
    pub attempts: Option<u32>,
    /// The file and line it was declared at, for errors: `pilotlight.toml:12`.
    pub at: String,
}
