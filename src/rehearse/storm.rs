//! Machines that want nothing but a lease, as many as there shall be. Pure: when each begins.
//!
//! Either so many are under way at once, and each that ends lets another begin: how fast is the
//! server? Or so many begin each second, whatever becomes of those before: how long does a machine
//! wait? Then its time counts from when it was to begin, not from when we came to it; else a server
//! that stands still would be asked nothing meanwhile, and look fast.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::desk::{Ask, Ended};
use super::dhcp::Speaker;
use super::serve::{Next, Source};
use super::tally::{Stage, Tally};
use crate::model::{Firmware, Mac};

/// How machines are let loose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    AtOnce(usize),
    /// Each second, evenly.
    Rate(f64),
}

/// How many machines there are, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// `None`: each that begins is another one.
    pub machines: Option<u64>,
    /// With `machines`, these begin again and again for so long.
    pub time: Option<Duration>,
}

impl Pace {
    /// When the next is to begin, after so many.
    pub fn begins(self, begun: u64, now: Duration) -> Duration {
        match self {
            Pace::AtOnce(_) => now,
            Pace::Rate(rate) => Duration::from_secs_f64(begun as f64 / rate),
        }
    }
}

impl Size {
    /// Whether none begins any more, after so many and with the next one due at `from`.
    pub fn is_over(self, begun: u64, from: Duration) -> bool {
        match (self.machines, self.time) {
            (_, Some(time)) => from >= time,
            (Some(n), None) => begun >= n,
            (None, None) => true,
        }
    }
}

/// Who they are: made up, from a prefix and a number.
#[derive(Clone, Debug)]
pub enum Who {
    Made([u8; 3]),
    These(Vec<Mac>),
}

impl Who {
    /// The machine of this number.
    pub fn mac(&self, number: u64) -> Mac {
        match self {
            Who::Made([a, b, c]) => {
                let n = (number as u32).to_be_bytes();
                Mac([*a, *b, c.wrapping_add(n[0]), n[1], n[2], n[3]])
            }
            Who::These(all) => {
                all.get(number as usize % all.len().max(1)).copied().unwrap_or(Mac([2; 6]))
            }
        }
    }
}

/// What can be seen while it runs.
#[derive(Debug, Default)]
pub struct Seen {
    pub begun: AtomicU64,
    pub done: AtomicU64,
    pub failed: AtomicU64,
}

/// A storm of exchanges.
pub struct Storm<'a> {
    pub who: &'a Who,
    pub firmwares: &'a [&'static Firmware],
    pub pace: Pace,
    pub size: Size,
    /// Each machine asks again as the iPXE that the firmware has loaded.
    pub chain: bool,
    pub seen: &'a Seen,
    pub tally: Tally,
    begun: u64,
    /// Machines whose firmware has its lease: their iPXE is next.
    second: Vec<(u64, Duration)>,
}

/// Which machine, and which of its two exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u64, Speaker);

impl<'a> Storm<'a> {
    pub fn new(
        who: &'a Who,
        firmwares: &'a [&'static Firmware],
        pace: Pace,
        size: Size,
        chain: bool,
        seen: &'a Seen,
    ) -> Storm<'a> {
        let tally = Tally::default();
        Storm { who, firmwares, pace, size, chain, seen, tally, begun: 0, second: Vec::new() }
    }

    fn ask(&self, number: u64, speaker: Speaker) -> Ask {
        let mac = self.who.mac(match self.size.machines {
            Some(n) => number % n.max(1),
            None => number,
        });
        let firmware = self.firmwares[number as usize % self.firmwares.len()];
        Ask { mac, firmware, speaker, boots: false }
    }
}

impl Source for Storm<'_> {
    type Tag = Tag;

    fn next(&mut self, now: Duration, flying: usize) -> Next<Tag> {
        if let Some((number, from)) = self.second.pop() {
            return Next::Begin(self.ask(number, Speaker::Ipxe), Tag(number, Speaker::Ipxe), from);
        }
        let from = self.pace.begins(self.begun, now);
        if self.size.is_over(self.begun, from) {
            return Next::Over;
        }
        match self.pace {
            Pace::AtOnce(n) if flying >= n => return Next::Wait,
            Pace::Rate(_) if from > now => return Next::At(from),
            _ => {}
        }
        let number = self.begun;
        self.begun += 1;
        self.seen.begun.store(self.begun, Ordering::Relaxed);
        Next::Begin(self.ask(number, Speaker::Firmware), Tag(number, Speaker::Firmware), from)
    }

    fn ended(&mut self, ended: Ended<Tag>, now: Duration) {
        let Tag(number, speaker) = ended.tag;
        let stage = match speaker {
            Speaker::Firmware => Stage::Dhcp,
            Speaker::Ipxe => Stage::IpxeDhcp,
        };
        let failed = match &ended.result {
            Ok(has) => {
                self.tally.done(stage, ended.from, now, 0);
                if has.lease.is_none() {
                    self.tally.note("an offer without an address, as a proxy makes it");
                }
                false
            }
            Err(why) => {
                self.tally.failed(stage, ended.from, now, why);
                true
            }
        };
        if self.chain && !failed && speaker == Speaker::Firmware {
            self.second.push((number, now));
            return;
        }
        self.tally.machine(failed);
        let seen = if failed { &self.seen.failed } else { &self.seen.done };
        seen.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::desk::Has;
    use crate::rehearse::dhcp::NoLease;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    struct Given<'a>(Storm<'a>);

    impl Given<'_> {
        /// What comes next: who began and from when, or a word.
        fn next(&mut self, now: u64, flying: usize) -> String {
            match self.0.next(ms(now), flying) {
                Next::Begin(ask, Tag(number, speaker), from) => {
                    assert_eq!(ask.speaker, speaker);
                    format!("{number} {speaker:?} {}", from.as_millis())
                }
                Next::At(at) => format!("at {}", at.as_millis()),
                Next::Wait => "wait".into(),
                Next::Over => "over".into(),
            }
        }

        fn ended(&mut self, number: u64, speaker: Speaker, result: Result<Has, NoLease>) {
            let (tag, mac) = (Tag(number, speaker), Mac([2; 6]));
            self.0.ended(Ended { tag, mac, from: ms(0), result }, ms(9));
        }
    }

    fn given(pace: Pace, size: Size, chain: bool, run: impl Fn(&mut Given<'_>)) {
        let (who, seen) = (Who::Made([2, 0, 0]), Seen::default());
        let firmwares = [Firmware::by_name("bios").unwrap()];
        run(&mut Given(Storm::new(&who, &firmwares, pace, size, chain, &seen)));
    }

    const THREE: Size = Size { machines: Some(3), time: None };

    #[test]
    fn at_once_means_no_more_than_that() {
        given(Pace::AtOnce(2), THREE, false, |storm| {
            assert_eq!(storm.next(1, 0), "0 Firmware 1");
            assert_eq!(storm.next(1, 1), "1 Firmware 1");
            assert_eq!(storm.next(1, 2), "wait");
            assert_eq!(storm.next(8, 1), "2 Firmware 8");
            assert_eq!(storm.next(9, 1), "over");
        });
    }

    #[test]
    fn a_rate_is_kept_and_counted_from_when_it_was_due() {
        given(Pace::Rate(100.0), THREE, false, |storm| {
            assert_eq!(storm.next(0, 0), "0 Firmware 0");
            assert_eq!(storm.next(0, 1), "at 10");
            // Nobody came here for a second: both were due long ago.
            assert_eq!(storm.next(1000, 1), "1 Firmware 10");
            assert_eq!(storm.next(1000, 2), "2 Firmware 20");
            assert_eq!(storm.next(1000, 3), "over");
        });
        let time = Size { machines: None, time: Some(ms(15)) };
        given(Pace::Rate(100.0), time, false, |storm| {
            assert_eq!(storm.next(99, 0), "0 Firmware 0");
            assert_eq!(storm.next(99, 0), "1 Firmware 10", "due before the end");
            assert_eq!(storm.next(99, 0), "over");
        });
    }

    #[test]
    fn an_ipxe_follows_its_firmware_unless_that_failed() {
        let one = Size { machines: Some(1), time: None };
        for (result, next) in
            [(Ok(Has { lease: None, boot: None }), "0 Ipxe 9"), (Err(NoLease::NoOffer), "over")]
        {
            given(Pace::AtOnce(1), one, true, |storm| {
                storm.next(0, 0);
                storm.ended(0, Speaker::Firmware, result.clone());
                assert_eq!(storm.next(9, 0), next);
                if next != "over" {
                    assert_eq!(storm.0.tally.machines, 0, "it is not through");
                    storm.ended(0, Speaker::Ipxe, result.clone());
                }
                assert_eq!(storm.0.tally.machines, 1);
                assert_eq!(storm.0.tally.failed, u64::from(next == "over"));
            });
        }
    }

    #[test]
    fn made_up_machines_differ() {
        let who = Who::Made([2, 0, 0]);
        let macs: std::collections::HashSet<Mac> =
            (0..100_000).chain([1 << 24]).map(|n| who.mac(n)).collect();
        assert_eq!(macs.len(), 100_001);
        assert_eq!(who.mac(258).to_string(), "02:00:00:00:01:02");
    }
}
