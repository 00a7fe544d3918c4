//! TFTP as clients meet it: the real server on loopback, foreign clients and bare sockets.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotlight::model::Why as _;
use pilotlight::rehearse::tftp::{Clients, Failed, Get, Got};
use pilotlight::tftp::desk::Limits;
use pilotlight::tftp::serve::{BindError, Listen, Running, bind, start};
use pilotlight::tftp::{Ask, Content, Door, Refusal, Seen, Why};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that differ everywhere, with all that netascii changes.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[i % 3]).collect()
}

/// Serves `N` as that many bytes from memory, `file-N` from a file, and tells what it saw.
struct House {
    told: Mutex<Sender<String>>,
    dir: tempfile::TempDir,
}

impl House {
    fn tell(&self, line: String) {
        // A test that has what it wanted listens no more.
        let _ = self.told.lock().unwrap().send(line);
    }
}

impl Door for House {
    fn open(&self, ask: &Ask) -> Result<Content, Refusal> {
        if let Some(len) = ask.name.strip_prefix("file-") {
            let path = self.dir.path().join(len);
            std::fs::write(&path, pattern(len.parse().unwrap())).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            return Ok(Content::File { file, len });
        }
        let len = ask.name.parse().map_err(|_| Refusal::not_found())?;
        Ok(Content::Shared(pattern(len).into()))
    }

    fn saw(&self, ask: &Ask, seen: &Seen<'_>) {
        let word = match seen {
            Seen::Started { blksize, windowsize, .. } => format!("Started {blksize} {windowsize}"),
            Seen::Done { bytes, .. } => format!("Done {bytes}"),
            Seen::Refused(why) => format!("Refused {}", why.name()),
            Seen::TimedOut { acknowledged, bytes, .. } => {
                format!("TimedOut {acknowledged} of {bytes}")
            }
            other => format!("{other:?}"),
        };
        self.tell(format!("{} {word}", ask.name));
    }

    fn dropped(&self, _: SocketAddrV4, _: Ipv4Addr, why: &Why) {
        self.tell(format!("dropped {}", why.name()));
    }

    fn trouble(&self, _: Ipv4Addr, error: &io::Error) {
        self.tell(format!("trouble {error}"));
    }
}

struct Server {
    address: SocketAddrV4,
    heard: Receiver<String>,
    house: Arc<House>,
    running: Running,
}

impl Server {
    fn hears(&self, want: &str) {
        assert_eq!(self.heard.recv_timeout(PATIENCE).as_deref(), Ok(want));
    }
}

fn listen(port: u16) -> Listen {
    Listen { interface: Some("lo".into()), address: Ipv4Addr::LOCALHOST, port, blksize: None }
}

fn server() -> Server {
    let (told, heard) = channel();
    let dir = tempfile::tempdir().unwrap();
    let house = Arc::new(House { told: Mutex::new(told), dir });
    let bound = bind(&listen(0)).unwrap();
    let address = bound.address().unwrap();
    let running = start(vec![bound], house.clone(), Limits::default()).unwrap();
    Server { address, heard, house, running }
}

/// A client of bare packets.
struct Client(UdpSocket);

impl Client {
    fn new() -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(socket)
    }

    fn send(&self, to: SocketAddrV4, packet: &[u8]) {
        self.0.send_to(packet, to).unwrap();
    }

    fn receive(&self) -> (Vec<u8>, SocketAddrV4) {
        let mut buffer = vec![0; 65536];
        let (len, from) = self.0.recv_from(&mut buffer).unwrap();
        buffer.truncate(len);
        match from {
            SocketAddr::V4(from) => (buffer, from),
            other => panic!("{other}"),
        }
    }

    /// Reads a name to its end, acknowledging once a window, and losing the block `lose` once.
    fn fetch(&self, to: SocketAddrV4, name: &str, size: usize, window: u16, lose: u16) -> Vec<u8> {
        let rrq = format!("\0\x01{name}\0octet\0blksize\0{size}\0windowsize\0{window}\0");
        self.send(to, rrq.as_bytes());
        let (oack, from) = self.receive();
        let want = format!("\0\x06blksize\0{size}\0windowsize\0{window}\0");
        assert_eq!(oack, want.as_bytes());
        self.send(from, b"\0\x04\0\0");
        let (mut got, mut last, mut count) = (vec![], 0u16, 0);
        let (mut lost, mut gap) = (lose == 0, false);
        loop {
            let (data, _) = self.receive();
            let number = u16::from_be_bytes([data[2], data[3]]);
            if number == lose && !lost {
                lost = true;
                continue;
            }
            if number == last.wrapping_add(1) {
                got.extend_from_slice(&data[4..]);
                (last, count, gap) = (number, count + 1, false);
            } else if gap {
                continue;
            } else {
                gap = true;
            }
            let end = !gap && data.len() < size + 4;
            if count == window || end || gap {
                count = 0;
                self.send(from, &[0, 4, (last >> 8) as u8, last as u8]);
            }
            if end {
                return got;
            }
        }
    }
}

#[test]
fn windows_of_every_size_arrive_whole() {
    let server = server();
    for (name, blksize, window, lose) in [
        ("0", 512, 1, 0),
        ("1428", 1428, 1, 0),
        ("1000000", 1428, 1, 0),
        ("1000000", 1428, 64, 0),
        ("1000000", 1428, 64, 70),
        ("999999", 1428, 16, 3),
        ("file-999999", 1428, 16, 20),
        ("600000", 8, 64, 0),
        ("900000", 65464, 4, 3),
        ("file-900000", 65464, 4, 0),
    ] {
        let len: usize = name.trim_start_matches("file-").parse().unwrap();
        let got = Client::new().fetch(server.address, name, blksize, window, lose);
        assert!(got == pattern(len), "{name} {blksize} {window} {lose}: {}", got.len());
        server.hears(&format!("{name} Started {blksize} {window}"));
        server.hears(&format!("{name} Done {len}"));
    }
}

#[test]
fn what_no_transfer_comes_of() {
    let server = server();
    let client = Client::new();
    let long = [b"\0\x01", vec![b'a'; 4096].as_slice(), b"\0octet\0"].concat();
    for (packet, error, heard) in [
        (&b"\0\x01nothing\0octet\0"[..], 1, "nothing Refused not-found"),
        (b"\0\x02f\0octet\0", 2, "dropped write"),
        (b"\0\x01f\0mail\0", 4, "dropped mode"),
        (b"\0\x01f", 4, "dropped unended"),
        (&long, 1, "dropped long-name"),
        (b"\0\x09", 4, "dropped unknown-opcode"),
        (b"\0\x03\0\x01", 4, "dropped not-an-answer"),
        (b"\0\x04\0\x01", 4, "dropped not-a-request"),
        (b"\0\x015000000\0netascii\0", 0, "5000000 Refused netascii"),
    ] {
        client.send(server.address, packet);
        let (got, from) = client.receive();
        assert_eq!((&got[..4], from), (&[0, 5, 0, error][..], server.address), "{heard}");
        assert!(got.len() > 10 && got.last() == Some(&0), "it says why");
        server.hears(heard);
    }
    for (packet, heard) in [
        (&b""[..], "dropped short"),
        (b"\0", "dropped short"),
        (b"\0\x05\0\x08stop\0", "dropped stray-error"),
    ] {
        client.send(server.address, packet);
        server.hears(heard);
    }
    // An answer to one of the last three would be here before this one.
    client.send(server.address, b"\0\x010\0octet\0");
    assert_eq!(client.receive().0, b"\0\x03\0\x01");
}

#[test]
fn a_foreign_port_is_told_so_and_the_transfer_lives() {
    let server = server();
    let (client, foreign) = (Client::new(), Client::new());
    client.send(server.address, b"\0\x01600\0octet\0");
    let (data, from) = client.receive();
    assert_eq!(data.len(), 516);
    assert_ne!(from.port(), server.address.port(), "RFC 1350: a TID of its own");
    foreign.send(from, b"\0\x04\0\x01");
    assert_eq!(foreign.receive().0[..4], [0, 5, 0, 5]);
    foreign.send(from, b"\0\x05\0\0gone\0");
    client.send(from, b"\0\x04\0\x01");
    assert_eq!(client.receive().0[..4], [0, 3, 0, 2]);
    client.send(from, b"\0\x04\0\x02");
    for heard in ["600 Started 512 1", "dropped stranger", "dropped stray-error", "600 Done 600"] {
        server.hears(heard);
    }
}

#[test]
fn the_size_probe_and_the_same_request_twice() {
    let server = server();
    let client = Client::new();
    let rrq = b"\0\x015000\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
    let oack = b"\0\x06tsize\x005000\0blksize\x001468\0windowsize\x004\0";
    client.send(server.address, rrq);
    let (first, from) = client.receive();
    client.send(server.address, rrq);
    // Too soon to be the client's own repetition: the timer's answer is the next.
    assert_eq!((first, client.receive()), (oack.to_vec(), (oack.to_vec(), from)), "one transfer");
    client.send(from, b"\0\x05\0\x08User aborted the transfer\0");
    server.hears("5000 Started 1468 4");
    server.hears("5000 Refused repeated");
    server.hears("5000 Probed { bytes: 5000 }");
}

#[test]
fn netascii_states_the_size_that_travels() {
    let server = server();
    let client = Client::new();
    let ends = pattern(5000).iter().filter(|b| matches!(b, b'\r' | b'\n')).count();
    assert!(ends > 0);
    client.send(server.address, b"\0\x015000\0netascii\0tsize\x000\0");
    let want = format!("\0\x06tsize\0{}\0", 5000 + ends);
    assert_eq!(client.receive().0, want.as_bytes());
    server.hears("5000 Started 512 1");
}

/// Each netascii transfer holds a text of its own, at most twice as long as the file.
#[test]
fn netascii_does_not_fill_the_memory() {
    let server = server();
    let clients: Vec<Client> = (0..32).map(|_| Client::new()).collect();
    let mut refused = 0;
    for client in &clients {
        client.send(server.address, b"\0\x014194304\0netascii\0");
        match client.receive().0[..4] {
            [0, 3, 0, 1] => server.hears("4194304 Started 512 1"),
            [0, 5, 0, 0] => {
                server.hears("4194304 Refused netascii-full");
                refused += 1;
            }
            ref other => panic!("{other:?}"),
        }
    }
    assert!((16..32).contains(&refused), "{refused} of 32");
}

#[test]
fn a_file_that_shrinks_ends_its_transfer() {
    let server = server();
    let client = Client::new();
    client.send(server.address, b"\0\x01file-2000\0octet\0");
    let (data, from) = client.receive();
    assert_eq!(data.len(), 516);
    let path = server.house.dir.path().join("2000");
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(600).unwrap();
    client.send(from, b"\0\x04\0\x01");
    assert_eq!(client.receive().0[..4], [0, 5, 0, 0]);
    server.hears("file-2000 Started 512 1");
    let broken = server.heard.recv_timeout(PATIENCE).unwrap();
    assert!(broken.starts_with("file-2000 Broken"), "{broken}");
}

#[test]
fn silence_ends_after_four_datagrams() {
    let server = server();
    let client = Client::new();
    client.send(server.address, b"\0\x015000\0octet\0");
    for _ in 0..4 {
        assert_eq!(client.receive().0.len(), 516);
    }
    server.hears("5000 Started 512 1");
    server.hears("5000 TimedOut 0 of 5000");
    client.0.set_nonblocking(true).unwrap();
    assert_eq!(client.0.recv(&mut [0; 600]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn what_is_in_the_way_of_a_port_is_said() {
    let taken = bind(&listen(0)).unwrap();
    let said = bind(&listen(taken.address().unwrap().port())).unwrap_err();
    assert!(matches!(said, BindError::Taken { .. }), "{said}");
    let nowhere = Listen { interface: Some("no-such-if".into()), ..listen(0) };
    assert!(matches!(bind(&nowhere), Err(BindError::NoInterface(_))));
    let not_ours = Listen { address: Ipv4Addr::new(192, 0, 2, 1), ..listen(0) };
    assert!(matches!(bind(&not_ours), Err(BindError::NoAddress { .. })));
}

#[test]
fn it_stops_and_gives_the_port_back() {
    let server = server();
    let port = server.address.port();
    assert!(server.running.alive() && bind(&listen(port)).is_err());
    server.running.stop();
    // A client of a test beside this one may have been given the port in between: it gives it back.
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(e) = bind(&listen(port)) {
        assert!(Instant::now() < until, "{e}");
        std::thread::yield_now();
    }
}

/// Runs a foreign client; `None` and a word about it where it is not installed.
fn foreign(program: &str, arguments: &[&str], dir: &Path) -> Option<Vec<u8>> {
    let out = Command::new(program).args(arguments).current_dir(dir).stdin(Stdio::null()).output();
    match out {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Past the capture of the test harness: what was left out must be seen.
            let _ = writeln!(io::stderr(), "left out: {program} is not installed");
            None
        }
        out => {
            let out = out.unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{program} {arguments:?}: {said}");
            Some(out.stdout)
        }
    }
}

#[test]
fn foreign_clients_get_the_very_bytes() {
    let server = server();
    let port = server.address.port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for len in [511usize, 512, 513, 1_000_000, 0] {
        let (name, url) = (len.to_string(), format!("tftp://127.0.0.1:{port}//{len}"));
        // curl takes an empty file's tsize of 0 for an error, so it asks for none there.
        let options: &[&str] =
            if len == 0 { &["--tftp-no-options"] } else { &["--tftp-blksize", "1428"] };
        let curl = [&["-sS", url.as_str()], options].concat();
        if let Some(got) = foreign("curl", &curl, dir.path()) {
            assert!(got == pattern(len), "curl, {len} bytes: {}", got.len());
        }
        for mode in ["octet", "netascii"] {
            let hpa = ["-m", mode, "127.0.0.1", &port, "-c", "get", &name, "hpa"];
            if foreign("tftp", &hpa, dir.path()).is_some() {
                let got = std::fs::read(path("hpa")).unwrap();
                assert!(got == pattern(len), "tftp, {mode}, {len} bytes: {}", got.len());
            }
        }
        let (out, local) = (path("atftp"), path("atftp").to_string_lossy().into_owned());
        let window = "--option=windowsize 16";
        let atftp = [window, "-g", "-r", &name, "-l", &local, "127.0.0.1", &port];
        if foreign("atftp", &atftp, dir.path()).is_some() {
            let got = std::fs::read(&out).unwrap();
            assert!(got == pattern(len), "atftp, {len} bytes: {}", got.len());
        }
    }
}

/// As many as one address may have.
#[test]
fn many_at_once() {
    let server = server();
    let clients: Vec<Client> = (0..32).map(|_| Client::new()).collect();
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                assert!(client.fetch(server.address, "200000", 1428, 4, 0) == pattern(200_000));
            });
        }
    });
}

/// Fetches by the rehearsal's clients; what they got in the order of `gets`.
fn fetched(gets: Vec<Get>) -> Vec<Result<Got, Failed>> {
    let clients = Clients::start().unwrap();
    let (told, heard) = channel();
    let count = gets.len();
    for (nth, get) in gets.into_iter().enumerate() {
        let told = told.clone();
        clients.get(get, move |got| told.send((nth, got)).unwrap());
    }
    let mut all: Vec<_> = (0..count).map(|_| heard.recv_timeout(4 * PATIENCE).unwrap()).collect();
    all.sort_by_key(|(nth, _)| *nth);
    all.into_iter().map(|(_, got)| got).collect()
}

fn get(server: SocketAddrV4, name: &str, blksize: u16, windowsize: u16) -> Get {
    let plain = Get { keep: true, ..Get::new(server, *server.ip(), name) };
    let some = |value: u16| (value > 0).then_some(value);
    Get { blksize: some(blksize), windowsize: some(windowsize), ..plain }
}

/// Our own client against our own server, in every way that it has.
#[test]
fn pretended_clients_get_the_very_bytes() {
    let server = server();
    let ways = [
        ("0", 0, 0, false),
        ("511", 0, 0, false),
        ("512", 0, 0, true),
        ("513", 0, 0, false),
        ("1000000", 1428, 0, true),
        ("1000000", 1428, 16, true),
        ("1000000", 1468, 64, false),
        ("3000000", 65464, 8, false),
        ("600000", 8, 16, false),
    ];
    let ask = |&(name, blksize, windowsize, probe)| Get {
        probe,
        ..get(server.address, name, blksize, windowsize)
    };
    for (way, got) in ways.iter().zip(fetched(ways.iter().map(ask).collect())) {
        let got = got.unwrap();
        assert!(got.content == pattern(way.0.parse().unwrap()), "{way:?}: {}", got.bytes);
        assert_eq!(got.bytes, got.content.len() as u64);
        assert!(got.first <= got.took, "{way:?}");
    }
    let missing = fetched(vec![get(server.address, "nothing", 0, 0)]);
    let said = Failed::Error { code: 1, message: "no such file here".into() };
    assert_eq!(missing, [Err(said)]);
}

/// Block 8 makes the 16-bit number wrap behind half a megabyte; in lock-step and with windows that
/// lie across the wrap and lose a block on either side of it.
#[test]
fn every_size_and_the_wrap_of_the_block_number() {
    let server = server();
    for (len, blksize, window, lose) in [
        (0usize, 512, 1, 0),
        (511, 512, 1, 0),
        (512, 512, 1, 0),
        (513, 512, 1, 0),
        (8 * 65_536 + 3, 8, 1, 0),
        (8 * 65_600, 8, 48, 0),
        (8 * 65_600, 8, 48, 65_535),
        (8 * 65_600, 8, 48, 20),
    ] {
        let got = Client::new().fetch(server.address, &len.to_string(), blksize, window, lose);
        assert!(got == pattern(len), "{len} {blksize} {window} {lose}: {}", got.len());
    }
}

#[test]
fn every_window_with_a_loss_inside_it() {
    let server = server();
    std::thread::scope(|scope| {
        for quarter in 0..4u16 {
            let address = server.address;
            scope.spawn(move || {
                for window in (1..=64u16).filter(|w| w % 4 == quarter) {
                    for lose in [window / 2 + 1, window + 1] {
                        // Of the whole window's last block nothing is heard: the clock helps.
                        let name = (8 * (4 * usize::from(window) + 2)).to_string();
                        let got = Client::new().fetch(address, &name, 8, window, lose);
                        assert!(got == pattern(name.parse().unwrap()), "{window}, lost {lose}");
                    }
                }
            });
        }
    });
}

#[test]
fn block_sizes_by_rfc_2348() {
    let server = server();
    for (asked, taken) in [(7, 512), (8, 8), (1428, 1428), (65464, 65464), (65465, 65464)] {
        let client = Client::new();
        client.send(server.address, format!("\0\x01200000\0octet\0blksize\0{asked}\0").as_bytes());
        let (mut packet, mut from) = client.receive();
        if asked >= 8 {
            assert_eq!(packet, format!("\0\x06blksize\0{taken}\0").as_bytes());
            client.send(from, b"\0\x04\0\0");
            (packet, from) = client.receive();
        }
        assert_eq!((packet.len(), &packet[..4]), (taken + 4, &[0, 3, 0, 1][..]), "{asked}");
        assert_eq!(packet[4..], pattern(200_000)[..taken]);
        client.send(from, b"\0\x05\0\0enough\0");
    }
}

/// RFC 1123 section 4.2.3.1: the Sorcerer's Apprentice.
#[test]
fn a_duplicate_acknowledgement_sends_nothing_twice() {
    let server = server();
    let client = Client::new();
    client.send(server.address, b"\0\x011500\0octet\0");
    let (_, from) = client.receive();
    for block in 1..=2u8 {
        for _ in 0..5 {
            client.send(from, &[0, 4, 0, block]);
        }
        assert_eq!(client.receive().0[..4], [0, 3, 0, block + 1]);
    }
    // All that came before this was read before it: a second block would be here first.
    client.send(from, b"\0\x04\0\x03");
    server.hears("1500 Started 512 1");
    server.hears("1500 Done 1500");
    client.0.set_nonblocking(true).unwrap();
    assert_eq!(client.0.recv(&mut [0; 600]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// A request with a forged sender that asks for the most there is: what it brings its victim, in
/// datagrams and in bytes. Without options it is 4 blocks of 512 (see above).
#[test]
fn a_forged_request_for_windows_brings_four_small_datagrams() {
    let server = server();
    let client = Client::new();
    let rrq = b"\0\x011000000\0octet\0blksize\x0065464\0windowsize\x0064\0tsize\x000\0";
    client.send(server.address, rrq);
    let got: usize = (0..4).map(|_| client.receive().0.len()).sum();
    assert!(got <= 4 * rrq.len(), "{got} bytes for {}", rrq.len());
    server.hears("1000000 Started 65464 64");
    server.hears("1000000 TimedOut 0 of 1000000");
    client.0.set_nonblocking(true).unwrap();
    assert_eq!(client.0.recv(&mut [0; 600]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Who acknowledges nothing is answered no more at some point, in silence; others are.
#[test]
fn one_address_that_acknowledges_nothing_has_a_limit() {
    let server = server();
    let clients: Vec<Client> = (0..200).map(|_| Client::new()).collect();
    for client in &clients {
        client.send(server.address, b"\0\x011000\0octet\0");
    }
    let mut started = 0;
    let heard: Vec<String> =
        (0..200).map(|_| server.heard.recv_timeout(PATIENCE).unwrap()).collect();
    for line in &heard {
        match line.as_str() {
            "1000 Started 512 1" => started += 1,
            other => assert_eq!(other, "1000 Refused unanswered"),
        }
    }
    assert!((100..=130).contains(&started), "{started} of 200: 64 kB of first blocks");
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    other.send_to(b"\0\x011000\0octet\0", server.address).unwrap();
    assert_eq!(other.recv(&mut [0; 600]).unwrap(), 516);
}
