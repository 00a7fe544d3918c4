//! `pilotlight catalog`: what can be booted straight from public mirrors.

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::ask::{lines, table};
use super::output;
use crate::config::Verify;
use crate::config::catalog::{self, Entry, Known};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight catalog
  pilotlight catalog debian
      Those whose name or title has the word.
  pilotlight catalog debian-12
      Its mirrors, how they are verified, and the lines that boot it.
  pilotlight catalog --json | jq -r '.entries[].name'

Nothing in it installs by itself: without answers of yours the installer asks
its questions.")]
pub struct Catalog {
    /// One of them, or a word of its name or title; without it all of them
    name: Option<String>,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(catalog: &Catalog) -> anyhow::Result<()> {
    let found = found(catalog.name.as_deref())?;
    let said = match &found[..] {
        _ if catalog.json => {
            let mirrors = mirrors(&found);
            json!({ "entries": found, "mirrors": mirrors }).to_string()
        }
        [one] => about(one),
        some => listed(some),
    };
    Ok(output::print(&said)?)
}

/// The one of that name, or all that have the word.
fn found(word: Option<&str>) -> anyhow::Result<Vec<&'static Entry>> {
    let all = &catalog::all().entries;
    let Some(word) = word else { return Ok(all.iter().collect()) };
    if let Some(one) = catalog::entry(word) {
        return Ok(vec![one]);
    }
    let low = word.to_lowercase();
    let has = |e: &&Entry| e.name.contains(&low) || e.title.to_lowercase().contains(&low);
    let some: Vec<_> = all.iter().filter(has).collect();
    if some.is_empty() {
        bail!("the catalogue has nothing that is called {word:?}: `pilotlight catalog` lists it");
    }
    Ok(some)
}

/// The mirrors of these, each once.
fn mirrors(entries: &[&Entry]) -> Vec<&'static Known> {
    let needed = |m: &&Known| entries.iter().any(|e| e.mirrors.contains(&m.name));
    catalog::all().mirrors.iter().filter(needed).collect()
}

/// One line for all the architectures of a release: the shortest name comes before the others.
fn listed(entries: &[&Entry]) -> String {
    let mut releases: Vec<(&Entry, Vec<&str>)> = Vec::new();
    for e in entries {
        let of =
            |(first, _): &&mut (&Entry, Vec<&str>)| e.name == format!("{}-{}", first.name, e.arch);
        match releases.iter_mut().find(of) {
            Some((_, arches)) => arches.push(e.arch),
            None => releases.push((e, vec![e.arch])),
        }
    }
    let mut table = table(&["name", "title", "architectures", "mirrors"], 4);
    for (e, arches) in &releases {
        let urls: usize = mirrors(&[e]).iter().map(|m| m.urls.len()).sum();
        table.add_row([&e.name, &e.title, &arches.join(", "), &urls.to_string()]);
    }
    let mut said = lines(&table);
    if releases.iter().any(|(_, arches)| arches.len() > 1) {
        let (e, _) = releases.iter().find(|(_, arches)| arches.len() > 1).unwrap_or(&releases[0]);
        said += &format!("\nThat for another architecture has it in its name: {}-arm64.\n", e.name);
    }
    said + "`pilotlight catalog NAME` shows one of them, and the lines that boot it.\n"
}

fn about(e: &Entry) -> String {
    let mut said = format!("{}: {} ({})\n\n", e.name, e.title, e.arch);
    let mut field = |name: &str, text: &str| said += &output::wrap(&format!("  {name:<9}"), text);
    // What it does not name itself, its installer finds in the tree.
    let initrds = e.initrd.iter().map(|initrd| ("initrd", initrd));
    let more = [("args", &e.args), ("answers", &e.installer), ("tree", &e.tree), ("note", &e.note)];
    let all = [("kernel", &e.kernel)].into_iter().chain(initrds).chain(more);
    all.filter(|(_, text)| !text.is_empty()).for_each(|(name, text)| field(name, text));
    for m in mirrors(&[e]) {
        said += &format!("\nMirror {}: {}\n", m.name, how(m));
        let mut field =
            |name: &str, text: &str| said += &output::wrap(&format!("  {name:<9}"), text);
        m.urls.iter().for_each(|url| field("url", url));
        keys(m).iter().for_each(|key| field("keys", key));
    }
    said += &format!("\nTo boot it:\n\n[[profile]]\nname = {0:?}\ninstall = {0:?}\n", e.name);
    said += "\nWith URLs or keys of your own:\n";
    for m in mirrors(&[e]) {
        said += &declared(m);
    }
    said
}

/// In words, what is verified.
fn how(m: &Known) -> &'static str {
    match m.verify {
        Verify::Debian => "verified from InRelease on",
        Verify::Rpm => "verified from repomd.xml and .treeinfo on",
        Verify::Sums => "verified from SHA256SUMS on",
        Verify::Plain if !m.pin.is_empty() => "verified by digests that are known here",
        Verify::Plain => "not verified: as good as the way to it",
    }
}

/// Where its keys are here, or what brings them.
fn keys(m: &Known) -> Vec<String> {
    let here: Vec<String> =
        m.keys.iter().filter(|k| k.is_file()).map(|k| k.display().to_string()).collect();
    match (here.is_empty(), m.verify) {
        (false, _) => here,
        (true, Verify::Plain) => Vec::new(),
        (true, _) if m.keys.is_empty() => {
            vec!["none to name: digests count from the mirror's own word on".into()]
        }
        (true, _) => vec![format!(
            "none here: the package {} brings them where there is one; else save the file with \
             them, and name it below",
            m.package
        )],
    }
}

/// The lines that declare a mirror. Strings are quoted alike in TOML and in Rust as long as they are
/// plain, and a test reads what is printed.
fn declared(m: &Known) -> String {
    let mut said = format!("\n[[mirror]]\nname = {:?}\nurls = [\n", m.name);
    m.urls.iter().for_each(|url| said += &format!("    {url:?},\n"));
    said += "]\n";
    if m.verify != Verify::Plain {
        said += &format!("verify = {}\n", json!(m.verify));
    }
    let here: Vec<_> = m.keys.iter().filter(|k| k.is_file()).collect();
    let lost = m.keys.first().and_then(|key| key.file_name()).filter(|_| here.is_empty());
    if let Some(name) = lost {
        said += "# It is not on this machine: write where you have saved it.\n";
        said += &format!("keys = [{:?}]\n", Path::new("/PATH/TO").join(name));
    }
    if !here.is_empty() {
        said += "keys = [\n";
        here.iter().for_each(|key| said += &format!("    {key:?},\n"));
        said += "]\n";
    }
    if !m.pin.is_empty() {
        said += "[mirror.pin]\n";
        m.pin.iter().for_each(|(path, digest)| said += &format!("{path:?} = \"{digest}\"\n"));
    }
    said
}
