//! What a request asks of a file that has validators: all of it, a part, or nothing, since it is
//! the same. Pure; RFC 9110 sections 13 and 14.

use std::ops::Range;
use std::time::SystemTime;

use actix_web::http::header::{self, HeaderMap, HttpDate};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validators {
    /// As it is in the header, with its quotes, and `W/` for a weak one.
    pub etag: Option<String>,
    pub modified: Option<SystemTime>,
    /// In bytes.
    pub len: u64,
}

/// How GET or HEAD is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Whole,
    /// 206 with these bytes, of which there is at least one.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412: it is not the version that the client wants a part of.
    Failed,
    /// 416: no byte of it is there.
    OutOfRange,
}

/// The preconditions in the order of RFC 9110 section 13.2.2, then the range, which means nothing
/// but to GET (section 14.2).
pub fn decide(method: &Method, asked: &HeaderMap, is: &Validators) -> Answer {
    let modified = is.modified.map(seconds);
    let matches = match list(asked, header::IF_MATCH) {
        Some(tags) => names(&tags, is, same),
        None => match (date(asked, header::IF_UNMODIFIED_SINCE), modified) {
            (Some(since), Some(modified)) => modified <= since,
            _ => true,
        },
    };
    if !matches {
        return Answer::Failed;
    }
    let unchanged = match list(asked, header::IF_NONE_MATCH) {
        Some(tags) => names(&tags, is, |a, b| same(strong(a), strong(b))),
        None => match (date(asked, header::IF_MODIFIED_SINCE), modified) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        },
    };
    if unchanged {
        return Answer::NotModified;
    }
    match text(asked, header::RANGE) {
        Some(ranges) if method == Method::GET && fresh(asked, is) => part(ranges, is.len),
        _ => Answer::Whole,
    }
}

/// The head of the answer to `req`, and which bytes follow it.
///
/// # Errors
/// The whole answer, where none of them do.
pub fn begin(
    req: &HttpRequest,
    is: &Validators,
    content_type: String,
) -> Result<(HttpResponseBuilder, Range<u64>), Box<HttpResponse>> {
    let decided = decide(req.method(), req.headers(), is);
    let mut answer = HttpResponse::build(match decided {
        Answer::Whole => StatusCode::OK,
        Answer::Part(_) => StatusCode::PARTIAL_CONTENT,
        Answer::NotModified => StatusCode::NOT_MODIFIED,
        Answer::Failed => StatusCode::PRECONDITION_FAILED,
        Answer::OutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
    });
    answer.insert_header((header::ACCEPT_RANGES, "bytes"));
    if let Some(etag) = &is.etag {
        answer.insert_header((header::ETAG, etag.as_str()));
    }
    if let Some(modified) = is.modified {
        answer.insert_header((header::LAST_MODIFIED, HttpDate::from(modified)));
    }
    let len = is.len;
    let part = match decided {
        Answer::Whole => 0..len,
        Answer::Part(part) => {
            let range = format!("bytes {}-{}/{len}", part.start, part.end - 1);
            answer.insert_header((header::CONTENT_RANGE, range));
            part
        }
        Answer::OutOfRange => {
            answer.insert_header((header::CONTENT_RANGE, format!("bytes */{len}")));
            return Err(answer.finish().into());
        }
        Answer::NotModified | Answer::Failed => return Err(answer.finish().into()),
    };
    answer.content_type(content_type);
    Ok((answer, part))
}

/// Whether the part that the client has is of the same version: only then a range is of use to it
/// (If-Range, section 13.1.5).
fn fresh(asked: &HeaderMap, is: &Validators) -> bool {
    match text(asked, header::IF_RANGE) {
        None => true,
        Some(tag) if tag.starts_with('"') || tag.starts_with("W/") => {
            is.etag.as_deref().is_some_and(|own| same(own, tag))
        }
        Some(date) => {
            let date = date.parse::<HttpDate>().ok().map(|d| seconds(d.into()));
            date.is_some() && date == is.modified.map(seconds)
        }
    }
}

/// The strong comparison of section 8.8.3.2: a weak tag is not even the same as itself.
fn same(a: &str, b: &str) -> bool {
    a == b && !a.starts_with("W/")
}

fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether a list of tags, or `*` for any, names this version.
fn names(tags: &str, is: &Validators, alike: impl Fn(&str, &str) -> bool) -> bool {
    let own = is.etag.as_deref();
    tags.trim() == "*" || own.is_some_and(|own| tags.split(',').any(|tag| alike(own, tag.trim())))
}

/// Of several ranges none is served but all of the file, which section 14.2 allows: nobody who
/// boots asks for them, and they are how one request is made to cost a hundred.
fn part(ranges: &str, len: u64) -> Answer {
    let Some((unit, range)) = ranges.split_once('=') else { return Answer::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Answer::Whole;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Answer::Whole };
    // One that no number holds is larger than any file.
    let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
        true if !digits.is_empty() => Some(digits.parse().unwrap_or(u64::MAX)),
        _ => None,
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(len)),
        (Some(first), None) if last.is_empty() => (first, len),
        (None, Some(count)) if first.is_empty() => {
            (if count == 0 { len } else { len.saturating_sub(count) }, len)
        }
        // Not what the grammar calls a range: as if it were not there.
        _ => return Answer::Whole,
    };
    match start < end {
        true => Answer::Part(start..end),
        false => Answer::OutOfRange,
    }
}

fn text(asked: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    asked.get(name)?.to_str().ok().map(str::trim)
}

/// A header that is a list may come in several lines.
fn list(asked: &HeaderMap, name: header::HeaderName) -> Option<String> {
    let lines: Vec<&str> = asked.get_all(name).filter_map(|v| v.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

fn date(asked: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    text(asked, name)?.parse::<HttpDate>().ok().map(|d| seconds(d.into()))
}

/// HTTP's dates know no fractions.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use actix_web::http::header::{HeaderName, HeaderValue};

    const DAY: &str = "Tue, 01 Jan 2030 00:00:00 GMT";
    const BEFORE: &str = "Mon, 31 Dec 2029 00:00:00 GMT";

    fn is(len: u64) -> Validators {
        let day: HttpDate = DAY.parse().unwrap();
        let modified = SystemTime::from(day) + Duration::from_millis(700);
        Validators { etag: Some("\"v1\"".into()), modified: Some(modified), len }
    }

    fn asked(headers: &[(&str, &str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            all.append(name, HeaderValue::from_str(value).unwrap());
        }
        all
    }

    #[test]
    fn ranges() {
        use Answer::{OutOfRange, Part, Whole};
        for (range, answer) in [
            ("bytes=0-3", Part(0..4)),
            ("bytes=5-", Part(5..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-99", Part(0..10)),
            ("bytes=2-99999999999999999999999", Part(2..10)),
            ("Bytes=9-9", Part(9..10)),
            ("bytes=10-", OutOfRange),
            ("bytes=99999999999999999999999-", OutOfRange),
            ("bytes=-0", OutOfRange),
            ("bytes=3-2", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=a-b", Whole),
            ("bytes", Whole),
            ("lines=1-2", Whole),
            ("bytes=0-1,3-4", Whole),
        ] {
            assert_eq!(
                decide(&Method::GET, &asked(&[("range", range)]), &is(10)),
                answer,
                "{range}"
            );
        }
        assert_eq!(decide(&Method::GET, &asked(&[("range", "bytes=0-")]), &is(0)), OutOfRange);
        assert_eq!(decide(&Method::GET, &asked(&[]), &is(0)), Whole);
        assert_eq!(decide(&Method::HEAD, &asked(&[("range", "bytes=0-3")]), &is(10)), Whole);
    }

    #[test]
    fn preconditions_in_their_order() {
        use Answer::{Failed, NotModified, Part, Whole};
        let table: &[(&[(&str, &str)], Answer)] = &[
            (&[("if-none-match", "\"v0\", W/\"v1\"")], NotModified),
            (&[("if-none-match", "\"v0\""), ("if-none-match", "\"v1\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"v0\""), ("if-modified-since", DAY)], Whole),
            (&[("if-modified-since", DAY)], NotModified),
            (&[("if-modified-since", BEFORE)], Whole),
            (&[("if-modified-since", "yesterday")], Whole),
            (&[("if-match", "\"v1\"")], Whole),
            (&[("if-match", "*")], Whole),
            (&[("if-match", "W/\"v1\"")], Failed),
            (&[("if-match", "\"v0\""), ("if-none-match", "\"v1\"")], Failed),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", DAY)], Whole),
            (&[("if-match", "\"v1\""), ("if-unmodified-since", BEFORE)], Whole),
            (&[("range", "bytes=1-1"), ("if-range", "\"v1\"")], Part(1..2)),
            (&[("range", "bytes=1-1"), ("if-range", "W/\"v1\"")], Whole),
            (&[("range", "bytes=1-1"), ("if-range", "\"v0\"")], Whole),
            (&[("range", "bytes=99-"), ("if-range", "\"v0\"")], Whole),
            (&[("range", "bytes=1-1"), ("if-range", DAY)], Part(1..2)),
            (&[("range", "bytes=1-1"), ("if-range", BEFORE)], Whole),
            (&[("range", "bytes=1-1"), ("if-range", "soon")], Whole),
            (&[("range", "bytes=1-1"), ("if-none-match", "\"v1\"")], NotModified),
        ];
        for (headers, answer) in table {
            assert_eq!(decide(&Method::GET, &asked(headers), &is(10)), *answer, "{headers:?}");
        }
    }

    #[test]
    fn what_has_no_validators_is_never_the_same() {
        let bare = Validators { etag: None, modified: None, len: 10 };
        let weak = Validators { etag: Some("W/\"v1\"".into()), ..bare.clone() };
        let part = [("range", "bytes=1-1"), ("if-range", "W/\"v1\"")];
        assert_eq!(decide(&Method::GET, &asked(&part), &weak), Answer::Whole);
        for headers in [("if-none-match", "\"v1\""), ("if-modified-since", DAY)] {
            assert_eq!(
                decide(&Method::GET, &asked(&[headers]), &bare),
                Answer::Whole,
                "{headers:?}"
            );
        }
        assert_eq!(decide(&Method::GET, &asked(&[("if-match", "\"v1\"")]), &bare), Answer::Failed);
    }
}
