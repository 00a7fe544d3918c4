//! The web door over loopback with the real curl: scripts, files, loaders, answers, reports.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pilotlight::config::{Config, Folder, Ipxe};
use pilotlight::http::{Door, Running, Web, start};
use pilotlight::ledger::Ledger;
use pilotlight::model::profile::{Answer, Source};
use pilotlight::model::{Mac, Machine, Match, Profile, Stage};
use serde_json::{Map, Value};
use tempfile::TempDir;

/// A server on loopback with a folder `root` that holds the files of its profiles; `secret` lies
/// beside it.
struct Server {
    dir: TempDir,
    url: String,
    admin: String,
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

const KERNEL: &[u8] = &[b'k'; 300_000];

fn profile(name: &str, dir: &Path) -> Profile {
    let answer = |name: &str| Answer { name: name.into(), template: dir.join(name) };
    Profile {
        name: name.into(),
        title: format!("Debian {name}"),
        menu: false,
        kernel: Source::Ours { folder: "debian".into(), path: "amd64/linux".into() },
        initrds: vec![
            Source::Ours { folder: "debian".into(), path: "/amd64/initrd.gz".into() },
            Source::Ours { folder: "debian".into(), path: "extra #1.img".into() },
        ],
        args: "auto=true url={{ answers['preseed.cfg'] }} hostname={{ machine.hostname }} \
               ds=nocloud;s={{ seed }}"
            .into(),
        answers: vec![answer("preseed.cfg")],
        console: Some("ttyS0,115200".into()),
        vars: Map::from_iter([("rack".into(), "r0".into())]),
        at: "pilotlight.toml:12".into(),
    }
}

fn machine(name: &str, last: u8, profile: &str) -> Machine {
    Machine {
        name: name.into(),
        matches: Match { mac: Some(Mac([0x52, 0x54, 0, 0, 0, last]).into()), ..Match::default() },
        profile: Some(profile.into()),
        address: None,
        hostname: None,
        loader: None,
        vars: Map::from_iter([("rack".into(), "r7".into())]),
    }
}

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

impl Server {
    fn new() -> Server {
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
        broken.answers[0] =
            Answer { name: "preseed.cfg".into(), template: dir.path().join("broken") };
        let mut missing = profile("missing", dir.path());
        missing.kernel = Source::Ours { folder: "debian".into(), path: "amd64/gone".into() };
        let mut inject = profile("inject", dir.path());
        inject.args.push_str(" {{ machine.serial }}");
        let config = Config {
            folders: vec![Folder { name: "debian".into(), dir: root }],
            ipxe: Ipxe { dir: Some(own), loaders: Vec::new() },
            profiles: vec![profile("web", dir.path()), open, broken, missing, inject],
            machines: vec![
                machine("web1", 1, "web"),
                machine("disk1", 2, "local"),
                machine("broken1", 3, "broken"),
                machine("missing1", 4, "missing"),
                machine("inject1", 5, "inject"),
            ],
            ..Config::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (url, admin_url) =
            (format!("http://127.0.0.1:{port}"), format!("http://{}", admin.local_addr().unwrap()));
        let config = Arc::new(ArcSwap::from_pointee(config));
        let ledger = Arc::new(Ledger::new());
        let door = Door { http_port: port, https_port: 443, tls: false };
        let web = Web::new(config.clone(), ledger.clone(), door, None);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running =
            runtime.block_on(async { start(web, vec![(listener, None)], Some(admin)).unwrap() });
        Server { dir, url, admin: admin_url, config, ledger, running: Some(running), runtime }
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
        .args(["-sS", "-i", "--path-as-is", "--noproxy", "*", "--max-time", "20", "--globoff"])
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
    assert_ne!(script, server.script(1, facts), "a token of its own for each boot");
    // 3. What it names.
    assert_eq!(server.get(&server.url_in(&script, "linux")).as_bytes(), KERNEL);
    assert_eq!(server.get(&server.url_in(&script, "initrd.gz")).len(), 1000);
    assert_eq!(server.get(&server.url_in(&script, "extra")), "extra");
    let preseed = server.get(&server.url_in(&script, "preseed"));
    assert!(preseed.starts_with("d-i rack r7\n"), "{preseed}");
    assert!(preseed.ends_with(&format!("from {}/files\n", server.url)), "{preseed}");
    // 4. The report.
    let report = server.url_in(&preseed, "/report");
    server.get(&report);
    let posted = server.curl(
        report.strip_suffix("/done").unwrap(),
        &["--data-binary", "installed\x1b[2J in 40 s"],
    );
    assert_eq!(posted.status, 200);
    // 5. All of it is on the machine's timeline, in that order.
    let known = server.ledger.get(mac(1)).unwrap();
    assert_eq!(known.name.as_deref(), Some("web1"));
    assert_eq!(known.facts.arch, Some("uefi-x64"));
    let timeline: Vec<String> =
        known.timeline.iter().map(|e| format!("{} {}", e.event.what, e.event.detail)).collect();
    let shows = |text: &str| timeline.iter().position(|e| e.contains(text)).unwrap_or(999);
    let steps = [
        "boots profile web",
        "GET debian/amd64/linux (300000 bytes)",
        "sent debian/amd64/linux (300000 bytes in",
        "GET debian/amd64/initrd.gz",
        "GET preseed.cfg",
        "report done",
        "report installed?[2J in 40 s",
    ];
    let order: Vec<usize> = steps.iter().map(|s| shows(s)).collect();
    assert!(order.is_sorted() && order.iter().all(|o| *o < 999), "{order:?} {timeline:#?}");
    let kernel = known.timeline.iter().find(|e| e.event.detail.contains("linux")).unwrap();
    assert_eq!(kernel.event.stage, Stage::Kernel);
    // 6. And on the admin door.
    let json: Value =
        serde_json::from_str(&curl(&format!("{}/api/machines/{}", server.admin, mac(1)), &[]).body)
            .unwrap();
    assert_eq!(json["name"], "web1");
    assert_eq!(json["timeline"].as_array().unwrap().len(), known.timeline.len());
    let all: Value =
        serde_json::from_str(&curl(&format!("{}/api/machines", server.admin), &[]).body).unwrap();
    assert_eq!(all[0]["facts"]["serial"], "S1");
    assert_eq!(curl(&format!("{}/healthz", server.admin), &[]).body, "ok\n");
}
