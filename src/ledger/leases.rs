//! Where machines are: DHCP's own word, and nobody else's. What a flood of made-up machines tells by
//! HTTP pushes nothing out of here.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::MACHINES;
use crate::model::Mac;

/// Machines at most; the one whose lease was told longest ago makes room.
pub const LEASES: usize = 2 * MACHINES;

/// What DHCP said of where a machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    pub address: Ipv4Addr,
    /// The relay that it asked through.
    pub relay: Option<Ipv4Addr>,
    /// The UUID that it named there (option 97, RFC 4578 section 2.3).
    pub uuid: Option<String>,
}

#[derive(Default)]
pub struct Leases {
    by_mac: HashMap<Mac, (u64, Leased)>,
    order: BTreeMap<u64, Mac>,
    told: u64,
}

impl Leases {
    pub fn get(&self, mac: Mac) -> Option<&Leased> {
        self.by_mac.get(&mac).map(|(_, leased)| leased)
    }

    /// The newest word; the machine that makes room for it, if one must. A system that renews its
    /// lease does not say the UUID that its firmware said.
    pub fn put(&mut self, mac: Mac, mut leased: Leased) -> Option<Mac> {
        if let Some((place, old)) = self.by_mac.remove(&mac) {
            self.order.remove(&place);
            leased.uuid = leased.uuid.or(old.uuid);
        }
        self.told += 1;
        self.order.insert(self.told, mac);
        self.by_mac.insert(mac, (self.told, leased));
        let full = self.by_mac.len() > LEASES;
        let (_, oldest) = full.then(|| self.order.pop_first()).flatten()?;
        self.by_mac.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_word_counts_and_the_oldest_makes_room() {
        let mut leases = Leases::default();
        let mac = |n: u32| {
            let b = n.to_be_bytes();
            Mac([2, 0, b[0], b[1], b[2], b[3]])
        };
        let at = |n: u32, uuid: Option<&str>| Leased {
            address: Ipv4Addr::from_bits(n),
            relay: None,
            uuid: uuid.map(str::to_string),
        };
        for n in 0..LEASES as u32 {
            assert_eq!(leases.put(mac(n), at(n, Some("u"))), None);
        }
        assert_eq!(leases.put(mac(0), at(7, None)), None);
        assert_eq!(leases.get(mac(0)), Some(&at(7, Some("u"))));
        assert_eq!(leases.put(mac(u32::MAX), at(9, None)), Some(mac(1)));
        assert!(leases.get(mac(1)).is_none() && leases.get(mac(2)).is_some());
        assert_eq!((leases.by_mac.len(), leases.order.len()), (LEASES, LEASES));
    }
}
