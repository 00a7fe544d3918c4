//! Bytes of an image, by place. Whoever reads formats asks for no more than this.

use std::cell::{Cell, RefCell};
use std::io;

use super::Bad;

/// What an image is read through.
pub trait Source {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Fills `to` with the bytes from `at` on.
    ///
    /// # Errors
    /// The disk's, and an end before `to` is full.
    fn read(&self, to: &mut [u8], at: u64) -> io::Result<()>;
}

/// Bytes that are read at once where small structures lie close together.
const CHUNK: u64 = 128 << 10;

/// How often an image may be read over, and what one that is small may be read besides: a walk goes
/// over the lists of files once, so who needs more is led in circles.
const TIMES: u64 = 4;
const SLACK: u64 = 64 << 20;
/// Bytes of small structures that are looked at, of however large an image: two million blocks.
const LOOKED: u64 = 4 << 30;

/// The path that bytes belong to, for whoever complains of them.
pub type Path<'a> = &'a dyn Fn() -> String;

/// A source of which nothing is read that it does not have, in few large reads.
pub struct Reader<'a> {
    source: &'a dyn Source,
    /// What was read last of the small structures, and where it begins.
    chunk: RefCell<(u64, Vec<u8>)>,
    /// Bytes that were read, and those of small structures that were handed out.
    read: Cell<u64>,
    looked: Cell<u64>,
}

impl<'a> Reader<'a> {
    pub fn new(source: &'a dyn Source) -> Reader<'a> {
        Reader { source, chunk: RefCell::default(), read: Cell::new(0), looked: Cell::new(0) }
    }

    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// Whether it has all of these bytes.
    pub fn has(&self, at: u64, len: u64) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.size())
    }

    /// What may be read in all.
    fn most(&self) -> u64 {
        self.size().saturating_mul(TIMES).saturating_add(SLACK)
    }

    /// All of these bytes.
    ///
    /// # Errors
    /// [`Bad::Beyond`], [`Bad::Endless`] and [`Bad::Unreadable`]. The caller has bounded `len`.
    pub fn bytes(&self, at: u64, len: usize, path: Path<'_>) -> Result<Vec<u8>, Bad> {
        if !self.has(at, len as u64) {
            return Err(Bad::Beyond(path()));
        }
        spend(&self.read, len, self.most(), path)?;
        let mut bytes = vec![0; len];
        self.source.read(&mut bytes, at).map_err(|e| Bad::Unreadable(e.to_string()))?;
        Ok(bytes)
    }

    /// The same for a small structure: those next to it are most likely asked for next.
    pub fn small(&self, at: u64, len: usize, path: Path<'_>) -> Result<Vec<u8>, Bad> {
        if !self.has(at, len as u64) || len as u64 > CHUNK / 2 {
            return self.bytes(at, len, path);
        }
        spend(&self.looked, len, self.most().min(LOOKED + SLACK), path)?;
        let mut chunk = self.chunk.borrow_mut();
        let end = at + len as u64;
        if at < chunk.0 || end > chunk.0 + chunk.1.len() as u64 {
            let most = CHUNK.min(self.size() - at);
            *chunk = (at, self.bytes(at, usize::try_from(most).unwrap_or(len), path)?);
        }
        let from = usize::try_from(at - chunk.0).unwrap_or(usize::MAX);
        chunk.1.get(from..from + len).map(<[u8]>::to_vec).ok_or_else(|| Bad::Beyond(path()))
    }
}

fn spend(spent: &Cell<u64>, len: usize, most: u64, path: Path<'_>) -> Result<(), Bad> {
    spent.set(spent.get().saturating_add(len as u64));
    if spent.get() > most { Err(Bad::Endless(path())) } else { Ok(()) }
}

/// The little-endian number at `at`; none where the bytes end before.
pub fn le16(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_le_bytes)
}

pub fn le32(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_le_bytes)
}

pub fn le64(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Seconds since 1970 of a civil time that is `offset` minutes ahead of UTC; `None` for one that is
/// none, and for one that 32 bits do not hold.
pub fn seconds(date: [i16; 3], time: [u8; 3], offset: i16) -> Option<u32> {
    let [year, month, day] = date;
    let [hour, minute, second] = time.map(|n| i8::try_from(n).unwrap_or(-1));
    let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let utc = jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_second();
    u32::try_from(utc - i64::from(offset) * 60).ok().filter(|s| *s > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Source for Zeros {
        fn size(&self) -> u64 {
            1 << 20
        }

        fn read(&self, to: &mut [u8], _: u64) -> io::Result<()> {
            to.fill(0);
            Ok(())
        }
    }

    #[test]
    fn an_image_is_not_read_again_and_again() {
        let most = 4 * Zeros.size() + SLACK;
        // To and fro, so that nothing is near what was read last; and where all of it is.
        for step in [512 << 10, 0] {
            let from = Reader::new(&Zeros);
            let read = |n: u64| from.small(n % 2 * step, 2048, &|| "/a".into());
            let end = (0..1 << 20).map(read).find_map(Result::err);
            assert_eq!(end, Some(Bad::Endless("/a".into())), "{step}");
            assert!(from.read.get().max(from.looked.get()) <= most + CHUNK, "{step}");
        }
        let from = Reader::new(&Zeros);
        let mut all = (0..1 << 20).map(|_| from.bytes(0, 1 << 20, &String::new));
        assert_eq!(all.position(|read| read.is_err()), Some(4 + 64));
    }
}
