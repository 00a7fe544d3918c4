//! The certificates in force: made, read, shown and renewed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use super::Error;
use super::decide::{self, Held, Name, Why};
use super::disk::{self, Kind};
use super::wire::{self, Root};
use crate::config::{self, OwnCertificate};

/// HTTPS while it runs; shared in an `Arc`. [`Tls::renew_if_due`] wants one caller at a time.
#[derive(Debug)]
pub struct Tls {
    dir: PathBuf,
    provider: Arc<CryptoProvider>,
    /// One ECDSA and one RSA key for the life of the process: a renewal costs a signature and not
    /// the search for RSA primes. They are never on a disk.
    keys: OnceLock<[KeyPair; 2]>,
    shown: Arc<Shown>,
}

/// What clients see; swapped whole, so that no client sees half of it.
#[derive(Debug)]
struct Shown {
    hand: ArcSwap<Hand>,
    refused: AtomicU64,
}

/// Chains in the order in which they are preferred.
#[derive(Debug)]
struct Hand {
    chains: Vec<Arc<CertifiedKey>>,
    roots: Vec<Root>,
    /// Of our own leaves only: the user's have their own successors.
    held: Option<Held>,
}

impl Tls {
    /// Reads, or makes at the first start, everything that HTTPS needs. It blocks: the keys of the
    /// leaves are made at every start, and RSA's takes about 0.2 s, at the first start twice.
    ///
    /// # Errors
    /// Everything that keeps HTTPS from being safe, in sentences that name the file.
    pub fn open(
        config: &config::Tls,
        state_dir: &Path,
        addresses: &[IpAddr],
        now: SystemTime,
    ) -> Result<Tls, Error> {
        let dir = state_dir.join("tls");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let keys = OnceLock::new();
        let hand = match &config.own {
            Some(own) => own_hand(own, &provider, now)?,
            None => {
                let names = decide::names(config, addresses)?;
                our_hand(&dir, leaf_keys(&keys)?, names, &provider, now)?
            }
        };
        let shown = Shown { hand: ArcSwap::from_pointee(hand), refused: AtomicU64::new(0) };
        Ok(Tls { dir, provider, keys, shown: Arc::new(shown) })
    }

    /// For a listener: TLS 1.2, all that iPXE speaks, and 1.3. Sessions are resumed from a memory
    /// of 256, rustls's own. The certificates inside follow every renewal.
    pub fn server_config(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("aws-lc-rs has cipher suites for both")
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone())
    }

    /// SHA-256 of each root in DER, for iPXE's `trust` (option 175 sub-option 90 is all of them in
    /// a row). None where the user's own certificate came without a root.
    pub fn trust(&self) -> Vec<[u8; 32]> {
        self.shown.hand.load().roots.iter().map(Root::fingerprint).collect()
    }

    /// The roots in PEM, for installed systems; `None` where [`Tls::trust`] is empty.
    pub fn root_pem(&self) -> Option<String> {
        let hand = self.shown.hand.load();
        (!hand.roots.is_empty()).then(|| hand.roots.iter().map(|r| r.pem.as_str()).collect())
    }

    /// The addresses that a certificate in force does not name: machines that are sent there will
    /// refuse it. Never any of our own leaves' addresses; a fact to warn of with the user's.
    pub fn uncovered(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let hand = self.shown.hand.load();
        addresses.iter().filter(|a| !hand.chains.iter().all(|c| covers(c, a))).copied().collect()
    }

    /// How many clients offered no way of signing that a chain in force has.
    pub fn refused(&self) -> u64 {
        self.shown.refused.load(Ordering::Relaxed)
    }

    /// Puts new certificates in place where it is time, or where addresses, configuration or the
    /// user's files changed, and says why.
    ///
    /// # Errors
    /// As [`Tls::open`]; the old certificates then stay in force.
    pub fn renew_if_due(
        &self,
        config: &config::Tls,
        addresses: &[IpAddr],
        now: SystemTime,
    ) -> Result<Option<Why>, Error> {
        let old = self.shown.hand.load();
        let (why, new) = match &config.own {
            Some(own) => (Why::Own, own_hand(own, &self.provider, now)?),
            None => {
                let names = decide::names(config, addresses)?;
                let Some(why) = decide::due(old.held.as_ref(), &names, now) else {
                    return Ok(None);
                };
                (why, our_hand(&self.dir, leaf_keys(&self.keys)?, names, &self.provider, now)?)
            }
        };
        if new.same(&old) {
            return Ok(None);
        }
        self.shown.hand.store(Arc::new(new));
        Ok(Some(why))
    }
}

impl Hand {
    fn same(&self, other: &Hand) -> bool {
        fn certs(hand: &Hand) -> impl Iterator<Item = &[CertificateDer<'static>]> {
            hand.chains.iter().map(|c| c.cert.as_slice())
        }
        certs(self).eq(certs(other)) && self.roots == other.roots
    }
}

impl ResolvesServerCert for Shown {
    /// Whatever name is asked for: iPXE sends the address as a name, which rustls does not show,
    /// and one certificate has all our names.
    fn resolve(&self, hello: ClientHello) -> Option<Arc<CertifiedKey>> {
        let chain = decide::pick(&self.hand.load().chains, hello.signature_schemes()).cloned();
        if chain.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(
                offered = ?hello.signature_schemes(),
                "TLS refused: the client can verify none of our certificates"
            );
        }
        chain
    }
}

/// Reads all that there is and changes nothing; the trust that is known so far, none before the
/// first start.
///
/// # Errors
/// What [`Tls::open`] would refuse.
pub fn check(
    config: &config::Tls,
    state_dir: &Path,
    addresses: &[IpAddr],
    now: SystemTime,
) -> Result<Vec<[u8; 32]>, Error> {
    let roots = match &config.own {
        Some(own) => own_hand(own, &aws_lc_rs::default_provider(), now)?.roots,
        None => {
            decide::names(config, addresses)?;
            let dir = state_dir.join("tls");
            disk::private_folder(&dir)?;
            let mut roots = Vec::new();
            for kind in Kind::BOTH {
                roots.extend(known(&dir, kind)?.1);
            }
            roots
        }
    };
    Ok(roots.iter().map(Root::fingerprint).collect())
}

fn covers(chain: &CertifiedKey, address: &IpAddr) -> bool {
    let parsed = chain.end_entity_cert().and_then(ParsedCertificate::try_from);
    let name = ServerName::IpAddress((*address).into());
    parsed.is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, &name).is_ok())
}

fn leaf_keys(keys: &OnceLock<[KeyPair; 2]>) -> Result<&[KeyPair; 2], Error> {
    if let Some(made) = keys.get() {
        return Ok(made);
    }
    let made = [make_key(Kind::Ecdsa)?, make_key(Kind::Rsa)?];
    Ok(keys.get_or_init(|| made))
}

fn make_key(kind: Kind) -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_for(kind.algorithm())?)
}

fn our_hand(
    dir: &Path,
    keys: &[KeyPair; 2],
    names: BTreeSet<Name>,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Hand, Error> {
    disk::folder(dir)?;
    let (mut chains, mut roots) = (Vec::new(), Vec::new());
    for (kind, key) in Kind::BOTH.into_iter().zip(keys) {
        let (root, root_key) = root(dir, kind, now)?;
        let certs = wire::chain(&names, key, (&root, &root_key), now, disk::dice()?)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let both = CertifiedKey::from_der(certs, der, provider)
            .map_err(|e| Error::Key { path: dir.into(), why: e.to_string() })?;
        chains.push(Arc::new(both));
        roots.push(root);
    }
    let root_end = roots.iter().map(|r| r.end).min().unwrap_or(now);
    let held = Held { names, leaf_end: now + decide::LEAF_LIFE, root_end };
    Ok(Hand { chains, roots, held: Some(held) })
}

/// A root with its key: what is there, or new. The key is written first: where the power fails
/// between the two, the next start makes the root from the key, and nothing is lost, since nobody
/// has been told of that root yet. A certificate without its key is another matter: machines may
/// trust it, and only a person can know where the key went.
fn root(dir: &Path, kind: Kind, now: SystemTime) -> Result<(Root, KeyPair), Error> {
    let (cert_path, key_path) = kind.paths(dir);
    let (key, old) = known(dir, kind)?;
    let first = key.is_none();
    let key = match key {
        Some(key) => key,
        None => {
            let key = make_key(kind)?;
            disk::write(&key_path, &key.serialize_pem())?;
            key
        }
    };
    if let Some(old) = old.filter(|r| !decide::root_due(r.end, now)) {
        return Ok((old, key));
    }
    disk::write(&cert_path, &wire::root(&key, now, disk::dice()?)?)?;
    match first {
        true => tracing::info!("{}: a new CA", cert_path.display()),
        false => tracing::warn!("{}: made anew from {}", cert_path.display(), key_path.display()),
    }
    match known(dir, kind)? {
        (Some(key), Some(root)) => Ok((root, key)),
        _ => Err(Error::Missing { path: cert_path }),
    }
}

/// What is there of a root, the two checked against each other.
fn known(dir: &Path, kind: Kind) -> Result<(Option<KeyPair>, Option<Root>), Error> {
    let (cert, key) = kind.paths(dir);
    let Some(key_pem) = disk::read_key(&key)? else {
        return match disk::read(&cert)? {
            Some(_) => Err(Error::KeyLost { cert, key }),
            None => Ok((None, None)),
        };
    };
    let pair = wire::root_key(&key, &key_pem, kind.algorithm())?;
    let root = match disk::read(&cert)? {
        Some(pem) => Some(wire::our_root((&cert, &pem), (&key, &pair))?),
        None => None,
    };
    Ok((Some(pair), root))
}

fn own_hand(
    own: &OwnCertificate,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Hand, Error> {
    let there =
        |path: &Path, text: Option<String>| text.ok_or(Error::Missing { path: path.into() });
    let chain = there(&own.chain, disk::read(&own.chain)?)?;
    let key = there(&own.key, disk::read_key(&own.key)?)?;
    let root = match &own.root {
        Some(path) => Some(there(path, disk::read(path)?)?),
        None => None,
    };
    let (chain, root) = wire::own(own, (&chain, &key, root.as_deref()), provider, now)?;
    Ok(Hand { chains: vec![chain], roots: root.into_iter().collect(), held: None })
}
