//! The loaders: firmware to bytes and digest.
//!
//! 1. [`loader_for`] names the file that a machine's firmware is handed.
//! 2. [`get`] finds it: in the operator's `[ipxe] dir` first, else among the embedded ones.

mod disk;

use std::ops::Deref;
use std::sync::Arc;

use crate::config;
use crate::model::{Firmware, Machine, Why};

include!(concat!(env!("OUT_DIR"), "/loaders.rs"));

/// A loader that `build.rs` has put into this program.
#[derive(Debug)]
pub struct Embedded {
    pub name: &'static str,
    pub bytes: &'static [u8],
    pub sha256: [u8; 32],
}

/// A loader as it is sent. Cheap to clone: transfers share its bytes.
#[derive(Clone, Debug)]
pub struct Loader {
    pub name: String,
    pub bytes: Bytes,
    pub sha256: [u8; 32],
}

#[derive(Clone, Debug)]
pub enum Bytes {
    Embedded(&'static [u8]),
    Read(Arc<[u8]>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Embedded(bytes) => bytes,
            Bytes::Read(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Loader {
    /// A strong entity tag (RFC 9110 section 8.8.3), quoted.
    pub fn etag(&self) -> String {
        let hex: String = self.sha256[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("\"{hex}\"")
    }
}

/// What the loaders can do by HTTPS; none of them speaks TLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Https {
    /// Debian 12's, of 2019.
    No,
    /// Debian 13's, 1.21.1: ECDHE, but RSA certificates only.
    RsaOnly,
    /// 2.0.0: ECDSA certificates, too.
    Yes,
}

/// Why there is no such loader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLoader {
    #[error(
        "there is no loader {0}: put it into the folder of [ipxe] dir, or build with the loaders \
         that scripts/ brings"
    )]
    NotThere(String),
    #[error("{0:?} is no file name of a loader: it must be a plain name without folders")]
    NotAName(String),
    #[error("loader {0} is larger than 16 MiB, so it is none")]
    TooLarge(String),
    #[error("loader {0} cannot be read: {1}")]
    Unreadable(String, String),
}

impl Why for NoLoader {
    fn name(&self) -> &'static str {
        match self {
            NoLoader::NotThere(_) => "no-loader",
            NoLoader::NotAName(_) => "no-loader-name",
            NoLoader::TooLarge(_) => "loader-too-large",
            NoLoader::Unreadable(..) => "loader-unreadable",
        }
    }
}

/// The file that this firmware is handed: the machine's own, else the one that `[ipxe.loaders]`
/// names for the architecture, else the firmware table's.
pub fn loader_for<'a>(
    config: &'a config::Ipxe,
    firmware: &'static Firmware,
    machine: Option<&'a Machine>,
) -> &'a str {
    let by_arch = || config.loaders.iter().find(|(a, _)| *a == firmware.arch).map(|(_, n)| n);
    machine.and_then(|m| m.loader.as_ref()).or_else(by_arch).map_or(firmware.loader, String::as_str)
}

/// The loader of that name. The operator's own folder comes before what is embedded; a file there
/// is read again as soon as it changes.
///
/// # Errors
/// [`NoLoader`], by name.
pub fn get(config: &config::Ipxe, name: &str) -> Result<Loader, NoLoader> {
    if !is_plain(name) {
        return Err(NoLoader::NotAName(crate::model::event::plain(name, 80)));
    }
    if let Some(dir) = &config.dir
        && let Some(loader) = disk::read(&dir.join(name), name)?
    {
        return Ok(loader);
    }
    let found = embedded().iter().find(|e| e.name == name);
    found.map(Embedded::loader).ok_or_else(|| NoLoader::NotThere(name.into()))
}

impl Embedded {
    fn loader(&self) -> Loader {
        Loader { name: self.name.into(), bytes: Bytes::Embedded(self.bytes), sha256: self.sha256 }
    }
}

/// All that is built in, by name.
pub fn embedded() -> &'static [Embedded] {
    LOADERS
}

/// What the embedded loaders can do by HTTPS.
pub fn https() -> Https {
    https_of(VERSION)
}

/// From the version that Debian gives its package, wherever it stands in the line.
fn https_of(version: &str) -> Https {
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<u32>().ok());
    let found = version.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split(['.', '+', '-']);
        Some((number(parts.next())?, number(parts.next())?))
    });
    match found {
        Some((2.., _)) => Https::Yes,
        Some((1, 20..)) => Https::RsaOnly,
        _ => Https::No,
    }
}

/// No folder, nothing hidden, nothing that could not be in a package.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_own_comes_first_and_is_read_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let config = config::Ipxe { dir: Some(dir.path().into()), loaders: Vec::new() };
        assert_eq!(get(&config, "mine.efi").unwrap_err(), NoLoader::NotThere("mine.efi".into()));
        std::fs::write(dir.path().join("mine.efi"), b"one").unwrap();
        let one = get(&config, "mine.efi").unwrap();
        assert_eq!(&one.bytes[..], b"one");
        std::fs::write(dir.path().join("mine.efi"), b"other").unwrap();
        let other = get(&config, "mine.efi").unwrap();
        assert_eq!(&other.bytes[..], b"other");
        assert_ne!(one.etag(), other.etag());
        for e in embedded() {
            assert_eq!(get(&config, e.name).unwrap().sha256, e.sha256);
            std::fs::write(dir.path().join(e.name), b"own").unwrap();
            assert_eq!(&get(&config, e.name).unwrap().bytes[..], b"own");
        }
    }

    #[test]
    fn only_plain_names_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let config = config::Ipxe { dir: Some(dir.path().join("in")), loaders: Vec::new() };
        std::fs::create_dir_all(dir.path().join("in/folder.efi")).unwrap();
        std::fs::write(dir.path().join("secret"), b"s").unwrap();
        std::fs::write(dir.path().join("in/.hidden"), b"s").unwrap();
        for bad in ["", "..", "../secret", "a/b", ".hidden", "a\\b", "a\0b", &"x".repeat(200)] {
            assert!(matches!(get(&config, bad), Err(NoLoader::NotAName(_))), "{bad:?}");
        }
        assert!(get(&config, "folder.efi").is_err());
        let big = std::fs::File::create(dir.path().join("in/big.efi")).unwrap();
        big.set_len((16 << 20) + 1).unwrap();
        assert!(matches!(get(&config, "big.efi"), Err(NoLoader::TooLarge(_))));
    }

    #[test]
    fn machine_then_architecture_then_table() {
        let mut config = config::Ipxe::default();
        let x64 = Firmware::by_name("uefi-x64-http").unwrap();
        assert_eq!(loader_for(&config, x64, None), "snponly.efi");
        config.loaders.push(("uefi-x64", "ipxe-amd64.efi".into()));
        assert_eq!(loader_for(&config, x64, None), "ipxe-amd64.efi");
        let machine = Machine {
            name: "m".into(),
            matches: Default::default(),
            profile: None,
            address: None,
            hostname: None,
            loader: Some("own.efi".into()),
            vars: Default::default(),
            secrets: Default::default(),
            settings: Default::default(),
            power: Default::default(),
        };
        assert_eq!(loader_for(&config, x64, Some(&machine)), "own.efi");
    }

    #[test]
    fn what_each_debian_can_do() {
        for (line, can) in [
            ("2.0.0+dfsg-5", Https::Yes),
            ("ipxe 2.0.0+dfsg-5 from Debian forky", Https::Yes),
            ("1.21.1+git20250501.abc-1", Https::RsaOnly),
            ("1.0.0+git-20190125.36a4c85-5.1", Https::No),
            ("", Https::No),
        ] {
            assert_eq!(https_of(line), can, "{line}");
        }
    }
}
