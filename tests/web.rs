//! The web door over loopback with the real curl: scripts, files, loaders, answers, reports.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use pilotlight::config::{Config, Folder, Ipxe, Root};
use pilotlight::http::{Door, Running, Web, start};
use pilotlight::ledger::Ledger;
use pilotlight::model::profile::{Answer, Boot, Source, Start, Template};
use pilotlight::model::{Facts, Mac, Machine, Match, Profile, Stage};
use pilotlight::tls::Tls;
use serde_json::{Map, Value};
use tempfile::TempDir;

/// A server on loopback with a folder `root` that holds the files of its profiles; `secret` lies
/// beside it.
struct Server {
    dir: TempDir,
    url: String,
    /// The same door without TLS; [`Server::url`] where there is none.
    plain: String,
    admin: String,
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

const KERNEL: &[u8] = &[b'k'; 300_000];

fn profile(name: &str, dir: &Path) -> Profile {
    let answer = |name: &str| Answer {
        name: name.into(),
        template: Template::File(dir.join(name)),
        crlf: false,
        carried: None,
    };
    Profile {
        name: name.into(),
        title: format!("Debian {name}"),
        menu: false,
        boot: Boot::linux(
            Source::Ours { folder: "debian".into(), path: "amd64/linux".into() },
            vec![
                Source::Ours { folder: "debian".into(), path: "/amd64/initrd.gz".into() },
                Source::Ours { folder: "debian".into(), path: "extra #1.img".into() },
            ],
            "auto=true url={{ answers['preseed.cfg'] }} hostname={{ machine.hostname }} \
               ds=nocloud;s={{ seed }}",
        ),
        unready: None,
        uefi: None,
        release: None,
        settings: None,
        memory: None,
        answers: vec![answer("preseed.cfg")],
        console: Some("ttyS0,115200".into()),
        vars: Map::from_iter([("rack".into(), "r0".into())]),
        secrets: Default::default(),
        kind: Default::default(),
        timeout: None,
        attempts: None,
        plain_answers: false,
        at: "pilotlight.toml:12".into(),
    }
}

fn machine(name: &str, last: u8, profile: &str) -> Machine {
    Machine {
        settings: Default::default(),
        name: name.into(),
        matches: Match { mac: Some(Mac([0x52, 0x54, 0, 0, 0, last]).into()), ..Match::default() },
        profile: Some(profile.into()),
        address: None,
        hostname: None,
        loader: None,
        vars: Map::from_iter([("rack".into(), "r7".into())]),
        secrets: Default::default(),
        power: Default::default(),
    }
}

fn image(name: &str, is: Option<&str>) -> Folder {
    let root = Root::Images(vec![format!("/srv/iso/{name}.iso").into()]);
    Folder { name: name.into(), root, is: is.map(Into::into) }
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

impl Server {
    fn new() -> Server {
        Server::open(false)
    }

    fn open(tls: bool) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let own = dir.path().join("loaders");
        fs::create_dir_all(root.join("amd64")).unwrap();
        fs::create_dir_all(root.join("<script>alert(1)")).unwrap();
        fs::create_dir_all(&own).unwrap();
        fs::write(dir.path().join("secret"), "SECRET").unwrap();
        fs::write(root.join("amd64/linux"), KERNEL).unwrap();
        fs::write(root.join("amd64/initrd.gz"), vec![b'i'; 1000]).unwrap();
        fs::write(root.join("extra #1.img"), "extra").unwrap();
        fs::write(root.join("digits"), "0123456789").unwrap();
        fs::write(root.join("a:b"), "colon").unwrap();
        fs::write(root.join(".treeinfo"), "tree").unwrap();
        fs::write(root.join("boot.efi"), "MZ").unwrap();
        fs::write(own.join("snponly.efi"), "MZ loader").unwrap();
        fs::write(own.join("own.kpxe"), "bios").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        std::os::unix::fs::symlink("/", root.join("slash")).unwrap();
        fs::write(
            dir.path().join("preseed.cfg"),
            "d-i rack {{ vars.rack }}\nreport {{ report }}/done\nfrom {{ files }}\n",
        )
        .unwrap();
        fs::write(dir.path().join("broken"), "one\n{{ vars.nothing }}\n").unwrap();

        let mut open = profile("open", dir.path());
        open.menu = true;
        let mut broken = profile("broken", dir.path());
        broken.answers[0] = Answer {
            name: "preseed.cfg".into(),
            template: Template::File(dir.path().join("broken")),
            crlf: false,
            carried: None,
        };
        let mut missing = profile("missing", dir.path());
        let gone = Source::Ours { folder: "debian".into(), path: "amd64/gone".into() };
        missing.boot = Boot::linux(gone, Vec::new(), "");
        let mut inject = profile("inject", dir.path());
        inject.boot.args.push_str(" {{ machine.serial }}");
        let mut config = Config {
            folders: vec![
                Folder { name: "debian".into(), root: Root::Dir(root), is: None },
                image("centos", Some("CentOS 7 <&>")),
                image("other", None),
            ],
            ipxe: Ipxe { dir: Some(own), loaders: Vec::new() },
            profiles: vec![profile("web", dir.path()), open, broken, missing, inject],
            machines: vec![
                machine("web1", 1, "web"),
                machine("disk1", 2, "local"),
                machine("broken1", 3, "broken"),
                machine("missing1", 4, "missing"),
                machine("inject1", 5, "inject"),
            ]
            .into(),
            ..Config::default()
        };
        config.dhcp.mode = pilotlight::config::Mode::Off;
        let bind = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            (listener, port)
        };
        let ((listener, port), (secure, https_port), (admin, admin_port)) =
            (bind(), bind(), bind());
        let mut doors = vec![(listener, None)];
        let plain = format!("http://127.0.0.1:{port}");
        let mut url = plain.clone();
        if tls {
            let ours = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
            let tls = Tls::open(&config.tls, dir.path(), &ours, SystemTime::now()).unwrap();
            doors.push((secure, Some(tls.server_config())));
            url = format!("https://127.0.0.1:{https_port}");
        }
        let admin_url = format!("http://127.0.0.1:{admin_port}");
        let config = Arc::new(ArcSwap::from_pointee(config));
        let ledger = Arc::new(Ledger::new());
        let door = Door { http_port: port, https_port, tls };
        let web = Web::new(
            config.clone(),
            ledger.clone(),
            door,
            None,
            Box::new(|| serde_json::json!([])),
        );
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running = runtime.block_on(async { start(web, doors, Some(admin)).unwrap() });
        Server {
            dir,
            url,
            plain,
            admin: admin_url,
            config,
            ledger,
            running: Some(running),
            runtime,
        }
    }

    fn curl(&self, path: &str, args: &[&str]) -> Answer200 {
        curl(&format!("{}{path}", self.url), args)
    }

    fn get(&self, path: &str) -> String {
        let answer = self.curl(path, &[]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    fn script(&self, last: u8, query: &str) -> String {
        self.get(&format!("/boot/{}.ipxe?{query}", mac(last).hexhyp()))
    }

    /// The path of the first URL of a script that has `part` in it.
    fn url_in(&self, script: &str, part: &str) -> String {
        let words = script.split(|c: char| c.is_whitespace() || "=;".contains(c));
        let url = words.filter(|w| w.starts_with(&self.url)).find(|w| w.contains(part));
        url.unwrap_or_else(|| panic!("no {part} in {script}"))[self.url.len()..].to_string()
    }

    /// A script made fit to be compared: the port and the token differ each time.
    fn golden(&self, script: &str) -> String {
        let text = script.replace(&self.url, "http://192.0.2.1");
        match text.split_once("/b/") {
            Some((_, rest)) => text.replace(&rest[..32], "TOKEN"),
            None => text,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

#[derive(Debug)]
struct Answer200 {
    status: u16,
    reason: String,
    head: String,
    body: String,
}

impl Answer200 {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }
}

fn curl(url: &str, args: &[&str]) -> Answer200 {
    let out = Command::new("curl")
        .args([
            "-sS",
            "-i",
            "-k",
            "--path-as-is",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--globoff",
        ])
        .args(args)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| {
        panic!("curl {url}: {}", String::from_utf8_lossy(&out.stderr));
    });
    let mut first = head.lines().next().unwrap().splitn(3, ' ').skip(1);
    Answer200 {
        status: first.next().unwrap().parse().unwrap(),
        reason: first.next().unwrap_or("").into(),
        head: head.into(),
        body: body.into(),
    }
}

fn golden(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true
    }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn from_the_entry_script_to_the_report() {
    let server = Server::new();
    // 1. The entry script, under each of its names, leads to the machine's own.
    let entry = server.get("/boot.ipxe");
    for path in ["/autoexec.ipxe", "/loader/autoexec.ipxe", "/any/where/autoexec.ipxe"] {
        assert_eq!(server.get(path), entry, "{path}");
    }
    golden("entry.ipxe", &server.golden(&entry));
    // 2. The machine's script.
    let facts = "uuid=U-1&serial=S1&manufacturer=QEMU&buildarch=x86_64&platform=efi&memsize=1023";
    let script = server.script(1, facts);
    golden("machine.ipxe", &server.golden(&script));
    assert_eq!(script, server.script(1, facts), "the same start, asked for once more");
    // 3. What it names.
    assert_eq!(server.get(&server.url_in(&script, "linux")).as_bytes(), KERNEL);
    assert_eq!(server.get(&server.url_in(&script, "initrd.gz")).len(), 1000);
    assert_eq!(server.get(&server.url_in(&script, "extra")), "extra");
    let preseed = server.get(&server.url_in(&script, "preseed"));
    assert!(preseed.starts_with("d-i rack r7\n"), "{preseed}");
    assert!(preseed.ends_with(&format!("from {}/files\n", server.url)), "{preseed}");
    // 4. The report.
    let report = server.url_in(&preseed, "/report");
    let posted = server.curl(
        report.strip_suffix("/done").unwrap(),
        &["--data-binary", "installed\x1b[2J in 40 s"],
    );
    assert_eq!(posted.status, 200);
    assert_eq!(server.get(&report), "noted\n");
    assert_eq!(server.get(&report), "noted already\n");
    // 5. All of it is on the machine's timeline, in that order.
    let known = server.ledger.get(mac(1)).unwrap();
    assert_eq!(known.name.as_deref(), Some("web1"));
    assert_eq!(known.facts.arch, Some("uefi-x64"));
    let timeline: Vec<String> =
        known.timeline.iter().map(|e| format!("{} {}", e.event.what, e.event.detail)).collect();
    let shows = |text: &str| timeline.iter().position(|e| e.contains(text)).unwrap_or(999);
    let steps = [
        "boots profile web",
        "GET debian/amd64/linux (300 kB)",
        "sent debian/amd64/linux (300 kB in",
        "GET debian/amd64/initrd.gz",
        "GET preseed.cfg",
        "report installed?[2J in 40 s",
        "report done",
        "installed attempt 1, ",
    ];
    let order: Vec<usize> = steps.iter().map(|s| shows(s)).collect();
    assert!(order.is_sorted() && order.iter().all(|o| *o < 999), "{order:?} {timeline:#?}");
    let kernel = known.timeline.iter().find(|e| e.event.detail.contains("linux")).unwrap();
    assert_eq!(kernel.event.stage, Stage::Kernel);
    // 6. And on the admin door.
    let json: Value = serde_json::from_str(
        &curl(&format!("{}/api/v1/machines/{}", server.admin, mac(1)), &[]).body,
    )
    .unwrap();
    assert_eq!(json["name"], "web1");
    assert_eq!(json["timeline"].as_array().unwrap().len(), known.timeline.len());
    let all: Value =
        serde_json::from_str(&curl(&format!("{}/api/v1/machines", server.admin), &[]).body)
            .unwrap();
    let web1 = all.as_array().unwrap().iter().find(|m| m["name"] == "web1").unwrap();
    assert_eq!(web1["facts"]["serial"], "S1");
    assert_eq!(curl(&format!("{}/healthz", server.admin), &[]).body, "ok\n");
}

#[test]
fn each_decision_is_a_script_that_says_so_on_the_screen() {
    let server = Server::new();
    for (name, last, query) in [
        ("menu.ipxe", 9, ""),
        ("local.ipxe", 2, ""),
        ("chosen.ipxe", 9, "choose=open"),
        ("refuse.ipxe", 9, "choose=web"),
        ("wait.ipxe", 3, ""),
    ] {
        let script = server.script(last, query);
        assert!(script.starts_with("#!ipxe\n"), "{script}");
        let script = script.replace(&server.dir.path().display().to_string(), "/DIR");
        golden(name, &server.golden(&script));
    }
    // What is wrong is named with its place on the screen, in the log and among the refusals.
    let said = |last: u8, query: &str| {
        let script = server.script(last, query);
        assert!(script.contains("has to wait") && !script.contains("\nkernel"), "{script}");
        let timeline = server.ledger.get(mac(last)).unwrap().timeline;
        (script, timeline.iter().map(|e| e.event.detail.clone()).collect::<Vec<_>>().join("\n"))
    };
    let (script, timeline) = said(3, "");
    assert!(script.contains("broken:2:9: Field `nothing` is not defined"), "{script}");
    assert!(timeline.contains("broken:2:9"), "{timeline}");
    let (script, timeline) = said(4, "");
    let why = "pilotlight.toml:12: profile missing: debian/amd64/gone: there is no such file";
    assert!(script.contains(why) && timeline.contains(why), "{script} {timeline}");
    // The machine's own serial number is not trusted either.
    for (serial, why) in [
        ("", "not defined"),
        ("a%20%7c%7c%20shell", "separator"),
        ("a%20%26%26%20shell", "separator"),
        ("a%20%3b%20shell", "separator"),
        ("%23", "begins with"),
        ("%24%7bnet0/mac%7d", "settings"),
    ] {
        let (script, timeline) = said(5, &format!("serial={serial}"));
        assert!(timeline.contains(why), "{serial}: {timeline}");
        let shown = script.split(":\n").nth(1).unwrap().lines().next().unwrap();
        for live in ["||", "&&", ";", "#", "$"] {
            assert!(!shown.contains(live), "{shown}");
        }
    }
}

#[test]
fn a_template_that_does_not_end_costs_other_profiles_nothing() {
    let server = Server::new();
    let range = |inner: &str| format!("{{% for a in range(end=100000) %}}{inner}{{% endfor %}}");
    fs::write(server.dir.path().join("broken"), range(&range(&range("")))).unwrap();
    let from = Instant::now();
    let all: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| server.script(3, ""))).collect();
        asked.into_iter().map(|a| a.join().unwrap()).collect()
    });
    for script in &all {
        assert!(script.contains("profile broken: its templates and files take more"), "{script}");
    }
    // Known by now: no more threads, no more waiting; and the others are served as ever.
    for _ in 0..20 {
        assert!(server.script(3, "").contains("take more"));
        assert!(server.script(1, "").contains("\nboot"));
    }
    assert!(from.elapsed() < Duration::from_secs(20));
    // Mended and reloaded, it is tried again.
    fs::write(server.dir.path().join("broken"), "fine").unwrap();
    server.config.store(Arc::new((*server.config.load_full()).clone()));
    assert!(server.script(3, "").contains("\nboot"));
}

/// An installer that knows no CA of ours: its answers may go by HTTP, and iPXE may bring them.
#[test]
fn with_tls_answers_go_by_http_only_where_the_profile_says_so() {
    let server = Server::open(true);
    let with = |change: &dyn Fn(&mut Profile)| {
        let mut config = (*server.config.load_full()).clone();
        change(config.profiles.iter_mut().find(|p| p.name == "web").unwrap());
        server.config.store(Arc::new(config));
        server.script(1, "")
    };
    let script = with(&|web| web.plain_answers = true);
    let words = script.split(|c: char| c.is_whitespace() || "=;".contains(c));
    let url = words.filter(|w| w.starts_with(&server.plain)).find(|w| w.ends_with("preseed.cfg"));
    let url = url.unwrap_or_else(|| panic!("{script}")).to_string();
    assert_eq!(curl(&url, &[]).status, 200);
    assert!(script.contains(&format!("kernel {}/b/", server.url)), "the rest does not: {script}");
    for other in [url.replace("/answer/preseed.cfg", "/files/debian/digits"), {
        let at = url.find("/b/").unwrap() + 3;
        format!("{}{}{}", &url[..at], "0".repeat(32), &url[at + 32..])
    }] {
        assert_eq!(curl(&other, &[]).status, 403, "{other}");
    }

    let script = with(&|web| web.plain_answers = false);
    assert_eq!(curl(&url, &[]).status, 403, "nor does one that was told before");
    assert!(!script.contains(&server.plain), "{script}");

    let script = with(&|web| web.answers[0].carried = Some("/tmp/preseed.cfg".into()));
    let line =
        script.lines().find(|l| l.contains("mkdir=-1")).unwrap_or_else(|| panic!("{script}"));
    let url = line.split_whitespace().find(|w| w.starts_with(&server.url)).unwrap();
    assert!(line.contains(&format!("{url} /tmp/preseed.cfg mkdir=-1")), "{line}");
    assert!(script.contains("url=file:///tmp/preseed.cfg "), "{script}");
    assert!(server.get(url.strip_prefix(&server.url).unwrap()).contains("d-i rack"));
}

#[test]
fn with_tls_what_is_one_machines_own_does_not_travel_in_the_clear() {
    let server = Server::open(true);
    let script = server.script(1, "");
    let paths = ["linux", "preseed"].map(|part| server.url_in(&script, part));
    let own = format!("/boot/{}.ipxe", mac(1).hexhyp());
    for path in [&own].into_iter().chain(&paths) {
        assert_eq!(server.curl(path, &[]).status, 200, "{path}");
        for args in
            [&[][..], &["-I"], &["-H", "Range: bytes=0-1"], &["-H", "X-Forwarded-Proto: https"]]
        {
            let answer = curl(&format!("{}{path}", server.plain), args);
            assert_eq!((answer.status, answer.header("location")), (403, None), "{answer:?}");
            let why = format!("this travels by HTTPS only: {}{path}\n", server.url);
            assert!(answer.body == why || args == ["-I"], "{answer:?}");
        }
        // Encoded otherwise it is the same path, or none.
        let other = path.replacen("/b/", "/%62/", 1).replacen("/boot/", "/%62oot/", 1);
        assert!(matches!(curl(&format!("{}{other}", server.plain), &[]).status, 403 | 404));
    }
    let refused = server.ledger.refusals();
    assert!(refused.iter().any(|((_, name), times)| *name == "https-only" && *times >= 12));
    // What a firmware without our root must have, and what is anybody's.
    let preseed = server.get(&paths[1]);
    let words = preseed.split_whitespace();
    let report = words.filter(|w| w.starts_with(&server.plain)).find(|w| w.contains("/report"));
    let public =
        ["/", "/boot.ipxe", "/loader/autoexec.ipxe", "/loader/snponly.efi", "/files/debian/digits"];
    for path in
        public.map(|p| format!("{}{p}", server.plain)).iter().map(String::as_str).chain(report)
    {
        assert_eq!(curl(path, &[]).status, 200, "{path}");
    }
    assert!(report.is_some(), "{preseed}");
}

#[test]
fn a_file_by_ranges_and_conditions() {
    let server = Server::new();
    let url = "/files/debian/digits";
    let whole = server.curl(url, &[]);
    assert_eq!(
        (whole.status, whole.reason.as_str(), whole.body.as_str()),
        (200, "OK", "0123456789")
    );
    assert_eq!(whole.header("content-length"), Some("10"));
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    let etag = whole.header("etag").unwrap().to_string();
    let modified = whole.header("last-modified").unwrap().to_string();
    let with = |name: &str, value: &str| format!("{name}: {value}");

    let head = server.curl(url, &["-I"]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("10"));
    assert_eq!(head.header("etag"), Some(etag.as_str()));

    for (range, status, body, shown) in [
        ("bytes=0-3", 206, "0123", Some("bytes 0-3/10")),
        ("bytes=4-", 206, "456789", Some("bytes 4-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=8-100", 206, "89", Some("bytes 8-9/10")),
        ("bytes=10-", 416, "", Some("bytes */10")),
        ("lines=1-2", 200, "0123456789", None),
    ] {
        let part = server.curl(url, &["-H", &with("Range", range)]);
        assert_eq!((part.status, part.body.as_str()), (status, body), "{range}");
        assert_eq!(part.header("content-range"), shown, "{range}");
        assert_eq!(part.header("content-length"), Some(body.len().to_string().as_str()), "{range}");
    }
    let old = "Thu, 01 Jan 1970 00:00:01 GMT";
    for (header, status) in [
        (with("If-None-Match", &etag), 304),
        (with("If-None-Match", "\"other\""), 200),
        (with("If-Modified-Since", &modified), 304),
        (with("If-Modified-Since", old), 200),
        (with("If-Match", "\"other\""), 412),
        (with("If-Unmodified-Since", old), 412),
    ] {
        let answer = server.curl(url, &["-H", &header]);
        assert_eq!(answer.status, status, "{header}");
        assert!(!answer.reason.is_empty(), "{header}");
    }
    for (validator, status) in
        [(etag.as_str(), 206), (&modified, 206), ("\"other\"", 200), (old, 200)]
    {
        let if_range = with("If-Range", validator);
        let answer = server.curl(url, &["-H", "Range: bytes=0-3", "-H", &if_range]);
        assert_eq!(answer.status, status, "{if_range}");
    }
    assert_eq!(server.curl(url, &["-X", "DELETE"]).status, 405);
    let efi = server.curl("/files/debian/boot.efi", &[]);
    assert_eq!(efi.header("content-type"), Some("application/efi"));
}

#[test]
fn no_path_leads_out() {
    let server = Server::new();
    for path in [
        "/files/debian/../secret",
        "/files/debian/%2e%2e/secret",
        "/files/debian/.%2e/secret",
        "/files/debian/%2e%2e%2fsecret",
        "/files/debian/..%2fsecret",
        "/files/debian/..%5csecret",
        "/files/debian/%252e%252e/secret",
        "/files/debian/amd64/../../secret",
        "/files/debian//../secret",
        "/files/debian/./../secret",
        "/files/debian/..;/secret",
        "/files/debian/%c0%ae%c0%ae/secret",
        "/files/debian/out",
        "/files/debian/slash/etc/passwd",
        "/files/debian/slash/",
        "/files/debian/digits%00.txt",
        "/files/debian/digits/",
        "/files/debian/digits/x",
        "/files/../secret",
        "/files/%2e%2e/secret",
        "/files/nothing/x",
        "/files//x",
        "/files/debian%2f..%2fsecret",
        "/../secret",
        "/secret",
        "/loader/../secret",
        "/loader/..%2f..%2fsecret",
        "/loader/%2e%2e",
        "/b/x/files/debian/digits",
    ] {
        let answer = server.curl(path, &[]);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
        assert!(!answer.reason.is_empty(), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
        assert!(!answer.body.contains("SECRET") && !answer.body.contains("root:"), "{path}");
        assert!(!answer.body.contains(&server.dir.path().display().to_string()), "{answer:?}");
    }
    // A name that only looks like one of those.
    for (path, body) in [
        ("/files/debian/.treeinfo", "tree"),
        ("/files/debian//amd64/./../x", ""),
        ("/files/debian/a:b", "colon"),
    ] {
        let answer = server.curl(path, &[]);
        if body.is_empty() {
            assert_eq!(answer.status, 400, "{path}");
        } else {
            assert_eq!(answer.body, body, "{path}");
        }
    }
    // And on the timeline's way the same.
    let script = server.script(1, "");
    let kernel = server.url_in(&script, "linux");
    let base = kernel.strip_suffix("debian/amd64/linux").unwrap();
    for path in ["debian/out", "debian/%2e%2e/secret", "nothing/x", "debian/../../secret"] {
        let answer = server.curl(&format!("{base}{path}"), &[]);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
}

#[test]
fn a_listing_is_plain_and_harmless() {
    let server = Server::new();
    let moved = server.curl("/files/debian", &[]);
    assert_eq!((moved.status, moved.header("location")), (301, Some("/files/debian/")));
    let page = server.curl("/files/debian/", &[]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-length").is_some());
    for shown in [
        "<a href=\"./amd64/\">amd64/</a>",
        "<a href=\"./%3Cscript%3Ealert%281%29/\">&lt;script&gt;alert(1)/</a>",
        "<a href=\"./a%3Ab\">a:b</a>  5",
        "<a href=\"./extra%20%231%2Eimg\">extra #1.img</a>  5",
        "<a href=\"./%2Etreeinfo\">.treeinfo</a>  4",
    ] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    for hidden in ["<script>", "out", "slash"] {
        assert!(!page.body.contains(hidden), "{hidden}: {}", page.body);
    }
    let inside = server.get("/files/debian/%3Cscript%3Ealert%281%29/");
    assert!(inside.contains("<h1>debian/&lt;script&gt;alert(1)</h1>"), "{inside}");
}

#[test]
fn what_is_served_is_listed_without_where_it_lies() {
    let server = Server::new();
    let moved = server.curl("/files", &[]);
    assert_eq!((moved.status, moved.header("location")), (301, Some("/files/")));
    let page = server.curl("/files/", &[]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("content-security-policy"), Some("default-src 'none'"));
    for shown in [
        "<a href=\"./debian/\">debian/</a>\n",
        "<a href=\"./centos/\">centos/</a>  CentOS 7 &lt;&amp;&gt;\n",
        "<a href=\"./other/\">other/</a>  not recognised\n",
    ] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    for hidden in ["/srv", ".iso", server.dir.path().to_str().unwrap()] {
        assert!(!page.body.contains(hidden), "{hidden}: {}", page.body);
    }
    assert_eq!(
        server.curl("/files/", &["-I"]).header("content-length").unwrap(),
        page.body.len().to_string()
    );
}

#[test]
fn loaders_with_their_digests() {
    let server = Server::new();
    let head = server.curl("/loader/snponly.efi", &["-I"]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("9")));
    assert_eq!(head.header("content-type"), Some("application/efi"));
    let whole = server.curl("/loader/snponly.efi", &[]);
    assert_eq!(whole.body, "MZ loader");
    let same = format!("If-None-Match: {}", whole.header("etag").unwrap());
    assert_eq!(server.curl("/loader/snponly.efi", &["-H", &same]).status, 304);
    assert_eq!(server.get("/loader/own.kpxe"), "bios");
    let none = server.curl("/loader/nothing.efi", &[]);
    assert_eq!(none.status, 404);
    assert!(none.body.contains("there is no loader nothing.efi"), "{none:?}");
    for embedded in pilotlight::ipxe::embedded() {
        let head = server.curl(&format!("/loader/{}", embedded.name), &["-I"]);
        assert_eq!(head.status, 200, "{}", embedded.name);
    }
}

#[test]
fn what_is_unknown_is_told_what_to_do() {
    let server = Server::new();
    for (path, status, says) in [
        ("/nothing", 404, "/boot.ipxe"),
        ("/ca.pem", 404, "nothing here"),
        ("/boot/nonsense.ipxe", 400, "six pairs"),
        ("/b/0123/answer/preseed.cfg", 404, "boot the machine again"),
        ("/b/0123/report", 404, "boot the machine again"),
        ("/files/none/", 404, "[[files]]"),
        ("/files/debian/none", 404, "there is no such file"),
    ] {
        let answer = server.curl(path, &[]);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.contains(says) && answer.body.ends_with('\n'), "{path}: {answer:?}");
    }
    assert!(server.get("/").contains("pilotlight"));
    let script = server.script(1, "");
    let answer = server.url_in(&script, "preseed");
    let other = answer.replace("preseed.cfg", "shadow");
    assert!(server.curl(&other, &[]).body.contains("has no answer"));
    let preseed = server.get(&answer);
    let report = server.url_in(&preseed, "/report").replace("/done", "");
    let big = server.dir.path().join("big");
    fs::write(&big, vec![b'x'; (64 << 10) + 1]).unwrap();
    let sent = server.curl(&report, &["--data-binary", &format!("@{}", big.display())]);
    assert_eq!(sent.status, 413);
    assert_eq!(server.curl(&report, &["-X", "PUT"]).status, 405);
    let refusals: Vec<Value> =
        serde_json::from_str(&curl(&format!("{}/api/v1/refusals", server.admin), &[]).body)
            .unwrap();
    let times =
        |name: &str| refusals.iter().find(|r| r["name"] == name).map(|r| r["times"].clone());
    assert_eq!(times("no-boot"), Some(2.into()));
    assert_eq!(times("report-too-large"), Some(1.into()));
    // A reload that takes the profile away.
    let mut config = (*server.config.load_full()).clone();
    config.profiles.clear();
    server.config.store(Arc::new(config));
    assert!(server.curl(&answer, &[]).body.contains("no longer has profile web"));
    let known = curl(&format!("{}/api/v1/machines/52:54:00:00:00:77", server.admin), &[]);
    assert_eq!(known.status, 404);
    assert!(
        known.body.contains("no machine \\\"52:54:00:00:00:77\\\" is declared or known"),
        "{known:?}"
    );
}

/// Waits for the thing itself, at most 10 s.
fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "it did not happen within 10 s");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_transfer_that_is_cut_is_on_the_timeline() {
    let server = Server::new();
    let big = fs::File::create(server.dir.path().join("root/amd64/linux")).unwrap();
    big.set_len(200 << 20).unwrap();
    let kernel = server.url_in(&server.script(1, ""), "linux");
    let mut client = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    write!(client, "GET {kernel} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    client.read_exact(&mut [0; 100_000]).unwrap();
    // How far it is shows in the middle of it, too.
    let so_far = || server.ledger.progress(mac(1), Timestamp::now()).map_or(0, |p| p.bytes);
    until(|| so_far() >= 100_000);
    assert!(so_far() < 200 << 20);
    drop(client);
    let cut = || {
        let timeline = server.ledger.get(mac(1)).unwrap().timeline;
        let cut = timeline.into_iter().find(|e| e.event.what == "cut")?;
        (cut.event.stage == Stage::Kernel).then_some(cut.event.transfer?)
    };
    until(|| cut().is_some());
    let cut = cut().unwrap();
    assert_eq!((cut.total, cut.sent), (200 << 20, so_far()));
    let part = server.curl(&kernel, &["-H", "Range: bytes=0-99"]);
    assert_eq!((part.status, part.body.len()), (206, 100));
    let timeline = server.ledger.get(mac(1)).unwrap().timeline;
    let said = "(100 bytes, bytes 0-99/209715200)";
    assert!(timeline.iter().any(|e| e.event.detail.contains(said)), "{timeline:#?}");
}

#[test]
fn by_https_all_travels_by_https_but_the_report() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("preseed.cfg"), "{{ report }} {{ files }}").unwrap();
    fs::write(dir.path().join("linux"), "k").unwrap();
    let mut web = profile("web", dir.path());
    web.boot.start = Start::Kernel(Source::Ours { folder: "f".into(), path: "linux".into() });
    web.boot.initrds.clear();
    let mut config = Config {
        folders: vec![Folder { name: "f".into(), root: Root::Dir(dir.path().into()), is: None }],
        profiles: vec![web],
        machines: vec![machine("web1", 1, "web")].into(),
        ..Config::default()
    };
    config.dhcp.mode = pilotlight::config::Mode::Off;
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let pem = certificate.pem();
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let (plain, secure) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::]:0").unwrap());
    let door = Door {
        http_port: plain.local_addr().unwrap().port(),
        https_port: secure.local_addr().unwrap().port(),
        tls: true,
    };
    let config = Arc::new(ArcSwap::from_pointee(config));
    let ledger = Arc::new(Ledger::new());
    let shared = Web::new(
        config.clone(),
        ledger.clone(),
        door,
        Some(pem.clone()),
        Box::new(|| serde_json::json!([])),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut running = runtime
        .block_on(async { start(shared, vec![(plain, None), (secure, Some(tls))], None).unwrap() });

    let http = format!("http://127.0.0.1:{}", door.http_port);
    let https = format!("https://127.0.0.1:{}", door.https_port);
    let root = dir.path().join("root.pem");
    fs::write(&root, curl(&format!("{http}/ca.pem"), &[]).body).unwrap();
    let trusting = ["--cacert", root.to_str().unwrap()];
    // By HTTP one is sent on to HTTPS, at the address that one came to, not the wildcard.
    for url in [&http, &https] {
        let entry = curl(&format!("{url}/boot.ipxe"), &trusting).body;
        assert!(entry.contains(&format!("chain --replace {https}/boot/")), "{entry}");
    }
    // Beside a loader that UEFI fetched by HTTP there is a step more, once, and where our DHCP tells of
    // our CA.
    let beside = |folder: &str| curl(&format!("{http}/loader/{folder}autoexec.ipxe"), &[]).body;
    assert!(!beside("").contains("isset ${trust}"), "another's DHCP tells nothing of it");
    let with = |change: &dyn Fn(&mut Config)| {
        let mut new = Config::clone(&config.load());
        change(&mut new);
        config.store(Arc::new(new));
    };
    with(&|config| config.dhcp.mode = pilotlight::config::Mode::Full);
    let step = |loader: &str| {
        let entry = beside("");
        let chain = "dhcp && isset ${trust} && chain --replace";
        assert!(entry.contains(&format!("{chain} {http}/loader/again/${{loader}} ||")), "{entry}");
        let set = format!("iseq ${{buildarch}} x86_64 && set loader {loader} ||");
        assert!(entry.contains(&set), "{set}: {entry}");
    };
    step("snponly.efi");
    assert!(!beside("again/").contains("isset ${trust}"), "there is no third loader");
    with(&|config| config.ipxe.loaders = vec![("uefi-x64", "ipxe-amd64.efi".into())]);
    step("ipxe-amd64.efi");
    // The machine's own, where it is known by its address.
    let own = |loader: Option<&str>| {
        with(&|config| {
            let mut own = machine("web1", 1, "web");
            own.loader = loader.map(str::to_string);
            config.machines = vec![own].into();
        });
    };
    own(Some("own.efi"));
    step("ipxe-amd64.efi");
    let told = Facts { ip: Some([127, 0, 0, 1].into()), ..Facts::of(mac(1)) };
    ledger.told(told, Some([127, 0, 0, 1].into()), Timestamp::now());
    step("own.efi");
    own(None);
    // A certificate that comes without a root: no DHCP tells of any, so nobody would ever leave a step
    // that waits for it.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let without = Door { http_port: other.local_addr().unwrap().port(), ..door };
    let leases = Box::new(|| serde_json::json!([]));
    let web = Web::new(config.clone(), ledger.clone(), without, None, leases);
    let mut rootless = runtime.block_on(async { start(web, vec![(other, None)], None).unwrap() });
    let url = format!("http://127.0.0.1:{}/loader/autoexec.ipxe", without.http_port);
    let entry = curl(&url, &[]).body;
    assert!(entry.contains(&format!("{https}/boot/")) && !entry.contains("${trust}"), "{entry}");
    runtime.block_on(rootless.stop());
    with(&|config| config.dhcp.mode = pilotlight::config::Mode::Off);
    let script = curl(&format!("{https}/boot/{}.ipxe", mac(1).hexhyp()), &trusting).body;
    assert!(script.contains(&format!("kernel {https}/b/")), "{script}");
    assert!(!script.contains("http:"), "{script}");
    let url = script.split_whitespace().find_map(|w| w.strip_prefix("url=")).unwrap();
    let answer = curl(url, &trusting).body;
    assert!(answer.starts_with(&format!("{http}/b/")), "{answer}");
    let report = answer.split_whitespace().next().unwrap();
    assert_eq!(curl(&format!("{report}/booted"), &[]).status, 200);
    let timeline = ledger.get(mac(1)).unwrap().timeline;
    assert_eq!(timeline.last().unwrap().event.detail, "booted");
    runtime.block_on(running.stop());
    until(|| TcpStream::connect(("127.0.0.1", door.http_port)).is_err());
}

#[test]
fn what_is_being_sent_comes_to_its_end_before_the_door_closes() {
    let mut server = Server::new();
    let big = fs::File::create(server.dir.path().join("root/big")).unwrap();
    big.set_len(64 << 20).unwrap();
    let mut client = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    write!(client, "GET /files/debian/big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    client.read_exact(&mut [0; 1000]).unwrap();
    let mut running = server.running.take().unwrap();
    let stopping = server.runtime.spawn(async move { running.stop().await });
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.len() + 1000 > 64 << 20, "{}", rest.len());
    server.runtime.block_on(stopping).unwrap();
}

#[test]
fn odd_requests_cost_nobody_anything() {
    let server = Server::new();
    let address = server.url.strip_prefix("http://").unwrap().to_string();
    let long = format!(
        "GET /boot/{}.ipxe?serial={} HTTP/1.1\r\nHost: x\r\n\r\n",
        mac(6).hexhyp(),
        "a".repeat(60_000)
    );
    for odd in [
        "GET\r\n\r\n",
        "\0\x01\x02\r\n\r\n",
        "GET /boot.ipxe HTTP/9.9\r\n\r\n",
        "GET /files/debian/%zz%2 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /files/debian/digits HTTP/1.1\r\nHost: x\r\nRange: bytes=9-0,-,x\r\n\r\n",
        "POST /b/x/report HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /b/x/report HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        &long,
    ] {
        let mut client = TcpStream::connect(&address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(odd.as_bytes()).unwrap();
        let mut said = [0; 12];
        // An answer or a closed connection; never a 500, and never silence.
        match client.read(&mut said) {
            Ok(0) => {}
            Ok(n) => {
                let said = String::from_utf8_lossy(&said[..n]).into_owned();
                assert!(
                    said.starts_with("HTTP/1.1 2") || said.starts_with("HTTP/1.1 4"),
                    "{said} {odd:.60}"
                );
            }
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{odd:.60}"),
        }
    }
    assert_eq!(server.get("/files/debian/digits"), "0123456789");
}
