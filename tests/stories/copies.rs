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
async fn p1_p2_of_three_records_under_one_key_one_is_the_task_and_only_other_payloads_are_dead_letters() {
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
    assert_eq!(results.len(), 1);
    // Records of a partition are worked on side by side: the ledger's word decides which of them owns
    // the key. Those that say the same as the owner leave no trace, the others are dead letters.
    let sent = rest.all("tasks.ticket").await;
    let origin = value(&results[0])["origin"].as_str().unwrap().to_owned();
    let owner = sent.iter().find(|r| origin.starts_with(&format!("{}@", r.position))).unwrap();
    let buried: Vec<_> = sent.iter().filter(|r| value(r) != value(owner)).collect();
    assert_eq!(letters.len(), buried.len(), "{origin}");
    for original in buried {
        let source = original.position.to_string();
        let letter = letters.iter().find(|l| added(l)["tidegate-source"] == source.as_str()).unwrap();
        assert_eq!(added(letter)["tidegate-reason"], "TG-key-conflict");
        assert_eq!(added(letter)["tidegate-is-outcome"], "no");
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value));
        assert_eq!(letter.headers.text("x-own"), Some("kept"));
    }
    assert_eq!(stage.provider.asked().len(), 1);
    assert_eq!(rest.open_records().await, []);
    all_valid(&rest).await;
}
