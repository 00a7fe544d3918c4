//! What a running server is asked by its admin door, and how the answers are shown.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::model::Mac;

/// More than 20,000 machines with full timelines.
const LIMIT: u64 = 512 * 1024 * 1024;

fn get(server: &str, path: &str) -> anyhow::Result<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .proxy(None)
        .build()
        .into();
    let mut response = agent.get(format!("http://{server}{path}")).call().with_context(|| {
        format!(
            "no server answers at {server}: is `pilotlight serve` running on this machine? \
             --server names another admin door"
        )
    })?;
    let text = response.body_mut().with_config().limit(LIMIT).read_to_string()?;
    serde_json::from_str(&text).with_context(|| format!("{server}{path} sent no JSON"))
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(head);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn text(v: &Value, key: &str) -> String {
    v.get(key).and_then(Value::as_str).unwrap_or_default().to_string()
}

/// `pilotlight leases`
pub fn leases(server: &str, json: bool) -> anyhow::Result<()> {
    let all = get(server, "/api/leases")?;
    if json {
        anstream::println!("{all}");
        return Ok(());
    }
    let list = all.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        anstream::println!("No leases. In proxy mode the site's DHCP server has them.");
        return Ok(());
    }
    let mut table = table(&["address", "machine", "state", "ends", "host name"]);
    for l in list {
        let ends = text(l, "ends").parse::<Timestamp>().map(until).unwrap_or_default();
        table.add_row([
            text(l, "address"),
            text(l, "mac"),
            text(l, "state"),
            ends,
            text(l, "hostname"),
        ]);
    }
    anstream::println!("{table}");
    Ok(())
}

/// How far off a time is, in words.
fn until(then: Timestamp) -> String {
    let seconds = then.duration_since(Timestamp::now()).as_secs();
    let span = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs() / 60 * 60));
    match seconds {
        0.. => format!("in {span}"),
        _ => format!("{span} ago"),
    }
}

/// `pilotlight timeline [MAC]`
pub fn timeline(server: &str, mac: Option<Mac>, json: bool) -> anyhow::Result<()> {
    let machines = match mac {
        Some(mac) => Value::Array(vec![get(server, &format!("/api/machines/{mac}"))?]),
        None => get(server, "/api/machines")?,
    };
    if json {
        anstream::println!("{machines}");
        return Ok(());
    }
    let list = machines.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        anstream::println!("No machine has asked yet.");
    }
    for machine in list {
        let name = text(machine, "name");
        let about = ["manufacturer", "product", "arch"]
            .iter()
            .filter_map(|k| machine.get("facts")?.get(*k)?.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        anstream::println!("{} {name}  {about}", text(machine, "mac"));
        let entries = machine.get("timeline").and_then(Value::as_array);
        let entries = entries.map(Vec::as_slice).unwrap_or_default();
        let at = |e: &Value| text(e, "at").parse::<Timestamp>().ok();
        let first = entries.first().and_then(at);
        let mut table = table(&["s", "stage", "what"]);
        for e in entries {
            let since = match (first, at(e)) {
                (Some(a), Some(b)) => format!("{:.3}", b.duration_since(a).as_secs_f64()),
                _ => String::new(),
            };
            table.add_row([
                since,
                text(e, "stage"),
                format!("{} {}", text(e, "what"), text(e, "detail")),
            ]);
        }
        anstream::println!("{table}\n");
    }
    Ok(())
}
