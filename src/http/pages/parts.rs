//! The parts of pages that move, each with the id of the element that it fills. A page is made of the
//! same templates when it is opened.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Web;
use super::super::error::No;
use super::live::Page;
use super::machine::{self, Choices, Shown};
use super::{board, html, text};
use crate::http::view;
use crate::ledger::Alarm;
use crate::model::Mac;
use crate::model::event::size;

/// Alarms that the fleet's page shows; their own page has all.
const NOTICES: usize = 3;
/// Rows of a list: more are counted.
const ROWS: usize = 5000;

/// What fills the element `place`.
#[derive(Debug)]
pub struct Part {
    pub place: &'static str,
    pub html: String,
}

/// The parts of a page as they are now; without `slow`, those alone that go with the tiles.
///
/// # Errors
/// Where one cannot be made.
pub fn of(web: &Web, page: &Page, slow: bool, now: Timestamp) -> Result<Vec<Part>, No> {
    let all: &[(&str, &str)] = match page {
        Page::Fleet(_) if slow => {
            &[("counts", "counts.html"), ("installs", "installs.html"), ("notices", "notices.html")]
        }
        Page::Fleet(_) => &[("counts", "counts.html")],
        Page::Machine(_) => {
            &[("state", "state.html"), ("facts", "facts.html"), ("timeline", "timeline.html")]
        }
        Page::Leases => &[("list", "lease-list.html")],
        Page::Mirrors => &[("list", "mirror-list.html")],
        Page::Alarms => &[("list", "notices.html")],
    };
    let with = context(web, page, now)?;
    all.iter()
        .map(|(place, template)| Ok(Part { place, html: html::fill(template, &with)? }))
        .collect()
}

/// What the templates of a page are given.
///
/// # Errors
/// Where there is nothing to show.
pub fn context(web: &Web, page: &Page, now: Timestamp) -> Result<Value, No> {
    Ok(match page {
        Page::Fleet(filter) => {
            let board = web.pages.board(web, super::AGE)?;
            let all = alarms(web, now);
            json!({
                "counts": board.counts(filter),
                "installs": board.installs,
                "installing": board.installing,
                "alarms": all.iter().take(NOTICES).collect::<Vec<_>>(),
                "more": all.len().saturating_sub(NOTICES),
                "filter": { "state": filter.state, "q": filter.q },
            })
        }
        Page::Machine(mac) => one(web, *mac, now)?,
        Page::Leases => leases(web, now),
        Page::Mirrors => mirrors(web),
        Page::Alarms => json!({ "alarms": alarms(web, now), "more": 0 }),
    })
}

fn one(web: &Web, mac: Mac, now: Timestamp) -> Result<Value, No> {
    let view = view::one(web, mac).ok_or(No::NoMachine)?;
    Ok(json!({
        "machine": Shown::of(&view, now),
        "facts": machine::facts(&view),
        "choices": Choices::of(web, &view),
        "diagnosis": web.ledger.diagnosis(mac, now),
        "fall": machine::waterfall(web, mac, now),
    }))
}

/// Alarms as they are shown, the newest first.
fn alarms(web: &Web, now: Timestamp) -> Vec<Value> {
    let mut all: Vec<Alarm> = web.ledger.alarms();
    all.sort_by_key(|a| std::cmp::Reverse(a.last));
    let shown = |a: &Alarm| {
        json!({
            "name": a.name, "about": a.about, "text": a.text, "times": a.times,
            "first": text::ago(a.first, now), "last": text::ago(a.last, now),
            "id": a.about.parse().ok().map(text::id),
        })
    };
    all.iter().map(shown).collect()
}

fn leases(web: &Web, now: Timestamp) -> Value {
    let all = (web.leases)();
    let all = all.as_array().cloned().unwrap_or_default();
    let names: std::collections::HashMap<Mac, String> =
        view::all(web).into_iter().map(|v| (v.mac, board::shown(&v))).collect();
    let config = web.config.load();
    let addresses: Vec<std::net::Ipv4Addr> =
        all.iter().filter_map(|l| l["address"].as_str()?.parse().ok()).collect();
    let pool = |range: &std::ops::RangeInclusive<std::net::Ipv4Addr>| {
        let size = u64::from(u32::from(*range.end()).saturating_sub(u32::from(*range.start()))) + 1;
        let used = addresses.iter().filter(|a| range.contains(*a)).count() as u64;
        json!({
            "range": format!("{} – {}", range.start(), range.end()),
            "size": size, "used": used, "free": size.saturating_sub(used),
        })
    };
    let pools: Vec<Value> = config
        .dhcp
        .subnets
        .iter()
        .map(|s| json!({ "network": s.network, "ranges": s.ranges.iter().map(pool).collect::<Vec<_>>() }))
        .collect();
    let row = |lease: &Value| {
        let mac: Option<Mac> = lease["mac"].as_str().and_then(|m| m.parse().ok());
        let at = |key: &str| lease[key].as_str().and_then(|t| t.parse::<Timestamp>().ok());
        json!({
            "address": lease["address"], "mac": lease["mac"], "state": lease["state"],
            "hostname": lease["hostname"],
            "name": mac.and_then(|m| names.get(&m)), "id": mac.map(text::id),
            "ends": at("ends").map(|t| text::until(t, now)),
        })
    };
    json!({
        "mode": config.dhcp.mode,
        "pools": pools,
        "leases": all.iter().take(ROWS).map(row).collect::<Vec<_>>(),
        "left_out": all.len().saturating_sub(ROWS),
    })
}

fn mirrors(web: &Web) -> Value {
    let config = web.config.load();
    let cache = json!({ "limit": size(config.cache.limit), "offline": config.cache.offline });
    let Some(mirrors) = &web.mirrors else {
        return json!({ "mirrors": [], "fetching": [], "cache": cache });
    };
    let url = |(url, rate): (String, Option<f64>)| {
        let rate = rate.filter(|r| r.is_finite() && *r >= 0.0).map(|r| text::rate(r as u64));
        json!({ "url": url, "rate": rate })
    };
    let standing: Vec<Value> = mirrors
        .standing()
        .into_iter()
        .map(|(name, urls)| {
            let verify = config.mirrors.iter().find(|m| m.name == name).map(|m| m.verify);
            json!({ "name": name, "verify": verify, "urls": urls.into_iter().map(url).collect::<Vec<_>>() })
        })
        .collect();
    let fetching: Vec<Value> = mirrors
        .flying()
        .into_iter()
        .take(ROWS)
        .map(|(mirror, path, there, total, since)| {
            let percent = total.map(|t| there.min(t) * 100 / t.max(1));
            let seconds = since.as_secs_f64();
            let rate = (seconds > 0.1).then(|| text::rate((there as f64 / seconds) as u64));
            json!({
                "mirror": mirror, "path": path, "there": size(there), "total": total.map(size),
                "percent": percent, "rate": rate,
            })
        })
        .collect();
    json!({ "mirrors": standing, "fetching": fetching, "cache": cache })
}
