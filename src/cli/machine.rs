//! `pilotlight machine`: machines looked at, and told what comes next, by the server's API.

mod orders;
mod show;

use std::fmt::Write as _;
use std::io::IsTerminal;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{lines, list, table, text, until};
use super::door::{Server, part};
use super::output::{self, COLUMNS};
use super::watch;
use crate::app::count;
use crate::model::State;
use crate::model::event::{plain, size};

pub(super) use show::{Diagnose, diagnose};

/// Characters of a name in a table; who has longer ones sees them by `machine show`.
const NAME: usize = 22;
/// Of a profile's name.
const PROFILE: usize = 14;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine list
  pilotlight machine show web1
  pilotlight machine assign 52:54:00:12:34:56 debian-12 --name web1
  pilotlight machine reinstall web1 --now
  pilotlight machine power cycle web1

Each of them has its own --help. A machine is named by its name or its MAC.")]
pub struct Machine {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show machines with their states, and how far those are that install
    List(List),
    /// Show all that is known of one machine
    Show(show::Show),
    /// Say what a machine installs, and what it is called
    Assign(orders::Assign),
    /// Let machines be installed once more: this wipes their disks
    Reinstall(orders::Reinstall),
    /// Send machines to their own disks
    Local(orders::Local),
    /// Send machines to the rescue system at each start, until they are told otherwise
    Rescue(orders::Rescue),
    /// Forget what is known of machines
    Delete(orders::Delete),
    /// Switch machines on and off
    Power(orders::Power),
}

pub fn run(machine: &Machine) -> anyhow::Result<()> {
    match &machine.command {
        Command::List(list) => run_list(list),
        Command::Show(show) => show::run(show),
        Command::Assign(order) => orders::assign(order),
        Command::Reinstall(order) => orders::reinstall(order),
        Command::Local(order) => orders::local(order),
        Command::Rescue(order) => orders::rescue(order),
        Command::Delete(order) => orders::delete(order),
        Command::Power(order) => orders::power(order),
    }
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine list
  pilotlight machine list --state failed
  pilotlight machine list dell --json | jq -r '.[].mac'
      Those that have \"dell\" in a name, an address or what they told of themselves.
  pilotlight machine list --profile debian-12 --watch

The states: discovered (waits to be assigned), assigned (its next boot from the
network installs), installing, installed, failed (held after its last attempt),
local, rescue, live (runs from the network), seen (nobody has said what it is).")]
struct List {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    filter: Filter,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on showing them, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Filter {
    /// Only those in this state
    #[arg(long, value_parser = state)]
    state: Option<String>,
    /// Only those with this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only those with this in a name, a MAC, an address or a maker's name
    word: Option<String>,
}

/// A word of the API's states.
fn state(word: &str) -> Result<String, String> {
    let others = ["live", "seen"];
    let all = State::ALL.map(State::word);
    match all.iter().chain(&others).any(|w| *w == word) {
        true => Ok(word.into()),
        false => Err(format!("the states are {}, {}", all.join(", "), others.join(", "))),
    }
}

impl Filter {
    fn query(&self, limit: Option<usize>) -> String {
        let limit = limit.map(|n| n.to_string());
        let all = [
            ("state", &self.state),
            ("profile", &self.profile),
            ("q", &self.word),
            ("limit", &limit),
        ];
        let given = all.iter().filter_map(|(k, v)| v.as_ref().map(|v| format!("{k}={}", part(v))));
        let given: Vec<String> = given.collect();
        match given.is_empty() {
            true => "/api/v1/machines".into(),
            false => format!("/api/v1/machines?{}", given.join("&")),
        }
    }
}

fn run_list(all: &List) -> anyhow::Result<()> {
    let door = all.server.open()?;
    let path = all.filter.query(all.limit);
    if all.watch {
        return watch::run(&door, &path, false);
    }
    let machines = door.get(&path)?;
    let said = match all.json {
        true => machines.to_string(),
        false => {
            let whole = !std::io::stdout().is_terminal();
            people(list(&machines), &all.filter, Timestamp::now(), whole)
        }
    };
    Ok(output::print(&said)?)
}

/// On a terminal long names are cut, so that a machine is a line; `whole` is for what a program reads.
fn people(machines: &[Value], filter: &Filter, now: Timestamp, whole: bool) -> String {
    if machines.is_empty() {
        let some = filter.state.is_some() || filter.profile.is_some() || filter.word.is_some();
        return match some {
            true => "No machine is so; `pilotlight machine list` shows all of them.".into(),
            false => "No machine is declared, and none has asked yet: switch one on, and boot it \
                      from the network."
                .into(),
        };
    }
    let mut table = table(&["machine", "state", "profile", "", "seen"], 3);
    let names = |m: &Value| match whole {
        true => [
            Some(text(m, "name")).filter(|n| !n.is_empty()).unwrap_or_else(|| text(m, "mac")),
            text(m, "profile"),
        ],
        false => [name(m), plain(&text(m, "profile"), PROFILE)],
    };
    let mut over = [0; 2];
    for m in machines {
        let [name, profile] = names(m);
        for (over, (text, limit)) in over.iter_mut().zip([(&name, NAME), (&profile, PROFILE)]) {
            *over = text.chars().count().saturating_sub(limit).max(*over);
        }
        table.add_row([name, text(m, "state"), profile, about(m, now), seen(m, now)]);
    }
    if whole {
        table.set_width((COLUMNS + over[0] + over[1]).try_into().unwrap_or(u16::MAX));
    }
    let mut said = lines(&table);
    let _ = write!(said, "\n{}", output::wrap("", &counts(machines)));
    said
}

/// The name, or the MAC of one that has none.
pub(super) fn name(m: &Value) -> String {
    match text(m, "name") {
        name if name.is_empty() => text(m, "mac"),
        name => plain(&name, NAME),
    }
}

fn seen(m: &Value, now: Timestamp) -> String {
    text(m, "seen").parse().map(|then| until(then, now)).unwrap_or_default()
}

/// What is worth knowing of it just now.
pub(super) fn about(m: &Value, now: Timestamp) -> String {
    let fact = |key: &str| text(&m["facts"], key);
    match text(m, "state").as_str() {
        "installing" => {
            let mut said = text(m, "stage");
            if let Some(progress) = progress(m) {
                let _ = write!(said, ", {progress}");
            }
            if let Some(attempt) = m["attempt"].as_u64().filter(|n| *n > 1) {
                let _ = write!(said, ", attempt {attempt}");
            }
            said
        }
        "failed" => failure(m),
        "assigned" if m["failures"].as_u64() > Some(0) => format!("failed: {}", failure(m)),
        "installed" => {
            text(m, "installed").parse().map(|then| until(then, now)).unwrap_or_default()
        }
        "discovered" | "seen" => {
            let of = [fact("manufacturer"), fact("product"), fact("arch")];
            of.iter().filter(|t| !t.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

fn failure(m: &Value) -> String {
    match text(&m["failure"], "why") {
        why if why.is_empty() => String::new(),
        why => format!("{why} (at {})", text(&m["failure"], "step")),
    }
}

/// `41 %, 8.22 MB/s, 5 min left`
pub(super) fn progress(m: &Value) -> Option<String> {
    let p = m.get("progress").filter(|p| p.is_object())?;
    let mut said = Vec::new();
    if let Some(percent) = p["percent"].as_u64() {
        said.push(format!("{percent} %"));
    } else if let Some(bytes) = p["bytes"].as_u64() {
        said.push(size(bytes));
    }
    if let Some(rate) = p["rate"].as_u64().filter(|rate| *rate > 0) {
        said.push(format!("{}/s", size(rate)));
    }
    if let Some(left) = p["left"].as_u64() {
        said.push(match left {
            0..90 => format!("{left} s left"),
            _ => format!("{} min left", left / 60),
        });
    }
    (!said.is_empty()).then(|| said.join(", "))
}

/// `3 machines: 1 installing, 2 installed`
pub(super) fn counts(machines: &[Value]) -> String {
    let mut states = json!({});
    for m in machines {
        let state = text(m, "state");
        states[&state] = (states[&state].as_u64().unwrap_or(0) + 1).into();
    }
    format!("{}: {}.", count(machines.len() as u64, "machine"), by_state(&states))
}

/// In the order of a life.
pub(super) fn by_state(states: &Value) -> String {
    let known = State::ALL.map(State::word).into_iter().chain(["live", "seen"]);
    let said: Vec<String> = known
        .filter_map(|word| states[word].as_u64().filter(|n| *n > 0).map(|n| format!("{n} {word}")))
        .collect();
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_as_much_as_is_known() {
        let of = |p: Value| progress(&json!({ "progress": p }));
        assert_eq!(of(Value::Null), None);
        let all = json!({ "percent": 41, "bytes": 5, "rate": 8_222_656, "left": 340 });
        assert_eq!(of(all).unwrap(), "41 %, 8.22 MB/s, 5 min left");
        assert_eq!(of(json!({ "bytes": 296_448, "rate": 0 })).unwrap(), "296 kB");
        assert_eq!(of(json!({ "percent": 99, "left": 7 })).unwrap(), "99 %, 7 s left");
    }

    #[test]
    fn what_goes_to_a_pipe_is_not_cut() {
        let name = "a-name-with-more-than-22-characters";
        let machines =
            [json!({ "name": name, "profile": "centos-7-x86_64-dvd-2009", "state": "idle" })];
        let none = Filter { state: None, profile: None, word: None };
        let whole = people(&machines, &none, Timestamp::UNIX_EPOCH, true);
        assert!(whole.contains(name) && whole.contains("  centos-7-x86_64-dvd-2009"), "{whole}");
        let cut = people(&machines, &none, Timestamp::UNIX_EPOCH, false);
        assert!(cut.contains("centos-7-x86_6…") && !cut.contains(name), "{cut}");
    }

    #[test]
    fn a_query_says_what_was_given() {
        let filter = |state: &str, word: &str| Filter {
            state: Some(state.into()),
            profile: None,
            word: Some(word.into()),
        };
        assert_eq!(
            filter("failed", "a&b=c d").query(Some(5)),
            "/api/v1/machines?state=failed&q=a%26b%3Dc%20d&limit=5"
        );
        let none = Filter { state: None, profile: None, word: None };
        assert_eq!(none.query(None), "/api/v1/machines");
        assert!(state("fail").is_err());
        assert!(State::ALL.iter().all(|s| state(s.word()).is_ok()) && state("seen").is_ok());
    }
}
