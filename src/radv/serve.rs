//! The sockets: one ICMPv6 socket for each interface, one thread for all.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::decide::{Link, Verdict, mac_of};
use super::wire::{self, Message};
use super::{Seen, Watch, Why};
use crate::model::Mac;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Hop limit 255 proves that a packet has crossed no router (RFC 4861 section 3.1).
const HOPS: u32 = 255;
/// We ask for routers this often, this far apart: MAX_RTR_SOLICITATIONS and
/// RTR_SOLICITATION_INTERVAL of RFC 4861 section 10.
const QUESTIONS: u32 = 3;
const QUESTION_INTERVAL: Duration = Duration::from_secs(4);
/// An advertisement fits in one frame.
const PACKET: usize = 2048;
/// Packets read from one socket before the others get their turn.
const TURN: usize = 256;
/// Machines told of and not yet heard by the thread.
const QUEUE: usize = 1024;
const WAKER: Token = Token(usize::MAX);

/// Why there are no router advertisements on an interface. DHCP and all the rest work without
/// them; iPXE on BIOS waits for some seconds longer.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("{0} has IPv6 switched off, so nobody waits for a router advertisement from it")]
    NoIpv6(String),
    #[error("{0} has no IPv6 link-local address to advertise from (is its cable in?)")]
    NoLinkLocal(String),
    #[error("not allowed to open a raw socket on {0}: that takes root or CAP_NET_RAW")]
    Forbidden(String),
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error("no router advertisements on {interface}: {error}")]
    Other { interface: String, error: io::Error },
}

/// An interface that is ready to be served.
#[derive(Debug)]
pub struct Opened {
    interface: String,
    index: u32,
    own: Ipv6Addr,
    socket: Socket,
}

/// Opens the socket of one interface.
///
/// # Errors
/// Why there can be no router advertisements here; no reason to stop the server.
pub fn open(interface: &str) -> Result<Opened, Unavailable> {
    let name = || interface.to_owned();
    let index = if_nametoindex(interface).map_err(|_| Unavailable::NoInterface(name()))?;
    let own = match link_local(interface) {
        Ok(Some(own)) => own,
        Ok(None) if switched_off(interface) => return Err(Unavailable::NoIpv6(name())),
        Ok(None) => return Err(Unavailable::NoLinkLocal(name())),
        Err(error) => return Err(Unavailable::Other { interface: name(), error: error.into() }),
    };
    let socket = socket(interface, index).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => Unavailable::Forbidden(name()),
            Some(Errno::EAFNOSUPPORT) => Unavailable::NoIpv6(name()),
            Some(Errno::ENODEV) => Unavailable::NoInterface(name()),
            _ => Unavailable::Other { interface: name(), error },
        }
    })?;
    Ok(Opened { interface: name(), index, own, socket })
}

fn socket(interface: &str, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
    // First of all, so that nothing else piles up in it.
    socket.attach_filter(&ONLY_ROUTERS)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_unicast_hops_v6(HOPS)?;
    socket.set_multicast_hops_v6(HOPS)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    Ok(socket)
}

/// Lets solicitations and advertisements pass, by the first byte of the ICMPv6 message: what
/// ICMP6_FILTER does, in the words of classic BPF (load byte, two comparisons, two returns).
const ONLY_ROUTERS: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 0),
    SockFilter::new(0x15, 1, 0, wire::SOLICITATION as u32),
    SockFilter::new(0x15, 0, 1, wire::ADVERTISEMENT as u32),
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];

fn link_local(interface: &str) -> Result<Option<Ipv6Addr>, Errno> {
    let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|a| a.interface_name == interface);
    Ok(addresses.find_map(|a| {
        let ip = a.address.as_ref()?.as_sockaddr_in6()?.ip();
        ip.is_unicast_link_local().then_some(ip)
    }))
}

fn switched_off(interface: &str) -> bool {
    let setting = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    // Without the file the kernel has no IPv6 at all.
    std::fs::read_to_string(setting).map_or(true, |text| text.trim() == "1")
}

/// Tells the thread of machines, from any other thread.
#[derive(Clone, Debug)]
pub struct Handle {
    machines: SyncSender<(String, Mac)>,
    waker: Arc<Waker>,
}

impl Handle {
    /// Our DHCP has just answered this machine as iPXE, on this interface. Never waits; where a
    /// thousand machines are queued up already, this one goes unheard, and its iPXE waits as it
    /// always did.
    pub fn booting(&self, interface: &str, mac: Mac) {
        if self.machines.try_send((interface.to_owned(), mac)).is_ok() {
            // A waker that fails leaves the machine to the thread's next turn.
            let _ = self.waker.wake();
        }
    }
}

/// The thread while it runs; it stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub fn stop(self) {}
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A waker that fails would leave the thread waiting for a packet: not joined, then.
        if self.handle.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            // Its panic has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Serves these interfaces, in a thread of its own.
pub fn start(opened: Vec<Opened>, watch: Arc<dyn Watch>) -> io::Result<Running> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    for (nth, one) in opened.iter().enumerate() {
        let fd = one.socket.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(nth), Interest::READABLE)?;
    }
    let (machines, heard) = sync_channel(QUEUE);
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let now = Instant::now();
    let ports = opened.into_iter().map(|opened| Port { opened, link: Link::new(now) }).collect();
    let mut server = Server { ports, watch, asked: 0, ask_at: now, backlog: Vec::new() };
    let thread = std::thread::Builder::new()
        .name("radv".into())
        .spawn(move || server.run(poll, &heard, &told))?;
    Ok(Running { handle: Handle { machines, waker }, stop, thread: Some(thread) })
}

struct Port {
    opened: Opened,
    link: Link,
}

struct Server {
    ports: Vec<Port>,
    watch: Arc<dyn Watch>,
    asked: u32,
    ask_at: Instant,
    /// Ports with more to read.
    backlog: Vec<usize>,
}

impl Server {
    fn run(&mut self, mut poll: Poll, heard: &Receiver<(String, Mac)>, stop: &AtomicBool) {
        let mut events = Events::with_capacity(64);
        loop {
            let question = self.question(Instant::now());
            let wait = if self.backlog.is_empty() { question } else { Some(Duration::ZERO) };
            match poll.poll(&mut events, wait) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    for port in &self.ports {
                        let error = io::Error::from(e.kind());
                        self.watch.saw(&port.opened.interface, &Seen::Trouble(error));
                    }
                    return;
                }
                _ => {}
            }
            if stop.load(Ordering::Acquire) {
                return;
            }
            let mut ready = std::mem::take(&mut self.backlog);
            ready.extend(events.iter().map(|event| event.token().0));
            ready.retain(|&port| port < self.ports.len());
            for port in ready {
                self.drain(port);
            }
            for (interface, mac) in heard.try_iter().take(QUEUE) {
                self.booting(&interface, mac);
            }
        }
    }

    /// Asks for routers if it is time to; how long until the next question.
    fn question(&mut self, now: Instant) -> Option<Duration> {
        if self.asked == QUESTIONS {
            return None;
        }
        if now >= self.ask_at {
            self.asked += 1;
            self.ask_at = now + QUESTION_INTERVAL;
            for port in &self.ports {
                match port.opened.send(ALL_ROUTERS, &wire::solicitation()) {
                    // Our own address is still being checked for duplicates; we ask again.
                    Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {}
                    Err(e) => self.watch.saw(&port.opened.interface, &Seen::Trouble(e)),
                    Ok(()) => {}
                }
            }
        }
        Some(self.ask_at.saturating_duration_since(now))
    }

    /// Reads a socket until it is empty (its readiness is told once) or others have waited enough.
    fn drain(&mut self, port: usize) {
        for _ in 0..TURN {
            match self.ports[port].opened.receive() {
                Ok((packet, hops, from)) => self.packet(port, &packet, hops, from),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    let seen = Seen::Trouble(error.into());
                    return self.watch.saw(&self.ports[port].opened.interface, &seen);
                }
            }
        }
        self.backlog.push(port);
    }

    fn packet(&mut self, port: usize, packet: &[u8], hops: u8, from: Ipv6Addr) {
        let now = Instant::now();
        let Port { opened, link } = &mut self.ports[port];
        match wire::read(packet, hops, from) {
            // Our own question comes back to us, a member of the group that it went to.
            Ok(Message::Solicitation(_)) if from == opened.own => {}
            Ok(Message::Solicitation(mac)) => {
                let verdict = link.solicited(mac, from, now);
                self.carry_out(port, from, mac.or_else(|| mac_of(from)), verdict);
            }
            Ok(Message::Advertisement { lifetime }) => {
                if link.router_seen(from, lifetime, now) {
                    self.watch.saw(&opened.interface, &Seen::Router { from, lifetime });
                }
            }
            Err(why) => self.silent(port, from, None, why),
        }
    }

    fn booting(&mut self, interface: &str, mac: Mac) {
        let Some(port) = self.ports.iter().position(|p| p.opened.interface == interface) else {
            return;
        };
        if let Some((from, verdict)) = self.ports[port].link.booting(mac, Instant::now()) {
            self.carry_out(port, from, Some(mac), verdict);
        }
    }

    fn carry_out(&self, port: usize, from: Ipv6Addr, mac: Option<Mac>, verdict: Verdict) {
        let opened = &self.ports[port].opened;
        let seen = match verdict {
            Verdict::Silent(why) => return self.silent(port, from, mac, why),
            Verdict::Answer { to, mac } => match opened.send(to, &wire::empty_advertisement()) {
                Ok(()) => Seen::Answered { mac, to },
                Err(error) => Seen::Trouble(error),
            },
        };
        self.watch.saw(&opened.interface, &seen);
    }

    fn silent(&self, port: usize, from: Ipv6Addr, mac: Option<Mac>, why: Why) {
        self.watch.saw(&self.ports[port].opened.interface, &Seen::Silent { from, mac, why });
    }
}

impl Opened {
    fn send(&self, to: Ipv6Addr, packet: &[u8]) -> io::Result<()> {
        let to = SocketAddr::V6(SocketAddrV6::new(to, 0, 0, self.index));
        self.socket.send_to(packet, &to.into()).map(drop)
    }

    /// A message, the hop limit that it came with and its sender.
    fn receive(&self) -> Result<(Vec<u8>, u8, Ipv6Addr), Errno> {
        let mut packet = vec![0; PACKET];
        let mut control = nix::cmsg_space!(i32);
        let (len, hops, from) = {
            let mut parts = [IoSliceMut::new(&mut packet)];
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let got = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), flags)?;
            let hops = got.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv6HopLimit(hops) => u8::try_from(hops).ok(),
                _ => None,
            });
            let from = got.address.map_or(Ipv6Addr::UNSPECIFIED, |from| from.ip());
            // A packet without a hop limit is as good as one with the wrong one.
            (got.bytes, hops.unwrap_or(0), from)
        };
        packet.truncate(len);
        Ok((packet, hops, from))
    }
}
