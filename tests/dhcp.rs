//! DHCP as timetables: (time, datagram) in, datagram out.

#[path = "common/datagram.rs"]
mod datagram;
#[path = "common/fields.rs"]
mod fields;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use datagram::{Datagram, Dice, MAC, OURS, ipxe, pxe};
use fields::{Fields, ROM};
use jiff::Timestamp;
use pilotlight::config::{Config, Mode, Subnet, Unknown};
use pilotlight::dhcp::decide::{self, Here, Outcome, Port, Silent, To};
use pilotlight::dhcp::lease::Leases;
use pilotlight::dhcp::wire::{self, ReplyKind, code};
use pilotlight::ledger::Handed;
use pilotlight::model::{Mac, Machine, Match, Why};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn subnet() -> Subnet {
    Subnet {
        network: "10.0.0.0/24".parse().unwrap(),
        ranges: vec![[10, 0, 0, 100].into()..=[10, 0, 0, 109].into()],
        router: vec![[10, 0, 0, 254].into()],
        dns: vec![SERVER],
        domain: Some("lab.example".into()),
        broadcast: [10, 0, 0, 255].into(),
        ntp: vec![],
        mtu: Some(1500),
        lease_time: Duration::from_secs(3600),
        max_lease_time: Duration::from_secs(7200),
        options: vec![(150, vec![10, 0, 0, 1])],
    }
}

/// A server at a point in time.
struct Server {
    config: Config,
    leases: Leases,
    handed: Option<Handed>,
    trust: Vec<u8>,
    to: Option<Ipv4Addr>,
    assigned: bool,
}

type Seen = (BTreeMap<u8, Vec<u8>>, Vec<u8>);

impl Server {
    fn new(mode: Mode) -> Server {
        let mut config = Config::default();
        config.dhcp.mode = mode;
        if mode == Mode::Full {
            config.dhcp.subnets = vec![subnet()];
        }
        let mut leases = Leases::default();
        leases.configure(&config);
        Server { config, leases, handed: None, trust: vec![], to: None, assigned: false }
    }

    fn tls(mut self) -> Server {
        self.config.tls.enabled = true;
        self.trust = vec![7; 64];
        self
    }

    fn ask(&mut self, at: i64, port: Port, datagram: &Datagram) -> Outcome {
        let request = wire::read(&datagram.bytes()).unwrap();
        let here = Here {
            interface: "eth1",
            addresses: &["10.0.0.1/24".parse().unwrap()],
            to: self.to,
            port,
            trust: &self.trust,
            has_loader: &|name| !name.contains("ia32"),
            handed: self.handed.as_ref(),
            known: None,
            assigned: self.assigned,
            now: Timestamp::from_second(at).unwrap(),
            lease_now: Timestamp::from_second(at).unwrap(),
        };
        let outcome = decide::decide(&self.config, &mut self.leases, &request, &here);
        if let Ok(answer) = &outcome.result
            && let Some(handed) = &answer.handed
        {
            self.handed = handed.clone();
        }
        outcome
    }

    /// The options and the whole datagram of an answer.
    fn seen(&mut self, at: i64, port: Port, datagram: &Datagram) -> Seen {
        let outcome = self.ask(at, port, datagram);
        let answer = outcome.result.unwrap_or_else(|why| panic!("silent: {why}"));
        let bytes = wire::write(&answer.reply);
        assert!((300..=1472).contains(&bytes.len()));
        let (options, _) = wire::read_reply(&bytes).unwrap();
        (options, bytes)
    }

    fn silent(&mut self, at: i64, port: Port, datagram: &Datagram) -> Silent {
        self.ask(at, port, datagram).result.unwrap_err()
    }
}

fn file(bytes: &[u8]) -> String {
    let field = &bytes[108..236];
    String::from_utf8(field.split(|b| *b == 0).next().unwrap().to_vec()).unwrap()
}

fn yiaddr(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19])
}

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

#[test]
fn full_mode_gives_each_firmware_its_loader() {
    for (arch, loader) in
        [(0, "undionly.kpxe"), (7, "snponly.efi"), (9, "snponly.efi"), (11, "ipxe-arm64.efi")]
    {
        let mut s = Server::new(Mode::Full);
        let (options, bytes) = s.seen(0, Port::Server, &pxe(DISCOVER, arch));
        assert_eq!(file(&bytes), loader);
        assert_eq!(options[&code::BOOTFILE], [loader.as_bytes(), b"\0"].concat());
        assert_eq!(bytes[20..24], SERVER.octets(), "siaddr");
        assert_eq!(options[&code::SERVER_ID], SERVER.octets());
        assert_eq!(options[&code::UUID].len(), 17, "97 is echoed");
        assert!(!options.contains_key(&code::VENDOR_CLASS), "full mode sends no option 60");
        assert_eq!(options[&code::IPXE], [176, 1, 1], "no-pxedhcp");
    }
}

#[test]
fn what_has_no_loader_is_refused_by_name_and_still_gets_its_lease() {
    for (arch, name) in [(1, "unknown-architecture"), (6, "no-loader")] {
        let mut s = Server::new(Mode::Full);
        let (options, bytes) = s.seen(0, Port::Server, &pxe(DISCOVER, arch));
        assert_eq!(file(&bytes), "");
        assert!(!options.contains_key(&code::BOOTFILE));
        assert!(!yiaddr(&bytes).is_unspecified());
        let mut s = Server::new(Mode::Proxy);
        assert_eq!(s.silent(0, Port::Server, &pxe(DISCOVER, arch)).name(), name);
    }
}

#[test]
fn proxy_mode_adds_boot_information_and_nothing_else() {
    let mut s = Server::new(Mode::Proxy);
    let (options, bytes) = s.seen(0, Port::Server, &pxe(DISCOVER, 0));
    assert!(yiaddr(&bytes).is_unspecified());
    assert_eq!(options[&code::VENDOR_CLASS], b"PXEClient");
    assert_eq!(options[&code::VENDOR], [6, 1, 8, 255]);
    assert_eq!(file(&bytes), "undionly.kpxe");
    for absent in [code::SUBNET_MASK, code::LEASE_TIME, code::ROUTER, code::DNS] {
        assert!(!options.contains_key(&absent));
    }
    assert!(!options.contains_key(&code::IPXE), "no-pxedhcp would make iPXE deaf to a proxy");

    let (options, _) = s.seen(0, Port::Server, &pxe(DISCOVER, 7));
    assert!(!options.contains_key(&code::VENDOR), "UEFI gets no 43 and comes to 4011");
    let request = pxe(REQUEST, 7).ciaddr([10, 0, 0, 77].into());
    let outcome = s.ask(1, Port::Pxe, &request);
    let answer = outcome.result.unwrap();
    assert_eq!((answer.to, answer.reply.kind), (To::Source, ReplyKind::Ack));
    assert_eq!(answer.reply.file, "snponly.efi");

    assert_eq!(s.silent(2, Port::Server, &Datagram::new(DISCOVER)), Silent::NotABootClient);
    assert_eq!(s.silent(2, Port::Server, &pxe(REQUEST, 7)).name(), "left-to-site-server");
    assert_eq!(s.silent(2, Port::Pxe, &pxe(DISCOVER, 7)).name(), "wrong-port");
}

#[test]
fn unknown_machines_are_ignored_where_that_is_said() {
    let ignoring = |mode| {
        let mut s = Server::new(mode);
        s.config.life.unknown = Unknown::Ignore;
        s
    };
    let mut s = ignoring(Mode::Proxy);
    for datagram in [pxe(DISCOVER, 0), pxe(DISCOVER, 1), ipxe(DISCOVER, 7, OURS)] {
        let why = s.silent(0, Port::Server, &datagram);
        assert_eq!((why.name(), why.is_everyday()), ("unknown-ignored", true));
    }
    assert_eq!(s.silent(0, Port::Pxe, &pxe(REQUEST, 7)), Silent::Ignored);
    assert_eq!(s.silent(0, Port::Server, &Datagram::new(DISCOVER)), Silent::NotABootClient);
    // A lease is everybody's, boot information is not.
    let mut s = ignoring(Mode::Full);
    let (options, bytes) = s.seen(0, Port::Server, &pxe(DISCOVER, 0));
    assert!(!yiaddr(&bytes).is_unspecified() && file(&bytes).is_empty());
    assert!(!options.contains_key(&code::BOOTFILE) && s.handed.is_none());
    // One that is assigned is known, and so is one that is declared.
    for mode in [Mode::Proxy, Mode::Full] {
        let mut s = ignoring(mode);
        s.assigned = true;
        assert_eq!(file(&s.seen(0, Port::Server, &pxe(DISCOVER, 0)).1), "undionly.kpxe");
        let mut s = ignoring(mode);
        s.config.machines = vec![Machine {
            settings: Default::default(),
            name: "web1".into(),
            matches: Match { mac: Some(Mac(MAC).into()), ..Match::default() },
            profile: None,
            address: None,
            hostname: None,
            loader: None,
            vars: serde_json::Map::new(),
            secrets: Default::default(),
            power: Default::default(),
        }]
        .into();
        assert_eq!(file(&s.seen(0, Port::Server, &pxe(DISCOVER, 0)).1), "undionly.kpxe");
    }
}

#[test]
fn http_boot_gets_a_url_with_an_address() {
    for mode in [Mode::Proxy, Mode::Full] {
        let mut s = Server::new(mode);
        let datagram = Datagram::new(DISCOVER)
            .with(code::VENDOR_CLASS, *b"HTTPClient:Arch:00016:UNDI:003001")
            .with(code::ARCH, [0, 16]);
        let (options, bytes) = s.seen(0, Port::Server, &datagram);
        assert_eq!(options[&code::VENDOR_CLASS], b"HTTPClient");
        assert_eq!(options[&code::BOOTFILE], b"http://10.0.0.1/loader/snponly.efi\0");
        assert_eq!(file(&bytes), "http://10.0.0.1/loader/snponly.efi");
    }
}

#[test]
fn an_ipxe_that_can_gets_its_script_and_one_that_cannot_gets_ours_once() {
    let mut s = Server::new(Mode::Full);
    let (_, bytes) = s.seen(0, Port::Server, &ipxe(DISCOVER, 0, ROM));
    assert_eq!(file(&bytes), "http://10.0.0.1/boot.ipxe", "HTTP is all it needs");

    // With TLS the ROM has no HTTPS: it is handed ours, with the roots to trust, by HTTP.
    let mut s = Server::new(Mode::Full).tls();
    let (options, bytes) = s.seen(0, Port::Server, &ipxe(DISCOVER, 0, ROM));
    assert_eq!(file(&bytes), "http://10.0.0.1/loader/undionly.kpxe");
    assert_eq!(options[&code::IPXE], [&[176, 1, 1, 90, 64][..], &[7; 64]].concat());
    let request = ipxe(REQUEST, 0, ROM)
        .with(code::SERVER_ID, SERVER.octets())
        .with(code::REQUESTED_ADDRESS, yiaddr(&bytes).octets());
    s.seen(1, Port::Server, &request);
    // Ours comes back, with HTTPS.
    let (_, bytes) = s.seen(3, Port::Server, &ipxe(DISCOVER, 0, OURS));
    assert_eq!(file(&bytes), "https://10.0.0.1/boot.ipxe");

    // A loader of the operator's without HTTPS comes back: no loop.
    let other: &[u8] = &[16, 19, 38];
    let outcome = s.ask(4, Port::Server, &ipxe(DISCOVER, 0, other));
    assert_eq!(outcome.result.unwrap().next, decide::Next::Refused(Silent::LoaderLacks("HTTPS")));
    // The ROM itself again: the machine was restarted; a fourth time in a row it is a loop.
    let mut names = Vec::new();
    for round in 1..5 {
        let (_, bytes) = s.seen(60 * round, Port::Server, &request);
        names.push(file(&bytes));
    }
    assert_eq!(names[1], "http://10.0.0.1/loader/undionly.kpxe");
    assert_eq!(names[3], "", "{names:?}");
}

#[test]
fn an_https_ipxe_of_the_machines_own_does_not_know_our_root() {
    let mut s = Server::new(Mode::Full).tls();
    let (_, bytes) = s.seen(0, Port::Server, &ipxe(DISCOVER, 0, OURS));
    assert_eq!(file(&bytes), "http://10.0.0.1/loader/undionly.kpxe");
}

#[test]
fn discover_offer_request_ack_and_the_parameter_list_in_its_order() {
    let mut s = Server::new(Mode::Full);
    let discover = Datagram::new(DISCOVER)
        .with(code::PARAMETER_LIST, [26, 6, 15, 3])
        .with(code::CLIENT_ID, [1, 2, 3]);
    let (options, bytes) = s.seen(0, Port::Server, &discover);
    let offered = yiaddr(&bytes);
    assert_eq!(options[&code::CLIENT_ID], [1, 2, 3], "RFC 6842");
    let order: Vec<u8> = {
        let mut at = 240;
        let mut codes = vec![];
        while bytes[at] != 255 {
            codes.push(bytes[at]);
            at += 2 + usize::from(bytes[at + 1]);
        }
        codes
    };
    assert_eq!(order, [53, 54, 51, 58, 59, 61, 1, 26, 6, 15, 3, 150]);
    assert_eq!(options[&code::LEASE_TIME], 3600u32.to_be_bytes());

    let request = Datagram::new(REQUEST)
        .with(code::REQUESTED_ADDRESS, offered.octets())
        .with(code::SERVER_ID, SERVER.octets())
        .with(code::LEASE_TIME, 1_000_000u32.to_be_bytes());
    let (options, bytes) = s.seen(1, Port::Server, &request);
    assert_eq!(options[&code::MESSAGE_TYPE], [5]);
    assert_eq!(yiaddr(&bytes), offered);
    assert_eq!(options[&code::LEASE_TIME], 7200u32.to_be_bytes(), "max-lease-time");

    // RENEWING: ciaddr, no server identifier; the answer goes there.
    let renew = Datagram::new(REQUEST).ciaddr(offered);
    let answer = s.ask(2, Port::Server, &renew).result.unwrap();
    assert_eq!(answer.reply.kind, ReplyKind::Ack);
    assert!(matches!(answer.to, To::Address(a) if *a.ip() == offered && a.port() == 68));
    // INIT-REBOOT with the right address, the wrong network, and by a stranger.
    let reboot = |a: [u8; 4]| Datagram::new(REQUEST).with(code::REQUESTED_ADDRESS, a);
    let kind = |o: Outcome| o.result.map(|a| a.reply.kind);
    assert_eq!(kind(s.ask(3, Port::Server, &reboot(offered.octets()))), Ok(ReplyKind::Ack));
    assert_eq!(kind(s.ask(3, Port::Server, &reboot([10, 9, 9, 9]))), Ok(ReplyKind::Nak));
    assert_eq!(
        kind(s.ask(3, Port::Server, &reboot(offered.octets()).mac(9))),
        Err(Silent::NoRecord(offered))
    );
    // A client that took another server's offer.
    let other = request.clone().mac(9);
    let mut other = other;
    other.options[2].1 = vec![10, 0, 0, 2];
    assert_eq!(
        kind(s.ask(4, Port::Server, &other)),
        Err(Silent::OtherServer([10, 0, 0, 2].into()))
    );
    // SELECTING an address that is somebody else's.
    assert_eq!(kind(s.ask(4, Port::Server, &request.clone().mac(9))), Ok(ReplyKind::Nak));
    // INFORM: options, no address, no times.
    let inform = Datagram::new(8).ciaddr([10, 0, 0, 50].into());
    let (options, bytes) = s.seen(5, Port::Server, &inform);
    assert!(yiaddr(&bytes).is_unspecified());
    assert!(!options.contains_key(&code::LEASE_TIME) && options.contains_key(&code::DNS));
    // RELEASE and DECLINE: noted, and only for the one who has it.
    let release = Datagram::new(7).ciaddr(offered);
    assert_eq!(s.silent(6, Port::Server, &release.clone().mac(9)).name(), "not-its-lease");
    assert_eq!(s.silent(6, Port::Server, &release).name(), "noted");
    let decline = Datagram::new(4).with(code::REQUESTED_ADDRESS, offered.octets());
    assert_eq!(s.silent(6, Port::Server, &decline).name(), "not-its-lease", "given back");
    assert_eq!(kind(s.ask(7, Port::Server, &reboot(offered.octets()))), Ok(ReplyKind::Ack));
    assert_eq!(s.silent(7, Port::Server, &decline).name(), "noted");
    let (_, bytes) = s.seen(8, Port::Server, &discover);
    assert_ne!(yiaddr(&bytes), offered, "a declined address rests");
}

#[test]
fn a_client_has_what_it_was_offered_and_no_other_pool() {
    let mut s = Server::new(Mode::Full);
    let (_, bytes) = s.seen(0, Port::Server, &Datagram::new(DISCOVER));
    let offered = yiaddr(&bytes);
    let mut acked = 0;
    for last in 100..110 {
        let request = Datagram::new(REQUEST)
            .with(code::SERVER_ID, SERVER.octets())
            .with(code::REQUESTED_ADDRESS, [10, 0, 0, last]);
        let answer = s.ask(1, Port::Server, &request).result.unwrap();
        let right = answer.reply.kind == ReplyKind::Ack;
        assert_eq!(right, offered.octets()[3] == last);
        acked += usize::from(right);
    }
    assert_eq!(acked, 1);
    // Without a relay nobody chooses another network's subnet (options 118 and 82), and 82 is not
    // echoed to who sent it himself.
    let mut far = subnet();
    far.network = "10.7.0.0/24".parse().unwrap();
    far.ranges = vec![[10, 7, 0, 10].into()..=[10, 7, 0, 20].into()];
    s.config.dhcp.subnets.push(far);
    s.leases.configure(&s.config);
    for (option, value) in [(118, vec![10, 7, 0, 0]), (code::RELAY_AGENT, vec![5, 4, 10, 7, 0, 0])]
    {
        let (options, bytes) =
            s.seen(2, Port::Server, &Datagram::new(DISCOVER).mac(7).with(option, value));
        assert_eq!(yiaddr(&bytes).octets()[..3], [10, 0, 0]);
        assert!(!options.contains_key(&code::RELAY_AGENT));
    }
}

#[test]
fn a_reply_that_was_lost_is_given_again() {
    // A ROM that speaks HTTPS does not know our root, however often it asks.
    let mut s = Server::new(Mode::Proxy).tls();
    for at in 0..2 {
        s.handed = s.handed.take().map(|h| Handed { at: Timestamp::from_second(at).unwrap(), ..h });
        let (_, bytes) = s.seen(at, Port::Server, &ipxe(DISCOVER, 0, OURS));
        assert_eq!(file(&bytes), "http://10.0.0.1/loader/undionly.kpxe", "{at}");
    }
}

#[test]
fn relays_choose_the_subnet_and_get_their_option_82_back() {
    let mut s = Server::new(Mode::Full);
    let mut far = subnet();
    far.network = "10.7.0.0/24".parse().unwrap();
    far.ranges = vec![[10, 7, 0, 10].into()..=[10, 7, 0, 20].into()];
    s.config.dhcp.subnets.push(far);
    s.leases.configure(&s.config);
    s.to = Some(SERVER);
    let agent = vec![1, 3, b'p', b'1', b'7', 2, 1, 9];
    let giaddr = Ipv4Addr::new(10, 7, 0, 1);
    let discover = Datagram::new(DISCOVER).giaddr(giaddr).with(code::RELAY_AGENT, agent.clone());
    let outcome = s.ask(0, Port::Server, &discover);
    let answer = outcome.result.unwrap();
    assert!(matches!(answer.to, To::Address(a) if *a.ip() == giaddr && a.port() == 67));
    let bytes = wire::write(&answer.reply);
    let (options, _) = wire::read_reply(&bytes).unwrap();
    assert_eq!(options[&code::RELAY_AGENT], agent, "byte for byte");
    assert_eq!(yiaddr(&bytes).octets()[..3], [10, 7, 0]);
    assert_eq!(bytes[24..28], giaddr.octets());

    // Sub-option 5: the relay's own address is elsewhere; 11: it speaks for us.
    let agent = vec![5, 4, 10, 7, 0, 0, 11, 4, 10, 7, 0, 1];
    let discover =
        Datagram::new(DISCOVER).mac(2).giaddr([192, 0, 2, 1].into()).with(code::RELAY_AGENT, agent);
    let (options, bytes) = s.seen(0, Port::Server, &discover);
    assert_eq!(yiaddr(&bytes).octets()[..3], [10, 7, 0]);
    assert_eq!(options[&code::SERVER_ID], [10, 7, 0, 1]);

    // A NAK through a relay has the broadcast bit (RFC 2131 section 4.3.2).
    let wrong = Datagram::new(REQUEST).giaddr(giaddr).with(code::REQUESTED_ADDRESS, [10, 9, 9, 9]);
    let answer = s.ask(1, Port::Server, &wrong).result.unwrap();
    assert_eq!(answer.reply.kind, ReplyKind::Nak);
    assert_eq!(answer.reply.flags & 0x8000, 0x8000);

    let nowhere = Datagram::new(DISCOVER).giaddr([172, 16, 0, 1].into());
    assert_eq!(s.silent(2, Port::Server, &nowhere).name(), "no-subnet");
}

#[test]
fn long_split_and_overloaded_options_are_read() {
    // RFC 3396: the parts of option 82, apart from one another.
    let mut d =
        Datagram::new(DISCOVER).giaddr([10, 0, 0, 9].into()).with(code::RELAY_AGENT, [5, 4, 10, 7]);
    d = d.with(code::ARCH, [0, 7]).with(code::RELAY_AGENT, [0, 9]);
    assert_eq!(wire::read(&d.bytes()).unwrap().link, Some([10, 7, 0, 9].into()));
    // RFC 2132 section 9.3: `file` holds options, too.
    let mut d = Datagram::new(DISCOVER).with(code::OVERLOAD, [1]);
    d.head[108..113].copy_from_slice(&[93, 2, 0, 11, 255]);
    assert_eq!(wire::read(&d.bytes()).unwrap().arch, Some(11));
    // A reply's long option is split, and read again whole.
    let mut s = Server::new(Mode::Full);
    s.config.dhcp.subnets[0].options = vec![(125, vec![9; 400])];
    let big = pxe(DISCOVER, 7);
    let (options, _) = s.seen(0, Port::Server, &big);
    assert_eq!(options[&125], vec![9; 400]);
}

#[test]
fn every_mutation_of_a_real_packet_is_answered_or_silent() {
    let seeds: Vec<Vec<u8>> = [
        pxe(DISCOVER, 0),
        pxe(REQUEST, 7).with(code::REQUESTED_ADDRESS, [10, 0, 0, 100]),
        ipxe(DISCOVER, 0, OURS),
        Datagram::new(4).with(code::REQUESTED_ADDRESS, [10, 0, 0, 100]),
        Datagram::new(REQUEST).giaddr([10, 0, 0, 9].into()).with(code::RELAY_AGENT, [1, 1, 1]),
    ]
    .iter()
    .map(Datagram::bytes)
    .collect();
    let mut dice = Dice::new();
    let mut servers =
        [Server::new(Mode::Full), Server::new(Mode::Proxy), Server::new(Mode::Full).tls()];
    let (mut answered, mut refused) = (0, 0);
    for round in 0..60_000 {
        let bytes = dice.mutate(&seeds, 240);
        let Ok(request) = wire::read(&bytes) else {
            refused += 1;
            continue;
        };
        let s = &mut servers[round % 3];
        let here = Here {
            interface: "eth1",
            addresses: &["10.0.0.1/24".parse().unwrap()],
            to: None,
            port: if dice.roll(4) == 0 { Port::Pxe } else { Port::Server },
            trust: &s.trust,
            has_loader: &|_| true,
            handed: s.handed.as_ref(),
            known: None,
            assigned: false,
            now: Timestamp::from_second(round as i64).unwrap(),
            lease_now: Timestamp::from_second(round as i64).unwrap(),
        };
        let outcome = decide::decide(&s.config, &mut s.leases, &request, &here);
        s.leases.take_changes();
        match outcome.result {
            Ok(answer) => {
                answered += 1;
                let bytes = wire::write(&answer.reply);
                assert!((300..=1472).contains(&bytes.len()));
                assert!(wire::read_reply(&bytes).is_some());
            }
            Err(why) => {
                refused += 1;
                assert!(!why.to_string().is_empty());
            }
        }
        assert!(s.leases.list().len() <= 10, "a pool of ten");
    }
    assert!(answered > 5_000 && refused > 5_000, "{answered} answered, {refused} refused");
}

/// A datagram that real firmware sent, from `tests/golden/dhcp/`.
fn captured(name: &str) -> wire::Request {
    let path = format!("{}/tests/golden/dhcp/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let hex: String = text.lines().filter(|l| !l.starts_with('#')).collect();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect();
    wire::read(&bytes).unwrap()
}

#[test]
fn what_real_firmware_sent_is_read_as_what_it_is() {
    use wire::Class::{Http, Pxe};
    use wire::Kind::{Discover, Request};
    // Name; type; class; architecture; an iPXE, and one that speaks HTTPS; maximum message size.
    let table = [
        ("seabios-qemu-rom-discover", Discover, Pxe, 0, Some(false), Some(1472)),
        ("seabios-qemu-rom-request", Request, Pxe, 0, Some(false), Some(1472)),
        ("undionly-discover", Discover, Pxe, 0, Some(true), Some(1472)),
        ("ovmf-pxe-discover", Discover, Pxe, 7, None, Some(1472)),
        ("ovmf-pxe-request", Request, Pxe, 7, None, Some(65280)),
        ("ovmf-pxe-4011-request", Request, Pxe, 7, None, Some(1472)),
        ("ovmf-http-discover", Discover, Http, 16, None, Some(1472)),
        ("qemu-efi-aarch64-discover", Discover, Pxe, 11, None, Some(1472)),
    ];
    for (name, kind, class, arch, https, size) in table {
        let r = captured(name);
        assert_eq!((r.kind, r.class, r.arch), (kind, class, Some(arch)), "{name}");
        let speaks = r.ipxe.as_ref().map(|f| {
            assert!(f.contains(&wire::ipxe::HTTP), "{name}");
            f.contains(&wire::ipxe::HTTPS)
        });
        assert_eq!(speaks, https, "{name}");
        assert_eq!(r.max_size, size, "{name}");
        assert_eq!(r.uuid.as_ref().map(Vec::len), Some(17), "{name}");
        assert_eq!(r.mac.to_string(), "52:54:00:77:00:01");
    }
    assert!(!captured("ovmf-pxe-4011-request").ciaddr.is_unspecified());
}
