//! How things look: standard output, the log, and findings of the configuration.

use std::fmt;
use std::io::{self, BufWriter, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::app::{Checked, count, served};
use crate::model::event::plain;

/// The longest line of the log, in characters.
const LINE: usize = 1000;
/// What every terminal has, and what fits on paper, in a ticket and in a mail.
pub const COLUMNS: usize = 80;

/// Everything a command has to say, at once. Colours go out where there is a terminal to show them
/// and `NO_COLOR` does not forbid it.
///
/// # Errors
/// What the system says: a full disk, a pipe that nobody reads any more.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// The same on standard error, where there is nobody left to tell of a failure.
pub fn complain(text: &str) {
    let _ = writeln!(anstream::stderr(), "pilotlight: {text}");
}

/// What a word that is too long for the rest of its line begins the next one with.
const HANGING: usize = 7;

/// Words of `text` in lines of at most [`COLUMNS`] behind `first`, the next ones behind as many
/// spaces. A word that is longer than that, a URL, stays whole, on a line of its own.
pub fn wrap(first: &str, text: &str) -> String {
    let mut indent = first.chars().count();
    let (mut out, mut column) = (first.to_string(), indent);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column == indent && indent > HANGING && indent + length > COLUMNS {
            out.truncate(out.trim_end().len());
            out.push('\n');
            (indent, column) = (HANGING, HANGING);
            out.push_str(&" ".repeat(HANGING));
        }
        if column > indent && column + 1 + length > COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > indent {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

/// Sets up the log on standard error: one line a step, or JSON with every field.
///
/// Lines are written by a thread of their own, all that wait in one system call: a machine does not
/// wait for the journal. None is lost: who writes faster than the journal reads waits at 16,000
/// lines, and what is there is written when the guard is dropped.
pub fn log(json: bool, verbose: bool) -> WorkerGuard {
    // Of others only what is wrong; what cuts a connection is told by whoever cut it.
    let usual = if verbose {
        "warn,actix_http=off,pilotlight=debug"
    } else {
        "warn,actix_http=off,pilotlight=info"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let (lines, guard) = NonBlockingBuilder::default()
        .lossy(false)
        .buffered_lines_limit(16_000)
        .thread_name("log")
        .finish(BufWriter::with_capacity(64 * 1024, io::stderr()));
    // A second set-up in one process (tests) keeps the first.
    let _ = match json {
        true => objects(filter, lines).try_init(),
        false => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(lines)
            .event_format(Lines)
            .finish()
            .try_init(),
    };
    guard
}

/// One JSON object a line: `timestamp`, `level`, `message`, and `mac`, `stage` and what else the
/// event has.
fn objects<W>(filter: EnvFilter, to: W) -> impl Subscriber + Into<tracing::Dispatch>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    use tracing_subscriber::layer::SubscriberExt;
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
    Registry::default().with(filter).with(lines.with_writer(to))
}

/// `2026-11-21T02:40:01.123Z DHCPDISCOVER from 52:54:00:12:34:56 via eth1`
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        // journald has its own clock; a person at a terminal has not.
        let now = jiff::Timestamp::now();
        write!(writer, "{now:.3} ")?;
        let level = *event.metadata().level();
        if level != Level::INFO {
            write!(writer, "{} ", level.as_str().to_lowercase())?;
        }
        // Two machines that boot at once must be told apart in every line.
        let Message { text, mac } = message;
        let who = match mac.is_empty() || mac == "-" || text.contains(&mac) {
            true => String::new(),
            false => format!(" ({mac})"),
        };
        writeln!(writer, "{}{who}", plain(&text, LINE))
    }
}

#[derive(Default)]
struct Message {
    text: String,
    mac: String,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.text = format!("{value:?}"),
            "mac" => self.mac = plain(&format!("{value:?}"), 17),
            _ => {}
        }
    }
}

/// What `check` found.
pub fn findings(checked: &Checked, json: bool) -> String {
    let Checked { config, notes, errors } = checked;
    if json {
        let all = serde_json::json!({
            "good": errors.is_empty(),
            "errors": errors.errors,
            "more": errors.more,
            "notes": notes,
            "serves": config.as_ref().filter(|_| errors.is_empty()).map(|c| served(c)),
        });
        return all.to_string();
    }
    let mut text: String = notes.iter().map(|note| note.picture_of_note(true) + "\n\n").collect();
    let notes = match notes.len() {
        0 => String::new(),
        n => format!(", {}", count(n as u64, "note")),
    };
    if let (true, Some(config)) = (errors.is_empty(), config) {
        let files = match config.sources.len() {
            0 => "The default configuration".into(),
            1 => config.sources[0].display().to_string(),
            n => {
                format!("{} and {}", config.sources[0].display(), count(n as u64 - 1, "more file"))
            }
        };
        text += &format!("{files}: good{notes}.\n");
        for line in served(config) {
            let (of, what) = line.split_at_checked(8).unwrap_or(("", &line));
            text += &wrap(&format!("  {of}"), what);
        }
    } else {
        text += &format!("{}\n\n", errors.picture(true));
        text += &format!("{}{notes}.\n", count(errors.count() as u64, "error"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// What a ledger and a stranger write.
    fn speak() {
        use crate::model::{Event, Mac, Stage};
        let now = jiff::Timestamp::UNIX_EPOCH;
        let event = Event::new(Stage::Firmware, "DHCPDISCOVER", "from\nhere");
        crate::ledger::Ledger::new().record(Mac([2, 0, 0, 0, 0, 1]), event, now);
        tracing::warn!(target: "pilotlight", "\x1b[2Jcareful");
        tracing::info!(target: "actix_server::builder", "starting 2 workers");
    }

    #[test]
    fn a_log_of_objects_has_the_machine_and_its_stage() {
        let kept = Kept::default();
        let to = kept.clone();
        let log = objects(EnvFilter::new("warn,pilotlight=info"), move || to.clone());
        tracing::subscriber::with_default(log, speak);
        let lines: Vec<serde_json::Value> =
            kept.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["mac"], "02:00:00:00:00:01");
        assert_eq!(lines[0]["stage"], "firmware", "as the API writes it");
        assert_eq!(lines[0]["message"], "DHCPDISCOVER from?here");
        assert_eq!((&lines[0]["level"], &lines[1]["level"]), (&"INFO".into(), &"WARN".into()));
    }

    #[test]
    fn a_log_of_lines_has_a_line_a_step_and_moves_no_cursor() {
        let kept = Kept::default();
        let to = kept.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter("warn,pilotlight=info")
            .with_writer(move || to.clone())
            .event_format(Lines)
            .finish();
        tracing::subscriber::with_default(log, speak);
        let text = kept.text();
        let said: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(said, ["DHCPDISCOVER from?here (02:00:00:00:00:01)", "warn ?[2Jcareful"]);
    }

    #[test]
    fn words_are_wrapped_and_urls_stay_whole() {
        let url = format!("http://192.0.2.1/{}", "x".repeat(80));
        let text = wrap("  a  ", &format!("{} {url} end", "word ".repeat(20)));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("  a  word") && lines[1].starts_with("     word"), "{text}");
        assert!(lines.iter().all(|l| l.len() <= COLUMNS || l.trim() == url), "{text}");
    }
}
