//! What a machine boots. Pure: the configuration, the machine's facts and its life in, a decision out.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::{Config, LOCAL_DISK, Unknown};
use crate::model::profile::Kind;
use crate::model::{Facts, Life, Machine, Match, Power, Profile, State, Why, machine};

/// The name that stands for the local disk where a profile's could.
pub const LOCAL: &str = LOCAL_DISK;

/// What the machine asks for beyond saying who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What was chosen in the menu: a profile's name, or [`LOCAL`].
    pub choose: Option<String>,
    /// It has asked by DHCP once more because we told it to (`ipxe/lease.ipxe`).
    pub again: bool,
    /// Whoever asks only pretends to be the machine (`pilotlight rehearse`): nothing of its life
    /// changes, and no secret leaves.
    pub rehearse: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision<'a> {
    /// Kernel and initrds of a profile that installs: an attempt begins.
    Install {
        profile: &'a Profile,
        /// Somebody chose it in the menu.
        chosen: bool,
    },
    /// Those of one that runs from the network.
    Live(&'a Profile),
    Local(Because),
    Menu(Because),
    /// All attempts to install it failed: a message, and its own disk.
    Held,
    /// Its facts are shown until somebody assigns it.
    Discover,
    /// The configuration must be mended first.
    Wait(Because),
    /// The same: there is no profile of this name, which it is to boot.
    Gone(String),
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
    #[error("this machine is installed")]
    Installed,
    #[error("somebody sent this machine to its own disk")]
    Sent,
    #[error("the rescue system's profile is one that installs: it wants kind = \"live\"")]
    NotLive,
    #[error("the menu does not offer what was chosen")]
    NotOffered,
    #[error("it is not armed to be installed: `pilotlight machine reinstall` does that")]
    NotArmed,
    #[error("unknown machines are ignored here ([life] unknown = \"ignore\")")]
    Ignored,
}

impl Why for Because {
    fn name(&self) -> &'static str {
        match self {
            Because::Unknown => "unknown-machine",
            Because::NoProfile => "no-profile",
            Because::Declared => "declared-local",
            Because::Chosen => "chosen",
            Because::Installed => "installed",
            Because::Sent => "sent-to-disk",
            Because::NotLive => "rescue-installs",
            Because::NotOffered => "not-offered",
            Because::NotArmed => "not-armed",
            Because::Ignored => "unknown-ignored",
        }
    }

    fn is_everyday(&self) -> bool {
        *self == Because::Ignored
    }
}

/// The machine as it is declared, or as it was assigned; `None` is one that nobody has said anything
/// of.
pub fn effective<'a>(
    config: &'a Config,
    facts: &Facts,
    life: Option<&Life>,
) -> Option<Cow<'a, Machine>> {
    if let Some(declared) = machine::find(&config.machines, facts) {
        return Some(Cow::Borrowed(declared));
    }
    let life = life.filter(|l| l.state != State::Discovered)?;
    Some(Cow::Owned(Machine {
        name: life.name.clone().unwrap_or_else(|| life.mac.to_string()),
        matches: Match { mac: Some(life.mac.into()), ..Match::default() },
        profile: life.wish.clone(),
        address: None,
        hostname: life.name.clone(),
        loader: None,
        vars: serde_json::Map::new(),
        settings: serde_json::Map::new(),
        secrets: Default::default(),
        power: Power::default(),
    }))
}

/// Whether it gets no word from us: `[life] unknown = "ignore"`.
pub fn is_ignored(config: &Config, facts: &Facts, life: Option<&Life>) -> bool {
    let known = || effective(config, facts, life).is_some();
    config.life.unknown == Unknown::Ignore && !known()
}

/// How many attempts a profile has, and how long each may take.
pub fn limits(config: &Config, profile: Option<&str>) -> (u32, Duration) {
    let profile = profile.and_then(|name| config.profile(name));
    let attempts = profile.and_then(|p| p.attempts).unwrap_or(config.life.attempts);
    let timeout = profile.and_then(|p| p.timeout).unwrap_or(config.life.timeout);
    (attempts, timeout)
}

/// What a machine is installed with again where nobody names a profile: the one that it is declared
/// with, else as before.
pub fn reinstall<'a>(config: &'a Config, facts: &Facts, life: Option<&'a Life>) -> Option<&'a str> {
    let declared = machine::find(&config.machines, facts).and_then(|m| m.profile.as_deref());
    declared.filter(|name| *name != LOCAL).or_else(|| life?.as_before())
}

/// The profile that a declared machine would be installed with, once its life is forgotten: where
/// that life holds it back from being installed again. By what it told of itself, and by the UUID
/// that is stored.
pub fn forgetting_installs<'a>(config: &'a Config, facts: &Facts, life: &Life) -> Option<&'a str> {
    let holds =
        matches!(life.state, State::Installed | State::Failed | State::Local | State::Rescue);
    let facts = Facts { uuid: facts.uuid.clone().or_else(|| life.uuid.clone()), ..facts.clone() };
    machine::find(&config.machines, &facts).filter(|_| holds || life.installed.is_some())?;
    match decide(config, &facts, None, &Ask::default()) {
        Decision::Install { profile, .. } => Some(&profile.name),
        _ => None,
    }
}

/// What this machine boots now.
///
/// A choice comes first, and only what the menu offers can be chosen: otherwise whoever can send a
/// request could read the answers of every machine. Nothing is ever installed on a machine that was
/// installed before, or is held, unless a person armed it; nor on one that nobody declared or
/// assigned and at which nobody chose.
pub fn decide<'a>(
    config: &'a Config,
    facts: &Facts,
    life: Option<&Life>,
    ask: &Ask,
) -> Decision<'a> {
    let state = life.map(|l| l.state);
    let machine = effective(config, facts, life);
    if machine.is_none() && config.life.unknown == Unknown::Ignore {
        return Decision::Refuse(Because::Ignored);
    }
    let armed =
        !matches!(state, Some(State::Installed | State::Failed | State::Local | State::Rescue));
    match ask.choose.as_deref() {
        Some(LOCAL) => return Decision::Local(Because::Chosen),
        Some(name) => {
            return match offered(config).find(|p| p.name == name) {
                None => Decision::Refuse(Because::NotOffered),
                Some(profile) if profile.kind == Kind::Live => Decision::Live(profile),
                Some(_) if !armed => Decision::Refuse(Because::NotArmed),
                Some(profile) => Decision::Install { profile, chosen: true },
            };
        }
        None => {}
    }
    match (state, life.and_then(|l| l.profile.as_deref())) {
        (Some(State::Local), _) => return Decision::Local(Because::Sent),
        (Some(State::Rescue), Some(name)) => {
            return match config.profile(name) {
                Some(profile) if profile.kind == Kind::Live => Decision::Live(profile),
                Some(_) => Decision::Wait(Because::NotLive),
                None => Decision::Gone(name.into()),
            };
        }
        _ => {}
    }
    let wish = life.and_then(|l| l.wish.as_deref());
    let unasked = match &config.life.unknown {
        Unknown::Install(name) if machine::find(&config.machines, facts).is_none() => Some(&**name),
        _ => None,
    };
    let wanted = wish.or(machine.as_ref().and_then(|m| m.profile.as_deref())).or(unasked);
    let profile = wanted.and_then(|name| config.profile(name));
    match (state, profile) {
        (_, Some(profile)) if profile.kind == Kind::Live => Decision::Live(profile),
        (Some(State::Installed), _) => Decision::Local(Because::Installed),
        (Some(State::Failed), _) => held(config),
        (_, Some(profile)) => Decision::Install { profile, chosen: false },
        (_, None) => match wanted {
            Some(LOCAL) => Decision::Local(Because::Declared),
            Some(name) => Decision::Gone(name.into()),
            None if machine::find(&config.machines, facts).is_some() => {
                Decision::Menu(Because::NoProfile)
            }
            None if config.life.unknown == Unknown::Discover => Decision::Discover,
            None => Decision::Menu(Because::Unknown),
        },
    }
}

fn held(config: &Config) -> Decision<'_> {
    let rescue = config.life.rescue.as_deref().filter(|_| config.life.held_rescue);
    let rescue = rescue.and_then(|name| config.profile(name)).filter(|p| p.kind == Kind::Live);
    rescue.map_or(Decision::Held, Decision::Live)
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
    use crate::model::lifecycle::{Change, step};
    use crate::model::{LifeEvent, Mac};
    use jiff::Timestamp;

    fn config(unknown: Unknown) -> Config {
        let (mut open, mut memtest, mut other) =
            (profile("open"), profile("memtest"), profile("other"));
        (open.menu, memtest.menu) = (true, true);
        memtest.kind = Kind::Live;
        other.kind = Kind::Live;
        let mut config = Config {
            profiles: vec![profile("web"), open, memtest, other],
            machines: vec![
                machine("web1", "52:54:00:00:00:01", Some("web")),
                machine("bare", "52:54:00:00:00:02", None),
                machine("disk", "52:54:00:00:00:03", Some("local")),
                machine("lost", "52:54:00:00:00:04", Some("gone")),
                machine("diskless", "52:54:00:00:00:06", Some("other")),
            ]
            .into(),
            ..Config::default()
        };
        config.life.unknown = unknown;
        config
    }

    fn mac(last: &str) -> Mac {
        format!("52:54:00:00:00:{last}").parse().unwrap()
    }

    fn decided(config: &Config, last: &str, life: Option<&Life>, choose: Option<&str>) -> String {
        let ask = Ask { choose: choose.map(str::to_string), ..Ask::default() };
        match decide(config, &Facts::of(mac(last)), life, &ask) {
            Decision::Install { profile, chosen: true } => format!("chosen {}", profile.name),
            Decision::Install { profile, .. } => format!("install {}", profile.name),
            Decision::Live(profile) => format!("live {}", profile.name),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_table_of_decisions_without_a_life() {
        let table = [
            ("01", None, "install web"),
            ("02", None, "Menu(NoProfile)"),
            ("03", None, "Local(Declared)"),
            ("04", None, "Gone(\"gone\")"),
            ("05", None, "Menu(Unknown)"),
            ("06", None, "live other"),
            ("05", Some("open"), "chosen open"),
            ("05", Some("memtest"), "live memtest"),
            ("05", Some("web"), "Refuse(NotOffered)"),
            ("01", Some("web"), "Refuse(NotOffered)"),
            ("05", Some("nothing"), "Refuse(NotOffered)"),
            ("02", Some("open"), "chosen open"),
            ("05", Some("local"), "Local(Chosen)"),
        ];
        for (last, choose, want) in table {
            let got = decided(&config(Unknown::Menu), last, None, choose);
            assert_eq!(got, want, "{last} {choose:?}");
        }
    }

    #[test]
    fn unknown_machines_get_what_the_configuration_says() {
        for (unknown, want, chosen, declared) in [
            (Unknown::Menu, "Menu(Unknown)", "chosen open", "Menu(NoProfile)"),
            (Unknown::Ignore, "Refuse(Ignored)", "Refuse(Ignored)", "Menu(NoProfile)"),
            (Unknown::Discover, "Discover", "chosen open", "Menu(NoProfile)"),
            (Unknown::Install("web".into()), "install web", "chosen open", "Menu(NoProfile)"),
            (Unknown::Install("gone".into()), "Gone(\"gone\")", "chosen open", "Menu(NoProfile)"),
        ] {
            let config = config(unknown);
            let found = stepped(mac("05"), None, LifeEvent::Discover);
            for life in [None, Some(&found)] {
                assert_eq!(decided(&config, "05", life, None), want);
            }
            assert_eq!(decided(&config, "05", None, Some("open")), chosen);
            assert_eq!(decided(&config, "02", None, None), declared);
            let assigned = assigned(mac("05"), "web");
            assert_eq!(decided(&config, "05", Some(&assigned), None), "install web");
        }
    }

    fn stepped(mac: Mac, life: Option<&Life>, event: LifeEvent) -> Life {
        match step(mac, life, event, 3, Timestamp::UNIX_EPOCH).unwrap() {
            Change::To(Some(life)) => *life,
            other => panic!("{other:?}"),
        }
    }

    fn assigned(mac: Mac, profile: &str) -> Life {
        let (name, profile) = (Some("node7".into()), profile.into());
        stepped(mac, None, LifeEvent::Assign { name, profile })
    }

    #[test]
    fn a_life_comes_before_the_declaration() {
        let base = |last: &str, state| Life { state, ..assigned(mac(last), "web") };
        let rescue = |last, profile: &str| {
            stepped(mac(last), None, LifeEvent::Rescue { profile: profile.into() })
        };
        let config = config(Unknown::Menu);
        let installed = |last, wish: Option<&str>| Life {
            wish: wish.map(str::to_string),
            ..base(last, State::Installed)
        };
        let table = [
            (installed("01", None), None, "Local(Installed)"),
            (installed("05", None), None, "Local(Installed)"),
            (installed("01", None), Some("open"), "Refuse(NotArmed)"),
            (installed("01", None), Some("memtest"), "live memtest"),
            // It was installed, and is declared otherwise now: booted each time, wiped never.
            (installed("06", None), None, "live other"),
            (base("01", State::Failed), None, "Held"),
            (base("01", State::Failed), Some("open"), "Refuse(NotArmed)"),
            (base("01", State::Local), None, "Local(Sent)"),
            (base("06", State::Local), None, "Local(Sent)"),
            (base("01", State::Local), Some("open"), "Refuse(NotArmed)"),
            (rescue("01", "other"), None, "live other"),
            (rescue("06", "memtest"), None, "live memtest"),
            (rescue("01", "web"), None, "Wait(NotLive)"),
            (rescue("01", "gone"), None, "Gone(\"gone\")"),
            (base("01", State::Installing), None, "install web"),
            (base("03", State::Assigned), None, "install web"),
            (base("06", State::Assigned), None, "install web"),
            (assigned(mac("05"), "memtest"), None, "live memtest"),
            (assigned(mac("05"), "gone"), None, "Gone(\"gone\")"),
        ];
        for (life, choose, want) in table {
            let last = life.mac.to_string()[15..].to_string();
            assert_eq!(decided(&config, &last, Some(&life), choose), want, "{life:?} {choose:?}");
        }
        let held = base("01", State::Failed);
        let mut rescued = config.clone();
        rescued.life.held_rescue = true;
        for (rescue, want) in [(None, "Held"), (Some("web"), "Held"), (Some("other"), "live other")]
        {
            rescued.life.rescue = rescue.map(str::to_string);
            assert_eq!(decided(&rescued, "01", Some(&held), None), want);
        }
    }

    #[test]
    fn a_reinstall_is_by_the_profile_that_is_declared_now() {
        let config = config(Unknown::Menu);
        let chosen = |last| Life {
            profile: Some("open".into()),
            wish: None,
            state: State::Installed,
            ..assigned(mac(last), "open")
        };
        let (declared, disk, unknown) = (chosen("01"), chosen("03"), chosen("05"));
        let rescued = stepped(mac("05"), None, LifeEvent::Rescue { profile: "memtest".into() });
        for (last, life, want) in [
            ("01", None, Some("web")),
            ("01", Some(&declared), Some("web")),
            ("03", None, None),
            ("03", Some(&disk), Some("open")),
            ("05", None, None),
            ("05", Some(&unknown), Some("open")),
            ("05", Some(&rescued), None),
        ] {
            assert_eq!(reinstall(&config, &Facts::of(mac(last)), life), want, "{last} {life:?}");
        }
    }

    #[test]
    fn each_reason_has_a_name_of_its_own() {
        use Because::*;
        let all = [
            Unknown, NoProfile, Declared, Chosen, Installed, Sent, NotLive, NotOffered, NotArmed,
            Ignored,
        ];
        let names: std::collections::HashSet<_> = all.iter().map(|b| b.name()).collect();
        assert_eq!(names.len(), all.len());
    }
}
