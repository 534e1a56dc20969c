//! One task at a time, 200 in a second: appended → asked of the provider, and answered → visible to a reader of
//! committed records; the second beside what the bare loop needs from consumed to visible.

use super::{Cluster, bare};
use crate::rig::number;
use crate::rig::redis_server::ALWAYS;
use crate::rig::script::{Provider, Reply};
use crate::{print, quantile};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message};
use serde_json::json;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PER_SECOND: u32 = 200;
/// Tasks at the beginning of each run that are not counted, a minute of them: a broker that has just been started
/// compiles itself meanwhile, with half a core.
const WARM: u64 = 60 * PER_SECOND as u64;

pub(super) type Times = Arc<Mutex<HashMap<String, Instant>>>;

pub(crate) async fn measure() {
    let tasks = number("TIDEGATE_BENCH_SECONDS", 20) * u64::from(PER_SECOND) + WARM;
    let cluster = Cluster::start(&ALWAYS);
    let asked: Times = Arc::default();
    let noting = asked.clone();
    let provider = Provider::start(move |request| {
        // The payload stands in a prompt, which is JSON: its quotes are escaped.
        let words = request.words();
        let behind = words.rsplit("n\\\":").next().unwrap_or("").trim_start();
        let number: String = behind.chars().take_while(char::is_ascii_digit).collect();
        noting.lock().unwrap().entry(format!("k{number}")).or_insert_with(Instant::now);
        Reply::json(json!({ "category": "bug", "confidence": 0.97 }))
    })
    .await;
    let text = format!(
        "{}[tasks.ticket]\nmodels = [\"main\"]\nask = \"Classify this ticket.\"\n\
         answer = {{ category = [\"bug\", \"other\"], confidence = \"number\" }}\nreview = {{ start = \"line\" }}\n\
         [worker]\nin_flight = 1024\n[log]\nlevel = \"warn\"\n",
        provider.patient_model("main", 10)
    );
    let place = cluster.place(&text, "partitions = 6");
    cluster.apply(&place);
    for prefix in ["bare.", "again."] {
        cluster.apply(&cluster.place("[tasks.copy]\n", &format!("partitions = 6\nprefix = \"{prefix}\"")));
    }

    let first = bare_run(&cluster, "bare.", tasks).await;
    let process = place.run().await;
    let (sent, seen) = run(&cluster, "tasks.ticket", "results", tasks).await;
    drop(process);
    // A broker that has been running for a while is faster: before and after, and the faster one counts.
    let second = bare_run(&cluster, "again.", tasks).await;
    let better =
        |of: fn(&Bare) -> &Vec<f64>, share| quantile(of(&first), share).min(quantile(of(&second), share));

    let asked = asked.lock().unwrap();
    let to_ask = apart(&sent, &asked, tasks, "asked of the provider");
    let visible = apart(&asked, &seen, tasks, "visible");
    let bare = [0.5, 0.99].map(|share| better(|bare| &bare.visible, share));
    let bare_taken = [0.5, 0.99].map(|share| better(|bare| &bare.taken, share));
    let times = |own: f64, bare: f64| (own / bare * 100.0).round() / 100.0;
    print(
        "latency",
        json!({
            "engine": "kafka", "tasks_per_s": PER_SECOND, "tasks": tasks - WARM, "answered": visible.len(),
            "appended_to_asked_p50_ms": quantile(&to_ask, 0.5), "appended_to_asked_p99_ms": quantile(&to_ask, 0.99),
            "answered_to_visible_p50_ms": quantile(&visible, 0.5), "answered_to_visible_p99_ms": quantile(&visible, 0.99),
            "bare_appended_to_taken_p50_ms": bare_taken[0], "bare_appended_to_taken_p99_ms": bare_taken[1],
            "bare_taken_to_visible_p50_ms": bare[0], "bare_taken_to_visible_p99_ms": bare[1],
            "times_bare_p50": times(quantile(&visible, 0.5), bare[0]),
            "times_bare_p99": times(quantile(&visible, 0.99), bare[1]),
        }),
    );
}

/// Milliseconds from the first to the second, for all that count; sorted. Every one of `tasks` must have both.
fn apart(from: &HashMap<String, Instant>, to: &HashMap<String, Instant>, tasks: u64, what: &str) -> Vec<f64> {
    let of = |(key, from): (&String, &Instant)| {
        let is_counted = key.trim_start_matches('k').parse::<u64>().is_ok_and(|n| n >= WARM);
        is_counted.then_some(())?;
        Some(to.get(key)?.saturating_duration_since(*from).as_secs_f64() * 1e3)
    };
    let mut all: Vec<f64> = from.iter().filter_map(of).collect();
    assert_eq!(all.len() as u64, tasks - WARM, "every task that counts is {what}");
    all.sort_by(f64::total_cmp);
    all
}

/// Milliseconds of the bare loop: appended to consumed, and consumed to visible.
struct Bare {
    taken: Vec<f64>,
    visible: Vec<f64>,
}

async fn bare_run(cluster: &Cluster, prefix: &str, tasks: u64) -> Bare {
    let (stop, taken) = (Arc::new(AtomicBool::new(false)), Times::default());
    let (servers, until, noting) = (cluster.kafka_at.clone(), stop.clone(), taken.clone());
    let (from, to) = (format!("{prefix}tasks.copy"), format!("{prefix}results"));
    let (reads, writes) = (from.clone(), to.clone());
    let passing = tokio::task::spawn_blocking(move || {
        bare::pass_on(&servers, &reads, &writes, &noting, || until.load(Ordering::SeqCst));
    });
    let (sent, seen) = run(cluster, &from, &to, tasks).await;
    stop.store(true, Ordering::SeqCst);
    passing.await.unwrap();
    let taken = taken.lock().unwrap();
    Bare {
        taken: apart(&sent, &taken, tasks, "taken by the bare loop"),
        visible: apart(&taken, &seen, tasks, "visible behind the bare loop"),
    }
}

/// Sends evenly, and notes when each key was sent and when its result was read.
async fn run(
    cluster: &Cluster,
    from: &str,
    to: &str,
    tasks: u64,
) -> (HashMap<String, Instant>, HashMap<String, Instant>) {
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Times::default());
    let (servers, until, noting) = (cluster.kafka_at.clone(), stop.clone(), seen.clone());
    let (from, to) = (from.to_owned(), to.to_owned());
    let watching = tokio::task::spawn_blocking(move || watch(&servers, &to, &noting, &until));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let servers = cluster.kafka_at.clone();
    let sending = tokio::task::spawn_blocking(move || {
        let (sent, began) = (Times::default(), Instant::now());
        let noting = sent.clone();
        let records = (0..tasks).map(move |n| {
            let due = began + Duration::from_secs(1) / PER_SECOND * u32::try_from(n).unwrap();
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let key = format!("k{n}");
            noting.lock().unwrap().insert(key.clone(), Instant::now());
            (key, format!("{{\"n\":{n}}}"))
        });
        bare::trickle(&servers, &from, records);
        sent
    });
    let sent = sending.await.unwrap().lock().unwrap().clone();
    let until = Instant::now() + Duration::from_secs(20);
    while (seen.lock().unwrap().len() as u64) < tasks && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::SeqCst);
    watching.await.unwrap();
    let seen = seen.lock().unwrap().clone();
    (sent, seen)
}

/// Notes when each key is seen first on a topic by a reader of committed records.
pub(super) fn watch(servers: &str, topic: &str, seen: &Times, stop: &AtomicBool) {
    let consumer: BaseConsumer = bare::consumer(servers, &format!("watch-{topic}"));
    consumer.subscribe(&[topic]).unwrap();
    while !stop.load(Ordering::SeqCst) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(5)) else { continue };
        let header = message.headers().and_then(|h| h.iter().find(|h| h.key == "tidegate-key"));
        let key = header.and_then(|h| h.value).or(message.key()).unwrap_or_default();
        seen.lock().unwrap().entry(String::from_utf8_lossy(key).into_owned()).or_insert_with(Instant::now);
    }
}
