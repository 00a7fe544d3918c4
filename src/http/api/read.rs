//! Bodies and queries of the API.

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;

use super::Refusal;
use crate::model::event::plain;

/// Bytes of a body.
pub const BODY: usize = 64 << 10;
const BODY_TIME: Duration = Duration::from_secs(10);
/// Characters of what serde says; it quotes what came.
const SAID: usize = 200;

/// All of a body, in time.
pub async fn bytes(body: web::Payload) -> Result<web::Bytes, Refusal> {
    tokio::time::timeout(BODY_TIME, body.to_bytes_limited(BODY))
        .await
        .map_err(|_| Refusal::Stalled)?
        .map_err(|_| Refusal::TooLarge)?
        .map_err(|_| Refusal::Stalled)
}

/// A body of JSON; none at all is `{}`.
///
/// # Errors
/// What is wrong with it, and where.
pub async fn body<T: DeserializeOwned>(
    req: &HttpRequest,
    body: web::Payload,
) -> Result<T, Refusal> {
    let bytes = bytes(body).await?;
    if bytes.is_empty() {
        return parsed(b"{}");
    }
    let kind = req.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::Type);
    }
    parsed(&bytes)
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| {
        let said = plain(&e.to_string(), SAID);
        match e.is_data() {
            true => Refusal::Body(said),
            false => Refusal::Syntax(said),
        }
    })
}

/// The query.
///
/// # Errors
/// A key that is not known, or a value that is none.
pub fn query<T: DeserializeOwned>(req: &HttpRequest) -> Result<T, Refusal> {
    web::Query::<T>::from_query(req.query_string())
        .map(web::Query::into_inner)
        .map_err(|e| Refusal::Query(plain(&e.to_string(), SAID)))
}
