//! The routes, on one page.

use actix_web::guard::{Any, Get, Head};
use actix_web::middleware::from_fn;
use actix_web::{Resource, web};

use super::api::{actions, machines, server, tokens};
use super::error::{No, by_https};
use super::{auth, boot, cache, events, files, metrics, mirror, pages};

/// The boot door: the same by HTTP and by HTTPS. Each is tried in its turn: files, which are asked for
/// most, come first, and longer paths before the others. `autoexec.ipxe` comes last, since iPXE asks
/// for it beside whatever it was itself loaded from.
pub fn boot_door(app: &mut web::ServiceConfig) {
    app.service(get("/files/{name}{tail:/.*|}", files::folder))
        .service(get("/files/", files::homes))
        .service(get("/files", files::homes_moved))
        .service(get("/image/{name}.iso", files::image))
        .service(get("/", boot::hello))
        .service(get("/boot.ipxe", boot::entry))
        .service(get("/boot/{script}", boot::script).wrap(from_fn(by_https)))
        .service(get("/loader/autoexec.ipxe", boot::entry))
        .service(get("/loader/again/autoexec.ipxe", boot::entry))
        .service(get("/loader/again/{name}", boot::loader))
        .service(get("/loader/{name}", boot::loader))
        .service(get("/ca.pem", boot::ca))
        .service(get("/b/{token}/files/{name}{tail:/.*|}", files::of_boot).wrap(from_fn(by_https)))
        .service(get("/mirror/{name}{tail:/.*|}", mirror::file))
        .service(
            get("/b/{token}/mirror/{name}{tail:/.*|}", mirror::of_boot).wrap(from_fn(by_https)),
        )
        .service(get("/b/{token}/answer/{name}", boot::answer))
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
    app.service(get("/healthz", server::healthz))
        .service(post("/logout", auth::logout))
        .service(get("/metrics", metrics::page))
        .service(get("/api/v1/openapi.json", server::openapi))
        .service(get("/api/v1/status", server::status))
        .service(get("/api/v1/me", server::me))
        .service(get("/api/v1/events", events::stream))
        .service(get("/api/v1/machines", machines::list))
        .service(
            get("/api/v1/machines/{who}", machines::one).route(web::delete().to(actions::forget)),
        )
        .service(get("/api/v1/machines/{who}/boots", machines::boots))
        .service(get("/api/v1/machines/{who}/script", machines::script))
        .service(post("/api/v1/machines/{who}/assign", actions::assign))
        .service(post("/api/v1/machines/{who}/reinstall", actions::reinstall))
        .service(post("/api/v1/machines/{who}/local", actions::local))
        .service(post("/api/v1/machines/{who}/rescue", actions::rescue))
        .service(post("/api/v1/machines/{who}/power", actions::power))
        .service(get("/api/v1/profiles", server::profiles))
        .service(get("/api/v1/leases", server::leases))
        .service(get("/api/v1/pools", server::pools))
        .service(get("/api/v1/alarms", server::alarms))
        .service(get("/api/v1/refusals", server::refusals))
        .service(get("/api/v1/mirrors", mirror::state))
        .service(get("/api/v1/tokens", tokens::list).route(web::post().to(tokens::make)))
        .service(
            web::resource("/api/v1/tokens/{name}")
                .route(web::delete().to(tokens::revoke))
                .default_service(web::to(wrong_method)),
        )
        .service(get("/api/v1/cache/profile/{profile}", cache::files))
        .service(
            get("/api/v1/cache/fetch/{profile}", cache::state)
                .app_data(web::PayloadConfig::new(cache::BODY))
                .route(web::post().to(cache::fetch)),
        )
        .service(post("/api/v1/cache/recount", cache::recount))
        .configure(pages::routes);
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

fn post<F, A>(path: &str, handler: F) -> Resource
where
    F: actix_web::Handler<A>,
    A: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path).route(web::post().to(handler)).default_service(web::to(wrong_method))
}

async fn wrong_method() -> Result<&'static str, No> {
    Err(No::Method)
}

async fn nothing() -> Result<&'static str, No> {
    Err(No::NoSuchPage)
}
