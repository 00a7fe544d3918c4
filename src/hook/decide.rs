//! What is told, to whom, and when once more: pure.

use std::time::Duration;

use super::wire::{About, Body};
use crate::ledger::News;
use crate::model::{Life, Mac, State};

/// What a try has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It has arrived.
    Done,
    /// It was not taken, and would not be if it came again.
    GiveUp,
    Again(Duration),
}

/// How long after each try that came to nothing there is another.
pub const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
];
/// Alarms about webhooks begin with this, and are told by none: they would never end.
pub const OWN: &str = "webhook-";

/// What news are to a webhook: the kind, whose order they keep, and the body. `name` knows the
/// names of machines.
pub fn told(
    news: &News,
    name: impl Fn(Mac) -> Option<String>,
) -> Option<(&'static str, Option<Mac>, Body)> {
    match news {
        News::Entry { .. } => None,
        News::Life { mac, before, after } => {
            let life = after.as_deref()?;
            let (kind, body) = of_life(before.as_deref(), life, name(*mac))?;
            Some((kind, Some(*mac), body))
        }
        News::Alarm(alarm) if alarm.name.starts_with(OWN) => None,
        News::Alarm(alarm) => {
            Some(("alarm", None, Body::Alarm { at: alarm.last, alarm: (**alarm).clone() }))
        }
    }
}

fn of_life(
    before: Option<&Life>,
    life: &Life,
    name: Option<String>,
) -> Option<(&'static str, Body)> {
    let machine = || About {
        mac: life.mac,
        name: name.clone().or_else(|| life.name.clone()),
        profile: life.profile.clone(),
        state: life.state.word(),
    };
    let was = before.map(|l| l.state);
    if life.state == State::Installed && was != Some(State::Installed) {
        return Some(("installed", Body::Installed { at: life.since, machine: machine() }));
    }
    let failure = life.failure.as_ref()?;
    if before.and_then(|l| l.failure.as_ref()) == Some(failure) {
        return None;
    }
    let failure = failure.clone();
    Some(("failed", Body::Failed { at: failure.at, machine: machine(), failure }))
}

/// After try `number` (from 0 on), which was answered by `status`, or by nothing.
pub fn next(number: usize, status: Option<u16>, pauses: &[Duration]) -> Next {
    match status {
        Some(200..=299) => Next::Done,
        // RFC 9110 section 15.5.9, RFC 8470, RFC 6585: later it may be taken.
        Some(408 | 425 | 429 | 500..=599) | None => {
            pauses.get(number).map_or(Next::GiveUp, |pause| Next::Again(*pause))
        }
        Some(_) => Next::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lifecycle::{Begin, Change, Word, step};
    use crate::model::{Facts, LifeEvent};
    use jiff::Timestamp;
    use std::sync::Arc;

    #[test]
    fn what_is_tried_again() {
        let all = |status| -> Vec<Next> { (0..6).map(|n| next(n, status, &PAUSES)).collect() };
        let again: Vec<Next> =
            PAUSES.into_iter().map(Next::Again).chain([Next::GiveUp, Next::GiveUp]).collect();
        for status in [None, Some(500), Some(503), Some(429), Some(408)] {
            assert_eq!(all(status), again, "{status:?}");
        }
        for status in [200, 202, 204] {
            assert_eq!(all(Some(status)), [Next::Done; 6]);
        }
        for status in [100, 301, 307, 400, 401, 404, 410, 600] {
            assert_eq!(all(Some(status)), [Next::GiveUp; 6], "{status}");
        }
    }

    #[test]
    fn each_installation_and_each_failure_once() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let now = Timestamp::UNIX_EPOCH;
        let begin = |report: &str| {
            LifeEvent::Begin(Box::new(Begin {
                profile: "debian".into(),
                boot: "b".into(),
                report: report.into(),
                address: None,
                facts: Facts::of(mac),
                timeout: Duration::from_secs(60),
                attempts: 2,
                restarted: true,
                chosen: false,
            }))
        };
        let report = |report: &str, word| LifeEvent::Report { report: report.into(), word };
        let failed = || Word::Failed("no disk".into());
        let mut life: Option<Arc<Life>> = None;
        let mut said = Vec::new();
        for event in [
            begin("1"),
            report("1", failed()),
            LifeEvent::Local,
            LifeEvent::Reinstall { profile: None },
            begin("2"),
            report("2", Word::Done),
            LifeEvent::Forget,
        ] {
            let after = match step(mac, life.as_deref(), event, 2, now).unwrap() {
                Change::Same => continue,
                Change::To(after) => after.map(|l| Arc::new(*l)),
            };
            let news = News::Life { mac, before: life, after: after.clone() };
            if let Some((kind, of, body)) = told(&news, |_| Some("web1".into())) {
                assert_eq!(of, Some(mac));
                let json = serde_json::json!(body);
                assert_eq!(
                    (json["event"].as_str(), json["machine"]["name"].as_str()),
                    (Some(kind), Some("web1"))
                );
                said.push(kind);
            }
            life = after;
        }
        assert_eq!(said, ["failed", "installed"]);
    }
}
