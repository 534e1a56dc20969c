//! How a task looks to clients: its state in one word, and the story behind it.

use super::lookup::{Place, Stands};
use crate::outcome::OutcomeKind;
use crate::write::DeadLetter;
use serde_json::{Map, Value, json};

/// The answer of `GET /v1/tasks/…`.
pub(super) fn view(stands: &Stands) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("key", json!(&*stands.key.key));
    put("kind", json!(&*stands.key.kind));
    if !stands.key.tenant.is_empty() {
        put("tenant", json!(&*stands.key.tenant));
    }
    put("generation", json!(stands.generation));
    put("state", json!(state(&stands.place)));
    put("since", json!(stands.since.rfc3339()));
    put("position", json!(stands.origin.to_string()));
    match &stands.place {
        Place::Queued | Place::Running => {}
        Place::Parked { until } => {
            put("until", json!(until.rfc3339()));
        }
        Place::Review(item) => {
            let body = &item.body;
            put("since", json!(body.opened_at.rfc3339()));
            put("due", json!(body.due_at.map(crate::task::Timestamp::rfc3339)));
            put("with", json!(body.team.as_deref().unwrap_or("anyone")));
            put(
                "review",
                json!({ "id": body.id, "question": body.question, "severity": body.severity, "why": body.why }),
            );
        }
        Place::Result { at, envelope } => {
            put("outcome", json!("result"));
            put("outcome_at", json!(at.to_string()));
            put("result", json!(envelope));
        }
        Place::DeadLetter(letter) => {
            put("outcome", json!("dead-letter"));
            put("outcome_at", json!(letter.record.position.to_string()));
            put("dead_letter", dead_letter(letter));
        }
        Place::Forgotten { outcome, at } => {
            put("outcome", json!(outcome_word(*outcome)));
            put("outcome_at", json!(at.to_string()));
            put("note", json!("the log does not hold this outcome any more"));
        }
    }
    put("calls", json!(stands.calls));
    put("trail", notes(&stands.trail));
    Value::Object(out)
}

pub(super) fn notes(trail: &crate::trail::Trail) -> Value {
    let note = |n: &crate::trail::Note| json!({ "at": n.at.rfc3339(), "what": n.what, "detail": n.detail });
    trail.notes().iter().map(note).collect()
}

pub(super) fn state(place: &Place) -> &'static str {
    match place {
        Place::Queued => "queued",
        Place::Running => "running",
        Place::Parked { .. } => "waiting-until",
        Place::Review(_) => "waiting-review",
        Place::Result { .. } | Place::DeadLetter(_) | Place::Forgotten { .. } => "done",
    }
}

pub(super) fn outcome_word(outcome: OutcomeKind) -> &'static str {
    match outcome {
        OutcomeKind::Result => "result",
        OutcomeKind::DeadLetter => "dead-letter",
    }
}

/// A dead letter as lists, events and tasks show it: all but its value.
pub(super) fn dead_letter(letter: &DeadLetter) -> Value {
    let position = &letter.record.position;
    let token = letter.token.as_ref();
    json!({
        "id": dead_letter_id(position),
        "reason": letter.reason.map(|r| r.to_string()),
        "detail": letter.detail,
        "what": letter.reason.map(crate::outcome::Reason::what),
        "help": letter.reason.map(crate::outcome::Reason::remedy),
        "kind": token.map(|t| t.key.kind.to_string()),
        "key": token.map(|t| t.key.key.to_string()).or_else(|| record_key(letter)),
        "tenant": token.map(|t| t.key.tenant.to_string()).filter(|t| !t.is_empty()),
        "generation": token.map(|t| t.generation),
        "outcome": letter.outcome,
        "tries": letter.tries,
        "first_error": letter.record.headers.text(crate::write::record::FIRST_ERROR),
        "last_error": letter.record.headers.text(crate::write::record::LAST_ERROR),
        "at": letter.at.rfc3339(),
        "source": letter.source,
        "position": position.to_string(),
        "bytes": letter.record.value.as_ref().map_or(0, bytes::Bytes::len),
        "original_bytes": letter.record.headers.text(crate::write::record::ORIGINAL_BYTES).and_then(|t| t.parse::<u64>().ok()),
    })
}

/// `partition-offset`: short, and free of slashes.
pub(super) fn dead_letter_id(position: &crate::task::Position) -> String {
    format!("{}-{}", position.at.index, position.offset)
}

fn record_key(letter: &DeadLetter) -> Option<String> {
    letter.record.key.as_ref().and_then(|k| std::str::from_utf8(k).ok()).map(str::to_owned)
}
