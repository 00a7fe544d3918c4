//! Machines are switched for whoever asks at the admin door, as the configuration says of each.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::config::{self, Config};
use crate::http::PowerHook;
use crate::ledger::Ledger;
use crate::model::{Facts, Interface, Mac, Power, machine};
use crate::power::{Action, Said, Target, Trouble, act, ways};

/// Commands and BMCs at once; the others wait for their turn.
const AT_ONCE: usize = 16;

struct Switch {
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    interfaces: Vec<Interface>,
    turns: Semaphore,
}

/// To be called on the main runtime: an order goes on there when whoever gave it has hung up.
pub fn hook(
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    interfaces: Vec<Interface>,
) -> PowerHook {
    let turns = Semaphore::new(AT_ONCE);
    let switch = Arc::new(Switch { config, ledger, interfaces, turns });
    let here = Handle::current();
    Box::new(move |mac, action| {
        let (switch, here) = (switch.clone(), here.clone());
        Box::pin(async move {
            let done = here.spawn(async move { switch.act(mac, action).await });
            done.await.unwrap_or(Err(Trouble::Stopping))
        })
    })
}

impl Switch {
    async fn act(&self, mac: Mac, action: Action) -> Result<Said, Trouble> {
        let _turn = self.turns.acquire().await.map_err(|_| Trouble::Stopping)?;
        let (name, power) = self.power(mac);
        let target = Target { mac, name: &name, power: &power };
        let ways = ways(&self.interfaces);
        let done = act(target, action, &ways, |s| config::reveal(s).map_err(|e| e.to_string()));
        let done = done.await;
        // What was not done is logged and counted by the door that was asked.
        if let Ok(said) = &done {
            tracing::info!(target: "pilotlight", mac = %mac, "power {action}: {said}");
        }
        done
    }

    /// What it is called, and how it is switched.
    fn power(&self, mac: Mac) -> (String, Power) {
        let config = self.config.load();
        let facts = self.ledger.facts(mac).unwrap_or_else(|| Facts::of(mac));
        match machine::find(&config.machines, &facts) {
            Some(declared) => (declared.name.clone(), declared.power.clone()),
            None => {
                let name = self.ledger.life(mac).and_then(|l| l.name.clone());
                (name.unwrap_or_else(|| mac.to_string()), Power::default())
            }
        }
    }
}
