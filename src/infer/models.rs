//! The running side: one breaker and one HTTP client per model, and what people see of them.

use super::breaker::{Breaker, Moved, Permit};
use super::failure::{Failure, Weight};
use super::model::Model;
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
    /// `wait`: until the earliest of them may be asked.
    None {
        wait: Duration,
        why: String,
    },
}

impl Availability {
    /// Why nobody can, if nobody can.
    pub fn unavailable(self) -> Option<String> {
        match self {
            Availability::None { why, .. } => Some(why),
            Availability::Serves { .. } => None,
        }
    }
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
    pub fallbacks_to: u64,
    pub first_token_p50_ms: Option<u64>,
    pub last_error: Option<String>,
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
    fallbacks_to: u64,
    first_token_ms: VecDeque<u64>,
    last_error: Option<String>,
    opened_because: Option<String>,
}

impl Models {
    /// `answer_max`: largest answer that is buffered, bytes.
    pub fn new(models: &[Arc<Model>], answer_max: usize) -> Result<Self, SetUpError> {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        let mut running = HashMap::new();
        for model in models {
            let client = reqwest::Client::builder()
                .connect_timeout(model.timeouts.connect)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|e| SetUpError { model: model.name.to_string(), why: e.to_string() })?;
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
        for (i, model) in lineup.iter().enumerate() {
            let Some(running) = self.of(model) else { continue };
            // Asked apart: a lock in the head of a `match` is held through its arms.
            let refused = running.breaker().refused_until(now);
            match refused {
                None => return Availability::Serves { model: model.name.clone(), first: i == 0 },
                Some(until) if earliest.as_ref().is_none_or(|(e, _)| until < *e) => {
                    earliest = Some((until, format!("{} is {}", model.name, running.breaker().view().0)));
                }
                Some(_) => {}
            }
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
            Permit::Refused { until } => return Err(until.saturating_duration_since(now)),
        };
        Ok(Guard { of: self.clone(), generation, probe, used: false })
    }

    fn tell(&self, moved: Option<Moved>) {
        let Some(Moved { to, why }) = moved else { return };
        tracing::warn!(model = %self.model.name, to, why, "breaker");
        metrics::counter!("tidegate_breaker_transitions_total", "model" => self.model.name.to_string(), "to" => to)
            .increment(1);
        self.tally().opened_because = (to != "closed").then(|| why.clone());
        let change = Change { at: Timestamp::now(), model: self.model.name.to_string(), to, why };
        // Nobody listening is fine.
        let _ = self.changes.send(change);
    }

    fn view(&self, now: Instant) -> ModelView {
        let breaker = self.breaker();
        let (state, since, why) = breaker.view();
        let tally = self.tally();
        let mut times: Vec<u64> = tally.first_token_ms.iter().copied().collect();
        times.sort_unstable();
        ModelView {
            name: self.model.name.to_string(),
            provider: self.model.provider.to_string(),
            model: self.model.model.clone(),
            state,
            since_ms: super::attempt::millis(now.saturating_duration_since(since)),
            why: why.map(str::to_owned).or_else(|| tally.opened_because.clone()),
            calls: tally.calls,
            failed: tally.failed,
            fallbacks_to: tally.fallbacks_to,
            first_token_p50_ms: times.get(times.len() / 2).copied(),
            last_error: tally.last_error.clone(),
        }
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
        let weight = failure.class.weight(failure.hint.is_some());
        {
            let mut tally = self.of.tally();
            tally.calls += 1;
            tally.failed += u64::from(weight != Weight::Ignored || failure.class.blocks());
            tally.last_error = Some(format!("{}: {}", failure.class.as_str(), failure.detail));
        }
        let now = Instant::now();
        if failure.class.blocks() {
            let why = format!("{}: {}", failure.class.as_str(), failure.detail);
            let moved = self.of.breaker().block(&why, failure.hint, now);
            self.of.tell(Some(moved));
            return;
        }
        let draw: f64 = rand::random();
        let moved = {
            let mut breaker = self.of.breaker();
            let moved = breaker.failed(self.generation, weight, failure.hint, draw, now);
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
