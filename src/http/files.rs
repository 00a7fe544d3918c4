//! The data plane: folders as they are, and kernels and initrds under a boot's token, so that each
//! fetch is on the timeline of the machine that it belongs to.

use std::fmt::Write;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::Web;
use super::conditional::{self, Validators};
use super::error::No;
use super::plane::{self, Piece, Sent, ZEROS};
use crate::config::{Config, Folder, Root};
use crate::media::{self, Found, Image, LISTED, Stretch, Stretches};
use crate::model::event::{DETAIL_LIMIT, plain, size};
use crate::model::profile::{Boot, Source};
use crate::model::{Mac, Profile, Stage, Transfer};

/// `/files/NAME/PATH`. What a machine that boots fetches by it (a tree of packages, most of all) is
/// on its timeline, too.
pub async fn folder(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let config = web.config.load_full();
    let (name, path) = parts(&req, 2)?;
    let now = Timestamp::now();
    let boot = web.machine_of(&req).and_then(|mac| web.ledger.newest_boot(mac, now));
    let Some(boot) = boot else { return serve(&req, &web, &config, &name, path).await };
    let stage = stage_of(config.profile(&boot.profile), &name, &path);
    let shown = format!("{name}/{}", path.display());
    let answer = serve(&req, &web, &config, &name, path).await?;
    Ok(told(&req, answer, web.clone(), boot.mac, stage, shown))
}

/// `/files/`: the folders and media that there are, by name, and what each was recognised as; nothing
/// of where they are on this host.
pub async fn homes(web: web::Data<Web>) -> HttpResponse {
    let config = web.config.load();
    let homes = config.folders.iter().take(LISTED);
    page(listing("files", homes.map(|home| (home.name.as_bytes(), true, recognised(home)))))
}

fn recognised(home: &Folder) -> String {
    let unknown = matches!(home.root, Root::Images(_)).then_some("not recognised");
    home.is.as_deref().or(unknown).unwrap_or_default().to_string()
}

/// `/files`: the links of a listing are relative.
pub async fn homes_moved() -> HttpResponse {
    moved("/files/")
}

/// `/image/NAME.iso`: the first image of a medium as a whole, for systems that load all of it.
pub async fn image(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let config = web.config.load_full();
    let name = req.match_info().query("name");
    let name = percent_decode_str(name).decode_utf8_lossy().into_owned();
    let nobody = || No::NoFolder(name.chars().take(80).collect());
    let Root::Images(images) = &config.folder(&name).ok_or_else(nobody)?.root else {
        return Err(nobody());
    };
    let path = images.first().cloned().ok_or_else(nobody)?;
    let opened = web::block(move || Image::open(&path)).await.map_err(|_| No::Slow)??;
    let file = Stretches::whole(opened);
    let answer = image_answer(&req, &file.image.path, &file);
    let boot = web.machine_of(&req).and_then(|mac| web.ledger.newest_boot(mac, Timestamp::now()));
    let Some(boot) = boot else { return Ok(answer) };
    Ok(told(&req, answer, web.clone(), boot.mac, Stage::System, format!("{name}.iso")))
}

/// `/b/TOKEN/files/NAME/PATH`: the same, told to the timeline.
pub async fn of_boot(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let boot = web.boot_of(&req, req.match_info().query("token"))?;
    let config = web.config.load_full();
    let (name, path) = parts(&req, 4)?;
    let stage = stage_of(config.profile(&boot.profile), &name, &path);
    let shown = format!("{name}/{}", path.display());
    let answer = serve(&req, &web, &config, &name, path).await?;
    if req.method() == Method::GET {
        web.stepped(&boot, stage);
    }
    Ok(told(&req, answer, web.clone(), boot.mac, stage, shown))
}

/// Puts a file's fetch on the timeline of `mac`: now, and when its last byte has left or never did.
pub fn told(
    req: &HttpRequest,
    answer: HttpResponse,
    web: web::Data<Web>,
    mac: Mac,
    stage: Stage,
    shown: String,
) -> HttpResponse {
    let sent = answer.extensions().get::<Sent>().cloned();
    let Some(sent) = sent.filter(|_| req.method() == Method::GET) else { return answer };
    let now = Timestamp::now();
    web.ledger.sending(mac, sent.counter(), now);
    // Of packages, which come by the thousand, the end alone is told.
    if stage != Stage::System {
        let range = answer.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
        let what = format!(
            "{shown} ({}{}{})",
            size(sent.total),
            range.map_or("", |_| ", "),
            range.unwrap_or("")
        );
        web.record(Some(mac), stage, "GET", what);
    }
    answer.map_body(|_, inner| {
        let began = Instant::now();
        BoxBody::new(Told { inner, web, mac, stage, shown, sent, began })
    })
}

/// Name and cleaned path of the request, `at` being the name's place among the parts of the raw
/// path: what the router hands on is half decoded.
fn parts(req: &HttpRequest, at: usize) -> Result<(String, PathBuf), No> {
    let mut parts = req.path().splitn(at + 2, '/').skip(at);
    let name = percent_decode_str(parts.next().unwrap_or("")).decode_utf8_lossy().into_owned();
    Ok((name, media::clean(parts.next().unwrap_or(""))?))
}

fn stage_of(profile: Option<&Profile>, name: &str, path: &Path) -> Stage {
    stage_by(profile, |source| match source {
        Source::Ours { folder, path: p } => {
            folder == name && media::clean_plain(p).is_ok_and(|p| p == path)
        }
        Source::Mirror { .. } | Source::Url(_) | Source::Answer(_) => false,
    })
}

/// The stage of a boot at which the file is fetched that `is` knows.
pub fn stage_by(profile: Option<&Profile>, is: impl Fn(&Source) -> bool) -> Stage {
    match profile {
        Some(p) if p.boots().filter_map(Boot::kernel).any(&is) => Stage::Kernel,
        Some(p) if p.sources().any(is) => Stage::Initrd,
        _ => Stage::System,
    }
}

async fn serve(
    req: &HttpRequest,
    web: &Web,
    config: &Config,
    name: &str,
    path: PathBuf,
) -> Result<HttpResponse, No> {
    let folder =
        config.folder(name).ok_or_else(|| No::NoFolder(name.chars().take(80).collect()))?;
    let slash = req.path().ends_with('/');
    let found = match media::resolve_now(&web.library, &folder.root, &path) {
        Some(found) => found,
        None => {
            let (library, root, at) = (web.library.clone(), folder.root.clone(), path.clone());
            let look = move || media::resolve(&library, &root, &at);
            web::block(look).await.map_err(|_| No::Slow)??
        }
    };
    match found {
        Found::File(..) | Found::Image(_) if slash => Err(media::Refused::NotThere.into()),
        Found::Image(file) => Ok(image_answer(req, &path, &file)),
        Found::File(file, _) => {
            let unreadable = |e: io::Error| media::Refused::Unreadable(e.to_string());
            let meta = file.metadata().map_err(unreadable)?;
            Ok(file_answer(req, &path, file, &meta))
        }
        // The links of a listing are relative.
        Found::Dir(_) if !slash => Ok(moved(&format!("{}/", req.path()))),
        Found::Dir(entries) => {
            let entries = entries.iter().map(|e| {
                let size = if e.is_dir { String::new() } else { e.size.to_string() };
                (e.name.as_encoded_bytes(), e.is_dir, size)
            });
            Ok(page(listing(&format!("{name}/{}", path.display()), entries)))
        }
    }
}

fn moved(to: &str) -> HttpResponse {
    HttpResponse::MovedPermanently()
        .insert_header((header::LOCATION, to))
        .content_type("text/plain; charset=utf-8")
        .body("This is a folder; its address ends with a slash.\n")
}

fn page(listing: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, "default-src 'none'"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(listing)
}

/// All of an open file, or what is asked of it.
fn file_answer(req: &HttpRequest, path: &Path, file: File, meta: &Metadata) -> HttpResponse {
    let modified = meta.modified().ok();
    // To the nanosecond: a file that is written twice in a second is two files.
    let (ino, len) = (meta.ino(), meta.len());
    let etag = format!("\"{ino:x}-{len:x}-{:x}.{:x}\"", meta.mtime(), meta.mtime_nsec());
    let is = Validators { etag: Some(etag), modified, len };
    plane::answer(req, &is, content_type(path), Arc::new(file), 0)
}

/// The same of a file in an image.
fn image_answer(req: &HttpRequest, path: &Path, file: &Stretches) -> HttpResponse {
    let is = Validators { etag: Some(file.etag()), modified: file.modified, len: file.len };
    let (answer, part) = match conditional::begin(req, &is, content_type(path)) {
        Err(answer) => return *answer,
        Ok(begun) => begun,
    };
    let len = part.end - part.start;
    let parts: Vec<Stretch> = file.part(part).collect();
    match parts[..] {
        [Stretch { offset: Some(offset), len }] => {
            plane::send(req, answer, in_image(&file.image, offset, len))
        }
        _ => {
            let image = file.image.clone();
            let pieces = parts.into_iter().flat_map(move |part| pieces(image.clone(), part));
            plane::stream(req, answer, len, stream::iter(pieces))
        }
    }
}

fn in_image(image: &Arc<Image>, offset: u64, len: u64) -> Piece {
    Piece { of: Some(image.clone()), ..Piece::new(image.file.clone(), offset, len) }
}

/// A stretch is one piece; what is recorded nowhere is as many as it takes.
fn pieces(image: Arc<Image>, part: Stretch) -> impl Iterator<Item = io::Result<Piece>> {
    let step = part.offset.map_or(ZEROS, |_| part.len);
    let all = (0..part.len).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    all.map(move |at| match part.offset {
        Some(offset) => Ok(in_image(&image, offset, part.len)),
        None => Ok(Piece::new(plane::zeros()?, 0, ZEROS.min(part.len - at))),
    })
}

/// By the name's end, since nothing else is known of it.
fn content_type(path: &Path) -> String {
    // EDK2 takes it as the sign that this can be started.
    if path.extension().is_some_and(|e| e == "efi") {
        return "application/efi".into();
    }
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let text =
        kind.type_() == mime_guess::mime::TEXT || kind == mime_guess::mime::APPLICATION_JAVASCRIPT;
    match text && kind.get_param("charset").is_none() {
        true => format!("{kind}; charset=utf-8"),
        false => kind.to_string(),
    }
}

/// A plain list: each name, whether it is a folder, and what there is to say of it. Names come from other people's disks: they are encoded in links and escaped in
/// text; `./` keeps a name with a colon from being a scheme (RFC 3986 section 4.2).
fn listing<'e>(
    title: &str,
    entries: impl ExactSizeIterator<Item = (&'e [u8], bool, String)>,
) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n<pre><a href=\"../\">../</a>\n"
    );
    let cut = entries.len() >= LISTED;
    for (name, is_dir, said) in entries {
        let slash = if is_dir { "/" } else { "" };
        let href = percent_encode(name, NON_ALPHANUMERIC);
        let name = escape(&String::from_utf8_lossy(name));
        let gap = if said.is_empty() { "" } else { "  " };
        let said = escape(&said);
        // Writing to a String does not fail.
        let _ = writeln!(page, "<a href=\"./{href}{slash}\">{name}{slash}</a>{gap}{said}");
    }
    if cut {
        let _ = writeln!(page, "and more: only the first {LISTED} are shown");
    }
    page.push_str("</pre></body></html>\n");
    page
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// A body that tells the timeline when its last byte has left, or that it never did.
struct Told {
    inner: BoxBody,
    web: web::Data<Web>,
    mac: Mac,
    stage: Stage,
    shown: String,
    sent: Sent,
    began: Instant,
}

impl MessageBody for Told {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.inner.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        Pin::new(&mut self.inner).poll_next(cx)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let transfer = Transfer {
            name: plain(&self.shown, DETAIL_LIMIT),
            sent: self.sent.bytes(),
            total: self.sent.total,
            millis: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let counter = Some(self.sent.counter());
        self.web.ledger.sent(self.mac, self.stage, transfer, counter, Timestamp::now());
    }
}
