//! How an event looks on its way: a body of JSON, and a signature.

use hmac::{Hmac, KeyInit, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use crate::ledger::Alarm;
use crate::model::Mac;
use crate::model::lifecycle::Failure;

/// The header of the signature.
pub const SIGNATURE: &str = "Pilotlight-Signature";
/// The same for each try of one event: who gets one twice knows it by this.
pub const ID: &str = "Pilotlight-Id";

/// What is told of a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct About {
    pub mac: Mac,
    /// As declared, or as assigned.
    pub name: Option<String>,
    pub profile: Option<String>,
    pub state: &'static str,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Body {
    Installed { at: jiff::Timestamp, machine: About },
    Failed { at: jiff::Timestamp, machine: About, failure: Failure },
    Alarm { at: jiff::Timestamp, alarm: Alarm },
}

/// The value of [`SIGNATURE`]: seconds since 1970, and HMAC-SHA256 of those, a dot and the body, in
/// hex. Who checks it takes nothing whose time is far off: it may be sent again by somebody else.
pub fn signature(secret: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn a_signature_as_openssl_makes_it() {
        assert_eq!(signature("key", 1_700_000_000, b"{}"), SIGNED);
    }

    const SIGNED: &str =
        "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
}
