//! A captured boot, played back through the decisions.
//!
//! 1. [`capture`] reads the packets.
//! 2. We are put where the capture's own server was ([`place`]), and a machine has the address that
//!    it was given there.
//! 3. Each message of a client goes through [`decide`] at the time of the capture; what we would say
//!    stands beside what that server said.
//! 4. Requests for files and scripts, and how far TFTP transfers came, go onto the timeline.
//! 5. At the end there are the boots of each machine, and where each stopped.
//!
//! What a machine does after our word it does on its own server's: a timeline shows what it would
//! look like here if both had said the same.

mod capture;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::Context;
use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use self::capture::{Left, Packet, What};
use crate::boot::Ask;
use crate::config::{Config, Mode};
use crate::dhcp::decide::{Here, Port, decide};
use crate::dhcp::lease::Leases;
use crate::dhcp::wire::{self, Reply, code};
use crate::http::{self, Door};
use crate::ledger::{KEPT, Ledger, Past};
use crate::media::Library;
use crate::model::event::{DETAIL_LIMIT, plain};
use crate::model::{Event, Facts, Mac, Stage, Transfer, Why};
use crate::{dhcp, ipxe, tftp};

/// What stands for the interface that we would have heard it on.
const INTERFACE: &str = "capture";
/// Machines that are told of.
const MACHINES: usize = 1000;
/// Messages that are shown.
const EXCHANGES: usize = 5000;
/// Replies shown beside one message.
const REPLIES: usize = 8;
/// Transfers by TFTP at once.
const TRANSFERS: usize = 4096;
/// What DHCP alone can show.
const BY_DHCP: [&str; 4] = ["other-dhcp-server", "never-requested", "no-loader", "no-address"];

/// What a capture shows.
#[derive(Debug, Serialize)]
pub struct Replayed {
    pub packets: u64,
    /// Our address, as far as the capture goes: its own server's.
    pub server: Ipv4Net,
    /// What was left out, and what else is to be known.
    pub notes: Vec<String>,
    pub exchanges: Vec<Exchange>,
    pub machines: Vec<Played>,
}

/// One message of a client.
#[derive(Debug, Serialize)]
pub struct Exchange {
    pub at: Timestamp,
    pub mac: Mac,
    pub asked: String,
    /// What we say to it.
    pub ours: String,
    /// What servers of the capture said.
    pub theirs: Vec<String>,
}

/// A machine of the capture.
#[derive(Debug, Serialize)]
pub struct Played {
    pub mac: Mac,
    pub facts: Facts,
    /// The newest first.
    pub boots: Vec<Past>,
}

/// Plays `file` back.
///
/// # Errors
/// Where it cannot be read, or is no capture.
pub fn replay(config: &Config, file: &Path) -> anyhow::Result<Replayed> {
    let name = file.display();
    let opened = File::open(file).with_context(|| format!("{name}: cannot be read"))?;
    let (packets, left) =
        capture::read(BufReader::new(opened)).with_context(|| format!("{name}"))?;
    Ok(played(config, &packets, &left))
}

/// The same for packets that were read.
fn played(config: &Config, packets: &[Packet], left: &Left) -> Replayed {
    let heard = Heard::of(packets);
    let server = place(config, &heard);
    let mut stage = Play::new(config, server, packets, &heard);
    for packet in packets {
        stage.take(packet);
    }
    stage.end(left)
}

/// What servers said in the capture.
#[derive(Default)]
struct Heard {
    /// Each by its identifier: whether it gave addresses, and the mask that it gave.
    servers: BTreeMap<Ipv4Addr, (bool, Option<u8>)>,
    /// The last address that each machine was given.
    given: BTreeMap<Mac, Ipv4Addr>,
}

impl Heard {
    fn of(packets: &[Packet]) -> Heard {
        let mut heard = Heard::default();
        for packet in packets {
            let What::Dhcp(bytes) = &packet.what else { continue };
            let Some((options, message)) = wire::read_reply(bytes) else { continue };
            let four = |c| options.get(&c).and_then(|v| <[u8; 4]>::try_from(&v[..]).ok());
            let server = four(code::SERVER_ID).map_or(*packet.from.ip(), Ipv4Addr::from);
            let gives = !message.yiaddr().is_unspecified();
            let mask = four(code::SUBNET_MASK).map(|m| u32::from_be_bytes(m).leading_ones() as u8);
            if heard.servers.len() < MACHINES || heard.servers.contains_key(&server) {
                let known = heard.servers.entry(server).or_default();
                *known = (known.0 || gives, known.1.or(mask));
            }
            if let (true, Some(mac)) = (gives, mac_of(bytes))
                && (heard.given.len() < MACHINES || heard.given.contains_key(&mac))
            {
                heard.given.insert(mac, message.yiaddr());
            }
        }
        heard
    }
}

fn mac_of(message: &[u8]) -> Option<Mac> {
    message.get(28..)?.first_chunk::<6>().copied().map(Mac)
}

/// Where we stand: at the address of the server that does what we would do, with its network. Beside
/// it, at the last address of the network, where none does.
fn place(config: &Config, heard: &Heard) -> Ipv4Net {
    let full = config.dhcp.mode == Mode::Full;
    let like = heard.servers.iter().find(|(_, (gives, _))| *gives == full);
    let any = like.or(heard.servers.iter().next());
    let network = |address: Ipv4Addr, mask: Option<u8>| {
        let declared = config.dhcp.subnets.iter().find(|s| s.network.contains(&address));
        let length = declared.map(|s| s.network.prefix_len()).or(mask).unwrap_or(24);
        Ipv4Net::new(address, length.clamp(8, 30)).unwrap_or_default()
    };
    match (like, any) {
        (Some((address, (_, mask))), _) => network(*address, *mask),
        (None, Some((address, (_, mask)))) => {
            let near = network(*address, *mask);
            let last = near.hosts().next_back().filter(|l| l != address);
            last.and_then(|l| Ipv4Net::new(l, near.prefix_len()).ok()).unwrap_or(near)
        }
        _ => {
            let first = config.dhcp.subnets.first().map(|s| s.network);
            let near = first.unwrap_or(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24));
            let host = near.hosts().next().unwrap_or(near.addr());
            Ipv4Net::new(host, near.prefix_len()).unwrap_or(near)
        }
    }
}

/// A transfer by TFTP, as far as its blocks were seen.
struct Sending {
    mac: Mac,
    name: String,
    began: Timestamp,
    last: Timestamp,
    blksize: u16,
    block: u16,
    bytes: u64,
    whole: bool,
    error: bool,
}

struct Play<'a> {
    library: Library,
    config: &'a Config,
    server: [Ipv4Net; 1],
    ledger: Ledger,
    leases: Leases,
    at: BTreeMap<Ipv4Addr, Mac>,
    exchanges: Vec<Exchange>,
    /// The newest exchange of each transaction.
    newest: HashMap<(Mac, u32), usize>,
    sending: HashMap<SocketAddrV4, Sending>,
    seen: BTreeSet<Mac>,
    /// Connections that have said hello by TLS.
    secure: BTreeSet<SocketAddrV4>,
    notes: Vec<String>,
    beyond: u64,
    unread: u64,
    /// Whether there is anything but DHCP.
    more: bool,
    end: Timestamp,
}

impl<'a> Play<'a> {
    fn new(config: &'a Config, server: Ipv4Net, packets: &[Packet], heard: &Heard) -> Play<'a> {
        let ledger = Ledger::new();
        ledger.keep(KEPT);
        let begin = packets.first().map_or(Timestamp::UNIX_EPOCH, |p| p.at);
        // On record, so that a machine is offered the address that it had.
        let (records, _) = Leases::load(&records(&heard.given, begin));
        let mut leases = records;
        leases.configure(config);
        leases.keep([server.addr()]);
        if config.dhcp.mode == Mode::Full {
            for (rival, _) in heard.servers.iter().filter(|(a, s)| s.0 && **a != server.addr()) {
                let text = dhcp::rival::alarm(*rival, INTERFACE, "it gives addresses");
                ledger.alarm("other-dhcp-server", &rival.to_string(), text, begin);
            }
        }
        Play {
            library: Library::default(),
            config,
            server: [server],
            ledger,
            leases,
            at: heard.given.iter().map(|(mac, ip)| (*ip, *mac)).collect(),
            exchanges: Vec::new(),
            newest: HashMap::new(),
            sending: HashMap::new(),
            seen: BTreeSet::new(),
            secure: BTreeSet::new(),
            notes: Vec::new(),
            beyond: 0,
            unread: 0,
            more: false,
            end: packets.iter().map(|p| p.at).max().unwrap_or(begin),
        }
    }

    fn take(&mut self, packet: &Packet) {
        match &packet.what {
            What::Dhcp(bytes) if bytes.first() == Some(&1) => self.dhcp(packet, bytes),
            What::Dhcp(bytes) => self.reply(bytes),
            What::Tftp(bytes) => self.tftp(packet, bytes),
            What::Block(opcode, number, length) => self.block(packet, *opcode, *number, *length),
            What::Line(line) => self.line(packet, line),
            What::Hello => self.hello(packet),
        }
    }

    /// Whether the machine is one of those that are told of.
    fn knows(&mut self, mac: Mac) -> bool {
        let known = self.seen.len() < MACHINES || self.seen.contains(&mac);
        match known {
            true => _ = self.seen.insert(mac),
            false => self.beyond += 1,
        }
        known
    }

    /// The machine that a packet comes from: by the address that it was given, else by its frame.
    fn machine(&mut self, packet: &Packet) -> Option<Mac> {
        let mac = self.at.get(packet.from.ip()).copied().or(packet.mac)?;
        self.more = true;
        self.knows(mac).then_some(mac)
    }

    fn record(&self, mac: Mac, stage: Stage, what: &'static str, detail: String, now: Timestamp) {
        self.ledger.record(mac, Event::new(stage, what, detail), now);
    }

    fn dhcp(&mut self, packet: &Packet, bytes: &[u8]) {
        let request = match wire::read(bytes) {
            Ok(request) => request,
            Err(_) => {
                self.unread += 1;
                return;
            }
        };
        let (mac, now) = (request.mac, packet.at);
        if !self.knows(mac) {
            return;
        }
        let known = self.ledger.before(mac);
        let server = self.server[0].addr();
        let here = Here {
            interface: INTERFACE,
            addresses: &self.server,
            to: Some(*packet.to.ip()).filter(|to| *to == server),
            port: if packet.to.port() == 4011 { Port::Pxe } else { Port::Server },
            trust: &[],
            has_loader: &|name| ipxe::get(&self.config.ipxe, name).is_ok(),
            handed: known.as_ref().and_then(|(_, handed)| handed.as_ref()),
            known: known.as_ref().map(|(facts, _)| facts),
            assigned: false,
            now,
            lease_now: now,
        };
        let outcome = decide(self.config, &mut self.leases, &request, &here);
        // Who asked and where is known already.
        let (who, by) = (format!(" from {mac}"), format!(" via {INTERFACE}"));
        let short = |text: String| text.replacen(&who, "", 1).replacen(&by, "", 1);
        let asked = outcome.events.first().map(|e| short(format!("{} {}", e.what, e.detail)));
        let asked = asked.unwrap_or_default();
        let booting = outcome.events.iter().any(|e| e.stage != Stage::System);
        let ours = match outcome.result {
            Ok(answer) => {
                let ours = summary(&wire::write(&answer.reply), &answer.reply);
                self.ledger.exchanged(outcome.facts, answer.handed, outcome.events, now);
                ours
            }
            Err(why) => {
                if !why.is_everyday() || booting {
                    for event in outcome.events {
                        self.ledger.record(mac, event, now);
                    }
                }
                self.ledger.refused("dhcp", Some(mac), &why, now);
                format!("nothing: {why}")
            }
        };
        if self.exchanges.len() < EXCHANGES {
            self.newest.insert((mac, request.xid), self.exchanges.len());
            let theirs = Vec::new();
            self.exchanges.push(Exchange { at: now, mac, asked, ours, theirs });
        }
    }

    fn reply(&mut self, bytes: &[u8]) {
        let Some(mac) = mac_of(bytes) else { return };
        let xid = bytes.get(4..).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b));
        let Some(place) = xid.and_then(|xid| self.newest.get(&(mac, xid))) else { return };
        if let (Some(exchange), Some(said)) = (self.exchanges.get_mut(*place), told(bytes))
            && exchange.theirs.len() < REPLIES
        {
            exchange.theirs.push(said);
        }
    }

    fn tftp(&mut self, packet: &Packet, bytes: &[u8]) {
        let Some(mac) = self.machine(packet) else { return };
        let request = match tftp::wire::read(bytes) {
            Ok(tftp::wire::Packet::Rrq(request)) => request,
            Ok(_) => return,
            Err(why) => return self.ledger.refused("tftp", Some(mac), &why, packet.at),
        };
        let name = plain(&request.name, DETAIL_LIMIT);
        let last = request.name.rsplit('/').next().unwrap_or_default();
        if last != "autoexec.ipxe"
            && self.config.tftp.dir.is_none()
            && let Err(why) = ipxe::get(&self.config.ipxe, last)
        {
            self.note(format!("{name} is asked for by TFTP, and would be refused here: {why}"));
        }
        self.finish(packet.from);
        let began = Sending {
            mac,
            name,
            began: packet.at,
            last: packet.at,
            blksize: 512,
            block: 0,
            bytes: 0,
            whole: false,
            error: false,
        };
        if self.sending.len() < TRANSFERS {
            self.sending.insert(packet.from, began);
        }
    }

    fn block(&mut self, packet: &Packet, opcode: u16, number: u16, length: u16) {
        let client = match self.sending.contains_key(&packet.from) {
            true => packet.from,
            false => packet.to,
        };
        let Some(sending) = self.sending.get_mut(&client) else { return };
        sending.last = packet.at;
        match opcode {
            // DATA, the next one: each block but the last is as long as the first.
            3 if client == packet.to && number == sending.block.wrapping_add(1) => {
                if sending.bytes == 0 {
                    sending.blksize = length;
                }
                sending.block = number;
                sending.bytes += u64::from(length);
                // RFC 1350 section 6: a shorter block is the last one. The first tells nothing of
                // itself, unless it is shorter than any size that is agreed upon.
                let short = length < sending.blksize || (number == 1 && length < 512);
                sending.whole |= short;
            }
            5 => sending.error = true,
            _ => {}
        }
        if sending.whole || sending.error {
            self.finish(client);
        }
    }

    /// A transfer is through, or nothing more comes of it.
    fn finish(&mut self, client: SocketAddrV4) {
        let Some(s) = self.sending.remove(&client) else { return };
        let stage = match s.name.ends_with(".ipxe") {
            true => Stage::Script,
            false => Stage::Loader,
        };
        if s.bytes == 0 {
            let detail = format!("{} to {}: asked for, and not sent", s.name, client.ip());
            return self.record(s.mac, stage, "TFTP", detail, s.last);
        }
        let millis = u64::try_from(s.last.duration_since(s.began).as_millis()).unwrap_or(0);
        // How much there would have been is not said in any block.
        let total = s.bytes + u64::from(!s.whole);
        let transfer = Transfer { name: s.name, sent: s.bytes, total, millis };
        self.ledger.sent(s.mac, stage, transfer, None, s.last);
    }

    fn line(&mut self, packet: &Packet, line: &str) {
        let Some(mac) = self.machine(packet) else { return };
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let path = target.split('?').next().unwrap_or("");
        let what = match method {
            "HEAD" => "HEAD",
            "POST" => "report",
            _ => "GET",
        };
        let stage = stage_of(path);
        let what = if stage == Stage::System && path.contains("/report") { "report" } else { what };
        let mut detail = plain(path, 120);
        if let Some(asks) = path.strip_prefix("/boot/").and_then(|p| p.strip_suffix(".ipxe"))
            && let Ok(asks) = asks.parse::<Mac>()
        {
            detail += &format!(": {}", self.decided(asks));
        }
        self.record(mac, stage, what, detail, packet.at);
    }

    /// What its script would be here.
    fn decided(&self, mac: Mac) -> String {
        let facts = self.ledger.facts(mac).unwrap_or_else(|| Facts::of(mac));
        let door = Door {
            http_port: self.config.http.port,
            https_port: self.config.http.https_port,
            tls: self.config.tls.enabled,
        };
        let urls = door.urls(IpAddr::V4(self.server[0].addr()), "");
        http::make(&self.library, self.config, &facts, &Ask::default(), &urls).said
    }

    fn hello(&mut self, packet: &Packet) {
        let Some(mac) = self.machine(packet) else { return };
        if self.secure.len() < TRANSFERS && self.secure.insert(packet.from) {
            let detail =
                format!("a connection to {}: what it asks for is not to be seen", packet.to);
            self.record(mac, Stage::Script, "TLS", detail, packet.at);
        }
    }

    fn note(&mut self, text: String) {
        if self.notes.len() < 20 && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    fn end(mut self, left: &Left) -> Replayed {
        let open: Vec<SocketAddrV4> = self.sending.keys().copied().collect();
        open.into_iter().for_each(|client| self.finish(client));
        let mut notes = self.notes.clone();
        notes.extend(left_out(left));
        let mut count = |n: u64, what: &str| {
            if n > 0 {
                notes.push(format!("{what}: {n}"));
            }
        };
        count(self.unread, "messages to DHCP's ports that are none of a client's");
        count(self.beyond, "packets of machines beyond the first 1000");
        if !self.more && !self.seen.is_empty() {
            notes.push(
                "there is nothing but DHCP in it, so what came after is not known: capture without \
                 a filter for ports"
                    .into(),
            );
        }
        // Where the capture ends, nothing more comes.
        let hour = SignedDuration::from_hours(1);
        let end = self.end.checked_add(hour).unwrap_or(Timestamp::MAX);
        let more = self.more;
        let machines = self.seen.iter().filter_map(|mac| {
            let mut boots = self.ledger.boots_at(*mac, end);
            if !more {
                let by_dhcp =
                    |p: &Past| p.diagnosis.as_ref().is_some_and(|d| BY_DHCP.contains(&&*d.name));
                boots.iter_mut().filter(|p| !by_dhcp(p)).for_each(|p| p.diagnosis = None);
            }
            let facts = self.ledger.facts(*mac)?;
            Some(Played { mac: *mac, facts, boots })
        });
        let machines: Vec<Played> = machines.filter(|m| !m.boots.is_empty()).collect();
        let (packets, server) = (left.packets, self.server[0]);
        Replayed { packets, server, notes, exchanges: self.exchanges, machines }
    }
}

fn left_out(left: &Left) -> Vec<String> {
    let named = [
        (left.fragments, "pieces of fragmented packets, which are not put together"),
        (left.cut, "packets that the capture cut off (`tcpdump -s 0` keeps them whole)"),
        (left.foreign, "packets that are damaged, or of no known kind"),
        (left.beyond, "packets beyond those that are kept"),
    ];
    let mut all: Vec<String> =
        named.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what}: {n}")).collect();
    if let Some(why) = &left.ended {
        all.push(format!("the file is damaged after packet {}: {}", left.packets, plain(why, 120)));
    }
    all
}

/// The leases that the capture's server gave, as the store would have them.
fn records(given: &BTreeMap<Mac, Ipv4Addr>, begin: Timestamp) -> Vec<(Vec<u8>, Vec<u8>)> {
    let day = SignedDuration::from_hours(24);
    let starts = begin.checked_sub(day).unwrap_or(begin);
    let ends = begin.checked_add(day).unwrap_or(begin);
    let record = |(mac, ip): (&Mac, &Ipv4Addr)| {
        let text = serde_json::json!({
            "mac": mac.to_string(), "state": "bound",
            "starts": starts.as_microsecond(), "ends": ends.as_microsecond(),
        });
        (ip.octets().to_vec(), text.to_string().into_bytes())
    };
    given.iter().map(record).collect()
}

/// The stage that a path is asked for at; those of other servers, too.
fn stage_of(path: &str) -> Stage {
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| name.contains(w));
    match () {
        () if path.contains("/report") => Stage::System,
        () if name.ends_with(".ipxe") => Stage::Script,
        () if path.starts_with("/loader/") || has(&[".efi", ".kpxe", ".pxe"]) => Stage::Loader,
        () if path.contains("/answer/") || has(&["preseed", "ks.cfg", "user-data", "autoinst"]) => {
            Stage::Answer
        }
        () if has(&["initrd", "initramfs"]) => Stage::Initrd,
        () if has(&["vmlinuz", "bzimage"]) || name == "linux" => Stage::Kernel,
        () => Stage::System,
    }
}

fn summary(bytes: &[u8], reply: &Reply) -> String {
    told(bytes).unwrap_or_else(|| reply.kind.word().to_string())
}

/// A reply on one line: `DHCPOFFER of 10.0.0.100 by 10.0.0.1, to boot snponly.efi`.
fn told(bytes: &[u8]) -> Option<String> {
    let (options, message) = wire::read_reply(bytes)?;
    let kind = match options.get(&code::MESSAGE_TYPE).and_then(|v| v.first()) {
        Some(2) => "DHCPOFFER",
        Some(5) => "DHCPACK",
        Some(6) => "DHCPNAK",
        _ => "BOOTREPLY",
    };
    let mut said = kind.to_string();
    if !message.yiaddr().is_unspecified() {
        said += &format!(" of {}", message.yiaddr());
    }
    let id = options.get(&code::SERVER_ID).and_then(|v| <[u8; 4]>::try_from(&v[..]).ok());
    if let Some(id) = id {
        said += &format!(" by {}", Ipv4Addr::from(id));
    }
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        plain(&String::from_utf8_lossy(&bytes[..end]), 120)
    };
    let file = options.get(&code::BOOTFILE).map(|v| text(v));
    let file = file.filter(|f| !f.is_empty()).or_else(|| bytes.get(108..236).map(text));
    if let Some(file) = file.filter(|f| !f.is_empty()) {
        said += &format!(", to boot {file}");
    }
    Some(said)
}
