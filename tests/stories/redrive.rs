//! A dead letter is sent again: an outcome as the next generation, a record that never owned its key
//! as it was.

use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, all_valid, append, good, ticket, value};
use serde_json::{Value, json};
use tidegate::engine::Output;

/// A provider that refuses the payload, as long as it is told to.
async fn refused_by_the_provider() -> Stage {
    let stage = Stage::open(|_| {
        let body =
            json!({ "error": { "message": "the input is not acceptable", "type": "invalid_request_error" } });
        Reply::Fails(400, &[], body)
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!((&task["outcome"], &task["generation"]), (&json!("dead-letter"), &json!(0)), "{task}");
    assert_eq!(task["dead_letter"]["reason"], "TG-payload-refused", "{task}");
    stage
}

async fn generation(stage: &Stage, wanted: u64) -> Value {
    let api = stage.api.clone();
    eventually(&format!("generation {wanted} has its outcome"), SOON, || async {
        api.task("ticket", "t1").await.filter(|t| t["generation"] == wanted && t["state"] == "done")
    })
    .await
}

/// What `ls` says became of the one dead letter of this key since; empty where it says nothing.
fn marked(stage: &Stage, key: &str) -> String {
    let (code, said, problem) = stage.place.tool(&["dead-letters", "ls", "--key", key]);
    assert_eq!((code, said.lines().count()), (0, 2), "{said}{problem}");
    let mut lines = said.lines();
    let at = lines.next().and_then(|header| header.find("since then"));
    at.and_then(|at| lines.next()?.get(at..)).unwrap_or_default().trim().to_owned()
}

/// Ends in order; how many records lie on `resume`, what became of tickets, and how many dead letters.
async fn at_rest(stage: &mut Stage) -> (usize, Vec<Value>, usize) {
    let rest = stage.rest();
    assert_eq!(rest.open_records().await, []);
    all_valid(&rest).await;
    let tickets = rest.all("results").await.iter().map(value).filter(|v| v["kind"] == "ticket").collect();
    let found = (rest.all("resume").await.len(), tickets, rest.all("dead-letters").await.len());
    rest.close().await;
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_redriven_outcome_is_the_next_generation_and_a_second_redrive_sends_nothing() {
    let mut stage = refused_by_the_provider().await;
    stage.provider.now(|_| Reply::json(good()));
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    let task = generation(&stage, 1).await;
    assert_eq!((&task["outcome"], &task["result"]["answer"]), (&json!("result"), &good()), "{task}");
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    assert!(said.contains("it was sent again before") && said.contains("1 left as they are"), "{said}");
    let (code, said, _) =
        stage.place.tool(&["dead-letters", "redrive", "--reason", "payload-refused", "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    let because = json!([{ "why": "it was sent again before", "count": 1 }]);
    assert_eq!((code, &told["redriven"], &told["left_because"]), (0, &json!(0), &because), "{told}");
    assert_eq!(marked(&stage, "t1"), "sent again");
    let (resumed, tickets, buried) = at_rest(&mut stage).await;
    assert_eq!((resumed, tickets.len(), buried), (1, 1, 1));
    assert_eq!(tickets[0]["generation"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_copy_of_a_redrive_is_silent_after_its_outcome() {
    let mut stage = refused_by_the_provider().await;
    stage.provider.now(|_| Reply::json(good()));
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    generation(&stage, 1).await;
    let asked = stage.provider.asked().len();
    stage.kill();
    // As two people who redrive at the same moment leave it: the same generation, another origin.
    let rest = stage.place.open();
    let sent = rest.all("resume").await.remove(0);
    let again = Output {
        topic: sent.position.at.topic.clone(),
        key: sent.key,
        value: sent.value,
        headers: sent.headers,
        not_before: None,
    };
    rest.engine.log.append(vec![again]).await.unwrap();
    rest.close().await;
    stage.start().await;
    let api = stage.api.clone();
    eventually("the copy is complete", SOON, || async {
        (api.metric("tidegate_duplicates_total").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(stage.provider.asked().len(), asked, "the copy bought nothing");
    let (resumed, tickets, buried) = at_rest(&mut stage).await;
    assert_eq!((resumed, tickets.len(), buried), (2, 1, 1), "{tickets:?}");
    assert_eq!(tickets[0]["generation"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_an_outcome_of_generation_1_can_be_redriven_too() {
    let mut stage = refused_by_the_provider().await;
    stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    let task = generation(&stage, 1).await;
    assert_eq!(task["outcome"], "dead-letter", "{task}");
    stage.provider.now(|_| Reply::json(good()));
    stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    let task = generation(&stage, 2).await;
    assert_eq!(task["outcome"], "result", "{task}");
    let rest = stage.rest();
    assert_eq!((rest.all("results").await.len(), rest.all("dead-letters").await.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_dry_run_sends_nothing() {
    let mut stage = refused_by_the_provider().await;
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1", "--dry-run"]);
    assert_eq!(code, 0, "{said}{problem}");
    assert!(said.contains("t1"), "{said}");
    assert_eq!(stage.rest().all("resume").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_redriven_record_that_never_owned_its_key_is_the_task_once_it_is_good() {
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    let rest = stage.place.open();
    // Refused by the input schema of today.
    append(&rest, "tasks.ticket", &[(br#"{"text":7}"#, &[("idempotency-key", "t1")])]).await;
    rest.close().await;
    stage.start().await;
    let api = stage.api.clone();
    eventually("it is refused", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
        letters.to_string().contains("TG-input-refused").then_some(())
    })
    .await;
    assert_eq!(marked(&stage, "t1"), "still refused");
    for named in [&["--reason", "input-refused"][..], &["--key", "t1"], &["--kind", "ticket"]] {
        let (code, said, problem) = stage.place.tool(&[&["dead-letters", "redrive"], named].concat());
        assert_eq!(code, 0, "{said}{problem}");
        assert!(said.contains("0 dead letters sent again, 1 left as they are"), "{said}");
        assert!(said.contains("1: it would be refused again: "), "{said}");
    }
    stage.kill();
    let config = std::fs::read_to_string(stage.place.config()).unwrap();
    std::fs::write(stage.place.config(), config.replace("input = { text = \"string\" }", "")).unwrap();
    stage.start().await;
    assert_eq!(marked(&stage, "t1"), "");
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    let task = generation(&stage, 0).await;
    assert_eq!((&task["outcome"], &task["result"]["generation"]), (&json!("result"), &json!(0)), "{task}");
    assert_eq!(marked(&stage, "t1"), "sent again");
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--kind", "ticket"]);
    assert_eq!(code, 0, "{said}{problem}");
    assert!(said.contains("0 dead letters sent again, 1 left as they are"), "{said}");
    let rest = stage.rest();
    assert_eq!((rest.all("results").await.len(), rest.all("dead-letters").await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_record_without_a_key_is_left_until_its_kind_finds_one_and_is_then_sent_once() {
    let mut stage = Stage::open(|_| Reply::json(good())).await;
    let record = json!({ "records": [{ "key": "m", "value": "{\"text\":\"x1\"}" }] });
    let (status, told) = stage.append("tasks.copy", &record).await.unwrap();
    assert_eq!(status, 202, "{told}");
    let api = stage.api.clone();
    eventually("it is buried", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
        letters.to_string().contains("TG-key-missing").then_some(())
    })
    .await;
    let redrive = |stage: &Stage| {
        let (code, said, problem) =
            stage.place.tool(&["dead-letters", "redrive", "--reason", "key-missing", "--json"]);
        assert_eq!(code, 0, "{said}{problem}");
        let told: Value = serde_json::from_str(&said).unwrap();
        (told["redriven"].as_u64().unwrap(), told["left"].as_u64().unwrap())
    };
    for _ in 0..3 {
        assert_eq!(redrive(&stage), (0, 1));
    }
    stage.kill();
    let config = std::fs::read_to_string(stage.place.config()).unwrap();
    let finds = config.replace("[tasks.copy]", "[tasks.copy]\nkey = \"task.text\"");
    std::fs::write(stage.place.config(), finds).unwrap();
    stage.start().await;
    assert_eq!(redrive(&stage), (1, 0));
    stage.api.until("copy", "x1", "done").await;
    for _ in 0..2 {
        assert_eq!(redrive(&stage), (0, 1));
    }
    let rest = stage.rest();
    assert_eq!((rest.all("tasks.copy").await.len(), rest.all("dead-letters").await.len()), (2, 1));
    assert_eq!(rest.all("results").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_redrive_that_its_kind_refuses_can_be_redriven_once_the_kind_takes_it() {
    let mut stage = refused_by_the_provider().await;
    stage.provider.now(|_| Reply::json(good()));
    let takes = std::fs::read_to_string(stage.place.config()).unwrap();
    let refuses =
        takes.replace(r#"input = { text = "string" }"#, r#"input = { text = "string", order = "string" }"#);
    stage.kill();
    std::fs::write(stage.place.config(), refuses).unwrap();
    stage.start().await;
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    let api = stage.api.clone();
    let id = eventually("the redrive is refused", SOON, || async {
        let (_, found) = api.get("/v1/dead-letters?reason=input-refused").await.ok()?;
        found["dead_letters"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    stage.kill();
    std::fs::write(stage.place.config(), takes).unwrap();
    stage.start().await;
    // The key is still at generation 0, where it failed.
    let (_, letter) = stage.api.get(&format!("/v1/dead-letters/{id}")).await.unwrap();
    assert_eq!((&letter["redriven"], &letter["left"]), (&json!(false), &Value::Null), "{letter}");
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", &id]);
    assert_eq!(code, 0, "{said}{problem}");
    assert!(said.contains("1 dead letter sent again"), "{said}");
    let task = generation(&stage, 1).await;
    assert_eq!((&task["outcome"], &task["result"]["answer"]), (&json!("result"), &good()), "{task}");
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    assert!(said.contains("0 dead letters sent again, 2 left as they are"), "{said}");
    let (resumed, tickets, buried) = at_rest(&mut stage).await;
    assert_eq!((resumed, tickets.len(), buried), (2, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_redriven_task_does_not_die_again_of_the_deadline_it_was_sent_with() {
    let stage = Stage::open(|_| Reply::json(good())).await;
    let late = json!({ "deadline": "2001-01-01T00:00:00Z" });
    stage.api.offer("ticket", "t1", ticket(), late).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["dead_letter"]["reason"], "TG-deadline-passed", "{task}");
    let (code, said, problem) = stage.place.tool(&["dead-letters", "redrive", "--key", "t1"]);
    assert_eq!(code, 0, "{said}{problem}");
    let task = generation(&stage, 1).await;
    assert_eq!((&task["outcome"], &task["result"]["late"]), (&json!("result"), &json!(false)), "{task}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_letter_that_would_conflict_again_is_left_and_says_what_to_do_instead() {
    let mut stage = Stage::open(|_| Reply::json(good())).await;
    stage.api.submit("ticket", "t1", ticket()).await;
    stage.api.until("ticket", "t1", "done").await;
    let record =
        json!({ "records": [{ "value": "{\"text\":\"another\"}", "headers": { "idempotency-key": "t1" } }] });
    let (status, told) = stage.append("tasks.ticket", &record).await.unwrap();
    assert_eq!(status, 202, "{told}");
    let api = stage.api.clone();
    let id = eventually("it is buried", SOON, || async {
        let (_, found) = api.get("/v1/dead-letters?reason=key-conflict").await.ok()?;
        found["dead_letters"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(marked(&stage, "t1"), "key taken");
    for named in [&["--reason", "key-conflict"][..], &["--key", "t1"], &[&id]] {
        let (code, said, problem) = stage.place.tool(&[&["dead-letters", "redrive"], named].concat());
        assert_eq!(code, 0, "{said}{problem}");
        assert!(said.contains("0 dead letters sent again, 1 left as they are"), "{said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let help = "submit it under a new key (`on_conflict = \"ignore\"` is for the next ones)";
        assert!(said.contains("it would conflict again") && said.contains(help), "{said}");
    }
    for hint in [&["dead-letters", "show", &id][..], &["explain", "key-conflict"]] {
        let (code, said, problem) = stage.place.tool(hint);
        assert_eq!(code, 0, "{said}{problem}");
        assert!(!said.contains("dead-letters redrive") && said.contains("on_conflict"), "{said}");
    }
    assert_eq!(stage.rest().all("resume").await.len(), 0);
}
