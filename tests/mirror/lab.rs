//! A namespace with a running `pilotlight serve` in it, and a client that sees what really came.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::namespace::ip;

/// Longer than anything takes here, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PORT: u16 = 8800;

/// The namespace's interfaces, and a folder for the server's files.
pub struct Lab {
    pub dir: TempDir,
}

impl Lab {
    /// `mirrors`: the tables of the configuration that the test is about.
    pub fn new(mirrors: &str) -> Lab {
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        ip("link set lo up");
        ip("link add boot0 type veth peer name nic0");
        ip("address add 10.77.0.1/24 dev boot0");
        ip("link set boot0 up");
        ip("link set nic0 up");
        lab.configure(mirrors);
        lab
    }

    pub fn configure(&self, mirrors: &str) {
        let text = format!("[dhcp]\nmode = \"off\"\n[http]\nport = {PORT}\n{mirrors}");
        fs::write(self.path("pilotlight.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until what was fetched is in its place, which is a little later than a client has it.
    pub fn settled(&self) {
        let under = |name: &str| {
            let dir = self.path("state/cache").join(name);
            if dir.is_dir() { crate::archive::files(&dir).len() } else { 0 }
        };
        until("settled", || under("objects") > 0 && under("partial") == 0);
    }

    pub fn start(&self) -> Server {
        // With names of our own, where the test has some: nobody else resolves any here. And with
        // what else it mounts.
        let mounts = "cd $0; [ ! -e hosts ] || mount --bind hosts /etc/hosts; \
                      [ ! -e mounts ] || . ./mounts; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", mounts]).arg(self.dir.path());
        command.args(["setpriv", "--pdeathsig", "KILL", env!("CARGO_BIN_EXE_pilotlight"), "serve"]);
        command.args(["--interface", "boot0", "--config"]).arg(self.path("pilotlight.toml"));
        command.arg("--state-dir").arg(self.path("state"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| tell.send(l)));
        let mut server = Server { child, log, said: Vec::new() };
        server.says("ready");
        server
    }
}

/// `[[mirror]]` NAME of these URLs, which are at addresses that are private.
pub fn mirror(name: &str, urls: &[&str], more: &str) -> String {
    format!("[[mirror]]\nname = \"{name}\"\nurls = {urls:?}\nprivate = true\n{more}\n")
}

/// A running server, and its log.
pub struct Server {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
}

impl Server {
    /// The next line of the log with all of these in it.
    pub fn says_all(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if words.iter().all(|w| line.contains(w)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {words:?} in {:#?}", self.said),
                Err(RecvTimeoutError::Disconnected) => panic!("ended: {:#?}", self.said),
            }
        }
    }

    pub fn says(&mut self, word: &str) -> String {
        self.says_all(&[word])
    }

    /// As if the plug were pulled.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As systemd stops it.
    pub fn stop(mut self) {
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        assert!(self.child.wait().unwrap().success(), "{:#?}", self.said);
    }

    /// A path as the server sees it, with what is mounted for it alone.
    pub fn inside(&self, path: &Path) -> PathBuf {
        format!("/proc/{}/root{}", self.child.id(), path.display()).into()
    }

    /// Resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.said.extend(self.log.iter());
            eprintln!("the server's log: {:#?}", self.said);
        }
    }
}

/// Asks again and again until it says yes.
pub fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !yes() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What came of a request.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: HashMap<String, String>,
    pub body: Vec<u8>,
    /// Whether the client would take it for whole: all that Content-Length or the chunks promised.
    pub whole: bool,
}

/// A response that is being read.
pub struct Reading {
    stream: TcpStream,
    pub status: u16,
    pub head: HashMap<String, String>,
    read: Vec<u8>,
    bodyless: bool,
}

/// GET of a path of the server under test.
pub fn get(path: &str) -> Got {
    open(path, &[]).rest()
}

/// GET with further headers; its body is not read yet.
pub fn open(path: &str, headers: &[(&str, &str)]) -> Reading {
    fetch(ours(), "GET", path, headers)
}

/// What came of a GET that must not arrive whole; `None`: the connection ended before any of it,
/// which is a refusal too.
pub fn refused(path: &str) -> Option<Got> {
    let got = try_fetch(ours(), "GET", path, &[]).map(Reading::rest).ok()?;
    assert!(got.status >= 500 || !got.whole, "{path}: {} and whole", got.status);
    Some(got)
}

pub fn ours() -> SocketAddr {
    SocketAddr::from(([10, 77, 0, 1], PORT))
}

pub fn fetch(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Reading {
    try_fetch(at, method, path, headers).unwrap_or_else(|why| panic!("{method} {path}: {why}"))
}

/// # Errors
/// Why this was no HTTP response.
pub fn try_fetch(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reading, String> {
    let stream = TcpStream::connect(at).map_err(|e| e.to_string())?;
    speak(stream, at, method, path, headers)
}

/// GET of a path of the server under test, as whoever has this address.
pub fn open_from(source: [u8; 4], path: &str) -> Reading {
    try_from(source, path).unwrap()
}

/// # Errors
/// Where the connection ends before there is an answer.
pub fn try_from(source: [u8; 4], path: &str) -> Result<Reading, String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&ours().into()).unwrap();
    speak(socket.into(), ours(), "GET", path, &[])
}

fn speak(
    mut stream: TcpStream,
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Reading, String> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let more: String = headers.iter().map(|(k, v)| format!("{k}: {v}\r\n")).collect();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(head.as_bytes()).map_err(|e| e.to_string())?;
    let mut read = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).map_err(|e| format!("no head: {e}"))?;
        read.extend(&buffer[..n]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head.parse(&read).map_err(|e| e.to_string())?;
        if let httparse::Status::Complete(len) = parsed {
            let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
            let status = head.code.unwrap();
            let found = head.headers.iter();
            let head = found.map(|h| (h.name.to_lowercase(), text(h.value))).collect();
            read.drain(..len);
            let bodyless = method == "HEAD" || matches!(status, 204 | 304);
            return Ok(Reading { stream, status, head, read, bodyless });
        }
        if n == 0 {
            return Err("the end before the head's".into());
        }
    }
}

impl Reading {
    /// What Content-Length says.
    pub fn len(&self) -> Option<usize> {
        self.head.get("content-length").map(|l| l.parse().unwrap())
    }

    /// Waits until so many bytes of the body are here; the first of them.
    pub fn first(&mut self, n: usize) -> &[u8] {
        let mut buffer = vec![0; 64 << 10];
        while self.read.len() < n {
            let more = self.stream.read(&mut buffer).unwrap();
            assert!(more > 0, "the end at {} of {n}", self.read.len());
            self.read.extend(&buffer[..more]);
        }
        &self.read[..n]
    }

    pub fn rest(mut self) -> Got {
        // A reset is an end like another: what is here is here.
        let _ = self.stream.read_to_end(&mut self.read);
        let chunked = self.head.get("transfer-encoding").is_some_and(|t| t.contains("chunked"));
        let (body, whole) = match (chunked, self.len()) {
            (true, _) => unchunked(&self.read),
            (false, Some(len)) => {
                let whole = self.read.len() == len || self.bodyless;
                (std::mem::take(&mut self.read), whole)
            }
            // Ends with the connection: nobody can tell.
            (false, None) => (std::mem::take(&mut self.read), true),
        };
        Got { status: self.status, head: self.head, body, whole }
    }
}

/// The body out of its chunks, and whether the last of them came (RFC 9112, section 7.1).
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((head, len))) = httparse::parse_chunk_size(rest) {
        let len = usize::try_from(len).unwrap();
        if len == 0 {
            return (body, true);
        }
        let Some(piece) = rest.get(head..head + len) else {
            body.extend(&rest[head..]);
            break;
        };
        body.extend(piece);
        rest = rest.get(head + len + 2..).unwrap_or_default();
    }
    (body, false)
}

/// All that was printed, of a program that must have done well.
pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {text}\n{err}");
    text.into_owned()
}

/// Where a program is, if it is anywhere: by PATH, or among the peers that `scripts/deps` unpacked.
pub fn program(name: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers");
    places.extend(["/usr/sbin".into(), peers.join(name).join("usr/sbin")]);
    places.into_iter().map(|p| p.join(name)).find(|p| p.is_file())
}
