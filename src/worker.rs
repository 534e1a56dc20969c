//! Many tasks at once: bounds on what is in flight, holding a kind whose models are all away,
//! drain and shutdown. What happens to one task is `pipeline.rs`.

use crate::consume::Kinds;
use crate::engine::{Commit, Completion, Delivery, Engine, Event, Group};
use crate::infer::{Availability, Models};
use crate::pipeline::{Done, Pipeline};
use crate::settings::Settings;
use crate::task::Topic;
use std::collections::{HashMap, HashSet};
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

/// What runs and what is held, for `status` and the API.
#[derive(Clone, Default)]
pub struct View {
    held: Arc<RwLock<Vec<Held>>>,
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
                    let topic = &delivery.record.position.at.topic;
                    if holds.took(topic) {
                        group.hold(topic, true);
                    }
                    let void = leases.void(&delivery, &leave);
                    let (engine, pipeline) = (self.engine.clone(), self.pipeline.clone());
                    running.spawn(async move {
                        one(&engine, &pipeline, delivery, void).await;
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
            let (mut serving, mut why) = (Serving::Somebody, String::new());
            for lineup in kinds.iter().filter_map(|kind| kind.lineup()) {
                let (of_it, because) = match self.models.availability(lineup) {
                    Availability::Serves { .. } => continue,
                    Availability::MayBeTried { why } => (Serving::MayBeTried, why),
                    Availability::None { why, .. } => (Serving::Nobody, why),
                };
                if of_it > serving {
                    (serving, why) = (of_it, because);
                }
            }
            let hold = holds.decide(topic, serving, now);
            if hold.changed {
                tracing::info!(%topic, held = hold.held, %why, "intake");
                group.hold(topic, hold.held);
            }
            if hold.held || holds.lets_one_through(topic) {
                let kinds = kinds.iter().map(|k| k.name.to_string()).collect();
                held.push(Held { topic: topic.to_string(), kinds, why });
            }
        }
        *self.view.held.write().unwrap_or_else(std::sync::PoisonError::into_inner) = held;
    }
}

/// One record, from delivery to a visible commit.
async fn one(engine: &Engine, pipeline: &Pipeline, delivery: Delivery, void: CancellationToken) {
    let Some(done) = pipeline.process(&delivery, &void).await else { return };
    let Done { completion, instead } = done;
    let (lease, offset) = (completion.lease.clone(), completion.offset);
    let began = Instant::now();
    let commit = engine.commits.commit(completion).await;
    metrics::histogram!("tidegate_commit_seconds").record(began.elapsed());
    match commit {
        Commit::Visible(_) | Commit::Void => {}
        Commit::TooLarge { output } => {
            tracing::warn!(at = %delivery.record.position, output, "an outcome is too large for its topic");
            let Some(burial) = instead else { return };
            let (outputs, mark) = pipeline.smaller(&delivery, &burial);
            let done = Completion { lease, offset, outputs, urgent: false, mark };
            if let Commit::TooLarge { .. } = engine.commits.commit(done).await {
                // A record of bounded size on a topic that takes at least four times the input's limit.
                tracing::error!(at = %delivery.record.position, "even the smaller dead letter is too large; raise the limit of its topic");
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

/// Whether the kinds of a topic are served. Ordered: the worst of them counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Serving {
    Somebody,
    /// Whether a model is back is found out by the next call.
    MayBeTried,
    Nobody,
}

/// Since when each topic has nobody to serve it, which are held, and which of them but for one record:
/// a model that may be tried again is tried with one task, not with the backlog.
#[derive(Default)]
struct Holds {
    since: HashMap<Topic, Instant>,
    held: HashSet<Topic>,
    but_for_one: HashSet<Topic>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    held: bool,
    changed: bool,
}

impl Holds {
    fn decide(&mut self, topic: &Topic, serving: Serving, now: Instant) -> Hold {
        self.but_for_one.remove(topic);
        let long = |since: &Instant| now.duration_since(*since) >= HOLD_AFTER;
        let held = match serving {
            Serving::Nobody => long(self.since.entry(topic.clone()).or_insert(now)),
            Serving::MayBeTried => {
                if self.since.get(topic).is_some_and(long) {
                    self.but_for_one.insert(topic.clone());
                }
                false
            }
            Serving::Somebody => {
                self.since.remove(topic);
                false
            }
        };
        let changed = if held { self.held.insert(topic.clone()) } else { self.held.remove(topic) };
        Hold { held, changed }
    }

    fn lets_one_through(&self, topic: &Topic) -> bool {
        self.but_for_one.contains(topic)
    }

    /// A record of the topic was handed out. True: it was the one, and the topic is held again.
    fn took(&mut self, topic: &Topic) -> bool {
        self.but_for_one.remove(topic) && self.held.insert(topic.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_held_only_after_two_seconds_without_a_model_and_let_go_at_once() {
        let (mut holds, topic, began) = (Holds::default(), Topic::new("tasks.ticket"), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(0)), Hold { held: false, changed: false });
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(1_999)), Hold { held: false, changed: false });
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(2_000)), Hold { held: true, changed: true });
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(2_200)), Hold { held: true, changed: false });
        assert_eq!(holds.decide(&topic, Serving::Somebody, at(2_400)), Hold { held: false, changed: true });
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(2_600)), Hold { held: false, changed: false });
    }

    #[test]
    fn p7_a_model_that_may_be_back_is_tried_with_one_task_and_not_with_the_backlog() {
        let (mut holds, topic, began) = (Holds::default(), Topic::new("tasks.ticket"), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        holds.decide(&topic, Serving::Nobody, at(0));
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(2_000)), Hold { held: true, changed: true });
        let released = holds.decide(&topic, Serving::MayBeTried, at(10_000));
        assert_eq!((released, holds.lets_one_through(&topic)), (Hold { held: false, changed: true }, true));
        assert!(holds.took(&topic), "the first record closes it behind itself");
        assert!(!holds.took(&topic), "what was handed out already changes nothing");
        // It failed: two seconds more of full intake would empty the backlog into the retry topics.
        assert_eq!(holds.decide(&topic, Serving::Nobody, at(10_200)), Hold { held: true, changed: false });
        // It was answered.
        assert_eq!(holds.decide(&topic, Serving::Somebody, at(20_000)), Hold { held: false, changed: true });
        assert!(!holds.took(&topic));
    }

    #[test]
    fn a_short_gap_holds_nothing_also_when_a_model_may_be_tried() {
        let (mut holds, topic, now) = (Holds::default(), Topic::new("tasks.ticket"), Instant::now());
        holds.decide(&topic, Serving::Nobody, now);
        holds.decide(&topic, Serving::MayBeTried, now + Duration::from_millis(500));
        assert!(!holds.lets_one_through(&topic) && !holds.took(&topic));
    }
}
