//! What is there of a file: byte ranges, sorted, apart from each other, bounded in number.

use std::ops::Range;

/// Ranges kept; they are those that a header block holds. With more gaps than that the smallest
/// piece is forgotten, to be fetched again.
pub const LIMIT: usize = 64;

/// Bytes that are there. As JSON: `[[start, end], …]`, the end not included.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(Vec<Range<u64>>);

/// Ranges that no set of ours has: empty, touching, out of order or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ranges of bytes are sorted, apart from each other, and at most {LIMIT}")]
pub struct NoRanges;

impl Ranges {
    /// Joined with what it overlaps or touches; an empty one is nothing. Where that makes more
    /// than [`LIMIT`], the smallest of the others goes, so that what is arriving can grow.
    pub fn insert(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end < new.start);
        let last = self.0.partition_point(|r| r.start <= new.end);
        let joined = match self.0.get(first..last) {
            Some([one]) => one.start.min(new.start)..one.end.max(new.end),
            Some([one, .., other]) => one.start.min(new.start)..other.end.max(new.end),
            _ => new,
        };
        self.0.splice(first..last, [joined]);
        if self.0.len() > LIMIT {
            let others = self.0.iter().enumerate().filter(|(i, _)| *i != first);
            if let Some((smallest, _)) = others.min_by_key(|(_, r)| r.end - r.start) {
                self.0.remove(smallest);
            }
        }
    }

    /// Whether all of `range` is there; of an empty one it is.
    pub fn contains(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.prefix_from(range.start) >= range.end
    }

    /// How far it is there without a gap, from `offset` on: `offset` itself where nothing is.
    pub fn prefix_from(&self, offset: u64) -> u64 {
        let next = self.0.partition_point(|r| r.end <= offset);
        self.0.get(next).filter(|r| r.start <= offset).map_or(offset, |r| r.end)
    }

    /// The gaps within `range`, in order.
    pub fn missing(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let starts = std::iter::once(range.start).chain(self.0.iter().map(|r| r.end));
        let ends = self.0.iter().map(|r| r.start).chain(std::iter::once(range.end));
        starts
            .zip(ends)
            .map(move |(start, end)| start.max(range.start)..end.min(range.end))
            .filter(|gap| !gap.is_empty())
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }

    /// Bytes.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|r| r.end - r.start).sum()
    }

    /// The end of the last one.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |r| r.end)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<(u64, u64)>> for Ranges {
    type Error = NoRanges;

    fn try_from(pairs: Vec<(u64, u64)>) -> Result<Ranges, NoRanges> {
        let apart = pairs.windows(2).all(|w| w[0].1 < w[1].0);
        let good = apart && pairs.len() <= LIMIT && pairs.iter().all(|(start, end)| start < end);
        good.then(|| Ranges(pairs.into_iter().map(|(s, e)| s..e).collect())).ok_or(NoRanges)
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Vec<(u64, u64)> {
        ranges.0.into_iter().map(|r| (r.start, r.end)).collect()
    }
}

impl From<Range<u64>> for Ranges {
    fn from(range: Range<u64>) -> Ranges {
        let mut ranges = Ranges::default();
        ranges.insert(range);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as a set of single bytes.
        #[test]
        fn ranges_are_sets_of_bytes(pieces in prop::collection::vec((0u64..200, 0u64..20), 0..40)) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 256]);
            for (start, len) in pieces {
                ranges.insert(start..start + len);
                bytes[start as usize..(start + len) as usize].fill(true);
            }
            prop_assert_eq!(ranges.total(), bytes.iter().filter(|b| **b).count() as u64);
            prop_assert!(ranges.0.windows(2).all(|w| w[0].end < w[1].start));
            for at in 0..256u64 {
                let run = bytes[at as usize..].iter().take_while(|b| **b).count() as u64;
                prop_assert_eq!(ranges.prefix_from(at), at + run);
                prop_assert_eq!(ranges.contains(at..256), at + run == 256 || at == 256);
            }
            let mut gaps = [false; 256];
            for gap in ranges.missing(10..220) {
                prop_assert!(!gap.is_empty());
                gaps[gap.start as usize..gap.end as usize].fill(true);
            }
            for at in 0..256 {
                prop_assert_eq!(gaps[at], !bytes[at] && (10..220).contains(&at));
            }
            let text = serde_json::to_string(&ranges).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), ranges);
        }
    }

    #[test]
    fn with_too_many_the_smallest_of_the_others_goes() {
        let mut ranges = Ranges::default();
        for n in 0..LIMIT as u64 {
            ranges.insert(n * 100..n * 100 + if n == 7 { 10 } else { 50 });
        }
        ranges.insert(60..61);
        assert_eq!(ranges.0.len(), LIMIT);
        assert!(ranges.contains(60..61) && !ranges.contains(700..701));
        // What is arriving grows; the others go one at a time, and only for a new beginning.
        ranges.insert(61..62);
        assert!(ranges.contains(60..62) && ranges.contains(800..850));
    }

    #[test]
    fn no_file_has_other_ranges() {
        for bad in ["[[1,1]]", "[[2,1]]", "[[0,1],[1,2]]", "[[5,6],[1,2]]", "[[0,5],[3,9]]", "[-1]"]
        {
            assert!(serde_json::from_str::<Ranges>(bad).is_err(), "{bad}");
        }
        let many: Vec<(u64, u64)> = (0..LIMIT as u64 + 1).map(|n| (n * 2, n * 2 + 1)).collect();
        assert_eq!(Ranges::try_from(many), Err(NoRanges));
        assert!(Ranges::default().contains(3..3) && Ranges::default().is_empty());
        assert_eq!(Ranges::from(3..9).end(), 9);
    }
}
