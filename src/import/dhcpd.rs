//! dhcpd.conf of ISC DHCP (dhcpd.conf(5), dhcp-options(5)).
//!
//! 1. [`read`] makes statements of a text: words up to a `;`, or words with a block of statements.
//! 2. What a block says of itself (options, times, names) is gathered first, for in dhcpd it holds
//!    for all that is declared in it, wherever it stands.
//! 3. Then its declarations are gone through: subnets, pools, hosts, groups, included files. Each
//!    subnet takes the options that hold for it, the nearest first.
//!
//! dhcpd.leases has the same language, and is read by [`super::leases`] from the same statements.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::draft::{Draft, LIST_LIMIT};
use super::options::{Holds, Told, Word, of_dhcpd, told};
use super::{
    Files, Here, INCLUDE_DEPTH, NoFile, Reason, bad, folder_of, name_of, quoted, shown, within,
};
use crate::config::Finding;
use crate::model::Mac;
use crate::model::event::plain;

/// How deep blocks may lie in one another. dhcpd.conf(5) has use for six.
const DEPTH: usize = 32;

/// Words up to `;`, or with a block behind them.
#[derive(Debug)]
pub struct Statement {
    pub words: Vec<Word>,
    pub block: Option<Vec<Statement>>,
    pub at: Here,
}

impl Statement {
    pub fn word(&self, n: usize) -> &str {
        self.words.get(n).map_or("", |w| w.text.as_str())
    }

    fn lower(&self, n: usize) -> String {
        self.word(n).to_ascii_lowercase()
    }

    fn block(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Whether a word of it, or of what lies in it, is one of these.
    fn names(&self, wanted: &[&str]) -> bool {
        let mut open = vec![self];
        while let Some(s) = open.pop() {
            if s.words.iter().any(|w| wanted.contains(&w.text.as_str())) {
                return true;
            }
            open.extend(s.block());
        }
        false
    }
}

/// A block that is not closed yet.
struct Open {
    words: Vec<Word>,
    head: Range<usize>,
    line: usize,
    column: usize,
    inside: Vec<Statement>,
}

/// The statements of a text.
///
/// # Errors
/// Where it is none, as dhcpd itself would say.
pub fn read(file: &Path, text: &str) -> Result<Vec<Statement>, Box<Finding>> {
    let name: Arc<str> = file.display().to_string().into();
    let here = |head: &Range<usize>, lines| {
        Here::new(&name, lines, text.get(head.clone()).unwrap_or_default())
    };
    let mut lexer = Lexer { text, at: 0, line: 1, line_at: 0 };
    let mut open: Vec<Open> = Vec::new();
    let mut done: Vec<Statement> = Vec::new();
    let (mut words, mut head, mut first): (Vec<Word>, _, _) = (Vec::new(), 0..0, (1, 1));
    // Where the last word ends.
    let mut last = (1, 1);
    let unended = |last: (usize, usize)| {
        let message = format!("line {} has no \";\" at its end", last.0);
        bad(file, text, last, &message, "each statement ends with one")
    };
    loop {
        let token = lexer.next().map_err(|(at, what, hint)| bad(file, text, at, what, hint))?;
        let place = lexer.place(token.span.start);
        match token.kind {
            Kind::Word(word) => {
                if words.is_empty() {
                    (head, first) = (token.span.clone(), place);
                } else if place.0 > last.0 && !word.quoted && is_unended(&words, &word.text) {
                    return Err(unended(last));
                }
                last = lexer.place(token.span.end.saturating_sub(1));
                head.end = token.span.end;
                words.push(word);
            }
            // dhcpd takes a `;` too many.
            Kind::Semicolon if words.is_empty() => {}
            Kind::Semicolon => {
                let words = std::mem::take(&mut words);
                let at = here(&head, (first.0, lexer.line));
                done.push(Statement { words, block: None, at });
            }
            Kind::Open if words.is_empty() => {
                let hint = "a block stands behind what it is, like subnet 10.0.0.0 netmask …";
                return Err(bad(file, text, place, "a block of nothing begins here", hint));
            }
            Kind::Open if open.len() >= DEPTH => {
                let hint = "no configuration has a use for that";
                let message = format!("blocks lie in one another more than {DEPTH} deep");
                return Err(bad(file, text, place, &message, hint));
            }
            Kind::Open => open.push(Open {
                words: std::mem::take(&mut words),
                head: head.clone(),
                line: first.0,
                column: first.1,
                inside: std::mem::take(&mut done),
            }),
            Kind::Close if !words.is_empty() => return Err(unended(last)),
            Kind::Close => {
                let Some(last) = open.pop() else {
                    let hint = "leave it out, or look for the \"{\" that is missing";
                    return Err(bad(file, text, place, "this \"}\" closes nothing", hint));
                };
                let inside = std::mem::replace(&mut done, last.inside);
                let at = here(&last.head, (last.line, lexer.line));
                done.push(Statement { words: last.words, block: Some(inside), at });
            }
            Kind::End => break,
        }
    }
    if !words.is_empty() {
        let hint = "each statement ends with \";\"";
        return Err(bad(file, text, first, "this statement has no end", hint));
    }
    match open.last() {
        None => Ok(done),
        Some(o) => {
            let at = (o.line, o.column);
            Err(bad(file, text, at, "this block is not closed", "write the \"}\" that is missing"))
        }
    }
}

/// Whether `;` was forgotten between these words and the next, which begins a line: both are of those
/// that begin statements. An expression (`option a = concat(…`) has `option` in it, too.
fn is_unended(words: &[Word], next: &str) -> bool {
    const SIMPLE: [&str; 18] = [
        "allow",
        "authoritative",
        "ddns-update-style",
        "default-lease-time",
        "deny",
        "filename",
        "fixed-address",
        "hardware",
        "include",
        "interface",
        "log-facility",
        "max-lease-time",
        "min-lease-time",
        "next-server",
        "option",
        "range",
        "server-name",
        "use-host-decl-names",
    ];
    const BLOCKS: [&str; 8] =
        ["class", "group", "host", "if", "pool", "shared-network", "subclass", "subnet"];
    let is = |all: &[&str], word: &str| all.iter().any(|known| known.eq_ignore_ascii_case(word));
    let expression = |w: &Word| !w.quoted && matches!(w.text.as_str(), "=" | "(" | ",");
    let begins = words.first().is_some_and(|w| !w.quoted && is(&SIMPLE, &w.text));
    begins && !words.iter().any(expression) && (is(&SIMPLE, next) || is(&BLOCKS, next))
}

enum Kind {
    Word(Word),
    Semicolon,
    Open,
    Close,
    End,
}

struct Token {
    kind: Kind,
    span: Range<usize>,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    /// Where that line begins.
    line_at: usize,
}

type Wrong = ((usize, usize), &'static str, &'static str);

impl Lexer<'_> {
    /// Line and column of a place in the line that is read.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(self.line_at..at).unwrap_or_default();
        (self.line, before.chars().count() + 1)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '\n' => {
                    self.at += 1;
                    (self.line, self.line_at) = (self.line + 1, self.at);
                }
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token, Wrong> {
        self.skip();
        let start = self.at;
        let Some(c) = self.rest().chars().next() else {
            return Ok(Token { kind: Kind::End, span: start..start });
        };
        let one = |kind| Ok(Token { kind, span: start..start + 1 });
        self.at += c.len_utf8();
        match c {
            ';' => one(Kind::Semicolon),
            '{' => one(Kind::Open),
            '}' => one(Kind::Close),
            '"' => self.quoted(start),
            ',' | '=' | '(' | ')' => one(Kind::Word(Word { text: c.into(), quoted: false })),
            _ => {
                let ends = |c: char| c.is_whitespace() || ";{}\",=()#".contains(c);
                self.at += self.rest().find(ends).unwrap_or(self.rest().len());
                let text = self.text[start..self.at].to_string();
                Ok(Token { kind: Kind::Word(Word { text, quoted: false }), span: start..self.at })
            }
        }
    }

    /// A text in quotes, on one line; a backslash takes what follows as it is.
    fn quoted(&mut self, start: usize) -> Result<Token, Wrong> {
        let mut text = String::new();
        let mut escaped = false;
        for (n, c) in self.rest().char_indices() {
            match c {
                '\n' => break,
                '"' if !escaped => {
                    self.at += n + 1;
                    let kind = Kind::Word(Word { text, quoted: true });
                    return Ok(Token { kind, span: start..self.at });
                }
                '\\' if !escaped => escaped = true,
                c => {
                    escaped = false;
                    text.push(c);
                }
            }
        }
        Err((self.place(start), "this text has no end", "close it with a quote in the same line"))
    }
}

/// Reads a file and those that it includes into the draft.
///
/// # Errors
/// The first thing that dhcpd would not understand either.
pub fn import(
    draft: &mut Draft,
    files: &dyn Files,
    file: &Path,
    text: &str,
) -> Result<(), Box<Finding>> {
    let dir = folder_of(files, file);
    let mut includes = Includes { files, dir, stack: vec![files.here().join(file)] };
    let all = includes.expand(draft, read(file, text)?, 0)?;
    let mut importer = Importer { draft, own: HashMap::new() };
    importer.block(&all, &Scope::default());
    let unused = importer.own.into_values().filter(|own| !own.used);
    let mut unused: Vec<Here> = unused.map(|own| own.at).collect();
    unused.sort_by_key(|at| at.line);
    unused.iter().for_each(|at| draft.leave(at, Reason::Unused));
    Ok(())
}

/// Puts what files include in the place where they do.
struct Includes<'a> {
    files: &'a dyn Files,
    dir: PathBuf,
    /// The files that are read, one included by the other.
    stack: Vec<PathBuf>,
}

impl Includes<'_> {
    fn expand(
        &mut self,
        draft: &mut Draft,
        all: Vec<Statement>,
        depth: usize,
    ) -> Result<Vec<Statement>, Box<Finding>> {
        let mut out = Vec::new();
        for mut s in all {
            if s.lower(0) == "include" && s.block.is_none() && s.words.len() == 2 {
                match self.open(s.word(1), depth) {
                    Ok((path, text)) => {
                        let inside = read(&shown(self.files, &path), &text)?;
                        self.stack.push(path);
                        out.extend(self.expand(draft, inside, depth + 1)?);
                        self.stack.pop();
                    }
                    Err(why) => draft.leave(&s.at, why),
                }
                continue;
            }
            if let Some(block) = s.block.take() {
                s.block = Some(self.expand(draft, block, depth + 1)?);
            }
            out.push(s);
        }
        Ok(out)
    }

    fn open(&self, name: &str, depth: usize) -> Result<(PathBuf, String), Reason> {
        let path = within(&self.dir, Path::new(name)).ok_or(Reason::NotRead(NoFile::Outside))?;
        match self.stack.contains(&path) {
            true => return Err(Reason::Endless),
            false if self.stack.len() >= INCLUDE_DEPTH || depth >= DEPTH => {
                return Err(Reason::Deep);
            }
            false => {}
        }
        let text = self.files.read(&path).map_err(Reason::NotRead)?;
        Ok((path, text))
    }
}

/// What holds in a block.
#[derive(Default)]
struct Scope<'a> {
    of: Option<&'a Scope<'a>>,
    told: Vec<Held>,
    /// The subnets of it take its host names for their machines.
    names: Option<bool>,
    subnet: Option<Ipv4Net>,
}

struct Held {
    told: Told,
    at: Here,
    used: Cell<bool>,
}

impl Scope<'_> {
    fn names(&self) -> bool {
        self.names.or_else(|| self.of.map(Scope::names)).unwrap_or(false)
    }

    fn subnet(&self) -> Option<Ipv4Net> {
        self.subnet.or_else(|| self.of.and_then(Scope::subnet))
    }
}

struct Importer<'a> {
    draft: &'a mut Draft,
    /// `option NAME code N = …`.
    own: HashMap<String, Own>,
}

/// An option that the file itself defines.
struct Own {
    code: u8,
    holds: Holds,
    at: Here,
    used: bool,
}

impl Importer<'_> {
    /// The statements of a block, in a scope of their own.
    fn block(&mut self, all: &[Statement], of: &Scope<'_>) {
        let mut scope = Scope { of: Some(of), ..Scope::default() };
        let declares: Vec<&Statement> =
            all.iter().filter(|s| !self.parameter(s, &mut scope)).collect();
        if let Some(network) = of.subnet {
            self.take(network, &scope);
        }
        for s in declares {
            self.declaration(s, &scope);
        }
        for held in scope.told.iter().filter(|h| !h.used.get()) {
            self.draft.leave(&held.at, Reason::NoSubnet);
        }
    }

    /// The options of a subnet, the nearest first.
    fn take(&mut self, network: Ipv4Net, scope: &Scope<'_>) {
        let mut from = Some(scope);
        while let Some(scope) = from {
            for held in &scope.told {
                if self.draft.tell(network, &held.told, &held.at) {
                    held.used.set(true);
                }
            }
            from = scope.of;
        }
    }

    /// What a block says of itself; false for a declaration.
    fn parameter(&mut self, s: &Statement, scope: &mut Scope<'_>) -> bool {
        let at = s.at.clone();
        let key = s.lower(0);
        let time = |key| Told::Key(key, quoted(&lasting(s.word(1))));
        let told = match (key.as_str(), s.words.len()) {
            ("option", 2..) => match self.option(s, &at) {
                Some(told) => told,
                None => return true,
            },
            ("default-lease-time", 2) => time("lease-time"),
            ("max-lease-time", 2) => time("max-lease-time"),
            ("use-host-decl-names", 2) => {
                scope.names = Some(matches!(s.lower(1).as_str(), "on" | "true"));
                return true;
            }
            _ => return false,
        };
        match scope.told.len() < LIST_LIMIT {
            true => scope.told.push(Held { told, at, used: Cell::new(false) }),
            false => self.draft.leave(&at, Reason::TooMany(LIST_LIMIT)),
        }
        true
    }

    /// `option NAME VALUE, …`, `option NAME code N = TYPE`, `option SPACE.NAME …`.
    fn option(&mut self, s: &Statement, at: &Here) -> Option<Told> {
        let name = s.lower(1);
        if name == "space" || name.contains('.') {
            self.draft.leave(at, Reason::Vendor);
            return None;
        }
        if s.word(2) == "code" {
            self.define(name, s, at);
            return None;
        }
        if name == "host-name" {
            // Asked for again where it stands in a host.
            self.draft.leave(at, Reason::PerMachine);
            return None;
        }
        let own = self.own.get_mut(&name).map(|own| {
            own.used = true;
            (own.code, own.holds)
        });
        let Some((code, holds)) = own.or_else(|| of_dhcpd(&name)) else {
            self.draft.leave(at, Reason::UnknownOption);
            return None;
        };
        if s.word(2) == "=" || s.words.iter().any(|w| w.text == "(" && !w.quoted) {
            self.draft.leave(at, Reason::Relative);
            return None;
        }
        let values: Vec<Word> =
            s.words[2..].iter().filter(|w| w.quoted || w.text != ",").cloned().collect();
        let named = |w: &Word| holds == Holds::Ip && w.text.parse::<Ipv4Addr>().is_err();
        match told(code, holds, &values) {
            // It follows from the network that the subnet is declared with.
            Ok(Told::Option(1, _)) => self.draft.leave(at, Reason::Already),
            Ok(told) => return Some(told),
            Err(_) if values.iter().any(named) => self.draft.leave(at, Reason::HostName),
            Err(why) => self.draft.leave(at, why),
        }
        None
    }

    /// `option NAME code N = TYPE`.
    fn define(&mut self, name: String, s: &Statement, at: &Here) {
        let words: Vec<&str> = s.words[3..].iter().map(|w| w.text.as_str()).collect();
        let Some((code, kind)) = words.split_first().and_then(|(code, rest)| {
            let rest = rest.strip_prefix(&["="])?;
            Some((code.parse::<u8>().ok()?, rest.join(" ")))
        }) else {
            return self.draft.leave(at, Reason::Syntax);
        };
        let kind = kind.replace("unsigned ", "").replace("signed ", "signed-");
        let holds = match kind.as_str() {
            "ip-address" | "array of ip-address" => Holds::Ip,
            "text" => Holds::Text,
            "string" => Holds::Bytes,
            "boolean" => Holds::Flag,
            "integer 8" => Holds::U8,
            "integer 16" => Holds::U16,
            "integer 32" => Holds::U32,
            "signed-integer 32" => Holds::Signed,
            "array of integer 8" => Holds::U8s,
            "array of integer 16" => Holds::U16s,
            "array of integer 32" => Holds::U32s,
            "domain-list" | "domain-name" => Holds::Domains,
            _ => return self.draft.leave(at, Reason::OptionType),
        };
        if self.own.len() < 256 {
            self.own.insert(name, Own { code, holds, at: at.clone(), used: false });
        }
    }

    fn declaration(&mut self, s: &Statement, scope: &Scope<'_>) {
        let at = s.at.clone();
        match (s.lower(0).as_str(), s.block.is_some()) {
            ("subnet", true) => self.subnet(s, scope, &at),
            ("shared-network", true) => {
                let subnets = s.block().iter().filter(|s| s.lower(0) == "subnet").count();
                if subnets > 1 {
                    self.draft.leave(&at, Reason::SharedNetwork);
                }
                self.block(s.block(), scope);
            }
            ("group", true) => self.block(s.block(), scope),
            ("pool", true) => self.pool(s, scope),
            ("host", true) => self.host(s, scope, &at),
            ("range", false) => self.range(s, scope, &at),
            ("interface", false) if s.words.len() == 2 => {
                self.draft.interfaces.push((s.word(1).to_string(), at));
            }
            _ => self.draft.leave(&at, why(s)),
        }
    }

    fn subnet(&mut self, s: &Statement, of: &Scope<'_>, at: &Here) {
        let numbers = (s.word(1).parse::<Ipv4Addr>(), s.word(3).parse::<Ipv4Addr>());
        let network = match numbers {
            (Ok(first), Ok(mask)) if s.words.len() == 4 && s.lower(2) == "netmask" => {
                Ipv4Net::with_netmask(first, mask).ok()
            }
            _ => None,
        };
        let Some(network) = network else {
            return self.whole(s, at, &Reason::NoNetmask);
        };
        if self.draft.subnet(network, at).is_some() {
            let scope = Scope { of: Some(of), subnet: Some(network), ..Scope::default() };
            self.block(s.block(), &scope);
        }
    }

    /// A statement and all in it, line by line.
    fn whole(&mut self, s: &Statement, at: &Here, why: &Reason) {
        self.draft.leave(at, why.clone());
        for inner in s.block() {
            self.draft.leave(&inner.at.clone(), why.clone());
        }
    }

    /// `range [dynamic-bootp] FIRST [LAST]`
    fn range(&mut self, s: &Statement, scope: &Scope<'_>, at: &Here) {
        let words: Vec<&str> = s.words[1..].iter().map(|w| w.text.as_str()).collect();
        let (first, last) = match words[..] {
            ["dynamic-bootp", first] | [first] => (first, first),
            ["dynamic-bootp", first, last] | [first, last] => (first, last),
            _ => return self.draft.leave(at, Reason::Syntax),
        };
        match scope.subnet() {
            Some(network) => self.draft.range(network, format!("{first}-{last}"), at),
            None => self.draft.leave(at, Reason::NoSubnet),
        }
    }

    /// Ranges that only some machines had would be everybody's here.
    fn pool(&mut self, s: &Statement, scope: &Scope<'_>) {
        let rule = |s: &Statement| matches!(s.lower(0).as_str(), "allow" | "deny");
        let harmless = |s: &Statement| match (s.lower(0).as_str(), s.lower(1).as_str()) {
            ("allow", "unknown-clients" | "all") | ("deny", "bootp" | "duplicates") => true,
            ("deny", "dynamic") => s.lower(2) == "bootp",
            _ => false,
        };
        let open = s.block().iter().filter(|s| rule(s)).all(harmless);
        let inner = Scope { of: Some(scope), subnet: None, ..Scope::default() };
        let mut told = Scope::default();
        for s in s.block() {
            let at = s.at.clone();
            match s.lower(0).as_str() {
                "range" if open => self.range(s, &inner, &at),
                "range" => self.draft.leave(&at, Reason::Restricted),
                _ if rule(s) && harmless(s) => self.draft.leave(&at, Reason::Already),
                _ if rule(s) => self.draft.leave(&at, Reason::Restricted),
                "failover" => self.draft.leave(&at, Reason::Failover),
                _ if self.parameter(s, &mut told) => {}
                _ => self.draft.leave(&at, why(s)),
            }
        }
        for held in told.told {
            match scope.subnet() {
                // The subnet's own come first, for the rest of its addresses have them, too.
                Some(network) if self.draft.tell(network, &held.told, &held.at) => {}
                _ => self.draft.leave(&held.at, Reason::NoSubnet),
            }
        }
    }

    fn host(&mut self, s: &Statement, scope: &Scope<'_>, at: &Here) {
        let ethernet = |s: &&Statement| s.lower(0) == "hardware" && s.lower(1) == "ethernet";
        let mut told = s.block().iter().filter(ethernet).map(|s| s.word(2));
        let Some(mac) = told.clone().find_map(padded) else {
            return self.whole(s, at, &told.next().map_or(Reason::NoMac, no_mac));
        };
        let name = name_of(s.word(1), "host");
        let Some(n) = self.draft.machine(&name, ("mac", mac.to_string()), at) else { return };
        let (mut address, mut hostname) = (None, None);
        if scope.names() {
            hostname = Some((s.word(1).to_string(), at.clone()));
        }
        for s in s.block() {
            let at = s.at.clone();
            match (s.lower(0).as_str(), s.lower(1).as_str()) {
                ("hardware", "ethernet") => {}
                ("fixed-address", _) => address = self.fixed(s, &at),
                ("option", "host-name") if s.words.len() == 3 => {
                    hostname = Some((s.word(2).to_string(), at));
                }
                ("option", "dhcp-client-identifier") | ("uid" | "client-identifier", _) => {
                    self.draft.leave(&at, Reason::ClientId);
                }
                ("option" | "ddns-hostname" | "server-name", _) => {
                    self.draft.leave(&at, Reason::PerMachine);
                }
                ("deny", "booting") => self.draft.leave(&at, Reason::Ignored),
                ("default-lease-time" | "max-lease-time" | "min-lease-time", _) => {
                    self.draft.leave(&at, Reason::LeaseTime);
                }
                _ => self.draft.leave(&at, why(s)),
            }
        }
        if let Some(machine) = self.draft.machine_mut(n) {
            (machine.address, machine.hostname) = (address, hostname);
        }
    }

    /// `fixed-address ADDRESS, …`
    fn fixed(&mut self, s: &Statement, at: &Here) -> Option<(Ipv4Addr, Here)> {
        let all: Vec<&str> =
            s.words[1..].iter().filter(|w| w.text != ",").map(|w| w.text.as_str()).collect();
        if all.len() > 1 {
            self.draft.leave(at, Reason::MoreAddresses);
        }
        match all.first()?.parse() {
            Ok(address) => Some((address, at.clone())),
            Err(_) => {
                self.draft.leave(at, Reason::HostName);
                None
            }
        }
    }
}

/// Seconds, for people.
fn lasting(text: &str) -> String {
    match text.parse() {
        Ok(n) => humantime::format_duration(Duration::from_secs(n)).to_string(),
        Err(_) => text.to_string(),
    }
}

/// dhcpd takes a MAC address without leading zeros.
fn padded(text: &str) -> Option<Mac> {
    let parts: Vec<String> = text.split(':').map(|p| format!("{p:0>2}")).collect();
    parts.join(":").parse().ok()
}

/// Why what stands for a MAC address is none.
fn no_mac(text: &str) -> Reason {
    let byte = |part: &&str| !matches!(part.len(), 1 | 2) || u8::from_str_radix(part, 16).is_err();
    match text.split(':').find(byte) {
        Some(part) => Reason::NoByte(plain(part, 20)),
        None => Reason::NoValue("MAC address of six bytes"),
    }
}

/// Why a statement has no place here.
fn why(s: &Statement) -> Reason {
    /// Words by which a block chooses a loader.
    const BOOTS: [&str; 10] = [
        "filename",
        "next-server",
        "bootfile-name",
        "architecture-type",
        "arch",
        "pxe-system-type",
        "client-arch",
        "client-architecture",
        "gpxe.bus-id",
        "system-arch",
    ];
    match s.lower(0).as_str() {
        "authoritative" => Reason::Already,
        "filename" => Reason::Loader,
        "next-server" | "server-name" => Reason::NextServer,
        "class" | "subclass" | "if" | "elsif" | "else" | "switch" | "match" if s.names(&BOOTS) => {
            Reason::Arches
        }
        "class" | "subclass" | "spawn" | "match" => Reason::Class,
        "if" | "elsif" | "else" | "switch" | "on" | "set" | "unset" | "execute" | "log" => {
            Reason::Condition
        }
        "allow" | "deny" | "ignore" => match s.lower(1).as_str() {
            "booting" | "bootp" | "unknown-clients" if s.lower(0) == "allow" => Reason::Already,
            "bootp" | "client-updates" | "duplicates" => Reason::Already,
            "unknown-clients" | "booting" => Reason::Ignored,
            _ => Reason::LeaseRules,
        },
        "failover" => Reason::Failover,
        "key" | "zone" | "update-static-leases" => Reason::Ddns,
        "omapi-port" | "omapi-key" => Reason::Control,
        "log-facility" => Reason::Logging,
        "lease-file-name" => Reason::LeaseFile,
        "pid-file-name" | "local-port" | "local-address" | "remote-port" => Reason::Process,
        "subnet6" | "range6" | "prefix6" | "dhcpv6-lease-file-name" | "fixed-address6" => {
            Reason::SixOnly
        }
        "get-lease-hostnames" => Reason::Dns,
        "hardware" => Reason::NoMac,
        "not" if s.lower(1) == "authoritative" => Reason::Process,
        key if key.starts_with("ddns-") || key.starts_with("do-forward") => Reason::Ddns,
        key if key.contains("lease")
            || key.starts_with("ping-")
            || key == "one-lease-per-client" =>
        {
            Reason::LeaseRules
        }
        _ => Reason::Unknown,
    }
}
