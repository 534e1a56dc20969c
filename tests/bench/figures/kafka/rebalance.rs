//! kill -9 of one of four processes under load: until all partitions are served again, and how many outcomes
//! were delayed. With the broker's default time between two looks for abandoned transactions. Times are those
//! at which the broker appended an outcome; a reader of committed records may see it later, behind a
//! transaction that the process has left open.

use super::Cluster;
use super::fleet::{Fleet, PARTITIONS, feed};
use super::reckoning::Reckoning;
use crate::print;
use crate::rig::number;
use crate::rig::redis_server::ALWAYS;
use serde_json::json;
use std::time::Duration;
use tidegate::task::Timestamp;

/// An outcome that takes longer than this was delayed; how many did before the kill is printed beside it.
const LATE_MS: f64 = 2_000.0;

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
    let lasts = Duration::from_secs(u64::from(session) + 45);
    let tasks = usize::try_from(lasts.as_secs() * per_s).unwrap();
    let servers = cluster.kafka_at.clone();
    let feeding = tokio::task::spawn_blocking(move || feed(&servers, tasks, lasts));
    tokio::time::sleep(Duration::from_secs(15)).await;
    let killed = Timestamp::now().0;
    fleet.running[1].kill();
    feeding.await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    fleet.running.remove(1);
    fleet.places.remove(1);
    let servers = cluster.kafka_at.clone();
    let found = tokio::task::spawn_blocking(move || Reckoning::of(&servers)).await.unwrap();
    fleet.close();
    let both = found.sent.iter().filter_map(|(key, sent)| Some((*sent, found.outcomes.get(key)?.1)));
    let late: Vec<i64> = both.filter(|(sent, at)| (at - sent) as f64 > LATE_MS).map(|(_, at)| at).collect();
    let (before, after): (Vec<i64>, Vec<i64>) = late.into_iter().partition(|at| *at <= killed);
    // The last of them was served last.
    let last = after.iter().max().copied().expect("the process that was killed had work");
    print(
        "rebalance",
        json!({
            "engine": "kafka", "session_timeout_s": session, "partitions": PARTITIONS, "tasks_per_s": per_s, "tasks": tasks,
            "all_served_again_s": (last - killed) as f64 / 1_000.0, "outcomes_delayed": after.len(), "delayed_before_the_kill": before.len(), "delayed_over_s": LATE_MS / 1_000.0,
            "lost": found.lost().len(), "duplicated": found.duplicated().len(), "dead_letters": found.dead.len(),
        }),
    );
}
