//! Many tasks at once: bounds on what is in flight, holding what is not to be read (`holds.rs`), drain and
//! shutdown. What happens to one task is `pipeline.rs`, how it is committed `one.rs`; tasks whose record has vanished
//! are buried in `orphans.rs`.

mod aside;
mod flood;
mod holds;
mod intake;
mod one;
mod orphans;

use crate::consume::Kinds;
use crate::engine::{Delivery, Engine, Event, Lease};
use crate::infer::{Availability, Models};
use crate::pipeline::{Ended, Pipeline};
use crate::settings::Settings;
use crate::task::{Position, Topic};
use aside::Aside;
use futures::FutureExt as _;
use holds::{Holds, Serving};
use intake::Intake;
use one::{Waits, one};
use orphans::Searched;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often the line-ups are looked at. Well below the time without a model that holds a topic, and
/// cheap: a few locks per kind.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Positions of tasks that broke off; more than a person looks at are counted by the metric alone.
const BROKEN_MAX: usize = 100;

/// What runs and what is held, for `status` and the API.
#[derive(Clone, Default)]
pub struct View {
    held: Arc<RwLock<Vec<Held>>>,
    broken: Arc<RwLock<Vec<Position>>>,
    /// Why partitions wait that have lost records; one for each of them.
    stuck: Arc<RwLock<HashMap<Lease, String>>>,
    /// Records whose dead letter is too large for its topic: they wait, and each is in flight.
    unburied: Arc<RwLock<BTreeMap<Position, String>>>,
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
    /// One of its records waits for its schema; it goes on by itself.
    NoSchema,
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

    /// Records whose work broke off by a panic: they stay open, and are tried again after a restart.
    pub fn broken(&self) -> Vec<Position> {
        self.broken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a partition, or a record, waits, in one sentence, if one does.
    pub fn waits(&self) -> Option<String> {
        let partition = self.stuck.read().unwrap_or_else(PoisonError::into_inner).values().min().cloned();
        let record = || self.unburied.read().unwrap_or_else(PoisonError::into_inner).values().next().cloned();
        partition.or_else(record)
    }

    /// `None`: it waits no more.
    fn unburied(&self, at: &Position, why: Option<String>) {
        let mut unburied = self.unburied.write().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(unburied.insert(at.clone(), why)),
            None => drop(unburied.remove(at)),
        }
    }

    /// `None`: it waits no more.
    fn stuck(&self, lease: &Lease, why: Option<String>) {
        let mut stuck = self.stuck.write().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(stuck.insert(lease.clone(), why)),
            None => drop(stuck.remove(lease)),
        }
    }

    /// Sees to it that a panic is told, whoever else would have heard of it.
    async fn watch<T>(&self, at: Position, work: impl Future<Output = T>) -> Option<T> {
        if let Ok(done) = AssertUnwindSafe(work).catch_unwind().await {
            return Some(done);
        }
        metrics::counter!("tidegate_panics_total", "part" => "task").increment(1);
        tracing::error!(%at, "the work on a record has panicked; the record stays open and is tried again after a restart: restart, and keep the panic's message for a bug report");
        let mut broken = self.broken.write().unwrap_or_else(PoisonError::into_inner);
        if broken.len() < BROKEN_MAX {
            broken.push(at);
        }
        None
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
        let [tasks, tokens]: [Vec<Topic>; 2] =
            [self.kinds.topics().cloned().collect(), names.tokens().cloned().collect()];
        let mut group = Intake::join(&self.engine, &tasks, &tokens);
        let [permits, handed_in] = [(); 2].map(|()| Arc::new(Semaphore::new(self.settings.worker.in_flight)));
        let aside = Aside::default();
        let leave = CancellationToken::new();
        let mut running = JoinSet::new();
        // One for each partition that has lost records, twice at most: first it searches, then it buries.
        let mut orphans: JoinSet<Option<Searched>> = JoinSet::new();
        let mut leases = Leases::default();
        let mut holds = Holds::default();
        let mut look = tokio::time::interval(LOOK_EVERY);
        // Waited for, and not used yet.
        let mut kept = None;
        loop {
            let permit = kept.take().or_else(|| permits.clone().try_acquire_owned().ok());
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = look.tick() => {
                    self.hold(&group, &mut holds, Instant::now());
                    continue;
                }
                Some(back) = running.join_next(), if !running.is_empty() => {
                    if let Ok(Back { at, ended }) = back {
                        let wanted = holds.wants_no_more(&at);
                        if holds.back(self.kinds.on(&at.at.topic), ended, Instant::now()) || wanted {
                            self.hold(&group, &mut holds, Instant::now());
                        }
                    }
                    continue;
                }
                Some(searched) = orphans.join_next(), if !orphans.is_empty() => {
                    match searched {
                        Ok(Some(Searched::Found(found))) => {
                            group.orphaned(found.lease.clone(), &found.gone, &found.offsets());
                            let (engine, pipeline) = (self.engine.clone(), self.pipeline.clone());
                            let view = self.view();
                            orphans.spawn(async move {
                                orphans::bury(&engine, &pipeline, found, view).await;
                                None
                            });
                        }
                        Ok(Some(Searched::NotGone(lease))) => group.not_gone(lease),
                        // Its lease is void, or all is buried. A panic is told and tried again where it happens.
                        Ok(None) | Err(_) => {}
                    }
                    continue;
                }
                // Also when full: a task may wait for nothing but the news that its lease is void.
                event = group.next(permit.is_some()) => event,
                // A task has handed in its outcome.
                room = permits.clone().acquire_owned(), if permit.is_none() => {
                    kept = room.ok();
                    continue;
                }
            };
            match event {
                Event::Record(delivery) => {
                    // An engine that hands out without room is slowed down, not believed.
                    let permit = match permit {
                        Some(permit) => permit,
                        None => match permits.clone().acquire_owned().await {
                            Ok(permit) => permit,
                            // Never closed.
                            Err(_) => break,
                        },
                    };
                    let topic = delivery.record.position.at.topic.clone();
                    if holds.handed_out(&topic, self.kinds.on(&topic), Instant::now()) {
                        group.hold(&topic, true);
                    }
                    // One record waits for its schema, and not the whole backlog behind it. A token waits
                    // aside: behind it lie those of other kinds.
                    let wants = self.kinds.wants(&delivery.record);
                    let is_token = self.kinds.on(&topic).is_empty();
                    let place = wants.as_ref().filter(|_| is_token).and_then(|_| aside.place(&delivery));
                    if let Some((kind, need)) = wants.filter(|_| place.is_none()) {
                        tracing::info!(%topic, held = true, %kind, ?need, "intake");
                        holds.wants(delivery.record.position.clone(), kind, need);
                        group.hold(&topic, true);
                    }
                    let void = leases.void(&delivery.lease, &leave);
                    let (engine, pipeline) = (self.engine.clone(), self.pipeline.clone());
                    let (view, permits, aside) = (self.view.clone(), permits.clone(), aside.clone());
                    let handed_in = handed_in.clone();
                    running.spawn(async move {
                        let at = delivery.record.position.clone();
                        let work = async {
                            let permit = match place {
                                None => permit,
                                Some(place) => {
                                    drop(permit);
                                    wait_aside(&pipeline, &delivery, &void, permits, place).await?
                                }
                            };
                            let permit = Some(permit);
                            let waits = Waits { view: &view, aside: &aside, handed_in: &handed_in, permit };
                            one(&engine, &pipeline, waits, delivery, void).await
                        };
                        let ended = view.watch(at.clone(), work).await.flatten();
                        Back { at, ended }
                    });
                }
                Event::Draining { lease, .. } => group.drained(lease),
                Event::Revoked { lease } => leases.revoke(&lease),
                Event::Vanished { lease, gone } => {
                    let (engine, void) = (self.engine.clone(), leases.void(&lease, &leave));
                    orphans.spawn(orphans::search(engine, lease, gone, void, self.view()));
                }
                Event::Assigned { .. } | Event::Health(_) => {}
            }
        }
        drain(&mut running, &leave, self.settings.worker.drain).await;
    }

    /// Holds the topics of kinds that nobody can serve or whose tasks die, and lets them go again.
    fn hold(&self, group: &Intake, holds: &mut Holds, now: Instant) {
        for topic in self.view.take_resumed() {
            tracing::info!(%topic, "resumed by a person");
            holds.resume(self.kinds.on(&topic), now);
        }
        let schemas = self.kinds.schemas();
        holds.settle(|need| schemas.settled(need));
        let because = || schemas.away().unwrap_or_else(|| "a schema is being asked for".to_owned());
        let mut held = Vec::new();
        // Tokens of all kinds lie there, and only a record that wants a schema holds them.
        for topic in self.settings.topics.tokens() {
            let hold = holds.decide(topic, &[], Serving::Somebody, now);
            if hold.changed {
                tracing::info!(%topic, held = hold.held, "intake");
                group.hold(topic, hold.held);
            }
            if let Some(kind) = holds.wanting(topic) {
                let kinds = vec![kind.to_string()];
                held.push(Held { topic: topic.to_string(), kinds, by: By::NoSchema, why: because() });
            }
        }
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
            let hold = holds.decide(topic, kinds, serving, now);
            let flood = holds.flood(kinds, now);
            let one_at_a_time = flood.is_some() || holds.lets_one_through(topic);
            let (by, why) = match flood {
                Some(flood) => (By::DeadLetters, flood),
                None if holds.wanting(topic).is_some() => (By::NoSchema, because()),
                None => (By::NoModel, why),
            };
            if hold.changed {
                tracing::info!(%topic, held = hold.held, %why, "intake");
                group.hold(topic, hold.held);
            }
            if hold.held || one_at_a_time {
                let kinds = kinds.iter().map(|k| k.name.to_string()).collect();
                held.push(Held { topic: topic.to_string(), kinds, by, why });
            }
        }
        *self.view.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

/// A record that was handed out, once nothing more is done about it.
struct Back {
    at: Position,
    ended: Option<Ended>,
}

/// A token waits for its schema, and then to be among the tasks that run. `None`: its lease is void, or the
/// process leaves.
async fn wait_aside(
    pipeline: &Pipeline,
    delivery: &Delivery,
    void: &CancellationToken,
    permits: Arc<Semaphore>,
    place: OwnedSemaphorePermit,
) -> Option<OwnedSemaphorePermit> {
    let known = pipeline.can_read(delivery, void).await;
    let permit = tokio::select! {
        biased;
        () = void.cancelled() => None,
        permit = permits.acquire_owned(), if known => permit.ok(),
    };
    drop(place);
    permit
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
        tracing::warn!(
            "some tasks did not end in time; they come back from the log, and stored answers are not bought again"
        );
        running.abort_all();
    }
}

/// One token per lease: cancelled when it is void, or when the process leaves.
#[derive(Default)]
struct Leases {
    void: HashMap<Lease, CancellationToken>,
}

impl Leases {
    fn void(&mut self, lease: &Lease, leave: &CancellationToken) -> CancellationToken {
        self.void.entry(lease.clone()).or_insert_with(|| leave.child_token()).clone()
    }

    fn revoke(&mut self, lease: &Lease) {
        if let Some(token) = self.void.remove(lease) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_with_the_record_it_left_open() {
        let view = View::default();
        let at = |offset: &str| format!("tasks.copy/0/{offset}").parse::<Position>().unwrap();
        assert_eq!(view.watch(at("1"), async { 7 }).await, Some(7));
        assert_eq!(view.watch(at("2"), async { panic!("as a test asks for") }).await, None::<()>);
        assert_eq!(view.broken(), [at("2")]);
        for _ in 0..2 * BROKEN_MAX {
            view.watch(at("3"), async { panic!("as a test asks for") }).await;
        }
        assert_eq!(view.broken().len(), BROKEN_MAX, "a list of bounded length");
    }
}
