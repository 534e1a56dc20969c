//! Many tasks at once: bounds on what is in flight, holding a kind whose models are all away,
//! drain and shutdown. What happens to one task is `pipeline.rs`.

use crate::consume::Kinds;
use crate::engine::{Commit, Completion, Delivery, Engine, Event, Group};
use crate::infer::Models;
use crate::pipeline::{Done, Pipeline};
use crate::settings::Settings;
use crate::task::{Position, Topic};
use crate::write::Counted;
use futures::FutureExt as _;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often the line-ups are looked at. Well below `HOLD_AFTER`, and cheap: a few locks per kind.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A kind is held once no model of its line-up has been available for this long; shorter gaps are
/// ridden out in place (`design/model-calls.md`, "Pause consumption").
const HOLD_AFTER: Duration = Duration::from_secs(2);

/// Positions of tasks that broke off; more than a person looks at are counted by the metric alone.
const BROKEN_MAX: usize = 100;

/// What runs and what is held, for `status` and the API.
#[derive(Clone, Default)]
pub struct View {
    held: Arc<RwLock<Vec<Held>>>,
    broken: Arc<RwLock<Vec<Position>>>,
}

/// A topic that is not read now.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Held {
    pub topic: String,
    pub kinds: Vec<String>,
    pub why: String,
}

impl View {
    pub fn held(&self) -> Vec<Held> {
        self.held.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Records whose work broke off by a panic: they stay open, and are tried again after a restart.
    pub fn broken(&self) -> Vec<Position> {
        self.broken.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Sees to it that a panic is told, whoever else would have heard of it.
    async fn watch(&self, at: Position, work: impl Future<Output = ()>) {
        if AssertUnwindSafe(work).catch_unwind().await.is_ok() {
            return;
        }
        metrics::counter!("tidegate_panics_total", "part" => "task").increment(1);
        tracing::error!(%at, "the work on a record has panicked; the record stays open and is tried again after a restart: restart, and keep the panic's message for a bug report");
        let mut broken = self.broken.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if broken.len() < BROKEN_MAX {
            broken.push(at);
        }
    }
}

pub struct Worker {
    engine: Engine,
    settings: Arc<Settings>,
    kinds: Arc<Kinds>,
    models: Arc<Models>,
    pipeline: Arc<Pipeline>,
    view: View,
}

impl Worker {
    pub fn new(engine: Engine, settings: Arc<Settings>, kinds: Arc<Kinds>, models: Arc<Models>) -> Self {
        let pipeline =
            Arc::new(Pipeline::new(engine.clone(), settings.clone(), kinds.clone(), models.clone()));
        Worker { engine, settings, kinds, models, pipeline, view: View::default() }
    }

    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Runs until `stop`, then drains: no new tasks and no new calls; calls under way may end within the
    /// drain budget. What is left comes back from the log, its unsent calls are given back to the ledger.
    pub async fn run(&self, stop: CancellationToken) {
        let names = &self.settings.topics;
        let mut topics: Vec<Topic> = self.kinds.topics().cloned().collect();
        topics.extend(names.retry.iter().map(|(_, topic)| topic.clone()));
        topics.push(names.resume.clone());
        let mut group = self.engine.groups.join("worker", &topics);
        let permits = Arc::new(Semaphore::new(self.settings.worker.in_flight));
        let leave = CancellationToken::new();
        let mut running = JoinSet::new();
        let mut leases = Leases::default();
        let mut holds = Holds::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let permit = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    self.hold(&*group, &mut holds, Instant::now());
                    continue;
                }
                Some(_) = running.join_next(), if !running.is_empty() => continue,
                permit = permits.clone().acquire_owned() => permit,
            };
            // The semaphore is never closed.
            let Ok(permit) = permit else { break };
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    self.hold(&*group, &mut holds, Instant::now());
                    continue;
                }
                event = group.next() => event,
            };
            match event {
                Event::Record(delivery) => {
                    let void = leases.void(&delivery, &leave);
                    let (engine, pipeline) = (self.engine.clone(), self.pipeline.clone());
                    let view = self.view.clone();
                    running.spawn(async move {
                        let at = delivery.record.position.clone();
                        view.watch(at, one(&engine, &pipeline, delivery, void)).await;
                        drop(permit);
                    });
                }
                Event::Draining { lease, .. } => group.drained(lease),
                Event::Revoked { lease } => leases.revoke(&lease),
                Event::Assigned { .. } => {}
                Event::Health(health) => tracing::info!(?health, "engine"),
            }
        }
        drain(&mut running, &leave, self.settings.worker.drain).await;
    }

    /// Holds the topics of kinds that nobody can serve, and lets them go again.
    fn hold(&self, group: &dyn Group, holds: &mut Holds, now: Instant) {
        let mut held = Vec::new();
        for topic in self.kinds.topics() {
            let kinds = self.kinds.on(topic);
            let why = kinds.iter().find_map(|kind| {
                let lineup = kind.lineup()?;
                self.models.availability(lineup).unavailable()
            });
            let hold = holds.decide(topic, why.is_some(), now);
            if hold.changed {
                tracing::info!(%topic, held = hold.held, why = why.as_deref().unwrap_or(""), "intake");
                group.hold(topic, hold.held);
            }
            if hold.held {
                let kinds = kinds.iter().map(|k| k.name.to_string()).collect();
                held.push(Held { topic: topic.to_string(), kinds, why: why.unwrap_or_default() });
            }
        }
        *self.view.held.write().unwrap_or_else(std::sync::PoisonError::into_inner) = held;
    }
}

/// One record, from delivery to a visible commit.
async fn one(engine: &Engine, pipeline: &Pipeline, delivery: Delivery, void: CancellationToken) {
    let Some(done) = pipeline.process(&delivery, &void).await else { return };
    let Done { completion, smaller } = done;
    let (lease, offset) = (completion.lease.clone(), completion.offset);
    let counted = Counted::of(&completion);
    let began = Instant::now();
    let commit = engine.commits.commit(completion).await;
    metrics::histogram!("tidegate_commit_seconds").record(began.elapsed());
    match commit {
        Commit::Visible(_) => counted.into_iter().for_each(Counted::add),
        // Not ours to report, so not ours to count.
        Commit::Void => {}
        Commit::TooLarge { output } => {
            tracing::warn!(at = %delivery.record.position, output, "an outcome is too large for its topic");
            let (outputs, mark) = smaller.into_parts();
            let done = Completion { lease, offset, outputs, urgent: false, mark };
            let counted = Counted::of(&done);
            match engine.commits.commit(done).await {
                Commit::Visible(_) => counted.into_iter().for_each(Counted::add),
                Commit::Void => {}
                // A record of bounded size on a topic that takes at least four times the input's limit.
                Commit::TooLarge { .. } => {
                    tracing::error!(at = %delivery.record.position, "even the smaller dead letter is too large; raise the limit of its topic");
                }
            }
        }
    }
}

/// Whoever waits leaves at once: its record comes back. Calls that were sent are waited for within the
/// budget, so that what they buy is stored.
async fn drain(running: &mut JoinSet<()>, leave: &CancellationToken, budget: Duration) {
    leave.cancel();
    if running.is_empty() {
        return;
    }
    tracing::info!(tasks = running.len(), budget_s = budget.as_secs(), "draining");
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(budget, all).await.is_err() {
        tracing::warn!("some calls did not end in time; their tasks come back, and they are made again");
        running.abort_all();
    }
}

/// One token per lease: cancelled when it is void, or when the process leaves.
#[derive(Default)]
struct Leases {
    void: HashMap<crate::engine::Lease, CancellationToken>,
}

impl Leases {
    fn void(&mut self, delivery: &Delivery, leave: &CancellationToken) -> CancellationToken {
        self.void.entry(delivery.lease.clone()).or_insert_with(|| leave.child_token()).clone()
    }

    fn revoke(&mut self, lease: &crate::engine::Lease) {
        if let Some(token) = self.void.remove(lease) {
            token.cancel();
        }
    }
}

/// Since when each topic has nobody to serve it, and which are held.
#[derive(Default)]
struct Holds {
    since: HashMap<Topic, Instant>,
    held: HashSet<Topic>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    held: bool,
    changed: bool,
}

impl Holds {
    fn decide(&mut self, topic: &Topic, unserved: bool, now: Instant) -> Hold {
        let held = if unserved {
            let since = *self.since.entry(topic.clone()).or_insert(now);
            now.duration_since(since) >= HOLD_AFTER
        } else {
            self.since.remove(topic);
            false
        };
        let changed = if held { self.held.insert(topic.clone()) } else { self.held.remove(topic) };
        Hold { held, changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_held_only_after_two_seconds_without_a_model_and_let_go_at_once() {
        let (mut holds, topic, began) = (Holds::default(), Topic::new("tasks.ticket"), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(holds.decide(&topic, true, at(0)), Hold { held: false, changed: false });
        assert_eq!(holds.decide(&topic, true, at(1_999)), Hold { held: false, changed: false });
        assert_eq!(holds.decide(&topic, true, at(2_000)), Hold { held: true, changed: true });
        assert_eq!(holds.decide(&topic, true, at(2_200)), Hold { held: true, changed: false });
        assert_eq!(holds.decide(&topic, false, at(2_400)), Hold { held: false, changed: true });
        assert_eq!(holds.decide(&topic, true, at(2_600)), Hold { held: false, changed: false });
    }

    #[tokio::test]
    async fn a_panic_is_told_with_the_record_it_left_open() {
        let view = View::default();
        let at = |offset: &str| format!("tasks.copy/0/{offset}").parse::<Position>().unwrap();
        view.watch(at("1"), async {}).await;
        view.watch(at("2"), async { panic!("as a test asks for") }).await;
        assert_eq!(view.broken(), [at("2")]);
        for _ in 0..2 * BROKEN_MAX {
            view.watch(at("3"), async { panic!("as a test asks for") }).await;
        }
        assert_eq!(view.broken().len(), BROKEN_MAX, "a list of bounded length");
    }
}
