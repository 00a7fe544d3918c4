//! `[[files]]` and `[[media]]`: what is served at `/files/NAME/`; and which system a medium is.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::catalog;
use super::file::{Names, name};
use super::installers::{Captures, Installers, Look, Tree};
use super::walk::{Spot, Table, Val, Walk, quoted};
use super::words;
use super::{Folder, Root};

/// Images in one folder that is watched.
const WATCHED: usize = 200;
/// Characters of a name that is made of a file's.
const NAME_LIMIT: usize = 60;

/// A `[[media]]`, and what it was recognised as.
pub struct Medium {
    pub name: String,
    pub at: Spot,
    pub tree: Option<Box<dyn Tree>>,
    /// Why there is no tree.
    pub unread: Option<String>,
    /// The installer's name and what it was told by; or why there is none.
    pub is: Result<(String, Captures), String>,
}

/// What media are looked at by.
pub struct By<'a> {
    pub look: &'a dyn Look,
    pub installers: &'a Installers,
    /// The user's own installers, where they cannot be read.
    pub broken: &'a HashSet<String>,
}

/// What the tables declare.
#[derive(Default)]
pub struct Found<'a> {
    pub folders: Vec<Folder>,
    pub media: Vec<Medium>,
    pub names: Names<'a>,
    /// Folders of images.
    pub watched: Vec<PathBuf>,
    /// Tables that declare such a folder, for [`watch`].
    pending: Vec<Table<'a>>,
}

/// The folders and media that are declared, by one namespace of names.
pub fn homes<'a>(w: &mut Walk<'_>, top: &Table<'a>, by: &By<'_>) -> Found<'a> {
    let mut found = Found::default();
    let names = &mut found.names;
    for t in top.tables(w, "files", "[[files]]") {
        let name = name(w, &t, "folder", names);
        t.missing(w, "dir", "write dir = \"…\", the folder to serve");
        let dir = t.path(w, "dir");
        if let (Some(name), Some(dir)) = (name, dir) {
            w.keep(format!("files/{}", name.value), dir.at);
            let (name, root) = (name.value.to_string(), Root::Dir(dir.value));
            found.folders.push(Folder { name, root, is: None });
        }
    }
    for t in top.tables(w, "media", "[[media]]") {
        if KINDS.map(|key| t.has(key)) == [false, false, true] {
            found.pending.push(t);
        } else if let Some((name, root, at)) = root(w, &t, &mut found.names) {
            found.add(w, &t, name, root, at, by);
        }
    }
    found
}

/// The images in the folders that are watched. All that is declared comes before them, mirrors too:
/// who puts a file into a folder is in nobody's way.
pub fn watch<'a>(w: &mut Walk<'_>, found: &mut Found<'a>, mirrors: &Names<'a>, by: &By<'_>) {
    for t in std::mem::take(&mut found.pending) {
        for key in ["name", "installer", "version"].into_iter().filter(|key| t.has(key)) {
            let message = format!("`{key}` is for one medium, and `watch` is for a folder of them");
            w.err(t.key_at(key), message, "leave it out");
        }
        let Some(dir) = t.path(w, "watch") else { continue };
        w.keep(format!("watch/{}", dir.value.display()), dir.at);
        // It may come later, as a disk that is mounted does: nobody else is to wait for it.
        let images = by.look.images(&dir.value).unwrap_or_else(|why| {
            w.note(dir.at, why, "`watch` is a folder of images; it is looked at again by itself");
            Vec::new()
        });
        if images.len() > WATCHED {
            let message =
                format!("this folder has more than {WATCHED} images: the rest is left out");
            w.note(dir.at, message, "declare each by iso = \"…\"");
        }
        for image in images.into_iter().take(WATCHED) {
            let name = unused(&named_after(&image), &found.names, mirrors);
            found.names.insert(Cow::Owned(name.clone()), dir.at);
            found.add(w, &t, name, Root::Images(vec![image]), dir.at, by);
        }
        found.watched.push(dir.value);
    }
}

impl Found<'_> {
    fn add(
        &mut self,
        w: &mut Walk<'_>,
        t: &Table<'_>,
        name: String,
        root: Root,
        at: Spot,
        by: &By<'_>,
    ) {
        w.keep(format!("files/{name}"), at);
        let medium = medium(w, t, &name, &root, at, by);
        let is = medium.is.as_ref().ok();
        let is = is.and_then(|(is, told)| Some(by.installers.get(is)?.title(told)));
        // A rule would have caught what is still to be filled in: somebody named the installer.
        let is = is.filter(|title| !title.contains('{'));
        self.media.push(medium);
        self.folders.push(Folder { name, root, is });
    }
}

/// What a [[media]] can be.
const KINDS: [&str; 3] = ["iso", "dir", "watch"];

/// What one table declares that is no folder of images.
fn root<'a>(
    w: &mut Walk<'_>,
    t: &Table<'a>,
    names: &mut Names<'a>,
) -> Option<(String, Root, Spot)> {
    let given: Vec<&str> = KINDS.into_iter().filter(|key| t.has(key)).collect();
    let [key] = given[..] else {
        let message = match given.len() {
            0 => "this [[media]] names nothing".to_string(),
            _ => format!("this [[media]] has both `{}` and `{}`", given[0], given[1]),
        };
        let hint = "write iso = \"….iso\" (or a list of them), dir = \"…\", or watch = \"…\", a \
                    folder of images";
        w.err(t.at, message, hint);
        return None;
    };
    let at = t.key_at(key);
    let named = t.has("name").then(|| name(w, t, "folder", names));
    let root = match key {
        "dir" => t.path(w, "dir").map(|v| Root::Dir(v.value)),
        _ => {
            let all = t.texts(w, "iso");
            let paths: Vec<PathBuf> = all.into_iter().filter_map(|v| w.file_at("iso", v)).collect();
            if t.is_empty_list("iso") {
                w.err(at, "`iso` names no image", "write iso = \"….iso\", or a list of them");
            }
            (!paths.is_empty()).then_some(Root::Images(paths))
        }
    };
    let root = root?;
    let name = match named {
        Some(name) => name.map(|n| n.value.to_string()),
        None => {
            let first = match &root {
                Root::Dir(dir) => dir.as_path(),
                Root::Images(paths) => &paths[0],
            };
            free(w, at, first, names)
        }
    };
    Some((name?, root, at))
}

/// A name like that which nobody has, and the catalogue has not either: who may write into a watched
/// folder must not choose what `install = "debian-12"` installs, nor be in anybody's way.
fn unused(name: &str, names: &Names<'_>, mirrors: &Names<'_>) -> String {
    let name = if name.is_empty() { "image" } else { name };
    let taken = |n: &str| {
        names.contains_key(n)
            || mirrors.contains_key(n)
            || words::name("a medium", n).is_err()
            || catalog::entry(n).is_some()
            || catalog::mirror(n).is_some()
    };
    let more = (2..).map(|n| format!("{name}-iso-{n}"));
    let mut all = [name.to_string(), format!("{name}-iso")].into_iter().chain(more);
    // As many tries as there can be names, and one more.
    let tries = names.len() + mirrors.len() + 3;
    all.by_ref().take(tries).find(|n| !taken(n)).unwrap_or_else(|| format!("{name}-iso"))
}

/// A name made of a file's, which nobody has yet.
fn free<'a>(w: &mut Walk<'_>, at: Spot, path: &Path, names: &mut Names<'a>) -> Option<String> {
    let name = named_after(path);
    if let Err((message, _)) = words::name("a medium", &name) {
        w.err(at, message, "give it a name = \"…\"");
        return None;
    }
    if let Some(first) = names.get(name.as_str()) {
        let message = format!("it would be called {}, and so is another", quoted(&name));
        w.clash(at, *first, message, "give it a name = \"…\"");
        return None;
    }
    names.insert(Cow::Owned(name.clone()), at);
    Some(name)
}

/// `CentOS-7-x86_64-DVD-2009.iso` is `centos-7-x86_64-dvd-2009`.
pub fn named_after(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String =
        stem.chars().map(|c| if fits(c) { c } else { '-' }).take(NAME_LIMIT).collect();
    name.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_string()
}

fn medium(
    w: &mut Walk<'_>,
    t: &Table<'_>,
    name: &str,
    root: &Root,
    at: Spot,
    by: &By<'_>,
) -> Medium {
    let By { look, installers, broken } = by;
    let told = t.text(w, "installer").filter(|v| {
        let known = installers.get(v.value).is_some();
        if !known && !broken.contains(v.value) {
            let all: Vec<&str> = installers.iter().map(|i| i.name.as_str()).collect();
            let hint = w.nearest(v.value, all.clone(), format!("there are {}", all.join(", ")));
            w.err(v.at, format!("there is no installer {}", quoted(v.value)), hint);
        }
        known
    });
    let version = t.text(w, "version").map(|v| v.value.to_string());
    let (tree, why) = match look.tree(root) {
        Ok(tree) => (Some(tree), None),
        Err(why) => (None, Some(why)),
    };
    let tree_of = tree.as_deref();
    let is = match told.and_then(|v| installers.get(v.value)) {
        // Its own rules are asked, whatever else the tree may be taken for.
        Some(told) => {
            let mut captures = tree_of.and_then(|t| told.recognise(t)).unwrap_or_default();
            captures.entry("version".into()).or_default();
            captures.entry("arch".into()).or_insert_with(|| "x86_64".into());
            Ok((told.name.clone(), captures))
        }
        None => match tree_of.and_then(|tree| installers.recognise(tree)) {
            Some((one, captures)) => Ok((one.name.clone(), captures)),
            None => Err(why
                .clone()
                .unwrap_or_else(|| "it is none of the systems that are known".into())),
        },
    };
    let is = is.map(|(name, mut captures)| {
        captures.extend(version.map(|v| ("version".to_string(), v)));
        (name, captures)
    });
    Medium { name: name.to_string(), at, tree, unread: why, is }
}

/// A medium of that name.
pub fn find<'m>(media: &'m [Medium], v: Val<&str>) -> Option<&'m Medium> {
    media.iter().find(|m| m.name == v.value)
}
