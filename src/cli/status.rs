//! `pilotlight status`: how a server is, at a glance.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{alarms, list, text, until};
use super::door::Server;
use super::machine::by_state;
use super::{output, watch};
use crate::app::count;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight status
  pilotlight status --watch
      Installations on their way, with how far they are, until Ctrl-C.
  pilotlight status --json | jq .status.machines
  pilotlight status --server https://boot.example:8067 --ca ca.pem --token-file token

Exit code 0 if the server answers, whatever it has to say.")]
pub struct Status {
    #[command(flatten)]
    server: Server,
    /// Go on showing it, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

pub fn run(order: &Status) -> anyhow::Result<()> {
    let door = order.server.open()?;
    if order.watch {
        return watch::run(&door, "/api/v1/machines?state=installing", true);
    }
    let (status, told) = (door.get("/api/v1/status")?, door.get("/api/v1/alarms")?);
    let said = match order.json {
        true => json!({ "status": status, "alarms": told }).to_string(),
        false => people(&status, list(&told), Timestamp::now()),
    };
    Ok(output::print(&said)?)
}

fn people(status: &Value, told: &[Value], now: Timestamp) -> String {
    let since = text(status, "started").parse().map(|then| until(then, now)).unwrap_or_default();
    let interfaces: Vec<String> = list(&status["interfaces"]).iter().map(interface).collect();
    let rows = [
        ("pilotlight", format!("{}, started {since}", text(status, "version"))),
        ("DHCP", text(status, "mode")),
        ("interfaces", interfaces.join(", ")),
        ("machines", machines(status)),
    ];
    let mut said: String = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| output::wrap(&format!("{key:<12}"), value))
        .collect();
    if let Some(trouble) = trouble(status) {
        said += &format!("\n{}", output::wrap("Look: ", &trouble));
    }
    said + &alarms(told, now)
}

fn interface(i: &Value) -> String {
    let addresses: Vec<&str> = list(&i["addresses"]).iter().filter_map(Value::as_str).collect();
    format!("{} ({})", text(i, "name"), addresses.join(", "))
}

fn machines(status: &Value) -> String {
    match by_state(&status["machines"]) {
        none if none.is_empty() => "none yet".into(),
        some => some,
    }
}

fn trouble(status: &Value) -> Option<String> {
    let store = &status["store"];
    (store["writable"] == false)
        .then(|| format!("the store cannot be written: {}", text(store, "trouble")))
}

/// The same in one line.
pub(super) fn line(status: &Value) -> String {
    let alarms = status["alarms"].as_u64().unwrap_or(0);
    let mut said = machines(status);
    if alarms > 0 {
        said += &format!("; {}", count(alarms, "alarm"));
    }
    if let Some(trouble) = trouble(status) {
        said += &format!("; {trouble}");
    }
    said
}
