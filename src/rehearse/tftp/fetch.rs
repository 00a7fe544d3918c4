//! The sockets of all the clients: one thread, a port for each transfer.
//!
//! It must never be what a measurement finds: datagrams are taken in batches, a window that the
//! server sent in one call comes in one (UDP GRO), and nothing is allocated for a block.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendto, setsockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Download, Failed, Get, Got, Step, ack, error};

/// Datagrams (or trains of them) that are taken at once where there is a window. In lock-step
/// there is one; the second place tells that there is no other.
const BATCH: usize = 16;
const LOCK_STEP: usize = 2;
/// How often in a row before the others get their turn.
const BATCHES: usize = 64;
/// The largest datagram, or train of them.
const DATAGRAM: usize = 65536;
/// What is asked of the kernel where there is a window.
const SOCKET_BUFFER: usize = 4 << 20;
/// Transfers that are begun between two looks at the sockets.
const BEGIN: usize = 64;
const WAKER: Token = Token(usize::MAX);

type Done = Box<dyn FnOnce(Result<Got, Failed>) + Send>;

/// The clients; dropped, they give up what is under way.
pub struct Clients {
    queue: Sender<(Get, Done)>,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clients {
    /// Starts their thread. Every transfer has a file descriptor, so the process is given as many
    /// as it may have.
    ///
    /// # Errors
    /// The kernel gives no thread or no epoll.
    pub fn start() -> io::Result<Clients> {
        if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
            // Where that is refused, a socket will be, with a word about it.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
        }
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (queue, asked) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = All {
            poll,
            asked,
            live: Vec::new(),
            free: Vec::new(),
            timers: BTreeSet::new(),
            backlog: Vec::new(),
        };
        let told = stop.clone();
        let run = move || {
            let why = match all.run(&told) {
                Ok(()) => Failed::Stopped,
                Err(error) => Failed::Socket(error.to_string()),
            };
            all.give_up(&why);
        };
        let thread = std::thread::Builder::new().name("tftp-clients".into()).spawn(run)?;
        Ok(Clients { queue, waker, stop, thread: Some(thread) })
    }

    /// Begins a transfer at once. `done` is called on the clients' thread: it must not wait.
    pub fn get(&self, get: Get, done: impl FnOnce(Result<Got, Failed>) + Send + 'static) {
        match self.queue.send((get, Box::new(done))) {
            // A waker that fails leaves it to the next datagram; there is no more to be done.
            Ok(()) => drop(self.waker.wake()),
            Err(unsent) => (unsent.0.1)(Err(Failed::Stopped)),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A waker that fails would leave the thread waiting: not joined, then.
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            // Its panic, which can be `done`'s only, has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

struct Client {
    socket: Socket,
    get: Get,
    download: Download,
    done: Done,
    /// The time under which it stands among the timers: not later than the transfer's own.
    armed: Instant,
}

impl Client {
    fn server(&self) -> SocketAddrV4 {
        self.get.server
    }

    /// Where the transfer's own packets go.
    fn tid(&self) -> SocketAddrV4 {
        let port = self.download.tid().unwrap_or(self.get.server.port());
        SocketAddrV4::new(*self.get.server.ip(), port)
    }

    fn push(&self, to: SocketAddrV4, datagram: &[u8]) -> Result<(), Failed> {
        let to = SockaddrIn::from(to);
        match sendto(self.socket.as_raw_fd(), datagram, &to, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            // Lost like a packet on the wire; EPERM is a packet filter's.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EPERM | Errno::EINTR) => Ok(()),
            Err(errno) => Err(Failed::Socket(errno.desc().into())),
        }
    }
}

struct All {
    poll: Poll,
    asked: Receiver<(Get, Done)>,
    live: Vec<Option<Client>>,
    free: Vec<usize>,
    timers: BTreeSet<(Instant, usize)>,
    /// Clients with more to read.
    backlog: Vec<usize>,
}

impl All {
    fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut batch = Batch::new();
        let mut more = false;
        loop {
            let due = self.timers.first().map(|(d, _)| d.saturating_duration_since(Instant::now()));
            let wait = if more || !self.backlog.is_empty() { Some(Duration::ZERO) } else { due };
            match self.poll.poll(&mut events, wait) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let mut ready = std::mem::take(&mut self.backlog);
            ready.extend(events.iter().filter(|e| e.token() != WAKER).map(|e| e.token().0));
            for id in ready {
                self.drain(id, &mut batch);
            }
            more = self.begin_asked();
            self.ring();
        }
    }

    /// Begins what was asked for; true if there may be more.
    fn begin_asked(&mut self) -> bool {
        for _ in 0..BEGIN {
            match self.asked.try_recv() {
                Ok((get, done)) => self.begin(get, done),
                // Nobody is left to ask: what is under way goes on to its end, or ours.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn begin(&mut self, get: Get, done: Done) {
        let socket = match open(&get) {
            Ok(socket) => socket,
            Err(error) => return done(Err(Failed::Socket(error.to_string()))),
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.live.push(None);
            self.live.len() - 1
        });
        let download = Download::begin(&get, Instant::now());
        let armed = download.due();
        self.timers.insert((armed, id));
        let joined = self.listen(socket.as_raw_fd(), id);
        self.live[id] = Some(Client { socket, get, download, done, armed });
        match joined {
            Ok(()) => self.act(id, Step::Ask, 0),
            Err(error) => self.end(id, Err(Failed::Socket(error.to_string()))),
        }
    }

    fn listen(&self, fd: RawFd, id: usize) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&fd), Token(id), Interest::READABLE)
    }

    /// Reads a socket until it is empty, for its readiness is told once.
    fn drain(&mut self, id: usize, batch: &mut Batch) {
        for _ in 0..BATCHES {
            // A transfer that an earlier datagram has ended leaves its number behind.
            let Some(client) = self.live.get(id).and_then(Option::as_ref) else { return };
            let places = if client.get.windowsize > Some(1) { BATCH } else { LOCK_STEP };
            let fd = client.socket.as_raw_fd();
            let count = match batch.receive(fd, places) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return,
                Err(errno) => return self.end(id, Err(Failed::Socket(errno.desc().into()))),
            };
            let now = Instant::now();
            for nth in 0..count {
                self.train(id, fd, batch, nth, now);
            }
            self.rearm(id);
            if count < places {
                return;
            }
        }
        self.backlog.push(id);
    }

    /// The datagrams that the kernel has handed over as one: what is longer than a block is several
    /// of the same size, of which the last may be shorter. The kernel's own word of the size goes
    /// unread, for nix forgets the room for it between two calls of recvmmsg.
    fn train(&mut self, id: usize, fd: RawFd, batch: &Batch, nth: usize, now: Instant) {
        let Some((peer, bytes)) = batch.at(nth) else { return };
        let segment = self.live[id].as_ref().map_or(DATAGRAM, |c| c.download.largest());
        for datagram in bytes.chunks(segment) {
            let Some(client) = self.live[id].as_mut() else { return };
            // A probe goes on from another socket: what the old one had is a stranger's.
            if peer.ip() != client.get.server.ip() || client.socket.as_raw_fd() != fd {
                return;
            }
            match client.download.datagram(peer.port(), datagram, now) {
                Step::Wait => {}
                step => self.act(id, step, peer.port()),
            }
        }
    }

    fn act(&mut self, id: usize, step: Step, port: u16) {
        let Some(client) = self.live[id].as_mut() else { return };
        let (server, tid) = (client.server(), client.tid());
        let sent = match &step {
            Step::Wait => Ok(()),
            Step::Ask => client.push(server, &client.get.request(client.download.probing)),
            Step::Ack(number) | Step::Done(number) => client.push(tid, &ack(*number)),
            Step::Foreign => {
                let stranger = SocketAddrV4::new(*server.ip(), port);
                client.push(stranger, &error(5, "no transfer of this port's"))
            }
            Step::Anew => {
                let stranger = SocketAddrV4::new(*server.ip(), port);
                let bye = client.push(stranger, &error(8, "User aborted the transfer"));
                bye.and_then(|()| self.anew(id).map_err(|e| Failed::Socket(e.to_string())))
            }
            Step::Fail(Some(code), why) => client.push(tid, &error(*code, &why.to_string())),
            Step::Fail(None, _) => Ok(()),
        };
        match (step, sent) {
            (Step::Fail(_, why), _) | (_, Err(why)) => self.end(id, Err(why)),
            (Step::Done(_), Ok(())) => self.end(id, Ok(())),
            (Step::Anew, Ok(())) => self.act(id, Step::Ask, 0),
            _ => {}
        }
    }

    /// Another port of ours for the same client.
    fn anew(&mut self, id: usize) -> io::Result<()> {
        let Some(client) = self.live[id].as_mut() else { return Ok(()) };
        let socket = open(&client.get)?;
        let fd = socket.as_raw_fd();
        client.socket = socket;
        self.listen(fd, id)
    }

    fn end(&mut self, id: usize, how: Result<(), Failed>) {
        let Some(client) = self.live[id].take() else { return };
        self.timers.remove(&(client.armed, id));
        self.free.push(id);
        (client.done)(how.map(|()| client.download.got(Instant::now())));
    }

    /// A timer is moved only where it would be late; one that is early is put right when its time
    /// comes.
    fn rearm(&mut self, id: usize) {
        if let Some(client) = self.live.get_mut(id).and_then(Option::as_mut)
            && client.download.due() < client.armed
        {
            self.timers.remove(&(client.armed, id));
            client.armed = client.download.due();
            self.timers.insert((client.armed, id));
        }
    }

    fn ring(&mut self) {
        let now = Instant::now();
        while let Some((armed, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(armed, id));
            let Some(client) = self.live[id].as_mut() else { continue };
            let step = client.download.tick(now);
            client.armed = client.download.due().max(now + Duration::from_millis(1));
            self.timers.insert((client.armed, id));
            self.act(id, step, 0);
        }
    }

    fn give_up(&mut self, why: &Failed) {
        for id in 0..self.live.len() {
            self.end(id, Err(why.clone()));
        }
        while let Ok((_, done)) = self.asked.try_recv() {
            done(Err(why.clone()));
        }
    }
}

fn open(get: &Get) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if get.from != Ipv4Addr::UNSPECIFIED {
        socket.set_freebind_v4(true)?;
    }
    if get.windowsize > Some(1) {
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        // An older kernel hands over each datagram by itself, which is slower and as good.
        let _ = setsockopt(&socket, UdpGroSegment, &true);
    }
    socket.bind(&SocketAddr::from((get.from, 0)).into())?;
    Ok(socket)
}

/// Room for the datagrams that one system call takes.
struct Batch {
    headers: MultiHeaders<SockaddrIn>,
    buffers: Vec<Vec<u8>>,
    /// Whence, and how many bytes.
    taken: [Option<(SocketAddrV4, usize)>; BATCH],
}

impl Batch {
    fn new() -> Batch {
        Batch {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![vec![0; DATAGRAM]; BATCH],
            taken: [None; BATCH],
        }
    }

    fn receive(&mut self, fd: RawFd, places: usize) -> Result<usize, Errno> {
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            [IoSliceMut::new(buffers.next().map_or(&mut [], Vec::as_mut_slice))]
        });
        let slices = slices.iter_mut().take(places);
        let got = recvmmsg(fd, &mut self.headers, slices, MsgFlags::MSG_DONTWAIT, None)?;
        let mut count = 0;
        for (taken, message) in self.taken.iter_mut().zip(got) {
            *taken = message.address.map(|from| (SocketAddrV4::from(from), message.bytes));
            count += 1;
        }
        Ok(count)
    }

    fn at(&self, nth: usize) -> Option<(SocketAddrV4, &[u8])> {
        let (peer, len) = self.taken[nth]?;
        Some((peer, &self.buffers[nth][..len.min(DATAGRAM)]))
    }
}
