//! What is asked of which models: the line-up, the prompt, the answer's schema, the sanitizer.
//!
//! A kind has no plan (it copies its payload) or one step, `ask`, written short or as a list of steps.

use super::catalogue::Catalogue;
use super::context::Context;
use super::fields;
use super::kind::{Ask, Step, StepKind};
use super::raw::{RawKind, RawSchema, RawStep};
use super::written::{Field, path};
use crate::infer::{Model, Prompt};
use crate::validate::Schema;
use serde_json::Value;
use std::ops::Range;
use std::sync::Arc;
use toml::Spanned;

/// The line-up bounds how long a task can wait for its last fallback.
const MODELS_MAX: usize = 8;

/// The word for no sanitizer.
const NONE: &str = "none";

/// The fields of one ask step, wherever they were written.
struct Asking<'r> {
    name: &'r str,
    /// What messages call the table, and where it stands.
    place: String,
    span: Range<usize>,
    ask: &'r Field<String>,
    answer: &'r Field<RawSchema>,
    models: &'r Field<Vec<Spanned<String>>>,
    sanitizer: &'r Field<String>,
    /// What payloads look like, where that is known.
    input: Option<&'r Schema>,
}

/// The plan; empty for a kind that copies. `None` where something is wrong.
pub(super) fn resolve(
    name: &Spanned<String>,
    raw: &RawKind,
    input: Option<&Schema>,
    catalogue: &Catalogue<'_>,
    cx: &Context<'_>,
) -> Option<Vec<Step>> {
    let place = path("tasks", name.get_ref());
    if !raw.steps.is_absent() {
        return steps(&place, raw, input, catalogue, cx);
    }
    if raw.models.is_absent() && raw.ask.is_absent() {
        copies(raw, &place, cx);
        return Some(Vec::new());
    }
    let asking = Asking {
        name: "answer",
        place,
        span: name.span(),
        ask: &raw.ask,
        answer: &raw.answer,
        models: &raw.models,
        sanitizer: &raw.sanitizer,
        input,
    };
    asking.resolve(raw, catalogue, cx).map(|step| vec![step])
}

/// A kind without a question has nothing that could be checked.
fn copies(raw: &RawKind, place: &str, cx: &Context<'_>) {
    let answer = raw.answer.span();
    let spans = [("answer", answer), ("rules", raw.rules.span()), ("sanitizer", raw.sanitizer.span())];
    for (key, span) in spans.into_iter().chain([("review", raw.review.span())]) {
        if let Some(span) = span {
            let help = format!("add `models` and `ask` to [{place}], or leave `{key}` out");
            cx.report.add(span, format!("`{place}.{key}` has no effect: this kind asks no model"), help);
        }
    }
}

fn steps(
    place: &str,
    raw: &RawKind,
    input: Option<&Schema>,
    catalogue: &Catalogue<'_>,
    cx: &Context<'_>,
) -> Option<Vec<Step>> {
    for (key, span) in [("ask", raw.ask.span()), ("answer", raw.answer.span())] {
        if let Some(span) = span {
            let help = "write it into the step, or leave the steps out";
            cx.report.add(span, format!("`{place}` has both `{key}` and `steps`"), help);
        }
    }
    let given = raw.steps.given()?;
    let [step] = given.get_ref().as_slice() else {
        if let Some(second) = given.get_ref().get(1) {
            let help = "keep the first; a step that asks is all a plan can have until tools come";
            cx.report.add(second.span(), "a plan of more than one step is not in this version", help);
        } else {
            cx.report.add(
                given.span(),
                format!("`{place}.steps` is empty"),
                "add a step that asks, or leave it out",
            );
        }
        return None;
    };
    let raw_step: &RawStep = step.get_ref();
    if let Some(name) = raw_step.name.given()
        && !is_identifier(name.get_ref())
    {
        let help = "letters, digits and `_`, not beginning with a digit, and not `task`: rules use it";
        cx.report.add(name.span(), format!("\"{}\" cannot be the name of a step", name.get_ref()), help);
    }
    let asking = Asking {
        name: raw_step.name.get().map_or("answer", String::as_str),
        place: format!("{place}.steps"),
        span: step.span(),
        ask: &raw_step.ask,
        answer: &raw_step.answer,
        models: if raw_step.models.is_absent() { &raw.models } else { &raw_step.models },
        sanitizer: if raw_step.sanitizer.is_absent() { &raw.sanitizer } else { &raw_step.sanitizer },
        input,
    };
    asking.resolve(raw, catalogue, cx).map(|step| vec![step])
}

fn is_identifier(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && name.len() <= 64 && name != "task" && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Asking<'_> {
    fn resolve(&self, kind: &RawKind, catalogue: &Catalogue<'_>, cx: &Context<'_>) -> Option<Step> {
        self.complain_of_missing(cx);
        let data = kind.data.get().map(String::as_str);
        let models = self.line_up(data, catalogue, cx);
        let sanitizer = self.sanitizer(data, models.as_deref(), catalogue, cx);
        let answer = schema(self.answer, &format!("{}.answer", self.place), "answer schema", cx);
        let prompt = prompt(self.ask, &self.place, self.input, cx);
        let (models, answer, prompt) = (models?, answer?, prompt?);
        let digest = digest(&prompt, &answer, &models);
        let ask = Ask { prompt, answer, models, sanitizer, digest };
        Some(Step { name: Arc::from(self.name), what: StepKind::Ask(ask) })
    }

    fn complain_of_missing(&self, cx: &Context<'_>) {
        let missing = [
            (self.models.is_absent(), "models", "models = [\"openai/gpt-5-mini\"], preferred first"),
            (self.ask.is_absent(), "ask", "ask = \"what the model should do\", or the path of a prompt"),
            (
                self.answer.is_absent(),
                "answer",
                "answer = { field = \"string\" }, or the path of a JSON Schema",
            ),
        ];
        for (absent, key, help) in missing {
            if absent {
                cx.report.add(
                    self.span.clone(),
                    format!("[{}] has no `{key}`", self.place),
                    format!("add {help}"),
                );
            }
        }
    }

    fn line_up(
        &self,
        data: Option<&str>,
        catalogue: &Catalogue<'_>,
        cx: &Context<'_>,
    ) -> Option<Vec<Arc<Model>>> {
        let given = self.models.given()?;
        let names = given.get_ref();
        if names.is_empty() || names.len() > MODELS_MAX {
            let what = format!("`{}.models` names {} models", self.place, names.len());
            cx.report.add(given.span(), what, format!("name 1 to {MODELS_MAX}, preferred first"));
        }
        for (i, name) in names.iter().enumerate() {
            if names[..i].iter().any(|earlier| earlier.get_ref() == name.get_ref()) {
                let help = "the order is the order of fallback; name each model once";
                cx.report.add(name.span(), format!("`{}` is in the line-up already", name.get_ref()), help);
            }
        }
        // Each is looked up, so that each wrong one is reported.
        let models: Vec<_> = names.iter().map(|name| catalogue.model(name, data, cx)).collect();
        models.into_iter().collect()
    }

    fn sanitizer(
        &self,
        data: Option<&str>,
        models: Option<&[Arc<Model>]>,
        catalogue: &Catalogue<'_>,
        cx: &Context<'_>,
    ) -> Option<Arc<Model>> {
        match self.sanitizer.given() {
            Some(name) if name.get_ref() == NONE => None,
            Some(name)
                if matches!(
                    name.get_ref().trim().to_ascii_lowercase().as_str(),
                    "" | NONE | "false" | "off"
                ) =>
            {
                let what = format!("there is no model `{}`", name.get_ref());
                cx.report.add(name.span(), what, "for no sanitizer write sanitizer = \"none\"");
                None
            }
            Some(name) => catalogue.model(name, data, cx),
            None => models.and_then(<[_]>::first).cloned(),
        }
    }
}

/// Words of the shorthand that people write where its fields belong.
const TYPES: [&str; 5] = ["string", "number", "integer", "boolean", "date"];

/// Reads and compiles a schema: a path, or the shorthand.
pub(super) fn schema(field: &Field<RawSchema>, place: &str, role: &str, cx: &Context<'_>) -> Option<Schema> {
    let given = field.given()?;
    let (name, compiled) = match given.get_ref() {
        RawSchema::Shorthand(fields, _) => (format!("`{place}`"), Schema::from_shorthand(fields)),
        RawSchema::Path(word) if TYPES.contains(&word.trim_end_matches('?')) => {
            let help = format!("name its fields: {{ value = \"{word}\" }}");
            cx.report.add(given.span(), format!("`{place}` is one type, and should have fields"), help);
            return None;
        }
        RawSchema::Path(file) => {
            let name = format!("the {role} {}", cx.path(file).display());
            let text = cx.file(file, given.span(), role)?;
            match serde_json::from_str(&text) {
                Ok(json) => (name, Schema::compile(json)),
                Err(e) => {
                    let help = "mend the file; YAML and comments are not read";
                    cx.report.add(given.span(), format!("{name} is not JSON: {e}"), help);
                    return None;
                }
            }
        }
    };
    match compiled {
        Ok(schema) => Some(schema),
        Err(e) => {
            let span = given.get_ref().place(&e.path).unwrap_or(given.span());
            cx.report.bare(span, format!("{name} cannot be used: {e}"));
            None
        }
    }
}

/// How the files of prompts end.
const PROMPTS: [&str; 4] = [".md", ".txt", ".j2", ".jinja"];

/// One word that ends like a prompt's file is a path, and so are several if there is such a file; all else
/// is the prompt itself.
fn is_path(text: &str, cx: &Context<'_>) -> bool {
    let ends = PROMPTS.iter().any(|end| text.ends_with(end));
    ends && (!text.contains(char::is_whitespace) || is_file(text, cx))
}

/// A path that is not read as one would be sent to the model itself, for every task.
fn looks_like_a_path(text: &str, cx: &Context<'_>) -> bool {
    let one_word = !text.trim().is_empty() && !text.contains(char::is_whitespace);
    let ending = text.rsplit_once('.').is_some_and(|(name, end)| {
        !name.is_empty() && (1..=10).contains(&end.len()) && end.chars().all(|c| c.is_ascii_alphanumeric())
    });
    (one_word && (text.contains(['/', '\\']) || ending)) || is_file(text, cx)
}

fn is_file(text: &str, cx: &Context<'_>) -> bool {
    let short = text.len() <= 255 && !text.trim().is_empty() && !text.contains('\n');
    short && cx.path(text).is_file()
}

fn prompt(field: &Field<String>, place: &str, input: Option<&Schema>, cx: &Context<'_>) -> Option<Prompt> {
    let given = field.given()?;
    let written = given.get_ref();
    let path = is_path(written, cx);
    if !path && looks_like_a_path(written, cx) {
        let help = format!(
            "the file of a prompt ends in {}; a prompt that stands here is a sentence",
            PROMPTS.join(", ")
        );
        cx.report.add(
            given.span(),
            format!("`{place}.ask` looks like a path, and would be the prompt"),
            help,
        );
        return None;
    }
    let name = if path { written.clone() } else { format!("{place}.ask") };
    let source = if path { cx.file(written, given.span(), "prompt")? } else { written.clone() };
    if source.trim().is_empty() {
        cx.report.add(given.span(), format!("the prompt `{name}` is empty"), "say what the model should do");
        return None;
    }
    match Prompt::compile(&name, &source) {
        Ok(prompt) => {
            match prompt.unknown() {
                Some(e) => {
                    let help = "this is Jinja: mend the name; `data` and `json` write a part of the payload";
                    cx.report.add(given.span(), format!("the {e}"), help);
                }
                None => check_reads(&prompt, &name, input, given.span(), cx),
            }
            Some(prompt)
        }
        Err(e) => {
            let what = format!("the {e}");
            cx.report.add(
                given.span(),
                what,
                "this is Jinja, because it has `{{`, `{%` or `{#`; `task` is the payload",
            );
            None
        }
    }
}

/// A prompt that reads what cannot be there would make a dead letter of every task.
fn check_reads(prompt: &Prompt, name: &str, input: Option<&Schema>, span: Range<usize>, cx: &Context<'_>) {
    let reads = prompt.reads();
    if let Some(other) = reads.iter().find(|r| *r != "task" && !r.starts_with("task.")) {
        let what = format!("the prompt `{name}` reads `{other}`, which is not there");
        cx.report.add(span.clone(), what, "the payload is `task`, its fields `task.title`");
    }
    if let Some(input) = input {
        let fields = reads.iter().filter_map(|r| r.strip_prefix("task.")).map(str::to_owned);
        fields::check_names(fields, "task", input, span, cx);
    }
}

/// What makes an answer another answer: the words, the schema, the models' parameters. Not the models
/// themselves: a fallback answers the same question.
fn digest(prompt: &Prompt, answer: &Schema, models: &[Arc<Model>]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut params: Vec<String> = models
        .iter()
        .filter(|m| !m.params.is_empty())
        .map(|m| Value::Object(m.params.clone()).to_string())
        .collect();
    // The order of the line-up is no part of the question.
    params.sort_unstable();
    params.dedup();
    for part in [prompt.source(), &answer.json().to_string(), &params.join("\n")] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..8].to_owned()
}
