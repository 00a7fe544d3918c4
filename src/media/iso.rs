//! ISO 9660 (ECMA-119) with Rock Ridge (RRIP 1.12) or Joliet, to an index.
//!
//! 1. [`volumes`] reads the volume descriptors: which namespaces there are, and whether the image is
//!    whole.
//! 2. [`index`] walks the folders of the best of them: Rock Ridge, then Joliet, then plain. A folder
//!    is read at once; its records are ours, their system use areas hadris-iso's.
//!
//! Sizes and places are taken from the little-endian halves of numbers that are recorded twice, as
//! Linux does: tools have written wrong big-endian ones.

use std::collections::HashSet;

use hadris_iso::joliet::{JolietLevel, decode_joliet_name};
use hadris_iso::rrip::{NmFlags, SlComponent, SlComponentFlags};
use hadris_iso::susp::{SystemUseField, SystemUseIter};

use super::source::{Path, Reader, le16, le32, seconds};
use super::tree::{self, Index, NAME_LIMIT, Odd, PARTS, Parts, Raw, Tally, What};
use super::{Bad, PATH_LIMIT, Stretch};

/// Of a sector (ECMA-119 6.1.2), in bytes. Records do not cross its end (6.8.1.1).
const SECTOR: u64 = 2048;
/// Volume descriptors that are looked at.
const DESCRIPTORS: u64 = 64;
/// Bytes of one folder, and of all of them.
const FOLDER: u64 = 64 << 20;
const FOLDERS: u64 = 512 << 20;
/// Continuation areas of one record (SUSP 5.1).
const CONTINUED: usize = 8;

/// Of POSIX's modes (RRIP 4.1.1).
const KIND: u32 = 0o170_000;
const FOLDER_KIND: u32 = 0o040_000;
const FILE_KIND: u32 = 0o100_000;
const LINK_KIND: u32 = 0o120_000;

const DIRECTORY: u8 = 0x02;
const ASSOCIATED: u8 = 0x04;
const MORE: u8 = 0x80;

/// What the volume descriptors tell.
#[derive(Debug, Default)]
pub struct Volumes {
    /// The plain (and Rock Ridge) namespace.
    pub primary: Option<Volume>,
    joliet: Option<Volume>,
    /// Whether a UDF volume is announced (ECMA-167 part 2, 9.1.2).
    pub udf: bool,
}

#[derive(Clone, Debug)]
pub struct Volume {
    pub name: String,
    /// Of a logical block, in bytes.
    block: u64,
    root: Folder,
}

/// Where a folder is.
#[derive(Clone, Copy, Debug)]
struct Folder {
    /// In bytes from the image's start.
    at: u64,
    len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// With this many bytes to skip at the start of each system use area (SUSP 5.3).
    Rock(usize),
    Joliet,
    Plain,
}

/// The volume descriptors, from sector 16 on. Those of ISO 9660 and of UDF share that place.
///
/// # Errors
/// [`Bad::Cut`], and what the disk says. An image without any has none in it.
pub fn volumes(from: &Reader<'_>) -> Result<Volumes, Bad> {
    let mut found = Volumes::default();
    for sector in 16..16 + DESCRIPTORS {
        if !from.has(sector * SECTOR, SECTOR) {
            break;
        }
        let bytes = from.small(sector * SECTOR, 2048, &|| "/".into())?;
        match (&bytes[1..6], bytes[0]) {
            (b"CD001", 1) if found.primary.is_none() => found.primary = volume(from, &bytes)?,
            (b"CD001", 2) if found.joliet.is_none() => {
                let escape = bytes[88..120].first_chunk::<32>();
                if escape.and_then(JolietLevel::from_escape_sequence).is_some() {
                    found.joliet = volume(from, &bytes)?;
                }
            }
            (b"NSR02" | b"NSR03", _) => found.udf = true,
            (b"CD001" | b"BEA01" | b"BOOT2" | b"CDW02", _) => {}
            // TEA01 ends them; so does whatever is none.
            _ => break,
        }
    }
    Ok(found)
}

/// ECMA-119 8.4 and 8.5; `None` for one that nothing can be read by.
fn volume(from: &Reader<'_>, bytes: &[u8]) -> Result<Option<Volume>, Bad> {
    let block = u64::from(le16(bytes, 128));
    if !block.is_power_of_two() || !(512..=SECTOR).contains(&block) {
        return Ok(None);
    }
    let should = u64::from(le32(bytes, 80)) * block;
    if should > from.size() {
        return Err(Bad::Cut { has: from.size(), should });
    }
    let record = Record::read(&bytes[156..190]);
    let name = String::from_utf8_lossy(&bytes[40..72]);
    let name = name.trim_end_matches([' ', '\0']).to_string();
    Ok(record.map(|r| Volume { name, block, root: r.folder(block) }))
}

/// The files of the best namespace that there is. `None`: of Rock Ridge there is none, though it was
/// the only one asked for.
///
/// # Errors
/// [`Bad`], by name.
pub fn index(from: &Reader<'_>, volumes: &Volumes, rock_only: bool) -> Result<Option<Index>, Bad> {
    let Some(primary) = &volumes.primary else { return Err(Bad::Unknown) };
    let rock = rock(from, primary)?;
    let (volume, names) = match (rock, &volumes.joliet) {
        (Some(skip), _) => (primary, Names::Rock(skip)),
        (None, _) if rock_only => return Ok(None),
        (None, Some(joliet)) => (joliet, Names::Joliet),
        (None, None) => (primary, Names::Plain),
    };
    let mut walk = Walk {
        from,
        block: volume.block,
        names,
        seen: HashSet::new(),
        read: 0,
        tally: Tally::default(),
    };
    tree::grow(volume.root, |folder, path| walk.folder(folder, path)).map(Some)
}

/// Bytes to skip of each system use area, if the root's own record says that there is Rock Ridge.
fn rock(from: &Reader<'_>, volume: &Volume) -> Result<Option<usize>, Bad> {
    if volume.root.len == 0 {
        return Ok(None);
    }
    let bytes = from.bytes(volume.root.at, 2048, &|| "/".into())?;
    let Some(record) = Record::read(&bytes) else { return Ok(None) };
    let mut skip = None;
    let mut has = false;
    for field in SystemUseIter::new(record.system, 0) {
        match field {
            SystemUseField::SuspIdentifier(sp) if sp.is_valid() => {
                skip = Some(usize::from(sp.bytes_skipped));
            }
            SystemUseField::PosixAttributes(_) => has = true,
            // RRIP_1991A and its later names; RR was a field of the first version.
            SystemUseField::ExtensionReference(_) => has = true,
            SystemUseField::Unknown(header, _) if header.sig == *b"RR" => has = true,
            _ => {}
        }
    }
    Ok(skip.filter(|_| has))
}

/// A directory record (ECMA-119 9.1).
struct Record<'a> {
    /// Of its extent, in blocks, after the extended attributes.
    block: u64,
    len: u64,
    date: &'a [u8],
    flags: u8,
    interleaved: bool,
    name: &'a [u8],
    system: &'a [u8],
}

impl<'a> Record<'a> {
    /// The one that `bytes` begin with; `None` for what is none.
    fn read(bytes: &'a [u8]) -> Option<Record<'a>> {
        let all = bytes.get(..usize::from(*bytes.first()?)).filter(|all| all.len() >= 34)?;
        let name = all.get(33..33 + usize::from(all[32]))?;
        // The area begins at an even place (9.1.12).
        let system = all.get((33 + name.len()).next_multiple_of(2)..).unwrap_or(&[]);
        Some(Record {
            block: u64::from(le32(all, 2)) + u64::from(all[1]),
            len: u64::from(le32(all, 10)),
            date: &all[18..25],
            flags: all[25],
            interleaved: all[26] != 0 || all[27] != 0,
            name,
            system,
        })
    }

    fn folder(&self, block: u64) -> Folder {
        Folder { at: self.block * block, len: self.len }
    }

    /// ECMA-119 9.1.5: the last byte is quarters of an hour.
    fn modified(&self) -> u32 {
        let d = self.date;
        let date = [1900 + i16::from(d[0]), i16::from(d[1]), i16::from(d[2])];
        let offset = i16::from(d[6].cast_signed()) * 15;
        seconds(date, [d[3], d[4], d[5]], offset).unwrap_or(0)
    }
}

/// What a record's system use area says, as far as it matters here.
#[derive(Default)]
struct Rock {
    name: Vec<u8>,
    mode: Option<u32>,
    link: Vec<u8>,
    /// The block of a folder that was moved, since ISO 9660 allows eight levels.
    child: Option<u64>,
    /// It is such a folder, and seen from where it was moved from.
    moved: bool,
    compressed: bool,
}

struct Walk<'a> {
    from: &'a Reader<'a>,
    block: u64,
    names: Names,
    /// Where folders begin.
    seen: HashSet<u64>,
    /// Bytes of folders.
    read: u64,
    tally: Tally,
}

impl Walk<'_> {
    fn folder(&mut self, folder: Folder, path: Path<'_>) -> Result<Vec<Raw<Folder>>, Bad> {
        if folder.len == 0 {
            return Ok(Vec::new());
        }
        if !self.seen.insert(folder.at) {
            return Err(Bad::Loop(path()));
        }
        self.read += folder.len;
        if folder.len > FOLDER || self.read > FOLDERS {
            return Err(Bad::Absurd(path(), folder.len));
        }
        let len = usize::try_from(folder.len).unwrap_or(usize::MAX);
        let bytes = self.from.bytes(folder.at, len, path)?;
        let mut all = Vec::new();
        // A file of several records, so far (9.1.6).
        let mut parts = Parts::new();
        for sector in bytes.chunks(2048) {
            let mut at = 0;
            // What is left of a sector that has no room for the next record is zeros.
            while sector.get(at).is_some_and(|len| *len != 0) {
                let record = Record::read(&sector[at..]).ok_or_else(|| Bad::Damaged(path()))?;
                at += usize::from(sector[at]);
                if matches!(record.name, [0 | 1]) || record.flags & ASSOCIATED != 0 {
                    continue;
                }
                if record.len > 0 && parts.len() <= PARTS {
                    parts
                        .push(Stretch { offset: Some(record.block * self.block), len: record.len });
                }
                if record.flags & MORE != 0 && record.flags & DIRECTORY == 0 {
                    continue;
                }
                let whole = std::mem::take(&mut parts);
                if let Some(raw) = self.entry(&record, whole, path)? {
                    self.tally.add(&raw)?;
                    all.push(raw);
                }
            }
        }
        Ok(all)
    }

    /// What a record stands for; `None` for what is not shown here, or is neither file nor folder.
    fn entry(
        &mut self,
        record: &Record<'_>,
        parts: Parts,
        path: Path<'_>,
    ) -> Result<Option<Raw<Folder>>, Bad> {
        let rock = match self.names {
            Names::Rock(skip) => self.rock(record.system, skip, path)?,
            Names::Joliet | Names::Plain => Rock::default(),
        };
        if rock.moved {
            return Ok(None);
        }
        let name = match self.names {
            Names::Rock(_) if !rock.name.is_empty() => rock.name,
            Names::Joliet => versionless(decode_joliet_name(record.name).as_bytes()).to_vec(),
            _ => plain(record.name).to_vec(),
        };
        let folder = match rock.mode {
            Some(mode) => mode & KIND == FOLDER_KIND,
            None => record.flags & DIRECTORY != 0,
        };
        let what = if let Some(block) = rock.child {
            What::Folder(self.moved(block, path)?)
        } else if folder {
            What::Folder(record.folder(self.block))
        } else {
            match rock.mode.map(|mode| mode & KIND) {
                Some(LINK_KIND) => What::Link(rock.link),
                Some(FILE_KIND) | None => match (rock.compressed, record.interleaved) {
                    (true, _) => What::Odd(Odd::Compressed),
                    (_, true) => What::Odd(Odd::Interleaved),
                    _ => What::File(parts),
                },
                // Devices, and the like.
                Some(_) => return Ok(None),
            }
        };
        Ok(Some(Raw { name, modified: record.modified(), image: 0, what }))
    }

    /// RRIP 4.1.5.1: the size of a folder that was moved is in its own first record.
    fn moved(&self, block: u64, path: Path<'_>) -> Result<Folder, Bad> {
        let at = block * self.block;
        let bytes = self.from.small(at, 2048, path)?;
        let own = Record::read(&bytes).filter(|r| r.name == [0]);
        own.map(|r| Folder { at, len: r.len }).ok_or_else(|| Bad::Damaged(path()))
    }

    fn rock(&self, system: &[u8], skip: usize, path: Path<'_>) -> Result<Rock, Bad> {
        let mut rock = Rock::default();
        let mut link_goes_on = false;
        let mut next = self.fields(system, skip, &mut rock, &mut link_goes_on);
        for _ in 0..CONTINUED {
            let Some((at, len)) = next.take() else { return Ok(rock) };
            // In one block (SUSP 5.1), so that it is small.
            if len > 2 * SECTOR {
                return Err(Bad::Damaged(path()));
            }
            let area = self.from.small(at, usize::try_from(len).unwrap_or(0), path)?;
            next = self.fields(&area, 0, &mut rock, &mut link_goes_on);
        }
        match next {
            None => Ok(rock),
            Some(_) => Err(Bad::Damaged(path())),
        }
    }

    /// Takes the fields of one area, and tells where the next one is, and its length.
    fn fields(
        &self,
        area: &[u8],
        skip: usize,
        rock: &mut Rock,
        link_goes_on: &mut bool,
    ) -> Option<(u64, u64)> {
        let mut next = None;
        for field in SystemUseIter::new(area, skip) {
            match field {
                SystemUseField::Terminator => break,
                SystemUseField::ContinuationArea(ce) => {
                    let at = u64::from(ce.sector.read()) * self.block;
                    next = Some((at + u64::from(ce.offset.read()), u64::from(ce.length.read())));
                }
                SystemUseField::PosixAttributes(px) => {
                    rock.mode = Some(px.file_mode.read());
                }
                SystemUseField::AlternateName(nm)
                    if !nm.flags.intersects(NmFlags::CURRENT | NmFlags::PARENT)
                        && rock.name.len() <= NAME_LIMIT =>
                {
                    rock.name.extend_from_slice(&nm.name);
                }
                SystemUseField::SymbolicLink(sl) if rock.link.len() <= PATH_LIMIT => {
                    for part in &sl.components {
                        component(part, &mut rock.link, link_goes_on);
                    }
                }
                SystemUseField::ChildLink(cl) => {
                    rock.child = Some(u64::from(cl.child_directory_location.read()));
                }
                SystemUseField::Relocated => rock.moved = true,
                SystemUseField::Unknown(header, _) if header.sig == *b"ZF" => {
                    rock.compressed = true;
                }
                _ => {}
            }
        }
        next
    }
}

/// RRIP 4.1.3.1. `goes_on`: the last one was the first half of a name.
fn component(part: &SlComponent, link: &mut Vec<u8>, goes_on: &mut bool) {
    let first = link.is_empty();
    if !first && !*goes_on && link.last() != Some(&b'/') {
        link.push(b'/');
    }
    *goes_on = part.flags.contains(SlComponentFlags::CONTINUE);
    if part.flags.contains(SlComponentFlags::ROOT) {
        link.push(b'/');
    } else if part.flags.contains(SlComponentFlags::PARENT) {
        link.extend_from_slice(b"..");
    } else if part.flags.contains(SlComponentFlags::CURRENT) {
        link.push(b'.');
    } else {
        link.extend_from_slice(&part.content);
    }
}

/// Without the version, `;1` (ECMA-119 7.5.1).
fn versionless(name: &[u8]) -> &[u8] {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let rest = &name[..name.len() - digits];
    rest.strip_suffix(b";").filter(|_| digits > 0).unwrap_or(name)
}

/// Without the dot that a name without an extension has, too.
fn plain(name: &[u8]) -> &[u8] {
    let name = versionless(name);
    name.strip_suffix(b".").filter(|n| !n.is_empty()).unwrap_or(name)
}
