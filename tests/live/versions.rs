//! Row 25 of the crash table: two versions of the configuration share a group in a rolling upgrade, and the newer
//! one refuses what the older one has admitted. Its dead letter is the one outcome of that task.

use crate::fleet::{Fleet, SHARED, TAKEN_OVER, good, key_of};
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use serde_json::json;
use std::collections::BTreeMap;
use tokio::sync::watch;

const OLDER: &str = "input = { text = \"string\" }";
const NEWER: &str = "input = { text = \"string\", urgency = \"string\" }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_what_a_newer_version_refuses_of_what_an_older_one_has_admitted_has_one_outcome() {
    let (release, released) = watch::channel(false);
    let mut fleet = Fleet::new(move |_| Reply::Once(released.clone(), Box::new(good()))).await;
    fleet.names_its_members();
    fleet.place.apply(fleet.place.command().env("MEMBER", "0"));
    fleet.grow(SHARED as usize).await;
    // Dies once it has an answer in the ledger, and before anything of it is committed.
    let mut older = fleet.start_with(&[("TIDEGATE_CRASH_AT", "infer.stored")]).await;
    let sender = fleet.sender();
    let names: Vec<String> = (0..SHARED).map(|p| format!("k{p}")).collect();
    (0..SHARED).for_each(|p| sender.task_in(&names[p as usize], p));
    sender.flush();
    let under_way = || fleet.provider.under_way().len();
    eventually("the older one has admitted all", SOON, || async {
        (under_way() == names.len()).then_some(())
    })
    .await;
    assert_eq!(fleet.outcomes(), BTreeMap::new());

    // Both are there, and what has moved is refused in the middle of its call.
    fleet.configure(OLDER, NEWER);
    let mut newer = fleet.start().await;
    let moved = eventually("something has moved", SOON, || async {
        let outcomes = fleet.outcomes();
        (!outcomes.is_empty()).then_some(outcomes.len())
    })
    .await;
    assert!(older.process.ended().is_none() && moved < names.len(), "{moved}: {}", fleet.said());
    assert_eq!(fleet.provider.under_way().len(), names.len(), "the older one waits for its calls still");
    release.send_replace(true);
    let status = older.process.wait(SOON);
    let words = older.process.words();
    assert!(status.is_some() && words.contains("crash point infer.stored"), "{words}");

    let expected: BTreeMap<String, Vec<String>> =
        names.iter().map(|key| (key.clone(), vec!["TG-input-refused".to_owned()])).collect();
    eventually("each has its outcome", TAKEN_OVER, || async {
        (fleet.outcomes().len() == names.len()).then_some(())
    })
    .await;
    // Copies, which the newer one refuses as well, are silent: the key has its outcome.
    names.iter().for_each(|key| sender.task(key, 1));
    // What is in order for the newer one is done by it.
    sender.record(
        "new",
        Some(json!({ "text": "number new .", "urgency": "high" }).to_string().as_bytes()),
        &[("idempotency-key", b"new")],
    );
    sender.flush();
    eventually("every copy is complete", SOON, || async {
        (newer.api.metric("tidegate_duplicates_total").await >= names.len() as f64).then_some(())
    })
    .await;
    eventually("what comes new is done", SOON, || async { fleet.outcomes().get("new").cloned() }).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mut outcomes = fleet.outcomes();
    assert_eq!(outcomes.remove("new"), Some(vec!["accepted".to_owned()]));
    assert_eq!(outcomes, expected, "{}", fleet.said());
    for letter in fleet.records("dead-letters") {
        let key = letter.header("tidegate-key");
        let partition = key.trim_start_matches('k');
        let said = ["kind", "generation", "hop", "is-outcome"];
        let said = said.map(|name| letter.header(&format!("tidegate-{name}")));
        assert_eq!(said, ["ticket", "0", "0", "yes"], "the outcome of its key: {letter:?}");
        let lay = format!("{}/{partition}/", fleet.topic("tasks.ticket"));
        assert!(
            letter.header("tidegate-origin").contains(&lay),
            "of the record that was admitted: {letter:?}"
        );
        assert!(letter.header("tidegate-detail").contains("urgency"), "{letter:?}");
        assert_eq!(letter.json()["text"], format!("number {key} ."), "byte for byte");
    }
    // The older one has asked for each, once; the newer one for nothing but its own.
    let asked: Vec<(String, String)> =
        fleet.provider.asked().iter().map(|a| (a.asker.clone(), key_of(a))).collect();
    let mut once: Vec<(String, String)> = names.iter().map(|key| ("1".to_owned(), key.clone())).collect();
    once.push(("2".to_owned(), "new".to_owned()));
    once.sort();
    let mut asked = asked;
    asked.sort();
    assert_eq!(asked, once, "no call is made twice");
    assert!(newer.process.stop(SOON).success(), "{}", newer.process.words());
}
