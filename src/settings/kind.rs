//! A task kind as meant: where its records come from, what is asked of which models, where it goes.
//!
//! Everything is compiled here once (expressions, schemas, prompts, rules); no stage parses
//! configuration again.

use super::parts::{Expression, Model, Prompt, ReviewRules, Rule, Schema};
use crate::task::{PrintRule, Topic};
use std::sync::Arc;
use std::time::Duration;

/// One `[tasks.NAME]`.
pub struct Kind {
    pub name: Arc<str>,
    /// `from`: the topic whose records are this kind's tasks. Default `{prefix}tasks.{name}`.
    pub from: Topic,
    /// Whether `from` names a topic that Tidegate did not make for this kind.
    pub from_existing: bool,
    /// `to`: where results go. Default `{prefix}results`.
    pub to: Topic,
    /// `type`: the CloudEvents type of this kind's records. `None`: the kind has its topic to itself.
    pub ce_type: Option<String>,
    /// `key`: finds the idempotency key; evaluated over `task` and `headers`.
    pub key: Option<Expression>,
    /// `key = "content"`: a hash of the payload is the key where no header carries one.
    pub content_key: bool,
    /// `identity`: what a fingerprint is taken of.
    pub identity: PrintRule,
    pub on_conflict: OnConflict,
    /// `input`: what a payload must satisfy.
    pub input: Option<Schema>,
    pub shape: Shape,
    /// Empty: the kind copies its payload to its results.
    pub plan: Vec<Step>,
    /// Checked against every answer.
    pub rules: Vec<Rule>,
    pub review: ReviewRules,
    pub allowance: AllowanceSettings,
    /// `deadline`: how long after acceptance calls stop, where the record carries no deadline of its own.
    pub deadline: Option<Duration>,
    /// `data`: only models that `allows` it may ever see this kind's tasks.
    pub data: Option<Arc<str>>,
    /// First 16 hex digits of BLAKE3 over everything of this kind that decides its outcomes; for `made_by`.
    pub digest: String,
}

/// What happens to a second payload under a known key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnConflict {
    /// Dead letter `key-conflict`.
    #[default]
    Bury,
    /// Counted and completed silently, like a duplicate.
    Ignore,
}

/// How a result looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    #[default]
    Envelope,
    /// The bare answer; the rest is in headers.
    Answer,
}

/// One step of a plan.
pub struct Step {
    /// What later expressions call its answer. A kind without `steps` has one, `answer`.
    pub name: Arc<str>,
    pub what: StepKind,
}

/// What a step does. `transcribe`, `use`, `remember`, `recall` and `say` will stand here.
pub enum StepKind {
    Ask(Ask),
}

/// Asks a line-up of models with a prompt and an answer schema.
pub struct Ask {
    pub prompt: Prompt,
    pub answer: Schema,
    /// In the order of preference; never empty.
    pub models: Vec<Arc<Model>>,
    /// Asked once when asking again did not help. Default: the first model.
    pub sanitizer: Option<Arc<Model>>,
    /// First 8 hex digits of BLAKE3 over prompt and schema: slot names carry it, so that a deploy
    /// which changes what is asked asks anew.
    pub digest: String,
}

/// What may be spent on one task, over all its tries, hops and restarts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AllowanceSettings {
    /// Time in calls; waiting for a person or parked does not count. Default 10 min.
    pub time: Duration,
    /// In the currency of the models' prices. Default: no limit.
    pub money: Option<f64>,
    /// Tries per slot over all models. Default 6, at most 100.
    pub tries: u32,
}
