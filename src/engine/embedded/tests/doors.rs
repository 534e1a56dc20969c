//! What keeps a directory from being opened: each says where, what, and what to do.

use super::super::*;
use super::{output, specs};
use crate::engine::Health;
use crate::task::Topic;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn refusal(dir: &Path) -> String {
    open(EmbeddedSettings::new(dir), specs(), Arc::new(Disk)).err().expect("it must not open").to_string()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

#[test]
fn a_second_process_is_told_who_uses_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _engine = open(EmbeddedSettings::new(&data), specs(), Arc::new(Disk)).unwrap();
    let pid = format!("pid {}", std::process::id());
    says(&refusal(&data), &["another tidegate process", &pid, &data.display().to_string(), "stop it"]);
}

#[test]
fn a_missing_parent_a_file_in_its_place_and_a_newer_format_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("no/data");
    says(&refusal(&nowhere), &[&nowhere.display().to_string(), "is not there"]);
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    says(&refusal(&file), &[&file.display().to_string(), "not a directory"]);
    let newer = dir.path().join("newer");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("format"), "tidegate 2\n").unwrap();
    says(&refusal(&newer), &[&newer.display().to_string(), "version 2", "up to 1", "newer tidegate"]);
    let names: Vec<_> = std::fs::read_dir(&newer).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().ends_with(".log")), "nothing is made there: {names:?}");
}

/// The one segment of a directory in which something was written and that was closed in order.
async fn written(dir: &Path) -> std::path::PathBuf {
    let engine = open(EmbeddedSettings::new(dir), specs(), Arc::new(Disk)).unwrap();
    for n in 0..20 {
        engine
            .log
            .append(vec![output("tasks", &format!("k{n}"), &format!("payload number {n}"))])
            .await
            .unwrap();
    }
    engine.operation.close().await;
    let mut logs = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    logs.find(|p| p.extension().is_some_and(|e| e == "log")).unwrap()
}

#[tokio::test]
async fn p2_a_log_that_lost_acknowledged_frames_is_refused_with_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let segment = written(&data).await;
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    let length = file.metadata().unwrap().len() - 100;
    file.set_len(length).unwrap();
    let byte = format!("at byte {length}");
    says(&refusal(&data), &[&segment.display().to_string(), &byte, "were acknowledged", "backup"]);
    assert_eq!(file.metadata().unwrap().len(), length, "nothing was changed");
}

#[tokio::test]
async fn p2_a_damaged_frame_stops_the_work_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let segment = written(&data).await;
    let mut bytes = std::fs::read(&segment).unwrap();
    let hit = bytes.windows(17).position(|w| w == b"payload number 12").unwrap();
    bytes[hit] ^= 0x40;
    std::fs::write(&segment, bytes).unwrap();
    let engine = open(EmbeddedSettings::new(&data), specs(), Arc::new(Disk)).unwrap();
    let mut health = engine.operation.health();
    let _group = engine.groups.join("worker", &[Topic::new("tasks")]);
    let paused = health.wait_for(|now| matches!(now, Health::Paused { .. }));
    let paused = tokio::time::timeout(Duration::from_secs(5), paused).await.expect("it pauses").unwrap();
    let Health::Paused { why } = paused.clone() else { unreachable!() };
    says(&why, &[&segment.display().to_string(), "is damaged at byte", "backup"]);
    drop(paused);
    // What can still be written is; but nothing says that all is well.
    engine.log.append(vec![output("tasks", "later", "x")]).await.unwrap();
    assert_eq!(*engine.operation.health().borrow(), Health::Paused { why });
    engine.operation.close().await;
}
