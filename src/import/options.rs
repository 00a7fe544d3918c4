//! The options of DHCP by the names that other servers know them by, and what is written for them.

use std::net::Ipv4Addr;

use super::{Reason, quoted};

/// Names of dhcpd (dhcp-options(5)) and of dnsmasq (`dnsmasq --help dhcp`), and what the option
/// holds (RFC 2132 and the RFCs after it).
const TABLE: &[(u8, &str, &str, Holds)] = &[
    (1, "subnet-mask", "netmask", Holds::Ip),
    (2, "time-offset", "time-offset", Holds::Signed),
    (3, "routers", "router", Holds::Ip),
    (4, "time-servers", "", Holds::Ip),
    (5, "ien116-name-servers", "", Holds::Ip),
    (6, "domain-name-servers", "dns-server", Holds::Ip),
    (7, "log-servers", "log-server", Holds::Ip),
    (8, "cookie-servers", "", Holds::Ip),
    (9, "lpr-servers", "lpr-server", Holds::Ip),
    (10, "impress-servers", "", Holds::Ip),
    (11, "resource-location-servers", "", Holds::Ip),
    (12, "host-name", "hostname", Holds::Text),
    (13, "boot-size", "boot-file-size", Holds::U16),
    (14, "merit-dump", "", Holds::Text),
    (15, "domain-name", "domain-name", Holds::Text),
    (16, "swap-server", "swap-server", Holds::Ip),
    (17, "root-path", "root-path", Holds::Text),
    (18, "extensions-path", "extension-path", Holds::Text),
    (19, "ip-forwarding", "ip-forward-enable", Holds::Flag),
    (20, "non-local-source-routing", "non-local-source-routing", Holds::Flag),
    (21, "policy-filter", "policy-filter", Holds::Ip),
    (22, "max-dgram-reassembly", "max-datagram-reassembly", Holds::U16),
    (23, "default-ip-ttl", "default-ttl", Holds::U8),
    (24, "path-mtu-aging-timeout", "", Holds::U32),
    (26, "interface-mtu", "mtu", Holds::U16),
    (27, "all-subnets-local", "all-subnets-local", Holds::Flag),
    (28, "broadcast-address", "broadcast", Holds::Ip),
    (29, "perform-mask-discovery", "", Holds::Flag),
    (30, "mask-supplier", "", Holds::Flag),
    (31, "router-discovery", "router-discovery", Holds::Flag),
    (32, "router-solicitation-address", "router-solicitation", Holds::Ip),
    (33, "static-routes", "static-route", Holds::Ip),
    (34, "trailer-encapsulation", "trailer-encapsulation", Holds::Flag),
    (35, "arp-cache-timeout", "arp-timeout", Holds::U32),
    (36, "ieee802-3-encapsulation", "ethernet-encap", Holds::Flag),
    (37, "default-tcp-ttl", "tcp-ttl", Holds::U8),
    (38, "tcp-keepalive-interval", "tcp-keepalive", Holds::U32),
    (39, "tcp-keepalive-garbage", "", Holds::Flag),
    (40, "nis-domain", "nis-domain", Holds::Text),
    (41, "nis-servers", "nis-server", Holds::Ip),
    (42, "ntp-servers", "ntp-server", Holds::Ip),
    (43, "vendor-encapsulated-options", "vendor-encap", Holds::Bytes),
    (44, "netbios-name-servers", "netbios-ns", Holds::Ip),
    (45, "netbios-dd-server", "netbios-dd", Holds::Ip),
    (46, "netbios-node-type", "netbios-nodetype", Holds::U8),
    (47, "netbios-scope", "netbios-scope", Holds::Text),
    (48, "font-servers", "x-windows-fs", Holds::Ip),
    (49, "x-display-manager", "x-windows-dm", Holds::Ip),
    (51, "dhcp-lease-time", "lease-time", Holds::Seconds),
    (58, "dhcp-renewal-time", "T1", Holds::U32),
    (59, "dhcp-rebinding-time", "T2", Holds::U32),
    (60, "vendor-class-identifier", "vendor-class", Holds::Text),
    (64, "nisplus-domain", "nis+-domain", Holds::Text),
    (65, "nisplus-servers", "nis+-server", Holds::Ip),
    (66, "tftp-server-name", "tftp-server", Holds::Text),
    (67, "bootfile-name", "bootfile-name", Holds::Text),
    (68, "mobile-ip-home-agent", "mobile-ip-home", Holds::Ip),
    (69, "smtp-server", "smtp-server", Holds::Ip),
    (70, "pop-server", "pop3-server", Holds::Ip),
    (71, "nntp-server", "nntp-server", Holds::Ip),
    (72, "www-server", "", Holds::Ip),
    (73, "finger-server", "", Holds::Ip),
    (74, "irc-server", "irc-server", Holds::Ip),
    (85, "nds-servers", "", Holds::Ip),
    (86, "nds-tree-name", "", Holds::Text),
    (87, "nds-context", "", Holds::Text),
    (88, "bcms-controller-names", "", Holds::Domains),
    (89, "bcms-controller-address", "", Holds::Ip),
    (100, "pcode", "posix-timezone", Holds::Text),
    (101, "tcode", "tzdb-timezone", Holds::Text),
    (108, "v6-only-preferred", "ipv6-only", Holds::U32),
    (114, "default-url", "captive-portal", Holds::Text),
    (119, "domain-search", "domain-search", Holds::Domains),
    (121, "", "classless-static-route", Holds::Routes),
    (138, "capwap-ac-v4", "", Holds::Ip),
    (150, "tftp-server-address", "tftp-server-address", Holds::Ip),
    (209, "loader-configfile", "", Holds::Text),
    (210, "loader-pathprefix", "", Holds::Text),
    (211, "loader-reboottime", "", Holds::U32),
];

/// What an option holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Ip,
    Text,
    Flag,
    U8,
    U16,
    U32,
    Signed,
    /// A whole number of 32 bits that is a length of time.
    Seconds,
    U8s,
    U16s,
    U32s,
    Bytes,
    Domains,
    /// RFC 3442: destinations and routers.
    Routes,
    /// As dnsmasq guesses it from the looks of the value.
    Guess,
}

/// What is written for an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A key of the subnet and its value.
    Key(&'static str, String),
    /// `[[subnet.option]]`: its number, and the line with its value.
    Option(u8, String),
}

/// A word of a value, and whether it stood in quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub quoted: bool,
}

/// An option that dhcpd knows by this name.
pub fn of_dhcpd(name: &str) -> Option<(u8, Holds)> {
    let found = TABLE.iter().find(|(_, n, ..)| *n == name && !n.is_empty());
    found.map(|(code, _, _, holds)| (*code, *holds))
}

/// The same of dnsmasq.
pub fn of_dnsmasq(name: &str) -> Option<(u8, Holds)> {
    let found = TABLE.iter().find(|(_, _, n, _)| n.eq_ignore_ascii_case(name) && !n.is_empty());
    found.map(|(code, _, _, holds)| (*code, *holds))
}

/// What is known of a number.
pub fn by_code(code: u8) -> Holds {
    TABLE.iter().find(|(c, ..)| *c == code).map_or(Holds::Guess, |(_, _, _, holds)| *holds)
}

/// The option as TOML.
///
/// # Errors
/// Its value is not what the option holds.
pub fn told(code: u8, holds: Holds, words: &[Word]) -> Result<Told, Reason> {
    let value = value(holds, words).ok_or(Reason::OptionType)?;
    // The keys of a subnet have values of their own, without `ip =` before them.
    let own = value.split_once(" = ").map(|(_, v)| v.to_string()).unwrap_or_default();
    Ok(match (code, holds) {
        (3, Holds::Ip) => Told::Key("router", own),
        (6, Holds::Ip) => Told::Key("dns", own),
        (15, Holds::Text) => Told::Key("domain", own),
        (26, Holds::U16) => Told::Key("mtu", own),
        (28, Holds::Ip) => Told::Key("broadcast", own),
        (42, Holds::Ip) => Told::Key("ntp", own),
        (51, Holds::Seconds) => Told::Key("lease-time", own),
        _ => Told::Option(code, value),
    })
}

/// `KEY = VALUE` of a `[[subnet.option]]`.
fn value(holds: Holds, words: &[Word]) -> Option<String> {
    let first = words.first()?;
    let one = || (words.len() == 1).then_some(first.text.as_str());
    Some(match holds {
        Holds::Ip => addresses(words)?,
        Holds::Text => match (words, hex_pairs(&first.text)) {
            ([w], Some(hex)) if !w.quoted && w.text.contains(':') => {
                format!("hex = {}", quoted(&hex))
            }
            ([w], _) => format!("string = {}", quoted(&w.text)),
            _ => return None,
        },
        Holds::Flag => match one()? {
            "true" | "on" | "1" => "bool = true".into(),
            "false" | "off" | "0" => "bool = false".into(),
            _ => return None,
        },
        Holds::U8 => format!("u8 = {}", number(one()?)?),
        Holds::U16 => format!("u16 = {}", number(one()?)?),
        Holds::U32 => format!("u32 = {}", number(one()?)?),
        Holds::Seconds => format!("time = {}", quoted(&format!("{}s", number(one()?)?))),
        Holds::Signed => {
            let n: i32 = one()?.parse().ok()?;
            format!("u32 = {}", n.cast_unsigned())
        }
        Holds::U8s => wholes(words, 1)?,
        Holds::U16s => wholes(words, 2)?,
        Holds::U32s => wholes(words, 4)?,
        Holds::Bytes => match hex_pairs(one()?).filter(|_| !first.quoted) {
            Some(hex) => format!("hex = {}", quoted(&hex)),
            None => format!("string = {}", quoted(&first.text)),
        },
        Holds::Domains => domains(words)?,
        Holds::Routes => routes(words)?,
        Holds::Guess => guess(words)?,
    })
}

fn addresses(words: &[Word]) -> Option<String> {
    let all: Option<Vec<String>> = words
        .iter()
        .map(|w| w.text.parse::<Ipv4Addr>().ok().map(|a| quoted(&a.to_string())))
        .collect();
    let all = all?;
    Some(match &all[..] {
        [one] => format!("ip = {one}"),
        _ => format!("ip = [{}]", all.join(", ")),
    })
}

/// dhcpd reads hexadecimal and octal numbers, too.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.starts_with('0') && text.len() > 1 => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn wholes(words: &[Word], size: usize) -> Option<String> {
    let mut bytes = Vec::new();
    for w in words {
        let n = number(&w.text).filter(|n| size == 4 || u64::from(*n) < 1 << (8 * size))?;
        bytes.extend_from_slice(&n.to_be_bytes()[4 - size..]);
    }
    Some(format!("hex = {}", quoted(&hex(&bytes))))
}

/// `1:a:ff`, as both servers write bytes.
fn hex_pairs(text: &str) -> Option<String> {
    let part = |p: &str| u8::from_str_radix(p, 16).ok().filter(|_| (1..=2).contains(&p.len()));
    let bytes: Option<Vec<u8>> = text.split(':').map(part).collect();
    bytes.map(|b| hex(&b))
}

/// RFC 3397 without its compression, which is allowed and not asked for.
fn domains(words: &[Word]) -> Option<String> {
    let mut bytes = Vec::new();
    for w in words.iter().flat_map(|w| w.text.split([',', ' ']).filter(|d| !d.is_empty())) {
        for label in w.trim_end_matches('.').split('.') {
            let length = u8::try_from(label.len()).ok().filter(|l| (1..=63).contains(l))?;
            bytes.push(length);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
    }
    (!bytes.is_empty()).then(|| format!("hex = {}", quoted(&hex(&bytes))))
}

/// RFC 3442: the bits of the destination, as many bytes of it as they need, the router.
fn routes(words: &[Word]) -> Option<String> {
    let mut bytes = Vec::new();
    for pair in words.chunks(2) {
        let [to, by] = pair else { return None };
        let to: ipnet::Ipv4Net = match to.text.contains('/') {
            true => to.text.parse().ok()?,
            false => ipnet::Ipv4Net::new(to.text.parse().ok()?, 32).ok()?,
        };
        bytes.push(to.prefix_len());
        bytes.extend_from_slice(&to.network().octets()[..usize::from(to.prefix_len().div_ceil(8))]);
        bytes.extend_from_slice(&by.text.parse::<Ipv4Addr>().ok()?.octets());
    }
    Some(format!("hex = {}", quoted(&hex(&bytes))))
}

/// What dnsmasq makes of a value whose option it does not know (`parse_dhcp_opt`): addresses,
/// bytes with colons, a number in as few bytes as it needs or as its letter says, or text.
fn guess(words: &[Word]) -> Option<String> {
    let first = words.first()?;
    if let Some(all) = addresses(words) {
        return Some(all);
    }
    let [_] = words else {
        return Some(format!("string = {}", quoted(&joined(words))));
    };
    if let Some(bytes) =
        hex_pairs(&first.text).filter(|_| !first.quoted && first.text.contains(':'))
    {
        return Some(format!("hex = {}", quoted(&bytes)));
    }
    let digits = first.text.trim_end_matches(['b', 's', 'i']);
    let number = digits.parse::<u32>().ok().filter(|_| first.text.len() - digits.len() <= 1);
    Some(match (number.filter(|_| !first.quoted), first.text.chars().last()) {
        (Some(n), Some('b')) => format!("u8 = {n}"),
        (Some(n), Some('s')) => format!("u16 = {n}"),
        (Some(n), Some('i')) => format!("u32 = {n}"),
        (Some(n @ 0..=0xff), _) => format!("u8 = {n}"),
        (Some(n @ 0x100..=0xffff), _) => format!("u16 = {n}"),
        (Some(n), _) => format!("u32 = {n}"),
        (None, _) => format!("string = {}", quoted(&first.text)),
    })
}

fn joined(words: &[Word]) -> String {
    words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Word> {
        let word = |t: &str| Word { text: t.trim_matches('"').into(), quoted: t.starts_with('"') };
        text.split(' ').map(word).collect()
    }

    #[test]
    fn values_are_what_the_option_holds() {
        for (holds, text, want) in [
            (Holds::Ip, "10.0.0.1", Some("ip = \"10.0.0.1\"")),
            (Holds::Ip, "10.0.0.1 10.0.0.2", Some("ip = [\"10.0.0.1\", \"10.0.0.2\"]")),
            (Holds::Ip, "host.example", None),
            (Holds::Text, "\"a b\"", None),
            (Holds::Text, "\"ab\"", Some("string = \"ab\"")),
            (Holds::Text, "0a:b", Some("hex = \"0a0b\"")),
            (Holds::Flag, "on", Some("bool = true")),
            (Holds::Flag, "maybe", None),
            (Holds::Signed, "-3600", Some("u32 = 4294963696")),
            (Holds::U16s, "576 1500", Some("hex = \"024005dc\"")),
            (Holds::U8s, "256", None),
            (Holds::U32, "0x10", Some("u32 = 16")),
            (Holds::Domains, "\"a.example\"", Some("hex = \"01610765 \"")),
            (Holds::Routes, "10.1.0.0/16 10.0.0.1", Some("hex = \"100a010a000001\"")),
            (Holds::Routes, "10.1.0.0/16", None),
            (Holds::Guess, "7", Some("u8 = 7")),
            (Holds::Guess, "7s", Some("u16 = 7")),
            (Holds::Guess, "70000", Some("u32 = 70000")),
            (Holds::Guess, "\"7\"", Some("string = \"7\"")),
            (Holds::Guess, "a:b", Some("hex = \"0a0b\"")),
        ] {
            let want = want.map(|w| w.replace("65 ", "6578616d706c6500"));
            assert_eq!(value(holds, &words(text)), want, "{holds:?} {text}");
        }
    }
}
