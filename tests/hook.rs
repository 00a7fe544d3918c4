//! Webhooks against a server of another make: python checks each signature by its own hmac.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use pilotlight::config::{Config, Webhook};
use pilotlight::hook::{Limits, Running, start};
use pilotlight::ledger::Ledger;
use pilotlight::model::lifecycle::{Begin, Word};
use pilotlight::model::{Facts, Hidden, LifeEvent, Mac, Secret};
use serde_json::Value;

/// Takes what comes, prints it with what it thinks of the signature, and answers what it reads
/// from its standard input: one status for each request, 0 for none at all; 204 when that is over.
const RECEIVER: &str = r#"
import hashlib, hmac, http.server, json, sys, threading, time
lock = threading.Lock()
statuses = []
def statuses_of():
    for line in sys.stdin:
        with lock:
            statuses.append(int(line))
            print(json.dumps({"known": len(statuses)}), flush=True)
class Door(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        said = self.headers.get("Pilotlight-Signature", "")
        parts = dict(p.split("=") for p in said.split(",")) if said else {}
        want = hmac.new(b"s3cret", parts.get("t", "").encode() + b"." + body, hashlib.sha256)
        right = hmac.compare_digest(want.hexdigest(), parts.get("v1", ""))
        fresh = bool(parts) and abs(time.time() - int(parts["t"])) < 60
        with lock:
            status = statuses.pop(0) if statuses else 204
            print(json.dumps({
                "signed": right and fresh, "id": self.headers["Pilotlight-Id"],
                "type": self.headers["content-type"], "path": self.path, "status": status,
                "body": json.loads(body),
            }), flush=True)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-length", "0")
        if status == 302:
            self.send_header("location", "/elsewhere")
        self.end_headers()
    def log_message(self, *args):
        pass
door = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
print(door.server_port, flush=True)
threading.Thread(target=statuses_of, daemon=True).start()
door.serve_forever()
"#;

struct Receiving {
    python: Child,
    stdin: ChildStdin,
    port: String,
    lines: Receiver<Value>,
}

impl Receiving {
    fn new() -> Receiving {
        let mut python = Command::new("python3")
            .args(["-c", RECEIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let stdin = python.stdin.take().unwrap();
        let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap();
        let (send, receive) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Receiving { python, stdin, port, lines: receive }
    }

    /// What the next requests are answered.
    fn answers(&mut self, statuses: &[u16]) {
        for status in statuses {
            writeln!(self.stdin, "{status}").unwrap();
            assert!(self.next()["known"].is_u64());
        }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(Duration::from_secs(10)).expect("something within 10 s")
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

struct Server {
    ledger: Arc<Ledger>,
    hooks: Running,
    runtime: tokio::runtime::Runtime,
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

impl Server {
    fn new(webhooks: Vec<Webhook>, limits: Limits) -> Server {
        let config = Config { webhooks, ..Config::default() };
        let ledger = Arc::new(Ledger::new());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let secrets = |secret: &Secret| match secret {
            Secret::Literal(hidden) => Ok(hidden.clone()),
            other => Err(format!("{other:?} is not there")),
        };
        let shared = ledger.clone();
        let hooks =
            runtime.block_on(async move { start(config, shared, Box::new(secrets), limits) });
        Server { ledger, hooks, runtime }
    }

    fn step(&self, last: u8, event: LifeEvent) {
        let stepped = self.ledger.step(mac(last), event, 3, Timestamp::now());
        self.runtime.block_on(stepped).unwrap();
    }

    /// An attempt that ends as `word` says.
    fn attempt(&self, last: u8, word: Word) {
        self.step(last, LifeEvent::Reinstall { profile: None });
        self.step(
            last,
            LifeEvent::Begin(Box::new(Begin {
                profile: "debian".into(),
                boot: "b".into(),
                report: "r".into(),
                address: None,
                facts: Facts::of(mac(last)),
                timeout: Duration::from_secs(3600),
                attempts: 3,
                restarted: true,
                chosen: false,
            })),
        );
        self.step(last, LifeEvent::Report { report: "r".into(), word });
    }

    /// Waits for an alarm of this name, at most 10 s.
    fn alarmed(&self, name: &str) -> String {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(alarm) = self.ledger.alarms().into_iter().find(|a| a.name == name) {
                return alarm.text;
            }
            assert!(Instant::now() < end, "no {name} within 10 s");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

fn hook(port: &str, path: &str, events: &[&'static str]) -> Webhook {
    Webhook {
        url: format!("http://127.0.0.1:{port}/{path}"),
        secret: Some(Secret::Literal(Hidden::new("s3cret"))),
        events: events.to_vec(),
    }
}

fn quick() -> Limits {
    Limits { pauses: [Duration::from_millis(20); 4], ..Limits::default() }
}

#[test]
fn what_happens_is_told_signed_and_in_order() {
    let mut receiver = Receiving::new();
    let all = hook(&receiver.port, "all", &["installed", "failed", "alarm"]);
    let server = Server::new(vec![all], quick());
    // The first is not taken for a while, and what comes after it waits for it.
    receiver.answers(&[500, 503, 0, 429]);
    server.attempt(1, Word::Failed("no disk\n\x1b[2J".into()));
    server.attempt(1, Word::Done);
    let tries: Vec<Value> = (0..5).map(|_| receiver.next()).collect();
    for tried in &tries {
        assert_eq!((&tried["signed"], &tried["type"]), (&true.into(), &"application/json".into()));
        assert_eq!((&tried["body"]["event"], &tried["id"]), (&"failed".into(), &tries[0]["id"]));
    }
    assert_eq!(tries[4]["status"], 204);
    let failure = &tries[0]["body"]["failure"];
    assert_eq!((&failure["attempt"], &failure["step"]), (&1.into(), &"script".into()));
    assert!(failure["why"].as_str().unwrap().contains("no disk??[2J"), "{failure}");
    let installed = receiver.next();
    assert_eq!(installed["body"]["event"], "installed");
    assert_eq!(installed["body"]["machine"]["mac"], mac(1).to_string());
    assert_ne!(installed["id"], tries[0]["id"]);
    server.ledger.alarm("mac-twice", "x", "two of them".into(), Timestamp::now());
    let alarm = receiver.next();
    assert_eq!(
        (&alarm["body"]["alarm"]["name"], &alarm["signed"]),
        (&"mac-twice".into(), &true.into())
    );
    let end = Instant::now() + Duration::from_secs(10);
    while server.hooks.counts.sent.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < end);
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn who_takes_nothing_is_given_up_and_others_are_told() {
    let mut receiver = Receiving::new();
    let refusing = hook(&receiver.port, "secret-path", &["installed"]);
    // Nobody is there.
    let away = Webhook { url: "http://127.0.0.1:1/x".into(), ..hook("1", "x", &["failed"]) };
    let unsecret = Webhook {
        secret: Some(Secret::Env("NOTHING".into())),
        ..hook(&receiver.port, "alarms", &["alarm"])
    };
    let server = Server::new(vec![refusing, away, unsecret], quick());
    // Neither followed nor tried again.
    receiver.answers(&[302]);
    server.attempt(1, Word::Done);
    assert_eq!(receiver.next()["path"], "/secret-path");
    let said = server.alarmed("webhook-failed");
    assert!(said.contains("127.0.0.1") && said.contains("302"), "{said}");
    assert!(!said.contains("secret-path"), "{said}");
    server.attempt(2, Word::Done);
    let next = receiver.next();
    assert_eq!(
        (&next["path"], &next["body"]["machine"]["mac"]),
        (&"/secret-path".into(), &mac(2).to_string().into())
    );
    // Five tries, and an alarm that is not told by a webhook; nothing is sent unsigned.
    server.attempt(3, Word::Failed("x".into()));
    let end = Instant::now() + Duration::from_secs(10);
    while server.hooks.counts.failed.load(Ordering::Relaxed) < 2 {
        assert!(Instant::now() < end);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    server.ledger.alarm("mac-twice", "x", "two of them".into(), Timestamp::now());
    while server.hooks.counts.failed.load(Ordering::Relaxed) < 3 {
        assert!(Instant::now() < end);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    server.attempt(4, Word::Done);
    assert_eq!(receiver.next()["path"], "/secret-path", "nothing came in between");
}

#[test]
fn what_does_not_fit_is_dropped_and_alarmed() {
    let mut receiver = Receiving::new();
    let pauses = [Duration::from_secs(3600); 4];
    let limits = Limits { pauses, queue: 3, ..Limits::default() };
    let server = Server::new(vec![hook(&receiver.port, "x", &["installed"])], limits);
    receiver.answers(&[500; 3]);
    for last in 1..=8 {
        server.attempt(last, Word::Done);
    }
    let said = server.alarmed("webhook-dropped");
    assert!(said.contains("too many wait"), "{said}");
    let end = Instant::now() + Duration::from_secs(10);
    while server.hooks.counts.dropped.load(Ordering::Relaxed) < 5 {
        assert!(Instant::now() < end);
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
