//! The real program between two network namespaces: its own one with `boot0` (10.77.0.1), and that
//! of the machines with `nic0` (10.77.0.2), where the tests are.

#[path = "common/datagram.rs"]
mod datagram;
#[path = "common/fields.rs"]
mod fields;
#[path = "common/namespace.rs"]
mod namespace;

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use datagram::{Datagram, Dice, MAC, OURS, ipxe, pxe};
use fields::{Fields, ROM};
use namespace::{in_a_namespace, ip};
use pilotlight::dhcp::wire::{code, read_reply};
use pilotlight::ledger::{Ledger, MACHINES};
use pilotlight::model::{Facts, Mac};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;

/// Whoever comes first is the machine.
const OFF: &str = "[dhcp]\nmode = \"off\"\n";
/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);
const OURS_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FULL: &str = r#"
[dhcp]
mode = "full"
[[subnet]]
network = "10.77.0.0/24"
range = "10.77.0.100-10.77.0.109"
router = "10.77.0.1"
dns = ["10.77.0.53", "10.77.0.54"]
"#;
const FILES: &str = r#"
[ipxe]
dir = "loaders"
[[files]]
name = "pub"
dir = "pub"
[[profile]]
name = "web"
kernel = "pub/linux"
args = "answer={{ answers.seed }}"
answers = { seed = "seed.txt" }
[[machine]]
name = "web1"
mac = "52:54:00:00:00:01"
profile = "web"
"#;

/// The cable, the server's namespace at its other end, and a folder for its files.
struct Lab {
    /// Holds the namespace; it ends with its input, and so with the test however that ends.
    holder: Child,
    dir: TempDir,
}

impl Lab {
    fn new(config: &str) -> Lab {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo here; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
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
        for (name, bytes) in [("undionly.kpxe", 70_000), ("snponly.efi", 150_001)] {
            lab.write(&format!("loaders/{name}"), "lo".repeat(bytes / 2));
        }
        lab.write("pub/linux", "kernel");
        lab.write("seed.txt", "for {{ machine.name }}\n");
        lab.write("pilotlight.toml", config);
        lab
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A command in the server's namespace, that does not outlive this thread.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    fn pilotlight(&self) -> Command {
        self.there(env!("CARGO_BIN_EXE_pilotlight"))
    }

    /// `pilotlight serve` with the lab's files, as they stand on the command line.
    fn serving(&self) -> Vec<String> {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        ["serve", "--config", &path("pilotlight.toml"), "--state-dir", &path("state")]
            .map(String::from)
            .to_vec()
    }

    fn start(&self, more: &[&str]) -> Server {
        let mut command = self.pilotlight();
        command.args(self.serving()).args(["--interface", "boot0"]).args(more);
        let mut server = Server::spawn(command);
        server.says("ready");
        server
    }

    fn json(&self, path: &str) -> Value {
        let url = format!("http://127.0.0.1:8067{path}");
        let out = self.there("curl").args(["-sS", "--max-time", "20", &url]).output().unwrap();
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{path}: {e}: {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// How often the server has refused or kept silent for this reason.
    fn refused(&self, name: &str) -> u64 {
        let all = self.json("/api/v1/refusals");
        let found = all.as_array().unwrap().iter().find(|r| r["name"] == name);
        found.map_or(0, |r| r["times"].as_u64().unwrap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Without its input `cat` ends; an error here is one that has ended before.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A running server, and its log.
struct Server {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
}

impl Server {
    fn spawn(mut command: Command) -> Server {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Server { child, log, said: Vec::new() }
    }

    /// The next line of the log with this in it.
    fn says(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in {:#?}", self.said),
                Err(RecvTimeoutError::Disconnected) => panic!("ended: {:#?}", self.said),
            }
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its exit code, and the end of its log.
    fn ends(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.said);
            std::thread::yield_now();
        };
        (code, self.log.iter().collect::<Vec<_>>().join("\n"))
    }

    /// Resident memory, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors: it has ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A machine's DHCP client on `nic0`.
struct Client {
    socket: UdpSocket,
    xid: u32,
}

struct Reply {
    kind: u8,
    address: Ipv4Addr,
    file: String,
}

impl Client {
    fn new() -> Client {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.bind_device(Some(b"nic0")).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_recv_buffer_size(4 << 20).unwrap();
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into()).unwrap();
        let socket: UdpSocket = socket.into();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { socket, xid: 0x7700_0000 }
    }

    fn send(&mut self, port: u16, datagram: &Datagram) {
        self.xid += 1;
        let mut bytes = datagram.bytes();
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        let to = if port == 67 { Ipv4Addr::BROADCAST } else { OURS_IP };
        self.socket.send_to(&bytes, (to, port)).unwrap();
    }

    /// The answer to the last datagram. The server answers in order: those before it had none if
    /// this is the next to come.
    fn next(&self) -> Option<Reply> {
        let mut buffer = [0; 2048];
        let (len, _) = self.socket.recv_from(&mut buffer).expect("no answer");
        let (options, message) = read_reply(&buffer[..len]).unwrap();
        let file = buffer[108..236].split(|b| *b == 0).next().unwrap();
        (message.xid() == self.xid).then(|| Reply {
            kind: options[&code::MESSAGE_TYPE][0],
            address: message.yiaddr(),
            file: String::from_utf8(file.to_vec()).unwrap(),
        })
    }

    fn ask(&mut self, port: u16, datagram: &Datagram) -> Reply {
        self.send(port, datagram);
        std::iter::repeat_with(|| self.next()).flatten().next().unwrap()
    }

    /// DISCOVER to ACK.
    fn lease(&mut self, last: u8) -> Ipv4Addr {
        let offer = self.ask(67, &Datagram::new(1).mac(last));
        assert_eq!(offer.kind, 2, "an offer");
        let request = reboot(last, offer.address).with(code::SERVER_ID, OURS_IP.octets());
        let ack = self.ask(67, &request);
        assert_eq!((ack.kind, ack.address), (5, offer.address));
        ack.address
    }
}

/// RFC 2131 section 4.3.2: INIT-REBOOT names the address and no server.
fn reboot(last: u8, address: Ipv4Addr) -> Datagram {
    Datagram::new(3).mac(last).with(code::REQUESTED_ADDRESS, address.octets())
}

/// Status and body.
fn curl(url: &str, more: &[&str]) -> (u32, Vec<u8>) {
    let status = "\n%{response_code}";
    let out = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--path-as-is", "--max-time", "30", "-w", status])
        .args(more)
        .arg(url)
        .output()
        .unwrap();
    assert!(out.status.success(), "{url}: {}", String::from_utf8_lossy(&out.stderr));
    let at = out.stdout.iter().rposition(|b| *b == b'\n').unwrap();
    let code = String::from_utf8_lossy(&out.stdout[at + 1..]).parse().unwrap();
    (code, out.stdout[..at].to_vec())
}

fn get(path: &str) -> String {
    get_from("10.77.0.2", path)
}

/// From one of our addresses.
fn get_from(from: &str, path: &str) -> String {
    let (status, body) = curl(&format!("http://10.77.0.1{path}"), &["--interface", from]);
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn word_with<'a>(script: &'a str, part: &str) -> &'a str {
    let mut words = script.split(|c: char| c.is_whitespace() || c == '=');
    words.find(|w| w.starts_with("http") && w.contains(part)).unwrap_or_else(|| panic!("{script}"))
}

const SCRIPT: &str = "/boot/52-54-00-00-00-01.ipxe";

#[test]
fn leases_survive_a_restart() {
    if !in_a_namespace("leases_survive_a_restart") {
        return;
    }
    let lab = Lab::new(FULL);
    let mut client = Client::new();
    let mut server = lab.start(&[]);
    let first = client.lease(1);
    server.signal("TERM");
    assert_eq!(server.ends().0, Some(0));

    server = lab.start(&[]);
    let ack = client.ask(67, &reboot(1, first));
    assert_eq!((ack.kind, ack.address), (5, first));
    // Nothing is said to a stranger who names it, and it is not offered to one who wants it.
    client.send(67, &reboot(9, first));
    client.send(67, &Datagram::new(1).mac(9).with(code::REQUESTED_ADDRESS, first.octets()));
    let offer = client.next().expect("the first answer is the one to the DISCOVER");
    assert!(offer.kind == 2 && offer.address != first);

    // The plug is pulled as soon as the ACK is here.
    let second = client.lease(2);
    server.child.kill().unwrap();
    assert_eq!(server.ends().0, None);
    server = lab.start(&[]);
    for (last, address) in [(1, first), (2, second)] {
        assert_eq!(client.ask(67, &reboot(last, address)).kind, 5);
        assert_ne!(client.ask(67, &Datagram::new(1).mac(last + 20)).address, address);
    }

    let leases = |more: &[&str]| {
        let out = lab.pilotlight().arg("leases").args(more).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let shown = leases(&[]);
    let line = shown.lines().find(|l| l.contains(&first.to_string())).unwrap();
    assert!(line.contains("52:54:00:00:00:01") && line.contains("bound"), "{shown}");
    let json: Value = serde_json::from_str(&leases(&["--json"])).unwrap();
    let of = |a: Ipv4Addr| json.as_array().unwrap().iter().find(|l| l["address"] == a.to_string());
    assert_eq!(of(second).unwrap()["mac"], "52:54:00:00:00:02");
    server.signal("INT");
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn a_client_of_others_takes_our_lease() {
    if !in_a_namespace("a_client_of_others_takes_our_lease") {
        return;
    }
    let lab = Lab::new(FULL);
    let _server = lab.start(&[]);
    let Some(text) = udhcpc(&lab) else { return };
    let got: Vec<&str> = text.split_whitespace().collect();
    assert!(got[0].starts_with("10.77.0.10"), "{text}");
    assert_eq!(got[1..], ["255.255.255.0", "10.77.0.1", "10.77.0.53", "10.77.0.54", "3600"]);
    assert_eq!(lab.json("/api/v1/leases")[0]["address"], got[0]);
}

/// udhcpc takes the first offer it sees; the address that it was given.
fn udhcpc(lab: &Lab) -> Option<String> {
    let hook = lab.dir.path().join("hook");
    lab.write("hook", "#!/bin/sh\n[ $1 = bound ] && echo \"$ip $subnet $router $dns $lease\"; :\n");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let run = Command::new("udhcpc")
        .args(["--foreground", "--quit", "--now", "--interface", "nic0", "--script"])
        .arg(&hook)
        .output();
    match run {
        Ok(run) if !run.stdout.is_empty() => Some(String::from_utf8(run.stdout).unwrap()),
        Ok(run) => panic!("no lease: {}", String::from_utf8_lossy(&run.stderr)),
        Err(e) => {
            let all = std::env::var_os("CI").or(std::env::var_os("PILOTLIGHT_TESTS_ALL"));
            assert!(all.is_none(), "nothing may be left out: udhcpc: {e}");
            eprintln!("left out: udhcpc: {e}");
            None
        }
    }
}

#[test]
fn an_address_that_somebody_uses_is_not_given_away() {
    if !in_a_namespace("an_address_that_somebody_uses_is_not_given_away") {
        return;
    }
    let lab = Lab::new(&FULL.replace("100-10.77.0.109", "100-10.77.0.102"));
    // Two printers that nobody told the admin of.
    for taken in ["100", "101"] {
        ip(&format!("address add 10.77.0.{taken}/24 dev nic0"));
    }
    let mut server = lab.start(&[]);
    // An installed system takes what it is offered at once: its offer waits for the ping.
    let Some(got) = udhcpc(&lab) else { return };
    assert!(got.starts_with("10.77.0.102 "), "{got}");
    server.signal("TERM");
    assert_eq!(server.ends().0, Some(0));

    fs::remove_dir_all(lab.dir.path().join("state")).unwrap();
    server = lab.start(&[]);
    // Firmware waits for more offers than ours: it is offered at once, and the ping is heard before
    // it comes back for the address.
    let mut client = Client::new();
    let mut tried = Vec::new();
    let got = loop {
        let offer = client.ask(67, &pxe(1, 7));
        assert_eq!(offer.kind, 2);
        tried.push(offer.address);
        if offer.address.octets()[3] != 102 {
            server.says(&format!("{} on boot0 answers a ping", offer.address));
        }
        let request = pxe(3, 7)
            .with(code::REQUESTED_ADDRESS, offer.address.octets())
            .with(code::SERVER_ID, OURS_IP.octets());
        let answer = client.ask(67, &request);
        match answer.kind {
            5 => break answer.address,
            kind => assert_eq!(kind, 6, "a NAK, and it begins anew"),
        }
        assert!(tried.len() < 5, "{tried:?}");
    };
    assert_eq!(got, Ipv4Addr::new(10, 77, 0, 102));
    let alarms = lab.json("/api/v1/alarms");
    let of = |a: &Value| a["name"] == "address-in-use" && a["about"] != "10.77.0.102";
    assert!(alarms.as_array().unwrap().iter().all(of), "{alarms}");
}

#[test]
fn another_dhcp_server_is_named() {
    if !in_a_namespace("another_dhcp_server_is_named") {
        return;
    }
    let lab = Lab::new(FULL);
    let mut server = lab.start(&[]);
    let mut client = Client::new();
    // A client took the offer of another.
    let taken = reboot(3, [10, 77, 0, 150].into()).with(code::SERVER_ID, [10, 77, 0, 9]);
    client.send(67, &taken);
    server.says("another DHCP server is on boot0: 10.77.0.9 (52:54:00:00:00:03 took its offer)");
    // And one that offers, to all who listen. Our own broadcasts are none.
    assert_eq!(client.ask(67, &Datagram::new(1).mac(4)).kind, 2);
    let other = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    other.bind_device(Some(b"nic0")).unwrap();
    other.set_broadcast(true).unwrap();
    other.bind(&SocketAddrV4::new([10, 77, 0, 2].into(), 67).into()).unwrap();
    let offer = |address: [u8; 4]| {
        let mut offer = Datagram::new(2).mac(5).with(code::SERVER_ID, [10, 77, 0, 2]);
        offer.head[0] = 2;
        offer.head[16..20].copy_from_slice(&address);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);
        other.send_to(&offer.bytes(), &to.into()).unwrap();
    };
    // A proxy gives no addresses, and is no rival.
    offer([0; 4]);
    assert_eq!(client.ask(67, &Datagram::new(1).mac(6)).kind, 2);
    offer([10, 77, 0, 150]);
    let said = server.says("another DHCP server is on boot0: 10.77.0.2");
    assert!(said.contains("DHCPOFFER went to 52:54:00:00:00:05"), "{said}");
    assert!(said.contains("[dhcp] mode = \"proxy\""), "{said}");
    let alarms = lab.json("/api/v1/alarms");
    let about: Vec<&str> =
        alarms.as_array().unwrap().iter().map(|a| a["about"].as_str().unwrap()).collect();
    assert_eq!(about, ["10.77.0.2", "10.77.0.9"]);
    let shown = lab.pilotlight().arg("leases").output().unwrap().stdout;
    let shown = String::from_utf8(shown).unwrap();
    let look = "Look: another DHCP server is on boot0: 10.77.0.9 (52:54:00:00:00:03 took its";
    assert!(shown.contains(look), "{shown}");
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    assert_eq!(alarms[0]["times"], 1);
}

#[test]
fn a_clock_that_jumps_ends_no_lease() {
    if !in_a_namespace("a_clock_that_jumps_ends_no_lease") {
        return;
    }
    let Some(faketime) = fs::read_dir("/usr/lib").unwrap().flatten().find_map(|d| {
        Some(d.path().join("faketime/libfaketime.so.1")).filter(|path| path.exists())
    }) else {
        let all = std::env::var_os("CI").or(std::env::var_os("PILOTLIGHT_TESTS_ALL"));
        assert!(all.is_none(), "nothing may be left out: libfaketime is not installed");
        eprintln!("left out: libfaketime is not installed");
        return;
    };
    let lab = Lab::new(&FULL.replace("100-10.77.0.109", "100-10.77.0.102"));
    let mut client = Client::new();
    let mut have = Vec::new();
    for (nth, wall) in ["+0", "+400d", "-800d", "+0"].into_iter().enumerate() {
        let mut command = lab.pilotlight();
        command.args(lab.serving()).args(["--interface", "boot0"]);
        command.env("LD_PRELOAD", &faketime).env("FAKETIME", wall);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let mut server = Server::spawn(command);
        server.says("ready");
        if nth == 0 {
            have.extend((1..4).map(|last| (last, client.lease(last))));
        }
        // The pool is full, and stays so: no lease has ended for a stranger to take.
        client.send(67, &Datagram::new(1).mac(50));
        for (last, address) in &have {
            assert_eq!(client.ask(67, &reboot(*last, *address)).kind, 5, "{wall}: {address}");
        }
        assert_eq!(lab.refused("pool-full"), 1, "{wall}");
        // People are shown the wall clock's time, whatever that is.
        let shown = lab.json("/api/v1/leases");
        let ends: jiff::Timestamp = shown[0]["ends"].as_str().unwrap().parse().unwrap();
        let days: i64 = wall.trim_end_matches('d').parse().unwrap();
        let off = ends.duration_since(jiff::Timestamp::now()).as_secs() - days * 86_400;
        assert!((3000..=3600).contains(&off), "{wall}: ends {ends}");
    }
}

#[test]
fn proxy_mode_leaves_others_alone() {
    if !in_a_namespace("proxy_mode_leaves_others_alone") {
        return;
    }
    let lab = Lab::new(FILES);
    let _server = lab.start(&[]);
    let mut client = Client::new();
    client.send(67, &Datagram::new(1));
    client.send(67, &pxe(1, 7));
    let offer = client.next().expect("silence first");
    assert_eq!((offer.kind, offer.address), (2, Ipv4Addr::UNSPECIFIED));
    assert_eq!(offer.file, "snponly.efi");
    let ack = client.ask(4011, &pxe(3, 7).ciaddr([10, 77, 0, 2].into()));
    assert_eq!((ack.kind, ack.file.as_str()), (5, "snponly.efi"));
    assert_eq!(lab.refused("not-a-boot-client"), 1);
}

/// Runs to its end, which must be one with this exit code: what it said at last.
fn fails(mut command: Command, code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{text}");
    // Before it there may be lines of the log.
    let at = text.find("pilotlight: ").unwrap_or_else(|| panic!("{text}"));
    text[at..].to_string()
}

#[test]
fn what_keeps_it_from_starting_is_said_with_what_to_do() {
    if !in_a_namespace("what_keeps_it_from_starting_is_said_with_what_to_do") {
        return;
    }
    let lab = Lab::new(FILES);
    let _server = lab.start(&[]);
    // From here on in the machines' namespace, where the test itself can be in the way.
    let here = |program: &[&str], more: &[&str]| {
        let all = [program, &[env!("CARGO_BIN_EXE_pilotlight")]].concat();
        let mut command = Command::new(all[0]);
        let mut words = lab.serving();
        words[4].push('2');
        command.args(&all[1..]).args(words).args(more);
        command
    };
    let nic0 = &["--interface", "nic0"];
    let says = |command: Command, code: i32, parts: &[&str]| {
        let text = fails(command, code);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        text
    };
    let one = |command: Command, parts: &[&str]| {
        let text = says(command, 1, parts);
        assert_eq!(text.lines().count(), 1, "{text}");
    };

    says(
        here(&[], &[]),
        2,
        &["which network", "pilotlight serve --interface nic0", "10.77.0.2/24"],
    );
    one(here(&[], &["--interface", "eth77"]), &["no interface eth77", "there are nic0"]);
    {
        let _other = UdpSocket::bind("0.0.0.0:67").unwrap();
        one(here(&[], nic0), &["UDP port 67 on nic0", "in use", "ss -lunp", "[dhcp] mode"]);
    }
    {
        let _other = UdpSocket::bind("0.0.0.0:69").unwrap();
        one(here(&[], nic0), &["UDP port 69", "taken by another TFTP server", "ss -ulpn"]);
    }
    {
        let _other = TcpListener::bind("0.0.0.0:80").unwrap();
        one(here(&[], nic0), &["TCP port 80", "in use", "ss -ltnp", "[http] port"]);
    }
    let mut second = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    second.args(lab.serving()).args(nic0);
    one(second, &["another process has this store open", "state-dir"]);
    let nothing = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    one(here(&nothing, nic0), &["CAP_NET_BIND_SERVICE", "sudo"]);
    let mut unwritable = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
    unwritable.args(["serve", "--state-dir", "/proc/pilotlight"]).args(nic0);
    one(unwritable, &["/proc/pilotlight: cannot be made", "--state-dir"]);

    ip("address flush dev nic0");
    one(here(&[], nic0), &["nic0 has no IPv4 address", "ip address add"]);
    says(here(&[], &[]), 2, &["which network", "ip address add"]);
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    if !in_a_namespace("a_key_that_others_can_read_is_not_used") {
        return;
    }
    let lab = Lab::new(FILES);
    let server = lab.start(&["--tls"]);
    server.signal("TERM");
    assert_eq!(server.ends().0, Some(0));
    let key = lab.dir.path().join("state/tls/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let mut command = lab.pilotlight();
    command.args(lab.serving()).args(["--interface", "boot0", "--tls"]);
    let text = fails(command, 1);
    assert!(text.contains(&format!("chmod 600 {}", key.display())), "{text}");
}

#[test]
fn an_interface_that_goes_ends_it() {
    if !in_a_namespace("an_interface_that_goes_ends_it") {
        return;
    }
    let lab = Lab::new(FILES);
    let server = lab.start(&[]);
    // It is well under way.
    get("/boot.ipxe");
    ip("link delete nic0");
    let (code, log) = server.ends();
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("pilotlight: the interface boot0 is gone: bring it back"), "{log}");
}

#[test]
fn a_changed_configuration_is_taken_over_and_a_bad_one_is_not() {
    if !in_a_namespace("a_changed_configuration_is_taken_over_and_a_bad_one_is_not") {
        return;
    }
    let lab = Lab::new(FULL);
    let mut server = lab.start(&[]);
    assert!(get(SCRIPT).contains("\nmenu "));
    let machine = |last: u8, profile: &str| {
        format!(
            "[[machine]]\nname = \"m{last}\"\nmac = \"52:54:00:00:00:{last:02x}\"\n\
             profile = \"{profile}\"\naddress = \"10.77.0.1{last}\"\n"
        )
    };
    // A machine speaks from the address that it has, once it has one.
    let leased = Cell::new(false);
    let knows = |last: u8| {
        let from = if last == 1 && leased.get() { "10.77.0.11" } else { "10.77.0.2" };
        let script = get_from(from, &format!("/boot/52-54-00-00-00-{last:02x}.ipxe"));
        script.contains("local disk:") && !script.contains("\nmenu ")
    };
    let comes = |known: &[u8], unknown: &[u8]| {
        let deadline = Instant::now() + PATIENCE;
        while !known.iter().all(|m| knows(*m)) || unknown.iter().any(|m| knows(*m)) {
            assert!(Instant::now() < deadline, "never known: {known:?} without {unknown:?}");
        }
    };
    let main = |more: &str| lab.write("pilotlight.toml", format!("{FULL}{more}"));
    // 1. The file changes. Its reservation counts for DHCP, too.
    main(&machine(1, "local"));
    comes(&[1], &[2]);
    assert_eq!(Client::new().lease(1), Ipv4Addr::new(10, 77, 0, 11));
    assert!(get(SCRIPT).contains("refuses m1"), "from another address");
    ip("address add 10.77.0.11/24 dev nic0");
    leased.set(true);
    // 2. It becomes bad: said with its place, and the old one stays.
    main(&format!("{}nonsense = 1\n", machine(1, "local")));
    let line = FULL.lines().count() + 6;
    server.says(&format!("pilotlight.toml:{line}:1: "));
    server.says("the old one stays in force");
    assert!(knows(1));
    server.says("the configuration is not reloaded, the old one stays in force");
    // 3. By the signal, too.
    main(&machine(1, "local"));
    server.says("configuration reloaded after a change");
    server.signal("HUP");
    server.says("configuration reloaded after SIGHUP");
    // 4. A folder of more that was not there, a file in it, one more, one less.
    fs::create_dir(lab.dir.path().join("pilotlight.d")).unwrap();
    lab.write("pilotlight.d/a.toml", machine(2, "local"));
    comes(&[1, 2], &[3]);
    lab.write("pilotlight.d/b.toml", machine(3, "local"));
    comes(&[1, 2, 3], &[4]);
    // An editor's way: a new file in the place of the old one.
    lab.write("new", machine(4, "local"));
    fs::rename(lab.dir.path().join("new"), lab.dir.path().join("pilotlight.d/b.toml")).unwrap();
    comes(&[1, 2, 4], &[3]);
    fs::remove_dir_all(lab.dir.path().join("pilotlight.d")).unwrap();
    comes(&[1], &[2, 4]);
    // 5. And once more, since the folder is another one now.
    lab.write("pilotlight.d/c.toml", machine(5, "local"));
    comes(&[1, 5], &[2]);
    // 6. What a medium is, the log says.
    fs::create_dir(lab.dir.path().join("memory")).unwrap();
    lab.write("memory/memtest64.efi", "");
    lab.write("pilotlight.d/c.toml", "[[media]]\ndir = \"../memory\"\n");
    server.says("memory has come, which is Memtest86+: the menu offers it");
    lab.write("pilotlight.d/c.toml", machine(5, "local"));
    server.says("memory is gone, and profile memory with it: who is to boot that waits");
}

#[test]
fn what_a_machine_fetches_is_there() {
    if !in_a_namespace("what_a_machine_fetches_is_there") {
        return;
    }
    let lab = Lab::new(&format!("{OFF}{FILES}"));
    let _server = lab.start(&[]);
    let entry = get("/boot.ipxe");
    assert!(entry.contains("http://10.77.0.1/boot/${${nic}/mac:hexhyp}.ipxe"), "{entry}");
    assert_eq!(curl("tftp://10.77.0.1/autoexec.ipxe", &[]).1, entry.as_bytes());
    let script = get(SCRIPT);
    assert_eq!(curl(word_with(&script, "linux"), &[]), (200, b"kernel".to_vec()));
    assert_eq!(curl(word_with(&script, "/answer/"), &[]), (200, b"for web1\n".to_vec()));
    assert_eq!(get("/files/pub/linux"), "kernel");

    let fetched = |name: &str, bytes: &[u8]| {
        for more in [&[][..], &["--tftp-blksize", "1428"], &["--tftp-no-options"]] {
            let (_, got) = curl(&format!("tftp://10.77.0.1/{name}"), more);
            assert!(got == bytes, "{name} by TFTP {more:?}: {} bytes", got.len());
        }
        let (_, got) = curl(&format!("http://10.77.0.1/loader/{name}"), &[]);
        assert!(got == bytes, "{name} by HTTP: {} bytes", got.len());
    };
    for name in ["undionly.kpxe", "snponly.efi"] {
        fetched(name, &fs::read(lab.dir.path().join("loaders").join(name)).unwrap());
    }
    // Where the build holds loaders: those that the folder does not have.
    for loader in pilotlight::ipxe::embedded() {
        if !lab.dir.path().join("loaders").join(loader.name).exists() {
            fetched(loader.name, loader.bytes);
        }
    }
}

#[test]
fn by_https_under_a_ca_that_is_asked_for() {
    if !in_a_namespace("by_https_under_a_ca_that_is_asked_for") {
        return;
    }
    let lab = Lab::new(&format!("{OFF}{FILES}"));
    let _server = lab.start(&["--tls"]);
    lab.write("ca.pem", get("/ca.pem"));
    let ca = lab.dir.path().join("ca.pem").display().to_string();
    let trusted = ["--cacert", ca.as_str()];
    assert!(get("/boot.ipxe").contains("chain --replace https://10.77.0.1/boot/"));
    assert_eq!(get("/files/pub/linux"), "kernel");

    let (status, script) = curl(&format!("https://10.77.0.1{SCRIPT}"), &trusted);
    let script = String::from_utf8(script).unwrap();
    assert_eq!(status, 200);
    let kernel = word_with(&script, "linux");
    let answer = word_with(&script, "/answer/");
    assert!(kernel.starts_with("https://10.77.0.1/b/"), "{script}");
    assert_eq!(curl(kernel, &trusted), (200, b"kernel".to_vec()));
    assert_eq!(curl(answer, &trusted), (200, b"for web1\n".to_vec()));
    // In the clear, nothing of it.
    for url in [kernel, answer, &format!("https://10.77.0.1{SCRIPT}")] {
        let (status, body) = curl(&url.replace("https:", "http:"), &[]);
        let body = String::from_utf8(body).unwrap();
        assert_eq!((status, body), (403, format!("this travels by HTTPS only: {url}\n")));
    }
    assert_eq!(lab.refused("https-only"), 3);
}

#[test]
fn a_storm_of_hostile_datagrams_costs_nothing() {
    if !in_a_namespace("a_storm_of_hostile_datagrams_costs_nothing") {
        return;
    }
    // Not the machine that all of it speaks of: nobody knows where that is, afterwards.
    let other = "[[machine]]\nname = \"web2\"\nmac = \"52:54:00:aa:bb:cc\"\nprofile = \"web\"\n";
    let lab = Lab::new(&format!("{FULL}{FILES}{other}"));
    let server = lab.start(&[]);
    let mut client = Client::new();
    let mut dice = Dice::new();
    let relayed = Datagram::new(3).giaddr([10, 77, 0, 9].into());
    let dhcp: Vec<Vec<u8>> = [
        pxe(1, 0),
        pxe(3, 7).with(code::REQUESTED_ADDRESS, [10, 77, 0, 100]),
        ipxe(1, 0, OURS),
        ipxe(3, 7, ROM),
        Datagram::new(4).with(code::REQUESTED_ADDRESS, [10, 77, 0, 100]),
        relayed.with(code::RELAY_AGENT, [1, 1, 1]),
    ]
    .iter()
    .map(Datagram::bytes)
    .collect();
    let tftp: Vec<Vec<u8>> = [
        &b"\0\x01undionly.kpxe\0octet\0blksize\x001428\0tsize\x000\0windowsize\x004\0"[..],
        b"\0\x01autoexec.ipxe\0netascii\0",
        b"\0\x01\\../../etc/passwd\0octet\0",
        b"\0\x02upload\0octet\0",
        b"\0\x04\0\x01",
        b"\0\x05\0\x08User aborted the transfer\0",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let hostile = UdpSocket::bind("10.77.0.2:0").unwrap();
    let mut storm = |rounds: usize| {
        for round in 0..rounds {
            for port in [67, 4011] {
                hostile.send_to(&dice.mutate(&dhcp, 240), (OURS_IP, port)).unwrap();
            }
            hostile.send_to(&dice.mutate(&tftp, 2), (OURS_IP, 69)).unwrap();
            // It keeps up: a good client among them is answered, again and again.
            if round % 50 == 49 {
                assert!(matches!(client.ask(67, &Datagram::new(1).mac(1)).kind, 2));
            }
        }
    };
    storm(1000);
    let before = server.memory();
    storm(3000);
    let after = server.memory();
    assert!(after < before + 6 * 1024, "from {before} to {after} KiB");
    assert!(get("/boot/52-54-00-aa-bb-cc.ipxe").contains("sees who web2 is"));
    let whole = fs::read(lab.dir.path().join("loaders/snponly.efi")).unwrap();
    assert!(curl("tftp://10.77.0.1/snponly.efi", &[]).1 == whole);
    server.signal("TERM");
    assert_eq!(server.ends().0, Some(0));
}

#[test]
fn strangers_use_up_the_pool_and_no_more() {
    if !in_a_namespace("strangers_use_up_the_pool_and_no_more") {
        return;
    }
    let reserved = "[[machine]]\nname = \"r\"\nmac = \"52:54:00:00:00:c8\"\nprofile = \"local\"\n\
                    address = \"10.77.0.200\"\n";
    let lab = Lab::new(&format!("{FULL}{reserved}"));
    let _server = lab.start(&[]);
    let mut client = Client::new();
    let known = client.lease(1);
    for n in 0..2000u16 {
        let mut discover = Datagram::new(1);
        discover.head[31..33].copy_from_slice(&(n + 1).to_be_bytes());
        client.send(67, &discover);
        // Whoever has its address or a reserved one is served all the same.
        if n % 100 == 99 {
            assert_eq!(client.ask(67, &reboot(1, known)).kind, 5);
            assert_eq!(client.ask(67, &Datagram::new(1).mac(200)).address.octets()[3], 200);
        }
    }
    assert_eq!(client.lease(200), Ipv4Addr::new(10, 77, 0, 200));
    assert!(lab.refused("pool-full") >= 1980);
    assert!(lab.json("/api/v1/leases").as_array().unwrap().len() <= 11);
}

#[test]
fn made_up_machines_push_out_the_oldest_one_alone() {
    let ledger = Ledger::new();
    let now = |n: usize| jiff::Timestamp::from_second(n as i64).unwrap();
    let mac = |n: usize| {
        let n = (n as u32).to_be_bytes();
        Mac([MAC[0], MAC[1], n[0], n[1], n[2], n[3]])
    };
    for n in 0..MACHINES + 50 {
        ledger.learn(Facts::of(mac(n)), now(n));
    }
    assert_eq!(ledger.list().len(), MACHINES);
    assert!(ledger.get(mac(49)).is_none() && ledger.get(mac(50)).is_some());
}
