//! Copies of a task, and other payloads under its key.

use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, added, all_valid, append, good, ticket, value};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_p3_a_copy_while_the_first_runs_and_one_after_its_outcome_change_nothing() {
    static ANSWER: AtomicBool = AtomicBool::new(false);
    let mut stage =
        Stage::open(|_| if ANSWER.load(Ordering::SeqCst) { Reply::json(good()) } else { Reply::Silent })
            .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let provider = &stage.provider;
    eventually("the model is asked", SOON, || async { (!provider.asked().is_empty()).then_some(()) }).await;
    let (status, known) = stage.api.submit("ticket", "t1", ticket()).await;
    assert_eq!((status, &known["state"]), (200, &json!("running")), "{known}");
    // The silent try runs into its first-token limit, and the spare is asked.
    ANSWER.store(true, Ordering::SeqCst);
    stage.api.until("ticket", "t1", "done").await;
    let asked = stage.provider.asked().len();
    let (status, known) = stage.api.submit("ticket", "t1", ticket()).await;
    assert_eq!((status, &known["result"]["answer"]), (200, &good()), "{known}");
    // Written otherwise, the same payload all the same.
    let again = br#"{ "kind":"ticket", "key":"t1", "payload": {"text" :"the export button does nothing"} }"#;
    let (status, _) = stage.api.post_bytes("/v1/tasks", "application/json", again.to_vec()).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(stage.provider.asked().len(), asked, "nothing is asked for a copy");
    assert_eq!(stage.rest().all("results").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn another_payload_under_a_known_key_is_409_over_http() {
    let stage = Stage::open(|_| Reply::json(good())).await;
    stage.api.submit("ticket", "t1", ticket()).await;
    stage.api.until("ticket", "t1", "done").await;
    let (status, body) =
        stage.api.offer("ticket", "t1", json!({ "text": "something else" }), json!({})).await;
    assert_eq!(status, 409, "{body}");
    assert_eq!(body["error"]["code"], "key-conflict", "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_p2_of_three_records_under_one_key_one_is_the_task_one_a_copy_one_a_dead_letter() {
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    let headers: &[(&str, &str)] = &[("idempotency-key", "t1"), ("x-own", "kept")];
    let other = br#"{"text":"something else"}"#;
    let rest = stage.place.open();
    append(
        &rest,
        "tasks.ticket",
        &[(br#"{"text":"one"}"#, headers), (br#"{ "text": "one" }"#, headers), (other, headers)],
    )
    .await;
    rest.close().await;
    stage.start().await;
    stage.api.until("ticket", "t1", "done").await;
    let rest = {
        let api = stage.api.clone();
        eventually("all three records are complete", SOON, || async {
            let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
            letters.to_string().contains("TG-key-conflict").then_some(())
        })
        .await;
        stage.rest()
    };
    let (results, letters) = (rest.all("results").await, rest.all("dead-letters").await);
    assert_eq!((results.len(), letters.len()), (1, 1));
    assert_eq!(value(&results[0])["key"], "t1");
    // Which payload won is the log's order and the ledger's word; the other one is the dead letter.
    let letter = added(&letters[0]);
    assert_eq!(
        (&letter["tidegate-reason"], &letter["tidegate-is-outcome"]),
        (&json!("TG-key-conflict"), &json!("no"))
    );
    let source: u64 =
        letter["tidegate-source"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap();
    let sent = rest.all("tasks.ticket").await;
    let original = sent.iter().find(|r| r.position.offset == source).unwrap();
    assert_eq!((&letters[0].key, &letters[0].value), (&original.key, &original.value));
    assert_eq!(letters[0].headers.text("x-own"), Some("kept"));
    assert_eq!(stage.provider.asked().len(), 1);
    assert_eq!(rest.open_records().await, []);
    all_valid(&rest).await;
}
