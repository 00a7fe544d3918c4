//! The web door: scripts, loaders, files, answers and reports for machines on one side, the API
//! for people on the other.
//!
//! 1. [`serve::start`] puts [`routes`] on sockets that were bound beforehand.
//! 2. [`boot`] answers machines: entry script, machine's script, loader, answer, report.
//! 3. [`files`] hands out folders, and kernels and initrds under a boot's token; [`plane`] is how
//!    the bytes of files travel.
//! 4. [`api`] shows what the ledger knows, on the admin door; [`cache`] fetches for a profile.
//! 5. [`error`] holds every refusal, by name; one place counts and logs them.

mod api;
mod boot;
mod cache;
mod conditional;
mod error;
mod files;
mod mirror;
mod plane;
mod query;
mod renders;
mod routes;
mod serve;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use arc_swap::ArcSwap;
use jiff::Timestamp;

use crate::boot::Urls;
use crate::config::{Config, origin};
use crate::ledger::Ledger;
use crate::mirror::serve::Mirrors;
use crate::model::{Event, Mac, Stage};

pub use boot::{Made, make};
pub use error::No;
pub use routes::{admin_door, boot_door};
pub use serve::{Running, start};

/// Where the boot door is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    pub http_port: u16,
    pub https_port: u16,
    /// Whether scripts, files and answers travel by HTTPS.
    pub tls: bool,
}

/// What the handlers share.
pub struct Web {
    pub config: Arc<ArcSwap<Config>>,
    pub ledger: Arc<Ledger>,
    pub door: Door,
    /// Our root certificate, for whoever wants to trust it by hand.
    pub ca_pem: Option<String>,
    /// The leases of DHCP, which is nobody's neighbour here, as JSON.
    pub leases: Leases,
    pub limits: Limits,
    /// Public mirrors and their cache.
    pub mirrors: Option<Arc<Mirrors>>,
    renders: renders::Renders,
    orders: cache::Orders,
}

/// What the boot door takes from a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// One that takes nothing at all of what is sent to it is cut off after this long.
    pub send_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { send_time: Duration::from_secs(60) }
    }
}

/// Gives the leases as JSON.
pub type Leases = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

impl Web {
    pub fn new(
        config: Arc<ArcSwap<Config>>,
        ledger: Arc<Ledger>,
        door: Door,
        ca_pem: Option<String>,
        leases: Leases,
    ) -> Web {
        let (limits, renders) = (Limits::default(), renders::Renders::new());
        let orders = cache::Orders::default();
        Web { config, ledger, door, ca_pem, leases, limits, mirrors: None, renders, orders }
    }

    /// Puts an event on the timeline of the machine that asks, if its address is known.
    fn record(&self, mac: Option<Mac>, stage: Stage, what: &'static str, detail: String) {
        match mac {
            Some(mac) => self.ledger.record(mac, Event::new(stage, what, detail), Timestamp::now()),
            None => {
                tracing::info!(target: "pilotlight", mac = "-", stage = stage.word(), "{what} {}",
                    Event::new(stage, what, detail).detail);
            }
        }
    }

    /// Which machine asks, by the address it has.
    fn machine_of(&self, req: &HttpRequest) -> Option<Mac> {
        self.ledger.by_ip(peer(req)?)
    }
}

impl Door {
    /// The addresses under which a machine that reached us at `local` finds everything.
    pub fn urls(&self, local: IpAddr, token: &str) -> Urls {
        let host = match local.to_canonical() {
            IpAddr::V6(v6) => format!("[{v6}]"),
            v4 => v4.to_string(),
        };
        let http = origin("http", &host, self.http_port);
        let base = match self.tls {
            true => origin("https", &host, self.https_port),
            false => http.clone(),
        };
        Urls { base, http, address: local.to_canonical().to_string(), token: token.into() }
    }
}

/// The address of ours that a request came to.
fn local(req: &HttpRequest) -> IpAddr {
    let local = req.conn_data::<plane::Conn>().map_or(req.app_config().local_addr(), |c| c.local);
    local.ip()
}

fn peer(req: &HttpRequest) -> Option<Ipv4Addr> {
    match req.peer_addr()?.ip().to_canonical() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_ports_are_left_out() {
        let door = |http_port, https_port, tls| Door { http_port, https_port, tls };
        let four: IpAddr = "10.0.0.1".parse().unwrap();
        let urls = door(80, 443, false).urls(four, "t");
        assert_eq!(
            (urls.base.as_str(), urls.http.as_str()),
            ("http://10.0.0.1", "http://10.0.0.1")
        );
        let urls = door(8080, 8443, true).urls(four, "t");
        assert_eq!(urls.base, "https://10.0.0.1:8443");
        assert_eq!(urls.report(), "http://10.0.0.1:8080/b/t/report");
        let urls = door(80, 443, true).urls("::ffff:10.0.0.1".parse().unwrap(), "t");
        assert_eq!((urls.base.as_str(), urls.address.as_str()), ("https://10.0.0.1", "10.0.0.1"));
        assert_eq!(
            door(80, 443, false).urls("fe80::1".parse().unwrap(), "t").base,
            "http://[fe80::1]"
        );
    }
}
