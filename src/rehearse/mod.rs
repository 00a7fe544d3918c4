//! Machines pretended for a rehearsal: the client side of DHCP, TFTP and HTTP.
//!
//! 1. `network` says whether the server is one that may be rehearsed with; `disk` asks the kernel.
//! 2. `storm` decides when each machine begins.
//! 3. `dhcp` is one exchange and its bytes, `desk` all that are under way, `serve` has the socket.
//! 4. `chain` leads whole boots: `tftp` and `fetch` (HTTP) get the files, `script` goes through
//!    what iPXE would be told.
//! 5. `tally` counts, and [`run`] gives it back.

pub mod chain;
pub mod desk;
pub mod dhcp;
pub mod disk;
pub mod fetch;
pub mod network;
pub mod script;
pub mod serve;
pub mod storm;
pub mod tally;
pub mod tftp;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::model::Firmware;
use storm::{Pace, Seen, Size, Who};
use tally::Tally;

/// What shall be rehearsed.
#[derive(Clone, Debug)]
pub struct Options {
    pub server: Ipv4Addr,
    /// The address of ours; `None` is the one that the kernel would take.
    pub from: Option<Ipv4Addr>,
    pub who: Who,
    /// Machine `i` is the `i`th of these, over and over; never empty.
    pub firmwares: Vec<&'static Firmware>,
    pub pace: Pace,
    pub size: Size,
    pub only: Option<Only>,
    /// With [`Only::Dhcp`]: also as the iPXE that the firmware has loaded.
    pub chain: bool,
    pub keep_leases: bool,
    /// Makes the same transaction numbers and waits again.
    pub seed: u32,
    pub may_leave: bool,
    /// Each machine speaks from its own leased address; with [`Only::Tftp`], from the next one
    /// behind `from`. They must lead back to this machine: `ip route add local NETWORK dev lo`.
    pub source_per_machine: bool,
    /// The roots to trust, PEM; `None` takes what the server offers at /ca.pem.
    pub ca: Option<Vec<u8>>,
    /// What [`Only::Tftp`] fetches; `None` is the firmware's loader.
    pub file: Option<String>,
    pub blksize: Option<u16>,
    pub windowsize: Option<u16>,
}

/// One step alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    Dhcp,
    Tftp,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub tally: Tally,
    /// Without what came after: leases given back.
    pub took: Duration,
    pub released: usize,
}

/// Why there was no rehearsal at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Foreign(#[from] network::Foreign),
    #[error("asking the kernel for the interfaces: {0}")]
    Facts(io::Error),
    #[error("beginning: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Dhcp(#[from] serve::Error),
}

/// Rehearses until all machines have come to their ends, or `stop` is set.
///
/// # Errors
/// A network that is not ours, a server that is not there; what becomes of single machines is in
/// the outcome.
pub fn run(options: &Options, seen: &Arc<Seen>, stop: &Arc<AtomicBool>) -> Result<Outcome, Error> {
    if !options.may_leave {
        network::allowed(options.server, &disk::facts().map_err(Error::Facts)?)?;
    }
    let from = match options.from {
        Some(from) => from,
        None => serve::route(options.server)?,
    };
    match options.only {
        Some(Only::Dhcp) => Ok(serve::storm(options, from, seen, stop)?),
        _ => serve::whole(options, from, seen, stop),
    }
}
