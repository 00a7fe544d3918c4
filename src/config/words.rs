//! What a single text of the configuration may be: names, hosts, URLs, paths in a folder.
//!
//! Each check gives the value or a message with its hint; none knows of places.

use crate::model::profile::Source;

use super::walk::quoted;

/// What is wrong, and what to do.
pub type Wrong = (String, String);

/// Characters of a name: it becomes a part of URLs and of file names.
const NAME_LIMIT: usize = 64;
/// Characters of a title: a line of an 80 column screen has room for less.
pub const TITLE_LIMIT: usize = 100;
/// Characters of any other line. The kernel's own limit on its arguments is 2048 on x86.
pub const LINE_LIMIT: usize = 4096;

fn wrong<T>(message: String, hint: impl Into<String>) -> Result<T, Wrong> {
    Err((message, hint.into()))
}

/// A name of the user's own: letters, digits, `.`, `_` and `-`.
pub fn name<'a>(what: &str, text: &'a str) -> Result<&'a str, Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    // Only dots would be a folder's own name, or its parent's.
    if (1..=NAME_LIMIT).contains(&text.len())
        && text.bytes().all(plain)
        && !text.bytes().all(|b| b == b'.')
    {
        return Ok(text);
    }
    wrong(
        format!("{} cannot be the name of {what}", quoted(text)),
        format!("a name has 1 to {NAME_LIMIT} letters, digits, \".\", \"_\" and \"-\""),
    )
}

/// One line: no line break, no other control character than a tab, at most `limit` characters.
pub fn line<'a>(what: &str, text: &'a str, limit: usize) -> Result<&'a str, Wrong> {
    if text.contains(['\n', '\r']) {
        let hint = "write it on one line; inside \"\"\" a backslash at the end of a line joins it \
                    with the next";
        return wrong(format!("{what} holds a line break"), hint);
    }
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\t') {
        return wrong(format!("{what} holds the control character U+{:04X}", c as u32), "");
    }
    let length = text.chars().count();
    if length > limit {
        let message = format!("{what} has {length} characters");
        return wrong(message, format!("there is room for {limit}"));
    }
    Ok(text)
}

/// A line that goes into an iPXE script as it is. Scripts have no quoting: these are live wherever
/// they stand.
pub fn script_line<'a>(what: &str, text: &'a str, limit: usize) -> Result<&'a str, Wrong> {
    let text = line(what, text, limit)?;
    let live = ["${", "||", "&&", ";"].into_iter().find(|live| text.contains(live));
    let comment = text.split_whitespace().any(|token| token.starts_with('#')).then_some("#");
    match live.or(comment) {
        Some(live) => wrong(
            format!("{what} holds \"{live}\""),
            "an iPXE script would act on it, and has no way to quote it",
        ),
        None => Ok(text),
    }
}

/// Whether a template names a variable in a tag of its own, `{{ … }}` or `{% … %}`. In quotes or
/// behind a dot it is something else's.
pub fn names_in_tags(template: &str, variable: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '"' | '\'' | '`');
    let tags =
        template.split('{').filter(|t| t.starts_with('%')).chain(template.split("{{").skip(1));
    tags.map(|tag| tag.split(['}']).next().unwrap_or("")).any(|tag| {
        tag.match_indices(variable).any(|(at, _)| {
            let after = tag[at + variable.len()..].chars().next();
            !tag[..at].ends_with(inside) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
}

/// An interface's name: Linux's IFNAMSIZ is 16 bytes with the NUL (`dev_valid_name`).
pub fn interface(text: &str) -> Result<&str, Wrong> {
    if !(1..=15).contains(&text.len())
        || matches!(text, "." | "..")
        || text.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
    {
        let message = format!("{} cannot be an interface", quoted(text));
        return wrong(message, "a name has 1 to 15 bytes, without \"/\", \":\" and spaces");
    }
    Ok(text)
}

/// A host or domain name (RFC 1123 section 2.1).
pub fn host<'a>(what: &str, text: &'a str) -> Result<&'a str, Wrong> {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text);
    }
    wrong(
        format!("{} is no {what}", quoted(text)),
        "a name has parts of 1 to 63 letters, digits and \"-\", with dots between them",
    )
}

/// `ttyS0`, `ttyAMA0,115200`, `hvc0`, `ttyS1,9600n8r`: the kernel's `console=`
/// (serial-console.rst).
pub fn console(text: &str) -> Result<&str, Wrong> {
    let (device, speed) = match text.split_once(',') {
        Some((device, speed)) => (device, Some(speed)),
        None => (text, None),
    };
    let number = device.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let kind = &device[..device.len() - number.len()];
    let is_device = (kind == "hvc" || (kind.starts_with("tty") && kind.len() <= 10))
        && (1..=3).contains(&number.len())
        && number.bytes().all(|b| b.is_ascii_digit());
    if is_device && speed.is_none_or(is_speed) {
        return Ok(text);
    }
    let hint = "write the device and, if you like, its speed: \"ttyS0\", \"ttyS0,115200\" or \
                \"ttyAMA0\"";
    wrong(format!("{} is no console", quoted(text)), hint)
}

/// `115200`, then parity, data bits and flow control where they are given: `115200n8r`.
fn is_speed(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.len() - rest.len();
    let options = rest.as_bytes();
    (1..=7).contains(&digits)
        && options.first().is_none_or(|b| matches!(b, b'n' | b'o' | b'e'))
        && options.get(1).is_none_or(|b| matches!(b, b'5'..=b'8'))
        && options.get(2).is_none_or(|b| *b == b'r')
        && options.len() <= 3
}

/// A relative path that means no other than itself. `whole` is what it was written in.
pub fn plain_path<'a>(what: &str, path: &'a str, whole: &str) -> Result<&'a str, Wrong> {
    let path = line(what, path, LINE_LIMIT)?;
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\\') {
        return wrong(
            format!("{what} is no plain path: {}", quoted(whole)),
            "leave out \"..\", \".\", \"//\", \"\\\", and a \"/\" at its beginning or its end",
        );
    }
    Ok(path)
}

/// Bytes: `50 GB`, `1.5TB`, `512 MiB`. kB, MB, GB and TB count by 1000, KiB, MiB, GiB and TiB by
/// 1024; `None` where it is no such text, or one beyond 64 bits.
pub fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u128); 9] = [
        ("b", 1),
        ("kb", 1000),
        ("mb", 1000 * 1000),
        ("gb", 1000 * 1000 * 1000),
        ("tb", 1000 * 1000 * 1000 * 1000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number);
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || whole.len() > 18 || part.len() > 6 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
    let parts = whole.parse::<u128>().ok()? * scale + part.parse::<u128>().ok()?;
    u64::try_from(parts * unit / scale).ok()
}

/// Bytes in the largest unit that leaves a whole number: `50 GB`.
pub fn say_bytes(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} B"),
    }
}

/// A kernel or an initrd: `NAME/path` or a URL. Whether the name is that of a folder or of a mirror
/// is not known yet: it is a folder's here.
pub fn source(key: &str, text: &str) -> Result<Source, Wrong> {
    match text.split_once("://") {
        Some((scheme, rest)) => url(key, text, scheme, rest),
        None => ours(key, text),
    }
}

/// Only what a URL must have; iPXE reads the rest. User, password and port are allowed.
fn url(key: &str, text: &str, scheme: &str, rest: &str) -> Result<Source, Wrong> {
    const HINT: &str = "write http://HOST/PATH or https://HOST/PATH";
    if !matches!(scheme, "http" | "https") {
        return wrong(format!("`{key}` cannot come by {}", quoted(scheme)), HINT);
    }
    script_line(&format!("`{key}`"), text, LINE_LIMIT)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((six, after)) if six.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", after),
        Some(_) => ("", ""),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let port_fits = |p: &str| {
        p.is_empty() || p.strip_prefix(':').is_some_and(|p| matches!(p.parse(), Ok(1u16..)))
    };
    if host.is_empty() || !host.bytes().all(plain) || !port_fits(port) {
        return wrong(format!("`{key}` names no host: {}", quoted(text)), HINT);
    }
    if text.contains(char::is_whitespace) {
        return wrong(format!("`{key}` holds a space: {}", quoted(text)), "write %20");
    }
    Ok(Source::Url(text.to_string()))
}

fn ours(key: &str, text: &str) -> Result<Source, Wrong> {
    const HINT: &str =
        "write NAME/path, with the name of a [[files]] or a [[mirror]] in front, or a URL";
    let text = line(&format!("`{key}`"), text, LINE_LIMIT)?;
    let (folder, path) = match text.split_once('/') {
        Some((folder, path)) if !folder.is_empty() && !path.is_empty() => (folder, path),
        _ => return wrong(format!("`{key}` names no file in a folder: {}", quoted(text)), HINT),
    };
    plain_path(&format!("`{key}`"), path, text)?;
    Ok(Source::Ours { folder: folder.to_string(), path: path.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_are_those_of_the_kernel() {
        for good in ["ttyS0", "ttyS0,115200", "ttyAMA0", "hvc0", "tty1", "ttyS1,9600n8r"] {
            assert_eq!(console(good), Ok(good));
        }
        for bad in
            ["", "ttyS", "S0", "ttyS0,", "ttyS0,fast", "ttyS0,9600x8", "ttyS0 quiet", "é0", "0"]
        {
            assert!(console(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_have_a_scheme_of_ipxe_and_a_host() {
        for good in [
            "http://deb.example/linux",
            "https://u:p@10.0.0.1:8080/a?b=c",
            "http://[2001:db8::1]:80/k",
            "http://h",
        ] {
            assert_eq!(source("kernel", good), Ok(Source::Url(good.into())), "{good}");
        }
        for bad in [
            "tftp://h/x",
            "http:///x",
            "http://h:0/x",
            "http://h:99999/",
            "http://[::g]/x",
            "http://a b/",
            "http://h/a b",
            "http://h/${net0/mac}",
            "http://h/a;b",
        ] {
            assert!(source("kernel", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_stays_in_its_folder() {
        let ours = Source::Ours { folder: "d".into(), path: "a/linux".into() };
        assert_eq!(source("kernel", "d/a/linux"), Ok(ours));
        for bad in ["linux", "/linux", "d/", "d/../x", "d/a//b", "d/./x", "d/a\\b", "d/a\nb", ""] {
            assert!(source("kernel", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary_as_they_say() {
        for (text, bytes_) in [
            ("50 GB", 50_000_000_000),
            ("50GB", 50_000_000_000),
            ("1.5 tb", 1_500_000_000_000),
            ("0.5 MiB", 524_288),
            ("1 GiB", 1 << 30),
            ("0 B", 0),
            ("12 kB", 12_000),
        ] {
            assert_eq!(bytes(text), Some(bytes_), "{text}");
        }
        for bad in [
            "",
            "50",
            "GB",
            "50 GBs",
            "-1 GB",
            "1,5 GB",
            "1.GB",
            ".5 GB",
            "1.2.3 GB",
            "5 gigabytes",
            "99999999999 TB",
            "1e3 MB",
            "１ GB",
            " 1 GB",
            "1 GB ",
        ] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        for say in ["50 GB", "1 TB", "1500 MB", "999 B", "1024 B", "0 B"] {
            assert_eq!(say_bytes(bytes(say).unwrap()), say);
        }
    }

    #[test]
    fn nothing_live_gets_into_a_script() {
        assert!(script_line("it", "Debian & friends, C# too", TITLE_LIMIT).is_ok());
        for bad in ["a || b", "a && b", "a;b", "${x}", "Lab #3", "a\nb", "a\x1bb"] {
            assert!(script_line("it", bad, TITLE_LIMIT).is_err(), "{bad}");
        }
    }
}
