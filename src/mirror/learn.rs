//! What an installation of a profile asks for: remembered, so that the next one's files are on
//! their way before it asks. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use jiff::{SignedDuration, Timestamp};

/// Files of one installation.
pub const FILES: usize = 5000;
/// Boots that are listened to at once.
const BOOTS: usize = 2000;
/// Bytes of one record, as the store takes them.
const RECORD: usize = crate::store::VALUE_LIMIT;
/// Bytes that a record unpacks to.
const UNPACKED: u64 = 8 << 20;
/// A boot that asks for nothing for so long is over.
const OVER: SignedDuration = SignedDuration::from_mins(10);

/// A file of a mirror: mirror and path.
pub type Asked = (String, String);

#[derive(Default)]
pub struct Learned {
    profiles: HashMap<String, List>,
    boots: HashMap<String, Boot>,
    /// Tokens, the oldest first.
    order: VecDeque<String>,
}

#[derive(Default)]
struct List {
    files: Vec<Asked>,
    /// The boot that it is of, while that goes on.
    of: Option<(String, Timestamp)>,
}

#[derive(Default)]
struct Boot {
    files: Vec<Asked>,
    seen: HashSet<Asked>,
}

impl Learned {
    /// A boot of `profile` under `token` has asked for a file. True where the profile's list is
    /// another by that.
    pub fn asked(&mut self, token: &str, profile: &str, file: Asked, now: Timestamp) -> bool {
        self.listen(token);
        let Some(boot) = self.boots.get_mut(token) else { return false };
        if boot.files.len() >= FILES || !boot.seen.insert(file.clone()) {
            return false;
        }
        boot.files.push(file.clone());
        let list = self.profiles.entry(profile.to_string()).or_default();
        let (mine, going) = match &list.of {
            Some((of, last)) => (of == token, now.duration_since(*last) < OVER),
            None => (false, false),
        };
        if mine {
            list.files.push(file);
        } else {
            // One that broke off, or is only beginning, knows less than the last that got further.
            let (theirs, known) = (boot.files.len(), list.files.len());
            if (going && theirs <= known) || theirs * 2 < known {
                return false;
            }
            list.files.clone_from(&boot.files);
        }
        list.of = Some((token.to_string(), now));
        true
    }

    fn listen(&mut self, token: &str) {
        if self.boots.contains_key(token) {
            return;
        }
        if self.boots.len() >= BOOTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.boots.remove(&oldest);
        }
        self.order.push_back(token.to_string());
        self.boots.insert(token.to_string(), Boot::default());
    }

    /// What the last installation of `profile` asked for, in its order.
    pub fn of(&self, profile: &str) -> &[Asked] {
        self.profiles.get(profile).map_or(&[], |list| &list.files)
    }

    /// Nothing is known of any profile.
    pub fn is_empty(&self) -> bool {
        self.profiles.is_empty()
    }

    /// Takes a record up again; one that is none is nothing.
    pub fn read(&mut self, profile: &str, record: &[u8]) {
        let mut text = String::new();
        let unpacked = ZlibDecoder::new(record).take(UNPACKED).read_to_string(&mut text);
        if unpacked.is_err() {
            return;
        }
        let pair = |line: &str| {
            let (mirror, path) = line.split_once(' ')?;
            Some((mirror.to_string(), path.to_string()))
        };
        let files: Vec<Asked> = text.lines().filter_map(pair).take(FILES).collect();
        self.profiles.insert(profile.into(), List { files, of: None });
    }
}

/// A profile's list for the store: lines of mirror, space, path, packed; what does not fit is left
/// out at the end.
pub fn record(mut files: &[Asked]) -> Vec<u8> {
    loop {
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
        let lines = files.iter().map(|(mirror, path)| format!("{mirror} {path}\n"));
        // Writing into memory does not fail.
        let _ = packer.write_all(lines.collect::<String>().as_bytes());
        let packed = packer.finish().unwrap_or_default();
        if packed.len() <= RECORD {
            return packed;
        }
        files = &files[..files.len() / 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: usize) -> Asked {
        ("debian".into(), format!("pool/main/p/p{n}.deb"))
    }

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    #[test]
    fn the_last_installation_that_got_far_is_remembered() {
        let mut learned = Learned::default();
        assert!((0..100).all(|n| learned.asked("t1", "d12", file(n), at(0))));
        assert!(!learned.asked("t1", "d12", file(5), at(0)), "again");
        assert_eq!(learned.of("d12").len(), 100);
        for n in 0..60 {
            learned.asked("t2", "d12", file(2000 + n), at(5));
        }
        assert_eq!(learned.of("d12")[0], file(0), "the first is still at it, and further");
        for n in 0..10 {
            learned.asked("t3", "d12", file(1000 + n), at(60));
        }
        assert_eq!(learned.of("d12").len(), 100, "it broke off");
        learned.asked("t2", "d12", file(3000), at(60));
        assert_eq!(learned.of("d12")[0], file(2000), "the newest counts once it is half as far");
        assert_eq!(learned.of("d12").len(), 61);
        assert!(learned.of("other").is_empty());
    }

    #[test]
    fn a_list_is_written_and_read() {
        let mut learned = Learned::default();
        for n in 0..3000 {
            learned.asked("t", "p", file(n), at(0));
        }
        let record = record(learned.of("p"));
        assert!(record.len() <= RECORD);
        let mut again = Learned::default();
        again.read("p", &record);
        assert_eq!(again.of("p"), learned.of("p"));
        again.read("p", b"garbage");
        assert_eq!(again.of("p").len(), 3000);
    }

    #[test]
    fn boots_are_bounded() {
        let mut learned = Learned::default();
        for n in 0..BOOTS + 10 {
            learned.asked(&format!("t{n}"), "p", file(1), at(0));
        }
        assert_eq!(learned.boots.len(), BOOTS);
    }
}
