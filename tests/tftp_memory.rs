//! What 2,000 transfers under way cost in memory, counted at the allocator: alone in its process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use pilotlight::tftp::desk::Limits;
use pilotlight::tftp::serve::{Listen, bind, start};
use pilotlight::tftp::{Ask, Content, Door, Refusal, Seen, Why};

static HELD: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: it is the system's allocator with a count beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The loader of a megabyte, from memory.
struct House(Arc<[u8]>);

impl Door for House {
    fn open(&self, _: &Ask) -> Result<Content, Refusal> {
        Ok(Content::Shared(self.0.clone()))
    }

    fn saw(&self, _: &Ask, seen: &Seen<'_>) {
        assert!(matches!(seen, Seen::Started { bytes: 1_000_000, .. }), "{seen}");
    }

    fn dropped(&self, _: SocketAddrV4, _: Ipv4Addr, why: &Why) {
        panic!("{why}");
    }

    fn trouble(&self, _: Ipv4Addr, error: &io::Error) {
        panic!("{error}");
    }
}

#[test]
fn two_thousand_transfers_are_small() {
    let listen = Listen {
        interface: Some("lo".into()),
        address: Ipv4Addr::LOCALHOST,
        port: 0,
        blksize: None,
    };
    let bound = bind(&listen).unwrap();
    let address = bound.address().unwrap();
    let _running =
        start(vec![bound], Arc::new(House(vec![7; 1_000_000].into())), Limits::default()).unwrap();
    let clients: Vec<UdpSocket> =
        (0..2000).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let (mut buffer, mut before) = ([0; 2000], 0);
    for (nth, client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.send_to(b"\0\x01snponly.efi\0octet\0blksize\x001428\0", address).unwrap();
        let (_, from) = client.recv_from(&mut buffer).unwrap();
        client.send_to(b"\0\x04\0\0", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 1432);
        if nth == 0 {
            // What the server's thread has for all of them is there now.
            before = HELD.load(Ordering::Relaxed);
        }
    }
    let each = (HELD.load(Ordering::Relaxed) - before) / 1999;
    assert!((1..1024).contains(&each), "{each} bytes for each transfer");
}
