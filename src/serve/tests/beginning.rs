//! A process that has not read all it must know yet: nothing that is there is called missing.

use super::*;
use crate::settings::TopicNames;

#[tokio::test]
async fn p5_until_the_review_queue_is_read_the_process_is_not_ready_and_calls_no_open_item_missing() {
    let (memory, names) = (Memory::new(), TopicNames::new(""));
    let origin = position("tasks.copy/0/0");
    memory.complete(&origin);
    let mut waits = token("copy", "k", &origin, r#"{"text":"x"}"#);
    memory.claim(claim(&waits, 1, Phase::Waiting));
    waits.hop = 1;
    let item = item(&waits);
    memory.put(write::review_item(&names, &item, &waits, &Carry::default()));
    // The log gives the queue away only once this is lifted.
    *memory.blind.lock().unwrap() = Some(names.review_requests.clone());
    let server = Server::start_on(memory).await;
    let why = "the review queue is still being read: 0 of 1";
    let reads = async {
        while !server.get("/readyz").await.1["why"].as_str().unwrap().contains(why) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reads).await.unwrap();
    assert_eq!(server.get("/readyz").await.0, 503);
    let reject = format!("/v1/review/{}/reject", item.id);
    let decide = async || server.post(&reject, "application/json", r#"{"by":"ada","reason":"no"}"#).await;
    let begun = format!("/v1/review/{}", &item.id[..6]);
    let of_item = format!("/v1/review/{}", item.id);
    for path in [of_item.as_str(), &begun, "/v1/review", "/v1/tasks/copy/k", "/v1/tasks/k"] {
        let answer = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (503, &"2".parse().unwrap())
        );
        let told: Value = answer.json().await.unwrap();
        assert_eq!((&told["error"]["code"], &told["error"]["message"]), (&json!("unavailable"), &json!(why)));
    }
    // That the task is known, the ledger says.
    let again = json!({ "kind": "copy", "key": "k", "payload": { "text": "x" } });
    let (status, told) = server.offer(&again).await;
    let known = (&told["key"], &told["state"], &told["position"]);
    assert_eq!(
        (status, known),
        (200, (&json!("k"), &json!("waiting-review"), &json!("tasks.copy/0/0"))),
        "{told}"
    );
    let (status, told) = decide().await;
    assert_eq!((status, &told["error"]["message"]), (503, &json!(why)), "{told}");

    *server.memory.blind.lock().unwrap() = None;
    let ready = async {
        while server.get("/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ready).await.unwrap();
    for path in [&of_item, &begun] {
        assert_eq!(server.get(path).await.1["id"], json!(item.id), "{path}");
    }
    assert_eq!(server.get("/v1/tasks/copy/k").await.1["state"], "waiting-review");
    let (status, told) = server.get("/v1/review/0000").await;
    assert_eq!((status, &told["error"]["code"]), (404, &json!("not-found")), "{told}");
    server.end().await;
}
