//! Files of public mirrors: what [`Mirrors`] gives, as HTTP.
//!
//! 1. Who asks: the boot of the token, or the newest one of the machine that has the address.
//! 2. What is held leaves by the data plane; what is on its way follows its writer there.
//! 3. Validators and ranges are judged as those of any file ([`conditional`]).

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_web::body::{BodyStream, SizedStream};
use actix_web::http::header::{self, HttpDate};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use futures_util::Stream;
use futures_util::stream::unfold;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::conditional::{self, Validators};
use super::error::No;
use super::files::told;
use super::metrics::Cached;
use super::plane::{self, Piece};
use super::{Web, files};
use crate::mirror::disk::Held;
use crate::mirror::record::About;
use crate::mirror::serve::{Answer, Ask, Flight, Mirrors, Part, Pass, Reader, Use};
use crate::mirror::{self, fresh};
use crate::model::Stage;
use crate::model::event::plain;
use crate::model::profile::Source;

/// iPXE comes back by itself after a 503 with Retry-After; so long is it kept waiting for a file
/// that is still cold, which is less than its own patience.
const PATIENCE: Duration = Duration::from_secs(10);

/// `/mirror/NAME/PATH`.
pub async fn file(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let (name, path) = parts(&req, 2);
    let now = Timestamp::now();
    let boot = web.machine_of(&req).and_then(|mac| web.ledger.newest_boot(mac, now));
    let key = boot.as_ref().map(|boot| boot.key.clone());
    let answer = serve(&req, &web, &name, &path, key).await?;
    let Some(boot) = boot else { return Ok(answer) };
    // What is known by a query is nothing that could be fetched by its path alone.
    if req.query_string().is_empty() {
        mirrors(&web, &name)?.asked(&boot.key, &boot.profile, &name, &path);
    }
    Ok(told(&req, answer, web.clone(), boot.mac, Stage::System, format!("{name}/{path}")))
}

/// `/b/TOKEN/mirror/NAME/PATH`: the same, told to the timeline.
pub async fn of_boot(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let boot = web.boot_of(&req, req.match_info().query("token"))?;
    let (name, path) = parts(&req, 4);
    let config = web.config.load_full();
    let is = |source: &Source| match source {
        Source::Mirror { mirror, path: p } => {
            *mirror == name && percent_decode_str(&path).decode_utf8_lossy() == p.as_str()
        }
        _ => false,
    };
    let stage = files::stage_by(config.profile(&boot.profile), is);
    let answer = serve(&req, &web, &name, &path, Some(boot.key.clone())).await?;
    if req.method() == Method::GET {
        web.stepped(&boot, stage);
    }
    if req.query_string().is_empty() {
        mirrors(&web, &name)?.asked(&boot.key, &boot.profile, &name, &path);
    }
    Ok(told(&req, answer, web.clone(), boot.mac, stage, format!("{name}/{path}")))
}

fn mirrors<'a>(web: &'a web::Data<Web>, name: &str) -> Result<&'a Arc<Mirrors>, mirror::No> {
    web.mirrors.as_ref().ok_or_else(|| mirror::No::NoMirror(plain(name, 80)))
}

/// Name, and path as it was sent.
fn parts(req: &HttpRequest, at: usize) -> (String, String) {
    let mut parts = req.path().splitn(at + 2, '/').skip(at);
    let name = percent_decode_str(parts.next().unwrap_or("")).decode_utf8_lossy().into_owned();
    (name, parts.next().unwrap_or("").to_string())
}

async fn serve(
    req: &HttpRequest,
    web: &web::Data<Web>,
    name: &str,
    path: &str,
    boot: Option<String>,
) -> Result<HttpResponse, No> {
    let query = Some(req.query_string()).filter(|q| !q.is_empty());
    let ask = Ask {
        mirror: name.into(),
        path: path.into(),
        query: query.map(str::to_string),
        boot,
        headers: theirs(req),
        from: first_wanted(req),
    };
    let answered = async {
        let answer = mirrors(web, name)?.ask(ask).await?;
        web.counts.cache(match &answer {
            Answer::Held(_, used) => Cached::Used(*used),
            Answer::Filling(..) => Cached::Filling,
            Answer::Passing(_) => Cached::Passing,
        });
        match answer {
            Answer::Held(held, used) => Ok(whole(req, held, used)),
            Answer::Filling(about, flight) => Ok(filling(req, web, &about, &flight)),
            Answer::Passing(pass) => passing(req, *pass).await,
        }
    };
    match is_ipxe(req) {
        true => tokio::time::timeout(PATIENCE, answered).await.map_err(|_| mirror::No::Busy)?,
        false => answered.await,
    }
}

fn is_ipxe(req: &HttpRequest) -> bool {
    let agent = req.headers().get(header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"iPXE"))
}

/// The client's headers, as the http crate of reqwest and the cache rules has them.
fn theirs(req: &HttpRequest) -> http::HeaderMap {
    let mut out = http::HeaderMap::new();
    for (name, value) in req.headers() {
        let name = http::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = http::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            out.append(name, value);
        }
    }
    out
}

/// The first byte that is wanted: where a cold file is begun. Only a hint; what is sent is decided
/// when the length is known.
fn first_wanted(req: &HttpRequest) -> u64 {
    let range = req.headers().get(header::RANGE).and_then(|v| v.to_str().ok());
    let first =
        range.and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.trim().parse().ok());
    first.unwrap_or(0)
}

/// What the client shall know of the bytes; `proven`: they are what they are said to be, so that a
/// part of them may later be joined to another.
fn validators(about: &About, len: u64, proven: bool) -> Validators {
    let date = |text: &str| text.parse::<HttpDate>().ok().map(SystemTime::from);
    let modified = about.last_modified().and_then(date);
    match about.digest {
        Some(_) if !proven => Validators { etag: None, modified: None, len },
        Some(digest) => {
            let etag = format!("\"{}\"", &digest.hex()[..32]);
            Validators { etag: Some(etag), modified, len }
        }
        None => Validators { etag: about.etag().map(Into::into), modified, len },
    }
}

fn content_type(about: &About) -> String {
    about.header("content-type").unwrap_or("application/octet-stream").to_string()
}

/// The headers that were kept with a response of a plain mirror, and where it came from (RFC 9211).
fn dressed(answer: &mut HttpResponseBuilder, about: &About, status: &str, parted: bool) {
    answer.insert_header(("cache-status", format!("pilotlight; {status}")));
    if about.digest.is_some() {
        return;
    }
    let ours = |name: &str| {
        matches!(name, "content-type" | "etag" | "last-modified" | "date" | "age")
            || (parted && name == "content-range")
    };
    for (name, value) in about.headers.iter().filter(|(name, _)| !ours(name)) {
        answer.append_header((name.as_str(), value.as_str()));
    }
    if let (true, Some(age)) = (status.starts_with("fwd=miss"), about.header("age")) {
        answer.insert_header((header::AGE, age));
    }
    if !status.starts_with("fwd=miss") {
        let age = fresh::age(about, Timestamp::now()).as_secs();
        answer.insert_header((header::AGE, age.to_string()));
        if let Some(date) = about.header("date") {
            answer.insert_header((header::DATE, date));
        }
    }
}

/// Where nothing is judged by them, the validators go out as they came.
fn validated(answer: &mut HttpResponseBuilder, about: &About) {
    for (name, value) in [("etag", about.etag()), ("last-modified", about.last_modified())] {
        if let Some(value) = value.filter(|_| about.digest.is_none()) {
            answer.insert_header((name, value));
        }
    }
}

fn whole(req: &HttpRequest, held: Held, used: Use) -> HttpResponse {
    let status = match used {
        Use::Hit => "hit",
        Use::Revalidated => "fwd=stale; fwd-status=304; collapsed",
        Use::Stale => "hit; detail=\"the mirror is away\"",
    };
    let is = validators(&held.about, held.len, true);
    match conditional::begin(req, &is, content_type(&held.about)) {
        Err(mut answer) => {
            if let Ok(value) = header::HeaderValue::from_str(&format!("pilotlight; {status}")) {
                answer.headers_mut().insert(header::HeaderName::from_static("cache-status"), value);
            }
            *answer
        }
        Ok((mut answer, part)) => {
            let parted = part.end - part.start != held.len;
            dressed(&mut answer, &held.about, status, parted);
            let (offset, len) = (held.offset + part.start, part.end - part.start);
            plane::send(req, answer, Piece::new(held.file.clone(), offset, len))
        }
    }
}

fn filling(
    req: &HttpRequest,
    web: &web::Data<Web>,
    about: &Arc<About>,
    flight: &Arc<Flight>,
) -> HttpResponse {
    let status = "fwd=miss; stored; collapsed";
    let Some(total) = flight.total(about) else {
        let mut answer = HttpResponse::Ok();
        dressed(&mut answer, about, status, false);
        validated(&mut answer, about);
        let reader = Reader::of(flight, about, 0, None);
        return answer.content_type(content_type(about)).body(BodyStream::new(bytes(reader)));
    };
    match conditional::begin(req, &validators(about, total, false), content_type(about)) {
        Err(answer) => *answer,
        Ok((mut answer, part)) => {
            dressed(&mut answer, about, status, part.end - part.start != total);
            let reader = Reader::of(flight, about, part.start, Some(part.end));
            plane::stream(req, answer, part.end - part.start, pieces(reader, web.clone()))
        }
    }
}

async fn passing(req: &HttpRequest, pass: Pass) -> Result<HttpResponse, No> {
    let about = pass.about.clone();
    let status = format!("fwd=miss; detail=\"{}\"", pass.why.to_string().replace('"', "'"));
    let odd = StatusCode::from_u16(about.status).ok().filter(|status| *status != StatusCode::OK);
    let Some(total) = pass.total.filter(|_| odd.is_none()) else {
        let mut answer = HttpResponse::build(odd.unwrap_or(StatusCode::OK));
        dressed(&mut answer, &about, &status, false);
        validated(&mut answer, &about);
        let reader = Reader::alone(pass.from(0, None).await?);
        let body = BodyStream::new(bytes(reader));
        return Ok(answer.content_type(content_type(&about)).body(body));
    };
    match conditional::begin(req, &validators(&about, total, false), content_type(&about)) {
        Err(answer) => Ok(*answer),
        Ok((mut answer, part)) => {
            dressed(&mut answer, &about, &status, part.end - part.start != total);
            let reader = Reader::alone(pass.from(part.start, Some(part.end)).await?);
            Ok(answer.body(SizedStream::new(part.end - part.start, bytes(reader))))
        }
    }
}

fn bytes(reader: Reader) -> impl Stream<Item = io::Result<web::Bytes>> {
    unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(no) => Some((Err(io::Error::other(no)), None)),
        }
    })
}

/// What is on its way, as pieces of the file that it is written to.
fn pieces(reader: Reader, web: web::Data<Web>) -> impl Stream<Item = io::Result<Piece>> {
    unfold(Some(reader), move |reader| {
        let web = web.clone();
        async move {
            let mut reader = reader?;
            match reader.part().await {
                Ok(None) => None,
                Ok(Some(Part::File { file, offset, len })) => {
                    Some((Ok(Piece::new(file, offset, len)), Some(reader)))
                }
                Ok(Some(Part::Bytes(bytes))) => {
                    let piece = Mirrors::in_memory(&bytes);
                    let piece = piece.map(|(file, len)| Piece::new(file, 0, len));
                    let next = piece.is_ok().then_some(reader);
                    Some((piece, next))
                }
                Err(no) => {
                    // The head has gone out: a cut connection says that it is not whole.
                    let no = No::Mirror(no);
                    web.ledger.refused("http", None, &no, Timestamp::now());
                    Some((Err(io::Error::other(no.to_string())), None))
                }
            }
        }
    })
}

/// `/api/v1/mirrors`: what each URL delivers, and what is on its way.
pub async fn state(web: web::Data<Web>) -> HttpResponse {
    let url = |(url, rate): (String, Option<f64>)| json!({ "url": url, "bytes_per_second": rate });
    let Some(mirrors) = &web.mirrors else { return HttpResponse::Ok().json(json!({})) };
    let known: Vec<_> = mirrors
        .standing()
        .into_iter()
        .map(|(name, urls)| {
            json!({ "name": name, "urls": urls.into_iter().map(url).collect::<Vec<_>>() })
        })
        .collect();
    let flying: Vec<_> = mirrors
        .flying()
        .into_iter()
        .map(|(mirror, path, there, total, since)| {
            json!({
                "mirror": mirror, "path": path, "bytes": there, "total": total,
                "seconds": since.as_secs_f64(),
            })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "mirrors": known, "fetching": flying }))
}
