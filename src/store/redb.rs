//! The embedded store: one file of redb, a commit is one durable transaction.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Error, Record, Store, Write, check};

pub struct Redb {
    db: Database,
    path: PathBuf,
}

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The page cache, in bytes: all that is stored fits, and an idle server stays small.
const CACHE: usize = 4 * 1024 * 1024;

impl Redb {
    pub fn open(path: &Path) -> Result<Redb, Error> {
        match Database::builder().set_cache_size(CACHE).create(path) {
            Ok(db) => Ok(Redb { db, path: path.into() }),
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                Err(Error::InUse { path: path.display().to_string() })
            }
            Err(e) => Err(Error::Engine { path: path.display().to_string(), why: e.to_string() }),
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::Engine { path: self.path.display().to_string(), why: why.to_string() }
    }

    fn read<T>(
        &self,
        table: &'static str,
        empty: T,
        read: impl FnOnce(
            redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
        ) -> Result<T, redb::StorageError>,
    ) -> Result<T, Error> {
        let tx = self.db.begin_read().map_err(|e| self.failed(e))?;
        match tx.open_table(Table::new(table)) {
            Ok(table) => read(table).map_err(|e| self.failed(e)),
            // A table begins with its first record.
            Err(TableError::TableDoesNotExist(_)) => Ok(empty),
            Err(e) => Err(self.failed(e)),
        }
    }
}

impl Store for Redb {
    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.read(table, None, |t| Ok(t.get(key)?.map(|v| v.value().to_vec())))
    }

    fn list(&self, table: &'static str) -> Result<Vec<Record>, Error> {
        self.read(table, Vec::new(), |t| {
            t.iter()?.map(|r| r.map(|(k, v)| (k.value().to_vec(), v.value().to_vec()))).collect()
        })
    }

    fn commit(&self, writes: &[Write]) -> Result<(), Error> {
        check(writes)?;
        let tx = self.db.begin_write().map_err(|e| self.failed(e))?;
        for w in writes {
            let mut table = tx.open_table(Table::new(w.table)).map_err(|e| self.failed(e))?;
            if let Some(expect) = &w.expect {
                let have = table.get(&w.key[..]).map_err(|e| self.failed(e))?;
                if have.map(|v| v.value().to_vec()) != *expect {
                    // Dropped without a commit, the transaction never was.
                    return Err(Error::Conflict { table: w.table, key: w.key.clone() });
                }
            }
            match &w.value {
                Some(value) => table.insert(&w.key[..], &value[..]).map(drop),
                None => table.remove(&w.key[..]).map(drop),
            }
            .map_err(|e| self.failed(e))?;
        }
        tx.commit().map_err(|e| self.failed(e))
    }
}
