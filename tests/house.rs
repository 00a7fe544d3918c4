//! The two rules of the house: arrows point down, and the core touches nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Floor of each module; a module names only modules on lower floors.
const FLOORS: &[(&str, u32)] = &[
    ("model", 0),
    ("store", 1),
    ("boot", 1),
    ("ipxe", 1),
    ("config", 1),
    ("ledger", 2),
    ("dhcp", 3),
    ("tftp", 3),
    ("radv", 3),
    ("media", 3),
    ("mirror", 3),
    ("tls", 3),
    ("power", 3),
    ("hook", 3),
    ("import", 3),
    ("http", 4),
    ("rehearse", 4),
    ("app", 5),
    ("cli", 6),
];

/// Neighbours on floor 1 that are data to the others: what a machine boots is decided from the
/// configuration, and loaders are found by it.
const FOUNDATIONS: &[(&str, &str)] = &[("boot", "config"), ("ipxe", "config")];

fn sources(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
}

fn all() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
            let module = first.trim_end_matches(".rs").to_string();
            let text = fs::read_to_string(&path).unwrap();
            (module, path, text)
        })
        .collect()
}

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(m, _)| *m == module).map(|(_, f)| *f)
}

/// A file's text without its tests and comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !matches!(line.trim(), "#[cfg(test)]" | "#![cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(i, line)| (i + 1, line))
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (module, path, text) in all() {
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let own = floor(&module).unwrap_or_else(|| panic!("{module} stands on no floor"));
        for (line, text) in code(&text) {
            for part in text.split("crate::").skip(1) {
                let named: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(theirs) = floor(&named) else { continue };
                seen += 1;
                let allowed = named == module
                    || theirs < own
                    || FOUNDATIONS.contains(&(module.as_str(), named.as_str()));
                if !allowed {
                    wrong.push(format!("{}:{line}: {module} names {named}", path.display()));
                }
            }
        }
    }
    assert!(seen > 10, "the test reads nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn decisions_touch_nothing() {
    const SHELLS: &[&str] = &["serve.rs", "fetch.rs", "disk.rs", "app.rs", "cli.rs", "main.rs"];
    const WORDS: &[&str] = &[
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "UdpSocket::",
        "TcpStream::",
        "File::open",
        "fs::read",
        "fs::write",
        "getrandom",
    ];
    let mut wrong = Vec::new();
    for (_, path, text) in all() {
        let name = path.file_name().unwrap().to_string_lossy().to_string();
        let shell = SHELLS.contains(&name.as_str())
            || path.components().any(|c| {
                matches!(c.as_os_str().to_str(), Some("store" | "http" | "app" | "cli" | "serve"))
            });
        if shell {
            continue;
        }
        for (line, text) in code(&text) {
            if let Some(word) = WORDS.iter().find(|w| text.contains(**w)) {
                wrong.push(format!("{}:{line}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "only shells touch the world:\n{}", wrong.join("\n"));
}
