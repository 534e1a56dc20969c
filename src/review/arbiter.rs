//! Decides which decision decides an item, and publishes what follows from it.
//!
//! The first valid decision in log order that the ledger admits as decider wins. Validity is judged
//! before the claim and never again; whether the item is still open, only the admission says. Decisions on
//! different items have no order between them: one that waits for the schema of its kind's results lets
//! those on other items by (`aside.rs`).

use super::aside::Aside;
use super::judge::judge;
use super::queue::{Item, read_item};
use crate::avro::Need;
use crate::consume::Kinds;
use crate::dedupe::{Admission, Claim, Silence};
use crate::engine::crash::crash_point;
use crate::engine::{
    ARBITER, Commit, Completion, Delivery, Engine, Event, Gone, Group, Lease, Mark, Output, Unavailable,
};
use crate::outcome::{OutcomeKind, Reason};
use crate::settings::Settings;
use crate::task::{Headers, Position, Record, Timestamp, Token};
use crate::token::{self, Carry};
use crate::write::record::{Action, Burial, Decision, Envelope, ReviewOutcome, Reviewed, Ruling, VERSION};
use crate::write::{self, Counted, json};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long to wait before an absent ledger, log or registry is asked again.
const RETRY: Duration = Duration::from_millis(100);

pub struct Arbiter {
    engine: Engine,
    settings: Arc<Settings>,
    kinds: Arc<Kinds>,
}

impl Arbiter {
    pub fn new(engine: Engine, settings: Arc<Settings>, kinds: Arc<Kinds>) -> Self {
        Arbiter { engine, settings, kinds }
    }

    /// Takes decisions one after the other: people are slow, and order is the rule here.
    pub async fn run(&self, cancel: CancellationToken) {
        let mut group =
            self.engine.groups.join(ARBITER, std::slice::from_ref(&self.settings.topics.review_decisions));
        let mut aside = Aside::default();
        // One at a time, for all that is set aside.
        let mut asking = JoinSet::new();
        let mut full = false;
        while !cancel.is_cancelled() {
            let schemas = self.kinds.schemas();
            if let Some(delivery) = aside.take(|need| schemas.settled(need)) {
                self.take(&mut *group, delivery, &mut aside, &cancel).await;
                continue;
            }
            let needs = aside.needs();
            if !needs.is_empty() && asking.is_empty() {
                asking.spawn(ask(self.kinds.clone(), needs));
            }
            let room = aside.has_room();
            if !room && !full {
                tracing::warn!("too many decisions wait for the schema of their results: no other is read");
            }
            full = !room;
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                _ = asking.join_next(), if !asking.is_empty() => {}
                event = group.next(room) => match event {
                    Event::Record(delivery) => {
                        let item = decision(&delivery).map(|decision| decision.item).unwrap_or_default();
                        if let Some(delivery) = aside.queue(&item, delivery) {
                            self.take(&mut *group, delivery, &mut aside, &cancel).await;
                        }
                    }
                    other => heard(&*group, &mut aside, other),
                },
            }
        }
    }

    /// Until the decision is ruled on or set aside, its lease is void, or the process ends.
    async fn take(
        &self,
        group: &mut dyn Group,
        delivery: Delivery,
        aside: &mut Aside,
        cancel: &CancellationToken,
    ) {
        loop {
            match self.rule(&delivery).await {
                Ok(ruled) => return self.commit(ruled).await,
                Err(Unruled::Wants { item, need }) => {
                    tracing::info!(at = %delivery.record.position, ?need, "a decision waits for a schema");
                    return aside.put(item, need, delivery);
                }
                Err(Unruled::Away(away)) => {
                    tracing::debug!(%away, "the arbiter waits");
                    tokio::select! {
                        biased;
                        () = tokio::time::sleep(RETRY) => {}
                        () = cancel.cancelled() => return,
                        event = group.next(false) => {
                            let void = matches!(&event, Event::Revoked { lease } if *lease == delivery.lease);
                            heard(group, aside, event);
                            if void {
                                return;
                            }
                        }
                    }
                }
            }
        }
    }

    async fn commit(&self, ruled: Ruled) {
        let Ruled { completion, smaller } = ruled;
        let lease = completion.lease.clone();
        let offset = completion.offset;
        let counted = Counted::of(&completion);
        match self.engine.commits.commit(completion).await {
            Commit::Visible(_) => counted.into_iter().for_each(Counted::add),
            Commit::Void => {}
            Commit::TooLarge { output } => {
                tracing::warn!(output, "the outcome of a decision is too large for its topic");
                // The decision has claimed the item: what it decided must end the task, if only as a dead letter.
                let Some((outputs, mark)) = smaller else { return };
                let done = Completion { lease, offset, outputs, urgent: true, mark: Some(mark) };
                let counted = Counted::of(&done);
                match self.engine.commits.commit(done).await {
                    Commit::Visible(_) => counted.into_iter().for_each(Counted::add),
                    Commit::Void => {}
                    Commit::TooLarge { .. } => {
                        tracing::error!(
                            "even the smaller dead letter is too large; raise the limit of its topic"
                        );
                    }
                }
            }
        }
    }

    async fn rule(&self, delivery: &Delivery) -> Result<Ruled, Unruled> {
        let record = &delivery.record;
        let Some(decision) = decision(delivery) else {
            return Ok(self.complete(delivery, vec![self.invalid(delivery, "not a decision")], None));
        };
        let item = match decision.item_at.parse::<Position>() {
            Ok(at) => read_item(&self.engine, &at).await?.filter(|i| i.body.id == decision.item),
            Err(_) => None,
        };
        let Some(item) = item else {
            let outcome = outcome(&decision, Ruling::Invalid, "there is no such item");
            return Ok(self.complete(delivery, vec![self.publish(&outcome)], None));
        };
        let read = token::decode(&item.record, Bytes::from(item.body.payload.to_string()));
        let Ok((token, carry)) = read else {
            let outcome = outcome(&decision, Ruling::Invalid, "the item's record is malformed");
            return Ok(self.complete(delivery, vec![self.publish(&outcome)], None));
        };
        // Before the decision claims anything: its result must be written in the kind's format.
        if let Some(need) = self.kinds.named(&token.key.kind).and_then(|kind| self.kinds.result_wants(kind)) {
            return Err(Unruled::Wants { item: decision.item, need });
        }
        // A decision that has claimed the item is never judged again.
        let claimed = self
            .engine
            .ledger
            .look(&token.key)
            .await?
            .is_some_and(|c| c.decider.as_ref() == Some(&record.position));
        let judged = judge(&self.kinds, &item, decision.action, decision.answer.as_ref());
        if let (false, Err(wrong)) = (claimed, judged) {
            let outcome = outcome(&decision, Ruling::Invalid, &wrong.to_string());
            return Ok(self.complete(delivery, vec![self.publish(&outcome)], None));
        }
        let admission = self.engine.ledger.admit(delivery, &token, Some(record.position.clone())).await?;
        Ok(self.obey(delivery, &decision, &item, token, carry, admission).await?)
    }

    async fn obey(
        &self,
        delivery: &Delivery,
        decision: &Decision,
        item: &Item,
        token: Token,
        carry: Carry,
        admission: Admission,
    ) -> Result<Ruled, Unavailable> {
        let closes = write::item_decided(&self.settings.topics, &item.body.id);
        Ok(match admission {
            Admission::Fresh(claim) | Admission::Resumed(claim, _) => {
                crash_point("arbiter.claimed");
                self.decide(delivery, decision, item, &claim, &carry)
            }
            Admission::Silent(why) => {
                let by = match why {
                    Silence::Done { at, .. } => self.who_published(&at).await?,
                    _ => None,
                };
                let outcome = superseded(decision, by);
                self.complete(delivery, vec![self.publish(&outcome), closes], None)
            }
            Admission::Told(decider) => {
                let outcome = superseded(decision, self.who_submitted(&decider).await?);
                let mut outputs = vec![self.publish(&outcome)];
                // Both lie in one partition, so we know whether the decider has published.
                if self.engine.commits.is_complete(&decider) {
                    outputs.push(closes);
                }
                self.complete(delivery, outputs, None)
            }
            Admission::Conflict | Admission::Refused | Admission::Invalid => {
                let outcome = outcome(decision, Ruling::Superseded, "the key belongs to another task by now");
                let letter = self.bury_origin(item, &token, &carry);
                self.complete(delivery, vec![self.publish(&outcome), closes, letter], None)
            }
        })
    }

    /// The decision counts: its result, the end of the item, and the word to whoever submitted it.
    fn decide(
        &self,
        delivery: &Delivery,
        decision: &Decision,
        item: &Item,
        claim: &Claim,
        carry: &Carry,
    ) -> Ruled {
        let now = Timestamp::now();
        let envelope = decided(decision, item, &delivery.record, now);
        let (to, shape, schema) = match self.kinds.named(&claim.token.key.kind) {
            Some(kind) => (kind.to.clone(), kind.shape, self.kinds.result_schema(kind)),
            None => (self.settings.topics.results.clone(), crate::settings::Shape::Envelope, None),
        };
        let mut trail = carry.trail.clone();
        trail.note(now, "decided", format!("{} by {}", decision.action.as_str(), decision.by));
        let key = item.body.record_key.as_deref().and_then(from_hex);
        let result = write::result(&to, shape, schema, key, &envelope, &claim.token, &trail);
        let outcome = ReviewOutcome {
            decided_by: Some(decision.by.clone()),
            decided_at: Some(now.rfc3339()),
            action: Some(decision.action),
            ..outcome(decision, Ruling::Counts, "")
        };
        let outputs =
            vec![result, self.publish(&outcome), write::item_decided(&self.settings.topics, &item.body.id)];
        let mark = Mark::Close { token: claim.token.clone(), outcome: OutcomeKind::Result, output: 0 };
        let letter = self.too_large(item, claim, carry);
        let smaller =
            vec![letter, self.publish(&outcome), write::item_decided(&self.settings.topics, &item.body.id)];
        let close = Mark::Close { token: claim.token.clone(), outcome: OutcomeKind::DeadLetter, output: 0 };
        Ruled { smaller: Some((smaller, close)), ..self.complete(delivery, outputs, Some(mark)) }
    }

    /// The dead letter that ends the task if its result does not fit.
    fn too_large(&self, item: &Item, claim: &Claim, carry: &Carry) -> Output {
        let burial = Burial {
            reason: Reason::OutcomeTooLarge,
            detail: "the decided result did not fit its topic".to_owned(),
            outcome: true,
            ..self.burial(&claim.token, carry)
        };
        write::shrink(&self.settings.topics.dead_letters, &origin_record(item, &claim.token), &burial)
    }

    fn burial(&self, token: &Token, carry: &Carry) -> Burial {
        Burial {
            reason: Reason::KeyConflict,
            detail: "the key was taken by another payload while a person was asked".to_owned(),
            source: token.origin.position.to_string(),
            at: Timestamp::now(),
            token: Some(token.clone()),
            outcome: false,
            tries: 0,
            first_error: None,
            last_error: None,
            trail: carry.trail.clone(),
        }
    }

    async fn who_published(&self, at: &Position) -> Result<Option<(String, String)>, Unavailable> {
        let records = self.engine.log.read(at.clone(), 1).await?;
        let envelope = records.first().filter(|r| r.position == *at).and_then(write::read_result);
        Ok(envelope.and_then(|e| e.reviewed).map(|r| (r.by, r.at)))
    }

    async fn who_submitted(&self, at: &Position) -> Result<Option<(String, String)>, Unavailable> {
        let records = self.engine.log.read(at.clone(), 1).await?;
        let value = records.into_iter().next().filter(|r| r.position == *at).and_then(|r| r.value);
        let decision = value.and_then(|v| serde_json::from_slice::<Decision>(&v).ok());
        Ok(decision.map(|d| (d.by, d.at.rfc3339())))
    }

    fn bury_origin(&self, item: &Item, token: &Token, carry: &Carry) -> Output {
        let burial = self.burial(token, carry);
        write::bury(&self.settings.topics.dead_letters, &origin_record(item, token), &burial)
    }

    fn complete(&self, delivery: &Delivery, outputs: Vec<Output>, mark: Option<Mark>) -> Ruled {
        let offset = delivery.record.position.offset;
        let completion = Completion { lease: delivery.lease.clone(), offset, outputs, urgent: true, mark };
        Ruled { completion, smaller: None }
    }

    fn publish(&self, outcome: &ReviewOutcome) -> Output {
        Output {
            topic: self.settings.topics.review_outcomes.clone(),
            key: Some(Bytes::from(outcome.item.clone())),
            value: Some(json(outcome)),
            headers: Headers::default(),
            not_before: None,
        }
    }

    fn invalid(&self, delivery: &Delivery, detail: &str) -> Output {
        let key = delivery.record.key.clone().unwrap_or_default();
        let item = String::from_utf8_lossy(&key).into_owned();
        self.publish(&ReviewOutcome {
            v: VERSION,
            item,
            nonce: String::new(),
            verdict: Ruling::Invalid,
            decided_by: None,
            decided_at: None,
            action: None,
            detail: detail.to_owned(),
            at: Timestamp::now(),
        })
    }
}

/// Why a decision is not ruled on yet.
enum Unruled {
    /// The ledger or the log, for all of them.
    Away(Unavailable),
    /// It has claimed nothing.
    Wants { item: String, need: Need },
}

impl From<Unavailable> for Unruled {
    fn from(away: Unavailable) -> Self {
        Unruled::Away(away)
    }
}

/// Asks the registry once for each of these. One that is away, or slow, keeps nobody else waiting.
async fn ask(kinds: Arc<Kinds>, needs: Vec<Need>) {
    for need in needs {
        // What is not known afterwards is asked for again.
        let _ = kinds.schemas().obtain(&need).await;
    }
    tokio::time::sleep(RETRY).await;
}

fn decision(delivery: &Delivery) -> Option<Decision> {
    serde_json::from_slice(delivery.record.value.as_ref()?).ok()
}

/// What the group says beside records. Nothing that waits is finished.
fn heard(group: &dyn Group, aside: &mut Aside, event: Event) {
    match event {
        Event::Draining { lease, .. } => group.drained(lease),
        Event::Revoked { lease } => aside.void(&lease),
        Event::Vanished { lease, gone } => begins_no_task(group, lease, &gone),
        Event::Record(_) | Event::Assigned { .. } | Event::Health(_) => {}
    }
}

/// What a decision comes to, and what instead if its result does not fit.
struct Ruled {
    completion: Completion,
    smaller: Option<(Vec<Output>, Mark)>,
}

/// The task's own record as far as the item knows it.
fn origin_record(item: &Item, token: &Token) -> Record {
    Record {
        key: item.body.record_key.as_deref().and_then(from_hex),
        value: Some(token.payload.clone()),
        ..(*item.record).clone()
    }
}

/// A decision that has vanished leaves its item open, and whoever made it can decide again.
fn begins_no_task(group: &dyn Group, lease: Lease, gone: &Gone) {
    group.orphaned(lease, gone, &BTreeSet::new());
}

fn outcome(decision: &Decision, verdict: Ruling, detail: &str) -> ReviewOutcome {
    ReviewOutcome {
        v: VERSION,
        item: decision.item.clone(),
        nonce: decision.nonce.clone(),
        verdict,
        decided_by: None,
        decided_at: None,
        action: None,
        detail: detail.to_owned(),
        at: Timestamp::now(),
    }
}

fn superseded(decision: &Decision, by: Option<(String, String)>) -> ReviewOutcome {
    let (decided_by, decided_at) = by.unzip();
    ReviewOutcome { decided_by, decided_at, ..outcome(decision, Ruling::Superseded, "") }
}

/// The proposed result as the person left it.
fn decided(decision: &Decision, item: &Item, record: &Record, now: Timestamp) -> Envelope {
    let proposed = &item.body.proposed;
    Envelope {
        status: decision.action.status(),
        answer: match decision.action {
            Action::Approve => proposed.answer.clone(),
            Action::Edit => decision.answer.clone().unwrap_or(Value::Null),
            Action::Reject => Value::Null,
        },
        reviewed: Some(Reviewed {
            by: decision.by.clone(),
            at: decision.at.rfc3339(),
            action: decision.action,
            reason: decision.reason.clone(),
            decision: record.position.to_string(),
            item: item.body.id.clone(),
        }),
        finished_at: now.rfc3339(),
        ..proposed.clone()
    }
}

fn from_hex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}
