//! What an attacker would try, and what an odd server does by itself.

use crate::faults::{MB, pin};
use crate::lab::{Lab, Reading, get, mirror, open, until};
use crate::namespace::in_a_namespace;
use crate::upstream::{Act, Content, Upstream, noise};

const BIG: usize = 12 * MB;

fn plain(ups: &[&Upstream], pins: &[String]) -> String {
    let urls: Vec<String> = ups.iter().map(|up| up.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    mirror("m", &urls, &format!("verify = \"plain\"\npin = {{ {} }}", pins.join(", ")))
}

#[test]
fn what_was_hashed_is_not_written_over() {
    const ME: &str = "hostile::what_was_hashed_is_not_written_over";
    if !in_a_namespace(ME) {
        return;
    }
    let right = noise(1, BIG);
    let liar = [noise(2, BIG / 2), right[BIG / 2..].to_vec()].concat();
    let (one, two) = (Upstream::new(), Upstream::new());
    one.put("/f", Content::new(right.clone(), "a"));
    one.will("/f", (0..6).map(|_| Act::Cut(BIG / 2)));
    two.put("/f", Content::new(liar, "a"));
    two.will("/f", (0..20).map(|_| Act::Whole));
    let lab = Lab::new(&plain(&[&one, &two], &[pin("f", &right)]));
    let _server = lab.start();
    // Whoever is asked for what first: what comes whole is right, and what is kept.
    until("a right one", || {
        let got = get("/mirror/m/f");
        assert!(!got.whole || got.status != 200 || got.body == right, "whole and wrong");
        got.whole && got.status == 200
    });
    assert!(get("/mirror/m/f").body == right);
}

#[test]
fn an_answer_that_ends_too_early_is_a_failure() {
    const ME: &str = "hostile::an_answer_that_ends_too_early_is_a_failure";
    if !in_a_namespace(ME) {
        return;
    }
    let right = noise(1, BIG);
    let up = Upstream::new();
    up.put("/f", Content::new(right.clone(), "a"));
    // A portal's page in the place of the rest: without a length, it ends as it should.
    let page = Content::new(b"log in first".to_vec(), "a");
    up.will("/f", [Act::CutAndChange(BIG / 2, page)]);
    up.will("/f", (0..100).map(|_| Act::Chunked(None)));
    let lab = Lab::new(&plain(&[&up], &[pin("f", &right)]));
    let _server = lab.start();
    let got = get("/mirror/m/f");
    assert!(!got.whole && right.starts_with(&got.body), "{} bytes", got.body.len());
    assert!(up.asked("/f").len() < 10, "{} requests", up.asked("/f").len());
}

#[test]
fn slow_clients_do_not_stop_a_mirror() {
    const ME: &str = "hostile::slow_clients_do_not_stop_a_mirror";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    up.put("/own", Content::new(noise(1, BIG), "a").head("Cache-Control: no-store\r\n"));
    up.put("/other", Content::new(noise(2, MB), "b"));
    let lab = Lab::new(&plain(&[&up], &[]));
    let _server = lab.start();
    // They take nothing of what is theirs alone.
    let slow: Vec<Reading> = (0..40).map(|_| open("/mirror/m/own", &[])).collect();
    until("all are served", || up.asked("/own").len() >= slow.len());
    assert!(get("/mirror/m/other").body == noise(2, MB));
}

#[test]
fn a_range_behind_the_end_is_416_and_spoils_nothing() {
    const ME: &str = "hostile::a_range_behind_the_end_is_416_and_spoils_nothing";
    if !in_a_namespace(ME) {
        return;
    }
    let right = noise(1, MB);
    let up = Upstream::new();
    for path in ["/pinned", "/plain", "/begun"] {
        up.put(path, Content::new(right.clone(), "a").head("Cache-Control: max-age=999\r\n"));
    }
    let lab = Lab::new(&plain(&[&up], &[pin("pinned", &right)]));
    let _server = lab.start();
    for path in ["pinned", "plain"] {
        let url = format!("/mirror/m/{path}");
        let got = open(&url, &[("Range", "bytes=1000000-")]).rest();
        assert_eq!(got.status, 416, "{path}");
        assert!(get(&url).body == right, "{path}");
    }
    // What is kept of an answer to a range is of the whole.
    let got = open("/mirror/m/begun", &[("Range", "bytes=5000-")]).rest();
    assert!(got.status == 206 && got.body == right[5000..]);
    let got = get("/mirror/m/begun");
    assert!(got.status == 200 && !got.head.contains_key("content-range") && got.body == right);
}
