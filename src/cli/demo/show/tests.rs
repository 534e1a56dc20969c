//! What people are told, from what the processor says.

use super::*;
use serde_json::json;

const S: fn(u64) -> Duration = Duration::from_secs;

fn show() -> Show {
    Show::new("http://127.0.0.1:1", 10)
}

/// A status with the main model as given, and a spare one that is well.
fn status(life: &str, state: &str, since_ms: u64, calls: u64, failed: u64) -> Told {
    let model = |name: &str, state: &str, since_ms: u64, calls: u64, failed: u64| json!({ "name": name, "state": state, "since_ms": since_ms, "calls": calls, "failed": failed });
    Told::Seen(json!({
        "started_at": life,
        "held": [],
        "models": [model("main", state, since_ms, calls, failed), model("spare", "closed", 0, 1, 0)],
    }))
}

fn counts(show: &Show) -> (u64, u64) {
    show.models[0].counts()
}

#[test]
fn calls_are_counted_over_all_lives_of_the_worker_and_never_go_back() {
    let mut show = show();
    show.take(status("life 1", "closed", 0, 20, 3), S(1));
    show.killed(1_000, S(2));
    assert_eq!(counts(&show), (20, 3), "a dead worker's calls were made all the same");
    // Read before the kill, told after it.
    show.take(status("life 1", "closed", 0, 21, 3), S(2));
    assert_eq!((counts(&show), show.worker_runs()), ((21, 3), false));
    // More calls than the first life had, before anybody looked.
    show.take(status("life 2", "closed", 0, 30, 1), S(3));
    assert_eq!((counts(&show), show.worker_runs()), ((51, 4), true));
    show.killed(4_000, S(4));
    show.take(status("life 3", "closed", 0, 0, 0), S(5));
    assert_eq!(counts(&show), (51, 4));
    show.take(status("life 3", "closed", 0, 2, 1), S(6));
    let row = &show.model_rows()[0];
    assert_eq!([&row[0], &row[2], &row[3]], ["main", "53", "5"], "the table shows all lives");
}

#[test]
fn a_worker_that_was_killed_is_told_once_when_it_answers_again() {
    let mut show = show();
    show.take(status("life 1", "closed", 0, 0, 0), S(1));
    show.killed(1_000, S(2));
    assert_eq!(show.sentence(), "The worker was killed at 00:02 and starts again: nothing is lost.");
    let lines = show.take(status("life 2", "closed", 0, 0, 0), S(3));
    assert_eq!(lines.iter().map(|l| (l.what, l.code.as_str())).collect::<Vec<_>>(), [("worker", "runs")]);
    assert_eq!(show.take(status("life 2", "closed", 0, 0, 0), S(4)), []);
    assert_eq!(show.lines.iter().filter(|l| l.code == "runs").count(), 1);
}

#[test]
fn a_model_is_down_since_it_went_down_also_while_it_is_being_tried_again() {
    let mut show = show();
    show.take(status("life", "closed", 0, 10, 0), S(1));
    let down = "main is down since 00:05: new tasks go to spare, nothing waits.";
    for (state, since_ms, now) in
        [("open", 1_000, 6), ("half-open", 100, 16), ("open", 50, 17), ("half-open", 900, 27)]
    {
        show.take(status("life", state, since_ms, 20, 10), S(now));
        assert_eq!(show.sentence(), down, "{state} at {now} s");
    }
    show.take(status("life", "closed", 0, 21, 10), S(28));
    assert_eq!(show.sentence(), "Tasks come in (0 of 10 records) and both models answer.");
    let told: Vec<&str> = show.lines.iter().map(|l| l.code.as_str()).collect();
    assert_eq!(told, ["down", "tried-again", "down", "tried-again", "well"]);
}

#[test]
fn after_a_kill_a_model_is_neither_well_nor_down_until_it_was_asked() {
    let mut show = show();
    let state = |show: &Show| show.model_rows()[0][1].clone();
    show.take(status("life 1", "closed", 0, 0, 0), S(1));
    assert_eq!(state(&show), "not asked yet");
    show.take(status("life 1", "closed", 0, 10, 0), S(2));
    assert_eq!(state(&show), "well");
    show.take(status("life 1", "open", 0, 20, 10), S(6));
    show.killed(1_000, S(7));
    show.take(status("life 2", "closed", 0, 0, 0), S(8));
    let row = show.model_rows()[0].clone();
    assert_eq!((row[1].as_str(), row[2].as_str()), ("not asked again yet", "20"));
    assert_eq!(show.sentence(), "Tasks come in (0 of 10 records).");
    show.take(status("life 2", "open", 0, 5, 5), S(9));
    assert_eq!(state(&show), "down since 00:06");
    show.take(status("life 2", "closed", 0, 7, 5), S(16));
    assert_eq!((state(&show).as_str(), show.model_rows()[0][2].as_str()), ("well", "27"));
    let told: Vec<&str> = show.lines.iter().filter(|l| l.what == "model").map(|l| l.code.as_str()).collect();
    assert_eq!(told, ["down", "well"], "nobody is told that it is well before it answered");
}

#[test]
fn a_task_without_a_place_is_under_way_and_missing_only_once_nothing_more_may_come() {
    use super::super::books::Answered;
    let mut show = show();
    let id = ("ticket".to_owned(), "lost".to_owned());
    let answered = Answered::Taken { position: "tasks.ticket/0/0".to_owned() };
    show.take(Told::Answered { id, meant: Meant::Task, answered }, S(1));
    show.take(Told::AllSent, S(2));
    assert!(show.sum_lines()[1].contains("+ running 1 = tasks 1"), "{:?}", show.sum_lines());
    assert!(show.sum_lines()[2].starts_with("missing 0, twice 0"), "{:?}", show.sum_lines());
    assert_eq!((show.late(S(33)), show.complaints()), (false, vec![]));
    assert!(show.late(S(34)));
    show.over = true;
    assert!(show.sum_lines()[2].starts_with("missing 1, twice 0"), "{:?}", show.sum_lines());
    assert_eq!(show.complaints(), ["missing: ticket/lost"]);
    assert_eq!(show.sentence(), "Everything has come to rest, and the sums do NOT add up.");
}
