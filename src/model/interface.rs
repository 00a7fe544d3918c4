//! A network interface of ours.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::Mac;

/// An interface that we serve, as it was when we started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: u32,
    pub mac: Option<Mac>,
    /// Our addresses with their networks; at least one.
    pub addresses: Vec<Ipv4Net>,
    /// The IPv6 link-local address, where the kernel has given one.
    pub link_local: Option<Ipv6Addr>,
}

impl Interface {
    /// The address that stands for the interface where nothing says which.
    pub fn first(&self) -> Ipv4Addr {
        self.addresses.first().map_or(Ipv4Addr::UNSPECIFIED, |n| n.addr())
    }
}
