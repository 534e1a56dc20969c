//! From a task to an answer: the first question, asking again, the sanitizer, a person.

use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, all_valid, good, ticket, value};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_becomes_one_result() {
    let mut stage = Stage::open(|_| Reply::json(good())).await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["outcome"], "result", "{task}");
    let result = &task["result"];
    assert_eq!((&result["status"], &result["answer"]), (&json!("accepted"), &good()));
    assert_eq!(result["made_by"]["model"], "main");
    assert_eq!(
        (&result["usage"]["input_tokens"], &result["usage"]["output_tokens"]),
        (&json!(10), &json!(5))
    );
    let asked = stage.provider.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let slot = regex::Regex::new(r"^[0-9a-f]{16}\.g0/answer\.r0#[0-9a-f]{8}$").unwrap();
    assert!(slot.is_match(&asked[0].slot), "{}", asked[0].slot);
    assert!(asked[0].words().contains("the export button does nothing"));
    let rest = stage.rest();
    let results = rest.all("results").await;
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].key.as_deref(), Some(&b"t1"[..]), "under the task's record key");
    assert_eq!(value(&results[0]), *result);
    assert_eq!(rest.open_records().await, []);
    all_valid(&rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn malformed_json_is_asked_again_with_what_was_wrong() {
    let stage = Stage::open(|asked| match asked.slot_name() {
        name if name.starts_with("answer.r0") => Reply::Says("It is {\"category\": \"bug\", \"order".into()),
        _ => Reply::json(good()),
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["result"]["answer"], good(), "{task}");
    let asked = stage.provider.asked();
    let slots: Vec<&str> = asked.iter().map(|a| a.slot_name().split('#').next().unwrap()).collect();
    assert_eq!(slots, ["answer.r0", "answer.r1"]);
    assert!(asked[1].words().contains("It is {"), "the bad answer goes back: {}", asked[1].words());
    assert_eq!(task["result"]["repairs"][0]["what"], "asked-again");
    assert!(task["result"]["confidence"]["overall"]["basis"].as_str().unwrap().starts_with("uncalibrated"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p5_an_answer_that_never_fits_goes_to_the_sanitizer_and_then_to_a_person() {
    let mut stage =
        Stage::open(|_| Reply::json(json!({ "category": "complaint", "order_id": null, "confidence": 0.9 })))
            .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let item = stage.api.item("ticket", "t1").await;
    let asked = stage.provider.asked();
    let seen: Vec<(&str, &str)> =
        asked.iter().map(|a| (a.model.as_str(), a.slot_name().split('#').next().unwrap())).collect();
    let rounds =
        [("main", "answer.r0"), ("main", "answer.r1"), ("main", "answer.r2"), ("mender", "answer.r3")];
    assert_eq!(seen, rounds);
    assert!(asked[1].words().contains("category"), "what was wrong is quoted: {}", asked[1].words());
    let text = item.to_string();
    assert!(text.contains("TG-answer-invalid") && text.contains("category"), "{text}");
    let rest = stage.rest();
    assert_eq!(rest.all("results").await.len() + rest.all("dead-letters").await.len(), 0);
    all_valid(&rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p5_what_the_sanitizer_wrote_is_proposed_to_a_person() {
    let stage = Stage::open(|asked| match asked.model.as_str() {
        "mender" => Reply::json(json!({ "category": "billing", "order_id": null, "confidence": 0.99 })),
        _ => Reply::json(json!({ "category": "complaint", "order_id": null, "confidence": 0.99 })),
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let item = stage.api.item("ticket", "t1").await;
    assert!(item.to_string().contains("\"category\":\"billing\""), "{item}");
    assert!(item.to_string().contains("TG-below-line"), "{item}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p5_a_refusal_goes_to_a_person_and_no_other_model_is_asked() {
    let stage = Stage::open(|_| Reply::Refuses("I cannot help with that.".into())).await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let item = stage.api.item("ticket", "t1").await;
    assert!(item.to_string().contains("TG-model-refused"), "{item}");
    assert_eq!(stage.provider.asked().len(), 1, "a refusal is not routed round");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p5_a_confidence_of_81_percent_is_with_a_person_within_half_a_second() {
    let doubtful = json!({ "category": "bug", "order_id": null, "confidence": 0.81 });
    let answer = doubtful.clone();
    let answered = std::sync::Arc::new(std::sync::Mutex::new(None));
    let clock = answered.clone();
    let stage = Stage::open(move |_| {
        *clock.lock().unwrap() = Some(Instant::now());
        Reply::json(answer.clone())
    })
    .await;
    // A machine that is busy elsewhere may hold up one of them, or two.
    let (mut took, mut items) = (Vec::new(), Vec::new());
    for n in 1..=5 {
        stage.api.submit("ticket", &format!("t{n}"), ticket()).await;
        let began = Instant::now();
        while items.len() < n {
            let (_, open) = stage.api.get("/v1/review").await.unwrap();
            items = open["items"].as_array().unwrap().clone();
            assert!(began.elapsed() < SOON, "{open}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        took.push(answered.lock().unwrap().unwrap().elapsed());
    }
    took.sort();
    assert!(took[2] < Duration::from_millis(500), "from the model's answer to the item: {took:?}");
    let item = items.iter().find(|item| item["key"] == "t1").unwrap();
    assert_eq!((&item["kind"], &item["key"]), (&json!("ticket"), &json!("t1")), "{item}");
    let why = &item["why"][0];
    assert_eq!(why["reason"], "TG-below-line", "{item}");
    assert!(why["detail"].as_str().unwrap().contains("81 %"), "it says how sure the model was: {why}");
    assert_eq!(stage.api.task("ticket", "t1").await.unwrap()["state"], "waiting-review");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_429_with_a_hint_is_retried_on_the_same_model_after_the_hint() {
    let stage = Stage::open(|asked| match asked.nth {
        0 => {
            let body = json!({ "error": { "message": "slow down", "type": "requests", "code": "rate_limit_exceeded" } });
            Reply::Fails(429, &[("retry-after", "1")], body)
        }
        _ => Reply::json(good()),
    })
    .await;
    let began = Instant::now();
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert!(began.elapsed() >= Duration::from_secs(1), "the hint was one second: {:?}", began.elapsed());
    let asked = stage.provider.asked();
    assert_eq!(asked.iter().map(|a| a.model.as_str()).collect::<Vec<_>>(), ["main", "main"]);
    assert_eq!(asked[0].slot, asked[1].slot, "a retry is for the same slot");
    assert_eq!(task["result"]["tries"].as_array().map(Vec::len), Some(2), "{task}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_without_a_finish_signal_is_not_an_answer() {
    let stage = Stage::open(|asked| match asked.nth {
        0 => Reply::Cut(good().to_string()),
        _ => Reply::json(good()),
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(stage.provider.asked().len(), 2);
    assert_eq!(task["result"]["answer"], good());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p5_what_keeps_an_answer_from_being_asked_for_again_leaves_it_to_a_person() {
    let refused = || {
        let message = "messages: text content blocks must be non-empty";
        Reply::Fails(400, &[], json!({ "error": { "message": message, "type": "invalid_request_error" } }))
    };
    // An answer that cannot be used, and one of nothing but blanks; the provider takes neither back.
    for first in ["It is a bug.", " \n"] {
        let mut stage = Stage::open(move |asked| match asked.slot_name().split('#').next() {
            Some("answer.r0") => Reply::Says(first.into()),
            Some("answer.r1") => refused(),
            _ => Reply::Says("I cannot mend it.".into()),
        })
        .await;
        stage.api.submit("ticket", "t1", ticket()).await;
        let item = stage.api.item("ticket", "t1").await.to_string();
        assert!(item.contains("TG-answer-invalid"), "{item}");
        assert!(item.contains("TG-payload-refused") && item.contains("could not be asked again"), "{item}");
        let asked = stage.provider.asked();
        let turns: Vec<&str> = asked
            .iter()
            .filter(|a| a.slot_name().starts_with("answer.r1"))
            .flat_map(|a| a.body["messages"].as_array().unwrap())
            .filter(|m| m["role"] == "assistant")
            .map(|m| m["content"].as_str().unwrap())
            .collect();
        let blank = first.trim().is_empty();
        assert_eq!(turns, if blank { vec![] } else { vec![first] }, "no blank turn");
        assert_eq!(asked.iter().any(|a| a.model == "mender"), !blank, "there is nothing to mend in nothing");
        let rest = stage.rest();
        assert_eq!(rest.all("dead-letters").await.len(), 0);
        all_valid(&rest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p5_a_refusal_while_asking_again_shows_the_answer_before_it() {
    let stage = Stage::open(|asked| match asked.slot_name().starts_with("answer.r0") {
        true => Reply::json(json!({ "category": "complaint", "order_id": null, "confidence": 0.9 })),
        false => Reply::Refuses("I cannot help with that.".into()),
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let item = stage.api.item("ticket", "t1").await;
    let text = item.to_string();
    assert!(text.contains("TG-model-refused") && text.contains("\"category\":\"complaint\""), "{text}");
    assert_eq!(stage.provider.asked().len(), 2, "and it is not routed round");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sanitizer_that_is_away_holds_up_no_task_whose_models_serve() {
    let gone = json!({ "error": { "message": "no such model", "code": "model_not_found" } });
    let stage =
        Stage::open(move |asked| match (asked.model.as_str(), asked.slot_name().starts_with("answer.r3")) {
            ("mender", _) => Reply::Fails(404, &[], gone.clone()),
            (_, true) => Reply::json(json!({ "category": "billing", "order_id": null, "confidence": 0.99 })),
            _ => Reply::json(json!({ "category": "complaint", "order_id": null, "confidence": 0.99 })),
        })
        .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let item = stage.api.item("ticket", "t1").await;
    assert!(item.to_string().contains("\"category\":\"billing\""), "{item}");
    let menders = stage.provider.asked();
    let menders: Vec<&str> =
        menders.iter().filter(|a| a.slot_name().starts_with("answer.r3")).map(|a| a.model.as_str()).collect();
    assert_eq!(menders, ["mender", "main"]);
}

/// Ends the moment the ledger has what was said, before anything is committed. `headers`: of the task, made once
/// the process can be asked.
async fn killed_once_stored(stage: &mut Stage, headers: impl FnOnce() -> serde_json::Value) {
    stage
        .start_as(|command| {
            command.env("TIDEGATE_CRASH_AT", "infer.stored");
        })
        .await;
    let (status, told) = stage.api.offer("ticket", "t1", ticket(), headers()).await;
    assert_eq!(status, 202, "{told}");
    let process = stage.process.as_mut().unwrap();
    let ended = process.wait(SOON);
    assert!(ended.is_some_and(|s| !s.success()), "{ended:?}: {}", process.words());
    assert!(process.words().contains("crash point infer.stored"), "{}", process.words());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_that_was_bought_before_the_deadline_is_published_late_and_not_buried() {
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    // The model must be asked before this.
    let mut deadline = tidegate::task::Timestamp::now();
    let headers = || {
        deadline = tidegate::task::Timestamp::now().plus(Duration::from_secs(10));
        json!({ "deadline": deadline.0.to_string() })
    };
    killed_once_stored(&mut stage, headers).await;
    tokio::time::sleep(tidegate::task::Timestamp::now().until(deadline) + Duration::from_millis(50)).await;
    stage.start().await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!((&task["outcome"], &task["result"]["late"]), (&json!("result"), &json!(true)), "{task}");
    assert_eq!(stage.provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p3_a_refusal_survives_a_kill_before_its_item_is_committed_and_is_not_bought_again() {
    let mut stage = Stage::set(|_| Reply::Refuses("I cannot help with that.".into())).await;
    killed_once_stored(&mut stage, || json!({})).await;
    stage.start().await;
    let item = stage.api.item("ticket", "t1").await.to_string();
    assert!(item.contains("TG-model-refused") && item.contains("I cannot help with that."), "{item}");
    assert_eq!(stage.provider.asked().len(), 1, "asked by the process that was killed, and by no other");
}
