//! The client of the benches of files: as little work as can be had, so that what is measured is
//! the server.
//!
//! ```text
//! http-load requests ADDRESS PATH --count N [--connections N]   prints bytes and seconds
//! http-load bulk ADDRESS PATH --count N [--connections N]       the same
//! http-load sendfile ADDRESS FILE                               serves FILE to whoever connects
//! ```
//!
//! `requests` asks for PATH on each connection as soon as it has the whole answer to what it asked
//! before (a `*` in PATH becomes the last six digits of a MAC, another one each time); nothing is
//! pipelined. `bulk` has a thread for each connection and lets the kernel throw bodies away.
//! `sendfile` is the limit: no head is read, the one that is sent is always the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use clap::{Parser, Subcommand};
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::AsRawFd;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Args)]
struct Load {
    address: String,
    path: String,
    /// Requests in all.
    #[arg(long)]
    count: usize,
    #[arg(long, default_value_t = 1)]
    connections: usize,
}

#[derive(Subcommand)]
enum What {
    Requests(Load),
    Bulk(Load),
    Sendfile { address: String, file: String },
}

fn main() -> io::Result<()> {
    let began = Instant::now();
    let bytes = match Cli::parse().what {
        What::Requests(load) => requests(&load)?,
        What::Bulk(load) => bulk(&load)?,
        What::Sendfile { address, file } => return sendfile(&address, &file),
    };
    println!("{bytes} {:.6}", began.elapsed().as_secs_f64());
    Ok(())
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: &str) -> io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, buffer: vec![0; 64 << 10] })
    }

    fn ask(&mut self, path: &str, nth: usize) -> io::Result<()> {
        let path = path.replace('*', &format!("{:06x}", nth % 2000));
        write!(Full(&mut self.stream), "GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")
    }

    /// Reads the head; what the body's length is, and how much of it came along.
    fn head(&mut self) -> io::Result<(usize, usize)> {
        let mut have = 0;
        loop {
            have += match self.stream.read(&mut self.buffer[have..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => n,
            };
            let text = &self.buffer[..have];
            let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            head.parse(text).map_err(io::Error::other)?;
            if head.code != Some(200) {
                return Err(io::Error::other(format!("status {:?}", head.code)));
            }
            let length =
                head.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok());
            let length = length.ok_or_else(|| io::Error::other("no Content-Length"))?;
            return Ok((length, have - end - 4));
        }
    }

    fn answer(&mut self) -> io::Result<usize> {
        let (length, mut have) = self.head()?;
        while have < length {
            let most = self.buffer.len().min(length - have);
            have +=
                match recv(self.stream.as_raw_fd(), &mut self.buffer[..most], MsgFlags::MSG_TRUNC)?
                {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => n,
                };
        }
        Ok(length)
    }
}

/// One write for one request.
struct Full<'a>(&'a mut TcpStream);

impl Write for Full<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.0.write_all(text.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn requests(load: &Load) -> io::Result<usize> {
    let mut clients: Vec<Client> =
        (0..load.connections).map(|_| Client::connect(&load.address)).collect::<Result<_, _>>()?;
    let (mut asked, mut bytes) = (0, 0);
    for client in clients.iter_mut().take(load.count) {
        client.ask(&load.path, asked)?;
        asked += 1;
    }
    for nth in 0..load.count {
        let client = &mut clients[nth % load.connections];
        bytes += client.answer()?;
        if asked < load.count {
            client.ask(&load.path, asked)?;
            asked += 1;
        }
    }
    Ok(bytes)
}

fn bulk(load: &Load) -> io::Result<usize> {
    std::thread::scope(|scope| {
        let each = |of: usize| {
            let mut client = Client::connect(&load.address)?;
            client.buffer.resize(4 << 20, 0);
            let mut bytes = 0;
            for nth in (of..load.count).step_by(load.connections) {
                client.ask(&load.path, nth)?;
                bytes += client.answer()?;
            }
            Ok(bytes)
        };
        let all: Vec<_> = (0..load.connections).map(|of| scope.spawn(move || each(of))).collect();
        let panicked = || io::Error::other("a thread panicked");
        all.into_iter().map(|t| t.join().map_err(|_| panicked())?).sum()
    })
}

fn sendfile(address: &str, file: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let len = File::open(file)?.metadata()?.len();
    for stream in listener.incoming() {
        let (mut stream, file) = (stream?, File::open(file)?);
        std::thread::spawn(move || -> io::Result<()> {
            while stream.read(&mut [0; 4096])? > 0 {
                write!(Full(&mut stream), "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")?;
                let mut offset = 0;
                while offset < len {
                    let most = usize::try_from(len - offset).unwrap_or(usize::MAX);
                    rustix::fs::sendfile(&stream, &file, Some(&mut offset), most)?;
                }
            }
            Ok(())
        });
    }
    Ok(())
}
