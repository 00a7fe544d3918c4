//! Digests of files as archives publish them.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// A digest with its algorithm. As text, also for serde: `sha256:HEX`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub enum Digest {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// A text that is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 hexadecimal digits, or sha512: and 128")]
pub struct NoDigest;

impl Digest {
    /// From hexadecimal digits: 64 are SHA-256, 128 SHA-512.
    ///
    /// # Errors
    /// Anything else; SHA-1 and MD5 among it, which prove nothing any more.
    pub fn from_hex(hex: &str) -> Result<Digest, NoDigest> {
        match hex.len() {
            64 => bytes(hex).map(Digest::Sha256),
            128 => bytes(hex).map(Digest::Sha512),
            _ => Err(NoDigest),
        }
    }

    pub fn of(bytes: &[u8], like: Digest) -> Digest {
        let mut hasher = Hasher::like(like);
        hasher.update(bytes);
        hasher.finish()
    }

    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// The digits alone.
    pub fn hex(&self) -> String {
        let bytes: &[u8] = match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Sha512(bytes) => bytes,
        };
        bytes.iter().flat_map(|b| hex(*b)).map(char::from).collect()
    }
}

/// Two digits.
pub fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)])
}

fn bytes<const N: usize>(hex: &str) -> Result<[u8; N], NoDigest> {
    let mut out = [0; N];
    if hex.len() != 2 * N || !hex.is_ascii() {
        return Err(NoDigest);
    }
    for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).ok_or(NoDigest);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).map_err(|_| NoDigest)?;
    }
    Ok(out)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        };
        write!(f, "{name}:{}", self.hex())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Digest, NoDigest> {
        text.parse()
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Digest, NoDigest> {
        match text.split_once(':') {
            Some(("sha256", hex)) => bytes(hex).map(Digest::Sha256),
            Some(("sha512", hex)) => bytes(hex).map(Digest::Sha512),
            _ => Err(NoDigest),
        }
    }
}

/// A digest while its bytes arrive, in order.
#[derive(Clone)]
pub enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// Of the same algorithm as `digest`.
    pub fn like(digest: Digest) -> Hasher {
        match digest {
            Digest::Sha256(_) => Hasher::Sha256(sha2::Sha256::new()),
            Digest::Sha512(_) => Hasher::Sha512(Box::default()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::Sha512(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_and_read() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::from_hex(empty).unwrap();
        assert_eq!(digest, Digest::sha256(b""));
        assert_eq!(digest.to_string(), format!("sha256:{empty}"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::from_hex(&empty.to_uppercase()), Ok(digest));
        let long = Digest::of(b"a", Digest::Sha512([0; 64]));
        assert_eq!(long.to_string().parse(), Ok(long));
        for bad in
            ["", "sha256:", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "sha256:é", empty]
        {
            assert_eq!(bad.parse::<Digest>(), Err(NoDigest), "{bad}");
        }
        assert_eq!(Digest::from_hex(&"é".repeat(32)), Err(NoDigest));
    }
}
