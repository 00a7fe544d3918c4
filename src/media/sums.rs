//! Whether an image is what its makers made: by the list of digests beside it, or by the digest that
//! Red Hat's media carry in themselves.
//!
//! 1. [`check`] looks for a list beside the image that names it ([`is_list`], [`listed`]).
//! 2. Without one it takes the implanted MD5 ([`Implant`]), which tells of damage, not of malice.

mod disk;

use std::path::PathBuf;

pub use disk::check;

use super::source::le32;
use crate::model::Digest;

/// By what an image is known to be whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Proof {
    #[error("its digest is the one in {}", .0.display())]
    Listed(PathBuf),
    #[error("the MD5 that its makers put into it is right")]
    Implanted,
    #[error(
        "nothing says what it should be: no SHA256SUMS, SHA256SUM or CHECKSUM beside it names it, and \
         no MD5 is in it"
    )]
    None,
}

/// Why it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("it is {is}, and {} says {should}: fetch it again", .list.display())]
    Listed { list: PathBuf, is: String, should: String },
    #[error("its MD5 is {is}, and its makers put {should} into it: fetch it again")]
    Implanted { is: String, should: String },
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// Whether a file beside `image` has the name of a list of digests that may name it: SHA256SUMS of
/// Debian and Ubuntu, SHA256SUM, CHECKSUM of Red Hat's relatives and Fedora's long names that end so,
/// sha256sums.txt of Arch, `image`.sha256 of openSUSE and Alpine; the same with 512.
fn is_list(name: &str, image: &str) -> bool {
    let low = name.to_ascii_lowercase();
    let stem = low.strip_suffix(".txt").unwrap_or(&low);
    let own = stem.strip_prefix(&image.to_ascii_lowercase());
    stem.ends_with("checksum")
        || ["sha256sum", "sha256sums", "sha512sum", "sha512sums"].contains(&stem)
        || own.is_some_and(|end| [".sha256", ".sha512", ".sha256sum"].contains(&end))
}

/// The digest that a list has for `image`: lines as GNU's tools write them (`HEX  NAME`,
/// `HEX *NAME`) and as BSD's do (`SHA256 (NAME) = HEX`). Signatures around them, and comments, are
/// passed over.
fn listed(list: &str, image: &str) -> Option<Digest> {
    list.lines().map(str::trim).find_map(|line| {
        let bsd = line.strip_prefix("SHA256 (").or_else(|| line.strip_prefix("SHA512 ("));
        let (name, hex) = match bsd {
            Some(rest) => rest.rsplit_once(") = ")?,
            None => {
                let (hex, name) = line.split_once([' ', '\t'])?;
                let name = name.trim_start();
                (name.strip_prefix('*').unwrap_or(name), hex)
            }
        };
        let name = name.strip_prefix("./").unwrap_or(name);
        Digest::from_hex(hex).ok().filter(|_| name == image)
    })
}

/// What isomd5sum wrote into the 512 bytes that a volume descriptor leaves to applications
/// (ECMA-119 8.4.32): the MD5 of the volume but for its last sectors, of which not every drive reads
/// all, and with spaces where this is.
#[derive(Debug, PartialEq, Eq)]
struct Implant {
    md5: String,
    /// Where the area is that counts as spaces.
    at: u64,
    /// Bytes of the volume that are in the sum.
    len: u64,
}

/// Of the area, in the descriptor.
const AREA: usize = 883;
const AREA_LEN: usize = 512;

impl Implant {
    /// Of a primary volume descriptor that begins at `at`.
    fn read(descriptor: &[u8], at: u64) -> Option<Implant> {
        let text = String::from_utf8_lossy(descriptor.get(AREA..AREA + AREA_LEN)?);
        let value = |key: &str| {
            let found = text.split(';').find_map(|part| part.trim_start().strip_prefix(key))?;
            found.trim_start().strip_prefix('=').map(str::trim)
        };
        let md5 = value("ISO MD5SUM")?.to_ascii_lowercase();
        let skip: u64 = value("SKIPSECTORS").and_then(|n| n.parse().ok()).unwrap_or(0);
        let sectors = u64::from(le32(descriptor, 80)).checked_sub(skip)?;
        let is_md5 = md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit());
        is_md5.then_some(Implant { md5, at: at + AREA as u64, len: sectors * 2048 })
    }

    /// Puts spaces over what of the area is in `bytes`, which begin at `at`.
    fn blank(&self, bytes: &mut [u8], at: u64) {
        let end = at + bytes.len() as u64;
        let (from, to) = (self.at.max(at), (self.at + AREA_LEN as u64).min(end));
        if from < to {
            let place = |n: u64| usize::try_from(n - at).unwrap_or(0);
            bytes[place(from)..place(to)].fill(b' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_by_their_names() {
        for name in [
            "SHA256SUMS",
            "sha256sums.txt",
            "SHA256SUM",
            "CHECKSUM",
            "Some-Server-41-1.4-x86_64-CHECKSUM",
            "a.iso.CHECKSUM",
            "a.iso.sha256",
            "A.ISO.sha512",
        ] {
            assert!(is_list(name, "a.iso"), "{name}");
        }
        for name in ["a.iso", "b.iso.sha256", "SHA256SUMS.gpg", "notes.txt", "MD5SUMS"] {
            assert!(!is_list(name, "a.iso"), "{name}");
        }
    }

    #[test]
    fn a_line_of_a_list_names_an_image() {
        let digest = Digest::sha256(b"x");
        let hex = digest.hex();
        for line in [
            format!("{hex}  a.iso"),
            format!("{hex} *a.iso"),
            format!("{hex}  ./a.iso\r"),
            format!("SHA256 (a.iso) = {hex}"),
            format!("-----BEGIN PGP SIGNED MESSAGE-----\n\n# a.iso: 5 bytes\n{hex}  a.iso"),
        ] {
            assert_eq!(listed(&line, "a.iso"), Some(digest), "{line}");
        }
        let others =
            format!("{hex}  b.iso\nSHA256 (c.iso) = {hex}\n{hex}\n{hex}  xa.iso\nz  a.iso");
        assert_eq!(listed(&others, "a.iso"), None);
    }

    #[test]
    fn what_is_implanted_is_read() {
        let mut descriptor = vec![0; 2048];
        descriptor[80..84].copy_from_slice(&100u32.to_le_bytes());
        let md5 = "0123456789abcdef0123456789ABCDEF";
        let text = format!("ISO MD5SUM = {md5};SKIPSECTORS = 15;RHLISOSTATUS=1;FRAGMENT SUMS = 0");
        descriptor[AREA..AREA + text.len()].copy_from_slice(text.as_bytes());
        let implant = Implant::read(&descriptor, 32768).unwrap();
        let md5 = md5.to_ascii_lowercase();
        assert_eq!(implant, Implant { md5, at: 32768 + 883, len: 85 * 2048 });
        let mut bytes = vec![1; 1000];
        implant.blank(&mut bytes, 32768 + 500);
        assert!(bytes[..383].iter().all(|b| *b == 1) && bytes[895..].iter().all(|b| *b == 1));
        assert!(bytes[383..895].iter().all(|b| *b == b' '));
        implant.blank(&mut bytes, 0);
        assert_eq!(bytes[0], 1, "another place is left alone");

        descriptor[80..84].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(Implant::read(&descriptor, 0), None, "more is skipped than there is");
        assert_eq!(Implant::read(&[0; 2048], 0), None);
        assert_eq!(Implant::read(&[0; 20], 0), None);
    }

    #[test]
    fn an_image_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a.iso");
        let told = |path: &std::path::Path| {
            let mut last = (0, 0);
            let checked = check(path, &mut |done, all| last = (done, all));
            (checked, last)
        };
        let mut bytes = vec![0; 40 * 2048];
        for (n, sector) in bytes.chunks_mut(2048).enumerate().skip(18) {
            sector.fill(u8::try_from(n).unwrap());
        }
        let (first, end) = (16 * 2048, 17 * 2048);
        bytes[first..first + 6].copy_from_slice(b"\x01CD001");
        bytes[end..end + 6].copy_from_slice(b"\xffCD001");
        bytes[first + 80..first + 88].copy_from_slice(&[40, 0, 0, 0, 0, 0, 0, 40]);
        std::fs::write(&image, &bytes).unwrap();
        assert_eq!(told(&image), (Ok(Proof::None), (0, 0)));

        // What isomd5sum itself puts into this image.
        let md5 = "d720d2df4ea3a5b5b210228a2a1abed4";
        let text =
            format!("ISO MD5SUM = {md5};SKIPSECTORS = 15;RHLISOSTATUS=0;FRAGMENT SUMS = d2d");
        bytes[first + AREA..first + AREA + text.len()].copy_from_slice(text.as_bytes());
        std::fs::write(&image, &bytes).unwrap();
        assert_eq!(told(&image), (Ok(Proof::Implanted), (25 * 2048, 25 * 2048)));
        bytes[20 * 2048] = 0;
        std::fs::write(&image, &bytes).unwrap();
        assert!(matches!(told(&image).0, Err(Bad::Implanted { should, .. }) if should == md5));

        // A list goes before it.
        let list = dir.path().join("SHA256SUMS");
        std::fs::write(&list, format!("{}  a.iso\n", Digest::sha256(&bytes).hex())).unwrap();
        assert_eq!(told(&image).0, Ok(Proof::Listed(list.clone())));
        bytes.push(0);
        std::fs::write(&image, &bytes).unwrap();
        assert!(matches!(told(&image).0, Err(Bad::Listed { .. })));
        assert!(matches!(told(&dir.path().join("none")).0, Err(Bad::Unreadable(_))));
    }
}
