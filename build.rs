//! Embeds the iPXE loaders: every `*.kpxe *.kkpxe *.pxe *.efi` of `.cache/loaders` (or of the
//! folder that `PILOTLIGHT_LOADERS` names) with its SHA-256, and the line in `VERSION` that says
//! what they are.
//!
//! Loaders are never in git; `scripts/` brings them. Without them the build works and says so: the
//! program then names each loader it lacks.
//!
//! Embeds the texts of `assets/installers/`.
//!
//! Embeds htmx and its extension for server-sent events from `.cache/htmx` (or the folder that
//! `PILOTLIGHT_HTMX` names), too, brought by `scripts/htmx`; all of it or nothing.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use sha2::{Digest, Sha256};

/// A loader beyond this size is not one: the largest is about 1.5 MiB.
const LIMIT: u64 = 16 << 20;

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PILOTLIGHT_LOADERS");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?);
    let dir = env::var_os("PILOTLIGHT_LOADERS")
        .map(PathBuf::from)
        .unwrap_or_else(|| root.join(".cache/loaders"));
    // A folder that is not there counts as changed at every build, which is right: it may come.
    println!("cargo::rerun-if-changed={}", dir.display());

    installers(&root)?;
    htmx(&root)?;
    let loaders = loaders(&dir)?;
    let version = fs::read_to_string(dir.join("VERSION")).unwrap_or_default();
    let version = version.lines().next().unwrap_or("").trim();
    if loaders.is_empty() {
        println!(
            "cargo::warning=no iPXE loaders in {}: this build can boot no machine unless \
             [ipxe] dir names a folder that holds them",
            dir.display()
        );
    } else if version.is_empty() {
        println!("cargo::warning={} has no VERSION line: HTTPS is taken as missing", dir.display());
    }

    let mut out = format!("pub static VERSION: &str = {version:?};\n");
    writeln!(out, "pub static LOADERS: &[Embedded] = &[").map_err(io::Error::other)?;
    for path in loaders {
        println!("cargo::rerun-if-changed={}", path.display());
        let digest: [u8; 32] = Sha256::digest(fs::read(&path)?).into();
        let name = path.file_name().unwrap_or_default();
        writeln!(
            out,
            "    Embedded {{ name: {name:?}, bytes: include_bytes!({path:?}), sha256: {digest:?} }},"
        )
        .map_err(io::Error::other)?;
    }
    out.push_str("];\n");
    let to = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("loaders.rs");
    fs::write(to, out)
}

/// The texts of `assets/installers/`: `NAME/FILE`.
fn installers(root: &Path) -> io::Result<()> {
    let dir = root.join("assets/installers");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut out = String::from("static FILES: &[(&str, &str)] = &[\n");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(&dir)?.map(|e| Ok(e?.path())).collect::<io::Result<_>>()?;
    folders.sort();
    for folder in folders.iter().filter(|f| f.is_dir()) {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<io::Result<_>>()?;
        files.sort();
        for file in files {
            println!("cargo::rerun-if-changed={}", file.display());
            let name = file.strip_prefix(&dir).map_err(io::Error::other)?;
            writeln!(out, "    ({name:?}, include_str!({file:?})),").map_err(io::Error::other)?;
        }
    }
    out.push_str("];\n");
    let to = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("installers.rs");
    fs::write(to, out)
}

/// What the dashboard's pages move by, in the order in which they load it.
const SCRIPTS: [&str; 2] = ["htmx.min.js", "hx-sse.min.js"];

fn htmx(root: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=PILOTLIGHT_HTMX");
    let dir = env::var_os("PILOTLIGHT_HTMX")
        .map(PathBuf::from)
        .unwrap_or_else(|| root.join(".cache/htmx"));
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut out = String::from("pub static SCRIPTS: &[(&str, &[u8])] = &[\n");
    let all = SCRIPTS.map(|name| fs::canonicalize(dir.join(name)));
    let there = all.iter().flatten().count() == SCRIPTS.len();
    if !there {
        println!(
            "cargo::warning=no htmx in {}: the dashboard's pages do not move by themselves \
             (scripts/htmx brings it)",
            dir.display()
        );
    }
    for (name, path) in SCRIPTS.iter().zip(&all).filter(|_| there) {
        if let Ok(path) = path {
            println!("cargo::rerun-if-changed={}", path.display());
            writeln!(out, "    ({name:?}, include_bytes!({path:?})),").map_err(io::Error::other)?;
        }
    }
    out.push_str("];\n");
    let to = PathBuf::from(env::var("OUT_DIR").map_err(io::Error::other)?).join("htmx.rs");
    fs::write(to, out)
}

/// The loaders of a folder, by name; none where there is no such folder.
fn loaders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok(all) };
    for entry in entries {
        let path = entry?.path();
        let is_loader = path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| matches!(e, "kpxe" | "kkpxe" | "pxe" | "efi"));
        if is_loader && fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= LIMIT) {
            all.push(fs::canonicalize(path)?);
        }
    }
    all.sort();
    Ok(all)
}
