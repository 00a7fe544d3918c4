//! The templates of `assets/dashboard/`, filled. All that is filled in goes through [`escape`],
//! whatever it is and wherever it came from: names, facts and reports are the network's word.

use std::io::{self, Write};
use std::sync::LazyLock;

use serde::Serialize;
use tera::{Context, Tera};

use super::super::error::No;

macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../assets/dashboard/", $name)))
    };
}

const TEMPLATES: [(&str, &str); 23] = [
    template!("base.html"),
    template!("tile.html"),
    template!("fleet.html"),
    template!("counts.html"),
    template!("installs.html"),
    template!("notices.html"),
    template!("machine.html"),
    template!("state.html"),
    template!("facts.html"),
    template!("timeline.html"),
    template!("boot.html"),
    template!("boot-end.html"),
    template!("diagnosis.html"),
    template!("confirm.html"),
    template!("said.html"),
    template!("script.html"),
    template!("leases.html"),
    template!("lease-list.html"),
    template!("mirrors.html"),
    template!("mirror-list.html"),
    template!("alarms.html"),
    template!("login.html"),
    template!("error.html"),
];

/// An instance of its own: those of scripts and answers escape nothing.
static PAGES: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::new();
    // Every name ends with this.
    tera.autoescape_on([""]);
    tera.set_escape_fn(escape);
    tera.add_raw_templates(TEMPLATES).expect("the tests parse these very templates");
    tera
});

/// A page, or a part of one.
///
/// # Errors
/// [`No::Page`], where a template wants what it is not given.
pub fn fill(template: &str, with: &impl Serialize) -> Result<String, No> {
    let context = Context::from_serialize(with).map_err(|e| No::Page(e.to_string()))?;
    PAGES.render(template, &context).map_err(|e| No::Page(e.to_string()))
}

/// Text as text: neither markup nor an attribute's end can be made of it, and nothing in it moves
/// what stands around it (control characters, and those that turn the direction of writing).
pub fn escape(text: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let with = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&#39;",
            '`' => "&#96;",
            c if moves(c) => "\u{fffd}",
            _ => continue,
        };
        out.write_all(&text.as_bytes()[from..at])?;
        out.write_all(with.as_bytes())?;
        from = at + c.len_utf8();
    }
    out.write_all(&text.as_bytes()[from..])
}

/// Unicode's bidirectional controls (UAX #9 section 2), its invisible separators, and all control
/// characters.
fn moves(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = Vec::new();
        escape(text, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("<b a=\"'`&>"), "&lt;b a=&quot;&#39;&#96;&amp;&gt;");
        assert_eq!(
            escaped("a\x1b[2J\nb\u{202e}c\u{2066}d"),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}c\u{fffd}d"
        );
        assert_eq!(escaped("Zürich 4 — ok"), "Zürich 4 — ok");
    }

    #[test]
    fn every_template_is_there_and_escapes() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/dashboard");
        let of = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
        let files = std::fs::read_dir(dir).unwrap().map(of).map(|n| n.into_string().unwrap());
        let mut files: Vec<String> = files.filter(|n| n.ends_with(".html")).collect();
        files.sort();
        let mut named: Vec<&str> = TEMPLATES.iter().map(|(name, _)| *name).collect();
        named.sort();
        assert_eq!(files, named);
        for (name, text) in TEMPLATES {
            for never in
                ["| safe", "|safe", "style=", "onclick", "hx-on", "js:", "<style", "autoescape"]
            {
                assert!(!text.contains(never), "{name}: {never}");
            }
        }
        assert!(PAGES.get_template_names().count() >= TEMPLATES.len());
    }
}
