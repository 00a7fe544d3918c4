//! Our iPXE scripts (the folder `ipxe/`, where each is explained), filled.
//!
//! They are templates of an instance of their own, and nothing gets into one but what
//! [`ipxe_value`] let through.

use std::sync::{LazyLock, OnceLock};

use serde::Serialize;
use tera::{Context, Tera};

use super::decide::{Because, LOCAL, offered};
use super::value::{IpxeValue, Live, ipxe_line, ipxe_value, ipxe_word, shown};
use crate::config::Config;
use crate::model::firmware::Firmware;
use crate::model::{Mac, Profile};

/// What a machine says of itself in the query of each request for its script: iPXE's settings,
/// expanded by the machine. `uristring` escapes what the makers of machines write into SMBIOS.
const FACTS: &str = "uuid=${uuid}&serial=${serial:uristring}&asset=${asset:uristring}\
    &manufacturer=${manufacturer:uristring}&product=${product:uristring}\
    &buildarch=${buildarch:uristring}&platform=${platform:uristring}\
    &version=${version:uristring}&memsize=${memsize}";

/// Pauses in seconds between the tries to get the machine's script: three minutes in all, which is
/// a switch that restarts, or a server.
const ENTRY_PAUSES: [u32; 7] = [2, 5, 10, 20, 30, 60, 60];

static SCRIPTS: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::new();
    tera.add_raw_templates([
        ("again.ipxe", include_str!("../../ipxe/again.ipxe")),
        ("discover.ipxe", include_str!("../../ipxe/discover.ipxe")),
        ("commands.ipxe", include_str!("../../ipxe/commands.ipxe")),
        ("disk.ipxe", include_str!("../../ipxe/disk.ipxe")),
        ("entry.ipxe", include_str!("../../ipxe/entry.ipxe")),
        ("held.ipxe", include_str!("../../ipxe/held.ipxe")),
        ("lease.ipxe", include_str!("../../ipxe/lease.ipxe")),
        ("local.ipxe", include_str!("../../ipxe/local.ipxe")),
        ("machine.ipxe", include_str!("../../ipxe/machine.ipxe")),
        ("menu.ipxe", include_str!("../../ipxe/menu.ipxe")),
        ("refuse.ipxe", include_str!("../../ipxe/refuse.ipxe")),
        ("wait.ipxe", include_str!("../../ipxe/wait.ipxe")),
    ])
    .expect("compiled in; every one of them is rendered by a test");
    tera
});

fn fill(name: &str, context: impl Serialize) -> String {
    Context::from_serialize(&context)
        .and_then(|context| SCRIPTS.render(name, &context))
        .expect("compiled in, with the variables of the struct beside it; rendered by a test")
}

/// Where a second loader is fetched. It asks for its own `autoexec.ipxe` beside that, which has no
/// third: so one that is told of no CA either, because another DHCP server answered it, ends with
/// the tries of that script.
const AGAIN: &str = "/loader/again/";

/// What a loader is told that knows no CA of ours.
pub struct Untold<'a> {
    /// `http://IP[:port]`.
    pub http: &'a str,
    /// The loader that DHCP would name to each firmware that boots by HTTP.
    pub loaders: Vec<(&'static Firmware, &'a str)>,
}

/// `autoexec.ipxe` and `boot.ipxe`: from a loader that has just started to the machine's own
/// script. `base` is `http://IP[:port]` or `https://IP[:port]`; `untold` is for a loader that came by
/// UEFI HTTP boot, and so was told of no CA of ours.
pub fn entry(base: &str, untold: Option<&Untold>) -> String {
    #[derive(Serialize)]
    struct Loader {
        arch: &'static str,
        file: IpxeValue,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        second: Option<IpxeValue>,
        loaders: Vec<Loader>,
        base: IpxeValue,
        facts: &'a str,
        pauses: &'a [u32],
        tls: bool,
    }
    let loader = |(firmware, file): &(&Firmware, &str)| Loader {
        arch: firmware.cpu.buildarch(),
        file: shown(file),
    };
    fill(
        "entry.ipxe",
        Entry {
            base: shown(base),
            second: untold.map(|u| shown(&format!("{}{AGAIN}", u.http))),
            loaders: untold.iter().flat_map(|u| &u.loaders).map(loader).collect(),
            facts: FACTS,
            pauses: &ENTRY_PAUSES,
            tls: base.starts_with("https:"),
        },
    )
}

/// Who a script is for and where it asks again.
#[derive(Clone, Debug)]
pub struct For<'a> {
    pub mac: Mac,
    /// The name it is declared by; its MAC where it is not.
    pub name: &'a str,
    /// `http://IP[:port]` or `https://IP[:port]`.
    pub base: &'a str,
    /// What was chosen in the menu, to be asked for again.
    pub choose: Option<&'a str>,
}

impl For<'_> {
    fn here(&self) -> String {
        [shown(self.base).as_str(), "/boot/", &self.mac.hexhyp(), ".ipxe"].concat()
    }

    fn again(&self) -> String {
        let choose = self.choose.map(|c| format!("choose={}&", url_word(c))).unwrap_or_default();
        [&self.here(), "?", &choose, FACTS, "&ip=${netX/ip}"].concat()
    }
}

/// One file that a machine fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub url: String,
    /// The name under which iPXE keeps it, and by which a UEFI kernel finds its initrd.
    pub name: String,
    /// Its name or its path in a cpio archive: iPXE puts a file that has arguments into one, where the
    /// first of them is its name. wimboot knows its files by that; Linux would not find its own initrd.
    pub file: Option<String>,
}

/// Kernel and initrds of a profile, with the arguments as rendered and checked.
///
/// # Errors
/// [`Live`], where a value would mean something to iPXE.
pub fn machine(
    who: &For<'_>,
    profile: &Profile,
    kernel: &str,
    args: &IpxeValue,
    initrds: &[Fetch],
) -> Result<String, Live> {
    let url = ipxe_word(kernel)?;
    let command = ipxe_line("kernel", &[&url, args])?;
    let mut files = vec![File { what: "kernel", url, command }];
    for initrd in initrds {
        let url = ipxe_word(&initrd.url)?;
        let name = ipxe_word(&initrd.name)?;
        // Of its own accord iPXE makes no folders on the way.
        let file = initrd.file.as_deref().map(|file| match file.rfind('/') {
            Some(1..) => ipxe_value(&format!("{file} mkdir=-1")),
            _ => ipxe_word(file),
        });
        let file = file.transpose()?;
        let words: Vec<_> = [&name, &url].into_iter().chain(&file).collect();
        let command = ipxe_line("initrd --name", &words)?;
        files.push(File { what: "initrd", url, command });
    }
    let values = Values {
        machine: shown(who.name),
        profile: ipxe_value(&profile.title)?,
        files,
        again: who.again(),
    };
    Ok(match SHAPES.get(values.files.len()) {
        Some(shape) => shaped(shape.get_or_init(|| shape_of(values.files.len())), &values),
        None => fill("machine.ipxe", values),
    })
}

/// Commands of an installer, one after the other, and then the local disk.
///
/// # Errors
/// [`Live`], for the profile's title.
pub fn commands(who: &For<'_>, profile: &Profile, lines: Vec<IpxeValue>) -> Result<String, Live> {
    #[derive(Serialize)]
    struct Commands {
        machine: IpxeValue,
        profile: IpxeValue,
        lines: Vec<IpxeValue>,
        again: String,
    }
    let (machine, profile) = (shown(who.name), ipxe_value(&profile.title)?);
    Ok(fill("commands.ipxe", Commands { machine, profile, lines, again: who.again() }))
}

/// What `machine.ipxe` is filled with.
#[derive(Serialize)]
struct Values<V = IpxeValue, W = &'static str, A = String> {
    machine: V,
    profile: V,
    files: Vec<File<V, W>>,
    again: A,
}

#[derive(Serialize)]
struct File<V = IpxeValue, W = &'static str> {
    what: W,
    url: V,
    command: V,
}

/// A part of `machine.ipxe`.
enum Part {
    Text(String),
    /// The place of a value.
    Machine,
    Profile,
    Again,
    What(usize),
    Url(usize),
    Command(usize),
}

/// `machine.ipxe` by the number of its files, filled once: a hall of machines that is switched on
/// asks for thousands, and it depends on nothing but that number what is around the values.
static SHAPES: [OnceLock<Vec<Part>>; 12] = [const { OnceLock::new() }; 12];

/// What no value and no script of ours has.
const MARK: char = '\u{1}';

fn shape_of(files: usize) -> Vec<Part> {
    let mark = |what: &str, n: usize| format!("{MARK}{what}{n}{MARK}");
    let file = |n| File { what: mark("w", n), url: mark("u", n), command: mark("c", n) };
    let marks = Values {
        machine: mark("m", 0),
        profile: mark("p", 0),
        files: (0..files).map(file).collect(),
        again: mark("a", 0),
    };
    let part = |(place, text): (usize, &str)| {
        // Every second part is between two marks.
        let (what, n) = text.split_at_checked(1).filter(|_| place % 2 == 1).unwrap_or_default();
        match (what, n.parse()) {
            ("m", _) => Part::Machine,
            ("p", _) => Part::Profile,
            ("a", _) => Part::Again,
            ("w", Ok(n)) => Part::What(n),
            ("u", Ok(n)) => Part::Url(n),
            ("c", Ok(n)) => Part::Command(n),
            _ => Part::Text(text.to_string()),
        }
    };
    fill("machine.ipxe", marks).split(MARK).enumerate().map(part).collect()
}

fn shaped(shape: &[Part], values: &Values) -> String {
    let mut out = String::with_capacity(4096);
    for part in shape {
        out.push_str(match part {
            Part::Text(text) => text,
            Part::Machine => values.machine.as_str(),
            Part::Profile => values.profile.as_str(),
            Part::Again => &values.again,
            Part::What(n) => values.files[*n].what,
            Part::Url(n) => values.files[*n].url.as_str(),
            Part::Command(n) => values.files[*n].command.as_str(),
        });
    }
    out
}

/// The menu of a machine that nothing is declared for.
///
/// A UEFI machine is not offered what BIOS alone can start.
pub fn menu(who: &For<'_>, config: &Config, why: &Because, uefi: bool) -> String {
    #[derive(Serialize)]
    struct Item {
        name: String,
        title: IpxeValue,
    }
    #[derive(Serialize)]
    struct Menu<'a> {
        title: IpxeValue,
        mac: IpxeValue,
        why: IpxeValue,
        profiles: Vec<Item>,
        /// In milliseconds, as `choose` wants it; 0 would wait for ever.
        timeout: u128,
        here: String,
        facts: &'a str,
        local: &'a str,
    }
    let item = |p: &Profile| Item { name: url_word(&p.name), title: shown(&p.title) };
    fill(
        "menu.ipxe",
        Menu {
            title: shown(&config.menu.title),
            mac: shown(&who.mac.to_string()),
            why: shown(&why.to_string()),
            profiles: offered(config).filter(|p| !(uefi && p.is_bios_only())).map(item).collect(),
            timeout: config.menu.timeout.as_millis().max(1),
            here: who.here(),
            facts: FACTS,
            local: LOCAL,
        },
    )
}

/// Asks by DHCP once more, and for the machine's script with `again=1`.
pub fn lease(who: &For<'_>) -> String {
    #[derive(Serialize)]
    struct Lease {
        machine: IpxeValue,
        again: String,
    }
    fill("lease.ipxe", Lease { machine: shown(who.name), again: who.again() })
}

/// On to the local disk.
pub fn local(why: &dyn std::fmt::Display) -> String {
    #[derive(Serialize)]
    struct Local {
        why: IpxeValue,
    }
    fill("local.ipxe", Local { why: shown(&why.to_string()) })
}

/// All attempts to install it failed: why, what to type, and its own disk.
pub fn held(who: &For<'_>, why: &str) -> String {
    #[derive(Serialize)]
    struct Held {
        machine: IpxeValue,
        why: Vec<IpxeValue>,
    }
    fill("held.ipxe", Held { machine: shown(who.name), why: lines(why) })
}

/// What the machine says of itself, until somebody assigns it.
pub fn discover(who: &For<'_>) -> String {
    #[derive(Serialize)]
    struct Discover {
        mac: IpxeValue,
        again: String,
    }
    fill("discover.ipxe", Discover { mac: shown(&who.mac.to_string()), again: who.again() })
}

/// Something must be mended here first: the machine's screen says what, and it asks again. `what`
/// is at fault, and `why` is how.
pub fn wait(who: &For<'_>, what: &str, why: &str) -> String {
    #[derive(Serialize)]
    struct Wait {
        machine: IpxeValue,
        what: IpxeValue,
        why: Vec<IpxeValue>,
        again: String,
    }
    let (machine, what, why, again) = (shown(who.name), shown(what), lines(why), who.again());
    fill("wait.ipxe", Wait { machine, what, why, again })
}

/// No, and why.
pub fn refuse(who: &str, why: &str) -> String {
    #[derive(Serialize)]
    struct Refuse {
        machine: IpxeValue,
        why: Vec<IpxeValue>,
    }
    fill("refuse.ipxe", Refuse { machine: shown(who), why: lines(why) })
}

/// At most as many lines as leave the rest of a screen of 25 readable.
fn lines(text: &str) -> Vec<IpxeValue> {
    text.lines().take(8).map(shown).collect()
}

/// A name as one value of a URL's query.
fn url_word(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_by_its_shape_is_as_the_template_has_it() {
        let value = |text: &str| ipxe_value(text).unwrap();
        for count in 1..SHAPES.len() {
            let values = || Values {
                machine: value("web1"),
                profile: value("Debian {{ machine }}"),
                files: (0..count)
                    .map(|n| File {
                        what: "initrd",
                        url: value(&format!("http://a/{n}")),
                        command: value(&format!("initrd --name {n} http://a/{n}")),
                    })
                    .collect(),
                again: "http://a/again".into(),
            };
            let shaped = shaped(&shape_of(count), &values());
            assert!(!shaped.contains(MARK));
            assert_eq!(shaped, fill("machine.ipxe", values()), "{count}");
        }
    }
}
