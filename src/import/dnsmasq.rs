//! dnsmasq.conf (dnsmasq(8)).
//!
//! 1. Lines `KEY=VALUE` and `KEY`, and those of the files that they name, in their place.
//! 2. The ranges first: they make the subnets, and a tag that one of them sets is that subnet's.
//! 3. Then all the rest, each line by its key.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::draft::Draft;
use super::options::{Holds, Told, Word, by_code, of_dnsmasq, told};
use super::{
    Files, Here, INCLUDE_DEPTH, NoFile, Reason, folder_of, name_of, quoted, shown, within,
};
use crate::model::{Mac, MacPattern};

/// Lines of all files.
const LINES: usize = 1 << 20;

struct Line {
    key: String,
    value: String,
    at: Here,
}

impl Line {
    /// For one network, or for the machines of a tag.
    fn is_special(&self) -> bool {
        match self.key.as_str() {
            "domain" => self.value.contains(','),
            "dhcp-option" | "dhcp-option-force" => {
                ["tag:", "net:"].iter().any(|tag| self.value.starts_with(tag))
            }
            _ => false,
        }
    }

    /// The parts of the value; a comma in quotes is none between them.
    fn parts(&self) -> Vec<Word> {
        let mut parts = vec![Word { text: String::new(), quoted: false }];
        let mut inside = false;
        for c in self.value.chars() {
            let Some(last) = parts.last_mut() else { break };
            match c {
                '"' => {
                    inside = !inside;
                    last.quoted = true;
                }
                ',' if !inside => parts.push(Word { text: String::new(), quoted: false }),
                c if c.is_whitespace() && !inside && last.text.is_empty() => {}
                c => last.text.push(c),
            }
        }
        for part in &mut parts {
            part.text.truncate(part.text.trim_end().len());
        }
        parts
    }
}

/// Reads a file and those that it names into the draft.
pub fn import(draft: &mut Draft, files: &dyn Files, file: &Path, text: &str) {
    let dir = folder_of(files, file);
    let stack = vec![files.here().join(file)];
    let mut reader = Reader { draft, files, dir, stack, lines: vec![] };
    reader.file(file, text);
    let lines = reader.lines;
    let mut importer = Importer { draft, tags: HashMap::new(), names: Default::default() };
    importer.look(&lines);
    // What is said of some comes before what is said of all.
    for line in lines.iter().filter(|l| l.is_special()) {
        importer.line(line);
    }
    for line in lines.iter().filter(|l| !l.is_special()) {
        importer.line(line);
    }
    importer.unsaid();
}

struct Reader<'a> {
    draft: &'a mut Draft,
    files: &'a dyn Files,
    dir: PathBuf,
    stack: Vec<PathBuf>,
    lines: Vec<Line>,
}

impl Reader<'_> {
    fn file(&mut self, file: &Path, text: &str) {
        let name: Arc<str> = file.display().to_string().into();
        for (n, whole) in text.lines().enumerate() {
            let line = bare(whole);
            if line.is_empty() {
                continue;
            }
            let at = Here::new(&name, (n + 1, n + 1), line);
            if self.lines.len() >= LINES {
                self.draft.leave(&at, Reason::TooMany(LINES));
                return;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let line = Line { key: key.trim().into(), value: value.trim().into(), at };
            match line.key.as_str() {
                "conf-file" => self.include(&line),
                "conf-dir" => self.folder(&line),
                _ => self.lines.push(line),
            }
        }
    }

    fn include(&mut self, line: &Line) {
        let why = match within(&self.dir, Path::new(&line.value)) {
            None => Reason::NotRead(NoFile::Outside),
            Some(path) if self.stack.contains(&path) => Reason::Endless,
            Some(_) if self.stack.len() >= INCLUDE_DEPTH => Reason::Deep,
            Some(path) => match self.files.read(&path) {
                Ok(text) => {
                    self.stack.push(path.clone());
                    self.file(&shown(self.files, &path), &text);
                    self.stack.pop();
                    return;
                }
                Err(why) => Reason::NotRead(why),
            },
        };
        self.draft.leave(&line.at, why);
    }

    /// `conf-dir=DIR[,SUFFIX…]`: with `*` only files of the suffix, without it all others.
    fn folder(&mut self, line: &Line) {
        let parts = line.parts();
        let dir = parts.first().map_or("", |w| w.text.as_str());
        let listed = within(&self.dir, Path::new(dir))
            .ok_or(NoFile::Outside)
            .and_then(|dir| self.files.list(&dir));
        let all = match listed {
            Ok(all) => all,
            Err(why) => return self.draft.leave(&line.at, Reason::NotRead(why)),
        };
        let (only, without): (Vec<&str>, Vec<&str>) = parts[1..]
            .iter()
            .map(|w| w.text.as_str())
            .filter(|s| !s.is_empty())
            .partition(|s| s.starts_with('*'));
        for path in all {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let taken = only.is_empty() || only.iter().any(|s| name.ends_with(&s[1..]));
            // What dnsmasq leaves out by itself: backups of editors.
            let backup = name.ends_with('~') || (name.starts_with('#') && name.ends_with('#'));
            if taken && !backup && !without.iter().any(|s| name.ends_with(s)) {
                let line = Line { value: path.display().to_string(), ..line.clone() };
                self.include(&line);
            }
        }
    }
}

impl Clone for Line {
    fn clone(&self) -> Line {
        Line { key: self.key.clone(), value: self.value.clone(), at: self.at.clone() }
    }
}

/// A line without its comment: `#` at its beginning or behind a space, outside of quotes.
fn bare(line: &str) -> &str {
    let mut inside = false;
    let mut space = true;
    for (n, c) in line.char_indices() {
        match c {
            '"' => inside = !inside,
            '#' if space && !inside => return line[..n].trim(),
            _ => {}
        }
        space = c.is_whitespace();
    }
    line.trim()
}

struct Importer<'a> {
    draft: &'a mut Draft,
    /// The subnet of a tag that a range sets.
    tags: HashMap<String, Ipv4Net>,
    names: NamesItself,
}

/// Whether dnsmasq told of itself what nothing else was told of.
#[derive(Default)]
struct NamesItself {
    router: bool,
    dns: bool,
    /// The first range: it is told there.
    at: Option<Here>,
}

impl Importer<'_> {
    /// What has to be known before the rest: ranges, and whether it is a DNS server.
    fn look(&mut self, lines: &[Line]) {
        let off = |l: &Line| l.key == "port" && l.value == "0";
        self.names = NamesItself { router: true, dns: !lines.iter().any(off), at: None };
        let routers: Vec<Ipv4Addr> = lines
            .iter()
            .filter(|l| matches!(l.key.as_str(), "dhcp-option" | "dhcp-option-force"))
            .flat_map(Line::parts)
            .filter_map(|w| w.text.parse().ok())
            .collect();
        for line in lines.iter().filter(|l| l.key == "dhcp-range") {
            self.range(line, &routers);
        }
    }

    fn line(&mut self, line: &Line) {
        let at = &line.at;
        match line.key.as_str() {
            "dhcp-range" => {}
            "dhcp-host" => self.host(line),
            "dhcp-option" | "dhcp-option-force" => self.option(line),
            "domain" => self.domain(line),
            "interface" => match line.value.contains(['*', '"']) || line.value.is_empty() {
                true => self.draft.leave(at, Reason::Interface),
                false => {
                    let all = line.parts();
                    let named = all.into_iter().map(|w| (w.text, at.clone()));
                    self.draft.interfaces.extend(named);
                }
            },
            "tftp-root" => self.tftp(line),
            "enable-tftp" if line.value.is_empty() => self.draft.leave(at, Reason::Already),
            "port" if line.value == "0" => self.draft.leave(at, Reason::Already),
            key => self.draft.leave(at, why(key)),
        }
    }

    /// `[tag:…,][set:TAG,]FIRST[,LAST|MODE][,NETMASK[,BROADCAST]][,TIME]`
    fn range(&mut self, line: &Line, routers: &[Ipv4Addr]) {
        let at = &line.at;
        let (mut set, mut only) = (None, false);
        let mut rest: Vec<String> = Vec::new();
        for w in line.parts() {
            match w.text.split_once(':') {
                Some(("set" | "net", tag)) => set = Some(tag.to_string()),
                Some(("interface", _)) => {}
                Some(("tag", _)) => only = true,
                Some(_) => return self.draft.leave(at, Reason::SixOnly),
                None => rest.push(w.text),
            }
        }
        // Machines without the tag got nothing from it.
        if only {
            return self.draft.leave(at, Reason::Restricted);
        }
        let mut rest = rest.iter().map(String::as_str).peekable();
        let Some(first) = rest.next().and_then(|a| a.parse::<Ipv4Addr>().ok()) else {
            return self.draft.leave(at, Reason::NoValue("address"));
        };
        let mode = |w: &&str| matches!(*w, "static" | "proxy");
        let last = rest.next_if(|w| w.parse::<Ipv4Addr>().is_ok());
        let kind = rest.next_if(mode);
        if kind == Some("proxy") {
            match &self.draft.proxy {
                None => self.draft.proxy = Some(at.clone()),
                Some(_) => self.draft.leave(at, Reason::Twice),
            }
            return;
        }
        let last = last.and_then(|a| a.parse().ok()).unwrap_or(first);
        let mask = rest.next_if(|w| w.parse::<Ipv4Addr>().is_ok());
        let broadcast = rest.next_if(|w| w.parse::<Ipv4Addr>().is_ok());
        let network = match mask.and_then(|m| m.parse().ok()) {
            Some(mask) => Ipv4Net::with_netmask(first, mask).ok().map(|n| n.trunc()),
            None => Some(guess(first, last, routers)),
        };
        let Some(network) = network else {
            return self.draft.leave(at, Reason::NoNetmask);
        };
        let Some(subnet) = self.draft.subnet(network, at) else { return };
        if mask.is_none() {
            let note = "The netmask was not written, for dnsmasq takes it from its interface. \
                        Look whether this is it.";
            subnet.note = vec![note.to_string()];
        }
        match kind {
            Some(_) => {}
            None => self.draft.range(network, format!("{first}-{last}"), at),
        }
        if let Some(broadcast) = broadcast {
            let told = Told::Key("broadcast", quoted(broadcast));
            self.draft.tell(network, &told, at);
        }
        if let Some(time) = rest.next() {
            self.lease(network, time, at);
        }
        if rest.next().is_some() {
            self.draft.leave(at, Reason::Syntax);
        }
        if mask.is_none() {
            let guessed = format!("the netmask, {} is a guess", network.netmask());
            self.draft.leave(at, Reason::Guessed(guessed));
        }
        self.names.at.get_or_insert_with(|| at.clone());
        self.tags.extend(set.map(|tag| (tag, network)));
    }

    /// dnsmasq's one time is the most that a client gets, too.
    fn lease(&mut self, network: Ipv4Net, time: &str, at: &Here) {
        let time = match time {
            // A year is the longest lease of ours.
            "infinite" => "1y".to_string(),
            t if t.bytes().all(|b| b.is_ascii_digit()) => format!("{t}s"),
            t => t.to_string(),
        };
        for key in ["lease-time", "max-lease-time"] {
            self.draft.tell(network, &Told::Key(key, quoted(&time)), at);
        }
    }

    /// `[tag:…,]NUMBER|option:NAME[,VALUE…]`
    fn option(&mut self, line: &Line) {
        let at = &line.at;
        let mut tag = None;
        let mut words = line.parts();
        while let Some((kind, name)) = words.first().and_then(|w| w.text.split_once(':')) {
            match kind {
                "tag" | "net" if tag.is_none() => tag = Some(name.to_string()),
                "option" => break,
                "option6" => return self.draft.leave(at, Reason::SixOnly),
                "tag" | "net" => return self.draft.leave(at, Reason::Tagged),
                _ => return self.draft.leave(at, Reason::Vendor),
            }
            words.remove(0);
        }
        // Older files name the tag alone.
        let number = |w: &Word| w.text.parse::<u8>().is_ok() || w.text.starts_with("option:");
        if tag.is_none() && words.len() > 1 && !number(&words[0]) && number(&words[1]) {
            tag = Some(words.remove(0).text);
        }
        let Some(first) = words.first() else { return self.draft.leave(at, Reason::Syntax) };
        let found = match first.text.strip_prefix("option:") {
            Some(name) => of_dnsmasq(name),
            None => first.text.parse().ok().map(|code| (code, by_code(code))),
        };
        let Some((code, holds)) = found else {
            return self.draft.leave(at, Reason::UnknownOption);
        };
        self.names.router &= code != 3;
        self.names.dns &= code != 6;
        let values = match holds {
            Holds::Text => joined(&words[1..]),
            _ => words[1..].to_vec(),
        };
        if values.iter().all(|w| w.text.is_empty()) {
            return self.draft.leave(at, Reason::Suppressed);
        }
        if holds == Holds::Ip && values.iter().any(|w| w.text == "0.0.0.0") {
            return self.draft.leave(at, Reason::OwnAddress);
        }
        let to: Vec<Ipv4Net> = match tag {
            None => self.draft.subnets.iter().map(|s| s.network).collect(),
            Some(tag) => match self.tags.get(&tag) {
                Some(network) => vec![*network],
                None => return self.draft.leave(at, Reason::Tagged),
            },
        };
        let told = match told(code, holds, &values) {
            Ok(told) => told,
            Err(why) => return self.draft.leave(at, why),
        };
        let mut any = false;
        for network in to {
            any |= self.draft.tell(network, &told, at);
        }
        if !any {
            self.draft.leave(at, Reason::NoSubnet);
        }
    }

    /// `NAME[,NETWORK[,local]]`
    fn domain(&mut self, line: &Line) {
        let parts = line.parts();
        let name = quoted(parts.first().map_or("", |w| w.text.as_str()));
        let of = parts.get(1).map(|w| w.text.as_str());
        let to: Vec<Ipv4Net> = self.draft.subnets.iter().map(|s| s.network).collect();
        let mut any = false;
        for network in to {
            let fits = of.is_none_or(|of| of.parse() == Ok(network));
            any |= fits && self.draft.tell(network, &Told::Key("domain", name.clone()), &line.at);
        }
        if !any {
            self.draft.leave(&line.at, Reason::NoSubnet);
        }
    }

    /// `MAC…[,id:…][,set:…][,ADDRESS][,NAME][,TIME][,ignore]`
    fn host(&mut self, line: &Line) {
        let at = &line.at;
        let mut macs: Vec<String> = Vec::new();
        let (mut address, mut name, mut ids) = (None, None, false);
        for w in line.parts().iter().map(|w| w.text.as_str()).filter(|w| !w.is_empty()) {
            if let Some(mac) = mac(w) {
                macs.push(mac);
            } else if let Ok(a) = w.parse::<Ipv4Addr>() {
                address = Some(a);
            } else if w == "ignore" {
                return self.draft.leave(at, Reason::Ignored);
            } else if w.starts_with("id:") {
                ids = true;
                self.draft.leave(at, Reason::ClientId);
            } else if w.starts_with('[') {
                self.draft.leave(at, Reason::SixOnly);
            } else if w.starts_with("set:") || w.starts_with("net:") || w.starts_with("tag:") {
                self.draft.leave(at, Reason::Class);
            } else if is_time(w) {
                self.draft.leave(at, Reason::LeaseTime);
            } else {
                name = Some(w.to_string());
            }
        }
        let Some((first, others)) = macs.split_first() else {
            if !ids {
                self.draft.leave(at, Reason::NoMac);
            }
            return;
        };
        let wanted = name.clone().unwrap_or_else(|| first.replace([':', '*'], "-"));
        let wanted = name_of(&wanted, "host");
        if let Some(n) = self.draft.machine(&wanted, ("mac", first.clone()), at)
            && let Some(machine) = self.draft.machine_mut(n)
        {
            machine.address = address.map(|a| (a, at.clone()));
            machine.hostname = name.map(|n| (n, at.clone()));
        }
        if !others.is_empty() {
            self.draft.leave(at, Reason::MoreMacs);
        }
    }

    fn tftp(&mut self, line: &Line) {
        let parts = line.parts();
        let dir = parts.first().map_or("", |w| w.text.as_str());
        match &self.draft.tftp {
            None if !dir.is_empty() => self.draft.tftp = Some((dir.into(), line.at.clone())),
            _ => self.draft.leave(&line.at, Reason::OneFolder),
        }
    }

    /// What dnsmasq said of itself, without a line for it.
    fn unsaid(&mut self) {
        let Some(at) = self.names.at.take() else { return };
        for (told, what) in [
            (self.names.router, "itself as the router: write router = \"…\" in the [[subnet]]"),
            (self.names.dns, "itself as the DNS server: write dns = \"…\" in the [[subnet]]"),
        ] {
            if told {
                self.draft.leave(&at, Reason::Guessed(what.into()));
            }
        }
    }
}

/// The smallest usual network that holds all of these: a /24 where that is enough.
fn guess(first: Ipv4Addr, last: Ipv4Addr, routers: &[Ipv4Addr]) -> Ipv4Net {
    let all = |net: &Ipv4Net| net.contains(&last);
    let near = |bits: u8| Ipv4Net::new(first, bits).map(|n| n.trunc()).ok();
    let found = (8..=24).rev().filter_map(near).find(all);
    let found = found.or_else(|| near(8)).unwrap_or_default();
    // A router a little outside says that the network is wider than its range.
    let wider = (16..found.prefix_len()).rev().filter_map(near);
    match routers.iter().any(|r| found.contains(r)) || routers.is_empty() {
        true => found,
        false => { wider }.find(|n| routers.iter().any(|r| n.contains(r))).unwrap_or(found),
    }
}

/// A text of several parts, whose commas are its own.
fn joined(words: &[Word]) -> Vec<Word> {
    let text: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
    vec![Word { text: text.join(","), quoted: words.iter().any(|w| w.quoted) }]
}

/// `11:22:33:44:55:66`, also with a type before it (`1-11:22:…`), with `*` for a pair.
fn mac(text: &str) -> Option<String> {
    let text = match text.split_once('-') {
        Some(("1" | "01", rest)) if rest.contains(':') => rest,
        _ => text,
    };
    if !text.contains(':') {
        return None;
    }
    let text: Vec<String> =
        text.split(':').map(|p| format!("{p:0>2}").replace("0*", "*")).collect();
    let text = text.join(":");
    match text.parse::<Mac>() {
        Ok(mac) => Some(mac.to_string()),
        Err(_) => text.parse::<MacPattern>().ok().map(|p| p.to_string()),
    }
}

fn is_time(text: &str) -> bool {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd', 'w']);
    text == "infinite"
        || (text.len() - digits.len() <= 1
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Why a line has no place here, by its key.
fn why(key: &str) -> Reason {
    match key {
        "dhcp-boot" => Reason::Loader,
        "pxe-service" | "pxe-prompt" => Reason::PxeMenu,
        "dhcp-match" | "dhcp-vendorclass" | "tag-if" => Reason::Arches,
        "dhcp-userclass" | "dhcp-mac" | "dhcp-circuitid" | "dhcp-remoteid" | "dhcp-subscrid"
        | "dhcp-name-match" => Reason::Class,
        "dhcp-authoritative" | "bind-interfaces" | "bind-dynamic" | "dhcp-no-override"
        | "no-daemon" | "keep-in-foreground" | "tftp-secure" => Reason::Already,
        "dhcp-leasefile" => Reason::LeaseFile,
        "dhcp-ignore" => Reason::Ignored,
        "dhcp-lease-max" | "leasefile-ro" | "dhcp-rapid-commit" | "dhcp-sequential-ip"
        | "no-ping" | "dhcp-ignore-clid" => Reason::LeaseRules,
        "dhcp-hostsfile" | "dhcp-optsfile" | "dhcp-hostsdir" | "dhcp-optsdir" | "read-ethers" => {
            Reason::NotRead(NoFile::Outside)
        }
        "except-interface" | "no-dhcp-interface" | "listen-address" | "bridge-interface"
        | "shared-network" | "dhcp-relay" => Reason::Interface,
        "log-dhcp" | "log-queries" | "log-facility" | "log-async" | "log-debug" | "quiet-dhcp"
        | "quiet-dhcp6" | "quiet-ra" | "quiet-tftp" => Reason::Logging,
        "user" | "group" | "pid-file" | "conf-script" | "port" => Reason::Process,
        "dhcp-script" | "dhcp-luascript" | "dhcp-scriptuser" | "script-arp"
        | "script-on-renewal" => Reason::Control,
        "enable-ra" | "ra-param" | "dhcp-duid" => Reason::SixOnly,
        "dhcp-fqdn" | "dhcp-client-update" | "dhcp-generate-names" | "dhcp-ignore-names" => {
            Reason::Ddns
        }
        "dhcp-alternate-port"
        | "dhcp-proxy"
        | "dhcp-broadcast"
        | "dhcp-pxe-vendor"
        | "dhcp-reply-delay"
        | "bootp-dynamic"
        | "dhcp-option-pxe" => Reason::Unknown,
        "tftp-unique-root" | "tftp-single-port" | "tftp-port-range" | "tftp-max" | "tftp-mtu"
        | "tftp-no-fail" | "tftp-no-blocksize" | "tftp-lowercase" => Reason::Process,
        "address" | "server" | "local" | "no-resolv" | "no-hosts" | "no-poll" | "resolv-file"
        | "domain-needed" | "bogus-priv" | "expand-hosts" | "addn-hosts" | "cache-size"
        | "local-service" | "strict-order" | "all-servers" | "rev-server" | "cname"
        | "srv-host" | "mx-host" | "mx-target" | "ptr-record" | "txt-record" | "host-record"
        | "dnssec" | "trust-anchor" | "filterwin2k" | "stop-dns-rebind" | "rebind-domain-ok"
        | "neg-ttl" | "local-ttl" | "max-ttl" | "min-cache-ttl" | "no-negcache"
        | "localise-queries" | "interface-name" | "hostsdir" | "dns-forward-max"
        | "edns-packet-max" | "auth-zone" | "auth-server" | "query-port" | "min-port"
        | "max-port" | "bogus-nxdomain" | "alias" | "ipset" | "nftset" | "localmx" | "selfmx"
        | "naptr-record" | "caa-record" | "dynamic-host" | "synth-domain" | "add-mac"
        | "add-subnet" | "connmark-allowlist" => Reason::Dns,
        _ => Reason::Unknown,
    }
}
