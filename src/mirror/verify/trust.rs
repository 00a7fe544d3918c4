//! OpenPGP (RFC 9580): the certificates that may sign, and whether one of them did.
//!
//! 1. `Trust::read` keeps of each certificate the keys that may sign, with the time for which they
//!    may: rPGP checks signatures, and leaves validity to us.
//! 2. `unwrap` takes a clearsigned text apart, and refuses all that is not signed.
//! 3. `Trust::check` wants one good signature of one of our keys.
//!
//! A certificate's own signatures may be SHA-1 (those of older distributions are): the file was
//! named by the user, and nobody adds to it. A signature over data may not.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pgp::composed::{Deserializable as _, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    Packet, PacketParser, PublicKey, PublicSubkey, RevocationCode, Signature, SignatureType,
    SignatureVersion, SubpacketData,
};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, PublicParams, Tag};

use super::{Fault, said};

/// The longest signature file that is read, in bytes: a few signatures are a few KiB.
pub const SIGNATURE_LIMIT: usize = 256 * 1024;
/// The most signatures that are looked at in one file, and certificates in all.
const SIGNATURES: usize = 16;
const CERTIFICATES: usize = 1000;
/// The most keys that are tried for one signature: the same key may be in two files.
const NAMED: usize = 2;
/// Clocks of signers may be ahead of ours by a day.
const AHEAD: i64 = 86_400;

/// The certificates that may sign.
#[derive(Debug, Default)]
pub struct Trust {
    keys: Vec<Key>,
}

/// A key that may sign.
#[derive(Debug)]
struct Key {
    part: Part,
    /// Its end: of itself or of its certificate, whichever is first. Seconds since 1970.
    until: Option<i64>,
    /// Signatures from then on are void. Zero: all are, for who revoked it knows not since when.
    revoked: Option<i64>,
}

#[derive(Debug)]
enum Part {
    Primary(PublicKey),
    Sub(PublicSubkey),
}

/// A file of keys that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("{}: no OpenPGP certificate in it", .0.display())]
    NotAKey(PathBuf),
    #[error("{path}: damaged: {why}", path = .0.display(), why = .1)]
    Damaged(PathBuf, String),
    #[error(
        "{}: a private key, which does not belong here: export the public one with gpg --export",
        .0.display()
    )]
    Private(PathBuf),
    #[error("{}: a keybox of GnuPG: export its keys with gpg --export", .0.display())]
    Keybox(PathBuf),
    #[error(
        "{}: no key in it may sign: all are for other uses, too short (RSA below 2048 bits, DSA), \
         or of a kind that is not known",
        .0.display()
    )]
    NoneSigns(PathBuf),
    #[error("more than {CERTIFICATES} certificates")]
    TooMany,
}

impl Trust {
    /// Certificates from files, binary or armored, several in a file.
    ///
    /// # Errors
    /// A file without a key that may sign, or that is no file of keys.
    pub fn read(files: &[(PathBuf, Vec<u8>)]) -> Result<Trust, BadKey> {
        let mut trust = Trust::default();
        for (path, bytes) in files {
            let before = trust.keys.len();
            let certificates = certificates(path, bytes)?;
            trust.keys.extend(certificates.into_iter().flat_map(keys));
            if trust.keys.len() == before {
                return Err(BadKey::NoneSigns(path.clone()));
            }
            if trust.keys.len() > CERTIFICATES {
                return Err(BadKey::TooMany);
            }
        }
        Ok(trust)
    }

    /// No keys are named: nothing has to be signed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A detached signature, binary or armored, over `data`.
    pub fn detached(&self, signature: &[u8], data: &[u8], now: Timestamp) -> Result<(), Fault> {
        if signature.len() > SIGNATURE_LIMIT {
            return Err(Fault::TooLarge(SIGNATURE_LIMIT as u64));
        }
        let packets = match std::str::from_utf8(signature) {
            Ok(text) if text.trim_start().starts_with("-----BEGIN ") => {
                let blocks = dearmor(text.lines(), "SIGNATURE").ok_or(Fault::NotASignature)?;
                blocks.concat()
            }
            _ => signature.to_vec(),
        };
        self.check(&packets, data, &[SignatureType::Binary, SignatureType::Text], now)
    }

    /// The signature of a clearsigned text.
    pub fn inline(&self, signed: &Clearsigned, now: Timestamp) -> Result<(), Fault> {
        // RFC 9580 section 7.1: line ends are CR LF for the digest, and the last is not of the text.
        let hashed = signed.text.strip_suffix('\n').unwrap_or(&signed.text).replace('\n', "\r\n");
        self.check(&signed.packets, hashed.as_bytes(), &[SignatureType::Text], now)
    }

    /// One good signature suffices: archives sign with the keys of two releases. Without one, the
    /// fault that tells most.
    fn check(
        &self,
        packets: &[u8],
        data: &[u8],
        types: &[SignatureType],
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut worst: Option<Fault> = None;
        for packet in PacketParser::new(packets).take(SIGNATURES) {
            let Ok(packet) = packet else { continue };
            let Packet::Signature(signature) = packet else { return Err(Fault::NotASignature) };
            match self.one(&signature, data, types, now.as_second()) {
                Ok(()) => return Ok(()),
                Err(fault) if worst.as_ref().is_none_or(|w| telling(&fault) > telling(w)) => {
                    worst = Some(fault);
                }
                Err(_) => {}
            }
        }
        Err(worst.unwrap_or(Fault::NotASignature))
    }

    fn one(
        &self,
        signature: &Signature,
        data: &[u8],
        types: &[SignatureType],
        now: i64,
    ) -> Result<(), Fault> {
        use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
        let known = [SignatureVersion::V3, SignatureVersion::V4, SignatureVersion::V6];
        let right = signature.typ().is_some_and(|t| types.contains(&t));
        if !known.contains(&signature.version()) || !right || has_unknown_critical(signature) {
            return Err(Fault::NotASignature);
        }
        let hash = signature.hash_alg().ok_or(Fault::NotASignature)?;
        if ![Sha256, Sha384, Sha512, Sha3_256, Sha3_512].contains(&hash) {
            return Err(Fault::WeakSignature(hash.to_string()));
        }
        let made = seconds(signature.created().ok_or(Fault::NotASignature)?);
        // The names are not signed, and may be many: each costs a digest of the whole file.
        let ours = self.keys.iter().filter(|k| k.is_named_by(signature));
        let mut ours = ours.take(NAMED).peekable();
        let Some(named) = ours.peek().map(|k| k.id()) else {
            return Err(Fault::UnknownKey(issuer(signature)));
        };
        let Some(key) = ours.find(|k| k.made(signature, data)) else {
            return Err(Fault::BadSignature(named));
        };
        key.may_have_signed(made)?;
        if made > now + AHEAD {
            return Err(Fault::SignatureAhead(key.id()));
        }
        let lasts = signature.signature_expiration_time().map_or(0, |d| i64::from(d.as_secs()));
        if lasts != 0 && made + lasts < now {
            return Err(Fault::SignatureExpired(key.id()));
        }
        Ok(())
    }
}

/// How much a fault tells the person who has to find out.
fn telling(fault: &Fault) -> u8 {
    match fault {
        Fault::BadSignature(_) => 5,
        Fault::KeyRevoked(_) => 4,
        Fault::KeyExpired(_) | Fault::SignatureExpired(_) | Fault::SignatureAhead(_) => 3,
        Fault::WeakSignature(_) => 2,
        Fault::UnknownKey(_) => 1,
        _ => 0,
    }
}

impl Key {
    fn details(&self) -> &dyn KeyDetails {
        match &self.part {
            Part::Primary(key) => key,
            Part::Sub(key) => key,
        }
    }

    fn id(&self) -> String {
        self.details().legacy_key_id().to_string()
    }

    /// Who signed is written in every signature that GnuPG makes; one that names nobody would have
    /// to be tried with every key.
    fn is_named_by(&self, signature: &Signature) -> bool {
        let key = self.details();
        signature.issuer_key_id().contains(&&key.legacy_key_id())
            || signature.issuer_fingerprint().contains(&&key.fingerprint())
    }

    fn made(&self, signature: &Signature, data: &[u8]) -> bool {
        match &self.part {
            Part::Primary(key) => signature.verify(key, data).is_ok(),
            Part::Sub(key) => signature.verify(key, data).is_ok(),
        }
    }

    /// Judged at the time of signing: the releases in an archive are older than their keys' end,
    /// and must install.
    fn may_have_signed(&self, made: i64) -> Result<(), Fault> {
        if self.revoked.is_some_and(|at| made >= at) {
            return Err(Fault::KeyRevoked(self.id()));
        }
        if made < seconds(self.details().created_at()) || self.until.is_some_and(|end| made >= end)
        {
            return Err(Fault::KeyExpired(self.id()));
        }
        Ok(())
    }
}

/// RFC 9580 section 5.2.3.7: who does not know a critical subpacket must not believe the
/// signature. Notations are known by their names alone, and we know none.
fn has_unknown_critical(signature: &Signature) -> bool {
    signature.config().is_some_and(|config| {
        config.hashed_subpackets().any(|s| {
            s.is_critical
                && matches!(
                    s.data,
                    SubpacketData::Other(..)
                        | SubpacketData::Experimental(..)
                        | SubpacketData::Notation(_)
                )
        })
    })
}

fn issuer(signature: &Signature) -> String {
    match (signature.issuer_key_id().first(), signature.issuer_fingerprint().first()) {
        (Some(id), _) => id.to_string(),
        (None, Some(print)) => print.to_string(),
        (None, None) => "nobody".to_string(),
    }
}

fn seconds(time: pgp::types::Timestamp) -> i64 {
    i64::from(time.as_secs())
}

/// All certificates of a file.
fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<SignedPublicKey>, BadKey> {
    // The magic of GnuPG's keybox, which apt knows neither.
    if bytes.get(8..12) == Some(b"KBXf") {
        return Err(BadKey::Keybox(path.to_path_buf()));
    }
    let blocks = match std::str::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN PGP PRIVATE KEY BLOCK-----") => {
            return Err(BadKey::Private(path.to_path_buf()));
        }
        Ok(text) => dearmor(text.lines(), "PUBLIC KEY BLOCK")
            .ok_or_else(|| BadKey::Damaged(path.to_path_buf(), "its armor".to_string()))?,
        Err(_) => vec![bytes.to_vec()],
    };
    let mut all = Vec::new();
    for block in &blocks {
        let first = PacketParser::new(&block[..]).next();
        if matches!(first, Some(Ok(Packet::SecretKey(_)))) {
            return Err(BadKey::Private(path.to_path_buf()));
        }
        let damaged = |e: pgp::errors::Error| BadKey::Damaged(path.to_path_buf(), said(&e));
        for certificate in
            SignedPublicKey::from_bytes_many(&block[..]).map_err(damaged)?.take(CERTIFICATES)
        {
            all.push(certificate.map_err(damaged)?);
        }
    }
    if all.is_empty() { Err(BadKey::NotAKey(path.to_path_buf())) } else { Ok(all) }
}

/// The keys of a certificate that may sign.
fn keys(certificate: SignedPublicKey) -> Vec<Key> {
    let primary = &certificate.primary_key;
    let Some(own) = own_word(&certificate) else { return Vec::new() };
    let until = end(primary, own);
    let revoked = certificate
        .details
        .revocation_signatures
        .iter()
        .filter(|s| sound(s) && s.verify_key(primary).is_ok())
        .map(revoked_from)
        .min();
    let mut keys = Vec::new();
    for sub in &certificate.public_subkeys {
        let binding = sub
            .signatures
            .iter()
            .filter(|s| s.typ() == Some(SignatureType::SubkeyBinding) && sound(s))
            .filter(|s| s.verify_subkey_binding(primary, &sub.key).is_ok())
            .max_by_key(|s| s.created());
        let Some(binding) = binding else { continue };
        // RFC 9580 section 5.2.1.8: a key that signs has agreed to be bound, or anybody could
        // take its signatures for theirs.
        let agreed = binding.embedded_signature().is_some_and(|back| {
            sound(back) && back.verify_primary_key_binding(&sub.key, primary).is_ok()
        });
        if !agreed || !may_sign(binding, false) || !is_strong(&sub.key) {
            continue;
        }
        let taken_back = sub
            .signatures
            .iter()
            .filter(|s| s.typ() == Some(SignatureType::SubkeyRevocation) && sound(s))
            .filter(|s| s.verify_subkey_binding(primary, &sub.key).is_ok())
            .map(revoked_from)
            .min();
        keys.push(Key {
            part: Part::Sub(sub.key.clone()),
            until: [until, end(&sub.key, binding)].into_iter().flatten().min(),
            revoked: [revoked, taken_back].into_iter().flatten().min(),
        });
    }
    if may_sign(own, true) && is_strong(primary) {
        keys.push(Key { part: Part::Primary(certificate.primary_key), until, revoked });
    }
    keys
}

/// What a certificate last said of itself: its end and its uses.
fn own_word(certificate: &SignedPublicKey) -> Option<&Signature> {
    let primary = &certificate.primary_key;
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.typ() == Some(SignatureType::Key) && sound(s))
        .filter(|s| s.verify_key(primary).is_ok());
    let of_users = certificate.details.users.iter().filter_map(|user| {
        let last = user
            .signatures
            .iter()
            .filter(|s| sound(s) && s.verify_certification(primary, Tag::UserId, &user.id).is_ok())
            .max_by_key(|s| s.created())?;
        (last.typ() != Some(SignatureType::CertRevocation)).then_some(last)
    });
    direct.chain(of_users).max_by_key(|s| s.created())
}

/// Whether a certificate's own signature counts: MD5 is broken against everybody.
fn sound(signature: &Signature) -> bool {
    !has_unknown_critical(signature)
        && !matches!(
            signature.hash_alg(),
            None | Some(HashAlgorithm::Md5 | HashAlgorithm::None | HashAlgorithm::Ripemd160)
        )
}

/// By its key flags (RFC 9580 section 5.2.3.29); old primary keys have none, and sign.
fn may_sign(word: &Signature, without: bool) -> bool {
    word.config()
        .and_then(|c| {
            c.hashed_subpackets().find_map(|s| match &s.data {
                SubpacketData::KeyFlags(flags) => Some(flags.sign()),
                _ => None,
            })
        })
        .unwrap_or(without)
}

/// RFC 9580 section 5.2.3.13: seconds after its creation; zero is never.
fn end(key: &impl KeyDetails, word: &Signature) -> Option<i64> {
    let lasts = word.key_expiration_time().map_or(0, |d| i64::from(d.as_secs()));
    (lasts != 0).then(|| seconds(key.created_at()) + lasts)
}

/// RFC 9580 section 5.2.3.31: a key that was replaced or retired was good until then; a stolen one
/// never was, for who has it dates as he likes.
fn revoked_from(revocation: &Signature) -> i64 {
    match revocation.revocation_reason_code() {
        Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired) => {
            revocation.created().map_or(0, seconds)
        }
        _ => 0,
    }
}

/// Keys that apt and GnuPG take today.
fn is_strong(key: &impl KeyDetails) -> bool {
    match key.public_params() {
        // The modulus and the exponent with their lengths: 2048 bits are 256 bytes of it.
        PublicParams::RSA(rsa) => rsa.write_len() > 256,
        PublicParams::DSA(_) | PublicParams::Elgamal(_) | PublicParams::Unknown { .. } => false,
        _ => true,
    }
}

/// A clearsigned text, taken apart (RFC 9580 section 7).
#[derive(Debug)]
pub struct Clearsigned {
    /// What was signed, without dash escapes, with LF: only this may be read.
    pub text: String,
    packets: Vec<u8>,
}

pub const CLEARSIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";

/// None if it is none, or if anything stands around the signed text: a reader that is less strict
/// would take that for signed.
pub fn unwrap(bytes: &[u8]) -> Option<Clearsigned> {
    let whole = std::str::from_utf8(bytes).ok()?;
    let mut lines = whole.split('\n').map(|l| l.trim_end_matches([' ', '\t', '\r']));
    if lines.next()? != CLEARSIGNED {
        return None;
    }
    // Armor headers: Hash only.
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
        line.strip_prefix("Hash: ")?;
    }
    let mut text = String::with_capacity(bytes.len());
    loop {
        let line = lines.next()?;
        if line == SIGNATURE {
            break;
        }
        let line = match line.strip_prefix("- ") {
            Some(escaped) => escaped,
            None if line.starts_with('-') => return None,
            None => line,
        };
        // A lone CR is a line end to the digest and none to us.
        if line.contains('\r') {
            return None;
        }
        text.push_str(line);
        text.push('\n');
    }
    let mut blocks = dearmor(std::iter::once(SIGNATURE).chain(lines), "SIGNATURE")?;
    if blocks.len() != 1 {
        return None;
    }
    Some(Clearsigned { text, packets: blocks.remove(0) })
}

/// The armored blocks of a text (RFC 9580 section 6). The checksum is not looked at: it protects
/// against nothing (section 6.1). None: a block that is none, or text after a signature.
fn dearmor<'a>(lines: impl Iterator<Item = &'a str>, kind: &str) -> Option<Vec<Vec<u8>>> {
    let (begin, end) = (format!("-----BEGIN PGP {kind}-----"), format!("-----END PGP {kind}-----"));
    let mut lines = lines.map(str::trim_end);
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if line != begin {
            // Files of keys have comments between the blocks.
            if kind == "SIGNATURE" && !line.is_empty() {
                return None;
            }
            continue;
        }
        while !lines.next()?.is_empty() {}
        let mut body = String::new();
        loop {
            let line = lines.next()?;
            if line == end {
                break;
            }
            if !line.starts_with('=') {
                body.push_str(line);
            }
        }
        blocks.push(STANDARD.decode(&body).ok()?);
    }
    Some(blocks)
}
