//! The running side: one breaker and one HTTP client per model, and what people see of them.

use super::breaker::{Breaker, Moved, Permit};
use super::failure::{Class, Failure};
use super::model::Model;
use super::observe;
use crate::task::Timestamp;
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Changes that nobody has read yet; a slow reader loses the oldest.
const CHANGES_KEPT: usize = 64;
/// First-token times kept per model for the median that `status` shows.
const TIMES_KEPT: usize = 256;

pub struct Models {
    running: HashMap<Arc<str>, Arc<Running>>,
    pub(super) answer_max: usize,
    /// Held to read around every call, to write by a task that may kill its process.
    pub(super) alone: tokio::sync::RwLock<()>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up the HTTP client for model `{model}`: {why}; are the system's CA certificates installed?"
)]
pub struct SetUpError {
    model: String,
    why: String,
}

/// A model's breaker has changed its state.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub at: Timestamp,
    pub model: String,
    pub to: &'static str,
    pub why: String,
}

/// Whether anybody can serve a line-up now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Availability {
    Serves {
        model: Arc<str>,
        first: bool,
    },
    /// Nobody is known to; the next call finds out whether one is back.
    MayBeTried {
        why: String,
    },
    /// `wait`: until the earliest of them may be asked.
    None {
        wait: Duration,
        why: String,
    },
}

#[derive(Clone, Debug, Serialize)]
pub struct ModelView {
    pub name: String,
    pub provider: String,
    pub model: String,
    /// `closed`, `open`, `half-open` or `blocked`.
    pub state: &'static str,
    pub since_ms: u64,
    pub why: Option<String>,
    pub calls: u64,
    pub failed: u64,
    /// Tries of the same model for the same slot after a failed one.
    pub retries: u64,
    /// Slots it was asked for because another model of the line-up could not serve.
    pub fallbacks_to: u64,
    pub first_token_p50_ms: Option<u64>,
    pub last_error: Option<String>,
    /// How long ago that was.
    pub last_error_ms: Option<u64>,
    /// Until a call may be made again; null: it may be now.
    pub next_try_ms: Option<u64>,
    /// Of a blocked model, what to do about it.
    pub help: Option<&'static str>,
}

pub(super) struct Running {
    pub(super) model: Arc<Model>,
    pub(super) client: reqwest::Client,
    breaker: Mutex<Breaker>,
    tally: Mutex<Tally>,
    changes: broadcast::Sender<Change>,
}

#[derive(Default)]
struct Tally {
    calls: u64,
    failed: u64,
    retries: u64,
    fallbacks_to: u64,
    first_token_ms: VecDeque<u64>,
    last_error: Option<(Instant, Class, String)>,
    opened_because: Option<String>,
    /// What blocked it last. Not its last error: calls that were under way then end later.
    blocked_by: Option<Class>,
}

impl Models {
    /// `answer_max`: largest answer that is buffered, bytes.
    pub fn new(models: &[Arc<Model>], answer_max: usize) -> Result<Self, SetUpError> {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let mut clients = HashMap::new();
        let mut running = HashMap::new();
        for model in models {
            // Models of one endpoint share its connections.
            let endpoint = (model.url.as_str(), model.timeouts.connect);
            let client = match clients.get(&endpoint) {
                Some(client) => reqwest::Client::clone(client),
                None => client(model)?,
            };
            clients.insert(endpoint, client.clone());
            let one = Running {
                model: model.clone(),
                client,
                breaker: Mutex::new(Breaker::new(Instant::now())),
                tally: Mutex::default(),
                changes: changes.clone(),
            };
            running.insert(model.name.clone(), Arc::new(one));
        }
        Ok(Models { running, answer_max, alone: tokio::sync::RwLock::new(()), changes })
    }

    pub(super) fn of(&self, model: &Model) -> Option<&Arc<Running>> {
        self.running.get(&model.name)
    }

    /// Looks without asking: no probe is spent.
    pub fn availability(&self, lineup: &[Arc<Model>]) -> Availability {
        let now = Instant::now();
        let mut earliest: Option<(Instant, String)> = None;
        let mut tried = None;
        for (i, model) in lineup.iter().enumerate() {
            let Some(running) = self.of(model) else { continue };
            // Asked apart: a lock in the head of a `match` is held through its arms.
            let (refused, state) = {
                let breaker = running.breaker();
                (breaker.refused_until(now), breaker.view(now).0)
            };
            match refused {
                None if state == "closed" => {
                    return Availability::Serves { model: model.name.clone(), first: i == 0 };
                }
                None => tried = tried.or_else(|| Some(format!("{} {}", model.name, running.sentence(now)))),
                Some(until) if earliest.as_ref().is_none_or(|(e, _)| until < *e) => {
                    earliest = Some((until, format!("{} {}", model.name, running.sentence(now))));
                }
                Some(_) => {}
            }
        }
        if let Some(why) = tried {
            return Availability::MayBeTried { why };
        }
        match earliest {
            Some((until, why)) => Availability::None { wait: until.saturating_duration_since(now), why },
            None => Availability::None { wait: Duration::ZERO, why: "the line-up is empty".to_owned() },
        }
    }

    pub fn view(&self) -> Vec<ModelView> {
        let mut all: Vec<ModelView> = self.running.values().map(|r| r.view(Instant::now())).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

fn client(model: &Model) -> Result<reqwest::Client, SetUpError> {
    reqwest::Client::builder()
        .connect_timeout(model.timeouts.connect)
        // A model's address that redirects is a wrong address; its key goes nowhere else.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| SetUpError { model: model.name.to_string(), why: e.to_string() })
}

impl Running {
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit that is given back when it is dropped unused.
    pub(super) fn permit(self: &Arc<Self>) -> Result<Guard, Duration> {
        let now = Instant::now();
        let (generation, probe) = match self.breaker().permit(now) {
            Permit::Call { generation } => (generation, false),
            Permit::Probe { generation } => (generation, true),
            Permit::Refused { until } => {
                observe::not_permitted(&self.model.name);
                return Err(until.saturating_duration_since(now));
            }
        };
        Ok(Guard { of: self.clone(), generation, probe, used: false })
    }

    fn tell(&self, moved: Option<Moved>) {
        let Some(Moved { to, reason, why }) = moved else { return };
        tracing::warn!(model = %self.model.name, to, reason, "breaker");
        observe::moved(&self.model.name, to, reason);
        self.tally().opened_because = (to != "closed").then(|| why.clone());
        let change = Change { at: Timestamp::now(), model: self.model.name.to_string(), to, why };
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }

    fn view(&self, now: Instant) -> ModelView {
        let breaker = self.breaker();
        let (state, since, why) = breaker.view(now);
        let tally = self.tally();
        let mut times: Vec<u64> = tally.first_token_ms.iter().copied().collect();
        times.sort_unstable();
        let last = tally.last_error.as_ref();
        let blocked_by = tally.blocked_by.filter(|_| state == "blocked");
        ModelView {
            name: self.model.name.to_string(),
            provider: self.model.provider.to_string(),
            model: self.model.model.clone(),
            state,
            since_ms: super::attempt::millis(now.saturating_duration_since(since)),
            why: why.map(str::to_owned).or_else(|| tally.opened_because.clone()),
            calls: tally.calls,
            failed: tally.failed,
            retries: tally.retries,
            fallbacks_to: tally.fallbacks_to,
            first_token_p50_ms: times.get(times.len() / 2).copied(),
            last_error: last.map(|(_, class, detail)| format!("{}: {detail}", class.as_str())),
            last_error_ms: last.map(|(at, ..)| super::attempt::millis(now.saturating_duration_since(*at))),
            next_try_ms: breaker
                .refused_until(now)
                .map(|until| super::attempt::millis(until.saturating_duration_since(now))),
            help: blocked_by.and_then(Class::remedy),
        }
    }

    /// Why it cannot serve, for people: the end of a sentence that begins with its name.
    fn sentence(&self, now: Instant) -> String {
        match self.breaker().view(now) {
            ("blocked", _, Some(why)) => format!("is blocked: {why}"),
            (_, _, Some(why)) => format!("waits: {why}"),
            ("half-open", ..) => "is being tried again".to_owned(),
            _ => "is down".to_owned(),
        }
    }

    pub(super) fn retried(&self, class: Class) {
        self.tally().retries += 1;
        observe::retried(&self.model.name, class);
    }

    pub(super) fn fell_back_here(&self) {
        self.tally().fallbacks_to += 1;
    }
}

/// The right to make one call. Dropped unused (cancelled, panicked), it counts as neither.
pub(super) struct Guard {
    of: Arc<Running>,
    generation: u64,
    pub(super) probe: bool,
    used: bool,
}

impl Guard {
    pub(super) fn answered(mut self, first_token_ms: Option<u64>) {
        self.used = true;
        {
            let mut tally = self.of.tally();
            tally.calls += 1;
            if tally.first_token_ms.len() >= TIMES_KEPT {
                tally.first_token_ms.pop_front();
            }
            tally.first_token_ms.extend(first_token_ms);
        }
        let moved = self.of.breaker().succeeded(self.generation, Instant::now());
        self.of.tell(moved);
    }

    pub(super) fn failed(mut self, failure: &Failure) {
        self.used = true;
        let now = Instant::now();
        {
            let mut tally = self.of.tally();
            tally.calls += 1;
            tally.failed += u64::from(!failure.class.of_the_task() && !failure.ours);
            tally.last_error = Some((now, failure.class, failure.detail.clone()));
        }
        let moved = {
            let mut breaker = self.of.breaker();
            let moved = if failure.class.blocks() {
                let class = failure.class.as_str();
                let why = format!("{class}: {}", failure.detail);
                let moved = breaker.block(self.generation, class, &why, failure.hint, now);
                if moved.is_some() {
                    self.of.tally().blocked_by = Some(failure.class);
                }
                moved
            } else {
                breaker.failed(self.generation, failure.weight(), failure.hint, rand::random(), now)
            };
            breaker.returned(self.generation);
            moved
        };
        self.of.tell(moved);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.used {
            self.of.breaker().returned(self.generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::model::Api;
    use crate::infer::tests::model;

    #[test]
    fn the_help_for_a_blocked_model_is_about_what_blocked_it_whatever_failed_since() {
        let model = model("m", "http://localhost:1/v1", Api::OpenAi);
        let models = Models::new(std::slice::from_ref(&model), 1 << 20).unwrap();
        let running = models.of(&model).unwrap();
        let permit = || running.permit().unwrap_or_else(|wait| panic!("refused for {wait:?}"));
        let (first, under_way) = (permit(), permit());
        first.failed(&Failure::new(Class::Unauthorized, "no such key"));
        under_way.failed(&Failure::new(Class::Timeout, "no first token"));
        let view = running.view(Instant::now());
        assert_eq!((view.state, view.why.as_deref()), ("blocked", Some("unauthorized: no such key")));
        assert_eq!(view.last_error.as_deref(), Some("timeout: no first token"));
        assert_eq!(view.help, Class::Unauthorized.remedy());
    }
}
