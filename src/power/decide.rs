//! Which of the orders that a BMC takes does what is wanted.

use super::wire::System;
use super::{Action, Said, Trouble};

/// What is to be ordered of a BMC.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is so already.
    Done(Said),
    /// `ComputerSystem.Reset` with this type.
    Reset(&'static str),
    /// The next start, once, from this source.
    Boot(&'static str),
}

/// In this order; `ForceRestart` keeps the power on, which is the kinder one to disks.
const CYCLE: &[&str] = &["ForceRestart", "PowerCycle", "FullPowerCycle", "GracefulRestart"];
const ON: &[&str] = &["On", "ForceOn"];
/// A system that is to be switched off from afar often no longer listens to a button.
const OFF: &[&str] = &["ForceOff", "GracefulShutdown", "PushPowerButton"];
const SOURCES: &[&str] = &["Pxe", "UefiHttp"];

/// What does `action`.
///
/// # Errors
/// [`Trouble::NotOffered`] where the BMC says what it takes and none of it does.
pub fn step(action: Action, system: &System) -> Result<Step, Trouble> {
    let among = |wanted: &'static [&'static str], offers: &Option<Vec<String>>| match offers {
        // It does not say: DSP0268 has every service know the first of each.
        None => Ok(wanted[0]),
        Some(offers) => {
            let found = wanted.iter().find(|w| offers.iter().any(|o| o == *w));
            found.copied().ok_or_else(|| Trouble::NotOffered {
                action,
                offers: crate::model::event::plain(&offers.join(", "), 200),
            })
        }
    };
    let reset = |wanted| among(wanted, &system.resets).map(Step::Reset);
    match (action, system.on) {
        (Action::On, Some(true)) => Ok(Step::Done(Said::On)),
        (Action::Off, Some(false)) => Ok(Step::Done(Said::Off)),
        // A restart of what is off is refused by some BMCs, and forgotten by others.
        (Action::On, _) | (Action::Cycle, Some(false)) => reset(ON),
        (Action::Off, _) => reset(OFF),
        (Action::Cycle, _) => reset(CYCLE),
        (Action::Pxe, _) => among(SOURCES, &system.sources).map(Step::Boot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(on: Option<bool>, resets: &[&str], sources: &[&str]) -> System {
        let list = |all: &[&str]| Some(all.iter().map(|w| w.to_string()).collect());
        System { on, resets: list(resets), sources: list(sources), ..System::default() }
    }

    #[test]
    fn the_first_order_that_is_taken() {
        let all = ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"];
        let table = [
            (Action::On, Some(false), &all[..], Step::Reset("On")),
            (Action::On, Some(true), &all, Step::Done(Said::On)),
            (Action::On, None, &["ForceOn"], Step::Reset("ForceOn")),
            (Action::Off, Some(true), &all, Step::Reset("ForceOff")),
            (Action::Off, Some(true), &["GracefulShutdown"], Step::Reset("GracefulShutdown")),
            (Action::Off, Some(false), &[], Step::Done(Said::Off)),
            (Action::Cycle, Some(true), &all, Step::Reset("ForceRestart")),
            (Action::Cycle, Some(true), &["On", "PowerCycle"], Step::Reset("PowerCycle")),
            (Action::Cycle, Some(false), &all, Step::Reset("On")),
            (Action::Pxe, None, &[], Step::Boot("Pxe")),
        ];
        for (action, on, resets, want) in table {
            let step = step(action, &system(on, resets, &["Hdd", "UefiHttp", "Pxe"]));
            assert_eq!(step.unwrap(), want, "{action} {on:?} {resets:?}");
        }
        let http = system(None, &[], &["UefiHttp"]);
        assert_eq!(step(Action::Pxe, &http).unwrap(), Step::Boot("UefiHttp"));
        assert_eq!(step(Action::Off, &System::default()).unwrap(), Step::Reset("ForceOff"));
    }

    #[test]
    fn what_is_not_offered_is_told_with_what_is() {
        let said = step(Action::Cycle, &system(Some(true), &["On", "Nmi"], &[])).unwrap_err();
        assert_eq!(said.to_string(), "the BMC offers no way to cycle: it takes On, Nmi");
        assert!(step(Action::Pxe, &system(Some(true), &["On"], &["Hdd"])).is_err());
    }
}
