//! The admin door of a server, as a client of `/api/v1`.
//!
//! 1. [`Server`] is what the command line and the environment say of it: where it is, whom to
//!    trust, the token. A token is never an argument: every user of a machine can read those.
//! 2. [`Door`] asks, and takes answers and refusals apart.

use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http::{HeaderValue, Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::tls::{PemItem, RootCerts, TlsConfig};

use crate::model::Mac;
use crate::model::event::plain;
use crate::model::mac::MacError;
use crate::power;

/// Where a server's admin door is unless its configuration says otherwise.
pub(super) const HERE: &str = "127.0.0.1:8067";
const PORT: u16 = 8067;
/// These come last in a page of help.
const HEADING: &str = "The server";
/// What stands for itself in a path (RFC 3986 section 3.3), as far as MACs have it.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b':');
/// More than 20,000 machines with full timelines.
const LIMIT: u64 = 512 * 1024 * 1024;
/// Of one text that is shown: machines' makers write what they like.
pub(super) const TEXT: usize = 300;
/// The longest line of a stream; an event is one.
const LINE: u64 = 1 << 20;
/// Of a file that holds a token or certificates, in bytes.
const FILE: u64 = 1 << 20;
const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(30);
/// BMCs and commands are slow: `power` may take a minute and a half.
const POWER: Duration = Duration::from_secs(100);
/// A stream says at least that it is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// Which server, and by what right.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Server {
    /// The admin door of the server that runs ([http] admin), or an https:// URL
    #[arg(long, default_value = HERE, value_name = "ADDRESS:PORT", help_heading = HEADING)]
    server: String,
    /// The CA of an https:// server, PEM [env: PILOTLIGHT_CA] [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    ca: Option<PathBuf>,
    /// A file that holds the token; or the token itself is in PILOTLIGHT_TOKEN
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    token_file: Option<PathBuf>,
}

/// What the server does not do, in its own words.
#[derive(Debug)]
pub(super) struct Refused {
    pub name: String,
    text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

pub(super) struct Door {
    /// `http://127.0.0.1:8067`
    base: String,
    token: Option<HeaderValue>,
    roots: RootCerts,
}

impl Server {
    pub fn open(&self) -> anyhow::Result<Door> {
        let ca = self.ca.clone().or_else(|| std::env::var_os("PILOTLIGHT_CA").map(PathBuf::from));
        let token = match &self.token_file {
            Some(file) => Some(read(file).context("--token-file")?),
            None => std::env::var("PILOTLIGHT_TOKEN").ok(),
        };
        Door::new(&self.server, ca.as_deref(), token.as_deref())
    }
}

/// The server at `server`, with what the environment has for it.
pub(super) fn at(server: &str) -> anyhow::Result<Door> {
    Server { server: server.into(), ca: None, token_file: None }.open()
}

fn read(file: &Path) -> anyhow::Result<String> {
    let here = || file.display().to_string();
    let meta = std::fs::metadata(file).with_context(here)?;
    ensure!(meta.len() <= FILE, "{}: more than {FILE} bytes", here());
    std::fs::read_to_string(file).with_context(here)
}

/// `http://` on loopback, at the port of the admin door unless another is named, where no credential is asked for; `https://` everywhere else.
fn base(server: &str) -> anyhow::Result<String> {
    let server = server.trim_end_matches('/');
    let (scheme, rest) = match server.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, server),
    };
    let name = rest.rsplit_once(':').map_or(rest, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let bare = rest.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let address = rest.parse::<SocketAddr>().map(|at| at.ip()).or(name.parse()).ok().or(bare);
    let here = name == "localhost" || address.is_some_and(|ip| ip.is_loopback());
    let scheme = match scheme {
        Some("https") => "https",
        Some("http") if !here => bail!(
            "--server {server}: beyond loopback an admin door is reached by https:// only, which \
             shows nobody the token"
        ),
        Some("http") => "http",
        Some(_) => bail!("--server {server}: write ADDRESS:PORT, or https://NAME:PORT"),
        None if here => "http",
        None => "https",
    };
    // An address of IPv6 alone has colons of its own.
    let rest = match bare {
        _ if server.starts_with("https://") => rest.to_string(),
        Some(IpAddr::V6(ip)) => format!("[{ip}]:{PORT}"),
        _ if name == rest => format!("{rest}:{PORT}"),
        _ => rest.to_string(),
    };
    let base = format!("{scheme}://{rest}");
    let good = base.parse::<http::Uri>().is_ok_and(|uri| {
        uri.path() == "/"
            && uri.query().is_none()
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'))
    });
    ensure!(
        good && !name.is_empty(),
        "--server {server}: write ADDRESS:PORT, or https://NAME:PORT"
    );
    Ok(base)
}

/// A machine as a person names it: a MAC in any of its notations as the API writes it, or a name,
/// which has no colon.
///
/// # Errors
/// Where it is neither.
pub(super) fn who(text: &str) -> Result<String, MacError> {
    match text.parse::<Mac>() {
        Ok(mac) => Ok(mac.to_string()),
        Err(why) if text.contains(':') => Err(why),
        Err(_) => Ok(text.into()),
    }
}

/// A name as part of a path.
pub(super) fn part(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

impl Door {
    fn new(server: &str, ca: Option<&Path>, token: Option<&str>) -> anyhow::Result<Door> {
        let roots = match ca {
            None => RootCerts::PlatformVerifier,
            Some(file) => {
                let text = read(file).context("--ca")?;
                let all = ureq::tls::parse_pem(text.as_bytes()).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                let all: Vec<_> = all.collect();
                ensure!(!all.is_empty(), "--ca: {}: no certificate is in it", file.display());
                RootCerts::Specific(Arc::new(all))
            }
        };
        let header = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let token = match token.filter(|t| !t.trim().is_empty()) {
            None => None,
            Some(token) => Some(header(token).context("what is to be the token is none")?),
        };
        Ok(Door { base: base(server)?, token, roots })
    }

    /// For people.
    fn name(&self) -> &str {
        self.base.strip_prefix("http://").unwrap_or(&self.base)
    }

    /// `NAME:PORT`
    fn authority(&self) -> &str {
        self.base.split_once("://").map_or(&self.base, |(_, rest)| rest)
    }

    fn host(&self) -> &str {
        let authority = self.authority();
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether its name leads nowhere. The resolver is asked again: its error looks like any other.
    fn is_nowhere(&self) -> bool {
        let host = self.host();
        host.parse::<IpAddr>().is_err() && (host, 0).to_socket_addrs().is_err()
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, None)
    }

    /// The header is what tells us from a web page.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask(Method::POST, path, Some(body))
    }

    pub fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.ask(Method::DELETE, path, None)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let whole = if path.ends_with("/power") { POWER } else { PATIENCE };
        let mut response = self.send(method, path, body, Some(whole))?;
        let text = response.body_mut().with_config().limit(LIMIT).read_to_string()?;
        if !response.status().is_success() {
            return Err(self.refused(response.status().as_u16(), &text));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).ok().with_context(|| {
            let at = self.name();
            format!("what answers at {at} is no pilotlight: --server names its [http] admin")
        })
    }

    /// Lines, for as long as the server has some.
    pub fn lines(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Iterator<Item = std::io::Result<String>>> {
        let mut response = self.send(Method::GET, path, None, None)?;
        if !response.status().is_success() {
            let text = response.body_mut().with_config().limit(LIMIT).read_to_string()?;
            return Err(self.refused(response.status().as_u16(), &text));
        }
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut body = BufReader::new(body);
        Ok(std::iter::from_fn(move || {
            let mut line = Vec::new();
            match body.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) => None,
                Ok(n) if n as u64 == LINE => Some(Err(std::io::ErrorKind::InvalidData.into())),
                Ok(_) => Some(Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())),
                Err(e) => Some(Err(e)),
            }
        }))
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        whole: Option<Duration>,
    ) -> anyhow::Result<http::Response<ureq::Body>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(self.roots.clone())
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(whole)
            .timeout_per_read(whole.is_none().then_some(SILENCE))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .build()
            .into();
        let mut request = Request::builder().method(&method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, token);
        }
        if method != Method::GET {
            request = request.header("pilotlight", "1");
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let sent = match body {
            Some(body) => agent.run(request.body(body.to_string())?),
            None => agent.run(request.body(())?),
        };
        sent.map_err(|why| self.silent(why))
    }

    /// Nobody answers, or nobody that is trusted.
    fn silent(&self, why: ureq::Error) -> anyhow::Error {
        let at = self.name();
        // ureq does not name what it is made of as its source.
        let (distrust, no_tls) = match &why {
            ureq::Error::Io(io) => (power::distrust(io), power::speaks_no_tls(io)),
            ureq::Error::Rustls(tls) => (power::distrust(tls), power::speaks_no_tls(tls)),
            _ => (None, false),
        };
        let said = match (distrust, &why) {
            (Some(why), _) => format!(
                "the certificate of {at} is not to be trusted ({why}): --ca FILE names the CA that \
                 made it; pilotlight's own is tls/ca.pem in the server's state-dir, and /ca.pem at \
                 its boot door (http://SERVER/ca.pem)"
            ),
            (None, _) if no_tls => format!(
                "what answers at {at} speaks no TLS: an admin door is HTTPS only beyond loopback. \
                 On the server itself leave out https://; else name the address of [http] admin"
            ),
            (None, why) if self.base.starts_with("http:") && is_no_http(why) => format!(
                "what answers at {at} speaks no HTTP: if it is an admin door with TLS, write \
                 --server https://{}",
                self.authority()
            ),
            (None, _) if self.is_nowhere() => format!(
                "no host is called {:?}: write --server ADDRESS:PORT, or https://NAME:PORT, as the \
                 server's [http] admin has it",
                self.host()
            ),
            (None, _) => format!(
                "no server answers at {at}: start one by `pilotlight serve`, or name the address \
                 of its [http] admin by --server"
            ),
        };
        anyhow::Error::new(why).context(said)
    }

    fn refused(&self, status: u16, text: &str) -> anyhow::Error {
        let read: Value = serde_json::from_str(text).unwrap_or_default();
        let error = &read["error"];
        let name = error["name"].as_str().unwrap_or_default().to_string();
        let message = match error["message"].as_str() {
            Some(message) => plain(message, 2 * TEXT),
            None if text.trim().is_empty() => format!("HTTP {status}"),
            None => plain(text.trim(), TEXT),
        };
        let text = match hint(&name) {
            // The API's own hint, which comes last, is of no use here.
            Some(hint) => {
                let said = message.rsplit_once("; ").map_or(&*message, |(said, _)| said);
                format!("{said}; {hint}")
            }
            None => message,
        };
        Refused { name, text: format!("{} says: {text}", self.name()) }.into()
    }
}

/// Whether somebody is there, and what he says is no HTTP: TLS sends an alert, or hangs up.
fn is_no_http(why: &ureq::Error) -> bool {
    match why {
        ureq::Error::Protocol(_) => true,
        ureq::Error::Io(io) => {
            [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&io.kind())
        }
        _ => false,
    }
}

/// The next command, where there is one.
fn hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "no-machine" => "`pilotlight machine list` shows those that are",
        "profile-wanted" => "--profile names one",
        "no-rescue" => {
            "give one, like `pilotlight machine rescue web1 --profile memtest`, or name it in the \
             configuration: [life] rescue = \"memtest\", a [[profile]] with kind = \"live\""
        }
        "no-token" => "`pilotlight token list` shows those there are",
        "credential" => {
            "--token-file or PILOTLIGHT_TOKEN brings a token; `pilotlight token make NAME` on the \
             server itself makes one"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_it_is_https() {
        for (server, want) in [
            ("127.0.0.1:8067", "http://127.0.0.1:8067"),
            ("localhost:8067", "http://localhost:8067"),
            ("[::1]:8067", "http://[::1]:8067"),
            ("http://127.0.0.1:8067/", "http://127.0.0.1:8067"),
            ("10.0.0.1:8067", "https://10.0.0.1:8067"),
            ("127.0.0.1", "http://127.0.0.1:8067"),
            ("localhost", "http://localhost:8067"),
            ("http://localhost/", "http://localhost:8067"),
            ("::1", "http://[::1]:8067"),
            ("[::1]", "http://[::1]:8067"),
            ("boot.example", "https://boot.example:8067"),
            ("2001:db8::1", "https://[2001:db8::1]:8067"),
            ("boot.example:8067", "https://boot.example:8067"),
            ("https://boot.example", "https://boot.example"),
        ] {
            assert_eq!(base(server).unwrap(), want);
        }
        for bad in ["http://10.0.0.1:8067", "ftp://x", "", "a b", "x/y", "https://u:p@x"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_names_the_next_command() {
        let door = Door::new(HERE, None, None).unwrap();
        let told = |text: &str| door.refused(404, text).to_string();
        let json = r#"{"error":{"name":"no-machine","message":"no machine \"x\" is known; /api"}}"#;
        assert_eq!(
            told(json),
            "127.0.0.1:8067 says: no machine \"x\" is known; `pilotlight machine list` shows those \
             that are"
        );
        assert_eq!(told(""), "127.0.0.1:8067 says: HTTP 404");
        assert_eq!(told("gone\x1b[2J\n"), "127.0.0.1:8067 says: gone?[2J");
    }

    #[test]
    fn a_token_is_shown_nowhere() {
        let door = Door::new(HERE, None, Some("hunter2\n")).unwrap();
        assert!(!format!("{:?}", door.token).contains("hunter2"));
        assert!(Door::new(HERE, None, Some("a\nb")).is_err());
        assert!(Door::new(HERE, None, Some(" ")).unwrap().token.is_none());
    }
}
