//! The store that forgets: for tests, rehearsals and `explain`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Error, Record, Store, Write, check};

#[derive(Default)]
pub struct Memory(Mutex<Records>);

/// Table and key to value.
type Records = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

impl Store for Memory {
    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.get(&(table, key.to_vec())).cloned())
    }

    fn list(&self, table: &'static str) -> Result<Vec<Record>, Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all
            .iter()
            .filter(|((t, _), _)| *t == table)
            .map(|((_, k), v)| (k.clone(), v.clone()))
            .collect())
    }

    fn commit(&self, writes: &[Write]) -> Result<(), Error> {
        check(writes)?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for w in writes {
            if let Some(expect) = &w.expect
                && all.get(&(w.table, w.key.clone())) != expect.as_ref()
            {
                return Err(Error::Conflict { table: w.table, key: w.key.clone() });
            }
        }
        for w in writes {
            let key = (w.table, w.key.clone());
            match &w.value {
                Some(value) => all.insert(key, value.clone()),
                None => all.remove(&key),
            };
        }
        Ok(())
    }
}
