//! What the router advertisements tell the ledger.

use std::sync::Arc;

use jiff::Timestamp;

use crate::ledger::Ledger;
use crate::model::{Event, Stage};
use crate::radv::{self, Seen};

pub struct Watch {
    pub ledger: Arc<Ledger>,
}

impl radv::Watch for Watch {
    fn saw(&self, interface: &str, seen: &Seen) {
        let now = Timestamp::now();
        match seen {
            Seen::Answered { mac, .. } => {
                let event = Event::new(Stage::Ipxe, "RA", format!("{seen} via {interface}"));
                self.ledger.record(*mac, event, now);
            }
            // Machines that do not boot by us solicit, too; that is nobody's timeline.
            Seen::Silent { why, .. } => self.ledger.refused("radv", None, why, now),
            Seen::Router { .. } | Seen::Trouble(_) => {
                tracing::warn!(target: "pilotlight", "router advertisements on {interface}: {seen}");
            }
        }
    }
}
