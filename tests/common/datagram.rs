//! DHCP datagrams put together by hand, and what becomes of them in hostile hands.

use pilotlight::dhcp::wire::code;

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// A client's datagram, put together by hand.
#[derive(Clone)]
pub struct Datagram {
    pub head: Vec<u8>,
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Datagram {
    pub fn new(kind: u8) -> Datagram {
        let mut head = vec![0; 236];
        head[..4].copy_from_slice(&[1, 1, 6, 0]);
        head[4..8].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        head[28..34].copy_from_slice(&MAC);
        Datagram { head, options: vec![(code::MESSAGE_TYPE, vec![kind])] }
    }

    pub fn with(mut self, code: u8, value: impl Into<Vec<u8>>) -> Datagram {
        self.options.push((code, value.into()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.head.clone();
        out.extend([99, 130, 83, 99]);
        for (code, value) in &self.options {
            for part in value.chunks(255) {
                out.extend([*code, part.len() as u8]);
                out.extend(part);
            }
        }
        out.push(255);
        out
    }
}

pub fn pxe(kind: u8, arch: u16) -> Datagram {
    let mut uuid = vec![0];
    uuid.extend(1..=16);
    Datagram::new(kind)
        .with(code::VENDOR_CLASS, format!("PXEClient:Arch:{arch:05}:UNDI:002001"))
        .with(code::ARCH, arch.to_be_bytes())
        .with(code::UUID, uuid)
        // OVMF's byte order bug.
        .with(code::MAX_MESSAGE_SIZE, [0xff, 0x00])
}

/// What iPXE 2.0.0 says of itself.
pub const OURS: &[u8] = &[16, 17, 18, 19, 20, 21, 38, 235];

pub fn ipxe(kind: u8, arch: u16, features: &[u8]) -> Datagram {
    let value: Vec<u8> = features.iter().flat_map(|f| [*f, 1, 1]).collect();
    pxe(kind, arch).with(code::USER_CLASS, *b"iPXE").with(code::IPXE, value)
}

/// Dice that fall the same way each time.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Dice {
        Dice(0x9E37_79B9_7F4A_7C15)
    }

    /// Below `n`; Marsaglia's xorshift.
    pub fn roll(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// One of the seeds, cut, lengthened and changed; most of it behind `meaning` bytes.
    pub fn mutate(&mut self, seeds: &[Vec<u8>], meaning: usize) -> Vec<u8> {
        let mut bytes = seeds[self.roll(seeds.len())].clone();
        for _ in 0..=self.roll(4) {
            match self.roll(4) {
                0 => bytes.truncate(self.roll(bytes.len())),
                1 => bytes.insert(self.roll(bytes.len() + 1), self.roll(256) as u8),
                2 if bytes.len() > meaning => {
                    let at = meaning + self.roll(bytes.len() - meaning);
                    bytes[at] = self.roll(256) as u8;
                }
                _ if !bytes.is_empty() => {
                    let at = self.roll(bytes.len());
                    bytes[at] ^= 1 << self.roll(8);
                }
                _ => {}
            }
        }
        bytes
    }
}
