//! Whose network it is: a rehearsal floods, and takes addresses. Pure.
//!
//! Without `--i-own-this-network` it goes only
//!
//! 1. to an address of this machine: what is sent there never leaves it; or
//! 2. within a private network namespace: one that is not that of process 1, so that somebody has
//!    made it on purpose; all of whose interfaces that are up are made of software and end in this
//!    machine (loopback, veth, bridge, dummy), so no card, VLAN, macvlan, tap or tunnel; and
//!    without a default route, so that it is no container with a way into the world.
//!
//! What is at the other end of a veth pair cannot be seen from here: a bridge there that has a
//! card in it would be a real network. Containers on such bridges have a default route, which is
//! why that counts.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// What is known of the network that this process is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub own: BTreeSet<Ipv4Addr>,
    /// The namespace is another one than that of process 1. Not to be found out is no.
    pub apart: bool,
    /// Interfaces that are up: names, and the kernel's word for what they are. Cards have none.
    pub up: Vec<(String, Option<String>)>,
    pub default_route: bool,
}

/// Why a server is not rehearsed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub server: Ipv4Addr,
    because: Because,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Because {
    NotApart,
    DefaultRoute,
    Leads(String),
}

/// Kinds of interfaces that end in this machine.
const SOFTWARE: &[&str] = &["veth", "bridge", "dummy", "ifb"];

/// Whether a rehearsal with `server` stays within this machine.
pub fn allowed(server: Ipv4Addr, facts: &Facts) -> Result<(), Foreign> {
    if server.is_loopback() || facts.own.contains(&server) {
        return Ok(());
    }
    let because = |because| Err(Foreign { server, because });
    if !facts.apart {
        return because(Because::NotApart);
    }
    let leads = facts.up.iter().find(|(name, kind)| match kind {
        Some(kind) => !SOFTWARE.contains(&kind.as_str()),
        None => name != "lo",
    });
    if let Some((name, _)) = leads {
        return because(Because::Leads(name.clone()));
    }
    if facts.default_route {
        return because(Because::DefaultRoute);
    }
    Ok(())
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is no address of this machine, and this is no private network namespace: ",
            self.server
        )?;
        match &self.because {
            Because::NotApart => f.write_str("it is the machine's own network")?,
            Because::DefaultRoute => f.write_str("it has a default route")?,
            Because::Leads(name) => write!(f, "{name} may lead out of this machine")?,
        }
        f.write_str(
            ". A rehearsal floods a network and takes addresses on it. If this one is yours to do \
             that with, say so: --i-own-this-network",
        )
    }
}

impl std::error::Error for Foreign {}

/// A request for all interfaces: RTM_GETLINK, NLM_F_REQUEST and NLM_F_DUMP, and an `ifinfomsg` of
/// zeros (rtnetlink(7)).
pub const GET_LINKS: [u8; 32] = {
    let mut request = [0; 32];
    let (len, kind, flags) =
        (32u32.to_ne_bytes(), RTM_GETLINK.to_ne_bytes(), 0x301u16.to_ne_bytes());
    request[0] = len[0];
    request[1] = len[1];
    request[2] = len[2];
    request[3] = len[3];
    request[4] = kind[0];
    request[5] = kind[1];
    request[6] = flags[0];
    request[7] = flags[1];
    request
};
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFF_UP: u32 = 1;

/// Adds the interfaces that are up of one netlink datagram: whether it was the last.
pub fn links(datagram: &[u8], up: &mut Vec<(String, Option<String>)>) -> bool {
    let mut rest = datagram;
    while let Some((len, kind)) = number::<4>(rest, 0).zip(number::<2>(rest, 4)) {
        if kind as u16 == NLMSG_ERROR {
            // What the kernel does not tell may lead anywhere.
            up.push(("an interface that is not known".into(), None));
        }
        if matches!(kind as u16, NLMSG_DONE | NLMSG_ERROR) {
            return true;
        }
        let len = (len as usize).max(16);
        let Some(body) = rest.get(16..len) else { return true };
        if kind as u16 == RTM_NEWLINK && number::<4>(body, 8).is_some_and(|f| f & IFF_UP != 0) {
            let parts = || attributes(body.get(16..).unwrap_or_default());
            let name = parts().find(|(kind, _)| *kind == IFLA_IFNAME).map(|(_, v)| text(v));
            let info = parts().find(|(kind, _)| *kind == IFLA_LINKINFO).map(|(_, v)| v);
            let kind = info
                .and_then(|info| attributes(info).find(|(kind, _)| *kind == IFLA_INFO_KIND))
                .map(|(_, v)| text(v));
            up.push((name.unwrap_or_default(), kind));
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_string()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at + N)?;
    let mut whole = [0; 4];
    match cfg!(target_endian = "little") {
        true => whole[..N].copy_from_slice(part),
        false => whole[4 - N..].copy_from_slice(part),
    }
    Some(u32::from_ne_bytes(whole))
}

/// The attributes of a netlink message: length, kind (its upper bits are flags), value.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (len, kind) = number::<2>(rest, 0).zip(number::<2>(rest, 2))?;
        let len = len as usize;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind as u16 & 0x3fff, value))
    })
}

/// Whether the table of `/proc/net/route` has a way to everywhere: destination and mask are zero.
pub fn has_default_route(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let zero = |at: usize| columns.get(at).is_some_and(|c| c.chars().all(|d| d == '0'));
        columns.len() > 7 && (!zero(2) || (zero(1) && zero(7)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    fn private() -> Facts {
        let up = [("lo", None), ("nic0", Some("veth")), ("br0", Some("bridge"))];
        Facts {
            own: [Ipv4Addr::new(10, 77, 0, 2)].into(),
            apart: true,
            up: up.map(|(n, k)| (n.to_string(), k.map(str::to_string))).to_vec(),
            default_route: false,
        }
    }

    #[test]
    fn what_stays_within_this_machine_is_allowed() {
        assert_eq!(allowed(SERVER, &private()), Ok(()));
        let nothing = Facts::default();
        assert_eq!(allowed(Ipv4Addr::LOCALHOST, &nothing), Ok(()));
        let own = Facts { own: [SERVER].into(), default_route: true, ..nothing };
        assert_eq!(allowed(SERVER, &own), Ok(()));
    }

    #[test]
    fn any_way_out_is_refused_and_named() {
        let with = |name: &str, kind: Option<&str>| {
            let mut facts = private();
            facts.up.push((name.into(), kind.map(str::to_string)));
            facts
        };
        for (facts, said) in [
            (Facts { apart: false, ..private() }, "the machine's own network"),
            (Facts { default_route: true, ..private() }, "default route"),
            (with("eth0", None), "eth0 may lead out"),
            (with("lan", Some("macvlan")), "lan may lead out"),
            (with("wg0", Some("wireguard")), "wg0 may lead out"),
        ] {
            let why = allowed(SERVER, &facts).unwrap_err().to_string();
            assert!(why.contains(said) && why.contains("--i-own-this-network"), "{why}");
        }
    }

    #[test]
    fn a_default_route_is_seen_in_the_kernels_table() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
        let net = "nic0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let all = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert!(!has_default_route(head));
        assert!(!has_default_route(&format!("{head}{net}")));
        assert!(has_default_route(&format!("{head}{net}{all}")));
    }

    #[test]
    fn links_are_read_and_no_bytes_do_harm() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut out = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
            out.extend(kind.to_ne_bytes());
            out.extend(value);
            out.resize(out.len().next_multiple_of(4), 0);
            out
        };
        let message = |flags: u32, body: &[u8]| {
            let mut out = ((32 + body.len()) as u32).to_ne_bytes().to_vec();
            out.extend(RTM_NEWLINK.to_ne_bytes());
            out.resize(24, 0);
            out.extend(flags.to_ne_bytes());
            out.resize(32, 0);
            out.extend(body);
            out
        };
        let kind = attribute(IFLA_INFO_KIND, b"veth\0");
        let veth = [attribute(IFLA_IFNAME, b"nic0\0"), attribute(IFLA_LINKINFO, &kind)].concat();
        let card = attribute(IFLA_IFNAME, b"eth0\0");
        let all = [message(IFF_UP, &veth), message(0, &card), message(IFF_UP, &card)].concat();
        let mut up = Vec::new();
        assert!(!links(&all, &mut up), "another datagram says that it is over");
        assert_eq!(up, [("nic0".into(), Some("veth".into())), ("eth0".into(), None)]);
        for cut in 0..all.len() {
            links(&all[..cut], &mut Vec::new());
        }
    }
}
