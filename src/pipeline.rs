//! Takes one record through every stage. Read this first: the order of these lines is the order of
//! the product.
//!
//! Only an admission ends a task: whoever is told that it is stale asks for admission again and obeys
//! that answer. Nothing here commits; it hands in what is to be committed.

mod ask;
mod ending;

pub use ending::{Done, Ended};

use crate::consume::{Kinds, Poison, Task, Undecoded};
use crate::dedupe::{Admission, Claim, Fence, Silence, Slots};
use crate::engine::crash::crash_point;
use crate::engine::{Delivery, Engine, Unavailable};
use crate::infer::Models;
use crate::outcome::Reason;
use crate::settings::{OnConflict, Settings, StepKind};
use crate::task::{Timestamp, Token};
use ask::{Asked, Asking, Known};
use ending::Ending;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long to wait before an absent ledger is asked again: doubled from the first to the second.
const AWAY_MS: (u64, u64) = (20, 1_000);

pub struct Pipeline {
    engine: Engine,
    settings: Arc<Settings>,
    kinds: Arc<Kinds>,
    models: Arc<Models>,
}

impl Pipeline {
    pub fn new(engine: Engine, settings: Arc<Settings>, kinds: Arc<Kinds>, models: Arc<Models>) -> Self {
        Pipeline { engine, settings, kinds, models }
    }

    /// From a delivered record to what is to be committed. `None`: the lease is void, or the process
    /// is leaving; nothing is handed in and the log will hand the record out again.
    pub async fn process(&self, delivery: &Delivery, void: &CancellationToken) -> Option<Done> {
        let mut task = match self.decode(delivery, void).await? {
            Ok(task) => task,
            Err(poison) => return self.refuse(delivery, poison, void).await, // it may own a claim
        };
        if !task.kind.dedupe {
            return self.pass_on(delivery, task, void).await;
        }
        loop {
            let (claim, slots) = match self.admit(delivery, &task.token, void).await? {
                Admission::Fresh(claim) => (claim, Slots::new()),
                Admission::Resumed(claim, slots) => (claim, slots),
                Admission::Silent(why) => return Some(self.silent(delivery, &task.token, &why)),
                Admission::Conflict if is_a_copy(&task) => {
                    return Some(self.silent(delivery, &task.token, &Silence::Duplicate));
                }
                Admission::Conflict => return Some(self.bury(delivery, &task, conflict())),
                Admission::Refused => return Some(self.bury(delivery, &task, refused_before())),
                Admission::Invalid => return Some(self.bury(delivery, &task, token_invalid())),
                // Only decisions are told about deciders; a task's token cannot be.
                Admission::Told(_) => return Some(self.silent(delivery, &task.token, &Silence::Moved)),
            };
            task.carry.trail.note(Timestamp::now(), "admitted", note_of(&claim, &slots));
            match self.follow(&task, &claim, &slots, void).await {
                Ending::Stale => continue, // only an admission ends a task
                Ending::Gone => return None,
                ending => return Some(self.complete(delivery, task, &claim, ending)),
            }
        }
    }

    /// A kind without steps whose records are all published, copies too: nobody is asked and nothing is told.
    async fn pass_on(&self, delivery: &Delivery, task: Task, void: &CancellationToken) -> Option<Done> {
        let (lease, token) = (delivery.lease.clone(), task.token.clone());
        let unclaimed = Claim { lease, nonce: delivery.nonce, token, fence: Fence(0) };
        let ending = self.follow(&task, &unclaimed, &Slots::new(), void).await;
        let mut done = self.complete(delivery, task, &unclaimed, ending);
        done.completion.mark = None;
        if let Some(instead) = &mut done.instead {
            instead.outcome = false;
        }
        Some(done)
    }

    /// Waits for the schemas that it takes. A registry that is away makes no record poison.
    async fn decode(&self, delivery: &Delivery, void: &CancellationToken) -> Option<Result<Task, Poison>> {
        let mut wait = AWAY_MS.0;
        while !void.is_cancelled() {
            let need = match self.kinds.decode(&delivery.record) {
                Ok(task) => return Some(Ok(task)),
                Err(Undecoded::Poison(poison)) => return Some(Err(*poison)),
                Err(Undecoded::Wants(need)) => need,
            };
            let asked = tokio::select! {
                asked = self.kinds.schemas().obtain(&need) => asked,
                () = void.cancelled() => return None,
            };
            if asked.is_err() {
                wait = pause(wait, void).await;
            }
        }
        None
    }

    /// Waits until the record can be read: as a task, or as poison. `false`: the lease is void, or the process
    /// is leaving.
    pub async fn can_read(&self, delivery: &Delivery, void: &CancellationToken) -> bool {
        self.decode(delivery, void).await.is_some()
    }

    /// Follows the plan step by step; what finished before is read from the journal.
    /// Every answer is weighed before the next step, so before any step that writes.
    async fn follow(&self, task: &Task, claim: &Claim, slots: &Slots, void: &CancellationToken) -> Ending {
        let mut known = Known::start(task);
        // The deadline ends calls: an answer that is here already is published, and says that it is late.
        if slots.is_empty() && known.late(Timestamp::now()) {
            return self
                .end_past_effects(
                    task,
                    claim,
                    Ending::Dead(Reason::DeadlinePassed, String::new(), known),
                    void,
                )
                .await;
        }
        for step in &task.kind.plan {
            let asked = match &step.what {
                StepKind::Ask(ask) => {
                    self.ask(&Asking { task, claim, slots, step, ask, void }, &mut known).await
                }
            };
            match asked {
                Asked::GoOn => {}
                Asked::Stale => return Ending::Stale,
                Asked::Gone => return Ending::Gone,
                Asked::Park { until, why } => return self.park(claim, known, until, why, void).await,
                Asked::Dead(reason, detail) => {
                    let dead = Ending::Dead(reason, detail, known);
                    return self.end_past_effects(task, claim, dead, void).await;
                }
                Asked::Person(question) => {
                    if !self.settle(claim, &known, void).await {
                        return if void.is_cancelled() { Ending::Gone } else { Ending::Stale };
                    }
                    let asks = Ending::Review(question, known);
                    return self.end_past_effects(task, claim, asks, void).await;
                }
            }
        }
        Ending::Result(known)
    }

    /// A task bars every effect still ahead before it ends or asks a person. Steps that change the
    /// world come with the tools; until then no plan has one, and there is nothing to bar.
    async fn end_past_effects(
        &self,
        task: &Task,
        claim: &Claim,
        ending: Ending,
        void: &CancellationToken,
    ) -> Ending {
        for slot in task.kind.plan.iter().filter_map(crate::settings::Step::effect) {
            let mut wait = AWAY_MS.0;
            loop {
                match self.engine.journal.bar(claim, &slot).await {
                    Ok(crate::dedupe::Bar::Barred) => break,
                    Ok(crate::dedupe::Bar::Stale) => return Ending::Stale,
                    _ if void.is_cancelled() => return Ending::Gone,
                    // Somebody has started it, or the ledger is away: asking at once would only spin.
                    Ok(crate::dedupe::Bar::Busy) | Err(_) => wait = pause(wait, void).await,
                }
            }
        }
        ending
    }

    /// No task parks with an answer that is neither stored nor published. A slot that was started and
    /// got no answer has been given back where the call was made.
    async fn park(
        &self,
        claim: &Claim,
        known: Known,
        until: Timestamp,
        why: String,
        void: &CancellationToken,
    ) -> Ending {
        if !self.settle(claim, &known, void).await {
            return if void.is_cancelled() { Ending::Gone } else { Ending::Stale };
        }
        Ending::Park { until, why, known }
    }

    /// Waits until the ledger has every answer this delivery holds. False: stale, or leaving.
    async fn settle(&self, claim: &Claim, known: &Known, void: &CancellationToken) -> bool {
        for (slot, value) in known.held() {
            let mut wait = AWAY_MS.0;
            loop {
                match self.engine.journal.store(claim, slot, value.clone()).await {
                    Ok((_, crate::dedupe::Standing::Stands)) => break,
                    Ok((_, crate::dedupe::Standing::Stale)) => return false,
                    Err(_) if void.is_cancelled() => return false,
                    Err(_) => wait = pause(wait, void).await,
                }
            }
        }
        true
    }

    /// Asks until the ledger answers: intake fails closed.
    async fn admit(&self, delivery: &Delivery, token: &Token, void: &CancellationToken) -> Option<Admission> {
        crash_point("task.delivered");
        let mut wait = AWAY_MS.0;
        while !void.is_cancelled() {
            match self.engine.ledger.admit(delivery, token, None).await {
                Ok(admission) => {
                    crash_point("task.admitted");
                    return Some(admission);
                }
                Err(Unavailable(_)) => wait = pause(wait, void).await,
            }
        }
        None
    }

    /// A record that cannot be a task asks the ledger first, where its key is known: it may own a claim.
    async fn refuse(&self, delivery: &Delivery, poison: Poison, void: &CancellationToken) -> Option<Done> {
        let dedupes = |kind: &str| self.kinds.named(kind).is_none_or(|kind| kind.dedupe);
        let Some((token, _)) = poison.known.as_ref().filter(|(token, _)| dedupes(&token.key.kind)) else {
            return Some(self.bury_poison(delivery, &poison));
        };
        let mut wait = AWAY_MS.0;
        while !void.is_cancelled() {
            match self.engine.ledger.refuse(delivery, token).await {
                // Its dead letter is the outcome of its chain. Effects ahead would be barred here.
                Ok(Admission::Fresh(claim) | Admission::Resumed(claim, _)) => {
                    return Some(self.outcome_of_poison(delivery, &poison, &claim));
                }
                Ok(Admission::Silent(why)) => return Some(self.silent(delivery, token, &why)),
                Ok(_) => return Some(self.bury_poison(delivery, &poison)),
                Err(Unavailable(_)) => wait = pause(wait, void).await,
            }
        }
        None
    }
}

/// Waits, and says how long to wait the next time.
async fn pause(wait_ms: u64, void: &CancellationToken) -> u64 {
    tokio::select! {
        biased;
        () = void.cancelled() => {}
        () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
    }
    (wait_ms * 2).min(AWAY_MS.1)
}

fn note_of(claim: &Claim, slots: &Slots) -> String {
    match (claim.token.hop, slots.len()) {
        (0, 0) => String::new(),
        (hop, answers) => format!("hop {hop}, {answers} answers known"),
    }
}

/// Whether a conflict counts as a duplicate. A redrive and a token that moved on are no second payload that
/// somebody sent: to complete one silently would lose it.
fn is_a_copy(task: &Task) -> bool {
    task.kind.on_conflict == OnConflict::Ignore && task.token.hop == 0 && task.token.generation == 0
}

fn conflict() -> (Reason, String) {
    (Reason::KeyConflict, "this key was first used with another payload".to_owned())
}

fn refused_before() -> (Reason, String) {
    (Reason::RefusedBefore, "refused before it owned its key".to_owned())
}

fn token_invalid() -> (Reason, String) {
    (Reason::TokenInvalid, "a generation above 0 must carry the position of the outcome before".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Headers, Partition, Position, Record, Topic};

    #[test]
    fn p2_only_a_copy_is_ignored_and_never_a_redrive_or_a_token_that_moved_on() {
        let text = "[tasks.copy]\ninput = { text = \"string\" }\non_conflict = \"ignore\"\n";
        let settings = Settings::parse(std::path::Path::new("tidegate.toml"), text, &|_| None).unwrap();
        let at = Partition { topic: Topic::new("tasks.copy"), index: 0 };
        let record = Record {
            position: Position { at, offset: 1 },
            stamp: Timestamp(1),
            key: None,
            value: Some(r#"{"text":"one"}"#.into()),
            headers: Headers::default().with("idempotency-key", "k"),
            not_before: None,
        };
        let copy = Kinds::new(&settings).decode(&Arc::new(record)).unwrap_or_else(|_| panic!("no task"));
        assert!(is_a_copy(&copy));
        let mut redriven = copy.clone();
        redriven.token.generation = 1;
        let mut parked = copy;
        parked.token.hop = 1;
        assert!(!is_a_copy(&redriven) && !is_a_copy(&parked));
    }
}
