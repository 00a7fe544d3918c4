//! The DHCP decisions under any datagram: no panic, a reply that fits a frame and can be read
//! again, no more leases than the pool has addresses, and no one address held by two.
//!
//! The input is a sequence of events: who serves and at which port, seconds, length, datagram. The
//! leases go on from one to the next.

#![no_main]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use pilotlight::config::{Config, Mode, Subnet};
use pilotlight::dhcp::decide::{self, Here, Port};
use pilotlight::dhcp::lease::{Leases, State};
use pilotlight::dhcp::wire::{self, ReplyKind};
use pilotlight::ledger::Handed;
use pilotlight::model::{Facts, Mac};

/// Addresses of the pool.
const POOL: u8 = 8;

struct Server {
    config: Config,
    trust: Vec<u8>,
    leases: Leases,
    handed: HashMap<Mac, Handed>,
    known: HashMap<Mac, Facts>,
}

impl Server {
    fn new(mode: Mode, tls: bool) -> Server {
        let mut config = Config::default();
        config.dhcp.mode = mode;
        config.tls.enabled = tls;
        if mode == Mode::Full {
            config.dhcp.subnets = vec![Subnet {
                network: "10.0.0.0/24".parse().unwrap(),
                ranges: vec![[10, 0, 0, 100].into()..=[10, 0, 0, 99 + POOL].into()],
                router: vec![[10, 0, 0, 1].into()],
                dns: vec![[10, 0, 0, 1].into(); 3],
                domain: Some("lab.example".into()),
                broadcast: [10, 0, 0, 255].into(),
                ntp: vec![[10, 0, 0, 1].into()],
                mtu: Some(1500),
                lease_time: Duration::from_secs(3600),
                max_lease_time: Duration::from_secs(7200),
                options: vec![(150, vec![10, 0, 0, 1]), (224, vec![1; 300])],
            }];
        }
        let mut leases = Leases::default();
        leases.configure(&config);
        let trust = vec![7; if tls { 64 } else { 0 }];
        Server { config, trust, leases, handed: HashMap::new(), known: HashMap::new() }
    }

    fn hears(&mut self, datagram: &[u8], port: Port, to: Option<Ipv4Addr>, now: Timestamp) {
        let request = match wire::read(datagram) {
            Ok(request) => request,
            Err(why) => return assert!(!why.to_string().is_empty()),
        };
        let mac = request.mac;
        let here = Here {
            interface: "eth1",
            addresses: &["10.0.0.1/24".parse().unwrap()],
            to,
            port,
            trust: &self.trust,
            has_loader: &|name| !name.contains("ia32"),
            handed: self.handed.get(&mac),
            known: self.known.get(&mac),
            assigned: false,
            now,
            lease_now: now,
        };
        let outcome = decide::decide(&self.config, &mut self.leases, &request, &here);
        match outcome.result {
            Err(why) => assert!(!why.to_string().is_empty()),
            Ok(answer) => {
                let bytes = wire::write(&answer.reply);
                assert!((300..=wire::MOST).contains(&bytes.len()));
                let (options, message) = wire::read_reply(&bytes).unwrap();
                assert_eq!((message.xid(), &message.chaddr()[..6]), (request.xid, &mac.0[..]));
                assert_eq!(options.get(&wire::code::RELAY_AGENT), request.relay.as_ref());
                if answer.reply.kind == ReplyKind::Ack && !answer.reply.yiaddr.is_unspecified() {
                    let lease = self.leases.get(answer.reply.yiaddr).unwrap();
                    assert!(lease.mac == mac && lease.state == State::Bound && lease.ends > now);
                }
                match answer.handed {
                    Some(Some(handed)) => drop(self.handed.insert(mac, handed)),
                    Some(None) => drop(self.handed.remove(&mac)),
                    None => {}
                }
                self.known.insert(mac, outcome.facts);
            }
        }
        assert!(self.leases.list().len() <= usize::from(POOL));
        // What is written is what is read again after a restart.
        for write in self.leases.take_changes() {
            let (again, unread) = Leases::load(&[(write.key, write.value.unwrap())]);
            assert!(unread.is_empty() && again.list().len() == 1);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut servers = [
        Server::new(Mode::Proxy, false),
        Server::new(Mode::Full, false),
        Server::new(Mode::Full, true),
    ];
    let mut now = 1_700_000_000;
    let mut rest = input;
    while let Some((&[which, seconds, high, low], after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([high, low]) % 2048);
        let (datagram, after) = after.split_at(len.min(after.len()));
        rest = after;
        // Up to 18 hours: leases end in between.
        now += i64::from(seconds) * i64::from(seconds);
        let port = if which & 0x80 == 0 { Port::Server } else { Port::Pxe };
        let to = (which & 0x40 != 0).then_some(Ipv4Addr::new(10, 0, 0, 1));
        let server = &mut servers[usize::from(which & 0x3f) % 3];
        server.hears(datagram, port, to, Timestamp::from_second(now).unwrap());
    }
});
