//! The TFTP decisions under any sequence of datagrams and time: no panic, the books agree, and no
//! forged request gets more than four datagrams.
//!
//! The input is a sequence of events: host, port, line, milliseconds, length, datagram.

#![no_main]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use pilotlight::model::Why as _;
use pilotlight::tftp::Ask;
use pilotlight::tftp::decide::{Caps, Flight, Step, Transfer, WINDOW_LIMIT};
use pilotlight::tftp::desk::{Admit, Desk, Key, Limits};
use pilotlight::tftp::wire::{self, Packet, Request};

const CAPS: Caps = Caps { blksize: 1468, windowsize: WINDOW_LIMIT };
const LIMITS: Limits = Limits { transfers: 12, per_address: 4, unanswered: 2000 };

fuzz_target!(|input: &[u8]| {
    let mut desk = Desk::<()>::new(LIMITS);
    let mut now = Instant::now();
    // Datagrams to each transfer since it began or was last heard of.
    let mut unheard: HashMap<Key, u32> = HashMap::new();
    let mut rest = input;
    while let Some((&[host, port, line, ms, len], after)) = rest.split_first_chunk() {
        let (datagram, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        let peer = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host % 5), u16::from(port % 4));
        let key = Key { line: 1 + u16::from(line % 8), peer };
        let mut step = None;
        match wire::read(datagram) {
            Ok(Packet::Rrq(Request { name, mode, options })) => {
                let ask = Ask { peer, local: Ipv4Addr::LOCALHOST, name, mode, options };
                if let Admit::New(key, ended) = desk.admit(1..9, &ask, now) {
                    assert!(ended.len() <= 9);
                    let len = u64::from(ms) << (line % 40);
                    let (transfer, first) = Transfer::begin(len, &ask.options, CAPS, now);
                    desk.begin(key, ask, transfer, (), now);
                    unheard.insert(key, 0);
                    step = Some((key, Step::Send(first)));
                }
            }
            Ok(Packet::Ack(number)) => {
                unheard.remove(&key);
                step = desk.ack(key, number, now).ok().map(|step| (key, step));
            }
            Ok(Packet::Error { .. }) => drop(desk.end(key)),
            Err(why) => drop((why.to_string(), why.name(), why.code())),
        }
        now += Duration::from_millis(u64::from(ms) * 20);
        while let Some((key, what)) = step.take().or_else(|| desk.tick(now)) {
            match what {
                Step::Wait => {}
                Step::End(_) => drop(desk.end(key)),
                Step::Send(flight) => {
                    if let Some(count) = unheard.get_mut(&key) {
                        *count += 1;
                        assert!(*count <= 4);
                    }
                    if let Flight::Blocks { first, last } = flight {
                        assert!(first <= last && last - first < u64::from(WINDOW_LIMIT));
                        if ms % 7 == 0 && !unheard.contains_key(&key) {
                            desk.unsent(key, flight, now);
                        }
                    }
                }
            }
        }
        assert!(desk.sound());
    }
});
