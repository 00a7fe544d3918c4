//! Whether what is kept may be used, by RFC 9111; of mirrors that nothing verifies.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use jiff::Timestamp;

use super::record::About;

/// Of a client's request, what is handed on to the mirror: what may choose between
/// representations. Never who the client is (Authorization, Cookie), nor what belongs to its
/// connection, nor conditions and ranges of its own.
pub fn forwarded(headers: &HeaderMap) -> HeaderMap {
    const KEPT_BACK: &[HeaderName] = &[
        header::ACCEPT_ENCODING,
        header::AUTHORIZATION,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::COOKIE,
        header::EXPECT,
        header::FORWARDED,
        header::FROM,
        header::HOST,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::REFERER,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::USER_AGENT,
        header::VIA,
    ];
    let mut out = HeaderMap::new();
    for (name, value) in headers.iter().take(64) {
        let ours = KEPT_BACK.contains(name)
            || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "x-forwarded-for");
        if !ours && value.len() <= 1024 {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Of those, what is sent to the mirror: a header that no Vary need name (X-Forwarded-Host and its
/// kind) must not decide what the next client is given. What the cache itself asks is among them.
pub fn sent(headers: &HeaderMap) -> HeaderMap {
    const SENT: &[HeaderName] = &[
        header::ACCEPT,
        header::ACCEPT_LANGUAGE,
        header::CACHE_CONTROL,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::PRAGMA,
    ];
    let mut out = HeaderMap::new();
    for name in SENT {
        for value in headers.get_all(name) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// What a response's Vary names of the request (RFC 9110 section 12.5.5), to be kept beside it.
pub fn chosen_by(response: &[(String, String)], request: &HeaderMap) -> Vec<(String, String)> {
    let vary = response.iter().filter(|(name, _)| name == "vary");
    let names = vary.flat_map(|(_, value)| value.split(',')).map(|n| n.trim().to_ascii_lowercase());
    let mut out = Vec::new();
    for name in names.take(16) {
        for value in request.get_all(name.as_str()) {
            if let Ok(value) = value.to_str() {
                out.push((name.clone(), value.to_string()));
            }
        }
    }
    out
}

/// Whether another request would have been given this response, too.
pub fn suits(about: &About, request: &HeaderMap) -> bool {
    let any =
        about.headers.iter().any(|(n, v)| n == "vary" && v.split(',').any(|v| v.trim() == "*"));
    !any && chosen_by(&about.headers, request) == about.request
}

/// What is to be done with what is kept.
#[derive(Debug)]
pub enum Verdict {
    /// Use it; it is this old.
    Fresh(Duration),
    /// Ask again, with these headers; `matches`: a 304 would make it fresh again.
    Ask { headers: HeaderMap, matches: bool },
}

fn map(pairs: &[(String, String)]) -> HeaderMap {
    let pair = |(name, value): &(String, String)| {
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
    };
    let mut out = HeaderMap::new();
    for (name, value) in pairs.iter().filter_map(pair) {
        out.append(name, value);
    }
    out
}

/// The place does not matter: an object is found by it beforehand.
fn request(headers: HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    request
}

fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The headers with what is malformed in them read as RFC 9111 has it: an Expires that is no date
/// is in the past (section 5.3), directives are of any case (section 5.2), of several Age the first
/// counts (section 5.1), and one that only begins a list is no age to trust.
fn strict(mut headers: HeaderMap) -> HeaderMap {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    let directives = directives.collect::<Vec<_>>().join(", ").to_ascii_lowercase();
    if let (false, Ok(value)) = (directives.is_empty(), HeaderValue::from_str(&directives)) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    let expires: Vec<_> = headers.get_all(header::EXPIRES).iter().cloned().collect();
    let valid = |v: &HeaderValue| v.to_str().is_ok_and(|v| httpdate::parse_http_date(v).is_ok());
    let malformed = match &expires[..] {
        [] => false,
        [one] => !valid(one),
        _ => true,
    };
    if malformed {
        headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
    }
    let ages = headers.get_all(header::AGE).iter().filter_map(|v| v.to_str().ok());
    let first = ages.flat_map(|v| v.split(',').map(str::trim)).next().map(str::to_string);
    let list = headers.get_all(header::AGE).iter().count() > 1
        || headers.get(header::AGE).is_some_and(|v| v.as_bytes().contains(&b','));
    if let (Some(first), true) = (first, list) {
        let age = first.parse::<u32>().unwrap_or(i32::MAX as u32);
        headers.insert(header::AGE, HeaderValue::from(age));
    }
    headers
}

fn policy(about: &About, of: HeaderMap) -> CachePolicy {
    let status = StatusCode::from_u16(about.status).unwrap_or(StatusCode::OK);
    let options = CacheOptions::default();
    let (req, res) = (request(of), response(status, strict(map(&about.headers))));
    CachePolicy::new_options(&req, &res, SystemTime::from(about.received), options)
}

/// Whether a response may be stored at all (RFC 9111 section 3).
pub fn may_keep(about: &About, of: &HeaderMap) -> bool {
    let any = about.headers.iter().any(|(n, v)| n == "vary" && v.contains('*'));
    !any && policy(about, of.clone()).is_storable()
}

/// RFC 9111 section 4: whether `about` answers a request with these (forwarded) headers.
pub fn judge(about: &About, of: &HeaderMap, now: Timestamp) -> Verdict {
    let policy = policy(about, map(&about.request));
    let now = SystemTime::from(now);
    match policy.before_request(&request(of.clone()), now) {
        BeforeRequest::Fresh(_) => Verdict::Fresh(policy.age(now)),
        BeforeRequest::Stale { request, matches } => {
            let mut headers = request.headers;
            // Only what asks whether ours is still right; the client's own conditions are ours to
            // answer.
            headers.remove(header::IF_RANGE);
            headers.remove(header::RANGE);
            let matches = matches && suits(about, of);
            if !matches {
                headers.remove(header::IF_NONE_MATCH);
                headers.remove(header::IF_MODIFIED_SINCE);
            }
            Verdict::Ask { headers, matches }
        }
    }
}

/// What is kept, with the headers that a 304 brought (RFC 9111 section 4.3.4). `None`: that 304 was
/// about something else.
pub fn renewed(
    about: &About,
    of: &HeaderMap,
    brought: &[(String, String)],
    now: Timestamp,
) -> Option<About> {
    let policy = policy(about, map(&about.request));
    let answer = response(StatusCode::NOT_MODIFIED, map(brought));
    match policy.after_response(&request(of.clone()), &answer, SystemTime::from(now)) {
        AfterResponse::NotModified(_, parts) => {
            let mut headers = super::wire::kept(&parts.headers);
            // The age of the old response went into that header; the new one counts from now.
            headers.retain(|(name, _)| name != "age");
            headers.extend(brought.iter().filter(|(n, _)| n == "age").cloned());
            Some(About { headers, received: now, requested: now, ..about.clone() })
        }
        AfterResponse::Modified(..) => None,
    }
}

/// How old it is, for `Age` (RFC 9111 section 4.2.3).
pub fn age(about: &About, now: Timestamp) -> Duration {
    policy(about, map(&about.request)).age(SystemTime::from(now))
}

/// Whether it may be used stale while the mirror is away (RFC 9111 section 4.2.4).
pub fn may_be_stale(about: &About) -> bool {
    let forbidden = ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage"];
    let directives = about.headers.iter().filter(|(n, _)| n == "cache-control");
    !directives.flat_map(|(_, v)| v.split(',')).any(|d| {
        let name = d.split('=').next().unwrap_or("").trim().to_ascii_lowercase();
        forbidden.contains(&name.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn about(headers: &[(&str, &str)], of: &[(&str, &str)]) -> About {
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
        };
        let mut headers = own(headers);
        headers.push(("date".into(), "Fri, 15 Jan 2027 08:00:00 GMT".into()));
        let request = chosen_by(&headers, &map(&own(of)));
        About {
            mirror: "m".into(),
            path: "p".into(),
            url: String::new(),
            status: 200,
            headers,
            request,
            digest: None,
            len: Some(1),
            requested: at(0),
            received: at(0),
            pinned: false,
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let own: Vec<_> = pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        map(&own)
    }

    #[test]
    fn freshness_is_that_of_rfc_9111() {
        let fresh = |a: &About, of: &[(&str, &str)], s| {
            matches!(judge(a, &headers(of), at(s)), Verdict::Fresh(_))
        };
        let minute = about(&[("cache-control", "max-age=60")], &[]);
        assert!(fresh(&minute, &[], 59));
        assert!(!fresh(&minute, &[], 61));
        assert!(!fresh(&minute, &[("cache-control", "no-cache")], 1));
        assert!(!fresh(&minute, &[("cache-control", "max-age=0")], 1));
        assert!(!fresh(&about(&[("cache-control", "no-cache")], &[]), &[], 0));
        assert!(!fresh(&about(&[], &[]), &[], 0), "nothing says how long");
        let shared = about(&[("cache-control", "max-age=60, s-maxage=1")], &[]);
        assert!(!fresh(&shared, &[], 5));
    }

    #[test]
    fn a_response_suits_the_requests_that_vary_says() {
        let de = about(
            &[("cache-control", "max-age=60"), ("vary", "Accept-Language")],
            &[("accept-language", "de")],
        );
        assert!(matches!(
            judge(&de, &headers(&[("accept-language", "de")]), at(1)),
            Verdict::Fresh(_)
        ));
        match judge(&de, &headers(&[("accept-language", "fr")]), at(1)) {
            Verdict::Ask { matches, headers } => {
                assert!(!matches && !headers.contains_key(header::IF_NONE_MATCH));
            }
            Verdict::Fresh(_) => panic!("another representation"),
        }
        let any = about(&[("cache-control", "max-age=60"), ("vary", "*")], &[]);
        assert!(!may_keep(&any, &HeaderMap::new()));
    }

    #[test]
    fn what_may_not_be_kept_is_not() {
        for no in ["no-store", "private", "private, max-age=60"] {
            assert!(!may_keep(&about(&[("cache-control", no)], &[]), &HeaderMap::new()), "{no}");
        }
        assert!(may_keep(&about(&[("etag", "\"a\"")], &[]), &HeaderMap::new()));
        let no_store = headers(&[("cache-control", "no-store")]);
        assert!(!may_keep(&about(&[("cache-control", "max-age=60")], &[]), &no_store));
    }

    #[test]
    fn a_304_makes_it_fresh_and_brings_headers() {
        let old = about(&[("cache-control", "max-age=60"), ("etag", "\"a\"")], &[]);
        let Verdict::Ask { headers, matches: true } = judge(&old, &HeaderMap::new(), at(100))
        else {
            panic!("it is stale, and can be asked about")
        };
        assert_eq!(headers.get(header::IF_NONE_MATCH).unwrap(), "\"a\"");
        let brought = [
            ("cache-control".to_string(), "max-age=120".to_string()),
            ("etag".to_string(), "\"a\"".to_string()),
            ("date".to_string(), "Fri, 15 Jan 2027 08:01:40 GMT".to_string()),
        ];
        let new = renewed(&old, &headers, &brought, at(100)).unwrap();
        assert_eq!(new.header("cache-control"), Some("max-age=120"));
        assert!(matches!(judge(&new, &HeaderMap::new(), at(200)), Verdict::Fresh(_)));
        let other = [("etag".to_string(), "\"b\"".to_string())];
        assert_eq!(renewed(&old, &headers, &other, at(100)), None);
    }

    #[test]
    fn stale_is_better_than_nothing_unless_the_mirror_says_no() {
        assert!(may_be_stale(&about(&[("cache-control", "max-age=1")], &[])));
        for no in ["must-revalidate", "max-age=1, proxy-revalidate", "S-MaxAge=9"] {
            assert!(!may_be_stale(&about(&[("cache-control", no)], &[])), "{no}");
        }
    }

    #[test]
    fn a_client_is_not_handed_on() {
        let given = headers(&[
            ("authorization", "Basic x"),
            ("cookie", "a=b"),
            ("range", "bytes=0-1"),
            ("accept-language", "de"),
            ("x-forwarded-for", "10.0.0.1"),
        ]);
        assert_eq!(forwarded(&given), headers(&[("accept-language", "de")]));
        let given = headers(&[("x-original-url", "/evil"), ("accept-language", "de")]);
        assert_eq!(forwarded(&given), given, "Vary may name it");
        assert_eq!(sent(&given), headers(&[("accept-language", "de")]), "the mirror never sees it");
    }
}
