//! `/metrics`, as OpenMetrics has it: what [`Ledger`](crate::ledger::Ledger), leases, mirrors and
//! this door know at the moment that somebody asks. Every label has few values, all of them ours or
//! the configuration's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::{HttpResponse, web};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::api::server::{Pool, pools_of};
use super::error::No;
use super::{Web, view};
use crate::mirror::serve::Use;
use crate::model::State;

/// The states of a machine beside those of a life.
const OTHERS: [&str; 2] = ["live", "seen"];

/// What this door counts itself.
#[derive(Debug, Default)]
pub struct Counts {
    cache: [AtomicU64; HOW.len()],
}

/// How the cache answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    Used(Use),
    /// It was on its way to the disk.
    Filling,
    /// Straight through.
    Passing,
}

const HOW: [&str; 5] = ["hit", "revalidated", "stale", "fill", "pass"];

impl Counts {
    pub fn cache(&self, how: Cached) {
        let place = match how {
            Cached::Used(Use::Hit) => 0,
            Cached::Used(Use::Revalidated) => 1,
            Cached::Used(Use::Stale) => 2,
            Cached::Filling => 3,
            Cached::Passing => 4,
        };
        self.cache[place].fetch_add(1, Ordering::Relaxed);
    }
}

/// Names and values.
type Labels = Vec<(&'static str, String)>;

/// A page of metrics on its way.
#[derive(Default)]
struct Page(Registry);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn gauges(&mut self, name: &str, help: &str, all: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in all {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn counters(&mut self, name: &str, help: &str, all: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in all {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }
}

fn label<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

/// `GET /metrics`
pub async fn page(web: web::Data<Web>) -> Result<HttpResponse, No> {
    let mut page = Page::default();
    server(&mut page, &web);
    machines(&mut page, &web);
    addresses(&mut page, &web);
    mirrors(&mut page, &web);
    let mut text = String::new();
    encode(&mut text, &page.0).expect("a String takes everything");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(HttpResponse::Ok().content_type(kind).body(text))
}

fn server(page: &mut Page, web: &Web) {
    let version = [(label([("version", env!("CARGO_PKG_VERSION"))]), 1.0)];
    page.gauges("pilotlight_build", "The version that runs", version);
    let started = web.started.as_millisecond() as f64 / 1000.0;
    page.gauge("process_start_time_seconds", "When the server started, since 1970", started);
    let writable = f64::from(u8::from(web.ledger.trouble().is_none()));
    page.gauge("pilotlight_store_writable", "Whether states of machines can be written", writable);
    let listeners = web.seats.taken() as f64;
    page.gauge("pilotlight_event_listeners", "Streams of events that are open", listeners);
    let refusals = web.ledger.refusals();
    let refusals =
        refusals.iter().map(|((room, name), n)| (label([("room", room), ("name", name)]), *n));
    page.counters("pilotlight_refusals", "Silences and refusals, by room and name", refusals);
    let mut alarms: BTreeMap<&str, f64> = BTreeMap::new();
    for alarm in web.ledger.alarms() {
        *alarms.entry(alarm.name).or_default() += 1.0;
    }
    let alarms = alarms.into_iter().map(|(name, n)| (label([("name", name)]), n));
    page.gauges("pilotlight_alarms", "What a person has to look at, by name", alarms);
    if let Some(hooks) = &web.hooks {
        let all = [("sent", &hooks.sent), ("failed", &hooks.failed), ("dropped", &hooks.dropped)];
        let all = all.map(|(end, n)| (label([("end", end)]), n.load(Ordering::Relaxed)));
        page.counters("pilotlight_webhook_events", "Events for webhooks, by their end", all);
    }
}

fn machines(page: &mut Page, web: &Web) {
    let words = State::ALL.into_iter().map(State::word).chain(OTHERS);
    let mut states: BTreeMap<&str, f64> = words.map(|word| (word, 0.0)).collect();
    states.extend(view::states(web).into_iter().map(|(state, n)| (state, n as f64)));
    let states = states.into_iter().map(|(state, n)| (label([("state", state)]), n));
    page.gauges("pilotlight_machines", "Machines, by state", states);
    let counted = web.ledger.counted();
    page.counter("pilotlight_boots", "Scripts that boot a profile", counted.boots);
    page.counter("pilotlight_installs", "Installations that were reported", counted.installs);
    let failures = counted.failures.iter();
    let failures = failures.map(|((why, step), n)| (label([("reason", why), ("step", step)]), *n));
    page.counters(
        "pilotlight_install_failures",
        "Attempts that failed, by reason and by the step that was last seen",
        failures,
    );
    let bytes = counted.files.iter().map(|(kind, bytes, ..)| (label([("kind", kind)]), *bytes));
    page.counters("pilotlight_transfer_bytes", "Bytes of files that have left, by kind", bytes);
    let files = counted.files.iter().flat_map(|(kind, _, sent, cut)| {
        [("sent", sent), ("cut", cut)].map(|(end, n)| (label([("kind", kind), ("end", end)]), *n))
    });
    page.counters("pilotlight_transfers", "Files that have left, by kind and end", files);
}

fn addresses(page: &mut Page, web: &Web) {
    let leases = (web.leases)();
    let mut states: BTreeMap<String, f64> = BTreeMap::new();
    for state in leases.as_array().into_iter().flatten().filter_map(|l| l["state"].as_str()) {
        *states.entry(state.into()).or_default() += 1.0;
    }
    let states = states.iter().map(|(state, n)| (label([("state", state)]), *n));
    page.gauges("pilotlight_leases", "Leases, by state", states);
    let pools = pools_of(&web.config.load(), &leases);
    let of = |number: fn(&Pool) -> u64| {
        let line = |p: &Pool| (label([("network", &p.network)]), number(p) as f64);
        pools.iter().map(line).collect::<Vec<_>>()
    };
    page.gauges("pilotlight_pool_addresses", "Addresses of a subnet's ranges", of(|p| p.size));
    page.gauges("pilotlight_pool_bound", "Those that are bound", of(|p| p.bound));
}

fn mirrors(page: &mut Page, web: &Web) {
    let Some(mirrors) = &web.mirrors else { return };
    let counts = HOW.iter().zip(&web.counts.cache);
    let counts = counts.map(|(how, n)| (label([("how", how)]), n.load(Ordering::Relaxed)));
    page.counters(
        "pilotlight_cache_answers",
        "Files of mirrors, by how the cache answered",
        counts,
    );
    let (files, bytes) = mirrors.kept();
    page.gauge("pilotlight_cache_files", "Files that the cache holds", files as f64);
    page.gauge("pilotlight_cache_bytes", "Bytes of the disk that the cache takes", bytes as f64);
    let limit = web.config.load().cache.limit as f64;
    page.gauge("pilotlight_cache_limit_bytes", "Bytes that it may take", limit);
    page.gauge("pilotlight_cache_fetching", "Files on their way", mirrors.flying().len() as f64);
    let standing = mirrors.standing();
    let urls = standing.iter().flat_map(|(mirror, urls)| {
        let line = move |(url, rate): &(String, Option<f64>)| {
            (label([("mirror", mirror), ("url", url)]), rate.unwrap_or(0.0))
        };
        urls.iter().map(line)
    });
    page.gauges(
        "pilotlight_mirror_rate_bytes",
        "Bytes a second that a URL of a mirror delivers, of late; 0 before it was asked",
        urls,
    );
}
