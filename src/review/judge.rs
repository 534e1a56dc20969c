//! Whether a decision can be carried out: the one rule for who tells a person at once, and for the
//! arbiter, whose word it is.

use super::queue::Item;
use crate::consume::Kinds;
use crate::finding::Finding;
use crate::validate::check_rules;
use crate::write::record::Action;
use serde_json::Value;

/// What is wrong with a decision.
#[derive(PartialEq, Debug, thiserror::Error)]
pub enum Wrong {
    #[error("there is no valid answer to approve; edit or reject")]
    NothingToApprove,
    #[error("an edit needs an answer")]
    NoAnswer,
    /// Never empty.
    #[error("{}", .0.first().map_or("the answer does not satisfy its schema", |f| f.message.as_str()))]
    Schema(Vec<Finding>),
}

/// An edit must satisfy the schema; there must be something to approve. Where `answer_text` is given no
/// answer was valid, and what is proposed is at most the nearest.
pub fn judge(kinds: &Kinds, item: &Item, action: Action, answer: Option<&Value>) -> Result<(), Wrong> {
    match action {
        Action::Approve if item.body.answer_text.is_some() => Err(Wrong::NothingToApprove),
        Action::Approve | Action::Reject => Ok(()),
        Action::Edit => {
            let answer = answer.ok_or(Wrong::NoAnswer)?;
            let schema = kinds.named(&item.body.proposed.kind).and_then(|k| k.answer_schema());
            let findings = schema.map(|s| s.check(answer)).unwrap_or_default();
            if findings.is_empty() { Ok(()) } else { Err(Wrong::Schema(findings)) }
        }
    }
}

/// What an edited answer breaks of its kind's rules. Told at the door only: a person may break a rule on
/// purpose, so the arbiter does not ask.
pub fn broken_rules(kinds: &Kinds, item: &Item, answer: &Value) -> Vec<Finding> {
    let Some(kind) = kinds.named(&item.body.proposed.kind) else { return Vec::new() };
    let step = kind.plan.first().map_or("answer", |step| &step.name);
    check_rules(&kind.rules, &item.body.payload, answer, step)
}
