//! A walk over parsed TOML that knows the place of everything and stops at no error.
//!
//! By hand rather than by serde: serde ends at the first error, and tells of a wrong type in its
//! own words.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Places;
use super::report::{Errors, Finding, Note, Place, Source};
use super::words::{Wrong, bytes, say_bytes};
use crate::model::event::plain;

/// Entries of a list.
pub const LIST_LIMIT: usize = 64;
/// Bytes of a path: Linux's PATH_MAX.
const PATH_LIMIT: usize = 4096;
/// Characters of a misspelt key that are still compared, and names that it is compared with.
const NEAREST_LIMIT: (usize, usize) = (80, 1000);

/// A range of bytes in one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    file: usize,
    start: usize,
    end: usize,
}

/// A value and where it is written.
#[derive(Clone, Copy, Debug)]
pub struct Val<T> {
    pub value: T,
    pub at: Spot,
}

/// What the walk has found so far.
pub struct Walk<'a> {
    sources: Vec<Source<'a>>,
    pub errors: Errors,
    notes: Errors,
    places: BTreeMap<String, Place>,
    /// Texts that are secrets.
    hidden: Vec<Spot>,
}

impl<'a> Walk<'a> {
    pub fn new(files: &'a [(PathBuf, String)]) -> Walk<'a> {
        Walk {
            sources: files.iter().map(|(path, text)| Source::new(path, text)).collect(),
            errors: Errors::default(),
            notes: Errors::default(),
            places: BTreeMap::new(),
            hidden: Vec::new(),
        }
    }

    pub fn place(&self, at: Spot) -> Place {
        self.sources[at.file].place(at.start..at.end)
    }

    pub fn spot(file: usize, span: std::ops::Range<usize>) -> Spot {
        Spot { file, start: span.start, end: span.end }
    }

    pub fn err(&mut self, at: Spot, message: impl AsRef<str>, hint: impl AsRef<str>) {
        let found = self.finding(at, message, hint);
        self.errors.push(found);
    }

    /// An error of two places that do not agree.
    pub fn clash(
        &mut self,
        at: Spot,
        first: Spot,
        message: impl AsRef<str>,
        hint: impl AsRef<str>,
    ) {
        let mut found = self.finding(at, message, hint);
        found.first = Some(self.place(first));
        self.errors.push(found);
    }

    /// The value that a check makes of a text; what is wrong with it is reported here.
    pub fn check<'v, T>(
        &mut self,
        v: Val<&'v str>,
        check: impl FnOnce(&'v str) -> Result<T, Wrong>,
    ) -> Option<Val<T>> {
        match check(v.value) {
            Ok(value) => Some(Val { value, at: v.at }),
            Err((message, hint)) => {
                self.err(v.at, message, hint);
                None
            }
        }
    }

    pub fn note(&mut self, at: Spot, message: impl AsRef<str>, hint: impl AsRef<str>) {
        let found = self.finding(at, message, hint);
        self.notes.push(found);
    }

    fn finding(&self, at: Spot, message: impl AsRef<str>, hint: impl AsRef<str>) -> Finding {
        Finding::new(self.place(at), message, hint)
    }

    /// Remembers the place of what is looked at again when the disk is checked.
    pub fn keep(&mut self, key: String, at: Spot) {
        let place = self.place(at);
        self.places.insert(key, place);
    }

    /// A path as the file that holds it means it: beside that file.
    pub fn file_at(&mut self, key: &str, v: Val<&str>) -> Option<PathBuf> {
        if v.value.is_empty() || v.value.len() > PATH_LIMIT || v.value.contains('\0') {
            self.err(v.at, format!("`{key}` is no path: {}", quoted(v.value)), "");
            return None;
        }
        let beside = self.sources[v.at.file].path.parent().unwrap_or(Path::new(""));
        Some(beside.join(v.value))
    }

    /// The likeliest meaning of a word that is not known, as a hint; `else_` where none is near.
    /// Once there are more errors than are shown, nothing is compared: a hundred thousand wrong
    /// names would each meet a hundred thousand right ones.
    pub fn nearest<'n>(
        &self,
        word: &str,
        known: impl IntoIterator<Item = &'n str>,
        else_: impl Into<String>,
    ) -> String {
        let near = if self.errors.is_full() { None } else { nearest(word, known) };
        near.map_or(else_.into(), |k| format!("did you mean {}?", quoted(k)))
    }

    /// Makes what is secret unreadable in the lines that pictures show.
    fn hide(&mut self) {
        let Walk { sources, errors, notes, places, hidden } = self;
        let mut lines: HashMap<(&Path, usize), Vec<Range<usize>>> = HashMap::new();
        for spot in hidden.iter() {
            let source = &sources[spot.file];
            for (line, columns) in source.columns(spot.start..spot.end) {
                lines.entry((&source.path, line)).or_default().push(columns);
            }
        }
        let findings = errors.errors.iter_mut().chain(&mut notes.errors);
        let all = findings.flat_map(|f| std::iter::once(&mut f.place).chain(&mut f.first));
        for place in all.chain(places.values_mut()) {
            let file = place.file.clone();
            for columns in lines.get(&(&*file, place.line)).into_iter().flatten() {
                place.hide(columns);
            }
        }
    }

    /// Ends the walk: the errors in the order of the files, or the places and the notes.
    pub fn done(mut self) -> Result<(Places, Vec<Note>), Errors> {
        self.hide();
        let sources = &self.sources;
        let order = |f: &Finding| {
            let file = sources.iter().position(|s| s.path == f.place.file);
            (file, f.place.line, f.place.column)
        };
        self.errors.errors.sort_by_cached_key(order);
        self.notes.errors.sort_by_cached_key(order);
        if !self.errors.is_empty() {
            return Err(self.errors);
        }
        let mut notes = self.notes.errors;
        if let (more @ 1.., Some(last)) = (self.notes.more, notes.last()) {
            let place = last.place.clone();
            notes.push(Finding::new(place, format!("and {more} more notes like these"), ""));
        }
        Ok((Places(self.places), notes))
    }
}

/// The name that a word was likely meant for.
pub fn nearest<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let (letters, names) = NEAREST_LIMIT;
    if word.chars().count() > letters {
        return None;
    }
    let plain = |w: &str| w.to_lowercase().replace('_', "-");
    let word = plain(word);
    // Of two that are as far, the one that begins like it, and then is as long, is meant more
    // likely; beyond one slip nothing is that begins otherwise.
    let near = |k: &&'n str| {
        let plain = plain(k);
        let distance = strsim::damerau_levenshtein(&word, &plain);
        let alike = word.chars().zip(plain.chars()).take_while(|(a, b)| a == b).count();
        let longer = word.chars().count().abs_diff(plain.chars().count());
        let near = distance <= (k.len() / 3).max(1) && (alike > 0 || distance <= 1);
        near.then_some((distance, Reverse(alike), longer))
    };
    let scored = known.into_iter().take(names).filter_map(|k| Some((near(&k)?, k)));
    scored.min_by_key(|(score, _)| *score).map(|(_, k)| k)
}

/// A word of the file in quotes, cut to what a sentence can hold.
pub fn quoted(word: &str) -> String {
    format!("\"{}\"", plain(word, 60))
}

/// A TOML type in the words of a person.
fn words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn integer(n: &toml::de::DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(n.as_str(), n.radix()).ok()
}

/// The tables and the keys that each of them knows.
pub type Schema = &'static [(&'static str, &'static [&'static str])];

/// The title of the table that holds all the others.
pub const TOP: &str = "the top of the file";

struct Entry<'a> {
    key: &'a str,
    key_at: Spot,
    value: &'a DeValue<'a>,
    at: Spot,
}

/// A table, put together from all the files that hold a part of it.
pub struct Table<'a> {
    title: &'static str,
    schema: Schema,
    /// Its header; of a table in several files the first.
    pub at: Spot,
    entries: Vec<Entry<'a>>,
}

/// One file's part of a table: the file's number and the header's or key's place.
type Part<'a> = (Spot, &'a DeTable<'a>);

impl<'a> Table<'a> {
    /// The whole configuration.
    pub fn top(w: &mut Walk<'_>, schema: Schema, files: &'a [Spanned<DeTable<'a>>]) -> Table<'a> {
        let part = |(i, t): (usize, &'a Spanned<DeTable<'a>>)| (Walk::spot(i, 0..0), t.get_ref());
        Table::new(w, TOP, schema, files.iter().enumerate().map(part).collect())
    }

    /// A table that is not there is an empty one.
    fn new(w: &mut Walk<'_>, title: &'static str, schema: Schema, parts: Vec<Part<'a>>) -> Self {
        let at = parts.first().map_or(Walk::spot(0, 0..0), |p| p.0);
        let mut entries = Vec::new();
        for (header, part) in parts {
            let first = entries.len();
            entries.extend(part.iter().map(|(key, value)| Entry {
                key: key.get_ref(),
                key_at: Walk::spot(header.file, key.span()),
                value: value.get_ref(),
                at: Walk::spot(header.file, value.span()),
            }));
            entries[first..].sort_by_key(|e| e.key_at.start);
        }
        let mut table = Table { title, schema, at, entries };
        match table.known() {
            Some(known) => table.refuse_unknown(w, known),
            None => table.refuse_too_many(w),
        }
        table
    }

    fn refuse_too_many(&mut self, w: &mut Walk<'_>) {
        if self.entries.len() > LIST_LIMIT {
            let message = format!("{} has {} keys", self.title, self.entries.len());
            w.err(self.at, message, format!("there is room for {LIST_LIMIT}"));
            self.entries.truncate(LIST_LIMIT);
        }
    }

    /// The keys it knows; a table whose keys are the user's own has none here.
    fn known(&self) -> Option<&'static [&'static str]> {
        self.schema.iter().find(|(title, _)| *title == self.title).map(|(_, keys)| *keys)
    }

    fn refuse_unknown(&self, w: &mut Walk<'_>, known: &[&str]) {
        for e in self.entries.iter().filter(|e| !known.contains(&e.key)) {
            let mut owners = self.schema.iter().filter(|(_, keys)| keys.contains(&e.key));
            let other = match (owners.next(), owners.next()) {
                (Some((TOP, _)), None) => {
                    format!("`{}` stands at the top, before the first [table]", e.key)
                }
                (Some((title, _)), None) => format!("`{}` belongs in {title}", e.key),
                _ => format!("it knows {}", known.join(", ")),
            };
            let hint = w.nearest(e.key, known.iter().copied(), other);
            w.err(e.key_at, format!("{} has no key {}", self.title, quoted(e.key)), hint);
        }
    }

    /// The entry of a key that may be there once.
    fn one(&self, w: &mut Walk<'_>, key: &str) -> Option<&Entry<'a>> {
        let mut all = self.entries.iter().filter(|e| e.key == key);
        let first = all.next()?;
        for again in all {
            let message = format!("`{key}` of {} is set twice", self.title);
            w.clash(again.key_at, first.key_at, message, "leave one of them out");
        }
        Some(first)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    /// Where a key is written; the table where it is not.
    pub fn key_at(&self, key: &str) -> Spot {
        self.entries.iter().find(|e| e.key == key).map_or(self.at, |e| e.key_at)
    }

    /// The keys, each once, for a table whose keys are the user's own.
    pub fn keys(&self) -> Vec<Val<&'a str>> {
        let mut found: Vec<Val<&str>> = Vec::new();
        for e in &self.entries {
            if !found.iter().any(|k| k.value == e.key) {
                found.push(Val { value: e.key, at: e.key_at });
            }
        }
        found
    }

    /// Says that a key that must be there is not.
    pub fn missing(&self, w: &mut Walk<'_>, key: &str, hint: &str) {
        if !self.has(key) {
            w.err(self.at, format!("this {} has no `{key}`", self.title), hint);
        }
    }

    pub fn text(&self, w: &mut Walk<'_>, key: &str) -> Option<Val<&'a str>> {
        let e = self.one(w, key)?;
        match e.value {
            DeValue::String(s) => Some(Val { value: s, at: e.at }),
            other => {
                w.err(e.at, wrong(key, "a text", other), quotes(other));
                None
            }
        }
    }

    /// A text that no message shows, not even as the line of its picture.
    pub fn hidden_text(&self, w: &mut Walk<'_>, key: &str, hint: &str) -> Option<Val<&'a str>> {
        let e = self.one(w, key)?;
        w.hidden.push(e.at);
        match e.value {
            DeValue::String(s) => Some(Val { value: s, at: e.at }),
            other => {
                w.err(e.at, wrong(key, "a text or a table", other), hint);
                None
            }
        }
    }

    pub fn is_table(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key && matches!(e.value, DeValue::Table(_)))
    }

    /// A text, or a list of texts.
    pub fn texts(&self, w: &mut Walk<'_>, key: &str) -> Vec<Val<&'a str>> {
        let Some(e) = self.one(w, key) else { return Vec::new() };
        let (file, mut found) = (e.at.file, Vec::new());
        match e.value {
            DeValue::String(s) => found.push(Val { value: &**s, at: e.at }),
            DeValue::Array(list) if list.len() > LIST_LIMIT => w.err(
                e.at,
                format!("`{key}` has {} entries", list.len()),
                format!("there is room for {LIST_LIMIT}"),
            ),
            DeValue::Array(list) => {
                for item in list.iter() {
                    let at = Walk::spot(file, item.span());
                    match item.get_ref() {
                        DeValue::String(s) => found.push(Val { value: &**s, at }),
                        other => {
                            let message = wrong_entry(key, "a text", other);
                            w.err(at, message, quotes(other));
                        }
                    }
                }
            }
            other => w.err(e.at, wrong(key, "a text or a list of texts", other), ""),
        }
        found
    }

    pub fn flag(&self, w: &mut Walk<'_>, key: &str) -> Option<Val<bool>> {
        let e = self.one(w, key)?;
        match e.value {
            DeValue::Boolean(value) => Some(Val { value: *value, at: e.at }),
            other => {
                w.err(
                    e.at,
                    wrong(key, "true or false", other),
                    "write true or false, without quotes",
                );
                None
            }
        }
    }

    pub fn whole<T: TryFrom<i64>>(
        &self,
        w: &mut Walk<'_>,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Option<Val<T>> {
        let e = self.one(w, key)?;
        let DeValue::Integer(n) = e.value else {
            let message = wrong(key, "a whole number", e.value);
            w.err(e.at, message, "write digits, without quotes");
            return None;
        };
        let value = integer(n).filter(|n| range.contains(n)).and_then(|n| T::try_from(n).ok());
        if value.is_none() {
            let (low, high) = (range.start(), range.end());
            let message = format!("`{key}` is {}", plain(&n.to_string(), 60));
            w.err(e.at, message, format!("it goes from {low} to {high}"));
        }
        Some(Val { value: value?, at: e.at })
    }

    /// A length of time such as `12h`, within the range.
    pub fn time(
        &self,
        w: &mut Walk<'_>,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Val<Duration>> {
        const HINT: &str = "write a number with its unit, like \"30s\", \"5m\", \"12h\" or \"1d\"";
        let e = self.one(w, key)?;
        let DeValue::String(s) = e.value else {
            w.err(e.at, wrong(key, "a length of time", e.value), HINT);
            return None;
        };
        let Ok(value) = humantime::parse_duration(s) else {
            w.err(e.at, format!("`{key}` is no length of time: {}", quoted(s)), HINT);
            return None;
        };
        if !range.contains(&value) {
            let say = humantime::format_duration;
            let hint = format!("it goes from {} to {}", say(*range.start()), say(*range.end()));
            w.err(e.at, format!("`{key}` is {}", quoted(s)), hint);
            return None;
        }
        Some(Val { value, at: e.at })
    }

    /// Bytes such as `50 GB`, within the range; `per` may stand behind them (`/s`).
    pub fn size(
        &self,
        w: &mut Walk<'_>,
        key: &str,
        per: &str,
        range: RangeInclusive<u64>,
    ) -> Option<Val<u64>> {
        let hint = format!("write a number with its unit, like \"40 MB{per}\" or \"2 GiB{per}\"");
        let e = self.one(w, key)?;
        let DeValue::String(s) = e.value else {
            w.err(e.at, wrong(key, "a number of bytes", e.value), hint);
            return None;
        };
        let Some(value) = bytes(s.strip_suffix(per).unwrap_or(s)) else {
            w.err(e.at, format!("`{key}` is no number of bytes: {}", quoted(s)), hint);
            return None;
        };
        if !range.contains(&value) {
            let (low, high) = (say_bytes(*range.start()), say_bytes(*range.end()));
            let hint = format!("it goes from {low}{per} to {high}{per}");
            w.err(e.at, format!("`{key}` is {}", quoted(s)), hint);
            return None;
        }
        Some(Val { value, at: e.at })
    }

    /// Whether a key is there with a list that has nothing in it.
    pub fn is_empty_list(&self, key: &str) -> bool {
        let empty = |e: &Entry<'_>| matches!(e.value, DeValue::Array(list) if list.is_empty());
        self.entries.iter().any(|e| e.key == key && empty(e))
    }

    /// A path, beside the file that names it unless it is absolute.
    pub fn path(&self, w: &mut Walk<'_>, key: &str) -> Option<Val<PathBuf>> {
        let text = self.text(w, key)?;
        Some(Val { value: w.file_at(key, text)?, at: text.at })
    }

    /// A table, put together from all the files that hold a part of it.
    pub fn table(&self, w: &mut Walk<'_>, key: &str, title: &'static str) -> Table<'a> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        for e in self.entries.iter().filter(|e| e.key == key) {
            match e.value {
                DeValue::Table(t) => parts.push((e.key_at, t)),
                other => {
                    let hint = match title.starts_with('[') {
                        true => format!("write {title}"),
                        false => format!("write {key} = {{ NAME = VALUE, … }}"),
                    };
                    w.err(e.key_at, wrong(key, "a table", other), hint);
                }
            }
        }
        Table::new(w, title, self.schema, parts)
    }

    /// The tables of an array of tables, those of all the files, in order.
    pub fn tables(&self, w: &mut Walk<'_>, key: &str, title: &'static str) -> Vec<Table<'a>> {
        let mut found = Vec::new();
        for e in self.entries.iter().filter(|e| e.key == key) {
            let DeValue::Array(list) = e.value else {
                let message = wrong(key, "a list of tables", e.value);
                w.err(e.key_at, message, format!("write {title}, with two brackets"));
                continue;
            };
            for item in list.iter() {
                let at = Walk::spot(e.at.file, item.span());
                match item.get_ref() {
                    DeValue::Table(t) => {
                        found.push(Table::new(w, title, self.schema, vec![(at, t)]))
                    }
                    other => {
                        let message = wrong_entry(key, "a table", other);
                        w.err(at, message, format!("write {title}"));
                    }
                }
            }
        }
        found
    }

    /// Values of the user's own, as the templates see them.
    pub fn values(&self, w: &mut Walk<'_>) -> Map<String, Value> {
        let mut out = Map::new();
        for key in self.keys() {
            if let Some(e) = self.one(w, key.value)
                && let Some(value) = json(w, e.at, e.value)
            {
                out.insert(key.value.to_string(), value);
            }
        }
        out
    }
}

fn wrong(key: &str, want: &str, value: &DeValue<'_>) -> String {
    format!("`{key}` must be {want}, but this is {}", words(value))
}

fn wrong_entry(key: &str, want: &str, value: &DeValue<'_>) -> String {
    format!("each entry of `{key}` must be {want}, but this is {}", words(value))
}

/// What to do where a text was wanted.
fn quotes(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) | DeValue::Table(_) => "write one text, in quotes",
        _ => "put it in quotes",
    }
}

/// A TOML value as JSON; a date becomes its text. The depth is bounded by the TOML parser.
fn json(w: &mut Walk<'_>, at: Spot, value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(d) => Value::String(d.to_string()),
        DeValue::Integer(n) => match integer(n) {
            Some(n) => Value::Number(n.into()),
            None => {
                w.err(at, "this number does not fit in 64 bits", "put it in quotes");
                return None;
            }
        },
        DeValue::Float(f) => match f.as_str().parse().ok().and_then(Number::from_f64) {
            Some(n) => Value::Number(n),
            None => {
                w.err(at, "a template has no such number", "put it in quotes");
                return None;
            }
        },
        DeValue::Array(list) => {
            let items = list.iter();
            let each = items.map(|i| json(w, Walk::spot(at.file, i.span()), i.get_ref()));
            Value::Array(each.collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let each = table.iter().map(|(k, v)| {
                let value = json(w, Walk::spot(at.file, v.span()), v.get_ref())?;
                Some((k.get_ref().to_string(), value))
            });
            Value::Object(each.collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["router", "range", "state-dir"];
        assert_eq!(nearest("rotuer", known), Some("router"));
        assert_eq!(nearest("state_dir", known), Some("state-dir"));
        assert_eq!(nearest("banana", known), None);
        assert_eq!(nearest(&"r".repeat(1000), known), None, "and nothing long is compared");
    }
}
