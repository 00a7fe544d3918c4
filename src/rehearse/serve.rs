//! The socket of DHCP: one thread that all exchanges go through.
//!
//! 1. Whoever wants an exchange is asked for the next one ([`Source`]).
//! 2. What waits to be sent leaves, [`BATCH`] datagrams a system call.
//! 3. What has come is read in the same way, and each exchange goes on.
//! 4. Those that have waited long enough are woken.
//! 5. When there is nothing to do, it sleeps: until a datagram, a call, or a time.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use super::chain::{self, Hall};
use super::desk::{Ask, Desk, Ended, Has, TICK};
use super::dhcp::{NoLease, ROOM};
use super::storm::{Seen, Storm};
use super::tally::Stage;
use super::{Only, Options, Outcome};

/// Datagrams of one system call.
const BATCH: usize = 64;
/// A reply of ours is within 1472 bytes.
const REPLY: usize = 1500;
/// The kernel's buffer, in bytes: a server may answer a second's load in one breath.
const BUFFER: usize = 32 << 20;
/// The longest sleep: a stop is seen within it.
const SLEEP: Duration = Duration::from_millis(100);

/// What is under way when all is stopped ends within this time, or is left.
const LAST: Duration = Duration::from_secs(1);

/// Why DHCP cannot be spoken at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "UDP port 67 of {0} is in use on this machine, by a DHCP server or relay: rehearse from \
         another machine of that network, or from a network namespace with a veth pair into it"
    )]
    InUse(Ipv4Addr),
    #[error("UDP port 67 needs CAP_NET_BIND_SERVICE: run it with sudo")]
    NotAllowed,
    #[error("{0} is no address of this machine: --from names one that the server can answer to")]
    NotHere(Ipv4Addr),
    #[error(
        "nobody listens at UDP port 67 of {0} (ICMP port unreachable): does `pilotlight serve` run \
         there, and on the interface that this network is at?"
    )]
    Nobody(Ipv4Addr),
    #[error("{0} cannot be reached ({1}): is the address right, and the machine on?")]
    NoWay(Ipv4Addr, io::Error),
    #[error("UDP port 67 of {0}: {1}")]
    Socket(Ipv4Addr, io::Error),
}

/// What comes next from whoever wants exchanges.
pub enum Next<T> {
    /// One that was to begin at this time.
    Begin(Ask, T, Duration),
    /// Nothing before this time.
    At(Duration),
    /// Nothing before another ends, or somebody calls.
    Wait,
    /// Nothing any more.
    Over,
}

/// Who wants exchanges, and takes their ends.
pub trait Source {
    type Tag;
    fn next(&mut self, now: Duration, flying: usize) -> Next<Self::Tag>;
    fn ended(&mut self, ended: Ended<Self::Tag>, now: Duration);
}

/// The address of ours that the kernel would speak to `server` from.
pub fn route(server: Ipv4Addr) -> Result<Ipv4Addr, Error> {
    let way = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((server, 67))?;
        socket.local_addr()
    };
    match way() {
        Ok(std::net::SocketAddr::V4(from)) => Ok(*from.ip()),
        Ok(other) => Err(Error::NoWay(server, io::Error::other(format!("by {other}")))),
        Err(e) => Err(Error::NoWay(server, e)),
    }
}

/// A relay's socket: port 67 of `from`, to port 67 of `server` and no other.
pub fn socket(from: Ipv4Addr, server: Ipv4Addr) -> Result<UdpSocket, Error> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Past net.core.rmem_max, where we may.
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddrV4::new(from, 67).into())?;
        socket.connect(&SocketAddrV4::new(server, 67).into())?;
        Ok(socket.into())
    };
    open().map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => Error::InUse(from),
        io::ErrorKind::PermissionDenied => Error::NotAllowed,
        io::ErrorKind::AddrNotAvailable => Error::NotHere(from),
        io::ErrorKind::NetworkUnreachable => Error::NoWay(server, e),
        _ => Error::Socket(from, e),
    })
}

/// The thread's own: the socket and what is sent and read by it.
pub struct Line {
    socket: UdpSocket,
    server: Ipv4Addr,
    begin: Instant,
    /// Datagrams that exchanges here were waiting for.
    pub heard: u64,
}

impl Line {
    pub fn new(socket: UdpSocket, server: Ipv4Addr, begin: Instant) -> Line {
        Line { socket, server, begin, heard: 0 }
    }

    /// Works until the source is through, or `stop` is set: then none begins any more, and those
    /// under way have [`LAST`] to come to their ends, so that what they are given can be given back.
    /// Whoever has written to the other end of `call` is heard at once.
    pub fn run<S: Source>(
        &mut self,
        desk: &mut Desk<S::Tag>,
        source: &mut S,
        call: Option<&UnixStream>,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let mut ends = Vec::new();
        let mut reader = Reader::new();
        let mut writer = Writer::new();
        let mut last = None;
        loop {
            let now = self.begin.elapsed();
            let mut until = SLEEP;
            if last.is_none() && stop.load(Ordering::Relaxed) {
                last = Some(now + LAST);
            }
            if last.is_some_and(|last| now >= last) {
                return Ok(());
            }
            let over = loop {
                if last.is_some() {
                    break true;
                }
                match source.next(now, desk.flying()) {
                    Next::Begin(ask, tag, from) => {
                        if let Err(ended) = desk.begin(ask, tag, from, now) {
                            ends.push(ended);
                            break false;
                        }
                    }
                    Next::At(at) => {
                        until = until.min(at.saturating_sub(now));
                        break false;
                    }
                    Next::Wait => break false,
                    Next::Over => break true,
                }
            };
            let blocked = self.send(desk, now, &mut writer)?;
            let read = self.receive(desk, &mut reader, &mut ends)?;
            let now = self.begin.elapsed();
            desk.tick(now, &mut ends);
            let ended = ends.len();
            for e in ends.drain(..) {
                source.ended(e, now);
            }
            // An end may be another's beginning: the source is asked once more.
            if over && ended == 0 && desk.flying() == 0 {
                return Ok(());
            }
            if read == 0 && ended == 0 && (blocked || !desk.is_sending()) {
                if desk.flying() > 0 {
                    until = until.min(TICK);
                }
                self.sleep(until, blocked, call)?;
            }
        }
    }

    /// Whether the kernel takes no more for now.
    fn send<T>(
        &mut self,
        desk: &mut Desk<T>,
        now: Duration,
        writer: &mut Writer,
    ) -> Result<bool, Error> {
        // A turn sends so many at most, so that what comes in is not left lying.
        for _ in 0..4 {
            let n = writer.fill(|i, out| desk.write(i, now, out));
            if n == 0 {
                return Ok(false);
            }
            match writer.send(&self.socket, n) {
                Ok(sent) => desk.sent(sent),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(e) => self.survive(e)?,
            }
        }
        Ok(false)
    }

    /// How many datagrams were read.
    fn receive<T>(
        &mut self,
        desk: &mut Desk<T>,
        reader: &mut Reader,
        ends: &mut Vec<Ended<T>>,
    ) -> Result<usize, Error> {
        let mut read = 0;
        for _ in 0..4 {
            let lens = match reader.receive(&self.socket) {
                Ok(n) => n,
                Err(Errno::EAGAIN) => return Ok(read),
                Err(Errno::EINTR) => continue,
                Err(e) => {
                    self.survive(e)?;
                    continue;
                }
            };
            let now = self.begin.elapsed();
            for i in 0..lens {
                self.heard += u64::from(desk.hear(reader.datagram(i), now, ends));
            }
            read += lens;
            if lens < BATCH {
                break;
            }
        }
        Ok(read)
    }

    /// What ICMP said of a datagram sent before. A server that goes away in the middle of it all
    /// is for the exchanges to bear; one that was never there ends it.
    fn survive(&self, e: Errno) -> Result<(), Error> {
        match e {
            Errno::ECONNREFUSED if self.heard == 0 => Err(Error::Nobody(self.server)),
            Errno::EHOSTUNREACH | Errno::ENETUNREACH if self.heard == 0 => {
                Err(Error::NoWay(self.server, e.into()))
            }
            Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH => Ok(()),
            e => Err(Error::Socket(self.server, e.into())),
        }
    }

    fn sleep(&self, time: Duration, blocked: bool, call: Option<&UnixStream>) -> Result<(), Error> {
        let out = if blocked { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | out)];
        if let Some(call) = call {
            fds.push(PollFd::new(call.as_fd(), PollFlags::POLLIN));
        }
        match ppoll(&mut fds, Some(time.into()), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::Socket(self.server, e.into())),
        }
        let mut bytes = [0; 256];
        // A call says nothing but that somebody is there; none is no failure.
        while call.is_some_and(|mut c| c.read(&mut bytes).is_ok_and(|n| n == bytes.len())) {}
        Ok(())
    }

    /// Gives all leases back, as fast as a server's buffer takes what it does not answer: how
    /// many.
    pub fn release<T>(&mut self, desk: &mut Desk<T>) -> usize {
        const TOGETHER: usize = 16;
        let mut writer = Writer::new();
        let mut released = 0;
        while desk.held() > 0 {
            let n = writer.fill(|i, out| if i < TOGETHER { desk.release(out) } else { None });
            released += n;
            // Lost is lost: the lease ends by itself.
            let _ = writer.send(&self.socket, n);
            std::thread::sleep(Duration::from_millis(4));
        }
        released
    }
}

/// Leases for all machines, and nothing else.
pub fn storm(
    options: &Options,
    from: Ipv4Addr,
    seen: &Seen,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    let socket = socket(from, options.server)?;
    let mut desk = Desk::new(from, options.seed);
    let Options { who, firmwares, pace, size, chain, .. } = options;
    let mut storm = Storm::new(who, firmwares, *pace, *size, *chain, seen);
    let mut line = Line::new(socket, options.server, Instant::now());
    line.run(&mut desk, &mut storm, None, stop)?;
    let took = line.begin.elapsed();
    let released = match options.keep_leases {
        true => 0,
        false => line.release(&mut desk),
    };
    let mut tally = storm.tally;
    if let Some(sum) = tally.steps.get_mut(&Stage::Dhcp) {
        sum.resent = desk.resent;
    }
    Ok(Outcome { tally, took, released })
}

/// Rehearses whole boots, or one transfer by TFTP for each machine.
///
/// # Errors
/// A server that is not there at all.
pub fn whole(
    options: &Options,
    from: Ipv4Addr,
    seen: &Arc<Seen>,
    stop: &Arc<AtomicBool>,
) -> Result<Outcome, super::Error> {
    let begin = Instant::now();
    let (dhcp, asked) = mpsc::channel();
    let (caller, call) = Caller::pair().map_err(super::Error::Runtime)?;
    let line = match options.only {
        Some(Only::Tftp) => None,
        _ => Some(Line::new(socket(from, options.server)?, options.server, begin)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(super::Error::Runtime)?;
    let hall = Hall::new(options, from, begin, dhcp, caller).map_err(super::Error::Runtime)?;
    std::thread::scope(|scope| {
        let speaking = line.map(|mut line| {
            scope.spawn(move || {
                let mut desk = Desk::new(from, options.seed);
                let spoken = line.run(&mut desk, &mut Asked(asked), Some(&call), stop);
                let released = match (options.keep_leases, &spoken) {
                    (false, Ok(())) => line.release(&mut desk),
                    _ => 0,
                };
                // Whoever still waits would wait for ever.
                drop(desk);
                spoken.map(|()| released)
            })
        });
        let hall = Arc::new(hall);
        runtime.block_on(chain::all(&hall, seen, stop));
        let took = begin.elapsed();
        runtime.shutdown_timeout(Duration::from_secs(1));
        let tally = hall.take();
        // The queue's end is what ends the thread.
        drop(hall);
        let released = match speaking.map(|thread| thread.join()) {
            None => 0,
            Some(Ok(spoken)) => spoken?,
            Some(Err(_)) => return Err(super::Error::Runtime(io::Error::other("DHCP panicked"))),
        };
        Ok(Outcome { tally, took, released })
    })
}

/// Where a machine hears how its exchange ended.
pub type Told = oneshot::Sender<Result<Has, NoLease>>;

/// The exchanges that machines ask for, by way of a queue.
struct Asked(mpsc::Receiver<(Ask, Told, Duration)>);

impl Source for Asked {
    type Tag = Told;

    fn next(&mut self, _: Duration, _: usize) -> Next<Told> {
        match self.0.try_recv() {
            Ok((ask, told, from)) => Next::Begin(ask, told, from),
            Err(mpsc::TryRecvError::Empty) => Next::Wait,
            Err(mpsc::TryRecvError::Disconnected) => Next::Over,
        }
    }

    fn ended(&mut self, ended: Ended<Told>, _: Duration) {
        // A machine that has been given up meanwhile does not listen.
        let _ = ended.tag.send(ended.result);
    }
}

/// The other end of `call`.
pub struct Caller(UnixStream);

impl Caller {
    /// Both ends.
    pub fn pair() -> io::Result<(Caller, UnixStream)> {
        let (here, there) = UnixStream::pair()?;
        here.set_nonblocking(true)?;
        there.set_nonblocking(true)?;
        Ok((Caller(here), there))
    }

    pub fn call(&self) {
        // A full pipe is a call that has not been heard yet.
        let _ = (&self.0).write(&[1]);
    }
}

struct Writer {
    headers: MultiHeaders<SockaddrIn>,
    buffer: Box<[[u8; ROOM]]>,
    lens: Vec<usize>,
}

impl Writer {
    fn new() -> Writer {
        Writer {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![[0; ROOM]; BATCH].into(),
            lens: Vec::with_capacity(BATCH),
        }
    }

    fn fill(&mut self, mut write: impl FnMut(usize, &mut [u8; ROOM]) -> Option<usize>) -> usize {
        self.lens.clear();
        for (i, out) in self.buffer.iter_mut().enumerate() {
            match write(i, out) {
                Some(len) => self.lens.push(len),
                None => break,
            }
        }
        self.lens.len()
    }

    fn send(&mut self, socket: &UdpSocket, n: usize) -> nix::Result<usize> {
        let slices: Vec<[IoSlice<'_>; 1]> = self
            .buffer
            .iter()
            .zip(&self.lens)
            .take(n)
            .map(|(bytes, len)| [IoSlice::new(&bytes[..*len])])
            .collect();
        let to = [None; BATCH];
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            &slices,
            to,
            [],
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count())
    }
}

struct Reader {
    headers: MultiHeaders<SockaddrIn>,
    buffer: Box<[[u8; REPLY]]>,
    lens: Vec<usize>,
}

impl Reader {
    fn new() -> Reader {
        Reader {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffer: vec![[0; REPLY]; BATCH].into(),
            lens: Vec::with_capacity(BATCH),
        }
    }

    fn receive(&mut self, socket: &UdpSocket) -> nix::Result<usize> {
        self.lens.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.buffer.iter_mut().map(|bytes| [IoSliceMut::new(bytes)]).collect();
        let got = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        self.lens.extend(got.map(|m| m.bytes));
        Ok(self.lens.len())
    }

    fn datagram(&self, i: usize) -> &[u8] {
        &self.buffer[i][..self.lens[i]]
    }
}
