//! TFTP packets: bytes to meaning and back (RFC 1350 section 5, RFC 2347).

use super::why::Why;
use crate::model::event::plain;

/// The longest file name in bytes. RFC 2347 bounds the whole request at 512 octets; a bit of room
/// is left for those who don't know.
pub const NAME_LIMIT: usize = 1024;
/// The longest text of an ERROR, in bytes, sent or kept.
const MESSAGE_LIMIT: usize = 200;
/// More options than RFCs have ever defined.
const OPTION_LIMIT: usize = 32;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// RFC 1350 section 1; `mail` is obsolete and refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    Octet,
    Netascii,
}

/// The options that we know, as asked for and not judged yet. An option that we do not know, that
/// comes a second time or that is no decimal number is as if it were not there (RFC 2347).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes, RFC 2348.
    pub blksize: Option<u64>,
    /// Seconds, RFC 2349.
    pub timeout: Option<u64>,
    /// Bytes, RFC 2349.
    pub tsize: Option<u64>,
    /// Blocks, RFC 7440.
    pub windowsize: Option<u64>,
}

/// A read request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub name: String,
    pub mode: Mode,
    pub options: Options,
}

/// A packet that a client of ours may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Rrq(Request),
    Ack(u16),
    Error { code: u16, message: String },
}

/// The error codes that we send: RFC 1350 section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    Undefined = 0,
    NotFound = 1,
    Access = 2,
    Illegal = 4,
    UnknownPort = 5,
}

/// The options that a transfer takes, as the OACK states them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    pub blksize: Option<u16>,
    pub timeout: Option<u8>,
    pub tsize: Option<u64>,
    pub windowsize: Option<u16>,
}

/// Reads a datagram of a client.
///
/// # Errors
/// All that is not a read request, an acknowledgement or an error, by name.
pub fn read(datagram: &[u8]) -> Result<Packet, Why> {
    let Some((&[a, b], rest)) = datagram.split_first_chunk() else {
        return Err(Why::Short(datagram.len()));
    };
    let number = rest.first_chunk().map(|&n| u16::from_be_bytes(n));
    match u16::from_be_bytes([a, b]) {
        RRQ => request(rest).map(Packet::Rrq),
        WRQ => Err(Why::Write),
        ACK => number.map(Packet::Ack).ok_or(Why::Short(datagram.len())),
        ERROR => {
            let code = number.ok_or(Why::Short(datagram.len()))?;
            Ok(Packet::Error { code, message: message(&rest[2..]) })
        }
        known @ (DATA | OACK) => Err(Why::NotAnAnswer(known)),
        unknown => Err(Why::Opcode(unknown)),
    }
}

fn request(rest: &[u8]) -> Result<Request, Why> {
    let (name, rest) = text(rest).ok_or(Why::Unended)?;
    let name = clean(name)?;
    let (mode, rest) = text(rest).ok_or(Why::Unended)?;
    let mode = match mode {
        m if m.eq_ignore_ascii_case(b"octet") => Mode::Octet,
        m if m.eq_ignore_ascii_case(b"netascii") => Mode::Netascii,
        m => return Err(Why::Mode(plain(&String::from_utf8_lossy(m), 20))),
    };
    Ok(Request { name, mode, options: options(rest) })
}

/// The bytes before the first NUL, and those after it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Firmware writes names with `/` in front, Windows boot files with `\`; ROMs that take the end
/// mark of the DHCP options for a part of option 67 send 0xFF behind the name, which no UTF-8 has.
fn clean(name: &[u8]) -> Result<String, Why> {
    if name.len() > NAME_LIMIT {
        return Err(Why::LongName(name.len()));
    }
    let end = name.iter().rposition(|&b| b != 0xff).map_or(0, |last| last + 1);
    let name = std::str::from_utf8(&name[..end]).map_err(|_| Why::NameBytes)?.replace('\\', "/");
    match name.trim_start_matches('/') {
        "" => Err(Why::NoName),
        name => Ok(name.to_owned()),
    }
}

/// Pairs of name and value until the bytes end; some ROMs pad what follows.
fn options(mut rest: &[u8]) -> Options {
    let mut found = Options::default();
    for _ in 0..OPTION_LIMIT {
        let Some((name, after)) = text(rest) else { break };
        let Some((value, after)) = text(after) else { break };
        rest = after;
        let slot = match name.to_ascii_lowercase().as_slice() {
            b"blksize" => &mut found.blksize,
            b"timeout" => &mut found.timeout,
            b"tsize" => &mut found.tsize,
            b"windowsize" => &mut found.windowsize,
            _ => continue,
        };
        if slot.is_none() {
            *slot = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
        }
    }
    found
}

/// The text of an ERROR, fit for a log; its NUL may be missing.
fn message(bytes: &[u8]) -> String {
    let text = text(bytes).map_or(bytes, |(text, _)| text);
    plain(&String::from_utf8_lossy(&text[..text.len().min(MESSAGE_LIMIT)]), MESSAGE_LIMIT)
}

/// Bytes of a DATA packet before its block.
pub const DATA_HEAD: usize = 4;

/// The head of a DATA packet; the block's bytes follow it.
pub fn data_head(block: u16) -> [u8; DATA_HEAD] {
    let ([a, b], [c, d]) = (DATA.to_be_bytes(), block.to_be_bytes());
    [a, b, c, d]
}

pub fn error(code: Code, text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(MESSAGE_LIMIT)];
    [&ERROR.to_be_bytes(), &(code as u16).to_be_bytes(), text, &[0]].concat()
}

/// RFC 2347: the options that are taken, with the values that hold.
pub fn oack(accepted: &Accepted) -> Vec<u8> {
    let mut out = OACK.to_be_bytes().to_vec();
    let mut put = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            out.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
    };
    put("tsize", accepted.tsize);
    put("blksize", accepted.blksize.map(u64::from));
    put("timeout", accepted.timeout.map(u64::from));
    put("windowsize", accepted.windowsize.map(u64::from));
    out
}

/// A text as netascii has it (RFC 1350 section 1, RFC 764): LF becomes CR LF, and a bare CR
/// becomes CR NUL, so that the other side gets the very same bytes back.
pub fn netascii(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32);
    for &byte in bytes {
        match byte {
            b'\n' => out.extend_from_slice(b"\r\n"),
            b'\r' => out.extend_from_slice(b"\r\0"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rrq(rest: &[u8]) -> Result<Request, Why> {
        match read(&[&[0, 1], rest].concat())? {
            Packet::Rrq(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_firmware_asks() {
        let ovmf = rrq(b"snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0");
        let ipxe = rrq(b"autoexec.ipxe\0octet\0blksize\x001432\0tsize\x000\0");
        let octet =
            |name: &str, options| Ok(Request { name: name.to_owned(), mode: Mode::Octet, options });
        let options = Options {
            blksize: Some(1468),
            tsize: Some(0),
            windowsize: Some(4),
            ..Options::default()
        };
        assert_eq!(ovmf, octet("snponly.efi", options));
        let options = Options { blksize: Some(1432), tsize: Some(0), ..Options::default() };
        assert_eq!(ipxe, octet("autoexec.ipxe", options));
        assert_eq!(rrq(b"x\0NetASCII\0").map(|r| r.mode), Ok(Mode::Netascii));
    }

    #[test]
    fn names_as_they_come() {
        for (sent, name) in [
            (&b"/undionly.kpxe"[..], "undionly.kpxe"),
            (b"\\Boot\\x64\\wdsnbp.com", "Boot/x64/wdsnbp.com"),
            (b"pxelinux.0\xff", "pxelinux.0"),
            (b"//a b\xff\xff\xff", "a b"),
            ("größe".as_bytes(), "größe"),
            (b"a/../b", "a/../b"),
        ] {
            let got = rrq(&[sent, b"\0octet\0"].concat()).map(|r| r.name);
            assert_eq!(got.as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_refused_has_a_name() {
        let long = [&b"\0\x01"[..], &[b'a'; 4096], b"\0octet\0"].concat();
        for (packet, why) in [
            (&b""[..], Why::Short(0)),
            (b"\0", Why::Short(1)),
            (b"\0\x04\x01", Why::Short(3)),
            (b"\0\x05\0", Why::Short(3)),
            (b"\0\x00", Why::Opcode(0)),
            (b"\0\x07ab", Why::Opcode(7)),
            (b"\x01\x00ab", Why::Opcode(256)),
            (b"\0\x03\0\x01abc", Why::NotAnAnswer(3)),
            (b"\0\x02f\0octet\0", Why::Write),
            (b"\0\x01", Why::Unended),
            (b"\0\x01name", Why::Unended),
            (b"\0\x01name\0", Why::Unended),
            (b"\0\x01name\0octet", Why::Unended),
            (b"\0\x01\0octet\0", Why::NoName),
            (b"\0\x01/\xff\0octet\0", Why::NoName),
            (b"\0\x01a\xfe\0octet\0", Why::NameBytes),
            (b"\0\x01a\0mail\0", Why::Mode("mail".into())),
            (b"\0\x01a\0\x1b[2J\0", Why::Mode("?[2J".into())),
            (&long, Why::LongName(4096)),
        ] {
            assert_eq!(read(packet), Err(why), "{packet:?}");
        }
    }

    #[test]
    fn options_that_mean_nothing_are_not_there() {
        for (sent, want) in [
            (&b"BLKSIZE\x00512\0blksize\x0099\0"[..], Some(512)),
            (b"blksize\0-1\0", None),
            (b"blksize\0\0", None),
            (b"blksize\x0099999999999999999999999\0", None),
            (b"multicast\0\0blksize\x00512\0", Some(512)),
            (b"blksize\x00512", None),
            (b"blksize\x00512\0\0\0\0\0", Some(512)),
        ] {
            let got = rrq(&[b"f\0octet\0", sent].concat()).map(|r| r.options.blksize);
            assert_eq!(got, Ok(want), "{sent:?}");
        }
    }

    #[test]
    fn what_we_send() {
        assert_eq!(data_head(0x1234), [0, 3, 0x12, 0x34]);
        assert_eq!(error(Code::NotFound, "no"), b"\0\x05\0\x01no\0");
        assert!(error(Code::Undefined, &"x".repeat(9999)).len() < 512);
        let all = Accepted {
            blksize: Some(8),
            timeout: Some(3),
            tsize: Some(1 << 33),
            windowsize: Some(64),
        };
        assert_eq!(
            oack(&all),
            b"\0\x06tsize\x008589934592\0blksize\x008\0timeout\x003\0windowsize\x0064\0"
        );
        assert_eq!(netascii(b"a\nb\r\nc\rd"), b"a\r\nb\r\0\r\nc\r\0d");
    }

    #[test]
    fn an_error_reads_with_or_without_its_end() {
        for sent in [
            &b"\0\x05\0\x08User aborted the transfer\0"[..],
            b"\0\x05\0\x08User aborted the transfer",
        ] {
            let want = Packet::Error { code: 8, message: "User aborted the transfer".into() };
            assert_eq!(read(sent), Ok(want));
        }
    }
}
