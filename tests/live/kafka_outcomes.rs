//! Every key has one outcome over a real broker: while all goes well, when a member dies, when the
//! broker dies, and beside an offset that somebody else has committed.

use super::kafka_cluster::Cluster;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_every_key_has_one_result_whichever_member_takes_it() {
    let mut cluster = Cluster::start().await;
    let first = cluster.member();
    let mut keys: BTreeSet<String> = cluster.send(0, 100).await.into_keys().collect();
    // Joins in the middle: partitions move.
    let second = cluster.member();
    keys.extend(cluster.send(100, 200).await.into_keys());
    cluster.expect_one_each(&keys, Duration::from_secs(60)).await;
    first.leave().await;
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_what_a_member_leaves_when_it_dies_another_finishes() {
    let mut cluster = Cluster::start().await;
    let (first, second) = (cluster.member(), cluster.member());
    let mut sending = JoinSet::new();
    sending.spawn(cluster.sender().send(0, 200));
    results(&cluster, 50).await;
    first.kill();
    let mut keys: BTreeSet<String> = sending.join_next().await.unwrap().unwrap().into_keys().collect();
    // However fast they were: some come when nobody reads the dead one's partitions.
    keys.extend(cluster.send(200, 250).await.into_keys());
    cluster.expect_one_each(&keys, Duration::from_secs(90)).await;
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_broker_that_is_killed_and_comes_back_loses_and_repeats_nothing() {
    let mut cluster = Cluster::start().await;
    let (first, second) = (cluster.member(), cluster.member());
    let mut sending = JoinSet::new();
    sending.spawn(cluster.sender().send(0, 200));
    results(&cluster, 50).await;
    cluster.broker.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.broker.restart();
    let keys: BTreeSet<String> = sending.join_next().await.unwrap().unwrap().into_keys().collect();
    cluster.expect_one_each(&keys, Duration::from_secs(120)).await;
    first.leave().await;
    second.leave().await;
}

async fn results(cluster: &Cluster, least: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while cluster.results().len() < least {
        assert!(Instant::now() < until, "not {least} results in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_an_offset_that_somebody_else_has_committed_is_believed_and_nothing_above_it_is_lost() {
    let mut cluster = Cluster::start().await;
    let sent = cluster.send(0, 60).await;
    let other: BaseConsumer = cluster.broker.config().set("group.id", "live.worker").create().unwrap();
    let mut list = TopicPartitionList::new();
    for index in 0..2 {
        let mut part = list.add_partition("tasks.copy", index);
        part.set_offset(Offset::Offset(10)).unwrap();
        part.set_metadata("{\"program\":\"another one\"}");
    }
    other.commit(&list, CommitMode::Sync).unwrap();
    drop(other);
    // A key whose every record lies below was done by whoever has committed.
    let skipped = |lies: &Vec<(u32, u64)>| lies.iter().all(|(index, offset)| *index < 2 && *offset < 10);
    let keys: BTreeSet<String> =
        sent.iter().filter(|(_, lies)| !skipped(lies)).map(|(key, _)| key.clone()).collect();
    assert!(keys.len() < sent.len() && keys.len() > 20, "{} of {}", keys.len(), sent.len());
    let member = cluster.member();
    cluster.expect_one_each(&keys, Duration::from_secs(60)).await;
    member.leave().await;
}
