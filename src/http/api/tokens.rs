//! Tokens, listed, made and revoked by whoever may ask.

use actix_web::{HttpRequest, HttpResponse, web};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Refusal, read};
use crate::http::error::No;
use crate::http::{Web, auth};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    name: String,
}

pub async fn list(web: web::Data<Web>) -> HttpResponse {
    HttpResponse::Ok().json(web.auth.tokens())
}

/// Makes one, and shows it this once.
pub async fn make(
    req: HttpRequest,
    web: web::Data<Web>,
    body: web::Payload,
) -> Result<HttpResponse, No> {
    let Make { name } = read::body(&req, body).await?;
    let (theirs, called) = (web.clone(), name.clone());
    let made = web::block(move || theirs.auth.make(&called, Timestamp::now())).await;
    let token = made.map_err(|_| Refusal::Busy)??;
    tracing::info!(target: "pilotlight", "{} has made the token {name}", auth::visitor(&req));
    Ok(HttpResponse::Created().json(json!({ "name": name, "token": token.reveal() })))
}

/// Revokes one: its sessions and streams end, too.
pub async fn revoke(req: HttpRequest, web: web::Data<Web>) -> Result<HttpResponse, No> {
    let name = req.match_info().query("name").to_string();
    let (theirs, called) = (web.clone(), name.clone());
    let gone = web::block(move || theirs.auth.revoke(&called)).await;
    gone.map_err(|_| Refusal::Busy)??;
    tracing::info!(target: "pilotlight", "{} has revoked the token {name}", auth::visitor(&req));
    Ok(HttpResponse::NoContent().finish())
}
