//! What the machine itself can do, beside which a bench puts what a server does. Std alone, so
//! that `rustc -O` is enough for it.
//!
//! ```text
//! limits echo ADDRESS:PORT                    sends every datagram back, until it is ended
//! limits ask ADDRESS:PORT BYTES WINDOW SECONDS   exchanges per second, WINDOW of them at once
//! limits sync FILE SECONDS                    writes of 4 KiB per second, each with its fdatasync
//! ```

use std::fs::OpenOptions;
use std::io::{self, Error};
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// A datagram that no answer came to in this time was dropped, and another is sent in its place.
const LOST: Duration = Duration::from_millis(200);
/// The file that is written over and over, as a store writes over its pages.
const FILE: usize = 1 << 20;
const PAGE: usize = 4096;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["echo", address] => echo(address),
        ["ask", address, bytes, window, seconds] => {
            let rate = ask(address, number(bytes)?, number(window)?, seconds_of(seconds)?)?;
            println!("{rate:.0}");
            Ok(())
        }
        ["sync", file, seconds] => {
            println!("{:.0}", sync(file, seconds_of(seconds)?)?);
            Ok(())
        }
        _ => Err(Error::other(
            "limits echo ADDRESS | ask ADDRESS BYTES WINDOW SECONDS | sync FILE SECONDS",
        )),
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| Error::other(format!("{text} is not a number")))
}

fn seconds_of(text: &str) -> io::Result<Duration> {
    Ok(Duration::from_secs(number(text)? as u64))
}

fn echo(address: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..len], from)?;
    }
}

fn ask(address: &str, bytes: usize, window: usize, time: Duration) -> io::Result<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(LOST))?;
    let datagram = vec![0; bytes];
    let mut buffer = [0; 2048];
    for _ in 0..window {
        socket.send(&datagram)?;
    }
    let begin = Instant::now();
    let mut answered = 0u64;
    while begin.elapsed() < time {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                answered += 1;
                socket.send(&datagram)?;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                for _ in 0..window {
                    socket.send(&datagram)?;
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(answered as f64 / begin.elapsed().as_secs_f64())
}

fn sync(path: &str, time: Duration) -> io::Result<f64> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all_at(&vec![0; FILE], 0)?;
    file.sync_all()?;
    let page = [1; PAGE];
    let begin = Instant::now();
    let mut synced = 0u64;
    while begin.elapsed() < time {
        file.write_all_at(&page, (synced as usize * PAGE % FILE) as u64)?;
        file.sync_data()?;
        synced += 1;
    }
    Ok(synced as f64 / begin.elapsed().as_secs_f64())
}
