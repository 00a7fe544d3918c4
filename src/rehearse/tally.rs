//! What a rehearsal counts: each step's times, and each failure by its reason. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::model::Why;
use crate::model::event::plain;

/// The steps of a boot, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    Dhcp,
    Tftp,
    Loader,
    IpxeDhcp,
    Script,
    Kernel,
    Initrd,
    Answer,
    /// From the first DHCPDISCOVER to the end.
    Boot,
}

impl Stage {
    pub fn word(self) -> &'static str {
        match self {
            Stage::Dhcp => "dhcp",
            Stage::Tftp => "tftp",
            Stage::Loader => "loader",
            Stage::IpxeDhcp => "ipxe-dhcp",
            Stage::Script => "script",
            Stage::Kernel => "kernel",
            Stage::Initrd => "initrd",
            Stage::Answer => "answer",
            Stage::Boot => "boot",
        }
    }
}

/// Values of one power of two that are told apart: less than a hundredth off.
const PARTS: usize = 128;
/// Microseconds up to 12 days.
const TOP: u32 = 40;

/// Times in buckets that grow with the time, as HdrHistogram has them: of millions the percentiles
/// are known, in a few kilobytes.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        let buckets = (TOP as usize - 5) * PARTS;
        Histogram { counts: vec![0; buckets], total: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    pub fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min((1 << TOP) - 1);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(time);
    }

    /// The time within which this share (0 to 1) was done; zero of nothing.
    pub fn at(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_micros(top(i)).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(micros: u64) -> usize {
    let shift = (63 - micros.max(1).leading_zeros()).saturating_sub(7);
    shift as usize * PARTS + (micros >> shift) as usize
}

/// The largest value of a bucket.
fn top(bucket: usize) -> u64 {
    let shift = (bucket / PARTS).saturating_sub(1);
    let value = (bucket - shift * PARTS) as u64;
    ((value + 1) << shift) - 1
}

/// One step of all machines.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    pub done: u64,
    pub failed: u64,
    pub bytes: u64,
    /// Messages and blocks that were sent again.
    pub resent: u64,
    pub times: Histogram,
    begins: Option<Duration>,
    ends: Duration,
}

impl Sum {
    /// From the first beginning to the last end.
    pub fn seconds(&self) -> f64 {
        self.ends.saturating_sub(self.begins.unwrap_or(self.ends)).as_secs_f64()
    }

    fn per_second(&self) -> f64 {
        let seconds = self.seconds();
        if seconds > 0.0 { self.done as f64 / seconds } else { 0.0 }
    }
}

/// Kinds of failures that are told apart; what a server can say is without end.
const REASONS: usize = 100;

/// All steps of all machines.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub steps: BTreeMap<Stage, Sum>,
    /// By step and name: the sentence of the first, and how many there were.
    pub failures: BTreeMap<(Stage, String), (String, u64)>,
    pub machines: u64,
    pub failed: u64,
    /// What is to be known beside: where machines ended that did not fail.
    pub notes: BTreeMap<String, u64>,
}

impl Tally {
    /// A step that was to begin at `from` is done at `now`.
    pub fn done(&mut self, stage: Stage, from: Duration, now: Duration, bytes: u64) {
        let sum = self.span(stage, from, now);
        sum.done += 1;
        sum.bytes += bytes;
        sum.times.add(now.saturating_sub(from));
    }

    /// A step failed.
    pub fn failed(&mut self, stage: Stage, from: Duration, now: Duration, why: &dyn Why) {
        self.span(stage, from, now).failed += 1;
        let key = (stage, why.name().to_string());
        if self.failures.len() >= REASONS && !self.failures.contains_key(&key) {
            return;
        }
        let sentence = || plain(&why.to_string(), 300);
        self.failures.entry(key).or_insert_with(|| (sentence(), 0)).1 += 1;
    }

    /// So much of a step was sent again.
    pub fn resent(&mut self, stage: Stage, times: u64) {
        if let Some(sum) = self.steps.get_mut(&stage) {
            sum.resent += times;
        }
    }

    /// A machine has come to its end.
    pub fn machine(&mut self, failed: bool) {
        self.machines += 1;
        self.failed += u64::from(failed);
    }

    pub fn note(&mut self, what: &str) {
        if self.notes.len() < REASONS || self.notes.contains_key(what) {
            *self.notes.entry(plain(what, 200)).or_default() += 1;
        }
    }

    fn span(&mut self, stage: Stage, from: Duration, now: Duration) -> &mut Sum {
        let sum = self.steps.entry(stage).or_default();
        sum.begins = Some(sum.begins.map_or(from, |b| b.min(from)));
        sum.ends = sum.ends.max(now);
        sum
    }

    /// For programs. Times are milliseconds, rates are steps done a second.
    pub fn json(&self, seconds: Duration) -> Value {
        let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|(stage, sum)| {
                json!({
                    "step": stage.word(),
                    "done": sum.done,
                    "failed": sum.failed,
                    "bytes": sum.bytes,
                    "resent": sum.resent,
                    "seconds": (sum.seconds() * 1e6).round() / 1e6,
                    "per_second": (sum.per_second() * 10.0).round() / 10.0,
                    "p50_ms": ms(sum.times.at(0.5)),
                    "p90_ms": ms(sum.times.at(0.9)),
                    "p99_ms": ms(sum.times.at(0.99)),
                    "max_ms": ms(sum.times.max),
                })
            })
            .collect();
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|((stage, name), (why, times))| {
                json!({ "step": stage.word(), "name": name, "why": why, "times": times })
            })
            .collect();
        json!({
            "machines": self.machines,
            "failed": self.failed,
            "seconds": (seconds.as_secs_f64() * 1e3).round() / 1e3,
            "steps": steps,
            "failures": failures,
            "notes": self.notes,
        })
    }

    /// The longest of a step, for a table.
    pub fn row(&self, sum: &Sum) -> [Duration; 4] {
        let t = &sum.times;
        [t.at(0.5), t.at(0.9), t.at(0.99), t.max]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::dhcp::NoLease;

    #[test]
    fn buckets_are_a_hundredth_wide_and_none_is_lost() {
        let mut last = 0;
        for micros in (0..300).chain([1000, 4095, 4096, 1 << 20, (1 << TOP) - 1]) {
            let b = bucket(micros);
            assert!(b >= last, "{micros}");
            last = b;
            let top = top(b);
            assert!(top >= micros && top - micros <= micros / 100 + 1, "{micros}: {top}");
        }
        assert!(bucket((1 << TOP) - 1) < Histogram::default().counts.len());
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut h = Histogram::default();
        assert_eq!(h.at(0.5), Duration::ZERO);
        for ms in 1..=1000 {
            h.add(Duration::from_millis(ms));
        }
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let said = h.at(share).as_secs_f64() * 1e3;
            assert!((said - ms).abs() / ms < 0.01, "{share}: {said}");
        }
        h.add(Duration::from_secs(1 << 40));
        assert_eq!(h.at(1.0), Duration::from_micros((1 << TOP) - 1));
    }

    #[test]
    fn a_report_has_the_agreed_shape() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        tally.done(Stage::Dhcp, ms(100), ms(102), 0);
        tally.done(Stage::Dhcp, ms(100), ms(600), 0);
        tally.failed(Stage::Dhcp, ms(100), ms(1100), &NoLease::NoOffer);
        tally.failed(Stage::Dhcp, ms(100), ms(1100), &NoLease::NoOffer);
        tally.machine(false);
        tally.machine(true);
        let json = tally.json(ms(1234));
        assert_eq!(
            (&json["machines"], &json["failed"], &json["seconds"]),
            (&json!(2), &json!(1), &json!(1.234))
        );
        let step = &json["steps"][0];
        assert_eq!(
            (&step["step"], &step["done"], &step["failed"]),
            (&json!("dhcp"), &json!(2), &json!(2))
        );
        assert_eq!((&step["seconds"], &step["per_second"]), (&json!(1.0), &json!(2.0)));
        assert_eq!(step["max_ms"], json!(500.0));
        assert_eq!(json["failures"][0]["times"], 2);
        assert!(json["failures"][0]["why"].as_str().unwrap().contains("no DHCPOFFER"));
    }
}
