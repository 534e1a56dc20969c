//! `tidegate try KIND FILE`: takes one task through its kind, with nothing kept: the rendered prompt,
//! what was answered, and what would have become of it.
//!
//! Runs the real pipeline on an engine in a temporary directory; the outcome is shown, not committed.
//! The model's provider is really asked.

use super::Global;
use super::text::{plain, say, say_json};
use crate::consume::{self, Kinds};
use crate::dedupe::{Admission, Kept, SlotName};
use crate::engine::embedded::{self, Disk, EmbeddedSettings};
use crate::engine::{Delivery, Engine, Event, Output, WORKER};
use crate::infer::{Answer, Models};
use crate::pipeline::{Done, Pipeline};
use crate::settings::{self, Format, Kind, Settings, StepKind};
use crate::task::Headers;
use crate::token::{self, Carry};
use crate::write::record::ReviewItem;
use crate::write::{self, DeadLetter};
use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An engine that has just been opened hands its first record out at once.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The task's kind
    kind: String,
    /// The payload, as JSON; `-` reads standard input
    file: PathBuf,
    /// The idempotency key (default: the kind's rule, else the content's hash)
    #[arg(long)]
    key: Option<String>,
}

/// By Ctrl-C, before there was an ending to show.
#[derive(Debug, thiserror::Error)]
#[error("stopped; nothing was kept")]
pub(super) struct Stopped;

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut settings = Settings::load(global.config())?;
    // Payloads are given as JSON here, and outcomes shown as that: no registry is asked.
    for kind in settings.kinds.iter_mut().filter_map(Arc::get_mut) {
        (kind.format, kind.result_format) = (Format::Json, Format::Json);
    }
    let settings = Arc::new(settings);
    let kinds = Kinds::new(&settings);
    let Some(kind) = kinds.named(&args.kind).cloned() else {
        let known: Vec<&str> = settings.kinds.iter().map(|k| &*k.name).collect();
        anyhow::bail!("no kind `{}`; the configuration has: {}", args.kind, known.join(", "));
    };
    let payload = read(&args.file)?;
    let accepted = consume::intake(
        &kind,
        consume::Sent { payload: &payload, key: args.key.as_deref(), lend_key: true },
        Headers::default(),
        None,
        settings.engine.record_max,
    )
    .map_err(|r| anyhow::anyhow!("not a task of `{}`: {} ({})", kind.name, r.detail, r.reason))?;
    let place = Temporary::new()?;
    let told = tokio::select! {
        told = tell(&settings, kinds, &kind, accepted.output, &place.0) => told?,
        // The payload goes with its directory.
        _ = tokio::signal::ctrl_c() => return Err(Stopped.into()),
    };
    // Before anything is said: who reads it may close the pipe, and the command ends there.
    drop(place);
    if global.json {
        say_json(&told);
    } else {
        print(&told);
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> anyhow::Result<Bytes> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
    };
    Ok(Bytes::from(text.trim().to_owned()))
}

async fn tell(
    settings: &Arc<Settings>,
    kinds: Kinds,
    kind: &Kind,
    output: Output,
    place: &Path,
) -> anyhow::Result<Value> {
    let (how, topics) = (EmbeddedSettings::new(place), settings::topics(settings));
    let engine = tokio::task::spawn_blocking(move || embedded::open(how, topics, Arc::new(Disk))).await??;
    let payload: Value = serde_json::from_slice(output.value.as_deref().unwrap_or_default())?;
    engine.log.append(vec![output]).await?;
    let delivery = first(&engine, kind).await?;
    let models = Arc::new(Models::new(&settings.models, crate::validate::ANSWER_MAX)?);
    let kinds = Arc::new(kinds);
    let pipeline = Pipeline::new(engine.clone(), settings.clone(), kinds.clone(), models);
    let done = pipeline.process(&delivery, &CancellationToken::new()).await;
    let answers = answers(&engine, &kinds, &delivery).await;
    engine.operation.close().await;
    let done = done.context("the task was given up")?;
    Ok(json!({ "prompt": prompt(kind, &payload), "answers": answers, "ends": ends(settings, kind, &done) }))
}

async fn first(engine: &Engine, kind: &Kind) -> anyhow::Result<Delivery> {
    let mut group = engine.groups.join(WORKER, std::slice::from_ref(&kind.from));
    let delivered = async {
        loop {
            if let Event::Record(delivery) = group.next(true).await {
                return delivery;
            }
        }
    };
    tokio::time::timeout(DELIVERED_WITHIN, delivered).await.context("the engine did not hand the task out")
}

fn prompt(kind: &Kind, payload: &Value) -> Option<String> {
    let StepKind::Ask(ask) = &kind.plan.first()?.what;
    ask.prompt.render(payload).ok()
}

/// What the models said, by round, out of the journal.
async fn answers(engine: &Engine, kinds: &Kinds, delivery: &Delivery) -> Vec<Value> {
    let Ok(task) = kinds.decode(&delivery.record) else { return vec![] };
    let Ok(Admission::Resumed(_, slots)) = engine.ledger.admit(delivery, &task.token, None).await else {
        return vec![];
    };
    let said = |(slot, kept): (&SlotName, &Kept)| {
        let answer = Answer::decode(&kept.value)?;
        Some(
            json!({ "slot": &*slot.0, "model": answer.model_name, "text": answer.text, "tries": answer.tries }),
        )
    };
    slots.iter().filter_map(said).collect()
}

/// What would have been published, by where it would have gone.
fn ends(settings: &Settings, kind: &Kind, done: &Done) -> Value {
    let Some(output) = done.completion.outputs.first() else { return json!({ "as": "nothing" }) };
    let value = output.value.clone().unwrap_or_default();
    if output.topic == settings.topics.review_requests {
        return match serde_json::from_slice::<ReviewItem>(&value) {
            Ok(item) => json!({ "as": "review", "why": item.why, "question": item.question,
                "answer": item.proposed.answer, "confidence": item.proposed.confidence, "usage": item.proposed.usage }),
            Err(e) => json!({ "as": "review", "unreadable": e.to_string() }),
        };
    }
    let record = crate::task::Record {
        position: crate::task::Position {
            at: crate::task::Partition { topic: output.topic.clone(), index: 0 },
            offset: 0,
        },
        stamp: crate::task::Timestamp::now(),
        key: output.key.clone(),
        value: output.value.clone(),
        headers: output.headers.clone(),
        not_before: output.not_before,
    };
    if output.topic == settings.topics.dead_letters {
        let letter = DeadLetter::read(record);
        let reason = letter.reason.map(|r| r.to_string());
        return json!({ "as": "dead letter", "reason": reason, "detail": letter.detail });
    }
    if output.topic == kind.to {
        let envelope = write::read_result(&record);
        return json!({ "as": "result", "answer": envelope.as_ref().map(|e| &e.answer),
            "confidence": envelope.as_ref().map(|e| &e.confidence), "usage": envelope.as_ref().map(|e| &e.usage) });
    }
    // The trail that the task would take along says which models were asked, and why none served.
    let carry = record.headers.get(token::CARRY).and_then(|c| serde_json::from_slice::<Carry>(c).ok());
    let notes = carry.map(|c| c.trail.notes().to_vec()).unwrap_or_default();
    let last = notes.iter().rev().find(|note| note.what == "parked");
    let why = last.map_or("no model can serve now", |note| note.detail.as_str());
    let tried = notes.iter().filter(|n| n.what == "tried").map(|n| n.detail.as_str());
    json!({ "as": "waiting", "why": why, "tried": together(tried) })
}

/// `main: 3 tries, each: it could not be reached: Connection refused`: what is the same is said once, in the order of
/// the first.
fn together<'n>(tried: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut all: Vec<(&str, u64)> = Vec::new();
    for detail in tried {
        match all.iter_mut().find(|(known, _)| *known == detail) {
            Some((_, times)) => *times += 1,
            None => all.push((detail, 1)),
        }
    }
    let one = |(detail, times): (&str, u64)| match (times, detail.split_once(": ")) {
        (2.., Some((model, cause))) => format!("{model}: {times} tries, each: {cause}"),
        _ => detail.to_owned(),
    };
    all.into_iter().map(one).collect()
}

/// A model's words, and a payload's, never steer the terminal.
fn text(v: &Value) -> String {
    plain(&v.as_str().map_or_else(|| v.to_string(), str::to_owned))
}

fn print(told: &Value) {
    if let Some(prompt) = told["prompt"].as_str() {
        say(format!("prompt\n{}\n", indented(prompt)));
    }
    for answer in told["answers"].as_array().into_iter().flatten() {
        let said = indented(answer["text"].as_str().unwrap_or(""));
        say(format!("{} said\n{said}\n", text(&answer["model"])));
    }
    let ends = &told["ends"];
    say(format!("ends as {}", text(&ends["as"])));
    for name in ["question", "reason", "detail", "until", "why", "answer", "usage"] {
        // A review's question says why.
        let told_already = name == "why" && ends["as"] == "review";
        if !ends[name].is_null() && !told_already {
            say(format!("  {name:<10} {}", text(&ends[name])));
        }
    }
    for (field, sure) in ends["confidence"]["fields"].as_object().into_iter().flatten() {
        say(format!("  confidence {field}: {} ({})", sure["value"], text(&sure["basis"])));
    }
    for tried in ends["tried"].as_array().into_iter().flatten() {
        say(format!("  tried      {}", text(tried)));
    }
    say(match ends["as"].as_str() {
        Some("waiting") => "\nnothing was kept; see that a model can be reached, and try again",
        _ => "\nnothing was kept; `tidegate submit` does it for good",
    });
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {}", plain(line))).collect::<Vec<_>>().join("\n")
}

/// A directory that nobody else can read or has prepared, and that goes when this does.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tidegate-try-{:032x}", rand::random::<u128>()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Temporary(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left lies among the system's temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_payload_lies_where_nobody_else_reads_and_goes_in_the_end() {
        let (one, other) = (Temporary::new().unwrap(), Temporary::new().unwrap());
        assert_ne!(one.0, other.0, "no name that somebody could prepare");
        let mode = std::fs::metadata(&one.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(one.0.join("log"), "payload").unwrap();
        let path = one.0.clone();
        drop(one);
        assert!(!path.exists());
    }

    #[test]
    fn a_models_words_do_not_steer_the_terminal() {
        let hostile = "good\u{1b}[2J\nnext\u{1b}]0;x\u{7}";
        let shown = indented(hostile);
        assert_eq!(shown.lines().count(), 2, "{shown:?}");
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
        assert!(!text(&json!({ "a": hostile })).contains('\u{1b}'));
        assert!(!text(&json!(hostile)).contains('\u{1b}'));
    }
}
