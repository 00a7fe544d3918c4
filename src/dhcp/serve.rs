//! The sockets of DHCP: ports 67 and 4011 on each interface.
//!
//! 1. Sockets are bound to their interface: a request from any other never gets here, and a reply
//!    never leaves by any other.
//! 2. All datagrams that wait are read and decided by one thread.
//! 3. What promises nothing leaves at once: offers, NAKs, answers of proxy mode. An offer of an
//!    address that is new to its client goes with a ping (see [`super::probe`]).
//! 4. ACKs wait for their leases to be on the disk (see [`super::disk`], a thread of its own: the
//!    next requests are decided while the disk works).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::clock::{self, Clock};
use super::decide::{self, Answer, Here, Next, Outcome, Port, Silent, To};
use super::disk::Queue;
use super::lease::{self, Aside, Lease, Leases, NotAdopted, TABLE};
use super::probe::Probes;
use super::rival;
use super::wire::{self, Kind, Reply, ReplyKind};
use crate::config::{Config, Mode};
use crate::ipxe;
use crate::ledger::{Handed, Leased, Ledger};
use crate::model::{Event, Facts, Interface, Mac, Stage, State, Why};
use crate::store::{self, Store};

/// Datagrams read from one door before the others get their turn.
const BATCH: usize = 256;
/// The kernel's buffer for each socket, in bytes: a hall of machines switched on at once.
const BUFFER: usize = 4 * 1024 * 1024;
/// What we read of one datagram, in bytes.
const DATAGRAM: usize = 4096;
const STOP: Token = Token(usize::MAX);

/// What the threads work with, and what others may ask them.
pub struct Dhcp {
    pub config: Arc<ArcSwap<Config>>,
    pub ledger: Arc<Ledger>,
    pub store: Arc<dyn Store>,
    /// The fingerprints of the roots in force, one after the other; empty without TLS. Asked for
    /// each reply: a root is made anew before it ends.
    pub trust: Trust,
    pub book: Book,
    /// Told of each iPXE that is about to boot: interface and machine.
    pub booting: Booting,
    /// Hears of each machine that will boot from us, its firmware's first word on.
    pub appeared: Box<dyn Fn(Mac) + Send + Sync>,
}

/// The leases, and the clock that they are counted by.
pub struct Book {
    leases: Mutex<Leases>,
    clock: Clock,
    boot: String,
}

/// Gives the concatenated fingerprints of [`Dhcp::trust`].
pub type Trust = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

/// Hears of an interface and of a machine on it.
pub type Booting = Box<dyn Fn(&str, Mac) + Send + Sync>;

/// Why DHCP could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "UDP port {port} on {interface} is in use by another program: stop it (`ss -lunp 'sport = \
         :{port}'` names it), or set [dhcp] mode = \"off\""
    )]
    InUse { port: u16, interface: String },
    #[error(
        "UDP port {port} on {interface} needs CAP_NET_BIND_SERVICE and CAP_NET_RAW: run pilotlight \
         with sudo, or by its systemd unit"
    )]
    NotAllowed { port: u16, interface: String },
    #[error("UDP port {port} on {interface}: {why}")]
    Socket { port: u16, interface: String, why: io::Error },
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// What the kernel said of a socket, as a sentence that says what to do.
    fn of(port: u16, interface: &str, why: io::Error) -> Error {
        let interface = interface.to_string();
        match why.kind() {
            io::ErrorKind::AddrInUse => Error::InUse { port, interface },
            io::ErrorKind::PermissionDenied => Error::NotAllowed { port, interface },
            _ => Error::Socket { port, interface, why },
        }
    }
}

/// Why an ACK that was decided did not leave.
#[derive(Debug)]
enum Unsent {
    /// More wait for the disk than it can take.
    Behind,
    NotKept(String),
}

impl Why for Unsent {
    fn name(&self) -> &'static str {
        match self {
            Unsent::Behind => "disk-behind",
            Unsent::NotKept(_) => "not-kept",
        }
    }
}

impl std::fmt::Display for Unsent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unsent::Behind => f.write_str(
                "no DHCPACK: more leases wait for the disk than it can take; the client asks again",
            ),
            Unsent::NotKept(why) => write!(f, "no DHCPACK, for its lease cannot be kept: {why}"),
        }
    }
}

/// The leases that the store holds, for [`Dhcp::book`].
///
/// `ours` are the interfaces' addresses: never given away, whatever a range says.
pub fn load(
    store: &dyn Store,
    config: &Config,
    ours: impl IntoIterator<Item = Ipv4Addr>,
) -> Result<Book, store::Error> {
    let (mut leases, unread) = Leases::load(&store.list(TABLE)?);
    for record in unread {
        tracing::warn!(target: "pilotlight", "a lease that cannot be read is left as it is: {record}");
    }
    leases.keep(ours);
    leases.configure(config);
    let mark = store.get(clock::TABLE, clock::KEY)?;
    // Without it every start counts as one of the host.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim().to_string();
    let host = clock::Host { boot: &boot, uptime: uptime(), wall: Timestamp::now() };
    let clock = Clock::resume(mark.as_deref(), host);
    Ok(Book { leases: leases.into(), clock, boot })
}

/// Puts leases of another server, their times as the wall clock has them, into the store; what
/// became of each.
pub fn adopt(
    store: &dyn Store,
    config: &Config,
    all: impl IntoIterator<Item = Lease>,
) -> Result<Vec<Result<(), NotAdopted>>, store::Error> {
    let Book { leases, mut clock, boot } = load(store, config, [])?;
    let mut leases = leases.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (wall, now) = (Timestamp::now(), clock.now(uptime()));
    let ahead = now.duration_since(wall);
    // The longest lease of ours, where the other server knew no end.
    let longest = lease::after(now, Duration::from_secs(366 * 86_400));
    let ours = |at: Timestamp| at.checked_add(ahead).unwrap_or(at);
    let adopted = all.into_iter().map(|l| {
        let (starts, ends) = (ours(l.starts), ours(l.ends).min(longest));
        leases.adopt(Lease { starts, ends, ..l }, now)
    });
    let adopted = adopted.collect();
    let mut changes = leases.take_changes();
    changes.extend(clock.mark(&boot, uptime()));
    store.commit(&changes)?;
    Ok(adopted)
}

/// `CLOCK_BOOTTIME`: since the host's start, suspend included.
fn uptime() -> Duration {
    // Fails for a clock that the kernel does not have; every Linux since 2.6.39 has it.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

impl Dhcp {
    /// All leases, by address, their times as the wall clock has them.
    pub fn list(&self) -> Vec<Lease> {
        let behind = Timestamp::now().duration_since(self.book.clock.now(uptime()));
        let shown = |at: Timestamp| at.checked_add(behind).unwrap_or(at);
        let mut all = self.lock().list();
        for lease in &mut all {
            lease.starts = shown(lease.starts);
            lease.ends = shown(lease.ends);
        }
        all
    }

    /// Tells the ledger where machines are that were given an address before this start: without
    /// that, any host could say to be any of them.
    pub fn remember(&self) {
        let now = self.book.clock.now(uptime());
        let current = |l: &Lease| l.state == lease::State::Bound && l.ends > now;
        for Lease { mac, address, .. } in self.lock().list().into_iter().filter(current) {
            self.ledger.leased(mac, Leased { address, relay: None, uuid: None });
        }
    }

    /// Takes over the pools and reservations of the configuration now in force.
    pub fn reconfigure(&self) {
        let config = self.config.load_full();
        self.lock().configure(&config);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.book.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running threads; [`Running::stop`] ends them.
pub struct Running {
    waker: Waker,
    queue: Arc<Queue<Box<Waiting>>>,
    reads: std::thread::JoinHandle<()>,
    commits: std::thread::JoinHandle<()>,
}

impl Running {
    /// What waits for the disk is still committed, and answered.
    pub fn stop(self) {
        let Ok(()) = self.waker.wake() else { return };
        let read = self.reads.join();
        self.queue.close();
        if read.and(self.commits.join()).is_err() {
            tracing::error!(target: "pilotlight", "a DHCP thread had panicked");
        }
    }
}

struct Door {
    socket: UdpSocket,
    interface: Interface,
    port: Port,
}

/// What an interface has beside its doors, in `full` mode.
struct Ears {
    interface: Interface,
    /// Raw ICMP: echoes out, their answers in.
    ping: Socket,
    /// Raw UDP: what other DHCP servers say.
    rival: Socket,
}

/// The sockets of all interfaces, ready to serve.
pub struct Bound {
    doors: Vec<Door>,
    ears: Vec<Ears>,
}

impl Bound {
    /// Of any interface: two of ours on one network hear each other.
    fn is_ours(&self, address: Ipv4Addr) -> bool {
        let all = self.doors.iter().flat_map(|d| &d.interface.addresses);
        all.into_iter().any(|n| n.addr() == address)
    }
}

/// Binds 67 and 4011 on each interface.
pub fn bind(interfaces: &[Interface], mode: Mode) -> Result<Bound, Error> {
    let mut bound = Bound { doors: Vec::new(), ears: Vec::new() };
    for interface in interfaces {
        let failed = |number| move |e| Error::of(number, &interface.name, e);
        for (port, number) in [(Port::Server, 67), (Port::Pxe, 4011)] {
            let socket = socket(interface, number).map_err(failed(number))?;
            bound.doors.push(Door { socket, interface: interface.clone(), port });
        }
        if mode == Mode::Full {
            let ping = raw(interface, Protocol::ICMPV4, &ONLY_ECHO_REPLIES).map_err(failed(67))?;
            let rival = raw(interface, Protocol::UDP, &ONLY_REPLIES).map_err(failed(67))?;
            bound.ears.push(Ears { interface: interface.clone(), ping, rival });
        }
    }
    Ok(bound)
}

/// Serves on threads of its own.
pub fn start(dhcp: Arc<Dhcp>, bound: Bound) -> Result<Running, Error> {
    let failed = |why| Error::Socket { port: 67, interface: "poll".into(), why };
    let poll = Poll::new().map_err(failed)?;
    let doors = bound.doors.iter().map(|d| d.socket.as_raw_fd());
    let ears = bound.ears.iter().flat_map(|e| [e.ping.as_raw_fd(), e.rival.as_raw_fd()]);
    for (i, fd) in doors.chain(ears).enumerate() {
        poll.registry()
            .register(&mut SourceFd(&fd), Token(i), Interest::READABLE)
            .map_err(failed)?;
    }
    let waker = Waker::new(poll.registry(), STOP).map_err(failed)?;
    let queue = Arc::new(Queue::new());
    let bound = Arc::new(bound);
    let named = |name: &str| std::thread::Builder::new().name(name.into());
    let commits = {
        let (dhcp, bound, queue) = (dhcp.clone(), bound.clone(), queue.clone());
        named("dhcp-commit").spawn(move || commit(&dhcp, &bound, &queue)).map_err(failed)?
    };
    let reads = {
        let queue = queue.clone();
        named("dhcp").spawn(move || serve(&dhcp, &bound, &queue, poll)).map_err(failed)?
    };
    Ok(Running { waker, queue, reads, commits })
}

/// A socket that hears copies of what the kernel delivers to this host, as far as `filter` lets it
/// pass.
fn raw(interface: &Interface, protocol: Protocol, filter: &[SockFilter]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(protocol))?;
    // First of all, so that nothing else piles up in it.
    socket.attach_filter(filter)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    Ok(socket)
}

// Classic BPF over the packet from its IP header on: X is the header's length, then a load and a
// comparison for each condition; accept all of it, or nothing.
const ONLY_ECHO_REPLIES: [SockFilter; 5] = [
    SockFilter::new(0xb1, 0, 0, 0),
    SockFilter::new(0x50, 0, 0, 0),
    SockFilter::new(0x15, 0, 1, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];
/// UDP from port 67 whose first octet says BOOTREPLY.
const ONLY_REPLIES: [SockFilter; 7] = [
    SockFilter::new(0xb1, 0, 0, 0),
    SockFilter::new(0x48, 0, 0, 0),
    SockFilter::new(0x15, 0, 3, 67),
    SockFilter::new(0x50, 0, 0, 8),
    SockFilter::new(0x15, 0, 1, 2),
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];

fn socket(interface: &Interface, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    // As much as the kernel gives; net.core.rmem_max is the site's to raise.
    socket.set_recv_buffer_size(BUFFER)?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket.into())
}

/// A datagram that is decided again when its ping has had its time.
struct Letter {
    door: usize,
    from: SocketAddrV4,
    to: Option<Ipv4Addr>,
    bytes: Vec<u8>,
}

/// A reply that is to be remembered and sent. Small: hundreds of them wait for the disk at once.
struct Waiting {
    door: usize,
    to: SocketAddrV4,
    ours: Ipv4Addr,
    bytes: Vec<u8>,
    facts: Facts,
    events: Vec<Event>,
    handed: Option<Option<Handed>>,
    refused: Option<Silent>,
    leased: Option<Leased>,
    boots: bool,
    booting: bool,
}

impl Waiting {
    fn new(
        door: usize,
        from: SocketAddrV4,
        facts: Facts,
        events: Vec<Event>,
        full: bool,
        a: Answer,
    ) -> Self {
        let to = match a.to {
            To::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
            To::Address(address) => address,
            To::Source => from,
        };
        let refused = match a.next {
            Next::Refused(why) => Some(why),
            _ => None,
        };
        let (ours, bytes) = (a.reply.siaddr, wire::write(&a.reply));
        // What we gave counts; where the addresses are another's to give, what the client has.
        let its = if full { a.reply.yiaddr } else { a.reply.ciaddr };
        let settled = a.reply.kind == ReplyKind::Ack && !its.is_unspecified();
        // The request's own, which the reply repeats, and not what is known of the machine.
        let said = || a.reply.options.iter().find(|(c, _)| *c == wire::code::UUID);
        let uuid = || said().and_then(|(_, value)| decide::uuid(value));
        let relay = relay(a.reply.giaddr);
        let leased = settled.then(|| Leased { address: its, relay, uuid: uuid() });
        let (handed, boots, booting) = (a.handed, a.boots, a.booting);
        Waiting { door, to, ours, bytes, facts, events, handed, refused, leased, boots, booting }
    }
}

fn serve(dhcp: &Dhcp, bound: &Bound, queue: &Queue<Box<Waiting>>, mut poll: Poll) {
    let mut events = Events::with_capacity(64);
    let mut ready = vec![true; bound.doors.len()];
    // Tells our echoes from those of other programs here; nobody has to guess it.
    let mut probes: Probes<Letter> = Probes::new(std::process::id() as u16);
    loop {
        let due = probes.due().map(|d| d.saturating_duration_since(Instant::now()));
        let wait = if ready.iter().any(|r| *r) { Some(Duration::ZERO) } else { due };
        if let Err(e) = poll.poll(&mut events, wait)
            && e.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(target: "pilotlight", "DHCP stops: poll: {e}");
            return;
        }
        let mut again = Vec::new();
        for event in &events {
            match event.token() {
                STOP => return,
                Token(i) if i < ready.len() => ready[i] = true,
                Token(i) => {
                    let ears = &bound.ears[(i - ready.len()) / 2];
                    match (i - ready.len()) % 2 {
                        0 => again.extend(pinged(dhcp, ears, &mut probes)),
                        _ => overheard(dhcp, bound, ears),
                    }
                }
            }
        }
        again.extend(std::iter::from_fn(|| probes.over(Instant::now())));
        round(dhcp, bound, queue, &mut ready, &mut probes, again);
    }
}

/// Steps 2 and 3 for what waits at the doors now, and for the DISCOVERs whose ping is over.
fn round(
    dhcp: &Dhcp,
    bound: &Bound,
    queue: &Queue<Box<Waiting>>,
    ready: &mut [bool],
    probes: &mut Probes<Letter>,
    again: Vec<Letter>,
) {
    let config = dhcp.config.load_full();
    let mut buffer = [0; DATAGRAM];
    let full = config.dhcp.mode == Mode::Full;
    // Boxed: a few hundred of them would be moved about in blocks that malloc takes its time over.
    let (mut acks, mut rest) = (Vec::new(), Vec::new());
    let mut decide = |leases: &mut Leases, door: usize, from, to, bytes: &[u8]| {
        let outcome = one(dhcp, &config, leases, &bound.doors[door], bytes, to);
        if let Some(outcome) = outcome
            && !held(bound, probes, &config, &outcome, || Letter {
                door,
                from,
                to,
                bytes: bytes.to_vec(),
            })
        {
            let Outcome { facts, events, result } = outcome;
            match result {
                Ok(answer) => {
                    let list = if promises(&answer.reply) { &mut acks } else { &mut rest };
                    list.push(Box::new(Waiting::new(door, from, facts, events, full, *answer)));
                }
                Err(why) => silent(dhcp, bound, door, &facts, events, &why),
            }
        }
    };
    let changes = {
        let mut leases = dhcp.lock();
        for Letter { door, from, to, bytes } in again {
            decide(&mut leases, door, from, to, &bytes);
        }
        for (i, (door, ready)) in bound.doors.iter().zip(ready).enumerate() {
            // Every door gets its turn: a flood at one keeps nobody waiting at another.
            for _ in 0..BATCH {
                if !*ready {
                    break;
                }
                match receive(&door.socket, &mut buffer) {
                    Ok((len, from, to)) => decide(&mut leases, i, from, to, &buffer[..len]),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => *ready = false,
                    Err(e) => {
                        // ENETDOWN and the like is told once, and there may be more behind it; the
                        // app's watch says what happened to the interface.
                        tracing::warn!(target: "pilotlight", "DHCP on {}: {e}", door.interface.name);
                        break;
                    }
                }
            }
        }
        leases.take_changes()
    };
    let behind = queue.push(changes, acks);
    for w in rest {
        tell(dhcp, &bound.doors[w.door], w);
    }
    for w in behind {
        dhcp.ledger.refused("dhcp", Some(w.facts.mac), &Unsent::Behind, Timestamp::now());
    }
}

/// Whether the reply gives an address for good: only from the disk.
fn promises(reply: &Reply) -> bool {
    reply.kind == ReplyKind::Ack && !reply.yiaddr.is_unspecified()
}

fn one(
    dhcp: &Dhcp,
    config: &Config,
    leases: &mut Leases,
    door: &Door,
    datagram: &[u8],
    to: Option<Ipv4Addr>,
) -> Option<Outcome> {
    let now = Timestamp::now();
    let request = match wire::read(datagram) {
        Ok(request) => request,
        Err(why) => {
            dhcp.ledger.refused("dhcp", None, &why, now);
            return None;
        }
    };
    let known = dhcp.ledger.before(request.mac);
    let here = Here {
        interface: &door.interface.name,
        addresses: &door.interface.addresses,
        to,
        port: door.port,
        trust: &(dhcp.trust)(),
        has_loader: &|name| ipxe::get(&config.ipxe, name).is_ok(),
        handed: known.as_ref().and_then(|(_, handed)| handed.as_ref()),
        known: known.as_ref().map(|(facts, _)| facts),
        assigned: dhcp.ledger.life(request.mac).is_some_and(|l| l.state != State::Discovered),
        now,
        lease_now: dhcp.book.clock.now(uptime()),
    };
    let outcome = decide::decide(config, leases, &request, &here);
    if let (Err(Silent::SiteServer(Kind::Request)), Some(address)) =
        (&outcome.result, request.requested)
    {
        // By broadcast: every server hears whose offer it takes, and of which address.
        let uuid = request.uuid.as_deref().and_then(decide::uuid);
        let relay = relay(request.giaddr);
        dhcp.ledger.leased(request.mac, Leased { address, relay, uuid });
    }
    Some(outcome)
}

fn relay(giaddr: Ipv4Addr) -> Option<Ipv4Addr> {
    Some(giaddr).filter(|a| !a.is_unspecified())
}

/// Asks whether somebody sits at an address that is offered for the first time; true if the offer
/// waits for the answer.
fn held(
    bound: &Bound,
    probes: &mut Probes<Letter>,
    config: &Config,
    outcome: &Outcome,
    letter: impl FnOnce() -> Letter,
) -> bool {
    let Ok(answer) = &outcome.result else { return false };
    let Some(address) = answer.probe.filter(|_| config.dhcp.ping_check) else { return false };
    let letter = (!answer.patient).then(letter);
    let waits = letter.is_some();
    let Ok(echo) = probes.begin(address, outcome.facts.mac, letter, Instant::now()) else {
        return false;
    };
    let to = SocketAddrV4::new(address, 0);
    for ears in &bound.ears {
        // By the interface whose network it is, or that leads to the relay; where it cannot be
        // sent nobody answers, and the offer goes out when its time is over.
        let near = ears.interface.addresses.iter().any(|n| n.contains(&address));
        if near || bound.ears.len() == 1 {
            let _ = ears.ping.send_to(&echo, &to.into());
        }
    }
    waits
}

/// Reads the answers to our echoes: who waited for one is decided anew.
fn pinged(dhcp: &Dhcp, ears: &Ears, probes: &mut Probes<Letter>) -> Vec<Letter> {
    let mut again = Vec::new();
    let mut buffer = [0; DATAGRAM];
    for _ in 0..BATCH {
        let Ok(len) = nix::unistd::read(&ears.ping, &mut buffer) else { return again };
        let Some((address, client, held)) = probes.heard(&buffer[..len]) else { continue };
        let aside = dhcp.lock().set_aside(address, client, dhcp.book.clock.now(uptime()));
        let what = match aside {
            // Asked with the OFFER, and answered by who has the address since the ACK.
            Aside::Its => {
                again.extend(held);
                continue;
            }
            Aside::Rests => "it is not given away for an hour",
            Aside::Not => "and it is leased already: two machines have it",
        };
        let text = format!("{address} on {} answers a ping: {what}", ears.interface.name);
        dhcp.ledger.alarm("address-in-use", &address.to_string(), text, Timestamp::now());
        again.extend(held);
    }
    again
}

/// Reads what other servers say.
fn overheard(dhcp: &Dhcp, bound: &Bound, ears: &Ears) {
    let ours = |a: Ipv4Addr| bound.is_ours(a);
    let mut buffer = [0; DATAGRAM];
    for _ in 0..BATCH {
        let Ok(len) = nix::unistd::read(&ears.rival, &mut buffer) else { return };
        if let Some(heard) = rival::read(&buffer[..len], &ours) {
            let what = format!("its {} went to {}", heard.what, heard.to);
            rival(dhcp, "other-dhcp-server", heard.server, &ears.interface.name, &what);
        }
    }
}

/// Names another server, of which we know by `kind`.
fn rival(dhcp: &Dhcp, kind: &'static str, server: Ipv4Addr, interface: &str, what: &str) {
    let text = rival::alarm(server, interface, what);
    dhcp.ledger.alarm(kind, &server.to_string(), text, Timestamp::now());
}

/// Step 4, on its own thread.
fn commit(dhcp: &Dhcp, bound: &Bound, queue: &Queue<Box<Waiting>>) {
    let mut clock = dhcp.book.clock.clone();
    let boot = &dhcp.book.boot;
    queue.run(
        &*dhcp.store,
        || clock.mark(boot, uptime()),
        |w, why| match why {
            None => tell(dhcp, &bound.doors[w.door], w),
            Some(e) => {
                let text = format!("no lease can be kept, and no DHCPACK leaves: {e}");
                dhcp.ledger.alarm("leases-not-kept", "the store", text, Timestamp::now());
                let why = Unsent::NotKept(e.to_string());
                let now = Timestamp::now();
                dhcp.ledger.refused("dhcp", Some(w.facts.mac), &why, now);
            }
        },
    );
}

/// An outcome that has no reply: remembered and logged.
fn silent(
    dhcp: &Dhcp,
    bound: &Bound,
    door: usize,
    facts: &Facts,
    events: Vec<Event>,
    why: &Silent,
) {
    let (mac, now) = (facts.mac, Timestamp::now());
    // In proxy mode every desktop of the network is heard; that is no timeline's matter. Whose offer
    // a machine took that boots is.
    let boots = || events.iter().any(|e| e.stage != Stage::System);
    if !why.is_everyday() || (matches!(why, Silent::SiteServer(Kind::Request)) && boots()) {
        for event in events {
            dhcp.ledger.record(mac, event, now);
        }
    }
    if let Silent::OtherServer(server) = why
        && !bound.is_ours(*server)
    {
        // A client's word, which anybody can make up: of a kind of its own, so that it hides nothing.
        let name = &bound.doors[door].interface.name;
        rival(dhcp, "other-dhcp-server-chosen", *server, name, &format!("{mac} took its offer"));
    }
    dhcp.ledger.refused("dhcp", Some(mac), why, now);
}

/// Remembers, logs and sends one reply.
fn tell(dhcp: &Dhcp, door: &Door, w: Box<Waiting>) {
    let now = Timestamp::now();
    let Waiting { facts, events, handed, refused, leased, .. } = *w;
    let mac = facts.mac;
    // Known before the reply leaves: the machine's next word may be quicker than we are.
    dhcp.ledger.exchanged(facts, handed, events, now);
    if let Some(leased) = leased {
        dhcp.ledger.leased(mac, leased);
    }
    let sent = send(door, &w.bytes, w.to, w.ours);
    if let Some(why) = &refused {
        dhcp.ledger.refused("dhcp", Some(mac), why, now);
    }
    if let Err(e) = sent {
        let (to, name) = (w.to, &door.interface.name);
        tracing::warn!(target: "pilotlight", mac = %mac, "DHCP reply to {to} by {name}: {e}");
    }
    if w.boots {
        (dhcp.appeared)(mac);
    }
    if w.booting {
        (dhcp.booting)(&door.interface.name, mac);
    }
}

/// One datagram: its length, where it came from, which address it was sent to.
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddrV4, Option<Ipv4Addr>)> {
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let got = recvmsg::<SockaddrIn>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let from = got.address.map_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), SocketAddrV4::from);
    let to = got.cmsgs().into_iter().flatten().find_map(|c| match c {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))
        }
        _ => None,
    });
    Ok((got.bytes, from, to))
}

fn send(door: &Door, bytes: &[u8], to: SocketAddrV4, ours: Ipv4Addr) -> io::Result<()> {
    let ours = match ours.is_unspecified() {
        true => door.interface.first(),
        false => ours,
    };
    let info = nix::libc::in_pktinfo {
        ipi_ifindex: door.interface.index as i32,
        ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from(ours).to_be() },
        ipi_addr: nix::libc::in_addr { s_addr: 0 },
    };
    let to = SockaddrIn::from(to);
    sendmsg(
        door.socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&to),
    )?;
    Ok(())
}
