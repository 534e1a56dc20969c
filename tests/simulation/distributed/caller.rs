//! A worker that makes one call for each task, so that what is bought can be counted.
//!
//! It asks the ledger as the pipeline does: admission, `start`, the call, `store`, commit; who hears
//! `Stale` asks for admission again. Parks and reviews are the pipeline's own, and are not here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate::consume::Kinds;
use tidegate::dedupe::{Admission, Claim, Slot, SlotKind, SlotName, Standing, Started};
use tidegate::engine::distributed::simulated::{Point, Process, World};
use tidegate::engine::{Completion, Delivery, Engine, Event, Mark, Output};
use tidegate::outcome::OutcomeKind;
use tidegate::task::{Headers, Topic};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// No call takes longer; who has not answered by then gives up.
const DEADLINE: Duration = Duration::from_secs(3);
const IN_FLIGHT: usize = 16;

/// One call that was sent.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) process: Process,
    pub(super) at: Instant,
    /// How many repeats the journal had counted, this call included. A lost reply may hide that this one
    /// is a repeat, not that it was counted.
    pub(super) times: u32,
    /// When its answer came.
    pub(super) answered: Option<Instant>,
    /// When the ledger acknowledged it.
    pub(super) stored: Option<Instant>,
}

/// Every call of the cluster, by key, in order.
pub(super) type Book = Arc<Mutex<BTreeMap<String, Vec<Call>>>>;

#[derive(Clone)]
pub(super) struct Caller {
    pub(super) engine: Engine,
    pub(super) kinds: Arc<Kinds>,
    pub(super) process: Process,
    pub(super) world: Arc<World>,
    pub(super) book: Book,
}

impl Caller {
    pub(super) async fn run(self, stop: CancellationToken) {
        let topics: Vec<Topic> = self.kinds.topics().cloned().collect();
        let mut group = self.engine.groups.join("worker", &topics);
        let mut running = JoinSet::new();
        let mut leases: Vec<(tidegate::engine::Lease, CancellationToken)> = Vec::new();
        loop {
            let room = running.len() < IN_FLIGHT;
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = running.join_next(), if !running.is_empty() => continue,
                event = group.next(room) => event,
            };
            match event {
                Event::Record(delivery) => {
                    let void = match leases.iter().find(|(lease, _)| *lease == delivery.lease) {
                        Some((_, void)) => void.clone(),
                        None => {
                            leases.push((delivery.lease.clone(), CancellationToken::new()));
                            leases[leases.len() - 1].1.clone()
                        }
                    };
                    let caller = self.clone();
                    running.spawn(async move { caller.one(&delivery, &void).await });
                }
                Event::Draining { lease, .. } => group.drained(lease),
                Event::Revoked { lease } => {
                    leases.iter().filter(|(l, _)| *l == lease).for_each(|(_, void)| void.cancel());
                }
                _ => {}
            }
        }
        // Calls under way end; what waits is given back.
        leases.iter().for_each(|(_, void)| void.cancel());
        while running.join_next().await.is_some() {}
    }

    async fn one(&self, delivery: &Delivery, void: &CancellationToken) {
        let Ok(task) = self.kinds.decode(&delivery.record) else { return };
        self.pass(Point::Delivered).await;
        loop {
            let admission = tokio::select! {
                biased;
                () = void.cancelled() => return,
                admission = self.engine.ledger.admit(delivery, &task.token, None) => admission,
            };
            let claim = match admission {
                Ok(Admission::Fresh(claim) | Admission::Resumed(claim, _)) => {
                    self.pass(Point::Admitted).await;
                    claim
                }
                Ok(Admission::Conflict) => return self.complete(delivery, "dead-letters", None).await,
                Ok(_) => return self.complete(delivery, "", None).await,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            match self.ask(&claim, void).await {
                Some(true) => {
                    let outcome = OutcomeKind::Result;
                    let mark = Mark::Close { token: claim.token.clone(), outcome, output: 0 };
                    return self.complete(delivery, "results", Some(mark)).await;
                }
                Some(false) => {}
                None => {
                    // Refused only while the ledger is away; then its own rules free the slot.
                    let _ = self.engine.journal.release(claim.nonce, &claim.token.key).await;
                    return;
                }
            }
        }
    }

    /// `Some(true)`: there is an answer. `Some(false)`: stale. `None`: the lease is void.
    async fn ask(&self, claim: &Claim, void: &CancellationToken) -> Option<bool> {
        let slot = Slot { name: SlotName("ask.r0".into()), kind: SlotKind::Call };
        loop {
            if void.is_cancelled() {
                return None;
            }
            match self.engine.journal.start(claim, &slot, DEADLINE).await {
                Ok(Started::Go { times, .. }) => return self.call(claim, &slot, times).await,
                Ok(Started::Done(_)) => return Some(true),
                Ok(Started::Stale) => return Some(false),
                Ok(Started::Busy(wait)) => tokio::time::sleep(wait).await,
                Ok(Started::Barred | Started::Unknown) => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn call(&self, claim: &Claim, slot: &Slot, times: u32) -> Option<bool> {
        let key = claim.token.key.key.to_string();
        let at = {
            let mut book = self.book.lock().unwrap();
            let calls = book.entry(key.clone()).or_default();
            calls.push(Call {
                process: self.process,
                at: Instant::now(),
                times,
                answered: None,
                stored: None,
            });
            calls.len() - 1
        };
        self.pass(Point::Called).await;
        let takes = 50 + self.world.dice() % 2_000;
        tokio::time::sleep(Duration::from_millis(takes)).await;
        self.book.lock().unwrap().get_mut(&key).unwrap()[at].answered = Some(Instant::now());
        self.pass(Point::Answered).await;
        match self.engine.journal.store(claim, slot, "answer".into()).await {
            Ok((_, standing)) => {
                self.book.lock().unwrap().get_mut(&key).unwrap()[at].stored = Some(Instant::now());
                self.pass(Point::Stored).await;
                Some(standing == Standing::Stands)
            }
            // It is held, and published all the same.
            Err(_) => Some(true),
        }
    }

    /// Goes on only if its process lives.
    async fn pass(&self, point: Point) {
        if self.world.reaches(self.process, point) {
            std::future::pending::<()>().await;
        }
    }

    async fn complete(&self, delivery: &Delivery, topic: &str, mark: Option<Mark>) {
        let key = delivery.record.headers.text("idempotency-key").unwrap_or_default().as_bytes().to_vec();
        let source = delivery.record.position.to_string();
        let headers = Headers::default()
            .with("tidegate-key", key)
            .with("tidegate-source", source)
            .with("tidegate-reason", "TG-key-conflict");
        let output = Output {
            topic: Topic::new(topic),
            key: delivery.record.key.clone(),
            value: delivery.record.value.clone(),
            headers,
            not_before: None,
        };
        let outputs = if topic.is_empty() { Vec::new() } else { vec![output] };
        let done = Completion {
            lease: delivery.lease.clone(),
            offset: delivery.record.position.offset,
            outputs,
            urgent: false,
            mark,
        };
        let _ = self.engine.commits.commit(done).await;
    }
}
