//! The empty router advertisement, which ends iPXE's wait for an IPv6 router.
//!
//! On a network without one, iPXE's autoconfiguration goes on waiting after its DHCP is done: 16 s
//! in the ROM of every QEMU guest, 4 s in iPXE 2.0.0 on BIOS. An advertisement with a router
//! lifetime of 0 and nothing in it ("not a default router", RFC 4861 section 4.2) configures
//! nothing and ends the wait at once.
//!
//! 1. [`serve`] joins the routers' group on an interface and asks whether a router is there.
//! 2. [`wire`] reads a solicitation or an advertisement, and drops what RFC 4861 says to drop.
//! 3. [`decide`] answers only a machine whose DHCP we have just answered as iPXE, in whichever
//!    order the two come, and nobody where a router speaks.
//! 4. [`serve`] sends the answer to that machine alone and tells the [`Watch`].

pub mod decide;
pub mod serve;
pub mod wire;

use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::model::Mac;

/// The rest of the program, as seen from here. Called on the thread of [`serve`].
pub trait Watch: Send + Sync {
    fn saw(&self, interface: &str, seen: &Seen);
}

#[derive(Debug)]
pub enum Seen {
    Answered {
        mac: Mac,
        to: Ipv6Addr,
    },
    /// A packet that is not answered.
    Silent {
        from: Ipv6Addr,
        mac: Option<Mac>,
        why: Why,
    },
    /// A router that speaks here: nobody is answered while it does.
    Router {
        from: Ipv6Addr,
        lifetime: Duration,
    },
    Trouble(io::Error),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Answered { mac, to } => {
                write!(f, "empty router advertisement to {mac} ({to}): no need to wait for IPv6")
            }
            Seen::Silent { from, mac, why } => {
                f.write_str("no router advertisement to ")?;
                match mac {
                    Some(mac) => write!(f, "{mac} ({from})")?,
                    None => write!(f, "{from}")?,
                }
                write!(f, ": {why}")
            }
            Seen::Router { from, lifetime } => write!(
                f,
                "{from} is an IPv6 router here (lifetime {} s): router advertisements are left to it",
                lifetime.as_secs()
            ),
            Seen::Trouble(error) => write!(f, "router advertisements: {error}"),
        }
    }
}

/// Every reason there is for not answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("a packet of {0} bytes is too short")]
    Short(usize),
    #[error("hop limit {0} instead of 255: it has come through a router")]
    Hops(u8),
    #[error("ICMPv6 type {0} code {1} is neither a solicitation nor an advertisement")]
    Type(u8, u8),
    #[error("an option without a length or beyond the packet's end")]
    Option,
    #[error("an advertisement from an address that is not link-local")]
    NotLinkLocal,
    #[error("it has no address yet, and an answer to all would reach others too")]
    NoAddress,
    #[error("neither the packet nor its address tells the machine's MAC")]
    NoMac,
    #[error("it is not a machine that we are booting")]
    NotBooting,
    #[error("{0} is an IPv6 router here")]
    Router(Ipv6Addr),
    #[error("whether a router is here is not known yet")]
    Learning,
}

impl crate::model::Why for Why {
    fn name(&self) -> &'static str {
        match self {
            Why::Short(_) => "short",
            Why::Hops(_) => "hops",
            Why::Type(..) => "type",
            Why::Option => "option",
            Why::NotLinkLocal => "not-link-local",
            Why::NoAddress => "no-address",
            Why::NoMac => "no-mac",
            Why::NotBooting => "not-booting",
            Why::Router(_) => "router",
            Why::Learning => "learning",
        }
    }

    fn is_everyday(&self) -> bool {
        matches!(self, Why::NotBooting | Why::NoAddress | Why::Learning)
    }
}
