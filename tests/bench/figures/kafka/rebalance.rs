//! kill -9 of one of four processes under load: until a reader of committed records sees an outcome again of every
//! partition, of a task that came after the kill; and how many outcomes were delayed. With the broker's default
//! time between two looks for abandoned transactions, behind which a reader may have to wait.

use super::fleet::{Fleet, PARTITIONS, feed};
use super::reckoning::Reckoning;
use super::{Cluster, bare, latency};
use crate::print;
use crate::rig::number;
use crate::rig::redis_server::ALWAYS;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Message as _;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate::task::Timestamp;

/// An outcome that takes longer than this was delayed; how many did before the kill is printed beside it.
const LATE_MS: i64 = 2_000;

pub(crate) async fn measure() {
    for (session, given) in
        [(10, ""), (6, "properties = { \"session.timeout.ms\" = 6000, \"heartbeat.interval.ms\" = 1000 }")]
    {
        one(session, given).await;
    }
}

async fn one(session: u32, given: &str) {
    let per_s = number("TIDEGATE_BENCH_RATE", 100);
    let cluster = Cluster::start(&ALWAYS);
    let mut fleet = Fleet::start(&cluster, 4, given, 256).await;
    // Before, as long as the session lasts, and after.
    let lasts = Duration::from_secs(u64::from(session) + 60);
    let tasks = usize::try_from(lasts.as_secs() * per_s).unwrap();
    let servers = cluster.kafka_at.clone();
    let (seen, over) = (latency::Times::default(), Arc::new(AtomicBool::new(false)));
    let (at, noting, until) = (servers.clone(), seen.clone(), over.clone());
    let watching = tokio::task::spawn_blocking(move || latency::watch(&at, "results", &noting, &until));
    let feeding = tokio::task::spawn_blocking(move || feed(&servers, tasks, lasts));
    // Partitions are shared out by then.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let busiest = busiest(&fleet).await;
    let servers = cluster.kafka_at.clone();
    let held_before = tokio::task::spawn_blocking(move || held(&servers)).await.unwrap();
    let killed = Timestamp::now().0;
    fleet.running[busiest].kill();
    feeding.await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    fleet.running.remove(busiest);
    fleet.places.remove(busiest);
    over.store(true, Ordering::SeqCst);
    watching.await.unwrap();
    let servers = cluster.kafka_at.clone();
    let held_after = tokio::task::spawn_blocking(move || held(&servers)).await.unwrap();
    let gone: Vec<u32> =
        held_before.iter().filter(|(id, _)| !held_after.contains_key(*id)).map(|(_, held)| *held).collect();
    let words = format!("before: {held_before:?}, after: {held_after:?}");
    assert!(gone.len() == 1 && gone[0] > 0, "one member is gone, and it had partitions; {words}");
    let clock = (Instant::now(), Timestamp::now().0);
    let servers = cluster.kafka_at.clone();
    let (found, homes) =
        tokio::task::spawn_blocking(move || (Reckoning::of(&servers), homes(&servers))).await.unwrap();
    fleet.close();
    let bad = [found.lost().len(), found.duplicated().len(), found.dead.len()];
    assert_eq!(bad, [0; 3], "lost, duplicated, dead");
    // By the clock of the broker's stamps.
    let seen = seen.lock().unwrap();
    let when = |key: &String| clock.1 - i64::try_from(clock.0.duration_since(seen[key]).as_millis()).unwrap();
    let (mut back, mut late, mut late_before) = (BTreeMap::new(), 0, 0);
    for (key, sent) in &found.sent {
        let at = when(key);
        if at - sent > LATE_MS {
            *(if at > killed { &mut late } else { &mut late_before }) += 1;
        }
        if let Some(home) = homes.get(key).filter(|_| *sent > killed) {
            let first = back.entry(*home).or_insert(at);
            *first = at.min(*first);
        }
    }
    assert_eq!(back.len(), PARTITIONS as usize, "each partition got tasks after the kill");
    let served = back.values().max().unwrap() - killed;
    print(
        "rebalance",
        json!({
            "engine": "kafka", "session_timeout_s": session, "partitions": PARTITIONS, "killed_had": gone[0], "tasks_per_s": per_s, "tasks": tasks,
            "all_served_again_s": served as f64 / 1_000.0, "outcomes_delayed": late, "delayed_before_the_kill": late_before,
            "delayed_over_s": LATE_MS / 1_000,
        }),
    );
}

/// Who brings the most tasks to an outcome meanwhile: it has partitions of theirs.
async fn busiest(fleet: &Fleet) -> usize {
    let mut done = [Vec::new(), Vec::new()];
    for counts in &mut done {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for place in &fleet.places {
            counts.push(place.api().metric("tidegate_outcomes_total").await);
        }
    }
    let more: Vec<f64> = done[1].iter().zip(&done[0]).map(|(now, before)| now - before).collect();
    let busiest = (0..more.len()).max_by(|a, b| more[*a].total_cmp(&more[*b])).unwrap();
    assert!(more[busiest] > 0.0, "nobody is at work: {more:?}");
    busiest
}

/// How many partitions of the tasks each member of the workers' group has, as the broker says.
fn held(servers: &str) -> BTreeMap<String, u32> {
    let client = bare::consumer(servers, "bare-reader");
    let groups = client.fetch_group_list(None, Duration::from_secs(30)).unwrap();
    let workers = groups.groups().iter().find(|group| group.name().ends_with(".worker")).unwrap();
    let members = workers.members().iter();
    members.map(|m| (m.id().to_owned(), tasks_in(m.assignment().unwrap_or_default()))).collect()
}

/// In Kafka's form of an assignment the number of partitions stands behind the name of their topic.
fn tasks_in(assignment: &[u8]) -> u32 {
    let name = b"tasks.ticket";
    let Some(at) = assignment.windows(name.len()).position(|part| part == name) else { return 0 };
    let count = &assignment[at + name.len()..][..4];
    u32::from_be_bytes(count.try_into().unwrap())
}

/// The partition of each key that was sent once: a copy elsewhere may have been the one that was done.
fn homes(servers: &str) -> BTreeMap<String, i32> {
    let (mut homes, mut twice) = (BTreeMap::new(), BTreeSet::new());
    bare::read_all(servers, "tasks.ticket", |message| {
        let key = bare::name_of(message);
        if homes.insert(key.clone(), message.partition()).is_some() {
            twice.insert(key);
        }
    });
    homes.retain(|key, _| !twice.contains(key));
    homes
}
