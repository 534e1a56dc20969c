//! However `tidegate demo` ends, its worker ends too, and its directory goes.

use crate::rig::is_for_embedded_only;
use crate::rig::place::{Place, scratch};
use crate::rig::process::{Process, tidegate};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A processor is up within this, also on a busy machine.
const UP: Duration = Duration::from_secs(30);
/// Nobody waits for a demo that was told to end.
const ENDED: Duration = Duration::from_secs(5);

/// `tidegate demo --once`, with everything it writes below `temporary`.
pub(crate) fn demo(temporary: &Path) -> Command {
    let mut command = tidegate();
    command.args(["demo", "--once"]).env("TMPDIR", temporary);
    command
}

/// Processes whose command line names something below `place`: workers, as they are told their directory.
/// What has ended and waits to be collected has no command line.
fn workers(place: &Path) -> Vec<u32> {
    let place = place.to_str().unwrap();
    let ids =
        std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let named = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(place)
    };
    ids.filter(named).collect()
}

fn until(what: &str, limit: Duration, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn left(place: &Path) -> Vec<String> {
    std::fs::read_dir(place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[track_caller]
pub(crate) fn nothing_is_left(temporary: &Path) {
    assert_eq!((workers(temporary), left(temporary)), (vec![], vec![]), "processes and files left behind");
}

/// A demo whose worker runs, or that has only just begun to set up its directory.
fn started(temporary: &Path, said: &Path, set_up: bool) -> Process {
    let demo = Process::start(demo(temporary), said);
    if set_up {
        until("the first event", UP, || demo.words().contains("accepted"));
        assert_eq!(workers(temporary).len(), 1, "one worker: {}", demo.words());
    } else {
        until("the directory", UP, || !left(temporary).is_empty());
    }
    demo
}

#[test]
fn a_demo_that_is_told_to_end_leaves_nothing_and_says_which_signal_it_was() {
    if is_for_embedded_only("the demo needs no server") {
        return;
    }
    for (signal, code, set_up) in
        [("INT", 130, true), ("TERM", 143, true), ("HUP", 129, true), ("TERM", 143, false)]
    {
        let (temporary, beside) = (scratch(), scratch());
        let mut demo = started(temporary.path(), &beside.path().join("said"), set_up);
        demo.signal(signal);
        let status = demo.wait(ENDED).unwrap_or_else(|| panic!("still there after SIG{signal}"));
        assert_eq!(status.code(), Some(code), "SIG{signal}, set up: {set_up}: {}", demo.words());
        assert!(demo.words().contains("stopped by you"), "{}", demo.words());
        nothing_is_left(temporary.path());
    }
}

#[test]
fn a_demo_whose_output_is_closed_ends_well_and_leaves_nothing() {
    if is_for_embedded_only("the demo needs no server") {
        return;
    }
    let temporary = scratch();
    let mut demo = demo(temporary.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        assert!(lines.next().unwrap().unwrap().contains(" accepted "));
    }
    drop(lines);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = demo.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > ENDED {
            demo.kill().unwrap();
            panic!("still there {ENDED:?} after its output was closed");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(status.code(), Some(0), "who has seen enough is no failure");
    nothing_is_left(temporary.path());
}

#[test]
fn a_demo_that_is_killed_takes_its_worker_with_it() {
    if is_for_embedded_only("the demo needs no server") {
        return;
    }
    let (temporary, beside) = (scratch(), scratch());
    let mut demo = started(temporary.path(), &beside.path().join("said"), true);
    demo.kill();
    until("the worker's end", ENDED, || workers(temporary.path()).is_empty());
}

#[test]
fn a_worker_whose_parent_has_gone_before_it_began_does_not_begin() {
    if is_for_embedded_only("the demo needs no server") {
        return;
    }
    let place = Place::new("[tasks.copy]\ninput = { text = \"string\" }\n");
    let mut command = place.command();
    // Some other process than the one that starts it: its own parent, as it were, is this test.
    command.arg("--parent").arg((std::process::id() + 1).to_string());
    let mut process = Process::start(command, &place.log());
    let status = process.wait(UP).unwrap_or_else(|| panic!("it runs:\n{}", process.words()));
    assert_eq!(status.code(), Some(1), "{}", process.words());
    assert!(!place.path("data").exists(), "nothing was opened");
}
