//! The configuration, read again while it is in use.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::time::{Interval, MissedTickBehavior};

use super::Options;
use crate::config::{Config, Errors};
use crate::dhcp::serve::Dhcp;
use crate::http::{Stale, Standing};
use crate::mirror::serve::Mirrors;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Kinds of alarms.
const NOT_RELOADED: &str = "configuration-not-reloaded";
const RESTART: &str = "restart-wanted";
/// Entries of the folder of more that are looked at.
const FILES: usize = 4096;

pub struct Reload {
    pub options: Options,
    pub shared: Arc<ArcSwap<Config>>,
    pub standing: Arc<ArcSwap<Standing>>,
    pub dhcp: Arc<Dhcp>,
    pub mirrors: Arc<Mirrors>,
}

impl Reload {
    /// Puts the configuration in force as it is now on the disk; a bad one is reported, and the
    /// old one stays.
    pub fn reload(&self, because: &str) {
        let (new, notes) = match super::load(&self.options) {
            Ok(loaded) => loaded,
            Err(errors) => {
                for error in errors.to_string().lines() {
                    tracing::error!(target: "pilotlight", "{error}");
                }
                tracing::error!(
                    target: "pilotlight",
                    "the configuration was not reloaded, the old one stays in force: {} errors",
                    errors.count()
                );
                self.refused(&errors);
                return;
            }
        };
        for note in &notes {
            tracing::warn!(target: "pilotlight", "{note}");
        }
        let old = self.shared.load_full();
        let ledger = &self.dhcp.ledger;
        ledger.calm(NOT_RELOADED);
        ledger.calm(RESTART);
        let amiss = super::amiss(&new, ledger);
        let mut restart = Vec::new();
        for (what, same) in [
            ("interface", old.interfaces == new.interfaces),
            ("state-dir", old.state_dir == new.state_dir),
            ("[dhcp] mode", old.dhcp.mode == new.dhcp.mode),
            (
                "[dhcp] router-advertisement",
                old.dhcp.router_advertisement == new.dhcp.router_advertisement,
            ),
            ("[cache] dir", old.cache_dir() == new.cache_dir()),
            ("[http]", old.http == new.http),
            ("[tls]", old.tls == new.tls),
        ] {
            if !same {
                let text =
                    format!("{what} changed: it takes effect when pilotlight is started again");
                ledger.alarm(RESTART, what, text, Timestamp::now());
                restart.push(what);
            }
        }
        self.standing.store(Arc::new(Standing { refused: None, restart, amiss }));
        // Sockets and certificates are as they were opened; URLs must agree with them.
        let new = Config {
            interfaces: old.interfaces.clone(),
            state_dir: old.state_dir.clone(),
            http: old.http.clone(),
            tls: old.tls.clone(),
            cache: crate::config::Cache { dir: old.cache.dir.clone(), ..new.cache },
            dhcp: crate::config::Dhcp { mode: old.dhcp.mode, ..new.dhcp },
            ..new
        };
        tracing::info!(
            target: "pilotlight",
            "configuration reloaded after {because}: machines declared: {}, profiles: {}",
            new.machines.len(),
            new.profiles.len()
        );
        self.mirrors.configure(&new);
        self.shared.store(Arc::new(new));
        self.dhcp.ledger.keep(self.shared.load().life.boots);
        self.dhcp.reconfigure();
    }

    /// The old one stays in force, which is easily overlooked: it is an alarm while it lasts.
    fn refused(&self, errors: &Errors) {
        let (now, standing) = (Timestamp::now(), self.standing.load_full());
        let since = standing.refused.as_ref().map_or(now, |r| r.since);
        let file = self.options.config.as_deref().unwrap_or(Path::new("-")).display().to_string();
        let why = errors.errors.first().map(ToString::to_string).unwrap_or_default();
        let text = format!("the configuration is not reloaded, the old one stays in force: {why}");
        self.dhcp.ledger.calm(NOT_RELOADED);
        self.dhcp.ledger.alarm(NOT_RELOADED, &file, text, now);
        let refused = Some(Stale { since, why });
        self.standing.store(Arc::new(Standing { refused, ..Standing::clone(&standing) }));
    }
}

/// Notices that a file of the configuration has changed, by looking: once a second at a handful of
/// files costs less than inotify does in a folder where a log grows, and sees what inotify does
/// not (network file systems, folders that come later, links that are turned round).
pub struct Files {
    main: Option<PathBuf>,
    seen: Look,
    /// What the last look found, where that was new: an editor writes a file in several steps, and
    /// only what two looks find alike is a change.
    settling: Option<Look>,
    looks: Interval,
}

/// Each file, with what tells one content from another without reading it.
type Look = BTreeMap<PathBuf, (u64, u64, SystemTime)>;

impl Files {
    /// To be called *before* the files are read, so that no change is missed.
    pub fn watch(main: Option<&Path>) -> Files {
        let mut looks = tokio::time::interval(LOOK);
        // A machine that slept has nothing to catch up with.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Files { main: main.map(Into::into), seen: look(main), settling: None, looks }
    }

    /// Returns when a file has changed, come or gone; never, where there is nothing to watch.
    /// Dropped and called again, it goes on where it was.
    pub async fn changed(&mut self) {
        if self.main.is_none() {
            std::future::pending::<()>().await;
        }
        loop {
            self.looks.tick().await;
            let now = look(self.main.as_deref());
            if now == self.seen {
                self.settling = None;
            } else if self.settling.as_ref() == Some(&now) {
                self.settling = None;
                self.seen = now;
                return;
            } else {
                self.settling = Some(now);
            }
        }
    }
}

/// The file and those of the folder of more beside it, as they are now; what cannot be read is not
/// there, which is a change too.
fn look(main: Option<&Path>) -> Look {
    let Some(main) = main else { return Look::new() };
    let more = std::fs::read_dir(main.with_extension("d")).into_iter().flatten();
    let more = more.flatten().map(|entry| entry.path()).take(FILES);
    let more = more.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    std::iter::once(main.to_path_buf())
        .chain(more)
        .filter_map(|path| {
            let about = std::fs::metadata(&path).ok()?;
            let changed = about.modified().ok()?;
            Some((path, (about.ino(), about.len(), changed)))
        })
        .collect()
}
