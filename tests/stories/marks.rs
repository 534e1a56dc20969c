//! A closing mark that never reached the ledger: the log is the truth, and look-ups tell it.

use crate::rig::script::{Reply, SOON};
use crate::rig::{eventually, is_for_embedded_only};
use crate::stage::{Stage, good};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tidegate::dedupe::Phase;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_lost_closing_mark_changes_nothing_for_look_ups_and_copies() {
    if is_for_embedded_only("the weak ledger is an embedded one") {
        return;
    }
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    // A weak ledger hears of an outcome up to a fifth of a second late; the kill comes before.
    stage
        .start_as(|command| {
            command.env("TIDEGATE_WEAK_LEDGER", "3");
        })
        .await;
    let tasks: Vec<Value> = (0..100)
        .map(|n| json!({ "kind": "copy", "key": format!("k{n}"), "payload": { "text": format!("number {n}") } }))
        .collect();
    let api = stage.api.clone();
    eventually("the tasks are accepted", SOON, || async {
        api.post("/v1/tasks", &Value::Array(tasks.clone())).await.ok().filter(|(status, _)| *status < 300)
    })
    .await;
    eventually("all are committed", SOON, || async {
        (api.metric("tidegate_outcomes_total").await >= 100.0).then_some(())
    })
    .await;
    stage.kill();
    let open = open_claims(&stage).await;
    let rest = stage.place.open();
    let published = rest.all("results").await.len();
    rest.close().await;
    assert!(
        published > 0 && !open.is_empty(),
        "{published} results, {} open claims: no mark was lost",
        open.len()
    );

    stage.start().await;
    for n in 0..100 {
        let task = stage.api.until("copy", &format!("k{n}"), "done").await;
        assert_eq!(task["result"]["answer"]["text"], format!("number {n}"), "{task}");
        let (status, body) =
            stage.api.submit("copy", &format!("k{n}"), json!({ "text": format!("number {n}") })).await;
        assert_eq!((status, &body["state"]), (200, &json!("done")), "a copy is told the outcome: {body}");
    }
    stage.kill();
    assert_eq!(open_claims(&stage).await, BTreeSet::new(), "what a look-up found, the ledger has been told");
    let rest = stage.place.open();
    assert_eq!(rest.all("results").await.len(), 100, "each exactly once");
}

async fn open_claims(stage: &Stage) -> BTreeSet<String> {
    let rest = stage.place.open();
    let claims = rest.engine.ledger.list(None, 1_000).await.unwrap();
    let open = claims.into_iter().filter(|c| !matches!(c.phase, Phase::Closed { .. }));
    let keys = open.map(|c| c.key.key.to_string()).collect();
    rest.close().await;
    keys
}
