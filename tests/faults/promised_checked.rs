//! The promises' own test: all kept, and one broken at a time.

use crate::books::{Row, Shelf};
use crate::promised::{Broken, Decided, Offered, Promised, Redriven};
use serde_json::{Value, json};

fn row(at: &str, key: &str, value: &Value) -> Row {
    Row {
        at: at.to_owned(),
        key: Some(key.into()),
        value: Some(value.to_string().into_bytes()),
        headers: [("idempotency-key".to_owned(), key.to_owned())].into(),
        stamp_ms: 0,
    }
}

/// One record appended, one task accepted, one item decided, one dead letter sent again.
fn kept() -> (Promised, Shelf) {
    let appended = row("tasks.copy/0/0", "a", &json!({ "n": 1 }));
    let offered = row("tasks.ticket/0/0", "b", &json!({ "n": 2 }));
    let letter = row("dead-letters/3/17", "c", &json!({ "n": 3 }));
    let again = Row { at: "resume/0/4".into(), ..letter.clone() };
    let promised = Promised {
        appended: [(appended.at.clone(), appended.clone())].into(),
        offered: [("b".to_owned(), Offered { kind: "ticket".into(), payload: json!({ "n": 2 }) })].into(),
        accepted: ["b".to_owned()].into(),
        decided: vec![Decided { item: "i".into(), by: "ada-1".into(), status: Some("approved".into()) }],
        redriven: vec![Redriven { letter: "3-17".into(), sent_to: again.at.clone() }],
    };
    let result = json!({ "status": "approved", "reviewed": { "item": "i", "by": "ada-1" } });
    let shelf = Shelf {
        tasks: [("copy".to_owned(), vec![appended]), ("ticket".to_owned(), vec![offered])].into(),
        resume: vec![again],
        results: vec![row("results/0/0", "b", &result)],
        dead_letters: vec![letter],
        review_requests: vec![],
        review_decisions: vec![row("review.decisions/0/0", "i", &json!({ "item": "i", "by": "ada-1" }))],
        review_outcomes: vec![row(
            "review.outcomes/0/0",
            "i",
            &json!({ "item": "i", "decided_by": "ada-1", "verdict": "counts" }),
        )],
    };
    (promised, shelf)
}

fn broken(change: impl FnOnce(&mut Shelf)) -> Vec<Broken> {
    let (promised, mut shelf) = kept();
    change(&mut shelf);
    promised.broken(&shelf)
}

#[test]
fn promises_that_are_kept_give_no_complaint() {
    assert_eq!(broken(|_| {}), []);
}

#[test]
fn an_appended_record_that_is_gone_or_changed_is_found_by_its_position() {
    let record = |why| vec![Broken::Record { at: "tasks.copy/0/0".into(), why }];
    assert_eq!(broken(|s| s.tasks.get_mut("copy").unwrap().clear()), record("it is not in the log"));
    let changed = broken(|s| s.tasks.get_mut("copy").unwrap()[0].value = Some(b"{}".to_vec()));
    assert_eq!(changed, record("its bytes are not what was sent"));
    let bare = broken(|s| s.tasks.get_mut("copy").unwrap()[0].headers.clear());
    assert_eq!(bare, record("its bytes are not what was sent"));
}

#[test]
fn a_task_answered_with_202_that_is_gone_or_says_something_else_is_found_by_its_key() {
    let lost = || Broken::Accepted { key: "b".into() };
    assert_eq!(broken(|s| s.tasks.get_mut("ticket").unwrap().clear()), [lost()]);
    let other = broken(|s| s.tasks.get_mut("ticket").unwrap()[0].value = Some(b"{\"n\":7}".to_vec()));
    assert_eq!(other, [lost(), Broken::Nobodys { at: "tasks.ticket/0/0".into() }]);
}

#[test]
fn a_decision_answered_with_200_is_missed_in_each_place_where_it_must_be() {
    let decision = |why| vec![Broken::Decision { item: "i".into(), by: "ada-1".into(), why }];
    assert_eq!(broken(|s| s.review_decisions.clear()), decision("it is not in the log"));
    assert_eq!(broken(|s| s.review_outcomes.clear()), decision("no outcome says that it counts"));
    assert_eq!(broken(|s| s.results.clear()), decision("its result is not in the log"));
    // Somebody else's decision in its place.
    let other = json!({ "status": "approved", "reviewed": { "item": "i", "by": "ada-2" } });
    let taken = broken(|s| s.results[0].value = Some(other.to_string().into_bytes()));
    assert_eq!(taken, decision("its result is not in the log"));
}

#[test]
fn a_redrive_answered_with_200_that_is_gone_or_changed_is_found_by_its_position() {
    let redrive = |why| Broken::Redrive { letter: "3-17".into(), sent_to: "resume/0/4".into(), why };
    assert_eq!(broken(|s| s.resume.clear()), [redrive("it is not in the log")]);
    let changed = broken(|s| s.resume[0].value = Some(b"{}".to_vec()));
    let why = "what was sent is not what the dead letter holds";
    assert_eq!(changed, [redrive(why), Broken::Nobodys { at: "resume/0/4".into() }]);
}

#[test]
fn a_record_that_nobody_sent_is_found() {
    let stray = row("tasks.copy/1/9", "z", &json!({ "n": 9 }));
    let found = broken(|s| s.tasks.get_mut("copy").unwrap().push(stray));
    assert_eq!(found, [Broken::Nobodys { at: "tasks.copy/1/9".into() }]);
}
