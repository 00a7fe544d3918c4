//! `pilotlight cache`: what is kept of public mirrors, looked at and looked after.
//!
//! All but `fetch` work on the folder itself, beside a running server or without one; who changes
//! something tells the server to count again.

mod clear;
mod fetch;
mod list;
mod pin;
mod verify;

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use nix::unistd::{Uid, User};
use serde_json::Value;

use super::{ConfigFile, ask};
use crate::app;
use crate::config::Config;
use crate::mirror::disk::{Disk, Listed, Place, Trouble};
use crate::mirror::learn::Asked;
use crate::mirror::serve::order;
use crate::mirror::{MirrorPath, digest};
use crate::model::event::plain;
use crate::model::{Profile, Why};
use crate::store;

/// Characters of a name that is shown whole.
const NAME: usize = 1200;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight cache list --config pilotlight.toml
  pilotlight cache fetch debian-12 --config pilotlight.toml
  pilotlight cache pin --profile debian-12 --config pilotlight.toml
  pilotlight cache verify --config pilotlight.toml
  pilotlight cache clear debian/dists/bookworm --config pilotlight.toml

Each of them has its own --help. All work beside a running server, or without
one. The folder is [cache] dir, or `cache` in the state directory; it belongs to
the user that the server runs as, so that `sudo` is needed.")]
pub struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show what is kept
    List(list::List),
    /// Read all of it, and set aside what is not what it should be
    Verify(verify::Verify),
    /// Keep files whatever else has to go
    Pin(pin::Pin),
    /// Let pinned files go again when room is needed
    Unpin(pin::Pin),
    /// Fetch what a profile needs before a machine asks for it
    Fetch(fetch::Fetch),
    /// Remove files
    Clear(clear::Clear),
}

/// Which cache.
#[derive(clap::Args)]
struct Whose {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the server keeps its state [default: /var/lib/pilotlight]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub fn run(cache: &Cache) -> anyhow::Result<ExitCode> {
    match &cache.command {
        Command::List(list) => list::run(list),
        Command::Verify(verify) => verify::run(verify),
        Command::Pin(pin) => pin::run(pin, true),
        Command::Unpin(pin) => pin::run(pin, false),
        Command::Fetch(fetch) => fetch::run(fetch),
        Command::Clear(clear) => clear::run(clear),
    }
}

impl Whose {
    fn config(&self) -> anyhow::Result<Config> {
        super::remind(self.file.config.as_deref());
        app::configuration(&app::Options {
            config: self.file.config.clone(),
            state_dir: self.state_dir.clone(),
            ..app::Options::default()
        })
    }
}

/// All that lies in the folder.
struct Shelf {
    disk: Disk,
    /// By name.
    files: Vec<Listed>,
    /// What could not be looked at, or has just been set aside.
    troubles: Vec<Trouble>,
}

impl Shelf {
    /// `None`: there is no folder, and none is made just because somebody looks.
    fn open(config: &Config) -> anyhow::Result<Option<Shelf>> {
        let dir = config.cache_dir();
        let unread = |source| denied(Trouble::Io { what: "read", path: dir.clone(), source });
        match dir.try_exists() {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(source) => return Err(unread(source)),
        }
        // What is missing in it is made; whoever only looks is not told of that.
        let disk = Disk::open(&dir).map_err(|trouble| match trouble {
            Trouble::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                unread(source)
            }
            other => other.into(),
        })?;
        let (mut files, mut troubles) = (Vec::new(), Vec::new());
        disk.each(|found| match found {
            Ok(listed) => files.push(listed),
            Err(trouble) => troubles.push(trouble),
        });
        if let (true, Some(at)) = (files.is_empty(), troubles.iter().position(is_denied)) {
            return Err(denied(troubles.swap_remove(at)));
        }
        files.sort_by_cached_key(|l| (l.about.is_none(), name(l), l.place as u8));
        Ok(Some(Shelf { disk, files, troubles }))
    }
}

fn is_denied(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// With what helps where the folder is another user's.
fn denied(trouble: Trouble) -> anyhow::Error {
    match &trouble {
        Trouble::Io { path, source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            anyhow!("{trouble}; {}", helps(path, nix::unistd::geteuid()))
        }
        _ => trouble.into(),
    }
}

/// Whose `path` is, or the nearest folder above it that can be looked at.
fn helps(path: &Path, us: Uid) -> String {
    let owner = path.ancestors().find_map(|p| std::fs::symlink_metadata(p).ok());
    match owner.map(|meta| Uid::from_raw(meta.uid())).filter(|owner| *owner != us) {
        Some(owner) => {
            let known = User::from_uid(owner).ok().flatten().map(|user| user.name);
            let name = known.unwrap_or_else(|| owner.to_string());
            format!("it belongs to the user {name}: `sudo` is needed")
        }
        None => "`sudo` may".into(),
    }
}

/// `MIRROR/PATH`, or the file's own name where it says nothing readable of itself.
fn name(listed: &Listed) -> String {
    match &listed.about {
        Some(about) => plain(&format!("{}/{}", about.mirror, about.path), NAME),
        None => {
            let own = listed.path.file_name().map(|n| n.to_string_lossy().into_owned());
            let own = own.unwrap_or_default();
            plain(&format!("({:.16}…)", own), NAME)
        }
    }
}

/// `name` in `width` characters: what tells files apart is at both its ends, and more so at the last.
fn shorten(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        return name.into();
    }
    let first = width.saturating_sub(1) / 3;
    let last = width.saturating_sub(1) - first;
    let head: String = name.chars().take(first).collect();
    let tail: String = name.chars().skip(length - last).collect();
    format!("{head}…{tail}")
}

/// A file as the user names it.
fn asked(text: &str) -> Result<Asked, String> {
    let wrong = || format!("{text:?} is no MIRROR/PATH, as `pilotlight cache list` shows them");
    let (mirror, path) = text.split_once('/').filter(|(m, _)| !m.is_empty()).ok_or_else(wrong)?;
    let path = MirrorPath::plain(path).map_err(|why| format!("{text:?}: {why}"))?;
    Ok((mirror.into(), path.to_string()))
}

fn profile<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a Profile> {
    let Some(profile) = config.profile(name) else {
        let all: Vec<&str> = config.profiles.iter().map(|p| p.name.as_str()).collect();
        match all.as_slice() {
            [] => bail!("the configuration has no profile; --config names another one"),
            all => bail!("there is no profile {name:?}; there are {}", all.join(", ")),
        }
    };
    Ok(profile)
}

/// The store of the state directory; `None`: a running server has it.
pub(super) fn store(config: &Config) -> anyhow::Result<Option<Box<dyn store::Store>>> {
    const HINT: &str =
        "the state directory cannot be used (`sudo` may, or --state-dir names another)";
    let dir = &config.state_dir;
    std::fs::create_dir_all(dir).with_context(|| format!("{HINT}: {}", dir.display()))?;
    match store::open(dir) {
        Ok(store) => {
            give(dir).with_context(|| format!("{HINT}: {}", dir.display()))?;
            Ok(Some(store))
        }
        Err(store::Error::InUse { .. }) => Ok(None),
        Err(e) => Err(e).context(HINT),
    }
}

/// What root has made in a folder of another user's belongs to that user: the service is not root,
/// and could not open it.
fn give(dir: &Path) -> std::io::Result<()> {
    let owner = std::fs::metadata(dir)?;
    if owner.uid() == 0 || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() && meta.uid() == 0 && meta.nlink() == 1 {
            lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

/// The admin door of a server with this configuration.
fn door(config: &Config, named: Option<&str>) -> anyhow::Result<String> {
    let declared = config.http.admin.map(|at| at.to_string());
    named.map(String::from).or(declared).context(
        "a server has this cache open, and its configuration turns [http] admin off: let it have \
         one, or stop the server first",
    )
}

/// Why the server that has the cache open does not answer: one runs, so starting another is no help.
fn silent(server: &str, why: anyhow::Error) -> anyhow::Error {
    match why.is::<ureq::Error>() {
        true => anyhow!(
            "a server has this cache open, and does not answer at {server}: it is just starting, \
             so try again in a moment; or it runs with another [http] admin, or with \"off\": \
             then stop it first"
        ),
        false => why.context("a server has this cache open, and is to do it"),
    }
}

/// What a profile is made of, by the server that runs, or else by what it left in its store.
fn files_of(config: &Config, profile: &Profile) -> anyhow::Result<Vec<Asked>> {
    if !config.state_dir.exists() {
        return Ok(order::wanted(profile, &[]));
    }
    match store(config)? {
        Some(store) => Ok(order::wanted(profile, &order::learned(&*store, &profile.name)?)),
        None => {
            let path = format!("/api/v1/cache/profile/{}", profile.name);
            let server = door(config, None)?;
            let names = ask::get(&server, &path).map_err(|why| silent(&server, why))?;
            let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
            Ok(names.filter_map(|n| asked(n).ok()).collect())
        }
    }
}

/// Files of the cache that this name stands for: those of the name, and where it tells the digest
/// (a pin of the configuration, or a path by its hash) the one with these bytes.
fn held<'a>(shelf: &'a Shelf, config: &Config, file: &Asked) -> Vec<&'a Listed> {
    let (mirror, path) = file;
    let last = path.rsplit('/').next().unwrap_or_default();
    let pin = config.mirror(mirror).and_then(|m| m.pins.get(path)).copied();
    let digest = pin.or_else(|| digest::Digest::from_hex(last).ok());
    let is = |l: &&Listed| {
        l.place == Place::Complete
            && l.about.as_ref().is_some_and(|about| {
                (about.mirror == *mirror && about.path == *path)
                    || digest.is_some() && about.digest == digest
            })
    };
    shelf.files.iter().filter(is).collect()
}

/// A server that runs counts anew; where none does there is nobody to be told.
fn told(config: &Config) {
    if let Some(at) = config.http.admin {
        let _ = ask::post(&at.to_string(), "/api/v1/cache/recount", &Value::Null);
    }
}

/// What was set aside, by the word in its name.
fn reason(word: &str) -> String {
    use crate::mirror::record::Damage::*;
    let all = [Strange, Version, Torn, Misnamed, Incomplete, Short, Long, Stray, Digest];
    let found = all.into_iter().find(|damage| damage.name() == word);
    found.map_or_else(|| "somebody else put it there".into(), |damage| damage.to_string())
}

/// A trouble for programs.
fn json_of(trouble: &Trouble) -> Value {
    serde_json::json!({ "name": trouble.name(), "text": trouble.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_both_ends() {
        assert_eq!(shorten("debian/linux", 12), "debian/linux");
        assert_eq!(shorten("debian/dists/bookworm/linux", 14), "debi…orm/linux");
        assert_eq!(shorten("äöüäöü", 4), "ä…öü");
    }

    #[test]
    fn a_file_is_named_by_mirror_and_path() {
        assert_eq!(asked("debian/a//b"), Ok(("debian".into(), "a/b".into())));
        for bad in ["debian", "/a", "debian/", "debian/../x", ""] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whoever_is_refused_hears_whose_it_is() {
        let denied = |path: &str| {
            let source = ErrorKind::PermissionDenied.into();
            denied(Trouble::Io { what: "read", path: path.into(), source }).to_string()
        };
        assert!(denied("/nowhere/cache").starts_with("cannot read /nowhere/cache: permission"));
        let nobody = Uid::from_raw(54_321);
        let said = helps(Path::new("/nowhere/cache"), nobody);
        assert_eq!(said, "it belongs to the user root: `sudo` is needed");
        assert_eq!(helps(Path::new("/"), Uid::from_raw(0)), "`sudo` may");
    }

    #[test]
    fn each_word_of_a_file_set_aside_has_its_sentence() {
        assert_eq!(reason("digest"), "its bytes are not those of its digest");
        assert_eq!(reason("x"), "somebody else put it there");
    }
}
