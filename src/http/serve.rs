//! Puts the doors on sockets that were bound beforehand.

use std::any::Any;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::{Extensions, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer, web};
use rustls::ServerConfig;
use tokio::task::JoinSet;

use super::error::counted;
use super::{Local, Web, routes};

/// Each worker is a thread with a runtime of its own: more than this buys nothing a disk could
/// keep up with, and costs memory.
const WORKERS: usize = 4;
/// Of each worker; a hall of 2000 machines has two or three connections each at the most.
const CONNECTIONS: usize = 4096;
/// Threads for files and templates, of each worker.
const BLOCKING: usize = 16;
/// iPXE keeps its connection between script, kernel and initrd.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// For the head of a request to arrive.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// What is being sent may go on for this long after the word to stop, in seconds.
const GRACE: u64 = 10;

/// The doors while they are open.
pub struct Running {
    handles: Vec<ServerHandle>,
    tasks: JoinSet<io::Result<()>>,
}

impl Running {
    /// Takes no new connection, lets what is being sent come to its end within 10 s, and ends.
    pub async fn stop(&mut self) {
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
/// the admin door on `admin`. To be called inside a tokio runtime.
///
/// # Errors
/// Of the system, when a listener cannot be used.
pub fn start(
    web: Web,
    boot: Vec<(TcpListener, Option<ServerConfig>)>,
    admin: Option<TcpListener>,
) -> io::Result<Running> {
    let web = web::Data::from(Arc::new(web));
    let mut running = Running { handles: Vec::new(), tasks: JoinSet::new() };

    let shared = web.clone();
    let mut door = HttpServer::new(move || {
        App::new().app_data(shared.clone()).wrap(from_fn(counted)).configure(routes::boot_door)
    })
    .workers(available_parallelism().map_or(1, usize::from).min(WORKERS))
    .max_connections(CONNECTIONS)
    .worker_max_blocking_threads(BLOCKING)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(REQUEST_TIME)
    .tls_handshake_timeout(REQUEST_TIME)
    .shutdown_timeout(GRACE)
    .disable_signals()
    .on_connect(remember_local);
    for (listener, tls) in boot {
        door = match tls {
            Some(tls) => door.listen_rustls_0_23(listener, tls)?,
            None => door.listen(listener)?,
        };
    }
    running.spawn(door.run());

    if let Some(listener) = admin {
        let door = HttpServer::new(move || {
            App::new().app_data(web.clone()).wrap(from_fn(counted)).configure(routes::admin_door)
        })
        .workers(1)
        .worker_max_blocking_threads(1)
        .client_request_timeout(REQUEST_TIME)
        .shutdown_timeout(GRACE)
        .disable_signals()
        .listen(listener)?;
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

/// See [`Local`].
fn remember_local(connection: &dyn Any, data: &mut Extensions) {
    let plain = connection.downcast_ref::<TcpStream>();
    let tcp = plain.or_else(|| {
        let tls = connection.downcast_ref::<TlsStream<TcpStream>>()?;
        Some(tls.get_ref().0)
    });
    if let Some(address) = tcp.and_then(|tcp| tcp.local_addr().ok()) {
        data.insert(Local(address));
    }
}
