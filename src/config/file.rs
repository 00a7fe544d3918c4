//! The configuration as written, to the configuration as used. No disk, no clock.
//!
//! 1. Every file is read as TOML; if one is not, nothing else is said.
//! 2. The tables of all files become one: arrays of tables add up, what is set twice is refused.
//! 3. Each table is walked, and each value checked by itself.
//! 4. Then what only all of them tell: names that must exist, addresses that must be free, what
//!    `full` mode needs.
//!
//! Everything that is wrong is collected, up to [`super::report::ERROR_LIMIT`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::answers;
use super::catalog::{self, Entry};
use super::life;
use super::mirrors;
use super::report::{Errors, Note};
use super::subnet::{self, subnet};
use super::walk::{Schema, Spot, TOP, Table, Val, Walk, quoted};
use super::words::{self, LINE_LIMIT, TITLE_LIMIT};
use super::{
    Config, Dhcp, Folder, Http, Ipxe, LOCAL_DISK, Menu, Mirror, Mode, OwnCertificate, Places,
    Subnet, Tftp, Tls,
};
use crate::model::profile::{Answer, Source, Template};
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
    ("[cache]", &["dir", "limit", "offline", "prefetch"]),
    (
        "[[mirror]]",
        &["name", "urls", "verify", "keys", "redirects", "pin", "private", "connections"],
    ),
    (
        "[[profile]]",
        &[
            "name", "title", "kind", "menu", "install", "kernel", "initrd", "args", "console",
            "answers", "vars", "secrets", "timeout", "attempts",
        ],
    ),
    (
        "[[machine]]",
        &[
            "name", "mac", "uuid", "serial", "vendor", "arch", "profile", "address", "hostname",
            "loader", "vars", "secrets", "power",
        ],
    ),
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
    let mut w = Walk::new(files);
    let documents = documents(&mut w, files);
    let mut config = Config::default();
    if w.errors.is_empty() {
        let top = Table::top(&mut w, SCHEMA, &documents);
        config = walk(&mut w, &top);
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

fn walk<'a>(w: &mut Walk<'_>, top: &Table<'a>) -> Config {
    let default = Config::default();
    let (mut dhcp, mode_at) = dhcp(w, top, default.dhcp);
    let (subnets, sound) = subnets(w, top);
    let (folders, folder_names) = folders(w, top);
    let (mut mirrors, mirror_names) = mirrors::mirrors(w, top, &folder_names);
    let homes = Homes { folders: folder_names, mirrors: mirror_names };
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
pub type Names<'a> = HashMap<&'a str, Spot>;

/// Where a kernel can be: names of folders and of mirrors.
struct Homes<'a> {
    folders: Names<'a>,
    mirrors: Names<'a>,
}

/// What a machine can be given: the names of the profiles, and what each of them takes from the
/// catalogue.
struct Offers<'a> {
    names: Names<'a>,
    installs: HashMap<&'a str, &'static Entry>,
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
        names.insert(v.value, v.at);
    }
    w.check(v, |s| words::name(&format!("a {kind}"), s))
}

fn folders<'a>(w: &mut Walk<'_>, top: &Table<'a>) -> (Vec<Folder>, Names<'a>) {
    let (mut found, mut names) = (Vec::new(), Names::new());
    for t in top.tables(w, "files", "[[files]]") {
        let name = name(w, &t, "folder", &mut names);
        t.missing(w, "dir", "write dir = \"…\", the folder to serve");
        let dir = t.path(w, "dir");
        if let (Some(name), Some(dir)) = (name, dir) {
            w.keep(format!("files/{}", name.value), dir.at);
            found.push(Folder { name: name.value.to_string(), dir: dir.value });
        }
    }
    (found, names)
}

/// The profiles, what machines can name of them, and the mirrors that they have from the catalogue.
fn profiles<'a>(
    w: &mut Walk<'_>,
    top: &Table<'a>,
    homes: &Homes<'_>,
) -> (Vec<Profile>, Offers<'a>, Vec<Mirror>) {
    let (mut found, mut names, mut mirrors) = (Vec::new(), Names::new(), Vec::new());
    let mut installs = HashMap::new();
    for t in top.tables(w, "profile", "[[profile]]") {
        let name = name(w, &t, "profile", &mut names);
        if let Some(n) = name.filter(|n| n.value == LOCAL_DISK) {
            let message = format!("no profile can be called {}", quoted(LOCAL_DISK));
            w.err(n.at, message, "that name stands for a machine's own disk; take another");
        }
        let install = install(w, &t, homes);
        if let Some(entry) = install {
            mirrors::from_catalog(w, entry, &homes.mirrors, &mut mirrors);
            installs.extend(name.map(|n| (n.value, entry.value)));
        }
        found.extend(profile(w, &t, name, homes, install));
    }
    (found, Offers { names, installs }, mirrors)
}

/// The entry of the catalogue that a profile names.
fn install(w: &mut Walk<'_>, t: &Table<'_>, homes: &Homes<'_>) -> Option<Val<&'static Entry>> {
    let v = t.text(w, "install")?;
    for key in ["kernel", "initrd"].into_iter().filter(|key| t.has(key)) {
        let message = format!("`{key}` is given beside `install`, which brings its own");
        w.err(t.key_at(key), message, "leave one of them out");
    }
    let Some(value) = catalog::entry(v.value) else {
        let known = catalog::all().entries.iter().map(|e| e.name.as_str());
        let hint = match w.nearest(v.value, known, "") {
            near if near.is_empty() => "`pilotlight catalog` lists what there is".to_string(),
            near => format!("{near} `pilotlight catalog` lists them"),
        };
        w.err(v.at, format!("the catalogue has no {}", quoted(v.value)), hint);
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
    Some(Val { value, at: v.at })
}

fn profile(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    name: Option<Val<&str>>,
    homes: &Homes<'_>,
    install: Option<Val<&Entry>>,
) -> Option<Profile> {
    let key = name.map_or(String::new(), |n| format!("profile/{}", n.value));
    let entry = install.map(|i| i.value);
    let (kernel, initrds) = match entry {
        Some(entry) => {
            (mirrored(&entry.kernel), entry.initrd.iter().flat_map(|i| mirrored(i)).collect())
        }
        None => sources(w, t, &key, homes),
    };
    let title = title(w, t);
    let args = t.text(w, "args");
    let args = args.and_then(|v| w.check(v, |s| words::line("`args`", s, LINE_LIMIT)));
    let console = t.text(w, "console").and_then(|v| w.check(v, words::console));
    let answers = answers(w, t, &key);
    let menu = t.flag(w, "menu").map(|m| m.value);
    let vars = t.table(w, "vars", "the profile's `vars`").values(w);
    let secrets = life::secrets(w, t, "the profile's `secrets`", &key);
    let kind = life::kind(w, t);
    let (timeout, attempts) = (life::timeout(w, t), life::attempts(w, t));
    if let Some(args) = args.filter(|a| words::names_in_tags(a.value, "secrets")) {
        let hint = "arguments are in scripts, on screens and in /proc/cmdline, for all to read; \
                    write {{ secrets.NAME }} in an answer";
        w.err(args.at, "`args` cannot have secrets", hint);
    }
    let name = name?;
    if menu.is_none() && !answers.is_empty() {
        let message = format!(
            "profile {} hands out answer files, so the menu of unknown machines leaves it out",
            quoted(name.value)
        );
        w.note(name.at, message, "menu = true offers it to everybody on the network");
    }
    w.keep(key.clone(), name.at);
    let install_at = install.map(|i| i.at);
    let args_at = args.map(|a| a.at).or(install_at);
    for (what, at) in [("title", title.map(|t| t.at)), ("args", args_at), ("install", install_at)] {
        if let Some(at) = at {
            w.keep(format!("{key}/{what}"), at);
        }
    }
    let place = w.place(t.at);
    // What the user appends comes last: of two arguments that say the same, the last one counts.
    let args = [entry.map_or("", |e| &e.args), args.map_or("", |v| v.value)];
    Some(Profile {
        name: name.value.to_string(),
        title: title.map_or(entry.map_or(name.value, |e| &e.title), |v| v.value).to_string(),
        menu: menu.unwrap_or(answers.is_empty()),
        kernel: kernel?,
        initrds,
        args: args.join(" ").trim().to_string(),
        answers,
        console: console.map(|v| v.value.to_string()),
        vars,
        secrets,
        kind,
        timeout,
        attempts,
        at: format!("{}:{}", place.file.display(), place.line),
    })
}

/// Kernel and initrds as the profile names them itself.
fn sources(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    key: &str,
    homes: &Homes<'_>,
) -> (Option<Source>, Vec<Source>) {
    if !t.has("install") {
        let hint =
            "write kernel = \"NAME/path\", or a URL, or install = \"debian-12\" and the like";
        t.missing(w, "kernel", hint);
    }
    let kernel = t.text(w, "kernel").and_then(|v| {
        w.keep(format!("{key}/kernel"), v.at);
        source(w, "kernel", v, homes)
    });
    let mut initrds = Vec::new();
    for (n, v) in t.texts(w, "initrd").into_iter().enumerate() {
        w.keep(format!("{key}/initrd/{n}"), v.at);
        initrds.extend(source(w, "initrd", v, homes));
    }
    (kernel, initrds)
}

/// A path of the catalogue: `MIRROR/path`.
fn mirrored(text: &str) -> Option<Source> {
    let (mirror, path) = text.split_once('/')?;
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
    let hint = w.nearest(&home, known.copied(), hint);
    w.err(v.at, format!("there is no folder and no mirror {}", quoted(&home)), hint);
    None
}

fn answers(w: &mut Walk<'_>, t: &Table<'_>, profile: &str) -> Vec<Answer> {
    let t = t.table(w, "answers", "the profile's `answers`");
    let mut found = Vec::new();
    for key in t.keys() {
        let name = w.check(key, |s| words::name("an answer", s));
        if let (Some(name), Some(template)) = (name, template(w, &t, key.value)) {
            w.keep(format!("{profile}/answer/{}", name.value), template.at);
            found.push(Answer { name: name.value.to_string(), template: template.value });
        }
    }
    found
}

/// A file, or one that is compiled in.
fn template(w: &mut Walk<'_>, t: &Table<'_>, key: &str) -> Option<Val<Template>> {
    let v = t.text(w, key)?;
    let Some(name) = v.value.strip_prefix(answers::PREFIX) else {
        return Some(Val { value: Template::File(w.file_at(key, v)?), at: v.at });
    };
    let value = answers::get(name);
    if value.is_none() {
        let known = answers::names().collect::<Vec<_>>().join(", ");
        let hint = w.nearest(name, answers::names(), format!("there are {known}"));
        w.err(v.at, format!("no template is built in as {}", quoted(name)), hint);
    }
    Some(Val { value: value?, at: v.at })
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
        let known = offers.names.keys().copied().chain([LOCAL_DISK]);
        let hint = w.nearest(p.value, known, "declare it as a [[profile]]");
        w.err(p.at, format!("there is no profile {}", quoted(p.value)), hint);
    }
    let hostname = t.text(w, "hostname").and_then(|v| w.check(v, |s| words::host("host name", s)));
    let loader = loader(w, t, "loader");
    let vars = t.table(w, "vars", "the machine's `vars`").values(w);
    let key = name.map_or(String::new(), |n| format!("machine/{}", n.value));
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
        secrets,
        power,
    })
}

/// A kernel for another processor would end the boot in silence.
fn refuse_foreign(w: &mut Walk<'_>, profile: Val<&str>, arch: &str, offers: &Offers<'_>) {
    let Some(entry) = offers.installs.get(profile.value) else { return };
    let Some(firmware) = Firmware::by_name(arch).filter(|f| !entry.runs_on(f.cpu)) else { return };
    let message = format!(
        "the profile {} installs {}, which is for {}, and this machine is {}",
        quoted(profile.value),
        quoted(&entry.name),
        entry.arch,
        quoted(arch)
    );
    let hint = match entry.built_for(firmware.cpu) {
        Some(other) => format!("name a profile with install = {}", quoted(&other.name)),
        None => "the catalogue has no other for it; name a profile with a kernel of yours".into(),
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
                        || l.contains(&format!("{{ {key} = "))
                        || OPENS.iter().any(|open| {
                            l.strip_prefix(open).is_some_and(|l| l.starts_with(&format!("{key}]")))
                        })
                });
                assert!(shown, "{key} of {title}");
            }
        }
    }
}
