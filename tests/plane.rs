//! The data plane over loopback: what travels by sendfile, and what by TLS, byte by byte.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use pilotlight::config::{Config, Folder, Root};
use pilotlight::http::{Door, Running, Web, start};
use pilotlight::ledger::Ledger;
use pilotlight::tls::Tls;
use rstest::rstest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// More than the sockets of both sides hold.
const HUGE: u64 = 64 << 20;

/// A server with a folder `f`: `big` (5 MB), `window` (of the size that one look covers), `edge`
/// (the largest that is sent at once), `small`, `empty`.
struct Server {
    dir: TempDir,
    plain: String,
    secure: String,
    client: Arc<ClientConfig>,
    ledger: Arc<Ledger>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

/// Bytes that tell where in the file they are.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64 / 8 + 1).flat_map(|n| (n ^ 0x5bd1_e995).to_be_bytes()).take(len).collect()
}

const FILES: [(&str, usize); 5] =
    [("big", 5_000_001), ("window", 2 << 20), ("edge", 16 << 10), ("small", 100), ("empty", 0)];

impl Server {
    fn new() -> Server {
        Server::with(Duration::from_secs(60), None)
    }

    fn with(send_time: Duration, pace: Option<u64>) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for (name, len) in FILES {
            fs::write(root.join(name), content(len)).unwrap();
        }
        let mut config = Config {
            folders: vec![Folder { name: "f".into(), root: Root::Dir(root), is: None }],
            ..Config::default()
        };
        config.http.pace = pace;
        let ours = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let tls = Tls::open(&config.tls, dir.path(), &ours, SystemTime::now()).unwrap();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(tls.root_pem().unwrap().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (plain, secure) = (bind(), bind());
        let at = |l: &TcpListener| l.local_addr().unwrap();
        let (plain_at, secure_at) = (at(&plain), at(&secure));
        let door = Door { http_port: plain_at.port(), https_port: secure_at.port(), tls: true };
        let ledger = Arc::new(Ledger::new());
        let mut web = Web::new(
            Arc::new(ArcSwap::from_pointee(config)),
            ledger.clone(),
            door,
            None,
            Box::new(|| serde_json::json!([])),
        );
        web.limits.send_time = send_time;
        let doors = vec![(plain, None), (secure, Some(tls.server_config()))];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running = runtime.block_on(async { start(web, doors, None).unwrap() });
        Server {
            dir,
            plain: plain_at.to_string(),
            secure: secure_at.to_string(),
            client: Arc::new(client),
            ledger,
            running: Some(running),
            runtime,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    /// A file of zeros that takes no room.
    fn huge(&self) -> File {
        let file = File::create(self.path("huge")).unwrap();
        file.set_len(HUGE).unwrap();
        file
    }

    fn connect(&self, tls: bool) -> Client {
        let tcp = TcpStream::connect(if tls { &self.secure } else { &self.plain }).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let stream: Box<dyn Both> = match tls {
            false => Box::new(tcp),
            true => {
                let name = IpAddr::V4(Ipv4Addr::LOCALHOST).into();
                let tls = ClientConnection::new(self.client.clone(), name).unwrap();
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        Client(BufReader::new(stream))
    }

    /// How often that happened.
    fn times(&self, why: &str) -> u64 {
        self.ledger.refusals().iter().filter(|((_, name), _)| *name == why).map(|(_, n)| n).sum()
    }

    /// How many of this process's descriptors are of that file: those of the server.
    fn open(&self, name: &str) -> usize {
        let path = self.path(name);
        let all = fs::read_dir("/proc/self/fd").unwrap();
        all.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path))
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

struct Client(BufReader<Box<dyn Both>>);

struct Head {
    status: u16,
    lines: Vec<String>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.lines.iter().filter_map(|l| l.split_once(": "));
        found.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    fn length(&self) -> usize {
        self.header("content-length").unwrap_or_else(|| panic!("{:?}", self.lines)).parse().unwrap()
    }
}

impl Client {
    fn ask(&mut self, method: &str, name: &str, headers: &str) {
        let text = format!("{method} /files/f/{name} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.0.get_mut().flush().unwrap();
    }

    fn head(&mut self) -> Head {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_string()),
            }
        }
        let status = lines.first().expect("an answer").split(' ').nth(1).unwrap();
        Head { status: status.parse().unwrap(), lines }
    }

    fn answer(&mut self) -> (Head, Vec<u8>) {
        let head = self.head();
        let mut body = vec![0; head.length()];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    fn get(&mut self, name: &str, headers: &str) -> (Head, Vec<u8>) {
        self.ask("GET", name, headers);
        self.answer()
    }

    /// What comes until the connection ends, however it does.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let ended = self.0.read_to_end(&mut rest);
        assert!(!ended.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock), "it did not end");
        rest
    }
}

/// Waits for the thing itself, at most 10 s.
fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "it did not happen within 10 s");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Not by assert_eq, which would print megabytes.
fn same(got: &[u8], want: &[u8], what: &str) {
    let differ = got.iter().zip(want).position(|(a, b)| a != b);
    assert_eq!((got.len(), differ), (want.len(), None), "{what}");
}

#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn one_connection_for_all_kinds_of_answers(#[case] tls: bool) {
    let server = Server::new();
    let mut client = server.connect(tls);
    for round in 0..2 {
        for (name, len) in FILES {
            let (head, body) = client.get(name, "");
            assert_eq!((head.status, head.header("accept-ranges")), (200, Some("bytes")), "{name}");
            same(&body, &content(len), name);

            client.ask("HEAD", name, "");
            let alone = client.head();
            assert_eq!((alone.status, alone.length()), (200, len), "HEAD {name}");
            for line in ["etag", "last-modified", "content-type"] {
                assert_eq!(head.header(line), alone.header(line), "{name} {line}");
            }

            let etag = head.header("etag").unwrap();
            client.ask("GET", name, &format!("If-None-Match: {etag}\r\n"));
            let unchanged = client.head();
            assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(etag)), "{name}");

            let (past, body) = client.get(name, &format!("Range: bytes={len}-\r\n"));
            assert_eq!((past.status, body.len()), (416, 0), "{name}");
            assert_eq!(past.header("content-range"), Some(&*format!("bytes */{len}")));
            assert_eq!(client.get("none", "").0.status, 404);
        }
        let big = content(FILES[0].1);
        for (range, part) in [
            ("0-0", 0..1),
            ("4999990-", 4_999_990..5_000_001),
            ("-7", 4_999_994..5_000_001),
            ("1000000-3999999", 1_000_000..4_000_000),
            ("16384-32767", 16_384..32_768),
        ] {
            let (head, body) = client.get("big", &format!("Range: bytes={range}\r\n"));
            let said = format!("bytes {}-{}/5000001", part.start, part.end - 1);
            assert_eq!((head.status, head.header("content-range")), (206, Some(&*said)));
            same(&body, &big[part], range);
        }
        if round == 0 {
            // Again, from the disk.
            for (name, _) in FILES {
                let file = File::open(server.path(name)).unwrap();
                file.sync_all().unwrap();
                let drop = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
                nix::fcntl::posix_fadvise(&file, 0, 0, drop).unwrap();
            }
        }
    }
    assert_eq!(server.open("big"), 0);
}

#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn pipelined_answers_come_in_order(#[case] tls: bool) {
    let server = Server::new();
    let mut client = server.connect(tls);
    let name = |n: usize| FILES[n % FILES.len()];
    for n in 0..60 {
        client.ask("GET", name(n).0, "");
    }
    for n in 0..60 {
        let (head, body) = client.answer();
        assert_eq!(head.status, 200, "{n}");
        same(&body, &content(name(n).1), name(n).0);
    }
    // The dispatcher takes the last method that it has read for that of what it writes.
    for method in ["GET", "HEAD", "GET", "HEAD"] {
        client.ask(method, "window", "");
    }
    for method in ["GET", "HEAD", "GET", "HEAD"] {
        let head = client.head();
        assert_eq!((head.status, head.length()), (200, 2 << 20), "{method}");
        if method == "GET" {
            let mut body = vec![0; 2 << 20];
            client.0.read_exact(&mut body).unwrap();
            same(&body, &content(2 << 20), method);
        }
    }
}

#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn who_goes_leaves_nothing_open(#[case] tls: bool) {
    let server = Server::new();
    server.huge();
    for n in 0..50 {
        let mut client = server.connect(tls);
        client.ask("GET", "huge", "");
        if n % 2 == 0 {
            client.0.read_exact(&mut vec![0; 10_000 * n]).unwrap();
        }
    }
    until(|| server.open("huge") == 0);
    same(&server.connect(tls).get("big", "").1, &content(5_000_001), "and the next is served");
}

#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn who_takes_nothing_is_cut_off_and_who_is_slow_is_not(#[case] tls: bool) {
    let server = Server::with(Duration::from_millis(400), None);
    server.huge();
    let mut slow = server.connect(tls);
    slow.ask("GET", "huge", "");
    let mut stalled = server.connect(tls);
    stalled.ask("GET", "huge", "");
    until(|| server.open("huge") == 2);
    let began = Instant::now();
    // Enough at a time that a third of the buffers between them is free again well within that time.
    let (mut took, mut chunk) = (0, vec![0; 400_000]);
    // Four times as long as what is allowed to pass without a byte.
    while began.elapsed() < Duration::from_millis(1600) {
        slow.0.read_exact(&mut chunk).unwrap();
        took += chunk.len() as u64;
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(took < HUGE / 2, "it was not slow");
    assert_eq!(server.open("huge"), 1, "only the slow one is left");
    assert!((stalled.rest().len() as u64) < HUGE);
    assert_eq!(server.times("client-stalled"), 1);
    slow.0.read_exact(&mut chunk).unwrap();
}

#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn a_file_that_shrinks_is_an_error_and_never_padding(#[case] tls: bool) {
    let server = Server::new();
    let file = server.huge();
    file.write_all_at(&[b'x'; 4096], 0).unwrap();
    let mut client = server.connect(tls);
    client.ask("GET", "huge", "");
    assert_eq!(client.head().length() as u64, HUGE);
    let mut begin = [0; 4096];
    client.0.read_exact(&mut begin).unwrap();
    file.set_len(1 << 20).unwrap();
    let rest = client.rest();
    assert!(((begin.len() + rest.len()) as u64) < HUGE, "{}", rest.len());
    drop(file);
    until(|| server.open("huge") == 0);
    assert_eq!(server.times("file-shrank"), 1);
    // What was held of it is gone; the next one sees the file as it is.
    let (head, body) = server.connect(tls).get("huge", "");
    assert_eq!((head.status, body.len()), (200, 1 << 20));
}

#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn the_door_closes_behind_the_last_byte(#[case] tls: bool) {
    let mut server = Server::new();
    let mut idle = server.connect(tls);
    idle.get("small", "");
    let mut client = server.connect(tls);
    server.huge();
    client.ask("GET", "huge", "");
    let length = client.head().length();
    let mut running = server.running.take().unwrap();
    let stopping = server.runtime.spawn(async move { running.stop().await });
    assert!(idle.rest().is_empty(), "who asks for nothing is let go");
    assert_eq!(client.rest().len(), length);
    server.runtime.block_on(stopping).unwrap();
}

#[test]
fn a_connection_is_paced() {
    let server = Server::with(Duration::from_secs(60), Some(4_000_000));
    let began = Instant::now();
    let mut client = server.connect(false);
    same(&client.get("big", "").1, &content(5_000_001), "paced");
    let took = began.elapsed().as_secs_f64();
    assert!(took > 0.8, "5 MB in {took} s");
    assert!(Server::new().connect(false).get("big", "").1.len() == 5_000_001);
}
