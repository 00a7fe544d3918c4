//! Machines watched in the terminal: a bar for each that is on its way, or a line a change where
//! there is no terminal.
//!
//! The server is asked anew every second; what it says is little, and nothing is missed by a stream
//! that broke.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::Value;

use super::ask::{list, text};
use super::door::{Door, Refused};
use super::output::{self, COLUMNS};
use super::{machine, status};
use crate::model::event::plain;

const LOOK: Duration = Duration::from_secs(1);
/// Bars at once; a hall has more machines than a terminal has lines.
const BARS: usize = 20;
/// Characters of a bar's words, with which its line has 80 of them.
const NAME: usize = 17;
const WORDS: usize = COLUMNS - NAME - 12 - BAR - 6;
const BAR: usize = 12;

/// Shows the machines of `path` until it is ended; with what the server says of itself above them.
pub(super) fn run(door: &Door, path: &str, with_status: bool) -> anyhow::Result<()> {
    let mut shows = match std::io::stdout().is_terminal() {
        true => Shows::Bars(Box::new(Bars::new())),
        false => Shows::Lines(BTreeMap::new()),
    };
    let mut answered = false;
    loop {
        let look = || anyhow::Ok((head(door, with_status)?, door.get(path)?));
        match look() {
            Ok((head, machines)) => {
                answered = true;
                shows.look(&head, list(&machines), Timestamp::now())?;
            }
            // A server that is started anew is waited for; one that says no is not.
            Err(why) if !answered || why.is::<Refused>() => return Err(why),
            Err(_) => {
                shows.look("The server does not answer; waiting for it.", &[], Timestamp::now())?
            }
        }
        std::thread::sleep(LOOK);
    }
}

fn head(door: &Door, with_status: bool) -> anyhow::Result<String> {
    match with_status {
        true => Ok(status::line(&door.get("/api/v1/status")?)),
        false => Ok(String::new()),
    }
}

enum Shows {
    Bars(Box<Bars>),
    /// What was last said of each, by MAC, and of the server, by nothing.
    Lines(BTreeMap<String, String>),
}

impl Shows {
    fn look(&mut self, head: &str, machines: &[Value], now: Timestamp) -> anyhow::Result<()> {
        match self {
            Shows::Bars(bars) => bars.look(head, machines, now),
            Shows::Lines(said) => {
                let lines = changes(said, head, machines);
                if !lines.is_empty() {
                    output::print(&lines)?;
                }
            }
        }
        Ok(())
    }
}

/// One line for each that is not what it was: state and stage, not every byte.
fn changes(said: &mut BTreeMap<String, String>, head: &str, machines: &[Value]) -> String {
    let of = |m: &Value| {
        let (state, profile) = (text(m, "state"), text(m, "profile"));
        let words = match state.as_str() {
            "installing" => format!("{state} {profile}, {}", text(m, "stage")),
            _ => format!("{state} {profile}"),
        };
        let words = words.trim_end_matches(", ");
        (text(m, "mac"), output::wrap(&format!("{}  ", machine::name(m)), words))
    };
    let head = (!head.is_empty()).then(|| (String::new(), output::wrap("", head)));
    let mut out = String::new();
    for (key, lines) in head.into_iter().chain(machines.iter().map(of)) {
        if said.get(&key) != Some(&lines) {
            out += &lines;
            said.insert(key, lines);
        }
    }
    out
}

struct Bars {
    multi: MultiProgress,
    head: ProgressBar,
    rest: ProgressBar,
    machines: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Bars {
        let target = indicatif::ProgressDrawTarget::stdout();
        let multi = MultiProgress::with_draw_target(target);
        let words = |multi: &MultiProgress| {
            let bar = multi.add(ProgressBar::no_length());
            styled(&bar, "{msg}");
            bar
        };
        let (head, rest) = (words(&multi), words(&multi));
        Bars { multi, head, rest, machines: BTreeMap::new() }
    }

    fn look(&mut self, head: &str, machines: &[Value], now: Timestamp) {
        let head = match head {
            "" => machine::counts(machines),
            head => head.to_string(),
        };
        self.head.set_message(plain(&head, COLUMNS - 1));
        // Those on their way come first, then those that want somebody.
        let rank = |m: &&Value| match text(m, "state").as_str() {
            "installing" => 0,
            "failed" => 1,
            "discovered" => 2,
            _ => 3,
        };
        let mut shown: Vec<&Value> = machines.iter().collect();
        shown.sort_by_key(rank);
        let more = shown.len().saturating_sub(BARS);
        shown.truncate(BARS);
        let macs: Vec<String> = shown.iter().map(|m| text(m, "mac")).collect();
        self.machines.retain(|mac, bar| {
            let stays = macs.contains(mac);
            if !stays {
                self.multi.remove(bar);
            }
            stays
        });
        for (mac, m) in macs.into_iter().zip(shown) {
            let bar = self
                .machines
                .entry(mac)
                .or_insert_with(|| self.multi.insert_before(&self.rest, ProgressBar::new(100)));
            show(bar, m, now);
        }
        self.rest.set_message(match more {
            0 => "Ctrl-C ends this.".into(),
            more => format!("… and {more} more. Ctrl-C ends this."),
        });
    }
}

/// `web1  installing  [====>     ] kernel, 41 %, 8.22 MB/s`
fn show(bar: &ProgressBar, m: &Value, now: Timestamp) {
    let percent = m["progress"]["percent"].as_u64();
    match percent {
        Some(_) => styled(bar, &format!("{{prefix}}  [{{bar:{BAR}}}] {{msg}}")),
        None => styled(bar, "{prefix}  {msg}"),
    }
    let room = if percent.is_some() { WORDS } else { WORDS + BAR + 3 };
    let (name, state) = (plain(&machine::name(m), NAME - 1), text(m, "state"));
    bar.set_prefix(format!("{name:<NAME$} {state:<10}"));
    bar.set_position(percent.unwrap_or(0).min(100));
    bar.set_message(plain(&machine::about(m, now), room - 1));
}

fn styled(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_said_once() {
        let mut said = BTreeMap::new();
        let m = |state: &str, stage: &str| {
            json!({ "mac": "52:54:00:12:34:56", "name": "web1", "state": state,
                "profile": "debian", "stage": stage, "progress": { "bytes": 1 } })
        };
        let mut look = |head: &str, m: Value| changes(&mut said, head, &[m]);
        assert_eq!(look("up", m("assigned", "ipxe")), "up\nweb1  assigned debian\n");
        assert_eq!(look("up", m("installing", "kernel")), "web1  installing debian, kernel\n");
        assert_eq!(look("up", m("installing", "kernel")), "");
        assert_eq!(look("", m("installed", "system")), "web1  installed debian\n");
    }
}
