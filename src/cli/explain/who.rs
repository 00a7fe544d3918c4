//! Which `[[machine]]` it is and by what, or why it is none.

use std::cmp::Reverse;

use anyhow::{Context, bail};

use crate::app::count;
use crate::config::{self, Config, Unknown};
use crate::model::event::plain;
use crate::model::{Facts, Mac, Machine, Match, machine};

/// Hex digits out of 12 that two addresses share before one is likely meant for the other: a slip
/// of the hand, or two digits turned round.
const NEAR: usize = 10;

/// The MAC that is meant: as it is written, or that of the `[[machine]]` of this name.
///
/// # Errors
/// Where there is no such machine, or it is not declared by one MAC.
pub fn mac(config: &Config, who: &str) -> anyhow::Result<Mac> {
    if let Ok(mac) = who.parse() {
        return Ok(mac);
    }
    let Some(m) = config.machines.iter().find(|m| m.name == who) else {
        let near = config::nearest(who, config.machines.iter().map(|m| m.name.as_str()));
        let near = near.map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
        bail!(
            "no [[machine]] of the configuration is called {:?}: {near}Give its MAC; one that was \
             named by `machine assign` is shown by `pilotlight machine show`",
            plain(who, 80)
        );
    };
    m.mac().with_context(|| {
        format!(
            "[[machine]] {who} at {} is not declared by one MAC: give that, and what it is \
             recognised by (--uuid, --serial, --vendor)",
            config.place(&format!("machine/{who}"))
        )
    })
}

/// Makes the configuration one whose menu offers this profile to everybody: what of that is pretended.
///
/// # Errors
/// Where there is no such profile.
pub fn choose(config: &mut Config, name: &str) -> anyhow::Result<Vec<String>> {
    let Some(at) = config.profiles.iter().position(|p| p.name == name) else {
        let near = config::nearest(name, config.profiles.iter().map(|p| p.name.as_str()));
        let near = near.map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
        bail!(
            "no [[profile]] of the configuration is called {:?}: {near}A [[media]] is one by its \
             name; one of the catalogue wants [[profile]] name = …, install = …",
            plain(name, 80)
        );
    };
    let mut said = vec![format!("It is told as if profile {name} had been chosen in the menu.")];
    if config.life.unknown == Unknown::Ignore {
        config.life.unknown = Unknown::Menu;
        said.push(
            "In truth one that is not declared gets no answer ([life] unknown = \"ignore\")."
                .into(),
        );
    }
    // The menu shows so many; the one that is asked for is among them.
    let mut profile = config.profiles.remove(at);
    if !std::mem::replace(&mut profile.menu, true) {
        said.push("In truth the menu does not offer it: a [[machine]] names it.".into());
    }
    config.profiles.insert(0, profile);
    Ok(said)
}

pub fn tell(config: &Config, facts: &Facts) -> Vec<String> {
    let place = |m: &Machine| config.place(&format!("machine/{}", m.name));
    if let Some(m) = machine::find(&config.machines, facts) {
        let by = compare(&m.matches, facts).agree.join(", ");
        let mut said = vec![format!("It is [[machine]] {} at {}, by its {by}.", m.name, place(m))];
        if m.matches.serial.is_some() || m.matches.vendor.is_some() {
            said.push(
                "Serial and vendor are known once iPXE has told them; until then it is \
                 recognised by MAC, UUID and architecture alone."
                    .into(),
            );
        }
        return said;
    }
    let nearest = config
        .machines
        .iter()
        .map(|m| (m, compare(&m.matches, facts)))
        .filter(|(_, c)| !c.agree.is_empty() || c.mac_digits >= NEAR)
        // The first of those that are as near as any.
        .min_by_key(|(_, c)| {
            let digits = if c.mac_digits >= NEAR { c.mac_digits } else { 0 };
            (Reverse((digits, c.agree.len())), c.differ.len())
        });
    vec![match (config.machines.len(), nearest) {
        (0, _) => "No [[machine]] is declared, so it is an unknown one.".into(),
        (_, Some((m, c))) => format!(
            "No [[machine]] matches. The nearest is {} at {}, but {}.",
            m.name,
            place(m),
            c.differ.join(", and ")
        ),
        (n, None) => {
            format!("No [[machine]] matches; of {} none comes near.", count(n as u64, "machine"))
        }
    }]
}

/// What of a match agrees with the facts, and what does not.
#[derive(Default)]
struct Compared {
    agree: Vec<&'static str>,
    differ: Vec<String>,
    /// Hex digits of an exact MAC address that are the same.
    mac_digits: usize,
}

fn compare(wanted: &Match, facts: &Facts) -> Compared {
    let mut found = Compared::default();
    if let Some(pattern) = &wanted.mac {
        let digits = |m: Mac| m.0.into_iter().flat_map(|b| [b >> 4, b & 15]);
        let same = |m: Mac| digits(m).zip(digits(facts.mac)).filter(|(a, b)| a == b).count();
        found.mac_digits = pattern.exact().map_or(0, same);
        match pattern.matches(facts.mac) {
            true => found.agree.push("mac"),
            false => found.differ.push(format!("its mac is {pattern}")),
        }
    }
    let texts = [
        ("uuid", &wanted.uuid, &facts.uuid),
        ("serial", &wanted.serial, &facts.serial),
        ("vendor", &wanted.vendor, &facts.manufacturer),
    ];
    for (name, want, have) in texts {
        let Some(want) = want else { continue };
        match have {
            Some(have) if have.trim().eq_ignore_ascii_case(want.trim()) => found.agree.push(name),
            Some(have) => found.differ.push(format!("its {name} is {want:?} and not {have:?}")),
            None => found.differ.push(format!("its {name} is {want:?} (here --{name} tells it)")),
        }
    }
    if let Some(want) = wanted.arch {
        match facts.arch {
            Some(have) if have == want => found.agree.push("arch"),
            have => {
                found.differ.push(format!("its arch is {want} and not {}", have.unwrap_or("known")))
            }
        }
    }
    found
}
