//! DHCP options, and what a profile means for a machine, as a person reads them.

use std::net::Ipv4Addr;

use humantime::format_duration;

use super::show::Field;
use crate::app::count;
use crate::config::Life;
use crate::dhcp::wire::{code, ipxe};
use crate::model::Profile;
use crate::model::profile::Kind;

/// What becomes of a machine that is given this profile.
pub fn life(life: &Life, profile: &Profile) -> String {
    let name = &profile.name;
    match profile.kind {
        Kind::Live => format!("Decided: boots profile {name}, at each start."),
        Kind::Install => {
            let attempts = u64::from(profile.attempts.unwrap_or(life.attempts));
            format!(
                "Decided: installs profile {name} once, and boots its own disk as soon as that \
                 has reported. Without a report after {} an attempt has failed; after {} it is \
                 held, with {}.",
                format_duration(profile.timeout.unwrap_or(life.timeout)),
                count(attempts, "failed attempt"),
                match &life.rescue {
                    Some(rescue) if life.held_rescue => format!("the profile {rescue}"),
                    _ => "a message on its screen".into(),
                }
            )
        }
    }
}

/// An option by name; iPXE's own by what is in it. `trust_to_come`: the fingerprints are a stand-in.
pub fn option(number: u8, value: &[u8], trust_to_come: bool) -> Vec<Field> {
    let field =
        |name: &str, value: String| Field { option: Some(number), name: name.into(), value };
    match number {
        code::IPXE => ipxe_options(value, trust_to_come)
            .into_iter()
            .map(|(name, value)| field(name, value))
            .collect(),
        code::VENDOR if value.starts_with(&[6, 1, 8]) => {
            vec![field("PXE discovery", "none: take the file named here".into())]
        }
        _ => vec![field(name(number), shown(number, value))],
    }
}

fn name(number: u8) -> &'static str {
    match number {
        code::SUBNET_MASK => "subnet mask",
        code::ROUTER => "router",
        code::DNS => "DNS",
        code::HOSTNAME => "host name",
        code::DOMAIN => "domain",
        code::MTU => "MTU",
        code::BROADCAST => "broadcast",
        code::NTP => "NTP",
        code::LEASE_TIME => "lease time",
        code::SERVER_ID => "server identifier",
        code::T1 => "renewal after",
        code::T2 => "rebinding after",
        code::VENDOR_CLASS => "vendor class",
        code::CLIENT_ID => "client identifier",
        code::BOOTFILE => "boot file",
        code::UUID => "machine's UUID",
        code::VENDOR => "vendor options",
        // Whatever else [[subnet.option]] sets.
        _ => "option",
    }
}

fn shown(number: u8, value: &[u8]) -> String {
    let four = <[u8; 4]>::try_from(value).ok();
    match (number, four) {
        (code::LEASE_TIME | code::T1 | code::T2, Some(n)) => {
            let time = std::time::Duration::from_secs(u32::from_be_bytes(n).into());
            return humantime::format_duration(time).to_string();
        }
        (code::MTU, _) if value.len() == 2 => {
            return u16::from_be_bytes([value[0], value[1]]).to_string();
        }
        (
            code::SUBNET_MASK
            | code::ROUTER
            | code::DNS
            | code::BROADCAST
            | code::NTP
            | code::SERVER_ID,
            _,
        ) if value.len().is_multiple_of(4) => return addresses(value),
        _ => {}
    }
    let text = value.strip_suffix(&[0]).unwrap_or(value);
    match !text.is_empty() && text.iter().all(|b| (0x20..0x7f).contains(b)) {
        true => String::from_utf8_lossy(text).into_owned(),
        false => hex(value, " "),
    }
}

fn addresses(value: &[u8]) -> String {
    let all = value.chunks_exact(4).map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3]).to_string());
    all.collect::<Vec<_>>().join(", ")
}

fn hex(value: &[u8], between: &str) -> String {
    value.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(between)
}

fn ipxe_options(mut value: &[u8], trust_to_come: bool) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    while let [number, length, rest @ ..] = value {
        let (inside, next) = rest.split_at(rest.len().min(usize::from(*length)));
        value = next;
        match *number {
            ipxe::TRUST if trust_to_come => {
                found.push(("iPXE trust", "the roots that the first start makes".into()));
            }
            ipxe::TRUST => {
                let roots = inside
                    .chunks(32)
                    .map(|r| format!("SHA-256 {}…", hex(&r[..r.len().min(12)], "")));
                found.extend(roots.map(|r| ("iPXE trust", r)));
            }
            ipxe::NO_PXEDHCP => {
                found.push(("iPXE no-pxedhcp", "1: no wait for proxy offers".into()));
            }
            n => found.push(("iPXE setting", format!("{n}: {}", hex(inside, " ")))),
        }
    }
    found
}
