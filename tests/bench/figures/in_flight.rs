//! Many slow calls at once: is a task in flight as cheap as it must be, and does nothing wait?
//!
//! N calls of two seconds each; the provider is a process of its own; only the steady state counts.

use crate::machine::{cpu_seconds, rss};
use crate::print;
use crate::rig::place::Place;
use crate::rig::process::{Process, free_port, listening, tidegate};
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate::engine::Output;
use tidegate::task::{Headers, Topic};

/// As the scenario says.
const CALL: Duration = Duration::from_secs(2);
/// Three calls one after the other before anything is measured.
const WARM: Duration = Duration::from_secs(8);

pub(crate) async fn measure() {
    let all = std::env::var("TIDEGATE_BENCH_IN_FLIGHT").unwrap_or_else(|_| "1000,5000".to_owned());
    for n in all.split(',') {
        one(n
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("TIDEGATE_BENCH_IN_FLIGHT is a list of numbers, not `{all}`")))
        .await;
    }
}

async fn one(n: u64) {
    let steady = Duration::from_secs(crate::rig::number("TIDEGATE_BENCH_SECONDS", 20));
    let port = free_port();
    let place = Place::new(&format!(
        "[models.slow]\napi = \"openai\"\nurl = \"http://127.0.0.1:{port}/v1\"\nmodel = \"slow\"\nwindow_tokens = 100000\n\
         [tasks.ticket]\nmodels = [\"slow\"]\nask = \"Classify this ticket.\"\n\
         answer = {{ category = [\"bug\", \"other\"], confidence = \"number\" }}\nreview = {{ start = \"line\" }}\n\
         [worker]\nin_flight = {n}\n[log]\nlevel = \"warn\"\n"
    ));
    let provider = simulated(&place, port).await;
    let mut process = place.run().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = rss(process.id());
    process.stop(Duration::from_secs(10));
    let needed = (n / CALL.as_secs()) * (WARM + steady + Duration::from_secs(6)).as_secs();
    load(&place, needed).await;
    let process = place.run().await;
    let api = place.api();
    tokio::time::sleep(WARM).await;
    let done = || async { api.metric("tidegate_outcomes_total").await };
    let pids = [process.id(), provider.id()];
    let (before, began, cpu) = (done().await, Instant::now(), pids.map(cpu_seconds));
    let mut most = 0;
    while began.elapsed() < steady {
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(rss(process.id()));
    }
    let (after, seconds) = (done().await, began.elapsed().as_secs_f64());
    let used: Vec<f64> = pids
        .iter()
        .zip(cpu)
        .map(|(pid, c)| ((cpu_seconds(*pid) - c) / seconds * 100.0).round() / 100.0)
        .collect();
    let per_s = (after - before) / seconds;
    let ideal = n as f64 / CALL.as_secs_f64();
    let figures = json!({
        "n": n, "of_ideal": (per_s / ideal * 1_000.0).round() / 1_000.0, "tasks_per_s": per_s.round(),
        "bytes_per_task": most.saturating_sub(idle) / n, "rss_idle": idle, "rss": most,
        "cpu_cores": { "tidegate": used[0], "provider": used[1] },
    });
    print("in_flight", figures);
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
