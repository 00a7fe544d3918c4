//! A machine as it is declared, and what is known of one that asks.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::OnceLock;

use super::{Firmware, Mac, MacPattern, Secret};

/// A name of the firmware table; by this name serde does not take it for something borrowed.
type Arch = &'static str;

/// What a machine that asks has told of itself. DHCP gives the address, the architecture and the
/// UUID; iPXE adds the rest in the query of its first request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    pub mac: Mac,
    /// Lower case with hyphens, as iPXE's `${uuid}` writes it.
    pub uuid: Option<String>,
    pub serial: Option<String>,
    pub asset: Option<String>,
    pub manufacturer: Option<String>,
    pub product: Option<String>,
    /// The architecture of the firmware table (`bios`, `uefi-x64`, …).
    #[serde(deserialize_with = "arch_word")]
    pub arch: Option<Arch>,
    /// iPXE's `${version}`.
    pub version: Option<String>,
    /// Memory in MiB, iPXE's `${memsize}`.
    pub memsize: Option<u64>,
    pub ip: Option<Ipv4Addr>,
}

/// A stored architecture that this version does not know is not known.
fn arch_word<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'static str>, D::Error> {
    let word: Option<String> = serde::Deserialize::deserialize(from)?;
    Ok(word.and_then(|w| Firmware::arches().into_iter().find(|a| *a == w)))
}

impl Facts {
    pub fn of(mac: Mac) -> Facts {
        Facts {
            mac,
            uuid: None,
            serial: None,
            asset: None,
            manufacturer: None,
            product: None,
            arch: None,
            version: None,
            memsize: None,
            ip: None,
        }
    }

    /// Facts that `newer` knows take the place of ours; what it does not know stays.
    pub fn learn(&mut self, newer: Facts) {
        debug_assert_eq!(self.mac, newer.mac);
        fn take<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        take(&mut self.uuid, newer.uuid);
        take(&mut self.serial, newer.serial);
        take(&mut self.asset, newer.asset);
        take(&mut self.manufacturer, newer.manufacturer);
        take(&mut self.product, newer.product);
        take(&mut self.arch, newer.arch);
        take(&mut self.version, newer.version);
        take(&mut self.memsize, newer.memsize);
        take(&mut self.ip, newer.ip);
    }

    /// Whether the firmware is UEFI, as far as is known; decides how the local disk is booted.
    pub fn is_uefi(&self) -> bool {
        self.arch.is_some_and(|a| a.starts_with("uefi"))
    }
}

/// What a declared machine is recognised by: everything that is given must agree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    pub mac: Option<MacPattern>,
    /// Compared without regard to case.
    pub uuid: Option<String>,
    pub serial: Option<String>,
    /// The maker's name, iPXE's `${manufacturer}`, compared without regard to case.
    pub vendor: Option<String>,
    pub arch: Option<&'static str>,
}

impl Match {
    pub fn agrees(&self, facts: &Facts) -> bool {
        fn same(want: &Option<String>, have: &Option<String>) -> bool {
            want.as_ref().is_none_or(|w| {
                have.as_ref().is_some_and(|h| h.trim().eq_ignore_ascii_case(w.trim()))
            })
        }
        self.mac.as_ref().is_none_or(|p| p.matches(facts.mac))
            && same(&self.uuid, &facts.uuid)
            && same(&self.serial, &facts.serial)
            && same(&self.vendor, &facts.manufacturer)
            && self.arch.is_none_or(|a| facts.arch == Some(a))
    }
}

/// A `[[machine]]` of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    pub name: String,
    pub matches: Match,
    /// The name of a profile; without one the machine gets the menu.
    pub profile: Option<String>,
    /// An address reserved for it in `full` mode; only with an exact MAC.
    pub address: Option<Ipv4Addr>,
    /// DHCP option 12 and the template's `machine.hostname`.
    pub hostname: Option<String>,
    /// A loader file in place of the firmware table's.
    pub loader: Option<String>,
    /// Values of the user's own for the templates: `{{ vars.rack }}`.
    pub vars: serde_json::Map<String, serde_json::Value>,
    /// Settings of its own, over the profile's, key by key.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// These win over the profile's.
    pub secrets: BTreeMap<String, Secret>,
    pub power: Power,
}

/// How a machine is switched on and off.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Power {
    /// A magic packet: it can be switched on, and no more.
    #[default]
    WakeOnLan,
    /// Its BMC (DMTF DSP0266).
    Redfish {
        /// Of the ComputerSystem: `https://bmc/redfish/v1/Systems/1`.
        url: String,
        user: Option<String>,
        password: Option<Secret>,
        /// Whether any certificate will do.
        insecure: bool,
    },
    /// A program with its arguments, to which `on`, `off`, `cycle` or `pxe` is added.
    Command(Vec<String>),
}

impl Machine {
    /// The exact MAC, for a reservation.
    pub fn mac(&self) -> Option<Mac> {
        self.matches.mac.as_ref().and_then(MacPattern::exact)
    }

    /// The UUID that stands in for its MAC.
    pub fn by_uuid(&self) -> Option<&str> {
        self.matches.uuid.as_deref().filter(|_| self.mac().is_none())
    }

    /// Whether it is recognised by nothing but what whoever asks says of itself.
    pub fn is_by_word(&self) -> bool {
        self.matches.mac.is_none()
            && self.matches.uuid.is_none()
            && (self.matches.serial.is_some() || self.matches.vendor.is_some())
    }

    /// Whether it is one machine, and not a kind of them.
    pub fn is_one(&self) -> bool {
        self.mac().is_some() || self.matches.uuid.is_some() || self.matches.serial.is_some()
    }
}

/// The declared machines in the order of the configuration; they don't change, so that one look
/// finds a machine among thousands.
#[derive(Clone, Debug, Default)]
pub struct Machines {
    all: Vec<Machine>,
    index: OnceLock<Index>,
}

/// Places among the machines, each list in their order.
#[derive(Clone, Debug, Default)]
struct Index {
    /// Those that are declared with that very MAC.
    exact: HashMap<Mac, Vec<usize>>,
    /// Those that are not declared with an exact one.
    others: Vec<usize>,
}

impl Index {
    fn of(machines: &[Machine]) -> Index {
        let mut index = Index::default();
        for (place, machine) in machines.iter().enumerate() {
            match machine.mac() {
                Some(mac) => index.exact.entry(mac).or_default().push(place),
                None => index.others.push(place),
            }
        }
        index
    }
}

impl From<Vec<Machine>> for Machines {
    fn from(all: Vec<Machine>) -> Machines {
        Machines { all, index: OnceLock::new() }
    }
}

impl Deref for Machines {
    type Target = [Machine];

    fn deref(&self) -> &[Machine] {
        &self.all
    }
}

impl<'a> IntoIterator for &'a Machines {
    type Item = &'a Machine;
    type IntoIter = std::slice::Iter<'a, Machine>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl PartialEq for Machines {
    fn eq(&self, other: &Machines) -> bool {
        self.all == other.all
    }
}

/// The first declared machine that agrees with the facts, in the order of the configuration.
pub fn find<'a>(machines: &'a Machines, facts: &Facts) -> Option<&'a Machine> {
    let index = machines.index.get_or_init(|| Index::of(&machines.all));
    let agrees = |place: &&usize| machines.all[**place].matches.agrees(facts);
    let exact = index.exact.get(&facts.mac).and_then(|places| places.iter().find(agrees));
    // One that comes later does not count, however well it agrees.
    let before = |place: &&usize| exact.is_none_or(|exact| *place < exact);
    let other = index.others.iter().take_while(before).find(agrees);
    other.or(exact).map(|place| &machines.all[*place])
}

/// The architecture's name for what iPXE says of itself: `${buildarch}` and `${platform}`.
///
/// `i386` and `pcbios` is a BIOS machine whatever its processor can do.
pub fn arch_of(buildarch: &str, platform: &str) -> Option<&'static str> {
    let name = match (buildarch, platform) {
        ("i386" | "x86_64", "pcbios") => "bios",
        ("i386", "efi") => "uefi-ia32",
        ("x86_64", "efi") => "uefi-x64",
        ("arm32", "efi") => "uefi-arm32",
        ("arm64", "efi") => "uefi-arm64",
        ("riscv64", "efi") => "uefi-riscv64",
        ("loong64", "efi") => "uefi-loong64",
        _ => return None,
    };
    Firmware::by_name(name).map(|f| f.arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_given_must_agree() {
        let mut facts = Facts::of("52:54:00:00:00:01".parse().unwrap());
        let mut m = Match { mac: "52:54:00:*".parse().ok(), ..Match::default() };
        assert!(m.agrees(&facts));
        m.vendor = Some("QEMU".into());
        assert!(!m.agrees(&facts), "a vendor that is not known does not agree");
        facts.manufacturer = Some("qemu ".into());
        assert!(m.agrees(&facts));
        m.arch = Some("bios");
        assert!(!m.agrees(&facts));
        facts.arch = arch_of("i386", "pcbios");
        assert!(m.agrees(&facts));
    }

    #[test]
    fn what_a_machine_is_told_by() {
        let some = || Some("x".to_string());
        let of = |mac: &str, uuid, serial, vendor| Machine {
            name: "m".into(),
            matches: Match { mac: mac.parse().ok(), uuid, serial, vendor, arch: None },
            profile: None,
            address: None,
            hostname: None,
            loader: None,
            vars: serde_json::Map::new(),
            settings: Default::default(),
            secrets: Default::default(),
            power: Default::default(),
        };
        let told = |m: Machine| (m.by_uuid().is_some(), m.is_by_word());
        assert_eq!(told(of("52:54:00:00:00:01", some(), some(), None)), (false, false));
        assert_eq!(told(of("52:54:00:*", some(), None, None)), (true, false));
        assert_eq!(told(of("", some(), some(), None)), (true, false));
        assert_eq!(told(of("", None, some(), None)), (false, true));
        assert_eq!(told(of("", None, None, some())), (false, true));
        assert_eq!(told(of("52:54:00:*", None, None, some())), (false, false));
    }

    #[test]
    fn the_first_that_agrees_is_found_as_by_looking_at_each() {
        let mac = |n: u8| Mac([0x52, 0x54, 0, 0, 0, n]);
        let machine = |n: usize, mac: Option<&str>, vendor: Option<&str>| Machine {
            name: n.to_string(),
            matches: Match {
                mac: mac.map(|m| m.parse().unwrap()),
                vendor: vendor.map(str::to_string),
                ..Match::default()
            },
            profile: None,
            address: None,
            hostname: None,
            loader: None,
            vars: serde_json::Map::new(),
            settings: Default::default(),
            secrets: Default::default(),
            power: Default::default(),
        };
        let kinds = [
            (Some("52:54:00:00:00:01"), None),
            (Some("52:54:00:00:00:01"), Some("QEMU")),
            (Some("52:54:00:00:00:02"), Some("Dell")),
            (Some("52:54:00:*"), None),
            (Some("52:54:00:*"), Some("QEMU")),
            (None, Some("Dell")),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for order in 0..kinds.len().pow(4) {
            let picked = (0..4).map(|n| kinds[order / kinds.len().pow(n) % kinds.len()]);
            let all: Vec<Machine> =
                picked.enumerate().map(|(n, (mac, vendor))| machine(n, mac, vendor)).collect();
            let machines = Machines::from(all.clone());
            for n in 1..4 {
                for vendor in [None, Some("QEMU"), Some("Dell")] {
                    let manufacturer = vendor.map(str::to_string);
                    let facts = Facts { manufacturer, ..Facts::of(mac(n)) };
                    let found = find(&machines, &facts).map(|m| &m.name);
                    let first = all.iter().find(|m| m.matches.agrees(&facts)).map(|m| &m.name);
                    assert_eq!(found, first, "{all:?} {facts:?}");
                    seen.insert(found.cloned());
                }
            }
        }
        assert_eq!(seen.len(), 5, "each place, and none");
    }
}
