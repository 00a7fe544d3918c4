//! Which names, which chain, and when it is time for new ones: pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use rustls_pki_types::DnsName;

use super::Error;
use crate::config;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a leaf lasts.
pub const LEAF_LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());
/// A leaf with this much left, a third, gets a successor: a machine whose clock is a month fast
/// still boots.
pub const LEAF_RENEW: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How long a root lasts.
pub const ROOT_LIFE: Duration = Duration::from_secs(3652 * DAY.as_secs());
/// A root with this much left is made anew from the same key: far longer than any leaf.
pub const ROOT_RENEW: Duration = Duration::from_secs(365 * DAY.as_secs());
/// The most names in a certificate: the whole chain stays within one TLS record of 16 kB.
pub const NAME_LIMIT: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    Dns(String),
    Ip(IpAddr),
}

/// What our own leaves say, as far as their renewal depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub names: BTreeSet<Name>,
    pub leaf_end: SystemTime,
    /// The end of the root that ends first.
    pub root_end: SystemTime,
}

/// Why other certificates were put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There were none of ours.
    First,
    /// The names and addresses that we serve on are others.
    Names,
    /// The leaves are about to end.
    LeafEnds,
    /// A root is about to end, or was made with a clock that was wrong.
    RootEnds,
    /// The user's own files changed.
    Own,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Why::First => "there were none of our own CA",
            Why::Names => "the names and addresses that we serve on changed",
            Why::LeafEnds => "the ones in force end within 30 days",
            Why::RootEnds => "the root ends within a year",
            Why::Own => "the files of the configured certificate changed",
        })
    }
}

/// The names for a leaf: what we serve on and what the configuration adds, each once.
pub fn names(config: &config::Tls, addresses: &[IpAddr]) -> Result<BTreeSet<Name>, Error> {
    let mut all: BTreeSet<Name> =
        addresses.iter().chain(&config.addresses).map(|a| Name::Ip(a.to_canonical())).collect();
    for name in &config.names {
        all.insert(self::name(name)?);
    }
    match all.len() {
        0..=NAME_LIMIT => Ok(all),
        count => Err(Error::TooManyNames { count, limit: NAME_LIMIT }),
    }
}

fn name(text: &str) -> Result<Name, Error> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Name::Ip(address.to_canonical()));
    }
    DnsName::try_from(text)
        .map(|_| Name::Dns(text.to_ascii_lowercase()))
        .map_err(|_| Error::Name { name: text.into() })
}

/// Whether it is time for new leaves.
pub fn due(held: Option<&Held>, wanted: &BTreeSet<Name>, now: SystemTime) -> Option<Why> {
    let Some(held) = held else { return Some(Why::First) };
    if held.names != *wanted {
        Some(Why::Names)
    } else if root_due(held.root_end, now) {
        Some(Why::RootEnds)
    } else if ends_within(held.leaf_end, LEAF_RENEW, now) {
        Some(Why::LeafEnds)
    } else {
        None
    }
}

/// Whether a root needs a successor.
pub fn root_due(end: SystemTime, now: SystemTime) -> bool {
    ends_within(end, ROOT_RENEW, now)
}

fn ends_within(end: SystemTime, left: Duration, now: SystemTime) -> bool {
    end.duration_since(now).map_or(true, |d| d <= left)
}

/// The first chain whose key can sign in a way that the client offered. rustls has reduced what a
/// TLS 1.2 client offers to what its cipher suites allow.
pub fn pick<'a>(
    chains: &'a [Arc<CertifiedKey>],
    offered: &[SignatureScheme],
) -> Option<&'a Arc<CertifiedKey>> {
    chains.iter().find(|c| c.key.choose_scheme(offered).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<Name> {
        names.iter().map(|n| name(n).unwrap()).collect()
    }

    #[test]
    fn renewals_as_a_timetable() {
        let start = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let held = Held {
            names: set(&["192.0.2.1"]),
            leaf_end: start + LEAF_LIFE,
            root_end: start + ROOT_LIFE,
        };
        let one = set(&["192.0.2.1"]);
        let two = set(&["192.0.2.1", "boot.example"]);
        // (day, names that we serve on, root's last day) -> why
        let timetable = [
            (0, &one, 3652, None),
            (0, &two, 3652, Some(Why::Names)),
            (0, &set(&[]), 3652, Some(Why::Names)),
            (59, &one, 3652, None),
            (60, &one, 3652, Some(Why::LeafEnds)),
            (60, &two, 3652, Some(Why::Names)),
            (91, &one, 3652, Some(Why::LeafEnds)),
            (4000, &one, 3652, Some(Why::RootEnds)),
            (10, &one, 376, None),
            (10, &one, 375, Some(Why::RootEnds)),
        ];
        for (day, names, root, why) in timetable {
            let held = Held { root_end: start + root * DAY, ..held.clone() };
            assert_eq!(due(Some(&held), names, start + day * DAY), why, "day {day}, root {root}");
        }
        assert_eq!(due(None, &one, start), Some(Why::First));
    }

    #[test]
    fn a_clock_that_was_wrong_when_the_root_was_made_heals() {
        let made = SystemTime::UNIX_EPOCH + DAY;
        assert!(!root_due(made + ROOT_LIFE, made + DAY));
        assert!(root_due(made + ROOT_LIFE, SystemTime::UNIX_EPOCH + 20_000 * DAY));
    }

    #[test]
    fn every_name_once_and_none_that_is_not_one() {
        let config = config::Tls {
            names: vec!["Boot.Example".into(), "192.0.2.1".into(), "boot.example".into()],
            addresses: vec!["192.0.2.9".parse().unwrap()],
            ..config::Tls::default()
        };
        let addresses = ["192.0.2.1".parse().unwrap(), "::ffff:192.0.2.9".parse().unwrap()];
        let want = set(&["192.0.2.1", "192.0.2.9", "boot.example"]);
        assert_eq!(names(&config, &addresses).unwrap(), want);

        for bad in ["", "two words", "*.example", "a..b", "ü.example"] {
            let config = config::Tls { names: vec![bad.into()], ..config::Tls::default() };
            assert!(matches!(names(&config, &[]), Err(Error::Name { .. })), "{bad:?}");
        }
        let many: Vec<IpAddr> = (0..=100u8).map(|n| [192, 0, 2, n].into()).collect();
        let none = config::Tls::default();
        assert!(matches!(names(&none, &many), Err(Error::TooManyNames { count: 101, .. })));
        assert_eq!(names(&none, &many[1..]).unwrap().len(), NAME_LIMIT);
    }
}
