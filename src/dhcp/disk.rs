//! The leases on their way to the disk, and the ACKs that wait for them there: one thread.
//!
//! 1. All that has come in while the last transaction was under way is taken together: one sync of
//!    the disk, however many machines wait for it. In a storm it waits a little longer
//!    ([`PAUSE`]): what a transaction costs depends little on how many it is for.
//! 2. It is committed, with the mark of the lease clock.
//! 3. Only then its ACKs leave. If the commit failed, none does: each is refused by name, and what
//!    was to be written is kept and goes with the next transaction, so that it goes on by itself
//!    when there is room on the disk again.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::{self, Store, Write};

/// ACKs that wait for the disk at once; a client whose ACK does not come asks again after 4 s.
const WAITING: usize = 8192;
/// The pause after a transaction, as often as it lasted itself, and at most: where the disk
/// is quick a storm's transactions take an eighth of the time. The first after a pause does not wait.
const PAUSE: u32 = 7;
const PAUSE_LIMIT: Duration = Duration::from_millis(9);
/// The lease clock's mark is made this often where nothing else is written: a host that starts anew
/// goes on from there.
const MARK: Duration = Duration::from_secs(300);
/// What could not be written is tried again after this long, if nobody asks before.
const AGAIN: Duration = Duration::from_secs(1);

/// What waits for a transaction. `W` is the ACK.
pub struct Queue<W> {
    state: Mutex<State<W>>,
    more: Condvar,
}

struct State<W> {
    /// Only the newest state of each record is worth writing, which also bounds it.
    changes: Changes,
    waiting: Vec<W>,
    closed: bool,
}

type Changes = BTreeMap<(&'static str, Vec<u8>), Write>;

fn keyed(writes: Vec<Write>) -> impl Iterator<Item = ((&'static str, Vec<u8>), Write)> {
    writes.into_iter().map(|w| ((w.table, w.key.clone()), w))
}

impl<W> Queue<W> {
    pub fn new() -> Queue<W> {
        let state = State { changes: Changes::new(), waiting: Vec::new(), closed: false };
        Queue { state: Mutex::new(state), more: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over changes with the ACKs that wait for them. What finds no room comes back: its
    /// change is written, its ACK is not sent.
    pub fn push(&self, changes: Vec<Write>, waiting: Vec<W>) -> Vec<W> {
        if changes.is_empty() && waiting.is_empty() {
            return Vec::new();
        }
        let mut state = self.state();
        state.changes.extend(keyed(changes));
        let mut waiting = waiting.into_iter();
        let room = WAITING.saturating_sub(state.waiting.len());
        state.waiting.extend(waiting.by_ref().take(room));
        self.more.notify_one();
        waiting.collect()
    }

    /// Commits until it is closed and empty. `mark` gives what goes along with each transaction;
    /// `done` hears of each ACK why it may
    /// not leave, if it may not.
    pub fn run(
        &self,
        store: &dyn Store,
        mut mark: impl FnMut() -> Option<Write>,
        done: impl Fn(W, Option<&store::Error>),
    ) {
        let mut kept = Changes::new();
        let mut next = Instant::now();
        while let Some((changes, waiting)) = self.next(!kept.is_empty(), next) {
            let began = Instant::now();
            kept.extend(changes);
            let mut all: Vec<Write> = std::mem::take(&mut kept).into_values().collect();
            let leases = all.len();
            all.extend(mark());
            let result = store.commit(&all);
            next = Instant::now() + (began.elapsed() * PAUSE).min(PAUSE_LIMIT);
            if result.is_err() {
                all.truncate(leases);
                kept.extend(keyed(all));
            }
            for w in waiting {
                done(w, result.as_ref().err());
            }
        }
        if let Some(mark) = mark() {
            // Without it the lease clock goes on from the mark before, which does no harm.
            let _ = store.commit(&[mark]);
        }
    }

    /// What is there; waits for it, but not for ever: something is to be tried `again`, or the mark
    /// to be made. `None` if it is closed and there is nothing more.
    fn next(&self, again: bool, not_before: Instant) -> Option<(Changes, Vec<W>)> {
        let mut state = self.state();
        while state.changes.is_empty() && state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            let patience = if again { AGAIN } else { MARK };
            let waited = self.more.wait_timeout(state, patience);
            let (back, time) = waited.unwrap_or_else(PoisonError::into_inner);
            state = back;
            if time.timed_out() {
                break;
            }
        }
        let left = not_before.saturating_duration_since(Instant::now());
        if !left.is_zero() && !state.closed {
            drop(state);
            std::thread::sleep(left);
            state = self.state();
        }
        Some((std::mem::take(&mut state.changes), std::mem::take(&mut state.waiting)))
    }

    /// Nothing more comes: what is there is still committed.
    pub fn close(&self) {
        self.state().closed = true;
        self.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::{Error, Memory, Record};

    /// A store whose disk is full for the first commits.
    struct Full {
        store: Memory,
        fails: AtomicUsize,
        commits: AtomicUsize,
    }

    impl Store for Full {
        fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            self.store.get(table, key)
        }
        fn list(&self, table: &'static str) -> Result<Vec<Record>, Error> {
            self.store.list(table)
        }
        fn commit(&self, writes: &[Write]) -> Result<(), Error> {
            self.commits.fetch_add(1, Ordering::Relaxed);
            let left = self.fails.load(Ordering::Relaxed);
            if left > 0 {
                self.fails.store(left - 1, Ordering::Relaxed);
                return Err(Error::Engine { path: "x".into(), why: "no space".into() });
            }
            self.store.commit(writes)
        }
    }

    #[test]
    fn one_transaction_for_all_that_wait_and_none_is_lost_by_a_full_disk() {
        let store = Full { store: Memory::default(), fails: 1.into(), commits: 0.into() };
        let queue = Queue::new();
        let put = |key: u8, value: u8| Write::put("lease", [key], [value]);
        queue.push(vec![put(1, 1), put(2, 1)], vec!["one", "two"]);
        let told = Mutex::new(Vec::new());
        let marks = Cell::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The failure is heard; then there is room, and one of the two asks again.
                while told.lock().unwrap().len() < 2 {
                    std::thread::yield_now();
                }
                queue.push(vec![put(1, 2)], vec!["one"]);
                queue.close();
            });
            queue.run(
                &store,
                || {
                    marks.set(marks.get() + 1);
                    None
                },
                |who, why| told.lock().unwrap().push((who, why.is_none())),
            );
        });
        assert_eq!(*told.lock().unwrap(), [("one", false), ("two", false), ("one", true)]);
        assert_eq!(store.get("lease", &[1]).unwrap(), Some(vec![2]), "the newest");
        assert_eq!(store.get("lease", &[2]).unwrap(), Some(vec![1]), "kept from the first");
        assert_eq!(store.commits.load(Ordering::Relaxed) + 1, marks.get(), "one more at the end");
    }

    #[test]
    fn it_is_bounded() {
        let queue = Queue::new();
        assert_eq!(queue.push(vec![], vec![0; WAITING + 3]).len(), 3);
        assert_eq!(queue.push(vec![], vec![0]).len(), 1);
    }
}
