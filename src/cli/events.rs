//! `pilotlight events`: what happens, as it happens.

use std::time::Duration;

use serde_json::Value;

use super::ask::text;
use super::door::{Door, Refused, Server, part, who};
use super::output;

/// Before a stream that broke is opened anew.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight events
  pilotlight events --machine web1
  pilotlight events --json | jq 'select(.event == \"life\") | .after'

Goes on until Ctrl-C; a stream that breaks, because the server is started anew
say, is opened again. What happened before is shown by `pilotlight timeline`.")]
pub struct Events {
    #[command(flatten)]
    server: Server,
    /// Only what happens to this one, by name or MAC
    #[arg(long, value_name = "MACHINE", value_parser = who)]
    machine: Option<String>,
    /// For programs: one JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(order: &Events) -> anyhow::Result<()> {
    let door = order.server.open()?;
    let path = match &order.machine {
        Some(who) => format!("/api/v1/events?machine={}", part(who)),
        None => "/api/v1/events".into(),
    };
    let mut ever = false;
    loop {
        let mut opened = false;
        let ended = listen(&door, &path, order.json, &mut opened);
        ever |= opened;
        match ended {
            Err(why) if !ever || why.is::<Refused>() || super::is_closed_pipe(&why) => {
                return Err(why);
            }
            _ if opened => output::complain("the stream ended; it is opened again when it can be"),
            // Told already.
            _ => {}
        }
        std::thread::sleep(PAUSE);
    }
}

/// Until the stream ends.
fn listen(door: &Door, path: &str, json: bool, opened: &mut bool) -> anyhow::Result<()> {
    let mut kind = String::new();
    for line in door.lines(path)? {
        *opened = true;
        let line = line?;
        if let Some(word) = line.strip_prefix("event: ") {
            kind = word.into();
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(data)?;
            if let Some(said) = said(&kind, data, json) {
                output::print(&said)?;
            }
        }
    }
    Ok(())
}

/// One event, as a program or a person reads it.
fn said(kind: &str, mut data: Value, json: bool) -> Option<String> {
    if json {
        data["event"] = kind.into();
        return Some(data.to_string());
    }
    let mac = text(&data, "mac");
    let line = match kind {
        "entry" => {
            let what = [text(&data, "stage"), text(&data, "what"), text(&data, "detail")];
            format!("{} {mac}  {}", time(&text(&data, "at")), what.join(" ").trim_end())
        }
        "life" => {
            let who = match text(&data, "name") {
                name if name.is_empty() => mac,
                name => format!("{mac}  {name}"),
            };
            let became = |key: &str| match text(&data, key) {
                word if word.is_empty() => "unknown".to_string(),
                word => word,
            };
            let mut line = format!("{who}: {}, was {}", became("after"), became("before"));
            let profile = text(&data["life"], "profile");
            if !profile.is_empty() {
                line += &format!(" ({profile})");
            }
            line
        }
        "alarm" => format!("Look: {}", text(&data, "text")),
        "resync" => format!("… {} events were missed", data["missed"].as_u64().unwrap_or(0)),
        _ => return None,
    };
    Some(line)
}

/// `12:10:44.120`, of a time in UTC as JSON has it.
fn time(at: &str) -> String {
    at.parse::<jiff::Timestamp>().map(|t| t.strftime("%T%.3f").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line() {
        let mac = "52:54:00:12:34:56";
        let entry = json!({ "mac": mac, "at": "2026-11-21T12:10:44.12Z", "stage": "kernel",
            "what": "GET", "detail": "/x\u{1b}[2J" });
        assert_eq!(
            said("entry", entry.clone(), false).unwrap(),
            "12:10:44.120 52:54:00:12:34:56  kernel GET /x?[2J"
        );
        let object: Value = serde_json::from_str(&said("entry", entry, true).unwrap()).unwrap();
        assert_eq!((&object["event"], &object["what"]), (&json!("entry"), &json!("GET")));
        let life = json!({ "mac": mac, "name": "web1", "before": "assigned", "after": "installing",
            "life": { "profile": "debian" } });
        assert_eq!(
            said("life", life, false).unwrap(),
            "52:54:00:12:34:56  web1: installing, was assigned (debian)"
        );
        let gone = json!({ "mac": mac, "before": "local", "after": null, "life": null });
        assert_eq!(said("life", gone, false).unwrap(), "52:54:00:12:34:56: unknown, was local");
        assert_eq!(said("hello", json!({}), false), None);
    }
}
