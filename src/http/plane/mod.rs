//! Bodies that are stretches of open files. They never pass through this program's memory where
//! the kernel can send them itself.
//!
//! 1. A handler answers with [`send`], or with [`stream`] where the file is still growing.
//! 2. The body puts one [`Piece`] after the other into the slot of its connection, and waits.
//! 3. The connection's [`wire`] sends what is in the slot when the dispatcher flushes it: by
//!    sendfile, or through TLS, after whatever the dispatcher itself wrote: the head.
//! 4. What is not in the page cache is brought there off the worker first ([`disk`]), so that a
//!    slow disk stops one connection and not all of them.
//!
//! actix-http takes the method of the request that it decoded last for that of the response that
//! it writes. Nothing here depends on it, so a GET that a HEAD was pipelined after keeps its body;
//! only bodies of up to [`INLINE`] bytes, which go through actix-http, share that fault.

mod disk;
mod wire;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::Method;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use futures_util::Stream;
use jiff::Timestamp;

use super::Web;
use super::conditional::{self, Validators};
use crate::media::Image;
use crate::model::{Mac, Why};
pub use disk::{ZEROS, zeros};
pub use wire::Wire;

/// Bytes up to which a body is read at once and leaves in the same packet as its head.
pub const INLINE: u64 = 16 << 10;

/// A stretch of an open file.
#[derive(Clone, Debug)]
pub struct Piece {
    pub file: Arc<File>,
    /// Of its first byte in the file.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
    /// The image that it is in, where it is in one: it is sent for as long as that stays as it was.
    pub of: Option<Arc<Image>>,
}

impl Piece {
    pub fn new(file: Arc<File>, offset: u64, len: u64) -> Piece {
        Piece { file, offset, len, of: None }
    }

    fn is_intact(&self) -> bool {
        self.of.as_ref().is_none_or(|image| image.is_intact())
    }
}

/// What handlers know of the connection that a request came by.
pub struct Conn {
    /// The address of ours that it came to: what goes into the URLs handed back, because it is the
    /// one that this machine can reach.
    pub local: SocketAddr,
    /// Whether it is TLS.
    pub secure: bool,
    slot: Rc<Slot>,
}

/// How much of a body of [`send`] or [`stream`] has left; among the response's extensions.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Bytes of the body.
    pub total: u64,
    /// Shared with the ledger, which looks at it from other threads.
    bytes: Arc<AtomicU64>,
    cut: Rc<Cell<Option<Cut>>>,
}

/// Why we ourselves cut a connection in the middle of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    #[error("a file became shorter while it was being sent: the connection was cut")]
    Shrank,
    #[error("the client took nothing of a file for too long: the connection was cut")]
    Stalled,
    #[error("an image changed while a file in it was being sent: the connection was cut")]
    Changed,
    #[error("a file stopped growing before all of it had come: the connection was cut")]
    Ended,
}

impl Why for Cut {
    fn name(&self) -> &'static str {
        match self {
            Cut::Shrank => "file-shrank",
            Cut::Stalled => "client-stalled",
            Cut::Changed => "image-changed",
            Cut::Ended => "file-ended",
        }
    }
}

impl Sent {
    /// Bytes that the kernel has taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The same while they leave.
    pub fn counter(&self) -> &Arc<AtomicU64> {
        &self.bytes
    }

    fn of(total: u64) -> Sent {
        Sent { total, bytes: Arc::default(), cut: Rc::default() }
    }
}

/// What `req` asks of a file that has the validators `is` and begins at `start` of `file`: all of
/// it, a part, or nothing, since the client has it already.
pub fn answer(
    req: &HttpRequest,
    is: &Validators,
    content_type: String,
    file: Arc<File>,
    start: u64,
) -> HttpResponse {
    match conditional::begin(req, is, content_type) {
        Err(answer) => *answer,
        Ok((answer, part)) => {
            let (offset, len) = (start + part.start, part.end - part.start);
            send(req, answer, Piece::new(file, offset, len))
        }
    }
}

/// `answer` with `piece` for its body; to HEAD without, and with the same Content-Length.
pub fn send(req: &HttpRequest, answer: HttpResponseBuilder, piece: Piece) -> HttpResponse {
    if piece.len <= INLINE
        && req.method() != Method::HEAD
        && let Some(bytes) = disk::cached(&piece).filter(|_| piece.is_intact())
    {
        return inline(answer, bytes);
    }
    with_body(req, answer, piece.len, Pieces::One(Some(piece)))
}

/// `answer` with a body of `len` bytes that `pieces` bring by and by. An error of theirs, or an end
/// before all has come, cuts the connection, which is how HTTP/1.1 says that a body is not whole
/// (RFC 9112 section 8).
pub fn stream(
    req: &HttpRequest,
    answer: HttpResponseBuilder,
    len: u64,
    pieces: impl Stream<Item = io::Result<Piece>> + 'static,
) -> HttpResponse {
    with_body(req, answer, len, Pieces::Many(Box::pin(pieces)))
}

fn inline(mut answer: HttpResponseBuilder, bytes: Bytes) -> HttpResponse {
    let sent = Sent::of(bytes.len() as u64);
    sent.bytes.store(sent.total, Ordering::Relaxed);
    let mut answer = answer.body(bytes);
    answer.extensions_mut().insert(sent);
    answer
}

fn with_body(
    req: &HttpRequest,
    mut answer: HttpResponseBuilder,
    len: u64,
    pieces: Pieces,
) -> HttpResponse {
    let Some(conn) = req.conn_data::<Conn>() else {
        // A door that was not opened by `serve::start`.
        return HttpResponse::InternalServerError().finish();
    };
    let sent = Sent::of(len);
    // The server leaves the body of HEAD out, but asks for it all the same.
    let left = if req.method() == Method::HEAD { 0 } else { len };
    let (slot, sent_too) = (conn.slot.clone(), sent.clone());
    let web = req.app_data::<web::Data<Web>>().cloned();
    let mac = web.as_ref().and_then(|web| web.machine_of(req));
    let body = Body { slot, pieces, left, sent: sent_too, begun: false, web, mac };
    let mut answer = match len {
        0 => answer.finish(),
        _ => answer.no_chunking(len).body(BoxBody::new(body)),
    };
    answer.extensions_mut().insert(sent);
    answer
}

/// Where a body and its connection meet. One is enough: a connection sends one response at a time.
#[derive(Default)]
struct Slot(RefCell<Turn>);

#[derive(Default)]
enum Turn {
    /// The body's.
    #[default]
    Idle,
    /// The wire's.
    Queued(Job),
    /// A body was dropped in the middle: whatever came next would be taken for the rest of it.
    Poisoned,
}

/// What is left of a piece.
struct Job {
    piece: Piece,
    sent: Sent,
}

enum Pieces {
    One(Option<Piece>),
    Many(Pin<Box<dyn Stream<Item = io::Result<Piece>>>>),
}

impl Pieces {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Piece>>> {
        match self {
            Pieces::One(piece) => Poll::Ready(piece.take().map(Ok)),
            Pieces::Many(pieces) => pieces.as_mut().poll_next(cx),
        }
    }
}

/// To the dispatcher it is a body without bytes that takes its time.
struct Body {
    slot: Rc<Slot>,
    pieces: Pieces,
    /// Bytes not yet put into the slot.
    left: u64,
    sent: Sent,
    begun: bool,
    /// Whom to tell if it is cut, and of which machine.
    web: Option<web::Data<Web>>,
    mac: Option<Mac>,
}

impl MessageBody for Body {
    type Error = io::Error;

    /// A sized body would have its bytes counted by the encoder, which never sees them.
    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, io::Error>>> {
        let this = &mut *self;
        loop {
            // The wire wakes the dispatcher when it is through.
            if !matches!(*this.slot.0.borrow(), Turn::Idle) {
                return Poll::Pending;
            }
            if this.left == 0 {
                return Poll::Ready(None);
            }
            this.begun = true;
            let mut piece = match std::task::ready!(this.pieces.poll_next(cx)) {
                Some(Ok(piece)) => piece,
                Some(Err(e)) => {
                    this.sent.cut.set(Some(Cut::Ended));
                    return Poll::Ready(Some(Err(e)));
                }
                None => {
                    this.sent.cut.set(Some(Cut::Ended));
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
            };
            piece.len = piece.len.min(this.left);
            if piece.len > 0 {
                this.left -= piece.len;
                let sent = this.sent.clone();
                *this.slot.0.borrow_mut() = Turn::Queued(Job { piece, sent });
            }
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.begun && self.sent.bytes() < self.sent.total {
            *self.slot.0.borrow_mut() = Turn::Poisoned;
        }
        if let (Some(cut), Some(web)) = (self.sent.cut.get(), &self.web) {
            web.ledger.refused("http", self.mac, &cut, Timestamp::now());
        }
    }
}
