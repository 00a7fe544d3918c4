//! Every refusal of the web door: a name, a sentence, a status.

use std::fmt;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError, web};
use jiff::Timestamp;

use super::api::Refusal;
use super::plane::Conn;
use super::{Web, local};
use crate::boot::RenderError;
use crate::boot::decide::Because;
use crate::ipxe::NoLoader;
use crate::ledger::NotDone;
use crate::media::{Missing, Refused};
use crate::mirror;
use crate::model::diagnosis::UNMADE;
use crate::model::event::plain;
use crate::model::{Mac, Why};

/// Why a request gets no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum No {
    #[error("there is nothing here; machines find their way from /boot.ipxe")]
    NoSuchPage,
    #[error("this address takes GET and HEAD only, or POST where a report goes")]
    Method,
    #[error("{0}")]
    Mac(#[from] crate::model::mac::MacError),
    #[error(
        "this boot is not known, or it is over: boot the machine again, so that it gets a new script"
    )]
    NoBoot,
    #[error("what was made for one machine is for no other address")]
    SecondReader,
    #[error("a report comes from the machine itself")]
    Forged,
    #[error("{mac} is at {has} by DHCP, and {asks} says to be it: two machines with one MAC?")]
    MacTwice { mac: Mac, has: String, asks: String },
    #[error(
        "{mac} had the UUID {had} when it was installed, and now {has}: if it is meant to be \
         another machine, `pilotlight machine reinstall` takes it"
    )]
    UuidChanged { mac: Mac, had: String, has: String },
    #[error(
        "{mac} has the UUID {uuid} of {other}, which is {state}: the same machine by another card, or \
         with one. `pilotlight machine reinstall {mac}` installs it all the same"
    )]
    UuidTwice { mac: Mac, uuid: String, other: Mac, state: &'static str },
    #[error(
        "no DHCP of {0} was seen here, so nobody can tell that it is the one: let its DHCP reach this \
         server too (a relay's second address), or set [dhcp] mode = \"off\" where another server \
         names us"
    )]
    NoLease(Mac),
    #[error(
        "it has {has} MiB of memory, and {title} needs {needs}: its installer would stop in the middle \
         of its start. Give it more, or another profile"
    )]
    Memory { title: String, needs: u64, has: u64 },
    #[error("what profile {0} installs cannot be read now: {1}")]
    Unready(String, String),
    #[error(
        "{0} can be started by BIOS alone, and this machine has booted by UEFI: switch it to BIOS boot \
         (legacy, CSM) in its setup, or give it another profile"
    )]
    BiosOnly(String),
    #[error(
        "{mac} did not say the UUID {uuid} by DHCP (option 97), by which it is declared: `mac` in its \
         [[machine]] tells it by its card"
    )]
    UuidUnsaid { mac: Mac, uuid: String },
    #[error(
        "{0:?} is no word that counts: report/done says that it is installed, report/failed that it \
         is not"
    )]
    Word(String),
    #[error("{0}")]
    Life(#[from] NotDone),
    #[error("there is no profile {0:?}: its image is gone, or its name has changed")]
    Gone(String),
    #[error("the configuration no longer has profile {0}: boot the machine again")]
    NoProfile(String),
    #[error("profile {0} has no answer {1:?}")]
    NoAnswer(String, String),
    #[error("{UNMADE}{0} cannot be made: {1}")]
    Unmade(String, Box<No>),
    #[error("{0}")]
    Second(String),
    #[error("there is no [[files]] or [[media]] named {0:?}")]
    NoFolder(String),
    #[error("this travels by HTTPS only: {0}")]
    HttpsOnly(String),
    #[error("no such machine has been seen")]
    NoMachine,
    #[error("the report is larger than 64 KiB")]
    TooLarge,
    #[error("the report did not arrive within 10 s")]
    Stalled,
    #[error("too many others are being served just now; ask again")]
    Slow,
    #[error(
        "profile {0}: its templates and files take more than 2 s; it is not tried again until the \
         configuration changes"
    )]
    Endless(String),
    #[error("{0}")]
    File(#[from] Refused),
    #[error("{0}")]
    Missing(#[from] Missing),
    #[error("{0}")]
    Loader(#[from] NoLoader),
    #[error("{0}")]
    Render(#[from] RenderError),
    #[error("{0}")]
    Decided(Because),
    #[error("{0}")]
    Mirror(#[from] mirror::No),
    #[error("{0}")]
    Api(#[from] Refusal),
    #[error("this server's configuration has no profile {0:?}")]
    NoSuchProfile(String),
    #[error("nothing was fetched for profile {0} since this server started: POST begins it")]
    NotOrdered(String),
    #[error("the body is a JSON list of texts, each MIRROR/PATH, at most 5000; or there is none")]
    NoFiles,
    #[error("the form is not one of these pages', or is larger than 4 KiB: nothing was done")]
    Form,
    #[error("{} pages are kept up to date already: close one", super::pages::STREAMS)]
    Watchers,
    #[error("this page cannot be made: {0}")]
    Page(String),
}

impl Why for No {
    fn name(&self) -> &'static str {
        match self {
            No::NoSuchPage => "no-such-page",
            No::Method => "method",
            No::Mac(_) => "no-mac",
            No::NoBoot => "no-boot",
            No::SecondReader => "second-reader",
            No::Forged => "forged-report",
            No::MacTwice { .. } => "mac-twice",
            No::UuidChanged { .. } => "uuid-changed",
            No::UuidTwice { .. } => "uuid-twice",
            No::NoLease(_) => "no-lease",
            No::Memory { .. } => "too-little-memory",
            No::Unready(..) => "medium-unready",
            No::BiosOnly(_) => "bios-only",
            No::UuidUnsaid { .. } => "uuid-unsaid",
            No::Word(_) => "no-such-word",
            No::Life(why) => why.name(),
            No::NoProfile(_) => "profile-gone",
            No::NoAnswer(..) => "no-answer",
            No::Unmade(..) => "answer-failed",
            No::Second(_) => "second-reader",
            No::NoFolder(_) => "no-folder",
            No::HttpsOnly(_) => "https-only",
            No::NoMachine => "no-machine",
            No::TooLarge => "report-too-large",
            No::Stalled => "report-stalled",
            No::Slow => "slow",
            No::Endless(_) => "endless",
            No::File(why) => why.name(),
            No::Missing(why) => why.name(),
            No::Loader(why) => why.name(),
            No::Render(why) => why.name(),
            No::Decided(why) => why.name(),
            No::Gone(_) => "profile-gone",
            No::Mirror(why) => why.name(),
            No::Api(why) => why.name(),
            No::NoSuchProfile(_) => "no-such-profile",
            No::NotOrdered(_) => "not-ordered",
            No::NoFiles => "no-files",
            No::Form => "form",
            No::Watchers => "too-many-watchers",
            No::Page(_) => "page",
        }
    }

    fn is_everyday(&self) -> bool {
        match self {
            No::Mirror(why) => why.is_everyday(),
            No::Decided(why) => why.is_everyday(),
            _ => false,
        }
    }
}

impl ResponseError for No {
    fn status_code(&self) -> StatusCode {
        match self {
            No::Watchers => StatusCode::SERVICE_UNAVAILABLE,
            No::Page(_) => StatusCode::INTERNAL_SERVER_ERROR,
            No::Form | No::Word(_) => StatusCode::BAD_REQUEST,
            No::Mac(_) | No::NoFiles | No::File(Refused::Outside | Refused::BadName) => {
                StatusCode::BAD_REQUEST
            }
            // Not a redirect: who follows one has said its token in the clear, and would again.
            No::HttpsOnly(_)
            | No::SecondReader
            | No::Second(_)
            | No::Forged
            | No::MacTwice { .. }
            | No::UuidChanged { .. }
            | No::UuidTwice { .. }
            | No::NoLease(_)
            | No::UuidUnsaid { .. }
            | No::Decided(Because::Ignored) => StatusCode::FORBIDDEN,
            No::Life(NotDone::Refused(_)) => StatusCode::CONFLICT,
            No::Life(_) => StatusCode::SERVICE_UNAVAILABLE,
            No::Method => StatusCode::METHOD_NOT_ALLOWED,
            No::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            No::Stalled => StatusCode::REQUEST_TIMEOUT,
            No::Slow | No::File(Refused::Changed(_)) => StatusCode::SERVICE_UNAVAILABLE,
            No::File(Refused::NotThere | Refused::NotAFile) => StatusCode::NOT_FOUND,
            No::Unmade(..) | No::Endless(_) | No::Render(_) | No::File(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            No::Mirror(no) => of_mirror(no),
            No::Api(why) => why.status(),
            No::Loader(NoLoader::Unreadable(..)) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::NOT_FOUND,
        }
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut answer = HttpResponse::build(self.status_code());
        answer.content_type("text/plain; charset=utf-8");
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            // iPXE waits that long and comes back by itself.
            answer.insert_header((header::RETRY_AFTER, "5"));
        }
        if let No::Api(why) = self {
            if let Some(seconds) = why.retry_after() {
                answer.insert_header((header::RETRY_AFTER, seconds));
            }
            if matches!(why, Refusal::Credential | Refusal::WrongToken) {
                // RFC 6750 section 3.
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
        }
        answer.body(format!("{self}\n"))
    }
}

/// RFC 9110 section 15: who is at fault is told by the status.
fn of_mirror(no: &mirror::No) -> StatusCode {
    use mirror::No::*;
    match no {
        NoMirror(_) | NotThere(..) | NotListed(..) => StatusCode::NOT_FOUND,
        Path(_) | Query(_) => StatusCode::BAD_REQUEST,
        Offline(..) | Upstream(mirror::fetch::Trouble::Silent { .. }) => {
            StatusCode::GATEWAY_TIMEOUT
        }
        Upstream(_) | Digest { .. } | Fault { .. } | Older { .. } | Unkept => {
            StatusCode::BAD_GATEWAY
        }
        Keys { .. } | Disk(_) | NoRoom | Large => StatusCode::INTERNAL_SERVER_ERROR,
        Busy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A refusal with what was asked for, for the log.
struct Asked<'a> {
    req: &'a HttpRequest,
    no: &'a No,
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.req.method(), plain(self.req.path(), 120), self.no)
    }
}

impl Why for Asked<'_> {
    fn name(&self) -> &'static str {
        self.no.name()
    }

    fn is_everyday(&self) -> bool {
        self.no.is_everyday()
    }
}

/// The one place where refusals are counted and logged.
pub async fn counted(
    req: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let answer = next.call(req).await?;
    let req = answer.request();
    if let Some(no) = answer.response().error().and_then(|e| e.as_error::<No>())
        && let Some(web) = req.app_data::<web::Data<Web>>()
    {
        web.ledger.refused("http", web.machine_of(req), &Asked { req, no }, Timestamp::now());
    }
    Ok(answer)
}

/// Keeps a machine's own script and files from travelling in the clear where HTTPS is on.
pub async fn by_https<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    match in_the_clear(req.request()) {
        None => next.call(req).await.map(ServiceResponse::map_into_left_body),
        Some(no) => Ok(req.error_response(no).map_into_right_body()),
    }
}

/// The refusal of a request that came by HTTP where HTTPS is on, with the URL that is right.
pub fn in_the_clear(req: &HttpRequest) -> Option<No> {
    let web = req.app_data::<web::Data<Web>>().filter(|web| web.door.tls)?;
    if req.conn_data::<Conn>().is_some_and(|conn| conn.secure) {
        return None;
    }
    let base = web.urls(local(req), "").base;
    Some(No::HttpsOnly(format!("{base}{}", plain(req.path(), 200))))
}
