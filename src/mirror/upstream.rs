//! Which of a mirror's URLs is asked first: ranks by what each has delivered, and a rest for those
//! that failed.

use std::time::{Duration, Instant};

/// Of the newest delivery in the mean.
const WEIGHT: f64 = 0.3;
/// Less than this says nothing about a rate.
const SAMPLE: u64 = 64 << 10;
/// After the first failure in a row; doubled by each further one.
const REST: Duration = Duration::from_secs(2);
/// Of one that was caught with wrong bytes, whatever else it delivers.
const REST_WRONG: Duration = Duration::from_secs(60);
const REST_LIMIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Bytes a second, as a moving mean.
    rate: Option<f64>,
    /// In a row.
    failures: u32,
    rests_until: Option<Instant>,
    wrong_until: Option<Instant>,
}

impl Standing {
    /// Until when, if it rests.
    fn rest(&self, now: Instant) -> Option<Instant> {
        self.rests_until.max(self.wrong_until).filter(|until| *until > now)
    }
}

/// The standing of each URL of a mirror, by its place in the configuration.
#[derive(Clone, Debug)]
pub struct Ranks(Vec<Standing>);

impl Ranks {
    pub fn new(urls: usize) -> Ranks {
        Ranks(vec![Standing::default(); urls])
    }

    /// All of them, the one to ask first at the front: those that deliver, the fastest first; one
    /// that was never asked stands where it was declared; who rests comes last, the one whose rest
    /// ends first at the front.
    pub fn order(&self, now: Instant) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        let best = self.0.iter().filter_map(|s| s.rate).fold(0.0, f64::max);
        order.sort_by(|a, b| {
            let (a, b) = (&self.0[*a], &self.0[*b]);
            let rate = |s: &Standing| s.rate.unwrap_or(best);
            a.rest(now).cmp(&b.rest(now)).then(rate(b).total_cmp(&rate(a)))
        });
        order
    }

    pub fn delivered(&mut self, which: usize, bytes: u64, took: Duration) {
        let Some(s) = self.0.get_mut(which) else { return };
        s.failures = 0;
        s.rests_until = None;
        if bytes >= SAMPLE {
            let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
            s.rate = Some(s.rate.map_or(rate, |old| old + WEIGHT * (rate - old)));
        }
    }

    pub fn failed(&mut self, which: usize, now: Instant) {
        let Some(s) = self.0.get_mut(which) else { return };
        s.failures = s.failures.saturating_add(1);
        let rest = REST.saturating_mul(1 << (s.failures - 1).min(8)).min(REST_LIMIT);
        s.rests_until = Some(now + rest);
    }

    pub fn wrong(&mut self, which: usize, now: Instant) {
        let Some(s) = self.0.get_mut(which) else { return };
        s.wrong_until = Some(now + REST_WRONG);
    }

    pub fn rests(&self, which: usize, now: Instant) -> bool {
        self.0.get(which).is_some_and(|s| s.rest(now).is_some())
    }

    /// Whether each of them rests.
    pub fn all_rest(&self, now: Instant) -> bool {
        self.0.iter().all(|s| s.rest(now).is_some())
    }

    /// Bytes a second of each, for people.
    pub fn rates(&self) -> Vec<Option<f64>> {
        self.0.iter().map(|s| s.rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_delivers_is_asked_first() {
        let now = Instant::now();
        let mut ranks = Ranks::new(3);
        assert_eq!(ranks.order(now), [0, 1, 2], "as declared");
        let second = Duration::from_secs(1);
        ranks.delivered(0, 1 << 20, second);
        ranks.delivered(1, 8 << 20, second);
        ranks.delivered(2, 2 << 20, second);
        assert_eq!(ranks.order(now), [1, 2, 0]);
        ranks.failed(1, now);
        assert_eq!(ranks.order(now), [2, 0, 1]);
        assert_eq!(ranks.order(now + REST), [1, 2, 0], "it has rested");
        ranks.failed(1, now);
        ranks.failed(2, now);
        ranks.failed(0, now);
        assert!(ranks.all_rest(now));
        assert_eq!(ranks.order(now)[2], 1, "who failed twice rests longer");
        for _ in 0..100 {
            ranks.failed(1, now);
        }
        assert!(!ranks.all_rest(now + REST_LIMIT), "and nobody for ever");
        ranks.delivered(0, 10, second);
        assert_eq!(ranks.order(now)[0], 0);
        ranks.wrong(0, now);
        ranks.delivered(0, 10 << 20, second);
        assert!(ranks.rests(0, now) && !ranks.rests(0, now + REST_WRONG), "for all its speed");
    }
}
