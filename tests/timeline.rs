//! Timelines of boots: what they show of transfers, what is kept of them, how far a boot has come.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pilotlight::ledger::{Boot, EVENTS, End, KEPT, Ledger, News, Progress, Script, TREE};
use pilotlight::model::diagnosis::{Case, diagnose};
use pilotlight::model::lifecycle::{Begin, Word};
use pilotlight::model::{Entry, Event, Facts, LifeEvent, Mac, Stage, Transfer};
use pilotlight::store::{self, Store};
use rstest::rstest;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + seconds * 1000).unwrap()
}

fn transfer(name: &str, sent: u64, total: u64, millis: u64) -> Transfer {
    Transfer { name: name.into(), sent, total, millis }
}

fn discovers(ledger: &Ledger, now: i64) {
    ledger.record(MAC, Event::new(Stage::Firmware, "DHCPDISCOVER", ""), at(now));
}

/// Of every start the same: DISCOVERs tell them apart.
fn opened(profile: &str, now: i64) -> Boot {
    Boot::new("t".repeat(32), Facts::of(MAC), profile, None, false, at(now))
}

/// It gets its script, which boots `profile`.
fn boots(ledger: &Ledger, profile: &str, now: i64) {
    let event = Event::new(Stage::Script, "GET", format!("/boot/m.ipxe: boots profile {profile}"));
    let boot = Some(opened(profile, now));
    ledger.booted(Script { facts: Facts::of(MAC), name: Some("web1"), boot, event }, at(now));
}

fn step(ledger: &Ledger, event: LifeEvent, now: i64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ledger.step(MAC, event, 3, at(now))).unwrap();
}

fn begin(report: &str) -> LifeEvent {
    LifeEvent::Begin(Box::new(Begin {
        profile: "web".into(),
        boot: opened("web", 0).key,
        report: report.into(),
        address: None,
        facts: Facts::of(MAC),
        timeout: Duration::from_secs(7200),
        attempts: 3,
        restarted: true,
        chosen: false,
    }))
}

fn reported(report: &str, word: Word) -> LifeEvent {
    LifeEvent::Report { report: report.into(), word }
}

/// One whole installation of `seconds` with `bytes`.
fn installs(ledger: &Ledger, report: &str, began: i64, seconds: i64, bytes: u64) {
    discovers(ledger, began);
    boots(ledger, "web", began);
    step(ledger, begin(report), began);
    let file = transfer("linux", bytes, bytes, 1000);
    ledger.sent(MAC, Stage::Kernel, file, None, at(began + 1));
    step(ledger, reported(report, Word::Done), began + seconds);
}

#[test]
fn a_thousand_packages_are_one_entry() {
    let ledger = Ledger::new();
    let mut news = ledger.listen();
    discovers(&ledger, 0);
    boots(&ledger, "web", 1);
    ledger.sent(MAC, Stage::Kernel, transfer("f/linux", 8000, 8000, 250), None, at(2));
    ledger.sent(MAC, Stage::Initrd, transfer("f/initrd", 410, 1000, 250), None, at(3));
    ledger.sent(MAC, Stage::System, transfer("debian/squashfs", 5000, 5000, 2000), None, at(6));
    let alone = ledger.get(MAC).unwrap().timeline;
    assert_eq!(
        alone.last().unwrap().event.detail,
        "debian/squashfs (5.00 kB in 2.00 s, 2.50 kB/s)"
    );
    for n in 0..1000 {
        let file = transfer(&format!("debian/pool/p{n}.deb"), 1_000_000, 1_000_000, 5);
        ledger.sent(MAC, Stage::System, file, None, at(6 + n / 100));
    }
    ledger.record(MAC, Event::new(Stage::System, "report", "half"), at(20));
    ledger.sent(MAC, Stage::System, transfer("debian/pool/last.deb", 7, 10, 5), None, at(24));

    let timeline = ledger.get(MAC).unwrap().timeline;
    let said: Vec<String> =
        timeline.iter().map(|e| format!("{} {}", e.event.what, e.event.detail)).collect();
    assert_eq!(said.len(), 6, "{said:#?}");
    assert_eq!(said[2], "sent f/linux (8.00 kB in 0.25 s, 32.0 kB/s)");
    assert_eq!(said[3], "cut f/initrd (after 410 bytes of 1.00 kB, 0.2 s)");
    assert_eq!(
        said[5],
        "cut package tree: 1002 files, 1 of them cut, 1.00 GB, 50.0 MB/s; newest last.deb, \
         p999.deb, p998.deb"
    );
    // First and last byte can be computed of each.
    let tree = timeline[5].event.transfer.clone().unwrap();
    assert_eq!(tree, transfer(TREE, 1_000_005_007, 1_000_005_010, 20_000));
    assert!(timeline.is_sorted_by_key(|e| e.at));
    // Who listens is not told a thousand times.
    let mut told = 0;
    while let Ok(News::Entry { .. }) = news.try_recv() {
        told += 1;
    }
    assert!((6..25).contains(&told), "{told}");
}

#[test]
fn another_token_is_another_timeline_where_nobody_asked_by_dhcp() {
    let ledger = Ledger::new();
    for (n, token) in ["a", "a", "b"].into_iter().enumerate() {
        let now = at(n as i64);
        let boot = Boot::new(token.repeat(32), Facts::of(MAC), "web", None, false, now);
        let event = Event::new(Stage::Script, "GET", "/boot/m.ipxe: boots profile web");
        let script = Script { facts: Facts::of(MAC), name: None, boot: Some(boot), event };
        ledger.booted(script, now);
    }
    assert_eq!(ledger.timeline(MAC).len(), 1);
    ledger.sent(MAC, Stage::Kernel, transfer("linux", 5, 5, 1), None, at(4));
    ledger.record(MAC, Event::new(Stage::Script, "GET", "/boot.ipxe"), at(5));
    assert_eq!(ledger.brief(MAC).unwrap().stage, Some(Stage::Script));
    // Two that come at once are told in one order.
    ledger.record(MAC, Event::new(Stage::Kernel, "GET", "linux"), at(4));
    assert!(ledger.timeline(MAC).is_sorted_by_key(|e| e.at));
}

#[test]
fn what_is_asked_for_over_and_over_pushes_nothing_out() {
    #[derive(Debug, thiserror::Error)]
    #[error("{0} is not there")]
    struct Gone(usize);
    impl pilotlight::model::Why for Gone {
        fn name(&self) -> &'static str {
            "gone"
        }
    }
    let ledger = Ledger::new();
    discovers(&ledger, 0);
    boots(&ledger, "web", 1);
    for n in 0..2 * EVENTS {
        ledger.refused("http", Some(MAC), &Gone(n), at(2));
    }
    let renewals = (1..50).flat_map(|n| [(n, "DHCPREQUEST"), (n, "DHCPACK")]);
    for (n, what) in renewals {
        ledger.record(MAC, Event::new(Stage::System, what, "for 10.0.0.9"), at(n * 1800));
    }
    let timeline = ledger.get(MAC).unwrap().timeline;
    let count = |what| timeline.iter().filter(|e| e.event.what == what).count();
    assert_eq!((count("refused"), count("DHCPACK"), timeline.len()), (40, 1, 44));
    assert_eq!(timeline.last().unwrap().at, at(49 * 1800));
}

#[test]
fn progress_is_seen_in_the_middle_of_a_file() {
    let ledger = Ledger::new();
    assert_eq!(ledger.progress(MAC, at(0)), None);
    installs(&ledger, "r1", 0, 100, 1_000_000);
    // What the one before took is known when its boot is through.
    assert_eq!(ledger.boots(MAC)[0].end, End::Installed);
    assert_eq!(ledger.progress(MAC, at(101)), None, "it is installed");

    step(&ledger, LifeEvent::Reinstall { profile: None }, 200);
    discovers(&ledger, 300);
    assert_eq!(ledger.progress(MAC, at(300)), None, "nothing is booted yet");
    boots(&ledger, "web", 300);
    let counter = Arc::new(AtomicU64::new(0));
    ledger.sending(MAC, &counter, at(300));
    counter.store(100_000, Ordering::Relaxed);
    let want = Progress { percent: Some(10), bytes: 100_000, rate: 10_000, left: Some(90) };
    assert_eq!(ledger.progress(MAC, at(310)), Some(want));
    counter.store(500_000, Ordering::Relaxed);
    ledger.progress(MAC, at(316));
    counter.store(900_000, Ordering::Relaxed);
    let later = ledger.progress(MAC, at(321)).unwrap();
    assert_eq!((later.bytes, later.rate, later.percent), (900_000, 80_000, Some(55)));

    // It is counted once when it is through, and once more nowhere.
    ledger.sent(MAC, Stage::System, transfer("x", 900_000, 1, 9), Some(&counter), at(322));
    assert_eq!(ledger.progress(MAC, at(322)).unwrap().bytes, 900_000);
    // Longer than the one before: never at its end before it is.
    ledger.sent(MAC, Stage::System, transfer("y", 900_000, 900_000, 9), None, at(323));
    let late = ledger.progress(MAC, at(900)).unwrap();
    assert_eq!((late.percent, late.left, late.rate), (Some(99), Some(0), 0));
    // Another profile, of which nothing is known.
    boots(&ledger, "new", 901);
    let new = ledger.progress(MAC, at(902)).unwrap();
    assert_eq!((new.percent, new.left), (None, None));
}

#[test]
fn what_an_installation_took_outlives_the_server() {
    let store: Arc<dyn Store> = Arc::new(store::Memory::default());
    let ledger = Ledger::open(store.clone()).unwrap();
    installs(&ledger, "r1", 0, 100, 1_000_000);
    ledger.settle();
    drop(ledger);
    let ledger = Ledger::open(store).unwrap();
    step(&ledger, LifeEvent::Reinstall { profile: None }, 200);
    discovers(&ledger, 300);
    boots(&ledger, "web", 300);
    assert_eq!(ledger.progress(MAC, at(350)).unwrap().percent, Some(25));
}

#[test]
fn the_last_boots_are_kept_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let boots_dir = dir.path().join("boots");
    let store: Arc<dyn Store> = Arc::new(store::Memory::default());
    let open = || {
        let ledger = Ledger::open(store.clone()).unwrap();
        ledger.keep_in(boots_dir.clone());
        ledger.keep(4);
        ledger
    };
    let ledger = open();
    for n in 0..6 {
        discovers(&ledger, n * 1000);
        boots(&ledger, "web", n * 1000 + 1);
        let file = transfer("linux", 5, 10, 100);
        ledger.sent(MAC, Stage::Kernel, file, None, at(n * 1000 + 2));
    }
    let shown = |ledger: &Ledger| -> Vec<(i64, End, Stage)> {
        let all = ledger.boots(MAC);
        all.iter().map(|p| (p.began.duration_since(at(0)).as_secs(), p.end, p.stage)).collect()
    };
    let k = Stage::Kernel;
    let now = shown(&ledger);
    assert_eq!(now[0], (5000, End::Runs, k));
    assert_eq!(
        now[1..],
        [(4000, End::Stopped, k), (3000, End::Stopped, k), (2000, End::Stopped, k)]
    );
    let boots = ledger.boots(MAC);
    assert_eq!(boots[1].profile.as_deref(), Some("web"));
    assert_eq!(boots[1].diagnosis.as_ref().unwrap().name, "kernel-cut");
    assert_eq!((boots[1].timeline.len(), boots[1].bytes), (3, 5));

    // One that ends is on the disk at once; one that runs when the server stops.
    step(&ledger, begin("r"), 5003);
    step(&ledger, reported("r", Word::Failed("no disk".into())), 5004);
    ledger.settle();
    drop(ledger);
    let again = open();
    again.settle();
    let brief = again.brief(MAC).unwrap();
    assert_eq!((brief.seen, brief.stage), (at(5004), Some(k)), "what was seen is known again");
    assert_eq!(shown(&again)[0], (5000, End::Failed, k));
    assert_eq!(again.boots(MAC)[0].attempt, Some(1));
    let diagnosis = again.boots(MAC)[0].diagnosis.clone().unwrap();
    assert_eq!(diagnosis.sentence, "attempt 1 failed at script: no disk");
    discovers(&again, 9000);
    again.settle();
    drop(again);
    let third = open();
    assert_eq!(shown(&third)[0], (9000, End::Runs, Stage::Firmware), "it goes on meanwhile");
    third.keep(KEPT + 1);
    assert_eq!(shown(&third).len(), 4);
    assert_eq!(files(&boots_dir), ["525400000001.json"]);
}

fn files(dir: &Path) -> Vec<String> {
    let all = fs::read_dir(dir).unwrap().flatten();
    all.map(|e| e.file_name().into_string().unwrap()).collect()
}

#[test]
fn made_up_machines_make_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::new();
    ledger.keep_in(dir.path().into());
    for n in 0..200u8 {
        let mac = Mac([2, 0, 0, 0, 0, n]);
        ledger.record(mac, Event::new(Stage::Firmware, "DHCPDISCOVER", ""), at(0));
    }
    ledger.settle();
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_disk_that_takes_nothing_costs_the_history_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::new();
    // A file where the folder should be: nobody can write there, root neither.
    let blocked = dir.path().join("boots");
    fs::write(&blocked, "").unwrap();
    ledger.keep_in(blocked.clone());
    for n in 0..4 {
        discovers(&ledger, n * 1000);
        boots(&ledger, "web", n * 1000);
    }
    assert_eq!(ledger.boots(MAC).len(), 4, "memory has them");
    assert_eq!(fs::read(&blocked).unwrap(), b"");
}

#[test]
fn a_file_that_is_damaged_is_begun_anew_and_none_but_its_owner_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let boots_dir = dir.path().join("boots");
    let ledger = Ledger::new();
    ledger.keep_in(boots_dir.clone());
    fs::write(boots_dir.join("525400000001.json"), "{\"boots\": [{\"began\"").unwrap();
    for n in 0..3 {
        discovers(&ledger, n * 1000);
        boots(&ledger, "web", n * 1000);
    }
    assert_eq!(ledger.boots(MAC).len(), 3);
    assert_eq!(fs::metadata(&boots_dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_silenced_ledger_records_nothing() {
    let ledger = Ledger::new();
    ledger.silence();
    discovers(&ledger, 0);
    boots(&ledger, "web", 1);
    ledger.sent(MAC, Stage::Kernel, transfer("linux", 5, 10, 100), None, at(2));
    assert!(ledger.get(MAC).unwrap().timeline.is_empty());
    assert!(ledger.boots(MAC).is_empty());
    assert!(ledger.newest_boot(MAC, at(2)).is_some(), "tokens are no events");
}

#[test]
fn what_is_written_can_be_read_by_a_program() {
    let ledger = Ledger::new();
    installs(&ledger, "r1", 0, 60, 4096);
    let json = serde_json::json!(ledger.boots(MAC));
    let boot = &json[0];
    assert_eq!((&boot["end"], &boot["stage"]), (&"installed".into(), &"system".into()));
    let sent = boot["timeline"].as_array().unwrap().iter().find(|e| e["what"] == "sent");
    assert_eq!(sent.unwrap()["transfer"]["total"], 4096);
    let ended: Timestamp = boot["ended"].as_str().unwrap().parse().unwrap();
    assert_eq!(ended.duration_since(at(0)), SignedDuration::from_secs(60));
}

/// Boots of the lab as they were recorded: whole ones have come to no harm, and each that is cut off
/// after `n` entries has stopped where it did.
#[rstest]
#[case("bios-full", &[(1, ""), (2, "never-requested"), (5, "no-script"), (6, "no-script"), (7, "no-kernel"), (9, "kernel-silent"), (11, "kernel-silent"), (12, "")])]
#[case("uefi-full", &[(2, "never-requested"), (4, "loader-unasked"), (6, "loader-silent"), (7, "no-script"), (8, "no-kernel"), (12, "kernel-silent"), (13, "")])]
#[case("uefi-http-boot", &[(4, "loader-unasked"), (6, "loader-silent"), (7, "no-script"), (13, "")])]
#[case("mirror-debian", &[(11, "kernel-silent"), (15, ""), (17, "")])]
#[case("menu-default-local", &[(7, "menu"), (8, "")])]
fn boots_of_the_lab(#[case] name: &str, #[case] cut: &[(usize, &str)]) {
    #[derive(serde::Deserialize)]
    struct Recorded {
        facts: Facts,
        timeline: Vec<Entry>,
    }
    let all: HashMap<String, Recorded> =
        serde_json::from_str(include_str!("golden/timelines.json")).unwrap();
    let Recorded { facts, timeline } = &all[name];
    let found = |n: usize| {
        let timeline = &timeline[..n];
        let now = timeline[n - 1].at;
        let case = Case { timeline, facts, life: None, rivals: &[], over: true, now };
        diagnose(&case).map_or(String::new(), |d| d.name.into_owned())
    };
    let got: Vec<(usize, String)> = cut.iter().map(|(n, _)| (*n, found(*n))).collect();
    let want: Vec<(usize, String)> = cut.iter().map(|(n, w)| (*n, w.to_string())).collect();
    assert_eq!(got, want);
    assert_eq!(cut.last().unwrap().0, timeline.len());
}

#[test]
fn made_up_machines_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, now) = (Ledger::new(), Timestamp::now());
    ledger.keep_in(dir.path().into());
    for last in 1..=3 {
        let mac = Mac([2, 0, 0, 0, 0, last]);
        ledger.record(mac, Event::new(Stage::Script, "GET", "/boot"), now);
    }
    ledger.named(Mac([2, 0, 0, 0, 0, 1]), "declared", now);
    ledger.settle();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
