//! What pages load: the style sheet, the icon, and htmx where the build has it. A name carries the
//! digest of what it names, so that it can be kept for ever.

use std::sync::LazyLock;

use actix_web::http::header::{self, EntityTag, IfNoneMatch};
use actix_web::{HttpResponse, web};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::error::No;

/// Brought by `scripts/htmx`, embedded by `build.rs`: `(name, bytes)`; none where it was not there.
mod embedded {
    include!(concat!(env!("OUT_DIR"), "/htmx.rs"));
}

struct Asset {
    name: String,
    kind: &'static str,
    bytes: &'static [u8],
}

static CSS: &[u8] = include_bytes!("../../../assets/dashboard/pilotlight.css");
static ICON: &[u8] = include_bytes!("../../../assets/dashboard/icon.svg");

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let ours = [("pilotlight.css", CSS), ("icon.svg", ICON)];
    ours.iter().chain(embedded::SCRIPTS).map(|(name, bytes)| Asset::of(name, bytes)).collect()
});

/// The addresses that a page loads from.
#[derive(Clone, Debug, Serialize)]
pub struct Links {
    css: String,
    icon: String,
    scripts: Vec<String>,
}

pub static LINKS: LazyLock<Links> = LazyLock::new(|| {
    let of = |kind: &str| {
        ASSETS
            .iter()
            .filter(|a| a.kind.starts_with(kind))
            .map(|a| format!("/assets/{}", a.name))
            .collect::<Vec<_>>()
    };
    Links {
        css: of("text/css").concat(),
        icon: of("image/").concat(),
        scripts: of("text/javascript"),
    }
});

/// Whether pages follow what happens by themselves.
pub fn is_live() -> bool {
    !embedded::SCRIPTS.is_empty()
}

impl Asset {
    fn of(name: &str, bytes: &'static [u8]) -> Asset {
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        let digest = Sha256::digest(bytes);
        let short: String = digest.iter().take(6).map(|b| format!("{b:02x}")).collect();
        let kind = match ending {
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        };
        Asset { name: format!("{stem}-{short}.{ending}"), kind, bytes }
    }
}

/// `GET /assets/NAME`.
pub async fn asset(
    name: web::Path<String>,
    known: Option<web::Header<IfNoneMatch>>,
) -> Result<HttpResponse, No> {
    let asset = ASSETS.iter().find(|a| a.name == *name).ok_or(No::NoSuchPage)?;
    let etag = EntityTag::new_strong(asset.name.clone());
    let same = known.is_some_and(|known| match known.into_inner() {
        IfNoneMatch::Any => true,
        IfNoneMatch::Items(items) => items.iter().any(|item| item.weak_eq(&etag)),
    });
    let mut answer = if same { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header(header::ETag(etag))
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    Ok(if same { answer.finish() } else { answer.content_type(asset.kind).body(asset.bytes) })
}
