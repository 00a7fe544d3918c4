//! Whether a stranger sits at an address that is about to be given away (RFC 2131 section 2.2: the
//! server should probe it): an ICMP echo, and what its answer means.
//!
//! 1. An address that is new to its client is asked with the offer ([`Probes::begin`]). Firmware and
//!    iPXE collect offers for seconds before they choose, so theirs leaves at once; an installed
//!    system takes the first offer it sees, so its DISCOVER is held until the answer would be there
//!    ([`WAIT`]), and then decided anew.
//! 2. An answer ([`Probes::heard`]) sets the address aside. The REQUEST for it gets a NAK, and a
//!    held DISCOVER another address. One that comes when the client has taken the address is the
//!    client's own.
//! 3. Silence ([`Probes::over`]) is consent.
//!
//! In a storm nobody is asked ([`BUDGET`]): a hall of machines at once would fill the kernel's
//! neighbour table with addresses that do not answer. dnsmasq does the same.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::model::Mac;

/// A host on this network answers within it, ARP included.
pub const WAIT: Duration = Duration::from_millis(200);
/// Probes at once, and how fast they come back.
const BUDGET: u32 = 64;
const REFILL: Duration = Duration::from_millis(50);
/// An echo of our own carries this (and nobody else's that id and number).
const MARK: &[u8; 8] = b"is it me";
/// Octets of ICMP's head (RFC 792).
const HEAD: usize = 8;

#[derive(Debug)]
struct Probe<H> {
    address: Ipv4Addr,
    /// Whom it is to be given to.
    client: Mac,
    number: u16,
    until: Instant,
    held: Option<H>,
}

/// Probes under way. `H` is the DISCOVER that waits for one.
#[derive(Debug)]
pub struct Probes<H> {
    id: u16,
    number: u16,
    waiting: VecDeque<Probe<H>>,
    budget: u32,
    filled: Option<Instant>,
}

impl<H> Probes<H> {
    /// `id` tells our echoes from those of others on this host.
    pub fn new(id: u16) -> Probes<H> {
        Probes { id, number: 0, waiting: VecDeque::new(), budget: BUDGET, filled: None }
    }

    /// The echo request to send, or `held` back where nobody is asked now.
    pub fn begin(
        &mut self,
        address: Ipv4Addr,
        client: Mac,
        held: Option<H>,
        now: Instant,
    ) -> Result<Vec<u8>, Option<H>> {
        let since = now.saturating_duration_since(*self.filled.get_or_insert(now));
        let more = u32::try_from(since.as_millis() / REFILL.as_millis()).unwrap_or(BUDGET);
        if more > 0 {
            self.filled = Some(now);
            self.budget = self.budget.saturating_add(more).min(BUDGET);
        }
        if self.budget == 0 {
            return Err(held);
        }
        self.budget -= 1;
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        self.waiting.push_back(Probe { address, client, number, until: now + WAIT, held });
        Ok(echo(self.id, number))
    }

    /// An ICMP packet with its IP header: the address that is taken, whom it was to be given to, and
    /// who waited to know.
    pub fn heard(&mut self, packet: &[u8]) -> Option<(Ipv4Addr, Mac, Option<H>)> {
        let from = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
        let head = usize::from(packet.first()? & 0xf) * 4;
        let icmp = packet.get(head..)?;
        let (&[kind, code, _, _, a, b, c, d], rest) = icmp.split_first_chunk::<HEAD>()?;
        let (id, number) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if (kind, code, id) != (0, 0, self.id) || !rest.starts_with(MARK) {
            return None;
        }
        let at = self.waiting.iter().position(|p| p.address == from && p.number == number)?;
        let probe = self.waiting.remove(at)?;
        Some((probe.address, probe.client, probe.held))
    }

    /// The next DISCOVER whose wait has ended in silence.
    pub fn over(&mut self, now: Instant) -> Option<H> {
        while self.waiting.front().is_some_and(|p| p.until <= now) {
            if let Some(held) = self.waiting.pop_front().and_then(|p| p.held) {
                return Some(held);
            }
        }
        None
    }

    /// When to look again.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|p| p.until)
    }
}

/// An echo request (RFC 792) with its checksum.
fn echo(id: u16, number: u16) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend(MARK);
    let words = packet.as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w)));
    // Eight words: no carry gets lost in 32 bits.
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(from: Ipv4Addr, request: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&from.octets());
        packet.extend(request);
        packet[20] = 0;
        packet
    }

    #[test]
    fn silence_is_consent_and_an_answer_is_not() {
        let (mut probes, start) = (Probes::new(7), Instant::now());
        let [a, b, c] = [2, 3, 4].map(|n| Ipv4Addr::new(10, 0, 0, n));
        let client = Mac([2, 0, 0, 0, 0, 1]);
        let first = probes.begin(a, client, Some("a"), start).unwrap();
        let second = probes.begin(b, client, None, start).unwrap();
        probes.begin(c, client, Some("c"), start).unwrap();
        assert_eq!(probes.due(), Some(start + WAIT));
        assert_eq!(probes.heard(&answer(b, &first)), None, "another host's");
        assert_eq!(probes.heard(&answer(a, &first)), Some((a, client, Some("a"))));
        assert_eq!(probes.heard(&answer(a, &first)), None, "once");
        let mut foreign = answer(b, &second);
        foreign[25] ^= 1;
        assert_eq!(probes.heard(&foreign), None, "another program's echo");
        assert_eq!(probes.over(start), None);
        assert_eq!(probes.over(start + WAIT), Some("c"));
        assert_eq!(probes.over(start + WAIT), None);
        assert_eq!(probes.heard(&answer(b, &second)), None, "too late");
        for cut in 0..answer(a, &first).len() {
            assert_eq!(probes.heard(&answer(a, &first)[..cut]), None);
        }
    }

    #[test]
    fn a_storm_is_not_asked() {
        let (mut probes, start) = (Probes::new(7), Instant::now());
        let a = Ipv4Addr::new(10, 0, 0, 2);
        let client = Mac([2, 0, 0, 0, 0, 1]);
        let asked = (0..1000).filter(|_| probes.begin(a, client, Some(()), start).is_ok()).count();
        assert_eq!(asked, 64);
        let later = start + Duration::from_millis(120);
        assert_eq!((0..9).filter(|_| probes.begin(a, client, Some(()), later).is_ok()).count(), 2);
    }

    #[test]
    fn the_checksum_is_right() {
        for number in [0, 1, 0xfffe, 0xffff] {
            let packet = echo(0xabcd, number);
            let words = packet.as_chunks::<2>().0.iter();
            let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes(*w))).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "RFC 1071");
        }
    }
}
