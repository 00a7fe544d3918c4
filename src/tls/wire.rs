//! Certificates and keys: what they say, and how ours are written.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Error;
use super::decide::{LEAF_LIFE, Name, ROOT_LIFE};
use crate::config::OwnCertificate;

/// A certificate that machines are told to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub end: SystemTime,
}

impl Root {
    /// SHA-256 of the DER, as iPXE's `trust` setting has it.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }
}

/// Our root for this key, in PEM.
///
/// Its name comes from the key, so a root that is made anew from the same key takes the place of
/// the old one also where that one is installed. The path length 0 allows leaves only (RFC 5280
/// section 4.2.1.9). No CRL and no OCSP address: iPXE would have to ask there before it trusts.
pub fn root(key: &KeyPair, now: SystemTime, serial: [u8; 16]) -> Result<String, rcgen::Error> {
    let mut root = params(root_name(key), now + ROOT_LIFE, serial);
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(root.self_signed(key)?.pem())
}

/// A chain for these names: the leaf and the root that signs it. The root is sent too, since iPXE
/// otherwise goes looking for a cross-signed one and stalls.
pub fn chain(
    names: &BTreeSet<Name>,
    leaf_key: &KeyPair,
    (root, root_key): (&Root, &KeyPair),
    now: SystemTime,
    serial: [u8; 16],
) -> Result<Vec<CertificateDer<'static>>, rcgen::Error> {
    let mut leaf = params("pilotlight".into(), now + LEAF_LIFE, serial);
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    for name in names {
        leaf.subject_alt_names.push(match name {
            Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Name::Ip(address) => SanType::IpAddress(*address),
        });
    }
    let issuer = Issuer::from_ca_cert_der(&root.der, root_key)?;
    Ok(vec![leaf.signed_by(leaf_key, &issuer)?.into(), root.der.clone()])
}

/// What all our certificates have in common.
///
/// They begin in 1970. A machine whose clock battery is dead believes in 2000, or in the year its
/// firmware was built, and iPXE on a UEFI that gives no time takes 1970-01-01 (src/interface/efi/
/// efi_time.c); iPXE forgives 12.5 hours, no more, and no script of ours can set the clock before
/// it has trusted us. The beginning guards nothing: before its key was made nobody could have used
/// a certificate. Only the end does, and it is ours to set: rcgen's own would be the year 4096.
fn params(name: String, end: SystemTime, mut serial: [u8; 16]) -> CertificateParams {
    // Positive and of one length (RFC 5280 section 4.1.2.2).
    serial[0] = serial[0] & 0x3f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = end.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn root_name(key: &KeyPair) -> String {
    let digest = Sha256::digest(key.subject_public_key_info());
    let id: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    format!("pilotlight CA {id}")
}

/// The key of a root of ours.
pub fn root_key(
    path: &Path,
    pem: &str,
    algorithm: &'static SignatureAlgorithm,
) -> Result<KeyPair, Error> {
    let unusable = |why| Error::Key { path: path.into(), why };
    let key = KeyPair::from_pem(pem).map_err(|e| unusable(e.to_string()))?;
    match key.is_compatible(algorithm) {
        true => Ok(key),
        false => Err(unusable(format!("{algorithm:?} is wanted here"))),
    }
}

/// A root of ours that was written earlier. It must be that of the key, and have the name that we
/// give: one that somebody else made is not ours to replace when it ends.
pub fn our_root(
    (cert_path, pem): (&Path, &str),
    (key_path, key): (&Path, &KeyPair),
) -> Result<Root, Error> {
    let root = one_root(cert_path, pem)?;
    let cert = parse(cert_path, 1, &root.der)?;
    if cert.public_key().raw != key.subject_public_key_info() {
        return Err(Error::Mismatch { cert: cert_path.into(), key: key_path.into() });
    }
    let name = cert.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
    match name == Some(&root_name(key)) {
        true => Ok(root),
        false => Err(Error::Foreign { path: cert_path.into() }),
    }
}

/// The one certificate of a file of a root. Its PEM is that of the certificate alone, whatever
/// else is in the file: it will be shown to everybody.
fn one_root(path: &Path, pem: &str) -> Result<Root, Error> {
    let mut all = certificates(path, pem)?;
    let (Some(der), true) = (all.pop(), all.is_empty()) else {
        return Err(Error::Roots { path: path.into(), count: all.len() + 1 });
    };
    let end = moment(parse(path, 1, &der)?.validity().not_after.timestamp());
    Ok(Root { end, der, pem: armor(pem).ok_or(Error::NoCertificate { path: path.into() })? })
}

fn armor(pem: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let rest = &pem[pem.find("-----BEGIN CERTIFICATE-----")?..];
    Some(format!("{}\n", &rest[..rest.find(END)? + END.len()]))
}

/// The user's own chain and root, checked: the key is the first certificate's, none is out of its
/// time, and the chain leads to the root, which is put at its end.
pub fn own(
    files: &OwnCertificate,
    (chain, key, root): (&str, &str, Option<&str>),
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(Arc<CertifiedKey>, Option<Root>), Error> {
    let mut certs = certificates(&files.chain, chain)?;
    for (n, cert) in certs.iter().enumerate() {
        in_time(&files.chain, n + 1, cert, now)?;
    }
    let root = match (&files.root, root) {
        (Some(path), Some(pem)) => {
            let root = one_root(path, pem)?;
            in_time(path, 1, &root.der, now)?;
            leads_to(&certs, &root, provider, now).map_err(|why| Error::Untrusted {
                chain: files.chain.clone(),
                root: path.clone(),
                why: why.to_string(),
            })?;
            Some(root)
        }
        _ => None,
    };
    if let Some(root) = root.as_ref().filter(|r| certs.last() != Some(&r.der)) {
        certs.push(root.der.clone());
    }
    Ok((Arc::new(certified(files, certs, key, provider)?), root))
}

fn certified(
    files: &OwnCertificate,
    certs: Vec<CertificateDer<'static>>,
    key: &str,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let path = || files.key.clone();
    let der =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error::NoKey { path: path() })?;
    let both = CertifiedKey::from_der(certs, der, provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            Error::Mismatch { cert: files.chain.clone(), key: path() }
        }
        e => Error::Key { path: path(), why: e.to_string() },
    })?;
    match both.key.algorithm() {
        rustls::SignatureAlgorithm::ED25519 => Err(Error::Ed25519 { path: path() }),
        _ => Ok(both),
    }
}

/// A certificate that is its own root needs no path; iPXE takes it by its fingerprint.
fn leads_to(
    certs: &[CertificateDer<'static>],
    root: &Root,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let Some((first, rest)) = certs.split_first().filter(|(first, _)| **first != root.der) else {
        return Ok(());
    };
    let mut store = RootCertStore::empty();
    store.add(root.der.clone())?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(first)?,
        &store,
        rest,
        UnixTime::since_unix_epoch(since),
        provider.signature_verification_algorithms.all,
    )
}

fn certificates(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let damaged = |n| {
        let why = "its PEM is damaged".into();
        Error::Certificate { path: path.into(), number: n + 1, why }
    };
    let all = CertificateDer::pem_slice_iter(pem.as_bytes())
        .enumerate()
        .map(|(n, cert)| cert.map_err(|_| damaged(n)))
        .collect::<Result<Vec<_>, _>>()?;
    match all.is_empty() {
        true => Err(Error::NoCertificate { path: path.into() }),
        false => Ok(all),
    }
}

fn in_time(path: &Path, number: usize, der: &[u8], now: SystemTime) -> Result<(), Error> {
    let cert = parse(path, number, der)?;
    let (begin, end) = (cert.validity().not_before, cert.validity().not_after);
    let (path, date) = (path.to_path_buf(), |t| day(moment(t)));
    if moment(end.timestamp()) < now {
        Err(Error::Expired { path, number, date: date(end.timestamp()) })
    } else if moment(begin.timestamp()) > now {
        Err(Error::NotYet { path, number, date: date(begin.timestamp()) })
    } else {
        Ok(())
    }
}

fn parse<'a>(path: &Path, number: usize, der: &'a [u8]) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(der).map(|(_, cert)| cert).map_err(|e| Error::Certificate {
        path: path.into(),
        number,
        why: e.to_string(),
    })
}

/// Seconds since 1970; what lies before is 1970.
fn moment(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}

/// The day of a moment in UTC, as in `2026-11-21`.
fn day(at: SystemTime) -> String {
    OffsetDateTime::from(at).date().to_string()
}
