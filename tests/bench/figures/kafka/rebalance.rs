//! kill -9 of one of four processes under load: until a reader of committed records sees an outcome again of every
//! partition, of a task that came after the kill; and how many outcomes were delayed. With the broker's default
//! time between two looks for abandoned transactions, behind which a reader may have to wait.

use super::fleet::{Fleet, PARTITIONS, feed};
use super::reckoning::Reckoning;
use super::{Cluster, bare, latency};
use crate::print;
use crate::rig::number;
use crate::rig::redis_server::ALWAYS;
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
    tokio::time::sleep(Duration::from_secs(30)).await;
    let killed = Timestamp::now().0;
    fleet.running[1].kill();
    feeding.await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    fleet.running.remove(1);
    fleet.places.remove(1);
    over.store(true, Ordering::SeqCst);
    watching.await.unwrap();
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
            "engine": "kafka", "session_timeout_s": session, "partitions": PARTITIONS, "tasks_per_s": per_s, "tasks": tasks,
            "all_served_again_s": served as f64 / 1_000.0, "outcomes_delayed": late, "delayed_before_the_kill": late_before,
            "delayed_over_s": LATE_MS / 1_000,
        }),
    );
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
