//! Four processes, a provider, and for minutes everything that breaks: then every key must have exactly one
//! outcome, and every call that was bought twice must be told of. Times are those at which the broker appended.

use super::Cluster;
use super::fleet::{Fleet, PARTITIONS, feed};
use super::power_cut::PowerCut;
use super::reckoning::{Hurt, Reckoning};
use crate::rig::kafka_broker::Broker;
use crate::rig::redis_server::{ALWAYS, EVERYSEC, Server};
use crate::rig::relay::Relay;
use crate::rig::{Dice, number};
use crate::{print, quantile};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate::task::Timestamp;

const PROCESSES: usize = 4;
/// Shorter than the default, so that a stopped process loses its partitions while it is stopped.
const SESSION: &str = "properties = { \"session.timeout.ms\" = 6000, \"heartbeat.interval.ms\" = 1000 }";

pub(crate) async fn measure() {
    for (sync, name) in [(&ALWAYS, "always"), (&EVERYSEC, "everysec")] {
        let only = std::env::var("TIDEGATE_BENCH_SYNC").unwrap_or_else(|_| "always,everysec".to_owned());
        if only.split(',').any(|one| one == name) {
            one(sync, name).await;
        }
    }
}

async fn one(sync: &[&str], name: &str) {
    let tasks = usize::try_from(number("TIDEGATE_BENCH_TASKS", 100_000)).unwrap();
    let lasts = Duration::from_secs(number("TIDEGATE_BENCH_SECONDS", 300));
    let seed = number("TIDEGATE_SEED", rand::random::<u32>().into());
    let (to_kafka, to_redis) = (Relay::new(), Relay::new());
    let broker = Broker::behind_address(&to_kafka.address());
    to_kafka.lead_to(&broker.own_address());
    let redis = Server::own(sync).expect("a Redis of our own");
    to_redis.lead_to(&redis.address);
    let (kafka_at, redis_at) = (to_kafka.address(), format!("redis://{}", to_redis.address()));
    let mut cluster = Cluster { broker, redis, kafka_at, redis_at };
    let mut fleet = Fleet::start(&cluster, PROCESSES, SESSION, 256).await;
    let servers = cluster.kafka_at.clone();
    let feeding = {
        let servers = servers.clone();
        tokio::task::spawn_blocking(move || feed(&servers, tasks, lasts))
    };
    // What `everysec` costs shows when the power goes, not when the process does.
    let cut = (name == "everysec").then(|| PowerCut::watch(cluster.redis.place()));
    let (done, hurts, cut_bytes) =
        break_things(&mut cluster, &mut fleet, (&to_kafka, &to_redis), cut, seed, lasts).await;
    feeding.await.unwrap();
    let drained = Instant::now();
    let found = drain(&servers, tasks).await;
    let drain_s = drained.elapsed().as_secs();
    // What comes too late would be a second outcome.
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(found);
    let (places, log) = fleet.close();
    let found = Reckoning::of(&servers);
    let fed = super::fleet::keys(tasks).map(|(key, _)| key).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(found.sent.len(), fed, "every key that was fed lies on the topic");
    let bought = found.bought(&log, &hurts);
    let waits = found.waits();
    print(
        "chaos",
        json!({
            "engine": "kafka", "appendfsync": name, "seed": seed, "power_cut_bytes": cut_bytes, "tasks": tasks, "partitions": PARTITIONS, "processes": PROCESSES,
            "broke": done, "keys": found.sent.len(), "lost": found.lost().len(), "duplicated": found.duplicated().len(),
            "dead_letters": found.dead.len(), "calls_repeated": bought.repeated, "calls_cut_off": bought.cut_off,
            "calls_repeated_untold": bought.untold.len(), "calls_repeated_unexplained": bought.unexplained.len(),
            "longest_pause_s": found.longest_pause(), "p50_ms": quantile(&waits, 0.5), "p99_ms": quantile(&waits, 0.99), "drain_s": drain_s,
        }),
    );
    let wrong = [
        ("lost", found.lost()),
        ("duplicated", found.duplicated()),
        ("dead", found.dead.iter().map(|(key, _)| key).collect()),
        ("repeated without a word", bought.untold.iter().collect()),
        ("repeated without a cause", bought.unexplained.iter().collect()),
    ];
    for (what, keys) in wrong.iter().filter(|(_, keys)| !keys.is_empty()) {
        eprintln!("{what}: {:?}", &keys[..keys.len().min(20)]);
    }
    for (key, reason) in found.dead.iter().take(20) {
        eprintln!("dead: {key} {reason}");
    }
    if wrong.iter().any(|(_, keys)| !keys.is_empty()) {
        // For whoever looks for the fault.
        for place in places {
            eprintln!("kept: {}", place.dir.keep().display());
        }
    }
    // A ledger that forgot may let copies through and calls be repeated; nothing else may.
    let forgave = if name == "everysec" {
        &["duplicated", "repeated without a word", "repeated without a cause"][..]
    } else {
        &[]
    };
    let broken = wrong
        .iter()
        .filter(|(what, keys)| !keys.is_empty() && !forgave.contains(what))
        .map(|(what, _)| *what);
    let broken: Vec<&str> = broken.collect();
    assert!(broken.is_empty(), "a promise is broken: {}", broken.join(", "));
}

/// One thing after the other, by the seed; everything runs again at the end. What was done, who was hurt, and how
/// many bytes of the ledger's log the power cuts took: where there are any and none took a byte, nothing was tried.
async fn break_things(
    cluster: &mut Cluster,
    fleet: &mut Fleet,
    (to_kafka, to_redis): (&Relay, &Relay),
    power: Option<PowerCut>,
    seed: u64,
    lasts: Duration,
) -> (BTreeMap<&'static str, u32>, Vec<Hurt>, Option<u64>) {
    let (began, mut dice) = (Instant::now(), Dice::new(seed));
    let mut cut_bytes = power.as_ref().map(|_| 0);
    let (mut done, mut hurts) = (BTreeMap::new(), Vec::new());
    let pause = |dice: &mut Dice, from: u64, to: u64| Duration::from_millis(from + dice.pick(to - from));
    while began.elapsed() < lasts {
        let counts: Vec<String> = done.iter().map(|(what, n)| format!("{what} {n}")).collect();
        eprintln!("{:>4} s {}", began.elapsed().as_secs(), counts.join(", "));
        tokio::time::sleep(pause(&mut dice, 3_000, 9_000)).await;
        let n = usize::try_from(dice.pick(PROCESSES as u64)).unwrap();
        let from = Timestamp::now().0;
        let what = match dice.pick(100) {
            0..35 => {
                fleet.running[n].kill();
                tokio::time::sleep(pause(&mut dice, 200, 3_000)).await;
                fleet.start_again(n);
                "process killed"
            }
            35..55 => {
                fleet.running[n].signal("STOP");
                tokio::time::sleep(pause(&mut dice, 7_000, 13_000)).await;
                fleet.running[n].signal("CONT");
                "process stopped"
            }
            55..65 => {
                cluster.broker.kill();
                tokio::time::sleep(pause(&mut dice, 100, 3_000)).await;
                tokio::task::block_in_place(|| cluster.broker.restart());
                "broker killed"
            }
            65..80 => {
                cluster.redis.kill();
                if let Some(power) = &power {
                    let gone = power.takes(pause(&mut dice, 200, 2_000));
                    cut_bytes = cut_bytes.map(|bytes| bytes + gone);
                    eprintln!("       the power cut took {gone} bytes of the ledger's log");
                }
                tokio::time::sleep(pause(&mut dice, 100, 3_000)).await;
                tokio::task::block_in_place(|| cluster.redis.start());
                "redis killed"
            }
            80..90 => {
                let lasts = pause(&mut dice, 0, 4_000);
                tokio::task::block_in_place(|| to_redis.cut(lasts));
                "redis cut"
            }
            _ => {
                let lasts = pause(&mut dice, 0, 4_000);
                tokio::task::block_in_place(|| to_kafka.cut(lasts));
                "kafka cut"
            }
        };
        let hurt = |process| Hurt { from, until: Timestamp::now().0, process };
        match what {
            "process killed" | "process stopped" => hurts.push(hurt(true)),
            "redis killed" | "redis cut" => hurts.push(hurt(false)),
            _ => {}
        }
        // One that has ended by itself is started by its supervisor.
        for n in 0..PROCESSES {
            if fleet.running[n].ended().is_some() {
                *done.entry("process ended by itself").or_insert(0) += 1;
                fleet.start_again(n);
                hurts.push(hurt(true));
            }
        }
        *done.entry(what).or_insert(0) += 1;
    }
    (done, hurts, cut_bytes)
}

/// Until each key has an outcome, or nothing has come for so long: a call's time, a lease, and some more.
async fn drain(servers: &str, tasks: usize) -> Reckoning {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let servers = servers.to_owned();
        let found = tokio::task::spawn_blocking(move || Reckoning::of(&servers)).await.unwrap();
        let n = found.outcomes.len();
        if found.lost().is_empty() || since.elapsed() > Duration::from_secs(150) {
            return found;
        }
        eprintln!("draining: {n} of {} keys ({tasks} records) have their outcome", found.sent.len());
        if n > last {
            (last, since) = (n, Instant::now());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
