//! Stories of the embedded engine on a real directory.

use super::*;
use crate::dedupe::{Admission, Slot, SlotKind, SlotName, Started};
use crate::engine::{Commit, Completion, Delivery, Event, Group, Mark, Output};
use crate::outcome::OutcomeKind;
use crate::task::{Fingerprint, Headers, Origin, Position, PrintRule, ScopedKey, Token, Topic};
use bytes::Bytes;
use std::time::Duration;

fn specs() -> Vec<TopicSpec> {
    let spec = |name: &str, compacted| TopicSpec {
        topic: Topic::new(name),
        partitions: 2,
        limit: 4096,
        compacted,
        retention: None,
    };
    vec![spec("tasks", false), spec("results", false), spec("review", true)]
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
            if let Event::Record(d) = group.next().await {
                return d;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found).await.expect("a record within 5 s")
}

async fn quiet(group: &mut Box<dyn Group>) -> bool {
    let found = async {
        loop {
            if let Event::Record(_) = group.next().await {
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
