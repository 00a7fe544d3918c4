//! Why a datagram is refused or passed over, and what its sender is told.

use std::borrow::Cow;

use super::wire::{Code, NAME_LIMIT};

/// A refusal by whoever opens the content: the code and the text that the client is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub code: Code,
    /// Goes to the client as well: no paths of the server's disk in it.
    pub text: Cow<'static, str>,
}

impl Refusal {
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, text: text.into() }
    }

    /// ERROR 1.
    pub fn not_found() -> Refusal {
        Refusal::new(Code::NotFound, "no such file here")
    }
}

/// Every reason there is for not sending what a datagram asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("a datagram of {0} bytes is no TFTP packet")]
    Short(usize),
    #[error("there is no TFTP packet with opcode {0}")]
    Opcode(u16),
    #[error("opcode {0} has no business at the port for requests")]
    NotARequest(u16),
    #[error("opcode {0} has no business in a read")]
    NotAnAnswer(u16),
    #[error("nothing can be written to this server")]
    Write,
    #[error("the request is cut off: its file name or mode has no end")]
    Unended,
    #[error("the request names no file")]
    NoName,
    #[error("a file name of {0} bytes; {NAME_LIMIT} is the most")]
    LongName(usize),
    #[error("the file name is not UTF-8")]
    NameBytes,
    #[error("there is no mode {0:?}: ask for octet (binary)")]
    Mode(String),
    #[error(
        "netascii is for small text files and this one has {0} bytes: ask for octet (binary) mode"
    )]
    Netascii(u64),
    #[error("too much netascii is under way: ask again soon, or for octet (binary) mode")]
    NetasciiFull,
    #[error("as many transfers as this server takes ({0}) are under way: ask again soon")]
    Busy(usize),
    #[error("as many transfers as one address may have ({0}) are under way")]
    TooMany(usize),
    #[error("answers of {0} bytes to this address wait for a first acknowledgement: no more now")]
    Unanswered(usize),
    #[error("the same request again, too soon or too often to be answered once more")]
    Repeated,
    #[error("no transfer of this port's")]
    Stranger,
    #[error("an ERROR that belongs to no transfer: {0} {1}")]
    StrayError(u16, String),
    #[error("an acknowledgement that came after its transfer's end")]
    Late,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl crate::model::Why for Why {
    fn name(&self) -> &'static str {
        match self {
            Why::Short(_) => "short",
            Why::Opcode(_) => "unknown-opcode",
            Why::NotARequest(_) => "not-a-request",
            Why::NotAnAnswer(_) => "not-an-answer",
            Why::Write => "write",
            Why::Unended => "unended",
            Why::NoName => "no-name",
            Why::LongName(_) => "long-name",
            Why::NameBytes => "name-bytes",
            Why::Mode(_) => "mode",
            Why::Netascii(_) => "netascii",
            Why::NetasciiFull => "netascii-full",
            Why::Busy(_) => "busy",
            Why::TooMany(_) => "too-many",
            Why::Unanswered(_) => "unanswered",
            Why::Repeated => "repeated",
            Why::Stranger => "stranger",
            Why::StrayError(..) => "stray-error",
            Why::Late => "late",
            Why::Refused(refusal) => match refusal.code {
                Code::NotFound => "not-found",
                Code::Access => "access",
                _ => "refused",
            },
        }
    }
}

impl Why {
    /// The ERROR for the sender; `None` is silence. Never an ERROR for an ERROR: two servers
    /// would talk for ever. Nor one for a request too many of an address that answers nothing: it
    /// may know nothing of them.
    pub fn code(&self) -> Option<Code> {
        match self {
            Why::Short(_) | Why::StrayError(..) | Why::Late => None,
            Why::Unanswered(_) | Why::Repeated => None,
            Why::Opcode(_) | Why::NotARequest(_) | Why::NotAnAnswer(_) => Some(Code::Illegal),
            Why::Write => Some(Code::Access),
            Why::Unended | Why::Mode(_) => Some(Code::Illegal),
            Why::NoName | Why::LongName(_) | Why::NameBytes => Some(Code::NotFound),
            Why::Netascii(_) | Why::NetasciiFull => Some(Code::Undefined),
            Why::Busy(_) | Why::TooMany(_) => Some(Code::Undefined),
            Why::Stranger => Some(Code::UnknownPort),
            Why::Refused(refusal) => Some(refusal.code),
        }
    }
}
