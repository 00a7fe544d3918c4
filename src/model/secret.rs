//! Secrets of the configuration: named by a file or a variable of the environment, or written there.

use std::fmt;
use std::path::PathBuf;

/// Where a secret comes from. Read when it is needed, so that a file that changes counts at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// What the file holds, without the line break at its end.
    File(PathBuf),
    /// A variable of the server's environment.
    Env(String),
    /// Written in the configuration itself.
    Literal(Hidden),
}

/// A text that no log, no error and no page shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    pub fn new(text: impl Into<String>) -> Hidden {
        Hidden(text.into())
    }

    /// The text itself; for nothing that is kept or shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
