//! HTTPS: the roots that machines are told to trust, and the certificates that they are shown.
//!
//! 1. [`Tls::open`] reads the two roots of `<state_dir>/tls`, ECDSA P-256 (`ca.pem`, `ca.key`) and
//!    RSA-2048 (`ca-rsa.pem`, `ca-rsa.key`), and makes them at the first start. Two, because a
//!    client without ECDSA (Debian 13's iPXE) must be able to verify all of its chain.
//! 2. It signs a leaf under each, for every name and address that we serve on; or reads the user's
//!    own chain and key in their place, and checks them.
//! 3. [`Tls::trust`] is what the firmware-stage DHCP reply hands over (option 175.90).
//! 4. [`Tls::server_config`] shows each client the first chain that it can verify: ECDSA, else RSA.
//! 5. [`Tls::renew_if_due`], called now and then and when addresses or configuration change, puts
//!    new certificates in their place while connections go on.
//!
//! Trust, said honestly: the fingerprints travel in a DHCP reply that nobody signs. They protect
//! against everyone but the one who controls the machine's first DHCP reply.

mod decide;
mod disk;
mod serve;
mod wire;

use std::io;
use std::path::PathBuf;

pub use decide::Why;
pub use serve::{Tls, check};

/// Why there is no HTTPS, or why the certificates in force stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot {what} it: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: larger than the {limit} bytes that certificates and keys may have", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error(
        "{path}: others than its owner can get at this private key (mode {mode:04o}): type \
         `chmod 600 {path}`, and think of the key as known to whoever could read it",
        path = path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error(
        "{path}: others than its owner can put files into this folder of keys (mode {mode:04o}): \
         type `chmod 700 {path}`",
        path = path.display()
    )]
    OpenFolder { path: PathBuf, mode: u32 },
    #[error(
        "{path}: belongs to user {owner}, but pilotlight runs as user {us}: run it as that user, \
         or type `chown {us} {path}`",
        path = path.display()
    )]
    Owner { path: PathBuf, owner: u32, us: u32 },
    #[error(
        "{cert} is there, but its key {key} is not: put the key back, or type `rm {cert}` to have \
         a new CA made, which machines learn at their next boot",
        cert = cert.display(),
        key = key.display()
    )]
    KeyLost { cert: PathBuf, key: PathBuf },
    #[error(
        "{path}: not made by pilotlight, whose own CA is kept under this name: move it away with \
         its key, and name a certificate of yours by `chain` and `key` under `[tls]`",
        path = path.display()
    )]
    Foreign { path: PathBuf },
    #[error("{}: there is no such file", path.display())]
    Missing { path: PathBuf },
    #[error("{}: holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: holds no private key in PEM, or only one with a passphrase", path.display())]
    NoKey { path: PathBuf },
    #[error("{}: certificate {number} cannot be read: {why}", path.display())]
    Certificate { path: PathBuf, number: usize, why: String },
    #[error("{}: this private key cannot be used: {why}", path.display())]
    Key { path: PathBuf, why: String },
    #[error("{}: an Ed25519 key, but iPXE knows RSA and ECDSA only", path.display())]
    Ed25519 { path: PathBuf },
    #[error(
        "the key in {} is not that of the first certificate in {}",
        key.display(),
        cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    #[error("{}: certificate {number} ended on {date}", path.display())]
    Expired { path: PathBuf, number: usize, date: String },
    #[error("{}: certificate {number} begins on {date}", path.display())]
    NotYet { path: PathBuf, number: usize, date: String },
    #[error("{}: holds {count} certificates, but one root is wanted", path.display())]
    Roots { path: PathBuf, count: usize },
    #[error(
        "the certificates in {} do not lead to the root in {}: {why}",
        chain.display(),
        root.display()
    )]
    Untrusted { chain: PathBuf, root: PathBuf, why: String },
    #[error("`{name}` is neither a host name nor an address, and cannot be in a certificate")]
    Name { name: String },
    #[error("{count} names and addresses for one certificate, at most {limit} are possible")]
    TooManyNames { count: usize, limit: usize },
    #[error("no certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("no random numbers: {0}")]
    Random(String),
}
