//! UDF (ECMA-167, as OSTA UDF 1.02 to 2.60 narrow it down) to an index: what Windows' media are.
//!
//! 1. [`index`] finds the volume by its anchor, its partitions and its file set.
//! 2. It walks the folders; the descriptor of each file (ICB) tells where the file is.
//!
//! Partitions of type 1 only, which all pressed media and all images for installing have.

use std::collections::HashSet;

use super::source::{Path, Reader, le16, le32, le64, seconds};
use super::tree::{self, Index, Odd, PARTS, Parts, Raw, Tally, What};
use super::{Bad, PATH_LIMIT, Stretch};

/// Bytes of one folder, and of all of them.
const FOLDER: u64 = 64 << 20;
const FOLDERS: u64 = 512 << 20;
/// Sectors of a volume descriptor sequence that are looked at.
const SEQUENCE: u32 = 64;
/// Extents of allocation descriptors that one file has.
const CONTINUED: usize = 4096;

/// Tag identifiers (ECMA-167 part 3, 7.2.1, and part 4, 7.2.1).
mod tag {
    pub const ANCHOR: u16 = 2;
    pub const PARTITION: u16 = 5;
    pub const LOGICAL: u16 = 6;
    pub const END: u16 = 8;
    pub const FILE_SET: u16 = 256;
    pub const NAME: u16 = 257;
    pub const ALLOCATION: u16 = 258;
    pub const FILE: u16 = 261;
    pub const EXTENDED: u16 = 266;
}

/// Where things are.
#[derive(Debug)]
struct Volume {
    name: String,
    /// Of a logical block, in bytes.
    block: u64,
    /// Of each partition, by its reference number: where it begins and how long it is, in bytes.
    partitions: Vec<(u64, u64)>,
    root: Icb,
}

/// Where a file's descriptor is: a block of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Icb {
    partition: u16,
    block: u32,
}

/// The files of the volume, and its name.
///
/// # Errors
/// [`Bad`], by name.
pub fn index(from: &Reader<'_>) -> Result<(Index, String), Bad> {
    let volume = volume(from)?;
    let (root, name) = (volume.root, volume.name.clone());
    let mut walk = Walk { from, volume, seen: HashSet::new(), read: 0, tally: Tally::default() };
    let root = walk.descriptor(root, &|| "/".into())?.ok_or_else(|| damaged_at("/"))?;
    let index = tree::grow(root, |folder, path| walk.folder(folder, path))?;
    Ok((index, name))
}

fn damaged_at(path: &str) -> Bad {
    Bad::Damaged(path.into())
}

/// Whether `bytes` begin with a descriptor of that kind, whole by its checksum and its CRC
/// (ECMA-167 part 3, 7.2).
fn is(bytes: &[u8], kind: u16) -> bool {
    let Some(head) = bytes.get(..16) else { return false };
    let sum =
        head.iter().enumerate().filter(|(n, _)| *n != 4).fold(0u8, |s, (_, b)| s.wrapping_add(*b));
    let body = bytes.get(16..16 + usize::from(le16(head, 10)));
    le16(head, 0) == kind && head[4] == sum && body.is_some_and(|b| crc(b) == le16(head, 8))
}

/// CRC-16 by the polynomial of ITU-T V.41 (7.2.6).
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC[usize::from(crc.to_be_bytes()[0] ^ byte)])
}

/// Of each byte.
const CRC: [u16; 256] = {
    let mut all = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte << 8, 0);
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 };
            bit += 1;
        }
        all[byte as usize] = crc;
        byte += 1;
    }
    all
};

/// The anchor is at sector 256, or at the end (part 3, 8.4.2.1); the sequences that it points to
/// are each other's copies.
fn volume(from: &Reader<'_>) -> Result<Volume, Bad> {
    let sectors = from.size() / 2048;
    let places = [256, sectors.saturating_sub(1), sectors.saturating_sub(257), 512];
    let mut why = Bad::Unknown;
    for place in places {
        let Ok(anchor) = sector(from, place) else { continue };
        if !is(&anchor, tag::ANCHOR) {
            continue;
        }
        for at in [16, 24] {
            match sequence(from, le32(&anchor, at + 4), le32(&anchor, at)) {
                Ok(volume) => return Ok(volume),
                // Neither will the copy be longer, or of another kind.
                Err(no @ (Bad::Cut { .. } | Bad::Kind(_))) => return Err(no),
                Err(no) => why = no,
            }
        }
    }
    Err(why)
}

fn sector(from: &Reader<'_>, n: u64) -> Result<Vec<u8>, Bad> {
    from.bytes(n.saturating_mul(2048), 2048, &|| "/".into())
}

/// The descriptors that prevail: those of each kind with the highest number (part 3, 8.4.3).
fn sequence(from: &Reader<'_>, first: u32, len: u32) -> Result<Volume, Bad> {
    let mut logical: Option<(u32, Vec<u8>)> = None;
    let mut partitions: Vec<(u16, u32, Vec<u8>)> = Vec::new();
    for n in 0..(len / 2048).min(SEQUENCE) {
        let bytes = sector(from, u64::from(first) + u64::from(n))?;
        let number = le32(&bytes, 16);
        if is(&bytes, tag::END) {
            break;
        } else if is(&bytes, tag::LOGICAL) {
            if logical.as_ref().is_none_or(|(had, _)| number >= *had) {
                logical = Some((number, bytes));
            }
        } else if is(&bytes, tag::PARTITION) {
            let which = le16(&bytes, 22);
            partitions.retain(|(p, had, _)| *p != which || *had > number);
            if !partitions.iter().any(|(p, ..)| *p == which) {
                partitions.push((which, number, bytes));
            }
        }
    }
    let (_, logical) = logical.ok_or_else(|| damaged_at("its volume"))?;
    let block = u64::from(le32(&logical, 212));
    if !block.is_power_of_two() || !(512..=4096).contains(&block) {
        return Err(damaged_at("its volume"));
    }
    let maps = maps(&logical)?.into_iter().map(|map| {
        let found = partitions.iter().find(|(p, ..)| *p == map);
        let (_, _, bytes) = found.ok_or_else(|| damaged_at("its volume"))?;
        let (at, len) = (u64::from(le32(bytes, 188)) * block, u64::from(le32(bytes, 192)) * block);
        match at + len > from.size() {
            true => Err(Bad::Cut { has: from.size(), should: at + len }),
            false => Ok((at, len)),
        }
    });
    let partitions = maps.collect::<Result<_, _>>()?;
    let name = string(logical.get(84..212).unwrap_or(&[]));
    let mut volume = Volume { name, block, partitions, root: Icb { partition: 0, block: 0 } };
    // Part 4, 3.1: the file set's place is in the logical volume's contents use.
    let at = volume.place(long(&logical, 248)).ok_or_else(|| damaged_at("its file set"))?;
    let set = from.bytes(at, 512, &|| "its file set".into())?;
    if !is(&set, tag::FILE_SET) {
        return Err(damaged_at("its file set"));
    }
    volume.root = long(&set, 400);
    Ok(volume)
}

/// The partitions that reference numbers stand for (part 3, 10.7).
fn maps(logical: &[u8]) -> Result<Vec<u16>, Bad> {
    let mut all = Vec::new();
    let mut at = 440;
    for _ in 0..le32(logical, 268).min(4) {
        match (logical.get(at), logical.get(at + 1)) {
            (Some(1), Some(6)) => all.push(le16(logical, at + 4)),
            (Some(2), Some(64)) => {
                let kind = logical.get(at + 5..at + 28).unwrap_or(&[]);
                return Err(Bad::Kind(match kind {
                    k if k.starts_with(b"*UDF Metadata") => "with a metadata partition",
                    k if k.starts_with(b"*UDF Virtual") => "with a virtual partition",
                    k if k.starts_with(b"*UDF Sparable") => "with a sparable partition",
                    _ => "with a partition of an unknown kind",
                }));
            }
            _ => return Err(damaged_at("its volume")),
        }
        at += 6;
    }
    Ok(all)
}

/// The place in a long_ad (part 4, 14.14.2).
fn long(bytes: &[u8], at: usize) -> Icb {
    Icb { block: le32(bytes, at + 4), partition: le16(bytes, at + 8) }
}

/// A dstring (part 1, 7.2.12): its last byte counts those before that are of use.
fn string(field: &[u8]) -> String {
    let len = usize::from(field.last().copied().unwrap_or(0)).min(field.len().saturating_sub(1));
    text(&field[..len])
}

/// d-characters as OSTA compresses them (UDF 2.1.1): one byte each, or two.
fn text(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((8, narrow)) => narrow.iter().map(|b| char::from(*b)).collect(),
        Some((16, wide)) => {
            let units = wide.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        _ => String::new(),
    }
}

impl Volume {
    /// Of a block, in bytes from the image's start; `None` outside its partition.
    fn place(&self, icb: Icb) -> Option<u64> {
        let (at, len) = self.partitions.get(usize::from(icb.partition))?;
        let offset = u64::from(icb.block) * self.block;
        (offset < *len).then_some(at + offset)
    }

    /// The same for a stretch, all of which has to be in it.
    fn stretch(&self, icb: Icb, len: u64) -> Option<Stretch> {
        let (_, size) = self.partitions.get(usize::from(icb.partition))?;
        let end = (u64::from(icb.block) * self.block).checked_add(len)?;
        let offset = self.place(icb).filter(|_| end <= *size)?;
        Some(Stretch { offset: Some(offset), len })
    }
}

/// What a descriptor tells of a file.
struct Told {
    at: Icb,
    kind: u8,
    len: u64,
    modified: u32,
    /// Its bytes; `Err` where they cannot be told.
    parts: Result<Parts, Odd>,
}

/// File types (part 4, 14.6.6).
const DIRECTORY: u8 = 4;
const REGULAR: u8 = 5;
const UNSPECIFIED: u8 = 0;
const SYMBOLIC_LINK: u8 = 12;

/// Allocation types (part 4, 14.14.1.1): recorded, two kinds of holes, and where more of them are.
const RECORDED: u32 = 0;
const CONTINUES: u32 = 3;

struct Walk<'a> {
    from: &'a Reader<'a>,
    volume: Volume,
    /// The descriptors of folders.
    seen: HashSet<Icb>,
    /// Bytes of folders.
    read: u64,
    tally: Tally,
}

impl Walk<'_> {
    /// The descriptor at `icb` (part 4, 14.9 and 14.17); `None` for one that is deleted or of an
    /// old strategy, which nobody has used.
    fn descriptor(&self, icb: Icb, path: Path<'_>) -> Result<Option<Told>, Bad> {
        let at = self.volume.place(icb).ok_or_else(|| Bad::Beyond(path()))?;
        let block = usize::try_from(self.volume.block).unwrap_or(2048);
        let bytes = self.from.small(at, block, path)?;
        let (time, lens, begin) = match () {
            () if is(&bytes, tag::FILE) => (84, 168, 176),
            () if is(&bytes, tag::EXTENDED) => (92, 208, 216),
            () => return Err(Bad::Damaged(path())),
        };
        if le16(&bytes, 20) != 4 {
            return Ok(None);
        }
        let len = le64(&bytes, 56);
        let from = begin + le32(&bytes, lens) as usize;
        let end = from.saturating_add(le32(&bytes, lens + 4) as usize);
        let area = bytes.get(from..end).ok_or_else(|| Bad::Damaged(path()))?;
        let parts = match le16(&bytes, 34) & 7 {
            // In the descriptor itself.
            3 => {
                let offset = Some(at + from as u64);
                let whole = Stretch { offset, len: len.min(area.len() as u64) };
                Ok(Parts::from_elem(whole, 1))
            }
            kind @ (0 | 1) => self.allocated(area.to_vec(), kind == 1, icb.partition, len, path)?,
            _ => Err(Odd::Descriptor),
        };
        let modified = time_of(&bytes, time);
        Ok(Some(Told { at: icb, kind: bytes[27], len, modified, parts }))
    }

    /// What allocation descriptors tell (part 4, 12), the last of them cut to the file's length.
    fn allocated(
        &self,
        mut area: Vec<u8>,
        long_ones: bool,
        partition: u16,
        mut left: u64,
        path: Path<'_>,
    ) -> Result<Result<Parts, Odd>, Bad> {
        let size = if long_ones { 16 } else { 8 };
        let mut parts = Parts::new();
        let mut been = HashSet::new();
        for _ in 0..CONTINUED {
            let mut next = None;
            for one in area.chunks_exact(size) {
                let (kind, len) = (le32(one, 0) >> 30, u64::from(le32(one, 0) & 0x3fff_ffff));
                if len == 0 || left == 0 {
                    break;
                }
                let place = match long_ones {
                    true => long(one, 0),
                    false => Icb { partition, block: le32(one, 4) },
                };
                if kind == CONTINUES {
                    next = Some(place);
                    break;
                }
                let len = len.min(left);
                left -= len;
                let part = match kind {
                    RECORDED => {
                        let stretch = self.volume.stretch(place, len);
                        stretch.ok_or_else(|| Bad::Beyond(path()))?
                    }
                    _ => Stretch { offset: None, len },
                };
                tree::join(&mut parts, part);
                if parts.len() > PARTS {
                    return Ok(Err(Odd::Scattered));
                }
            }
            let Some(place) = next else {
                return Ok(if left == 0 { Ok(parts) } else { Err(Odd::Descriptor) });
            };
            if !been.insert(place) {
                return Err(Bad::Damaged(path()));
            }
            let at = self.volume.place(place).ok_or_else(|| Bad::Beyond(path()))?;
            let block = usize::try_from(self.volume.block).unwrap_or(2048);
            let bytes = self.from.small(at, block, path)?;
            if !is(&bytes, tag::ALLOCATION) {
                return Err(Bad::Damaged(path()));
            }
            let end = 24usize.saturating_add(le32(&bytes, 20) as usize);
            area = bytes.get(24..end).ok_or_else(|| Bad::Damaged(path()))?.to_vec();
        }
        Ok(Err(Odd::Scattered))
    }

    /// All bytes of a folder or a link, of which there are at most `limit`.
    fn bytes(&self, told: &Told, limit: u64, path: Path<'_>) -> Result<Vec<u8>, Bad> {
        let parts = told.parts.as_ref().map_err(|_| Bad::Damaged(path()))?;
        if told.len > limit {
            return Err(Bad::Absurd(path(), told.len));
        }
        let mut all = Vec::new();
        for part in parts {
            let len = usize::try_from(part.len).unwrap_or(0);
            match part.offset {
                Some(at) => all.extend(self.from.bytes(at, len, path)?),
                None => all.resize(all.len() + len, 0),
            }
        }
        Ok(all)
    }

    fn folder(&mut self, told: Told, path: Path<'_>) -> Result<Vec<Raw<Told>>, Bad> {
        if !self.seen.insert(told.at) {
            return Err(Bad::Loop(path()));
        }
        self.read = self.read.saturating_add(told.len);
        if self.read > FOLDERS {
            return Err(Bad::Absurd(path(), told.len));
        }
        let bytes = self.bytes(&told, FOLDER, path)?;
        let mut all = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let one = &bytes[at..];
            // Part 4, 14.4. Its sum is over itself, and not over those that follow, too.
            if one.len() < 38 {
                return Err(Bad::Damaged(path()));
            }
            let (flags, len, skip) = (one[18], usize::from(one[19]), usize::from(le16(one, 36)));
            let end = (38 + skip + len).next_multiple_of(4);
            let one = &one[..end.min(one.len())];
            if !is(one, tag::NAME) {
                return Err(Bad::Damaged(path()));
            }
            at += end;
            // Deleted, or the way back up.
            if flags & 0x0c != 0 {
                continue;
            }
            let name = one.get(38 + skip..38 + skip + len).ok_or_else(|| Bad::Damaged(path()))?;
            let name = text(name);
            let full = || format!("{}/{name}", path().trim_end_matches('/'));
            let Some(told) = self.descriptor(long(one, 20), &full)? else { continue };
            let modified = told.modified;
            let what = match told.kind {
                DIRECTORY => What::Folder(told),
                REGULAR | UNSPECIFIED => match told.parts {
                    Ok(parts) => What::File(parts),
                    Err(odd) => What::Odd(odd),
                },
                SYMBOLIC_LINK => {
                    What::Link(target(&self.bytes(&told, PATH_LIMIT as u64 * 2, &full)?))
                }
                // Devices, and the like.
                _ => continue,
            };
            let raw = Raw { name: name.into_bytes(), modified, image: 0, what };
            self.tally.add(&raw)?;
            all.push(raw);
        }
        Ok(all)
    }
}

/// Part 4, 14.16.1: the path that a link holds.
fn target(mut bytes: &[u8]) -> Vec<u8> {
    let mut all: Vec<String> = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        // Longer than what there is: it leads nowhere.
        let Some(name) = rest.get(..usize::from(head[1])) else { return Vec::new() };
        all.push(match head[0] {
            // From a root, with a slash before all else.
            1 | 2 => String::new(),
            3 => "..".into(),
            4 => ".".into(),
            _ => text(name),
        });
        bytes = &rest[name.len()..];
    }
    match &all[..] {
        [root] if root.is_empty() => b"/".to_vec(),
        _ => all.join("/").into_bytes(),
    }
}

/// Part 1, 7.3: the zone in minutes, if it is told, is in the lower 12 bits.
fn time_of(bytes: &[u8], at: usize) -> u32 {
    let zone = le16(bytes, at);
    let minutes = ((zone & 0x0fff) << 4).cast_signed() >> 4;
    let offset = if (-1440..=1440).contains(&minutes) { minutes } else { 0 };
    let year = le16(bytes, at + 2).cast_signed();
    let Some(t) = bytes.get(at + 4..at + 9) else { return 0 };
    seconds([year, t[0].into(), t[1].into()], [t[2], t[3], t[4]], offset).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compressed() {
        assert_eq!(text(b"\x08b\xfcrger"), "bürger");
        assert_eq!(text(b"\x10\x00a\x26\x3a\xd8\x3d\xde\x00"), "a☺😀");
        assert_eq!(text(b"\x10\xd8\x00x"), "\u{fffd}", "half a pair, and half a character");
        assert_eq!((text(b""), text(b"\xfe12")), (String::new(), String::new()));
        assert_eq!(string(b"\x08NAME\0\0\0\x05"), "NAME");
        assert_eq!(string(b"\x08NA\xff"), "NA", "a count that is too high");
    }

    #[test]
    fn links_are_lists_of_components() {
        let part = |kind: u8, name: &[u8]| {
            let len = u8::try_from(name.len()).unwrap();
            [&[kind, len, 0, 0], name].concat()
        };
        let path = [part(3, b""), part(4, b""), part(5, b"\x08boot"), part(5, b"\x08x")].concat();
        assert_eq!(target(&path), b".././boot/x");
        assert_eq!(target(&[part(2, b""), part(5, b"\x08etc")].concat()), b"/etc");
        assert_eq!(target(&part(2, b"")), b"/");
        assert_eq!(target(&[5, 200, 0, 0, 8, b'a']), b"", "longer than there is");
    }

    #[test]
    fn a_descriptor_is_known_by_its_sums() {
        // ECMA-167's own example of the CRC (part 1, 7.2.6).
        assert_eq!(crc(&[0x70, 0x6a, 0x77]), 0x3299);
        let mut bytes = vec![0u8; 32];
        bytes[0] = 8;
        bytes[10] = 16;
        bytes[16] = 1;
        let crc = crc(&bytes[16..]).to_le_bytes();
        bytes[8..10].copy_from_slice(&crc);
        bytes[4] = bytes[..16].iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert!(is(&bytes, tag::END) && !is(&bytes, tag::FILE));
        assert!(!is(&bytes[..20], tag::END), "cut");
        bytes[20] = 1;
        assert!(!is(&bytes, tag::END), "another body");
        bytes[20] = 0;
        bytes[6] = 1;
        assert!(!is(&bytes, tag::END), "another head");
    }

    #[test]
    fn times_have_zones() {
        let time = |zone: u16| {
            let mut bytes = zone.to_le_bytes().to_vec();
            bytes.extend([0xda, 0x07, 1, 2, 3, 4, 5, 0, 0, 0]);
            time_of(&bytes, 0)
        };
        let utc = 1_262_401_445;
        assert_eq!(time(0x1000), utc);
        assert_eq!(time(0x1000 | 60), utc - 3600);
        assert_eq!(time(0x1000 | (0x1000 - 60)), utc + 3600);
        assert_eq!(time(0x1000 | 0x0801), utc, "none is told");
        assert_eq!(time_of(&[0; 12], 0), 0);
    }
}
