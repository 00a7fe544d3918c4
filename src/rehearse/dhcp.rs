//! The client's side of DHCP, pure: one exchange of one pretended machine, and the bytes of it.
//!
//! 1. A [`Template`] holds a whole datagram as the firmware or iPXE sends it (`tests/golden/dhcp/`);
//!    for each machine only address, transaction and times are patched in, since a storm makes
//!    tens of thousands a second.
//! 2. It is spoken through a relay that we pretend, too (RFC 2131 section 4.1: `giaddr`, by
//!    unicast): so every server can be asked, from an ordinary UDP socket.
//! 3. [`hear`] reads the few options that the exchange turns on.
//! 4. [`Exchange`] takes what was heard and the end of its wait, and says what comes next.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::dhcp::wire::{self, code};
use crate::model::{Family, Firmware, Mac, Why};

/// Room for any datagram of ours, in bytes.
pub const ROOM: usize = 576;

/// Who speaks: the firmware, or the iPXE that it has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Speaker {
    Firmware,
    Ipxe,
}

/// What a machine sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Discover,
    Request,
    Release,
}

/// One datagram with holes for what differs from machine to machine.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    /// Where the hardware address stands in options 61 and 97.
    macs: Vec<usize>,
    requested: Option<usize>,
    server: Option<usize>,
}

/// Of OVMF's DHCPDISCOVER.
const FIRMWARE_LIST: &[u8] = &[
    1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66,
    67, 97, 128, 129, 130, 131, 132, 133, 134, 135,
];
/// Of iPXE 2.0.0's.
const IPXE_LIST: &[u8] = &[
    1, 3, 6, 7, 12, 15, 17, 26, 42, 43, 60, 66, 67, 119, 121, 128, 129, 130, 131, 132, 133, 134,
    135, 175, 203,
];
/// What iPXE 2.0.0 says of itself in option 175: bus and card, version, then its features.
const IPXE_BUS: &[u8] = &[177, 5, 1, 0x1a, 0xf4, 0x10, 0, 235, 3, 2, 0, 0];
const IPXE_FEATURES: &[u8] = &[23, 34, 19, 20, 17, 39, 25, 41, 21, 24, 38, 18];
/// Features 33 (undionly) and 36 (EFI).
const IPXE_BIOS: u8 = 33;
const IPXE_EFI: u8 = 36;

impl Template {
    /// Of `firmware`'s messages, or of the iPXE's it starts, through a relay at `giaddr`.
    pub fn new(firmware: &Firmware, speaker: Speaker, kind: Kind, giaddr: Ipv4Addr) -> Template {
        let mut t = Template { bytes: vec![0; 240], macs: vec![], requested: None, server: None };
        // BOOTREQUEST, Ethernet, six bytes, one hop: a relay counts itself (RFC 1542 section 4.1.1).
        t.bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
        t.bytes[24..28].copy_from_slice(&giaddr.octets());
        t.bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        let number = match kind {
            Kind::Discover => 1,
            Kind::Request => 3,
            Kind::Release => 7,
        };
        t.option(code::MESSAGE_TYPE, &[number]);
        match (kind, speaker) {
            (Kind::Release, _) => t.chosen(kind),
            (_, Speaker::Firmware) => t.firmware(firmware, kind),
            (_, Speaker::Ipxe) => t.ipxe(firmware, kind),
        }
        t.bytes.push(255);
        // What BOOTP relays let through at all (RFC 1542 section 2.1).
        t.bytes.resize(t.bytes.len().max(300), 0);
        t
    }

    fn option(&mut self, code: u8, value: &[u8]) -> usize {
        self.bytes.extend([code, value.len() as u8]);
        let at = self.bytes.len();
        self.bytes.extend(value);
        at
    }

    /// Server and address that a REQUEST takes; a RELEASE has its address in `ciaddr` (RFC 2131
    /// table 5).
    fn chosen(&mut self, kind: Kind) {
        self.server = Some(self.option(code::SERVER_ID, &[0; 4]));
        if kind == Kind::Request {
            self.requested = Some(self.option(code::REQUESTED_ADDRESS, &[0; 4]));
        }
    }

    /// In the order of OVMF 2022.11's, the wrong byte order of its REQUEST's size included. A BIOS
    /// ROM says the same of itself but for architecture and version.
    fn firmware(&mut self, firmware: &Firmware, kind: Kind) {
        if kind == Kind::Request {
            self.chosen(kind);
        }
        let size = if kind == Kind::Request { [0xff, 0] } else { [5, 0xc0] };
        self.option(code::MAX_MESSAGE_SIZE, &size);
        self.option(code::PARAMETER_LIST, FIRMWARE_LIST);
        self.uuid();
        self.undi(firmware);
        self.class(firmware);
    }

    /// In the order of iPXE 2.0.0's.
    fn ipxe(&mut self, firmware: &Firmware, kind: Kind) {
        self.option(code::MAX_MESSAGE_SIZE, &[5, 0xc0]);
        self.undi(firmware);
        self.class(firmware);
        self.option(code::USER_CLASS, b"iPXE");
        self.option(code::PARAMETER_LIST, IPXE_LIST);
        let mut own = IPXE_BUS.to_vec();
        let kind_of = if firmware.family == Family::Bios { IPXE_BIOS } else { IPXE_EFI };
        own.extend(IPXE_FEATURES.iter().chain([&kind_of]).flat_map(|f| [*f, 1, 1]));
        self.option(code::IPXE, &own);
        let id = self.option(code::CLIENT_ID, &[1, 0, 0, 0, 0, 0, 0]);
        self.macs.push(id + 1);
        self.uuid();
        if kind == Kind::Request {
            self.chosen(kind);
        }
    }

    /// A made-up one that ends with the hardware address.
    fn uuid(&mut self) {
        let at = self.option(code::UUID, b"\0rehearsal\0\0\0\0\0\0\0");
        self.macs.push(at + 11);
    }

    fn undi(&mut self, firmware: &Firmware) {
        let version = if firmware.family == Family::Bios { [1, 2, 1] } else { [1, 3, 0] };
        self.option(94, &version);
        self.option(code::ARCH, &firmware.code.to_be_bytes());
    }

    fn class(&mut self, firmware: &Firmware) {
        let version = if firmware.family == Family::Bios { "002001" } else { "003000" };
        let class = format!("PXEClient:Arch:{:05}:UNDI:{version}", firmware.code);
        self.option(code::VENDOR_CLASS, class.as_bytes());
    }

    /// Patched for one machine into `out`: its length. `chosen` is server and address.
    pub fn write(
        &self,
        mac: Mac,
        xid: u32,
        secs: u16,
        chosen: Chosen,
        out: &mut [u8; ROOM],
    ) -> usize {
        let len = self.bytes.len().min(ROOM);
        let out = &mut out[..len];
        out.copy_from_slice(&self.bytes[..len]);
        out[4..8].copy_from_slice(&xid.to_be_bytes());
        out[8..10].copy_from_slice(&secs.to_be_bytes());
        out[28..34].copy_from_slice(&mac.0);
        for at in &self.macs {
            out[*at..*at + 6].copy_from_slice(&mac.0);
        }
        match self.requested {
            Some(at) => out[at..at + 4].copy_from_slice(&chosen.address.octets()),
            None => out[12..16].copy_from_slice(&chosen.address.octets()),
        }
        if let Some(at) = self.server {
            out[at..at + 4].copy_from_slice(&chosen.server.octets());
        }
        len
    }
}

/// The address that a machine takes, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub address: Ipv4Addr,
    pub server: Ipv4Addr,
}

impl Chosen {
    /// What a DISCOVER has.
    pub const NONE: Chosen =
        Chosen { address: Ipv4Addr::UNSPECIFIED, server: Ipv4Addr::UNSPECIFIED };
}

/// A server's message, as far as the exchange turns on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub kind: Told,
    pub xid: u32,
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub server: Ipv4Addr,
    /// Option 51.
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Offer,
    Ack,
    Nak,
}

/// What a server's datagram says; `None` is no reply of DHCP.
pub fn hear(datagram: &[u8]) -> Option<Heard> {
    let four = |at: usize| -> Option<[u8; 4]> { datagram.get(at..at + 4)?.try_into().ok() };
    if datagram.len() < 241 || datagram[0] != 2 || four(236)? != [99, 130, 83, 99] {
        return None;
    }
    let (mut kind, mut server, mut time) = (None, None, 0);
    let mut rest = &datagram[240..];
    // Each turn takes a byte at least.
    while let Some((&option, tail)) = rest.split_first() {
        match option {
            0 => rest = tail,
            255 => break,
            _ => {
                let (&len, tail) = tail.split_first()?;
                let value = tail.get(..len.into())?;
                rest = &tail[len.into()..];
                match option {
                    code::MESSAGE_TYPE => kind = value.first().copied(),
                    code::SERVER_ID => server = value.try_into().ok().map(<[u8; 4]>::into),
                    code::LEASE_TIME => {
                        time = value.try_into().map_or(0, u32::from_be_bytes);
                    }
                    _ => {}
                }
            }
        }
    }
    Some(Heard {
        kind: match kind? {
            2 => Told::Offer,
            5 => Told::Ack,
            6 => Told::Nak,
            _ => return None,
        },
        xid: u32::from_be_bytes(four(4)?),
        mac: Mac(datagram[28..34].try_into().ok()?),
        address: four(16)?.into(),
        server: server.unwrap_or(Ipv4Addr::UNSPECIFIED),
        time: Duration::from_secs(time.into()),
    })
}

/// What a machine is told to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// `siaddr`: where it lies.
    pub server: Ipv4Addr,
    /// A name for TFTP, or a URL.
    pub file: String,
}

/// The boot information of a reply, as this speaker takes it: option 67 is more than the `file`
/// header to EDK2, and less to iPXE.
pub fn boot(datagram: &[u8], speaker: Speaker) -> Option<Boot> {
    let (options, message) = wire::read_reply(datagram)?;
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        (!text.is_empty()).then_some(text)
    };
    // Overloaded (option 52), the header holds options.
    let overload = options.get(&code::OVERLOAD).and_then(|v| v.first()).copied().unwrap_or(0);
    let header = (overload & 1 == 0).then(|| text(&datagram[108..236])).flatten();
    let option = options.get(&code::BOOTFILE).and_then(|v| text(v));
    let file = match speaker {
        Speaker::Firmware => option.or(header)?,
        Speaker::Ipxe => header.or(option)?,
    };
    Some(Boot { server: message.siaddr(), file })
}

/// Waits for an answer before a message is sent again, in seconds. Shorter than RFC 2131 section
/// 4.1 has it (4, 8, 16, 32): iPXE begins with 1 s, and a rehearsal shall show what a lost
/// datagram costs.
const WAITS: [u64; 4] = [1, 2, 4, 8];
/// A machine that is refused this often gives up.
const NAKS: u8 = 3;

/// Why a machine has no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLease {
    NoOffer,
    NoAck,
    Naked,
    /// The DHCPACK is for another address than the one that was asked for.
    Other,
    /// Two machines that both live have it.
    Twice(Ipv4Addr, Mac, Mac),
    /// More machines wait for an answer than we can keep in mind.
    Crowded,
}

impl Why for NoLease {
    fn name(&self) -> &'static str {
        match self {
            NoLease::NoOffer => "no-offer",
            NoLease::NoAck => "no-ack",
            NoLease::Naked => "nak",
            NoLease::Other => "other-address",
            NoLease::Twice(..) => "given-twice",
            NoLease::Crowded => "crowded",
        }
    }
}

impl fmt::Display for NoLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoLease::NoOffer => f.write_str(
                "no DHCPOFFER to 4 DHCPDISCOVERs in 15 s: pool full, no [[subnet]] for the \
                 relay's address, or a server that does not answer",
            ),
            NoLease::NoAck => f.write_str("an offer, but no DHCPACK to 4 DHCPREQUESTs in 15 s"),
            NoLease::Naked => f.write_str("DHCPNAK to what had just been offered, three times"),
            NoLease::Other => f.write_str("DHCPACK for another address than the one offered"),
            NoLease::Twice(address, first, second) => {
                write!(f, "address given twice: {address} to {first}, and to {second} as well")
            }
            NoLease::Crowded => f.write_str(
                "not begun: more than a million machines wait for their answers already",
            ),
        }
    }
}

/// What an exchange does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What was heard is nothing to it: a duplicate, a second server's offer.
    Stay,
    /// It sends [`Exchange::says`] and waits this long.
    Send(Duration),
    /// It has its lease; `None` is an offer without address: a proxy's, which the site's own
    /// DHCP server would complete.
    Done(Option<Lease>),
    Failed(NoLease),
}

/// An address and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub server: Ipv4Addr,
    pub time: Duration,
}

/// DISCOVER to ACK of one machine (RFC 2131 section 4.4.1, without ARP and DECLINE: a pretended
/// machine has no card to ask with).
#[derive(Clone, Debug)]
pub struct Exchange {
    says: Kind,
    chosen: Chosen,
    sent: u8,
    naks: u8,
}

impl Exchange {
    /// Begins: a DISCOVER, and the wait behind it. `die` is any number.
    pub fn begin(die: u32) -> (Exchange, Duration) {
        let exchange = Exchange { says: Kind::Discover, chosen: Chosen::NONE, sent: 1, naks: 0 };
        (exchange, wait(1, die))
    }

    /// What it says now.
    pub fn says(&self) -> (Kind, Chosen) {
        (self.says, self.chosen)
    }

    /// A message of its transaction has come.
    pub fn hears(&mut self, heard: &Heard, die: u32) -> Step {
        match (self.says, heard.kind) {
            (Kind::Discover, Told::Offer) if heard.address.is_unspecified() => Step::Done(None),
            (Kind::Discover, Told::Offer) => {
                self.says = Kind::Request;
                self.chosen = Chosen { address: heard.address, server: heard.server };
                self.again(1, die)
            }
            (Kind::Request, Told::Ack) if heard.address != self.chosen.address => {
                Step::Failed(NoLease::Other)
            }
            (Kind::Request, Told::Ack) => Step::Done(Some(Lease {
                address: heard.address,
                server: self.chosen.server,
                time: heard.time,
            })),
            (Kind::Request, Told::Nak) if self.naks + 1 >= NAKS => Step::Failed(NoLease::Naked),
            (Kind::Request, Told::Nak) => {
                self.naks += 1;
                self.says = Kind::Discover;
                self.chosen = Chosen::NONE;
                self.again(1, die)
            }
            _ => Step::Stay,
        }
    }

    /// Its wait is over.
    pub fn waited(&mut self, die: u32) -> Step {
        match (usize::from(self.sent) < WAITS.len(), self.says) {
            (true, _) => self.again(self.sent + 1, die),
            (false, Kind::Discover) => Step::Failed(NoLease::NoOffer),
            (false, _) => Step::Failed(NoLease::NoAck),
        }
    }

    fn again(&mut self, sent: u8, die: u32) -> Step {
        self.sent = sent;
        Step::Send(wait(sent, die))
    }
}

/// The wait behind the `sent`th sending, a quarter shorter or longer by the die: machines that
/// were switched on at once shall not ask again at once (RFC 2131 section 4.1).
fn wait(sent: u8, die: u32) -> Duration {
    let seconds = WAITS[usize::from(sent.max(1) - 1).min(WAITS.len() - 1)];
    let whole = Duration::from_secs(seconds);
    whole * 3 / 4 + whole / 2 * (die % 1024) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::wire::Class;

    const GIADDR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const LEASED: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
    const MAC: Mac = Mac([0x52, 0x54, 0, 0x77, 0, 1]);

    fn firmware(name: &str) -> &'static Firmware {
        Firmware::by_name(name).unwrap()
    }

    fn datagram(name: &str, speaker: Speaker, kind: Kind, chosen: Chosen) -> Vec<u8> {
        let mut out = [0; ROOM];
        let template = Template::new(firmware(name), speaker, kind, GIADDR);
        let len = template.write(MAC, 0xb859_81c2, 3, chosen, &mut out);
        out[..len].to_vec()
    }

    fn golden(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/golden/dhcp/{name}.hex", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let digits: String = text.lines().filter(|l| !l.starts_with('#')).collect();
        (0..digits.len() / 2)
            .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
            .collect()
    }

    /// Our words are the captured machine's, option for option, but for what is this machine's.
    #[test]
    fn speaks_as_captured_machines_do() {
        let chosen = Chosen { address: Ipv4Addr::new(10, 77, 0, 0x9c), server: SERVER };
        for (file, name, speaker, kind, chosen) in [
            ("ovmf-pxe-discover", "uefi-x64", Speaker::Firmware, Kind::Discover, Chosen::NONE),
            ("ovmf-pxe-request", "uefi-x64", Speaker::Firmware, Kind::Request, chosen),
            (
                "qemu-efi-aarch64-discover",
                "uefi-arm64",
                Speaker::Firmware,
                Kind::Discover,
                Chosen::NONE,
            ),
            ("undionly-discover", "bios", Speaker::Ipxe, Kind::Discover, Chosen::NONE),
        ] {
            let theirs = wire::read(&golden(file)).unwrap();
            let ours = wire::read(&datagram(name, speaker, kind, chosen)).unwrap();
            assert_eq!(ours.giaddr, GIADDR);
            assert_eq!(
                (ours.kind, ours.class, ours.arch, &ours.max_size, ours.server_id, ours.requested),
                (
                    theirs.kind,
                    theirs.class,
                    theirs.arch,
                    &theirs.max_size,
                    theirs.server_id,
                    theirs.requested
                ),
                "{file}"
            );
            let plain = |list: &[u8]| {
                list.iter().copied().filter(|c| FIRMWARE_LIST.contains(c)).collect::<Vec<_>>()
            };
            assert_eq!(plain(&ours.parameters), plain(&theirs.parameters), "{file}");
            let sorted = |features: &Option<Vec<u8>>| {
                let mut all = features.clone().unwrap_or_default();
                all.retain(|f| *f != 16);
                all.sort_unstable();
                all
            };
            assert_eq!(sorted(&ours.ipxe), sorted(&theirs.ipxe), "{file}");
            assert_eq!(ours.client_id.is_some(), theirs.client_id.is_some(), "{file}");
        }
    }

    #[test]
    fn a_machine_is_patched_in_wherever_it_is_named() {
        let bytes = datagram("uefi-x64", Speaker::Ipxe, Kind::Discover, Chosen::NONE);
        let read = wire::read(&bytes).unwrap();
        assert_eq!((read.mac, read.xid, read.secs), (MAC, 0xb859_81c2, 3));
        assert_eq!(read.client_id.unwrap()[1..], MAC.0);
        assert_eq!(read.uuid.unwrap()[11..], MAC.0);
        assert_eq!(read.class, Class::Pxe);
        let chosen = Chosen { address: LEASED, server: SERVER };
        let read = wire::read(&datagram("bios", Speaker::Firmware, Kind::Release, chosen)).unwrap();
        assert_eq!((read.ciaddr, read.server_id, read.requested), (LEASED, Some(SERVER), None));
        for name in ["bios", "uefi-x64", "uefi-arm64"] {
            for speaker in [Speaker::Firmware, Speaker::Ipxe] {
                assert!(datagram(name, speaker, Kind::Request, chosen).len() < ROOM);
            }
        }
    }

    fn heard(kind: Told, address: Ipv4Addr) -> Heard {
        let time = Duration::from_secs(600);
        Heard { kind, xid: 1, mac: MAC, address, server: SERVER, time }
    }

    #[test]
    fn discover_offer_request_ack() {
        let (mut e, first) = Exchange::begin(512);
        assert_eq!(first, Duration::from_secs(1));
        assert_eq!(e.says(), (Kind::Discover, Chosen::NONE));
        assert_eq!(e.hears(&heard(Told::Ack, LEASED), 0), Step::Stay, "nothing was asked yet");
        let second = Step::Send(Duration::from_secs(1));
        assert_eq!(e.hears(&heard(Told::Offer, LEASED), 512), second);
        assert_eq!(e.says(), (Kind::Request, Chosen { address: LEASED, server: SERVER }));
        assert_eq!(e.hears(&heard(Told::Offer, SERVER), 0), Step::Stay, "the first offer is taken");
        let lease = Lease { address: LEASED, server: SERVER, time: Duration::from_secs(600) };
        assert_eq!(e.clone().hears(&heard(Told::Ack, LEASED), 0), Step::Done(Some(lease)));
        assert_eq!(e.hears(&heard(Told::Ack, SERVER), 0), Step::Failed(NoLease::Other));
    }

    #[test]
    fn asks_four_times_then_gives_up() {
        let (mut e, first) = Exchange::begin(0);
        let mut waits = vec![first];
        let failed = loop {
            match e.waited(1023) {
                Step::Send(wait) => waits.push(wait),
                step => break step,
            }
        };
        assert_eq!(failed, Step::Failed(NoLease::NoOffer));
        assert_eq!(waits.len(), 4);
        for (wait, plain) in waits.iter().zip(WAITS) {
            let plain = Duration::from_secs(plain);
            assert!(*wait >= plain * 3 / 4 && *wait < plain * 5 / 4, "{wait:?}");
        }
        let (mut e, _) = Exchange::begin(0);
        e.hears(&heard(Told::Offer, LEASED), 0);
        let last = std::iter::repeat_with(|| e.waited(0)).find(|s| !matches!(s, Step::Send(_)));
        assert_eq!(last, Some(Step::Failed(NoLease::NoAck)));
    }

    #[test]
    fn a_nak_starts_over_and_the_third_ends_it() {
        let (mut e, _) = Exchange::begin(0);
        for round in 1..=3 {
            assert_eq!(e.says().0, Kind::Discover, "round {round}");
            e.hears(&heard(Told::Offer, LEASED), 0);
            let step = e.hears(&heard(Told::Nak, Ipv4Addr::UNSPECIFIED), 0);
            match round {
                3 => assert_eq!(step, Step::Failed(NoLease::Naked)),
                _ => assert!(matches!(step, Step::Send(_))),
            }
        }
    }

    #[test]
    fn an_offer_without_address_is_a_proxys() {
        let (mut e, _) = Exchange::begin(0);
        assert_eq!(e.hears(&heard(Told::Offer, Ipv4Addr::UNSPECIFIED), 0), Step::Done(None));
    }

    #[test]
    fn replies_are_read_and_what_is_none_is_not() {
        let reply = wire::Reply {
            kind: wire::ReplyKind::Ack,
            xid: 7,
            secs: 0,
            flags: 0,
            mac: MAC,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: LEASED,
            siaddr: SERVER,
            giaddr: GIADDR,
            file: "undionly.kpxe".into(),
            options: vec![
                (code::SERVER_ID, SERVER.octets()[..].into()),
                (code::LEASE_TIME, 600u32.to_be_bytes()[..].into()),
                (code::BOOTFILE, b"other.efi\0"[..].into()),
            ],
            relay: None,
            limit: wire::MOST,
        };
        let bytes = wire::write(&reply);
        assert_eq!(hear(&bytes), Some(Heard { xid: 7, ..heard(Told::Ack, LEASED) }));
        let file = |speaker| boot(&bytes, speaker).unwrap().file;
        assert_eq!(
            (file(Speaker::Firmware), file(Speaker::Ipxe)),
            ("other.efi".into(), "undionly.kpxe".into())
        );
        for cut in 0..bytes.len() {
            hear(&bytes[..cut]);
            boot(&bytes[..cut], Speaker::Ipxe);
        }
        assert_eq!(hear(&datagram("bios", Speaker::Firmware, Kind::Discover, Chosen::NONE)), None);
    }
}
