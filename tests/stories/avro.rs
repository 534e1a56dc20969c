//! Records in the wire format of a schema registry: read, answered, published and buried.

use crate::rig::eventually;
use crate::rig::registry::{Mood, Registry};
use crate::rig::script::{Asked, Reply, SOON};
use crate::stage::{KINDS, Stage, added, append, good, value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tidegate::avro::{Schema, frame, unframe};
use tidegate::task::Record;

/// A registry that was away is asked again within a second; a machine may be slow.
const BACK: Duration = Duration::from_secs(30);

/// `order` copies, `ticket` asks; both read Avro, and write Avro to `labelled`. `copy` knows nothing of it.
const AVRO: &str = r#"
[tasks.order]
from = "<prefix>orders.created"
key = "task.id"
format = "avro"
result_format = "avro"
to = "<prefix>labelled"

[worker]
in_flight = 4
"#;

fn order_schema() -> Value {
    json!({ "type": "record", "name": "Order", "namespace": "shop", "fields": [
        { "name": "id", "type": "string" },
        { "name": "total", "type": { "type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2 } },
        { "name": "placed", "type": { "type": "long", "logicalType": "timestamp-millis" } },
        { "name": "note", "type": ["null", "string"], "default": null },
    ] })
}

fn order(id: &str) -> Value {
    json!({ "id": id, "total": "12.50", "placed": "2026-11-26T03:29:46.000Z", "note": null })
}

/// As a producer writes it.
fn written(id: u32, schema: &Value, value: &Value) -> Vec<u8> {
    frame(id, &Schema::parse(&schema.to_string()).unwrap().encode(value).unwrap())
}

fn order_bytes(id: &str) -> Vec<u8> {
    written(7, &order_schema(), &order(id))
}

async fn set(registry: &Registry, rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Stage {
    let ticket = KINDS.replace(
        "[tasks.ticket]",
        "[tasks.ticket]\nto = \"<prefix>labelled\"\nformat = \"avro\"\nresult_format = \"avro\"",
    );
    let kinds = format!("{ticket}{AVRO}\n[registry]\nurl = \"{}\"\ntimeout = \"1s\"\n", registry.url());
    Stage::set_with(&kinds, rule).await
}

/// The registry knows this schema by this id, and as the latest of the topic's values.
fn knows(registry: &Registry, stage: &Stage, id: u32, topic: &str, schema: &Value) {
    registry.has(id, &format!("{}-value", stage.place.topic(topic)), schema);
}

async fn put(stage: &Stage, topic: &str, values: &[Vec<u8>]) {
    let topic = stage.place.topic(topic);
    let records: Vec<Value> = values
        .iter()
        .map(|v| json!({ "key": "one partition", "value_base64": STANDARD.encode(v) }))
        .collect();
    let answer = stage.api.post(&format!("/v1/records/{topic}"), &json!({ "records": records })).await;
    let (status, body) = answer.unwrap();
    assert_eq!(status, 202, "{body}");
}

/// The result as a consumer reads it that knows the registry and nothing of Tidegate.
fn consumed(registry: &Registry, record: &Record) -> Value {
    let (id, schema) = registry.latest(&format!("{}-value", record.position.at.topic)).unwrap();
    let (named, datum) = unframe(record.value.as_ref().unwrap()).unwrap();
    assert_eq!(named, id);
    Schema::parse(&schema.to_string()).unwrap().decode(datum).unwrap()
}

async fn dead_letters(stage: &Stage, count: usize) {
    let api = stage.api.clone();
    eventually(&format!("{count} dead letters"), BACK, || async {
        let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
        (letters.to_string().matches("TG-").count() >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn avro_goes_in_and_comes_out_and_everybody_here_still_reads_json() {
    let registry = Registry::start().await;
    let mut stage = set(&registry, |_| Reply::json(good())).await;
    knows(&registry, &stage, 7, "orders.created", &order_schema());
    stage.start().await;
    put(&stage, "orders.created", &[order_bytes("o1"), order_bytes("o1"), order_bytes("o2")]).await;
    for id in ["o1", "o2"] {
        let task = stage.api.until("order", id, "done").await;
        assert_eq!((&task["outcome"], &task["result"]["answer"]), (&json!("result"), &order(id)), "{task}");
    }
    let told = stage.place.tool(&["show", "--kind", "order", "o1"]);
    assert!(told.0 == 0 && told.1.contains("12.50"), "{told:?}");
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|a| *a == "GET /schemas/ids/7").count(), 1, "{asked:?}");
    let rest = stage.rest();
    let results = rest.all("labelled").await;
    assert_eq!(results.len(), 2, "the copy of o1 was completed silently");
    let said: BTreeMap<String, Value> = results
        .iter()
        .map(|r| consumed(&registry, r))
        .map(|r| (r["key"].as_str().unwrap().to_owned(), r))
        .collect();
    for id in ["o1", "o2"] {
        let answer: Value = serde_json::from_str(said[id]["answer"].as_str().unwrap()).unwrap();
        assert_eq!((answer, &said[id]["status"]), (order(id), &json!("accepted")));
    }
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_while_the_registry_is_away_its_kinds_wait_and_the_others_go_on() {
    let registry = Registry::start().await;
    registry.is(Mood::Down);
    let mut stage = set(&registry, |_| Reply::json(good())).await;
    knows(&registry, &stage, 7, "orders.created", &order_schema());
    stage.start().await;
    let orders: Vec<String> = (0..40).map(|n| format!("o{n}")).collect();
    put(&stage, "orders.created", &orders.iter().map(|id| order_bytes(id)).collect::<Vec<_>>()).await;
    let api = stage.api.clone();
    eventually("the topic is held, and it is said why", SOON, || async {
        let (_, status) = api.get("/v1/status").await.ok()?;
        let held = status["held"].as_array()?.iter().any(|h| h["by"] == "no-schema");
        // Whenever it is asked again, that is what is said for a moment.
        let words = status["sentence"].as_str()?;
        (held && words.contains("order") && words.contains("the registry answers 503")).then_some(())
    })
    .await;
    // More of them than tasks at once: had each taken a place, nobody would get one.
    for n in 0..12 {
        stage.api.submit("copy", &format!("c{n}"), json!({ "text": "x" })).await;
        stage.api.until("copy", &format!("c{n}"), "done").await;
    }
    assert_eq!(stage.api.task("order", "o0").await, None, "nobody knows yet whose record it is");
    assert!(stage.api.is_ready().await);
    stage.kill();
    stage.start().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    registry.is(Mood::Well);
    for id in &orders {
        let api = stage.api.clone();
        eventually(&format!("{id} is done"), BACK, || async {
            api.task("order", id).await.filter(|t| t["state"] == "done" && t["outcome"] == "result")
        })
        .await;
    }
    let (_, status) = stage.api.get("/v1/status").await.unwrap();
    assert_eq!(status["held"], json!([]), "{status}");
    let rest = stage.rest();
    assert_eq!(rest.all("dead-letters").await.len(), 0);
    assert_eq!((rest.all("labelled").await.len(), rest.all("results").await.len()), (40, 12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p2_avro_that_cannot_be_read_is_a_dead_letter_with_its_bytes_and_is_a_task_once_it_can_be() {
    let registry = Registry::start().await;
    let mut stage = set(&registry, |_| Reply::json(good())).await;
    knows(&registry, &stage, 7, "orders.created", &order_schema());
    let whole = order_bytes("o1");
    let late = written(9, &order_schema(), &order("late"));
    let poison: Vec<(Vec<u8>, &str)> = vec![
        (late.clone(), "TG-schema-unknown"),
        (whole[..whole.len() - 1].to_vec(), "TG-malformed"),
        ([&whole[..], &[0]].concat(), "TG-malformed"),
        (whole[..3].to_vec(), "TG-malformed"),
        (order("json").to_string().into_bytes(), "TG-malformed"),
        (vec![], "TG-malformed"),
    ];
    let rest = stage.place.open();
    let keyed: crate::stage::Named<'_> = &[("idempotency-key", "late")];
    let records: Vec<_> = poison.iter().map(|(value, _)| (&value[..], keyed)).collect();
    append(&rest, "orders.created", &records).await;
    let sent = rest.all("orders.created").await;
    rest.close().await;
    stage.start().await;
    dead_letters(&stage, poison.len()).await;
    // Its schema is registered after all; the registry's word of before is believed for half a minute.
    knows(&registry, &stage, 9, "orders.created", &order_schema());
    let api = stage.api.clone();
    let ask = json!({ "reason": "TG-schema-unknown" });
    eventually("it is sent again", Duration::from_secs(60), || async {
        let (_, told) = api.post("/v1/dead-letters/redrive", &ask).await.ok()?;
        (told["redriven"] == 1).then_some(())
    })
    .await;
    let task = stage.api.until("order", "late", "done").await;
    assert_eq!((&task["outcome"], &task["result"]["answer"]), (&json!("result"), &order("late")), "{task}");
    // Its producer sends it once more: the same task, not another payload under its key.
    put(&stage, "orders.created", &[late]).await;
    put(&stage, "orders.created", &[order_bytes("last")]).await;
    stage.api.until("order", "last", "done").await;
    let rest = stage.rest();
    let letters = rest.all("dead-letters").await;
    let letters: BTreeMap<_, _> =
        letters.iter().map(|r| (r.headers.text("tidegate-source").unwrap().to_owned(), r)).collect();
    assert_eq!(letters.len(), poison.len());
    for (original, (bytes, reason)) in sent.iter().zip(&poison) {
        let letter = letters[&original.position.to_string()];
        assert_eq!(added(letter)["tidegate-reason"], *reason, "{:?}", added(letter)["tidegate-detail"]);
        assert_eq!(letter.value.as_deref(), Some(&bytes[..]));
    }
    assert_eq!(rest.all("labelled").await.len(), 2);
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p3_a_ticket_in_avro_waits_out_an_outage_and_a_kill_and_a_person_and_its_result_is_avro() {
    let registry = Registry::start().await;
    let ticket_schema =
        json!({ "type": "record", "name": "Ticket", "fields": [{ "name": "text", "type": "string" }] });
    let mut stage = set(&registry, |_| Reply::down()).await;
    knows(&registry, &stage, 5, "tasks.ticket", &ticket_schema);
    stage.start().await;
    let ticket = json!({ "text": "the \u{e9}xport button does nothing" });
    stage.api.submit("ticket", "t1", ticket.clone()).await;
    let api = stage.api.clone();
    eventually("it is parked", BACK, || async {
        api.task("ticket", "t1").await.filter(|t| t["state"] == "waiting-until")
    })
    .await;
    stage.kill();
    let unsure = json!({ "category": "bug", "order_id": null, "confidence": 0.2 });
    stage.provider.now(move |_| Reply::json(unsure.clone()));
    stage.start().await;
    let item = stage.api.item("ticket", "t1").await;
    assert_eq!(item["payload"], ticket);
    let words = stage.provider.asked().last().unwrap().words();
    assert!(words.contains("\u{e9}xport button"), "the model sees what the datum says: {words}");
    stage.kill();
    stage.start().await;
    let (status, body) =
        stage.api.decide(item["id"].as_str().unwrap(), "approve", json!({ "by": "ada" })).await;
    assert_eq!(status, 200, "{body}");
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["result"]["reviewed"]["by"], "ada", "{task}");
    // The same again: known, by the payload that both mean.
    let (status, _) = stage.api.submit("ticket", "t1", ticket).await;
    assert_eq!(status, 200);
    let rest = stage.rest();
    let sent = rest.all("tasks.ticket").await;
    let parked = rest.all("retry.5s").await;
    assert_eq!(sent[0].value.as_ref().unwrap()[..5], [0, 0, 0, 0, 5]);
    assert!(parked.iter().all(|token| token.value == sent[0].value), "a token keeps the bytes that came");
    let results = rest.all("labelled").await;
    assert_eq!(results.len(), 1);
    let result = consumed(&registry, &results[0]);
    assert_eq!((&result["status"], &result["reviewed"]["action"]), (&json!("approved"), &json!("approve")));
}

/// `ticket` reads and writes Avro; `memo` asks the same models, and knows nothing of it.
async fn two_kinds_that_ask(
    registry: &Registry,
    rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Stage {
    let (ticket, _) = KINDS.split_once("[tasks.copy]").unwrap();
    let memo = ticket.replace("[tasks.ticket]", "[tasks.memo]");
    let ticket = ticket.replace(
        "[tasks.ticket]",
        "[tasks.ticket]\nto = \"<prefix>labelled\"\nformat = \"avro\"\nresult_format = \"avro\"",
    );
    let rest =
        format!("[worker]\nin_flight = 2\n[registry]\nurl = \"{}\"\ntimeout = \"1s\"\n", registry.url());
    let schema =
        json!({ "type": "record", "name": "Ticket", "fields": [{ "name": "text", "type": "string" }] });
    let stage = Stage::set_with(&format!("{ticket}{memo}{rest}"), rule).await;
    knows(registry, &stage, 5, "tasks.ticket", &schema);
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p7_parked_tasks_that_wait_for_their_schema_keep_no_parked_task_of_another_kind_waiting() {
    let registry = Registry::start().await;
    let mut stage = two_kinds_that_ask(&registry, |_| Reply::down()).await;
    stage.start().await;
    let text = json!({ "text": "the export button does nothing" });
    let tickets = ["t1", "t2", "t3"];
    for ticket in tickets {
        stage.api.submit("ticket", ticket, text.clone()).await;
    }
    for ticket in tickets {
        stage.api.until("ticket", ticket, "waiting-until").await;
    }
    stage.kill();
    registry.is(Mood::Down);
    let before = registry.asked().len();
    stage.start().await;
    // Their time has come, there are more of them than tasks at once, and nobody can read them.
    eventually("the registry is asked", SOON, || async {
        registry.asked()[before..].iter().any(|asked| asked == "GET /schemas/ids/5").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.api.submit("memo", "m1", text).await;
    stage.api.until("memo", "m1", "waiting-until").await;
    stage.provider.now(|_| Reply::json(good()));
    let memo = stage.api.until("memo", "m1", "done").await;
    assert_eq!(memo["outcome"], "result", "{memo}");
    for ticket in tickets {
        assert_ne!(stage.api.task("ticket", ticket).await.unwrap()["state"], "done");
    }
    registry.is(Mood::Well);
    for ticket in tickets {
        let task = stage.api.until("ticket", ticket, "done").await;
        assert_eq!(task["outcome"], "result", "{task}");
    }
    let rest = stage.rest();
    assert_eq!((rest.all("labelled").await.len(), rest.all("results").await.len()), (3, 1));
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p1_a_decision_that_waits_for_its_schema_keeps_none_on_another_item_waiting_and_stays_the_first_on_its_own()
 {
    let registry = Registry::start().await;
    let unsure = json!({ "category": "bug", "order_id": null, "confidence": 0.2 });
    let mut stage = two_kinds_that_ask(&registry, move |_| Reply::json(unsure.clone())).await;
    stage.start().await;
    let text = json!({ "text": "the export button does nothing" });
    stage.api.submit("ticket", "t1", text.clone()).await;
    stage.api.submit("memo", "m1", text).await;
    let id = |item: Value| item["id"].as_str().unwrap().to_owned();
    let (ticket, memo) = (id(stage.api.item("ticket", "t1").await), id(stage.api.item("memo", "m1").await));
    stage.kill();
    // What was known of schemas is forgotten.
    registry.is(Mood::Slow(Duration::from_secs(5)));
    stage.start().await;
    let decide = |item: &str, action: &'static str, by: &str| {
        let (api, item) = (stage.api.clone(), item.to_owned());
        let body = json!({ "by": by, "reason": "as a test asks for" });
        async move { api.decide(&item, action, body).await }
    };
    let pending = async |item: &str, action, by| {
        let told = decide(item, action, by).await;
        assert_eq!((told.0, &told.1["ruling"]), (202, &json!("pending")), "{}", told.1);
    };
    let at_once = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let told = decide(&memo, "approve", "ada").await;
        assert_eq!(told.0, 200, "{}", told.1);
    };
    let second = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pending(&ticket, "reject", "ben").await;
    };
    tokio::join!(pending(&ticket, "approve", "ada"), second, at_once);
    registry.is(Mood::Well);
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(
        (&task["result"]["status"], &task["result"]["reviewed"]["by"]),
        (&json!("approved"), &json!("ada"))
    );
    let (api, decisions) = (stage.api.clone(), stage.place.topic("review.decisions"));
    eventually("both are ruled on", BACK, || async {
        let (_, status) = api.get("/v1/status").await.ok()?;
        let topics = status["topics"].as_array()?;
        let decisions = topics.iter().find(|t| t["topic"] == decisions.as_str())?;
        (decisions["open"] == 0).then_some(())
    })
    .await;
    let rest = stage.rest();
    let ruled: Vec<Value> = rest.all("review.outcomes").await.iter().map(value).collect();
    let mut verdicts: Vec<&str> = ruled.iter().map(|r| r["verdict"].as_str().unwrap()).collect();
    verdicts.sort_unstable();
    assert_eq!(verdicts, ["counts", "counts", "superseded"], "{ruled:?}");
    assert_eq!((rest.all("labelled").await.len(), rest.all("results").await.len()), (1, 1));
    assert_eq!(rest.open_records().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn json_that_is_sent_to_a_kind_of_avro_is_written_as_avro_or_refused_at_the_door() {
    let registry = Registry::start().await;
    let mut stage = set(&registry, |_| Reply::json(good())).await;
    stage.start().await;
    let (status, body) = stage.api.offer("order", "o1", order("o1"), json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("no-schema")), "{body}");
    registry.is(Mood::Down);
    let (status, body) = stage.api.offer("order", "o1", order("o1"), json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("registry-away")), "{body}");
    registry.is(Mood::Well);
    knows(&registry, &stage, 7, "orders.created", &order_schema());
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut brief = order("o1");
    brief.as_object_mut().unwrap().remove("note");
    let (status, body) = stage.api.offer("order", "o1", brief.clone(), json!({})).await;
    assert_eq!((status, &body["key"]), (202, &json!("o1")), "by the kind's rule: {body}");
    let (status, body) = stage.api.offer("order", "another", brief.clone(), json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("malformed")), "not by the rule: {body}");
    let task = stage.api.until("order", "o1", "done").await;
    assert_eq!(task["result"]["answer"], order("o1"), "{task}");
    for (payload, said) in [(order("o1"), 200), (brief, 200)] {
        let (status, body) = stage.api.offer("order", "o1", payload, json!({})).await;
        assert_eq!(status, said, "the same payload: {body}");
    }
    for (name, wrong) in
        [("total", json!("12.505")), ("placed", json!("soon")), ("id", json!(7)), ("more", json!(1))]
    {
        let mut payload = order("o2");
        payload[name] = wrong;
        let (status, body) = stage.api.offer("order", "o2", payload, json!({})).await;
        assert_eq!((status, &body["error"]["code"]), (422, &json!("input-refused")), "{body}");
    }
    let batch = [
        json!({ "kind": "order", "payload": order("o3") }),
        json!({ "kind": "order", "payload": {} }),
        json!({ "kind": "copy", "key": "c", "payload": { "text": "x" } }),
    ];
    let (status, body) = stage.api.post("/v1/tasks", &json!(batch)).await.unwrap();
    assert_eq!((status, &body["accepted"], &body["refused"]), (202, &json!(2), &json!(1)), "{body}");
    stage.api.until("order", "o3", "done").await;
    let rest = stage.rest();
    let sent = rest.all("orders.created").await;
    let values: Vec<_> = sent.iter().map(|r| r.value.clone().unwrap().to_vec()).collect();
    assert!(values.len() == 2 && values.contains(&order_bytes("o1")) && values.contains(&order_bytes("o3")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_a_registry_schemas_are_files_and_json_beside_them_stays_json() {
    let files = "[registry]\nschemas = { 7 = \"order.avsc\", 12 = \"tidegate:result:1\" }\n";
    let kinds = format!("{KINDS}{AVRO}{files}");
    let mut stage = Stage::set_with(&kinds, |_| Reply::json(good())).await;
    std::fs::write(stage.place.path("order.avsc"), order_schema().to_string()).unwrap();
    stage.start().await;
    put(&stage, "orders.created", &[order_bytes("o1"), written(8, &order_schema(), &order("o2"))]).await;
    let task = stage.api.until("order", "o1", "done").await;
    assert_eq!(task["result"]["answer"], order("o1"), "{task}");
    stage.api.submit("copy", "c1", json!({ "text": "x" })).await;
    stage.api.until("copy", "c1", "done").await;
    dead_letters(&stage, 1).await;
    let (status, body) = stage.api.offer("order", "ignored", order("o3"), json!({})).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("no-schema")), "{body}");
    let rest = stage.rest();
    let (avro, plain) = (rest.all("labelled").await, rest.all("results").await);
    assert_eq!((avro.len(), unframe(avro[0].value.as_ref().unwrap()).unwrap().0), (1, 12));
    assert_eq!((plain.len(), &value(&plain[0])["kind"]), (1, &json!("copy")));
    assert_eq!(added(&rest.all("dead-letters").await[0])["tidegate-reason"], "TG-schema-unknown");
}
