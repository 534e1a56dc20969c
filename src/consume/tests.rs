//! Which records are tasks, and what is known of those that are not.

use super::{Kinds, Sent, Undecoded, intake};
use crate::outcome::Reason;
use crate::settings::Settings;
use crate::task::{Headers, Partition, Position, Record, Timestamp, Token, Topic};
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
