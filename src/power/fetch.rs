//! A BMC is asked what it can, and told what to do: Redfish by HTTP (DMTF DSP0266).
//!
//! 1. The system is read: what it takes, whether it is on.
//! 2. [`decide`] picks the order; where the system names only a place that tells what it takes, that
//!    is read first.
//! 3. The order goes out: a POST, or a PATCH with the ETag that the system came with.
//!
//! Basic authentication; where the BMC does not take that (its 401 does not offer it, as when
//! `HTTPBasicAuth` is switched off), a session, which is ended behind the order: BMCs have few.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use super::decide::{Step, step};
use super::wire::{self, System};
use super::{Action, Said, Trouble, distrust};
use crate::model::Hidden;
use crate::model::event::plain;

const CONNECT: Duration = Duration::from_secs(5);
/// Of one request; BMCs are slow.
const PATIENCE: Duration = Duration::from_secs(15);
/// Of all of them.
const ALL: Duration = Duration::from_secs(75);
/// The most that a BMC's answer may have, in bytes.
const ANSWER: usize = 1 << 20;
/// DSP0266, "Session login".
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const TOKEN: &str = "x-auth-token";

pub(super) struct Bmc<'a> {
    client: Client,
    system: Url,
    host: String,
    login: Option<(&'a str, &'a Hidden)>,
    session: Option<Session>,
}

struct Session {
    token: HeaderValue,
    /// Where it is ended.
    at: Option<Url>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl<'a> Bmc<'a> {
    pub(super) fn new(
        url: &str,
        login: Option<(&'a str, &'a Hidden)>,
        insecure: bool,
    ) -> Result<Bmc<'a>, Trouble> {
        let wrong = || Trouble::Url(plain(url, 200));
        let system = Url::parse(url).map_err(|_| wrong())?;
        let host = system.host_str().ok_or_else(wrong)?.to_string();
        if !matches!(system.scheme(), "http" | "https") {
            return Err(wrong());
        }
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(PATIENCE)
            .tls_danger_accept_invalid_certs(insecure)
            .build()
            .map_err(|e| Trouble::Unreachable { host: host.clone(), why: deepest(&e) })?;
        Ok(Bmc { client, system, host, login, session: None })
    }

    pub(super) async fn act(mut self, action: Action) -> Result<Said, Trouble> {
        let said = match tokio::time::timeout(ALL, self.order(action)).await {
            Ok(said) => said,
            Err(_) => Err(self.unreachable(format!("not all of it within {} s", ALL.as_secs()))),
        };
        if let Some(Session { at: Some(at), .. }) = &self.session {
            // One that is not ended runs out by itself.
            let _ = self.send(Method::DELETE, at.clone(), None, None).await;
        }
        said
    }

    async fn order(&mut self, action: Action) -> Result<Said, Trouble> {
        let (mut system, etag) = self.system().await?;
        if let (None, Some(at)) = (&system.resets, &system.action_info) {
            let at = self.beside(at)?;
            let info = self.ask(Method::GET, at, None, None, "its ActionInfo").await?;
            system.resets = wire::resets(&info.body);
        }
        match step(action, &system)? {
            Step::Done(said) => Ok(said),
            Step::Reset(kind) => {
                let at = system.reset.as_deref().ok_or(self.garbage("it has no action Reset"))?;
                let (at, body) = (self.beside(at)?, wire::reset(kind));
                self.ask(Method::POST, at, Some(&body), None, kind).await?;
                Ok(Said::Ordered(kind))
            }
            Step::Boot(source) => self.boot(source, etag).await,
        }
    }

    /// The system, and the ETag that a change of it is to come with.
    async fn system(&mut self) -> Result<(System, Option<HeaderValue>), Trouble> {
        let answer = self.ask(Method::GET, self.system.clone(), None, None, "a look at it").await?;
        let system = System::read(&answer.body)
            .ok_or(self.garbage("its answer has no @odata.type ComputerSystem"))?;
        let written = || system.etag.as_deref().and_then(|e| HeaderValue::from_str(e).ok());
        let etag = answer.headers.get(header::ETAG).cloned().or_else(written);
        Ok((system, etag))
    }

    /// A BMC that has changed the system in between says 412, and is asked once more.
    async fn boot(
        &mut self,
        source: &'static str,
        etag: Option<HeaderValue>,
    ) -> Result<Said, Trouble> {
        let body = wire::boot_once(source);
        let patch = |bmc: &Bmc<'_>| (Method::PATCH, bmc.system.clone());
        let (method, at) = patch(self);
        match self.ask(method, at, Some(&body), etag, source).await {
            Err(Trouble::Refused { status: 412 | 428, .. }) => {
                let (_, etag) = self.system().await?;
                let (method, at) = patch(self);
                self.ask(method, at, Some(&body), etag, source).await?;
            }
            other => drop(other?),
        }
        Ok(Said::Network(source))
    }

    /// A path that the BMC named: no other host is sent its password.
    fn beside(&self, path: &str) -> Result<Url, Trouble> {
        let url = self.system.join(path).ok().filter(|u| u.origin() == self.system.origin());
        url.ok_or(self.garbage("it names a place at another host"))
    }

    /// An answer that is a success, after a login where that is wanted.
    async fn ask(
        &mut self,
        method: Method,
        at: Url,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
        order: &'static str,
    ) -> Result<Answer, Trouble> {
        let mut answer = self.send(method.clone(), at.clone(), body, etag.clone()).await?;
        if answer.status == StatusCode::UNAUTHORIZED && !offers_basic(&answer.headers) {
            self.log_in().await?;
            answer = self.send(method, at.clone(), body, etag).await?;
        }
        let host = self.host.clone();
        match answer.status {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED if self.login.is_none() => Err(Trouble::NoPassword { host }),
            StatusCode::UNAUTHORIZED => Err(Trouble::Password { host }),
            StatusCode::FORBIDDEN => Err(Trouble::Rights { host }),
            StatusCode::NOT_FOUND if at == self.system => Err(self.no_system().await),
            status => {
                let (status, message) = (status.as_u16(), wire::message(&answer.body));
                Err(Trouble::Refused { host, order, status, message })
            }
        }
    }

    async fn log_in(&mut self) -> Result<(), Trouble> {
        let host = self.host.clone();
        let (user, password) = match (self.login, &self.session) {
            (Some(login), None) => login,
            // A session that is refused is not begun again.
            (Some(_), Some(_)) => return Err(Trouble::Password { host }),
            (None, _) => return Err(Trouble::NoPassword { host }),
        };
        let body = wire::login(user, password.reveal());
        let request = self.client.post(self.beside(SESSIONS)?);
        let request = request.header(header::CONTENT_TYPE, JSON).body(body.to_string());
        let answer = self.answer(request).await?;
        let token = answer.headers.get(TOKEN).filter(|_| answer.status.is_success());
        let Some(token) = token else { return Err(Trouble::Password { host }) };
        let at = answer.headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
        let mut token = token.clone();
        token.set_sensitive(true);
        self.session = Some(Session { token, at: at.and_then(|at| self.beside(at).ok()) });
        Ok(())
    }

    /// What systems there are instead, where it tells.
    async fn no_system(&self) -> Trouble {
        let (host, path) = (self.host.clone(), plain(self.system.path(), 200));
        let all = match self.beside("/redfish/v1/Systems") {
            Ok(at) => self.send(Method::GET, at, None, None).await.ok(),
            Err(_) => None,
        };
        Trouble::NoSystem { host, path, has: all.and_then(|a| wire::members(&a.body)) }
    }

    async fn send(
        &self,
        method: Method,
        at: Url,
        body: Option<&Value>,
        etag: Option<HeaderValue>,
    ) -> Result<Answer, Trouble> {
        let mut request = self.client.request(method, at).header(header::ACCEPT, JSON);
        request = match (&self.session, self.login) {
            (Some(session), _) => request.header(TOKEN, session.token.clone()),
            (None, Some((user, password))) => request.basic_auth(user, Some(password.reveal())),
            (None, None) => request,
        };
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, JSON).body(body.to_string());
        }
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, etag);
        }
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answer, Trouble> {
        let mut response = request.send().await.map_err(|e| self.broken(&e))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&e))? {
            if bytes.len() + chunk.len() > ANSWER {
                return Err(self.garbage("its answer has no end"));
            }
            bytes.extend_from_slice(&chunk);
        }
        // Many orders are answered by nothing, and some errors by a page.
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, headers, body })
    }

    fn broken(&self, error: &reqwest::Error) -> Trouble {
        let host = self.host.clone();
        match distrust(error) {
            Some(why) => Trouble::Certificate { host, why },
            None if error.is_timeout() => self.unreachable("it takes too long".into()),
            None => self.unreachable(deepest(error)),
        }
    }

    fn unreachable(&self, why: String) -> Trouble {
        Trouble::Unreachable { host: self.host.clone(), why }
    }

    fn garbage(&self, what: &'static str) -> Trouble {
        Trouble::Garbage { host: self.host.clone(), what }
    }
}

const JSON: &str = "application/json";

/// RFC 7617: a 401 that lists its schemes, and this one among them.
fn offers_basic(headers: &HeaderMap) -> bool {
    let schemes = headers.get_all(header::WWW_AUTHENTICATE);
    schemes.iter().any(|v| v.as_bytes().to_ascii_lowercase().starts_with(b"basic"))
}

/// The last cause: reqwest says the least itself.
fn deepest(error: &dyn Error) -> String {
    let mut error = error;
    for _ in 0..16 {
        let Some(source) = error.source() else { break };
        error = source;
    }
    plain(&error.to_string(), 200)
}
