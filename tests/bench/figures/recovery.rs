//! kill -9 with much in the log: from the next start to the first outcome of a task that was unfinished.

use crate::copy::KIND;
use crate::print;
use crate::rig::number;
use crate::rig::place::{Place, UP};
use crate::rig::process::{Process, listening};
use crate::watch::results;
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate::engine::Output;
use tidegate::task::{Headers, Topic};

const RECORD: usize = 64 * 1024;
/// Left unfinished at the kill: far more than can pass before it.
const BACKLOG: usize = 20_000;

pub(crate) async fn measure() {
    let sizes = std::env::var("TIDEGATE_BENCH_GB").unwrap_or_else(|_| "1,10".to_owned());
    for gb in sizes.split(',') {
        one(gb
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("TIDEGATE_BENCH_GB is a list of numbers, not `{sizes}`")))
        .await;
    }
}

async fn one(gb: u64) {
    let place = Place::new(KIND);
    fill(&place, gb).await;
    let bytes = size_of(&place.path("data"));
    let mut times = Vec::new();
    for _ in 0..number("TIDEGATE_BENCH_RUNS", 3) {
        append(&place, BACKLOG, 200, "backlog").await;
        let mut process = place.run().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        process.kill();
        let began = Instant::now();
        let (seen, _watching) = results(&place.api());
        let mut process = Process::start(place.command(), &place.log());
        listening(&mut process, place.port, UP).await;
        let listens = began.elapsed();
        let first = loop {
            if let Some(first) = seen.first() {
                break first;
            }
            assert!(began.elapsed() < Duration::from_secs(120), "no outcome after two minutes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        times.push((first - began, listens));
        process.stop(Duration::from_secs(60));
    }
    times.sort();
    let (ready, listens) = times[times.len() / 2];
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let all: Vec<u64> = times.iter().map(|(ready, _)| ms(*ready)).collect();
    let figures = json!({
        "log_gb": gb, "directory_bytes": bytes, "ready_ms": ms(ready), "listening_ms": ms(listens), "runs_ms": all,
    });
    print("recovery", figures);
}

/// Half of it tasks, half of it their results; all complete.
async fn fill(place: &Place, gb: u64) {
    let records = usize::try_from(gb * 1_000_000_000 / 2).unwrap() / RECORD;
    append(place, records, RECORD, "fill").await;
    let mut process = place.run().await;
    let api = place.api();
    let began = Instant::now();
    while api.metric("tidegate_outcomes_total").await < records as f64 {
        assert!(began.elapsed() < Duration::from_secs(900), "filling the log takes too long");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    process.stop(Duration::from_secs(60));
}

async fn append(place: &Place, records: usize, bytes: usize, name: &str) {
    let rest = place.open();
    let text = "x".repeat(bytes);
    // Keys of this call are behind all that lie there.
    let run =
        rest.engine.log.ends(&Topic::new("tasks.copy")).await.unwrap().iter().map(|e| e.next).sum::<u64>();
    let numbers: Vec<usize> = (0..records).collect();
    for batch in numbers.chunks(64) {
        let outputs = batch.iter().map(|n| {
            let key = format!("{name}-{run}-{n}");
            Output {
                topic: Topic::new("tasks.copy"),
                key: Some(key.clone().into()),
                value: Some(format!("{{\"n\":{n},\"text\":\"{text}\"}}").into()),
                headers: Headers::default().with("idempotency-key", key),
                not_before: None,
            }
        });
        rest.engine.log.append(outputs.collect()).await.unwrap();
    }
    rest.close().await;
}

fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|e| if e.path().is_dir() { size_of(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) })
        .sum()
}
