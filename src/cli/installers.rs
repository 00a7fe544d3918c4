//! `pilotlight installers`: which systems are known as data, what of them is the user's own, and a
//! copy of ours to change.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure};
use serde_json::json;

use super::ask::{lines, table};
use super::{ConfigFile, output, remind};
use crate::app;
use crate::config::installers::about::{self, About, Boots, From, Part};
use crate::config::{Config, nearest};
use crate::model::event::plain;

/// Where a copy goes unless it is said otherwise.
const HERE: &str = "installers";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight installers list
  pilotlight installers show centos-7
      How it is recognised, what it boots, and where each of its files is from.
  pilotlight installers export centos-7/ks.cfg
      Writes installers/centos-7/ks.cfg, and says which lines make it count.

What an image is, is told by `pilotlight import IMAGE`. docs/installers.md shows
how one of your own is written.")]
pub struct Installers {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the installers there are, and what of each is your own
    #[command(after_help = "\
Examples:
  pilotlight installers list
  pilotlight installers list --config pilotlight.toml
      With those of its [installers] dir.
  pilotlight installers list --json | jq -r '.[].name'")]
    List(How),
    /// Show how one is recognised, what it boots, and where each of its files is from
    #[command(after_help = "\
Examples:
  pilotlight installers show centos-7
  pilotlight installers show centos-7 --config pilotlight.toml
      With what your [installers] dir has in the place of ours.
  pilotlight installers show windows --json | jq .parts")]
    Show {
        /// Its name
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Write a copy of one of ours, or of one file of it, for you to change
    #[command(after_help = "\
Examples:
  pilotlight installers export centos-7/ks.cfg
      This file alone, as installers/centos-7/ks.cfg; the others stay ours.
  pilotlight installers export centos-7 /etc/pilotlight/installers
      All its files. What you do not change is better deleted: a copy stays as
      it is when pilotlight is updated.
  pilotlight installers export common/disks.sh
      What the templates of several installers include.

Nothing is written over without --force, and nothing is written outside the
folder.")]
    Export {
        /// An installer, or NAME/FILE for one file of it
        #[arg(value_name = "NAME[/FILE]")]
        what: String,
        /// Where to [default: [installers] dir of --config, or else installers]
        dir: Option<PathBuf>,
        /// Write over files that are there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
}

#[derive(clap::Args)]
struct How {
    #[command(flatten)]
    file: ConfigFile,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

pub fn run(installers: &Installers) -> anyhow::Result<()> {
    let said = match &installers.command {
        Command::List(how) => list(how)?,
        Command::Show { name, how } => show(name, how)?,
        Command::Export { what, dir, force, how } => export(what, dir.as_deref(), *force, how)?,
    };
    Ok(output::print(&said)?)
}

fn config(how: &How) -> anyhow::Result<Config> {
    remind(how.file.config.as_deref());
    app::configuration(&app::Options { config: how.file.config.clone(), ..app::Options::default() })
}

fn list(how: &How) -> anyhow::Result<String> {
    let config = config(how)?;
    let all = &config.installers;
    let own = |name: &str| -> Vec<&str> {
        let own = all.parts(name).into_iter().filter(|part| part.from != From::Ours);
        own.map(|part| part.name).collect()
    };
    if how.json {
        let line = |about: About| json!({ "name": about.name, "title": about.title, "kind": about.kind, "own": own(&about.name) });
        return Ok(json!(all.iter().map(|one| line(one.about())).collect::<Vec<_>>()).to_string());
    }
    let ours = about::folders();
    let mut table = table(&["name", "title", "kind", "your own"], 1);
    for about in all.iter().map(|one| one.about()) {
        let own = match ours.contains(&&*about.name) {
            true => own(&about.name).join(", "),
            false => "all of it".to_string(),
        };
        table.add_row([about.name.as_str(), &about.title, about.kind, &own]);
    }
    let mut said = lines(&table);
    let common: Vec<&str> = all.own_common().iter().map(|part| part.name).collect();
    if !common.is_empty() {
        said.push('\n');
        said += &output::wrap("Your own of common/, for all that include it: ", &common.join(", "));
    }
    said += "\nThe image tells what is in capitals. `pilotlight installers show NAME` has more.\n";
    Ok(said)
}

/// Why there is no such name, with the nearest.
fn unknown<'n>(name: &str, all: impl IntoIterator<Item = &'n str>) -> anyhow::Error {
    let near = nearest(name, all).map(|near| format!("did you mean {near}? ")).unwrap_or_default();
    anyhow!(
        "there is no installer {:?}: {near}`pilotlight installers list` shows them",
        plain(name, 80)
    )
}

fn show(name: &str, how: &How) -> anyhow::Result<String> {
    let config = config(how)?;
    let all = &config.installers;
    let one = all.get(name).ok_or_else(|| unknown(name, all.iter().map(|i| i.name.as_str())))?;
    let (about, parts) = (one.about(), all.parts(name));
    if how.json {
        let mut said = json!(about);
        said["files"] = json!(parts);
        return Ok(said.to_string());
    }
    Ok(described(&about) + &files(&about.name, &parts))
}

fn described(about: &About) -> String {
    let mut said = output::wrap(&format!("{}: ", about.name), &about.title) + "\n";
    let mut field = |name: &str, text: &str| {
        if !text.is_empty() {
            said += &output::wrap(&format!("  {name:<11}"), text);
        }
    };
    field(
        "kind",
        match about.kind {
            "live" => "live: it runs from the network at each start, and installs nothing",
            _ => "install",
        },
    );
    let arch = |(ours, theirs): (&String, &String)| match ours == theirs {
        true => ours.clone(),
        false => format!("{ours} ({theirs})"),
    };
    field("arches", &about.arches.iter().map(arch).collect::<Vec<_>>().join(", "));
    if about.bios_only {
        field("by UEFI", "cannot boot");
    }
    let image = if about.loads_image { ", and the size of its image besides" } else { "" };
    if let Some(memory) = about.memory {
        field("memory", &format!("{memory} MiB at the least{image}"));
    }
    match &about.told_by[..] {
        [] => field("told by", "nothing: it needs no image, and a profile names it"),
        all => {
            for (n, rule) in all.iter().enumerate() {
                field(if n == 0 { "told by" } else { "or by" }, rule);
            }
        }
    }
    of_boot(&mut field, "boots", &about.boot);
    of_boot(&mut field, "by UEFI", &about.uefi);
    field("answers", &about.answers.join(", "));
    for (name, what) in &about.parts {
        field("you bring", &format!("{name}: {what}"));
    }
    field("or instead", &about.instead);
    for (pattern, keys) in &about.variants {
        field("versions", &format!("like {pattern}: other {}", keys.join(", ")));
    }
    field("note", &about.note);
    said
}

fn of_boot(field: &mut impl FnMut(&str, &str), name: &str, boot: &Boots) {
    let Boots { kernel, initrd, args, unattended, script } = boot;
    let all: Vec<&str> =
        kernel.as_deref().into_iter().chain(initrd.iter().map(String::as_str)).collect();
    field(name, &all.join(", "));
    if !script.is_empty() {
        field(name, &format!("commands of iPXE: {}", script.join("; ")));
    }
    field("with", args.as_deref().unwrap_or_default());
    if let Some(more) = unattended {
        field("unasked", more);
    }
}

/// A table of an installer's files.
fn files(folder: &str, parts: &[Part<'_>]) -> String {
    let mut table = table(&["file", "from", "includes"], 1);
    for part in parts {
        let from = match part.from {
            From::Ours => "ours".to_string(),
            From::Instead(path) => format!("{}, in place of ours", path.display()),
            From::New(path) => path.display().to_string(),
        };
        table.add_row([part.name, &from, &part.includes.join(", ")]);
    }
    let mut said = format!("\n{}", lines(&table));
    if let Some(part) =
        parts.iter().find(|part| part.from == From::Ours && part.name != "installer.toml")
    {
        let file = format!("{folder}/{}", part.name);
        said += &format!("\nA copy to change: pilotlight installers export {file}\n");
    }
    said
}

fn export(what: &str, dir: Option<&Path>, force: bool, how: &How) -> anyhow::Result<String> {
    let (folder, file) = match what.trim_end_matches('/').split_once('/') {
        Some((folder, file)) => (folder, Some(file)),
        None => (what.trim_end_matches('/'), None),
    };
    // By name alone: what is typed is no path.
    let all = about::ours(folder);
    if all.is_empty() {
        return Err(unknown(folder, about::folders()));
    }
    let names: Vec<&str> = all.iter().map(|part| part.name).collect();
    let parts: Vec<&Part<'_>> =
        all.iter().filter(|part| file.is_none_or(|file| file == part.name)).collect();
    if let (Some(file), true) = (file, parts.is_empty()) {
        bail!("{folder} has no file {:?}: it has {}", plain(file, 80), names.join(", "));
    }
    let declared = config(how)?.own_installers;
    let dir = dir.or(declared.as_deref()).unwrap_or(Path::new(HERE));
    let dir = std::path::absolute(dir)?;
    let counts = declared.is_some_and(|own| std::path::absolute(own).is_ok_and(|own| own == dir));
    let written = write(&dir, folder, &parts, force)?;
    let mut included: Vec<&str> = Vec::new();
    for name in parts.iter().flat_map(|part| &part.includes) {
        if !included.contains(name) {
            included.push(name);
        }
    }
    if how.json {
        return Ok(json!({ "written": written, "includes": included }).to_string());
    }
    Ok(exported(&dir, &written, &included, counts))
}

/// What was written, and what is to be done now.
fn exported(dir: &Path, written: &[PathBuf], included: &[&str], counts: bool) -> String {
    let mut said = String::new();
    written.iter().for_each(|path| said += &format!("Written: {}\n", path.display()));
    if !included.is_empty() {
        said += &format!("\n{}", output::wrap("Included, and still ours: ", &included.join(", ")));
        said += &format!(
            "To change it for all that include it: pilotlight installers export {}\n",
            included[0]
        );
    }
    said += &match counts {
        true => "\nIt counts from now on: the configuration names this folder.\n".to_string(),
        false => format!(
            "\nIt counts with these lines in the configuration, or a dir that is there already:\n\n\
             [installers]\ndir = {}\n",
            toml::Value::from(dir.display().to_string())
        ),
    };
    said + "\nNext: pilotlight check --config pilotlight.toml\n"
}

/// Writes the files below `dir/folder`; all of them or, where one is there, none.
fn write(
    dir: &Path,
    folder: &str,
    parts: &[&Part<'_>],
    force: bool,
) -> anyhow::Result<Vec<PathBuf>> {
    let home = dir.join(folder);
    // A link would lead out of the folder that was named.
    let link = fs::symlink_metadata(&home).is_ok_and(|about| !about.is_dir());
    ensure!(!link, "{} is no folder: move it away, or name another folder", home.display());
    let paths: Vec<PathBuf> = parts.iter().map(|part| home.join(part.name)).collect();
    let there: Vec<String> = paths
        .iter()
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| path.display().to_string())
        .collect();
    ensure!(
        force || there.is_empty(),
        "{} is there already, and nothing is written: --force writes over it, and what you changed \
         is lost; NAME/FILE writes one file alone",
        there.join(", ")
    );
    let dir = paths.iter().find(|path| path.is_dir() && !path.is_symlink());
    ensure!(dir.is_none(), "{} is a folder: move it away", dir.unwrap_or(&home).display());
    fs::create_dir_all(&home).map_err(|e| anyhow!("{}: {e}", home.display()))?;
    // All of them whole before one counts: half of an installer would be used as it is.
    let news: Vec<PathBuf> =
        parts.iter().map(|part| home.join(format!(".{}.new", part.name))).collect();
    let mut written = Ok(());
    for (new, part) in news.iter().zip(parts) {
        written = written.and_then(|()| fresh(new, part.text));
    }
    for (new, path) in news.iter().zip(&paths) {
        // A link is replaced, and what it leads to stays as it is.
        written = written.and_then(|()| fs::rename(new, path));
    }
    written.map_err(|e| {
        news.iter().for_each(|new| drop(fs::remove_file(new)));
        anyhow!("{}: {e}", home.display())
    })?;
    Ok(paths)
}

/// A new file in the place of what an export that was stopped has left.
fn fresh(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut new = fs::File::options().write(true).create_new(true).open(path)?;
    new.write_all(text.as_bytes())
}
