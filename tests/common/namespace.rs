//! Network namespaces that end with the test.

use std::io::{self, Write};
use std::process::Command;

/// Runs the test of this name again where it may make interfaces: in a namespace that ends with
/// it. True if this is that run. Without root the test is left out, and says so, which is a failure
/// where everything is wanted.
pub fn in_a_namespace(test: &str) -> bool {
    if std::env::var_os("PILOTLIGHT_TEST_NAMESPACE").is_some() {
        return true;
    }
    let left_out = |why: &str| left_out(test, why);
    if !nix::unistd::geteuid().is_root() {
        return left_out("only root may make a network namespace");
    }
    let me = std::env::current_exe().unwrap();
    let run = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(["--exact", test, "--nocapture"])
        .env("PILOTLIGHT_TEST_NAMESPACE", "1")
        .output();
    match run {
        Err(e) => left_out(&format!("unshare: {e}")),
        Ok(run) => {
            let (out, err) =
                (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
            assert!(run.status.success(), "{out}\n{err}");
            assert!(out.contains("1 passed"), "the test did run: {out}");
            false
        }
    }
}

/// False, and it says so: a failure where everything is wanted.
pub fn left_out(test: &str, why: &str) -> bool {
    let all = ["CI", "PILOTLIGHT_TESTS_ALL"];
    assert!(all.iter().all(|v| std::env::var_os(v).is_none()), "nothing may be left out: {why}");
    // Past the capture of the test harness: what was left out must be seen.
    let _ = writeln!(io::stderr(), "left out: {test}: {why}");
    false
}

/// `ip …` in this namespace.
pub fn ip(arguments: &str) {
    let run = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(run.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&run.stderr));
}
