//! Clients of a cache, for scripts/bench cache.
//!
//!     herd get URL --clients N [--until-first SECONDS]
//!     herd install SCRIPT-URL --from ADDRESS --think MS
//!     herd delay ADDRESS:PORT --to ADDRESS:PORT --ms MS
//!
//! `get`: N clients ask for the URL at once, from one thread. Prints one line: milliseconds from the
//! start to the leader's first byte, then how far behind it the others' first bytes were (median,
//! most), milliseconds to the last byte of all, bytes, and how many failed. With --until-first all
//! of it ends as soon as each has its first byte, or after so many seconds.
//!
//! `install`: what a machine's firmware and installer fetch: its iPXE script, the kernel and the
//! initrds that it names, the answer file that its arguments name (`list=URL`), and each URL in
//! there, one after the other, thinking for so long behind each. Prints files, bytes, seconds.
//!
//! `delay`: a long way to a server: what clients say arrives there so much later, in any number. Not
//! every kernel has netem.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Words(Vec<String>);

impl Words {
    fn number(&self, name: &str) -> Fallible<Option<u64>> {
        Ok(self.text(name).map(str::parse).transpose()?)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Fallible<()> {
    let words = Words(std::env::args().skip(1).collect());
    let [what, url, ..] = words.0.as_slice() else { return Err("what, and where?".into()) };
    match what.as_str() {
        "get" => {
            let until = words.number("--until-first")?.map(Duration::from_secs);
            herd(url, words.number("--clients")?.unwrap_or(1), until).await
        }
        "install" => {
            let think = Duration::from_millis(words.number("--think")?.unwrap_or(0));
            install(url, words.text("--from").map(str::parse).transpose()?, think).await
        }
        "delay" => {
            let to = words.text("--to").ok_or("to where?")?.parse()?;
            delay(url, to, Duration::from_millis(words.number("--ms")?.unwrap_or(0))).await
        }
        other => Err(format!("there is no {other}").into()),
    }
}

fn client(from: Option<IpAddr>) -> Fallible<Client> {
    Ok(Client::builder().no_proxy().local_address(from).build()?)
}

/// What one client saw: first byte and last, and how many.
#[derive(Clone, Copy, Default)]
struct Seen {
    first: Option<Duration>,
    last: Option<Duration>,
    bytes: u64,
}

async fn herd(url: &str, clients: u64, until: Option<Duration>) -> Fallible<()> {
    let mut each = Vec::new();
    // A pool of its own for each: they are machines of their own.
    for _ in 0..clients {
        each.push(client(None)?);
    }
    let began = Instant::now();
    let seen = join_all(each.iter().map(|client| async move {
        let mut seen = Seen::default();
        let one = one(client, url, began, until.is_some(), &mut seen);
        let whole = match until {
            // Whoever waits longer has failed by having no byte.
            Some(limit) => tokio::time::timeout(limit, one).await.is_ok_and(|r| r.is_ok()),
            None => one.await.is_ok(),
        };
        (seen, whole)
    }))
    .await;
    let failed = seen.iter().filter(|(_, whole)| !whole).count();
    let mut firsts: Vec<f64> = seen.iter().filter_map(|(s, _)| s.first).map(ms).collect();
    firsts.sort_by(f64::total_cmp);
    let Some(leader) = firsts.first().copied() else { return Err("nobody got a byte".into()) };
    let followers = firsts.get(1..).unwrap_or_default();
    let median = followers.get(followers.len() / 2).map_or(0.0, |f| f - leader);
    let most = followers.last().map_or(0.0, |f| f - leader);
    let last = seen.iter().filter_map(|(s, _)| s.last).max().map_or(0.0, ms);
    let bytes: u64 = seen.iter().map(|(s, _)| s.bytes).sum();
    println!("{leader:.2} {median:.2} {most:.2} {last:.0} {bytes} {failed}");
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn one(
    client: &Client,
    url: &str,
    began: Instant,
    first_only: bool,
    seen: &mut Seen,
) -> Fallible<()> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    while let Some(piece) = response.chunk().await? {
        seen.first.get_or_insert_with(|| began.elapsed());
        seen.bytes += piece.len() as u64;
        if first_only {
            return Ok(());
        }
    }
    seen.last = Some(began.elapsed());
    Ok(())
}

async fn install(script: &str, from: Option<IpAddr>, think: Duration) -> Fallible<()> {
    let client = client(from)?;
    let (mut files, mut bytes) = (0u64, 0u64);
    let began = Instant::now();
    let text = text(&client, script).await?;
    let mut list = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let url = words.clone().find(|w| w.starts_with("http"));
        if let (true, Some(url)) = (matches!(verb, "kernel" | "initrd" | "imgfetch"), url) {
            bytes += fetch(&client, url).await?;
            files += 1;
        }
        list = list.or_else(|| words.find_map(|w| w.strip_prefix("list=")));
    }
    let list = self::text(&client, list.ok_or("the script names no list")?).await?;
    for url in list.split_whitespace() {
        bytes += fetch(&client, url).await?;
        files += 1;
        tokio::time::sleep(think).await;
    }
    println!("{files} {bytes} {:.3}", began.elapsed().as_secs_f64());
    Ok(())
}

async fn delay(at: &str, to: SocketAddr, by: Duration) -> Fallible<()> {
    let listener = TcpListener::bind(at).await?;
    loop {
        let (near, _) = listener.accept().await?;
        tokio::spawn(async move {
            // Whichever side ends it: the other is told by the end of its connection.
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                (near.into_split(), far.into_split());
            let (said, mut heard) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
            tokio::spawn(async move {
                while let Some((due, bytes)) = heard.recv().await {
                    tokio::time::sleep_until(due.into()).await;
                    if far_out.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(n @ 1..) = near_in.read(&mut buffer).await {
                    if said.send((Instant::now() + by, buffer[..n].to_vec())).is_err() {
                        return;
                    }
                }
            });
            // An error is the end of one of them, which is all there is to say.
            let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
        });
    }
}

async fn text(client: &Client, url: &str) -> Fallible<String> {
    Ok(client.get(url).send().await?.error_for_status()?.text().await?)
}

async fn fetch(client: &Client, url: &str) -> Fallible<u64> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut bytes = 0;
    while let Some(piece) = response.chunk().await? {
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}
