//! What is wrong with a configuration, and where: for a person as a picture of the line, for a
//! log and an editor as `file:line:column: message (hint)`, for programs as JSON.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::model::event::plain;

/// How many errors are kept; what comes after them is only counted.
pub const ERROR_LIMIT: usize = 100;
/// Characters of a message, a hint or a file name: they quote what the file says.
const TEXT_LIMIT: usize = 400;
/// Characters of a line that a picture shows.
const LINE_LIMIT: usize = 2000;

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// Characters from `column` on that are meant; what goes on in the next line is left out.
    pub width: usize,
    /// The line itself, so that a picture needs no second look at the file.
    text: Arc<str>,
}

impl Place {
    /// A file as a whole: it could not be read.
    pub fn file(file: &Path) -> Place {
        Place { file: file.into(), line: 1, column: 1, width: 0, text: "".into() }
    }

    /// No file at all: the fault is not written anywhere.
    pub fn nowhere() -> Place {
        Place::file(Path::new(""))
    }

    fn is_nowhere(&self) -> bool {
        self.file.as_os_str().is_empty()
    }

    /// A line and column of a file that somebody else has read; `text` is the whole file. Beyond
    /// its end it is the file as a whole.
    pub fn at(file: &Path, text: &str, line: usize, column: usize, width: usize) -> Place {
        let Some(text) = line.checked_sub(1).and_then(|n| text.lines().nth(n)) else {
            return Place::file(file);
        };
        let text: String = text.chars().take(LINE_LIMIT).map(printable).collect();
        Place { file: file.into(), line, column: column.max(1), width, text: text.into() }
    }

    /// Shows stars in these columns, counted from 0.
    pub fn hide(&mut self, columns: &Range<usize>) {
        let star = |(n, c)| if columns.contains(&n) { '*' } else { c };
        self.text = self.text.chars().enumerate().map(star).collect::<String>().into();
    }

    fn name(&self) -> String {
        plain(&self.file.to_string_lossy(), TEXT_LIMIT)
    }

    /// The bytes of `text` that are meant.
    fn bytes(&self) -> Range<usize> {
        let at = |n: usize| self.text.char_indices().nth(n).map_or(self.text.len(), |(i, _)| i);
        at(self.column - 1)..at(self.column - 1 + self.width)
    }

    fn snippet(&self, kind: AnnotationKind, label: &'static str) -> Snippet<'_, Annotation<'_>> {
        let label = (!label.is_empty()).then_some(label);
        Snippet::source(&*self.text)
            .path(self.name())
            .line_start(self.line)
            .annotation(kind.span(self.bytes()).label(label))
    }
}

/// `pilotlight.toml:12:7`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name(), self.line, self.column)
    }
}

/// One thing to tell: an error, or a [`Note`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub place: Place,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The other place of two that do not agree.
    pub first: Option<Place>,
}

/// Something that is allowed and may still surprise.
pub type Note = Finding;

impl Finding {
    /// An empty hint is none.
    pub fn new(place: Place, message: impl AsRef<str>, hint: impl AsRef<str>) -> Finding {
        let hint = plain(hint.as_ref(), TEXT_LIMIT);
        Finding {
            place,
            message: plain(message.as_ref(), TEXT_LIMIT),
            hint: (!hint.is_empty()).then_some(hint),
            first: None,
        }
    }

    /// The picture of an error for a terminal, without a line break at its end.
    pub fn picture(&self, colours: bool) -> String {
        self.draw(Level::ERROR, colours)
    }

    /// The same of a note.
    pub fn picture_of_note(&self, colours: bool) -> String {
        self.draw(Level::WARNING, colours)
    }

    fn draw(&self, level: Level<'_>, colours: bool) -> String {
        let title = level.primary_title(&*self.message);
        let mut group = if self.place.is_nowhere() {
            Group::with_title(title)
        } else if self.place.text.is_empty() {
            let origin = Origin::path(self.place.name());
            title.element(origin.line(self.place.line).char_column(self.place.column))
        } else {
            title.element(self.place.snippet(AnnotationKind::Primary, ""))
        };
        if let Some(first) = &self.first {
            group = group.element(first.snippet(AnnotationKind::Context, "the other place"));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(&**hint));
        }
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

/// `pilotlight.toml:12:7: message (hint)`, on one line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_nowhere() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)?;
        if let Some(first) = &self.first {
            write!(f, "; the other place is {first}")?;
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Finding {}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut out = s.serialize_struct("Finding", 6)?;
        out.serialize_field("file", &self.place.name())?;
        out.serialize_field("line", &self.place.line)?;
        out.serialize_field("column", &self.place.column)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("hint", &self.hint)?;
        out.serialize_field("first", &self.first.as_ref().map(Place::to_string))?;
        out.end()
    }
}

/// Everything that was found, at most [`ERROR_LIMIT`] of it with its words.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Errors {
    pub errors: Vec<Finding>,
    /// How many more there were.
    pub more: usize,
}

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// How many there are, with those that are only counted.
    pub fn count(&self) -> usize {
        self.errors.len() + self.more
    }

    pub fn is_full(&self) -> bool {
        self.errors.len() >= ERROR_LIMIT
    }

    pub fn push(&mut self, finding: Finding) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.errors.push(finding);
        }
    }

    /// All the pictures, a blank line between them.
    pub fn picture(&self, colours: bool) -> String {
        let all: Vec<String> = self.errors.iter().map(|e| e.picture(colours)).collect();
        all.join("\n\n") + &self.rest()
    }

    fn rest(&self) -> String {
        match self.more {
            0 => String::new(),
            n => format!("\n… and {n} more"),
        }
    }
}

/// One line each.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.errors.iter().map(Finding::to_string).collect();
        write!(f, "{}{}", all.join("\n"), self.rest())
    }
}

impl std::error::Error for Errors {}

/// A file's text with the beginnings of its lines, to tell places from offsets.
pub struct Source<'a> {
    pub path: Arc<Path>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub fn new(path: &Path, text: &'a str) -> Source<'a> {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Source { path: path.into(), text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The place of a range of bytes. A range outside the text, or one that cuts a character, is
    /// taken as far as it makes sense.
    pub fn place(&self, span: Range<usize>) -> Place {
        let line = self.starts.partition_point(|s| *s <= span.start).max(1);
        let start = self.starts[line - 1];
        let end = self.starts.get(line).map_or(self.text.len(), |next| next - 1);
        let text = self.text.get(start..end).unwrap_or_default().trim_end_matches('\r');
        let before = |at: usize| text.char_indices().take_while(|(i, _)| start + i < at).count();
        let column = before(span.start);
        Place {
            file: self.path.clone(),
            line,
            column: column + 1,
            width: before(span.end).saturating_sub(column),
            text: text.chars().take(LINE_LIMIT).map(printable).collect::<String>().into(),
        }
    }
}

impl Source<'_> {
    /// The lines of a range of bytes, each with the columns of it, from 0, as far as pictures show
    /// them.
    pub fn columns(&self, span: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let first = self.starts.partition_point(|s| *s <= span.start).max(1);
        let lines = (first..=self.starts.len()).take_while({
            let end = span.end;
            move |line| self.starts[line - 1] < end
        });
        lines.map(move |line| {
            let start = self.starts[line - 1];
            let text = self.text.get(start..).unwrap_or_default();
            let shown = || text.char_indices().take(LINE_LIMIT);
            let before = |at: usize| shown().take_while(|(i, _)| start + i < at).count();
            (line, before(span.start)..before(span.end))
        })
    }
}

/// A terminal is not to be moved by what a file holds. One character stays one: columns count.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) => '?',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_from_one() {
        let text = "a = 1\nö = \"é\"\n";
        let place = Source::new(Path::new("x.toml"), text).place(11..15);
        assert_eq!(place.to_string(), "x.toml:2:5");
        assert_eq!(place.width, 3);
        assert_eq!(&place.text[place.bytes()], "\"é\"");
    }

    #[test]
    fn a_line_that_somebody_else_counted() {
        let place = Place::at(Path::new("a.cfg"), "one\n  {{ a.b }}\n", 2, 6, 3);
        assert_eq!(&place.text[place.bytes()], "a.b");
        let picture = Finding::new(place, "no such variable", "").picture(false);
        assert!(picture.contains("--> a.cfg:2:6") && picture.contains("     ^^^"), "{picture}");
        assert_eq!(Place::at(Path::new("a.cfg"), "one", 9, 1, 1).to_string(), "a.cfg:1:1");
    }

    #[test]
    fn what_is_written_nowhere_names_no_file() {
        let finding = Finding::new(Place::nowhere(), "no loaders", "bring some");
        assert_eq!(finding.to_string(), "no loaders (bring some)");
        assert_eq!(finding.picture(false), "error: no loaders\n |\n = help: bring some");
    }

    #[test]
    fn a_range_beyond_the_text_is_its_end() {
        let text = "a = [\n1,\n";
        let source = Source::new(Path::new("x.toml"), text);
        assert_eq!(source.place(90..99).to_string(), "x.toml:3:1");
        assert_eq!(source.place(4..8).width, 1, "only what is on the first line");
    }

    #[test]
    fn a_line_as_long_as_the_file_is_cut() {
        let text = "x".repeat(1 << 20);
        let place = Source::new(Path::new("x.toml"), &text).place((1 << 20) - 2..1 << 20);
        assert_eq!(place.column, (1 << 20) - 1);
        assert_eq!(place.text.len(), LINE_LIMIT);
        assert!(Finding::new(place, "wrong", "").picture(false).len() < 2 * LINE_LIMIT);
    }

    #[test]
    fn what_comes_after_the_limit_is_counted() {
        let mut errors = Errors::default();
        for _ in 0..ERROR_LIMIT + 3 {
            errors.push(Finding::new(Place::file(Path::new("x.toml")), "wrong", ""));
        }
        assert_eq!((errors.errors.len(), errors.more), (ERROR_LIMIT, 3));
        assert!(errors.to_string().ends_with("\n… and 3 more"));
    }

    #[test]
    fn a_file_moves_no_cursor_and_colours_come_only_when_asked() {
        let source = Source::new(Path::new("a\nb.toml"), "a = \x1b[2J\n");
        let finding = Finding::new(source.place(4..5), "no \x1b value", "write one");
        assert_eq!(finding.to_string(), "a?b.toml:1:5: no ? value (write one)");
        assert!(!finding.picture(false).contains('\x1b'));
        assert!(finding.picture(true).contains("\x1b["));
    }
}
