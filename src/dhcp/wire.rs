//! Bytes to meaning and back: the one file that names dhcproto, and that guards what it gets
//! wrong.
//!
//! 1. [`read`] checks the header before the codec touches it: `hlen` beyond the field makes
//!    dhcproto panic.
//! 2. It takes the options raw, over `file` and `sname` too where they are overloaded, and joins
//!    the parts of a long one (RFC 3396). One that cannot be understood costs only itself.
//! 3. [`write`] has dhcproto make the header, and adds the options in our own order: the client's
//!    parameter list has one (RFC 2132 section 9.8), dhcproto sorts. Option 82 goes back as it
//!    came, byte for byte (RFC 3046 section 2.2), and the end is padded to what BOOTP relays want.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4;
use dhcproto::{Encodable, Encoder};
use smallvec::SmallVec;

use crate::model::Mac;

/// Option codes, by their names in RFC 2132, 3046, 4578, 6842 and iPXE.
pub mod code {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOSTNAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST: u8 = 28;
    pub const NTP: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_MESSAGE_SIZE: u8 = 57;
    pub const T1: u8 = 58;
    pub const T2: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const BOOTFILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY_AGENT: u8 = 82;
    pub const ARCH: u8 = 93;
    pub const UUID: u8 = 97;
    pub const SUBNET_SELECTION: u8 = 118;
    pub const IPXE: u8 = 175;
}

/// Sub-options of iPXE's option 175.
pub mod ipxe {
    /// SHA-256 fingerprints of the roots to trust, one after the other.
    pub const TRUST: u8 = 90;
    /// Do not wait for proxy offers.
    pub const NO_PXEDHCP: u8 = 176;
    /// Features that a client names: it speaks HTTP, HTTPS.
    pub const HTTP: u8 = 19;
    pub const HTTPS: u8 = 20;
}

/// The message types of option 53 that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Discover,
    Request,
    Decline,
    Release,
    Inform,
}

impl Kind {
    /// The word of dhcpd's log.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Discover => "DHCPDISCOVER",
            Kind::Request => "DHCPREQUEST",
            Kind::Decline => "DHCPDECLINE",
            Kind::Release => "DHCPRELEASE",
            Kind::Inform => "DHCPINFORM",
        }
    }
}

/// What option 60 says the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `PXEClient…` (PXE 2.1 section 2.2.1)
    Pxe,
    /// `HTTPClient…` (UEFI 2.10 section 24.7.3)
    Http,
    /// None, or anybody else's.
    Other,
}

/// A client's message, as far as a boot server needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: Kind,
    pub mac: Mac,
    pub xid: u32,
    /// Seconds in RFC 2131; bits of iPXE's state machine in truth.
    pub secs: u16,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub server_id: Option<Ipv4Addr>,
    pub requested: Option<Ipv4Addr>,
    /// Seconds, option 51.
    pub lease_time: Option<u32>,
    pub client_id: Option<Vec<u8>>,
    pub hostname: Option<String>,
    pub parameters: Vec<u8>,
    pub max_size: Option<u16>,
    pub class: Class,
    /// The first code of option 93.
    pub arch: Option<u16>,
    /// Option 97 as it came, whatever its length: it is echoed.
    pub uuid: Option<Vec<u8>>,
    /// Whoever says user class `iPXE` or sends option 175, with the sub-options it names.
    pub ipxe: Option<Vec<u8>>,
    /// Option 82 as it came.
    pub relay: Option<Vec<u8>>,
    /// The subnet to choose from in place of `giaddr`'s: option 82 sub-option 5 (RFC 3527), else
    /// option 118 (RFC 3011).
    pub link: Option<Ipv4Addr>,
    /// Option 82 sub-option 11 (RFC 5107): what our server identifier shall be.
    pub server_override: Option<Ipv4Addr>,
}

impl Request {
    pub fn broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    pub fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }
}

/// Why a datagram on a DHCP port is not a client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    TooShort(usize),
    /// BOOTREPLY and what else is not BOOTREQUEST.
    NotRequest(u8),
    /// `htype` and `hlen` of something that is no Ethernet.
    Hardware(u8, u8),
    NoCookie,
    /// Plain BOOTP has no option 53.
    NoType,
    /// A server's type, or an unknown one.
    Type(u8),
}

impl crate::model::Why for Unread {
    fn name(&self) -> &'static str {
        match self {
            Unread::TooShort(_) => "too-short",
            Unread::NotRequest(_) => "not-a-request",
            Unread::Hardware(..) => "hardware-type",
            Unread::NoCookie => "no-cookie",
            Unread::NoType => "bootp",
            Unread::Type(_) => "message-type",
        }
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::TooShort(n) => write!(f, "{n} bytes are too few for DHCP, which begins at 241"),
            Unread::NotRequest(op) => write!(f, "op {op} is not BOOTREQUEST"),
            Unread::Hardware(t, l) => {
                write!(f, "hardware type {t} with {l}-byte addresses is not Ethernet")
            }
            Unread::NoCookie => f.write_str("no magic cookie (RFC 2131 section 3)"),
            Unread::NoType => f.write_str("no message type: plain BOOTP is not answered"),
            Unread::Type(n) => write!(f, "message type {n} is not one that a client sends"),
        }
    }
}

/// Options as they came, the parts of each joined. A message has a dozen: looked through faster
/// than a map is made.
#[derive(Default)]
struct Raw<'a>(Vec<(u8, Cow<'a, [u8]>)>);

impl<'a> Raw<'a> {
    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(c, _)| *c == code).map(|(_, value)| &value[..])
    }

    /// RFC 3396 joins what stands twice; 4 KiB is more than any client has to say.
    fn add(&mut self, code: u8, value: &'a [u8]) {
        match self.0.iter_mut().find(|(c, _)| *c == code) {
            None => self.0.push((code, Cow::Borrowed(value))),
            Some((_, held)) if held.len() + value.len() <= 4096 => {
                held.to_mut().extend_from_slice(value);
            }
            Some(_) => {}
        }
    }
}

/// A client's message out of one datagram.
pub fn read(datagram: &[u8]) -> Result<Request, Unread> {
    // dhcproto takes 240 bytes; one more is the least that holds an option at all.
    if datagram.len() < 241 {
        return Err(Unread::TooShort(datagram.len()));
    }
    let (op, htype, hlen) = (datagram[0], datagram[1], datagram[2]);
    if op != 1 {
        return Err(Unread::NotRequest(op));
    }
    if htype != 1 || hlen != 6 {
        return Err(Unread::Hardware(htype, hlen));
    }
    if datagram[236..240] != [99, 130, 83, 99] {
        return Err(Unread::NoCookie);
    }
    let message =
        v4::borrowed::Message::new(datagram).map_err(|_| Unread::TooShort(datagram.len()))?;
    let options = options(datagram);
    let kind = match options.get(code::MESSAGE_TYPE).and_then(|v| v.first()) {
        None => return Err(Unread::NoType),
        Some(1) => Kind::Discover,
        Some(3) => Kind::Request,
        Some(4) => Kind::Decline,
        Some(7) => Kind::Release,
        Some(8) => Kind::Inform,
        Some(&n) => return Err(Unread::Type(n)),
    };
    let mut mac = [0; 6];
    mac.copy_from_slice(&message.chaddr()[..6]);

    let relayed = !message.giaddr().is_unspecified();
    // Echoed whole, so it must leave room for the rest; what a client that no relay forwarded says
    // there is nobody's.
    let relay = options.get(code::RELAY_AGENT).filter(|r| relayed && r.len() <= RELAY_LIMIT);
    let relay = relay.map(<[u8]>::to_vec);
    let sub = |wanted| relay.as_deref().and_then(|r| suboption(r, wanted)).and_then(address);
    let class = match options.get(code::VENDOR_CLASS) {
        Some(v) if v.starts_with(b"PXEClient") => Class::Pxe,
        Some(v) if v.starts_with(b"HTTPClient") => Class::Http,
        _ => Class::Other,
    };
    let features = options.get(code::IPXE).map(|v| suboptions(v).map(|(c, _)| c).collect());
    let says_ipxe = options.get(code::USER_CLASS).is_some_and(is_ipxe_class);
    Ok(Request {
        kind,
        mac: Mac(mac),
        xid: message.xid(),
        secs: message.secs(),
        flags: message.flags().into(),
        ciaddr: message.ciaddr(),
        giaddr: message.giaddr(),
        server_id: options.get(code::SERVER_ID).and_then(address),
        requested: options.get(code::REQUESTED_ADDRESS).and_then(address),
        lease_time: options
            .get(code::LEASE_TIME)
            .and_then(|v| v.try_into().ok())
            .map(u32::from_be_bytes),
        client_id: options.get(code::CLIENT_ID).filter(|v| !v.is_empty()).map(<[u8]>::to_vec),
        hostname: options.get(code::HOSTNAME).and_then(hostname),
        parameters: options.get(code::PARAMETER_LIST).unwrap_or_default().to_vec(),
        max_size: options
            .get(code::MAX_MESSAGE_SIZE)
            .and_then(|v| v.try_into().ok())
            .map(u16::from_be_bytes),
        class,
        arch: options
            .get(code::ARCH)
            .and_then(|v| v.first_chunk::<2>())
            .map(|v| u16::from_be_bytes(*v)),
        uuid: options.get(code::UUID).filter(|v| !v.is_empty()).map(<[u8]>::to_vec),
        ipxe: match (features, says_ipxe) {
            (Some(features), _) => Some(features),
            (None, true) => Some(Vec::new()),
            (None, false) => None,
        },
        // Only a relay speaks for another network: a client that could choose would draw on every
        // pool there is.
        link: sub(5)
            .or_else(|| options.get(code::SUBNET_SELECTION).and_then(address))
            .filter(|_| relayed),
        server_override: sub(11).filter(|_| relayed),
        relay,
    })
}

/// All options: those of the options field, then of `file` and `sname` where option 52 says that
/// they hold some (RFC 2131 section 4.1), the parts of each joined.
fn options(datagram: &[u8]) -> Raw<'_> {
    fn take<'a>(raw: &mut Raw<'a>, mut field: &'a [u8]) -> u8 {
        loop {
            match field {
                // Padding (RFC 2132 section 3.1).
                [0, rest @ ..] => field = rest,
                // The end, or an option that is cut.
                [] | [255, ..] => break,
                [code, rest @ ..] => {
                    let Some((len, rest)) = rest.split_first() else { break };
                    let Some((value, rest)) = rest.split_at_checked((*len).into()) else { break };
                    raw.add(*code, value);
                    field = rest;
                }
            }
        }
        raw.get(code::OVERLOAD).and_then(|v| v.first()).copied().unwrap_or(0)
    }
    let mut raw = Raw::default();
    let overload = take(&mut raw, &datagram[240..]);
    if overload & 1 != 0 {
        take(&mut raw, &datagram[108..236]);
    }
    if overload & 2 != 0 {
        take(&mut raw, &datagram[44..108]);
    }
    raw
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

/// The sub-options of an encapsulated option (RFC 2132 section 8.4); ends at the first that is cut.
fn suboptions(value: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (&[code, len], tail) = rest.split_first_chunk::<2>()?;
        let value = tail.get(..len.into())?;
        rest = &tail[len.into()..];
        (code != 255).then_some((code, value))
    })
}

/// The first sub-option of this code.
pub fn suboption(value: &[u8], wanted: u8) -> Option<&[u8]> {
    suboptions(value).find(|(code, _)| *code == wanted).map(|(_, v)| v)
}

/// iPXE sends its user class as plain text; RFC 3004 would have a length before it.
fn is_ipxe_class(value: &[u8]) -> bool {
    matches!(value, b"iPXE" | b"gPXE" | b"\x04iPXE")
}

/// A host name that can be shown and stored: letters, digits, hyphens and dots.
fn hostname(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let fit = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    fit.then(|| text.to_string())
}

/// What an option holds: nearly always a few bytes, which lie with it.
pub type Value = SmallVec<[u8; 24]>;

/// What we send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub kind: ReplyKind,
    pub xid: u32,
    pub secs: u16,
    pub flags: u16,
    pub mac: Mac,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    /// The `file` header; at most 127 bytes and a NUL fit.
    pub file: String,
    /// In the order in which they go out; what does not fit any more is left out from the end.
    pub options: Vec<(u8, Value)>,
    /// Option 82, back as it came.
    pub relay: Option<Vec<u8>>,
    /// The most bytes that the datagram may have.
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    Offer,
    Ack,
    Nak,
}

impl ReplyKind {
    /// The word of dhcpd's log.
    pub fn word(self) -> &'static str {
        match self {
            ReplyKind::Offer => "DHCPOFFER",
            ReplyKind::Ack => "DHCPACK",
            ReplyKind::Nak => "DHCPNAK",
        }
    }
}

/// The `file` header's room, without the NUL that must follow (EDK2 reads on without one).
pub const FILE_LIMIT: usize = 127;
/// The longest option 82 that is echoed, in bytes.
const RELAY_LIMIT: usize = 512;
/// A BOOTP message has 300 bytes (RFC 951 by way of RFC 1542 section 2.1), and some relays drop
/// what is shorter.
const LEAST: usize = 300;
/// What an Ethernet frame holds of one datagram. OVMF's DHCPREQUEST states a maximum message
/// size of 65280 (it has the byte order wrong), so a client's word counts only downwards.
pub const MOST: usize = 1472;

/// The datagram for a reply.
pub fn write(reply: &Reply) -> Vec<u8> {
    let mut message = v4::Message::new_with_id(
        reply.xid,
        reply.ciaddr,
        reply.yiaddr,
        reply.siaddr,
        reply.giaddr,
        &reply.mac.0,
    );
    message
        .set_opcode(v4::Opcode::BootReply)
        .set_flags(reply.flags.into())
        .set_secs(reply.secs)
        .set_fname_str(&reply.file);
    let mut out = Vec::with_capacity(576);
    let mut encoder = Encoder::new(&mut out);
    // Writing to memory fails for too long a name only, and `file` is checked where it is made.
    if message.encode(&mut encoder).is_err() {
        return Vec::new();
    }
    let room = |out: &Vec<u8>, len: usize, relay: &Option<Vec<u8>>| {
        let parts = len.div_ceil(255).max(1);
        let tail = relay.as_ref().map_or(0, |r| r.len() + 2 * r.len().div_ceil(255).max(1));
        let whole = out.len() + len + 2 * parts + 1;
        // What the client takes does not count option 82: its relay has taken it away again
        // (RFC 3046 section 2.1).
        whole <= reply.limit && whole + tail <= MOST
    };
    option(
        &mut out,
        code::MESSAGE_TYPE,
        &[match reply.kind {
            ReplyKind::Offer => 2,
            ReplyKind::Ack => 5,
            ReplyKind::Nak => 6,
        }],
    );
    for (code, value) in &reply.options {
        if room(&out, value.len(), &reply.relay) {
            option(&mut out, *code, value);
        }
    }
    if let Some(relay) = &reply.relay {
        // RFC 3046 section 2.1: the last option.
        option(&mut out, code::RELAY_AGENT, relay);
    }
    out.push(255);
    if out.len() < LEAST {
        out.resize(LEAST, 0);
    }
    out
}

/// One option, in parts of 255 bytes where it is longer (RFC 3396).
fn option(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    let mut parts = value.chunks(255);
    let first = parts.next().unwrap_or_default();
    for part in std::iter::once(first).chain(parts) {
        out.extend_from_slice(&[code, part.len() as u8]);
        out.extend_from_slice(part);
    }
}

/// Encapsulated options (RFC 2132 section 8.4) for 43 and 175.
pub fn encapsulate(sub: &[(u8, &[u8])], end: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (code, value) in sub {
        option(&mut out, *code, value);
    }
    if end {
        out.push(255);
    }
    out
}

/// What a client reads in a reply: the other direction of [`write`], for tests, `explain` and the
/// pretended machines.
pub fn read_reply(datagram: &[u8]) -> Option<(BTreeMap<u8, Vec<u8>>, v4::borrowed::Message<'_>)> {
    if datagram.len() < 241 || datagram[0] != 2 || datagram[2] != 6 {
        return None;
    }
    let options = options(datagram).0.into_iter().map(|(c, v)| (c, v.into_owned())).collect();
    Some((options, v4::borrowed::Message::new(datagram).ok()?))
}
