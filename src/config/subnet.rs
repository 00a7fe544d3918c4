//! `[[subnet]]` and `[[subnet.option]]`: a subnet's numbers, and how they agree with each other.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::Subnet;
use super::walk::{LIST_LIMIT, Spot, Table, Val, Walk, quoted};
use super::words;

/// What a client that asks for no time gets where nothing else is said.
const LEASE: Duration = Duration::from_secs(3600);
/// The most that a client can ask for where nothing else is said.
const MAX_LEASE: Duration = Duration::from_secs(24 * 3600);
/// A shorter lease is renewed all the time.
const LEAST_LEASE: Duration = Duration::from_secs(60);
/// A year, as humantime has it.
const MOST_LEASE: Duration = Duration::from_secs(31_557_600);
/// RFC 2132 section 5.1 allows 68, but a DHCP client must take a message of 576 bytes
/// (RFC 2131 section 2), so with less ours would not reach it.
const MTU: RangeInclusive<i64> = 576..=65535;
/// Bytes of an option's value; above 255 it is split as RFC 3396 tells.
const OPTION_LIMIT: usize = 1024;
/// Addresses that RFC 2132's lists hold: 4 bytes each, in 255.
const ADDRESS_LIMIT: usize = 63;

const IP_HINT: &str = "write four numbers with dots, like 10.0.0.1";

/// A subnet with the place of its `network`, for what only all of them together tell.
pub fn subnet(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Val<Subnet>> {
    t.missing(w, "network", "write network = \"10.0.0.0/24\"");
    let network = t.text(w, "network").and_then(|v| network(w, v));
    let ranges = ranges(w, t, network.map(|n| n.value));
    let broadcast = addresses(w, t, "broadcast", 1);
    let router = addresses(w, t, "router", ADDRESS_LIMIT);
    let dns = addresses(w, t, "dns", ADDRESS_LIMIT);
    let ntp = addresses(w, t, "ntp", ADDRESS_LIMIT);
    let domain = t.text(w, "domain").and_then(|v| w.check(v, |s| words::host("domain", s)));
    let mtu = t.whole(w, "mtu", MTU);
    let (lease_time, max_lease_time) = lease_times(w, t);
    let options = options(w, t);
    let network = network?;
    let of = |all: &[Val<Ipv4Addr>]| all.iter().map(|v| v.value).collect::<Vec<_>>();
    let subnet = Subnet {
        network: network.value,
        ranges: ranges.iter().map(|r| r.value.clone()).collect(),
        router: of(&router),
        dns: of(&dns),
        domain: domain.map(|d| d.value.to_string()),
        broadcast: broadcast.first().map_or(network.value.broadcast(), |b| b.value),
        ntp: of(&ntp),
        mtu: mtu.map(|m| m.value),
        lease_time,
        max_lease_time,
        options,
    };
    agree(w, &subnet, &ranges, &broadcast, &router);
    Some(Val { value: subnet, at: network.at })
}

fn network(w: &mut Walk<'_>, v: Val<&str>) -> Option<Val<Ipv4Net>> {
    let Ok(net) = v.value.parse::<Ipv4Net>() else {
        let message = format!("{} is no IPv4 network", quoted(v.value));
        w.err(v.at, message, "write its first address and its bits, like 10.0.0.0/24");
        return None;
    };
    let first = net.network();
    if net.addr() != first {
        let message = format!("{} is an address in a network", quoted(v.value));
        w.err(v.at, message, format!("the network is {}", net.trunc()));
        return None;
    }
    if !(8..=30).contains(&net.prefix_len()) {
        let message = format!("{} has {} bits", quoted(v.value), net.prefix_len());
        w.err(v.at, message, "a network of machines has 8 to 30");
        return None;
    }
    if first.is_multicast() || first.is_loopback() || matches!(first.octets()[0], 0 | 240..) {
        let message = format!("machines have no addresses in {}", quoted(v.value));
        w.err(v.at, message, "private ones are in 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16");
        return None;
    }
    Some(Val { value: net, at: v.at })
}

/// An IPv4 address that a machine or a server can have.
pub fn address(w: &mut Walk<'_>, v: Val<&str>) -> Option<Val<Ipv4Addr>> {
    w.check(v, |s| {
        s.parse().map_err(|_| (format!("{} is no IPv4 address", quoted(s)), IP_HINT.to_string()))
    })
}

fn addresses(w: &mut Walk<'_>, t: &Table<'_>, key: &str, limit: usize) -> Vec<Val<Ipv4Addr>> {
    let all = t.texts(w, key);
    if let Some(extra) = all.get(limit) {
        w.err(extra.at, format!("`{key}` has too many addresses"), format!("the most is {limit}"));
    }
    all.into_iter().filter_map(|v| address(w, v)).collect()
}

type Range = RangeInclusive<Ipv4Addr>;

fn ranges(w: &mut Walk<'_>, t: &Table<'_>, network: Option<Ipv4Net>) -> Vec<Val<Range>> {
    let mut found: Vec<Val<Range>> = Vec::new();
    for v in t.texts(w, "range") {
        let Some(range) = w.check(v, range) else { continue };
        let (first, last) = (range.value.start(), range.value.end());
        if let Some(net) = network
            && !(net.contains(first) && net.contains(last))
        {
            let inside = format!("{} to {}", net.network(), net.broadcast());
            let message = format!("the range {} is not in {net}", quoted(v.value));
            w.err(v.at, message, format!("that goes from {inside}"));
            continue;
        }
        match found.iter().find(|r| r.value.start() <= last && first <= r.value.end()) {
            Some(other) => {
                let message = format!("the range {} overlaps another", quoted(v.value));
                w.clash(v.at, other.at, message, "every address is in one range");
            }
            None => found.push(range),
        }
    }
    found
}

fn range(text: &str) -> Result<Range, words::Wrong> {
    let ends = text.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse().ok()?, last.trim().parse::<Ipv4Addr>().ok()?))
    });
    match ends {
        Some((first, last)) if first <= last => Ok(first..=last),
        Some((first, last)) => Err((
            format!("the range {} runs backwards", quoted(text)),
            format!("write \"{last}-{first}\""),
        )),
        None => Err((
            format!("{} is no range", quoted(text)),
            "write its first and its last address, like \"10.0.0.100-10.0.0.200\"".into(),
        )),
    }
}

fn lease_times(w: &mut Walk<'_>, t: &Table<'_>) -> (Duration, Duration) {
    let lease = t.time(w, "lease-time", LEAST_LEASE..=MOST_LEASE);
    let max = t.time(w, "max-lease-time", LEAST_LEASE..=MOST_LEASE);
    let time = lease.map_or(max.map_or(LEASE, |m| m.value.min(LEASE)), |l| l.value);
    if let (Some(lease), Some(max)) = (lease, max)
        && max.value < lease.value
    {
        let message = "`max-lease-time` is less than `lease-time`";
        w.clash(max.at, lease.at, message, "the most cannot be less than what all get");
    }
    (time, max.map_or(MAX_LEASE.max(time), |m| m.value))
}

/// What the values of one subnet say about each other.
fn agree(
    w: &mut Walk<'_>,
    s: &Subnet,
    ranges: &[Val<Range>],
    broadcast: &[Val<Ipv4Addr>],
    router: &[Val<Ipv4Addr>],
) {
    let net = s.network;
    if let Some(b) = broadcast.first()
        && !net.contains(&b.value)
        && b.value != Ipv4Addr::BROADCAST
    {
        let message = format!("the broadcast address {} is not in {net}", b.value);
        w.err(b.at, message, format!("leave it out for {}", net.broadcast()));
    }
    for range in ranges {
        let ends = [("network's own", net.network()), ("broadcast", net.broadcast())];
        let all = ends.into_iter().chain([("broadcast", s.broadcast)]);
        if let Some((what, taken)) = { all }.find(|(_, a)| range.value.contains(a)) {
            let message = format!("the range holds the {what} address {taken}");
            w.err(range.at, message, "no machine can have it");
        }
    }
    for r in router {
        if !net.contains(&r.value) {
            let message = format!("the router {} is not in {net}", r.value);
            w.note(r.at, message, "machines reach a router only in their own network");
        } else if let Some(range) = ranges.iter().find(|range| range.value.contains(&r.value)) {
            let message = format!("the range holds the router {}", r.value);
            w.note(range.at, message, "leave it out of the range, lest a machine is given it");
        }
    }
}

/// The value keys of a `[[subnet.option]]`.
const KINDS: &[&str] = &["string", "ip", "u8", "u16", "u32", "bool", "hex"];

fn options(w: &mut Walk<'_>, t: &Table<'_>) -> Vec<(u8, Vec<u8>)> {
    let mut seen: Vec<Val<u8>> = Vec::new();
    let mut found = Vec::new();
    let tables = t.tables(w, "option", "[[subnet.option]]");
    if let Some(extra) = tables.get(LIST_LIMIT) {
        let hint = format!("there is room for {LIST_LIMIT}");
        w.err(extra.at, "this [[subnet]] has too many options", hint);
    }
    for t in tables.iter().take(LIST_LIMIT) {
        t.missing(w, "code", "write the number of the option, like code = 66");
        let code = t.whole::<u8>(w, "code", 0..=255);
        let value = option_value(w, t);
        let Some(code) = code else { continue };
        if let Some((why, hint)) = ours(code.value) {
            w.err(code.at, format!("option {} is {why}", code.value), hint);
            continue;
        }
        if let Some(first) = seen.iter().find(|c| c.value == code.value) {
            let message = format!("option {} is given twice", code.value);
            w.clash(code.at, first.at, message, "leave one of them out");
        }
        seen.push(code);
        found.extend(value.map(|value| (code.value, value)));
    }
    found
}

/// The one value of an option, as bytes on the wire.
fn option_value(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Vec<u8>> {
    let given: Vec<&str> = KINDS.iter().copied().filter(|k| t.has(k)).collect();
    let [kind] = given[..] else {
        let message = match given.len() {
            0 => "this option has no value".to_string(),
            _ => format!("this option has more than one value: {}", given.join(", ")),
        };
        w.err(t.at, message, format!("give it one of {}", KINDS.join(", ")));
        return None;
    };
    let (at, bytes): (Spot, Vec<u8>) = match kind {
        "string" => t.text(w, kind).map(|v| (v.at, v.value.as_bytes().to_vec()))?,
        "hex" => {
            let v = t.text(w, kind)?;
            let bytes = w.check(v, hex)?;
            (v.at, bytes.value)
        }
        "ip" => {
            let all = addresses(w, t, kind, LIST_LIMIT);
            (t.at, all.iter().flat_map(|a| a.value.octets()).collect())
        }
        "bool" => t.flag(w, kind).map(|v| (v.at, vec![v.value.into()]))?,
        "u8" => t.whole::<u8>(w, kind, 0..=0xff).map(|v| (v.at, vec![v.value]))?,
        "u16" => {
            t.whole::<u16>(w, kind, 0..=0xffff).map(|v| (v.at, v.value.to_be_bytes().into()))?
        }
        _ => t
            .whole::<u32>(w, kind, 0..=0xffff_ffff)
            .map(|v| (v.at, v.value.to_be_bytes().into()))?,
    };
    if !(1..=OPTION_LIMIT).contains(&bytes.len()) {
        let message = format!("this option has {} bytes", bytes.len());
        w.err(at, message, format!("a value has 1 to {OPTION_LIMIT}"));
        return None;
    }
    Some(bytes)
}

/// Pairs of hex digits; colons and spaces between them are for the reader.
fn hex(text: &str) -> Result<Vec<u8>, words::Wrong> {
    let wrong = || {
        (format!("{} is no hex", quoted(text)), "write pairs of hex digits, like \"0a0b\"".into())
    };
    let nibbles: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let nibbles = nibbles.filter(|n| n.len().is_multiple_of(2)).ok_or_else(wrong)?;
    Ok(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Why an option is not for the configuration to set by number, and what is.
///
/// 66, the TFTP server's name, is not among them: machines that we boot take `siaddr`, and phones
/// want it.
fn ours(code: u8) -> Option<(&'static str, &'static str)> {
    let own = |key| ("set by a key of its own", key);
    let asked = ("what a client says, not what it is told", "leave it out");
    let protocol = ("DHCP's own and set as the protocol wants it", "leave it out");
    Some(match code {
        0 | 255 => ("no option but a mark of the format (RFC 2132 section 3)", "leave it out"),
        1 => ("the subnet mask, which follows from `network`", "leave it out"),
        3 => own("write router = \"…\""),
        6 => own("write dns = [\"…\"]"),
        12 => own("write hostname = \"…\" in the [[machine]]"),
        15 => own("write domain = \"…\""),
        26 => own("write mtu = …"),
        28 => own("write broadcast = \"…\""),
        42 => own("write ntp = [\"…\"]"),
        51 => own("write lease-time = \"…\""),
        58 | 59 => ("a time that follows from the lease's", "write lease-time = \"…\""),
        43 | 60 => ("what tells PXE firmware where to boot from, and ours to set", "leave it out"),
        52..=54 | 56 => protocol,
        50 | 55 | 57 | 61 | 77 | 81 | 93 | 94 | 97 | 118 => asked,
        67 => (
            "the loader's name, and ours to set",
            "write loader = \"…\" in a [[machine]], or [ipxe.loaders]",
        ),
        80 | 90 => ("a part of DHCP that is not spoken here", "leave it out"),
        82 => ("what a relay says, and is echoed to it (RFC 3046)", "leave it out"),
        175 => ("iPXE's own, and ours to set", "leave it out"),
        _ => return None,
    })
}

/// Subnets are disjoint: an address is in one of them.
pub fn refuse_overlaps(w: &mut Walk<'_>, subnets: &[Val<Subnet>]) {
    let mut sorted: Vec<&Val<Subnet>> = subnets.iter().collect();
    sorted.sort_by_key(|s| (s.value.network.network(), s.value.network.prefix_len()));
    // Networks are apart or nested, so what overlaps an earlier one is within the widest open one.
    let mut open: Option<&Val<Subnet>> = None;
    for s in sorted {
        match open {
            Some(o) if o.value.network.contains(&s.value.network) => {
                let message = format!("{} overlaps {}", s.value.network, o.value.network);
                w.clash(
                    s.at.max(o.at),
                    s.at.min(o.at),
                    message,
                    "an address belongs to one [[subnet]]",
                );
            }
            _ => open = Some(s),
        }
    }
}
