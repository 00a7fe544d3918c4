//! The client side: one request to one URL of a mirror, with its redirects.
//!
//! 1. A place among the connections to the mirror's hosts.
//! 2. The request; addresses that a name resolves to are looked at before any is connected to.
//! 3. Redirects, each judged by [`wire::target`].
//! 4. The head of the answer, as [`Head`]; its body follows by [`Body::chunk`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::No;
use super::record::About;
use super::upstream::Ranks;
use super::wire::{self, ContentRange, Ident, MirrorPath, Target, content_range};
use crate::config;
use crate::model::address::is_public;

const CONNECT: Duration = Duration::from_secs(5);
/// For the head of an answer, and between two pieces of its body.
pub const PATIENCE: Duration = Duration::from_secs(20);
const REDIRECTS: usize = 5;
/// Answers that go straight through at once.
const PASSES: usize = 256;
/// Header lines of an answer.
const HEADERS: usize = 100;
const AGENT: &str = concat!("pilotlight/", env!("CARGO_PKG_VERSION"));

/// Why one request brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("{url}: {why}")]
    Unreachable { url: String, why: String },
    #[error("{url}: no answer within 20 s")]
    Silent { url: String },
    #[error("{url} is at a private address: private = true allows that for the mirror's own URLs")]
    Private { url: String },
    #[error("{from} redirects to {to}, which is not among the mirror's `urls` and `redirects`")]
    Redirect { from: String, to: String },
    #[error("{url}: more than 5 redirects")]
    Redirects { url: String },
    #[error("{url}: it answers {status}")]
    Status { url: String, status: u16, retry_after: Option<u64> },
    #[error("{url}: the answer does not fit the request: {what}")]
    Garbage { url: String, what: &'static str },
    #[error("{url}: the body ended after {got} bytes: {why}")]
    Cut { url: String, got: u64, why: String },
    #[error("{url}: what is there has changed meanwhile")]
    Changed { url: String },
}

impl Trouble {
    /// Whether the file is simply not there.
    pub fn is_absence(&self) -> bool {
        matches!(self, Trouble::Status { status: 404 | 410, .. })
    }

    /// Whether it may be there by another name.
    pub fn is_of_the_name(&self) -> bool {
        self.is_absence() || matches!(self, Trouble::Changed { .. })
    }

    /// Whether asking the same URL once more would bring the same.
    pub fn is_final(&self) -> bool {
        match self {
            Trouble::Unreachable { .. } | Trouble::Silent { .. } | Trouble::Cut { .. } => false,
            Trouble::Status { status, .. } => !matches!(status, 408 | 425 | 429 | 500..),
            Trouble::Private { .. }
            | Trouble::Redirect { .. }
            | Trouble::Redirects { .. }
            | Trouble::Garbage { .. }
            | Trouble::Changed { .. } => true,
        }
    }

    /// How long to wait before it: what the server asks for, up to `limit` seconds, or `pause`.
    pub fn pause(&self, pause: Duration, limit: u64) -> Duration {
        match self {
            Trouble::Status { retry_after: Some(seconds), .. } if *seconds <= limit => {
                Duration::from_secs(*seconds)
            }
            _ => pause,
        }
    }
}

/// The URLs of one mirror and how they do.
pub struct Upstreams {
    pub mirror: config::Mirror,
    client: Client,
    /// For redirects away from the declared URLs, where those may be private.
    strangers: Option<Client>,
    /// To the host of each URL; the same for those of one host.
    places: Vec<Arc<Semaphore>>,
    passes: Arc<Semaphore>,
    ranks: Mutex<Ranks>,
}

/// One connection, until it is dropped.
pub struct Place(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Get {
    /// From this byte on.
    pub from: u64,
    /// To this one, exclusive; `None` is to the end.
    pub to: Option<u64>,
    /// What the bytes must belong to: If-Range.
    pub ident: Option<Ident>,
    /// Whether a digest will judge the bytes: then only sizes must agree.
    pub digest: bool,
    /// Conditions and the like, as they are.
    pub headers: HeaderMap,
    pub head: bool,
    /// Whether an answer of any status is one: there is nobody else to ask.
    pub any: bool,
}

/// The head of an answer of 200, 206, 304 or, where it is the answer, something else.
#[derive(Debug)]
pub struct Head {
    pub url: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub ident: Ident,
    /// Where the body begins in the whole.
    pub from: u64,
    /// Where it ends, if it was said.
    pub to: Option<u64>,
}

/// The body of an answer; holds the connection's place.
pub struct Body {
    response: reqwest::Response,
    url: String,
    got: u64,
    want: Option<u64>,
    _place: Place,
}

/// Looks a name up, and leaves out what is at home.
struct Public {
    /// Hosts of the declared URLs, where those may be private.
    private: Vec<String>,
}

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_string();
        let may = self.private.contains(&host);
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let fit: Vec<SocketAddr> =
                all.iter().copied().filter(|at| may || is_public(at.ip())).collect();
            if fit.is_empty() && !all.is_empty() {
                return Err(Box::from(AT_HOME));
            }
            let fit: Addrs = Box::new(fit.into_iter());
            Ok(fit)
        })
    }
}

/// What [`Public`] says of a name whose addresses are all private.
const AT_HOME: &str = "its name leads to a private address";

impl Upstreams {
    /// # Errors
    /// A sentence, where the TLS library finds no roots.
    pub fn new(mirror: config::Mirror) -> Result<Upstreams, String> {
        let hosts = mirror.urls.iter().filter_map(|url| Url::parse(url).ok());
        let hosts: Vec<String> = hosts.filter_map(|u| u.host_str().map(Into::into)).collect();
        let private = if mirror.private { hosts } else { Vec::new() };
        let client = |private| {
            Client::builder()
                .user_agent(AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT)
                .read_timeout(PATIENCE)
                .pool_max_idle_per_host(mirror.connections)
                .http1_max_headers(HEADERS)
                .dns_resolver(Public { private })
                .build()
                .map_err(|e| chain(&e))
        };
        let strangers = if private.is_empty() { None } else { Some(client(Vec::new())?) };
        let client = client(private)?;
        let mut hosts = HashMap::new();
        let new = || Arc::new(Semaphore::new(mirror.connections.max(1)));
        let places = mirror.urls.iter().map(|url| {
            let host = Url::parse(url).ok().map(|u| u.origin().ascii_serialization());
            hosts.entry(host).or_insert_with(new).clone()
        });
        let places = places.collect();
        let ranks = Mutex::new(Ranks::new(mirror.urls.len()));
        let passes = Arc::new(Semaphore::new(PASSES));
        Ok(Upstreams { mirror, client, strangers, places, passes, ranks })
    }

    /// See [`Ranks::order`].
    pub fn order(&self) -> Vec<usize> {
        self.ranks().order(Instant::now())
    }

    pub fn all_rest(&self) -> bool {
        self.ranks().all_rest(Instant::now())
    }

    pub fn delivered(&self, which: usize, bytes: u64, took: Duration) {
        self.ranks().delivered(which, bytes, took);
    }

    /// Whether it has failed just now.
    pub fn rests(&self, which: usize) -> bool {
        self.ranks().rests(which, Instant::now())
    }

    /// It sent wrong bytes, and another sent the right ones.
    pub fn wrong(&self, which: usize) {
        self.ranks().wrong(which, Instant::now());
    }

    pub fn failed(&self, which: usize) {
        self.ranks().failed(which, Instant::now());
    }

    /// Each URL with the bytes a second that it delivers.
    pub fn standing(&self) -> Vec<(String, Option<f64>)> {
        self.mirror.urls.iter().cloned().zip(self.ranks().rates()).collect()
    }

    fn ranks(&self) -> std::sync::MutexGuard<'_, Ranks> {
        self.ranks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the `which`-th URL for `path`.
    ///
    /// # Errors
    /// [`Trouble`]; any status but 200, 206 and 304 is one.
    pub async fn get(
        &self,
        which: usize,
        path: &MirrorPath,
        query: Option<&str>,
        get: &Get,
    ) -> Result<(Head, Body), Trouble> {
        let place = self.place(which).await?;
        self.get_at(place, which, path, query, get).await
    }

    /// A place for what goes straight through to a client, at that client's pace: not among those of
    /// the others, or a few slow clients would stop a mirror.
    ///
    /// # Errors
    /// There are too many.
    pub fn passing(&self) -> Result<Place, No> {
        self.passes.clone().try_acquire_owned().map(Place).map_err(|_| No::Busy)
    }

    /// A place among the connections to the host of the `which`-th URL.
    ///
    /// # Errors
    /// There is no such URL.
    pub async fn place(&self, which: usize) -> Result<Place, Trouble> {
        let url = self.mirror.urls.get(which).cloned().unwrap_or_default();
        let none = || Trouble::Unreachable { url, why: "the server stops".into() };
        let Some(places) = self.places.get(which) else { return Err(none()) };
        places.clone().acquire_owned().await.map(Place).map_err(|_| none())
    }

    /// [`Upstreams::get`] of who has a place already.
    ///
    /// # Errors
    /// As there.
    pub async fn get_at(
        &self,
        place: Place,
        which: usize,
        path: &MirrorPath,
        query: Option<&str>,
        get: &Get,
    ) -> Result<(Head, Body), Trouble> {
        let base = self.mirror.urls.get(which).map_or("", String::as_str);
        let unreachable =
            |why: &str| Trouble::Unreachable { url: format!("{base}{path}"), why: why.into() };
        let mut url = path.below(base).ok_or_else(|| unreachable("it is no URL"))?;
        url.set_query(query);
        let mut declared = true;
        for _ in 0..=REDIRECTS {
            let response = self.once(&url, declared, get).await?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED
            {
                return judged(response, &url, get, place);
            }
            let to = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
            if to.is_none() && get.any {
                return judged(response, &url, get, place);
            }
            let to = to.unwrap_or("");
            let refused = || Trouble::Redirect {
                from: url.to_string(),
                to: crate::model::event::plain(to, 200),
            };
            let next = url.join(to).map_err(|_| refused())?;
            declared = match wire::target(&next, &self.mirror.urls, &self.mirror.redirects) {
                Target::Declared => true,
                Target::Allowed => false,
                Target::Refused => return Err(refused()),
            };
            url = next;
        }
        Err(Trouble::Redirects { url: format!("{base}{path}") })
    }

    async fn once(
        &self,
        url: &Url,
        declared: bool,
        get: &Get,
    ) -> Result<reqwest::Response, Trouble> {
        let text = url.to_string();
        // An address in the URL itself asks no resolver.
        let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
        let ip: Option<IpAddr> = host.parse().ok();
        if ip.is_some_and(|ip| !is_public(ip)) && !(declared && self.mirror.private) {
            return Err(Trouble::Private { url: text });
        }
        let method = if get.head { reqwest::Method::HEAD } else { reqwest::Method::GET };
        // A redirect to another port of a private host is no way into that host.
        let client = self.strangers.as_ref().filter(|_| !declared).unwrap_or(&self.client);
        let mut request = client.request(method, url.clone()).headers(get.headers.clone());
        // What is coded for one client would be stored for all.
        request = request.header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if get.from > 0 || get.to.is_some() {
            let to = get.to.map_or(String::new(), |to| (to - 1).to_string());
            request = request.header(header::RANGE, format!("bytes={}-{to}", get.from));
            if let Some(validator) = get.ident.as_ref().and_then(Ident::if_range) {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        match timeout(PATIENCE, request.send()).await {
            Err(_) => Err(Trouble::Silent { url: text }),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                let why = chain(&e);
                if why.contains(AT_HOME) {
                    return Err(Trouble::Private { url: text });
                }
                Err(if e.is_timeout() {
                    Trouble::Silent { url: text }
                } else {
                    Trouble::Unreachable { url: text, why }
                })
            }
        }
    }
}

/// The last step: what the head promises, against what was asked for.
fn judged(
    response: reqwest::Response,
    url: &Url,
    get: &Get,
    place: Place,
) -> Result<(Head, Body), Trouble> {
    let (status, headers) = (response.status(), response.headers().clone());
    let url = url.to_string();
    let garbage = |what| Trouble::Garbage { url: url.clone(), what };
    let length = match get.head {
        true => headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok()),
        false => response.content_length(),
    };
    let coded = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if coded && matches!(status.as_u16(), 200 | 206) {
        // We asked for the bytes as they are, and their digest is of those.
        return Err(garbage("it is compressed, though it was asked not to be"));
    }
    let (from, to, total) = match status {
        StatusCode::OK => (0, length, length),
        StatusCode::PARTIAL_CONTENT => {
            let Some(ContentRange { range, total }) = content_range(&headers) else {
                return Err(garbage("206 without a Content-Range of bytes"));
            };
            if range.start != get.from || get.to.is_some_and(|to| range.end > to) {
                return Err(garbage("another range than was asked for"));
            }
            if length.is_some_and(|l| l != range.end - range.start) {
                return Err(garbage("Content-Length and Content-Range disagree"));
            }
            (range.start, Some(range.end), total)
        }
        StatusCode::NOT_MODIFIED => (0, None, None),
        // Nobody asked for a range.
        StatusCode::RANGE_NOT_SATISFIABLE if get.any && get.from == 0 => {
            return Err(garbage("416 to a request without a range"));
        }
        status if get.any && status != StatusCode::RANGE_NOT_SATISFIABLE => (0, length, length),
        _ => {
            let retry_after = wire::retry_after(&headers);
            return Err(Trouble::Status { url, status: status.as_u16(), retry_after });
        }
    };
    let ident = Ident::of(&headers, total);
    if let Some(known) = &get.ident
        && matches!(status.as_u16(), 200 | 206)
        && !known.agrees(&ident, get.digest)
    {
        return Err(Trouble::Changed { url });
    }
    let want = to.map(|to| to - from);
    let head = Head { url: url.clone(), status, headers, ident, from, to };
    Ok((head, Body { response, url, got: 0, want, _place: place }))
}

impl Body {
    /// It goes to one client, at that client's pace: see [`Upstreams::passing`].
    pub fn leaves(&mut self, ups: &Upstreams) {
        if let Ok(place) = ups.passing() {
            self._place = place;
        }
    }

    /// The next bytes; `None` at the end, if it is where the head said.
    ///
    /// # Errors
    /// [`Trouble::Cut`], [`Trouble::Silent`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Trouble> {
        let cut = |got, why: String, url: &str| Trouble::Cut { url: url.into(), got, why };
        match self.response.chunk().await {
            Ok(Some(bytes)) => {
                self.got += bytes.len() as u64;
                match self.want.is_some_and(|want| self.got > want) {
                    true => Err(cut(self.got, "it is longer than was said".into(), &self.url)),
                    false => Ok(Some(bytes)),
                }
            }
            Ok(None) if self.want.is_none_or(|want| self.got == want) => Ok(None),
            Ok(None) => Err(cut(self.got, "more was promised".into(), &self.url)),
            Err(e) if e.is_timeout() => Err(Trouble::Silent { url: self.url.clone() }),
            Err(e) => Err(cut(self.got, chain(&e), &self.url)),
        }
    }

    /// All of it, where it has at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Body::chunk`], and one that is too long.
    pub async fn whole(mut self, limit: usize) -> Result<Vec<u8>, Trouble> {
        let mut all = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if all.len() + bytes.len() > limit {
                return Err(Trouble::Garbage {
                    url: self.url,
                    what: "it is too long for metadata",
                });
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

impl About {
    /// What an answer says of a file, as of now.
    pub fn of(mirror: &str, path: &str, head: &Head) -> About {
        let now = Timestamp::now();
        About {
            mirror: mirror.into(),
            path: path.into(),
            url: head.url.clone(),
            status: head.status.as_u16(),
            headers: wire::kept(&head.headers),
            request: Vec::new(),
            digest: None,
            len: head.ident.total,
            requested: now,
            received: now,
            pinned: false,
        }
    }
}

/// An error and what is behind it, in one line: reqwest says the least itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    for _ in 0..8 {
        let Some(source) = next else { break };
        let said = source.to_string();
        if !text.contains(&said) {
            text = said;
        }
        next = source.source();
    }
    crate::model::event::plain(&text, 200)
}
