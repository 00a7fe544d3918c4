//! What a machine is booted into.

use std::path::PathBuf;

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

/// An answer file: kickstart, preseed, user-data, anything; a tera template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The last part of its URL, and its name in `{{ answers.NAME }}`.
    pub name: String,
    pub template: PathBuf,
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
    /// The file and line it was declared at, for errors: `pilotlight.toml:12`.
    pub at: String,
}
