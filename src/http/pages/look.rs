//! How each state of a machine looks: a colour, and a sign for whom colours tell nothing.

/// One state.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct Look {
    /// Of [`View::state`](crate::http::View).
    pub word: &'static str,
    /// The class of its tiles, short: two thousand carry it.
    pub class: &'static str,
    pub sign: &'static str,
    pub title: &'static str,
    /// What it means to whoever looks at the page.
    pub means: &'static str,
}

const fn look(
    word: &'static str,
    class: &'static str,
    sign: &'static str,
    title: &'static str,
    means: &'static str,
) -> Look {
    Look { word, class, sign, title, means }
}

/// All of them; what wants a person's eye comes first. The signs are the style sheet's, too.
pub static LOOKS: [Look; 9] = [
    look(
        "failed",
        "f",
        "!",
        "Failed",
        "All attempts failed. It is held, and nothing is wiped again.",
    ),
    look("installing", "i", "I", "Installing", "It is being installed."),
    look(
        "discovered",
        "d",
        "?",
        "Discovered",
        "It showed itself, and waits to be assigned a profile.",
    ),
    look("assigned", "a", "A", "Assigned", "Its next boot from the network installs it."),
    look("rescue", "r", "R", "Rescue", "It gets the rescue system at each start."),
    look("live", "v", "~", "Live", "It runs from the network, and is never installed."),
    look("installed", "o", "✓", "Installed", "It is installed, and boots its own disk."),
    look("local", "l", "L", "Local", "A person sent it to its own disk."),
    look("seen", "s", "·", "Seen", "It was heard of, and nobody has said anything of it."),
];

/// The look of a state; one that is not known is only seen.
pub fn of(word: &str) -> &'static Look {
    LOOKS.iter().find(|l| l.word == word).unwrap_or(&LOOKS[LOOKS.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;

    #[test]
    fn each_state_has_a_look_of_its_own() {
        for state in State::ALL {
            assert_eq!(of(state.word()).word, state.word());
        }
        for (n, look) in LOOKS.iter().enumerate() {
            let same = |l: &&Look| l.class == look.class || l.sign == look.sign;
            assert_eq!(LOOKS.iter().position(|l| same(&l)), Some(n));
        }
        assert_eq!(of("no such").word, "seen");
    }

    #[test]
    fn the_style_sheet_has_the_same_signs() {
        let css = include_str!("../../../assets/dashboard/pilotlight.css");
        for look in &LOOKS {
            let rule =
                format!(".{}::before{{content:\"{}\"/\"{}\"}}", look.class, look.sign, look.word);
            assert!(css.contains(&rule), "no {rule}");
        }
    }
}
