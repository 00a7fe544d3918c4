//! The sockets of DHCP: one thread, ports 67 and 4011 on each interface.
//!
//! 1. Sockets are bound to their interface: a request from any other never gets here, and a reply
//!    never leaves by any other.
//! 2. All datagrams that wait are read and decided.
//! 3. The leases of all of them are committed in one transaction: one sync of the disk.
//! 4. Only then the replies leave. If the commit failed, no ACK does.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::decide::{self, Here, Outcome, Port, To};
use super::lease::{Lease, Leases, TABLE};
use super::wire::{self, ReplyKind};
use crate::config::Config;
use crate::ipxe;
use crate::ledger::Ledger;
use crate::model::{Event, Interface, Mac, Why};
use crate::store::{self, Store};

/// Datagrams read before one commit.
const BATCH: usize = 256;
/// The kernel's buffer for each socket, in bytes: a hall of machines switched on at once.
const BUFFER: usize = 4 * 1024 * 1024;
const STOP: Token = Token(usize::MAX);

/// What the thread works with, and what others may ask it.
pub struct Dhcp {
    pub config: Arc<ArcSwap<Config>>,
    pub ledger: Arc<Ledger>,
    pub store: Arc<dyn Store>,
    /// The fingerprints of the roots in force, one after the other; empty without TLS. Asked for
    /// each reply: a root is made anew before it ends.
    pub trust: Trust,
    pub leases: Mutex<Leases>,
    /// Told of each iPXE that is about to boot: interface and machine.
    pub booting: Booting,
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

/// The leases that the store holds, for [`Dhcp::leases`].
///
/// `ours` are the interfaces' addresses: never given away, whatever a range says.
pub fn load(
    store: &dyn Store,
    config: &Config,
    ours: impl IntoIterator<Item = Ipv4Addr>,
) -> Result<Leases, store::Error> {
    let (mut leases, unread) = Leases::load(&store.list(TABLE)?);
    for record in unread {
        tracing::warn!(target: "pilotlight", "a lease that cannot be read is left as it is: {record}");
    }
    leases.keep(ours);
    leases.configure(config);
    Ok(leases)
}

impl Dhcp {
    /// All leases, by address.
    pub fn list(&self) -> Vec<Lease> {
        self.lock().list()
    }

    /// Takes over the pools and reservations of the configuration now in force.
    pub fn reconfigure(&self) {
        let config = self.config.load_full();
        self.lock().configure(&config);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running thread; [`Running::stop`] ends it.
pub struct Running {
    waker: Waker,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    pub fn stop(self) {
        if self.waker.wake().is_ok() && self.thread.join().is_err() {
            tracing::error!(target: "pilotlight", "the DHCP thread had panicked");
        }
    }
}

struct Door {
    socket: UdpSocket,
    interface: Interface,
    port: Port,
}

/// The sockets of all interfaces, ready to serve.
pub struct Bound(Vec<Door>);

/// Binds 67 and 4011 on each interface.
pub fn bind(interfaces: &[Interface]) -> Result<Bound, Error> {
    let mut doors = Vec::new();
    for interface in interfaces {
        for (port, number) in [(Port::Server, 67), (Port::Pxe, 4011)] {
            let socket =
                socket(interface, number).map_err(|e| Error::of(number, &interface.name, e))?;
            doors.push(Door { socket, interface: interface.clone(), port });
        }
    }
    Ok(Bound(doors))
}

/// Serves on a thread of its own.
pub fn start(dhcp: Arc<Dhcp>, Bound(doors): Bound) -> Result<Running, Error> {
    let failed = |why| Error::Socket { port: 67, interface: "poll".into(), why };
    let poll = Poll::new().map_err(failed)?;
    for (i, door) in doors.iter().enumerate() {
        poll.registry()
            .register(&mut SourceFd(&door.socket.as_raw_fd()), Token(i), Interest::READABLE)
            .map_err(failed)?;
    }
    let waker = Waker::new(poll.registry(), STOP).map_err(failed)?;
    let thread = std::thread::Builder::new()
        .name("dhcp".into())
        .spawn(move || serve(&dhcp, &doors, poll))
        .map_err(failed)?;
    Ok(Running { waker, thread })
}

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

fn serve(dhcp: &Dhcp, doors: &[Door], mut poll: Poll) {
    let mut events = Events::with_capacity(64);
    let mut ready: Vec<bool> = vec![true; doors.len()];
    loop {
        let wait = ready.iter().any(|r| *r).then_some(Duration::ZERO);
        if let Err(e) = poll.poll(&mut events, wait)
            && e.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(target: "pilotlight", "DHCP stops: poll: {e}");
            return;
        }
        for event in &events {
            match event.token() {
                STOP => return,
                Token(i) => ready[i] = true,
            }
        }
        round(dhcp, doors, &mut ready);
    }
}

/// A reply that waits for its lease to be on the disk.
struct Waiting<'a> {
    door: &'a Door,
    from: SocketAddrV4,
    outcome: Outcome,
}

/// Reads what waits, decides it, commits once, sends.
fn round(dhcp: &Dhcp, doors: &[Door], ready: &mut [bool]) {
    let config = dhcp.config.load_full();
    let mut waiting: Vec<Waiting<'_>> = Vec::new();
    let changes = {
        let mut leases = dhcp.lock();
        for (door, ready) in doors.iter().zip(ready) {
            // Each door its share of what is read, answered or not: a flood at one of them neither
            // keeps the others waiting nor the replies that are decided already.
            for _ in 0..BATCH.div_ceil(doors.len()) {
                if !*ready {
                    break;
                }
                let mut buffer = [0; 4096];
                let (len, from, to) = match receive(&door.socket, &mut buffer) {
                    Ok(received) => received,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        *ready = false;
                        break;
                    }
                    Err(e) => {
                        // ENETDOWN and the like is told once, and there may be more behind it; the
                        // app's watch says what happened to the interface.
                        tracing::warn!(target: "pilotlight", "DHCP on {}: {e}", door.interface.name);
                        break;
                    }
                };
                let outcome = one(dhcp, &config, &mut leases, door, &buffer[..len], to);
                if let Some(outcome) = outcome {
                    waiting.push(Waiting { door, from, outcome });
                }
            }
        }
        leases.take_changes()
    };
    let committed = changes.is_empty()
        || match dhcp.store.commit(&changes) {
            Ok(()) => true,
            Err(e) => {
                tracing::error!(target: "pilotlight", "no DHCPACK leaves, its lease cannot be kept: {e}");
                false
            }
        };
    for w in waiting {
        tell(dhcp, w, committed);
    }
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
    let known = dhcp.ledger.get(request.mac);
    let here = Here {
        interface: &door.interface.name,
        addresses: &door.interface.addresses,
        to,
        port: door.port,
        trust: &(dhcp.trust)(),
        has_loader: &|name| ipxe::get(&config.ipxe, name).is_ok(),
        handed: known.as_ref().and_then(|k| k.handed.as_ref()),
        known: known.as_ref().map(|k| &k.facts),
        now,
    };
    Some(decide::decide(config, leases, &request, &here))
}

/// Remembers, logs and sends one outcome.
fn tell(dhcp: &Dhcp, w: Waiting<'_>, committed: bool) {
    let now = Timestamp::now();
    let Waiting { door, from, outcome } = w;
    let mac = outcome.facts.mac;
    let answer = match outcome.result {
        Ok(answer) => answer,
        Err(why) => {
            // In proxy mode every desktop of the network is heard; that is no timeline's matter.
            if !why.is_everyday() {
                record(dhcp, &outcome.events, mac, now);
            }
            dhcp.ledger.refused("dhcp", Some(mac), &why, now);
            return;
        }
    };
    if !committed && answer.reply.kind == ReplyKind::Ack {
        return;
    }
    dhcp.ledger.learn(outcome.facts, now);
    record(dhcp, &outcome.events, mac, now);
    if let Some(handed) = answer.handed {
        dhcp.ledger.set_handed(mac, handed, now);
    }
    if let decide::Next::Refused(why) = &answer.next {
        dhcp.ledger.refused("dhcp", Some(mac), why, now);
    }
    let bytes = wire::write(&answer.reply);
    let to = match answer.to {
        To::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
        To::Address(address) => address,
        To::Source => from,
    };
    if let Err(e) = send(door, &bytes, to, answer.reply.siaddr) {
        tracing::warn!(target: "pilotlight", mac = %mac, "DHCP reply to {to} by {}: {e}", door.interface.name);
    }
    if answer.booting {
        (dhcp.booting)(&door.interface.name, mac);
    }
}

fn record(dhcp: &Dhcp, events: &[Event], mac: Mac, now: Timestamp) {
    for event in events {
        dhcp.ledger.record(mac, event.clone(), now);
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
