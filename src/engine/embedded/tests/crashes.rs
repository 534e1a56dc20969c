//! The process dies at each named place between two durable steps; what it had been told is there.
//!
//! The child is this very test binary: it works until it dies, and says on its output what was
//! acknowledged.

use super::super::simulated::Simulated;
use super::super::*;
use super::power::{atomic, work};
use super::{done, next_record, output, quick, quiet, specs, token};
use crate::dedupe::{Admission, Bar, Claim, Phase, Silence, Slot, SlotKind, SlotName, Started};
use crate::engine::crash::POINTS;
use crate::engine::{Commit, Group};
use crate::outcome::OutcomeKind;
use crate::task::{Position, Topic};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CHILD: &str = "engine::embedded::tests::crashes::a_child_works_until_it_dies";

/// Retention runs beside everything where that is what is tried; then old records may be gone.
fn settings(dir: &Path, point: &str) -> EmbeddedSettings {
    let window = if point.starts_with("retention") { 40 } else { 3_600_000 };
    EmbeddedSettings { directory: dir.to_owned(), window: Duration::from_millis(window), ..quick(1 << 14) }
}

/// Does nothing unless one of the tests below is its parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_works_until_it_dies() {
    let Ok(dir) = std::env::var("TIDEGATE_CHILD_DIR") else { return };
    let point = std::env::var("TIDEGATE_CRASH_AT").unwrap();
    let promised = Arc::new(Mutex::new(super::power::Promised::loud()));
    // Keys of their own for each life in the same directory.
    let life = point.rsplit_once(':').and_then(|(_, nth)| nth.parse().ok()).unwrap_or(0);
    let settings = settings(Path::new(&dir), &point);
    let _ =
        tokio::time::timeout(Duration::from_secs(20), work(Arc::new(Disk), settings, promised, life)).await;
}

/// What the child was told: appended, and completed with its result.
fn live(dir: &Path, point: &str, nth: u32) -> (Vec<Position>, Vec<(Position, Position)>) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
        .env("TIDEGATE_CHILD_DIR", dir)
        .env("TIDEGATE_CRASH_AT", format!("{point}:{nth}"))
        .output()
        .unwrap();
    // The hook's own end and last words: a child that fails for another reason proves nothing.
    let words = String::from_utf8_lossy(&child.stderr);
    let reached = words.lines().any(|line| line == format!("crash point {point}"));
    // 6: SIGABRT.
    assert!(
        reached && child.status.signal() == Some(6),
        "`{point}` was never reached: {}, {words}",
        child.status
    );
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let place = |text: &str| text.parse::<Position>().unwrap();
    let (mut appended, mut complete) = (Vec::new(), Vec::new());
    for line in said.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            ["appended", at] => appended.push(place(at)),
            ["complete", at, result] => complete.push((place(at), place(result))),
            _ => {}
        }
    }
    (appended, complete)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_crash_at_any_named_place_keeps_what_was_acknowledged_and_pairs_what_was_committed() {
    let mine =
        |p: &&&str| ["frame.", "segment.", "checkpoint.", "retention."].iter().any(|m| p.starts_with(m));
    for point in POINTS.iter().filter(mine) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        for nth in [1, 3] {
            let (appended, complete) = live(&data, point, nth);
            let engine = open(settings(&data, point), specs(), Arc::new(Disk)).unwrap();
            for (at, _) in &complete {
                assert!(engine.commits.is_complete(at), "{point}: {at}");
            }
            let old_may_go = point.starts_with("retention");
            let results = complete.iter().filter(|_| !old_may_go).map(|(_, result)| result);
            let tasks = appended.iter().filter(|at| !old_may_go || !engine.commits.is_complete(at));
            for at in results.chain(tasks) {
                assert_eq!(engine.log.read(at.clone(), 1).await.unwrap()[0].position, *at, "{point}");
            }
            if !old_may_go {
                atomic(&engine).await;
            }
            engine.operation.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_after_a_crash_exactly_the_incomplete_records_are_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (appended, _) = live(&data, "frame.after-sync", 40);
    let engine = open(settings(&data, "frame"), specs(), Arc::new(Disk)).unwrap();
    let mut expected = BTreeSet::new();
    for end in engine.log.ends(&Topic::new("tasks")).await.unwrap() {
        let all = (0..end.next).map(|offset| Position { at: end.at.clone(), offset });
        expected.extend(all.filter(|at| !engine.commits.is_complete(at)));
    }
    assert!(appended.iter().all(|at| expected.contains(at) || engine.commits.is_complete(at)));
    engine.log.append(vec![output("tasks", "one more", "x")]).await.unwrap();
    let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let mut delivered = BTreeSet::new();
    for _ in 0..=expected.len() {
        assert!(delivered.insert(next_record(&mut group).await.record.position.clone()), "twice");
    }
    assert!(quiet(&mut group).await);
    assert!(expected.is_subset(&delivered));
}

fn logs(dir: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".log")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_the_log_let_go_of_before_a_crash_are_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    live(&data, "retention.before-unlink", 1);
    let before = logs(&data);
    // A window so long that this life removes nothing by itself.
    let engine = open(settings(&data, "frame"), specs(), Arc::new(Disk)).unwrap();
    let after = logs(&data);
    assert_eq!(after.len() as u64, engine.operation.storage().await.segments);
    assert!(after.len() < before.len() && after.is_subset(&before), "{before:?} {after:?}");
}

/// A life of the engine on this disk, with its worker.
fn life(disk: &Arc<Simulated>) -> (Engine, Box<dyn Group>) {
    let engine = open(quick(1 << 14), specs(), disk.clone()).unwrap();
    let group = engine.groups.join("worker", &[Topic::new("tasks")]);
    (engine, group)
}

fn fresh(admission: Admission) -> Claim {
    match admission {
        Admission::Fresh(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn slot(name: &str, kind: SlotKind) -> Slot {
    Slot { name: SlotName(name.into()), kind }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_crash_after_an_admission_resumes_it_under_a_new_fence_and_the_old_one_is_stale() {
    let disk = Simulated::new();
    let (engine, mut group) = life(&disk);
    let at = engine.log.append(vec![output("tasks", "one", "x")]).await.unwrap();
    let d = next_record(&mut group).await;
    let old = fresh(engine.ledger.admit(&d, &token(&d), None).await.unwrap());

    let (engine, mut group) = life(&disk.cut(1));
    let d = next_record(&mut group).await;
    assert_eq!(d.record.position, at[0]);
    let Admission::Resumed(new, slots) = engine.ledger.admit(&d, &token(&d), None).await.unwrap() else {
        panic!()
    };
    assert!(slots.is_empty() && new.fence != old.fence);
    let call = slot("call", SlotKind::Call);
    let second = Duration::from_secs(1);
    assert_eq!(engine.journal.start(&old, &call, second).await.unwrap(), Started::Stale);
    let go = Started::Go { repeat: false, times: 0, deaths: 0 };
    assert_eq!(engine.journal.start(&new, &call, second).await.unwrap(), go);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_p4_what_was_released_is_free_and_what_was_barred_stays_barred_after_a_crash() {
    let disk = Simulated::new();
    let (engine, mut group) = life(&disk);
    engine.log.append(vec![output("tasks", "one", "x")]).await.unwrap();
    let d = next_record(&mut group).await;
    let claim = fresh(engine.ledger.admit(&d, &token(&d), None).await.unwrap());
    let (call, effect) = (slot("call", SlotKind::Call), slot("effect", SlotKind::Effect));
    let second = Duration::from_secs(1);
    let go = Started::Go { repeat: false, times: 0, deaths: 0 };
    assert_eq!(engine.journal.start(&claim, &call, second).await.unwrap(), go);
    engine.journal.release(d.nonce, &claim.token.key).await.unwrap();
    assert_eq!(engine.journal.bar(&claim, &effect).await.unwrap(), Bar::Barred);

    let (engine, mut group) = life(&disk.cut(2));
    let d = next_record(&mut group).await;
    let Admission::Resumed(claim, _) = engine.ledger.admit(&d, &token(&d), None).await.unwrap() else {
        panic!()
    };
    // Neither a repeat nor a death: it was given back before it was sent.
    assert_eq!(engine.journal.start(&claim, &call, second).await.unwrap(), go);
    assert_eq!(engine.journal.start(&claim, &effect, second).await.unwrap(), Started::Barred);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_repeated_append_is_a_copy_that_ends_silently_also_after_a_crash_behind_the_mark() {
    let mut disk = Simulated::new();
    let mut sent = Vec::new();
    // Its sender never had an answer, and sends again to the next life.
    for seed in 0..2 {
        let (engine, _group) = life(&disk);
        sent.extend(engine.log.append(vec![output("tasks", "one", "x")]).await.unwrap());
        disk = disk.cut(seed);
    }
    let (engine, mut group) = life(&disk);
    let (first, copy) = (next_record(&mut group).await, next_record(&mut group).await);
    assert_eq!([&first.record.position, &copy.record.position], [&sent[0], &sent[1]]);
    fresh(engine.ledger.admit(&first, &token(&first), None).await.unwrap());
    let duplicate = |admission| matches!(admission, Admission::Silent(Silence::Duplicate));
    assert!(duplicate(engine.ledger.admit(&copy, &token(&copy), None).await.unwrap()));
    let commit = engine.commits.commit(done(&first, vec![output("results", "one", "r")])).await;
    let Commit::Visible(at) = commit else { panic!("{commit:?}") };

    // The mark lay in the frame of its commit.
    let (engine, mut group) = life(&disk.cut(3));
    let closed = Phase::Closed { outcome: OutcomeKind::Result, at: at[0].clone() };
    assert_eq!(engine.ledger.look(&token(&first).key).await.unwrap().unwrap().phase, closed);
    sent.extend(engine.log.append(vec![output("tasks", "one", "x")]).await.unwrap());
    for at in &sent[1..] {
        let d = next_record(&mut group).await;
        assert_eq!(d.record.position, *at);
        assert!(duplicate(engine.ledger.admit(&d, &token(&d), None).await.unwrap()));
        assert!(matches!(engine.commits.commit(done(&d, Vec::new())).await, Commit::Visible(_)));
    }
    assert!(quiet(&mut group).await);
}
