//! An upstream that misbehaves as it is told, and remembers what it was asked.
//!
//! HTTP/1.1 on one address of this machine, a thread for each connection. A path has its content,
//! and a queue of acts, one for each request; behind the last of them it does right.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Longer than anything takes here, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of one write.
const PIECE: usize = 64 << 10;

/// What one request is answered with.
#[derive(Clone, Debug)]
pub enum Act {
    /// Ranges, validators, all as RFC 9110 has it.
    Right,
    /// The connection ends behind so many bytes of the body.
    Cut(usize),
    /// So many bytes of the body, and nothing more until [`Upstream::release`].
    Stall(usize),
    /// Content-Length is wrong by this; the body is what it is, then the connection ends.
    Lie(i64),
    /// Content-Length is right, and so many bytes more are sent.
    More(usize),
    /// The content is another behind so many bytes, where the connection ends.
    CutAndChange(usize, Content),
    /// Neither Range nor If-Range count: 200 and the whole.
    Whole,
    /// A 206 that begins so many bytes behind what was asked, and says so.
    Other206(usize),
    /// A 206 whose total is another by this.
    OtherTotal(i64),
    /// A 206 with the range that was asked, and the bytes from this offset on in its place.
    Mixed206(usize),
    /// This status and Location.
    Redirect(u16, String),
    /// This status, further header lines (each with CR LF), and a body of a few words.
    Status(u16, &'static str),
    /// Transfer-Encoding: chunked, no length; the second is where it ends too early, if it does.
    Chunked(Option<usize>),
    /// Compressed, which nobody asked for.
    Gzip,
    /// So many bytes a second.
    Slow(u64),
    /// Not HTTP.
    Garbage,
    /// A head without end.
    EndlessHead,
    /// Right in all but one byte, at this offset of the content.
    Wrong(usize),
    /// Neither ETag nor Last-Modified, otherwise right.
    NoValidator,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    pub bytes: Arc<Vec<u8>>,
    /// With its quotes.
    pub etag: String,
    /// Further header lines, each with CR LF.
    pub head: &'static str,
}

impl Content {
    pub fn new(bytes: impl Into<Vec<u8>>, etag: &str) -> Content {
        Content { bytes: Arc::new(bytes.into()), etag: format!("\"{etag}\""), head: "" }
    }

    pub fn head(mut self, lines: &'static str) -> Content {
        self.head = lines;
        self
    }
}

/// Bytes that look like any; the same for the same seed. Marsaglia's xorshift for the first 64 KiB,
/// and those again with their number in front.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut block = Vec::with_capacity(PIECE);
    while block.len() < PIECE.min(len + 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        block.extend_from_slice(&x.to_le_bytes());
    }
    let mut out = Vec::with_capacity(len + PIECE);
    for n in 0u64.. {
        if out.len() >= len {
            break;
        }
        out.extend_from_slice(&block);
        let at = out.len() - block.len();
        out[at..at + 8].copy_from_slice(&(n ^ seed).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A request, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    pub accept_encoding: Option<String>,
    pub status: u16,
    /// Bytes of the body that were handed to the kernel.
    pub sent: u64,
    pub ended: bool,
    /// Whether the client wants the connection to end behind the answer.
    last: bool,
}

impl Asked {
    /// Where its range begins; 0 where it has none.
    pub fn from(&self) -> u64 {
        let text = self.range.as_deref().and_then(|r| r.strip_prefix("bytes="));
        text.and_then(|r| r.split('-').next()).map_or(0, |from| from.parse().unwrap_or(0))
    }
}

#[derive(Default)]
struct State {
    files: HashMap<String, (Content, VecDeque<Act>)>,
    asked: Vec<Asked>,
    /// Whether those that stall go on.
    released: bool,
    over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that failed while it held this: its panic is the message, not this one.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let out = with(&mut self.lock());
        self.news.notify_all();
        out
    }
}

pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    /// On loopback, at a port that is free.
    pub fn new() -> Upstream {
        Upstream::at("127.0.0.1:0")
    }

    pub fn at(address: &str) -> Upstream {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let ours = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ours.lock().over {
                    break;
                }
                let ours = Arc::clone(&ours);
                thread::spawn(move || {
                    // A client that leaves is no fault of this side.
                    let _ = connection(&ours, stream);
                });
            }
        });
        Upstream { address, shared }
    }

    /// `http://ADDRESS/`
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Puts a file at a path that begins with a slash; what was to become of its requests is
    /// forgotten.
    pub fn put(&self, path: &str, content: Content) {
        self.shared.change(|s| s.files.insert(path.into(), (content, VecDeque::new())));
    }

    /// What the next requests for a path are answered with, one each; those behind them rightly.
    pub fn will(&self, path: &str, acts: impl IntoIterator<Item = Act>) {
        self.shared.change(|s| {
            let file = s.files.entry(path.into());
            let (_, queue) =
                file.or_insert_with(|| (Content::new(*b"", "none"), VecDeque::default()));
            queue.extend(acts);
        });
    }

    /// Lets all that stall go on, and those that would.
    pub fn release(&self) {
        self.shared.change(|s| s.released = true);
    }

    /// Requests for a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.shared.lock().asked.iter().filter(|a| a.path == path).cloned().collect()
    }

    pub fn all(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// Body bytes that went out for a path.
    pub fn sent(&self, path: &str) -> u64 {
        self.asked(path).iter().map(|a| a.sent).sum()
    }

    /// Waits until this holds of the requests for a path.
    pub fn wait(&self, path: &str, until: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        loop {
            let asked: Vec<Asked> =
                state.asked.iter().filter(|a| a.path == path).cloned().collect();
            if until(&asked) {
                return asked;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{path}: this is all that was asked: {asked:#?}");
            state = self.shared.news.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.change(|s| {
            s.released = true;
            s.over = true;
        });
        // Wakes the listener, which then ends; an error is one that has ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn connection(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut read = Vec::new();
    while let Some(asked) = request(&mut stream, &mut read)? {
        let (n, content, act) = shared.change(|s| {
            s.asked.push(asked.clone());
            let file = s.files.get_mut(&asked.path);
            let told = file
                .map(|(content, acts)| (content.clone(), acts.pop_front().unwrap_or(Act::Right)));
            let missing = || (Content::new(*b"", "none"), Act::Status(404, ""));
            let (content, act) = told.unwrap_or_else(missing);
            (s.asked.len() - 1, content, act)
        });
        let mut answer = Answer { shared, stream: &mut stream, asked: &asked, n };
        let on = answer.act(&content, act);
        shared.change(|s| s.asked[n].ended = true);
        if !on? || asked.last {
            break;
        }
    }
    Ok(())
}

/// The next request's head; `None` at the end of the connection.
fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Asked>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        let parsed = head.parse(read).map_err(io::Error::other)?;
        if let httparse::Status::Complete(len) = parsed {
            let of = |name: &str| {
                let found = head.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                found.map(|h| String::from_utf8_lossy(h.value).into_owned())
            };
            let asked = Asked {
                method: head.method.unwrap_or_default().into(),
                path: head.path.unwrap_or_default().into(),
                host: of("host").unwrap_or_default(),
                range: of("range"),
                if_range: of("if-range"),
                if_none_match: of("if-none-match"),
                accept_encoding: of("accept-encoding"),
                last: of("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")),
                ..Asked::default()
            };
            read.drain(..len);
            return Ok(Some(asked));
        }
        let mut more = [0; 4096];
        match stream.read(&mut more)? {
            0 => return Ok(None),
            n => read.extend(&more[..n]),
        }
    }
}

struct Answer<'a> {
    shared: &'a Shared,
    stream: &'a mut TcpStream,
    asked: &'a Asked,
    n: usize,
}

/// The right answer, and what is not right in it.
#[derive(Default)]
struct How {
    whole: bool,
    /// Content-Length is wrong by this.
    lie: i64,
    cut: Option<usize>,
    more: usize,
    rate: Option<u64>,
    stall: Option<usize>,
}

impl Answer<'_> {
    /// Whether the connection goes on.
    fn act(&mut self, content: &Content, act: Act) -> io::Result<bool> {
        let all = content.bytes.as_slice();
        let total = all.len();
        match act {
            Act::Right => return self.right(content, &How::default()),
            Act::Slow(rate) => {
                return self.right(content, &How { rate: Some(rate), ..How::default() });
            }
            Act::Stall(at) => {
                return self.right(content, &How { stall: Some(at), ..How::default() });
            }
            Act::Cut(at) => return self.right(content, &How { cut: Some(at), ..How::default() }),
            Act::CutAndChange(at, new) => {
                let path = self.asked.path.clone();
                self.shared.change(|s| s.files.get_mut(&path).map(|file| file.0 = new));
                return self.right(content, &How { cut: Some(at), ..How::default() });
            }
            Act::Lie(lie) => return self.right(content, &How { lie, ..How::default() }),
            Act::More(more) => return self.right(content, &How { more, ..How::default() }),
            Act::Whole => return self.right(content, &How { whole: true, ..How::default() }),
            Act::Wrong(at) => {
                let mut bytes = all.to_vec();
                bytes[at] ^= 1;
                let wrong = Content { bytes: Arc::new(bytes), ..content.clone() };
                return self.right(&wrong, &How::default());
            }
            Act::NoValidator => {
                self.head(200, total as i64, "")?;
                self.body(all, &How::default())?;
            }
            Act::Other206(behind) => {
                let range = self.range(total).unwrap_or(0..total);
                let from = (range.start + behind).min(range.end - 1);
                self.head_206(content, &(from..range.end), total as i64, 0)?;
                self.body(&all[from..range.end], &How::default())?;
            }
            Act::OtherTotal(by) => {
                let range = self.range(total).unwrap_or(0..total);
                self.head_206(content, &range, total as i64 + by, 0)?;
                self.body(&all[range], &How::default())?;
            }
            Act::Mixed206(from) => {
                let range = self.range(total).unwrap_or(0..total);
                self.head_206(content, &range, total as i64, 0)?;
                let turned: Vec<u8> = all[from..].iter().chain(all).copied().collect();
                self.body(&turned[..range.len()], &How::default())?;
            }
            Act::Redirect(status, to) => self.head(status, 0, &format!("Location: {to}\r\n"))?,
            Act::Status(status, lines) => {
                let words = b"This is not it.\n";
                self.head(status, words.len() as i64, lines)?;
                self.body(words, &How::default())?;
            }
            Act::Chunked(end) => {
                self.status(200);
                let lines = "Transfer-Encoding: chunked";
                let head = format!("HTTP/1.1 200 X\r\nETag: {}\r\n{lines}\r\n\r\n", content.etag);
                self.put(head.as_bytes())?;
                for piece in all[..end.unwrap_or(total)].chunks(PIECE) {
                    self.put(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    self.body(piece, &How::default())?;
                    self.put(b"\r\n")?;
                }
                if end.is_some() {
                    return Ok(false);
                }
                self.put(b"0\r\n\r\n")?;
            }
            Act::Gzip => {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(all)?;
                let packed = packed.finish()?;
                let lines = format!("Content-Encoding: gzip\r\nETag: {}\r\n", content.etag);
                self.head(200, packed.len() as i64, &lines)?;
                self.body(&packed, &How::default())?;
            }
            Act::Garbage => {
                self.put(&noise(9, 1000))?;
                return Ok(false);
            }
            Act::EndlessHead => {
                self.put(b"HTTP/1.1 200 X\r\n")?;
                // Until the client has enough of it, which is an error here and the end.
                loop {
                    self.put(&b"X-More: and more, and more\r\n".repeat(100))?;
                }
            }
        }
        Ok(true)
    }

    /// 304, 416, 206 or 200, as the request's conditions have it (RFC 9110, sections 13 and 14).
    fn right(&mut self, content: &Content, how: &How) -> io::Result<bool> {
        let all = content.bytes.as_slice();
        let total = all.len();
        let lines = format!("ETag: {}\r\nAccept-Ranges: bytes\r\n{}", content.etag, content.head);
        let known = self.asked.if_none_match.as_ref();
        if known.is_some_and(|tags| tags.split(", ").any(|t| t == content.etag)) {
            self.status(304);
            self.put(format!("HTTP/1.1 304 X\r\n{lines}\r\n").as_bytes())?;
            return Ok(true);
        }
        let stands = self.asked.if_range.as_ref().is_none_or(|tag| *tag == content.etag);
        let wanted = self.asked.range.is_some() && stands && !how.whole;
        let bytes = match wanted.then(|| self.range(total)) {
            Some(None) => {
                self.head(416, 0, &format!("Content-Range: bytes */{total}\r\n"))?;
                return Ok(true);
            }
            Some(Some(range)) => {
                self.head_206(content, &range, total as i64, how.lie)?;
                &all[range]
            }
            None => {
                self.head(200, total as i64 + how.lie, &lines)?;
                all
            }
        };
        self.body(&bytes[..how.cut.map_or(bytes.len(), |at| at.min(bytes.len()))], how)?;
        self.put(&noise(7, how.more))?;
        Ok(how.lie == 0 && how.cut.is_none() && how.more == 0)
    }

    /// The range that was asked, of so many bytes; one range, for nobody asks for more.
    fn range(&self, total: usize) -> Option<Range<usize>> {
        let (from, to) = self.asked.range.as_deref()?.strip_prefix("bytes=")?.split_once('-')?;
        let range = match (from.parse().ok(), to.parse::<usize>().ok()) {
            (Some(from), to) => from..to.map_or(total, |to| (to + 1).min(total)),
            (None, Some(last)) => total.saturating_sub(last)..total,
            (None, None) => return None,
        };
        (range.start < range.end).then_some(range)
    }

    fn head_206(
        &mut self,
        c: &Content,
        range: &Range<usize>,
        total: i64,
        lie: i64,
    ) -> io::Result<()> {
        let of = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        let lines = format!("ETag: {}\r\nContent-Range: {of}\r\n{}", c.etag, c.head);
        self.head(206, range.len() as i64 + lie, &lines)
    }

    fn head(&mut self, status: u16, len: i64, lines: &str) -> io::Result<()> {
        self.status(status);
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{lines}\r\n", len.max(0));
        self.put(head.as_bytes())
    }

    fn status(&self, status: u16) {
        self.shared.change(|s| s.asked[self.n].status = status);
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn body(&mut self, bytes: &[u8], how: &How) -> io::Result<()> {
        if self.asked.method == "HEAD" {
            return Ok(());
        }
        let begun = Instant::now();
        let mut done = 0;
        let piece = how.rate.map_or(PIECE, |rate| (rate / 50).clamp(1, PIECE as u64) as usize);
        while done < bytes.len() {
            let mut end = (done + piece).min(bytes.len());
            match how.stall {
                Some(at) if done >= at => self.stall(),
                Some(at) => end = end.min(at),
                None => {}
            }
            if let Some(rate) = how.rate {
                let due = begun + Duration::from_secs_f64(end as f64 / rate as f64);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            self.put(&bytes[done..end])?;
            self.shared.change(|s| s.asked[self.n].sent += (end - done) as u64);
            done = end;
        }
        Ok(())
    }

    fn stall(&self) {
        let state = self.shared.lock();
        // Poisoned: the test has failed, and goes on to say so.
        drop(self.shared.news.wait_while(state, |s| !s.released));
    }
}
