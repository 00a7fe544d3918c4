//! `pilotlight explain`: the decisions themselves, asked for a machine that is only named.

use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ConfigFile;
use crate::app;
use crate::boot::{Ask, Urls};
use crate::config::{Config, Mode};
use crate::dhcp::decide::{self, Here, Next, Port};
use crate::dhcp::lease::Leases;
use crate::dhcp::wire::{Class, Kind, Request};
use crate::http;
use crate::ipxe::{self, Https};
use crate::ledger::Handed;
use crate::model::{Facts, Family, Firmware, Mac, Transport, Why};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight explain 52:54:00:12:34:56 --arch bios
  pilotlight explain 52:54:00:12:34:56 --arch uefi-x64-http --config pilotlight.toml
  pilotlight explain 52:54:00:12:34:56 --arch bios --ipxe http
      The card's ROM is an iPXE that speaks HTTP and no HTTPS.
  pilotlight explain 52:54:00:12:34:56 --arch uefi-x64 --via 10.7.0.1
      Its request comes by the relay 10.7.0.1.")]
pub struct Explain {
    /// The machine
    mac: Mac,
    /// Its firmware: bios, uefi-x64, uefi-arm64, uefi-x64-http, …
    #[arg(long, default_value = "uefi-x64", value_parser = firmware)]
    arch: &'static Firmware,
    /// Its firmware is an iPXE, and this is what it speaks: http, https
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    ipxe: Option<Vec<String>>,
    /// The relay that its requests come by
    #[arg(long, value_name = "ADDRESS")]
    via: Option<Ipv4Addr>,
    /// The address of ours that it reaches; the first of the interface where it is not given
    #[arg(long, value_name = "ADDRESS/LENGTH", default_value = "192.0.2.1/24")]
    server: Ipv4Net,
    /// What else is known of it, for machines that match by it
    #[arg(long)]
    uuid: Option<String>,
    #[arg(long)]
    serial: Option<String>,
    #[arg(long)]
    vendor: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

fn firmware(name: &str) -> Result<&'static Firmware, String> {
    Firmware::by_name(name).ok_or_else(|| {
        let all: Vec<&str> = crate::model::firmware::TABLE.iter().map(|f| f.name).collect();
        format!("one of {}", all.join(", "))
    })
}

/// One step of the boot.
struct Step {
    title: String,
    lines: Vec<String>,
    script: Option<String>,
}

impl Step {
    fn new(title: impl Into<String>, lines: impl IntoIterator<Item = String>) -> Step {
        Step { title: title.into(), lines: lines.into_iter().collect(), script: None }
    }
}

pub fn run(explain: &Explain) -> anyhow::Result<()> {
    let config = app::configuration(explain.file.config.as_deref())?;
    let server = ours(explain, &config)?;
    let steps = steps(explain, &config, server);
    if explain.json {
        let all: Vec<Value> = steps
            .iter()
            .map(|s| json!({ "step": s.title, "lines": s.lines, "script": s.script }))
            .collect();
        anstream::println!("{}", Value::Array(all));
        return Ok(());
    }
    for (i, step) in steps.iter().enumerate() {
        anstream::println!("{}. {}", i + 1, step.title);
        for line in &step.lines {
            anstream::println!("   {line}");
        }
        for line in step.script.iter().flat_map(|s| s.lines()) {
            anstream::println!("   | {line}");
        }
        anstream::println!("");
    }
    Ok(())
}

/// The address of ours: the one that was named, else the interface's, else an example.
fn ours(explain: &Explain, config: &Config) -> anyhow::Result<Ipv4Net> {
    if config.interfaces.is_empty() || explain.server.addr() != Ipv4Addr::new(192, 0, 2, 1) {
        return Ok(explain.server);
    }
    let found = app::interfaces(&config.interfaces).context("--server names an address instead")?;
    match found.first().and_then(|i| i.addresses.first()) {
        Some(first) => Ok(*first),
        None => bail!("no interface has an address: --server names one instead"),
    }
}

fn steps(explain: &Explain, config: &Config, server: Ipv4Net) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut leases = Leases::default();
    leases.configure(config);
    let mut handed: Option<Handed> = None;
    let own = explain.ipxe.as_ref().map(|words| features(words));
    let mut client = request(explain, own);
    let mut address = None;
    // Firmware, an iPXE of its own, ours: three at the most.
    for _ in 0..3 {
        let (step, answer) = dhcp(explain, config, &mut leases, &client, server, &mut handed);
        steps.push(step);
        let Some(answer) = answer else { return steps };
        address = Some(answer.reply.yiaddr).filter(|a| !a.is_unspecified()).or(address);
        match answer.next {
            Next::Nothing | Next::Refused(_) => return steps,
            Next::Script { url } => {
                steps.push(entry(config, server, format!("iPXE fetches {url}")));
                break;
            }
            Next::Loader { file, name } => {
                steps.push(loader(config, explain.arch, &file, &name));
                let speaks = match ipxe::https() {
                    Https::No => "http",
                    Https::RsaOnly | Https::Yes => "https",
                };
                if explain.arch.family == Family::Uefi {
                    // iPXE 2.0.0 on UEFI runs the script beside its loader before any DHCP.
                    let by = match explain.arch.transport {
                        Transport::Pxe => "TFTP",
                        Transport::Http => "HTTP",
                    };
                    steps.push(entry(
                        config,
                        server,
                        format!(
                            "iPXE asks for autoexec.ipxe by {by}, beside its loader: no second DHCP"
                        ),
                    ));
                    break;
                }
                client = request(explain, Some(features(&[speaks.into()])));
            }
        }
    }
    if config.dhcp.router_advertisement
        && (explain.ipxe.is_some() || explain.arch.family == Family::Bios)
    {
        steps.push(Step::new(
            "iPXE asks for an IPv6 router",
            ["answered with an empty router advertisement (lifetime 0: \"not a router\"), so that it does not wait 4 to 16 s; not where a router speaks; [dhcp] router-advertisement = false switches it off".into()],
        ));
    }
    steps.extend(script(explain, config, server, address));
    steps
}

/// iPXE's numbers in option 175 for the words of the command line.
fn features(words: &[String]) -> Vec<u8> {
    use crate::dhcp::wire::ipxe::{HTTP, HTTPS};
    let mut all: Vec<u8> = Vec::new();
    for word in words {
        match word.as_str() {
            "http" => all.push(HTTP),
            "https" => all.extend([HTTP, HTTPS]),
            _ => {}
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn request(explain: &Explain, ipxe: Option<Vec<u8>>) -> Request {
    let unset = Ipv4Addr::UNSPECIFIED;
    Request {
        kind: Kind::Discover,
        mac: explain.mac,
        xid: 1,
        secs: 0,
        flags: 0x8000,
        ciaddr: unset,
        giaddr: explain.via.unwrap_or(unset),
        server_id: None,
        requested: None,
        lease_time: None,
        client_id: None,
        hostname: None,
        parameters: Vec::new(),
        max_size: None,
        class: match explain.arch.transport {
            Transport::Pxe => Class::Pxe,
            Transport::Http if ipxe.is_none() => Class::Http,
            Transport::Http => Class::Pxe,
        },
        arch: Some(explain.arch.code),
        uuid: None,
        ipxe,
        relay: None,
        link: None,
        server_override: None,
    }
}

fn known(explain: &Explain, address: Option<Ipv4Addr>) -> Facts {
    Facts {
        uuid: explain.uuid.clone(),
        serial: explain.serial.clone(),
        manufacturer: explain.vendor.clone(),
        arch: Some(explain.arch.arch),
        ip: address,
        ..Facts::of(explain.mac)
    }
}

fn dhcp(
    explain: &Explain,
    config: &Config,
    leases: &mut Leases,
    client: &Request,
    server: Ipv4Net,
    handed: &mut Option<Handed>,
) -> (Step, Option<decide::Answer>) {
    let known = known(explain, None);
    let here = Here {
        interface: config.interfaces.first().map_or("the interface", String::as_str),
        addresses: &[server],
        to: None,
        port: Port::Server,
        trust: if config.tls.enabled { &[0; 32] } else { &[] },
        has_loader: &|name| ipxe::get(&config.ipxe, name).is_ok(),
        handed: handed.as_ref(),
        known: Some(&known),
        now: Timestamp::now(),
    };
    let who = match &client.ipxe {
        Some(_) => "iPXE",
        None => "the firmware",
    };
    let title = format!("{who} sends DHCPDISCOVER ({})", explain.arch);
    let outcome = decide::decide(config, leases, client, &here);
    let answer = match outcome.result {
        Ok(answer) => *answer,
        Err(why) => return (Step::new(title, [format!("no answer, {}: {why}", why.name())]), None),
    };
    // A DISCOVER is not settled yet in full mode; the REQUEST that follows it is.
    if let Next::Loader { .. } = answer.next {
        *handed = Some(Handed { at: here.now, features: client.ipxe.clone(), times: 1 });
    }
    let mut lines = vec![match config.dhcp.mode {
        Mode::Full => format!("address {}", answer.reply.yiaddr),
        Mode::Proxy | Mode::Off => "no address: the site's DHCP server gives that".into(),
    }];
    lines.extend(answer.reply.options.iter().map(|(code, value)| option(*code, value)));
    if let Next::Refused(why) = &answer.next {
        lines.push(format!("nothing to boot, {}: {why}", why.name()));
    }
    (Step::new(title, lines), Some(answer))
}

/// An option as a person reads it.
fn option(code: u8, value: &[u8]) -> String {
    use crate::dhcp::wire::code as c;
    let name = match code {
        c::SUBNET_MASK => "subnet mask",
        c::ROUTER => "router",
        c::DNS => "DNS",
        c::HOSTNAME => "host name",
        c::DOMAIN => "domain",
        c::MTU => "MTU",
        c::BROADCAST => "broadcast",
        c::NTP => "NTP",
        c::VENDOR => "PXE: take the file named here",
        c::LEASE_TIME => "lease time (s)",
        c::SERVER_ID => "server identifier",
        c::T1 => "renewal time (s)",
        c::T2 => "rebinding time (s)",
        c::VENDOR_CLASS => "vendor class",
        c::BOOTFILE => "boot file",
        c::IPXE => "iPXE settings",
        _ => "",
    };
    let text = value.strip_suffix(&[0]).unwrap_or(value);
    let printable = !text.is_empty() && text.iter().all(|b| (0x20..0x7f).contains(b));
    let shown = match (code, value.len()) {
        (c::LEASE_TIME | c::T1 | c::T2, 4) => {
            u32::from_be_bytes([value[0], value[1], value[2], value[3]]).to_string()
        }
        (c::MTU, 2) => u16::from_be_bytes([value[0], value[1]]).to_string(),
        (_, n) if n % 4 == 0 && n > 0 && !printable && code < 60 => value
            .chunks_exact(4)
            .map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3]).to_string())
            .collect::<Vec<_>>()
            .join(", "),
        _ if printable => String::from_utf8_lossy(text).into_owned(),
        _ => value.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "),
    };
    format!("option {code:3}  {name}: {shown}")
}

fn loader(config: &Config, firmware: &Firmware, file: &str, name: &str) -> Step {
    let size = match ipxe::get(&config.ipxe, file) {
        Ok(loader) => format!("{file}, {} KiB", loader.bytes.len() / 1024),
        Err(why) => format!("{file}: {why}"),
    };
    let by = match name.starts_with("http") {
        true => format!("the loader by HTTP: {name}"),
        false => format!("the loader by TFTP: {name}"),
    };
    Step::new(
        by,
        [
            size,
            format!("{} is the loader of {} in the firmware table", firmware.loader, firmware.arch),
        ],
    )
}

fn entry(config: &Config, server: Ipv4Net, title: String) -> Step {
    let base = config.base(server.addr());
    Step::new(
        title,
        [format!("it goes on to {base}/boot/MAC.ipxe with what the machine knows of itself")],
    )
}

fn script(
    explain: &Explain,
    config: &Config,
    server: Ipv4Net,
    address: Option<Ipv4Addr>,
) -> Vec<Step> {
    let facts = known(explain, address.or(Some(Ipv4Addr::new(192, 0, 2, 100))));
    let urls = Urls {
        base: config.base(server.addr()),
        http: config.plain_base(server.addr()),
        address: server.addr().to_string(),
        token: "TOKEN-OF-THIS-BOOT".into(),
    };
    let made = http::make(config, &facts, &Ask::default(), &urls);
    let mut step = Step::new(format!("iPXE gets the machine's script: {}", made.said), []);
    step.script = Some(made.script);
    vec![step]
}
