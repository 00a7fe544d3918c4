//! Sends what is to be told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use super::decide::{Next, PAUSES, next, told};
use super::wire::{ID, SIGNATURE, signature};
use crate::config::{Config, Webhook};
use crate::ledger::{Ledger, News};
use crate::model::event::plain;
use crate::model::{Facts, Hidden, Mac, Secret, machine};

/// Reads a secret where the configuration says it is.
pub type Reader = Box<dyn Fn(&Secret) -> Result<Hidden, String> + Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between the tries of one event.
    pub pauses: [Duration; 4],
    /// For one try, from the connection to the answer.
    pub timeout: Duration,
    /// Events that wait, of all webhooks.
    pub queue: usize,
    /// Tries at once.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { pauses: PAUSES, timeout: Duration::from_secs(10), queue: 1000, at_once: 8 }
    }
}

/// What has become of events, counted.
#[derive(Debug, Default)]
pub struct Counts {
    pub sent: AtomicU64,
    /// Given up after the last try, or refused.
    pub failed: AtomicU64,
    /// Dropped, since too many waited.
    pub dropped: AtomicU64,
}

/// Ends when it is dropped.
pub struct Running {
    listener: JoinHandle<()>,
    pub counts: Arc<Counts>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

struct Hooks {
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    secrets: Reader,
    /// Made with the first try: it reads all the roots that the system trusts.
    client: OnceLock<reqwest::Client>,
    limits: Limits,
    places: Semaphore,
    queues: Mutex<Queues>,
    counts: Arc<Counts>,
}

/// What waits behind what is being sent, by URL and machine.
type Queues = HashMap<Key, VecDeque<Job>>;
type Key = (String, Option<Mac>);

struct Job {
    hook: Webhook,
    id: String,
    body: Bytes,
}

/// Listens from now on; which webhooks there are is looked up for each event. To be called inside
/// a tokio runtime.
pub fn start(
    config: Arc<ArcSwap<Config>>,
    ledger: Arc<Ledger>,
    secrets: Reader,
    limits: Limits,
) -> Running {
    let counts = Arc::new(Counts::default());
    let mut news = ledger.turns();
    let hooks = Arc::new(Hooks {
        config,
        ledger,
        secrets,
        client: OnceLock::new(),
        limits,
        places: Semaphore::new(limits.at_once),
        queues: Mutex::default(),
        counts: counts.clone(),
    });
    let listener = tokio::spawn(async move {
        loop {
            match news.recv().await {
                Ok(news) => hooks.tell(&news),
                Err(RecvError::Lagged(missed)) => {
                    hooks.dropped(missed, "too much happened at once")
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
    Running { listener, counts }
}

impl Hooks {
    fn tell(self: &Arc<Self>, news: &News) {
        let config = self.config.load();
        if config.webhooks.is_empty() {
            return;
        }
        let name = |mac| {
            let facts = self.ledger.facts(mac).unwrap_or_else(|| Facts::of(mac));
            machine::find(&config.machines, &facts).map(|m| m.name.clone())
        };
        let Some((kind, mac, body)) = told(news, name) else { return };
        let body = Bytes::from(serde_json::json!(body).to_string());
        for hook in config.webhooks.iter().filter(|h| h.events.contains(&kind)) {
            let job = Job { hook: hook.clone(), id: id(), body: body.clone() };
            self.queue((hook.url.clone(), mac), job);
        }
    }

    fn queue(self: &Arc<Self>, key: Key, job: Job) {
        let mut queues = self.queues();
        if queues.len() + queues.values().map(VecDeque::len).sum::<usize>() >= self.limits.queue {
            drop(queues);
            return self.dropped(1, "too many wait to be sent");
        }
        if let Some(waiting) = queues.get_mut(&key) {
            waiting.push_back(job);
            return;
        }
        queues.insert(key.clone(), VecDeque::new());
        drop(queues);
        let hooks = self.clone();
        tokio::spawn(async move {
            let mut job = Some(job);
            while let Some(this) = job {
                hooks.deliver(this).await;
                job = hooks.after(&key);
            }
        });
    }

    /// What comes after what was sent; its queue is gone with the last.
    fn after(&self, key: &Key) -> Option<Job> {
        let mut queues = self.queues();
        let job = queues.get_mut(key).and_then(VecDeque::pop_front);
        if job.is_none() {
            queues.remove(key);
        }
        job
    }

    async fn deliver(&self, job: Job) {
        let mut number = 0;
        loop {
            let tried = match self.places.acquire().await {
                Ok(_place) => self.try_once(&job).await,
                Err(_) => return,
            };
            let status = tried.as_ref().ok().copied();
            match next(number, status, &self.limits.pauses) {
                Next::Done => {
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Next::Again(pause) => tokio::time::sleep(pause).await,
                Next::GiveUp => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    let why = match tried {
                        Ok(status) => format!("it answers {status}"),
                        Err(why) => why,
                    };
                    let host = host(&job.hook);
                    let text = format!("the webhook at {host} was not told: {why}");
                    self.ledger.alarm("webhook-failed", &host, text, Timestamp::now());
                    return;
                }
            }
            number += 1;
        }
    }

    fn client(&self) -> Result<&reqwest::Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = reqwest::Client::builder()
            .user_agent(concat!("pilotlight/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .timeout(self.limits.timeout)
            .build()
            .map_err(|e| plain(&trouble(&e), 200))?;
        Ok(self.client.get_or_init(|| made))
    }

    /// The status that a try was answered by.
    async fn try_once(&self, job: &Job) -> Result<u16, String> {
        let mut request = self
            .client()?
            .post(&job.hook.url)
            .header("content-type", "application/json")
            .header(ID, &job.id)
            .body(job.body.clone());
        if let Some(secret) = &job.hook.secret {
            let secret = (self.secrets)(secret)?;
            let now = Timestamp::now().as_second();
            request = request.header(SIGNATURE, signature(secret.reveal(), now, &job.body));
        }
        // The URL may be a secret of its own.
        let answer = request.send().await.map_err(|e| plain(&trouble(&e.without_url()), 200))?;
        Ok(answer.status().as_u16())
    }

    fn dropped(&self, events: u64, why: &str) {
        self.counts.dropped.fetch_add(events, Ordering::Relaxed);
        let text = format!("webhooks were not told of all that has happened: {why}");
        self.ledger.alarm("webhook-dropped", "webhooks", text, Timestamp::now());
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last cause says most.
fn trouble(e: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = e;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// What may be shown of a webhook's URL.
fn host(hook: &Webhook) -> String {
    let url = reqwest::Url::parse(&hook.url).ok();
    url.and_then(|u| u.host_str().map(str::to_string)).unwrap_or_else(|| "?".into())
}

fn id() -> String {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("Linux has had getrandom(2) since 3.17");
    format!("{:032x}", u128::from_be_bytes(bits))
}
