//! Several processes of one group, the provider that they ask, and what they are fed.

use super::{Cluster, bare};
use crate::rig::place::Place;
use crate::rig::process::{Process, free_port, listening, tidegate};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const PARTITIONS: u32 = 12;

/// Answers take 50 to 500 ms.
const SCENARIO: &str = r#"
[models.main]
first_token = { fixed = "20ms" }
total = { uniform = ["50ms", "500ms"] }

[answer.category]
value = "bug"
[answer.confidence]
value = 0.97
"#;

pub(crate) struct Fleet {
    pub(crate) places: Vec<Place>,
    pub(crate) running: Vec<Process>,
    provider: Process,
    pub(crate) provider_log: PathBuf,
}

impl Fleet {
    pub(crate) async fn start(cluster: &Cluster, count: usize, session: &str, in_flight: usize) -> Self {
        let port = free_port();
        let text = format!(
            "[models.main]\napi = \"openai\"\nurl = \"http://127.0.0.1:{port}/v1\"\nmodel = \"main\"\nwindow_tokens = 100000\n\
             [tasks.ticket]\nmodels = [\"main\"]\nask = \"Classify this ticket.\"\ninput = {{ n = \"integer\" }}\n\
             answer = {{ category = [\"bug\", \"other\"], confidence = \"number\" }}\nreview = {{ start = \"line\" }}\n\
             [worker]\nin_flight = {in_flight}\n[log]\nlevel = \"info\"\n"
        );
        let engine = format!("partitions = {PARTITIONS}\n{session}");
        let places: Vec<Place> = (0..count).map(|_| cluster.place(&text, &engine)).collect();
        cluster.apply(&places[0]);
        let provider_log = places[0].path("provider.jsonl");
        let scenario = places[0].path("scenario.toml");
        std::fs::write(&scenario, SCENARIO).unwrap();
        let mut command = tidegate();
        command.arg("simulate-provider").arg("--scenario").arg(scenario).arg("--log").arg(&provider_log);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        let mut provider = Process::start(command, &places[0].path("provider.said"));
        listening(&mut provider, port, Duration::from_secs(10)).await;
        let mut running = Vec::new();
        for place in &places {
            running.push(place.run().await);
        }
        Fleet { places, running, provider, provider_log }
    }

    /// As a supervisor would.
    pub(crate) fn start_again(&mut self, n: usize) {
        self.running[n] = Process::start(self.places[n].command(), &self.places[n].log());
    }

    /// The provider has written down what it was asked.
    pub(crate) fn close(mut self) -> (Vec<Place>, PathBuf) {
        for process in &mut self.running {
            process.stop(Duration::from_secs(60));
        }
        self.provider.stop(Duration::from_secs(10));
        (self.places, self.provider_log)
    }
}

/// Every twentieth key twice: half of the copies right behind their original, half after as long again as it took
/// to come to it. Record keys differ, so copies lie in different partitions.
pub(crate) fn keys(tasks: usize) -> impl Iterator<Item = (String, usize)> {
    (0..tasks).flat_map(|n| {
        let key = match n % 40 {
            19 => n / 40 * 20,
            39 => n - 10,
            _ => n,
        };
        std::iter::once((format!("k{key}"), key))
    })
}

/// Sends `tasks` records in `over`, evenly, and waits until the broker has each.
pub(crate) fn feed(servers: &str, tasks: usize, over: Duration) {
    let began = std::time::Instant::now();
    let each = over / u32::try_from(tasks.max(1)).unwrap();
    let records = keys(tasks).enumerate().map(move |(at, (key, n))| {
        let due = began + each * u32::try_from(at).unwrap();
        std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
        (key, format!("{{\"n\":{n}}}"))
    });
    bare::fill(servers, "tasks.ticket", records);
}
