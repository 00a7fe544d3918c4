//! A person's order: files that are fetched now, and how far each of them is.
//!
//! 1. [`Mirrors::wanted`] tells what a profile is made of: kernel, initrds, and what its last
//!    installation asked for.
//! 2. [`Mirrors::bring`] fetches what is not held, and notes in the [`Order`] what became of it.
//! 3. [`Mirrors::report`] shows it, with what is on its way.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{FetchState, Fetched, LEARNED, Mirrors, lock};
use crate::mirror::No;
use crate::mirror::disk::Trouble;
use crate::mirror::evict::Evict;
use crate::mirror::learn::{Asked, FILES, Learned};
use crate::mirror::wire::MirrorPath;
use crate::model::Profile;
use crate::model::profile::Source;
use crate::store::{self, Store};

/// How far one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    Fetching,
    /// It was there before.
    Held,
    Fetched,
    Failed,
}

/// One file of an order.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Line {
    pub mirror: String,
    pub path: String,
    pub state: State,
    /// That are there.
    pub bytes: u64,
    /// Of the whole, where it is known.
    pub total: Option<u64>,
    /// Of a failure, for people.
    pub why: Option<String>,
}

/// An order as the admin door tells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    pub profile: String,
    /// Nothing of it is waited for any more.
    pub over: bool,
    pub files: Vec<Line>,
}

/// Files that were ordered together; more may come while it goes on.
#[derive(Default)]
pub struct Order {
    lines: Mutex<Lines>,
    /// Calls of [`Mirrors::bring`] that have not ended.
    going: AtomicUsize,
}

#[derive(Default)]
struct Lines {
    all: Vec<Line>,
    places: HashMap<Asked, usize>,
}

impl Order {
    pub fn is_over(&self) -> bool {
        self.going.load(Ordering::Acquire) == 0
    }

    /// Takes the files that are not in it, up to 5000 of them.
    fn take(&self, files: Vec<Asked>) -> Vec<Asked> {
        let mut lines = lock(&self.lines);
        let mut new = Vec::new();
        for file in files {
            let next = lines.all.len();
            if next >= FILES || lines.places.contains_key(&file) {
                continue;
            }
            lines.places.insert(file.clone(), next);
            let (mirror, path) = file.clone();
            let state = State::Waiting;
            lines.all.push(Line { mirror, path, state, bytes: 0, total: None, why: None });
            new.push(file);
        }
        new
    }

    fn told(&self, fetched: &Fetched) {
        let mut lines = lock(&self.lines);
        let key = (fetched.mirror.clone(), fetched.path.clone());
        let Some(place) = lines.places.get(&key).copied() else { return };
        let Some(line) = lines.all.get_mut(place) else { return };
        match &fetched.state {
            FetchState::Held(n) => (line.state, line.bytes) = (State::Held, *n),
            FetchState::Fetched(n) => (line.state, line.bytes) = (State::Fetched, *n),
            FetchState::Failed(no) => {
                (line.state, line.why) = (State::Failed, Some(no.to_string()));
                return;
            }
        }
        line.total = Some(line.bytes);
    }

    /// Those of `files` that nothing was told of never came to their turn.
    fn ended(&self, files: HashSet<Asked>) {
        let mut lines = lock(&self.lines);
        for file in files {
            let place = lines.places.get(&file).copied();
            if let Some(line) = place.and_then(|place| lines.all.get_mut(place))
                && line.state == State::Waiting
            {
                (line.state, line.why) = (State::Failed, Some(No::Busy.to_string()));
            }
        }
        drop(lines);
        self.going.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the store has of the last installation of `profile`, where no [`Mirrors`] is open.
///
/// # Errors
/// The store's.
pub fn learned(store: &dyn Store, profile: &str) -> Result<Vec<Asked>, store::Error> {
    let mut learned = Learned::default();
    if let Some(record) = store.get(LEARNED, profile.as_bytes())? {
        learned.read(profile, &record);
    }
    Ok(learned.of(profile).to_vec())
}

/// Files of mirrors that a profile is made of: kernel, initrds, and what was learned; each once.
pub fn wanted(profile: &Profile, learned: &[Asked]) -> Vec<Asked> {
    let declared = profile.sources().filter_map(|source| match source {
        Source::Mirror { mirror, path } => Some((mirror.clone(), path.clone())),
        _ => None,
    });
    let mut seen = HashSet::new();
    declared
        .chain(learned.iter().cloned())
        .map(|(mirror, path)| {
            let plain = MirrorPath::plain(&path).map(|p| p.to_string());
            (mirror, plain.unwrap_or(path))
        })
        .filter(|file| seen.insert(file.clone()))
        .collect()
}

impl Mirrors {
    /// What [`wanted`] says, with what is learned up to now.
    pub fn wanted(&self, profile: &Profile) -> Vec<Asked> {
        wanted(profile, lock(&self.learned).of(&profile.name))
    }

    /// Fetches those of the files that `order` has not had yet.
    pub fn bring(self: &Arc<Self>, order: &Arc<Order>, files: Vec<Asked>) {
        let new = order.take(files);
        if new.is_empty() {
            return;
        }
        order.going.fetch_add(1, Ordering::AcqRel);
        let (me, order) = (self.clone(), order.clone());
        self.handle.spawn(async move {
            let (told, all) = (order.clone(), new.iter().cloned().collect());
            me.fetch_all(new, move |fetched| told.told(fetched)).await;
            order.ended(all);
        });
    }

    pub fn report(&self, profile: &str, order: &Order) -> Report {
        // Before the lines: what has ended by then is told in them.
        let over = order.is_over();
        let flying = self.flying().into_iter();
        let flying: HashMap<Asked, (u64, Option<u64>)> = flying
            .map(|(mirror, path, there, total, _)| ((mirror, path), (there, total)))
            .collect();
        let mut files = lock(&order.lines).all.clone();
        for line in files.iter_mut().filter(|l| l.state == State::Waiting) {
            if let Some(found) = flying.get(&(line.mirror.clone(), line.path.clone())) {
                line.state = State::Fetching;
                (line.bytes, line.total) = *found;
            }
        }
        Report { profile: profile.into(), over, files }
    }

    /// Another process has removed or pinned files: counts again what is there.
    pub fn recount(self: &Arc<Self>) {
        let me = self.clone();
        self.handle.spawn_blocking(move || {
            lock(&me.keeper.needed).pinned.clear();
            *lock(&me.keeper.evict) = Evict::default();
            me.scan();
        });
    }

    /// What is there of the files on their way is taken up again by the next process, however this
    /// one ends. Blocks.
    pub fn settle(&self) {
        let flights: Vec<_> = lock(&self.flights).values().cloned().collect();
        for flight in flights {
            match flight.settle() {
                // It has just come to its end.
                Ok(()) | Err(Trouble::Closed { .. }) => {}
                Err(e) => self.told(&flight.ups.mirror.name, &No::of_disk(&e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::Boot;

    fn file(path: &str) -> Asked {
        ("m".into(), path.into())
    }

    #[test]
    fn a_profile_is_its_kernel_its_initrds_and_what_was_learned() {
        let from = |path: &str| Source::Mirror { mirror: "m".into(), path: path.into() };
        let profile = Profile {
            name: "p".into(),
            title: "p".into(),
            menu: true,
            boot: Boot::linux(
                from("linux"),
                vec![from("./a//initrd"), Source::Url("http://x.example/initrd".into())],
                "",
            ),
            unready: None,
            uefi: None,
            release: None,
            settings: None,
            memory: None,
            answers: Vec::new(),
            console: None,
            vars: serde_json::Map::new(),
            secrets: Default::default(),
            kind: Default::default(),
            timeout: None,
            attempts: None,
            plain_answers: false,
            at: String::new(),
        };
        let learned = [file("x.deb"), file("linux"), file("x.deb")];
        let want = [file("linux"), file("a/initrd"), file("x.deb")];
        assert_eq!(wanted(&profile, &learned), want);
    }

    #[test]
    fn an_order_takes_a_file_once_and_ends_with_all_of_them_told() {
        let order = Order::default();
        assert_eq!(order.take(vec![file("a"), file("b"), file("a")]), [file("a"), file("b")]);
        assert_eq!(order.take(vec![file("b"), file("c")]), [file("c")]);
        order.going.fetch_add(1, Ordering::AcqRel);
        assert!(!order.is_over());
        let fetched = |path: &str, state| Fetched { mirror: "m".into(), path: path.into(), state };
        order.told(&fetched("a", FetchState::Held(3)));
        order.told(&fetched("b", FetchState::Failed(No::Unkept)));
        order.told(&fetched("unknown", FetchState::Fetched(9)));
        order.ended(["a", "b", "c"].map(file).into());
        assert!(order.is_over());
        let lines = lock(&order.lines).all.clone();
        let states: Vec<State> = lines.iter().map(|l| l.state).collect();
        assert_eq!(states, [State::Held, State::Failed, State::Failed]);
        assert_eq!((lines[0].bytes, lines[0].total), (3, Some(3)));
        assert_eq!(lines[1].why, Some(No::Unkept.to_string()));
        assert_eq!(lines[2].why, Some(No::Busy.to_string()), "its turn never came");
        let many = (0..FILES + 5).map(|n| file(&format!("n{n}"))).collect();
        assert_eq!(order.take(many).len(), FILES - 3, "bounded");
    }
}
