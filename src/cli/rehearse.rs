//! `pilotlight rehearse`: many pretended machines, and a table of how they fared.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::output;
use crate::app;
use crate::model::{Firmware, Mac};
use crate::rehearse::storm::{Pace, Seen, Size, Who};
use crate::rehearse::{self, Only, Options, Outcome};

/// Machines that are under way at once, unless it is said.
const AT_ONCE: usize = 64;
/// The same of whole boots: a hall that is switched on.
const HALL: usize = 4096;
/// Machines, unless it is said.
const MACHINES: u64 = 50;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo ip route add local 10.77.0.0/24 dev lo
  sudo pilotlight rehearse --server 10.77.0.1 --config pilotlight.toml \\
      --source-per-machine
      All declared machines boot at once: DHCP, loader, scripts, kernel, initrd,
      answer. It counts as no attempt, none is taken for installed, and answers
      hold no secrets: (secret NAME) is in their place. Their addresses are this
      host's then, and answer a ping: the server wants [dhcp] ping-check = false.
  sudo pilotlight rehearse --server 10.77.0.1 --machines 2000 --firmware mixed
      Machines that nobody knows: they end in the menu.
  sudo pilotlight rehearse --server 10.77.0.1 --only dhcp --rate 500 --seconds 9
      500 machines begin each second, whether or not those before have theirs.
  sudo pilotlight rehearse --server 10.77.0.1 --only tftp --file snponly.efi
  sudo pilotlight rehearse --server 10.77.0.1 --json | jq '.failures[]'

Run it on another machine of the network, or in a network namespace, for it has
port 67 to itself: DHCP is spoken as a relay at --from does, and the server
wants a [[subnet]] that holds that address. Made-up machines that got an address
give it back at the end; declared ones do not, for the real ones may be up. At
most 12 transfers by TFTP are under way at once, unless each machine has an
address of its own. Ctrl-C ends it with the table so far. Exit code 0 if no
machine failed, 1 if any did.")]
pub struct Rehearse {
    /// The server's address in the network of the machines
    #[arg(long, value_name = "ADDRESS")]
    server: Ipv4Addr,
    /// How many machines [default: 50; with --seconds alone, a new one each time]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    machines: Option<u64>,
    /// One step alone
    #[arg(long, value_name = "STEP")]
    only: Option<Step>,
    /// With --only dhcp: each machine asks again as the iPXE that it loads
    #[arg(long, requires = "only")]
    chain: bool,
    /// Machines under way at once [default: all, up to 4096; with --only dhcp 64]
    #[arg(long, value_name = "N", conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    at_once: Option<u32>,
    /// Machines that begin each second, however slow the server is
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Machines begin for so long; with --machines these, again and again
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Our address that the server answers to [default: that of the route to it]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<Ipv4Addr>,
    /// What the machines are
    #[arg(long, default_value = "uefi-x64", value_name = "KIND")]
    firmware: Kind,
    /// The first three bytes of the machines' made-up MAC addresses
    #[arg(long, default_value = "02:00:00", value_name = "XX:XX:XX", value_parser = prefix)]
    prefix: [u8; 3],
    /// Rehearse the machines that this configuration declares with a MAC address
    #[arg(long, short, value_name = "FILE", conflicts_with = "prefix")]
    config: Option<PathBuf>,
    /// Each machine speaks from the address that it is given; they must lead here:
    /// `ip route add local NETWORK dev lo`
    #[arg(long)]
    source_per_machine: bool,
    /// The root certificate to trust by HTTPS, PEM [default: http://SERVER/ca.pem]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With --only tftp: what to fetch [default: the firmware's loader]
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// With --only tftp: the block size to ask for, in bytes
    #[arg(long, value_name = "BYTES")]
    blksize: Option<u16>,
    /// With --only tftp: the window to ask for, in blocks
    #[arg(long, value_name = "BLOCKS")]
    windowsize: Option<u16>,
    /// Another number, other transaction numbers and pauses
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u32,
    /// Give no address back at the end, which with --config is so anyway
    #[arg(long)]
    keep_leases: bool,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
    /// The server is neither on this machine nor in a private namespace, and may be flooded
    #[arg(long)]
    i_own_this_network: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Step {
    Dhcp,
    Tftp,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Bios,
    UefiX64,
    UefiArm64,
    Mixed,
}

impl Kind {
    fn firmwares(self) -> Vec<&'static Firmware> {
        let names: &[&str] = match self {
            Kind::Bios => &["bios"],
            Kind::UefiX64 => &["uefi-x64"],
            Kind::UefiArm64 => &["uefi-arm64"],
            Kind::Mixed => &["bios", "uefi-x64", "uefi-arm64"],
        };
        names.iter().filter_map(|name| Firmware::by_name(name)).collect()
    }
}

fn prefix(text: &str) -> Result<[u8; 3], String> {
    let mut bytes = [0; 3];
    let parts: Vec<&str> = text.split([':', '-']).collect();
    if parts.len() != 3 {
        return Err("three pairs of hex digits, like 02:00:00".into());
    }
    for (byte, part) in bytes.iter_mut().zip(parts) {
        *byte = u8::from_str_radix(part, 16).map_err(|e| format!("{part}: {e}"))?;
    }
    Ok(bytes)
}

impl Rehearse {
    fn options(&self) -> anyhow::Result<Options> {
        if self.config.is_some() && !self.source_per_machine && self.only.is_none() {
            bail!(
                "--config wants --source-per-machine: a declared machine gets its script at its own \
                 address alone, and from one for all they are \"two machines with one MAC\". Let \
                 their network lead here (`ip route add local NETWORK dev lo`), or rehearse \
                 --only dhcp"
            );
        }
        let seconds = |s: f64| match s.is_finite() && s > 0.0 && s <= 1e6 {
            true => Ok(Duration::from_secs_f64(s)),
            false => bail!("--seconds {s}: a number of seconds above 0"),
        };
        let pace = match self.rate {
            Some(rate) if rate.is_finite() && rate > 0.0 && rate <= 1e6 => Pace::Rate(rate),
            Some(rate) => bail!("--rate {rate}: machines a second, above 0 and up to a million"),
            None => Pace::AtOnce(match (self.at_once, self.only) {
                (Some(n), _) => n as usize,
                (None, Some(Step::Dhcp)) => AT_ONCE,
                (None, _) => HALL,
            }),
        };
        let time = self.seconds.map(seconds).transpose()?;
        let who = match &self.config {
            Some(config) => Who::These(declared(config)?),
            None => Who::Made(self.prefix),
        };
        let machines = match (self.machines, time, &who) {
            (None, _, Who::These(all)) => Some(all.len() as u64),
            (Some(n), _, Who::These(all)) if n > all.len() as u64 => {
                bail!("--machines {n}: the configuration declares {}", all.len())
            }
            (None, None, _) => Some(MACHINES),
            (machines, ..) => machines,
        };
        let ca = self.ca.as_deref().map(read).transpose()?;
        Ok(Options {
            server: self.server,
            from: self.from,
            who,
            firmwares: self.firmware.firmwares(),
            pace,
            size: Size { machines, time },
            only: self.only.map(|step| match step {
                Step::Dhcp => Only::Dhcp,
                Step::Tftp => Only::Tftp,
            }),
            chain: self.chain,
            // A declared machine may be up: its lease is its own to give back.
            keep_leases: self.keep_leases || self.config.is_some(),
            seed: self.seed,
            may_leave: self.i_own_this_network,
            source_per_machine: self.source_per_machine,
            ca,
            file: self.file.clone(),
            blksize: self.blksize,
            windowsize: self.windowsize,
        })
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}

/// The machines that are declared by one whole MAC address.
fn declared(file: &Path) -> anyhow::Result<Vec<Mac>> {
    let checked = app::check(Some(file));
    let Some(config) = &checked.config else {
        bail!("{}", checked.errors.picture(true));
    };
    let macs: Vec<Mac> = config.machines.iter().filter_map(|m| m.mac()).collect();
    if macs.is_empty() {
        bail!(
            "{} declares no machine by one whole MAC address, so there is none to pretend to be",
            file.display()
        );
    }
    Ok(macs)
}

/// Runs it: the table is on standard output, the progress on standard error.
pub fn run(rehearse: &Rehearse) -> anyhow::Result<ExitCode> {
    let options = rehearse.options()?;
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| interrupted(&stop, &over));
        let quiet = rehearse.json && !std::io::stderr().is_terminal();
        if !quiet {
            scope.spawn(|| progress(&seen, options.size.machines, &over));
        }
        let outcome = rehearse::run(&options, &seen, &stop);
        over.store(true, Ordering::Relaxed);
        outcome
    })?;
    let begun = seen.begun.load(Ordering::Relaxed);
    let left = begun.saturating_sub(outcome.tally.machines);
    match rehearse.json {
        true => {
            let mut json = outcome.tally.json(outcome.took);
            json["left"] = left.into();
            json["released"] = outcome.released.into();
            output::print(&json.to_string())?;
        }
        false => output::print(&table(&outcome, left))?,
    }
    Ok(match outcome.tally.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Sets `stop` on Ctrl-C; on the second, even what is to be given back is left.
fn interrupted(stop: &AtomicBool, over: &AtomicBool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        // One listener for all of them: a new one each time would not hear what came between.
        let Ok(mut interrupts) = signal(SignalKind::interrupt()) else { return };
        while !over.load(Ordering::Relaxed) {
            tokio::select! {
                Some(()) = interrupts.recv() => {
                    if stop.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                }
                _ = look.tick() => {}
            }
        }
    });
}

/// How far it is: over and over on one line of a terminal, else a line every few seconds.
fn progress(seen: &Seen, machines: Option<u64>, over: &AtomicBool) {
    let terminal = std::io::stderr().is_terminal();
    // The first early: who waits wants to see that it goes on.
    let due = |tenth: u64| if terminal { tenth.is_multiple_of(2) } else { tenth % 50 == 10 };
    let of = machines.map(|n| format!(" of {n}")).unwrap_or_default();
    for tenth in 1u64.. {
        std::thread::sleep(Duration::from_millis(100));
        let last = over.load(Ordering::Relaxed);
        if last && !terminal {
            return;
        }
        if due(tenth) || last {
            let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            let line = format!(
                "{}{of} machines begun, {} done, {} failed",
                get(&seen.begun),
                get(&seen.done),
                get(&seen.failed)
            );
            let mut out = std::io::stderr().lock();
            // Nobody to tell it to is no failure.
            let _ = match terminal {
                true if last => write!(out, "\r\x1b[K"),
                true => write!(out, "\r\x1b[K{line}"),
                false => writeln!(out, "{line}"),
            };
            let _ = out.flush();
        }
        if last {
            return;
        }
    }
}

/// For people, in 80 columns.
fn table(outcome: &Outcome, left: u64) -> String {
    let Outcome { tally, took, released } = outcome;
    let mut out = format!(
        "{:<10}{:>8}{:>7}{:>9}{:>9}{:>9}{:>9}{:>9}{:>10}\n",
        "step", "done", "failed", "p50", "p90", "p99", "max", "a second", "bytes"
    );
    for (stage, sum) in &tally.steps {
        let [p50, p90, p99, max] = tally.row(sum).map(time);
        let rate = if sum.seconds() > 0.0 { sum.done as f64 / sum.seconds() } else { 0.0 };
        let _ = writeln!(
            out,
            "{:<10}{:>8}{:>7}{p50:>9}{p90:>9}{p99:>9}{max:>9}{:>9}{:>10}",
            stage.word(),
            sum.done,
            sum.failed,
            format!("{rate:.0}"),
            if sum.bytes == 0 { String::new() } else { crate::model::event::size(sum.bytes) },
        );
    }
    let seconds = took.as_secs_f64();
    let _ = writeln!(
        out,
        "\n{} machines in {seconds:.1} s, {} failed{}.",
        tally.machines,
        if tally.failed == 0 { "none".to_string() } else { tally.failed.to_string() },
        if *released > 0 { format!("; {released} leases given back") } else { String::new() },
    );
    if left > 0 {
        let _ = writeln!(out, "Ended early: {left} more were under way.");
    }
    for (what, times) in &tally.notes {
        out += &output::wrap(&format!("{times} times: "), what);
    }
    for ((stage, _), (why, times)) in &tally.failures {
        out += &output::wrap(&format!("{times} × {}: ", stage.word()), why);
    }
    if tally.failed > 0 {
        out += "\nThe server says why, and how often, on its own machine:\n  curl -s http://127.0.0.1:8067/api/v1/refusals\n";
    }
    out
}

fn time(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1e3;
    match ms {
        _ if ms < 10.0 => format!("{ms:.2} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}
