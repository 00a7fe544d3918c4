//! The sockets: one thread for all transfers.
//!
//! Requests come to one socket per served address. Transfers run on a few more sockets with ports
//! of their own, shared by all: a socket for each would cost the kernel more than the transfer.
//! Sockets are read in batches. What a batch of acknowledgements brings in lock-step, a block for
//! each of many clients, goes out in one system call; a window goes out in one, too (UDP GSO).
//! Both go straight from the content.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::decide::{Caps, End, Flight, Step, Transfer, WINDOW_LIMIT};
use super::desk::{Admit, Desk, Entry, Key, Limits};
use super::wire::{self, Code, Packet, Request};
use super::{Ask, Content, Door, Mode, Refusal, Seen, Why};

/// Sockets for transfers per served address.
const POOL: u16 = 8;
/// Datagrams taken at once, and how often in a row before the others get their turn. Requests come
/// last: a machine that has begun is to end before another begins.
const BATCH: usize = 64;
const BATCHES: usize = 16;
/// How long the sockets are asked again and again for an answer before the thread goes to sleep:
/// waking costs more than the client needs. That is for a few transfers, which are as fast as their
/// round trip. Where there are more, their datagrams gather meanwhile and cost less together.
const AWAKE: Duration = Duration::from_micros(50);
const FEW: usize = 4;
/// The largest datagram that is looked at whole; a request is 512 bytes at most (RFC 2347).
const DATAGRAM: usize = 8192;
/// What is asked of the kernel for each socket; it gives as much as it may.
const SOCKET_BUFFER: usize = 4 << 20;
/// The most that UDP carries in one datagram or in one train of segments.
const UDP_LIMIT: u64 = 65507;
/// Bytes of a text that are converted to netascii for one transfer, and for all at once.
const NETASCII_LIMIT: u64 = 4 << 20;
const NETASCII_TOTAL: u64 = 64 << 20;
/// IP and UDP headers, in bytes.
const IP_UDP: u32 = 28;
const WAKER: Token = Token(usize::MAX);

/// Where to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Nothing that comes in elsewhere is heard, and nothing leaves elsewhere.
    pub interface: Option<String>,
    pub address: Ipv4Addr,
    /// 69; 0 takes a free one.
    pub port: u16,
    /// The largest block, in bytes; by default what the interface carries without fragments.
    pub blksize: Option<u16>,
}

/// Why there is no listening at an address, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "UDP port {port} of {address} is taken by another TFTP server: stop that one \
         (`ss -ulpn 'sport = :{port}'` names it)"
    )]
    Taken { address: Ipv4Addr, port: u16 },
    #[error(
        "not allowed to open UDP port {port}: run as root or with the capability \
         CAP_NET_BIND_SERVICE, as the systemd unit does"
    )]
    Forbidden { port: u16 },
    #[error("there is no interface {0}: `ip link` lists those there are")]
    NoInterface(String),
    #[error("{address} is not an address of this machine: `ip address` lists those there are")]
    NoAddress { address: Ipv4Addr },
    #[error("no TFTP on {address}: {error}")]
    Other { address: Ipv4Addr, error: io::Error },
}

/// Sockets that are ready to serve.
#[derive(Debug)]
pub struct Bound {
    local: Ipv4Addr,
    blksize: u16,
    mtu: u32,
    requests: Socket,
    pool: Vec<Socket>,
}

/// Opens all the sockets of one address.
///
/// # Errors
/// What is in the way, with what to do about it.
pub fn bind(listen: &Listen) -> Result<Bound, BindError> {
    let mtu = mtu(listen.interface.as_deref());
    let largest =
        u16::try_from(mtu.saturating_sub(IP_UDP + wire::DATA_HEAD as u32)).unwrap_or(u16::MAX);
    let requests = socket(listen, listen.port)?;
    let pool = (0..POOL).map(|_| socket(listen, 0)).collect::<Result<_, _>>()?;
    let blksize = listen.blksize.unwrap_or(largest);
    Ok(Bound { local: listen.address, blksize, mtu, requests, pool })
}

impl Bound {
    /// The address that requests go to.
    pub fn address(&self) -> io::Result<SocketAddrV4> {
        let address = self.requests.local_addr()?.as_socket_ipv4();
        address.ok_or_else(|| io::Error::other("a socket without an IPv4 address"))
    }
}

fn socket(listen: &Listen, port: u16) -> Result<Socket, BindError> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.bind_device(listen.interface.as_deref().map(str::as_bytes))?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&SocketAddr::from((listen.address, port)).into())?;
        Ok(socket)
    };
    let address = listen.address;
    open().map_err(|error: io::Error| match (error.raw_os_error().map(Errno::from_raw), error) {
        (Some(Errno::EADDRINUSE), _) => BindError::Taken { address, port },
        (Some(Errno::EACCES | Errno::EPERM), _) => BindError::Forbidden { port },
        (Some(Errno::ENODEV), _) => {
            BindError::NoInterface(listen.interface.clone().unwrap_or_default())
        }
        (Some(Errno::EADDRNOTAVAIL), _) => BindError::NoAddress { address },
        (_, error) => BindError::Other { address, error },
    })
}

/// What the interface carries in one frame; Ethernet's 1500 where that can't be told.
fn mtu(interface: Option<&str>) -> u32 {
    let text = interface.map(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")));
    text.and_then(Result::ok).and_then(|text| text.trim().parse().ok()).unwrap_or(1500)
}

/// The server while it runs; it stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Ends the thread; transfers under way are left as they are.
    pub fn stop(self) {}

    /// Whether the thread is still there; it ends by itself only where the kernel refuses to wait
    /// on the sockets, which [`Door::trouble`] has heard of, or by a panic of the door's.
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A waker that fails would leave the thread waiting for a datagram: not joined, then.
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            // Its panic has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Serves on these sockets, in a thread of its own. A transfer of a file holds a descriptor, so
/// the process is given as many as it may have.
///
/// # Errors
/// The kernel gives no thread or no epoll.
pub fn start(bound: Vec<Bound>, door: Arc<dyn Door>, limits: Limits) -> io::Result<Running> {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that is refused, opening the file too many will be, and the client is told.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let mut lines = Vec::new();
    for (nth, b) in bound.iter().enumerate() {
        for (role, socket) in std::iter::once(&b.requests).chain(&b.pool).enumerate() {
            let fd = socket.as_raw_fd();
            let token = Token(lines.len());
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            lines.push(Line { fd, bound: nth, requests: role == 0, mtu: b.mtu, gso: true });
        }
    }
    if lines.len() > usize::from(u16::MAX) {
        return Err(io::Error::other("too many addresses to serve TFTP on"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    // The headers of system calls stay on the thread that they are made on.
    let run = move || {
        let mut server = Server {
            bound,
            lines,
            door,
            desk: Desk::new(limits),
            netascii: 0,
            block: Vec::new(),
            backlog: Vec::new(),
            steps: Vec::with_capacity(BATCH),
            headers: MultiHeaders::preallocate(BATCH, None),
        };
        server.run(poll, &told);
    };
    let thread = std::thread::Builder::new().name("tftp".into()).spawn(run)?;
    Ok(Running { waker, stop, thread: Some(thread) })
}

/// One socket.
struct Line {
    /// Of a socket in `bound`, which is as old as this.
    fd: RawFd,
    bound: usize,
    /// Port 69, or one of the pool.
    requests: bool,
    /// Bytes in one frame.
    mtu: u32,
    /// Whether the kernel takes trains of segments on it, as far as we know.
    gso: bool,
}

impl Line {
    /// How many datagrams of this size, TFTP header included, go out in one system call.
    fn train(&self, segment: u16) -> u64 {
        if self.gso && u32::from(segment) + IP_UDP <= self.mtu {
            (UDP_LIMIT / u64::from(segment)).clamp(1, WINDOW_LIMIT.into())
        } else {
            1
        }
    }
}

/// What a transfer has beside its state.
struct Job {
    content: Content,
    /// Bytes of memory that are this transfer's alone.
    own: u64,
    failed: Option<io::Error>,
}

struct Server {
    bound: Vec<Bound>,
    lines: Vec<Line>,
    door: Arc<dyn Door>,
    desk: Desk<Job>,
    /// Bytes held by converted texts.
    netascii: u64,
    /// Blocks of a file on their way out.
    block: Vec<u8>,
    /// Lines with more to read.
    backlog: Vec<usize>,
    /// Single blocks that the batch at hand brings, all on its line.
    steps: Vec<(Key, u64)>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Server {
    fn run(&mut self, mut poll: Poll, stop: &AtomicBool) {
        let mut events = Events::with_capacity(64);
        let mut batch = Batch::new();
        let mut heard = Instant::now();
        loop {
            let now = Instant::now();
            let due = self.desk.next_due().map(|d| d.saturating_duration_since(now));
            let awake = !self.backlog.is_empty() || now < heard + AWAKE;
            let wait = if awake { Some(Duration::ZERO) } else { due };
            match poll.poll(&mut events, wait) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    self.door.trouble(Ipv4Addr::UNSPECIFIED, &e);
                    return;
                }
                _ => {}
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            let mut ready = std::mem::take(&mut self.backlog);
            ready.extend(events.iter().map(|event| event.token().0));
            ready.retain(|&line| line < self.lines.len());
            ready.sort_by_key(|&line| self.lines[line].requests);
            for &line in &ready {
                self.drain(line, &mut batch);
            }
            let now = Instant::now();
            if !ready.is_empty() && (1..=FEW).contains(&self.desk.len()) {
                heard = now;
            }
            while let Some((key, step)) = self.desk.tick(now) {
                self.act(key, step, now);
            }
        }
    }

    /// Reads a socket until it is empty (its readiness is told once) or others have waited enough.
    fn drain(&mut self, line: usize, batch: &mut Batch) {
        let turns = if self.lines[line].requests { 1 } else { BATCHES };
        for _ in 0..turns {
            let count = match batch.receive(self.lines[line].fd) {
                Ok(count) => count,
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => continue,
                Err(error) => return self.trouble(line, &error.into()),
            };
            let now = Instant::now();
            for (peer, datagram) in batch.datagrams(count) {
                self.datagram(line, peer, datagram, now);
            }
            self.flush(line, now);
            // A batch that is not full has emptied the socket: what comes now is told anew.
            if count < BATCH {
                return;
            }
        }
        self.backlog.push(line);
    }

    fn datagram(&mut self, line: usize, peer: SocketAddrV4, datagram: &[u8], now: Instant) {
        let key = Key { line: line as u16, peer };
        let why = match (self.lines[line].requests, wire::read(datagram)) {
            (true, Ok(Packet::Rrq(request))) => return self.request(line, peer, request, now),
            (true, Ok(Packet::Ack(_))) => Why::NotARequest(4),
            (false, Ok(Packet::Rrq(_))) => Why::NotAnAnswer(1),
            (false, Ok(Packet::Ack(number))) => match self.desk.ack(key, number, now) {
                // A window of one sends single blocks only, and the next one after an answer: they
                // may wait for the others of the batch.
                Ok(Step::Send(Flight::Blocks { first, last })) if first == last => {
                    return self.steps.push((key, first));
                }
                Ok(step) => {
                    self.flush(line, now);
                    return self.act(key, step, now);
                }
                Err(why) => why,
            },
            (_, Ok(Packet::Error { code, message })) => match self.desk.end(key) {
                Some(entry) => return self.given_up(&entry, code, &message, now),
                None => Why::StrayError(code, message),
            },
            (_, Err(why)) => why,
        };
        self.turn_away(line, peer, &why, now);
    }

    /// Says no to what is no read request, if it may be answered at all.
    fn turn_away(&mut self, line: usize, peer: SocketAddrV4, why: &Why, now: Instant) {
        if let Some(code) = why.code()
            && self.desk.may_err(now)
        {
            self.tell(line, peer, &wire::error(code, &why.to_string()));
        }
        self.door.dropped(peer, self.bound[self.lines[line].bound].local, why);
    }

    fn request(&mut self, line: usize, peer: SocketAddrV4, request: Request, now: Instant) {
        let bound = &self.bound[self.lines[line].bound];
        let caps = Caps { blksize: bound.blksize, windowsize: WINDOW_LIMIT };
        let Request { name, mode, options } = request;
        let ask = Ask { peer, local: bound.local, name, mode, options };
        let pool = line as u16 + 1..line as u16 + 1 + POOL;
        let key = match self.desk.admit(pool, &ask, now) {
            Admit::Again(key, flight) => return self.send(key, flight, now),
            Admit::Refused(why) => return self.refuse(line, &ask, &why),
            Admit::New(key, ended) => {
                ended.iter().for_each(|(entry, seen)| self.over(entry, seen));
                key
            }
        };
        let job = match self.open(&ask) {
            Ok(job) => job,
            Err(why) => return self.refuse(line, &ask, &why),
        };
        let (transfer, first) = Transfer::begin(job.content.len(), &ask.options, caps, now);
        let (blksize, windowsize) = (transfer.blksize(), transfer.windowsize());
        self.door.saw(&ask, &Seen::Started { bytes: job.content.len(), blksize, windowsize });
        self.netascii += job.own;
        self.desk.begin(key, ask, transfer, job, now);
        self.send(key, first, now);
    }

    fn refuse(&mut self, line: usize, ask: &Ask, why: &Why) {
        if let Some(code) = why.code() {
            self.tell(line, ask.peer, &wire::error(code, &why.to_string()));
        }
        self.door.saw(ask, &Seen::Refused(why));
    }

    fn open(&self, ask: &Ask) -> Result<Job, Why> {
        let content = self.door.open(ask)?;
        if ask.mode == Mode::Octet {
            return Ok(Job { content, own: 0, failed: None });
        }
        let len = content.len();
        if len > NETASCII_LIMIT {
            return Err(Why::Netascii(len));
        }
        // A conversion is at most twice its text.
        if self.netascii + 2 * len > NETASCII_TOTAL {
            return Err(Why::NetasciiFull);
        }
        let text = slice(&content, 0..len, &mut Vec::new())
            .map(wire::netascii)
            .map_err(|e| Refusal::new(Code::Undefined, format!("it could not be read: {e}")))?;
        let own = text.len() as u64;
        Ok(Job { content: Content::Bytes(Cow::Owned(text)), own, failed: None })
    }

    fn act(&mut self, key: Key, step: Step, now: Instant) {
        match step {
            Step::Wait => {}
            Step::Send(flight) => self.send(key, flight, now),
            Step::End(end) => {
                let Some(entry) = self.desk.end(key) else { return };
                let (bytes, resent) = (entry.transfer.bytes(), entry.transfer.resent());
                let seen = match end {
                    End::Done => Seen::Done { bytes, took: entry.took(now), resent },
                    End::TimedOut => Seen::TimedOut {
                        acknowledged: entry.transfer.acknowledged(),
                        bytes,
                        error: entry.job.failed.as_ref(),
                        took: entry.took(now),
                    },
                };
                self.over(&entry, &seen);
            }
        }
    }

    fn given_up(&mut self, entry: &Entry<Job>, code: u16, message: &str, now: Instant) {
        let seen = if entry.transfer.probe() {
            Seen::Probed { bytes: entry.transfer.bytes() }
        } else {
            let (acknowledged, bytes) = (entry.transfer.acknowledged(), entry.transfer.bytes());
            Seen::Aborted { code, message, acknowledged, bytes, took: entry.took(now) }
        };
        self.over(entry, &seen);
    }

    /// Tells of a transfer that has left the desk.
    fn over(&mut self, entry: &Entry<Job>, seen: &Seen<'_>) {
        self.netascii -= entry.job.own;
        self.door.saw(&entry.ask, seen);
    }

    fn send(&mut self, key: Key, flight: Flight, now: Instant) {
        let Some(entry) = self.desk.get_mut(key) else { return };
        let line = &mut self.lines[usize::from(key.line)];
        let sent = match flight {
            Flight::Options => {
                let oack = entry.transfer.oack().map(wire::oack).unwrap_or_default();
                push(line.fd, key.peer, &[IoSlice::new(&oack)], &[])
                    .map_err(|errno| Halt::of(errno, flight))
            }
            Flight::Blocks { first, last } => {
                blocks(line, key.peer, entry, first..=last, &mut self.block)
            }
        };
        match sent {
            Ok(()) => {}
            Err(Halt::Full(rest)) => self.desk.unsent(key, rest, now),
            // Lost like a packet on the wire: the timer sends it again.
            Err(Halt::Lost(error)) => entry.job.failed = Some(error),
            Err(Halt::Unreadable(error)) => self.broken(key, &error),
        }
    }

    /// Sends the blocks that have gathered, all in one system call where nothing is amiss.
    fn flush(&mut self, line: usize, now: Instant) {
        let steps = std::mem::take(&mut self.steps);
        let mut rest = steps.as_slice();
        while let [(key, block), more @ ..] = rest {
            let sent = if more.is_empty() { 0 } else { self.many(line, rest) };
            // Where the kernel, or a file, has stopped at one, that one hears of it by itself.
            rest = &rest[sent.min(rest.len())..];
            if sent == 0 {
                self.send(*key, Flight::Blocks { first: *block, last: *block }, now);
                rest = more;
            }
        }
        self.steps = steps;
        self.steps.clear();
    }

    /// Sends single blocks of many transfers on one line in one system call. How many of them are
    /// sent, or need none any more because their transfer is over.
    fn many(&mut self, line: usize, steps: &[(Key, u64)]) -> usize {
        let mut spans = [(0, 0); BATCH];
        self.block.clear();
        let mut ready = 0;
        for ((key, block), span) in steps.iter().zip(&mut spans) {
            let Some(entry) = self.desk.get(*key) else { break };
            if let Content::File { file, .. } = &entry.job.content {
                let wanted = entry.transfer.span(*block);
                let at = self.block.len();
                self.block.resize(at + (wanted.end - wanted.start) as usize, 0);
                if file.read_exact_at(&mut self.block[at..], wanted.start).is_err() {
                    break;
                }
                *span = (at, self.block.len());
            }
            ready += 1;
        }
        let mut heads = [[0; wire::DATA_HEAD]; BATCH];
        let mut to = [None; BATCH];
        for (((key, block), head), to) in steps.iter().zip(&mut heads).zip(&mut to).take(ready) {
            *head = self::head(*block);
            *to = Some(SockaddrIn::from(key.peer));
        }
        let mut parts = [[IoSlice::new(&[]), IoSlice::new(&[])]; BATCH];
        for (nth, (key, block)) in steps.iter().enumerate().take(ready) {
            let Some(entry) = self.desk.get(*key) else { break };
            let span = entry.transfer.span(*block);
            let range = span.start as usize..span.end as usize;
            let bytes = match &entry.job.content {
                Content::Bytes(bytes) => &bytes[range],
                Content::Shared(bytes) => &bytes[range],
                Content::File { .. } => &self.block[spans[nth].0..spans[nth].1],
            };
            parts[nth] = [IoSlice::new(&heads[nth]), IoSlice::new(bytes)];
        }
        let (fd, flags) = (self.lines[line].fd, MsgFlags::MSG_DONTWAIT);
        let parts = parts.iter().take(ready);
        match sendmmsg(fd, &mut self.headers, parts, &to[..ready], [], flags) {
            Ok(sent) => sent.count(),
            Err(_) => 0,
        }
    }

    fn broken(&mut self, key: Key, error: &io::Error) {
        self.tell(
            key.line.into(),
            key.peer,
            &wire::error(Code::Undefined, "the file could not be read to its end"),
        );
        if let Some(entry) = self.desk.end(key) {
            self.over(&entry, &Seen::Broken(error));
        }
    }

    /// Sends a datagram that is not sent again if it gets lost.
    fn tell(&self, line: usize, peer: SocketAddrV4, datagram: &[u8]) {
        match push(self.lines[line].fd, peer, &[IoSlice::new(datagram)], &[]) {
            // A full socket loses it as the network might; the client asks again.
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(errno) => self.trouble(line, &errno.into()),
        }
    }

    fn trouble(&self, line: usize, error: &io::Error) {
        self.door.trouble(self.bound[self.lines[line].bound].local, error);
    }
}

/// What stops a flight.
enum Halt {
    /// The socket takes no more now; this is left.
    Full(Flight),
    Lost(io::Error),
    Unreadable(io::Error),
}

impl Halt {
    fn of(errno: Errno, rest: Flight) -> Halt {
        match errno {
            Errno::EAGAIN | Errno::ENOBUFS => Halt::Full(rest),
            errno => Halt::Lost(errno.into()),
        }
    }
}

/// Sends blocks, as many in one system call as the kernel takes.
fn blocks(
    line: &mut Line,
    peer: SocketAddrV4,
    entry: &Entry<Job>,
    range: RangeInclusive<u64>,
    scratch: &mut Vec<u8>,
) -> Result<(), Halt> {
    let (transfer, content) = (&entry.transfer, &entry.job.content);
    let segment = transfer.blksize() + wire::DATA_HEAD as u16;
    let (mut next, last) = range.into_inner();
    while next <= last {
        let train = (last - next + 1).min(line.train(segment));
        let span = transfer.span(next).start..transfer.span(next + train - 1).end;
        let bytes = slice(content, span, scratch).map_err(Halt::Unreadable)?;
        let sent = match train {
            1 => push(line.fd, peer, &[IoSlice::new(&head(next)), IoSlice::new(bytes)], &[]),
            _ => send_train(line.fd, peer, segment, next, bytes, train),
        };
        match sent {
            Ok(()) => next += train,
            // No trains on this socket: a device without checksums in hardware, a route with a
            // smaller MTU.
            Err(Errno::EINVAL | Errno::EIO | Errno::EOPNOTSUPP | Errno::EMSGSIZE) if train > 1 => {
                line.gso = false;
            }
            Err(errno) => return Err(Halt::of(errno, Flight::Blocks { first: next, last })),
        }
    }
    Ok(())
}

/// The block's head; its number wraps to 0 behind 65535.
fn head(block: u64) -> [u8; 4] {
    wire::data_head(block as u16)
}

/// Sends several blocks that lie in `bytes` one behind the other in one call; the last one may be
/// short or empty. The kernel cuts them apart again at every `segment` bytes.
fn send_train(
    fd: RawFd,
    peer: SocketAddrV4,
    segment: u16,
    first: u64,
    bytes: &[u8],
    count: u64,
) -> Result<(), Errno> {
    let size = usize::from(segment) - wire::DATA_HEAD;
    let heads: Vec<[u8; wire::DATA_HEAD]> = (first..first + count).map(head).collect();
    let mut parts = Vec::with_capacity(2 * heads.len());
    for (nth, head) in heads.iter().enumerate() {
        let block = (nth * size).min(bytes.len())..((nth + 1) * size).min(bytes.len());
        parts.push(IoSlice::new(head));
        parts.push(IoSlice::new(&bytes[block]));
    }
    push(fd, peer, &parts, &[ControlMessage::UdpGsoSegments(&segment)])
}

fn push(
    fd: RawFd,
    peer: SocketAddrV4,
    parts: &[IoSlice<'_>],
    control: &[ControlMessage<'_>],
) -> Result<(), Errno> {
    let to = SockaddrIn::from(peer);
    loop {
        match sendmsg(fd, parts, control, MsgFlags::MSG_DONTWAIT, Some(&to)) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop),
        }
    }
}

/// These bytes of the content; those of a file by way of `scratch`.
fn slice<'a>(
    content: &'a Content,
    span: Range<u64>,
    scratch: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    let range = span.start as usize..span.end as usize;
    match content {
        Content::Bytes(bytes) => Ok(&bytes[range]),
        Content::Shared(bytes) => Ok(&bytes[range]),
        Content::File { file, .. } => {
            scratch.resize(range.len(), 0);
            file.read_exact_at(scratch, span.start)?;
            Ok(scratch)
        }
    }
}

/// Room for the datagrams that one system call takes.
struct Batch {
    headers: MultiHeaders<SockaddrIn>,
    buffers: Vec<[u8; DATAGRAM]>,
    from: [Option<(SocketAddrV4, usize)>; BATCH],
}

impl Batch {
    fn new() -> Batch {
        Batch {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![[0; DATAGRAM]; BATCH],
            from: [None; BATCH],
        }
    }

    fn receive(&mut self, fd: RawFd) -> Result<usize, Errno> {
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            [IoSliceMut::new(buffers.next().map_or(&mut [][..], |b| b.as_mut_slice()))]
        });
        let got = recvmmsg(fd, &mut self.headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
        let mut count = 0;
        for (slot, message) in self.from.iter_mut().zip(got) {
            *slot = message.address.map(|from| (SocketAddrV4::from(from), message.bytes));
            count += 1;
        }
        Ok(count)
    }

    fn datagrams(&self, count: usize) -> impl Iterator<Item = (SocketAddrV4, &[u8])> {
        let taken = self.from.iter().zip(&self.buffers).take(count);
        taken.filter_map(|(from, buffer)| {
            let (peer, len) = (*from)?;
            Some((peer, &buffer[..len.min(DATAGRAM)]))
        })
    }
}
