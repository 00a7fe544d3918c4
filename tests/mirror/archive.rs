//! Archives as distributions publish them, made by the distributions' own tools in a folder that
//! ends with the test, signed with a key made for it, and served by nginx.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::lab::{PATIENCE, fetch, program, run};
use crate::upstream::noise;

/// What of these is not here.
pub fn missing(tools: &[&str]) -> Option<String> {
    let gone: Vec<&str> = tools.iter().copied().filter(|t| program(t).is_none()).collect();
    let hint = || format!("{} is not here; scripts/deps test brings it", gone.join(", "));
    (!gone.is_empty()).then(hint)
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A key, in a keyring of its own.
pub struct Signer {
    home: TempDir,
    id: String,
}

impl Signer {
    pub fn new(name: &str) -> Signer {
        let home = tempfile::tempdir().unwrap();
        let mut signer = Signer { home, id: format!("{name} <{name}@archive.example>") };
        run(signer.gpg().args(["--quick-generate-key", &signer.id, "rsa3072", "sign", "never"]));
        let listed = run(signer.gpg().args(["--with-colons", "--list-keys"]));
        let fingerprint = listed.lines().find_map(|l| l.strip_prefix("fpr:::::::::"));
        signer.id = fingerprint.unwrap().trim_end_matches(':').to_string();
        signer
    }

    fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]);
        gpg.arg("--homedir").arg(self.home.path());
        gpg
    }

    /// The public key, armored.
    pub fn export(&self, to: &Path) {
        run(self.gpg().args(["--yes", "--armor", "--output"]).arg(to).args(["--export", &self.id]));
    }

    /// `file`, signed, to another file: `--clear-sign`, or `--detach-sign` with an armor.
    fn sign(&self, how: &str, file: &Path, to: &Path) {
        let mut gpg = self.gpg();
        gpg.args(["--yes", "--armor", "--local-user", &self.id, "--output"]);
        run(gpg.arg(to).arg(how).arg(file));
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // The agent that gpg has started ends with its folder, too, only later.
        let home = self.home.path().display().to_string();
        let _ = Command::new("gpgconf").args(["--homedir", &home, "--kill", "all"]).status();
    }
}

/// A folder of files, and the nginx that serves it.
pub struct Site {
    dir: TempDir,
    nginx: Option<Child>,
    port: u16,
}

impl Site {
    /// Not up yet.
    pub fn new(port: u16) -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap(), nginx: None, port };
        fs::create_dir(site.www()).unwrap();
        site
    }

    pub fn www(&self) -> PathBuf {
        self.dir.path().join("www")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    pub fn up(&mut self) {
        let dir = self.dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log {dir}/error.log;\n\
             events {{}}\nhttp {{\nlog_format bytes '$request_uri $status $body_bytes_sent';\n\
             access_log {dir}/access.log bytes;\n{temporary}default_type application/octet-stream;\n\
             server {{ listen 127.0.0.1:{}; root {dir}/www; }}\n}}\n",
            self.port
        );
        let conf = self.dir.path().join("nginx.conf");
        fs::write(&conf, text).unwrap();
        let mut nginx = Command::new("setpriv");
        nginx.args(["--pdeathsig", "KILL"]).arg(program("nginx").unwrap());
        nginx.arg("-e").arg(self.dir.path().join("error.log")).arg("-c").arg(&conf);
        let child = nginx.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.nginx = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            std::thread::yield_now();
        }
    }

    pub fn down(&mut self) {
        if let Some(mut nginx) = self.nginx.take() {
            nginx.kill().unwrap();
            nginx.wait().unwrap();
        }
    }

    /// Bodies that were sent for a path: one line of nginx's log each.
    pub fn sent(&self, path: &str) -> Vec<u64> {
        let log = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        let words = log.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        words.filter(|w| w[0] == path).map(|w| w[2].parse().unwrap()).collect()
    }

    /// The file itself, past every cache.
    pub fn direct(&self, path: &str) -> Vec<u8> {
        fetch(([127, 0, 0, 1], self.port).into(), "GET", path, &[]).rest().body
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.down();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
            eprintln!("what nginx was asked:\n{log}");
        }
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// nginx tells files apart by their size and the second they are of: each publication has a minute
/// of its own.
fn date(path: &Path, publication: &Cell<u64>) {
    publication.set(publication.get() + 1);
    let at = SystemTime::now() + Duration::from_secs(60 * publication.get());
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

/// All files below a folder, by their path in it.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// Debian's: bookworm, main, amd64, with udebs and an installer.
pub struct Debian {
    pub site: Site,
    pub signer: Signer,
    work: TempDir,
    published: Cell<u64>,
}

pub const IMAGES: &str = "dists/bookworm/main/installer-amd64/current/images";

impl Debian {
    pub const TOOLS: &[&str] = &["reprepro", "dpkg-deb", "gpg", "nginx", "apt-get"];

    pub fn new(port: u16) -> Debian {
        let debian = Debian {
            site: Site::new(port),
            signer: Signer::new("debian"),
            work: tempfile::tempdir().unwrap(),
            published: Cell::default(),
        };
        let distribution = "Codename: bookworm\nSuite: stable\nArchitectures: amd64\n\
                            Components: main\nUDebComponents: main\n";
        write(&debian.work.path().join("conf/distributions"), distribution);
        for (name, udeb) in [("alpha", false), ("beta", false), ("gamma", false), ("netcfg", true)]
        {
            debian.add(name, "1.0", udeb);
        }
        let netboot = debian.site.www().join(IMAGES).join("netboot/debian-installer/amd64");
        write(&netboot.join("linux"), noise(21, 900_000));
        write(&netboot.join("initrd.gz"), noise(22, 2_000_000));
        debian.publish(&debian.signer);
        debian
    }

    /// Into the pool; it counts from [`Debian::publish`] on.
    pub fn add(&self, name: &str, version: &str, udeb: bool) {
        let (kind, section) = if udeb { ("udeb", "debian-installer") } else { ("deb", "misc") };
        let tree = self.work.path().join(format!("{name}-{version}"));
        let seed = name.bytes().chain(version.bytes()).map(u64::from).sum();
        write(&tree.join("usr/share").join(name), noise(seed, 300_000));
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: us <us@archive.example>\n\
             Section: {section}\nPriority: optional\nDescription: {name} for tests\n"
        );
        write(&tree.join("DEBIAN/control"), control);
        let package = self.work.path().join(format!("{name}_{version}_amd64.{kind}"));
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "-z1", "--build"])
            .arg(&tree)
            .arg(&package));
        let mut reprepro = Command::new("reprepro");
        reprepro.args(["--silent", "--ignore=extension", "--basedir"]).arg(self.work.path());
        reprepro.arg("--outdir").arg(self.site.www());
        run(reprepro.args([&format!("include{kind}"), "bookworm"]).arg(&package));
    }

    /// Release as reprepro has it, and what reprepro does not know of: the installer's images, and
    /// indices by their digest. Signed by whom it is told.
    pub fn publish(&self, signer: &Signer) {
        let images = self.site.www().join(IMAGES);
        let mut sums = String::new();
        for file in files(&images).iter().filter(|f| *f != "SHA256SUMS") {
            let digest = sha256(&fs::read(images.join(file)).unwrap());
            writeln!(sums, "{digest}  ./{file}").unwrap();
        }
        write(&images.join("SHA256SUMS"), sums);

        let dists = self.site.www().join("dists/bookworm");
        let mut text = fs::read_to_string(dists.join("Release")).unwrap();
        let own = text.lines().filter(|l| !l.contains("installer-amd64/"));
        text = own.map(|l| format!("{l}\n")).collect();
        if !text.contains("Acquire-By-Hash") {
            text = text.replace("\nMD5Sum:", "\nAcquire-By-Hash: yes\nMD5Sum:");
        }
        let path = "main/installer-amd64/current/images/SHA256SUMS";
        let bytes = fs::read(dists.join(path)).unwrap();
        // The list of SHA-256 is the last of reprepro's.
        assert!(text.rfind("\nSHA256:") > text.rfind("\nSHA1:"), "{text}");
        writeln!(text, " {} {} {path}", sha256(&bytes), bytes.len()).unwrap();
        for file in files(&dists) {
            let (folder, name) = file.rsplit_once('/').unwrap_or(("", &file));
            if name.starts_with("Packages") {
                let bytes = fs::read(dists.join(&file)).unwrap();
                write(&dists.join(folder).join("by-hash/SHA256").join(sha256(&bytes)), bytes);
            }
        }
        write(&dists.join("Release"), text);
        signer.sign("--clear-sign", &dists.join("Release"), &dists.join("InRelease"));
        signer.sign("--detach-sign", &dists.join("Release"), &dists.join("Release.gpg"));
        date(&dists.join("InRelease"), &self.published);
    }

    /// Every package of the pool, by its path in the archive.
    pub fn pool(&self) -> Vec<String> {
        files(&self.site.www()).into_iter().filter(|f| f.starts_with("pool/")).collect()
    }
}

/// Fedora's kind: packages with their metadata, and the tree of an installer.
pub struct Rpm {
    pub site: Site,
    pub signer: Signer,
    work: TempDir,
    published: Cell<u64>,
}

impl Rpm {
    pub const TOOLS: &[&str] = &["createrepo_c", "rpmbuild", "gpg", "nginx"];

    pub fn new(port: u16) -> Rpm {
        let rpm = Rpm {
            site: Site::new(port),
            signer: Signer::new("rpm"),
            work: tempfile::tempdir().unwrap(),
            published: Cell::default(),
        };
        for name in ["alpha", "beta", "gamma"] {
            rpm.add(name, "1.0");
        }
        let www = rpm.site.www();
        let boot = [("vmlinuz", noise(31, 900_000)), ("initrd.img", noise(32, 2_000_000))];
        let mut sums = String::new();
        for (name, bytes) in boot {
            writeln!(sums, "images/pxeboot/{name} = sha256:{}", sha256(&bytes)).unwrap();
            write(&www.join("images/pxeboot").join(name), bytes);
        }
        let treeinfo = format!(
            "[general]\nfamily = Test\nname = Test 9\nversion = 9\narch = x86_64\n\n\
             [images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n\n\
             [checksums]\n{sums}"
        );
        write(&www.join(".treeinfo"), treeinfo);
        rpm.publish(&rpm.signer);
        rpm
    }

    /// Counts from [`Rpm::publish`] on.
    pub fn add(&self, name: &str, version: &str) {
        let top = self.work.path();
        let seed = name.bytes().chain(version.bytes()).map(u64::from).sum();
        write(&top.join("SOURCES").join(name), noise(seed, 300_000));
        let spec = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: {name} for tests\nLicense: MIT\n\
             BuildArch: noarch\nSource0: {name}\n%description\n{name}\n%install\n\
             mkdir -p %{{buildroot}}/usr/share\ncp %{{SOURCE0}} %{{buildroot}}/usr/share/{name}\n\
             %files\n/usr/share/{name}\n"
        );
        let file = top.join(format!("{name}.spec"));
        write(&file, spec);
        let define = |key: &str, value: &dyn std::fmt::Display| format!("{key} {value}");
        run(Command::new("rpmbuild")
            .args(["-bb", "--quiet", "--nodeps", "--define", &define("_topdir", &top.display())])
            .args(["--define", &define("_rpmdir", &self.site.www().join("Packages").display())])
            .args(["--define", &define("_dbpath", &top.join("db").display())])
            .arg(file));
    }

    pub fn publish(&self, signer: &Signer) {
        let www = self.site.www();
        run(Command::new("createrepo_c").args(["--quiet", "--update"]).arg(&www));
        let repomd = www.join("repodata/repomd.xml");
        signer.sign("--detach-sign", &repomd, &www.join("repodata/repomd.xml.asc"));
        date(&repomd, &self.published);
    }

    pub fn packages(&self) -> Vec<String> {
        files(&self.site.www()).into_iter().filter(|f| f.ends_with(".rpm")).collect()
    }
}
