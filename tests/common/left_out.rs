//! What a test says that lacks a tool.

use std::io::{self, Write};

/// Says so: a failure where everything is wanted.
pub fn left_out(test: &str, why: &str) {
    let all = ["CI", "PILOTLIGHT_TESTS_ALL"];
    assert!(all.iter().all(|v| std::env::var_os(v).is_none()), "nothing may be left out: {why}");
    // Past the capture of the test harness: what was left out must be seen.
    let _ = writeln!(io::stderr(), "left out: {test}: {why}");
}
