//! The server over real HTTP, asked by Tidegate's own client: every fault has the shape that the
//! client knows it by.

mod caller;

use crate::infer::{Api, Prompt, Request, Turn};
use crate::validate::Schema;
use caller::Served;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

const DEMO: &str = include_str!("../../deploy/demo/provider.toml");

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["category", "urgency", "order_id", "confidence"],
        "additionalProperties": false,
        "properties": {
            "category": { "type": "string", "enum": ["billing", "bug", "how-to", "other"] },
            "urgency": { "type": "string", "enum": ["low", "high"] },
            "order_id": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
            "confidence": { "type": "number", "minimum": 0, "maximum": 1 },
        },
    })
}

fn request(text: &str) -> Request {
    let prompt = Prompt::compile("ask", "Sort this ticket.").unwrap();
    Request::new(prompt.render(&json!({ "text": text })).unwrap(), Some(schema().into()))
}

/// The demo's answers, at once, with one fault for everybody.
fn scenario(fault: &str) -> String {
    let answers = DEMO.split_once("# What the models answer.").unwrap().1;
    let stretch =
        if fault.is_empty() { String::new() } else { format!("timeline = [{{ fault = \"{fault}\" }}]") };
    format!("[models.main]\ntotal = {{ fixed = '40ms' }}\n{stretch}\n#{answers}")
}

#[tokio::test]
async fn both_dialects_answer_by_the_rules_and_within_the_schema() {
    let served = Served::start(&scenario(""), None).await;
    let cases = [
        ("I was charged twice for order AB-12345, please look today", json!(["billing", "high", "AB-12345"])),
        ("The app crashes when I open it", json!(["bug", "low", null])),
        ("How do I change my address?", json!(["how-to", "low", null])),
        ("Hello there", json!(["other", "low", null])),
    ];
    for api in [Api::OpenAi, Api::Anthropic] {
        for (text, expected) in &cases {
            let answer = served.ask(api, text, &request(text)).await.unwrap();
            let value: Value = serde_json::from_str(&answer.text).unwrap();
            assert!(Schema::compile(schema()).unwrap().check(&value).is_empty(), "{value}");
            let said = json!([value["category"], value["urgency"], value["order_id"]]);
            assert_eq!((&said, &value["confidence"]), (expected, &json!(0.95)), "{api:?}: {text}");
            assert_eq!(answer.model, "main");
            assert!(answer.usage.input_tokens > 20 && answer.usage.output_tokens > 10, "{:?}", answer.usage);
        }
    }
}

#[tokio::test]
async fn every_fault_that_ends_a_try_is_the_failure_it_stands_for() {
    let cases = [
        ("rate-limited", "rate-limited", Some(429)),
        ("server-error", "transient", Some(500)),
        ("500", "transient", Some(500)),
        ("unavailable", "overloaded", Some(503)),
        ("overloaded", "overloaded", Some(529)),
        ("silence", "timeout", None),
        ("slow-drip", "timeout", None),
        ("truncated", "malformed", None),
        ("refusal", "refusal", None),
        ("spend-cap", "spend-cap", Some(429)),
        ("model-not-found", "misconfigured", Some(404)),
        ("unauthorized", "unauthorized", Some(401)),
        ("long-answer", "oversized", None),
        ("cut", "cut", None),
    ];
    let all = cases.map(|(fault, class, status)| async move {
        let served = Served::start(&scenario(fault), None).await;
        for api in [Api::OpenAi, Api::Anthropic] {
            let failed = served.ask(api, fault, &request("hello")).await.unwrap_err();
            assert_eq!(
                (failed.class.as_str(), failed.status),
                (class, status),
                "{fault}, {api:?}: {failed:?}"
            );
        }
        served.stop().await
    });
    for (summary, (fault, ..)) in futures::future::join_all(all).await.into_iter().zip(cases) {
        let incomplete = ["silence", "slow-drip", "truncated", "long-answer"].contains(&fault);
        // The client of a long answer leaves when it has had enough; the rest may be under way by then.
        if fault != "long-answer" {
            assert_eq!(summary.complete, if incomplete { 0 } else { 2 }, "{fault}: {summary:?}");
        }
        assert_eq!((summary.requests, summary.by_fault.len()), (2, 1), "{fault}");
    }
}

#[tokio::test]
async fn bad_answers_are_whole_and_bad_in_the_one_way_they_are_named_for() {
    let schema = Schema::compile(schema()).unwrap();
    for api in [Api::OpenAi, Api::Anthropic] {
        let said = async |fault: &str| {
            let served = Served::start(&scenario(fault), None).await;
            served.ask(api, fault, &request("refund order AB-12345")).await.unwrap().text
        };
        let reading = |text: &str| crate::validate::read_answer(text, &schema);
        let malformed = reading(&said("malformed").await);
        assert_eq!((malformed.value, malformed.findings[0].keyword.as_str()), (None, "json"));
        let prose = said("prose").await;
        assert!(prose.starts_with("Certainly."));
        assert_eq!(reading(&prose).value.unwrap()["category"], "billing");
        let misses = reading(&said("wrong-schema").await);
        let paths: Vec<_> = misses.findings.iter().map(|f| (f.path.as_str(), f.keyword.as_str())).collect();
        assert_eq!(paths, [("order_id", "required")]);
        assert_eq!(reading(&said("low-confidence").await).value.unwrap()["confidence"], 0.81);
    }
}

#[tokio::test]
async fn a_marker_met_once_spares_the_second_question_and_a_sanitizer_mends() {
    let when = "[[when]]\ncontains = '#bad'\nfault = 'wrong-schema'\nonce = true\n";
    let served = Served::start(&format!("{when}{}", scenario("")), None).await;
    let schema = Schema::compile(schema()).unwrap();
    let mut request = request("#bad refund order AB-12345 today");
    let bad = served.ask(Api::OpenAi, "k", &request).await.unwrap().text;
    let findings = crate::validate::read_answer(&bad, &schema).findings;
    assert!(!findings.is_empty());
    request.turns = vec![Turn::Assistant(bad.clone()), Turn::User(crate::validate::ask_again(&findings))];
    let good = served.ask(Api::OpenAi, "k", &request).await.unwrap().text;
    let good = crate::validate::read_answer(&good, &schema).value.unwrap();
    assert_eq!(good["order_id"], "AB-12345", "read from the first turn");
    let order = crate::validate::sanitizer_request(&bad, &findings, &schema);
    let order = Request::new(order, Some(schema.shared()));
    let mended = served.ask(Api::Anthropic, "k", &order).await.unwrap().text;
    let mended = crate::validate::read_answer(&mended, &schema).value.unwrap();
    let expected = json!({ "category": "billing", "urgency": "high", "order_id": null, "confidence": 0.95 });
    assert_eq!(mended, expected, "what was right is copied, what is unknown is null");
}

#[tokio::test]
async fn answers_that_are_not_streamed_have_their_own_shape() {
    let served = Served::start(&scenario(""), None).await;
    let messages = json!([{ "role": "user", "content": "{\"text\": \"a refund\"}" }]);
    let format = json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema() } });
    let body = json!({ "model": "main", "messages": messages, "response_format": format });
    let (status, openai) = served.send("POST", "/v1/chat/completions", &body).await;
    let choice = &openai["choices"][0];
    assert_eq!((status, &choice["finish_reason"]), (200, &json!("stop")));
    assert!(
        choice["message"]["content"].as_str().unwrap().contains("billing") && openai["usage"].is_object()
    );
    let (status, anthropic) = served.send("POST", "/v1/messages", &body).await;
    assert_eq!((status, &anthropic["stop_reason"]), (200, &json!("end_turn")));
    assert!(anthropic["content"][0]["text"].as_str().unwrap().contains("billing"));
    let (status, models) = served.send("GET", "/v1/models", &Value::Null).await;
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("main")));
    let (status, error) =
        served.send("POST", "/v1/messages", &json!({ "model": "other", "messages": [] })).await;
    assert_eq!((status, &error["error"]["type"]), (404, &json!("not_found_error")));
    assert_eq!(served.send("POST", "/v1/chat/completions", &json!([])).await.0, 400);
}

#[tokio::test]
async fn the_log_tells_of_every_request_and_whether_its_answer_was_whole() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log.jsonl");
    let slow = scenario("").replace("fixed = '40ms'", "fixed = '500ms'");
    let slow = slow.replace("[models.main]", "[models.main]\nfirst_token = { fixed = '10ms' }");
    let served = Served::start(&slow, Some(log.clone())).await;
    served.ask(Api::OpenAi, "k", &request("first")).await.unwrap();
    served.ask(Api::Anthropic, "k", &request("first")).await.unwrap();
    let second = request("second");
    let leaves = served.ask(Api::OpenAi, "gone", &second);
    assert!(tokio::time::timeout(Duration::from_millis(150), leaves).await.is_err(), "left in the middle");
    let counted = async || served.send("GET", "/log/summary", &Value::Null).await.1;
    while counted().await["in_flight"] != 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = counted().await;
    let expected = json!([3, 2, 2, 1, 1]);
    let names = ["requests", "complete", "slots", "asked_before", "answered_before"];
    assert_eq!(json!(names.map(|name| &counts[name])), expected, "{counts}");
    let summary = served.stop().await;
    assert_eq!(summary.by_status, [(200, 3)].into());
    let lines = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<Value> =
        lines.iter().map(|l| json!([l["occurrence"], l["complete"], l["status"]])).collect();
    assert_eq!(told, [json!([1, true, 200]), json!([2, true, 200]), json!([1, false, 200])]);
    assert!(lines[0]["slot"].as_str().unwrap().ends_with(".g0/ask.r0#0"), "{}", lines[0]);
    assert!((500..900).contains(&lines[0]["latency_ms"].as_u64().unwrap()), "{}", lines[0]);
}

#[tokio::test]
async fn a_timeline_may_count_from_the_first_request() {
    let text = "clock = 'first-request'\n[models.main]\ntimeline = [{ from = '300ms', to = '600ms', fault = 'overloaded' }]";
    let served = Served::start(text, None).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
    let class = async |key: &str| match served.ask(Api::OpenAi, key, &request("x")).await {
        Ok(_) => "ok".to_owned(),
        Err(note) => note.class,
    };
    assert_eq!(class("a").await, "ok", "this one starts the clock");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(class("b").await, "overloaded");
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(class("c").await, "ok");
}

#[tokio::test]
async fn a_stopping_server_does_not_wait_for_silence() {
    let served = Served::start(&scenario("silence"), None).await;
    let mut silent = served.open("POST", "/v1/messages", &json!({ "model": "main", "messages": [] })).await;
    let mut said = Vec::new();
    let read = tokio::time::timeout(Duration::from_millis(100), silent.read_to_end(&mut said));
    assert!(read.await.is_err(), "silent");
    let began = Instant::now();
    served.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_rule_may_say_when_to_come_back() {
    let with = scenario("rate-limited")
        .replace("fault = \"rate-limited\"", "fault = \"rate-limited\", retry_after = '1500ms'");
    let head = async |scenario: &str, path: &str| {
        let served = Served::start(scenario, None).await;
        let mut stream = served.open("POST", path, &json!({ "model": "main", "messages": [] })).await;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply.to_lowercase()
    };
    let told = head(&with, "/v1/chat/completions").await;
    assert!(told.contains("\r\nretry-after: 2\r\nretry-after-ms: 1500\r\n"), "{told}");
    let without = scenario("rate-limited");
    assert!(!head(&without, "/v1/chat/completions").await.contains("retry-after"));
    assert!(head(&without, "/v1/messages").await.contains("\r\nretry-after: 1\r\n"));
}
