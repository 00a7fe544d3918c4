//! Who has which address: dhcpd.leases(5) of ISC DHCP, and the file of leases of dnsmasq.
//!
//! Both are logs of a kind: of several entries for an address the last one counts. What is over, or
//! nobody's, does not come along; whether the rest may is for the store of leases to say.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Here;
use super::dhcpd::{Statement, read};
use crate::config::Finding;
use crate::model::{Mac, Why};

/// Leases of one file.
const LIMIT: usize = 200_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub mac: Mac,
    pub starts: Option<Timestamp>,
    /// `None`: never.
    pub ends: Option<Timestamp>,
    pub hostname: Option<String>,
    pub at: Here,
}

/// Why a lease does not come along.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    #[error("it is over")]
    Over,
    #[error("nobody has it: its state is {0}")]
    NotActive(String),
    #[error("it says no MAC address, by which machines are known here")]
    NoMac,
    #[error("it is no lease: \"TIME MAC ADDRESS NAME ID\" is wanted")]
    NoLease,
    #[error("it says no time that can be read")]
    NoTime,
    #[error("addresses of IPv6 are not given")]
    SixOnly,
    #[error("there is room for {LIMIT}")]
    TooMany,
    #[error("it is no lease of an address")]
    Other,
}

impl Why for Gone {
    fn name(&self) -> &'static str {
        match self {
            Gone::Over => "over",
            Gone::NotActive(_) => "not-active",
            Gone::NoMac => "no-mac",
            Gone::NoLease => "no-lease",
            Gone::NoTime => "no-time",
            Gone::SixOnly => "ipv6",
            Gone::TooMany => "too-many",
            Gone::Other => "other",
        }
    }
}

/// What a file of leases says.
#[derive(Debug, Default)]
pub struct Told {
    pub leases: Vec<Lease>,
    pub gone: Vec<(Here, Gone)>,
}

impl Told {
    pub fn extend(&mut self, more: Told) {
        self.leases.extend(more.leases);
        self.gone.extend(more.gone);
    }
}

type Found = BTreeMap<Ipv4Addr, Result<Lease, (Here, Gone)>>;

fn told(found: Found, mut gone: Vec<(Here, Gone)>) -> Told {
    let mut leases = Vec::new();
    for entry in found.into_values() {
        match entry {
            Ok(lease) => leases.push(lease),
            Err(why) => gone.push(why),
        }
    }
    gone.sort_by_key(|(at, _)| at.line);
    Told { leases, gone }
}

/// dhcpd.leases; `now` tells which are over.
///
/// # Errors
/// Where it is none.
pub fn of_dhcpd(file: &Path, text: &str, now: Timestamp) -> Result<Told, Box<Finding>> {
    let mut found = Found::new();
    let mut gone = Vec::new();
    for s in read(file, text)? {
        match (s.word(0), s.word(1).parse::<Ipv4Addr>(), &s.block) {
            ("lease", Ok(_), Some(_)) if found.len() >= LIMIT => gone.push((s.at, Gone::TooMany)),
            ("lease", Ok(address), Some(block)) => {
                let entry = one(address, block, &s.at, now);
                found.insert(address, entry.map_err(|why| (s.at, why)));
            }
            ("ia-na" | "ia-ta" | "ia-pd", ..) => gone.push((s.at, Gone::SixOnly)),
            ("server-duid" | "authoring-byte-order", ..) => {}
            _ => gone.push((s.at, Gone::Other)),
        }
    }
    Ok(told(found, gone))
}

fn one(address: Ipv4Addr, block: &[Statement], at: &Here, now: Timestamp) -> Result<Lease, Gone> {
    let find = |key: &str| block.iter().find(|s| s.word(0) == key);
    // Files of before 3.0 know no states.
    let state = block.iter().find(|s| s.word(0) == "binding" && s.word(1) == "state");
    if let Some(state) = state.map(|s| s.word(2)).filter(|s| !matches!(*s, "active" | "bootp")) {
        return Err(Gone::NotActive(state.chars().take(20).collect()));
    }
    if find("abandoned").is_some() || find("free").is_some() {
        return Err(Gone::NotActive("abandoned".into()));
    }
    let mac = find("hardware").filter(|s| s.word(1) == "ethernet");
    let mac = mac.and_then(|s| s.word(2).parse().ok()).ok_or(Gone::NoMac)?;
    let starts = find("starts").and_then(|s| time(s).ok().flatten());
    let ends = time(find("ends").ok_or(Gone::NoTime)?)?;
    if ends.is_some_and(|ends| ends <= now) {
        return Err(Gone::Over);
    }
    let hostname = find("client-hostname").map(|s| s.word(1)).and_then(hostname);
    Ok(Lease { address, mac, starts, ends, hostname, at: at.clone() })
}

/// `ends 4 2026/11/21 08:00:00`, in UTC; `ends epoch 1790000000`; `ends never`.
fn time(s: &Statement) -> Result<Option<Timestamp>, Gone> {
    let seconds = |text: &str| {
        text.parse().ok().and_then(|n| Timestamp::from_second(n).ok()).ok_or(Gone::NoTime)
    };
    match (s.word(1), s.words.len()) {
        ("never", 2) => Ok(None),
        ("epoch", 3) => seconds(s.word(2)).map(Some),
        (_, 4..) => {
            let text = format!("{} {}", s.word(2), s.word(3));
            let civil = DateTime::strptime("%Y/%m/%d %H:%M:%S", text).map_err(|_| Gone::NoTime)?;
            let at = civil.to_zoned(TimeZone::UTC).map_err(|_| Gone::NoTime)?;
            Ok(Some(at.timestamp()))
        }
        _ => Err(Gone::NoTime),
    }
}

/// The file of leases of dnsmasq: `TIME MAC ADDRESS NAME ID`, then those of IPv6.
pub fn of_dnsmasq(file: &Path, text: &str, now: Timestamp) -> Told {
    let name: Arc<str> = file.display().to_string().into();
    let mut found = Found::new();
    let (mut gone, mut six) = (Vec::new(), false);
    for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let at = Here::new(&name, (n + 1, n + 1), line);
        let words: Vec<&str> = line.split_whitespace().collect();
        six |= words[0] == "duid";
        let address = words.get(2).and_then(|w| w.parse::<Ipv4Addr>().ok());
        match (address, words[..].len()) {
            _ if six => gone.push((at, Gone::SixOnly)),
            _ if found.len() >= LIMIT => gone.push((at, Gone::TooMany)),
            (Some(address), 4 | 5) => {
                let entry = line_of(&words, address, &at, now);
                found.insert(address, entry.map_err(|why| (at, why)));
            }
            _ => gone.push((at, Gone::NoLease)),
        }
    }
    told(found, gone)
}

fn line_of(words: &[&str], address: Ipv4Addr, at: &Here, now: Timestamp) -> Result<Lease, Gone> {
    let seconds: i64 = words[0].parse().map_err(|_| Gone::NoTime)?;
    let ends = Timestamp::from_second(seconds).map_err(|_| Gone::NoTime)?;
    let ends = (seconds != 0).then_some(ends);
    if ends.is_some_and(|ends| ends <= now) {
        return Err(Gone::Over);
    }
    // Another type of hardware stands before the address: `06-…`.
    let mac = words[1].parse().map_err(|_| Gone::NoMac)?;
    let hostname = words.get(3).copied().filter(|n| *n != "*").and_then(hostname);
    Ok(Lease { address, mac, starts: None, ends, hostname, at: at.clone() })
}

/// What a client calls itself, if it can be kept: as the DHCP server itself takes it.
fn hostname(text: &str) -> Option<String> {
    let fit = (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    fit.then(|| text.to_string())
}
