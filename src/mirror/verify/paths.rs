//! Paths below a mirror.

/// The longest path, in bytes.
const LIMIT: usize = 1024;

/// A path in its one form: `a/b`, without a slash at either end, `.` or `..`, empty parts and
/// control characters. None: it has no such form, and is no path of a mirror.
pub fn normal(path: &str) -> Option<String> {
    if path.len() > LIMIT || path.chars().any(char::is_control) {
        return None;
    }
    let path = path.strip_prefix("./").unwrap_or(path);
    let bad = path.split('/').any(|part| matches!(part, "" | "." | ".."));
    (!bad).then(|| path.to_string())
}

/// `name` as it is meant in the folder `base`.
pub fn below(base: &str, name: &str) -> Option<String> {
    let name = normal(name)?;
    normal(&join(base, &name))
}

pub fn join(base: &str, name: &str) -> String {
    if base.is_empty() { name.to_string() } else { format!("{base}/{name}") }
}

/// The folder of a path (`""` at the top) and its last part.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The folders above a path, the nearest first, the top (`""`) last.
pub fn above(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let current = rest?;
        if current.is_empty() {
            rest = None;
            return None;
        }
        let folder = split(current).0;
        rest = (!folder.is_empty()).then_some(folder);
        Some(folder)
    })
}
