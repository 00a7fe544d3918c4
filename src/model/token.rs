//! What a boot's random token is known by: nothing that is kept or sent in the clear leads back to it.

use super::Digest;

/// The key of a boot: SHA-256 of its token, in hex.
pub fn key(token: &str) -> String {
    Digest::sha256(token.as_bytes()).hex()
}

/// The word in the address that it reports to. It travels in the clear where all else is HTTPS:
/// who overhears it can read no answers.
pub fn report(token: &str) -> String {
    let mut hex = Digest::sha256(format!("pilotlight report{token}").as_bytes()).hex();
    hex.truncate(32);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_does_not_tell_the_other() {
        let token = "00112233445566778899aabbccddeeff";
        assert_eq!((key(token).len(), report(token).len()), (64, 32));
        assert!(!key(token).starts_with(&report(token)));
        assert_ne!(report(token), report(&report(token)));
    }
}
