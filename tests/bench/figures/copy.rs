//! How many tasks of a kind without steps pass in a second: through the engine, and through HTTP.
//!
//! Each task is appended, admitted, committed with its result, and closed, all of it on disk.

use crate::machine::cpu_seconds;
use crate::print;
use crate::rig::number;
use crate::rig::place::{Place, opened};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::consume::Kinds;
use tidegate::engine::{Engine, Output};
use tidegate::infer::Models;
use tidegate::settings::Settings;
use tidegate::task::{Headers, Topic};
use tidegate::worker::Worker;
use tokio_util::sync::CancellationToken;

/// Enough in flight that commits form batches; a copy holds next to nothing.
pub(crate) const KIND: &str = "[tasks.copy]\n[worker]\nin_flight = 4096\n[log]\nlevel = \"warn\"\n";
const BATCH: usize = 500;

pub(crate) async fn measure() {
    let tasks = usize::try_from(number("TIDEGATE_BENCH_TASKS", 200_000)).unwrap();
    via_engine(tasks).await;
    via_http(tasks).await;
}

fn payload(n: usize) -> String {
    format!("{{\"n\":{n},\"text\":\"{}\"}}", "a line of some length ".repeat(8))
}

/// Records wait on the topic; the worker of this very process takes them to results.
async fn via_engine(tasks: usize) {
    let place = Place::new(KIND);
    let settings = Arc::new(Settings::load(&place.config()).unwrap_or_else(|e| panic!("{e}")));
    let engine = opened(&settings);
    let numbers: Vec<usize> = (0..tasks).collect();
    for batch in numbers.chunks(BATCH) {
        engine.log.append(batch.iter().map(|n| record(*n)).collect()).await.unwrap();
    }
    let kinds = Arc::new(Kinds::new(&settings));
    let models = Arc::new(Models::new(&settings.models, 4 << 20).unwrap());
    let worker = Worker::new(engine.clone(), settings.clone(), kinds, models);
    let (stop, cpu, began) = (CancellationToken::new(), cpu_seconds(std::process::id()), Instant::now());
    let mut running = tokio::task::JoinSet::new();
    let until = stop.clone();
    running.spawn(async move { worker.run(until).await });
    while visible(&engine).await < tasks as u64 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    report("engine", tasks, seconds, json!({ "cpu_s": cpu_seconds(std::process::id()) - cpu }));
    stop.cancel();
    running.join_all().await;
    engine.operation.close().await;
}

fn record(n: usize) -> Output {
    Output {
        topic: Topic::new("tasks.copy"),
        key: Some(format!("k{n}").into()),
        value: Some(payload(n).into()),
        headers: Headers::default().with("idempotency-key", format!("k{n}")),
        not_before: None,
    }
}

async fn visible(engine: &Engine) -> u64 {
    let ends = engine.log.ends(&Topic::new("results")).await.unwrap();
    ends.iter().map(|e| e.next - e.first).sum()
}

/// From the first request to the last result visible, with batches of 500 on four connections.
async fn via_http(tasks: usize) {
    let place = Place::new(KIND);
    let process = place.run().await;
    let (api, began) = (place.api(), Instant::now());
    let cpu = cpu_seconds(process.id());
    let numbers: Vec<usize> = (0..tasks).collect();
    let connections = 4;
    let mut clients = tokio::task::JoinSet::new();
    for share in numbers.chunks(tasks.div_ceil(connections)) {
        let (api, share) = (api.clone(), share.to_vec());
        clients.spawn(async move {
            for batch in share.chunks(BATCH) {
                let lines: Vec<String> = batch
                    .iter()
                    .map(|n| format!("{{\"kind\":\"copy\",\"key\":\"k{n}\",\"payload\":{}}}", payload(*n)))
                    .collect();
                let body = format!("[{}]", lines.join(","));
                let (status, told) =
                    api.post_bytes("/v1/tasks", "application/json", body.into_bytes()).await.unwrap();
                assert_eq!(status, 202, "{told}");
            }
        });
    }
    clients.join_all().await;
    let accepted = began.elapsed().as_secs_f64();
    while api.metric("tidegate_outcomes_total").await < tasks as f64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = json!({ "cpu_s": cpu_seconds(process.id()) - cpu, "accepted_per_s": (tasks as f64 / accepted).round() });
    report("http", tasks, seconds, cpu);
}

fn report(via: &str, tasks: usize, seconds: f64, more: serde_json::Value) {
    let mut figures = json!({ "via": via, "tasks": tasks, "tasks_per_s": (tasks as f64 / seconds).round() });
    figures.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    print("copy", figures);
}
