//! Runs what the users' templates and folders make of a request off the workers: a few at a time,
//! each with a deadline.
//!
//! Nothing can stop a template that does not end (tera has no limit on time), so its thread is
//! left to itself, its place is given to the next, and its profile is not tried again until the
//! configuration changes: it costs the machines of other profiles nothing but a processor's time.
//!
//! A hall of machines that is switched on asks for the same profile thousands of times in a second.
//! Where its templates cannot take long, what was read from disks for one of them does for those of
//! the next [`FRESH`], and their scripts are made on the worker. That a machine's answers can be made
//! is proved with its first script, and again when it tells something else of itself, or a template
//! or the configuration changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::error::No;
use crate::boot::Urls;
use crate::config::Config;
use crate::model::{Facts, Profile};

/// At once.
const PLACES: usize = 4;
/// To wait for a place, and then for the job itself: two times, so that a queue of requests never
/// looks like a template that does not end.
const DEADLINE: Duration = Duration::from_secs(2);

/// What was read from disks is as it was for this long.
const FRESH: Duration = Duration::from_millis(100);
/// The most that is filled on a worker for one script, in bytes of templates.
const QUICK: usize = 64 << 10;

/// Proofs that are kept of one profile.
const PROOFS: usize = 20_000;

/// What a profile needs from disks.
#[derive(Debug)]
pub struct Ready {
    /// The texts of its answers' templates.
    pub templates: Vec<String>,
    /// Whether filling all of them, and its arguments, cannot take long.
    quick: bool,
    proofs: Proofs,
}

/// For whom its answers were filled without a fault. A fault is made of what the machine tells and
/// the addresses it is told, for all else is the configuration's; the token is a random number.
#[derive(Debug, Default)]
struct Proofs {
    hash: RandomState,
    of: Mutex<HashSet<u64>>,
}

impl Ready {
    pub fn of(profile: &Profile, templates: Vec<String>) -> Ready {
        let args = || profile.boots().map(|b| &b.args);
        let all = || templates.iter().chain(args());
        let len: usize = all().map(String::len).sum();
        // Ours go through lists of the configuration, and those are bounded.
        let own =
            profile.answers.iter().zip(&templates).filter(|(of, _)| !of.template.is_builtin());
        let quick = len <= QUICK && own.map(|(_, t)| t).chain(args()).all(|t| is_quick(t));
        Ready { templates, quick, proofs: Proofs::default() }
    }

    /// Those of its answers' templates of which it is not known that this machine's can be made:
    /// all, or none.
    pub fn unproved(&self, facts: &Facts, urls: &Urls) -> &[String] {
        match lock(&self.proofs.of).contains(&self.proof(facts, urls)) {
            true => &[],
            false => &self.templates,
        }
    }

    /// They can.
    pub fn prove(&self, facts: &Facts, urls: &Urls) {
        let mut proofs = lock(&self.proofs.of);
        if proofs.len() >= PROOFS {
            proofs.clear();
        }
        proofs.insert(self.proof(facts, urls));
    }

    fn proof(&self, facts: &Facts, urls: &Urls) -> u64 {
        self.proofs.hash.hash_one((facts, &urls.base, &urls.http, &urls.address))
    }
}

/// Whether a template's work is bounded by its length: no tag but `if` and those that belong to it,
/// and nothing is called but `default`. What is not understood is not quick.
fn is_quick(template: &str) -> bool {
    let mut rest = template;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let tag = rest[at..].starts_with("{%");
        let inside = &rest[at + 2..];
        let Some(end) = inside.find(if tag { "%}" } else { "}}" }) else { return false };
        let (part, after) = inside.split_at(end);
        // An end within quotes is none.
        let quoted = |quote| part.matches(quote).count() % 2 == 1;
        let calls = part.replace("default(", "").contains('(');
        let word = part.trim_start_matches('-').split_whitespace().next().unwrap_or("");
        let known = !tag || ["if", "elif", "else", "endif"].contains(&word.trim_end_matches('-'));
        if ['"', '\'', '`'].into_iter().any(quoted) || calls || !known {
            return false;
        }
        rest = &after[2..];
    }
    true
}

type Since = HashMap<String, (Instant, Arc<Ready>)>;

pub struct Renders {
    places: Semaphore,
    /// The profiles that did not end, under the configuration that they did it with.
    endless: Mutex<(Weak<Config>, BTreeSet<String>)>,
    /// What is ready, and since when, under that configuration: no more than its profiles.
    ready: Mutex<(Weak<Config>, Since)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Renders {
    pub fn new() -> Renders {
        let places = Semaphore::new(PLACES);
        Renders { places, endless: Mutex::default(), ready: Mutex::default() }
    }

    /// Runs `job`, which renders something of `profile`.
    ///
    /// # Errors
    /// [`No::Slow`] when there is no place for it in time, [`No::Endless`] when it does not end in
    /// time, or a job of the same profile did not before.
    pub async fn run<T: Send + 'static>(
        &self,
        config: &Arc<Config>,
        profile: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, No> {
        let place = timeout(DEADLINE, self.places.acquire()).await;
        let _place = place.map_err(|_| No::Slow)?.map_err(|_| No::Slow)?;
        if self.is_endless(config, profile) {
            return Err(No::Endless(profile.into()));
        }
        let (done, result) = oneshot::channel();
        // Not a task of the runtime, which would wait for it when the server stops.
        std::thread::Builder::new()
            .name("render".into())
            .spawn(move || done.send(job()))
            .map_err(|_| No::Slow)?;
        match timeout(DEADLINE, result).await {
            Ok(result) => result.map_err(|_| No::Slow),
            Err(_) => {
                self.remember(config, profile);
                Err(No::Endless(profile.into()))
            }
        }
    }

    /// What was ready a moment ago, if with it a script is made in no time.
    pub fn kept(&self, config: &Arc<Config>, profile: &str) -> Option<Arc<Ready>> {
        let kept = lock(&self.ready);
        let (since, ready) = kept.1.get(profile).filter(|_| is(&kept.0, config))?;
        (since.elapsed() < FRESH).then(|| ready.clone())
    }

    /// Keeps what is ready now for [`Renders::kept`].
    pub fn keep(&self, config: &Arc<Config>, profile: &str, ready: Arc<Ready>) {
        if !ready.quick {
            return;
        }
        let mut kept = lock(&self.ready);
        if !is(&kept.0, config) {
            *kept = (Arc::downgrade(config), HashMap::new());
        }
        // The same as before has its proofs.
        let same =
            |old: (Instant, Arc<Ready>)| Some(old.1).filter(|o| o.templates == ready.templates);
        let ready = kept.1.remove(profile).and_then(same).unwrap_or(ready);
        kept.1.insert(profile.into(), (Instant::now(), ready));
    }

    fn is_endless(&self, config: &Arc<Config>, profile: &str) -> bool {
        let endless = lock(&self.endless);
        is(&endless.0, config) && endless.1.contains(profile)
    }

    fn remember(&self, config: &Arc<Config>, profile: &str) {
        let mut endless = lock(&self.endless);
        if !is(&endless.0, config) {
            *endless = (Arc::downgrade(config), BTreeSet::new());
        }
        endless.1.insert(profile.into());
    }
}

/// Whether it is the same configuration and not one that took its place.
fn is(kept: &Weak<Config>, config: &Arc<Config>) -> bool {
    std::ptr::eq(kept.as_ptr(), Arc::as_ptr(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick() {
        for quick in [
            "",
            "auto url={{ answers.preseed }} {{- vars['a b'] -}} {# for #}",
            "{{ machine.asset | default(value=\"none\") }}",
            "{% if vars.a %}x{%- elif vars.b -%}y{% else %}z{%endif%}",
        ] {
            assert!(is_quick(quick), "{quick}");
        }
        for slow in [
            "{% for x in range(end=9) %}{% endfor %}",
            "{{ range(end=1000000000) }}",
            "{% set a = a ~ a %}",
            "{% if f(x=1) %}{% endif %}",
            "{{ '}}' ~ range(end=1000000000) }}",
            "{% raw %}",
            "{{ open",
        ] {
            assert!(!is_quick(slow), "{slow}");
        }
    }

    #[test]
    fn what_is_ready_is_so_for_one_configuration() {
        let renders = Renders::new();
        let (one, other) = (Arc::new(Config::default()), Arc::new(Config::default()));
        let ready =
            |quick| Arc::new(Ready { templates: Vec::new(), quick, proofs: Proofs::default() });
        renders.keep(&one, "slow", ready(false));
        renders.keep(&one, "web", ready(true));
        assert!(renders.kept(&one, "slow").is_none());
        assert!(renders.kept(&other, "web").is_none());
        renders.keep(&other, "db", ready(true));
        assert!(renders.kept(&other, "web").is_none());
    }

    #[test]
    fn a_proof_is_of_one_machine_as_it_is_and_of_the_same_templates() {
        use crate::model::Mac;
        let (renders, config) = (Renders::new(), Arc::new(Config::default()));
        let keep = |text: &str| {
            let (templates, proofs) = (vec![text.to_string()], Proofs::default());
            renders.keep(&config, "web", Arc::new(Ready { templates, quick: true, proofs }));
            renders.ready.lock().unwrap().1["web"].1.clone()
        };
        let urls = |base: &str| Urls {
            base: base.into(),
            http: base.into(),
            ca: None,
            address: "192.0.2.1".into(),
            token: "1".into(),
        };
        let (one, other) = (urls("http://192.0.2.1"), urls("http://192.0.2.2"));
        let facts = Facts::of(Mac([2, 0, 0, 0, 0, 1]));
        let more = Facts { serial: Some("S".into()), ..facts.clone() };
        let ready = keep("a");
        assert_eq!(ready.unproved(&facts, &one), ["a"]);
        ready.prove(&facts, &one);
        let ready = keep("a");
        assert!(ready.unproved(&facts, &one).is_empty());
        assert!(ready.unproved(&facts, &Urls { token: "2".into(), ..one.clone() }).is_empty());
        assert_eq!(ready.unproved(&more, &one), ["a"]);
        assert_eq!(ready.unproved(&facts, &other), ["a"]);
        assert_eq!(keep("b").unproved(&facts, &one), ["b"]);
    }
}
