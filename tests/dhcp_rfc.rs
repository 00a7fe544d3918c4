//! What the RFCs ask of a DHCP server, row by row: a datagram in, its reply or silence out.
//! `tests/dhcp.rs` has the lives of single clients, and what is told of booting.

#[path = "common/datagram.rs"]
mod datagram;
#[path = "common/fields.rs"]
mod fields;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use datagram::{Datagram, Dice, MAC, OURS, ipxe, pxe};
use fields::{Fields, ROM};
use jiff::Timestamp;
use pilotlight::config::{Config, Mode, Subnet};
use pilotlight::dhcp::decide::{self, Here, Port, Silent, To};
use pilotlight::dhcp::lease::Leases;
use pilotlight::dhcp::wire::{self, Kind, ReplyKind, code};
use pilotlight::model::{Machine, Match, Why};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const LEASE: i64 = 3600;

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

fn subnet(network: [u8; 4]) -> Subnet {
    let host = |last| Ipv4Addr::new(network[0], network[1], network[2], last);
    Subnet {
        network: ipnet::Ipv4Net::new(network.into(), 24).unwrap(),
        ranges: vec![host(100)..=host(109)],
        router: vec![host(254)],
        dns: vec![SERVER],
        domain: Some("lab.example".into()),
        broadcast: host(255),
        ntp: vec![host(3)],
        mtu: Some(1500),
        lease_time: Duration::from_secs(LEASE as u64),
        max_lease_time: Duration::from_secs(7200),
        options: vec![],
    }
}

/// A server with a subnet of its own and one behind a relay, and what its disk has.
struct Server {
    config: Config,
    leases: Leases,
    disk: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A reply, and the options in the order of the wire.
struct Got {
    to: To,
    bytes: Vec<u8>,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Server {
    fn new() -> Server {
        let mut config = Config::default();
        config.dhcp.mode = Mode::Full;
        config.dhcp.subnets = vec![subnet([10, 0, 0, 0]), subnet([10, 7, 0, 0])];
        Server { config, leases: Leases::default(), disk: BTreeMap::new() }.restarted()
    }

    fn with(change: impl FnOnce(&mut Config)) -> Server {
        let mut s = Server::new();
        change(&mut s.config);
        s.restarted()
    }

    /// All that is known of leases is what the disk has.
    fn restarted(self) -> Server {
        let records: Vec<_> = self.disk.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let (mut leases, unread) = Leases::load(&records);
        assert!(unread.is_empty());
        leases.keep([SERVER]);
        leases.configure(&self.config);
        Server { leases, ..self }
    }

    /// The one place that knows what the decision is made of.
    fn decide(&mut self, at: i64, request: &wire::Request) -> decide::Outcome {
        let now = Timestamp::from_second(at).unwrap();
        let here = Here {
            interface: "eth1",
            addresses: &["10.0.0.1/24".parse().unwrap()],
            to: None,
            port: Port::Server,
            trust: &[],
            has_loader: &|_| true,
            handed: None,
            known: None,
            assigned: false,
            now,
            lease_now: now,
        };
        let outcome = decide::decide(&self.config, &mut self.leases, request, &here);
        for write in self.leases.take_changes() {
            match write.value {
                Some(value) => self.disk.insert(write.key, value),
                None => self.disk.remove(&write.key),
            };
        }
        outcome
    }

    fn ask(&mut self, at: i64, datagram: &Datagram) -> Result<Got, Silent> {
        let request = wire::read(&datagram.bytes()).unwrap();
        let answer = self.decide(at, &request).result?;
        let bytes = wire::write(&answer.reply);
        let (options, _) = wire::read_reply(&bytes).unwrap();
        Ok(Got { to: answer.to, bytes, options })
    }

    fn told(&mut self, at: i64, datagram: &Datagram) -> Got {
        self.ask(at, datagram).unwrap_or_else(|why| panic!("silent: {why}"))
    }

    fn silent(&mut self, at: i64, datagram: &Datagram) -> &'static str {
        match self.ask(at, datagram) {
            Ok(got) => panic!("it answered {:?}", got.kind()),
            Err(why) => why.name(),
        }
    }

    /// DISCOVER to ACK; the address.
    fn lease(&mut self, at: i64, discover: &Datagram) -> Ipv4Addr {
        let offered = self.told(at, discover).yiaddr();
        let got = self.told(at, &selecting(discover, offered));
        assert_eq!((got.kind(), got.yiaddr()), (ReplyKind::Ack, offered));
        offered
    }
}

impl Got {
    fn kind(&self) -> ReplyKind {
        match self.options[&code::MESSAGE_TYPE][..] {
            [2] => ReplyKind::Offer,
            [5] => ReplyKind::Ack,
            [6] => ReplyKind::Nak,
            ref other => panic!("{other:?} is not a server's message"),
        }
    }

    fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::from(<[u8; 4]>::try_from(&self.bytes[at..at + 4]).unwrap())
    }

    fn yiaddr(&self) -> Ipv4Addr {
        self.address(16)
    }

    fn flags(&self) -> u16 {
        u16::from_be_bytes([self.bytes[10], self.bytes[11]])
    }

    /// The codes as they stand, each part of a split option on its own.
    fn order(&self) -> Vec<u8> {
        let mut at = 240;
        let mut codes = vec![];
        while self.bytes[at] != 255 {
            codes.push(self.bytes[at]);
            at += 2 + usize::from(self.bytes[at + 1]);
        }
        codes
    }
}

/// The REQUEST that follows an offer: all that the DISCOVER said, and which offer it is.
fn selecting(discover: &Datagram, offered: Ipv4Addr) -> Datagram {
    let mut d = discover.clone();
    d.options[0].1 = vec![REQUEST];
    d.options.retain(|(c, _)| *c != code::REQUESTED_ADDRESS);
    d.with(code::SERVER_ID, SERVER.octets()).with(code::REQUESTED_ADDRESS, offered.octets())
}

fn reboot(address: Ipv4Addr) -> Datagram {
    Datagram::new(REQUEST).with(code::REQUESTED_ADDRESS, address.octets())
}

fn flagged(mut d: Datagram) -> Datagram {
    d.head[10] = 0x80;
    d
}

fn relayed(d: Datagram) -> Datagram {
    d.giaddr(RELAY)
}

fn unicast(address: Ipv4Addr, port: u16) -> To {
    To::Address(SocketAddrV4::new(address, port))
}

#[test]
fn rfc2131_4_1_replies_go_where_it_says() {
    let mine: Ipv4Addr = [10, 0, 0, 50].into();
    // Each kind of reply, asked for directly, with the broadcast bit, and through a relay.
    for (relay, broadcast) in [(false, false), (false, true), (true, false), (true, true)] {
        let dress = |d: Datagram| {
            let d = if relay { relayed(d) } else { d };
            if broadcast { flagged(d) } else { d }
        };
        let mut s = Server::new();
        let discover = dress(Datagram::new(DISCOVER));
        let offer = s.told(0, &discover);
        let had = offer.yiaddr();
        let cases = [
            ("OFFER", offer, false),
            ("ACK, SELECTING", s.told(1, &selecting(&discover, had)), false),
            ("ACK, INIT-REBOOT", s.told(2, &dress(reboot(had))), false),
            ("ACK, RENEWING", s.told(3, &dress(Datagram::new(REQUEST).ciaddr(had))), true),
            ("ACK of INFORM", s.told(4, &dress(Datagram::new(INFORM).ciaddr(had))), true),
            ("NAK, INIT-REBOOT", s.told(5, &dress(reboot(ELSEWHERE))), false),
            // Section 4.1 on a NAK: broadcast in all cases without giaddr, ciaddr or not.
            ("NAK, RENEWING", s.told(6, &dress(Datagram::new(REQUEST).ciaddr(ELSEWHERE))), false),
        ];
        for (name, got, at_ciaddr) in cases {
            let expected = match (relay, at_ciaddr) {
                (true, _) => unicast(RELAY, 67),
                (false, true) => unicast(had, 68),
                // In place of a unicast to a hardware address, which needs a raw socket: every
                // client takes a broadcast (wire facts of PXE ROMs, EDK2 and iPXE).
                (false, false) => To::Broadcast,
            };
            assert_eq!(got.to, expected, "{name}, relay {relay}, broadcast {broadcast}");
            assert_eq!(got.kind() == ReplyKind::Nak, name.starts_with("NAK"));
        }
    }
    // INFORM with an address that we never gave: unicast to it all the same (section 4.3.5).
    assert_eq!(Server::new().told(0, &Datagram::new(INFORM).ciaddr(mine)).to, unicast(mine, 68));
}

#[test]
fn rfc2131_4_1_holds_for_whatever_comes() {
    let seeds: Vec<Vec<u8>> = [
        Datagram::new(DISCOVER),
        pxe(DISCOVER, 7),
        reboot([10, 0, 0, 100].into()),
        relayed(reboot(ELSEWHERE)),
        Datagram::new(REQUEST).ciaddr([10, 0, 0, 100].into()),
        Datagram::new(REQUEST).ciaddr(ELSEWHERE),
        relayed(Datagram::new(DISCOVER)).with(code::RELAY_AGENT, [1, 1, 9]),
        Datagram::new(INFORM).ciaddr([10, 0, 0, 50].into()),
    ]
    .iter()
    .map(Datagram::bytes)
    .collect();
    let mut dice = Dice::new();
    let mut s = Server::new();
    let mut answered = BTreeMap::new();
    for round in 0..30_000 {
        let Ok(request) = wire::read(&dice.mutate(&seeds, 236)) else { continue };
        let Ok(answer) = s.decide(round, &request).result else { continue };
        let nak = answer.reply.kind == ReplyKind::Nak;
        let expected = match (request.is_relayed(), request.ciaddr.is_unspecified() || nak) {
            (true, _) => unicast(request.giaddr, 67),
            (false, false) => unicast(request.ciaddr, 68),
            (false, true) => To::Broadcast,
        };
        assert_eq!(answer.to, expected, "{request:?}");
        assert_eq!((answer.reply.xid, answer.reply.mac), (request.xid, request.mac));
        *answered.entry(answer.reply.kind.word()).or_insert(0) += 1;
    }
    assert!(answered.len() == 3 && answered.values().all(|n| *n > 200), "{answered:?}");
}

#[test]
fn rfc2131_4_3_2_a_nak_through_a_relay_is_broadcast_by_it() {
    let mut s = Server::new();
    let had = s.lease(0, &relayed(Datagram::new(DISCOVER)));
    let other = Ipv4Addr::from(u32::from(had) ^ 1);
    for (name, request) in [
        ("INIT-REBOOT, another network's", reboot(ELSEWHERE)),
        ("INIT-REBOOT, not the one it has", reboot(other)),
        ("SELECTING, not the one offered", selecting(&Datagram::new(DISCOVER), other)),
        ("REBINDING, another network's", Datagram::new(REQUEST).ciaddr(ELSEWHERE)),
        ("REBINDING, not the one it has", Datagram::new(REQUEST).ciaddr(other)),
    ] {
        let got = s.told(1, &relayed(request));
        assert_eq!(got.kind(), ReplyKind::Nak, "{name}");
        assert_eq!((got.to, got.flags(), got.address(24)), (unicast(RELAY, 67), 0x8000, RELAY));
    }
    // What is no NAK keeps the client's own bit (table 3), set or not.
    assert_eq!(s.told(2, &relayed(reboot(had))).flags(), 0);
    assert_eq!(s.told(2, &relayed(flagged(reboot(had)))).flags(), 0x8000);
}

#[test]
fn rfc2131_table_3_the_fields_of_a_reply() {
    let mut s = Server::new();
    let discover = flagged(pxe(DISCOVER, 0));
    let offer = s.told(0, &discover);
    let had = offer.yiaddr();
    let zero = Ipv4Addr::UNSPECIFIED;
    let renew = Datagram::new(REQUEST).ciaddr(had);
    let inform = Datagram::new(INFORM).ciaddr(had);
    // Reply; ciaddr, yiaddr; siaddr where there is something to boot; has times.
    for (name, got, ciaddr, yiaddr, siaddr, times) in [
        ("OFFER", offer, zero, had, SERVER, true),
        ("ACK", s.told(1, &selecting(&discover, had)), zero, had, SERVER, true),
        ("ACK, RENEWING", s.told(2, &renew), had, had, zero, true),
        ("ACK of INFORM", s.told(3, &inform), had, zero, zero, false),
        ("NAK", s.told(4, &reboot(ELSEWHERE)), zero, zero, zero, false),
    ] {
        let b = &got.bytes;
        assert_eq!(b[..4], [2, 1, 6, 0], "{name}: op, htype, hlen, hops");
        assert_eq!(b[4..8], 0x1234_5678u32.to_be_bytes(), "{name}: xid");
        assert_eq!(b[8..10], [0, 0], "{name}: secs");
        let fields = [got.address(12), got.address(16), got.address(20), got.address(24)];
        assert_eq!(fields, [ciaddr, yiaddr, siaddr, zero], "{name}");
        assert_eq!(b[28..34], MAC, "{name}: chaddr");
        assert_eq!(b[34..44], [0; 10], "{name}: the rest of chaddr");
        assert_eq!(got.options[&code::SERVER_ID], SERVER.octets(), "{name}");
        let held = [code::LEASE_TIME, code::T1, code::T2].map(|c| got.options.contains_key(&c));
        assert_eq!(held, [times; 3], "{name}");
        for never in [code::REQUESTED_ADDRESS, code::PARAMETER_LIST, code::MAX_MESSAGE_SIZE] {
            assert!(!got.options.contains_key(&never), "{name}: {never} is the client's");
        }
        assert_eq!(got.options.contains_key(&code::MESSAGE), name == "NAK", "{name}: why");
        assert_eq!(got.options.contains_key(&code::SUBNET_MASK), name != "NAK", "{name}: mask");
    }
}

#[test]
fn rfc2131_table_4_each_state_of_a_client_with_each_address() {
    use ReplyKind::{Ack, Nak};
    // What a client says in each state of what it holds to be its address.
    type Says = fn(Ipv4Addr) -> Datagram;
    let says: [(&str, Says); 4] = [
        ("SELECTING", |a| selecting(&Datagram::new(DISCOVER), a)),
        ("INIT-REBOOT", reboot),
        ("RENEWING", |a| Datagram::new(REQUEST).ciaddr(a)),
        ("REBINDING", |a| flagged(Datagram::new(REQUEST).ciaddr(a))),
    ];
    for (state, says) in says {
        for relay in [false, true] {
            let dress = |d: Datagram| if relay { relayed(d) } else { d };
            let mut s = Server::new();
            let mine = s.lease(0, &dress(Datagram::new(DISCOVER)));
            let others = s.lease(0, &dress(Datagram::new(DISCOVER).mac(2)));
            let pool = (100..110).map(|n| Ipv4Addr::new(10, if relay { 7 } else { 0 }, 0, n));
            let free = pool.into_iter().find(|a| *a != mine && *a != others).unwrap();
            let mut kind = |at, d: Datagram| s.ask(at, &dress(d)).map(|g| (g.kind(), g.yiaddr()));
            let none = Ipv4Addr::UNSPECIFIED;
            let row = format!("{state}, relayed {relay}");
            assert_eq!(kind(1, says(mine)), Ok((Ack, mine)), "{row}: what it has");
            assert_eq!(kind(2, says(others)), Ok((Nak, none)), "{row}: what another has");
            assert_eq!(kind(3, says(free)), Ok((Nak, none)), "{row}: what nobody has");
            assert_eq!(kind(4, says(ELSEWHERE)), Ok((Nak, none)), "{row}: of another network");
            // A client of which there is no record. Only SELECTING names us; of the others nothing
            // may be said, for another server of this network may have its lease.
            let stranger = kind(5, says(mine).mac(3));
            match state {
                "SELECTING" => assert_eq!(stranger, Ok((Nak, none)), "{row}: a stranger"),
                _ => assert_eq!(stranger, Err(Silent::NoRecord(mine)), "{row}: a stranger"),
            }
            assert_eq!(kind(6, says(ELSEWHERE).mac(3)), Ok((Nak, none)), "{row}: a lost stranger");
            // And none of that has cost it its lease.
            assert_eq!(kind(7, says(mine)), Ok((Ack, mine)), "{row}: still");
            // It was off for longer than its lease, and nobody took the address.
            assert_eq!(kind(3 * LEASE, says(mine)), Ok((Ack, mine)), "{row}: late");
        }
    }
}

#[test]
fn rfc2131_4_3_2_a_lease_that_ended_and_went_to_another_is_denied() {
    let one: Ipv4Addr = [10, 0, 0, 100].into();
    let mut s = Server::with(|c| c.dhcp.subnets[0].ranges = vec![one..=one]);
    assert_eq!(s.lease(0, &Datagram::new(DISCOVER)), one);
    assert_eq!(s.silent(1, &Datagram::new(DISCOVER).mac(2)), "pool-full");
    assert_eq!(s.lease(2 * LEASE, &Datagram::new(DISCOVER).mac(2)), one);
    for late in [reboot(one), Datagram::new(REQUEST).ciaddr(one)] {
        // Its record went to the other client with the address: it is a stranger now.
        assert_eq!(s.silent(2 * LEASE + 1, &late), "no-record");
    }
    let got = s.told(2 * LEASE + 2, &selecting(&Datagram::new(DISCOVER), one));
    assert_eq!(got.kind(), ReplyKind::Nak);
}

#[test]
fn rfc2131_4_3_2_the_offer_of_another_server_is_its_matter() {
    let mut s = Server::new();
    let offered = s.told(0, &Datagram::new(DISCOVER)).yiaddr();
    let mut chosen = selecting(&Datagram::new(DISCOVER), offered);
    chosen.options[1].1 = vec![10, 0, 0, 2];
    assert_eq!(s.silent(1, &chosen), "other-server");
    assert!(s.leases.get(offered).is_none(), "our offer is void at once");
    assert!(s.disk.is_empty());
}

#[test]
fn rfc2131_4_3_1_and_4_4_5_times() {
    let mut s = Server::new();
    // What it asks for; what it gets: ours without a word, no more than the most, no less than a
    // minute, and RFC 2131's "infinity" is too long as well.
    for (asked, got) in [
        (None, 3600u32),
        (Some(600u32), 600),
        (Some(7201), 7200),
        (Some(0xffff_ffff), 7200),
        (Some(0), 60),
    ] {
        let mut discover = Datagram::new(DISCOVER);
        if let Some(asked) = asked {
            discover = discover.with(code::LEASE_TIME, asked.to_be_bytes());
        }
        let offered = s.told(0, &discover);
        let ack = s.told(0, &selecting(&discover, offered.yiaddr()));
        for reply in [offered, ack] {
            let time = |c| u32::from_be_bytes(reply.options[&c][..].try_into().unwrap());
            assert_eq!(time(code::LEASE_TIME), got);
            assert_eq!((time(code::T1), time(code::T2)), (got / 2, got / 8 * 7 + got % 8 * 7 / 8));
        }
    }
}

#[test]
fn rfc6842_option_61_comes_back_in_every_reply() {
    for id in [vec![1, 0x52, 0x54, 0, 0, 0, 1], vec![0], [&[255u8][..], &[7; 299]].concat()] {
        let mut s = Server::new();
        // The longest needs a client that takes it.
        let size = 1500u16.to_be_bytes();
        let named =
            |d: Datagram| d.with(code::CLIENT_ID, id.clone()).with(code::MAX_MESSAGE_SIZE, size);
        let discover = named(Datagram::new(DISCOVER));
        let offer = s.told(0, &discover);
        let had = offer.yiaddr();
        for (name, got) in [
            ("OFFER", offer),
            ("ACK", s.told(1, &selecting(&discover, had))),
            ("ACK of INFORM", s.told(2, &named(Datagram::new(INFORM).ciaddr(had)))),
            ("NAK", s.told(3, &named(reboot(ELSEWHERE)))),
            ("NAK through a relay", s.told(3, &relayed(named(reboot(ELSEWHERE))))),
        ] {
            assert_eq!(got.options[&code::CLIENT_ID], id, "{name}");
        }
        // Section 3: and not where there was none.
        let got = s.told(4, &Datagram::new(DISCOVER));
        assert!(!got.options.contains_key(&code::CLIENT_ID));
    }
}

#[test]
fn rfc3396_what_is_long_is_split_and_what_is_split_is_joined() {
    // Any option of any length goes out in parts of at most 255 bytes, and comes in again.
    for len in [0usize, 1, 254, 255, 256, 509, 510, 511, 800] {
        let value: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let s = &mut Server::with(|c| c.dhcp.subnets[0].options = vec![(224, value.clone())]);
        let got = s.told(0, &pxe(DISCOVER, 0));
        assert_eq!(got.options[&224], value, "{len}");
        let parts = got.order().iter().filter(|c| **c == 224).count();
        assert_eq!(parts, len.div_ceil(255).max(1), "{len}");
    }
    // Reading: the parts of 61 in the order of section 7: options, then file, then sname, wherever
    // they stand among others.
    let mut d = Datagram::new(DISCOVER)
        .with(code::OVERLOAD, [3])
        .with(code::CLIENT_ID, *b"op")
        .with(code::PARAMETER_LIST, [26, 6])
        .with(code::CLIENT_ID, *b"tions ")
        .with(code::PARAMETER_LIST, [15]);
    d.head[108..118].copy_from_slice(&[0, 0, 61, 5, b'f', b'i', b'l', b'e', b' ', 255]);
    d.head[44..51].copy_from_slice(&[61, 5, b's', b'n', b'a', b'm', b'e']);
    let request = wire::read(&d.bytes()).unwrap();
    assert_eq!(request.client_id.as_deref(), Some(&b"options file sname"[..]));
    assert_eq!(request.parameters, [26, 6, 15]);
    // An address in parts is an address.
    let split = Datagram::new(REQUEST)
        .with(code::REQUESTED_ADDRESS, [10, 0])
        .with(code::HOSTNAME, *b"web1")
        .with(code::REQUESTED_ADDRESS, [0, 104]);
    let request = wire::read(&split.bytes()).unwrap();
    assert_eq!(request.requested, Some([10, 0, 0, 104].into()));
    // However a value is cut, it is the same value.
    let mut dice = Dice::new();
    for _ in 0..500 {
        let value: Vec<u8> = (0..1 + dice.roll(600)).map(|_| dice.roll(256) as u8).collect();
        let mut d = Datagram::new(DISCOVER);
        let mut rest = &value[..];
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(1 + dice.roll(rest.len().min(255)));
            d = d.with(code::CLIENT_ID, part).with(200 + dice.roll(20) as u8, [9]);
            rest = tail;
        }
        assert_eq!(wire::read(&d.bytes()).unwrap().client_id, Some(value));
    }
}

#[test]
fn rfc2132_9_3_overload_is_read() {
    let file: &[u8] = &[93, 2, 0, 11];
    let sname: &[u8] = &[12, 4, b'w', b'e', b'b', b'1', 255];
    // Overload; whether `file` and `sname` are options: the architecture and the host name.
    for (overload, in_file, in_sname) in [
        (None, false, false),
        (Some(0), false, false),
        (Some(1), true, false),
        (Some(2), false, true),
        (Some(3), true, true),
    ] {
        let mut d = Datagram::new(DISCOVER);
        if let Some(value) = overload {
            d = d.with(code::OVERLOAD, [value]);
        }
        d.head[108..112].copy_from_slice(file);
        d.head[44..51].copy_from_slice(sname);
        let request = wire::read(&d.bytes()).unwrap();
        assert_eq!(request.arch.is_some(), in_file, "{overload:?}");
        assert_eq!(request.hostname.is_some(), in_sname, "{overload:?}");
    }
    // A field may be full to its last byte, without an end; and one that is cut harms no other.
    let mut d = Datagram::new(DISCOVER).with(code::OVERLOAD, [3]);
    d.head[108..112].copy_from_slice(&[224, 120, 0, 0]);
    d.head[230..236].copy_from_slice(&[93, 4, 0, 7, 0, 9]);
    d.head[44..46].copy_from_slice(&[12, 63]);
    let request = wire::read(&d.bytes()).unwrap();
    assert_eq!((request.arch, request.hostname), (Some(7), None));
    // Behind the end of the options there are none.
    let mut bytes = Datagram::new(DISCOVER).bytes();
    bytes.extend([93, 2, 0, 11, 255]);
    assert_eq!(wire::read(&bytes).unwrap().arch, None);
}

#[test]
fn rfc2132_9_8_the_parameter_list_in_its_order() {
    const ALL: [u8; 8] = [1, 3, 6, 15, 26, 28, 42, 224];
    let mut s = Server::with(|c| c.dhcp.subnets[0].options = vec![(224, vec![1])]);
    let mut dice = Dice::new();
    for _ in 0..200 {
        // Some of what there is, some of what there is not (252), some twice.
        let list: Vec<u8> = (0..1 + dice.roll(12))
            .map(|_| ALL.get(dice.roll(ALL.len() + 1)).copied().unwrap_or(252))
            .collect();
        let got = s.told(0, &Datagram::new(DISCOVER).with(code::PARAMETER_LIST, list.clone()));
        // RFC 2132 section 3.3: the mask before the router, which here is first of all; what the
        // user set by number comes unasked, too.
        let mut expected = vec![1];
        for code in list.iter().chain(&[224]) {
            if *code != 252 && !expected.contains(code) {
                expected.push(*code);
            }
        }
        let order: Vec<u8> = got.order().into_iter().filter(|c| ALL.contains(c)).collect();
        assert_eq!(order, expected, "{list:?}");
    }
    // Too much for the client: what it named last is what is missing.
    let big = |c: &mut Config| {
        c.dhcp.subnets[0].options = (200..=205).map(|code| (code, vec![code; 120])).collect();
    };
    let list = [203, 201, 200, 205, 202, 204];
    let got = Server::with(big).told(0, &Datagram::new(DISCOVER).with(code::PARAMETER_LIST, list));
    let order: Vec<u8> = got.order().into_iter().filter(|c| *c >= 200).collect();
    assert!(got.bytes.len() <= 548 && order == [203, 201], "{order:?}");
    // A client that says it takes more, gets more.
    let wide = Datagram::new(DISCOVER)
        .with(code::PARAMETER_LIST, list)
        .with(code::MAX_MESSAGE_SIZE, 1500u16.to_be_bytes());
    let got = Server::with(big).told(0, &wide);
    assert_eq!(got.order().into_iter().filter(|c| *c >= 200).collect::<Vec<_>>(), list);
}

#[test]
fn the_same_client_has_the_same_address_whatever_happens() {
    for relay in [false, true] {
        let dress = |d: Datagram| if relay { relayed(d) } else { d };
        let mut s = Server::new();
        // The stages of one machine: each says another client identifier, and is the same client.
        let stages = [
            pxe(DISCOVER, 0).with(code::CLIENT_ID, [[0].as_slice(), &[7; 16]].concat()),
            ipxe(DISCOVER, 0, ROM),
            ipxe(DISCOVER, 0, OURS).with(code::CLIENT_ID, [[1].as_slice(), &MAC].concat()),
            Datagram::new(DISCOVER).with(code::CLIENT_ID, [[255].as_slice(), &[9; 18]].concat()),
            Datagram::new(DISCOVER),
        ]
        .map(dress);
        let first = s.lease(0, &stages[0]);
        let neighbours: Vec<_> =
            (10..14).map(|m| s.lease(0, &dress(Datagram::new(DISCOVER).mac(m)))).collect();
        let mut at = 1;
        for stage in &stages {
            assert_eq!(s.lease(at, stage), first);
            at += 10;
        }
        // It asks for another (option 50) and has one already (section 4.3.1).
        let wish = Ipv4Addr::from(u32::from(first) ^ 1);
        let wishing = stages[4].clone().with(code::REQUESTED_ADDRESS, wish.octets());
        assert_eq!(s.told(at, &wishing).yiaddr(), first);
        // It gives the address back, and comes again; others come in between.
        assert_eq!(s.silent(at, &dress(Datagram::new(RELEASE).ciaddr(first))), "noted");
        assert!(!neighbours.contains(&first));
        assert_ne!(s.lease(at, &dress(Datagram::new(DISCOVER).mac(20))), first);
        assert_eq!(s.lease(at + 1, &stages[0]), first, "released");
        // Its lease ends while it is off.
        at += 2 * LEASE;
        assert_ne!(s.lease(at, &dress(Datagram::new(DISCOVER).mac(21))), first);
        assert_eq!(s.lease(at + 1, &stages[1]), first, "ended");
        // The server starts anew, with what was on its disk: lease and released lease alike.
        s = s.restarted();
        assert_eq!(s.told(at + 2, &dress(reboot(first))).kind(), ReplyKind::Ack, "restarted");
        assert_eq!(s.lease(at + 3, &stages[2]), first, "restarted");
        assert_eq!(s.silent(at + 4, &dress(Datagram::new(RELEASE).ciaddr(first))), "noted");
        s = s.restarted();
        assert_ne!(s.lease(at + 5, &dress(Datagram::new(DISCOVER).mac(22))), first);
        assert_eq!(s.lease(at + 6, &stages[3]), first, "released, restarted");
    }
    // An offer that was never taken leaves no record, and is the same one all the same.
    let mut s = Server::new();
    let offered = s.told(0, &Datagram::new(DISCOVER)).yiaddr();
    assert!(s.disk.is_empty(), "an offer is never written");
    s = s.restarted();
    assert_eq!(s.told(LEASE, &Datagram::new(DISCOVER)).yiaddr(), offered);
}

#[test]
fn a_reservation_is_the_address_in_every_row() {
    let fixed: Ipv4Addr = [10, 0, 0, 42].into();
    let mut s = Server::with(|c| {
        c.machines = vec![Machine {
            settings: Default::default(),
            name: "one".into(),
            matches: Match { mac: Some(pilotlight::model::Mac(MAC).into()), ..Default::default() },
            profile: None,
            address: Some(fixed),
            hostname: Some("one".into()),
            loader: None,
            vars: Default::default(),
            secrets: Default::default(),
            power: Default::default(),
        }]
        .into();
    });
    // Without a record here it is known all the same: INIT-REBOOT and RENEWING are answered.
    for known in [reboot(fixed), Datagram::new(REQUEST).ciaddr(fixed)] {
        let got = s.told(0, &known);
        assert_eq!((got.kind(), got.yiaddr()), (ReplyKind::Ack, fixed));
        assert_eq!(got.options[&code::HOSTNAME], b"one");
    }
    assert_eq!(s.lease(1, &Datagram::new(DISCOVER)), fixed);
    let stranger = Datagram::new(DISCOVER).mac(2).with(code::REQUESTED_ADDRESS, fixed.octets());
    assert_ne!(s.lease(2, &stranger), fixed);
}

#[test]
fn rfc5107_the_relay_says_who_we_are() {
    let mut s = Server::new();
    let agent = [&[11, 4][..], &RELAY.octets()].concat();
    let discover = relayed(Datagram::new(DISCOVER)).with(code::RELAY_AGENT, agent.clone());
    let offer = s.told(0, &discover);
    assert_eq!(offer.options[&code::SERVER_ID], RELAY.octets());
    // The client names the relay in its turn, as it was told to.
    let request = |agent: Option<&[u8]>| {
        let d = relayed(Datagram::new(REQUEST))
            .with(code::SERVER_ID, RELAY.octets())
            .with(code::REQUESTED_ADDRESS, offer.yiaddr().octets());
        match agent {
            Some(agent) => d.with(code::RELAY_AGENT, agent),
            None => d,
        }
    };
    let got = s.told(1, &request(Some(&agent)));
    assert_eq!((got.kind(), got.yiaddr()), (ReplyKind::Ack, offer.yiaddr()));
    assert_eq!(got.options[&code::SERVER_ID], RELAY.octets());
    // A NAK, too, comes from whom the client knows.
    let wrong = relayed(reboot(ELSEWHERE)).with(code::RELAY_AGENT, agent.clone());
    assert_eq!(s.told(2, &wrong).options[&code::SERVER_ID], RELAY.octets());
    // Without the sub-option that address is another server.
    assert_eq!(s.silent(3, &request(None)), "other-server");
    // And without a relay the sub-option is nobody's word.
    let direct = Datagram::new(DISCOVER).mac(2).with(code::RELAY_AGENT, agent);
    assert_eq!(s.told(4, &direct).options[&code::SERVER_ID], SERVER.octets());
}

#[test]
fn rfc3046_2_2_option_82_goes_back_whole_and_last() {
    // What switches say, one that nobody knows and that is empty, and one of two parts.
    let long = [&[1, 200][..], &[b'p'; 200], &[2, 196], &[b'r'; 196]].concat();
    for agent in [vec![1, 3, b'p', b'1', b'7', 2, 1, 9], vec![222, 0], long] {
        let mut s = Server::with(|c| c.dhcp.subnets[1].options = vec![(225, vec![1; 200])]);
        let with = |d: Datagram| relayed(d).with(code::RELAY_AGENT, agent.clone());
        let discover = with(pxe(DISCOVER, 0).with(code::CLIENT_ID, [1, 2]));
        let offer = s.told(0, &discover);
        let had = offer.yiaddr();
        for (name, got) in [
            ("OFFER", offer),
            ("ACK", s.told(1, &selecting(&discover, had))),
            ("ACK, RENEWING", s.told(2, &with(Datagram::new(REQUEST).ciaddr(had)))),
            ("ACK of INFORM", s.told(3, &with(Datagram::new(INFORM).ciaddr(had)))),
            ("NAK", s.told(4, &with(reboot(ELSEWHERE)))),
            // It has room for 548 bytes, of which the relay takes its own away again.
            ("OFFER to a small client", s.told(5, &with(Datagram::new(DISCOVER).mac(2)))),
        ] {
            assert_eq!(got.options[&code::RELAY_AGENT], agent, "{name}");
            let parts = agent.len().div_ceil(255).max(1);
            let order = got.order();
            assert!(order[order.len() - parts..].iter().all(|c| *c == 82), "{name}: {order:?}");
            assert_eq!(order.iter().filter(|c| **c == 82).count(), parts, "{name}");
            assert!(got.options.contains_key(&code::SERVER_ID), "{name}: {order:?}");
            assert_eq!(got.to, unicast(RELAY, 67), "{name}");
        }
    }
    // Where there was none there is none.
    let got = Server::new().told(0, &relayed(Datagram::new(DISCOVER)));
    assert!(!got.options.contains_key(&code::RELAY_AGENT));
}

#[test]
fn messages_that_have_no_reply_get_none() {
    let mut s = Server::new();
    let had = s.lease(0, &Datagram::new(DISCOVER));
    let decline = Datagram::new(4).with(code::REQUESTED_ADDRESS, had.octets());
    assert_eq!(
        s.ask(1, &Datagram::new(RELEASE).ciaddr(had)).err(),
        Some(Silent::Noted(Kind::Release))
    );
    assert_eq!(s.lease(2, &Datagram::new(DISCOVER)), had);
    assert_eq!(s.ask(3, &decline).err(), Some(Silent::Noted(Kind::Decline)));
    // It rests on the disk as well: a server that starts anew does not give it out either.
    s = s.restarted();
    assert_ne!(s.lease(4, &Datagram::new(DISCOVER)), had);
    assert_ne!(s.lease(4, &Datagram::new(DISCOVER).mac(2)), had);
    // A REQUEST without an address asks for nothing.
    assert_eq!(s.silent(5, &Datagram::new(REQUEST)), "no-address");
}
