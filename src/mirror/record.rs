//! The header block of an object's file, as bytes and back.
//!
//! A block has two slots, written in turn, so that a write that is torn leaves the older one. A
//! slot is, all numbers little endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `plobject` |
//! | 8 | version, 1 |
//! | 8 | sequence number: the higher of two whole slots is the newer |
//! | 8 | length of the text |
//! | 32 | SHA-256 of the four fields above and the text |
//! | | the text: [`Header`] as JSON |

use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use sha2::{Digest as _, Sha256};

use super::Digest;
use super::ranges::Ranges;

/// Where the body begins, in bytes: whole pages, so that it leaves by sendfile as it lies in the
/// page cache.
pub const BODY: u64 = 16 * 1024;
/// Bytes of one of the two slots.
pub const SLOT: usize = BODY as usize / 2;
/// Bytes of an [`About`] as JSON. The rest of a slot is for the ranges at their longest.
pub const ABOUT_LIMIT: usize = 5000;
const MAGIC: &[u8; 8] = b"plobject";
const VERSION: u64 = 1;
const FIELDS: usize = 32;
const TEXT: usize = FIELDS + 32;

/// The name of an object: of its content, or of the place it was asked for at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 32]);

/// A name that is no object's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an object's name is 64 hexadecimal digits in small letters")]
pub struct NoId;

impl Id {
    /// Payload: whoever lists the digest means the same bytes.
    pub fn content(digest: &Digest) -> Id {
        Id::hash(&["content", &digest.to_string()])
    }

    /// Metadata: `variant` tells apart what one path answers to different requests (Vary), and is
    /// empty otherwise.
    pub fn named(mirror: &str, path: &str, variant: &str) -> Id {
        Id::hash(&["named", mirror, path, variant])
    }

    /// Each part with its length before it: no two lists of parts are the same bytes.
    fn hash(parts: &[&str]) -> Id {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Id(hasher.finalize().into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At each hit: not by way of 32 formatted strings.
        let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
        self.0.iter().try_for_each(|b| f.write_char(digit(b >> 4)).and(f.write_char(digit(*b))))
    }
}

impl FromStr for Id {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Id, NoId> {
        let small = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match Digest::from_hex(text) {
            Ok(Digest::Sha256(bytes)) if small => Ok(Id(bytes)),
            _ => Err(NoId),
        }
    }
}

/// What is known of an object beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct About {
    pub mirror: String,
    pub path: String,
    /// Where it came from.
    pub url: String,
    /// Of the response (RFC 9110 section 15).
    pub status: u16,
    /// Those of the response that are kept; names in small letters.
    pub headers: Vec<(String, String)>,
    /// Those of the request that the response's Vary names.
    pub request: Vec<(String, String)>,
    #[serde(with = "text")]
    pub digest: Option<Digest>,
    /// Bytes of the body; `None` until they are known.
    pub len: Option<u64>,
    pub requested: Timestamp,
    pub received: Timestamp,
    /// Kept whatever is evicted.
    pub pinned: bool,
}

impl About {
    /// The first header of this name, in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn etag(&self) -> Option<&str> {
        self.header("etag")
    }

    pub fn last_modified(&self) -> Option<&str> {
        self.header("last-modified")
    }

    /// What an If-Range may carry (RFC 9110 section 13.1.5): a strong ETag, or else a
    /// Last-Modified that is one.
    pub fn strong(&self) -> Option<&str> {
        match self.etag() {
            Some(etag) => (!etag.starts_with("W/")).then_some(etag),
            None => self.last_modified().filter(|at| self.is_strong_date(at)),
        }
    }

    /// A file could change twice within the second of its date (RFC 9110 section 8.8.2.2).
    fn is_strong_date(&self, modified: &str) -> bool {
        let parse = |text: &str| DateTimeParser::new().parse_timestamp(text).ok();
        match (parse(modified), self.header("date").and_then(parse)) {
            (Some(modified), Some(date)) => date.as_second() > modified.as_second(),
            _ => false,
        }
    }

    /// Whether bytes of the one are bytes of the other: of one length, and of one digest or else
    /// one strong validator.
    pub fn same_bytes(&self, other: &About) -> bool {
        let lengths = self.len == other.len;
        match (self.digest, other.digest) {
            (Some(one), Some(two)) => lengths && one == two,
            _ => {
                lengths
                    && self.len.is_some()
                    && self.strong().is_some_and(|s| other.strong() == Some(s))
            }
        }
    }
}

/// `Digest` as its text.
mod text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    use super::Digest;

    pub fn serialize<S: Serializer>(digest: &Option<Digest>, s: S) -> Result<S::Ok, S::Error> {
        digest.map(|d| d.to_string()).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Digest>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|t| t.parse().map_err(Error::custom)).transpose()
    }
}

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Header {
    /// The file's own name: one that was copied elsewhere is found out.
    #[serde(with = "name")]
    pub id: Id,
    /// Whether every byte of the body is there. Believed only of a file in its final place.
    pub complete: bool,
    /// Of a partial file: the bytes that are on the disk.
    pub covered: Ranges,
    pub about: About,
}

/// `Id` as its text.
mod name {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    use super::Id;

    pub fn serialize<S: Serializer>(id: &Id, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Id, D::Error> {
        String::deserialize(d)?.parse().map_err(Error::custom)
    }
}

/// What is wrong with a file that is not as we left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it does not begin with a header block of ours")]
    Strange,
    #[error("its header block is of another version of pilotlight")]
    Version,
    #[error("neither slot of its header block is whole")]
    Torn,
    #[error("its header block is that of another object")]
    Misnamed,
    #[error("its header block says that it is not complete")]
    Incomplete,
    #[error("it holds fewer bytes than its header block says")]
    Short,
    #[error("it holds more bytes than its header block says")]
    Long,
    #[error("it is no file of ours")]
    Stray,
    #[error("its bytes are not those of its digest")]
    Digest,
}

impl Damage {
    /// In the name of the file when it is set aside.
    pub fn name(self) -> &'static str {
        match self {
            Damage::Strange => "strange",
            Damage::Version => "version",
            Damage::Torn => "torn",
            Damage::Misnamed => "misnamed",
            Damage::Incomplete => "incomplete",
            Damage::Short => "short",
            Damage::Long => "long",
            Damage::Stray => "stray",
            Damage::Digest => "digest",
        }
    }
}

/// An [`About`] that no slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the headers and names of this object take {0} bytes, and {ABOUT_LIMIT} is the limit")]
pub struct TooLong(pub usize);

/// A slot, to be written at [`place`] of its sequence number.
///
/// # Errors
/// Where what is said of the object is too long to be kept.
pub fn write(header: &Header, sequence: u64) -> Result<Vec<u8>, TooLong> {
    // Serialising strings and numbers into memory cannot fail.
    let about = serde_json::to_vec(&header.about).unwrap_or_default().len();
    if about > ABOUT_LIMIT {
        return Err(TooLong(about));
    }
    let text = serde_json::to_vec(header).unwrap_or_default();
    let mut slot = Vec::with_capacity(TEXT + text.len());
    slot.extend(MAGIC);
    for number in [VERSION, sequence, text.len() as u64] {
        slot.extend(number.to_le_bytes());
    }
    let sum = checksum(&slot, &text);
    slot.extend(sum);
    slot.extend(text);
    Ok(slot)
}

/// Where in the file the slot of this sequence number is.
pub fn place(sequence: u64) -> u64 {
    sequence % 2 * SLOT as u64
}

/// The newer of the whole slots of a block, with its sequence number. `block` may be shorter than
/// [`BODY`], as the file may.
///
/// # Errors
/// What is wrong with it, where neither is whole.
pub fn read(block: &[u8]) -> Result<(Header, u64), Damage> {
    let (first, second) = block.split_at(block.len().min(SLOT));
    let mut slots = [slot(first), slot(second)];
    // A whole one before none, the higher number first.
    slots.sort_by_key(|s| s.as_ref().ok().map(|(sequence, _)| *sequence));
    let [older, newer] = slots;
    let worse = match (&older, &newer) {
        (Err(a), Err(b)) => Some(if *a == Damage::Strange { *b } else { *a }),
        _ => None,
    };
    for (sequence, text) in [newer, older].into_iter().flatten() {
        if let Ok(header) = serde_json::from_slice(text) {
            return Ok((header, sequence));
        }
    }
    Err(worse.unwrap_or(Damage::Version))
}

/// Whether a block that cannot be read is one whose first header never was whole: nothing was ever
/// said of the file, as a crash leaves one that is new.
pub fn is_unwritten(block: &[u8]) -> bool {
    let (first, second) = block.split_at(block.len().min(SLOT));
    let blank = |bytes: &[u8]| bytes.iter().all(|b| *b == 0);
    let begun = |bytes: &[u8]| bytes.starts_with(MAGIC) || blank(&bytes[..bytes.len().min(512)]);
    blank(first) && begun(second) || begun(first) && blank(second)
}

fn slot(bytes: &[u8]) -> Result<(u64, &[u8]), Damage> {
    if !bytes.starts_with(MAGIC) {
        return Err(Damage::Strange);
    }
    let number = |at: usize| {
        let field = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
        field.map(u64::from_le_bytes).ok_or(Damage::Torn)
    };
    let (version, sequence, len) = (number(8)?, number(16)?, number(24)?);
    let sum = bytes.get(FIELDS..TEXT).ok_or(Damage::Torn)?;
    let end = usize::try_from(len).ok().and_then(|len| len.checked_add(TEXT));
    let text = end.and_then(|end| bytes.get(TEXT..end)).ok_or(Damage::Torn)?;
    if sum != checksum(&bytes[..FIELDS], text) {
        return Err(Damage::Torn);
    }
    if version == VERSION { Ok((sequence, text)) } else { Err(Damage::Version) }
}

fn checksum(fields: &[u8], text: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(fields).chain_update(text).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            mirror: "debian".into(),
            path: "dists/bookworm/InRelease".into(),
            url: "http://deb.example/debian/dists/bookworm/InRelease".into(),
            status: 200,
            headers: vec![
                ("etag".into(), "\"abc\"".into()),
                ("date".into(), "Sat, 21 Nov 2026 10:00:01 GMT".into()),
                ("last-modified".into(), "Sat, 21 Nov 2026 10:00:00 GMT".into()),
            ],
            request: vec![],
            digest: Some(Digest::sha256(b"x")),
            len: Some(100),
            requested: "2026-11-21T10:00:00Z".parse().unwrap(),
            received: "2026-11-21T10:00:01Z".parse().unwrap(),
            pinned: false,
        }
    }

    fn header(n: u64) -> Header {
        Header {
            id: Id::content(&Digest::sha256(b"x")),
            complete: false,
            covered: (0..n).into(),
            about: about(),
        }
    }

    fn block(slots: &[u64]) -> Vec<u8> {
        let mut block = vec![0; BODY as usize];
        for n in slots {
            let slot = write(&header(*n), *n).unwrap();
            let at = place(*n) as usize;
            block[at..at + slot.len()].copy_from_slice(&slot);
        }
        block
    }

    #[test]
    fn the_newer_slot_counts() {
        for (slots, newest) in [(vec![0], 0), (vec![0, 1], 1), (vec![0, 1, 2], 2), (vec![3], 3)] {
            assert_eq!(read(&block(&slots)), Ok((header(newest), newest)));
        }
        let mut short = block(&[4]);
        short.truncate(1000);
        assert_eq!(read(&short), Ok((header(4), 4)), "as long as a file without a body");
    }

    /// Every bit of a slot.
    #[test]
    fn a_flipped_bit_leaves_the_other_slot_or_is_found() {
        let (one, two) = (block(&[4]), block(&[4, 5]));
        let len = write(&header(5), 5).unwrap().len();
        for bit in 0..len * 8 {
            let (at, mask) = (bit / 8, 1 << (bit % 8));
            let mut damaged = two.clone();
            damaged[SLOT + at] ^= mask;
            assert_eq!(read(&damaged), Ok((header(4), 4)), "bit {bit}");
            let mut damaged = one.clone();
            damaged[at] ^= mask;
            let wanted = if at < MAGIC.len() { Damage::Strange } else { Damage::Torn };
            assert_eq!(read(&damaged), Err(wanted), "bit {bit}");
        }
    }

    #[test]
    fn a_torn_write_leaves_the_older_slot() {
        let (old, new) = (block(&[4, 5]), block(&[5, 6]));
        for at in (0..SLOT).step_by(61) {
            let mut torn = new.clone();
            torn[at..SLOT].copy_from_slice(&old[at..SLOT]);
            let (found, sequence) = read(&torn).unwrap();
            assert!(sequence >= 5 && found == header(sequence), "at {at}");
        }
    }

    #[test]
    fn a_first_header_that_never_was_whole() {
        let whole = block(&[0]);
        for at in [0, 8, 100, 512, 600] {
            let mut torn = whole.clone();
            torn[at..SLOT].fill(0);
            assert!(read(&torn).is_err() && is_unwritten(&torn), "torn at {at}");
        }
        let mut later = whole.clone();
        later[..512].fill(0);
        assert!(read(&later).is_err() && is_unwritten(&later));
        assert!(is_unwritten(b""));
        let mut both = block(&[0, 1]);
        both[100] ^= 1;
        both[SLOT + 100] ^= 1;
        assert!(read(&both).is_err() && !is_unwritten(&both));
        assert!(!is_unwritten(b"somebody's letter"));
    }

    #[test]
    fn strange_bytes_are_no_header() {
        assert_eq!(read(b""), Err(Damage::Strange));
        assert_eq!(read(&[b'x'; 20_000]), Err(Damage::Strange));
        assert_eq!(read(MAGIC), Err(Damage::Torn));
        let mut long = block(&[0]);
        long[24..32].fill(255);
        assert_eq!(read(&long), Err(Damage::Torn));
        // A later version, with a checksum that is right.
        let mut slot = write(&header(0), 0).unwrap();
        slot[8] = 2;
        let sum = checksum(&slot[..FIELDS], &slot[TEXT..]);
        slot[FIELDS..TEXT].copy_from_slice(&sum);
        assert_eq!(read(&slot), Err(Damage::Version));
    }

    #[test]
    fn the_largest_header_fits_its_slot() {
        let mut header = header(0);
        for n in 0..super::super::ranges::LIMIT as u64 {
            let end = u64::MAX - n * 3;
            header.covered.insert(end - 1..end);
        }
        header.about.path = String::new();
        let used = serde_json::to_vec(&header.about).unwrap().len();
        header.about.path = "p".repeat(ABOUT_LIMIT - used);
        let slot = write(&header, u64::MAX).unwrap();
        assert!(slot.len() <= SLOT, "{}", slot.len());
        assert_eq!(read(&slot), Ok((header.clone(), u64::MAX)));
        header.about.path.push('p');
        assert_eq!(write(&header, 0), Err(TooLong(ABOUT_LIMIT + 1)));
    }

    #[test]
    fn names_differ_where_anything_differs() {
        let all = [
            Id::named("a", "bc", ""),
            Id::named("ab", "c", ""),
            Id::named("a", "b", "c"),
            Id::content(&Digest::sha256(b"")),
            Id::content(&Digest::of(b"", Digest::Sha512([0; 64]))),
        ];
        for (i, id) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other != id));
            assert_eq!(id.to_string().parse(), Ok(*id));
            assert_eq!(id.to_string().to_uppercase().parse::<Id>(), Err(NoId));
        }
        for bad in ["", "..", "../../etc/passwd", &"g".repeat(64), &"a".repeat(128)] {
            assert_eq!(bad.parse::<Id>(), Err(NoId), "{bad}");
        }
    }

    fn with(headers: &[(&str, &str)], digest: Option<Digest>, len: Option<u64>) -> About {
        let headers = headers.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        About { headers, digest, len, ..about() }
    }

    #[test]
    fn bytes_are_the_same_by_digest_or_strong_validator() {
        let (x, y) = (Some(Digest::sha256(b"x")), Some(Digest::sha256(b"y")));
        let etag = [("etag", "\"1\"")];
        let weak = [("etag", "W/\"1\"")];
        let date = "Sat, 21 Nov 2026 10:00:00 GMT";
        let dated = [("last-modified", date), ("date", "Sat, 21 Nov 2026 10:00:01 GMT")];
        let at_once = [("last-modified", date), ("date", date)];
        let none: [(&str, &str); 0] = [];
        let long = Some(9);
        for (headers, digest, len, same) in [
            (&etag[..], None, long, true),
            (&etag, None, None, false),
            (&weak, None, long, false),
            (&dated, None, long, true),
            (&dated[..1], None, long, false),
            (&at_once, None, long, false),
            (&none, None, long, false),
            (&none, x, long, true),
            (&weak, x, None, true),
        ] {
            let about = with(headers, digest, len);
            assert_eq!(about.same_bytes(&about), same, "{headers:?} {digest:?} {len:?}");
        }
        assert!(!with(&etag, x, long).same_bytes(&with(&etag, y, long)));
        assert!(!with(&none, x, long).same_bytes(&with(&none, x, Some(8))));
        assert!(!with(&etag, None, long).same_bytes(&with(&[("etag", "\"2\"")], None, long)));
        assert!(with(&etag, x, long).same_bytes(&with(&etag, None, long)));
        assert!(!with(&etag, None, long).same_bytes(&with(&dated, None, long)));
    }
}
