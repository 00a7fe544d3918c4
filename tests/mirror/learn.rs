//! What one installation asked for is on its way as soon as the next machine says DISCOVER.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::archive::files;
use crate::faults::{MB, pin};
use crate::lab::{Lab, PORT, get, mirror, open_from, until};
use crate::namespace::in_a_namespace;
use crate::upstream::{Content, Upstream, noise};

/// Machines' addresses are this namespace's own, for a connection has to come from them.
fn address(n: u8) -> [u8; 4] {
    [10, 77, 0, 100 + n]
}

fn setup(up: &Upstream, files: &[String], more: &str) -> (Lab, String) {
    let pins: Vec<String> =
        files.iter().enumerate().map(|(n, f)| pin(f, &noise(n as u64, size(n)))).collect();
    for (n, f) in files.iter().enumerate() {
        up.put(&format!("/{f}"), Content::new(noise(n as u64, size(n)), "a"));
    }
    let pins = pins.join(", ");
    let table = mirror("m", &[&up.url()], &format!("verify = \"plain\"\npin = {{ {pins} }}"));
    let machines: String = (1..=4)
        .map(|n| {
            format!(
                "[[machine]]\nname = \"web{n}\"\nmac = \"52:54:00:00:00:0{n}\"\nprofile = \"p\"\n"
            )
        })
        .collect();
    let text = format!(
        "[dhcp]\nmode = \"full\"\n[[subnet]]\nnetwork = \"10.77.0.0/24\"\nrange = \"10.77.0.150-10.77.0.160\"\n\
         [ipxe]\ndir = \"loaders\"\n[http]\nport = {PORT}\n{more}\n{table}\
         [[profile]]\nname = \"p\"\nkind = \"live\"\nkernel = \"m/linux\"\ninitrd = \"m/initrd\"\n{machines}"
    );
    let lab = Lab::new("");
    fs::create_dir(lab.path("loaders")).unwrap();
    fs::write(lab.path("loaders/snponly.efi"), "a loader").unwrap();
    for n in 1..=4 {
        let [a, b, c, d] = address(n);
        crate::namespace::ip(&format!("address add {a}.{b}.{c}.{d}/32 dev lo"));
    }
    fs::write(lab.path("pilotlight.toml"), &text).unwrap();
    // Both ends of the cable are here: what comes from one comes from an address of the other.
    fs::write("/proc/sys/net/ipv4/conf/all/accept_local", "1").unwrap();
    for name in ["all", "nic0", "boot0"] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").unwrap();
    }
    (lab, text)
}

fn size(n: usize) -> usize {
    if n < 2 { MB } else { 100_000 }
}

fn names() -> Vec<String> {
    let packages = (0..8).map(|n| format!("pool/p{n}.deb"));
    ["linux".into(), "initrd".into()].into_iter().chain(packages).collect()
}

/// The machine's DISCOVER; the answer to it has come when this returns.
fn discover(n: u8) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.bind_device(Some(b"nic0")).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], 68)).into()).unwrap();
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = vec![0; 236];
    // BOOTREQUEST, Ethernet; to be answered by broadcast (RFC 2131 section 2).
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&[7, 7, 7, n]);
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, n]);
    // A network boot of an x86-64 firmware.
    bytes.extend([99, 130, 83, 99, 53, 1, 1, 93, 2, 0, 7]);
    let class = b"PXEClient:Arch:00007:UNDI:002001";
    bytes.extend([60, class.len() as u8]);
    bytes.extend(class);
    // It is iPXE already, and says what it can do: ours.
    bytes.extend(*b"\x4d\x04iPXE\xaf\x18");
    bytes.extend([16, 17, 18, 19, 20, 21, 38, 235].iter().flat_map(|feature| [*feature, 1, 1]));
    bytes.push(255);
    socket.send_to(&bytes, "255.255.255.255:67").unwrap();
    let mut answer = [0; 2048];
    loop {
        socket.recv_from(&mut answer).expect("an offer");
        if answer[..8] == [2, 1, 6, 0, 7, 7, 7, n] {
            return;
        }
    }
}

/// The script, kernel and initrd under its token, and packages by the machine's address.
fn boots(n: u8, names: &[String]) {
    let script = open_from(address(n), &format!("/boot/52-54-00-00-00-0{n}.ipxe")).rest().body;
    let script = String::from_utf8(script).unwrap();
    for (at, name) in names.iter().enumerate() {
        let path = match at {
            0 | 1 => {
                let word = script
                    .split(|c: char| c.is_whitespace())
                    .find(|w| w.ends_with(&format!("/mirror/m/{name}")));
                let url = word.unwrap_or_else(|| panic!("{script}"));
                url[url.find("/b/").unwrap()..].to_string()
            }
            _ => format!("/mirror/m/{name}"),
        };
        let got = open_from(address(n), &path).rest();
        assert!(got.whole && got.body == noise(at as u64, size(at)), "{path}: {}", got.status);
    }
}

/// As `cache clear` does it.
fn clear(lab: &Lab) {
    lab.settled();
    let objects = lab.path("state/cache/objects");
    for file in files(&objects) {
        fs::remove_file(objects.join(file)).unwrap();
    }
}

fn asked(up: &Upstream, names: &[String], times: usize) -> bool {
    names.iter().all(|f| up.asked(&format!("/{f}")).iter().filter(|a| a.ended).count() == times)
}

#[test]
fn the_next_machine_s_files_come_before_it_asks() {
    const ME: &str = "learn::the_next_machine_s_files_come_before_it_asks";
    if !in_a_namespace(ME) {
        return;
    }
    let (up, names) = (Upstream::new(), names());
    let (lab, text) = setup(&up, &names, "");
    let server = lab.start();
    discover(1);
    boots(1, &names);
    assert!(asked(&up, &names, 1));
    clear(&lab);

    discover(2);
    until("all of it is on its way", || asked(&up, &names, 2));
    boots(2, &names);
    assert!(asked(&up, &names, 2), "nothing is fetched twice: {:#?}", up.all());
    // Nothing is fetched in vain, either.
    assert_eq!(up.all().len(), 2 * names.len());

    // The store keeps it.
    server.stop();
    clear(&lab);
    let server = lab.start();
    discover(3);
    until("all of it is on its way", || asked(&up, &names, 3));
    boots(3, &names);
    assert_eq!(up.all().len(), 3 * names.len());
    // What is there already is not asked for.
    server.stop();
    let server = lab.start();
    discover(4);
    boots(4, &names);
    assert_eq!(up.all().len(), 3 * names.len());

    server.stop();
    fs::write(
        lab.path("pilotlight.toml"),
        text.replace("[http]", "[cache]\nprefetch = false\n[http]"),
    )
    .unwrap();
    clear(&lab);
    let _server = lab.start();
    discover(1);
    let last = names.last().unwrap();
    assert_eq!(get(&format!("/mirror/m/{last}")).status, 200);
    assert_eq!(up.all().len(), 3 * names.len() + 1, "prefetch = false");
}

#[test]
fn what_was_learned_survives_a_pulled_plug() {
    const ME: &str = "learn::what_was_learned_survives_a_pulled_plug";
    if !in_a_namespace(ME) {
        return;
    }
    let (up, names) = (Upstream::new(), names());
    let (lab, _) = setup(&up, &names, "");
    let server = lab.start();
    boots(1, &names);
    lab.settled();
    // Written down a little later, all of it at once.
    let store = || {
        let found = files(&lab.path("state"));
        let of = |f: &String| !f.starts_with("cache/");
        let text = |f: &String| fs::read(lab.path("state").join(f)).unwrap_or_default();
        found.iter().filter(|f| of(f)).any(|f| text(f).windows(14).any(|w| w == b"mirror-learned"))
    };
    until("it is in the store", store);
    server.kill();
    clear(&lab);
    let _server = lab.start();
    discover(2);
    until("all of it is on its way", || asked(&up, &names, 2));
}
