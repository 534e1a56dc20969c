//! Row 20 of the crash table: source records vanish under open claims, because their topic was trimmed or made
//! anew while nobody worked. Each task that they began is buried once, as `orphaned`, and nothing else is.

use crate::fleet::{Fleet, Found, Member, PARTITIONS, TAKEN_OVER, good, key_of, keys};
use crate::rig::eventually;
use crate::rig::script::{Reply, SOON};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

const TOPIC: &str = "tasks.ticket";
const ORPHANED: &str = "TG-orphaned";

/// Killed in the middle of the calls for `heldP`, and with these done, in every partition P: below each of the
/// held ones, and between them. `late`: something comes that it has not read. By key, where each record lies.
async fn killed_in_mid_call(fleet: &mut Fleet, late: bool) -> (Member, BTreeMap<String, Found>) {
    let mut first = fleet.start().await;
    let sender = fleet.sender();
    let mut done = BTreeSet::new();
    for p in 0..PARTITIONS as i32 {
        for key in ["donePa", "heldPa", "donePb", "heldPb"].map(|key| key.replace('P', &p.to_string())) {
            sender.task_in(&key, p);
            if key.starts_with("done") {
                done.insert(key);
            }
        }
    }
    sender.flush();
    fleet.one_result_each(&done, SOON).await;
    let held = || fleet.provider.under_way().iter().map(key_of).collect::<BTreeSet<_>>();
    eventually("all the others are under way", SOON, || async { (held().len() == done.len()).then_some(()) })
        .await;
    assert!(held().iter().all(|key| key.starts_with("held")), "{:?}", held());
    // Complete, and not done: one waits for a person and one for its time.
    sender.task_in("doubt", 3);
    sender.flush();
    first.api.item("ticket", "doubt").await;
    sender.task_in("parked", 3);
    sender.flush();
    first.api.until("ticket", "parked", "waiting-until").await;
    first.process.kill();
    if late {
        (0..PARTITIONS as i32).for_each(|p| sender.task_in(&format!("late{p}"), p));
        sender.flush();
    }
    let lie = fleet.records(TOPIC).into_iter().map(|r| (r.header("idempotency-key").to_owned(), r));
    (first, lie.collect())
}

async fn fleet() -> Fleet {
    Fleet::new(|asked| match key_of(asked).as_str() {
        "doubt" => Reply::json(json!({ "category": "bug", "confidence": 0.4 })),
        "parked" => Reply::Fails(429, &[("retry-after", "15")], json!({ "error": { "message": "later" } })),
        key if key.starts_with("held") => Reply::Silent,
        _ => good(),
    })
    .await
}

/// Whoever comes next finishes what is there, and buries these, once.
async fn buries(fleet: &mut Fleet, lie: &BTreeMap<String, Found>, orphans: &BTreeSet<String>) -> Member {
    let there = lie.keys().filter(|key| *key != "doubt" && !orphans.contains(*key));
    let mut expected: BTreeMap<String, Vec<String>> =
        there.map(|key| (key.clone(), vec!["accepted".to_owned()])).collect();
    expected.extend(orphans.iter().map(|key| (key.clone(), vec![ORPHANED.to_owned()])));
    fleet.provider.now(|_| good());
    let second = fleet.start().await;
    eventually("each has its outcome", TAKEN_OVER, || async {
        (fleet.outcomes().len() >= expected.len()).then_some(())
    })
    .await;
    // Copies are silent, wherever they lie.
    let sender = fleet.sender();
    orphans.iter().for_each(|key| sender.task_in_each(key, PARTITIONS as i32));
    sender.flush();
    let copies = orphans.len() as f64 * f64::from(PARTITIONS);
    eventually("every copy is complete", SOON, || async {
        (second.api.metric("tidegate_duplicates_total").await >= copies).then_some(())
    })
    .await;
    assert_eq!(fleet.outcomes(), expected, "one outcome each; {}", fleet.said());
    assert_eq!(second.api.metric("tidegate_duplicates_total").await, copies);
    second.api.item("ticket", "doubt").await;

    let letters = fleet.records("dead-letters");
    assert_eq!(letters.len(), orphans.len());
    for letter in letters {
        let lay = &lie[letter.header("tidegate-key")];
        let source = format!("{}/{}/{}", fleet.topic(TOPIC), lay.partition, lay.offset);
        let said = ["source", "kind", "generation", "hop", "is-outcome", "tries"];
        let said = said.map(|name| letter.header(&format!("tidegate-{name}")));
        assert_eq!(said, [source.as_str(), "ticket", "0", "0", "yes", "0"], "{letter:?}");
        assert!(letter.header("tidegate-origin").contains(&source), "{letter:?}");
        assert!(letter.header("tidegate-detail").contains("is no longer in the topic"), "{letter:?}");
        assert_eq!(letter.value, None, "its payload is lost");
    }
    // Nobody is asked for a task whose record is gone; again for what was cut off, and owned up to.
    let calls = fleet.calls();
    let asked = |key: &str| calls.get(key).copied().unwrap_or_default();
    for key in lie.keys().filter(|key| *key != "parked") {
        let again = key.starts_with("held") && !orphans.contains(key);
        assert_eq!(asked(key), if again { 2 } else { 1 }, "{key}");
    }
    second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_task_whose_record_was_trimmed_under_its_open_claim_is_buried_once_and_nothing_else_is() {
    let mut fleet = fleet().await;
    let (_first, lie) = killed_in_mid_call(&mut fleet, true).await;
    // In two partitions one of the held ones stays; in the others what was not read yet is all there is.
    let mut cut = TopicPartitionList::new();
    let mut orphans = BTreeSet::new();
    let mut firsts = Vec::new();
    for p in 0..PARTITIONS as i32 {
        let stays = &lie[&if p < 2 { format!("held{p}b") } else { format!("late{p}") }];
        cut.add_partition_offset(&fleet.topic(TOPIC), p, Offset::Offset(stays.offset)).unwrap();
        let gone = lie.iter().filter(|(_, r)| r.partition == p && r.offset < stays.offset);
        orphans.extend(gone.map(|(key, _)| key.clone()).filter(|key| key.starts_with("held")));
        firsts.push((p, lie[&format!("held{p}a")].offset));
    }
    assert_eq!(orphans, keys(["held0a", "held1a", "held2a", "held2b", "held3a", "held3b"]));
    fleet.admin().delete_records(&cut, &AdminOptions::new()).await.unwrap();
    let mut second = buries(&mut fleet, &lie, &orphans).await;
    let words = second.process.words();
    for (p, first) in firsts {
        let said = words.lines().filter(|line| line.contains("no longer in the log"));
        let said: Vec<_> =
            said.filter(|line| line.contains(&format!("partition={p} first={first} "))).collect();
        assert_eq!(said.len(), 1, "told once, when it was assigned: {words}");
    }
    assert_eq!(fleet.told()["held0b"], 2, "{:?}", fleet.told());
    assert!(second.process.stop(SOON).success(), "{}", second.process.words());

    let mut third = fleet.start().await;
    fleet.send(&["last"]);
    eventually("it works", SOON, || async { fleet.outcomes().get("last").cloned() }).await;
    assert!(!third.process.words().contains("no longer in the log"), "it was told, and is over");
    assert_eq!(fleet.records("dead-letters").len(), orphans.len());
    assert!(third.process.stop(SOON).success(), "{}", third.process.words());
}

/// Where a broker deletes a topic it forgets the offsets that groups have committed for it, and nobody can say any
/// more what was complete: such claims stay open, for a person to see. Here they are there again, as where a
/// backup is restored; the same is found where a log was cut short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_task_whose_topic_was_made_anew_under_its_open_claim_is_buried_once_and_nothing_else_is() {
    let mut fleet = fleet().await;
    let (_first, lie) = killed_in_mid_call(&mut fleet, false).await;
    let topic = fleet.topic(TOPIC);
    let committed = fleet.committed("tidegate");
    assert_eq!(committed.len(), PARTITIONS as usize, "{committed:?}");
    let (admin, options) = (fleet.admin(), AdminOptions::new());
    admin.delete_topics(&[&topic], &options).await.unwrap().into_iter().for_each(|done| drop(done.unwrap()));
    let anew = NewTopic::new(&topic, PARTITIONS as i32, TopicReplication::Fixed(1));
    eventually("the topic is made anew", SOON, || async {
        let made = admin.create_topics([&anew], &options).await.unwrap();
        made.into_iter().all(|made| made.is_ok()).then_some(())
    })
    .await;
    eventually("the broker has forgotten them with the topic", SOON, || async {
        fleet.committed("tidegate").is_empty().then_some(())
    })
    .await;
    let offsets: Vec<_> =
        committed.iter().map(|(at, offset, beside)| (*at, *offset, beside.as_str())).collect();
    fleet.commit("tidegate", &offsets);
    let orphans = keys(lie.keys().filter(|key| key.starts_with("held")).cloned());
    let mut second = buries(&mut fleet, &lie, &orphans).await;
    let words = second.process.words();
    for (at, offset, _) in &committed {
        let said = format!("partition={at} committed={offset} end=0");
        let said = words.lines().filter(|line| line.contains("made anew") && line.contains(&said)).count();
        assert_eq!(said, 1, "told once, when it was assigned: {words}");
    }
    fleet.send(&["new"]);
    eventually("what comes new is done", SOON, || async { fleet.outcomes().get("new").cloned() }).await;
    assert!(second.process.stop(SOON).success(), "{}", second.process.words());
}
