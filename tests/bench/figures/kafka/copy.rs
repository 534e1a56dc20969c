//! How many tasks of a kind without steps pass in a second on Kafka, as a share of the bare loop.

use super::{Cluster, bare, load, opened};
use crate::machine::cpu_seconds;
use crate::print;
use crate::rig::number;
use crate::rig::redis_server::ALWAYS;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::consume::Kinds;
use tidegate::engine::distributed::committer::WORTH;
use tidegate::infer::Models;
use tidegate::task::Topic;
use tidegate::worker::Worker;
use tokio_util::sync::CancellationToken;

const ENGINE: &str = "partitions = 6";
const PARTITIONS: f64 = 6.0;

fn kind(dedupe: bool, name: &str) -> String {
    let identity = if dedupe { "" } else { "dedupe = false\n" };
    format!("[tasks.{name}]\n{identity}[worker]\nin_flight = 4096\n[log]\nlevel = \"warn\"\n")
}

/// 1 KiB in all.
fn payload(n: usize) -> String {
    let head = format!("{{\"n\":{n},\"text\":\"");
    format!("{head}{}\"}}", "a".repeat(1024 - head.len() - 2))
}

pub(crate) async fn measure() {
    let records = usize::try_from(number("TIDEGATE_BENCH_TASKS", 100_000)).unwrap();
    let cluster = Cluster::start(&ALWAYS);
    let at = cluster.kafka_at.clone();
    // The first is not counted: a broker that has just been started compiles itself meanwhile.
    let places = [("warm", true), ("ledger", true), ("plain", false)]
        .map(|(name, dedupe)| (name, cluster.place(&kind(dedupe, name), ENGINE)));
    for (name, place) in &places {
        cluster.apply(place);
        bare::fill(&at, &format!("tasks.{name}"), (0..records).map(|n| (format!("k{n}"), payload(n))));
    }
    let (mut through_s, mut paced_s) = (Vec::new(), f64::MAX);
    for (name, place) in &places {
        let ended = transactions(place).await;
        let pids = [std::process::id(), cluster.broker.id(), cluster.redis.id()];
        let took = through(place, name, pids).await;
        let mut came = 0;
        bare::read_all(&at, "results", |_| came += 1);
        assert_eq!(came, records * (through_s.len() + 1), "each task has its result");
        let each = records as f64 / (transactions(place).await - ended - records as f64 / PARTITIONS);
        through_s.push((*name, took, each));
        if *name == "warm" {
            // Once with commits as large as the engine's are, and once, last of all, as large as they may be: the
            // faster one counts.
            paced_s = bare_copy(&at, "review.outcomes", records, WORTH).await;
        }
    }
    let before = cpu_seconds(cluster.broker.id());
    let bare_s = bare_copy(&at, "dead-letters", records, usize::MAX).await;
    let bare_broker_cpu = ((cpu_seconds(cluster.broker.id()) - before) * 10.0).round() / 10.0;
    let bare_rate = records as f64 / bare_s.min(paced_s);
    let mut figures = json!({ "engine": "kafka", "records": records, "bare_per_s": bare_rate.round(), "bare_small_commits_per_s": (records as f64 / paced_s).round(), "bare_broker_cpu_s": bare_broker_cpu });
    for (name, (seconds, cpu), each) in through_s.into_iter().skip(1) {
        let rate = records as f64 / seconds;
        let ratio = (rate / bare_rate * 1_000.0).round() / 1_000.0;
        let of = if name == "ledger" { "ledger" } else { "no_dedupe" };
        figures[format!("{of}_per_s")] = json!(rate.round());
        figures[format!("ratio_{of}")] = json!(ratio);
        figures[format!("{of}_per_commit")] = json!(each.round());
        for (what, cpu) in ["cpu", "broker_cpu", "redis_cpu"].into_iter().zip(cpu) {
            figures[format!("{of}_{what}_s")] = json!((cpu * 10.0).round() / 10.0);
        }
    }
    print("copy", figures);
}

/// Places in each partition of the results so far, on the average: records, and one for the end of each transaction.
async fn transactions(place: &crate::rig::place::Place) -> f64 {
    let engine = opened(&load(place)).await;
    let ends = engine.log.ends(&Topic::new("results")).await.unwrap();
    engine.operation.close().await;
    ends.iter().map(|end| end.next as f64).sum::<f64>() / PARTITIONS
}

/// To a topic that has the same settings as one of results.
async fn bare_copy(servers: &str, to: &'static str, records: usize, most: usize) -> f64 {
    let servers = servers.to_owned();
    tokio::task::spawn_blocking(move || bare::copy(&servers, "tasks.ledger", to, records, most))
        .await
        .unwrap()
}

/// Seconds from the start of the worker to the last completion, and what each process used.
async fn through(place: &crate::rig::place::Place, kind: &str, pids: [u32; 3]) -> (f64, [f64; 3]) {
    let settings = load(place);
    let engine = opened(&settings).await;
    let mut health = engine.operation.health();
    health.wait_for(|health| *health == tidegate::engine::Health::Well).await.unwrap();
    let kinds = Arc::new(Kinds::new(&settings));
    let models = Arc::new(Models::new(&settings.models, 4 << 20).unwrap());
    let worker = Worker::new(engine.clone(), settings.clone(), kinds, models);
    let (stop, cpu, began) = (CancellationToken::new(), pids.map(cpu_seconds), Instant::now());
    let mut running = tokio::task::JoinSet::new();
    let until = stop.clone();
    running.spawn(async move { worker.run(until).await });
    let topic = Topic::new(format!("tasks.{kind}"));
    loop {
        match engine.log.ends(&topic).await {
            Ok(ends) if ends.iter().all(|e| e.open == Some(0)) => break,
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(away) => eprintln!("{kind} after {:.1} s: {away}", began.elapsed().as_secs_f64()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu: [f64; 3] = std::array::from_fn(|i| cpu_seconds(pids[i]) - cpu[i]);
    stop.cancel();
    running.join_all().await;
    engine.operation.close().await;
    (seconds, cpu)
}
