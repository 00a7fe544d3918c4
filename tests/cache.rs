//! `pilotlight cache`: the real program over a real folder, with an upstream of our own on loopback;
//! beside a running server in a namespace of its own.

#[path = "common/namespace.rs"]
mod namespace;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip};
use pilotlight::mirror::Digest;
use pilotlight::mirror::learn::{self, Learned};
use pilotlight::mirror::record::BODY;
use pilotlight::store::{self, Write};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
const MB: usize = 1 << 20;
const COLUMNS: usize = 80;

/// An archive of a few files, and what was asked of it.
#[derive(Clone)]
struct Upstream {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Path and first byte of each request.
    asked: Vec<(String, usize)>,
    /// No answer goes beyond this byte of the file until it is lifted.
    dam: Option<usize>,
}

impl Upstream {
    fn new(files: &[(&str, Vec<u8>)]) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = files.iter().map(|(name, bytes)| (format!("/{name}"), bytes.clone())).collect();
        let state = State { files, ..State::default() };
        let upstream = Upstream { port, state: Arc::new((Mutex::new(state), Condvar::new())) };
        let me = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (me, stream) = (me.clone(), stream.unwrap());
                // A client that goes away is what some of these tests are about.
                std::thread::spawn(move || me.answer(stream));
            }
        });
        upstream
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
        let path = lines.next()?.split(' ').nth(1)?.to_string();
        let head: Vec<String> = lines.take_while(|l| !l.is_empty()).collect();
        let range = head.iter().find_map(|l| {
            let value = l.to_lowercase().strip_prefix("range: bytes=")?.to_string();
            value.split('-').next()?.parse().ok()
        });
        let from: usize = range.unwrap_or(0);
        let (lock, lifted) = &*self.state;
        let bytes = {
            let mut state = lock.lock().unwrap();
            state.asked.push((path.clone(), from));
            state.files.get(&path).cloned()
        };
        let Some(bytes) = bytes else {
            let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(none.as_bytes()).ok();
        };
        let status = match range {
            None => "200 OK\r\n".to_string(),
            Some(_) => format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n",
                bytes.len() - 1,
                bytes.len()
            ),
        };
        let head = format!(
            "HTTP/1.1 {status}Content-Length: {}\r\nCache-Control: max-age=3600\r\n\
             ETag: \"1\"\r\nConnection: close\r\n\r\n",
            bytes.len() - from
        );
        stream.write_all(head.as_bytes()).ok()?;
        let dam = lock.lock().unwrap().dam.unwrap_or(bytes.len()).clamp(from, bytes.len());
        stream.write_all(&bytes[from..dam]).ok()?;
        if dam < bytes.len() {
            drop(lifted.wait_while(lock.lock().unwrap(), |s| s.dam.is_some()).unwrap());
        }
        stream.write_all(&bytes[dam..]).ok()
    }

    fn dam(&self, at: Option<usize>) {
        self.state.0.lock().unwrap().dam = at;
        self.state.1.notify_all();
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.state.0.lock().unwrap().asked)
    }
}

/// Bytes that look like nothing, and like no other's of another seed.
fn bytes(length: usize, seed: u32) -> Vec<u8> {
    let mut n = seed;
    let mut next = || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        n.to_le_bytes()
    };
    let mut out: Vec<u8> = (0..length / 4 + 1).flat_map(|_| next()).collect();
    out.truncate(length);
    out
}

/// A configuration, its state, and the archive that it names.
struct Lab {
    dir: TempDir,
    upstream: Upstream,
}

impl Lab {
    /// Profile `d12` has `linux` and `initrd.gz`, both pinned by their digests; `doc/readme` is
    /// there, too, and nothing proves it.
    fn new(initrd: usize) -> Lab {
        let files = [
            ("linux", bytes(300_000, 1)),
            ("initrd.gz", bytes(initrd, 2)),
            ("doc/readme", b"read me".to_vec()),
        ];
        let upstream = Upstream::new(&files);
        let pin = |n: usize| format!("\"{}\" = \"{}\"", files[n].0, Digest::sha256(&files[n].1));
        let lab = Lab { dir: tempfile::tempdir().unwrap(), upstream };
        lab.configure(&format!(
            "[[mirror]]\nname = \"deb\"\nurls = [\"http://127.0.0.1:{}/\"]\nprivate = true\n\
             pin = {{ {}, {} }}\n\
             [[profile]]\nname = \"d12\"\nkernel = \"deb/linux\"\ninitrd = \"deb/initrd.gz\"\n\
             [[profile]]\nname = \"web\"\nkernel = \"http://boot.example/linux\"\n",
            lab.upstream.port,
            pin(0),
            pin(1)
        ));
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("pilotlight.toml"), text).unwrap();
    }

    fn pilotlight(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
        command.current_dir(self.dir.path()).args(words.split_whitespace());
        command.args(["--config", "pilotlight.toml", "--state-dir", "state"]);
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "COLUMNS"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.pilotlight(&format!("cache {words}")).output().unwrap()
    }

    /// Standard output of what ends with this code, and says this on the one or other channel.
    #[track_caller]
    fn says(&self, words: &str, code: i32, parts: &[&str]) -> String {
        let out = self.run(words);
        let (said, err) = (text(&out.stdout), text(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{words}: {said}{err}");
        let all = [said.as_str(), err.as_str()].join("\n");
        // As it is without the breaks of lines.
        let flat = all.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(flat.contains(part), "{words}: {part:?} is missing in:\n{all}");
        }
        for line in said.lines() {
            // A single word, a path say, is never broken.
            let words = line.split_whitespace().count();
            assert!(line.chars().count() <= COLUMNS || words == 1, "{line}");
        }
        said
    }

    fn list(&self) -> Value {
        let out = self.run("list --json");
        assert!(out.status.success(), "{}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// The file of the cache that has this path and place.
    fn listed(&self, path: &str, place: &str) -> Option<Value> {
        let list = self.list();
        let is = |f: &&Value| f["path"] == path && f["place"] == place;
        list["files"].as_array().unwrap().iter().find(is).cloned()
    }

    fn file(&self, path: &str) -> PathBuf {
        let listed = self.listed(path, "complete").unwrap_or_else(|| panic!("no {path}"));
        self.path(listed["file"].as_str().unwrap())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// Waits until it is so.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_empty_cache_says_what_fills_it() {
    let lab = Lab::new(1000);
    lab.says("list", 0, &["The cache is empty: there is no state/cache.", "cache fetch PROFILE"]);
    lab.says("verify", 0, &["there is nothing to check"]);
    lab.says("clear", 0, &["There is nothing to remove."]);
    lab.says("clear deb", 1, &["nothing of \"deb\" is in the cache", "cache list"]);
    lab.says("pin deb/linux", 1, &["the cache is empty: `pilotlight cache fetch d12 deb/linux`"]);
    lab.says("pin --profile d12", 1, &["the cache is empty: `pilotlight cache fetch d12` fills"]);
    lab.says("pin", 2, &["--profile <NAME>|MIRROR/PATH"]);
    lab.says("pin linux", 2, &["\"linux\" is no MIRROR/PATH"]);
    assert!(!lab.path("state").exists(), "nothing is made just because somebody looks");
    let list = lab.list();
    assert_eq!(list["files"], serde_json::json!([]));
    assert_eq!(list["limit"], 50_000_000_000_u64);
}

#[test]
fn a_profile_is_fetched_pinned_and_cleared() {
    let lab = Lab::new(400_000);
    let said = lab.says("fetch d12 deb/doc/readme", 0, &["deb/linux: fetched, 300 kB"]);
    assert!(said.starts_with("d12: 3 files, 700 kB: 3 fetched (700 kB) in"), "{said}");
    assert!(lab.upstream.asked().iter().all(|(_, from)| *from == 0));
    lab.says("fetch d12", 0, &["2 files, 700 kB: 0 fetched", "2 held before."]);
    assert_eq!(lab.upstream.asked(), [], "what is held is not asked for again");

    let said = lab.says("list", 0, &["3 files,", "of the 50 GB of [cache] limit (0 %)"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0].split_whitespace().next(), Some("file"));
    let names: Vec<&str> = lines[1..4].iter().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(names, ["deb/doc/readme", "deb/initrd.gz", "deb/linux"]);
    let said = lab.says("list INITRD", 0, &["1 file, 406 kB."]);
    assert!(!said.contains("linux") && !said.contains("limit"), "{said}");
    lab.says("list nothing", 0, &["No file of the cache has \"nothing\" in its name."]);

    lab.says("pin deb/linux", 0, &["1 file pinned,"]);
    lab.says("pin --profile d12", 0, &["1 file pinned,", "; 1 was pinned already."]);
    lab.says("pin --profile d12", 0, &["2 files were pinned already."]);
    lab.says("unpin --profile d12 deb/linux", 0, &["2 files unpinned,"]);
    lab.says("pin --profile d12 deb/linux", 0, &["2 files pinned,"]);
    lab.says("list", 0, &["pinned", "pinned; the disk has"]);
    assert_eq!(lab.listed("linux", "complete").unwrap()["pinned"], true);
    assert_eq!(lab.listed("doc/readme", "complete").unwrap()["pinned"], false);
    lab.says("unpin deb/linux", 0, &["1 file unpinned,"]);
    lab.says("unpin deb/linux", 0, &["1 file was not pinned already."]);
    lab.says("pin --profile web", 1, &["profile web takes nothing from a [[mirror]]"]);
    lab.says("pin deb/none", 1, &["deb/none is not in the cache: `pilotlight cache fetch d12"]);
    lab.says("pin other/x", 1, &["the configuration has no [[mirror]] named \"other\""]);

    lab.says("clear", 1, &["there is nobody to ask: --yes removes 2 files,"]);
    lab.says("clear deb/do --yes", 1, &["nothing of \"deb/do\" is in the cache"]);
    lab.says("clear deb/doc/ --yes", 0, &["1 file removed,"]);
    assert!(lab.listed("doc/readme", "complete").is_none());
    lab.says(
        "clear --yes",
        0,
        &["1 file removed,", "1 pinned file stays (--pinned takes it, too)"],
    );
    assert!(lab.listed("linux", "complete").is_none());
    lab.says("clear --yes", 0, &["There is nothing to remove; 1 pinned file stays"]);
    lab.says(
        "pin --profile d12",
        1,
        &[
            "1 file was pinned already.",
            "1 of the profile's 2 files are not in the cache, deb/linux for one",
            "`pilotlight cache fetch d12` brings what is missing",
        ],
    );
    lab.says("clear --yes --pinned", 0, &["1 file removed,"]);
    lab.says("list", 0, &["The cache is empty: there is nothing in state/cache."]);
}

#[test]
fn what_cannot_be_had_is_told_and_the_rest_is_fetched() {
    let lab = Lab::new(100_000);
    lab.says("fetch nobody", 1, &["there is no profile \"nobody\"; there are d12, web"]);
    lab.says("fetch d12 x/y", 1, &["the configuration has no [[mirror]] named \"x\""]);
    lab.says("fetch d12 deb/../x", 2, &["\"deb/../x\": the path leads out of the mirror"]);
    lab.says("fetch web", 0, &["Profile web takes neither kernel nor initrd from a [[mirror]]"]);
    lab.says(
        "fetch d12 deb/none",
        1,
        &[
            "2 fetched",
            "1 failed.",
            "Failed: deb/none: mirror deb has no none",
            "The same command tries again what failed",
        ],
    );
    let out = lab.run("fetch d12 deb/none --json");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(1), String::new()));
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&json["good"], &json["held"]["files"]), (&false.into(), &2.into()), "{json}");
    let none = &json["files"][2];
    assert_eq!((&none["state"], &none["path"]), (&"failed".into(), &"none".into()), "{json}");
    assert_eq!(none["why"], "mirror deb has no none");

    // An upstream that has something else under that name.
    lab.says("clear --yes", 0, &["2 files removed"]);
    let wrong = bytes(100_000, 9);
    lab.upstream.state.0.lock().unwrap().files.insert("/initrd.gz".into(), wrong);
    lab.says("fetch d12", 1, &["1 failed.", "Failed: deb/initrd.gz: ", "was expected; set aside"]);
    lab.says(
        "list",
        0,
        &["set aside: digest", "; 1 set aside,", "Set aside, digest: its bytes", "(…): what"],
    );
    lab.says("clear --yes", 0, &["2 files removed"]);
    lab.says("fetch d12", 1, &["1 fetched", "1 failed"]);

    // Without an upstream what is held is held.
    let config = fs::read_to_string(lab.path("pilotlight.toml")).unwrap();
    lab.configure(&format!("[cache]\noffline = true\n{config}"));
    let said = lab.says(
        "fetch d12",
        1,
        &["1 held before", "[cache] offline = true asks no upstream", "write offline = false"],
    );
    assert!(!said.contains("tries again"), "{said}");
}

#[test]
fn what_the_last_installation_asked_for_is_fetched_and_pinned_too() {
    let lab = Lab::new(1000);
    let mut learned = Learned::default();
    let now = jiff::Timestamp::now();
    for path in ["linux", "doc/readme"] {
        learned.asked("token", "d12", ("deb".into(), path.into()), now);
    }
    fs::create_dir(lab.path("state")).unwrap();
    let store = store::open(&lab.path("state")).unwrap();
    store.commit(&[Write::put("mirror-learned", "d12", learn::record(learned.of("d12")))]).unwrap();
    drop(store);
    lab.says("fetch d12", 0, &["3 files,", "3 fetched"]);
    lab.says("pin --profile d12", 0, &["3 files pinned"]);
    assert_eq!(lab.listed("doc/readme", "complete").unwrap()["pinned"], true);
}

#[test]
fn what_is_made_belongs_to_the_owner_of_the_folder() {
    fn check(dir: &Path, owner: u32) -> usize {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap());
        let each = |e: fs::DirEntry| {
            let meta = e.metadata().unwrap();
            assert_eq!(meta.uid(), owner, "{}", e.path().display());
            if meta.is_dir() { check(&e.path(), owner) } else { 1 }
        };
        entries.map(each).sum()
    }
    let lab = Lab::new(1000);
    let state = lab.path("state");
    fs::create_dir(&state).unwrap();
    // The service's user, where the command line is root's.
    if nix::unistd::geteuid().is_root() {
        lchown(&state, Some(65_534), Some(65_534)).unwrap();
    }
    lab.says("fetch d12", 0, &["2 fetched"]);
    lab.says("pin --profile d12", 0, &["2 files pinned"]);
    assert_eq!(check(&state, fs::metadata(&state).unwrap().uid()), 4, "two of them the store's");
}

#[test]
fn a_flipped_byte_is_found_and_fetched_again() {
    let lab = Lab::new(200_000);
    lab.says("fetch d12 deb/doc/readme", 0, &["3 fetched"]);
    lab.says("verify", 0, &["3 files read,", "2 right, 1 without a digest."]);
    lab.says("pin deb/linux", 0, &["1 file pinned"]);
    flip(&lab.file("linux"), BODY + 123_456);
    lab.says(
        "verify",
        1,
        &[
            "1 right, 1 without a digest, 1 wrong.",
            "Wrong: deb/linux: its bytes are not those of its digest; set aside; it was pinned",
            "pilotlight cache fetch PROFILE",
        ],
    );
    lab.says("verify", 0, &["2 files read"]);
    lab.says("list", 0, &["set aside: digest"]);
    lab.upstream.asked();
    lab.says("fetch d12", 0, &["1 fetched (300 kB)", "1 held before"]);
    assert_eq!(lab.upstream.asked(), [("/linux".into(), 0)]);
    lab.says("verify", 0, &["3 files read"]);

    flip(&lab.file("initrd.gz"), BODY + 5);
    let out = lab.run("verify --json");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(1), String::new()));
    let json: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&json["good"], &json["right"]), (&false.into(), &1.into()), "{json}");
    assert_eq!(json["wrong"][0]["path"], "initrd.gz", "{json}");
}

#[test]
fn a_damaged_header_is_found() {
    let lab = Lab::new(1000);
    lab.says("fetch d12", 0, &["2 fetched"]);
    let file = lab.file("linux");
    // The magic of both slots.
    flip(&file, 0);
    flip(&file, BODY / 2);
    lab.says("verify", 1, &["1 right, 1 damaged or not to be read.", "Damaged: ", "is set aside"]);
    lab.says("list", 0, &["set aside: strange", "it does not begin with a header block of ours"]);
    lab.says("fetch d12", 0, &["1 fetched (300 kB)"]);
    lab.says("clear --yes", 0, &["3 files removed"]);
}

/// A fetch that has come as far as the dam.
fn begun(lab: &Lab, words: &str) -> Child {
    lab.pilotlight(&format!("cache fetch {words}")).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn a_killed_fetch_goes_on_from_its_checkpoint() {
    let lab = Lab::new(72 * MB);
    lab.upstream.dam(Some(70 * MB));
    let mut child = begun(&lab, "d12");
    let there = || lab.listed("initrd.gz", "partial").and_then(|l| l["there"].as_u64());
    until("a checkpoint", || there().is_some_and(|n| n > 0));
    signal(&child, "KILL");
    assert_eq!(child.wait().unwrap().code(), None);
    let kept = usize::try_from(there().unwrap()).unwrap();
    assert!((32 * MB..=70 * MB).contains(&kept), "{kept}");
    lab.says("list", 0, &["deb/initrd.gz", "partial", "; 1 partial,"]);
    lab.says("pin deb/initrd.gz", 1, &["of deb/initrd.gz only a part is in the cache"]);

    lab.upstream.asked();
    lab.upstream.dam(None);
    lab.says("fetch d12", 0, &["2 files, 75.8 MB"]);
    let asked = lab.upstream.asked();
    let initrd: Vec<_> = asked.iter().filter(|(path, _)| path == "/initrd.gz").collect();
    assert_eq!(initrd, [&("/initrd.gz".to_string(), kept)], "the rest alone");
    lab.says("verify", 0, &["2 right."]);
}

#[test]
fn ctrl_c_keeps_what_is_there() {
    let lab = Lab::new(MB);
    lab.upstream.dam(Some(700_000));
    let mut child = begun(&lab, "d12");
    let bytes = || {
        let entries = fs::read_dir(lab.path("state/cache/partial")).into_iter().flatten();
        entries.flatten().map(|e| e.metadata().map_or(0, |m| m.len())).max()
    };
    until("all up to the dam", || bytes() == Some(BODY + 700_000));
    until("the other is whole", || lab.listed("linux", "complete").is_some());
    signal(&child, "INT");
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("Interrupted: the same command goes on from where it stood."), "{said}");
    assert_eq!(lab.listed("initrd.gz", "partial").unwrap()["there"], 700_000);

    lab.upstream.asked();
    lab.upstream.dam(None);
    lab.says("fetch d12", 0, &["1 fetched", "1 held before"]);
    assert_eq!(lab.upstream.asked(), [("/initrd.gz".to_string(), 700_000)]);

    // A part that was left lying goes with the rest.
    lab.says("clear --yes", 0, &["2 files removed"]);
    lab.upstream.dam(Some(500_000));
    let mut child = begun(&lab, "d12");
    until("all up to the dam", || bytes() == Some(BODY + 500_000));
    let said = lab.says("clear deb --yes", 0, &["1 file removed"]);
    assert!(!said.contains("2 files"), "what is arriving has no name yet: {said}");
    lab.says("clear --yes", 0, &["is arriving just now, and stays"]);
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    lab.says("clear deb/initrd.gz --yes", 0, &["1 file removed"]);
    lab.says("list", 0, &["there is nothing in state/cache."]);
}

/// `pilotlight serve` that ends with this.
struct Server(Child);

impl Server {
    fn start(lab: &Lab) -> Server {
        let mut child = lab.pilotlight("serve --interface boot0").spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let ready = lines.by_ref().map_while(Result::ok).any(|l| {
            said.push(l.clone());
            l.ends_with("ready")
        });
        let server = Server(child);
        assert!(ready, "{said:#?}");
        // Its log must not stand still.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Status and body of the admin door.
fn curl(path: &str, more: &[&str]) -> (u32, String) {
    let out = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--max-time", "30", "-w", "\n%{response_code}"])
        .args(more)
        .arg(format!("http://127.0.0.1:8067{path}"))
        .output()
        .unwrap();
    let said = text(&out.stdout);
    let (body, code) = said.rsplit_once('\n').unwrap_or_else(|| panic!("{}", text(&out.stderr)));
    (code.parse().unwrap(), body.to_string())
}

#[test]
fn a_running_server_fetches_and_hears_of_the_rest() {
    if !in_a_namespace("a_running_server_fetches_and_hears_of_the_rest") {
        return;
    }
    ip("link set lo up");
    ip("link add boot0 type veth peer name nic0");
    ip("address add 10.77.0.1/24 dev boot0");
    ip("link set boot0 up");
    ip("link set nic0 up");
    let lab = Lab::new(2 * MB);
    let server = Server::start(&lab);

    // The door itself.
    let url = "/api/v1/cache/fetch/d12";
    let header = ["-H", "pilotlight: cache"];
    let post = |path: &str, body: &str| curl(path, &[&header[..], &["-d", body]].concat());
    let (code, said) = curl(url, &["-d", ""]);
    assert_eq!(code, 403, "a web page could have sent it");
    assert!(said.contains("carries the header `pilotlight: 1`"), "{said}");
    assert_eq!(curl(url, &[&header[..], &["-X", "PUT"]].concat()).0, 405);
    assert_eq!(curl(url, &[]).0, 404, "nothing was ordered");
    assert_eq!(post("/api/v1/cache/fetch/nobody", "").0, 404);
    for bad in ["no list", "[1]", "[\"deb\"]", "[\"deb/../x\"]"] {
        assert_eq!(post(url, bad).0, 400, "{bad}");
    }
    assert_eq!(curl("/api/v1/cache/recount", &["-d", ""]).0, 403);
    assert_eq!(post("/api/v1/cache/recount", "").0, 204);
    assert_eq!(lab.upstream.asked(), []);
    let (_, files) = curl("/api/v1/cache/profile/d12", &[]);
    assert_eq!(files, "[\"deb/linux\",\"deb/initrd.gz\"]");

    // While it goes on its state can be seen, and a second order joins it.
    lab.upstream.dam(Some(1_500_000));
    assert_eq!(post(url, "").0, 202);
    let state = || serde_json::from_str::<Value>(&curl(url, &[]).1).unwrap();
    until("up to the dam", || state()["files"][1]["bytes"] == 1_500_000);
    let initrd = state()["files"][1].clone();
    assert_eq!(initrd["state"], "fetching", "{initrd}");
    assert_eq!(initrd["total"], 2 * MB, "{initrd}");
    let client = begun(&lab, "d12 deb/doc/readme deb/none");
    until("the second order", || state()["files"].as_array().unwrap().len() == 4);
    assert_eq!(state()["over"], false);
    lab.upstream.dam(None);
    let out = client.wait_with_output().unwrap();
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("d12: 4 files") && said.contains("3 fetched"), "{said}");
    assert!(said.contains("Failed: deb/none: mirror deb has no none"), "{said}");
    assert_eq!(state()["over"], true);
    let asked = lab.upstream.asked();
    for path in ["/linux", "/doc/readme", "/none"] {
        assert_eq!(
            asked.iter().filter(|(p, from)| p == path && *from == 0).count(),
            1,
            "{asked:?}"
        );
    }

    // Beside it the others work on the same folder.
    lab.says("pin --profile d12", 0, &["2 files pinned"]);
    lab.says("verify", 0, &["3 files read"]);
    lab.says("clear --yes", 0, &["1 file removed", "2 pinned files stay"]);
    lab.says("fetch d12", 0, &["2 held before"]);
    assert_eq!(lab.upstream.asked(), []);
    lab.says("clear --yes --pinned", 0, &["2 files removed"]);
    flip_after_fetch(&lab);

    // Its admin door is needed for that.
    lab.says("fetch d12 --server 127.0.0.1:9", 1, &["no server answers at 127.0.0.1:9"]);
    lab.says("fetch d12 --server 127.0.0.1:8067", 0, &["2 held before"]);
    lab.says("fetch nobody --server 127.0.0.1:8067", 1, &["configuration has no profile"]);
    drop(server);
    lab.says("fetch d12", 0, &["2 held before"]);
}

/// Through the server, found beside it, and through the server again.
fn flip_after_fetch(lab: &Lab) {
    lab.says("fetch d12", 0, &["2 fetched"]);
    flip(&lab.file("linux"), BODY);
    lab.says("verify", 1, &["Wrong: deb/linux"]);
    lab.upstream.asked();
    lab.says("fetch d12", 0, &["1 fetched (300 kB)", "1 held before"]);
    assert_eq!(lab.upstream.asked(), [("/linux".into(), 0)]);
}

#[test]
fn without_an_admin_door_a_running_server_cannot_be_asked() {
    let lab = Lab::new(1000);
    let config = fs::read_to_string(lab.path("pilotlight.toml")).unwrap();
    lab.configure(&format!("[http]\nadmin = \"off\"\n{config}"));
    fs::create_dir(lab.path("state")).unwrap();
    let _server = store::open(&lab.path("state")).unwrap();
    lab.says("fetch d12", 1, &["turns [http] admin off", "stop the server first"]);
    // A port that nobody has any more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    lab.configure(&format!("[http]\nadmin = \"127.0.0.1:{port}\"\n{config}"));
    for words in ["fetch d12", "pin --profile d12"] {
        let silent = format!("has this cache open, and does not answer at 127.0.0.1:{port}: it is");
        lab.says(words, 1, &[&silent, "try again in a moment", "[http] admin"]);
        let said = text(&lab.run(words).stderr);
        assert!(!said.contains("pilotlight serve"), "there is one: {said}");
    }
}
