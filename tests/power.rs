//! Machines are switched: a magic packet to a real receiver, Redfish to sushy-tools' emulator and to
//! a BMC of our own that is as strict as some are, and a real program.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotlight::model::{Hidden, Mac, Power, Secret, Why};
use pilotlight::power::{Action, Said, Target, Trouble, Way, act};
use serde_json::{Value, json};
use tempfile::TempDir;

const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn reveal(secret: &Secret) -> Result<Hidden, String> {
    match secret {
        Secret::Literal(hidden) => Ok(hidden.clone()),
        other => Err(format!("{other:?} is not here")),
    }
}

fn run(power: &Power, action: Action, ways: &[Way]) -> Result<Said, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(act(Target { mac: MAC, name: "web1", power }, action, ways, reveal))
}

fn redfish(url: String, password: Option<&str>, insecure: bool) -> Power {
    Power::Redfish {
        url,
        user: password.map(|_| "admin".into()),
        password: password.map(|p| Secret::Literal(Hidden::new(p))),
        insecure,
    }
}

#[test]
fn a_magic_packet_arrives() {
    let receiver = UdpSocket::bind("127.255.255.255:0").unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let SocketAddr::V4(to) = receiver.local_addr().unwrap() else { panic!() };
    let way = |interface: &str, from, to| Way { interface: interface.into(), from, to };
    let lost = way("gone0", Ipv4Addr::new(192, 0, 2, 1), to);
    let ways = [lost.clone(), way("lo", Ipv4Addr::LOCALHOST, to)];
    let said = run(&Power::WakeOnLan, Action::On, &ways).unwrap();
    assert_eq!(said, Said::Woken("lo".into()), "the one that cannot be reached holds nobody up");
    let mut packet = [0; 200];
    let (n, from) = receiver.recv_from(&mut packet).unwrap();
    assert_eq!(n, 102);
    assert_eq!(packet[..6], [0xff; 6]);
    assert!(packet[6..n].chunks(6).all(|c| c == MAC.0));
    assert_eq!(from.ip(), Ipv4Addr::LOCALHOST);

    let told = |ways: &[Way], action| run(&Power::WakeOnLan, action, ways).unwrap_err();
    assert!(told(&[lost], Action::On).to_string().contains("leaves on gone0"));
    assert_eq!(told(&[], Action::On).name(), "power-not-sent");
    for action in [Action::Off, Action::Cycle, Action::Pxe] {
        let why = told(&ways, action);
        assert_eq!(why.name(), "power-only-wakes");
        assert!(why.to_string().contains("redfish = "), "{why}");
    }
}

#[test]
fn packets_go_to_each_network() {
    let interface = |name: &str, addresses: &[&str]| pilotlight::model::Interface {
        name: name.into(),
        index: 1,
        mac: None,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        link_local: None,
    };
    let all = [
        interface("eth1", &["10.0.0.1/24", "10.1.0.1/16"]),
        interface("eth2", &["192.0.2.1/31", "192.0.2.9/32"]),
    ];
    let to: Vec<SocketAddrV4> = pilotlight::power::ways(&all).iter().map(|w| w.to).collect();
    assert_eq!(to, ["10.0.0.255:9".parse().unwrap(), "10.1.255.255:9".parse().unwrap()]);
}

// --- a program of the user's ---------------------------------------------------------------------

fn script(dir: &TempDir, text: &str) -> Power {
    let path = dir.path().join("hook");
    fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Power::Command(vec![path.to_str().unwrap().into(), "a b;c".into()])
}

#[test]
fn a_command_is_run_as_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let power = script(
        &dir,
        &format!(
            "printf '%s|' \"$@\" $PILOTLIGHT_MAC $PILOTLIGHT_NAME $PILOTLIGHT_ACTION >{}\n",
            out.display()
        ),
    );
    let said = run(&power, Action::Cycle, &[]).unwrap();
    assert!(said.to_string().ends_with("hook cycle: done"), "{said}");
    let heard = fs::read_to_string(&out).unwrap();
    assert_eq!(heard, "a b;c|cycle|52:54:00:12:34:56|web1|cycle|");
}

#[test]
fn a_command_that_fails_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let fail = |text: &str| run(&script(&dir, text), Action::Off, &[]).unwrap_err();
    let why = fail("echo one; printf 'no such \\033[2Jport\\n' >&2; exit 3");
    assert_eq!(why.name(), "power-command");
    let said = why.to_string();
    assert!(said.ends_with("hook off ends with exit code 3: one?no such ?[2Jport"), "{said}");
    assert!(fail("exit 1").to_string().ends_with("exit code 1, and says nothing"));
    assert!(fail("kill -9 $$").to_string().contains("signal 9"));
    // What never ends to speak is not kept, and does not hold the program up.
    let much = fail("head -c 3000000 /dev/zero | tr '\\0' x; exit 1").to_string();
    assert!(much.len() < 2500 && much.contains("xxx"), "{}", much.len());
    // What it leaves running holds the pipe, and nobody up.
    let began = Instant::now();
    let left = dir.path().join("left");
    let text = format!("sleep 300 & echo $! >{}; echo started; exit 4", left.display());
    assert!(fail(&text).to_string().contains("exit code 4: started"));
    assert!(began.elapsed() < Duration::from_secs(50));
    let pid = fs::read_to_string(&left).unwrap();
    assert!(Command::new("sh").args(["-c", &format!("kill {pid}")]).status().unwrap().success());
    let nowhere = Power::Command(vec!["/nowhere/to/be/seen".into()]);
    let why = run(&nowhere, Action::On, &[]).unwrap_err();
    assert!(why.to_string().starts_with("/nowhere/to/be/seen cannot be run: No such"), "{why}");
}

// --- a BMC of our own ----------------------------------------------------------------------------

/// What was asked: the line, the headers in lower case, the body.
#[derive(Clone, Debug)]
struct Asked {
    line: String,
    head: String,
    body: Value,
}

type Answer = (&'static str, &'static str, Value);

struct Fake {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// Answers in turn, each with a status line's end and further headers, and a body.
fn fake(answers: impl IntoIterator<Item = Answer>) -> Fake {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (kept, mut answers): (_, VecDeque<Answer>) = (asked.clone(), answers.into_iter().collect());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let head = head.to_lowercase();
            let length = head
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let line = head.split(" http/1.1").next().unwrap().to_string();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            kept.lock().unwrap().push(Asked { line, head, body });
            let Some((status, headers, body)) = answers.pop_front() else { return };
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let head = format!(
                "HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    Fake { at, asked }
}

impl Fake {
    fn url(&self) -> String {
        format!("http://{}/redfish/v1/Systems/1", self.at)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|a| a.line).collect()
    }
}

fn system(more: Value) -> Value {
    let mut system = json!({
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "PowerState": "On",
        "Actions": { "#ComputerSystem.Reset": { "target": "/redfish/v1/Systems/1/reset" } },
    });
    for (key, value) in more.as_object().unwrap() {
        system[key] = value.clone();
    }
    system
}

const OK: &str = "200 OK";
const NONE: &str = "204 No Content";

#[test]
fn a_change_comes_with_the_etag_and_is_tried_twice() {
    let bmc = fake([
        (OK, "etag: \"1\"\r\n", system(json!({}))),
        ("412 Precondition Failed", "", json!({})),
        (OK, "", system(json!({ "@odata.etag": "W/\"2\"" }))),
        (NONE, "", Value::Null),
    ]);
    let power = redfish(bmc.url(), Some("x"), false);
    assert_eq!(run(&power, Action::Pxe, &[]).unwrap(), Said::Network("Pxe"));
    let asked = bmc.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[1].head.contains("if-match: \"1\"\r\n"), "{}", asked[1].head);
    assert!(asked[3].head.contains("if-match: w/\"2\"\r\n"), "{}", asked[3].head);
    let once = json!({ "Boot": {
        "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe" } });
    assert_eq!((&asked[1].body, &asked[3].body), (&once, &once));
    // "admin:x", by RFC 7617.
    assert!(asked.iter().all(|a| a.head.contains("authorization: basic ywrtaw46ea==")));
}

#[test]
fn a_session_is_begun_where_basic_is_off_and_ended() {
    let info = "/redfish/v1/Systems/1/ResetActionInfo";
    let reset = json!({ "target": "/redfish/v1/Systems/1/reset", "@Redfish.ActionInfo": info });
    let bmc = fake([
        ("401 Unauthorized", "", json!({})),
        (
            "201 Created",
            "x-auth-token: t0ken\r\nlocation: /redfish/v1/SessionService/Sessions/7\r\n",
            json!({}),
        ),
        (OK, "", system(json!({ "Actions": { "#ComputerSystem.Reset": reset } }))),
        (
            OK,
            "",
            json!({ "Parameters": [{ "Name": "ResetType", "AllowableValues": ["PowerCycle"] }] }),
        ),
        ("202 Accepted", "", json!({ "@odata.type": "#Task.v1_0_0.Task" })),
        (NONE, "", Value::Null),
    ]);
    let power = redfish(bmc.url(), Some("x"), false);
    assert_eq!(run(&power, Action::Cycle, &[]).unwrap(), Said::Ordered("PowerCycle"));
    assert_eq!(
        bmc.lines(),
        [
            "get /redfish/v1/systems/1",
            "post /redfish/v1/sessionservice/sessions",
            "get /redfish/v1/systems/1",
            "get /redfish/v1/systems/1/resetactioninfo",
            "post /redfish/v1/systems/1/reset",
            "delete /redfish/v1/sessionservice/sessions/7",
        ]
    );
    let asked = bmc.asked();
    assert_eq!(asked[1].body, json!({ "UserName": "admin", "Password": "x" }));
    for one in &asked[2..] {
        assert!(one.head.contains("x-auth-token: t0ken\r\n"), "{}", one.head);
        assert!(!one.head.contains("authorization"), "{}", one.head);
    }
    assert_eq!(asked[4].body, json!({ "ResetType": "PowerCycle" }));
}

#[test]
fn what_a_bmc_refuses_is_told_and_shows_no_password() {
    let basic = "www-authenticate: Basic realm=\"x\"\r\n";
    let elsewhere = json!({ "#ComputerSystem.Reset": { "target": "http://192.0.2.1/reset" } });
    let refused = json!({ "error": { "message": "locked by\u{7} another" } });
    let cases: Vec<(Vec<Answer>, &str, &str, usize)> = vec![
        (
            vec![("401 X", basic, json!({}))],
            "power-password",
            "127.0.0.1 does not take the user",
            1,
        ),
        (
            vec![("401 X", "", json!({})), ("401 X", "", json!({}))],
            "power-password",
            "does not take the user and the password",
            2,
        ),
        (vec![("403 X", "", json!({}))], "power-rights", "may not do that", 1),
        (
            vec![
                ("404 X", "", json!({})),
                (OK, "", json!({ "Members": [{ "@odata.id": "/redfish/v1/Systems/Self" }] })),
            ],
            "power-no-system",
            "has no system /redfish/v1/Systems/1; it has /redfish/v1/Systems/Self",
            2,
        ),
        (vec![(OK, "", json!({ "hello": 1 }))], "power-no-redfish", "no Redfish", 1),
        (
            vec![(OK, "", system(json!({ "Actions": elsewhere })))],
            "power-no-redfish",
            "another host",
            1,
        ),
        (
            vec![(OK, "", system(json!({}))), ("409 X", "", refused)],
            "power-refused",
            "refuses ForceOff: 409 locked by? another",
            2,
        ),
        (
            vec![("302 X", "location: http://192.0.2.1/\r\n", json!({}))],
            "power-refused",
            "refuses a look at it: 302",
            1,
        ),
        (vec![], "power-unreachable", "does not answer", 1),
    ];
    for (answers, name, words, asked) in cases {
        let bmc = fake(answers);
        let why = run(&redfish(bmc.url(), Some("hunter2"), false), Action::Off, &[]).unwrap_err();
        assert_eq!(why.name(), name, "{why}");
        assert!(why.to_string().contains(words), "{words:?} is missing in: {why}");
        assert!(!format!("{why} {why:?}").contains("hunter2"));
        assert_eq!(bmc.asked().len(), asked, "{why}");
    }
    let bmc = fake([("401 X", basic, json!({}))]);
    let why = run(&redfish(bmc.url(), None, false), Action::On, &[]).unwrap_err();
    assert!(why.to_string().contains("wants a user and a password"), "{why}");
    for wrong in ["bmc.example", "ftp://bmc.example/1", ""] {
        let why = run(&redfish(wrong.into(), None, false), Action::On, &[]).unwrap_err();
        assert_eq!(why.name(), "power-url");
    }
    // Free just now, and nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = run(&redfish(format!("http://{free}/1"), None, false), Action::On, &[]).unwrap_err();
    assert!(why.to_string().contains("refused"), "{why}");
}

// --- sushy-tools ---------------------------------------------------------------------------------

const SYSTEMS: [&str; 4] = [
    "11111111-1111-4111-8111-111111111111",
    "22222222-2222-4222-8222-222222222222",
    "33333333-3333-4333-8333-333333333333",
    "44444444-4444-4444-8444-444444444444",
];
/// "open sesame", by bcrypt.
const LOGIN: &str = "admin:$2b$04$CYtePsTTUrZha0xpRiwwUuEP0jYSNwF2VRGKiBxUZc.suw744CuVC";

struct Sushy {
    child: Child,
    base: String,
    _dir: TempDir,
}

impl Drop for Sushy {
    fn drop(&mut self) {
        // It has ended, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn emulator(test: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = root.join(".cache/venv/bin/sushy-emulator");
    if found.exists() {
        return Some(found);
    }
    let all = ["CI", "PILOTLIGHT_TESTS_ALL"].iter().any(|v| std::env::var_os(v).is_some());
    assert!(!all, "nothing may be left out: scripts/deps test brings sushy-emulator");
    // Past the capture of the test harness: what was left out must be seen.
    let _ = writeln!(std::io::stderr(), "left out: {test}: no sushy-emulator");
    None
}

/// With four machines: off, on, on, off. With TLS if asked for, by a certificate nobody knows.
fn sushy(test: &str, tls: bool) -> Option<Sushy> {
    let program = emulator(test)?;
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let machines: Vec<Value> = SYSTEMS
        .iter()
        .zip(["Off", "On", "On", "Off"])
        .map(|(uuid, power)| {
            json!({ "uuid": uuid, "name": uuid, "power_state": power,
            "nics": [{ "mac": MAC, "ip": "192.0.2.1" }] })
        })
        .collect();
    let mut config = format!(
        "SUSHY_EMULATOR_FAKE_SYSTEMS = {}\nSUSHY_EMULATOR_STATE_DIR = {:?}\n\
         SUSHY_EMULATOR_AUTH_FILE = {:?}\nSUSHY_EMULATOR_LISTEN_PORT = 0\n\
         SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n",
        json!(machines),
        dir.path(),
        put("users", LOGIN),
    );
    if tls {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(["127.0.0.1".to_string()]).unwrap();
        let made = made.self_signed(&key).unwrap();
        config += &format!(
            "SUSHY_EMULATOR_SSL_CERT = {:?}\nSUSHY_EMULATOR_SSL_KEY = {:?}\n",
            put("cert.pem", &made.pem()),
            put("key.pem", &key.serialize_pem())
        );
    }
    let mut child = Command::new(program)
        .args(["--fake", "--config", &put("sushy.conf", &config)])
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut heard = Vec::new();
    let base = loop {
        let line = lines.next().unwrap_or_else(|| panic!("{heard:?}")).unwrap();
        if let Some((_, base)) = line.split_once("Running on ") {
            break base.trim().to_string();
        }
        heard.push(line);
    };
    // What it writes is read on, so that it never waits.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some(Sushy { child, base, _dir: dir })
}

impl Sushy {
    fn power(&self, which: usize) -> Power {
        redfish(self.url(which), Some("open sesame"), false)
    }

    fn url(&self, which: usize) -> String {
        format!("{}/redfish/v1/Systems/{}", self.base, SYSTEMS[which])
    }

    fn system(&self, which: usize) -> Value {
        let out = Command::new("curl")
            .args(["-sS", "--max-time", "20", "-u", "admin:open sesame", &self.url(which)])
            .output()
            .unwrap();
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

#[test]
fn an_emulated_hall_is_switched() {
    let Some(sushy) = sushy("an_emulated_hall_is_switched", false) else { return };
    let act = |which: usize, action| run(&sushy.power(which), action, &[]);
    assert_eq!(act(0, Action::Off).unwrap(), Said::Off);
    assert_eq!(act(1, Action::On).unwrap(), Said::On);
    assert_eq!(act(3, Action::Pxe).unwrap(), Said::Network("Pxe"));
    assert_eq!(sushy.system(3)["Boot"]["BootSourceOverrideTarget"], "Pxe");
    assert_eq!(act(3, Action::Cycle).unwrap(), Said::Ordered("On"), "it was off");
    assert_eq!(act(0, Action::On).unwrap(), Said::Ordered("On"));
    assert_eq!(act(1, Action::Off).unwrap(), Said::Ordered("ForceOff"));
    assert_eq!(act(2, Action::Cycle).unwrap(), Said::Ordered("ForceRestart"));
    // It takes up to 11 s over each, as hardware does.
    let want = ["On", "Off", "On", "On"];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let states: Vec<Value> =
            (0..4).map(|which| sushy.system(which)["PowerState"].clone()).collect();
        if states == want {
            break;
        }
        assert!(Instant::now() < deadline, "{states:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_emulated_bmc_says_no() {
    let Some(sushy) = sushy("an_emulated_bmc_says_no", false) else { return };
    let wrong = run(&redfish(sushy.url(0), Some("guess"), false), Action::On, &[]).unwrap_err();
    assert_eq!(wrong.name(), "power-password", "{wrong}");
    let none = run(&redfish(sushy.url(0), None, false), Action::On, &[]).unwrap_err();
    assert_eq!(none.name(), "power-password", "{none}");
    let url = format!("{}/redfish/v1/Systems/1", sushy.base);
    let gone = run(&redfish(url, Some("open sesame"), false), Action::On, &[]).unwrap_err();
    assert_eq!(gone.name(), "power-no-system", "{gone}");
    assert!(gone.to_string().contains(SYSTEMS[0]), "{gone}");
}

#[test]
fn an_emulated_bmc_with_a_certificate_of_its_own() {
    let Some(sushy) = sushy("an_emulated_bmc_with_a_certificate_of_its_own", true) else {
        return;
    };
    let at = |insecure| redfish(sushy.url(0), Some("open sesame"), insecure);
    let why = run(&at(false), Action::Off, &[]).unwrap_err();
    assert_eq!(why.name(), "power-certificate", "{why}");
    assert!(why.to_string().contains("insecure = true"), "{why}");
    assert_eq!(run(&at(true), Action::Off, &[]).unwrap(), Said::Off);
}
