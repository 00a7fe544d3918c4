//! `pilotlight token`: who may ask the admin door, by the server's API.

use jiff::Timestamp;
use serde_json::json;

use super::ask::{lines, list, table, text, until};
use super::door::{Server, part};
use super::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight token make grafana >token
      The token itself; it is shown this once.
  pilotlight token list
  pilotlight token revoke grafana
  pilotlight status --server https://boot.example:8067 --token-file token

On the server itself its loopback door wants no token; that is where the first
one is made.")]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the tokens there are, by name
    #[command(after_help = "\
Examples:
  pilotlight token list
  pilotlight token list --json | jq -r '.[].name'")]
    List(How),
    /// Make a token, and print it this once
    #[command(after_help = "\
Examples:
  (umask 077; pilotlight token make grafana >token)")]
    Make(Named),
    /// Let a token count no more, from now on
    #[command(after_help = "\
Examples:
  pilotlight token revoke grafana")]
    Revoke(Named),
}

#[derive(clap::Args)]
struct How {
    #[command(flatten)]
    server: Server,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Named {
    /// What it is known by
    name: String,
    #[command(flatten)]
    how: How,
}

pub fn run(token: &Token) -> anyhow::Result<()> {
    match &token.command {
        Command::List(how) => all(how),
        Command::Make(named) => make(named),
        Command::Revoke(named) => revoke(named),
    }
}

fn all(how: &How) -> anyhow::Result<()> {
    let all = how.server.open()?.get("/api/v1/tokens")?;
    if how.json {
        return Ok(output::print(&all.to_string())?);
    }
    let all = list(&all);
    if all.is_empty() {
        return Ok(output::print("No tokens. `pilotlight token make NAME` makes one.")?);
    }
    let now = Timestamp::now();
    let when = |t: &serde_json::Value, key: &str, never: &str| {
        text(t, key).parse().map_or(never.to_string(), |then| until(then, now))
    };
    let mut table = table(&["token", "made", "last used"], 3);
    for t in all {
        table.add_row([text(t, "name"), when(t, "created", ""), when(t, "used", "never")]);
    }
    Ok(output::print(&lines(&table))?)
}

fn make(named: &Named) -> anyhow::Result<()> {
    let door = named.how.server.open()?;
    let made = door.post("/api/v1/tokens", &json!({ "name": named.name }))?;
    Ok(output::print(&match named.how.json {
        true => made.to_string(),
        false => text(&made, "token"),
    })?)
}

fn revoke(named: &Named) -> anyhow::Result<()> {
    let door = named.how.server.open()?;
    door.delete(&format!("/api/v1/tokens/{}", part(&named.name)))?;
    Ok(output::print(&match named.how.json {
        true => json!({ "name": named.name, "revoked": true }).to_string(),
        false => format!("{} counts no more.", named.name),
    })?)
}
