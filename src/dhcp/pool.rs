//! The ranges of one subnet: which of their addresses are free, and for whom.
//!
//! 1. [`Pool::room_for_stranger`]: the last addresses are kept for machines that are declared and
//!    have none yet; and where the pool runs low, no relay and no switch port gets more than its
//!    even share. What one visitor's laptop does with a thousand made-up addresses is his port's
//!    matter alone.
//! 2. [`Pool::free`]: an address never used before one that ended, and of those the one that ended
//!    longest ago: a machine that comes back after a while finds its own again.
//!
//! Every address that is given from here is in exactly one of `fresh`, `used`, `ended` and
//! `resting`.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use jiff::Timestamp;

use super::lease::Refused;

/// Where a client sits, by option 82 (RFC 3046): digests of the relay, and of the relay with the
/// switch port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub relay: u64,
    pub port: u64,
}

/// No share is smaller: a port may lead to a desk with a few machines.
const LEAST_SHARE: usize = 8;
/// No fewer addresses may rest, however small the pool.
const LEAST_RESTING: usize = 4;

pub struct Pool {
    pub network: Ipv4Net,
    /// First and last address of each range.
    ranges: BTreeSet<(u32, u32)>,
    /// Addresses in the ranges that are somebody's for good: reservations, ours, the routers.
    not_given: BTreeSet<Ipv4Addr>,
    /// Addresses that are given from here.
    size: usize,
    /// Declared machines that may come for one.
    expected: usize,
    /// With no record at all.
    fresh: BTreeSet<Ipv4Addr>,
    /// On record for a client whose time is over, by that time.
    ended: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// In use by somebody who is no client of ours, until then.
    resting: BTreeSet<(Timestamp, Ipv4Addr)>,
    /// Declared machines that have one.
    known: usize,
    /// Addresses of strangers by relay and by port.
    relays: HashMap<u64, usize>,
    ports: HashMap<u64, usize>,
}

impl Pool {
    /// A pool that nobody has an address of, of at most `limit` addresses.
    pub fn new(
        network: Ipv4Net,
        ranges: &[RangeInclusive<Ipv4Addr>],
        limit: usize,
        expected: usize,
        givable: impl Fn(&Ipv4Addr) -> bool,
    ) -> Pool {
        let all = ranges.iter().flat_map(|r| u32::from(*r.start())..=u32::from(*r.end()));
        let (fresh, not_given): (BTreeSet<_>, BTreeSet<_>) =
            all.take(limit).map(Ipv4Addr::from).partition(givable);
        Pool {
            network,
            ranges: ranges.iter().map(|r| (u32::from(*r.start()), u32::from(*r.end()))).collect(),
            not_given,
            size: fresh.len(),
            expected,
            fresh,
            ended: BTreeSet::new(),
            resting: BTreeSet::new(),
            known: 0,
            relays: HashMap::new(),
            ports: HashMap::new(),
        }
    }

    /// Whether the subnet has no range.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the address lies in a range.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let a = u32::from(address);
        self.ranges.range(..=(a, u32::MAX)).next_back().is_some_and(|(_, end)| a <= *end)
    }

    /// Whether it is given from here.
    pub fn gives(&self, address: Ipv4Addr) -> bool {
        self.holds(address) && !self.not_given.contains(&address)
    }

    fn left(&self) -> usize {
        self.fresh.len() + self.ended.len()
    }

    /// Whether a client that is not declared may have one more.
    ///
    /// # Errors
    /// Whom it would take it from.
    pub fn room_for_stranger(&self, source: Option<Source>) -> Result<(), Refused> {
        let left = self.left();
        if left == 0 {
            // The pool is full, for everybody.
            return Ok(());
        }
        // Half of the pool at most: a configuration may declare more than it has room for.
        let kept = self.expected.saturating_sub(self.known).min(self.size / 2);
        if left <= kept {
            return Err(Refused::Kept(self.network, kept));
        }
        if let Some(source) = source.filter(|_| 4 * left < self.size) {
            for (held, key) in [(&self.relays, source.relay), (&self.ports, source.port)] {
                let others = held.len() + usize::from(!held.contains_key(&key));
                let share = (self.size / others).max(LEAST_SHARE);
                if held.get(&key).is_some_and(|n| *n >= share) {
                    return Err(Refused::Share(self.network, share));
                }
            }
        }
        Ok(())
    }

    /// The next free address.
    ///
    /// In their order: machines that come together lie together in the store, and a hall of them is
    /// a few pages of it and not one for each.
    pub fn free(&self) -> Option<Ipv4Addr> {
        self.fresh.first().copied().or_else(|| self.ended.first().map(|(_, address)| *address))
    }

    /// What has rested longest, where more rest than may.
    pub fn rested_enough(&self) -> Option<Ipv4Addr> {
        let most = (self.size / 4).max(LEAST_RESTING);
        self.resting.first().filter(|_| self.resting.len() > most).map(|(_, address)| *address)
    }

    pub fn used(&mut self, address: Ipv4Addr, known: bool, source: Option<Source>) {
        self.fresh.remove(&address);
        match (known, source) {
            (true, _) => self.known += 1,
            (false, Some(source)) => {
                *self.relays.entry(source.relay).or_default() += 1;
                *self.ports.entry(source.port).or_default() += 1;
            }
            (false, None) => {}
        }
    }

    pub fn used_no_more(&mut self, address: Ipv4Addr, known: bool, source: Option<Source>) {
        fn less(held: &mut HashMap<u64, usize>, key: u64) {
            if let Some(count) = held.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    held.remove(&key);
                }
            }
        }
        match (known, source) {
            (true, _) => self.known -= 1,
            (false, Some(source)) => {
                less(&mut self.relays, source.relay);
                less(&mut self.ports, source.port);
            }
            (false, None) => {}
        }
        self.fresh.insert(address);
    }

    pub fn ended(&mut self, address: Ipv4Addr, since: Timestamp) {
        self.fresh.remove(&address);
        self.ended.insert((since, address));
    }

    pub fn ended_no_more(&mut self, address: Ipv4Addr, since: Timestamp) {
        self.ended.remove(&(since, address));
        self.fresh.insert(address);
    }

    pub fn rests(&mut self, address: Ipv4Addr, until: Timestamp) {
        self.fresh.remove(&address);
        self.resting.insert((until, address));
    }

    pub fn rests_no_more(&mut self, address: Ipv4Addr, until: Timestamp) {
        self.resting.remove(&(until, address));
        self.fresh.insert(address);
    }
}

#[cfg(test)]
impl Pool {
    /// Whether every address is in one place, of which `used` are with clients.
    pub fn sound(&self, used: usize) {
        let all = self.fresh.len() + self.ended.len() + self.resting.len() + used;
        assert_eq!(all, self.size, "{}", self.network);
        assert!(self.ports.values().sum::<usize>() + self.known <= used);
        assert_eq!(self.ports.values().sum::<usize>(), self.relays.values().sum::<usize>());
    }
}
