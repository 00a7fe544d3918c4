//! What UDP itself can do between two ends, for scripts/bench tftp: the same datagrams without any
//! TFTP in them; and TFTP clients as many as wanted.
//!
//!     udp-limit echo ADDRESS:PORT                         answers every datagram with --size bytes
//!     udp-limit ping ADDRESS:PORT --size S --count N      4 bytes there, the answer back
//!     udp-limit sink ADDRESS:PORT                         takes what comes
//!     udp-limit blast ADDRESS:PORT --size S --count N     N datagrams, trains of 44 in one call
//!     udp-limit get ADDRESS:PORT --name F --at-once C --count N --blksize B --windowsize W
//!
//! `ping`, `sink` and `get` print one line: bytes, seconds, processor seconds of their own, failures.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use nix::sys::time::TimeValLike;
use pilotlight::rehearse::tftp::{Clients, Get};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// As many datagrams of an Ethernet frame as one UDP send takes.
const TRAIN: usize = 44;

struct Words(Vec<String>);

impl Words {
    fn number(&self, name: &str, default: usize) -> Fallible<usize> {
        let at = self.0.iter().position(|word| word == name);
        at.and_then(|at| self.0.get(at + 1)).map_or(Ok(default), |word| Ok(word.parse()?))
    }

    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }
}

fn main() -> Fallible<()> {
    let words = Words(std::env::args().skip(1).collect());
    let [what, to, ..] = words.0.as_slice() else { return Err("what, and where?".into()) };
    let to: SocketAddrV4 = to.parse()?;
    let (size, count) = (words.number("--size", 1432)?, words.number("--count", 1)?);
    match what.as_str() {
        "echo" => echo(to, size),
        "ping" => ping(to, size, count),
        "sink" => sink(to),
        "blast" => blast(to, size, count),
        "get" => get(to, count, &words),
        other => Err(format!("there is no {other}").into()),
    }
}

fn told(bytes: u64, began: Instant, failed: usize) -> Fallible<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let own = (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
    println!("{bytes} {:.6} {own:.6} {failed}", began.elapsed().as_secs_f64());
    Ok(())
}

fn echo(at: SocketAddrV4, size: usize) -> Fallible<()> {
    let (socket, answer) = (UdpSocket::bind(at)?, vec![0; size]);
    loop {
        let (_, peer) = socket.recv_from(&mut [0; 4])?;
        socket.send_to(&answer, peer)?;
    }
}

fn ping(to: SocketAddrV4, size: usize, count: usize) -> Fallible<()> {
    let (socket, mut answer) = (UdpSocket::bind("0.0.0.0:0")?, vec![0; size]);
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let began = Instant::now();
    for _ in 0..count {
        socket.send(&[0; 4])?;
        socket.recv(&mut answer)?;
    }
    told((size * count) as u64, began, 0)
}

/// Until nothing has come for half a second; an empty datagram from the other end says when.
fn sink(at: SocketAddrV4) -> Fallible<()> {
    let socket = socket2::Socket::from(UdpSocket::bind(at)?);
    socket.set_recv_buffer_size(64 << 20)?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::UdpGroSegment, &true)?;
    let socket = UdpSocket::from(socket);
    let (mut buffer, mut bytes) = (vec![0; 65536], 0);
    let first = socket.recv(&mut buffer)?;
    let (began, mut last) = (Instant::now(), Instant::now());
    bytes += first as u64;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    while let Ok(more) = socket.recv(&mut buffer) {
        bytes += more as u64;
        last = Instant::now();
    }
    told(bytes, Instant::now() - (last - began), 0)
}

fn blast(to: SocketAddrV4, size: usize, count: usize) -> Fallible<()> {
    let (socket, bytes) = (UdpSocket::bind("0.0.0.0:0")?, vec![0; size * TRAIN]);
    let (peer, segment) = (SockaddrIn::from(to), u16::try_from(size)?);
    let began = Instant::now();
    for _ in 0..count.div_ceil(TRAIN) {
        let parts = [IoSlice::new(&bytes)];
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(&peer))?;
    }
    told((size * count) as u64, began, 0)
}

fn get(server: SocketAddrV4, count: usize, words: &Words) -> Fallible<()> {
    let asked = |name: &str| -> Fallible<Option<u16>> {
        words.text(name).map(|word| Ok(word.parse()?)).transpose()
    };
    let plain = Get::new(server, Ipv4Addr::UNSPECIFIED, words.text("--name").unwrap_or("f"));
    let want = Get { blksize: asked("--blksize")?, windowsize: asked("--windowsize")?, ..plain };
    let at_once = words.number("--at-once", 1)?.min(count);
    let clients = Clients::start()?;
    let (tell, told_of) = channel();
    let begin = || {
        let tell = tell.clone();
        clients.get(want.clone(), move |got| drop(tell.send(got)));
    };
    let began = Instant::now();
    (0..at_once).for_each(|_| begin());
    let (mut bytes, mut failed) = (0, 0);
    for done in 1..=count {
        match told_of.recv()? {
            Ok(got) => bytes += got.bytes,
            Err(why) => {
                failed += 1;
                eprintln!("{why}");
            }
        }
        if done + at_once <= count {
            begin();
        }
    }
    told(bytes, began, failed)
}
