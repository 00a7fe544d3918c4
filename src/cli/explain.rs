//! `pilotlight explain`: the decisions themselves, asked for a machine that is only named.
//!
//! 1. [`who`] tells which `[[machine]]` it is, or why it is none.
//! 2. The machine's boot is gone through as its firmware would: DHCP, loader, iPXE's own DHCP where
//!    there is one, entry script, its script. Each answer is [`decide`]'s and [`http::make`]'s own.
//! 3. [`words`] puts options into words; [`show`] lays it out.
//!
//! Nothing is changed, nothing is sent, and no answer file is shown: what is in it may be a secret.

mod show;
mod who;
mod words;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};

use self::show::{Field, Step};
use super::{ConfigFile, door, output, remind};
use crate::boot::{Ask, Urls, render};
use crate::config::{Config, Mode};
use crate::dhcp::decide::{self, Answer, Here, Next, Port, To};
use crate::dhcp::lease::Leases;
use crate::dhcp::wire::{Class, Kind, Request, ipxe as feature};
use crate::ipxe::{self, Https};
use crate::ledger::Handed;
use crate::media::Library;
use crate::model::profile::Source;
use crate::model::{Facts, Family, Firmware, Mac, Machine, Profile, Transport, Why, machine};
use crate::{app, http, tls};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight explain web1 --config pilotlight.toml
  pilotlight explain 52:54:00:12:34:56 --arch bios
  pilotlight explain 52:54:00:12:34:56 --arch uefi-x64-http --config pilotlight.toml
  pilotlight explain 52:54:00:12:34:56 --arch bios --ipxe http
      The card's ROM is an iPXE that speaks HTTP and no HTTPS.
  pilotlight explain 52:54:00:12:34:56 --arch uefi-x64 --via 10.7.0.1
      Its requests come by the relay 10.7.0.1.
  pilotlight explain 52:54:00:12:34:56 --arch 11 --serial CZ1234567 --json
  pilotlight explain --profile rescue --arch bios --config pilotlight.toml
      What a machine would be sent at which this profile is chosen in the menu;
      with a machine before it, what this one would.

Nothing is sent and nothing is changed; answer files are named and not shown. It tells of a machine
that nothing has happened to: what became of one the running server knows, by `pilotlight machine
show`.")]
pub struct Explain {
    /// The machine, by its MAC or by its name in the configuration
    #[arg(value_parser = door::who, required_unless_present = "profile")]
    machine: Option<String>,
    /// As if this profile had been chosen in the menu; also one that the menu does not offer
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Its firmware: a name, or its number in DHCP option 93
    #[arg(long, default_value = "uefi-x64", value_name = "FIRMWARE", value_parser = firmware,
        long_help = "Its firmware: a name, or its number in DHCP option 93. The names: bios, \
            uefi-x64, uefi-arm64, uefi-ia32, uefi-arm32, uefi-riscv64, uefi-loong64; with -http \
            behind a UEFI one for UEFI HTTP boot")]
    arch: &'static Firmware,
    /// Its firmware is an iPXE already, and this is what it speaks
    #[arg(long, value_name = "FEATURES", value_delimiter = ',', value_parser = ["http", "https"])]
    ipxe: Option<Vec<String>>,
    /// The relay that its requests come by
    #[arg(long, value_name = "ADDRESS")]
    via: Option<Ipv4Addr>,
    /// The address of ours that it reaches, in place of the interface's
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    server: Option<Ipv4Net>,
    /// Its UUID, for a [[machine]] that matches by it
    #[arg(long)]
    uuid: Option<String>,
    /// Its serial number, the same
    #[arg(long)]
    serial: Option<String>,
    /// Its maker, the same
    #[arg(long)]
    vendor: Option<String>,
    /// As by `serve --tls`
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    file: ConfigFile,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

fn firmware(text: &str) -> Result<&'static Firmware, String> {
    let found = match text.parse() {
        Ok(code) => Firmware::by_code(code),
        Err(_) => Firmware::by_name(text),
    };
    found.ok_or_else(|| {
        let mut all: Vec<&str> = Vec::new();
        for f in crate::model::firmware::TABLE {
            if !all.contains(&f.name) {
                all.push(f.name);
            }
        }
        format!("no firmware of the table; it knows {}", all.join(", "))
    })
}

pub fn run(explain: &Explain) -> anyhow::Result<()> {
    remind(explain.file.config.as_deref());
    let mut config = app::configuration(&app::Options {
        config: explain.file.config.clone(),
        tls: explain.tls,
        ..app::Options::default()
    })?;
    let mac = match &explain.machine {
        Some(machine) => who::mac(&config, machine)?,
        None => ANYBODY,
    };
    let pretended = match &explain.profile {
        Some(profile) => who::choose(&mut config, profile)?,
        None => Vec::new(),
    };
    let tale = Tale::new(explain, mac, config).tell(pretended);
    Ok(output::print(&if explain.json { show::json(&tale) } else { show::text(&tale) })?)
}

/// A machine that nobody has: an address for documentation (RFC 7042 section 2.1.2).
const ANYBODY: Mac = Mac([0x00, 0x00, 0x5e, 0x00, 0x53, 0x01]);

/// A machine's boot, as it goes on.
struct Tale<'a> {
    explain: &'a Explain,
    mac: Mac,
    config: Arc<Config>,
    server: Ipv4Net,
    /// Why `server` is that address.
    server_said: &'static str,
    trust: Vec<u8>,
    /// Whether `trust` is a stand-in for what the first start will make.
    trust_to_come: bool,
    leases: Leases,
    handed: Option<Handed>,
    address: Option<Ipv4Addr>,
    steps: Vec<Step>,
}

impl<'a> Tale<'a> {
    fn new(explain: &'a Explain, mac: Mac, config: Config) -> Tale<'a> {
        let (server, server_said) = ours(explain, &config);
        let (trust, trust_to_come) = trust(&config);
        let mut leases = Leases::default();
        leases.configure(&config);
        Tale {
            explain,
            mac,
            config: Arc::new(config),
            server,
            server_said,
            trust,
            trust_to_come,
            leases,
            handed: None,
            address: None,
            steps: Vec::new(),
        }
    }

    fn tell(mut self, pretended: Vec<String>) -> show::Tale {
        let mut about = self.about();
        about.extend(pretended);
        self.boot();
        show::Tale { mac: self.mac, arch: self.explain.arch, about, steps: self.steps }
    }

    fn about(&self) -> Vec<String> {
        let mut about = match self.explain.machine {
            Some(_) => who::tell(&self.config, &self.facts(None)),
            None => vec!["No machine is named: it is one that nobody has declared.".into()],
        };
        about.push(format!("Our address for it is {}: {}.", self.server.addr(), self.server_said));
        if let Some(relay) = self.explain.via {
            let home = self.config.dhcp.subnets.iter().find(|s| s.network.contains(&relay));
            about.push(match (self.config.dhcp.mode, home) {
                (Mode::Full, Some(s)) => format!(
                    "Its requests come by the relay {relay}, so its address is from the \
                     [[subnet]] {} at {}.",
                    s.network,
                    self.config.place(&format!("subnet/{}", s.network))
                ),
                (Mode::Full, None) => format!(
                    "Its requests come by the relay {relay}, and no [[subnet]] holds that address."
                ),
                _ => format!("Its requests come by the relay {relay}."),
            });
        }
        about
    }

    fn boot(&mut self) {
        let own = self.explain.ipxe.as_ref().map(|words| features(words));
        let mut client = self.request(own);
        // Firmware, an iPXE of its own, ours: three at the most.
        for turn in 0..3 {
            let Some(answer) = self.dhcp(&client) else { return };
            if turn == 0 && client.ipxe.is_none() {
                self.boot_server(&client);
            }
            match answer.next {
                Next::Nothing | Next::Refused(_) => return,
                Next::Script { url } => {
                    self.advertisement();
                    self.entry(format!("iPXE fetches {url}"));
                    break;
                }
                Next::Loader { file, name } => {
                    if client.ipxe.is_some() {
                        self.advertisement();
                    }
                    self.loader(&file, &name, client.ipxe.is_some());
                    if self.explain.arch.family == Family::Uefi {
                        let by = if name.starts_with("http") { "HTTP" } else { "TFTP" };
                        self.entry(format!("iPXE asks for autoexec.ipxe by {by}"));
                        self.beside(&file, client.ipxe.is_none());
                        break;
                    }
                    client = self.request(Some(self.speaks(&file)));
                }
            }
        }
        self.script();
    }

    fn step(&mut self, title: impl Into<String>) {
        self.steps.push(Step::new(title));
    }

    fn say(&mut self, text: impl Into<String>) {
        if let Some(step) = self.steps.last_mut() {
            step.said.push(text.into());
        }
    }

    fn field(&mut self, name: &str, value: impl Into<String>) {
        if let Some(step) = self.steps.last_mut() {
            step.fields.push(Field { option: None, name: name.into(), value: value.into() });
        }
    }

    /// What an iPXE of ours says it speaks. Of the operator's own nothing is known: they would not
    /// be there if they could do less than is needed.
    fn speaks(&self, file: &str) -> Vec<u8> {
        let embedded = ipxe::get(&self.config.ipxe, file)
            .is_ok_and(|l| matches!(l.bytes, ipxe::Bytes::Embedded(_)));
        features(&[match (embedded, ipxe::https()) {
            (true, Https::No) => "http",
            _ => "https",
        }
        .to_string()])
    }

    fn request(&self, ipxe: Option<Vec<u8>>) -> Request {
        let unset = Ipv4Addr::UNSPECIFIED;
        Request {
            kind: Kind::Discover,
            mac: self.mac,
            xid: 1,
            secs: 0,
            flags: 0x8000,
            ciaddr: unset,
            giaddr: self.explain.via.unwrap_or(unset),
            server_id: None,
            requested: None,
            lease_time: None,
            client_id: None,
            hostname: None,
            parameters: Vec::new(),
            max_size: None,
            class: match self.explain.arch.transport {
                Transport::Http if ipxe.is_none() => Class::Http,
                Transport::Http | Transport::Pxe => Class::Pxe,
            },
            arch: Some(self.explain.arch.code),
            uuid: None,
            ipxe,
            relay: None,
            link: None,
            server_override: None,
        }
    }

    /// All that is known of the machine once iPXE has told it.
    fn facts(&self, address: Option<Ipv4Addr>) -> Facts {
        Facts {
            serial: self.explain.serial.clone(),
            manufacturer: self.explain.vendor.clone(),
            ip: address,
            ..self.dhcp_facts()
        }
    }

    /// What DHCP tells: option 97 has the UUID, option 93 the architecture.
    fn dhcp_facts(&self) -> Facts {
        Facts {
            uuid: self.explain.uuid.clone(),
            arch: Some(self.explain.arch.arch),
            ..Facts::of(self.mac)
        }
    }

    fn ask(&mut self, request: &Request, port: Port) -> decide::Outcome {
        let known = self.dhcp_facts();
        let config = self.config.clone();
        let here = Here {
            interface: config.interfaces.first().map_or("the interface", String::as_str),
            addresses: &[self.server],
            to: None,
            port,
            trust: &self.trust,
            has_loader: &|name| ipxe::get(&config.ipxe, name).is_ok(),
            handed: self.handed.as_ref(),
            known: Some(&known),
            assigned: false,
            now: Timestamp::now(),
            lease_now: Timestamp::now(),
        };
        decide::decide(&config, &mut self.leases, request, &here)
    }

    /// DISCOVER and what it is answered with.
    fn dhcp(&mut self, client: &Request) -> Option<Answer> {
        let who = if client.ipxe.is_some() { "iPXE" } else { "The firmware" };
        let off = self.config.dhcp.mode == Mode::Off;
        self.step(match off {
            true => format!("{who} asks another DHCP server"),
            false => format!("{who} sends DHCPDISCOVER"),
        });
        let answer = match self.ask(client, Port::Server).result {
            Ok(answer) => *answer,
            Err(why) => {
                self.say(format!("No answer ({}): {why}.", why.name()));
                return None;
            }
        };
        if let Next::Loader { .. } = answer.next {
            // In full mode it is settled by the REQUEST that follows; the loader then takes its
            // time to start.
            let features = client.ipxe.clone();
            let at = Timestamp::now() - SignedDuration::from_secs(5);
            self.handed = Some(Handed { at, features, times: 1 });
        }
        if off {
            self.say("[dhcp] mode = \"off\": we send nothing, so that server must name us.");
            if self.config.tls.enabled && client.ipxe.is_none() {
                self.say(
                    "For HTTPS it must send our roots' fingerprints, too, in option 175 \
                     sub-option 90.",
                );
            }
            self.field("siaddr, or option 66", answer.reply.siaddr.to_string());
            self.field("file and option 67", answer.reply.file.clone());
        } else {
            self.offer(&answer);
        }
        if client.ipxe.is_some() {
            self.why_loader_again(&answer.next);
        }
        if let Next::Refused(why) = &answer.next {
            self.say(format!("Nothing to boot ({}): {why}.", why.name()));
        }
        Some(answer)
    }

    fn offer(&mut self, answer: &Answer) {
        let to = match answer.to {
            To::Broadcast => "255.255.255.255:68".to_string(),
            To::Address(at) if self.explain.via == Some(*at.ip()) => format!("the relay, {at}"),
            To::Address(at) => at.to_string(),
            To::Source => "where it came from".into(),
        };
        let kind = answer.reply.kind.word();
        self.say(match self.config.dhcp.mode {
            Mode::Full => {
                format!("{kind} to {to}; the DHCPREQUEST that follows gets the same in a DHCPACK.")
            }
            _ => format!("{kind} to {to}, beside the one of the site's DHCP server."),
        });
        let address = Some(answer.reply.yiaddr).filter(|a| !a.is_unspecified());
        self.field(
            "address",
            address.map_or("none: the site's DHCP server gives it".into(), |a| a.to_string()),
        );
        self.address = address.or(self.address);
        self.header_and_options(answer);
    }

    fn header_and_options(&mut self, answer: &Answer) {
        if !answer.reply.siaddr.is_unspecified() {
            self.field("next server (siaddr)", answer.reply.siaddr.to_string());
        }
        if !answer.reply.file.is_empty() {
            self.field("boot file (file)", answer.reply.file.clone());
        }
        let to_come = self.trust_to_come;
        let all = answer.reply.options.iter();
        let fields: Vec<Field> =
            all.flat_map(|(code, value)| words::option(*code, value, to_come)).collect();
        if let Some(step) = self.steps.last_mut() {
            step.fields.extend(fields);
        }
    }

    /// Why an iPXE that is there already is handed ours.
    fn why_loader_again(&mut self, next: &Next) {
        if !matches!(next, Next::Loader { .. }) {
            return;
        }
        let speaks_https =
            self.explain.ipxe.as_ref().is_some_and(|words| words.iter().any(|w| w == "https"));
        self.say(match (self.config.tls.enabled, speaks_https) {
            (true, true) => {
                "This iPXE speaks HTTPS, but it started before we could tell it which root to \
                 trust, so it is handed ours."
            }
            (true, false) => "This iPXE speaks no HTTPS, so it is handed ours.",
            (false, _) => "This iPXE speaks no HTTP, so it is handed ours.",
        });
    }

    /// Beside a proxy's offer without option 43 EDK2 asks the boot server that it names.
    fn boot_server(&mut self, client: &Request) {
        let firmware = self.explain.arch;
        if self.config.dhcp.mode != Mode::Proxy
            || (firmware.family, firmware.transport) != (Family::Uefi, Transport::Pxe)
        {
            return;
        }
        self.step("The firmware asks our port 4011, once it has its address");
        let request = Request {
            kind: Kind::Request,
            ciaddr: SITE_ADDRESS,
            giaddr: Ipv4Addr::UNSPECIFIED,
            ..client.clone()
        };
        match self.ask(&request, Port::Pxe).result {
            Ok(answer) => {
                self.say(format!("{} with the same boot file.", answer.reply.kind.word()));
                self.header_and_options(&answer);
            }
            Err(why) => self.say(format!("No answer ({}): {why}.", why.name())),
        }
    }

    fn machine(&self) -> Option<&Machine> {
        machine::find(&self.config.machines, &self.dhcp_facts())
    }

    fn loader(&mut self, file: &str, name: &str, again: bool) {
        let (config, firmware) = (self.config.clone(), self.explain.arch);
        let who = if again { "iPXE" } else { "The firmware" };
        self.step(match name.starts_with("http") {
            true => format!("{who} fetches {name} by HTTP"),
            false => format!("{who} fetches {name} from {} by TFTP", self.server.addr()),
        });
        let own = self.machine().filter(|m| m.loader.is_some());
        let by_arch = config.ipxe.loaders.iter().any(|(arch, _)| *arch == firmware.arch);
        self.say(match (own, by_arch) {
            (Some(m), _) => format!(
                "{file} is the loader of [[machine]] {} at {}.",
                m.name,
                config.place(&format!("machine/{}/loader", m.name))
            ),
            (None, true) => format!(
                "[ipxe.loaders] names {file} for {} at {}.",
                firmware.arch,
                config.place(&format!("loader/{}", firmware.arch))
            ),
            (None, false) => {
                format!("{file} is the loader of {} in the firmware table.", firmware.arch)
            }
        });
        match ipxe::get(&config.ipxe, file) {
            Ok(loader) => {
                let from = match (&loader.bytes, &config.ipxe.dir) {
                    (ipxe::Bytes::Read(_), Some(dir)) => dir.display().to_string(),
                    _ => {
                        format!("built in, iPXE {}", ipxe::VERSION.split(' ').next().unwrap_or(""))
                    }
                };
                self.field("size", format!("{} KiB", loader.bytes.len().div_ceil(1024)));
                self.field("from", from);
            }
            Err(why) => self.say(format!("{why}.")),
        }
    }

    /// What ends iPXE's wait for an IPv6 router, after its own DHCP.
    fn advertisement(&mut self) {
        let title = "iPXE asks for an IPv6 router";
        if self.config.dhcp.mode == Mode::Off || self.steps.iter().any(|s| s.title == title) {
            return;
        }
        self.step(title);
        self.say(match (self.config.dhcp.router_advertisement, self.explain.via) {
            (false, _) => {
                "[dhcp] router-advertisement = false: no answer of ours. Without an IPv6 router \
                 there it waits 4 to 16 s."
            }
            (true, Some(_)) => {
                "No answer of ours: an advertisement passes no relay. Without an IPv6 router on \
                 its network it waits 4 to 16 s."
            }
            (true, None) => {
                "An empty router advertisement (lifetime 0: \"not a router\"), so that it does not \
                 wait 4 to 16 s; not where a router speaks. [dhcp] router-advertisement = false \
                 switches it off."
            }
        });
    }

    fn entry(&mut self, title: String) {
        self.step(title);
        let base = self.config.base(self.server.addr());
        let script = format!("{base}/boot/{}.ipxe", self.mac.hexhyp());
        self.field("goes on to", script);
        self.say(
            "A few lines that try again until we answer, and send along what the machine knows of \
             itself: UUID, serial, maker, product, architecture.",
        );
    }

    /// How a loader of UEFI goes on from the script beside it; `file` is its name, and `first` where
    /// the firmware itself has fetched it.
    fn beside(&mut self, file: &str, first: bool) {
        let by_http = first && self.explain.arch.transport == Transport::Http;
        if !by_http || !self.config.tls.has_root() {
            return self.say(
                "It asks beside its loader before anything else, so it boots on the firmware's \
                 address, without a DHCP of its own.",
            );
        }
        if self.config.dhcp.mode == Mode::Off {
            return self.say(
                "HTTP boot hands on nothing of its DHCP, so this loader knows no CA of ours, and with \
                 [dhcp] mode = \"off\" we cannot tell it: HTTPS fails. By PXE it is told.",
            );
        }
        let again = self.config.plain_base(self.server.addr());
        self.say(
            "HTTP boot hands on nothing of its DHCP, so this loader knows no CA of ours: it asks by \
             DHCP itself, which tells of it, and starts a loader again, which reads that. The second \
             one asks beside itself for the same lines.",
        );
        self.field("second loader", format!("{again}/loader/again/{file}"));
    }

    fn script(&mut self) {
        let facts = self.facts(self.address.or(Some(SITE_ADDRESS)));
        let urls = Urls {
            base: self.config.base(self.server.addr()),
            http: self.config.plain_base(self.server.addr()),
            ca: render::ca_to_come(&self.config),
            address: self.server.addr().to_string(),
            token: TOKEN.into(),
        };
        self.step("iPXE gets the machine's script");
        let uefi = facts.is_uefi();
        let ask = Ask { choose: self.explain.profile.clone(), ..Ask::default() };
        let seen = facts.clone();
        let theirs = (self.config.clone(), facts, urls.clone());
        let job = move || http::make(&Library::default(), &theirs.0, &theirs.1, &ask, &theirs.2);
        let Some(made) = app::within(app::RENDER_TIME, job) else {
            self.say(format!(
                "The templates of its profile take more than {} s: the machine is told so on its \
                 screen, and waits.",
                app::RENDER_TIME.as_secs()
            ));
            return;
        };
        let config = self.config.clone();
        let profile = made.profile.as_deref().and_then(|name| config.profile(name));
        match (&made.why, profile) {
            (Some(why), _) => self.say(format!("Decided: {} ({}: {why}).", made.said, why.name())),
            (None, Some(profile)) => self.say(words::life(&config.life, profile)),
            (None, None) => self.say(format!("Decided: {}.", made.said)),
        }
        if let Some(profile) = profile {
            self.say(format!("Profile {} is declared at {}.", profile.name, profile.at));
            let boot = profile.boot(uefi);
            if let Some(source) = boot.kernel() {
                self.field("kernel", urls.source(source));
            }
            for initrd in &boot.initrds {
                self.field("initrd", urls.source(&initrd.source));
            }
            for name in mirrors(profile) {
                self.field(&format!("mirror {name}"), urls.mirror(name));
            }
            let scene = render::Scene::new(&config, None, profile, &seen, &urls);
            for answer in &profile.answers {
                let url = urls.answer_of(profile, &answer.name);
                let said = match scene.carried(answer) {
                    Some(path) => format!("{url}, which iPXE puts into the initrd: {path}"),
                    None => url,
                };
                self.field(&format!("answer {}", answer.name), said);
            }
            self.field("report", of_report(&urls.report()));
            self.say(format!(
                "{TOKEN} stands for the 32 random digits of each boot. Answers are not shown here."
            ));
        }
        if let Some(step) = self.steps.last_mut() {
            step.script = Some(of_report(&made.script));
        }
    }
}

const TOKEN: &str = "TOKEN";

/// The word in the address of the report is made of the token; one that was made of [`TOKEN`] would
/// look like a real one.
fn of_report(text: &str) -> String {
    text.replace(&crate::model::token::report(TOKEN), "REPORT")
}

/// TEST-NET-1 (RFC 5737): an address of the site's DHCP server, which we do not know.
const SITE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// The mirrors that a profile's kernel and initrds come from, each once.
fn mirrors(profile: &Profile) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for source in profile.sources() {
        if let Source::Mirror { mirror, .. } = source
            && !names.contains(&mirror.as_str())
        {
            names.push(mirror);
        }
    }
    names
}

/// The address of ours, and why that one.
fn ours(explain: &Explain, config: &Config) -> (Ipv4Net, &'static str) {
    if let Some(named) = explain.server {
        return (named, "--server says so");
    }
    let here = (!config.interfaces.is_empty())
        .then(|| app::interfaces(&config.interfaces).ok())
        .flatten()
        .and_then(|found| found.first().and_then(|i| i.addresses.first().copied()));
    if let Some(address) = here {
        return (address, "the interface has it");
    }
    const EXAMPLE: &str = "an example, --server names another";
    let home = config.dhcp.subnets.first().filter(|_| config.dhcp.mode == Mode::Full);
    let of_home = home.and_then(|s| {
        let address = s.network.hosts().find(|a| !s.router.contains(a))?;
        Ipv4Net::new(address, s.network.prefix_len()).ok()
    });
    (of_home.unwrap_or(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 1), 24)), EXAMPLE)
}

/// What would be handed over as trust, and whether it is a stand-in: before the first start there
/// is no root, and who cannot read the keys' folder does not see it.
fn trust(config: &Config) -> (Vec<u8>, bool) {
    if !config.tls.enabled {
        return (Vec::new(), false);
    }
    let known = tls::check(&config.tls, &config.state_dir, &[], SystemTime::now());
    match known {
        Ok(roots) if !roots.is_empty() || config.tls.own.is_some() => (roots.concat(), false),
        _ => (vec![0; 64], true),
    }
}

/// iPXE's numbers in option 175 for the words of the command line.
fn features(words: &[String]) -> Vec<u8> {
    let mut all = vec![];
    if !words.is_empty() {
        all.push(feature::HTTP);
    }
    if words.iter().any(|w| w == "https") {
        all.push(feature::HTTPS);
    }
    all
}
