//! What keeps a directory from being opened: each says where, what, and what to do.

use super::super::*;
use super::specs;
use std::path::Path;
use std::sync::Arc;

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
