//! The reckoning itself is tested: a shelf on which all is well, and one fault at a time.

use crate::books::{Books, Complaint, Row, Shelf, reckon};
use serde_json::{Value, json};

fn row(at: &str, key: &str, value: &str, headers: &[(&str, &str)]) -> Row {
    Row {
        at: at.to_owned(),
        key: Some(key.into()),
        value: Some(value.into()),
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        stamp_ms: 0,
    }
}

fn task(at: &str, key: &str, n: u64, text: &str) -> Row {
    row(at, key, &payload(n, text).to_string(), &[("idempotency-key", key)])
}

fn payload(n: u64, text: &str) -> Value {
    json!({ "n": n, "text": text })
}

fn result(at: &str, key: &str, generation: u32, origin: &str, answer: &Value) -> Row {
    let value = json!({ "kind": "copy", "key": key, "generation": generation, "origin": format!("{origin}@5"), "answer": answer });
    row(at, key, &value.to_string(), &[])
}

fn letter(at: &str, of: &Row, reason: &str, outcome: Option<(&str, &str)>) -> Row {
    let mut letter = of.clone();
    letter.at = at.to_owned();
    let mut add = |name: &str, value: &str| letter.headers.insert(name.to_owned(), value.to_owned());
    add("tidegate-source", &of.at);
    add("tidegate-reason", reason);
    add("tidegate-is-outcome", if outcome.is_some() { "yes" } else { "no" });
    if let Some((key, generation)) = outcome {
        add("tidegate-kind", "copy");
        add("tidegate-key", key);
        add("tidegate-generation", generation);
        add("tidegate-origin", &format!("{}@5", of.at));
    }
    letter
}

/// Five records: a task, its copy, another payload under its key, poison, and a late task that was
/// redriven once.
fn well() -> Shelf {
    let first = task("tasks.copy/0/0", "a", 1, "one");
    let copy = task("tasks.copy/0/1", "a", 1, "one");
    let other = task("tasks.copy/0/2", "a", 1, "two");
    let poison = row("tasks.copy/0/3", "p", "{", &[("idempotency-key", "p")]);
    let mut late = task("tasks.copy/0/4", "l", 4, "late");
    late.headers.insert("deadline".into(), "2001-01-01T00:00:00Z".into());
    let mut again = late.clone();
    again.at = "resume/0/0".into();
    again.headers.insert("tidegate-generation".into(), "1".into());
    again.headers.insert("tidegate-kind".into(), "copy".into());
    Shelf {
        results: vec![
            result("results/0/0", "a", 0, &first.at, &payload(1, "one")),
            result("results/0/1", "l", 1, &again.at, &payload(4, "late")),
        ],
        dead_letters: vec![
            letter("dead-letters/0/0", &other, "TG-key-conflict", None),
            letter("dead-letters/0/1", &poison, "TG-malformed", None),
            letter("dead-letters/0/2", &late, "TG-deadline-passed", Some(("l", "0"))),
        ],
        resume: vec![again],
        tasks: [("copy".to_owned(), vec![first, copy, other, poison, late])].into(),
        review_requests: vec![],
        review_decisions: vec![],
        review_outcomes: vec![],
    }
}

fn complaints(change: impl FnOnce(&mut Shelf)) -> Vec<Complaint> {
    let mut shelf = well();
    change(&mut shelf);
    reckon(&shelf).complaints
}

#[test]
fn a_shelf_on_which_all_is_well_gives_no_complaint() {
    let Books { complaints, sums } = reckon(&well());
    assert_eq!(complaints, []);
    assert_eq!((sums.records, sums.keys, sums.results, sums.buried, sums.silent), (6, 3, 2, 3, 1));
}

#[test]
fn a_result_that_is_gone_is_missed_by_name() {
    let found = complaints(|s| drop(s.results.remove(0)));
    let missing = Complaint::Missing { name: ("copy".into(), "a".into(), 0), copies: 3 };
    assert!(found.contains(&missing), "{found:?}");
}

#[test]
fn a_second_result_and_an_open_item_beside_a_result_are_seen() {
    let found = complaints(|s| {
        let again = Row { at: "results/1/9".into(), ..s.results[0].clone() };
        s.results.push(again);
    });
    assert!(
        matches!(&found[..], [Complaint::Twice { copies: 3, places, .. }] if places.len() == 2),
        "{found:?}"
    );
    let item = |s: &mut Shelf| {
        let proposed: Value = serde_json::from_slice(s.results[0].value.as_ref().unwrap()).unwrap();
        s.review_requests.push(row(
            "review.requests/0/0",
            "id",
            &json!({ "proposed": proposed }).to_string(),
            &[],
        ));
    };
    assert!(matches!(&complaints(item)[..], [Complaint::Twice { .. }]));
    let decided = complaints(|s| {
        item(s);
        s.review_requests.push(Row { key: Some("id".into()), ..Row::default() });
    });
    assert_eq!(decided, [], "a tombstone closes the item");
}

#[test]
fn a_dead_letter_that_is_missing_doubled_changed_or_undeserved_is_seen() {
    let gone = complaints(|s| drop(s.dead_letters.remove(1)));
    assert_eq!(
        gone,
        [Complaint::Buried { at: "tasks.copy/0/3".into(), name: None, why: "poison", times: 0, twin: false }]
    );
    let doubled = complaints(|s| s.dead_letters.push(s.dead_letters[0].clone()));
    let name = Some(("copy".into(), "a".into(), 0));
    assert_eq!(
        doubled,
        [Complaint::Buried { at: "tasks.copy/0/2".into(), name, why: "conflict", times: 2, twin: false }]
    );
    let changed = complaints(|s| s.dead_letters[1].value = Some("[".into()));
    assert!(matches!(&changed[..], [Complaint::Changed { .. }]), "{changed:?}");
    let lost_header = complaints(|s| drop(s.dead_letters[1].headers.remove("idempotency-key")));
    assert!(matches!(&lost_header[..], [Complaint::Changed { .. }]), "{lost_header:?}");
    let undeserved = complaints(|s| {
        let copy = s.tasks["copy"][1].clone();
        s.dead_letters.push(letter("dead-letters/0/9", &copy, "TG-key-conflict", None));
    });
    assert!(
        matches!(&undeserved[..], [Complaint::Wrongly { at, .. }] if at == "tasks.copy/0/1"),
        "{undeserved:?}"
    );
}

#[test]
fn a_result_of_nothing_or_with_another_payload_is_a_stray() {
    let nothing =
        complaints(|s| s.results.push(result("results/0/7", "z", 0, "tasks.copy/0/9", &Value::Null)));
    assert!(matches!(&nothing[..], [Complaint::Stray { .. }]), "{nothing:?}");
    let other =
        complaints(|s| s.results[0] = result("results/0/0", "a", 0, "tasks.copy/0/0", &payload(1, "two")));
    assert!(matches!(&other[..], [Complaint::Stray { .. }]), "{other:?}");
    let next =
        complaints(|s| s.results.push(result("results/0/7", "a", 1, "tasks.copy/0/0", &payload(1, "one"))));
    assert!(matches!(&next[..], [Complaint::Stray { .. }]), "a generation nobody asked for: {next:?}");
}

/// The same shelf with a ticket that a model doubted, decided by a person.
fn doubted(change: impl FnOnce(&mut Shelf)) -> Vec<Complaint> {
    complaints(|s| {
        let ticket = task("tasks.ticket/0/0", "t", 9, "a doubtful request with number 9");
        let mut decided =
            result("results/0/9", "t", 0, &ticket.at, &json!({ "category": "doubtful" })).json();
        decided["kind"] = "ticket".into();
        decided["status"] = "approved".into();
        decided["reviewed"] = json!({ "item": "i", "by": "ada" });
        let item = json!({ "id": "i", "why": [{ "reason": "TG-below-line" }], "proposed": decided });
        s.review_requests.push(row("review.requests/0/0", "i", &item.to_string(), &[]));
        s.review_requests.push(Row { key: Some("i".into()), ..Row::default() });
        s.results.push(row("results/0/9", "t", &decided.to_string(), &[]));
        s.tasks.insert("ticket".to_owned(), vec![ticket]);
        change(s);
    })
}

#[test]
fn p5_a_doubt_that_was_published_without_a_person_or_on_an_item_nobody_saw_is_found() {
    assert_eq!(doubted(|_| {}), []);
    let unseen = |at: &str, why| vec![Complaint::Unseen { at: at.into(), why }];
    let change = |s: &mut Shelf, name: &str, value: Value| {
        let row = s.results.last_mut().unwrap();
        let mut result = row.json();
        result[name] = value;
        row.value = Some(result.to_string().into_bytes());
    };
    let bare = doubted(|s| change(s, "reviewed", Value::Null));
    assert_eq!(bare, unseen("results/0/9", "published by no person"));
    let accepted = doubted(|s| change(s, "status", "accepted".into()));
    assert_eq!(accepted, unseen("results/0/9", "published by no person"));
    let nowhere = doubted(|s| s.review_requests.clear());
    assert_eq!(nowhere, unseen("results/0/9", "decided on an item that was never there"));
    let silent = doubted(|s| {
        let mut item = s.review_requests[0].json();
        item["why"] = json!([]);
        s.review_requests[0].value = Some(item.to_string().into_bytes());
    });
    assert_eq!(silent, unseen("review.requests/0/0", "its item does not say why a person is asked"));
}

#[test]
fn a_conflict_without_a_dead_letter_has_a_twin_only_where_its_payload_has_a_place() {
    let buried = |twin| {
        let name = Some(("copy".into(), "a".into(), 0));
        Complaint::Buried { at: "tasks.copy/0/2".into(), name, why: "conflict", times: 0, twin }
    };
    let lost = complaints(|s| drop(s.dead_letters.remove(0)));
    assert_eq!(lost, [buried(false)], "a lost record has no excuse");
    let published = complaints(|s| {
        drop(s.dead_letters.remove(0));
        s.results.push(result("results/0/8", "a", 0, "tasks.copy/0/2", &payload(1, "two")));
    });
    assert!(published.contains(&buried(true)), "{published:?}");
    // It was parked, lost its key meanwhile, and lies in dead letters under its last coordinates.
    let parked = complaints(|s| {
        s.dead_letters[0].headers.insert("tidegate-source".into(), "retry.5s/0/1".into());
        s.dead_letters[0].headers.insert("tidegate-origin".into(), "tasks.copy/0/2@5".into());
    });
    let wrongly = Complaint::Wrongly {
        at: "retry.5s/0/1".into(),
        name: Some(("copy".into(), "a".into(), 0)),
        letter: "dead-letters/0/0".into(),
        reason: "TG-key-conflict".into(),
        rival: true,
    };
    assert_eq!(parked, [buried(true), wrongly]);
}
