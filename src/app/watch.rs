//! The empty router advertisements, kept open as interfaces come up, and what the ledger hears of
//! them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use crate::ledger::Ledger;
use crate::model::{Event, Interface, Mac, Stage};
use crate::radv::serve::{Handle, Running, open, start};
use crate::radv::{self, Seen};

/// Ends iPXE's wait for an IPv6 router on each interface where that can be done; where it cannot,
/// everything else works all the same.
pub struct Advertising {
    interfaces: Vec<Interface>,
    ledger: Arc<Ledger>,
    handle: ArcSwapOption<Handle>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    open: BTreeSet<String>,
    /// Said once of each interface.
    told: BTreeSet<String>,
}

impl Advertising {
    pub fn new(interfaces: &[Interface], ledger: Arc<Ledger>) -> Advertising {
        Advertising {
            interfaces: interfaces.to_vec(),
            ledger,
            handle: ArcSwapOption::empty(),
            state: Mutex::default(),
        }
    }

    /// Opens what can be opened by now: an interface has no link-local address before its cable is
    /// in, and a server that starts with the machine room starts before the switches.
    pub fn look(&self) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.open.len() == self.interfaces.len() {
            return Ok(());
        }
        let mut opened = Vec::new();
        let mut names = BTreeSet::new();
        for interface in &self.interfaces {
            match open(&interface.name) {
                Ok(one) => {
                    names.insert(interface.name.clone());
                    opened.push(one);
                }
                Err(why) => {
                    if state.told.insert(interface.name.clone()) {
                        tracing::warn!(target: "pilotlight", "no empty router advertisements, iPXE on BIOS waits for some seconds: {why}");
                    }
                }
            }
        }
        if names.len() > state.open.len() {
            // The thread before this one ends when it is dropped.
            let running = start(opened, Arc::new(Watch(self.ledger.clone())))?;
            self.handle.store(Some(Arc::new(running.handle())));
            state.running = Some(running);
            state.open = names;
        }
        Ok(())
    }

    /// An iPXE on this interface is about to boot.
    pub fn booting(&self, interface: &str, mac: Mac) {
        if let Some(handle) = &*self.handle.load() {
            handle.booting(interface, mac);
        }
    }

    pub fn stop(&self) {
        self.handle.store(None);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).running = None;
    }
}

struct Watch(Arc<Ledger>);

impl radv::Watch for Watch {
    fn saw(&self, interface: &str, seen: &Seen) {
        let now = Timestamp::now();
        match seen {
            Seen::Answered { mac, .. } => {
                let event = Event::new(Stage::Ipxe, "RA", format!("{seen} via {interface}"));
                self.0.record(*mac, event, now);
            }
            Seen::Silent { mac, why, .. } => self.0.refused("radv", *mac, why, now),
            Seen::Router { .. } | Seen::Trouble(_) => {
                tracing::warn!(target: "pilotlight", "router advertisements on {interface}: {seen}");
            }
        }
    }
}
