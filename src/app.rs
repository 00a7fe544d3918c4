//! Binds, wires, runs and shuts down; knows everyone.
//!
//! 1. The process leaves no core dumps, and the configuration is read; what is wrong with it ends
//!    the start.
//! 2. The interfaces are found. Without one that was named, the candidates are listed and nothing
//!    is served: never the wrong network.
//! 3. The store, the leases and the certificates are opened.
//! 4. Every port is bound before anything is served, so that a start either works or changes
//!    nothing.
//! 5. The doors open; systemd and the log hear `ready`.
//! 6. Until a signal: reload on SIGHUP or when a file changes, watch the interfaces, renew the
//!    certificates, give up installations whose time is over.
//! 7. The doors close in the order in which machines use them.

mod check;
mod interfaces;
mod power;
mod reload;
mod replay;
mod transfers;
mod watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config, Errors, Mode, Note};
use crate::ledger::Ledger;
use crate::media::Library;
use crate::mirror::serve::Mirrors;
use crate::model::{Facts, Interface, LifeEvent};
use crate::{boot, dhcp, hook, http, store, tftp, tls};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub config: Option<PathBuf>,
    pub interfaces: Vec<String>,
    pub tls: bool,
    pub state_dir: Option<PathBuf>,
    /// Images that are open, and what is in them.
    pub library: Arc<Library>,
}

/// Where the commands on this host find the admin door, also where `[http] admin` is elsewhere.
const NEAR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8067);
/// Connections that wait at the admin door, as std has it.
const BACKLOG: i32 = 128;
/// How often the interfaces are looked at, and the certificates.
const WATCH: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(3600);

/// The configuration with what the command line adds to it.
fn load(options: &Options) -> Result<(Config, Vec<Note>), Errors> {
    let (mut config, mut notes) = config::load(options.config.as_deref(), &*options.library)?;
    notes.extend(check::silent(&config));
    if !options.interfaces.is_empty() {
        config.interfaces = options.interfaces.clone();
    }
    if let Some(dir) = &options.state_dir {
        config.state_dir = dir.clone();
    }
    config.tls.enabled |= options.tls;
    Ok((config, notes))
}

/// The configuration alone, for commands that only tell.
///
/// # Errors
/// All that is wrong with it, and what shows it better.
pub fn configuration(options: &Options) -> anyhow::Result<Config> {
    Ok(load(options).map_err(|e| unusable(options.config.as_deref(), &e))?.0)
}

fn unusable(file: Option<&Path>, errors: &Errors) -> anyhow::Error {
    let file = file.map_or(String::new(), |f| format!(" --config {}", f.display()));
    anyhow::anyhow!(
        "the configuration cannot be used:\n{errors}\n`pilotlight check{file}` shows each in its \
         place"
    )
}

pub use check::{Checked, RENDER_TIME, check, count, served, within};
pub use interfaces::{NoInterface, find as interfaces};
pub use replay::{Exchange, Played, Replayed, replay};

/// Serves until a signal ends it.
pub fn run(options: Options) -> anyhow::Result<()> {
    leaves_no_core()?;
    let (config, notes) = load(&options).map_err(|e| unusable(options.config.as_deref(), &e))?;
    for note in &notes {
        tracing::warn!(target: "pilotlight", "{note}");
    }
    let limit = std::fs::read_to_string(NEIGHBOURS).ok().and_then(|text| text.trim().parse().ok());
    if let Some(warning) = crowded(&config, limit) {
        tracing::warn!(target: "pilotlight", "{warning}");
    }
    let interfaces = interfaces::find(&config.interfaces)?;
    // Handlers of the HTTP doors live on threads of their own; this one carries signals, the
    // reload and the watch.
    actix_web::rt::System::new().block_on(serve(options, config, interfaces))
}

/// Keys and secrets are in this process's memory, so that no picture of it is written to a disk: by
/// the limit where it would be a file (core(5)), and by the flag, without which a program that
/// `core_pattern` names is handed one in spite of the limit. The flag also keeps other processes of
/// our user from reading our memory (ptrace(2)).
fn leaves_no_core() -> anyhow::Result<()> {
    use nix::sys::{prctl, resource};
    resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0).context("RLIMIT_CORE")?;
    prctl::set_dumpable(false).context("PR_SET_DUMPABLE")
}

/// Says what is not where the configuration names it, and gives it. No reason not to start: the
/// machines that need it are told so on their screens, and the others boot.
fn amiss(config: &Config, ledger: &Ledger) -> Vec<String> {
    ledger.calm("configuration-amiss");
    let errors = config::check_disk(config).err().unwrap_or_default().errors;
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for (error, text) in errors.iter().zip(&all) {
        ledger.alarm(
            "configuration-amiss",
            &error.place.to_string(),
            text.clone(),
            Timestamp::now(),
        );
    }
    all
}

const NEIGHBOURS: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// More addresses than this host's neighbour table has room for: the machines beyond it get their
/// leases, by broadcast, and not one byte after that, which looks like anything but this.
fn crowded(config: &Config, limit: Option<u64>) -> Option<String> {
    let limit = limit.filter(|_| config.dhcp.mode == Mode::Full)?;
    let size = |r: &std::ops::RangeInclusive<Ipv4Addr>| {
        u64::from(u32::from(*r.end()).saturating_sub(u32::from(*r.start()))) + 1
    };
    let all: u64 = config.dhcp.subnets.iter().flat_map(|s| &s.ranges).map(size).sum();
    (all > limit).then(|| {
        format!(
            "the ranges have {all} addresses, and this host talks to at most {limit} neighbours at \
             once: for more machines than that `sysctl -w net.ipv4.neigh.default.gc_thresh3={}`, \
             unless they are behind relays",
            (2 * all).next_power_of_two()
        )
    })
}

async fn serve(options: Options, config: Config, interfaces: Vec<Interface>) -> anyhow::Result<()> {
    let mut told = Told::open(options.config.as_deref())?;
    let state_dir = config.state_dir.clone();
    std::fs::create_dir_all(&state_dir).with_context(|| {
        format!("{}: cannot be made; --state-dir names another folder", state_dir.display())
    })?;
    let store: Arc<dyn store::Store> = Arc::from(open_store(&state_dir)?);
    let book = dhcp::serve::load(
        &*store,
        &config,
        interfaces.iter().flat_map(|i| i.addresses.iter().map(|n| n.addr())),
    )?;
    let addresses: Vec<IpAddr> =
        interfaces.iter().flat_map(|i| i.addresses.iter().map(|n| IpAddr::V4(n.addr()))).collect();
    // The certificates are for machines, and for people who come to the admin door from elsewhere.
    let beyond = config.http.admin.filter(|at| !at.ip().to_canonical().is_loopback());
    let named = named(&addresses, beyond)?;
    let certificates = match config.tls.enabled || beyond.is_some() {
        true => Some(Arc::new(tls::Tls::open(&config.tls, &state_dir, &named, SystemTime::now())?)),
        false => None,
    };
    let tls = certificates.clone().filter(|_| config.tls.enabled);
    for address in tls.iter().flat_map(|t| t.uncovered(&addresses)) {
        tracing::warn!(target: "pilotlight", "[tls] certificate does not name {address}: machines that are sent there will refuse it");
    }
    let ledger = Arc::new(Ledger::open(store.clone())?);
    ledger.keep_in(state_dir.join("boots"));
    ledger.keep(config.life.boots);
    if std::env::var_os("PILOTLIGHT_EVENTS").is_some_and(|v| v == "off") {
        tracing::warn!(target: "pilotlight", "PILOTLIGHT_EVENTS=off: no timeline is recorded, for a benchmark and nothing else");
        ledger.silence();
    }
    let standing = http::Standing { amiss: amiss(&config, &ledger), ..Default::default() };
    let standing = Arc::new(ArcSwap::from_pointee(standing));
    let auth = http::auth::Auth::open(store.clone())?;
    let mirrors = Mirrors::open(&config, ledger.clone(), store.clone())?;
    let shared = Arc::new(ArcSwap::from_pointee(config));
    let config = shared.load_full();

    // Ports, all of them, before anything is served.
    let mut doors = Vec::new();
    for address in &addresses {
        let at = SocketAddr::new(*address, config.http.port);
        doors.push((listen(at, "[http] port")?, None));
        if let Some(tls) = &tls {
            let at = SocketAddr::new(*address, config.http.https_port);
            doors.push((listen(at, "[http] https-port")?, Some(tls.server_config())));
        }
    }
    let admin = match (config.http.admin, beyond) {
        (_, Some(at)) => admin_doors(at)?,
        (Some(at), None) => vec![listen(at, "[http] admin")?],
        (None, None) => Vec::new(),
    };
    let ports = match config.dhcp.mode {
        Mode::Off => None,
        Mode::Proxy | Mode::Full => Some(dhcp::serve::bind(&interfaces, config.dhcp.mode)?),
    };
    let mut bound = Vec::new();
    for interface in &interfaces {
        for network in &interface.addresses {
            bound.push(tftp::serve::bind(&tftp::serve::Listen {
                interface: Some(interface.name.clone()),
                address: network.addr(),
                port: 69,
                blksize: None,
            })?);
        }
    }

    // The doors open.
    let advertises = config.dhcp.router_advertisement && config.dhcp.mode != Mode::Off;
    let radv = advertises.then(|| Arc::new(watch::Advertising::new(&interfaces, ledger.clone())));
    if let Some(radv) = &radv {
        radv.look()?;
    }
    let booting = radv.clone();
    let (ahead, lives, declared) = (mirrors.clone(), ledger.clone(), shared.clone());
    let trusted = tls.clone();
    let dhcp = Arc::new(dhcp::serve::Dhcp {
        config: shared.clone(),
        ledger: ledger.clone(),
        store,
        trust: Box::new(move || trusted.as_ref().map(|t| t.trust().concat()).unwrap_or_default()),
        book,
        booting: Box::new(move |interface, mac| {
            if let Some(radv) = &booting {
                radv.booting(interface, mac);
            }
        }),
        appeared: Box::new(move |mac| {
            if !ahead.has_learned() {
                return;
            }
            let facts = lives.facts(mac).unwrap_or_else(|| Facts::of(mac));
            let (config, life) = (declared.load(), lives.life(mac));
            let ask = boot::Ask::default();
            if let boot::Decision::Install { profile, .. } | boot::Decision::Live(profile) =
                boot::decide(&config, &facts, life.as_deref(), &ask)
            {
                ahead.appeared(&profile.name);
            }
        }),
    });
    if config.dhcp.mode == Mode::Full {
        dhcp.remember();
    }
    let dhcp_running = match ports {
        None => None,
        Some(ports) => Some(dhcp::serve::start(dhcp.clone(), ports)?),
    };
    let door = Arc::new(transfers::Door { config: shared.clone(), ledger: ledger.clone() });
    let tftp_running = tftp::serve::start(bound, door, tftp::desk::Limits::default())?;
    let lists = dhcp.clone();
    let door = http::Door {
        http_port: config.http.port,
        https_port: config.http.https_port,
        tls: tls.is_some(),
    };
    let leases = Box::new(move || serde_json::json!(lists.list()));
    let root = certificates.as_ref().and_then(|t| t.root_pem());
    let mut web = http::Web::new(shared.clone(), ledger.clone(), door, root, leases);
    web.standing = standing.clone();
    web.mirrors = Some(mirrors.clone());
    web.interfaces = interfaces.clone();
    web.library = options.library.clone();
    web.auth = auth;
    if let (Some(at), Some(certificates)) = (beyond, &certificates) {
        web.admin_tls = Some(certificates.server_config());
        first_token(&web.auth, at)?;
    }
    let hooks = hook::start(
        shared.clone(),
        ledger.clone(),
        Box::new(|s| config::reveal(s).map_err(|e| e.to_string())),
        hook::Limits::default(),
    );
    web.power = Some(power::hook(shared.clone(), ledger.clone(), interfaces.clone()));
    web.hooks = Some(hooks.counts.clone());
    let mut http_running = http::start(web, doors, admin)?;

    for line in banner(&config, &interfaces, &addresses) {
        tracing::info!(target: "pilotlight", "{line}");
    }
    tracing::info!(target: "pilotlight", "ready");
    // Outside systemd there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);

    let reloads = reload::Reload {
        options,
        shared: shared.clone(),
        standing,
        dhcp,
        mirrors: mirrors.clone(),
    };
    told.files.also(&reloads.shared.load());
    let ended = until_told(
        told,
        &reloads,
        &interfaces,
        certificates.as_deref(),
        radv.as_deref(),
        &named,
        &ledger,
    )
    .await;

    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    tracing::info!(target: "pilotlight", "stopping");
    if let Some(running) = dhcp_running {
        running.stop();
    }
    tftp_running.stop();
    if let Some(radv) = radv {
        radv.stop();
    }
    http_running.stop().await;
    drop(hooks);
    mirrors.settle();
    mirrors.stop();
    ledger.settle();
    ended
}

/// What a running server listens to beside its doors. Opened before `ready` is said: who reads that
/// may send a signal or change a file at once.
struct Told {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    files: reload::Files,
}

impl Told {
    fn open(config: Option<&Path>) -> std::io::Result<Told> {
        Ok(Told {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            files: reload::Files::watch(config),
        })
    }
}

/// Works until a signal ends it, or an interface is gone.
async fn until_told(
    mut told: Told,
    reloads: &reload::Reload,
    interfaces: &[Interface],
    tls: Option<&tls::Tls>,
    radv: Option<&watch::Advertising>,
    addresses: &[IpAddr],
    ledger: &Ledger,
) -> anyhow::Result<()> {
    let file = reloads.options.config.as_deref();
    let mut watch = tokio::time::interval(WATCH);
    let mut renewal = tokio::time::interval(RENEW);
    loop {
        tokio::select! {
            _ = told.terminate.recv() => return Ok(()),
            _ = told.interrupt.recv() => return Ok(()),
            _ = told.hangup.recv() => {
                told.files = reload::Files::watch(file);
                reloads.reload("SIGHUP");
                told.files.also(&reloads.shared.load());
            }
            _ = told.files.changed() => {
                reloads.reload("a change");
                told.files.also(&reloads.shared.load());
            }
            _ = watch.tick() => {
                for interface in interfaces {
                    interfaces::still_there(interface)?;
                }
                if let Some(radv) = radv {
                    radv.look()?;
                }
                give_up(&reloads.shared.load(), ledger, Timestamp::now());
            }
            _ = renewal.tick() => {
                if let Some(tls) = tls {
                    renew(tls, &reloads.shared.load(), addresses);
                }
            }
        }
    }
}

/// Tells the machines whose report has not come in time that they failed.
fn give_up(config: &Config, ledger: &Ledger, now: Timestamp) {
    for life in ledger.overdue(now) {
        let (attempts, _) = boot::decide::limits(config, life.profile.as_deref());
        ledger.step_later(life.mac, LifeEvent::Tick, attempts, now);
    }
}

/// The addresses that our certificates are for: those that are served, and those under which the
/// admin door is reached from elsewhere.
fn named(addresses: &[IpAddr], beyond: Option<SocketAddr>) -> anyhow::Result<Vec<IpAddr>> {
    let mut named = addresses.to_vec();
    if let Some(at) = beyond {
        named.push(Ipv4Addr::LOCALHOST.into());
        match at.ip().is_unspecified() {
            true => named.extend(interfaces::addresses()?),
            false => named.push(at.ip().to_canonical()),
        }
    }
    named.sort();
    named.dedup();
    Ok(named)
}

/// An admin door that wants a token, and nobody has one: it is said this once.
fn first_token(auth: &http::auth::Auth, at: SocketAddr) -> anyhow::Result<()> {
    if let Some(token) = auth.first(jiff::Timestamp::now())? {
        tracing::warn!(
            target: "pilotlight",
            "the admin door https://{at} wants a token, and there was none: this one, `first`, is \
             shown this once: {}",
            token.reveal()
        );
    }
    Ok(())
}

/// The store of `dir`; with PILOTLIGHT_STORE=memory one that forgets, for the benchmark that shows
/// what durability costs.
fn open_store(dir: &Path) -> Result<Box<dyn store::Store>, store::Error> {
    if std::env::var_os("PILOTLIGHT_STORE").is_some_and(|v| v == "memory") {
        tracing::warn!(target: "pilotlight", "PILOTLIGHT_STORE=memory: every lease is forgotten when this process ends");
        return Ok(Box::new(store::Memory::default()));
    }
    store::open(dir)
}

fn renew(tls: &tls::Tls, config: &Config, addresses: &[IpAddr]) {
    match tls.renew_if_due(&config.tls, addresses, SystemTime::now()) {
        Ok(None) => {}
        Ok(Some(why)) => tracing::info!(target: "pilotlight", "new certificates: {why}"),
        Err(e) => tracing::error!(target: "pilotlight", "the old certificates stay in force: {e}"),
    }
}

/// The admin door that is reached from elsewhere, and the one for the commands on this host: a
/// credential is made there, so that it asks for none.
fn admin_doors(at: SocketAddr) -> anyhow::Result<Vec<TcpListener>> {
    let near = || listen(NEAR, "another port in [http] admin, and leave this one to the commands");
    if !(at.ip().is_unspecified() && at.port() == NEAR.port()) {
        let door = listen(at, "[http] admin")?;
        return Ok(vec![door, near()?]);
    }
    // Two listeners of one port, of which Linux takes the one whose address is closer (socket(7),
    // SO_REUSEPORT). The option would also share the port with another server of this user's, so
    // it is first seen that there is none.
    drop(listen(at, "[http] admin")?);
    let shared = |at: SocketAddr| -> std::io::Result<TcpListener> {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let both = [at, NEAR].map(|at| shared(at).with_context(|| format!("TCP {at}")));
    both.into_iter().collect()
}

fn listen(at: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    use std::io::ErrorKind;
    TcpListener::bind(at).or_else(|e| match e.kind() {
        ErrorKind::AddrInUse => bail!(
            "TCP port {} on {} is in use by another program: stop it (`ss -ltnp 'sport = :{}'` \
             names it), or choose another by {setting}",
            at.port(),
            at.ip(),
            at.port()
        ),
        ErrorKind::PermissionDenied => bail!(
            "TCP port {} needs CAP_NET_BIND_SERVICE: run pilotlight with sudo, or by its systemd \
             unit",
            at.port()
        ),
        _ => Err(e).with_context(|| format!("TCP {at}")),
    })
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Proxy => "proxy: the site's DHCP server gives the addresses",
        Mode::Full => "full: addresses are ours to give",
        Mode::Off => "off: another server names us",
    }
}

/// What a person wants to know at the start.
fn banner(config: &Config, interfaces: &[Interface], addresses: &[IpAddr]) -> Vec<String> {
    let names: Vec<&str> = interfaces.iter().map(|i| i.name.as_str()).collect();
    let mode = mode(config.dhcp.mode);
    let at: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let mut lines = vec![
        format!(
            "pilotlight {} on {} ({})",
            env!("CARGO_PKG_VERSION"),
            names.join(", "),
            at.join(", ")
        ),
        format!("DHCP {mode}"),
        format!(
            "machines declared: {}, profiles: {}; those that match nothing get {}",
            config.machines.len(),
            config.profiles.len(),
            check::others(config)
        ),
    ];
    if config.tls.enabled {
        let by = match &config.tls.own {
            Some(own) => own.chain.display().to_string(),
            None => config.state_dir.join("tls").display().to_string(),
        };
        lines.push(format!(
            "HTTPS on port {}: scripts, kernels and answers; certificates: {by}",
            config.http.https_port
        ));
    }
    if let Some(at) = config.http.admin {
        lines.push(match at.ip().to_canonical().is_loopback() {
            true => format!("admin door: http://{at}"),
            false => format!(
                "admin doors: https://{at}, which wants a token, and http://{NEAR} for this host"
            ),
        });
    }
    match crate::ipxe::VERSION {
        "" => lines.push("this build holds no iPXE loaders: scripts/loaders brings them".into()),
        version => {
            lines.push(format!("iPXE loaders: {}", version.split(' ').next().unwrap_or(version)))
        }
    }
    if config.http.admin.is_some() && !http::is_live() {
        lines.push("this build holds no htmx: the dashboard's pages stay as they are until they are loaded again (scripts/htmx brings it)".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_report_in_time_is_given_up() {
        use crate::model::lifecycle::Begin;
        use crate::model::{Mac, State};
        let (ledger, mut config) = (Ledger::new(), Config::default());
        config.life.attempts = 1;
        let begin = |n: u8, minutes: u64| {
            LifeEvent::Begin(Box::new(Begin {
                profile: "web".into(),
                boot: n.to_string(),
                report: n.to_string(),
                address: None,
                facts: Facts::of(Mac([2, 0, 0, 0, 0, n])),
                timeout: Duration::from_secs(60 * minutes),
                attempts: 1,
                restarted: false,
                chosen: false,
            }))
        };
        let now = Timestamp::UNIX_EPOCH;
        let step = |n, event| {
            let step = ledger.step(Mac([2, 0, 0, 0, 0, n]), event, 1, now);
            tokio::runtime::Runtime::new().unwrap().block_on(step).unwrap()
        };
        step(1, begin(1, 10));
        step(2, begin(2, 20));
        give_up(&config, &ledger, now + jiff::SignedDuration::from_mins(10));
        // The writer takes one after the other.
        step(3, LifeEvent::Discover);
        let state = |n| ledger.life(Mac([2, 0, 0, 0, 0, n])).unwrap().state;
        assert_eq!((state(1), state(2)), (State::Failed, State::Installing));
    }

    #[test]
    fn a_neighbour_table_that_is_too_small_is_told_of() {
        let text = "[dhcp]\nmode = \"full\"\n[[subnet]]\nnetwork = \"10.0.0.0/20\"\n\
                    range = [\"10.0.1.0-10.0.3.255\", \"10.0.5.0-10.0.6.255\"]\n";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pilotlight.toml");
        std::fs::write(&file, text).unwrap();
        let config = config::load(Some(&file), &Library::default()).unwrap().0;
        assert_eq!(crowded(&config, Some(1280)), None);
        assert_eq!(crowded(&config, None), None);
        let said = crowded(&config, Some(1024)).unwrap();
        assert!(said.contains("1280 addresses") && said.contains("gc_thresh3=4096"), "{said}");
        assert_eq!(crowded(&Config::default(), Some(0)), None, "proxy mode has no ranges");
    }
}
