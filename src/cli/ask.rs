//! What a running server is asked by its admin door, and how the answers are shown.

use std::io::IsTerminal;

use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use jiff::Timestamp;
use serde_json::Value;

use super::door::{self, Server, TEXT, part};
use super::output::{self, COLUMNS};
use crate::app::count;
use crate::model::event::plain;

/// A line below the head of a table and no other: a timeline of twenty entries stays on one screen.
const HEAD_LINE: &str = "     ─             ";

/// What the server's admin door says at `path`.
pub(super) fn get(server: &str, path: &str) -> anyhow::Result<Value> {
    door::at(server)?.get(path)
}

/// What it says to an order.
pub(super) fn post(server: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    door::at(server)?.post(path, body)
}

/// A table whose first `fixed` columns are never broken, and that fits the terminal, or paper.
pub fn table(head: &[&str], fixed: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(HEAD_LINE);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(COLUMNS as u16);
    }
    table.set_header(head);
    for column in table.column_iter_mut().take(fixed) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// Without the spaces that fill its lines up.
pub fn lines(table: &Table) -> String {
    table.lines().map(|l| l.trim_end().to_string() + "\n").collect()
}

pub(super) fn text(v: &Value, key: &str) -> String {
    plain(v.get(key).and_then(Value::as_str).unwrap_or_default(), TEXT)
}

pub(super) fn list(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `pilotlight leases`
pub fn leases(server: &Server, json: bool) -> anyhow::Result<()> {
    let door = server.open()?;
    let all = door.get("/api/v1/leases")?;
    let said = match json {
        true => all.to_string(),
        false => {
            let now = Timestamp::now();
            leases_table(list(&all), now) + &alarms(list(&door.get("/api/v1/alarms")?), now)
        }
    };
    Ok(output::print(&said)?)
}

/// What a person has to look at: another DHCP server, an address that somebody else uses.
pub(super) fn alarms(all: &[Value], now: Timestamp) -> String {
    let line = |a: &Value| {
        let last = text(a, "last").parse().map(|then| until(then, now)).unwrap_or_default();
        let times = a.get("times").and_then(Value::as_u64).unwrap_or_default();
        let said = format!("{} ({}, last {last})", text(a, "text"), count(times, "time"));
        format!("\n{}", output::wrap("Look: ", &said))
    };
    all.iter().map(line).collect()
}

fn leases_table(all: &[Value], now: Timestamp) -> String {
    if all.is_empty() {
        return "No leases. In proxy mode the site's DHCP server has them.".into();
    }
    let mut table = table(&["address", "machine", "state", "ends", "host name"], 4);
    for l in all {
        let ends = text(l, "ends").parse().map(|then| until(then, now)).unwrap_or_default();
        table.add_row([
            text(l, "address"),
            text(l, "mac"),
            text(l, "state"),
            ends,
            text(l, "hostname"),
        ]);
    }
    lines(&table)
}

/// How far off a time is, in words.
pub(super) fn until(then: Timestamp, now: Timestamp) -> String {
    let seconds = then.duration_since(now).as_secs();
    let n = seconds.unsigned_abs();
    let span = match n {
        0..60 => format!("{n} s"),
        60..3600 => format!("{} min", n / 60),
        3600..86_400 => format!("{} h {} min", n / 3600, n % 3600 / 60),
        _ => format!("{} d {} h", n / 86_400, n % 86_400 / 3600),
    };
    match seconds {
        0 => "now".into(),
        1.. => format!("in {span}"),
        _ => format!("{span} ago"),
    }
}

/// `pilotlight timeline [MACHINE]`
pub fn timeline(server: &Server, who: Option<&str>, json: bool) -> anyhow::Result<()> {
    let door = server.open()?;
    let mut machines = match who {
        Some(who) => vec![door.get(&format!("/api/v1/machines/{}", part(who)))?],
        None => list(&door.get("/api/v1/machines?timeline=true")?).to_vec(),
    };
    // Those that are declared, and have not asked yet, have none.
    machines.retain(|m| m.get("timeline").is_some_and(|t| !list(t).is_empty()));
    let said = match json {
        true => Value::Array(machines).to_string(),
        false => timelines(&machines, who, Timestamp::now()),
    };
    Ok(output::print(&said)?)
}

fn timelines(machines: &[Value], asked: Option<&str>, now: Timestamp) -> String {
    if machines.is_empty() {
        return match asked {
            Some(who) => format!("{who} has not asked yet: boot it from the network."),
            None => "No machine has asked yet: switch one on, and boot it from the network.".into(),
        };
    }
    let all: Vec<String> = machines.iter().map(|m| of_machine(m, now)).collect();
    all.join("\n")
}

fn of_machine(machine: &Value, now: Timestamp) -> String {
    let first = machine.get("timeline").map(list).unwrap_or_default().first().and_then(at);
    let name = Some(text(machine, "name"));
    let facts = machine.get("facts").unwrap_or(&Value::Null);
    let about = ["manufacturer", "product", "arch"].map(|k| Some(text(facts, k)));
    let begun = first.map(|then| until(then, now));
    let about: Vec<String> = [name]
        .into_iter()
        .chain(about)
        .chain([begun])
        .flatten()
        .filter(|t| !t.is_empty())
        .collect();
    let said = output::wrap(&format!("{}  ", text(machine, "mac")), &about.join(", "));
    said + &entries(machine)
}

fn at(e: &Value) -> Option<Timestamp> {
    text(e, "at").parse().ok()
}

/// The timeline itself, in seconds since its first entry.
pub(super) fn entries(machine: &Value) -> String {
    let entries = machine.get("timeline").map(list).unwrap_or_default();
    let Some(first) = entries.first().map(at) else { return String::new() };
    let mut table = table(&["s", "stage", "what"], 2);
    for e in entries {
        let since = match (first, at(e)) {
            (Some(a), Some(b)) => format!("{:.3}", b.duration_since(a).as_secs_f64()),
            _ => String::new(),
        };
        let what = format!("{} {}", text(e, "what"), text(e, "detail"));
        table.add_row([since, text(e, "stage"), what]);
    }
    if let Some(seconds) = table.column_mut(0) {
        seconds.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    lines(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_by_its_two_largest_units() {
        let now = Timestamp::UNIX_EPOCH;
        for (seconds, want) in [
            (0, "now"),
            (59, "in 59 s"),
            (-1, "1 s ago"),
            (60, "in 1 min"),
            (3599, "in 59 min"),
            (3600, "in 1 h 0 min"),
            (-86_399, "23 h 59 min ago"),
            (90_000, "in 1 d 1 h"),
        ] {
            let then = Timestamp::from_second(seconds).unwrap();
            assert_eq!(until(then, now), want);
        }
    }
}
