//! Who a datagram is of, and what a ROM says: where a test talks to the server for several machines.

use std::net::Ipv4Addr;

use crate::datagram::Datagram;

/// What the iPXE of a network card's ROM of 2019 says of itself.
pub const ROM: &[u8] = &[16, 17, 18, 19, 21, 235];

pub trait Fields: Sized {
    /// The last byte of `chaddr`.
    fn mac(self, last: u8) -> Self;
    fn ciaddr(self, a: Ipv4Addr) -> Self;
    fn giaddr(self, a: Ipv4Addr) -> Self;
}

impl Fields for Datagram {
    fn mac(mut self, last: u8) -> Datagram {
        self.head[33] = last;
        self
    }

    fn ciaddr(mut self, a: Ipv4Addr) -> Datagram {
        self.head[12..16].copy_from_slice(&a.octets());
        self
    }

    fn giaddr(mut self, a: Ipv4Addr) -> Datagram {
        self.head[24..28].copy_from_slice(&a.octets());
        self
    }
}
