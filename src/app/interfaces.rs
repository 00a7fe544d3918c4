//! Which interfaces there are, and whether the ones we serve are still as they were.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, bail};
use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

use crate::model::{Interface, Mac};

/// All interfaces with what they have, loopback left out, by name.
fn all() -> anyhow::Result<BTreeMap<String, Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for a in getifaddrs().context("the interfaces of this machine cannot be listed")? {
        if a.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let name = a.interface_name.clone();
        let interface = found.entry(name.clone()).or_insert_with(|| Interface {
            index: if_nametoindex(name.as_str()).unwrap_or(0),
            name,
            mac: None,
            addresses: Vec::new(),
            link_local: None,
        });
        let Some(address) = a.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            let mask = a.netmask.as_ref().and_then(|m| m.as_sockaddr_in()).map(|m| m.ip());
            if let Ok(net) = Ipv4Net::with_netmask(v4.ip(), mask.unwrap_or([255; 4].into())) {
                interface.addresses.push(net);
            }
        } else if let Some(v6) = address.as_sockaddr_in6() {
            if v6.ip().is_unicast_link_local() {
                interface.link_local = Some(v6.ip());
            }
        } else if let Some(link) = address.as_link_addr() {
            interface.mac = link.addr().map(Mac);
        }
    }
    Ok(found)
}

/// No interface was named: the command line lacks a word. The text lists those there are.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoInterface(String);

/// Every IPv4 address of this host but those of loopback.
pub fn addresses() -> anyhow::Result<Vec<IpAddr>> {
    let all = all()?;
    Ok(all.values().flat_map(|i| i.addresses.iter().map(|n| IpAddr::V4(n.addr()))).collect())
}

/// The interfaces to serve.
///
/// # Errors
/// [`NoInterface`], one is not there, or has no IPv4 address; with what to type.
pub fn find(names: &[String]) -> anyhow::Result<Vec<Interface>> {
    let mut all = all()?;
    if names.is_empty() {
        let mut text = String::from(
            "which network shall be served? Name the interface, so that it is never the wrong one:",
        );
        for i in all.values().filter(|i| !i.addresses.is_empty()) {
            let at: Vec<String> = i.addresses.iter().map(Ipv4Net::to_string).collect();
            text += &format!("\n  pilotlight serve --interface {:<12} # {}", i.name, at.join(", "));
        }
        if all.values().all(|i| i.addresses.is_empty()) {
            text +=
                "\n  (none has an IPv4 address; `ip address add 10.0.0.1/24 dev NAME` gives one)";
        }
        return Err(NoInterface(text).into());
    }
    let mut found = Vec::new();
    for name in names {
        let Some(interface) = all.remove(name) else {
            if found.iter().any(|i: &Interface| i.name == *name) {
                continue;
            }
            let there: Vec<&str> = all.keys().map(String::as_str).collect();
            bail!("there is no interface {name} here; there are {}", there.join(", "));
        };
        if interface.addresses.is_empty() {
            bail!(
                "{name} has no IPv4 address, and machines need one of ours to come to: \
                 `ip address add 10.0.0.1/24 dev {name}` gives it one"
            );
        }
        found.push(interface);
    }
    Ok(found)
}

/// An error as soon as an interface is gone or has other addresses than it had.
pub fn still_there(interface: &Interface) -> anyhow::Result<()> {
    let name = &interface.name;
    let Some(now) = all()?.remove(name) else {
        bail!("the interface {name} is gone: bring it back, and start pilotlight again");
    };
    if now.index != interface.index || now.addresses != interface.addresses {
        bail!("the interface {name} has changed its addresses: start pilotlight again");
    }
    Ok(())
}
