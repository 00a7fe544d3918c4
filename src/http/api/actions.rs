//! What a person wants of a machine. Each answers with the machine as it is then, and with what
//! comes next in words.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::machines::{asked, shown};
use super::{Refusal, read};
use crate::boot::decide;
use crate::config::Config;
use crate::http::error::No;
use crate::http::view::{self, View};
use crate::http::{Web, auth};
use crate::model::event::plain;
use crate::model::lifecycle::Refused;
use crate::model::profile::Kind;
use crate::model::{LifeEvent, Mac};
use crate::power::Action;

/// RFC 1035 section 2.3.4.
const NAME: usize = 63;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assign {
    profile: String,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    profile: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    action: Action,
}

#[derive(Serialize)]
struct Done {
    #[serde(flatten)]
    view: View,
    /// What comes next.
    next: String,
}

/// Assigns a profile, and a name; also to a machine that has never been seen, by its MAC.
pub async fn assign(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let mac = match req.match_info().query("who").parse() {
        Ok(mac) => mac,
        Err(_) => asked(&req, &web)?,
    };
    let Assign { profile, name } = read::body(&req, body).await?;
    let event = assigns(&web, mac, profile, name)?;
    done(&req, &web, mac, "assign", event).await
}

/// The event that assigns `profile` to `mac`, and a name.
///
/// # Errors
/// Where there is no such profile, and for a name that is none or another machine's.
pub fn assigns(
    web: &Web,
    mac: Mac,
    profile: String,
    name: Option<String>,
) -> Result<LifeEvent, Refusal> {
    profile_of(&web.config.load(), &profile)?;
    if let Some(name) = &name {
        named(web, mac, name)?;
    }
    Ok(LifeEvent::Assign { name, profile })
}

/// Arms the next installation.
pub async fn reinstall(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let Profile { profile } = read::body(&req, body).await?;
    let event = reinstalls(&web, mac, profile)?;
    done(&req, &web, mac, "reinstall", event).await
}

/// The event that arms `mac` anew: with `profile`, or as [`decide::reinstall`] has it.
///
/// # Errors
/// Where there is no such profile, or none at all to install.
pub fn reinstalls(web: &Web, mac: Mac, profile: Option<String>) -> Result<LifeEvent, Refusal> {
    let config = web.config.load_full();
    let (facts, life) = (view::facts(web, mac), web.ledger.life(mac));
    let unsaid = || decide::reinstall(&config, &facts, life.as_deref()).map(str::to_string);
    let name = profile.or_else(unsaid).ok_or(Refusal::ProfileWanted)?;
    profile_of(&config, &name)?;
    Ok(LifeEvent::Reinstall { profile: Some(name) })
}

/// Sends it to its own disk.
pub async fn local(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let Nothing {} = read::body(&req, body).await?;
    done(&req, &web, mac, "local", LifeEvent::Local).await
}

/// Sends it to the rescue system.
pub async fn rescue(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let Profile { profile } = read::body(&req, body).await?;
    let event = rescues(&web, profile)?;
    done(&req, &web, mac, "rescue", event).await
}

/// The event that sends a machine to `profile`, or to the rescue system of the configuration.
///
/// # Errors
/// Where there is none.
pub fn rescues(web: &Web, profile: Option<String>) -> Result<LifeEvent, Refusal> {
    let config = web.config.load_full();
    let profile = profile.or_else(|| config.life.rescue.clone()).ok_or(Refusal::NoRescue)?;
    profile_of(&config, &profile)?;
    Ok(LifeEvent::Rescue { profile })
}

/// Forgets what is stored of it.
pub async fn forget(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    step(&req, &web, mac, "delete", forgets(&web, mac)?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// The event that forgets `mac`.
///
/// # Errors
/// Where nothing but what is stored keeps it from being installed again.
pub fn forgets(web: &Web, mac: Mac) -> Result<LifeEvent, Refusal> {
    let config = web.config.load_full();
    let (facts, life) = (view::facts(web, mac), web.ledger.life(mac));
    let profile = life.and_then(|l| decide::forgetting_installs(&config, &facts, &l));
    match profile {
        Some(profile) => Err(Refusal::WouldInstall(mac, profile.into())),
        None => Ok(LifeEvent::Forget),
    }
}

/// Switches it.
pub async fn power(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let mac = asked(&req, &web)?;
    let Switch { action } = read::body(&req, body).await?;
    let said = switch(&req, &web, mac, action).await?;
    Ok(HttpResponse::Ok().json(serde_json::json!({ "said": said })))
}

/// Switches a machine for whoever asks, and says what came of it.
///
/// # Errors
/// Where nothing here can, or it came to nothing.
pub async fn switch(
    req: &HttpRequest,
    web: &Web,
    mac: Mac,
    action: Action,
) -> Result<String, Refusal> {
    let hook = web.power.as_ref().ok_or(Refusal::NoPower)?;
    told(req, web, mac, &format!("power {}", action.word()));
    let said = hook(mac, action).await.map_err(Refusal::Power)?;
    Ok(plain(&said.to_string(), 300))
}

/// Changes a life for whoever asks; the attempts are those of what it is to install.
///
/// # Errors
/// Where that does not fit, or cannot be stored.
pub async fn step(
    req: &HttpRequest,
    web: &Web,
    mac: Mac,
    what: &str,
    event: LifeEvent,
) -> Result<(), Refusal> {
    let config = web.config.load_full();
    let profile = match &event {
        LifeEvent::Assign { profile, .. } => Some(profile.clone()),
        LifeEvent::Reinstall { profile } => profile.clone(),
        _ => web.ledger.life(mac).and_then(|l| l.profile.clone()),
    };
    let attempts = profile.and_then(|p| config.profile(&p).and_then(|p| p.attempts));
    let attempts = attempts.unwrap_or(config.life.attempts);
    told(req, web, mac, what);
    web.ledger.step(mac, event, attempts, Timestamp::now()).await?;
    Ok(())
}

/// Who did it is in the log.
fn told(req: &HttpRequest, web: &Web, mac: Mac, what: &str) {
    let who = auth::visitor(req).to_string();
    let name = view::one(web, mac).and_then(|v| v.name).unwrap_or_default();
    tracing::info!(target: "pilotlight", mac = %mac, "{who} asks: {what} {}", plain(&name, 80));
}

async fn done(
    req: &HttpRequest,
    web: &Web,
    mac: Mac,
    what: &str,
    event: LifeEvent,
) -> Result<HttpResponse, No> {
    step(req, web, mac, what, event).await?;
    let view = shown(web, mac)?;
    let next = next(&view, &web.config.load());
    Ok(HttpResponse::Ok().json(Done { view, next }))
}

/// What comes next for a machine, in words.
pub fn next(view: &View, config: &Config) -> String {
    let name = view.name.clone().unwrap_or_else(|| view.mac.to_string());
    let profile = view.profile.as_deref().unwrap_or("no profile");
    let live = config.profile(profile).is_some_and(|p| p.kind == Kind::Live);
    match view.state {
        "assigned" if live => format!("{name} runs {profile} at each boot from the network"),
        "assigned" => format!("{name} installs {profile} at its next boot from the network"),
        "rescue" => format!("{name} runs {profile} at each boot from the network"),
        "local" | "installed" => format!("{name} boots its own disk, network first or not"),
        "installing" => format!("{name} is being installed with {profile}"),
        "failed" => format!("{name} is held: nothing installs it until it is told to"),
        "live" => format!("{name} runs {profile} at each boot from the network"),
        _ => format!("{name} waits to be assigned"),
    }
}

fn profile_of(config: &Config, name: &str) -> Result<(), Refusal> {
    config.profile(name).map(|_| ()).ok_or_else(|| Refusal::no_profile(config, name))
}

fn named(web: &Web, mac: Mac, name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = name.len() <= NAME
        && name.chars().all(fits)
        && ends(name.chars().next())
        && ends(name.chars().last())
        && name.parse::<Mac>().is_err();
    if !good {
        return Err(Refusal::Name(plain(name, 80)));
    }
    match view::named(web, name) {
        Some(other) if other != mac => Err(Refusal::NameTaken(name.into(), other)),
        _ => Ok(()),
    }
}

impl From<Refused> for Refusal {
    fn from(why: Refused) -> Refusal {
        Refusal::NotDone(why.into())
    }
}
