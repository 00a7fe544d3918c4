//! The empty router advertisement on a veth pair, in a network namespace of the test's own.

#[path = "common/namespace.rs"]
mod namespace;

use std::io::IoSliceMut;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvfrom, recvmsg};
use pilotlight::model::Mac;
use pilotlight::radv::serve::{Unavailable, open, start};
use pilotlight::radv::{Seen, Watch, Why};
use socket2::{Domain, Protocol, Socket, Type};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);
const MACHINE: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const SOLICITATION: [u8; 8] = [133, 0, 0, 0, 0, 0, 0, 0];

struct Told(Mutex<Sender<Seen>>);

impl Watch for Told {
    fn saw(&self, interface: &str, seen: &Seen) {
        assert_eq!(interface, "server");
        let copy = match seen {
            Seen::Answered { mac, to } => Seen::Answered { mac: *mac, to: *to },
            Seen::Silent { from, mac, why } => Seen::Silent { from: *from, mac: *mac, why: *why },
            Seen::Router { from, lifetime } => Seen::Router { from: *from, lifetime: *lifetime },
            Seen::Trouble(e) => Seen::Trouble(e.kind().into()),
        };
        // A test that has what it wanted listens no more.
        let _ = self.0.lock().unwrap().send(copy);
    }
}

/// The other end of the cable.
struct Client {
    socket: Socket,
    index: u32,
}

impl Client {
    fn new() -> Client {
        let index = if_nametoindex("client").unwrap();
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.bind_device(Some(b"client")).unwrap();
        socket.set_multicast_hops_v6(255).unwrap();
        socket.set_multicast_if_v6(index).unwrap();
        socket.set_recv_hoplimit_v6(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { socket, index }
    }

    fn send(&self, to: Ipv6Addr, packet: &[u8]) {
        let to = SocketAddrV6::new(to, 0, 0, self.index);
        self.socket.send_to(packet, &to.into()).unwrap();
    }

    /// The next advertisement that is not one of our own, and its hop limit.
    fn advertisement(&self) -> (Vec<u8>, i32) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let (mut buffer, mut control) = ([0; 2048], nix::cmsg_space!(i32));
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let got = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut control), MsgFlags::empty())
                .unwrap();
            let hops = got.cmsgs().unwrap().find_map(|control| match control {
                ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
                _ => None,
            });
            let (len, from) = (got.bytes, got.address.unwrap().ip());
            if buffer[0] == 134 && from == link_local("server") {
                return (buffer[..len].to_vec(), hops.unwrap());
            }
        }
        panic!("no advertisement");
    }
}

fn link_local(interface: &str) -> Ipv6Addr {
    let mut all = nix::ifaddrs::getifaddrs().unwrap().filter(|a| a.interface_name == interface);
    all.find_map(|a| Some(a.address?.as_sockaddr_in6()?.ip())).unwrap()
}

/// Asks again and again, until something else than `Learning` is seen.
fn ask(client: &Client, seen: &Receiver<Seen>) -> Seen {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        client.send(ALL_ROUTERS, &SOLICITATION);
        match seen.recv_timeout(PATIENCE).unwrap() {
            Seen::Silent { why: Why::Learning, .. } => std::thread::yield_now(),
            other => return other,
        }
    }
    panic!("it never stopped learning");
}

fn cable() {
    // Addresses that are ready at once: there is nobody here to be in conflict with.
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
    // The kernel asks for routers, too, when an interface comes up: not here.
    std::fs::write("/proc/sys/net/ipv6/conf/default/router_solicitations", "0").unwrap();
    ip("link add server type veth peer name client address 52:54:00:12:34:56");
    ip("link set server up");
    ip("link set client up");
    let deadline = Instant::now() + PATIENCE;
    while open("server").is_err() || open("client").is_err() {
        assert!(Instant::now() < deadline, "{:?}", open("server"));
        std::thread::yield_now();
    }
}

#[test]
fn a_machine_that_boots_is_answered_until_a_router_speaks() {
    if !in_a_namespace("a_machine_that_boots_is_answered_until_a_router_speaks") {
        return;
    }
    cable();
    let client = Client::new();
    let (told, seen) = channel();
    let running = start(vec![open("server").unwrap()], Arc::new(Told(Mutex::new(told)))).unwrap();
    let handle = running.handle();

    let first = ask(&client, &seen);
    let me = link_local("client");
    assert!(
        matches!(first, Seen::Silent { from, mac: Some(MACHINE), why: Why::NotBooting } if from == me),
        "{first:?}"
    );

    handle.booting("server", MACHINE);
    let answered = seen.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(answered, Seen::Answered { mac: MACHINE, to } if to == me), "{answered:?}");
    let (packet, hops) = client.advertisement();
    assert_eq!((hops, packet.len(), &packet[..2]), (255, 16, &[134, 0][..]), "RFC 4861 6.1.2");
    assert_ne!(packet[2..4], [0, 0], "the kernel's checksum");
    assert!(packet[4..].iter().all(|&b| b == 0), "no router, no prefix, nothing");

    client.send(ALL_ROUTERS, &SOLICITATION);
    let again = seen.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(again, Seen::Answered { .. }), "{again:?}");
    client.advertisement();

    let mut router = [0; 16];
    (router[0], router[6], router[7]) = (134, 0x07, 0x08);
    client.send(ALL_NODES, &router);
    let news = seen.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(news, Seen::Router { from, lifetime } if from == me && lifetime.as_secs() == 1800),
        "{news:?}"
    );
    client.send(ALL_ROUTERS, &SOLICITATION);
    let last = seen.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(last, Seen::Silent { why: Why::Router(_), .. }), "{last:?}");

    client.socket.set_multicast_hops_v6(64).unwrap();
    client.send(ALL_ROUTERS, &SOLICITATION);
    let routed = seen.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(routed, Seen::Silent { why: Why::Hops(64), .. }), "{routed:?}");

    running.stop();
    assert!(seen.recv().is_err(), "the thread is gone, and with it the watch");
}

#[test]
fn it_asks_for_routers_when_it_starts() {
    if !in_a_namespace("it_asks_for_routers_when_it_starts") {
        return;
    }
    cable();
    let (told, seen) = channel();
    let _server = start(vec![open("server").unwrap()], Arc::new(Told(Mutex::new(told)))).unwrap();
    let client = Client::new();
    client.socket.join_multicast_v6(&ALL_ROUTERS, client.index).unwrap();
    let (mut buffer, fd) = ([0; 2048], client.socket.as_raw_fd());
    loop {
        let (len, from) = recvfrom::<SockaddrIn6>(fd, &mut buffer).unwrap();
        if buffer[..len.min(1)] == [133] && from.unwrap().ip() == link_local("server") {
            break;
        }
    }
    assert!(seen.try_recv().is_err(), "its own question is no news to it");
}

#[test]
fn without_ipv6_it_says_so() {
    if !in_a_namespace("without_ipv6_it_says_so") {
        return;
    }
    cable();
    assert!(matches!(open("nowhere"), Err(Unavailable::NoInterface(_))));
    ip("address flush dev server");
    assert!(matches!(open("server"), Err(Unavailable::NoLinkLocal(_))));
    std::fs::write("/proc/sys/net/ipv6/conf/server/disable_ipv6", "1").unwrap();
    let said = open("server").unwrap_err();
    assert!(matches!(said, Unavailable::NoIpv6(_)), "{said}");
}
