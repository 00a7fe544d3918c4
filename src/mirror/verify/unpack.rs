//! Packed indexes as a stream that ends before it hurts: who packs 10 GiB of zeros into 10 MiB
//! gets a fault.

use std::io::{self, BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::{Fault, said};

/// The most that an index may unpack to, in bytes.
const UNPACKED: u64 = 1 << 30;
/// The most that a byte of it may unpack to, above what every index may have. Real ones have 30.
const RATIO: u64 = 250;
const SMALL: u64 = 16 << 20;
/// The most that one line or one tag may be, in bytes.
const ITEM: u64 = 4 << 20;
/// The most memory that a decoder may take for its window, in bytes. xz -9 takes 65 MiB.
const WINDOW: u64 = 128 << 20;
/// The most frames of one Zstandard file: each takes a window of its own.
const FRAMES: u32 = 1000;
/// What is unpacked at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// How a file is packed, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    // In the order of preference: the smallest first.
    Xz,
    Zstd,
    Gzip,
    Plain,
}

impl Packing {
    /// The packing and the name without it. None: packed as we can't read it.
    pub fn of(path: &str) -> Option<(Packing, &str)> {
        let (stem, extension) = path.rsplit_once('.').unwrap_or((path, ""));
        match extension {
            "xz" => Some((Packing::Xz, stem)),
            "zst" => Some((Packing::Zstd, stem)),
            "gz" => Some((Packing::Gzip, stem)),
            "bz2" | "lzma" | "lz4" | "zck" => None,
            _ => Some((Packing::Plain, path)),
        }
    }
}

/// The text of an index.
pub struct Unpacked<'a> {
    inner: BufReader<Box<dyn Read + 'a>>,
    left: u64,
    limit: u64,
    item: u64,
}

/// Unpacks `bytes` as it is read.
pub fn unpack(packing: Packing, bytes: &[u8]) -> Result<Unpacked<'_>, Fault> {
    let inner: Box<dyn Read + '_> = match packing {
        Packing::Plain => Box::new(bytes),
        Packing::Gzip => Box::new(MultiGzDecoder::new(bytes)),
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(WINDOW, CONCATENATED)
                .map_err(|e| Fault::Unpack(said(&e)))?;
            Box::new(XzDecoder::new_stream(bytes, stream))
        }
        Packing::Zstd => Box::new(Frames { decoder: None, rest: bytes, left: FRAMES }),
    };
    let ratio = SMALL.saturating_add((bytes.len() as u64).saturating_mul(RATIO));
    let limit = ratio.min(UNPACKED);
    Ok(Unpacked { inner: BufReader::with_capacity(BUFFER, inner), left: limit, limit, item: ITEM })
}

/// Zstandard's frames one after the other, which the decoder leaves to us (RFC 8878 section 3.1).
struct Frames<'a> {
    decoder: Option<StreamingDecoder<&'a [u8], FrameDecoder>>,
    rest: &'a [u8],
    left: u32,
}

impl Read for Frames<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(mut decoder) = self.decoder.take() {
                let n = decoder.read(into)?;
                if n > 0 || into.is_empty() {
                    self.decoder = Some(decoder);
                    return Ok(n);
                }
                self.rest = decoder.into_inner();
            }
            if self.rest.is_empty() {
                return Ok(0);
            }
            self.left = self.left.checked_sub(1).ok_or(io::Error::other("too many frames"))?;
            let decoder = StreamingDecoder::new_with_max_window_size(self.rest, WINDOW);
            self.decoder = Some(decoder.map_err(io::Error::other)?);
        }
    }
}

impl Unpacked<'_> {
    /// The next line or tag begins.
    pub fn next_item(&mut self) {
        self.item = ITEM;
    }

    /// The next line without its end. None: the last was it.
    pub fn line<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, Fault> {
        buffer.clear();
        self.next_item();
        let n = self.read_until(b'\n', buffer).map_err(|e| self.fault(&e))?;
        let line = buffer.strip_suffix(b"\n").unwrap_or(buffer);
        Ok((n > 0).then(|| line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// What an error of reading means.
    pub fn fault(&self, error: &io::Error) -> Fault {
        match () {
            () if self.left == 0 => Fault::TooLarge(self.limit),
            () if self.item == 0 => Fault::TooLarge(ITEM),
            () => Fault::Unpack(said(error)),
        }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut ready = self.fill_buf()?;
        let n = ready.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Unpacked<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bound = usize::try_from(self.left.min(self.item)).unwrap_or(usize::MAX);
        let ready = self.inner.fill_buf()?;
        if bound == 0 && !ready.is_empty() {
            return Err(io::Error::other("too large"));
        }
        Ok(&ready[..ready.len().min(bound)])
    }

    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.left = self.left.saturating_sub(n as u64);
        self.item = self.item.saturating_sub(n as u64);
    }
}
