//! What is going on, as people are told it: one sentence, the sums, two tables, events, the next step.
//!
//! Takes what the feeds tell and the time since the demo began; draws nothing and waits for nothing.

mod read;
pub(super) mod rows;

use super::books::{Books, Meant, Sums};
use super::feed::Told;
use super::tickets::KINDS;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// After the last record and the last kill everything rests within this, also on a busy machine.
const REST_WITHIN: Duration = Duration::from_secs(32);
/// Events kept for the screen; it shows fewer.
const LINES_KEPT: usize = 50;

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) at: Duration,
    /// `task`, `result`, `review`, `dead letter`, `model` or `worker`.
    pub(super) what: &'static str,
    /// A reason's code, or a word.
    pub(super) code: String,
    pub(super) detail: String,
    /// What the screen shows; there, what goes well is in the sums.
    pub(super) notable: bool,
}

impl Line {
    pub(super) fn text(&self) -> String {
        let line = format!("{} {:<11} {:<19} {}", clock(self.at), self.what, self.code, self.detail);
        super::super::text::short(line.trim_end(), super::super::text::WIDTH)
    }
}

/// A model as the processor's last answers had it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) since: Duration,
    /// In this life of the worker.
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) first_token_ms: Option<u64>,
    /// Counted in earlier lives of the worker.
    before: (u64, u64),
}

impl Model {
    /// Also while it is being tried again: only an answer brings it back.
    fn down(&self) -> bool {
        self.state != "closed" && self.asked()
    }

    /// In this life of the worker, which knows nothing of it before. One that is stopped needs no call.
    fn asked(&self) -> bool {
        self.calls > 0 || self.state == "blocked"
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Worker {
    Runs,
    /// Since when.
    Killed(Duration),
}

pub(super) struct Show {
    pub(super) books: Books,
    pub(super) lines: VecDeque<Line>,
    models: Vec<Model>,
    worker: Worker,
    /// When the worker that was seen last began, in its own words: each life has its own.
    life: String,
    /// When the last record was in, or the worker answered again after that.
    undisturbed: Duration,
    /// Why intake holds, in the processor's words.
    held: Option<String>,
    all_sent: bool,
    planned: usize,
    url: String,
    /// A review and a dead letter that a person could look at now.
    open_item: Option<String>,
    pub(super) broken: Option<String>,
    /// Nothing more may come: what has no place now is missing.
    pub(super) over: bool,
}

impl Show {
    pub(super) fn new(url: &str, planned: usize) -> Show {
        Show {
            books: Books::default(),
            lines: VecDeque::new(),
            models: vec![],
            worker: Worker::Runs,
            life: String::new(),
            undisturbed: Duration::ZERO,
            held: None,
            all_sent: false,
            planned,
            url: url.to_owned(),
            open_item: None,
            broken: None,
            over: false,
        }
    }

    /// Writes it into the books; the lines that tell of it.
    pub(super) fn take(&mut self, told: Told, now: Duration) -> Vec<Line> {
        let lines = match told {
            Told::Answered { id, meant, answered } => {
                self.books.sent(&id, meant, &answered);
                read::answered(&id, meant, &answered, now)
            }
            Told::Unanswered { id, meant } => {
                if meant == Meant::Bad {
                    self.books.unanswered(&id);
                }
                vec![]
            }
            Told::AllSent => {
                self.all_sent = true;
                self.undisturbed = now;
                vec![line(now, "task", "all-sent", "every record is in", true)]
            }
            Told::Result(result) => read::result(&mut self.books, &result, now),
            Told::Letter(letter) => read::letter(&mut self.books, &letter, now),
            Told::Opened(event, item) => {
                self.open_item = event["id"].as_str().map(str::to_owned);
                read::opened(&mut self.books, &event, &item, now)
            }
            Told::Decided(event) => {
                let id = event["id"].as_str().unwrap_or_default();
                self.books.review_decided(id);
                if self.open_item.as_deref() == Some(id) {
                    self.open_item = None;
                }
                vec![line(now, "review", "decided", id, true)]
            }
            Told::Seen(status) => self.seen(&status, now),
            Told::Broken(why) => {
                self.broken = Some(why.clone());
                vec![line(now, "worker", "broken", &why, true)]
            }
        };
        self.keep(&lines);
        lines
    }

    fn keep(&mut self, lines: &[Line]) {
        self.lines.extend(lines.iter().filter(|l| l.notable).cloned());
        while self.lines.len() > LINES_KEPT {
            self.lines.pop_front();
        }
    }

    pub(super) fn killed(&mut self, at: i64, now: Duration) -> Line {
        self.books.killed(at);
        self.worker = Worker::Killed(now);
        let told = line(now, "worker", "killed", "kill -9, in the middle of its calls", true);
        self.keep(std::slice::from_ref(&told));
        told
    }

    fn runs_again(&mut self, now: Duration) -> Line {
        let took = match self.worker {
            Worker::Killed(since) => now.saturating_sub(since),
            Worker::Runs => Duration::ZERO,
        };
        self.worker = Worker::Runs;
        self.undisturbed = now;
        let detail = format!("answers again after {} ms", took.as_millis());
        line(now, "worker", "runs", &detail, true)
    }

    pub(super) fn worker_runs(&self) -> bool {
        self.worker == Worker::Runs
    }

    fn seen(&mut self, status: &Value, now: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        let life = status["started_at"].as_str().unwrap_or_default();
        if life != self.life {
            self.life = life.to_owned();
            self.models.iter_mut().for_each(Model::begin_again);
            if !self.worker_runs() {
                lines.push(self.runs_again(now));
            }
        }
        let held = status["held"].as_array().is_some_and(|h| !h.is_empty());
        self.held = held.then(|| status["sentence"].as_str().unwrap_or_default().to_owned());
        for view in status["models"].as_array().into_iter().flatten() {
            let name = view["name"].as_str().unwrap_or_default();
            if !self.models.iter().any(|m| m.name == name) {
                self.models.push(Model { name: name.to_owned(), state: "closed".into(), ..Model::default() });
            }
            let Some(model) = self.models.iter_mut().find(|m| m.name == name) else { continue };
            lines.extend(read::model(model, view, now));
        }
        lines
    }

    pub(super) fn sums(&self) -> Sums {
        self.books.sums()
    }

    /// Whatever has no place by now will not find one.
    pub(super) fn late(&self, now: Duration) -> bool {
        self.all_sent && self.worker_runs() && now.saturating_sub(self.undisturbed) >= REST_WITHIN
    }

    /// Nothing more will come by itself.
    pub(super) fn rests(&self) -> bool {
        self.all_sent && self.worker_runs() && self.sums().nowhere == 0
    }

    /// One sentence: what is going on now.
    pub(super) fn sentence(&self) -> String {
        let sums = self.sums();
        if let Worker::Killed(since) = self.worker {
            return format!("The worker was killed at {} and starts again: nothing is lost.", clock(since));
        }
        if let Some(why) = &self.held {
            return why.clone();
        }
        let down = self.models.iter().find(|m| m.down());
        let spare = self.models.iter().find(|m| !m.down());
        let answer = if self.models.iter().all(Model::asked) { " and both models answer" } else { "" };
        match (down, spare) {
            (Some(down), Some(spare)) => format!(
                "{} is down since {}: new tasks go to {}, nothing waits.",
                down.name,
                clock(down.since),
                spare.name
            ),
            (Some(_), None) => "No model answers now: tasks wait, and nothing is lost.".to_owned(),
            _ if !self.all_sent => format!(
                "Tasks come in ({} of {} records){answer}.",
                sums.records.min(self.planned as u64),
                self.planned
            ),
            _ if sums.nowhere > 0 && !self.over => {
                format!("Every record is in; {} under way.", tasks(sums.nowhere))
            }
            _ if sums.hold() => "Everything has come to rest: each task once, in one place.".to_owned(),
            _ => "Everything has come to rest, and the sums do NOT add up.".to_owned(),
        }
    }

    /// What to try on this very demo.
    pub(super) fn next(&self) -> String {
        let url = &self.url;
        match &self.open_item {
            Some(item) if self.rests() => {
                format!("tidegate review approve {} --by you --url {url}", &item[..item.len().min(8)])
            }
            _ => format!("tidegate review ls --url {url}"),
        }
    }

    pub(super) fn sum_lines(&self) -> [String; 3] {
        rows::sums(&self.sums(), self.over)
    }

    /// What does not add up, by name.
    pub(super) fn complaints(&self) -> Vec<String> {
        let named = |what: &str, names: Vec<String>| {
            names.into_iter().map(|name| format!("{what}: {name}")).collect::<Vec<_>>()
        };
        let missing = if self.over { self.books.missing() } else { vec![] };
        [
            named("missing", missing),
            named("twice", self.books.twice()),
            named("sent by nobody", self.books.strangers()),
            named("repeated without a kill", self.books.unexplained()),
        ]
        .concat()
    }

    pub(super) fn kind_rows(&self) -> Vec<[String; 6]> {
        KINDS.iter().map(|kind| rows::kind(kind, self.books.of_kind(kind))).collect()
    }

    pub(super) fn model_rows(&self) -> Vec<[String; 5]> {
        self.models.iter().map(rows::model).collect()
    }
}

pub(super) fn line(at: Duration, what: &'static str, code: &str, detail: &str, notable: bool) -> Line {
    Line { at, what, code: code.to_owned(), detail: detail.to_owned(), notable }
}

/// `00:12`.
pub(super) fn clock(at: Duration) -> String {
    format!("{:02}:{:02}", at.as_secs() / 60, at.as_secs() % 60)
}

pub(super) fn tasks(n: u64) -> String {
    if n == 1 { "1 task is".to_owned() } else { format!("{n} tasks are") }
}

#[cfg(test)]
mod tests;
