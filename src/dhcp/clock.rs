//! The clock that leases are counted by. Nobody can set it: not a person, not NTP, not an empty
//! CMOS battery.
//!
//! A wall clock that jumps a year forward would end every lease at once, and each address would be
//! given to a second machine while the first still uses it; one that jumps back would hold them
//! for a year. So time is what this host has counted while it ran (`CLOCK_BOOTTIME`, which goes on
//! in suspend), and a mark in the store carries it over a restart of ours.
//!
//! Over a restart of the host nothing tells how long it was off but the wall clock, which is the
//! one thing that is wrong after such a restart. None of that time is counted: a lease then lasts
//! as much longer as the host was off, which hurts nobody, and ends never too early.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::store::Write;

/// The store's table and key of the mark.
pub const TABLE: &str = "clock";
pub const KEY: &[u8] = b"lease";
/// A mark is not made anew before this has passed.
const MARK_AGE: Duration = Duration::from_secs(1);

/// What the host's own clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Which run of the host this is: `/proc/sys/kernel/random/boot_id`.
    pub boot: &'a str,
    /// How long that run is: `CLOCK_BOOTTIME`.
    pub uptime: Duration,
    pub wall: Timestamp,
}

/// A point of lease time, and the uptime that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    at: Timestamp,
    uptime: Duration,
    marked: Option<Duration>,
}

impl Clock {
    /// Goes on where the mark stands; begins at the wall clock's time where there is none. A mark
    /// that cannot be read is none.
    pub fn resume(mark: Option<&[u8]>, host: Host<'_>) -> Clock {
        let Some((at, boot, uptime)) = mark.and_then(read) else {
            return Clock { at: host.wall, uptime: host.uptime, marked: None };
        };
        let passed = match boot == host.boot && !boot.is_empty() {
            true => host.uptime.saturating_sub(uptime),
            false => Duration::ZERO,
        };
        Clock { at: add(at, passed), uptime: host.uptime, marked: None }
    }

    pub fn now(&self, uptime: Duration) -> Timestamp {
        add(self.at, uptime.saturating_sub(self.uptime))
    }

    /// The mark, where it is time for one: for the transaction that the leases go into.
    pub fn mark(&mut self, boot: &str, uptime: Duration) -> Option<Write> {
        if self.marked.is_some_and(|m| uptime.saturating_sub(m) < MARK_AGE) {
            return None;
        }
        self.marked = Some(uptime);
        let now = self.now(uptime);
        let micros = u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX);
        let mark = serde_json::json!({ "at": now, "boot": boot, "uptime_us": micros });
        Some(Write::put(TABLE, KEY, mark.to_string()))
    }
}

fn read(mark: &[u8]) -> Option<(Timestamp, String, Duration)> {
    let v: serde_json::Value = serde_json::from_slice(mark).ok()?;
    let at = v.get("at")?.as_str()?.parse().ok()?;
    let boot = v.get("boot")?.as_str()?.to_string();
    Some((at, boot, Duration::from_micros(v.get("uptime_us")?.as_u64()?)))
}

fn add(at: Timestamp, passed: Duration) -> Timestamp {
    let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
    at.checked_add(passed).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: i64 = 365 * 86_400;

    fn host(boot: &str, uptime: u64, wall: i64) -> Host<'_> {
        let wall = Timestamp::from_second(wall).unwrap();
        Host { boot, uptime: Duration::from_secs(uptime), wall }
    }

    fn seconds(clock: &Clock, uptime: u64) -> i64 {
        clock.now(Duration::from_secs(uptime)).as_second()
    }

    #[test]
    fn whatever_the_wall_clock_does() {
        let mut clock = Clock::resume(None, host("a", 100, 5 * YEAR));
        assert_eq!(seconds(&clock, 160), 5 * YEAR + 60, "by the uptime alone");
        let mark = clock.mark("a", Duration::from_secs(160)).unwrap().value.unwrap();
        for (boot, uptime, wall, passed, why) in [
            ("a", 200, 5 * YEAR + 100, 40, "our restart"),
            ("a", 200, 6 * YEAR, 40, "and the wall clock a year ahead"),
            ("a", 200, 4 * YEAR, 40, "and a year back"),
            ("a", 10, 5 * YEAR, 0, "a snapshot of the machine, gone back to"),
            ("b", 30, 5 * YEAR + 3600, 0, "the host's restart"),
            ("b", 30, 6 * YEAR, 0, "with a clock a year ahead"),
            ("b", 30, 0, 0, "with an empty battery"),
        ] {
            let clock = Clock::resume(Some(&mark), host(boot, uptime, wall));
            assert_eq!(seconds(&clock, uptime), 5 * YEAR + 60 + passed, "{why}");
            assert_eq!(seconds(&clock, uptime + 9), 5 * YEAR + 69 + passed, "{why}");
        }
        let clock = Clock::resume(Some(b"nonsense"), host("a", 1, 7 * YEAR));
        assert_eq!(seconds(&clock, 1), 7 * YEAR);
    }

    #[test]
    fn a_mark_a_second() {
        let mut clock = Clock::resume(None, host("a", 100, 0));
        let at = |ms| Duration::from_millis(ms);
        assert!(clock.mark("a", at(100_000)).is_some());
        assert!(clock.mark("a", at(100_999)).is_none());
        assert!(clock.mark("a", at(101_000)).is_some());
    }
}
