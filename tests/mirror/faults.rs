//! Upstreams that misbehave: the client gets the right bytes or an error, never a whole wrong file.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Barrier;
use std::thread;

use sha2::{Digest, Sha256};

use crate::lab::{Got, Lab, fetch, get, mirror, open, ours, try_fetch, until};
use crate::namespace::{in_a_namespace, ip};
use crate::upstream::{Act, Asked, Content, Upstream, noise};

pub const MB: usize = 1_000_000;
/// What waits until the digest is known to be right.
pub const HELD: usize = 64 << 10;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

pub fn pin(path: &str, bytes: &[u8]) -> String {
    format!("\"{path}\" = \"sha256:{}\"", digest(bytes))
}

// --- the upstream itself ---------------------------------------------------------------------------

#[test]
fn the_upstream_does_as_it_is_told() {
    let up = Upstream::new();
    let (old, new) = (noise(1, MB), noise(2, MB));
    let ask = |act: Act, headers: &[(&str, &str)]| {
        up.put("/f", Content::new(old.clone(), "old"));
        up.will("/f", [act]);
        try_fetch(up.address, "GET", "/f", headers).map(|r| r.rest())
    };
    let good = |act, headers: &[(&str, &str)]| ask(act, headers).unwrap();

    let range = ("Range", "bytes=1000-1999");
    let got = good(Act::Right, &[]);
    assert!(got.whole && got.body == old && got.head["etag"] == "\"old\"");
    let got = good(Act::Right, &[range, ("If-Range", "\"old\"")]);
    assert_eq!((got.status, got.head["content-range"].as_str()), (206, "bytes 1000-1999/1000000"));
    assert!(got.whole && got.body == old[1000..2000]);
    let got = good(Act::Right, &[range, ("If-Range", "\"other\"")]);
    assert!(got.status == 200 && got.body == old);
    assert_eq!(good(Act::Right, &[("If-None-Match", "\"old\"")]).status, 304);
    assert_eq!(good(Act::Right, &[("Range", "bytes=1000000-")]).status, 416);

    let got = good(Act::Cut(5000), &[]);
    assert!(!got.whole && got.body == old[..5000]);
    let got = good(Act::CutAndChange(5000, Content::new(new.clone(), "new")), &[]);
    assert!(!got.whole && got.body == old[..5000] && got.head["etag"] == "\"old\"");
    assert!(fetch(up.address, "GET", "/f", &[]).rest().body == new);
    let got = good(Act::Lie(10), &[]);
    assert!(!got.whole && got.head["content-length"] == "1000010" && got.body == old);
    let got = good(Act::Lie(-10), &[]);
    assert!(got.head["content-length"] == "999990" && got.body == old);
    let got = good(Act::More(10), &[]);
    assert!(got.head["content-length"] == "1000000" && got.body.len() == MB + 10);
    let got = good(Act::Whole, &[range, ("If-Range", "\"old\"")]);
    assert!(got.status == 200 && got.body == old);
    let got = good(Act::Other206(7), &[range]);
    assert_eq!(got.head["content-range"], "bytes 1007-1999/1000000");
    let got = good(Act::OtherTotal(7), &[range]);
    assert_eq!(got.head["content-range"], "bytes 1000-1999/1000007");
    let got = good(Act::Mixed206(0), &[range]);
    assert!(got.head["content-range"] == "bytes 1000-1999/1000000" && got.body == old[..1000]);
    let got = good(Act::Wrong(1), &[]);
    assert!(got.whole && got.body != old && got.body[2..] == old[2..]);
    let got = good(Act::Redirect(302, "file:///etc/passwd".into()), &[]);
    assert_eq!((got.status, got.head["location"].as_str()), (302, "file:///etc/passwd"));
    let got = good(Act::Status(503, "Retry-After: 1\r\n"), &[]);
    assert_eq!((got.status, got.head["retry-after"].as_str()), (503, "1"));
    let got = good(Act::Chunked(None), &[]);
    assert!(got.whole && got.body == old && !got.head.contains_key("content-length"));
    let got = good(Act::Chunked(Some(5000)), &[]);
    assert!(!got.whole && got.body == old[..5000]);
    let got = good(Act::Gzip, &[]);
    assert!(got.head["content-encoding"] == "gzip" && got.body != old);
    assert!(!good(Act::NoValidator, &[]).head.contains_key("etag"));
    assert!(ask(Act::Garbage, &[]).is_err());
    assert!(ask(Act::EndlessHead, &[]).is_err());
    assert_eq!(fetch(up.address, "GET", "/nothing", &[]).rest().status, 404);
}

#[test]
fn a_stalled_upstream_waits_and_a_slow_one_keeps_its_rate() {
    let up = Upstream::new();
    let body = noise(1, MB);
    up.put("/f", Content::new(body.clone(), "a"));
    up.will("/f", [Act::Stall(100_000), Act::Slow(4_000_000)]);
    let mut reading = fetch(up.address, "GET", "/f", &[]);
    assert!(reading.first(100_000) == &body[..100_000]);
    let asked = up.wait("/f", |a| a[0].sent == 100_000);
    assert!(!asked[0].ended);
    up.release();
    assert!(reading.rest().body == body);
    let begun = std::time::Instant::now();
    assert!(fetch(up.address, "GET", "/f", &[]).rest().body == body);
    assert!(begun.elapsed().as_millis() >= 245, "a quarter of a second's bytes");
    let asked = up.wait("/f", |a| a.len() == 2 && a.iter().all(|a| a.ended));
    assert_eq!(asked.iter().map(|a| a.sent).sum::<u64>(), 2 * MB as u64);
}

// --- through the mirror ------------------------------------------------------------------------------

/// Above what may be buffered anywhere on the way: a fault at its middle is one in mid-download.
const BIG: usize = 12 * MB;

/// A plain mirror `m` of this upstream; pins are lines of [`pin`].
fn plain(up: &Upstream, pins: &[String]) -> String {
    let pins = pins.join(", ");
    mirror("m", &[&up.url()], &format!("verify = \"plain\"\npin = {{ {pins} }}"))
}

/// Whole only if it is one of these, and otherwise the beginning of one of them or an error.
pub fn never_wrong(got: &Got, right: &[&[u8]], what: &str) {
    if got.status >= 400 {
        return;
    }
    let good = match got.whole {
        true => right.contains(&got.body.as_slice()),
        false => right.iter().any(|r| r.starts_with(&got.body)),
    };
    assert!(good, "{what}: {} bytes, whole: {}, wrong", got.body.len(), got.whole);
}

#[test]
fn no_fault_makes_a_whole_wrong_file() {
    const ME: &str = "faults::no_fault_makes_a_whole_wrong_file";
    if !in_a_namespace(ME) {
        return;
    }
    let (right, other) = (noise(1, BIG), noise(2, BIG));
    let cut = || Act::Cut(BIG / 2);
    let faults: Vec<(&str, Vec<Act>)> = vec![
        ("cut", vec![cut()]),
        ("cut-thrice", vec![cut(), Act::Cut(MB), Act::Cut(0)]),
        ("long", vec![Act::Lie(1000)]),
        ("short", vec![Act::Lie(-1000)]),
        ("more", vec![Act::More(1000)]),
        ("whole", vec![cut(), Act::Whole]),
        ("other-206", vec![cut(), Act::Other206(4096)]),
        ("other-total", vec![cut(), Act::OtherTotal(4096)]),
        ("mixed-206", vec![cut(), Act::Mixed206(0)]),
        ("wrong-byte", vec![Act::Wrong(BIG - 10)]),
        ("wrong-begin", vec![Act::Wrong(0)]),
        ("404-behind", vec![cut(), Act::Status(404, "")]),
        ("416", vec![cut(), Act::Status(416, "Content-Range: bytes */12\r\n")]),
        ("416-first", vec![Act::Status(416, "")]),
        ("500", vec![Act::Status(500, "")]),
        ("503", vec![Act::Status(503, "Retry-After: 1\r\n")]),
        ("chunked", vec![Act::Chunked(None)]),
        ("chunked-cut", vec![Act::Chunked(Some(BIG / 2))]),
        ("gzip", vec![Act::Gzip]),
        ("gzip-behind", vec![cut(), Act::Gzip]),
        ("garbage", vec![Act::Garbage]),
        ("garbage-behind", vec![cut(), Act::Garbage]),
        ("endless-head", vec![Act::EndlessHead]),
        ("no-validator", vec![Act::NoValidator]),
        ("no-validator-behind", vec![cut(), Act::NoValidator]),
        ("slow", vec![Act::Slow(40_000_000)]),
    ];
    let up = Upstream::new();
    let pins: Vec<String> = faults.iter().map(|(name, _)| pin(name, &right)).collect();
    let lab = Lab::new(&plain(&up, &pins));
    let server = lab.start();
    // What answers 206 or 200 with bytes of its own can be told only by a digest.
    let undetectable = ["short", "mixed-206", "wrong-byte", "wrong-begin", "no-validator-behind"];
    for (name, acts) in &faults {
        for pinned in [true, false] {
            if !pinned && undetectable.contains(name) {
                continue;
            }
            let path = if pinned { format!("/{name}") } else { format!("/{name}.plain") };
            up.put(&path, Content::new(right.clone(), "a").head("Cache-Control: max-age=9999\r\n"));
            up.will(&path, acts.clone());
            let first = get(&format!("/mirror/m{path}"));
            never_wrong(&first, &[&right], &path);
            if pinned && !first.whole && first.status < 400 {
                assert!(first.body.len() <= BIG - HELD, "{path}: the end waits for the digest");
            }
            if first.status >= 400 {
                assert!([404, 500, 502, 503, 504].contains(&first.status), "{path}: {first:?}");
            }
            // The fault over, the file is right, if need be from the start.
            let again = get(&format!("/mirror/m{path}"));
            assert!(again.whole && again.body == right, "{path}: {}", again.status);
        }
    }
    // Changed in mid-download: all old, all new, or not whole.
    for (name, act) in [
        ("changed", Act::CutAndChange(BIG / 2, Content::new(other.clone(), "b"))),
        ("changed-early", Act::CutAndChange(1000, Content::new(other.clone(), "b"))),
        ("shrunk", Act::CutAndChange(BIG / 2, Content::new(other[..MB].to_vec(), "b"))),
    ] {
        let path = format!("/{name}");
        let Act::CutAndChange(_, Content { bytes: new, .. }) = &act else { unreachable!() };
        up.put(&path, Content::new(right.clone(), "a"));
        up.will(&path, [act.clone()]);
        never_wrong(&get(&format!("/mirror/m{path}")), &[&right, new], &path);
        let again = get(&format!("/mirror/m{path}"));
        assert!(again.whole && again.body == **new, "{path}: {}", again.status);
    }
    assert!(server.memory() < 200 << 10, "{} KiB", server.memory());
}

#[test]
fn what_was_cut_goes_on_from_where_it_stood() {
    const ME: &str = "faults::what_was_cut_goes_on_from_where_it_stood";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, BIG);
    up.put("/f", Content::new(right.clone(), "a"));
    up.will("/f", [Act::Cut(BIG / 2)]);
    let lab = Lab::new(&plain(&up, &[]));
    let _server = lab.start();
    assert!(get("/mirror/m/f").body == right);
    let asked = up.asked("/f");
    assert_eq!(asked.len(), 2, "{asked:#?}");
    assert!(asked[0].range.is_none() || asked[0].from() == 0, "{asked:#?}");
    assert_eq!(asked[0].accept_encoding.as_deref().unwrap_or("identity"), "identity");
    assert_eq!(asked[1].from(), (BIG / 2) as u64, "{asked:#?}");
    assert_eq!(asked[1].if_range.as_deref(), Some("\"a\""));
    assert_eq!(up.sent("/f"), BIG as u64);
}

#[test]
fn fifty_clients_cost_one_copy() {
    const ME: &str = "faults::fifty_clients_cost_one_copy";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, BIG);
    up.put("/f", Content::new(right.clone(), "a"));
    up.will("/f", [Act::Stall(BIG / 2)]);
    let lab = Lab::new(&plain(&up, &[pin("f", &right)]));
    let _server = lab.start();
    let half = Barrier::new(51);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let mut reading = open("/mirror/m/f", &[]);
                    assert_eq!(reading.len(), Some(BIG), "the length is known before the bytes");
                    reading.first(BIG / 2 - HELD);
                    half.wait();
                    reading.rest()
                })
            })
            .collect();
        // All of them have read along while it arrived.
        half.wait();
        up.release();
        for client in clients {
            let got = client.join().unwrap();
            assert!(got.whole && got.body == right);
        }
    });
    let asked = up.asked("/f");
    assert!(asked.len() == 1 && up.sent("/f") == BIG as u64, "{asked:#?}");
}

#[test]
fn a_reader_that_leaves_does_not_stop_the_fill() {
    const ME: &str = "faults::a_reader_that_leaves_does_not_stop_the_fill";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, BIG);
    up.put("/f", Content::new(right.clone(), "a").head("Cache-Control: max-age=9999\r\n"));
    up.will("/f", [Act::Stall(BIG / 2)]);
    let lab = Lab::new(&plain(&up, &[]));
    let _server = lab.start();
    let mut reading = open("/mirror/m/f", &[]);
    reading.first(1000);
    drop(reading);
    up.release();
    up.wait("/f", |a| a[0].ended && a[0].sent == BIG as u64);
    assert!(get("/mirror/m/f").body == right);
    assert_eq!(up.asked("/f").len(), 1);
}

#[test]
fn a_range_of_a_cold_file_begins_where_it_must() {
    const ME: &str = "faults::a_range_of_a_cold_file_begins_where_it_must";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, BIG);
    up.put("/f", Content::new(right.clone(), "a"));
    // Whatever comes before the range would wait for ever.
    up.will("/f", [Act::Stall(MB)]);
    let lab = Lab::new(&plain(&up, &[pin("f", &right)]));
    let _server = lab.start();
    let from = 8 * MB;
    let mut got = open("/mirror/m/f", &[("Range", "bytes=8000000-8499999")]);
    assert_eq!((got.status, got.len()), (206, Some(500_000)));
    assert_eq!(got.head["content-range"], format!("bytes 8000000-8499999/{BIG}"));
    assert!(got.first(500_000) == &right[from..from + 500_000]);
    let first = &up.asked("/f")[0];
    assert!((from - MB..=from).contains(&(first.from() as usize)), "{first:#?}");
    up.release();
    assert!(get("/mirror/m/f").body == right);
    let last = open("/mirror/m/f", &[("Range", "bytes=-10")]).rest();
    assert!(last.status == 206 && last.body == right[BIG - 10..]);
    assert_eq!(open("/mirror/m/f", &[("Range", "bytes=12000000-")]).rest().status, 416);
    assert!(up.sent("/f") <= BIG as u64 + 2 * MB as u64, "{:#?}", up.asked("/f"));
}

// --- where a request may lead ----------------------------------------------------------------------

/// Public addresses that are this namespace's own, for it has no others.
const CDN: &str = "9.9.9.9";
const STRANGER: &str = "9.9.9.10";
const METADATA: &str = "169.254.169.254";

#[test]
fn a_redirect_leads_only_where_the_mirror_allows() {
    const ME: &str = "faults::a_redirect_leads_only_where_the_mirror_allows";
    if !in_a_namespace(ME) {
        return;
    }
    ip("link set lo up");
    for address in [CDN, STRANGER, METADATA, "10.1.2.3"] {
        ip(&format!("address add {address}/32 dev lo"));
    }
    let right = noise(1, MB);
    let served = |at: &str| {
        let up = Upstream::at(at);
        up.put("/f", Content::new(right.clone(), "a"));
        up
    };
    let up = Upstream::new();
    let [cdn, stranger, metadata, private] =
        [CDN, STRANGER, METADATA, "10.1.2.3"].map(|address| served(&format!("{address}:80")));
    let neighbour = served("127.0.0.1:0");
    let redirects = "redirects = [\"9.9.9.9\", \"*.example\"]";
    let lab = Lab::new(&mirror("m", &[&up.url()], &format!("verify = \"plain\"\n{redirects}")));
    let hosts = format!(
        "{CDN} cdn.example\n{METADATA} metadata.example\n10.1.2.3 private.example\n\
         127.0.0.1 loopback.example\n{CDN} example.org example\n"
    );
    std::fs::write(lab.path("hosts"), hosts).unwrap();
    let _server = lab.start();

    for (status, name, host) in
        [(301, "a", CDN), (302, "b", CDN), (307, "c", "cdn.example"), (308, "d", "cdn.example")]
    {
        up.will(&format!("/{name}"), [Act::Redirect(status, format!("http://{host}/f"))]);
        let got = get(&format!("/mirror/m/{name}"));
        assert!(got.whole && got.body == right, "{status}: {}", got.status);
    }
    up.put("/f", Content::new(right.clone(), "a"));
    up.will("/here", [Act::Redirect(302, "/f".into())]);
    assert!(get("/mirror/m/here").body == right, "the same host and port");
    let hosts: Vec<String> = cdn.asked("/f").into_iter().map(|a| a.host).collect();
    assert_eq!(hosts, [CDN, CDN, "cdn.example", "cdn.example"]);
    assert_eq!(cdn.asked("/f").len() + up.asked("/f").len(), 5);

    for (name, to) in [
        ("stranger", format!("http://{STRANGER}/f")),
        ("metadata", format!("http://{METADATA}/f")),
        ("private", "http://10.1.2.3/f".into()),
        // Allowed by their names, but not what these lead to.
        ("named-metadata", "http://metadata.example/f".into()),
        ("named-private", "http://private.example/f".into()),
        ("named-loopback", neighbour.url().replace("127.0.0.1", "loopback.example") + "f"),
        ("suffix", "http://example.org/f".into()),
        ("port", neighbour.url() + "f"),
        ("file", "file:///etc/passwd".into()),
        ("gopher", format!("gopher://{CDN}/f")),
        ("user", format!("http://{CDN}@{STRANGER}/f")),
        ("octal", "http://0251.0376.0251.0376/f".into()),
        ("number", "http://2852039166/f".into()),
        ("mapped", "http://[::ffff:169.254.169.254]/f".into()),
    ] {
        up.will(&format!("/{name}"), (0..5).map(|_| Act::Redirect(302, to.clone())));
        let got = get(&format!("/mirror/m/{name}"));
        assert!(got.status >= 500 && got.body.len() < 10_000, "{name}: {}", got.status);
        for other in [&stranger, &metadata, &private, &neighbour] {
            assert!(other.all().is_empty(), "{name}: {:#?}", other.all());
        }
    }
    // A loop ends.
    up.will("/loop", (0..100).map(|_| Act::Redirect(302, "/loop".into())));
    assert!(get("/mirror/m/loop").status >= 500);
    assert!(up.asked("/loop").len() <= 50, "{}", up.asked("/loop").len());
}

#[test]
fn no_url_reaches_what_is_private_unless_it_is_said() {
    const ME: &str = "faults::no_url_reaches_what_is_private_unless_it_is_said";
    if !in_a_namespace(ME) {
        return;
    }
    ip("link set lo up");
    ip(&format!("address add {CDN}/32 dev lo"));
    let (private, public) = (Upstream::new(), Upstream::at(&format!("{CDN}:80")));
    for up in [&private, &public] {
        up.put("/f", Content::new(noise(1, MB), "a"));
    }
    let table = |name, url: &str| mirror(name, &[url], "").replace("private = true\n", "");
    let named = private.url().replace("127.0.0.1", "mirror.example");
    let lab = Lab::new(&[table("a", &public.url()), table("n", &named)].concat());
    std::fs::write(lab.path("hosts"), "127.0.0.1 mirror.example\n").unwrap();
    let _server = lab.start();
    assert!(get("/mirror/a/f").body == noise(1, MB));
    // A name that leads to what is private is known by what it resolves to.
    assert!(get("/mirror/n/f").status >= 500);
    // The public one may not lead there, either.
    public.will("/g", (0..5).map(|_| Act::Redirect(302, private.url() + "f")));
    assert!(get("/mirror/a/g").status >= 500);
    assert!(private.all().is_empty(), "{:#?}", private.all());
}

#[test]
fn only_paths_below_the_mirror_and_only_reading() {
    const ME: &str = "faults::only_paths_below_the_mirror_and_only_reading";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    for path in ["/pub/f", "/secret", "/pub/a%20b%2Bc", "/pub/a+b~c:1"] {
        up.put(path, Content::new(path.as_bytes(), "a"));
    }
    let lab = Lab::new(&mirror("m", &[&format!("{}pub/", up.url())], ""));
    let _server = lab.start();
    assert_eq!(get("/mirror/m/f").body, b"/pub/f");
    let head = fetch(ours(), "HEAD", "/mirror/m/f", &[]);
    assert_eq!((head.status, head.len()), (200, Some(6)));
    for path in [
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "x/../../secret",
        "x/%2e%2e/%2E%2E/secret",
        ".%2e/secret",
        "%2e%2e%2fsecret",
        "..%5csecret",
        "f%00",
        "f%0d%0aX: y",
        "%ff",
        "f%0a",
    ] {
        let got = get(&format!("/mirror/m/{path}"));
        assert!((400..500).contains(&got.status), "{path}: {}", got.status);
    }
    assert!(get("/mirror/nobody/f").status == 404);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"] {
        // A refusal by an end of the connection is one, too.
        if let Ok(got) = try_fetch(ours(), method, "/mirror/m/f", &[]) {
            assert!((400..500).contains(&got.status), "{method}: {}", got.status);
        }
    }
    // Not a proxy either.
    for line in [format!("{}secret", up.url()), "http://9.9.9.9/f".into()] {
        assert!(get_absolute(&line) >= 400, "{line}");
    }
    assert!(up.asked("/secret").is_empty() && up.all().iter().all(|a| a.method == "GET"));
    let paths: Vec<String> = up.all().into_iter().map(|a: Asked| a.path).collect();
    assert!(
        paths.iter().all(|p| p.starts_with("/pub/") && p.split('/').all(|s| s != "..")),
        "{paths:?}"
    );
    assert_eq!(get("/mirror/m/a+b~c:1").body, b"/pub/a+b~c:1");
}

/// The status of a request in the form that proxies are asked in (RFC 9112, section 3.2.2).
fn get_absolute(url: &str) -> u16 {
    try_fetch(ours(), "GET", url, &[]).map_or(400, |got| got.status)
}

// --- metadata, other mirrors, and none ---------------------------------------------------------------

#[test]
fn what_is_stale_is_asked_again_and_served_where_nobody_answers() {
    const ME: &str = "faults::what_is_stale_is_asked_again_and_served_where_nobody_answers";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let content = |text: &str, tag| Content::new(text, tag).head("Cache-Control: max-age=0\r\n");
    up.put("/f", content("old", "a"));
    let lab = Lab::new(&plain(&up, &[]));
    let _server = lab.start();
    assert_eq!(get("/mirror/m/f").body, b"old");
    lab.settled();
    // Who comes before the first fetch is quite over shares it.
    until("asked again", || {
        assert_eq!(get("/mirror/m/f").body, b"old");
        up.asked("/f").len() >= 2
    });
    let asked = up.asked("/f");
    assert_eq!((asked[1].if_none_match.as_deref(), asked[1].status), (Some("\"a\""), 304));
    up.put("/f", content("new", "b"));
    until("the new one", || get("/mirror/m/f").body == b"new");
    lab.settled();
    up.will("/f", (0..20).map(|_| Act::Status(500, "")));
    assert_eq!(get("/mirror/m/f").body, b"new", "stale-if-error");
    drop(up);
    assert_eq!(get("/mirror/m/f").body, b"new", "the upstream is gone");
}

#[test]
fn another_mirror_goes_on_where_one_gave_up() {
    const ME: &str = "faults::another_mirror_goes_on_where_one_gave_up";
    if !in_a_namespace(ME) {
        return;
    }
    let right = noise(1, BIG);
    let (one, two) = (Upstream::new(), Upstream::new());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}/", gone.local_addr().unwrap());
    drop(gone);
    for up in [&one, &two] {
        up.put("/f", Content::new(right.clone(), "a"));
        up.put("/g", Content::new(right.clone(), "a"));
        // Only the first that is asked is cut, and neither of them can go on.
        up.will("/f", [Act::Cut(BIG / 2)]);
    }
    two.put("/h", Content::new(right.clone(), "a"));
    let urls = [nobody.as_str(), &one.url(), &two.url()];
    let pins = [pin("f", &right), pin("g", &right)].join(", ");
    let lab = Lab::new(&mirror("m", &urls, &format!("verify = \"plain\"\npin = {{ {pins} }}")));
    let _server = lab.start();
    let got = get("/mirror/m/f");
    assert!(got.whole && got.body == right, "{} bytes, {}", got.body.len(), got.status);
    let got = get("/mirror/m/h");
    assert!(got.whole && got.body == right, "404 at one is not the end: {}", got.status);
    assert!(get("/mirror/m/g").body == right);
}

#[test]
fn three_mirrors_share_a_large_file() {
    const ME: &str = "faults::three_mirrors_share_a_large_file";
    if !in_a_namespace(ME) {
        return;
    }
    let right = noise(1, 24 * MB);
    let ups: Vec<Upstream> = (0..3).map(|_| Upstream::new()).collect();
    for up in &ups {
        for path in ["/f", "/g"] {
            up.put(path, Content::new(right.clone(), "a"));
            up.will(path, (0..200).map(|_| Act::Slow(6_000_000)));
        }
    }
    let urls: Vec<String> = ups.iter().map(Upstream::url).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let pins = pin("f", &right);
    let lab = Lab::new(&mirror("m", &urls, &format!("verify = \"plain\"\npin = {{ {pins} }}")));
    let _server = lab.start();
    // By its digest, and by a validator that all of them agree in.
    for path in ["/f", "/g"] {
        let got = get(&format!("/mirror/m{path}"));
        assert!(got.whole && got.body == right, "{path}: {}", got.status);
        let sent: Vec<u64> = ups.iter().map(|up| up.sent(path)).collect();
        assert!(sent.iter().all(|s| *s > 4 * MB as u64), "{path}: {sent:?}");
        assert!(sent.iter().sum::<u64>() < 26 * MB as u64, "{path}: {sent:?}");
    }
}

#[test]
fn offline_asks_nobody() {
    const ME: &str = "faults::offline_asks_nobody";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    up.put("/f", Content::new("seen", "a").head("Cache-Control: max-age=0\r\n"));
    up.put("/g", Content::new("unseen", "a"));
    let online = plain(&up, &[]);
    let lab = Lab::new(&online);
    let server = lab.start();
    assert_eq!(get("/mirror/m/f").body, b"seen");
    lab.settled();
    server.kill();
    lab.configure(&format!("[cache]\noffline = true\n{online}"));
    let _server = lab.start();
    let before = up.all().len();
    assert_eq!(get("/mirror/m/f").body, b"seen");
    assert!(get("/mirror/m/g").status >= 500);
    assert_eq!(up.all().len(), before);
}

#[test]
fn a_pulled_plug_costs_at_most_64_mib() {
    const ME: &str = "faults::a_pulled_plug_costs_at_most_64_mib";
    if !in_a_namespace(ME) {
        return;
    }
    let size = 200 << 20;
    let up = Upstream::new();
    let right = noise(1, size);
    up.put("/f", Content::new(right.clone(), "a"));
    up.will("/f", [Act::Stall(180 << 20)]);
    let lab = Lab::new(&plain(&up, &[pin("f", &right)]));
    let server = lab.start();
    let mut reading = open("/mirror/m/f", &[]);
    reading.first((180 << 20) - HELD);
    server.kill();
    drop(reading);
    up.release();
    let sent = up.wait("/f", |a| a.iter().all(|a| a.ended)).iter().map(|a| a.sent).sum::<u64>();
    let _server = lab.start();
    let got = get("/mirror/m/f");
    assert!(got.whole && got.body == right, "{} bytes, {}", got.body.len(), got.status);
    let again: u64 = up.asked("/f").iter().skip(1).map(|a| a.sent).sum();
    let most = (20 << 20) + (64 << 20) + (1 << 20);
    assert!(again <= most, "{again} bytes again, {sent} before: {:#?}", up.asked("/f"));
}

#[test]
fn an_upstream_that_is_not_there_is_an_error_and_soon() {
    const ME: &str = "faults::an_upstream_that_is_not_there_is_an_error_and_soon";
    if !in_a_namespace(ME) {
        return;
    }
    ip("link set lo up");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = gone.local_addr().unwrap();
    drop(gone);
    let refused = std::net::TcpStream::connect(at).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let lab = Lab::new(&mirror("m", &[&format!("http://{at}/")], ""));
    let _server = lab.start();
    let got = get("/mirror/m/f");
    assert!([502, 503, 504].contains(&got.status), "{got:?}");
}
