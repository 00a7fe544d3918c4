//! What happens to a machine while it boots: one entry of its timeline.

use std::borrow::Cow;

use jiff::Timestamp;

/// The stages of a boot in the order in which a machine goes through them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
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
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    pub stage: Stage,
    #[serde(deserialize_with = "word")]
    pub what: Word,
    pub detail: String,
    /// Of an entry that tells how a file left (`sent`, `cut`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
}

/// A word of the field; by this name serde does not take it for something borrowed.
type Word = &'static str;

/// The words that a stored timeline is read with.
const WORDS: [&str; 27] = [
    "DHCPDISCOVER",
    "DHCPOFFER",
    "DHCPREQUEST",
    "DHCPACK",
    "DHCPNAK",
    "DHCPDECLINE",
    "DHCPRELEASE",
    "DHCPINFORM",
    "RA",
    "TFTP",
    "TLS",
    "GET",
    "HEAD",
    "sent",
    "cut",
    "refused",
    "report",
    "life",
    "alarm",
    "discovered",
    "assigned",
    "installing",
    "installed",
    "failed",
    "local",
    "rescue",
    "forgotten",
];

/// One of another version is still an entry.
fn word<'de, D: serde::Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    let word: String = serde::Deserialize::deserialize(from)?;
    Ok(WORDS.into_iter().find(|w| *w == word).unwrap_or("noted"))
}

/// One entry of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    pub at: Timestamp,
    #[serde(flatten)]
    pub event: Event,
}

/// How a file was sent, or how far.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transfer {
    /// The file, as `detail` names it.
    pub name: String,
    /// Bytes that have left.
    pub sent: u64,
    /// Bytes that were asked for.
    pub total: u64,
    /// Milliseconds from the first byte to the last.
    pub millis: u64,
}

/// The longest detail that is kept, in characters: names come from the network.
pub const DETAIL_LIMIT: usize = 300;

impl Event {
    pub fn new(stage: Stage, what: &'static str, detail: impl Into<String>) -> Event {
        let detail = detail.into();
        let detail =
            if fits(&detail, DETAIL_LIMIT) { detail } else { plain(&detail, DETAIL_LIMIT) };
        Event { stage, what, detail, transfer: None }
    }

    pub fn with(self, transfer: Transfer) -> Event {
        Event { transfer: Some(transfer), ..self }
    }

    /// How a file left: `sent`, or `cut` where some of it did not.
    pub fn of(stage: Stage, transfer: Transfer) -> Event {
        let Transfer { name, sent, total, .. } = &transfer;
        let seconds = transfer.seconds();
        let (what, detail) = if sent >= total {
            let (total, rate) = (size(*total), size(transfer.rate()));
            ("sent", format!("{name} ({total} in {seconds:.2} s, {rate}/s)"))
        } else {
            let (sent, total) = (size(*sent), size(*total));
            ("cut", format!("{name} (after {sent} of {total}, {seconds:.1} s)"))
        };
        Event::new(stage, what, detail).with(transfer)
    }
}

impl Transfer {
    fn seconds(&self) -> f64 {
        self.millis as f64 / 1000.0
    }

    /// Bytes a second; what took no time to measure took a millisecond.
    pub fn rate(&self) -> u64 {
        (self.sent as f64 / self.seconds().max(0.001)) as u64
    }
}

/// Nearly every text is plain ASCII and short, and nothing is to be done about it.
fn fits(text: &str, limit: usize) -> bool {
    text.len() <= limit && text.bytes().fold(true, |all, b| all & matches!(b, b' '..=b'~'))
}

/// A text from the network made fit for a log, a terminal and a page: control characters (line
/// breaks, ANSI escapes) and all that is not printable become `?`, and it ends at `limit`
/// characters.
pub fn plain(text: &str, limit: usize) -> String {
    plainly(text, limit).into_owned()
}

/// The same, copied only where something is to be done about it.
pub fn plainly(text: &str, limit: usize) -> Cow<'_, str> {
    if fits(text, limit) {
        return text.into();
    }
    let mut out: String = text
        .chars()
        .take(limit)
        .map(|c| if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) { '?' } else { c })
        .collect();
    if text.chars().nth(limit).is_some() {
        out.push('…');
    }
    out.into()
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
    fn an_entry_is_read_as_it_was_written() {
        let transfer = Transfer { name: "initrd.gz".into(), sent: 410, total: 1000, millis: 1500 };
        let event = Event::of(Stage::Initrd, transfer);
        assert_eq!(event.detail, "initrd.gz (after 410 bytes of 1.00 kB, 1.5 s)");
        let entry = Entry { at: Timestamp::UNIX_EPOCH, event };
        let text = serde_json::json!(entry).to_string();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
        let later = text.replace("\"cut\"", "\"teleported\"");
        assert_eq!(serde_json::from_str::<Entry>(&later).unwrap().event.what, "noted");
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
