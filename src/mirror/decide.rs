//! What is fetched next, by whom: the plan of one file while it fills. Pure.
//!
//! Each worker (one request to one URL) has a claim on a part of the file. A gap that nobody has
//! claimed is taken first, from where a reader waits. The rest of a claim whose worker has fallen
//! silent is such a gap, which is what hedging is: both may go on, and who comes second finds the
//! bytes there.

use std::ops::Range;

use super::ranges::Ranges;

/// A part that one of several workers takes at once: enough to make the request worth its round
/// trip, not so much that the slowest keeps the others waiting at the end.
const PART: (u64, u64) = (256 << 10, 64 << 20);
/// A file from this size on is shared by several URLs.
pub const SHARED: u64 = 8 << 20;
/// A reader that waits this far in front of every worker gets one of its own.
const AHEAD: u64 = 4 << 20;

/// Who fetches.
pub type Worker = u64;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    worker: Worker,
    at: u64,
    /// `None`: to wherever the file ends.
    end: Option<u64>,
    silent: bool,
}

/// A part to fetch; `end` is `None` where the size is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub from: u64,
    pub end: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// Bytes of the whole, once they are known.
    total: Option<u64>,
    covered: Ranges,
    claims: Vec<Claim>,
    /// Where the reader that came last waits.
    want: u64,
}

impl Plan {
    /// `covered` is what is there already.
    pub fn new(total: Option<u64>, covered: Ranges, want: u64) -> Plan {
        Plan { total, covered, claims: Vec::new(), want }
    }

    pub fn total(&self) -> Option<u64> {
        self.total
    }

    pub fn set_total(&mut self, total: u64) {
        self.total = Some(total);
        for claim in &mut self.claims {
            claim.end = Some(claim.end.map_or(total, |end| end.min(total)));
        }
    }

    pub fn covered(&self) -> &Ranges {
        &self.covered
    }

    /// All is there.
    pub fn is_done(&self) -> bool {
        self.total.is_some_and(|total| self.covered.prefix_from(0) >= total)
    }

    /// A reader waits for the byte at `at`. True if a worker more should begin there.
    pub fn wants(&mut self, at: u64) -> bool {
        let Some(total) = self.total else { return false };
        if at >= total || self.covered.prefix_from(at) > at {
            return false;
        }
        self.want = at;
        let near = |c: &Claim| !c.silent && c.at <= at && at - c.at <= AHEAD;
        !self.claims.iter().any(near)
    }

    /// The next part for `worker`; `share` is among how many the file is divided. `None`: there is
    /// nothing to do for it.
    pub fn next(&mut self, worker: Worker, share: usize) -> Option<Part> {
        self.gone(worker);
        let Some(total) = self.total else {
            // Nobody knows the size before the first answer, so there is one worker; a second
            // only when that has fallen silent.
            let busy = self.claims.iter().any(|c| !c.silent);
            let from = self.covered.prefix_from(self.want);
            return (!busy).then(|| self.claim(worker, from, None));
        };
        let free = self.free(total);
        let gap = free.iter().find(|g| g.end > self.want).or(free.first()).cloned()?;
        let from = if self.want < gap.end { gap.start.max(self.want) } else { gap.start };
        let len = match share {
            0 | 1 => gap.end - from,
            share => {
                let left: u64 = free.iter().map(|g| g.end - g.start).sum();
                (left / (2 * share as u64)).clamp(PART.0, PART.1)
            }
        };
        Some(self.claim(worker, from, Some(gap.end.min(from.saturating_add(len)))))
    }

    fn claim(&mut self, worker: Worker, from: u64, end: Option<u64>) -> Part {
        self.claims.push(Claim { worker, at: from, end, silent: false });
        Part { from, end }
    }

    /// Gaps that no worker at work has claimed: the rest of one that has fallen silent is one of
    /// them, and not the last, for a reader may wait there.
    fn free(&self, total: u64) -> Vec<Range<u64>> {
        let mut taken = self.covered.clone();
        for c in self.claims.iter().filter(|c| !c.silent) {
            let end = c.end.unwrap_or(total).min(total);
            if c.at < end {
                taken.insert(c.at..end);
            }
        }
        taken.missing(0..total).collect()
    }

    /// Cuts a claim that goes to the end down to a share of the rest: the size has become known,
    /// and others shall help.
    pub fn cut(&mut self, worker: Worker, share: usize) {
        let Some(total) = self.total.filter(|_| share > 1) else { return };
        if let Some(c) = self.claims.iter_mut().find(|c| c.worker == worker) {
            let end = c.end.unwrap_or(total).min(total);
            let left = end.saturating_sub(c.at);
            let part = (left / (2 * share as u64)).clamp(PART.0, PART.1);
            c.end = Some(end.min(c.at + part));
        }
    }

    /// The worker's answer begins at `from`, which may be before what it asked for: a server that
    /// knows no ranges sends all.
    pub fn begins(&mut self, worker: Worker, from: u64) {
        if let Some(c) = self.claims.iter_mut().find(|c| c.worker == worker) {
            c.at = from;
        }
    }

    /// How many of the bytes that the worker has for `at` are of use: none if it should stop.
    pub fn room(&self, worker: Worker, at: u64, len: u64) -> u64 {
        let Some(c) = self.claims.iter().find(|c| c.worker == worker) else { return 0 };
        let end = c.end.or(self.total).unwrap_or(u64::MAX);
        len.min(end.saturating_sub(at))
    }

    /// The worker has written these; true if it should go on with the same answer.
    pub fn wrote(&mut self, worker: Worker, bytes: Range<u64>) -> bool {
        let at = bytes.end;
        self.covered.insert(bytes);
        let there = self.covered.prefix_from(at) > at;
        let Some(c) = self.claims.iter_mut().find(|c| c.worker == worker) else { return false };
        c.at = at;
        c.silent = false;
        let ended = c.end.or(self.total).is_some_and(|end| at >= end);
        // Somebody else has been here, and goes on where this one would: it takes another part.
        !ended && !there
    }

    /// The worker has said nothing for a while. True if another may take its rest.
    pub fn silent(&mut self, worker: Worker) -> bool {
        match self.claims.iter_mut().find(|c| c.worker == worker) {
            Some(c) => !std::mem::replace(&mut c.silent, true),
            None => false,
        }
    }

    pub fn gone(&mut self, worker: Worker) {
        self.claims.retain(|c| c.worker != worker);
    }

    /// Workers that are not silent.
    pub fn busy(&self) -> usize {
        self.claims.iter().filter(|c| !c.silent).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn plan(total: u64, want: u64) -> Plan {
        Plan::new(Some(total), Ranges::default(), want)
    }

    #[test]
    fn a_cold_range_starts_where_it_must() {
        let mut plan = plan(100 * MB, 40 * MB);
        assert_eq!(plan.next(1, 1), Some(Part { from: 40 * MB, end: Some(100 * MB) }));
        assert!(!plan.wants(41 * MB), "it comes along");
        assert!(plan.wants(10 * MB));
        assert_eq!(plan.next(2, 1), Some(Part { from: 10 * MB, end: Some(40 * MB) }));
        assert!(plan.wrote(2, 10 * MB..11 * MB));
        assert!(!plan.wrote(1, 40 * MB..100 * MB));
        assert_eq!(plan.next(1, 1), Some(Part { from: 0, end: Some(10 * MB) }));
        assert!(!plan.wrote(1, 0..10 * MB), "on it would only meet what is there");
        assert!(!plan.wrote(2, 11 * MB..40 * MB));
        assert!(plan.is_done());
        assert_eq!(plan.next(1, 1), None);
    }

    #[test]
    fn nothing_is_shared_before_the_size_is_known() {
        let mut plan = Plan::new(None, Ranges::default(), 0);
        assert_eq!(plan.next(1, 3), Some(Part { from: 0, end: None }));
        assert_eq!(plan.next(2, 3), None);
        plan.set_total(60 * MB);
        plan.cut(1, 3);
        assert_eq!(plan.room(1, 0, 100 * MB), 10 * MB);
        let second = plan.next(2, 3).unwrap();
        assert_eq!(second.from, 10 * MB);
        assert!(second.end.unwrap() < 60 * MB);
        let third = plan.next(3, 3).unwrap();
        assert_eq!(Some(third.from), second.end);
    }

    #[test]
    fn shares_shrink_towards_the_end() {
        let mut plan = plan(64 * MB, 0);
        let (mut parts, mut last) = (0, u64::MAX);
        while let Some(part) = plan.next(7, 3) {
            let len = part.end.unwrap() - part.from;
            assert!(len <= last && (len >= PART.0 || part.end == Some(64 * MB)));
            plan.wrote(7, part.from..part.end.unwrap());
            (parts, last) = (parts + 1, len);
        }
        assert!(plan.is_done());
        assert!((10..60).contains(&parts), "{parts}");
    }

    #[test]
    fn a_silent_worker_is_hedged_and_may_come_second() {
        let mut plan = plan(10 * MB, 0);
        plan.next(1, 1);
        assert!(plan.wrote(1, 0..MB));
        assert_eq!(plan.next(2, 1), None, "there is nothing for a second one");
        assert!(plan.silent(1));
        assert!(!plan.silent(1), "told once");
        assert_eq!(plan.next(2, 1), Some(Part { from: MB, end: Some(10 * MB) }));
        assert!(plan.wrote(2, MB..3 * MB));
        assert!(!plan.wrote(1, MB..2 * MB), "the first wakes up, and is second");
        assert_eq!(plan.next(1, 1), None);
        assert!(!plan.wrote(2, 3 * MB..10 * MB));
        assert!(plan.is_done());
    }

    #[test]
    fn a_silent_one_that_a_reader_waits_for_comes_first() {
        let mut plan = plan(60 * MB, 0);
        let first = plan.next(1, 3).unwrap();
        let second = plan.next(2, 3).unwrap();
        assert!(plan.wrote(1, 0..MB));
        plan.silent(1);
        assert_eq!(plan.next(3, 3).unwrap().from, MB, "and not what is behind the second one");
        assert!(second.from >= first.end.unwrap());
    }

    #[test]
    fn a_server_without_ranges_sends_all() {
        let mut plan = plan(10 * MB, 4 * MB);
        plan.next(1, 1);
        plan.begins(1, 0);
        assert!(plan.wrote(1, 0..6 * MB));
        assert!(!plan.wrote(1, 6 * MB..10 * MB));
        assert!(plan.is_done());
    }
}
