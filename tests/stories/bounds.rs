//! Bounds that a person relies on: what runs at once, how it ends, what is never said, what is counted.

use crate::rig::eventually;
use crate::rig::process::says;
use crate::rig::script::{Reply, SOON};
use crate::stage::{KINDS, Stage, good, ticket, value};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_more_tasks_are_at_their_models_at_once_than_the_bound_allows() {
    const AT_ONCE: usize = 7;
    let kinds = format!("{KINDS}[worker]\nin_flight = {AT_ONCE}\n");
    let mut stage =
        Stage::set_with(&kinds, |_| Reply::After(Duration::from_millis(150), Box::new(Reply::json(good()))))
            .await;
    stage.start().await;
    let tasks: Vec<Value> = (0..40)
        .map(|n| json!({ "kind": "ticket", "key": format!("t{n}"), "payload": { "text": format!("{n}") } }))
        .collect();
    let (status, told) = stage.api.post("/v1/tasks", &Value::Array(tasks)).await.unwrap();
    assert_eq!(status, 202, "{told}");
    for n in 0..40 {
        stage.api.until("ticket", &format!("t{n}"), "done").await;
    }
    // Exactly: fewer would leave the model waiting.
    assert_eq!(stage.provider.most_at_once(), AT_ONCE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_first_signal_waits_for_what_runs_and_the_second_exits_at_once() {
    let mut stage = Stage::set(|_| Reply::Silent).await;
    // So patient that nothing but the second signal ends it here.
    let config = std::fs::read_to_string(stage.place.config()).unwrap().replace("\"2s\"", "\"60s\"");
    std::fs::write(stage.place.config(), config).unwrap();
    stage.start().await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let provider = &stage.provider;
    eventually("the model is asked", SOON, || async { (!provider.asked().is_empty()).then_some(()) }).await;
    let process = stage.process.as_mut().unwrap();
    process.signal("TERM");
    says(process, "a second signal exits at once", SOON).await;
    assert!(process.wait(Duration::from_millis(500)).is_none(), "it waits for the call: {}", process.words());
    process.signal("INT");
    let status = process.wait(SOON).expect("the second signal ends it");
    assert_eq!(status.code(), Some(130), "{}", process.words());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_log_line_holds_a_payload_an_answer_or_a_key_to_a_model_at_any_level() {
    // Words that nothing but a payload, a record, an answer, a decision or a secret can bring in.
    const WORDS: [&str; 6] = ["zebrafish", "quokka", "axolotl", "pangolin", "numbat", "sk-wombat"];
    let mut stage = Stage::set(|asked| match asked.words() {
        // A provider that quotes what it was sent.
        w if w.contains("unacceptable") => Reply::Fails(
            400,
            &[],
            json!({ "error": { "message": "no: unacceptable zebrafish", "type": "invalid_request_error" } }),
        ),
        w if w.contains("unwelcome") => Reply::Refuses("I say no to a quokka".to_owned()),
        w if w.contains("garbled") => Reply::Says("a quokka is no JSON".to_owned()),
        _ => Reply::json(json!({ "category": "bug", "order_id": "quokka", "confidence": 0.5 })),
    })
    .await;
    let config = std::fs::read_to_string(stage.place.config()).unwrap();
    let config = config.replace("window_tokens", "key = \"env:SECRET_OF_THE_TEST\"\nwindow_tokens");
    std::fs::write(stage.place.config(), format!("{config}\n[log]\nformat = \"json\"\n")).unwrap();
    stage
        .start_as(|command| {
            command.env("TIDEGATE_LOG", "trace").env("SECRET_OF_THE_TEST", "sk-wombat-1234567");
        })
        .await;
    for (key, text) in [
        ("t1", "a zebrafish"),
        ("t2", "an unacceptable zebrafish"),
        ("t3", "an unwelcome zebrafish"),
        ("t4", "a garbled zebrafish"),
    ] {
        stage.api.submit("ticket", key, json!({ "text": text })).await;
    }
    // The task is the one called t1: on several partitions the record under its key below could be read before it.
    let item = stage.api.item("ticket", "t1").await;
    let poison = json!({ "records": [
        { "key": "p", "value": "{\"text\": \"axolotl", "headers": { "idempotency-key": "p1", "x-own": "axolotl" } },
        { "key": "p", "value": "{\"text\": [\"axolotl\"]}", "headers": { "idempotency-key": "p2" } },
        { "key": "p", "value": "{\"text\": \"numbat\"}", "headers": { "idempotency-key": "t1" } },
    ] });
    let (status, told) = stage.append("tasks.ticket", &poison).await.unwrap();
    assert_eq!(status, 202, "{told}");
    let decision =
        json!({ "by": "ada", "answer": { "category": "how-to", "order_id": "pangolin", "confidence": 1.0 } });
    let (status, told) = stage.api.decide(item["id"].as_str().unwrap(), "edit", decision).await;
    assert_eq!(status, 200, "{told}");
    for (key, state) in [("t1", "done"), ("t2", "done"), ("t3", "waiting-review"), ("t4", "waiting-review")] {
        stage.api.until("ticket", key, state).await;
    }
    let (status, told) = stage.api.offer("ticket", "t1", json!({ "text": "numbat" }), json!({})).await;
    assert_eq!(status, 409, "{told}");
    let api = stage.api.clone();
    eventually("all that was sent has its place", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
        (letters["dead_letters"].as_array()?.len() == 4).then_some(())
    })
    .await;
    let process = stage.process.as_mut().unwrap();
    assert!(process.stop(SOON).success());
    let words = process.words();
    assert!(words.contains("\"TRACE\"") && words.contains("try failed"), "everything is logged: {words}");
    let lines: Vec<Value> = words
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()));
    for word in WORDS {
        let said = words.lines().find(|line| line.contains(word));
        assert_eq!(said, None, "`{word}` is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p3_a_call_that_a_kill_cut_off_is_made_again_and_counted_in_the_metric_and_in_the_result() {
    let answers = Arc::new(AtomicBool::new(false));
    let may = answers.clone();
    let mut stage = Stage::open(move |_| match may.load(Ordering::SeqCst) {
        true => Reply::json(good()),
        false => Reply::Silent,
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let provider = &stage.provider;
    eventually("the model is asked", SOON, || async { (!provider.asked().is_empty()).then_some(()) }).await;
    assert!(stage.api.metric("tidegate_calls_repeated_total").await < 1.0, "nothing was repeated yet");
    stage.kill();
    answers.store(true, Ordering::SeqCst);
    stage.start().await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["result"]["answer"], good(), "{task}");
    let repeats: Vec<&Value> =
        task["result"]["tries"].as_array().unwrap().iter().map(|t| &t["repeats"]).collect();
    assert_eq!(repeats, [&json!(1)], "{task}");
    assert!((stage.api.metric("tidegate_calls_repeated_total").await - 1.0).abs() < 0.1);
    assert_eq!(stage.provider.asked().len(), 2, "once before the kill, once after it");
    // One that was answered is not asked again, whatever dies.
    stage.api.submit("ticket", "t2", ticket()).await;
    stage.api.until("ticket", "t2", "done").await;
    stage.kill();
    stage.start().await;
    assert_eq!(stage.api.until("ticket", "t2", "done").await["result"]["answer"], good());
    let rest = stage.rest();
    assert_eq!(rest.all("results").await.iter().map(value).filter(|v| v["key"] == "t2").count(), 1);
    assert_eq!(stage.provider.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p3_p5_an_answer_without_end_falls_back_and_with_nobody_left_a_person_gets_its_beginning() {
    // Almost twice what any answer may have, in two pieces that may be so long.
    let endless = || Reply::Says(format!("{{\"category\": \"{}", "bug ".repeat(400_000)));
    let mut stage = Stage::open(move |asked| match asked.model.as_str() {
        "spare" if !asked.words().contains("hopeless") => Reply::json(good()),
        _ => endless(),
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["result"]["answer"], good(), "{task}");
    let tries = |of: &Value| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        of["tries"].as_array().unwrap().iter().map(|t| (text(&t["model"]), text(&t["class"]))).collect()
    };
    let try_of = |model: &str, class: &str| (model.to_owned(), class.to_owned());
    assert_eq!(tries(&task["result"]), [try_of("main", "oversized"), try_of("spare", "ok")]);

    stage.api.submit("ticket", "t2", json!({ "text": "hopeless" })).await;
    let item = stage.api.item("ticket", "t2").await;
    assert_eq!(item["why"][0]["reason"], "TG-answer-cut", "{item}");
    let said = item["answer_text"].as_str().unwrap();
    assert!(said.starts_with("{\"category\": \"bug bug") && said.len() <= 4_096, "{} bytes", said.len());
    assert_eq!(tries(&item["proposed"]), [try_of("main", "oversized"), try_of("spare", "oversized")]);
    let (_, models) = stage.api.get("/v1/models").await.unwrap();
    let failed: Vec<(&Value, &Value)> =
        models["models"].as_array().unwrap().iter().map(|m| (&m["name"], &m["failed"])).collect();
    let count = |name: &'static str, n: u64| (Value::from(name), Value::from(n));
    let expected = [count("main", 2), count("mender", 0), count("spare", 1)];
    assert_eq!(failed, expected.iter().map(|(name, n)| (name, n)).collect::<Vec<_>>(), "{models}");

    // Whatever dies, nothing is bought again, and nothing of a megabyte lies anywhere.
    stage.kill();
    stage.start().await;
    assert_eq!(stage.api.item("ticket", "t2").await["id"], item["id"]);
    assert_eq!(stage.provider.asked().len(), 4);
    let rest = stage.rest();
    let largest =
        rest.all("review.requests").await.iter().filter_map(|r| r.value.as_ref().map(|v| v.len())).max();
    assert!(largest.is_some_and(|bytes| bytes < 16 << 10), "{largest:?}");
}
