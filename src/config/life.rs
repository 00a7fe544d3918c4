//! `[life]`, `[[webhook]]`, and what a profile and a machine say of their lives: kind, secrets,
//! power. As written to as used.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use reqwest::Url;

use super::file::Names;
use super::walk::{Table, Val, Walk, quoted};
use super::words::{self, LINE_LIMIT, Wrong};
use super::{LOCAL_DISK, Life, Unknown, Webhook};
use crate::model::profile::Kind;
use crate::model::{Hidden, Match, Power, Secret};

/// Less than a minute no kernel has started in, and what takes longer than a week hangs.
const TIMES: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
/// Each attempt wipes a disk.
const ATTEMPTS: RangeInclusive<i64> = 1..=100;
/// Each has a timeline of some kilobytes.
const BOOTS: RangeInclusive<i64> = 1..=100;
const WEBHOOKS: usize = 16;
const URL_LIMIT: usize = 1000;
/// Bytes of a secret that is written in the configuration: a private key has some thousand.
const LITERAL_LIMIT: usize = 64 << 10;
/// What a webhook can be told.
const EVENTS: [&str; 3] = ["installed", "failed", "alarm"];

/// The profiles there are, where each is declared, and of what kind it is.
pub struct Kinds<'a, 'n> {
    pub names: &'a Names<'n>,
    /// Only of those that are right.
    pub kinds: BTreeMap<&'a str, Kind>,
}

pub fn life(w: &mut Walk<'_>, top: &Table<'_>, profiles: &Kinds<'_, '_>) -> Life {
    let default = Life::default();
    let t = top.table(w, "life", "[life]");
    let unknown = unknown(w, &t, profiles);
    let rescue = named(w, &t, "rescue", Kind::Live, profiles);
    let held_rescue = held(w, &t);
    Life {
        unknown,
        attempts: attempts(w, &t).unwrap_or(default.attempts),
        timeout: timeout(w, &t).unwrap_or(default.timeout),
        held_rescue,
        rescue,
        boots: t.whole(w, "boots", BOOTS).map_or(default.boots, |v| v.value),
    }
}

fn unknown(w: &mut Walk<'_>, t: &Table<'_>, profiles: &Kinds<'_, '_>) -> Unknown {
    const WORDS: [&str; 4] = ["menu", "ignore", "discover", "install"];
    let profile = named(w, t, "profile", Kind::Install, profiles);
    let word = t.text(w, "unknown");
    if t.has("profile") && word.is_none_or(|v| WORDS[..3].contains(&v.value)) {
        let hint = "write unknown = \"install\" to install it on every unknown machine, or leave \
                    `profile` out";
        w.err(t.key_at("profile"), "`profile` of [life] is for unknown = \"install\"", hint);
    }
    let Some(word) = word else { return Unknown::Menu };
    match word.value {
        "menu" => Unknown::Menu,
        "ignore" => Unknown::Ignore,
        "discover" => Unknown::Discover,
        "install" => {
            if !t.has("profile") {
                let message = "unknown = \"install\" does not say what to install";
                w.err(word.at, message, "write profile = \"NAME\" below it");
            }
            profile.map_or(Unknown::Menu, Unknown::Install)
        }
        other => {
            let hint = format!("it is {}", or(&WORDS));
            let hint = w.nearest(other, WORDS, hint);
            w.err(word.at, format!("`unknown` cannot be {}", quoted(other)), hint);
            Unknown::Menu
        }
    }
}

/// Whether a machine that is held gets the rescue system.
fn held(w: &mut Walk<'_>, t: &Table<'_>) -> bool {
    const WORDS: [&str; 2] = ["message", "rescue"];
    let Some(v) = t.text(w, "held") else { return false };
    match v.value {
        "message" => false,
        "rescue" => {
            if !t.has("rescue") {
                let message = "held = \"rescue\" does not say which system that is";
                w.err(v.at, message, "write rescue = \"NAME\", a profile of kind = \"live\"");
            }
            true
        }
        other => {
            let hint = w.nearest(other, WORDS, format!("it is {}", or(&WORDS)));
            w.err(v.at, format!("`held` cannot be {}", quoted(other)), hint);
            false
        }
    }
}

/// A profile that exists and is of the kind.
fn named(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    key: &str,
    kind: Kind,
    profiles: &Kinds<'_, '_>,
) -> Option<String> {
    let v = t.text(w, key)?;
    let Some(first) = profiles.names.get(v.value) else {
        let hint = match v.value {
            LOCAL_DISK => "a machine's own disk is no profile".into(),
            other => {
                w.nearest(other, profiles.names.keys().map(|k| &**k), "declare it as a [[profile]]")
            }
        };
        w.err(v.at, format!("there is no profile {}", quoted(v.value)), hint);
        return None;
    };
    // One that is wrong has been told of.
    let is = profiles.kinds.get(v.value)?;
    if *is != kind {
        let name = quoted(v.value);
        let (message, hint) = match kind {
            Kind::Live => (
                format!("`{key}` is booted at each start, and the profile {name} installs"),
                "write kind = \"live\" in that profile if it only runs from the network",
            ),
            Kind::Install => (
                format!("`{key}` is installed, and the profile {name} only runs from the network"),
                "name a profile without kind = \"live\"",
            ),
        };
        w.clash(v.at, *first, message, hint);
        return None;
    }
    Some(v.value.to_string())
}

pub fn attempts(w: &mut Walk<'_>, t: &Table<'_>) -> Option<u32> {
    t.whole(w, "attempts", ATTEMPTS).map(|v| v.value)
}

pub fn timeout(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Duration> {
    t.time(w, "timeout", TIMES).map(|v| v.value)
}

/// `kind` of a profile, which says whether it has a life.
pub fn kind(w: &mut Walk<'_>, t: &Table<'_>) -> Kind {
    const WORDS: [&str; 2] = ["install", "live"];
    let kind = match t.text(w, "kind") {
        None => Kind::Install,
        Some(v) => match v.value {
            "install" => Kind::Install,
            "live" => Kind::Live,
            other => {
                let hint = w.nearest(other, WORDS, format!("it is {}", or(&WORDS)));
                w.err(v.at, format!("there is no kind {}", quoted(other)), hint);
                Kind::Install
            }
        },
    };
    for key in ["timeout", "attempts"].into_iter().filter(|key| kind == Kind::Live && t.has(key)) {
        let message = format!("`{key}` is of installations, and this profile is live");
        w.err(t.key_at(key), message, "leave it out: a live system is booted at each start");
    }
    kind
}

/// `secrets`: names that a template can write behind a dot, to where each comes from. `owner` is
/// what [`super::Config::place`] has its places below.
pub fn secrets(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    title: &'static str,
    owner: &str,
) -> BTreeMap<String, Secret> {
    let t = t.table(w, "secrets", title);
    let mut found = BTreeMap::new();
    for key in t.keys() {
        let name = w.check(key, secret_name);
        let secret = secret(w, &t, key.value);
        if let (Some(name), Some(secret)) = (name, secret) {
            w.keep(format!("{owner}/secret/{}", name.value), secret.at);
            found.insert(name.value.to_string(), secret.value);
        }
    }
    found
}

fn secret_name(text: &str) -> Result<&str, Wrong> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if text.len() <= 64
        && text.starts_with(letter)
        && text.chars().all(|c| letter(c) || c.is_ascii_digit())
    {
        return Ok(text);
    }
    Err((
        format!("{} cannot be the name of a secret", quoted(text)),
        "a template says {{ secrets.NAME }}: letters, digits and \"_\", and no digit in front"
            .into(),
    ))
}

/// A secret: a text, `{ file = … }` or `{ env = … }`. No message shows a text of it.
pub fn secret(w: &mut Walk<'_>, t: &Table<'_>, key: &str) -> Option<Val<Secret>> {
    const HINT: &str = "write { file = \"…\" }, { env = \"NAME\" }, or the secret itself in quotes";
    if !t.is_table(key) {
        let v = t.hidden_text(w, key, HINT)?;
        if v.value.is_empty() || v.value.len() > LITERAL_LIMIT {
            let message = match v.value.len() {
                0 => format!("the secret `{key}` is empty"),
                _ => format!("the secret `{key}` has more than {} KiB", LITERAL_LIMIT >> 10),
            };
            w.err(v.at, message, HINT);
            return None;
        }
        return Some(Val { value: Secret::Literal(Hidden::new(v.value)), at: v.at });
    }
    let before = w.errors.count();
    let t = t.table(w, key, "a secret");
    if w.errors.count() > before {
        return None;
    }
    let file = t.path(w, "file").map(|v| Val { value: Secret::File(v.value), at: v.at });
    let env = t.text(w, "env").and_then(|v| w.check(v, variable));
    let env = env.map(|v| Val { value: Secret::Env(v.value.to_string()), at: v.at });
    if t.has("file") == t.has("env") {
        let message = match t.has("file") {
            true => format!("the secret `{key}` has both a file and a variable"),
            false => format!("the secret `{key}` has neither `file` nor `env`"),
        };
        w.err(t.at, message, HINT);
        return None;
    }
    file.or(env)
}

/// A variable's name (POSIX.1-2017, 8.1).
fn variable(text: &str) -> Result<&str, Wrong> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    if text.len() <= 255
        && text.starts_with(letter)
        && text.chars().all(|c| letter(c) || c.is_ascii_digit())
    {
        return Ok(text);
    }
    Err((
        format!("{} is no variable of the environment", quoted(text)),
        "write its name alone, like \"ROOT_PASSWORD\", without \"$\"".into(),
    ))
}

/// How a machine is switched on and off.
pub fn power(w: &mut Walk<'_>, t: &Table<'_>, by: &Match, owner: &str) -> Power {
    if !t.has("power") {
        return Power::WakeOnLan;
    }
    let before = w.errors.count();
    let t = t.table(w, "power", "the machine's `power`");
    if w.errors.count() > before {
        return Power::WakeOnLan;
    }
    let power = match (t.has("redfish"), t.has("command")) {
        (true, false) => redfish(w, &t, by, owner),
        (false, true) => {
            for key in ["user", "password", "insecure"].into_iter().filter(|key| t.has(key)) {
                let message = format!("`{key}` is for `redfish`, and this `power` is a command");
                w.err(
                    t.key_at(key),
                    message,
                    "give it to the command as an argument, or leave it out",
                );
            }
            command(w, &t)
        }
        (both, _) => {
            let message = match both {
                true => "this `power` has both `redfish` and `command`",
                false => "this `power` has neither `redfish` nor `command`",
            };
            let hint = "one of them switches the machine; without `power` Wake-on-LAN does";
            w.err(t.at, message, hint);
            None
        }
    };
    power.unwrap_or_default()
}

fn redfish(w: &mut Walk<'_>, t: &Table<'_>, by: &Match, owner: &str) -> Option<Power> {
    let url = t.text(w, "redfish").and_then(|v| w.check(v, redfish_url));
    let is_one = by.mac.as_ref().and_then(|p| p.exact()).is_some()
        || by.uuid.is_some()
        || by.serial.is_some();
    if !is_one {
        let message = "`redfish` is one machine's, and this [[machine]] matches several";
        w.err(
            t.at,
            message,
            "match it by a MAC address without *, by its UUID or its serial number",
        );
    }
    let user = t.text(w, "user").and_then(|v| {
        w.check(v, |s| words::line("`user`", s, LINE_LIMIT)).map(|v| v.value.to_string())
    });
    let password = t.has("password").then(|| secret(w, t, "password")).flatten();
    for (given, other) in [("user", "password"), ("password", "user")] {
        if t.has(given) && !t.has(other) {
            let message = format!("`{given}` is given without `{other}`");
            w.err(t.key_at(given), message, "a BMC wants both, or neither");
        }
    }
    let insecure = t.flag(w, "insecure");
    if let Some(password) = &password {
        w.keep(format!("{owner}/password"), password.at);
    }
    if let (Some(url), Some(_)) =
        (url.as_ref().filter(|u| !u.value.starts_with("https")), &password)
    {
        let hint = "write https:// if the BMC has it; insecure = true takes any certificate";
        w.note(url.at, "this password is sent to the BMC in the clear", hint);
    }
    Some(Power::Redfish {
        url: url?.value,
        user,
        password: password.map(|p| p.value),
        insecure: insecure.is_some_and(|v| v.value),
    })
}

/// The program, beside the file that names it where it has a slash, and its arguments.
fn command(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Power> {
    const HINT: &str =
        "write command = [\"PROGRAM\", \"ARGUMENT\"]; on, off, cycle or pxe is added";
    let all = t.texts(w, "command");
    if t.is_empty_list("command") {
        w.err(t.key_at("command"), "`command` is empty", HINT);
        return None;
    }
    let (program, arguments) = all.split_first()?;
    if program.value.is_empty() {
        w.err(program.at, "`command` names no program", HINT);
        return None;
    }
    let path = w.file_at("command", *program)?;
    let mut command = vec![match program.value.contains('/') {
        true => path.to_string_lossy().into_owned(),
        false => program.value.to_string(),
    }];
    for v in arguments {
        // execve(2) ends an argument there.
        if v.value.contains('\0') || v.value.len() > LINE_LIMIT {
            w.err(v.at, "no program can be given this argument", HINT);
            return None;
        }
        command.push(v.value.to_string());
    }
    Some(Power::Command(command))
}

fn redfish_url(text: &str) -> Result<String, Wrong> {
    const HINT: &str = "write the system's own URL, like https://bmc/redfish/v1/Systems/1";
    let url = web_url(text, HINT)?;
    if url.query().is_some() || !url.path().contains("/Systems/") {
        return Err((format!("{} names no system of a BMC", quoted(text)), HINT.into()));
    }
    Ok(url.to_string().trim_end_matches('/').to_string())
}

/// A URL of a web server, without a user in it: URLs are logged.
fn web_url(text: &str, hint: &str) -> Result<Url, Wrong> {
    let wrong =
        |what: &str, hint: &str| Err((format!("{} {what}", quoted(text)), hint.to_string()));
    let strange = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    let whole = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let fits = whole && text.len() <= URL_LIMIT && !text.contains(strange);
    let Some(url) = Url::parse(text).ok().filter(|_| fits) else {
        return wrong("is no URL", hint);
    };
    if !matches!(url.scheme(), "http" | "https") || url.port() == Some(0) {
        return wrong("is not at a web server", hint);
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message = "a URL with a user or a password in it".to_string();
        return Err((message, "URLs are logged; write them in keys of their own".into()));
    }
    Ok(url)
}

pub fn webhooks(w: &mut Walk<'_>, top: &Table<'_>) -> Vec<Webhook> {
    let tables = top.tables(w, "webhook", "[[webhook]]");
    if let Some(t) = tables.get(WEBHOOKS) {
        let message = format!("there are {} webhooks", tables.len());
        w.err(t.at, message, format!("there is room for {WEBHOOKS}"));
    }
    let mut found = Vec::new();
    for t in tables.iter().take(WEBHOOKS) {
        t.missing(w, "url", "write url = \"https://…\"");
        let url = t.text(w, "url").and_then(|v| {
            w.check(v, |s| web_url(s, "write http://HOST/PATH or https://HOST/PATH"))
        });
        let secret = t.has("secret").then(|| secret(w, t, "secret")).flatten();
        let events = events(w, t);
        let Some(url) = url else { continue };
        w.keep(format!("webhook/{}", found.len()), url.at);
        if let Some(secret) = &secret {
            w.keep(format!("webhook/{}/secret", found.len()), secret.at);
        }
        let (url, secret) = (url.value.to_string(), secret.map(|s| s.value));
        found.push(Webhook { url, secret, events });
    }
    found
}

/// All of them, unless some are named.
fn events(w: &mut Walk<'_>, t: &Table<'_>) -> Vec<&'static str> {
    if !t.has("events") {
        return EVENTS.to_vec();
    }
    if t.is_empty_list("events") {
        let hint = format!("name some of {}, or leave it out for all", or(&EVENTS));
        w.err(t.key_at("events"), "`events` is empty", hint);
    }
    let mut found = Vec::new();
    for v in t.texts(w, "events") {
        match EVENTS.iter().find(|e| **e == v.value) {
            Some(event) if found.contains(event) => {}
            Some(event) => found.push(*event),
            None => {
                let hint = w.nearest(v.value, EVENTS, format!("it is {}", or(&EVENTS)));
                w.err(v.at, format!("there is no event {}", quoted(v.value)), hint);
            }
        }
    }
    found
}

/// `"a", "b" or "c"`.
fn or(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
