//! A task kind as meant: where its records come from, what is asked of which models, where it goes.
//!
//! Everything is compiled here once (expressions, schemas, prompts, rules); no stage parses
//! configuration again.

use super::bounds::{choice, name_is_plain, within};
use super::catalogue::Catalogue;
use super::context::Context;
use super::intake;
use super::plan;
use super::raw::RawKind;
use super::review;
use super::topics::TopicNames;
use crate::cel::Expression;
use crate::dedupe::Slot;
use crate::infer::{Model, Prompt};
use crate::task::{PrintRule, Topic};
use crate::validate::{Rule, Schema};
use crate::weigh::ReviewRules;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;

/// One `[tasks.NAME]`.
pub struct Kind {
    pub name: Arc<str>,
    /// The topic whose records are this kind's tasks.
    pub from: Topic,
    /// Whether `from` was written, so that others may write records there that know nothing of us.
    pub from_existing: bool,
    /// Where results go.
    pub to: Topic,
    /// The CloudEvents type of this kind's records. `None`: the kind has its topic to itself.
    pub ce_type: Option<String>,
    /// Finds the idempotency key; evaluated over `task` and `headers`.
    pub key: Option<Expression>,
    /// `key = "content"`: a hash of the payload is the key where no header carries one.
    pub content_key: bool,
    /// What a fingerprint is taken of.
    pub identity: PrintRule,
    pub on_conflict: OnConflict,
    /// Whether the ledger is asked who may publish for a key. Always, where there are steps.
    pub dedupe: bool,
    /// What a payload must satisfy.
    pub input: Option<Schema>,
    pub shape: Shape,
    /// How the values of its records are written.
    pub format: Format,
    /// The schema that JSON which is sent to us is written with, where records are Avro.
    pub intake_schema: Option<u32>,
    pub result_format: Format,
    /// Empty: the kind copies its payload to its results.
    pub plan: Vec<Step>,
    /// Checked against every answer.
    pub rules: Vec<Rule>,
    pub review: ReviewRules,
    pub allowance: AllowanceSettings,
    /// How long after acceptance calls stop, where the record carries no deadline of its own.
    pub deadline: Option<Duration>,
    /// Only models that `allows` this label may ever see this kind's tasks.
    pub data: Option<Arc<str>>,
}

impl Kind {
    /// The models its question goes to; `None` where none is asked.
    pub fn lineup(&self) -> Option<&[Arc<Model>]> {
        self.plan
            .iter()
            .map(|step| match &step.what {
                StepKind::Ask(ask) => ask.models.as_slice(),
            })
            .next()
    }

    /// What its answer must satisfy; `None` where no model is asked.
    pub fn answer_schema(&self) -> Option<&Schema> {
        self.plan
            .iter()
            .map(|step| match &step.what {
                StepKind::Ask(ask) => &ask.answer,
            })
            .next_back()
    }
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

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    #[default]
    Json,
    /// In the wire format of a schema registry.
    Avro,
}

/// One step of a plan.
pub struct Step {
    /// What rules call its answer. A kind without `steps` has one, `answer`.
    pub name: Arc<str>,
    pub what: StepKind,
}

impl Step {
    /// The slot of the effect that the step has on the world. Steps that ask have none.
    pub fn effect(&self) -> Option<Slot> {
        match &self.what {
            StepKind::Ask(_) => None,
        }
    }
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
    /// Asked once when asking again did not help. `None`: a person is asked at once.
    pub sanitizer: Option<Arc<Model>>,
    /// First 8 hex digits of BLAKE3 over prompt, schema and the models' parameters: slot names carry it,
    /// so that a deploy which changes what is asked asks anew.
    pub digest: String,
}

/// What may be spent on one task, over all its tries, hops and restarts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AllowanceSettings {
    /// Time in calls that are the task's own doing; see `infer::Allowance`.
    pub time: Duration,
    /// In the currency of the models' prices. `None`: no limit.
    pub money: Option<f64>,
    /// Tries per slot, over all models.
    pub tries: u32,
}

impl Kind {
    /// `None` where something was wrong; the report says what.
    pub(super) fn resolve(
        name: &Spanned<String>,
        raw: &RawKind,
        topics: &TopicNames,
        prefix: &str,
        catalogue: &Catalogue<'_>,
        cx: &Context<'_>,
    ) -> Option<Kind> {
        let before = cx.report.count();
        let place = super::written::path("tasks", name.get_ref());
        if !name_is_plain(name.get_ref()) {
            let help = "at most 64 letters, digits, `.`, `-`, `_`: it is part of a topic's name";
            cx.report.add(name.span(), format!("`{}` cannot be the name of a kind", name.get_ref()), help);
        }
        let intake = intake::resolve(name, raw, topics, prefix, cx);
        let plan = plan::resolve(name, raw, intake.input.as_ref(), catalogue, cx);
        let (rules, review) = review::resolve(name, raw, plan.as_deref(), intake.input.as_ref(), cx);
        let allowance = AllowanceSettings::resolve(&raw.allowance.or_default(), plan.as_deref(), &place, cx);
        let year = Duration::from_secs(366 * 86_400);
        let deadline =
            within(&raw.deadline, &format!("{place}.deadline"), Duration::from_secs(1)..=year, cx.report);
        let shapes = [("envelope", Shape::Envelope), ("answer", Shape::Answer)];
        let shape = choice(&raw.shape, &format!("{place}.shape"), &shapes, cx.report).unwrap_or_default();
        let dedupe = raw.dedupe.or(true);
        if !dedupe && plan.as_ref().is_some_and(|plan| !plan.is_empty()) {
            let what = format!("`{place}.dedupe` is off for a kind that asks models");
            let help =
                "leave it out: without the ledger every copy, and every restart, would buy its answers again";
            cx.report.add(raw.dedupe.span().unwrap_or(0..0), what, help);
        }
        let formats = [("json", Format::Json), ("avro", Format::Avro)];
        let format = choice(&raw.format, &format!("{place}.format"), &formats, cx.report).unwrap_or_default();
        let result_format =
            choice(&raw.result_format, &format!("{place}.result_format"), &formats, cx.report)
                .unwrap_or_default();
        let ids = 0..=i32::MAX.unsigned_abs().into();
        let intake_schema = within(&raw.intake_schema, &format!("{place}.intake_schema"), ids, cx.report);
        if cx.report.count() > before {
            return None;
        }
        let plan = plan?;
        Some(Kind {
            name: Arc::from(name.get_ref().as_str()),
            from: intake.from,
            from_existing: intake.from_existing,
            to: intake.to,
            ce_type: raw.ce_type.get().cloned(),
            key: intake.key,
            content_key: intake.content_key,
            identity: intake.identity,
            on_conflict: intake.on_conflict,
            dedupe,
            input: intake.input,
            shape,
            format,
            intake_schema: intake_schema.and_then(|id| u32::try_from(id).ok()),
            result_format,
            plan,
            rules,
            review,
            allowance,
            deadline,
            data: raw.data.get().map(|label| Arc::from(label.as_str())),
        })
    }
}
