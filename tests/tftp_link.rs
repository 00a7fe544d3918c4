//! TFTP over links that lose, double, delay and reorder: the real server in this process, foreign
//! clients and ours at the other end.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use pilotlight::rehearse::tftp::{Clients, Get, Got};
use pilotlight::tftp::desk::Limits;
use pilotlight::tftp::serve::{Listen, Running, bind, start};
use pilotlight::tftp::{Ask, Content, Door, Refusal, Seen, Why};

#[path = "common/namespace.rs"]
mod namespace;

use namespace::{in_a_namespace, ip};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[i % 3]).collect()
}

/// Serves `N` as that many bytes.
struct House;

impl Door for House {
    fn open(&self, ask: &Ask) -> Result<Content, Refusal> {
        let len = ask.name.parse().map_err(|_| Refusal::not_found())?;
        Ok(Content::Shared(pattern(len).into()))
    }

    fn saw(&self, _: &Ask, _: &Seen<'_>) {}

    fn dropped(&self, _: SocketAddrV4, _: Ipv4Addr, _: &Why) {}

    fn trouble(&self, _: Ipv4Addr, error: &io::Error) {
        panic!("{error}");
    }
}

fn server(interface: &str, address: Ipv4Addr, port: u16) -> (SocketAddrV4, Running) {
    let interface = Some(interface.into());
    let bound = bind(&Listen { interface, address, port, blksize: None }).unwrap();
    let at = bound.address().unwrap();
    (at, start(vec![bound], Arc::new(House), Limits::default()).unwrap())
}

fn fetched(gets: Vec<Get>) -> Vec<Got> {
    let clients = Clients::start().unwrap();
    let (told, heard) = channel();
    let count = gets.len();
    for (nth, get) in gets.into_iter().enumerate() {
        let told = told.clone();
        clients.get(get, move |got| told.send((nth, got)).unwrap());
    }
    let mut all: Vec<_> = (0..count).map(|_| heard.recv_timeout(PATIENCE).unwrap()).collect();
    all.sort_by_key(|(nth, _)| *nth);
    all.into_iter().map(|(nth, got)| got.unwrap_or_else(|e| panic!("{nth}: {e}"))).collect()
}

fn get(server: SocketAddrV4, len: usize, blksize: u16, windowsize: u16) -> Get {
    let plain = Get { keep: true, ..Get::new(server, Ipv4Addr::UNSPECIFIED, len.to_string()) };
    let some = |value: u16| (value > 0).then_some(value);
    Get { blksize: some(blksize), windowsize: some(windowsize), ..plain }
}

// --- nftables between two network namespaces -----------------------------------------------------

/// Of each direction every 23rd datagram is lost and every 17th comes twice. The losses are at the
/// receiver, for a sender would be told of them.
const RULES: &str = "table ip link {
  chain in { type filter hook prerouting priority -300
    meta l4proto udp numgen inc mod 23 7 counter drop
  }
  chain out { type filter hook postrouting priority 0
    meta l4proto udp numgen inc mod 17 5 counter dup to PEER device NIC
  }
}
";

/// The far end of a cable whose near end is in the test's own namespace.
struct FarEnd(Child);

impl FarEnd {
    fn new() -> FarEnd {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo here; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        let far = FarEnd(holder);
        ip("link set lo up");
        ip(&format!("link add near type veth peer name far netns {}", far.0.id()));
        ip("address add 10.77.0.1/24 dev near");
        ip("link set near up");
        for words in ["link set lo up", "address add 10.77.0.2/24 dev far", "link set far up"] {
            assert!(far.there("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
        }
        far
    }

    /// A command at the far end that does not outlive this thread.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id()));
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rule(mut nft: Command, peer: &str, nic: &str) {
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let rules = RULES.replace("PEER", peer).replace("NIC", nic);
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refuses the rules");
}

/// How often the rules of a namespace have struck: lost, doubled.
fn struck(mut nft: Command) -> Vec<u64> {
    let out = nft.args(["list", "table", "ip", "link"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let after = text.split("counter packets ").skip(1);
    after.map(|t| t.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// What the far end of [`a_lossy_link`] runs of ours: this test again, there.
const FAR: &str = "PILOTLIGHT_TEST_FAR_END";

#[test]
fn a_lossy_link() {
    let server_at = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 1), 69);
    if std::env::var_os(FAR).is_some() {
        let ways = [(30_000, 0, 0), (100_000, 1428, 0), (300_000, 1428, 16), (8 * 2_000, 8, 64)];
        let mut gets: Vec<Get> = ways.iter().map(|w| get(server_at, w.0, w.1, w.2)).collect();
        gets.push(Get { probe: true, ..get(server_at, 300_000, 1468, 4) });
        let got = fetched(gets);
        assert!(got.iter().all(|g| g.content == pattern(g.content.len()) && g.bytes > 0));
        // Of all together: the rules count every client's datagrams, so a single short transfer
        // can slip between the losses.
        assert!(got.iter().any(|g| g.resent > 0), "the link is whole");
        return;
    }
    if !in_a_namespace("a_lossy_link") {
        return;
    }
    let far = FarEnd::new();
    rule(Command::new("nft"), "10.77.0.2", "near");
    rule(far.there("nft"), "10.77.0.1", "far");
    let (_, _running) = server("near", *server_at.ip(), 69);
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let (far, dir) = (&far, dir.path());
        scope.spawn(move || {
            let me = std::env::current_exe().unwrap();
            let mut run = far.there(me.to_str().unwrap());
            let run = run.args(["--exact", "a_lossy_link"]).env(FAR, "1").output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        });
        for (name, words) in [
            ("curl", "-sS --tftp-blksize 1428 -o OUT tftp://10.77.0.1//60001"),
            ("curl", "-sS --tftp-no-options -o OUT tftp://10.77.0.1//20480"),
            ("tftp", "-m octet 10.77.0.1 -c get 40000 OUT"),
            // Without options: it gives up at a second OACK, which RFC 2347 has it answer like the
            // first, and a link that loses its acknowledgement brings one.
            ("atftp", "-g -r 50000 -l OUT 10.77.0.1"),
        ] {
            scope.spawn(move || {
                let len = words.rsplit([' ', '/']).find_map(|w| w.parse().ok()).unwrap();
                let out = dir.join(format!("{name}-{len}"));
                let mut command = far.there(name);
                for word in words.split(' ') {
                    command.arg(if word == "OUT" { out.to_str().unwrap() } else { word });
                }
                let run = command.stdin(Stdio::null()).output().unwrap();
                let said = String::from_utf8_lossy(&run.stderr);
                if said.contains("No such file or directory") && run.status.code() == Some(127) {
                    let _ = writeln!(io::stderr(), "left out: {name} is not installed");
                    return;
                }
                assert!(run.status.success(), "{name} {words}: {said}");
                assert!(std::fs::read(&out).unwrap() == pattern(len), "{name} {words}");
            });
        }
    });
    for nft in [Command::new("nft"), far.there("nft")] {
        let struck = struck(nft);
        assert!(struck.len() == 2 && struck.iter().all(|&n| n > 20), "lost, doubled: {struck:?}");
    }
}

// --- a relay with a mind of its own --------------------------------------------------------------

/// Carries the datagrams of one transfer, and of each direction some of them late, twice or never.
struct Relay {
    front: SocketAddrV4,
    stop: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: SocketAddrV4, seed: u64) -> Relay {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(at) = front.local_addr().unwrap() else { panic!("IPv4 was asked for") };
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        std::thread::spawn(move || relay(&front, server, seed, &told));
        Relay { front: at, stop }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn relay(front: &UdpSocket, server: SocketAddrV4, seed: u64, stop: &AtomicBool) {
    let back = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [front, &back] {
        socket.set_read_timeout(Some(Duration::from_micros(200))).unwrap();
    }
    let (mut client, mut tid) = (None, SocketAddr::V4(server));
    let mut die = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut queue: VecDeque<(Instant, bool, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 65536];
    while !stop.load(Ordering::Acquire) {
        for (there, socket) in [(true, front), (false, &back)] {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            match there {
                true => client = Some(from),
                false => tid = from,
            }
            die ^= die << 13;
            die ^= die >> 7;
            die ^= die << 17;
            let datagram = buffer[..len].to_vec();
            let late = |ms| Instant::now() + Duration::from_millis(ms);
            match die % 50 {
                0 => {}
                1 => queue.extend([(late(0), there, datagram.clone()), (late(2), there, datagram)]),
                2 => queue.push_back((late(5), there, datagram)),
                // Much later: what it says is no longer true.
                3 => {
                    queue.extend([(late(0), there, datagram.clone()), (late(90), there, datagram)])
                }
                _ => queue.push_back((late(0), there, datagram)),
            }
        }
        let now = Instant::now();
        queue.retain(|(at, there, datagram)| {
            if *at > now {
                return true;
            }
            let to = if *there { Some(tid) } else { client };
            let socket = if *there { &back } else { front };
            let _ = to.map(|to| socket.send_to(datagram, to));
            false
        });
    }
}

/// Delay, disorder, doubles and losses in both directions, each transfer with dice of its own.
#[test]
fn a_relay_that_delays_and_reorders() {
    let (at, _running) = server("lo", Ipv4Addr::LOCALHOST, 0);
    let (mut relays, mut gets) = (Vec::new(), Vec::new());
    for (seed, (len, blksize, windowsize)) in
        [(30_000, 0, 0), (60_000, 1428, 0), (150_000, 1428, 4), (300_000, 1428, 16), (9_000, 8, 64)]
            .into_iter()
            .enumerate()
    {
        let relay = Relay::to(at, seed as u64 + 1);
        gets.push(get(relay.front, len, blksize, windowsize));
        relays.push(relay);
    }
    let lens: Vec<usize> = gets.iter().map(|get| get.name.parse().unwrap()).collect();
    let all = fetched(gets);
    for (got, len) in all.iter().zip(lens) {
        assert!(got.content == pattern(len), "{len}: {}", got.bytes);
    }
    assert!(all.iter().map(|got| got.resent).sum::<u64>() > 5, "the relay did nothing");
}
