//! Windows: its answers are XML, and its script for WinPE is one that cmd can follow.

use std::collections::BTreeSet;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::goldens;
use super::standin::text;

#[test]
fn answers_are_well_formed() {
    for path in goldens("windows", ".autounattend.xml") {
        let (what, xml) = (path.display().to_string(), text(&path));
        let mut reader = Reader::from_str(&xml);
        let (mut depth, mut passes) = (0, Vec::new());
        loop {
            match reader.read_event().unwrap_or_else(|e| panic!("{what}: {e}")) {
                Event::Start(start) => {
                    depth += 1;
                    if start.name().as_ref() == "settings" {
                        let pass = start.try_get_attribute("pass").unwrap().unwrap();
                        passes.push(pass.value.into_owned());
                    }
                }
                Event::End(_) => depth -= 1,
                Event::Eof => break,
                _ => {}
            }
        }
        assert_eq!((depth, passes), (0, vec!["specialize".into(), "oobeSystem".into()]), "{what}");
        // Windows Setup refuses a computer's name that NetBIOS could not have.
        let name = xml.split("<ComputerName>").nth(1).unwrap().split('<').next().unwrap();
        assert!((1..=15).contains(&name.len()), "{what}: {name}");
    }
}

#[test]
fn lines_end_as_windows_wants_them() {
    for ends in [".cmd", ".vbs", ".ini", ".xml"] {
        for path in goldens("windows", ends) {
            let text = text(&path);
            assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{path:?}");
            assert!(text.ends_with("\r\n"), "{path:?}");
        }
    }
}

/// cmd ends a script that goes to a label which is not there, in the middle of whatever it does.
#[test]
fn every_label_that_is_gone_to_is_there() {
    for path in goldens("windows", ".start.cmd") {
        let text = text(&path);
        let lines = || text.lines().filter(|l| !l.starts_with("rem "));
        let labels: Vec<&str> = lines().filter_map(|l| l.strip_prefix(':')).collect();
        let all: BTreeSet<&str> = labels.iter().copied().collect();
        assert_eq!(labels.len(), all.len(), "{path:?}: a label twice");
        let mut gone_to = BTreeSet::new();
        for line in lines() {
            for word in ["goto ", "call :"] {
                let after = line.split(word).skip(1);
                gone_to.extend(after.map(|a| a.split([' ', ')']).next().unwrap()));
            }
            let count = |c| line.matches(c).count();
            let block = line.ends_with(" (") || line == ")";
            assert!(block || count('(') == count(')'), "{path:?}: {line}");
            assert_eq!(count('"') % 2, 0, "{path:?}: {line}");
        }
        assert_eq!(gone_to, all, "{path:?}");
    }
}

/// Who could not report would be installed again and again.
#[test]
fn the_disk_is_touched_after_a_report_came_through_and_one_was_picked() {
    for path in goldens("windows", ".start.cmd") {
        let text = text(&path);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{path:?}: no {what}"));
        if path.to_str().unwrap().contains("asked") {
            assert!(!text.contains("diskpart") && !text.contains("dism"), "{path:?}");
            continue;
        }
        assert!(at("call :say winpe && goto reported") < at("pick.vbs"), "{path:?}");
        assert!(at("if not defined disk (call :fail") < at("diskpart /s"), "{path:?}");
        assert!(at("bcdboot ") < at("call :say done"), "{path:?}");
    }
}
