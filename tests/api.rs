//! The admin door over loopback with the real curl: what it tells, what it changes, whom it lets in.

#[path = "common/left_out.rs"]
mod left_out;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use pilotlight::config::Config;
use pilotlight::http::{Door, Running, Web, start};
use pilotlight::ledger::{Boot, Ledger};
use pilotlight::model::lifecycle::{Begin, Word};
use pilotlight::model::profile::{self, Kind, Source};
use pilotlight::model::{Event, Facts, LifeEvent, Mac, Machine, Match, Profile, Stage, Transfer};
use pilotlight::power::{self, Trouble};
use pilotlight::store::{self, Memory, Record, Store};
use pilotlight::tls::Tls;
use serde_json::{Value, json};
use tempfile::TempDir;

use left_out::left_out;

/// A store that can be told to take nothing.
#[derive(Default)]
struct Moody {
    memory: Memory,
    full: AtomicBool,
}

impl Store for Moody {
    fn get(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, store::Error> {
        self.memory.get(table, key)
    }

    fn list(&self, table: &'static str) -> Result<Vec<Record>, store::Error> {
        self.memory.list(table)
    }

    fn commit(&self, writes: &[store::Write]) -> Result<(), store::Error> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(store::Error::Engine { path: "db".into(), why: "disk full".into() }),
            false => self.memory.commit(writes),
        }
    }
}

struct Server {
    dir: TempDir,
    boot: String,
    admin: String,
    ledger: Arc<Ledger>,
    store: Arc<Moody>,
    /// Beyond loopback, as it were: the first token.
    token: Option<String>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

fn profile(name: &str, kind: Kind) -> Profile {
    Profile {
        name: name.into(),
        title: format!("The {name}"),
        menu: false,
        boot: profile::Boot::linux(
            Source::Url("http://127.0.0.1:1/linux".into()),
            Vec::new(),
            "planted=SECRET-IN-ARGS",
        ),
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

fn machine(name: &str, last: u8, profile: Option<&str>) -> Machine {
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
        power: Default::default(),
    }
}

impl Server {
    fn new() -> Server {
        Server::open(false, |_| ())
    }

    fn secure() -> Server {
        Server::open(true, |_| ())
    }

    fn open(secure: bool, with: impl FnOnce(&mut Web)) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config {
            profiles: vec![
                profile("debian", Kind::Install),
                profile("fedora", Kind::Install),
                profile("memtest", Kind::Live),
            ],
            machines: vec![machine("web1", 1, Some("debian")), machine("web2", 2, None)].into(),
            ..Config::default()
        };
        config.dhcp.mode = pilotlight::config::Mode::Off;
        config.life.rescue = Some("memtest".into());
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (boot, admin) = (bind(), bind());
        let port = |l: &TcpListener| l.local_addr().unwrap().port();
        let door = Door { http_port: port(&boot), https_port: 1, tls: false };
        let (boot_url, admin_port) = (format!("http://127.0.0.1:{}", port(&boot)), port(&admin));
        let store = Arc::new(Moody::default());
        let ledger = Arc::new(Ledger::open(store.clone()).unwrap());
        let leases = json!([{ "address": "10.0.0.5", "mac": mac(1), "state": "bound",
            "starts": "2026-01-01T00:00:00Z", "ends": "2026-01-01T01:00:00Z", "hostname": null }]);
        let tls = Tls::open(
            &config.tls,
            dir.path(),
            &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
            SystemTime::now(),
        )
        .unwrap();
        fs::write(dir.path().join("ca.pem"), tls.root_pem().unwrap()).unwrap();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let mut web =
            Web::new(config, ledger.clone(), door, None, Box::new(move || leases.clone()));
        web.auth = pilotlight::http::auth::Auth::open(store.clone()).unwrap();
        let mut token = None;
        if secure {
            web.admin_tls = Some(tls.server_config());
            let made = web.auth.first(Timestamp::now()).unwrap();
            token = made.map(|t| t.reveal().to_string());
        }
        with(&mut web);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running =
            runtime.block_on(async { start(web, vec![(boot, None)], Some(admin)).unwrap() });
        let scheme = if secure { "https" } else { "http" };
        let admin = format!("{scheme}://127.0.0.1:{admin_port}");
        Server { dir, boot: boot_url, admin, ledger, store, token, running: Some(running), runtime }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn curl(&self, path: &str, args: &[&str]) -> Said {
        curl(&self.ca(), &format!("{}{path}", self.admin), args)
    }

    /// As a program with the token does.
    fn with_token(&self, path: &str, args: &[&str]) -> Said {
        let header = format!("authorization: Bearer {}", self.token.as_ref().unwrap());
        self.curl(path, &[&["-H", &header], args].concat())
    }

    fn get(&self, path: &str) -> Value {
        let said = self.curl(path, &[]);
        assert_eq!(said.status, 200, "{path}: {said:?}");
        serde_json::from_str(&said.body).unwrap()
    }

    fn post(&self, path: &str, body: &str) -> Said {
        self.curl(
            path,
            &["-H", "pilotlight: 1", "-H", "content-type: application/json", "-d", body],
        )
    }

    fn refused(&self, said: &Said, status: u16, name: &str) {
        assert_eq!((said.status, said.error().0.as_str()), (status, name), "{said:?}");
    }

    fn step(&self, last: u8, event: LifeEvent) {
        let stepped = self.ledger.step(mac(last), event, 3, Timestamp::now());
        self.runtime.block_on(stepped).unwrap();
    }

    fn begin(&self, last: u8, report: &str) {
        self.step(last, LifeEvent::Begin(Box::new(begin(last, report))));
    }
}

fn begin(last: u8, report: &str) -> Begin {
    Begin {
        profile: "debian".into(),
        boot: format!("digest-of-the-token-{report}"),
        report: format!("digest-of-the-report-{report}"),
        address: Some([10, 0, 0, last].into()),
        facts: Facts { uuid: Some("u-1".into()), ..Facts::of(mac(last)) },
        timeout: Duration::from_secs(3600),
        attempts: 3,
        restarted: true,
        chosen: false,
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|l| l.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    fn error(&self) -> (String, String) {
        let of = |key| self.json()["error"][key].as_str().unwrap().to_string();
        (of("name"), of("message"))
    }
}

fn curl(ca: &Path, url: &str, args: &[&str]) -> Said {
    let out = Command::new("curl")
        .args(["-sS", "-i", "--path-as-is", "--noproxy", "*", "--max-time", "20", "--globoff"])
        .arg("--cacert")
        .arg(ca)
        .args(args)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| {
        panic!("curl {url}: {}", String::from_utf8_lossy(&out.stderr));
    });
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Said { status, head: head.into(), body: body.into() }
}

#[test]
fn machines_are_listed_and_shown() {
    let server = Server::new();
    let now = Timestamp::now();
    let facts = Facts {
        serial: Some("<script>S7".into()),
        ip: Some([10, 0, 0, 7].into()),
        ..Facts::of(mac(7))
    };
    server.ledger.learn(facts, now);
    let sent = Transfer { name: "k".into(), sent: 10, total: 20, millis: 3 };
    server.ledger.record(mac(7), Event::new(Stage::Kernel, "cut", "k").with(sent), now);
    server.begin(1, "r1");

    let all = server.get("/api/v1/machines");
    let macs: Vec<&str> =
        all.as_array().unwrap().iter().map(|m| m["mac"].as_str().unwrap()).collect();
    assert_eq!(macs, [mac(1).to_string(), mac(2).to_string(), mac(7).to_string()]);
    for (query, want) in [
        ("state=installing", 1),
        ("state=seen", 2),
        ("profile=debian", 1),
        ("q=S7", 1),
        ("q=10.0.0.7", 1),
        ("q=WEB", 2),
        ("q=web&state=installing", 1),
        ("q=nothing", 0),
        ("limit=2", 2),
    ] {
        let found = server.get(&format!("/api/v1/machines?{query}"));
        assert_eq!(found.as_array().unwrap().len(), want, "{query}: {found}");
    }
    assert_eq!(server.curl("/api/v1/machines?limit=1", &[]).header("pilotlight-total"), Some("3"));
    for odd in ["sate=x", "limit=-1", "limit=x", "q=a&q=b"] {
        server.refused(&server.curl(&format!("/api/v1/machines?{odd}"), &[]), 400, "query");
    }

    let one = server.get("/api/v1/machines/web1");
    assert_eq!(one, server.get("/api/v1/machines/52-54-00-00-00-01"), "by any notation of its MAC");
    assert_eq!((&one["state"], &one["attempt"]), (&json!("installing"), &json!(1)));
    assert_eq!(one["life"]["attempt"]["address"], "10.0.0.1");
    let seven = server.get(&format!("/api/v1/machines/{}", mac(7)));
    assert_eq!(seven["facts"]["serial"], "<script>S7");
    assert_eq!(seven["timeline"][0]["transfer"]["sent"], 10);
    // What tokens are known by is nobody's.
    for path in ["/api/v1/machines", "/api/v1/machines/web1", "/api/v1/machines/web1/boots"] {
        assert!(!server.get(path).to_string().contains("digest-of"), "{path}");
    }
    let boots = server.get(&format!("/api/v1/machines/{}/boots", mac(7)));
    assert_eq!(boots[0]["timeline"], seven["timeline"], "{boots}");
    let script = |who: &str| server.get(&format!("/api/v1/machines/{who}/script"));
    assert!(script("web1")["script"].as_str().unwrap().starts_with("#!ipxe"));
    // By its life, and not by what it is declared with alone.
    assert_eq!(script("web1")["profile"], "debian");
    server.step(1, LifeEvent::Local);
    assert_eq!(script("web1")["profile"], Value::Null);
    for path in ["", "/boots", "/script"] {
        for who in ["nobody", "52:54:00:00:00:99", "%3Cscript%3E", "..", "%00"] {
            let said = server.curl(&format!("/api/v1/machines/{who}{path}"), &[]);
            server.refused(&said, 404, "no-machine");
        }
    }
    assert_eq!(
        server.curl("/api/v1/machines/web1", &["-X", "PUT", "-H", "pilotlight: 1"]).error().0,
        "method"
    );
    server.refused(&server.curl("/api/v1/nothing", &[]), 404, "no-such-page");
}

#[test]
fn a_life_by_the_api() {
    let server = Server::new();
    // One that was never seen, by its MAC.
    let at = format!("/api/v1/machines/{}", mac(9));
    let done = server.post(&format!("{at}/assign"), r#"{"profile":"fedora","name":"db9"}"#).json();
    assert_eq!(
        (&done["name"], &done["state"], &done["profile"]),
        (&json!("db9"), &json!("assigned"), &json!("fedora"))
    );
    assert_eq!(done["next"], "db9 installs fedora at its next boot from the network");
    assert_eq!(server.get("/api/v1/machines/db9")["life"]["name"], "db9");
    // Installed: only reinstall leads from there to another installation.
    server.begin(9, "r");
    let done = || LifeEvent::Report { report: "digest-of-the-report-r".into(), word: Word::Done };
    server.refused(
        &server.post(&format!("{at}/assign"), r#"{"profile":"fedora"}"#),
        409,
        "installing-already",
    );
    server.step(9, done());
    server.refused(
        &server.post(&format!("{at}/assign"), r#"{"profile":"fedora"}"#),
        409,
        "installed-already",
    );
    let armed = server.post("/api/v1/machines/db9/reinstall", "").json();
    assert_eq!((&armed["state"], &armed["profile"]), (&json!("assigned"), &json!("debian")));
    let other = server.post("/api/v1/machines/db9/reinstall", r#"{"profile":"fedora"}"#).json();
    assert_eq!(other["profile"], "fedora");
    assert_eq!(server.post("/api/v1/machines/db9/local", "{}").json()["state"], "local");
    let rescued = server.post("/api/v1/machines/db9/rescue", "").json();
    assert_eq!((&rescued["state"], &rescued["profile"]), (&json!("rescue"), &json!("memtest")));
    let gone = server.curl(&at, &["-X", "DELETE", "-H", "pilotlight: 1"]);
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    server.refused(&server.curl(&at, &["-X", "DELETE", "-H", "pilotlight: 1"]), 404, "no-machine");
    let declared = server.curl("/api/v1/machines/web1", &["-X", "DELETE", "-H", "pilotlight: 1"]);
    server.refused(&declared, 409, "unknown-machine");

    // What is wrong is told with what and where, and changes nothing.
    let before = server.get("/api/v1/machines");
    for (path, body, status, name, says) in [
        ("web1/assign", "{", 400, "body-syntax", "column"),
        ("web1/assign", "", 422, "body-content", "missing field `profile`"),
        ("web1/assign", r#"{"profile":1}"#, 422, "body-content", "invalid type"),
        ("web1/assign", r#"{"profile":"debian","nmae":"x"}"#, 422, "body-content", "`nmae`"),
        ("web1/assign", r#"{"profile":"nothing"}"#, 422, "no-such-profile", "nothing"),
        ("web1/assign", r#"{"profile":"debian","name":"web2"}"#, 409, "name-taken", "web2"),
        ("web1/assign", r#"{"profile":"debian","name":"a b"}"#, 422, "bad-name", "letters"),
        ("web1/assign", r#"{"profile":"debian","name":"-a"}"#, 422, "bad-name", "letters"),
        ("web1/assign", r#"{"profile":"debian","name":"52:54:00:00:00:01"}"#, 422, "bad-name", ""),
        ("web1/local", r#"{"now":true}"#, 422, "body-content", "now"),
        ("web2/reinstall", "", 422, "profile-wanted", "profile"),
        ("web1/rescue", r#"{"profile":"nothing"}"#, 422, "no-such-profile", "nothing"),
        ("web1/power", r#"{"action":"explode"}"#, 422, "body-content", "explode"),
        ("web1/power", r#"{"action":"on"}"#, 501, "no-power", "switch"),
        ("nobody/local", "", 404, "no-machine", "nobody"),
    ] {
        let said = server.post(&format!("/api/v1/machines/{path}"), body);
        server.refused(&said, status, name);
        assert!(said.error().1.contains(says), "{path} {body}: {said:?}");
    }
    let big = server.dir.path().join("big");
    fs::write(&big, format!("\"{}\"", "x".repeat(65 << 10))).unwrap();
    let big = format!("@{}", big.display());
    let path = "/api/v1/machines/web1/assign";
    server.refused(&server.post(path, &big), 413, "body-too-large");
    let form = server.curl(path, &["-H", "pilotlight: 1", "-d", "profile=debian"]);
    server.refused(&form, 415, "content-type");
    assert_eq!(server.get("/api/v1/machines"), before);

    // A store that takes nothing.
    server.store.full.store(true, Ordering::SeqCst);
    let said = server.post("/api/v1/machines/web1/local", "");
    server.refused(&said, 503, "store-unwritable");
    assert_eq!(said.header("retry-after"), Some("5"));
    let store = server.get("/api/v1/status")["store"].clone();
    assert_eq!(store["writable"], false);
    assert!(store["trouble"].as_str().unwrap().contains("disk full"), "{store}");
    server.store.full.store(false, Ordering::SeqCst);
    assert_eq!(server.post("/api/v1/machines/web1/local", "").status, 200);
    assert_eq!(server.get("/api/v1/status")["store"]["writable"], true);
}

#[test]
fn a_reinstall_is_given_declared_or_as_before() {
    let mut config = None;
    let server = Server::open(false, |web| config = Some(web.config.clone()));
    let config = config.unwrap();
    let done = |r: &str| LifeEvent::Report {
        report: format!("digest-of-the-report-{r}"),
        word: Word::Done,
    };
    // Chosen in the menu, each of them: web1 is declared with debian, 9 is not declared.
    for last in [1, 9] {
        server.step(
            last,
            LifeEvent::Begin(Box::new(Begin {
                profile: "fedora".into(),
                chosen: true,
                ..begin(last, "r")
            })),
        );
        server.step(last, done("r"));
    }
    let armed = |who: &str| server.post(&format!("/api/v1/machines/{who}/reinstall"), "").json();
    assert_eq!(server.get("/api/v1/machines/web1")["profile"], "fedora");
    assert_eq!(armed("web1")["profile"], "debian", "the menu's choice is of that boot");
    assert_eq!(armed(&mac(9).to_string())["profile"], "fedora", "as before");
    let mut other = (*config.load_full()).clone();
    other.machines =
        vec![machine("web1", 1, Some("fedora")), machine("web2", 2, Some("local"))].into();
    config.store(Arc::new(other));
    assert_eq!(armed("web1")["profile"], "fedora", "as it is declared now");
    let said = server.post("/api/v1/machines/web1/reinstall", r#"{"profile":"local"}"#);
    server.refused(&said, 422, "no-such-profile");
    server.refused(&server.post("/api/v1/machines/web2/reinstall", ""), 422, "profile-wanted");
    let mut gone = (*config.load_full()).clone();
    gone.profiles.remove(1);
    config.store(Arc::new(gone));
    let said = server.post("/api/v1/machines/web1/reinstall", "");
    server.refused(&said, 422, "no-such-profile");
    assert_eq!(server.get("/api/v1/machines/web1")["profile"], "fedora", "nothing has changed");
}

#[test]
fn a_hook_switches_machines() {
    let server = Server::open(false, |web| {
        web.power = Some(Box::new(|mac, action| {
            Box::pin(async move {
                match action.word() {
                    "on" => Ok(power::Said::Woken(format!("{mac}\n"))),
                    word => Err(Trouble::OnlyWakes(word)),
                }
            })
        }));
    });
    let said = server.post("/api/v1/machines/web1/power", r#"{"action":"on"}"#);
    let words = said.json()["said"].as_str().unwrap().to_string();
    assert!(words.starts_with("a magic packet was sent on 52:54:00:00:00:01?;"), "{words}");
    let said = server.post("/api/v1/machines/web1/power", r#"{"action":"pxe"}"#);
    server.refused(&said, 502, "power-only-wakes");
    assert!(said.error().1.contains("for \"pxe\" give"), "{said:?}");
}

/// One who listens to events by a connection of its own.
struct Listener {
    curl: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Listener {
    fn of(server: &Server, query: &str, args: &[&str]) -> Listener {
        let mut listener = Listener::at(server, &format!("/api/v1/events{query}"), args);
        assert_eq!(listener.next().unwrap().0, "hello");
        listener
    }

    fn at(server: &Server, path: &str, args: &[&str]) -> Listener {
        let url = format!("{}{path}", server.admin);
        let mut curl = Command::new("curl")
            .args(["-sS", "-N", "--noproxy", "*", "--max-time", "30", "--cacert"])
            .arg(server.ca())
            .args(args)
            .arg(url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        Listener { curl, lines }
    }

    /// What comes until the end; none where it ended by curl's patience.
    fn rest(&mut self) -> Option<Vec<String>> {
        let lines = self.lines.by_ref().map(Result::unwrap).collect();
        self.curl.wait().unwrap().success().then_some(lines)
    }

    /// The next event; none at the end.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut kind = None;
        loop {
            let line = self.lines.next()?.unwrap();
            match (line.split_once(": "), &kind) {
                (Some(("event", word)), _) => kind = Some(word.to_string()),
                (Some(("data", data)), Some(kind)) => {
                    return Some((kind.clone(), serde_json::from_str(data).unwrap()));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

#[test]
fn what_happens_is_heard_as_it_happens() {
    let mut server = Server::new();
    let mut all = Listener::of(&server, "", &[]);
    let mut lives = Listener::of(&server, "?kind=life", &[]);
    let mut second = Listener::of(&server, "?machine=web2&kind=entry,life", &[]);
    assert_eq!(server.get("/api/v1/status")["listeners"], 3);

    let now = Timestamp::now();
    server.ledger.record(mac(1), Event::new(Stage::Kernel, "GET", "</k>\ndata: x"), now);
    server.ledger.alarm("other-dhcp-server", "10.0.0.2", "another one answers".into(), now);
    server.begin(1, "r1");
    server.ledger.record(mac(2), Event::new(Stage::Loader, "TFTP", "l"), now);

    let (kind, entry) = all.next().unwrap();
    assert_eq!(
        (kind.as_str(), &entry["mac"], &entry["stage"]),
        ("entry", &json!(mac(1)), &json!("kernel"))
    );
    let (kind, alarm) = all.next().unwrap();
    assert_eq!((kind.as_str(), &alarm["name"]), ("alarm", &json!("other-dhcp-server")));
    // The life is told by its writer, in its own time, and is an entry, too.
    let mut rest: Vec<(String, Value)> = (0..3).map(|_| all.next().unwrap()).collect();
    rest.sort_by_key(|(kind, data)| (kind.clone(), data["what"].to_string()));
    let whats: Vec<&Value> = rest.iter().map(|(_, data)| &data["what"]).collect();
    assert_eq!(whats, [&json!("TFTP"), &json!("installing"), &Value::Null]);
    let life = &rest[2].1;
    assert_eq!(
        (&life["before"], &life["after"], &life["name"]),
        (&Value::Null, &json!("installing"), &json!("web1"))
    );
    assert!(!life.to_string().contains("digest-of"), "{life}");
    assert_eq!(lives.next().unwrap().1["after"], "installing");
    assert_eq!(second.next().unwrap().1["what"], "TFTP");

    for (query, status, name) in [
        ("?machine=nobody", 404, "no-machine"),
        ("?kind=lives", 400, "query"),
        ("?since=1", 400, "query"),
    ] {
        server.refused(&server.curl(&format!("/api/v1/events{query}"), &[]), status, name);
    }

    // A stream does not hold the server up when it stops.
    let mut running = server.running.take().unwrap();
    let begun = Instant::now();
    server.runtime.block_on(running.stop());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(all.next().is_none() && lives.next().is_none() && second.next().is_none());
}

#[test]
fn who_is_too_slow_is_told_to_look_anew() {
    let server = Server::new();
    let mut listener = Listener::of(&server, "", &[]);
    // More than connection, kernel and queue hold.
    let now = Timestamp::now();
    let long = "x".repeat(290);
    for n in 0..60_000u32 {
        let detail = format!("{n} {long}");
        server.ledger.record(mac(1), Event::new(Stage::System, "GET", detail), now);
    }
    server.ledger.alarm("last", "x", "the last".into(), now);
    let mut missed = 0;
    loop {
        let (kind, data) = listener.next().unwrap();
        match kind.as_str() {
            "resync" => missed += data["missed"].as_u64().unwrap(),
            "alarm" => break,
            _ => {}
        }
    }
    assert!(missed > 0);
}

#[test]
fn lists_of_the_server() {
    let server = Server::new();
    server.ledger.alarm("mac-twice", "x", "two of them".into(), Timestamp::now());
    server.begin(1, "r1");
    let status = server.get("/api/v1/status");
    let all = server.get("/api/v1/machines");
    for (state, n) in status["machines"].as_object().unwrap() {
        let of = all.as_array().unwrap().iter().filter(|m| m["state"] == *state).count();
        assert_eq!(n, of, "{state}");
    }
    assert_eq!(status["machines"], json!({ "installing": 1, "seen": 1 }));
    assert_eq!((&status["alarms"], &status["mode"]), (&json!(1), &json!("off")));
    assert_eq!(server.get("/api/v1/me"), json!({ "by": "loopback", "token": null }));
    let profiles = server.get("/api/v1/profiles");
    assert_eq!(profiles[2]["kind"], "live");
    assert_eq!((&profiles[0]["rescue"], &profiles[2]["rescue"]), (&json!(false), &json!(true)));
    assert!(!profiles.to_string().contains("SECRET"), "{profiles}");
    assert_eq!(server.get("/api/v1/leases")[0]["address"], "10.0.0.5");
    assert_eq!(server.get("/api/v1/alarms")[0]["name"], "mac-twice");
    assert_eq!(server.get("/api/v1/pools"), json!([]));
    server.curl("/api/v1/machines/nobody", &[]);
    let refusals = server.get("/api/v1/refusals");
    assert_eq!(refusals, json!([{ "room": "http", "name": "no-machine", "times": 1 }]));
}

#[test]
fn the_boot_door_shows_none_of_it() {
    let server = Server::new();
    for path in [
        "/api/v1/status",
        "/api/v1/machines",
        "/api/v1/events",
        "/api/v1/tokens",
        "/api/v1/openapi.json",
        "/api/v1/leases",
        "/metrics",
        "/healthz",
        "/login",
        "/machines/web1",
    ] {
        let said = curl(&server.ca(), &format!("{}{path}", server.boot), &[]);
        assert_eq!(said.status, 404, "{path}: {said:?}");
        assert!(said.body.contains("nothing here"), "{said:?}");
    }
    let post = ["-H", "pilotlight: 1", "-X", "POST"];
    let said = curl(&server.ca(), &format!("{}/api/v1/machines/web1/local", server.boot), &post);
    assert_eq!(said.status, 404);
}

#[test]
fn no_web_page_gets_in_on_loopback() {
    let server = Server::new();
    let port = server.admin.rsplit(':').next().unwrap();
    // A name of the page's own that was bound anew to our address.
    for host in
        ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example", "10.0.0.1", ""]
    {
        for path in [
            "/api/v1/machines",
            "/api/v1/tokens",
            "/",
            "/api/v1/leases",
            "/metrics",
            "/api/v1/events",
        ] {
            let said = server.curl(path, &["-H", &format!("Host: {host}")]);
            assert_eq!(
                said.status,
                if host.is_empty() && said.status == 400 { 400 } else { 403 },
                "{host} {path}: {said:?}"
            );
        }
    }
    let absolute = "GET http://evil.example/api/v1/me HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    assert!(raw(&server, absolute).starts_with("HTTP/1.1 403"));
    for host in ["localhost", "127.0.0.1:1", "[::1]:8067", "LocalHost:99"] {
        assert_eq!(
            server.curl("/api/v1/me", &["-H", &format!("Host: {host}")]).status,
            200,
            "{host}"
        );
    }
    // What a page can send without being asked: a form, plain text, nothing at all.
    let path = "/api/v1/machines/web1/local";
    for args in [
        &["-X", "POST"][..],
        &["-d", "{}"],
        &["-d", "{}", "-H", "content-type: text/plain"],
        &["-d", "{}", "-H", "content-type: application/json"],
        &["-d", "csrf=0123", "-H", "content-type: application/x-www-form-urlencoded"],
        &["-d", "", "-H", "pilotlight: 2"],
    ] {
        server.refused(&server.curl(path, args), 403, "forged");
    }
    for origin in
        ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
    {
        let said = server.curl(path, &["-d", "", "-H", "pilotlight: 1", "-H", origin]);
        server.refused(&said, 403, "other-origin");
    }
    assert_eq!(server.get("/api/v1/machines/web1")["state"], "assigned");
    let ours = format!("Origin: {}", server.admin);
    assert_eq!(
        server
            .curl(
                path,
                &[
                    "-d",
                    "",
                    "-H",
                    "pilotlight: 1",
                    "-H",
                    "content-type: application/json",
                    "-H",
                    &ours
                ]
            )
            .status,
        200
    );
    // The preflight that would let a page send the header is not answered with a yes.
    let asks = [
        "-X",
        "OPTIONS",
        "-H",
        "Origin: http://evil.example",
        "-H",
        "Access-Control-Request-Method: POST",
        "-H",
        "Access-Control-Request-Headers: pilotlight",
    ];
    let said = server.curl(path, &asks);
    assert_eq!((said.status, said.header("access-control-allow-origin")), (405, None));
}

fn raw(server: &Server, request: &str) -> String {
    let address = server.admin.split("//").nth(1).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut said = Vec::new();
    // Whatever comes before the end, or a reset, is what was said.
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn every_answer_is_dressed() {
    let server = Server::new();
    for path in
        ["/", "/healthz", "/api/v1/machines", "/api/v1/nothing", "/api/v1/machines/x", "/login"]
    {
        let said = server.curl(path, &[]);
        let policy = said.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{path}: {said:?}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        for (name, want) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(said.header(name), Some(want), "{path} {name}");
        }
    }
    let said = server.curl("/api/v1/machines", &["-H", "Host: evil.example"]);
    assert_eq!(said.header("x-frame-options"), Some("DENY"), "a refusal, too");
}

#[test]
fn beyond_loopback_only_with_a_token() {
    let server = Server::secure();
    for path in
        ["/api/v1/machines", "/api/v1/events", "/api/v1/openapi.json", "/api/v1/leases", "/metrics"]
    {
        let said = server.curl(path, &[]);
        assert_eq!((said.status, said.header("www-authenticate")), (401, Some("Bearer")), "{path}");
    }
    server.refused(&server.curl("/api/v1/me", &[]), 401, "credential");
    assert_eq!(server.curl("/healthz", &[]).status, 200);
    // A browser is sent to the login.
    let said = server.curl("/", &["-H", "Accept: text/html,*/*"]);
    assert_eq!((said.status, said.header("location")), (303, Some("/login")));
    let me = server.with_token("/api/v1/me", &[]).json();
    assert_eq!(me, json!({ "by": "token", "token": "first" }));
    assert_eq!(
        server.with_token("/api/v1/machines/web1/local", &["-d", ""]).status,
        200,
        "no browser adds a token by itself"
    );
    let wrong = format!("authorization: Bearer {}x", &server.token.as_ref().unwrap()[..34]);
    server.refused(&server.curl("/api/v1/me", &["-H", &wrong]), 401, "wrong-token");
    for odd in ["Bearer", "Bearer ", "bearer x", "Basic cm9vdDpyb290"] {
        let said = server.curl("/api/v1/me", &["-H", &format!("authorization: {odd}")]);
        assert_eq!(said.status, 401, "{odd}");
    }
    // Plain HTTP gets nothing but the end of the connection.
    let said = raw(&server, "GET /api/v1/machines HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert!(!said.contains("HTTP/1.1"), "{said}");
    // Nor is a door opened beyond loopback without HTTPS.
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(ArcSwap::from_pointee(Config {
        state_dir: dir.path().into(),
        ..Config::default()
    }));
    let door = Door { http_port: 1, https_port: 1, tls: false };
    let web = Web::new(config, Arc::new(Ledger::new()), door, None, Box::new(|| json!([])));
    let wide = TcpListener::bind("0.0.0.0:0").unwrap();
    let opened = server.runtime.block_on(async { start(web, Vec::new(), Some(wide)) });
    assert!(opened.err().unwrap().to_string().contains("needs HTTPS"));
}

#[test]
fn tokens_are_made_used_and_revoked() {
    let server = Server::secure();
    let json = ["-H", "content-type: application/json"];
    let made =
        server.with_token("/api/v1/tokens", &[&json[..], &["-d", r#"{"name":"ci"}"#]].concat());
    assert_eq!(made.status, 201, "{made:?}");
    let ci = made.json()["token"].as_str().unwrap().to_string();
    assert!(ci.starts_with("pl_") && ci.len() == 35, "{ci}");
    let again =
        server.with_token("/api/v1/tokens", &[&json[..], &["-d", r#"{"name":"ci"}"#]].concat());
    server.refused(&again, 409, "token-taken");
    let header = format!("authorization: Bearer {ci}");
    let listed = server.curl("/api/v1/tokens", &["-H", &header]);
    let names: Vec<String> = listed
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap().into())
        .collect();
    assert_eq!(names, ["ci", "first"]);
    assert!(!listed.body.contains("pl_") && !listed.body.contains("argon2"), "{listed:?}");
    // A stream that was opened with it ends with it.
    let mut listener = Listener::of(&server, "", &["-H", &header]);
    assert_eq!(server.with_token("/api/v1/tokens/ci", &["-X", "DELETE"]).status, 204);
    server.refused(&server.curl("/api/v1/tokens", &["-H", &header]), 401, "wrong-token");
    server.ledger.record(mac(1), Event::new(Stage::Kernel, "GET", "x"), Timestamp::now());
    assert!(listener.next().is_none());
    server.refused(&server.with_token("/api/v1/tokens/ci", &["-X", "DELETE"]), 404, "no-token");
}

#[test]
fn a_browser_logs_in_and_out() {
    let server = Server::secure();
    let token = format!("token={}", server.token.as_ref().unwrap());
    let said = server.curl("/login", &["-d", &token]);
    assert_eq!((said.status, said.header("location")), (303, Some("/")), "{said:?}");
    let set = said.header("set-cookie").unwrap();
    for flag in [
        "__Host-pilotlight=",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Secure",
        "; Path=/",
        "; Max-Age=43200",
    ] {
        assert!(set.contains(flag), "{flag}: {set}");
    }
    assert!(!set.contains("Domain"), "{set}");
    let cookie = |said: &Said| {
        let set = said.header("set-cookie").unwrap();
        format!("Cookie: {}", set.split(';').next().unwrap())
    };
    let session = cookie(&said);
    let me = server.curl("/api/v1/me", &["-H", &session]).json();
    assert_eq!(me, json!({ "by": "session", "token": "first" }));
    // A cookie alone changes nothing: another page could have made the browser send it.
    let path = "/api/v1/machines/web1/local";
    server.refused(&server.curl(path, &["-H", &session, "-d", ""]), 403, "forged");
    let ours =
        ["-H", &session, "-H", "pilotlight: 1", "-H", "content-type: application/json", "-d", ""];
    assert_eq!(server.curl(path, &ours).status, 200);
    // Fixation: a login takes over no session that somebody else has chosen or knows.
    let fixed = format!("Cookie: __Host-pilotlight={}", "0".repeat(64));
    let said = server.curl("/login", &["-H", &fixed, "-d", &token]);
    assert_ne!(cookie(&said), fixed);
    assert_eq!(server.curl("/api/v1/me", &["-H", &fixed]).status, 401);
    let second = cookie(&server.curl("/login", &["-H", &session, "-d", &token]));
    assert_ne!(second, session);
    assert_eq!(server.curl("/api/v1/me", &["-H", &session]).status, 401, "the one before is over");
    // Another page cannot log anybody in as somebody else.
    let said = server.curl("/login", &["-H", "Origin: https://evil.example", "-d", &token]);
    assert_eq!((said.status, said.header("set-cookie")), (403, None));
    // Out, and in with a token that is then revoked.
    let out = server.curl("/logout", &["-H", &second, "-H", "pilotlight: 1", "-d", ""]);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"), "{out:?}");
    assert_eq!(server.curl("/api/v1/me", &["-H", &second]).status, 401);
    let third = cookie(&server.curl("/login", &["-d", &token]));
    assert_eq!(server.with_token("/api/v1/tokens/first", &["-X", "DELETE"]).status, 204);
    assert_eq!(server.curl("/api/v1/me", &["-H", &third]).status, 401);
}

#[test]
fn what_would_be_installed_again_is_not_forgotten() {
    let server = Server::new();
    let delete = || server.curl("/api/v1/machines/web1", &["-X", "DELETE", "-H", "pilotlight: 1"]);
    server.begin(1, "r1");
    server.step(1, LifeEvent::Local);
    let said = delete();
    server.refused(&said, 409, "would-install");
    assert!(said.error().1.contains("with profile debian"), "{said:?}");
    let page = server.curl("/machines/web1/forget", &[]);
    assert_eq!(page.status, 409, "{page:?}");
    assert!(server.ledger.life(mac(1)).is_some());
    // Declared without a profile, it gets the menu; and it is nobody's business how others end.
    server.step(2, LifeEvent::Local);
    server.step(9, LifeEvent::Assign { name: None, profile: "debian".into() });
    for who in ["web2".to_string(), mac(9).to_string()] {
        let path = format!("/api/v1/machines/{who}");
        assert_eq!(server.curl(&path, &["-X", "DELETE", "-H", "pilotlight: 1"]).status, 204);
    }
    server.refused(&server.curl("/api/v1/machines/52:54:00:zz", &[]), 400, "no-mac");
}

#[test]
fn a_page_that_is_open_ends_with_its_credential() {
    let server = Server::secure();
    let ci = server.with_token(
        "/api/v1/tokens",
        &["-H", "content-type: application/json", "-d", r#"{"name":"ci"}"#],
    );
    let ci = ci.json()["token"].as_str().unwrap().to_string();
    let login = || {
        let said = server.curl("/login", &["-d", &format!("token={ci}")]);
        let set = said.header("set-cookie").unwrap();
        format!("Cookie: {}", set.split(';').next().unwrap())
    };
    let open = |header: &str| {
        let mut page = Listener::at(&server, "/live", &["-H", header]);
        assert!(page.lines.next().is_some(), "a page of its own");
        page
    };
    let (bearer, left, stays) = (format!("authorization: Bearer {ci}"), login(), login());
    let (mut one, mut two, mut three) = (open(&bearer), open(&left), open(&stays));
    let news = || {
        server.ledger.record(mac(3), Event::new(Stage::Kernel, "GET", "x"), Timestamp::now());
    };
    // Out by the door.
    let out = server.curl("/logout", &["-H", &left, "-H", "pilotlight: 1", "-d", ""]);
    assert_eq!(out.status, 303);
    news();
    two.rest().expect("it ends");
    // And those that are left, with the token.
    assert!(one.curl.try_wait().unwrap().is_none() && three.curl.try_wait().unwrap().is_none());
    assert_eq!(server.with_token("/api/v1/tokens/ci", &["-X", "DELETE"]).status, 204);
    server.step(9, LifeEvent::Assign { name: Some("later".into()), profile: "debian".into() });
    for page in [&mut one, &mut three] {
        let said = page.rest().expect("it ends").concat();
        assert!(!said.contains("later"), "{said}");
    }
}

#[test]
fn who_guesses_has_to_wait() {
    let server = Server::secure();
    for _ in 0..5 {
        assert_eq!(server.curl("/login", &["-d", "token=pl_guess"]).status, 401);
    }
    let said = server.curl("/login", &["-d", "token=pl_guess"]);
    assert_eq!(said.status, 429, "{said:?}");
    let wait: u64 = said.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // Nor does the right one help now, or a header in its place.
    let said = server.with_token("/api/v1/me", &[]);
    server.refused(&said, 429, "too-many-tries");
}

/// The document that programs read.
fn openapi() -> Value {
    serde_json::from_str(include_str!("../assets/openapi.json")).unwrap()
}

/// What is wrong with `value` by `schema`: as much of JSON Schema as the document uses.
fn wrong(doc: &Value, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = doc.pointer(&name[1..]).unwrap_or_else(|| panic!("{name} is nowhere"));
        return wrong(doc, schema, value, at, out);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let fits = |s: &&Value| {
            let mut none = Vec::new();
            wrong(doc, s, value, at, &mut none);
            none.is_empty()
        };
        if any.iter().filter(fits).count() != 1 {
            out.push(format!("{at}: not one of {schema}: {value}"));
        }
        return;
    }
    let known = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "format",
        "pattern",
        "description",
        "minimum",
        "maximum",
    ];
    for key in schema.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{at}: this checker does not know {key}");
    }
    let is = |word: &str| match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        odd => panic!("{at}: type {odd}"),
    };
    let right = match &schema["type"] {
        Value::String(word) => is(word),
        Value::Array(words) => words.iter().any(|w| is(w.as_str().unwrap())),
        odd => panic!("{at}: type {odd}"),
    };
    if !right {
        return out.push(format!("{at}: not {}: {value}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        out.push(format!("{at}: none of {}: {value}", schema["enum"]));
    }
    if schema["format"] == "date-time"
        && value.as_str().is_some_and(|t| t.parse::<Timestamp>().is_err())
    {
        out.push(format!("{at}: no time: {value}"));
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong(doc, &schema["items"], item, &format!("{at}[{n}]"), out);
    }
    let Some(object) = value.as_object() else { return };
    for key in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(key.as_str().unwrap()) {
            out.push(format!("{at}: without {key}"));
        }
    }
    for (key, inner) in object {
        let at = format!("{at}.{key}");
        match (schema["properties"].get(key), &schema["additionalProperties"]) {
            (Some(schema), _) => wrong(doc, schema, inner, &at, out),
            (None, Value::Bool(false)) => out.push(format!("{at}: not in the document")),
            (None, schema @ Value::Object(_)) => wrong(doc, schema, inner, &at, out),
            _ => {}
        }
    }
}

#[test]
fn the_document_has_the_routes_and_the_routes_are_in_it() {
    let server = Server::new();
    let doc = openapi();
    assert_eq!(server.get("/api/v1/openapi.json"), doc);
    let paths = doc["paths"].as_object().unwrap();
    // Every path of the routes is in the document.
    let routes = include_str!("../src/http/routes.rs");
    let mut seen = 0;
    for path in routes.split('"').filter(|p| p.starts_with("/api/v1/")) {
        assert!(paths.contains_key(path), "{path} is not in the document");
        seen += 1;
    }
    assert_eq!(seen, paths.len(), "each path is in the routes once");
    // Every method of a path is served, and no other.
    for (path, methods) in paths {
        let at = path
            .replace("{who}", "nobody")
            .replace("{name}", "nobody")
            .replace("{profile}", "nobody");
        for method in ["get", "post", "put", "delete", "patch"] {
            if path.ends_with("/events") && method == "get" {
                continue;
            }
            let said = server.curl(&at, &["-X", &method.to_uppercase(), "-H", "pilotlight: 1"]);
            let named = methods.get(method).is_some();
            assert_eq!(said.status != 405, named, "{method} {path}: {said:?}");
            if named {
                assert!(
                    said.status != 404
                        || said.error().0 != "no-such-page"
                        || path.contains("/cache/"),
                    "{method} {path}: {said:?}"
                );
            }
        }
        for (method, operation) in methods.as_object().unwrap() {
            let body = operation.get("requestBody").is_some();
            assert!(method == "post" || !body, "{method} {path} has a body");
            for part in path.split('/').filter_map(|p| p.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters.iter().any(|p| p["name"] == name && p["in"] == "path"),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn answers_are_as_the_document_says() {
    let server = Server::new();
    let now = Timestamp::now();
    let facts = Facts { serial: Some("S".into()), memsize: Some(512), ..Facts::of(mac(7)) };
    server.ledger.learn(facts, now);
    let sent = Transfer { name: "k".into(), sent: 10, total: 20, millis: 3 };
    server.ledger.record(mac(7), Event::new(Stage::Kernel, "cut", "k").with(sent), now);
    server.ledger.alarm("mac-twice", "x", "two of them".into(), now);
    server.begin(1, "r1");
    server.begin(2, "r2");
    let report = |report: &str, word| LifeEvent::Report { report: report.into(), word };
    server.step(2, report("digest-of-the-report-r2", Word::Failed("no disk".into())));
    server.curl("/api/v1/machines/nobody", &[]);
    let doc = openapi();
    let check = |method: &str, path: &str, of: &str, said: Said| {
        let responses = &doc["paths"][path][method]["responses"];
        let response = responses.get(said.status.to_string()).unwrap_or_else(|| {
            assert!(said.status >= 400, "{method} {path}: {said:?}");
            &doc["components"]["responses"]["Error"]
        });
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_null() {
            return assert_eq!(said.body, "", "{method} {path}");
        }
        let mut out = Vec::new();
        wrong(&doc, schema, &said.json(), of, &mut out);
        assert!(out.is_empty(), "{method} {of}: {out:#?}");
    };
    for path in doc["paths"].as_object().unwrap().keys() {
        if doc["paths"][path].get("get").is_none() || path.ends_with("/events") {
            continue;
        }
        for who in ["web1", "web2", &mac(7).to_string(), "nobody"] {
            let at = path.replace("{who}", who).replace("{profile}", "debian");
            check("get", path, &at, server.curl(&at, &[]));
        }
    }
    let at = "/api/v1/machines?timeline=true";
    let timed = server.curl(at, &[]);
    assert_eq!(timed.json().as_array().unwrap().last().unwrap()["timeline"][0]["what"], "cut");
    check("get", "/api/v1/machines", at, timed);
    let machine = |what: &str| format!("/api/v1/machines/{{who}}/{what}");
    for (what, body) in [
        ("local", ""),
        ("assign", r#"{"profile":"fedora","name":"x"}"#),
        ("rescue", "{}"),
        ("reinstall", "{}"),
        ("power", r#"{"action":"on"}"#),
        ("assign", "{"),
    ] {
        let at = machine(what).replace("{who}", &mac(7).to_string());
        check("post", &machine(what), &at, server.post(&at, body));
    }
    let tokens = "/api/v1/tokens";
    check("post", tokens, tokens, server.post(tokens, r#"{"name":"ci"}"#));
    check("get", tokens, tokens, server.curl(tokens, &[]));
    let gone = server.curl("/api/v1/tokens/ci", &["-X", "DELETE", "-H", "pilotlight: 1"]);
    check("delete", "/api/v1/tokens/{name}", "ci", gone);
    let mut out = Vec::new();
    wrong(
        &doc,
        &doc["components"]["schemas"]["Machine"],
        &json!({ "mac": 1, "odd": 2 }),
        "x",
        &mut out,
    );
    assert!(out.len() > 10, "the checker finds what is wrong: {out:?}");
}

/// A sample: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads OpenMetrics 1.0 as strictly as it is written; each family's type, and all samples.
fn samples(text: &str) -> (std::collections::BTreeMap<String, String>, Vec<Sample>) {
    let mut types = std::collections::BTreeMap::new();
    let mut samples: Vec<Sample> = Vec::new();
    let mut lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines.pop(), Some(""), "the last line has its end");
    assert_eq!(lines.pop(), Some("# EOF"));
    let name = |n: &str| {
        n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !n.starts_with(|c: char| c.is_ascii_digit())
    };
    for line in lines {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(
                rest.split_once(' ').is_some_and(|(n, help)| name(n) && !help.is_empty()),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (n, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(types.insert(n.to_string(), kind.to_string()).is_none(), "twice: {line}");
        } else {
            let end = line.find(['{', ' ']).unwrap();
            let (n, mut rest) = line.split_at(end);
            assert!(name(n), "{line}");
            let family =
                n.strip_suffix("_total").filter(|f| types.get(*f).is_some_and(|t| t == "counter"));
            assert!(family.is_some() || types.get(n).is_some_and(|t| t == "gauge"), "{line}");
            let mut labels = Vec::new();
            if let Some(inner) = rest.strip_prefix('{') {
                rest = inner;
                loop {
                    let (key, value) = rest.split_once("=\"").unwrap();
                    assert!(name(key), "{line}");
                    let mut read = String::new();
                    let mut chars = value.char_indices();
                    let end = loop {
                        match chars.next().unwrap() {
                            (at, '"') => break at,
                            (_, '\\') => match chars.next().unwrap().1 {
                                'n' => read.push('\n'),
                                c @ ('\\' | '"') => read.push(c),
                                c => panic!("\\{c}: {line}"),
                            },
                            (_, c) => read.push(c),
                        }
                    };
                    labels.push((key.to_string(), read));
                    rest = &value[end + 1..];
                    match rest.strip_prefix(',') {
                        Some(more) => rest = more,
                        None => break,
                    }
                }
                rest = rest.strip_prefix('}').unwrap();
            }
            let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap();
            assert!(!samples.iter().any(|s| s.0 == n && s.1 == labels), "twice: {line}");
            samples.push((n.into(), labels, value));
        }
    }
    (types, samples)
}

/// What Prometheus itself makes of the page: its parser for OpenMetrics, and its linter, which reads
/// the older format, where a counter's family has the name of its samples.
fn read_by_prometheus(
    page: &str,
    types: &std::collections::BTreeMap<String, String>,
    samples: usize,
) {
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers/promtool/usr/bin");
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
    places.push(brought);
    let Some(promtool) = places.into_iter().map(|p| p.join("promtool")).find(|p| p.is_file())
    else {
        return left_out("metrics_are_what_has_happened, by promtool", "no promtool");
    };
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str], input: &str| {
        fs::write(dir.path().join("page"), input).unwrap();
        let page = fs::File::open(dir.path().join("page")).unwrap();
        let mut command = Command::new(&promtool);
        let out = command.current_dir(dir.path()).args(args).stdin(page).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(out.status.success(), "{args:?}: {said}\n{input}");
        said
    };
    // A scrape has the time; a file for its store must say it.
    let timed = page.lines().map(|line| match line.starts_with('#') {
        true => format!("{line}\n"),
        false => format!("{line} 1700000000\n"),
    });
    let blocks = run(
        &["tsdb", "create-blocks-from", "openmetrics", "page", "store"],
        &timed.collect::<String>(),
    );
    // Of a block it tells name, times, duration, samples and more.
    let read = blocks.lines().last().and_then(|l| l.split_whitespace().nth(4));
    assert_eq!(read, Some(&*samples.to_string()), "{blocks}");
    let older = page.lines().filter(|line| *line != "# EOF").map(|line| {
        let mut words: Vec<String> = line.splitn(4, ' ').map(str::to_string).collect();
        if let ["#", _, family, ..] = words.iter().map(String::as_str).collect::<Vec<_>>()[..]
            && types.get(family).is_some_and(|t| t == "counter")
        {
            words[2] += "_total";
        }
        words.join(" ") + "\n"
    });
    run(&["check", "metrics"], &older.collect::<String>());
}

#[test]
fn metrics_are_what_has_happened() {
    const HOSTILE: &str = "evil\"} 1\n# EOF\n\\<script>";
    let dir = tempfile::tempdir().unwrap();
    let server = Server::open(false, |web| {
        let mut config = (*web.config.load_full()).clone();
        config.state_dir = dir.path().into();
        config.dhcp.mode = pilotlight::config::Mode::Full;
        config.dhcp.subnets = vec![pilotlight::config::Subnet {
            network: "10.0.0.0/24".parse().unwrap(),
            ranges: vec![
                Ipv4Addr::new(10, 0, 0, 5)..=Ipv4Addr::new(10, 0, 0, 9),
                Ipv4Addr::new(10, 0, 0, 20)..=Ipv4Addr::new(10, 0, 0, 20),
            ],
            router: Vec::new(),
            dns: Vec::new(),
            domain: None,
            broadcast: Ipv4Addr::new(10, 0, 0, 255),
            ntp: Vec::new(),
            mtu: None,
            lease_time: Duration::from_secs(3600),
            max_lease_time: Duration::from_secs(3600),
            options: Vec::new(),
        }];
        config.mirrors = vec![pilotlight::config::Mirror {
            name: HOSTILE.into(),
            urls: vec!["http://127.0.0.1:1/".into()],
            verify: Default::default(),
            keys: Vec::new(),
            redirects: Vec::new(),
            pins: Default::default(),
            private: true,
            connections: 1,
        }];
        let memory = Arc::new(Memory::default());
        let mirrors = pilotlight::mirror::serve::Mirrors::open(&config, web.ledger.clone(), memory);
        web.mirrors = Some(mirrors.unwrap());
        web.hooks = Some(Default::default());
        web.config.store(Arc::new(config));
    });
    let now = Timestamp::now();
    let sent = Transfer { name: "k".into(), sent: 1000, total: 1000, millis: 3 };
    server.ledger.sent(mac(1), Stage::Kernel, sent, None, now);
    server.ledger.open_boot(Boot::new("t".into(), Facts::of(mac(1)), "debian", None, false, now));
    server.ledger.alarm("mac-twice", HOSTILE, HOSTILE.into(), now);
    server.ledger.learn(Facts { serial: Some(HOSTILE.into()), ..Facts::of(mac(9)) }, now);
    server.begin(1, "r1");
    let report = |report: &str, word| LifeEvent::Report { report: report.into(), word };
    server.step(1, report("digest-of-the-report-r1", Word::Failed(HOSTILE.into())));
    server.begin(1, "r2");
    server.step(1, report("digest-of-the-report-r2", Word::Done));
    assert_eq!(server.curl("/api/v1/machines/nobody", &[]).status, 404);
    server.refused(&server.curl("/api/v1/machines/%22%0a", &[]), 404, "no-machine");

    let said = server.curl("/metrics", &[]);
    assert!(
        said.header("content-type").unwrap().starts_with("application/openmetrics-text"),
        "{said:?}"
    );
    let (types, samples) = samples(&said.body);
    let value = |name: &str, labels: &[(&str, &str)]| {
        let fits = |s: &&Sample| {
            s.0 == name && labels.iter().all(|(k, v)| s.1.iter().any(|(a, b)| a == k && b == v))
        };
        samples.iter().filter(fits).map(|s| s.2).sum::<f64>()
    };
    assert_eq!(value("pilotlight_installs_total", &[]), 1.0);
    assert_eq!(value("pilotlight_install_failures_total", &[("reason", "reported")]), 1.0);
    assert_eq!(value("pilotlight_transfer_bytes_total", &[("kind", "kernel")]), 1000.0);
    assert_eq!(value("pilotlight_transfers_total", &[("kind", "kernel"), ("end", "sent")]), 1.0);
    assert_eq!(value("pilotlight_machines", &[]), 3.0);
    assert_eq!(value("pilotlight_machines", &[("state", "installed")]), 1.0);
    assert_eq!(value("pilotlight_leases", &[("state", "bound")]), 1.0);
    assert_eq!(
        value("pilotlight_refusals_total", &[("room", "http"), ("name", "no-machine")]),
        2.0
    );
    assert_eq!(value("pilotlight_alarms", &[("name", "mac-twice")]), 1.0);
    assert_eq!(value("pilotlight_store_writable", &[]), 1.0);
    assert_eq!(value("pilotlight_pool_addresses", &[("network", "10.0.0.0/24")]), 6.0);
    assert_eq!(value("pilotlight_pool_bound", &[]), 1.0);
    assert!(samples.iter().any(|s| s.1.iter().any(|(k, v)| k == "mirror" && v == HOSTILE)));
    let pools = server.get("/api/v1/pools");
    assert_eq!(
        (&pools[0]["size"], &pools[0]["ranges"][1]),
        (&json!(6), &json!("10.0.0.20-10.0.0.20"))
    );
    assert!(value("process_start_time_seconds", &[]) > 1.7e9);
    // Nothing that a machine says is a label.
    assert!(
        samples.iter().all(|s| s.1.iter().all(|(k, v)| k == "mirror" || !v.contains("<script"))),
        "{said:?}"
    );
    assert!(samples.len() < 200, "{}", samples.len());
    read_by_prometheus(&said.body, &types, samples.len());

    // The dashboard names no metric that is not there.
    let board: Value =
        serde_json::from_str(include_str!("../assets/grafana/pilotlight.json")).unwrap();
    let mut named = std::collections::BTreeSet::new();
    for target in
        board["panels"].as_array().unwrap().iter().flat_map(|p| p["targets"].as_array().unwrap())
    {
        let words = target["expr"]
            .as_str()
            .unwrap()
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        named.extend(
            words
                .filter(|w| w.starts_with("pilotlight_") || w.starts_with("process_"))
                .map(str::to_string),
        );
    }
    let there: std::collections::BTreeSet<String> = types
        .iter()
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.clone() })
        .collect();
    assert_eq!(named, there, "each metric is on the dashboard, and each of the dashboard is one");
}
