//! Whole boots: each machine goes from its firmware's DHCP to its answer file.
//!
//! 1. DHCP as the firmware speaks it.
//! 2. The loader, by TFTP as OVMF and BIOS ROMs ask for it, or by HTTP where a URL is named.
//! 3. UEFI: `autoexec.ipxe` beside the loader, on the firmware's lease; iPXE 2.0.0 asks for it
//!    before anything else. BIOS, and where it is not there: DHCP once more, as iPXE.
//! 4. The scripts, as far as they lead ([`super::script`]): kernel, initrds.
//! 5. What the kernel's arguments name as answer files.
//!
//! The script is asked for as a rehearsal, which changes nothing in a machine's life and is given no
//! secret; and nothing is ever reported.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::desk::{Ask, Has};
use super::dhcp::{Boot, Speaker};
use super::fetch::{self, Client, NoFile};
use super::script::{self, Machine, Script, Step, What};
use super::serve::{Caller, Told};
use super::storm::{Pace, Seen};
use super::tally::{Stage, Tally};
use super::tftp::{self, Clients, Get, Got};
use super::{Only, Options};
use crate::model::{Family, Firmware, Mac, Why};

/// Transfers by TFTP at once from one address. The server has a limit of 32 for each, and one that
/// asks for the size first may have two: its first one's ERROR 8 and its second request come in by
/// different ports, in either order.
const FROM_ONE: usize = 12;
/// Machines under way, whatever the rate: beyond that they begin late, and their times tell.
const CROWD: usize = 1 << 16;
/// Scripts that lead to scripts.
const CHAINED: usize = 8;
/// The longest script and CA that are read.
const TEXT: usize = script::LIMIT;
/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Why a machine has nothing to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoBoot {
    #[error("the DHCP server names nothing to boot: is it pilotlight, and its log clear?")]
    NoFile,
    #[error("the reply to iPXE names no script, but a loader again")]
    NoScript,
    #[error("scripts lead to scripts without end")]
    Endless,
}

impl Why for NoBoot {
    fn name(&self) -> &'static str {
        match self {
            NoBoot::NoFile => "no-file",
            NoBoot::NoScript => "loader-again",
            NoBoot::Endless => "endless",
        }
    }
}

impl Why for tftp::Failed {
    fn name(&self) -> &'static str {
        match self {
            tftp::Failed::NoAnswer => "no-answer",
            tftp::Failed::Silent(_) => "silent",
            tftp::Failed::Error { .. } => "error",
            tftp::Failed::Option(_) => "option",
            tftp::Failed::TooLong => "too-long",
            tftp::Failed::Socket(_) => "socket",
            tftp::Failed::Stopped => "stopped",
        }
    }
}

/// The address of a machine's own script, asked for by who only pretends to be it: nothing of its life
/// shall change by that, and no secret leave.
fn pretended(url: String) -> String {
    let own = url.split_once('?').filter(|(path, _)| path.contains("/boot/"));
    if own.is_some() { url + "&rehearse=1" } else { url }
}

/// A machine's failure has been counted; there is nothing more to say of it.
struct Counted;

/// What all machines share.
pub struct Hall {
    options: Options,
    from: Ipv4Addr,
    begin: Instant,
    tally: Mutex<Tally>,
    dhcp: mpsc::Sender<(Ask, Told, Duration)>,
    caller: Caller,
    tftp: Clients,
    places: Semaphore,
    tls: OnceCell<Result<TlsConnector, NoFile>>,
}

/// Lets the machines begin, and waits for them.
pub async fn all(hall: &Arc<Hall>, seen: &Arc<Seen>, stop: &AtomicBool) {
    let mut machines = JoinSet::new();
    let mut begun = 0u64;
    let size = hall.options.size;
    loop {
        let now = hall.begin.elapsed();
        let from = hall.options.pace.begins(begun, now);
        let over = size.is_over(begun, from);
        if stop.load(Ordering::Relaxed) {
            machines.abort_all();
            return;
        }
        if over && machines.is_empty() {
            return;
        }
        let full = match hall.options.pace {
            Pace::AtOnce(n) => machines.len() >= n,
            Pace::Rate(_) => machines.len() >= CROWD,
        };
        if !over && !full && from <= now {
            let number = size.machines.map_or(begun, |n| begun % n.max(1));
            let (hall, seen) = (hall.clone(), seen.clone());
            begun += 1;
            seen.begun.store(begun, Ordering::Relaxed);
            machines.spawn(async move { hall.machine(number, from, &seen).await });
            continue;
        }
        let pause = from.saturating_sub(now).clamp(Duration::from_millis(1), LOOK);
        let pause = if over || full { LOOK } else { pause };
        tokio::select! {
            Some(_) = machines.join_next() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Hall {
    /// Machines that speak from `from`, and whose times count from `begin`; exchanges of DHCP are
    /// asked for by `dhcp`.
    ///
    /// # Errors
    /// No thread for TFTP.
    pub fn new(
        options: &Options,
        from: Ipv4Addr,
        begin: Instant,
        dhcp: mpsc::Sender<(Ask, Told, Duration)>,
        caller: Caller,
    ) -> io::Result<Hall> {
        Ok(Hall {
            options: options.clone(),
            from,
            begin,
            tally: Mutex::default(),
            dhcp,
            caller,
            tftp: Clients::start()?,
            places: Semaphore::new(FROM_ONE),
            tls: OnceCell::new(),
        })
    }

    /// What was counted.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally())
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One machine, from the beginning to its end.
    async fn machine(&self, number: u64, from: Duration, seen: &Seen) {
        let mac = self.options.who.mac(number);
        let all = &self.options.firmwares;
        let firmware = all[number as usize % all.len()];
        let went = match self.options.only {
            Some(Only::Tftp) => self.one_file(number, from, firmware).await,
            _ => self.boot(mac, firmware, from).await,
        };
        let failed = went.is_err();
        self.tally().machine(failed);
        let count = if failed { &seen.failed } else { &seen.done };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a step that was to begin at `from`.
    fn count<T, E: Why>(
        &self,
        stage: Stage,
        from: Duration,
        bytes: impl Fn(&T) -> (u64, u64),
        result: Result<T, E>,
    ) -> Result<T, Counted> {
        let now = self.begin.elapsed();
        let mut tally = self.tally();
        match result {
            Ok(good) => {
                let (bytes, resent) = bytes(&good);
                tally.done(stage, from, now, bytes);
                tally.resent(stage, resent);
                Ok(good)
            }
            Err(why) => {
                tally.failed(stage, from, now, &why);
                Err(Counted)
            }
        }
    }

    async fn boot(
        &self,
        mac: Mac,
        firmware: &'static Firmware,
        from: Duration,
    ) -> Result<(), Counted> {
        let has = self.exchange(mac, firmware, Speaker::Firmware, Stage::Dhcp, from).await?;
        let leased = has.lease.map(|lease| lease.address);
        if leased.is_none() {
            self.tally()
                .note("an offer without an address, as a proxy makes it; the rest went from ours");
        }
        let source = match (self.options.source_per_machine, leased) {
            (true, Some(address)) => address,
            _ => self.from,
        };
        let machine = Machine { mac, address: leased.unwrap_or(self.from), firmware };
        let mut http = Client::new(source, self.options.server);
        let went = self.load(&machine, source, has.boot, &mut http).await;
        let now = self.begin.elapsed();
        if went.is_ok() {
            self.tally().done(Stage::Boot, from, now, 0);
        }
        self.tally().resent(Stage::Script, http.resent);
        went
    }

    async fn load(
        &self,
        machine: &Machine,
        source: Ipv4Addr,
        boot: Option<Boot>,
        http: &mut Client,
    ) -> Result<(), Counted> {
        let boot = boot.ok_or_else(|| self.lost(Stage::Loader, &NoBoot::NoFile))?;
        let uefi = machine.firmware.family == Family::Uefi;
        let beside = match boot.file.rsplit_once('/') {
            Some((folder, _)) => format!("{folder}/autoexec.ipxe"),
            None => "autoexec.ipxe".into(),
        };
        let text = if boot.file.contains("://") {
            self.fetch(Stage::Loader, http, &boot.file, None).await?;
            match uefi {
                true => http.get(&beside, Some(TEXT)).await.ok().map(|body| body.content),
                false => None,
            }
        } else {
            let loader = Get {
                // As OVMF and BIOS ROMs ask.
                blksize: Some(if uefi { 1468 } else { 1456 }),
                windowsize: uefi.then_some(4),
                probe: true,
                ..self.file(&boot, source, &boot.file)
            };
            self.transfer(Stage::Tftp, loader, self.begin.elapsed()).await?;
            // As iPXE does; that it is not there is no failure.
            let script =
                Get { blksize: Some(1432), keep: true, ..self.file(&boot, source, &beside) };
            match uefi {
                true => {
                    let _place = self.place().await;
                    self.tftp(script).await.ok().map(|got| got.content)
                }
                false => None,
            }
        };
        let text = match text {
            Some(text) => text,
            None => {
                let now = self.begin.elapsed();
                let Machine { mac, firmware, .. } = *machine;
                let has = self.exchange(mac, firmware, Speaker::Ipxe, Stage::IpxeDhcp, now).await?;
                let url = has.boot.map(|b| b.file).filter(|f| f.contains("://"));
                let url = url.ok_or_else(|| self.lost(Stage::Script, &NoBoot::NoScript))?;
                self.fetch(Stage::Script, http, &url, Some(TEXT)).await?
            }
        };
        self.play(machine, http, text).await
    }

    /// Through the scripts, to the end.
    async fn play(
        &self,
        machine: &Machine,
        http: &mut Client,
        text: Vec<u8>,
    ) -> Result<(), Counted> {
        let mut script = self.read(&text)?;
        let mut chained = 0;
        loop {
            match script.step(machine, true) {
                Step::Fetch(What::Script, url) => {
                    chained += 1;
                    if chained > CHAINED {
                        return Err(self.lost(Stage::Script, &NoBoot::Endless));
                    }
                    let url = pretended(url);
                    let text = self.fetch(Stage::Script, http, &url, Some(TEXT)).await?;
                    script = self.read(&text)?;
                }
                Step::Fetch(What::Kernel, url) => {
                    self.fetch(Stage::Kernel, http, &url, None).await?;
                }
                Step::Fetch(What::Initrd, url) => {
                    self.fetch(Stage::Initrd, http, &url, None).await?;
                }
                Step::Boots(args) => {
                    for url in script::answers(&args) {
                        self.fetch(Stage::Answer, http, &url, None).await?;
                    }
                    return Ok(());
                }
                Step::Ends(end) => {
                    self.tally().note(&end.to_string());
                    return Ok(());
                }
                Step::Stuck(why) => return Err(self.lost(Stage::Script, &why)),
            }
        }
    }

    fn read(&self, text: &[u8]) -> Result<Script, Counted> {
        Script::new(text).map_err(|why| self.lost(Stage::Script, &why))
    }

    /// Counts a machine that goes no further.
    fn lost(&self, stage: Stage, why: &dyn Why) -> Counted {
        let now = self.begin.elapsed();
        self.tally().failed(stage, now, now, why);
        Counted
    }

    async fn exchange(
        &self,
        mac: Mac,
        firmware: &'static Firmware,
        speaker: Speaker,
        stage: Stage,
        from: Duration,
    ) -> Result<Has, Counted> {
        let (told, answer) = oneshot::channel();
        let ask = Ask { mac, firmware, speaker, boots: true };
        if self.dhcp.send((ask, told, from)).is_ok() {
            self.caller.call();
        }
        match answer.await {
            Ok(result) => self.count(stage, from, |_| (0, 0), result),
            // The thread has ended, and says why itself.
            Err(_) => Err(Counted),
        }
    }

    async fn fetch(
        &self,
        stage: Stage,
        http: &mut Client,
        url: &str,
        keep: Option<usize>,
    ) -> Result<Vec<u8>, Counted> {
        let from = self.begin.elapsed();
        let got = match url.starts_with("https://") {
            false => http.get(url, keep).await,
            true => match self.tls.get_or_init(|| self.roots()).await {
                Ok(tls) => {
                    http.trust(tls.clone());
                    http.get(url, keep).await
                }
                Err(why) => Err(why.clone()),
            },
        };
        let body = self.count(stage, from, |b: &fetch::Body| (b.bytes, 0), got)?;
        Ok(body.content)
    }

    /// The root that is given, else the one that the server offers: a machine is told its
    /// fingerprint by DHCP, which is no better.
    async fn roots(&self) -> Result<TlsConnector, NoFile> {
        if let Some(pem) = &self.options.ca {
            return fetch::trusting(pem);
        }
        let url = format!("http://{}/ca.pem", self.options.server);
        let body = Client::new(self.from, self.options.server).get(&url, Some(TEXT)).await?;
        fetch::trusting(&body.content)
    }

    fn file(&self, boot: &Boot, source: Ipv4Addr, name: &str) -> Get {
        let server = match boot.server.is_unspecified() {
            true => self.options.server,
            false => boot.server,
        };
        Get::new(SocketAddrV4::new(server, 69), source, name)
    }

    /// With `--only tftp`: one transfer, from an address of its own where there shall be one.
    async fn one_file(
        &self,
        number: u64,
        from: Duration,
        firmware: &Firmware,
    ) -> Result<(), Counted> {
        let source = match self.options.source_per_machine {
            true => Ipv4Addr::from(u32::from(self.from).wrapping_add(number as u32)),
            false => self.from,
        };
        let name = self.options.file.as_deref().unwrap_or(firmware.loader);
        let boot = Boot { server: self.options.server, file: name.into() };
        let Options { blksize, windowsize, .. } = self.options;
        let get = Get { blksize, windowsize, ..self.file(&boot, source, name) };
        self.transfer(Stage::Tftp, get, from).await.map(drop)
    }

    /// One that was to begin at `from`. The wait for a place is ours, not the server's.
    async fn transfer(&self, stage: Stage, get: Get, from: Duration) -> Result<Got, Counted> {
        let place = self.place().await;
        let from = if place.is_some() { self.begin.elapsed() } else { from };
        let result = self.tftp(get).await;
        drop(place);
        self.count(stage, from, |got: &Got| (got.bytes, got.resent), result)
    }

    /// Whoever shares an address waits for one of its places.
    async fn place(&self) -> Option<SemaphorePermit<'_>> {
        match self.options.source_per_machine {
            true => None,
            // Closed never.
            false => self.places.acquire().await.ok(),
        }
    }

    async fn tftp(&self, get: Get) -> Result<Got, tftp::Failed> {
        let (told, answer) = oneshot::channel();
        self.tftp.get(get, move |result| drop(told.send(result)));
        answer.await.unwrap_or(Err(tftp::Failed::Stopped))
    }
}
