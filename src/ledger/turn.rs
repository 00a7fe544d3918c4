//! What a change of a machine's life is in words: for its timeline and for the log. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::model::event::plain;
use crate::model::{Life, Mac, Stage, State};

/// A change that is on the disk.
pub struct Turn<'a> {
    pub mac: Mac,
    pub before: Option<&'a Life>,
    pub after: Option<&'a Life>,
    /// How many attempts it has.
    pub attempts: u32,
    pub now: Timestamp,
}

impl Turn<'_> {
    /// The word of the field and the rest of a sentence that begins with the machine's name; none for
    /// what the timeline has already: a step further, or a script once more.
    pub fn words(&self) -> Option<(&'static str, String)> {
        let Some(after) = self.after else {
            return Some(("forgotten", "is forgotten".into()));
        };
        let was = self.before.map(|b| b.state);
        let began = |life: &Life| life.attempt.as_ref().map(|a| (a.number, a.began));
        let failures = self.before.map_or(0, |b| b.failures);
        let lost = || after.failure.as_ref().filter(|_| after.failures > failures);
        let failed = |next: &str| {
            lost().map(|f| {
                let step = f.step.word();
                format!("failed in attempt {}, last seen at {step}: {}; {next}", f.attempt, f.why)
            })
        };
        let profile = after.profile.as_deref().unwrap_or("no profile");
        let said = match after.state {
            State::Installing if self.before.and_then(began) == began(after) => return None,
            State::Installing => {
                let number = after.attempt.as_ref().map_or(0, |a| a.number);
                let this = format!("attempt {number} of {}: profile {profile}", self.attempts);
                match failed("it is") {
                    Some(failed) => format!("{failed} installed again, {this}"),
                    None => format!("is being installed, {this}"),
                }
            }
            State::Installed => {
                let attempt = self.before.and_then(|b| b.attempt.as_ref());
                attempt.map_or_else(
                    || "is installed: the report came late".into(),
                    |a| {
                        let took = took(self.now.duration_since(a.began));
                        format!("is installed: attempt {}, {took}", a.number)
                    },
                )
            }
            State::Failed => failed("it is held").unwrap_or_else(|| "is held".into()),
            State::Assigned => failed("its next start is another attempt")
                .unwrap_or_else(|| format!("is to be installed with profile {profile}")),
            State::Discovered => failed("it gets the menu again")
                .unwrap_or_else(|| "shows itself, and waits to be assigned".into()),
            State::Local if was == Some(State::Local) => return None,
            State::Local => "boots its own disk from now on".into(),
            State::Rescue => format!("boots the rescue system from now on: profile {profile}"),
        };
        let word = match lost() {
            Some(_) => State::Failed,
            None => after.state,
        };
        Some((word.word(), said))
    }

    /// The key of the boot that an attempt begins with.
    pub fn begins(&self) -> Option<&str> {
        let boot = |life: &'_ Life| life.attempt.as_ref().map(|a| a.boot.clone());
        let before = self.before.and_then(boot);
        let after = self.after.and_then(|l| l.attempt.as_ref())?;
        (before.as_ref() != Some(&after.boot)).then_some(&after.boot)
    }

    /// Where on the timeline it belongs; `None` is wherever the machine is.
    pub fn stage(&self) -> Option<Stage> {
        match self.after?.state {
            State::Installed => Some(Stage::System),
            State::Installing => Some(Stage::Script),
            _ => None,
        }
    }

    /// What people call it; `seen` is the name that it is declared by.
    pub fn name(&self, seen: Option<String>) -> String {
        let own = || self.after.or(self.before).and_then(|l| l.name.clone());
        plain(&seen.or_else(own).unwrap_or_else(|| self.mac.to_string()), 80)
    }
}

/// What stands behind `what` on a timeline, which says it already.
pub fn short<'a>(what: &str, said: &'a str) -> &'a str {
    let twice = ["is being ", "is ", ""];
    let rest = twice.iter().find_map(|verb| said.strip_prefix(verb)?.strip_prefix(what));
    match what {
        "installing" => said.strip_prefix("is being installed, ").unwrap_or(said),
        _ => rest.map_or(said, |rest| rest.trim_start_matches([':', ' '])),
    }
}

/// `14 min 3 s`.
fn took(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}
