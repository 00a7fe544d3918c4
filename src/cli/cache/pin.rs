//! `pilotlight cache pin` and `unpin`.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::{Shelf, Whose, asked, files_of, held, profile};
use crate::app::count;
use crate::cli::output;
use crate::config::Config;
use crate::mirror::disk::{Disk, Listed, Place, Trouble};
use crate::mirror::learn::Asked;
use crate::mirror::record::About;
use crate::model::event::size;
use crate::model::profile::Source;

/// Whoever writes a header has the file for a moment.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true)))]
#[command(after_help = "\
Examples:
  pilotlight cache pin --profile debian-12 --config pilotlight.toml
      Its kernel and initrds, and what its last installation asked for.
  pilotlight cache pin debian/dists/bookworm/Release --config pilotlight.toml
  pilotlight cache unpin --profile debian-12 --config pilotlight.toml

When [cache] limit is reached, files go that were not used for long. What is
pinned here never goes, nor do kernels and initrds of profiles: where these
alone are more than the limit, it is exceeded. `pilotlight cache clear` leaves
pinned files, too. This pin keeps a file; what it must be says the mirror's
own `pin` setting, and without that a file of a verify = \"plain\" mirror has no
digest to be verified by. Exit code 1 if a file is not in the cache;
`pilotlight cache fetch` brings it.")]
pub struct Pin {
    #[command(flatten)]
    whose: Whose,
    /// All files of this profile
    #[arg(long, value_name = "NAME", group = "which")]
    profile: Option<String>,
    /// Files as `pilotlight cache list` shows them
    #[arg(value_name = "MIRROR/PATH", group = "which", value_parser = asked)]
    files: Vec<Asked>,
}

pub fn run(pin: &Pin, pinned: bool) -> anyhow::Result<ExitCode> {
    let config = pin.whose.config()?;
    let of_profile = match &pin.profile {
        Some(name) => files_of(&config, profile(&config, name)?)?,
        None => Vec::new(),
    };
    if let (Some(name), true) = (&pin.profile, of_profile.is_empty() && pin.files.is_empty()) {
        bail!("profile {name} takes nothing from a [[mirror]], as far as is known");
    }
    let Some(shelf) = Shelf::open(&config)? else {
        let fills = match (&pin.profile, pin.files.first()) {
            (None, Some(file)) => brings(&config, file),
            (name, _) => {
                format!(
                    "`pilotlight cache fetch {}` fills it",
                    name.as_deref().unwrap_or("PROFILE")
                )
            }
        };
        bail!("the cache is empty: {fills}");
    };
    // All that were named, before anything is changed.
    for file in &pin.files {
        if held(&shelf, &config, file).is_empty() {
            bail!("{}", missing(&shelf, &config, file));
        }
    }
    let (mut done, mut before, mut bytes, mut absent) = (0, 0, 0, Vec::new());
    // One object may have several names.
    let mut seen = HashSet::new();
    for file in of_profile.iter().chain(&pin.files) {
        let found = held(&shelf, &config, file);
        if found.is_empty() {
            absent.push(file);
        }
        for listed in found.into_iter().filter(|l| seen.insert(l.id)) {
            match set(&shelf.disk, listed, pinned)? {
                true => (done, bytes) = (done + 1, bytes + listed.bytes),
                false => before += 1,
            }
        }
    }
    if done > 0 {
        super::told(&config);
    }
    output::print(&changed(pinned, done, bytes, before))?;
    let Some(file) = absent.first().filter(|_| pinned) else { return Ok(ExitCode::SUCCESS) };
    let name = pin.profile.as_deref().unwrap_or_default();
    let words = format!(
        "{} of the profile's {} not in the cache, {}/{} for one: `pilotlight cache fetch {name}` \
         brings what is missing; pin it again then",
        absent.len(),
        match of_profile.len() {
            1 => "1 file is".into(),
            n => format!("{n} files are"),
        },
        file.0,
        file.1
    );
    output::complain(&words);
    Ok(ExitCode::FAILURE)
}

/// What was done, of how many bytes, and how many files were so before.
fn changed(pinned: bool, done: u64, bytes: u64, before: u64) -> String {
    let verb = if pinned { "pinned" } else { "unpinned" };
    let so = if pinned { "pinned" } else { "not pinned" };
    let be = |n: u64| if n == 1 { "was" } else { "were" };
    match (done, before) {
        (0, 0) => format!("Nothing was {verb}."),
        (0, n) => format!("{} {} {so} already.", count(n, "file"), be(n)),
        (n, 0) => format!("{} {verb}, {}.", count(n, "file"), size(bytes)),
        (n, m) => {
            format!("{} {verb}, {}; {m} {} {so} already.", count(n, "file"), size(bytes), be(m))
        }
    }
}

/// Whether it was otherwise before.
fn set(disk: &Disk, listed: &Listed, pinned: bool) -> Result<bool, Trouble> {
    let (Some(id), Some(about)) = (&listed.id, &listed.about) else { return Ok(false) };
    if about.pinned == pinned {
        return Ok(false);
    }
    let about = About { pinned, ..about.clone() };
    for _ in 1..ATTEMPTS {
        match disk.rewrite(id, &about) {
            Err(Trouble::InUse { .. }) => std::thread::sleep(PAUSE),
            done => return done.map(|()| true),
        }
    }
    disk.rewrite(id, &about).map(|()| true)
}

/// Why a file that was named cannot be pinned, and what helps.
fn missing(shelf: &Shelf, config: &Config, file: &Asked) -> String {
    let (mirror, path) = file;
    let is = |l: &&Listed| l.about.as_ref().is_some_and(|a| a.mirror == *mirror && a.path == *path);
    match shelf.files.iter().find(is).map(|l| l.place) {
        Some(Place::Partial) => {
            format!("of {mirror}/{path} only a part is in the cache: {}", brings(config, file))
        }
        Some(Place::Aside) => {
            format!("{mirror}/{path} was damaged and is set aside: {}", brings(config, file))
        }
        _ => format!("{mirror}/{path} is not in the cache: {}", brings(config, file)),
    }
}

/// The command that fetches it, with a profile that takes something from its mirror.
fn brings(config: &Config, file: &Asked) -> String {
    let (mirror, path) = file;
    if config.mirror(mirror).is_none() {
        return format!("the configuration has no [[mirror]] named {mirror:?}");
    }
    let is = |source: &Source| matches!(source, Source::Mirror { mirror: m, .. } if m == mirror);
    let uses = config.profiles.iter().find(|p| p.sources().any(is));
    let profile = uses.map_or("PROFILE", |p| &p.name);
    format!("`pilotlight cache fetch {profile} {mirror}/{path}` brings it")
}
