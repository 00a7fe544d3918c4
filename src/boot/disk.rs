//! Reads the users' templates.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The largest template; an installer's answers have some tens of kilobytes.
const LIMIT: u64 = 1 << 20;

/// The text of a template.
///
/// # Errors
/// What the system says; `InvalidData` for what is too large or not UTF-8.
pub fn read_template(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB"));
    }
    Ok(text)
}
