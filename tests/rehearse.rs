//! `pilotlight rehearse` against the real server, each in a network namespace of its own.

#[path = "common/namespace.rs"]
mod namespace;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than a server takes to start, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);
const FULL: &str = r#"
[dhcp]
mode = "full"
[[subnet]]
network = "10.77.0.0/24"
range = "10.77.0.100-10.77.0.199"
"#;
/// The same where the machines' addresses are this host's already, and so answer a ping.
fn full_unasked() -> String {
    FULL.replace("\"full\"", "\"full\"\nping-check = false")
}
/// Everything that begins with 02:00:00 boots; 02:00:01 does not.
const BOOTS: &str = r#"
[ipxe]
dir = "loaders"
[[files]]
name = "pub"
dir = "pub"
[[profile]]
name = "web"
kind = "live"
kernel = "pub/linux"
initrd = "pub/initrd"
args = "inst.ks={{ answers.ks }} r={{ report }}"
answers = { ks = "ks.cfg" }
[[machine]]
name = "hall"
mac = "02:00:00:*"
profile = "web"
[[machine]]
name = "desk1"
mac = "52:54:00:00:00:01"
profile = "web"
[[machine]]
name = "desk2"
mac = "52:54:00:00:00:02"
profile = "local"
"#;

/// The server's namespace at the other end of a cable, and a folder for its files.
struct Lab {
    /// Holds the namespace; it ends with its input, and so with the test however that ends.
    holder: Child,
    dir: TempDir,
}

impl Lab {
    fn new() -> Lab {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo here; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        let lab = Lab { holder, dir: tempfile::tempdir().unwrap() };
        let pid = lab.holder.id();
        ip("link set lo up");
        ip(&format!("link add nic0 type veth peer name boot0 netns {pid}"));
        ip("address add 10.77.0.2/24 dev nic0");
        ip("link set nic0 up");
        for there in ["link set lo up", "address add 10.77.0.1/24 dev boot0", "link set boot0 up"] {
            let done = lab.there("ip").args(there.split(' ')).status().unwrap();
            assert!(done.success(), "{there}");
        }
        for (name, bytes) in
            [("undionly.kpxe", 70_000), ("snponly.efi", 150_001), ("ipxe-arm64.efi", 1468)]
        {
            lab.write(&format!("loaders/{name}"), &"l".repeat(bytes));
        }
        lab.write("pub/linux", &"k".repeat(100_000));
        lab.write("pub/initrd", &"i".repeat(200_000));
        lab.write("ks.cfg", "for {{ machine.mac }}\n");
        lab
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// A command in the server's namespace, that does not outlive this thread.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    fn start(&self, config: &str) -> Server {
        self.write("pilotlight.toml", config);
        let mut command = self.there(env!("CARGO_BIN_EXE_pilotlight"));
        command.args(["serve", "--config", &self.path("pilotlight.toml"), "--interface", "boot0"]);
        command.args(["--state-dir", &self.path("state")]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| tell.send(l)));
        let server = Server { child, log };
        server.says("ready");
        server
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:8067{path}");
        let out = self.there("curl").args(["-sS", "--max-time", "20", &url]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Without its input `cat` ends; an error here is one that has ended before.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

struct Server {
    child: Child,
    log: Receiver<String>,
}

impl Server {
    fn says(&self, text: &str) {
        while !self.log.recv_timeout(PATIENCE).unwrap().contains(text) {}
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rehearse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .args(["rehearse", "--server", "10.77.0.1"])
        .args(arguments)
        .output()
        .unwrap()
}

fn words(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// Its JSON, and the steps' done and failed.
fn figures(out: &Output) -> (Value, Vec<(String, u64, u64)>) {
    let json: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", words(out)));
    let steps = json["steps"].as_array().unwrap().iter();
    let figure = |v: &Value| v.as_u64().unwrap();
    let row = |s: &Value| {
        (s["step"].as_str().unwrap().to_string(), figure(&s["done"]), figure(&s["failed"]))
    };
    let steps = steps.map(row).collect();
    (json, steps)
}

fn all(rows: &[(&str, u64)]) -> Vec<(String, u64, u64)> {
    rows.iter().map(|(step, done)| (step.to_string(), *done, 0)).collect()
}

#[test]
fn machines_boot_to_the_end_and_leave_nothing_behind() {
    if !in_a_namespace("machines_boot_to_the_end_and_leave_nothing_behind") {
        return;
    }
    let lab = Lab::new();
    let _server = lab.start(&format!("{FULL}{BOOTS}"));
    let out = rehearse(&["--machines", "48", "--firmware", "mixed", "--json"]);
    let (json, steps) = figures(&out);
    assert!(out.status.success(), "{}", words(&out));
    // 16 of each firmware; UEFI goes on from autoexec.ipxe, which BIOS does not ask for.
    assert_eq!(
        steps,
        all(&[
            ("dhcp", 48),
            ("tftp", 48),
            ("ipxe-dhcp", 16),
            ("script", 48 + 16),
            ("kernel", 48),
            ("initrd", 48),
            ("answer", 48),
            ("boot", 48),
        ]),
        "{json}"
    );
    let bytes = |at: usize| json["steps"][at]["bytes"].as_u64().unwrap();
    assert_eq!(bytes(1), 16 * (70_000 + 150_001 + 1468), "loaders, whole");
    assert_eq!((bytes(4), bytes(5)), (48 * 100_000, 48 * 200_000));
    assert_eq!((&json["machines"], &json["failed"]), (&48.into(), &0.into()));
    assert_eq!(json["failures"], Value::Array(vec![]));
    for step in json["steps"].as_array().unwrap() {
        let ms = |key: &str| step[key].as_f64().unwrap();
        assert!(ms("p50_ms") > 0.0 && ms("p50_ms") <= ms("p99_ms"), "{step}");
        assert!(ms("p99_ms") <= ms("max_ms") && ms("per_second") > 0.0, "{step}");
    }
    let leases = lab.get("/api/v1/leases");
    let leases = leases.as_array().unwrap();
    assert_eq!(leases.len(), 48);
    assert!(leases.iter().all(|l| l["state"] == "released"), "{leases:?}");
    let machines = lab.get("/api/v1/machines?timeline=true");
    assert!(!machines.to_string().contains("report"), "nothing was reported: {machines}");

    let few = ["--only", "tftp", "--machines", "5", "--file", "snponly.efi", "--json"];
    let out = rehearse(&[&few[..], &["--blksize", "1400", "--windowsize", "8"]].concat());
    let (json, steps) = figures(&out);
    assert_eq!(steps, all(&[("tftp", 5)]), "{json}");
    assert_eq!(json["steps"][0]["bytes"], 5 * 150_001);

    let one = &["--machines", "3", "--source-per-machine"];
    ip("route add local 10.77.0.96/27 dev lo");
    ip("route add local 10.77.0.128/26 dev lo");
    ip("route add local 10.77.0.192/29 dev lo");
    let out = rehearse(one);
    assert!(out.status.success(), "{}", words(&out));
    assert!(words(&out).lines().all(|l| l.chars().count() <= 80), "{}", words(&out));
    assert!(words(&out).contains("3 machines in "), "{}", words(&out));
    assert!(words(&out).contains("none failed; 3 leases given back."), "{}", words(&out));
}

#[test]
fn by_https_and_as_the_configuration_declares_them() {
    if !in_a_namespace("by_https_and_as_the_configuration_declares_them") {
        return;
    }
    let lab = Lab::new();
    let _server = lab.start(&format!("[tls]\nenabled = true\n{}{BOOTS}", full_unasked()));
    let config = lab.path("pilotlight.toml");
    ip("route add local 10.77.0.96/27 dev lo");
    ip("route add local 10.77.0.128/26 dev lo");
    let refused = rehearse(&["--config", &config]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        words(&refused).contains("--config wants --source-per-machine: "),
        "{}",
        words(&refused)
    );
    let out = rehearse(&["--config", &config, "--source-per-machine", "--json"]);
    let (json, steps) = figures(&out);
    assert!(out.status.success(), "{}", words(&out));
    // The machine with a whole class of addresses is none in particular.
    assert_eq!(json["machines"], 2);
    assert!(steps.contains(&("answer".into(), 1, 0)), "{json}");
    assert!(json["notes"].to_string().contains("local disk"), "{json}");
    let known = lab.get("/api/v1/machines?timeline=true").to_string();
    assert!(known.contains("52:54:00:00:00:01") && known.contains("52:54:00:00:00:02"));

    let wrong = rehearse(&["--machines", "1", "--ca", &lab.path("ks.cfg")]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(words(&wrong).contains("no certificate to trust"), "{}", words(&wrong));
}

#[test]
fn a_rehearsal_is_no_attempt_and_gets_no_secret() {
    if !in_a_namespace("a_rehearsal_is_no_attempt_and_gets_no_secret") {
        return;
    }
    let lab = Lab::new();
    let config = BOOTS
        .replace("kind = \"live\"", "secrets = { word = \"planted\" }")
        .replace("ks.cfg", "own.cfg");
    lab.write("own.cfg", "pw {{ secrets.word }}\n");
    let _server = lab.start(&format!("{}{config}", full_unasked()));
    let config = lab.path("pilotlight.toml");
    ip("route add local 10.77.0.96/27 dev lo");
    ip("route add local 10.77.0.128/26 dev lo");
    let machine = || lab.get("/api/v1/machines/52:54:00:00:00:01");
    for _ in 0..4 {
        let (json, steps) =
            figures(&rehearse(&["--config", &config, "--source-per-machine", "--json"]));
        assert!(steps.contains(&("answer".into(), 1, 0)), "{json}");
        let machine = machine();
        assert_eq!((&machine["state"], &machine["attempt"]), (&"assigned".into(), &Value::Null));
        assert_eq!(machine["failures"], 0, "{machine}");
        assert!(machine.to_string().contains("rehearsed: boots profile web"), "{machine}");
    }
    assert_eq!(lab.get("/api/v1/alarms"), Value::Array(vec![]));

    // An installation that runs goes on beside it, and what is rehearsed opens no secret.
    let address = lab.get("/api/v1/leases")[0]["address"].as_str().unwrap().to_string();
    let address = [address, lab.get("/api/v1/leases")[1]["address"].as_str().unwrap().into()]
        .into_iter()
        .find(|at| asks(at, SCRIPT).contains("/b/"))
        .unwrap();
    let seed = |script: &str| {
        let at = script.find("/b/").unwrap_or_else(|| panic!("{script}"));
        format!("{}/answer/ks", &script[at..at + 3 + 32])
    };
    let real = seed(&asks(&address, SCRIPT));
    assert_eq!(machine()["state"], "installing");
    let pretended = asks(&address, &format!("{SCRIPT}&rehearse=1"));
    assert_eq!(asks(&address, &seed(&pretended)), "pw (secret word)\n");
    let report = pretended.find("r=").map(|at| &pretended[at + 2..]).unwrap();
    let report = report.split([' ', '\n']).next().unwrap().trim_start_matches("http://10.77.0.1");
    assert_eq!(asks(&address, &format!("{report}/done")), "noted: progress\n");
    assert_eq!(machine()["state"], "installing");
    assert_eq!(asks(&address, &real), "pw planted\n");
}

const SCRIPT: &str = "/boot/52-54-00-00-00-01.ipxe?memsize=2048";

/// What the boot door says to who asks from an address.
fn asks(from: &str, path: &str) -> String {
    let url = format!("http://10.77.0.1{path}");
    let mut curl = Command::new("curl");
    let out = curl.args(["-sS", "--max-time", "20", "--interface", from, &url]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_pool_that_is_too_small_is_named() {
    if !in_a_namespace("a_pool_that_is_too_small_is_named") {
        return;
    }
    let lab = Lab::new();
    let _server = lab.start(&FULL.replace("199", "104"));
    let out = rehearse(&["--only", "dhcp", "--machines", "8", "--keep-leases", "--json"]);
    assert_eq!(out.status.code(), Some(1), "{}", words(&out));
    let (json, steps) = figures(&out);
    assert_eq!(steps, [("dhcp".to_string(), 5, 3)]);
    assert_eq!((&json["failed"], &json["failures"][0]["times"]), (&3.into(), &3.into()));
    assert_eq!(json["steps"][0]["resent"], 9, "each of the three asked three times more");
    let why = json["failures"][0]["why"].as_str().unwrap();
    assert!(why.contains("no DHCPOFFER") && why.contains("pool full"), "{why}");
}

#[test]
fn a_server_that_is_not_there_and_one_that_is_not_ours() {
    if !in_a_namespace("a_server_that_is_not_there_and_one_that_is_not_ours") {
        return;
    }
    let _lab = Lab::new();
    let out = rehearse(&["--machines", "5"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(words(&out).contains("nobody listens at UDP port 67 of 10.77.0.1"), "{}", words(&out));

    // What may lead out of this machine makes it refuse, and a default route does.
    ip("route add default via 10.77.0.1");
    let out = rehearse(&["--machines", "5"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(words(&out).contains("it has a default route"), "{}", words(&out));
    assert!(words(&out).contains("--i-own-this-network"), "{}", words(&out));
    let out = rehearse(&["--machines", "5", "--i-own-this-network"]);
    assert!(words(&out).contains("nobody listens"), "{}", words(&out));
}

#[test]
fn ctrl_c_ends_it_with_the_table_so_far() {
    if !in_a_namespace("ctrl_c_ends_it_with_the_table_so_far") {
        return;
    }
    let lab = Lab::new();
    let _server = lab.start(FULL);
    let mut child = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
        .args(["rehearse", "--server", "10.77.0.1", "--only", "dhcp", "--rate", "20"])
        .args(["--seconds", "40", "--machines", "50"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("machines begun"), "{line}");
    let interrupt = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    let begun = Instant::now();
    let out = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "it went on to its own end");
    assert!(out.status.success(), "{}", words(&out));
    assert!(words(&out).contains("none failed"), "{}", words(&out));
    let leases = lab.get("/api/v1/leases");
    assert!(leases.as_array().unwrap().iter().all(|l| l["state"] == "released"), "{leases}");
}
