//! What goes when the cache is full: SIEVE over whole objects.
//!
//! SIEVE (Zhang and others, NSDI 2024) and not S3-FIFO: one queue and one bit do it, and a hit
//! changes nothing but that bit. A new object that nobody asks for twice goes soon, one that each
//! installation asks for stays where it is, and there are no sizes of queues to be chosen.
//!
//! 1. New objects go to the young end of the queue; a use sets the object's bit.
//! 2. The hand goes from the old end to the young one, and over again. It clears the bits that are
//!    set, and stops at an object whose bit is not: that one goes.
//! 3. What is to be kept is passed over. Only where all else is gone does it go, in the same order,
//!    and is marked: the caller may rather do without the room.

use std::collections::{BTreeMap, HashMap};

use super::record::Id;

/// Objects known; of more, some are victims whatever room there is.
pub const LIMIT: usize = 1 << 20;

/// An object that has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    pub id: Id,
    /// On the disk.
    pub bytes: u64,
    /// It was to be kept, and all that was not is gone.
    pub kept: bool,
}

struct Entry {
    id: Id,
    bytes: u64,
    used: bool,
}

#[derive(Default)]
pub struct Evict {
    /// The oldest first.
    queue: BTreeMap<i64, Entry>,
    places: HashMap<Id, i64>,
    /// The next place that is looked at.
    hand: i64,
    total: u64,
}

impl Evict {
    /// A new object, or a new size of one that is there.
    pub fn insert(&mut self, id: Id, bytes: u64) {
        let youngest = self.queue.last_key_value().map_or(0, |(place, _)| place + 1);
        let place = *self.places.entry(id).or_insert(youngest);
        let used = self.queue.get(&place).is_some_and(|e| e.used);
        self.put(place, Entry { id, bytes, used });
    }

    /// What a scan of the disk found, in any order, with the last use in any unit: all of it is
    /// older than what is here, which is known better.
    pub fn load(&mut self, mut found: Vec<(Id, u64, i64)>) {
        found.sort_by_key(|(_, _, used)| std::cmp::Reverse(*used));
        for (id, bytes, _) in found {
            if self.places.contains_key(&id) {
                continue;
            }
            let oldest = self.queue.first_key_value().map_or(0, |(place, _)| place - 1);
            self.places.insert(id, oldest);
            self.put(oldest, Entry { id, bytes, used: false });
            self.hand = oldest;
        }
    }

    /// It was asked for.
    pub fn used(&mut self, id: &Id) {
        if let Some(entry) = self.places.get(id).and_then(|place| self.queue.get_mut(place)) {
            entry.used = true;
        }
    }

    pub fn remove(&mut self, id: &Id) {
        if let Some(entry) = self.places.remove(id).and_then(|place| self.queue.remove(&place)) {
            self.total -= entry.bytes;
        }
    }

    /// Objects of at least `bytes` together, or of all there is, in the order in which they go.
    /// They are out of the queue: one that could not be removed is put in again.
    pub fn victims(&mut self, bytes: u64, mut keep: impl FnMut(&Id) -> bool) -> Vec<Victim> {
        let mut out = Vec::new();
        let mut freed = 0;
        for kept in [false, true] {
            // In one round all bits are cleared, in the next all go.
            for _ in 0..2 * self.queue.len() {
                if freed >= bytes && self.queue.len() <= LIMIT {
                    return out;
                }
                let Some((place, id)) = self.step() else { return out };
                // In the second turn only such are left.
                if !kept && keep(&id) {
                    continue;
                }
                let Some(entry) = self.queue.get_mut(&place) else { continue };
                if std::mem::take(&mut entry.used) {
                    continue;
                }
                freed += entry.bytes;
                out.push(Victim { id, bytes: entry.bytes, kept });
                self.remove(&id);
            }
        }
        out
    }

    /// What is under the hand, which moves on.
    fn step(&mut self) -> Option<(i64, Id)> {
        let ahead = self.queue.range(self.hand..).next();
        let (place, entry) = ahead.or_else(|| self.queue.first_key_value())?;
        let found = (*place, entry.id);
        self.hand = place + 1;
        Some(found)
    }

    fn put(&mut self, place: i64, entry: Entry) {
        self.total += entry.bytes;
        if let Some(before) = self.queue.insert(place, entry) {
            self.total -= before.bytes;
        }
    }

    /// Bytes on the disk of all objects.
    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u32) -> Id {
        Id::named("m", &n.to_string(), "")
    }

    fn ids(victims: &[Victim]) -> Vec<Id> {
        victims.iter().map(|v| v.id).collect()
    }

    fn filled(n: u32) -> Evict {
        let mut evict = Evict::default();
        (0..n).for_each(|n| evict.insert(id(n), 10));
        evict
    }

    #[test]
    fn what_is_used_stays_and_the_oldest_goes() {
        let mut evict = filled(5);
        evict.used(&id(0));
        evict.used(&id(2));
        assert_eq!(ids(&evict.victims(15, |_| false)), [id(1), id(3)]);
        assert_eq!((evict.total(), evict.len()), (30, 3));
        // The hand goes on where it was, and a bit was good for one round.
        assert_eq!(ids(&evict.victims(10, |_| false)), [id(4)]);
        assert_eq!(ids(&evict.victims(10, |_| false)), [id(0)]);
        assert!(evict.victims(0, |_| false).is_empty());
    }

    /// The files of one installation, asked for again each time, and between them many that
    /// nobody asks for twice.
    #[test]
    fn what_every_installation_asks_for_outlives_what_one_did() {
        let mut evict = filled(50);
        for n in 1000..3000 {
            evict.used(&id(n % 50));
            evict.insert(id(n), 10);
            if evict.total() > 1000 {
                let gone = evict.victims(10, |_| false);
                assert!(gone.iter().all(|v| !(0..50).any(|n| v.id == id(n))), "at {n}");
            }
        }
        assert_eq!(evict.total(), 1000);
    }

    #[test]
    fn what_is_kept_goes_last_and_says_so() {
        let mut evict = filled(6);
        let kept = [id(0), id(1), id(4)];
        evict.used(&id(5));
        let all = evict.victims(u64::MAX, |id| kept.contains(id));
        assert_eq!(ids(&all[..3]), [id(2), id(3), id(5)]);
        assert!(all[..3].iter().all(|v| !v.kept) && all[3..].iter().all(|v| v.kept));
        assert_eq!(all.len(), 6);
        assert!(evict.is_empty() && evict.total() == 0 && evict.victims(1, |_| true).is_empty());
    }

    #[test]
    fn what_a_scan_finds_is_older_than_what_is_there() {
        let mut evict = filled(2);
        evict.load(vec![(id(10), 1, 300), (id(11), 1, 100), (id(0), 99, 0), (id(12), 1, 200)]);
        assert_eq!((evict.total(), evict.len()), (23, 5));
        let all = evict.victims(u64::MAX, |_| false);
        assert_eq!(ids(&all), [id(11), id(12), id(10), id(0), id(1)]);
    }

    proptest! {
        #[test]
        fn sums_and_victims_are_right(
            steps in prop::collection::vec((0u8..5, 0u32..30, 0u64..50), 0..200)
        ) {
            let (mut evict, mut model) = (Evict::default(), HashMap::new());
            for (what, n, bytes) in steps {
                match what {
                    0 | 1 => {
                        evict.insert(id(n), bytes);
                        model.insert(id(n), bytes);
                    }
                    2 => evict.used(&id(n)),
                    3 => {
                        evict.remove(&id(n));
                        model.remove(&id(n));
                    }
                    _ => {
                        let gone = evict.victims(bytes, |i| *i == id(3));
                        let sum: u64 = gone.iter().map(|v| v.bytes).sum();
                        for v in &gone {
                            prop_assert_eq!(model.remove(&v.id), Some(v.bytes));
                            prop_assert_eq!(v.kept, v.id == id(3));
                        }
                        prop_assert!(sum >= bytes || model.is_empty());
                        let last = gone.last().map_or(0, |v| v.bytes);
                        prop_assert!(gone.is_empty() || sum - last < bytes, "no more than it takes");
                    }
                }
                prop_assert_eq!(evict.total(), model.values().sum::<u64>());
                prop_assert_eq!(evict.len(), model.len());
            }
        }
    }
}
