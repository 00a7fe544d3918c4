//! Puts the doors on sockets that were bound beforehand.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_tls::accept::rustls_0_23::Acceptor;
use actix_web::dev::{AppConfig, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::error::counted;
use super::plane::Wire;
use super::{Web, auth, routes};

/// Each worker is a thread with a runtime of its own: more than this buys nothing a disk could
/// keep up with, and costs memory.
const WORKERS: usize = 4;
/// Of each worker; a hall of 2000 machines has two or three connections each at the most.
const CONNECTIONS: usize = 4096;
/// Threads for files and templates, of each worker.
const BLOCKING: usize = 16;
/// The same for the admin door: people, and a few programs.
const ADMIN_CONNECTIONS: usize = 512;
const ADMIN_BLOCKING: usize = 4;
/// iPXE keeps its connection between script, kernel and initrd.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// For the head of a request to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// For the rest of a connection's closing.
const DISCONNECT_TIME: Duration = Duration::from_secs(1);
/// What is being sent may go on for this long after the word to stop, in seconds.
const GRACE: u64 = 10;

/// The doors while they are open.
pub struct Running {
    web: web::Data<Web>,
    handles: Vec<ServerHandle>,
    tasks: JoinSet<io::Result<()>>,
}

impl Running {
    /// Takes no new connection, lets what is being sent come to its end within 10 s, and ends.
    pub async fn stop(&mut self) {
        // A door waits for what is being sent, and these would last as long as somebody looks.
        self.web.seats.close();
        self.web.pages.close();
        let all: Vec<_> = self.handles.drain(..).map(|h| tokio::spawn(h.stop(true))).collect();
        for stopped in all {
            // An error here is a door that had ended before, which is what was wanted.
            let _ = stopped.await;
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Waits until a door ends by itself, which it does only on an error.
    ///
    /// # Errors
    /// That error.
    pub async fn ended(&mut self) -> io::Result<()> {
        match self.tasks.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(e)) => Err(io::Error::other(e)),
            None => Ok(()),
        }
    }
}

/// Opens the boot door on `boot`, by HTTPS where a listener comes with a TLS configuration, and
/// the admin doors on `admin`: the first by [`Web::admin_tls`] where there is one, all others by
/// plain HTTP on loopback. To be called inside a tokio runtime.
///
/// # Errors
/// Of the system, when a listener cannot be used; or where an admin door is beyond loopback, and
/// there is no TLS for it.
pub fn start(
    web: Web,
    boot: Vec<(TcpListener, Option<ServerConfig>)>,
    admin: impl IntoIterator<Item = TcpListener>,
) -> io::Result<Running> {
    let mut tls = web.admin_tls.clone();
    let admin: Vec<_> = admin.into_iter().map(|door| (door, tls.take())).collect();
    for (door, _) in admin.iter().filter(|(_, tls)| tls.is_none()) {
        if !door.local_addr()?.ip().to_canonical().is_loopback() {
            let why = "an admin door beyond loopback needs HTTPS";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    let web = web::Data::from(Arc::new(web));
    let mut running = Running { web: web.clone(), handles: Vec::new(), tasks: JoinSet::new() };

    let mut door = Server::build()
        .workers(available_parallelism().map_or(1, usize::from).min(WORKERS))
        .max_concurrent_connections(CONNECTIONS)
        .worker_max_blocking_threads(BLOCKING)
        .shutdown_timeout(GRACE)
        .disable_signals();
    let stopping = door.graceful_shutdown_signal();
    for (listener, tls) in boot {
        let (web, stopping) = (web.clone(), stopping.clone());
        let name = listener.local_addr()?.to_string();
        door = match tls {
            None => door.listen(name, listener, move || plain(&web, &stopping))?,
            Some(mut tls) => {
                tls.alpn_protocols = vec![b"http/1.1".to_vec()];
                door.listen(name, listener, move || secure(&web, &stopping, tls.clone()))?
            }
        };
    }
    running.spawn(door.run());

    for (listener, tls) in admin {
        let (web, reach) = (web.clone(), auth::Reach::of(tls.is_some()));
        let door = HttpServer::new(move || {
            App::new()
                .app_data(web.clone())
                .app_data(reach)
                .wrap(from_fn(auth::guard))
                .wrap(from_fn(counted))
                .wrap(from_fn(auth::dressed))
                .configure(routes::admin_door)
        })
        .workers(1)
        .max_connections(ADMIN_CONNECTIONS)
        .worker_max_blocking_threads(ADMIN_BLOCKING)
        .client_request_timeout(REQUEST_TIME)
        .tls_handshake_timeout(REQUEST_TIME)
        .shutdown_timeout(GRACE)
        .disable_signals();
        let door = match tls {
            Some(tls) => door.listen_rustls_0_23(listener, tls)?,
            None => door.listen(listener)?,
        };
        running.spawn(door.run());
    }
    Ok(running)
}

impl Running {
    fn spawn(&mut self, server: actix_web::dev::Server) {
        self.handles.push(server.handle());
        self.tasks.spawn(server);
    }
}

/// A door without TLS. Not actix-web's own `HttpServer`, which takes no streams but its own: see
/// [`plane`](super::plane).
fn plain(
    web: &web::Data<Web>,
    stopping: &GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> + use<>
{
    let shared = web.clone();
    fn_service(move |tcp| ready(Ok(prepared(Wire::plain(tcp, shared.limits.send_time), &shared))))
        .and_then(connections(web, stopping))
}

fn secure(
    web: &web::Data<Web>,
    stopping: &GracefulShutdownSignal,
    tls: ServerConfig,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> + use<>
{
    let shared = web.clone();
    let mut acceptor = Acceptor::new(tls);
    acceptor.set_handshake_timeout(REQUEST_TIME);
    acceptor
        .map_err(|_| ())
        .map(move |tls| prepared(Wire::tls(tls, shared.limits.send_time), &shared))
        .and_then(connections(web, stopping))
}

fn prepared(wire: Wire, web: &Web) -> (Wire, Option<SocketAddr>) {
    if let Err(e) = wire.prepare(web.config.load().http.pace) {
        tracing::debug!(target: "pilotlight", "a connection that is gone already: {e}");
    }
    let peer = wire.peer();
    (wire, peer)
}

/// What speaks HTTP on one stream after the other. How connections end is no news: machines are
/// switched off.
fn connections(
    web: &web::Data<Web>,
    stopping: &GracefulShutdownSignal,
) -> impl ServiceFactory<
    (Wire, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = (),
    InitError = (),
> + use<> {
    let stopping = stopping.clone();
    let app = App::new()
        .app_data(web.clone())
        .wrap(from_fn(counted))
        .configure(routes::boot_door)
        .into_factory()
        .map_err(|e: actix_web::Error| e.error_response());
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(REQUEST_TIME)
        .client_disconnect_timeout(DISCONNECT_TIME)
        .on_connect_ext(|wire: &Wire, data| {
            if let Some(conn) = wire.conn() {
                data.insert(conn);
            }
        })
        .h1(map_config(app, |()| AppConfig::default()))
        .map_err(|_| ())
}
