//! `tidegate submit`: tasks from JSON lines, in batches; with `--wait` until each has its resting place.
//!
//! A line that is refused is told with its number and holds nothing up. What was accepted is durable;
//! sending the same file again does nothing twice.

mod lines;
mod resting;
mod wait;

use super::Global;
use super::client::{Client, Failed};
use super::text::{field, many, note, number, plain, say, say_json, unread};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use lines::{Line, Lines};
use resting::Resting;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use wait::Waiting;

/// Lines in one request; small enough that the bar moves, large enough that the disk is not the limit.
const BATCH: usize = 500;
/// Bytes in one request: half of what a processor takes by default.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long a processor that is away or paused is waited for once something was accepted.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The kind of every task
    kind: String,
    /// JSON lines, each a task's payload; `-` or nothing: standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Print what becomes of each task, and end when all have their place
    #[arg(long)]
    wait: bool,
    /// The tenant of every task
    #[arg(long)]
    tenant: Option<String>,
}

/// What has been told so far.
#[derive(Default)]
struct Sums {
    lines: u64,
    accepted: u64,
    known: u64,
    refused: u64,
    content_keys: u64,
}

struct Submitter<'a> {
    client: &'a Client,
    global: &'a Global,
    args: &'a Args,
    bar: ProgressBar,
    sums: Sums,
    resting: Resting,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let client = Client::new(global)?;
    let (mut lines, bytes) = open(&args.file).await?;
    // Subscribed before the first task is sent: nothing happens unseen.
    let mut waiting = if args.wait { Some(Waiting::open(&client, &args.kind).await?) } else { None };
    let resting = Resting::new(&args.kind, args.tenant.as_deref());
    let mut job =
        Submitter { client: &client, global, args: &args, bar: bar(bytes), sums: Sums::default(), resting };
    loop {
        let (batch, last) = collect(&mut job, &mut lines).await?;
        if !batch.is_empty() {
            job.send(batch).await?;
        }
        if let Some(waiting) = &mut waiting {
            waiting.drain(&mut job).await?;
        }
        if last {
            break;
        }
    }
    job.bar.finish_and_clear();
    job.summary();
    if let Some(waiting) = &mut waiting {
        // Shows only why nothing moves, where that is so.
        job.bar = styled(ProgressBar::new_spinner(), "{msg}");
        let all = tokio::select! {
            ended = waiting.rest(&mut job) => ended.map(|()| true),
            () = unread() => Ok(false),
        };
        job.bar.finish_and_clear();
        if all? {
            job.rested();
        }
    }
    Ok(if job.sums.refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn open(file: &Path) -> anyhow::Result<(Lines, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Lines::new(Box::new(tokio::io::stdin())), None));
    }
    let opened = tokio::fs::File::open(file).await;
    let opened = opened.map_err(|e| {
        let file = file.display();
        anyhow::anyhow!("cannot open {file} ({e}); give a file of JSON lines, or `-` for standard input")
    })?;
    let bytes = opened.metadata().await.ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
    Ok((Lines::new(Box::new(opened)), bytes))
}

/// Hidden where standard error is no terminal.
fn bar(bytes: Option<u64>) -> ProgressBar {
    match bytes {
        Some(bytes) => styled(ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {msg}"),
        None => styled(ProgressBar::no_length(), "{spinner} {msg}"),
    }
}

fn styled(bar: ProgressBar, style: &str) -> ProgressBar {
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The next batch; true: it is the last. Lines that cannot even be sent are refused here.
async fn collect(job: &mut Submitter<'_>, lines: &mut Lines) -> anyhow::Result<(Vec<(u64, Vec<u8>)>, bool)> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        match lines.next().await.context("cannot read the tasks")? {
            None => return Ok((batch, true)),
            Some((number, Line::Text(text))) => {
                job.sums.lines += 1;
                bytes += text.len() + 1;
                batch.push((number, text));
            }
            Some((number, Line::Bad(why))) => {
                job.sums.lines += 1;
                job.refuse(number, &json!({ "code": "malformed", "message": why, "help": "mend the line and send it again" }));
            }
        }
    }
    job.bar.set_position(lines.bytes());
    Ok((batch, false))
}

impl Submitter<'_> {
    /// Sends one batch and takes note of each answer. A processor that goes away meanwhile is waited
    /// for: what it took is known by its key when it is sent again.
    async fn send(&mut self, batch: Vec<(u64, Vec<u8>)>) -> anyhow::Result<()> {
        let (numbers, texts): (Vec<u64>, Vec<Vec<u8>>) = batch.into_iter().unzip();
        let body = texts.join(&b'\n');
        let mut query = vec![("kind", self.args.kind.as_str()), ("key", "content")];
        query.extend(self.args.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let began = Instant::now();
        let told = loop {
            match self.client.post_lines(&["v1", "tasks"], &query, body.clone()).await {
                Ok(told) => break told,
                Err(failed) if failed.passes() && self.sums.accepted > 0 && began.elapsed() < PATIENCE => {
                    self.bar.set_message("the processor is away; waiting for it");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(failed) => return Err(self.gave_up(failed)),
            }
        };
        let tasks = told["tasks"].as_array().map(Vec::as_slice).unwrap_or_default();
        anyhow::ensure!(
            tasks.len() == numbers.len(),
            "{} answered {} of {} tasks; is it another version?",
            self.client.url(),
            tasks.len(),
            numbers.len()
        );
        for (number, task) in numbers.iter().zip(tasks) {
            self.take(*number, task);
        }
        self.bar.set_message(format!(
            "{} accepted, {} known, {} refused",
            self.sums.accepted, self.sums.known, self.sums.refused
        ));
        Ok(())
    }

    fn take(&mut self, line: u64, task: &Value) {
        if task["error"].is_object() {
            self.refuse(line, &task["error"]);
            return;
        }
        if task["content_key"].as_bool() == Some(true) {
            self.sums.content_keys += 1;
            if self.sums.content_keys == 1 {
                self.note("these tasks carry no key: the hash of its content is each one's key, so the same line again is the same task");
            }
        }
        if task["status"].as_u64() == Some(202) {
            self.sums.accepted += 1
        } else {
            self.sums.known += 1
        }
        if self.args.wait {
            self.resting.expect(line, task);
        }
    }

    fn refuse(&mut self, line: u64, error: &Value) {
        self.sums.refused += 1;
        if self.global.json {
            say_json(&json!({ "line": line, "refused": error }));
        } else {
            let (message, help) = (plain(field(error, "message")), plain(field(error, "help")));
            self.note(&format!("line {line} refused: {message}; {help}"));
        }
    }

    /// Beside the bar, which would otherwise be written over.
    fn note(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }

    /// What of the file is in, and what to do about the rest.
    fn gave_up(&self, failed: Failed) -> anyhow::Error {
        self.bar.finish_and_clear();
        if self.sums.accepted > 0 {
            let kept = many(self.sums.accepted, "task");
            note(format!(
                "{kept} of this file are accepted and safe; send the same file again for the rest, nothing is done twice"
            ));
        }
        failed.into()
    }

    fn summary(&self) {
        let Sums { lines, accepted, known, refused, .. } = self.sums;
        if self.global.json {
            say_json(
                &json!({ "summary": { "lines": lines, "accepted": accepted, "known": known, "refused": refused, "content_keys": self.sums.content_keys } }),
            );
            return;
        }
        say(format!(
            "{}: {} accepted, {} known before, {} refused",
            many(lines, "line"),
            number(accepted),
            number(known),
            number(refused)
        ));
        if accepted > 0 && !self.args.wait {
            say("what becomes of them: tidegate tail results --from start");
        }
    }

    fn rested(&self) {
        let sums = self.resting.sums();
        if self.global.json {
            say_json(&json!({ "rested": {
                "results": sums.results, "reviews": sums.reviews, "dead_letters": sums.dead_letters, "duplicates": sums.duplicates,
            } }));
            return;
        }
        let all = sums.results + sums.reviews + sums.dead_letters + sums.duplicates;
        let parts = [
            many(sums.results, "result"),
            format!("{} waiting for a person", number(sums.reviews)),
            many(sums.dead_letters, "dead letter"),
            many(sums.duplicates, "duplicate"),
        ];
        say(format!("{}: {}", many(all, "task"), parts.join(", ")));
        if self.sums.content_keys > 0 {
            say("a task's whole story: tidegate show KIND/KEY (--json prints keys in full)");
        }
        if sums.reviews > 0 {
            say("to decide what waits: tidegate review ls");
        }
        if sums.dead_letters > 0 {
            say("to look at dead letters: tidegate dead-letters ls");
        }
    }
}
