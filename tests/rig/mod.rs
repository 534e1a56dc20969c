//! What stories, faults and figures share: a scratch place, the real binary and its HTTP API, a
//! simulated provider as a process of its own, and the log of a process that does not run.

pub(crate) mod api;
#[cfg(feature = "kafka")]
pub(crate) mod cluster;
#[cfg(feature = "kafka")]
pub(crate) mod kafka_broker;
#[cfg(feature = "kafka")]
pub(crate) mod kafka_proxy;
pub(crate) mod place;
pub(crate) mod process;
#[cfg(feature = "kafka")]
pub(crate) mod redis_server;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod schemas;
pub(crate) mod script;
#[cfg(feature = "simulator")]
pub(crate) mod simulator;

use std::time::{Duration, Instant};

/// Asks again until `look` has an answer. Panics with `what` after `limit`: no wait is for ever.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A number from the environment, or the default.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let Ok(value) = std::env::var(name) else { return default };
    value.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`"))
}

/// Says that something was left out, and why, where `tests/run` shows it.
pub(crate) fn left_out(what: &str, why: &str) {
    note(&format!("LEFT OUT: {what}: {why}"));
}

/// Says what was measured, in the same place. Nothing fails by it: how fast a machine is proves nothing.
pub(crate) fn measured(what: &str) {
    note(&format!("MEASURED: {what}"));
}

fn note(line: &str) {
    use std::io::Write as _;
    println!("{line}");
    let Ok(path) = std::env::var("TIDEGATE_TEST_NOTES") else { return };
    let mut notes = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(notes, "{line}").unwrap();
}

/// What stories run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    Embedded,
    Kafka,
    Simulated,
}

pub(crate) fn on() -> On {
    match std::env::var("TIDEGATE_STORIES").as_deref() {
        Err(_) | Ok("" | "embedded") => On::Embedded,
        Ok("kafka") => On::Kafka,
        Ok("simulated") => On::Simulated,
        Ok(other) => panic!("TIDEGATE_STORIES is `embedded`, `kafka` or `simulated`, not `{other}`"),
    }
}

/// Whether the embedded engine is what this test is about, and it runs on another one: it is left out then,
/// and says so.
pub(crate) fn is_for_embedded_only(why: &str) -> bool {
    let elsewhere = match on() {
        On::Embedded => return false,
        On::Kafka => "Kafka",
        On::Simulated => "the simulator",
    };
    let thread = std::thread::current();
    left_out(&format!("{} on {elsewhere}", thread.name().unwrap_or("a story")), why);
    true
}

/// Repeatable random numbers; `pick(n)` is below `n`.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds give sequences that have nothing in common.
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn pick(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.pick(100) < p
    }
}
