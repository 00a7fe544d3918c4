//! The admin door beyond loopback: the real program in a network namespace of its own.

#[path = "common/namespace.rs"]
mod namespace;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// The second address is for people alone: machines are served on the first.
const CONFIG: &str = r#"
[dhcp]
mode = "off"
[ipxe]
dir = "loaders"
[http]
admin = "10.88.0.1:8443"
[[profile]]
name = "web"
kernel = "http://10.77.0.1/linux"
[[machine]]
name = "web1"
mac = "52:54:00:00:00:01"
profile = "web"
"#;
const DOOR: &str = "https://10.88.0.1:8443";

struct Lab {
    dir: TempDir,
}

/// The program, and its words.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn stop(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.said());
        self.said()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    fn new() -> Lab {
        ip("link set lo up");
        for (name, peer, address) in
            [("boot0", "nic0", "10.77.0.1/24"), ("office0", "desk0", "10.88.0.1/24")]
        {
            ip(&format!("link add {name} type veth peer name {peer}"));
            ip(&format!("address add {address} dev {name}"));
            ip(&format!("link set {peer} up"));
            ip(&format!("link set {name} up"));
        }
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(lab.path("loaders")).unwrap();
        fs::write(lab.path("loaders/snponly.efi"), "MZ").unwrap();
        fs::write(lab.path("pilotlight.toml"), CONFIG).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, which does not outlive this thread.
    fn pilotlight(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_pilotlight")]);
        for name in ["PILOTLIGHT_CA", "PILOTLIGHT_TOKEN"] {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn serve(&self, log: &str) -> Server {
        let log = self.path(log);
        let file = fs::File::create(&log).unwrap();
        let mut command = self.pilotlight();
        command.args(["serve", "-c", "pilotlight.toml", "--state-dir", "state", "-i", "boot0"]);
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut server = Server { child: command.spawn().unwrap(), log };
        let deadline = Instant::now() + PATIENCE;
        while !server.said().contains("ready") {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended: {}", server.said());
            assert!(Instant::now() < deadline, "it is not ready: {}", server.said());
            std::thread::yield_now();
        }
        server
    }

    fn curl(&self, given: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["-sSi", "--noproxy", "*", "--max-time", "20"]).args(given);
        command.current_dir(self.dir.path()).output().unwrap()
    }

    /// Status, and all that came.
    fn get(&self, given: &[&str]) -> (u16, String) {
        let out = self.curl(given);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{given:?}: {}", String::from_utf8_lossy(&out.stderr));
        (said.split(' ').nth(1).unwrap().parse().unwrap(), said)
    }

    fn status(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = self.pilotlight();
        let out = command.args(["status", "--server", DOOR]).args(more).output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

fn first_token(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("shown this once: ")?;
    rest.split_whitespace().next().map(str::to_string)
}

#[test]
fn beyond_loopback_it_is_https_and_wants_a_token() {
    if !in_a_namespace("beyond_loopback_it_is_https_and_wants_a_token") {
        return;
    }
    let lab = Lab::new();
    let server = lab.serve("log");
    let token = first_token(&server.said()).unwrap_or_else(|| panic!("{}", server.said()));
    fs::write(lab.path("token"), format!("{token}\n")).unwrap();
    let ca = "state/tls/ca.pem";

    // Nobody gets in without: by no path, by no other root, by no plain HTTP.
    for path in ["/api/v1/status", "/api/v1/events", "/metrics", "/api/v1/machines/web1"] {
        let (status, said) = lab.get(&["--cacert", ca, &format!("{DOOR}{path}")]);
        assert_eq!(status, 401, "{path}: {said}");
        assert!(!said.contains("web1"), "{said}");
    }
    let page = ["--cacert", ca, "-H", "accept: text/html", &format!("{DOOR}/")];
    let (status, said) = lab.get(&page);
    assert!(status == 303 && said.contains("/login"), "{said}");
    let wrong = ["--cacert", ca, "-H", "authorization: Bearer nothing", &format!("{DOOR}/metrics")];
    assert_eq!(lab.get(&wrong).0, 401);
    let stranger = lab.curl(&[&format!("{DOOR}/healthz")]);
    assert_eq!(stranger.status.code(), Some(60), "a certificate that this machine trusts");
    let plain = lab.curl(&["http://10.88.0.1:8443/healthz"]);
    assert!(!plain.status.success(), "{}", String::from_utf8_lossy(&plain.stdout));

    // With it, by the address that the certificate names.
    let bearer = format!("authorization: Bearer {token}");
    for path in ["/api/v1/status", "/metrics", "/", "/machines/web1"] {
        let (status, said) = lab.get(&["--cacert", ca, "-H", &bearer, &format!("{DOOR}{path}")]);
        assert_eq!(status, 200, "{path}: {said}");
    }
    let (code, said) = lab.status(&["--ca", ca, "--token-file", "token"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("boot0 (10.77.0.1/24)") && said.contains("1 assigned"), "{said}");
    let (code, said) = lab.status(&["--ca", ca]);
    assert!(code == Some(1) && said.contains("token"), "{said}");
    let (code, said) = lab.status(&["--token-file", "token"]);
    assert!(code == Some(1) && said.contains("--ca"), "{said}");

    // Machines' door shows none of it, and [tls] is off there.
    for path in ["/api/v1/status", "/api/v1/machines", "/metrics", "/login", "/machines/web1"] {
        let (status, said) = lab.get(&["-H", &bearer, &format!("http://10.77.0.1{path}")]);
        assert_eq!(status, 404, "{path}: {said}");
    }
    assert!(!lab.get(&["http://10.77.0.1/"]).1.contains("web1"));
    assert_eq!(lab.curl(&["-k", "https://10.77.0.1/"]).status.code(), Some(7), "no HTTPS there");
    // Its CA is there for whoever comes to the admin door, and is the one that made its certificate.
    let (status, said) = lab.get(&["http://10.77.0.1/ca.pem"]);
    assert!(status == 200 && said.contains(&fs::read_to_string(lab.path(ca)).unwrap()), "{said}");

    // The commands on this host need nothing of all that; pages of other names get nothing.
    let made = lab.pilotlight().args(["token", "make", "second"]).output().unwrap();
    let made = String::from_utf8_lossy(&[made.stdout, made.stderr].concat()).into_owned();
    assert!(made.contains("pl_"), "{made}");
    let near = "http://127.0.0.1:8067";
    assert_eq!(lab.get(&[&format!("{near}/api/v1/tokens")]).0, 200);
    let rebound = ["-H", "host: evil.example", &format!("{near}/api/v1/tokens")];
    assert_eq!(lab.get(&rebound).0, 403);
    assert_ne!(lab.curl(&["http://10.88.0.1:8067/healthz"]).status.code(), Some(0));
    // It may not be there twice.
    let other =
        CONFIG.replace("10.88.0.1:8443", "10.88.0.1:8444").replace("[http]", "[http]\nport = 81");
    fs::write(lab.path("other.toml"), other).unwrap();
    let mut second = lab.pilotlight();
    second.args(["serve", "-c", "other.toml", "--state-dir", "state2", "-i", "boot0"]);
    let second = second.output().unwrap();
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && words.contains("port 8067 on 127.0.0.1"), "{words}");

    let said = server.stop();
    assert_eq!(said.matches(&token).count(), 1, "{said}");
    assert!(said.contains(DOOR) && said.contains(near), "{said}");
    // The token lasts, and is not told again.
    let server = lab.serve("log2");
    let (code, said) = lab.status(&["--ca", ca, "--token-file", "token"]);
    assert_eq!(code, Some(0), "{said}");
    let said = server.stop();
    assert!(first_token(&said).is_none() && !said.contains(&token), "{said}");
}

#[test]
fn on_all_addresses_this_host_still_needs_no_token() {
    if !in_a_namespace("on_all_addresses_this_host_still_needs_no_token") {
        return;
    }
    let lab = Lab::new();
    let all = CONFIG.replace("10.88.0.1:8443", "0.0.0.0:8067");
    fs::write(lab.path("pilotlight.toml"), all).unwrap();
    let server = lab.serve("log");
    let ca = "state/tls/ca.pem";
    for _ in 0..8 {
        assert_eq!(lab.get(&["http://127.0.0.1:8067/api/v1/status"]).0, 200);
        let far = ["--cacert", ca, "https://10.88.0.1:8067/api/v1/status"];
        assert_eq!(lab.get(&far).0, 401);
    }
    let mut second = lab.pilotlight();
    second.args(["serve", "-c", "other.toml", "--state-dir", "state2", "-i", "boot0"]);
    let other =
        CONFIG.replace("10.88.0.1:8443", "0.0.0.0:8067").replace("[http]", "[http]\nport = 81");
    fs::write(lab.path("other.toml"), other).unwrap();
    let second = second.output().unwrap();
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && words.contains("port 8067"), "{words}");
    server.stop();
}
