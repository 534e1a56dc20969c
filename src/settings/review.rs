//! When a person looks at an answer: the kind's rules, its line, its start; and what a task may spend.

use super::bounds::{choice, within};
use super::context::Context;
use super::fields;
use super::kind::{AllowanceSettings, Step, StepKind};
use super::raw::{RawAllowance, RawKind, RawReview, RawRule};
use super::written::{closest, path};
use crate::cel::{ExpressionError, OURS};
use crate::validate::{Rule, Schema};
use crate::weigh::{LINE, ReviewRules, SAMPLE, Start};
use std::time::Duration;
use toml::Spanned;

/// Rules are evaluated one by one for every answer.
const RULES_MAX: usize = 100;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The kind's rules and how it is reviewed.
pub(super) fn resolve(
    name: &Spanned<String>,
    raw: &RawKind,
    plan: Option<&[Step]>,
    input: Option<&Schema>,
    cx: &Context<'_>,
) -> (Vec<Rule>, ReviewRules) {
    let place = path("tasks", name.get_ref());
    let ask = plan.and_then(<[_]>::first).map(|step| match &step.what {
        StepKind::Ask(ask) => ask,
    });
    let written_name = raw.steps.get().and_then(|s| s.first()).and_then(|s| s.get_ref().name.get());
    let step_name = written_name.map_or("answer", String::as_str);
    let seen = Seen { step: step_name, answer: ask.map(|a| &a.answer), input };
    (rules(raw, &seen, &place, cx), review_rules(&raw.review.or_default(), &seen, &place, cx))
}

/// What rules and critical fields are about.
struct Seen<'s> {
    /// The step's name, another one for `answer`.
    step: &'s str,
    answer: Option<&'s Schema>,
    input: Option<&'s Schema>,
}

fn rules(raw: &RawKind, seen: &Seen<'_>, place: &str, cx: &Context<'_>) -> Vec<Rule> {
    let Some(given) = raw.rules.given() else { return Vec::new() };
    if given.get_ref().len() > RULES_MAX {
        let what = format!("`{place}.rules` has {} rules", given.get_ref().len());
        cx.report.add(given.span(), what, format!("at most {RULES_MAX}; join some with `&&`"));
    }
    given.get_ref().iter().filter_map(|r| rule(r, seen, place, cx)).collect()
}

fn rule(raw: &Spanned<RawRule>, seen: &Seen<'_>, place: &str, cx: &Context<'_>) -> Option<Rule> {
    if raw.get_ref().that.is_absent() {
        let help = "add that = \"answer.amount > 0\": an expression that must be true";
        cx.report.add(raw.span(), format!("a rule of [{place}] has no `that`"), help);
    }
    let given = raw.get_ref().that.given()?;
    let message = raw.get_ref().message.or(format!("`{}` does not hold", given.get_ref()));
    let critical = raw.get_ref().critical.or(false);
    let each = raw.get_ref().each.get().map(String::as_str);
    match Rule::compile(given.get_ref(), each, &message, critical, &[seen.step]) {
        Ok(rule) => {
            for root in ["task", "answer", seen.step] {
                if let Some(schema) = if root == "task" { seen.input } else { seen.answer } {
                    fields::check(&rule.that, root, schema, given.span(), cx);
                    fields::check_truth(&rule.that, root, schema, given.span(), cx);
                    if let (Some(each), Some(written)) = (&rule.each, raw.get_ref().each.given()) {
                        fields::check(each, root, schema, written.span(), cx);
                    }
                }
            }
            Some(rule)
        }
        Err(ExpressionError::NoTruth(wrong)) => {
            let what = format!("a rule of [{place}] {wrong}");
            cx.report.add(given.span(), what, fields::COMPARE);
            None
        }
        Err(e) => {
            let help = match e {
                ExpressionError::UnknownFunction { .. } => OURS,
                _ => "an expression in CEL that must be true, over `task` and `answer`",
            };
            cx.report.add(given.span(), format!("a rule of [{place}] does not compile: {e}"), help);
            None
        }
    }
}

fn review_rules(raw: &RawReview, seen: &Seen<'_>, place: &str, cx: &Context<'_>) -> ReviewRules {
    let name = |key: &str| format!("{place}.review.{key}");
    let line = within(&raw.below, &name("below"), 0.0..=1.0, cx.report).unwrap_or(LINE);
    let share = within(&raw.share, &name("share"), 0.0..=1.0, cx.report).unwrap_or(SAMPLE);
    let starts = [("all", Start::All), ("sample", Start::Sample { share }), ("line", Start::Line)];
    let start = choice(&raw.start, &name("start"), &starts, cx.report).unwrap_or(Start::Sample { share });
    if let (Some(given), false) = (raw.share.given(), matches!(start, Start::Sample { .. })) {
        let help = "leave it out, or set start = \"sample\"";
        cx.report.add(given.span(), format!("`{}` has no effect with this `start`", name("share")), help);
    }
    ReviewRules {
        line,
        start,
        critical: critical(raw, seen, cx),
        team: raw.team.get().cloned(),
        due: within(&raw.due, &name("due"), SECOND..=DAY * 366, cx.report),
    }
}

/// Paths into the answer, the step's name taken off the front.
fn critical(raw: &RawReview, seen: &Seen<'_>, cx: &Context<'_>) -> Vec<String> {
    let fields = seen.answer.map(Schema::fields);
    let given = raw.critical.get().map_or(&[][..], Vec::as_slice);
    let resolve = |written: &Spanned<String>| {
        let text = written.get_ref().as_str();
        let bare = [seen.step, "answer"].iter().find_map(|n| text.strip_prefix(n)?.strip_prefix('.'));
        // A field of the answer may itself be called like the step.
        let known = |path: &str| fields.is_none_or(|all| all.iter().any(|f| covers(path, f)));
        match bare {
            Some(bare) if known(bare) => return bare.to_owned(),
            _ if known(text) => return text.to_owned(),
            _ => {}
        }
        let all = fields.unwrap_or(&[]);
        let help = match closest(bare.unwrap_or(text), all.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("its fields: {}", all.join(", ")),
        };
        cx.report.add(written.span(), format!("the answer has no field \"{text}\""), help);
        text.to_owned()
    };
    given.iter().map(resolve).collect()
}

/// Whether `path` is the field or a part of the answer that holds it.
fn covers(path: &str, field: &str) -> bool {
    field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl AllowanceSettings {
    pub(super) fn resolve(raw: &RawAllowance, plan: Option<&[Step]>, place: &str, cx: &Context<'_>) -> Self {
        let name = |key: &str| format!("{place}.allowance.{key}");
        let time = within(&raw.time, &name("time"), SECOND..=DAY, cx.report);
        let money = within(&raw.money, &name("money"), 0.0..=1e9, cx.report);
        let tries = within(&raw.tries, &name("tries"), 1..=100, cx.report).unwrap_or(6);
        if let Some(given) = raw.money.given().filter(|money| *money.get_ref() == 0.0) {
            let help = "no call could be made; leave it out for no limit";
            cx.report.add(given.span(), format!("`{}` is 0", name("money")), help);
        }
        if let Some(given) = raw.money.given() {
            unpriced(plan, given, &name("money"), cx);
        }
        AllowanceSettings {
            time: time.unwrap_or(SECOND * 600),
            money,
            tries: u32::try_from(tries).unwrap_or(u32::MAX),
        }
    }
}

/// A limit on money that cannot be counted would not be one.
fn unpriced(plan: Option<&[Step]>, money: &Spanned<f64>, name: &str, cx: &Context<'_>) {
    for step in plan.unwrap_or_default() {
        let StepKind::Ask(ask) = &step.what;
        for model in ask.models.iter().chain(&ask.sanitizer).filter(|m| m.price.is_none()) {
            let what = format!("`{name}` cannot be kept: the price of `{}` is not known", model.name);
            let table = path("models", &model.name);
            let help =
                format!("add price = {{ input = 0.25, output = 2.0 }} to [{table}], per million tokens");
            cx.report.add(money.span(), what, help);
        }
    }
}
