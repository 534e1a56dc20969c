//! What is known of a task so far: the answers of finished steps, and everything they cost.
//!
//! Built anew at each admission, from stored answers where there are any, so that a resumed task
//! ends exactly as it would have.

use crate::consume::Task;
use crate::dedupe::Slot;
use crate::infer::{Answer, TryNote, Usage};
use crate::outcome::Reason;
use crate::settings::{Ask, Step};
use crate::task::Timestamp;
use crate::token::Carry;
use crate::trail::Trail;
use crate::validate::{Edits, Finding, Reading, Schema};
use crate::weigh::{Confidence, Evidence};
use crate::write::record::{self, MadeBy};
use bytes::Bytes;
use serde_json::{Value, json};

/// One round that was answered.
struct Heard {
    slot: Slot,
    answer: Answer,
    sanitizer: bool,
    reading: Reading,
}

pub(in crate::pipeline) struct Known {
    rounds: Vec<Heard>,
    answer: Value,
    confidence: Option<Confidence>,
    prompt: Option<String>,
    schema: Option<String>,
    trail: Trail,
    deadline: Option<Timestamp>,
    /// Tries for slots that got no answer in this hop.
    unanswered: Vec<TryNote>,
    /// What such tries cost in earlier hops, how many they were, and until when their trail is told.
    before: Usage,
    tries_before: u32,
    told_until: Timestamp,
    sanitized: Option<Edits>,
    /// Why it was not asked again, where that was needed.
    given_up: Option<(Reason, String)>,
}

impl Known {
    pub(in crate::pipeline) fn start(task: &Task) -> Self {
        // A kind without steps copies its payload.
        let answer = if task.kind.plan.is_empty() { task.payload.clone() } else { Value::Null };
        let own = task.kind.deadline.map(|d| task.carry.accepted_at.plus(d));
        let carry = &task.carry;
        Known {
            rounds: vec![],
            answer,
            confidence: None,
            prompt: None,
            schema: None,
            trail: Trail::default(),
            deadline: task.carry.deadline.or(own),
            unanswered: vec![],
            before: Usage {
                input_tokens: carry.spent_tokens.0,
                output_tokens: carry.spent_tokens.1,
                cost: (!carry.unpriced).then_some(carry.spent_cost),
            },
            tries_before: carry.tries,
            told_until: carry.told_until,
            sanitized: None,
            given_up: None,
        }
    }

    pub(in crate::pipeline) fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    pub(in crate::pipeline) fn late(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline < now)
    }

    /// A round was answered; what it said is read.
    pub(super) fn hear(&mut self, slot: Slot, answer: Answer, sanitizer: bool, reading: Reading) {
        let what = match (&answer.ended, sanitizer, self.rounds.is_empty()) {
            (Some(_), ..) => "gave no answer",
            (None, true, _) => "sanitizer answered",
            (None, _, true) => "answered",
            _ => "answered again",
        };
        let why = answer.ended.as_ref().map(|e| format!(": {}", e.reason)).unwrap_or_default();
        self.trail.note(
            answer.received_at,
            what,
            format!("by {} in {} tries{why}", answer.model_name, answer.tries.len()),
        );
        self.rounds.push(Heard { slot, answer, sanitizer, reading });
    }

    pub(super) fn finish(&mut self, step: &Step, ask: &Ask, answer: Value, confidence: Confidence) {
        let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
        self.prompt = Some(digest(ask.prompt.source().as_bytes()));
        self.schema = Some(digest(ask.answer.json().to_string().as_bytes()));
        self.trail.note(
            Timestamp::now(),
            "weighed",
            format!("{}: {:.2}", step.name, confidence.overall.value),
        );
        self.answer = answer;
        self.confidence = Some(confidence);
    }

    /// Tries that ended without an answer.
    pub(super) fn tried(&mut self, tries: Vec<TryNote>) {
        for note in &tries {
            self.trail.note(note.at, "tried", format!("{}: {}", note.model, note.cause()));
        }
        self.unanswered.extend(tries);
    }

    /// The first reason is kept: the next one follows from it.
    pub(super) fn give_up(&mut self, reason: Reason, detail: String) {
        self.given_up.get_or_insert((reason, detail));
    }

    pub(super) fn given_up(&mut self) -> Option<(Reason, String)> {
        self.given_up.take()
    }

    pub(super) fn sanitized(&mut self, edits: Edits) {
        self.sanitized = Some(edits);
    }

    /// What the sanitizer changed without being asked to.
    pub(super) fn outside_scope(&self) -> Vec<Finding> {
        self.sanitized.as_ref().map(|e| e.outside.clone()).unwrap_or_default()
    }

    pub(super) fn last_text(&self) -> &str {
        self.rounds.last().map_or("", |r| r.answer.text.as_str())
    }

    /// Everything that casts doubt on the answer that was read last.
    pub(super) fn evidence(&self, findings: &[Finding], schema: &Schema, answer: &Value) -> Evidence {
        let last = self.rounds.last();
        let asked_again = self.rounds.iter().filter(|r| !r.sanitizer).count().saturating_sub(1);
        Evidence {
            asked_again: u32::try_from(asked_again).unwrap_or(u32::MAX),
            sanitized: self.sanitized.as_ref().map(|e| e.fields.clone()),
            fallback: last.map_or(0, |r| r.answer.position),
            probe: last.is_some_and(|r| r.answer.probe),
            found: last.map(|r| r.reading.found).unwrap_or_default(),
            candidates: last.map_or(1, |r| r.reading.candidates),
            self_reported: schema.self_reported(answer),
            findings: findings.to_vec(),
        }
    }

    /// Answers the ledger does not have yet.
    pub(in crate::pipeline) fn held(&self) -> impl Iterator<Item = (&Slot, Bytes)> {
        self.rounds.iter().filter(|r| r.answer.held).map(|r| (&r.slot, r.answer.encode()))
    }

    pub(in crate::pipeline) fn answer(&self) -> Value {
        self.answer.clone()
    }

    pub(in crate::pipeline) fn confidence(&self) -> Value {
        self.confidence.as_ref().and_then(|c| serde_json::to_value(c).ok()).unwrap_or(Value::Null)
    }

    pub(in crate::pipeline) fn notes(&self, trail: &mut Trail) {
        // A stored answer is heard anew at every hop, and told once.
        for note in self.trail.notes().iter().filter(|n| n.at > self.told_until) {
            trail.note(note.at, &note.what, note.detail.clone());
        }
    }

    pub(in crate::pipeline) fn tries(&self) -> u32 {
        u32::try_from(self.notes_of_tries().count()).unwrap_or(u32::MAX).saturating_add(self.tries_before)
    }

    fn notes_of_tries(&self) -> impl Iterator<Item = &TryNote> {
        self.rounds.iter().flat_map(|r| &r.answer.tries).chain(&self.unanswered)
    }

    pub(in crate::pipeline) fn first_error(&self) -> Option<String> {
        self.errors().next()
    }

    pub(in crate::pipeline) fn last_error(&self) -> Option<String> {
        self.errors().last()
    }

    fn errors(&self) -> impl Iterator<Item = String> {
        self.notes_of_tries().filter(|t| t.class != "ok").map(|t| t.class.clone())
    }

    /// Each try with the slot it was for; the first of a slot says how often the slot was repeated.
    pub(in crate::pipeline) fn tries_value(&self) -> Value {
        let mut all = Vec::new();
        for round in &self.rounds {
            for (i, note) in round.answer.tries.iter().enumerate() {
                let mut note = serde_json::to_value(note).unwrap_or(Value::Null);
                note["slot"] = json!(&*round.slot.name.0);
                if i == 0 && round.answer.repeats > 0 {
                    note["repeats"] = json!(round.answer.repeats);
                }
                all.push(note);
            }
        }
        all.extend(self.unanswered.iter().filter_map(|note| serde_json::to_value(note).ok()));
        Value::Array(all)
    }

    /// What was done to get from what a model said to the answer.
    pub(in crate::pipeline) fn repairs(&self) -> Value {
        let described = self.rounds.iter().enumerate().filter_map(|(i, round)| {
            let what = match (round.sanitizer, i) {
                (true, _) => "sanitizer",
                (false, 0) => return None,
                (false, _) => "asked-again",
            };
            let before = &self.rounds[i - 1].reading.findings;
            Some(json!({ "what": what, "model": round.answer.model_name, "because": before }))
        });
        Value::Array(described.collect())
    }

    /// All tries of all hops together.
    pub(in crate::pipeline) fn usage(&self) -> record::Usage {
        let mut sum = self.before.clone().and(&Usage::of(&self.unanswered));
        for round in &self.rounds {
            sum = sum.and(&round.answer.usage);
        }
        // Nothing was asked, so nothing has a price.
        let cost = sum.cost.filter(|_| self.tries() > 0);
        record::Usage { input_tokens: sum.input_tokens, output_tokens: sum.output_tokens, cost }
    }

    /// What this hop's tries draw from the task's time, those of stored answers among them.
    pub(super) fn charged_ms(&self) -> u64 {
        self.notes_of_tries().map(TryNote::charged_ms).sum()
    }

    /// The same of its money.
    pub(super) fn charged_cost(&self) -> f64 {
        let stored = self.rounds.iter().filter_map(|r| r.answer.usage.cost);
        stored.chain(self.unanswered.iter().filter_map(|t| t.cost)).sum()
    }

    /// What the task takes along to its next hop: what the slots do not hold, and nothing twice.
    pub(in crate::pipeline) fn carry(&self, before: &Carry, now: Timestamp) -> Carry {
        let mut carry = before.clone();
        self.notes(&mut carry.trail);
        carry.told_until = now;
        let spent = Usage::of(&self.unanswered);
        carry.spent_ms += self.unanswered.iter().map(TryNote::charged_ms).sum::<u64>();
        carry.spent_cost += self.unanswered.iter().filter_map(|t| t.cost).sum::<f64>();
        carry.unpriced |= spent.cost.is_none();
        carry.spent_tokens.0 += spent.input_tokens;
        carry.spent_tokens.1 += spent.output_tokens;
        let tries = u32::try_from(self.unanswered.len()).unwrap_or(u32::MAX);
        carry.tries = carry.tries.saturating_add(tries);
        carry.broken_off = carry.broken_off.saturating_add(self.broken_off());
        carry
    }

    /// Answers that broke off in this hop, in tries for slots that got no other.
    pub(super) fn broken_off(&self) -> u32 {
        let broken = self.unanswered.iter().filter(|t| t.broke_off()).count();
        u32::try_from(broken).unwrap_or(u32::MAX)
    }

    pub(in crate::pipeline) fn made_by(&self, configuration: &str) -> MadeBy {
        let last = self.rounds.last().map(|r| &r.answer);
        MadeBy {
            model: last.map(|a| a.model.clone()),
            provider: last.map(|a| a.provider.clone()),
            endpoint: last.map(|a| a.endpoint.clone()),
            configuration: configuration.to_owned(),
            prompt: self.prompt.clone(),
            schema: self.schema.clone(),
            tidegate: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
