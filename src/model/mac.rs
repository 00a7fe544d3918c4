//! A 48-bit hardware address, and a pattern of one.

use std::fmt;
use std::str::FromStr;

use super::digest::hex;

/// An Ethernet address (RFC 2131 `chaddr` with `htype` 1 and `hlen` 6).
///
/// Shown in the way of the Linux tools (`52:54:00:12:34:56`); read in that way, with hyphens as
/// iPXE's `hexhyp` writes it, with dots as switches do, or as twelve digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The form iPXE gives for `${net0/mac:hexhyp}`: `52-54-00-12-34-56`.
    pub fn hexhyp(&self) -> String {
        String::from_utf8_lossy(&self.digits(b'-')).into_owned()
    }

    /// Written by the thousand a second, by the formatter's machinery at the price of all the rest.
    fn digits(&self, between: u8) -> [u8; 17] {
        let mut text = [between; 17];
        for (pair, byte) in text.chunks_mut(3).zip(self.0) {
            pair[..2].copy_from_slice(&hex(byte));
        }
        text
    }

    /// The interface identifier of RFC 4291 appendix A that a link-local address made from this
    /// address carries.
    pub fn eui64(&self) -> [u8; 8] {
        let m = self.0;
        [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.digits(b':')))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a [`Mac`] or a [`MacPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    #[error("{0:?} is not a MAC address: write six pairs of hex digits, like 52:54:00:12:34:56")]
    Address(String),
    #[error(
        "{0:?} is not a MAC pattern: write pairs of hex digits, and * for the rest or for one \
         pair, like 52:54:00:*"
    )]
    Pattern(String),
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Mac, MacError> {
        let wrong = || MacError::Address(text.chars().take(40).collect());
        if text.len() > 17 {
            return Err(wrong());
        }
        let mut mac = [0; 6];
        let mut count = 0;
        for byte in text.bytes().filter(|b| !matches!(b, b':' | b'-' | b'.')) {
            let digit = char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let place = mac.get_mut(count / 2).ok_or_else(wrong)?;
            *place = *place << 4 | digit.ok_or_else(wrong)?;
            count += 1;
        }
        if count != 12 || !matches!(text.len() - count, 0 | 2 | 5) {
            return Err(wrong());
        }
        Ok(Mac(mac))
    }
}

impl<'de> serde::Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Mac, D::Error> {
        let text: String = serde::Deserialize::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A MAC address in which pairs may be `*`; a `*` at the end stands for all the pairs that are left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MacPattern([Option<u8>; 6]);

impl MacPattern {
    pub fn matches(&self, mac: Mac) -> bool {
        self.0.iter().zip(mac.0).all(|(want, have)| want.is_none_or(|w| w == have))
    }

    /// The one address that this pattern stands for, if it leaves nothing open.
    pub fn exact(&self) -> Option<Mac> {
        let mut mac = [0; 6];
        for (byte, want) in mac.iter_mut().zip(self.0) {
            *byte = want?;
        }
        Some(Mac(mac))
    }
}

impl From<Mac> for MacPattern {
    fn from(mac: Mac) -> Self {
        MacPattern(mac.0.map(Some))
    }
}

impl FromStr for MacPattern {
    type Err = MacError;

    fn from_str(text: &str) -> Result<MacPattern, MacError> {
        if let Ok(mac) = text.parse::<Mac>() {
            return Ok(mac.into());
        }
        let wrong = || MacError::Pattern(text.chars().take(40).collect());
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let open = parts.last() == Some(&"*");
        if parts.len() > 6 || (parts.len() < 6 && !open) {
            return Err(wrong());
        }
        let mut pattern = [None; 6];
        for (slot, part) in pattern.iter_mut().zip(parts) {
            if part != "*" {
                if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                *slot = Some(u8::from_str_radix(part, 16).map_err(|_| wrong())?);
            }
        }
        Ok(MacPattern(pattern))
    }
}

impl fmt::Display for MacPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pair) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(":")?;
            }
            match pair {
                Some(b) => write!(f, "{b:02x}")?,
                None => f.write_str("*")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_form_is_the_same_address() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        for form in ["52:54:00:12:34:ab", "52-54-00-12-34-AB", "5254.0012.34ab", "5254001234AB"] {
            assert_eq!(form.parse(), Ok(mac), "{form}");
        }
        assert_eq!(mac.hexhyp(), "52-54-00-12-34-ab");
    }

    #[test]
    fn what_is_no_address_says_how_one_is_written() {
        for bad in ["", "52:54", "52:54:00:12:34:gg", "52:54:00:12:34:56:78", "é:54:00:12:34:5"] {
            let said = bad.parse::<Mac>().unwrap_err().to_string();
            assert!(said.contains("six pairs"), "{said}");
        }
    }

    #[test]
    fn a_pattern_leaves_pairs_open() {
        let p: MacPattern = "52:54:00:*".parse().unwrap();
        assert!(p.matches("52:54:00:01:02:03".parse().unwrap()));
        assert!(!p.matches("52:54:01:01:02:03".parse().unwrap()));
        assert_eq!(p.exact(), None);
        let p: MacPattern = "52:*:00:01:02:03".parse().unwrap();
        assert!(p.matches("52:99:00:01:02:03".parse().unwrap()));
        let p: MacPattern = "52-54-00-01-02-03".parse().unwrap();
        assert_eq!(p.exact(), "52:54:00:01:02:03".parse().ok());
        for bad in ["52:54", "52:5*:00:01:02:03", "*:*:*:*:*:*:*", ""] {
            assert!(bad.parse::<MacPattern>().is_err(), "{bad}");
        }
    }
}
