//! What the ledger knows, as JSON.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::Web;
use super::error::No;
use crate::model::Mac;

pub async fn healthz() -> &'static str {
    "ok\n"
}

pub async fn machines(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json(web.ledger.list())
}

pub async fn machine(web: web::Data<Web>, mac: web::Path<String>) -> Result<HttpResponse, No> {
    let mac: Mac = mac.parse()?;
    let known = web.ledger.get(mac).ok_or(No::NoMachine)?;
    Ok(HttpResponse::Ok().json(known))
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

pub async fn leases(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json((web.leases)())
}

pub async fn alarms(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json(web.ledger.alarms())
}
