//! What a person wants of machines.
//!
//! 1. [`Which`] says whom: by name, or all of a state.
//! 2. What cannot be taken back is asked about on the terminal, unless `--yes` was said.
//! 3. Each is told in its turn; what the server says comes next is a line. One that is refused
//!    keeps nobody else from being told, and the exit code is 1.

use std::io::{IsTerminal, Write as _};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{list, name, part, state, text};
use crate::app::count;
use crate::cli::door::{Door, Refused, Server, who};
use crate::cli::output;
use crate::power::Action;

/// Machines that one order names at the most.
const MACHINES: usize = 20_000;
/// Names that a question shows.
const SHOWN: usize = 5;

#[derive(clap::Args)]
struct Which {
    /// Machines, by name or MAC
    #[arg(required_unless_present = "state", value_name = "MACHINE", value_parser = who)]
    machines: Vec<String>,
    /// All machines in this state
    #[arg(long, value_parser = state, conflicts_with = "machines")]
    state: Option<String>,
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
#[command(after_help = "\
Examples:
  pilotlight machine assign 52:54:00:12:34:56 debian-12 --name web1
      Also for a machine that has not been seen yet.
  pilotlight machine assign web1 rescue-system
      What runs from the network wipes nothing, and is not asked about.
  pilotlight machine assign web1 debian-12 --yes

A machine that is installed is not assigned again: `machine reinstall` does that.")]
pub struct Assign {
    /// The machine, by name or MAC
    #[arg(value_parser = who)]
    machine: String,
    /// A [[profile]] of the configuration
    profile: String,
    /// What it is called from now on
    #[arg(long)]
    name: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine reinstall web1
      Its next boot from the network wipes its disk.
  pilotlight machine reinstall web1 --now
      And that is now: it is set to boot from the network once, and restarted.
  pilotlight machine reinstall web1 --profile debian-13
  pilotlight machine reinstall --state failed --yes

--now goes by the [[machine]]'s power setting. Without one a magic packet is all
there is: it starts what is off.")]
pub struct Reinstall {
    #[command(flatten)]
    which: Which,
    /// With this [[profile]], and not the one it had
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Restart it from the network at once
    #[arg(long)]
    now: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine local web1
  pilotlight machine local --state failed")]
pub struct Local {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine rescue web1
  pilotlight machine rescue web1 --profile memtest
  pilotlight machine local web1
      Back to its own disk.")]
pub struct Rescue {
    #[command(flatten)]
    which: Which,
    /// This [[profile]], and not that of [life] rescue
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine delete 52:54:00:12:34:56
  pilotlight machine delete --state discovered --yes

A machine that the configuration declares is as new then. Where its next boot
would install it again, the server refuses: take it out of the configuration
first.")]
pub struct Delete {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight machine power on web1 web2
  pilotlight machine power pxe web1
      Its next start is from the network, that one alone.
  pilotlight machine power cycle web1 --yes

How a machine is switched is the power setting of its [[machine]]: Redfish, or a
command. Without one `on` sends a magic packet (Wake-on-LAN), and nothing else
can be done.")]
pub struct Power {
    /// on, off, cycle, or pxe
    action: Action,
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    how: How,
}

/// Machines as the server has them, so that a mistyped name changes nothing at all.
struct Chosen(Vec<(String, Value)>);

impl Which {
    fn choose(&self, door: &Door) -> anyhow::Result<Chosen> {
        if let Some(state) = &self.state {
            let all = door.get(&format!("/api/v1/machines?state={}", part(state)))?;
            let all = list(&all).iter().map(|m| (text(m, "mac"), m.clone())).collect::<Vec<_>>();
            ensure!(!all.is_empty(), "no machine is {state}");
            return Ok(Chosen(all));
        }
        ensure!(self.machines.len() <= MACHINES, "more than {MACHINES} machines at once");
        let mut all: Vec<(String, Value)> = Vec::new();
        for who in &self.machines {
            let m = door.get(&format!("/api/v1/machines/{}", part(who)))?;
            let mac = text(&m, "mac");
            if !all.iter().any(|(known, _)| *known == mac) {
                all.push((mac, m));
            }
        }
        Ok(Chosen(all))
    }
}

impl Chosen {
    /// `web1`, `web1, web2 and web3`, `web1, … (37 machines)`
    fn words(&self) -> String {
        let names: Vec<String> = self.0.iter().take(SHOWN).map(|(_, m)| name(m)).collect();
        match self.0.len() {
            n if n > SHOWN => format!("{}, … ({})", names.join(", "), count(n as u64, "machine")),
            _ => names.join(", "),
        }
    }

    /// Tells each by `order`, which gives what the server said and a line for people.
    fn each(
        &self,
        json: bool,
        order: impl Fn(&str, &Value) -> anyhow::Result<(Value, String)>,
    ) -> anyhow::Result<()> {
        let (mut told, mut refused) = (Vec::new(), 0);
        for (mac, m) in &self.0 {
            match order(mac, m) {
                Ok((said, line)) => {
                    told.push(said);
                    if !json {
                        output::print(&output::wrap("", &line))?;
                    }
                }
                Err(why) if self.0.len() == 1 => return Err(why),
                Err(why) => {
                    refused += 1;
                    let why = format!("{why:#}");
                    told.push(json!({ "mac": mac, "error": why }));
                    output::complain(&format!("{}: {why}", name(m)));
                }
            }
        }
        if json {
            output::print(&Value::Array(told).to_string())?;
        }
        let all = self.0.len() as u64;
        ensure!(refused == 0, "{refused} of {} did not take it", count(all, "machine"));
        Ok(())
    }
}

/// Asks on the terminal.
fn sure(yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let here = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    ensure!(here, "{question} There is no terminal to ask at: say --yes");
    let mut to = anstream::stderr();
    write!(to, "{} [y/N] ", output::wrap("", question).trim_end())?;
    to.flush()?;
    let mut said = String::new();
    std::io::stdin().read_line(&mut said)?;
    match said.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

fn path(mac: &str, verb: &str) -> String {
    format!("/api/v1/machines/{}/{verb}", part(mac))
}

/// The order, and what the server says comes next.
fn next(door: &Door, mac: &str, verb: &str, body: &Value) -> anyhow::Result<(Value, String)> {
    let said = door.post(&path(mac, verb), body)?;
    let next = text(&said, "next");
    Ok((said, next + "."))
}

pub fn assign(order: &Assign) -> anyhow::Result<()> {
    let door = order.how.server.open()?;
    let mut body = json!({ "profile": order.profile });
    if let Some(name) = &order.name {
        body["name"] = json!(name);
    }
    let profiles = door.get("/api/v1/profiles")?;
    let installs = |p: &Value| text(p, "name") == order.profile && text(p, "kind") == "install";
    if list(&profiles).iter().any(installs) {
        let (who, profile) = (&order.machine, &order.profile);
        let what = "The disk is wiped at the next boot from the network.";
        sure(order.yes, &format!("Assign {profile} to {who}? {what}"))?;
    }
    let (said, line) = next(&door, &order.machine, "assign", &body)?;
    Ok(output::print(&match order.how.json {
        true => said.to_string(),
        false => output::wrap("", &line),
    })?)
}

fn with(profile: &Option<String>) -> Value {
    profile.as_ref().map_or(json!({}), |profile| json!({ "profile": profile }))
}

pub fn reinstall(order: &Reinstall) -> anyhow::Result<()> {
    let door = order.how.server.open()?;
    let chosen = order.which.choose(&door)?;
    let when = if order.now { "now" } else { "at the next boot from the network" };
    sure(order.yes, &format!("Install {} once more? The disk is wiped {when}.", chosen.words()))?;
    chosen.each(order.how.json, |mac, m| {
        let (said, next) = next(&door, mac, "reinstall", &with(&order.profile))?;
        if !order.now {
            return Ok((said, next));
        }
        let (how, said_of_power) = restart(&door, mac)
            .with_context(|| format!("{} is armed, and was not restarted", name(m)))?;
        let line = format!("{next} {said_of_power}");
        Ok((json!({ "machine": said, "power": how }), line))
    })
}

/// From the network, once. Where there is nothing but a magic packet, at least that.
fn restart(door: &Door, mac: &str) -> anyhow::Result<(Value, String)> {
    let switch = |action: Action| {
        let said = door.post(&path(mac, "power"), &json!({ "action": action }))?;
        let words = text(&said, "said");
        anyhow::Ok((said, words))
    };
    match switch(Action::Pxe) {
        Ok((first, set)) => {
            let (second, restarted) = switch(Action::Cycle)?;
            Ok((json!([first, second]), format!("Power: {set}; {restarted}.")))
        }
        Err(why) if why.downcast_ref::<Refused>().is_some_and(|r| r.name == "power-only-wakes") => {
            let (said, words) = switch(Action::On)?;
            let line = format!(
                "Power: {words}. If it is on already, restart it from the network by hand: it has \
                 no power setting that could."
            );
            Ok((json!([said]), line))
        }
        Err(why) => Err(why),
    }
}

pub fn local(order: &Local) -> anyhow::Result<()> {
    let door = order.how.server.open()?;
    let chosen = order.which.choose(&door)?;
    chosen.each(order.how.json, |mac, _| next(&door, mac, "local", &json!({})))
}

pub fn rescue(order: &Rescue) -> anyhow::Result<()> {
    let door = order.how.server.open()?;
    let chosen = order.which.choose(&door)?;
    chosen.each(order.how.json, |mac, _| next(&door, mac, "rescue", &with(&order.profile)))
}

pub fn delete(order: &Delete) -> anyhow::Result<()> {
    let door = order.how.server.open()?;
    let chosen = order.which.choose(&door)?;
    let declared = chosen.0.iter().any(|(_, m)| m["declared"] == true);
    let follows = match declared {
        true => {
            "What the configuration declares is as new then: with a profile that installs, the next \
             boot from the network wipes the disk."
        }
        false => "The next boot from the network finds it unknown.",
    };
    let question = format!("Forget all that is known of {}? {follows}", chosen.words());
    sure(order.yes, &question)?;
    chosen.each(order.how.json, |mac, m| {
        door.delete(&format!("/api/v1/machines/{}", part(mac)))?;
        let declared = m["declared"] == true;
        let line = match declared {
            true => format!("{} is forgotten; the configuration declares it still.", name(m)),
            false => format!("{} is forgotten.", name(m)),
        };
        Ok((json!({ "mac": mac, "deleted": true }), line))
    })
}

pub fn power(order: &Power) -> anyhow::Result<()> {
    let door = order.how.server.open()?;
    let chosen = order.which.choose(&door)?;
    let question = match order.action {
        Action::Off => Some("Switch off"),
        Action::Cycle => Some("Restart"),
        Action::On | Action::Pxe => None,
    };
    if let Some(verb) = question {
        sure(order.yes, &format!("{verb} {}, whatever runs there?", chosen.words()))?;
    }
    chosen.each(order.how.json, |mac, m| {
        let said = door.post(&path(mac, "power"), &json!({ "action": order.action }))?;
        let line = format!("{}: {}.", name(m), text(&said, "said"));
        Ok((said, line))
    })
}
