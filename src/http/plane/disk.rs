//! Files as the plane needs them: what is in the page cache at once, the rest off the worker.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use actix_web::web::Bytes;
use rustix::fs::{Advice, MemfdFlags, fadvise, memfd_create};
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::net::TcpStream;

use super::Piece;

/// Bytes whose presence is asked for at once.
pub const WINDOW: u64 = 2 << 20;
/// Bytes that are read ahead where one of a window's was not there.
const AHEAD: u64 = 4 * WINDOW;
const SCRATCH: usize = 128 << 10;

/// The whole piece, if it is in the page cache. (A file that shrank is found out by whoever then
/// sends it the long way.)
pub fn cached(piece: &Piece) -> Option<Bytes> {
    let mut bytes = vec![0; usize::try_from(piece.len).ok()?];
    (now(&piece.file, &mut bytes, piece.offset)? == bytes.len()).then(|| bytes.into())
}

/// Reads what is there without waiting for a disk; `None` where that cannot be told: what follows
/// is then done off the worker, as if it were not there.
fn now(file: &File, bytes: &mut [u8], offset: u64) -> Option<usize> {
    if bytes.is_empty() {
        return Some(0);
    }
    preadv2(file, &mut [IoSliceMut::new(bytes)], offset, ReadWriteFlags::NOWAIT).ok()
}

/// Whether the bytes of `offset..offset + len` are in the page cache, by the look of the first and
/// the last: files are read and pushed out in long stretches. An end of the file before that
/// counts as being there, since nothing has to be waited for.
pub fn is_warm(file: &File, offset: u64, len: u64) -> bool {
    let there = |at| now(file, &mut [0], at).is_some();
    there(offset) && there(offset + len.saturating_sub(1))
}

/// Waits until [`WINDOW`] bytes from `offset` on are in the page cache, and has more of the `len`
/// that are wanted follow them. Errors show again when the bytes are sent.
pub fn read_ahead(file: &File, offset: u64, len: u64) {
    if let Some(ahead) = NonZeroU64::new(len.min(AHEAD)) {
        // Advice; what follows reads whether it is taken or not.
        let _ = fadvise(file, offset, Some(ahead), Advice::WillNeed);
    }
    let mut scratch = vec![0; SCRATCH];
    let end = offset + len.min(WINDOW);
    let mut at = offset;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(SCRATCH).min(SCRATCH);
        match file.read_at(&mut scratch[..most], at) {
            Ok(0) | Err(_) => return,
            Ok(n) => at += n as u64,
        }
    }
}

/// Bytes of [`zeros`].
pub const ZEROS: u64 = 1 << 20;

/// A file in memory that takes none: what stands for stretches that are recorded nowhere.
///
/// # Errors
/// The system's, which has no file left.
pub fn zeros() -> io::Result<Arc<File>> {
    static FILE: OnceLock<Arc<File>> = OnceLock::new();
    if let Some(file) = FILE.get() {
        return Ok(file.clone());
    }
    let file = File::from(memfd_create("zeros", MemfdFlags::CLOEXEC)?);
    file.set_len(ZEROS)?;
    Ok(FILE.get_or_init(|| Arc::new(file)).clone())
}

/// sendfile(2) of at most `most` bytes.
///
/// # Errors
/// `WouldBlock` when the socket is full.
pub fn send(to: &TcpStream, file: &File, mut offset: u64, most: u64) -> io::Result<u64> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    Ok(rustix::fs::sendfile(to, file, Some(&mut offset), most)? as u64)
}

/// Reads into `bytes` for a stream that encrypts.
pub fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(bytes, offset)
}
