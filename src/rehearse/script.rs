//! Our iPXE scripts, as a machine would go through them. Pure.
//!
//! 1. [`Script::new`] takes a text, and [`Script::step`] goes on to the next command that needs the
//!    world: a fetch, or the end. What became of the fetch is told to the next step.
//! 2. A line is commands with `||` and `&&` between them, run as iPXE's shell does: one that fails
//!    with nothing behind it ends the script.
//! 3. `${…}` is what was set, or what the machine says of itself; the innermost first.
//!
//! It knows the commands that our scripts use, and says so of any other.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::model::event::plain;
use crate::model::{Cpu, Family, Firmware, Mac, Why};

/// Commands of one script: ours have a hundred, and loops that end.
const STEPS: usize = 2000;
/// Replacements in one token.
const DEPTH: usize = 32;
/// The longest script, in bytes.
pub const LIMIT: usize = 1 << 20;

/// What a machine says of itself.
#[derive(Clone, Debug)]
pub struct Machine {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub firmware: &'static Firmware,
}

impl Machine {
    /// The value of one of iPXE's settings; what a pretended machine has not is empty.
    fn setting(&self, name: &str) -> String {
        let name = name
            .strip_prefix("netX/")
            .or(name.strip_prefix("net0/"))
            .map_or_else(|| name.to_string(), |of_card| format!("card/{of_card}"));
        let (name, kind) = name.split_once(':').unwrap_or((&name, ""));
        let value = match name {
            "card/ip" | "ip" => self.address.to_string(),
            "card/mac" | "mac" if kind == "hexhyp" => return self.mac.hexhyp(),
            "card/mac" | "mac" => self.mac.to_string(),
            "manufacturer" => "pilotlight".into(),
            "product" => "rehearsal".into(),
            "version" => "2.0.0".into(),
            "platform" => match self.firmware.family {
                Family::Bios => "pcbios".into(),
                Family::Uefi => "efi".into(),
            },
            "buildarch" => match self.firmware.cpu {
                Cpu::X86 => "i386",
                Cpu::X64 => "x86_64",
                Cpu::Arm32 => "arm32",
                Cpu::Arm64 => "arm64",
                Cpu::Riscv64 => "riscv64",
                Cpu::Loong64 => "loong64",
            }
            .into(),
            _ => String::new(),
        };
        // RFC 3986 section 2.3.
        const LIVE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        match kind {
            "uristring" => utf8_percent_encode(&value, &LIVE).to_string(),
            _ => value,
        }
    }
}

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Script,
    Kernel,
    Initrd,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Fetch(What, String),
    /// The kernel starts, with these arguments.
    Boots(Vec<String>),
    Ends(End),
    Stuck(Stuck),
}

/// Ends that are none of the rehearsal's failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Menu,
    LocalDisk,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Menu => {
                "ended in the menu, as machines do that are not declared; nothing behind it was \
                 rehearsed (--config FILE rehearses those that are)"
            }
            End::LocalDisk => "ended at its local disk, as it is declared to",
        })
    }
}

/// Why a script does not lead to a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// It sleeps before it tries again: what its screen says.
    Waits(String),
    /// A command that this rehearsal does not know.
    Unknown(String),
    NoScript,
    NoLabel(String),
    Endless,
    NoKernel,
}

impl Why for Stuck {
    fn name(&self) -> &'static str {
        match self {
            Stuck::Waits(_) => "waits",
            Stuck::Unknown(_) => "unknown-command",
            Stuck::NoScript => "no-script",
            Stuck::NoLabel(_) => "no-label",
            Stuck::Endless => "endless",
            Stuck::NoKernel => "no-kernel",
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stuck::Waits(screen) => write!(f, "the machine has to wait, its screen says: {screen}"),
            Stuck::Unknown(word) => write!(f, "a rehearsal does not know iPXE's command {word}"),
            Stuck::NoScript => f.write_str("what came is no iPXE script"),
            Stuck::NoLabel(label) => write!(f, "the script has no label {label}"),
            Stuck::Endless => f.write_str("the script goes round in circles"),
            Stuck::NoKernel => f.write_str("the script boots without a kernel"),
        }
    }
}

/// How one command ended.
enum Ran {
    Good,
    Bad,
    Goto(String),
    Out(Step),
}

/// A script and how far the machine is in it.
#[derive(Debug)]
pub struct Script {
    lines: Vec<String>,
    /// The next command: its line, and its place in it.
    at: (usize, usize),
    /// How the last one ended.
    good: bool,
    set: HashMap<String, String>,
    kernel: Option<Vec<String>>,
    screen: Vec<String>,
    steps: usize,
}

/// A command and what stands before it.
struct Command {
    runs_if: Option<bool>,
    words: Vec<String>,
}

impl Script {
    /// # Errors
    /// A text that does not begin with `#!ipxe`.
    pub fn new(text: &[u8]) -> Result<Script, Stuck> {
        let text = std::str::from_utf8(text).map_err(|_| Stuck::NoScript)?;
        if !text.starts_with("#!ipxe") || text.len() > LIMIT {
            return Err(Stuck::NoScript);
        }
        let lines = text.lines().map(|l| l.trim().to_string()).collect();
        Ok(Script {
            lines,
            at: (0, 0),
            good: true,
            set: HashMap::new(),
            kernel: None,
            screen: Vec::new(),
            steps: 0,
        })
    }

    /// Goes on to the next thing that needs the world; `good` is how the last fetch ended.
    pub fn step(&mut self, machine: &Machine, good: bool) -> Step {
        self.good = good;
        while let Some(line) = self.lines.get(self.at.0) {
            self.steps += 1;
            if self.steps > STEPS {
                return Step::Stuck(Stuck::Endless);
            }
            let commands = commands(line);
            let Some(command) = commands.get(self.at.1) else {
                if !self.good {
                    // iPXE leaves the script, and goes back to the firmware.
                    return Step::Stuck(Stuck::Waits(self.screen()));
                }
                self.at = (self.at.0 + 1, 0);
                continue;
            };
            self.at.1 += 1;
            if self.at.1 == 1 {
                self.good = true;
            }
            if command.runs_if.is_some_and(|wanted| wanted != self.good) {
                continue;
            }
            let words: Vec<String> = command
                .words
                .iter()
                .map(|word| self.expand(machine, word))
                .filter(|word| !word.is_empty())
                .collect();
            match self.run(&words) {
                Ran::Good => self.good = true,
                Ran::Bad => self.good = false,
                Ran::Goto(label) => {
                    let Some(at) =
                        self.lines.iter().position(|l| l.strip_prefix(':') == Some(&label))
                    else {
                        return Step::Stuck(Stuck::NoLabel(plain(&label, 40)));
                    };
                    self.good = true;
                    self.at = (at, 0);
                }
                Ran::Out(step) => return step,
            }
        }
        Step::Ends(End::LocalDisk)
    }

    fn run(&mut self, words: &[String]) -> Ran {
        let Some((command, words)) = words.split_first() else { return Ran::Good };
        let word = |at: usize| words.get(at).map_or("", String::as_str);
        let yes = |yes: bool| if yes { Ran::Good } else { Ran::Bad };
        match command.as_str() {
            "echo" => {
                self.screen.push(words.join(" "));
                Ran::Good
            }
            "set" => {
                let name = word(0).split(':').next().unwrap_or_default().to_string();
                self.set.insert(name, words.get(1..).unwrap_or_default().join(" "));
                Ran::Good
            }
            "inc" => {
                let value = self.set.entry(word(0).to_string()).or_default();
                *value = (value.parse().unwrap_or(0u32).wrapping_add(1)).to_string();
                Ran::Good
            }
            "isset" => yes(!words.is_empty()),
            "iseq" => yes(word(0) == word(1)),
            "goto" => Ran::Goto(word(0).to_string()),
            "ifopen" | "imgfree" | "ifstat" | "prompt" => Ran::Good,
            // It has its address, or would not be here.
            "dhcp" => Ran::Good,
            "chain" => Ran::Out(Step::Fetch(What::Script, url(words))),
            "kernel" => {
                let at = words.iter().position(|w| !w.starts_with("--")).unwrap_or(0);
                self.kernel = Some(words.get(at + 1..).unwrap_or_default().to_vec());
                Ran::Out(Step::Fetch(What::Kernel, url(words)))
            }
            "initrd" | "imgfetch" => Ran::Out(Step::Fetch(What::Initrd, url(words))),
            "boot" => Ran::Out(match self.kernel.take() {
                Some(words) => Step::Boots(words),
                None => Step::Stuck(Stuck::NoKernel),
            }),
            "menu" | "choose" => Ran::Out(Step::Ends(End::Menu)),
            "exit" | "sanboot" => Ran::Out(Step::Ends(End::LocalDisk)),
            "sleep" => Ran::Out(Step::Stuck(Stuck::Waits(self.screen()))),
            other if other.starts_with(':') || other.starts_with('#') => Ran::Good,
            other => Ran::Out(Step::Stuck(Stuck::Unknown(plain(other, 40)))),
        }
    }

    /// The last lines of the machine's screen.
    fn screen(&self) -> String {
        let said: Vec<&str> =
            self.screen.iter().map(|l| l.trim()).filter(|l| !l.is_empty()).collect();
        plain(&said[said.len().saturating_sub(4)..].join("; "), 200)
    }

    fn expand(&self, machine: &Machine, word: &str) -> String {
        let mut text = word.to_string();
        for _ in 0..DEPTH {
            // The last `${` is an innermost one.
            let Some(from) = text.rfind("${") else { break };
            let Some(len) = text[from..].find('}') else { break };
            let name = &text[from + 2..from + len];
            let value = match self.set.get(name) {
                Some(value) => value.clone(),
                None => machine.setting(name),
            };
            text.replace_range(from..=from + len, &value);
        }
        text
    }
}

/// The first word that is no option; `--name` and `--timeout` take one more.
fn url(words: &[String]) -> String {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--name" | "--timeout" => drop(words.next()),
            option if option.starts_with("--") => {}
            url => return url.to_string(),
        }
    }
    String::new()
}

fn commands(line: &str) -> Vec<Command> {
    let mut all = vec![Command { runs_if: None, words: Vec::new() }];
    if line.starts_with('#') || line.starts_with(':') {
        return all;
    }
    for word in line.split_whitespace() {
        let runs_if = match word {
            "||" => Some(false),
            "&&" => Some(true),
            _ => {
                if let Some(command) = all.last_mut() {
                    command.words.push(word.to_string());
                }
                continue;
            }
        };
        all.push(Command { runs_if, words: Vec::new() });
    }
    all
}

/// The URLs of answer files that a kernel's arguments name, as installers ask for them.
///
/// `ds=nocloud;s=URL/` is a folder (cloud-init's seed): what is in it always are `user-data` and
/// `meta-data`.
pub fn answers(args: &[String]) -> Vec<String> {
    const KEYS: [&str; 9] = [
        "ks",
        "inst.ks",
        "preseed/url",
        "url",
        "autoyast",
        "agama.auto",
        "coreos.inst.ignition_url",
        "ignition.config.url",
        "talos.config",
    ];
    let mut all = Vec::new();
    for arg in args {
        let Some((key, value)) = arg.split_once('=') else { continue };
        let is_url = |v: &str| v.starts_with("http://") || v.starts_with("https://");
        if key == "ds" {
            let seed = value.split(';').find_map(|p| {
                p.strip_prefix("s=").or(p.strip_prefix("seedfrom=")).filter(|s| is_url(s))
            });
            all.extend(
                seed.iter().flat_map(|s| ["meta-data", "user-data"].map(|n| format!("{s}{n}"))),
            );
        } else if is_url(value) && (KEYS.contains(&key) || value.contains("/answer/")) {
            // Ubuntu's `url` is an image of gigabytes.
            if !value.ends_with(".iso") {
                all.push(value.to_string());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::script;

    fn machine(arch: &str) -> Machine {
        Machine {
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            address: Ipv4Addr::new(10, 77, 0, 100),
            firmware: Firmware::by_name(arch).unwrap(),
        }
    }

    fn golden(name: &str) -> Script {
        let path = format!("{}/tests/golden/{name}.ipxe.snap", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        Script::new(&text.as_bytes()[text.find("#!ipxe").unwrap()..]).unwrap()
    }

    #[test]
    fn the_entry_leads_to_the_machines_own_script() {
        let text = script::entry("http://10.77.0.1", None);
        let mut entry = Script::new(text.as_bytes()).unwrap();
        let step = entry.step(&machine("uefi-x64"), true);
        let Step::Fetch(What::Script, url) = step else { panic!("{step:?}") };
        assert!(url.starts_with("http://10.77.0.1/boot/52-54-00-00-00-01.ipxe?uuid=&"), "{url}");
        assert!(url.contains("&buildarch=x86_64&platform=efi&"), "{url}");
        assert!(url.contains("&memsize=&"), "no memory is too little for any profile: {url}");
        assert!(url.ends_with("&ip=10.77.0.100"), "{url}");
        let again = entry.step(&machine("uefi-x64"), false);
        let Step::Stuck(Stuck::Waits(screen)) = again else { panic!("{again:?}") };
        assert!(screen.contains("gave no script") || screen.contains("trying again"), "{screen}");
    }

    #[test]
    fn a_machines_script_fetches_everything_and_boots() {
        let (mut script, machine) = (golden("machine"), machine("bios"));
        let mut fetched = Vec::new();
        let args = loop {
            match script.step(&machine, true) {
                Step::Fetch(what, url) => fetched.push((what, url)),
                Step::Boots(args) => break args,
                step => panic!("{step:?} after {fetched:?}"),
            }
        };
        assert_eq!(fetched[0].0, What::Kernel);
        assert!(fetched[1..].iter().all(|(what, _)| *what == What::Initrd) && fetched.len() > 1);
        assert!(fetched.iter().all(|(_, url)| url.starts_with("http")), "{fetched:?}");
        assert!(!args.is_empty());
        let mut script = golden("machine");
        script.step(&machine, true);
        let failed = script.step(&machine, false);
        assert!(matches!(failed, Step::Stuck(Stuck::Waits(_))), "{failed:?}");
    }

    #[test]
    fn menus_disks_and_refusals_are_ends_by_name() {
        let machine = machine("bios");
        assert_eq!(golden("menu").step(&machine, true), Step::Ends(End::Menu));
        assert_eq!(golden("local").step(&machine, true), Step::Ends(End::LocalDisk));
        for name in ["wait", "refuse"] {
            let step = golden(name).step(&machine, true);
            assert!(matches!(step, Step::Stuck(Stuck::Waits(_))), "{name}: {step:?}");
        }
    }

    #[test]
    fn the_shell_is_ipxes() {
        let run = |text: &str| {
            Script::new(format!("#!ipxe\n{text}").as_bytes()).unwrap().step(&machine("bios"), true)
        };
        let chained = |url: &str| Step::Fetch(What::Script, url.into());
        assert_eq!(run("isset ${no} && chain a || chain b"), chained("b"));
        assert_eq!(run("isset ${ip} && chain a || chain b"), chained("a"));
        assert_eq!(
            run("set n net0\nchain --replace --timeout 3 x/${${n}/ip}"),
            chained("x/10.77.0.100")
        );
        assert_eq!(
            run("set i:int32 0\n:again\ninc i\niseq ${i} 3 || goto again\nchain ${i}"),
            chained("3")
        );
        assert_eq!(run("goto nowhere"), Step::Stuck(Stuck::NoLabel("nowhere".into())));
        assert_eq!(run(":a\ngoto a"), Step::Stuck(Stuck::Endless));
        assert_eq!(run("fdt x"), Step::Stuck(Stuck::Unknown("fdt".into())));
        assert_eq!(run("echo no\niseq 1 2"), Step::Stuck(Stuck::Waits("no".into())));
        assert_eq!(run("boot"), Step::Stuck(Stuck::NoKernel));
        assert_eq!(Script::new(b"<html>").err(), Some(Stuck::NoScript));
    }

    #[test]
    fn answers_are_found_where_installers_look() {
        let args = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        for (text, wanted) in [
            ("inst.ks=http://a/b/answer/ks.cfg quiet", vec!["http://a/b/answer/ks.cfg"]),
            ("auto=true url=https://a/p.cfg", vec!["https://a/p.cfg"]),
            ("url=http://a/ubuntu.iso", vec![]),
            (
                "autoinstall ds=nocloud;s=http://a/seed/",
                vec!["http://a/seed/meta-data", "http://a/seed/user-data"],
            ),
            ("pl.seed=http://a/b/t/answer/seed", vec!["http://a/b/t/answer/seed"]),
            ("inst.repo=http://a/files/x ks=file:/ks", vec![]),
        ] {
            assert_eq!(answers(&args(text)), wanted, "{text}");
        }
    }
}
