//! From how a task ended to what is committed: the completion, its outputs and its mark.

use super::Pipeline;
use super::ask::{Known, Question};
use crate::consume::{Poison, Task};
use crate::dedupe::{Claim, ClaimView, OpenPhase, Silence};
use crate::engine::{Completion, Delivery, Lease, Mark, Output};
use crate::outcome::{OutcomeKind, Reason, Status};
use crate::settings::Kind;
use crate::task::{Headers, Record, Timestamp, Token};
use crate::token;
use crate::write::record::{Burial, Envelope, ReviewItem, VERSION, identity, item_id};
use crate::write::{self};
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

/// How the work on one delivery ended.
pub(super) enum Ending {
    Result(Known),
    Review(Question, Known),
    Dead(Reason, String, Known),
    Park {
        until: Timestamp,
        why: String,
        known: Known,
    },
    /// Ask for admission again.
    Stale,
    /// The lease is void or the process leaves: nothing is handed in.
    Gone,
}

/// What is to be committed, and what there is to bury instead if the broker finds it too large.
#[derive(Debug)]
pub struct Done {
    pub completion: Completion,
    /// `None`: nothing is published, so nothing can be too large.
    pub instead: Option<Box<Burial>>,
    /// `None`: no task has ended. A copy, a parked task, a record that never owned its key.
    pub ended: Option<Ended>,
}

/// Whose task has ended, and whether well: as a result, or with a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    pub kind: Arc<str>,
    pub dead: Option<Reason>,
}

impl Done {
    fn ended(self, kind: &Arc<str>, dead: Option<Reason>) -> Done {
        Done { ended: Some(Ended { kind: kind.clone(), dead }), ..self }
    }
}

impl Pipeline {
    pub(super) fn complete(&self, delivery: &Delivery, task: Task, claim: &Claim, ending: Ending) -> Done {
        let now = Timestamp::now();
        match ending {
            Ending::Result(known) => self.publish(delivery, &task, claim, known, now),
            Ending::Review(question, known) => self.ask_person(delivery, &task, claim, question, known, now),
            Ending::Dead(reason, detail, known) => {
                self.dead(delivery, &task, claim, (reason, detail), &known, now)
            }
            Ending::Park { until, why, known } => {
                self.move_on(delivery, task, claim, (until, why), &known, now)
            }
            // `process` has dealt with these two.
            Ending::Stale | Ending::Gone => self.silent(delivery, &task.token, &Silence::Moved),
        }
    }

    fn publish(&self, delivery: &Delivery, task: &Task, claim: &Claim, known: Known, now: Timestamp) -> Done {
        let envelope = self.envelope(task, claim, &known, Status::Accepted, now);
        let mut trail = task.carry.trail.clone();
        known.notes(&mut trail);
        let kind = &task.kind;
        let key = delivery.record.key.clone();
        let schema = self.kinds.result_schema(kind);
        let output = write::result(&kind.to, kind.shape, schema, key, &envelope, &claim.token, &trail);
        let mark = close(&claim.token, OutcomeKind::Result);
        self.done(delivery, output, mark, false, &known).ended(&kind.name, None)
    }

    fn ask_person(
        &self,
        delivery: &Delivery,
        task: &Task,
        claim: &Claim,
        question: Question,
        known: Known,
        now: Timestamp,
    ) -> Done {
        let next = Token { hop: claim.token.hop + 1, ..claim.token.clone() };
        let mut carry = known.carry(&task.carry, now);
        carry.trail.note(now, "sent to a person", question.summary());
        let proposed = Envelope {
            answer: question.answer.clone().unwrap_or(Value::Null),
            ..self.envelope(task, claim, &known, Status::Approved, now)
        };
        let review = &task.kind.review;
        let item = ReviewItem {
            v: VERSION,
            id: item_id(&next),
            question: question.sentence(),
            why: question.why.iter().map(to_value).collect(),
            severity: question.severity(),
            team: review.team.clone(),
            opened_at: now,
            due_at: review.due.map(|d| now.plus(d)),
            payload: task.payload.clone(),
            record_key: delivery.record.key.as_ref().map(|k| hex(k)),
            proposed,
            answer_text: question.answer_text.clone(),
            findings: to_value(&question.findings),
        };
        let output = write::review_item(&self.settings.topics, &item, &next, &carry);
        let mark = Mark::Moved { token: claim.token.clone(), hop: next.hop, phase: OpenPhase::Waiting };
        count("tidegate_reviews_opened_total", &task.kind, question.code());
        self.done(delivery, output, mark, true, &known).ended(&task.kind.name, None)
    }

    fn move_on(
        &self,
        delivery: &Delivery,
        task: Task,
        claim: &Claim,
        (until, why): (Timestamp, String),
        known: &Known,
        now: Timestamp,
    ) -> Done {
        let next = Token { hop: claim.token.hop + 1, ..claim.token.clone() };
        let mut carry = known.carry(&task.carry, now);
        carry.trail.note(now, "parked", format!("until {}: {why}", until.rfc3339()));
        let output = write::parked(&self.settings.topics, &delivery.record, &next, &carry, now, until);
        let mark = Mark::Moved { token: claim.token.clone(), hop: next.hop, phase: OpenPhase::Open };
        count("tidegate_parked_total", &task.kind, "no-model");
        self.done(delivery, output, mark, false, known)
    }

    fn dead(
        &self,
        delivery: &Delivery,
        task: &Task,
        claim: &Claim,
        (reason, detail): (Reason, String),
        known: &Known,
        now: Timestamp,
    ) -> Done {
        let mut trail = task.carry.trail.clone();
        known.notes(&mut trail);
        let burial = Burial {
            tries: known.tries(),
            first_error: known.first_error(),
            last_error: known.last_error(),
            trail,
            ..burial(delivery, reason, detail, Some(&claim.token), true, now)
        };
        let output = write::bury(&self.settings.topics.dead_letters, &delivery.record, &burial);
        let mark = close(&claim.token, OutcomeKind::DeadLetter);
        self.done(delivery, output, mark, false, known).ended(&task.kind.name, Some(reason))
    }

    /// A refused record that owns its key: the dead letter is the outcome of its chain.
    pub(super) fn outcome_of_poison(&self, delivery: &Delivery, poison: &Poison, claim: &Claim) -> Done {
        let burial = burial(
            delivery,
            poison.reason,
            poison.detail.clone(),
            Some(&claim.token),
            true,
            Timestamp::now(),
        );
        self.grave(delivery, burial).ended(&claim.token.key.kind, Some(poison.reason))
    }

    /// Under the record's own coordinates; the key, if it has one, is untouched.
    pub(super) fn bury_poison(&self, delivery: &Delivery, poison: &Poison) -> Done {
        metrics::counter!("tidegate_refused_total", "reason" => poison.reason.code()).increment(1);
        let token = poison.known.as_ref().map(|(token, _)| token);
        self.grave(
            delivery,
            burial(delivery, poison.reason, poison.detail.clone(), token, false, Timestamp::now()),
        )
    }

    pub(super) fn bury(&self, delivery: &Delivery, task: &Task, (reason, detail): (Reason, String)) -> Done {
        metrics::counter!("tidegate_refused_total", "reason" => reason.code()).increment(1);
        let burial = burial(delivery, reason, detail, Some(&task.token), false, Timestamp::now());
        self.grave(delivery, burial)
    }

    /// The record of an open task has vanished: its dead letter is the outcome of the chain, and completes
    /// the place where the record lay. Key, payload and headers are lost with it.
    pub fn orphan(&self, lease: Lease, claim: &ClaimView) -> Completion {
        let (origin, now) = (claim.origin.clone(), Timestamp::now());
        let token = Token {
            key: claim.key.clone(),
            generation: claim.generation,
            origin: origin.clone(),
            hop: claim.hop,
            print: claim.print.clone(),
            // The claim does not hold it, and there is nothing left to redrive.
            proof: None,
            payload: Bytes::new(),
        };
        let burial = Burial {
            reason: Reason::Orphaned,
            detail: format!("its record of {} is no longer in the topic", origin.stamp.rfc3339()),
            source: origin.position.to_string(),
            at: now,
            token: Some(token),
            outcome: true,
            tries: 0,
            first_error: None,
            last_error: None,
            trail: crate::trail::Trail::default(),
        };
        let offset = origin.position.offset;
        let (key, value, headers) = (None, None, Headers::default());
        let lost =
            Record { position: origin.position, stamp: origin.stamp, key, value, headers, not_before: None };
        let output = write::bury(&self.settings.topics.dead_letters, &lost, &burial);
        Completion { lease, offset, outputs: vec![output], urgent: false, mark: ends_key(&burial) }
    }

    fn grave(&self, delivery: &Delivery, burial: Burial) -> Done {
        let output = write::bury(&self.settings.topics.dead_letters, &delivery.record, &burial);
        let completion = completion(delivery, vec![output], ends_key(&burial), false);
        Done { completion, instead: Some(Box::new(burial)), ended: None }
    }

    /// A dead letter that fits, with its mark, in place of what its topic did not take.
    pub fn smaller(&self, delivery: &Delivery, burial: &Burial) -> (Vec<Output>, Option<Mark>) {
        let topic = &self.settings.topics.dead_letters;
        (vec![write::shrink(topic, &delivery.record, burial)], ends_key(burial))
    }

    /// Completes without a trace but a count.
    pub(super) fn silent(&self, delivery: &Delivery, token: &Token, why: &Silence) -> Done {
        let why = match why {
            Silence::Done { .. } => "done",
            Silence::Moved => "moved",
            Silence::Duplicate => "duplicate",
            Silence::Older => "older",
        };
        metrics::counter!("tidegate_duplicates_total", "kind" => token.key.kind.to_string(), "why" => why)
            .increment(1);
        Done { completion: completion(delivery, vec![], None, false), instead: None, ended: None }
    }

    fn done(&self, delivery: &Delivery, output: Output, mark: Mark, urgent: bool, known: &Known) -> Done {
        let (Mark::Close { token, .. } | Mark::Moved { token, .. }) = &mark;
        let detail = "the outcome did not fit its topic".to_owned();
        let instead = Burial {
            tries: known.tries(),
            ..burial(delivery, Reason::OutcomeTooLarge, detail, Some(token), true, Timestamp::now())
        };
        let completion = completion(delivery, vec![output], Some(mark), urgent);
        Done { completion, instead: Some(Box::new(instead)), ended: None }
    }

    fn envelope(
        &self,
        task: &Task,
        claim: &Claim,
        known: &Known,
        status: Status,
        now: Timestamp,
    ) -> Envelope {
        let token = &claim.token;
        let (key, kind, tenant) = identity(&token.key);
        Envelope {
            v: VERSION,
            key,
            kind,
            tenant,
            generation: token.generation,
            origin: token::write_origin(&token.origin),
            fingerprint: token::write_print(&token.print),
            status,
            late: known.late(now),
            answer: known.answer(),
            confidence: known.confidence(),
            made_by: known.made_by(&self.settings.digest),
            usage: known.usage(),
            tries: known.tries_value(),
            repairs: known.repairs(),
            effects: vec![],
            reviewed: None,
            accepted_at: task.carry.accepted_at.rfc3339(),
            finished_at: now.rfc3339(),
        }
    }
}

fn burial(
    delivery: &Delivery,
    reason: Reason,
    detail: String,
    token: Option<&Token>,
    outcome: bool,
    at: Timestamp,
) -> Burial {
    Burial {
        reason,
        detail,
        source: delivery.record.position.to_string(),
        at,
        token: token.cloned(),
        outcome,
        tries: 0,
        first_error: None,
        last_error: None,
        trail: crate::trail::Trail::default(),
    }
}

fn completion(delivery: &Delivery, outputs: Vec<Output>, mark: Option<Mark>, urgent: bool) -> Completion {
    Completion {
        lease: delivery.lease.clone(),
        offset: delivery.record.position.offset,
        outputs,
        urgent,
        mark,
    }
}

/// The mark of a dead letter that is the outcome of its key.
fn ends_key(burial: &Burial) -> Option<Mark> {
    burial.token.as_ref().filter(|_| burial.outcome).map(|t| close(t, OutcomeKind::DeadLetter))
}

fn close(token: &Token, outcome: OutcomeKind) -> Mark {
    Mark::Close { token: token.clone(), outcome, output: 0 }
}

fn count(name: &'static str, kind: &Kind, what: &'static str) {
    metrics::counter!(name, "kind" => kind.name.to_string(), "what" => what).increment(1);
}

fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}
