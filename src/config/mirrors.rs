//! `[cache]` and `[[mirror]]`, as written to as used.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;

use super::catalog::{self, Entry};
use super::file::{Names, kept, name};
use super::walk::{Table, Val, Walk, quoted};
use super::words::{self, Wrong};
use super::{Cache, Mirror, Verify};
use crate::model::Digest;
use crate::model::address::is_public;

/// URLs of one mirror.
const URLS: usize = 16;
/// Characters of a URL.
const URL_LIMIT: usize = 1000;
/// Connections to one host; more would be taken for an attack.
pub const CONNECTIONS: (usize, std::ops::RangeInclusive<i64>) = (8, 1..=64);
/// A cache that holds less than one installer's files would only be in the way.
const ROOM: std::ops::RangeInclusive<u64> = 100_000_000..=1_000_000_000_000_000;

pub fn cache(w: &mut Walk<'_>, top: &Table<'_>, default: Cache) -> Cache {
    let t = top.table(w, "cache", "[cache]");
    Cache {
        dir: kept(w, &t, "dir", "cache"),
        limit: t.size(w, "limit", "", ROOM).map_or(default.limit, |v| v.value),
        offline: t.flag(w, "offline").map_or(default.offline, |v| v.value),
        prefetch: t.flag(w, "prefetch").map_or(default.prefetch, |v| v.value),
    }
}

/// The mirrors. Their names and those of folders are one namespace: a kernel says `NAME/path`.
pub fn mirrors<'a>(
    w: &mut Walk<'_>,
    top: &Table<'a>,
    folders: &Names<'a>,
) -> (Vec<Mirror>, Names<'a>) {
    let (mut found, mut names) = (Vec::new(), Names::new());
    for t in top.tables(w, "mirror", "[[mirror]]") {
        let name = name(w, &t, "mirror", &mut names);
        if let Some((n, folder)) = name.and_then(|n| Some((n, folders.get(n.value)?))) {
            let message = format!("a folder is called {}, too", quoted(n.value));
            w.clash(n.at, *folder, message, "a kernel names either: give one another name");
        }
        found.extend(mirror(w, &t, name));
    }
    (found, names)
}

/// Adds the mirrors of an entry that are neither declared nor added already.
pub fn from_catalog(
    w: &mut Walk<'_>,
    entry: Val<&Entry>,
    declared: &Names<'_>,
    added: &mut Vec<Mirror>,
) {
    for name in &entry.value.mirrors {
        if declared.contains_key(name.as_str()) || added.iter().any(|m| m.name == *name) {
            continue;
        }
        let Some(known) = catalog::mirror(name) else { continue };
        w.keep(format!("catalog/{name}"), entry.at);
        w.keep(format!("mirror/{name}"), entry.at);
        for n in 0..known.keys.len() {
            w.keep(format!("mirror/{name}/key/{n}"), entry.at);
        }
        added.push(known.declared());
    }
}

fn mirror(w: &mut Walk<'_>, t: &Table<'_>, name: Option<Val<&str>>) -> Option<Mirror> {
    let private = t.flag(w, "private").is_some_and(|v| v.value);
    let urls = urls(w, t, private);
    let verify = verify(w, t);
    let keys = keys(w, t, name, verify);
    let redirects = redirects(w, t);
    let pins = pins(w, t);
    let connections = t.whole(w, "connections", CONNECTIONS.1).map_or(CONNECTIONS.0, |v| v.value);
    let name = name?;
    w.keep(format!("mirror/{}", name.value), name.at);
    let verify = verify?.value;
    Some(Mirror {
        name: name.value.to_string(),
        urls,
        verify,
        keys,
        redirects,
        pins,
        private,
        connections,
    })
}

fn urls(w: &mut Walk<'_>, t: &Table<'_>, private: bool) -> Vec<String> {
    t.missing(w, "urls", "write urls = [\"https://…/\"], where the archive is");
    let all = t.texts(w, "urls");
    if let (true, Some(v)) = (t.has("urls"), all.get(URLS)) {
        let message = format!("`urls` has {} entries", all.len());
        w.err(v.at, message, format!("there is room for {URLS}"));
        return Vec::new();
    }
    if t.is_empty_list("urls") {
        w.err(t.at, "`urls` is empty", "a mirror needs one URL at least");
    }
    let mut found: Vec<Val<String>> = Vec::new();
    for v in all {
        let Some(url) = w.check(v, |s| url(s, private)) else { continue };
        match found.iter().find(|f| f.value == url.value) {
            Some(first) => {
                let message = format!("the URL {} is there twice", quoted(&url.value));
                w.clash(url.at, first.at, message, "leave one of them out");
            }
            None => found.push(url),
        }
    }
    found.into_iter().map(|v| v.value).collect()
}

/// A mirror's URL as the HTTP client will read it: the WHATWG parser takes `http://0x7f.1` for
/// `http://127.0.0.1`, and so must we.
///
/// # Errors
/// What is not allowed in one.
pub fn url(text: &str, private: bool) -> Result<String, Wrong> {
    const HINT: &str = "write http://HOST/PATH/ or https://HOST/PATH/";
    let wrong = |what: &str, hint: &str| Err((format!("{} {what}", quoted(text)), hint.into()));
    let strange = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if text.len() > URL_LIMIT || text.contains(strange) {
        return wrong("is no URL of a mirror", HINT);
    }
    // The parser would mend `http:/host` and `http:///host`; whoever wrote it meant something else.
    let whole = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with('/'));
    let Some(mut url) = Url::parse(text).ok().filter(|_| whole) else {
        return wrong("is no URL", HINT);
    };
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("is not at a web server", HINT);
    }
    if url.port() == Some(0) {
        return wrong("has no port that a server can have", HINT);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds a user or a password", "a mirror is open to all; leave them out");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("holds \"?\" or \"#\"", "paths are put behind it; it ends with a slash");
    }
    let host = url.host_str().unwrap_or_default();
    if !private && is_inside(host) {
        return wrong(
            "is at an address that is not public",
            "write private = true if that is where the mirror is",
        );
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url.to_string())
}

/// Whether a host is, by its name alone, on this machine or in its network (RFC 6761 section 6.3
/// for `localhost`).
fn is_inside(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => {
            let host = host.trim_end_matches('.');
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

fn verify(w: &mut Walk<'_>, t: &Table<'_>) -> Option<Val<Verify>> {
    const KINDS: [&str; 4] = ["debian", "rpm", "sums", "plain"];
    let Some(v) = t.text(w, "verify") else {
        return (!t.has("verify")).then_some(Val { value: Verify::default(), at: t.at });
    };
    let value = match v.value {
        "debian" => Verify::Debian,
        "rpm" => Verify::Rpm,
        "sums" => Verify::Sums,
        "plain" => Verify::Plain,
        other => {
            let hint = "it is \"debian\", \"rpm\", \"sums\" or \"plain\"";
            let hint = w.nearest(other, KINDS, hint);
            w.err(v.at, format!("there is no way {} to verify", quoted(other)), hint);
            return None;
        }
    };
    Some(Val { value, at: v.at })
}

fn keys(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    name: Option<Val<&str>>,
    verify: Option<Val<Verify>>,
) -> Vec<PathBuf> {
    let texts = t.texts(w, "keys");
    match (verify, texts.first()) {
        (Some(Val { value: Verify::Plain, .. }), Some(first)) => {
            let message = "`keys` are given, and nothing is verified by them";
            w.err(first.at, message, "write verify = \"debian\", \"rpm\" or \"sums\"");
        }
        (Some(Val { value: Verify::Debian | Verify::Rpm | Verify::Sums, at }), None)
            if !t.has("keys") =>
        {
            let message = "without `keys` no signature is looked at: digests count from the \
                           mirror's own word on";
            w.note(at, message, "name the files with its public keys: keys = [\"….gpg\"]");
        }
        _ => {}
    }
    let mut found = Vec::new();
    for v in texts {
        let Some(path) = w.file_at("keys", v) else { continue };
        if let Some(name) = name {
            w.keep(format!("mirror/{}/key/{}", name.value, found.len()), v.at);
        }
        found.push(path);
    }
    found
}

fn redirects(w: &mut Walk<'_>, t: &Table<'_>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for v in t.texts(w, "redirects") {
        let Some(host) = w.check(v, redirect) else { continue };
        if !found.contains(&host.value) {
            found.push(host.value);
        }
    }
    found
}

/// `cdn.example`, or `*.example` for all hosts below it; in lower case.
fn redirect(text: &str) -> Result<String, Wrong> {
    const HINT: &str = "write a host, \"cdn.example\", or all that are below one, \"*.example\"";
    let bare = text.strip_prefix("*.").unwrap_or(text);
    if bare.contains(['/', ':', '*']) {
        return Err((format!("{} is no host", quoted(text)), HINT.into()));
    }
    words::host("host", bare)?;
    // `1.2.3.4`, and what the client would read as one: `127.1`, `0x7f000001`.
    let address = Url::parse(&format!("http://{bare}/"));
    let address = address.ok().and_then(|u| u.host_str().and_then(|h| h.parse::<IpAddr>().ok()));
    if address.is_some_and(|a| text.starts_with('*') || !is_public(a)) || is_inside(bare) {
        let message = format!("no redirect may lead to {}", quoted(text));
        return Err((message, "a redirect leads to public hosts only".into()));
    }
    Ok(text.to_ascii_lowercase())
}

fn pins(w: &mut Walk<'_>, t: &Table<'_>) -> BTreeMap<String, Digest> {
    let t = t.table(w, "pin", "the mirror's `pin`");
    let mut found = BTreeMap::new();
    for key in t.keys() {
        let path = w.check(key, |s| words::plain_path("`pin`", s, s));
        let digest = t.text(w, key.value).and_then(|v| {
            w.check(v, |s| {
                let what = |e| (format!("{} is no digest", quoted(s)), format!("{e}"));
                s.parse::<Digest>().map_err(what)
            })
        });
        if let (Some(path), Some(digest)) = (path, digest) {
            found.insert(path.value.to_string(), digest.value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_what_the_client_will_make_of_it() {
        for (given, url_) in [
            ("https://deb.example/debian", "https://deb.example/debian/"),
            ("http://h:8080", "http://h:8080/"),
            ("HTTP://Deb.Example/a/", "http://deb.example/a/"),
            ("http://[2600::1]:80/", "http://[2600::1]/"),
            ("https://h/a/../b%20c", "https://h/b%20c/"),
        ] {
            assert_eq!(url(given, false).as_deref(), Ok(url_), "{given}");
        }
        for bad in [
            "",
            "deb.example/debian",
            "ftp://h/",
            "http://",
            "http:///x",
            "http:/x",
            "http:x",
            "http://u@h/",
            "http://:p@h/",
            "http://h/?a",
            "http://h/#a",
            "http://h:0/",
            "http://h:99999/",
            "http://h /",
            "http://h\\x/",
            "http://[::g]/",
            "http://a/\n",
            &"http://h/".repeat(200),
        ] {
            assert!(url(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_of_ours_is_seen_through_its_spelling() {
        for inside in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://10.0.0.1:8080/a",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://localhost/",
            "https://x.LOCALHOST./",
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://①②⑦.0.0.1/",
        ] {
            assert!(url(inside, false).is_err(), "{inside}");
            assert!(url(inside, true).is_ok(), "{inside}");
        }
    }

    #[test]
    fn redirects_are_hosts() {
        assert_eq!(redirect("CDN.example").as_deref(), Ok("cdn.example"));
        assert_eq!(redirect("*.example").as_deref(), Ok("*.example"));
        assert!(redirect("151.101.2.132").is_ok());
        for bad in [
            "",
            "*",
            "*.",
            "*.*.example",
            "a.*",
            "http://a",
            "a/b",
            "a:80",
            "10.0.0.1",
            "127.1",
            "0x7f000001",
            "localhost",
            "*.localhost",
            "*.1.2.3.4",
        ] {
            assert!(redirect(bad).is_err(), "{bad}");
        }
    }
}
