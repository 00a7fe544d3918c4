//! What may stand in an iPXE script.
//!
//! Scripts have no quoting. iPXE splits a line at white space, takes `||`, `&&` and `;` for
//! separators and a token that begins with `#` for the end, expands `${…}` in every token (and
//! again in what came out), and joins a line that ends in `\` with the next. So a value is not
//! escaped but refused.

use std::fmt;

/// A text that means nothing to iPXE but itself. There is no other way to make one than
/// [`ipxe_value`] and [`ipxe_word`], and to put them together by [`ipxe_line`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IpxeValue(String);

impl IpxeValue {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IpxeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Live {
    #[error("it has a line break")]
    LineBreak,
    #[error("it has a character that is not printable: {0:?}")]
    Unprintable(char),
    #[error("it has {0}, which iPXE takes for a separator of commands")]
    Separator(&'static str),
    #[error("{0:?} begins with #, which iPXE takes for the end of the line")]
    Comment(String),
    #[error("it has ${{, which iPXE takes for one of its own settings")]
    Setting,
    #[error("it ends with a backslash, which joins the next line to it")]
    Continuation,
    #[error("it has a space")]
    Space,
    #[error("it is longer than {LIMIT} bytes")]
    TooLong,
}

/// Longer than any kernel's command line (Linux on x86: 2048).
const LIMIT: usize = 8192;

/// A text of one or more words, fit for a script.
///
/// `;` is live as a token of its own only, so `ds=nocloud;s=http://…`, which Ubuntu's installer
/// wants, is fine. `||` and `&&` are refused wherever they stand: no kernel wants them.
pub fn ipxe_value(text: &str) -> Result<IpxeValue, Live> {
    if text.len() > LIMIT {
        return Err(Live::TooLong);
    }
    // Nearly all of them, and scripts are made by the thousand.
    if all(text, is_dull) {
        return Ok(IpxeValue(text.trim().to_string()));
    }
    if text.contains(['\n', '\r', '\u{2028}', '\u{2029}', '\u{85}']) {
        return Err(Live::LineBreak);
    }
    if let Some(c) = text.chars().find(|c| !is_printable(*c)) {
        return Err(Live::Unprintable(c));
    }
    for separator in ["||", "&&"] {
        if text.contains(separator) {
            return Err(Live::Separator(separator));
        }
    }
    if text.contains("${") {
        return Err(Live::Setting);
    }
    for token in text.split_whitespace() {
        if token == ";" {
            return Err(Live::Separator(";"));
        }
        if token.starts_with('#') {
            return Err(Live::Comment(token.chars().take(40).collect()));
        }
    }
    if text.trim_end().ends_with('\\') {
        return Err(Live::Continuation);
    }
    Ok(IpxeValue(text.trim().to_string()))
}

/// The same for one word: a URL, a file's name.
pub fn ipxe_word(text: &str) -> Result<IpxeValue, Live> {
    if text.len() <= LIMIT && all(text, |b| b != b' ' && is_dull(b)) {
        return Ok(IpxeValue(text.to_string()));
    }
    if text.contains(char::is_whitespace) && !text.contains(['\n', '\r']) {
        return Err(Live::Space);
    }
    ipxe_value(text)
}

/// A word of our own and values behind it: what separates, ends or continues a line is a whole token,
/// or within one, and so all of them mean as little as each.
pub fn ipxe_line(word: &'static str, values: &[&IpxeValue]) -> Result<IpxeValue, Live> {
    let mut line = String::with_capacity(values.iter().map(|v| v.0.len() + 1).sum::<usize>() + 16);
    line.push_str(word);
    for value in values.iter().filter(|v| !v.0.is_empty()) {
        line.push(' ');
        line.push_str(&value.0);
    }
    if line.len() > LIMIT { Err(Live::TooLong) } else { Ok(IpxeValue(line)) }
}

/// Looks at each byte, whatever is found: that way it looks at sixteen of them at once.
fn all(text: &str, is: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & is(byte))
}

/// Printable ASCII with no meaning to iPXE, whatever stands beside it.
fn is_dull(byte: u8) -> bool {
    let live = [b'|', b'&', b'$', b'#', b';', b'\\'];
    live.iter().fold(matches!(byte, b' '..=b'~'), |dull, live| dull & (byte != *live))
}

/// Characters of a text that is shown.
const SHOWN: usize = 300;

/// Any text made fit to be shown on a machine's screen: what is live is taken out of it. For
/// sentences about a fault, which must not be lost because they quote what is wrong.
pub fn shown(text: &str) -> IpxeValue {
    if text.len() <= SHOWN && all(text, |b| b != b' ' && is_dull(b)) {
        return IpxeValue(text.to_string());
    }
    let text: String = text
        .chars()
        .map(|c| if is_printable(c) { c } else { ' ' })
        .filter(|c| !matches!(c, '|' | '&' | '$' | '#' | ';' | '\\'))
        .take(SHOWN)
        .collect();
    IpxeValue(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Neither a control character nor one that has no shape of its own (zero-width, direction marks).
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_live_token_is_refused() {
        for (bad, why) in [
            ("a || shell", Live::Separator("||")),
            ("a||b", Live::Separator("||")),
            ("a && chain http://evil/", Live::Separator("&&")),
            ("a ; shell", Live::Separator(";")),
            ("; shell", Live::Separator(";")),
            ("a #b", Live::Comment("#b".into())),
            ("#", Live::Comment("#".into())),
            ("${net0/mac}", Live::Setting),
            ("a${", Live::Setting),
            ("a\nshell", Live::LineBreak),
            ("a\r\nshell", Live::LineBreak),
            ("a\u{2028}b", Live::LineBreak),
            ("a\\", Live::Continuation),
            ("a\\ ", Live::Continuation),
            ("a\tb", Live::Unprintable('\t')),
            ("a\0b", Live::Unprintable('\0')),
            ("a\x1b[2J", Live::Unprintable('\x1b')),
            ("a\u{202e}b", Live::Unprintable('\u{202e}')),
            (&"a".repeat(LIMIT + 1), Live::TooLong),
        ] {
            assert_eq!(ipxe_value(bad), Err(why), "{bad:?}");
        }
        assert_eq!(ipxe_word("http://a/b c"), Err(Live::Space));
        for good in [
            "autoinstall ds=nocloud;s=http://10.0.0.1/b/ quiet",
            "root=/dev/sda1 a#b $ { } | & --- C:\\x\\y",
            "",
        ] {
            assert_eq!(ipxe_value(good).unwrap().as_str(), good);
        }
    }

    /// iPXE's own reading of a line (`split_command` and `command_terminator` in its core/exec.c).
    fn commands(line: &str) -> usize {
        let mut count = 1;
        for token in line.split([' ', '\t', '\x0b', '\x0c', '\r']).filter(|t| !t.is_empty()) {
            match token {
                "||" | "&&" | ";" => count += 1,
                t if t.starts_with('#') => return count + 100,
                _ => {}
            }
        }
        count
    }

    proptest! {
        #[test]
        fn what_passes_is_one_line_of_one_command(text in "[ a|&;#$\\{\\}\\\\\n\t\r]{0,24}") {
            let two = ipxe_value(&text).and_then(|v| ipxe_line("x", &[&v, &v])).ok();
            for value in [ipxe_value(&text).ok(), Some(shown(&text)), two].into_iter().flatten() {
                let line = format!("echo x {value}");
                prop_assert_eq!(commands(&line), 1);
                let joins = line.contains(['\n', '\r']) || line.ends_with('\\');
                let expands = line.contains("${");
                prop_assert!(!joins && !expands);
            }
        }
    }
}
