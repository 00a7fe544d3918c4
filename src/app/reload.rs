//! The configuration, read again while it is in use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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
    /// Watches the file, and the folder of more beside it, which may come later or go: to be
    /// called again after each change, *before* the files are read, so that no change is missed.
    pub fn watch(main: Option<&Path>) -> Files {
        let (tell, changes) = mpsc::channel(1);
        let Some(main) = main else { return Files { changes, _debouncer: None } };
        // Where the name is, and where it leads if it is a symbolic link.
        let named = main.file_name().and_then(|name| Some(folder(main)?.join(name)));
        let files: BTreeSet<PathBuf> = named.into_iter().chain(main.canonicalize().ok()).collect();
        let more = files.iter().find(|f| f.file_name() == main.file_name());
        let more = more.map(|f| f.with_extension("d")).unwrap_or_default();
        let mut folders: BTreeSet<PathBuf> =
            files.iter().filter_map(|f| f.parent().map(Into::into)).collect();
        folders.extend(more.is_dir().then(|| more.clone()));
        let heard = move |events: DebounceEventResult| {
            let ours = |p: &PathBuf| {
                let toml = p.extension().is_some_and(|e| e == "toml");
                files.contains(p) || *p == more || toml && p.parent() == Some(&more)
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
        let debouncer = new_debouncer(SETTLE, None, heard).and_then(|mut d| {
            folders.iter().try_for_each(|f| d.watch(f, notify::RecursiveMode::NonRecursive))?;
            Ok(d)
        });
        let debouncer = debouncer.inspect_err(|e| {
            tracing::warn!(target: "pilotlight", "changes of the configuration are not seen, SIGHUP still works: {e}");
        });
        Files { changes, _debouncer: debouncer.ok() }
    }

    /// Returns when a file has changed; never, where there is nothing to watch.
    pub async fn changed(&mut self) {
        if self._debouncer.is_none() || self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn folder(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    parent.canonicalize().ok()
}
