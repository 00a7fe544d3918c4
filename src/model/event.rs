//! What happens to a machine while it boots: one entry of its timeline.

/// The stages of a boot in the order in which a machine goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The firmware's own DHCP.
    Firmware,
    /// The loader, by TFTP or HTTP.
    Loader,
    /// iPXE's DHCP.
    Ipxe,
    /// `autoexec.ipxe` and the machine's own script.
    Script,
    Kernel,
    Initrd,
    Answer,
    /// What the booted system itself said or fetched.
    System,
}

impl Stage {
    /// As the API has it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Firmware => "firmware",
            Stage::Loader => "loader",
            Stage::Ipxe => "ipxe",
            Stage::Script => "script",
            Stage::Kernel => "kernel",
            Stage::Initrd => "initrd",
            Stage::Answer => "answer",
            Stage::System => "system",
        }
    }
}

/// One entry of a timeline. `what` is a word of the field (`DHCPDISCOVER`, `RRQ`, `GET`), `detail`
/// is for a person.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Event {
    pub stage: Stage,
    pub what: &'static str,
    pub detail: String,
}

/// The longest detail that is kept, in characters: names come from the network.
pub const DETAIL_LIMIT: usize = 300;

impl Event {
    pub fn new(stage: Stage, what: &'static str, detail: impl Into<String>) -> Event {
        let detail = detail.into();
        let detail =
            if fits(&detail, DETAIL_LIMIT) { detail } else { plain(&detail, DETAIL_LIMIT) };
        Event { stage, what, detail }
    }
}

/// Nearly every text is plain ASCII and short, and nothing is to be done about it.
fn fits(text: &str, limit: usize) -> bool {
    text.len() <= limit && text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// A text from the network made fit for a log, a terminal and a page: control characters (line
/// breaks, ANSI escapes) and all that is not printable become `?`, and it ends at `limit`
/// characters.
pub fn plain(text: &str, limit: usize) -> String {
    if fits(text, limit) {
        return text.to_string();
    }
    let mut out: String = text
        .chars()
        .take(limit)
        .map(|c| if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) { '?' } else { c })
        .collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out
}

/// A reason to stay silent, to refuse or to fall back. `name` is the key it is counted under, and
/// the `Display` of the same value is the sentence that the log and the pages show.
pub trait Why: std::fmt::Display {
    fn name(&self) -> &'static str;

    /// Whether a healthy network does this all day (desktops that renew their leases, hosts that
    /// look for a router): counted, and logged only where more is asked for.
    fn is_everyday(&self) -> bool {
        false
    }
}

/// A number of bytes as people read it, in decimal units, three digits: `296 kB`, `8.22 MB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 999.5 {
            let digits = match unit {
                "bytes" => 0,
                _ if value < 9.995 => 2,
                _ if value < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_one_word() {
        use Stage::*;
        for stage in [Firmware, Loader, Ipxe, Script, Kernel, Initrd, Answer, System] {
            assert_eq!(serde_json::json!(stage), stage.word());
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1_000, "1.00 kB"),
            (296_448, "296 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (8_222_656, "8.22 MB"),
            (41_000_000_000, "41.0 GB"),
            (u64::MAX, "18446744.07 TB"),
        ];
        for (bytes, shown) in table {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn nothing_from_the_network_moves_a_cursor() {
        assert_eq!(plain("a\x1b[2Jb\nc", 10), "a?[2Jb?c");
        assert_eq!(plain("abcdef", 3), "abc…");
    }
}
