//! Images of disks made by hand, byte by byte: what no maker makes, and what no maker should.

/// Bytes of a sector, and of a block of UDF.
pub const SECTOR: usize = 2048;

// --- ISO 9660 by hand ----------------------------------------------------------------------------

/// A directory record (ECMA-119 section 9.1) with what Rock Ridge adds to it.
#[derive(Clone, Debug)]
pub struct Record {
    pub name: Vec<u8>,
    pub extent: u32,
    pub len: u32,
    pub flags: u8,
    /// The system use field (SUSP).
    pub more: Vec<u8>,
}

pub const FOLDER: u8 = 2;
pub const GOES_ON: u8 = 0x80;

impl Record {
    pub fn file(name: &str, extent: u32, len: u32) -> Record {
        Record { name: name.into(), extent, len, flags: 0, more: Vec::new() }
    }

    /// A folder: the `nth` of the image.
    pub fn folder(name: &str, nth: usize) -> Record {
        let (extent, len) = (place(nth), (ROOM * SECTOR) as u32);
        Record { name: name.into(), extent, len, flags: FOLDER, more: Vec::new() }
    }

    pub fn flags(mut self, flags: u8) -> Record {
        self.flags |= flags;
        self
    }

    /// A Rock Ridge name (RRIP 1.12 section 4.1.4).
    pub fn named(self, name: &[u8]) -> Record {
        let mut entry = vec![b'N', b'M', 5 + name.len() as u8, 1, 0];
        entry.extend(name);
        self.with(&entry)
    }

    /// A symbolic link of such component records (section 4.1.3): flags and name.
    pub fn link(self, components: &[(u8, &[u8])]) -> Record {
        let mut parts = Vec::new();
        for (flags, name) in components {
            parts.extend([*flags, name.len() as u8]);
            parts.extend(*name);
        }
        let mut entry = vec![b'S', b'L', 5 + parts.len() as u8, 1, 0];
        entry.extend(parts);
        // POSIX's mode says what it is (section 4.1.1).
        let mut mode = vec![b'P', b'X', 36, 1];
        for n in [0o120_777_u32, 1, 0, 0] {
            mode.extend(n.to_le_bytes());
            mode.extend(n.to_be_bytes());
        }
        self.with(&mode).with(&entry)
    }

    pub fn with(mut self, entry: &[u8]) -> Record {
        self.more.extend(entry);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0, 0];
        both(&mut out, self.extent);
        both(&mut out, self.len);
        out.extend([126, 11, 21, 12, 0, 0, 0, self.flags, 0, 0]);
        out.extend([1, 0, 0, 1, self.name.len() as u8]);
        out.extend(&self.name);
        if out.len() % 2 == 1 {
            out.push(0);
        }
        out.extend(&self.more);
        if out.len() % 2 == 1 {
            out.push(0);
        }
        out[0] = u8::try_from(out.len()).unwrap();
        out
    }
}

/// A number in both orders of bytes (ECMA-119 section 7.3.3).
pub fn both(out: &mut Vec<u8>, n: u32) {
    out.extend(n.to_le_bytes());
    out.extend(n.to_be_bytes());
}

/// Sectors that each folder has.
const ROOM: usize = 2;

/// Where the `nth` folder is; the first is the root.
pub const fn place(nth: usize) -> u32 {
    20 + (nth * ROOM) as u32
}

/// Sectors full of their numbers.
fn numbered(sectors: u32) -> Vec<u8> {
    (0..sectors).flat_map(|n| n.to_be_bytes().repeat(SECTOR / 4)).collect()
}

/// An image of so many sectors with these folders, the first of which is the root; the first
/// sector behind the last folder, [`place`] of their number, is the first that is free. Each sector
/// is full of its own number, so that whatever is read tells where it is from.
pub fn iso(folders: &[Vec<Record>], sectors: u32) -> Vec<u8> {
    let mut image = numbered(sectors);
    image[..place(folders.len()) as usize * SECTOR].fill(0);
    for (nth, records) in folders.iter().enumerate() {
        let here = place(nth) as usize * SECTOR;
        let mut at = here;
        // What Rock Ridge is known by: SP and ER in the root's first record (SUSP 1.12 section 5).
        let mut own = Record::folder("\0", nth);
        if nth == 0 {
            own = own.with(b"SP\x07\x01\xbe\xef\0").with(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
        }
        let parent = Record::folder("\x01", 0);
        for record in [own, parent].iter().chain(records) {
            let bytes = record.bytes();
            // A record does not cross into the next sector (ECMA-119 section 6.8.1.1).
            if at % SECTOR + bytes.len() > SECTOR {
                at = at.next_multiple_of(SECTOR);
            }
            assert!(at + bytes.len() <= here + ROOM * SECTOR, "folder {nth} is full");
            image[at..at + bytes.len()].copy_from_slice(&bytes);
            at += bytes.len();
        }
    }
    volume(&mut image, 16, 1, sectors);
    let end = 17 * SECTOR;
    image[end..end + 7].copy_from_slice(b"\xffCD001\x01");
    image
}

/// A volume descriptor (ECMA-119 section 8.4) whose root is the first folder.
fn volume(image: &mut [u8], sector: usize, kind: u8, sectors: u32) {
    let mut out = vec![kind];
    out.extend(b"CD001\x01\0");
    out.extend([b' '; 32]);
    out.extend(format!("{:32}", "BY_HAND").bytes());
    out.extend([0; 8]);
    both(&mut out, sectors);
    out.extend([0; 32]);
    out.extend([1, 0, 0, 1, 1, 0, 0, 1]);
    out.extend([0, 8, 8, 0]);
    // The path table (section 9.4) names the root alone: who follows the folders needs none.
    both(&mut out, 10);
    out.extend(18_u32.to_le_bytes());
    out.extend([0; 4]);
    out.extend(19_u32.to_be_bytes());
    out.extend([0; 4]);
    out.extend(Record::folder("\0", 0).bytes());
    out.resize(813, b' ');
    for _ in 0..4 {
        out.extend(b"0000000000000000\0");
    }
    out.extend([1, 0]);
    image[sector * SECTOR..][..out.len()].copy_from_slice(&out);
    let mut root = vec![1, 0];
    root.extend(place(0).to_le_bytes());
    root.extend([1, 0, 0, 0]);
    image[18 * SECTOR..][..10].copy_from_slice(&root);
    root[2..6].copy_from_slice(&place(0).to_be_bytes());
    root[6..8].copy_from_slice(&[0, 1]);
    image[19 * SECTOR..][..10].copy_from_slice(&root);
}

// --- UDF by hand ---------------------------------------------------------------------------------

/// Where the bytes of a file are said to be: its allocation descriptors (ECMA-167 4/14.14), of
/// blocks of the partition and bytes.
#[derive(Clone, Debug)]
pub enum Data {
    Short(Vec<(u32, u32)>),
    Long(Vec<(u32, u32)>),
    /// In the file's entry itself (4/14.6.8).
    Within(Vec<u8>),
}

/// The first sector of the partition.
pub const PARTITION: usize = 257;

/// The first block of the partition that is free, with so many files.
pub const fn free(files: usize) -> u32 {
    4 + files as u32
}

/// A UDF volume (revision 1.02, or 2.01 with extended file entries) of so many sectors with these
/// files in its root folder. What is free is filled as [`iso`] does.
pub fn udf(files: &[(&str, Data)], extended: bool, sectors: u32) -> Vec<u8> {
    let mut image = numbered(sectors);
    image[..(PARTITION + free(files.len()) as usize) * SECTOR].fill(0);
    for (sector, word) in [(16, b"BEA01"), (17, b"NSR02"), (18, b"TEA01")] {
        image[sector * SECTOR + 1..][..5].copy_from_slice(word);
        image[sector * SECTOR + 6] = 1;
    }
    let mut put = |sector: usize, tag: u16, location: u32, body: Fields| {
        let bytes = body.tagged(tag, location);
        image[sector * SECTOR..][..bytes.len()].copy_from_slice(&bytes);
    };
    let volume = |n: usize| 32 + n;
    let anchor = Fields::new(512).le(16, 16 * SECTOR as u64, 4).le(20, 32, 4);
    put(256, 2, 256, anchor);
    let text = b"OSTA Compressed Unicode";
    let primary = Fields::new(512).string(24, 32, "BY_HAND").le(56, 1, 2).le(58, 1, 2).le(60, 2, 2);
    let primary =
        primary.le(62, 2, 2).string(72, 128, "0123456789ABCDEF").at(201, text).at(265, text);
    put(volume(0), 1, 32, primary);
    let partition = Fields::new(512).le(20, 1, 2).at(25, b"+NSR02").le(184, 1, 4);
    let blocks = u64::from(sectors) - PARTITION as u64;
    put(volume(1), 5, 33, partition.le(188, PARTITION as u64, 4).le(192, blocks, 4));
    let logical =
        Fields::new(512).at(21, text).string(84, 128, "BY_HAND").le(212, SECTOR as u64, 4);
    let logical = logical.at(217, b"*OSTA UDF Compliant").le(240, 0x102, 2).long(248, 0, 2048);
    put(volume(2), 6, 34, logical.le(264, 6, 4).le(268, 1, 4).at(440, &[1, 6, 1, 0, 0, 0]));
    put(volume(3), 8, 35, Fields::new(512));
    let set = Fields::new(512).at(49, text).string(112, 128, "BY_HAND").at(241, text);
    let set = set.string(304, 32, "BY_HAND").long(400, 1, 2048).at(417, b"*OSTA UDF Compliant");
    put(PARTITION, 256, 0, set.le(440, 0x102, 2));

    // The folder's own entry is block 1, its records are blocks 2 and 3, the files' entries follow.
    let mut records = record(2, "", 8 | 2, 1);
    for (nth, (name, _)) in files.iter().enumerate() {
        records.extend(record(2, name, 0, free(nth)));
    }
    assert!(records.len() <= 2 * SECTOR, "the folder is full");
    let data = Data::Short(vec![(2, records.len() as u32)]);
    put(PARTITION + 1, if extended { 266 } else { 261 }, 1, entry(4, &data, extended));
    for (nth, (_, data)) in files.iter().enumerate() {
        let block = free(nth);
        let tag = if extended { 266 } else { 261 };
        put(PARTITION + block as usize, tag, block, entry(5, data, extended));
    }
    image[(PARTITION + 2) * SECTOR..][..records.len()].copy_from_slice(&records);
    image
}

/// A UDF volume whose root has so many names of one file, and that file's allocation descriptors are
/// in this many extents that lead to one another (4/14.5), the last one to the first in a `ring`.
/// Each has 250 of them, none of which follows the one before.
pub fn crowd(names: u32, extents: u32, ring: bool) -> Vec<u8> {
    const GOES_ON: u32 = 0xc000_0800;
    let first = free(1);
    let folder = first + extents;
    let records: Vec<u8> = (0..names)
        .fold(record(2, "", 8 | 2, 1), |all, n| [all, record(2, &format!("n{n}"), 0, 4)].concat());
    let sectors = PARTITION as u32 + folder + records.len().div_ceil(SECTOR) as u32 + 1;
    let mut image = udf(&[("one", Data::Short(vec![(first, GOES_ON)]))], false, sectors);
    let mut put = |block: u32, bytes: &[u8]| {
        image[(PARTITION + block as usize) * SECTOR..][..bytes.len()].copy_from_slice(bytes);
    };
    let root = Data::Short(vec![(folder, records.len() as u32)]);
    put(1, &entry(4, &root, false).tagged(261, 1));
    put(folder, &records);
    for n in 0..extents {
        let next = if n + 1 < extents { Some(first + n + 1) } else { ring.then_some(first) };
        let pairs = (0..250).map(|at| (2048, at % 2 * 2)).chain(next.map(|at| (GOES_ON, at)));
        let list: Vec<u8> =
            pairs.flat_map(|(len, at)| [len.to_le_bytes(), at.to_le_bytes()].concat()).collect();
        let extent = Fields::new(24 + list.len()).le(20, list.len() as u64, 4).at(24, &list);
        put(first + n, &extent.tagged(258, first + n));
    }
    // It ends in the last of them.
    if !ring {
        let len = u64::from(extents) * 250 * 2048;
        let one = entry(5, &Data::Short(vec![(first, GOES_ON)]), false).le(56, len, 8);
        put(4, &one.tagged(261, 4));
    }
    image
}

/// A file entry (4/14.9), or an extended one (4/14.17), of a folder (4) or file (5).
fn entry(kind: u8, data: &Data, extended: bool) -> Fields {
    let list = |list: &[(u32, u32)], long: bool| -> Vec<u8> {
        let one = |(block, len): &(u32, u32)| {
            let mut bytes = [len.to_le_bytes(), block.to_le_bytes()].concat();
            bytes.resize(if long { 16 } else { 8 }, 0);
            bytes
        };
        list.iter().flat_map(one).collect()
    };
    let total = |list: &[(u32, u32)]| list.iter().map(|(_, len)| u64::from(*len)).sum();
    let (flags, descriptors, len): (u64, Vec<u8>, u64) = match data {
        Data::Short(l) => (0, list(l, false), total(l)),
        Data::Long(l) => (1, list(l, true), total(l)),
        Data::Within(bytes) => (3, bytes.clone(), bytes.len() as u64),
    };
    let (sizes, start) = if extended { (208, 216) } else { (168, 176) };
    let fields = Fields::new(start + descriptors.len()).le(20, 4, 2).le(24, 1, 2).at(27, &[kind]);
    let fields = fields.le(34, flags, 2).le(48, 1, 2).le(56, len, 8);
    let fields = if extended { fields.le(64, len, 8) } else { fields };
    fields.le(sizes + 4, descriptors.len() as u64, 4).at(start, &descriptors)
}

/// A file identifier descriptor (4/14.4).
fn record(location: u32, name: &str, characteristics: u8, block: u32) -> Vec<u8> {
    let mut text = vec![];
    if name.bytes().all(|b| b.is_ascii()) {
        text.extend(
            [8].iter().chain(name.as_bytes()).take(name.len() + usize::from(!name.is_empty())),
        );
    } else {
        text.push(16);
        text.extend(name.encode_utf16().flat_map(u16::to_be_bytes));
    }
    let fields = Fields::new((38 + text.len()).next_multiple_of(4)).le(16, 1, 2);
    let fields = fields.at(18, &[characteristics, text.len() as u8]).long(20, block, 2048);
    fields.at(38, &text).tagged(257, location)
}

/// A descriptor that is filled in at its offsets.
struct Fields(Vec<u8>);

impl Fields {
    fn new(len: usize) -> Fields {
        Fields(vec![0; len])
    }

    fn at(mut self, at: usize, bytes: &[u8]) -> Fields {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn le(self, at: usize, n: u64, len: usize) -> Fields {
        self.at(at, &n.to_le_bytes()[..len])
    }

    /// A dstring (1/7.2.12): its last byte is its length.
    fn string(self, at: usize, room: usize, text: &str) -> Fields {
        let fields = self.at(at, &[8]).at(at + 1, text.as_bytes());
        fields.at(at + room - 1, &[text.len() as u8 + 1])
    }

    /// A long allocation descriptor of one extent.
    fn long(self, at: usize, block: u32, len: u32) -> Fields {
        self.le(at, len.into(), 4).le(at + 4, block.into(), 4)
    }

    /// With its tag (3/7.2) in front: checksum and CRC are right.
    fn tagged(self, tag: u16, location: u32) -> Vec<u8> {
        let crc = crc(&self.0[16..]);
        let len = self.0.len() as u64 - 16;
        let mut out = self.le(0, tag.into(), 2).le(2, 2, 2).le(8, crc.into(), 2).le(10, len, 2);
        out = out.le(12, location.into(), 4);
        out.0[4] = out.0[..16].iter().fold(0, |sum: u8, b| sum.wrapping_add(*b));
        out.0
    }
}

/// The CRC of descriptors (1/7.2.6): x^16 + x^12 + x^5 + 1, from 0.
pub fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}
