//! The users' templates (arguments, answers), filled with a machine's facts.
//!
//! A variable that is not there is an error, and so is a fact that the machine did not tell: an
//! empty host name in an answer file would show only when the installation is over. A template that
//! can do without says so itself: `{{ machine.asset | default(value="") }}`.
//!
//! Secrets are seen by answers alone, and are read for the one that a machine fetches. Whoever else
//! fills an answer (a script's proof, `check`, `explain`) has `(secret NAME)` in their place, and so
//! has every error.

use std::borrow::Cow;
use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use tera::{Context, ErrorKind, ReportError, Tera};

use super::decide::offered;
use super::disk;
use super::script::{self, Fetch, For};
use super::value::{IpxeValue, ipxe_value};
use crate::config::report::ERROR_LIMIT;
use crate::config::{self, Config, Mirror, settings};
use crate::model::profile::{Answer, Boot, Initrd, Source, Start, Template};
use crate::model::{Facts, Hidden, Mac, Machine, Profile, Secret, Why, token};

/// The largest text that a template may grow to.
const OUTPUT: usize = 4 << 20;

/// The addresses under which one boot of one machine finds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// `https://IP[:port]` where TLS is on, else the same as `http`.
    pub base: String,
    /// `http://IP[:port]`: what a system without TLS can always reach.
    pub http: String,
    /// The root certificate that `base` is under, as PEM; none where TLS is off, or on with another's.
    pub ca: Option<Arc<str>>,
    /// The server's address, without port.
    pub address: String,
    /// This boot's token; what it opens belongs to one machine for a day.
    pub token: String,
}

impl Urls {
    fn is_secure(&self) -> bool {
        self.base.starts_with("https:")
    }

    fn boot(&self, rest: &[&str]) -> String {
        [&[self.base.as_str(), "/b/", &self.token], rest].concat().concat()
    }

    /// A file of ours under the token, so that its fetch is on the right machine's timeline.
    pub fn file(&self, folder: &str, path: &str) -> String {
        let path = path.trim_start_matches('/');
        self.boot(&["/files/", &encode(folder), "/", &encode(path)])
    }

    /// The same for a file of a public mirror.
    pub fn mirrored(&self, mirror: &str, path: &str) -> String {
        let path = path.trim_start_matches('/');
        self.boot(&["/mirror/", &encode(mirror), "/", &encode(path)])
    }

    /// Where a whole public mirror is, for installers; without a slash behind it.
    pub fn mirror(&self, mirror: &str) -> String {
        format!("{}/mirror/{}", self.http, encode(mirror))
    }

    /// An answer as iPXE fetches it.
    pub fn answer(&self, name: &str) -> String {
        self.boot(&["/answer/", &encode(name)])
    }

    /// The folder in which a profile's system finds its answers, with its slash: what cloud-init calls
    /// a seed.
    pub fn seed(&self, of: &Profile) -> String {
        let base = if of.plain_answers { &self.http } else { &self.base };
        format!("{base}/b/{}/answer/", self.token)
    }

    /// An answer as a profile's system fetches it.
    pub fn answer_of(&self, of: &Profile, name: &str) -> String {
        format!("{}{}", self.seed(of), encode(name))
    }

    /// By HTTP even where TLS is on: a busybox in an initrd that has no TLS reports, too. So it has a
    /// word of its own in place of the token.
    pub fn report(&self) -> String {
        format!("{}/b/{}/report", self.http, token::report(&self.token))
    }

    pub fn source(&self, source: &Source) -> String {
        match source {
            Source::Answer(name) => self.answer(name),
            Source::Ours { folder, path } => self.file(folder, path),
            Source::Mirror { mirror, path } => self.mirrored(mirror, path),
            Source::Url(url) => url.clone(),
        }
    }
}

impl Urls {
    /// Where a tree of files is by plain HTTP, without a slash behind it.
    pub fn plain(&self, tree: &Source) -> String {
        let (door, name, path) = match tree {
            Source::Ours { folder, path } => ("files", folder, path),
            Source::Mirror { mirror, path } => ("mirror", mirror, path),
            Source::Url(url) => return url.trim_end_matches('/').to_string(),
            Source::Answer(name) => return self.answer(name),
        };
        let url = format!("{}/{door}/{}/{}", self.http, encode(name), encode(path));
        url.trim_end_matches('/').to_string()
    }

    /// What templates see of it: `url`; `host` and `path`, which it is put together of; `files`, the
    /// texts of those that the installer reads; and `iso`, where its first image is as a whole.
    fn tree(&self, tree: &Source, files: &BTreeMap<String, String>) -> Value {
        let url = self.plain(tree);
        let bare = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let mut seen = json!({
            "url": url,
            "host": host,
            "path": format!("/{path}"),
            "files": files,
        });
        if let Source::Ours { folder, .. } = tree {
            seen["iso"] = format!("{}/image/{}.iso", self.http, encode(folder)).into();
        }
        seen
    }
}

/// All but what RFC 3986 calls unreserved, and `/`, which separates.
fn encode(path: &str) -> Cow<'_, str> {
    const LIVE: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'/')
        .remove(b'+');
    percent_encoding::utf8_percent_encode(path, &LIVE).into()
}

/// What is wrong with a template, and where. `line` and `column` count from 1; 0 is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// Characters from `column` on that are meant.
    pub width: usize,
    /// What is at fault where the place is the configuration's and not a template's: `args`,
    /// `answer/NAME`, as [`Config::place`] has it below the profile; empty for all of it.
    pub part: Option<String>,
    pub message: String,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        for part in [self.line, self.column].into_iter().take_while(|p| *p > 0) {
            write!(f, ":{part}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for RenderError {}

impl Why for RenderError {
    fn name(&self) -> &'static str {
        "template-error"
    }
}

impl RenderError {
    /// At the place in the configuration where the profile is declared.
    fn at(profile: &Profile, part: impl Into<String>, message: impl Into<String>) -> RenderError {
        let (file, line) = match profile.at.rsplit_once(':') {
            Some((file, line)) => (file, line.parse().unwrap_or(0)),
            None => (profile.at.as_str(), 0),
        };
        let message = format!("profile {}: {}", profile.name, message.into());
        let part = Some(part.into());
        RenderError { file: file.into(), line, column: 0, width: 0, part, message }
    }

    /// In the template; of one of ours at the place of the answer that names it, where what it
    /// misses can be given.
    fn in_answer(scene: &Scene, answer: &Answer, error: &tera::Error) -> RenderError {
        let exact = match &answer.template {
            Template::Of { own: None, .. } => {
                let message = format!("{}: {}", answer.template, sentence(error));
                return RenderError::of_answer(scene.profile, answer, message);
            }
            Template::Of { own: Some((_, lines)), .. } => *lines,
            Template::File(_) => usize::MAX,
        };
        let (line, column, width) = place(error).map_or((0, 0, 0), |report| {
            let span = report.span();
            let end = if span.end_line == span.start_line { span.end_col } else { 0 };
            match span.start_line <= exact {
                true => (span.start_line, span.start_col + 1, end.saturating_sub(span.start_col)),
                false => (0, 0, 0),
            }
        });
        let file = match &answer.template {
            Template::Of { own: Some((path, _)), .. } => path.display().to_string(),
            template => template.to_string(),
        };
        RenderError { file, line, column, width, part: None, message: sentence(error) }
    }
}

impl RenderError {
    /// At the place in the configuration where the answer is named.
    fn of_answer(profile: &Profile, answer: &Answer, message: impl fmt::Display) -> RenderError {
        let message = format!("answer {}: {message}", answer.name);
        RenderError::at(profile, format!("answer/{}", answer.name), message)
    }
}

fn place(error: &tera::Error) -> Option<&ReportError> {
    match error.kind() {
        ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => Some(report),
        _ => None,
    }
}

/// tera's own words in one line; its `Display` draws a picture of several.
fn sentence(error: &tera::Error) -> String {
    if matches!(error.kind(), ErrorKind::Io(_)) {
        return format!("the result is larger than {} MiB", OUTPUT >> 20);
    }
    let text =
        place(error).map_or_else(|| error.to_string(), |report| report.message().to_string());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a template sees of the machine. What it did not tell is not there.
#[derive(serde::Serialize)]
struct About<'a> {
    name: Cow<'a, str>,
    hostname: Cow<'a, str>,
    mac: Mac,
    hexhyp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manufacturer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arch: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memsize: Option<u64>,
}

/// What a template sees.
///
/// `machine` (name, hostname, mac, hexhyp, ip, uuid, serial, asset, manufacturer, product, arch,
/// version, memsize), `profile` (name, title), `vars` (the profile's, then the machine's over
/// them), `server` (url, http, address; host is the address with the port of plain HTTP, where that
/// is not 80), `ca` (the root certificate, where answers travel by HTTPS), and URLs: `answers.NAME`
/// (`file://PATH` of one that iPXE puts into the initrd), `seed` (the folder of the answers), `report`, `files`, and
/// `mirrors.NAME`, which is plain HTTP even where TLS is on: installers fetch packages by it, have
/// no CA of ours, and verify by signatures. Profiles that install a system see `settings`, `release`,
/// `unattended`, `tree` (url, host, path, files, iso: plain HTTP, too), `trees.NAME` and `parts.NAME`.
/// Answers see `secrets` besides: the profile's, then the
/// machine's over them.
///
/// Each is made when a template is filled that names it: most name two or three.
pub struct Scene<'a> {
    config: &'a Config,
    machine: Option<&'a Machine>,
    profile: &'a Profile,
    facts: &'a Facts,
    urls: &'a Urls,
    /// Whether answers travel by HTTPS.
    secure: bool,
    made: RefCell<Context>,
}

/// What a template sees, by name.
const NAMES: [&str; 16] = [
    "ca",
    "machine",
    "profile",
    "vars",
    "server",
    "answers",
    "seed",
    "report",
    "files",
    "mirrors",
    "settings",
    "release",
    "tree",
    "trees",
    "parts",
    "unattended",
];

/// Of [`NAMES`] those that stand anywhere in a template; all of them for one that shows all.
fn names_in(template: &str) -> Vec<&'static str> {
    let all = template.contains("__tera");
    NAMES.into_iter().filter(|name| all || template.contains(name)).collect()
}

impl<'a> Scene<'a> {
    pub fn new(
        config: &'a Config,
        machine: Option<&'a Machine>,
        profile: &'a Profile,
        facts: &'a Facts,
        urls: &'a Urls,
    ) -> Scene<'a> {
        let secure = urls.is_secure() && !profile.plain_answers;
        Scene { config, machine, profile, facts, urls, secure, made: RefCell::default() }
    }

    /// Where in the initrd iPXE puts an answer. By HTTPS only iPXE is sure to fetch: it was told of our
    /// CA before it started, and an installer was not.
    pub fn carried<'b>(&self, answer: &'b Answer) -> Option<&'b str> {
        let linux = self.profile.boot(self.facts.is_uefi()).is_linux();
        answer.carried.as_deref().filter(|_| self.secure && linux)
    }

    /// Where the profile's system finds an answer.
    fn found(&self, answer: &Answer) -> String {
        match self.carried(answer) {
            Some(path) => format!("file://{path}"),
            None => self.urls.answer_of(self.profile, &answer.name),
        }
    }

    /// The profile's secrets, with the machine's over them.
    fn secrets(&self) -> BTreeMap<&'a str, &'a Secret> {
        secrets(self.profile, self.machine)
    }

    /// The variables of `names`, and `secrets` where there are to be any. Those are never kept: the
    /// next template may be one that must not see them.
    fn seen<T>(
        &self,
        names: &[&'static str],
        secrets: Option<&tera::Value>,
        fill: impl FnOnce(&Context) -> T,
    ) -> T {
        let Some(secrets) = secrets else { return fill(&self.with(names)) };
        let mut context = self.with(names).clone();
        context.insert_value(SECRETS, secrets.clone());
        fill(&context)
    }

    /// Has at least the variables of `names`.
    fn with(&self, names: &[&'static str]) -> Ref<'_, Context> {
        let mut made = self.made.borrow_mut();
        for name in names {
            if !made.contains_key(name) {
                // tera tells one that is there and undefined otherwise from one that is not there.
                let value = Some(self.value(name)).filter(|value| !value.is_undefined());
                value.into_iter().for_each(|value| made.insert_value(*name, value));
            }
        }
        drop(made);
        self.made.borrow()
    }

    fn value(&self, name: &str) -> tera::Value {
        fn value(of: impl serde::Serialize) -> tera::Value {
            tera::Value::from_serializable(&of)
        }
        let Scene { config, machine, profile, urls, .. } = self;
        match name {
            "machine" => value(self.about()),
            "profile" => value(json!({ "name": profile.name, "title": profile.title })),
            "vars" => match machine.filter(|m| !m.vars.is_empty()) {
                Some(machine) => {
                    let mut vars = profile.vars.clone();
                    vars.extend(machine.vars.clone());
                    value(vars)
                }
                None => value(&profile.vars),
            },
            "server" => value(json!({
                "url": urls.base,
                "http": urls.http,
                "address": urls.address,
                "host": urls.http.trim_start_matches("http://"),
            })),
            "answers" => {
                let answer = |a: &Answer| (a.name.clone(), self.found(a).into());
                value(profile.answers.iter().map(answer).collect::<Map<_, Value>>())
            }
            "ca" => match urls.ca.as_deref().filter(|_| self.secure) {
                Some(pem) => value(pem.trim_end()),
                None => tera::Value::undefined(),
            },
            "seed" => value(urls.seed(profile)),
            "report" => value(urls.report()),
            "files" => value(format!("{}/files", urls.base)),
            "mirrors" => {
                let mirror = |m: &Mirror| (m.name.clone(), urls.mirror(&m.name).into());
                value(config.mirrors.iter().map(mirror).collect::<Map<_, Value>>())
            }
            "settings" => value(settings::seen(config, profile, *machine, self.facts)),
            "release" => profile.release.as_ref().map_or_else(tera::Value::undefined, |release| {
                let mut all: Map<String, Value> = release
                    .captures
                    .iter()
                    .map(|(name, text)| (name.clone(), text.as_str().into()))
                    .collect();
                all.insert("their_arch".into(), all.get("arch").cloned().unwrap_or_default());
                let major = release.version.split('.').next().unwrap_or_default();
                for (name, text) in [
                    ("installer", release.installer.as_str()),
                    ("title", &release.title),
                    ("version", &release.version),
                    ("major", major),
                    ("arch", release.arch),
                ] {
                    all.insert(name.into(), text.into());
                }
                value(all)
            }),
            "tree" => match profile.release.as_ref().and_then(|r| Some((r, r.tree.as_ref()?))) {
                Some((release, tree)) => value(urls.tree(tree, &release.files)),
                None => tera::Value::undefined(),
            },
            "unattended" => value(profile.release.as_ref().is_some_and(|r| r.unattended)),
            "parts" => {
                let all = profile.release.iter().flat_map(|r| &r.parts);
                let url = |(name, part): (&String, &Source)| {
                    (name.clone(), Value::from(urls.plain(part)))
                };
                value(all.map(url).collect::<Map<_, Value>>())
            }
            "trees" => {
                let all = profile.release.iter().flat_map(|r| &r.trees);
                let url = |(name, tree): (&String, &Source)| {
                    (name.clone(), Value::from(urls.plain(tree)))
                };
                value(all.map(url).collect::<Map<_, Value>>())
            }
            _ => tera::Value::undefined(),
        }
    }

    /// What [`Scene::value`] has, of the texts that arguments name most; `None` for all else.
    fn text(&self, of: &str, field: &str) -> Option<Cow<'a, str>> {
        let Scene { machine, profile, facts, urls, .. } = self;
        Some(match (of, field) {
            ("seed", "") => urls.seed(profile).into(),
            ("report", "") => urls.report().into(),
            ("answers", _) => self.found(profile.answers.iter().find(|a| a.name == field)?).into(),
            ("tree", "url") => urls.plain(profile.release.as_ref()?.tree.as_ref()?).into(),
            ("vars", _) => {
                let own = machine.and_then(|m| m.vars.get(field));
                own.or_else(|| profile.vars.get(field))?.as_str()?.into()
            }
            ("machine", "name") => self.name(),
            ("machine", "hostname") => self.hostname(),
            ("machine", "mac") => facts.mac.to_string().into(),
            ("machine", "hexhyp") => facts.mac.hexhyp().into(),
            ("machine", "ip") => facts.ip?.to_string().into(),
            ("machine", "uuid") => facts.uuid.as_deref()?.into(),
            ("machine", "serial") => facts.serial.as_deref()?.into(),
            _ => return None,
        })
    }

    fn name(&self) -> Cow<'a, str> {
        self.machine.map_or_else(|| self.facts.mac.hexhyp().into(), |m| m.name.as_str().into())
    }

    fn hostname(&self) -> Cow<'a, str> {
        let own = self.machine.and_then(|m| m.hostname.as_deref());
        own.map_or_else(|| self.name(), Cow::from)
    }

    fn about(&self) -> About<'_> {
        let facts = self.facts;
        About {
            name: self.name(),
            hostname: self.hostname(),
            mac: facts.mac,
            hexhyp: facts.mac.hexhyp(),
            ip: facts.ip,
            uuid: facts.uuid.as_deref(),
            serial: facts.serial.as_deref(),
            asset: facts.asset.as_deref(),
            manufacturer: facts.manufacturer.as_deref(),
            product: facts.product.as_deref(),
            arch: facts.arch,
            version: facts.version.as_deref(),
            memsize: facts.memsize,
        }
    }
}

/// Neither for HTML nor for iPXE: nothing is escaped. What goes into a script is checked instead.
static PLAIN: LazyLock<Tera> = LazyLock::new(Tera::new);

/// An answer file, with `(secret NAME)` in the place of each secret.
///
/// # Errors
/// With the line and column in the template.
pub fn answer(scene: &Scene, answer: &Answer, template: &str) -> Result<String, RenderError> {
    let secrets = names_secrets(template).then(|| {
        let shown = scene.secrets().into_keys().map(|name| (name, format!("(secret {name})")));
        tera::Value::from_serializable(&shown.collect::<BTreeMap<_, _>>())
    });
    fill(template, scene, secrets.as_ref())
        .map(|text| ended(answer, text))
        .map_err(|e| RenderError::in_answer(scene, answer, &e))
}

/// The lines of an answer with the ends that its reader wants.
fn ended(answer: &Answer, text: String) -> String {
    match answer.crlf {
        true => text.replace("\r\n", "\n").replace('\n', "\r\n"),
        false => text,
    }
}

/// An answer file as its machine is sent it, with its secrets, which are read now. For nothing that
/// is kept or shown.
///
/// # Errors
/// The same, and a secret that cannot be read. No message holds any of a secret.
pub fn whole_answer(scene: &Scene, of: &Answer, template: &str) -> Result<Hidden, RenderError> {
    if !names_secrets(template) {
        return answer(scene, of, template).map(Hidden::new);
    }
    let mut secrets = BTreeMap::new();
    for (name, secret) in scene.secrets() {
        let text =
            config::reveal(secret).map_err(|no| RenderError::of_answer(scene.profile, of, no))?;
        secrets.insert(name, text);
    }
    let shown: BTreeMap<_, _> = secrets.iter().map(|(name, s)| (*name, s.reveal())).collect();
    let values = tera::Value::from_serializable(&shown);
    let whole = fill(template, scene, Some(&values)).map(|text| Hidden::new(ended(of, text)));
    whole.or_else(|_| {
        // tera's words may quote a value. What fails without the secrets too tells why.
        answer(scene, of, template)?;
        let message = format!("{} cannot be filled with its secrets as they are now", of.template);
        Err(RenderError::of_answer(scene.profile, of, message))
    })
}

fn secrets<'a>(
    profile: &'a Profile,
    machine: Option<&'a Machine>,
) -> BTreeMap<&'a str, &'a Secret> {
    let own = machine.into_iter().flat_map(|m| &m.secrets);
    profile.secrets.iter().chain(own).map(|(name, s)| (name.as_str(), s)).collect()
}

/// Reads the secrets that the answers of a profile will be made with, and shows none: a machine whose
/// answers cannot be made must not start to install. `templates` are the answers' own. Where this is
/// not the `server`, its environment and its rights are not known, and what only those tell is let
/// pass.
///
/// # Errors
/// With the answer that needs one that cannot be read.
pub fn secrets_at_hand(
    profile: &Profile,
    machine: Option<&Machine>,
    templates: &[String],
    server: bool,
) -> Result<(), RenderError> {
    let needs = profile.answers.iter().zip(templates).find(|(_, text)| names_secrets(text));
    let Some((answer, _)) = needs else { return Ok(()) };
    let fault = |no: &config::NoSecret| server || !no.is_of_the_server();
    let first =
        secrets(profile, machine).into_values().find_map(|s| config::reveal(s).err().filter(fault));
    first.map_or(Ok(()), |no| Err(RenderError::of_answer(profile, answer, no)))
}

/// The variable that answers alone see.
const SECRETS: &str = "secrets";

/// Whether a template may name them.
fn names_secrets(template: &str) -> bool {
    template.contains(SECRETS) || template.contains("__tera")
}

/// The kernel's arguments on one line: as declared, then the console, then `initrd=` for a UEFI
/// kernel, unless the boot names its initrds itself.
///
/// # Errors
/// With the place where the profile is declared; also for a result that would mean something to
/// iPXE.
pub fn args(scene: &Scene, profile: &Profile, boot: &Boot) -> Result<IpxeValue, RenderError> {
    args_with(&names(&boot.initrds), scene, profile, boot)
}

fn args_with(
    names: &[String],
    scene: &Scene,
    profile: &Profile,
    boot: &Boot,
) -> Result<IpxeValue, RenderError> {
    let wrong =
        |e: tera::Error| RenderError::at(profile, "args", format!("args: {}", sentence(&e)));
    let mut args = fill(&boot.args, scene, None).map_err(wrong)?;
    if let Some(console) = &profile.console
        && !args.contains(&format!("console={console}"))
    {
        // The last one named is where init talks.
        args.push_str(&format!(" console=tty0 console={console}"));
    }
    let names_initrd = |arg: &&str| arg.starts_with("initrd=");
    if profile.answers.iter().any(|a| scene.carried(a).is_some()) {
        // Under its own name a file comes as it is; by this one iPXE gives all of them one after the
        // other, with the headers that make files of an archive of what is carried. A kernel of UEFI
        // takes what it is told of alone, so with a name of the profile's own the answers would never
        // arrive; what that name means is among all of them.
        args = args.split(' ').filter(|arg| !names_initrd(arg)).collect::<Vec<_>>().join(" ");
        args.push_str(" initrd=initrd.magic");
    } else if boot.initrd_args && !args.split(' ').any(|arg| names_initrd(&arg)) {
        for name in names {
            args.push_str(" initrd=");
            args.push_str(name);
        }
    }
    ipxe_value(&args).map_err(|live| {
        RenderError::at(profile, "args", format!("args are refused because {live}: {args:?}"))
    })
}

/// The machine's script, whole, and every answer rendered once so that a fault shows now and not
/// in the middle of an installation. `answers` are the templates' texts, in the profile's order; or
/// nothing, where it is known that they can be rendered.
///
/// # Errors
/// The first thing that is wrong.
pub fn machine_script(
    who: &For<'_>,
    scene: &Scene,
    profile: &Profile,
    urls: &Urls,
    answers: &[String],
) -> Result<String, RenderError> {
    for (of, template) in profile.answers.iter().zip(answers) {
        answer(scene, of, template)?;
    }
    trusted(scene, profile)?;
    let boot = profile.boot(scene.facts.is_uefi());
    let kernel = match &boot.start {
        Start::Kernel(kernel) => kernel,
        Start::Script(lines) => return commands(who, scene, profile, lines),
    };
    let names = names(&boot.initrds);
    let args = args_with(&names, scene, profile, boot)?;
    let mut initrds: Vec<Fetch> = std::iter::zip(&boot.initrds, names)
        .map(|(initrd, name)| {
            let file = (!boot.initrd_args).then(|| name.clone());
            Fetch { url: urls.source(&initrd.source), name, file }
        })
        .collect();
    initrds.extend(profile.answers.iter().filter_map(|answer| {
        let file = Some(scene.carried(answer)?.to_string());
        Some(Fetch { url: urls.answer(&answer.name), name: answer.name.clone(), file })
    }));
    script::machine(who, profile, &urls.source(kernel), &args, &initrds)
        .map_err(|live| RenderError::at(profile, "", format!("kernel, initrd or title: {live}")))
}

/// Whether the system can read its answers.
///
/// # Errors
/// Where it fetches them by HTTPS and knows no CA of ours: it would stop after its start.
fn trusted(scene: &Scene, profile: &Profile) -> Result<(), RenderError> {
    let Some(release) = profile.release.as_ref().filter(|r| r.knows_no_ca) else { return Ok(()) };
    // A certificate that comes without a root is one that everybody trusts; only its owner can know.
    if !scene.secure || scene.urls.ca.is_none() {
        return Ok(());
    }
    // What is there in any case iPXE itself fetches for a kernel (mboot.efi of ESXi reads through it);
    // a loader that a script starts does so itself (pxelinux 3.86), and so does who reads what the
    // profile has besides.
    let by_loader = match &profile.boot(scene.facts.is_uefi()).start {
        Start::Script(lines) => lines.iter().any(|line| line.contains("answers")),
        Start::Kernel(_) => false,
    };
    let besides = profile.answers.iter().any(|a| !a.template.is_builtin());
    if !(release.unattended || by_loader || besides) {
        return Ok(());
    }
    let what = format!(
        "TLS is on, and the installer of {} fetches its answers itself and trusts no CA of ours: \
         plain-answers = true in the profile sends them by HTTP, for the machine's own address alone, \
         but readable for whoever listens on its network",
        release.title
    );
    Err(RenderError::at(profile, "install", what))
}

/// The script of a profile that is commands of iPXE.
fn commands(
    who: &For<'_>,
    scene: &Scene,
    profile: &Profile,
    lines: &[String],
) -> Result<String, RenderError> {
    let wrong = |what: String| RenderError::at(profile, "install", format!("its script: {what}"));
    let line = |line: &String| {
        let text = fill(line, scene, None).map_err(|e| wrong(sentence(&e)))?;
        ipxe_value(&text).map_err(|live| wrong(format!("{text:?} is refused because {live}")))
    };
    let lines = lines.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    script::commands(who, profile, lines).map_err(|live| wrong(live.to_string()))
}

/// The texts of the profile's templates.
///
/// # Errors
/// The first that cannot be read.
pub fn templates(profile: &Profile) -> Result<Vec<String>, RenderError> {
    profile.answers.iter().map(|answer| template(profile, answer)).collect()
}

/// The text of one.
///
/// # Errors
/// With the place where the profile that names it is declared.
pub fn template(profile: &Profile, answer: &Answer) -> Result<String, RenderError> {
    let file = match &answer.template {
        Template::File(path) => path,
        Template::Of { text, .. } => return Ok(text.to_string()),
    };
    disk::read_template(file).map_err(|e| {
        let file = file.display();
        let part = format!("answer/{}", answer.name);
        RenderError::at(
            profile,
            part,
            format!("answer {}: {file} cannot be read: {e}", answer.name),
        )
    })
}

/// One thing that is wrong with a profile, and the first declared machine that it is wrong for;
/// `None` is one that chose it in the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub error: RenderError,
    pub machine: Option<String>,
}

/// Renders a profile for each machine that is declared with it, and for one that is not where the
/// menu offers it, with facts that leave nothing out. What it finds would fail on every machine.
pub fn check_templates(config: &Config, profile: &Profile) -> Vec<Fault> {
    if profile.unready.is_some() {
        return Vec::new();
    }
    let templates = match templates(profile) {
        Ok(templates) => templates,
        Err(error) => return vec![Fault { error, machine: None }],
    };
    let declared: Vec<Option<&Machine>> = config
        .machines
        .iter()
        .filter(|m| m.profile.as_ref() == Some(&profile.name))
        .map(Some)
        .collect();
    let undeclared = offered(config).any(|p| p.name == profile.name) || declared.is_empty();
    let mut wrong: Vec<Fault> = Vec::new();
    for machine in declared.into_iter().chain(undeclared.then_some(None)) {
        // A value that is wrong for each machine is another fault each time.
        if wrong.len() >= ERROR_LIMIT {
            break;
        }
        for error in faults(config, machine, profile, &templates) {
            if !wrong.iter().any(|w| w.error == error) {
                wrong.push(Fault { error, machine: machine.map(|m| m.name.clone()) });
            }
        }
    }
    wrong
}

/// All that is wrong with what one machine would be sent.
fn faults(
    config: &Config,
    machine: Option<&Machine>,
    profile: &Profile,
    templates: &[String],
) -> Vec<RenderError> {
    let facts = sample(machine);
    let urls = sample_urls(config);
    let scene = Scene::new(config, machine, profile, &facts, &urls);
    let answers = profile.answers.iter().zip(templates);
    let mut wrong: Vec<RenderError> =
        answers.filter_map(|(of, template)| answer(&scene, of, template).err()).collect();
    if let Some(boot) = Some(profile.boot(facts.is_uefi())).filter(|b| b.kernel().is_some()) {
        wrong.extend(args(&scene, profile, boot).err());
    }
    if wrong.is_empty() {
        let name = machine.map_or("sample", |m| &m.name);
        let who = For { mac: facts.mac, name, base: &urls.base, choose: None };
        wrong.extend(machine_script(&who, &scene, profile, &urls, templates).err());
    }
    wrong
}

/// Facts of a machine that leaves none out.
fn sample(machine: Option<&Machine>) -> Facts {
    let text = |t: &str| Some(t.to_string());
    let mac = machine.and_then(Machine::mac).unwrap_or(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    Facts {
        uuid: text("00000000-0000-0000-0000-525400123456"),
        serial: text("SERIAL1"),
        asset: text("ASSET1"),
        manufacturer: text("Maker"),
        product: text("Product"),
        arch: machine.and_then(|m| m.matches.arch).or(Some("uefi-x64")),
        version: text("2.0.0"),
        memsize: Some(4096),
        ip: machine.and_then(|m| m.address).or(Some([192, 0, 2, 10].into())),
        ..Facts::of(mac)
    }
}

fn sample_urls(config: &Config) -> Urls {
    let tls = config.tls.enabled;
    Urls {
        base: if tls { "https://192.0.2.1" } else { "http://192.0.2.1" }.into(),
        http: "http://192.0.2.1".into(),
        ca: ca_to_come(config),
        address: "192.0.2.1".into(),
        token: "0".repeat(32),
    }
}

/// What stands for [`Urls::ca`] where no server is: a certificate of the operator's own that comes
/// without a root has none.
pub fn ca_to_come(config: &Config) -> Option<Arc<str>> {
    config.tls.has_root().then(|| "(the CA)".into())
}

/// The longest name of an initrd, in bytes, as for a file on Linux.
const NAME: usize = 255;

/// The names of the initrds for iPXE and for `initrd=`: the file's own, as every guide has it,
/// unless two are alike or it is no plain word.
fn names(initrds: &[Initrd]) -> Vec<String> {
    fn own(initrd: &Initrd) -> &str {
        if let Some(name) = &initrd.name {
            return name;
        }
        let path = match &initrd.source {
            Source::Answer(name) => name.as_str(),
            Source::Ours { path, .. } | Source::Mirror { path, .. } => path.as_str(),
            Source::Url(url) => url.split(['?', '#']).next().unwrap_or(""),
        };
        path.rsplit('/').next().unwrap_or("")
    }
    let all: Vec<&str> = initrds.iter().map(own).collect();
    // Nothing of this means anything to iPXE.
    let plain = |n: &str| {
        (1..=NAME).contains(&n.len())
            && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+~-".contains(&b))
            && !n.starts_with('-')
    };
    let fits = |n: &&str| plain(n) && all.iter().filter(|o| *o == n).count() == 1;
    all.iter()
        .enumerate()
        .map(|(i, n)| if fits(n) { n.to_string() } else { format!("initrd{i}") })
        .collect()
}

fn fill(
    template: &str,
    scene: &Scene,
    secrets: Option<&tera::Value>,
) -> Result<String, tera::Error> {
    let Some(parsed) = parsed(template) else {
        let mut out = Bounded(Vec::new());
        let into = |all: &Context| PLAIN.render_str_to(template, all, false, &mut out);
        scene.seen(&NAMES, secrets, into)?;
        return out.text();
    };
    if let Some(text) = parsed.plain.as_deref().and_then(|parts| put_together(parts, scene)) {
        return Ok(text);
    }
    let filled = scene.seen(&parsed.names, secrets, |context| parsed.fill(context));
    // The sentence about a name that is not there has all that are.
    filled.or_else(|_| scene.seen(&NAMES, secrets, |context| parsed.fill(context)))
}

/// A template, and what it may name.
struct Parsed {
    tera: Tera,
    names: Vec<&'static str>,
    /// Its parts, where it does nothing but name values.
    plain: Option<Vec<Part>>,
}

/// A part of a template that tera is not needed for.
enum Part {
    Text(String),
    /// `{{ OF }}`, `{{ OF.FIELD }}` or `{{ OF['FIELD'] }}`.
    Value(String, String),
}

/// The parts of a template that nothing but names of values stand in, as in most arguments: a hall of
/// machines that is switched on has thousands of them filled.
fn plain_parts(template: &str) -> Option<Vec<Part>> {
    if template.contains("{%") || template.contains("{#") {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        let (of, field) = plain_name(name.trim())?;
        parts.extend([Part::Text(text.into()), Part::Value(of.into(), field.into())]);
        rest = after;
    }
    parts.push(Part::Text(rest.into()));
    Some(parts)
}

fn plain_name(name: &str) -> Option<(&str, &str)> {
    const TEXTS: [&str; 2] = ["seed", "report"];
    let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (of, field) = match (name.split_once('.'), name.split_once('[')) {
        (Some((of, field)), _) if is_word(field) => (of, field),
        (_, Some((of, field))) => {
            let within = |mark| field.strip_prefix(mark)?.strip_suffix(']')?.strip_suffix(mark);
            let field: &str = within('\'').or_else(|| within('"'))?;
            (of, field)
        }
        _ => (name, ""),
    };
    // A table as a whole is not the value that stands in it under no name.
    let is_whole = TEXTS.contains(&name) || !field.is_empty();
    let is_plain = is_whole && is_word(of) && !field.contains(['\'', '"', '\\', '`']);
    is_plain.then_some((of, field))
}

/// `None`: tera knows better, or tells what is wrong.
fn put_together(parts: &[Part], scene: &Scene) -> Option<String> {
    let mut out = String::with_capacity(512);
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value(of, field) => out.push_str(&scene.text(of, field)?),
        }
    }
    (out.len() <= OUTPUT).then_some(out)
}

impl Parsed {
    fn fill(&self, context: &Context) -> Result<String, tera::Error> {
        let mut out = Bounded(Vec::new());
        self.tera.render_to(PARSED, context, &mut out)?;
        out.text()
    }
}

/// Templates kept parsed, and the longest in bytes; what is beyond that is parsed each time.
const KEPT: usize = 256;
const KEPT_LEN: usize = 64 << 10;
/// The name that each has in its instance. It has no ending, and so nothing is escaped.
const PARSED: &str = "template";

/// The template, parsed before or now. By its text: a file that is changed is another template.
/// `None`: too long to be kept, or wrong, which whoever renders it finds out again.
fn parsed(template: &str) -> Option<Arc<Parsed>> {
    static ALL: LazyLock<Mutex<HashMap<String, Arc<Parsed>>>> = LazyLock::new(Mutex::default);
    if template.len() > KEPT_LEN {
        return None;
    }
    let all = || ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parsed) = all().get(template) {
        return Some(parsed.clone());
    }
    let mut tera = Tera::new();
    tera.add_raw_template(PARSED, template).ok()?;
    let parsed = Arc::new(Parsed { tera, names: names_in(template), plain: plain_parts(template) });
    let mut all = all();
    if all.len() >= KEPT {
        all.clear();
    }
    all.insert(template.to_string(), parsed.clone());
    Some(parsed)
}

/// Ends a template that grows without bound.
struct Bounded(Vec<u8>);

impl Bounded {
    fn text(self) -> Result<String, tera::Error> {
        String::from_utf8(self.0).map_err(|e| tera::Error::message(e.to_string()))
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::Match;
    use crate::model::profile::{Release, unbroken};

    pub fn profile(name: &str) -> Profile {
        Profile {
            name: name.into(),
            title: format!("Title of {name}"),
            menu: false,
            boot: Boot::linux(
                Source::Ours { folder: "debian".into(), path: "amd64/linux".into() },
                vec![Source::Ours { folder: "debian".into(), path: "amd64/initrd.gz".into() }],
                "auto url={{ answers.preseed }} hostname={{ machine.hostname }} rack={{ vars.rack }}",
            ),
            unready: None,
            uefi: None,
            release: None,
            settings: None,
            memory: None,
            answers: vec![Answer {
                name: "preseed".into(),
                template: Template::File("/nowhere/preseed.cfg".into()),
                crlf: false,
                carried: None,
            }],
            console: Some("ttyS0,115200".into()),
            vars: Map::from_iter([("rack".into(), "r0".into()), ("user".into(), "root".into())]),
            secrets: Default::default(),
            kind: Default::default(),
            timeout: None,
            attempts: None,
            plain_answers: false,
            at: "pilotlight.toml:12".into(),
        }
    }

    pub fn machine(name: &str, mac: &str, profile: Option<&str>) -> Machine {
        Machine {
            name: name.into(),
            matches: Match { mac: Some(mac.parse().unwrap()), ..Match::default() },
            profile: profile.map(str::to_string),
            address: None,
            hostname: None,
            loader: None,
            vars: Map::from_iter([("rack".into(), "r7".into())]),
            secrets: Default::default(),
            settings: Default::default(),
            power: Default::default(),
        }
    }

    fn mirrored() -> Config {
        let text = "[[mirror]]\nname = \"debian\"\nurls = \"http://h/\"\n\
                    [[mirror]]\nname = \"debian-security\"\nurls = \"http://h/\"\n";
        crate::config::parse(&[("pilotlight.toml".into(), text.into())]).unwrap().0
    }

    fn scene(profile: &Profile) -> Scene<'_> {
        static WEB1: LazyLock<(Config, Machine, Facts, Urls)> = LazyLock::new(|| {
            let machine = machine("web1", "52:54:00:12:34:56", Some("web"));
            let facts = sample(Some(&machine));
            (mirrored(), machine, facts, sample_urls(&Config::default()))
        });
        let (config, machine, facts, urls) = &*WEB1;
        Scene::new(config, Some(machine), profile, facts, urls)
    }

    #[test]
    fn arguments_get_console_and_initrd() {
        let mut p = profile("web");
        let url = format!("http://192.0.2.1/b/{}/answer/preseed", "0".repeat(32));
        assert_eq!(
            args(&scene(&p), &p, &p.boot).unwrap().as_str(),
            format!(
                "auto url={url} hostname=web1 rack=r7 console=tty0 console=ttyS0,115200 \
                 initrd=initrd.gz"
            )
        );
        p.boot.args =
            unbroken("initrd=mine.img\n  console=ttyS0,115200 \n ds=nocloud;s={{ seed }}");
        let seed = format!("http://192.0.2.1/b/{}/answer/", "0".repeat(32));
        assert_eq!(
            args(&scene(&p), &p, &p.boot).unwrap().as_str(),
            format!("initrd=mine.img console=ttyS0,115200 ds=nocloud;s={seed}")
        );
    }

    #[test]
    fn what_is_put_together_is_as_tera_has_it() {
        let mut p = profile("web");
        p.vars.insert("a-b.c".into(), "{{ x }}".into());
        p.vars.insert("number".into(), 7.into());
        p.vars.insert("".into(), "x".into());
        let bare = Facts::of(Mac([0, 1, 2, 3, 4, 5]));
        let (config, urls, own) =
            (mirrored(), sample_urls(&Config::default()), machine("w1", "52:54:00:12:34:56", None));
        let told = Facts { uuid: Some("u".into()), serial: Some("s #".into()), ..sample(None) };
        let mut put = 0;
        for (machine, facts) in [(None, &bare), (None, &told), (Some(&own), &told)] {
            let scene = Scene::new(&config, machine, &p, facts, &urls);
            for text in [
                "",
                " no tag }} { \n",
                "{{ seed }}{{seed}} a={{ report }}\n",
                "{{ answers.preseed }} {{ answers['preseed'] }} {{ answers[\"preseed\"] }}",
                "{{ vars.rack }}{{ vars['a-b.c'] }}",
                "{{ machine.name }} {{ machine.hostname }} {{ machine.mac }} {{ machine.hexhyp }}",
                "{{ machine.ip }} {{ machine.uuid }} {{ machine.serial }}",
                "{{ vars.number }}",
                "{{ vars.a-b.c }}",
                "{{ vars }}",
                "{{ vars[''] }}",
                "{{ vars. }}",
                "{{ seed[''] }}",
                "{{ report[\"\"] }}",
                "{{ answers }}",
                "{{ machine.name | upper }} {{- seed -}} {% if seed %}y{% endif %}{# no #}",
                "{{ profile.title }} {{ server.host }} {{ 'seed' }} {{ 1 + 1 }}",
                "{{ answers.none }}",
                "{{ machine.ip",
            ] {
                let Some(parsed) = parsed(text) else { continue };
                let by_tera = scene.seen(&NAMES, None, |context| parsed.fill(context)).ok();
                let by_parts =
                    parsed.plain.as_deref().and_then(|parts| put_together(parts, &scene));
                put += usize::from(by_parts.is_some());
                assert!(
                    by_parts.is_none() || by_parts == by_tera,
                    "{text}: {by_parts:?} {by_tera:?}"
                );
            }
        }
        assert_eq!(put, 3 * 6 + 2, "all that is plain, where its values are known");
    }

    #[test]
    fn a_value_that_would_inject_is_refused_with_its_place() {
        for bad in ["a || shell", "a && b", "a ; b", "a #b", "${x}", "a\nshell", "\\"] {
            let mut p = profile("web");
            p.console = None;
            p.boot.initrds.clear();
            p.vars.insert("own".into(), bad.into());
            p.boot.args = "quiet x={{ vars.user }} {{ vars.own }}".into();
            let e = args(&scene(&p), &p, &p.boot).unwrap_err();
            assert!(e.to_string().starts_with("pilotlight.toml:12: profile web: args"), "{e}");
            assert!(!e.to_string().contains('\n'), "{e}");
        }
    }

    #[test]
    fn errors_name_file_line_and_column() {
        let p = profile("web");
        let of = &p.answers[0];
        for (template, place, word) in [
            ("a\n  {{ machine.nothing }}\n", "/nowhere/preseed.cfg:2:14: ", "nothing"),
            ("{{ nothing }}", "/nowhere/preseed.cfg:1:4: ", "nothing"),
            ("a\nb\n{% if %}", "/nowhere/preseed.cfg:3:", ""),
        ] {
            let e = answer(&scene(&p), of, template).unwrap_err().to_string();
            assert!(e.starts_with(place) && e.contains(word) && !e.contains('\n'), "{e}");
        }
        let text =
            "{{ machine.mac }} {{ machine.asset | default(value='none') }} <&\"> {{ files }}";
        assert_eq!(
            answer(&scene(&p), of, text).unwrap(),
            "52:54:00:12:34:56 ASSET1 <&\"> http://192.0.2.1/files"
        );
    }

    #[test]
    fn a_template_sees_what_it_names_and_an_error_names_all() {
        let p = profile("web");
        let of = &p.answers[0];
        let scene = scene(&p);
        assert!(scene.made.borrow().get("machine").is_none());
        assert_eq!(answer(&scene, of, "{{ profile.name }} {{ seed }}").unwrap()[..3], *"web");
        assert!(
            NAMES
                .iter()
                .all(|n| scene.made.borrow().contains_key(n) == ["profile", "seed"].contains(n))
        );
        // What this one has not is not among them, and no other word for it.
        let absent = ["ca", "release", "tree"];
        let names = || NAMES.iter().filter(|n| !absent.contains(n));
        let e = answer(&scene, of, "{{ nothing }}").unwrap_err().to_string();
        assert!(names().all(|n| e.contains(n)), "{e}");
        let all = answer(&self::scene(&p), of, "{{ __tera_context }}").unwrap();
        assert!(names().all(|n| all.contains(n)), "{all}");
        for name in absent {
            let e = answer(&scene, of, &format!("{{{{ {name} }}}}")).unwrap_err().to_string();
            assert!(e.contains(&format!("`{name}` is not defined. Available variables: ")), "{e}");
            let without = format!(
                "{{% if {name} is defined %}}y{{% endif %}}{{% if {name} %}}y{{% endif %}}\
                 {{{{ {name} | default(value='n') }}}}"
            );
            assert_eq!(answer(&scene, of, &without).unwrap(), "n");
        }
    }

    #[test]
    fn what_a_machine_did_not_tell_is_an_error_unless_the_template_has_a_default() {
        let p = profile("web");
        let facts = Facts::of(Mac([0, 1, 2, 3, 4, 5]));
        let (config, urls) = (mirrored(), sample_urls(&Config::default()));
        let scene = Scene::new(&config, None, &p, &facts, &urls);
        let of = &p.answers[0];
        assert!(answer(&scene, of, "{{ machine.serial }}").is_err());
        let text = "{{ machine.serial | default(value='-') }} {{ machine.name }}";
        assert_eq!(answer(&scene, of, text).unwrap(), "- 00-01-02-03-04-05");
    }

    #[test]
    fn a_template_cannot_grow_without_bound() {
        let p = profile("web");
        let bomb = "{% for a in range(end=100000) %}{% for b in range(end=100000) %}0123456789\
                    {% endfor %}{% endfor %}";
        let e = answer(&scene(&p), &p.answers[0], bomb).unwrap_err();
        assert!(e.message.contains("4 MiB"), "{e}");
    }

    #[test]
    fn secrets_are_for_the_answer_that_a_machine_fetches() {
        let literal = |text: &str| Secret::Literal(Hidden::new(text));
        let mut p = profile("web");
        p.secrets.insert("root".into(), literal("hunter2"));
        p.secrets.insert("gone".into(), Secret::File("/nowhere/secret".into()));
        let of = p.answers[0].clone();
        let mut own = machine("web1", "52:54:00:12:34:56", Some("web"));
        own.secrets.insert("gone".into(), literal("hunter3"));
        let (config, facts, urls) = (mirrored(), sample(None), sample_urls(&Config::default()));
        let scene = Scene::new(&config, Some(&own), &p, &facts, &urls);
        let text = "{{ secrets.root }} {{ secrets.gone }} {{ machine.name }}";
        assert_eq!(answer(&scene, &of, text).unwrap(), "(secret root) (secret gone) web1");
        let whole = whole_answer(&scene, &of, text).unwrap();
        assert_eq!(whole.reveal(), "hunter2 hunter3 web1", "the machine's over the profile's");
        assert!(
            whole_answer(&scene, &of, "{{ __tera_context }}").unwrap().reveal().contains("hunter2")
        );
        let long = format!("{text}{}", " ".repeat(KEPT_LEN));
        assert!(whole_answer(&scene, &of, &long).unwrap().reveal().starts_with("hunter2 hunter3"));
        // Arguments, also after an answer that has them.
        for seen in ["{{ secrets.root }}", "{{ __tera_context }}"] {
            let mut p = p.clone();
            p.boot.args = seen.into();
            assert!(
                args(&scene, &p, &p.boot).map_or(true, |a| !a.as_str().contains("hunter2")),
                "{seen}"
            );
        }
        // A profile without them, and one whose file is not there.
        assert!(whole_answer(&self::scene(&profile("web")), &of, text).is_err());
        let scene = Scene::new(&config, None, &p, &facts, &urls);
        assert_eq!(
            answer(&scene, &of, text).unwrap(),
            "(secret root) (secret gone) 52-54-00-12-34-56"
        );
        let e = whole_answer(&scene, &of, text).unwrap_err().to_string();
        assert!(e.contains("answer preseed: the secret in /nowhere/secret cannot be read"), "{e}");
        assert!(whole_answer(&scene, &of, "{{ machine.name }}").is_ok(), "it is not wanted");
    }

    #[test]
    fn no_error_quotes_a_secret() {
        let mut p = profile("web");
        p.secrets.insert("root".into(), Secret::Literal(Hidden::new("hunter2")));
        let of = p.answers[0].clone();
        for text in [
            "{{ secrets.root + 1 }}",
            "{{ secrets.root.x }}",
            "{{ secrets.root | round }}",
            "{{ secrets.root | int }}",
            "{{ throw(message=secrets.root) }}",
            "{{ vars[secrets.root] }}",
            "{{ secrets[secrets.root] }}",
            "{% if secrets.root is starting_with(pat=\"(\") %}{% else %}{{ throw(message=secrets.root) }}{% endif %}",
            "{% if secrets.root is containing(pat=\"hunter\") %}{{ machine[secrets.root] }}{% endif %}",
            "{{ secrets.nothing }} {{ secrets }}",
        ] {
            let e = whole_answer(&scene(&p), &of, text).unwrap_err();
            assert!(!format!("{e} {e:?}").contains("hunter"), "{text}: {e}");
        }
    }

    #[test]
    fn names_of_initrds() {
        let ours =
            |path: &str| Initrd::from(Source::Ours { folder: "f".into(), path: path.into() });
        let url = Source::Url("https://a.example/x/initrd.img?y=/z".into());
        assert_eq!(names(&[ours("a/initrd.gz"), url.into()]), ["initrd.gz", "initrd.img"]);
        assert_eq!(
            names(&[ours("a/i"), ours("b/i"), ours("c/a b")]),
            ["initrd0", "initrd1", "initrd2"]
        );
    }

    #[test]
    fn mirrors_are_at_plain_http() {
        let urls = Urls {
            base: "https://192.0.2.1:8443".into(),
            http: "http://192.0.2.1:8080".into(),
            ..sample_urls(&Config::default())
        };
        let p = profile("web");
        let (config, facts) = (mirrored(), sample(None));
        let scene = Scene::new(&config, None, &p, &facts, &urls);
        let of = &p.answers[0];
        let text = "{{ mirrors.debian }} {{ mirrors[\"debian-security\"] }} {{ server.host }}";
        assert_eq!(
            answer(&scene, of, text).unwrap(),
            "http://192.0.2.1:8080/mirror/debian http://192.0.2.1:8080/mirror/debian-security \
             192.0.2.1:8080"
        );
        let e = answer(&scene, of, "{{ mirrors.ubuntu }}").unwrap_err().to_string();
        assert!(e.contains("`ubuntu` is not defined") && e.contains("debian"), "{e}");
        let kernel = Source::Mirror { mirror: "debian".into(), path: "a b/linux".into() };
        let url = format!("{}/b/{}/mirror/debian/a%20b/linux", urls.base, urls.token);
        assert_eq!(urls.source(&kernel), url, "but what iPXE fetches is under the token");
    }

    /// An installer that TLS is on for: what iPXE brings stands in the initrd, and nobody fetches it.
    #[test]
    fn answers_are_carried_where_tls_is_on() {
        let mut p = profile("web");
        p.answers[0].carried = Some("/tmp/preseed".into());
        p.boot.args = "url={{ answers.preseed }} {{ seed }}".into();
        let (config, facts) = (Config::default(), sample(None));
        let (plain, script) = (sample_urls(&config), |p: &Profile, urls: &Urls| {
            let scene = Scene::new(&config, None, p, &facts, urls);
            let who = For { mac: facts.mac, name: "web1", base: &urls.base, choose: None };
            machine_script(&who, &scene, p, urls, &[])
        });
        let base = format!("https://192.0.2.1/b/{}", plain.token);
        let tls =
            Urls { base: "https://192.0.2.1".into(), ca: Some("PEM\n".into()), ..plain.clone() };
        let said = script(&p, &plain).unwrap();
        assert!(said.contains(&format!("url=http://192.0.2.1/b/{}/answer/preseed ", plain.token)));
        assert!(said.contains("initrd=initrd.gz") && !said.contains("mkdir"), "{said}");

        let said = script(&p, &tls).unwrap();
        let line = format!("initrd --name preseed {base}/answer/preseed /tmp/preseed mkdir=-1 &&");
        assert!(said.contains(&line), "{said}");
        assert!(said.contains(&format!(" url=file:///tmp/preseed {base}/answer/ ")), "{said}");
        assert!(
            said.contains("initrd=initrd.magic") && !said.contains("initrd=initrd.gz"),
            "{said}"
        );
        let scene = Scene::new(&config, None, &p, &facts, &tls);
        assert_eq!(answer(&scene, &p.answers[0], "{{ ca }}").unwrap(), "PEM");

        // A name of the profile's own would leave the archive out.
        p.boot.args = "initrd=mine.img url={{ answers.preseed }} initrd=more.img".into();
        let carries = script(&p, &tls).unwrap();
        let line =
            " url=file:///tmp/preseed console=tty0 console=ttyS0,115200 initrd=initrd.magic &&";
        assert!(carries.contains(line) && !carries.contains("mine.img"), "{carries}");
        assert!(script(&p, &plain).unwrap().contains(" initrd=mine.img url=http:"));
        p.boot.args = "url={{ answers.preseed }}".into();

        p.plain_answers = true;
        let said = script(&p, &tls).unwrap();
        assert!(said.contains(&format!("url=http://192.0.2.1/b/{}/answer/preseed ", plain.token)));
        assert!(!said.contains("mkdir") && said.contains(&format!("kernel {base}/")), "{said}");
        let scene = Scene::new(&config, None, &p, &facts, &tls);
        assert!(answer(&scene, &p.answers[0], "{{ ca }}").is_err(), "no HTTPS, no CA");
    }

    /// One that fetches its answers and can be told of no CA of ours; where there is one.
    #[test]
    fn answers_that_nobody_could_read_are_refused() {
        let mut p = profile("web");
        p.boot.args = "quiet".into();
        let builtin =
            Template::Of { name: "esxi/pxelinux.cfg".into(), text: "x".into(), own: None };
        p.answers[0].template = builtin.clone();
        p.release = Some(Release {
            installer: "esxi".into(),
            title: "VMware ESXi 8.0".into(),
            version: "8.0".into(),
            arch: "x86_64",
            captures: BTreeMap::new(),
            tree: None,
            trees: BTreeMap::new(),
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            unattended: false,
            bios_only: false,
            knows_no_ca: true,
            note: String::new(),
        });
        let mut config = Config::default();
        let refused = |p: &Profile, config: &Config| {
            let (facts, urls) = (sample(None), sample_urls(config));
            let scene = Scene::new(config, None, p, &facts, &urls);
            let who = For { mac: facts.mac, name: "web1", base: &urls.base, choose: None };
            let made = machine_script(&who, &scene, p, &urls, &[]);
            made.is_err_and(|e| e.message.contains("plain-answers = true in the profile"))
        };
        let script = Start::Script(vec!["set 209:string {{ answers.preseed }}".into()]);
        let (kernel, release) = (p.boot.start.clone(), p.release.clone());
        config.tls.enabled = true;
        assert!(!refused(&p, &config), "attended, and its kernel reads by iPXE");
        p.boot.start = script;
        assert!(refused(&p, &config), "attended, and pxelinux reads");
        p.boot.start = kernel;
        p.answers[0].template = Template::File("/nowhere/own".into());
        assert!(refused(&p, &config), "an answer of the profile's own");
        p.answers[0].template = builtin;
        p.release = release.map(|r| Release { unattended: true, ..r });
        assert!(refused(&p, &config));
        p.plain_answers = true;
        assert!(!refused(&p, &config));
        p.plain_answers = false;
        config.tls.own = Some(config::OwnCertificate {
            chain: "/nowhere/chain.pem".into(),
            key: "/nowhere/key.pem".into(),
            root: None,
        });
        assert!(!refused(&p, &config), "a certificate that everybody trusts");
        assert!(ca_to_come(&config).is_none());
        config.tls.own.as_mut().unwrap().root = Some("/nowhere/root.pem".into());
        assert!(refused(&p, &config));
        config.tls.enabled = false;
        assert!(!refused(&p, &config));
        assert!(ca_to_come(&config).is_none());
    }

    #[test]
    fn urls_are_encoded() {
        let urls = sample_urls(&Config::default());
        let url = urls.file("debian", "/a b/#c/100%.img");
        assert!(url.ends_with("/files/debian/a%20b/%23c/100%25.img"), "{url}");
    }

    #[test]
    fn check_finds_each_fault_once() {
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("preseed.cfg");
        std::fs::write(&template, "{{ vars.rack }}").unwrap();
        let mut good = profile("good");
        good.answers[0].template = Template::File(template);
        let mut unread = profile("unread");
        unread.answers[0].template = Template::File(dir.path().join("none"));
        let mut typo = profile("typo");
        let broken = dir.path().join("broken.cfg");
        std::fs::write(&broken, "{{ vars.rack }\n").unwrap();
        typo.answers[0].template = Template::File(broken);
        typo.boot.args = "{{ machine.hostnam }}".into();
        let config = Config {
            profiles: vec![good, unread, typo],
            machines: vec![
                machine("a", "52:54:00:00:00:01", Some("typo")),
                machine("b", "52:54:00:00:00:02", Some("typo")),
            ]
            .into(),
            ..Config::default()
        };
        let all = config.profiles.iter().flat_map(|p| check_templates(&config, p));
        let said: Vec<String> =
            all.map(|f| format!("{} {:?} {:?}", f.error, f.error.part, f.machine)).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("none cannot be read"), "{said:?}");
        assert!(said[1].contains("broken.cfg:1:"), "{said:?}");
        assert!(said[2].contains("hostnam"), "{said:?}");
        assert!(said[2].ends_with("Some(\"args\") Some(\"a\")"), "{said:?}");
    }
}
