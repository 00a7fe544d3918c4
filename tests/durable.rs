//! What was acknowledged is kept: the real program is killed at its system calls, its disk fails,
//! fills up and is damaged, and each lease whose ACK was seen must be there afterwards.
//!
//! `scripts/torture` runs all of it at length (`PILOTLIGHT_SWEEP=long`) and prints what each test
//! writes to the file that `PILOTLIGHT_TABLE` names.

#[path = "common/namespace.rs"]
mod namespace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip};
use pilotlight::dhcp::wire::{code, read_reply};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an answer may take before it is asked for again.
const SOON: Duration = Duration::from_millis(500);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const CONFIG: &str = r#"
[dhcp]
mode = "full"
[ipxe]
dir = "loaders"
[[subnet]]
network = "10.77.0.0/16"
range = "10.77.1.0-10.77.200.255"
lease-time = "12h"
"#;
const FILES: [&str; 2] = ["pilotlight.redb", "pilotlight.redb.copy"];
/// The calls by which a server changes its files and tells of it.
const CALLS: [&str; 4] = ["pwritev", "fdatasync", "sendmsg", "ftruncate"];

fn long() -> bool {
    std::env::var("PILOTLIGHT_SWEEP").is_ok_and(|v| v == "long")
}

/// The cable, and the server's namespaces (network and mounts) at its other end.
struct Lab {
    /// Holds the namespaces; it ends with its input, and so with the test however that ends.
    holder: Child,
    dir: TempDir,
    relay: UdpSocket,
    /// Each client's address, from the ACKs that were seen.
    acknowledged: BTreeMap<u32, Ipv4Addr>,
    owner: BTreeMap<Ipv4Addr, u32>,
    clients: u32,
    /// Of the table.
    runs: u32,
    lost: BTreeSet<u32>,
    twice: u32,
}

impl Lab {
    /// `tmpfs`: what the state folder is mounted with, in the server's mount namespace alone.
    fn new(tmpfs: Option<&str>) -> Lab {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        fs::create_dir(dir.path().join("loaders")).unwrap();
        fs::write(dir.path().join("pilotlight.toml"), CONFIG).unwrap();
        let mount = match tmpfs {
            Some(options) => {
                format!("mount -t tmpfs -o {options} tmpfs {}/state", dir.path().display())
            }
            None => "true".into(),
        };
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", &format!("{mount} && echo here; exec cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        let there = format!("nsenter --net=/proc/{}/ns/net ip", holder.id());
        ip(&format!("link add nic0 type veth peer name boot0 netns {}", holder.id()));
        ip("address add 10.77.0.2/16 dev nic0");
        ip("link set lo up");
        ip("link set nic0 up");
        for word in ["link set lo up", "address add 10.77.0.1/16 dev boot0", "link set boot0 up"] {
            let done =
                Command::new("sh").args(["-c", &format!("{there} {word}")]).status().unwrap();
            assert!(done.success(), "{word}");
        }
        let relay = UdpSocket::bind((RELAY, 67)).unwrap();
        relay.connect((SERVER, 67)).unwrap();
        relay.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Lab {
            holder,
            dir,
            relay,
            acknowledged: BTreeMap::new(),
            owner: BTreeMap::new(),
            clients: 0,
            runs: 0,
            lost: BTreeSet::new(),
            twice: 0,
        }
    }

    /// The state folder as the server sees it.
    fn state(&self) -> PathBuf {
        let inside = self.dir.path().join("state");
        format!("/proc/{}/root{}", self.holder.id(), inside.display()).into()
    }

    /// In the server's namespaces.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.holder.id().to_string()]);
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    fn spawn(&self) -> Server {
        let mut command = self.there(env!("CARGO_BIN_EXE_pilotlight"));
        let dir = self.dir.path();
        command.arg("serve").arg("--config").arg(dir.join("pilotlight.toml"));
        command.arg("--state-dir").arg(dir.join("state")).args(["--interface", "boot0"]);
        Server::new(command)
    }

    fn start(&self) -> Server {
        let mut server = self.spawn();
        server.says("ready");
        server
    }

    // --- clients ------------------------------------------------------------------------------

    fn send(&self, kind: u8, client: u32, address: Option<Ipv4Addr>) {
        let mut datagram = vec![0; 236];
        datagram[..4].copy_from_slice(&[1, 1, 6, 0]);
        datagram[4..8].copy_from_slice(&client.to_be_bytes());
        datagram[24..28].copy_from_slice(&RELAY.octets());
        datagram[28..30].copy_from_slice(&[2, 0]);
        datagram[30..34].copy_from_slice(&client.to_be_bytes());
        datagram.extend([99, 130, 83, 99, code::MESSAGE_TYPE, 1, kind]);
        for (code, address) in
            [(code::REQUESTED_ADDRESS, address), (code::SERVER_ID, address.and(Some(SERVER)))]
        {
            if let Some(address) = address {
                datagram.extend([code, 4]);
                datagram.extend(address.octets());
            }
        }
        datagram.push(255);
        // Refused: the server is gone, which whoever waits for the answer sees.
        let _ = self.relay.send(&datagram);
    }

    /// What was answered: message type, client, address. An ACK is noted.
    fn hear(&mut self) -> Option<(u8, u32, Ipv4Addr)> {
        let mut buffer = [0; 2048];
        let len = match self.relay.recv(&mut buffer) {
            Ok(len) => len,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                return None;
            }
            Err(e) => panic!("{e}"),
        };
        let (options, message) = read_reply(&buffer[..len]).unwrap();
        let (kind, client) = (options[&code::MESSAGE_TYPE][0], message.xid());
        let address = message.yiaddr();
        if kind == 5 {
            self.acknowledged.insert(client, address);
            if self.owner.insert(address, client).is_some_and(|before| before != client) {
                self.twice += 1;
            }
        }
        Some((kind, client, address))
    }

    /// DISCOVER to ACK for some new clients at once. False where not all of them have one in time.
    fn wave(&mut self, size: u32, server: &mut Server) -> bool {
        let clients: BTreeSet<u32> = (self.clients..self.clients + size).collect();
        self.clients += size;
        self.leases(clients, server)
    }

    fn leases(&mut self, mut waiting: BTreeSet<u32>, server: &mut Server) -> bool {
        for client in &waiting {
            self.send(1, *client, None);
        }
        let mut deadline = Instant::now() + SOON;
        while !waiting.is_empty() && Instant::now() < deadline {
            match self.hear() {
                Some((2, client, address)) if waiting.contains(&client) => {
                    self.send(3, client, Some(address));
                    deadline = Instant::now() + SOON;
                }
                Some((5, client, _)) => drop(waiting.remove(&client)),
                Some(_) => {}
                None if server.ended() => return false,
                None => {}
            }
        }
        waiting.is_empty()
    }

    /// Leases until one is not given; how many waves were.
    fn until_silent(&mut self, size: u32, most: u32, server: &mut Server) -> u32 {
        (0..most).find(|_| !self.wave(size, server)).unwrap_or(most)
    }

    /// It serves again, by itself.
    fn goes_on(&mut self, server: &mut Server) {
        let deadline = Instant::now() + PATIENCE;
        while !self.wave(1, server) {
            assert!(Instant::now() < deadline && !server.ended(), "{:#?}", server.lines());
        }
    }

    // --- what must be there ------------------------------------------------------------------

    /// Every lease that was acknowledged is in the server's list.
    fn all_there(&mut self) {
        self.runs += 1;
        let url = "http://127.0.0.1:8067/api/v1/leases";
        let out = self.there("curl").args(["-sS", "--max-time", "60", url]).output().unwrap();
        let all: Value = serde_json::from_slice(&out.stdout).expect("a list");
        let held: BTreeMap<String, String> = all
            .as_array()
            .unwrap()
            .iter()
            .filter(|l| l["state"] == "bound")
            .map(|l| (l["address"].as_str().unwrap().into(), l["mac"].as_str().unwrap().into()))
            .collect();
        for (client, address) in &self.acknowledged {
            let [a, b, c, d] = client.to_be_bytes();
            let mac = format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
            if held.get(&address.to_string()) != Some(&mac) {
                self.lost.insert(*client);
            }
        }
    }

    /// Every client asks again, gets what it had, and nobody the same; then the table's row.
    fn finish(mut self, fault: &str) {
        let mut server = self.start();
        self.all_there();
        let before = self.acknowledged.clone();
        let all: Vec<u32> = before.keys().copied().collect();
        for some in all.chunks(32) {
            let some: BTreeSet<u32> = some.iter().copied().collect();
            let deadline = Instant::now() + PATIENCE;
            while !self.leases(some.clone(), &mut server) {
                assert!(Instant::now() < deadline, "{:#?}", server.lines());
            }
        }
        let moved = before.iter().filter(|(c, a)| self.acknowledged[*c] != **a).count();
        let (runs, leases) = (self.runs, before.len());
        let (lost, twice) = (self.lost.len(), self.twice);
        let row = format!("{fault:<44} {runs:>5} {leases:>13} {lost:>5} {twice:>12}\n");
        if let Some(table) = std::env::var_os("PILOTLIGHT_TABLE") {
            let mut table = fs::OpenOptions::new().append(true).create(true).open(table).unwrap();
            table.write_all(row.as_bytes()).unwrap();
        }
        assert!(leases > 0, "nothing was tested");
        assert_eq!((lost, twice, moved), (0, 0, 0), "{row}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Without its input `cat` ends; an error here is one that has ended before.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
        // Its namespace goes in its own time, and the cable's name is wanted by the next.
        let _ = Command::new("ip").args(["link", "delete", "nic0"]).stderr(Stdio::null()).status();
    }
}

/// A running server, and its log.
struct Server {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
}

impl Server {
    fn new(mut command: Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Server { child, log, said: Vec::new() }
    }

    /// Waits for a line of the log with this in it.
    fn says(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.iter().any(|l| l.contains(text)) {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(e) => panic!("no {text:?} ({e}) in {:#?}", self.said),
            }
        }
    }

    fn lines(&mut self) -> &[String] {
        self.said.extend(self.log.try_iter());
        &self.said
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// strace on all of its threads, with this to inject.
    fn inject(&self, what: &str) -> Strace {
        let pid = self.child.id().to_string();
        let call = what.split(':').next().unwrap();
        let mut child = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={what}"), "-p", &pid])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        assert!(first.contains("attached"), "{first}");
        std::thread::spawn(move || lines.for_each(drop));
        Strace(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets go of the server when it ends.
struct Strace(Child);

impl Drop for Strace {
    fn drop(&mut self) {
        let kill = format!("kill -TERM {}", self.0.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// In a namespace, and with strace where it is wanted.
fn here(test: &str, strace: bool) -> bool {
    if strace && Command::new("strace").arg("-V").output().is_err() {
        let all = ["CI", "PILOTLIGHT_TESTS_ALL"];
        let left_out = all.iter().all(|v| std::env::var_os(v).is_none());
        assert!(left_out, "nothing may be left out: strace is not installed");
        let _ = writeln!(std::io::stderr(), "left out: {test}: strace is not installed");
        return false;
    }
    in_a_namespace(test)
}

/// Killed at the N-th of each of these calls after it was ready; the next life goes on from there.
#[test]
fn killed_at_any_call() {
    if !here("killed_at_any_call", true) {
        return;
    }
    let short = [1, 2, 3, 5, 8, 13, 21, 34, 55];
    for call in CALLS {
        let mut lab = Lab::new(None);
        for at in if long() { (1..=100).collect() } else { short.to_vec() } {
            let mut server = lab.start();
            lab.all_there();
            let strace = server.inject(&format!("{call}:signal=SIGKILL:when={at}"));
            // One by one, and many in one commit.
            let size = if at % 2 == 0 { 1 } else { 7 };
            lab.until_silent(size, at + 2, &mut server);
            // ftruncate comes when a file grows, and may not.
            let killed = server.ended() || call == "ftruncate";
            assert!(killed, "{call} {at}: {:#?}", server.lines());
            drop(server);
            drop(strace);
        }
        lab.finish(&format!("SIGKILL at the N-th {call}"));
    }
}

/// Killed at the N-th call of its start.
#[test]
fn killed_while_it_starts() {
    if !here("killed_while_it_starts", true) {
        return;
    }
    let mut lab = Lab::new(None);
    for at in 1..=if long() { 40 } else { 8 } {
        for call in ["pwritev", "fdatasync"] {
            let mut server = lab.start();
            lab.all_there();
            assert_eq!(lab.until_silent(3, 2, &mut server), 2);
            drop(server);
            // What there is to write at a start: a file that is gone.
            fs::remove_file(lab.state().join(FILES[at % 2])).unwrap();
            let pilotlight = env!("CARGO_BIN_EXE_pilotlight");
            let dir = lab.dir.path();
            let inject = format!("inject={call}:signal=SIGKILL:when={at}");
            let mut command = lab.there("strace");
            command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
            command.args([pilotlight, "serve", "--interface", "boot0", "--config"]);
            command.arg(dir.join("pilotlight.toml")).arg("--state-dir").arg(dir.join("state"));
            let mut server = Server::new(command);
            // Killed, or started: then it is stopped, which strace passes on.
            let deadline = Instant::now() + PATIENCE;
            while !server.ended() && !server.lines().iter().any(|l| l.contains("ready")) {
                assert!(Instant::now() < deadline);
                std::thread::yield_now();
            }
            if !server.ended() {
                let children = format!("/proc/{0}/task/{0}/children", server.child.id());
                for child in fs::read_to_string(children).unwrap().split_whitespace() {
                    let kill = format!("kill -KILL {child}");
                    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
                }
                server.child.wait().unwrap();
            }
        }
    }
    lab.finish("SIGKILL at the N-th write of a start");
}

#[test]
fn a_sync_that_fails() {
    if !here("a_sync_that_fails", true) {
        return;
    }
    for error in ["EIO", "ENOSPC"] {
        let mut lab = Lab::new(None);
        let mut server = lab.start();
        for at in 1..=if long() { 40 } else { 4 } {
            // Once: it mends itself before the ACK leaves.
            let strace = server.inject(&format!("fdatasync:error={error}:when={at}"));
            lab.until_silent(3, at + 1, &mut server);
            lab.goes_on(&mut server);
            drop(strace);
            lab.all_there();
        }
        // For good: no ACK, until it ends.
        let strace = server.inject(&format!("fdatasync:error={error}:when=1+"));
        let before = lab.acknowledged.len();
        assert!(!lab.wave(5, &mut server), "an ACK that nothing holds");
        assert_eq!(lab.acknowledged.len(), before);
        server.says("sync: ");
        drop(strace);
        lab.goes_on(&mut server);
        lab.all_there();
        // And if it ends just then.
        let strace = server.inject(&format!("fdatasync:error={error}:when=2+"));
        lab.wave(5, &mut server);
        server.signal("KILL");
        drop(server);
        drop(strace);
        lab.finish(&format!("{error} from fdatasync"));
    }
}

#[test]
fn a_full_disk() {
    if !here("a_full_disk", false) {
        return;
    }
    let mut lab = Lab::new(Some("size=8m"));
    for round in 0..if long() { 10 } else { 2 } {
        let mut server = lab.start();
        lab.all_there();
        assert_eq!(lab.until_silent(4, 2, &mut server), 2);
        let filler = lab.state().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        // There is a little room in the store's own files.
        let waves = lab.until_silent(50, 1000, &mut server);
        assert!(waves < 1000, "it was never full");
        server.says("No space left");
        let before = lab.acknowledged.len();
        assert!(!lab.wave(5, &mut server), "an ACK that nothing holds");
        assert_eq!(lab.acknowledged.len(), before);
        if round % 2 == 1 {
            // Killed, and started where there is no room.
            drop(server);
            server = lab.start();
            lab.all_there();
        }
        drop(file);
        fs::remove_file(&filler).unwrap();
        lab.goes_on(&mut server);
        if round % 2 == 0 {
            server.says("takes changes again");
        }
        lab.all_there();
    }
    lab.finish("a full disk, then room");
}

#[test]
fn no_inodes() {
    if !here("no_inodes", false) {
        return;
    }
    let mut lab = Lab::new(Some("size=32m,nr_inodes=12"));
    for round in 0..if long() { 10 } else { 2 } {
        let mut server = lab.start();
        lab.all_there();
        let fillers: Vec<PathBuf> = (0..20)
            .map(|n| lab.state().join(format!("filler{n}")))
            .take_while(|path| fs::File::create(path).is_ok())
            .collect();
        assert!(!fillers.is_empty() && fillers.len() < 20, "{}", fillers.len());
        // Commits want none.
        assert_eq!(lab.until_silent(5, 3, &mut server), 3);
        drop(server);
        // A file that is to be made again does.
        let file = lab.state().join(FILES[round % 2]);
        let length = fs::metadata(&file).unwrap().len();
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 2).unwrap();
        let mut server = lab.start();
        server.says("not written");
        lab.all_there();
        assert!(!lab.wave(5, &mut server), "an ACK that one file alone holds");
        for filler in &fillers {
            fs::remove_file(filler).unwrap();
        }
        lab.goes_on(&mut server);
        lab.all_there();
    }
    lab.finish("no inodes, then some");
}

#[test]
fn a_damaged_file() {
    if !here("a_damaged_file", false) {
        return;
    }
    let mut lab = Lab::new(None);
    for round in 0..if long() { 200 } else { 8 } {
        let mut server = lab.start();
        lab.all_there();
        assert_eq!(lab.until_silent(5, 2, &mut server), 2);
        if round % 4 < 2 {
            server.signal("TERM");
            server.child.wait().unwrap();
        }
        drop(server);
        let file = lab.state().join(FILES[round % 2]);
        let mut bytes = fs::read(&file).unwrap();
        let length = bytes.len();
        match round % 4 {
            0 => bytes.truncate(round * 7919 % length),
            1 => bytes.truncate(0),
            // Where a header, and where a page in use is; the unit tests flip any.
            2 => bytes[round % 64] ^= 1 << (round % 8),
            _ => bytes[4096..].iter_mut().step_by(4096).for_each(|b| *b ^= 4),
        }
        fs::write(&file, bytes).unwrap();
        let mut server = lab.start();
        lab.all_there();
        if round % 4 != 2 {
            server.says("was damaged");
        }
        lab.goes_on(&mut server);
    }
    lab.finish("a file cut short, or with flipped bits");
}
