//! Planted secrets, and all the places where they must not be: the real program in a network
//! namespace of its own.

#[path = "common/namespace.rs"]
mod namespace;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip, left_out};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const ALL: [&str; 5] =
    ["planted-file", "planted-env", "planted-literal", "planted-bmc", "planted-hook"];
const CONFIG: &str = r#"
[dhcp]
mode = "off"
[ipxe]
dir = "loaders"
[[media]]
name = "pub"
dir = "pub"
installer = "own"
[installers]
dir = "installers"
[[webhook]]
url = "http://127.0.0.1:9/"
secret = "planted-hook"
[[profile]]
name = "web"
install = "pub"
args = "answer={{ answers.seed }}"
answers = { seed = "seed.txt", bad = "bad.txt" }
[profile.secrets]
file = { file = "secret" }
env = { env = "PLANTED" }
root_password = "overridden"
[[machine]]
name = "web1"
mac = "52:54:00:00:00:01"
profile = "web"
secrets = { root_password = "planted-literal" }
power = { redfish = "http://127.0.0.1:9/redfish/v1/Systems/1", user = "admin", password = "planted-bmc" }
"#;

/// A folder with the configuration, and the program's words in `log`.
struct Lab {
    dir: TempDir,
}

impl Lab {
    fn new() -> Lab {
        ip("link set lo up");
        ip("link add boot0 type veth peer name nic0");
        ip("address add 10.77.0.1/24 dev boot0");
        ip("link set nic0 up");
        ip("link set boot0 up");
        let lab = Lab { dir: tempfile::tempdir().unwrap() };
        for (name, text) in [
            ("pilotlight.toml", CONFIG),
            ("secret", "planted-file\n"),
            ("loaders/snponly.efi", "MZ"),
            ("pub/linux", "kernel"),
            (
                "installers/own/installer.toml",
                "title = \"Own\"\narches = { x86_64 = \"x\" }\nanswers = [\"own.cfg\"]\n\
                 always = [\"own.cfg\"]\n[boot]\nkernel = \"linux\"\n",
            ),
            (
                "installers/own/own.cfg",
                "root-password-crypted password {{ secrets.root_password }}\n",
            ),
            ("seed.txt", "{{ secrets.file }} {{ secrets.env }} {{ secrets.root_password }}\n"),
            // Only what is not `(secret NAME)` is quoted by this error.
            (
                "bad.txt",
                "{% if secrets.file is containing(pat=\"planted\") %}{{ throw(message=secrets.file) }}\
                 {% endif %}",
            ),
        ] {
            let path = lab.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        lab
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The program, which does not outlive this thread, with no limit on the size of a core.
    fn pilotlight(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -c unlimited; exec setpriv --pdeathsig KILL \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_pilotlight"))
            .args(arguments)
            .env("PLANTED", "planted-env")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn serve(&self, log: &str, more: &[&str]) -> Server {
        let given = ["serve", "-c", "pilotlight.toml", "--state-dir", "state", "-i", "boot0"];
        let mut command = self.pilotlight(&[&given, more].concat());
        let file = fs::File::create(self.path(log)).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let mut server = Server(command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let log = self.path(log);
        while !fs::read_to_string(&log).unwrap().contains("ready") {
            let said = || fs::read_to_string(&log).unwrap();
            assert!(server.0.try_wait().unwrap().is_none(), "it ended: {}", said());
            assert!(Instant::now() < deadline, "it is not ready: {}", said());
            std::thread::yield_now();
        }
        server
    }

    /// What a command of the program prints.
    fn says(&self, arguments: &[&str]) -> Vec<u8> {
        let out = self.pilotlight(arguments).output().unwrap();
        [out.stdout, out.stderr].concat()
    }
}

struct Server(Child);

impl Server {
    fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Head and body, whatever the status.
fn get(url: &str) -> String {
    curl(&[url])
}

fn curl(given: &[&str]) -> String {
    let out = Command::new("curl").args(["-sSi", "--max-time", "20"]).args(given).output().unwrap();
    assert!(out.status.success(), "{given:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The stream of events while it is heard.
struct Stream {
    curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
    heard: String,
}

impl Stream {
    fn open(url: &str) -> Stream {
        let mut curl = Command::new("curl");
        curl.args(["-sSiN", "--max-time", "60", url]).stdout(Stdio::piped());
        let mut curl = curl.spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        Stream { curl, lines, heard: String::new() }
    }

    fn until(&mut self, word: &str) {
        while !self.heard.contains(word) {
            let next = self.lines.next().unwrap_or_else(|| panic!("{word}: {}", self.heard));
            self.heard += &(next.unwrap() + "\n");
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

/// The planted texts in what came from there.
fn found(there: &str, bytes: &[u8]) -> Vec<String> {
    let holds = |text: &&&str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    ALL.iter().filter(holds).map(|text| format!("{text} in {there}")).collect()
}

/// The same of every file below a folder.
fn found_below(dir: &Path, seen: &mut usize) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(found_below(&path, seen));
        } else if let Ok(mut file) = fs::File::open(&path) {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            *seen += 1;
            all.extend(found(&path.display().to_string(), &bytes));
        }
    }
    all
}

#[test]
fn a_secret_is_in_its_answer_and_nowhere_else() {
    if !in_a_namespace("a_secret_is_in_its_answer_and_nowhere_else") {
        return;
    }
    let lab = Lab::new();
    let mut all = Vec::new();
    for (n, more) in [&["--verbose"][..], &["--verbose", "--log-json"]].into_iter().enumerate() {
        let log = format!("log{n}");
        let mut server = lab.serve(&log, more);
        let (door, admin) = ("http://10.77.0.1", "http://127.0.0.1:8067");
        let mut events = Stream::open(&format!("{admin}/api/v1/events"));
        events.until("event: hello");
        let script = get(&format!("{door}/boot/52-54-00-00-00-01.ipxe"));
        let at = script.find("/b/").unwrap_or_else(|| panic!("no kernel: {script}"));
        let token: String = script[at + 3..].chars().take_while(char::is_ascii_hexdigit).collect();
        assert_eq!(token.len(), 32, "{script}");
        all.extend(found("the script", script.as_bytes()));

        let answer = get(&format!("{door}/b/{token}/answer/seed"));
        assert!(answer.ends_with("\r\n\r\nplanted-file planted-env planted-literal\n"), "{answer}");
        assert!(answer.to_lowercase().contains("cache-control: no-store"), "{answer}");
        let own = get(&format!("{door}/b/{token}/answer/own.cfg"));
        assert!(own.contains("root-password-crypted password planted-literal\n"), "{own}");

        let bad = get(&format!("{door}/b/{token}/answer/bad"));
        assert!(bad.contains("cannot be filled with its secrets as they are now"), "{bad}");
        all.extend(found("the error", bad.as_bytes()));
        for path in [
            format!("/b/{token}/answer/none"),
            format!("/b/{}/answer/seed", "0".repeat(32)),
            format!("/b/{token}/report/busy"),
            format!("/b/{token}/files/pub/linux"),
            "/files/pub/".into(),
            "/answer/seed".into(),
            "/".into(),
        ] {
            all.extend(found(&path, get(&format!("{door}{path}")).as_bytes()));
        }
        fs::rename(lab.path("secret"), lab.path("moved")).unwrap();
        let gone = get(&format!("{door}/b/{token}/answer/seed"));
        assert!(gone.contains("cannot be read: there is no such file"), "{gone}");
        all.extend(found("the error of a file that is gone", gone.as_bytes()));
        fs::rename(lab.path("moved"), lab.path("secret")).unwrap();

        // A second reader: refused, and told of.
        ip("address add 10.77.0.99/24 dev boot0");
        let other = curl(&["--interface", "10.77.0.99", &format!("{door}/b/{token}/answer/seed")]);
        assert!(other.starts_with("HTTP/1.1 403 "), "{other}");
        all.extend(found("the refusal", other.as_bytes()));
        ip("address delete 10.77.0.99/24 dev boot0");

        for path in [
            "/",
            "/machines/web1",
            "/machines/web1/script",
            "/metrics",
            "/api/v1/machines?timeline=true",
            "/api/v1/machines/web1",
            "/api/v1/machines/web1/boots",
            "/api/v1/machines/web1/script",
            "/api/v1/profiles",
            "/api/v1/leases",
            "/api/v1/alarms",
            "/api/v1/refusals",
            "/api/v1/status",
        ] {
            let said = get(&format!("{admin}{path}"));
            assert!(said.starts_with("HTTP/1.1 200 "), "{path}: {said}");
            all.extend(found(path, said.as_bytes()));
        }
        let alarms = get(&format!("{admin}/api/v1/alarms"));
        assert!(alarms.contains("second-reader"), "{alarms}");
        let one = get(&format!("{admin}/api/v1/machines/web1"));
        let (_, one) = one.split_once("\r\n\r\n").unwrap();
        let one: serde_json::Value = serde_json::from_str(one).unwrap();
        let handed = |e: &&serde_json::Value| {
            e["stage"] == "answer" && e["detail"].as_str().unwrap().starts_with("seed (")
        };
        let times = one["timeline"].as_array().unwrap().iter().filter(handed).count();
        assert_eq!(times, 1, "{one}");
        events.until("second-reader");
        assert!(events.heard.starts_with("HTTP/1.1 200 "), "{}", events.heard);
        assert!(events.heard.contains("\"seed ("), "{}", events.heard);
        all.extend(found("the stream of events", events.heard.as_bytes()));
        drop(events);
        for words in [
            &["check", "-c", "pilotlight.toml"][..],
            &["check", "-c", "pilotlight.toml", "--json"],
            &["explain", "52:54:00:00:00:01", "-c", "pilotlight.toml"],
            &["explain", "52:54:00:00:00:01", "-c", "pilotlight.toml", "--json"],
            &["timeline", "52:54:00:00:00:01"],
        ] {
            let said = lab.says(words);
            assert!(said.len() > 30, "{words:?}: {}", String::from_utf8_lossy(&said));
            all.extend(found(&words.join(" "), &said));
        }
        assert!(server.end(Signal::SIGTERM).success());
        let said = fs::read_to_string(lab.path(&log)).unwrap();
        assert!(said.contains("secrets as they are now"), "the log has the refusal: {said}");
        all.extend(found(&log, said.as_bytes()));
    }
    let mut seen = 0;
    all.extend(found_below(&lab.path("state"), &mut seen));
    assert!(seen > 0, "the state is not where it was");
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn no_core_is_dumped() {
    if !in_a_namespace("no_core_is_dumped") {
        return;
    }
    let lab = Lab::new();
    let mut server = lab.serve("log", &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.0.id())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let ended = server.end(Signal::SIGABRT);
    assert_eq!(ended.signal(), Some(Signal::SIGABRT as i32), "{ended}");
    assert!(!ended.core_dumped(), "{ended}");
    // Another program's core is dumped in the same place.
    let other = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; kill -ABRT $$"])
        .current_dir(lab.dir.path())
        .status()
        .unwrap();
    assert_eq!(other.signal(), Some(Signal::SIGABRT as i32), "{other}");
    if !other.core_dumped() {
        left_out("no_core_is_dumped", "no program's core is dumped on this machine");
    }
}
