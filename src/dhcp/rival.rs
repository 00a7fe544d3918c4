//! A second DHCP server on a network where addresses are ours to give: who it is, from what it
//! says itself and from what clients say to it.
//!
//! What it broadcasts reaches us like everybody; the REQUEST of a client that took its offer names
//! it in option 54. An offer by unicast to a client that took ours is nobody's to see.

use std::net::Ipv4Addr;

use super::wire::{self, code};
use crate::model::Mac;

/// What another server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub server: Ipv4Addr,
    /// `DHCPOFFER` and its like.
    pub what: &'static str,
    pub to: Mac,
}

/// An IP packet with UDP in it, as a raw socket has it.
pub fn read(packet: &[u8], ours: &dyn Fn(Ipv4Addr) -> bool) -> Option<Heard> {
    let source = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
    let head = usize::from(packet.first()? & 0xf) * 4;
    let datagram = packet.get(head + 8..)?;
    let (options, message) = wire::read_reply(datagram)?;
    let what = match options.get(&code::MESSAGE_TYPE)?.first()? {
        2 => "DHCPOFFER",
        5 => "DHCPACK",
        6 => "DHCPNAK",
        _ => return None,
    };
    // A proxy gives no addresses (PXE 2.1 section 2.2.1), and one beside us does no harm.
    if what != "DHCPNAK" && message.yiaddr().is_unspecified() {
        return None;
    }
    let id = options.get(&code::SERVER_ID).and_then(|v| <[u8; 4]>::try_from(&v[..]).ok());
    let server = id.map_or(source, Ipv4Addr::from);
    let mut mac = [0; 6];
    mac.copy_from_slice(message.chaddr().get(..6)?);
    (!ours(server) && !ours(source)).then_some(Heard { server, what, to: Mac(mac) })
}

/// The sentence for people.
pub fn alarm(server: Ipv4Addr, interface: &str, what: &str) -> String {
    format!(
        "another DHCP server is on {interface}: {server} ({what}). Machines take the offer that \
         comes first; switch that one off, or leave the addresses to it with [dhcp] mode = \
         \"proxy\""
    )
}
