//! The cache, for the command line beside a running server: what a profile is made of, and its
//! files fetched. On the admin door.
//!
//! 1. `GET /api/v1/cache/profile/PROFILE` lists its files, each `MIRROR/PATH`.
//! 2. `POST /api/v1/cache/fetch/PROFILE` fetches those that are not held, and what the body names
//!    beside them; while that goes on, another POST joins it. `GET` tells how far each file is.
//! 3. `POST /api/v1/cache/recount` after files were removed or pinned by hand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::{HttpResponse, web};

use super::Web;
use super::error::No;
use crate::mirror::MirrorPath;
use crate::mirror::learn::FILES;
use crate::mirror::serve::Mirrors;
use crate::mirror::serve::order::Order;
use crate::model::Profile;
use crate::model::event::plain;

/// Bytes of a POST's body.
pub const BODY: usize = 1 << 20;

/// The newest order of each profile.
#[derive(Default)]
pub struct Orders(Mutex<BTreeMap<String, Arc<Order>>>);

impl Orders {
    fn newest(&self, profile: &str) -> Option<Arc<Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(profile).cloned()
    }

    /// The one that goes on, or a new one. Those of profiles that are no more are forgotten.
    fn going(&self, profile: &str, is_profile: impl Fn(&str) -> bool) -> Arc<Order> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, _| is_profile(name));
        let order = all.entry(profile.into()).or_default();
        if order.is_over() {
            *order = Arc::default();
        }
        order.clone()
    }
}

fn mirrors(web: &Web) -> Result<&Arc<Mirrors>, No> {
    web.mirrors.as_ref().ok_or(No::NoSuchPage)
}

fn profile<'a>(config: &'a crate::config::Config, name: &str) -> Result<&'a Profile, No> {
    config.profile(name).ok_or_else(|| No::NoSuchProfile(plain(name, 80)))
}

/// What the profile is made of.
pub async fn files(web: web::Data<Web>, name: web::Path<String>) -> Result<HttpResponse, No> {
    let config = web.config.load_full();
    let files = mirrors(&web)?.wanted(profile(&config, &name)?);
    let names: Vec<String> = files.into_iter().map(|(m, path)| format!("{m}/{path}")).collect();
    Ok(HttpResponse::Ok().json(names))
}

/// Fetches it.
pub async fn fetch(
    web: web::Data<Web>,
    name: web::Path<String>,
    body: web::Bytes,
) -> Result<HttpResponse, No> {
    let config = web.config.load_full();
    let profile = profile(&config, &name)?;
    let mirrors = mirrors(&web)?;
    let mut files = mirrors.wanted(profile);
    files.extend(more(&body)?);
    let order = web.orders.going(&profile.name, |name| config.profile(name).is_some());
    mirrors.bring(&order, files);
    Ok(HttpResponse::Accepted().json(mirrors.report(&profile.name, &order)))
}

fn more(body: &[u8]) -> Result<Vec<(String, String)>, No> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = serde_json::from_slice(body).map_err(|_| No::NoFiles)?;
    let pair = |name: &String| {
        let (mirror, path) = name.split_once('/')?;
        Some((mirror.to_string(), MirrorPath::plain(path).ok()?.to_string()))
    };
    let files: Option<Vec<_>> = names.iter().map(pair).collect();
    files.filter(|files| files.len() <= FILES).ok_or(No::NoFiles)
}

/// How far it is.
pub async fn state(web: web::Data<Web>, name: web::Path<String>) -> Result<HttpResponse, No> {
    let config = web.config.load_full();
    let profile = profile(&config, &name)?;
    let order = web.orders.newest(&profile.name);
    let order = order.ok_or_else(|| No::NotOrdered(profile.name.clone()))?;
    Ok(HttpResponse::Ok().json(mirrors(&web)?.report(&profile.name, &order)))
}

/// Files were removed or pinned behind our back.
pub async fn recount(web: web::Data<Web>) -> Result<HttpResponse, No> {
    mirrors(&web)?.recount();
    Ok(HttpResponse::NoContent().finish())
}
