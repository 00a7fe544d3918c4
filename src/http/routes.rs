//! The routes, on one page.

use actix_web::guard::{Any, Get, Head};
use actix_web::middleware::from_fn;
use actix_web::{Resource, web};

use super::error::{No, by_https};
use super::{api, boot, cache, files, mirror};

/// The boot door: the same by HTTP and by HTTPS. Each is tried in its turn: files, which are asked for
/// most, come first, and longer paths before the others. `autoexec.ipxe` comes last, since iPXE asks
/// for it beside whatever it was itself loaded from.
pub fn boot_door(app: &mut web::ServiceConfig) {
    app.service(get("/files/{name}{tail:/.*|}", files::folder))
        .service(get("/", boot::hello))
        .service(get("/boot.ipxe", boot::entry))
        .service(get("/boot/{mac}.ipxe", boot::script).wrap(from_fn(by_https)))
        .service(get("/loader/autoexec.ipxe", boot::entry))
        .service(get("/loader/{name}", boot::loader))
        .service(get("/ca.pem", boot::ca))
        .service(get("/b/{token}/files/{name}{tail:/.*|}", files::of_boot).wrap(from_fn(by_https)))
        .service(get("/mirror/{name}{tail:/.*|}", mirror::file))
        .service(
            get("/b/{token}/mirror/{name}{tail:/.*|}", mirror::of_boot).wrap(from_fn(by_https)),
        )
        .service(get("/b/{token}/answer/{name}", boot::answer).wrap(from_fn(by_https)))
        .service(
            web::resource(["/b/{token}/report", "/b/{token}/report/{word}"])
                .route(web::get().to(boot::report))
                .route(web::post().to(boot::report))
                .default_service(web::to(wrong_method)),
        )
        .service(get("/{beside:.*}autoexec.ipxe", boot::entry))
        .default_service(web::to(nothing));
}

/// The admin door.
pub fn admin_door(app: &mut web::ServiceConfig) {
    app.service(get("/healthz", api::healthz))
        .service(get("/api/machines", api::machines))
        .service(get("/api/machines/{mac}", api::machine))
        .service(get("/api/leases", api::leases))
        .service(get("/api/alarms", api::alarms))
        .service(get("/api/refusals", api::refusals))
        .service(get("/api/mirrors", mirror::state))
        .service(get("/api/cache/profile/{profile}", cache::files))
        .service(
            web::resource("/api/cache/fetch/{profile}")
                .app_data(web::PayloadConfig::new(cache::BODY))
                .route(web::get().to(cache::state))
                .route(web::post().to(cache::fetch))
                .default_service(web::to(wrong_method)),
        )
        .service(
            web::resource("/api/cache/recount")
                .route(web::post().to(cache::recount))
                .default_service(web::to(wrong_method)),
        )
        .default_service(web::to(nothing));
}

/// GET and HEAD, by the same handler: the server leaves the body out itself, and so HEAD says
/// what GET would, Content-Length included (UEFI HTTP boot asks by HEAD how much to make room for).
fn get<F, A>(path: &str, handler: F) -> Resource
where
    F: actix_web::Handler<A>,
    A: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path)
        .route(web::route().guard(Any(Get()).or(Head())).to(handler))
        .default_service(web::to(wrong_method))
}

async fn wrong_method() -> Result<&'static str, No> {
    Err(No::Method)
}

async fn nothing() -> Result<&'static str, No> {
    Err(No::NoSuchPage)
}
