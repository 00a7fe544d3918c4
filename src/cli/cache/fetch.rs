//! `pilotlight cache fetch`: what a profile needs, before a machine asks for it.
//!
//! 1. A running server does it (its store is locked, and it alone knows what its boots are given);
//!    without one, this process.
//! 2. Either is looked at a few times a second: [`Report`].
//! 3. Ctrl-C ends it; what is there is kept, and the next call goes on from it.

use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Whose, asked, door, profile, shorten, silent};
use crate::app::count;
use crate::cli::{ask, output};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::mirror::learn::{Asked, FILES};
use crate::mirror::serve::Mirrors;
use crate::mirror::serve::order::{Line, Order, Report, State};
use crate::model::Profile;
use crate::model::event::size;
use crate::store::Store;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(250);
/// How often a line says so where there is no terminal.
const LINES: Duration = Duration::from_secs(10);
/// What shells call a program that Ctrl-C ended: 128 and SIGINT.
const INTERRUPTED: u8 = 130;
/// Characters of a name before its bar.
const NAME: usize = 36;
/// Files whose failure is told, of an archive that has moved on there may be thousands.
const FAILURES: usize = 20;
/// What a server, too, says of a file that it may not ask anybody for.
const OFFLINE: &str = "[cache] offline = true";
/// Bars at once; more are only counted.
const BARS: usize = 8;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight cache fetch debian-12 --config pilotlight.toml
      Kernel, initrds, and all that its last installation asked for.
  pilotlight cache fetch debian-12 debian/dists/bookworm/InRelease \\
      --config pilotlight.toml
      That file as well.
  pilotlight cache fetch debian-12 --json | jq '.files[] | select(.why)'

Where a server runs, it does the work; what it brings is checked as it is for
machines. Files that are held are not fetched again, and one that was broken off
goes on where it stood: call it again as often as you like. Exit code 1 if a
file cannot be had, 130 after Ctrl-C.

Of a verify = \"plain\" mirror only what its `pin` setting names has a digest to
be checked by; the rest is as good as the way to it. What is pinned is never
evicted, nor are kernels and initrds of profiles: a [cache] limit that is less
than these is exceeded.")]
pub struct Fetch {
    #[command(flatten)]
    whose: Whose,
    /// Let the server with this admin door do it [default: the configuration's [http] admin, where
    /// a server has the state directory open]
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: Option<String>,
    /// For programs: one JSON object at the end
    #[arg(long)]
    json: bool,
    /// A [[profile]]
    profile: String,
    /// Other files of mirrors, too
    #[arg(value_name = "MIRROR/PATH", value_parser = asked)]
    files: Vec<Asked>,
}

/// Who fetches.
enum By {
    Us(Arc<Mirrors>, Arc<Order>),
    Server(String),
}

impl By {
    fn begin(fetch: &Fetch, config: &Config) -> anyhow::Result<By> {
        if fetch.server.is_none() {
            let profile = profile(config, &fetch.profile)?;
            if let Some(store) = super::store(config)? {
                return By::us(fetch, config, profile, store);
            }
        }
        let server = door(config, fetch.server.as_deref())?;
        let more: Vec<String> = fetch.files.iter().map(|(m, path)| format!("{m}/{path}")).collect();
        let begun = ask::post(&server, &path(&fetch.profile), &json!(more));
        begun.map_err(|why| match fetch.server {
            None => silent(&server, why),
            Some(_) => why,
        })?;
        Ok(By::Server(server))
    }

    fn us(
        fetch: &Fetch,
        config: &Config,
        profile: &Profile,
        store: Box<dyn Store>,
    ) -> anyhow::Result<By> {
        for (mirror, path) in &fetch.files {
            ensure!(
                config.mirror(mirror).is_some(),
                "{mirror}/{path}: the configuration has no [[mirror]] named {mirror:?}"
            );
        }
        let mirrors = Mirrors::open(config, Arc::new(Ledger::new()), Arc::from(store))?;
        let mut files = mirrors.wanted(profile);
        files.extend(fetch.files.iter().cloned());
        let order = Arc::default();
        mirrors.bring(&order, files);
        Ok(By::Us(mirrors, order))
    }

    fn report(&self, profile: &str) -> anyhow::Result<Report> {
        match self {
            By::Us(mirrors, order) => Ok(mirrors.report(profile, order)),
            By::Server(server) => {
                let told = ask::get(server, &path(profile))?;
                serde_json::from_value(told)
                    .with_context(|| format!("{server} is of another version of pilotlight"))
            }
        }
    }

    /// The next call takes up what is there now.
    fn leave(&self) {
        if let By::Us(mirrors, _) = self {
            mirrors.settle();
            mirrors.stop();
        }
    }
}

fn path(profile: &str) -> String {
    format!("/api/v1/cache/fetch/{profile}")
}

pub fn run(fetch: &Fetch) -> anyhow::Result<ExitCode> {
    let config = fetch.whose.config()?;
    ensure!(fetch.files.len() <= FILES, "more than {FILES} files at once");
    let by = By::begin(fetch, &config)?;
    let began = Instant::now();
    let mut shows = Shows::new(fetch.json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watched = runtime.block_on(watch(&by, &fetch.profile, &mut shows));
    shows.clear();
    by.leave();
    let (report, interrupted) = watched?;
    let said = match fetch.json {
        true => summary(&report, interrupted).to_string(),
        false => people(&report, &by, interrupted, began.elapsed()),
    };
    output::print(&said)?;
    Ok(match report.files.iter().any(|l| l.state == State::Failed) {
        _ if interrupted => ExitCode::from(INTERRUPTED),
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Looks until it is over, or somebody has had enough.
async fn watch(by: &By, profile: &str, shows: &mut Shows) -> anyhow::Result<(Report, bool)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut look = tokio::time::interval(LOOK);
    loop {
        let interrupted = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = look.tick() => false,
        };
        let report = by.report(profile)?;
        shows.look(&report);
        if report.over || interrupted {
            let interrupted = interrupted && !report.over;
            return Ok((report, interrupted));
        }
    }
}

/// What is told on standard error meanwhile.
enum Shows {
    Nothing,
    Bars(Box<Bars>),
    Lines { told: HashSet<Asked>, last: Instant },
}

struct Bars {
    multi: MultiProgress,
    all: ProgressBar,
    files: HashMap<Asked, ProgressBar>,
}

impl Shows {
    fn new(json: bool) -> Shows {
        match std::io::stderr().is_terminal() {
            true => Shows::Bars(Box::new(Bars::new())),
            false if json => Shows::Nothing,
            false => Shows::Lines { told: HashSet::new(), last: Instant::now() },
        }
    }

    fn look(&mut self, report: &Report) {
        match self {
            Shows::Nothing => {}
            Shows::Bars(bars) => bars.look(report),
            Shows::Lines { told, last } => {
                for line in &report.files {
                    if let Some(words) = news(line)
                        && told.insert(key(line))
                    {
                        tell(&words);
                    }
                }
                if last.elapsed() >= LINES {
                    *last = Instant::now();
                    tell(&so_far(report));
                }
            }
        }
    }

    fn clear(&self) {
        if let Shows::Bars(bars) = self {
            // A terminal that has gone needs no cleaning.
            let _ = bars.multi.clear();
        }
    }
}

/// A line of progress; nobody to read it is no failure.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Bars {
    fn new() -> Bars {
        let multi = MultiProgress::new();
        let all = multi.add(ProgressBar::new(0));
        styled(&all, "{msg} {wide_bar} {pos} of {len} files");
        Bars { multi, all, files: HashMap::new() }
    }

    fn look(&mut self, report: &Report) {
        let going: HashMap<Asked, &Line> = report
            .files
            .iter()
            .filter(|l| l.state == State::Fetching)
            .take(BARS)
            .map(|l| (key(l), l))
            .collect();
        let Bars { multi, all, files } = self;
        files.retain(|file, bar| {
            let stays = going.contains_key(file);
            if !stays {
                bar.finish_and_clear();
                multi.remove(bar);
            }
            stays
        });
        for (file, line) in going {
            let bar = files.entry(file).or_insert_with(|| {
                let bar = multi.insert_before(all, ProgressBar::no_length());
                let name = shorten(&name(line), NAME);
                bar.set_message(format!("{name:NAME$}"));
                styled(&bar, "{msg} {wide_bar} {decimal_bytes:>10} {decimal_bytes_per_sec:>12}");
                // What an earlier call brought is no speed of this one.
                bar.with_position(line.bytes)
            });
            if let Some(total) = line.total {
                bar.set_length(total);
            }
            bar.set_position(line.bytes);
        }
        let over = report.files.iter().filter(is_over).count();
        all.set_length(report.files.len() as u64);
        all.set_position(over as u64);
        all.set_message(size(report.files.iter().map(|l| l.bytes).sum()));
    }
}

fn styled(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━ "));
    }
}

fn key(line: &Line) -> Asked {
    (line.mirror.clone(), line.path.clone())
}

fn name(line: &Line) -> String {
    crate::model::event::plain(&format!("{}/{}", line.mirror, line.path), super::NAME)
}

fn is_over(line: &&Line) -> bool {
    !matches!(line.state, State::Waiting | State::Fetching)
}

/// What is new about a file that has come to its end; one that was held is no news.
fn news(line: &Line) -> Option<String> {
    match line.state {
        State::Waiting | State::Fetching | State::Held => None,
        State::Fetched => Some(format!("{}: fetched, {}", name(line), size(line.bytes))),
        State::Failed => Some(format!("{}: failed", name(line))),
    }
}

fn so_far(report: &Report) -> String {
    let over = report.files.iter().filter(is_over).count();
    let bytes = report.files.iter().map(|l| l.bytes).sum();
    format!("{over} of {}, {}", count(report.files.len() as u64, "file"), size(bytes))
}

/// Files and bytes in one state.
fn sum(report: &Report, state: State) -> (u64, u64) {
    let of = report.files.iter().filter(|l| l.state == state);
    of.fold((0, 0), |(n, bytes), l| (n + 1, bytes + l.bytes))
}

fn people(report: &Report, by: &By, interrupted: bool, took: Duration) -> String {
    let profile = &report.profile;
    if report.files.is_empty() {
        let nothing = format!(
            "Profile {profile} takes neither kernel nor initrd from a [[mirror]], and no \
             installation of it has asked for a file of one yet: there is nothing to fetch."
        );
        return output::wrap("", &nothing);
    }
    let [held, fetched, failed] =
        [State::Held, State::Fetched, State::Failed].map(|s| sum(report, s));
    let mut text = format!(
        "{profile}: {}, {}: {} fetched ({}) in {:.1} s, {} held before",
        count(report.files.len() as u64, "file"),
        size(held.1 + fetched.1),
        fetched.0,
        size(fetched.1),
        took.as_secs_f64(),
        held.0,
    );
    if failed.0 > 0 {
        text += &format!(", {} failed", failed.0);
    }
    let mut out = output::wrap("", &(text + "."));
    let lines = report.files.iter().filter(|l| l.state == State::Failed);
    for line in lines.take(FAILURES) {
        let why = line.why.as_deref().unwrap_or("it does not say why");
        out += &output::wrap("Failed: ", &format!("{}: {why}", name(line)));
    }
    if failed.0 > FAILURES as u64 {
        let more = failed.0 - FAILURES as u64;
        out += &format!("Failed: {more} more; --json has all of them.\n");
    }
    let offline = report.files.iter().filter_map(|l| l.why.as_deref()).any(|w| w.contains(OFFLINE));
    match failed.0 {
        0 => {}
        _ if offline => {
            let switch = "Offline nothing is fetched: write offline = false under [cache], and \
                          the same command fetches what is missing.";
            out += &format!("\n{}", output::wrap("", switch));
        }
        _ => out += "\nThe same command tries again what failed, and that alone.\n",
    }
    if interrupted {
        let goes_on = match by {
            By::Us(..) => "Interrupted: the same command goes on from where it stood.",
            By::Server(_) => "The server goes on with it; the same command shows how far it is.",
        };
        out += &format!("\n{goes_on}\n");
    }
    out
}

fn summary(report: &Report, interrupted: bool) -> serde_json::Value {
    let total = |state| {
        let (files, bytes) = sum(report, state);
        json!({ "files": files, "bytes": bytes })
    };
    json!({
        "profile": report.profile,
        "good": report.over && sum(report, State::Failed).0 == 0,
        "interrupted": interrupted,
        "held": total(State::Held),
        "fetched": total(State::Fetched),
        "failed": total(State::Failed),
        "files": report.files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_failures_the_first_are_told() {
        let line = |n: usize| Line {
            mirror: "m".into(),
            path: format!("p{n}"),
            state: State::Failed,
            bytes: 0,
            total: None,
            why: Some("it is gone".into()),
        };
        let files = (0..FAILURES + 3).map(line).collect();
        let report = Report { profile: "p".into(), over: true, files };
        let text = people(&report, &By::Server(String::new()), false, Duration::ZERO);
        assert_eq!(text.matches(": it is gone").count(), FAILURES, "{text}");
        assert!(text.contains("Failed: 3 more; --json has all of them."), "{text}");
        let text = people(&report, &By::Server(String::new()), true, Duration::ZERO);
        assert!(text.contains("The server goes on with it"), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= output::COLUMNS), "{text}");
    }

    #[test]
    fn an_offline_cache_says_so_in_the_word_that_is_looked_for() {
        let no = crate::mirror::No::Offline("m".into(), "p".into());
        assert!(no.to_string().contains(OFFLINE), "{no}");
    }
}
