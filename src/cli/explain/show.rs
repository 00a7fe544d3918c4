//! How a tale is laid out: for a person in 80 columns, for programs as JSON.

use std::fmt::Write as _;

use serde_json::json;

use crate::cli::output::{COLUMNS, wrap};
use crate::model::{Firmware, Mac};

/// A machine's boot, told.
pub struct Tale {
    pub mac: Mac,
    pub arch: &'static Firmware,
    /// Which machine it is, and what is taken for granted.
    pub about: Vec<String>,
    pub steps: Vec<Step>,
}

/// One step of the boot.
pub struct Step {
    pub title: String,
    pub said: Vec<String>,
    pub fields: Vec<Field>,
    pub script: Option<String>,
}

/// A name and a value; of a DHCP option its number, too.
#[derive(serde::Serialize)]
pub struct Field {
    pub option: Option<u8>,
    pub name: String,
    pub value: String,
}

impl Step {
    pub fn new(title: impl Into<String>) -> Step {
        Step { title: title.into(), said: Vec::new(), fields: Vec::new(), script: None }
    }
}

/// Columns of a field's name.
const NAME: usize = 28;
/// What stands before a line of a script, and before what is left of one that was too long.
const LINE: (&str, &str) = ("   | ", "   : ");

pub fn text(tale: &Tale) -> String {
    let (arch, code) = (tale.arch, tale.arch.code);
    let mut out = format!("{}, {arch} (option 93: {code})\n", tale.mac);
    for said in &tale.about {
        out += &wrap("  ", said);
    }
    for (i, step) in tale.steps.iter().enumerate() {
        let _ = write!(out, "\n{}", wrap(&format!("{}. ", i + 1), &step.title));
        for said in &step.said {
            out += &wrap("   ", said);
        }
        for field in &step.fields {
            let name = match field.option {
                Some(code) => format!("{} ({code})", field.name),
                None => field.name.clone(),
            };
            out += &wrap(&format!("     {name:<NAME$}"), &field.value);
        }
        for line in step.script.iter().flat_map(|s| s.lines()) {
            fold(&mut out, line);
        }
    }
    out
}

/// A line of a script as it is, in as many lines as it needs.
fn fold(out: &mut String, line: &str) {
    let mut rest: Vec<char> = line.chars().collect();
    let mut before = LINE.0;
    loop {
        let room = COLUMNS - before.len();
        let tail = rest.split_off(rest.len().min(room));
        let text: String = rest.into_iter().collect();
        let _ = writeln!(out, "{}", format!("{before}{text}").trim_end());
        if tail.is_empty() {
            return;
        }
        (rest, before) = (tail, LINE.1);
    }
}

pub fn json(tale: &Tale) -> String {
    let step = |s: &Step| json!({ "step": s.title, "said": s.said, "fields": s.fields, "script": s.script });
    json!({
        "mac": tale.mac,
        "arch": tale.arch.name,
        "about": tale.about,
        "steps": tale.steps.iter().map(step).collect::<Vec<_>>(),
    })
    .to_string()
}
