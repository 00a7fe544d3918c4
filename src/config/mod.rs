//! The configuration as used: units, ranges and defaults applied, names resolved.
//!
//! 1. [`disk`] reads the files.
//! 2. [`file`] takes them as written: it walks over the tables (`walk`), and checks what one value
//!    can tell (`words`, `subnet`, `mirrors`, `life`), then what only all of them together can. What a
//!    profile installs from is in the [`catalog`] and in `media`, how in [`installers`], and what a
//!    person says of it in [`settings`].
//! 3. [`disk`] looks, when asked, at every file that the configuration names.
//!
//! Each of them collects all that is wrong, with file, line, column and a hint ([`report`]).

pub mod catalog;
pub mod disk;
pub mod file;
pub mod installers;
mod life;
pub mod media;
mod mirrors;
pub mod report;
pub mod settings;
mod subnet;
mod walk;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

pub use disk::{NoSecret, check_disk, load, open_secrets, reveal};
pub use file::{parse, parse_with};
pub use installers::{Blind, Installers, Look, Tree};
pub use report::{Errors, Finding, Note, Place};
pub use walk::nearest;

use crate::model::machine::Machines;
use crate::model::{Digest, Profile, Secret};

/// What stands for a machine's own disk where a profile's name could: no profile has it.
pub const LOCAL_DISK: &str = "local";

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Interfaces to serve; `--interface` comes before these.
    pub interfaces: Vec<String>,
    /// Leases, the CA and its keys.
    pub state_dir: PathBuf,
    pub dhcp: Dhcp,
    pub tftp: Tftp,
    pub http: Http,
    pub tls: Tls,
    pub ipxe: Ipxe,
    pub menu: Menu,
    pub life: Life,
    pub webhooks: Vec<Webhook>,
    pub folders: Vec<Folder>,
    /// Folders whose images are media, which makes them a part of the configuration.
    pub watched: Vec<PathBuf>,
    /// The folder of the user's own installers: what is in it is one, too.
    pub own_installers: Option<PathBuf>,
    pub installers: Arc<Installers>,
    pub cache: Cache,
    pub mirrors: Vec<Mirror>,
    pub profiles: Vec<Profile>,
    pub machines: Machines,
    /// The files it was read from, in the order of reading.
    pub sources: Vec<PathBuf>,
    /// Where it says what is looked at again later; [`Config::place`] reads it.
    pub places: Places,
}

/// Places by key; which keys there are is told at [`Config::place`].
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Places(BTreeMap<String, Place>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Addresses stay with the site's DHCP server; we add the boot information.
    #[default]
    Proxy,
    /// We hand out addresses.
    Full,
    /// No DHCP at all: another server names us.
    Off,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Dhcp {
    pub mode: Mode,
    /// Whether iPXE's wait for an IPv6 router is ended by the empty router advertisement.
    pub router_advertisement: bool,
    /// Whether an address is pinged when it is first offered, in `full` mode.
    pub ping_check: bool,
    pub subnets: Vec<Subnet>,
}

/// One subnet of `full` mode. It serves the interface that has an address in it, and the relays
/// whose `giaddr` or link selection (RFC 3527) is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    pub network: Ipv4Net,
    /// Pools; none overlap, and none hold the network's or its broadcast address.
    pub ranges: Vec<RangeInclusive<Ipv4Addr>>,
    /// Option 3.
    pub router: Vec<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Option 28; the network's own where it is not given.
    pub broadcast: Ipv4Addr,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 26.
    pub mtu: Option<u16>,
    /// What a client that asks for no time gets.
    pub lease_time: Duration,
    /// The most that a client can ask for.
    pub max_lease_time: Duration,
    /// Any other option, by number, as bytes on the wire.
    pub options: Vec<(u8, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tftp {
    /// A folder of the user's own, served below the names that are ours.
    pub dir: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub port: u16,
    pub https_port: u16,
    /// The admin door: dashboard, API, metrics. On loopback plain HTTP without a credential; on any
    /// other address HTTPS, and a credential is asked for.
    pub admin: Option<SocketAddr>,
    /// Bytes a second that one connection is sent at the most (SO_MAX_PACING_RATE).
    pub pace: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Tls {
    pub enabled: bool,
    /// The user's own chain and key in place of our CA's leaves, both PEM.
    pub own: Option<OwnCertificate>,
    /// Names and addresses beyond those of the interfaces that the leaves shall carry.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

impl Tls {
    /// Whether there is a root that machines are told to trust, ours or the user's.
    pub fn has_root(&self) -> bool {
        self.enabled && self.own.as_ref().is_none_or(|own| own.root.is_some())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct OwnCertificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// The root that machines shall trust, PEM; handed over as a fingerprint. Without one they
    /// must trust the chain by themselves (iPXE trusts its own built-in root).
    pub root: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Ipxe {
    /// The operator's own loaders: a file here comes before the embedded one of the same name.
    pub dir: Option<PathBuf>,
    /// Architecture (`uefi-x64`) to loader file, in place of the firmware table's.
    pub loaders: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Menu {
    pub title: String,
    /// How long before the local disk is booted.
    pub timeout: Duration,
}

/// `[life]`: how machines come to be installed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    pub unknown: Unknown,
    /// Failed attempts after which a machine is held.
    pub attempts: u32,
    /// How long an installation may take until it reports.
    pub timeout: Duration,
    /// Whether a machine that is held gets the rescue system, and not a message alone.
    pub held_rescue: bool,
    /// The profile of the rescue system.
    pub rescue: Option<String>,
    /// Boots of each machine whose timelines are kept.
    pub boots: usize,
}

/// What a machine gets that is neither declared nor assigned.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Unknown {
    #[default]
    Menu,
    /// Nothing at all, from DHCP on.
    Ignore,
    /// A page of its facts; it waits to be assigned.
    Discover,
    /// It is installed with this profile, unasked.
    Install(String),
}

/// A `[[webhook]]`: a URL that is told what happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub url: String,
    /// The key of the HMAC-SHA256 that signs each body.
    pub secret: Option<Secret>,
    /// Of `installed`, `failed` and `alarm`.
    pub events: Vec<&'static str>,
}

impl Default for Life {
    fn default() -> Self {
        Life {
            unknown: Unknown::Menu,
            attempts: 3,
            timeout: Duration::from_secs(2 * 3600),
            held_rescue: false,
            rescue: None,
            boots: 5,
        }
    }
}

/// A `[[files]]` or `[[media]]`: a tree of files served at `/files/NAME/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder {
    pub name: String,
    pub root: Root,
    /// What it was recognised as: `CentOS 7`.
    pub is: Option<String>,
}

/// Where a tree of files is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// In a folder.
    Dir(PathBuf),
    /// In images of disks, laid over one another: the first one that has a path wins.
    Images(Vec<PathBuf>),
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Root::Dir(dir) => dir.display().fmt(f),
            Root::Images(images) => {
                let images: Vec<_> = images.iter().map(|i| i.display().to_string()).collect();
                f.write_str(&images.join(", "))
            }
        }
    }
}

/// What is kept of public mirrors.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// `None`: the folder `cache` in the state directory.
    pub dir: Option<PathBuf>,
    /// Bytes at most.
    pub limit: u64,
    /// Nothing is asked of any upstream; what was seen before still installs.
    pub offline: bool,
    /// Whether what one installation asked for is fetched when the next one begins.
    pub prefetch: bool,
}

/// A `[[mirror]]`: an archive of the Internet, served at `/mirror/NAME/`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub name: String,
    /// Where it is: `http://` or `https://` URLs that end with a slash, at least one.
    pub urls: Vec<String>,
    /// How its files are proven right.
    pub verify: Verify,
    /// Files with the keys that may sign its metadata, armored or not. None: nothing is signed, and
    /// digests count from the mirror's own word on.
    pub keys: Vec<PathBuf>,
    /// Hosts that a redirect may lead to, besides those of `urls`: `cdn.example` or `*.example`.
    pub redirects: Vec<String>,
    /// Digests by path below the mirror, which come before all metadata.
    pub pins: BTreeMap<String, Digest>,
    /// Whether its `urls` may be at private, link-local or loopback addresses. A redirect never may.
    pub private: bool,
    /// Connections to each of its hosts at once.
    pub connections: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// InRelease, then Packages, by-hash and SHA256SUMS: Debian and Ubuntu.
    Debian,
    /// repomd.xml and `.treeinfo`: Fedora, CentOS, Rocky, Alma, openSUSE.
    Rpm,
    /// SHA256SUMS (with SHA256SUMS.gpg or .sign) beside the files or above them.
    Sums,
    /// Nothing but pins: a plain cache by RFC 9111.
    #[default]
    Plain,
}

impl Default for Cache {
    fn default() -> Self {
        Cache { dir: None, limit: 50_000_000_000, offline: false, prefetch: true }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http { port: 80, https_port: 443, admin: Some(([127, 0, 0, 1], 8067).into()), pace: None }
    }
}

impl Default for Menu {
    fn default() -> Self {
        Menu { title: "pilotlight".into(), timeout: Duration::from_secs(30) }
    }
}

impl Default for Config {
    /// What runs without any configuration: `proxy` mode, a menu, the local disk after 30 s.
    fn default() -> Self {
        Config {
            interfaces: Vec::new(),
            state_dir: PathBuf::from("/var/lib/pilotlight"),
            dhcp: Dhcp { router_advertisement: true, ping_check: true, ..Dhcp::default() },
            tftp: Tftp::default(),
            http: Http::default(),
            tls: Tls::default(),
            ipxe: Ipxe::default(),
            menu: Menu::default(),
            life: Life::default(),
            webhooks: Vec::new(),
            folders: Vec::new(),
            watched: Vec::new(),
            own_installers: None,
            installers: Arc::new(Installers::builtin().clone()),
            cache: Cache::default(),
            mirrors: Vec::new(),
            profiles: Vec::new(),
            machines: Machines::default(),
            sources: Vec::new(),
            places: Places::default(),
        }
    }
}

impl Config {
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.name == name)
    }

    /// `http://ADDRESS[:PORT]`: loaders and reports, which the firmware and a small installer must
    /// be able to fetch.
    pub fn plain_base(&self, address: Ipv4Addr) -> String {
        origin("http", address, self.http.port)
    }

    /// Where scripts, kernels and answers come from: by HTTPS as soon as that is on.
    pub fn base(&self, address: Ipv4Addr) -> String {
        match self.tls.enabled {
            true => origin("https", address, self.http.https_port),
            false => self.plain_base(address),
        }
    }

    pub fn mirror(&self, name: &str) -> Option<&Mirror> {
        self.mirrors.iter().find(|m| m.name == name)
    }

    /// Where what mirrors sent is kept.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache.dir.clone().unwrap_or_else(|| self.state_dir.join("cache"))
    }

    pub fn folder(&self, name: &str) -> Option<&Folder> {
        self.folders.iter().find(|f| f.name == name)
    }

    /// Where something was declared. Keys: `interface/NAME`, `subnet/NETWORK`, `files/NAME`, `cache`
    /// (its dir), `mirror/NAME` and `mirror/NAME/key/0`, `tftp`, `ipxe`, `loader/ARCH`, `tls`, `certificate`, `key`, `root`, `machine/NAME` and,
    /// below that, `/loader`, `/secret/NAME` and `/password`, `profile/NAME` and, below that, `/kernel`,
    /// `/initrd/0`, `/args`, `/title`, `/install`, `/answer/KEY` and `/secret/NAME`; `webhook/0` and
    /// `webhook/0/secret`; `catalog/MIRROR` is the `install` that brought it. What has no place (a
    /// configuration that was not read from files) is given that of the first file.
    pub fn place(&self, key: &str) -> Place {
        let first = || self.sources.first().map_or(Path::new("pilotlight.toml"), PathBuf::as_path);
        self.places.0.get(key).cloned().unwrap_or_else(|| Place::file(first()))
    }
}

/// `http://HOST`, with the port where it is not the scheme's own.
pub fn origin(scheme: &str, host: impl std::fmt::Display, port: u16) -> String {
    match (scheme, port) {
        ("http", 80) | ("https", 443) => format!("{scheme}://{host}"),
        _ => format!("{scheme}://{host}:{port}"),
    }
}
