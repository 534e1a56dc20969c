//! What became of every task, read from the topics as any consumer reads them, and from the provider's log.

use super::bare::read_all;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Default)]
pub(crate) struct Reckoning {
    /// By key, how many outcomes, and when the broker appended the first one (ms).
    pub(crate) outcomes: BTreeMap<String, (usize, i64)>,
    /// By key, when the broker had its first record (ms).
    pub(crate) sent: BTreeMap<String, i64>,
    pub(crate) dead: Vec<(String, String)>,
    /// Calls beyond the first that the outcomes tell of, by key: repeats, and tries that failed.
    noted: BTreeMap<String, u64>,
    /// When the broker had each outcome, in order (ms).
    times: Vec<i64>,
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> String {
    let found = message.headers().and_then(|headers| headers.iter().find(|h| h.key == name));
    let value = found.and_then(|h| h.value).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

impl Reckoning {
    pub(crate) fn of(servers: &str) -> Self {
        let mut all = Reckoning::default();
        read_all(servers, "tasks.ticket", |message| {
            let at = message.timestamp().to_millis().unwrap_or(0);
            all.sent.entry(header(message, "idempotency-key")).or_insert(at);
        });
        read_all(servers, "results", |message| {
            let key = header(message, "tidegate-key");
            all.outcome(&key, message);
            let envelope: Value =
                serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
            let tries = envelope["tries"].as_array().map(Vec::as_slice).unwrap_or_default();
            let repeats: u64 = tries.iter().filter_map(|t| t["repeats"].as_u64()).sum();
            // Nobody heard the end of those, although the provider may have said it.
            let failed = tries.iter().filter(|t| t["class"] != "ok").count() as u64;
            *all.noted.entry(key).or_default() += repeats + failed;
        });
        read_all(servers, "dead-letters", |message| {
            let key = header(message, "tidegate-key");
            all.outcome(&key, message);
            all.dead.push((key, header(message, "tidegate-reason")));
        });
        all.times.sort_unstable();
        all
    }

    fn outcome(&mut self, key: &str, message: &BorrowedMessage<'_>) {
        let at = message.timestamp().to_millis().unwrap_or(0);
        self.times.push(at);
        let known = self.outcomes.entry(key.to_owned()).or_insert((0, at));
        *known = (known.0 + 1, known.1.min(at));
    }

    pub(crate) fn lost(&self) -> Vec<&String> {
        self.sent.keys().filter(|key| !self.outcomes.contains_key(*key)).collect()
    }

    pub(crate) fn duplicated(&self) -> Vec<&String> {
        self.outcomes.iter().filter(|(_, (n, _))| *n > 1).map(|(key, _)| key).collect()
    }

    /// Between two outcomes, one after the other, seconds.
    pub(crate) fn longest_pause(&self) -> f64 {
        self.times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as f64 / 1_000.0
    }

    /// From the broker's receipt of a task to that of its outcome, ms, sorted.
    pub(crate) fn waits(&self) -> Vec<f64> {
        let of = |(key, sent): (&String, &i64)| Some((self.outcomes.get(key)?.1 - sent) as f64);
        let mut all: Vec<f64> = self.sent.iter().filter_map(of).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// What was bought more than once.
    pub(crate) fn bought(&self, provider_log: &Path, hurts: &[Hurt]) -> Bought {
        let mut asked: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
        for line in std::fs::read_to_string(provider_log).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if line["status"] == 200 {
                let from = line["at"].as_i64().unwrap();
                let until = from + line["latency_ms"].as_i64().unwrap();
                let slot = line["slot"].as_str().unwrap_or_default().to_owned();
                asked.entry(slot).or_default().push(Asked { from, until, whole: line["complete"] == true });
            }
        }
        // Providers are told a hash of the task, its generation and the slot.
        let keys: BTreeMap<String, &String> = self.sent.keys().map(|key| (scope_of(key), key)).collect();
        let mut bought = Bought::default();
        let mut again: BTreeMap<String, (u64, Vec<String>)> = BTreeMap::new();
        for (slot, mut calls) in asked {
            let key = slot.split_once(".g").and_then(|(scope, _)| keys.get(scope));
            let key = key.unwrap_or_else(|| panic!("the provider was asked for nobody's slot {slot}"));
            calls.sort_by_key(|call| call.from);
            let (_, earlier) = calls.split_last().unwrap();
            let whole = calls.iter().filter(|call| call.whole).count() as u64;
            bought.repeated += whole.saturating_sub(1);
            bought.cut_off += calls.len() as u64 - whole;
            if earlier.iter().any(|call| !call.is_explained(hurts)) {
                bought.unexplained.push((*key).clone());
            }
            let (more, when) = again.entry((*key).clone()).or_default();
            *more += whole.saturating_sub(1);
            let how = |call: &Asked| if call.whole { "answered" } else { "cut off" };
            when.extend(calls.iter().map(|call| format!("{} to {} {}", call.from, call.until, how(call))));
        }
        for (key, (more, when)) in again {
            let noted = self.noted.get(&key).copied().unwrap_or(0);
            if more > noted {
                eprintln!("untold: {key} tells of {noted}, and was asked {}", when.join(", "));
                bought.untold.push(key);
            }
        }
        bought
    }
}

/// Calls of one slot beyond its first.
#[derive(Default)]
pub(crate) struct Bought {
    /// Answered to the end, and answered to the end before.
    pub(crate) repeated: u64,
    /// Broken off before the answer had ended.
    pub(crate) cut_off: u64,
    /// Keys of which no outcome tells as many repeats.
    pub(crate) untold: Vec<String>,
    /// Keys that were asked about again although nothing had happened to whoever asked first.
    pub(crate) unexplained: Vec<String>,
}

/// Something that was done on purpose, from and until when (ms).
pub(crate) struct Hurt {
    pub(crate) from: i64,
    pub(crate) until: i64,
    /// To a process; or else to the ledger, whose absence makes an answer wait in memory.
    pub(crate) process: bool,
}

struct Asked {
    from: i64,
    until: i64,
    whole: bool,
}

/// An answer is stored within this, on a busy machine too, if its process lives and the ledger is there.
const STORED_MS: i64 = 1_000;

impl Asked {
    /// Whether any process was hurt before the answer can have been stored. Not only the one that asked: the
    /// provider's log does not say who that was, as all ask under the same name. Nor would it do to look at that one
    /// alone: one that was stopped between its claim and its request sends it when another has been answered.
    fn is_explained(&self, hurts: &[Hurt]) -> bool {
        let mut until = self.until + STORED_MS;
        for away in hurts.iter().filter(|hurt| !hurt.process) {
            if away.from <= until && away.until >= self.from {
                until = until.max(away.until + STORED_MS);
            }
        }
        hurts.iter().any(|hurt| hurt.process && hurt.from <= until && hurt.until >= self.from)
    }
}

fn scope_of(key: &str) -> String {
    let scope = tidegate::task::ScopedKey::new("", "ticket", key);
    blake3::hash(&scope.to_bytes()).to_hex()[..16].to_owned()
}
