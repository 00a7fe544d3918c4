//! The boots that have a token: one of each machine, its newest. Known by what the token's digest
//! is, so that nothing here opens an answer.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};

use super::BOOT_LIFE;
use crate::model::{Facts, Life, Mac, token};

/// Boots at once of each kind, installing and live: those that install are as many as there can be
/// lives, and a flood of the others pushes out none of them.
pub const BOOTS: usize = 20_000;

/// One boot of one machine.
#[derive(Clone, Debug)]
pub struct Boot {
    pub mac: Mac,
    pub profile: String,
    /// As they were when it began: its answers are made of these.
    pub facts: Facts,
    pub since: Timestamp,
    /// SHA-256 of its token, in hex.
    pub key: String,
    /// The word in its report address.
    pub report: String,
    /// The address that asked for its script.
    pub address: Option<Ipv4Addr>,
    /// Whether it is an attempt to install, which the machine's life knows of.
    pub installs: bool,
    /// Whether it is only pretended: its answers hold no secrets, and its reports change nothing.
    pub rehearsed: bool,
    /// Not kept on any disk.
    token: Option<String>,
}

impl Boot {
    pub fn new(
        token: String,
        facts: Facts,
        profile: &str,
        address: Option<Ipv4Addr>,
        installs: bool,
        now: Timestamp,
    ) -> Boot {
        Boot {
            mac: facts.mac,
            profile: profile.into(),
            facts,
            since: now,
            key: token::key(&token),
            report: token::report(&token),
            address,
            installs,
            rehearsed: false,
            token: Some(token),
        }
    }

    /// The same, only pretended.
    pub fn rehearsed(self) -> Boot {
        Boot { installs: false, rehearsed: true, ..self }
    }

    /// Of the attempt that ran when the server was stopped.
    fn of(life: &Life) -> Option<Boot> {
        let attempt = life.attempt.as_ref()?;
        Some(Boot {
            mac: life.mac,
            profile: attempt.profile.clone(),
            facts: attempt.facts.clone(),
            since: attempt.began,
            key: attempt.boot.clone(),
            report: attempt.report.clone(),
            address: attempt.address,
            installs: true,
            rehearsed: false,
            token: None,
        })
    }

    /// The token itself, for a script that is asked for again; not after a restart of the server.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether its token opens anything: one that installs does while that attempt runs.
    fn lives(&self, life: Option<&Life>, now: Timestamp) -> bool {
        match self.installs {
            true => life.and_then(|l| l.attempt.as_ref()).is_some_and(|a| a.boot == self.key),
            false => {
                let limit = SignedDuration::try_from(BOOT_LIFE).unwrap_or(SignedDuration::MAX);
                now.duration_since(self.since) < limit
            }
        }
    }
}

#[derive(Default)]
pub struct Boots {
    by_mac: HashMap<Mac, Slot>,
    /// Keys, and report words, to the machine.
    keys: HashMap<String, Mac>,
    reports: HashMap<String, Mac>,
    /// Those that are live, and those that install, by when they were opened.
    order: [BTreeMap<u64, Mac>; 2],
    opened: u64,
}

struct Slot {
    boot: Boot,
    place: u64,
    /// The report word of the one before: it may come late.
    before: Option<String>,
}

impl Boots {
    /// With those of the attempts that run.
    pub fn of<'a>(lives: impl Iterator<Item = &'a Life>) -> Boots {
        let mut boots = Boots::default();
        for life in lives {
            if let Some(report) = &life.ended {
                boots.reports.insert(report.clone(), life.mac);
            }
            if let Some(boot) = Boot::of(life) {
                boots.open(boot);
                let slot = boots.by_mac.get_mut(&life.mac);
                slot.into_iter().for_each(|s| s.before = life.ended.clone());
            }
        }
        boots
    }

    /// The machine's newest boot; the one before it is dead. The same one once more changes nothing.
    pub fn open(&mut self, boot: Boot) {
        let same = |slot: &Slot| slot.boot.key == boot.key;
        if self.by_mac.get(&boot.mac).is_some_and(same) {
            return;
        }
        let (mac, kind) = (boot.mac, usize::from(boot.installs));
        let before = self.close(mac).map(|old| old.boot.report);
        if let Some(report) = &before {
            self.reports.insert(report.clone(), mac);
        }
        self.opened += 1;
        let place = self.opened;
        self.order[kind].insert(place, mac);
        self.keys.insert(boot.key.clone(), mac);
        self.reports.insert(boot.report.clone(), mac);
        self.by_mac.insert(mac, Slot { boot, place, before });
        if self.order[kind].len() > BOOTS
            && let Some((_, oldest)) = self.order[kind].pop_first()
        {
            self.close(oldest);
        }
    }

    fn close(&mut self, mac: Mac) -> Option<Slot> {
        let gone = self.by_mac.remove(&mac)?;
        self.order[usize::from(gone.boot.installs)].remove(&gone.place);
        self.keys.remove(&gone.boot.key);
        for report in gone.before.iter().chain([&gone.boot.report]) {
            self.reports.remove(report);
        }
        Some(gone)
    }

    /// The machine of a key, if there is a boot with that.
    pub fn machine(&self, key: &str) -> Option<Mac> {
        self.keys.get(key).copied()
    }

    /// The machine of a report word, and its boot if that is the one.
    pub fn reported(&self, report: &str) -> Option<(Mac, Option<&Boot>)> {
        let mac = *self.reports.get(report)?;
        let boot = self.by_mac.get(&mac).map(|slot| &slot.boot);
        Some((mac, boot.filter(|b| b.report == report)))
    }

    /// The boot of a key that is live: no life knows of it.
    pub fn live(&self, key: &str, now: Timestamp) -> Option<&Boot> {
        self.newest(self.machine(key)?, None, now).filter(|b| b.key == key)
    }

    pub fn newest(&self, mac: Mac, life: Option<&Life>, now: Timestamp) -> Option<&Boot> {
        self.by_mac.get(&mac).map(|slot| &slot.boot).filter(|b| b.lives(life, now))
    }
}
