//! What a machine is told: entry script, its own script, loader, answer; and what it reports.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;

use super::error::No;
use super::renders::Ready;
use super::{Web, local, peer, query};
use crate::boot::render::{self, Scene};
use crate::boot::script::{self, For};
use crate::boot::{Ask, Decision, Urls, decide};
use crate::config::Config;
use crate::ledger::Script;
use crate::model::event::{plain, size};
use crate::model::{Event, Facts, Mac, Machine, Profile, Stage, machine};
use crate::{ipxe, media};

/// The largest report.
const REPORT_LIMIT: usize = 64 << 10;
const REPORT_TIME: Duration = Duration::from_secs(10);

pub async fn hello() -> &'static str {
    "This is pilotlight, a network boot server. Machines start at /boot.ipxe; files are below \
     /files/.\nPeople look at the admin door, which is on the server's own\nloopback address only: http://127.0.0.1:8067/api/machines, unless [http] admin says otherwise.\n"
}

/// `autoexec.ipxe` and `boot.ipxe`.
pub async fn entry(req: HttpRequest, web: web::Data<Web>) -> HttpResponse {
    let urls = web.door.urls(local(&req), "");
    web.record(web.machine_of(&req), Stage::Script, "GET", plain(req.path(), 120));
    plain_text(script::entry(&urls.base))
}

/// The machine's own script: facts, decision, event, text.
///
/// Whatever is wrong on our side, the machine gets a script that says so on its screen: a status
/// other than 200 would only be a number there.
pub async fn script(
    req: HttpRequest,
    web: web::Data<Web>,
    mac: web::Path<String>,
) -> Result<HttpResponse, No> {
    let mac: Mac = mac.parse()?;
    let (facts, ask) = query::read(mac, req.query_string(), peer(&req));
    let now = Timestamp::now();
    // What DHCP has told of it counts, too: an old iPXE says less than its firmware did.
    let facts = web.ledger.told(facts, now);
    let urls = web.door.urls(local(&req), &token());
    let config = web.config.load_full();

    let decision = decide(&config, &facts, &ask);
    let made = match decision {
        Decision::Install { profile, .. } => match web.renders.kept(&config, &profile.name) {
            // Nothing of it can take long.
            Some(ready) => made_of(&config, &facts, &ask, &urls, decision, |_| Ok(ready)),
            None => {
                let name = profile.name.clone();
                let theirs = (config.clone(), facts.clone(), ask.clone(), urls.clone());
                let job = move || {
                    let (config, facts, ask, urls) = theirs;
                    let mut kept = None;
                    let made = made_of(
                        &config,
                        &facts,
                        &ask,
                        &urls,
                        decide(&config, &facts, &ask),
                        |profile| {
                            let ready = ready(&config, profile)?;
                            kept = Some(ready.clone());
                            Ok(ready)
                        },
                    );
                    (made, kept)
                };
                match web.renders.run(&config, &name, job).await {
                    Err(no @ No::Endless(_)) => waits(&config, &facts, &ask, &urls, no),
                    made => {
                        let (made, kept) = made?;
                        kept.into_iter().for_each(|ready| web.renders.keep(&config, &name, ready));
                        made
                    }
                }
            }
        },
        _ => made_of(&config, &facts, &ask, &urls, decision, |profile| ready(&config, profile)),
    };

    if let Some(why) = &made.why {
        web.ledger.refused("boot", Some(mac), why, now);
    }
    let event = Event::new(Stage::Script, "GET", format!("{}: {}", req.path(), made.said));
    let name = made.machine.as_deref();
    let boot = made.profile.as_deref().map(|profile| (urls.token, profile));
    web.ledger.booted(Script { facts, name, boot, event }, now);
    Ok(plain_text(made.script))
}

/// A script, and what is to be remembered of it.
#[derive(Debug)]
pub struct Made {
    pub script: String,
    /// For the timeline: what was decided, in words.
    pub said: String,
    /// The name that the machine is declared by.
    pub machine: Option<String>,
    /// The profile that is booted, which opens a boot.
    pub profile: Option<String>,
    /// Why the machine does not get what it is declared for.
    pub why: Option<No>,
}

/// Steps 1 to 3 of [`crate::boot`], with the user's templates and folders at hand: what `serve`
/// answers and `explain` shows. Reads files, changes nothing.
pub fn make(config: &Config, facts: &Facts, ask: &Ask, urls: &Urls) -> Made {
    made_of(config, facts, ask, urls, decide(config, facts, ask), |profile| ready(config, profile))
}

fn made_of(
    config: &Config,
    facts: &Facts,
    ask: &Ask,
    urls: &Urls,
    decision: Decision<'_>,
    ready: impl FnOnce(&Profile) -> Result<Arc<Ready>, No>,
) -> Made {
    let machine = match decision {
        Decision::Install { machine, .. } => machine,
        _ => machine::find(&config.machines, facts),
    };
    let name = shown(machine, facts);
    let who = who(&name, facts, ask, urls);
    let made = |script: String, said: String, why: Option<No>| Made {
        script,
        said,
        machine: machine.map(|m| m.name.clone()),
        profile: None,
        why,
    };
    match decision {
        Decision::Install { profile, .. } => {
            let installs = ready(profile).and_then(|ready| {
                let scene = Scene::new(config, machine, profile, facts, urls);
                let answers = ready.unproved(facts, urls);
                let script = render::machine_script(&who, &scene, profile, urls, answers)?;
                if !answers.is_empty() {
                    ready.prove(facts, urls);
                }
                Ok(script)
            });
            match installs {
                Ok(script) => Made {
                    profile: Some(profile.name.clone()),
                    ..made(script, format!("boots profile {}", profile.name), None)
                },
                Err(no) => waits(config, facts, ask, urls, no),
            }
        }
        Decision::Local(why) => made(script::local(&why), format!("local disk: {why}"), None),
        Decision::Menu(why) => made(script::menu(&who, config, &why), format!("menu: {why}"), None),
        Decision::Refuse(why) => {
            let said = format!("refused: {why}");
            made(script::refuse(&name, &why.to_string()), said, Some(No::Decided(why)))
        }
        Decision::Wait(why) => waits(config, facts, ask, urls, No::Decided(why)),
    }
}

/// What a profile needs from disks: its templates, and that its files are there.
fn ready(config: &Config, profile: &Profile) -> Result<Arc<Ready>, No> {
    if let Some(missing) = media::missing(config, profile).into_iter().next() {
        return Err(missing.into());
    }
    Ok(Arc::new(Ready::of(profile, render::templates(profile)?)))
}

fn waits(config: &Config, facts: &Facts, ask: &Ask, urls: &Urls, no: No) -> Made {
    let machine = machine::find(&config.machines, facts);
    let name = shown(machine, facts);
    Made {
        script: script::wait(&who(&name, facts, ask, urls), &no.to_string()),
        said: "waits for the configuration to be mended".into(),
        machine: machine.map(|m| m.name.clone()),
        profile: None,
        why: Some(no),
    }
}

/// What the screen calls it.
fn shown(machine: Option<&Machine>, facts: &Facts) -> String {
    machine.map_or_else(|| facts.mac.to_string(), |m| m.name.clone())
}

fn who<'a>(name: &'a str, facts: &Facts, ask: &'a Ask, urls: &'a Urls) -> For<'a> {
    For { mac: facts.mac, name, base: &urls.base, choose: ask.choose.as_deref() }
}

/// A loader, from memory.
pub async fn loader(
    req: HttpRequest,
    web: web::Data<Web>,
    name: web::Path<String>,
) -> Result<HttpResponse, No> {
    let config = web.config.load_full();
    let name = name.into_inner();
    let loader =
        web::block(move || ipxe::get(&config.ipxe, &name)).await.map_err(|_| No::Slow)??;
    // EDK2 takes the type, or the name's end, as the sign that this can be started.
    let kind =
        if loader.name.ends_with(".efi") { "application/efi" } else { "application/octet-stream" };
    let etag = loader.etag();
    let what = if req.method() == "HEAD" { "HEAD" } else { "GET" };
    let detail = format!("{} ({})", req.path(), size(loader.bytes.len() as u64));
    web.record(web.machine_of(&req), Stage::Loader, what, detail);
    let same = req
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::ETAG, etag)).content_type(kind);
    if same {
        return Ok(answer.status(StatusCode::NOT_MODIFIED).finish());
    }
    Ok(answer.body(match loader.bytes {
        ipxe::Bytes::Embedded(bytes) => web::Bytes::from_static(bytes),
        ipxe::Bytes::Read(bytes) => web::Bytes::from_owner(bytes),
    }))
}

/// Our root certificate.
pub async fn ca(web: web::Data<Web>) -> Result<HttpResponse, No> {
    let pem = web.ca_pem.clone().ok_or(No::NoSuchPage)?;
    Ok(HttpResponse::Ok().content_type("application/x-pem-file").body(pem))
}

/// An answer file of the boot that the token belongs to.
pub async fn answer(
    req: HttpRequest,
    web: web::Data<Web>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, No> {
    let (token, name) = path.into_inner();
    let now = Timestamp::now();
    let boot = web.ledger.boot(&token, now).ok_or(No::NoBoot)?;
    let config = web.config.load_full();
    let facts = boot.facts.clone();
    let urls = web.door.urls(local(&req), &token);
    let asked = plain(&name, 80);
    let (theirs, booted) = (config.clone(), boot.profile.clone());
    let job = move || {
        let config = theirs;
        let gone = || No::NoProfile(booted.clone());
        let profile = config.profile(&booted).ok_or_else(gone)?;
        let at = profile.answers.iter().position(|a| a.name == name);
        let at = at.ok_or_else(|| No::NoAnswer(profile.name.clone(), plain(&name, 80)))?;
        let machine = machine::find(&config.machines, &facts);
        let scene = Scene::new(&config, machine, profile, &facts, &urls);
        let template = render::template(profile, &profile.answers[at])?;
        Ok::<_, No>(render::answer(&scene, &profile.answers[at], &template)?)
    };
    let text = web.renders.run(&config, &boot.profile, job).await?;
    let said = match &text {
        Ok(text) => format!("{asked} ({})", size(text.len() as u64)),
        Err(no) => format!("{asked}: {no}"),
    };
    web.record(Some(boot.mac), Stage::Answer, "GET", said);
    // What is in it may be a secret of this machine.
    let mut answer = plain_text(text?);
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// What the booted system says: `report/WORD`, a query, a body; by GET too, since that is all that
/// a busybox in an initrd can do.
pub async fn report(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let token = req.match_info().query("token");
    let word = req.match_info().get("word").unwrap_or("");
    let boot = web.ledger.boot(token, Timestamp::now()).ok_or(No::NoBoot)?;
    let body = tokio::time::timeout(REPORT_TIME, body.to_bytes_limited(REPORT_LIMIT))
        .await
        .map_err(|_| No::Stalled)?
        .map_err(|_| No::TooLarge)?
        .map_err(|_| No::Stalled)?;
    let query = req.query_string().to_string();
    let parts = [word.to_string(), query, String::from_utf8_lossy(&body).trim().to_string()];
    let detail = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ");
    web.record(Some(boot.mac), Stage::System, "report", detail);
    Ok(plain_text("noted\n".into()))
}

fn plain_text(text: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text)
}

/// 128 random bits in hex.
fn token() -> String {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("Linux has had getrandom(2) since 3.17");
    format!("{:032x}", u128::from_be_bytes(bits))
}
