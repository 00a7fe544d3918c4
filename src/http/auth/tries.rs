//! Wrong tokens, by the address that they came from: after [`FREE`] of them a pause, which doubles
//! with each that follows.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

/// Wrong ones without a pause.
const FREE: u32 = 5;
const PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// Of its doublings, so that a pause ends within 64 min.
const DOUBLINGS: u32 = 6;
/// One that is quiet for this long begins anew.
const LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Addresses kept; the one heard of longest ago makes room.
const ADDRESSES: usize = 10_000;

#[derive(Debug, Default)]
pub struct Tries(HashMap<IpAddr, Tried>);

#[derive(Debug)]
struct Tried {
    wrong: u32,
    last: Timestamp,
}

impl Tried {
    fn until(&self) -> Option<Timestamp> {
        let doublings = self.wrong.checked_sub(FREE)?.min(DOUBLINGS);
        self.last.checked_add(PAUSE * (1 << doublings)).ok()
    }
}

impl Tries {
    /// Counts a try as wrong until [`Tries::right`] says otherwise, so that many at once are not
    /// all the first one.
    ///
    /// # Errors
    /// Seconds that are left of a pause.
    pub fn begin(&mut self, from: IpAddr, now: Timestamp) -> Result<(), u64> {
        let from = who(from);
        if let Some(tried) = self.0.get_mut(&from) {
            if now.duration_since(tried.last).abs() > LIFE {
                tried.wrong = 0;
            }
            if let Some(left) = tried.until().filter(|until| *until > now) {
                let left = left.duration_since(now);
                return Err(left.as_secs().unsigned_abs().max(1));
            }
        } else if self.0.len() >= ADDRESSES {
            let oldest = self.0.iter().min_by_key(|(_, t)| t.last).map(|(ip, _)| *ip);
            oldest.and_then(|ip| self.0.remove(&ip));
        }
        let tried = self.0.entry(from).or_insert(Tried { wrong: 0, last: now });
        tried.wrong = tried.wrong.saturating_add(1);
        tried.last = now;
        Ok(())
    }

    /// The one that was begun was right.
    pub fn right(&mut self, from: IpAddr) {
        self.0.remove(&who(from));
    }
}

/// A whole /64 is one household (RFC 6177 section 2).
fn who(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_and_then_each_costs_twice_as_much() {
        let mut tries = Tries::default();
        let from: IpAddr = "10.0.0.1".parse().unwrap();
        let other: IpAddr = "10.0.0.2".parse().unwrap();
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        for _ in 0..5 {
            assert_eq!(tries.begin(from, at(0)), Ok(()));
        }
        assert_eq!(tries.begin(from, at(0)), Err(60));
        assert_eq!(tries.begin(from, at(59)), Err(1));
        assert_eq!(tries.begin(other, at(0)), Ok(()), "another address");
        assert_eq!(tries.begin(from, at(60)), Ok(()));
        assert_eq!(tries.begin(from, at(60)), Err(120));
        let mut now = 60;
        for pause in [120, 240, 480, 960, 1920, 3840, 3840] {
            assert_eq!(tries.begin(from, at(now)), Err(pause));
            now += pause as i64;
            assert_eq!(tries.begin(from, at(now)), Ok(()));
        }
        assert_eq!(tries.begin(from, at(now + 25 * 3600)), Ok(()), "a day later");
        assert_eq!(tries.begin(from, at(now + 25 * 3600)), Ok(()));
    }

    #[test]
    fn a_right_one_begins_anew() {
        let mut tries = Tries::default();
        let now = Timestamp::UNIX_EPOCH;
        let from = |last: &str| format!("2001:db8::{last}").parse::<IpAddr>().unwrap();
        for n in 0..4 {
            tries.begin(from(&n.to_string()), now).unwrap();
        }
        tries.right(from("9"));
        for n in 0..5 {
            assert_eq!(tries.begin(from(&n.to_string()), now), Ok(()), "{n}");
        }
        assert_eq!(tries.begin(from("99"), now), Err(60), "the same /64");
    }

    #[test]
    fn it_stays_small() {
        let mut tries = Tries::default();
        for n in 0..2 * ADDRESSES as u32 {
            let at = Timestamp::from_second(n.into()).unwrap();
            tries.begin(std::net::Ipv4Addr::from(n).into(), at).unwrap();
        }
        assert_eq!(tries.0.len(), ADDRESSES);
    }
}
