//! Runs what the users' templates and folders make of a request off the workers: a few at a time,
//! each with a deadline.
//!
//! Nothing can stop a template that does not end (tera has no limit on time), so its thread is
//! left to itself, its place is given to the next, and its profile is not tried again until the
//! configuration changes: it costs the machines of other profiles nothing but a processor's time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::error::No;
use crate::config::Config;

/// At once.
const PLACES: usize = 4;
/// To wait for a place, and then for the job itself: two times, so that a queue of requests never
/// looks like a template that does not end.
const DEADLINE: Duration = Duration::from_secs(2);

pub struct Renders {
    places: Semaphore,
    /// The profiles that did not end, under the configuration that they did it with.
    endless: Mutex<(Weak<Config>, BTreeSet<String>)>,
}

impl Renders {
    pub fn new() -> Renders {
        Renders { places: Semaphore::new(PLACES), endless: Mutex::default() }
    }

    /// Runs `job`, which renders something of `profile`.
    ///
    /// # Errors
    /// [`No::Slow`] when there is no place for it in time, [`No::Endless`] when it does not end in
    /// time, or a job of the same profile did not before.
    pub async fn run<T: Send + 'static>(
        &self,
        config: &Arc<Config>,
        profile: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, No> {
        let place = timeout(DEADLINE, self.places.acquire()).await;
        let _place = place.map_err(|_| No::Slow)?.map_err(|_| No::Slow)?;
        if self.is_endless(config, profile) {
            return Err(No::Endless(profile.into()));
        }
        let (done, result) = oneshot::channel();
        // Not a task of the runtime, which would wait for it when the server stops.
        std::thread::Builder::new()
            .name("render".into())
            .spawn(move || done.send(job()))
            .map_err(|_| No::Slow)?;
        match timeout(DEADLINE, result).await {
            Ok(result) => result.map_err(|_| No::Slow),
            Err(_) => {
                self.remember(config, profile);
                Err(No::Endless(profile.into()))
            }
        }
    }

    fn is_endless(&self, config: &Arc<Config>, profile: &str) -> bool {
        let endless = self.endless.lock().unwrap_or_else(PoisonError::into_inner);
        endless.0.ptr_eq(&Arc::downgrade(config)) && endless.1.contains(profile)
    }

    fn remember(&self, config: &Arc<Config>, profile: &str) {
        let mut endless = self.endless.lock().unwrap_or_else(PoisonError::into_inner);
        if !endless.0.ptr_eq(&Arc::downgrade(config)) {
            *endless = (Arc::downgrade(config), BTreeSet::new());
        }
        endless.1.insert(profile.into());
    }
}
