//! Row 19 of the crash table: a call of the Kafka client does not come back although a broker is there. The process
//! notices it, says so and fails, so that a supervisor starts it anew; whoever comes next finishes its work.

use crate::fleet::{Fleet, Member, TAKEN_OVER, good, key_of, keys};
use crate::rig::cluster;
use crate::rig::eventually;
use crate::rig::process::says;
use crate::rig::script::SOON;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;
use std::collections::BTreeMap;

/// By itself, as one that failed.
async fn fails(member: &mut Member, point: &str, why: &str) {
    says(&member.process, &format!("hang point {point}"), SOON).await;
    let status = eventually(&format!("{point}: it ends"), SOON, || {
        let ended = member.process.ended();
        async move { ended }
    })
    .await;
    let words = member.process.words();
    assert_eq!(status.code(), Some(1), "{words}");
    for said in [
        &format!("the engine is done for why={why}"),
        "the engine has ended; start the process again, nothing is lost",
    ] {
        assert!(words.contains(said), "`{said}` in {words}");
    }
}

/// Of a partition of the results: the first record that readers of committed ones do not get yet, and the last of
/// all.
fn open_transaction(fleet: &Fleet) -> bool {
    let ends = |isolation: &str| -> Vec<i64> {
        let reader: BaseConsumer = fleet.config().set("isolation.level", isolation).create().unwrap();
        let topic = fleet.topic("results");
        (0..4).map(|at| reader.fetch_watermarks(&topic, at, SOON).unwrap().1).collect()
    };
    ends("read_committed") != ends("read_uncommitted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_a_commit_that_hangs_ends_its_process_and_the_next_one_publishes_once() {
    let mut fleet = Fleet::new(|_| good()).await;
    let mut first = fleet.start_with(&[("TIDEGATE_CRASH_AT", "transaction.hang")]).await;
    let names: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    fleet.send(&names.iter().map(String::as_str).collect::<Vec<_>>());
    says(&first.process, "hang point transaction.hang", SOON).await;
    assert!(open_transaction(&fleet), "it hangs in the middle of one");
    let why = "a call of the Kafka client has not come back although a broker is reached";
    fails(&mut first, "transaction.hang", why).await;
    assert_eq!(fleet.outcomes(), BTreeMap::new());
    let mut second = fleet.start().await;
    fleet.one_result_each(&keys(&names), TAKEN_OVER).await;
    let once: BTreeMap<String, usize> = names.iter().map(|key| (key.clone(), 1)).collect();
    assert_eq!((fleet.calls(), fleet.told()), (once.clone(), once), "stored answers are published");
    assert!(second.process.stop(SOON).success(), "{}", second.process.words());
}

/// One at a time, and a commit that does not end: a task that has its answer lets the next one ask, and that is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_as_many_tasks_as_run_may_wait_for_their_commit_beside_them_and_no_more() {
    let shared = cluster::servers();
    let mut fleet = Fleet::on(&shared.kafka, &shared.redis, "[worker]\nin_flight = 1\n", |_| good()).await;
    let mut first = fleet.start_with(&[("TIDEGATE_CRASH_AT", "transaction.hang")]).await;
    let names: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    fleet.send(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let why = "a call of the Kafka client has not come back although a broker is reached";
    fails(&mut first, "transaction.hang", why).await;
    let asked = keys(fleet.provider.asked().iter().map(key_of));
    assert_eq!(asked.len(), 2, "{asked:?}");
    let mut second = fleet.start().await;
    fleet.one_result_each(&keys(&names), TAKEN_OVER).await;
    assert!(fleet.calls().values().all(|n| *n == 1), "{:?}", fleet.calls());
    assert!(second.process.stop(SOON).success(), "{}", second.process.words());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_an_append_that_hangs_ends_its_process_and_what_is_sent_again_is_done_once() {
    let mut fleet = Fleet::new(|_| good()).await;
    let mut first = fleet.start_with(&[("TIDEGATE_CRASH_AT", "append.hang")]).await;
    let task = json!({ "kind": "ticket", "key": "k", "payload": { "text": "number k ." } });
    // What comes from the log is done all the same, meanwhile.
    fleet.send(&["other"]);
    let why = "a call of the Kafka client that appends has not come back although a broker is reached";
    let api = first.api.clone();
    let (answer, ()) = futures::join!(api.post("/v1/tasks", &task), fails(&mut first, "append.hang", why));
    assert!(
        answer.as_ref().map_or(true, |(status, _)| *status >= 500),
        "nobody was promised anything: {answer:?}"
    );
    fleet.one_result_each(&keys(["other"]), SOON).await;

    let mut second = fleet.start().await;
    let (status, said) = second.api.post("/v1/tasks", &task).await.unwrap();
    assert_eq!(status, 202, "{said}");
    fleet.one_result_each(&keys(["k", "other"]), TAKEN_OVER).await;
    assert_eq!(fleet.calls(), BTreeMap::from([("k".to_owned(), 1), ("other".to_owned(), 1)]));
    assert!(second.process.stop(SOON).success(), "{}", second.process.words());
}
