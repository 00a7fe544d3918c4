//! Machines, shown.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Refusal, read};
use crate::boot::Ask;
use crate::http::error::No;
use crate::http::view::{self, View};
use crate::http::{Web, boot, local};
use crate::ledger::Entry;
use crate::model::diagnosis::Diagnosis;
use crate::model::lifecycle::Failure;
use crate::model::{Life, Mac, Stage, machine};

/// What stands for a token where a script is only shown.
const NO_TOKEN: &str = "TOKEN";

/// Which machines are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    state: Option<String>,
    profile: Option<String>,
    /// A part of a name, a MAC, an address or what the machine told of itself.
    q: Option<String>,
    limit: Option<usize>,
    /// With the timeline of its newest boot.
    #[serde(default)]
    timeline: bool,
}

/// A machine of the list, if it is wanted with its timeline.
#[derive(Serialize)]
struct Timed {
    #[serde(flatten)]
    view: View,
    timeline: Vec<Entry>,
}

impl Filter {
    pub fn takes(&self, view: &View) -> bool {
        self.state.as_ref().is_none_or(|s| view.state == s)
            && self.profile.as_ref().is_none_or(|p| view.profile.as_ref() == Some(p))
            && self.q.as_ref().is_none_or(|q| view.has(q))
    }
}

pub async fn list(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let filter: Filter = read::query(&req)?;
    let mut all = view::all(&web);
    all.retain(|view| filter.takes(view));
    let total = all.len();
    all.truncate(filter.limit.unwrap_or(usize::MAX));
    let mut said = HttpResponse::Ok();
    said.insert_header(("pilotlight-total", total));
    let timed = |view: View| Timed { timeline: web.ledger.timeline(view.mac), view };
    Ok(match filter.timeline {
        true => said.json(all.into_iter().map(timed).collect::<Vec<_>>()),
        false => said.json(all),
    })
}

/// The machine of the path.
pub fn asked(req: &HttpRequest, web: &Web) -> Result<Mac, Refusal> {
    let who = req.match_info().query("who");
    view::named(web, who)
        .filter(|mac| view::is_known(web, *mac))
        .ok_or_else(|| Refusal::no_machine(who))
}

/// The record of a machine without what its tokens are known by.
#[derive(Serialize)]
pub struct LifeShown<'a> {
    state: &'static str,
    since: Timestamp,
    name: Option<&'a str>,
    profile: Option<&'a str>,
    failures: u32,
    attempt: Option<AttemptShown<'a>>,
    failure: Option<&'a Failure>,
    uuid: Option<&'a str>,
    installed: Option<Timestamp>,
}

#[derive(Serialize)]
struct AttemptShown<'a> {
    number: u32,
    profile: &'a str,
    address: Option<std::net::Ipv4Addr>,
    began: Timestamp,
    until: Timestamp,
    step: Stage,
}

impl<'a> From<&'a Life> for LifeShown<'a> {
    fn from(life: &'a Life) -> Self {
        let attempt = life.attempt.as_ref().map(|a| AttemptShown {
            number: a.number,
            profile: &a.profile,
            address: a.address,
            began: a.began,
            until: a.until,
            step: a.step,
        });
        LifeShown {
            state: life.state.word(),
            since: life.since,
            name: life.name.as_deref(),
            profile: life.profile.as_deref(),
            failures: life.failures,
            attempt,
            failure: life.failure.as_ref(),
            uuid: life.uuid.as_deref(),
            installed: life.installed,
        }
    }
}

/// All of one machine.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    view: &'a View,
    life: Option<LifeShown<'a>>,
    timeline: &'a [Entry],
    /// Where and why it stopped, if it did.
    diagnosis: Option<Diagnosis>,
}

pub async fn one(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let view = shown(&web, mac)?;
    let (life, known) = (web.ledger.life(mac), web.ledger.get(mac));
    Ok(HttpResponse::Ok().json(Whole {
        view: &view,
        life: life.as_deref().map(LifeShown::from),
        timeline: known.as_ref().map_or(&[], |k| &k.timeline),
        diagnosis: web.ledger.diagnosis(mac, Timestamp::now()),
    }))
}

/// One that may have been forgotten a moment ago.
pub fn shown(web: &Web, mac: Mac) -> Result<View, Refusal> {
    view::one(web, mac).ok_or_else(|| Refusal::NoMachine(mac.to_string()))
}

/// Its boots, the newest first.
pub async fn boots(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let ledger = web.ledger.clone();
    let all = web::block(move || ledger.boots(mac)).await.map_err(|_| Refusal::Busy)?;
    Ok(HttpResponse::Ok().json(all))
}

pub async fn script(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let made = preview(&req, &web, mac).await?;
    Ok(HttpResponse::Ok().json(json!({
        "script": made.script,
        "said": made.said,
        "profile": made.profile,
        "why": made.why.map(|why| why.to_string()),
    })))
}

/// What it would be told if it asked now: nothing is remembered of it, and its token is none.
///
/// # Errors
/// Where its templates take too long.
pub async fn preview(req: &HttpRequest, web: &Web, mac: Mac) -> Result<boot::Made, No> {
    let config = web.config.load_full();
    let facts = view::facts(web, mac);
    let at = web.interfaces.first().map_or_else(|| local(req), |i| i.first().into());
    let urls = web.urls(at, NO_TOKEN);
    let own = machine::find(&config.machines, &facts).and_then(|m| m.profile.clone());
    let profile = view::one(web, mac).and_then(|v| v.profile).or(own).unwrap_or_default();
    let (theirs, life) = (config.clone(), web.ledger.life(mac));
    let library = web.library.clone();
    let job =
        move || boot::preview(&library, &theirs, &facts, &Ask::default(), &urls, life.as_deref());
    web.renders.run(&config, &profile, job).await
}
