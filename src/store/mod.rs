//! What is learned and must outlive the process: small records in named tables.
//!
//! One trait, one file for each engine, and one battery of tests that every engine passes. The
//! trait is narrow on purpose, so that a distributed engine can take the place of the embedded one:
//! get, list, and a transaction that compares and sets.

mod disk;
mod memory;
mod mirror;
mod tree;
mod twin;

use std::path::Path;

pub use self::memory::Memory;
pub use self::twin::Twin;

/// The longest key and value, in bytes: records here are leases and states, not files.
pub const KEY_LIMIT: usize = 256;
pub const VALUE_LIMIT: usize = 64 * 1024;

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub table: &'static str,
    pub key: Vec<u8>,
    /// `None` removes the record.
    pub value: Option<Vec<u8>>,
    /// What the record must hold for the transaction to go through (`Some(None)`: nothing).
    pub expect: Option<Option<Vec<u8>>>,
}

impl Write {
    pub fn put(table: &'static str, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Write {
        Write { table, key: key.into(), value: Some(value.into()), expect: None }
    }

    pub fn remove(table: &'static str, key: impl Into<Vec<u8>>) -> Write {
        Write { table, key: key.into(), value: None, expect: None }
    }

    pub fn expecting(mut self, value: Option<Vec<u8>>) -> Write {
        self.expect = Some(value);
        self
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the record {key:?} of table {table} is not what the transaction expected")]
    Conflict { table: &'static str, key: Vec<u8> },
    #[error("a record of table {table} is too long: keys end at 256 bytes, values at 64 KiB")]
    TooLong { table: &'static str },
    #[error("{path}: another process has this store open; stop it first, or use another state-dir")]
    InUse { path: String },
    #[error(
        "neither file of the store can be used, and it is not begun anew by itself, or addresses \
         in use would be given again: {first}, {second}. Put a backup in the place of one and \
         move the other away, or move both away to begin with nothing"
    )]
    Damaged { first: String, second: String },
    #[error("{path}: {why}")]
    Engine { path: String, why: String },
}

/// A record of a table: key and value.
pub type Record = (Vec<u8>, Vec<u8>);

pub trait Store: Send + Sync {
    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// All records of a table, by key.
    fn list(&self, table: &'static str) -> Result<Vec<Record>, Error>;

    /// All of the changes or none, on the disk before it returns. One call with many changes costs
    /// no more syncs of the disk than one with few.
    ///
    /// # Errors
    /// After [`Error::Conflict`] and [`Error::TooLong`] nothing has changed. After any other error
    /// the changes may be there or not: send them again. The store mends itself meanwhile.
    fn commit(&self, writes: &[Write]) -> Result<(), Error>;
}

/// The embedded store in `dir`, made if it is not there.
pub fn open(dir: &Path) -> Result<Box<dyn Store>, Error> {
    let folder = disk::Folder::hold(dir).map_err(|e| {
        let path = dir.display().to_string();
        match e.kind() {
            std::io::ErrorKind::WouldBlock => Error::InUse { path },
            _ => Error::Engine { path, why: e.to_string() },
        }
    })?;
    Ok(Box::new(Twin::open(folder)?))
}

fn check(writes: &[Write]) -> Result<(), Error> {
    for w in writes {
        if w.key.len() > KEY_LIMIT || w.value.as_ref().is_some_and(|v| v.len() > VALUE_LIMIT) {
            return Err(Error::TooLong { table: w.table });
        }
    }
    Ok(())
}

#[cfg(test)]
mod faults;

#[cfg(test)]
mod battery {
    use super::*;

    fn run(open: &dyn Fn() -> Box<dyn Store>, durable: bool) {
        let s = open();
        assert_eq!(s.get("a", b"1").unwrap(), None);
        assert_eq!(s.list("a").unwrap(), vec![]);
        s.commit(&[Write::put("a", *b"2", *b"two"), Write::put("a", *b"1", *b"one")]).unwrap();
        s.commit(&[Write::put("b", *b"1", *b"other")]).unwrap();
        assert_eq!(s.get("a", b"1").unwrap().as_deref(), Some(&b"one"[..]));
        let all = s.list("a").unwrap();
        assert_eq!(all, vec![(b"1".to_vec(), b"one".to_vec()), (b"2".to_vec(), b"two".to_vec())]);

        // All or nothing.
        let wrong = [
            Write::put("a", *b"1", *b"changed"),
            Write::put("a", *b"2", *b"x").expecting(Some(b"three".to_vec())),
        ];
        assert!(matches!(s.commit(&wrong), Err(Error::Conflict { table: "a", .. })));
        assert_eq!(s.get("a", b"1").unwrap().as_deref(), Some(&b"one"[..]));
        s.commit(&[Write::put("a", *b"3", *b"new").expecting(None)]).unwrap();
        assert!(s.commit(&[Write::put("a", *b"3", *b"new").expecting(None)]).is_err());
        s.commit(&[Write::remove("a", *b"3"), Write::remove("a", *b"nothing")]).unwrap();
        assert_eq!(s.get("a", b"3").unwrap(), None);
        assert!(matches!(
            s.commit(&[Write::put("a", vec![0; KEY_LIMIT + 1], *b"")]),
            Err(Error::TooLong { .. })
        ));
        drop(s);
        if durable {
            let s = open();
            assert_eq!(s.list("a").unwrap().len(), 2, "what was committed is there again");
        }
    }

    #[test]
    fn every_engine_passes() {
        run(&|| Box::new(Memory::default()), false);
        let dir = tempfile::tempdir().unwrap();
        run(&|| super::open(dir.path()).unwrap(), true);
    }

    #[test]
    fn a_second_process_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let _first = super::open(dir.path()).unwrap();
        assert!(matches!(super::open(dir.path()), Err(Error::InUse { .. })));
    }

    /// What a commit costs, in microseconds of processor and of wall; a table to read, run by hand:
    /// `cargo test --release --lib store::battery::cost -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn cost() {
        for durable in [false, true] {
            let dir = tempfile::tempdir_in(".").unwrap();
            let store: Box<dyn Store> = if durable {
                super::open(dir.path()).unwrap()
            } else {
                Box::new(Memory::default())
            };
            let lease = |n: u32| {
                let mac = format!("52:54:00:00:{:02x}:{:02x}", n >> 8 & 255, n & 255);
                let v = format!(
                    r#"{{"mac":"{mac}","state":"bound","starts":"2026-11-21T05:25:34.123456789Z","ends":"2026-11-21T06:25:34.123456789Z","hostname":null}}"#
                );
                Write::put("lease", (0x0a00_0000 + n).to_be_bytes(), v)
            };
            let all: Vec<u32> = (0..10_000).collect();
            for part in all.chunks(256) {
                store.commit(&part.iter().map(|n| lease(*n)).collect::<Vec<_>>()).unwrap();
            }
            for (records, rounds, spread) in
                [(1, 500, 1), (16, 500, 1), (256, 200, 1), (256, 200, 37), (1024, 50, 37)]
            {
                let (wall, cpu) = (std::time::Instant::now(), processor());
                for r in 0..rounds {
                    let writes: Vec<_> =
                        (0..records).map(|i| lease((r * 7919 + i * spread) % 10_000)).collect();
                    store.commit(&writes).unwrap();
                }
                let each = |d: std::time::Duration| d.as_micros() / rounds as u128;
                println!(
                    "durable {durable}, {records} records, every {spread}th: {} us processor, {} us wall",
                    each(processor() - cpu),
                    each(wall.elapsed())
                );
            }
        }
    }

    fn processor() -> std::time::Duration {
        let usage =
            nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
        let time = |t: nix::sys::time::TimeVal| {
            std::time::Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000)
        };
        time(usage.user_time()) + time(usage.system_time())
    }
}
