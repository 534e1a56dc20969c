//! Which records are tasks, and what is known of those that are not.

use super::{Kinds, Poison, Task, intake};
use crate::outcome::Reason;
use crate::settings::Settings;
use crate::task::{Headers, Partition, Position, Record, Timestamp, Topic};
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

fn decode(text: &str, value: &str, headers: Headers) -> Result<Task, Poison> {
    Kinds::new(&settings(text)).decode(&record(value, headers))
}

fn keyed(key: &str) -> Headers {
    Headers::default().with("idempotency-key", key.to_owned())
}

#[test]
fn p2_a_record_beyond_a_lowered_limit_still_knows_its_key() {
    let value = format!("{{\"text\":\"{}\"}}", "x".repeat(20_000));
    let was = decode("[tasks.copy]", &value, keyed("k")).unwrap();
    let refused = decode("[engine]\nrecord_max = \"16KiB\"\n[tasks.copy]", &value, keyed("k")).unwrap_err();
    assert_eq!(refused.reason, Reason::RecordTooLarge);
    let (token, _) = refused.known.expect("the ledger must be asked: it may own an open claim");
    assert_eq!(token.key, was.token.key);
    assert_eq!((token.print, token.origin), (was.token.print, was.token.origin));
}

#[test]
fn p2_a_large_record_that_is_not_json_is_known_by_its_header() {
    let broken = "x".repeat(20_000);
    let refused = decode("[engine]\nrecord_max = \"16KiB\"\n[tasks.copy]", &broken, keyed("k")).unwrap_err();
    assert_eq!((refused.reason, refused.known.is_some()), (Reason::RecordTooLarge, true));
}
