//! Records that cannot be a task, and tasks that come too late.

use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use crate::stage::{Named, Stage, added, all_valid, append, good, ticket};
use serde_json::json;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn p2_every_kind_of_poison_is_a_dead_letter_with_its_bytes_and_nothing_is_called() {
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    let long = "k".repeat(1025);
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(1_100_000));
    let key: &[(&str, &str)] = &[("idempotency-key", "p1")];
    let long_key = [("idempotency-key", long.as_str())];
    let poison: Vec<(&[u8], Named<'_>, &str)> = vec![
        (b"{\"text\": ", key, "TG-malformed"),
        (b"\xff\x00\xfe", &[], "TG-malformed"),
        (br#"{"text":"no key"}"#, &[], "TG-key-missing"),
        (br#"{"text":"empty key"}"#, &[("idempotency-key", "")], "TG-key-missing"),
        (br#"{"text":"long key"}"#, &long_key, "TG-key-too-long"),
        (br#"{"text":7}"#, &[("idempotency-key", "p2")], "TG-input-refused"),
        (br#"{"text":"when?"}"#, &[("idempotency-key", "p3"), ("deadline", "soon")], "TG-malformed"),
        (large.as_bytes(), &[("idempotency-key", "p4")], "TG-record-too-large"),
    ];
    // Written while larger records were allowed.
    let config = std::fs::read_to_string(stage.place.config()).unwrap();
    std::fs::write(stage.place.config(), config.replace("[engine]", "[engine]\nrecord_max = \"2MiB\""))
        .unwrap();
    let rest = stage.place.open();
    std::fs::write(stage.place.config(), config).unwrap();
    let records: Vec<_> = poison.iter().map(|(value, headers, _)| (*value, *headers)).collect();
    append(&rest, "tasks.ticket", &records).await;
    let sent = rest.all("tasks.ticket").await;
    rest.close().await;
    stage.start().await;
    let api = stage.api.clone();
    let wanted = poison.len();
    eventually("all are dead letters", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
        (letters.to_string().matches("TG-").count() >= wanted).then_some(())
    })
    .await;
    assert_eq!(stage.provider.asked().len(), 0);
    let rest = stage.rest();
    let letters: BTreeMap<String, _> = rest
        .all("dead-letters")
        .await
        .into_iter()
        .map(|r| (r.headers.text("tidegate-source").unwrap().to_owned(), r))
        .collect();
    assert_eq!(letters.len(), poison.len());
    for (original, (_, _, reason)) in sent.iter().zip(&poison) {
        let letter = &letters[&original.position.to_string()];
        assert_eq!(added(letter)["tidegate-reason"], *reason, "{}", original.position);
        assert_eq!(added(letter)["tidegate-is-outcome"], "no");
        assert_eq!((&letter.key, &letter.value), (&original.key, &original.value), "{reason}");
        for (name, value) in &original.headers.0 {
            assert_eq!(letter.headers.get(name), Some(&value[..]), "{reason}: header {name}");
        }
    }
    assert_eq!(rest.open_records().await, []);
    all_valid(&rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_that_poison_named_stays_free_for_a_task() {
    let mut stage = Stage::set(|_| Reply::json(good())).await;
    let rest = stage.place.open();
    append(&rest, "tasks.ticket", &[(b"{", &[("idempotency-key", "t1")])]).await;
    rest.close().await;
    stage.start().await;
    let api = stage.api.clone();
    eventually("it is a dead letter", SOON, || async {
        let (_, letters) = api.get("/v1/dead-letters").await.ok()?;
        letters.to_string().contains("TG-malformed").then_some(())
    })
    .await;
    stage.api.submit("ticket", "t1", ticket()).await;
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["outcome"], "result", "{task}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_task_whose_deadline_has_passed_is_a_dead_letter_and_nobody_is_asked() {
    let mut stage = Stage::open(|_| Reply::json(good())).await;
    let late = json!({ "deadline": "2001-01-01T00:00:00Z" });
    let (status, body) = stage.api.offer("ticket", "t1", ticket(), late).await;
    assert_eq!(status, 202, "{body}");
    let task = stage.api.until("ticket", "t1", "done").await;
    assert_eq!(task["outcome"], "dead-letter", "{task}");
    assert_eq!(stage.provider.asked().len(), 0);
    let rest = stage.rest();
    let letters = rest.all("dead-letters").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(added(&letters[0])["tidegate-reason"], "TG-deadline-passed");
    assert_eq!(added(&letters[0])["tidegate-is-outcome"], "yes");
}
