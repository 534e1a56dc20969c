//! People decide: each item becomes exactly one result.

use crate::rig::script::Reply;
use crate::stage::{Stage, all_valid, ticket, value};
use serde_json::{Value, json};

fn doubtful() -> Value {
    json!({ "category": "bug", "order_id": null, "confidence": 0.5 })
}

async fn asked_a_person() -> (Stage, String) {
    let stage = Stage::open(|_| Reply::json(doubtful())).await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "waiting-review").await;
    let id = task["review"]["id"].as_str().unwrap().to_owned();
    (stage, id)
}

/// One result, as decided, and nothing else; a second decision is told who decided.
async fn exactly_one(mut stage: Stage, id: &str, status: &str, answer: &Value) {
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!((&task["result"]["status"], &task["result"]["answer"]), (&json!(status), answer), "{task}");
    assert_eq!(task["result"]["reviewed"]["by"], "ada");
    assert_eq!(task["result"]["reviewed"]["item"], id);
    assert_eq!(stage.api.metric("tidegate_outcomes_total").await, 1.0, "what people decide is counted too");
    let (code, told) = stage.api.decide(id, "reject", json!({ "by": "ben", "reason": "too late" })).await;
    assert_eq!(code, 409, "{told}");
    assert!(told.to_string().contains("ada"), "who decided is told: {told}");
    let (_, open) = stage.api.get("/v1/review").await.unwrap();
    assert!(!open.to_string().contains(id), "{open}");
    assert_eq!(stage.provider.asked().len(), 1, "a decision asks no model");
    let rest = stage.rest();
    let results = rest.all("results").await;
    assert_eq!(results.len(), 1, "one item, one result");
    assert_eq!(results[0].key.as_deref(), Some(&b"t1"[..]), "under the task's record key");
    assert_eq!(value(&results[0])["status"], status);
    assert_eq!(rest.all("dead-letters").await.len(), 0);
    assert_eq!(rest.open_records().await, []);
    all_valid(&rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_an_approved_item_becomes_one_result() {
    let (stage, id) = asked_a_person().await;
    let (code, told) = stage.api.decide(&id, "approve", json!({ "by": "ada" })).await;
    assert_eq!(code, 200, "{told}");
    exactly_one(stage, &id, "approved", &doubtful()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_an_edited_item_becomes_one_result_and_an_edit_must_satisfy_the_schema() {
    let (stage, id) = asked_a_person().await;
    let wrong = json!({ "category": "complaint", "order_id": null, "confidence": 1.0 });
    let (code, told) = stage.api.decide(&id, "edit", json!({ "by": "ada", "answer": wrong })).await;
    assert_eq!(code, 422, "{told}");
    assert!(told.to_string().contains("category"), "the field is named: {told}");
    let right = json!({ "category": "billing", "order_id": "7", "confidence": 1.0 });
    let (code, told) = stage.api.decide(&id, "edit", json!({ "by": "ada", "answer": right })).await;
    assert_eq!(code, 200, "{told}");
    exactly_one(stage, &id, "edited", &right).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_rejected_item_becomes_one_result_that_says_why() {
    let (stage, id) = asked_a_person().await;
    let (code, told) =
        stage.api.decide(&id, "reject", json!({ "by": "ada", "reason": "not a ticket" })).await;
    assert_eq!(code, 200, "{told}");
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["result"]["reviewed"]["reason"], "not a ticket");
    let answer = task["result"]["answer"].clone();
    exactly_one(stage, &id, "rejected", &answer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_of_twenty_decisions_at_once_one_counts() {
    let (mut stage, id) = asked_a_person().await;
    let mut all = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (api, id) = (stage.api.clone(), id.clone());
        all.spawn(async move { api.decide(&id, "approve", json!({ "by": format!("reviewer-{n}") })).await });
    }
    let answers = all.join_all().await;
    let counted: Vec<_> = answers.iter().filter(|(code, _)| *code == 200).collect();
    assert_eq!(counted.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|(code, _)| [200, 409].contains(code)), "{answers:?}");
    stage.api.until("ticket", "t1", "done").await;
    assert_eq!(stage.rest().all("results").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_the_ids_that_the_list_prints_decide_once_and_tell_the_second_who_decided() {
    let (stage, id) = asked_a_person().await;
    let (code, said, _) = stage.place.tool(&["review", "ls"]);
    let short = said.split_whitespace().find(|word| id.starts_with(word)).unwrap_or_else(|| panic!("{said}"));
    assert!(code == 0 && short.len() < id.len(), "{said}");
    let (code, said, told) = stage.place.tool(&["review", "approve", short, "--by", "ada"]);
    assert_eq!(code, 0, "{said}{told}");
    let (code, said, told) = stage.place.tool(&["review", "reject", short, "--by", "ben", "--reason", "no"]);
    assert_eq!(code, 1, "{said}{told}");
    assert!(told.contains("ada approved this item"), "{said}{told}");
    let (code, said, told) = stage.place.tool(&["review", "approve", "ffffzz", "--by", "ben"]);
    assert!(code == 1 && told.contains("no review item"), "{said}{told}");
    exactly_one(stage, &id, "approved", &doubtful()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_decision_survives_a_kill_right_after_it_was_handed_in() {
    let (mut stage, id) = asked_a_person().await;
    let (api, item) = (stage.api.clone(), id.clone());
    let handed_in = tokio::task::JoinSet::from_iter([async move {
        // Whether its sender hears of it does not matter here.
        let _ = api.post(&format!("/v1/review/{item}/approve"), &json!({ "by": "ada" })).await;
    }]);
    tokio::time::sleep(std::time::Duration::from_millis(15)).await;
    stage.kill();
    handed_in.join_all().await;
    stage.start().await;
    if stage.api.task("ticket", "t1").await.unwrap()["state"] != "done" {
        // It had not reached the log: the item is still open, and a second decision counts.
        let _ = stage.api.decide(&id, "approve", json!({ "by": "ada" })).await;
    }
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["result"]["status"], "approved");
    assert_eq!(stage.rest().all("results").await.len(), 1);
}
