//! Asks the kernel what this process's network is: the facts of [`super::network`].

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::network::{self, Facts, GET_LINKS};

/// Datagrams of interfaces that are read: thousands of interfaces.
const DATAGRAMS: usize = 1000;

/// What can be found out; what cannot counts as a reason to refuse.
///
/// # Errors
/// What the kernel says to a netlink socket.
pub fn facts() -> io::Result<Facts> {
    let own = nix::ifaddrs::getifaddrs()?
        .filter_map(|i| i.address?.as_sockaddr_in().map(|a| a.ip()))
        .collect();
    // Each namespace has files of its own here, and unlike /proc/1/ns/net anybody may look at them,
    // in a container, too.
    let space = |of: &str| fs::metadata(format!("/proc/{of}/net/dev")).map(|m| m.ino());
    let apart = match (space("self"), space("1")) {
        (Ok(ours), Ok(first)) => ours != first,
        _ => false,
    };
    // Not /sys/class/net: it is that of the namespace in which it was mounted.
    let table = fs::read_to_string("/proc/self/net/route");
    let default_route = table.map_or(true, |table| network::has_default_route(&table));
    Ok(Facts { own, apart, up: links()?, default_route })
}

fn links() -> io::Result<Vec<(String, Option<String>)>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    sendto(socket.as_raw_fd(), &GET_LINKS, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut up = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..DATAGRAMS {
        let len = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if network::links(&buffer[..len], &mut up) {
            return Ok(up);
        }
    }
    Err(io::Error::other("interfaces without end"))
}
