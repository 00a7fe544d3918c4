//! The command line against a real server's admin door over loopback: what is told, what is changed,
//! what is asked about before, and by what right.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use pilotlight::config::Config;
use pilotlight::http::{Door, Running, Web, start};
use pilotlight::ledger::Ledger;
use pilotlight::model::lifecycle::{Begin, Word};
use pilotlight::model::profile::{self, Kind, Source};
use pilotlight::model::{
    Event, Facts, Hidden, LifeEvent, Mac, Machine, Match, Power, Profile, Stage, machine,
};
use pilotlight::power::{Target, Way, act};
use pilotlight::store::{Memory, Store};
use pilotlight::tls::Tls;
use serde_json::{Value, json};
use tempfile::TempDir;

const COLUMNS: usize = 80;

struct Server {
    dir: TempDir,
    /// `ADDRESS:PORT`
    at: String,
    token: Option<String>,
    ledger: Arc<Ledger>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    /// Hears magic packets.
    ear: UdpSocket,
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn profile(name: &str, kind: Kind) -> Profile {
    Profile {
        name: name.into(),
        title: name.into(),
        menu: false,
        boot: profile::Boot::linux(Source::Url("http://127.0.0.1:1/linux".into()), Vec::new(), ""),
        unready: None,
        uefi: None,
        release: None,
        settings: None,
        memory: None,
        answers: Vec::new(),
        console: None,
        vars: Default::default(),
        secrets: Default::default(),
        kind,
        timeout: None,
        attempts: None,
        plain_answers: false,
        at: "pilotlight.toml:1".into(),
    }
}

fn declared(name: &str, last: u8, profile: Option<&str>, power: Power) -> Machine {
    Machine {
        settings: Default::default(),
        name: name.into(),
        matches: Match { mac: Some(mac(last).into()), ..Match::default() },
        profile: profile.map(str::to_string),
        address: None,
        hostname: None,
        loader: None,
        vars: Default::default(),
        secrets: Default::default(),
        power,
    }
}

impl Server {
    fn new() -> Server {
        Server::open(false)
    }

    /// With web1, which a command switches, web2, which a packet wakes, and web3 that fails to.
    fn open(secure: bool) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let hook = dir.path().join("hook");
        fs::write(&hook, "#!/bin/sh\necho $2 >>$1\n").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let words = |p: std::path::PathBuf| p.to_str().unwrap().to_string();
        let command = Power::Command(vec![words(hook), words(dir.path().join("switched"))]);
        let mut config = Config {
            profiles: vec![
                profile("debian", Kind::Install),
                profile("fedora", Kind::Install),
                profile("memtest", Kind::Live),
            ],
            machines: vec![
                declared("web1", 1, Some("debian"), command),
                declared("web2", 2, Some("debian"), Power::WakeOnLan),
                declared("web3", 3, None, Power::Command(vec!["/bin/false".into()])),
            ]
            .into(),
            ..Config::default()
        };
        config.life.rescue = Some("memtest".into());
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (boot, listener) = (bind(), bind());
        let at = listener.local_addr().unwrap().to_string();
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let ledger = Arc::new(Ledger::open(store.clone()).unwrap());
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let tls = Tls::open(&config.tls, dir.path(), &here, SystemTime::now()).unwrap();
        fs::write(dir.path().join("ca.pem"), tls.root_pem().unwrap()).unwrap();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let door = Door { http_port: 80, https_port: 443, tls: false };
        let mut web = Web::new(config.clone(), ledger.clone(), door, None, Box::new(|| json!([])));
        web.auth = pilotlight::http::auth::Auth::open(store).unwrap();
        let mut token = None;
        if secure {
            web.admin_tls = Some(tls.server_config());
            let made = web.auth.first(Timestamp::now()).unwrap();
            token = made.map(|t| t.reveal().to_string());
        }
        let ear = UdpSocket::bind("127.255.255.255:0").unwrap();
        ear.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let port = ear.local_addr().unwrap().port();
        web.power = Some(Box::new(move |mac, action| {
            let config = config.clone();
            Box::pin(async move {
                let config = config.load();
                let found = machine::find(&config.machines, &Facts::of(mac)).unwrap();
                let target = Target { mac, name: &found.name, power: &found.power };
                let to = format!("127.255.255.255:{port}").parse().unwrap();
                let way = Way { interface: "lo".into(), from: Ipv4Addr::LOCALHOST, to };
                act(target, action, &[way], |_| Ok(Hidden::new(""))).await
            })
        }));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running =
            runtime.block_on(async { start(web, vec![(boot, None)], Some(listener)).unwrap() });
        Server { dir, at, token, ledger, running: Some(running), runtime, ear }
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
        for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS", "PILOTLIGHT_CA", "PILOTLIGHT_TOKEN"] {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.args(args.split_whitespace()).args(["--server", &self.at]);
        command
    }

    fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that succeeds says, in 80 columns.
    #[track_caller]
    fn says(&self, args: &str) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(0), "{args}: {}", text(&out.stderr));
        let said = text(&out.stdout);
        for line in said.lines().filter(|_| !args.contains("--json")) {
            // A single word is never broken.
            let words = line.split_whitespace().count();
            assert!(line.chars().count() <= COLUMNS || words == 1, "{args}: {line}");
        }
        assert!(!said.contains('\x1b'), "{said:?}");
        said
    }

    #[track_caller]
    fn json(&self, args: &str) -> Value {
        serde_json::from_str(&self.says(&format!("{args} --json"))).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &str, words: &[&str]) {
        refused(&self.run(args), words);
    }

    /// On a terminal, where `typed` is typed; what is shown there.
    fn on_a_terminal(&self, args: &str, typed: &str) -> (Option<i32>, String) {
        let words = format!("{} {args} --server {}", env!("CARGO_BIN_EXE_pilotlight"), self.at);
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &words, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.code(), text(&out.stdout))
    }

    fn step(&self, last: u8, event: LifeEvent) {
        let stepped = self.ledger.step(mac(last), event, 1, Timestamp::now());
        self.runtime.block_on(stepped).unwrap();
    }

    fn begin(&self, last: u8) {
        let report = format!("report-{last}");
        self.step(
            last,
            LifeEvent::Begin(Box::new(Begin {
                profile: "debian".into(),
                boot: format!("boot-{last}"),
                report,
                address: None,
                facts: Facts::of(mac(last)),
                timeout: Duration::from_secs(3600),
                attempts: 1,
                restarted: true,
                chosen: false,
            })),
        );
    }

    fn reports(&self, last: u8, word: Word) {
        self.step(last, LifeEvent::Report { report: format!("report-{last}"), word });
    }

    fn state(&self, last: u8) -> Option<&'static str> {
        self.ledger.life(mac(last)).map(|l| l.state.word())
    }

    fn switched(&self) -> String {
        fs::read_to_string(self.dir.path().join("switched")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit code 1, and words on standard error alone.
#[track_caller]
fn refused(out: &Output, words: &[&str]) {
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}{}", text(&out.stdout));
    for word in words {
        assert!(said.contains(word), "{word:?} is missing in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A command that goes on, and its lines.
struct Goes {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Goes {
    fn on(mut command: Command) -> Goes {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, heard) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Goes { child, lines: heard }
    }

    /// The next line that has this in it.
    #[track_caller]
    fn says(&self, word: &str) -> String {
        let mut heard = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(20)) {
                Ok(line) if line.contains(word) => return line,
                Ok(line) => heard.push(line),
                Err(_) => panic!("{word:?} is not among {heard:?}"),
            }
        }
    }
}

impl Drop for Goes {
    fn drop(&mut self) {
        // It has ended, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_machine_through_its_life() {
    let server = Server::new();
    let new = "52:54:00:00:00:09";
    let order = "machine assign 5254.0000.0009 debian --name db1";
    server.refused(order, &[&format!("Assign debian to {new}? The disk is wiped"), "say --yes"]);
    assert_eq!(server.state(9), None);
    let said = server.says(&format!("{order} --yes"));
    assert_eq!(said, "db1 installs debian at its next boot from the network.\n");
    server.begin(9);
    let list = server.says("machine list --state installing");
    assert!(list.contains("db1") && list.contains("1 machine: 1 installing."), "{list}");
    server.refused("machine assign db1 fedora --yes", &["it is being installed", "reinstall"]);
    server.reports(9, Word::Done);
    let said = server.says("machine list");
    let row = said.lines().find(|l| l.trim_start().starts_with("db1")).unwrap();
    assert!(row.contains("installed") && row.contains("debian"), "{said}");
    assert!(said.contains("4 machines: 2 assigned, 1 installed, 1 seen."), "{said}");

    // Nobody is there to be asked, and nothing is done.
    server.refused("machine reinstall db1", &["Install db1 once more?", "say --yes"]);
    assert_eq!(server.state(9), Some("installed"));
    let said = server.says("machine reinstall db1 --profile fedora --yes");
    assert_eq!(said, "db1 installs fedora at its next boot from the network.\n");
    let said = server.says("machine local db1");
    assert_eq!(said, "db1 boots its own disk, network first or not.\n");
    let said = server.says("machine rescue db1");
    assert_eq!(said, "db1 runs memtest at each boot from the network.\n");
    assert_eq!(server.json("machine rescue db1 --profile memtest")[0]["state"], "rescue");
    assert_eq!(server.json("machine show db1")["life"]["profile"], "memtest");
    server.refused(&format!("machine delete {new}"), &["Forget all that is known of db1?"]);
    assert_eq!(server.says(&format!("machine delete {new} --yes")), "db1 is forgotten.\n");
    assert_eq!(server.state(9), None);
    // What is declared with a profile that installs is kept from that by what is stored alone.
    server.says("machine local web1");
    server
        .refused("machine delete web1 --yes", &["with profile debian", "out of the configuration"]);
    assert_eq!(server.state(1), Some("local"));
    let question = "Forget all that is known of web1? What the configuration declares is as new";
    server.refused("machine delete web1", &[question]);
    server.says("machine local web3");
    let said = server.says("machine delete web3 --yes");
    assert!(said.contains("the configuration declares it still"), "{said}");

    let next = "`pilotlight machine list` shows those that are";
    server.refused("machine show db1", &["no machine \"db1\"", next]);
    server.refused("diagnose nobody", &["no machine \"nobody\"", next]);
    server.refused("machine reinstall web1 nobody --yes", &["no machine \"nobody\""]);
    assert_eq!(
        server.state(1),
        Some("local"),
        "a name that is wrong changes nothing for the others"
    );
    let near = "no profile \"debain\": did you mean \"debian\"? it has debian, fedora, memtest";
    server.refused("machine assign web1 debain", &[near]);
    assert_eq!(server.run("machine show 52:54:00:zz").status.code(), Some(2));
    server.refused("diagnose no;such;machine", &["no machine \"no;such;machine\" is", next]);
    server.refused("machine reinstall web3 --yes", &["--profile names one"]);
    server.refused("machine local --state failed", &["no machine is failed"]);
}

#[test]
fn what_a_machine_told_of_itself_is_shown_and_moves_no_cursor() {
    let server = Server::new();
    let now = Timestamp::now();
    let facts = Facts {
        manufacturer: Some("Maker\x1b[2J".into()),
        product: Some("p".repeat(200)),
        arch: Some("uefi-x64"),
        memsize: Some(512),
        serial: Some("S 1".into()),
        ..Facts::of(mac(7))
    };
    server.ledger.learn(facts, now);
    server.ledger.record(mac(7), Event::new(Stage::Firmware, "DHCPDISCOVER", "from it"), now);
    let list = server.says("machine list maker");
    assert!(list.contains("52:54:00:00:00:07  seen") && list.contains("Maker?[2J"), "{list}");
    let one = server.says("machine show 52-54-00-00-00-07");
    for words in ["MAC        52:54:00:00:00:07", "memory     537 MB", "serial     S 1"] {
        assert!(one.contains(words), "{words}:\n{one}");
    }
    assert!(one.contains("firmware  DHCPDISCOVER from it"), "{one}");
    assert_eq!(server.says("machine list nothing-of-the-kind").lines().count(), 1);
    let some = server.json("machine list --state seen --limit 1");
    assert_eq!(some.as_array().unwrap().len(), 1);
}

#[test]
fn one_that_is_refused_holds_up_nobody() {
    let server = Server::new();
    for last in [1, 2] {
        server.begin(last);
        server.reports(last, Word::Failed("no disk".into()));
    }
    let list = server.says("machine list --state failed");
    assert!(list.contains("no disk (at script)"), "{list}");
    let out = server.run("machine reinstall web1 --profile fedora --yes");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let said = server.says("machine reinstall --state failed --yes");
    assert_eq!(said, "web2 installs debian at its next boot from the network.\n");

    let out = server.run("machine power off web1 web3 web2 --yes");
    refused(&out, &["web3: ", "/bin/false off ends with exit code 1", "2 of 3 machines"]);
    assert!(text(&out.stdout).starts_with("web1: ") && text(&out.stderr).contains("web2: "));
    assert_eq!(server.switched(), "off\n");
    let out = server.run("machine power on web1 web3 --json");
    assert_eq!(out.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(told[0]["said"].as_str().unwrap().ends_with("on: done"), "{told}");
    assert!(told[1]["error"].as_str().unwrap().contains("exit code 1"), "{told}");
}

#[test]
fn a_reinstallation_from_afar() {
    let server = Server::new();
    let said = server.says("machine reinstall web1 --now --yes");
    assert!(said.starts_with("web1 installs debian at its next boot"), "{said}");
    assert!(said.contains("hook pxe: done") && said.contains("hook cycle: done"), "{said}");
    assert_eq!(server.switched(), "pxe\ncycle\n");
    let said = server.says("machine reinstall web2 --now --yes");
    assert!(said.contains("a magic packet") && said.contains("by hand"), "{said}");
    let mut packet = [0; 200];
    let (n, _) = server.ear.recv_from(&mut packet).unwrap();
    assert_eq!((n, &packet[6..12]), (102, &mac(2).0[..]));
    server.refused(
        "machine reinstall web3 --profile debian --now --yes",
        &["web3 is armed, and was not restarted", "/bin/false pxe"],
    );
    assert_eq!(server.state(3), Some("assigned"));
    server.refused("machine power cycle web1", &["Restart web1, whatever runs there?", "--yes"]);
    assert_eq!(server.says("machine power pxe web1").lines().count(), 1);
}

#[test]
fn a_terminal_is_asked() {
    let server = Server::new();
    let (code, said) = server.on_a_terminal("machine reinstall web1", "n\n");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("The disk is wiped at the next boot from the"), "{said}");
    assert!(said.contains("[y/N]") && said.contains("nothing was done"), "{said}");
    assert_eq!(server.state(1), None);
    let (code, said) = server.on_a_terminal("machine reinstall web1", "y\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("web1 installs debian"), "{said}");
    assert_eq!(server.state(1), Some("assigned"));
}

#[test]
fn events_are_told_as_they_happen() {
    let server = Server::new();
    let all = Goes::on(server.command("events"));
    let objects = Goes::on(server.command("events --json"));
    let one = Goes::on(server.command("events --json --machine web2"));
    // Each says hello when it listens.
    objects.says("hello");
    one.says("hello");
    // The plain one has no such word: until it listens there is something to be heard again.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let heard = loop {
        let event = Event::new(Stage::Kernel, "GET", "/linux\x1b[2J");
        server.ledger.record(mac(1), event, Timestamp::now());
        match all.lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => break line,
            Err(_) => assert!(std::time::Instant::now() < deadline),
        }
    };
    assert!(heard.ends_with("52:54:00:00:00:01  kernel GET /linux?[2J"), "{heard:?}");
    server.step(2, LifeEvent::Local);
    assert!(all.says("web2").ends_with("52:54:00:00:00:02  web2: local, was unknown"));
    let object: Value = serde_json::from_str(&objects.says("\"life\"")).unwrap();
    assert_eq!((&object["event"], &object["after"]), (&json!("life"), &json!("local")));
    let object: Value = serde_json::from_str(&one.lines.recv().unwrap()).unwrap();
    assert_eq!((&object["event"], &object["name"]), (&json!("life"), &json!("web2")));
    server.refused("events --machine nobody", &["no machine \"nobody\""]);
}

#[test]
fn a_status_and_what_is_on_its_way() {
    let server = Server::new();
    server.ledger.alarm("rival", "10.0.0.2", "another\x1b DHCP server".into(), Timestamp::now());
    let said = server.says("status");
    assert!(said.contains("machines    2 assigned, 1 seen\n"), "{said}");
    assert!(said.contains("Look: another? DHCP server (1 time"), "{said}");
    assert_eq!(server.json("status")["status"]["machines"]["assigned"], 2);

    let watch = Goes::on(server.command("status --watch"));
    let listed = Goes::on(server.command("machine list web1 --watch"));
    assert_eq!(watch.says("assigned"), "2 assigned, 1 seen; 1 alarm");
    listed.says("web1  assigned debian");
    server.ledger.record(mac(1), Event::new(Stage::Script, "GET", "/"), Timestamp::now());
    server.begin(1);
    assert_eq!(watch.says("web1  installing"), "web1  installing debian, script");
    server.reports(1, Word::Done);
    assert_eq!(listed.says("web1  installed"), "web1  installed debian");

    // On a terminal it is drawn, and ends by Ctrl-C.
    let words = format!(
        "timeout -s INT 4 {} machine list --watch --server {}",
        env!("CARGO_BIN_EXE_pilotlight"),
        server.at
    );
    let out = Command::new("script")
        .args(["--quiet", "--command", &words, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = text(&out.stdout);
    assert!(shown.contains("web1") && shown.contains("Ctrl-C ends this."), "{shown:?}");
}

#[test]
fn beyond_loopback_there_is_a_certificate_and_a_token() {
    let server = Server::open(true);
    let token = server.token.clone().unwrap();
    let at = format!("https://{}", server.at);
    let mut stranger = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    stranger.args(["status", "--server", &at]).env_remove("PILOTLIGHT_CA");
    refused(&stranger.output().unwrap(), &["is not to be trusted", "--ca FILE", "/ca.pem"]);
    let secure = |args: &str, token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
        command.current_dir(server.dir.path()).stdin(Stdio::null());
        command.args(args.split_whitespace()).args(["--server", &at]);
        command.env("PILOTLIGHT_CA", "ca.pem").env_remove("PILOTLIGHT_TOKEN");
        command.envs(token.map(|t| ("PILOTLIGHT_TOKEN", t)));
        command.output().unwrap()
    };
    refused(&secure("status", None), &["wants a credential", "--token-file", "`pilotlight token"]);
    refused(&secure("status", Some("guessed")), &["token"]);
    assert_eq!(secure("status", Some(&token)).status.code(), Some(0));

    let out = secure("token make grafana", Some(&token));
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout).lines().count(), 1);
    fs::write(server.dir.path().join("token"), &out.stdout).unwrap();
    let out = secure("machine list --token-file token --ca ca.pem", None);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    refused(&secure("token make grafana", Some(&token)), &["grafana"]);
    let said = text(&secure("token list", Some(&token)).stdout);
    assert!(said.lines().any(|l| l.trim_start().starts_with("grafana")), "{said}");
    let said = text(&secure("token revoke grafana", Some(&token)).stdout);
    assert_eq!(said, "grafana counts no more.\n");
    refused(&secure("status --token-file token", None), &["token"]);
    let next = "`pilotlight token list` shows those there are";
    refused(&secure("token revoke grafana", Some(&token)), &["grafana", next]);
    refused(&secure("status --token-file nowhere", None), &["nowhere", "No such file"]);
    // An address of loopback is asked by HTTP, unless it says otherwise.
    server.refused("status", &["speaks no HTTP", "write --server https://"]);
}

#[test]
fn a_token_never_travels_in_the_open() {
    let server = Server::new();
    let out = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .args(["status", "--server", "http://192.0.2.1:8067"])
        .env("PILOTLIGHT_TOKEN", "hunter2")
        .output()
        .unwrap();
    refused(&out, &["by https:// only"]);
    assert!(!text(&out.stderr).contains("hunter2"));
    assert_eq!(server.says("token list"), "No tokens. `pilotlight token make NAME` makes one.\n");
}
