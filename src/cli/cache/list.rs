//! `pilotlight cache list`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use comfy_table::Table;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Shelf, Whose, json_of, name, reason, shorten};
use crate::app::count;
use crate::cli::output::{self, COLUMNS};
use crate::config::Config;
use crate::mirror::disk::{Listed, Place, Trouble};
use crate::model::event::size;

/// Columns of a name at least, however narrow the terminal is.
const NARROW: usize = 16;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight cache list --config pilotlight.toml
  pilotlight cache list --config pilotlight.toml netboot
      Files with \"netboot\" in their name.
  pilotlight cache list --json | jq -r '.files[] | select(.pinned) | .path'

The last use is known to the hour. What is partial goes on from there when it is
asked for again; what is set aside was damaged, is sent to nobody, and is
fetched anew.")]
pub struct List {
    #[command(flatten)]
    whose: Whose,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
    /// Only files with this in MIRROR/PATH
    word: Option<String>,
}

pub fn run(list: &List) -> anyhow::Result<ExitCode> {
    let config = list.whose.config()?;
    let mut shelf = Shelf::open(&config)?;
    if let (Some(shelf), Some(word)) = (&mut shelf, &list.word) {
        let word = word.to_lowercase();
        shelf.files.retain(|l| name(l).to_lowercase().contains(&word));
    }
    let now = Timestamp::now();
    let said = match (&shelf, list.json) {
        (shelf, true) => json(&config, shelf.as_ref()).to_string(),
        (Some(shelf), false) => people(&config, shelf, list.word.as_deref(), now),
        (None, false) => empty(&config),
    };
    output::print(&said)?;
    Ok(ExitCode::SUCCESS)
}

fn empty(config: &Config) -> String {
    let dir = config.cache_dir();
    output::wrap(
        "",
        &format!(
            "The cache is empty: there is no {}. What machines fetch by /mirror/ is kept there, \
             and what `pilotlight cache fetch PROFILE` brings.",
            dir.display()
        ),
    )
}

/// What is to be said of a file besides its size.
fn state(listed: &Listed) -> String {
    match listed.place {
        Place::Complete if listed.about.as_ref().is_some_and(|a| a.pinned) => "pinned".into(),
        Place::Complete => String::new(),
        Place::Partial => match listed.about.as_ref().and_then(|a| a.len) {
            Some(len) if len > 0 => format!("partial {} %", listed.covered.total() * 100 / len),
            _ => "partial".into(),
        },
        Place::Aside => format!("set aside: {}", listed.why.as_deref().unwrap_or("?")),
    }
}

/// Uses are noted on the disk once an hour.
fn ago(then: Timestamp, now: Timestamp) -> String {
    match now.duration_since(then).as_hours() {
        ..1 => "< 1 h ago".into(),
        n @ 1..48 => format!("{n} h ago"),
        n => format!("{} d ago", n / 24),
    }
}

/// Files and bytes in one kind of place.
fn sum(files: &[Listed], place: Place) -> (u64, u64) {
    let of = files.iter().filter(|l| l.place == place);
    of.fold((0, 0), |(n, bytes), l| (n + 1, bytes + l.bytes))
}

fn people(config: &Config, shelf: &Shelf, word: Option<&str>, now: Timestamp) -> String {
    let files = &shelf.files;
    if files.is_empty() {
        return match word {
            Some(word) => format!("No file of the cache has {word:?} in its name."),
            None => empty_folder(config),
        };
    }
    let rows: Vec<[String; 4]> =
        files.iter().map(|l| [name(l), size(l.bytes), ago(l.used, now), state(l)]).collect();
    let mut out = table(&rows, width());
    out.push('\n');
    out += &output::wrap("", &totals(config, shelf, word.is_some()));
    if files.iter().any(|l| l.about.is_none()) {
        out += &output::wrap(
            "(…): ",
            "what arrives just now, or was broken off in its first 64 MiB, has not noted its name \
             yet; nor has what was wrong as soon as it came",
        );
    }
    let reasons: BTreeSet<&str> = files.iter().filter_map(|l| l.why.as_deref()).collect();
    for word in reasons {
        out += &output::wrap(&format!("Set aside, {word}: "), &reason(word));
    }
    let told = |t: &&Trouble| !matches!(t, Trouble::Damaged { .. });
    for trouble in shelf.troubles.iter().filter(told) {
        out += &output::wrap("Look: ", &trouble.to_string());
    }
    out
}

fn empty_folder(config: &Config) -> String {
    let dir = config.cache_dir();
    output::wrap("", &format!("The cache is empty: there is nothing in {}.", dir.display()))
}

fn width() -> usize {
    match std::io::stdout().is_terminal() {
        true => Table::new().width().map_or(COLUMNS, usize::from),
        false => COLUMNS,
    }
}

/// Names take what the other columns leave.
fn table(rows: &[[String; 4]], width: usize) -> String {
    let head = ["file", "size", "last use", "state"].map(String::from);
    let widest = |column: usize| {
        let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let [sizes, used, states] = [widest(1), widest(2), widest(3)];
    let left = width.saturating_sub(sizes + used + states + 6).max(NARROW);
    let names = widest(0).min(left);
    let mut out = String::new();
    for [name, size, at, state] in [&head].into_iter().chain(rows) {
        let name = shorten(name, names);
        let line = format!("{name:<names$}  {size:>sizes$}  {at:>used$}  {state}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

fn totals(config: &Config, shelf: &Shelf, some: bool) -> String {
    let [whole, partial, aside] =
        [Place::Complete, Place::Partial, Place::Aside].map(|place| sum(&shelf.files, place));
    let pinned: u64 = shelf.files.iter().filter(|l| is_pinned(l)).map(|l| l.bytes).sum();
    let mut text = format!("{}, {}", count(whole.0, "file"), size(whole.1));
    if !some {
        let percent = whole.1 as f64 * 100.0 / config.cache.limit.max(1) as f64;
        let _ = write!(text, " of the {} of [cache] limit ({percent:.0} %)", limit(config));
    }
    if pinned > 0 {
        let _ = write!(text, ", {} pinned", size(pinned));
    }
    if partial.0 > 0 {
        let _ = write!(text, "; {} partial, {}", partial.0, size(partial.1));
    }
    if aside.0 > 0 {
        let _ = write!(text, "; {} set aside, {}", aside.0, size(aside.1));
    }
    if let (false, Ok(room)) = (some, shelf.disk.room()) {
        let _ = write!(text, "; the disk has {} more", size(room));
    }
    text + "."
}

/// As it was written: whole numbers have no ".0".
fn limit(config: &Config) -> String {
    size(config.cache.limit).replace(".0 ", " ")
}

fn is_pinned(listed: &Listed) -> bool {
    listed.place == Place::Complete && listed.about.as_ref().is_some_and(|a| a.pinned)
}

fn json(config: &Config, shelf: Option<&Shelf>) -> Value {
    let files = shelf.map_or(&[][..], |s| &s.files);
    let line = |l: &Listed| {
        let about = l.about.as_ref();
        json!({
            "mirror": about.map(|a| &a.mirror),
            "path": about.map(|a| &a.path),
            "url": about.map(|a| &a.url),
            "digest": about.and_then(|a| a.digest).map(|d| d.to_string()),
            "length": about.and_then(|a| a.len),
            "received": about.map(|a| a.received),
            "pinned": is_pinned(l),
            "place": place(l.place),
            "there": (l.place == Place::Partial).then(|| l.covered.total()),
            "why": l.why,
            "bytes": l.bytes,
            "used": l.used,
            "file": l.path,
        })
    };
    let total = |place| {
        let (files, bytes) = sum(files, place);
        json!({ "files": files, "bytes": bytes })
    };
    json!({
        "dir": config.cache_dir(),
        "limit": config.cache.limit,
        "free": shelf.and_then(|s| s.disk.room().ok()),
        "files": files.iter().map(line).collect::<Vec<_>>(),
        "complete": total(Place::Complete),
        "partial": total(Place::Partial),
        "aside": total(Place::Aside),
        "troubles": shelf.map_or(&[][..], |s| &s.troubles).iter().map(json_of).collect::<Vec<_>>(),
    })
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Complete => "complete",
        Place::Partial => "partial",
        Place::Aside => "aside",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_width() {
        let long = "debian/".to_string() + &"x/".repeat(100) + "linux";
        let row = |name: &str, state: &str| {
            [name.into(), "8.22 MB".into(), "< 1 h ago".into(), state.into()]
        };
        let rows = [row(&long, "set aside: incomplete"), row("a/b", "")];
        let text = table(&rows, 80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1].chars().count(), 80, "{text}");
        assert!(lines[1].contains("/linux  8.22 MB"), "{text}");
        assert!(lines[2].ends_with("ago"), "{text}");
        let narrow = table(&rows[1..], 80);
        assert!(narrow.lines().all(|l| l.len() < 40), "{narrow}");
    }

    #[test]
    fn a_use_is_told_to_the_hour() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (seconds, want) in [
            (-5, "< 1 h ago"),
            (3599, "< 1 h ago"),
            (3600, "1 h ago"),
            (48 * 3600 - 1, "47 h ago"),
            (48 * 3600, "2 d ago"),
        ] {
            let then = Timestamp::from_second(1_000_000 - seconds).unwrap();
            assert_eq!(ago(then, now), want);
        }
    }
}
