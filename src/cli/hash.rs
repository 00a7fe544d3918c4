//! `pilotlight hash-password`: what goes into answer files in the place of a password.

use std::io::{IsTerminal, Read};

use anyhow::{Context, bail, ensure};
use sha_crypt::{PasswordHasher, ShaCrypt};

use super::output;

/// libxcrypt, every distribution's crypt(3), takes 512 bytes with the NUL (CRYPT_MAX_PASSPHRASE_SIZE).
const LIMIT: usize = 511;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight hash-password
      Asks twice, shows nothing of it, and prints a hash that begins with $6$.
  pass show lab/root | head -1 | pilotlight hash-password --stdin

The hash is sha512crypt, as kickstart's rootpw --iscrypted, preseed's
passwd/root-password-crypted and cloud-init's passwd want it.")]
pub struct HashPassword {
    /// Read one line from standard input
    #[arg(long)]
    stdin: bool,
}

pub fn run(hash: &HashPassword) -> anyhow::Result<()> {
    let password = if hash.stdin { piped(std::io::stdin())? } else { typed()? };
    // 12 bytes are 16 characters of salt, the most that crypt(3) reads; a longer one makes a hash
    // that never logs in.
    let mut salt = [0; 12];
    getrandom::fill(&mut salt)?;
    Ok(output::print(&made(&password, &salt)?)?)
}

fn typed() -> anyhow::Result<String> {
    const NO_TERMINAL: &str =
        "there is no terminal to ask at: `… | pilotlight hash-password --stdin` reads a line";
    ensure!(std::io::stdin().is_terminal(), NO_TERMINAL);
    let first = rpassword::prompt_password("Password: ").context(NO_TERMINAL)?;
    let again = rpassword::prompt_password("Once more: ").context(NO_TERMINAL)?;
    ensure!(first == again, "the two are not the same, and nothing was made: type it again");
    Ok(first)
}

/// The one line that there is. Its end is no part of the password; a second line would silently be
/// left out, so there must be none.
fn piped(from: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(2 * LIMIT as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).ok().context(
        "the password is not UTF-8: log-in programs read it in their own encoding, and that would \
         be another password",
    )?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('\n') {
        bail!("more than one line came: `… | head -1 | pilotlight hash-password --stdin`");
    }
    Ok(line.to_string())
}

fn made(password: &str, salt: &[u8]) -> anyhow::Result<String> {
    ensure!(!password.is_empty(), "an empty password is no password: type one");
    if let Some(c) = password.chars().find(|c| c.is_control()) {
        // crypt(3) ends at a NUL: all that comes behind it would not count. Of the others a
        // terminal eats what it likes.
        bail!(
            "the password has the character U+{:04X}, which no log-in takes: leave it out",
            c as u32
        );
    }
    ensure!(
        password.len() <= LIMIT,
        "the password has {} bytes, and crypt(3) takes {LIMIT}: choose a shorter one",
        password.len()
    );
    let made = ShaCrypt::default()
        .hash_password_with_salt(password.as_bytes(), salt)
        .map_err(|e| anyhow::anyhow!("no hash was made: {e}"))?;
    Ok(made.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whole_or_not_at_all() {
        for (given, want) in [("a b\n", Some("a b")), ("a\r\n", Some("a")), ("ä", Some("ä"))] {
            assert_eq!(piped(given.as_bytes()).ok().as_deref(), want);
        }
        assert!(piped(&b"a\nb\n"[..]).is_err());
        assert!(piped(&b"\xff\n"[..]).is_err());
        let long = "x".repeat(LIMIT + 1);
        assert!(made(&piped(long.as_bytes()).unwrap(), &[0; 12]).is_err());
        for bad in ["", "a\0b", "a\tb", "a\rb", "\u{1b}[2J"] {
            assert!(made(bad, &[0; 12]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_salt_is_as_long_as_crypt_reads() {
        let hash = made("secret", &[7; 12]).unwrap();
        let parts: Vec<&str> = hash.split('$').collect();
        let salt = parts[parts.len() - 2];
        assert_eq!((parts[1], salt.len()), ("6", 16), "{hash}");
        assert_eq!(
            made(&"ü".repeat(255), &[7; 12]).unwrap().split('$').next_back().unwrap().len(),
            86
        );
    }
}
