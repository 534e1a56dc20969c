//! What makes a record a task of a kind: its topic, type, key, payload and identity; and where results go.

use super::bounds::{choice, name_is_plain};
use super::context::Context;
use super::fields;
use super::kind::OnConflict;
use super::plan::schema;
use super::raw::RawKind;
use super::topics::TopicNames;
use super::written::{Field, path};
use crate::cel::Expression;
use crate::task::{PrintRule, Topic};
use crate::validate::Schema;
use toml::Spanned;

pub(super) struct Intake {
    pub(super) from: Topic,
    pub(super) from_existing: bool,
    pub(super) to: Topic,
    pub(super) key: Option<Expression>,
    pub(super) content_key: bool,
    pub(super) identity: PrintRule,
    pub(super) on_conflict: OnConflict,
    pub(super) input: Option<Schema>,
}

/// What a `key` rule is evaluated over.
const KEY_NAMES: [&str; 2] = ["task", "headers"];
/// The word that stands for a hash of the payload.
const CONTENT: &str = "content";

pub(super) fn resolve(
    name: &Spanned<String>,
    raw: &RawKind,
    topics: &TopicNames,
    prefix: &str,
    cx: &Context<'_>,
) -> Intake {
    let place = path("tasks", name.get_ref());
    let own = format!("{prefix}tasks.{}", name.get_ref());
    let from = topic(&raw.from, &format!("{place}.from"), topics, cx).unwrap_or_else(|| Topic::new(&own));
    let to = topic(&raw.to, &format!("{place}.to"), topics, cx).unwrap_or_else(|| topics.results.clone());
    let from_existing = from.as_str() != own;
    check_ends(raw, &from, &to, from_existing, cx);
    let (key, content_key) = key(&raw.key, &place, cx);
    let input = schema(&raw.input, &format!("{place}.input"), "input schema", cx);
    if let (Some(key), Some(input)) = (&key, &input) {
        fields::check(key, "task", input, raw.key.span().unwrap_or_default(), cx);
    }
    let conflicts = [("bury", OnConflict::Bury), ("ignore", OnConflict::Ignore)];
    let on_conflict = choice(&raw.on_conflict, &format!("{place}.on_conflict"), &conflicts, cx.report);
    let identity = identity(raw, &place, input.as_ref(), cx);
    Intake {
        from,
        from_existing,
        to,
        key,
        content_key,
        identity,
        on_conflict: on_conflict.unwrap_or_default(),
        input,
    }
}

/// A topic that was written; not one of those where token headers are believed.
fn topic(field: &Field<String>, place: &str, topics: &TopicNames, cx: &Context<'_>) -> Option<Topic> {
    let given = field.given()?;
    let topic = Topic::new(given.get_ref());
    if topic.as_str().len() > 249 || !topic.as_str().split('.').all(name_is_plain) {
        let help = "at most 249 letters, digits, `-`, `_`, and `.` between them";
        cx.report.add(given.span(), format!("`{place}` is not the name of a topic"), help);
    }
    if topics.internal().contains(&&topic) || topic == topics.dead_letters {
        let help = "kinds have topics of their own; choose another name, or another `engine.prefix`";
        cx.report.add(given.span(), format!("`{topic}` belongs to Tidegate itself"), help);
    }
    Some(topic)
}

fn check_ends(raw: &RawKind, from: &Topic, to: &Topic, existing: bool, cx: &Context<'_>) {
    let span = |field: &Field<String>| field.span().unwrap_or_default();
    if from == to {
        let at = if raw.to.is_absent() { span(&raw.from) } else { span(&raw.to) };
        let help = "its results would be its tasks again, for ever; give `to` another topic";
        cx.report.add(at, format!("this kind reads and writes `{to}`"), help);
    }
    if existing && raw.key.is_absent() {
        let help = "say where its records carry an idempotency key: key = \"task.id\", or \
                    \"headers['idempotency-key']\", or key = \"content\" for a hash of the payload";
        cx.report.add(
            span(&raw.from),
            format!("`{from}` is an existing topic, and there is no `key` rule"),
            help,
        );
    }
}

fn key(field: &Field<String>, place: &str, cx: &Context<'_>) -> (Option<Expression>, bool) {
    match field.given() {
        Some(given) if given.get_ref().trim() == CONTENT => (None, true),
        Some(given) if given.get_ref().trim().eq_ignore_ascii_case(CONTENT) => {
            let what = format!("`{place}.key` is no expression over task or headers");
            cx.report.add(given.span(), what, "did you mean \"content\", a hash of the payload?");
            (None, true)
        }
        Some(given) => (expression(given, &format!("{place}.key"), &KEY_NAMES, cx), false),
        None => (None, false),
    }
}

/// Compiles an expression that may use `names`.
pub(super) fn expression(
    given: &Spanned<String>,
    place: &str,
    names: &[&str],
    cx: &Context<'_>,
) -> Option<Expression> {
    let compiled = Expression::compile(given.get_ref()).and_then(|e| e.check_names(names).map(|()| e));
    match compiled {
        Ok(expression) => Some(expression),
        Err(e) => {
            let help = format!("an expression in CEL over {}, such as `task.id`", names.join(", "));
            cx.report.add(given.span(), format!("`{place}` does not compile: {e}"), help);
            None
        }
    }
}

fn identity(raw: &RawKind, place: &str, input: Option<&Schema>, cx: &Context<'_>) -> PrintRule {
    let Some(given) = raw.identity.given() else { return PrintRule::Whole };
    if given.get_ref().is_empty() {
        let help = "name the fields that tell one task from another, or leave `identity` out for all";
        cx.report.add(given.span(), format!("`{place}.identity` names no field"), help);
    }
    for field in given.get_ref() {
        let text = field.get_ref().as_str();
        if text.is_empty() || text.split('.').any(str::is_empty) || text.contains(['[', ']', ' ']) {
            let help = "a dotted path into the payload: \"patient.id\"";
            cx.report.add(field.span(), format!("\"{text}\" is not a path of fields"), help);
        }
        // Prompts and rules write it so. A field that is never there would give all payloads one fingerprint.
        let has_task = input.is_some_and(|schema| schema.json()["properties"]["task"].is_object());
        match text.strip_prefix("task.") {
            Some(bare) if !has_task => {
                let what = format!("`{place}.identity` begins in the payload, not at `task`");
                cx.report.add(field.span(), what, format!("write \"{bare}\""));
            }
            _ => {
                if let Some(input) = input {
                    fields::check_names(std::iter::once(text.to_owned()), "task", input, field.span(), cx);
                }
            }
        }
    }
    PrintRule::Fields(given.get_ref().iter().map(|f| f.get_ref().clone()).collect())
}
