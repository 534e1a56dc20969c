//! What is sent, what goes wrong meanwhile, and what must come of it.
//!
//! The checks know nothing of how the engine works: they compare what was sent with what a reader of
//! committed records finds.

use super::caller::Call;
use super::cluster::Cluster;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate::engine::Output;
use tidegate::engine::distributed::simulated::Faults;
use tidegate::task::{Headers, Record, Topic};

/// After the last fault, everything has come to rest within this: a session, a transaction and a
/// heartbeat each take ten seconds to run out, and may do so one after the other.
const REST: Duration = Duration::from_secs(60);

const LEASE: Duration = Duration::from_secs(10);
/// The deadline of a call, and one lease.
const CALL_AND_LEASE: Duration = Duration::from_secs(13);

const CONFIGURATION: &str = "[tasks.copy]\n[engine]\npartitions = 4\n[worker]\nin_flight = 16\n";

#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) seed: u64,
    pub(super) keys: usize,
    pub(super) kills: bool,
    pub(super) loses_offsets: bool,
    /// The ledger forgets: what is twice may be blamed on that, where a key has two records.
    pub(super) forgetful: bool,
    /// Each task makes a call, and what is bought is counted.
    pub(super) calls: bool,
}

impl Default for Load {
    fn default() -> Self {
        Load { seed: 0, keys: 60, kills: false, loses_offsets: false, forgetful: false, calls: false }
    }
}

/// One record that was sent.
struct Sent {
    key: String,
    payload: String,
}

impl Load {
    pub(super) fn configuration(&self) -> &'static str {
        CONFIGURATION
    }

    pub(super) async fn run(&self, cluster: &mut Cluster, faults: Faults) -> Result<String, String> {
        let mut dice = StdRng::seed_from_u64(self.seed ^ cluster.world.dice());
        for _ in 0..3 {
            cluster.start();
        }
        cluster.world.set_faults(faults);
        let mut excused = BTreeSet::new();
        let sent = self.send(cluster, &mut dice, &mut excused).await?;
        cluster.world.set_faults(Faults::default());
        let began = tokio::time::Instant::now();
        loop {
            let missing = self.check(cluster, &sent, &excused)?;
            if missing.is_empty() {
                break;
            }
            if began.elapsed() > REST {
                return Err(format!("P2: nothing has become of {missing:?}"));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // What is late may still make a second one.
        tokio::time::sleep(Duration::from_secs(30)).await;
        self.check(cluster, &sent, &excused)?;
        self.at_rest(cluster, &sent)?;
        Ok(format!("{} records", sent.len()))
    }

    /// Keys with up to three copies, some with another payload under the same key, while processes come
    /// and go.
    async fn send(
        &self,
        cluster: &mut Cluster,
        dice: &mut StdRng,
        excused: &mut BTreeSet<String>,
    ) -> Result<Vec<Sent>, String> {
        let mut sent: Vec<Sent> = Vec::new();
        let mut waiting: Vec<usize> =
            (0..self.keys).flat_map(|n| vec![n; 1 + usize::from(n % 3 == 0) * 2]).collect();
        while !waiting.is_empty() {
            let n = waiting.swap_remove(dice.random_range(0..waiting.len()));
            let conflicting = n % 10 == 9 && sent.iter().any(|s| s.key == format!("k{n}"));
            let payload = format!("{{\"n\":{n},\"other\":{conflicting}}}");
            let key = format!("k{n}");
            let output = Output {
                topic: Topic::new("tasks.copy"),
                // Copies may lie in any partition.
                key: Some(format!("{}", dice.random_range(0..100)).into()),
                value: Some(payload.clone().into()),
                headers: Headers::default().with("idempotency-key", key.clone().into_bytes()),
                not_before: None,
            };
            cluster.world.append(vec![output]).map_err(|e| e.to_string())?;
            sent.push(Sent { key, payload });
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..800))).await;
            if self.kills && dice.random_bool(0.05) {
                let all = cluster.processes();
                cluster.kill(all[dice.random_range(0..all.len())]);
                cluster.start();
            }
            if self.kills && dice.random_bool(0.03) {
                let all = cluster.processes();
                cluster.leave(all[dice.random_range(0..all.len())]).await;
                cluster.start();
            }
            if self.loses_offsets && dice.random_bool(0.02) {
                // Amnesia takes a group with nobody in it.
                for process in cluster.processes() {
                    cluster.leave(process).await;
                }
                tokio::time::sleep(Duration::from_secs(12)).await;
                // Limit 2: what was published and not yet closed may run again. Nothing else may.
                let open = cluster.open();
                excused.extend(self.published(cluster)?.into_keys().filter(|key| open.contains(key)));
                cluster.world.forget_offsets("worker");
                for _ in 0..3 {
                    cluster.start();
                }
            }
            self.check(cluster, &sent, excused)?;
        }
        Ok(sent)
    }

    /// Whatever was bought again was counted, and its buyer before had died, or was cut off for longer
    /// than its deadline and a lease.
    pub(super) fn bought(
        &self,
        calls: &BTreeMap<String, Vec<Call>>,
        cluster: &Cluster,
    ) -> Result<String, String> {
        let mut repeats = 0;
        for (key, calls) in calls {
            for pair in calls.windows(2) {
                let (before, after) = (&pair[0], &pair[1]);
                let alive = !cluster.was_dead(before.process, after.at);
                if before.stored.is_some_and(|stored| stored <= after.at) {
                    return Err(format!("P3: the answer of {key} was stored, and bought again: {calls:?}"));
                }
                // Held, and stored as soon as the ledger is reached again.
                let in_hand = before.answered.is_some_and(|at| at + CALL_AND_LEASE <= after.at);
                if in_hand && alive && cluster.longest_outage() < LEASE {
                    return Err(format!("P3: the answer of {key} was in hand, and bought again: {calls:?}"));
                }
                if after.times <= before.times {
                    return Err(format!("P3: {key} was bought again, uncounted: {calls:?}"));
                }
                let waited = after.at.saturating_duration_since(before.at);
                if alive && waited < CALL_AND_LEASE {
                    return Err(format!("P3: {key} was bought again while its buyer lived: {calls:?}"));
                }
                repeats += 1;
            }
        }
        Ok(format!("{repeats} repeats"))
    }

    /// Nothing is left over: every record is complete, and every one whose payload conflicts with that of
    /// its key lies in dead letters.
    fn at_rest(&self, cluster: &Cluster, sent: &[Sent]) -> Result<(), String> {
        let open = cluster.world.incomplete("worker", &Topic::new("tasks.copy"));
        if !open.is_empty() {
            return Err(format!("P2: {} records were never completed: {open:?}", open.len()));
        }
        if self.forgetful || self.loses_offsets {
            return Ok(());
        }
        let mut buried: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for record in cluster.committed("dead-letters") {
            let (key, source) = (header(&record, "tidegate-key")?, header(&record, "tidegate-source")?);
            buried.entry(key).or_default().insert(source);
        }
        let keys: BTreeSet<&String> = sent.iter().map(|s| &s.key).collect();
        for key in keys {
            let mut of_payload: BTreeMap<&String, usize> = BTreeMap::new();
            sent.iter()
                .filter(|s| s.key == *key)
                .for_each(|s| *of_payload.entry(&s.payload).or_default() += 1);
            let letters = buried.get(key).map_or(0, BTreeSet::len);
            // One payload owns the key; every record of the others is buried.
            let all: usize = of_payload.values().sum();
            if of_payload.len() > 1 && !of_payload.values().any(|own| all - own == letters) {
                return Err(format!("P2: {key} has {letters} dead letters of {of_payload:?}"));
            }
        }
        Ok(())
    }

    /// How many results each key has.
    fn published(&self, cluster: &Cluster) -> Result<BTreeMap<String, usize>, String> {
        let mut results = BTreeMap::new();
        for record in cluster.committed("results") {
            *results.entry(header(&record, "tidegate-key")?).or_default() += 1;
        }
        Ok(results)
    }

    /// The keys that have no outcome yet. `Err`: a promise is broken.
    fn check(
        &self,
        cluster: &Cluster,
        sent: &[Sent],
        excused: &BTreeSet<String>,
    ) -> Result<Vec<String>, String> {
        let mut payloads: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for s in sent {
            payloads.entry(&s.key).or_default().push(&s.payload);
        }
        let results = self.published(cluster)?;
        for (key, count) in &results {
            let Some(of_it) = payloads.get(key.as_str()) else {
                return Err(format!("a result of a key that nobody sent: {key}"));
            };
            let forgiven = excused.contains(key) || (self.forgetful && of_it.len() > 1);
            if *count > 1 && !forgiven {
                return Err(format!("P1: {key} has {count} results"));
            }
        }
        // One that comes back by amnesia is buried again, under the same coordinates.
        let mut conflicts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for record in cluster.committed("dead-letters") {
            let key = header(&record, "tidegate-key")?;
            let reason = header(&record, "tidegate-reason")?;
            if reason != "TG-key-conflict" {
                return Err(format!("P2: {key} is in dead letters: {reason}"));
            }
            conflicts.entry(key).or_default().insert(header(&record, "tidegate-source")?);
        }
        for (key, sources) in &conflicts {
            let of_it = payloads.get(key.as_str()).map(Vec::as_slice).unwrap_or_default();
            let distinct: BTreeSet<&&str> = of_it.iter().collect();
            if distinct.len() < 2 {
                return Err(format!("P2: {key} is in dead letters, and nothing conflicts with it"));
            }
            // Whichever payload came first owns the key; every record of the other conflicts.
            if sources.len() >= of_it.len() && !self.forgetful {
                return Err(format!("P2: all {} records of {key} are in dead letters", of_it.len()));
            }
        }
        Ok(payloads.keys().filter(|key| !results.contains_key(**key)).map(|key| (*key).to_owned()).collect())
    }
}

fn header(record: &Record, name: &str) -> Result<String, String> {
    record.headers.text(name).map(str::to_owned).ok_or_else(|| format!("no `{name}` on {}", record.position))
}
