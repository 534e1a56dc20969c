//! What comes in and what goes out in other shapes than the default: topics that exist already,
//! CloudEvents, bare answers, tenants, identities.

use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use crate::stage::{Stage, added, good, value};
use serde_json::{Value, json};
use tidegate::task::Record;

/// `[tasks.NAME]` that asks, with whatever else.
fn kind(name: &str, more: &str) -> String {
    format!(
        "[tasks.{name}]\nmodels = [\"main\"]\nask = \"Classify this support ticket.\"\nreview = {{ start = \"line\" }}\n\
         answer = {{ category = [\"billing\", \"bug\", \"how-to\"], order_id = \"string?\", confidence = \"number\" }}\n{more}\n"
    )
}

/// Appends records as any producer on a shared log could: key of the record, value, headers.
async fn produce(stage: &Stage, topic: &str, records: &[(&str, Value, Value)]) {
    let records: Vec<Value> = records
        .iter()
        .map(|(key, value, headers)| json!({ "key": key, "value": value.to_string(), "headers": headers }))
        .collect();
    let body = json!({ "records": records });
    let (status, told) = stage.append(topic, &body).await.unwrap();
    assert_eq!(status, 202, "{told}");
}

/// The task as a look-up by kind, key and perhaps tenant tells it, once it is done.
async fn done(stage: &Stage, query: &str) -> Value {
    let api = stage.api.clone();
    eventually(&format!("{query} is done"), SOON, || async {
        let (status, task) = api.get(&format!("/v1/tasks?{query}")).await.ok()?;
        (status == 200 && task["state"] == "done").then_some(task)
    })
    .await
}

/// The results of a topic, by the key in their envelope.
fn keys(records: &[Record]) -> Vec<String> {
    let mut keys: Vec<String> =
        records.iter().map(|r| value(r)["key"].as_str().unwrap().to_owned()).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn plain_json_on_a_topic_that_exists_becomes_results_on_another() {
    let kinds = kind("label", "from = \"tickets.created\"\nkey = \"task.id\"\nto = \"tickets.labelled\"\n");
    let mut stage = Stage::set_with(&kinds, |_| Reply::json(good())).await;
    stage.start().await;
    // No header at all, and a record key that has nothing to do with the task's.
    let (one, two) = (json!({ "id": "T-1", "text": "a" }), json!({ "id": 42, "text": "b" }));
    let keyless = json!({ "text": "c" });
    let none = json!({});
    let records = [
        ("p1", one.clone(), none.clone()),
        ("p2", two, none.clone()),
        ("p1", one, none.clone()),
        ("p3", keyless, none),
    ];
    produce(&stage, "tickets.created", &records).await;
    for key in ["T-1", "42"] {
        let task = done(&stage, &format!("kind=label&key={key}")).await;
        assert_eq!((&task["outcome"], &task["result"]["answer"]), (&json!("result"), &good()), "{task}");
    }
    let api = stage.api.clone();
    eventually("the one without an id is a dead letter", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters?reason=key-missing").await.ok()?;
        (letters["dead_letters"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let rest = stage.rest();
    let labelled = rest.all("tickets.labelled").await;
    assert_eq!(keys(&labelled), ["42", "T-1"]);
    let t1 = labelled.iter().find(|r| value(r)["key"] == "T-1").unwrap();
    assert_eq!(t1.key.as_deref(), Some(&b"p1"[..]), "under the task's own record key");
    assert_eq!(rest.all("results").await.len(), 0);
    assert_eq!(rest.open_records().await, []);
    assert_eq!(stage.provider.asked().len(), 2, "the copy asks nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn cloud_events_share_a_topic_by_their_type_and_are_known_by_source_and_id() {
    // A topic that exists needs a key rule; on a kind's own topic source and id are the key by default.
    let rule = "headers['ce_source'] + '#' + headers['ce_id']";
    let shared =
        |name: &str| kind(name, &format!("from = \"events\"\ntype = \"{name}.created\"\nkey = \"{rule}\"\n"));
    let kinds = format!("{}{}{}", shared("ticket"), shared("order"), kind("own", ""));
    let mut stage = Stage::set_with(&kinds, |_| Reply::json(good())).await;
    stage.start().await;
    let event = |kind: &str, id: &str| json!({ "ce_specversion": "1.0", "ce_type": kind, "ce_source": "/shop", "ce_id": id });
    let records = [
        ("p", json!({ "text": "a" }), event("ticket.created", "1")),
        ("p", json!({ "text": "a" }), event("ticket.created", "1")),
        // The same id under another type is another kind's task.
        ("p", json!({ "text": "a" }), event("order.created", "1")),
        ("p", json!({ "text": "a" }), event("invoice.created", "1")),
        ("p", json!({ "text": "a" }), json!({})),
    ];
    produce(&stage, "events", &records).await;
    let own = ("p", json!({ "text": "a" }), event("anything", "1"));
    produce(&stage, "tasks.own", &[own.clone(), own]).await;
    for kind in ["ticket", "order", "own"] {
        let task = done(&stage, &format!("kind={kind}&key=%2Fshop%231")).await;
        assert_eq!((&task["kind"], &task["outcome"]), (&json!(kind), &json!("result")), "{task}");
    }
    let api = stage.api.clone();
    eventually("unknown types are dead letters", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters?reason=kind-unknown").await.ok()?;
        (letters["dead_letters"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let rest = stage.rest();
    let results = rest.all("results").await;
    let mut kinds: Vec<Value> = results.iter().map(|r| value(r)["kind"].clone()).collect();
    kinds.sort_unstable_by_key(Value::to_string);
    assert_eq!(kinds, ["order", "own", "ticket"]);
    assert_eq!(keys(&results), ["/shop#1", "/shop#1", "/shop#1"]);
    let mut sources: Vec<String> = rest
        .all("dead-letters")
        .await
        .iter()
        .map(|r| added(r)["tidegate-source"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
        .collect();
    sources.sort_unstable();
    assert_eq!(sources, ["3", "4"], "the records that no kind reads");
    assert_eq!(stage.provider.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_on_conflict_ignore_another_payload_under_a_known_key_leaves_no_trace() {
    let mut stage =
        Stage::set_with(&kind("ticket", "on_conflict = \"ignore\""), |_| Reply::json(good())).await;
    stage.start().await;
    let key = json!({ "idempotency-key": "t1" });
    produce(&stage, "tasks.ticket", &[("p", json!({ "text": "one" }), key.clone())]).await;
    done(&stage, "kind=ticket&key=t1").await;
    produce(&stage, "tasks.ticket", &[("p", json!({ "text": "something else" }), key)]).await;
    let api = stage.api.clone();
    eventually("it is counted as a duplicate", SOON, || async {
        (api.metric("tidegate_duplicates_total").await >= 1.0).then_some(())
    })
    .await;
    let (status, told) = stage.api.offer("ticket", "t1", json!({ "text": "a third" }), json!({})).await;
    assert_eq!((status, &told["state"]), (200, &json!("done")), "over HTTP too: {told}");
    let rest = stage.rest();
    let results = rest.all("results").await;
    assert_eq!((results.len(), rest.all("dead-letters").await.len()), (1, 0));
    assert_eq!(rest.open_records().await, []);
    assert_eq!(stage.provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn fields_that_name_an_identity_decide_what_is_the_same_task() {
    let mut stage = Stage::set_with(&kind("ticket", "identity = [\"text\"]"), |_| Reply::json(good())).await;
    stage.start().await;
    let key = json!({ "idempotency-key": "t1" });
    let sent = |text: &str, at: u64| ("p", json!({ "text": text, "sent_at": at }), key.clone());
    produce(&stage, "tasks.ticket", &[sent("one", 1)]).await;
    done(&stage, "kind=ticket&key=t1").await;
    produce(&stage, "tasks.ticket", &[sent("one", 2), sent("two", 3)]).await;
    let api = stage.api.clone();
    eventually("another text is a conflict", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters?reason=key-conflict").await.ok()?;
        (letters["dead_letters"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let rest = stage.rest();
    assert_eq!(rest.all("results").await.len(), 1, "another time of sending is not another task");
    let letters = rest.all("dead-letters").await;
    assert_eq!(letters.iter().map(|l| value(l)["text"].clone()).collect::<Vec<_>>(), ["two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_bare_answer_is_the_records_value_and_look_ups_still_tell_the_rest() {
    let doubtful = json!({ "category": "bug", "order_id": null, "confidence": 0.5 });
    let said = doubtful.clone();
    let mut stage = Stage::set_with(&kind("ticket", "shape = \"answer\""), move |asked| {
        Reply::json(if asked.words().contains("doubtful") { said.clone() } else { good() })
    })
    .await;
    stage.start().await;
    stage.api.submit("ticket", "t1", json!({ "text": "a" })).await;
    stage.api.submit("ticket", "t2", json!({ "text": "something doubtful" })).await;
    let item = stage.api.item("ticket", "t2").await;
    let (status, told) =
        stage.api.decide(item["id"].as_str().unwrap(), "approve", json!({ "by": "ada" })).await;
    assert_eq!(status, 200, "{told}");
    let task = stage.api.until("ticket", "t1", "done").await;
    let result = &task["result"];
    assert_eq!(
        (&result["answer"], &result["status"], &result["key"]),
        (&good(), &json!("accepted"), &json!("t1"))
    );
    let task = stage.api.until("ticket", "t2", "done").await;
    let result = &task["result"];
    assert_eq!((&result["answer"], &result["reviewed"]["by"]), (&doubtful, &json!("ada")), "{task}");
    let rest = stage.rest();
    let results = rest.all("results").await;
    assert_eq!(results.len(), 2);
    for (key, answer, status) in [("t1", good(), "accepted"), ("t2", doubtful, "approved")] {
        let record = results.iter().find(|r| r.key.as_deref() == Some(key.as_bytes())).unwrap();
        assert_eq!(value(record), answer, "the answer and nothing else");
        let headers = added(record);
        assert_eq!((&headers["tidegate-key"], &headers["tidegate-status"]), (&json!(key), &json!(status)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_tenants_with_the_same_key_are_two_tasks() {
    let mut stage = Stage::set_with(&kind("ticket", ""), |_| Reply::json(good())).await;
    stage.start().await;
    let of = |tenant: &str| json!({ "idempotency-key": "1", "tenant": tenant });
    let records = [
        ("p", json!({ "text": "of acme" }), of("acme")),
        ("p", json!({ "text": "of bolt" }), of("bolt")),
        ("p", json!({ "text": "of acme" }), of("acme")),
        ("p", json!({ "text": "of nobody" }), json!({ "idempotency-key": "1" })),
    ];
    produce(&stage, "tasks.ticket", &records).await;
    for tenant in ["acme", "bolt"] {
        let task = done(&stage, &format!("kind=ticket&key=1&tenant={tenant}")).await;
        assert_eq!((&task["tenant"], &task["result"]["tenant"]), (&json!(tenant), &json!(tenant)), "{task}");
    }
    let task = done(&stage, "kind=ticket&key=1").await;
    assert_eq!(task["tenant"], Value::Null);
    let rest = stage.rest();
    let results = rest.all("results").await;
    let mut tenants: Vec<Value> = results.iter().map(|r| value(r)["tenant"].clone()).collect();
    tenants.sort_unstable_by_key(Value::to_string);
    assert_eq!(tenants, [json!("acme"), json!("bolt"), Value::Null]);
    assert_eq!(rest.all("dead-letters").await.len(), 0);
    assert_eq!(stage.provider.asked().len(), 3, "the copy asks nobody");
}
