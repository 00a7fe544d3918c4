//! `[profile.settings]` and `[machine.settings]`: a few words that the installers' answers are made
//! of.
//!
//! 1. Each is checked at the door, so that no template has to escape anything: none holds a quote,
//!    a backslash, `$`, a backtick, `<`, `>`, `&` or a line break.
//! 2. [`seen`] gives what a template sees: the defaults, the profile's over them, the machine's over
//!    those, and what only the machine itself tells: the network card that it booted with.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use jiff::tz::TimeZoneDatabase;
use serde_json::{Map, Value, json};

use super::Config;
use super::walk::{Spot, Table, Val, Walk, nearest, quoted};
use super::words::{self, Wrong};
use crate::model::{Facts, Machine, Profile};

/// All the keys.
pub const KEYS: &[&str] = &[
    "language",
    "keyboard",
    "timezone",
    "user",
    "keys",
    "packages",
    "disk",
    "layout",
    "filesystem",
    "swap",
    "network",
    "selinux",
    "firewall",
    "kernel-args",
    "source",
];
/// Of a static network.
pub const NETWORK_KEYS: &[&str] = &["address", "gateway", "dns"];

/// Characters of one value; a key of SSH has up to some hundred.
const LIMIT: usize = 2000;
/// More memory than that no machine has; in MiB.
const SWAP: u64 = 1 << 24;

/// What a table of settings says; names as templates write them, with `_`.
pub fn settings(w: &mut Walk<'_>, t: &Table<'_>) -> Map<String, Value> {
    let mut found = Map::new();
    let mut keep = |key: &str, value: Option<Value>| {
        found.extend(value.map(|value| (key.replace('-', "_"), value)));
    };
    for (key, check) in [
        ("language", language as fn(&str) -> Result<&str, Wrong>),
        ("keyboard", keyboard),
        ("timezone", timezone),
        ("user", user),
        ("filesystem", filesystem),
        ("kernel-args", text),
    ] {
        let v = t.text(w, key).and_then(|v| w.check(v, check));
        if let Some(v) = v.filter(|v| key == "keyboard" && !keyboards().any(|k| k == v.value)) {
            let hint = w.nearest(v.value, keyboards(), "the installer is told it as it is");
            w.note(v.at, format!("no keyboard {} is known here", quoted(v.value)), hint);
        }
        keep(key, v.map(|v| v.value.into()));
    }
    for (key, check) in
        [("keys", ssh_key as fn(&str) -> Result<&str, Wrong>), ("packages", package)]
    {
        if t.has(key) {
            let all = t.texts(w, key);
            let all: Vec<Value> =
                all.into_iter().filter_map(|v| Some(w.check(v, check)?.value.into())).collect();
            keep(key, Some(all.into()));
        }
    }
    for (key, choices) in [
        ("layout", &["plain", "lvm", "raid1"] as &[&str]),
        ("selinux", &["enforcing", "permissive", "disabled"]),
        ("source", &["server", "distribution"]),
    ] {
        keep(key, one_of(w, t, key, choices));
    }
    keep("firewall", t.flag(w, "firewall").map(|v| v.value.into()));
    keep("swap", swap(w, t));
    keep("disk", disk(w, t));
    keep("network", network(w, t));
    found
}

fn one_of(w: &mut Walk<'_>, t: &Table<'_>, key: &str, choices: &[&str]) -> Option<Value> {
    let v = t.text(w, key)?;
    if choices.contains(&v.value) {
        return Some(v.value.into());
    }
    let list = choices.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(" or ");
    let hint = w.nearest(v.value, choices.iter().copied(), format!("it is {list}"));
    w.err(v.at, format!("`{key}` cannot be {}", quoted(v.value)), hint);
    None
}

fn wrong<T>(message: String, hint: &str) -> Result<T, Wrong> {
    Err((message, hint.into()))
}

/// What means nothing to a shell, to XML, to YAML in quotes or to JSON.
fn text(text: &str) -> Result<&str, Wrong> {
    let live = |c: char| c.is_control() || "'\"\\$`<>&".contains(c);
    if text.len() > LIMIT {
        return wrong(format!("this has more than {LIMIT} characters"), "shorten it");
    }
    match text.chars().find(|c| live(*c)) {
        Some(c) => wrong(
            format!("{} has {c:?}, which means something to some installer", quoted(text)),
            "leave it out, or give the profile an answer file of your own",
        ),
        None => Ok(text),
    }
}

fn of_letters<'a>(given: &'a str, more: &str, what: &str, hint: &str) -> Result<&'a str, Wrong> {
    let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    if given.is_empty() || given.len() > LIMIT || !given.chars().all(fits) {
        return wrong(format!("{} is no {what}", quoted(given)), hint);
    }
    Ok(given)
}

fn language(given: &str) -> Result<&str, Wrong> {
    const HINT: &str = "write a locale like \"en_US.UTF-8\" or \"C.UTF-8\"";
    of_letters(given, "_.@-", "language", HINT)?;
    // language_TERRITORY.charset@modifier (locale(7)).
    let name = given.split('@').next().unwrap_or(given);
    let (place, charset) = name.split_once('.').map_or((name, None), |(p, c)| (p, Some(c)));
    let is = |text: &str, length: &[usize], fits: fn(&char) -> bool| {
        length.contains(&text.len()) && text.chars().all(|c| fits(&c))
    };
    let known = match place.split_once('_') {
        None => place == "C",
        Some((language, land)) => {
            is(language, &[2, 3], char::is_ascii_lowercase)
                && is(land, &[2], char::is_ascii_uppercase)
        }
    };
    match known && charset.is_none_or(|c| !c.is_empty()) {
        true => Ok(given),
        false => wrong(format!("{} is no language", quoted(given)), HINT),
    }
}

/// The names that installers take, as far as they are known here; a system may know more, so any
/// other is no error.
fn keyboards() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("../../assets/keyboards.txt").lines();
    lines.filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

fn keyboard(given: &str) -> Result<&str, Wrong> {
    of_letters(given, "_.@-", "keyboard", "write a layout like \"us\" or \"de\"")
}

fn timezone(given: &str) -> Result<&str, Wrong> {
    const HINT: &str = "write it like \"Europe/Berlin\" or \"Etc/UTC\"";
    of_letters(given, "_+-/", "time zone", HINT)?;
    // Ours may be older than this machine's, and this machine may have none.
    let (ours, system) = (TimeZoneDatabase::bundled(), jiff::tz::db());
    if ours.get(given).or_else(|_| system.get(given)).is_ok() {
        return Ok(given);
    }
    let names: Vec<String> = ours.available().map(|name| name.to_string()).collect();
    let near = nearest(given, names.iter().map(String::as_str));
    let hint = near.map_or(HINT.to_string(), |n| format!("did you mean {}?", quoted(n)));
    wrong(format!("there is no time zone {}", quoted(given)), &hint)
}

fn filesystem(given: &str) -> Result<&str, Wrong> {
    of_letters(given, "", "file system", "write it like \"ext4\" or \"xfs\"")
}

fn package(given: &str) -> Result<&str, Wrong> {
    of_letters(
        given,
        "@^._+:-",
        "package",
        "write a name, or \"@name\" for a group where there are groups",
    )
}

/// As `useradd` takes it (shadow-utils: NAME_REGEX).
fn user(given: &str) -> Result<&str, Wrong> {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let rest = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    if given.starts_with(first) && given.len() <= 32 && given.chars().all(rest) && given != "root" {
        return Ok(given);
    }
    wrong(
        format!("{} is no name for a user", quoted(given)),
        "write small letters, digits, \"-\" and \"_\", 32 at most; root is there anyway",
    )
}

fn ssh_key(given: &str) -> Result<&str, Wrong> {
    let mut words = given.split_whitespace();
    let kind = words
        .next()
        .is_some_and(|kind| ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start)));
    let blob = words.next().is_some_and(|b| b.len() > 30 && b.starts_with("AAAA"));
    match kind && blob {
        true => text(given),
        false => wrong(
            format!("{} is no public key of SSH", quoted(given)),
            "copy the line of the .pub file, like \"ssh-ed25519 AAAA… name\"",
        ),
    }
}

/// MiB; 0 is none.
fn swap(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Value> {
    let v = t.text(w, "swap")?;
    let bytes = match v.value {
        "none" => Some(0),
        text => words::bytes(text),
    };
    match bytes.map(|b| b.div_ceil(1 << 20)).filter(|mib| *mib <= SWAP) {
        Some(mib) => Some(mib.into()),
        None => {
            let message = format!("`swap` is no size: {}", quoted(v.value));
            w.err(v.at, message, "write \"2 GiB\" and the like, or \"none\"");
            None
        }
    }
}

/// Which disks may be written over.
fn disk(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Value> {
    const RULES: [&str; 3] = ["only", "smallest", "largest"];
    const HINT: &str = "write \"only\" (the machine's single disk), \"smallest\", \"largest\", or \
                        names: \"/dev/sda\", \"/dev/disk/by-id/nvme-*\"";
    let all = t.texts(w, "disk");
    if let [one] = &all[..]
        && RULES.contains(&one.value)
    {
        return Some(json!({ "rule": one.value, "names": [] }));
    }
    let mut names = Vec::new();
    for v in &all {
        let fits = |c: char| c.is_ascii_alphanumeric() || "/_.:*?-".contains(c);
        let name = v.value.strip_prefix("/dev/");
        if name.is_none_or(|n| n.is_empty() || n.contains("..") || !n.chars().all(fits)) {
            let hint = w.nearest(v.value, RULES, HINT);
            w.err(v.at, format!("`disk` cannot be {}", quoted(v.value)), hint);
            return None;
        }
        names.push(v.value);
    }
    if all.is_empty() {
        if t.has("disk") {
            w.err(t.key_at("disk"), "`disk` names no disk", HINT);
        }
        return None;
    }
    Some(json!({ "rule": "named", "names": names }))
}

fn network(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Value> {
    const HINT: &str =
        "write \"dhcp\", \"static\", or { address = \"10.0.0.50/24\", gateway = …, dns = … }";
    if !t.has("network") {
        return None;
    }
    if !t.is_table("network") {
        let v = t.text(w, "network")?;
        if !["dhcp", "static"].contains(&v.value) {
            w.err(v.at, format!("`network` cannot be {}", quoted(v.value)), HINT);
            return None;
        }
        return Some(json!({ "mode": v.value }));
    }
    let t = t.table(w, "network", "`network` of settings");
    let (mut found, mut own) = (json!({ "mode": "static" }), None);
    if let Some(v) = t.text(w, "address") {
        let Ok(net) = v.value.parse::<Ipv4Net>() else {
            w.err(v.at, format!("{} is no address with its prefix", quoted(v.value)), HINT);
            return None;
        };
        found = over_address(found, net.addr(), net);
        own = Some(net.trunc());
    }
    if let Some(v) = t.text(w, "gateway") {
        let gateway = address(w, v);
        if let (Some(gateway), Some(net)) = (gateway, own)
            && !net.contains(&gateway)
        {
            let message = format!("the gateway {gateway} is not in the address's network, {net}");
            w.err(v.at, message, "a machine reaches a gateway only in its own network");
        }
        found["gateway"] = json!(gateway);
    }
    if t.has("dns") {
        let dns: Vec<Ipv4Addr> =
            t.texts(w, "dns").into_iter().filter_map(|v| address(w, v)).collect();
        found["dns"] = json!(dns);
    }
    Some(found)
}

fn address(w: &mut Walk<'_>, v: Val<&str>) -> Option<Ipv4Addr> {
    let parsed = v.value.parse().ok();
    if parsed.is_none() {
        w.err(v.at, format!("{} is no IPv4 address", quoted(v.value)), "write it like 10.0.0.1");
    }
    parsed
}

fn over_address(mut found: Value, address: Ipv4Addr, net: Ipv4Net) -> Value {
    found["address"] = json!(address);
    found["prefix"] = json!(net.prefix_len());
    found["netmask"] = json!(net.netmask());
    found
}

/// Two settings of one table that do not go together: two disks for a mirror, one for the rest.
pub fn agree(w: &mut Walk<'_>, at: Spot, settings: &Map<String, Value>) {
    let layout = settings.get("layout").and_then(Value::as_str).unwrap_or("plain");
    let names = settings.get("disk").and_then(|d| d["names"].as_array()).map_or(0, Vec::len);
    if layout == "raid1" && names > 2 {
        w.err(at, "raid1 mirrors two disks, and more are named", "name two");
    }
}

/// The address that a machine's own settings give it: its installer reports from there.
pub fn address_of(machine: &Machine) -> Option<Ipv4Addr> {
    machine.settings.get("network")?.get("address")?.as_str()?.parse().ok()
}

/// What a template sees as `settings`; all keys are there, but for the parts of a static network
/// that nothing tells.
pub fn seen(
    config: &Config,
    profile: &Profile,
    machine: Option<&Machine>,
    facts: &Facts,
) -> Map<String, Value> {
    let Value::Object(mut all) = json!({
        "language": "en_US.UTF-8",
        "keyboard": "us",
        "timezone": "Etc/UTC",
        "user": "admin",
        "keys": [],
        "packages": [],
        "disk": { "rule": "only", "names": [] },
        "layout": "plain",
        "filesystem": "",
        "swap": null,
        "network": { "mode": "dhcp" },
        "selinux": "enforcing",
        "firewall": true,
        "kernel_args": "",
        "source": "server",
    }) else {
        return Map::new();
    };
    let own = machine.map(|m| m.settings.clone()).unwrap_or_default();
    all.extend(profile.settings.clone().unwrap_or_default().into_iter().chain(own));
    all["disk"]["count"] = json!(if all["layout"] == "raid1" { 2 } else { 1 });
    let network = &mut all["network"];
    if network["mode"] == "static" {
        let address = machine.and_then(|m| m.address).or(facts.ip);
        let home = address
            .and_then(|a| Some((a, config.dhcp.subnets.iter().find(|s| s.network.contains(&a))?)));
        if let Some((address, subnet)) = home {
            if network["address"].is_null() {
                *network = over_address(network.clone(), address, subnet.network);
            }
            if network["gateway"].is_null()
                && let Some(router) = subnet.router.first()
            {
                network["gateway"] = json!(router);
            }
            if network["dns"].is_null() {
                network["dns"] = json!(subnet.dns);
            }
        }
    }
    if network["dns"].is_null() {
        network["dns"] = json!([]);
    }
    network["mac"] = json!(facts.mac.to_string());
    all
}
