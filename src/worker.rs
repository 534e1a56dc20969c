//! Many tasks at once: bounds on what is in flight, holding a kind whose models are all away or whose
//! tasks die in numbers (`flood.rs`), drain and shutdown. What happens to one task is `pipeline.rs`.

mod flood;

use crate::consume::Kinds;
use crate::engine::{Commit, Completion, Delivery, Engine, Event, Group};
use crate::infer::Models;
use crate::outcome::Reason;
use crate::pipeline::{Done, Ended, Pipeline};
use crate::settings::{Kind, Settings};
use crate::task::Topic;
use flood::Flood;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
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
    /// Topics that a person wants to be read again; taken at the next look. As many as are held, at most.
    resumed: Arc<Mutex<HashSet<Topic>>>,
}

/// A topic that is not read now, or only one task at a time.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Held {
    pub topic: String,
    pub kinds: Vec<String>,
    pub by: By,
    pub why: String,
}

/// What holds a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Nobody can serve its tasks; it goes on by itself.
    NoModel,
    /// Its tasks die in numbers for one reason; a person may resume it.
    DeadLetters,
}

impl View {
    pub fn held(&self) -> Vec<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A kind that pauses for its dead letters is read again, and those that share its topic with it.
    /// `false`: it does not pause for them.
    pub fn resume(&self, kind: &str) -> bool {
        let held = self.held();
        let paused = held.iter().find(|h| h.by == By::DeadLetters && h.kinds.iter().any(|name| name == kind));
        if let Some(held) = paused {
            let mut resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner);
            resumed.insert(Topic::new(held.topic.clone()));
        }
        paused.is_some()
    }

    fn take_resumed(&self) -> HashSet<Topic> {
        std::mem::take(&mut *self.resumed.lock().unwrap_or_else(PoisonError::into_inner))
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
                Some(back) = running.join_next(), if !running.is_empty() => {
                    if let Ok(Back { topic, ended }) = back
                        && holds.back(self.kinds.on(&topic), ended, Instant::now())
                    {
                        self.hold(&*group, &mut holds, Instant::now());
                    }
                    continue;
                }
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
                    let topic = delivery.record.position.at.topic.clone();
                    if holds.handed_out(self.kinds.on(&topic), Instant::now()) {
                        self.hold(&*group, &mut holds, Instant::now());
                    }
                    let void = leases.void(&delivery, &leave);
                    let (engine, pipeline) = (self.engine.clone(), self.pipeline.clone());
                    running.spawn(async move {
                        let ended = one(&engine, &pipeline, delivery, void).await;
                        drop(permit);
                        Back { topic, ended }
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

    /// Holds the topics of kinds that nobody can serve or whose tasks die, and lets them go again.
    fn hold(&self, group: &dyn Group, holds: &mut Holds, now: Instant) {
        for topic in self.view.take_resumed() {
            tracing::info!(%topic, "resumed by a person");
            holds.resume(self.kinds.on(&topic), now);
        }
        let mut held = Vec::new();
        for topic in self.kinds.topics() {
            let kinds = self.kinds.on(topic);
            let why = kinds.iter().find_map(|kind| {
                let lineup = kind.lineup()?;
                self.models.availability(lineup).unavailable()
            });
            let flooded = holds.flooded(kinds, now);
            let hold = holds.decide(topic, why.is_some(), flooded, now);
            let flood = holds.flood(kinds, now);
            let by = if flood.is_some() { By::DeadLetters } else { By::NoModel };
            let why = flood.or(why);
            if hold.changed {
                tracing::info!(%topic, held = hold.held, why = why.as_deref().unwrap_or(""), "intake");
                group.hold(topic, hold.held);
            }
            if hold.held || by == By::DeadLetters {
                let kinds = kinds.iter().map(|k| k.name.to_string()).collect();
                held.push(Held { topic: topic.to_string(), kinds, by, why: why.unwrap_or_default() });
            }
        }
        *self.view.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

/// A record that was handed out, once nothing more is done about it.
struct Back {
    topic: Topic,
    ended: Option<Ended>,
}

/// One record, from delivery to a visible commit; whose task it ended.
async fn one(
    engine: &Engine,
    pipeline: &Pipeline,
    delivery: Delivery,
    void: CancellationToken,
) -> Option<Ended> {
    let Done { completion, smaller, ended } = pipeline.process(&delivery, &void).await?;
    let (lease, offset) = (completion.lease.clone(), completion.offset);
    let began = Instant::now();
    let commit = engine.commits.commit(completion).await;
    metrics::histogram!("tidegate_commit_seconds").record(began.elapsed());
    match commit {
        Commit::Visible(_) => ended,
        Commit::Void => None,
        Commit::TooLarge { output } => {
            tracing::warn!(at = %delivery.record.position, output, "an outcome is too large for its topic");
            let (outputs, mark) = smaller.into_parts();
            let done = Completion { lease, offset, outputs, urgent: false, mark };
            if let Commit::TooLarge { .. } = engine.commits.commit(done).await {
                // A record of bounded size on a topic that takes at least four times the input's limit.
                tracing::error!(at = %delivery.record.position, "even the smaller dead letter is too large; raise the limit of its topic");
            }
            ended.map(|ended| Ended { dead: Some(Reason::OutcomeTooLarge), ..ended })
        }
    }
}

/// Whoever waits leaves at once: its record comes back. Calls that were sent are waited for within the
/// budget, so that what they buy is stored.
async fn drain(running: &mut JoinSet<Back>, leave: &CancellationToken, budget: Duration) {
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

/// Since when each topic has nobody to serve it, how the tasks of each kind end, and what is held.
#[derive(Default)]
struct Holds {
    since: HashMap<Topic, Instant>,
    floods: HashMap<Arc<str>, Flood>,
    held: HashSet<Topic>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    held: bool,
    changed: bool,
}

impl Holds {
    fn decide(&mut self, topic: &Topic, unserved: bool, flooded: bool, now: Instant) -> Hold {
        let away = if unserved {
            let since = *self.since.entry(topic.clone()).or_insert(now);
            now.duration_since(since) >= HOLD_AFTER
        } else {
            self.since.remove(topic);
            false
        };
        let held = away || flooded;
        let changed = if held { self.held.insert(topic.clone()) } else { self.held.remove(topic) };
        Hold { held, changed }
    }

    /// A record of a topic with these kinds is handed out. `true`: its topic is to be held again.
    fn handed_out(&mut self, kinds: &[Arc<Kind>], now: Instant) -> bool {
        let mut held = false;
        for kind in kinds {
            held |= self.floods.get_mut(&kind.name).is_some_and(|flood| flood.handed_out(now));
        }
        held
    }

    /// It is back, and a task may have ended with it. `true`: what is held may have changed.
    fn back(&mut self, kinds: &[Arc<Kind>], ended: Option<Ended>, now: Instant) -> bool {
        let mut changed = false;
        for kind in kinds {
            changed |= self.floods.get_mut(&kind.name).is_some_and(Flood::back);
        }
        let Some(Ended { kind, dead }) = ended else { return changed };
        let flood = self.floods.entry(kind.clone()).or_default();
        if flood.ended(dead, now) {
            changed = true;
            let why = flood.why(&kind, now).unwrap_or_default();
            tracing::warn!(%kind, why, "its tasks die in numbers: it pauses");
        }
        changed
    }

    fn resume(&mut self, kinds: &[Arc<Kind>], now: Instant) {
        for kind in kinds {
            if let Some(flood) = self.floods.get_mut(&kind.name) {
                flood.resume(now);
            }
        }
    }

    fn flooded(&mut self, kinds: &[Arc<Kind>], now: Instant) -> bool {
        let mut held = false;
        for kind in kinds {
            held |= self.floods.get_mut(&kind.name).is_some_and(|flood| flood.holds(now));
        }
        held
    }

    fn flood(&self, kinds: &[Arc<Kind>], now: Instant) -> Option<String> {
        kinds.iter().find_map(|kind| self.floods.get(&kind.name)?.why(&kind.name, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_held_only_after_two_seconds_without_a_model_and_let_go_at_once() {
        let (mut holds, topic, began) = (Holds::default(), Topic::new("tasks.ticket"), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(holds.decide(&topic, true, false, at(0)), Hold { held: false, changed: false });
        assert_eq!(holds.decide(&topic, true, false, at(1_999)), Hold { held: false, changed: false });
        assert_eq!(holds.decide(&topic, true, false, at(2_000)), Hold { held: true, changed: true });
        assert_eq!(holds.decide(&topic, true, false, at(2_200)), Hold { held: true, changed: false });
        assert_eq!(holds.decide(&topic, false, false, at(2_400)), Hold { held: false, changed: true });
        assert_eq!(holds.decide(&topic, true, false, at(2_600)), Hold { held: false, changed: false });
        let flooded = Hold { held: true, changed: true };
        assert_eq!(holds.decide(&topic, true, true, at(2_800)), flooded, "a flood is held at once");
        assert_eq!(holds.decide(&topic, true, false, at(4_600)), Hold { held: true, changed: false });
    }
}
