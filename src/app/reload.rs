//! The configuration, read again while it is in use.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

use super::Options;
use crate::config::Config;
use crate::dhcp::serve::Dhcp;

/// An editor writes a file in several steps; what comes within this time is one change.
const SETTLE: Duration = Duration::from_millis(300);

pub struct Reload {
    pub options: Options,
    pub shared: Arc<ArcSwap<Config>>,
    pub dhcp: Arc<Dhcp>,
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
                return;
            }
        };
        for note in &notes {
            tracing::warn!(target: "pilotlight", "{note}");
        }
        let old = self.shared.load_full();
        for (what, same) in [
            ("interface", old.interfaces == new.interfaces),
            ("state-dir", old.state_dir == new.state_dir),
            ("[dhcp] mode", old.dhcp.mode == new.dhcp.mode),
            (
                "[dhcp] router-advertisement",
                old.dhcp.router_advertisement == new.dhcp.router_advertisement,
            ),
            ("[http]", old.http == new.http),
            ("[tls]", old.tls == new.tls),
        ] {
            if !same {
                tracing::warn!(target: "pilotlight", "{what} changed: it takes effect when pilotlight is started again");
            }
        }
        // Sockets and certificates are as they were opened; URLs must agree with them.
        let new = Config {
            interfaces: old.interfaces.clone(),
            state_dir: old.state_dir.clone(),
            http: old.http.clone(),
            tls: old.tls.clone(),
            dhcp: crate::config::Dhcp { mode: old.dhcp.mode, ..new.dhcp },
            ..new
        };
        tracing::info!(
            target: "pilotlight",
            "configuration reloaded after {because}: machines declared: {}, profiles: {}",
            new.machines.len(),
            new.profiles.len()
        );
        self.shared.store(Arc::new(new));
        self.dhcp.reconfigure();
    }
}

/// A watch over the folders of the configuration's files: editors put a new file in the old one's
/// place, which a watch on the file would not see.
pub struct Files {
    changes: mpsc::Receiver<()>,
    // Ends the watch when it is dropped.
    _debouncer: Option<Debouncer<notify::RecommendedWatcher, RecommendedCache>>,
}

impl Files {
    pub fn watch(config: &Config) -> Files {
        let (tell, changes) = mpsc::channel(1);
        let files: BTreeSet<PathBuf> =
            config.sources.iter().filter_map(|f| f.canonicalize().ok()).collect();
        let mut folders: BTreeSet<PathBuf> =
            files.iter().filter_map(|f| f.parent().map(Into::into)).collect();
        // Files that are added to the folder of more count, too.
        let more: Vec<PathBuf> = files
            .first()
            .map(|main| main.with_extension("d"))
            .filter(|d| d.is_dir())
            .into_iter()
            .collect();
        folders.extend(more.iter().cloned());
        let heard = move |events: DebounceEventResult| {
            let ours = |p: &PathBuf| {
                p.extension().is_some_and(|e| e == "toml")
                    && (files.contains(p) || more.iter().any(|d| p.parent() == Some(d)))
            };
            // Reading a file is an event too; only what changes one is a change.
            let changed = |e: &notify_debouncer_full::DebouncedEvent| {
                !e.kind.is_access() && e.paths.iter().any(ours)
            };
            if events.is_ok_and(|all| all.iter().any(changed)) {
                // One change that waits stands for all.
                let _ = tell.try_send(());
            }
        };
        let debouncer = match folders.is_empty() {
            true => None,
            false => new_debouncer(SETTLE, None, heard).ok(),
        };
        let debouncer = debouncer.and_then(|mut d| {
            folders
                .iter()
                .try_for_each(|f| d.watch(f, notify::RecursiveMode::NonRecursive))
                .inspect_err(|e| {
                    tracing::warn!(target: "pilotlight", "changes of the configuration are not seen, SIGHUP still works: {e}");
                })
                .ok()
                .map(|()| d)
        });
        Files { changes, _debouncer: debouncer }
    }

    /// Returns when a file has changed; never, where there is nothing to watch.
    pub async fn changed(&mut self) {
        if self._debouncer.is_none() || self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
