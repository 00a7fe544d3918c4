//! RPM repositories: repomd.xml, the primary.xml that it lists, and `.treeinfo`.
//!
//! A `.treeinfo` has no signature, and no signed file lists it: the kernel, initrd and installer
//! image that it lists are as good as the way to the mirror (HTTPS), and no better. So it is not
//! asked about what signed metadata list: packages and metadata.

use ini::{Ini, ParseOption};
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::index::{Index, Kind, Packed};
use super::table::{ROWS, Table};
use super::unpack::{self, Packing, Unpacked};
use super::{Expect, Fault, Listing, Root, paths, said};
use crate::mirror::Digest;

const REPOMD: &str = "repodata/repomd.xml";
/// Folders at the top of an installation tree.
const TREE: &[&str] = &["images", "isolinux", "EFI", "LiveOS", "boot", "Packages", "ppc", "kernel"];
/// The most files that a repomd.xml lists. Real ones list 20.
const FILES: usize = 1000;
/// The longest `.treeinfo`, in bytes. Real ones have 3 KiB.
const TREEINFO: usize = 1 << 20;
/// The longest text of an element that is looked at, in bytes: a digest, a size.
const TEXT: usize = 1024;

pub fn is_repomd(path: &str) -> bool {
    path == REPOMD || path.ends_with("/repodata/repomd.xml")
}

pub fn is_treeinfo(path: &str) -> bool {
    matches!(paths::split(path).1, ".treeinfo" | "treeinfo")
}

/// openSUSE's list of what `.treeinfo` lists elsewhere, and it is signed.
pub fn is_checksums(path: &str) -> bool {
    paths::split(path).1 == "CHECKSUMS"
}

pub fn is_signature(path: &str) -> bool {
    ["asc", "key"].iter().any(|e| {
        path.rsplit_once('.').is_some_and(|(of, x)| x == *e && (is_repomd(of) || is_checksums(of)))
    })
}

/// Where the repository or tree of a path may begin.
pub fn roots(path: &str) -> Vec<Root> {
    if is_metadata(path) {
        let (folder, _) = paths::split(path);
        let base = paths::split(folder).0;
        return vec![repomd(base)];
    }
    // The tree that a known folder is at the top of is the likeliest.
    let mut folders: Vec<&str> = paths::above(path).collect();
    let is_top = |folder: &str| {
        let rest = path[folder.len()..].trim_start_matches('/');
        rest.split('/').next().is_some_and(|part| TREE.contains(&part))
    };
    folders.sort_by_key(|folder| !is_top(folder));
    if path.ends_with(".rpm") {
        return folders.into_iter().map(repomd).collect();
    }
    let of_tree = |folder: &str| {
        let checksums = paths::join(folder, "CHECKSUMS");
        let signature = format!("{checksums}.asc");
        [
            Root::new(paths::join(folder, ".treeinfo"), Vec::new()),
            Root::new(checksums, vec![signature]),
            Root::new(paths::join(folder, "treeinfo"), Vec::new()),
        ]
    };
    folders.into_iter().flat_map(of_tree).collect()
}

fn repomd(base: &str) -> Root {
    let path = paths::join(base, REPOMD);
    let signature = format!("{path}.asc");
    Root::new(path, vec![signature])
}

fn is_metadata(path: &str) -> bool {
    paths::split(paths::split(path).0).1 == "repodata"
}

/// Whether an unsigned tree may be asked about a path.
pub fn is_of_tree(path: &str) -> bool {
    !path.ends_with(".rpm") && !is_metadata(path)
}

/// An element's attribute, without its entities.
fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, Fault> {
    let found = element.try_get_attribute(name).map_err(|e| Fault::NotXml(said(&e)))?;
    found
        .map(|a| a.normalized_value(XmlVersion::Implicit1_0).map(|v| v.to_string()))
        .transpose()
        .map_err(|e| Fault::NotXml(said(&e)))
}

/// A file as repomd.xml and primary.xml describe it, element by element.
#[derive(Default)]
struct File {
    kind: String,
    weak: bool,
    digest: Option<Digest>,
    size: Option<u64>,
    path: Option<String>,
}

/// Whose text is read next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    None,
    Checksum,
    Size,
}

/// Walks over the `element`s of a document and gives each as a file to `each`. Hrefs are below
/// `base`: one that leads elsewhere leaves its file without a path.
fn walk(
    text: Unpacked<'_>,
    element: &str,
    base: &str,
    mut each: impl FnMut(File) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut reader = Reader::from_reader(text);
    let mut buffer = Vec::new();
    let mut root = false;
    let mut file: Option<File> = None;
    let (mut next, mut content) = (Text::None, String::new());
    loop {
        buffer.clear();
        reader.get_mut().next_item();
        let event = match reader.read_event_into(&mut buffer) {
            Ok(event) => event,
            Err(quick_xml::Error::Io(e)) => return Err(reader.get_ref().fault(&e)),
            Err(e) => return Err(Fault::NotXml(said(&e))),
        };
        match event {
            Event::Start(e) | Event::Empty(e) => {
                root = true;
                (next, content) = (Text::None, String::new());
                let name = e.local_name();
                if name.as_ref() == element {
                    let kind = attribute(&e, "type")?.unwrap_or_default();
                    file = Some(File { kind, ..File::default() });
                } else if let Some(file) = &mut file {
                    next = file.start(name.as_ref(), &e, base)?;
                }
            }
            Event::Text(e) if next != Text::None && content.len() < TEXT => {
                content.push_str(&e.xml10_content());
            }
            Event::End(e) => {
                if let Some(open) = &mut file {
                    open.text(next, content.trim());
                    next = Text::None;
                    if e.local_name().as_ref() == element {
                        each(file.take().unwrap_or_default())?;
                    }
                }
            }
            // Entities of a document's own are how XML grows without end.
            Event::DocType(_) => return Err(Fault::NotXml("it has a DOCTYPE".to_string())),
            Event::Eof if root && file.is_none() => return Ok(()),
            Event::Eof => return Err(Fault::NotXml("it ends early".to_string())),
            _ => {}
        }
    }
}

impl File {
    fn start(&mut self, name: &str, e: &BytesStart<'_>, base: &str) -> Result<Text, Fault> {
        Ok(match name {
            "checksum" => match attribute(e, "type")?.as_deref() {
                Some("sha256" | "sha512") => Text::Checksum,
                _ => {
                    self.weak = true;
                    Text::None
                }
            },
            // In repomd.xml a text, in primary.xml an attribute.
            "size" => {
                let packed = attribute(e, "package")?;
                self.size = packed.and_then(|s| s.parse().ok());
                Text::Size
            }
            "location" => {
                // A base of its own leads to another server.
                let elsewhere = attribute(e, "xml:base")?.is_some();
                let href = attribute(e, "href")?.filter(|_| !elsewhere);
                self.path = href.and_then(|h| paths::below(base, &h));
                Text::None
            }
            _ => Text::None,
        })
    }

    fn text(&mut self, of: Text, content: &str) {
        match of {
            Text::Checksum => self.digest = Digest::from_hex(content).ok(),
            Text::Size if self.size.is_none() => self.size = content.parse().ok(),
            _ => {}
        }
    }

    fn listed(&self) -> Option<(&str, Expect)> {
        let digest = self.digest?;
        Some((self.path.as_deref()?, Expect { digest, size: self.size }))
    }
}

/// A repomd.xml: its files, of which primary.xml is the index.
pub fn repomd_xml(path: &str, bytes: &[u8]) -> Result<Listing, Fault> {
    let base = paths::split(paths::split(path).0).0;
    let mut listing = Listing::default();
    let (mut weak, mut files) = (false, 0);
    walk(unpack::unpack(Packing::Plain, bytes)?, "data", base, |file| {
        files += 1;
        if files > FILES {
            return Err(Fault::TooMany(FILES));
        }
        weak |= file.weak;
        let Some((path, expect)) = file.listed() else { return Ok(()) };
        listing.table.add(path, expect);
        if file.kind == "primary" && Packing::of(path).is_some() {
            let packed = Packed { path: path.to_string(), fetch: path.to_string(), expect };
            let kind = Kind::Primary { base: base.to_string() };
            listing.indexes.push(Index::new(kind, vec![packed]));
        }
        Ok(())
    })?;
    listing.table.settle();
    match listing.table.len() {
        0 if weak => Err(Fault::WeakDigests),
        0 => Err(Fault::NotXml("it lists nothing".to_string())),
        _ => Ok(listing),
    }
}

/// A primary.xml: its packages.
pub fn primary_xml(base: &str, text: Unpacked<'_>, table: &mut Table) -> Result<(), Fault> {
    let mut weak = false;
    walk(text, "package", base, |file| {
        if table.len() >= ROWS {
            return Err(Fault::TooMany(ROWS));
        }
        weak |= file.weak;
        if let Some((path, expect)) = file.listed() {
            table.add(path, expect);
        }
        Ok(())
    })?;
    table.settle();
    if weak && table.len() == 0 { Err(Fault::WeakDigests) } else { Ok(()) }
}

/// A `.treeinfo`: `images/pxeboot/vmlinuz = sha256:HEX` in its section `checksums`.
pub fn treeinfo(path: &str, bytes: &[u8]) -> Result<Listing, Fault> {
    if bytes.len() > TREEINFO {
        return Err(Fault::TooLarge(TREEINFO as u64));
    }
    let folder = paths::split(path).0;
    let text = std::str::from_utf8(bytes).map_err(|e| Fault::NotTreeinfo(said(&e)))?;
    let plain = ParseOption { enabled_quote: false, enabled_escape: false, ..Default::default() };
    let ini = Ini::load_from_str_opt(text, plain).map_err(|e| Fault::NotTreeinfo(said(&e)))?;
    let section = ini
        .section(Some("checksums"))
        .ok_or_else(|| Fault::NotTreeinfo("it has no section [checksums]".to_string()))?;
    let mut listing = Listing::default();
    for (name, value) in section.iter() {
        let digest = value.trim().parse().ok();
        if let (Some(path), Some(digest)) = (paths::below(folder, name), digest) {
            listing.table.add(&path, Expect { digest, size: None });
        }
    }
    listing.table.settle();
    if listing.table.len() == 0 { Err(Fault::WeakDigests) } else { Ok(listing) }
}
