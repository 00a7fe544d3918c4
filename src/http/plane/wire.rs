//! The stream under one of actix-http's connections: what the dispatcher writes, and what is in
//! the slot after it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use nix::sys::socket::setsockopt;
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::{Conn, Cut, Piece, Slot, Turn, disk};

/// Bytes that a connection may send before the others of its worker have their turn.
const TURN: u64 = 2 << 20;
/// Bytes that are read at once for TLS.
const CHUNK: usize = 256 << 10;

thread_local! {
    /// For TLS; one for each worker is enough, since what the stream did not take is read again.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

sockopt_impl!(
    /// Bytes a second; an `unsigned long` of the kernel's.
    PacingRate,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_MAX_PACING_RATE,
    usize
);

pub struct Wire {
    io: Io,
    slot: Rc<Slot>,
    corked: bool,
    /// Up to where the file of the job in the slot may be sent without a look.
    warm: u64,
    warming: Option<JoinHandle<()>>,
    stall: Stall,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// For how long a connection may take nothing at all.
struct Stall {
    time: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether something was taken since the timer was set.
    moved: bool,
}

impl Wire {
    /// `time`: a client that takes nothing for so long is cut off.
    pub fn plain(stream: TcpStream, time: Duration) -> Wire {
        Wire::new(Io::Plain(stream), time)
    }

    pub fn tls(stream: TlsStream<TcpStream>, time: Duration) -> Wire {
        Wire::new(Io::Tls(Box::new(stream)), time)
    }

    fn new(io: Io, time: Duration) -> Wire {
        let stall = Stall { time, timer: None, moved: true };
        Wire { io, slot: Rc::default(), corked: false, warm: 0, warming: None, stall }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.io {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }

    /// No waiting for more to send (TCP_NODELAY), and not more than `pace` bytes a second.
    pub fn prepare(&self, pace: Option<u64>) -> io::Result<()> {
        self.tcp().set_nodelay(true)?;
        if let Some(pace) = pace {
            setsockopt(self.tcp(), PacingRate, &usize::try_from(pace).unwrap_or(usize::MAX))?;
        }
        Ok(())
    }

    pub fn peer(&self) -> Option<SocketAddr> {
        self.tcp().peer_addr().ok()
    }

    /// What handlers shall know; `None` for a connection that is gone already.
    pub fn conn(&self) -> Option<Conn> {
        let local = self.tcp().local_addr().ok()?;
        let secure = matches!(self.io, Io::Tls(_));
        Some(Conn { local, secure, slot: self.slot.clone() })
    }

    fn io(&mut self) -> Pin<&mut (dyn Both + Unpin)> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp),
            Io::Tls(tls) => Pin::new(tls.as_mut()),
        }
    }

    /// Keeps head and file in the same packets. MSG_MORE would do it for the head alone.
    fn cork(&mut self, cork: bool) -> io::Result<()> {
        if let Io::Plain(tcp) = &self.io
            && self.corked != cork
        {
            SockRef::from(tcp).set_tcp_cork(cork)?;
            self.corked = cork;
        }
        Ok(())
    }

    /// Sends what is in the slot.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let slot = self.slot.clone();
        let mut turn = TURN;
        loop {
            let mut state = slot.0.borrow_mut();
            let job = match &mut *state {
                Turn::Idle => return Poll::Ready(Ok(())),
                Turn::Poisoned => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Turn::Queued(job) => job,
            };
            if job.piece.len == 0 {
                *state = Turn::Idle;
                drop(state);
                self.warm = 0;
                self.cork(false)?;
                // The body has to hear of it.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
            if turn == 0 {
                // Comes again when the system was asked for news of all other connections; a plain
                // wake would let this one be polled again before that.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            let looked = self.warm;
            ready!(self.poll_warm(&job.piece, cx));
            if self.warm != looked && !job.piece.is_intact() {
                job.sent.cut.set(Some(Cut::Changed));
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            let most = job.piece.len.min(turn).min(self.warm - job.piece.offset);
            let some = self.poll_some(&job.piece, most, cx);
            let (n, full) = match ready!(self.watched(some, cx)) {
                Ok(some) => some,
                Err(e) => {
                    let stalled = e.kind() == io::ErrorKind::TimedOut;
                    job.sent.cut.set(stalled.then_some(Cut::Stalled));
                    return Poll::Ready(Err(e));
                }
            };
            if n == 0 {
                job.sent.cut.set(Some(Cut::Shrank));
                // The file is shorter than when it was opened. What was promised cannot be sent,
                // and nothing else may be.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            job.piece.offset += n;
            job.piece.len -= n;
            job.sent.bytes.fetch_add(n, Ordering::Relaxed);
            turn -= n;
            if full {
                return self.watched(Poll::Pending, cx);
            }
        }
    }

    /// Until some of the job is in the page cache.
    fn poll_warm(&mut self, piece: &Piece, cx: &mut Context<'_>) -> Poll<()> {
        if self.warm > piece.offset {
            return Poll::Ready(());
        }
        let len = piece.len.min(disk::WINDOW);
        if self.warming.is_none() && !disk::is_warm(&piece.file, piece.offset, len) {
            let piece = piece.clone();
            self.warming = Some(tokio::task::spawn_blocking(move || {
                disk::read_ahead(&piece.file, piece.offset, piece.len);
            }));
        }
        if let Some(warming) = &mut self.warming {
            // It does not fail: it neither panics nor is aborted; and if it did, the worker reads.
            let _ = ready!(Pin::new(warming).poll(cx));
            self.warming = None;
        }
        self.warm = piece.offset + len;
        Poll::Ready(())
    }

    /// At most `most` bytes of a piece: how many went, and whether the connection is known to take
    /// no more just now.
    fn poll_some(
        &mut self,
        piece: &Piece,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(u64, bool)>> {
        match &mut self.io {
            Io::Plain(tcp) => loop {
                ready!(tcp.poll_write_ready(cx))?;
                let send = || disk::send(tcp, &piece.file, piece.offset, most);
                match tcp.try_io(Interest::WRITABLE, send) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // A short count is not "full": the next call says so.
                    sent => return Poll::Ready(sent.map(|n| (n, false))),
                }
            },
            Io::Tls(tls) => SCRATCH.with_borrow_mut(|scratch| {
                let mut tls = Pin::new(tls.as_mut());
                // What was encrypted before has to leave first, or the file is read in vain.
                ready!(tls.as_mut().poll_flush(cx))?;
                let most = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
                let read = disk::read(&piece.file, &mut scratch[..most], piece.offset)?;
                let taken = ready!(tls.poll_write(cx, &scratch[..read]))?;
                Poll::Ready(Ok((taken as u64, taken < read)))
            }),
        }
    }

    /// The same, unless nothing has moved for too long.
    fn watched<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(_) => {
                self.stall.moved = true;
                polled
            }
            Poll::Pending if self.stall.is_over(cx) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Stall {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let time = self.time;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time)));
        if std::mem::take(&mut self.moved) {
            timer.as_mut().reset(Instant::now() + time);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

trait Both: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Both for T {}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().io().poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let slot = this.slot.clone();
        match *slot.0.borrow() {
            Turn::Idle => {}
            Turn::Queued(_) => this.cork(true)?,
            Turn::Poisoned => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
        let polled = this.io().poll_write(cx, buf);
        this.watched(polled, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let polled = this.io().poll_flush(cx);
        this.watched(polled, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = this.io().poll_shutdown(cx);
        this.watched(polled, cx)
    }
}
