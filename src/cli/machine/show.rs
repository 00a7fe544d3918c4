//! All that is known of one machine, and where it stopped.

use jiff::Timestamp;
use serde_json::Value;

use super::{about, list, part, text, until};
use crate::cli::ask;
use crate::cli::door::{Server, who};
use crate::cli::output;
use crate::model::event::{plain, size};

/// Characters of a sentence of a diagnosis.
const LONG: usize = 600;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine show web1
  pilotlight machine show 5254.0012.3456 --json | jq .life

Times of the timeline are seconds since the first step of that boot.")]
pub struct Show {
    /// The machine, by name or MAC
    #[arg(value_parser = who)]
    machine: String,
    #[command(flatten)]
    server: Server,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight diagnose web1
  pilotlight diagnose 52:54:00:12:34:56 --json

Tells where its newest boot stands or stopped, what that is likely due to, and
what to do about it.")]
pub struct Diagnose {
    /// The machine, by name or MAC
    #[arg(value_parser = who)]
    machine: String,
    #[command(flatten)]
    server: Server,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

pub fn run(show: &Show) -> anyhow::Result<()> {
    let door = show.server.open()?;
    let machine = door.get(&format!("/api/v1/machines/{}", part(&show.machine)))?;
    let said = match show.json {
        true => machine.to_string(),
        false => people(&machine, Timestamp::now()),
    };
    Ok(output::print(&said)?)
}

/// `pilotlight diagnose`
pub fn diagnose(order: &Diagnose) -> anyhow::Result<()> {
    let door = order.server.open()?;
    let machine = door.get(&format!("/api/v1/machines/{}", part(&order.machine)))?;
    let said = match order.json {
        true => machine["diagnosis"].to_string(),
        false => diagnosis(&machine)
            .unwrap_or_else(|| "Nothing is wrong with it, as far as is known.".into()),
    };
    Ok(output::print(&said)?)
}

fn people(m: &Value, now: Timestamp) -> String {
    let ago = |key: &str| text(m, key).parse().map(|then| until(then, now)).unwrap_or_default();
    let facts = &m["facts"];
    let memory = facts["memsize"].as_u64().map(|mib| size(mib << 20)).unwrap_or_default();
    let of = |keys: &[&str]| {
        let all = keys.iter().map(|k| text(facts, k)).filter(|t| !t.is_empty());
        all.collect::<Vec<_>>().join(", ")
    };
    let state = [text(m, "state"), about(m, now), ago("since")];
    let state = state.into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(", ");
    let declared = if m["declared"] == true { "in the configuration" } else { "" }.to_string();
    let rows = [
        ("machine", text(m, "name")),
        ("MAC", text(m, "mac")),
        ("state", state),
        ("profile", text(m, "profile")),
        ("declared", declared),
        ("installed", ago("installed")),
        ("failed", failure(m, now)),
        ("seen", ago("seen")),
        ("address", text(facts, "ip")),
        ("hardware", of(&["manufacturer", "product", "arch"])),
        ("memory", memory),
        ("serial", of(&["serial", "asset"])),
        ("UUID", text(facts, "uuid")),
        ("iPXE", text(facts, "version")),
    ];
    let mut said: String = rows
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| output::wrap(&format!("{key:<11}"), value))
        .collect();
    if let Some(words) = diagnosis(m) {
        said += &format!("\n{words}");
    }
    if !list(&m["timeline"]).is_empty() {
        said += &format!("\n{}", ask::entries(m));
    }
    said
}

fn failure(m: &Value, now: Timestamp) -> String {
    let f = &m["failure"];
    let Ok(then) = text(f, "at").parse::<Timestamp>() else { return String::new() };
    let attempt = f["attempt"].as_u64().unwrap_or(1);
    let why = plain(&text(f, "why"), 200);
    format!("{}, attempt {attempt}, at {}: {why}", until(then, now), text(f, "step"))
}

/// Where its newest boot stopped, and what to do about it.
fn diagnosis(m: &Value) -> Option<String> {
    let words = |key: &str| plain(m["diagnosis"][key].as_str().unwrap_or_default(), LONG);
    let said = [words("sentence"), words("todo")].into_iter().filter(|w| !w.is_empty());
    m["diagnosis"].is_object().then(|| said.map(|words| output::wrap("", &words)).collect())
}
