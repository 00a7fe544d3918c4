//! The leases of `full` mode: who has which address, decided without touching a disk.
//!
//! Every change is pushed to `changes`, which the shell commits before any ACK leaves
//! (`serve.rs`). Offers are never written: they live for [`OFFER_LIFE`] in memory alone.
//!
//! 1. [`Leases::offer`] chooses an address, in the order of RFC 2131 section 4.3.1.
//! 2. [`Leases::bind`] leases it, if the client may have it.
//! 3. [`Leases::release`], [`Leases::decline`] and [`Leases::set_aside`] take it back.
//! 4. What has ended is swept up before each of them: an offer is forgotten, a lease stays on
//!    record for its client until somebody else needs the address.
//!
//! `now` is the lease clock's ([`super::clock`]), which nobody can set.
//!
//! A client is its hardware address. RFC 2131 section 4.2 would have option 61 where there is one,
//! but firmware, iPXE, an installer and the installed system each send another one from the same
//! card: keyed by it, one machine would use up four addresses and be known by none.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};

use super::pool::{Pool, Source};
use crate::config::{Config, Subnet};
use crate::model::{Mac, Why};
use crate::store::Write;

/// The store's table.
pub const TABLE: &str = "lease";
/// An offer is kept for its client this long.
pub const OFFER_LIFE: Duration = Duration::from_secs(60);
/// An address that is in use by a stranger (a client declined it, or it answered a ping) rests
/// this long.
pub const REST: Duration = Duration::from_secs(3600);
/// Addresses that one client may decline in the time that they rest: one that declines whatever
/// it gets (broken, or hostile) would end with the whole pool at rest.
pub const DECLINES: u32 = 16;
/// Clients whose declines are counted.
const DECLINERS: usize = 4096;
/// Offers at once, over all subnets: a flood of DISCOVERs with made-up addresses stops here.
const OFFERS: usize = 65_536;
/// Addresses of one subnet's ranges that are given out: a range of a /8 is 16 million, which
/// nobody boots and which would be a gigabyte of memory here.
pub const POOL_LIMIT: usize = 1 << 20;
/// What has ended is swept up this much at a time.
const SWEEP: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Offered,
    Bound,
    /// Given back; the address still waits for the same client.
    Released,
    /// The client found it in use by somebody else.
    Declined,
    /// It answered a ping when it was to be offered to the client.
    InUse,
}

/// What became of an address that answered a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// It rests: nobody gets it.
    Rests,
    /// It is leased to whom it was asked for, who answers for itself.
    Its,
    /// It is another's by now.
    Not,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Offered => "offered",
            State::Bound => "bound",
            State::Released => "released",
            State::Declined => "declined",
            State::InUse => "in-use",
        }
    }
}

/// One address and who has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub mac: Mac,
    pub state: State,
    pub starts: Timestamp,
    pub ends: Timestamp,
    pub hostname: Option<String>,
}

impl Lease {
    /// In use by somebody who is no client of ours.
    fn rests(&self) -> bool {
        matches!(self.state, State::Declined | State::InUse)
    }

    /// The record: one line of text, so that it can be read with any tool.
    fn record(&self) -> Vec<u8> {
        let Lease { mac, state, starts, ends, hostname, .. } = self;
        let word = state.word();
        let mut text = format!(
            r#"{{"mac":"{mac}","state":"{word}","starts":{},"ends":{}"#,
            starts.as_microsecond(),
            ends.as_microsecond()
        );
        if let Some(name) = hostname {
            // Letters, digits, hyphens, dots and underscores (`wire::hostname`): nothing to escape.
            text += &format!(r#","hostname":"{name}""#);
        }
        text.push('}');
        text.into_bytes()
    }

    fn parse(key: &[u8], value: &[u8]) -> Option<Lease> {
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?);
        let v: serde_json::Value = serde_json::from_slice(value).ok()?;
        let text = |k: &str| v.get(k).and_then(|v| v.as_str());
        // Microseconds of Unix time; version 0.1.0 wrote RFC 3339.
        let time = |k: &str| match v.get(k)?.as_i64() {
            Some(micros) => Timestamp::from_microsecond(micros).ok(),
            None => text(k)?.parse().ok(),
        };
        Some(Lease {
            address,
            mac: text("mac")?.parse().ok()?,
            state: serde_json::from_value(v.get("state")?.clone()).ok()?,
            starts: time("starts")?,
            ends: time("ends")?,
            hostname: text("hostname").map(str::to_string),
        })
    }
}

/// Why a client gets no address, or not that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Every address of the subnet's ranges is leased, offered or at rest.
    PoolFull(Ipv4Net),
    /// What is left is kept for machines that are declared and have none yet: so many.
    Kept(Ipv4Net, usize),
    /// The pool runs low, and the client's relay or switch port has its share of it: so many.
    Share(Ipv4Net, usize),
    /// The subnet has no range, and the machine no reservation in it.
    NoRange(Ipv4Net),
    /// The address belongs to somebody else, or to no pool of this subnet.
    NotYours(Ipv4Addr),
    /// We hold no lease of this client for that address.
    Unknown(Ipv4Addr),
    /// The client has declined [`DECLINES`] addresses already: this one goes back to the pool.
    Declines(Ipv4Addr),
}

/// Why a lease that another server gave is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdopted {
    #[error("the store has a lease of this address that is in force")]
    InForce,
    #[error(
        "its address is in no range of a declared subnet, or reserved for another machine, or a \
         router's"
    )]
    NotOurs,
}

impl Why for NotAdopted {
    fn name(&self) -> &'static str {
        match self {
            NotAdopted::InForce => "in-force",
            NotAdopted::NotOurs => "not-ours",
        }
    }
}

/// Who asks for an address.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub mac: Mac,
    /// Declared, by its own name: machines that are come before strangers.
    pub known: bool,
    /// Where it sits, if a relay has told (option 82).
    pub source: Option<Source>,
}

/// An address for a DISCOVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub address: Ipv4Addr,
    /// The client has not had it before: whether a stranger sits there is worth a ping.
    pub new: bool,
}

/// A lease and what the pools have counted it for.
struct Held {
    lease: Lease,
    /// Offered, leased or at rest, and its time not over.
    live: bool,
    known: bool,
    source: Option<Source>,
}

/// Leases by address, with what is needed to find a free one without a search.
#[derive(Default)]
pub struct Leases {
    by_address: BTreeMap<Ipv4Addr, Held>,
    /// Each client's newest address in each subnet is found through its addresses.
    by_mac: HashMap<Mac, Vec<Ipv4Addr>>,
    /// When each live one ends.
    due: BTreeSet<(Timestamp, Ipv4Addr)>,
    pools: Vec<Pool>,
    reserved: HashMap<Ipv4Addr, Mac>,
    reservation: HashMap<Mac, Vec<Ipv4Addr>>,
    /// Machines declared by their MAC that have no reservation.
    known: HashSet<Mac>,
    /// Our own addresses, and the routers that are told to clients.
    taken: HashSet<Ipv4Addr>,
    ours: Vec<Ipv4Addr>,
    offers: usize,
    /// How often a client declined, since when.
    declines: HashMap<Mac, (u32, Timestamp)>,
    changes: Vec<Write>,
}

impl Leases {
    /// What the store holds; records that cannot be read are returned by their keys, not dropped
    /// in silence.
    pub fn load(records: &[(Vec<u8>, Vec<u8>)]) -> (Leases, Vec<String>) {
        let mut leases = Leases::default();
        let mut unread = Vec::new();
        for (key, value) in records {
            match Lease::parse(key, value) {
                Some(lease) => leases.insert(lease, false, None),
                None => unread.push(String::from_utf8_lossy(value).chars().take(120).collect()),
            }
        }
        (leases, unread)
    }

    /// Addresses that are never given away: those of our own interfaces. Before
    /// [`Leases::configure`].
    pub fn keep(&mut self, ours: impl IntoIterator<Item = Ipv4Addr>) {
        self.ours = ours.into_iter().collect();
    }

    /// Takes over the pools and reservations of a configuration; leases stay as they are.
    pub fn configure(&mut self, config: &Config) {
        self.reserved.clear();
        self.reservation.clear();
        for m in &config.machines {
            if let (Some(mac), Some(address)) = (m.mac(), m.address) {
                self.reserved.insert(address, mac);
                self.reservation.entry(mac).or_default().push(address);
            }
        }
        let waiting = config.machines.iter().filter(|m| m.address.is_none() && m.is_one());
        let expected = waiting.clone().count();
        self.known = waiting.filter_map(|m| m.mac()).collect();
        let routers = config.dhcp.subnets.iter().flat_map(|s| s.router.iter());
        self.taken = self.ours.iter().chain(routers).copied().collect();
        self.pools = config
            .dhcp
            .subnets
            .iter()
            .map(|s| {
                let givable =
                    |a: &Ipv4Addr| !self.reserved.contains_key(a) && !self.taken.contains(a);
                Pool::new(s.network, &s.ranges, POOL_LIMIT, expected, givable)
            })
            .collect();
        // All of them anew, into pools that know nothing yet.
        self.by_mac.clear();
        self.due.clear();
        self.offers = 0;
        for (_, held) in std::mem::take(&mut self.by_address) {
            let known = held.known || self.known.contains(&held.lease.mac);
            self.put(Held { known, ..held });
        }
    }

    /// The changes since the last call, for one transaction.
    pub fn take_changes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.changes)
    }

    pub fn list(&self) -> Vec<Lease> {
        self.by_address.values().map(|h| h.lease.clone()).collect()
    }

    pub fn get(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.by_address.get(&address).map(|h| &h.lease)
    }

    /// The client's lease in this subnet, live or not; the newest where there are several.
    pub fn of(&self, mac: Mac, network: Ipv4Net) -> Option<&Lease> {
        self.by_mac
            .get(&mac)?
            .iter()
            .filter(|a| network.contains(*a))
            .filter_map(|a| self.get(*a))
            .filter(|l| !l.rests())
            .max_by_key(|l| l.starts)
    }

    /// An address for a DISCOVER, in the order of RFC 2131 section 4.3.1: its reservation, the one
    /// it has or had, the one it asks for, one never used, the one that ended longest ago.
    ///
    /// # Errors
    /// Why there is none for this client.
    pub fn offer(
        &mut self,
        asker: &Asker,
        subnet: &Subnet,
        wanted: Option<Ipv4Addr>,
        now: Timestamp,
    ) -> Result<Offer, Refused> {
        self.sweep(now);
        let asker = &Asker { known: asker.known || self.known.contains(&asker.mac), ..*asker };
        let (mac, network) = (asker.mac, subnet.network);
        let mine = self
            .reservation_in(mac, network)
            .into_iter()
            .chain(self.of(mac, network).map(|l| l.address))
            .find(|a| self.may_have(mac, *a, network));
        let holds = |h: &&Held| h.live && h.lease.mac == mac && h.lease.state == State::Bound;
        let offer = match mine {
            // A client that holds the address already needs no offer to keep it.
            Some(address) if self.by_address.get(&address).filter(holds).is_some() => {
                return Ok(Offer { address, new: false });
            }
            Some(address) if self.is_its_own(mac, address) => Offer { address, new: false },
            mine => {
                self.room(asker, network)?;
                let wanted = wanted.filter(|a| self.may_have(mac, *a, network));
                match mine {
                    Some(address) => Offer { address, new: false },
                    None => {
                        let address = wanted.map_or_else(|| self.free(asker, network), Ok)?;
                        Offer { address, new: true }
                    }
                }
            }
        };
        if self.offers < OFFERS {
            let Offer { address, .. } = offer;
            let ends = after(now, OFFER_LIFE);
            let lease =
                Lease { address, mac, state: State::Offered, starts: now, ends, hostname: None };
            self.insert(lease, asker.known, asker.source);
        }
        Ok(offer)
    }

    /// Binds `address` to the client for `time`, if it may have it.
    ///
    /// # Errors
    /// [`Refused::NotYours`]; and as [`Leases::offer`], where it is not the client's own yet.
    pub fn bind(
        &mut self,
        asker: &Asker,
        address: Ipv4Addr,
        subnet: &Subnet,
        time: Duration,
        hostname: Option<String>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        self.sweep(now);
        let asker = &Asker { known: asker.known || self.known.contains(&asker.mac), ..*asker };
        let mac = asker.mac;
        if !self.may_have(mac, address, subnet.network) {
            return Err(Refused::NotYours(address));
        }
        if !self.is_its_own(mac, address) {
            self.room(asker, subnet.network)?;
        }
        let starts = match self.by_address.get(&address) {
            Some(h) if h.live && h.lease.mac == mac && h.lease.state == State::Bound => {
                h.lease.starts
            }
            _ => now,
        };
        let ends = after(now, time);
        let lease = Lease { address, mac, state: State::Bound, starts, ends, hostname };
        self.write(&lease);
        self.insert(lease, asker.known, asker.source);
        Ok(())
    }

    /// Takes over what another server has given, before this one starts.
    ///
    /// # Errors
    /// Why it is not taken: what is in force here counts.
    pub fn adopt(&mut self, lease: Lease, now: Timestamp) -> Result<(), NotAdopted> {
        self.sweep(now);
        if self.by_address.get(&lease.address).is_some_and(|h| h.live) {
            return Err(NotAdopted::InForce);
        }
        let pool = self.pools.iter().find(|p| p.network.contains(&lease.address));
        let network = pool.map(|p| p.network).ok_or(NotAdopted::NotOurs)?;
        if !self.may_have(lease.mac, lease.address, network) {
            return Err(NotAdopted::NotOurs);
        }
        self.write(&lease);
        self.insert(lease, false, None);
        Ok(())
    }

    /// A client gives its address back (RFC 2131 section 4.3.4).
    ///
    /// # Errors
    /// [`Refused::Unknown`] if it does not have it.
    pub fn release(&mut self, mac: Mac, address: Ipv4Addr, now: Timestamp) -> Result<(), Refused> {
        self.sweep(now);
        self.end(mac, address, State::Released, now)
    }

    /// A client found its address in use (RFC 2131 section 4.3.3).
    ///
    /// # Errors
    /// [`Refused::Unknown`] if it does not have it, [`Refused::Declines`] if it has declined too
    /// many.
    pub fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: Timestamp) -> Result<(), Refused> {
        self.sweep(now);
        if self.declines.len() >= DECLINERS {
            self.declines.retain(|_, (_, since)| after(*since, REST) > now);
        }
        if self.declines.len() >= DECLINERS {
            self.declines.clear();
        }
        let (times, since) = self.declines.get(&mac).copied().unwrap_or((0, now));
        let (times, since) = match after(since, REST) > now {
            true => (times, since),
            false => (0, now),
        };
        if times >= DECLINES {
            self.end(mac, address, State::Released, now)?;
            return Err(Refused::Declines(address));
        }
        self.end(mac, address, State::Declined, after(now, REST))?;
        self.declines.insert(mac, (times + 1, since));
        Ok(())
    }

    /// The address, which was to be given to `client`, answered a ping: somebody who is no client of
    /// ours sits there, or it itself by now. One that is leased meanwhile stays with its client.
    pub fn set_aside(&mut self, address: Ipv4Addr, client: Mac, now: Timestamp) -> Aside {
        self.sweep(now);
        match self.by_address.get(&address).filter(|h| h.live).map(|h| &h.lease) {
            Some(lease) if lease.state == State::Offered => {
                self.rest(lease.mac, address, State::InUse, now, after(now, REST), None);
                Aside::Rests
            }
            Some(lease) if lease.state == State::Bound && lease.mac == client => Aside::Its,
            _ => Aside::Not,
        }
    }

    /// Whether offers are given that are not kept: whoever comes for one is taken at its word.
    pub fn offers_are_full(&self) -> bool {
        self.offers >= OFFERS
    }

    /// The client chose another server: our offer is void.
    pub fn withdraw(&mut self, mac: Mac, network: Ipv4Net) {
        let offered = self.of(mac, network).filter(|l| l.state == State::Offered);
        if let Some(address) = offered.map(|l| l.address) {
            self.forget(address);
        }
    }

    /// Ends what has ended: an offer is forgotten, a lease stays on record for its client.
    fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP {
            let Some(&(ends, address)) = self.due.first() else { return };
            if ends > now {
                return;
            }
            let Some(held) = self.forget(address) else { return };
            if held.lease.state != State::Offered {
                self.put(Held { live: false, ..held });
            }
        }
    }

    fn end(
        &mut self,
        mac: Mac,
        address: Ipv4Addr,
        state: State,
        ends: Timestamp,
    ) -> Result<(), Refused> {
        // Only the one who has it can give it back or decline it; an offer is nobody's yet, and an
        // address that rests goes on resting.
        let has = |h: &&Held| h.lease.mac == mac && h.lease.state == State::Bound;
        let Some(lease) = self.by_address.get(&address).filter(has).map(|h| &h.lease) else {
            return Err(Refused::Unknown(address));
        };
        let (starts, hostname) = (lease.starts, lease.hostname.clone());
        self.rest(mac, address, state, starts, ends, hostname);
        Ok(())
    }

    fn rest(
        &mut self,
        mac: Mac,
        address: Ipv4Addr,
        state: State,
        starts: Timestamp,
        ends: Timestamp,
        hostname: Option<String>,
    ) {
        let lease = Lease { address, mac, state, starts, ends, hostname };
        self.write(&lease);
        self.insert(lease, false, None);
        // A flood of declines from made-up clients shall not put the pool to sleep: beyond its
        // limit what has rested longest comes back.
        let early = self.pools.iter().find(|p| p.holds(address)).and_then(Pool::rested_enough);
        if let Some(address) = early
            && let Some(held) = self.forget(address)
        {
            self.put(Held { live: false, ..held });
        }
    }

    /// Whether this client may be given this address now.
    fn may_have(&self, mac: Mac, address: Ipv4Addr, network: Ipv4Net) -> bool {
        let free = self
            .by_address
            .get(&address)
            .is_none_or(|h| !h.live || (h.lease.mac == mac && !h.lease.rests()));
        // A reservation that comes while another still has the address waits for that lease's end.
        let allowed = match self.reserved.get(&address) {
            Some(owner) => *owner == mac && network.contains(&address),
            None => self.pools.iter().any(|p| p.network == network && p.holds(address)),
        };
        allowed && free && !self.taken.contains(&address)
    }

    /// Reserved for it, or offered or leased to it now: takes nothing from anybody.
    fn is_its_own(&self, mac: Mac, address: Ipv4Addr) -> bool {
        self.reserved.get(&address) == Some(&mac)
            || self.by_address.get(&address).is_some_and(|h| h.live && h.lease.mac == mac)
    }

    fn reservation_in(&self, mac: Mac, network: Ipv4Net) -> Option<Ipv4Addr> {
        self.reservation.get(&mac)?.iter().copied().find(|a| network.contains(a))
    }

    /// Whether one more address may go to this client.
    fn room(&self, asker: &Asker, network: Ipv4Net) -> Result<(), Refused> {
        let pool = self.pools.iter().find(|p| p.network == network);
        match pool {
            Some(pool) if !asker.known => pool.room_for_stranger(asker.source),
            _ => Ok(()),
        }
    }

    fn free(&self, asker: &Asker, network: Ipv4Net) -> Result<Ipv4Addr, Refused> {
        let pool = self
            .pools
            .iter()
            .find(|p| p.network == network && !p.is_empty())
            .ok_or(Refused::NoRange(network))?;
        pool.free()
            .or_else(|| asker.known.then(|| self.stranger_offer(pool)).flatten())
            .ok_or(Refused::PoolFull(network))
    }

    /// The oldest offer to a stranger that has not taken it: a machine that is declared comes
    /// first. Offers end before leases do, so they are found at once.
    fn stranger_offer(&self, pool: &Pool) -> Option<Ipv4Addr> {
        self.due.iter().take(SWEEP).map(|(_, address)| *address).find(|address| {
            pool.gives(*address)
                && self
                    .by_address
                    .get(address)
                    .is_some_and(|h| h.lease.state == State::Offered && !h.known)
        })
    }

    fn write(&mut self, lease: &Lease) {
        self.changes.push(Write::put(TABLE, lease.address.octets(), lease.record()));
    }

    fn insert(&mut self, lease: Lease, known: bool, source: Option<Source>) {
        let known = known || self.known.contains(&lease.mac);
        let address = lease.address;
        let taken = |state| matches!(state, State::Offered | State::Bound);
        let alike = |h: &&mut Held| {
            let Held { live, known: k, source: s, lease: old } = &**h;
            let same = (old.mac, *k, *s) == (lease.mac, known, source);
            *live && same && taken(old.state) && taken(lease.state)
        };
        // An offer that becomes a lease, a lease that is renewed: nothing changes for the pools.
        if let Some(held) = self.by_address.get_mut(&address).filter(alike) {
            self.due.remove(&(held.lease.ends, address));
            self.due.insert((lease.ends, address));
            self.offers -= usize::from(held.lease.state == State::Offered);
            self.offers += usize::from(lease.state == State::Offered);
            held.lease = lease;
            return;
        }
        self.forget(address);
        self.put(Held { live: lease.state != State::Released, known, source, lease });
    }

    fn put(&mut self, held: Held) {
        let Lease { address, mac, state, ends, .. } = held.lease;
        self.offers += usize::from(state == State::Offered);
        let addresses = self.by_mac.entry(mac).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
        for pool in self.pools.iter_mut().filter(|p| p.gives(address)) {
            match held.live {
                true if held.lease.rests() => pool.rests(address, ends),
                true => pool.used(address, held.known, held.source),
                false => pool.ended(address, ends),
            }
        }
        if held.live {
            self.due.insert((ends, address));
        }
        self.by_address.insert(address, held);
    }

    fn forget(&mut self, address: Ipv4Addr) -> Option<Held> {
        let old = self.by_address.remove(&address)?;
        let Lease { mac, state, ends, .. } = old.lease;
        self.offers -= usize::from(state == State::Offered);
        if let Some(addresses) = self.by_mac.get_mut(&mac) {
            addresses.retain(|a| *a != address);
            if addresses.is_empty() {
                self.by_mac.remove(&mac);
            }
        }
        self.due.remove(&(ends, address));
        for pool in self.pools.iter_mut().filter(|p| p.gives(address)) {
            match old.live {
                true if old.lease.rests() => pool.rests_no_more(address, ends),
                true => pool.used_no_more(address, old.known, old.source),
                false => pool.ended_no_more(address, ends),
            }
        }
        Some(old)
    }
}

/// `now` and a time on the wire, which has at most 32 bits of seconds.
pub fn after(now: Timestamp, time: Duration) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).min(u32::MAX.into());
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(range: &str) -> Subnet {
        let ranges = range.split_once('-').map(|(a, b)| a.parse().unwrap()..=b.parse().unwrap());
        Subnet {
            network: "10.0.0.0/24".parse().unwrap(),
            ranges: ranges.into_iter().collect(),
            router: vec![],
            dns: vec![],
            domain: None,
            broadcast: [10, 0, 0, 255].into(),
            ntp: vec![],
            mtu: None,
            lease_time: Duration::from_secs(3600),
            max_lease_time: Duration::from_secs(86400),
            options: vec![],
        }
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn who(n: u8) -> Asker {
        Asker { mac: mac(n), known: false, source: None }
    }

    fn offer(
        l: &mut Leases,
        n: u8,
        s: &Subnet,
        wanted: Option<Ipv4Addr>,
        now: Timestamp,
    ) -> Result<Ipv4Addr, Refused> {
        let offered = l.offer(&who(n), s, wanted, now).map(|o| o.address);
        sound(l);
        offered
    }

    /// Whether the books agree with one another.
    fn sound(l: &Leases) {
        let live = l.by_address.values().filter(|h| h.live);
        assert_eq!(live.clone().count(), l.due.len());
        assert!(live.clone().all(|h| l.due.contains(&(h.lease.ends, h.lease.address))));
        assert_eq!(l.by_mac.values().map(Vec::len).sum::<usize>(), l.by_address.len());
        let offered = l.by_address.values().filter(|h| h.lease.state == State::Offered);
        assert_eq!(offered.count(), l.offers);
        for pool in &l.pools {
            let used = live.clone().filter(|h| pool.gives(h.lease.address) && !h.lease.rests());
            pool.sound(used.count());
        }
    }

    fn machine(n: u8, address: Option<Ipv4Addr>) -> crate::model::Machine {
        crate::model::Machine {
            name: format!("m{n}"),
            matches: crate::model::Match { mac: Some(mac(n).into()), ..Default::default() },
            profile: None,
            address,
            hostname: None,
            loader: None,
            vars: Default::default(),
            secrets: Default::default(),
            settings: Default::default(),
            power: Default::default(),
        }
    }

    fn declared(s: &Subnet, machines: Vec<crate::model::Machine>) -> Leases {
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        config.machines = machines.into();
        let mut l = Leases::default();
        l.configure(&config);
        l
    }

    fn leases(s: &Subnet) -> Leases {
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        let mut l = Leases::default();
        l.configure(&config);
        l
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_same_client_gets_the_same_address_and_nobody_else_does() {
        let s = subnet("10.0.0.10-10.0.0.12");
        let mut l = leases(&s);
        let a = offer(&mut l, 1, &s, None, at(0)).unwrap();
        assert_eq!(offer(&mut l, 1, &s, None, at(1)), Ok(a));
        assert!(l.take_changes().is_empty(), "an offer is never written");
        l.bind(&who(1), a, &s, HOUR, None, at(1)).unwrap();
        assert_eq!(l.take_changes().len(), 1);
        assert_eq!(l.bind(&who(2), a, &s, HOUR, None, at(2)), Err(Refused::NotYours(a)));
        let b = offer(&mut l, 2, &s, Some(a), at(2)).unwrap();
        let c = offer(&mut l, 3, &s, None, at(2)).unwrap();
        assert!(a != b && b != c && a != c);
        assert_eq!(offer(&mut l, 4, &s, None, at(3)), Err(Refused::PoolFull(s.network)));
        // The offers end, the lease does not.
        assert!(offer(&mut l, 4, &s, None, at(100)).is_ok_and(|d| d != a));
        // Ended, and still its own when it comes back before anybody else.
        assert_eq!(offer(&mut l, 1, &s, None, at(10_000)), Ok(a));
    }

    #[test]
    fn declined_rests_and_released_waits_for_its_client() {
        let s = subnet("10.0.0.10-10.0.0.10");
        let mut l = leases(&s);
        let a = offer(&mut l, 1, &s, None, at(0)).unwrap();
        l.bind(&who(1), a, &s, HOUR, None, at(0)).unwrap();
        assert_eq!(l.release(mac(2), a, at(1)), Err(Refused::Unknown(a)), "a forged release");
        l.release(mac(1), a, at(1)).unwrap();
        assert_eq!(offer(&mut l, 1, &s, None, at(2)), Ok(a));
        l.bind(&who(1), a, &s, HOUR, None, at(2)).unwrap();
        l.decline(mac(1), a, at(3)).unwrap();
        assert!(offer(&mut l, 1, &s, None, at(4)).is_err());
        assert!(offer(&mut l, 2, &s, Some(a), at(4)).is_err());
        assert_eq!(offer(&mut l, 2, &s, None, at(3 + 3600)), Ok(a));
    }

    #[test]
    fn a_reservation_is_never_given_to_another() {
        let s = subnet("10.0.0.10-10.0.0.11");
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        config.machines = vec![machine(1, Some([10, 0, 0, 10].into()))].into();
        let mut l = Leases::default();
        l.configure(&config);
        let wanted = Some([10, 0, 0, 10].into());
        assert_eq!(offer(&mut l, 2, &s, wanted, at(0)), Ok([10, 0, 0, 11].into()));
        assert_eq!(offer(&mut l, 3, &s, wanted, at(0)), Err(Refused::PoolFull(s.network)));
        assert_eq!(offer(&mut l, 1, &s, None, at(0)), Ok([10, 0, 0, 10].into()));
    }

    #[test]
    fn a_reservation_waits_for_the_lease_of_another_and_for_a_declined_address() {
        let s = subnet("10.0.0.10-10.0.0.12");
        let mut l = leases(&s);
        let a = offer(&mut l, 2, &s, Some([10, 0, 0, 10].into()), at(0)).unwrap();
        l.bind(&who(2), a, &s, HOUR, None, at(0)).unwrap();
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        config.machines = vec![machine(1, Some(a))].into();
        l.configure(&config);
        let b = offer(&mut l, 1, &s, None, at(1)).unwrap();
        assert_ne!(b, a, "in use until its lease ends");
        assert_eq!(l.bind(&who(1), a, &s, HOUR, None, at(1)), Err(Refused::NotYours(a)));
        assert_eq!(offer(&mut l, 1, &s, None, at(4000)), Ok(a));
        l.bind(&who(1), a, &s, HOUR, None, at(4000)).unwrap();
        l.decline(mac(1), a, at(4001)).unwrap();
        assert!(l.release(mac(1), a, at(4002)).is_err(), "it goes on resting");
        assert!(offer(&mut l, 1, &s, None, at(4003)).is_ok_and(|c| c != a));
    }

    #[test]
    fn our_own_address_and_the_router_are_nobodys() {
        let mut s = subnet("10.0.0.1-10.0.0.3");
        s.router = vec![[10, 0, 0, 2].into()];
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        let mut l = Leases::default();
        l.keep([[10, 0, 0, 1].into()]);
        l.configure(&config);
        assert_eq!(
            offer(&mut l, 1, &s, Some([10, 0, 0, 1].into()), at(0)),
            Ok([10, 0, 0, 3].into())
        );
        assert_eq!(offer(&mut l, 2, &s, None, at(0)), Err(Refused::PoolFull(s.network)));
    }

    #[test]
    fn offers_end_and_are_renewed() {
        let s = subnet("10.0.0.10-10.0.0.10");
        let mut l = leases(&s);
        let a = offer(&mut l, 1, &s, None, at(0)).unwrap();
        assert_eq!(offer(&mut l, 1, &s, None, at(59)), Ok(a), "a repeated DISCOVER");
        assert!(offer(&mut l, 2, &s, None, at(61)).is_err(), "held since the second");
        assert_eq!(offer(&mut l, 2, &s, None, at(120)), Ok(a));
        assert!(l.offers == 1 && l.by_mac.len() == 1, "what ended is gone");
    }

    #[test]
    fn what_was_written_is_read_again() {
        let s = subnet("10.0.0.10-10.0.0.12");
        let mut l = leases(&s);
        let a = offer(&mut l, 1, &s, None, at(0)).unwrap();
        l.bind(&who(1), a, &s, HOUR, Some("web1".into()), at(0)).unwrap();
        let records: Vec<_> =
            l.take_changes().into_iter().map(|w| (w.key, w.value.unwrap())).collect();
        let (again, unread) = Leases::load(&records);
        assert!(unread.is_empty());
        assert_eq!(again.list(), l.list());
        let (_, unread) = Leases::load(&[(vec![1], b"nonsense".to_vec())]);
        assert_eq!(unread.len(), 1);
    }

    /// Clients 1 to 9 behind one port, others each behind a port of their own, all by one relay.
    fn behind(n: u8) -> Asker {
        let port = if n < 10 { 1 } else { u64::from(n) };
        Asker { source: Some(Source { relay: 1, port }), ..who(n) }
    }

    fn bound(l: &mut Leases, asker: &Asker, s: &Subnet, now: i64) -> Result<Ipv4Addr, Refused> {
        let address = l.offer(asker, s, None, at(now))?.address;
        l.bind(asker, address, s, HOUR, None, at(now)).unwrap();
        sound(l);
        Ok(address)
    }

    #[test]
    fn strangers_leave_room_for_the_declared() {
        let s = subnet("10.0.0.10-10.0.0.19");
        let mut l = declared(&s, vec![machine(1, None), machine(2, None), machine(3, None)]);
        for n in 10..17 {
            bound(&mut l, &who(n), &s, 0).unwrap();
        }
        assert_eq!(bound(&mut l, &who(17), &s, 1), Err(Refused::Kept(s.network, 3)));
        bound(&mut l, &who(1), &s, 1).unwrap();
        assert_eq!(bound(&mut l, &who(17), &s, 1), Err(Refused::Kept(s.network, 2)));
        // A stranger's renewal takes nothing from anybody.
        bound(&mut l, &who(10), &s, 2).unwrap();
        bound(&mut l, &who(2), &s, 2).unwrap();
        bound(&mut l, &who(3), &s, 2).unwrap();
        assert_eq!(bound(&mut l, &who(17), &s, 3), Err(Refused::PoolFull(s.network)));
        // One by its UUID is known to the one who asks only.
        let known = Asker { known: true, ..who(4) };
        assert_eq!(bound(&mut l, &known, &s, 3), Err(Refused::PoolFull(s.network)));
        l.release(mac(16), l.of(mac(16), s.network).unwrap().address, at(4)).unwrap();
        let offered = l.offer(&who(18), &s, None, at(5)).unwrap().address;
        assert_eq!(bound(&mut l, &known, &s, 5), Ok(offered), "a stranger's offer gives way");
        assert_eq!(
            l.bind(&who(18), offered, &s, HOUR, None, at(5)),
            Err(Refused::NotYours(offered))
        );
    }

    #[test]
    fn nobody_comes_by_the_back_door() {
        let s = subnet("10.0.0.10-10.0.0.13");
        let mut l = declared(&s, vec![machine(1, None), machine(2, None)]);
        let (a, b) = (bound(&mut l, &who(10), &s, 0).unwrap(), Ipv4Addr::new(10, 0, 0, 12));
        bound(&mut l, &who(11), &s, 0).unwrap();
        let refused = Err(Refused::Kept(s.network, 2));
        assert_eq!(l.bind(&who(12), b, &s, HOUR, None, at(1)), refused, "without an offer");
        // One that had an address and lost it to time is a stranger like others.
        l.release(mac(10), a, at(2)).unwrap();
        bound(&mut l, &who(13), &s, 3).unwrap();
        assert_eq!(l.bind(&who(10), a, &s, HOUR, None, at(4)), refused);
        let last = Ipv4Addr::new(10, 0, 0, 13);
        assert_eq!(l.bind(&who(1), last, &s, HOUR, None, at(4)), Ok(()), "a declared one may");
        sound(&l);
    }

    #[test]
    fn more_declared_than_there_is_room_for() {
        let s = subnet("10.0.0.10-10.0.0.13");
        let mut l = declared(&s, (1..9).map(|n| machine(n, None)).collect());
        bound(&mut l, &who(20), &s, 0).unwrap();
        bound(&mut l, &who(21), &s, 0).unwrap();
        assert_eq!(bound(&mut l, &who(22), &s, 0), Err(Refused::Kept(s.network, 2)));
    }

    #[test]
    fn one_port_does_not_end_with_the_pool() {
        let s = subnet("10.0.0.1-10.0.0.40");
        let mut l = leases(&s);
        for n in 20..42 {
            bound(&mut l, &behind(n), &s, 0).unwrap();
        }
        // 22 by 22 ports. The next port takes eight of the ten that are left for whoever comes.
        let got = (1..10).filter(|n| bound(&mut l, &behind(*n), &s, 0).is_ok()).count();
        assert_eq!(got, 9, "there is plenty");
        let crowd = |n: u8| Asker { mac: Mac([2, 1, 0, 0, 0, n]), ..behind(1) };
        let more = (0..50).filter(|n| bound(&mut l, &crowd(*n), &s, 0).is_ok()).count();
        assert_eq!(more, 0);
        assert_eq!(
            bound(&mut l, &crowd(0), &s, 0),
            Err(Refused::Share(s.network, LEAST_SHARE_SEEN))
        );
        for n in 50..59 {
            bound(&mut l, &behind(n), &s, 0).unwrap();
        }
        assert_eq!(bound(&mut l, &behind(60), &s, 0), Err(Refused::PoolFull(s.network)));
    }

    const LEAST_SHARE_SEEN: usize = 8;

    #[test]
    fn who_answers_a_ping_is_left_alone_for_an_hour() {
        let s = subnet("10.0.0.10-10.0.0.11");
        let mut l = leases(&s);
        let a = l.offer(&who(1), &s, None, at(0)).unwrap();
        assert!(a.new);
        assert_eq!(l.set_aside(a.address, mac(1), at(0)), Aside::Rests);
        assert_eq!(l.take_changes().len(), 1);
        assert_eq!(
            l.bind(&who(1), a.address, &s, HOUR, None, at(1)),
            Err(Refused::NotYours(a.address))
        );
        let b = bound(&mut l, &who(1), &s, 1).unwrap();
        assert_ne!(a.address, b);
        assert!(!l.offer(&who(1), &s, None, at(2)).unwrap().new, "its own");
        assert_eq!(l.set_aside(b, mac(1), at(2)), Aside::Its, "it was quicker than its ping");
        assert_eq!(l.set_aside(b, mac(2), at(2)), Aside::Not, "leased meanwhile");
        assert_eq!(bound(&mut l, &who(2), &s, 3599), Err(Refused::PoolFull(s.network)));
        assert_eq!(bound(&mut l, &who(2), &s, 3600), Ok(a.address));
    }

    #[test]
    fn declines_have_a_limit_by_client_and_by_pool() {
        let s = subnet("10.0.0.1-10.0.0.100");
        let mut l = leases(&s);
        for n in 0..DECLINES {
            let a = bound(&mut l, &who(1), &s, n.into()).unwrap();
            l.decline(mac(1), a, at(n.into())).unwrap();
        }
        let a = bound(&mut l, &who(1), &s, 20).unwrap();
        assert_eq!(l.decline(mac(1), a, at(20)), Err(Refused::Declines(a)));
        assert_eq!(bound(&mut l, &who(1), &s, 21), Ok(a));
        // Made-up clients, one decline each: a quarter of the pool rests, and no more.
        for n in 100..200 {
            let a = bound(&mut l, &who(n), &s, 30).unwrap();
            l.decline(mac(n), a, at(30)).unwrap();
            sound(&l);
        }
        let resting = l.by_address.values().filter(|h| h.live && h.lease.rests()).count();
        assert_eq!(resting, 25);
        // And after the hour it may decline again.
        let a = bound(&mut l, &who(1), &s, 4000).unwrap();
        assert_eq!(l.decline(mac(1), a, at(4000)), Ok(()));
    }

    #[test]
    fn whatever_happens_the_books_agree_and_nobody_gets_anothers() {
        let s = subnet("10.0.0.1-10.0.0.30");
        let machines = (1..6).map(|n| machine(n, (n > 3).then(|| [10, 0, 0, n].into())));
        let mut l = declared(&s, machines.collect());
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        let mut have: HashMap<Ipv4Addr, (Mac, i64)> = HashMap::new();
        let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
        for now in 0..40_000_i64 {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let n = (dice >> 8) as u8 % 48;
            let own = l.of(mac(n), s.network).map(|l| l.address);
            match dice % 9 {
                0..=4 => {
                    let _ = offer(&mut l, n, &s, None, at(now));
                }
                5 | 6 => {
                    let Some(a) = own else { continue };
                    let time = Duration::from_secs(60 + dice % 3000);
                    if l.bind(&behind(n), a, &s, time, None, at(now)).is_ok() {
                        let mine = have.get(&a).is_none_or(|(m, e)| *m == mac(n) || *e <= now);
                        assert!(mine, "{a} given twice at {now}");
                        have.insert(a, (mac(n), now + time.as_secs() as i64));
                    }
                }
                7 => {
                    let Some(a) = own else { continue };
                    let ended = match dice & 512 {
                        0 => l.release(mac(n), a, at(now)).is_ok(),
                        _ => l.decline(mac(n), a, at(now)) != Err(Refused::Unknown(a)),
                    };
                    if ended {
                        have.remove(&a);
                    }
                }
                _ => {
                    let Some(a) = own else { continue };
                    l.set_aside(a, mac(n), at(now));
                }
            }
            if now % 1000 == 999 {
                l.configure(&config);
            }
            sound(&l);
        }
    }
}
