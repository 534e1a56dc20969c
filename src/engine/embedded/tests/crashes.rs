//! The process dies at each named place between two durable steps; what it had been told is there.
//!
//! The child is this very test binary: it works until it dies, and says on its output what was
//! acknowledged.

use super::super::*;
use super::power::{atomic, work};
use super::{next_record, output, quick, quiet, specs};
use crate::engine::crash::POINTS;
use crate::task::{Position, Topic};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What `abort` ends a process with.
const ABORTED: i32 = 6;
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
    // By its own hand, and at that very place: a panic, or a refusal to open, reaches nothing.
    let words = String::from_utf8_lossy(&child.stderr).into_owned();
    assert_eq!(
        child.status.signal(),
        Some(ABORTED),
        "`{point}` was never reached: {}\n{words}",
        child.status
    );
    assert!(words.lines().any(|line| line == format!("crash point {point}")), "not at `{point}`:\n{words}");
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

/// Every segment's file is one that the log knows: what it had let go of before the crash is removed.
async fn no_strangers(engine: &Engine, data: &Path) {
    let mut files = 0;
    // Retention goes on meanwhile; it ends where nothing new is written.
    for _ in 0..100 {
        let names = std::fs::read_dir(data).unwrap().map(|f| f.unwrap().file_name());
        files = names.filter(|name| name.to_string_lossy().ends_with(".log")).count() as u64;
        if files == engine.operation.storage().await.segments {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let known = engine.operation.storage().await.segments;
    panic!("{files} files of segments, and the log knows {known}");
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
            if old_may_go {
                no_strangers(&engine, &data).await;
            } else {
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
    // The start removes them beside its other work.
    let removed = async {
        loop {
            let after = logs(&data);
            if after.len() as u64 == engine.operation.storage().await.segments {
                return after;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let after = tokio::time::timeout(Duration::from_secs(10), removed).await.unwrap();
    assert!(after.len() < before.len() && after.is_subset(&before), "{before:?} {after:?}");
}
