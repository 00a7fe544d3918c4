//! Moving in: the configurations of other servers, to ours.
//!
//! 1. [`kind`] tells by its content what a file is.
//! 2. [`dhcpd`], [`dnsmasq`] and [`pxelinux`] read theirs into one [`draft::Draft`], so that a
//!    reservation of the one and a menu of the other become one `[[machine]]`; [`leases`] reads who
//!    has which address.
//! 3. [`draft`] writes it as TOML and has [`crate::config::parse`] read it: what the configuration
//!    refuses is taken out again, so that what is printed is always good.
//! 4. [`image`] tells which system an image is, and adds the lines that boot it.
//! 5. [`disk`] reads the files, and those that they include.
//!
//! Line by line, what was read is in the TOML or in the list of what was left out ([`LeftOut`]).

pub mod dhcpd;
pub mod disk;
pub mod dnsmasq;
pub mod draft;
pub mod image;
pub mod kind;
pub mod leases;
mod options;
pub mod pxelinux;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::config::{Finding, Place};
use crate::model::Why;
use crate::model::event::plain;

/// Bytes of one file, and of all that one import reads.
pub const FILE_LIMIT: usize = 8 << 20;
/// Files that one import reads: what folders hold and what files include.
pub const FILES_LIMIT: usize = 1024;
/// How deep files include one another.
const INCLUDE_DEPTH: usize = 16;
/// Lines that are told one by one; what comes after them is counted.
const LEFT_LIMIT: usize = 10_000;
/// Characters of a line that is shown.
const TEXT_LIMIT: usize = 160;

/// A line that did not come along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// The last one, of a block.
    pub last: usize,
    pub text: Arc<str>,
    pub why: Reason,
}

impl serde::Serialize for LeftOut {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = to.serialize_struct("LeftOut", 6)?;
        s.serialize_field("file", &*self.file)?;
        s.serialize_field("line", &self.line)?;
        s.serialize_field("last", &self.last)?;
        s.serialize_field("text", &*self.text)?;
        s.serialize_field("reason", self.why.name())?;
        s.serialize_field("why", &self.why.to_string())?;
        s.end()
    }
}

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    file: Arc<str>,
    line: usize,
    last: usize,
    text: Arc<str>,
}

impl Here {
    fn new(file: &Arc<str>, lines: (usize, usize), text: &str) -> Here {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = plain(&text, TEXT_LIMIT).into();
        Here { file: file.clone(), line: lines.0, last: lines.1, text }
    }

    /// File, line and text.
    pub fn shown(&self) -> (&str, usize, &str) {
        (&self.file, self.line, &self.text)
    }

    fn left(&self, why: Reason) -> LeftOut {
        let Here { file, line, last, text } = self.clone();
        LeftOut { file, line, last, text, why }
    }
}

/// What did not come along, as far as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub lines: Vec<LeftOut>,
    /// How many more there were.
    pub more: usize,
}

impl Left {
    pub fn push(&mut self, at: &Here, why: Reason) {
        match self.lines.len() < LEFT_LIMIT {
            true => self.lines.push(at.left(why)),
            false => self.more += 1,
        }
    }
}

/// The reasons that have nothing to fill in, each with its name and its sentence.
macro_rules! reasons {
    ($($variant:ident $name:literal $sentence:literal,)*) => {
        /// Why a line did not come along.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Reason {
            $(#[error($sentence)] $variant,)*
            /// The configuration's own words.
            #[error("{0}")]
            Refused(String),
            #[error("the file it includes was not read: {0}")]
            NotRead(NoFile),
            #[error(
                "the default was {0}; here it is always the local disk. A [[machine]] that shall \
                 boot it names it as its profile"
            )]
            Default(String),
            #[error(
                "the default was {0}, which asks nobody: whatever started from this network was \
                 installed. Here the default is the local disk; a [[machine]] that shall be \
                 installed names it as its profile"
            )]
            InstallsByDefault(String),
            #[error(
                "its menu waited until somebody chose {0}, so this machine gets the menu here; \
                 profile = \"{0}\" in its [[machine]] installs it unasked"
            )]
            Waited(String),
            #[error(
                "{0} asks nobody: this machine is installed with it at its next start from the \
                 network, once; without `profile` in its [[machine]] it gets the menu"
            )]
            InstallsNext(String),
            #[error("it came along, and is served by this server: {was} is http://SERVER{now}")]
            Rehomed { was: String, now: String },
            #[error(
                "it came along, but the file {0} is not there: put it there before a machine \
                 boots it"
            )]
            NotThere(String),
            #[error("its MAC address is none: \"{0}\" is no byte of two hexadecimal digits")]
            NoByte(String),
            #[error("it is no {0}")]
            NoValue(&'static str),
            #[error("there is room for {0}")]
            TooMany(usize),
            #[error("an iPXE script cannot hold these arguments: {0}")]
            Live(String),
            #[error("dnsmasq took what is not said here from its own interface: {0}")]
            Guessed(String),
        }

        impl Why for Reason {
            fn name(&self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)*
                    Reason::Refused(_) => "refused",
                    Reason::NotRead(_) => "not-read",
                    Reason::Default(_) => "default",
                    Reason::InstallsByDefault(_) => "installs-by-default",
                    Reason::Waited(_) => "waited",
                    Reason::InstallsNext(_) => "installs-next",
                    Reason::Rehomed { .. } => "rehomed",
                    Reason::NotThere(_) => "not-there",
                    Reason::NoByte(_) => "no-byte",
                    Reason::NoValue(_) => "no-value",
                    Reason::TooMany(_) => "too-many",
                    Reason::Live(_) => "live",
                    Reason::Guessed(_) => "guessed",
                }
            }
        }
    };
}

reasons! {
    Already "already" "it is so here without being said",
    Loader "loader" "each machine is sent the loader of its own firmware; one of yours is named in \
        [ipxe.loaders], or as the `loader` of a [[machine]]",
    LoaderOption "loader-option" "it told a loader where its files are; loader and menu are \
        this server's own here",
    Arches "arches" "it chooses a loader by the machine's firmware, which is done here by itself",
    NextServer "next-server" "what machines boot comes from this server, which names itself",
    PxeMenu "pxe-menu" "the menu is iPXE's here: [menu] and the profiles",
    Class "class" "there are no classes of machines; a [[machine]] can match by mac pattern, \
        vendor, serial, uuid or arch",
    Condition "condition" "there are no conditions in DHCP here; a [[machine]] can match by mac \
        pattern, vendor, serial, uuid or arch",
    Restricted "restricted" "only some machines had these addresses; a range of ours gives them to \
        every machine",
    Failover "failover" "one server gives the addresses: stop the other before this one starts",
    Dns "dns" "names are not served here: this is no DNS server",
    Ddns "ddns" "leases are not put into DNS",
    SixOnly "ipv6" "addresses of IPv6 are not given",
    Logging "logging" "the log goes to standard error, and from there to the journal",
    Process "process" "it tells the other server how to run; the service unit does that for ours",
    Control "control" "the other server's remote control; ours is the admin door",
    LeaseFile "lease-file" "import that file too: its leases come along with --state-dir",
    LeaseRules "lease-rules" "ours has no such rule for leases",
    PerMachine "per-machine" "options are told to subnets here, not to single machines",
    NoSubnet "no-subnet" "no subnet takes it: each has one of its own, or there is none",
    Tagged "tagged" "options for tagged machines alone: they are told to subnets here",
    Suppressed "suppressed" "nothing is told to machines here that is not declared",
    OwnAddress "own-address" "it stands for the address of the other server: write the one of this \
        server, if it is meant",
    Vendor "vendor" "options within options are not told here",
    UnknownOption "unknown-option" "no option of this name is known: write it by its number as a \
        [[subnet.option]]",
    Unused "unused" "no option that comes along is of this definition",
    OptionType "option-type" "its value does not fit the option",
    Relative "relative" "a value that is worked out for each machine",
    HostName "host-name" "it names a host by DNS: an address is wanted",
    MoreAddresses "more-addresses" "a machine has one reserved address",
    NoMac "no-mac" "a machine is reserved an address by its MAC address alone",
    ClientId "client-id" "a machine is known by its MAC address, not by a client identifier",
    MoreMacs "more-macs" "a machine has one MAC address: it is declared again for the others",
    Ignored "ignored" "it was to get no answer; here [life] unknown = \"ignore\" is for all that \
        are not declared",
    LeaseTime "lease-time" "the times of a lease are those of its subnet",
    SharedNetwork "shared-network" "each subnet stands by itself: it serves the interface that has \
        an address in it, and the relays that name it",
    NoNetmask "no-netmask" "it is no network: an address and a netmask are wanted",
    Static "static" "an address is reserved by the [[machine]] that has it",
    BothModes "both-modes" "with a range it is full mode, and not proxy",
    OneFolder "one-folder" "one folder is served by TFTP",
    Interface "interface" "interfaces are named one by one, by --interface or `interface`",
    Looks "looks" "the menu has a look of its own",
    Help "help" "the menu has no help texts",
    Prompt "prompt" "the menu is always shown, and lets nobody type arguments",
    Serial "serial" "the menu is drawn where iPXE's console is; a profile's console is its own \
        `console`",
    NoWait "no-wait" "the menu always ends: with the local disk, after [menu] timeout",
    Password "password" "the menu asks for no password: the profile is not in it, and a [[machine]] \
        can name it",
    Disabled "disabled" "nobody could choose it",
    Local "local" "the menu has the local disk by itself",
    Submenu "submenu" "all profiles are in one menu",
    BootSector "boot-sector" "it is no kernel but a boot sector or a boot program of BIOS",
    Com32 "com32" "a module of SYSLINUX; iPXE has no use for it",
    Esxi "esxi" "ESXi is booted from its image: import the .iso",
    Tool "tool" "it restarts, switches off or tells of the machine; the menu of the machine's own \
        firmware does so, too",
    OtherServer "other-server" "the file is on another TFTP server; serve it here or by HTTP",
    Outside "outside" "the path leads out of the folder that is served",
    NoKernel "no-kernel" "the entry has no kernel",
    IpAppend "ip-append" "only BOOTIF (2) comes along; ip=dhcp in `args` has most kernels ask by \
        DHCP",
    OtherMenu "other-menu" "only this machine's menu had it: a machine has one profile, or the \
        menu of all",
    SomeAddresses "some-addresses" "pxelinux asked for it by a part of the address; a [[machine]] \
        matches by its MAC address",
    ArpType "arp-type" "only Ethernet (01-) boots here",
    NoName "no-name" "pxelinux asks for no file of this name",
    Endless "endless" "the files include one another in a circle",
    Deep "deep" "the files include one another too deeply",
    Syntax "syntax" "it could not be read",
    Unknown "unknown" "there is no such thing here",
    Twice "twice" "an earlier line has said it",
}

/// Why a file was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFile {
    #[error("it is outside of the folder of the file that names it: name it on the command line")]
    Outside,
    #[error("{0}")]
    Disk(String),
    #[error("it has more than {} MiB", FILE_LIMIT >> 20)]
    TooLong,
    #[error("more than {FILES_LIMIT} files, or {} MiB, were named", FILE_LIMIT >> 19)]
    TooMany,
    #[error("it is no text")]
    NoText,
}

impl Why for NoFile {
    fn name(&self) -> &'static str {
        match self {
            NoFile::Outside => "outside",
            NoFile::Disk(_) => "disk",
            NoFile::TooLong => "too-long",
            NoFile::TooMany => "too-many-files",
            NoFile::NoText => "no-text",
        }
    }
}

/// The disk, as an import sees it.
pub trait Files {
    /// # Errors
    /// Why there is nothing to read.
    fn read(&self, path: &Path) -> Result<String, NoFile>;
    /// The files of a folder, without those that begin with a dot, by name.
    ///
    /// # Errors
    /// Why there is no such list.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, NoFile>;
    fn exists(&self, path: &Path) -> bool;
    fn is_folder(&self, path: &Path) -> bool;
    /// The folder that relative paths are beside.
    fn here(&self) -> PathBuf;
}

/// A path as it is told: from where we are, if it is below.
fn shown(files: &dyn Files, path: &Path) -> PathBuf {
    path.strip_prefix(files.here()).unwrap_or(path).to_path_buf()
}

/// The folder of a file, from the root on.
fn folder_of(files: &dyn Files, file: &Path) -> PathBuf {
    files.here().join(file.parent().unwrap_or(Path::new("")))
}

/// A file cannot be understood at all: where, what and what to do.
fn bad(file: &Path, text: &str, at: (usize, usize), message: &str, hint: &str) -> Box<Finding> {
    Box::new(Finding::new(Place::at(file, text, at.0, at.1, 1), message, hint))
}

/// `path` as seen from `dir`, if it is in there; both without `.` and `..`.
fn within(dir: &Path, path: &Path) -> Option<PathBuf> {
    let (dir, path) = (tidy(dir)?, tidy(&dir.join(path))?);
    // Every path begins with the empty one.
    (path.starts_with(&dir) && path.is_absolute() == dir.is_absolute()).then_some(path)
}

/// A path without `.` and `..`; `None` if it leads out of where it begins.
fn tidy(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    let mut depth = 0;
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if depth == 0 => return None,
            Component::ParentDir => {
                out.pop();
                depth -= 1;
            }
            Component::Normal(_) => {
                out.push(part);
                depth += 1;
            }
            Component::RootDir | Component::Prefix(_) => out.push(part),
        }
    }
    Some(out)
}

/// A name of ours: what it may not hold becomes `-`.
fn name_of(text: &str, otherwise: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut name = String::new();
    for c in text.chars().map(|c| if plain(c) { c } else { '-' }) {
        if !(c == '-' && name.ends_with('-')) {
            name.push(c);
        }
    }
    // Room for a number behind it.
    name.truncate(56);
    let name = name.trim_matches('-');
    match name.is_empty() || name.bytes().all(|b| b == b'.') {
        true => otherwise.to_string(),
        false => name.to_string(),
    }
}

/// A TOML text. JSON's escapes are TOML's, too, but for DEL, which TOML wants escaped.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_where_they_are_served() {
        let at = |dir: &str, path: &str| within(dir.as_ref(), path.as_ref());
        assert_eq!(at("/srv/tftp", "a/./b/../c"), Some("/srv/tftp/a/c".into()));
        assert_eq!(at("/srv/tftp", "/srv/tftp/x"), Some("/srv/tftp/x".into()));
        assert_eq!(at(".", "x"), Some("x".into()));
        for bad in ["../x", "a/../../x", "/srv/tftpx", "/etc/passwd"] {
            assert_eq!(at("/srv/tftp", bad), None, "{bad}");
        }
        assert_eq!(at("", "../x"), None);
        assert_eq!(at("", "/etc/passwd"), None);
    }

    #[test]
    fn names_are_made_fit() {
        for (text, name) in [
            ("Ubuntu/12.04", "Ubuntu-12.04"),
            ("  --x-- ", "x"),
            ("安装", "none"),
            ("..", "none"),
            ("a  b", "a-b"),
        ] {
            assert_eq!(name_of(text, "none"), name);
        }
        assert_eq!(name_of(&"x".repeat(100), "none").len(), 56);
    }

    #[test]
    fn texts_are_quoted_for_toml() {
        let odd = "a\"b\\c\nd\x7f\u{1}é";
        let table: toml::Table = toml::from_str(&format!("x = {}", quoted(odd))).unwrap();
        assert_eq!(table["x"].as_str(), Some(odd));
    }
}
