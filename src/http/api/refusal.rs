//! Why the admin door does not do what it is asked.

use actix_web::http::StatusCode;

use crate::config::{self, Config};
use crate::ledger::NotDone;
use crate::model::event::plain;
use crate::model::mac::MacError;
use crate::model::{Mac, Why};
use crate::store;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no machine {0:?} is declared or known; /api/v1/machines lists those that are")]
    NoMachine(String),
    #[error("{0}: no machine has a colon in its name")]
    NoMac(#[from] MacError),
    #[error("the configuration has no profile {name:?}: {has}")]
    NoProfile { name: String, has: String },
    #[error("no profile is known for this machine; name one by `profile`")]
    ProfileWanted,
    #[error(
        "there is no rescue system; `[life] rescue` names one in the configuration, or `profile` \
         here"
    )]
    NoRescue,
    #[error(
        "{0:?} is no name for a machine: letters, digits, hyphens and dots, at most 63, and no MAC"
    )]
    Name(String),
    #[error("another machine, {1}, has the name {0:?} already")]
    NameTaken(String, Mac),
    #[error(
        "the configuration declares {0} with profile {1}: forgotten, it would be installed at its \
         next boot from the network, and its disk wiped. Take it out of the configuration first; or \
         if it is to be installed, `pilotlight machine reinstall` does that, and if not, \
         `pilotlight machine local`"
    )]
    WouldInstall(Mac, String),
    #[error("{0}")]
    NotDone(#[from] NotDone),
    #[error("a body is JSON, and says so by `content-type: application/json`")]
    Type,
    #[error("the body is no JSON: {0}")]
    Syntax(String),
    #[error("the body does not say what is wanted here: {0}")]
    Body(String),
    #[error("the body is larger than 64 KiB")]
    TooLarge,
    #[error("the body did not arrive within 10 s")]
    Stalled,
    #[error("the query is not understood: {0}")]
    Query(String),
    #[error("nothing here can switch machines")]
    NoPower,
    #[error("the machine was not switched: {0}")]
    Power(crate::power::Trouble),
    #[error("{0} listen to events already, and no more can: close one")]
    Listeners(usize),
    #[error(
        "this door wants a credential; it takes the header `authorization: Bearer TOKEN`, or a login \
         in the browser (`pilotlight token make NAME` on the server itself makes a token)"
    )]
    Credential,
    #[error("this token is not, or no longer, valid")]
    WrongToken,
    #[error("too many wrong tokens came from this address: try again in {0} s")]
    Pause(u64),
    #[error(
        "without a credential this door answers only to an address of its own loopback: \
         http://127.0.0.1, http://[::1] or http://localhost"
    )]
    Host,
    #[error(
        "a request that changes something carries the header `pilotlight: 1`, or the form token of \
         a page of ours; reload the page, and try again"
    )]
    Forged,
    #[error("another page's request is not done")]
    OtherOrigin,
    #[error("{0:?} is no name for a token: a-z, 0-9, hyphens, dots and underscores, at most 40")]
    TokenName(String),
    #[error("there is a token {0:?} already: revoke it first, or take another name")]
    TokenTaken(String),
    #[error("there are {0} tokens, and no more are made: revoke one")]
    Tokens(usize),
    #[error("there is no token {0:?}; /api/v1/tokens lists those there are")]
    NoToken(String),
    #[error("tokens cannot be kept: {0}")]
    Store(#[from] store::Error),
    #[error("too much is asked at once; ask again")]
    Busy,
}

impl Why for Refusal {
    fn name(&self) -> &'static str {
        match self {
            Refusal::NoMachine(_) => "no-machine",
            Refusal::NoMac(_) => "no-mac",
            Refusal::NoProfile { .. } => "no-such-profile",
            Refusal::ProfileWanted => "profile-wanted",
            Refusal::NoRescue => "no-rescue",
            Refusal::Name(_) => "bad-name",
            Refusal::NameTaken(..) => "name-taken",
            Refusal::WouldInstall(..) => "would-install",
            Refusal::NotDone(why) => why.name(),
            Refusal::Type => "content-type",
            Refusal::Syntax(_) => "body-syntax",
            Refusal::Body(_) => "body-content",
            Refusal::TooLarge => "body-too-large",
            Refusal::Stalled => "body-stalled",
            Refusal::Query(_) => "query",
            Refusal::NoPower => "no-power",
            Refusal::Power(why) => why.name(),
            Refusal::Listeners(_) => "too-many-listeners",
            Refusal::Credential => "credential",
            Refusal::WrongToken => "wrong-token",
            Refusal::Pause(_) => "too-many-tries",
            Refusal::Host => "other-host",
            Refusal::Forged => "forged",
            Refusal::OtherOrigin => "other-origin",
            Refusal::TokenName(_) => "bad-token-name",
            Refusal::TokenTaken(_) => "token-taken",
            Refusal::Tokens(_) => "too-many-tokens",
            Refusal::NoToken(_) => "no-token",
            Refusal::Store(_) => "store-unwritable",
            Refusal::Busy => "busy",
        }
    }
}

/// Profiles that a refusal names.
const PROFILES: usize = 20;

impl Refusal {
    /// For a word that is no machine's name: what has a colon is meant for a MAC.
    pub fn no_machine(who: &str) -> Refusal {
        match who.parse::<Mac>() {
            Err(why) if who.contains(':') => Refusal::NoMac(why),
            _ => Refusal::NoMachine(plain(who, 80)),
        }
    }

    /// For a word that is no profile's name: what it was likely meant for, and what there is.
    pub fn no_profile(config: &Config, name: &str) -> Refusal {
        let names = || config.profiles.iter().map(|p| p.name.as_str());
        let mut has = match config::nearest(name, names()) {
            Some(near) => format!("did you mean {near:?}? "),
            None => String::new(),
        };
        let shown: Vec<&str> = names().take(PROFILES).collect();
        has += &match (shown.len(), config.profiles.len()) {
            (0, _) => "it has none at all".into(),
            (some, all) if some < all => {
                format!("it has {}, and {} more", shown.join(", "), all - some)
            }
            _ => format!("it has {}", shown.join(", ")),
        };
        Refusal::NoProfile { name: plain(name, 80), has }
    }

    /// RFC 9110 section 15.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::NoMachine(_) | Refusal::NoToken(_) => StatusCode::NOT_FOUND,
            Refusal::NoProfile { .. }
            | Refusal::ProfileWanted
            | Refusal::NoRescue
            | Refusal::Name(_)
            | Refusal::TokenName(_)
            | Refusal::Body(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::NameTaken(..)
            | Refusal::TokenTaken(_)
            | Refusal::Tokens(_)
            | Refusal::WouldInstall(..)
            | Refusal::NotDone(NotDone::Refused(_)) => StatusCode::CONFLICT,
            Refusal::NoMac(_) | Refusal::Syntax(_) | Refusal::Query(_) => StatusCode::BAD_REQUEST,
            Refusal::Type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Stalled => StatusCode::REQUEST_TIMEOUT,
            Refusal::NoPower => StatusCode::NOT_IMPLEMENTED,
            Refusal::Power(_) => StatusCode::BAD_GATEWAY,
            Refusal::Credential | Refusal::WrongToken => StatusCode::UNAUTHORIZED,
            Refusal::Pause(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Host | Refusal::Forged | Refusal::OtherOrigin => StatusCode::FORBIDDEN,
            Refusal::NotDone(_) | Refusal::Store(_) | Refusal::Busy | Refusal::Listeners(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Seconds after which it is worth another try.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Refusal::Pause(seconds) => Some(*seconds),
            why => (why.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(5),
        }
    }
}
