//! A kind whose tasks all die of one reason pauses, says so, and loses nothing; the others go on.

use crate::rig::eventually;
use crate::rig::script::Reply;
use crate::stage::{Stage, good};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);
const TASKS: usize = 600;
/// What may be under way when the pause comes.
const IN_FLIGHT: usize = 16;

/// A kind whose prompt reads a field that no payload has, and whose schema does not say so; and the
/// same configuration mended.
async fn broken() -> (Stage, String) {
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    let well = std::fs::read_to_string(stage.place.config()).unwrap();
    let well = format!("{well}\n[worker]\nin_flight = {IN_FLIGHT}\n");
    let broken = well.replace("Classify this support ticket.", "Classify {{ task.txet }}.");
    let broken = broken.replacen("input = { text = \"string\" }", "", 1);
    std::fs::write(stage.place.config(), broken).unwrap();
    stage.start().await;
    (stage, well)
}

async fn paused(stage: &Stage) -> Value {
    let api = stage.api.clone();
    eventually("the kind pauses", LIMIT, || async {
        let (_, status) = api.get("/v1/status").await.ok()?;
        status["held"].as_array().is_some_and(|held| !held.is_empty()).then_some(status)
    })
    .await
}

async fn all_is_well(stage: &Stage) {
    let api = stage.api.clone();
    eventually("all is well and nothing waits", LIMIT, || async {
        let (_, status) = api.get("/v1/status").await.ok()?;
        (status["sentence"] == "All is well." && status["backlog"] == 0).then_some(())
    })
    .await;
}

async fn sent(stage: &Stage) {
    let all: Vec<Value> = (0..TASKS)
        .map(|n| json!({ "kind": "ticket", "key": format!("t{n}"), "payload": { "text": "x" } }))
        .collect();
    let (status, body) = stage.api.post("/v1/tasks", &Value::Array(all)).await.unwrap();
    assert_eq!((status, &body["accepted"]), (202, &json!(TASKS)), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_kind_whose_tasks_all_die_of_one_reason_pauses_says_so_and_loses_nothing() {
    let (mut stage, well) = broken().await;
    sent(&stage).await;
    let status = paused(&stage).await;
    let sentence = status["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("Tasks of ticket wait, nothing is lost: "), "{sentence}");
    assert!(
        sentence.contains("outcomes of ticket are dead letters for one reason, TG-template-failed"),
        "{sentence}"
    );
    assert_eq!(
        (&status["degraded"], &status["held"][0]["topic"]),
        (&json!(true), &json!(stage.place.topic("tasks.ticket")))
    );
    assert!(stage.api.is_ready().await, "the process is well");

    // The others go on, and nothing more of this one dies.
    let letters = stage.api.metric("tidegate_outcomes_total").await;
    for n in 0..50 {
        stage.api.submit("copy", &format!("c{n}"), json!({ "text": "x" })).await;
    }
    for n in 0..50 {
        let task = stage.api.until("copy", &format!("c{n}"), "done").await;
        assert_eq!(task["outcome"], "result", "{task}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let died = stage.api.metric("tidegate_outcomes_total").await - letters - 50.0;
    assert!(died <= IN_FLIGHT as f64, "{died} more died while it was paused");

    // Mended and started again: everything that waited is done.
    assert!(stage.process.take().unwrap().stop(LIMIT).success());
    std::fs::write(stage.place.config(), well).unwrap();
    let rest = stage.place.open();
    let dead = rest.all("dead-letters").await.len();
    assert!((41..=41 + 2 * IN_FLIGHT).contains(&dead), "{dead} are dead");
    rest.close().await;
    stage.start().await;
    for n in [0, TASKS / 2, TASKS - 1] {
        stage.api.until("ticket", &format!("t{n}"), "done").await;
    }
    all_is_well(&stage).await;
    let rest = stage.rest();
    let tickets: Vec<Value> = rest.all("results").await.iter().map(crate::stage::value).collect();
    let tickets = tickets.iter().filter(|r| r["kind"] == "ticket").count();
    assert_eq!((tickets, rest.all("dead-letters").await.len()), (TASKS - dead, dead));
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_resumes_a_kind_has_all_of_it_read_whatever_comes_of_it() {
    let (mut stage, _) = broken().await;
    sent(&stage).await;
    assert_eq!(paused(&stage).await["held"][0]["by"], "dead-letters");
    let (code, _, problem) = stage.place.tool(&["resume", "copy"]);
    assert_eq!(code, 1, "{problem}");
    assert!(problem.contains("copy does not pause for its dead letters"), "{problem}");
    let (code, said, problem) = stage.place.tool(&["resume", "ticket"]);
    assert_eq!(code, 0, "{said}{problem}");
    all_is_well(&stage).await;
    let rest = stage.rest();
    assert_eq!(rest.all("dead-letters").await.len(), TASKS);
    assert_eq!(rest.open_records().await, []);
}
