//! All else that the server knows.

use std::net::Ipv4Addr;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Config, Mode};
use crate::http::{Web, auth, view};

/// Kept by hand; a test holds it against the routes and their answers.
const OPENAPI: &str = include_str!("../../../assets/openapi.json");

pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(OPENAPI)
}

/// How the server is, at a glance.
pub async fn status(web: web::Data<Web>) -> HttpResponse {
    let config = web.config.load_full();
    let states = view::states(&web);
    let interfaces: Vec<Value> = web
        .interfaces
        .iter()
        .map(|i| json!({ "name": i.name, "mac": i.mac, "addresses": i.addresses }))
        .collect();
    let trouble = web.ledger.trouble();
    HttpResponse::Ok().json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": web.started,
        "uptime": web.uptime().as_secs(),
        "mode": config.dhcp.mode,
        "interfaces": interfaces,
        "machines": states,
        "alarms": web.ledger.alarms().len(),
        "listeners": web.seats.taken(),
        "configuration": &**web.standing.load(),
        "store": { "writable": trouble.is_none(), "trouble": trouble },
    }))
}

/// What machines can be given; never arguments, answers or secrets.
pub async fn profiles(web: web::Data<Web>) -> HttpResponse {
    let config = web.config.load_full();
    let life = &config.life;
    let all: Vec<Value> = config
        .profiles
        .iter()
        .map(|p| {
            json!({
                "name": p.name,
                "title": p.title,
                "kind": p.kind,
                "menu": p.menu,
                "timeout": p.timeout.unwrap_or(life.timeout).as_secs(),
                "attempts": p.attempts.unwrap_or(life.attempts),
                "rescue": life.rescue.as_ref() == Some(&p.name),
            })
        })
        .collect();
    HttpResponse::Ok().json(all)
}

pub async fn leases(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json((web.leases)())
}

/// One subnet that addresses are given from.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    pub network: String,
    pub ranges: Vec<String>,
    /// Addresses in all of its ranges.
    pub size: u64,
    /// How many of them are bound, offered, or rest since somebody else uses them.
    pub bound: u64,
    pub offered: u64,
    pub resting: u64,
}

/// The pools, and how full they are by `leases` (the list that `/leases` gives).
pub fn pools_of(config: &Config, leases: &Value) -> Vec<Pool> {
    if config.dhcp.mode != Mode::Full {
        return Vec::new();
    }
    let used: Vec<(Ipv4Addr, &str)> = leases
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|l| Some((l["address"].as_str()?.parse().ok()?, l["state"].as_str()?)))
        .collect();
    let pool = |subnet: &crate::config::Subnet| {
        let size = |r: &std::ops::RangeInclusive<Ipv4Addr>| {
            u64::from(u32::from(*r.end()).saturating_sub(u32::from(*r.start()))) + 1
        };
        let count = |states: &[&str]| {
            let inside = |a: &Ipv4Addr| subnet.ranges.iter().any(|r| r.contains(a));
            used.iter().filter(|(a, state)| states.contains(state) && inside(a)).count() as u64
        };
        Pool {
            network: subnet.network.to_string(),
            ranges: subnet.ranges.iter().map(|r| format!("{}-{}", r.start(), r.end())).collect(),
            size: subnet.ranges.iter().map(size).sum(),
            bound: count(&["bound"]),
            offered: count(&["offered"]),
            resting: count(&["declined", "in-use"]),
        }
    };
    config.dhcp.subnets.iter().map(pool).collect()
}

pub async fn pools(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json(pools_of(&web.config.load(), &(web.leases)()))
}

pub async fn alarms(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json(web.ledger.alarms())
}

pub async fn refusals(web: web::Data<Web>) -> HttpResponse {
    let all: Vec<Value> = web
        .ledger
        .refusals()
        .into_iter()
        .map(|((room, name), times)| json!({ "room": room, "name": name, "times": times }))
        .collect();
    HttpResponse::Ok().json(all)
}

/// Who asks, as far as this door knows.
pub async fn me(req: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(auth::visitor(&req).shown())
}
