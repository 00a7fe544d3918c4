//! Records in redb, whatever redb writes to. A commit is one durable transaction, and counts.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition, TableError,
};

use super::{Error, Record, Write};

pub struct Tree {
    db: Database,
    sequence: u64,
}

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Commits since the store was made, as 8 bytes, most significant first.
const SEQUENCE: Table = Table::new("pilotlight-sequence");
const KEY: &[u8] = b"sequence";

/// The page cache, in bytes: all that is stored fits, and an idle server stays small.
const CACHE: usize = 4 * 1024 * 1024;

/// Why a commit did not go through.
pub enum Failed {
    /// Nothing was changed, and the tree is as it was.
    Refused(Error),
    /// redb takes no more until the tree is opened anew.
    Broken(String),
}

impl<E: Display> From<E> for Failed {
    fn from(e: E) -> Failed {
        Failed::Broken(e.to_string())
    }
}

/// redb panics at some damage.
fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| "its structure makes no sense".to_string())
}

impl Tree {
    pub fn open(backend: impl StorageBackend) -> Result<Tree, String> {
        guarded(|| {
            let mut how = Database::builder();
            let db = how.set_cache_size(CACHE).create_with_backend(backend).map_err(text)?;
            let mut tree = Tree { db, sequence: 0 };
            let sequence = tree.read(SEQUENCE, None, |t| {
                Ok(t.get(KEY)?.map(|v| <[u8; 8]>::try_from(v.value()).ok()))
            })?;
            // Stores from before it was counted have no such record.
            if let Some(sequence) = sequence {
                tree.sequence = u64::from_be_bytes(sequence.ok_or("no sequence number")?);
            }
            Ok(tree)
        })?
    }

    /// Opened, and every page of it is what was once written.
    pub fn verify(backend: impl StorageBackend) -> Result<Tree, String> {
        let mut tree = Tree::open(backend)?;
        match guarded(|| tree.db.check_integrity())? {
            Ok(true) => Ok(tree),
            Ok(false) => Err("a checksum is wrong".into()),
            Err(e) => Err(e.to_string()),
        }
    }

    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.read(Table::new(table), None, |t| Ok(t.get(key)?.map(|v| v.value().to_vec())))
    }

    pub fn list(&self, table: &'static str) -> Result<Vec<Record>, String> {
        self.read(Table::new(table), Vec::new(), |t| {
            t.iter()?.map(|r| r.map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))).collect()
        })
    }

    fn read<T>(
        &self,
        table: Table,
        empty: T,
        read: impl FnOnce(ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, StorageError>,
    ) -> Result<T, String> {
        guarded(|| match self.db.begin_read().map_err(text)?.open_table(table) {
            Ok(table) => read(table).map_err(text),
            // A table begins with its first record.
            Err(TableError::TableDoesNotExist(_)) => Ok(empty),
            Err(e) => Err(e.to_string()),
        })?
    }

    pub fn commit(&mut self, writes: &[Write]) -> Result<(), Failed> {
        let sequence = self.sequence + 1;
        guarded(|| self.try_commit(writes, sequence))??;
        self.sequence = sequence;
        Ok(())
    }

    fn try_commit(&self, writes: &[Write], sequence: u64) -> Result<(), Failed> {
        let tx = self.db.begin_write()?;
        for same in writes.chunk_by(|a, b| a.table == b.table) {
            let mut table = tx.open_table(Table::new(same[0].table))?;
            for w in same {
                if let Some(expect) = &w.expect
                    && table.get(&w.key[..])?.map(|v| v.value().to_vec()) != *expect
                {
                    // Dropped without a commit, the transaction never was.
                    let conflict = Error::Conflict { table: w.table, key: w.key.clone() };
                    return Err(Failed::Refused(conflict));
                }
                match &w.value {
                    Some(value) => table.insert(&w.key[..], &value[..]).map(drop)?,
                    None => table.remove(&w.key[..]).map(drop)?,
                };
            }
        }
        tx.open_table(SEQUENCE)?.insert(KEY, &sequence.to_be_bytes()[..])?;
        Ok(tx.commit()?)
    }
}

fn text(e: impl Display) -> String {
    e.to_string()
}
