//! Debian's archives: Release, and the Packages and SHA256SUMS that it lists.
//!
//! Fields as in <https://wiki.debian.org/DebianRepository/Format>.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::index::{Index, Kind, Packed};
use super::table::{ROWS, Table};
use super::unpack::{Packing, Unpacked};
use super::{Expect, Fault, Listing, Root, paths};
use crate::mirror::Digest;

/// Parts of a path below a suite, which are no part of its name.
const INSIDE: &[&str] = &[
    "main",
    "contrib",
    "non-free",
    "non-free-firmware",
    "universe",
    "restricted",
    "multiverse",
    "pool",
    "by-hash",
    "source",
    "i18n",
    "dep11",
    "cnf",
    "Contents",
    "debian-installer",
];
const INSIDE_PREFIXES: &[&str] = &["binary-", "installer-"];
/// The most parts of a suite's name: `bookworm/updates`, and one more.
const DEEP: usize = 3;

/// Whether this Release is the root of a set, and not one of those that it lists.
pub fn is_root(path: &str) -> bool {
    let (folder, name) = paths::split(path);
    let parent = paths::split(folder).1;
    name == "InRelease" || (name == "Release" && !is_inside(parent))
}

fn is_inside(part: &str) -> bool {
    INSIDE.contains(&part) || INSIDE_PREFIXES.iter().any(|p| part.starts_with(p))
}

/// The archive of a root and its suite: `debian/dists/bookworm` is of `debian`. A flat one is its
/// own.
fn archive(folder: &str) -> &str {
    match folder.split_once("/dists/") {
        Some((archive, _)) => archive,
        None if folder.starts_with("dists/") => "",
        None => folder,
    }
}

/// Where the suite of a path may begin.
pub fn roots(path: &str) -> Vec<Root> {
    let parts: Vec<&str> = path.split('/').collect();
    let folders: Vec<String> = match parts.iter().position(|p| *p == "dists") {
        Some(dists) => (1..=DEEP)
            .map(|deep| dists + 1 + deep)
            .take_while(|end| *end < parts.len() && !is_inside(parts[end - 1]))
            .map(|end| parts[..end].join("/"))
            .collect(),
        None if parts.contains(&"pool") => return Vec::new(),
        None => paths::above(path).map(str::to_string).collect(),
    };
    let inline = folders.iter().map(|f| Root::new(paths::join(f, "InRelease"), Vec::new()));
    let detached = folders.iter().map(|f| {
        let release = paths::join(f, "Release");
        let signature = format!("{release}.gpg");
        Root::new(release, vec![signature])
    });
    inline.chain(detached).collect()
}

#[derive(Default)]
struct Named {
    short: Option<Digest>,
    long: Option<Digest>,
    size: u64,
}

/// Whether the names that a Release gives itself (`suites`) are those of its folder: one key signs
/// all suites of a distribution, and an old one in the place of a new one is an attack. The folder is
/// often a link by the other name (stable, bookworm), and security archives had an `updates` in it.
fn is_of(folder: &str, suites: &[&str]) -> bool {
    let Some((_, name)) = folder.rsplit_once("dists/").filter(|_| !suites.is_empty()) else {
        return true;
    };
    let plain = |name: &str| name.trim_end_matches("/updates").to_string();
    suites.iter().any(|suite| plain(suite) == plain(name))
}

/// A Release, of which only what was signed is given here.
pub fn release(path: &str, text: &str, now: Timestamp) -> Result<Listing, Fault> {
    let folder = paths::split(path).0;
    let mut files: BTreeMap<String, Named> = BTreeMap::new();
    let mut listing = Listing::default();
    let mut by_hash = false;
    let mut section = None;
    let mut weak = false;
    let mut suites = Vec::new();
    for line in text.lines() {
        if let Some(entry) = line.strip_prefix([' ', '\t']) {
            if let Some(long) = section {
                file(entry, long, &mut files)?;
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.trim();
        section = None;
        match field {
            "SHA256" => section = Some(false),
            "SHA512" => section = Some(true),
            "MD5Sum" | "SHA1" => weak = true,
            "Suite" | "Codename" => suites.push(value),
            "Acquire-By-Hash" => by_hash = value == "yes",
            "Date" => listing.dated = Some(date(value)?),
            "Valid-Until" => listing.expires = Some(date(value)?),
            _ => {}
        }
    }
    if !is_of(folder, &suites) {
        return Err(Fault::OtherSuite(suites.join(", ")));
    }
    match listing.expires {
        Some(end) if end < now => return Err(Fault::Stale(end)),
        _ if files.is_empty() && weak => return Err(Fault::WeakDigests),
        _ if files.is_empty() => return Err(Fault::NotRelease("it lists nothing")),
        _ => {}
    }
    for (name, named) in &files {
        let Some(digest) = named.short.or(named.long) else { continue };
        let expect = Expect { digest, size: Some(named.size) };
        listing.table.add(&paths::join(folder, name), expect);
        for (digest, kind) in [(named.short, "SHA256"), (named.long, "SHA512")] {
            if let Some(digest) = digest {
                listing.table.add(&by_digest(folder, name, kind, digest), expect);
            }
        }
    }
    listing.table.settle();
    listing.indexes = indexes(folder, &files, by_hash);
    Ok(listing)
}

/// ` HEX SIZE NAME`
fn file(entry: &str, long: bool, files: &mut BTreeMap<String, Named>) -> Result<(), Fault> {
    let mut words = entry.split_ascii_whitespace();
    let (Some(hex), Some(size), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err(Fault::NotRelease("a line of its list is not: digest, size, name"));
    };
    let digest = Digest::from_hex(hex)
        .ok()
        .filter(|d| matches!(d, Digest::Sha512(_)) == long)
        .ok_or(Fault::NotRelease("a digest is none"))?;
    let size = size.parse().map_err(|_| Fault::NotRelease("a size is none"))?;
    let Some(name) = paths::normal(name) else { return Ok(()) };
    if files.len() >= ROWS {
        return Err(Fault::TooMany(ROWS));
    }
    let named = files.entry(name).or_default();
    named.size = size;
    if long {
        named.long = Some(digest)
    } else {
        named.short = Some(digest)
    }
    Ok(())
}

/// `Sat, 10 Feb 2024 11:07:25 UTC`: a date that can't be read proves nothing, and refuses.
fn date(text: &str) -> Result<Timestamp, Fault> {
    jiff::fmt::rfc2822::parse(text)
        .map(|t| t.timestamp())
        .map_err(|_| Fault::NotRelease("a date is none"))
}

fn by_digest(folder: &str, name: &str, kind: &str, digest: Digest) -> String {
    let beside = paths::split(name).0;
    paths::join(folder, &paths::join(beside, &format!("by-hash/{kind}/{}", digest.hex())))
}

/// The indexes among the files of a Release, each with its packings, the smallest first.
fn indexes(folder: &str, files: &BTreeMap<String, Named>, by_hash: bool) -> Vec<Index> {
    let mut all: BTreeMap<String, (Kind, Vec<(Packing, Packed)>)> = BTreeMap::new();
    for (name, named) in files {
        let Some((packing, stem)) = Packing::of(name) else { continue };
        let Some(kind) = kind(folder, stem) else { continue };
        // An architecture without a package: its plain file is empty.
        if named.size == 0 {
            continue;
        }
        let (word, digest) = match (named.short, named.long) {
            (Some(digest), _) => ("SHA256", digest),
            (None, Some(digest)) => ("SHA512", digest),
            (None, None) => continue,
        };
        let path = paths::join(folder, name);
        // As apt does: Packages by digest, the lists of images by name.
        let named_so = by_hash && matches!(kind, Kind::Packages { .. });
        let fetch = if named_so { by_digest(folder, name, word, digest) } else { path.clone() };
        let expect = Expect { digest, size: Some(named.size) };
        let packed = (packing, Packed { path, fetch, expect });
        all.entry(stem.to_string()).or_insert_with(|| (kind, Vec::new())).1.push(packed);
    }
    // A plain file of no byte was left out above; its packings are then of no use either.
    all.retain(|stem, _| files.get(stem).is_none_or(|plain| plain.size > 0));
    all.into_values()
        .map(|(kind, mut packings)| {
            packings.sort_by_key(|(packing, _)| *packing);
            Index::new(kind, packings.into_iter().map(|(_, packed)| packed).collect())
        })
        .collect()
}

fn kind(folder: &str, stem: &str) -> Option<Kind> {
    let (place, name) = paths::split(stem);
    let archive = archive(folder).to_string();
    match name {
        "SHA256SUMS" => Some(Kind::Sums { folder: paths::join(folder, place) }),
        "Packages" if place.is_empty() => Some(Kind::Packages {
            archive,
            component: String::new(),
            architecture: String::new(),
            installer: false,
        }),
        "Packages" => {
            let (component, binary) = paths::split(place);
            let architecture = binary.strip_prefix("binary-")?.to_string();
            let installer = component.strip_suffix("/debian-installer");
            Some(Kind::Packages {
                archive,
                component: installer.unwrap_or(component).to_string(),
                architecture,
                installer: installer.is_some(),
            })
        }
        _ => None,
    }
}

/// The fields of one package that count.
#[derive(Default)]
struct Package {
    path: Option<String>,
    size: Option<u64>,
    short: Option<Digest>,
    long: Option<Digest>,
}

/// A Packages file: paragraphs of fields, whose Filename is below the archive.
pub fn packages(archive: &str, mut text: Unpacked<'_>, table: &mut Table) -> Result<(), Fault> {
    let mut buffer = Vec::new();
    let mut package = Package::default();
    let mut seen = false;
    loop {
        let line = text.line(&mut buffer)?;
        let Some(line) = line.filter(|l| !l.is_empty()) else {
            let ended = line.is_none();
            seen |= package.path.is_some();
            package.into_table(table)?;
            package = Package::default();
            if ended {
                break;
            }
            continue;
        };
        // Nearly all lines are of no interest: their first letters tell.
        let value = |name: &str| {
            let value = line.strip_prefix(name.as_bytes())?;
            std::str::from_utf8(value).ok().map(str::trim)
        };
        match line[0] {
            b'F' => {
                if let Some(name) = value("Filename:") {
                    package.path = paths::below(archive, name);
                }
            }
            b'S' => {
                if let Some(size) = value("Size:") {
                    package.size = size.parse().ok();
                } else if let Some(hex) = value("SHA256:") {
                    package.short = Digest::from_hex(hex).ok();
                } else if let Some(hex) = value("SHA512:") {
                    package.long = Digest::from_hex(hex).ok();
                }
            }
            _ => {}
        }
    }
    table.settle();
    // A component may have no package; one whose packages have no digest is of no use.
    if seen && table.len() == 0 { Err(Fault::WeakDigests) } else { Ok(()) }
}

impl Package {
    fn into_table(self, table: &mut Table) -> Result<(), Fault> {
        let (Some(path), Some(digest)) = (self.path, self.short.or(self.long)) else {
            return Ok(());
        };
        if table.len() >= ROWS {
            return Err(Fault::TooMany(ROWS));
        }
        table.add(&path, Expect { digest, size: self.size });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_of_its_folder() {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let read = |path: &str, names: &str| {
            let text = format!("{names}SHA256:\n {digest} 0 main/binary-amd64/Packages\n");
            release(path, &text, Timestamp::UNIX_EPOCH).map(|_| ())
        };
        let old = "Suite: oldstable\nCodename: bullseye\n";
        for path in ["dists/oldstable/InRelease", "dists/bullseye/Release", "InRelease"] {
            assert_eq!(read(path, old), Ok(()), "{path}");
        }
        assert_eq!(read("dists/buster/updates/InRelease", "Codename: buster/updates\n"), Ok(()));
        assert_eq!(read("dists/buster/updates/InRelease", "Codename: buster\n"), Ok(()));
        assert_eq!(
            read("dists/jammy-updates/InRelease", "Suite: jammy-updates\nCodename: jammy\n"),
            Ok(())
        );
        assert_eq!(read("dists/own/InRelease", ""), Ok(()), "it has no name");
        assert!(matches!(read("dists/stable/InRelease", old), Err(Fault::OtherSuite(_))));
        assert!(matches!(
            read("dists/stable-security/InRelease", "Suite: stable\n"),
            Err(Fault::OtherSuite(_))
        ));
    }
}
