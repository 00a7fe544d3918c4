//! An image: the system that it is, and the lines that serve and boot it.
//!
//! 1. [`sets`] puts the images together that are parts of one: `…-DVD1.iso` and `…-DVD2.iso`.
//! 2. [`recognise`] asks the installers, each of which knows its own.
//! 3. [`add`] gives the draft a `[[media]]` and a `[[profile]]` that installs it.
//! 4. Where none knows it, [`Unknown`] has what helps: the nearest one, its kernel, whether it is a
//!    later disc.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::draft::{Draft, Medium};
use super::{Here, name_of, quoted};
use crate::config::installers::{self, Captures, Installer, Installers, Nearest, Plan, Tree};
use crate::config::media::named_after;
use crate::model::profile::{Kind, Source};

/// The number of a part, in the name of its file.
static PART: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?i)(?:dvd|disc|disk|cd)[-_ ]?([1-9])(?:\.|-|_| |$)").ok());

/// The parts of one medium by their numbers, and the path that they share.
type Set = (Option<PathBuf>, Vec<(char, PathBuf)>);

/// The images of each medium, in the order of their parts.
pub fn sets(images: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut all: Vec<Set> = Vec::new();
    for path in images {
        let part = part(path);
        let same = part.as_ref().map(|(of, _)| of.clone());
        let number = part.map_or('1', |(_, n)| n);
        let with = |(of, parts): &&mut Set| {
            of.is_some() && *of == same && parts.iter().all(|(n, _)| *n != number)
        };
        match all.iter_mut().find(with) {
            Some((_, parts)) => parts.push((number, path.clone())),
            None => all.push((same, vec![(number, path.clone())])),
        }
    }
    let sorted = |mut parts: Vec<(char, PathBuf)>| {
        parts.sort();
        parts.into_iter().map(|(_, path)| path).collect()
    };
    all.into_iter().map(|(_, parts)| sorted(parts)).collect()
}

/// The path without the number of its part, and that number.
fn part(path: &Path) -> Option<(PathBuf, char)> {
    let name = path.file_name()?.to_str()?;
    let number = PART.as_ref()?.captures(name)?.get(1)?;
    let without = format!("{}{}", &name[..number.start()], &name[number.end()..]);
    Some((path.with_file_name(without), number.as_str().chars().next()?))
}

/// The system that an image is.
pub struct Known<'a> {
    pub installer: &'a Installer,
    /// What it was told by.
    pub captures: Captures,
}

impl Known<'_> {
    /// What it boots, if it shall ask nothing. `None` where that cannot be said.
    pub fn plan(&self, tree: &dyn Tree) -> Option<Plan> {
        let at = |name: &str| Source::Ours { folder: name.into(), path: String::new() };
        // Where the user's files are is not known yet, and matters to nothing that is told here.
        let parts = self.installer.parts.keys().map(|name| (name.clone(), at(name))).collect();
        let known = installers::Known {
            captures: self.captures.clone(),
            tree: Some(at("medium")),
            seen: Some(tree),
            parts,
            unattended: true,
            own: Vec::new(),
        };
        self.installer.plan(&known).ok()
    }
}

/// What is known of an image that no installer knows.
#[derive(Default)]
pub struct Unknown {
    /// What was looked for, a line for each installer.
    pub looked_for: Vec<(String, String)>,
    pub nearest: Option<Nearest>,
    /// Its number and what it says it is, where it is not the first disc.
    pub disc: Option<(u32, String)>,
    pub kernel: Option<String>,
    pub initrd: Option<String>,
}

/// Where kernels are that a loader of Linux starts, each with what is beside it.
const KERNELS: [(&str, &[&str]); 15] = [
    ("images/pxeboot/vmlinuz", &["images/pxeboot/initrd.img"]),
    ("casper/vmlinuz", &["casper/initrd", "casper/initrd.lz", "casper/initrd.gz"]),
    ("casper/vmlinuz.efi", &["casper/initrd.lz"]),
    ("live/vmlinuz", &["live/initrd.img", "live/initrd"]),
    ("install.amd/vmlinuz", &["install.amd/initrd.gz"]),
    ("install.386/vmlinuz", &["install.386/initrd.gz"]),
    ("boot/x86_64/loader/linux", &["boot/x86_64/loader/initrd"]),
    ("arch/boot/x86_64/vmlinuz-linux", &["arch/boot/x86_64/initramfs-linux.img"]),
    ("boot/vmlinuz-lts", &["boot/initramfs-lts"]),
    ("boot/vmlinuz", &["boot/initrd.img", "boot/initrd", "boot/initrd.gz", "boot/core.gz"]),
    ("isolinux/vmlinuz", &["isolinux/initrd.img", "isolinux/initrd"]),
    ("isolinux/linux", &["isolinux/initrd"]),
    ("boot/vmlinuz64", &["boot/corepure64.gz"]),
    ("vmlinuz", &["initrd.img", "initrd", "initrd.gz"]),
    ("linux", &["initrd.gz", "initrd"]),
];

/// # Errors
/// No installer knows it.
pub fn recognise<'a>(
    all: &'a Installers,
    tree: &dyn Tree,
    image: &Path,
) -> Result<Known<'a>, Box<Unknown>> {
    if let Some((installer, captures)) = all.recognise(tree) {
        return Ok(Known { installer, captures });
    }
    let kernel = KERNELS.iter().find(|(kernel, _)| tree.has(kernel));
    let initrd = kernel.and_then(|(_, beside)| beside.iter().find(|i| tree.has(i)));
    Err(Box::new(Unknown {
        looked_for: all.looked_for(),
        nearest: all.nearest(tree),
        disc: later_disc(tree, image),
        kernel: kernel.map(|(kernel, _)| kernel.to_string()),
        initrd: initrd.map(ToString::to_string),
    }))
}

/// Whether an image is a disc after the first: by its `.discinfo` (time, name, architecture, discs),
/// or by the name of its file.
fn later_disc(tree: &dyn Tree, image: &Path) -> Option<(u32, String)> {
    let text = tree.text(".discinfo").unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let discs: Vec<u32> =
        lines.get(3).map_or(Vec::new(), |l| l.split(',').filter_map(|n| n.parse().ok()).collect());
    let number = match (discs.contains(&1), discs.first()) {
        (true, _) => return None,
        (false, Some(n)) => *n,
        (false, None) => part(image)?.1.to_digit(10).filter(|n| *n > 1)?,
    };
    let is = match lines.get(1) {
        Some(name) if !name.is_empty() => name.to_string(),
        _ => tree.volume().unwrap_or_default(),
    };
    Some((number, is))
}

impl Unknown {
    /// The lines that serve it and boot its kernel, to be completed.
    pub fn skeleton(&self, images: &[PathBuf]) -> String {
        let first = images.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        let name = name_of(&named_after(first), "medium");
        let isos: Vec<String> = images.iter().map(|i| quoted(&i.display().to_string())).collect();
        let isos = match &isos[..] {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let path = |known: &Option<String>, otherwise: &str| {
            quoted(&format!("{name}/{}", known.as_deref().unwrap_or(otherwise)))
        };
        format!(
            "[[media]]\nname = {0}\niso = {isos}\n\n[[profile]]\nname = {0}\nkernel = {1}\ninitrd = {2}\nargs = \"\"\n",
            quoted(&name),
            path(&self.kernel, "PATH/OF/KERNEL"),
            path(&self.initrd, "PATH/OF/INITRD"),
        )
    }
}

/// Adds a medium with its profile; its name.
pub fn add(
    draft: &mut Draft,
    images: &[PathBuf],
    known: &Known<'_>,
    tree: &dyn Tree,
    volume: &str,
) -> String {
    let first = images.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    let file = first.display().to_string().into();
    let at = Here::new(&file, (1, 1), volume);
    let version = known.captures.get("version").map_or("", String::as_str);
    let major = version.split('.').next().unwrap_or_default();
    let of = match known.installer.name.as_str() {
        // `centos-7`, and not `centos-7-7`.
        name if name.ends_with(&format!("-{major}")) || version.is_empty() => name.to_string(),
        name => format!("{}-{version}", known.captures.get("name").map_or(name, |n| n)),
    };
    let plan = known.plan(tree);
    let lacks = || known.installer.parts.clone().into_iter().collect();
    draft.medium(Medium {
        name: name_of(&named_after(first), "medium"),
        images: images.to_vec(),
        profile: name_of(&of.to_lowercase(), "system"),
        // With mini.iso laid over, say, nothing is lacking.
        parts: plan.as_ref().map_or_else(lacks, |_| Vec::new()),
        answers: plan.iter().any(|p| p.kind == Kind::Install && !p.answers.is_empty()),
        note: plan.map_or_else(|| known.installer.instead.clone(), |p| p.release.note),
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made(&'static str, &'static [&'static str]);

    impl Tree for Made {
        fn volume(&self) -> Option<String> {
            Some("VOLUME".into())
        }

        fn text(&self, path: &str) -> Option<String> {
            (path == ".discinfo" && !self.0.is_empty()).then(|| self.0.to_string())
        }

        fn has(&self, path: &str) -> bool {
            self.1.contains(&path)
        }

        fn size(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_later_disc_is_told() {
        let of = |info, name: &str| later_disc(&Made(info, &[]), Path::new(name));
        let second = Some((2, "CentOS 6.10".to_string()));
        assert_eq!(of("1530.1\nCentOS 6.10\nx86_64\n2\n", "x.iso"), second);
        assert_eq!(of("1530.1\nCentOS 6.10\nx86_64\n1,2\n", "x-DVD2.iso"), None);
        assert_eq!(of("", "x-DVD2.iso"), Some((2, "VOLUME".into())));
        assert_eq!((of("", "x-DVD1.iso"), of("", "x.iso")), (None, None));
    }

    #[test]
    fn an_unknown_image_gets_lines_with_its_kernel() {
        let tree = Made("", &["live/vmlinuz", "live/initrd"]);
        let Err(unknown) = recognise(Installers::builtin(), &tree, Path::new("x.iso")) else {
            panic!("nothing is so made")
        };
        let lines = unknown.skeleton(&["/srv/Odd One.iso".into()]);
        assert!(lines.contains("kernel = \"odd-one/live/vmlinuz\""), "{lines}");
        assert!(lines.contains("initrd = \"odd-one/live/initrd\""), "{lines}");
        assert!(crate::config::parse(&[("x.toml".into(), lines)]).is_ok());
    }

    #[test]
    fn the_parts_of_one_medium_are_put_together() {
        let all = ["a/X-DVD2.iso", "Y.iso", "a/X-DVD1.iso", "b/X-DVD1.iso", "Y-dvd1.iso"];
        let all: Vec<PathBuf> = all.iter().map(PathBuf::from).collect();
        let want: Vec<Vec<PathBuf>> = vec![
            vec!["a/X-DVD1.iso".into(), "a/X-DVD2.iso".into()],
            vec!["Y.iso".into()],
            vec!["b/X-DVD1.iso".into()],
            vec!["Y-dvd1.iso".into()],
        ];
        assert_eq!(sets(&all), want);
    }
}
