//! What TFTP serves: our loaders, the script beside them, and the user's own folder.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::config::Config;
use crate::ledger::Ledger;
use crate::model::event::{DETAIL_LIMIT, plain};
use crate::model::{Event, Mac, Stage, Transfer};
use crate::tftp::{Ask, Content, Refusal, Seen, Why};
use crate::{boot, ipxe, media, tftp};

pub struct Door {
    pub config: Arc<ArcSwap<Config>>,
    pub ledger: Arc<Ledger>,
}

impl Door {
    fn mac(&self, peer: &SocketAddrV4) -> Option<Mac> {
        self.ledger.by_ip(*peer.ip()).or_else(|| neighbour(*peer.ip()))
    }
}

/// The machine behind an address by the kernel's ARP table: in proxy mode the addresses of BIOS
/// machines are told to the site's server alone.
fn neighbour(ip: Ipv4Addr) -> Option<Mac> {
    let mut table = String::new();
    // A line has 78 bytes; the kernel keeps at most a few thousand neighbours.
    File::open("/proc/net/arp").ok()?.take(1 << 20).read_to_string(&mut table).ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let found = words.next()?.parse::<Ipv4Addr>().ok()? == ip;
        // Address, hardware type, flags, hardware address; zeros while it is being asked for.
        words.nth(2).filter(|_| found)?.parse().ok().filter(|mac: &Mac| mac.0 != [0; 6])
    })
}

impl tftp::Door for Door {
    fn open(&self, ask: &Ask) -> Result<Content, Refusal> {
        let config = self.config.load();
        let last = ask.name.rsplit('/').next().unwrap_or_default();
        if last == "autoexec.ipxe" {
            // iPXE asks for it in the loader's directory, then in the root: the same one, made for
            // the address it came to.
            let script = boot::script::entry(&config.base(ask.local), None);
            return Ok(Content::Bytes(script.into_bytes().into()));
        }
        if let Ok(loader) = ipxe::get(&config.ipxe, last) {
            return Ok(match loader.bytes {
                ipxe::Bytes::Embedded(bytes) => Content::Bytes(bytes.into()),
                ipxe::Bytes::Read(bytes) => Content::Shared(bytes),
            });
        }
        let dir = config.tftp.dir.as_ref().ok_or_else(Refusal::not_found)?;
        match media::open_beneath(dir, &ask.name) {
            Ok((file, len)) => Ok(Content::File { file, len }),
            Err(_) => Err(Refusal::not_found()),
        }
    }

    fn saw(&self, ask: &Ask, seen: &Seen<'_>) {
        let now = Timestamp::now();
        let stage = match ask.name.ends_with(".ipxe") {
            true => Stage::Script,
            false => Stage::Loader,
        };
        let event = Event::new(stage, "TFTP", format!("{} to {}: {seen}", ask.name, ask.peer.ip()));
        let mac = match seen {
            // Its end says all that its beginning does.
            Seen::Started { .. } => return,
            _ => self.mac(&ask.peer),
        };
        match (mac, seen.sent()) {
            (Some(mac), Some((sent, total, took))) => {
                let name = plain(&ask.name, DETAIL_LIMIT);
                let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                let transfer = Transfer { name, sent, total, millis };
                tracing::debug!(target: "pilotlight", "{} {}", event.what, event.detail);
                self.ledger.sent(mac, stage, transfer, None, now);
            }
            (Some(mac), None) => self.ledger.record(mac, event, now),
            (None, _) => tracing::info!(target: "pilotlight", "{} {}", event.what, event.detail),
        }
        if let Seen::Refused(why) = seen {
            self.ledger.refused("tftp", self.mac(&ask.peer), *why, now);
        }
    }

    fn dropped(&self, peer: SocketAddrV4, _: Ipv4Addr, why: &Why) {
        self.ledger.refused("tftp", self.mac(&peer), why, Timestamp::now());
    }

    fn trouble(&self, local: Ipv4Addr, error: &io::Error) {
        tracing::error!(target: "pilotlight", "TFTP on {local}: {error}");
    }
}
