//! The answer templates that are compiled in: `answers = { preseed = "builtin:preseed.cfg" }`.
//!
//! All have the same `vars` (locale, keyboard, timezone, disk, user, packages), each with a default,
//! and the secrets `root_password` and `user_password`, hashes of crypt(3), of which one must be
//! there: what nobody can log in to is not installed. Each reports when it is done.

use crate::model::profile::Template;

/// What stands before the name of one.
pub const PREFIX: &str = "builtin:";

const ALL: [(&str, &str); 5] = [
    ("preseed.cfg", include_str!("../../assets/answers/preseed.cfg")),
    ("kickstart.cfg", include_str!("../../assets/answers/kickstart.cfg")),
    ("user-data", include_str!("../../assets/answers/user-data")),
    ("meta-data", include_str!("../../assets/answers/meta-data")),
    ("autoinst.xml", include_str!("../../assets/answers/autoinst.xml")),
];

pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

pub fn get(name: &str) -> Option<Template> {
    let (name, text) = ALL.iter().find(|(n, _)| *n == name)?;
    Some(Template::Builtin { name, text })
}
