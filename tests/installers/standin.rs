//! A machine that an installer's script meets: disks below a `/sys` made up, and commands that write
//! down how they are called. What a script would do to a real machine stays in a folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub struct Machine {
    dir: TempDir,
}

/// How a script ended, and all the commands that it called, a line each.
pub struct Ran {
    pub ok: bool,
    pub said: String,
    pub calls: Vec<String>,
}

/// Fetches what the folder `answers` has, by its name; what is told to the server is a call.
const FETCH: &str = r#"for arg; do
    case $arg in
        -o | -O) out=next ;;
        http*/report/*) echo "report ${arg##*/}" >>"$HOME/calls" ;;
        http*/answer/*) from=$HOME/answers/${arg##*/} ;;
        *) [ "$out" != next ] || out=$arg ;;
    esac
done
[ -z "$from" ] || if [ -n "$out" ]; then cp "$from" "$out"; else cat "$from"; fi
"#;

impl Machine {
    /// With the disks sda, sdb, … of so many sectors, and the network card of the cases.
    pub fn new(disks: &[u64]) -> Machine {
        let machine = Machine { dir: tempfile::tempdir().unwrap() };
        for (letter, sectors) in ('a'..).zip(disks) {
            machine.file(&format!("sys/block/sd{letter}/size"), &format!("{sectors}\n"));
            machine.file(&format!("sys/block/sd{letter}/removable"), "0\n");
            machine.file(&format!("sys/block/sd{letter}/ro"), "0\n");
            machine.file(&format!("dev/sd{letter}"), "");
        }
        machine.file("sys/class/net/lo/address", "00:00:00:00:00:00\n");
        machine.file("sys/class/net/ens3/address", "52:54:00:12:34:56\n");
        machine.file("calls", "");
        machine.command("curl", FETCH);
        machine.command("wget", FETCH);
        // A script that waits for ever has said what it had to say.
        machine.command("sleep", "kill $PPID\n");
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, name: &str, text: &str) {
        self.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{text}"));
        let path = self.path(&format!("bin/{name}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Has a command that only writes down how it was called, and then runs `more`.
    pub fn records(&self, name: &str, more: &str) {
        self.command(name, &format!("echo \"{name} $*\" >>\"$HOME/calls\"\n{more}"));
    }

    /// Runs a script, with each folder of `moved` below the machine's own.
    pub fn run(&self, shell: &[&str], script: &str, moved: &[&str]) -> Ran {
        let mut script = script.to_string();
        for folder in moved {
            let own = self.path(&folder[1..]);
            fs::create_dir_all(&own).unwrap();
            script = script.replace(folder, own.to_str().unwrap());
        }
        self.file("script", &script.replace("/dev/console", "/dev/stderr"));
        let (program, args) = shell.split_first().unwrap();
        let out = Command::new(program)
            .args(args)
            .arg(self.path("script"))
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("SYS", self.path("sys"))
            .env("DEV", self.path("dev"))
            .env("MOUNTS", "/dev/null")
            .output()
            .unwrap();
        let said = [out.stdout, out.stderr].concat();
        let calls = fs::read_to_string(self.path("calls")).unwrap();
        Ran {
            ok: out.status.success(),
            said: String::from_utf8_lossy(&said).into_owned(),
            calls: calls.lines().map(str::to_string).collect(),
        }
    }

    /// The path of one of its disks, as a script writes it.
    pub fn disk(&self, name: &str) -> String {
        self.path("dev").join(name).display().to_string()
    }
}

pub fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}
