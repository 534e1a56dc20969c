//! What people decide on a command line: review items and dead letters, by the ids that the tool prints.

use crate::commands::by_its_text;
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, all_valid, good, value};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends well; what it printed.
fn done(stage: &Stage, args: &[&str]) -> String {
    let (code, said, problem) = stage.place.tool(args);
    assert_eq!(code, 0, "{args:?}: {said}{problem}");
    said
}

/// Ends with 1; what it complained of.
fn fails(stage: &Stage, args: &[&str]) -> String {
    let (code, said, problem) = stage.place.tool(args);
    assert_eq!(code, 1, "{args:?}: {said}{problem}");
    problem
}

/// From a printed table: the first word of the line that names the key.
fn id_of(listed: &str, key: &str) -> String {
    let line = listed.lines().find(|line| line.split_whitespace().any(|word| word == key));
    let line = line.unwrap_or_else(|| panic!("{key} is not in\n{listed}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn items_are_listed_shown_approved_edited_and_rejected_by_the_ids_that_are_printed() {
    let mut stage = Stage::open(|asked| by_its_text(&asked.words())).await;
    for key in ["t1", "t2", "t3"] {
        stage.api.submit("ticket", key, json!({ "text": "something doubtful" })).await;
        stage.api.until("ticket", key, "waiting-review").await;
    }
    let listed = done(&stage, &["review", "ls"]);
    let [t1, t2, t3] = ["t1", "t2", "t3"].map(|key| id_of(&listed, key));
    let shown = done(&stage, &["review", "show", &t1]);
    for part in ["something doubtful", "\"category\": \"bug\"", "81 %", "TG-below-line", "t1 of kind ticket"]
    {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    assert!(shown.contains(&format!("tidegate review approve {t1}")), "{shown}");

    let said = done(&stage, &["review", "approve", &t1, "--by", "ada"]);
    assert!(said.contains("approved") && said.contains("t1"), "{said}");
    let told = fails(&stage, &["review", "reject", &t1, "--by", "ben", "--reason", "too late"]);
    assert!(told.contains("ada approved this item"), "a second decision is told who decided: {told}");

    let change = ["review", "edit", &t2, "--by", "ada", "--set", "category=complaint"];
    let told = fails(&stage, &change);
    assert!(told.contains("category") && told.contains("schema"), "the edit must satisfy it: {told}");
    let dry = fails(&stage, &[&change[..], &["--dry-run"]].concat());
    assert_eq!(dry, told, "a dry run says the same");
    let change = ["review", "edit", &t2, "--by", "ada", "--set", "category=billing", "--set", "order_id=47"];
    let dry = done(&stage, &[&change[..7], &["--dry-run"]].concat());
    assert_eq!(dry.lines().take(2).collect::<Vec<_>>(), ["- category: \"bug\"", "+ category: \"billing\""]);
    assert_eq!(stage.api.task("ticket", "t2").await.unwrap()["state"], "waiting-review", "nothing was sent");
    // A number is no text: `:=` says what is meant.
    let told = fails(&stage, &change);
    assert!(told.contains("order_id"), "{told}");
    let text = "order_id:=\"47\"";
    done(&stage, &["review", "edit", &t2, "--by", "ada", "--set", "category=billing", "--set", text]);

    let told = fails(&stage, &["review", "reject", &t3, "--by", "ada"]);
    assert!(told.contains("--reason"), "{told}");
    done(&stage, &["review", "reject", &t3, "--by", "ada", "--reason", "not a ticket"]);
    assert_eq!(done(&stage, &["review", "ls"]).trim(), "no review waits");

    let rest = stage.rest();
    all_valid(&rest).await;
    let results: BTreeMap<String, Value> = rest
        .all("results")
        .await
        .iter()
        .map(value)
        .map(|v| (v["key"].as_str().unwrap().to_owned(), v))
        .collect();
    let doubted = json!({ "category": "bug", "order_id": null, "confidence": 0.81 });
    let edited = json!({ "category": "billing", "order_id": "47", "confidence": 0.81 });
    for (key, status, answer) in
        [("t1", "approved", doubted), ("t2", "edited", edited), ("t3", "rejected", Value::Null)]
    {
        let result = &results[key];
        assert_eq!((&result["status"], &result["answer"]), (&json!(status), &answer), "{key}");
        assert_eq!(result["reviewed"]["by"], "ada", "{key}");
    }
    assert_eq!(results["t3"]["reviewed"]["reason"], "not a ticket");
    assert_eq!(results.len(), rest.all("results").await.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn dead_letters_are_listed_shown_and_sent_again_one_by_one_by_key_by_reason_and_by_kind() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let mut stage = Stage::open(move |asked| match is_well.load(Ordering::SeqCst) {
        true => Reply::json(good()),
        false => by_its_text(&asked.words()),
    })
    .await;
    let keys = ["t1", "t2", "t3", "t4"];
    for key in keys {
        stage.api.submit("ticket", key, json!({ "text": format!("unacceptable {key}") })).await;
        stage.api.until("ticket", key, "done").await;
    }
    let broken = "{\"text\": \u{1b}[31m";
    let record =
        json!({ "records": [{ "key": "k", "value": broken, "headers": { "idempotency-key": "m1" } }] });
    let (status, told) = stage.append("tasks.copy", &record).await.unwrap();
    assert_eq!(status, 202, "{told}");
    let malformed = eventually("the malformed record is a dead letter", SOON, || async {
        let listed = done(&stage, &["dead-letters", "ls", "--reason", "malformed"]);
        listed.contains("TG-malformed").then_some(listed)
    })
    .await;
    assert!(!malformed.contains("TG-payload-refused"), "{malformed}");
    let listed = done(&stage, &["dead-letters", "ls"]);
    assert_eq!(listed.matches("TG-").count(), 5, "{listed}");
    let m1 = id_of(&listed, "m1");
    let shown = done(&stage, &["dead-letters", "show", &m1]);
    for part in ["TG-malformed", "tasks.copy/", "m1", "a redrive leaves it: it would be refused again: "] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "no record may steer a terminal: {shown}");
    assert_eq!(done(&stage, &["dead-letters", "show", &m1, "--raw"]), broken, "byte for byte");
    let told = fails(&stage, &["dead-letters", "show", "7-77"]);
    assert!(told.contains("7-77"), "{told}");

    well.store(true, Ordering::SeqCst);
    let dry = done(&stage, &["dead-letters", "redrive", "--reason", "payload-refused", "--dry-run"]);
    assert!(dry.ends_with("4 dead letters would be sent again\n"), "{dry}");
    assert!(stage.api.metric("tidegate_redriven_total").await < 1.0, "and nothing was");
    let sent = |args: &[&str], wanted: &str| {
        let said = done(&stage, &[&["dead-letters", "redrive"], args].concat());
        assert!(said.ends_with(wanted), "{args:?}: {said}");
    };
    let again = async |key: &str| {
        let api = stage.api.clone();
        eventually(&format!("{key} has its result"), SOON, || async {
            api.task("ticket", key).await.filter(|t| t["generation"] == 1 && t["outcome"] == "result")
        })
        .await;
    };
    sent(&["--key", "t1"], "1 dead letter sent again\n");
    again("t1").await;
    sent(&[&id_of(&listed, "t2")], "1 dead letter sent again\n");
    again("t2").await;
    sent(&["--kind", "ticket", "--key", "t3"], "1 dead letter sent again\n");
    again("t3").await;
    let left = "1 dead letter sent again, 3 left as they are\n  3: it was sent again before\n";
    sent(&["--kind", "ticket"], left);
    again("t4").await;
    // What was wrong with it still is, however it is named.
    for named in [&["--reason", "TG-malformed"][..], &[&m1]] {
        let said = done(&stage, &[&["dead-letters", "redrive"], named].concat());
        assert!(said.contains("0 dead letters sent again, 1 left as they are"), "{said}");
    }
    let rest = stage.rest();
    let mut results: Vec<String> =
        rest.all("results").await.iter().map(|r| value(r)["key"].as_str().unwrap().to_owned()).collect();
    results.sort_unstable();
    assert_eq!(results, keys);
    assert_eq!(rest.all("dead-letters").await.len(), 5);
    assert_eq!(rest.open_records().await, []);
}
