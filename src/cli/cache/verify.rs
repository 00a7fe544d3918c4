//! `pilotlight cache verify`.

use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{Shelf, Whose, json_of, name, shorten};
use crate::app::count;
use crate::cli::output;
use crate::mirror::disk::{Listed, Place, Trouble, Verdict};
use crate::mirror::record::Damage;
use crate::model::event::size;

/// How often the bar moves by itself.
const TICK: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight cache verify --config pilotlight.toml
  pilotlight cache verify --json | jq -r '.wrong[].path'

Every file is read from the disk and compared to its digest. One that is wrong
is set aside, so that no machine gets it, and is fetched anew when it is asked
for. Files of a verify = \"plain\" mirror have no digest unless its `pin`
setting gives one; of them the length is compared. Exit code 0 if nothing was
wrong, 1 if anything was.")]
pub struct Verify {
    #[command(flatten)]
    whose: Whose,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Default)]
struct Found<'a> {
    right: u64,
    no_digest: u64,
    bytes: u64,
    wrong: Vec<&'a Listed>,
    /// Damaged, or not to be read.
    damaged: Vec<Trouble>,
    /// Somebody else was at it.
    skipped: Vec<Trouble>,
}

pub fn run(verify: &Verify) -> anyhow::Result<ExitCode> {
    let config = verify.whose.config()?;
    let Some(mut shelf) = Shelf::open(&config)? else {
        let nothing = Found::default();
        output::print(&if verify.json { json(&nothing).to_string() } else { people(&nothing) })?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut found = Found::default();
    for trouble in std::mem::take(&mut shelf.troubles) {
        found.take(trouble);
    }
    let whole: Vec<&Listed> = shelf.files.iter().filter(|l| l.place == Place::Complete).collect();
    let bar = bar(whole.iter().map(|l| l.bytes).sum(), verify.json);
    for listed in whole {
        bar.set_message(shorten(&name(listed), 34));
        found.look(&shelf, listed);
        bar.inc(listed.bytes);
    }
    bar.finish_and_clear();
    if !found.wrong.is_empty() || !found.damaged.is_empty() {
        super::told(&config);
    }
    output::print(&if verify.json { json(&found).to_string() } else { people(&found) })?;
    Ok(match found.wrong.is_empty() && found.damaged.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// On a terminal's standard error, and nowhere else.
fn bar(bytes: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let style = "{msg:34} {wide_bar} {percent:>3} % {decimal_bytes_per_sec:>12} {eta:>4}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style.progress_chars("━━ "));
    }
    bar.enable_steady_tick(TICK);
    bar
}

impl<'a> Found<'a> {
    fn look(&mut self, shelf: &Shelf, listed: &'a Listed) {
        let Some(id) = &listed.id else { return };
        match shelf.disk.verify(id) {
            // Removed meanwhile.
            Ok(None) => return,
            Ok(Some(Verdict::Right)) => self.right += 1,
            Ok(Some(Verdict::NoDigest)) => self.no_digest += 1,
            Ok(Some(Verdict::Wrong)) => match shelf.disk.set_aside(id, Damage::Digest) {
                Ok(_) => self.wrong.push(listed),
                Err(trouble) => self.damaged.push(trouble),
            },
            Err(trouble) => return self.take(trouble),
        }
        self.bytes += listed.bytes;
    }

    fn take(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::InUse { .. } => self.skipped.push(trouble),
            trouble => self.damaged.push(trouble),
        }
    }
}

fn is_pinned(listed: &Listed) -> bool {
    listed.about.as_ref().is_some_and(|a| a.pinned)
}

fn people(found: &Found) -> String {
    let Found { right, no_digest, bytes, wrong, damaged, skipped } = found;
    if looked(found) == 0 && damaged.is_empty() && skipped.is_empty() {
        return "The cache is empty: there is nothing to check.".into();
    }
    let mut text =
        format!("{} read, {}: {right} right", count(looked(found), "file"), size(*bytes));
    if *no_digest > 0 {
        text += &format!(", {no_digest} without a digest");
    }
    if !wrong.is_empty() {
        text += &format!(", {} wrong", wrong.len());
    }
    if !damaged.is_empty() {
        text += &format!(", {} damaged or not to be read", damaged.len());
    }
    if !skipped.is_empty() {
        text += &format!(", {} in use and not looked at", skipped.len());
    }
    let mut out = output::wrap("", &(text + "."));
    for listed in wrong {
        let pinned = match is_pinned(listed) {
            true => "; it was pinned, and wants to be pinned again once it is fetched",
            false => "",
        };
        let line = format!("{}: {}; set aside{pinned}", name(listed), Damage::Digest);
        out += &output::wrap("Wrong: ", &line);
    }
    for trouble in damaged {
        out += &output::wrap("Damaged: ", &trouble.to_string());
    }
    for trouble in skipped {
        out += &output::wrap("In use: ", &trouble.to_string());
    }
    if !wrong.is_empty() || !damaged.is_empty() {
        out += "\nWhat was set aside is fetched anew when a machine asks for it, or by\n  \
                pilotlight cache fetch PROFILE\n";
    }
    out
}

fn looked(found: &Found) -> u64 {
    found.right + found.no_digest + found.wrong.len() as u64
}

fn json(found: &Found) -> Value {
    let wrong = |l: &&Listed| {
        let about = l.about.as_ref();
        json!({
            "mirror": about.map(|a| &a.mirror),
            "path": about.map(|a| &a.path),
            "url": about.map(|a| &a.url),
            "digest": about.and_then(|a| a.digest).map(|d| d.to_string()),
            "pinned": is_pinned(l),
        })
    };
    json!({
        "good": found.wrong.is_empty() && found.damaged.is_empty(),
        "bytes": found.bytes,
        "right": found.right,
        "no_digest": found.no_digest,
        "wrong": found.wrong.iter().map(wrong).collect::<Vec<_>>(),
        "damaged": found.damaged.iter().map(json_of).collect::<Vec<_>>(),
        "in_use": found.skipped.iter().map(json_of).collect::<Vec<_>>(),
    })
}
