//! A worker that makes one call for each task, so that what is bought can be counted.
//!
//! It asks the ledger as the pipeline does: admission, `start`, the call, `store`, commit; who hears
//! `Stale` asks for admission again. What else a task does on its way its payload says, in `does`:
//! `parks`, `asks` a person, `dies`, `kills` its process, `acts` upon the world, or makes a `slow` call. That
//! the worker of the product does the same is tested where it does so; here the engine below is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate::consume::{Kinds, Task};
use tidegate::dedupe::{Admission, Bar, Claim, OpenPhase, Slot, SlotKind, SlotName, Standing, Started};
use tidegate::engine::distributed::simulated::{Point, Process, SimulatedStore, World};
use tidegate::engine::{Completion, Delivery, Engine, Event, Mark, Output};
use tidegate::outcome::{OutcomeKind, Reason, Status};
use tidegate::settings::Settings;
use tidegate::task::{Headers, Timestamp, Token, Topic};
use tidegate::token;
use tidegate::trail::Trail;
use tidegate::write;
use tidegate::write::record::{Burial, Envelope, ReviewItem, VERSION, item_id};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// No call takes longer; who has not answered by then gives up.
const DEADLINE: Duration = Duration::from_secs(3);
/// Milliseconds, in which a partition can go to another process; within the deadline.
const SLOW: u64 = 2_500;
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

/// An effect, as the world saw it.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) hop: u32,
    /// How far the ledger knew the task to be by then.
    pub(super) known: u32,
}

/// What the outside world has seen of the cluster, by key and in order. A task of a later generation
/// has it behind its key.
#[derive(Default)]
pub(super) struct Written {
    pub(super) calls: Mutex<BTreeMap<String, Vec<Call>>>,
    pub(super) effects: Mutex<BTreeMap<String, Vec<Effect>>>,
}

pub(super) type Book = Arc<Written>;

fn name_of(token: &Token) -> String {
    match token.generation {
        0 => token.key.key.to_string(),
        later => format!("{}#{later}", token.key.key),
    }
}

/// From so many deaths on a task runs alone, and at so many it is buried, as the pipeline does.
const SUSPECT: u32 = 2;
const DEADLY: u32 = 5;

/// What became of a step.
enum Step {
    Done,
    Stale,
    /// The lease is void.
    Gone,
    /// The effect is barred: a person is asked.
    Asks,
    Deadly,
}

#[derive(Clone)]
pub(super) struct Caller {
    pub(super) engine: Engine,
    pub(super) settings: Arc<Settings>,
    pub(super) kinds: Arc<Kinds>,
    pub(super) process: Process,
    pub(super) world: Arc<World>,
    pub(super) store: Arc<SimulatedStore>,
    pub(super) book: Book,
    /// Who runs alone holds it for writing.
    pub(super) alone: Arc<tokio::sync::RwLock<()>>,
}

impl Caller {
    pub(super) async fn run(self, stop: CancellationToken) {
        let names = &self.settings.topics;
        let mut topics: Vec<Topic> = self.kinds.topics().cloned().collect();
        // Parked for a few seconds each, so one retry topic is enough.
        topics.extend([names.retry[0].1.clone(), names.resume.clone()]);
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
                Ok(Admission::Conflict) => {
                    let letter = self.letter(delivery, &task.token, Reason::KeyConflict, false);
                    return self.complete(delivery, Some(letter), None).await;
                }
                Ok(_) => return self.complete(delivery, None, None).await,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some((output, mark)) = self.follow(delivery, &task, &claim, void).await else {
                if !void.is_cancelled() {
                    continue;
                }
                self.engine.journal.leave(claim.nonce, &claim.token.key, 0).await;
                return;
            };
            return self.complete(delivery, Some(output), Some(mark)).await;
        }
    }

    /// `None`: stale, or the lease is void.
    async fn follow(
        &self,
        delivery: &Delivery,
        task: &Task,
        claim: &Claim,
        void: &CancellationToken,
    ) -> Option<(Output, Mark)> {
        let token = &claim.token;
        let does = task.payload["does"].as_str().unwrap_or_default();
        let ends = |output, outcome| (output, Mark::Close { token: token.clone(), outcome, output: 0 });
        let dead = |reason| ends(self.letter(delivery, token, reason, true), OutcomeKind::DeadLetter);
        if does == "dies" && token.generation == 0 {
            return Some(dead(Reason::TemplateFailed));
        }
        let moves = token.hop == 0 && ["parks", "asks"].contains(&does);
        let step = match does {
            "acts" => self.act(claim, void).await,
            _ => self.ask(claim, does, moves, void).await,
        };
        match step {
            Step::Stale | Step::Gone => None,
            Step::Deadly => Some(dead(Reason::CrashesWorker)),
            // For a person, or for later: here it is all one.
            Step::Asks => Some(self.park(delivery, task, token)),
            Step::Done if moves && does == "parks" => Some(self.park(delivery, task, token)),
            Step::Done if moves => Some(self.ask_person(task, token)),
            Step::Done => Some(ends(self.result(delivery, token), OutcomeKind::Result)),
        }
    }

    fn next(token: &Token) -> Token {
        Token { hop: token.hop + 1, ..token.clone() }
    }

    fn park(&self, delivery: &Delivery, task: &Task, token: &Token) -> (Output, Mark) {
        let (now, next) = (Timestamp::now(), Self::next(token));
        let until = now.plus(Duration::from_millis(500 + self.world.dice() % 5_000));
        let output = write::parked(&self.settings.topics, &delivery.record, &next, &task.carry, now, until);
        (output, Mark::Moved { token: token.clone(), hop: next.hop, phase: OpenPhase::Open })
    }

    fn ask_person(&self, task: &Task, token: &Token) -> (Output, Mark) {
        let next = Self::next(token);
        let proposed = Envelope {
            v: VERSION,
            key: token.key.key.to_string(),
            kind: token.key.kind.to_string(),
            tenant: None,
            generation: token.generation,
            origin: token::write_origin(&token.origin),
            fingerprint: token::write_print(&token.print),
            status: Status::Approved,
            late: false,
            answer: task.payload.clone(),
            confidence: serde_json::Value::Null,
            made_by: Default::default(),
            usage: Default::default(),
            tries: serde_json::Value::Null,
            repairs: serde_json::Value::Null,
            effects: Vec::new(),
            reviewed: None,
            accepted_at: String::new(),
            finished_at: String::new(),
        };
        let item = ReviewItem {
            v: VERSION,
            id: item_id(&next),
            question: "Is it so?".to_owned(),
            why: Vec::new(),
            severity: "low".to_owned(),
            team: None,
            opened_at: Timestamp::now(),
            due_at: None,
            payload: task.payload.clone(),
            record_key: None,
            proposed,
            answer_text: None,
            findings: serde_json::Value::Null,
        };
        let output = write::review_item(&self.settings.topics, &item, &next, &task.carry);
        (output, Mark::Moved { token: token.clone(), hop: next.hop, phase: OpenPhase::Waiting })
    }

    fn result(&self, delivery: &Delivery, token: &Token) -> Output {
        let mut headers = Headers::default();
        token::write_identity(token, &mut headers);
        let (key, value) = (delivery.record.key.clone(), delivery.record.value.clone());
        Output { topic: self.settings.topics.results.clone(), key, value, headers, not_before: None }
    }

    fn letter(&self, delivery: &Delivery, token: &Token, reason: Reason, outcome: bool) -> Output {
        let burial = Burial {
            reason,
            detail: String::new(),
            source: delivery.record.position.to_string(),
            at: Timestamp::now(),
            token: Some(token.clone()),
            outcome,
            tries: 0,
            first_error: None,
            last_error: None,
            trail: Trail::default(),
        };
        write::bury(&self.settings.topics.dead_letters, &delivery.record, &burial)
    }

    async fn ask(&self, claim: &Claim, does: &str, stored: bool, void: &CancellationToken) -> Step {
        let slot = Slot { name: SlotName("ask.r0".into()), kind: SlotKind::Call };
        let mut alone = None;
        loop {
            if void.is_cancelled() {
                return Step::Gone;
            }
            let together = if alone.is_none() { Some(self.alone.clone().read_owned().await) } else { None };
            match self.engine.journal.start(claim, &slot, DEADLINE).await {
                Ok(Started::Go { deaths, .. }) if deaths >= DEADLY => return Step::Deadly,
                Ok(Started::Go { deaths, .. }) if deaths >= SUSPECT && alone.is_none() => {
                    drop(together);
                    alone = Some(self.alone.clone().write_owned().await);
                }
                Ok(Started::Go { times, .. }) => return self.call(claim, &slot, times, does, stored).await,
                Ok(Started::Done(_)) => return Step::Done,
                Ok(Started::Stale) => return Step::Stale,
                Ok(Started::Busy(wait)) => {
                    drop(together);
                    tokio::time::sleep(wait).await;
                }
                Ok(Started::Barred | Started::Unknown) => return Step::Gone,
                Err(_) => {
                    drop(together);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// `must_store`: the task moves on, and may not do so with an answer that the ledger does not have.
    async fn call(&self, claim: &Claim, slot: &Slot, times: u32, does: &str, must_store: bool) -> Step {
        let name = name_of(&claim.token);
        let at = {
            let mut book = self.book.calls.lock().unwrap();
            let calls = book.entry(name.clone()).or_default();
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
        let takes = if does == "slow" { SLOW } else { 50 + self.world.dice() % 2_000 };
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if does == "kills" {
            self.world.kill(self.process);
            std::future::pending::<()>().await;
        }
        self.book.calls.lock().unwrap().get_mut(&name).unwrap()[at].answered = Some(Instant::now());
        self.pass(Point::Answered).await;
        loop {
            match self.engine.journal.store(claim, slot, "answer".into()).await {
                Ok((_, standing)) => {
                    self.book.calls.lock().unwrap().get_mut(&name).unwrap()[at].stored = Some(Instant::now());
                    self.pass(Point::Stored).await;
                    return if standing == Standing::Stands { Step::Done } else { Step::Stale };
                }
                // It is held, and published all the same.
                Err(_) if !must_store => return Step::Done,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Runs the effect, or bars it and asks a person first. Who looks sees at once whether it has happened.
    async fn act(&self, claim: &Claim, void: &CancellationToken) -> Step {
        let slot = Slot { name: SlotName("act".into()), kind: SlotKind::Effect };
        tokio::time::sleep(Duration::from_millis(self.world.dice() % 3_000)).await;
        let mut bars = claim.token.hop == 0 && self.world.dice().is_multiple_of(2);
        loop {
            if void.is_cancelled() {
                return Step::Gone;
            }
            if std::mem::take(&mut bars) {
                match self.engine.journal.bar(claim, &slot).await {
                    Ok(Bar::Barred) => return Step::Asks,
                    Ok(Bar::Stale) => return Step::Stale,
                    // It was started: it can only be settled.
                    Ok(Bar::Busy) | Err(_) => {}
                }
            }
            let asked = Instant::now();
            match self.engine.journal.start(claim, &slot, DEADLINE).await {
                Ok(Started::Go { .. }) if asked.elapsed() < DEADLINE => {
                    self.happens(claim);
                    self.pass(Point::Answered).await;
                }
                // Too late: it starts again.
                Ok(Started::Go { .. }) => continue,
                Ok(Started::Done(_)) => return Step::Done,
                Ok(Started::Barred) => return Step::Asks,
                Ok(Started::Stale) => return Step::Stale,
                Ok(Started::Unknown) if self.has_happened(claim) => {}
                Ok(Started::Unknown) => {
                    bars = true;
                    continue;
                }
                Ok(Started::Busy(wait)) => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            }
            loop {
                match self.engine.journal.store(claim, &slot, "done".into()).await {
                    Ok((_, Standing::Stands)) => return Step::Done,
                    Ok((_, Standing::Stale)) => return Step::Stale,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
    }

    fn happens(&self, claim: &Claim) {
        let key = &claim.token.key;
        let known = self.store.open().into_iter().find(|c| c.key == *key).map_or(u32::MAX, |c| c.hop);
        let effect = Effect { hop: claim.token.hop, known };
        self.book.effects.lock().unwrap().entry(name_of(&claim.token)).or_default().push(effect);
    }

    fn has_happened(&self, claim: &Claim) -> bool {
        self.book.effects.lock().unwrap().contains_key(&name_of(&claim.token))
    }

    /// Goes on only if its process lives.
    async fn pass(&self, point: Point) {
        if self.world.reaches(self.process, point) {
            std::future::pending::<()>().await;
        }
    }

    async fn complete(&self, delivery: &Delivery, output: Option<Output>, mark: Option<Mark>) {
        let done = Completion {
            lease: delivery.lease.clone(),
            offset: delivery.record.position.offset,
            outputs: output.into_iter().collect(),
            urgent: false,
            mark,
        };
        let _ = self.engine.commits.commit(done).await;
    }
}
