//! The dashboard in a real Chromium: what moves, what is clicked, what stays text, and who gets by
//! without a mouse, colours or scripts.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chromiumoxide::browser::{Browser, BrowserConfig};
use chromiumoxide::cdp::browser_protocol::emulation::{
    MediaFeature, SetDeviceMetricsOverrideParams, SetScriptExecutionDisabledParams,
};
use chromiumoxide::cdp::browser_protocol::log::{EventEntryAdded, LogEntryLevel};
use chromiumoxide::cdp::browser_protocol::page::{
    CaptureScreenshotFormat, EventJavascriptDialogOpening,
};
use chromiumoxide::cdp::js_protocol::runtime::{EventConsoleApiCalled, EventExceptionThrown};
use chromiumoxide::page::ScreenshotParams;
use chromiumoxide::{Element, Page};
use futures_util::StreamExt;
use jiff::{SignedDuration, Timestamp};
use pilotlight::config::Config;
use pilotlight::http::auth::Auth;
use pilotlight::http::{Door, Running, Switching, Web, start};
use pilotlight::ledger::{Boot, Ledger, Script};
use pilotlight::model::lifecycle::{Begin, Word};
use pilotlight::model::profile::{self, Kind, Source};
use pilotlight::model::{
    Event, Facts, LifeEvent, Mac, Machine, Match, Power, Profile, Stage, State, Transfer, token,
};
use pilotlight::power::{Action, Said, Trouble};
use pilotlight::store::Memory;
use pilotlight::tls::Tls;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Map;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// For whatever shall happen on a page: a machine that runs many tests at once is slow.
const PATIENCE: Duration = Duration::from_secs(20);

fn chromium() -> Option<PathBuf> {
    let there = |name: &&&str| Path::new("/usr/bin").join(name).exists();
    let found = ["chromium", "chromium-browser", "google-chrome"].iter().find(there);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no chromium here: scripts/deps test brings it");
        eprintln!("left out: no chromium here (scripts/deps test brings it)");
    }
    found.map(|name| Path::new("/usr/bin").join(name))
}

fn profile(name: &str, kind: Kind) -> Profile {
    Profile {
        name: name.into(),
        title: name.into(),
        menu: false,
        boot: profile::Boot::linux(
            Source::Url("http://127.0.0.1/linux".into()),
            Vec::new(),
            "quiet",
        ),
        unready: None,
        uefi: None,
        release: None,
        settings: None,
        memory: None,
        answers: Vec::new(),
        console: None,
        vars: Map::new(),
        secrets: Default::default(),
        kind,
        timeout: None,
        attempts: None,
        plain_answers: false,
        at: "pilotlight.toml:1".into(),
    }
}

fn machine(name: &str, mac: Mac, profile: Option<&str>) -> Machine {
    Machine {
        settings: Default::default(),
        name: name.into(),
        matches: Match { mac: Some(mac.into()), ..Match::default() },
        profile: profile.map(Into::into),
        address: None,
        hostname: None,
        loader: None,
        vars: Map::new(),
        secrets: Default::default(),
        power: Default::default(),
    }
}

/// It can also be switched off.
fn switched(machine: Machine) -> Machine {
    Machine { power: Power::Command(vec!["outlet".into()]), ..machine }
}

fn mac(n: u32) -> Mac {
    let b = n.to_be_bytes();
    Mac([0x52, 0x54, b[0], b[1], b[2], b[3]])
}

fn id(n: u32) -> String {
    mac(n).to_string().replace(':', "")
}

/// A server whose admin door is open on loopback.
struct Server {
    admin: String,
    ledger: Arc<Ledger>,
    running: Running,
}

impl Server {
    fn new(machines: Vec<Machine>) -> Server {
        let done = |_, _| -> Switching { Box::pin(async { Ok(Said::On) }) };
        Server::open(machines, |web| web.power = Some(Box::new(done)))
    }

    fn open(machines: Vec<Machine>, with: impl FnOnce(&mut Web)) -> Server {
        let mut config = Config {
            profiles: vec![
                profile("debian-13", Kind::Install),
                profile("rocky-10", Kind::Install),
                profile("rescue", Kind::Live),
            ],
            machines: machines.into(),
            ..Config::default()
        };
        config.dhcp.mode = pilotlight::config::Mode::Off;
        config.life.rescue = Some("rescue".into());
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (boot, admin) = (bind(), bind());
        let port = admin.local_addr().unwrap().port();
        let door =
            Door { http_port: boot.local_addr().unwrap().port(), https_port: 443, tls: false };
        let ledger = Arc::new(Ledger::new());
        let config = Arc::new(ArcSwap::from_pointee(config));
        let leases = Box::new(|| serde_json::json!([]));
        let mut web = Web::new(config, ledger.clone(), door, None, leases);
        with(&mut web);
        let scheme = if web.admin_tls.is_some() { "https" } else { "http" };
        let running = start(web, vec![(boot, None)], Some(admin)).unwrap();
        Server { admin: format!("{scheme}://127.0.0.1:{port}"), ledger, running }
    }

    async fn step(&self, n: u32, event: LifeEvent) {
        self.ledger.step(mac(n), event, 3, Timestamp::now()).await.unwrap();
    }

    /// Brings a machine into a state, on the ways that real ones take.
    async fn bring(&self, n: u32, state: State, now: Timestamp) {
        let step = async |event| drop(self.ledger.step(mac(n), event, 1, now).await.unwrap());
        let report = |word| LifeEvent::Report { report: format!("r{n}"), word };
        let assign = || LifeEvent::Assign { name: None, profile: "debian-13".into() };
        match state {
            State::Discovered => step(LifeEvent::Discover).await,
            State::Assigned => step(assign()).await,
            State::Installing => {
                step(LifeEvent::Reinstall { profile: None }).await;
                step(begin(n)).await;
            }
            State::Installed => {
                step(LifeEvent::Reinstall { profile: None }).await;
                step(begin(n)).await;
                step(report(Word::Done)).await;
            }
            State::Failed => {
                step(begin(n)).await;
                let why = "the disk /dev/sda has unrecoverable errors";
                step(report(Word::Failed(why.into()))).await;
            }
            State::Local => step(LifeEvent::Local).await,
            State::Rescue => step(LifeEvent::Rescue { profile: "rescue".into() }).await,
        }
    }
}

fn begin(n: u32) -> LifeEvent {
    LifeEvent::Begin(Box::new(Begin {
        profile: "debian-13".into(),
        boot: format!("b{n}"),
        report: format!("r{n}"),
        address: None,
        facts: Facts::of(mac(n)),
        timeout: Duration::from_secs(3600),
        attempts: 3,
        restarted: false,
        chosen: false,
    }))
}

/// A browser, and what its pages complained of.
struct Eyes {
    browser: Browser,
    wrong: Arc<Mutex<Vec<String>>>,
    handler: tokio::task::JoinHandle<()>,
    _home: TempDir,
}

impl Eyes {
    async fn open(chromium: PathBuf) -> Eyes {
        Eyes::trusting(chromium, None).await
    }

    /// With the root of a CA that it trusts, in PEM.
    async fn trusting(chromium: PathBuf, root: Option<&str>) -> Eyes {
        let home = tempfile::tempdir().unwrap();
        let mut config = BrowserConfig::builder();
        if let Some(root) = root {
            let root = CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
            let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
            let key = STANDARD.encode(Sha256::digest(root.tbs_certificate.subject_pki.raw));
            config = config.arg(("ignore-certificate-errors-spki-list", key.as_str()));
        }
        let config = config
            .chrome_executable(chromium)
            .user_data_dir(home.path())
            .new_headless_mode()
            .no_sandbox()
            .viewport(None)
            .window_size(1440, 900)
            .launch_timeout(Duration::from_secs(60))
            .args([
                "disable-gpu",
                "disable-background-networking",
                "disable-component-update",
                "disable-default-apps",
                "disable-sync",
                "no-first-run",
                "no-default-browser-check",
                "metrics-recording-only",
            ])
            // Nothing but loopback has an address, and there is no way around.
            .arg(("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))
            .arg("no-proxy-server")
            .build()
            .unwrap();
        let (browser, mut handler) = Browser::launch(config).await.unwrap();
        let handler = tokio::spawn(async move { while handler.next().await.is_some() {} });
        Eyes { browser, wrong: Arc::default(), handler, _home: home }
    }

    /// A page that says what goes wrong on it.
    async fn page(&self, url: &str) -> Page {
        let page = self.browser.new_page("about:blank").await.unwrap();
        page.enable_log().await.unwrap();
        page.enable_runtime().await.unwrap();
        self.listen::<EventEntryAdded>(&page, |e| {
            (e.entry.level != LogEntryLevel::Verbose).then(|| e.entry.text.clone())
        })
        .await;
        self.listen::<EventExceptionThrown>(&page, |e| Some(format!("{:?}", e.exception_details)))
            .await;
        self.listen::<EventConsoleApiCalled>(&page, |e| {
            Some(format!("{:?} {:?}", e.r#type, e.args))
        })
        .await;
        self.listen::<EventJavascriptDialogOpening>(&page, |e| {
            Some(format!("dialog {}", e.message))
        })
        .await;
        page.goto(url).await.unwrap();
        page
    }

    async fn listen<T>(&self, page: &Page, said: impl Fn(&T) -> Option<String> + Send + 'static)
    where
        T: chromiumoxide::cdp::IntoEventKind + Unpin + Send + Sync + 'static,
    {
        let mut events = page.event_listener::<T>().await.unwrap();
        let wrong = self.wrong.clone();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                wrong.lock().unwrap().extend(said(&event));
            }
        });
    }

    /// Nothing went wrong, and the browser ends.
    async fn close(mut self, server: Server) {
        let wrong = std::mem::take(&mut *self.wrong.lock().unwrap());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // Its streams end with the server, not the other way round.
        let mut running = server.running;
        let began = Instant::now();
        running.stop().await;
        assert!(began.elapsed() < Duration::from_secs(5), "the server waits for its streams");
        self.browser.close().await.unwrap();
        self.browser.wait().await.unwrap();
        self.handler.abort();
    }
}

async fn is(page: &Page, expression: &str) -> bool {
    // While a page is exchanged for another there is nothing to ask.
    match page.evaluate(format!("!!({expression})")).await {
        Ok(result) => result.into_value().unwrap_or(false),
        Err(_) => false,
    }
}

async fn eventually(page: &Page, expression: &str) {
    let until = Instant::now() + PATIENCE;
    while !is(page, expression).await {
        if Instant::now() > until {
            let html = page.content().await.unwrap_or_default();
            panic!("never: {expression}\n{}", html.chars().take(6000).collect::<String>());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn value<T: serde::de::DeserializeOwned>(page: &Page, expression: &str) -> T {
    page.evaluate(expression).await.unwrap().into_value().unwrap()
}

async fn find(page: &Page, selector: &str) -> Element {
    eventually(page, &format!("document.querySelector({selector:?})")).await;
    page.find_element(selector).await.unwrap()
}

/// Without any script of the page, which a click of chromiumoxide's would wait for.
async fn press(page: &Page, selector: &str, key: &str) {
    let element = find(page, selector).await;
    page.evaluate(format!("document.querySelector({selector:?}).focus()")).await.unwrap();
    element.press_key(key).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tile_moves_without_a_reload_and_a_click_reinstalls() {
    let Some(chromium) = chromium() else { return };
    let machines = (1..4).map(|n| machine(&format!("web{n}"), mac(n), Some("debian-13"))).collect();
    let server = Server::new(machines);
    let eyes = Eyes::open(chromium).await;
    let page = eyes.page(&server.admin).await;
    eventually(&page, "document.querySelectorAll('#hall li').length == 3").await;
    page.evaluate("window.marker = 'here'").await.unwrap();

    // A state changes: the tile, the count and the list of installations follow.
    let tile =
        |n, class: &str| format!("document.querySelector('#m{} a').className == '{class}'", id(n));
    eventually(&page, &tile(1, "a")).await;
    page.evaluate(format!("document.querySelector('#m{} a').focus()", id(1))).await.unwrap();
    server.step(1, begin(1)).await;
    eventually(&page, &tile(1, "i")).await;
    eventually(&page, "document.querySelector('#c-installing b').textContent == '1'").await;
    eventually(&page, &format!("document.querySelector('#i{}')", id(1))).await;
    assert!(
        is(&page, &format!("document.activeElement.closest('#m{}')", id(1))).await,
        "the focus stays"
    );
    server.step(1, LifeEvent::Report { report: "r1".into(), word: Word::Done }).await;
    eventually(&page, &tile(1, "o")).await;

    // One that was never heard of comes, in its place, and goes.
    server.step(9, LifeEvent::Discover).await;
    eventually(
        &page,
        &format!("document.querySelector('#hall li:first-child').id == 'm{}'", id(9)),
    )
    .await;
    server.step(9, LifeEvent::Forget).await;
    server.ledger.alarm(
        "other-dhcp-server",
        "192.0.2.9",
        "192.0.2.9 answers, too".into(),
        Timestamp::now(),
    );
    eventually(
        &page,
        "document.querySelector('#notices').textContent.includes('192.0.2.9 answers')",
    )
    .await;
    assert_eq!(value::<String>(&page, "window.marker").await, "here", "it was never loaded again");

    // A page of some of the machines: they come and go with their states.
    page.goto(format!("{}/?state=failed", server.admin)).await.unwrap();
    eventually(&page, "document.querySelectorAll('#hall li').length == 0").await;
    server.step(2, begin(2)).await;
    let why = "no disk";
    for _ in 0..3 {
        server
            .ledger
            .step(
                mac(2),
                LifeEvent::Report { report: "r2".into(), word: Word::Failed(why.into()) },
                1,
                Timestamp::now(),
            )
            .await
            .unwrap();
    }
    eventually(&page, &tile(2, "f")).await;

    // By clicks alone: the machine's page, the question, and back to the page.
    page.goto(&*server.admin).await.unwrap();
    find(&page, &format!("#m{} a", id(1))).await.click().await.unwrap();
    find(&page, "a[href$='/reinstall']").await.click().await.unwrap();
    eventually(&page, "document.querySelector('h1').textContent == 'Reinstall web1?'").await;
    assert_eq!(server.ledger.life(mac(1)).unwrap().state, State::Installed, "only asked");
    find(&page, "button.primary").await.click().await.unwrap();
    eventually(&page, "document.querySelector('#state b').textContent == 'Assigned'").await;
    assert_eq!(server.ledger.life(mac(1)).unwrap().state, State::Assigned);

    // Its page moves, too.
    page.evaluate("window.marker = 'there'").await.unwrap();
    server.step(1, begin(1)).await;
    server.ledger.record(
        mac(1),
        Event::new(Stage::Kernel, "GET", "debian/linux (8.22 MB)"),
        Timestamp::now(),
    );
    eventually(&page, "document.querySelector('#state b').textContent == 'Installing'").await;
    eventually(&page, "document.querySelector('#timeline').textContent.includes('debian/linux')")
        .await;
    assert_eq!(value::<String>(&page, "window.marker").await, "there");
    eyes.close(server).await;
}

/// Names that want to be more than text.
const HOSTILE: [&str; 6] = [
    "<script>alert('name')</script>",
    "\"><img src=x onerror=alert(1)>",
    "\x1b[2J\x1b[31mred\x07",
    "line\r\nbreak\u{2028}and {{ page.csrf }} {% raw %}",
    "\u{202e}txt.exe\u{2066}\u{200f}<b>",
    "' autofocus onfocus=alert(1) x='<!--tiles--></template></hx-partial>",
];

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stay_text() {
    let Some(chromium) = chromium() else { return };
    let long = "x".repeat(10_000);
    let names: Vec<&str> = HOSTILE.into_iter().chain([long.as_str()]).collect();
    let all = 1..=u32::try_from(names.len()).unwrap();
    let machines = all.clone().zip(&names).map(|(n, name)| machine(name, mac(n), None)).collect();
    let server = Server::new(machines);
    let eyes = Eyes::open(chromium).await;
    let page = eyes.page(&server.admin).await;
    let tiles =
        format!("document.querySelectorAll('#hall > li > a > b').length == {}", names.len());
    eventually(&page, &tiles).await;

    // By the stream, too: facts, entries, failures and alarms, each with all of the names.
    let now = Timestamp::now();
    for (n, name) in all.clone().zip(&names) {
        let told = || Some(name.to_string());
        let facts = Facts {
            serial: told(),
            product: told(),
            manufacturer: told(),
            asset: told(),
            version: told(),
            ..Facts::of(mac(n))
        };
        server.ledger.learn(facts, now);
        server.step(n, LifeEvent::Assign { name: told(), profile: "debian-13".into() }).await;
        server.step(n, begin(n)).await;
        server.ledger.record(mac(n), Event::new(Stage::Kernel, "GET", *name), now);
        let transfer = Transfer { name: name.to_string(), sent: 1, total: 2, millis: 5 };
        server.ledger.record(mac(n), Event::new(Stage::System, "cut", *name).with(transfer), now);
        let word = Word::Failed(name.to_string());
        server.step(n, LifeEvent::Report { report: format!("r{n}"), word }).await;
        server.step(n, begin(n)).await;
        server.ledger.alarm("hostile", name, name.to_string(), now);
    }
    let installing = names.len();
    eventually(&page, &format!("document.querySelectorAll('#installs li').length == {installing}"))
        .await;
    eventually(&page, "document.querySelectorAll('#notices li').length == 3").await;
    eventually(&page, &tiles).await;
    // Nothing was made of them: no element and no attribute that is not ours, and no control
    // character in any text.
    let sound = "[...document.querySelectorAll('main img, main script, main b b, main template, [onerror], [onfocus], [autofocus]')].length == 0
        && !/[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069\\u200f]/.test(document.body.textContent)
        && document.documentElement.scrollWidth <= innerWidth";
    assert!(is(&page, sound).await, "{}", page.content().await.unwrap());
    let text: String = value(&page, "document.querySelector('main').textContent").await;
    assert!(text.contains("<script>alert('name')</script>") && text.contains("{{ page.csrf }}"));

    for n in all {
        for path in ["", "/script", "/reinstall", "/assign", "/on", "/boots"] {
            if path == "/boots" {
                page.goto(format!("{}/machines/{}", server.admin, id(n))).await.unwrap();
                find(&page, ".boots a").await.click().await.unwrap();
                eventually(&page, "location.pathname.includes('/boots/')").await;
                assert!(is(&page, sound).await, "{n}{path}: {}", page.content().await.unwrap());
                continue;
            }
            page.goto(format!("{}/machines/{}{path}", server.admin, id(n))).await.unwrap();
            eventually(&page, "document.querySelector('h1')").await;
            assert!(is(&page, sound).await, "{n}{path}: {}", page.content().await.unwrap());
        }
    }
    for path in [
        "alarms",
        "leases",
        "mirrors",
        "?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "?q=%22%3E%3Cimg+src%3Dx+onerror%3Dalert(1)%3E",
    ] {
        page.goto(format!("{}/{path}", server.admin)).await.unwrap();
        eventually(&page, "document.querySelector('main')").await;
        assert!(is(&page, sound).await, "{path}: {}", page.content().await.unwrap());
    }
    eyes.close(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_script_it_is_read_and_used() {
    let Some(chromium) = chromium() else { return };
    let server = Server::new(vec![machine("web1", mac(1), Some("debian-13"))]);
    let eyes = Eyes::open(chromium).await;
    let page = eyes.page("about:blank").await;
    page.execute(SetScriptExecutionDisabledParams::new(true)).await.unwrap();
    page.goto(&*server.admin).await.unwrap();
    assert!(is(&page, "typeof htmx == 'undefined'").await);
    press(&page, &format!("#m{} a", id(1)), "Enter").await;
    press(&page, "a[href$='/assign']", "Enter").await;
    press(&page, "select[name=profile]", "ArrowDown").await;
    press(&page, "button.primary", "Enter").await;
    eventually(&page, "document.querySelector('#state b').textContent == 'Assigned'").await;
    let life = server.ledger.life(mac(1)).unwrap();
    assert_eq!((life.state, life.profile.as_deref()), (State::Assigned, Some("rocky-10")));
    press(&page, "form[action$='/local'] button", "Enter").await;
    eventually(&page, "document.querySelector('#state b').textContent == 'Local'").await;
    // What is found by a search and by a count, too.
    page.goto(format!("{}/?q=WEB1", server.admin)).await.unwrap();
    press(&page, "#c-local", "Enter").await;
    eventually(&page, "document.querySelectorAll('#hall li').length == 1 && location.search == '?state=local&q=web1'").await;
    eyes.close(server).await;
}

/// What axe and its like look for first, on whatever page is open.
const BASICS: &str = "(() => {
    const wrong = [], all = s => [...document.querySelectorAll(s)];
    if (document.documentElement.lang != 'en') wrong.push('lang');
    if (!document.title.endsWith(' · pilotlight')) wrong.push('title');
    for (const one of ['main', 'h1', 'header', 'footer']) if (all(one).length != 1) wrong.push(one);
    let level = 0;
    for (const h of all('h1,h2,h3,h4')) { const n = +h.tagName[1]; if (n > level + 1) wrong.push('order ' + h.textContent); level = n; }
    const name = e => e.getAttribute('aria-label') || (e.labels?.length && e.labels[0].textContent) || e.textContent.trim()
        || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent;
    for (const e of all('a,button,input:not([type=hidden]),select,nav,section,progress,meter,table th'))
        if (!name(e)) wrong.push('no name: ' + e.outerHTML);
    for (const e of all('img')) if (!e.hasAttribute('alt')) wrong.push('alt');
    for (const e of all('svg')) if (e.getAttribute('aria-hidden') != 'true') wrong.push('svg');
    const ids = all('[id]').map(e => e.id);
    if (new Set(ids).size != ids.length) wrong.push('an id twice');
    for (const e of all('nav a, button, .button, .hall a')) {
        const box = e.getBoundingClientRect();
        if (box.width < 20 || box.height < 20) wrong.push('small: ' + e.outerHTML);
    }
    // WCAG 2 contrast of every text to the nearest ground that is not transparent.
    const parse = c => { const canvas = parse.canvas ??= new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const seen = new Set();
    for (const e of all('body *')) {
        if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) && !getComputedStyle(e, '::before').content.startsWith('\"')) continue;
        if (e.closest('.hidden,.skip,option') || !e.checkVisibility()) continue;
        let ground = e, color;
        while (ground && (color = parse(getComputedStyle(ground).backgroundColor))[3] < 250) ground = ground.parentElement;
        const ink = parse(getComputedStyle(e).color), [a, b] = [light(ink), light(ground ? color : [255, 255, 255])];
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const key = e.className + e.tagName;
        if (ratio < 4.5 && !seen.has(key)) { seen.add(key); wrong.push('contrast ' + ratio.toFixed(2) + ': ' + e.outerHTML.slice(0, 120)); }
    }
    return wrong;
})()";

async fn dark(page: &Page, dark: bool) {
    let value = if dark { "dark" } else { "light" };
    let feature = MediaFeature { name: "prefers-color-scheme".into(), value: value.into() };
    page.emulate_media_features(vec![feature]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_keyboard_and_with_a_screen_reader() {
    let Some(chromium) = chromium() else { return };
    let machines = (1..=State::ALL.len() as u32)
        .map(|n| switched(machine(&format!("web{n}"), mac(n), Some("debian-13"))));
    let server = Server::new(machines.collect());
    for (n, state) in (1..).zip(State::ALL) {
        server.bring(n, state, Timestamp::now()).await;
    }
    boot(&server, 3, Timestamp::now(), false).await;
    server.ledger.alarm(
        "other-dhcp-server",
        "192.0.2.9",
        "192.0.2.9 answers, too".into(),
        Timestamp::now(),
    );
    let eyes = Eyes::open(chromium).await;
    let page = eyes.page(&server.admin).await;
    let failed = State::ALL.iter().position(|s| *s == State::Failed).unwrap() as u32 + 1;
    let paths = ["/", "/leases", "/mirrors", "/alarms", "/login"].map(str::to_string).into_iter();
    let of = |n: u32, path: &str| format!("/machines/{}{path}", id(n));
    let paths = paths.chain([
        of(3, ""),
        of(failed, ""),
        of(3, "/script"),
        of(3, "/reinstall"),
        of(3, "/assign"),
        of(3, "/rescue"),
        of(3, "/forget"),
        of(3, "/off"),
        of(3, &format!("/boots/{}", server.ledger.boots(mac(3))[0].began.as_millisecond())),
    ]);
    for path in paths {
        for night in [false, true] {
            dark(&page, night).await;
            page.goto(format!("{}{path}", server.admin)).await.unwrap();
            eventually(&page, "document.readyState == 'complete'").await;
            let wrong: Vec<String> = value(&page, BASICS).await;
            assert!(wrong.is_empty(), "{path}, dark: {night}\n{}", wrong.join("\n"));
        }
    }

    // Tab reaches the content by its short cut, then every tile; Enter opens it; Tab reaches each
    // button there.
    page.goto(&*server.admin).await.unwrap();
    let body = find(&page, "body").await;
    let tab = async || {
        body.press_key("Tab").await.unwrap();
    };
    let at = async || {
        value::<String>(&page, "document.activeElement.className + ' ' + (document.activeElement.closest('li')?.id ?? document.activeElement.textContent)").await
    };
    tab().await;
    assert_eq!(at().await, "skip To the content");
    body.press_key("Enter").await.unwrap();
    let mut reached = Vec::new();
    while reached.len() < 40 && !reached.iter().any(|r: &String| r.ends_with(&id(7))) {
        tab().await;
        reached.push(at().await);
    }
    for n in 1..=7 {
        assert!(reached.iter().any(|r| r.ends_with(&id(n))), "{n} of {reached:?}");
    }
    assert!(
        is(&page, "getComputedStyle(document.activeElement).outlineStyle != 'none'").await,
        "it shows where it is"
    );
    body.press_key("Enter").await.unwrap();
    eventually(&page, "document.querySelector('h1').textContent == 'web7'").await;
    let body = find(&page, "body").await;
    let mut reached = Vec::new();
    for _ in 0..30 {
        body.press_key("Tab").await.unwrap();
        reached.push(value::<String>(&page, "document.activeElement.textContent").await);
    }
    let buttons = ["Assign …", "Reinstall …", "Boot its own disk", "Rescue …", "Switch on"];
    for button in buttons.into_iter().chain(["Switch off …", "Off and on …", "Script", "Forget …"])
    {
        assert!(reached.iter().any(|r| r == button), "{button} of {reached:?}");
    }
    eyes.close(server).await;
}

/// A machine gets its script, which boots a profile.
fn scripted(server: &Server, facts: Facts, at: Timestamp) {
    let boot = Some(Boot::new(token_of(facts.mac, at), facts.clone(), "debian-13", None, true, at));
    let detail = format!("/boot/{}.ipxe: boots profile debian-13", facts.mac.hexhyp());
    let event = Event::new(Stage::Script, "GET", detail);
    server.ledger.booted(Script { facts, name: None, boot, event }, at);
}

fn token_of(mac: Mac, at: Timestamp) -> String {
    format!("{mac}{at}")
}

/// The same at a start of its own, and its installation begins.
async fn begins(server: &Server, n: u32, at: Timestamp) {
    server.ledger.record(mac(n), Event::new(Stage::Firmware, "DHCPDISCOVER", "uefi-x64"), at);
    let LifeEvent::Begin(mut begin) = begin(n) else { unreachable!() };
    begin.boot = token::key(&token_of(mac(n), at));
    server.ledger.step(mac(n), LifeEvent::Begin(begin), 3, at).await.unwrap();
    scripted(server, Facts::of(mac(n)), at);
}

/// A profile that was installed once before, so that there is an estimate.
async fn installed_before(server: &Server, n: u32, now: Timestamp) {
    let ago = |s| now - SignedDuration::from_secs(s);
    server.step(n, LifeEvent::Reinstall { profile: None }).await;
    begins(server, n, ago(400)).await;
    let whole = 1_000_000_000;
    let file = Transfer { name: "debian/all".into(), sent: whole, total: whole, millis: 90_000 };
    server.ledger.sent(mac(n), Stage::System, file, None, ago(250));
    let done = LifeEvent::Report { report: format!("r{n}"), word: Word::Done };
    server.ledger.step(mac(n), done, 3, ago(200)).await.unwrap();
    // It is noted by a thread of its own, which whoever asks for boots waits for.
    let ledger = server.ledger.clone();
    tokio::task::spawn_blocking(move || ledger.boots(mac(n))).await.unwrap();
}

/// Somewhere in its installation, with a file on its way.
fn under_way(server: &Server, n: u32, now: Timestamp) -> Arc<AtomicU64> {
    let gone = n.wrapping_mul(2_654_435_761) % 190;
    let at = now - SignedDuration::from_secs(gone.into());
    scripted(server, Facts::of(mac(n)), at);
    let sent = Arc::new(AtomicU64::new(0));
    server.ledger.sending(mac(n), &sent, at);
    sent.store(u64::from(gone) * 4_700_000, Ordering::Relaxed);
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_where_it_is_looked_for() {
    let Some(chromium) = chromium() else { return };
    let machines = (1..3).map(|n| machine(&format!("web{n}"), mac(n), Some("debian-13"))).collect();
    let server = Server::new(machines);
    let now = Timestamp::now();
    installed_before(&server, 1, now).await;
    // Half of the time has gone, and a file is on its way: a tenth of all.
    begins(&server, 2, now - SignedDuration::from_secs(100)).await;
    let sent = Arc::new(AtomicU64::new(0));
    server.ledger.sending(mac(2), &sent, now - SignedDuration::from_secs(2));
    sent.store(100_000_000, Ordering::Relaxed);

    let eyes = Eyes::open(chromium).await;
    let page = eyes.page(&server.admin).await;
    let bar = |place: &str| format!("document.querySelector('{place} progress')");
    let (tile, listed) = (format!("#m{}", id(2)), format!("#i{}", id(2)));
    for place in [&tile, &listed] {
        eventually(&page, &format!("{0} && {0}.value >= 30 && {0}.value < 40", bar(place))).await;
    }
    let says = |place: &str, what: &str| {
        format!("/{what}/.test(document.querySelector('{place}').textContent)")
    };
    let row = format!("{listed} .figures");
    eventually(&page, &says(&row, "^3\\d % · [\\d.]+ MB\\/s2 min( \\d+ s)? left$")).await;
    eventually(&page, &format!("!{}", bar(&format!("#m{}", id(1))))).await;
    page.evaluate("window.marker = 'here'").await.unwrap();
    // More has left, and nothing else has happened: the pages come to see it by themselves.
    sent.store(900_000_000, Ordering::Relaxed);
    for place in [&tile, &listed] {
        eventually(&page, &format!("{0}.value >= 70 && {0}.value < 80", bar(place))).await;
    }
    assert_eq!(value::<String>(&page, "window.marker").await, "here");

    page.goto(format!("{}/machines/web2", server.admin)).await.unwrap();
    eventually(&page, &format!("{0}.value >= 70 && {0}.value < 80", bar("#state"))).await;
    eventually(&page, &says("#state", "7\\d % · 900 MB · [\\d.]+ [kM]B\\/s · .* left")).await;
    // The packages of an installation are one row, however many there are.
    let file = |name: &str| Transfer { name: name.into(), sent: 50, total: 50, millis: 1 };
    for n in 1..=3 {
        let name = format!("debian/pool/p{n}.deb");
        server.ledger.sent(mac(2), Stage::System, file(&name), None, Timestamp::now());
        if n > 1 {
            let row = says("#timeline", &format!("package tree: {n} files"));
            eventually(&page, &row).await;
        }
    }
    let rows = "[...document.querySelectorAll('#timeline .step')].filter(s => /p1|package tree/.test(s.textContent)).length == 1";
    assert!(is(&page, rows).await, "{}", page.content().await.unwrap());
    eyes.close(server).await;
}

/// A machine that takes none of our offers.
fn unheard(server: &Server, n: u32, began: Timestamp) {
    for time in 0..3 {
        let at = began + SignedDuration::from_secs(4 * time);
        server.ledger.record(mac(n), Event::new(Stage::Firmware, "DHCPDISCOVER", "uefi-x64"), at);
        let offer = Event::new(Stage::Firmware, "DHCPOFFER", "10.0.0.21, snponly.efi");
        server.ledger.record(mac(n), offer, at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_stopped_and_what_it_did_before() {
    let Some(chromium) = chromium() else { return };
    let server = Server::new(vec![machine("web1", mac(1), None)]);
    let now = Timestamp::now();
    let before = now - SignedDuration::from_secs(7200);
    boot(&server, 1, before, false).await;
    server.ledger.named(mac(1), "web1", before);
    unheard(&server, 1, now - SignedDuration::from_secs(600));
    let said = server.ledger.diagnosis(mac(1), now).expect("it stands there for ten minutes");
    assert!(said.sentence.starts_with("offered three times, never requested"), "{said:?}");

    let eyes = Eyes::open(chromium).await;
    let page = eyes.page("about:blank").await;
    page.execute(SetScriptExecutionDisabledParams::new(true)).await.unwrap();
    page.goto(format!("{}/machines/web1", server.admin)).await.unwrap();
    let shown: String = value(&page, "document.querySelector('#state .todo').textContent").await;
    assert_eq!(shown, format!("{}{}", said.sentence, said.todo));
    let boots: Vec<String> =
        value(&page, "[...document.querySelectorAll('.boots tbody tr')].map(r => r.innerText)")
            .await;
    assert_eq!(boots.len(), 2, "{boots:?}");
    assert!(boots[0].contains("Stopped") && boots[0].contains(&said.sentence), "{boots:?}");
    assert!(boots[1].contains("2 h ago") && boots[1].contains("167 MB"), "{boots:?}");
    press(&page, ".boots tbody tr:last-child a", "Enter").await;
    eventually(&page, "document.querySelector('h1').textContent == 'A boot of web1'").await;
    assert!(
        is(
            &page,
            "document.querySelector('.lanes .t-kernel') && !document.querySelector('#timeline')"
        )
        .await
    );
    page.execute(SetScriptExecutionDisabledParams::new(false)).await.unwrap();
    for path in ["", "/boots/1", "/boots/x", "/boots/-9223372036854775808"] {
        let url = format!("{}/machines/web1{path}", server.admin);
        let status = if path.is_empty() { 200 } else { 404 };
        let answer = format!("fetch('{url}').then(r => r.status)");
        page.goto(&*server.admin).await.unwrap();
        assert_eq!(value::<u16>(&page, &answer).await, status, "{path}");
    }
    eyes.wrong.lock().unwrap().retain(|w| !w.contains("404"));
    eyes.close(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_switched() {
    let Some(chromium) = chromium() else { return };
    let bmc = switched(machine("web1", mac(1), None));
    let orders: Arc<Mutex<Vec<(Mac, Action)>>> = Arc::default();
    let noted = orders.clone();
    let server = Server::open(vec![bmc, machine("web2", mac(2), None)], |web| {
        web.power = Some(Box::new(move |mac, action| {
            noted.lock().unwrap().push((mac, action));
            Box::pin(async move {
                match action {
                    Action::Cycle => Err(Trouble::Stopping),
                    _ => Ok(Said::Ran { program: "<b>outlet".into(), action }),
                }
            })
        }));
    });
    let eyes = Eyes::open(chromium).await;
    let page = eyes.page(&format!("{}/machines/web1", server.admin)).await;
    find(&page, "form[action$='/on'] button").await.click().await.unwrap();
    eventually(
        &page,
        "document.querySelector('[role=status]')?.textContent == '<b>outlet on: done.'",
    )
    .await;
    find(&page, "main a.button").await.click().await.unwrap();
    find(&page, "a[href$='/off']").await.click().await.unwrap();
    eventually(&page, "document.querySelector('h1').textContent == 'Switch web1 off?'").await;
    assert_eq!(*orders.lock().unwrap(), [(mac(1), Action::On)], "only asked");
    find(&page, "button.danger").await.click().await.unwrap();
    eventually(
        &page,
        "document.querySelector('[role=status]')?.textContent == '<b>outlet off: done.'",
    )
    .await;
    page.goto(format!("{}/machines/web1/cycle", server.admin)).await.unwrap();
    find(&page, "button.danger").await.click().await.unwrap();
    eventually(
        &page,
        "document.querySelector('.bad')?.textContent.includes('the server is stopping')",
    )
    .await;
    let all = [Action::On, Action::Off, Action::Cycle].map(|action| (mac(1), action));
    assert_eq!(*orders.lock().unwrap(), all);
    // A magic packet switches on, and no more.
    page.goto(format!("{}/machines/web2", server.admin)).await.unwrap();
    eventually(&page, "document.querySelector(\"form[action$='/on']\") && !document.querySelector(\"a[href$='/off'],a[href$='/cycle']\")").await;
    eyes.wrong.lock().unwrap().retain(|w| !w.contains("502"));
    eyes.close(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_one_logs_in_and_out() {
    let Some(chromium) = chromium() else { return };
    let dir = tempfile::tempdir().unwrap();
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let tls = Tls::open(&Config::default().tls, dir.path(), &here, SystemTime::now()).unwrap();
    let mut token = String::new();
    let server = Server::open(vec![machine("web1", mac(1), Some("debian-13"))], |web| {
        web.auth = Auth::open(Arc::new(Memory::default())).unwrap();
        web.admin_tls = Some(tls.server_config());
        token = web.auth.first(Timestamp::now()).unwrap().unwrap().reveal().to_string();
    });
    server.ledger.alarm("test", "it", "nobody's business".into(), Timestamp::now());
    let eyes = Eyes::trusting(chromium, tls.root_pem().as_deref()).await;
    let page = eyes.page(&format!("{}/machines/web1", server.admin)).await;
    eventually(
        &page,
        "location.pathname == '/login' && document.querySelector('h1').textContent == 'Log in'",
    )
    .await;
    assert!(is(&page, "!document.querySelector('nav,.badge,.live,.out')").await, "for a stranger");

    let log_in = async |token: &str| {
        find(&page, "#token").await.click().await.unwrap().type_str(token).await.unwrap();
        page.evaluate("window.before = true").await.unwrap();
        press(&page, "button.primary", "Enter").await;
        eventually(&page, "!window.before && document.readyState == 'complete'").await;
    };
    log_in("pl_nothing").await;
    eventually(
        &page,
        "document.querySelector('[role=alert]')?.textContent.includes('not, or no longer, valid')",
    )
    .await;
    log_in(&token).await;
    eventually(
        &page,
        "location.pathname == '/' && document.querySelectorAll('#hall li').length == 1",
    )
    .await;
    // The cookie is the browser's alone, and goes nowhere else.
    assert_eq!(value::<String>(&page, "document.cookie").await, "");
    let cookies = page.get_cookies().await.unwrap();
    let [cookie] = &cookies[..] else { panic!("{cookies:?}") };
    assert!(cookie.secure && cookie.http_only && cookie.name.starts_with("__Host-"), "{cookie:?}");
    assert_eq!(format!("{:?}", cookie.same_site), "Some(Strict)");

    // The page moves, and its forms are taken.
    server.step(1, begin(1)).await;
    eventually(&page, &format!("document.querySelector('#m{} a').className == 'i'", id(1))).await;
    page.goto(format!("{}/machines/web1", server.admin)).await.unwrap();
    find(&page, "form[action$='/local'] button").await.click().await.unwrap();
    eventually(&page, "document.querySelector('#state b').textContent == 'Local'").await;

    find(&page, ".out button").await.click().await.unwrap();
    eventually(&page, "location.pathname == '/login'").await;
    assert!(page.get_cookies().await.unwrap().is_empty());
    page.goto(&*server.admin).await.unwrap();
    eventually(&page, "location.pathname == '/login' && !document.querySelector('#hall')").await;
    eyes.wrong.lock().unwrap().retain(|w| !w.contains("401"));
    eyes.close(server).await;
}

/// What a boot leaves on a machine's timeline, up to a while ago, and on its life.
async fn boot(server: &Server, n: u32, until: Timestamp, installs: bool) {
    use Stage::*;
    let transfer =
        |name: &str, total, millis| Transfer { name: name.into(), sent: total, total, millis };
    let file = |stage, name: &str, total, millis| {
        Event::new(stage, "sent", name).with(transfer(name, total, millis))
    };
    let events = [
        (0, Event::new(Firmware, "DHCPDISCOVER", "uefi-x64")),
        (40, Event::new(Firmware, "DHCPOFFER", "10.0.0.21, snponly.efi")),
        (1_080, Event::new(Firmware, "DHCPREQUEST", "10.0.0.21")),
        (1_110, Event::new(Firmware, "DHCPACK", "10.0.0.21, snponly.efi")),
        (1_200, Event::new(Loader, "RRQ", "snponly.efi (296 kB)")),
        (1_530, file(Loader, "snponly.efi", 296_448, 320)),
        (2_400, Event::new(Ipxe, "DHCPDISCOVER", "")),
        (2_440, Event::new(Ipxe, "DHCPACK", "10.0.0.21")),
        (2_900, Event::new(Script, "GET", "/boot/52-54-00-00-00-03.ipxe: boots profile debian-13")),
        (3_000, Event::new(Kernel, "GET", "debian/linux (8.22 MB)")),
        (3_260, file(Kernel, "debian/linux", 8_222_656, 250)),
        (3_280, Event::new(Initrd, "GET", "debian/initrd.gz (41.3 MB)")),
        (4_450, file(Initrd, "debian/initrd.gz", 41_300_000, 1_160)),
        (8_000, Event::new(Answer, "GET", "preseed.cfg")),
        (8_900, Event::new(System, "GET", "debian/dists/trixie/InRelease (140 kB)")),
        (8_990, file(System, "debian/dists/trixie/InRelease", 140_000, 60)),
        (9_400, file(System, "debian/pool/main/l/linux/linux-image-amd64.udeb", 12_400_000, 380)),
        (12_400, file(System, "debian/pool/main/g/glibc/libc6_2.41-12_amd64.deb", 2_800_000, 900)),
        (
            14_900,
            file(System, "debian/pool/main/s/systemd/systemd_257.9-1_amd64.deb", 3_500_000, 1_900),
        ),
        (
            15_200,
            Event::new(
                System,
                "refused",
                "debian has no file pool/main/x/xz/xz-utils_5.8.0_amd64.deb",
            ),
        ),
        (
            19_800,
            file(System, "debian/pool/main/l/linux/linux-image-6.12-amd64.deb", 98_000_000, 4_100),
        ),
        (21_400, Event::new(System, "report", "partitioned")),
    ];
    let began = until - SignedDuration::from_millis(22_000);
    let facts = Facts {
        uuid: Some("4c4c4544-0037-3510-8052-b4c04f4d3032".into()),
        serial: Some("G7R5M02".into()),
        manufacturer: Some("Dell Inc.".into()),
        product: Some("PowerEdge R650".into()),
        arch: Some("uefi-x64"),
        memsize: Some(131_072),
        version: Some("2.0.0+ (g12a8)".into()),
        ip: Some([10, 0, 0, 21].into()),
        ..Facts::of(mac(n))
    };
    for (ms, event) in events {
        let (at, stage) = (began + SignedDuration::from_millis(ms), event.stage);
        match event.transfer {
            Some(transfer) => server.ledger.sent(mac(n), stage, transfer, None, at),
            None if stage == Script => {
                scripted(server, facts.clone(), at);
                if installs {
                    server.ledger.step(mac(n), begin(n), 3, at).await.unwrap();
                }
            }
            None => server.ledger.record(mac(n), event, at),
        }
    }
    server.ledger.learn(facts, until);
}

/// A hall of `n` machines, in all states.
async fn hall(n: u32) -> Server {
    let name = |n: u32| format!("r{:02}-n{:02}", n / 40 + 1, n % 40 + 1);
    let declared = (1..=n).map(|n| {
        switched(machine(&name(n - 1), mac(n), if n % 37 == 36 { None } else { Some("debian-13") }))
    });
    let server = Server::new(declared.collect());
    let now = Timestamp::now();
    let jobs = (1..=n).filter_map(|n| {
        let rack = (n - 1) / 40;
        let state = match (rack, n.wrapping_mul(2_654_435_761) % 100) {
            (_, 0) => State::Failed,
            (_, 1) if n % 2 == 0 => State::Rescue,
            (_, 2) if n % 2 == 0 => State::Local,
            (0..30, _) => State::Installed,
            (30..34, 0..55) | (34..37, _) => State::Installing,
            (30..34, _) => State::Installed,
            (37..39, _) => State::Discovered,
            _ => return None,
        };
        Some(server.bring(n, state, now - SignedDuration::from_secs(i64::from(n % 500))))
    });
    futures_util::future::join_all(jobs).await;
    server
}

/// How the pages look: for a person. `docs/dashboard.png` and `docs/machine.png` are two of them.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_machines_on_one_page() {
    let Some(chromium) = chromium() else { return };
    let server = hall(2000).await;
    let now = Timestamp::now();
    let before = now - SignedDuration::from_hours(26 * 24);
    let again = || server.step(1203, LifeEvent::Reinstall { profile: None });
    again().await;
    boot(&server, 1203, before, true).await;
    let done = LifeEvent::Report { report: "r1203".into(), word: Word::Done };
    server.ledger.step(mac(1203), done, 3, before + SignedDuration::from_secs(300)).await.unwrap();
    again().await;
    unheard(&server, 2000, now - SignedDuration::from_secs(600));
    let _files = (1201..=1480)
        .filter(|n| *n != 1203)
        .map(|n| under_way(&server, n, now))
        .collect::<Vec<_>>();
    boot(&server, 1203, Timestamp::now(), true).await;
    server.ledger.alarm(
        "other-dhcp-server",
        "10.0.0.2",
        "another DHCP server, 10.0.0.2, offers addresses and boot files on this network".into(),
        Timestamp::now(),
    );
    let eyes = Eyes::open(chromium).await;
    let page = eyes.page(&server.admin).await;
    eventually(&page, "document.querySelectorAll('#hall li').length == 2000").await;
    let size: usize =
        value(&page, "fetch('/').then(r => r.text()).then(t => new Blob([t]).size)").await;
    assert!(size <= 300_000, "{size} bytes");

    // Many change at once, and the page keeps up with them.
    let changed = (1361..=1460).map(|n| server.bring(n, State::Installed, Timestamp::now()));
    futures_util::future::join_all(changed).await;
    eventually(&page, "[...Array(100).keys()].every(n => document.querySelector('#m5254' + (1361 + n).toString(16).padStart(8, '0') + ' a').className == 'o')").await;

    installed_before(&server, 1, now).await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
    std::fs::create_dir_all(&dir).unwrap();
    let one = format!("/machines/{}", id(1203));
    let began = server.ledger.boots(mac(1203))[1].began.as_millisecond();
    let pages = [
        ("fleet", "/"),
        ("machine", one.as_str()),
        ("some", "/?q=r31"),
        ("boot", &format!("{one}/boots/{began}")),
        ("stuck", &format!("/machines/{}", id(2000))),
        ("confirm", &format!("{one}/reinstall")),
        ("alarms", "/alarms"),
    ];
    for (name, path) in pages {
        for (kind, width, height, night) in
            [("light", 1440, 900, false), ("dark", 1440, 900, true), ("phone", 390, 844, false)]
        {
            let metrics = SetDeviceMetricsOverrideParams::new(width, height, 1.0, kind == "phone");
            page.execute(metrics).await.unwrap();
            dark(&page, night).await;
            page.goto(format!("{}{path}", server.admin)).await.unwrap();
            eventually(&page, "document.readyState == 'complete'").await;
            assert!(
                is(&page, "document.documentElement.scrollWidth <= innerWidth").await,
                "{name} on {kind} is too wide"
            );
            let shot = ScreenshotParams::builder()
                .format(CaptureScreenshotFormat::Png)
                .full_page(kind != "phone" && name == "machine")
                .build();
            page.save_screenshot(shot, dir.join(format!("{name}-{kind}.png"))).await.unwrap();
        }
    }
    eyes.close(server).await;
}
