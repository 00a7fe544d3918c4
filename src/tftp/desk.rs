//! All the transfers of a server: whose datagram is it, who is let in, whose time has come. Pure;
//! what the shell needs beside a transfer (the content) travels along as `J`.
//!
//! A transfer is known by the port of ours that it runs on (its line) and the client's address and
//! port: the two TIDs of RFC 1350 section 4.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::decide::{Flight, Step, Transfer};
use super::{Ask, Seen, Why};

/// How many ended transfers are remembered, so that an acknowledgement that comes late is not
/// answered with an error: the client may have begun its next transfer from that very port.
const PARTED: usize = 256;
/// Errors to strangers a second, and at once: no tool to shoot at others with.
const ERRORS: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub line: u16,
    pub peer: SocketAddrV4,
}

/// How many transfers may be under way. A hall of 2,000 machines must find its place, behind one
/// address, too: a relay that translates addresses, or a rehearsal. What an address has to show
/// for it is acknowledgements, which somebody who forges requests does not see a reason for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub transfers: usize,
    pub per_address: usize,
    /// Bytes of first answers, headers included, that wait for their first acknowledgement from
    /// one address; with as many new ones a second ([`PATIENCE`]) and each sent again three times
    /// at most, it is what a forged address can get. 64 kB are about 900 OACKs, which are no longer
    /// than their requests, and 120 first blocks.
    pub unanswered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { transfers: 4096, per_address: 3072, unanswered: 64 << 10 }
    }
}

/// How long a transfer that nobody acknowledges keeps its place against others that want it: a
/// machine that is there has answered by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one address has here.
#[derive(Debug, Default)]
struct Guest {
    transfers: usize,
    /// Bytes of the first answers that nothing was acknowledged of.
    unanswered: usize,
    young: Young,
}

/// Transfers in the order in which they began, until they are acknowledged or over; that is found
/// out when one is looked for.
#[derive(Debug, Default)]
struct Young(VecDeque<(Instant, Key)>);

impl Young {
    fn push(&mut self, began: Instant, key: Key, still: impl Fn(&(Instant, Key)) -> bool) {
        // Room for as many again, so that this long look is taken seldom.
        if self.0.len() == self.0.capacity() {
            self.0.retain(&still);
            self.0.reserve(self.0.len() + 1);
        }
        self.0.push_back((began, key));
    }

    /// The oldest one that is young still.
    fn oldest(&mut self, still: impl Fn(&(Instant, Key)) -> bool) -> Option<(Instant, Key)> {
        while self.0.front().is_some_and(|young| !still(young)) {
            self.0.pop_front();
        }
        self.0.front().copied()
    }
}

#[derive(Debug)]
pub struct Entry<J> {
    pub ask: Ask,
    pub transfer: Transfer,
    pub job: J,
    /// Bytes of its first answer.
    cost: usize,
    began: Instant,
    /// The time under which it stands among the timers: not later than the transfer's own.
    armed: Instant,
}

impl<J> Entry<J> {
    pub fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// What to do with a request.
#[derive(Debug)]
pub enum Admit<J> {
    /// It has come twice: this once more.
    Again(Key, Flight),
    /// A new transfer on this line, for [`Desk::begin`], and what has ended to make way for it.
    New(Key, Vec<(Entry<J>, Seen<'static>)>),
    Refused(Why),
}

#[derive(Debug)]
pub struct Desk<J> {
    limits: Limits,
    live: HashMap<Key, Entry<J>>,
    guests: HashMap<Ipv4Addr, Guest>,
    young: Young,
    timers: BTreeSet<(Instant, Key)>,
    parted: VecDeque<Key>,
    turn: u16,
    errors: u32,
    errors_since: Option<Instant>,
}

impl<J> Desk<J> {
    pub fn new(limits: Limits) -> Desk<J> {
        Desk {
            limits,
            live: HashMap::new(),
            guests: HashMap::new(),
            young: Young::default(),
            timers: BTreeSet::new(),
            parted: VecDeque::with_capacity(PARTED),
            turn: 0,
            errors: ERRORS,
            errors_since: None,
        }
    }

    /// Decides about a request that may be served from any of these lines.
    ///
    /// The same request of a transfer that nothing was acknowledged of is a retransmission. After
    /// that it is a late duplicate or a machine that has started anew, and RFC 1350 section 4 lets
    /// the first transfer live: the client ends whichever it does not know. Another request from
    /// the same port means that the old one is over.
    pub fn admit(&mut self, lines: Range<u16>, ask: &Ask, now: Instant) -> Admit<J> {
        let keys = lines.clone().map(|line| Key { line, peer: ask.peer });
        let held: Vec<Key> = keys.filter(|key| self.live.contains_key(key)).collect();
        let mut ended = Vec::new();
        for key in held {
            match self.live.get_mut(&key) {
                Some(e) if e.ask != *ask => {
                    ended.extend(self.end(key).map(|e| (e, Seen::Replaced)));
                }
                Some(e) if !e.transfer.answered() => {
                    let again = e.transfer.again(now);
                    self.rearm(key);
                    return again.map_or(Admit::Refused(Why::Repeated), |f| Admit::Again(key, f));
                }
                _ => {}
            }
        }
        match self.make_room(*ask.peer.ip(), now) {
            Ok(evicted) => ended.extend(evicted.map(|e| (e, Seen::Evicted))),
            Err(why) => return Admit::Refused(why),
        }
        let key = self.free(lines, ask.peer);
        ended.extend(self.end(key).map(|e| (e, Seen::Replaced)));
        Admit::New(key, ended)
    }

    /// Where there is no room, a transfer that nobody has ever acknowledged makes some, the oldest
    /// first and not before it had its time: forged requests keep nobody out for longer.
    fn make_room(&mut self, ip: Ipv4Addr, now: Instant) -> Result<Option<Entry<J>>, Why> {
        let live = &self.live;
        let still = |(began, key): &(Instant, Key)| {
            live.get(key).is_some_and(|e| e.began == *began && !e.transfer.answered())
        };
        let guest = self.guests.get_mut(&ip);
        let (here, young) = guest.as_ref().map_or((0, 0), |g| (g.transfers, g.unanswered));
        let (oldest, why) = if here >= self.limits.per_address {
            let oldest = guest.and_then(|g| g.young.oldest(still));
            (oldest, Why::TooMany(self.limits.per_address))
        } else if young >= self.limits.unanswered {
            let oldest = guest.and_then(|g| g.young.oldest(still));
            let oldest = oldest.filter(|(began, _)| now >= *began + PATIENCE);
            (oldest, Why::Unanswered(self.limits.unanswered))
        } else if live.len() >= self.limits.transfers {
            (self.young.oldest(still), Why::Busy(self.limits.transfers))
        } else {
            return Ok(None);
        };
        oldest.and_then(|(_, key)| self.end(key)).map(Some).ok_or(why)
    }

    /// A line that this peer has no transfer on, and which one is not to be guessed: an
    /// acknowledgement that is forged along with its request has to find it. The map's own secret
    /// makes the choice.
    fn free(&mut self, lines: Range<u16>, peer: SocketAddrV4) -> Key {
        self.turn = self.turn.wrapping_add(1);
        let count = (lines.end - lines.start).max(1);
        let start = self.live.hasher().hash_one((self.turn, peer)) as u16;
        let nth = |n: u16| Key { line: lines.start + start.wrapping_add(n) % count, peer };
        (0..count).map(nth).find(|key| !self.live.contains_key(key)).unwrap_or(nth(0))
    }

    /// A transfer begins on the line that [`Desk::admit`] gave.
    pub fn begin(&mut self, key: Key, ask: Ask, transfer: Transfer, job: J, now: Instant) {
        self.end(key);
        let armed = transfer.due();
        self.timers.insert((armed, key));
        let guest = self.guests.entry(*key.peer.ip()).or_default();
        guest.transfers += 1;
        let cost = transfer.first_bytes();
        guest.unanswered += cost;
        let live = &self.live;
        let still = |(began, key): &(Instant, Key)| {
            live.get(key).is_some_and(|e| e.began == *began && !e.transfer.answered())
        };
        guest.young.push(now, key, still);
        self.young.push(now, key, still);
        self.live.insert(key, Entry { ask, transfer, job, cost, began: now, armed });
    }

    /// Takes a transfer away.
    pub fn end(&mut self, key: Key) -> Option<Entry<J>> {
        let entry = self.live.remove(&key)?;
        self.timers.remove(&(entry.armed, key));
        if let Some(guest) = self.guests.get_mut(key.peer.ip()) {
            guest.transfers -= 1;
            guest.unanswered -= if entry.transfer.answered() { 0 } else { entry.cost };
            if guest.transfers == 0 {
                self.guests.remove(key.peer.ip());
            }
        }
        if self.parted.len() == PARTED {
            self.parted.pop_front();
        }
        self.parted.push_back(key);
        Some(entry)
    }

    pub fn get(&self, key: Key) -> Option<&Entry<J>> {
        self.live.get(&key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Entry<J>> {
        self.live.get_mut(&key)
    }

    /// An acknowledgement. [`Why`] if there is no such transfer.
    pub fn ack(&mut self, key: Key, number: u16, now: Instant) -> Result<Step, Why> {
        let Some(entry) = self.live.get_mut(&key) else {
            return Err(if self.parted.contains(&key) { Why::Late } else { Why::Stranger });
        };
        let before = entry.transfer.answered();
        let step = entry.transfer.ack(number, now);
        if !before
            && entry.transfer.answered()
            && let Some(guest) = self.guests.get_mut(key.peer.ip())
        {
            guest.unanswered -= entry.cost;
        }
        if entry.transfer.due() < entry.armed {
            self.rearm(key);
        }
        Ok(step)
    }

    /// A socket was full; see [`Transfer::unsent`].
    pub fn unsent(&mut self, key: Key, rest: Flight, now: Instant) {
        if let Some(entry) = self.live.get_mut(&key) {
            entry.transfer.unsent(rest, now);
            self.rearm(key);
        }
    }

    /// A timer is moved only where it would be late; one that is early is put right when its time
    /// comes. That spares two tree operations for each acknowledgement.
    fn rearm(&mut self, key: Key) {
        if let Some(entry) = self.live.get_mut(&key) {
            let due = entry.transfer.due();
            if due < entry.armed {
                self.timers.remove(&(entry.armed, key));
                self.timers.insert((due, key));
                entry.armed = due;
            }
        }
    }

    /// When to look at the timers next.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// One transfer whose time has come, and what it does about it.
    pub fn tick(&mut self, now: Instant) -> Option<(Key, Step)> {
        while let Some(&(armed, key)) = self.timers.first().filter(|(armed, _)| *armed <= now) {
            self.timers.remove(&(armed, key));
            let Some(entry) = self.live.get_mut(&key) else { continue };
            let step = entry.transfer.tick(now);
            entry.armed = entry.transfer.due();
            self.timers.insert((entry.armed, key));
            if step != Step::Wait {
                return Some((key, step));
            }
        }
        None
    }

    /// Whether a stranger may be sent one more error now.
    pub fn may_err(&mut self, now: Instant) -> bool {
        let since = *self.errors_since.get_or_insert(now);
        let whole = now.saturating_duration_since(since).as_secs();
        if whole > 0 {
            self.errors_since = Some(now);
            self.errors = ERRORS;
        }
        let may = self.errors > 0;
        self.errors = self.errors.saturating_sub(1);
        may
    }

    /// Transfers under way.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether all the books agree and nothing is beyond its limit; for tests and fuzzing.
    pub fn sound(&self) -> bool {
        let young = |ip: &Ipv4Addr| -> usize {
            let here = self.live.iter().filter(|(key, _)| key.peer.ip() == ip);
            here.filter(|(_, e)| !e.transfer.answered()).map(|(_, e)| e.cost).sum()
        };
        let guests = self.guests.values();
        self.live.len() <= self.limits.transfers
            && self.timers.len() == self.live.len()
            && self.live.iter().all(|(k, e)| self.timers.contains(&(e.armed, *k)))
            && self.live.values().all(|e| e.armed <= e.transfer.due())
            && guests.clone().map(|g| g.transfers).sum::<usize>() == self.live.len()
            && guests.clone().all(|g| g.transfers > 0 && g.transfers <= self.limits.per_address)
            && guests.clone().all(|g| g.unanswered < self.limits.unanswered + 1024)
            && self.guests.iter().all(|(ip, g)| g.unanswered == young(ip))
            && self.parted.len() <= PARTED
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Why as _;

    use super::super::decide::Caps;
    use super::super::wire::{self, Mode, Options, Packet};
    use super::*;

    const CAPS: Caps = Caps { blksize: 1468, windowsize: 64 };
    const LINES: Range<u16> = 1..9;

    fn ask(host: u8, port: u16, name: &str) -> Ask {
        Ask {
            peer: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), port),
            local: Ipv4Addr::new(10, 0, 0, 1),
            name: name.into(),
            mode: Mode::Octet,
            options: Options::default(),
        }
    }

    /// A request as the shell treats it: the key if a transfer has begun, and what it ended.
    fn request(desk: &mut Desk<()>, ask: &Ask, now: Instant) -> Result<(Key, Vec<String>), String> {
        match desk.admit(LINES, ask, now) {
            Admit::New(key, ended) => {
                let (transfer, _) = Transfer::begin(5000, &ask.options, CAPS, now);
                desk.begin(key, ask.clone(), transfer, (), now);
                assert!(desk.sound());
                Ok((key, ended.iter().map(|(e, s)| format!("{} {s:?}", e.ask.name)).collect()))
            }
            Admit::Again(_, flight) => Err(format!("{flight:?}")),
            Admit::Refused(why) => Err(why.name().into()),
        }
    }

    #[test]
    fn a_request_that_comes_twice() {
        let (mut desk, now) = (Desk::new(Limits::default()), Instant::now());
        let first = request(&mut desk, &ask(2, 2070, "a"), now).unwrap().0;
        let doubled = request(&mut desk, &ask(2, 2070, "a"), now);
        assert_eq!(doubled, Err("repeated".into()), "by the network");
        let later = now + Duration::from_millis(300);
        let twice = request(&mut desk, &ask(2, 2070, "a"), later);
        assert_eq!(twice, Err("Blocks { first: 1, last: 1 }".into()), "nothing acknowledged yet");
        assert_eq!(desk.len(), 1);
        desk.ack(first, 1, now).unwrap();
        let anew = request(&mut desk, &ask(2, 2070, "a"), now).unwrap();
        assert!(anew.0.line != first.line && anew.1.is_empty(), "RFC 1350: the first one lives");
        assert_eq!(desk.len(), 2);
        let other = request(&mut desk, &ask(2, 2070, "b"), now).unwrap();
        assert_eq!(other.1, ["a Replaced", "a Replaced"]);
        assert_eq!(desk.len(), 1);
        request(&mut desk, &ask(2, 2071, "b"), now).unwrap();
        assert_eq!(desk.len(), 2, "another port is another transfer");
    }

    #[test]
    fn strangers_and_the_late() {
        let (mut desk, now) = (Desk::new(Limits::default()), Instant::now());
        let (key, _) = request(&mut desk, &ask(2, 2070, "a"), now).unwrap();
        let foreign = Key { peer: SocketAddrV4::new(*key.peer.ip(), 4), ..key };
        assert_eq!(desk.ack(foreign, 1, now), Err(Why::Stranger));
        let elsewhere = Key { line: key.line % 8 + 1, ..key };
        assert_eq!(desk.ack(elsewhere, 1, now), Err(Why::Stranger));
        assert!(matches!(desk.ack(key, 1, now), Ok(Step::Send(_))), "and the transfer lives");
        desk.end(key);
        assert_eq!(desk.ack(key, 1, now), Err(Why::Late), "no ERROR for a client that is done");
        let mut errors = (0..1000).filter(|_| desk.may_err(now)).count();
        errors += (0..1000).filter(|_| desk.may_err(now + Duration::from_millis(900))).count();
        assert_eq!(errors, 100);
        assert!(desk.may_err(now + Duration::from_secs(1)));
    }

    #[test]
    fn forged_requests_keep_nobody_out() {
        let limits = Limits { transfers: 4, per_address: 3, unanswered: 1000 };
        let (mut desk, start) = (Desk::new(limits), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let unanswered = Err("unanswered".to_string());
        for (ms, host, port, want) in [
            (0, 2, 1, Ok(vec![])),
            (1, 2, 2, Ok(vec![])),
            (2, 2, 3, unanswered.clone()),
            (999, 2, 3, unanswered.clone()),
            (1000, 2, 3, Ok(vec!["1 Evicted".to_string()])),
            (1000, 2, 4, unanswered),
            (1001, 2, 4, Ok(vec!["2 Evicted".to_string()])),
            (1003, 3, 5, Ok(vec![])),
            (1004, 4, 6, Ok(vec![])),
            (1005, 5, 7, Ok(vec!["3 Evicted".to_string()])),
        ] {
            let got = request(&mut desk, &ask(host, port, &port.to_string()), at(ms));
            assert_eq!(got.map(|(_, ended)| ended), want, "at {ms} ms");
        }
        let keys: Vec<Key> = desk.live.keys().copied().collect();
        for key in keys {
            desk.ack(key, 1, at(1006)).unwrap();
            assert!(desk.sound());
        }
        for (host, why) in [(6, "busy"), (7, "busy"), (3, "busy")] {
            assert_eq!(request(&mut desk, &ask(host, 1, "x"), at(1007)), Err(why.into()));
        }
        while let Some((key, step)) = desk.tick(at(600_000)) {
            if let Step::End(_) = step {
                desk.end(key);
            }
        }
        assert!(desk.sound());
    }

    /// A rehearsal, or a hall of machines behind one translated address: who acknowledges is let
    /// in, up to the limit of one address.
    #[test]
    fn one_address_that_answers_has_room() {
        let (limits, now) = (Limits::default(), Instant::now());
        let mut desk = Desk::new(limits);
        for port in 1..=limits.per_address as u16 {
            let at = (1..9).find_map(|_| match desk.admit(LINES, &ask(2, port, "a"), now) {
                Admit::New(key, ended) => ended.is_empty().then_some(key),
                other => panic!("{port}: {other:?}"),
            });
            let (transfer, _) = Transfer::begin(5000, &Options::default(), CAPS, now);
            desk.begin(at.unwrap(), ask(2, port, "a"), transfer, (), now);
            desk.ack(at.unwrap(), 1, now).unwrap();
        }
        assert!(desk.sound());
        assert_eq!(request(&mut desk, &ask(2, 5000, "a"), now), Err("too-many".into()));
        assert!(request(&mut desk, &ask(3, 5000, "a"), now).is_ok(), "another has room");
    }

    /// What a request with a forged sender's address brings its owner, who acknowledges nothing, in
    /// datagrams and in bytes of DATA or OACK: 4 for one, and a bounded stream for a flood.
    #[test]
    fn a_flood_of_forged_requests_is_no_amplifier() {
        let (mut desk, start) = (Desk::new(Limits::default()), Instant::now());
        let size = |flight: Flight| match flight {
            Flight::Options => 28 + 60,
            Flight::Blocks { first, last } => (last - first + 1) * (28 + 516),
        };
        let (mut datagrams, mut bytes, mut worst) = (0, 0, (0, 0));
        for ms in 0..10_000u64 {
            let now = start + Duration::from_millis(ms);
            for n in 0..10 {
                let ask = ask(2, (ms * 10 + n) as u16, "a");
                if let Admit::New(key, _) = desk.admit(LINES, &ask, now) {
                    let (transfer, first) = Transfer::begin(1 << 20, &ask.options, CAPS, now);
                    desk.begin(key, ask, transfer, (), now);
                    (datagrams, bytes) = (datagrams + 1, bytes + size(first));
                }
            }
            while let Some((key, step)) = desk.tick(now) {
                match step {
                    Step::Send(flight) => {
                        (datagrams, bytes) = (datagrams + 1, bytes + size(flight))
                    }
                    _ => drop(desk.end(key)),
                }
            }
            if ms % 1000 == 999 {
                worst = (worst.0.max(datagrams), worst.1.max(bytes));
                (datagrams, bytes) = (0, 0);
            }
        }
        assert!(worst.0 <= 250 && worst.1 <= 2 << 16, "{worst:?} a second for 10,000 requests");
        assert!(desk.sound() && desk.len() <= 121);
    }

    #[test]
    fn timers_ring_once_and_in_time() {
        let (mut desk, start) = (Desk::new(Limits::default()), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (a, _) = request(&mut desk, &ask(2, 1, "a"), at(0)).unwrap();
        let (b, _) = request(&mut desk, &ask(2, 2, "b"), at(100)).unwrap();
        assert_eq!(desk.next_due(), Some(at(1000)));
        desk.ack(a, 1, at(900)).unwrap();
        assert_eq!(desk.tick(at(1000)), None, "a has moved on");
        assert_eq!(desk.next_due(), Some(at(1100)));
        let again = Step::Send(Flight::Blocks { first: 1, last: 1 });
        assert_eq!(desk.tick(at(1100)), Some((b, again)));
        assert_eq!(desk.tick(at(1100)), None);
        desk.unsent(b, Flight::Blocks { first: 1, last: 1 }, at(1100));
        assert_eq!(desk.next_due(), Some(at(1110)), "a timer that comes earlier than it stood");
        assert!(desk.sound());
    }

    /// Golden packets, changed by a seeded die, in any order and at any time: never a panic, never
    /// more state than the limits say, and all of it gone in the end.
    #[test]
    fn whatever_comes() {
        let golden: [&[u8]; 6] = [
            b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0",
            b"\0\x01autoexec.ipxe\0octet\0blksize\x001432\0tsize\x000\0timeout\x00255\0",
            b"\0\x01/x\0netascii\0blksize\x008\0windowsize\x0064\0",
            b"\0\x04\0\0",
            b"\0\x04\0\x01",
            b"\0\x05\0\x08User aborted the transfer\0",
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut die = |sides: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as usize % sides
        };
        let limits = Limits { transfers: 20, per_address: 6, unanswered: 2000 };
        let mut desk = Desk::<()>::new(limits);
        let mut now = Instant::now();
        let (mut begun, mut sent) = (0, 0u64);
        for round in 0..60_000 {
            let mut packet = golden[die(6)].to_vec();
            for _ in 0..die(4) {
                let at = die(packet.len());
                match die(4) {
                    0 => packet.truncate(at + 1),
                    1 => packet[at] = die(256) as u8,
                    2 => packet[at] ^= 1 << die(8),
                    _ => packet.insert(at, die(256) as u8),
                }
            }
            let peer = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, die(5) as u8), die(4) as u16);
            let key = Key { line: 1 + die(8) as u16, peer };
            let mut step = None;
            match wire::read(&packet) {
                Ok(Packet::Rrq(r)) => {
                    let (name, mode, options) = (r.name, r.mode, r.options);
                    let ask = Ask { peer, local: Ipv4Addr::LOCALHOST, name, mode, options };
                    if let Admit::New(key, _) = desk.admit(LINES, &ask, now) {
                        let len = die(1 << 20) as u64;
                        let (transfer, _) = Transfer::begin(len, &ask.options, CAPS, now);
                        desk.begin(key, ask, transfer, (), now);
                        begun += 1;
                    }
                }
                Ok(Packet::Ack(n)) => step = desk.ack(key, n, now).ok().map(|s| (key, s)),
                Ok(Packet::Error { .. }) => drop(desk.end(key)),
                Err(why) => assert!(!why.to_string().is_empty() && !why.name().is_empty()),
            }
            now += Duration::from_millis(die(200) as u64);
            while let Some((key, what)) = step.take().or_else(|| desk.tick(now)) {
                match what {
                    Step::Send(Flight::Blocks { first, last }) => {
                        assert!(first <= last && last - first < 64, "{first} to {last}");
                        let span = desk.get_mut(key).unwrap().transfer.span(last);
                        assert!(span.start <= span.end && span.end <= 1 << 20);
                        sent += last - first + 1;
                    }
                    Step::End(_) => drop(desk.end(key)),
                    _ => {}
                }
            }
            assert!(round % 50 != 0 || desk.sound(), "round {round}");
        }
        assert!(begun > 1000 && sent > 1000, "the die has tried something: {begun} {sent}");
        for _ in 0..20 * 8 {
            now += Duration::from_secs(256);
            while let Some((key, step)) = desk.tick(now) {
                if let Step::End(_) = step {
                    desk.end(key);
                }
            }
        }
        assert!(desk.is_empty() && desk.next_due().is_none() && desk.sound());
    }
}
