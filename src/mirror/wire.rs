//! What travels between a mirror and us, as meaning: paths, addresses, validators, ranges.

use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;
use reqwest::header::{self, HeaderMap, HeaderName};

/// The longest path below a mirror, in bytes.
const PATH_LIMIT: usize = 1024;

/// A path below a mirror: decoded, without `.`, `..`, empty parts and control characters. Only a
/// [`crate::config::Verify::Plain`] mirror has paths that end with a slash, or with a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MirrorPath(String);

/// A path that no mirror of ours has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path leads out of the mirror, is empty or too long, or is not UTF-8")]
pub struct BadPath;

impl MirrorPath {
    /// Of the percent-encoded path of a URL (RFC 3986 section 2.1), split before it is decoded.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn encoded(path: &str) -> Result<MirrorPath, BadPath> {
        let mut parts = Vec::new();
        for part in path.split('/') {
            let part = percent_decode_str(part).decode_utf8().map_err(|_| BadPath)?;
            parts.push(part.into_owned());
        }
        MirrorPath::of(parts.iter().map(String::as_str))
    }

    /// Of a name that is not encoded.
    ///
    /// # Errors
    /// [`BadPath`].
    pub fn plain(path: &str) -> Result<MirrorPath, BadPath> {
        MirrorPath::of(path.split('/'))
    }

    fn of<'a>(parts: impl Iterator<Item = &'a str>) -> Result<MirrorPath, BadPath> {
        let mut path = String::new();
        for part in parts {
            match part {
                "" | "." => continue,
                ".." => return Err(BadPath),
                bad if bad.chars().any(|c| matches!(c, '/' | '\\') || c.is_control()) => {
                    return Err(BadPath);
                }
                part => {
                    if !path.is_empty() {
                        path.push('/');
                    }
                    path.push_str(part);
                }
            }
            if path.len() > PATH_LIMIT {
                return Err(BadPath);
            }
        }
        if path.is_empty() { Err(BadPath) } else { Ok(MirrorPath(path)) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Below one of the mirror's URLs, which end with a slash.
    pub fn below(&self, base: &str) -> Option<Url> {
        // What RFC 3986 section 3.3 lets a path hold as it is.
        const PART: AsciiSet = NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'.')
            .remove(b'_')
            .remove(b'~')
            .remove(b'/')
            .remove(b'+')
            .remove(b':')
            .remove(b'@')
            .remove(b'!')
            .remove(b'$')
            .remove(b'&')
            .remove(b'\'')
            .remove(b'(')
            .remove(b')')
            .remove(b'*')
            .remove(b',')
            .remove(b';')
            .remove(b'=');
        let url = format!("{base}{}", utf8_percent_encode(&self.0, &PART));
        Url::parse(&url).ok()
    }
}

impl std::fmt::Display for MirrorPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a redirect leads to, as seen from the mirror's declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Host and port of a declared URL: may be private where the mirror may.
    Declared,
    /// Another host that the mirror's redirects allow: must be public.
    Allowed,
    Refused,
}

/// Judges a redirect's target (RFC 9110 section 15.4); `urls` and `redirects` as configured.
pub fn target(url: &Url, urls: &[String], redirects: &[String]) -> Target {
    let Some(host) = url.host_str() else { return Target::Refused };
    if !matches!(url.scheme(), "http" | "https")
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Target::Refused;
    }
    let same = |declared: &String| {
        Url::parse(declared).is_ok_and(|d| {
            d.host_str() == Some(host) && d.port_or_known_default() == url.port_or_known_default()
        })
    };
    if urls.iter().any(same) {
        return Target::Declared;
    }
    // The same host on the other scheme's usual port: http to https.
    let upgraded = |declared: &String| {
        Url::parse(declared).is_ok_and(|d| d.host_str() == Some(host)) && url.port().is_none()
    };
    let allowed = |pattern: &String| match pattern.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|left| left.ends_with('.')),
        None => host == pattern,
    };
    if urls.iter().any(upgraded) || redirects.iter().any(allowed) {
        return Target::Allowed;
    }
    Target::Refused
}

/// What tells that two answers are of the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ident {
    /// Bytes of the whole, where it was said.
    pub total: Option<u64>,
    /// A strong ETag (RFC 9110 section 8.8.1).
    pub etag: Option<String>,
    pub modified: Option<String>,
}

impl Ident {
    pub fn of(headers: &HeaderMap, total: Option<u64>) -> Ident {
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_string);
        let etag = text(header::ETAG).filter(|tag: &String| tag.starts_with('"'));
        Ident { total, etag, modified: text(header::LAST_MODIFIED) }
    }

    /// Whether bytes of `self` and of `other` may stand in one file. With a digest the size is
    /// enough, because the digest has the last word; without one a validator must agree.
    pub fn agrees(&self, other: &Ident, digest: bool) -> bool {
        if let (Some(a), Some(b)) = (self.total, other.total)
            && a != b
        {
            return false;
        }
        if digest {
            return true;
        }
        match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => a == b,
            _ => {
                self.total.is_some()
                    && other.total.is_some()
                    && self.modified.is_some()
                    && self.modified == other.modified
            }
        }
    }

    /// For If-Range (RFC 9110 section 13.1.5).
    pub fn if_range(&self) -> Option<&str> {
        self.etag.as_deref().or(self.modified.as_deref())
    }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110 section 14.4), as a half-open range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRange {
    pub range: Range<u64>,
    pub total: Option<u64>,
}

pub fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let end = last.checked_add(1)?;
    (first < end && total.is_none_or(|t| end <= t))
        .then_some(ContentRange { range: first..end, total })
}

/// Headers of a response that are not kept with it: what belongs to one connection (RFC 9110 section
/// 7.6.1), and what is said anew of what is sent.
const DROPPED: &[&str] = &[
    "accept-ranges",
    "alt-svc",
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Bytes of one header that is kept, and of all of them.
const HEADER_LIMIT: usize = 1024;
const HEADERS_LIMIT: usize = 3500;

/// The headers that are kept with a response, and handed on with it (RFC 9111 section 3.1).
pub fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let named: Vec<String> =
        named.flat_map(|v| v.split(',')).map(|n| n.trim().to_ascii_lowercase()).take(32).collect();
    let known = |name: &HeaderName| {
        !DROPPED.contains(&name.as_str()) && !named.iter().any(|n| n == name.as_str())
    };
    let mut left = HEADERS_LIMIT;
    headers
        .iter()
        .filter(|(name, value)| known(name) && value.len() <= HEADER_LIMIT)
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_string())))
        .take_while(|(name, value)| {
            let fits = left.checked_sub(name.len() + value.len() + 8);
            left = fits.unwrap_or(0);
            fits.is_some()
        })
        .collect()
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date counts as not said.
pub fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_its_mirror() {
        let good = [("a/b", "a/b"), ("/a//b/", "a/b"), ("a%20b/%2B", "a b/+"), ("a/./b", "a/b")];
        for (given, path) in good {
            assert_eq!(MirrorPath::encoded(given).unwrap().as_str(), path, "{given}");
        }
        for bad in [
            "",
            "/",
            "..",
            "a/../b",
            "%2e%2e/x",
            "a%2fb",
            "a%00",
            "a%0d%0a",
            "%ff",
            &"a/".repeat(700),
        ] {
            assert_eq!(MirrorPath::encoded(bad), Err(BadPath), "{bad}");
        }
        let path = MirrorPath::plain("pool/g++ 1~2/a#b?c%.deb").unwrap();
        assert_eq!(
            path.below("http://h.example/debian/").unwrap().as_str(),
            "http://h.example/debian/pool/g++%201~2/a%23b%3Fc%25.deb"
        );
    }

    #[test]
    fn a_redirect_is_judged() {
        let urls = ["http://deb.example:8080/debian/".to_string(), "https://m.example/".into()];
        let redirects = ["cdn.example".to_string(), "*.mirrors.example".into()];
        for (to, verdict) in [
            ("http://deb.example:8080/other", Target::Declared),
            ("https://m.example/x", Target::Declared),
            ("https://deb.example/x", Target::Allowed),
            ("http://deb.example:22/x", Target::Refused),
            ("https://cdn.example/x", Target::Allowed),
            ("https://a.b.mirrors.example/x", Target::Allowed),
            ("https://mirrors.example/x", Target::Refused),
            ("https://evilmirrors.example/x", Target::Refused),
            ("https://u:p@cdn.example/x", Target::Refused),
            ("ftp://cdn.example/x", Target::Refused),
            ("file:///etc/passwd", Target::Refused),
            ("http://127.0.0.1/", Target::Refused),
        ] {
            assert_eq!(target(&Url::parse(to).unwrap(), &urls, &redirects), verdict, "{to}");
        }
    }

    #[test]
    fn validators_agree_or_not() {
        let ident = |total, etag: Option<&str>, modified: Option<&str>| Ident {
            total,
            etag: etag.map(Into::into),
            modified: modified.map(Into::into),
        };
        let base = ident(Some(9), Some("\"a\""), Some("Mon"));
        assert!(base.agrees(&base, false));
        assert!(base.agrees(&ident(None, Some("\"a\""), None), false));
        assert!(!base.agrees(&ident(Some(8), Some("\"a\""), None), true), "another size");
        assert!(!base.agrees(&ident(Some(9), Some("\"b\""), Some("Mon")), false));
        assert!(base.agrees(&ident(Some(9), Some("\"b\""), Some("Tue")), true), "the digest tells");
        assert!(base.agrees(&ident(Some(9), None, Some("Mon")), false));
        assert!(!base.agrees(&ident(None, None, Some("Mon")), false), "no size, no proof");
        assert!(!ident(Some(9), None, None).agrees(&ident(Some(9), None, None), false));
    }

    #[test]
    fn a_content_range_is_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(read("bytes 5-9/10"), Some(ContentRange { range: 5..10, total: Some(10) }));
        assert_eq!(read("bytes 0-0/*"), Some(ContentRange { range: 0..1, total: None }));
        for bad in [
            "bytes 5-9/9",
            "bytes 9-5/10",
            "bytes */10",
            "items 0-1/2",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
