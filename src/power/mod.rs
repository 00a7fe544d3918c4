//! Machines are switched on and off: by a magic packet, by their BMC's Redfish, or by a command.
//!
//! 1. [`act`] looks at how the machine is declared.
//! 2. [`wake`](serve) sends the packet of [`wire`] on the boot interfaces; [`redfish`](fetch) asks
//!    the BMC what it can ([`wire`]), picks a step ([`decide`]) and orders it; [`command`](serve)
//!    runs the user's program.
//! 3. What came of it is one sentence: [`Said`], or [`Trouble`] with what to do about it.

pub mod decide;
mod fetch;
mod serve;
pub mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::event::plain;
use crate::model::{Hidden, Interface, Mac, Power, Secret, Why};

/// UDP port of magic packets, the discard service's (RFC 863).
pub const WAKE_PORT: u16 = 9;

/// What a machine's power is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    On,
    Off,
    /// Off and on, or only on.
    Cycle,
    /// Its next start, and that one alone, is from the network.
    Pxe,
}

impl Action {
    pub const ALL: [Action; 4] = [Action::On, Action::Off, Action::Cycle, Action::Pxe];

    /// As the API, the command line and commands of the user's have it.
    pub fn word(self) -> &'static str {
        match self {
            Action::On => "on",
            Action::Off => "off",
            Action::Cycle => "cycle",
            Action::Pxe => "pxe",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(word: &str) -> Result<Action, String> {
        let found = Action::ALL.into_iter().find(|a| a.word() == word);
        found.ok_or_else(|| format!("{word:?} is none of on, off, cycle, pxe"))
    }
}

/// Whom an action is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub mac: Mac,
    /// Its name, or its MAC where it has none.
    pub name: &'a str,
    pub power: &'a Power,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Said {
    #[error("a magic packet was sent on {0}; whether the machine wakes depends on its firmware")]
    Woken(String),
    #[error("it is on already")]
    On,
    #[error("it is off already")]
    Off,
    #[error("its BMC takes the order {0}")]
    Ordered(&'static str),
    #[error("its next start is from the network ({0}), that one alone")]
    Network(&'static str),
    #[error("{program} {action}: done")]
    Ran { program: String, action: Action },
}

/// Why an action came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(
        "a magic packet switches a machine on and does no more: for {0:?} give its [[machine]] \
         power = {{ redfish = \"https://BMC/redfish/v1/Systems/1\", … }} or {{ command = [\"PROGRAM\"] }}"
    )]
    OnlyWakes(&'static str),
    #[error("no boot interface has a network to send a magic packet to")]
    NoNetwork,
    #[error("no magic packet leaves on {interface}: {source}")]
    NotSent { interface: String, source: std::io::Error },
    #[error("the password in its power setting: {0}")]
    Secret(String),
    #[error("power.redfish: {0:?} is no http:// or https:// URL of a ComputerSystem")]
    Url(String),
    #[error("the BMC {host} does not answer: {why}")]
    Unreachable { host: String, why: String },
    #[error(
        "the certificate of the BMC {host} is not to be trusted: {why}. Add the CA that made it to \
         this system's, or say insecure = true in its power setting"
    )]
    Certificate { host: String, why: String },
    #[error("the BMC {host} does not take the user and the password of its power setting")]
    Password { host: String },
    #[error(
        "the BMC {host} wants a user and a password: power = {{ redfish = …, user = …, password = … }}"
    )]
    NoPassword { host: String },
    #[error("the user of its power setting may not do that on the BMC {host}")]
    Rights { host: String },
    #[error("the BMC {host} has no system {path}{}", .has.iter().map(|h| format!("; it has {h}")).collect::<String>())]
    NoSystem { host: String, path: String, has: Option<String> },
    #[error("what answers at {host} is no Redfish ComputerSystem: {what}")]
    Garbage { host: String, what: &'static str },
    #[error("the BMC offers no way to {action}: it takes {offers}")]
    NotOffered { action: Action, offers: String },
    #[error("the BMC {host} refuses {order}: {status} {message}")]
    Refused { host: String, order: &'static str, status: u16, message: String },
    #[error("{program} cannot be run: {source}")]
    NotRun { program: String, source: std::io::Error },
    #[error("{program} {action} ends with {code}{}", said(.output))]
    Failed { program: String, action: Action, code: String, output: String },
    #[error("{program} {action} has not ended within {seconds} s and was killed{}", said(.output))]
    TooLong { program: String, action: Action, seconds: u64, output: String },
    #[error("the server is stopping")]
    Stopping,
}

fn said(output: &str) -> String {
    match output.is_empty() {
        true => ", and says nothing".into(),
        false => format!(": {output}"),
    }
}

impl Why for Trouble {
    fn name(&self) -> &'static str {
        match self {
            Trouble::OnlyWakes(_) => "power-only-wakes",
            Trouble::NoNetwork | Trouble::NotSent { .. } => "power-not-sent",
            Trouble::Secret(_) => "power-secret",
            Trouble::Url(_) => "power-url",
            Trouble::Unreachable { .. } => "power-unreachable",
            Trouble::Certificate { .. } => "power-certificate",
            Trouble::Password { .. } | Trouble::NoPassword { .. } => "power-password",
            Trouble::Rights { .. } => "power-rights",
            Trouble::NoSystem { .. } => "power-no-system",
            Trouble::Garbage { .. } => "power-no-redfish",
            Trouble::NotOffered { .. } => "power-not-offered",
            Trouble::Refused { .. } => "power-refused",
            Trouble::NotRun { .. } | Trouble::Failed { .. } => "power-command",
            Trouble::TooLong { .. } => "power-command-too-long",
            Trouble::Stopping => "power-stopping",
        }
    }
}

/// Where magic packets go: each network of the boot interfaces, by its own broadcast address, which
/// leaves on the right interface whatever the default route is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub interface: String,
    /// Ours on that interface.
    pub from: Ipv4Addr,
    pub to: SocketAddrV4,
}

/// The ways of all interfaces. A network without a broadcast address (RFC 3021) has none.
pub fn ways(interfaces: &[Interface]) -> Vec<Way> {
    let of = |i: &Interface| {
        let networks = i.addresses.iter().filter(|n| n.prefix_len() <= 30);
        let way = |n: &ipnet::Ipv4Net| Way {
            interface: i.name.clone(),
            from: n.addr(),
            to: SocketAddrV4::new(n.broadcast(), WAKE_PORT),
        };
        networks.map(way).collect::<Vec<_>>()
    };
    interfaces.iter().flat_map(of).collect()
}

/// Does `action`, as the machine is declared. Takes at most a minute and a half. `reveal` reads a
/// secret.
///
/// # Errors
/// [`Trouble`], with what to do about it.
pub async fn act(
    target: Target<'_>,
    action: Action,
    ways: &[Way],
    reveal: impl Fn(&Secret) -> Result<Hidden, String>,
) -> Result<Said, Trouble> {
    match target.power {
        Power::WakeOnLan if action == Action::On => serve::wake(target.mac, ways),
        Power::WakeOnLan => Err(Trouble::OnlyWakes(action.word())),
        Power::Redfish { url, user, password, insecure } => {
            let password = password.as_ref().map(reveal).transpose().map_err(Trouble::Secret)?;
            let login = user.as_deref().zip(password.as_ref());
            fetch::Bmc::new(url, login, *insecure)?.act(action).await
        }
        Power::Command(words) => serve::command(words, target, action).await,
    }
}

/// Why TLS did not trust the other side, if that is what is wrong.
pub fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match of_tls(error)? {
        rustls::Error::InvalidCertificate(why) => Some(plain(&why.to_string(), 200)),
        _ => None,
    }
}

/// Whether what answered a TLS greeting speaks no TLS: plain HTTP, most likely.
pub fn speaks_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let said = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    of_tls(error) == Some(&said)
}

/// What TLS says is wrong. An `io::Error` hides what it is made of from `source`.
fn of_tls<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    for _ in 0..16 {
        let error = next?;
        if let Some(why) = error.downcast_ref() {
            return Some(why);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
