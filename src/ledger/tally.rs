//! What has happened since the server started, counted: for metrics, and never behind as a listener
//! may be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::News;
use crate::model::lifecycle::Failure;
use crate::model::{Stage, State, Transfer};

/// What files came to, of one stage.
#[derive(Debug, Default)]
struct Files {
    bytes: AtomicU64,
    sent: AtomicU64,
    cut: AtomicU64,
}

#[derive(Debug, Default)]
pub struct Tally {
    boots: AtomicU64,
    installs: AtomicU64,
    failures: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    files: [Files; STAGES.len()],
}

const STAGES: [Stage; 8] = [
    Stage::Firmware,
    Stage::Loader,
    Stage::Ipxe,
    Stage::Script,
    Stage::Kernel,
    Stage::Initrd,
    Stage::Answer,
    Stage::System,
];

/// The same at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Scripts that boot a profile.
    pub boots: u64,
    pub installs: u64,
    /// By reason and by the stage that was last seen.
    pub failures: Vec<((&'static str, &'static str), u64)>,
    /// Stage, bytes, files that were sent whole, files that were cut.
    pub files: Vec<(&'static str, u64, u64, u64)>,
}

impl Tally {
    pub fn boot(&self) {
        self.boots.fetch_add(1, Ordering::Relaxed);
    }

    /// A file has left, or was cut.
    pub fn file(&self, stage: Stage, transfer: &Transfer) {
        let files = &self.files[stage as usize];
        files.bytes.fetch_add(transfer.sent, Ordering::Relaxed);
        let end = if transfer.sent < transfer.total { &files.cut } else { &files.sent };
        end.fetch_add(1, Ordering::Relaxed);
    }

    pub fn told(&self, news: &News) {
        let News::Life { before, after: Some(after), .. } = news else { return };
        let was = before.as_deref();
        if after.state == State::Installed && was.map(|l| l.state) != Some(State::Installed) {
            self.installs.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(failure) = &after.failure
            && was.and_then(|l| l.failure.as_ref()) != Some(failure)
        {
            let key = (reason(failure), failure.step.word());
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            *failures.entry(key).or_default() += 1;
        }
    }

    pub fn now(&self) -> Counted {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        Counted {
            boots: of(&self.boots),
            installs: of(&self.installs),
            failures: failures.iter().map(|(key, n)| (*key, *n)).collect(),
            files: STAGES
                .iter()
                .map(|stage| (stage.word(), &self.files[*stage as usize]))
                .map(|(word, f)| (word, of(&f.bytes), of(&f.sent), of(&f.cut)))
                .collect(),
        }
    }
}

/// Three, whatever a report says: a label has few values.
fn reason(failure: &Failure) -> &'static str {
    match failure.why.as_str() {
        "no report came in time" => "timeout",
        "it started again before it reported" => "restarted",
        _ => "reported",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::model::lifecycle::{Begin, Change, Word, step};
    use crate::model::{Facts, Life, LifeEvent, Mac};

    #[test]
    fn stages_stand_at_their_places() {
        let tally = Tally::default();
        for (n, stage) in STAGES.into_iter().enumerate() {
            assert_eq!(stage as usize, n);
            let sent = Transfer { name: "x".into(), sent: n as u64, total: n as u64, millis: 1 };
            tally.file(stage, &sent);
            tally.file(stage, &Transfer { total: 9, ..sent });
        }
        let files = tally.now().files;
        assert_eq!((files[4], files[7]), (("kernel", 8, 1, 1), ("system", 14, 1, 1)));
    }

    #[test]
    fn failures_by_what_they_came_of() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let at = |s| Timestamp::from_second(s).unwrap();
        let begin = |report: &str| {
            LifeEvent::Begin(Box::new(Begin {
                profile: "debian".into(),
                boot: report.into(),
                report: report.into(),
                address: None,
                facts: Facts::of(mac),
                timeout: Duration::from_secs(60),
                attempts: 9,
                restarted: true,
                chosen: false,
            }))
        };
        let report = |word| LifeEvent::Report { report: "3".into(), word };
        let tally = Tally::default();
        let mut life: Option<Arc<Life>> = None;
        for (seconds, event) in [
            (0, begin("1")),
            (61, LifeEvent::Tick),
            (62, begin("2")),
            (63, LifeEvent::Step(Stage::Kernel)),
            (64, begin("3")),
            (65, report(Word::Failed("<script>".into()))),
            (66, report(Word::Done)),
        ] {
            if let Change::To(after) = step(mac, life.as_deref(), event, 9, at(seconds)).unwrap() {
                let after = after.map(|l| Arc::new(*l));
                tally.told(&News::Life { mac, before: life, after: after.clone() });
                life = after;
            }
        }
        let counted = tally.now();
        assert_eq!(counted.installs, 1);
        let failures =
            [(("reported", "script"), 1), (("restarted", "kernel"), 1), (("timeout", "script"), 1)];
        assert_eq!(counted.failures, failures);
    }
}
