//! A result as its Avro twin (`schemas/result.avsc`) has it, and back.
//!
//! The two differ in one thing: what has a shape of its own in each kind (answer, confidence, tries,
//! repairs, effects) is JSON as text there. So one schema serves all kinds, and a topic that kinds share has
//! one subject whose versions stay compatible.

use super::record::Envelope;
use crate::avro::{self, Refused, Schema};
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Part of the program; a test reads it.
static SCHEMA: LazyLock<Result<Schema, Refused>> = LazyLock::new(avro::result_schema);

/// Fields that are text in the twin, and whether they may be null as they are.
const FREE: [(&str, bool); 2] = [("answer", false), ("confidence", true)];
/// Fields that are lists of texts in the twin.
const FREE_LISTS: [&str; 3] = ["tries", "repairs", "effects"];

/// In the wire format, under the id that the schema has in the registry.
pub(super) fn write(envelope: &Envelope, id: u32) -> Bytes {
    let mut value = json!(envelope);
    for (name, nullable) in FREE {
        if !(nullable && value[name].is_null()) {
            value[name] = value[name].to_string().into();
        }
    }
    for name in FREE_LISTS {
        let texts = value[name].as_array().map(|items| items.iter().map(Value::to_string).collect());
        value[name] = texts.unwrap_or_default();
    }
    for name in ["input_tokens", "output_tokens"] {
        // A count of tokens that does not fit was no count.
        let tokens = value["usage"][name].as_u64().map_or(0, |n| n.min(i64::MAX.unsigned_abs()));
        value["usage"][name] = tokens.into();
    }
    // Our own structure and its own schema: a test holds them together.
    let datum = SCHEMA.as_ref().ok().and_then(|schema| schema.encode(&value).ok()).unwrap_or_default();
    Bytes::from(avro::frame(id, &datum).into_boxed_slice())
}

/// Only what was written here: other bytes are none of our results.
pub(super) fn read(value: &[u8]) -> Option<Envelope> {
    let (_, datum) = avro::unframe(value).ok()?;
    let mut value = SCHEMA.as_ref().ok()?.decode(datum).ok()?;
    let parsed = |text: &Value| serde_json::from_str::<Value>(text.as_str()?).ok();
    for (name, nullable) in FREE {
        if !(nullable && value[name].is_null()) {
            value[name] = parsed(&value[name])?;
        }
    }
    for name in FREE_LISTS {
        let items: Option<Vec<Value>> = value[name].as_array()?.iter().map(parsed).collect();
        value[name] = items?.into();
    }
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Status;
    use crate::write::record::{Action, MadeBy, Reviewed, Usage, VERSION};

    fn full() -> Envelope {
        let some = |text: &str| Some(text.to_owned());
        Envelope {
            v: VERSION,
            key: "a/b \u{e9}".into(),
            kind: "ticket".into(),
            tenant: some("north"),
            generation: u32::MAX,
            origin: "tasks.ticket/0/7@1".into(),
            fingerprint: "whole:00".into(),
            status: Status::Edited,
            late: true,
            answer: json!({ "dose": 5, "words": ["\u{1F642}", null, 0.1] }),
            confidence: json!({ "overall": { "value": 0.5 } }),
            made_by: MadeBy {
                model: some("m"),
                provider: some("p"),
                endpoint: some("http://127.0.0.1/v1"),
                configuration: "c".into(),
                prompt: some("q"),
                schema: some("s"),
                tidegate: "0.1.0".into(),
            },
            usage: Usage { input_tokens: 3, output_tokens: 4, cost: Some(0.1) },
            tries: json!([{ "slot": "answer.r0", "n": 1 }, {}]),
            repairs: json!([{ "what": "fence" }]),
            effects: vec![json!("e"), json!(null)],
            reviewed: Some(Reviewed {
                by: "ada".into(),
                at: "2026-11-26T00:00:00Z".into(),
                action: Action::Edit,
                reason: some("unit"),
                decision: "review.decisions/0/1".into(),
                item: "0".repeat(20),
            }),
            accepted_at: "2026-11-26T00:00:00Z".into(),
            finished_at: "2026-11-26T00:00:01Z".into(),
        }
    }

    #[test]
    fn a_result_comes_back_from_avro_as_it_was() {
        let least = Envelope {
            tenant: None,
            status: Status::Accepted,
            answer: Value::Null,
            confidence: Value::Null,
            made_by: MadeBy::default(),
            usage: Usage { cost: None, ..Usage::default() },
            tries: json!([]),
            reviewed: None,
            ..full()
        };
        let of = |status| Envelope { status, answer: json!("text"), ..full() };
        let statuses = [Status::Approved, Status::Rejected, Status::Amended];
        for envelope in [full(), least].into_iter().chain(statuses.map(of)) {
            let value = write(&envelope, 0x0102_0304);
            assert_eq!(value[..5], [0, 1, 2, 3, 4]);
            assert_eq!(read(&value), Some(envelope));
        }
    }

    #[test]
    fn a_count_beyond_all_counts_does_not_cost_the_result() {
        let usage = Usage { input_tokens: u64::MAX, ..full().usage };
        let read = read(&write(&Envelope { usage, ..full() }, 1)).unwrap();
        assert_eq!(read.usage.input_tokens, u64::MAX / 2);
        assert_eq!(read.answer, full().answer);
    }

    #[test]
    fn other_bytes_are_no_result_of_ours() {
        let value = write(&full(), 1);
        for bytes in [&value[..value.len() - 1], &value[1..], b"\0\0\0\0\x01", b"{}", b""] {
            assert_eq!(read(bytes), None);
        }
    }
}
