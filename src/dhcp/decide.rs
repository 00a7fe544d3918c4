//! What a DHCP message is answered with: facts and `now` in, a reply or a named silence out.
//!
//! 1. [`decide`] finds the address of ours that the client shall know us by, and what is declared
//!    of the machine.
//! 2. [`next`] decides what it boots next: our loader, its script, or nothing.
//! 3. In `proxy` mode that alone is the answer ([`proxy`]); in `full` mode it goes with a lease
//!    ([`full`]), by the rules of RFC 2131 section 4.3.
//! 4. [`boot_options`] puts it into the words of the client at hand.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::Timestamp;

use super::lease::{Asker, DECLINES, Leases, Refused};
use super::pool::Source;
use super::wire::{self, Class, FILE_LIMIT, Kind, Reply, ReplyKind, Request, Value, code};
use crate::config::{Config, Mode, Subnet, Unknown};
use crate::ipxe;
use crate::ledger::Handed;
use crate::model::diagnosis::OTHERS_OFFER;
use crate::model::{Event, Facts, Family, Firmware, Machine, Stage, Transport, Why, machine};

/// Which port of ours a datagram came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 67, RFC 2131.
    Server,
    /// 4011, the boot server's port of PXE 2.1 section 2.2.
    Pxe,
}

/// Where a datagram came in, and what is known beside it.
pub struct Here<'a> {
    pub interface: &'a str,
    /// Our addresses on that interface, with their networks; never empty.
    pub addresses: &'a [Ipv4Net],
    /// The address it was sent to, where that is known: a relay's unicast names one of ours.
    pub to: Option<Ipv4Addr>,
    pub port: Port,
    /// SHA-256 fingerprints of the roots that machines shall trust, one after the other; empty
    /// without TLS.
    pub trust: &'a [u8],
    /// Whether we hold a loader of this name.
    pub has_loader: &'a dyn Fn(&str) -> bool,
    pub handed: Option<&'a Handed>,
    /// What the machine has told before.
    pub known: Option<&'a Facts>,
    /// Whether somebody has assigned it, though it is not declared.
    pub assigned: bool,
    pub now: Timestamp,
    /// What the clock of the leases shows (see [`super::clock`]).
    pub lease_now: Timestamp,
}

/// Where a reply goes (RFC 2131 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// 255.255.255.255:68. Every client takes it, and none needs a raw socket of ours for it: one
    /// without an address cannot answer ARP.
    Broadcast,
    Address(SocketAddrV4),
    /// Back to where it came from: port 4011's clients choose their own.
    Source,
}

/// A reply, and what becomes known by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub reply: Reply,
    pub to: To,
    pub next: Next,
    /// What is to be remembered of loaders handed out; `None` leaves it as it is.
    pub handed: Option<Option<Handed>>,
    /// The machine will boot from us.
    pub boots: bool,
    /// The client is an iPXE about to boot: its wait for a router can be ended.
    pub booting: bool,
    /// An address that this client has not had before: a ping tells whether somebody sits there.
    pub probe: Option<Ipv4Addr>,
    /// The client waits for offers of its own accord, as firmware (about 4 s) and iPXE (1 s) do:
    /// the answer to a ping is there before its REQUEST.
    pub patient: bool,
}

/// What a message led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub facts: Facts,
    /// The client's message, then our reply, in the words of dhcpd.
    pub events: Vec<Event>,
    pub result: Result<Box<Answer>, Silent>,
}

/// What the client boots next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// No boot client: it gets its lease and nothing else.
    Nothing,
    /// Our loader: its file name, and the URL or the TFTP name that leads to it.
    Loader { file: String, name: String },
    /// Its script.
    Script { url: String },
    /// It wants to boot, and cannot by us.
    Refused(Silent),
}

/// Why there is no answer, or none with anything to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silent {
    /// `proxy` mode answers boot clients only.
    NotABootClient,
    /// `proxy` mode leaves REQUEST and what follows to the site's own server.
    SiteServer(Kind),
    /// Port 4011 takes REQUEST and INFORM.
    WrongPort(Kind),
    NoArchitecture,
    UnknownArchitecture(u16),
    /// The architecture is known, but its loader is not there.
    NoLoader {
        file: String,
        arch: &'static str,
    },
    /// Our own loader came back without what the next step needs.
    LoaderLacks(&'static str),
    /// Our loader was handed out again and again, and never came to its script.
    Loop(u8),
    NoSubnet(Ipv4Addr),
    PoolFull(Ipv4Net),
    NoRange(Ipv4Net),
    /// The rest of the pool is kept for so many declared machines.
    Kept(Ipv4Net, usize),
    /// The pool runs low, and the client's relay or port has its share of so many.
    Share(Ipv4Net, usize),
    /// It declines whatever it gets.
    Declines(Ipv4Addr),
    /// The client chose the offer of another server.
    OtherServer(Ipv4Addr),
    /// RFC 2131 section 4.3.2: of a client without a record here nothing may be said.
    NoRecord(Ipv4Addr),
    /// A REQUEST that names no address at all.
    NoAddress,
    /// `[life] unknown = "ignore"`.
    Ignored,
    /// DECLINE and RELEASE have no reply.
    Noted(Kind),
    NotItsLease(Kind, Ipv4Addr),
}

impl Why for Silent {
    fn name(&self) -> &'static str {
        match self {
            Silent::NotABootClient => "not-a-boot-client",
            Silent::SiteServer(_) => "left-to-site-server",
            Silent::WrongPort(_) => "wrong-port",
            Silent::NoArchitecture => "no-architecture",
            Silent::UnknownArchitecture(_) => "unknown-architecture",
            Silent::NoLoader { .. } => "no-loader",
            Silent::LoaderLacks(_) => "loader-lacks",
            Silent::Loop(_) => "loader-loop",
            Silent::NoSubnet(_) => "no-subnet",
            Silent::PoolFull(_) => "pool-full",
            Silent::NoRange(_) => "no-range",
            Silent::Kept(..) => "kept-for-declared",
            Silent::Share(..) => "share-used-up",
            Silent::Declines(_) => "declines-too-often",
            Silent::OtherServer(_) => "other-server",
            Silent::NoRecord(_) => "no-record",
            Silent::NoAddress => "no-address",
            Silent::Ignored => "unknown-ignored",
            Silent::Noted(_) => "noted",
            Silent::NotItsLease(..) => "not-its-lease",
        }
    }

    fn is_everyday(&self) -> bool {
        matches!(self, Silent::NotABootClient | Silent::SiteServer(_) | Silent::Ignored)
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silent::NotABootClient => {
                f.write_str("not a boot client: proxy mode leaves it to the site's DHCP server")
            }
            Silent::SiteServer(kind) => {
                write!(f, "{} belongs to the site's DHCP server in proxy mode", kind.word())
            }
            Silent::WrongPort(kind) => {
                write!(f, "{} has no business at port 4011", kind.word())
            }
            Silent::NoArchitecture => f.write_str(
                "a boot client without option 93 (architecture): no loader can be chosen for it",
            ),
            Silent::UnknownArchitecture(code) => write!(
                f,
                "architecture {code} of option 93 is in no row of the firmware table: no loader"
            ),
            Silent::NoLoader { file, arch } => write!(
                f,
                "no loader {file} for {arch} in this build: put one into [ipxe] dir, or name \
                 another in [ipxe.loaders]"
            ),
            Silent::LoaderLacks(what) => write!(
                f,
                "the loader that was handed out has no {what}: put one that has into [ipxe] dir"
            ),
            Silent::Loop(times) => write!(
                f,
                "our loader was handed out {times} times in a row and never asked for its script"
            ),
            Silent::NoSubnet(address) => {
                write!(f, "no [[subnet]] holds {address}, where the request comes from")
            }
            Silent::PoolFull(network) => {
                write!(f, "no free address in {network}: widen its range, or shorten lease-time")
            }
            Silent::NoRange(network) => {
                write!(f, "{network} has no range, and this machine no address reserved in it")
            }
            Silent::Kept(network, kept) => write!(
                f,
                "the free addresses of {network} are kept for declared machines without one \
                 ({kept}): widen its range, or declare this machine"
            ),
            Silent::Share(network, share) => write!(
                f,
                "{network} runs low, and this client's relay or switch port holds its share of \
                 {share} addresses: widen the range, or declare this machine"
            ),
            Silent::Declines(address) => write!(
                f,
                "DHCPDECLINE of {address}: this client has declined {DECLINES} within the hour, \
                 so the address goes back to the pool"
            ),
            Silent::OtherServer(server) => write!(f, "it {OTHERS_OFFER}{server}"),
            Silent::NoRecord(address) => {
                write!(f, "asks for {address}, of which we have no record: another server's lease")
            }
            Silent::Ignored => f.write_str(
                "neither declared nor assigned: unknown machines get nothing to boot ([life] \
                 unknown = \"ignore\")",
            ),
            Silent::NoAddress => f.write_str("a DHCPREQUEST that names no address"),
            Silent::Noted(kind) => write!(f, "{} noted, it has no reply", kind.word()),
            Silent::NotItsLease(kind, address) => {
                write!(f, "{} of {address}, which this client does not have", kind.word())
            }
        }
    }
}

impl From<Refused> for Silent {
    fn from(refused: Refused) -> Silent {
        match refused {
            Refused::PoolFull(n) => Silent::PoolFull(n),
            Refused::NoRange(n) => Silent::NoRange(n),
            Refused::Kept(n, kept) => Silent::Kept(n, kept),
            Refused::Share(n, share) => Silent::Share(n, share),
            Refused::Declines(a) => Silent::Declines(a),
            Refused::NotYours(a) | Refused::Unknown(a) => Silent::NoRecord(a),
        }
    }
}

/// A loader that was handed out this long ago and never reached its script is forgotten: the
/// machine was switched off, or booted from something else.
const HANDED_LIFE: Duration = Duration::from_secs(600);
/// DISCOVER, REQUEST and their repetitions within this time are one handing out.
const HANDED_ONCE: Duration = Duration::from_secs(15);
/// No loader starts and asks by DHCP faster than this.
const HANDED_REPEAT: Duration = Duration::from_secs(1);
/// Handings out in a row without a script between them; a person who restarts a machine in the
/// middle of its boot makes two.
const HANDED_TIMES: u8 = 3;

/// The answer to one message.
pub fn decide(config: &Config, leases: &mut Leases, request: &Request, here: &Here<'_>) -> Outcome {
    let firmware = request.arch.and_then(Firmware::by_code);
    let mut facts = here.known.cloned().unwrap_or_else(|| Facts::of(request.mac));
    facts.arch = firmware.map(|f| f.arch).or(facts.arch);
    facts.uuid = request.uuid.as_deref().and_then(uuid).or(facts.uuid);
    let machine = machine::find(&config.machines, &facts);
    let subnet = subnet(config, request, here);
    let server = server_address(request, here, subnet);
    let boots = request.ipxe.is_some() || request.class != Class::Other;
    let stranger = machine.is_none() && !here.assigned;
    let (next, handed) = match boots {
        true if stranger && config.life.unknown == Unknown::Ignore => {
            (Next::Refused(Silent::Ignored), None)
        }
        true => next(config, request, here, firmware, machine, server),
        false => (Next::Nothing, None),
    };
    let mut reply = Reply {
        kind: ReplyKind::Offer,
        xid: request.xid,
        secs: 0,
        flags: request.flags,
        mac: request.mac,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        yiaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: Ipv4Addr::UNSPECIFIED,
        giaddr: request.giaddr,
        file: String::new(),
        options: vec![(
            code::SERVER_ID,
            request.server_override.unwrap_or(server).octets()[..].into(),
        )],
        relay: request.relay.clone(),
        // RFC 2131 section 2: 576 with the IP and UDP headers is what every client takes; boot
        // clients take a whole frame, whatever they say (65280 in OVMF's REQUEST is a byte order bug).
        limit: match request.max_size {
            _ if boots => wire::MOST,
            Some(size) => usize::from(size.max(576)) - 28,
            None => 576 - 28,
        },
    };
    let proxied = config.dhcp.mode != Mode::Full || here.port == Port::Pxe;
    let mut probe = None;
    let to = match proxied {
        true => proxy(request, here, &next, &mut reply),
        false => full(leases, request, here, subnet, machine, &mut reply, &mut probe),
    };
    if to.is_ok() && reply.kind != ReplyKind::Nak {
        boot_options(config, request, here, firmware, &next, server, proxied, &mut reply);
    }
    if to.is_ok() && reply.kind == ReplyKind::Ack && !reply.yiaddr.is_unspecified() {
        facts.ip = Some(reply.yiaddr);
    } else if proxied && !request.ciaddr.is_unspecified() {
        facts.ip = Some(request.ciaddr);
    }

    let stage = match (&request.ipxe, request.class) {
        (Some(_), _) => Stage::Ipxe,
        (None, Class::Other) => Stage::System,
        (None, _) => Stage::Firmware,
    };
    let mut events = vec![Event::new(stage, request.kind.word(), asked(request, here, firmware))];
    let result = to.map(|to| {
        events.push(Event::new(stage, reply.kind.word(), told(&reply, &next, here)));
        let settled = reply.kind == ReplyKind::Ack || proxied;
        let sent_on = matches!(next, Next::Script { .. } | Next::Loader { .. });
        let booting = request.ipxe.is_some() && sent_on;
        let handed = handed.filter(|_| settled);
        Box::new(Answer { handed, boots: sent_on, booting, reply, to, next, probe, patient: boots })
    });
    Outcome { facts, events, result }
}

/// The subnet that the client is in: the relay's link selection, the relay's own address, or the
/// interface's network.
fn subnet<'a>(config: &'a Config, request: &Request, here: &Here<'_>) -> Option<&'a Subnet> {
    let holds =
        |address: Ipv4Addr| config.dhcp.subnets.iter().find(move |s| s.network.contains(&address));
    match (request.link, request.is_relayed()) {
        (Some(link), _) => holds(link),
        (None, true) => holds(request.giaddr),
        (None, false) if !request.ciaddr.is_unspecified() && holds(request.ciaddr).is_some() => {
            // A relayed client renews by unicast, without its relay.
            holds(request.ciaddr)
        }
        (None, false) => here.addresses.iter().find_map(|n| holds(n.addr())),
    }
}

/// The address of ours that goes into the reply: the one that was asked, else the one in the
/// client's subnet, else the interface's first.
fn server_address(request: &Request, here: &Here<'_>, subnet: Option<&Subnet>) -> Ipv4Addr {
    let ours = |a: &Ipv4Addr| here.addresses.iter().any(|n| n.addr() == *a);
    if let Some(to) = here.to.filter(ours) {
        return to;
    }
    if let Some(chosen) = request.server_id.filter(ours) {
        return chosen;
    }
    let near = here.addresses.iter().find(|n| {
        subnet.is_some_and(|s| s.network.contains(&n.addr())) || n.contains(&request.ciaddr)
    });
    near.or(here.addresses.first()).map_or(Ipv4Addr::UNSPECIFIED, |n| n.addr())
}

/// What a boot client boots next, and what to remember of it.
fn next(
    config: &Config,
    request: &Request,
    here: &Here<'_>,
    firmware: Option<&'static Firmware>,
    machine: Option<&Machine>,
    server: Ipv4Addr,
) -> (Next, Option<Option<Handed>>) {
    let handed = here.handed.filter(|h| here.now.duration_since(h.at).unsigned_abs() < HANDED_LIFE);
    if let Some(features) = &request.ipxe {
        let (need, word) = match config.tls.enabled {
            true => (wire::ipxe::HTTPS, "HTTPS"),
            false => (wire::ipxe::HTTP, "HTTP"),
        };
        let able = features.contains(&need);
        // iPXE reads its trusted roots once, when it starts, out of the DHCP reply before it. One
        // that we did not start ourselves cannot know our root, however well it speaks HTTPS.
        // One that says the same again at once is the one that we answered, not the one that comes
        // of it: our reply was lost.
        let ours = handed.is_some_and(|h| {
            let again = h.features.as_ref() == Some(features);
            !again || here.now.duration_since(h.at).unsigned_abs() >= HANDED_REPEAT
        });
        let trusts = !config.tls.enabled || here.trust.is_empty() || ours;
        if able && trusts {
            return (Next::Script { url: format!("{}/boot.ipxe", config.base(server)) }, None);
        }
        if let Some(h) = handed {
            if h.features.as_ref() != Some(features) {
                return (Next::Refused(Silent::LoaderLacks(word)), None);
            }
            if h.times >= HANDED_TIMES {
                return (Next::Refused(Silent::Loop(h.times)), None);
            }
        }
    }
    let Some(firmware) = firmware else {
        let why = request.arch.map_or(Silent::NoArchitecture, Silent::UnknownArchitecture);
        return (Next::Refused(why), None);
    };
    let file = ipxe::loader_for(&config.ipxe, firmware, machine).to_string();
    if !(here.has_loader)(&file) {
        return (Next::Refused(Silent::NoLoader { file, arch: firmware.arch }), None);
    }
    let by_http = firmware.transport == Transport::Http
        || request.ipxe.as_ref().is_some_and(|f| f.contains(&wire::ipxe::HTTP));
    let name = match by_http {
        // The firmware knows no root of ours: loaders come by plain HTTP, always. The address is
        // a literal because UEFI HTTP boot has no DNS before it has a lease.
        true => format!("{}/loader/{file}", config.plain_base(server)),
        false => file.clone(),
    };
    let again = handed.filter(|h| h.features == request.ipxe);
    let remember = match again {
        Some(h) if here.now.duration_since(h.at).unsigned_abs() < HANDED_ONCE => h.clone(),
        Some(h) => Handed { at: here.now, times: h.times.saturating_add(1), ..h.clone() },
        None => Handed { at: here.now, features: request.ipxe.clone(), times: 1 },
    };
    (Next::Loader { file, name }, Some(Some(remember)))
}

/// `proxy` mode, and port 4011 in either: boot information without an address.
fn proxy(request: &Request, here: &Here<'_>, next: &Next, reply: &mut Reply) -> Result<To, Silent> {
    match (here.port, request.kind) {
        (Port::Server, Kind::Discover) => {}
        (Port::Server, kind) if *next == Next::Nothing => {
            return Err(match kind {
                Kind::Discover => Silent::NotABootClient,
                kind => Silent::SiteServer(kind),
            });
        }
        (Port::Server, kind) => return Err(Silent::SiteServer(kind)),
        (Port::Pxe, Kind::Request | Kind::Inform) => {}
        (Port::Pxe, kind) => return Err(Silent::WrongPort(kind)),
    }
    match next {
        Next::Nothing => return Err(Silent::NotABootClient),
        Next::Refused(why) => return Err(why.clone()),
        Next::Loader { .. } | Next::Script { .. } => {}
    }
    if here.port == Port::Pxe {
        reply.kind = ReplyKind::Ack;
        reply.ciaddr = request.ciaddr;
        return Ok(To::Source);
    }
    reply.kind = ReplyKind::Offer;
    Ok(match request.is_relayed() {
        true => To::Address(SocketAddrV4::new(request.giaddr, 67)),
        false => To::Broadcast,
    })
}

/// `full` mode: RFC 2131 section 4.3.
fn full(
    leases: &mut Leases,
    request: &Request,
    here: &Here<'_>,
    subnet: Option<&Subnet>,
    machine: Option<&Machine>,
    reply: &mut Reply,
    probe: &mut Option<Ipv4Addr>,
) -> Result<To, Silent> {
    let (mac, now) = (request.mac, here.lease_now);
    let known = machine.is_some_and(Machine::is_one);
    let asker = Asker { mac, known, source: source(request) };
    let from = match (request.link, request.is_relayed()) {
        (Some(link), _) => link,
        (None, true) => request.giaddr,
        (None, false) => here.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |n| n.addr()),
    };
    let subnet = subnet.ok_or(Silent::NoSubnet(from))?;
    let time = match request.lease_time {
        Some(asked) => Duration::from_secs(asked.into()).min(subnet.max_lease_time),
        None => subnet.lease_time,
    }
    .max(Duration::from_secs(60));
    match request.kind {
        Kind::Discover => {
            reply.kind = ReplyKind::Offer;
            let offer = leases.offer(&asker, subnet, request.requested, now)?;
            reply.yiaddr = offer.address;
            *probe = Some(offer.address).filter(|_| offer.new);
        }
        Kind::Request => {
            // Section 4.3.2: SELECTING names the server, INIT-REBOOT an address, RENEWING and
            // REBINDING have one.
            let selecting = request.server_id;
            let is_ours = |id: Ipv4Addr| {
                here.addresses.iter().any(|n| n.addr() == id) || request.server_override == Some(id)
            };
            if let Some(id) = selecting.filter(|id| !is_ours(*id)) {
                leases.withdraw(mac, subnet.network);
                return Err(Silent::OtherServer(id));
            }
            let asked = match request.ciaddr.is_unspecified() {
                true => request.requested.ok_or(Silent::NoAddress)?,
                false => request.ciaddr,
            };
            if !subnet.network.contains(&asked) {
                // On the wrong network, and only there, a stranger may be told so.
                return Ok(nak(request, reply, "the address is of another network"));
            }
            let record = leases.of(mac, subnet.network).map(|l| l.address);
            let reserved = machine.and_then(|m| m.address) == Some(asked);
            if selecting.is_none() && record.is_none() && !reserved {
                return Err(Silent::NoRecord(asked));
            }
            // What it was offered or has, and nothing else: a client that could choose would end
            // with the whole pool. Offers are not written: one from before our start is void, too.
            let its = record == Some(asked) || (record.is_none() && leases.offers_are_full());
            if !its && !reserved {
                return Ok(nak(request, reply, "the address is not the one you were offered"));
            }
            let hostname = request.hostname.clone();
            if leases.bind(&asker, asked, subnet, time, hostname, now).is_err() {
                return Ok(nak(request, reply, "the address is not yours"));
            }
            reply.kind = ReplyKind::Ack;
            reply.yiaddr = asked;
            reply.ciaddr = request.ciaddr;
        }
        Kind::Inform => {
            // Section 4.3.5: no yiaddr, no times, and the answer goes to ciaddr.
            reply.kind = ReplyKind::Ack;
            reply.ciaddr = request.ciaddr;
            settings(request, subnet, machine, reply);
            return Ok(to(request, request.ciaddr));
        }
        Kind::Decline => {
            let address = request.requested.ok_or(Silent::NoAddress)?;
            return Err(match leases.decline(mac, address, now) {
                Ok(()) => Silent::Noted(Kind::Decline),
                Err(Refused::Declines(address)) => Silent::Declines(address),
                Err(_) => Silent::NotItsLease(Kind::Decline, address),
            });
        }
        Kind::Release => {
            return Err(match leases.release(mac, request.ciaddr, now) {
                Ok(()) => Silent::Noted(Kind::Release),
                Err(_) => Silent::NotItsLease(Kind::Release, request.ciaddr),
            });
        }
    }
    let seconds = |part: u64| {
        let s = u32::try_from(time.as_secs() * part / 8).unwrap_or(u32::MAX);
        Value::from(&s.to_be_bytes()[..])
    };
    reply.options.extend([
        (code::LEASE_TIME, seconds(8)),
        // Section 4.4.5: half and seven eighths of the lease.
        (code::T1, seconds(4)),
        (code::T2, seconds(7)),
    ]);
    settings(request, subnet, machine, reply);
    Ok(to(request, request.ciaddr))
}

/// Where the client sits, by what its relay tells of it: the relay, and its circuit and remote ID
/// (RFC 3046 sections 3.1 and 3.2).
fn source(request: &Request) -> Option<Source> {
    let told = request.relay.as_deref()?;
    let digest = |of: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        of(&mut hasher);
        hasher.finish()
    };
    Some(Source {
        relay: digest(&|h| request.giaddr.hash(h)),
        port: digest(&|h| {
            let part = |code| wire::suboption(told, code);
            (request.giaddr, part(1), part(2)).hash(h);
        }),
    })
}

/// RFC 2131 section 4.1.
fn to(request: &Request, ciaddr: Ipv4Addr) -> To {
    match (request.is_relayed(), ciaddr.is_unspecified()) {
        (true, _) => To::Address(SocketAddrV4::new(request.giaddr, 67)),
        (false, false) => To::Address(SocketAddrV4::new(ciaddr, 68)),
        (false, true) => To::Broadcast,
    }
}

fn nak(request: &Request, reply: &mut Reply, why: &str) -> To {
    reply.kind = ReplyKind::Nak;
    reply.options.push((code::MESSAGE, why.as_bytes().into()));
    // RFC 2131 table 3 has nothing else in a NAK; RFC 6842 adds this.
    if let Some(id) = &request.client_id {
        reply.options.push((code::CLIENT_ID, id[..].into()));
    }
    match request.is_relayed() {
        true => {
            // Section 4.3.2: the client has no address, so the relay must broadcast it.
            reply.flags |= 0x8000;
            To::Address(SocketAddrV4::new(request.giaddr, 67))
        }
        false => To::Broadcast,
    }
}

/// The subnet's settings: what the client's parameter list names, in its order (RFC 2132 section
/// 9.8), everything where it has none; then the options that the user set by number.
fn settings(request: &Request, subnet: &Subnet, machine: Option<&Machine>, reply: &mut Reply) {
    const ALL: [u8; 8] = [
        code::SUBNET_MASK,
        code::ROUTER,
        code::DNS,
        code::HOSTNAME,
        code::DOMAIN,
        code::MTU,
        code::BROADCAST,
        code::NTP,
    ];
    let addresses = |list: &[Ipv4Addr]| {
        (!list.is_empty()).then(|| list.iter().flat_map(|a| a.octets()).collect::<Value>())
    };
    let own = |wanted: u8| subnet.options.iter().find(|(c, _)| *c == wanted).map(|(_, v)| v);
    let value = |wanted: u8| {
        if let Some(value) = own(wanted) {
            return Some(value[..].into());
        }
        match wanted {
            code::SUBNET_MASK => Some(subnet.network.netmask().octets()[..].into()),
            code::ROUTER => addresses(&subnet.router),
            code::DNS => addresses(&subnet.dns),
            code::HOSTNAME => {
                machine.and_then(|m| m.hostname.as_ref()).map(|h| Value::from(h.as_bytes()))
            }
            code::DOMAIN => subnet.domain.as_ref().map(|d| Value::from(d.as_bytes())),
            code::MTU => subnet.mtu.map(|m| Value::from(&m.to_be_bytes()[..])),
            code::BROADCAST => Some(subnet.broadcast.octets()[..].into()),
            code::NTP => addresses(&subnet.ntp),
            _ => None,
        }
    };
    let asked = match request.parameters.is_empty() {
        true => &ALL[..],
        false => &request.parameters[..],
    };
    // The mask is what makes an address useful, asked for or not.
    let mask = std::iter::once(code::SUBNET_MASK);
    let set = subnet.options.iter().map(|(c, _)| *c);
    for wanted in mask.chain(asked.iter().copied()).chain(set) {
        if !reply.options.iter().any(|(c, _)| *c == wanted)
            && let Some(value) = value(wanted)
        {
            reply.options.push((wanted, value));
        }
    }
}

/// The options that tie a reply to its client.
fn echo_client(request: &Request, reply: &mut Reply) {
    if let Some(id) = &request.client_id {
        // RFC 6842: a client behind a shared hardware address knows its reply by this alone.
        reply.options.push((code::CLIENT_ID, id[..].into()));
    }
    if let Some(uuid) = &request.uuid {
        // PXE 2.1 section 2.4: ROMs drop an offer that does not have it.
        reply.options.push((code::UUID, uuid[..].into()));
    }
}

/// The boot information, in the words that the client at hand understands.
#[expect(clippy::too_many_arguments, reason = "each is one fact of the decision")]
fn boot_options(
    config: &Config,
    request: &Request,
    here: &Here<'_>,
    firmware: Option<&Firmware>,
    next: &Next,
    server: Ipv4Addr,
    proxied: bool,
    reply: &mut Reply,
) {
    let mut own: Vec<(u8, Value)> = Vec::new();
    let name = match next {
        Next::Loader { name, .. } => Some(name.as_str()),
        Next::Script { url } => Some(url.as_str()),
        Next::Nothing | Next::Refused(_) => None,
    };
    let http = firmware.is_some_and(|f| f.transport == Transport::Http) && request.ipxe.is_none();
    if let Some(name) = name {
        reply.siaddr = server;
        if name.len() <= FILE_LIMIT {
            // iPXE believes `file` before option 67, EDK2 the other way: both say the same.
            reply.file = name.to_string();
        }
        if http {
            // UEFI HTTP boot takes an offer only with this, and copies nothing from it.
            own.push((code::VENDOR_CLASS, b"HTTPClient"[..].into()));
        } else if proxied {
            // PXE 2.1: what makes an offer without an address a proxy's.
            own.push((code::VENDOR_CLASS, b"PXEClient"[..].into()));
            if firmware.is_some_and(|f| f.family == Family::Bios) && request.ipxe.is_none() {
                // PXE_DISCOVERY_CONTROL bit 3: no boot server discovery, take the file named here.
                // EDK2 reads the same words as a boot menu that is not there, so UEFI gets none
                // and asks port 4011.
                own.push((code::VENDOR, wire::encapsulate(&[(6, &[8])], true).into()));
            }
        }
        let mut text = Value::from(name.as_bytes());
        text.push(0);
        own.push((code::BOOTFILE, text));
        // Unasked: an iPXE that these bytes start reads them before it reads anything else.
        let mut sub: Vec<(u8, &[u8])> = Vec::new();
        if !proxied && config.dhcp.mode == Mode::Full {
            // We are the only DHCP server: saves iPXE's 2 to 3 s wait for a proxy's offer.
            sub.push((wire::ipxe::NO_PXEDHCP, &[1]));
        }
        if !here.trust.is_empty() {
            sub.push((wire::ipxe::TRUST, here.trust));
        }
        if !sub.is_empty() {
            own.push((code::IPXE, wire::encapsulate(&sub, false).into()));
        }
    }
    // Boot options come right behind the server identifier and the times: a reply that grows too
    // long loses its tail.
    let mut rest: Vec<(u8, Value)> = Vec::new();
    std::mem::swap(&mut rest, &mut reply.options);
    let first = rest
        .iter()
        .take_while(|(c, _)| matches!(*c, code::SERVER_ID | code::LEASE_TIME | code::T1 | code::T2))
        .count();
    let tail = rest.split_off(first);
    reply.options = rest;
    echo_client(request, reply);
    for (code, value) in own.into_iter().chain(tail) {
        if !reply.options.iter().any(|(c, _)| *c == code) {
            reply.options.push((code, value));
        }
    }
}

/// Option 97's 17 bytes as iPXE's `${uuid}` writes it: type 0, then the SMBIOS structure's bytes,
/// whose first three fields are little-endian (SMBIOS 3.6 section 7.2.1).
pub fn uuid(value: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = value.strip_prefix(&[0])?.try_into().ok()?;
    // All zeros or all ones is SMBIOS for "none".
    let one = bytes[0];
    if (one == 0 || one == 0xff) && bytes.iter().all(|b| *b == one) {
        return None;
    }
    Some(uuid::Uuid::from_bytes_le(bytes).to_string())
}

/// `from MAC (uefi-x64) via eth1`.
fn asked(request: &Request, here: &Here<'_>, firmware: Option<&Firmware>) -> String {
    // Room for all of it at once: this is made for every message.
    let mut text = String::with_capacity(96);
    let for_ = match (request.kind, request.requested) {
        (Kind::Request | Kind::Decline, Some(a)) => Some(a),
        (Kind::Request, None) | (Kind::Release | Kind::Inform, _) => Some(request.ciaddr),
        _ => None,
    };
    // Writing to a string does not fail.
    let _ = match for_ {
        Some(a) => write!(text, "for {a} from {}", request.mac),
        None => write!(text, "from {}", request.mac),
    };
    let _ = match (&request.ipxe, firmware) {
        (Some(_), Some(f)) => write!(text, " (iPXE, {})", f.arch),
        (None, Some(f)) => write!(text, " ({f})"),
        _ => Ok(()),
    };
    let _ = match request.is_relayed() {
        true => write!(text, " via {} ({})", request.giaddr, here.interface),
        false => write!(text, " via {}", here.interface),
    };
    let chosen = request.server_id.filter(|id| {
        request.kind == Kind::Request
            && request.server_override != Some(*id)
            && !here.addresses.iter().any(|n| n.addr() == *id)
    });
    if let Some(server) = chosen {
        let _ = write!(text, ": it {OTHERS_OFFER}{server}");
    }
    text
}

/// `on ADDRESS to MAC via eth1: what it boots`.
fn told(reply: &Reply, next: &Next, here: &Here<'_>) -> String {
    let mut text = String::with_capacity(96);
    let _ = match reply.yiaddr.is_unspecified() {
        true => write!(text, "to {}", reply.mac),
        false => write!(text, "on {} to {}", reply.yiaddr, reply.mac),
    };
    let _ = match reply.giaddr.is_unspecified() {
        true => write!(text, " via {}", here.interface),
        false => write!(text, " via {}", reply.giaddr),
    };
    let _ = match next {
        _ if reply.kind == ReplyKind::Nak => Ok(()),
        Next::Nothing => Ok(()),
        Next::Loader { name, .. } => write!(text, ": loader {name}"),
        Next::Script { url } => write!(text, ": script {url}"),
        Next::Refused(why) => write!(text, ": nothing to boot, {why}"),
    };
    text
}
