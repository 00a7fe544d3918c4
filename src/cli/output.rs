//! How things look: the log, and findings of the configuration.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::report::{Errors, Finding};
use crate::model::event::plain;

/// The longest line of the log, in characters.
const LINE: usize = 1000;

/// Sets up the log on standard error: one line a step, or JSON with every field.
pub fn log(json: bool, verbose: bool) {
    let usual = if verbose { "info,pilotlight=debug" } else { "warn,pilotlight=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second set-up in one process (tests) keeps the first.
    let _ = match json {
        true => base.json().flatten_event(true).with_target(false).try_init(),
        false => base.event_format(Lines).try_init(),
    };
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
        let mut message = Message(String::new());
        event.record(&mut message);
        // journald has its own clock; a person at a terminal has not.
        let now = jiff::Timestamp::now();
        write!(writer, "{now:.3} ")?;
        let level = *event.metadata().level();
        if level != Level::INFO {
            write!(writer, "{} ", level.as_str().to_lowercase())?;
        }
        writeln!(writer, "{}", plain(&message.0, LINE))
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// What `check` found.
pub fn findings(notes: &[Finding], errors: &Errors, json: bool) {
    if json {
        let all = serde_json::json!({ "errors": errors, "notes": notes });
        anstream::println!("{all}");
        return;
    }
    let colours = std::io::stdout().is_terminal();
    for note in notes {
        anstream::println!("{}", note.picture_of_note(colours));
    }
    match errors.is_empty() {
        true => anstream::println!("The configuration is good."),
        false => anstream::println!("{}", errors.picture(colours)),
    }
}
