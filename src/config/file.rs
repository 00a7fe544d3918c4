//! The configuration as written, to the configuration as used. No disk, no clock.
//!
//! 1. Every file is read as TOML; if one is not, nothing else is said.
//! 2. The tables of all files become one: arrays of tables add up, what is set twice is refused.
//! 3. Each table is walked, and each value checked by itself.
//! 4. Then what only all of them tell: names that must exist, addresses that must be free, what
//!    `full` mode needs.
//!
//! Everything that is wrong is collected, up to [`super::report::ERROR_LIMIT`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::catalog::{self, Entry};
use super::installers::{self, Blind, Captures, Carried, Installers, Known, Look, Plan};
use super::life;
use super::media::{self, Medium};
use super::mirrors;
use super::report::{Errors, Note};
use super::settings;
use super::subnet::{self, subnet};
use super::walk::{Schema, Spot, TOP, Table, Val, Walk, quoted};
use super::words::{self, LINE_LIMIT, TITLE_LIMIT};
use super::{
    Config, Dhcp, Http, Ipxe, LOCAL_DISK, Menu, Mirror, Mode, OwnCertificate, Places, Subnet, Tftp,
    Tls,
};
use crate::model::profile::{Answer, Boot, Initrd, Source, Start, Template, unbroken};
use crate::model::{Firmware, MacPattern, Machine, Match, Profile};

/// Bytes of one file.
pub const FILE_LIMIT: usize = 8 << 20;
/// A file up to this many bytes is told all of its syntax errors, a bigger one only the first: the
/// TOML parser keeps as many as there are.
const ALL_SYNTAX_LIMIT: usize = 256 << 10;
/// No time at all would be a menu that waits for ever, and a day is as good as that.
const MENU_TIMES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// A slower client would not end in a day, and no card is faster.
const PACE: RangeInclusive<u64> = 100_000..=100_000_000_000;

/// All the keys there are. A table that is not here has keys of the user's own.
const SCHEMA: Schema = &[
    (
        TOP,
        &[
            "interface",
            "state-dir",
            "dhcp",
            "subnet",
            "tftp",
            "http",
            "tls",
            "ipxe",
            "menu",
            "life",
            "webhook",
            "files",
            "media",
            "installers",
            "cache",
            "mirror",
            "profile",
            "machine",
        ],
    ),
    ("[dhcp]", &["mode", "router-advertisement", "ping-check"]),
    (
        "[[subnet]]",
        &[
            "network",
            "range",
            "router",
            "dns",
            "domain",
            "broadcast",
            "ntp",
            "mtu",
            "lease-time",
            "max-lease-time",
            "option",
        ],
    ),
    ("[[subnet.option]]", &["code", "string", "ip", "u8", "u16", "u32", "bool", "hex"]),
    ("[tftp]", &["dir"]),
    ("[http]", &["port", "https-port", "admin", "pace"]),
    ("[tls]", &["enabled", "certificate", "key", "root", "names"]),
    ("[ipxe]", &["dir", "loaders"]),
    ("[menu]", &["title", "timeout"]),
    ("[life]", &["unknown", "profile", "attempts", "timeout", "held", "rescue", "boots"]),
    ("[[webhook]]", &["url", "secret", "events"]),
    ("[[files]]", &["name", "dir"]),
    ("[[media]]", &["name", "iso", "dir", "watch", "installer", "version"]),
    ("[installers]", &["dir"]),
    ("[cache]", &["dir", "limit", "offline", "prefetch"]),
    (
        "[[mirror]]",
        &["name", "urls", "verify", "keys", "redirects", "pin", "private", "connections"],
    ),
    (
        "[[profile]]",
        &[
            "name",
            "title",
            "kind",
            "menu",
            "install",
            "kernel",
            "initrd",
            "args",
            "console",
            "answers",
            "vars",
            "secrets",
            "timeout",
            "attempts",
            "settings",
            "parts",
            "carried",
            "plain-answers",
        ],
    ),
    (
        "[[machine]]",
        &[
            "name", "mac", "uuid", "serial", "vendor", "arch", "profile", "address", "hostname",
            "loader", "vars", "settings", "secrets", "power",
        ],
    ),
    ("[profile.settings]", settings::KEYS),
    ("[machine.settings]", settings::KEYS),
    ("`network` of settings", settings::NETWORK_KEYS),
    ("a secret", &["file", "env"]),
    ("the machine's `power`", &["redfish", "user", "password", "insecure", "command"]),
];

/// Reads a configuration out of its files' texts, in order. The paths are for messages and for
/// what relative paths are beside; nothing is opened. So mirrors out of the catalogue name all the
/// places where their keys may be; [`super::load`] keeps those where they are.
///
/// # Errors
/// Everything that is wrong with it, in the order of the files.
pub fn parse(files: &[(PathBuf, String)]) -> Result<(Config, Vec<Note>), Errors> {
    parse_with(files, &Blind)
}

/// The same; what is in the media that it names, `look` tells.
///
/// # Errors
/// As there.
pub fn parse_with(
    files: &[(PathBuf, String)],
    look: &dyn Look,
) -> Result<(Config, Vec<Note>), Errors> {
    let mut w = Walk::new(files);
    let documents = documents(&mut w, files);
    let mut config = Config::default();
    if w.errors.is_empty() {
        let top = Table::top(&mut w, SCHEMA, &documents);
        config = walk(&mut w, &top, look);
        config.sources = files.iter().map(|(path, _)| path.clone()).collect();
    }
    let (places, notes) = w.done()?;
    Ok((Config { places, ..config }, notes))
}

fn documents<'a>(w: &mut Walk<'_>, files: &'a [(PathBuf, String)]) -> Vec<Spanned<DeTable<'a>>> {
    let mut found = Vec::new();
    for (file, (_, text)) in files.iter().enumerate() {
        if text.len() > FILE_LIMIT {
            let message = format!("this file has more than {} MiB", FILE_LIMIT >> 20);
            w.err(Walk::spot(file, 0..0), message, "split it");
            continue;
        }
        match DeTable::parse(text) {
            Ok(document) => found.push(document),
            Err(first) => refuse_syntax(w, file, text, first),
        }
    }
    found
}

/// The syntax errors of a file, one a line: what follows in the same line is mostly the first one's
/// echo.
fn refuse_syntax(w: &mut Walk<'_>, file: usize, text: &str, first: toml::de::Error) {
    let all = if text.len() > ALL_SYNTAX_LIMIT {
        vec![first]
    } else {
        DeTable::parse_recoverable(text).1
    };
    let mut last_line = 0;
    for e in all {
        let at = Walk::spot(file, e.span().unwrap_or(0..0));
        let line = w.place(at).line;
        if line != last_line {
            w.err(at, format!("this is not TOML: {}", e.message()), hint(e.message()));
        }
        last_line = line;
    }
}

/// What most often is behind a message of the TOML parser. A bare word that begins with `t` or `f`
/// is a misspelt boolean to it.
fn hint(message: &str) -> &'static str {
    if message.contains("boolean") || message.contains("quoted") {
        "a text stands in quotes"
    } else if message.contains("duplicate key") {
        "a file sets a key once, and has each [table] once; leave one of them out"
    } else {
        ""
    }
}

fn walk<'a>(w: &mut Walk<'_>, top: &Table<'a>, look: &dyn Look) -> Config {
    let default = Config::default();
    let (mut dhcp, mode_at) = dhcp(w, top, default.dhcp);
    let (subnets, sound) = subnets(w, top);
    let Own { installers, dir: own, broken } = installers(w, top, look);
    let by = media::By { look, installers: &installers, broken: &broken };
    let mut found = media::homes(w, top, &by);
    let (mut mirrors, mirror_names) = mirrors::mirrors(w, top, &found.names);
    media::watch(w, &mut found, &mirror_names, &by);
    let media::Found { folders, media, names, watched, .. } = found;
    let homes = Homes {
        folders: names,
        mirrors: mirror_names,
        media,
        watches: !watched.is_empty(),
        installers: &installers,
        broken: &broken,
    };
    let (profiles, offers, installed) = profiles(w, top, &homes);
    mirrors.extend(installed);
    let (machines, reserved) = machines(w, top, &offers);
    let kinds = profiles.iter().map(|p| (p.name.as_str(), p.kind)).collect();
    let life = life::life(w, top, &life::Kinds { names: &offers.names, kinds });
    if sound {
        of_mode(w, dhcp.mode, mode_at, &subnets, reserved.is_empty());
        reservations(w, &subnets, &reserved);
    }
    dhcp.subnets = subnets.into_iter().map(|s| s.value).collect();
    Config {
        interfaces: interfaces(w, top),
        state_dir: top.path(w, "state-dir").map_or(default.state_dir, |p| p.value),
        dhcp,
        tftp: tftp(w, top),
        http: http(w, top, default.http),
        tls: tls(w, top),
        ipxe: ipxe(w, top),
        menu: menu(w, top, default.menu),
        life,
        webhooks: life::webhooks(w, top),
        folders,
        watched,
        own_installers: own,
        installers: Arc::new(installers),
        cache: mirrors::cache(w, top, default.cache),
        mirrors,
        profiles,
        machines: machines.into(),
        sources: Vec::new(),
        places: Places::default(),
    }
}

fn interfaces(w: &mut Walk<'_>, top: &Table<'_>) -> Vec<String> {
    let mut found: Vec<Val<&str>> = Vec::new();
    for v in top.texts(w, "interface") {
        let Some(name) = w.check(v, words::interface) else { continue };
        match found.iter().find(|f| f.value == name.value) {
            Some(first) => {
                let message = format!("interface {} is named twice", quoted(name.value));
                w.clash(name.at, first.at, message, "leave one of them out");
            }
            None => {
                w.keep(format!("interface/{}", name.value), name.at);
                found.push(name);
            }
        }
    }
    found.iter().map(|f| f.value.to_string()).collect()
}

fn dhcp(w: &mut Walk<'_>, top: &Table<'_>, default: Dhcp) -> (Dhcp, Spot) {
    const MODES: [&str; 3] = ["proxy", "full", "off"];
    let t = top.table(w, "dhcp", "[dhcp]");
    let mode = t.text(w, "mode");
    let at = mode.map_or(t.at, |m| m.at);
    let mode = mode.and_then(|m| match m.value {
        "proxy" => Some(Mode::Proxy),
        "full" => Some(Mode::Full),
        "off" => Some(Mode::Off),
        other => {
            let hint = w.nearest(other, MODES, "it is \"proxy\", \"full\" or \"off\"");
            w.err(m.at, format!("there is no mode {}", quoted(other)), hint);
            None
        }
    });
    let advertise = t.flag(w, "router-advertisement");
    let ping = t.flag(w, "ping-check");
    let dhcp = Dhcp {
        mode: mode.unwrap_or_default(),
        router_advertisement: advertise.map_or(default.router_advertisement, |a| a.value),
        ping_check: ping.map_or(default.ping_check, |p| p.value),
        subnets: Vec::new(),
    };
    (dhcp, at)
}

/// The subnets, and whether nothing is wrong with any: what they lack together would else only be
/// the echo of that.
fn subnets(w: &mut Walk<'_>, top: &Table<'_>) -> (Vec<Val<Subnet>>, bool) {
    let before = w.errors.count();
    let tables = top.tables(w, "subnet", "[[subnet]]");
    let found: Vec<_> = tables.iter().filter_map(|t| subnet(w, t)).collect();
    for s in &found {
        w.keep(format!("subnet/{}", s.value.network), s.at);
    }
    subnet::refuse_overlaps(w, &found);
    (found, w.errors.count() == before)
}

fn tftp(w: &mut Walk<'_>, top: &Table<'_>) -> Tftp {
    let t = top.table(w, "tftp", "[tftp]");
    Tftp { dir: kept(w, &t, "dir", "tftp") }
}

/// A path whose place is remembered, since the disk will be asked about it.
pub fn kept(w: &mut Walk<'_>, t: &Table<'_>, key: &str, place: &str) -> Option<PathBuf> {
    let path = t.path(w, key)?;
    w.keep(place.to_string(), path.at);
    Some(path.value)
}

fn http(w: &mut Walk<'_>, top: &Table<'_>, default: Http) -> Http {
    let t = top.table(w, "http", "[http]");
    let port = t.whole::<u16>(w, "port", 1..=65535);
    let https = t.whole::<u16>(w, "https-port", 1..=65535);
    let http = Http {
        pace: t.size(w, "pace", "/s", PACE).map(|p| p.value),
        port: port.map_or(default.port, |p| p.value),
        https_port: https.map_or(default.https_port, |p| p.value),
        admin: match t.text(w, "admin") {
            Some(v) => admin(w, v),
            None => default.admin,
        },
    };
    if let (true, Some(p)) = (http.port == http.https_port, https.or(port)) {
        let message = format!("`port` and `https-port` are both {}", http.port);
        w.err(p.at, message, "each door needs a port of its own");
    }
    http
}

/// Any address: what is not loopback gets HTTPS and is asked for a credential.
fn admin(w: &mut Walk<'_>, v: Val<&str>) -> Option<SocketAddr> {
    const HINT: &str = "write an address of this machine and a port, like \"127.0.0.1:8067\" or \
                        \"[::1]:8067\", or \"off\"";
    if v.value == "off" {
        return None;
    }
    let address = v.value.parse().ok().filter(|a: &SocketAddr| a.port() != 0);
    if address.is_none() {
        w.err(v.at, format!("`admin` is no address: {}", quoted(v.value)), HINT);
    }
    address
}

fn tls(w: &mut Walk<'_>, top: &Table<'_>) -> Tls {
    let t = top.table(w, "tls", "[tls]");
    if top.has("tls") {
        w.keep("tls".into(), t.at);
    }
    for (given, other) in [("certificate", "key"), ("key", "certificate"), ("root", "certificate")]
    {
        if t.has(given) && !t.has(other) {
            let at = t.text(w, given).map_or(t.at, |v| v.at);
            let hint = format!("write {other} = \"….pem\", or leave `{given}` out");
            w.err(at, format!("`{given}` is given without `{other}`"), hint);
        }
    }
    let chain = kept(w, &t, "certificate", "certificate");
    let key = kept(w, &t, "key", "key");
    let root = kept(w, &t, "root", "root");
    let mut tls = Tls {
        enabled: t.flag(w, "enabled").is_some_and(|e| e.value),
        own: chain.zip(key).map(|(chain, key)| OwnCertificate { chain, key, root }),
        ..Tls::default()
    };
    for v in t.texts(w, "names") {
        match v.value.parse::<IpAddr>() {
            Ok(address) => tls.addresses.push(address),
            Err(_) => {
                let name = w.check(v, |s| words::host("DNS name or address", s));
                tls.names.extend(name.map(|n| n.value.to_string()));
            }
        }
    }
    tls
}

fn ipxe(w: &mut Walk<'_>, top: &Table<'_>) -> Ipxe {
    let t = top.table(w, "ipxe", "[ipxe]");
    let loaders = t.table(w, "loaders", "[ipxe.loaders]");
    let mut ipxe = Ipxe { dir: kept(w, &t, "dir", "ipxe"), loaders: Vec::new() };
    for key in loaders.keys() {
        let file = loader(w, &loaders, key.value);
        if let (Some(arch), Some(file)) = (arch(w, key), file) {
            w.keep(format!("loader/{arch}"), file.at);
            ipxe.loaders.push((arch, file.value.to_string()));
        }
    }
    ipxe
}

/// A loader is named, not placed: `[ipxe] dir` and the embedded ones know no folders.
fn loader<'a>(w: &mut Walk<'_>, t: &Table<'a>, key: &str) -> Option<Val<&'a str>> {
    let v = t.text(w, key)?;
    w.check(v, |s| words::name("a loader", s))
}

fn arch(w: &mut Walk<'_>, v: Val<&str>) -> Option<&'static str> {
    let all = Firmware::arches();
    let known = all.iter().find(|a| **a == v.value);
    if known.is_none() {
        let hint = match Firmware::by_name(v.value) {
            Some(f) => format!("write \"{}\", for PXE and for HTTP boot", f.arch),
            None => w.nearest(v.value, all.iter().copied(), format!("we know {}", all.join(", "))),
        };
        w.err(v.at, format!("there is no architecture {}", quoted(v.value)), hint);
    }
    known.copied()
}

fn menu(w: &mut Walk<'_>, top: &Table<'_>, default: Menu) -> Menu {
    let t = top.table(w, "menu", "[menu]");
    Menu {
        title: title(w, &t).map_or(default.title, |v| v.value.to_string()),
        timeout: t
            .time(w, "timeout", MENU_TIMES.0..=MENU_TIMES.1)
            .map_or(default.timeout, |v| v.value),
    }
}

fn title<'a>(w: &mut Walk<'_>, t: &Table<'a>) -> Option<Val<&'a str>> {
    let v = t.text(w, "title")?;
    w.check(v, |s| words::script_line("`title`", s, TITLE_LIMIT))
}

/// Names that are taken, and where.
pub type Names<'a> = HashMap<Cow<'a, str>, Spot>;

/// Where a kernel can be: names of folders, media and mirrors; and what boots it.
struct Homes<'a> {
    folders: Names<'a>,
    mirrors: Names<'a>,
    media: Vec<Medium>,
    /// Whether what media there are is up to a folder.
    watches: bool,
    installers: &'a Installers,
    broken: &'a HashSet<String>,
}

/// What a machine can be given: the names of the profiles, and what each of them takes from the
/// catalogue.
struct Offers<'a> {
    names: Names<'a>,
    /// Whether more may come, and some may have gone.
    watches: bool,
    installs: HashMap<String, Foreign>,
}

/// What may be for another processor than a machine's.
struct Foreign {
    what: String,
    arch: &'static str,
    bios_only: bool,
    entry: Option<&'static Entry>,
}

impl Foreign {
    fn of(entry: &'static Entry) -> Foreign {
        Foreign { what: entry.name.clone(), arch: entry.arch, bios_only: false, entry: Some(entry) }
    }
}

/// The name of a table, unique among its kind. One that is wrong is taken, too: what refers to it
/// is not told that there is no such thing.
pub fn name<'a>(
    w: &mut Walk<'_>,
    t: &Table<'a>,
    kind: &str,
    names: &mut Names<'a>,
) -> Option<Val<&'a str>> {
    t.missing(w, "name", "write name = \"…\"");
    let v = t.text(w, "name")?;
    if let Some(first) = names.get(v.value) {
        let message = format!("there are two {kind}s {}", quoted(v.value));
        w.clash(v.at, *first, message, "give one of them another name");
    } else {
        names.insert(Cow::Borrowed(v.value), v.at);
    }
    w.check(v, |s| words::name(&format!("a {kind}"), s))
}

/// The installers, with those of the user's own folder.
struct Own {
    installers: Installers,
    dir: Option<PathBuf>,
    /// The names of the user's, where one of them is wrong and none is known for that: what names
    /// one, or is none of the others, is not told so.
    broken: HashSet<String>,
}

fn installers(w: &mut Walk<'_>, top: &Table<'_>, look: &dyn Look) -> Own {
    let builtin = |dir, broken| Own { installers: Installers::builtin().clone(), dir, broken };
    let t = top.table(w, "installers", "[installers]");
    let Some(dir) = t.path(w, "dir") else { return builtin(None, HashSet::new()) };
    w.keep("installers".into(), dir.at);
    let own = match look.installers(&dir.value) {
        Ok(own) => own,
        Err(why) => {
            w.err(
                dir.at,
                why,
                "it holds a folder for each installer; docs/installers.md shows one",
            );
            return builtin(Some(dir.value), HashSet::new());
        }
    };
    match Installers::of(&own) {
        Ok(installers) => Own { installers, dir: Some(dir.value), broken: HashSet::new() },
        Err(wrong) => {
            for one in wrong {
                let line = if one.line > 0 { format!(":{}", one.line) } else { String::new() };
                let message = format!("{}{line}: {}", one.file.display(), one.message);
                w.err(dir.at, message, "docs/installers.md shows how one is written");
            }
            let folder = |(name, ..): &(String, _, _)| name.split('/').next().map(str::to_string);
            builtin(Some(dir.value), own.iter().filter_map(folder).collect())
        }
    }
}

/// The profiles, what machines can name of them, and the mirrors that they have from the catalogue.
/// A medium that no profile installs is one by itself, and asks its questions on the screen.
fn profiles<'a>(
    w: &mut Walk<'_>,
    top: &Table<'a>,
    homes: &Homes<'a>,
) -> (Vec<Profile>, Offers<'a>, Vec<Mirror>) {
    let (mut found, mut names, mut mirrors) = (Vec::new(), Names::new(), Vec::new());
    let mut installs = HashMap::new();
    let mut used = HashSet::new();
    for t in top.tables(w, "profile", "[[profile]]") {
        let name = name(w, &t, "profile", &mut names);
        if let Some(n) = name.filter(|n| n.value == LOCAL_DISK) {
            let message = format!("no profile can be called {}", quoted(LOCAL_DISK));
            w.err(n.at, message, "that name stands for a machine's own disk; take another");
        }
        let install = install(w, &t, homes);
        match install.as_ref().map(|i| (i.at, &i.value)) {
            Some((at, Install::Entry(entry))) => {
                let entry = Val { value: *entry, at };
                mirrors::from_catalog(w, entry, &homes.mirrors, &mut mirrors);
                installs.extend(name.map(|n| (n.value.to_string(), Foreign::of(entry.value))));
            }
            Some((_, Install::Medium(medium))) => drop(used.insert(medium.name.as_str())),
            _ => {}
        }
        let profile = profile(w, &t, name, homes, install);
        let of_medium = profile.as_ref().and_then(|p| Some((p.name.clone(), p.release.as_ref()?)));
        // One that needs no files is for all that iPXE is for.
        if let Some((name, release)) = of_medium.filter(|(_, release)| release.tree.is_some()) {
            installs.entry(name).or_insert_with(|| Foreign {
                what: release.title.clone(),
                arch: release.arch,
                bios_only: release.bios_only,
                entry: None,
            });
        }
        found.extend(profile);
    }
    for medium in &homes.media {
        if used.contains(medium.name.as_str()) {
            // What it lacks is its profile's error, unless that is told what it is.
            if medium.is.is_ok() {
                unread(w, medium);
            }
            continue;
        }
        if let Some(profile) = by_itself(w, medium, homes, &names) {
            names.insert(Cow::Owned(profile.name.clone()), medium.at);
            found.push(profile);
        }
    }
    (found, Offers { names, watches: homes.watches, installs }, mirrors)
}

/// Whether a medium cannot be looked into, which is noted. One bad image keeps nothing else from
/// being served.
fn unread(w: &mut Walk<'_>, medium: &Medium) -> bool {
    let Some(why) = &medium.unread else { return false };
    if why != installers::UNSEEN {
        let message = format!("the medium {} cannot be served: {why}", quoted(&medium.name));
        w.note(medium.at, message, "copy the image here once more; it is looked at again then");
    }
    true
}

/// The profile of a medium that none was written for.
fn by_itself(
    w: &mut Walk<'_>,
    medium: &Medium,
    homes: &Homes<'_>,
    names: &Names<'_>,
) -> Option<Profile> {
    let name = medium.name.as_str();
    if unread(w, medium) && medium.is.is_err() {
        return None;
    }
    let taken = names.contains_key(name);
    let planned = plan(&Install::Medium(medium), homes, &Asked::default());
    let plan = match planned {
        Ok(plan) => plan,
        Err(why) => {
            let message = format!("{name} is served, and boots nothing by itself: {why}");
            let hint = "`pilotlight import` of the image says what it looked for; a [[profile]] can \
                        name its kernel";
            w.note(medium.at, message, hint);
            return None;
        }
    };
    let place = w.place(medium.at);
    w.keep(format!("profile/{name}"), medium.at);
    (!taken).then(|| Profile {
        name: name.into(),
        title: plan.release.title.clone(),
        menu: true,
        unready: None,
        boot: plan.boot,
        uefi: plan.uefi,
        answers: plan.answers,
        console: None,
        vars: serde_json::Map::new(),
        secrets: Default::default(),
        kind: plan.kind,
        release: Some(plan.release),
        settings: None,
        memory: plan.memory,
        timeout: None,
        attempts: None,
        plain_answers: false,
        at: format!("{}:{}", place.file.display(), place.line),
    })
}

/// What a profile installs.
enum Install<'m> {
    Entry(&'static Entry),
    Medium(&'m Medium),
    /// An installer that needs no files.
    Bare(&'m str),
    /// What may come into a folder that is watched.
    Gone {
        near: Option<String>,
    },
}

/// The medium or the entry of the catalogue that a profile names.
fn install<'m>(w: &mut Walk<'_>, t: &Table<'_>, homes: &'m Homes<'_>) -> Option<Val<Install<'m>>> {
    let v = t.text(w, "install")?;
    if t.has("kernel") {
        let message = "`kernel` is given beside `install`, which brings its own";
        w.err(t.key_at("kernel"), message, "leave one of them out");
    }
    if let Some(medium) = media::find(&homes.media, v) {
        return Some(Val { value: Install::Medium(medium), at: v.at });
    }
    if let Some(bare) = homes.installers.get(v.value).filter(|i| i.is_bare()) {
        return Some(Val { value: Install::Bare(&bare.name), at: v.at });
    }
    if homes.broken.contains(v.value) {
        return None;
    }
    let Some(value) = catalog::entry(v.value) else {
        let known = catalog::all().entries.iter().map(|e| e.name.as_str());
        let media = homes.media.iter().map(|m| m.name.as_str());
        let near = w.nearest(v.value, known.chain(media), "");
        if homes.watches {
            let near = Some(near).filter(|near| !near.is_empty());
            return Some(Val { value: Install::Gone { near }, at: v.at });
        }
        let hint = match near {
            near if near.is_empty() => {
                "`pilotlight catalog` lists what there is; a [[media]] of yours has its name"
                    .to_string()
            }
            near => format!("{near} `pilotlight catalog` lists them"),
        };
        w.err(
            v.at,
            format!("no [[media]] is called {}, and the catalogue has none", quoted(v.value)),
            hint,
        );
        return None;
    };
    for mirror in &value.mirrors {
        if let Some(folder) = homes.folders.get(mirror.as_str()) {
            let (what, mirror) = (quoted(v.value), quoted(mirror));
            let message =
                format!("{what} comes from the mirror {mirror}, and a folder is called so");
            w.clash(v.at, *folder, message, "give the folder another name");
        }
    }
    Some(Val { value: Install::Entry(value), at: v.at })
}

/// What a profile says of how it wants to be installed.
#[derive(Default)]
struct Asked<'a> {
    parts: BTreeMap<String, Source>,
    unattended: bool,
    own: Vec<&'a str>,
}

/// # Errors
/// A sentence.
fn plan(install: &Install<'_>, homes: &Homes<'_>, asked: &Asked<'_>) -> Result<Plan, String> {
    let known = |captures, tree, seen| Known {
        captures,
        tree,
        seen,
        parts: asked.parts.clone(),
        unattended: asked.unattended,
        own: asked.own.clone(),
    };
    let of = |name: &str| {
        homes.installers.get(name).ok_or_else(|| "no installer is known for it".to_string())
    };
    match install {
        Install::Gone { near } => {
            let near = near.as_ref().map_or(String::new(), |near| format!("; {near}"));
            Err(format!("there is no image of that name at the moment{near}"))
        }
        Install::Bare(name) => of(name)?.plan(&known(Captures::new(), None, None)),
        Install::Medium(medium) => {
            let (name, captures) = medium.is.as_ref().map_err(Clone::clone)?;
            let tree = Source::Ours { folder: medium.name.clone(), path: String::new() };
            of(name)?.plan(&known(captures.clone(), Some(tree), medium.tree.as_deref()))
        }
        Install::Entry(entry) => {
            let captures = [("version", &entry.version), ("arch", &entry.theirs)];
            let captures = captures.map(|(name, value)| (name.to_string(), value.clone())).into();
            let tree = mirrored(&entry.tree);
            let mut plan = of(&entry.installer)?.plan(&known(captures, tree, None))?;
            let trees = entry.trees.iter();
            plan.release.trees =
                trees.filter_map(|(n, t)| Some((n.clone(), mirrored(t)?))).collect();
            plan.release.title = entry.title.clone();
            // The installer's own is about images.
            plan.release.note.clone_from(&entry.note);
            // One that names no kernel boots as its installer says.
            if !entry.kernel.is_empty() {
                plan.boot = of_entry(entry, &plan.more);
                plan.uefi = None;
            }
            Ok(plan)
        }
    }
}

fn of_entry(entry: &Entry, more: &str) -> Boot {
    // A test reads each of them.
    let kernel = mirrored(&entry.kernel).unwrap_or(Source::Url(String::new()));
    let initrds = entry.initrd.iter().filter_map(|i| mirrored(i)).collect();
    Boot::linux(kernel, initrds, format!("{} {more}", entry.args).trim())
}

fn profile(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    name: Option<Val<&str>>,
    homes: &Homes<'_>,
    install: Option<Val<Install<'_>>>,
) -> Option<Profile> {
    let key = name.map_or(String::new(), |n| format!("profile/{}", n.value));
    let mut answers = answers(w, t, &key);
    let settings = settings_of(w, t, "[profile.settings]");
    let own: Vec<String> = answers.iter().map(|a| a.name.clone()).collect();
    let asked = Asked {
        parts: parts(w, t, &key, homes),
        unattended: settings.is_some(),
        own: own.iter().map(String::as_str).collect(),
    };
    let install_at = install.as_ref().map(|i| i.at);
    let (mut planned, mut unready) = (None, None);
    let boot = match &install {
        Some(install) => match (plan(&install.value, homes, &asked), &install.value) {
            (Ok(plan), _) => {
                let boot = plan.boot.clone();
                planned = Some(plan);
                Some(boot)
            }
            (Err(_), Install::Entry(entry)) if settings.is_none() => Some(of_entry(entry, "")),
            (Err(_), Install::Medium(m)) if m.tree.is_some() && !homes.broken.is_empty() => None,
            // A disk that is away, an image that is being written: who else is declared boots.
            (Err(why), Install::Gone { .. }) => Some(waits(w, install.at, why, &mut unready)),
            (Err(why), Install::Medium(medium)) if medium.is.is_err() => {
                Some(waits(w, install.at, why, &mut unready))
            }
            (Err(why), _) => {
                w.err(install.at, why, "`pilotlight import` of an image says what it is");
                None
            }
        },
        None => {
            let (kernel, initrds) = sources(w, t, &key, homes);
            kernel.map(|kernel| Boot { initrds, ..Boot::linux(kernel, Vec::new(), "") })
        }
    };
    if settings.is_some() && !t.has("install") {
        let hint = "write install = \"NAME\" in place of kernel and initrd, or use `vars`";
        w.err(t.key_at("settings"), "`settings` are for a profile that installs a system", hint);
    }
    let title = title(w, t);
    let args = t.text(w, "args");
    let args = args.and_then(|v| w.check(v, |s| words::line("`args`", s, LINE_LIMIT)));
    let console = t.text(w, "console").and_then(|v| w.check(v, words::console));
    let menu = t.flag(w, "menu").map(|m| m.value);
    let vars = t.table(w, "vars", "the profile's `vars`").values(w);
    let secrets = life::secrets(w, t, "the profile's `secrets`", &key);
    let kind = life::kind(w, t);
    let (timeout, attempts) = (life::timeout(w, t), life::attempts(w, t));
    let plain_answers = t.flag(w, "plain-answers").is_some_and(|p| p.value);
    let (mut carried, carried_at) = carried(w, t);
    if let Some(args) = args.filter(|a| words::names_in_tags(a.value, "secrets")) {
        let hint = "arguments are in scripts, on screens and in /proc/cmdline, for all to read; \
                    write {{ secrets.NAME }} in an answer";
        w.err(args.at, "`args` cannot have secrets", hint);
    }
    let name = name?;
    let hands_out = !answers.is_empty() || settings.is_some();
    if menu.is_none() && hands_out {
        let message = format!(
            "profile {} hands out answer files, so the menu of unknown machines leaves it out",
            quoted(name.value)
        );
        w.note(name.at, message, "menu = true offers it to everybody on the network");
    }
    w.keep(key.clone(), name.at);
    let args_at = args.map(|a| a.at).or(install_at);
    for (what, at) in [("title", title.map(|t| t.at)), ("args", args_at), ("install", install_at)] {
        if let Some(at) = at {
            w.keep(format!("{key}/{what}"), at);
        }
    }
    let (mut boot, mut uefi) = (boot?, planned.as_mut().and_then(|plan| plan.uefi.take()));
    if install_at.is_some() {
        let more = initrds(w, t, &key, homes);
        boot.initrds.extend(more.clone());
        uefi.iter_mut().for_each(|uefi| uefi.initrds.extend(more.clone()));
    }
    // What the user appends comes last: of two arguments that say the same, the last one counts.
    for boot in std::iter::once(&mut boot).chain(&mut uefi) {
        boot.args = unbroken(&format!("{} {}", boot.args, args.map_or("", |v| v.value)));
    }
    let (mut release, mut memory, mut of_kind) = (None, None, None);
    let entry_title = match install.as_ref().map(|i| &i.value) {
        Some(Install::Entry(entry)) => Some(entry.title.clone()),
        _ => planned.as_ref().map(|plan| plan.release.title.clone()),
    };
    if let Some(plan) = planned {
        for ours in plan.answers {
            match answers.iter_mut().find(|a| a.name == ours.name) {
                Some(own) => own.crlf = ours.crlf,
                None => {
                    if let Some(at) = install_at {
                        w.keep(format!("{key}/answer/{}", ours.name), at);
                    }
                    answers.push(ours);
                }
            }
        }
        carried = plan.carried.with(carried);
        (release, memory, of_kind) = (Some(plan.release), plan.memory, Some(plan.kind));
    }
    for answer in &mut answers {
        answer.carried = carried.place(&answer.name);
    }
    // Of what is away or nothing of ours nobody knows the answers.
    if unready.is_none() && (install_at.is_none() || release.is_some()) {
        places(w, name.value, &answers, &carried_at);
    }
    if plain_answers && t.has("carried") {
        let hint = "iPXE carries answers in place of HTTPS; one of the two can go";
        let message = format!(
            "profile {}: its answers go by HTTP (plain-answers), so `carried` is not used",
            quoted(name.value)
        );
        w.note(t.key_at("carried"), message, hint);
    }
    let place = w.place(t.at);
    Some(Profile {
        name: name.value.to_string(),
        title: title.map_or(entry_title.unwrap_or(name.value.into()), |v| v.value.into()),
        menu: menu.unwrap_or(!hands_out) && unready.is_none(),
        unready,
        boot,
        uefi,
        answers,
        console: console.map(|v| v.value.to_string()),
        vars,
        secrets,
        kind: of_kind.filter(|_| !t.has("kind")).unwrap_or(kind),
        release,
        settings,
        memory,
        timeout,
        attempts,
        plain_answers,
        at: format!("{}:{}", place.file.display(), place.line),
    })
}

/// Where in the initrd its answers are put, as the profile says, and where it says so of each.
fn carried<'a>(w: &mut Walk<'_>, t: &Table<'a>) -> (Carried, Vec<Val<&'a str>>) {
    let t = t.table(w, "carried", "the profile's `carried`");
    let mut found = BTreeMap::new();
    let keys = t.keys();
    for key in &keys {
        if let Some(path) = t.text(w, key.value) {
            let one = BTreeMap::from([(key.value.to_string(), path.value.to_string())]);
            let hint = "an answer's name, or \"*\", and where it is put";
            match Carried::try_from(one.clone()) {
                Ok(_) => found.extend(one),
                Err(why) => w.err(path.at, why, hint),
            }
        }
    }
    // Each was checked.
    (Carried::try_from(found).unwrap_or_default(), keys)
}

/// Whether each place in the initrd is that of an answer, and of one alone.
fn places(w: &mut Walk<'_>, profile: &str, answers: &[Answer], said: &[Val<&str>]) {
    let unknown =
        |key: &&Val<&str>| key.value != "*" && answers.iter().all(|a| a.name != key.value);
    for key in said.iter().filter(unknown) {
        let names: Vec<&str> = answers.iter().map(|a| a.name.as_str()).collect();
        let has = match names.is_empty() {
            true => "it has none".into(),
            false => format!("it has {}", names.join(", ")),
        };
        let hint = w.nearest(key.value, names, has);
        let message = format!("profile {} has no answer {}", quoted(profile), quoted(key.value));
        w.err(key.at, message, hint);
    }
    let mut taken: HashMap<Vec<&str>, &str> = HashMap::new();
    for answer in answers {
        let Some(place) = &answer.carried else { continue };
        let parts = place.split('/').filter(|part| !part.is_empty()).collect();
        let Some(first) = taken.insert(parts, &answer.name) else { continue };
        let by = |name: &str| said.iter().find(|key| key.value == name);
        // Where the profile says nothing of either, its installer does, and a test reads those.
        let Some(at) = by(&answer.name).or_else(|| by(first)).or_else(|| by("*")) else { continue };
        let hint = "each wants a path of its own; \"*\" stands for several, so a slash must end \
                    its path: \"/tmp/\"";
        let (first, second) = (quoted(first), quoted(&answer.name));
        w.err(at.at, format!("the answers {first} and {second} are both put at {place}"), hint);
    }
}

/// What a profile boots that cannot be booted now.
fn waits(w: &mut Walk<'_>, at: Spot, why: String, unready: &mut Option<String>) -> Boot {
    let hint = "its machines wait until it can be read; `pilotlight import` says what an image is";
    w.note(at, &why, hint);
    *unready = Some(why);
    Boot {
        start: Start::Script(Vec::new()),
        ..Boot::linux(Source::Url(String::new()), Vec::new(), "")
    }
}

/// Settings, where there is a table of them.
fn settings_of(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    title: &'static str,
) -> Option<serde_json::Map<String, serde_json::Value>> {
    if !t.has("settings") {
        return None;
    }
    let own = t.table(w, "settings", title);
    let found = settings::settings(w, &own);
    settings::agree(w, own.at, &found);
    Some(found)
}

/// Files that an installer wants of the user.
fn parts(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    profile: &str,
    homes: &Homes<'_>,
) -> BTreeMap<String, Source> {
    let t = t.table(w, "parts", "the profile's `parts`");
    let mut found = BTreeMap::new();
    for key in t.keys() {
        let Some(v) = t.text(w, key.value) else { continue };
        w.keep(format!("{profile}/part/{}", key.value), v.at);
        found.extend(source(w, key.value, v, homes).map(|s| (key.value.to_string(), s)));
    }
    found
}

/// Kernel and initrds as the profile names them itself.
fn sources(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    key: &str,
    homes: &Homes<'_>,
) -> (Option<Source>, Vec<Initrd>) {
    if !t.has("install") {
        let hint =
            "write kernel = \"NAME/path\", or a URL, or install = \"debian-12\" and the like";
        t.missing(w, "kernel", hint);
    }
    let kernel = t.text(w, "kernel").and_then(|v| {
        w.keep(format!("{key}/kernel"), v.at);
        source(w, "kernel", v, homes)
    });
    (kernel, initrds(w, t, key, homes))
}

fn initrds(w: &mut Walk<'_>, t: &Table<'_>, key: &str, homes: &Homes<'_>) -> Vec<Initrd> {
    let mut initrds = Vec::new();
    for (n, v) in t.texts(w, "initrd").into_iter().enumerate() {
        w.keep(format!("{key}/initrd/{n}"), v.at);
        initrds.extend(source(w, "initrd", v, homes).map(Initrd::from));
    }
    initrds
}

/// A path of the catalogue: `MIRROR/path`, or all of a mirror.
fn mirrored(text: &str) -> Option<Source> {
    let (mirror, path) = text.split_once('/').unwrap_or((text, ""));
    if mirror.is_empty() {
        return None;
    }
    Some(Source::Mirror { mirror: mirror.into(), path: path.into() })
}

/// A kernel or an initrd whose folder or mirror is declared.
fn source(w: &mut Walk<'_>, key: &str, v: Val<&str>, homes: &Homes<'_>) -> Option<Source> {
    let found = w.check(v, |s| words::source(key, s))?.value;
    let Source::Ours { folder: home, path } = found else { return Some(found) };
    if homes.folders.contains_key(home.as_str()) {
        return Some(Source::Ours { folder: home, path });
    }
    if homes.mirrors.contains_key(home.as_str()) {
        return Some(Source::Mirror { mirror: home, path });
    }
    let hint = format!("declare a [[files]] or a [[mirror]] with name = {}", quoted(&home));
    let known = homes.folders.keys().chain(homes.mirrors.keys());
    let hint = w.nearest(&home, known.map(|k| &**k), hint);
    w.err(v.at, format!("there is no folder and no mirror {}", quoted(&home)), hint);
    None
}

fn answers(w: &mut Walk<'_>, t: &Table<'_>, profile: &str) -> Vec<Answer> {
    let t = t.table(w, "answers", "the profile's `answers`");
    let mut found = Vec::new();
    for key in t.keys() {
        let name = w.check(key, |s| words::name("an answer", s));
        let file = t.path(w, key.value);
        if let (Some(name), Some(file)) = (name, file) {
            w.keep(format!("{profile}/answer/{}", name.value), file.at);
            let template = Template::File(file.value);
            let name = name.value.to_string();
            found.push(Answer { name, template, crlf: false, carried: None });
        }
    }
    found
}

/// The machines, and the addresses that are reserved for them.
fn machines(
    w: &mut Walk<'_>,
    top: &Table<'_>,
    offers: &Offers<'_>,
) -> (Vec<Machine>, Vec<Val<Ipv4Addr>>) {
    let (mut found, mut names) = (Vec::new(), Names::new());
    let mut matches = HashMap::new();
    let mut addresses = HashMap::new();
    let mut reserved = Vec::new();
    for t in top.tables(w, "machine", "[[machine]]") {
        let name = name(w, &t, "machine", &mut names);
        let by = matching(w, &t);
        if by != Match::default()
            && let Some(first) = matches.insert(format!("{by:?}"), t.at)
        {
            let message = "an earlier [[machine]] is matched by the same";
            w.clash(t.at, first, message, "the first that agrees is taken, so leave one out");
        }
        let address = address(w, &t, &by);
        if let Some(a) = address {
            if let Some(first) = addresses.insert(a.value, a.at) {
                let message = format!("address {} is reserved twice", a.value);
                w.clash(a.at, first, message, "each machine needs one of its own");
            }
            reserved.push(a);
        }
        found.extend(machine(w, &t, name, by, address.map(|a| a.value), offers));
    }
    (found, reserved)
}

fn matching(w: &mut Walk<'_>, t: &Table<'_>) -> Match {
    const KEYS: [&str; 5] = ["mac", "uuid", "serial", "vendor", "arch"];
    if !KEYS.iter().any(|key| t.has(key)) {
        let hint = format!("give it at least one of {}", KEYS.join(", "));
        w.err(t.at, "this [[machine]] has nothing to be matched by", hint);
    }
    let mac = t.text(w, "mac").and_then(|v| {
        w.check(v, |s| {
            let pattern = s.parse::<MacPattern>();
            pattern.map_err(|_| {
                let hint = "write six pairs of hex digits, like 52:54:00:12:34:56, or * for the \
                            rest, like 52:54:00:*";
                (format!("{} is no MAC address", quoted(s)), hint.to_string())
            })
        })
    });
    let uuid = t.text(w, "uuid").and_then(|v| {
        w.check(v, |s| {
            uuid::Uuid::parse_str(s).map_err(|_| {
                let hint = "write it like 01234567-89ab-cdef-0123-456789abcdef";
                (format!("{} is no UUID", quoted(s)), hint.to_string())
            })
        })
    });
    Match {
        mac: mac.map(|v| v.value),
        uuid: uuid.map(|v| v.value.hyphenated().to_string()),
        serial: told(w, t, "serial"),
        vendor: told(w, t, "vendor"),
        arch: t.text(w, "arch").and_then(|v| arch(w, v)),
    }
}

/// What a machine tells of itself: SMBIOS strings are one line.
fn told(w: &mut Walk<'_>, t: &Table<'_>, key: &str) -> Option<String> {
    let v = t.text(w, key)?;
    if v.value.trim().is_empty() {
        w.err(v.at, format!("`{key}` is empty"), "leave it out if it does not matter");
        return None;
    }
    w.check(v, |s| words::line(&format!("`{key}`"), s, LINE_LIMIT)).map(|v| v.value.to_string())
}

fn address(w: &mut Walk<'_>, t: &Table<'_>, by: &Match) -> Option<Val<Ipv4Addr>> {
    let v = t.text(w, "address")?;
    let address = subnet::address(w, v)?;
    if by.mac.as_ref().and_then(MacPattern::exact).is_none() {
        let message = "an address can be reserved only for one MAC address";
        w.err(address.at, message, "give the machine mac = \"…\", without *");
        return None;
    }
    Some(address)
}

fn machine(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    name: Option<Val<&str>>,
    by: Match,
    address: Option<Ipv4Addr>,
    offers: &Offers<'_>,
) -> Option<Machine> {
    let profile = t.text(w, "profile");
    if let (Some(p), Some(arch)) = (profile, by.arch) {
        refuse_foreign(w, p, arch, offers);
    }
    if let Some(p) = profile
        && p.value != LOCAL_DISK
        && !offers.names.contains_key(p.value)
    {
        let known = offers.names.keys().map(|k| &**k).chain([LOCAL_DISK]);
        let hint = w.nearest(p.value, known, "declare it as a [[profile]]");
        let message = format!("there is no profile {}", quoted(p.value));
        match offers.watches {
            // One image that is away must not take everybody's configuration with it.
            true => w.note(p.at, message + " at the moment: this machine waits", hint),
            false => w.err(p.at, message, hint),
        }
    }
    let hostname = t.text(w, "hostname").and_then(|v| w.check(v, |s| words::host("host name", s)));
    let loader = loader(w, t, "loader");
    let vars = t.table(w, "vars", "the machine's `vars`").values(w);
    let key = name.map_or(String::new(), |n| format!("machine/{}", n.value));
    let settings = settings_of(w, t, "[machine.settings]").unwrap_or_default();
    let secrets = life::secrets(w, t, "the machine's `secrets`", &key);
    let power = life::power(w, t, &by, &key);
    let name = name?;
    w.keep(key.clone(), name.at);
    if let Some(loader) = loader {
        w.keep(format!("{key}/loader"), loader.at);
    }
    Some(Machine {
        name: name.value.to_string(),
        matches: by,
        profile: profile.map(|p| p.value.to_string()),
        address,
        hostname: hostname.map(|h| h.value.to_string()),
        loader: loader.map(|l| l.value.to_string()),
        vars,
        settings,
        secrets,
        power,
    })
}

/// A kernel for another processor would end the boot in silence.
fn refuse_foreign(w: &mut Walk<'_>, profile: Val<&str>, arch: &str, offers: &Offers<'_>) {
    let Some(of) = offers.installs.get(profile.value) else { return };
    if of.bios_only && arch.starts_with("uefi") {
        let message = format!(
            "the profile {} installs {}, which BIOS alone can start, and this machine is {}",
            quoted(profile.value),
            quoted(&of.what),
            quoted(arch)
        );
        let hint =
            "name another profile, or switch the machine to BIOS boot and write arch = \"bios\"";
        w.err(profile.at, message, hint);
        return;
    }
    let runs = |f: &&Firmware| catalog::runs_on(of.arch, f.cpu);
    let Some(firmware) = Firmware::by_name(arch).filter(|f| !runs(f)) else { return };
    let message = format!(
        "the profile {} installs {}, which is for {}, and this machine is {}",
        quoted(profile.value),
        quoted(&of.what),
        of.arch,
        quoted(arch)
    );
    let hint = match of.entry.map(|entry| entry.built_for(firmware.cpu)) {
        Some(Some(other)) => format!("name a profile with install = {}", quoted(&other.name)),
        Some(None) => {
            "the catalogue has no other for it; name a profile with a kernel of yours".into()
        }
        None => format!("name a profile with a medium for {arch}"),
    };
    w.err(profile.at, message, hint);
}

/// What the mode makes of the subnets.
fn of_mode(
    w: &mut Walk<'_>,
    mode: Mode,
    mode_at: Spot,
    subnets: &[Val<Subnet>],
    nothing_reserved: bool,
) {
    if mode == Mode::Full {
        // Of `[[subnet.option]]` it is no option: `dns` is what sets it.
        for s in subnets.iter().filter(|s| s.value.dns.is_empty()) {
            w.note(
                s.at,
                "this [[subnet]] names no name server",
                "write dns = \"…\": the installers of Ubuntu and Debian stop and wait for one",
            );
        }
    }
    match (mode, subnets.first()) {
        (Mode::Full, None) => w.err(
            mode_at,
            "mode \"full\" hands out addresses, and there is no [[subnet]]",
            "declare one with its network and range, or write mode = \"proxy\"",
        ),
        (Mode::Full, _)
            if nothing_reserved && subnets.iter().all(|s| s.value.ranges.is_empty()) =>
        {
            let message = "mode \"full\" has no address to hand out";
            w.err(mode_at, message, "give a [[subnet]] a range, or a [[machine]] an address");
        }
        (Mode::Proxy | Mode::Off, Some(s)) => {
            let hint = "write mode = \"full\" under [dhcp] to hand out addresses";
            w.note(s.at, "a [[subnet]] is used in mode \"full\" only", hint);
        }
        _ => {}
    }
}

/// A reserved address is a machine's in one of the subnets.
fn reservations(w: &mut Walk<'_>, subnets: &[Val<Subnet>], reserved: &[Val<Ipv4Addr>]) {
    let mut sorted: Vec<&Subnet> = subnets.iter().map(|s| &s.value).collect();
    sorted.sort_by_key(|s| s.network.network());
    for a in reserved {
        let after = sorted.partition_point(|s| s.network.network() <= a.value);
        let home = after.checked_sub(1).map(|i| sorted[i]);
        match home.filter(|s| s.network.contains(&a.value)) {
            None => {
                let message = format!("no [[subnet]] holds the address {}", a.value);
                w.err(a.at, message, "addresses are reserved in the subnets of mode \"full\"");
            }
            Some(s) => {
                let ends = [s.network.network(), s.network.broadcast(), s.broadcast];
                if ends.contains(&a.value) {
                    let message = format!("{} is no machine's address in {}", a.value, s.network);
                    w.err(a.at, message, "it is the network's own, or its broadcast address");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key() {
        const OPENS: [&str; 6] = ["[", "[[", "[[subnet.", "[ipxe.", "[profile.", "[machine."];
        let example = include_str!("../../assets/pilotlight.toml");
        let lines: Vec<&str> = example.lines().map(str::trim_start).collect();
        for (title, keys) in SCHEMA {
            for key in *keys {
                let shown = lines.iter().any(|l| {
                    l.starts_with(&format!("{key} = "))
                        || ["{ ", ", "].iter().any(|b| l.contains(&format!("{b}{key} = ")))
                        || OPENS.iter().any(|open| {
                            l.strip_prefix(open).is_some_and(|l| l.starts_with(&format!("{key}]")))
                        })
                });
                assert!(shown, "{key} of {title}");
            }
        }
    }
}
