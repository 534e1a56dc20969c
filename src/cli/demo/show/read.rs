//! From what the processor says to the books and to one line for people.

use super::{Line, Model, line};
use crate::cli::demo::books::{Answered, Books, Id, Meant, Repeat};
use serde_json::Value;
use std::time::Duration;

pub(super) fn answered(id: &Id, meant: Meant, answered: &Answered, now: Duration) -> Vec<Line> {
    let name = format!("{}/{}", id.0, id.1);
    let told = match (meant, answered) {
        (_, Answered::Refused { code }) => {
            line(now, "task", &format!("TG-{code}"), &format!("{name} refused at the door"), true)
        }
        (Meant::Bad, Answered::Taken { .. }) => {
            line(now, "task", "raw", &format!("{name} put on the topic as it is"), true)
        }
        (Meant::Copy, _) => line(now, "task", "duplicate", &name, false),
        (_, Answered::Taken { .. } | Answered::Known) => line(now, "task", "accepted", &name, false),
    };
    vec![told]
}

pub(super) fn result(books: &mut Books, result: &Value, now: Duration) -> Vec<Line> {
    let (id, generation) = (id(result), generation(result));
    books.result(&id, generation);
    let mut lines = repeats(books, &id, generation, result, now);
    let status = text(result, "status");
    let by = result["made_by"]["model"].as_str().map_or_else(String::new, |m| format!(" by {m}"));
    let detail = format!("{}/{}{by}{}", id.0, id.1, answer(&result["answer"], &id.0));
    lines.push(line(now, "result", status, &detail, status != "accepted"));
    lines
}

/// The fields that fit on a line.
fn answer(answer: &Value, kind: &str) -> String {
    let fields: &[&str] = match kind {
        "ticket" => &["category", "urgency"],
        "refund" => &["decision"],
        _ => return " copied".to_owned(),
    };
    let said: Vec<&str> = fields.iter().filter_map(|f| answer[*f].as_str()).collect();
    format!(": {}", said.join(", "))
}

pub(super) fn letter(books: &mut Books, letter: &Value, now: Duration) -> Vec<Line> {
    let (id, generation) = (id(letter), generation(letter));
    let outcome = letter["outcome"].as_bool() == Some(true);
    books.letter(&id, generation, outcome, text(letter, "source"));
    let whose = if id.0.is_empty() { id.1.clone() } else { format!("{}/{}", id.0, id.1) };
    vec![line(
        now,
        "dead letter",
        text(letter, "reason"),
        &format!("{whose}: {}", text(letter, "detail")),
        true,
    )]
}

/// `event`: the item in brief. `item`: all of it, with the tries so far; null if it is decided already.
pub(super) fn opened(books: &mut Books, event: &Value, item: &Value, now: Duration) -> Vec<Line> {
    let id = id(event);
    books.review_opened(&id, text(event, "id"));
    let proposed = &item["proposed"];
    let mut lines = repeats(books, &id, generation(proposed), proposed, now);
    let why = &event["why"][0];
    let said = why["detail"].as_str().unwrap_or_else(|| text(event, "question"));
    lines.push(line(now, "review", text(why, "reason"), &format!("{}/{}: {said}", id.0, id.1), true));
    lines
}

/// Calls that an envelope says were made again. The first try of the answer came after the repeat.
fn repeats(books: &mut Books, id: &Id, generation: u64, envelope: &Value, now: Duration) -> Vec<Line> {
    let mut lines = Vec::new();
    for tried in envelope["tries"].as_array().into_iter().flatten() {
        let times = tried["repeats"].as_u64().unwrap_or(0);
        if times == 0 {
            continue;
        }
        let slot = text(tried, "slot");
        let from = text(envelope, "accepted_at").parse().map_or(0, jiff::Timestamp::as_millisecond);
        let to = tried["at"].as_i64().unwrap_or(0);
        books.repeated((id.clone(), generation, slot.to_owned()), Repeat { times, from, to });
        let detail = format!("{}/{}: call to {} cut off", id.0, id.1, text(tried, "model"));
        lines.push(line(now, "model", "repeated", &detail, false));
    }
    lines
}

/// A model's new state is told.
pub(super) fn model(model: &mut Model, view: &Value, now: Duration) -> Option<Line> {
    (model.calls, model.failed) = (number(view, "calls"), number(view, "failed"));
    model.first_token_ms = view["first_token_p50_ms"].as_u64().or(model.first_token_ms);
    let state = text(view, "state");
    // A new life of the worker thinks well of every model until it has asked: that is no news.
    if state == model.state || (state == "closed" && model.calls == model.failed) {
        return None;
    }
    let was = std::mem::replace(&mut model.state, state.to_owned());
    // Being tried again is still being down.
    let down = |state: &str| matches!(state, "open" | "half-open");
    if !(down(&was) && down(state)) {
        model.since = now.saturating_sub(Duration::from_millis(number(view, "since_ms")));
    }
    let why = view["why"].as_str().or_else(|| view["last_error"].as_str()).unwrap_or_default();
    let (code, detail) = match state {
        "open" => ("down", format!("{}: {why}", model.name)),
        "blocked" => ("stopped", format!("{}: {why}", model.name)),
        "half-open" => ("tried-again", format!("{}: is it back? one call asks", model.name)),
        _ => ("well", format!("{} answers again", model.name)),
    };
    Some(line(now, "model", code, &detail, true))
}

impl Model {
    /// Another life of the worker counts from 0.
    pub(super) fn begin_again(&mut self) {
        self.before = self.counts();
        (self.calls, self.failed) = (0, 0);
    }

    /// Calls and failed calls, over all lives of the worker.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.before.0 + self.calls, self.before.1 + self.failed)
    }
}

fn id(value: &Value) -> Id {
    (text(value, "kind").to_owned(), text(value, "key").to_owned())
}

fn generation(value: &Value) -> u64 {
    number(value, "generation")
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or(0)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}
