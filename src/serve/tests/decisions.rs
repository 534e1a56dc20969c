//! Which item a decision is for, and what its sender is told.

use super::*;
use crate::settings::TopicNames;

/// One open item, once the API shows it.
async fn asked(server: &Server, names: &TopicNames) -> ReviewItem {
    let mut waits = token("copy", "k", &position("tasks.copy/0/0"), "{}");
    waits.hop = 1;
    let item = item(&waits);
    server.memory.put(write::review_item(names, &item, &waits, &Carry::default()));
    let shown = async {
        while server.get(&format!("/v1/review/{}", item.id)).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), shown).await.unwrap();
    item
}

fn approved_by_ada(names: &TopicNames, item: &str) -> Output {
    Output {
        topic: names.review_outcomes.clone(),
        key: None,
        value: Some(Bytes::from(json!({ "v": 1, "item": item, "nonce": "n", "verdict": "counts", "decided_by": "ada", "decided_at": "2026-11-24T12:00:00Z", "action": "approve", "at": 1 }).to_string())),
        headers: Headers::default(),
        not_before: None,
    }
}

#[tokio::test]
async fn a_beginning_that_fits_an_open_and_a_decided_item_names_neither() {
    let server = Server::start().await;
    let names = TopicNames::new("");
    let item = asked(&server, &names).await;
    // Another item, decided before, whose id begins alike.
    let other = format!("{}{}", &item.id[..4], "z".repeat(16));
    server.memory.put(approved_by_ada(&names, &other));
    let (status, told) = server.get(&format!("/v1/review/{}", &item.id[..4])).await;
    assert_eq!((status, &told["error"]["code"]), (409, &json!("ambiguous")), "{told}");
    assert_eq!(told["error"]["items"], json!([item.id, other]), "both are named");
    let (_, shown) = server.get(&format!("/v1/review/{}", &item.id[..5])).await;
    assert_eq!(shown["id"], json!(item.id), "one more character tells them apart");
    server.end().await;
}

#[tokio::test]
async fn a_decision_that_is_written_is_never_called_undecided() {
    let server = Server::start().await;
    let names = TopicNames::new("");
    let item = asked(&server, &names).await;
    *server.memory.blind.lock().unwrap() = Some(names.review_outcomes.clone());
    let path = format!("/v1/review/{}/reject", item.id);
    let (status, told) = server.post(&path, "application/json", r#"{"by":"ada","reason":"no"}"#).await;
    assert_eq!((status, &told["ruling"]), (202, &json!("pending")), "{told}");
    assert_eq!(server.memory.all("review.decisions").len(), 1);
    server.end().await;
}

/// The item's end is in the log, and the queue knows.
async fn ended(server: &Server, names: &TopicNames, item: &ReviewItem) {
    server.memory.put(write::item_decided(names, &item.id));
    let left = async {
        while server.get("/v1/review").await.1["open"] != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), left).await.unwrap();
}

#[tokio::test]
async fn a_second_decision_between_tombstone_and_outcome_waits_and_says_who_decided() {
    let server = Server::start().await;
    let names = TopicNames::new("");
    let item = asked(&server, &names).await;
    // The one partition shows what was committed; the other not yet.
    ended(&server, &names, &item).await;
    let path = format!("/v1/review/{}/approve", item.id);
    let second = server.post(&path, "application/json", r#"{"by":"bob"}"#);
    let shown = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.memory.put(approved_by_ada(&names, &item.id));
    };
    let ((status, told), ()) = tokio::join!(second, shown);
    assert_eq!((status, &told["error"]["decided_by"]), (409, &json!("ada")), "{told}");
    server.end().await;
}

#[tokio::test]
async fn an_item_of_whose_outcome_nothing_is_read_is_called_decided_and_no_other_id_is() {
    let server = Server::start().await;
    let names = TopicNames::new("");
    let item = asked(&server, &names).await;
    ended(&server, &names, &item).await;
    let approve = async |id: &str| {
        let path = format!("/v1/review/{id}/approve");
        server.post(&path, "application/json", r#"{"by":"bob"}"#).await
    };
    let (status, told) = approve(&item.id).await;
    assert_eq!((status, &told["error"]["code"]), (409, &json!("already-decided")), "{told}");
    let (status, told) = server.get(&format!("/v1/review/{}", &item.id[..5])).await;
    assert_eq!((status, &told["error"]["code"]), (410, &json!("already-decided")), "{told}");
    // A decision is for a whole id.
    let (status, told) = approve(&item.id[..5]).await;
    assert_eq!(status, 404, "{told}");
    server.end().await;
}
