//! Who is answered. The machine's solicitation and its DHCP come in either order, so each is
//! remembered for the other.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::Why;
use crate::model::Mac;

/// How long a solicitation waits for its machine's DHCP, which in iPXE runs beside it.
const WAITING: Duration = Duration::from_secs(8);
/// How long after its DHCP a machine is answered.
const BOOTING: Duration = Duration::from_secs(60);
/// How long a router that has spoken is believed to be there, whatever lifetime it states: three
/// times the usual MaxRtrAdvInterval of 600 s (RFC 4861 section 6.2.1).
const ROUTER: Duration = Duration::from_secs(1800);
/// The longest lifetime that section 6.2.1 lets a router state.
const LONGEST_LIFETIME: Duration = Duration::from_secs(9000);
/// A router has half a second to answer our own solicitation (MAX_RA_DELAY_TIME, section 10).
const LEARNING: Duration = Duration::from_secs(1);
/// What is remembered at most, of each kind; the oldest goes first.
const MACHINES: usize = 4096;
const ROUTERS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Section 6.2.6 wants a random delay before an answer, so that several routers do not answer
    /// at once. There is no second one where we answer, and the delay is what we are to spare.
    Answer {
        to: Ipv6Addr,
        mac: Mac,
    },
    Silent(Why),
}

/// What is known of one interface.
#[derive(Debug)]
pub struct Link {
    since: Instant,
    booting: Memory<Mac, ()>,
    waiting: Memory<Mac, Ipv6Addr>,
    routers: Memory<Ipv6Addr, ()>,
}

impl Link {
    pub fn new(now: Instant) -> Link {
        Link {
            since: now,
            booting: Memory::new(MACHINES),
            waiting: Memory::new(MACHINES),
            routers: Memory::new(ROUTERS),
        }
    }

    /// A solicitation, with its source link-layer address option if it had one.
    ///
    /// One from `::` could only be answered to all nodes (section 6.2.6), which is not ours to do.
    pub fn solicited(&mut self, link: Option<Mac>, from: Ipv6Addr, now: Instant) -> Verdict {
        if from.is_unspecified() {
            return Verdict::Silent(Why::NoAddress);
        }
        let Some(mac) = link.or_else(|| mac_of(from)) else {
            return Verdict::Silent(Why::NoMac);
        };
        let verdict = match self.quiet(now) {
            Some(why) => Verdict::Silent(why),
            None if self.booting.get(&mac, now).is_some() => Verdict::Answer { to: from, mac },
            None => Verdict::Silent(Why::NotBooting),
        };
        if matches!(verdict, Verdict::Silent(_)) {
            self.waiting.keep(mac, from, now, WAITING);
        }
        verdict
    }

    /// Our DHCP has just answered this machine as iPXE. The verdict is for a solicitation that was
    /// waiting for it.
    pub fn booting(&mut self, mac: Mac, now: Instant) -> Option<(Ipv6Addr, Verdict)> {
        self.booting.keep(mac, (), now, BOOTING);
        let to = *self.waiting.get(&mac, now)?;
        if let Some(why) = self.quiet(now) {
            return Some((to, Verdict::Silent(why)));
        }
        self.waiting.forget(&mac);
        Some((to, Verdict::Answer { to, mac }))
    }

    /// Somebody has advertised itself. We never advertise to all, so it was not us; a lifetime of 0
    /// is a router, too, that gives prefixes or is about to go. True if it is news.
    pub fn router_seen(&mut self, from: Ipv6Addr, lifetime: Duration, now: Instant) -> bool {
        let news = self.routers.get(&from, now).is_none();
        self.routers.keep(from, (), now, lifetime.clamp(ROUTER, LONGEST_LIFETIME));
        news
    }

    fn quiet(&self, now: Instant) -> Option<Why> {
        let router = self.routers.any(now).map(|&router| Why::Router(router));
        router.or((now < self.since + LEARNING).then_some(Why::Learning))
    }
}

/// The MAC in a link-local address that was made from it (RFC 4291 appendix A), as iPXE's is.
pub fn mac_of(from: Ipv6Addr) -> Option<Mac> {
    let [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a, b, c, 0xff, 0xfe, d, e, f] = from.octets() else {
        return None;
    };
    Some(Mac([a ^ 2, b, c, d, e, f]))
}

/// A bounded map whose entries end by themselves.
#[derive(Debug)]
struct Memory<K, V> {
    most: usize,
    held: HashMap<K, (V, Instant)>,
}

impl<K: Hash + Eq + Copy, V> Memory<K, V> {
    fn new(most: usize) -> Memory<K, V> {
        Memory { most, held: HashMap::new() }
    }

    fn keep(&mut self, key: K, value: V, now: Instant, long: Duration) {
        if self.held.len() >= self.most && !self.held.contains_key(&key) {
            self.held.retain(|_, (_, until)| *until > now);
        }
        if self.held.len() >= self.most && !self.held.contains_key(&key) {
            let first = self.held.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| *key);
            first.map(|key| self.held.remove(&key));
        }
        self.held.insert(key, (value, now + long));
    }

    fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.held.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value)
    }

    fn any(&self, now: Instant) -> Option<&K> {
        self.held.iter().find(|(_, (_, until))| *until > now).map(|(key, _)| key)
    }

    fn forget(&mut self, key: &K) {
        self.held.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const B: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    const ROUTER_IP: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn link_local(mac: Mac) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        octets[8..].copy_from_slice(&mac.eui64());
        octets.into()
    }

    enum Event {
        Solicited(Option<Mac>, Ipv6Addr),
        Booting(Mac),
        Router(u64),
    }
    use Event::*;

    /// Runs a timetable in milliseconds; a booting machine that nobody waits for gives no verdict.
    fn run(rows: &[(u64, Event, Option<Verdict>)]) {
        let start = Instant::now();
        let mut link = Link::new(start);
        for (ms, event, want) in rows {
            let now = start + Duration::from_millis(*ms);
            let got = match event {
                Solicited(mac, from) => Some(link.solicited(*mac, *from, now)),
                Booting(mac) => link.booting(*mac, now).map(|(_, verdict)| verdict),
                Router(seconds) => {
                    link.router_seen(ROUTER_IP, Duration::from_secs(*seconds), now);
                    None
                }
            };
            assert_eq!(got, *want, "at {ms} ms");
        }
    }

    fn answer(mac: Mac) -> Option<Verdict> {
        Some(Verdict::Answer { to: link_local(mac), mac })
    }

    fn silent(why: Why) -> Option<Verdict> {
        Some(Verdict::Silent(why))
    }

    #[test]
    fn only_who_boots_is_answered_in_either_order() {
        run(&[
            (2000, Solicited(None, link_local(A)), silent(Why::NotBooting)),
            (2100, Booting(B), None),
            (2200, Booting(A), answer(A)),
            (2300, Booting(A), None),
            (2400, Solicited(None, link_local(A)), answer(A)),
            (62_299, Solicited(None, link_local(A)), answer(A)),
            (62_300, Solicited(None, link_local(A)), silent(Why::NotBooting)),
            (70_299, Booting(A), answer(A)),
            (90_000, Solicited(None, link_local(B)), silent(Why::NotBooting)),
            (98_000, Booting(B), None),
        ]);
    }

    #[test]
    fn the_machine_is_known_by_its_option_or_its_address() {
        let privacy: Ipv6Addr = "fe80::1234:5678:9abc:def0".parse().unwrap();
        run(&[
            (2000, Booting(A), None),
            (2001, Solicited(None, Ipv6Addr::UNSPECIFIED), silent(Why::NoAddress)),
            (2002, Solicited(None, privacy), silent(Why::NoMac)),
            (2003, Solicited(Some(A), privacy), Some(Verdict::Answer { to: privacy, mac: A })),
            (2004, Solicited(Some(B), link_local(A)), silent(Why::NotBooting)),
        ]);
    }

    #[test]
    fn never_where_a_router_speaks() {
        let router = || silent(Why::Router(ROUTER_IP));
        let minute = 60_000;
        run(&[
            (2000, Booting(A), None),
            (2001, Router(0), None),
            (2002, Solicited(None, link_local(A)), router()),
            (2003, Booting(A), router()),
            (30 * minute, Booting(A), None),
            (30 * minute + 1, Solicited(None, link_local(A)), router()),
            (30 * minute + 2001, Solicited(None, link_local(A)), answer(A)),
            (40 * minute, Router(65535), None),
            (40 * minute + 8_999_999, Solicited(None, link_local(A)), router()),
            (40 * minute + 9_000_000, Booting(A), answer(A)),
        ]);
    }

    #[test]
    fn a_router_gets_time_to_answer_us_first() {
        run(&[
            (0, Solicited(None, link_local(A)), silent(Why::Learning)),
            (500, Booting(A), silent(Why::Learning)),
            (1000, Solicited(None, link_local(A)), answer(A)),
        ]);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let now = Instant::now() + LEARNING;
        let mut link = Link::new(now - LEARNING);
        for n in 0..MACHINES as u32 + 500 {
            let [a, b, c, d] = n.to_be_bytes();
            let mac = Mac([2, 0, a, b, c, d]);
            let later = now + Duration::from_micros(n.into());
            link.solicited(Some(mac), link_local(mac), later);
            link.booting(mac, later);
            link.solicited(Some(B), link_local(B), later);
            link.router_seen(link_local(mac), Duration::ZERO, later + ROUTER * n);
        }
        let held = (link.waiting.held.len(), link.booting.held.len(), link.routers.held.len());
        assert!(held.0 <= MACHINES && held.1 <= MACHINES && held.2 <= ROUTERS, "{held:?}");
    }
}
