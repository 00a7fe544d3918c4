//! All exchanges that are under way, pure: datagrams and times in, datagrams and ends out.
//!
//! 1. [`Desk::begin`] gives an exchange a place and a transaction number that leads back to it.
//! 2. [`Desk::write`] makes the datagrams that wait to be sent.
//! 3. [`Desk::hear`] finds the exchange of a datagram and lets it go on.
//! 4. [`Desk::tick`] wakes those whose wait is over. Times lie in a wheel of buckets, so that a
//!    storm costs no search.
//!
//! It remembers who was given which address: an address in two hands is the one mistake that a
//! DHCP server must not make.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::dhcp::{
    self, Boot, Chosen, Exchange, Kind, Lease, NoLease, ROOM, Speaker, Step, Template, hear,
};
use crate::model::{Firmware, Mac};

/// Exchanges at once.
const PLACES: usize = 1 << 20;
const PLACE_BITS: u32 = 20;
/// The wheel's step, and its circumference: longer than the longest wait of an exchange.
pub const TICK: Duration = Duration::from_millis(8);
const TICKS: usize = 2048;

/// Who asks, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub mac: Mac,
    pub firmware: &'static Firmware,
    pub speaker: Speaker,
    /// Whether what it is told to boot is wanted, too.
    pub boots: bool,
}

/// How an exchange ended.
#[derive(Debug)]
pub struct Ended<T> {
    pub tag: T,
    pub mac: Mac,
    /// When it was to begin.
    pub from: Duration,
    pub result: Result<Has, NoLease>,
}

/// What it brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Has {
    pub lease: Option<Lease>,
    pub boot: Option<Boot>,
}

struct Place<T> {
    /// `None` is free.
    tag: Option<T>,
    mac: Mac,
    words: usize,
    boots: bool,
    exchange: Exchange,
    turn: u32,
    from: Duration,
    due: Duration,
}

/// Who has an address, of whom and until when.
struct Given {
    mac: Mac,
    server: Ipv4Addr,
    until: Duration,
}

/// The messages of one kind of machine.
struct Words {
    firmware: &'static Firmware,
    speaker: Speaker,
    discover: Template,
    request: Template,
}

pub struct Desk<T> {
    giaddr: Ipv4Addr,
    words: Vec<Words>,
    release: Template,
    places: Vec<Place<T>>,
    /// Taken from the front, put back at the end: a transaction number rests before it is used
    /// again.
    free: VecDeque<u32>,
    sending: VecDeque<u32>,
    wheel: Vec<Vec<(u32, u32)>>,
    at: u64,
    given: HashMap<Ipv4Addr, Given>,
    mask: u32,
    die: u32,
    flying: usize,
    /// Messages that were sent again.
    pub resent: u64,
}

impl<T> Desk<T> {
    /// Through a relay at `giaddr`; `seed` makes transaction numbers and waits.
    pub fn new(giaddr: Ipv4Addr, seed: u32) -> Desk<T> {
        let any = &crate::model::firmware::TABLE[0];
        Desk {
            giaddr,
            words: Vec::new(),
            release: Template::new(any, Speaker::Firmware, Kind::Release, giaddr),
            places: Vec::new(),
            free: VecDeque::new(),
            sending: VecDeque::new(),
            wheel: (0..TICKS).map(|_| Vec::new()).collect(),
            at: 0,
            given: HashMap::new(),
            mask: seed.wrapping_mul(0x9E37_79B1),
            die: seed | 1,
            flying: 0,
            resent: 0,
        }
    }

    /// Exchanges under way.
    pub fn flying(&self) -> usize {
        self.flying
    }

    /// Whether datagrams wait to be sent.
    pub fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Begins an exchange that was to begin at `from`.
    pub fn begin(
        &mut self,
        ask: Ask,
        tag: T,
        from: Duration,
        now: Duration,
    ) -> Result<(), Ended<T>> {
        let place = match self.free.pop_front() {
            Some(place) => place,
            None if self.places.len() < PLACES => self.places.len() as u32,
            None => {
                return Err(Ended { tag, mac: ask.mac, from, result: Err(NoLease::Crowded) });
            }
        };
        let (exchange, wait) = Exchange::begin(self.roll());
        let words = self.words(ask.firmware, ask.speaker);
        let at = place as usize;
        let turn = self.places.get(at).map_or(0, |p| p.turn.wrapping_add(1));
        let new = Place {
            tag: Some(tag),
            mac: ask.mac,
            words,
            boots: ask.boots,
            exchange,
            turn,
            from,
            due: now + wait,
        };
        match self.places.get_mut(at) {
            Some(old) => *old = new,
            None => self.places.push(new),
        }
        self.put(place, turn, now + wait);
        self.sending.push_back(place);
        self.flying += 1;
        Ok(())
    }

    /// Writes the `i`th datagram that waits, for a machine's `secs`: its length.
    pub fn write(&self, i: usize, now: Duration, out: &mut [u8; ROOM]) -> Option<usize> {
        let place = *self.sending.get(i)?;
        let p = self.places.get(place as usize)?;
        let words = self.words.get(p.words)?;
        let (kind, chosen) = p.exchange.says();
        let template = if kind == Kind::Discover { &words.discover } else { &words.request };
        let secs = u16::try_from(now.saturating_sub(p.from).as_secs()).unwrap_or(u16::MAX);
        Some(template.write(p.mac, self.xid(place, p.turn), secs, chosen, out))
    }

    /// That many of those that wait are sent.
    pub fn sent(&mut self, n: usize) {
        self.sending.drain(..n.min(self.sending.len()));
    }

    /// A datagram has come: the end of its exchange, if it is that. False is one of nobody here.
    pub fn hear(&mut self, datagram: &[u8], now: Duration, ends: &mut Vec<Ended<T>>) -> bool {
        let Some(heard) = hear(datagram) else { return false };
        let number = heard.xid ^ self.mask;
        let place = number & ((1 << PLACE_BITS) - 1);
        let die = self.roll();
        let Some(p) = self.places.get_mut(place as usize) else { return false };
        // The number of a place repeats, the machine in it hardly.
        if p.tag.is_none() || p.mac != heard.mac || number >> PLACE_BITS != p.turn & 0xfff {
            return false;
        }
        let step = p.exchange.hears(&heard, die);
        let boots = p.boots;
        let boot = || {
            let speaker = self.words.get(p.words)?.speaker;
            boots.then(|| dhcp::boot(datagram, speaker)).flatten()
        };
        let boot = if matches!(step, Step::Done(_)) { boot() } else { None };
        self.go(place, step, boot, now, ends);
        true
    }

    /// Wakes those whose wait is over.
    pub fn tick(&mut self, now: Duration, ends: &mut Vec<Ended<T>>) {
        let until = ticks(now);
        // Whoever slept longer than a whole turn finds each bucket once.
        let first = self.at.max((until + 1).saturating_sub(TICKS as u64));
        for tick in first..=until {
            let bucket = (tick % TICKS as u64) as usize;
            if self.wheel[bucket].is_empty() {
                continue;
            }
            for (place, turn) in std::mem::take(&mut self.wheel[bucket]) {
                self.wake(place, turn, now, ends);
            }
        }
        self.at = until;
    }

    fn wake(&mut self, place: u32, turn: u32, now: Duration, ends: &mut Vec<Ended<T>>) {
        let die = self.roll();
        let Some(p) = self.places.get_mut(place as usize) else { return };
        if p.tag.is_none() || p.turn != turn {
            return;
        }
        if p.due > now {
            let due = p.due;
            return self.put(place, turn, due);
        }
        let step = p.exchange.waited(die);
        self.resent += u64::from(matches!(step, Step::Send(_)));
        self.go(place, step, None, now, ends);
        if let Some(p) = self.places.get(place as usize).filter(|p| p.tag.is_some()) {
            self.put(place, turn, p.due);
        }
    }

    fn go(
        &mut self,
        place: u32,
        step: Step,
        boot: Option<Boot>,
        now: Duration,
        ends: &mut Vec<Ended<T>>,
    ) {
        let Some(p) = self.places.get_mut(place as usize) else { return };
        let result = match step {
            Step::Stay => return,
            Step::Send(wait) => {
                p.due = now + wait;
                self.sending.push_back(place);
                return;
            }
            Step::Done(lease) => Ok(Has { lease, boot }),
            Step::Failed(why) => Err(why),
        };
        let (mac, from) = (p.mac, p.from);
        let Some(tag) = p.tag.take() else { return };
        self.flying -= 1;
        self.free.push_back(place);
        let result = result.and_then(|has| match has.lease {
            Some(lease) => self.note(mac, lease, now).map(|()| has),
            None => Ok(has),
        });
        ends.push(Ended { tag, mac, from, result });
    }

    /// Remembers who has an address, until its lease ends.
    fn note(&mut self, mac: Mac, lease: Lease, now: Duration) -> Result<(), NoLease> {
        let given = Given { mac, server: lease.server, until: now + lease.time };
        match self.given.insert(lease.address, given) {
            Some(old) if old.mac != mac && old.until > now => {
                Err(NoLease::Twice(lease.address, old.mac, mac))
            }
            _ => Ok(()),
        }
    }

    /// One more lease to give back, written as a RELEASE (RFC 2131 section 4.4.6). It has no
    /// answer.
    pub fn release(&mut self, out: &mut [u8; ROOM]) -> Option<usize> {
        let address = *self.given.keys().next()?;
        let Given { mac, server, .. } = self.given.remove(&address)?;
        let xid = self.roll();
        Some(self.release.write(mac, xid, 0, Chosen { address, server }, out))
    }

    /// Leases that are held.
    pub fn held(&self) -> usize {
        self.given.len()
    }

    fn words(&mut self, firmware: &'static Firmware, speaker: Speaker) -> usize {
        let same = |w: &Words| std::ptr::eq(w.firmware, firmware) && w.speaker == speaker;
        if let Some(at) = self.words.iter().position(same) {
            return at;
        }
        let template = |kind| Template::new(firmware, speaker, kind, self.giaddr);
        let (discover, request) = (template(Kind::Discover), template(Kind::Request));
        self.words.push(Words { firmware, speaker, discover, request });
        self.words.len() - 1
    }

    fn put(&mut self, place: u32, turn: u32, due: Duration) {
        // Not into the bucket that has just been emptied: it comes again only after a whole turn.
        let tick = ticks(due).max(self.at) + 1;
        self.wheel[(tick % TICKS as u64) as usize].push((place, turn));
    }

    fn xid(&self, place: u32, turn: u32) -> u32 {
        (place | (turn & 0xfff) << PLACE_BITS) ^ self.mask
    }

    /// Marsaglia's xorshift.
    fn roll(&mut self) -> u32 {
        self.die ^= self.die << 13;
        self.die ^= self.die >> 17;
        self.die ^= self.die << 5;
        self.die
    }
}

fn ticks(at: Duration) -> u64 {
    u64::try_from(at.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::wire::{self, Reply, ReplyKind, code};

    const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const LEASED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

    fn ask(last: u8) -> Ask {
        let firmware = Firmware::by_name("uefi-x64").unwrap();
        let mac = Mac([2, 0, 0, 0, 0, last]);
        Ask { mac, firmware, speaker: Speaker::Firmware, boots: true }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What waits to be sent, sent.
    fn sends<T>(desk: &mut Desk<T>, now: Duration) -> Vec<wire::Request> {
        let mut out = [0; ROOM];
        let mut all = Vec::new();
        while let Some(len) = desk.write(0, now, &mut out) {
            all.push(wire::read(&out[..len]).unwrap());
            desk.sent(1);
        }
        all
    }

    fn reply(to: &wire::Request, kind: ReplyKind, address: Ipv4Addr) -> Vec<u8> {
        wire::write(&Reply {
            kind,
            xid: to.xid,
            secs: 0,
            flags: to.flags,
            mac: to.mac,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: address,
            siaddr: SERVER,
            giaddr: to.giaddr,
            file: "snponly.efi".into(),
            options: vec![
                (code::SERVER_ID, SERVER.octets()[..].into()),
                (code::LEASE_TIME, 60u32.to_be_bytes()[..].into()),
            ],
            relay: None,
            limit: wire::MOST,
        })
    }

    /// One machine all the way, at `now`: how it ended.
    fn leases(desk: &mut Desk<u8>, last: u8, address: Ipv4Addr, now: Duration) -> Ended<u8> {
        let mut ends = Vec::new();
        assert!(desk.begin(ask(last), last, now, now).is_ok());
        for kind in [ReplyKind::Offer, ReplyKind::Ack] {
            let asked = sends(desk, now);
            assert!(desk.hear(&reply(&asked[0], kind, address), now, &mut ends));
        }
        ends.pop().unwrap()
    }

    #[test]
    fn an_exchange_ends_with_a_lease_and_what_to_boot() {
        let mut desk = Desk::new(RELAY, 7);
        let ended = leases(&mut desk, 1, LEASED, ms(5));
        assert_eq!((ended.tag, ended.from, desk.flying()), (1, ms(5), 0));
        let has = ended.result.unwrap();
        assert_eq!(has.lease.unwrap().address, LEASED);
        assert_eq!(has.boot, Some(Boot { server: SERVER, file: "snponly.efi".into() }));
        let mut out = [0; ROOM];
        let len = desk.release(&mut out).unwrap();
        let given_back = wire::read(&out[..len]).unwrap();
        assert_eq!((given_back.ciaddr, given_back.server_id), (LEASED, Some(SERVER)));
        assert_eq!((desk.held(), desk.release(&mut out)), (0, None));
    }

    #[test]
    fn an_address_in_two_hands_is_a_failure_until_its_lease_has_ended() {
        let mut desk = Desk::new(RELAY, 7);
        assert!(leases(&mut desk, 1, LEASED, ms(0)).result.is_ok());
        assert!(leases(&mut desk, 1, LEASED, ms(10)).result.is_ok(), "its own");
        let twice = leases(&mut desk, 2, LEASED, ms(20)).result.unwrap_err();
        assert_eq!(twice, NoLease::Twice(LEASED, ask(1).mac, ask(2).mac));
        assert!(leases(&mut desk, 3, LEASED, ms(60_021)).result.is_ok(), "60 s later");
    }

    #[test]
    fn what_is_not_answered_is_sent_again_and_given_up() {
        let mut desk = Desk::new(RELAY, 7);
        assert!(desk.begin(ask(1), (), ms(0), ms(0)).is_ok());
        let (mut ends, mut at) = (Vec::new(), Vec::new());
        for now in (0..20_000).step_by(8).map(ms) {
            desk.tick(now, &mut ends);
            at.extend(sends(&mut desk, now).iter().map(|_| now));
            if !ends.is_empty() {
                at.push(now);
                break;
            }
        }
        // About 1, 2, 4 and 8 s apart, a quarter more or less.
        let waits: Vec<u64> = at.windows(2).map(|w| (w[1] - w[0]).as_millis() as u64).collect();
        assert_eq!((waits.len(), desk.resent), (4, 3), "{waits:?}");
        for (wait, about) in waits.iter().zip([1000, 2000, 4000, 8000]) {
            assert!(*wait >= about * 3 / 4 && *wait <= about * 5 / 4 + 24, "{waits:?}");
        }
        assert_eq!(ends[0].result, Err(NoLease::NoOffer));
        assert_eq!(desk.flying(), 0);
    }

    #[test]
    fn whoever_slept_long_wakes_everyone_once() {
        let mut desk = Desk::new(RELAY, 7);
        for last in 0..50 {
            assert!(desk.begin(ask(last), (), ms(0), ms(u64::from(last) * 100)).is_ok());
        }
        assert_eq!(sends(&mut desk, ms(5000)).len(), 50);
        let mut ends = Vec::new();
        desk.tick(ms(3_600_000), &mut ends);
        assert_eq!((sends(&mut desk, ms(3_600_000)).len(), ends.len()), (50, 0));
        for hour in 2..6 {
            desk.tick(ms(hour * 3_600_000), &mut ends);
        }
        assert_eq!((ends.len(), desk.flying()), (50, 0));
    }

    #[test]
    fn answers_to_others_are_nobodys_here() {
        let mut desk = Desk::new(RELAY, 7);
        let mut ends = Vec::new();
        assert!(desk.begin(ask(1), (), ms(0), ms(0)).is_ok());
        let asked = sends(&mut desk, ms(0)).remove(0);
        let stranger = wire::Request { mac: Mac([2; 6]), ..asked.clone() };
        let other = wire::Request { xid: asked.xid ^ 1, ..asked.clone() };
        for from in [&stranger, &other] {
            assert!(!desk.hear(&reply(from, ReplyKind::Offer, LEASED), ms(1), &mut ends));
        }
        assert!(!desk.hear(b"", ms(1), &mut ends));
        assert!(sends(&mut desk, ms(1)).is_empty() && ends.is_empty());
        assert!(desk.hear(&reply(&asked, ReplyKind::Offer, LEASED), ms(1), &mut ends));
        assert_eq!(sends(&mut desk, ms(1))[0].requested, Some(LEASED));
    }

    #[test]
    fn a_place_that_is_used_again_has_another_number() {
        let mut desk = Desk::new(RELAY, 7);
        let mut seen = std::collections::HashSet::new();
        let mut ends = Vec::new();
        for _ in 0..1000 {
            assert!(desk.begin(ask(1), (), ms(0), ms(0)).is_ok());
            let asked = sends(&mut desk, ms(0)).remove(0);
            assert!(seen.insert(asked.xid));
            let none = Ipv4Addr::UNSPECIFIED;
            assert!(desk.hear(&reply(&asked, ReplyKind::Offer, none), ms(0), &mut ends));
        }
        assert_eq!(desk.places.len(), 1);
    }
}
