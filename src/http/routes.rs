//! The routes, on one page.

use actix_web::guard::{Any, Get, Head};
use actix_web::middleware::from_fn;
use actix_web::{Resource, web};

use super::error::{No, by_https};
use super::{api, boot, files};

/// The boot door: the same by HTTP and by HTTPS. The longer paths come first; `autoexec.ipxe`
/// comes last, since iPXE asks for it beside whatever it was itself loaded from.
pub fn boot_door(app: &mut web::ServiceConfig) {
    app.service(get("/", boot::hello))
        .service(get("/boot.ipxe", boot::entry))
        .service(get("/boot/{mac}.ipxe", boot::script).wrap(from_fn(by_https)))
        .service(get("/loader/autoexec.ipxe", boot::entry))
        .service(get("/loader/{name}", boot::loader))
        .service(get("/ca.pem", boot::ca))
        .service(get("/files/{name}{tail:/.*|}", files::folder))
        .service(get("/b/{token}/files/{name}{tail:/.*|}", files::of_boot).wrap(from_fn(by_https)))
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
