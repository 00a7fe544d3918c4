//! Answers as those read them that they are for: cloud-init and Ignition themselves, as Debian has
//! them, fetch from the real program, each in namespaces of its own. What they are told is what the
//! kernel is told by the machine's script, or what iPXE puts into the initrd by it.

#[path = "common/namespace.rs"]
mod namespace;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use namespace::{in_a_namespace, ip, left_out};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Made by `hash-password` of a password that nobody has.
const HASH: &str = "$6$zOVAwQyTFsTd2/fG$GlQVTzWLsoBLfrzrMeHlPNSTUEp/Uh6rGbAY2R9vL5BMbtCHQ24vR71zl4PY9IFVIeLhPlbm.XJqP9BmiQAeY/";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFRoaXNLZXlJc05vYm9keXNLZXkx eva@desk";
/// Where Debian's package has it: an initrd is made of it.
const IGNITION: &str = "/usr/lib/dracut/modules.d/30ignition/ignition";

fn home(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One machine that installs one medium, and the server.
struct Lab {
    dir: TempDir,
    server: Child,
    /// What the machine is told.
    script: String,
    /// What its kernel is told.
    args: String,
}

/// Whether it all travels by HTTPS.
#[derive(Clone, Copy, PartialEq)]
enum Tls {
    On,
    Off,
}

impl Lab {
    fn new(tls: Tls, medium: &str, files: &[(&str, &str)]) -> Lab {
        ip("link set lo up");
        ip("link add boot0 type veth peer name nic0");
        ip("address add 10.77.0.1/24 dev boot0");
        ip("link set nic0 up");
        ip("link set boot0 up");
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[dhcp]\nmode = \"off\"\n[ipxe]\ndir = \"loaders\"\n[tls]\nenabled = {}\n\
             [[media]]\nname = \"m\"\n{medium}\n\
             [[profile]]\nname = \"web\"\ninstall = \"m\"\n\
             secrets = {{ root_password = '{HASH}', user_password = '{HASH}' }}\n\
             [profile.settings]\nuser = \"eva\"\nkeys = [\"{KEY}\"]\ntimezone = \"Europe/Berlin\"\n\
             [[machine]]\nname = \"web1\"\nmac = \"52:54:00:00:00:01\"\nprofile = \"web\"\n",
            tls == Tls::On
        );
        let ours = [("pilotlight.toml", &*config), ("loaders/snponly.efi", "MZ")];
        for (name, text) in ours.iter().chain(files) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        if let Some(volume) = medium.strip_prefix("iso = \"m.iso\" # ") {
            let mut make = Command::new("xorriso");
            make.args(["-as", "mkisofs", "-quiet", "-R", "-V", volume, "-o", "m.iso", "tree"]);
            let made = make.current_dir(dir.path()).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let server = served(dir.path());
        let mut lab = Lab { dir, server, script: String::new(), args: String::new() };
        let base = match tls {
            Tls::On => {
                fs::write(lab.path("ca.pem"), lab.get("http://10.77.0.1/ca.pem")).unwrap();
                "https://10.77.0.1"
            }
            Tls::Off => "http://10.77.0.1",
        };
        lab.script = lab.get(&format!("{base}/boot/52-54-00-00-00-01.ipxe"));
        lab.args = lab.command("kernel ").splitn(3, ' ').nth(2).unwrap().into();
        lab
    }

    /// The first command of the machine's script that starts so.
    fn command(&self, start: &str) -> &str {
        let line = self.script.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start}: {}", self.script));
        line.split_once(" && goto ").unwrap().0
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file by the machine's address, which is this one.
    fn get(&self, url: &str) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "20", url]);
        if url.starts_with("https:") {
            curl.arg("--cacert").arg(self.path("ca.pem"));
        }
        let run = curl.output().unwrap();
        assert!(run.status.success(), "{url}: {}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The program, once it is ready; it does not outlive this thread.
fn served(dir: &Path) -> Child {
    let log = dir.join("log");
    let file = fs::File::create(&log).unwrap();
    let mut server = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_pilotlight"), "serve"])
        .args(["-c", "pilotlight.toml", "--state-dir", "state", "-i", "boot0"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let said = || fs::read_to_string(&log).unwrap();
    while !said().contains("ready") {
        assert!(server.try_wait().unwrap().is_none(), "it ended: {}", said());
        assert!(Instant::now() < deadline, "it is not ready: {}", said());
        std::thread::yield_now();
    }
    server
}

/// A shell in a mount namespace that ends with it, where `/run`, `/var/lib` and `/var/log` are empty
/// and its own.
fn apart(script: &str, dir: &Path) -> Command {
    let own = "for at in /run /var/lib /var/log; do mount -t tmpfs none $at; done";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", &format!("{own}\n{script}")]).current_dir(dir);
    command
}

/// What it says, and whether that was all right.
fn said(out: Output) -> (bool, String) {
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into())
}

/// Whether a test can go on: with what it needs, in its network namespace.
fn ready(test: &str, needs: &[&str]) -> bool {
    for need in needs {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut there = std::env::split_paths(&path).map(|dir| dir.join(need));
        if !there.any(|file| file.exists()) {
            return left_out(test, &format!("no {need}: scripts/deps test brings it"));
        }
    }
    if !in_a_namespace(test) {
        return false;
    }
    let may = apart("", Path::new("/")).output().unwrap();
    may.status.success() || left_out(test, "a mount namespace is not to be had here")
}

/// Debian's cloud-init, which is unpacked and not installed: it would configure this machine.
fn cloud_init() -> PathBuf {
    home(".cache/peers/cloud-init")
}

const UBUNTU: [(&str, &str); 4] = [
    ("tree/.disk/info", "Ubuntu-Server 24.04.3 LTS \"Noble Numbat\" - Release amd64 (20250805.1)"),
    ("tree/casper/vmlinuz", "kernel"),
    ("tree/casper/initrd", "initrd"),
    ("tree/casper/install-sources.yaml", ""),
];

#[test]
fn cloud_init_fetches_what_subiquity_reads() {
    let test = "cloud_init_fetches_what_subiquity_reads";
    let peer = cloud_init();
    let peer = peer.join("usr/lib/python3/dist-packages");
    if !ready(test, &[peer.to_str().unwrap(), "/usr/bin/python3", "xorriso"]) {
        return;
    }
    let lab = Lab::new(Tls::Off, "iso = \"m.iso\" # Ubuntu-Server 24.04.3 LTS amd64", &UBUNTU);
    assert!(lab.args.contains(" autoinstall ds=nocloud;s=http://10.77.0.1/b/"), "{}", lab.args);
    let out = apart("exec /usr/bin/python3 \"$0\"", lab.dir.path())
        .arg(home("tests/answers/nocloud.py"))
        .env("PYTHONPATH", &peer)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DEBUG_PROC_CMDLINE", &lab.args)
        .output()
        .unwrap();
    let got: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}{}", said(out.clone()).1, fs::read_to_string(lab.path("log")).unwrap())
    });
    assert_eq!(got["instance"], "52-54-00-00-00-01");
    assert_eq!(got["hostname"], "web1");
    assert_eq!(got["vendor"], "#cloud-config\n{}\n");
    let install = &got["autoinstall"];
    assert_eq!(install["version"], 1);
    assert_eq!(install["timezone"], "Europe/Berlin");
    assert_eq!(install["ssh"]["authorized-keys"], serde_json::json!([KEY]));
    let who = serde_json::json!({ "hostname": "web1", "username": "eva", "password": HASH });
    assert_eq!(install["identity"], who);
    assert_eq!(install["user-data"]["chpasswd"]["users"][0]["password"], HASH);
    assert_eq!(install["storage"]["layout"]["match"]["path"], "/dev/pilotlight0");
    for (commands, file) in [("early-commands", "early.sh"), ("late-commands", "late.sh")] {
        let command = install[commands][0].as_str().unwrap();
        let url = command.split(' ').find(|word| word.starts_with("http")).unwrap();
        assert!(url.ends_with(file), "{command}");
        assert!(lab.get(url).starts_with("set -e\n"), "{url}");
    }
}

#[test]
fn cloud_init_has_nothing_against_them() {
    let test = "cloud_init_has_nothing_against_them";
    let peer = cloud_init();
    let program = peer.join("usr/bin/cloud-init");
    if !ready(test, &[program.to_str().unwrap(), "/usr/bin/python3"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let reads = |file: &Path| {
        said(
            apart("exec /usr/bin/python3 \"$0\" schema --config-file \"$1\"", dir.path())
                .arg(&program)
                .arg(file)
                .env("PYTHONPATH", peer.join("usr/lib/python3/dist-packages"))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .output()
                .unwrap(),
        )
    };
    let goldens = fs::read_dir(home("tests/golden/installers/ubuntu")).unwrap();
    let goldens = goldens.map(|e| e.unwrap().path());
    let goldens: Vec<_> = goldens.filter(|p| p.to_string_lossy().ends_with(".user-data")).collect();
    assert!(goldens.len() > 4, "{goldens:?}");
    for golden in goldens {
        let (fine, words) = reads(&golden);
        assert!(fine, "{}: {words}", golden.display());
        // The new system's own, which subiquity hands on.
        let text = fs::read_to_string(&golden).unwrap();
        let (_, own) = text.split_once("\n  user-data:\n").unwrap();
        let own = own.split("\n  ssh:\n").next().unwrap();
        let file = dir.path().join("own");
        fs::write(&file, format!("#cloud-config\n{}\n", own.replace("\n    ", "\n").trim_start()))
            .unwrap();
        let (fine, words) = reads(&file);
        assert!(fine, "{}, for the new system: {words}", golden.display());
    }
    let bad = dir.path().join("bad");
    fs::write(&bad, "#cloud-config\nhostname: [1]\n").unwrap();
    assert!(!reads(&bad).0, "it can complain");
}

/// What Ignition has done to an empty system.
struct Changed {
    root: PathBuf,
}

impl Changed {
    /// By Ignition's stages, as it runs on `platform`; `set` is what the shell does before.
    fn new(lab: &Lab, root: &str, set: &str, platform: &str) -> Changed {
        let root = lab.path(root);
        for (name, text) in [
            ("passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("shadow", "root:*:19000:0:99999:7:::\n"),
            ("group", "root:x:0:\nsudo:x:27:\nwheel:x:10:\ndocker:x:233:\n"),
            ("gshadow", "root:*::\nsudo:*::\nwheel:*::\ndocker:*::\n"),
            ("selinux/config", "SELINUX=permissive\nSELINUXTYPE=targeted\n"),
            ("selinux/targeted/contexts/files/file_contexts", ""),
        ] {
            let path = root.join("etc").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let script = format!(
            "{set}\nfor stage in fetch-offline fetch files; do\n\
             \"$0\" -platform {platform} -stage $stage -root \"$1\" -log-to-stdout\ndone"
        );
        // Labels are the machine's own.
        let bin = lab.path("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("setfiles"), "#!/bin/sh\ncat >/dev/null\n").unwrap();
        fs::set_permissions(bin.join("setfiles"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut path = std::ffi::OsString::from(&bin);
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        let out = apart(&script, lab.dir.path())
            .args([IGNITION.as_ref(), root.as_os_str()])
            .env("PATH", path)
            .env("IGNITION_CONFIG_FILE", lab.path("config.ign"))
            .output()
            .unwrap();
        let (fine, words) = said(out);
        assert!(fine, "{words}\n{}", fs::read_to_string(lab.path("log")).unwrap());
        Changed { root }
    }

    fn text(&self, name: &str) -> String {
        let path = self.root.join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.root.join(name)).unwrap().permissions().mode() & 0o7777
    }
}

/// The live system by what the kernel's arguments or the initrd name, and the new one by what the
/// script in it hands to the installer.
fn ignites(lab: &Lab, script: &str, carried: Option<&str>) {
    let live = match carried {
        None => {
            fs::write(lab.path("cmdline"), format!("{}\n", lab.args)).unwrap();
            Changed::new(lab, "live", "mount --bind cmdline /proc/cmdline", "metal")
        }
        Some(path) => {
            assert!(!lab.args.contains("ignition.config.url"), "{}", lab.args);
            let initrd = lab.command("initrd --name live.ign ");
            let mut words = initrd.split(' ').skip(3);
            let url = words.next().unwrap();
            assert_eq!(words.next(), Some(path), "{initrd}");
            fs::write(lab.path("config.ign"), lab.get(url)).unwrap();
            Changed::new(lab, "live", "", "file")
        }
    };
    assert_eq!(live.mode(script), 0o755);
    let install = live.text(script);
    let unit = live.text("etc/systemd/system/pilotlight-install.service");
    assert!(unit.contains(&format!("\nExecStart=/{script}\n")), "{unit}");
    let preset = live.text("etc/systemd/system-preset/20-ignition.preset");
    assert!(preset.contains("enable pilotlight-install.service\n"), "{preset}");
    assert!(live.text("home/core/.ssh/authorized_keys.d/ignition").contains(KEY));

    let url = install.split('"').find(|word| word.ends_with("/config.ign")).unwrap();
    assert_eq!(lab.get(&url.replace("config.ign", "install.sh")), install);
    assert_eq!(url.starts_with("https:"), carried.is_some(), "{url}");
    assert_eq!(install.contains("--cacert"), carried.is_some(), "{install}");
    fs::write(lab.path("config.ign"), lab.get(url)).unwrap();
    let new = Changed::new(lab, "new", "", "file");
    assert_eq!(new.text("etc/hostname"), "web1\n");
    assert_eq!(new.text("etc/vconsole.conf"), "KEYMAP=us\n");
    let zone = fs::read_link(new.root.join("etc/localtime")).unwrap();
    assert_eq!(zone, Path::new("../usr/share/zoneinfo/Europe/Berlin"));
    let shadow = new.text("etc/shadow");
    for user in ["root", "eva"] {
        assert!(shadow.contains(&format!("{user}:{HASH}:")), "{shadow}");
    }
    assert!(new.text("etc/group").contains("sudo:x:27:eva\n"));
    assert!(new.text("home/eva/.ssh/authorized_keys.d/ignition").contains(KEY));
}

fn coreos(test: &str, tls: Tls, carried: Option<&str>) {
    if !ready(test, &[IGNITION, "xorriso"]) {
        return;
    }
    let files = [
        ("tree/images/pxeboot/vmlinuz", "kernel"),
        ("tree/images/pxeboot/initrd.img", "initrd"),
        ("tree/images/pxeboot/rootfs.img", "system"),
        ("tree/isolinux/isolinux.cfg", ""),
    ];
    let lab = Lab::new(tls, "iso = \"m.iso\" # fedora-coreos-43.20260301.3.0", &files);
    ignites(&lab, "usr/local/bin/pilotlight-install", carried);
}

#[test]
fn ignition_makes_of_them_what_coreos_is() {
    coreos("ignition_makes_of_them_what_coreos_is", Tls::Off, None);
}

#[test]
fn ignition_trusts_our_ca_on_coreos() {
    coreos("ignition_trusts_our_ca_on_coreos", Tls::On, Some("/config.ign"));
}

fn flatcar(test: &str, tls: Tls, carried: Option<&str>) {
    if !ready(test, &[IGNITION]) {
        return;
    }
    let files = [
        ("m/flatcar_production_pxe.vmlinuz", "kernel"),
        ("m/flatcar_production_pxe_image.cpio.gz", "initrd"),
        ("m/version.txt", "FLATCAR_VERSION=4230.2.3\n"),
    ];
    let lab = Lab::new(tls, "dir = \"m\"", &files);
    ignites(&lab, "opt/bin/pilotlight-install", carried);
}

#[test]
fn ignition_makes_of_them_what_flatcar_is() {
    flatcar("ignition_makes_of_them_what_flatcar_is", Tls::Off, None);
}

#[test]
fn ignition_trusts_our_ca_on_flatcar() {
    flatcar("ignition_trusts_our_ca_on_flatcar", Tls::On, Some("/usr/share/oem/config.ign"));
}
