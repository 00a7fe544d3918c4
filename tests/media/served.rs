//! Files of images over real connections: the same answers as for files in a folder, and an end
//! where the image is no longer what it was.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
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

use super::hand::{self, GOES_ON, Record, SECTOR, place};
use super::images;
use super::same;

/// A server with the same files as a folder `d` and out of images as `i`.
struct Server {
    dir: TempDir,
    plain: String,
    secure: String,
    client: Arc<ClientConfig>,
    ledger: Arc<Ledger>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn new(folder: &str, images: &[&str], fill: impl FnOnce(&Path)) -> Server {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fill(dir.path());
        let root = Root::Images(images.iter().map(|name| dir.path().join(name)).collect());
        let folders = vec![
            Folder { name: "d".into(), root: Root::Dir(dir.path().join(folder)), is: None },
            Folder { name: "i".into(), root, is: None },
        ];
        let config = Config { folders, ..Config::default() };
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
        let config = Arc::new(ArcSwap::from_pointee(config));
        let web = Web::new(config, ledger.clone(), door, None, Box::new(|| serde_json::json!([])));
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
        self.dir.path().join(name)
    }

    fn connect(&self, tls: bool) -> Client {
        let tcp = TcpStream::connect(if tls { &self.secure } else { &self.plain }).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if !tls {
            return Client(BufReader::new(Box::new(tcp)));
        }
        let name = IpAddr::V4(Ipv4Addr::LOCALHOST).into();
        let tls = ClientConnection::new(self.client.clone(), name).unwrap();
        Client(BufReader::new(Box::new(StreamOwned::new(tls, tcp))))
    }

    fn refusals(&self) -> Vec<&'static str> {
        self.ledger.refusals().iter().map(|((_, name), _)| *name).collect()
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
        let mut found = self.lines.iter().filter_map(|l| l.split_once(": "));
        found.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    fn length(&self) -> usize {
        self.header("content-length").map_or(0, |n| n.parse().unwrap())
    }
}

impl Client {
    fn ask(&mut self, method: &str, path: &str, headers: &str) {
        let folder = if path.starts_with("image/") { "" } else { "files/" };
        let text = format!("{method} /{folder}{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
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

    fn get(&mut self, path: &str, headers: &str) -> (Head, Vec<u8>) {
        self.ask("GET", path, headers);
        let head = self.head();
        let mut body = vec![0; head.length()];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    /// The next bytes of a body, at most so many, until it ends, however it does.
    fn some(&mut self, most: u64) -> Vec<u8> {
        let mut some = Vec::new();
        let ended = self.0.by_ref().take(most).read_to_end(&mut some);
        assert!(!ended.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "it hangs");
        some
    }
}

/// Waits for the thing itself, at most 10 s.
fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "it did not happen within 10 s");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

const FILES: &[(&str, usize)] = &[
    ("big.img", 5_000_001),
    ("images/pxeboot/vmlinuz", 300_000),
    ("small.txt", 100),
    ("empty", 0),
    ("edge.efi", 16 << 10),
    (".treeinfo", 44),
    ("a file with spaces & <marks>.txt", 33),
    ("a:b", 3),
];

/// Of one image, and where `two`, of two, each with half of the files.
fn side_by_side(test: &str, two: bool) -> Option<Server> {
    if !images::makers(test) {
        return None;
    }
    let images: &[&str] = if two { &["1.iso", "2.iso"] } else { &["1.iso"] };
    Some(Server::new("from", images, |dir| {
        images::lay(&dir.join("from"), FILES);
        if !two {
            return images::xorriso(&dir.join("1.iso"), &dir.join("from"), &["-R"]);
        }
        let (one, other) = FILES.split_at(FILES.len() / 2);
        for (name, files) in [("1", one), ("2", other)] {
            images::lay(&dir.join(name), files);
            images::genisoimage(&dir.join(format!("{name}.iso")), &dir.join(name), &["-R"]);
        }
    }))
}

fn encoded(path: &str) -> String {
    path.replace('%', "%25").replace(' ', "%20").replace('<', "%3c").replace('>', "%3e")
}

#[rstest]
#[case::plain(false, false)]
#[case::tls(true, false)]
#[case::of_two_images(false, true)]
fn answers_are_those_of_a_folder(#[case] tls: bool, #[case] two: bool) {
    let Some(server) = side_by_side("answers_are_those_of_a_folder", two) else { return };
    let mut client = server.connect(tls);
    for (path, len) in FILES {
        let path = encoded(path);
        for range in [
            "",
            "bytes=0-0",
            "bytes=0-",
            "bytes=1-98",
            "bytes=-7",
            "bytes=-9999999999",
            "bytes=2047-2048",
            "bytes=99-5000",
            "bytes=100000-3000000",
            "bytes=5000000-",
            "bytes=5000001-",
            "bytes=1-2,50-60",
            "bytes=0-0,-1",
            "bytes=5-2",
            "bytes=x",
            "lines=1-2",
            "bytes=0-99999999999999999999",
        ] {
            let line = if range.is_empty() { String::new() } else { format!("Range: {range}\r\n") };
            let (of_dir, of_image) =
                (client.get(&format!("d/{path}"), &line), client.get(&format!("i/{path}"), &line));
            let what = format!("{path} ({len}) {range}");
            assert_eq!(of_image.0.status, of_dir.0.status, "{what}");
            for name in ["content-length", "content-range", "accept-ranges", "content-type"] {
                assert_eq!(of_image.0.header(name), of_dir.0.header(name), "{what}: {name}");
            }
            same(&of_image.1, &of_dir.1, &what);
            // To HEAD no range is given (RFC 9110 section 14.2).
            let mut head = |tree: &str| {
                client.ask("HEAD", &format!("{tree}/{path}"), &line);
                client.head()
            };
            let (alone_of_dir, alone) = (head("d"), head("i"));
            assert_eq!(alone.status, alone_of_dir.status, "HEAD {what}");
            for name in ["content-length", "content-range", "content-type"] {
                assert_eq!(alone.header(name), alone_of_dir.header(name), "HEAD {what}: {name}");
            }
            for name in ["etag", "last-modified"] {
                let same =
                    of_image.0.status == 416 || alone.header(name) == of_image.0.header(name);
                assert!(same && alone.header(name).is_some(), "HEAD {what}: {name}");
            }
        }
    }
    for path in
        ["none", "images/none", "small.txt/", "small.txt/x", "%2e%2e/secret", "a%2fb", "a%00"]
    {
        let (of_dir, of_image) =
            (client.get(&format!("d/{path}"), "").0, client.get(&format!("i/{path}"), "").0);
        assert_eq!(of_image.status, of_dir.status, "{path}");
        assert!(of_image.status >= 400, "{path}");
    }
}

#[test]
fn validators_hold_while_the_image_is_the_same() {
    let Some(server) = side_by_side("validators_hold_while_the_image_is_the_same", false) else {
        return;
    };
    let mut client = server.connect(false);
    let (head, body) = client.get("i/big.img", "");
    let etag = head.header("etag").expect("an entity tag").to_string();
    assert!(etag.starts_with('"'), "{etag}: a strong one, for ranges (RFC 9110 section 13.1.5)");
    let (other, _) = client.get("i/small.txt", "");
    assert_ne!(other.header("etag"), Some(&*etag), "each file has its own");

    client.ask("GET", "i/big.img", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!(client.head().status, 304);
    let part = |client: &mut Client, is: &str| {
        client.get("i/big.img", &format!("Range: bytes=1000-1999\r\nIf-Range: {is}\r\n"))
    };
    let (head, some) = part(&mut client, &etag);
    assert_eq!((head.status, head.header("content-range")), (206, Some("bytes 1000-1999/5000001")));
    same(&some, &body[1000..2000], "the part");
    for other in ["\"other\"", &format!("W/{etag}"), "Mon, 01 Jan 1990 00:00:00 GMT"] {
        let (head, all) = part(&mut client, other);
        assert_eq!(head.status, 200, "{other}");
        same(&all, &body, other);
    }

    // Another image of that name: other validators, and other bytes.
    let other = server.path("other");
    images::put(&other, "big.img", &[b'x'; 5_000_001]);
    images::xorriso(&server.path("new.iso"), &other, &["-R"]);
    fs::rename(server.path("new.iso"), server.path("1.iso")).unwrap();
    let (head, all) = part(&mut client, &etag);
    assert_eq!(head.status, 200);
    same(&all, &[b'x'; 5_000_001], "the new one");
    assert_ne!(head.header("etag"), Some(&*etag));
    assert_eq!(client.get("i/small.txt", "").0.status, 404, "which it does not have");
}

#[test]
fn a_folder_of_an_image_is_listed() {
    let Some(server) = side_by_side("a_folder_of_an_image_is_listed", true) else { return };
    let mut client = server.connect(false);
    for path in ["", "images/", "images/pxeboot/"] {
        let lines = |(head, body): (Head, Vec<u8>)| {
            assert_eq!(head.status, 200, "{path}");
            assert_eq!(head.header("content-security-policy"), Some("default-src 'none'"));
            let text = String::from_utf8(body).unwrap();
            text.lines().filter(|l| l.contains("href")).map(str::to_string).collect::<Vec<_>>()
        };
        let of_image = lines(client.get(&format!("i/{path}"), ""));
        assert_eq!(of_image, lines(client.get(&format!("d/{path}"), "")), "{path}");
        assert!(of_image.len() > 1, "{path}");
    }
    let (head, _) = client.get("i/images", "");
    assert_eq!((head.status, head.header("location")), (301, Some("/files/i/images/")));
    let (head, body) = client.get("i/IMAGES/PXEBOOT/VMLINUZ", "");
    assert_eq!(head.status, 200, "by any case");
    same(&body, &images::content("images/pxeboot/vmlinuz", 300_000), "by any case");
    assert_eq!(client.get("d/IMAGES/PXEBOOT/VMLINUZ", "").0.status, 404);
}

/// Parts that do not follow one another, each of some pages and one of no whole block.
#[rstest]
#[case::plain(false)]
#[case::tls(true)]
fn a_file_in_parts_is_sent_as_one(#[case] tls: bool) {
    let free = place(1);
    let parts = [(3000, 1500 * SECTOR), (0, SECTOR), (1000, 1200 * SECTOR), (2500, 100)];
    let server = Server::new("from", &["1.iso"], |dir| {
        let last = parts.len() - 1;
        let record = |(nth, (at, len)): (usize, &(u32, usize))| {
            let record = Record::file("BIG.;1", free + at, *len as u32).named(b"big");
            if nth == last { record } else { record.flags(GOES_ON) }
        };
        let records = parts.iter().enumerate().map(record).collect();
        fs::write(dir.join("1.iso"), hand::iso(&[records], free + 5000)).unwrap();
    });
    let whole: Vec<u8> = parts
        .iter()
        .flat_map(|(at, len)| {
            (0..len.div_ceil(SECTOR) as u32)
                .flat_map(|n| (free + at + n).to_be_bytes().repeat(SECTOR / 4))
                .take(*len)
                .collect::<Vec<u8>>()
        })
        .collect();
    let mut client = server.connect(tls);
    let (head, body) = client.get("i/big", "");
    assert_eq!(head.status, 200);
    same(&body, &whole, "all of it");
    let first = 1500 * SECTOR;
    for (from, to) in [
        (0, 1),
        (first - 1, first + 1),
        (first, first + SECTOR),
        (first - 5000, first + 5000),
        (5, whole.len()),
        (whole.len() - 101, whole.len()),
        (whole.len() - 3, whole.len()),
    ] {
        let (head, body) = client.get("i/big", &format!("Range: bytes={from}-{}\r\n", to - 1));
        assert_eq!(head.status, 206, "{from}-{to}");
        same(&body, &whole[from..to], &format!("{from}-{to}"));
    }
}

// --- images that change --------------------------------------------------------------------------

/// More than the sockets of both sides hold.
const HUGE: usize = 64 << 20;

fn changing(test: &str) -> Option<Server> {
    if !images::makers(test) {
        return None;
    }
    Some(Server::new("from", &["1.iso"], |dir| {
        images::lay(&dir.join("from"), &[("huge", HUGE), ("small", 100)]);
        images::xorriso(&dir.join("1.iso"), &dir.join("from"), &["-R"]);
    }))
}

/// What changes an image that is being served, and whether what is on its way is touched by that.
fn change(server: &Server, how: &str) {
    let image = server.path("1.iso");
    match how {
        "removed" => fs::remove_file(image).unwrap(),
        "replaced" => {
            fs::write(server.path("new"), b"no image").unwrap();
            fs::rename(server.path("new"), image).unwrap();
        }
        "cut" => File::options().write(true).open(image).unwrap().set_len(1 << 20).unwrap(),
        "written anew" => fs::write(image, vec![b'x'; HUGE + (1 << 20)]).unwrap(),
        "changed" => {
            let file = File::options().write(true).open(image).unwrap();
            let len = file.metadata().unwrap().len();
            file.write_all_at(&[b'x'; 4096], len - 400_000).unwrap();
        }
        other => panic!("{other}"),
    }
}

#[rstest]
fn an_image_that_is_no_longer_what_it_was_is_an_error(
    #[values("removed", "replaced", "cut", "written anew")] how: &str,
) {
    let Some(server) = changing("an_image_that_is_no_longer_what_it_was_is_an_error") else {
        return;
    };
    let mut client = server.connect(false);
    same(&client.get("i/small", "").1, &images::content("small", 100), "before");
    change(&server, how);
    for path in ["i/small", "i/huge", "i/"] {
        let (head, body) = client.get(path, "");
        let told = String::from_utf8_lossy(&body);
        assert!(head.status >= 400 && told.len() > 10, "{how}: {path}: {} {told}", head.status);
    }
    // It comes back, and so do the files.
    images::xorriso(&server.path("1.iso"), &server.path("from"), &["-R"]);
    until(|| client.get("i/small", "").0.status == 200);
    same(&client.get("i/small", "").1, &images::content("small", 100), "after");
}

#[rstest]
fn an_image_that_changes_while_it_is_sent_cuts_the_connection(
    #[values(false, true)] tls: bool,
    #[values("removed", "replaced", "cut", "written anew", "changed")] how: &str,
) {
    let Some(server) = changing("an_image_that_changes_while_it_is_sent_cuts_the_connection")
    else {
        return;
    };
    let whole = images::content("huge", HUGE);
    let mut client = server.connect(tls);
    client.ask("GET", "i/huge", "");
    assert_eq!(client.head().length(), HUGE);
    let begin = client.some(1 << 20);
    same(&begin, &whole[..1 << 20], "before");
    change(&server, how);
    let rest = client.some((HUGE - begin.len()) as u64);
    let got = begin.len() + rest.len();
    if got == HUGE {
        // What is open stays what it was, though it has no name any more.
        assert!(matches!(how, "removed" | "replaced"), "{how}: it was sent as if nothing were");
        same(&rest, &whole[1 << 20..], how);
    } else {
        assert!(!server.refusals().is_empty(), "{how}: nobody is told");
        // What is on its way is pages of the file: who writes into these changes them there.
        if !matches!(how, "written anew" | "changed") {
            same(&rest, &whole[1 << 20..got], how);
        }
    }
    drop(client);
    // The others are not harmed.
    same(&server.connect(tls).get("d/small", "").1, &images::content("small", 100), "a folder");
}

/// A server of an image whose bytes are nobody's business.
fn whole(len: usize) -> (Server, Vec<u8>) {
    let bytes = images::content("1.iso", len);
    let server = Server::new("from", &["1.iso"], |dir| {
        fs::write(dir.join("1.iso"), &bytes).unwrap();
    });
    (server, bytes)
}

#[test]
fn an_image_is_sent_as_a_whole() {
    let (server, bytes) = whole(300_000);
    let mut client = server.connect(false);
    let (head, body) = client.get("image/i.iso", "");
    same(&body, &bytes, "all of it");
    let etag = head.header("etag").unwrap().to_string();
    assert!(head.header("last-modified").is_some());
    let (head, body) = client.get("image/i.iso", "Range: bytes=1000-200999\r\n");
    assert_eq!((head.status, head.length()), (206, 200_000));
    same(&body, &bytes[1000..201_000], "some of it");
    let (head, _) = client.get("image/i.iso", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!(head.status, 304);
    // Other bytes of the same length and the same time are another image.
    let path = server.path("1.iso");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, vec![b'x'; bytes.len()]).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let (head, body) = client.get("image/i.iso", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((head.status, body.len()), (200, bytes.len()));
    // And what is none is said to be none.
    for (how, told) in [("gone", "is gone"), ("pipe", "is no regular file")] {
        let _ = fs::remove_file(&path);
        if how == "pipe" {
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let (head, body) = client.get("image/i.iso", "");
        let said = String::from_utf8_lossy(&body);
        assert!(head.status >= 400 && said.contains(told), "{how}: {} {said}", head.status);
    }
}

#[rstest]
fn an_image_that_is_written_while_it_is_sent_is_cut(#[values(false, true)] tls: bool) {
    let (server, bytes) = whole(HUGE);
    let mut client = server.connect(tls);
    client.ask("GET", "image/i.iso", "");
    assert_eq!(client.head().length(), HUGE);
    same(&client.some(1 << 20), &bytes[..1 << 20], "before");
    let path = server.path("1.iso");
    let file = File::options().write(true).open(&path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(&[b'x'; 4096], HUGE as u64 - 400_000).unwrap();
    // As `cp -p` and `rsync -t` do.
    file.set_modified(modified).unwrap();
    let rest = client.some((HUGE - (1 << 20)) as u64);
    assert!(rest.len() < HUGE - (1 << 20), "it was sent as if nothing were");
    assert!(!server.refusals().is_empty(), "nobody is told");
}
