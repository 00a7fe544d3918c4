//! Captures of boots, made here packet by packet, and played back.

#[path = "common/datagram.rs"]
mod datagram;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use datagram::{Datagram, Dice, OURS, ipxe, pxe};
use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
use pcap_file::{DataLink, Endianness};
use pilotlight::app::{Replayed, replay};
use pilotlight::config::{self, Config};
use pilotlight::dhcp::wire::code;
use pilotlight::model::{Mac, Stage};

const OURS_AT: [u8; 4] = [10, 0, 0, 1];
const OTHER: [u8; 4] = [10, 0, 0, 2];
const CLIENT: [u8; 4] = [10, 0, 0, 100];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Milliseconds, and the frame.
type Frames = Vec<(u64, Vec<u8>)>;

fn udp(mac: [u8; 6], from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac, [0xff; 6]).ipv4(from.0, to.0, 64);
    let mut out = Vec::new();
    builder.udp(from.1, to.1).write(&mut out, payload).unwrap();
    out
}

fn asks(datagram: &Datagram) -> Vec<u8> {
    udp(datagram::MAC, ([0; 4], 68), ([255; 4], 67), &datagram.bytes())
}

/// What a server says to it.
fn says(server: [u8; 4], kind: u8, yiaddr: [u8; 4], file: &str) -> Vec<u8> {
    let mut reply = Datagram::new(kind).with(code::SERVER_ID, server);
    reply.head[0] = 2;
    reply.head[16..20].copy_from_slice(&yiaddr);
    reply.head[108..108 + file.len()].copy_from_slice(file.as_bytes());
    udp(
        SERVER_MAC,
        (server, 67),
        ([255; 4], 68),
        &reply.with(code::SUBNET_MASK, [255, 255, 255, 0]).bytes(),
    )
}

fn requests(server: [u8; 4]) -> Vec<u8> {
    let request = pxe(REQUEST, 7).with(code::SERVER_ID, server);
    asks(&request.with(code::REQUESTED_ADDRESS, CLIENT))
}

fn get(path: &str) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(datagram::MAC, SERVER_MAC).ipv4(CLIENT, OURS_AT, 64);
    let mut out = Vec::new();
    let line = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    builder.tcp(40_000, 80, 1, 64_000).write(&mut out, line.as_bytes()).unwrap();
    out
}

/// A loader by TFTP, `blocks` of `all` blocks of 1000 bytes.
fn loader(frames: &mut Frames, start: u64, blocks: u16, all: u16) {
    let rrq = b"\x00\x01snponly.efi\x00octet\x00blksize\x001000\x00";
    frames.push((start, udp(datagram::MAC, (CLIENT, 2000), (OURS_AT, 69), rrq)));
    for n in 1..=blocks {
        let mut data = vec![0, 3];
        data.extend(n.to_be_bytes());
        data.resize(4 + if n == all { 10 } else { 1000 }, 7);
        frames
            .push((start + u64::from(n), udp(SERVER_MAC, (OURS_AT, 4000), (CLIENT, 2000), &data)));
        let ack = [&[0, 4][..], &n.to_be_bytes()].concat();
        frames.push((
            start + u64::from(n),
            udp(datagram::MAC, (CLIENT, 2000), (OURS_AT, 4000), &ack),
        ));
    }
}

fn given() -> Frames {
    vec![
        (0, asks(&pxe(DISCOVER, 7))),
        (1, says(OURS_AT, OFFER, CLIENT, "snponly.efi")),
        (900, requests(OURS_AT)),
        (901, says(OURS_AT, ACK, CLIENT, "snponly.efi")),
    ]
}

fn pcap(frames: &Frames, link: DataLink) -> Vec<u8> {
    let header = PcapHeader { datalink: link, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
    for (ms, frame) in frames {
        let at = std::time::Duration::from_millis(1_800_000_000_000 + ms);
        writer.write_packet(&PcapPacket::new(at, frame.len() as u32, frame)).unwrap();
    }
    writer.into_writer()
}

fn pcapng(frames: &Frames) -> Vec<u8> {
    let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Little).unwrap();
    writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
    for (ms, frame) in frames {
        // Microseconds, as the interface says by saying nothing.
        let units = std::time::Duration::from_nanos((1_800_000_000_000 + ms) * 1000);
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: units,
            original_len: frame.len() as u32,
            data: frame.into(),
            options: vec![],
        };
        writer.write_pcapng_block(block).unwrap();
    }
    writer.into_inner()
}

fn full(dir: &Path) -> Config {
    let file = dir.join("pilotlight.toml");
    let text = "[dhcp]\nmode = \"full\"\n[[subnet]]\nnetwork = \"10.0.0.0/24\"\n\
                range = \"10.0.0.50-10.0.0.200\"\n\
                [[machine]]\nname = \"web1\"\nmac = \"52:54:00:00:00:01\"\n";
    fs::write(&file, text).unwrap();
    config::load(Some(&file), &config::Blind).unwrap().0
}

fn plays(bytes: &[u8]) -> Replayed {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("boot.pcap");
    fs::write(&file, bytes).unwrap();
    replay(&full(dir.path()), &file).unwrap()
}

fn refuses(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("boot.pcap");
    fs::write(&file, bytes).unwrap();
    format!("{:#}", replay(&Config::default(), &file).unwrap_err())
}

fn found(played: &Replayed) -> (&str, &str) {
    let diagnosis = played.machines[0].boots[0].diagnosis.as_ref();
    diagnosis.map_or(("", ""), |d| (&*d.name, &d.sentence))
}

#[test]
fn what_we_would_say_stands_beside_what_was_said() {
    let played = plays(&pcap(&given(), DataLink::ETHERNET));
    assert_eq!((played.packets, played.server.to_string().as_str()), (4, "10.0.0.1/24"));
    let [discover, request] = &played.exchanges[..] else { panic!("{played:#?}") };
    assert_eq!(discover.asked, "DHCPDISCOVER (uefi-x64)");
    // The machine has the address here that it had there.
    let offer = "DHCPOFFER of 10.0.0.100 by 10.0.0.1, to boot snponly.efi";
    assert_eq!((discover.ours.as_str(), &discover.theirs), (offer, &vec![offer.to_string()]));
    assert_eq!(request.ours, "DHCPACK of 10.0.0.100 by 10.0.0.1, to boot snponly.efi");
    assert_eq!(request.at.duration_since(discover.at).as_millis(), 900);
    let machine = &played.machines[0];
    assert_eq!((machine.mac, machine.facts.arch), (Mac(datagram::MAC), Some("uefi-x64")));
    assert_eq!(machine.boots[0].timeline.len(), 4);
    // What is not in the capture is not held against the machine.
    assert_eq!(found(&played), ("", ""));
    assert!(played.notes.iter().any(|n| n.contains("nothing but DHCP")), "{:?}", played.notes);
}

#[test]
fn both_formats_say_the_same() {
    let frames = given();
    let (old, new) = (plays(&pcap(&frames, DataLink::ETHERNET)), plays(&pcapng(&frames)));
    assert_eq!(serde_json::json!(old), serde_json::json!(new));
    // tcpdump -i any, and captures of bare IP.
    let cooked = |frames: &Frames| -> Frames {
        let head =
            |f: &Vec<u8>| [&[0, 0, 0, 1, 0, 6][..], &f[6..12], &[0, 0, 8, 0], &f[14..]].concat();
        frames.iter().map(|(ms, f)| (*ms, head(f))).collect()
    };
    let cooked2 = |frames: &Frames| -> Frames {
        let head = |f: &Vec<u8>| {
            [&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6][..], &f[6..12], &[0, 0], &f[14..]].concat()
        };
        frames.iter().map(|(ms, f)| (*ms, head(f))).collect()
    };
    let bare: Frames = frames.iter().map(|(ms, f)| (*ms, f[14..].to_vec())).collect();
    for other in [
        pcap(&cooked(&frames), DataLink::LINUX_SLL),
        pcap(&cooked2(&frames), DataLink::LINUX_SLL2),
        pcap(&bare, DataLink::RAW),
    ] {
        assert_eq!(serde_json::json!(plays(&other)), serde_json::json!(old));
    }
}

#[test]
fn another_server_was_faster() {
    let frames = vec![
        (0, asks(&pxe(DISCOVER, 7))),
        (1, says(OTHER, OFFER, CLIENT, "")),
        (2, says(OURS_AT, OFFER, [10, 0, 0, 101], "snponly.efi")),
        (900, requests(OTHER)),
        (901, says(OTHER, ACK, CLIENT, "")),
    ];
    let played = plays(&pcap(&frames, DataLink::ETHERNET));
    let (name, sentence) = found(&played);
    assert_eq!(name, "other-dhcp-server");
    assert!(sentence.ends_with("another DHCP server answers faster, 10.0.0.2"), "{sentence}");
    assert_eq!(played.exchanges[0].theirs.len(), 2);
    assert!(played.exchanges[1].ours.starts_with("nothing: it took the offer of 10.0.0.2"));
}

#[test]
fn a_loader_that_stops_and_one_that_arrives() {
    let mut frames = given();
    loader(&mut frames, 1000, 41, 300);
    let played = plays(&pcap(&frames, DataLink::ETHERNET));
    assert_eq!(found(&played).0, "loader-cut", "{played:#?}");
    let cut = played.machines[0].boots[0].timeline.last().unwrap();
    assert_eq!(cut.event.transfer.as_ref().unwrap().sent, 41_000);

    let mut frames = given();
    loader(&mut frames, 1000, 20, 20);
    let played = plays(&pcap(&frames, DataLink::ETHERNET));
    assert_eq!(found(&played).0, "loader-silent");
    assert!(found(&played).1.contains("Secure Boot"));
    let sent = played.machines[0].boots[0].timeline.last().unwrap();
    assert_eq!(sent.event.detail, "snponly.efi (19.0 kB in 0.02 s, 950 kB/s)");

    frames.push((2000, asks(&ipxe(DISCOVER, 7, OURS))));
    frames.push((2100, get("/boot/52-54-00-00-00-01.ipxe?uuid=x")));
    frames.push((2200, get("/images/vmlinuz")));
    let played = plays(&pcap(&frames, DataLink::ETHERNET));
    let boot = &played.machines[0].boots[0];
    let last: Vec<_> = boot.timeline.iter().rev().take(2).map(|e| e.event.clone()).collect();
    assert_eq!((last[0].stage, last[0].detail.as_str()), (Stage::Kernel, "/images/vmlinuz"));
    assert!(last[1].detail.starts_with("/boot/52-54-00-00-00-01.ipxe: "), "{last:?}");
    assert!(!last[1].detail.contains("uuid"));
}

#[test]
fn what_is_left_out_is_named() {
    let mut frames = given();
    let mut fragment = asks(&pxe(DISCOVER, 7));
    // More fragments follow (RFC 791 section 3.1).
    fragment[20] |= 0x20;
    frames.push((2000, fragment));
    frames.push((2001, vec![1, 2, 3]));
    let mut bytes = pcap(&frames, DataLink::ETHERNET);
    // A message of which tcpdump kept 100 bytes.
    let whole = asks(&pxe(DISCOVER, 7));
    let head = [1_800_000_003u32, 0, 100, whole.len() as u32];
    // PcapHeader::default is of the big kind.
    head.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    bytes.extend(&whole[..100]);
    let played = plays(&bytes);
    let notes = played.notes.join("\n");
    for said in [
        "fragmented packets, which are not put together: 1",
        "the capture cut off",
        "no known kind: 1",
    ] {
        assert!(notes.contains(said), "{notes}");
    }
    assert_eq!(played.exchanges.len(), 2);
    // The disk was full when it was written.
    bytes.truncate(bytes.len() - 30);
    let notes = plays(&bytes).notes.join("\n");
    assert!(notes.contains("the file is damaged after packet 6"), "{notes}");
}

#[test]
fn what_is_no_capture_is_refused_in_words() {
    assert!(refuses(b"").contains("boot.pcap: it is neither pcap nor pcapng"));
    assert!(refuses(b"PK\x03\x04 something else").contains("it is neither pcap nor pcapng"));
    let wireless = pcap(&given(), DataLink::IEEE802_11);
    assert!(refuses(&wireless).contains("link type 105"), "{}", refuses(&wireless));
    let gone = replay(&Config::default(), Path::new("/nowhere/boot.pcap")).unwrap_err();
    assert!(format!("{gone:#}").contains("/nowhere/boot.pcap: cannot be read"));
}

#[test]
fn no_capture_is_too_broken_to_be_read() {
    let mut frames = given();
    loader(&mut frames, 1000, 3, 3);
    frames.push((2000, get("/boot/x")));
    let seeds = [pcap(&frames, DataLink::ETHERNET), pcapng(&frames), pcap(&frames, DataLink::RAW)];
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = (full(dir.path()), dir.path().join("f.pcap"));
    let mut dice = Dice::new();
    let mut read = 0;
    for _ in 0..400 {
        fs::write(&file, dice.mutate(&seeds, 24)).unwrap();
        read += u32::from(replay(&config, &file).is_ok());
    }
    assert!(read > 100, "{read}");
}

#[test]
fn the_command_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("boot.pcap");
    let mut frames = given();
    loader(&mut frames, 1000, 41, 300);
    fs::write(&file, pcap(&frames, DataLink::ETHERNET)).unwrap();
    full(dir.path());
    let run = |more: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("pilotlight").unwrap();
        let config = dir.path().join("pilotlight.toml");
        let out = command.arg("replay").arg(&file).arg("--config").arg(config).args(more).output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    let said = run(&[]);
    for words in
        ["we say", "it was told", "52:54:00:00:00:01", "its loader stopped at", "What to do"]
    {
        assert!(said.contains(words), "{said}");
    }
    assert!(said.lines().all(|l| l.chars().count() <= 80), "{said}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json["machines"][0]["boots"][0]["diagnosis"]["name"], "loader-cut");
    assert_eq!(json["exchanges"][0]["mac"], "52:54:00:00:00:01");
    let server: Ipv4Addr = OURS_AT.into();
    assert!(json["server"].as_str().unwrap().starts_with(&server.to_string()));
}
