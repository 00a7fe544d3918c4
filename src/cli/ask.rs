//! What a running server is asked by its admin door, and how the answers are shown.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use jiff::Timestamp;
use serde_json::Value;

use super::output::{self, COLUMNS};
use crate::app::count;
use crate::model::Mac;
use crate::model::event::plain;

/// A line below the head of a table and no other: a timeline of twenty entries stays on one screen.
const HEAD_LINE: &str = "     ─             ";
/// More than 20,000 machines with full timelines.
const LIMIT: u64 = 512 * 1024 * 1024;
/// Characters of one text that is shown: machines' makers write what they like.
const TEXT: usize = 300;

/// What the server's admin door says at `path`.
pub(super) fn get(server: &str, path: &str) -> anyhow::Result<Value> {
    answer(server, agent().get(format!("http://{server}{path}")).call())
}

/// What it says to an order. The header is what tells us from a web page.
pub(super) fn post(server: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = agent().post(format!("http://{server}{path}")).header("pilotlight", "cache");
    answer(server, request.send(body.to_string()))
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

fn answer(
    server: &str,
    response: Result<http::Response<ureq::Body>, ureq::Error>,
) -> anyhow::Result<Value> {
    let mut response = response.with_context(|| {
        format!(
            "no server answers at {server}: start one by `pilotlight serve`, or name the address \
             of its [http] admin by --server"
        )
    })?;
    let text = response.body_mut().with_config().limit(LIMIT).read_to_string()?;
    if !response.status().is_success() {
        bail!("{server} says: {}", plain(text.trim(), TEXT));
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).ok().with_context(|| {
        format!("what answers at {server} is no pilotlight: --server names its [http] admin")
    })
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

fn text(v: &Value, key: &str) -> String {
    plain(v.get(key).and_then(Value::as_str).unwrap_or_default(), TEXT)
}

fn list(v: &Value) -> &[Value] {
    v.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `pilotlight leases`
pub fn leases(server: &str, json: bool) -> anyhow::Result<()> {
    let all = get(server, "/api/leases")?;
    let said = match json {
        true => all.to_string(),
        false => {
            let now = Timestamp::now();
            leases_table(list(&all), now) + &alarms(list(&get(server, "/api/alarms")?), now)
        }
    };
    Ok(output::print(&said)?)
}

/// What a person has to look at: another DHCP server, an address that somebody else uses.
fn alarms(all: &[Value], now: Timestamp) -> String {
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
fn until(then: Timestamp, now: Timestamp) -> String {
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

/// `pilotlight timeline [MAC]`
pub fn timeline(server: &str, mac: Option<Mac>, json: bool) -> anyhow::Result<()> {
    let machines = match mac {
        Some(mac) => Value::Array(vec![get(server, &format!("/api/machines/{mac}"))?]),
        None => get(server, "/api/machines")?,
    };
    let said = match json {
        true => machines.to_string(),
        false => timelines(list(&machines), Timestamp::now()),
    };
    Ok(output::print(&said)?)
}

fn timelines(machines: &[Value], now: Timestamp) -> String {
    if machines.is_empty() {
        return "No machine has asked yet: switch one on, and boot it from the network.".into();
    }
    let all: Vec<String> = machines.iter().map(|m| of_machine(m, now)).collect();
    all.join("\n")
}

fn of_machine(machine: &Value, now: Timestamp) -> String {
    let entries = machine.get("timeline").map(list).unwrap_or_default();
    let at = |e: &Value| text(e, "at").parse::<Timestamp>().ok();
    let first = entries.first().and_then(at);
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
    let mut said = output::wrap(&format!("{}  ", text(machine, "mac")), &about.join(", "));
    if entries.is_empty() {
        return said;
    }
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
    let _ = write!(said, "{}", lines(&table));
    said
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
