//! HTTPS as clients of other makers see it, and keys as an administrator leaves them.
//!
//! `openssl s_client` plays both iPXEs: TLS 1.2, the address sent as a name, small fragments, and
//! ECDSA or RSA signatures only.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use pilotlight::config::{self, OwnCertificate};
use pilotlight::tls::{self, Error, Tls, Why};
use rstest::rstest;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DAY: Duration = Duration::from_secs(86400);

fn tmp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn ours() -> config::Tls {
    config::Tls { enabled: true, names: vec!["boot.example".into()], ..config::Tls::default() }
}

fn open(dir: &Path) -> Result<Tls, Error> {
    Tls::open(&ours(), dir, &[LOCAL, "fe80::1".parse().unwrap()], SystemTime::now())
}

/// Serves one connection for a client that is run with the port, and gives what the client said.
fn meet(tls: &Tls, client: impl FnOnce(u16) -> Command) -> Output {
    let listener = TcpListener::bind((LOCAL, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(tls.server_config());
    let server = thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut session = rustls::ServerConnection::new(config).unwrap();
        let mut stream = rustls::Stream::new(&mut session, &mut tcp);
        // A client that refuses us ends here with an error, which is for it to tell.
        if BufReader::new(&mut stream).read_line(&mut String::new()).is_ok_and(|n| n > 0) {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nbooted";
            let _ = stream.write_all(answer);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    let output = run(&mut client(port));
    // A client that never came must not leave the server waiting.
    let _ = TcpStream::connect((LOCAL, port));
    server.join().unwrap();
    output
}

/// Gives a client one line of a request and no more time than 20 s.
fn run(command: &mut Command) -> Output {
    let mut timed = Command::new("timeout");
    timed.arg("20").arg(command.get_program()).args(command.get_args());
    let mut child = timed
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    // A client that has given up already reads no more.
    let _ = child.stdin.take().unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n");
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn s_client(port: u16, root: &Path, more: &[&str]) -> Command {
    let mut c = Command::new("openssl");
    c.args(["s_client", "-verify_return_error", "-verify_ip", "127.0.0.1", "-x509_strict"])
        .args(["-no-CApath", "-no-CAstore", "-ign_eof", "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("-CAfile")
        .arg(root)
        .args(more);
    c
}

fn openssl(args: &[&str]) -> Output {
    run(Command::new("openssl").args(args))
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

const IPXE: [&str; 5] = ["-tls1_2", "-servername", "127.0.0.1", "-maxfraglen", "4096"];

/// Each is given only the root that it must end at: a chain with a foot in the other fails.
#[rstest]
#[case::debian_14_ipxe("ca.pem", &["-sigalgs", "RSA+SHA256:ECDSA+SHA256"], "ECDSA")]
#[case::ecdsa_only("ca.pem", &["-sigalgs", "ECDSA+SHA256"], "ECDSA")]
#[case::debian_13_ipxe("ca-rsa.pem", &["-sigalgs", "RSA+SHA256:RSA+SHA384"], "RSA")]
#[case::rsa_suites("ca-rsa.pem", &["-cipher", "ECDHE-RSA-AES256-GCM-SHA384"], "RSA-PSS")]
fn an_ipxe_gets_the_chain_that_it_can_verify(
    #[case] root: &str,
    #[case] offer: &[&str],
    #[case] signed: &str,
) {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let root = dir.path().join("tls").join(root);
    let output = meet(&tls, |port| s_client(port, &root, &[&IPXE, offer].concat()));
    let said = said(&output);
    assert!(said.contains("Verification: OK"), "{said}");
    assert!(said.contains(&format!("Peer signature type: {signed}\n")), "{said}");
    assert!(said.contains("Protocol  : TLSv1.2") && said.contains("booted"), "{said}");
    // The root is sent, too, and the certificates name nobody to ask.
    assert_eq!(said.matches(" s:").count(), 2, "{said}");
    assert_eq!(tls.refused(), 0);

    let elsewhere = [&IPXE, offer, &["-verify_ip", "127.0.0.2"]].concat();
    assert!(!meet(&tls, |port| s_client(port, &root, &elsewhere)).status.success());
}

#[test]
fn a_client_that_can_verify_neither_is_refused_and_counted() {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let root = dir.path().join("tls/ca.pem");
    let output = meet(&tls, |port| s_client(port, &root, &["-tls1_2", "-sigalgs", "ed25519"]));
    assert!(!output.status.success());
    assert_eq!(tls.refused(), 1);
}

#[rstest]
#[case::tls_1_2("--tls-max", "1.2")]
#[case::tls_1_3("--tlsv1.3", "--silent")]
fn curl_trusts_the_roots_that_are_served(#[case] option: &str, #[case] value: &str) {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let bundle = file(dir.path(), "bundle.pem", &tls.root_pem().unwrap());
    for host in ["127.0.0.1", "boot.example"] {
        let output = meet(&tls, |port| {
            let mut c = Command::new("curl");
            c.args([option, value, "--silent", "--show-error", "--noproxy", "*", "--cacert"])
                .arg(&bundle)
                .args(["--capath", "/nonexistent", "--resolve"])
                .arg(format!("boot.example:{port}:127.0.0.1"))
                .arg(format!("https://{host}:{port}/"));
            c
        });
        assert!(output.status.success() && said(&output) == "booted", "{host}: {}", said(&output));
    }
    let output = meet(&tls, |port| {
        let mut c = Command::new("curl");
        c.args(["--silent", "--show-error", "--noproxy", "*"])
            .arg(format!("https://127.0.0.1:{port}/"));
        c
    });
    assert!(!output.status.success(), "nobody trusts us without being told");
}

/// The chain of a kind as the server sends it, as files `leaf.pem` and `root.pem`.
fn chain(tls: &Tls, dir: &Path, sigalg: &str) -> (PathBuf, PathBuf) {
    let more = ["-tls1_2", "-sigalgs", sigalg, "-showcerts"];
    let bundle = file(dir, "bundle.pem", &tls.root_pem().unwrap());
    let said = said(&meet(tls, |port| s_client(port, &bundle, &more)));
    let pem: Vec<String> = said
        .split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(|rest| rest.split_once("-----END"))
        .map(|(body, _)| format!("-----BEGIN CERTIFICATE-----{body}-----END CERTIFICATE-----\n"))
        .collect();
    (file(dir, "leaf.pem", &pem[0]), file(dir, "root.pem", &pem[1]))
}

#[rstest]
#[case("ECDSA+SHA256", "id-ecPublicKey", "ecdsa-with-SHA256")]
#[case("RSA+SHA256", "Public-Key: (2048 bit)", "sha256WithRSAEncryption")]
fn the_certificates_say_what_they_must(
    #[case] sigalg: &str,
    #[case] key: &str,
    #[case] signature: &str,
) {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let (leaf, root) = chain(&tls, dir.path(), sigalg);
    let text = |path: &Path| said(&openssl(&["x509", "-noout", "-text", "-in", str(path)]));
    let (leaf_text, root_text) = (text(&leaf), text(&root));
    for want in [
        "CA:FALSE",
        "Digital Signature\n",
        "TLS Web Server Authentication\n",
        "DNS:boot.example, IP Address:127.0.0.1, IP Address:FE80:0:0:0:0:0:0:1",
        "Not Before: Jan  1 00:00:00 1970 GMT",
        key,
        signature,
    ] {
        assert!(leaf_text.contains(want), "{want}: {leaf_text}");
    }
    for want in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign\n", "1970", key, signature] {
        assert!(root_text.contains(want), "{want}: {root_text}");
    }
    assert!(!leaf_text.contains("Authority Information Access"), "no OCSP");

    let serial = |path: &Path| said(&openssl(&["x509", "-noout", "-serial", "-in", str(path)]));
    assert_eq!(serial(&leaf).len(), "serial=".len() + 32 + 1, "{}", serial(&leaf));
    assert_ne!(serial(&leaf), serial(&root));

    // Machines whose clock is dead, right, a month fast; the end of the leaf; the end of the root.
    let at = |path: &Path, days: u64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let time = if days == 0 { 1 } else { now.as_secs() + (days - 1) * DAY.as_secs() };
        let time = time.to_string();
        let args = ["verify", "-x509_strict", "-verify_ip", "127.0.0.1", "-attime", &time];
        openssl(&[&args[..], &["-CAfile", str(&root), str(path)]].concat()).status.success()
    };
    for (days, valid) in [(0, true), (1, true), (31, true), (90, true), (92, false)] {
        assert_eq!(at(&leaf, days), valid, "day {days}");
    }
    let seconds = |days: u64| (days * DAY.as_secs()).to_string();
    let lasts = |days| openssl(&["x509", "-noout", "-checkend", &seconds(days), "-in", str(&root)]);
    assert!(lasts(3651).status.success() && !lasts(3653).status.success(), "{root_text}");
}

#[test]
fn trust_is_the_sha_256_of_both_roots_as_der() {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let digest = |name: &str| -> [u8; 32] {
        let path = dir.path().join("tls").join(name);
        let der = openssl(&["x509", "-outform", "DER", "-in", str(&path)]).stdout;
        Sha256::digest(der).into()
    };
    assert_eq!(tls.trust(), [digest("ca.pem"), digest("ca-rsa.pem")]);
}

#[test]
fn a_second_start_keeps_the_ca() {
    let dir = tmp();
    let now = SystemTime::now();
    assert_eq!(tls::check(&ours(), dir.path(), &[LOCAL], now).unwrap(), [[0; 32]; 0]);
    assert!(!dir.path().join("tls").exists(), "a check makes nothing");
    let first = open(dir.path()).unwrap();
    for name in ["ca.key", "ca-rsa.key", "ca.pem", "ca-rsa.pem"] {
        let mode = fs::metadata(dir.path().join("tls").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(dir.path().join("tls")).unwrap().count(), 4, "nothing left over");
    let second = open(dir.path()).unwrap();
    assert_eq!(first.trust(), second.trust());
    assert_eq!(first.root_pem(), second.root_pem());
    assert_eq!(tls::check(&ours(), dir.path(), &[LOCAL], now).unwrap(), first.trust());
}

/// What went wrong, and what is said.
#[rstest]
#[case::group_reads_key(&|d: &Path| chmod(&d.join("ca.key"), 0o640), "chmod 600 DIR/ca.key")]
#[case::all_read_rsa_key(&|d: &Path| chmod(&d.join("ca-rsa.key"), 0o644), "chmod 600 DIR/ca-rsa.key")]
#[case::all_write_folder(&|d: &Path| chmod(d, 0o777), "chmod 700 DIR")]
#[case::key_lost(&|d: &Path| remove(&d.join("ca.key")), "type `rm DIR/ca.pem`")]
#[case::key_empty(&|d: &Path| write(&d.join("ca.key"), ""), "DIR/ca.key: this private key cannot be used")]
#[case::cert_cut(&|d: &Path| write(&d.join("ca.pem"), "-----BEGIN CERTI"), "DIR/ca.pem: certificate 1 cannot be read: its PEM is damaged")]
#[case::keys_swapped(&|d: &Path| copy(d, "ca.key", "ca-rsa.key"), "DIR/ca-rsa.key: this private key cannot be used: PKCS_RSA_SHA256 is wanted")]
#[case::certs_swapped(&|d: &Path| copy(d, "ca.pem", "ca-rsa.pem"), "the key in DIR/ca-rsa.key is not that of the first certificate in DIR/ca-rsa.pem")]
#[case::huge(&|d: &Path| write(&d.join("ca.pem"), &"x".repeat(300_000)), "DIR/ca.pem: larger than")]
#[case::folder(&|d: &Path| { remove(&d.join("ca.key")); fs::create_dir(d.join("ca.key")).unwrap(); chmod(&d.join("ca.key"), 0o700) }, "DIR/ca.key: cannot read it")]
fn it_does_not_start_on(#[case] harm: &dyn Fn(&Path), #[case] sentence: &str) {
    let dir = tmp();
    open(dir.path()).unwrap();
    let keys = dir.path().join("tls");
    harm(&keys);
    let sentence = sentence.replace("DIR", str(&keys));
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&sentence), "{error}");
    let error = tls::check(&ours(), dir.path(), &[LOCAL], SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains(&sentence), "{error}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn copy(dir: &Path, from: &str, to: &str) {
    fs::copy(dir.join(from), dir.join(to)).unwrap();
}

#[test]
fn a_key_of_another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root can give a file away");
        return;
    }
    let dir = tmp();
    open(dir.path()).unwrap();
    let key = dir.path().join("tls/ca.key");
    std::os::unix::fs::chown(&key, Some(12345), None).unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("chown 0 {}", str(&key))), "{error}");
}

/// The power fails at each step of a first start; the next start ends whole, from the same key.
#[rstest]
#[case::before_the_key(&["ca.key", "ca.pem", "ca-rsa.key", "ca-rsa.pem"])]
#[case::after_the_key(&["ca.pem", "ca-rsa.key", "ca-rsa.pem"])]
#[case::between_the_roots(&["ca-rsa.key", "ca-rsa.pem"])]
#[case::before_the_last(&["ca-rsa.pem"])]
fn an_interrupted_first_start_goes_on(#[case] missing: &[&str]) {
    let dir = tmp();
    open(dir.path()).unwrap();
    let keys = dir.path().join("tls");
    missing.iter().for_each(|name| remove(&keys.join(name)));
    fs::write(keys.join(missing[0]).with_extension("new"), "half a").unwrap();
    let read = |name: &str| fs::read(keys.join(name)).ok();
    let kept: Vec<_> = ["ca.key", "ca.pem", "ca-rsa.key"].map(|n| (n, read(n))).into();
    let tls = open(dir.path()).unwrap();
    for (name, old) in kept {
        assert!(old.is_none() || old == read(name), "{name} was there and stays");
    }
    assert_eq!(fs::read_dir(&keys).unwrap().count(), 4, "nothing left over");
    let root = keys.join("ca-rsa.pem");
    let more = [&IPXE[..], &["-sigalgs", "RSA+SHA256"]].concat();
    let said = said(&meet(&tls, |port| s_client(port, &root, &more)));
    assert!(said.contains("Verification: OK"), "{said}");
}

#[test]
fn renewals_reach_listeners_that_are_open() {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let (now, here) = (SystemTime::now(), [LOCAL, "fe80::1".parse().unwrap()]);
    let listening = tls.server_config();
    let shown = || {
        let root = dir.path().join("tls/ca.pem");
        let said = said(&meet(&tls, |p| s_client(p, &root, &["-tls1_2", "-showcerts"])));
        said.split("-----").nth(2).unwrap().to_owned()
    };
    let first = shown();
    assert_eq!(tls.renew_if_due(&ours(), &here, now).unwrap(), None);
    assert_eq!(tls.renew_if_due(&ours(), &here, now + 59 * DAY).unwrap(), None);
    assert_eq!(shown(), first);

    let other: IpAddr = "192.0.2.7".parse().unwrap();
    assert_eq!(tls.uncovered(&[LOCAL, other]), [other]);
    let there = [LOCAL, other];
    assert_eq!(tls.renew_if_due(&ours(), &there, now).unwrap(), Some(Why::Names));
    assert!(tls.uncovered(&there).is_empty());
    assert_ne!(shown(), first);

    let trust = tls.trust();
    let soon = now + 61 * DAY;
    assert_eq!(tls.renew_if_due(&ours(), &there, soon).unwrap(), Some(Why::LeafEnds));
    assert_eq!(tls.renew_if_due(&ours(), &there, soon).unwrap(), None);
    assert_eq!(tls.trust(), trust, "a leaf's end is not the root's");

    let late = now + 3400 * DAY;
    assert_eq!(tls.renew_if_due(&ours(), &there, late).unwrap(), Some(Why::RootEnds));
    assert_eq!(tls.renew_if_due(&ours(), &there, late).unwrap(), None);
    assert!(tls.trust().iter().all(|t| !trust.contains(t)), "new roots, same keys");
    drop(listening);
}

#[test]
fn a_root_made_anew_is_taken_where_the_old_one_is_installed() {
    let dir = tmp();
    let tls = open(dir.path()).unwrap();
    let old = file(dir.path(), "installed.pem", &tls.root_pem().unwrap());
    remove(&dir.path().join("tls/ca.pem"));
    let tls = open(dir.path()).unwrap();
    let said = said(&meet(&tls, |port| s_client(port, &old, &["-tls1_2", "-partial_chain"])));
    assert!(said.contains("Verification: OK"), "{said}");
}

/// A root, an intermediate and a leaf by openssl, EC keys in SEC1 and RSA keys as it writes them.
struct Site(TempDir);

impl Site {
    fn new(key: &[&str], days: &str) -> Site {
        let site = Site(tmp());
        let p = |n: &str| site.path(n).to_str().unwrap().to_owned();
        let ids = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
        let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign";
        write(&site.path("ca.ext"), &format!("{ca}\n{ids}"));
        let leaf = "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1";
        write(&site.path("leaf.ext"), &format!("{leaf}\n{ids}"));
        let ok = |args: &[&str]| {
            let output = openssl(args);
            assert!(output.status.success(), "{args:?}: {}", said(&output));
        };
        for (name, ext, by) in
            [("root", "ca", "root"), ("middle", "ca", "root"), ("leaf", "leaf", "middle")]
        {
            let (req, out, own) =
                (p(&format!("{name}.csr")), p(&format!("{name}.pem")), p(&format!("{name}.key")));
            let made = if name == "leaf" {
                key
            } else {
                &["ecparam", "-genkey", "-noout", "-name", "prime256v1"]
            };
            ok(&[made, &["-out", &own]].concat());
            chmod(Path::new(&own), 0o600);
            ok(&["req", "-new", "-key", &own, "-subj", &format!("/CN={name}"), "-out", &req]);
            let ext = p(&format!("{ext}.ext"));
            let sign = ["x509", "-req", "-in", &req, "-extfile", &ext, "-out", &out, "-days"];
            let days = if name == "leaf" { days } else { "365" };
            let (cert, by_key) = (p(&format!("{by}.pem")), p(&format!("{by}.key")));
            let issuer = ["-CA", &cert, "-CAkey", &by_key, "-CAcreateserial"];
            let own = ["-signkey", &own];
            let issuer = if name == by { &own[..] } else { &issuer[..] };
            ok(&[&sign[..], &[days], issuer].concat());
        }
        site.join("chain.pem", &["leaf.pem", "middle.pem"]);
        site
    }

    fn ec() -> Site {
        Site::new(&["ecparam", "-genkey", "-noout", "-name", "secp384r1"], "30")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn join(&self, name: &str, parts: &[&str]) {
        let text: String =
            parts.iter().map(|p| fs::read_to_string(self.path(p)).unwrap()).collect();
        write(&self.path(name), &text);
    }

    fn config(&self) -> config::Tls {
        let (chain, key) = (self.path("chain.pem"), self.path("leaf.key"));
        let own = OwnCertificate { chain, key, root: Some(self.path("root.pem")) };
        config::Tls { enabled: true, own: Some(own), ..config::Tls::default() }
    }

    fn open(&self) -> Result<Tls, Error> {
        Tls::open(&self.config(), self.0.path(), &[LOCAL], SystemTime::now())
    }
}

#[rstest]
#[case::ec(&["ecparam", "-genkey", "-noout", "-name", "prime256v1"], "ECDSA+SHA256")]
#[case::rsa(&["genpkey", "-algorithm", "RSA"], "RSA+SHA256")]
fn the_users_own_certificate_takes_the_place_of_ours(#[case] key: &[&str], #[case] sigalg: &str) {
    let site = Site::new(key, "30");
    let tls = site.open().unwrap();
    assert!(!site.path("tls").exists(), "no CA of ours is made");
    let root = fs::read_to_string(site.path("root.pem")).unwrap();
    assert_eq!(tls.root_pem().as_deref(), Some(&*root));
    let der = openssl(&["x509", "-outform", "DER", "-in", str(&site.path("root.pem"))]).stdout;
    assert_eq!(tls.trust(), [<[u8; 32]>::from(Sha256::digest(der))]);
    assert_eq!(tls.uncovered(&[LOCAL, "192.0.2.1".parse().unwrap()]).len(), 1);
    let more = ["-tls1_2", "-sigalgs", sigalg];
    let said = said(&meet(&tls, |p| s_client(p, &site.path("root.pem"), &more)));
    assert!(said.contains("Verification: OK"), "{said}");
    // The user's chain and the root behind it.
    assert!(said.contains("CN = leaf") && said.matches(" s:").count() == 3, "{said}");
}

#[rstest]
#[case::other_key(&|s: &Site| copy(s.0.path(), "middle.key", "leaf.key"), "the key in DIR/leaf.key is not that of the first certificate in DIR/chain.pem")]
#[case::wrong_order(&|s: &Site| s.join("chain.pem", &["middle.pem", "leaf.pem"]), "DIR/chain.pem")]
#[case::readable_key(&|s: &Site| chmod(&s.path("leaf.key"), 0o644), "chmod 600 DIR/leaf.key")]
#[case::no_key_file(&|s: &Site| remove(&s.path("leaf.key")), "DIR/leaf.key: there is no such file")]
#[case::no_chain_file(&|s: &Site| remove(&s.path("chain.pem")), "DIR/chain.pem: there is no such file")]
#[case::no_root_file(&|s: &Site| remove(&s.path("root.pem")), "DIR/root.pem: there is no such file")]
#[case::key_is_no_key(&|s: &Site| write(&s.path("leaf.key"), &fs::read_to_string(s.path("leaf.pem")).unwrap()), "DIR/leaf.key: holds no private key")]
#[case::two_roots(&|s: &Site| s.join("root.pem", &["leaf.pem", "middle.pem"]), "DIR/root.pem: holds 2 certificates")]
#[case::other_root(&|s: &Site| copy(Site::ec().0.path(), "root.pem", str(&s.path("root.pem"))), "do not lead to the root in DIR/root.pem")]
#[case::gap(&|s: &Site| copy(s.0.path(), "leaf.pem", "chain.pem"), "the certificates in DIR/chain.pem do not lead to the root")]
fn the_users_own_certificate_is_refused(#[case] harm: &dyn Fn(&Site), #[case] sentence: &str) {
    let site = Site::ec();
    site.open().unwrap();
    harm(&site);
    let error = site.open().unwrap_err().to_string();
    assert!(error.contains(&sentence.replace("DIR", str(site.0.path()))), "{error}");
}

#[test]
fn the_users_own_certificate_ends_and_is_replaced_while_running() {
    let site = Site::ec();
    let tls = site.open().unwrap();
    let (config, now) = (site.config(), SystemTime::now());
    assert_eq!(tls.renew_if_due(&config, &[LOCAL], now).unwrap(), None);

    let error = tls.renew_if_due(&config, &[LOCAL], now + 31 * DAY).unwrap_err().to_string();
    assert!(error.contains("chain.pem: certificate 1 ended on 2"), "{error}");
    let error = tls.renew_if_due(&config, &[LOCAL], now - 2 * DAY).unwrap_err().to_string();
    assert!(error.contains("chain.pem: certificate 1 begins on 2"), "{error}");

    let next = Site::ec();
    let trust = tls.trust();
    for name in ["chain.pem", "leaf.key", "root.pem"] {
        fs::copy(next.path(name), site.path(name)).unwrap();
    }
    assert_eq!(tls.renew_if_due(&config, &[LOCAL], SystemTime::now()).unwrap(), Some(Why::Own));
    assert_ne!(tls.trust(), trust);
    // And back to a CA of ours, as a reload of the configuration would have it.
    assert_eq!(tls.renew_if_due(&ours(), &[LOCAL], now).unwrap(), Some(Why::First));
    assert_eq!(tls.trust().len(), 2);
}

#[test]
fn a_key_beside_the_users_root_is_never_shown() {
    let site = Site::ec();
    site.join("root.pem", &["root.key", "root.pem"]);
    let pem = site.open().unwrap().root_pem().unwrap();
    assert!(pem.contains("BEGIN CERTIFICATE") && !pem.contains("KEY"), "{pem}");
}

#[test]
fn ed25519_is_not_for_ipxe() {
    let site = Site::new(&["genpkey", "-algorithm", "ed25519"], "30");
    let error = site.open().unwrap_err().to_string();
    assert!(error.contains("leaf.key: an Ed25519 key"), "{error}");
}
