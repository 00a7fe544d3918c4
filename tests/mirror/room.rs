//! The cache's room: none on the disk, a limit, and many readers.

use std::fs;
use std::iter::repeat_n;
use std::path::Path;
use std::thread;

use pilotlight::mirror::disk::{Disk, Place};
use pilotlight::mirror::record::About;

use crate::archive::files;
use crate::faults::{HELD, MB, never_wrong, pin};
use crate::lab::{Lab, fetch, get, mirror, open, until};
use crate::namespace::in_a_namespace;
use crate::upstream::{Act, Content, Upstream, noise};

fn plain(up: &Upstream, pins: &[String]) -> String {
    let pins = pins.join(", ");
    mirror("m", &[&up.url()], &format!("verify = \"plain\"\npin = {{ {pins} }}"))
}

const FOREVER: &str = "Cache-Control: max-age=9999\r\n";

fn admin(path: &str) -> String {
    let got = fetch(([127, 0, 0, 1], 8067).into(), "GET", path, &[]).rest();
    String::from_utf8(got.body).unwrap()
}

/// Files below a folder of the cache, in bytes.
fn sizes(dir: &Path) -> Vec<u64> {
    files(dir).iter().map(|f| fs::metadata(dir.join(f)).map_or(0, |m| m.len())).collect()
}

#[test]
fn a_full_disk_is_served_past() {
    const ME: &str = "room::a_full_disk_is_served_past";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let (right, small) = (noise(1, 40 * MB), noise(2, 5 * MB));
    for path in ["/pinned", "/plain", "/liar", "/late-liar"] {
        up.put(path, Content::new(right.clone(), "a").head(FOREVER));
    }
    up.put("/changing", Content::new(right.clone(), "a").head(FOREVER));
    up.put("/small", Content::new(small.clone(), "a").head(FOREVER));
    let pins = ["pinned", "liar", "late-liar"].map(|name| pin(name, &right));
    let lab = Lab::new("");
    let cache = lab.path("cache");
    fs::create_dir(&cache).unwrap();
    let table = format!("[cache]\ndir = {cache:?}\n{}", plain(&up, &pins));
    lab.configure(&table);
    let mounts = format!("mount -t tmpfs -o size=24m tmpfs {}", cache.display());
    fs::write(lab.path("mounts"), mounts).unwrap();
    let server = lab.start();
    let seen = server.inside(&cache);
    for path in ["pinned", "plain"] {
        let url = format!("/mirror/m/{path}");
        let url = url.as_str();
        thread::scope(|scope| {
            let all: Vec<_> = (0..6).map(|_| scope.spawn(move || get(url))).collect();
            let part = open(url, &[("Range", "bytes=30000000-30099999")]).rest();
            assert!(part.status == 206 && part.body == right[30_000_000..30_100_000], "{path}");
            for job in all {
                let got = job.join().unwrap();
                assert!(got.whole && got.body == right, "{path}: {}", got.status);
            }
        });
        let last = open(&format!("/mirror/m/{path}"), &[("Range", "bytes=-10")]).rest();
        assert!(last.status == 206 && last.body == right[right.len() - 10..], "{path}");
    }
    let alarms = admin("/api/v1/alarms");
    assert!(alarms.contains("cache-full"), "{alarms}");

    // The digest judges what goes straight through, with all that the client was given before.
    up.will("/liar", repeat_n(Act::Wrong(39 * MB), 10));
    up.will("/late-liar", [Act::Wrong(10)]);
    for path in ["liar", "late-liar"] {
        let got = get(&format!("/mirror/m/{path}"));
        assert!(!got.whole || got.body == right, "{path}: whole and wrong");
        assert!(got.whole || got.body.len() <= right.len() - HELD, "{path}: {}", got.body.len());
    }
    // What is there now is not what the first part of it was of.
    let new = Content::new(noise(3, 40 * MB), "b").head(FOREVER);
    up.will("/changing", [Act::Right, Act::CutAndChange(30 * MB, new)]);
    let mut reading = open("/mirror/m/changing", &[]);
    reading.first(MB);
    up.put("/changing", Content::new(noise(3, 40 * MB), "b").head(FOREVER));
    never_wrong(&reading.rest(), &[&right], "changing");

    // There is room for this, and nothing of the others is in its way.
    until("caches again", || {
        assert!(get("/mirror/m/small").body == small);
        sizes(&seen.join("objects")).len() == 1
    });
    let asked = up.asked("/small").len();
    assert!(get("/mirror/m/small").body == small);
    assert_eq!(up.asked("/small").len(), asked, "it is kept");
    assert_eq!(sizes(&seen.join("partial")), [0; 0], "nothing lies about");
    assert!(server.memory() < 200 << 10, "{} KiB", server.memory());
}

const MANY: u64 = 100_000_000;

#[test]
fn a_limit_leaves_what_is_needed_and_takes_the_rest() {
    const ME: &str = "room::a_limit_leaves_what_is_needed_and_takes_the_rest";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let boot = ["linux", "initrd", "pinned"];
    let others: Vec<String> = (0..16).map(|n| format!("f{n}")).collect();
    let mut pins = Vec::new();
    for (seed, name) in boot.iter().copied().chain(others.iter().map(String::as_str)).enumerate() {
        let right = noise(seed as u64, 15 * MB);
        pins.push(pin(name, &right));
        up.put(&format!("/{name}"), Content::new(right, "a"));
    }
    let profile = "[[profile]]\nname = \"p\"\nkernel = \"m/linux\"\ninitrd = \"m/initrd\"\n";
    let lab = Lab::new(&["[cache]\nlimit = \"100 MB\"\n", &plain(&up, &pins), profile].concat());
    let server = lab.start();
    for name in boot {
        assert_eq!(get(&format!("/mirror/m/{name}")).status, 200, "{name}");
    }
    lab.settled();
    // As the command line pins.
    let disk = Disk::open(&lab.path("state/cache")).unwrap();
    disk.each(|found| {
        let listed = found.unwrap();
        let about = listed.about.unwrap();
        if about.path == "pinned" {
            disk.rewrite(&listed.id.unwrap(), &About { pinned: true, ..about }).unwrap();
        }
    });
    let objects = lab.path("state/cache/objects");
    let fill = |from: usize, to: usize| {
        for name in &others[from..to] {
            assert_eq!(get(&format!("/mirror/m/{name}")).status, 200, "{name}");
            lab.settled();
            until("evicted", || sizes(&objects).iter().sum::<u64>() <= MANY + 100_000);
        }
    };
    fill(0, 8);
    server.kill();
    let _server = lab.start();
    fill(8, 16);
    for name in boot {
        assert_eq!(get(&format!("/mirror/m/{name}")).status, 200, "{name}");
        assert_eq!(up.asked(&format!("/{name}")).len(), 1, "{name} was kept");
    }
    assert_eq!(get("/mirror/m/f0").status, 200);
    assert_eq!(up.asked("/f0").len(), 2, "it was not");
}

#[test]
fn a_file_larger_than_the_limit_goes_straight_through() {
    const ME: &str = "room::a_file_larger_than_the_limit_goes_straight_through";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, 101 * MB);
    for path in ["/pinned", "/plain"] {
        up.put(path, Content::new(right.clone(), "a").head(FOREVER));
    }
    let table = ["[cache]\nlimit = \"100 MB\"\n", &plain(&up, &[pin("pinned", &right)])].concat();
    let lab = Lab::new(&table);
    let _server = lab.start();
    for path in ["pinned", "plain"] {
        for _ in 0..2 {
            let got = get(&format!("/mirror/m/{path}"));
            assert!(got.whole && got.body == right, "{path}: {}", got.status);
        }
        let part = open(&format!("/mirror/m/{path}"), &[("Range", "bytes=100-199")]).rest();
        assert!(part.status == 206 && part.body == right[100..200], "{path}");
    }
    let cache = lab.path("state/cache");
    until("nothing is kept of it", || sizes(&cache).is_empty());
    let refusals = admin("/api/v1/refusals");
    assert!(refusals.contains("larger-than-the-cache"), "{refusals}");
    assert!(!admin("/api/v1/alarms").contains("cache-full"), "the disk is not full");
}

#[test]
fn what_was_given_up_halfway_does_not_stay_for_ever() {
    const ME: &str = "room::what_was_given_up_halfway_does_not_stay_for_ever";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let mut pins = Vec::new();
    for n in 0..8 {
        let right = noise(n, 15 * MB);
        pins.push(pin(&format!("f{n}"), &right));
        up.put(&format!("/f{n}"), Content::new(right, "a"));
    }
    up.put("/given-up", Content::new(noise(9, 9 * MB), "a"));
    pins.push(pin("given-up", &noise(9, 9 * MB)));
    up.will("/given-up", [Act::Cut(8 * MB)]);
    up.will("/given-up", repeat_n(Act::Status(404, ""), 10));
    let lab = Lab::new(&["[cache]\nlimit = \"100 MB\"\n", &plain(&up, &pins)].concat());
    let mut server = lab.start();
    let partial = lab.path("state/cache/partial");
    let abandon = || {
        let got = get("/mirror/m/given-up");
        assert!(!got.whole);
    };
    abandon();
    until("there is half a file", || sizes(&partial).iter().sum::<u64>() >= 8_000_000);
    let fill = || {
        for n in 0..8 {
            assert_eq!(get(&format!("/mirror/m/f{n}")).status, 200);
        }
    };
    fill();
    until("it has gone for the others", || sizes(&partial).is_empty());
    // Of an earlier run, too.
    up.put("/given-up", Content::new(noise(9, 9 * MB), "a"));
    up.will("/given-up", [Act::Stall(8 * MB)]);
    let mut reading = open("/mirror/m/given-up", &[]);
    reading.first(7 * MB);
    server.kill();
    server = lab.start();
    assert_eq!(sizes(&partial).len(), 1);
    let disk = Disk::open(&lab.path("state/cache")).unwrap();
    disk.each(|found| {
        let listed = found.unwrap();
        if listed.place == Place::Complete {
            disk.remove(&listed.id.unwrap()).unwrap();
        }
    });
    fill();
    until("it has gone for the others", || sizes(&partial).is_empty());
    drop(server);
}

#[test]
fn two_hundred_readers_take_little_memory() {
    const ME: &str = "room::two_hundred_readers_take_little_memory";
    if !in_a_namespace(ME) {
        return;
    }
    let up = Upstream::new();
    let right = noise(1, 12 * MB);
    up.put("/f", Content::new(right.clone(), "a"));
    up.will("/f", [Act::Stall(6 * MB)]);
    let lab = Lab::new(&plain(&up, &[pin("f", &right)]));
    let server = lab.start();
    let before = server.memory();
    let mut all: Vec<_> = (0..200).map(|_| open("/mirror/m/f", &[])).collect();
    for reading in &mut all {
        assert!(reading.first(MB) == &right[..MB]);
    }
    let during = server.memory();
    up.release();
    for (n, reading) in all.into_iter().enumerate() {
        match n % 20 {
            0 => assert!(reading.rest().body == right),
            // They leave.
            _ => drop(reading),
        }
    }
    assert_eq!(up.asked("/f").len(), 1);
    let after = server.memory();
    assert!(during.max(after) < before + (48 << 10), "{before}, {during}, {after} KiB");
}
