//! Router solicitations and advertisements: RFC 4861 sections 4.1, 4.2 and 6.1. Checksums are the
//! kernel's business on an ICMPv6 socket, both ways.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::Why;
use crate::model::Mac;

pub const SOLICITATION: u8 = 133;
pub const ADVERTISEMENT: u8 = 134;
/// The source link-layer address option (section 4.6.1).
const SOURCE_LINK: u8 = 1;
/// More options than fit in an Ethernet frame are not read.
const OPTION_LIMIT: usize = 190;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// With the source link-layer address option, if it has one.
    Solicitation(Option<Mac>),
    Advertisement {
        lifetime: Duration,
    },
}

/// Reads an ICMPv6 message that came from `from` with this hop limit.
///
/// # Errors
/// What sections 6.1.1 and 6.1.2 say to drop, by name.
pub fn read(packet: &[u8], hops: u8, from: Ipv6Addr) -> Result<Message, Why> {
    if hops != 255 {
        return Err(Why::Hops(hops));
    }
    let short = Why::Short(packet.len());
    match *packet.first_chunk().ok_or(short)? {
        [SOLICITATION, 0] => {
            let link = source_link(packet.get(8..).ok_or(short)?)?;
            if link.is_some() && from.is_unspecified() {
                return Err(Why::Option);
            }
            Ok(Message::Solicitation(link))
        }
        [ADVERTISEMENT, 0] => {
            source_link(packet.get(16..).ok_or(short)?)?;
            if !from.is_unicast_link_local() {
                return Err(Why::NotLinkLocal);
            }
            let seconds = u16::from_be_bytes([packet[6], packet[7]]);
            Ok(Message::Advertisement { lifetime: Duration::from_secs(seconds.into()) })
        }
        [kind, code] => Err(Why::Type(kind, code)),
    }
}

/// Walks over all options, since one that is malformed spoils the packet.
fn source_link(mut options: &[u8]) -> Result<Option<Mac>, Why> {
    let mut found = None;
    for _ in 0..OPTION_LIMIT {
        let Some(&[kind, eights]) = options.first_chunk() else { break };
        let (option, rest) = options
            .split_at_checked(8 * usize::from(eights))
            .filter(|(option, _)| !option.is_empty())
            .ok_or(Why::Option)?;
        if let (SOURCE_LINK, &[_, _, a, b, c, d, e, f]) = (kind, option) {
            found = found.or(Some(Mac([a, b, c, d, e, f])));
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(Why::Option) }
}

/// The empty advertisement: lifetime 0, no flags, no prefix, nothing else stated.
pub const fn empty_advertisement() -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = ADVERTISEMENT;
    packet
}

/// A question for the routers of the link. Without our link-layer address, so that it may also
/// leave with the unspecified address.
pub const fn solicitation() -> [u8; 8] {
    let mut packet = [0; 8];
    packet[0] = SOLICITATION;
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe12, 0x3456);
    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    #[test]
    fn what_is_read_and_what_is_dropped() {
        let rs = |options: &[u8]| [&solicitation(), options].concat();
        let ra = |options: &[u8]| [&empty_advertisement(), options].concat();
        let link = [&[1, 1][..], &MAC].concat();
        let mtu = [5, 1, 0, 0, 0, 0, 5, 220];
        let mut lasting = ra(&mtu);
        lasting[6..8].copy_from_slice(&1800u16.to_be_bytes());
        let lasting_for = |s| Ok(Message::Advertisement { lifetime: Duration::from_secs(s) });
        let any = Ipv6Addr::UNSPECIFIED;
        let global = "2001:db8::1".parse().unwrap();
        for (row, packet, hops, from, want) in [
            ("bare", rs(&[]), 255, LINK, Ok(Message::Solicitation(None))),
            ("from nowhere", rs(&[]), 255, any, Ok(Message::Solicitation(None))),
            ("iPXE", rs(&link), 255, LINK, Ok(Message::Solicitation(Some(Mac(MAC))))),
            ("6.1.1: :: and a link", rs(&link), 255, any, Err(Why::Option)),
            ("routed", rs(&link), 254, LINK, Err(Why::Hops(254))),
            ("empty", vec![], 255, LINK, Err(Why::Short(0))),
            ("cut", rs(&[])[..7].to_vec(), 255, LINK, Err(Why::Short(7))),
            ("code", vec![133, 1, 0, 0, 0, 0, 0, 0], 255, LINK, Err(Why::Type(133, 1))),
            ("echo", vec![128, 0, 0, 0, 0, 0, 0, 0], 255, LINK, Err(Why::Type(128, 0))),
            ("length 0", rs(&[1, 0, 0, 0, 0, 0, 0, 0]), 255, LINK, Err(Why::Option)),
            ("beyond the end", rs(&[1, 2, 0, 0, 0, 0, 0, 0]), 255, LINK, Err(Why::Option)),
            ("a byte too many", rs(&[1]), 255, LINK, Err(Why::Option)),
            ("a router", lasting.clone(), 255, LINK, lasting_for(1800)),
            ("one that ends", ra(&[]), 255, LINK, lasting_for(0)),
            ("6.1.2: not link-local", ra(&[]), 255, global, Err(Why::NotLinkLocal)),
            ("cut", ra(&[])[..15].to_vec(), 255, LINK, Err(Why::Short(15))),
        ] {
            assert_eq!(read(&packet, hops, from), want, "{row}");
        }
    }

    #[test]
    fn the_empty_advertisement_says_nothing() {
        let sent = empty_advertisement();
        assert!(sent[1..].iter().all(|&b| b == 0), "lifetime 0, M = O = 0, no option");
    }
}
