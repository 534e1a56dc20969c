//! The step `ask`: one question to a line-up of models, asked again where the answer was bad, and
//! weighed before anything else may happen.
//!
//! Rounds: the first question, at most two more that quote what was wrong, then the sanitizer once,
//! then a person. Each round is one slot, so a resumed task repeats none that was answered. A rule
//! that fails is not asked again: a model told which number would pass will give that number.
//!
//! What keeps the first question from being answered may end the task. What keeps it from being asked
//! again does not: there is an answer, and a person gets it.

mod known;
mod question;

pub(super) use known::Known;
pub(super) use question::Question;

use super::Pipeline;
use crate::consume::Task;
use crate::dedupe::{Claim, Slot, SlotKind, SlotName, Slots};
use crate::infer::{Allowance, Answer, Call, Called, Model, Request, Turn};
use crate::outcome::Reason;
use crate::settings::{Ask, Step};
use crate::task::Timestamp;
use crate::validate::{self, Reading};
use crate::weigh::{self, Verdict};
use serde_json::Value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Times a bad answer is sent back with what was wrong; more rarely helps and always costs.
const ASK_AGAIN_MAX: u32 = 2;
/// Round number of the sanitizer in slot names.
const SANITIZER_ROUND: u32 = ASK_AGAIN_MAX + 1;

/// What came of the step.
pub(super) enum Asked {
    GoOn,
    Person(Question),
    Park { until: Timestamp, why: String },
    Dead(Reason, String),
    Stale,
    Gone,
}

/// What every round of a step needs to know.
pub(super) struct Asking<'a> {
    pub(super) task: &'a Task,
    pub(super) claim: &'a Claim,
    /// The answers that admission found stored.
    pub(super) slots: &'a Slots,
    pub(super) step: &'a Step,
    pub(super) ask: &'a Ask,
    pub(super) void: &'a CancellationToken,
}

impl Pipeline {
    pub(super) async fn ask(&self, asking: &Asking<'_>, known: &mut Known) -> Asked {
        let value = match self.rounds(asking, known).await {
            Ok(Ok(value)) => value,
            Ok(Err(reading)) => {
                let question = Question::no_valid_answer(&reading, known.last_text());
                return Asked::Person(question.besides(known.given_up()));
            }
            Err(ended) => return ended,
        };
        let Asking { task, step, ask, claim, .. } = asking;
        let mut findings = validate::check_rules(&task.kind.rules, &task.payload, &value, &step.name);
        findings.extend(known.outside_scope());
        let evidence = known.evidence(&findings, &ask.answer, &value);
        let confidence = weigh::weigh(&evidence, ask.answer.fields(), &value);
        let draw = weigh::draw_of(&claim.token.key.to_bytes(), claim.token.generation);
        let verdict = weigh::verdict(&confidence, &findings, &task.kind.review, draw);
        known.finish(step, ask, value.clone(), confidence);
        match verdict {
            Verdict::GoOn => Asked::GoOn,
            Verdict::Person(why) => Asked::Person(Question::about(value, why, findings)),
        }
    }

    /// The value that satisfies the schema, or the last reading that did not.
    async fn rounds(&self, asking: &Asking<'_>, known: &mut Known) -> Result<Result<Value, Reading>, Asked> {
        let ask = asking.ask;
        let prompt = ask
            .prompt
            .render(&asking.task.payload)
            .map_err(|e| Asked::Dead(Reason::TemplateFailed, e.to_string()))?;
        let mut request = Request::new(prompt, Some(ask.answer.shared()));
        let mut last = self.round(asking, 0, &ask.models, &request, known).await?;
        for round in 1..=ASK_AGAIN_MAX {
            if last.value.is_some() {
                break;
            }
            // A blank turn is refused by providers; that the answer was empty, the findings say.
            if !known.last_text().trim().is_empty() {
                request.turns.push(Turn::Assistant(known.last_text().to_owned()));
            }
            request.turns.push(Turn::User(validate::ask_again(&last.findings)));
            match self.again(asking, round, &ask.models, &request, &last, known).await? {
                Some(reading) => last = reading,
                None => break,
            }
        }
        match (last.value.take(), &ask.sanitizer) {
            (Some(value), _) => Ok(Ok(value)),
            (None, None) => Ok(Err(last)),
            (None, Some(sanitizer)) => self.sanitize(asking, sanitizer, last, known).await,
        }
    }

    /// Another model, once, mends what asking again did not; where it is away, one of the line-up.
    async fn sanitize(
        &self,
        asking: &Asking<'_>,
        sanitizer: &Arc<Model>,
        bad: Reading,
        known: &mut Known,
    ) -> Result<Result<Value, Reading>, Asked> {
        let schema = &asking.ask.answer;
        if known.last_text().trim().is_empty() {
            return Ok(Err(bad));
        }
        let words = validate::sanitizer_request(known.last_text(), &bad.findings, schema);
        let request = Request::new(words, Some(schema.shared()));
        // A sanitizer that is away does not hold up a task whose own models serve.
        let others = asking.ask.models.iter().filter(|m| m.name != sanitizer.name);
        let lineup: Vec<Arc<Model>> = std::iter::once(sanitizer).chain(others).cloned().collect();
        let asked = self.again(asking, SANITIZER_ROUND, &lineup, &request, &bad, known).await?;
        let Some(mut mended) = asked else { return Ok(Err(bad)) };
        match mended.value.take() {
            Some(value) => {
                known.sanitized(validate::edits(bad.nearest.as_ref(), &value, &bad.findings));
                Ok(Ok(value))
            }
            None => Ok(Err(mended)),
        }
    }

    /// A round after the first. `None`: the answer there is, `last`, is all there will be.
    async fn again(
        &self,
        asking: &Asking<'_>,
        round: u32,
        lineup: &[Arc<Model>],
        request: &Request,
        last: &Reading,
        known: &mut Known,
    ) -> Result<Option<Reading>, Asked> {
        match self.round(asking, round, lineup, request, known).await {
            Err(Asked::Dead(
                reason @ (Reason::ContextTooLong | Reason::PayloadRefused | Reason::AllowanceSpent),
                detail,
            )) => {
                known.give_up(reason, detail);
                Ok(None)
            }
            Err(Asked::Person(question)) => Err(Asked::Person(question.after(last))),
            asked => asked.map(Some),
        }
    }

    /// One round is one slot: asked once, whatever happens to this process.
    async fn round(
        &self,
        asking: &Asking<'_>,
        round: u32,
        lineup: &[Arc<Model>],
        request: &Request,
        known: &mut Known,
    ) -> Result<Reading, Asked> {
        let slot = slot(asking, round);
        let mut allowance = self.allowance(asking.task, known);
        let call = Call {
            journal: &self.engine.journal,
            claim: asking.claim,
            slot: &slot,
            stored: asking.slots.get(&slot.name),
            lineup,
            request,
            allowance: &mut allowance,
            deadline: known.deadline(),
            cancel: asking.void,
        };
        match self.models.call(call).await {
            Called::Answer(answer) => Ok(read(slot, *answer, round, asking, known)),
            Called::Stale => Err(Asked::Stale),
            Called::Cancelled => Err(Asked::Gone),
            // Only effects are barred; a barred call means the task was settled elsewhere.
            Called::Barred => Err(Asked::Stale),
            Called::Park { wait, why, tries } => {
                known.tried(tries);
                let until = Timestamp::now().plus(wait);
                // What the deadline ends is not left lying beyond it.
                Err(Asked::Park { until: known.deadline().map_or(until, |d| until.min(d)), why })
            }
            Called::Dead { reason, detail, tries } => {
                known.tried(tries);
                Err(Asked::Dead(reason, detail))
            }
            Called::Person { ended, said } => {
                let text = said.text.clone();
                known.hear(slot, *said, round == SANITIZER_ROUND, Reading::default());
                Err(Asked::Person(Question::told(ended.reason, ended.detail, text)))
            }
        }
    }

    /// What is left of the task's allowance, over all its hops.
    fn allowance(&self, task: &Task, known: &Known) -> Allowance {
        let limits = &task.kind.allowance;
        let spent = std::time::Duration::from_millis(task.carry.spent_ms + known.charged_ms());
        let money = task.carry.spent_cost + known.charged_cost();
        Allowance {
            time: limits.time.saturating_sub(spent),
            money: limits.money.map(|most| most - money),
            tries: limits.tries,
            halves: limits.tries.saturating_sub(task.carry.broken_off.saturating_add(known.broken_off())),
        }
    }
}

fn read(slot: Slot, answer: Answer, round: u32, asking: &Asking<'_>, known: &mut Known) -> Reading {
    let reading = validate::read_answer(&answer.text, &asking.ask.answer);
    known.hear(slot, answer, round == SANITIZER_ROUND, reading.clone());
    reading
}

/// Step, round, and a digest of what the step means: a deploy that changes it asks anew.
fn slot(asking: &Asking<'_>, round: u32) -> Slot {
    let name = format!("{}.r{round}#{}", asking.step.name, asking.ask.digest);
    Slot { name: SlotName(name.into()), kind: SlotKind::Call }
}
