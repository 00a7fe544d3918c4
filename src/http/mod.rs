//! The web door: scripts, loaders, files, answers and reports for machines on one side, the API
//! for people on the other.
//!
//! 1. [`serve::start`] puts [`routes`] on sockets that were bound beforehand.
//! 2. [`boot`] answers machines: entry script, machine's script, loader, answer, report.
//! 3. [`files`] hands out folders, and kernels and initrds under a boot's token; [`plane`] is how
//!    the bytes of files travel.
//! 4. [`api`] shows what the ledger knows and changes it, on the admin door; [`events`] tells it
//!    as it happens, [`metrics`] in numbers; [`cache`] fetches for a profile. [`auth`] stands at
//!    that door.
//! 5. [`pages`] is the dashboard, on the same door.
//! 6. [`error`] holds every refusal, by name; one place counts and logs them.

mod api;
pub mod auth;
mod boot;
mod cache;
mod conditional;
mod error;
pub mod events;
mod files;
mod metrics;
mod mirror;
mod pages;
mod plane;
mod query;
mod renders;
mod routes;
mod serve;
mod view;

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Serialize;

use crate::boot::{Urls, decide};
use crate::config::{Config, origin, settings};
use crate::hook;
use crate::ledger::{Boot, Ledger};
use crate::media::Library;
use crate::mirror::serve::Mirrors;
use crate::model::{Event, Facts, Interface, LifeEvent, Mac, Stage, machine};
use crate::power::{Action, Said, Trouble};

pub use boot::{Made, make};
pub use error::No;
pub use pages::is_live;
pub use routes::{admin_door, boot_door};
pub use serve::{Running, start};
pub use view::{Progress, View};

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
    pub standing: Arc<ArcSwap<Standing>>,
    pub ledger: Arc<Ledger>,
    pub door: Door,
    /// Our root certificate, for whoever wants to trust it by hand.
    pub ca_pem: Option<Arc<str>>,
    /// The leases of DHCP, which is nobody's neighbour here, as JSON.
    pub leases: Leases,
    pub limits: Limits,
    /// Public mirrors and their cache.
    pub mirrors: Option<Arc<Mirrors>>,
    /// Images, and what is in them.
    pub library: Arc<Library>,
    /// The interfaces that are served.
    pub interfaces: Vec<Interface>,
    /// With it the first admin door speaks HTTPS and wants a credential; a door without it must be
    /// on loopback.
    pub admin_tls: Option<rustls::ServerConfig>,
    /// Who may use the admin door.
    pub auth: auth::Auth,
    /// Switches machines, where anything here can.
    pub power: Option<PowerHook>,
    pub seats: events::Seats,
    /// What became of events for webhooks.
    pub hooks: Option<Arc<hook::Counts>>,
    counts: metrics::Counts,
    started: Timestamp,
    renders: renders::Renders,
    orders: cache::Orders,
    pages: pages::Pages,
}

/// What became of the configuration since it was read first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Standing {
    /// Why the newest one is not in force.
    pub refused: Option<Stale>,
    /// Settings that have changed, and take effect when the server is started again.
    pub restart: Vec<&'static str>,
    /// What is not where it names it: files, folders, secrets.
    pub amiss: Vec<String>,
}

/// A configuration that was not taken over; the one before it stays in force.
#[derive(Clone, Debug, Serialize)]
pub struct Stale {
    /// When that began.
    pub since: Timestamp,
    pub why: String,
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

/// Switches a machine.
pub type PowerHook = Box<dyn Fn(Mac, Action) -> Switching + Send + Sync>;
pub type Switching = Pin<Box<dyn Future<Output = Result<Said, Trouble>> + Send>>;

/// Gives the leases as JSON.
pub type Leases = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

impl Web {
    /// The addresses under which a machine that reached us at `local` finds everything.
    pub fn urls(&self, local: IpAddr, token: &str) -> Urls {
        Urls { ca: self.ca_pem.clone().filter(|_| self.door.tls), ..self.door.urls(local, token) }
    }

    pub fn new(
        config: Arc<ArcSwap<Config>>,
        ledger: Arc<Ledger>,
        door: Door,
        ca_pem: Option<String>,
        leases: Leases,
    ) -> Web {
        let (limits, renders) = (Limits::default(), renders::Renders::new());
        Web {
            config,
            standing: Arc::default(),
            ledger,
            door,
            ca_pem: ca_pem.map(Arc::from),
            leases,
            limits,
            mirrors: None,
            library: Arc::default(),
            interfaces: Vec::new(),
            admin_tls: None,
            auth: auth::Auth::new(),
            power: None,
            seats: events::Seats::default(),
            hooks: None,
            counts: metrics::Counts::default(),
            started: Timestamp::now(),
            renders,
            orders: cache::Orders::default(),
            pages: pages::Pages::default(),
        }
    }

    /// How long this server has been there; none for a clock that was set back.
    fn uptime(&self) -> Duration {
        Timestamp::now().duration_since(self.started).try_into().unwrap_or_default()
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

    /// The boot of a token, for the machine itself: what was made for it is for no other address.
    ///
    /// # Errors
    /// A token that is dead or made up, and one that somebody else has.
    fn boot_of(&self, req: &HttpRequest, token: &str) -> Result<Boot, No> {
        let now = Timestamp::now();
        let boot = self.ledger.boot(token, now).ok_or(No::NoBoot)?;
        if self.is_at(boot.mac, boot.address, &boot.facts, peer(req)) {
            return Ok(boot);
        }
        Err(self.second(req, &boot, now))
    }

    /// An address that has no business with a boot's token: it goes to the alarms.
    fn second(&self, req: &HttpRequest, boot: &Boot, now: Timestamp) -> No {
        let (mac, reads) = (boot.mac, shown(peer(req)));
        let its = shown(boot.address);
        let text = format!(
            "{reads} asked for what was made for {mac} at {its}: somebody has overheard its script, \
             or it has two addresses"
        );
        self.ledger.alarm("second-reader", &mac.to_string(), text.clone(), now);
        // Onto the timeline of whom it was made for: who asks may be known as another machine.
        self.ledger.refused("boot", Some(mac), &No::Second(text), now);
        No::SecondReader
    }

    /// An answer that is the server's own fault: its machine stops in the middle of its installation.
    fn unmade(&self, boot: &Boot, answer: &str, no: No, now: Timestamp) -> No {
        if !matches!(no, No::Render(_) | No::Endless(_)) {
            return no;
        }
        let no = No::Unmade(answer.into(), Box::new(no));
        let text = format!("{}: {no}", boot.mac);
        self.ledger.alarm("answer-failed", &boot.mac.to_string(), text, now);
        no
    }

    /// Whether a machine may speak from the address `asks`: the one that it had when its boot began,
    /// the one that DHCP has given it since, or the one that is declared. One boot has them all: iPXE
    /// and Anaconda's ks.cfg come from a lease, and what its `%post` fetches from the static address
    /// that the kickstart has set.
    fn is_at(
        &self,
        mac: Mac,
        began: Option<Ipv4Addr>,
        facts: &Facts,
        asks: Option<Ipv4Addr>,
    ) -> bool {
        began == asks
            || asks.is_some()
                && (self.ledger.lease(mac).map(|l| l.address) == asks
                    || machine::find(&self.config.load().machines, facts)
                        .is_some_and(|m| m.address == asks || settings::address_of(m) == asks))
    }

    /// The machine has come to this step of its installation.
    fn stepped(&self, boot: &Boot, stage: Stage) {
        let attempt = self.ledger.life(boot.mac).and_then(|l| l.attempt.clone());
        if boot.installs && attempt.is_some_and(|a| a.boot == boot.key && a.step < stage) {
            let (attempts, _) = decide::limits(&self.config.load(), Some(&boot.profile));
            self.ledger.step_later(boot.mac, LifeEvent::Step(stage), attempts, Timestamp::now());
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
        let local = local.to_canonical();
        let address = local.to_string();
        let host = match local {
            IpAddr::V6(_) => &format!("[{address}]"),
            IpAddr::V4(_) => &address,
        };
        let http = origin("http", host, self.http_port);
        let base = match self.tls {
            true => origin("https", host, self.https_port),
            false => http.clone(),
        };
        Urls { base, http, ca: None, address, token: token.into() }
    }
}

/// The address of ours that a request came to.
fn local(req: &HttpRequest) -> IpAddr {
    let local = req.conn_data::<plane::Conn>().map_or(req.app_config().local_addr(), |c| c.local);
    local.ip()
}

/// An address in a sentence.
fn shown(address: Option<Ipv4Addr>) -> String {
    address.map_or_else(|| "an address of IPv6".into(), |a| a.to_string())
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
        let report = crate::model::token::report("t");
        assert_eq!(urls.report(), format!("http://10.0.0.1:8080/b/{report}/report"));
        let urls = door(80, 443, true).urls("::ffff:10.0.0.1".parse().unwrap(), "t");
        assert_eq!((urls.base.as_str(), urls.address.as_str()), ("https://10.0.0.1", "10.0.0.1"));
        assert_eq!(
            door(80, 443, false).urls("fe80::1".parse().unwrap(), "t").base,
            "http://[fe80::1]"
        );
    }
}
