//! Many slow calls at once: is a task in flight as cheap as it must be, and does nothing wait?
//!
//! N calls of two seconds each; the provider is a process of its own; only the steady state counts.

use crate::kafka::{Cluster, bare};
use crate::machine::{cpu_seconds, rss};
use crate::print;
use crate::rig::api::Api;
use crate::rig::place::Place;
use crate::rig::process::{Process, free_port, listening, tidegate};
use crate::rig::redis_server::ALWAYS;
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate::engine::Output;
use tidegate::task::{Headers, Topic};

/// As the scenario says.
const CALL: Duration = Duration::from_secs(2);
/// Three calls one after the other before anything is measured; on Kafka a minute, in which a broker that has just been
/// started compiles itself.
const WARM: Duration = Duration::from_secs(8);
const WARM_BROKER: Duration = Duration::from_secs(60);

pub(crate) async fn measure(on_kafka: bool) {
    let all = std::env::var("TIDEGATE_BENCH_IN_FLIGHT").unwrap_or_else(|_| "1000,5000".to_owned());
    for n in all.split(',') {
        let n = n.trim().parse();
        let n = n.unwrap_or_else(|_| panic!("TIDEGATE_BENCH_IN_FLIGHT is a list of numbers, not `{all}`"));
        let cluster = on_kafka.then(|| Cluster::start(&ALWAYS));
        one(n, cluster.as_ref()).await;
    }
}

async fn one(n: u64, cluster: Option<&Cluster>) {
    let steady = Duration::from_secs(crate::rig::number("TIDEGATE_BENCH_SECONDS", 20));
    let port = free_port();
    let text = format!(
        "[models.slow]\napi = \"openai\"\nurl = \"http://127.0.0.1:{port}/v1\"\nmodel = \"slow\"\nwindow_tokens = 100000\n\
         [tasks.ticket]\nmodels = [\"slow\"]\nask = \"Classify this ticket.\"\n\
         answer = {{ category = [\"bug\", \"other\"], confidence = \"number\" }}\nreview = {{ start = \"line\" }}\n\
         [worker]\nin_flight = {n}\n[log]\nlevel = \"warn\"\n"
    );
    let place = match cluster {
        Some(cluster) => cluster.place(&text, "partitions = 24"),
        None => Place::new(&text),
    };
    if let Some(cluster) = cluster {
        cluster.apply(&place);
    }
    let provider = simulated(&place, port).await;
    let mut process = place.run().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = rss(process.id());
    process.stop(Duration::from_secs(10));
    let warm = if cluster.is_some() { WARM_BROKER } else { WARM };
    let needed = (n / CALL.as_secs()) * (warm + steady + Duration::from_secs(14)).as_secs();
    match cluster {
        Some(cluster) => fill(&cluster.kafka_at, needed).await,
        None => load(&place, needed).await,
    }
    let process = place.run().await;
    let api = place.api();
    tokio::time::sleep(warm).await;
    let pids = [process.id(), provider.id()];
    let (before, began) = between_waves(&api).await;
    let cpu = pids.map(cpu_seconds);
    let mut most = 0;
    while began.elapsed() < steady {
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(rss(process.id()));
    }
    let (after, ended) = between_waves(&api).await;
    let seconds = (ended - began).as_secs_f64();
    let used: Vec<f64> = pids
        .iter()
        .zip(cpu)
        .map(|(pid, c)| ((cpu_seconds(*pid) - c) / seconds * 100.0).round() / 100.0)
        .collect();
    let per_s = (after - before) / seconds;
    let ideal = n as f64 / CALL.as_secs_f64();
    let figures = json!({
        "engine": if cluster.is_some() { "kafka" } else { "embedded" }, "n": n, "of_ideal": (per_s / ideal * 1_000.0).round() / 1_000.0, "tasks_per_s": per_s.round(),
        "bytes_per_task": most.saturating_sub(idle) / n, "rss_idle": idle, "rss": most,
        "cpu_cores": { "tidegate": used[0], "provider": used[1] },
    });
    print("in_flight", figures);
}

/// Calls that began together end together: a window that cuts such a wave counts it or not by chance.
/// Waits for a moment in which nothing ends, if there is one within two calls.
async fn between_waves(api: &Api) -> (f64, Instant) {
    let began = Instant::now();
    let (mut count, mut since) = (done(api).await, Instant::now());
    while since.elapsed() < CALL / 10 && began.elapsed() < CALL * 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = done(api).await;
        if now > count {
            (count, since) = (now, Instant::now());
        }
    }
    (count, since)
}

async fn done(api: &Api) -> f64 {
    api.metric("tidegate_outcomes_total").await
}

async fn simulated(place: &Place, port: u16) -> Process {
    let scenario = place.path("scenario.toml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let mut command = tidegate();
    command
        .arg("simulate-provider")
        .arg("--scenario")
        .arg(scenario)
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"));
    let mut provider = Process::start(command, &place.path("provider.log"));
    listening(&mut provider, port, Duration::from_secs(10)).await;
    provider
}

const SCENARIO: &str = r#"
[models.slow]
first_token = { fixed = "100ms" }
total = { fixed = "2s" }

[answer.category]
from = "text"
choose = [{ match = "ticket", value = "bug" }]
otherwise = "other"
"#;

async fn fill(servers: &str, tasks: u64) {
    let servers = servers.to_owned();
    let records = (0..tasks).map(|n| (format!("k{n}"), format!("{{\"text\":\"ticket number {n}\"}}")));
    let filled = tokio::task::spawn_blocking(move || bare::fill(&servers, "tasks.ticket", records));
    filled.await.unwrap();
}

async fn load(place: &Place, tasks: u64) {
    let rest = place.open();
    let numbers: Vec<u64> = (0..tasks).collect();
    for batch in numbers.chunks(500) {
        let outputs = batch.iter().map(|n| Output {
            topic: Topic::new("tasks.ticket"),
            key: Some(format!("k{n}").into()),
            value: Some(format!("{{\"text\":\"ticket number {n}\"}}").into()),
            headers: Headers::default().with("idempotency-key", format!("k{n}")),
            not_before: None,
        });
        rest.engine.log.append(outputs.collect()).await.unwrap();
    }
    rest.close().await;
}
