//! `pilotlight cache clear`.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::bail;

use super::{Shelf, Whose, name};
use crate::app::count;
use crate::cli::output;
use crate::mirror::disk::{Disk, Listed, Place, Trouble};
use crate::model::event::size;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight cache clear --config pilotlight.toml
      Tells how much it is, and asks.
  pilotlight cache clear debian/dists/bookworm --config pilotlight.toml
      What lies below that, and nothing else.
  pilotlight cache clear --yes --pinned --config pilotlight.toml
      All of it, without a question: in scripts.

What is pinned stays unless --pinned is given. A machine that is being sent a
file gets it to its end; what it asks for after that is fetched anew. What is
arriving just now stays.")]
pub struct Clear {
    #[command(flatten)]
    whose: Whose,
    /// Only what is of this mirror, or below this path of it
    #[arg(value_name = "MIRROR[/PATH]")]
    below: Option<String>,
    /// What is pinned, too
    #[arg(long)]
    pinned: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Whether a file is of the mirror, and at the path or below it.
fn is_below(listed: &Listed, below: &str) -> bool {
    let Some(about) = &listed.about else { return false };
    let (mirror, path) = below.split_once('/').unwrap_or((below, ""));
    let path = path.trim_end_matches('/');
    let rest = about.path.strip_prefix(path);
    about.mirror == mirror
        && (path.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with('/')))
}

pub fn run(clear: &Clear) -> anyhow::Result<ExitCode> {
    let config = clear.whose.config()?;
    let shelf = Shelf::open(&config)?;
    let all = shelf.as_ref().map_or(&[][..], |s| &s.files);
    let below = |l: &&Listed| clear.below.as_ref().is_none_or(|below| is_below(l, below));
    let (kept, victims): (Vec<&Listed>, Vec<&Listed>) = all
        .iter()
        .filter(below)
        .partition(|l| !clear.pinned && l.about.as_ref().is_some_and(|a| a.pinned));
    let stays = match kept.len() {
        0 => String::new(),
        1 => "; 1 pinned file stays (--pinned takes it, too)".into(),
        n => format!("; {n} pinned files stay (--pinned takes them, too)"),
    };
    let (Some(shelf), false) = (&shelf, victims.is_empty()) else {
        match &clear.below {
            Some(below) if kept.is_empty() => {
                bail!("nothing of {below:?} is in the cache; `pilotlight cache list` shows what is")
            }
            _ => output::print(&format!("There is nothing to remove{stays}."))?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let bytes: u64 = victims.iter().map(|l| l.bytes).sum();
    let what = format!("{}, {}", count(victims.len() as u64, "file"), size(bytes));
    if !clear.yes
        && !agreed(&format!("Remove {what}, from {}{stays}?", config.cache_dir().display()), &what)?
    {
        output::print("Nothing was removed.")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut gone, mut freed, mut left) = (0, 0, Vec::new());
    for listed in victims {
        match remove(&shelf.disk, listed, clear.pinned) {
            Ok(true) => (gone, freed) = (gone + 1, freed + listed.bytes),
            // Somebody else was quicker, or has pinned it while we asked.
            Ok(false) => {}
            Err(trouble) => left.push((listed, trouble)),
        }
    }
    super::told(&config);
    output::print(&output::wrap(
        "",
        &format!("{} removed, {} freed{stays}.", count(gone, "file"), size(freed)),
    ))?;
    let mut code = ExitCode::SUCCESS;
    for (listed, trouble) in left {
        match trouble {
            Trouble::InUse { .. } => {
                output::complain(&format!("{} is arriving just now, and stays", name(listed)));
            }
            trouble => {
                output::complain(&super::denied(trouble).to_string());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn remove(disk: &Disk, listed: &Listed, pinned: bool) -> Result<bool, Trouble> {
    match (&listed.id, listed.place) {
        (Some(id), Place::Complete)
            if !pinned && disk.get(id)?.is_some_and(|held| held.about.pinned) =>
        {
            Ok(false)
        }
        (Some(id), Place::Complete) => disk.remove(id),
        (Some(id), Place::Partial) => disk.remove_partial(id),
        _ => match std::fs::remove_file(&listed.path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Trouble::Io { what: "remove", path: listed.path.clone(), source }),
        },
    }
}

/// Asks the person at the terminal.
fn agreed(question: &str, what: &str) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("there is nobody to ask: --yes removes {what}, without a question");
    }
    let mut out = std::io::stderr();
    write!(out, "{} [y/N] ", output::wrap("", question).trim_end())?;
    out.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
