//! The life of machines over real HTTP on loopback, each from an address of its own: installed once,
//! and what forged, replayed and late words come to.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use pilotlight::boot::decide::reinstall;
use pilotlight::config::{Config, Folder, Mode, Root, Unknown, parse};
use pilotlight::dhcp;
use pilotlight::http::{Door, Running, Web, start};
use pilotlight::ledger::{Leased, Ledger, News, NotDone};
use pilotlight::model::profile::Kind;
use pilotlight::model::{
    Event, Facts, Life, LifeEvent, Mac, Machine, Match, Profile, Stage, State, token,
};
use pilotlight::store::{Error, Memory, Record, Store, Write};
use tempfile::TempDir;

/// One that takes nothing while it is told to.
#[derive(Default)]
struct Disk {
    memory: Memory,
    full: AtomicBool,
}

impl Store for Disk {
    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.memory.get(table, key)
    }

    fn list(&self, table: &'static str) -> Result<Vec<Record>, Error> {
        self.memory.list(table)
    }

    fn commit(&self, writes: &[Write]) -> Result<(), Error> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::Engine { path: "state".into(), why: "no space left".into() });
        }
        self.memory.commit(writes)
    }
}

struct Server {
    _dir: TempDir,
    disk: Arc<Disk>,
    port: u16,
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn profile(name: &str, kind: Kind, dir: &TempDir) -> Profile {
    let at = dir.path().display();
    let text = format!(
        "[[files]]\nname = \"f\"\ndir = \"{at}\"\n[[profile]]\nname = \"{name}\"\n\
         kernel = \"f/linux\"\ninitrd = \"f/initrd\"\nmenu = {}\n\
         args = \"ks={{{{ answers.ks }}}} r={{{{ report }}}}\"\nanswers = {{ ks = \"{at}/ks\" }}\n",
        name != "web"
    );
    let (config, _) = parse(&[("pilotlight.toml".into(), text)]).unwrap();
    Profile { kind, ..config.profiles[0].clone() }
}

fn machine(name: &str, last: u8, profile: Option<&str>) -> Machine {
    Machine {
        settings: Default::default(),
        name: name.into(),
        matches: Match { mac: Some(mac(last).into()), ..Match::default() },
        profile: profile.map(str::to_string),
        address: None,
        hostname: None,
        loader: None,
        vars: serde_json::Map::new(),
        secrets: Default::default(),
        power: Default::default(),
    }
}

impl Server {
    fn new() -> Server {
        Server::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Server {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("linux", "k"), ("initrd", "i"), ("ks", "for {{ machine.name }}\n")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut config = Config {
            folders: vec![Folder {
                name: "f".into(),
                root: Root::Dir(dir.path().into()),
                is: None,
            }],
            profiles: vec![
                profile("web", Kind::Install, &dir),
                profile("open", Kind::Install, &dir),
                profile("rescue", Kind::Live, &dir),
            ],
            machines: vec![machine("web1", 1, Some("web")), machine("web2", 2, Some("web"))].into(),
            ..Config::default()
        };
        // No DHCP is heard here but what a test says of it.
        config.dhcp.mode = Mode::Off;
        change(&mut config);
        let disk = Arc::new(Disk::default());
        let ledger = Arc::new(Ledger::open(disk.clone()).unwrap());
        let (config, runtime) =
            (Arc::new(ArcSwap::from_pointee(config)), tokio::runtime::Runtime::new().unwrap());
        let mut server =
            Server { _dir: dir, disk, port: 0, config, ledger, running: None, runtime };
        server.start();
        server
    }

    fn start(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        self.port = listener.local_addr().unwrap().port();
        let door = Door { http_port: self.port, https_port: 0, tls: false };
        let leases = Box::new(|| serde_json::json!([]));
        let web = Web::new(self.config.clone(), self.ledger.clone(), door, None, leases);
        let doors = vec![(listener, None)];
        self.running = Some(self.runtime.block_on(async { start(web, doors, None).unwrap() }));
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }

    /// What is stored, and nothing else, is there afterwards.
    fn restart(&mut self) {
        self.stop();
        self.ledger = Arc::new(Ledger::open(self.disk.clone()).unwrap());
        self.start();
    }

    /// Status and body, asked for from 127.0.0.`from`.
    fn ask(&self, from: u8, path: &str) -> (u16, String) {
        self.asks(from, path, &[])
    }

    fn asks(&self, from: u8, path: &str, more: &[&str]) -> (u16, String) {
        let out = Command::new("curl")
            .args(more)
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--globoff",
                "-w",
                "\n%{http_code}",
            ])
            .args(["--interface", &format!("127.0.0.{from}")])
            .arg(format!("http://127.0.0.1:{}{path}", self.port))
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.into())
    }

    fn get(&self, from: u8, path: &str) -> String {
        let (status, body) = self.ask(from, path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn script(&self, from: u8, last: u8) -> String {
        self.get(from, &format!("/boot/{}.ipxe?uuid=u{last}", mac(last).hexhyp()))
    }

    /// A machine that boots into its installation.
    fn boots(&self, from: u8, last: u8) -> Boot {
        let script = self.script(from, last);
        Boot::of(&script).unwrap_or_else(|| panic!("no boot: {script}"))
    }

    /// The machine is switched on, as DHCP sees it.
    fn starts(&self, last: u8) {
        for (stage, what) in [(Stage::Loader, "TFTP"), (Stage::Firmware, "DHCPDISCOVER")] {
            self.ledger.record(mac(last), Event::new(stage, what, ""), Timestamp::now());
        }
    }

    fn leased(&self, last: u8, address: u8) {
        self.ledger.learn(Facts::of(mac(last)), Timestamp::now());
        let address = Ipv4Addr::new(127, 0, 0, address);
        self.ledger.leased(mac(last), Leased { address, relay: None, uuid: None });
    }

    fn life(&self, last: u8) -> Arc<Life> {
        self.ledger.life(mac(last)).unwrap()
    }

    fn state(&self, last: u8) -> State {
        self.life(last).state
    }

    fn step(&self, last: u8, event: LifeEvent) {
        self.step_at(last, event, Timestamp::now());
    }

    fn step_at(&self, last: u8, event: LifeEvent, now: Timestamp) {
        self.runtime.block_on(self.ledger.step(mac(last), event, 3, now)).unwrap();
    }

    /// All that was sent to the ledger before is done.
    fn settled(&self) {
        let nothing = self.ledger.step(mac(250), LifeEvent::Forget, 1, Timestamp::now());
        self.runtime.block_on(nothing).unwrap_err();
    }

    fn alarms(&self) -> Vec<&'static str> {
        self.ledger.alarms().iter().map(|a| a.name).collect()
    }

    fn timeline(&self, last: u8) -> Vec<String> {
        let known = self.ledger.get(mac(last)).unwrap();
        known.timeline.iter().map(|e| format!("{} {}", e.event.what, e.event.detail)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a script has of its boot.
#[derive(Debug, PartialEq)]
struct Boot {
    token: String,
    report: String,
}

impl Boot {
    fn of(script: &str) -> Option<Boot> {
        let word = |key: &str| {
            let (_, rest) = script.split_once(key)?;
            let (_, rest) = rest.split_once("/b/")?;
            Some(rest[..32].to_string())
        };
        Some(Boot { token: word("\nkernel ")?, report: word(" r=")? })
    }

    fn kernel(&self) -> String {
        format!("/b/{}/files/f/linux", self.token)
    }

    fn answer(&self) -> String {
        format!("/b/{}/answer/ks", self.token)
    }

    fn says(&self, word: &str) -> String {
        format!("/b/{}/report/{word}", self.report)
    }
}

const NOTED: &str = "noted: progress (done and failed are the words that count)\n";
const DISK: &str = "pilotlight: local disk: this machine is installed";

#[test]
fn what_bios_alone_can_start_begins_nothing_by_uefi() {
    let server = Server::with(|config| {
        let text = "[[media]]\nname = \"old\"\niso = \"/old.iso\"\ninstaller = \"centos-6\"\n";
        let (old, _) = parse(&[("pilotlight.toml".into(), text.into())]).unwrap();
        config.profiles[0].release = old.profiles[0].release.clone();
        config.profiles[1].release = old.profiles[0].release.clone();
    });
    let script = |last: u8, how: &str, more: &str| {
        let of = format!("uuid=u{last}&buildarch=x86_64&platform={how}");
        server.get(last, &format!("/boot/{}.ipxe?{of}{more}", mac(last).hexhyp()))
    };
    let refused = script(1, "efi", "");
    assert!(refused.contains("can be started by BIOS alone"), "{refused}");
    assert!(server.ledger.life(mac(1)).is_none_or(|l| l.attempt.is_none()));
    assert!(script(1, "pcbios", "").contains("kernel "), "by BIOS it goes on");
    assert_eq!(server.state(1), State::Installing);
    let (uefi, bios) = (script(9, "efi", ""), script(9, "pcbios", ""));
    assert!(
        bios.contains("item profile0 open") && uefi.contains("item profile0 rescue"),
        "{bios}\n{uefi}"
    );
    let chosen = script(9, "efi", "&choose=open");
    assert!(chosen.contains("can be started by BIOS alone"), "{chosen}");
}

#[test]
fn a_machine_is_installed_once_and_again_when_a_person_says_so() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    assert_eq!(server.boots(11, 1), boot, "the same start, asked for once more");
    assert_eq!(server.get(11, &boot.kernel()), "k");
    assert_eq!(server.get(11, &boot.answer()), "for web1\n");
    assert_eq!(server.get(11, &boot.says("half")), NOTED);
    server.settled();
    let attempt = server.life(1).attempt.clone().unwrap();
    assert_eq!((attempt.number, attempt.step), (1, Stage::System));
    assert_eq!(server.get(11, &boot.says("done")), "noted\n");
    assert_eq!(server.state(1), State::Installed);
    // Network first or not: its own disk, from every start on.
    for _ in 0..2 {
        server.starts(1);
        let script = server.script(11, 1);
        assert!(script.contains(DISK) && Boot::of(&script).is_none(), "{script}");
    }
    // Its token is dead; what comes twice is noted once.
    for path in [boot.kernel(), boot.answer()] {
        assert_eq!(server.ask(11, &path).0, 404, "{path}");
    }
    assert_eq!(server.get(11, &boot.says("done")), "noted already\n");
    assert_eq!(server.ask(11, &boot.says("failed")).0, 409);
    assert_eq!(server.ask(11, &boot.says("half")).0, 404);
    assert_eq!(server.state(1), State::Installed);
    // A configuration that changes installs nothing.
    let mut config = (*server.config.load_full()).clone();
    config.machines = vec![machine("web1", 1, Some("open"))].into();
    server.config.store(Arc::new(config));
    assert!(server.script(11, 1).contains(DISK));
    // Armed: once, and with the profile that is declared now.
    let (config, life) = (server.config.load_full(), server.life(1));
    let profile = reinstall(&config, &Facts::of(mac(1)), Some(&life)).map(str::to_string);
    server.step(1, LifeEvent::Reinstall { profile });
    assert_eq!(server.ask(11, &boot.says("done")).0, 409, "what was heard before disarms nothing");
    let next = server.boots(11, 1);
    assert_ne!(next, boot);
    assert_eq!(server.life(1).attempt.as_ref().unwrap().profile, "open");
    assert_eq!(server.get(11, &next.says("done")), "noted\n");
    let words = server.timeline(1).join("\n");
    for said in ["installed attempt 1, ", "report done", "open"] {
        assert!(words.contains(said), "{said}: {words}");
    }
    assert!(server.script(11, 1).contains(DISK));
    assert!(server.timeline(1).join("\n").contains("local disk"));
}

#[test]
fn a_choice_in_the_menu_is_installed_once_and_never_unasked() {
    let server = Server::new();
    let choose = format!("/boot/{}.ipxe?choose=open", mac(9).hexhyp());
    assert!(server.script(19, 9).contains("no declared machine matches"));
    let boot = Boot::of(&server.get(19, &choose)).unwrap();
    server.get(19, &boot.kernel());
    server.settled();
    // It never reports: the menu again, whatever that attempt comes to.
    server.starts(9);
    assert!(server.script(19, 9).contains("no declared machine matches"));
    server.step_at(9, LifeEvent::Tick, Timestamp::now() + SignedDuration::from_hours(3));
    assert_eq!(server.state(9), State::Discovered);
    assert!(server.script(19, 9).contains("no declared machine matches"));
    let boot = Boot::of(&server.get(19, &choose)).unwrap();
    server.get(19, &boot.says("done"));
    assert!(server.script(19, 9).contains(DISK));
    let again = server.get(19, &choose);
    assert!(again.contains("refuses") && again.contains("machine reinstall"), "{again}");
    assert_eq!(server.state(9), State::Installed);
}

#[test]
fn a_profile_that_is_gone_is_named() {
    let server = Server::new();
    let profile = "centos-7-x86_64".to_string();
    server.step(9, LifeEvent::Assign { name: None, profile });
    let said =
        "there is no profile \"centos-7-x86_64\": its image is gone, or its name has changed";
    assert!(server.script(19, 9).contains("there is no profile"));
    assert!(server.timeline(9).join("\n").contains(said), "{:?}", server.timeline(9));
    let found = server.ledger.diagnosis(mac(9), Timestamp::now()).unwrap();
    assert_eq!((&*found.name, found.sentence), ("waits", format!("it waits: {said}")));
}

#[test]
fn after_three_failures_it_is_held() {
    let server = Server::new();
    for attempt in 1..=3 {
        server.starts(1);
        let boot = server.boots(11, 1);
        assert_eq!(server.life(1).attempt.as_ref().unwrap().number, attempt);
        server.get(11, &boot.kernel());
        server.settled();
        match attempt {
            // It says so; it starts again before it reports; its report never comes.
            1 => drop(server.get(11, &boot.says("failed?no%20disk"))),
            2 => {}
            _ => {
                let late = Timestamp::now() + SignedDuration::from_hours(3);
                assert_eq!(server.ledger.overdue(late).len(), 1);
                server.step_at(1, LifeEvent::Tick, late);
                assert_eq!(server.ask(11, &boot.kernel()).0, 404);
            }
        }
    }
    assert_eq!(server.state(1), State::Failed);
    server.starts(1);
    let script = server.script(11, 1);
    for said in [
        "web1 is held",
        "with profile web: 3",
        "seen last at its kernel: no report came in time",
        "pilotlight machine reinstall web1",
        "prompt --timeout 60000",
        "sanboot",
    ] {
        assert!(script.contains(said), "{said}: {script}");
    }
    // Or the rescue system, if that is said.
    let mut config = (*server.config.load_full()).clone();
    (config.life.held_rescue, config.life.rescue) = (true, Some("rescue".into()));
    server.config.store(Arc::new(config));
    let rescue = server.boots(11, 1);
    assert_eq!(server.get(11, &rescue.kernel()), "k");
    assert_eq!(server.get(11, &rescue.says("done")), "noted: progress\n", "for the timeline");
    assert_eq!(server.state(1), State::Failed);
    let words = server.timeline(1).join("\n");
    assert!(words.contains("boots profile rescue") && words.contains("report done"), "{words}");
    server.step(1, LifeEvent::Reinstall { profile: None });
    server.boots(11, 1);
    assert_eq!(server.life(1).attempt.as_ref().unwrap().number, 1);
}

#[test]
fn a_start_that_is_broken_off_before_the_kernel_is_no_failure() {
    let server = Server::new();
    let first = server.boots(11, 1);
    server.starts(1);
    let second = server.boots(11, 1);
    assert_ne!(first.token, second.token);
    assert_eq!(server.ask(11, &first.kernel()).0, 404, "replaced");
    assert_eq!(server.life(1).failures, 0);
    server.get(11, &second.kernel());
    server.settled();
    server.starts(1);
    server.boots(11, 1);
    assert_eq!(server.life(1).failures, 1);
    assert!(
        server.timeline(1).iter().any(|e| e.contains("started again before it reported")),
        "{:?}",
        server.timeline(1)
    );
    // The report of the attempt before the one that runs ends nothing.
    assert_eq!(server.ask(11, &second.says("done")).0, 409);
    assert_eq!(server.state(1), State::Installing);
}

#[test]
fn what_is_made_for_one_machine_is_for_no_other_address() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    for path in [boot.answer(), boot.kernel()] {
        let (status, body) = server.ask(12, &path);
        assert_eq!((status, body.contains("for web1")), (403, false), "{path}: {body}");
    }
    assert_eq!(server.alarms(), ["second-reader"]);
    assert_eq!(server.get(11, &boot.answer()), "for web1\n", "nothing is lost by it");
    // DHCP gives the machine itself another address, as its own system asks by another client ID.
    server.leased(1, 13);
    for path in [boot.answer(), boot.kernel()] {
        server.get(13, &path);
        assert_eq!(server.ask(12, &path).0, 403, "still nobody else");
    }
}

#[test]
fn an_answer_is_read_from_each_address_of_its_machine() {
    let server = Server::new();
    let mut config = (*server.config.load_full()).clone();
    config.machines = vec![
        Machine { address: Some(Ipv4Addr::new(127, 0, 0, 31)), ..machine("web1", 1, Some("web")) },
        Machine { address: Some(Ipv4Addr::new(127, 0, 0, 32)), ..machine("web2", 2, Some("web")) },
    ]
    .into();
    server.config.store(Arc::new(config));
    let boot = server.boots(11, 1);
    // Anaconda: ks.cfg from the lease, what its %post fetches from the address that it has set.
    for from in [11, 31, 11] {
        assert_eq!(server.get(from, &boot.answer()), "for web1\n");
    }
    assert_eq!(
        server.get(31, &boot.says("busy")),
        "noted: progress (done and failed are the words that count)\n"
    );
    assert!(server.alarms().is_empty(), "{:?}", server.alarms());
    for from in [12, 32] {
        assert_eq!(server.ask(from, &boot.answer()).0, 403, "another machine's address");
    }
    assert_eq!(server.alarms(), ["second-reader"]);
}

#[test]
fn forged_and_replayed_reports_come_to_nothing() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    for word in ["done", "failed", "half"] {
        assert_eq!(server.ask(12, &boot.says(word)).0, 403, "from elsewhere");
        for key in [&boot.token, &"0".repeat(32), &token::report(&boot.report)] {
            assert_eq!(server.ask(11, &format!("/b/{key}/report/{word}")).0, 404, "{key}");
        }
    }
    assert_eq!(server.alarms(), ["forged-report"]);
    // Who overhears it on the wire has no token.
    assert_eq!(server.ask(11, &format!("/b/{}/answer/ks", boot.report)).0, 404);
    assert_eq!(server.state(1), State::Installing);
    let other = server.boots(21, 2);
    assert_eq!(server.ask(21, &boot.says("done")).0, 403, "another machine's");
    server.get(11, &boot.says("done"));
    server.step(1, LifeEvent::Reinstall { profile: None });
    for (from, want) in [(11, 409), (12, 409)] {
        assert_eq!(server.ask(from, &boot.says("done")).0, want, "replayed");
    }
    assert_eq!(server.state(1), State::Assigned);
    let now = server.boots(11, 1);
    assert!(matches!(server.ask(12, &boot.says("done")).0, 403 | 409));
    assert_eq!(server.state(1), State::Installing);
    server.get(11, &now.says("done"));
    assert_eq!((server.state(1), server.state(2)), (State::Installed, State::Installing));
    server.get(21, &other.says("done"));
}

#[test]
fn a_report_that_comes_late_saves_the_disk() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    server.get(11, &boot.kernel());
    server.settled();
    server.step_at(1, LifeEvent::Tick, Timestamp::now() + SignedDuration::from_hours(3));
    assert_eq!(server.state(1), State::Assigned);
    assert_eq!(server.ask(12, &boot.says("done")).0, 403);
    assert_eq!(server.get(11, &boot.says("done")), "noted\n");
    assert!(server.script(11, 1).contains(DISK));
    assert_eq!(server.get(11, &boot.says("done")), "noted already\n");
}

#[test]
fn a_mac_that_is_there_twice_and_one_with_another_uuid_are_refused() {
    let server = Server::new();
    server.leased(1, 11);
    let script = server.script(12, 1);
    assert!(script.contains("refuses web1") && script.contains("two machines"), "{script}");
    assert_eq!(server.alarms(), ["mac-twice"]);
    assert!(server.ledger.life(mac(1)).is_none() && Boot::of(&script).is_none());
    let boot = server.boots(11, 1);
    let uuid = server.get(11, &format!("/boot/{}.ipxe?uuid=other", mac(1).hexhyp()));
    assert!(uuid.contains("refuses web1") && uuid.contains("machine reinstall"), "{uuid}");
    assert_eq!(server.alarms(), ["mac-twice", "uuid-changed"]);
    // Neither has done anything to the machine's own boot.
    let facts = server.ledger.facts(mac(1)).unwrap();
    assert_eq!((facts.uuid.as_deref(), facts.ip), (Some("u1"), Some([127, 0, 0, 11].into())));
    assert_eq!(server.boots(11, 1), boot);
    server.get(11, &boot.says("done"));
    let path = format!("/boot/{}.ipxe?uuid=other", mac(1).hexhyp());
    assert!(server.get(11, &path).contains("refuses"), "another mainboard, unasked");
    server.step(1, LifeEvent::Reinstall { profile: None });
    assert!(Boot::of(&server.get(11, &path)).is_some(), "a person has said so");
}

#[test]
fn without_a_disk_that_takes_it_nothing_is_installed_and_the_rest_goes_on() {
    let server = Server::with(|config| {
        config.machines = vec![
            machine("web1", 1, Some("web")),
            machine("web2", 2, Some("web")),
            machine("live", 3, Some("rescue")),
        ]
        .into();
    });
    let running = server.boots(21, 2);
    server.disk.full.store(true, Ordering::SeqCst);
    let mut news = server.ledger.listen();
    let script = server.script(11, 1);
    for said in ["has to wait, its state cannot be kept", "no space left", "asking again in 30 s"] {
        assert!(script.contains(said), "{said}: {script}");
    }
    assert!(Boot::of(&script).is_none() && server.ledger.life(mac(1)).is_none());
    assert_eq!(server.alarms(), ["states-not-kept"]);
    // What needs no new state: a live system, the files of a boot that runs, its script once more.
    assert_eq!(server.get(31, &server.boots(31, 3).kernel()), "k");
    assert_eq!(server.get(21, &running.kernel()), "k");
    assert_eq!(server.get(21, &running.answer()), "for web2\n");
    // A report is not taken that cannot be kept: who sends it tries again.
    let (status, body) = server.ask(21, &running.says("done"));
    assert_eq!((status, body.contains("no space left")), (503, true), "{body}");
    assert_eq!(server.state(2), State::Installing);
    let shown = std::iter::from_fn(|| news.try_recv().ok());
    assert_eq!(shown.filter(|n| matches!(n, News::Life { .. })).count(), 0, "nothing was shown");
    let now = Timestamp::now();
    let not = server.runtime.block_on(server.ledger.step(mac(1), LifeEvent::Local, 3, now));
    assert!(matches!(not, Err(NotDone::Store(_))), "{not:?}");
    server.disk.full.store(false, Ordering::SeqCst);
    assert_eq!(server.get(21, &running.says("done")), "noted\n");
    server.boots(11, 1);
    assert_eq!((server.state(1), server.state(2)), (State::Installing, State::Installed));
}

#[test]
fn a_server_that_starts_again_goes_on_where_it_was() {
    let mut server = Server::new();
    let boot = server.boots(11, 1);
    server.get(11, &boot.kernel());
    let early = server.boots(21, 2);
    server.settled();
    server.restart();
    // The token opens what it opened, for the machine alone.
    assert_eq!(server.get(11, &boot.answer()), "for web1\n");
    assert_eq!(server.ask(12, &boot.answer()).0, 403);
    assert_eq!(server.ask(12, &boot.says("done")).0, 403);
    // One that had fetched nothing gets its script again, with another token, and has not failed.
    let again = server.boots(21, 2);
    assert_ne!(again.token, early.token);
    assert_eq!(server.ask(21, &early.kernel()).0, 404);
    assert_eq!((server.life(2).failures, server.state(2)), (0, State::Installing));
    assert_eq!(server.get(11, &boot.says("done")), "noted\n");
    server.restart();
    assert_eq!(server.get(11, &boot.says("done")), "noted already\n");
    assert_eq!(server.ask(12, &boot.says("done")).0, 403);
    assert!(server.script(11, 1).contains(DISK));
    // What is on the disk holds no token.
    let stored = server.disk.list("life").unwrap();
    assert_eq!(stored.len(), 2);
    for (_, record) in stored {
        let text = String::from_utf8(record).unwrap();
        assert!(![&boot.token, &again.token].iter().any(|t| text.contains(*t)), "{text}");
    }
}

#[test]
fn unknown_machines_are_discovered_or_ignored() {
    let server = Server::with(|config| config.life.unknown = Unknown::Discover);
    for _ in 0..3 {
        let script = server.script(19, 9);
        assert!(script.contains("it waits to be assigned"), "{script}");
        assert!(script.contains("--timeout 15000"), "{script}");
    }
    server.settled();
    assert_eq!(server.state(9), State::Discovered);
    let waits = |l: &String| l.contains("waits to be assigned");
    let said = server.timeline(9);
    assert!(said.iter().filter(|l| waits(l)).count() <= 3, "not once for each: {said:?}");
    let (name, profile) = (Some("node9".into()), "web".into());
    server.step(9, LifeEvent::Assign { name, profile });
    let boot = server.boots(19, 9);
    assert_eq!(server.get(19, &boot.answer()), "for node9\n");
    // Rescue and local, by a person's word.
    server.step(9, LifeEvent::Rescue { profile: "rescue".into() });
    assert_eq!(server.ask(19, &boot.answer()).0, 404, "that attempt is over");
    server.boots(19, 9);
    assert_eq!(server.state(9), State::Rescue);
    server.step(9, LifeEvent::Local);
    assert!(server.script(19, 9).contains("somebody sent this machine to its own disk"));

    let server = Server::with(|config| config.life.unknown = Unknown::Ignore);
    let (status, body) = server.ask(19, &format!("/boot/{}.ipxe", mac(9).hexhyp()));
    assert_eq!((status, body.contains("ignored here")), (403, true), "{body}");
    let choose = format!("/boot/{}.ipxe?choose=open", mac(9).hexhyp());
    assert_eq!(server.ask(19, &choose).0, 403);
    server.boots(11, 1);
    let profile = "web".into();
    server.step(9, LifeEvent::Assign { name: None, profile });
    server.boots(19, 9);
}

#[test]
fn a_live_system_boots_each_time_and_is_never_installed() {
    let server = Server::with(|config| {
        config.machines = vec![machine("memtest", 3, Some("rescue"))].into();
    });
    let first = server.boots(31, 3);
    assert_eq!(server.boots(31, 3), first);
    assert_eq!(server.get(31, &first.answer()), "for memtest\n");
    assert_eq!(server.ask(32, &first.answer()).0, 403);
    server.get(31, &first.says("done"));
    server.starts(3);
    let second = server.boots(31, 3);
    assert_ne!(second, first);
    assert_eq!(server.ask(31, &first.kernel()).0, 404);
    assert!(server.ledger.life(mac(3)).is_none());
    // Behind a router that translates addresses, a live system boots, and nothing is installed.
    server.ledger.learn(Facts::of(mac(1)), Timestamp::now());
    let (address, relay) = (Ipv4Addr::new(127, 0, 0, 50), Some(Ipv4Addr::new(127, 0, 0, 31)));
    for last in [1, 3] {
        server.ledger.leased(mac(last), Leased { address, relay, uuid: None });
    }
    server.boots(31, 3);
    let mut config = (*server.config.load_full()).clone();
    config.machines = vec![machine("web1", 1, Some("web"))].into();
    server.config.store(Arc::new(config));
    assert!(server.script(31, 1).contains("refuses web1"));
}

#[test]
fn an_assignment_arms_nothing_that_was_installed() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    server.get(11, &boot.says("done"));
    for sent in [LifeEvent::Local, LifeEvent::Rescue { profile: "rescue".into() }] {
        server.step(1, sent);
        let assign = LifeEvent::Assign { name: None, profile: "web".into() };
        let no = server.ledger.step(mac(1), assign, 3, Timestamp::now());
        let no = server.runtime.block_on(no).unwrap_err().to_string();
        assert!(no.contains("`pilotlight machine reinstall NAME --profile P` installs it"), "{no}");
        server.starts(1);
        server.script(11, 1);
        assert!(server.life(1).attempt.is_none(), "{:?}", server.life(1));
    }
}

#[test]
fn a_state_that_cannot_be_read_is_no_reason_to_install() {
    let mut server = Server::new();
    let put = Write::put("life", mac(1).0, *b"{");
    server.disk.memory.commit(&[put]).unwrap();
    server.restart();
    let script = server.script(11, 1);
    assert!(script.contains("is held") && script.contains("cannot be read"), "{script}");
    assert!(Boot::of(&script).is_none());
    assert_eq!(server.alarms(), ["state-unreadable"]);
    server.step(1, LifeEvent::Reinstall { profile: None });
    server.boots(11, 1);
}

#[test]
fn nobody_is_installed_whose_dhcp_was_not_seen() {
    let mut server = Server::with(|config| config.dhcp.mode = Mode::Proxy);
    let again = format!("/boot/{}.ipxe?uuid=u1&again=1", mac(1).hexhyp());
    for choose in ["", "&choose=open"] {
        let path = format!("/boot/{}.ipxe?uuid=u1{choose}", mac(1).hexhyp());
        let script = server.get(12, &path);
        assert!(script.contains("\ndhcp netX || dhcp ||\nchain --replace "), "{script}");
        assert!(script.contains("&again=1") && Boot::of(&script).is_none(), "{script}");
    }
    let script = server.get(12, &again);
    for said in ["has to wait", "no DHCP of 52:54:00:00:00:01 was seen here", "mode = \"off\""] {
        assert!(script.contains(said), "{said}: {script}");
    }
    assert!(!script.contains("again=1"), "it asks by DHCP again: {script}");
    assert!(server.ledger.life(mac(1)).is_none() && server.ledger.facts(mac(1)).is_none());
    server.leased(1, 11);
    let boot = Boot::of(&server.get(11, &again)).unwrap();
    assert!(server.get(12, &again).contains("two machines"));
    server.get(11, &boot.kernel());
    server.settled();
    // Leases are not on the ledger's disk: after a restart it is nobody's word again.
    server.restart();
    assert!(server.script(12, 1).contains("\ndhcp netX"));
    assert_eq!((server.state(1), server.life(1).failures), (State::Installing, 0));
    assert_eq!(server.get(11, &boot.answer()), "for web1\n", "its boot goes on");
}

#[test]
fn leases_of_before_the_start_are_known() {
    let (disk, now) = (Arc::new(Memory::default()), Timestamp::now());
    let lease = |last: u8, state: &str, ends: i64| {
        let (starts, ends) = (now.as_microsecond(), now.as_microsecond() + ends * 1_000_000);
        let text = format!(
            r#"{{"mac":"{}","state":"{state}","starts":{starts},"ends":{ends}}}"#,
            mac(last)
        );
        Write::put(dhcp::lease::TABLE, [10, 0, 0, last], text)
    };
    let all = [lease(1, "bound", 3600), lease(2, "released", 3600), lease(3, "bound", -3600)];
    disk.commit(&all).unwrap();
    let text = "[dhcp]\nmode = \"full\"\n[[subnet]]\nnetwork = \"10.0.0.0/24\"\n\
                range = \"10.0.0.1-10.0.0.9\"\n";
    let (config, _) = parse(&[("pilotlight.toml".into(), text.into())]).unwrap();
    let ledger = Arc::new(Ledger::open(disk.clone()).unwrap());
    let dhcp = dhcp::serve::Dhcp {
        book: dhcp::serve::load(&*disk, &config, []).unwrap(),
        config: Arc::new(ArcSwap::from_pointee(config)),
        ledger: ledger.clone(),
        store: disk,
        trust: Box::new(Vec::new),
        booting: Box::new(|_, _| {}),
        appeared: Box::new(|_| {}),
    };
    dhcp.remember();
    let at = |last| ledger.lease(mac(last)).map(|l| l.address);
    assert_eq!((at(1), at(2), at(3)), (Some(Ipv4Addr::new(10, 0, 0, 1)), None, None));
}

#[test]
fn another_card_of_an_installed_machine_installs_nothing() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    let second = format!("/boot/{}.ipxe?uuid=U1", mac(2).hexhyp());
    let refused = |state: &str| {
        let script = server.get(21, &second);
        for said in ["local disk: ", state, "52:54:00:00:00:01", "sanboot", "exit 1"] {
            assert!(script.contains(said), "{said}: {script}");
        }
        assert!(Boot::of(&script).is_none() && server.ledger.life(mac(2)).is_none());
    };
    refused("which is installing");
    server.get(11, &boot.says("done"));
    refused("which is installed");
    assert_eq!(server.alarms(), ["uuid-twice"]);
    // Another machine is not held up; and a person's word counts.
    server.step(2, LifeEvent::Reinstall { profile: None });
    assert!(Boot::of(&server.get(21, &second)).is_some());
}

#[test]
fn a_machine_that_is_declared_by_its_uuid_has_said_it_by_dhcp() {
    let server = Server::with(|config| {
        config.dhcp.mode = Mode::Proxy;
        let mut web = machine("web1", 1, Some("web"));
        web.matches = Match { uuid: Some("U1".into()), ..Match::default() };
        config.machines = vec![web].into();
    });
    let path = format!("/boot/{}.ipxe?uuid=u1&again=1", mac(1).hexhyp());
    let leased = |uuid: Option<&str>| {
        let (address, uuid) = (Ipv4Addr::new(127, 0, 0, 11), uuid.map(str::to_string));
        server.ledger.leased(mac(1), Leased { address, relay: None, uuid });
    };
    for said in [None, Some("other")] {
        leased(said);
        let script = server.get(11, &path);
        assert!(script.contains("did not say the UUID") && Boot::of(&script).is_none(), "{script}");
    }
    leased(Some("u1"));
    leased(None);
    let boot = Boot::of(&server.get(11, &path)).unwrap();
    assert_eq!(server.get(11, &boot.answer()), "for web1\n");
}

#[test]
fn who_asks_for_the_head_alone_changes_nothing() {
    let server = Server::new();
    let path = format!("/boot/{}.ipxe?uuid=u1&ip=127.0.0.77", mac(1).hexhyp());
    assert_eq!(server.asks(11, &path, &["--head"]).0, 200);
    assert!(server.ledger.life(mac(1)).is_none() && server.ledger.facts(mac(1)).is_none());
    let boot = Boot::of(&server.get(11, &path)).unwrap();
    assert_eq!(server.ledger.by_ip([127, 0, 0, 77].into()), None, "an address that it only says");
    assert_eq!(server.ledger.by_ip([127, 0, 0, 11].into()), Some(mac(1)));
    for path in [boot.answer(), boot.kernel()] {
        assert_eq!(server.asks(11, &path, &["--head"]).0, 200, "{path}");
    }
    server.settled();
    assert_eq!(server.life(1).attempt.as_ref().unwrap().step, Stage::Script);
    // It has another address by the time it reads its answer, and nobody was the reader before.
    server.leased(1, 13);
    assert_eq!(server.get(13, &boot.answer()), "for web1\n");
}

#[test]
fn a_word_that_looks_like_one_that_counts_is_refused() {
    let server = Server::new();
    let boot = server.boots(11, 1);
    for slip in ["installed", "finished", "complete", "Success", "ok", "error"] {
        let (status, body) = server.ask(11, &boot.says(slip));
        assert_eq!(status, 400, "{slip}");
        assert!(body.contains("report/done") && body.contains("report/failed"), "{body}");
    }
    assert_eq!(server.get(11, &boot.says("partitioned")), NOTED);
    assert_eq!(server.state(1), State::Installing);
    assert_eq!(server.get(11, &boot.says("done")), "noted\n");
}
