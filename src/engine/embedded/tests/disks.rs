//! A disk that is full, or fails a flush, or is damaged; and space that is given back.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, specs};
use crate::engine::{AppendError, Commit, Health};
use crate::task::{Position, Topic};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const DIR: &str = "/simulated/data";

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is().await {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn big(key: &str) -> crate::engine::Output {
    output("tasks", key, &"x".repeat(2000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_full_disk_stops_intake_lets_work_in_flight_commit_and_heals_by_itself() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let mut accepted: Vec<Position> = engine.log.append(vec![big("first")]).await.unwrap();
    let in_flight = next_record(&mut group).await;
    let used: u64 = disk.names().iter().map(|(_, len)| len).sum();
    disk.faults.capacity.store(used + 20_000, Ordering::SeqCst);
    let refusal = loop {
        match engine.log.append(vec![big("more")]).await {
            Ok(at) => accepted.extend(at),
            Err(AppendError::Unavailable(e)) => break e.to_string(),
            Err(e) => panic!("{e}"),
        }
    };
    for part in [DIR, "full", "make room"] {
        assert!(refusal.contains(part), "`{part}` is missing in: {refusal}");
    }
    assert!(matches!(*engine.operation.health().borrow(), Health::Paused { .. }));
    // The reserve is for this.
    let commit = engine.commits.commit(done(&in_flight, vec![output("results", "first", "r")])).await;
    assert!(matches!(commit, Commit::Visible(_)), "{commit:?}");
    disk.faults.capacity.store(0, Ordering::SeqCst);
    until("intake goes on", async || engine.log.append(vec![big("after")]).await.is_ok()).await;
    assert_eq!(*engine.operation.health().borrow(), Health::Well);
    engine.operation.close().await;
    drop((group, engine));
    let engine = open(quick(1 << 20), specs(), disk).unwrap();
    for at in accepted {
        assert_eq!(engine.log.read(at.clone(), 1).await.unwrap()[0].position, at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_commits_wait_out_a_disk_that_is_full_to_the_last_byte() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![big("first")]).await.unwrap();
    let d = next_record(&mut group).await;
    disk.faults.capacity.store(1, Ordering::SeqCst);
    // Without a byte to be had, not even what the reserve gave up.
    let commit = engine.commits.commit(done(&d, vec![output("results", "first", "r")]));
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(commit);
    let ended = tokio::time::timeout(Duration::from_millis(400), waiting.join_next()).await;
    assert!(ended.is_err(), "answered {ended:?} although nothing could be written");
    assert!(engine.log.append(vec![big("more")]).await.is_err());
    disk.faults.capacity.store(0, Ordering::SeqCst);
    assert!(matches!(waiting.join_next().await, Some(Ok(Commit::Visible(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_after_a_failed_flush_the_log_goes_on_elsewhere_and_what_was_acknowledged_is_there() {
    for fails in 1..4 {
        let disk = Simulated::new();
        let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
        let first = engine.log.append(vec![big("before")]).await.unwrap();
        disk.faults.syncs_fail.store(fails, Ordering::SeqCst);
        let mut second = Vec::new();
        until("it is taken in the end", async || match engine.log.append(vec![big("during")]).await {
            Ok(at) => {
                second = at;
                true
            }
            Err(_) => false,
        })
        .await;
        // The power goes off before anything else: only what really is on the disk counts.
        let back = disk.cut(fails);
        let engine = open(quick(1 << 20), specs(), back).unwrap();
        for (at, key) in [(&first[0], "before"), (&second[0], "during")] {
            let found = engine.log.read(at.clone(), 1).await.unwrap();
            assert_eq!((&found[0].position, found[0].key.as_deref()), (at, Some(key.as_bytes())));
        }
        assert_eq!(
            engine.log.read(first[0].clone(), 9).await.unwrap().len()
                + usize::from(first[0].at != second[0].at),
            2
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_refused_with_its_place_and_a_torn_end_is_cut_off() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 30), specs(), disk.clone()).unwrap();
    let mut ends = Vec::new();
    for n in 0..4 {
        engine.log.append(vec![big(&n.to_string())]).await.unwrap();
        ends.push(engine.operation.storage().await.log_bytes);
    }
    let log = Path::new(DIR).join("00000000000000000001.log");
    // The end of its last frame is damaged: as if torn.
    let torn = disk.cut(1);
    torn.damage(&log, ends[3] as usize - 1);
    let engine = open(quick(1 << 30), specs(), torn).unwrap();
    assert_eq!(engine.operation.storage().await.log_bytes, ends[2]);
    drop(engine);
    // A frame in the middle: whole frames lie behind it.
    let sick = disk.cut(1);
    sick.damage(&log, ends[1] as usize - 1);
    let error = open(quick(1 << 30), specs(), sick).err().unwrap().to_string();
    assert!(
        error.contains("00000000000000000001.log") && error.contains(&format!("byte {}", ends[0])),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_stops_intake_before_it_is_used_up() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 16), specs(), disk.clone()).unwrap();
    let used: u64 = disk.names().iter().map(|(_, len)| len).sum();
    engine.operation.close().await;
    let settings = EmbeddedSettings { budget_bytes: Some(used * 3 + 2_000_000), ..quick(1 << 16) };
    let engine = open(settings, specs(), disk).unwrap();
    let mut refusal = String::new();
    until("intake stops", async || {
        match engine.log.append((0..50).map(|n| big(&n.to_string())).collect()).await {
            Ok(_) => false,
            Err(e) => {
                refusal = e.to_string();
                true
            }
        }
    })
    .await;
    assert!(refusal.contains("disk_max"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_retention_gives_space_back_but_keeps_what_is_incomplete_or_live() {
    let disk = Simulated::new();
    let settings = || EmbeddedSettings { window: Duration::from_millis(200), ..quick(1 << 14) };
    let engine = open(settings(), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let live = engine.log.append(vec![output("review", "item", "open")]).await.unwrap();
    engine.log.append(vec![output("review", "other", "decided")]).await.unwrap();
    engine
        .log
        .append(vec![crate::engine::Output { value: None, ..output("review", "other", "") }])
        .await
        .unwrap();
    let parked = engine.log.append(vec![output("tasks", "parked", "x")]).await.unwrap();
    let mut count = 0;
    let mut kept = None;
    for round in 0..60 {
        engine.log.append((0..4).map(|n| big(&format!("r{round}n{n}"))).collect()).await.unwrap();
        for _ in 0..4 + usize::from(round == 0) {
            let d = next_record(&mut group).await;
            if d.record.position == parked[0] {
                kept = Some(d);
            } else {
                assert!(matches!(engine.commits.commit(done(&d, Vec::new())).await, Commit::Visible(_)));
                count += 1;
            }
        }
    }
    assert_eq!((count, kept.is_some()), (240, true));
    let before = engine.operation.storage().await;
    until("old segments go", async || engine.operation.storage().await.segments < before.segments / 4).await;
    let after = engine.operation.storage().await;
    assert!(after.log_bytes < before.log_bytes / 4, "{before:?} {after:?}");
    // What pins a segment is written down by the pass of retention that finds it.
    until("the parked record is named as a pin", async || {
        let pinned = engine.operation.storage().await.pinned;
        pinned.iter().any(|(_, why)| why.contains("is not complete") && why.contains(&parked[0].to_string()))
    })
    .await;
    for at in [&live[0], &parked[0]] {
        assert_eq!(engine.log.read(at.clone(), 1).await.unwrap()[0].position, *at);
    }
    // A read from where records are gone begins with the next that is there.
    let from = Position { offset: parked[0].offset + 20, ..parked[0].clone() };
    let next = engine.log.read(from.clone(), 1).await.unwrap();
    assert!(next[0].position.offset > from.offset + 20, "{:?}", next[0].position);
    // Once it is complete and nothing is live, and after a restart, the rest goes as well.
    engine
        .log
        .append(vec![crate::engine::Output { value: None, ..output("review", "item", "") }])
        .await
        .unwrap();
    assert!(matches!(engine.commits.commit(done(&kept.unwrap(), Vec::new())).await, Commit::Visible(_)));
    engine.operation.close().await;
    drop((group, engine));
    let engine = open(settings(), specs(), disk).unwrap();
    until("the first offsets rise", async || {
        engine.log.ends(&Topic::new("tasks")).await.unwrap().iter().all(|e| e.first > 0 && e.first <= e.next)
    })
    .await;
    assert_eq!(engine.operation.storage().await.pinned, []);
}
