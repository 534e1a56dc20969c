//! What a person is asked, and why.

use crate::outcome::Reason;
use crate::validate::{Finding, Reading, Severity};
use crate::weigh::Why;
use serde_json::Value;

pub(in crate::pipeline) struct Question {
    /// Every trigger, the strongest first; never empty.
    pub(in crate::pipeline) why: Vec<Why>,
    /// What would be published if approved; where the findings say that it does not satisfy the schema,
    /// what came nearest, to be edited.
    pub(in crate::pipeline) answer: Option<Value>,
    /// The model's words, where they could not be read.
    pub(in crate::pipeline) answer_text: Option<String>,
    pub(in crate::pipeline) findings: Vec<Finding>,
}

/// A model's words are kept up to here for the reviewer.
const TEXT_MAX: usize = 64 * 1024;

impl Question {
    pub(super) fn about(answer: Value, why: Vec<Why>, findings: Vec<Finding>) -> Self {
        Question { why, answer: Some(answer), answer_text: None, findings }
    }

    pub(super) fn no_valid_answer(reading: &Reading, text: &str) -> Self {
        let findings = reading.findings.clone();
        let mut all: Vec<Why> = findings
            .iter()
            .map(|f| why(Reason::AnswerInvalid, Some(f.path.clone()), f.message.clone()))
            .collect();
        if all.is_empty() {
            all.push(why(Reason::AnswerInvalid, None, "no answer could be read".to_owned()));
        }
        Question {
            why: all,
            answer: reading.nearest.clone(),
            answer_text: Some(cut(text.to_owned())),
            findings,
        }
    }

    pub(super) fn told(reason: Reason, detail: String, text: String) -> Self {
        let answer_text = Some(cut(text));
        Question { why: vec![why(reason, None, detail)], answer: None, answer_text, findings: vec![] }
    }

    /// Says too why it was not asked again.
    #[must_use]
    pub(super) fn besides(mut self, given_up: Option<(Reason, String)>) -> Self {
        let told = given_up.map(|(r, detail)| why(r, None, format!("it could not be asked again: {detail}")));
        self.why.extend(told);
        self
    }

    /// Asked instead of `last`, which was answered and could not be used: it is shown as well.
    #[must_use]
    pub(super) fn after(mut self, last: &Reading) -> Self {
        let before = Question::no_valid_answer(last, "");
        self.why.extend(before.why);
        Question { answer: before.answer, findings: before.findings, ..self }
    }

    pub(in crate::pipeline) fn reason(&self) -> Reason {
        self.why.first().map_or(Reason::AnswerInvalid, |w| w.reason)
    }

    pub(in crate::pipeline) fn code(&self) -> &'static str {
        self.reason().code()
    }

    /// One sentence at the top of the item.
    pub(in crate::pipeline) fn sentence(&self) -> String {
        let Some(first) = self.why.first() else { return "no answer could be read".to_owned() };
        let field = match first.field.as_deref() {
            // Most details name their field; the message of a rule does not.
            Some(field) if !first.detail.contains(field) => format!("{field}: "),
            _ => String::new(),
        };
        let more = match self.why.len() - 1 {
            0 => String::new(),
            1 => " (and one more reason)".to_owned(),
            n => format!(" (and {n} more reasons)"),
        };
        format!("{field}{}{more}", first.detail)
    }

    pub(in crate::pipeline) fn summary(&self) -> String {
        format!("{}: {}", self.reason(), self.sentence())
    }

    pub(in crate::pipeline) fn severity(&self) -> String {
        let worst = self.why.first().map(|w| w.severity).unwrap_or_default();
        serde_json::to_value(worst).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

fn why(reason: Reason, field: Option<String>, detail: String) -> Why {
    Why { reason, field: field.filter(|f| !f.is_empty()), detail, severity: Severity::Major }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
