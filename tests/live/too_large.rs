//! Row 24 of the crash table: a result, a review item and a dead letter that the broker finds too large for their
//! topics. Each task has one outcome, and what was handed in together with it is published.

use crate::fleet::{Fleet, TAKEN_OVER, key_of};
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use rand::RngExt as _;
use serde_json::json;
use std::collections::BTreeMap;
use tokio::sync::watch;

const KIND: &str = "answer = { category = [\"bug\", \"other\"], confidence = \"number\" }";
const WORDY: &str = "answer = { note = \"string\", confidence = \"number\" }";
/// Of a topic's records; above it there is more than any header or envelope takes.
const LIMIT: usize = 100_000;

/// Nothing that could be made smaller on its way.
fn noise(bytes: usize) -> String {
    let mut random = rand::rng();
    (0..bytes).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

fn says(note: &str, confidence: f64) -> Reply {
    Reply::json(json!({ "note": note, "confidence": confidence }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_an_outcome_that_its_topic_does_not_take_is_buried_smaller_and_its_neighbours_are_published()
{
    let (release, released) = watch::channel(false);
    let large = noise(2 * LIMIT);
    let mut fleet = Fleet::new(move |asked| {
        let reply = match key_of(asked).as_str() {
            "result" => says(&large, 0.97),
            "review" => says(&large, 0.4),
            "letter" => Reply::Fails(
                400,
                &[],
                json!({ "error": { "message": "not acceptable", "type": "invalid_request_error" } }),
            ),
            _ => says("short", 0.97),
        };
        // All at once, so that what is too large and what is not are handed in together.
        Reply::Once(released.clone(), Box::new(reply))
    })
    .await;
    fleet.configure(KIND, WORDY);
    let mut member = fleet.start().await;
    for topic in ["results", "review.requests", "dead-letters"] {
        fleet.alter(topic, ("max.message.bytes", &LIMIT.to_string())).await;
    }
    let neighbours: Vec<String> = (0..20).map(|n| format!("n{n}")).collect();
    let sender = fleet.sender();
    let payload = |key: &str| {
        let noise = if key == "letter" { noise(2 * LIMIT) } else { String::new() };
        json!({ "text": format!("number {key} . {noise}") }).to_string()
    };
    let large = ["result", "review", "letter"];
    let sent: BTreeMap<String, String> = neighbours
        .iter()
        .map(String::as_str)
        .chain(large)
        .map(|key| (key.to_owned(), payload(key)))
        .collect();
    for (key, value) in &sent {
        sender.record(key, Some(value.as_bytes()), &[("idempotency-key", key.as_bytes())]);
    }
    sender.flush();
    let records = fleet.records("tasks.ticket");
    let lie: BTreeMap<String, String> = records
        .iter()
        .map(|r| {
            let at = format!("{}/{}/{}", fleet.topic("tasks.ticket"), r.partition, r.offset);
            (r.header("idempotency-key").to_owned(), at)
        })
        .collect();
    let under_way = || fleet.provider.under_way().len();
    eventually("all are under way", SOON, || async { (under_way() == sent.len()).then_some(()) }).await;
    release.send_replace(true);

    let mut expected: BTreeMap<String, Vec<String>> =
        neighbours.iter().map(|key| (key.clone(), vec!["accepted".to_owned()])).collect();
    expected.extend(large.map(|key| (key.to_owned(), vec!["TG-outcome-too-large".to_owned()])));
    eventually("each has its outcome", TAKEN_OVER, || async {
        (fleet.outcomes().len() == expected.len()).then_some(())
    })
    .await;
    // Copies find it done; nobody is asked to review it.
    sent.iter().for_each(|(key, value)| {
        sender.record(&format!("{key}-2"), Some(value.as_bytes()), &[("idempotency-key", key.as_bytes())]);
    });
    sender.flush();
    eventually("every copy is complete", SOON, || async {
        (member.api.metric("tidegate_duplicates_total").await >= sent.len() as f64).then_some(())
    })
    .await;
    assert_eq!(fleet.outcomes(), expected, "{}", fleet.said());
    assert_eq!(fleet.records("review.requests").len(), 0, "no item");
    let (_, open) = member.api.get("/v1/review").await.unwrap();
    assert_eq!(open["items"], json!([]), "{open}");
    assert_eq!(fleet.calls(), sent.keys().map(|key| (key.clone(), 1)).collect(), "each was asked for once");

    for letter in fleet.records("dead-letters") {
        let key = letter.header("tidegate-key");
        let (value, whole) = (letter.value.clone().unwrap_or_default(), sent[key].as_bytes());
        // What is whole is not said to be smaller, so that it can be sent again.
        let cut = if whole.len() > 64 << 10 { whole.len().to_string() } else { String::new() };
        assert_eq!(letter.header("tidegate-original-bytes"), cut, "{key}");
        assert_eq!(
            value,
            whole[..whole.len().min(64 << 10)],
            "what fits of the original, byte for byte: {key}"
        );
        assert_eq!(letter.header("idempotency-key"), key, "its own headers");
        assert_eq!(letter.header("tidegate-source"), lie[key], "where the original lies: {key}");
        assert!(letter.header("tidegate-origin").contains(&lie[key]), "{letter:?}");
        let said = ["kind", "generation", "is-outcome", "tries"];
        let said = said.map(|name| letter.header(&format!("tidegate-{name}")));
        assert_eq!(said, ["ticket", "0", "yes", "1"], "{key}");
    }
    for key in large {
        let task = member.api.task("ticket", key).await.unwrap();
        assert_eq!((&task["state"], &task["outcome"]), (&json!("done"), &json!("dead-letter")), "{task}");
    }
    let told = member.process.words().matches("an outcome is too large for its topic").count();
    assert_eq!(told, large.len(), "the broker has refused each: {}", member.process.words());
    assert!(member.process.stop(SOON).success(), "{}", member.process.words());
}
