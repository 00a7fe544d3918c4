//! What a machine says of itself in the query of a request. Pure.

use std::net::Ipv4Addr;

use percent_encoding::percent_decode_str;

use crate::boot::Ask;
use crate::model::event::plainly;
use crate::model::{Facts, Mac, machine};

/// The longest query that is read; ours has about 500 bytes.
pub const QUERY_LIMIT: usize = 4096;
/// The longest value of one fact, in characters: SMBIOS strings are 64.
const VALUE_LIMIT: usize = 128;

/// Facts and question of `query`. `peer` is the address that the request came from; it counts
/// where the machine does not say its own (behind a router they differ).
///
/// Values are bounded and without control characters; an empty one is a fact that is not known.
pub fn read(mac: Mac, query: &str, peer: Option<Ipv4Addr>) -> (Facts, Ask) {
    let mut facts = Facts::of(mac);
    let mut ask = Ask::default();
    let (mut buildarch, mut platform) = (String::new(), String::new());
    let pairs = query.get(..QUERY_LIMIT.min(query.len())).unwrap_or("").split('&');
    for (key, value) in pairs.filter_map(|pair| pair.split_once('=')) {
        let value = percent_decode_str(value).decode_utf8_lossy();
        let value = plainly(&value, VALUE_LIMIT);
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        let text = || Some(value.to_string());
        match key {
            "uuid" => facts.uuid = Some(value.to_lowercase()),
            "serial" => facts.serial = text(),
            "asset" => facts.asset = text(),
            "manufacturer" => facts.manufacturer = text(),
            "product" => facts.product = text(),
            "version" => facts.version = text(),
            "memsize" => facts.memsize = value.parse().ok(),
            "ip" => facts.ip = value.parse().ok(),
            "buildarch" => buildarch = value.into(),
            "platform" => platform = value.into(),
            "choose" => ask.choose = text(),
            "rehearse" => ask.rehearse = value == "1",
            "again" => ask.again = value == "1",
            _ => {}
        }
    }
    facts.arch = machine::arch_of(&buildarch, &platform);
    facts.ip = facts.ip.or(peer);
    (facts, ask)
}

/// The first value of a field in a form that was sent (`application/x-www-form-urlencoded`).
pub fn field(form: &[u8], name: &str) -> Option<String> {
    let pairs = std::str::from_utf8(form).ok()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1.replace('+', " ");
    Some(percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_as_ipxe_sends_them() {
        let mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
        let query = "uuid=ABCD-1&serial=&asset=%20&manufacturer=QEMU&product=Standard%20PC%20%28Q35\
                     %29&buildarch=x86_64&platform=efi&version=2.0.0%2B&memsize=1023&ip=10.0.0.5&x=y";
        let (facts, ask) = read(mac, query, Some(Ipv4Addr::LOCALHOST));
        assert_eq!(
            facts,
            Facts {
                uuid: Some("abcd-1".into()),
                manufacturer: Some("QEMU".into()),
                product: Some("Standard PC (Q35)".into()),
                arch: Some("uefi-x64"),
                version: Some("2.0.0+".into()),
                memsize: Some(1023),
                ip: Some([10, 0, 0, 5].into()),
                ..Facts::of(mac)
            }
        );
        assert_eq!(ask.choose, None);
    }

    #[test]
    fn nothing_that_a_client_writes_does_harm() {
        let mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
        let long = format!("serial={}&choose=a%0ab%1b%ff", "x".repeat(500));
        let (facts, ask) = read(mac, &long, Some(Ipv4Addr::LOCALHOST));
        assert!(facts.serial.unwrap().chars().count() <= VALUE_LIMIT + 1);
        assert_eq!(ask.choose.as_deref(), Some("a?b?\u{fffd}"));
        assert_eq!(facts.ip, Some(Ipv4Addr::LOCALHOST));
        for query in ["&&==&a", "%", "memsize=-1&ip=1.2.3", &"é".repeat(5000)] {
            let (facts, _) = read(mac, query, None);
            assert_eq!(facts, Facts::of(mac), "{query:.20}");
        }
    }
}
