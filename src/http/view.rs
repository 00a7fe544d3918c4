//! Machines as the API, the dashboard and the metrics show them: what is declared, what is stored
//! and what was seen of each, in one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::Web;
use crate::config::{Config, LOCAL_DISK};
use crate::ledger::Brief;
use crate::model::lifecycle::Failure;
use crate::model::profile::Kind;
use crate::model::{Facts, Life, Mac, Machine, Stage, State, machine};

/// One machine.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    pub mac: Mac,
    /// As declared, or as assigned.
    pub name: Option<String>,
    /// Whether the configuration declares it.
    pub declared: bool,
    /// A word of [`State`]; `live` for one that runs from the network, `seen` for one that nobody
    /// has said anything of.
    pub state: &'static str,
    /// When it came into that state.
    pub since: Option<Timestamp>,
    /// What it installs, has installed or runs; else what it is declared with.
    pub profile: Option<String>,
    /// The attempt that runs, from 1 on.
    pub attempt: Option<u32>,
    /// Attempts that failed since it was last armed.
    pub failures: u32,
    pub failure: Option<Failure>,
    pub installed: Option<Timestamp>,
    pub facts: Option<Facts>,
    /// When it was last heard of.
    pub seen: Option<Timestamp>,
    /// Where its newest boot has come to.
    pub stage: Option<Stage>,
    /// The newest entry of its timeline, in words.
    pub last: Option<String>,
    pub progress: Option<Progress>,
}

pub use crate::ledger::Progress;

impl View {
    /// Whether `text` is part of its name, its MAC, its address, its profile or what it told of
    /// itself, without regard to case.
    pub fn has(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let has = |field: &Option<String>| {
            field.as_ref().is_some_and(|f| f.to_lowercase().contains(&text))
        };
        let facts = self.facts.as_ref();
        self.mac.to_string().contains(&text)
            || has(&self.name)
            || has(&self.profile)
            || facts.is_some_and(|f| {
                [&f.uuid, &f.serial, &f.asset, &f.manufacturer, &f.product].into_iter().any(has)
                    || f.ip.is_some_and(|ip| ip.to_string().contains(&text))
                    || f.arch.is_some_and(|arch| arch.contains(&text))
            })
    }
}

/// All machines, by name and then by MAC.
pub fn all(web: &Web) -> Vec<View> {
    let config = web.config.load_full();
    let mut rows: BTreeMap<Mac, (Option<Brief>, Option<Arc<Life>>)> = BTreeMap::new();
    for mac in config.machines.iter().filter_map(Machine::mac) {
        rows.insert(mac, (None, None));
    }
    for brief in web.ledger.briefs() {
        let row = rows.entry(brief.mac).or_default();
        row.0 = Some(brief);
    }
    for life in web.ledger.lives() {
        let row = rows.entry(life.mac).or_default();
        row.1 = Some(life);
    }
    let mut all: Vec<View> =
        rows.into_iter().map(|(mac, (brief, life))| view(&config, mac, brief, life)).collect();
    let now = Timestamp::now();
    all.iter_mut().for_each(|view| view.progress = progress(web, view, now));
    all.sort_by(|a, b| (a.name.is_none(), &a.name, a.mac).cmp(&(b.name.is_none(), &b.name, b.mac)));
    all
}

/// How many machines are in each state: what a look at all of them would count, without making it.
pub fn states(web: &Web) -> BTreeMap<&'static str, usize> {
    let config = web.config.load_full();
    let lives = web.ledger.lives();
    let mut states = BTreeMap::new();
    let mut count = |state| *states.entry(state).or_default() += 1;
    let mut rest: HashSet<Mac> = config.machines.iter().filter_map(Machine::mac).collect();
    let told: HashSet<Mac> = lives.iter().map(|l| l.mac).collect();
    lives.iter().for_each(|life| count(life.state.word()));
    let own =
        |facts: &Facts| machine::find(&config.machines, facts).and_then(|m| m.profile.as_deref());
    // Of those without a record the declaration says it.
    web.ledger.each_facts(|facts| {
        rest.remove(&facts.mac);
        if !told.contains(&facts.mac) {
            count(state(&config, own(facts), None));
        }
    });
    for mac in rest.difference(&told) {
        count(state(&config, own(&Facts::of(*mac)), None));
    }
    states
}

/// One, by its MAC; nothing where it is neither declared nor known.
pub fn one(web: &Web, mac: Mac) -> Option<View> {
    let config = web.config.load_full();
    let (brief, life) = (web.ledger.brief(mac), web.ledger.life(mac));
    let declared = config.machines.iter().any(|m| m.mac() == Some(mac));
    (declared || brief.is_some() || life.is_some()).then(|| {
        let mut view = view(&config, mac, brief, life);
        view.progress = progress(web, &view, Timestamp::now());
        view
    })
}

/// Of a machine that is being installed, or that runs from the network.
fn progress(web: &Web, view: &View, now: Timestamp) -> Option<Progress> {
    let runs = [State::Installing.word(), State::Rescue.word(), "live"].contains(&view.state);
    runs.then(|| web.ledger.progress(view.mac, now)).flatten()
}

/// Whether anything is declared, stored or seen of it.
pub fn is_known(web: &Web, mac: Mac) -> bool {
    web.ledger.life(mac).is_some() || web.ledger.brief(mac).is_some() || {
        web.config.load().machines.iter().any(|m| m.mac() == Some(mac))
    }
}

/// What it has told of itself; at the least its MAC.
pub fn facts(web: &Web, mac: Mac) -> Facts {
    web.ledger.facts(mac).unwrap_or_else(|| Facts::of(mac))
}

/// The machine of a name, or of a MAC in any of its notations.
pub fn named(web: &Web, who: &str) -> Option<Mac> {
    if let Ok(mac) = who.parse() {
        return Some(mac);
    }
    let config = web.config.load();
    let declared = config.machines.iter().find(|m| m.name == who).and_then(Machine::mac);
    declared
        .or_else(|| {
            let lives = web.ledger.lives();
            lives.iter().find(|l| l.name.as_deref() == Some(who)).map(|l| l.mac)
        })
        .or_else(|| {
            let seen = web.ledger.briefs();
            seen.iter().find(|b| b.name.as_deref() == Some(who)).map(|b| b.mac)
        })
}

fn view(config: &Config, mac: Mac, brief: Option<Brief>, life: Option<Arc<Life>>) -> View {
    let facts = brief.as_ref().map_or_else(|| Facts::of(mac), |b| b.facts.clone());
    let declared = machine::find(&config.machines, &facts);
    let own = declared.and_then(|m| m.profile.as_deref());
    let life = life.as_deref();
    let named = |name: &str| Some(name.to_string());
    View {
        mac,
        name: declared.map(|m| m.name.clone()).or_else(|| life.and_then(|l| l.name.clone())),
        declared: declared.is_some(),
        state: state(config, own, life),
        since: life.map(|l| l.since),
        profile: life.and_then(|l| l.profile.clone()).or_else(|| own.and_then(named)),
        attempt: life.and_then(|l| l.attempt.as_ref()).map(|a| a.number),
        failures: life.map_or(0, |l| l.failures),
        failure: life.and_then(|l| l.failure.clone()),
        installed: life.and_then(|l| l.installed),
        seen: brief.as_ref().map(|b| b.seen),
        stage: brief.as_ref().and_then(|b| b.stage),
        last: brief.as_ref().and_then(|b| b.last.clone()),
        facts: brief.map(|b| b.facts),
        progress: None,
    }
}

fn state(config: &Config, declared: Option<&str>, life: Option<&Life>) -> &'static str {
    match (life, declared) {
        (Some(life), _) => life.state.word(),
        (None, Some(LOCAL_DISK)) => State::Local.word(),
        (None, Some(name)) => match config.profile(name).map(|p| p.kind) {
            Some(Kind::Live) => "live",
            _ => State::Assigned.word(),
        },
        (None, None) => "seen",
    }
}
