//! The dashboard: pages for people, on the admin door.
//!
//! 1. [`board`] makes tiles, counts and installations of what is known of the machines; all pages
//!    that are open share it. [`look`] is how each state looks.
//! 2. [`machine`] is what one machine's page shows, and [`parts`] what moves on each page.
//! 3. [`html`] fills the templates of `assets/dashboard/`, and escapes all that is filled in.
//! 4. [`live`] sends what has changed to the pages that are open.
//! 5. [`act`] takes their forms, which [`auth`] has let in.
//! 6. [`asset`] is what pages load.
//!
//! Without any script all of it can be read and done; it just does not move.

mod act;
mod asset;
mod board;
mod html;
mod live;
mod look;
mod machine;
mod parts;
mod text;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::guard::{Any, Get, Head};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError, web};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::api::{Refusal, machines};
use super::auth::{self, Visitor};
use super::error::No;
use super::{Web, view};
use crate::ledger::Past;
use crate::model::Mac;
use crate::model::event::plain;
use board::{Board, Filter};
use live::Page;
use machine::Waterfall;

pub use asset::is_live;
pub use live::STREAMS;

/// No page is made of a board that is older.
const AGE: Duration = Duration::from_millis(20);
/// A board that takes long to make is kept so many times longer than that.
const REST: u32 = 4;

/// What all pages share.
pub struct Pages {
    board: Mutex<Option<Made>>,
    /// Streams that are open.
    streams: Arc<AtomicUsize>,
    closing: watch::Sender<bool>,
    /// When this server started: another one's boards are not ours.
    run: i64,
}

struct Made {
    at: Instant,
    took: Duration,
    board: Arc<Board>,
}

impl Default for Pages {
    fn default() -> Pages {
        let closing = watch::Sender::new(false);
        let run = Timestamp::now().as_millisecond();
        Pages { board: Mutex::default(), streams: Arc::default(), closing, run }
    }
}

impl Pages {
    /// Ends the streams.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// The next page is made of what is known by then.
    fn changed(&self) {
        if let Some(made) = &mut *self.made() {
            made.took = Duration::ZERO;
            made.at = Instant::now().checked_sub(AGE).unwrap_or(made.at);
        }
    }

    /// A board that is no older than `age`, or than a few times what one takes to be made.
    fn board(&self, web: &Web, age: Duration) -> Result<Arc<Board>, No> {
        let mut made = self.made();
        if let Some(made) = made.as_ref().filter(|m| m.at.elapsed() < age.max(m.took * REST)) {
            return Ok(made.board.clone());
        }
        let at = Instant::now();
        let none = Board::default();
        let before = made.as_ref().map_or(&none, |m| &m.board);
        let board = Arc::new(Board::after(before, &view::all(web), Timestamp::now())?);
        // The first takes long, and is no measure: every tile is new.
        let took = if made.is_some() { at.elapsed() } else { Duration::ZERO };
        *made = Some(Made { at, took, board: board.clone() });
        Ok(board)
    }

    /// What a board is known by.
    fn stamp(&self, board: &Board) -> String {
        format!("{}-{}", self.run, board.version)
    }

    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages, below everything else of the admin door: what is nobody's is theirs.
pub fn routes(app: &mut web::ServiceConfig) {
    let get = |path: &str| web::resource(path).default_service(web::to(wrong_method));
    let gets = || web::route().guard(Any(Get()).or(Head()));
    app.service(
        web::scope("")
            .wrap(from_fn(in_html))
            .service(get("/").route(gets().to(fleet)))
            .service(get("/live").route(web::get().to(live::live)))
            .service(get("/leases").route(gets().to(leases)))
            .service(get("/mirrors").route(gets().to(mirrors)))
            .service(get("/alarms").route(gets().to(alarms)))
            .service(get("/login").route(gets().to(login)).route(web::post().to(auth::login)))
            .service(get("/assets/{name}").route(gets().to(asset::asset)))
            .service(get("/machines/{who}").route(gets().to(one)))
            .service(get("/machines/{who}/script").route(gets().to(script)))
            .service(get("/machines/{who}/boots/{began}").route(gets().to(one_boot)))
            .service(
                get("/machines/{who}/{act}")
                    .app_data(web::FormConfig::default().limit(4096))
                    .route(gets().to(act::confirm))
                    .route(web::post().to(act::act)),
            )
            .default_service(web::to(nothing)),
    );
}

async fn wrong_method() -> Result<&'static str, No> {
    Err(No::Method)
}

async fn nothing() -> Result<&'static str, No> {
    Err(No::NoSuchPage)
}

async fn fleet(
    req: HttpRequest,
    web: web::Data<Web>,
    filter: Option<web::Query<Filter>>,
) -> Result<HttpResponse, No> {
    let filter = filter.map(|f| f.into_inner().tidy()).unwrap_or_default();
    let board = web.pages.board(&web, AGE)?;
    let tiles: Vec<_> = board.tiles.iter().filter(|t| filter.takes(t)).collect();
    let page = Page::Fleet(filter.clone());
    let mut with = parts::context(&web, &page, Timestamp::now())?;
    with["shown"] = tiles.len().into();
    with["dense"] = (tiles.len() > DENSE).into();
    with["tiny"] = (tiles.len() > TINY).into();
    let live = board::address("/live", filter.state.as_deref(), filter.q.as_deref());
    let and = if live.contains('?') { '&' } else { '?' };
    let live = format!("{live}{and}at={}", web.pages.stamp(&board));
    with["page"] = frame(&req, &web, "fleet", Some(live));
    let html = html::fill("fleet.html", &with)?;
    // Tiles are made already, and this comment cannot come from anything that was filled in.
    let (before, after) = html.split_once("<!--tiles-->").ok_or(No::NoSuchPage)?;
    let all: usize = tiles.iter().map(|t| t.html.len() + 1).sum();
    let mut whole = String::with_capacity(html.len() + all);
    whole.push_str(before);
    for tile in tiles {
        whole.push_str(&tile.html);
    }
    whole.push_str(after);
    Ok(answer(StatusCode::OK, whole))
}

/// Machines up to which each tile has room for its name, and for a finger.
const DENSE: usize = 300;
const TINY: usize = 1200;

async fn one(
    req: HttpRequest,
    web: web::Data<Web>,
    who: web::Path<String>,
) -> Result<HttpResponse, No> {
    let mac = known(&web, &who)?;
    let now = Timestamp::now();
    let boots = boots(&web, mac).await?;
    let mut with = parts::context(&web, &Page::Machine(mac), now)?;
    with["boots"] = boots.iter().map(|past| json!(machine::Boot::of(past, now))).collect();
    let live = format!("/live?page=machine&id={}", text::id(mac));
    page(&req, &web, "machine.html", "fleet", Some(live), with)
}

/// The machine of an address; none that nothing is known of.
fn known(web: &Web, who: &str) -> Result<Mac, No> {
    view::named(web, who).filter(|mac| view::is_known(web, *mac)).ok_or(No::NoMachine)
}

/// The boots of a machine that are kept, the newest first: they are in a file.
async fn boots(web: &Web, mac: Mac) -> Result<Vec<Past>, No> {
    let ledger = web.ledger.clone();
    web::block(move || ledger.boots(mac)).await.map_err(|_| No::Api(Refusal::Busy))
}

/// One of them, with all of its steps.
async fn one_boot(
    req: HttpRequest,
    web: web::Data<Web>,
    path: web::Path<(String, i64)>,
) -> Result<HttpResponse, No> {
    let (who, began) = path.into_inner();
    let mac = known(&web, &who)?;
    let view = view::one(&web, mac).ok_or(No::NoMachine)?;
    let all = boots(&web, mac).await?;
    let past = all.iter().find(|past| machine::Boot::is(past, began)).ok_or(No::NoSuchPage)?;
    let now = Timestamp::now();
    let with = json!({
        "id": text::id(mac), "name": board::shown(&view), "b": machine::Boot::of(past, now),
        "fall": Waterfall::of(&past.timeline, now),
    });
    page(&req, &web, "boot.html", "fleet", None, with)
}

/// What the machine would be told if it asked now; the token in it opens nothing.
async fn script(
    req: HttpRequest,
    web: web::Data<Web>,
    who: web::Path<String>,
) -> Result<HttpResponse, No> {
    let mac = known(&web, &who)?;
    let view = view::one(&web, mac).ok_or(No::NoMachine)?;
    let made = machines::preview(&req, &web, mac).await?;
    let lines: Vec<&str> = made.script.lines().collect();
    let (id, name) = (text::id(mac), board::shown(&view));
    let with = json!({ "id": id, "name": name, "said": made.said, "lines": lines });
    page(&req, &web, "script.html", "fleet", None, with)
}

async fn leases(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let with = parts::context(&web, &Page::Leases, Timestamp::now())?;
    page(&req, &web, "leases.html", "leases", Some("/live?page=leases".into()), with)
}

async fn mirrors(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let with = parts::context(&web, &Page::Mirrors, Timestamp::now())?;
    page(&req, &web, "mirrors.html", "mirrors", Some("/live?page=mirrors".into()), with)
}

async fn alarms(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let with = parts::context(&web, &Page::Alarms, Timestamp::now())?;
    page(&req, &web, "alarms.html", "alarms", Some("/live?page=alarms".into()), with)
}

async fn login(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    page(&req, &web, "login.html", "login", None, json!({ "wrong": null }))
}

/// What stands around each page.
fn frame(req: &HttpRequest, web: &Web, here: &str, live: Option<String>) -> Value {
    let live = live.filter(|_| is_live());
    let visitor = auth::visitor(req);
    // Who is not let in is told nothing, not even how many alarms there are.
    let stranger = visitor == Visitor::Stranger;
    json!({
        "stranger": stranger, "session": matches!(visitor, Visitor::Session { .. }),
        "links": *asset::LINKS, "here": here, "live": live, "csrf": auth::form_token(req),
        "alarms": if stranger { 0 } else { web.ledger.alarms().len() }, "version": env!("CARGO_PKG_VERSION"),
    })
}

fn page(
    req: &HttpRequest,
    web: &Web,
    template: &str,
    here: &str,
    live: Option<String>,
    mut with: Value,
) -> Result<HttpResponse, No> {
    with["page"] = frame(req, web, here, live);
    Ok(answer(StatusCode::OK, html::fill(template, &with)?))
}

fn answer(status: StatusCode, html: String) -> HttpResponse {
    HttpResponse::build(status).content_type("text/html; charset=utf-8").body(html)
}

/// A refusal as a page, for whoever reads pages.
async fn in_html<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let accept = req.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let reads = accept.is_some_and(|a| a.contains("text/html"));
    let answer = next.call(req).await?;
    let no = answer.response().error().and_then(|e| e.as_error::<No>()).filter(|_| reads);
    let Some(no) = no else { return Ok(answer.map_into_left_body()) };
    let status = no.status_code();
    // Who came by a wrong token tries again.
    let template = if answer.request().path() == "/login" { "login.html" } else { "error.html" };
    let with = json!({
        "wrong": plain(&no.to_string(), 400), "status": status.as_u16(), "title": status.canonical_reason(), "why": plain(&no.to_string(), 400),
    });
    let req = answer.request();
    let html = match req.app_data::<web::Data<Web>>() {
        Some(web) => page(req, web, template, "", None, with),
        None => Err(No::NoSuchPage),
    };
    let Ok(html) = html else { return Ok(answer.map_into_left_body()) };
    // The refusal stays with the answer: it is counted further out.
    let mut answer = answer.map_body(|_, _| EitherBody::right(html.into_body()));
    let html = header::HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, html);
    Ok(answer)
}
