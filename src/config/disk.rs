//! The configuration's files on the disk: reading it, looking at what it names, and reading its
//! secrets when they are needed.
//!
//! All only read. What is there is judged by [`check_disk`] one thing after another, each with
//! the place that declared it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::file::{FILE_LIMIT, parse_with};
use super::report::{Errors, Finding, Note, Place, Source};
use super::{Config, Folder, Look, Root, catalog, installers};
use crate::model::{Hidden, Power, Secret, Why, profile};

/// Files of the folder beside the main one.
const FILES_LIMIT: usize = 1000;
/// Bytes of all the files together.
const TOTAL_LIMIT: usize = 64 << 20;
/// Bytes of a file of keys: all of Debian's have some hundred kilobytes.
const KEYRING_LIMIT: u64 = 4 << 20;

/// Bytes of a secret: a private key has some thousand.
const SECRET_LIMIT: u64 = 64 << 10;

/// Reads the configuration: `main`, then `*.toml` of the folder beside it, in the order of their
/// names: `pilotlight.d/` for `pilotlight.toml`. Without `main` it is the default one. `look` tells
/// what is in the media that it names.
///
/// # Errors
/// Files that cannot be read, or else everything that is wrong with what they say.
pub fn load(main: Option<&Path>, look: &dyn Look) -> Result<(Config, Vec<Note>), Errors> {
    let Some(main) = main else { return Ok((Config::default(), Vec::new())) };
    let mut errors = Errors::default();
    let mut files = Vec::new();
    let mut total = 0;
    for path in std::iter::once(main.to_path_buf()).chain(more(main, &mut errors)) {
        match read(&path) {
            Ok(text) => {
                total += text.len();
                files.push((path, text));
            }
            Err(found) => errors.push(*found),
        }
        if total > TOTAL_LIMIT {
            let message = format!("the files together have more than {} MiB", TOTAL_LIMIT >> 20);
            errors.push(Finding::new(Place::file(main), message, ""));
            break;
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let (mut config, mut notes) = parse_with(&files, look)?;
    find_keys(&mut config, &mut notes);
    Ok((config, notes))
}

/// Of a mirror from the catalogue only those keys stay that are on this machine, and where none is,
/// a note says what brings them.
fn find_keys(config: &mut Config, notes: &mut Vec<Note>) {
    for m in &mut config.mirrors {
        let Some(place) = config.places.0.get(&format!("catalog/{}", m.name)) else { continue };
        let Some(known) = catalog::mirror(&m.name).filter(|k| !k.keys.is_empty()) else { continue };
        m.keys.retain(|key| key.is_file());
        if m.keys.is_empty() {
            let message = format!(
                "no key of the mirror {} is on this machine: digests count from the mirror's own \
                 word on",
                m.name
            );
            // Another distribution's package need not exist here.
            let entry = catalog::entry_with(&m.name).map_or("NAME", |e| &e.name);
            let hint = format!(
                "the package {} brings them where there is one; else save the file with them, and \
                 declare a [[mirror]] of that name with keys = [\"FILE\"], as \
                 `pilotlight catalog {entry}` prints it",
                known.package
            );
            notes.push(Finding::new(place.clone(), message, hint));
        }
    }
}

fn more(main: &Path, errors: &mut Errors) -> Vec<PathBuf> {
    let folder = main.with_extension("d");
    let mut found = Vec::new();
    if folder == main {
        return found;
    }
    match fs::read_dir(&folder) {
        Ok(entries) => {
            let paths = entries.filter_map(|e| e.ok().map(|e| e.path()));
            found.extend(paths.filter(|p| is_ours(p)).take(FILES_LIMIT + 1));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            let message = format!("this folder cannot be read: {}", why(&e));
            errors.push(Finding::new(Place::file(&folder), message, hint_of(&e)));
        }
    }
    if found.len() > FILES_LIMIT {
        let message = format!("this folder holds more than {FILES_LIMIT} files");
        errors.push(Finding::new(Place::file(&folder), message, "put more into each of them"));
        found.clear();
    }
    found.sort();
    found
}

/// Editors leave hidden files beside the one they have open.
fn is_ours(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|e| e == "toml")
}

/// A file's text, at most [`FILE_LIMIT`] bytes of it.
fn read(path: &Path) -> Result<String, Box<Finding>> {
    let wrong = |place, message: String, hint: &str| Box::new(Finding::new(place, message, hint));
    let mut bytes = Vec::new();
    // One byte more than there may be tells that there is too much.
    let most = FILE_LIMIT as u64 + 1;
    open(path).and_then(|f| f.take(most).read_to_end(&mut bytes)).map_err(|e| {
        wrong(Place::file(path), format!("this file cannot be read: {}", why(&e)), hint_of(&e))
    })?;
    if bytes.len() > FILE_LIMIT {
        let message = format!("this file has more than {} MiB", FILE_LIMIT >> 20);
        return Err(wrong(Place::file(path), message, "split it"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(e.as_bytes());
        let place = Source::new(path, &text).place(good..good + 1);
        wrong(place, "this is not UTF-8".into(), "save the file as UTF-8")
    })
}

/// Opens a plain file. A pipe would block, a device could do anything.
fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(path)
}

/// The texts of the installers below a folder: `NAME/FILE`, where it is, and its text.
///
/// # Errors
/// A sentence: the folder or a file of it cannot be read.
pub fn read_installers(dir: &Path) -> Result<Vec<(String, PathBuf, String)>, String> {
    let below = |dir: &Path| {
        let wrong = |e: io::Error| format!("{} cannot be read: {}", dir.display(), why(&e));
        let all = fs::read_dir(dir).map_err(wrong)?.filter_map(Result::ok);
        let mut all: Vec<PathBuf> = all.map(|e| e.path()).take(FILES_LIMIT).collect();
        all.retain(|p| !p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")));
        all.sort();
        Ok::<_, String>(all)
    };
    let mut found = Vec::new();
    for folder in below(dir)?.into_iter().filter(|f| f.is_dir()) {
        for path in below(&folder)?.into_iter().filter(|f| f.is_file()).take(FILES_LIMIT) {
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            let text = read(&path)
                .map_err(|finding| format!("{}: {}", path.display(), finding.message))?;
            if text.len() > installers::TEXT_LIMIT {
                let most = installers::TEXT_LIMIT >> 10;
                return Err(format!("{} has more than {most} KiB", path.display()));
            }
            found.push((name, path, text));
        }
    }
    Ok(found)
}

/// Why there is no secret. None of it is shown.
#[derive(Debug, thiserror::Error)]
pub enum NoSecret {
    #[error("the secret in {} cannot be read: {}", .0.display(), why(.1))]
    Unreadable(PathBuf, io::Error),
    #[error(
        "the secret in {file} cannot be read by user {user}, as which this runs: `sudo chown {user} \
         {file}` gives it to that user, if it is the server's",
        file = .0.display(), user = .1
    )]
    Denied(PathBuf, String),
    #[error("the secret in {} has more than {} KiB", .0.display(), SECRET_LIMIT >> 10)]
    Large(PathBuf),
    #[error("the secret in {} is not UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("the secret in {} is empty", .0.display())]
    Empty(PathBuf),
    #[error("the variable {0} of the environment has a secret, and is not set")]
    Unset(String),
    #[error("the variable {0} of the environment has a secret, and is not UTF-8 or too large")]
    Strange(String),
}

impl Why for NoSecret {
    fn name(&self) -> &'static str {
        match self {
            NoSecret::Unreadable(..) | NoSecret::Denied(..) => "secret-unreadable",
            NoSecret::Large(_) => "secret-too-large",
            NoSecret::NotText(_) => "secret-not-text",
            NoSecret::Empty(_) => "secret-empty",
            NoSecret::Unset(_) => "secret-unset",
            NoSecret::Strange(_) => "secret-not-text",
        }
    }
}

impl NoSecret {
    /// Whether the server may well have it, which another process of another user cannot know.
    pub fn is_of_the_server(&self) -> bool {
        matches!(self, NoSecret::Unset(_) | NoSecret::Strange(_) | NoSecret::Denied(..))
    }

    fn hint(&self) -> &'static str {
        match self {
            NoSecret::Unreadable(_, e) => hint_of(e),
            NoSecret::Denied(..) => {
                "the installed service runs as user pilotlight, and `sudo pilotlight check` reads all"
            }
            NoSecret::Large(_) | NoSecret::NotText(_) => "a secret is a text",
            NoSecret::Empty(_) => "write it into the file",
            NoSecret::Unset(_) | NoSecret::Strange(_) => {
                "the server's environment counts, which EnvironmentFile= of its unit can set"
            }
        }
    }
}

/// A secret as it is now: of a file what it holds, without the line break at its end.
///
/// # Errors
/// It is not there, empty, no text, or larger than 64 KiB.
pub fn reveal(secret: &Secret) -> Result<Hidden, NoSecret> {
    match secret {
        Secret::Literal(hidden) => Ok(hidden.clone()),
        Secret::File(path) => reveal_file(path),
        Secret::Env(name) => match std::env::var_os(name).filter(|v| !v.is_empty()) {
            None => Err(NoSecret::Unset(name.clone())),
            Some(value) => {
                let text = value.into_string().ok().filter(|t| t.len() as u64 <= SECRET_LIMIT);
                text.map(Hidden::new).ok_or_else(|| NoSecret::Strange(name.clone()))
            }
        },
    }
}

fn reveal_file(path: &Path) -> Result<Hidden, NoSecret> {
    let mut bytes = Vec::new();
    let read = open(path).and_then(|f| f.take(SECRET_LIMIT + 1).read_to_end(&mut bytes));
    read.map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => NoSecret::Denied(path.into(), us()),
        _ => NoSecret::Unreadable(path.into(), e),
    })?;
    if bytes.len() as u64 > SECRET_LIMIT {
        return Err(NoSecret::Large(path.into()));
    }
    // What is not UTF-8 would be shown by the error that tells so.
    let text = String::from_utf8(bytes).map_err(|_| NoSecret::NotText(path.into()))?;
    let text = text.strip_suffix('\n').map_or(&*text, |t| t.strip_suffix('\r').unwrap_or(t));
    if text.is_empty() { Err(NoSecret::Empty(path.into())) } else { Ok(Hidden::new(text)) }
}

/// The user that this process runs as; one without a name by its number.
fn us() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// All the secrets that the configuration names, by the key that [`Config::place`] knows them by.
fn secrets(config: &Config) -> impl Iterator<Item = (String, &Secret)> {
    let profiles = config.profiles.iter().flat_map(|p| {
        p.secrets.iter().map(|(name, s)| (format!("profile/{}/secret/{name}", p.name), s))
    });
    let machines = config.machines.iter().flat_map(|m| {
        let password = match &m.power {
            Power::Redfish { password, .. } => password.as_ref(),
            Power::WakeOnLan | Power::Command(_) => None,
        };
        let own =
            m.secrets.iter().map(|(name, s)| (format!("machine/{}/secret/{name}", m.name), s));
        own.chain(password.map(|s| (format!("machine/{}/password", m.name), s)))
    });
    let hooks = config.webhooks.iter().enumerate();
    let hooks =
        hooks.filter_map(|(n, h)| Some((format!("webhook/{n}/secret"), h.secret.as_ref()?)));
    profiles.chain(machines).chain(hooks)
}

/// Files with secrets in them that everybody on this machine can read: those that are named, and
/// those of the configuration itself that have some written in them. Each is told of once.
pub fn open_secrets(config: &Config) -> Vec<Note> {
    let mut seen = BTreeSet::new();
    let mut notes = Vec::new();
    for (key, secret) in secrets(config) {
        let place = config.place(&key);
        let file = match secret {
            Secret::File(path) => path.as_path(),
            Secret::Literal(_) => &place.file,
            Secret::Env(_) => continue,
        };
        let mode = fs::metadata(file).map_or(0, |m| m.permissions().mode() & 0o777);
        if mode & 0o004 != 0 && seen.insert(file.to_path_buf()) {
            let file = file.display();
            let message =
                format!("{file} holds a secret, and all can read it: its mode is {mode:o}");
            notes.push(Finding::new(place.clone(), message, format!("chmod o-r {file}")));
        }
    }
    notes
}

fn why(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => e.to_string(),
    }
}

fn hint_of(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::NotFound => "a relative path is beside the file that names it",
        io::ErrorKind::PermissionDenied => "pilotlight's user must be able to read it",
        _ => "",
    }
}

/// Whether this begins as OpenPGP public keys do: armored (RFC 9580 section 6.2), or with the
/// header of a packet of type 6 (section 4.2) in its old form or its new one.
fn is_keyring(bytes: &[u8]) -> bool {
    const ARMOR: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    matches!(bytes.first(), Some(0x98..=0x9b | 0xc6))
        || bytes.windows(ARMOR.len()).any(|w| w == ARMOR)
}

/// Looks at everything on the disk that the configuration names: folders, kernels and initrds in
/// them, answer templates, certificates, keys of mirrors, secrets. Loaders are not looked for here, since most are embedded;
/// templates are not read, since only rendering tells.
///
/// # Errors
/// All that is missing, unreadable, no file, or outside its folder.
pub fn check_disk(config: &Config) -> Result<(), Errors> {
    let mut look = Judge { config, errors: Errors::default() };
    if let Some(dir) = &config.tftp.dir {
        look.folder("tftp", dir);
    }
    if let Some(dir) = &config.ipxe.dir {
        look.folder("ipxe", dir);
    }
    if let Some(own) = &config.tls.own {
        look.file("certificate", &own.chain);
        look.key("key", &own.key);
        if let Some(root) = &own.root {
            look.file("root", root);
        }
    }
    let mut folders: Vec<(&Folder, PathBuf)> = Vec::new();
    for f in &config.folders {
        let key = format!("files/{}", f.name);
        match &f.root {
            Root::Dir(dir) => folders.extend(look.folder(&key, dir).map(|real| (f, real))),
            Root::Images(paths) => paths.iter().for_each(|path| drop(look.file(&key, path))),
        }
    }
    for m in &config.mirrors {
        for (n, key) in m.keys.iter().enumerate() {
            look.keyring(&format!("mirror/{}/key/{n}", m.name), key);
        }
    }
    if let Some(dir) = config.cache.dir.as_ref().filter(|dir| dir.exists()) {
        look.folder("cache", dir);
    }
    for p in &config.profiles {
        if let Some(why) = &p.unready {
            let message = format!("profile {} cannot be booted: {why}", p.name);
            look.err(&format!("profile/{}/install", p.name), message, "");
        }
        let key = |what: &str| format!("profile/{}/{what}", p.name);
        for boot in p.boots() {
            let initrds = boot.initrds.iter().map(|i| &i.source).enumerate();
            let initrds = initrds.map(|(n, s)| (key(&format!("initrd/{n}")), s));
            for (key, source) in
                boot.kernel().map(|s| (key("kernel"), s)).into_iter().chain(initrds)
            {
                look.source(&key, source, &folders);
            }
        }
        for a in &p.answers {
            if let profile::Template::File(path) = &a.template {
                look.file(&key(&format!("answer/{}", a.name)), path);
            }
        }
    }
    for (key, secret) in secrets(config) {
        if let Err(no) = reveal(secret) {
            look.err(&key, no.to_string(), no.hint());
        }
    }
    if look.errors.is_empty() { Ok(()) } else { Err(look.errors) }
}

struct Judge<'a> {
    config: &'a Config,
    errors: Errors,
}

impl Judge<'_> {
    fn err(&mut self, key: &str, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.errors.push(Finding::new(self.config.place(key), message, hint));
    }

    fn unreadable(&mut self, key: &str, path: &Path, e: &io::Error) {
        let message = format!("{} cannot be read: {}", path.display(), why(e));
        self.err(key, message, hint_of(e));
    }

    /// The folder's real path, without symbolic links.
    fn folder(&mut self, key: &str, dir: &Path) -> Option<PathBuf> {
        match fs::read_dir(dir).and_then(|_| dir.canonicalize()) {
            Ok(real) => Some(real),
            Err(e) => {
                self.unreadable(key, dir, &e);
                None
            }
        }
    }

    fn file(&mut self, key: &str, path: &Path) -> Option<File> {
        match open(path) {
            Ok(file) => Some(file),
            Err(e) => {
                self.unreadable(key, path, &e);
                None
            }
        }
    }

    fn key(&mut self, key: &str, path: &Path) {
        let Some(file) = self.file(key, path) else { return };
        match file.metadata() {
            Ok(m) if m.permissions().mode() & 0o077 != 0 => {
                let mode = m.permissions().mode() & 0o777;
                let message = format!(
                    "the key {} can be read by others: its mode is {mode:o}",
                    path.display()
                );
                self.err(key, message, format!("chmod 600 {}", path.display()));
            }
            Ok(_) => {}
            Err(e) => self.unreadable(key, path, &e),
        }
    }

    /// A file of public keys, as far as its first bytes tell.
    fn keyring(&mut self, key: &str, path: &Path) {
        let Some(file) = self.file(key, path) else { return };
        let mut bytes = Vec::new();
        match file.take(KEYRING_LIMIT + 1).read_to_end(&mut bytes) {
            Err(e) => self.unreadable(key, path, &e),
            Ok(_) if bytes.len() as u64 > KEYRING_LIMIT => {
                let message =
                    format!("{} has more than {} MiB", path.display(), KEYRING_LIMIT >> 20);
                self.err(key, message, "name files that hold the keys of this mirror only");
            }
            Ok(_) if !is_keyring(&bytes) => {
                let message = format!("{} holds no OpenPGP public key", path.display());
                self.err(key, message, "`gpg --export KEY >FILE` writes one");
            }
            Ok(_) => {}
        }
    }

    /// A kernel or an initrd of ours. Of a folder that is not there, only the folder is told.
    fn source(&mut self, key: &str, source: &profile::Source, folders: &[(&Folder, PathBuf)]) {
        let profile::Source::Ours { folder, path } = source else { return };
        let Some((_, real)) = folders.iter().find(|(f, _)| f.name == *folder) else { return };
        let file = real.join(path);
        match file.canonicalize() {
            Ok(f) if !f.starts_with(real) => {
                let message =
                    format!("{folder}/{path} leads out of its folder, to {}", f.display());
                self.err(key, message, "a symbolic link must stay inside the folder");
            }
            Ok(f) => {
                let empty = self.file(key, &f).and_then(|f| f.metadata().ok());
                if empty.is_some_and(|m| m.len() == 0) {
                    self.err(key, format!("{} is empty", f.display()), "");
                }
            }
            Err(e) => self.unreadable(key, &file, &e),
        }
    }
}
