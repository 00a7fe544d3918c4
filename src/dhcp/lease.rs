//! The leases of `full` mode: who has which address, decided without touching a disk.
//!
//! Every change is pushed to `changes`, which the shell commits before any ACK leaves
//! (`serve.rs`). Offers are never written: they live for [`OFFER_LIFE`] in memory alone.
//!
//! A client is its hardware address. RFC 2131 section 4.2 would have option 61 where there is one,
//! but firmware, iPXE, an installer and the installed system each send another one from the same
//! card: keyed by it, one machine would use up four addresses and be known by none.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};

use crate::config::{Config, Subnet};
use crate::model::Mac;
use crate::store::Write;

/// The store's table.
pub const TABLE: &str = "lease";
/// An offer is kept for its client this long.
pub const OFFER_LIFE: Duration = Duration::from_secs(60);
/// An address that a client declined is in use by a stranger: it rests this long.
pub const DECLINED_REST: Duration = Duration::from_secs(3600);
/// Offers at once, over all subnets: a flood of DISCOVERs with made-up addresses stops here.
const OFFERS: usize = 65_536;
/// Addresses of one subnet's ranges that are given out: a range of a /8 is 16 million, which
/// nobody boots and which would be a gigabyte of memory here.
pub const POOL_LIMIT: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Offered,
    Bound,
    /// Given back; the address still waits for the same client.
    Released,
    Declined,
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
    fn is_live(&self, now: Timestamp) -> bool {
        self.state != State::Released && self.ends > now
    }

    /// The record: one line of text, so that it can be read with any tool.
    fn record(&self) -> Vec<u8> {
        serde_json::json!({
            "mac": self.mac,
            "state": self.state,
            "starts": self.starts,
            "ends": self.ends,
            "hostname": self.hostname,
        })
        .to_string()
        .into_bytes()
    }

    fn parse(key: &[u8], value: &[u8]) -> Option<Lease> {
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?);
        let v: serde_json::Value = serde_json::from_slice(value).ok()?;
        let text = |k: &str| v.get(k).and_then(|v| v.as_str());
        Some(Lease {
            address,
            mac: text("mac")?.parse().ok()?,
            state: serde_json::from_value(v.get("state")?.clone()).ok()?,
            starts: text("starts")?.parse().ok()?,
            ends: text("ends")?.parse().ok()?,
            hostname: text("hostname").map(str::to_string),
        })
    }
}

/// Why a client gets no address, or not that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Every address of the subnet's ranges is leased, offered or declined.
    PoolFull(Ipv4Net),
    /// The subnet has no range, and the machine no reservation in it.
    NoRange(Ipv4Net),
    /// The address belongs to somebody else, or to no pool of this subnet.
    NotYours(Ipv4Addr),
    /// We hold no lease of this client for that address.
    Unknown(Ipv4Addr),
}

/// Leases by address, with what is needed to find a free one without a search.
#[derive(Default)]
pub struct Leases {
    by_address: BTreeMap<Ipv4Addr, Lease>,
    /// Each client's newest address in each subnet is found through its addresses.
    by_mac: HashMap<Mac, BTreeSet<Ipv4Addr>>,
    pools: Vec<Pool>,
    reserved: HashMap<Ipv4Addr, Mac>,
    reservation: HashMap<Mac, Vec<Ipv4Addr>>,
    /// Our own addresses, and the routers that are told to clients.
    taken: HashSet<Ipv4Addr>,
    ours: Vec<Ipv4Addr>,
    offers: usize,
    /// When each offer ends, in order: they all live equally long.
    ending: VecDeque<(Timestamp, Ipv4Addr)>,
    changes: Vec<Write>,
}

struct Pool {
    network: Ipv4Net,
    /// Addresses of the ranges with no record at all.
    fresh: BTreeSet<Ipv4Addr>,
    in_range: BTreeSet<(u32, u32)>,
}

impl Pool {
    fn holds(&self, address: Ipv4Addr) -> bool {
        let a = u32::from(address);
        self.in_range.range(..=(a, u32::MAX)).next_back().is_some_and(|(_, end)| a <= *end)
    }
}

impl Leases {
    /// What the store holds; records that cannot be read are returned by their keys, not dropped
    /// in silence.
    pub fn load(records: &[(Vec<u8>, Vec<u8>)]) -> (Leases, Vec<String>) {
        let mut leases = Leases::default();
        let mut unread = Vec::new();
        for (key, value) in records {
            match Lease::parse(key, value) {
                Some(lease) => leases.insert(lease),
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
        let routers = config.dhcp.subnets.iter().flat_map(|s| s.router.iter());
        self.taken = self.ours.iter().chain(routers).copied().collect();
        self.pools = config
            .dhcp
            .subnets
            .iter()
            .map(|s| Pool {
                network: s.network,
                fresh: s
                    .ranges
                    .iter()
                    .flat_map(|r| u32::from(*r.start())..=u32::from(*r.end()))
                    .take(POOL_LIMIT)
                    .map(Ipv4Addr::from)
                    .filter(|a| {
                        !self.by_address.contains_key(a)
                            && !self.reserved.contains_key(a)
                            && !self.taken.contains(a)
                    })
                    .collect(),
                in_range: s
                    .ranges
                    .iter()
                    .map(|r| (u32::from(*r.start()), u32::from(*r.end())))
                    .collect(),
            })
            .collect();
    }

    /// The changes since the last call, for one transaction.
    pub fn take_changes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.changes)
    }

    pub fn list(&self) -> Vec<Lease> {
        self.by_address.values().cloned().collect()
    }

    pub fn get(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.by_address.get(&address)
    }

    /// The client's lease in this subnet, live or not; the newest where there are several.
    pub fn of(&self, mac: Mac, network: Ipv4Net) -> Option<&Lease> {
        self.by_mac
            .get(&mac)?
            .iter()
            .filter(|a| network.contains(*a))
            .filter_map(|a| self.by_address.get(a))
            .max_by_key(|l| l.starts)
    }

    /// An address for a DISCOVER, in the order of RFC 2131 section 4.3.1: its reservation, the one
    /// it has or had, the one it asks for, one never used, the one that ended longest ago.
    pub fn offer(
        &mut self,
        mac: Mac,
        subnet: &Subnet,
        wanted: Option<Ipv4Addr>,
        now: Timestamp,
    ) -> Result<Ipv4Addr, Refused> {
        self.sweep(now);
        let reserved = self
            .reservation_in(mac, subnet.network)
            .filter(|a| self.may_have(mac, *a, subnet.network, now));
        let had = self
            .of(mac, subnet.network)
            .filter(|l| l.state != State::Declined)
            .map(|l| l.address)
            .filter(|a| self.may_have(mac, *a, subnet.network, now));
        let wanted = wanted.filter(|a| self.may_have(mac, *a, subnet.network, now));
        let address = match reserved.or(had).or(wanted) {
            Some(address) => address,
            None => self.free(mac, subnet, now)?,
        };
        // A client that holds the address already needs no offer to keep it.
        let holds = self
            .by_address
            .get(&address)
            .is_some_and(|l| l.mac == mac && l.state == State::Bound && l.is_live(now));
        if !holds && self.offers < OFFERS && self.ending.len() < 2 * OFFERS {
            let ends = after(now, OFFER_LIFE);
            self.ending.push_back((ends, address));
            let state = State::Offered;
            self.insert(Lease { address, mac, state, starts: now, ends, hostname: None });
        }
        Ok(address)
    }

    /// Binds `address` to the client for `time`, if it may have it.
    pub fn bind(
        &mut self,
        mac: Mac,
        address: Ipv4Addr,
        subnet: &Subnet,
        time: Duration,
        hostname: Option<String>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        if !self.may_have(mac, address, subnet.network, now) {
            return Err(Refused::NotYours(address));
        }
        let starts = match self.by_address.get(&address) {
            Some(l) if l.mac == mac && l.state == State::Bound && l.is_live(now) => l.starts,
            _ => now,
        };
        let ends = after(now, time);
        let lease = Lease { address, mac, state: State::Bound, starts, ends, hostname };
        self.write(&lease);
        self.insert(lease);
        Ok(())
    }

    /// A client gives its address back (RFC 2131 section 4.3.4).
    pub fn release(&mut self, mac: Mac, address: Ipv4Addr, now: Timestamp) -> Result<(), Refused> {
        self.end(mac, address, State::Released, now)
    }

    /// A client found its address in use (RFC 2131 section 4.3.3).
    pub fn decline(&mut self, mac: Mac, address: Ipv4Addr, now: Timestamp) -> Result<(), Refused> {
        self.end(mac, address, State::Declined, after(now, DECLINED_REST))
    }

    /// The client chose another server: our offer is void.
    pub fn withdraw(&mut self, mac: Mac, network: Ipv4Net) {
        let offered = self.of(mac, network).filter(|l| l.state == State::Offered);
        if let Some(address) = offered.map(|l| l.address) {
            self.forget(address);
        }
    }

    /// Ends the offers whose time is over.
    fn sweep(&mut self, now: Timestamp) {
        while self.ending.front().is_some_and(|(ends, _)| *ends <= now) {
            let Some((_, address)) = self.ending.pop_front() else { return };
            let over = |l: &Lease| l.state == State::Offered && l.ends <= now;
            if self.by_address.get(&address).is_some_and(over) {
                self.forget(address);
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
        let has = |l: &&Lease| l.mac == mac && l.state == State::Bound;
        let Some(lease) = self.by_address.get(&address).filter(has) else {
            return Err(Refused::Unknown(address));
        };
        let lease = Lease { state, ends, ..lease.clone() };
        self.write(&lease);
        self.insert(lease);
        Ok(())
    }

    /// Whether this client may be given this address now.
    fn may_have(&self, mac: Mac, address: Ipv4Addr, network: Ipv4Net, now: Timestamp) -> bool {
        let free = self.by_address.get(&address).is_none_or(|l| match l.state {
            State::Declined => l.ends <= now,
            _ => l.mac == mac || !l.is_live(now),
        });
        // A reservation that comes while another still has the address waits for that lease's end.
        let allowed = match self.reserved.get(&address) {
            Some(owner) => *owner == mac && network.contains(&address),
            None => {
                let pool = self.pools.iter().find(|p| p.network == network);
                pool.is_some_and(|p| p.holds(address))
            }
        };
        allowed && free && !self.taken.contains(&address)
    }

    fn reservation_in(&self, mac: Mac, network: Ipv4Net) -> Option<Ipv4Addr> {
        self.reservation.get(&mac)?.iter().copied().find(|a| network.contains(a))
    }

    fn free(&self, mac: Mac, subnet: &Subnet, now: Timestamp) -> Result<Ipv4Addr, Refused> {
        let pool = self
            .pools
            .iter()
            .find(|p| p.network == subnet.network)
            .filter(|p| !p.in_range.is_empty())
            .ok_or(Refused::NoRange(subnet.network))?;
        // Begin at a place that the client's address names, so that it finds the same one again
        // even after its record is gone, and machines do not crowd at the start of the range.
        let m = mac.0;
        let spread = u32::from_be_bytes([m[2], m[3], m[4], m[5]]).wrapping_mul(0x9E37_79B1);
        let (first, last) = match (pool.fresh.first(), pool.fresh.last()) {
            (Some(a), Some(b)) => (u32::from(*a), u32::from(*b)),
            _ => return self.oldest_ended(pool, now),
        };
        let start = Ipv4Addr::from(first + spread % (last - first).saturating_add(1).max(1));
        let found = pool.fresh.range(start..).next().or(pool.fresh.first()).copied();
        found.map_or_else(|| self.oldest_ended(pool, now), Ok)
    }

    fn oldest_ended(&self, pool: &Pool, now: Timestamp) -> Result<Ipv4Addr, Refused> {
        self.by_address
            .range(pool.network.network()..=pool.network.broadcast())
            .map(|(_, l)| l)
            .filter(|l| {
                pool.holds(l.address)
                    && !self.reserved.contains_key(&l.address)
                    && match l.state {
                        State::Declined => l.ends <= now,
                        _ => !l.is_live(now),
                    }
            })
            .min_by_key(|l| l.ends)
            .map(|l| l.address)
            .ok_or(Refused::PoolFull(pool.network))
    }

    fn write(&mut self, lease: &Lease) {
        self.changes.push(Write::put(TABLE, lease.address.octets(), lease.record()));
    }

    fn insert(&mut self, lease: Lease) {
        self.forget(lease.address);
        for pool in &mut self.pools {
            pool.fresh.remove(&lease.address);
        }
        self.offers += usize::from(lease.state == State::Offered);
        self.by_mac.entry(lease.mac).or_default().insert(lease.address);
        self.by_address.insert(lease.address, lease);
    }

    fn forget(&mut self, address: Ipv4Addr) {
        let Some(old) = self.by_address.remove(&address) else { return };
        self.offers -= usize::from(old.state == State::Offered);
        if let Some(addresses) = self.by_mac.get_mut(&old.mac) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_mac.remove(&old.mac);
            }
        }
        if !self.reserved.contains_key(&address) && !self.taken.contains(&address) {
            for pool in self.pools.iter_mut().filter(|p| p.holds(address)) {
                pool.fresh.insert(address);
            }
        }
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
        let a = l.offer(mac(1), &s, None, at(0)).unwrap();
        assert_eq!(l.offer(mac(1), &s, None, at(1)), Ok(a));
        assert!(l.take_changes().is_empty(), "an offer is never written");
        l.bind(mac(1), a, &s, HOUR, None, at(1)).unwrap();
        assert_eq!(l.take_changes().len(), 1);
        assert_eq!(l.bind(mac(2), a, &s, HOUR, None, at(2)), Err(Refused::NotYours(a)));
        let b = l.offer(mac(2), &s, Some(a), at(2)).unwrap();
        let c = l.offer(mac(3), &s, None, at(2)).unwrap();
        assert!(a != b && b != c && a != c);
        assert_eq!(l.offer(mac(4), &s, None, at(3)), Err(Refused::PoolFull(s.network)));
        // The offers end, the lease does not.
        assert!(l.offer(mac(4), &s, None, at(100)).is_ok_and(|d| d != a));
        // Ended, and still its own when it comes back before anybody else.
        assert_eq!(l.offer(mac(1), &s, None, at(10_000)), Ok(a));
    }

    #[test]
    fn declined_rests_and_released_waits_for_its_client() {
        let s = subnet("10.0.0.10-10.0.0.10");
        let mut l = leases(&s);
        let a = l.offer(mac(1), &s, None, at(0)).unwrap();
        l.bind(mac(1), a, &s, HOUR, None, at(0)).unwrap();
        assert_eq!(l.release(mac(2), a, at(1)), Err(Refused::Unknown(a)), "a forged release");
        l.release(mac(1), a, at(1)).unwrap();
        assert_eq!(l.offer(mac(1), &s, None, at(2)), Ok(a));
        l.bind(mac(1), a, &s, HOUR, None, at(2)).unwrap();
        l.decline(mac(1), a, at(3)).unwrap();
        assert!(l.offer(mac(1), &s, None, at(4)).is_err());
        assert!(l.offer(mac(2), &s, Some(a), at(4)).is_err());
        assert_eq!(l.offer(mac(2), &s, None, at(3 + 3600)), Ok(a));
    }

    #[test]
    fn a_reservation_is_never_given_to_another() {
        let s = subnet("10.0.0.10-10.0.0.11");
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        config.machines = vec![crate::model::Machine {
            name: "one".into(),
            matches: crate::model::Match { mac: Some(mac(1).into()), ..Default::default() },
            profile: None,
            address: Some([10, 0, 0, 10].into()),
            hostname: None,
            loader: None,
            vars: Default::default(),
        }];
        let mut l = Leases::default();
        l.configure(&config);
        let wanted = Some([10, 0, 0, 10].into());
        assert_eq!(l.offer(mac(2), &s, wanted, at(0)), Ok([10, 0, 0, 11].into()));
        assert_eq!(l.offer(mac(3), &s, wanted, at(0)), Err(Refused::PoolFull(s.network)));
        assert_eq!(l.offer(mac(1), &s, None, at(0)), Ok([10, 0, 0, 10].into()));
    }

    #[test]
    fn a_reservation_waits_for_the_lease_of_another_and_for_a_declined_address() {
        let s = subnet("10.0.0.10-10.0.0.12");
        let mut l = leases(&s);
        let a = l.offer(mac(2), &s, Some([10, 0, 0, 10].into()), at(0)).unwrap();
        l.bind(mac(2), a, &s, HOUR, None, at(0)).unwrap();
        let mut config = Config::default();
        config.dhcp.subnets = vec![s.clone()];
        config.machines = vec![crate::model::Machine {
            name: "one".into(),
            matches: crate::model::Match { mac: Some(mac(1).into()), ..Default::default() },
            profile: None,
            address: Some(a),
            hostname: None,
            loader: None,
            vars: Default::default(),
        }];
        l.configure(&config);
        let b = l.offer(mac(1), &s, None, at(1)).unwrap();
        assert_ne!(b, a, "in use until its lease ends");
        assert_eq!(l.bind(mac(1), a, &s, HOUR, None, at(1)), Err(Refused::NotYours(a)));
        assert_eq!(l.offer(mac(1), &s, None, at(4000)), Ok(a));
        l.bind(mac(1), a, &s, HOUR, None, at(4000)).unwrap();
        l.decline(mac(1), a, at(4001)).unwrap();
        assert!(l.release(mac(1), a, at(4002)).is_err(), "it goes on resting");
        assert!(l.offer(mac(1), &s, None, at(4003)).is_ok_and(|c| c != a));
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
            l.offer(mac(1), &s, Some([10, 0, 0, 1].into()), at(0)),
            Ok([10, 0, 0, 3].into())
        );
        assert_eq!(l.offer(mac(2), &s, None, at(0)), Err(Refused::PoolFull(s.network)));
    }

    #[test]
    fn offers_end_and_are_renewed() {
        let s = subnet("10.0.0.10-10.0.0.10");
        let mut l = leases(&s);
        let a = l.offer(mac(1), &s, None, at(0)).unwrap();
        assert_eq!(l.offer(mac(1), &s, None, at(59)), Ok(a), "a repeated DISCOVER");
        assert!(l.offer(mac(2), &s, None, at(61)).is_err(), "held since the second");
        assert_eq!(l.offer(mac(2), &s, None, at(120)), Ok(a));
        assert!(l.offers == 1 && l.by_mac.len() == 1, "what ended is gone");
    }

    #[test]
    fn what_was_written_is_read_again() {
        let s = subnet("10.0.0.10-10.0.0.12");
        let mut l = leases(&s);
        let a = l.offer(mac(1), &s, None, at(0)).unwrap();
        l.bind(mac(1), a, &s, HOUR, Some("web1".into()), at(0)).unwrap();
        let records: Vec<_> =
            l.take_changes().into_iter().map(|w| (w.key, w.value.unwrap())).collect();
        let (again, unread) = Leases::load(&records);
        assert!(unread.is_empty());
        assert_eq!(again.list(), l.list());
        let (_, unread) = Leases::load(&[(vec![1], b"nonsense".to_vec())]);
        assert_eq!(unread.len(), 1);
    }
}
