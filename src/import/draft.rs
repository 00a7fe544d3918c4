//! What has been read, on its way to TOML.
//!
//! 1. The importers put subnets, machines, profiles and the rest here, each with its [`Here`].
//! 2. [`Draft::finish`] lays them out in rows, and has [`parse_with`] read them as the configuration.
//! 3. A row that it refuses is taken out and told in the configuration's own words; one that its
//!    table cannot do without takes the table along. That goes on until nothing is refused.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;

use super::options::Told;
use super::{Here, Left, Reason, quoted};
use crate::config::installers::Look;
use crate::config::{Config, Errors, LOCAL_DISK, parse_with};
use crate::model::Mac;

/// Entries of a list: the configuration's own limit.
pub const LIST_LIMIT: usize = 64;
/// Server and file by name, servers by address, and pxelinux's menu and prefix.
const LOADER_OPTIONS: [u8; 5] = [66, 67, 150, 209, 210];
/// Tables of one kind. Their text stays below the configuration's limit of a file.
const TABLES: usize = 30_000;
/// How often what is refused is taken out. Each time up to 100 rows are told.
const ROUNDS: usize = 40;

#[derive(Clone, Debug)]
pub struct Subnet {
    pub network: Ipv4Net,
    pub at: Here,
    pub ranges: Vec<(String, Here)>,
    /// Keys of its own, and their values as TOML.
    pub keys: Vec<(&'static str, String, Here)>,
    pub options: Vec<(u8, String, Here)>,
    pub note: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
    /// `mac` or `uuid`, and what it is.
    pub by: (&'static str, String),
    pub at: Here,
    pub address: Option<(Ipv4Addr, Here)>,
    pub hostname: Option<(String, Here)>,
    pub profile: Option<(String, Here)>,
}

/// A `[[media]]` of images, and the `[[profile]]` that installs it.
#[derive(Clone, Debug)]
pub struct Medium {
    pub name: String,
    pub images: Vec<PathBuf>,
    pub profile: String,
    /// Files of the user's that it wants, and what each is.
    pub parts: Vec<(String, String)>,
    /// What its installer wants besides; may be empty.
    pub note: String,
    /// Whether it can be told to ask nothing.
    pub answers: bool,
    pub at: Here,
}

/// What a profile boots: two that are alike are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Boots {
    pub kernel: String,
    pub initrds: Vec<String>,
    pub args: String,
}

#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    pub title: String,
    pub boots: Boots,
    pub at: Here,
    pub args_at: Option<Here>,
    pub initrd_at: Option<Here>,
    pub live: bool,
    pub menu: bool,
    pub note: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Draft {
    pub interfaces: Vec<(String, Here)>,
    /// Addresses stay with another server.
    pub proxy: Option<Here>,
    pub subnets: Vec<Subnet>,
    pub tftp: Option<(PathBuf, Here)>,
    /// Whether a menu of pxelinux came along: what told it of its files has done its work.
    pub menus: bool,
    pub title: Option<(String, Here)>,
    /// Tenths of a second.
    pub timeout: Option<(u64, Here)>,
    folders: BTreeMap<&'static str, (PathBuf, Here)>,
    media: Vec<Medium>,
    /// The folder of the user's own installers, and the configuration that names it.
    pub installers: Option<(PathBuf, PathBuf)>,
    profiles: Vec<Profile>,
    machines: Vec<Machine>,
    /// Names that are taken, and the number that the next of the same name tries first.
    names: HashMap<(&'static str, String), usize>,
    networks: HashMap<Ipv4Net, usize>,
    same: HashMap<Boots, usize>,
    pub left: Left,
}

/// What an import came to.
pub struct Moved {
    /// Good, if there is any.
    pub toml: String,
    pub config: Config,
    pub left: Left,
}

impl Draft {
    pub fn leave(&mut self, at: &Here, why: Reason) {
        self.left.push(at, why);
    }

    /// A name that nothing of this kind has.
    fn name(&mut self, kind: &'static str, wanted: &str) -> String {
        let mut name = wanted.to_string();
        while name == LOCAL_DISK || self.names.contains_key(&(kind, name.clone())) {
            let n = self.names.entry((kind, wanted.to_string())).or_insert(2);
            name = format!("{wanted}-{n}");
            *n += 1;
        }
        self.names.insert((kind, name.clone()), 2);
        name
    }

    pub fn folder(&mut self, name: &'static str, dir: &Path, at: &Here) {
        self.folders.entry(name).or_insert_with(|| (dir.to_path_buf(), at.clone()));
    }

    /// The subnet of this network, with what has been said of it before.
    pub fn subnet(&mut self, network: Ipv4Net, at: &Here) -> Option<&mut Subnet> {
        let found = self.networks.get(&network).copied();
        if found.is_none() && self.subnets.len() >= TABLES / 10 {
            self.leave(at, Reason::TooMany(TABLES / 10));
            return None;
        }
        let at = found.unwrap_or_else(|| {
            self.subnets.push(Subnet {
                network,
                at: at.clone(),
                ranges: Vec::new(),
                keys: Vec::new(),
                options: Vec::new(),
                note: Vec::new(),
            });
            self.networks.insert(network, self.subnets.len() - 1);
            self.subnets.len() - 1
        });
        self.subnets.get_mut(at)
    }

    pub fn range(&mut self, network: Ipv4Net, range: String, at: &Here) {
        let Some(subnet) = self.subnet(network, at) else { return };
        match subnet.ranges.len() < LIST_LIMIT {
            true => subnet.ranges.push((range, at.clone())),
            false => self.leave(at, Reason::TooMany(LIST_LIMIT)),
        }
    }

    /// An option of a subnet, where it has none of that kind. False: it has one already.
    pub fn tell(&mut self, network: Ipv4Net, told: &Told, at: &Here) -> bool {
        let Some(subnet) = self.subnet(network, at) else { return true };
        match told {
            Told::Key(key, value) => {
                if subnet.keys.iter().any(|(k, ..)| k == key) {
                    return false;
                }
                subnet.keys.push((key, value.clone(), at.clone()));
            }
            Told::Option(code, value) => {
                if subnet.options.iter().any(|(c, ..)| c == code) {
                    return false;
                }
                if subnet.options.len() >= LIST_LIMIT {
                    self.leave(at, Reason::TooMany(LIST_LIMIT));
                    return true;
                }
                subnet.options.push((*code, value.clone(), at.clone()));
            }
        }
        true
    }

    pub fn machine(
        &mut self,
        wanted: &str,
        by: (&'static str, String),
        at: &Here,
    ) -> Option<usize> {
        if self.machines.len() >= TABLES {
            self.leave(at, Reason::TooMany(TABLES));
            return None;
        }
        let name = self.name("machine", wanted);
        let at = at.clone();
        self.machines.push(Machine { name, by, at, address: None, hostname: None, profile: None });
        Some(self.machines.len() - 1)
    }

    pub fn machine_mut(&mut self, n: usize) -> Option<&mut Machine> {
        self.machines.get_mut(n)
    }

    /// The machine that has this MAC address, or this reserved address.
    pub fn find(&self, mac: Option<Mac>, address: Option<Ipv4Addr>) -> Option<usize> {
        let mac = mac.map(|m| ("mac", m.to_string()));
        self.machines.iter().position(|m| {
            mac.as_ref() == Some(&m.by)
                || address.is_some() && m.address.as_ref().map(|(a, _)| *a) == address
        })
    }

    /// Adds a profile, or finds the one that boots the same; its name.
    pub fn profile(&mut self, wanted: &str, profile: Profile) -> Option<String> {
        if let Some(n) = self.same.get(&profile.boots) {
            let same = &mut self.profiles[*n];
            same.menu |= profile.menu;
            return Some(same.name.clone());
        }
        if self.profiles.len() >= TABLES / 10 {
            self.leave(&profile.at, Reason::TooMany(TABLES / 10));
            return None;
        }
        let name = self.name("profile", wanted);
        self.same.insert(profile.boots.clone(), self.profiles.len());
        self.profiles.push(Profile { name: name.clone(), ..profile });
        Some(name)
    }

    /// Adds a medium; the name of its profile.
    pub fn medium(&mut self, medium: Medium) -> String {
        let name = self.name("media", &medium.name);
        let profile = self.name("profile", &medium.profile);
        self.media.push(Medium { name, profile: profile.clone(), ..medium });
        profile
    }

    pub fn has_media(&self) -> bool {
        !self.media.is_empty()
    }

    /// The configuration, as good as it can be made; `look` looks at what it names.
    ///
    /// # Errors
    /// What is still refused after many a round: nothing sensible is so wrong.
    pub fn finish(mut self, of: &str, look: &dyn Look) -> Result<Moved, Errors> {
        if let Some(at) = self.proxy.clone().filter(|_| !self.subnets.is_empty()) {
            self.proxy = None;
            self.leave(&at, Reason::BothModes);
        }
        self.drop_loader_options();
        let mut rows = Rows::default();
        self.lay(&mut rows, of);
        let read = |text| parse_with(&[(PathBuf::from("imported.toml"), text)], look);
        let mut left = self.left;
        for _ in 0..ROUNDS {
            let text = rows.text();
            match read(text.clone()) {
                Ok((config, _)) => {
                    left.lines.sort_by_key(|l| (l.file.clone(), l.line, l.last));
                    return Ok(Moved { toml: text, config, left });
                }
                Err(errors) if !rows.take_out(&errors, &mut left) => return Err(errors),
                Err(_) => {}
            }
        }
        Err(read(rows.text()).err().unwrap_or_default())
    }

    /// The options that tell a loader where its files are, where the menu is ours now.
    fn drop_loader_options(&mut self) {
        let mut gone = Vec::new();
        for subnet in self.subnets.iter_mut().filter(|_| self.menus) {
            subnet.options.retain(|(code, _, at)| {
                let keep = !LOADER_OPTIONS.contains(code);
                gone.extend((!keep).then(|| at.clone()));
                keep
            });
        }
        // Several subnets may have it of one line.
        gone.sort_by_key(|at| (at.file.clone(), at.line));
        gone.dedup();
        gone.iter().for_each(|at| self.leave(at, Reason::LoaderOption));
    }

    fn lay(&self, rows: &mut Rows, of: &str) {
        rows.comment(&format!("Made of {of} by `pilotlight import`. `pilotlight check --config FILE` looks at every file that it names."));
        if !self.interfaces.is_empty() {
            rows.blank();
            let all = self.interfaces.iter().map(|(name, at)| (quoted(name), at));
            rows.list("interface", all, false);
        }
        self.lay_dhcp(rows);
        for subnet in &self.subnets {
            subnet.lay(rows);
        }
        if let Some((dir, at)) = &self.tftp {
            rows.table("[tftp]", None, &[], at);
            rows.row(format!("dir = {}", path(dir)), at, true);
        }
        self.lay_menu(rows);
        for (name, (dir, at)) in &self.folders {
            rows.table("[[files]]", None, &[], at);
            rows.row(format!("name = {}", quoted(name)), at, true);
            rows.row(format!("dir = {}", path(dir)), at, true);
        }
        if let (Some((dir, of)), Some(first)) = (&self.installers, self.media.first()) {
            let note = format!("It is in {}: leave it out there.", of.display());
            rows.table("[installers]", None, &[note], &first.at);
            rows.row(format!("dir = {}", path(dir)), &first.at, true);
        }
        self.media.iter().for_each(|m| m.lay(rows));
        self.profiles.iter().for_each(|p| p.lay(rows));
        self.machines.iter().for_each(|m| m.lay(rows));
    }

    fn lay_dhcp(&self, rows: &mut Rows) {
        let gives = |s: &Subnet| !s.ranges.is_empty();
        let reserves = self.machines.iter().any(|m| m.address.is_some());
        let full = self.subnets.iter().find(|s| gives(s) || reserves);
        let (mode, at) = match (full, &self.proxy) {
            (Some(s), _) => ("full", &s.at),
            (None, Some(at)) => ("proxy", at),
            (None, None) => return,
        };
        rows.table("[dhcp]", None, &[], at);
        rows.row(format!("mode = {}", quoted(mode)), at, true);
    }

    fn lay_menu(&self, rows: &mut Rows) {
        let title = self.title.as_ref().map(|(_, at)| at);
        let Some(at) = title.or(self.timeout.as_ref().map(|(_, at)| at)) else { return };
        rows.table("[menu]", None, &[], at);
        if let Some((title, at)) = &self.title {
            rows.row(format!("title = {}", quoted(title)), at, false);
        }
        if let Some((tenths, at)) = &self.timeout {
            let time = Duration::from_millis(tenths.saturating_mul(100));
            let time = humantime::format_duration(time).to_string();
            rows.row(format!("timeout = {}", quoted(&time)), at, false);
        }
    }
}

impl Subnet {
    fn lay(&self, rows: &mut Rows) {
        let table = rows.table("[[subnet]]", None, &self.note, &self.at);
        rows.row(format!("network = {}", quoted(&self.network.to_string())), &self.at, true);
        if !self.ranges.is_empty() {
            rows.list("range", self.ranges.iter().map(|(r, at)| (quoted(r), at)), false);
        }
        for (key, value, at) in &self.keys {
            rows.row(format!("{key} = {value}"), at, false);
        }
        for (code, value, at) in &self.options {
            rows.table("[[subnet.option]]", Some(table), &[], at);
            rows.row(format!("code = {code}"), at, true);
            rows.row(value.clone(), at, true);
        }
    }
}

impl Medium {
    fn lay(&self, rows: &mut Rows) {
        let at = &self.at;
        rows.table("[[media]]", None, &[], at);
        rows.row(format!("name = {}", quoted(&self.name)), at, true);
        rows.list("iso", self.images.iter().map(|i| (path(i), at)), true);
        let (name, install) = (quoted(&self.profile), quoted(&self.name));
        let note: Vec<String> =
            (!self.note.is_empty()).then(|| self.note.clone()).into_iter().collect();
        if self.parts.is_empty() {
            rows.table("[[profile]]", None, &note, at);
            rows.row(format!("name = {name}"), at, true);
            rows.row(format!("install = {install}"), at, true);
            self.lay_more(rows, &name);
            return;
        }
        // A file that only the user has: the profile waits for it, the medium is served.
        rows.blank();
        note.iter().for_each(|text| rows.comment(text));
        for (part, what) in &self.parts {
            rows.comment(&format!("It boots with a file of yours, {part}: {what}"));
        }
        rows.comment("Write where it is, and take the marks away:");
        let parts: Vec<String> =
            self.parts.iter().map(|(part, _)| format!("{part} = \"NAME/path\"")).collect();
        for line in [
            "[[profile]]".to_string(),
            format!("name = {name}"),
            format!("install = {install}"),
            format!("parts = {{ {} }}", parts.join(", ")),
        ] {
            rows.comment(&line);
        }
        self.lay_more(rows, &name);
    }

    /// What most want next, to be completed; as comments, for nobody is installed unasked.
    fn lay_more(&self, rows: &mut Rows, name: &str) {
        if self.answers {
            rows.comment("It asks its questions on the screen. With these it asks none:");
            for line in [
                "secrets = { root_password = { file = \"root.hash\" } }    # of pilotlight hash-password",
                "[profile.settings]",
                "timezone = \"UTC\"",
            ] {
                rows.comment(line);
            }
        }
        rows.blank();
        rows.comment("A machine that boots it without a choice in the menu:");
        for line in ["[[machine]]", "name = \"web1\"", "mac = \"52:54:00:00:00:01\""] {
            rows.comment(line);
        }
        rows.comment(&format!("profile = {name}"));
    }
}

impl Profile {
    fn lay(&self, rows: &mut Rows) {
        rows.table("[[profile]]", None, &self.note, &self.at);
        rows.row(format!("name = {}", quoted(&self.name)), &self.at, true);
        if self.title != self.name && !self.title.is_empty() {
            rows.row(format!("title = {}", quoted(&self.title)), &self.at, false);
        }
        if self.live {
            rows.row("kind = \"live\"".into(), &self.at, true);
        }
        if !self.menu {
            rows.row("menu = false".into(), &self.at, true);
        }
        rows.row(format!("kernel = {}", quoted(&self.boots.kernel)), &self.at, true);
        let initrd_at = self.initrd_at.as_ref().unwrap_or(&self.at);
        match &self.boots.initrds[..] {
            [] => {}
            [one] => rows.row(format!("initrd = {}", quoted(one)), initrd_at, true),
            all => rows.list("initrd", all.iter().map(|i| (quoted(i), initrd_at)), true),
        }
        if !self.boots.args.is_empty() {
            let at = self.args_at.as_ref().unwrap_or(&self.at);
            rows.row(format!("args = {}", quoted(&self.boots.args)), at, true);
        }
    }
}

impl Machine {
    fn lay(&self, rows: &mut Rows) {
        rows.table("[[machine]]", None, &[], &self.at);
        rows.row(format!("name = {}", quoted(&self.name)), &self.at, true);
        rows.row(format!("{} = {}", self.by.0, quoted(&self.by.1)), &self.at, true);
        let mut row = |key: &str, value: &str, at: &Here| {
            rows.row(format!("{key} = {}", quoted(value)), at, false);
        };
        if let Some((address, at)) = &self.address {
            row("address", &address.to_string(), at);
        }
        if let Some((hostname, at)) = &self.hostname {
            row("hostname", hostname, at);
        }
        if let Some((profile, at)) = &self.profile {
            row("profile", profile, at);
        }
    }
}

fn path(dir: &Path) -> String {
    quoted(&dir.display().to_string())
}

/// A line of TOML.
struct Row {
    text: String,
    /// What it came from; none for comments and brackets.
    at: Option<Here>,
    table: usize,
    /// Its table is nothing without it.
    vital: bool,
    out: bool,
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// Of each table the one that it belongs to.
    tables: Vec<Option<usize>>,
}

impl Rows {
    /// What stands before every table is table 0.
    fn here(&self) -> usize {
        self.tables.len()
    }

    fn push(&mut self, text: String, at: Option<&Here>, vital: bool) {
        let table = self.here();
        self.rows.push(Row { text, at: at.cloned(), table, vital, out: false });
    }

    fn blank(&mut self) {
        self.push(String::new(), None, false);
    }

    /// A comment, in lines of 100 characters.
    fn comment(&mut self, text: &str) {
        let mut line = "#".to_string();
        for word in text.split_whitespace() {
            if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > 100 {
                self.push(std::mem::replace(&mut line, "#".into()), None, false);
            }
            line.push(' ');
            line.push_str(word);
        }
        self.push(line, None, false);
    }

    fn table(&mut self, head: &str, of: Option<usize>, note: &[String], at: &Here) -> usize {
        self.tables.push(of);
        self.blank();
        note.iter().for_each(|text| self.comment(text));
        self.push(head.to_string(), Some(at), true);
        self.here()
    }

    fn row(&mut self, text: String, at: &Here, vital: bool) {
        self.push(text, Some(at), vital);
    }

    /// A value that is a list: one entry beside its key, several in rows of their own.
    fn list<'a>(
        &mut self,
        key: &str,
        all: impl ExactSizeIterator<Item = (String, &'a Here)>,
        vital: bool,
    ) {
        if all.len() == 1 {
            for (value, at) in all {
                self.row(format!("{key} = {value}"), at, vital);
            }
            return;
        }
        self.push(format!("{key} = ["), None, false);
        for (value, at) in all {
            self.row(format!("    {value},"), at, vital);
        }
        self.push("]".into(), None, false);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for row in self.rows.iter().filter(|r| !r.out) {
            text.push_str(&row.text);
            text.push('\n');
        }
        text
    }

    /// Takes out what is refused. False: nothing of ours is.
    fn take_out(&mut self, errors: &Errors, left: &mut Left) -> bool {
        let shown: Vec<usize> = (0..self.rows.len()).filter(|n| !self.rows[*n].out).collect();
        let mut any = false;
        for error in &errors.errors {
            let Some(n) = error.place.line.checked_sub(1).and_then(|l| shown.get(l)) else {
                continue;
            };
            let Row { at: Some(at), vital, table, out: false, .. } = &self.rows[*n] else {
                continue;
            };
            any = true;
            let hint = error.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
            let why = Reason::Refused(format!("{}{hint}", error.message));
            left.push(&at.clone(), why.clone());
            match *vital {
                true => self.drop_table(*table, &why, &at.clone(), left),
                false => self.rows[*n].out = true,
            }
        }
        any
    }

    /// A table and those that belong to it; each line that it was made of is told.
    fn drop_table(&mut self, table: usize, why: &Reason, told: &Here, left: &mut Left) {
        let mut seen = vec![told.clone()];
        let first = self.rows.partition_point(|r| r.table < table);
        for row in &mut self.rows[first..] {
            let of = row.table.checked_sub(1).and_then(|t| self.tables.get(t).copied()).flatten();
            if row.table != table && of != Some(table) {
                break;
            }
            if row.out {
                continue;
            }
            row.out = true;
            if let Some(at) = row.at.as_ref().filter(|at| !seen.contains(at)) {
                left.push(at, why.clone());
                seen.push(at.clone());
            }
        }
    }
}
