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
pub struct Found {
    pub folders: Vec<Folder>,
    pub media: Vec<Medium>,
    /// Folders of images.
    pub watched: Vec<PathBuf>,
}

/// The folders and media, by one namespace of names.
pub fn homes<'a>(w: &mut Walk<'_>, top: &Table<'a>, by: &By<'_>) -> (Found, Names<'a>) {
    let (mut folders, mut names) = (Vec::new(), Names::new());
    for t in top.tables(w, "files", "[[files]]") {
        let name = name(w, &t, "folder", &mut names);
        t.missing(w, "dir", "write dir = \"…\", the folder to serve");
        let dir = t.path(w, "dir");
        if let (Some(name), Some(dir)) = (name, dir) {
            w.keep(format!("files/{}", name.value), dir.at);
            folders.push(Folder { name: name.value.to_string(), root: Root::Dir(dir.value) });
        }
    }
    let (mut media, mut watched) = (Vec::new(), Vec::new());
    // What is declared comes before what happens to lie in a folder, and gets the names.
    let mut tables = top.tables(w, "media", "[[media]]");
    tables.sort_by_key(|t| t.has("watch"));
    for t in tables {
        for (name, root, at) in roots(w, &t, by.look, &mut names, &mut watched) {
            w.keep(format!("files/{name}"), at);
            media.push(medium(w, &t, &name, &root, at, by));
            folders.push(Folder { name, root });
        }
    }
    (Found { folders, media, watched }, names)
}

/// What one table declares: one medium, or as many as a folder holds images.
fn roots<'a>(
    w: &mut Walk<'_>,
    t: &Table<'a>,
    look: &dyn Look,
    names: &mut Names<'a>,
    dirs: &mut Vec<PathBuf>,
) -> Vec<(String, Root, Spot)> {
    const KEYS: [&str; 3] = ["iso", "dir", "watch"];
    let given: Vec<&str> = KEYS.into_iter().filter(|key| t.has(key)).collect();
    let [key] = given[..] else {
        let message = match given.len() {
            0 => "this [[media]] names nothing".to_string(),
            _ => format!("this [[media]] has both `{}` and `{}`", given[0], given[1]),
        };
        let hint = "write iso = \"….iso\" (or a list of them), dir = \"…\", or watch = \"…\", a \
                    folder of images";
        w.err(t.at, message, hint);
        return Vec::new();
    };
    let at = t.key_at(key);
    let named = t.has("name").then(|| name(w, t, "folder", names));
    let root = match key {
        "dir" => t.path(w, "dir").map(|v| Root::Dir(v.value)),
        "iso" => {
            let all = t.texts(w, "iso");
            let paths: Vec<PathBuf> = all.into_iter().filter_map(|v| w.file_at("iso", v)).collect();
            if t.is_empty_list("iso") {
                w.err(at, "`iso` names no image", "write iso = \"….iso\", or a list of them");
            }
            (!paths.is_empty()).then_some(Root::Images(paths))
        }
        _ => {
            let found = watched(w, t, look, names);
            dirs.extend(found.0);
            return found.1;
        }
    };
    let Some(root) = root else { return Vec::new() };
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
    name.into_iter().map(|name| (name, root.clone(), at)).collect()
}

fn watched<'a>(
    w: &mut Walk<'_>,
    t: &Table<'a>,
    look: &dyn Look,
    names: &mut Names<'a>,
) -> (Option<PathBuf>, Vec<(String, Root, Spot)>) {
    for key in ["name", "installer", "version"].into_iter().filter(|key| t.has(key)) {
        let message = format!("`{key}` is for one medium, and `watch` is for a folder of them");
        w.err(t.key_at(key), message, "leave it out");
    }
    let Some(dir) = t.path(w, "watch") else { return (None, Vec::new()) };
    w.keep(format!("watch/{}", dir.value.display()), dir.at);
    // It may come later, as a disk that is mounted does: nobody else is to wait for it.
    let images = look.images(&dir.value).unwrap_or_else(|why| {
        w.note(dir.at, why, "`watch` is a folder of images; it is looked at again by itself");
        Vec::new()
    });
    if images.len() > WATCHED {
        let message = format!("this folder has more than {WATCHED} images: the rest is left out");
        w.note(dir.at, message, "declare each by iso = \"…\"");
    }
    let mut found = Vec::new();
    for image in images.into_iter().take(WATCHED) {
        let name = unused(&named_after(&image), names);
        names.insert(Cow::Owned(name.clone()), dir.at);
        found.push((name, Root::Images(vec![image]), dir.at));
    }
    (Some(dir.value), found)
}

/// A name like that which nobody has, and the catalogue has not either: who may write into a watched
/// folder must not choose what `install = "debian-12"` installs, nor be in anybody's way.
fn unused(name: &str, names: &Names<'_>) -> String {
    let name = if name.is_empty() { "image" } else { name };
    let taken = |n: &str| {
        names.contains_key(n)
            || words::name("a medium", n).is_err()
            || catalog::entry(n).is_some()
            || catalog::mirror(n).is_some()
    };
    let more = (2..).map(|n| format!("{name}-iso-{n}"));
    let mut all = [name.to_string(), format!("{name}-iso")].into_iter().chain(more);
    // As many tries as there can be names, and one more.
    all.by_ref().take(names.len() + 3).find(|n| !taken(n)).unwrap_or_else(|| format!("{name}-iso"))
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
    let found = tree.as_deref().and_then(|tree| installers.recognise(tree));
    let is = match (told, found) {
        (Some(told), found) => {
            let same = found.filter(|(one, _)| one.name == told.value);
            let mut captures = same.map(|(_, captures)| captures).unwrap_or_default();
            captures.entry("version".into()).or_default();
            captures.entry("arch".into()).or_insert_with(|| "x86_64".into());
            Ok((told.value.to_string(), captures))
        }
        (None, Some((one, captures))) => Ok((one.name.clone(), captures)),
        (None, None) => {
            Err(why.clone().unwrap_or_else(|| "it is none of the systems that are known".into()))
        }
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
