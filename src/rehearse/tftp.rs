//! A TFTP client that is many: RFC 1350 with the options of RFC 2347, 2348 and 7440.
//!
//! 1. [`Clients`] takes a [`Get`], opens a port for it and sends the request.
//! 2. [`Download`] takes a datagram or the time, and says what to send next; it knows no socket and
//!    no clock.
//! 3. [`Clients`] sends that, and hands over what was [`Got`], or how it [`Failed`].
//!
//! It behaves as firmware does: one acknowledgement a window, one more at a gap, and the last one
//! again for a block that comes again, because that means that it got lost. After the last block it
//! is gone and does not stay to answer duplicates (RFC 1350 section 6 would like that, firmware has
//! no time).

mod fetch;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::model::event::plain;

pub use fetch::Clients;

/// How long an answer is waited for at first, and at most: the wait doubles. PXE 2.1 appendix D
/// says 4 s at least; a rehearsal wants to know of a loss earlier.
const WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Times that the same is sent again.
const RESENDS: u8 = 5;
/// The most that is kept of a content that was asked for, in bytes.
const KEEP_LIMIT: u64 = 64 << 20;
/// The longest text of an ERROR that is kept, in characters.
const MESSAGE_LIMIT: usize = 200;
/// RFC 1350.
const BLOCK: u16 = 512;

const RRQ: u16 = 1;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// What is to be fetched, and in what way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    pub server: SocketAddrV4,
    /// Our own address, which the interface need not have (IP_FREEBIND).
    pub from: Ipv4Addr,
    pub name: String,
    /// Bytes, RFC 2348; without it no word of a block size.
    pub blksize: Option<u16>,
    /// Blocks, RFC 7440; without it no word of a window.
    pub windowsize: Option<u16>,
    /// As EDK2 does it: asks for `tsize`, answers the OACK with ERROR 8, and asks again without it
    /// from another port.
    pub probe: bool,
    /// Whether [`Got::content`] is wanted, at most 64 MiB.
    pub keep: bool,
}

impl Get {
    /// In octet mode and without any option.
    pub fn new(server: SocketAddrV4, from: Ipv4Addr, name: impl Into<String>) -> Get {
        let name = name.into();
        Get { server, from, name, blksize: None, windowsize: None, probe: false, keep: false }
    }

    /// RFC 2347: the request with its options.
    fn request(&self, probing: bool) -> Vec<u8> {
        let mut out = RRQ.to_be_bytes().to_vec();
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b"\0octet\0");
        let mut put = |name: &str, value: Option<u16>| {
            if let Some(value) = value {
                out.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
            }
        };
        put("tsize", probing.then_some(0));
        put("blksize", self.blksize);
        put("windowsize", self.windowsize);
        out
    }
}

/// A file that has come whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub bytes: u64,
    /// From the first request to the last block.
    pub took: Duration,
    /// From the first request to the first answer.
    pub first: Duration,
    /// What was sent again for want of an answer, and blocks that came again.
    pub resent: u64,
    /// Empty where [`Get::keep`] did not ask for it.
    pub content: Vec<u8>,
}

/// Why a file has not come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    #[error("the server does not answer")]
    NoAnswer,
    #[error("the server fell silent after {0} bytes")]
    Silent(u64),
    #[error("the server said ERROR {code}: {message}")]
    Error { code: u16, message: String },
    #[error("the server grants what was not asked for: {0}")]
    Option(&'static str),
    #[error("the file is longer than what can be kept of it ({KEEP_LIMIT} bytes)")]
    TooLong,
    #[error("no request can be sent: {0}")]
    Socket(String),
    #[error("the clients were stopped")]
    Stopped,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Wait,
    /// The request, to the server's port for requests.
    Ask,
    /// The acknowledgement, to the transfer's own port.
    Ack(u16),
    /// ERROR 5 to a port that is not the transfer's (RFC 1350 section 4); it lives.
    Foreign,
    /// ERROR 8 to the transfer's own port, and the request from another port of ours.
    Anew,
    /// This last acknowledgement, and the file is there.
    Done(u16),
    /// The ERROR of this code if there is one, and it is over.
    Fail(Option<u16>, Failed),
}

/// One transfer, seen from the client. Blocks are counted from 1 without wrapping.
#[derive(Debug)]
pub struct Download {
    blksize: Option<u16>,
    windowsize: Option<u16>,
    probing: bool,
    keep: bool,
    /// The server's port of this transfer, once it has answered.
    tid: Option<u16>,
    /// What holds now, granted or by default.
    size: usize,
    window: u16,
    /// Whether there was an OACK.
    oack: bool,
    /// Blocks that have come in order, and how many of them since the last acknowledgement.
    have: u64,
    since: u16,
    /// A gap has been told of.
    gap: bool,
    bytes: u64,
    content: Vec<u8>,
    resent: u64,
    tries: u8,
    began: Instant,
    first: Option<Instant>,
    due: Instant,
}

impl Download {
    /// A transfer whose request is to be sent now.
    pub fn begin(get: &Get, now: Instant) -> Download {
        Download {
            blksize: get.blksize,
            windowsize: get.windowsize,
            probing: get.probe,
            keep: get.keep,
            tid: None,
            size: BLOCK.into(),
            window: 1,
            oack: false,
            have: 0,
            since: 0,
            gap: false,
            bytes: 0,
            content: Vec::new(),
            resent: 0,
            tries: 0,
            began: now,
            first: None,
            due: now + WAIT,
        }
    }

    /// A datagram that the server sent from this port.
    pub fn datagram(&mut self, port: u16, datagram: &[u8], now: Instant) -> Step {
        let Some((&[a, b, c, d], rest)) = datagram.split_first_chunk() else {
            return Step::Wait;
        };
        let (opcode, number) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if self.tid.is_some_and(|tid| tid != port) {
            // Never an ERROR for an ERROR.
            return if opcode == ERROR { Step::Wait } else { Step::Foreign };
        }
        if matches!(opcode, DATA | OACK | ERROR) {
            self.first.get_or_insert(now);
        }
        match opcode {
            DATA => {
                self.tid = Some(port);
                self.data(number, rest, now)
            }
            OACK => {
                self.tid = Some(port);
                self.options(&datagram[2..], now)
            }
            ERROR => {
                let text = rest.split(|&byte| byte == 0).next().unwrap_or_default();
                let message = plain(&String::from_utf8_lossy(text), MESSAGE_LIMIT);
                Step::Fail(None, Failed::Error { code: number, message })
            }
            _ => Step::Wait,
        }
    }

    fn options(&mut self, text: &[u8], now: Instant) -> Step {
        if self.oack || self.have > 0 {
            // Our ACK 0 was lost; later than that it is a late duplicate.
            self.resent += 1;
            return if self.have == 0 { self.acknowledge(now) } else { Step::Wait };
        }
        if let Err(wrong) = self.grant(text) {
            return Step::Fail(Some(8), Failed::Option(wrong));
        }
        if self.probing {
            self.probing = false;
            (self.tid, self.size, self.window, self.tries) = (None, BLOCK.into(), 1, 0);
            self.due = now + WAIT;
            return Step::Anew;
        }
        self.oack = true;
        self.tries = 0;
        self.acknowledge(now)
    }

    /// RFC 2347: an OACK holds nothing that was not asked for, a block no longer and a window no
    /// wider than asked (RFC 2348, 7440).
    fn grant(&mut self, text: &[u8]) -> Result<(), &'static str> {
        let mut words = text.split(|&byte| byte == 0);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let value: Option<u64> = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
            let within = |least: u64, asked: Option<u16>| {
                value.filter(|v| (least..=asked.unwrap_or(0).into()).contains(v))
            };
            match name.to_ascii_lowercase().as_slice() {
                b"blksize" => self.size = within(8, self.blksize).ok_or("blksize")? as usize,
                b"windowsize" => {
                    self.window = within(1, self.windowsize).ok_or("windowsize")? as u16;
                }
                b"tsize" if self.probing => drop(value.ok_or("tsize")?),
                b"tsize" => return Err("tsize"),
                _ => return Err("an option that we do not know"),
            }
        }
        Ok(())
    }

    fn data(&mut self, number: u16, block: &[u8], now: Instant) -> Step {
        if self.probing {
            // A server without options: there is no size to be had, and the file comes anyway.
            self.probing = false;
        }
        let ahead = number.wrapping_sub(self.have as u16) as i16;
        if ahead != 1 {
            return self.out_of_order(ahead, now);
        }
        if block.len() > self.size {
            return Step::Fail(Some(4), Failed::Option("a block longer than blksize"));
        }
        if self.keep {
            if self.bytes + block.len() as u64 > KEEP_LIMIT {
                return Step::Fail(Some(3), Failed::TooLong);
            }
            self.content.extend_from_slice(block);
        }
        self.bytes += block.len() as u64;
        self.have += 1;
        self.since += 1;
        self.gap = false;
        self.tries = 0;
        if block.len() < self.size {
            return Step::Done(number);
        }
        if self.since >= self.window {
            return self.acknowledge(now);
        }
        self.due = now + WAIT;
        Step::Wait
    }

    /// RFC 7440 section 4: one acknowledgement at a gap. The newest block once more means that
    /// what acknowledged it got lost; an older one says nothing.
    fn out_of_order(&mut self, ahead: i16, now: Instant) -> Step {
        match ahead {
            0 if self.have > 0 => {
                self.resent += 1;
                self.acknowledge(now)
            }
            ahead if ahead > 1 && !self.gap => {
                let step = self.acknowledge(now);
                self.gap = true;
                step
            }
            ahead if ahead <= 0 => {
                self.resent += 1;
                Step::Wait
            }
            _ => Step::Wait,
        }
    }

    fn acknowledge(&mut self, now: Instant) -> Step {
        self.since = 0;
        self.gap = false;
        self.due = now + self.wait();
        Step::Ack(self.have as u16)
    }

    fn wait(&self) -> Duration {
        (WAIT * 2u32.pow(self.tries.min(RESENDS).into())).min(LONGEST_WAIT)
    }

    /// The time has come, or not yet: what was said last is said again.
    pub fn tick(&mut self, now: Instant) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        let answered = self.oack || self.have > 0;
        if self.tries >= RESENDS {
            let why = if answered { Failed::Silent(self.bytes) } else { Failed::NoAnswer };
            return Step::Fail(None, why);
        }
        self.tries += 1;
        self.resent += 1;
        if answered {
            return self.acknowledge(now);
        }
        self.due = now + self.wait();
        Step::Ask
    }

    /// The largest datagram that belongs here, in bytes: a train of blocks is cut at it. Before
    /// the first answer an OACK or an ERROR may be longer than a block.
    pub fn largest(&self) -> usize {
        if self.oack || self.have > 0 { self.size + 4 } else { usize::from(u16::MAX) }
    }

    /// When [`Download::tick`] has something to do.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The server's port of this transfer.
    pub fn tid(&self) -> Option<u16> {
        self.tid
    }

    /// What has come.
    pub fn got(self, now: Instant) -> Got {
        Got {
            bytes: self.bytes,
            took: now.saturating_duration_since(self.began),
            first: self.first.unwrap_or(now).saturating_duration_since(self.began),
            resent: self.resent,
            content: self.content,
        }
    }
}

fn ack(number: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (ACK.to_be_bytes(), number.to_be_bytes());
    [a, b, c, d]
}

fn error(code: u16, text: &str) -> Vec<u8> {
    [&ERROR.to_be_bytes(), &code.to_be_bytes(), text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TID: u16 = 4000;

    fn get(blksize: Option<u16>, windowsize: Option<u16>, probe: bool) -> Get {
        let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 69);
        let whole = Get::new(server, Ipv4Addr::LOCALHOST, "a/b");
        Get { blksize, windowsize, probe, keep: true, ..whole }
    }

    fn data(number: u16, len: usize) -> Vec<u8> {
        [&DATA.to_be_bytes()[..], &number.to_be_bytes(), &vec![number as u8; len]].concat()
    }

    /// A row: milliseconds, what comes in (a datagram by TID, or the time alone), what goes out.
    type Row<'a> = (u64, Option<(u16, Vec<u8>)>, Step);

    fn timetable(get: &Get, rows: &[Row<'_>]) -> (Download, Instant) {
        let start = Instant::now();
        let mut download = Download::begin(get, start);
        for (nth, (ms, packet, want)) in rows.iter().enumerate() {
            let now = start + Duration::from_millis(*ms);
            let step = match packet {
                Some((port, packet)) => download.datagram(*port, packet, now),
                None => download.tick(now),
            };
            assert_eq!(step, *want, "row {nth}, at {ms} ms");
        }
        (download, start)
    }

    fn from(packet: Vec<u8>) -> Option<(u16, Vec<u8>)> {
        Some((TID, packet))
    }

    #[test]
    fn what_is_asked() {
        assert_eq!(get(None, None, false).request(false), b"\0\x01a/b\0octet\0");
        let edk2 = get(Some(1468), Some(4), true);
        assert_eq!(
            edk2.request(true),
            b"\0\x01a/b\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0"
        );
        assert_eq!(edk2.request(false), b"\0\x01a/b\0octet\0blksize\x001468\0windowsize\x004\0");
    }

    #[test]
    fn lock_step_by_the_clock() {
        let (download, start) = timetable(
            &get(None, None, false),
            &[
                (999, None, Step::Wait),
                (1000, None, Step::Ask),
                (2999, None, Step::Wait),
                (3000, None, Step::Ask),
                (3100, from(data(1, 512)), Step::Ack(1)),
                (3200, from(data(1, 512)), Step::Ack(1)),
                (3300, Some((TID + 1, data(1, 512))), Step::Foreign),
                (3300, Some((TID + 1, b"\0\x05\0\0no\0".to_vec())), Step::Wait),
                (4200, None, Step::Ack(1)),
                (4300, from(data(2, 512)), Step::Ack(2)),
                (4300, from(vec![0, 3]), Step::Wait),
                (4301, from(data(3, 7)), Step::Done(3)),
            ],
        );
        let got = download.got(start + Duration::from_millis(4301));
        assert_eq!((got.bytes, got.resent), (1031, 4));
        assert_eq!((got.took.as_millis(), got.first.as_millis()), (4301, 3100));
        assert_eq!(got.content, [vec![1; 512], vec![2; 512], vec![3; 7]].concat());
    }

    #[test]
    fn a_window_with_a_gap() {
        let oack = b"\0\x06blksize\x008\0windowsize\x004\0".to_vec();
        timetable(
            &get(Some(8), Some(16), false),
            &[
                (1, from(oack.clone()), Step::Ack(0)),
                (2, from(oack), Step::Ack(0)),
                (3, from(data(1, 8)), Step::Wait),
                (3, from(data(3, 8)), Step::Ack(1)),
                (3, from(data(4, 8)), Step::Wait),
                (4, from(data(2, 8)), Step::Wait),
                (4, from(data(3, 8)), Step::Wait),
                (4, from(data(4, 8)), Step::Wait),
                (4, from(data(5, 8)), Step::Ack(5)),
                (5, from(data(4, 8)), Step::Wait),
                (5, from(data(5, 8)), Step::Ack(5)),
                (6, from(data(6, 0)), Step::Done(6)),
            ],
        );
    }

    #[test]
    fn the_block_number_wraps() {
        let start = Instant::now();
        let mut download = Download::begin(&get(Some(8), None, false), start);
        let oack = b"\0\x06blksize\x008\0";
        assert_eq!(download.datagram(TID, oack, start), Step::Ack(0));
        for block in 1..=65540u32 {
            let number = block as u16;
            assert_eq!(download.datagram(TID, &data(number, 8), start), Step::Ack(number));
        }
        assert_eq!(download.datagram(TID, &data(5, 0), start), Step::Done(5));
        assert_eq!(download.got(start).bytes, 65540 * 8);
    }

    #[test]
    fn the_size_probe() {
        let first = b"\0\x06tsize\x009\0blksize\x001468\0".to_vec();
        let second = b"\0\x06blksize\x001468\0".to_vec();
        timetable(
            &get(Some(1468), Some(4), true),
            &[
                (5, from(first), Step::Anew),
                (1004, None, Step::Wait),
                (1005, None, Step::Ask),
                (1006, Some((TID + 1, second)), Step::Ack(0)),
                (1007, Some((TID + 1, data(1, 9))), Step::Done(1)),
            ],
        );
        timetable(&get(None, None, true), &[(5, from(data(1, 9)), Step::Done(1))]);
    }

    #[test]
    fn what_it_fails_by() {
        let said = Failed::Error { code: 1, message: "no such file".into() };
        timetable(
            &get(None, None, false),
            &[(1, from(b"\0\x05\0\x01no such file\0".to_vec()), Step::Fail(None, said))],
        );
        for (oack, wrong) in [
            (&b"\0\x06blksize\x001500\0"[..], "blksize"),
            (b"\0\x06blksize\x007\0", "blksize"),
            (b"\0\x06windowsize\x004\0", "windowsize"),
            (b"\0\x06tsize\x004\0", "tsize"),
            (b"\0\x06multicast\x004\0", "an option that we do not know"),
        ] {
            let fail = Step::Fail(Some(8), Failed::Option(wrong));
            timetable(&get(Some(1468), None, false), &[(1, from(oack.to_vec()), fail)]);
        }
        let fail = Step::Fail(Some(4), Failed::Option("a block longer than blksize"));
        timetable(&get(None, None, false), &[(1, from(data(1, 513)), fail)]);
    }

    #[test]
    fn silence_ends_it() {
        for (bytes, why) in [(0, Failed::NoAnswer), (512, Failed::Silent(512))] {
            let start = Instant::now();
            let mut download = Download::begin(&get(None, None, false), start);
            if bytes > 0 {
                download.datagram(TID, &data(1, bytes), start);
            }
            let mut said = 0;
            loop {
                match download.tick(download.due()) {
                    Step::Fail(None, end) => break assert_eq!(end, why),
                    step => assert_eq!(step == Step::Ask, bytes == 0),
                }
                said += 1;
            }
            assert_eq!((said, download.due() - start), (5, Duration::from_secs(31)));
        }
    }
}
