//! Several URLs of one mirror, and many who ask at once.

use std::iter::repeat_n;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::{HELD, MB, never_wrong, pin};
use crate::lab::{Lab, fetch, get, mirror, open, ours, until};
use crate::namespace::in_a_namespace;
use crate::upstream::{Act, Content, Upstream, noise};

/// Mirror `m` of these upstreams; pins are lines of [`pin`].
fn of(ups: &[&Upstream], more: &str, pins: &[String]) -> String {
    let urls: Vec<String> = ups.iter().map(|up| up.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let pins = pins.join(", ");
    mirror("m", &urls, &format!("verify = \"plain\"\n{more}\npin = {{ {pins} }}"))
}

fn three() -> [Upstream; 3] {
    [Upstream::new(), Upstream::new(), Upstream::new()]
}

fn slow(rate: usize) -> impl Iterator<Item = Act> {
    repeat_n(Act::Slow(rate as u64), 100)
}

#[test]
fn three_capped_urls_share_a_large_file() {
    const ME: &str = "share::three_capped_urls_share_a_large_file";
    if !in_a_namespace(ME) {
        return;
    }
    let ups = three();
    let files = [noise(1, 30 * MB), noise(2, 30 * MB)];
    for (path, right) in ["/one", "/three"].into_iter().zip(&files) {
        for up in &ups {
            up.put(path, Content::new(right.clone(), "a"));
            up.will(path, slow(4 * MB));
        }
    }
    let pins = [pin("one", &files[0]), pin("three", &files[1])];
    let all = of(&[&ups[0], &ups[1], &ups[2]], "", &pins);
    let alone = of(&[&ups[0]], "", &pins).replace("\"m\"", "\"alone\"");
    let lab = Lab::new(&[all, alone].concat());
    let _server = lab.start();
    let timed = |path: &str, right: &[u8]| {
        let began = Instant::now();
        let got = get(path);
        assert!(got.whole && got.body == right, "{path}: {}", got.status);
        began.elapsed().as_secs_f64()
    };
    let one = timed("/mirror/alone/one", &files[0]);
    let three = timed("/mirror/m/three", &files[1]);
    assert_eq!(ups[1].sent("/one") + ups[2].sent("/one"), 0);
    let all = files[1].len();
    let sent = ups.each_ref().map(|up| up.sent("/three") as usize);
    assert!(sent.iter().all(|s| (all / 4..all / 2).contains(s)), "{sent:?}");
    assert!(sent.iter().sum::<usize>() <= all + all / 20, "{sent:?}");
    assert!(one >= 2.5 * three, "{one} s alone, {three} s from three: {sent:?}");
}

#[test]
fn one_that_stalls_in_the_middle_is_hedged() {
    const ME: &str = "share::one_that_stalls_in_the_middle_is_hedged";
    if !in_a_namespace(ME) {
        return;
    }
    let ups = three();
    let right = noise(1, 40 * MB);
    for up in &ups {
        up.put("/f", Content::new(right.clone(), "a"));
    }
    ups[0].will("/f", repeat_n(Act::Stall(MB), 100));
    ups[1].will("/f", slow(2 * MB));
    ups[2].will("/f", slow(2 * MB));
    let lab = Lab::new(&of(&[&ups[0], &ups[1], &ups[2]], "", &[pin("f", &right)]));
    let _server = lab.start();
    let began = Instant::now();
    let mut reading = open("/mirror/m/f", &[]);
    assert!(reading.first(3 * MB) == &right[..3 * MB]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "the stalled one's part came after {took:?}");
    let got = reading.rest();
    assert!(got.whole && got.body == right);
}

#[test]
fn one_that_says_nothing_is_hedged() {
    const ME: &str = "share::one_that_says_nothing_is_hedged";
    if !in_a_namespace(ME) {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let up = Upstream::new();
    let right = noise(1, 3 * MB);
    up.put("/f", Content::new(right.clone(), "a"));
    up.put("/plain", Content::new(right.clone(), "a"));
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    let pins = pin("f", &right);
    let table = mirror("m", &[&silent, &up.url()], &format!("pin = {{ {pins} }}\nconnections = 1"));
    let lab = Lab::new(&table);
    let _server = lab.start();
    for path in ["f", "plain"] {
        let began = Instant::now();
        let got = get(&format!("/mirror/m/{path}"));
        assert!(got.whole && got.body == right, "{path}: {}", got.status);
        assert!(began.elapsed() < Duration::from_secs(10), "{path}: {:?}", began.elapsed());
    }
}

#[test]
fn one_that_lies_is_found_out() {
    const ME: &str = "share::one_that_lies_is_found_out";
    if !in_a_namespace(ME) {
        return;
    }
    let ups = three();
    let (small, large) = (noise(1, 50_000), noise(2, 12 * MB));
    for up in &ups {
        up.put("/small", Content::new(small.clone(), "a"));
        up.put("/large", Content::new(large.clone(), "a"));
    }
    ups[0].will("/small", repeat_n(Act::Wrong(10), 100));
    // Wherever its part is, something of it is wrong.
    let mut lies = large.clone();
    lies.iter_mut().step_by(100_000).for_each(|b| *b ^= 1);
    ups[0].put("/large", Content::new(lies, "a"));
    let pins = [pin("small", &small), pin("large", &large)];
    let lab = Lab::new(&of(&[&ups[0], &ups[1], &ups[2]], "", &pins));
    let mut server = lab.start();
    // Nobody had a byte of it: nobody sees anything but the right file.
    let got = get("/mirror/m/small");
    assert!(got.whole && got.body == small, "{}", got.status);
    assert!(!ups[0].asked("/small").is_empty());
    server.says_all(&["small", &ups[0].url()]);
    let mut tries = 0;
    until("the right one", || {
        let got = get("/mirror/m/large");
        match got.whole {
            true => assert!(got.body == large),
            false => assert!(got.body.len() <= large.len() - HELD, "the end waits for the digest"),
        }
        tries += 1;
        got.whole
    });
    assert!(tries <= 4, "{tries}");
}

#[test]
fn what_disagrees_is_never_mixed() {
    const ME: &str = "share::what_disagrees_is_never_mixed";
    if !in_a_namespace(ME) {
        return;
    }
    let (one, two) = (Upstream::new(), Upstream::new());
    let (old, new) = (noise(1, 12 * MB), noise(2, 12 * MB));
    let (short, long) = (noise(3, 3 * MB), noise(4, 5 * MB));
    let put = |path: &str, a: &[u8], b: &[u8]| {
        one.put(path, Content::new(a, "a"));
        two.put(path, Content::new(b, "b"));
    };
    put("/shared", &old, &new);
    one.will("/shared", slow(6 * MB));
    two.will("/shared", slow(6 * MB));
    put("/cut", &old, &new);
    one.will("/cut", repeat_n(Act::Cut(6 * MB), 20));
    // The head has been told before there is a byte.
    put("/longer", &short, &long);
    one.will("/longer", repeat_n(Act::Cut(0), 20));
    put("/shorter", &long, &short);
    one.will("/shorter", repeat_n(Act::Cut(0), 20));
    let lab = Lab::new(&of(&[&one, &two], "", &[]));
    let _server = lab.start();
    for (path, a, b) in [
        ("/shared", &old, &new),
        ("/cut", &old, &new),
        ("/longer", &short, &long),
        ("/shorter", &long, &short),
    ] {
        // All of one or all of the other, with its own validator, or not whole.
        let mut got = get(&format!("/mirror/m{path}"));
        for _ in 0..3 {
            if got.status == 200 {
                let right = if got.head["etag"] == "\"a\"" { a } else { b };
                never_wrong(&got, &[right], path);
            }
            if got.whole && got.status == 200 {
                break;
            }
            got = get(&format!("/mirror/m{path}"));
        }
        assert!(got.whole && got.status == 200, "{path}: {}, {}", got.status, got.body.len());
    }
}

#[test]
fn the_faster_is_asked_first_and_who_failed_rests() {
    const ME: &str = "share::the_faster_is_asked_first_and_who_failed_rests";
    if !in_a_namespace(ME) {
        return;
    }
    let (one, two) = (Upstream::new(), Upstream::new());
    let (large, again) = (noise(1, 12 * MB), noise(3, 12 * MB));
    for up in [&one, &two] {
        up.put("/large", Content::new(large.clone(), "a"));
        up.put("/again", Content::new(again.clone(), "a"));
        for path in ["/a", "/b", "/c"] {
            up.put(path, Content::new(noise(2, MB), "a"));
        }
    }
    one.will("/large", slow(MB));
    two.will("/large", slow(10 * MB));
    let lab = Lab::new(&of(&[&one, &two], "", &[pin("large", &large), pin("again", &again)]));
    let _server = lab.start();
    assert!(get("/mirror/m/large").body == large);
    assert!(one.sent("/large") > 0 && two.sent("/large") > 2 * one.sent("/large"));
    assert!(get("/mirror/m/a").body == noise(2, MB));
    assert_eq!((one.asked("/a").len(), two.asked("/a").len()), (0, 1), "the faster");
    two.will("/b", [Act::Status(500, "")]);
    assert!(get("/mirror/m/b").body == noise(2, MB));
    assert_eq!((one.asked("/b").len(), two.asked("/b").len()), (1, 1));
    assert!(get("/mirror/m/again").body == again);
    assert!(two.asked("/again").is_empty(), "it rests, and shares nothing: {:#?}", two.all());
    assert!(get("/mirror/m/c").body == noise(2, MB));
}

#[test]
fn a_host_has_no_more_connections_than_it_is_said() {
    const ME: &str = "share::a_host_has_no_more_connections_than_it_is_said";
    if !in_a_namespace(ME) {
        return;
    }
    let (one, two) = (Upstream::new(), Upstream::new());
    let names: Vec<String> = (0..6).map(|n| format!("f{n}")).collect();
    let right = |name: &str| noise(u64::from(name.as_bytes()[1]), 9 * MB);
    for up in [&one, &two] {
        for name in &names {
            up.put(&format!("/{name}"), Content::new(right(name), "a"));
            up.will(&format!("/{name}"), slow(3 * MB));
        }
    }
    let pins: Vec<String> = names.iter().map(|n| pin(n, &right(n))).collect();
    let lab = Lab::new(&of(&[&one, &two], "connections = 2", &pins));
    let _server = lab.start();
    let mut most = 0;
    thread::scope(|scope| {
        let get = |name: &String| get(&format!("/mirror/m/{name}"));
        let all: Vec<_> = names.iter().map(|name| scope.spawn(move || get(name))).collect();
        until("all are here", || {
            // A connection that has been cut by its client is still being written to.
            for up in [&one, &two] {
                most = most.max(up.all().iter().filter(|a| !a.ended).count());
            }
            all.iter().all(|t| t.is_finished())
        });
        for (job, name) in all.into_iter().zip(&names) {
            let got = job.join().unwrap();
            assert!(got.whole && got.body == right(name), "{}", got.status);
        }
    });
    assert!(most >= 2, "{most}");
    // To those the upstream still writes what the client has no use for any more.
    assert!(most <= 4, "{most} at once");
}

// --- a storm ---------------------------------------------------------------------------------------

#[test]
fn two_hundred_cold_files_through_four_connections() {
    const ME: &str = "share::two_hundred_cold_files_through_four_connections";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, 200_000);
    for n in 0..200 {
        let path = format!("/f{n}");
        up.put(&path, Content::new(right.clone(), "a"));
        // Five seconds in all, and so most of them wait for longer than one that has fallen silent.
        up.will(&path, slow(2 * MB));
    }
    let lab = Lab::new(&of(&[&up], "connections = 4", &[]));
    let _server = lab.start();
    thread::scope(|scope| {
        let all: Vec<_> =
            (0..200).map(|n| scope.spawn(move || get(&format!("/mirror/m/f{n}")))).collect();
        for job in all {
            let got = job.join().unwrap();
            assert!(got.status == 200 && got.whole && got.body == right, "{}", got.status);
        }
    });
    let asked = up.all();
    assert_eq!(asked.len(), 200, "each is asked for once");
}

#[test]
fn ipxe_is_told_to_come_back_and_others_wait() {
    const ME: &str = "share::ipxe_is_told_to_come_back_and_others_wait";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, MB);
    for path in ["/f", "/g", "/h"] {
        up.put(path, Content::new(right.clone(), "a").head("Cache-Control: max-age=99\r\n"));
    }
    up.will("/f", repeat_n(Act::Stall(1000), 10));
    let lab = Lab::new(&of(&[&up], "connections = 1", &[]));
    let _server = lab.start();
    let mut first = open("/mirror/m/f", &[]);
    first.first(1000);
    thread::scope(|scope| {
        let other = scope.spawn(|| get("/mirror/m/h"));
        let began = Instant::now();
        let got = open("/mirror/m/g", &[("User-Agent", "iPXE/1.21.1")]).rest();
        let took = began.elapsed();
        assert_eq!(got.status, 503);
        assert!(got.head["retry-after"].parse::<u64>().unwrap() <= 30);
        assert!((9..15).contains(&took.as_secs()), "{took:?}");
        assert!(!other.is_finished(), "it is no iPXE, and waits");
        up.release();
        let other = other.join().unwrap();
        assert!(other.whole && other.body == right, "{}", other.status);
    });
    // It comes back, and its file is there.
    let got = open("/mirror/m/g", &[("User-Agent", "iPXE/1.21.1")]).rest();
    assert!(got.whole && got.body == right);
    assert_eq!(up.asked("/g").len(), 1);
}

#[test]
fn files_on_their_way_are_bounded() {
    const ME: &str = "share::files_on_their_way_are_bounded";
    if !in_a_namespace(ME) {
        return;
    }
    const ALL: usize = 560;
    const FLIGHTS: usize = 512;
    let up = Upstream::new();
    for n in 0..ALL {
        up.put(&format!("/f{n}"), Content::new(noise(n as u64, 1000), "a"));
        up.will(&format!("/f{n}"), [Act::Stall(0)]);
    }
    let lab = Lab::new(&of(&[&up], "", &[]));
    let _server = lab.start();
    thread::scope(|scope| {
        let ask = |n: usize| (n, get(&format!("/mirror/m/f{n}")));
        let mut left: Vec<_> = (0..ALL).map(|n| scope.spawn(move || ask(n))).collect();
        let mut refused = 0;
        until("those that are too many are refused", || {
            let (over, on): (Vec<_>, Vec<_>) = left.drain(..).partition(|t| t.is_finished());
            for job in over {
                let (n, got) = job.join().unwrap();
                assert_eq!(got.status, 503, "{n}");
                assert!(got.head.contains_key("retry-after"));
                refused += 1;
            }
            left = on;
            refused == ALL - FLIGHTS
        });
        up.release();
        for job in left {
            let (n, got) = job.join().unwrap();
            assert!(got.status == 200 && got.body == noise(n as u64, 1000), "{n}: {}", got.status);
        }
    });
}

#[test]
fn the_head_of_a_cold_file_waits_for_no_body() {
    const ME: &str = "share::the_head_of_a_cold_file_waits_for_no_body";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, MB);
    for path in ["/plain", "/pinned"] {
        up.put(path, Content::new(right.clone(), "a").head("Cache-Control: max-age=99\r\n"));
        up.will(path, [Act::Stall(0)]);
    }
    let lab = Lab::new(&of(&[&up], "", &[pin("pinned", &right)]));
    let _server = lab.start();
    for path in ["plain", "pinned"] {
        let began = Instant::now();
        let head = fetch(ours(), "HEAD", &format!("/mirror/m/{path}"), &[]);
        assert_eq!((head.status, head.len()), (200, Some(MB)), "{path}");
        assert!(head.rest().body.is_empty() && began.elapsed() < Duration::from_secs(2));
    }
    up.release();
    for path in ["plain", "pinned"] {
        assert!(get(&format!("/mirror/m/{path}")).body == right);
        assert_eq!(up.asked(&format!("/{path}")).len(), 1, "and its GET finds it begun");
    }
}
