//! Everything that can be wrong with a configuration and with what it names. Only reads.
//!
//! 1. The files themselves; if they cannot be understood, nothing else is said.
//! 2. What they name on the disk: folders, kernels, initrds, templates, certificates, secrets.
//! 3. Templates, rendered as each machine would be sent them, without its secrets.
//! 4. Loaders, and what certificates, keys and mirrors' keyrings hold.
//! 5. This machine's interfaces: notes, since a configuration may be meant for another machine.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use crate::boot::render::{Fault, check_templates};
use crate::config::{self, Config, Errors, Finding, Mode, Note, Place, Unknown};
use crate::media::Library;
use crate::mirror::verify::Trust;
use crate::model::event::size;
use crate::model::firmware::TABLE;
use crate::model::profile::Kind;
use crate::model::{Machine, Profile};
use crate::{boot, ipxe, tls};

/// What `serve` gives the templates of one machine; it then tells the machine that they are at
/// fault.
pub const RENDER_TIME: Duration = Duration::from_secs(2);
/// What `check` gives all the machines of one profile together, at most.
const RENDER_TIME_OF_ALL: Duration = Duration::from_secs(60);

/// What was found.
pub struct Checked {
    /// `None` where the files could not be understood.
    pub config: Option<Arc<Config>>,
    pub notes: Vec<Note>,
    pub errors: Errors,
}

/// Reads the whole configuration and everything that it names.
pub fn check(file: Option<&Path>) -> Checked {
    let (config, notes) = match config::load(file, &Library::default()) {
        Ok((config, notes)) => (Arc::new(config), notes),
        Err(errors) => return Checked { config: None, notes: Vec::new(), errors },
    };
    let errors = config::check_disk(&config).err().unwrap_or_default();
    let mut look = Look { config: config.clone(), notes, errors: Errors::default(), seen: errors };
    look.templates();
    look.hashes();
    look.words();
    look.loaders();
    look.certificates();
    look.keys();
    look.interfaces();
    look.notes.extend(silent(&config));
    look.installers();
    look.notes.extend(untrusting(&config));
    look.notes.extend(config::open_secrets(&config));
    let Look { notes, errors, seen: mut all, .. } = look;
    for error in errors.errors {
        // A template of two profiles has its fault once.
        let same = |e: &Finding| e.place == error.place && e.message == error.message;
        if !all.errors.iter().any(same) {
            all.push(error);
        }
    }
    all.more += errors.more;
    Checked { config: Some(config), notes, errors: all }
}

/// What would be served, in three lines, or four with mirrors. Each begins with eight characters
/// that say what of.
pub fn served(config: &Config) -> Vec<String> {
    let dhcp = match config.dhcp.mode {
        Mode::Full => {
            let ranges = config.dhcp.subnets.iter().flat_map(|s| &s.ranges);
            let free: u64 =
                ranges.map(|r| u64::from(r.end().to_bits() - r.start().to_bits()) + 1).sum();
            format!(
                "full: {} to give in {}, {} reserved",
                count(free, "address"),
                count(config.dhcp.subnets.len() as u64, "subnet"),
                config.machines.iter().filter(|m| m.address.is_some()).count()
            )
        }
        mode => super::mode(mode).to_string(),
    };
    let by = match config.tls.enabled {
        true => format!("HTTPS, port {}", config.http.https_port),
        false => format!("HTTP, port {}", config.http.port),
    };
    let mut lines = vec![
        format!("DHCP    {dhcp}"),
        format!(
            "boots   {} into {} by {by}{}",
            count(config.machines.len() as u64, "machine"),
            count(config.profiles.len() as u64, "profile"),
            in_the_clear(config),
        ),
        format!("others  {}", others(config)),
    ];
    if !config.mirrors.is_empty() {
        let names: Vec<&str> = config.mirrors.iter().map(|m| m.name.as_str()).collect();
        lines.push(format!(
            "mirrors {}; cache {}, up to {}{}",
            names.join(", "),
            config.cache_dir().display(),
            size(config.cache.limit).replace(".0 ", " "),
            if config.cache.offline { "; offline" } else { "" }
        ));
    }
    lines
}

/// Whose answers everybody on the network can read though TLS is on.
fn in_the_clear(config: &Config) -> String {
    const NAMED: usize = 3;
    let plain = |p: &&Profile| config.tls.enabled && p.plain_answers && !p.answers.is_empty();
    let names: Vec<&str> = config.profiles.iter().filter(plain).map(|p| p.name.as_str()).collect();
    let (named, more) = names.split_at(names.len().min(NAMED));
    match (named.join(", "), more.len()) {
        (_, 0) if named.is_empty() => String::new(),
        (named, 0) => format!("; answers of {named} by HTTP"),
        (named, n) => format!("; answers of {named} and {n} more by HTTP"),
    }
}

/// What machines get that match nothing.
pub fn others(config: &Config) -> String {
    match &config.life.unknown {
        Unknown::Menu => format!(
            "a menu of {}, and their local disk after {}",
            count(boot::decide::offered(config).count() as u64, "profile"),
            humantime::format_duration(config.menu.timeout)
        ),
        Unknown::Ignore => "no answer at all".into(),
        Unknown::Discover => "a page of their facts, until somebody assigns them".into(),
        Unknown::Install(profile) => format!("profile {profile}, installed unasked"),
    }
}

/// `1 profile`, `2 profiles`, `no profiles`.
pub fn count(n: u64, what: &str) -> String {
    let plural = if what.ends_with("ss") { "es" } else { "s" };
    match n {
        0 => format!("no {what}{plural}"),
        1 => format!("1 {what}"),
        n => format!("{n} {what}{plural}"),
    }
}

/// `$6$SALT$HASH` and its like (crypt(5)).
fn is_hash(text: &str) -> bool {
    text.starts_with('$')
        && text.matches('$').count() >= 3
        && text.chars().all(|c| c.is_ascii_graphic() && c != ':')
}

/// What `work` gives, unless it takes longer than `limit`. A template can loop for as long as it
/// likes; the thread that is then left behind ends with the process.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = mpsc::channel();
    // Nobody waits for it any more: nothing to tell.
    let work = move || drop(tell.send(work()));
    std::thread::Builder::new().spawn(work).ok()?;
    told.recv_timeout(limit).ok()
}

/// Profiles that install and report nothing: their machines are wiped at each start, until they are
/// held. Of a medium that asks on its screen no answer can; a person says it, where a machine is
/// declared with it. A text that cannot be read is another's to tell.
pub fn silent(config: &Config) -> Vec<Note> {
    let asks = |p: &Profile| p.release.as_ref().is_some_and(|r| !r.unattended);
    let own = |p: &Profile| p.answers.iter().any(|a| !a.template.is_builtin());
    let declared =
        |p: &Profile| config.machines.iter().any(|m| m.profile.as_ref() == Some(&p.name));
    let installs = |p: &&Profile| p.kind == Kind::Install && (own(p) || asks(p) && declared(p));
    let says = |text: &str| text.contains("report");
    let silent = |p: &&Profile| {
        let by_args = p.boots().any(|boot| says(&boot.args));
        let texts = boot::render::templates(p);
        !by_args && texts.is_ok_and(|texts| !texts.iter().any(|text| says(text)))
    };
    let note = |p: &Profile| {
        let place = config.place(&format!("profile/{}", p.name));
        if !own(p) {
            let name = &p.name;
            return Finding::new(
                place,
                format!(
                    "profile {name} asks on the screen and does not report: its installer starts again"
                ),
                "after it, `pilotlight machine local NAME`",
            );
        }
        Finding::new(
            place,
            format!(
                "no answer of profile {} reports: a machine installs again until it is held",
                p.name
            ),
            "end it with curl -fsS {{ report }}/done",
        )
    };
    config.profiles.iter().filter(installs).filter(silent).map(note).collect()
}

/// Profiles of the user's own whose system would fetch answers by HTTPS, under a root of which nobody
/// but iPXE is told.
fn untrusting(config: &Config) -> Vec<Note> {
    let note = |p: &Profile| {
        let fetched = p.answers.iter().filter(|a| a.carried.is_none());
        let names: Vec<&str> = fetched.map(|a| a.name.as_str()).collect();
        if names.is_empty() || p.release.is_some() || p.plain_answers || p.unready.is_some() {
            return None;
        }
        let them = names.join(", ");
        let places: Vec<String> = names.iter().map(|n| format!("{n:?} = \"/{n}\"")).collect();
        Some(Finding::new(
            config.place(&format!("profile/{}", p.name)),
            format!(
                "profile {}: its installer fetches {them} by HTTPS and must know our CA",
                p.name
            ),
            format!(
                "carried = {{ {} }} lets iPXE put it into the initrd; plain-answers = true sends it \
                 by HTTP",
                places.join(", ")
            ),
        ))
    };
    let root = config.tls.has_root();
    config.profiles.iter().filter(|_| root).filter_map(note).collect()
}

struct Look {
    config: Arc<Config>,
    notes: Vec<Note>,
    errors: Errors,
    /// What the disk's check has said already.
    seen: Errors,
}

impl Look {
    fn err(&mut self, place: Place, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.errors.push(Finding::new(place, message, hint));
    }

    fn note(&mut self, place: Place, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.notes.push(Finding::new(place, message, hint));
    }

    /// What the installers want to be known before a machine is started.
    fn installers(&mut self) {
        let config = self.config.clone();
        for profile in &config.profiles {
            let note = profile.release.as_ref().map_or("", |r| &r.note);
            if !note.is_empty() {
                let place = config.place(&format!("profile/{}", profile.name));
                self.note(place, format!("profile {}: {note}", profile.name), "");
            }
        }
    }

    /// Machines that are told by what whoever asks says of itself, and get answers for that.
    fn words(&mut self) {
        let config = self.config.clone();
        let answers = |m: &&Machine| {
            let profile = m.profile.as_deref().and_then(|name| config.profile(name));
            profile.is_some_and(|p| !p.answers.is_empty())
        };
        for machine in config.machines.iter().filter(|m| m.is_by_word()).filter(answers) {
            let name = &machine.name;
            self.note(
                config.place(&format!("machine/{name}")),
                format!("whoever says the same serial or vendor as {name} gets its answers"),
                "add `mac`, which DHCP shows too",
            );
        }
    }

    fn is_told(&self, key: &str) -> bool {
        let place = self.config.place(key);
        self.seen.errors.iter().any(|e| e.place == place)
    }

    /// What may sign for the mirrors; a file that cannot be read has been told of.
    fn keys(&mut self) {
        let config = self.config.clone();
        for mirror in &config.mirrors {
            for (n, path) in mirror.keys.iter().enumerate() {
                let key = format!("mirror/{}/key/{n}", mirror.name);
                let Ok(bytes) = std::fs::read(path) else { continue };
                if let Err(bad) = Trust::read(&[(path.clone(), bytes)])
                    && !self.is_told(&key)
                {
                    let hint = "the distribution's keyring package has the right file";
                    self.err(config.place(&key), bad.to_string(), hint);
                }
            }
        }
    }

    fn templates(&mut self) {
        let config = self.config.clone();
        for (n, profile) in config.profiles.iter().enumerate() {
            let answer = |a: &crate::model::profile::Answer| {
                self.is_told(&format!("profile/{}/answer/{}", profile.name, a.name))
            };
            if profile.answers.iter().any(answer) {
                continue;
            }
            let of_it = |m: &&Machine| m.profile.as_ref() == Some(&profile.name);
            let machines = u32::try_from(config.machines.iter().filter(of_it).count());
            let limit = RENDER_TIME
                .saturating_mul(machines.unwrap_or(u32::MAX).saturating_add(1))
                .min(RENDER_TIME_OF_ALL);
            let theirs = config.clone();
            match within(limit, move || check_templates(&theirs, &theirs.profiles[n])) {
                Some(faults) => faults.into_iter().for_each(|f| self.fault(profile, f)),
                None => self.err(
                    config.place(&format!("profile/{}", profile.name)),
                    format!("the templates of this profile take more than {} s", limit.as_secs()),
                    "a loop in one of them does not end",
                ),
            }
        }
    }

    /// The templates that are built in put these where a hash must be, and with anything else there
    /// nobody could log in.
    fn hashes(&mut self) {
        const HASHES: [&str; 2] = ["root_password", "user_password"];
        let config = self.config.clone();
        let builtin = |p: &&Profile| p.answers.iter().any(|a| a.template.is_builtin());
        for profile in config.profiles.iter().filter(builtin) {
            let of_it = |m: &&Machine| m.profile.as_ref() == Some(&profile.name);
            let machines = config.machines.iter().filter(of_it);
            let machines = machines.map(|m| (format!("machine/{}", m.name), &m.secrets));
            let own = (format!("profile/{}", profile.name), &profile.secrets);
            for (owner, secrets) in std::iter::once(own).chain(machines) {
                for name in HASHES {
                    let text = secrets.get(name).and_then(|s| config::reveal(s).ok());
                    if text.is_some_and(|t| !is_hash(t.reveal())) {
                        self.err(
                            config.place(&format!("{owner}/secret/{name}")),
                            format!("the secret {name} is no hash of crypt(3)"),
                            "`pilotlight hash-password` makes one; the answers that are built in \
                             take no other",
                        );
                    }
                }
            }
        }
    }

    fn fault(&mut self, profile: &Profile, Fault { error, machine }: Fault) {
        let name = &profile.name;
        let place = match error.part.as_deref() {
            Some("") => self.config.place(&format!("profile/{name}")),
            Some(part) => self.config.place(&format!("profile/{name}/{part}")),
            None => {
                let file = Path::new(&error.file);
                // What cannot be read again has no picture.
                let text = boot::disk::read_template(file).unwrap_or_default();
                Place::at(file, &text, error.line, error.column, error.width)
            }
        };
        let hint = match machine {
            Some(machine) => format!("as machine {machine} would be sent it, by profile {name}"),
            None => format!("as whoever chooses profile {name} would be sent it"),
        };
        self.err(place, error.message, hint);
    }

    fn loaders(&mut self) {
        let config = self.config.clone();
        let by_arch = config.ipxe.loaders.iter().map(|(a, f)| (format!("loader/{a}"), f));
        let own = config
            .machines
            .iter()
            .filter_map(|m| Some((format!("machine/{}/loader", m.name), m.loader.as_ref()?)));
        for (key, file) in by_arch.chain(own) {
            if let Err(why) = ipxe::get(&config.ipxe, file) {
                self.err(config.place(&key), why.to_string(), self.known_loaders());
            }
        }
        let held = |f| ipxe::get(&config.ipxe, ipxe::loader_for(&config.ipxe, f, None)).is_ok();
        if !TABLE.iter().any(held) && !self.is_told("ipxe") {
            let place = match &config.ipxe.dir {
                Some(_) => config.place("ipxe"),
                None => Place::nowhere(),
            };
            self.err(
                place,
                "there is no loader for any architecture: no machine can be booted",
                "build again after ./scripts/loaders, or name a folder of them by [ipxe] dir",
            );
        }
    }

    fn known_loaders(&self) -> String {
        let all: Vec<&str> = ipxe::embedded().iter().map(|e| e.name).collect();
        match all.is_empty() {
            true => "this build holds none".into(),
            false => format!("this build holds {}", all.join(", ")),
        }
    }

    fn certificates(&mut self) {
        let config = self.config.clone();
        let own = config.tls.own.is_some();
        if !(own || config.tls.enabled)
            || ["certificate", "key", "root"].iter().any(|key| self.is_told(key))
        {
            return;
        }
        let Err(why) = tls::check(&config.tls, &config.state_dir, &[], SystemTime::now()) else {
            return;
        };
        let place = config.place(if own { "certificate" } else { "tls" });
        match &why {
            // `check` need not run as the user that serves.
            tls::Error::Owner { .. } => {
                self.note(place, why.to_string(), "");
            }
            tls::Error::Io { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied && !own =>
            {
                self.note(place, why.to_string(), "`sudo pilotlight check` can look at it");
            }
            _ => self.err(place, why.to_string(), ""),
        }
    }

    fn interfaces(&mut self) {
        let config = self.config.clone();
        for name in &config.interfaces {
            let place = config.place(&format!("interface/{name}"));
            match super::interfaces(std::slice::from_ref(name)) {
                Err(why) => self.note(place, format!("{why:#}"), "on this machine, as it is now"),
                Ok(found) => {
                    let subnets = &config.dhcp.subnets;
                    let here = found.iter().flat_map(|i| &i.addresses);
                    let served =
                        here.clone().any(|n| subnets.iter().any(|s| s.network.contains(&n.addr())));
                    if config.dhcp.mode == Mode::Full && !served {
                        let at: Vec<String> = here.map(ToString::to_string).collect();
                        let message = format!(
                            "no [[subnet]] holds an address of {name} ({}): only relayed machines \
                             get one",
                            at.join(", ")
                        );
                        self.note(place, message, "declare a [[subnet]] with that network");
                    }
                }
            }
        }
    }
}
