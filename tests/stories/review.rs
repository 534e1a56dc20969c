//! People decide: each item becomes exactly one result.

use crate::rig::script::Reply;
use crate::stage::{KINDS, Stage, all_valid, ticket, value};
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
async fn an_edit_that_breaks_a_rule_is_refused_unless_it_is_meant_and_the_result_says_so() {
    let rule = "rules = [{ that = \"answer.category != 'billing' || answer.order_id != null\", message = \"billing needs its order\" }]\n";
    let kinds = KINDS.replace("review = ", &format!("{rule}review = "));
    let mut stage = Stage::set_with(&kinds, |_| Reply::json(doubtful())).await;
    stage.start().await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "waiting-review").await;
    let id = task["review"]["id"].as_str().unwrap().to_owned();
    let answer = json!({ "category": "billing", "order_id": null, "confidence": 0.5 });
    let (code, told) = stage.api.decide(&id, "edit", json!({ "by": "ada", "answer": answer })).await;
    assert_eq!((code, &told["error"]["code"]), (422, &json!("breaks-rules")), "{told}");
    assert_eq!(told["error"]["fields"][0]["message"], "billing needs its order");
    // The schema is never broken, whatever is said.
    let wrong = json!({ "by": "ada", "answer": { "category": "x" }, "despite_rules": true });
    let (code, told) = stage.api.decide(&id, "edit", wrong).await;
    assert_eq!((code, &told["error"]["code"]), (422, &json!("invalid-decision")), "{told}");

    let change =
        ["review", "edit", &id, "--by", "ada", "--set", "category=billing", "--reason", "no order yet"];
    let (code, _, problem) = stage.place.tool(&change);
    assert_eq!(code, 1, "{problem}");
    for part in ["breaks a rule", "billing needs its order", "--despite-rules"] {
        assert!(problem.contains(part), "`{part}` is not in\n{problem}");
    }
    assert_eq!(
        stage.api.task("ticket", "t1").await.unwrap()["state"],
        "waiting-review",
        "nothing was decided"
    );
    let (code, said, problem) = stage.place.tool(&[&change[..], &["--despite-rules"]].concat());
    assert_eq!(code, 0, "{said}{problem}");
    let task = stage.api.until("ticket", "t1", "done").await;
    let reason = "no order yet (despite the rules: billing needs its order)";
    assert_eq!(task["result"]["reviewed"]["reason"], reason, "{task}");
    exactly_one(stage, &id, "edited", &answer).await;
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
async fn p1_p2_a_decision_survives_a_death_between_its_claim_and_its_commit() {
    let (mut stage, id) = asked_a_person().await;
    stage.kill();
    stage
        .start_as(|command| {
            command.env("TIDEGATE_CRASH_AT", "arbiter.claimed");
        })
        .await;
    let answered = stage.api.post(&format!("/v1/review/{id}/approve"), &json!({ "by": "ada" })).await;
    assert!(answered.is_err(), "the process died before it could answer: {answered:?}");
    assert!(stage.process.take().unwrap().words().ends_with("crash point arbiter.claimed\n"));
    let rest = stage.place.open();
    let decisions = rest.all("review.decisions").await;
    assert_eq!(decisions.len(), 1, "it is in the log");
    assert_eq!(rest.all("results").await.len(), 0, "and not ruled on yet");
    let position = decisions[0].position.clone();
    let claim = rest.engine.ledger.list(None, 10).await.unwrap().remove(0);
    assert_eq!(claim.decider.as_ref(), Some(&position), "it has claimed the item");
    rest.close().await;

    stage.start().await;
    // Nobody decides again: the decision that was handed in is the one that counts.
    let task = stage.api.until("ticket", "t1", "done").await;
    let reviewed = &task["result"]["reviewed"];
    assert_eq!(
        (&reviewed["by"], &reviewed["decision"]),
        (&json!("ada"), &json!(position.to_string())),
        "{task}"
    );
    exactly_one(stage, &id, "approved", &doubtful()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_p2_a_decision_that_was_answered_is_in_the_log_whatever_comes_next() {
    let (mut stage, id) = asked_a_person().await;
    let (code, told) = stage.api.decide(&id, "reject", json!({ "by": "ada", "reason": "no" })).await;
    stage.kill();
    assert_eq!(code, 200, "{told}");
    let rest = stage.place.open();
    let results = rest.all("results").await;
    assert_eq!(results.len(), 1);
    let result = value(&results[0]);
    assert_eq!((&result["status"], &result["reviewed"]["by"]), (&json!("rejected"), &json!("ada")));
    let outcomes: Vec<Value> = rest.all("review.outcomes").await.iter().map(value).collect();
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert_eq!((&outcomes[0]["verdict"], &outcomes[0]["decided_by"]), (&json!("counts"), &json!("ada")));
    rest.close().await;
}
