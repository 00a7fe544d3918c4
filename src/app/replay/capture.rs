//! What a capture holds of machines that boot: pcap and pcapng in, [`Packet`]s in their order out.
//!
//! All of it is bounded, and what is left out is counted by name ([`Left`]): a capture comes from
//! anywhere.

use std::io::{Cursor, Read};
use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};
use jiff::Timestamp;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

use crate::model::Mac;

/// Bytes of a capture.
pub const SIZE: u64 = 4 << 30;
/// Packets that are looked at.
const PACKETS: u64 = 20_000_000;
/// Packets that are kept: a boot has some hundred, its loader's blocks included.
const KEPT: usize = 500_000;
/// Bytes of one DHCP message or request.
const MESSAGE: usize = 1500;
/// Bytes of the first line of a request.
const LINE: usize = 300;
/// What every pcapng file begins with.
const NG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// A packet that says something of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub at: Timestamp,
    /// Who put it on this wire: a machine, or the router before it.
    pub mac: Option<Mac>,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A DHCP message, to a server's port or from one.
    Dhcp(Vec<u8>),
    /// A request to port 69.
    Tftp(Vec<u8>),
    /// DATA, ACK, ERROR or OACK of a transfer: opcode, number, and bytes behind these.
    Block(u16, u16, u16),
    /// The first line of an HTTP request.
    Line(String),
    /// A TLS ClientHello.
    Hello,
}

/// What was not looked at, or not in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub packets: u64,
    /// Pieces of fragmented IP packets.
    pub fragments: u64,
    /// Cut by the capture's snap length.
    pub cut: u64,
    /// Not Ethernet, not IPv4, or damaged.
    pub foreign: u64,
    /// Beyond what is kept.
    pub beyond: u64,
    /// Whether the file ends in the middle of a packet, or is damaged from there on.
    pub ended: Option<String>,
}

/// Why a file cannot be played back.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("it is neither pcap nor pcapng: {0}")]
    Format(String),
    #[error(
        "its packets are of link type {0}, which is not known here: capture on an Ethernet \
         interface, by `tcpdump -i eth1 -s 0 -w FILE.pcap`"
    )]
    Link(u32),
}

/// Reads all of it.
///
/// # Errors
/// Where the file as a whole is of no use; one that ends too early is read up to there.
pub fn read(file: impl Read) -> Result<(Vec<Packet>, Left), Trouble> {
    let mut file = file.take(SIZE);
    let mut first = Vec::with_capacity(4);
    let begun = Read::by_ref(&mut file).take(4).read_to_end(&mut first);
    begun.map_err(|e| Trouble::Format(e.to_string()))?;
    let ng = first == NG;
    let mut kept = Kept::default();
    let all = Cursor::new(first).chain(file);
    match ng {
        true => new(all, &mut kept)?,
        false => old(all, &mut kept)?,
    }
    if let Some(link) = kept.unknown.filter(|_| kept.packets.is_empty()) {
        return Err(Trouble::Link(link));
    }
    Ok((kept.packets, kept.left))
}

#[derive(Default)]
struct Kept {
    packets: Vec<Packet>,
    left: Left,
    /// A link type that is not known.
    unknown: Option<u32>,
}

fn old(file: impl Read, kept: &mut Kept) -> Result<(), Trouble> {
    let mut reader = PcapReader::new(file).map_err(|e| Trouble::Format(e.to_string()))?;
    let header = reader.header();
    let nanos = match header.ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    while kept.left.packets < PACKETS {
        match reader.next_raw_packet() {
            None => return Ok(()),
            Some(Ok(raw)) => {
                let nanos = i128::from(raw.ts_frac) * nanos;
                let at = i128::from(raw.ts_sec) * 1_000_000_000 + nanos;
                kept.take(at, header.datalink, &raw.data, raw.orig_len);
            }
            Some(Err(e)) => return kept.ends(&e),
        }
    }
    Ok(())
}

fn new(file: impl Read, kept: &mut Kept) -> Result<(), Trouble> {
    let mut reader = PcapNgReader::new(file).map_err(|e| Trouble::Format(e.to_string()))?;
    while kept.left.packets < PACKETS {
        let (number, units, data, length) = match reader.next_block() {
            None => return Ok(()),
            Some(Ok(Block::EnhancedPacket(p))) => {
                (p.interface_id, p.timestamp.as_nanos(), p.data.into_owned(), p.original_len)
            }
            Some(Ok(_)) => continue,
            Some(Err(e)) => return kept.ends(&e),
        };
        let Some(interface) = usize::try_from(number).ok().and_then(|n| reader.interfaces().get(n))
        else {
            kept.left.packets += 1;
            kept.left.foreign += 1;
            continue;
        };
        // The reader hands on the units as they are: microseconds, unless the interface says else.
        let resolution = interface.options.iter().find_map(|o| match o {
            InterfaceDescriptionOption::IfTsResol(n) => Some(*n),
            _ => None,
        });
        kept.take(nanos(units, resolution.unwrap_or(6)), interface.linktype, &data, length);
    }
    Ok(())
}

/// Nanoseconds of so many units: a power of ten, or of two where the highest bit is set.
fn nanos(units: u128, resolution: u8) -> i128 {
    let (base, power) =
        if resolution & 0x80 != 0 { (2u128, resolution & 0x7f) } else { (10, resolution) };
    let scale = base.checked_pow(power.into()).unwrap_or(u128::MAX);
    let (whole, rest) = (units / scale, units % scale);
    let part = rest.checked_mul(1_000_000_000).map_or(0, |r| r / scale);
    let all = whole.saturating_mul(1_000_000_000).saturating_add(part);
    i128::try_from(all).unwrap_or(i128::MAX)
}

impl Kept {
    /// What was read before counts; a file without any packet is none.
    fn ends(&mut self, e: &PcapError) -> Result<(), Trouble> {
        if self.left.packets == 0 {
            return Err(Trouble::Format(e.to_string()));
        }
        self.left.ended = Some(e.to_string());
        Ok(())
    }

    fn take(&mut self, nanos: i128, link: DataLink, data: &[u8], length: u32) {
        self.left.packets += 1;
        let Ok(at) = Timestamp::from_nanosecond(nanos) else {
            self.left.foreign += 1;
            return;
        };
        let (mac, sliced) = match sliced(link, data) {
            Ok(sliced) => sliced,
            Err(why) => {
                self.unknown = self.unknown.or((why == Odd::Unknown).then(|| link.into()));
                self.left.foreign += 1;
                return;
            }
        };
        let Some(LaxNetSlice::Ipv4(ip)) = &sliced.net else { return };
        if ip.is_payload_fragmented() {
            self.left.fragments += 1;
            return;
        }
        let (source, target) = (ip.header().source_addr(), ip.header().destination_addr());
        let cut = data.len() < usize::try_from(length).unwrap_or(usize::MAX);
        let Some(transport) = &sliced.transport else {
            self.left.cut += u64::from(cut);
            return;
        };
        let Some((ports, what)) = said(transport) else { return };
        if cut && matches!(what, What::Dhcp(_) | What::Tftp(_)) {
            self.left.cut += 1;
            return;
        }
        if self.packets.len() == KEPT {
            self.left.beyond += 1;
            return;
        }
        let address = |ip: Ipv4Addr, port| SocketAddrV4::new(ip, port);
        let (from, to) = (address(source, ports.0), address(target, ports.1));
        self.packets.push(Packet { at, mac, from, to, what });
    }
}

/// Why a packet is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    Damaged,
    /// Its link type is not known.
    Unknown,
}

type Sliced<'a> = (Option<Mac>, LaxSlicedPacket<'a>);

fn sliced(link: DataLink, data: &[u8]) -> Result<Sliced<'_>, Odd> {
    let packet = match link {
        DataLink::ETHERNET => LaxSlicedPacket::from_ethernet(data).ok().map(|sliced| {
            let mac = match &sliced.link {
                Some(LinkSlice::Ethernet2(link)) => Some(Mac(link.source())),
                _ => None,
            };
            (mac, sliced)
        }),
        // tcpdump -i any: length and bytes of the sender's address, and the protocol, at the places
        // of LINKTYPE_LINUX_SLL and SLL2.
        DataLink::LINUX_SLL => cooked(data, 16, 4..6, 6, 14),
        DataLink::LINUX_SLL2 => cooked(data, 20, 11..12, 12, 0),
        DataLink::RAW | DataLink::IPV4 => {
            LaxSlicedPacket::from_ip(data).ok().map(|sliced| (None, sliced))
        }
        _ => return Err(Odd::Unknown),
    };
    packet.ok_or(Odd::Damaged)
}

fn cooked(
    data: &[u8],
    head: usize,
    length: std::ops::Range<usize>,
    address: usize,
    protocol: usize,
) -> Option<Sliced<'_>> {
    let (head, rest) = data.split_at_checked(head)?;
    let six = head.get(length)?.last() == Some(&6);
    let mac = head.get(address..)?.first_chunk::<6>().filter(|_| six).copied().map(Mac);
    let protocol = u16::from_be_bytes(*head.get(protocol..)?.first_chunk::<2>()?);
    Some((mac, LaxSlicedPacket::from_ether_type(EtherType(protocol), rest)))
}

/// What a packet says of a boot: its ports, and that.
fn said(transport: &TransportSlice<'_>) -> Option<((u16, u16), What)> {
    match transport {
        TransportSlice::Udp(udp) => {
            let ports = (udp.source_port(), udp.destination_port());
            let bytes = udp.payload();
            let some = || bytes[..bytes.len().min(MESSAGE)].to_vec();
            let dhcp = |port| matches!(port, 67 | 68 | 4011);
            let what = match ports {
                (from, to) if dhcp(from) && dhcp(to) => What::Dhcp(some()),
                // EDK2 asks port 4011 from a port of its own.
                (_, 4011) | (4011, _) => What::Dhcp(some()),
                (_, 69) => What::Tftp(some()),
                _ => {
                    let number = |at: usize| {
                        bytes.get(at..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
                    };
                    let opcode = number(0).filter(|n| (3..=6).contains(n))?;
                    // The size that the sender meant, whatever was captured of it.
                    let length = udp.length().saturating_sub(8 + 4);
                    What::Block(opcode, number(2)?, length)
                }
            };
            Some((ports, what))
        }
        TransportSlice::Tcp(tcp) => {
            let (ports, bytes) = ((tcp.source_port(), tcp.destination_port()), tcp.payload());
            let request =
                [&b"GET /"[..], b"HEAD /", b"POST /"].iter().any(|m| bytes.starts_with(m));
            let what = match bytes {
                _ if request => {
                    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next()?;
                    let line = &line[..line.len().min(LINE)];
                    What::Line(String::from_utf8_lossy(line).into_owned())
                }
                // RFC 8446 section 5.1: a handshake record that holds a ClientHello.
                [22, 3, _, _, _, 1, ..] => What::Hello,
                _ => return None,
            };
            Some((ports, what))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_what_the_interface_says() {
        for (units, resolution, want) in [
            (1_500_000, 6, 1_500_000_000),
            (1_500, 3, 1_500_000_000),
            (1_500_000_000, 9, 1_500_000_000),
            (3, 0x81, 1_500_000_000),
            (5, 60, 0),
            (u128::MAX, 0, i128::MAX),
        ] {
            assert_eq!(nanos(units, resolution), want, "{units} {resolution}");
        }
    }
}
