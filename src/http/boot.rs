//! What a machine is told: entry script, its own script, loader, answer; and what it reports.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;

use super::error::{No, in_the_clear};
use super::renders::Ready;
use super::{Web, local, peer, query, shown as shown_address};
use crate::boot::decide::Because;
use crate::boot::render::{self, Scene};
use crate::boot::script::{self, For, Untold};
use crate::boot::{Ask, Decision, Urls, decide};
use crate::config::{Config, Mode};
use crate::ipxe;
use crate::ledger::{Boot, Leased, NotDone, Script};
use crate::media::{self, Library};
use crate::model::diagnosis::{CARRIED, REHEARSED};
use crate::model::event::{plain, size};
use crate::model::firmware::{self, Transport};
use crate::model::lifecycle::{Begin, Word};
use crate::model::{
    Event, Facts, Hidden, Life, LifeEvent, Mac, Machine, Profile, Stage, State, Why, machine,
};

/// The largest report.
const REPORT_LIMIT: usize = 64 << 10;
const REPORT_TIME: Duration = Duration::from_secs(10);
/// Words of a report that mean one of the two that count, and would be taken for progress: the
/// machine would be installed again for a typing error.
const SLIPS: [&str; 9] =
    ["installed", "finished", "complete", "completed", "success", "ok", "error", "fail", "failure"];

pub async fn hello() -> &'static str {
    "This is pilotlight, a network boot server. Machines start at /boot.ipxe; files are below \
     /files/.\nPeople look at the admin door: http://127.0.0.1:8067/ on the server itself, unless \
     [http] admin says otherwise.\n"
}

/// `autoexec.ipxe` and `boot.ipxe`.
pub async fn entry(req: HttpRequest, web: web::Data<Web>) -> HttpResponse {
    let urls = web.urls(local(&req), "");
    web.record(web.machine_of(&req), Stage::Script, "GET", plain(req.path(), 120));
    // By HTTP, and beside a loader: the firmware fetched that by HTTP, and told it of no CA.
    let by_http = in_the_clear(&req).is_some() && req.path() == "/loader/autoexec.ipxe";
    let config = web.config.load();
    // Another's certificate is trusted as it is, and another's DHCP tells nothing of ours.
    if !by_http || urls.ca.is_none() || config.dhcp.mode == Mode::Off {
        return plain_text(script::entry(&urls.base, None));
    }
    let facts =
        web.machine_of(&req).map(|mac| web.ledger.facts(mac).unwrap_or_else(|| Facts::of(mac)));
    let machine = facts.and_then(|facts| machine::find(&config.machines, &facts));
    let by_http = firmware::TABLE.iter().filter(|f| f.transport == Transport::Http);
    let loaders = by_http.map(|f| (f, ipxe::loader_for(&config.ipxe, f, machine))).collect();
    plain_text(script::entry(&urls.base, Some(&Untold { http: &urls.http, loaders })))
}

/// The machine's own script: facts, decision, state, event, text.
///
/// Whatever is wrong on our side, the machine gets a script that says so on its screen: a status
/// other than 200 would only be a number there.
pub async fn script(
    req: HttpRequest,
    web: web::Data<Web>,
    name: web::Path<String>,
) -> Result<HttpResponse, No> {
    let mac: Mac = name.strip_suffix(".ipxe").ok_or(No::NoSuchPage)?.parse()?;
    let (facts, ask) = query::read(mac, req.query_string(), peer(&req));
    let now = Timestamp::now();
    let config = web.config.load_full();
    // What DHCP has told of it counts, too: an old iPXE says less than its firmware did.
    let facts = web.ledger.would_know(facts);
    let life = web.ledger.life(mac);
    if decide::is_ignored(&config, &facts, life.as_deref()) {
        return Err(No::Decided(Because::Ignored));
    }
    let library = web.library.clone();
    let mut asked = Asked { library, config, facts, ask, urls: web.urls(local(&req), ""), life };
    let changes = req.method() == Method::GET;
    if let Some(no) = impostor(&web, &asked, peer(&req)) {
        if changes {
            web.ledger.alarm(no.name(), &mac.to_string(), no.to_string(), now);
            web.ledger.refused("boot", Some(mac), &no, now);
        }
        let name = asked.question().name();
        return Ok(plain_text(match no {
            No::UuidTwice { .. } => script::local(&no),
            _ => script::refuse(&name, &no.to_string()),
        }));
    }
    if let Some(no) = unseen(&web, &asked) {
        return Ok(plain_text(not_yet(&web, &asked, no, changes, now)));
    }
    if !changes {
        // As much as GET would say, and nothing begins by it.
        asked.urls.token = "0".repeat(32);
        let made = match asked.question().boots_what() {
            Some(profile) => rendered(&web, &asked, &profile).await?,
            None => asked.question().make(|profile| asked.question().ready(profile, true)),
        };
        return Ok(plain_text(made.script));
    }
    if asked.ask.rehearse {
        return Ok(plain_text(rehearsed(&web, &mut asked, &req, now).await?));
    }
    asked.facts = web.ledger.told(asked.facts, peer(&req), now);
    let (made, boot) = answered(&web, &mut asked, peer(&req), now).await?;

    if let Some(why) = &made.why {
        web.ledger.refused("boot", Some(mac), why, now);
    }
    let event = Event::new(Stage::Script, "GET", [req.path(), ": ", &made.said].concat());
    // One that waits to be assigned asks four times a minute.
    let again = made.discovers && web.ledger.last(mac).is_some_and(|last| last == event);
    if !again {
        let name = made.machine.as_deref();
        web.ledger.booted(Script { facts: asked.facts, name, boot, event }, now);
    }
    if made.discovers {
        web.ledger.step_later(mac, LifeEvent::Discover, 0, now);
    }
    Ok(plain_text(made.script))
}

/// The script for who only pretends to be the machine: what it would be told, and a boot of its own
/// that opens files, and answers without their secrets.
async fn rehearsed(
    web: &Web,
    asked: &mut Asked,
    req: &HttpRequest,
    now: Timestamp,
) -> Result<String, No> {
    let mac = asked.facts.mac;
    let made = match asked.question().boots_what() {
        Some(profile) => {
            let boot = Boot::new(token(), asked.facts.clone(), &profile, peer(req), false, now)
                .rehearsed();
            asked.urls.token = boot.token().unwrap_or_default().to_string();
            let made = rendered(web, asked, &profile).await?;
            if made.profile.is_some() {
                web.ledger.rehearses(boot);
            }
            made
        }
        None => asked.question().make(|profile| asked.question().ready(profile, true)),
    };
    if let Some(why) = &made.why {
        web.ledger.refused("boot", Some(mac), why, now);
    }
    let said = [req.path(), ": ", REHEARSED, &made.said].concat();
    web.record(Some(mac), Stage::Script, "GET", said);
    Ok(made.script)
}

/// All that a script is made of.
struct Asked {
    library: Arc<Library>,
    config: Arc<Config>,
    facts: Facts,
    ask: Ask,
    urls: Urls,
    life: Option<Arc<Life>>,
}

impl Asked {
    fn question(&self) -> Question<'_> {
        let Asked { library, config, facts, ask, urls, life } = self;
        Question { library, config, facts, ask, urls, life: life.as_deref() }
    }
}

/// Why who asks is not the machine that it says it is: an address that DHCP has not given it, or
/// another UUID than it was installed with; or it is to be installed, and another MAC with its UUID
/// was before. Each is an alarm.
fn impostor(web: &Web, asked: &Asked, peer: Option<Ipv4Addr>) -> Option<No> {
    let (question, mac) = (asked.question(), asked.facts.mac);
    let installs = matches!(question.decide(), Decision::Install { .. });
    // A router that translates addresses, or a rehearsal, which is one to many machines. Nobody
    // installs through that: whoever can send a relay's DHCP would read the answers.
    let through = |l: &Leased| l.relay == peer && peer.is_some() && !installs;
    let elsewhere = web.ledger.lease(mac).filter(|l| Some(l.address) != peer && !through(l));
    let no = elsewhere.map(|l| No::MacTwice {
        mac,
        has: l.address.to_string(),
        asks: shown_address(peer),
    });
    let had = asked.life.as_ref().and_then(|l| l.uuid.clone());
    let no = no.or_else(|| {
        let (had, has) = (had?, asked.facts.uuid.clone()?);
        (!had.eq_ignore_ascii_case(&has)).then_some(No::UuidChanged { mac, had, has })
    });
    // What it is itself: nobody has said a word of it yet, and it has not begun.
    let new = asked.life.as_ref().is_none_or(|l| l.state == State::Discovered);
    no.or_else(|| {
        let uuid = asked.facts.uuid.clone().filter(|_| installs && new)?;
        let twin = web.ledger.twin(mac, &uuid)?;
        Some(No::UuidTwice { mac, uuid, other: twin.mac, state: twin.state.word() })
    })
}

/// Why nobody can tell that who asks is the machine that it says it is, where it matters: it is to be
/// installed, or gets answers. Without DHCP of our own, whoever comes first is the one.
fn unseen(web: &Web, asked: &Asked) -> Option<No> {
    let (question, mac) = (asked.question(), asked.facts.mac);
    let (installs, answers) = match question.decide() {
        _ if asked.config.dhcp.mode == Mode::Off => return None,
        Decision::Install { profile, .. } => (true, !profile.answers.is_empty()),
        Decision::Live(profile) => (false, !profile.answers.is_empty()),
        _ => return None,
    };
    let lease = web.ledger.lease(mac);
    let machine = question.machine();
    if let Some(uuid) = machine.as_ref().and_then(|m| m.by_uuid()) {
        let said = lease.as_ref().and_then(|l| l.uuid.as_deref());
        let same = said.is_some_and(|said| said.trim().eq_ignore_ascii_case(uuid.trim()));
        return (!same).then(|| No::UuidUnsaid { mac, uuid: uuid.into() });
    }
    (lease.is_none() && (installs || answers)).then_some(No::NoLease(mac))
}

/// What a machine is told that DHCP has not shown: to ask by DHCP, and where that was of no use, why.
fn not_yet(web: &Web, asked: &Asked, no: No, changes: bool, now: Timestamp) -> String {
    let (question, name) = (asked.question(), asked.question().name());
    if !asked.ask.again {
        return script::lease(&question.who(&name));
    }
    if changes {
        web.ledger.refused("boot", Some(asked.facts.mac), &no, now);
    }
    question.waits(UNSEEN, no).script
}

/// The script, and the boot that it opens. One that installs is an attempt by then, on the disk:
/// whoever fetches from here on wipes a disk.
async fn answered(
    web: &Web,
    asked: &mut Asked,
    peer: Option<Ipv4Addr>,
    now: Timestamp,
) -> Result<(Made, Option<Boot>), No> {
    let mac = asked.facts.mac;
    let restarted = web.ledger.restarted(mac);
    let mut no = NotDone::Busy;
    // A second time where the machine's state has changed meanwhile.
    for _ in 0..2 {
        let (name, chosen) = match asked.question().decide() {
            Decision::Install { profile, chosen } => (profile.name.clone(), Some(chosen)),
            Decision::Live(profile) => (profile.name.clone(), None),
            _ => {
                let question = asked.question();
                return Ok((question.make(|profile| question.ready(profile, true)), None));
            }
        };
        let boot = opened(web, asked, &name, chosen.is_some(), peer, restarted, now);
        asked.urls.token = boot.token().unwrap_or_default().to_string();
        let made = rendered(web, asked, &name).await?;
        if made.profile.is_none() {
            return Ok((made, None));
        }
        let Some(chosen) = chosen else { return Ok((made, Some(boot))) };
        let (attempts, timeout) = decide::limits(&asked.config, Some(&name));
        let begin = LifeEvent::Begin(Box::new(Begin {
            profile: name,
            boot: boot.key.clone(),
            report: boot.report.clone(),
            address: peer,
            facts: asked.facts.clone(),
            timeout,
            attempts,
            restarted,
            chosen,
        }));
        match web.ledger.step(mac, begin, attempts, now).await {
            Ok(life) if runs(life.as_deref(), &boot) => return Ok((made, Some(boot))),
            Ok(life) => asked.life = life,
            Err(NotDone::Refused(why)) => {
                no = NotDone::Refused(why);
                asked.life = web.ledger.life(mac);
            }
            Err(why) => {
                no = why;
                break;
            }
        }
    }
    if let NotDone::Store(_) = &no {
        let text = format!("no installation begins, and none is noted as done: {no}");
        web.ledger.alarm("states-not-kept", "the store", text, now);
    }
    Ok((asked.question().waits("its state cannot be kept", No::Life(no)), None))
}

fn runs(life: Option<&Life>, boot: &Boot) -> bool {
    life.and_then(|l| l.attempt.as_ref()).is_some_and(|a| a.boot == boot.key)
}

/// The boot that a script opens: the same one, where the machine asks for the script of a start once
/// more.
fn opened(
    web: &Web,
    asked: &Asked,
    profile: &str,
    installs: bool,
    peer: Option<Ipv4Addr>,
    restarted: bool,
    now: Timestamp,
) -> Boot {
    let same = |boot: &Boot| {
        let start = match installs {
            true => asked.life.as_ref().is_some_and(|l| l.same_start(restarted, now)),
            false => !restarted && web.ledger.stage(boot.mac).is_none_or(|s| s <= Stage::Script),
        };
        let alike = boot.profile == profile && boot.installs == installs && boot.address == peer;
        start && alike && boot.facts == asked.facts && boot.token().is_some()
    };
    web.ledger
        .newest_boot(asked.facts.mac, now)
        .filter(same)
        .unwrap_or_else(|| Boot::new(token(), asked.facts.clone(), profile, peer, installs, now))
}

/// The script of a profile: with what was read a moment ago, or on a thread that may take its time.
async fn rendered(web: &Web, asked: &Asked, profile: &str) -> Result<Made, No> {
    // Secrets of its own are read for it alone.
    let own = asked.question().machine().is_some_and(|m| !m.secrets.is_empty());
    let kept = || web.renders.kept(&asked.config, profile);
    if let Some(ready) = (!own).then(kept).flatten() {
        // Nothing of it can take long.
        return Ok(asked.question().make(|_| Ok(ready)));
    }
    let Asked { library, config, facts, ask, urls, life } = asked;
    let theirs = Asked {
        library: library.clone(),
        config: config.clone(),
        facts: facts.clone(),
        ask: ask.clone(),
        urls: urls.clone(),
        life: life.clone(),
    };
    let job = move || {
        let mut kept = None;
        let question = theirs.question();
        let made = question.make(|profile| {
            let ready = question.ready(profile, true)?;
            kept = Some(ready.clone()).filter(|_| !own);
            Ok(ready)
        });
        (made, kept)
    };
    match web.renders.run(config, profile, job).await {
        Err(no @ No::Endless(_)) => Ok(asked.question().waits(MENDED, no)),
        made => {
            let (made, kept) = made?;
            kept.into_iter().for_each(|ready| web.renders.keep(config, profile, ready));
            Ok(made)
        }
    }
}

/// A script, and what is to be remembered of it.
#[derive(Debug)]
pub struct Made {
    pub script: String,
    /// For the timeline: what was decided, in words.
    pub said: String,
    /// The name that the machine is declared by, or was assigned.
    pub machine: Option<String>,
    /// The profile that is booted, which opens a boot.
    pub profile: Option<String>,
    /// Why the machine does not get what it is declared for.
    pub why: Option<No>,
    /// It waits to be assigned.
    discovers: bool,
}

/// Steps 1 to 3 of [`crate::boot`], with the user's templates and folders at hand: what `serve`
/// answers a machine that has no life yet, and `explain` shows. Reads files, changes nothing.
pub fn make(library: &Library, config: &Config, facts: &Facts, ask: &Ask, urls: &Urls) -> Made {
    let question = Question { library, config, facts, ask, urls, life: None };
    question.make(|profile| question.ready(profile, false))
}

/// The same for a machine that may have a life, as the server itself knows it.
pub fn preview(
    library: &Library,
    config: &Config,
    facts: &Facts,
    ask: &Ask,
    urls: &Urls,
    life: Option<&Life>,
) -> Made {
    let question = Question { library, config, facts, ask, urls, life };
    question.make(|profile| question.ready(profile, true))
}

/// Who asks, and what is known.
#[derive(Clone, Copy)]
struct Question<'a> {
    library: &'a Library,
    config: &'a Config,
    facts: &'a Facts,
    ask: &'a Ask,
    urls: &'a Urls,
    life: Option<&'a Life>,
}

/// What a machine waits for.
const MENDED: &str = "the server's configuration is wrong";
const UNSEEN: &str = "nobody can tell that it is the one";

impl<'a> Question<'a> {
    fn decide(self) -> Decision<'a> {
        decide(self.config, self.facts, self.life, self.ask)
    }

    fn machine(self) -> Option<Cow<'a, Machine>> {
        decide::effective(self.config, self.facts, self.life)
    }

    /// The profile that it boots, if it boots one.
    fn boots_what(self) -> Option<String> {
        match self.decide() {
            Decision::Install { profile, .. } | Decision::Live(profile) => {
                Some(profile.name.clone())
            }
            _ => None,
        }
    }

    /// What the screen calls it.
    fn name(self) -> String {
        self.machine().map_or_else(|| self.facts.mac.to_string(), |m| m.name.clone())
    }

    fn make(self, ready: impl FnOnce(&Profile) -> Result<Arc<Ready>, No>) -> Made {
        let name = self.name();
        let who = self.who(&name);
        let made = |script: String, said: String| self.made(script, said);
        match self.decide() {
            Decision::Install { profile, .. } | Decision::Live(profile) => {
                self.boots(profile, ready)
            }
            Decision::Local(why) => made(script::local(&why), format!("local disk: {why}")),
            Decision::Menu(why) => made(
                script::menu(&who, self.config, &why, self.facts.is_uefi()),
                format!("menu: {why}"),
            ),
            Decision::Held => made(script::held(&who, &self.failed()), "held".into()),
            Decision::Discover => Made {
                discovers: true,
                ..made(script::discover(&who), "waits to be assigned".into())
            },
            Decision::Refuse(why) => Made {
                why: Some(No::Decided(why)),
                ..made(script::refuse(&name, &why.to_string()), format!("refused: {why}"))
            },
            Decision::Wait(why) => self.waits(MENDED, No::Decided(why)),
            Decision::Gone(name) => self.waits(MENDED, No::Gone(plain(&name, 80))),
        }
    }

    fn boots(
        self,
        profile: &Profile,
        ready: impl FnOnce(&Profile) -> Result<Arc<Ready>, No>,
    ) -> Made {
        let Question { config, facts, urls, .. } = self;
        let (machine, name) = (self.machine(), self.name());
        if let Some(why) = &profile.unready {
            return self.waits(MENDED, No::Unready(profile.name.clone(), why.clone()));
        }
        if facts.is_uefi() && profile.is_bios_only() {
            let title = profile.title.clone();
            return self.waits("its firmware cannot start it", No::BiosOnly(title));
        }
        if let (Some(needs), Some(has)) = (profile.memory, facts.memsize)
            && has < needs
        {
            let title = profile.title.clone();
            return self.waits("it has too little memory", No::Memory { title, needs, has });
        }
        let boots = ready(profile).and_then(|ready| {
            let scene = Scene::new(config, machine.as_deref(), profile, facts, urls);
            let answers = ready.unproved(facts, urls);
            let script = render::machine_script(&self.who(&name), &scene, profile, urls, answers)?;
            if !answers.is_empty() {
                ready.prove(facts, urls);
            }
            Ok(script)
        });
        match boots {
            Ok(script) => {
                let said = ["boots profile ", &profile.name].concat();
                Made { profile: Some(profile.name.clone()), ..self.made(script, said) }
            }
            Err(no) => self.waits(MENDED, no),
        }
    }

    /// What a profile needs from disks: its templates, its files, and its secrets, which the server
    /// reads later, when a disk is already being wiped.
    fn ready(self, profile: &Profile, server: bool) -> Result<Arc<Ready>, No> {
        if let Some(missing) = media::missing(self.library, self.config, profile).into_iter().next()
        {
            return Err(missing.into());
        }
        let templates = render::templates(profile)?;
        render::secrets_at_hand(profile, self.machine().as_deref(), &templates, server)?;
        Ok(Arc::new(Ready::of(profile, templates)))
    }

    fn waits(self, what: &str, no: No) -> Made {
        let name = self.name();
        let script = script::wait(&self.who(&name), what, &no.to_string());
        Made { why: Some(no), ..self.made(script, format!("waits: {what}")) }
    }

    fn made(self, script: String, said: String) -> Made {
        // One that was never given a name is called by its MAC, which is none.
        let named = |m: &Machine| m.name != self.facts.mac.to_string();
        let machine = self.machine().filter(|m| named(m)).map(|m| m.name.clone());
        Made { script, said, machine, profile: None, why: None, discovers: false }
    }

    fn who(self, name: &'a str) -> For<'a> {
        let choose = self.ask.choose.as_deref();
        For { mac: self.facts.mac, name, base: &self.urls.base, choose }
    }

    /// What the screen says of one that is held.
    fn failed(self) -> String {
        let failures = self.life.map_or(0, |l| l.failures);
        let profile = self.life.and_then(|l| l.profile.as_deref()).unwrap_or("no profile");
        let last = self.life.and_then(|l| l.failure.as_ref()).map_or(String::new(), |f| {
            format!("\nthe last one at {:.0}: seen last at its {}: {}", f.at, f.step.word(), f.why)
        });
        format!("attempts that failed, with profile {profile}: {failures}{last}")
    }
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
    let pem = web.ca_pem.as_deref().ok_or(No::NoSuchPage)?.to_string();
    Ok(HttpResponse::Ok().content_type("application/x-pem-file").body(pem))
}

/// An answer file of the boot that the token belongs to.
pub async fn answer(
    req: HttpRequest,
    web: web::Data<Web>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, No> {
    let (token, name) = path.into_inner();
    let (now, config) = (Timestamp::now(), web.config.load_full());
    if let Some(no) = in_the_clear(&req) {
        // Whoever declared the profile may have said that it shall.
        let boot = web.ledger.boot(&token, now);
        let profile = boot.as_ref().and_then(|boot| config.profile(&boot.profile));
        profile.filter(|p| p.plain_answers).ok_or(no)?;
    }
    let boot = web.boot_of(&req, &token)?;
    // Who asks what there is to read (HEAD) is not who reads it.
    let changes = req.method() == Method::GET;
    let (facts, life) = (boot.facts.clone(), web.ledger.life(boot.mac));
    let urls = web.urls(local(&req), &token);
    let asked = plain(&name, 80);
    let (theirs, booted, rehearsed) = (config.clone(), boot.profile.clone(), boot.rehearsed);
    let job = move || {
        let config = theirs;
        let gone = || No::NoProfile(booted.clone());
        let profile = config.profile(&booted).ok_or_else(gone)?;
        let at = profile.answers.iter().position(|a| a.name == name);
        let at = at.ok_or_else(|| No::NoAnswer(profile.name.clone(), plain(&name, 80)))?;
        let machine = decide::effective(&config, &facts, life.as_deref());
        let scene = Scene::new(&config, machine.as_deref(), profile, &facts, &urls);
        let answer = &profile.answers[at];
        let text = render::template(profile, answer).and_then(|template| match rehearsed {
            true => render::answer(&scene, answer, &template).map(Hidden::new),
            false => render::whole_answer(&scene, answer, &template),
        });
        // What is carried iPXE fetches before the kernel runs: no installer has read it by then.
        let (stage, what) = match scene.carried(answer) {
            Some(_) => (Stage::Initrd, CARRIED),
            None => (Stage::Answer, "GET"),
        };
        Ok::<_, No>((stage, what, text))
    };
    let made = web.renders.run(&config, &boot.profile, job).await.and_then(|made| made);
    let stage = made.as_ref().map_or(Stage::Answer, |(stage, ..)| *stage);
    if changes {
        web.stepped(&boot, stage);
    }
    let text = made.and_then(|(_, what, text)| Ok((what, text?)));
    let (what, text) = text.map_err(|no| web.unmade(&boot, &asked, no, now))?;
    if changes {
        let mark = if rehearsed { REHEARSED } else { "" };
        let said = format!("{mark}{asked} ({})", size(text.reveal().len() as u64));
        web.record(Some(boot.mac), stage, what, said);
    }
    // What is in it may be a secret of this machine.
    let mut answer = plain_text(text.reveal().into());
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// What the booted system says: `report/WORD`, a query, a body; by GET too, since that is all that
/// a busybox in an initrd can do. `done` and `failed` end an installation, on the disk before the
/// answer leaves; any other word is for the timeline.
pub async fn report(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let now = Timestamp::now();
    let key = req.match_info().query("token").to_string();
    let (mac, boot) = web.ledger.reported(&key, now).ok_or(No::NoBoot)?;
    let life = web.ledger.life(mac);
    if !is_itself(&web, mac, &key, boot.as_ref(), life.as_deref(), peer(&req)) {
        let text = format!("{} reports for {mac}, which it is not", shown_address(peer(&req)));
        web.ledger.alarm("forged-report", &mac.to_string(), text, now);
        return Err(No::Forged);
    }
    let body = tokio::time::timeout(REPORT_TIME, body.to_bytes_limited(REPORT_LIMIT))
        .await
        .map_err(|_| No::Stalled)?
        .map_err(|_| No::TooLarge)?
        .map_err(|_| No::Stalled)?;
    let word = req.match_info().get("word").unwrap_or("");
    let said = [req.query_string(), String::from_utf8_lossy(&body).trim()].map(str::to_string);
    let said = said.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ");
    let detail = format!("{word} {said}").trim().to_string();
    let installs = boot.as_ref().is_none_or(|b| b.installs);
    let told = match word {
        "done" => Some(Word::Done),
        "failed" => Some(Word::Failed(said)),
        slip if installs && SLIPS.contains(&&*slip.to_lowercase()) => {
            return Err(No::Word(plain(slip, 40)));
        }
        _ => None,
    };
    match (told, boot) {
        (Some(word), _) if installs => {
            let profile = life.as_ref().and_then(|l| l.profile.as_deref());
            let (attempts, _) = decide::limits(&web.config.load(), profile);
            let event = LifeEvent::Report { report: key, word };
            // First on the timeline, so that what it leads to comes after it.
            web.record(Some(mac), Stage::System, "report", detail);
            let after = web.ledger.step(mac, event, attempts, now).await?;
            let again = life == after;
            Ok(plain_text(if again { "noted already\n" } else { "noted\n" }.into()))
        }
        (_, Some(boot)) => {
            let mark = if boot.rehearsed { REHEARSED } else { "" };
            let detail = [mark, &detail].concat();
            web.record(Some(mac), Stage::System, "report", detail);
            web.stepped(&boot, Stage::System);
            // A live system's word is for the timeline, whatever it is.
            let counts = boot.installs.then_some(" (done and failed are the words that count)");
            Ok(plain_text(format!("noted: progress{}\n", counts.unwrap_or_default())))
        }
        (_, None) => Err(No::NoBoot),
    }
}

/// Whether a report comes from the machine that it is of.
fn is_itself(
    web: &Web,
    mac: Mac,
    report: &str,
    boot: Option<&Boot>,
    life: Option<&Life>,
    peer: Option<Ipv4Addr>,
) -> bool {
    let ended = life.filter(|l| l.ended.as_deref() == Some(report)).map(|l| l.ended_at);
    let began = boot.map(|b| b.address).or(ended);
    let facts = web.ledger.facts(mac).unwrap_or_else(|| Facts::of(mac));
    // Of a boot of which nobody knows the address any more, the word alone counts: nothing comes
    // of it.
    began.is_none_or(|began| web.is_at(mac, began, &facts, peer))
}

fn plain_text(text: String) -> HttpResponse {
    const PLAIN: header::HeaderValue =
        header::HeaderValue::from_static("text/plain; charset=utf-8");
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, PLAIN)).body(text)
}

/// 128 random bits in hex.
fn token() -> String {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("Linux has had getrandom(2) since 3.17");
    format!("{:032x}", u128::from_be_bytes(bits))
}
