//! What a machine boots. Pure: the configuration and the machine's facts in, a decision out.

use crate::config::{Config, LOCAL_DISK};
use crate::model::{Facts, Machine, Profile, Why, machine};

/// The name that stands for the local disk where a profile's could.
pub const LOCAL: &str = LOCAL_DISK;

/// What the machine asks for beyond saying who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What was chosen in the menu: a profile's name, or [`LOCAL`].
    pub choose: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision<'a> {
    /// The kernel and initrds of a profile. An undeclared machine gets one by choosing it.
    Install {
        machine: Option<&'a Machine>,
        profile: &'a Profile,
    },
    Local(Because),
    Menu(Because),
    /// The configuration must be mended first.
    Wait(Because),
    Refuse(Because),
}

/// Why it was decided so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Because {
    #[error("no declared machine matches")]
    Unknown,
    #[error("declared without a profile")]
    NoProfile,
    #[error("declared to boot from it")]
    Declared,
    #[error("chosen in the menu")]
    Chosen,
    #[error("the profile it is declared with does not exist")]
    ProfileGone,
    #[error("the menu does not offer what was chosen")]
    NotOffered,
}

impl Why for Because {
    fn name(&self) -> &'static str {
        match self {
            Because::Unknown => "unknown-machine",
            Because::NoProfile => "no-profile",
            Because::Declared => "declared-local",
            Because::Chosen => "chosen",
            Because::ProfileGone => "profile-gone",
            Because::NotOffered => "not-offered",
        }
    }
}

/// What this machine boots now.
///
/// A choice comes first, and only what the menu offers can be chosen: otherwise whoever can send a
/// request could read the answers of every machine. Nothing is ever installed on a machine that is
/// not declared and at which nobody chose.
pub fn decide<'a>(config: &'a Config, facts: &Facts, ask: &Ask) -> Decision<'a> {
    let machine = machine::find(&config.machines, facts);
    match ask.choose.as_deref() {
        Some(LOCAL) => return Decision::Local(Because::Chosen),
        Some(name) => {
            let offered = offered(config).find(|p| p.name == name);
            return offered.map_or(Decision::Refuse(Because::NotOffered), |profile| {
                Decision::Install { machine, profile }
            });
        }
        None => {}
    }
    let Some(declared) = machine else { return Decision::Menu(Because::Unknown) };
    let Some(name) = &declared.profile else { return Decision::Menu(Because::NoProfile) };
    match config.profile(name) {
        Some(profile) => Decision::Install { machine, profile },
        None if name == LOCAL => Decision::Local(Because::Declared),
        None => Decision::Wait(Because::ProfileGone),
    }
}

/// The profiles that the menu offers, in the order of the configuration.
pub fn offered(config: &Config) -> impl Iterator<Item = &Profile> {
    config.profiles.iter().filter(|p| p.menu).take(MENU_LIMIT)
}

/// Profiles in a menu; beyond that nobody finds anything.
const MENU_LIMIT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::render::tests::{machine, profile};

    #[test]
    fn a_table_of_decisions() {
        let mut open = profile("open");
        open.menu = true;
        let config = Config {
            profiles: vec![profile("web"), open],
            machines: vec![
                machine("web1", "52:54:00:00:00:01", Some("web")),
                machine("bare", "52:54:00:00:00:02", None),
                machine("disk", "52:54:00:00:00:03", Some("local")),
                machine("lost", "52:54:00:00:00:04", Some("gone")),
            ]
            .into(),
            ..Config::default()
        };
        use Because::*;
        let table = [
            ("01", None, "install web for web1"),
            ("02", None, "Menu(NoProfile)"),
            ("03", None, "Local(Declared)"),
            ("04", None, "Wait(ProfileGone)"),
            ("05", None, "Menu(Unknown)"),
            ("05", Some("open"), "install open"),
            ("05", Some("web"), "Refuse(NotOffered)"),
            ("01", Some("web"), "Refuse(NotOffered)"),
            ("05", Some("nothing"), "Refuse(NotOffered)"),
            ("02", Some("open"), "install open for bare"),
            ("05", Some("local"), "Local(Chosen)"),
        ];
        for (last, choose, want) in table {
            let facts = Facts::of(format!("52:54:00:00:00:{last}").parse().unwrap());
            let ask = Ask { choose: choose.map(str::to_string) };
            let got = match decide(&config, &facts, &ask) {
                Decision::Install { machine: Some(m), profile } => {
                    format!("install {} for {}", profile.name, m.name)
                }
                Decision::Install { machine: None, profile } => format!("install {}", profile.name),
                other => format!("{other:?}"),
            };
            assert_eq!(got, want, "{last} {choose:?}");
        }
        let all = [Unknown, NoProfile, Declared, Chosen, ProfileGone, NotOffered];
        let names: std::collections::HashSet<_> = all.iter().map(|b| b.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
