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
use crate::config::{Config, Errors, Root};
use crate::dhcp::serve::Dhcp;
use crate::http::{Stale, Standing};
use crate::media;
use crate::mirror::serve::Mirrors;
use crate::model::profile::{Profile, Source};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Kinds of alarms.
const NOT_RELOADED: &str = "configuration-not-reloaded";
const RESTART: &str = "restart-wanted";
/// Entries of the folder of more that are looked at.
const FILES: usize = 4096;
/// An image that was written to this lately is still being copied: a slow copy pauses.
const GROWS: Duration = Duration::from_secs(5);

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
        for what in came(&old, &new) {
            tracing::info!(target: "pilotlight", "{what}");
        }
        for what in went(&old, &new) {
            tracing::warn!(target: "pilotlight", "{what}");
        }
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

/// What the images and folders that were not there before were recognised as. Why one is not
/// recognised, a note tells.
fn came(old: &Config, new: &Config) -> Vec<String> {
    let known = |name: &str| old.folders.iter().any(|f| f.name == name);
    let of = |name: &str| {
        let profile = new.profile(name).filter(|p| p.menu)?;
        let release = profile.release.as_ref()?;
        let Source::Ours { folder, .. } = release.tree.as_ref()? else { return None };
        (folder == name)
            .then(|| format!("{name} has come, which is {}: the menu offers it", release.title))
    };
    new.folders.iter().filter(|f| !known(&f.name)).filter_map(|f| of(&f.name)).collect()
}

/// The profiles of images and folders that are no longer there: whoever is to boot one waits.
fn went(old: &Config, new: &Config) -> Vec<String> {
    let gone = |folder: &str| !new.folders.iter().any(|f| f.name == folder);
    let of = |profile: &Profile| {
        let Source::Ours { folder, .. } = profile.release.as_ref()?.tree.as_ref()? else {
            return None;
        };
        let name = &profile.name;
        (gone(folder) && new.profile(name).is_none()).then(|| {
            format!("{folder} is gone, and profile {name} with it: who is to boot that waits")
        })
    };
    old.profiles.iter().filter_map(of).collect()
}

/// Notices that a file of the configuration has changed, by looking: once a second at a handful of
/// files costs less than inotify does in a folder where a log grows, and sees what inotify does
/// not (network file systems, folders that come later, links that are turned round).
pub struct Files {
    main: Option<PathBuf>,
    /// The user's own installers: what they hold is a part of the configuration.
    more: Vec<PathBuf>,
    /// Folders of images, and images that are named: what they hold is one, too.
    images: Images,
    seen: Look,
    /// What the last look found, where that was new: an editor writes a file in several steps, and
    /// only what two looks find alike is a change.
    settling: Option<Look>,
    looks: Interval,
}

#[derive(Default)]
struct Images {
    folders: Vec<PathBuf>,
    named: Vec<PathBuf>,
}

/// Each file, with what tells one content from another without reading it.
type Look = BTreeMap<PathBuf, (u64, u64, SystemTime)>;

impl Files {
    /// To be called *before* the files are read, so that no change is missed.
    pub fn watch(main: Option<&Path>) -> Files {
        let mut looks = tokio::time::interval(LOOK);
        // A machine that slept has nothing to catch up with.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let seen = look(main, &[]);
        let (more, images) = (Vec::new(), Images::default());
        Files { main: main.map(Into::into), more, images, seen, settling: None, looks }
    }

    /// Looks at what `config` names from now on, too.
    pub fn also(&mut self, config: &Config) {
        let named = config.folders.iter().filter_map(|f| match &f.root {
            Root::Images(images) => Some(images),
            Root::Dir(_) => None,
        });
        self.more = config.own_installers.iter().cloned().collect();
        self.images =
            Images { folders: config.watched.clone(), named: named.flatten().cloned().collect() };
        self.seen.extend(look(None, &self.more));
        self.seen.extend(self.images.look(&self.seen, SystemTime::now()));
    }

    /// Looks once more: whether something has changed, come or gone, and settled.
    fn look(&mut self, at: SystemTime) -> bool {
        let mut now = look(self.main.as_deref(), &self.more);
        now.extend(self.images.look(&self.seen, at));
        let before = self.settling.take();
        if now == self.seen {
            return false;
        }
        let settled = before.as_ref() == Some(&now);
        match settled {
            true => self.seen = now,
            false => self.settling = Some(now),
        }
        settled
    }

    /// Returns when a file has changed, come or gone; never, where there is nothing to watch.
    /// Dropped and called again, it goes on where it was.
    pub async fn changed(&mut self) {
        if self.main.is_none() {
            std::future::pending::<()>().await;
        }
        loop {
            self.looks.tick().await;
            if self.look(SystemTime::now()) {
                return;
            }
        }
    }
}

/// The file and those of the folder of more beside it, and `others` with what is directly in them
/// and in their folders, as they are now; what cannot be read is not there, which is a change too.
fn look(main: Option<&Path>, others: &[PathBuf]) -> Look {
    let inside = |dir: PathBuf| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).take(FILES)
    };
    let beside = main.into_iter().flat_map(|main| inside(main.with_extension("d")));
    let beside = beside.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let below = others.iter().flat_map(|other| inside(other.clone()));
    let deeper = below.flat_map(|path| {
        let in_it = inside(path.clone());
        std::iter::once(path).chain(in_it)
    });
    main.into_iter()
        .map(Path::to_path_buf)
        .chain(beside)
        .chain(others.iter().cloned())
        .chain(deeper)
        .take(FILES)
        .filter_map(|path| {
            let is = seen(&path)?;
            Some((path, is))
        })
        .collect()
}

fn seen(path: &Path) -> Option<(u64, u64, SystemTime)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.ino(), about.len(), about.modified().ok()?))
}

impl Images {
    /// The images, and nothing else that is in their folders. One that is being written is as it was
    /// seen before, or not there yet.
    fn look(&self, before: &Look, now: SystemTime) -> Look {
        let mut found = Look::new();
        // Whether there is a folder at all, not when something was put into it.
        let folders = self.folders.iter().filter(|dir| dir.is_dir());
        found.extend(folders.map(|dir| (dir.clone(), (0, 0, SystemTime::UNIX_EPOCH))));
        let inside = |dir: &PathBuf| media::images(dir).unwrap_or_default().into_iter().take(FILES);
        for path in self.folders.iter().flat_map(inside).chain(self.named.iter().cloned()) {
            let Some(is) = seen(&path) else { continue };
            // It may have been written to since `now` was.
            let age = now.duration_since(is.2).unwrap_or_else(|ahead| ahead.duration());
            let grows = age < GROWS;
            match before.get(&path) {
                Some(was) if grows => drop(found.insert(path, *was)),
                None if grows => {}
                _ => drop(found.insert(path, is)),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Folder;

    #[test]
    fn of_a_folder_of_images_only_images_count_once_they_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images { folders: vec![dir.path().to_path_buf()], named: Vec::new() };
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let now = SystemTime::now();
        let later = now + 2 * GROWS;
        let empty = images.look(&Look::new(), now);
        put("SHA256SUMS", b"x");
        put(".a.iso.part", b"x");
        assert_eq!(images.look(&empty, later), empty, "no image");
        put("a.iso", b"half");
        assert_eq!(images.look(&empty, now), empty, "it grows");
        let half = images.look(&empty, later);
        assert_eq!(half.len(), 2, "nobody has written to it for a while");
        put("a.iso", b"whole image");
        assert_eq!(images.look(&half, now), half, "it grows again");
        let whole = images.look(&half, later);
        assert_ne!(whole, half);
        std::fs::remove_file(dir.path().join("a.iso")).unwrap();
        assert_eq!(images.look(&whole, now), empty, "it is gone, which counts at once");
    }

    #[tokio::test]
    async fn a_named_image_that_is_copied_is_one_change_once_it_rests() {
        let dir = tempfile::tempdir().unwrap();
        let (main, image) = (dir.path().join("pilotlight.toml"), dir.path().join("a.iso"));
        std::fs::write(&main, "").unwrap();
        let put = |bytes: usize| {
            std::fs::write(&image, vec![0; bytes]).unwrap();
            std::fs::metadata(&image).unwrap().modified().unwrap()
        };
        let written = put(1);
        let file = std::fs::File::options().write(true).open(&image).unwrap();
        file.set_modified(written - 3 * GROWS).unwrap();
        let mut files = Files::watch(Some(&main));
        let root = Root::Images(vec![image.clone()]);
        let folder = Folder { name: "a".into(), root, is: None };
        files.also(&Config { folders: vec![folder], ..Config::default() });
        let changes = |files: &mut Files, at| (0..5).filter(|_| files.look(at)).count();
        assert_eq!(changes(&mut files, written), 0, "nothing has happened");
        let mut last = written;
        for bytes in [2, 3] {
            last = put(bytes);
            assert_eq!(changes(&mut files, last), 0, "{bytes}: somebody writes to it");
        }
        assert_eq!(changes(&mut files, last + 3 * GROWS), 1, "it rests, and that is one change");
        std::fs::remove_file(&image).unwrap();
        assert_eq!(changes(&mut files, last), 1, "it is gone, which counts at once");
    }
}
