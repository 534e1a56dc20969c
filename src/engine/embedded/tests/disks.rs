//! A disk that is full, or fails a flush, or is damaged; and space that is given back.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, roomy, specs, token};
use crate::engine::{AppendError, Commit, Delivery, Health, Lease, Output, Unavailable};
use crate::task::{Headers, Position, Record, Timestamp, Topic};
use bytes::Bytes;
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

fn big(key: &str) -> Output {
    output("tasks", key, &"x".repeat(2000))
}

fn tombstone(key: &str) -> Output {
    Output { value: None, ..output("review", key, "") }
}

/// As if the record of `key` had been delivered: enough for the ledger.
fn delivery(key: &str) -> Delivery {
    let at = crate::task::Partition { topic: Topic::new("tasks"), index: 0 };
    let (key, value) = (Some(Bytes::copy_from_slice(key.as_bytes())), None);
    let position = Position { at: at.clone(), offset: 0 };
    let (stamp, headers, not_before) = (Timestamp(0), Headers::default(), None);
    let record = Record { position, stamp, key, value, headers, not_before };
    let nonce = crate::dedupe::Nonce(1);
    Delivery { lease: Lease { at, epoch: 1 }, record: Arc::new(record), nonce }
}

/// The segment that is written now.
fn newest(disk: &Simulated) -> std::path::PathBuf {
    let names = disk.names().into_iter().map(|(path, _)| path);
    names.filter(|p| p.extension().is_some_and(|e| e == "log")).max().unwrap()
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
    // A read from where records are gone begins with the next that is there: one too young to go.
    engine.log.append(vec![output("tasks", "parked", "later")]).await.unwrap();
    let later = next_record(&mut group).await;
    assert!(matches!(engine.commits.commit(done(&later, Vec::new())).await, Commit::Visible(_)));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_what_was_decided_stays_so_although_its_segment_outlives_the_one_of_its_tombstone() {
    let disk = Simulated::new();
    let settings = || EmbeddedSettings { window: Duration::from_millis(200), ..quick(1 << 14) };
    let engine = open(settings(), specs(), disk.clone()).unwrap();
    let open_item = engine.log.append(vec![output("review", "open", "item")]).await.unwrap().remove(0);
    let mut others = (0..).map(|n| format!("item{n}"));
    // One that lies in the same partition and so in the same segment, for which `open` is kept.
    let (decided, key) = loop {
        let key = others.next().unwrap();
        let at = engine.log.append(vec![output("review", &key, "item")]).await.unwrap().remove(0);
        if at.at == open_item.at {
            break (at, key);
        }
    };
    let fill = async |n: u32| {
        for n in 0..n {
            engine.log.append((0..4).map(|i| big(&format!("{n}i{i}"))).collect()).await.unwrap();
        }
    };
    fill(10).await;
    let closed = engine.log.append(vec![tombstone(&key)]).await.unwrap().remove(0);
    assert_eq!(closed.at, decided.at);
    assert_eq!(engine.log.read(decided.clone(), 1).await.unwrap()[0].position, decided, "for who is late");
    until("the tombstone's segment goes", async || {
        fill(5).await;
        engine.log.read(closed.clone(), 1).await.unwrap().is_empty()
    })
    .await;
    engine.operation.close().await;
    drop(engine);
    let engine = open(settings(), specs(), disk).unwrap();
    let from = Position { offset: 0, ..open_item.clone() };
    let found = engine.log.read(from, 100).await.unwrap();
    assert_eq!(found.iter().map(|r| &r.position).collect::<Vec<_>>(), [&open_item]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_that_keeps_failing_stops_intake_says_so_and_is_tried_in_peace_until_it_works() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![big("first")]).await.unwrap();
    let d = next_record(&mut group).await;
    disk.faults.syncs_fail.store(1 << 40, Ordering::SeqCst);
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn(engine.commits.commit(done(&d, vec![output("results", "first", "r")])));
    until("it says so", async || matches!(*engine.operation.health().borrow(), Health::Paused { .. })).await;
    let refusal = engine.log.append(vec![big("more")]).await.unwrap_err().to_string();
    for part in [DIR, "does not take writes", "input/output error"] {
        assert!(refusal.contains(part), "`{part}` is missing in: {refusal}");
    }
    let before = disk.faults.syncs.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let tried = disk.faults.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=10).contains(&tried), "{tried} flushes within half a second");
    assert!(waiting.try_join_next().is_none(), "nothing could be written");
    disk.faults.syncs_fail.store(0, Ordering::SeqCst);
    assert!(matches!(waiting.join_next().await, Some(Ok(Commit::Visible(_)))));
    until("intake goes on", async || engine.log.append(vec![big("after")]).await.is_ok()).await;
    assert_eq!(*engine.operation.health().borrow(), Health::Well);
    // It can be ended, too.
    disk.faults.syncs_fail.store(1 << 40, Ordering::SeqCst);
    let _ = engine.log.append(vec![big("never")]).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), engine.operation.close()).await;
    disk.faults.syncs_fail.store(0, Ordering::SeqCst);
    assert!(ended.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_whose_flush_failed_is_not_written_again_although_it_could_not_be_left_at_once() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), specs(), disk.clone()).unwrap();
    let first = engine.log.append(vec![big("first")]).await.unwrap();
    let last = newest(&disk);
    disk.faults.create_fails.store(true, Ordering::SeqCst);
    disk.faults.syncs_fail.store(1, Ordering::SeqCst);
    let refusal = engine.log.append(vec![big("more")]).await.unwrap_err().to_string();
    assert!(refusal.contains("no segment can be made"), "{refusal}");
    disk.faults.create_fails.store(false, Ordering::SeqCst);
    let mut second = Vec::new();
    until("intake goes on", async || match engine.log.append(vec![big("after")]).await {
        Ok(at) => {
            second = at;
            true
        }
        Err(_) => false,
    })
    .await;
    assert_ne!(newest(&disk), last);
    let engine = open(quick(1 << 20), specs(), disk.cut(1)).unwrap();
    for (at, key) in [(&first[0], "first"), (&second[0], "after")] {
        let found = engine.log.read(at.clone(), 1).await.unwrap();
        assert_eq!((&found[0].position, found[0].key.as_deref()), (at, Some(key.as_bytes())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_whose_flush_failed_in_a_sweep_is_left_as_well() {
    let disk = Simulated::new();
    let (window, retention_every) = (Duration::from_millis(500), Duration::from_secs(3600));
    let settings = EmbeddedSettings { window, retention_every, ..quick(1 << 14) };
    let engine = open(settings, specs(), disk.clone()).unwrap();
    let d = delivery("bad");
    engine.ledger.refuse(&d, &token(&d)).await.unwrap();
    // Until the mark is in the state on disk, where the sweep looks for it, and a segment is begun.
    for n in 0..11 {
        engine.log.append(vec![big(&n.to_string())]).await.unwrap();
    }
    let last = newest(&disk);
    disk.faults.syncs_fail.store(1, Ordering::SeqCst);
    until("the sweep meets the fault", async || disk.faults.syncs_fail.load(Ordering::SeqCst) == 0).await;
    until("the log goes on elsewhere", async || newest(&disk) != last).await;
    assert!(engine.log.append(vec![big("after")]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_out_a_full_disk_goes_into_frames_of_bounded_size() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), roomy(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append((0..40).map(|n| output("tasks", &n.to_string(), "x")).collect()).await.unwrap();
    let mut deliveries = Vec::new();
    for _ in 0..40 {
        deliveries.push(next_record(&mut group).await);
    }
    disk.faults.capacity.store(1, Ordering::SeqCst);
    let mut waiting = tokio::task::JoinSet::new();
    let answer = "x".repeat(900_000);
    for d in &deliveries {
        waiting.spawn(engine.commits.commit(done(d, vec![output("results", "k", &answer)])));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    disk.faults.capacity.store(0, Ordering::SeqCst);
    let answers = waiting.join_all().await;
    assert!(answers.iter().all(|a| matches!(a, Commit::Visible(_))), "{answers:?}");
    let largest = disk.faults.largest.load(Ordering::SeqCst);
    assert!((900_000..9 << 20).contains(&largest), "a frame of {largest} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_any_frame_is_refused_alone_and_never_acknowledged() {
    let disk = Simulated::new();
    let engine = open(quick(1 << 20), roomy(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![output("tasks", "a", "x"), output("tasks", "b", "x")]).await.unwrap();
    let (a, b) = (next_record(&mut group).await, next_record(&mut group).await);
    let huge = "x".repeat(super::super::frame::BODY_MAX + 1);
    let commit =
        engine.commits.commit(done(&a, vec![output("results", "a", "r"), output("results", "a", &huge)]));
    let others = engine.commits.commit(done(&b, vec![output("results", "b", "r")]));
    let append = engine.log.append(vec![output("tasks", "c", "x"), output("tasks", "d", &huge)]);
    let slot = crate::dedupe::Slot {
        name: crate::dedupe::SlotName("ask".into()),
        kind: crate::dedupe::SlotKind::Call,
    };
    let crate::dedupe::Admission::Fresh(claim) = engine.ledger.admit(&a, &token(&a), None).await.unwrap()
    else {
        panic!()
    };
    let store = engine.journal.store(&claim, &slot, Bytes::from(huge.clone()));
    let (commit, others, append, store) = tokio::join!(commit, others, append, store);
    assert_eq!(commit, Commit::TooLarge { output: 1 });
    assert!(matches!(others, Commit::Visible(_)), "{others:?}");
    assert!(matches!(append, Err(AppendError::TooLarge { index: 1, .. })), "{append:?}");
    assert!(matches!(store, Err(Unavailable(_))));
    // Nothing of it is there, and the log is whole.
    assert!(!engine.commits.is_complete(&a.record.position));
    assert!(engine.log.append(vec![output("tasks", "e", "x")]).await.is_ok());
    engine.operation.close().await;
    drop((group, engine));
    let engine = open(quick(1 << 20), roomy(), disk).unwrap();
    let mut keys = Vec::new();
    for end in engine.log.ends(&Topic::new("tasks")).await.unwrap() {
        let found = engine.log.read(Position { at: end.at, offset: 0 }, 9).await.unwrap();
        keys.extend(found.into_iter().map(|r| r.key.unwrap()));
    }
    keys.sort();
    assert_eq!(keys, ["a", "b", "e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_budget_stops_intake_only_until_retention_gives_space_back() {
    let disk = Simulated::new();
    let settings = EmbeddedSettings {
        window: Duration::from_millis(300),
        retention_every: Duration::from_millis(20),
        budget_bytes: Some(64 << 20),
        // Segments and reserve as they are by default.
        ..EmbeddedSettings::new(DIR)
    };
    let engine = open(settings, roomy(), disk).unwrap();
    let batch = || vec![output("tasks", "k", &"x".repeat(1 << 20))];
    let (mut taken, mut stopped) = (0u64, 0);
    // Three times what the budget holds goes through, if not at once.
    let end = Instant::now() + Duration::from_secs(20);
    while taken < 192 << 20 {
        assert!(Instant::now() < end, "intake stopped for ever after {taken} bytes");
        match engine.log.append(batch()).await {
            Ok(_) => taken += 1 << 20,
            Err(e) => {
                assert!(e.to_string().contains("disk_max"), "{e}");
                stopped += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    assert!(stopped > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_marks_are_swept_as_fast_as_full_speed_makes_them() {
    const MARKS: usize = 10_000;
    let disk = Simulated::new();
    let (window, retention_every) = (Duration::from_secs(3), Duration::from_secs(3600));
    // Nothing is folded while they are made, which makes that quick.
    let settings = EmbeddedSettings { window, retention_every, ..quick(4 << 20) };
    let (engine, handle) = open_with_handle(settings, specs(), disk).unwrap();
    let (mut calls, mut keys) = (tokio::task::JoinSet::new(), Vec::new());
    let making = Instant::now();
    for n in 0..MARKS {
        let d = delivery(&n.to_string());
        let t = token(&d);
        let origin = &t.origin;
        keys.push(super::super::changes::refused_key(&t.key.to_bytes(), &origin.position, origin.stamp));
        let ledger = engine.ledger.clone();
        calls.spawn(async move { ledger.refuse(&d, &t).await.is_ok() });
    }
    assert!(calls.join_all().await.into_iter().all(|ok| ok));
    let made_in = making.elapsed();
    // Until all of them are in the state on disk, where the sweep looks for them.
    for n in 0..22 {
        engine.log.append((0..100).map(|i| big(&format!("{n}i{i}"))).collect()).await.unwrap();
    }
    let left = || {
        let state = handle.shared.state();
        keys.iter().filter(|k| state.refused(k).unwrap().is_some()).count()
    };
    assert_eq!(left(), MARKS, "the window is too short for this machine");
    until("the sweep begins", async || left() < MARKS).await;
    let began = Instant::now();
    until("the sweep ends", async || left() == 0).await;
    // They fall due one after the other, as they were made.
    let swept_in = began.elapsed();
    assert!(swept_in < made_in + Duration::from_millis(1500), "made in {made_in:?}, swept in {swept_in:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_cannot_be_folded_stops_intake_before_it_fills_the_memory_and_heals_by_itself() {
    let disk = Simulated::new();
    let (engine, handle) = open_with_handle(quick(1 << 14), specs(), disk.clone()).unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    engine.log.append(vec![big("first")]).await.unwrap();
    let d = next_record(&mut group).await;
    disk.faults.state_fails.store(true, Ordering::SeqCst);
    let mut refusal = String::new();
    // Some 40 segments' worth, and time for a fold or two to fail.
    for n in 0..1200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if let Err(e) = engine.log.append(vec![big(&n.to_string())]).await {
            refusal = e.to_string();
            break;
        }
    }
    for part in [DIR, "folded", "the state file is broken"] {
        assert!(refusal.contains(part), "`{part}` is missing in: {refusal}");
    }
    let ahead = handle.shared.state().layer.bytes;
    assert!(ahead < 60 << 14, "{ahead} bytes wait in memory");
    // What is in flight ends all the same.
    let commit = engine.commits.commit(done(&d, vec![output("results", "first", "r")])).await;
    assert!(matches!(commit, Commit::Visible(_)), "{commit:?}");
    assert!(matches!(*engine.operation.health().borrow(), Health::Paused { .. }));
    disk.faults.state_fails.store(false, Ordering::SeqCst);
    until("intake goes on", async || engine.log.append(vec![big("after")]).await.is_ok()).await;
    assert_eq!(*engine.operation.health().borrow(), Health::Well);
}
