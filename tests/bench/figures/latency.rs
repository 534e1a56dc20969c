//! From accepted to visible on `/v1/results`, at 200 tasks in a second.

use crate::copy::KIND;
use crate::rig::number;
use crate::rig::place::Place;
use crate::watch::results;
use crate::{print, quantile};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PER_SECOND: u32 = 200;

pub(crate) async fn measure() {
    let seconds = number("TIDEGATE_BENCH_SECONDS", 30);
    let tasks = seconds * u64::from(PER_SECOND);
    let place = Place::new(KIND);
    let _process = place.run().await;
    let api = place.api();
    let (seen, _watching) = results(&api);
    // The stream is open, and connections are warm.
    for n in 0..50 {
        api.submit("copy", &format!("warm{n}"), json!({ "n": n })).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let accepted: Arc<Mutex<HashMap<String, (Instant, Instant)>>> = Arc::default();
    let mut sending = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for n in 0..tasks {
        tick.tick().await;
        let (api, accepted) = (api.clone(), accepted.clone());
        sending.spawn(async move {
            let (key, sent) = (format!("k{n}"), Instant::now());
            api.submit("copy", &key, json!({ "n": n, "text": "a line of some length" })).await;
            accepted.lock().unwrap().insert(key, (sent, Instant::now()));
        });
        while sending.try_join_next().is_some() {}
    }
    sending.join_all().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while (seen.len() as u64) < tasks + 50 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let accepted = accepted.lock().unwrap();
    let ms = |d: Duration| d.as_secs_f64() * 1_000.0;
    let mut visible = Vec::new();
    let mut whole = Vec::new();
    for (key, (sent, told)) in accepted.iter() {
        let at = seen.at(key).unwrap_or_else(|| panic!("{key} never became visible"));
        visible.push(ms(at.saturating_duration_since(*told)));
        whole.push(ms(at - *sent));
    }
    visible.sort_by(f64::total_cmp);
    whole.sort_by(f64::total_cmp);
    let figures = json!({
        "tasks_per_s": PER_SECOND, "tasks": tasks,
        "p50_ms": quantile(&visible, 0.50), "p99_ms": quantile(&visible, 0.99), "max_ms": quantile(&visible, 1.0),
        "sent_to_visible_p50_ms": quantile(&whole, 0.50), "sent_to_visible_p99_ms": quantile(&whole, 0.99),
    });
    print("latency", figures);
}
