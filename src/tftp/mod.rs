//! TFTP, reads only: RFC 1350 with the options of RFC 2347, 2348, 2349 and 7440.
//!
//! 1. [`serve`] takes datagrams off port 69 and off a pool of ports that all transfers share.
//! 2. [`wire`] reads a datagram, or says [`why`] not.
//! 3. [`desk`] tells whose it is: a new transfer, a request that came twice, a live transfer, a
//!    stranger.
//! 4. The [`Door`] (the rest of the program) opens what was asked for, or refuses.
//! 5. [`decide`] takes the acknowledgement, the error or the time, and says what to send next, as
//!    numbers of blocks.
//! 6. [`serve`] sends these blocks straight out of the content, a window in one system call, and
//!    tells the [`Door`] what it [`Seen`].

pub mod decide;
pub mod desk;
pub mod serve;
pub mod why;
pub mod wire;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use crate::model::event::size;

pub use why::{Refusal, Why};
pub use wire::{Mode, Options};

/// A read request as its door hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub peer: SocketAddrV4,
    /// The address of ours that the request came to.
    pub local: Ipv4Addr,
    /// With `/` between its parts and none in front; otherwise as it came. It may hold `..` and
    /// control characters: whoever opens a file by it has to see to that.
    pub name: String,
    pub mode: Mode,
    pub options: Options,
}

/// What is sent. A transfer holds no copy of it (but for netascii, which is another text).
#[derive(Debug)]
pub enum Content {
    Bytes(Cow<'static, [u8]>),
    Shared(Arc<[u8]>),
    /// The first `len` bytes of the file.
    File {
        file: File,
        len: u64,
    },
}

impl Content {
    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Shared(bytes) => bytes.len() as u64,
            Content::File { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The rest of the program, as seen from here. It is called on the one thread that serves all
/// transfers: what takes long holds up everybody.
pub trait Door: Send + Sync {
    /// What is to be sent for this request.
    fn open(&self, ask: &Ask) -> Result<Content, Refusal>;
    /// What became of a request: [`Seen::Started`] and then one of the others, or at once
    /// [`Seen::Refused`].
    fn saw(&self, ask: &Ask, seen: &Seen<'_>);
    /// A datagram that is no read request and belongs to no transfer.
    fn dropped(&self, peer: SocketAddrV4, local: Ipv4Addr, why: &Why);
    /// A socket does not give what it should (the interface is gone, for example).
    fn trouble(&self, local: Ipv4Addr, error: &io::Error);
}

/// What became of a request.
#[derive(Debug)]
pub enum Seen<'a> {
    Started {
        bytes: u64,
        blksize: u16,
        windowsize: u16,
    },
    Done {
        bytes: u64,
        took: Duration,
        /// Blocks that were sent more than once.
        resent: u64,
    },
    /// The client wanted to know the size only: EDK2 takes the OACK, answers ERROR 8 and asks
    /// again without `tsize` from another port. Normal.
    Probed {
        bytes: u64,
    },
    Refused(&'a Why),
    /// The client said ERROR.
    Aborted {
        code: u16,
        message: &'a str,
        acknowledged: u64,
        bytes: u64,
        took: Duration,
    },
    /// The client fell silent. `error` is the last failure of a send to it.
    TimedOut {
        acknowledged: u64,
        bytes: u64,
        error: Option<&'a io::Error>,
        took: Duration,
    },
    /// The same port asked for something else.
    Replaced,
    /// It had not been answered yet, and its place was needed for another.
    Evicted,
    /// The content could not be read to its end.
    Broken(&'a io::Error),
}

impl Seen<'_> {
    /// How far the content came: bytes that have arrived, all of them, and the time; `None` where
    /// it never began, or its end is not for certain.
    pub fn sent(&self) -> Option<(u64, u64, Duration)> {
        match *self {
            Seen::Done { bytes, took, .. } => Some((bytes, bytes, took)),
            // Who says that it wants no more when it has all is through.
            Seen::Aborted { acknowledged, bytes, took, .. }
            | Seen::TimedOut { acknowledged, bytes, took, .. } => Some((acknowledged, bytes, took)),
            _ => None,
        }
    }
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Started { bytes, blksize, windowsize } => {
                write!(f, "{} in blocks of {blksize}, {windowsize} at a time", size(*bytes))
            }
            Seen::Done { bytes, took, resent } => {
                write!(f, "{} sent in {:.2} s", size(*bytes), took.as_secs_f64())?;
                match resent {
                    0 => Ok(()),
                    n => write!(f, ", {n} blocks more than once"),
                }
            }
            Seen::Probed { bytes } => write!(f, "wanted the size only, {bytes} bytes"),
            Seen::Refused(why) => write!(f, "refused: {why}"),
            Seen::Aborted { code, message, .. } => {
                write!(f, "the client ended it: {code} {message}")
            }
            Seen::TimedOut { acknowledged, bytes, error, .. } => {
                write!(f, "the client fell silent after {acknowledged} of {bytes} bytes")?;
                error.map_or(Ok(()), |e| write!(f, " (sending to it failed: {e})"))
            }
            Seen::Replaced => f.write_str("dropped: the same port asks for something else"),
            Seen::Evicted => f.write_str("dropped before its first answer: its place was needed"),
            Seen::Broken(error) => write!(f, "broken off: the file could not be read: {error}"),
        }
    }
}
