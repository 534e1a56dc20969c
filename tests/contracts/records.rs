//! Published records and their schemas say the same: same fields, same ones required, and what the
//! code writes is valid.

use crate::schemas::{read, refuses};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use tidegate::outcome::{Reason, Status};
use tidegate::task::{
    Fingerprint, Headers, Origin, Partition, Position, PrintRule, Record, ScopedKey, Timestamp, Token, Topic,
};
use tidegate::trail::Trail;
use tidegate::write::record::{
    Action, Burial, Decision, Envelope, MadeBy, ReviewItem, ReviewOutcome, Reviewed, Ruling, Usage, VERSION,
    item_id,
};
use tidegate::{token, write};

#[test]
fn a_result_is_what_its_schema_says() {
    let (full, least) = (envelope(), least_envelope());
    same("result", &full, &least);
    let reviewed = full.reviewed.unwrap();
    same_below("result", "/properties/reviewed", &reviewed, &Reviewed { reason: None, ..reviewed.clone() });
    same_below("result", "/properties/made_by", &full.made_by, &MadeBy::default());
    same_below("result", "/properties/usage", &full.usage, &Usage::default());
}

#[test]
fn every_status_and_every_reason_is_in_the_schema() {
    for status in [Status::Accepted, Status::Approved, Status::Edited, Status::Rejected, Status::Amended] {
        valid("result", &Envelope { status, ..envelope() });
    }
    for reason in Reason::ALL {
        let burial = Burial { reason: *reason, ..burial() };
        assert_eq!(refuses("dead-letter", &letter_headers(&burial)), Vec::<String>::new(), "{reason}");
    }
}

#[test]
fn a_review_item_is_what_its_schema_says() {
    let (full, least) = (item(), least_item());
    same("review-item", &full, &least);
    let of_item = read("review-item");
    let proposed = &of_item["properties"]["proposed"]["properties"];
    assert_eq!(*proposed, read("result")["properties"], "what is proposed is a result");
}

#[test]
fn a_decision_is_what_its_schema_says() {
    let (full, least) = (decision(), least_decision());
    same("review-decision", &full, &least);
    valid("review-decision", &Decision { action: Action::Reject, ..least.clone() });
    let without = Decision { answer: None, ..full };
    assert!(!refuses("review-decision", &value(&without)).is_empty(), "an edit brings its answer");
}

#[test]
fn a_review_outcome_is_what_its_schema_says() {
    let (full, least) = (review_outcome(), least_review_outcome());
    same("review-outcome", &full, &least);
    for verdict in [Ruling::Counts, Ruling::Invalid] {
        valid("review-outcome", &ReviewOutcome { verdict, ..full.clone() });
    }
}

#[test]
fn a_dead_letter_is_what_its_schema_says() {
    let full = letter_headers(&burial());
    let mut all = full.clone();
    // Only what is not whole says how much there was.
    let record = Record { value: Some(vec![b'x'; 1 << 20].into()), ..record() };
    let small = write::shrink(&Topic::new("dead-letters"), &record, &burial());
    merge(&mut all, &headers_of(&small.headers));
    fields_match("dead-letter", &all, &letter_headers(&least_burial()));
    for headers in [full, letter_headers(&least_burial())] {
        assert_eq!(refuses("dead-letter", &headers), Vec::<String>::new(), "{headers}");
    }
}

/// The headers that intake reads are in the schema, by the source itself: no list to forget.
#[test]
fn a_task_event_schema_names_every_header_that_is_read() {
    let named = keys(&read("task-event")["properties"]);
    let pattern = regex::Regex::new(r#"(?:\.(?:text|get)\(|text_of\(headers, )"([a-z_-]+)"[,)]"#).unwrap();
    let mut read = BTreeSet::new();
    for source in crate::source::sources("src/consume") {
        read.extend(pattern.captures_iter(&source.text).map(|c| c[1].to_owned()));
    }
    assert!(read.contains("idempotency-key") && read.contains("deadline"), "found only {read:?}");
    let unnamed: Vec<_> = read.difference(&named).collect();
    assert!(unnamed.is_empty(), "read, and not in schemas/task-event.json: {unnamed:?}");
}

#[test]
fn every_schema_carries_a_version_and_refuses_what_it_does_not_know() {
    for name in ["result", "review-item", "review-decision", "review-outcome", "dead-letter", "task-event"] {
        let schema = read(name);
        assert_eq!(schema["$id"], format!("tidegate:{name}:1"));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        if name != "task-event" {
            assert_eq!(schema["additionalProperties"], json!(false), "{name}");
        }
        for (field, what) in schema["properties"].as_object().unwrap() {
            assert!(
                what.get("description").is_some() || what.get("const").is_some(),
                "{name}: `{field}` says nothing"
            );
        }
    }
}

/// `full` has every field, `least` only those that are always there; both are valid.
fn same<T: Serialize>(name: &str, full: &T, least: &T) {
    fields_match(name, &value(full), &value(least));
    valid(name, full);
    valid(name, least);
}

fn fields_match(name: &str, full: &Value, least: &Value) {
    let schema = read(name);
    assert_eq!(keys(&schema["properties"]), keys(full), "fields of schemas/{name}.json and of the code");
    assert_eq!(words(&schema["required"]), keys(least), "required by schemas/{name}.json and always written");
}

fn same_below<T: Serialize>(name: &str, pointer: &str, full: &T, least: &T) {
    let schema = read(name);
    let part = schema.pointer(pointer).unwrap();
    assert_eq!(keys(&part["properties"]), keys(&value(full)), "{name}{pointer}");
    assert_eq!(words(&part["required"]), keys(&value(least)), "{name}{pointer}");
    assert_eq!(part["additionalProperties"], json!(false), "{name}{pointer}");
}

fn valid(name: &str, record: &impl Serialize) {
    assert_eq!(refuses(name, &value(record)), Vec::<String>::new(), "{}", value(record));
}

fn value(record: &impl Serialize) -> Value {
    serde_json::to_value(record).unwrap()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap_or_else(|| panic!("no object: {object}")).keys().cloned().collect()
}

fn words(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect()
}

fn position(topic: &str, offset: u64) -> Position {
    Position { at: Partition { topic: Topic::new(topic), index: 2 }, offset }
}

fn token() -> Token {
    Token {
        key: ScopedKey::new("north", "ticket", "a/b é"),
        generation: 1,
        origin: Origin { position: position("tasks.ticket", 7), stamp: Timestamp(1_700_000_000_123) },
        hop: 3,
        print: Fingerprint { rule: PrintRule::Fields(vec!["a".into()].into()), digest: [7; 32] },
        proof: Some(position("results", 12)),
        payload: Bytes::from_static(b"{}"),
    }
}

fn envelope() -> Envelope {
    let token = token();
    Envelope {
        v: VERSION,
        key: "a/b é".into(),
        kind: "ticket".into(),
        tenant: Some("north".into()),
        generation: 1,
        origin: token::write_origin(&token.origin),
        fingerprint: token::write_print(&token.print),
        status: Status::Edited,
        late: true,
        answer: json!({ "dose": 5 }),
        confidence: json!({ "overall": { "value": 0.5, "basis": "uncalibrated" } }),
        made_by: MadeBy {
            model: Some("m".into()),
            provider: Some("p".into()),
            endpoint: Some("http://127.0.0.1/v1".into()),
            configuration: "c".into(),
            prompt: Some("q".into()),
            schema: Some("s".into()),
            tidegate: "0.1.0".into(),
        },
        usage: Usage { input_tokens: 3, output_tokens: 4, cost: Some(0.25) },
        tries: json!([{ "slot": "answer.r0#00000000" }]),
        repairs: json!([]),
        effects: vec![],
        reviewed: Some(Reviewed {
            by: "ada".into(),
            at: Timestamp(1_700_000_000_000).rfc3339(),
            action: Action::Edit,
            reason: Some("unit".into()),
            decision: position("review.decisions", 1).to_string(),
            item: item_id(&token),
        }),
        accepted_at: Timestamp(1_700_000_000_000).rfc3339(),
        finished_at: Timestamp(1_700_000_001_000).rfc3339(),
    }
}

fn item() -> ReviewItem {
    ReviewItem {
        v: VERSION,
        id: item_id(&token()),
        question: "dose: 81 %, below the line".into(),
        why: vec![
            json!({ "reason": "TG-below-line", "field": "dose", "detail": "81 %", "severity": "normal" }),
        ],
        severity: "normal".into(),
        team: Some("clinicians".into()),
        opened_at: Timestamp(1_700_000_000_000),
        due_at: Some(Timestamp(1_700_000_100_000)),
        payload: json!({ "text": "five" }),
        record_key: Some("6b".into()),
        proposed: Envelope { reviewed: None, status: Status::Approved, ..envelope() },
        answer_text: Some("five, I think".into()),
        findings: json!([]),
    }
}

fn least_envelope() -> Envelope {
    Envelope { tenant: None, reviewed: None, made_by: MadeBy::default(), ..envelope() }
}

fn least_item() -> ReviewItem {
    ReviewItem { team: None, due_at: None, record_key: None, answer_text: None, ..item() }
}

fn decision() -> Decision {
    Decision {
        v: VERSION,
        item: item_id(&token()),
        item_at: position("review.requests", 4).to_string(),
        action: Action::Edit,
        by: "ada".into(),
        reason: Some("unit".into()),
        answer: Some(json!({ "dose": 5 })),
        nonce: "n1".into(),
        at: Timestamp(1_700_000_000_000),
    }
}

fn least_decision() -> Decision {
    Decision { action: Action::Approve, reason: None, answer: None, ..decision() }
}

fn review_outcome() -> ReviewOutcome {
    ReviewOutcome {
        v: VERSION,
        item: item_id(&token()),
        nonce: "n1".into(),
        verdict: Ruling::Superseded,
        decided_by: Some("ada".into()),
        decided_at: Some("review.decisions/0/3".into()),
        action: Some(Action::Approve),
        detail: "ada approved it".into(),
        at: Timestamp(1_700_000_000_000),
    }
}

fn least_review_outcome() -> ReviewOutcome {
    ReviewOutcome {
        decided_by: None,
        decided_at: None,
        action: None,
        detail: String::new(),
        ..review_outcome()
    }
}

/// Of every published record one with everything, and one with what is always there.
pub(crate) fn examples() -> Vec<(&'static str, Value)> {
    vec![
        ("result", value(&envelope())),
        ("result", value(&least_envelope())),
        ("review-item", value(&item())),
        ("review-item", value(&least_item())),
        ("review-decision", value(&decision())),
        ("review-decision", value(&least_decision())),
        ("review-outcome", value(&review_outcome())),
        ("review-outcome", value(&least_review_outcome())),
        ("dead-letter", letter_headers(&burial())),
        ("dead-letter", letter_headers(&least_burial())),
        ("task-event", json!({ "idempotency-key": "k", "ce_id": "7", "x-own": "kept" })),
        ("task-event", json!({})),
    ]
}

fn record() -> Record {
    Record {
        position: position("tasks.ticket", 7),
        stamp: Timestamp(1_700_000_000_123),
        key: Some("k".into()),
        value: Some(Bytes::from_static(b"\xff{")),
        headers: Headers::default().with("idempotency-key", "a/b é").with("tidegate-reason", "forged"),
        not_before: None,
    }
}

fn burial() -> Burial {
    let mut trail = Trail::default();
    trail.note(Timestamp(1), "admitted", "");
    Burial {
        reason: Reason::DeadlinePassed,
        detail: "passed".into(),
        source: record().position.to_string(),
        at: Timestamp(1_700_000_000_500),
        token: Some(token()),
        outcome: true,
        tries: 2,
        first_error: Some("429".into()),
        last_error: Some("500".into()),
        trail,
    }
}

/// A record whose key could not be found.
fn least_burial() -> Burial {
    Burial {
        token: None,
        outcome: false,
        tries: 0,
        first_error: None,
        last_error: None,
        trail: Trail::default(),
        ..burial()
    }
}

fn letter_headers(burial: &Burial) -> Value {
    headers_of(&write::bury(&Topic::new("dead-letters"), &record(), burial).headers)
}

/// Only what Tidegate added.
fn headers_of(headers: &Headers) -> Value {
    let mut found = Map::new();
    for (name, value) in headers.0.iter().filter(|(name, _)| name.starts_with(token::PREFIX)) {
        let text = std::str::from_utf8(value).unwrap();
        assert!(found.insert(name.clone(), text.into()).is_none(), "header `{name}` is there twice");
    }
    Value::Object(found)
}

fn merge(into: &mut Value, more: &Value) {
    into.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
}
