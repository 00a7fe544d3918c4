//! `pilotlight replay`: a captured boot beside what we would have said.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;

use super::{ConfigFile, ask, output, remind};
use crate::app::{self, Exchange, Played, Replayed, count};
use crate::ledger::{End, Past};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo tcpdump -i eth1 -s 0 -w boot.pcap
  pilotlight replay boot.pcap
  pilotlight replay boot.pcap --config pilotlight.toml
  pilotlight replay boot.pcap --json | jq '.machines[].boots[0].diagnosis'

pcap and pcapng, of any server's network. Each DHCP message goes through our
decisions as if this server had been there, and stands beside what was said to it
in truth. Nothing is sent and nothing is changed. Times are seconds since the
first packet.")]
pub struct Replay {
    /// What tcpdump or Wireshark wrote
    file: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(replay: &Replay) -> anyhow::Result<()> {
    remind(replay.config.config.as_deref());
    let config = app::configuration(&app::Options {
        config: replay.config.config.clone(),
        ..app::Options::default()
    })?;
    let played = app::replay(&config, &replay.file)?;
    let said = match replay.json {
        true => serde_json::to_string(&played)?,
        false => shown(&played),
    };
    Ok(output::print(&said)?)
}

fn shown(played: &Replayed) -> String {
    let server = format!("{}, played at {}", count(played.packets, "packet"), played.server.addr());
    let mut said = output::wrap("", &server);
    for note in &played.notes {
        said += &output::wrap("Note: ", note);
    }
    if played.exchanges.is_empty() && played.machines.is_empty() {
        return said + "Nothing of a boot is in it.\n";
    }
    if let Some(first) = played.exchanges.first() {
        let _ = write!(said, "\n{}", exchanges(&played.exchanges, first.at));
    }
    for machine in &played.machines {
        let _ = write!(said, "\n{}", boots(machine));
    }
    said
}

fn exchanges(all: &[Exchange], first: Timestamp) -> String {
    let mut table = ask::table(&["s", "it asked", "we say", "it was told"], 1);
    for e in all {
        let theirs = match e.theirs.is_empty() {
            true => "nothing".to_string(),
            false => e.theirs.join("; "),
        };
        table.add_row([since(first, e.at), e.asked.clone(), e.ours.clone(), theirs]);
    }
    ask::lines(&table)
}

fn boots(machine: &Played) -> String {
    let mut said = String::new();
    let all = machine.boots.len();
    for (n, boot) in machine.boots.iter().rev().enumerate() {
        let arch = machine.facts.arch.map(|a| format!(", {a}")).unwrap_or_default();
        let head = format!("{}  boot {} of {all}{arch}", machine.mac, n + 1);
        let _ = writeln!(said, "{head}");
        for e in &boot.timeline {
            // Not a table, which breaks URLs in the middle of a word.
            let first = format!("{:>9}  {:<8}  ", since(boot.began, e.at), e.event.stage.word());
            said += &output::wrap(&first, &format!("{} {}", e.event.what, e.event.detail));
        }
        said += &stopped(boot);
    }
    said
}

/// Where it stopped, of one that did not come to its end.
fn stopped(boot: &Past) -> String {
    let stage = boot.stage.word();
    match (&boot.diagnosis, boot.end) {
        (Some(found), _) => output::wrap("  ", &found.to_string()),
        (None, End::Runs) => {
            output::wrap("  ", &format!("The capture ends while it is at its {stage}."))
        }
        (None, End::Stopped) => {
            output::wrap("  ", &format!("Nothing of it came after its {stage}."))
        }
        (None, End::Installed | End::Failed | End::Local | End::Booted) => String::new(),
    }
}

fn since(first: Timestamp, at: Timestamp) -> String {
    format!("{:.3}", at.duration_since(first).as_secs_f64())
}
