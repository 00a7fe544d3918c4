//! Who may use the admin door. On loopback anybody of this host, but no web page; further out only
//! who has a token, or a login made from one.
//!
//! 1. [`guard`] looks at each request. On loopback its Host must be loopback too: a page whose name
//!    was bound anew to 127.0.0.1 (DNS rebinding) sends its own.
//! 2. Further out a program sends `Authorization: Bearer TOKEN` (RFC 6750), a browser the cookie
//!    that [`login`] gave it.
//! 3. What changes something is from no other page: by a header that a page can only send where we
//!    let it (the preflight of the Fetch standard, which we answer with 405), or by the token of
//!    our own forms.
//! 4. [`dressed`] puts on every answer what keeps it from being framed, sniffed and stored, and
//!    tells errors of the API as JSON.
//!
//! A token is `pl_` and 32 random characters: 8 by which it is found, 24 (142 bits) that are
//! proved by argon2. Wrong ones cost their address a pause ([`tries`]).

mod keys;
mod tries;

use std::fmt;
use std::net::IpAddr;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::cookie::time::Duration as CookieTime;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{Refusal, read};
use super::error::No;
use super::{Web, query};
use crate::model::Why;

pub use keys::{Auth, Listed};

/// RFC 6265bis section 4.1.3.2: by this name a browser takes it from nobody but us, by HTTPS.
const COOKIE: &str = "__Host-pilotlight";
/// The header that no page of another origin can send unasked.
const HEADER: &str = "pilotlight";
/// The field of our own forms that carries [`form_token`].
pub const FIELD: &str = "csrf";
/// Pages come from here alone, and are framed by nobody.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' \
                      data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

/// From where an admin door is reached, among what its handlers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This host alone, by plain HTTP: no credential is asked for.
    Loopback,
    /// Everywhere, by HTTPS.
    Beyond,
}

impl Reach {
    pub fn of(tls: bool) -> Reach {
        if tls { Reach::Beyond } else { Reach::Loopback }
    }

    /// Without a word on it: the strict one.
    fn asked(req: &HttpRequest) -> Reach {
        req.app_data::<Reach>().copied().unwrap_or(Reach::Beyond)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// Somebody of this host, by the door that is on loopback.
    Loopback,
    /// A program with the token of this name.
    Token(String),
    /// A browser that has logged in with the token of this name.
    Session { token: String, id: [u8; 32] },
    /// Nobody yet: who wants to log in.
    Stranger,
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Visitor::Loopback => f.write_str("somebody on this host"),
            Visitor::Token(name) => write!(f, "token {name}"),
            Visitor::Session { token, .. } => write!(f, "a browser with token {token}"),
            Visitor::Stranger => f.write_str("somebody"),
        }
    }
}

impl Visitor {
    /// As `/api/v1/me` has it.
    pub fn shown(&self) -> Value {
        let (by, token) = match self {
            Visitor::Loopback => ("loopback", None),
            Visitor::Token(name) => ("token", Some(name)),
            Visitor::Session { token, .. } => ("session", Some(token)),
            Visitor::Stranger => ("nothing", None),
        };
        json!({ "by": by, "token": token })
    }
}

/// Who asks, as [`guard`] has found.
pub fn visitor(req: &HttpRequest) -> Visitor {
    req.extensions().get::<Visitor>().cloned().unwrap_or(Visitor::Stranger)
}

/// What a form of ours carries in its field [`FIELD`].
pub fn form_token(req: &HttpRequest) -> String {
    let web = req.app_data::<web::Data<Web>>();
    web.map(|web| web.auth.form_token(&visitor(req))).unwrap_or_default()
}

/// Lets a request in, or says why not.
pub async fn guard<B: MessageBody + 'static>(
    mut req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let Some(web) = req.app_data::<web::Data<Web>>().cloned() else {
        return Ok(refused(req, Refusal::Busy));
    };
    let visitor = match known(&req, &web).await {
        Ok(visitor) => visitor,
        Err(Refusal::Credential) if is_page(&req) => {
            let mut to_login = HttpResponse::SeeOther();
            to_login.insert_header((header::LOCATION, "/login"));
            return Ok(req.into_response(to_login.finish()).map_into_right_body());
        }
        Err(why) => return Ok(refused(req, why)),
    };
    if !matches!(*req.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && let Err(why) = unforged(&mut req, &web, &visitor).await
    {
        return Ok(refused(req, why));
    }
    req.extensions_mut().insert(visitor);
    next.call(req).await.map(ServiceResponse::map_into_left_body)
}

fn refused<B>(req: ServiceRequest, why: Refusal) -> ServiceResponse<EitherBody<B>> {
    req.error_response(No::Api(why)).map_into_right_body()
}

/// A person in front of a browser, who can be sent to the login.
fn is_page(req: &ServiceRequest) -> bool {
    let wants = req.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    req.method() == Method::GET && wants.contains("text/html") && !req.path().starts_with("/api/")
}

/// What a stranger may see: the way in, and whether anybody is there.
fn is_open(path: &str) -> bool {
    matches!(path, "/login" | "/healthz") || path.starts_with("/assets/")
}

async fn known(req: &ServiceRequest, web: &Web) -> Result<Visitor, Refusal> {
    if Reach::asked(req.request()) == Reach::Loopback {
        return match is_loopback(req) {
            true => Ok(Visitor::Loopback),
            false => Err(Refusal::Host),
        };
    }
    let now = Timestamp::now();
    let said = req.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if let Some(token) = said.and_then(|v| v.strip_prefix(b"Bearer ")) {
        let token = String::from_utf8_lossy(token).into_owned();
        let name = web.auth.prove(token, address(req.request()), now).await?;
        return Ok(Visitor::Token(name));
    }
    if let Some(cookie) = req.cookie(COOKIE)
        && let Some(visitor) = web.auth.session(cookie.value(), now)
    {
        return Ok(visitor);
    }
    match is_open(req.path()) {
        true => Ok(Visitor::Stranger),
        false => Err(Refusal::Credential),
    }
}

/// Who is counted for wrong tokens.
fn address(req: &HttpRequest) -> IpAddr {
    req.peer_addr().map_or(IpAddr::from([0; 4]), |peer| peer.ip())
}

/// Both places where a name can stand (RFC 9112 section 3.2.2).
fn is_loopback(req: &ServiceRequest) -> bool {
    let host = req.headers().get(header::HOST).and_then(|v| v.to_str().ok());
    host.is_some_and(loopback) && req.uri().authority().is_none_or(|a| loopback(a.as_str()))
}

/// Whether `HOST[:PORT]` is an address of loopback, or `localhost`.
fn loopback(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority().filter(|a| !a.as_str().contains('@')) else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a request that changes something comes from where it says.
async fn unforged(req: &mut ServiceRequest, web: &Web, visitor: &Visitor) -> Result<(), Refusal> {
    let text = |name: &str| req.headers().get(name).and_then(|v| v.to_str().ok());
    // Fetch Metadata: no page can set it.
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(Refusal::OtherOrigin);
    }
    // `null` is what a browser says for our own pages, since they send no referrer.
    let origin = text("origin").filter(|o| *o != "null");
    let ours = || text("host").unwrap_or("");
    if origin.is_some_and(|o| o.split_once("://").is_none_or(|(_, host)| host != ours())) {
        return Err(Refusal::OtherOrigin);
    }
    // No browser adds a token by itself, and a login has its own.
    if matches!(visitor, Visitor::Token(_)) || req.path() == "/login" {
        return Ok(());
    }
    if text(HEADER).is_some_and(|v| matches!(v, "1" | "cache")) {
        return Ok(());
    }
    let kind = text("content-type").unwrap_or("");
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::Forged);
    }
    let body = req.extract::<web::Payload>().await.map_err(|_| Refusal::Stalled)?;
    let body = read::bytes(body).await?;
    let token = query::field(&body, FIELD).ok_or(Refusal::Forged)?;
    let (_, mut again) = actix_http::h1::Payload::create(true);
    again.unread_data(body);
    req.set_payload(Payload::from(again));
    match keys::same(token.as_bytes(), web.auth.form_token(visitor).as_bytes()) {
        true => Ok(()),
        false => Err(Refusal::Forged),
    }
}

/// `POST /login` with the field `token`: a session, always a new one.
pub async fn login(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let mut answer = HttpResponse::SeeOther();
    answer.insert_header((header::LOCATION, "/"));
    if Reach::asked(&req) == Reach::Loopback {
        return Ok(answer.finish());
    }
    let body = read::bytes(body).await?;
    let token = query::field(&body, "token").unwrap_or_default();
    let now = Timestamp::now();
    let name = web.auth.prove(token.trim().into(), address(&req), now).await?;
    if let Visitor::Session { id, .. } = visitor(&req) {
        web.auth.close(&id);
    }
    let value = web.auth.open_session(&name, now);
    tracing::info!(target: "pilotlight", "a browser at {} has logged in with token {name}", address(&req));
    Ok(answer.cookie(cookie(value, keys::SESSION_LIFE.as_secs())).finish())
}

/// `POST /logout`
pub async fn logout(req: HttpRequest, web: web::Data<Web>) -> HttpResponse {
    if let Visitor::Session { id, .. } = visitor(&req) {
        web.auth.close(&id);
    }
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, "/login"))
        .cookie(cookie(String::new(), 0))
        .finish()
}

fn cookie(value: String, seconds: i64) -> Cookie<'static> {
    Cookie::build(COOKIE, value)
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .max_age(CookieTime::seconds(seconds))
        .finish()
}

/// Puts on an answer of the admin door what every one has.
pub async fn dressed<B: MessageBody + 'static>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let api = req.path().starts_with("/api/v1");
    let answer = next.call(req).await?;
    let mut answer = match api {
        true => as_json(answer),
        false => answer.map_into_left_body(),
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Files that have their digest in their name may be kept, and say so.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(answer)
}

/// An error, whoever made it, as the API tells errors.
fn as_json<B>(answer: ServiceResponse<B>) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return answer.map_into_left_body();
    }
    let (name, message) = match answer.response().error().and_then(|e| e.as_error::<No>()) {
        Some(no) => (no.name(), no.to_string()),
        None => of_status(status),
    };
    let mut new = HttpResponse::build(status);
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::ALLOW] {
        if let Some(value) = answer.headers().get(&name) {
            new.insert_header((name, value.clone()));
        }
    }
    let new = new.json(json!({ "error": { "name": name, "message": message } }));
    answer.into_response(new).map_into_right_body()
}

/// What the HTTP library itself refuses.
fn of_status(status: StatusCode) -> (&'static str, String) {
    let name = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "body-too-large",
        StatusCode::NOT_FOUND => "no-such-page",
        StatusCode::METHOD_NOT_ALLOWED => "method",
        s if s.is_client_error() => "bad-request",
        _ => "trouble",
    };
    (name, status.canonical_reason().unwrap_or("this is not done").to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_loopback() {
        for host in
            ["127.0.0.1", "127.0.0.1:8067", "localhost", "LOCALHOST:1", "[::1]:8067", "127.9.9.9"]
        {
            assert!(loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.1:8067",
            "a@localhost",
            "127.0.0.1@evil.example",
            "localhost.",
            "[::2]",
            "0.0.0.0",
            "::1/x",
            "evil.example/localhost",
        ] {
            assert!(!loopback(host), "{host}");
        }
    }
}
