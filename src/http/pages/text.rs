//! Numbers and times as people read them.

use jiff::{SignedDuration, Timestamp};

use crate::model::Mac;
use crate::model::event::size;

/// The twelve digits that a machine's page and tile are known by.
pub fn id(mac: Mac) -> String {
    mac.to_string().replace(':', "")
}

/// `just now`, `4 min ago`.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    match now.duration_since(at).as_secs() {
        // A clock that was set back is no news.
        ..=1 => "just now".into(),
        s => format!("{} ago", span(s)),
    }
}

/// A time to come, or that was.
pub fn until(at: Timestamp, now: Timestamp) -> String {
    match at.duration_since(now).as_secs() {
        s if s > 0 => format!("in {}", span(s)),
        _ => ago(at, now),
    }
}

/// Seconds in two units at most: `42 s`, `4 min`, `3 h 20 min`, `12 days`.
pub fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..600 if seconds % 60 > 0 => format!("{minutes} min {} s", seconds % 60),
        60..3600 => format!("{minutes} min"),
        3600..36_000 if minutes % 60 > 0 => format!("{hours} h {} min", minutes % 60),
        3600..172_800 => format!("{hours} h"),
        _ => format!("{} days", hours / 24),
    }
}

/// Milliseconds: `340 ms`, `1.24 s`, `4 min 3 s`.
pub fn millis(ms: i64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.2} s", ms as f64 / 1000.0),
        _ => span(ms / 1000),
    }
}

/// Bytes a second.
pub fn rate(bytes: u64) -> String {
    format!("{}/s", size(bytes))
}

/// Milliseconds from one moment to another.
pub fn between(from: Timestamp, to: Timestamp) -> i64 {
    let between: SignedDuration = to.duration_since(from);
    i64::try_from(between.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units_at_most() {
        let table = [
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3599, "59 min"),
            (3600, "1 h"),
            (12_000, "3 h 20 min"),
            (47 * 3600, "47 h"),
            (172_800, "2 days"),
        ];
        for (seconds, shown) in table {
            assert_eq!(span(seconds), shown);
        }
        assert_eq!(
            (millis(999), millis(1240), millis(61_000)),
            ("999 ms".into(), "1.24 s".into(), "1 min 1 s".into())
        );
        let at = |s| Timestamp::from_second(s).unwrap();
        assert_eq!(
            (ago(at(9), at(5)), ago(at(0), at(240))),
            ("just now".into(), "4 min ago".into())
        );
        assert_eq!(until(at(30), at(0)), "in 30 s");
        assert_eq!(id(Mac([0x52, 0x54, 0, 0, 0, 10])), "52540000000a");
    }
}
