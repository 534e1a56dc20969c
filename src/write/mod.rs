//! Makes the records that leave: results, dead letters, review items, tokens of the next hop.
//!
//! Decides nothing about a task; puts what was decided into the shape the world is promised.

mod counted;
pub mod dead_letter;
pub mod record;
mod redrive;
mod twin;

pub use counted::Counted;
pub use dead_letter::{DeadLetter, bury, shrink};
pub use redrive::{Redrive, redrive};

use crate::avro;
use crate::engine::Output;
use crate::settings::{Shape, TopicNames};
use crate::task::{Record, Timestamp, Token, Topic};
use crate::token::{self, Carry};
use crate::trail::Trail;
use bytes::Bytes;
use record::{Envelope, ReviewItem};
use serde_json::Value;

/// A result under the task's record key. `answer` shape: the bare answer, the rest in headers. With the id
/// of their schema, envelopes are Avro.
pub fn result(
    to: &Topic,
    shape: Shape,
    schema: Option<u32>,
    key: Option<Bytes>,
    envelope: &Envelope,
    token: &Token,
    trail: &Trail,
) -> Output {
    let mut headers = crate::task::Headers::default();
    token::write_identity(token, &mut headers);
    headers.push("tidegate-status", envelope.status.as_str());
    headers.push(record::TRAIL, json(trail));
    let value = match (shape, schema) {
        (Shape::Envelope, None) => json(envelope),
        (Shape::Envelope, Some(id)) => twin::write(envelope, id),
        // `check` does not let a kind have both this shape and Avro.
        (Shape::Answer, _) => {
            let rest = Envelope { answer: Value::Null, ..envelope.clone() };
            headers.push("tidegate-envelope", json(&rest));
            json(&envelope.answer)
        }
    };
    Output { topic: to.clone(), key, value: Some(value), headers, not_before: None }
}

/// The envelope of a result record of any shape and format, read back.
pub fn read_result(record: &Record) -> Option<Envelope> {
    let value = record.value.as_ref()?;
    match record.headers.get("tidegate-envelope") {
        Some(rest) => {
            let rest: Envelope = serde_json::from_slice(rest).ok()?;
            Some(Envelope { answer: serde_json::from_slice(value).ok()?, ..rest })
        }
        None if avro::is_framed(value) => twin::read(value),
        None => serde_json::from_slice(value).ok(),
    }
}

/// The same task, one hop on, not before `until`: it waits in the log, not in memory.
pub fn parked(
    names: &TopicNames,
    record: &Record,
    next: &Token,
    carry: &Carry,
    now: Timestamp,
    until: Timestamp,
) -> Output {
    let topic = names.retry_for(now.until(until));
    Output {
        topic: topic.clone(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: token::encode(next, carry, &record.headers),
        not_before: Some(until),
    }
}

/// A question for a person; the token of its hop travels in its headers.
pub fn review_item(names: &TopicNames, item: &ReviewItem, next: &Token, carry: &Carry) -> Output {
    Output {
        topic: names.review_requests.clone(),
        key: Some(Bytes::from(item.id.clone())),
        value: Some(json(item)),
        headers: token::encode(next, carry, &crate::task::Headers::default()),
        not_before: None,
    }
}

/// Nobody needs to decide this item any more.
pub fn item_decided(names: &TopicNames, id: &str) -> Output {
    Output {
        topic: names.review_requests.clone(),
        key: Some(Bytes::from(id.to_owned())),
        value: None,
        headers: crate::task::Headers::default(),
        not_before: None,
    }
}

/// Our own structures always serialise: they hold text, numbers and JSON values only.
pub fn json(value: &impl serde::Serialize) -> Bytes {
    // Without room to grow: the log's cache keeps it for a while.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default().into_boxed_slice())
}
