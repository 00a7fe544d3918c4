//! HTTP as iPXE speaks it: one connection a machine, one request at a time, HTTP/1.1 with
//! keep-alive and without resuming; bodies are counted and dropped.
//!
//! By HTTPS it is TLS 1.2, the newest that iPXE knows, and the certificate is verified.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::model::Why;
use crate::model::event::plain;

/// iPXE gives up a connection that is silent for so long.
const SILENCE: Duration = Duration::from_secs(120);
const CONNECT: Duration = Duration::from_secs(30);
/// A server that is busy (503) is asked again so often, and so long after at most.
const BUSY: u32 = 60;
const LONGEST_PAUSE: u64 = 30;
/// A response's head.
const HEAD: usize = 16 << 10;
const HEADERS: usize = 64;
const BUFFER: usize = 64 << 10;

/// Why a file has not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFile {
    Url(String),
    /// On another host than the server.
    Elsewhere(String),
    Connect(String),
    Tls(String),
    Status(u16, String),
    /// Bytes that came, and that were promised.
    Short(u64, u64),
    NoLength,
    Malformed,
    Silent,
    Busy,
    TooLong,
    Broken(String),
}

impl Why for NoFile {
    fn name(&self) -> &'static str {
        match self {
            NoFile::Url(_) => "url",
            NoFile::Elsewhere(_) => "elsewhere",
            NoFile::Connect(_) => "connect",
            NoFile::Tls(_) => "tls",
            NoFile::Status(..) => "status",
            NoFile::Short(..) => "short",
            NoFile::NoLength => "no-length",
            NoFile::Malformed => "malformed",
            NoFile::Silent => "silent",
            NoFile::Busy => "busy",
            NoFile::TooLong => "too-long",
            NoFile::Broken(_) => "broken",
        }
    }
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoFile::Url(url) => write!(f, "{url} is no address that can be fetched"),
            NoFile::Elsewhere(host) => write!(
                f,
                "it is on {host}: a rehearsal asks its own server and nobody else, and goes no \
                 further here"
            ),
            NoFile::Connect(why) => write!(f, "no connection: {why}"),
            NoFile::Tls(why) => write!(f, "HTTPS: {why}"),
            NoFile::Status(status, url) => write!(f, "status {status} for {url}"),
            NoFile::Short(came, all) => write!(f, "{came} of {all} bytes came"),
            NoFile::NoLength => f.write_str("no Content-Length, which firmware wants"),
            NoFile::Malformed => f.write_str("what came is no HTTP response"),
            NoFile::Silent => f.write_str("120 s without a byte: iPXE would give up"),
            NoFile::Busy => f.write_str("the server stayed busy (503) to the last try"),
            NoFile::TooLong => f.write_str("longer than what is to be read of it"),
            NoFile::Broken(why) => write!(f, "the connection broke: {why}"),
        }
    }
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    pub bytes: u64,
    /// Where it was to be kept.
    pub content: Vec<u8>,
}

/// The parts of a URL that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        let fine = |t: &str| t.bytes().all(|b| b.is_ascii_graphic());
        if host.is_empty() || !fine(host) || !fine(path) || host.contains('@') {
            return None;
        }
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Some(Url { tls, host: host.to_string(), port, path })
    }
}

trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// One machine's client.
pub struct Client {
    from: Ipv4Addr,
    server: Ipv4Addr,
    tls: Option<TlsConnector>,
    open: Option<(Url, Box<dyn Wire>)>,
    buffer: Vec<u8>,
    /// Requests that were made again because the server was busy.
    pub resent: u64,
}

/// What [`Client`] needs for HTTPS: these roots and no others.
///
/// # Errors
/// Text without a certificate that can be used.
pub fn trusting(pem: &[u8]) -> Result<TlsConnector, NoFile> {
    let wrong = |e: &dyn fmt::Display| NoFile::Tls(plain(&e.to_string(), 200));
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        roots.add(root.map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    }
    if roots.is_empty() {
        return Err(NoFile::Tls("no certificate to trust".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .map_err(|e| wrong(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Client {
    /// Speaks from this address, which the interface need not have (IP_FREEBIND), to this server
    /// and nobody else: a mirror that a script names is no party to a rehearsal.
    pub fn new(from: Ipv4Addr, server: Ipv4Addr) -> Client {
        Client { from, server, tls: None, open: None, buffer: Vec::new(), resent: 0 }
    }

    pub fn trust(&mut self, tls: TlsConnector) {
        self.tls = Some(tls);
    }

    /// Fetches it; `keep` is the most that is kept of it, in bytes, and more is an error then.
    pub async fn get(&mut self, url: &str, keep: Option<usize>) -> Result<Body, NoFile> {
        let parsed = Url::parse(url).ok_or_else(|| NoFile::Url(plain(url, 120)))?;
        for _ in 0..BUSY {
            match self.once(&parsed, keep).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Later(pause) => {
                    self.resent += 1;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Err(NoFile::Busy)
    }

    async fn once(&mut self, url: &Url, keep: Option<usize>) -> Result<Answer, NoFile> {
        let same = |old: &Url| (old.tls, &old.host, old.port) == (url.tls, &url.host, url.port);
        let kept = self.open.take().filter(|(old, _)| same(old));
        let reused = kept.is_some();
        let mut wire = match kept {
            Some((_, wire)) => wire,
            None => self.connect(url).await?,
        };
        let mut head = self.request(wire.as_mut(), url).await;
        // A server may close a connection that it has waited on long enough.
        if reused && matches!(head, Err(NoFile::Broken(_))) {
            wire = self.connect(url).await?;
            head = self.request(wire.as_mut(), url).await;
        }
        let head = head?;
        let body = self.body(wire.as_mut(), &head, keep).await?;
        if head.stays {
            self.open = Some((url.clone(), wire));
        }
        match head.status {
            200 => Ok(Answer::Body(body)),
            503 if head.later.is_some() => {
                let pause = head.later.unwrap_or(1).clamp(1, LONGEST_PAUSE);
                Ok(Answer::Later(Duration::from_secs(pause)))
            }
            status => Err(NoFile::Status(status, plain(&url.path, 120))),
        }
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Wire>, NoFile> {
        let no = |e: io::Error| NoFile::Connect(plain(&e.to_string(), 120));
        if url.host.parse() != Ok(self.server) {
            return Err(NoFile::Elsewhere(plain(&url.host, 120)));
        }
        let to = SocketAddr::from((self.server, url.port));
        let open = async {
            let socket = TcpSocket::new_v4()?;
            socket2::SockRef::from(&socket).set_freebind_v4(true)?;
            socket.bind(SocketAddr::from((self.from, 0)))?;
            let stream = socket.connect(to).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = timeout(CONNECT, open).await.map_err(|_| NoFile::Silent)?.map_err(no)?;
        if !url.tls {
            return Ok(Box::new(stream));
        }
        let tls = self.tls.as_ref().ok_or_else(|| NoFile::Tls("no root to trust".into()))?;
        let name = match url.host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(url.host.clone())
                .map_err(|e| NoFile::Tls(plain(&e.to_string(), 120)))?,
        };
        let shaken = timeout(CONNECT, tls.connect(name, stream)).await;
        match shaken.map_err(|_| NoFile::Silent)? {
            Ok(stream) => Ok(Box::new(stream)),
            Err(e) => Err(NoFile::Tls(plain(&e.to_string(), 120))),
        }
    }

    async fn request(&mut self, wire: &mut dyn Wire, url: &Url) -> Result<Head, NoFile> {
        let host = match url.port {
            80 | 443 => url.host.clone(),
            port => format!("{}:{port}", url.host),
        };
        let text = format!(
            "GET {} HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: iPXE/2.0.0 (rehearsal)\r\n\
             Host: {host}\r\n\r\n",
            url.path
        );
        wire.write_all(text.as_bytes()).await.map_err(broken)?;
        self.buffer.clear();
        loop {
            if read(wire, &mut self.buffer, BUFFER).await? == 0 {
                return Err(NoFile::Broken("closed before an answer".into()));
            }
            if let Some(head) = Head::parse(&self.buffer)? {
                self.buffer.drain(..head.len);
                return Ok(head);
            }
            if self.buffer.len() > HEAD {
                return Err(NoFile::Malformed);
            }
        }
    }

    /// What of the body came with the head is in the buffer.
    async fn body(
        &mut self,
        wire: &mut dyn Wire,
        head: &Head,
        keep: Option<usize>,
    ) -> Result<Body, NoFile> {
        let length = head.length.ok_or(NoFile::NoLength)?;
        if keep.is_some_and(|limit| length > limit as u64) {
            return Err(NoFile::TooLong);
        }
        let mut body = Body::default();
        loop {
            body.bytes += self.buffer.len() as u64;
            if keep.is_some() {
                body.content.append(&mut self.buffer);
            }
            if body.bytes > length {
                return Err(NoFile::Malformed);
            }
            if body.bytes == length {
                return Ok(body);
            }
            self.buffer.clear();
            let want = usize::try_from(length - body.bytes).unwrap_or(BUFFER).min(BUFFER);
            if read(wire, &mut self.buffer, want).await? == 0 {
                return Err(NoFile::Short(body.bytes, length));
            }
        }
    }
}

enum Answer {
    Body(Body),
    Later(Duration),
}

/// What is known of a response before its body.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    len: usize,
    status: u16,
    length: Option<u64>,
    /// Retry-After, in seconds.
    later: Option<u64>,
    stays: bool,
}

impl Head {
    /// `None` is one that has not come whole.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, NoFile> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let len = match response.parse(bytes).map_err(|_| NoFile::Malformed)? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(len) => len,
        };
        let value = |name: &str| {
            let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok().map(str::trim)
        };
        let number = |name: &str| value(name).and_then(|v| v.parse().ok());
        Ok(Some(Head {
            len,
            status: response.code.ok_or(NoFile::Malformed)?,
            length: number("content-length"),
            later: number("retry-after"),
            stays: response.version == Some(1)
                && value("connection").is_none_or(|v| !v.eq_ignore_ascii_case("close")),
        }))
    }
}

async fn read(wire: &mut dyn Wire, buffer: &mut Vec<u8>, room: usize) -> Result<usize, NoFile> {
    let mut some = wire.take(room as u64);
    buffer.reserve(room);
    timeout(SILENCE, some.read_buf(buffer)).await.map_err(|_| NoFile::Silent)?.map_err(broken)
}

fn broken(e: io::Error) -> NoFile {
    NoFile::Broken(plain(&e.to_string(), 120))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = |tls, host: &str, port, path: &str| {
            Some(Url { tls, host: host.into(), port, path: path.into() })
        };
        assert_eq!(Url::parse("http://10.0.0.1/a?b=c"), url(false, "10.0.0.1", 80, "/a?b=c"));
        assert_eq!(Url::parse("https://h:8443"), url(true, "h", 8443, "/"));
        for bad in ["tftp://h/a", "http://", "http://h/a b", "http://h:x/", "http://u@h/", "h/a"] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn heads_are_read_when_they_are_whole() {
        let text = b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\nRetry-After: 2\r\n\r\nwait\n";
        for cut in 0..text.len() - 5 {
            assert_eq!(Head::parse(&text[..cut]), Ok(None));
        }
        let head = Head::parse(text).unwrap().unwrap();
        let want =
            Head { len: text.len() - 5, status: 503, length: Some(5), later: Some(2), stays: true };
        assert_eq!(head, want);
        let closes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        assert!(!Head::parse(closes).unwrap().unwrap().stays);
        assert_eq!(Head::parse(b"SSH-2.0\r\n\r\n"), Err(NoFile::Malformed));
    }

    /// A server that says this to each of its connections, one after the other.
    fn says(all: Vec<&'static [u8]>) -> String {
        use std::io::{Read, Write};
        let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", door.local_addr().unwrap());
        std::thread::spawn(move || {
            for text in all {
                let (mut peer, _) = door.accept().unwrap();
                let _ = peer.read(&mut [0; 2000]).unwrap();
                peer.write_all(text).unwrap();
            }
        });
        url
    }

    async fn get(all: Vec<&'static [u8]>, keep: Option<usize>) -> Result<Body, NoFile> {
        Client::new(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).get(&says(all), keep).await
    }

    #[tokio::test]
    async fn bodies_are_counted_and_kept_where_wanted() {
        const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        let body = get(vec![FINE], None).await;
        assert_eq!(body, Ok(Body { bytes: 4, content: vec![] }));
        assert_eq!(get(vec![FINE], Some(9)).await.unwrap().content, b"body");
        assert_eq!(get(vec![FINE], Some(3)).await, Err(NoFile::TooLong));
        const CUT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody";
        assert_eq!(get(vec![CUT], None).await, Err(NoFile::Short(4, 9)));
        const NONE: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nbody";
        assert_eq!(get(vec![NONE], None).await, Err(NoFile::NoLength));
        const GONE: &[u8] = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(get(vec![GONE], None).await, Err(NoFile::Status(404, "/x".into())));
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again() {
        const BUSY: &[u8] =
            b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n";
        const FINE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(get(vec![BUSY, FINE], None).await.unwrap().bytes, 4);
    }
}
