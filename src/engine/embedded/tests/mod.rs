//! Stories of the embedded engine on a real directory.

use super::*;
use crate::dedupe::{Admission, Kept, Slot, SlotKind, SlotName, Started};
use crate::engine::{Commit, Completion, Delivery, Event, Group, Mark, Output};
use crate::outcome::OutcomeKind;
use crate::task::{Fingerprint, Headers, Origin, Position, PrintRule, ScopedKey, Token, Topic};
use bytes::Bytes;
use std::time::Duration;

mod crashes;
mod disks;
mod doors;
mod flushes;
mod groups;
mod panics;
mod power;
mod retention;
mod table;
mod weakness;

/// A directory of which no real disk knows; segments so small that every test rolls and folds them.
fn quick(segment_bytes: u64) -> EmbeddedSettings {
    let settings = EmbeddedSettings::new("/simulated/data");
    EmbeddedSettings {
        segment_bytes,
        reserve_bytes: 1 << 16,
        retention_every: Duration::from_millis(20),
        ..settings
    }
}

fn specs() -> Vec<TopicSpec> {
    let spec = |name: &str, compacted| TopicSpec {
        topic: Topic::new(name),
        partitions: 2,
        limit: 4096,
        compacted,
        retention: None,
        internal: false,
        own: true,
        written: true,
    };
    vec![spec("tasks", false), spec("results", false), spec("review", true)]
}

/// The same topics for records of any size.
fn roomy() -> Vec<TopicSpec> {
    specs().into_iter().map(|spec| TopicSpec { limit: 1 << 30, ..spec }).collect()
}

fn open_in(dir: &std::path::Path) -> Engine {
    open(EmbeddedSettings::new(dir.join("data")), specs(), Arc::new(Disk)).unwrap()
}

fn output(topic: &str, key: &str, value: &str) -> Output {
    Output {
        topic: Topic::new(topic),
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Headers::default().with("h", "v"),
        not_before: None,
    }
}

async fn next_record(group: &mut Box<dyn Group>) -> Delivery {
    let found = async {
        loop {
            if let Event::Record(d) = group.next(true).await {
                return d;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found).await.expect("a record within 5 s")
}

async fn quiet(group: &mut Box<dyn Group>) -> bool {
    let found = async {
        loop {
            if let Event::Record(_) = group.next(true).await {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(150), found).await.is_err()
}

fn token(d: &Delivery) -> Token {
    let record = &d.record;
    let key = std::str::from_utf8(record.key.as_deref().unwrap_or_default()).unwrap();
    Token {
        key: ScopedKey::new("", "copy", key),
        generation: 0,
        origin: Origin { position: record.position.clone(), stamp: record.stamp },
        hop: 0,
        print: Fingerprint { rule: PrintRule::Bytes, digest: [1; 32] },
        proof: None,
        payload: record.value.clone().unwrap_or_default(),
    }
}

fn done(d: &Delivery, outputs: Vec<Output>) -> Completion {
    let mark = Mark::Close { token: token(d), outcome: OutcomeKind::Result, output: 0 };
    let mark = (!outputs.is_empty()).then_some(mark);
    Completion { lease: d.lease.clone(), offset: d.record.position.offset, outputs, urgent: false, mark }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p2_a_task_goes_through_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_in(dir.path());
    let at = engine.log.append(vec![output("tasks", "one", "payload")]).await.unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let d = next_record(&mut group).await;
    assert_eq!(d.record.position, at[0]);
    assert_eq!(d.record.headers.text("h"), Some("v"));
    let Admission::Fresh(claim) = engine.ledger.admit(&d, &token(&d), None).await.unwrap() else { panic!() };
    let slot = Slot { name: SlotName("ask.r0".into()), kind: SlotKind::Call };
    let started = engine.journal.start(&claim, &slot, Duration::from_secs(1)).await.unwrap();
    assert_eq!(started, Started::Go { repeat: false, times: 0, deaths: 0 });
    let _ = engine.journal.store(&claim, &slot, "answer".into()).await.unwrap();
    let Commit::Visible(places) =
        engine.commits.commit(done(&d, vec![output("results", "one", "answer")])).await
    else {
        panic!()
    };
    assert!(engine.commits.is_complete(&at[0]));
    assert_eq!(engine.commits.commit(done(&d, Vec::new())).await, Commit::Void);
    drop((group, engine));

    let engine = open_in(dir.path());
    let found = engine.log.read(places[0].clone(), 10).await.unwrap();
    assert_eq!(found.iter().map(|r| r.value.clone().unwrap()).collect::<Vec<_>>(), ["answer"]);
    let claim = engine.ledger.look(&token(&d).key).await.unwrap().unwrap();
    assert_eq!(
        claim.phase,
        crate::dedupe::Phase::Closed { outcome: OutcomeKind::Result, at: places[0].clone() }
    );
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    assert!(quiet(&mut group).await);
    engine.operation.close().await;
    drop(engine);
    let engine = open_in(dir.path());
    assert!(engine.commits.is_complete(&at[0]));
    assert_eq!(engine.log.read(places[0].clone(), 10).await.unwrap(), found);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_what_was_not_completed_comes_back_after_a_restart_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_in(dir.path());
    let batch = (0..20).map(|i| output("tasks", &format!("k{i}"), "x")).collect();
    let at = engine.log.append(batch).await.unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let mut kept: Vec<Position> = Vec::new();
    for i in 0..20 {
        let d = next_record(&mut group).await;
        if i % 2 == 0 {
            assert!(matches!(engine.commits.commit(done(&d, Vec::new())).await, Commit::Visible(_)));
        } else {
            kept.push(d.record.position.clone());
        }
    }
    assert!(quiet(&mut group).await);
    drop((group, engine));
    let engine = open_in(dir.path());
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let mut again = Vec::new();
    for _ in 0..10 {
        again.push(next_record(&mut group).await.record.position.clone());
    }
    assert!(quiet(&mut group).await);
    kept.sort();
    again.sort();
    assert_eq!(kept, again);
    assert_eq!(at.len(), 20);
    let open: u64 = engine.log.ends(&Topic::new("tasks")).await.unwrap().iter().filter_map(|e| e.open).sum();
    assert_eq!(open, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_after_a_crash_a_started_call_is_repeated_and_counted_an_effect_unknown_and_an_answer_kept() {
    let disk = super::simulated::Simulated::new();
    let slot = |name: &str, kind| Slot { name: SlotName(name.into()), kind };
    let (call, effect, stored) =
        (slot("call", SlotKind::Call), slot("effect", SlotKind::Effect), slot("stored", SlotKind::Call));
    let second = Duration::from_secs(1);
    let engine = open(quick(1 << 14), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![output("tasks", "one", "x")]).await.unwrap();
    let d = next_record(&mut group).await;
    let Admission::Fresh(claim) = engine.ledger.admit(&d, &token(&d), None).await.unwrap() else { panic!() };
    for s in [&call, &effect, &stored] {
        let go = engine.journal.start(&claim, s, second).await.unwrap();
        assert_eq!(go, Started::Go { repeat: false, deaths: 0, times: 0 });
    }
    let _ = engine.journal.store(&claim, &stored, "bought".into()).await.unwrap();

    let back = disk.cut(3);
    let engine = open(quick(1 << 14), specs(), back).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let again = next_record(&mut group).await;
    assert_eq!(again.record.position, d.record.position);
    let Admission::Resumed(claim, slots) = engine.ledger.admit(&again, &token(&again), None).await.unwrap()
    else {
        panic!()
    };
    let kept = Kept { value: "bought".into(), times: 0 };
    assert_eq!(slots.into_iter().collect::<Vec<_>>(), [(stored.name.clone(), kept.clone())]);
    let start = async |s| engine.journal.start(&claim, s, second).await.unwrap();
    assert_eq!(start(&call).await, Started::Go { repeat: true, deaths: 1, times: 1 });
    assert_eq!(start(&effect).await, Started::Unknown);
    assert_eq!(start(&stored).await, Started::Done(kept));
    let view = engine.ledger.list(None, 10).await.unwrap();
    assert_eq!(view.iter().map(|v| v.key.to_string()).collect::<Vec<_>>(), ["copy/one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_claim_and_a_refused_mark_expire_with_their_window() {
    let disk = super::simulated::Simulated::new();
    let settings = EmbeddedSettings { window: Duration::from_millis(300), ..quick(1 << 12) };
    let engine = open(settings, specs(), disk).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![output("tasks", "one", "x"), output("tasks", "bad", "x")]).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let d = next_record(&mut group).await;
        if &*token(&d).key.key == "bad" {
            assert!(matches!(engine.ledger.refuse(&d, &token(&d)).await.unwrap(), Admission::Refused));
            assert!(matches!(engine.ledger.admit(&d, &token(&d), None).await.unwrap(), Admission::Refused));
            keys.push((d, true));
        } else {
            assert!(matches!(engine.ledger.admit(&d, &token(&d), None).await.unwrap(), Admission::Fresh(_)));
            let commit = engine.commits.commit(done(&d, vec![output("results", "one", "r")])).await;
            assert!(matches!(commit, Commit::Visible(_)));
            let Admission::Silent(_) = engine.ledger.admit(&d, &token(&d), None).await.unwrap() else {
                panic!()
            };
            keys.push((d, false));
        }
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    for (d, refused) in keys {
        let admission = engine.ledger.admit(&d, &token(&d), None).await.unwrap();
        assert!(matches!(admission, Admission::Fresh(_)), "refused: {refused}, {admission:?}");
    }
}
