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
