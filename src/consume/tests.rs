//! Which records are tasks, and what is known of those that are not.

use super::{Kinds, Sent, Task, Undecoded, intake};
use crate::avro::{Need, Schema, frame};
use crate::outcome::Reason;
use crate::settings::Settings;
use crate::task::{Headers, Partition, Position, Record, Timestamp, Token, Topic};
use crate::token;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;

fn settings(text: &str) -> Settings {
    Settings::parse(Path::new("tidegate.toml"), text, &|_| None).map_err(|e| e.to_string()).unwrap()
}

fn record(value: &str, headers: Headers) -> Arc<Record> {
    let at = Partition { topic: Topic::new("tasks.copy"), index: 0 };
    Arc::new(Record {
        position: Position { at, offset: 7 },
        stamp: Timestamp(1_000),
        key: None,
        value: Some(Bytes::from(value.to_owned())),
        headers,
        not_before: None,
    })
}

/// The token of a task; or why it is none, and the token that the ledger is asked with.
fn decode(text: &str, value: &str, headers: Headers) -> Result<Token, (Reason, Option<Token>)> {
    let found = Kinds::new(&settings(text)).decode(&record(value, headers));
    found.map(|task| task.token).map_err(|undecoded| match undecoded {
        Undecoded::Poison(poison) => (poison.reason, poison.known.map(|(token, _)| token)),
        Undecoded::Wants(need) => panic!("wants {need:?}"),
    })
}

fn keyed(key: &str) -> Headers {
    Headers::default().with("idempotency-key", key.to_owned())
}

#[test]
fn p2_a_record_beyond_a_lowered_limit_still_knows_its_key() {
    let value = format!("{{\"text\":\"{}\"}}", "x".repeat(20_000));
    let was = decode("[tasks.copy]", &value, keyed("k")).unwrap();
    let refused = decode("[engine]\nrecord_max = \"16KiB\"\n[tasks.copy]", &value, keyed("k")).unwrap_err();
    assert_eq!(refused.0, Reason::RecordTooLarge);
    assert_eq!(refused.1, Some(was), "the ledger must be asked: it may own an open claim");
}

#[test]
fn p2_a_large_record_that_is_not_json_is_known_by_its_header() {
    let broken = "x".repeat(20_000);
    let refused = decode("[engine]\nrecord_max = \"16KiB\"\n[tasks.copy]", &broken, keyed("k")).unwrap_err();
    assert_eq!(refused.0, Reason::RecordTooLarge);
    assert_eq!(&*refused.1.unwrap().key.key, "k");
}

#[test]
fn numbers_that_json_rounds_are_no_keys() {
    let kind = "[tasks.copy]\nkey = \"task.id\"";
    let key = |value: &str| decode(kind, value, Headers::default()).map(|t| t.key.key.to_string());
    assert_eq!(key(r#"{"id":18446744073709551615}"#).unwrap(), "18446744073709551615");
    assert_eq!(key(r#"{"id":-7}"#).unwrap(), "-7");
    for id in ["100000000000000000000000000001", "1.5", "true"] {
        let refused = key(&format!(r#"{{"id":{id}}}"#)).unwrap_err();
        assert_eq!(refused, (Reason::KeyMissing, None), "{id}");
    }
}

#[test]
fn p1_p2_a_header_that_decides_something_and_is_not_utf8_is_refused_and_never_taken_for_none() {
    let broken = |name: &str| Headers::default().with(name.to_owned(), &b"\xff"[..]);
    let refused = |kind: &str, headers| decode(kind, "{}", headers).unwrap_err();
    let content = "[tasks.copy]\nkey = \"content\"";
    for name in ["tenant", "deadline"] {
        let mut headers = broken(name);
        headers.push("idempotency-key", "k");
        let (reason, known) = refused("[tasks.copy]", headers);
        assert_eq!((reason, known.is_some()), (Reason::Malformed, name == "deadline"), "{name}");
    }
    assert_eq!(refused(content, broken("idempotency-key")), (Reason::KeyMissing, None));
    assert_eq!(refused(content, broken("ce_source")), (Reason::KeyMissing, None));
    assert_eq!(refused(content, broken("ce_id").with("ce_source", "s")), (Reason::KeyMissing, None));
    assert!(decode(content, "{}", broken("x-other")).is_ok());
}

#[test]
fn a_tenant_without_bounds_is_refused_on_every_way_in() {
    let long = keyed("k").with("tenant", "t".repeat(257));
    let refused = decode("[tasks.copy]", "{}", long.clone()).unwrap_err();
    assert_eq!(refused, (Reason::Malformed, None));
    let settings = settings("[tasks.copy]");
    let sent = Sent { payload: &Bytes::from_static(b"{}"), key: None, lend_key: false };
    let told = intake(&settings.kinds[0], sent, long, None, 1 << 20).unwrap_err();
    assert_eq!((told.status, told.reason), (400, Reason::Malformed));
    assert!(decode("[tasks.copy]", "{}", keyed("k").with("tenant", "t".repeat(256))).is_ok());
}

const AVRO: &str = "[tasks.copy]\nformat = \"avro\"\n[registry]\nschemas = { 7 = \"order.avsc\" }\n";
const ASKS: &str = "[tasks.copy]\nformat = \"avro\"\n[registry]\nurl = \"http://127.0.0.1:1\"\n";
const ORDER: &str =
    r#"{"type":"record","name":"O","fields":[{"name":"n","type":"int"},{"name":"t","type":"double"}]}"#;

/// A configuration beside the schema of orders.
fn beside(text: &str) -> Kinds {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("order.avsc"), ORDER).unwrap();
    Kinds::new(&Settings::parse(&dir.path().join("tidegate.toml"), text, &|_| None).unwrap())
}

fn order(json: &str) -> Bytes {
    let datum = Schema::parse(ORDER).unwrap().encode(&serde_json::from_str(json).unwrap()).unwrap();
    frame(7, &datum).into()
}

/// Of this topic, with this value.
fn lies(topic: &str, value: Bytes, headers: Headers) -> Arc<Record> {
    let mut record = Record::clone(&record("", headers));
    record.position.at.topic = Topic::new(topic);
    record.value = Some(value);
    Arc::new(record)
}

#[track_caller]
fn taken(kinds: &Kinds, record: &Arc<Record>) -> Task {
    match kinds.decode(record) {
        Ok(task) => task,
        Err(Undecoded::Poison(poison)) => panic!("{}: {}", poison.reason, poison.detail),
        Err(Undecoded::Wants(need)) => panic!("wants {need:?}"),
    }
}

#[test]
fn the_same_payload_is_the_same_task_in_avro_and_in_json() {
    let (avro, json) = (beside(AVRO), beside("[tasks.copy]"));
    let (a, b) = ("{\"n\":5,\"t\":1.0}", " {\"t\": 1, \"n\": 5}");
    let task = taken(&avro, &lies("tasks.copy", order(a), keyed("k")));
    assert_eq!((&task.payload, &task.token.payload[..]), (&serde_json::from_str(a).unwrap(), a.as_bytes()));
    assert_eq!(task.token.print, taken(&json, &record(b, keyed("k"))).token.print);
    assert_ne!(task.token.print, taken(&json, &record("{\"n\":6,\"t\":1}", keyed("k"))).token.print);
}

#[test]
fn p2_a_token_is_read_as_it_was_written_whatever_its_kind_reads_today() {
    let (avro, json) = (beside(AVRO), beside(&AVRO.replace("format = \"avro\"", "")));
    let text = "{\"n\":5,\"t\":0.5}";
    for value in [order(text), Bytes::from_static(text.as_bytes())] {
        let first = taken(&avro, &lies("tasks.copy", order(text), keyed("k")));
        let headers = token::encode(&first.token, &first.carry, &keyed("k"));
        for kinds in [&avro, &json] {
            let task = taken(kinds, &lies("retry.5s", value.clone(), headers.clone()));
            assert_eq!((task.payload, task.token), (first.payload.clone(), first.token.clone()));
        }
    }
}

#[test]
fn p1_what_was_refused_unread_has_the_print_of_its_payload_once_it_is_read() {
    let value = order("{\"n\":5,\"t\":0.5}");
    let unread = beside(&AVRO.replace("7 = ", "8 = ")).decode(&lies("tasks.copy", value.clone(), keyed("k")));
    let Err(Undecoded::Poison(poison)) = unread else { panic!("nobody knows schema 7") };
    assert_eq!(poison.reason, Reason::SchemaUnknown);
    let (token, carry) = poison.known.unwrap();
    let headers = token::encode(&token, &carry, &keyed("k"));
    let read = taken(&beside(AVRO), &lies("resume", value.clone(), headers));
    let sent = taken(&beside(AVRO), &lies("tasks.copy", value, keyed("k")));
    assert_ne!(token.print, sent.token.print);
    assert_eq!((read.token.print, read.token.payload), (sent.token.print, sent.token.payload));
}

#[test]
fn what_a_record_wants_is_told_by_its_first_bytes_and_others_want_nothing() {
    let kinds = beside(ASKS);
    let value = order("{\"n\":5,\"t\":0.5}");
    let waits = lies("tasks.copy", value.clone(), keyed("k"));
    assert_eq!(kinds.wants(&waits), Some(("copy".into(), Need::Reader(7))));
    assert!(matches!(kinds.decode(&waits), Err(Undecoded::Wants(Need::Reader(7)))));
    let parked = lies("retry.5s", value.clone(), keyed("k").with(token::KIND, "copy"));
    assert_eq!(kinds.wants(&parked), Some(("copy".into(), Need::Reader(7))));
    for plain in ["{}", "", "\0\0\0"] {
        let record = lies("tasks.copy", Bytes::from(plain), keyed("k"));
        assert_eq!(kinds.wants(&record), None, "{plain:?} is refused, and nobody is asked");
        assert!(matches!(kinds.decode(&record), Err(Undecoded::Poison(p)) if p.reason == Reason::Malformed));
    }
    let json = beside("[tasks.copy]");
    assert_eq!(json.wants(&waits), None, "a kind of JSON asks nobody what this might be");
    assert_eq!(beside(AVRO).wants(&waits), None, "it is known");
    // Before a task of it buys anything, its result can be written.
    let writes = beside(&ASKS.replace("format =", "result_format ="));
    let record = lies("tasks.copy", Bytes::from_static(b"{}"), keyed("k"));
    let need = Need::Results(Topic::new("results"));
    assert!(matches!(writes.decode(&record), Err(Undecoded::Wants(wanted)) if wanted == need));
    assert_eq!(writes.wants(&record), Some(("copy".into(), need)));
}

#[test]
fn a_foreign_type_is_refused_at_intake() {
    let settings = settings("[tasks.copy]\ntype = \"ours\"");
    let offer = |headers: Headers| {
        let sent = Sent { payload: &Bytes::from_static(b"{}"), key: Some("k"), lend_key: false };
        intake(&settings.kinds[0], sent, headers, None, 1 << 20)
    };
    let told = offer(Headers::default().with("ce_type", "theirs")).unwrap_err();
    assert_eq!((told.status, told.reason), (400, Reason::KindUnknown));
    for headers in [Headers::default(), Headers::default().with("ce_type", "ours")] {
        let accepted = offer(headers).unwrap();
        assert_eq!(
            accepted.output.headers.text("ce_type"),
            Some("ours"),
            "its record is read as it was answered"
        );
    }
}

#[test]
fn p1_a_key_that_the_kinds_rule_does_not_find_is_refused_at_intake_and_never_dropped_in_silence() {
    let settings = settings("[tasks.copy]\nkey = \"task.id\"");
    let offer = |key| {
        let sent = Sent { payload: &Bytes::from_static(b"{\"id\":7}"), key, lend_key: false };
        intake(&settings.kinds[0], sent, Headers::default(), None, 1 << 20)
    };
    for key in [None, Some("7")] {
        assert_eq!(&*offer(key).unwrap().scope.key, "7");
    }
    let told = offer(Some("mine")).unwrap_err();
    assert_eq!((told.status, told.reason), (400, Reason::Malformed));
    assert_eq!(told.detail, "the key sent is `mine`, and by the kind's rule `task.id` it is `7`");
}
