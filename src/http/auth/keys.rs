//! Tokens, which last, and sessions, which are lost with the process.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::web;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::Visitor;
use super::tries::Tries;
use crate::http::api::Refusal;
use crate::model::Hidden;
use crate::model::event::plain;
use crate::store::{self, Memory, Store, Write};

const TABLE: &str = "token";
/// What a token begins with: who finds one in a log knows what it is.
const PREFIX: &str = "pl_";
/// Characters after that: by which it is found, and which are proved.
const HANDLE: usize = 8;
const SECRET: usize = 24;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Tokens at most.
pub const TOKENS: usize = 100;
/// Characters of a token's name.
const NAME: usize = 40;
/// Sessions at once; the oldest makes room.
const SESSIONS: usize = 1000;
pub const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// When a token was last used is stored this exactly.
const USED: SignedDuration = SignedDuration::from_hours(1);
/// To wait for the others whose tokens are proved.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Serialize, Deserialize)]
struct Token {
    name: String,
    handle: String,
    /// A PHC string of argon2id.
    hash: String,
    created: Timestamp,
    used: Option<Timestamp>,
}

/// A token as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: String,
    pub created: Timestamp,
    pub used: Option<Timestamp>,
}

struct Session {
    token: String,
    since: Timestamp,
}

type Key = [u8; 32];

/// Who may come in, and who has tried.
pub struct Auth {
    store: Arc<dyn Store>,
    tokens: Mutex<BTreeMap<String, Token>>,
    /// One writer at a time: the disk is waited for without `tokens`, which every request needs.
    writing: Mutex<()>,
    /// By SHA-256 of the cookie.
    sessions: Mutex<HashMap<Key, Session>>,
    /// By SHA-256 of the token, once argon2 has proved it: 142 random bits need no more.
    proved: Mutex<HashMap<Key, String>>,
    tries: Mutex<Tries>,
    /// Makes the tokens of forms.
    key: Key,
    /// argon2 takes 19 MiB and a processor: one at a time for each.
    work: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(text: &str) -> Key {
    Sha256::digest(text.as_bytes()).into()
}

/// Compared in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}

fn dice() -> Key {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("Linux has had getrandom(2) since 3.17");
    bytes
}

/// Random characters, each as likely as the others: bytes that would make some likelier are left
/// out.
fn random(length: usize) -> String {
    let fair = 256 - 256 % ALPHABET.len();
    let mut out = String::with_capacity(length);
    while out.len() < length {
        let more = dice().into_iter().map(usize::from).filter(|b| *b < fair);
        out.extend(more.take(length - out.len()).map(|b| char::from(ALPHABET[b % ALPHABET.len()])));
    }
    out
}

impl Auth {
    /// One that forgets.
    pub fn new() -> Auth {
        Auth::with(Arc::new(Memory::default()), BTreeMap::new())
    }

    /// With the tokens that are stored.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn open(store: Arc<dyn Store>) -> Result<Auth, store::Error> {
        let mut tokens = BTreeMap::new();
        for (key, value) in store.list(TABLE)? {
            match serde_json::from_slice::<Token>(&value) {
                Ok(token) => drop(tokens.insert(token.name.clone(), token)),
                Err(e) => {
                    let name = plain(&String::from_utf8_lossy(&key), NAME);
                    tracing::warn!(target: "pilotlight", "the stored token {name} cannot be read, and opens nothing: {e}");
                }
            }
        }
        Ok(Auth::with(store, tokens))
    }

    fn with(store: Arc<dyn Store>, tokens: BTreeMap<String, Token>) -> Auth {
        Auth {
            store,
            tokens: Mutex::new(tokens),
            writing: Mutex::default(),
            sessions: Mutex::default(),
            proved: Mutex::default(),
            tries: Mutex::default(),
            key: dice(),
            work: Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))),
        }
    }

    /// All of them, by name.
    pub fn tokens(&self) -> Vec<Listed> {
        let list = |t: &Token| Listed { name: t.name.clone(), created: t.created, used: t.used };
        lock(&self.tokens).values().map(list).collect()
    }

    /// Makes a token; it is on the disk when this returns, and nobody can read it there. Blocks.
    ///
    /// # Errors
    /// Where the name is none, or taken, or the store takes nothing.
    pub fn make(&self, name: &str, now: Timestamp) -> Result<Hidden, Refusal> {
        let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | '_');
        if name.is_empty() || name.len() > NAME || !name.chars().all(fits) {
            return Err(Refusal::TokenName(plain(name, NAME)));
        }
        let (handle, secret) = (random(HANDLE), random(SECRET));
        let hash = hashed(&secret)?;
        let token = Token { name: name.into(), handle, hash, created: now, used: None };
        let shown = Hidden::new(format!("{PREFIX}{}{secret}", token.handle));
        let _writer = lock(&self.writing);
        let (taken, all) = {
            let tokens = lock(&self.tokens);
            (tokens.contains_key(name), tokens.len())
        };
        if taken {
            return Err(Refusal::TokenTaken(name.into()));
        }
        if all >= TOKENS {
            return Err(Refusal::Tokens(TOKENS));
        }
        self.store.commit(&[Write::put(TABLE, name, json(&token))])?;
        lock(&self.tokens).insert(name.into(), token);
        Ok(shown)
    }

    /// Makes one where there is none, for whoever reads what the server says at its start. Blocks.
    ///
    /// # Errors
    /// As [`Auth::make`].
    pub fn first(&self, now: Timestamp) -> Result<Option<Hidden>, Refusal> {
        if !lock(&self.tokens).is_empty() {
            return Ok(None);
        }
        self.make("first", now).map(Some)
    }

    /// From now on the token opens nothing, nor does any session that was made from it. Blocks.
    ///
    /// # Errors
    /// Where there is no such token, or the store takes nothing.
    pub fn revoke(&self, name: &str) -> Result<(), Refusal> {
        let _writer = lock(&self.writing);
        if !lock(&self.tokens).contains_key(name) {
            return Err(Refusal::NoToken(plain(name, NAME)));
        }
        self.store.commit(&[Write::remove(TABLE, name)])?;
        let mut tokens = lock(&self.tokens);
        tokens.remove(name);
        lock(&self.proved).retain(|_, of| of != name);
        lock(&self.sessions).retain(|_, s| s.token != name);
        Ok(())
    }

    /// The name of a token that is right. What is unknown costs as much as what is wrong.
    ///
    /// # Errors
    /// Where it is wrong, or too many were.
    pub async fn prove(
        &self,
        token: String,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let key = digest(&token);
        let proved = lock(&self.proved).get(&key).cloned();
        if let Some(name) = proved {
            self.used(&name, now);
            return Ok(name);
        }
        lock(&self.tries).begin(from, now).map_err(Refusal::Pause)?;
        let (name, secret, hash) = self.find(&token);
        let place = tokio::time::timeout(PATIENCE, self.work.clone().acquire_owned());
        let place = place.await.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Busy)?;
        let verified = web::block(move || {
            let right = verify(&secret, hash.as_deref());
            drop(place);
            right
        });
        let right = verified.await.map_err(|_| Refusal::Busy)?;
        let name = name.filter(|_| right).ok_or(Refusal::WrongToken)?;
        lock(&self.tries).right(from);
        // It may have been revoked in between.
        let tokens = lock(&self.tokens);
        if !tokens.contains_key(&name) {
            return Err(Refusal::WrongToken);
        }
        lock(&self.proved).insert(key, name.clone());
        drop(tokens);
        self.used(&name, now);
        Ok(name)
    }

    /// The token's name and hash where there is such a one, and what is to be proved.
    fn find(&self, token: &str) -> (Option<String>, String, Option<String>) {
        let rest = token.strip_prefix(PREFIX).unwrap_or("");
        let (handle, secret) = rest.split_at_checked(HANDLE).unwrap_or(("", rest));
        // What is longer than any of ours is cut: argon2 shall not be fed for long.
        let secret: String = secret.chars().take(SECRET + 1).collect();
        let tokens = lock(&self.tokens);
        let found = tokens.values().find(|t| t.handle == handle);
        (found.map(|t| t.name.clone()), secret, found.map(|t| t.hash.clone()))
    }

    fn used(&self, name: &str, now: Timestamp) {
        let mut tokens = lock(&self.tokens);
        let Some(token) = tokens.get_mut(name) else { return };
        if token.used.is_some_and(|then| now.duration_since(then).abs() < USED) {
            return;
        }
        token.used = Some(now);
        let (store, token) = (self.store.clone(), token.clone());
        // Only if it is still there: one that was revoked meanwhile must not come back.
        tokio::task::spawn_blocking(move || {
            let Ok(Some(old)) = store.get(TABLE, token.name.as_bytes()) else { return };
            let write = Write::put(TABLE, token.name.as_str(), json(&token)).expecting(Some(old));
            if let Err(e) = store.commit(&[write]) {
                tracing::debug!(target: "pilotlight", "when a token was used is not stored: {e}");
            }
        });
    }

    /// A new session of a token: what the cookie is to hold.
    pub fn open_session(&self, token: &str, now: Timestamp) -> String {
        let value: String = dice().iter().map(|b| format!("{b:02x}")).collect();
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, s| lives(s, now));
        if sessions.len() >= SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, s)| s.since).map(|(id, _)| *id);
            oldest.and_then(|id| sessions.remove(&id));
        }
        sessions.insert(digest(&value), Session { token: token.into(), since: now });
        value
    }

    /// Who the cookie belongs to.
    pub fn session(&self, value: &str, now: Timestamp) -> Option<Visitor> {
        let id = digest(value);
        let token = self.token_of(&id, now)?;
        Some(Visitor::Session { token, id })
    }

    /// The token of a session that is open. A token can be revoked while somebody logs in with it,
    /// and the session then opens after those of the token were closed.
    fn token_of(&self, id: &Key, now: Timestamp) -> Option<String> {
        let token = lock(&self.sessions).get(id).filter(|s| lives(s, now))?.token.clone();
        lock(&self.tokens).contains_key(&token).then_some(token)
    }

    pub fn close(&self, id: &Key) {
        lock(&self.sessions).remove(id);
    }

    /// Whether somebody who came in is still let in: streams last longer than tokens.
    pub fn still(&self, visitor: &Visitor, now: Timestamp) -> bool {
        match visitor {
            Visitor::Loopback => true,
            Visitor::Token(name) => lock(&self.tokens).contains_key(name),
            Visitor::Session { id, .. } => self.token_of(id, now).is_some(),
            Visitor::Stranger => false,
        }
    }

    /// What forms that are shown to this visitor carry.
    pub fn form_token(&self, visitor: &Visitor) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        match visitor {
            Visitor::Session { id, .. } => mac.update(id),
            Visitor::Token(name) => mac.update(name.as_bytes()),
            Visitor::Loopback => mac.update(b"loopback"),
            Visitor::Stranger => mac.update(b"stranger"),
        }
        mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
    }
}

fn lives(session: &Session, now: Timestamp) -> bool {
    let age = now.duration_since(session.since);
    age < SESSION_LIFE && age > -SESSION_LIFE
}

fn json(token: &Token) -> String {
    serde_json::json!(token).to_string()
}

fn hashed(secret: &str) -> Result<String, Refusal> {
    let hash = Argon2::default().hash_password(secret.as_bytes());
    hash.map(|h| h.to_string()).map_err(|_| Refusal::Busy)
}

/// Whether the secret is that of the hash; without one the same work is done, for nothing.
fn verify(secret: &str, hash: Option<&str>) -> bool {
    static NOBODY: OnceLock<String> = OnceLock::new();
    let known = hash.is_some();
    let hash = hash.unwrap_or_else(|| NOBODY.get_or_init(|| hashed("").unwrap_or_default()));
    let right = PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok());
    right && known
}

impl Default for Auth {
    fn default() -> Self {
        Auth::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[tokio::test]
    async fn a_token_lasts_until_it_is_revoked() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let auth = Auth::open(store.clone()).unwrap();
        let token = auth.first(at(0)).unwrap().unwrap().reveal().to_string();
        assert_eq!(token.len(), PREFIX.len() + HANDLE + SECRET);
        assert_eq!(auth.first(at(0)).unwrap().map(|t| t.reveal().len()), None, "only once");
        assert!(matches!(auth.make("first", at(0)), Err(Refusal::TokenTaken(_))));
        for bad in ["", "a b", "A", "ü", "../x", &"a".repeat(41)] {
            assert!(matches!(auth.make(bad, at(0)), Err(Refusal::TokenName(_))), "{bad}");
        }
        // Another process with the same store.
        let auth = Auth::open(store.clone()).unwrap();
        assert_eq!(auth.prove(token.clone(), FROM, at(1)).await.unwrap(), "first");
        assert_eq!(auth.tokens()[0].used, Some(at(1)));
        let kept = String::from_utf8(store.list(TABLE).unwrap()[0].1.clone()).unwrap();
        assert!(kept.contains("$argon2id$"), "{kept}");
        assert!(!kept.contains(&token[PREFIX.len() + HANDLE..]), "{kept}");
        let cookie = auth.open_session("first", at(1));
        let visitor = auth.session(&cookie, at(2)).unwrap();
        assert!(auth.still(&visitor, at(2)));
        assert_eq!(auth.session(&cookie, at(13 * 3600)), None, "it ends by itself");
        auth.revoke("first").unwrap();
        assert!(!auth.still(&visitor, at(2)));
        assert_eq!(auth.session(&cookie, at(2)), None);
        // Who had proved it just before it was revoked, and whose session opens just after.
        let late = auth.open_session("first", at(2));
        assert_eq!(auth.session(&late, at(2)), None);
        assert!(matches!(auth.prove(token, FROM, at(2)).await, Err(Refusal::WrongToken)));
        assert!(matches!(auth.revoke("first"), Err(Refusal::NoToken(_))));
        assert!(Auth::open(store).unwrap().tokens().is_empty());
    }

    #[tokio::test]
    async fn wrong_ones_are_slowed_down_and_right_ones_that_are_proved_are_not() {
        let auth = Auth::new();
        let token = auth.make("ci", at(0)).unwrap().reveal().to_string();
        auth.prove(token.clone(), FROM, at(0)).await.unwrap();
        let near = format!("{}x", &token[..token.len() - 1]);
        for wrong in ["", "pl_", near.as_str(), "pl_aaaaaaaaé", "x"] {
            let wrong = auth.prove(wrong.into(), FROM, at(0)).await;
            assert!(matches!(wrong, Err(Refusal::WrongToken)));
        }
        let paused = auth.prove("x".into(), FROM, at(1)).await;
        assert!(matches!(paused, Err(Refusal::Pause(59))), "{paused:?}");
        assert_eq!(auth.prove(token, FROM, at(1)).await.unwrap(), "ci");
    }

    #[test]
    fn sessions_and_forms_are_each_their_own() {
        let auth = Auth::new();
        auth.make("a", at(0)).unwrap();
        let (one, two) = (auth.open_session("a", at(0)), auth.open_session("a", at(0)));
        assert_eq!(one.len(), 64);
        let of = |cookie: &str| auth.form_token(&auth.session(cookie, at(0)).unwrap());
        assert_ne!(of(&one), of(&two));
        assert_ne!(of(&one), Auth::new().form_token(&auth.session(&one, at(0)).unwrap()));
        for n in 0..2 * SESSIONS {
            auth.open_session("a", at(n as i64));
        }
        assert_eq!(lock(&auth.sessions).len(), SESSIONS);
    }
}
