//! pxelinux.cfg: a folder of it, or one of its files (SYSLINUX's doc/syslinux.txt, pxelinux.txt and
//! menu.txt).
//!
//! 1. [`Parser`] makes a [`Menu`] of a file and of those that it includes: entries, each with its
//!    kernel, and what stands outside of them.
//! 2. The file `default` becomes profiles and `[menu]`; what was the default is told if it is not
//!    the local disk, since here it always is.
//! 3. A file that is named after a machine (`01-MAC`, its address in hex, its UUID) becomes a
//!    `[[machine]]`, with the profile that was the file's default.
//! 4. What the arguments name of the folder that the web server had gets its URL of ours.
//!
//! Paths are of the TFTP root: of the folder that `pxelinux.cfg` lies in, unless another is named.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::draft::{Boots, Draft, Profile};
use super::{Files, Here, INCLUDE_DEPTH, NoFile, Reason, name_of, quoted, shown, within};
use crate::boot::value::ipxe_value;
use crate::config::LOCAL_DISK;
use crate::model::Mac;

/// Entries of one menu with its submenus. SYSLINUX itself has room for some thousands.
const ENTRIES: usize = 4096;
/// The name of the `[[files]]` that is the TFTP root, and of that which the web server had.
const TFTP: &str = "tftp";
const HTTP: &str = "http";

/// Where files were served from.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    pub tftp: Option<PathBuf>,
    pub http: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    label: String,
    title: Option<(String, Here)>,
    /// Whether `LINUX` says that it is a kernel, whatever it is called.
    linux: bool,
    kernel: Option<(String, Here)>,
    append: Option<(String, Here)>,
    initrd: Option<(String, Here)>,
    /// The arguments are those of all entries.
    inherits: bool,
    ipappend: Option<(u32, Here)>,
    local: bool,
    default: Option<Here>,
    hidden: bool,
    disabled: bool,
    at: Option<Here>,
}

impl Entry {
    /// The lines that name its files and arguments.
    fn files(&self) -> impl Iterator<Item = &Here> {
        let append = self.append.as_ref().filter(|_| !self.inherits);
        [self.kernel.as_ref(), self.initrd.as_ref(), append]
            .into_iter()
            .filter_map(|said| said.map(|(_, at)| at))
    }
}

#[derive(Default)]
struct Menu {
    entries: Vec<Entry>,
    title: Option<(String, Here)>,
    timeout: Option<(u64, Here)>,
    default: Option<(String, Here)>,
    ontimeout: Option<(String, Here)>,
    append: Option<(String, Here)>,
    shown: bool,
    prompt: bool,
}

impl Menu {
    /// Whether nothing is booted until somebody chooses: a menu or a prompt without a time-out.
    fn waits(&self) -> bool {
        (self.shown || self.prompt) && self.timeout.as_ref().is_none_or(|(tenths, _)| *tenths == 0)
    }
}

/// Reads a folder, or one file, into the draft. A file's `text` has been read already.
pub fn import(
    draft: &mut Draft,
    files: &dyn Files,
    roots: &Roots,
    path: &Path,
    text: Option<&str>,
) -> Result<(), NoFile> {
    let folder = match text {
        Some(_) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
        None => path.to_path_buf(),
    };
    let base = match folder.file_name().is_some_and(|n| n == "pxelinux.cfg") {
        true => folder.parent().map(Path::to_path_buf).unwrap_or_default(),
        false => folder,
    };
    let tftp = roots.tftp.clone().or_else(|| draft.tftp.as_ref().map(|(dir, _)| dir.clone()));
    let root = tftp.unwrap_or_else(|| base.clone());
    let (root, base) = (files.here().join(root), files.here().join(base));
    let base = within(&root, &base).unwrap_or_else(|| root.clone());
    let (seen, missing) = Default::default();
    draft.menus = true;
    let mut importer = Importer { draft, files, roots, root, base, seen, missing };
    match text {
        Some(text) => importer.one(path, text),
        None => importer.folder(files.list(path)?),
    }
    Ok(())
}

struct Importer<'a> {
    draft: &'a mut Draft,
    files: &'a dyn Files,
    roots: &'a Roots,
    /// The TFTP root.
    root: PathBuf,
    /// What relative paths are of.
    base: PathBuf,
    /// Files that others have included.
    seen: BTreeSet<PathBuf>,
    /// Files that are not there, and have been told.
    missing: BTreeSet<PathBuf>,
}

/// Whom a file is for.
enum For {
    All,
    Mac(Mac),
    Uuid(String),
    Address(Ipv4Addr),
    Some,
    OtherType,
    Nobody,
}

fn whose(name: &str) -> For {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_hexdigit());
    if name == "default" {
        return For::All;
    }
    if uuid::Uuid::try_parse(name).is_ok() && name.len() == 36 {
        return For::Uuid(name.to_ascii_lowercase());
    }
    if let Some((kind, mac)) = name.split_once('-')
        && kind.len() == 2
        && digits(kind)
    {
        return match mac.parse() {
            Ok(mac) if kind == "01" => For::Mac(mac),
            Ok(_) => For::OtherType,
            Err(_) => For::Nobody,
        };
    }
    // In capitals: pxelinux asks for no other.
    if name.len() <= 8 && digits(name) && !name.bytes().any(|b| b.is_ascii_lowercase()) {
        return match u32::from_str_radix(name, 16) {
            Ok(n) if name.len() == 8 => For::Address(n.into()),
            _ => For::Some,
        };
    }
    For::Nobody
}

/// Whether pxelinux asks for a file of this name.
pub fn is_asked_for(name: &std::ffi::OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    matches!(whose(name), For::All | For::Mac(_) | For::Uuid(_) | For::Address(_) | For::OtherType)
}

impl Importer<'_> {
    fn folder(&mut self, all: Vec<PathBuf>) {
        let name = |p: &PathBuf| p.file_name().unwrap_or_default().to_string_lossy().to_string();
        let (first, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| name(p) == "default");
        let (known, unknown): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|p| !matches!(whose(&name(p)), For::Nobody));
        for path in first.into_iter().chain(known) {
            match self.files.read(&path) {
                Ok(text) => self.one(&path, &text),
                Err(why) => self.draft.leave(&whole(&path, ""), Reason::NotRead(why)),
            }
        }
        for path in unknown {
            let full = self.files.here().join(&path);
            if !within(&self.root, &full).is_some_and(|p| self.seen.contains(&p)) {
                self.draft.leave(&whole(&path, ""), Reason::NoName);
            }
        }
    }

    fn one(&mut self, path: &Path, text: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
        let whose = whose(&name);
        let why = match whose {
            For::Some => Reason::SomeAddresses,
            For::OtherType => Reason::ArpType,
            // A file that is named on the command line by itself is a menu, whatever its name.
            For::All | For::Nobody => return self.menu(path, text),
            For::Mac(mac) => {
                let n = self.draft.find(Some(mac), None);
                let by = ("mac", mac.to_string());
                return self.machine(path, text, n, &mac.hexhyp(), by);
            }
            For::Uuid(uuid) => {
                return self.machine(path, text, None, &uuid.clone(), ("uuid", uuid));
            }
            For::Address(address) => match self.draft.find(None, Some(address)) {
                Some(n) => return self.machine(path, text, Some(n), "", ("mac", String::new())),
                None => Reason::SomeAddresses,
            },
        };
        self.draft.leave(&whole(path, text), why);
    }

    fn parse(&mut self, path: &Path, text: &str) -> Menu {
        let mut menu = Menu::default();
        Parser { importer: self, menu: &mut menu, stack: Vec::new(), open: false }.file(path, text);
        for entry in &mut menu.entries {
            match &entry.append {
                None => {
                    entry.append = menu.append.clone();
                    entry.inherits = true;
                }
                // No arguments at all, not even those of all.
                Some((dash, _)) if dash == "-" => entry.append = None,
                Some(_) => {}
            }
        }
        menu
    }

    /// The menu of everybody.
    fn menu(&mut self, path: &Path, text: &str) {
        let menu = self.parse(path, text);
        if self.draft.title.is_none() {
            self.draft.title.clone_from(&menu.title);
        }
        if let Some((tenths, at)) = &menu.timeout {
            match tenths {
                0 => self.draft.leave(at, Reason::NoWait),
                _ => self.draft.timeout = Some((*tenths, at.clone())),
            }
        }
        let default = self.default(&menu);
        for (n, entry) in menu.entries.iter().enumerate() {
            let Some(at) = &entry.at else { continue };
            let name = self.entry(entry, at, !entry.hidden);
            let is_default = default.as_ref().filter(|(d, _)| *d == n);
            if let (Some(name), Some((_, told))) = (name, is_default)
                && name != LOCAL_DISK
            {
                let asks_nobody = entry.append.as_ref().is_some_and(|(a, _)| answers(a).is_some());
                let why = match asks_nobody {
                    true => Reason::InstallsByDefault(name),
                    false => Reason::Default(name),
                };
                self.draft.leave(told, why);
            }
        }
    }

    /// The entry that is booted if nobody chooses, and where that is said.
    fn default(&self, menu: &Menu) -> Option<(usize, Here)> {
        let called = |said: &Option<(String, Here)>| {
            let (label, at) = said.as_ref()?;
            let same = |e: &Entry| e.label.eq_ignore_ascii_case(label);
            let exact = menu.entries.iter().position(|e| e.label == *label);
            Some((exact.or_else(|| menu.entries.iter().position(same))?, at.clone()))
        };
        let marked = || {
            let n = menu.entries.iter().rposition(|e| e.default.is_some())?;
            Some((n, menu.entries[n].default.clone()?))
        };
        let first = || {
            let n = menu.entries.iter().position(|e| !e.disabled).filter(|_| menu.shown)?;
            Some((n, menu.entries[n].at.clone()?))
        };
        called(&menu.ontimeout).or_else(marked).or_else(|| called(&menu.default)).or_else(first)
    }

    /// The file of one machine.
    fn machine(
        &mut self,
        path: &Path,
        text: &str,
        n: Option<usize>,
        name: &str,
        by: (&'static str, String),
    ) {
        let menu = self.parse(path, text);
        let at = whole(path, text);
        let default = self.default(&menu);
        let mut profile = None;
        for (i, entry) in menu.entries.iter().enumerate() {
            let Some(at) = &entry.at else { continue };
            match &default {
                Some((d, told)) if *d == i => {
                    let waits = menu.waits();
                    let name = self.entry(entry, at, waits && !entry.hidden);
                    let asks_nobody =
                        entry.append.as_ref().is_some_and(|(a, _)| answers(a).is_some());
                    match name {
                        Some(name) if waits && name != LOCAL_DISK => {
                            self.draft.leave(told, Reason::Waited(name));
                        }
                        Some(name) => {
                            if asks_nobody && name != LOCAL_DISK {
                                self.draft.leave(told, Reason::InstallsNext(name.clone()));
                            }
                            profile = Some((name, at.clone()));
                        }
                        None => {}
                    }
                }
                _ => self.draft.leave(at, Reason::OtherMenu),
            }
        }
        let timeout = menu.timeout.iter().map(|(_, at)| at);
        for at in timeout.chain(menu.title.iter().map(|(_, at)| at)) {
            self.draft.leave(at, Reason::OtherMenu);
        }
        let Some(n) = n.or_else(|| self.draft.machine(&name_of(name, "machine"), by, &at)) else {
            return;
        };
        if let Some(machine) = self.draft.machine_mut(n) {
            machine.profile = profile.or(machine.profile.take());
        }
    }

    /// The profile of an entry, or the local disk.
    fn entry(&mut self, entry: &Entry, at: &Here, menu: bool) -> Option<String> {
        if entry.disabled {
            self.draft.leave(at, Reason::Disabled);
            entry.files().for_each(|at| self.draft.leave(at, Reason::Disabled));
            return None;
        }
        if entry.local {
            let title = entry.title.as_ref().map(|(_, at)| at);
            entry.files().chain(title).for_each(|at| self.draft.leave(at, Reason::Local));
            return Some(LOCAL_DISK.to_string());
        }
        let Some((kernel, _)) = &entry.kernel else {
            self.draft.leave(at, Reason::NoKernel);
            return None;
        };
        match self.boots(entry, kernel) {
            Ok((boots, args_at, initrd_at)) => {
                Some(self.profile(entry, boots, at, (args_at, initrd_at), menu)?)
            }
            Err(Outcome::Local) => Some(LOCAL_DISK.to_string()),
            Err(Outcome::No(why)) => {
                self.draft.leave(at, why.clone());
                entry.files().for_each(|at| self.draft.leave(at, why.clone()));
                None
            }
        }
    }

    fn profile(
        &mut self,
        entry: &Entry,
        boots: Boots,
        at: &Here,
        (args_at, initrd_at): (Option<Here>, Option<Here>),
        menu: bool,
    ) -> Option<String> {
        let title = entry.title.as_ref().map_or(&entry.label, |(title, _)| title).clone();
        let said = format!("{} {title} {} {}", entry.label, boots.kernel, boots.args);
        let live = is_live(&said.to_ascii_lowercase());
        let mut note = Vec::new();
        let append = entry.append.as_ref().map_or("", |(a, _)| a);
        if let Some(said) = answers(append).filter(|_| !live) {
            note.push(self.unasked(said));
        }
        if boots.kernel.rsplit('/').next() == Some("memdisk") {
            note.push("memdisk is for BIOS alone.".to_string());
        }
        let wanted = name_of(&entry.label, "entry");
        let profile = Profile {
            name: String::new(),
            title,
            boots,
            at: at.clone(),
            args_at,
            initrd_at,
            live,
            menu,
            note,
        };
        self.draft.profile(&wanted, profile)
    }

    /// What is said of a profile that installs by the answers of this argument.
    fn unasked(&self, said: &str) -> String {
        const REPORT: &str = "then a `curl {{ report }}/done` at its end tells that the machine is \
            installed. Without one it is taken for failed after [life] timeout.";
        let Some(moved) = self.rehomed(said) else {
            return format!(
                "It installs without a question, by {said}, which stays where it is. To have it \
                 from here: answers = {{ \"auto\" = \"FILE\" }}, and {{{{ answers.auto }}}} in the \
                 place of that URL; {REPORT}"
            );
        };
        let file = moved.dir.join(&moved.inside);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (key, path) = (quoted(&name), quoted(&file.display().to_string()));
        format!(
            "It installs without a question, by {}. To have it filled in for each machine: answers \
             = {{ {key} = {path} }}, and {{{{ answers['{name}'] }}}} in the place of its URL; \
             {REPORT} A URL in it that names the old server's folder becomes {{{{ server.http \
             }}}}/files/{HTTP}/…",
            moved.inside
        )
    }

    /// What an argument names of the folder that was served by HTTP, if that has it.
    fn rehomed(&self, word: &str) -> Option<Rehomed> {
        let at = word.find("http://").or_else(|| word.find("https://"))?;
        let (key, url) = word.split_at(at);
        let (_, rest) = url.split_once("://")?;
        let (_, path) = rest.split_once('/')?;
        let dir = self.files.here().join(self.roots.http.as_ref()?);
        let dir = super::tidy(&dir).unwrap_or(dir);
        let bare = path.trim_matches('/');
        // Without a path it is all of the server; `%` and `?` are no names of files.
        if bare.is_empty() || bare.contains(['%', '?', '#', '{', '}']) {
            return None;
        }
        let full = within(&dir, &dir.join(bare))?;
        let there = self.files.exists(&full) || self.files.is_folder(&full);
        let inside = full.strip_prefix(&dir).ok()?.to_str()?.to_string();
        let end = if path.ends_with('/') { "/" } else { "" };
        (there && !inside.is_empty()).then(|| Rehomed {
            dir,
            key: key.to_string(),
            url: url.to_string(),
            inside,
            end,
        })
    }

    /// An argument as a template, with what we serve now by its new URL.
    fn argument(&mut self, word: &str, at: Option<&Here>) -> String {
        let Some(moved) = self.rehomed(word) else { return untemplated(word) };
        let Rehomed { dir, key, url, inside, end } = moved;
        if let Some(at) = at {
            self.draft.folder(HTTP, &dir, at);
            let now = format!("/files/{HTTP}/{inside}{end}");
            self.draft.leave(at, Reason::Rehomed { was: url, now });
        }
        // Not `files`, which is HTTPS where TLS is on: old installers have none.
        format!("{}{{{{ server.http }}}}/files/{HTTP}/{inside}{end}", untemplated(&key))
    }

    /// What an entry boots.
    fn boots(
        &mut self,
        entry: &Entry,
        kernel: &str,
    ) -> Result<(Boots, Option<Here>, Option<Here>), Outcome> {
        if !entry.linux {
            refuse_programs(kernel, entry.append.as_ref().map_or("", |(a, _)| a))?;
        }
        let at = entry.kernel.as_ref().map(|(_, at)| at.clone());
        let at = at.or_else(|| entry.at.clone()).ok_or(Outcome::No(Reason::NoKernel))?;
        let kernel = self.file(kernel, &at)?;
        let append = entry.append.as_ref().map_or("", |(a, _)| a);
        let is_initrd = |w: &&str| w.get(..7).is_some_and(|w| w.eq_ignore_ascii_case("initrd="));
        let named = append.split_whitespace().rfind(is_initrd).map(|w| &w[7..]);
        let initrd = named.or(entry.initrd.as_ref().map(|(i, _)| i.as_str())).unwrap_or("");
        let initrds = initrd
            .split(',')
            .filter(|i| !i.is_empty())
            .map(|i| self.file(i, &at))
            .collect::<Result<Vec<_>, _>>()?;
        let words: Vec<&str> = append.split_whitespace().filter(|w| !is_initrd(w)).collect();
        let args = words.join(" ");
        if let Err(live) = ipxe_value(&args) {
            return Err(Outcome::No(Reason::Live(live.to_string())));
        }
        let append_at = entry.append.as_ref().map(|(_, at)| at.clone());
        let words: Vec<String> =
            words.iter().map(|word| self.argument(word, append_at.as_ref())).collect();
        let mut args = words.join(" ");
        if let Some((bits, at)) = &entry.ipappend {
            if bits & 2 != 0 {
                // The words of pxelinux: the hardware type, and the address with hyphens.
                args = format!("{args} BOOTIF=01-{{{{ machine.hexhyp }}}}").trim().to_string();
            }
            if bits & !2 != 0 {
                self.draft.leave(at, Reason::IpAppend);
            }
        }
        let initrd_at = match named {
            Some(_) => append_at.clone(),
            None => entry.initrd.as_ref().map(|(_, at)| at.clone()),
        };
        Ok((Boots { kernel, initrds, args }, append_at, initrd_at))
    }

    /// `NAME/path` of a file that pxelinux would fetch, or its URL.
    fn file(&mut self, path: &str, at: &Here) -> Result<String, Outcome> {
        if let Some((scheme, _)) = path.split_once("://") {
            if let Some(moved) = self.rehomed(path).filter(|m| m.key.is_empty()) {
                self.draft.folder(HTTP, &moved.dir, at);
                return Ok(format!("{HTTP}/{}", moved.inside));
            }
            return match matches!(scheme, "http" | "https") {
                true => Ok(path.to_string()),
                false => Err(Outcome::No(Reason::OtherServer)),
            };
        }
        let path = match path.split_once("::") {
            Some(("", path)) => format!("/{path}"),
            Some(_) => return Err(Outcome::No(Reason::OtherServer)),
            None => path.to_string(),
        };
        let inside = path.trim_start_matches('/');
        let of = match path.starts_with('/') {
            true => self.root.join(inside),
            false => self.base.join(inside),
        };
        let by_tftp = within(&self.root, &of);
        let http = self.roots.http.as_ref().map(|dir| self.files.here().join(dir));
        let by_http = http.as_ref().and_then(|dir| within(dir, &dir.join(inside)));
        let there = |p: &Option<PathBuf>| p.as_ref().is_some_and(|p| self.files.exists(p));
        let (name, dir, file) = match (by_tftp, http.zip(by_http)) {
            (tftp, Some((dir, file))) if !there(&tftp) && self.files.exists(&file) => {
                (HTTP, dir, file)
            }
            (Some(file), _) => (TFTP, self.root.clone(), file),
            (None, Some((dir, file))) => (HTTP, dir, file),
            (None, None) => return Err(Outcome::No(Reason::Outside)),
        };
        let dir = super::tidy(&dir).unwrap_or(dir);
        let inside = file.strip_prefix(&dir).ok().and_then(Path::to_str);
        let inside = inside.filter(|i| !i.is_empty()).ok_or(Outcome::No(Reason::Outside))?;
        self.draft.folder(name, &dir, at);
        if !self.files.exists(&file) && self.missing.insert(file.clone()) {
            self.draft.leave(at, Reason::NotThere(format!("{name}/{inside}")));
        }
        Ok(format!("{name}/{inside}"))
    }
}

/// What was served by HTTP from a folder that we serve now.
struct Rehomed {
    dir: PathBuf,
    /// What stands before the URL.
    key: String,
    url: String,
    /// The path below the folder.
    inside: String,
    /// Whether the URL had a slash at its end: a folder's.
    end: &'static str,
}

/// Why an entry is no profile.
enum Outcome {
    Local,
    No(Reason),
}

/// What `KERNEL` tells by the name of its file (doc/syslinux.txt, "KERNEL file").
fn refuse_programs(kernel: &str, append: &str) -> Result<(), Outcome> {
    let name = kernel.rsplit('/').next().unwrap_or(kernel).to_ascii_lowercase();
    let why = match name.as_str() {
        "localboot.c32" => return Err(Outcome::Local),
        // hd0, and the disk that the firmware would have started.
        "chain.c32"
            if append.is_empty()
                || append.split_whitespace().any(|w| w == "boot" || w.starts_with("hd0")) =>
        {
            return Err(Outcome::Local);
        }
        "mboot.c32" if append.contains("boot.cfg") || append.contains(".v00") => Reason::Esxi,
        "reboot.c32" | "poweroff.c32" | "poweroff.com" | "hdt.c32" | "pwd.c32" | "ls.c32"
        | "meminfo.c32" | "pcitest.c32" | "cpuid.c32" | "cpuidtest.c32" | "vpdtest.c32"
        | "sysdump.c32" | "cat.c32" | "dmitest.c32" | "ethersel.c32" => Reason::Tool,
        n if n.ends_with(".c32") => Reason::Com32,
        n if [".0", ".bin", ".bs", ".bss", ".img", ".com", ".cbt", ".efi", ".kpxe", ".pxe"]
            .iter()
            .any(|end| n.ends_with(end))
            && !n.starts_with("memtest") =>
        {
            Reason::BootSector
        }
        _ => return Ok(()),
    };
    Err(Outcome::No(why))
}

/// The answer file that the arguments name.
fn answers(args: &str) -> Option<&str> {
    const KEYS: [&str; 12] = [
        "ks=",
        "inst.ks=",
        "url=",
        "preseed/url=",
        "preseed/file=",
        "file=",
        "autoyast=",
        "ds=",
        "autoyast2=",
        "ignition.config.url=",
        "coreos.inst.ignition_url=",
        "flatcar.config.url=",
    ];
    args.split_whitespace().find_map(|w| {
        let key = KEYS.iter().find(|k| w.len() > k.len() && w.starts_with(**k))?;
        // On Ubuntu `url=` is the image, unless it is Debian's preseed.
        let image = *key == "url=" && w.ends_with(".iso");
        (!image).then_some(w)
    })
}

/// Words of what runs from the network and installs nothing.
fn is_live(said: &str) -> bool {
    const WORDS: [&str; 18] = [
        "memtest",
        "rescue",
        "memdisk",
        "boot=live",
        "boot=casper",
        "nfsroot=",
        "root=/dev/nfs",
        "gparted",
        "clonezilla",
        "sysrcd",
        "systemrescue",
        "rd.live.image",
        "shredos",
        "dban",
        "diskless",
        "root=live:",
        "grml",
        "netboot.xyz",
    ];
    let installs = answers(said).is_some() || said.contains("autoinstall");
    !installs && WORDS.iter().any(|w| said.contains(w))
}

/// Arguments that are no template, in a template: what would begin a tag is a text in one.
fn untemplated(args: &str) -> String {
    let mut out = String::new();
    let mut chars = args.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.next_if(|n| c == '{' && matches!(n, '{' | '%' | '#')) {
            Some(n) => out.push_str(&format!("{{{{ '{{{n}' }}}}")),
            None => out.push(c),
        }
    }
    out
}

/// A file as a whole.
fn whole(path: &Path, text: &str) -> Here {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
    let file: Arc<str> = path.display().to_string().into();
    Here::new(&file, (1, text.lines().count().max(1)), &name)
}

struct Parser<'p, 'a> {
    importer: &'p mut Importer<'a>,
    menu: &'p mut Menu,
    stack: Vec<PathBuf>,
    /// Within an entry.
    open: bool,
}

impl Parser<'_, '_> {
    fn file(&mut self, path: &Path, text: &str) {
        let name: Arc<str> = path.display().to_string().into();
        let root = &self.importer.root;
        let full = within(root, &self.importer.files.here().join(path));
        self.stack.push(full.unwrap_or_else(|| path.to_path_buf()));
        let mut lines = text.lines().enumerate();
        while let Some((n, whole)) = lines.next() {
            let line = whole.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, rest) = word(line);
            let at = Here::new(&name, (n + 1, n + 1), line);
            if key == "text" && rest.eq_ignore_ascii_case("help") {
                let end = |l: &str| l.trim().eq_ignore_ascii_case("endtext");
                let last = lines.by_ref().find(|(_, l)| end(l)).map_or(n, |(last, _)| last);
                let at = Here::new(&name, (n + 1, last + 1), line);
                self.importer.draft.leave(&at, Reason::Help);
                continue;
            }
            self.line(&key, rest, at);
        }
        self.stack.pop();
    }

    fn leave(&mut self, at: &Here, why: Reason) {
        self.importer.draft.leave(at, why);
    }

    fn entry(&mut self) -> Option<&mut Entry> {
        match self.open {
            true => self.menu.entries.last_mut(),
            false => None,
        }
    }

    fn line(&mut self, key: &str, rest: &str, at: Here) {
        match key {
            "label" => self.label(rest, at),
            "menu" => self.menu_line(rest, at),
            "include" => self.include(rest.split_whitespace().next().unwrap_or_default(), &at),
            "default" if is_ui(rest) => {
                self.menu.shown = true;
                self.leave(&at, Reason::Already);
            }
            "default" => self.default(rest, at),
            "ui" => {
                self.menu.shown = true;
                self.leave(&at, Reason::Already);
            }
            "ontimeout" => self.menu.ontimeout = Some((rest.to_string(), at)),
            "timeout" => match rest.parse() {
                Ok(tenths) => self.menu.timeout = Some((tenths, at)),
                Err(_) => self.leave(&at, Reason::NoValue("number")),
            },
            "append" if !self.open => self.menu.append = Some((rest.to_string(), at)),
            "kernel" | "linux" | "initrd" | "append" | "ipappend" | "sysappend" | "localboot"
            | "com32" | "config" | "boot" | "bss" | "pxe" | "fdimage" | "comboot" => {
                self.entry_line(key, rest, at);
            }
            "totaltimeout" => self.leave(&at, Reason::NoWait),
            "prompt" => {
                self.menu.prompt = rest.trim() != "0";
                self.leave(&at, Reason::Prompt);
            }
            "noescape" | "allowoptions" | "implicit" | "nocomplete" | "nohalt" => {
                self.leave(&at, Reason::Prompt);
            }
            "serial" | "console" => self.leave(&at, Reason::Serial),
            "say" | "display" | "font" | "kbdmap" => self.leave(&at, Reason::Looks),
            key if key.starts_with('f') && key[1..].parse::<u8>().is_ok() => {
                self.leave(&at, Reason::Help);
            }
            "path" | "sendcookies" => self.leave(&at, Reason::Com32),
            _ => self.leave(&at, Reason::Unknown),
        }
    }

    fn label(&mut self, rest: &str, at: Here) {
        self.open = self.menu.entries.len() < ENTRIES;
        match self.open {
            true => self.menu.entries.push(Entry {
                label: rest.to_string(),
                at: Some(at),
                ..Entry::default()
            }),
            false => self.leave(&at, Reason::TooMany(ENTRIES)),
        }
    }

    /// A label, or a kernel with its arguments.
    fn default(&mut self, rest: &str, at: Here) {
        let (kernel, append) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if !append.is_empty() && self.menu.entries.len() < ENTRIES {
            self.menu.entries.push(Entry {
                label: kernel.to_string(),
                kernel: Some((kernel.to_string(), at.clone())),
                append: Some((append.trim().to_string(), at.clone())),
                at: Some(at.clone()),
                ..Entry::default()
            });
            self.open = false;
        }
        self.menu.default = Some((kernel.to_string(), at));
    }

    fn entry_line(&mut self, key: &str, rest: &str, at: Here) {
        let Some(entry) = self.entry() else { return self.leave(&at, Reason::NoKernel) };
        let said = Some((rest.to_string(), at.clone()));
        let again = match key {
            "kernel" | "com32" => entry.kernel.replace((rest.to_string(), at.clone())),
            "linux" => {
                entry.linux = true;
                entry.kernel.replace((rest.to_string(), at.clone()))
            }
            "initrd" => std::mem::replace(&mut entry.initrd, said),
            "append" => {
                // Then the kernel is a menu's program, and this names the menu.
                let submenu = entry.kernel.as_ref().is_some_and(|(k, _)| is_ui(k));
                if submenu {
                    return self.submenu(rest, &at);
                }
                std::mem::replace(&mut entry.append, said)
            }
            "ipappend" | "sysappend" => match rest.parse() {
                Ok(bits) => {
                    entry.ipappend = Some((bits, at));
                    return;
                }
                Err(_) => return self.leave(&at, Reason::NoValue("number")),
            },
            "localboot" => {
                entry.local = true;
                return;
            }
            "config" => return self.submenu(rest, &at),
            _ => return self.leave(&at, Reason::BootSector),
        };
        if let Some((_, first)) = again {
            self.leave(&first, Reason::Twice);
        }
    }

    /// The entry is another menu: its entries are put into this one.
    fn submenu(&mut self, rest: &str, at: &Here) {
        let last = self.menu.entries.pop();
        self.open = false;
        if let Some(label) = last.and_then(|e| e.at) {
            self.leave(&label, Reason::Submenu);
        }
        // The last word; those before it are the look's.
        let name = rest.split_whitespace().next_back().unwrap_or_default();
        self.include(name, at);
        self.open = false;
    }

    fn include(&mut self, name: &str, at: &Here) {
        let of = match name.strip_prefix('/') {
            Some(inside) => self.importer.root.join(inside),
            None => self.importer.base.join(name),
        };
        let read = match within(&self.importer.root, &of) {
            None => Err(Reason::NotRead(NoFile::Outside)),
            Some(path) if self.stack.contains(&path) => Err(Reason::Endless),
            Some(_) if self.stack.len() >= INCLUDE_DEPTH => Err(Reason::Deep),
            Some(path) => {
                let text = self.importer.files.read(&path).map_err(Reason::NotRead);
                text.map(|text| (path, text))
            }
        };
        match read {
            Ok((path, text)) => {
                self.importer.seen.insert(path.clone());
                self.file(&shown(self.importer.files, &path), &text);
            }
            Err(why) => self.leave(at, why),
        }
    }

    fn menu_line(&mut self, rest: &str, at: Here) {
        let (key, rest) = word(rest);
        let open = self.open;
        let text = || {
            // The hot key is what follows the mark.
            let text: String = rest.chars().filter(|c| *c != '^' && !c.is_control()).collect();
            text.trim().to_string()
        };
        match (key.as_str(), self.entry()) {
            ("label", Some(entry)) => entry.title = Some((text(), at)),
            ("default", Some(entry)) => entry.default = Some(at),
            ("hide", Some(entry)) => entry.hidden = true,
            ("disable", Some(entry)) => entry.disabled = true,
            ("passwd", Some(entry)) => {
                entry.hidden = true;
                self.leave(&at, Reason::Password);
            }
            ("title", _) => match self.menu.title {
                None => self.menu.title = Some((text(), at)),
                Some(_) => self.leave(&at, Reason::Submenu),
            },
            ("begin" | "end", _) => {
                self.open = false;
                self.leave(&at, Reason::Submenu);
            }
            ("label" | "goto" | "exit" | "quit" | "start", _) => {
                if open && key != "label" {
                    // An entry that only leads elsewhere.
                    let last = self.menu.entries.pop();
                    if let Some(label) = last.and_then(|e| e.at) {
                        self.leave(&label, Reason::Submenu);
                    }
                    self.open = false;
                }
                self.leave(&at, Reason::Submenu);
            }
            ("include", _) => self.include(rest.split_whitespace().next().unwrap_or_default(), &at),
            ("master", _) => self.leave(&at, Reason::Password),
            _ => self.leave(&at, Reason::Looks),
        }
    }
}

/// The first word, in small letters, and the rest.
fn word(line: &str) -> (String, &str) {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (first.to_ascii_lowercase(), rest.trim())
}

/// Whether it is one of the menus' programs.
fn is_ui(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    let name = first.rsplit('/').next().unwrap_or_default();
    matches!(name.to_ascii_lowercase().as_str(), "menu.c32" | "vesamenu.c32" | "menu" | "vesamenu")
}
