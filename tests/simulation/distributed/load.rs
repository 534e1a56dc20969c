//! What is sent, what goes wrong meanwhile, and what must come of it.
//!
//! The checks know nothing of how the engine works: they compare what was sent with what a reader of
//! committed records finds.

use super::caller::{Call, Effect};
use super::cluster::{Cluster, jump};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate::engine::Output;
use tidegate::engine::distributed::simulated::Faults;
use tidegate::outcome::Reason;
use tidegate::task::{Headers, Position, Record, Topic};

/// After the last fault, everything has come to rest within this: a session, a transaction and a
/// heartbeat each take ten seconds to run out, and may do so one after the other; a task that parks, asks
/// a person or is redriven begins anew once or twice.
const REST: Duration = Duration::from_secs(90);

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
    /// Of these, some park, ask a person, or die and are redriven, and copies come back late.
    pub(super) moves: bool,
    /// Each task acts upon the world, some after they have asked a person.
    pub(super) acts: bool,
    /// Retention takes records that nobody has completed.
    pub(super) trims: bool,
    /// The wall clock jumps by hours, forth and back.
    pub(super) jumps: bool,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            seed: 0,
            keys: 60,
            kills: false,
            loses_offsets: false,
            forgetful: false,
            calls: false,
            moves: false,
            acts: false,
            trims: false,
            jumps: false,
        }
    }
}

/// One record that was sent.
#[derive(Debug)]
struct Sent {
    key: String,
    payload: String,
    at: Position,
    /// As a record may name it.
    origin: String,
    /// It is gone, and was not complete: perhaps nobody has ever seen it.
    lost: bool,
}

/// What people have done so far: items that were decided, letters that were redriven.
#[derive(Default)]
struct People {
    done: BTreeSet<String>,
}

impl People {
    /// Looks at everything that waits for a person; now and then two do.
    fn look(&mut self, cluster: &Cluster, dice: &mut StdRng) {
        for (item, at) in cluster.items() {
            if self.done.insert(item.id.clone()) {
                for by in ["ann", "bob"].iter().take(dice.random_range(1..3)) {
                    cluster.approve(&item, &at, by);
                }
            }
        }
        let died = cluster.letters().into_iter().filter(|l| l.reason == Some(Reason::TemplateFailed));
        for letter in died {
            if self.done.insert(letter.record.position.to_string()) {
                (0..dice.random_range(1..3)).for_each(|_| cluster.redrive(&letter));
            }
        }
    }
}

impl Load {
    pub(super) fn configuration(&self) -> &'static str {
        CONFIGURATION
    }

    /// What this seed does of it: what lies far apart is not asked of every one.
    pub(super) fn of(&self, seed: u64) -> Load {
        Load {
            trims: self.trims && seed.is_multiple_of(3),
            jumps: self.jumps && seed % 3 == 1,
            moves: self.moves && seed % 4 == 1,
            acts: self.acts && seed % 4 == 3,
            ..*self
        }
    }

    pub(super) async fn run(&self, cluster: &mut Cluster, faults: Faults) -> Result<String, String> {
        let mut dice = StdRng::seed_from_u64(self.seed ^ cluster.world.dice());
        for _ in 0..3 {
            cluster.start();
        }
        cluster.world.set_faults(faults);
        let (mut excused, mut people) = (BTreeSet::new(), People::default());
        let sent = self.send(cluster, &mut dice, &mut excused, &mut people).await?;
        cluster.world.set_faults(Faults::default());
        let began = tokio::time::Instant::now();
        loop {
            if self.moves {
                people.look(cluster, &mut dice);
            }
            let missing = self.check(cluster, &sent, &excused)?;
            if missing.is_empty() {
                break;
            }
            if began.elapsed() > REST {
                let claims = cluster.claims(&missing);
                let of: Vec<_> = sent.iter().filter(|s| missing.contains(&s.key)).collect();
                return Err(format!("P2: nothing has become of {missing:?}; sent {of:?}; open {claims:?}"));
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
        people: &mut People,
    ) -> Result<Vec<Sent>, String> {
        let mut sent: Vec<Sent> = Vec::new();
        let mut waiting: Vec<usize> =
            (0..self.keys).flat_map(|n| vec![n; 1 + usize::from(n % 3 == 0) * 2]).collect();
        while !waiting.is_empty() {
            let n = waiting.swap_remove(dice.random_range(0..waiting.len()));
            let conflicting = n % 10 == 9 && sent.iter().any(|s| s.key == format!("k{n}"));
            let does = match n % 5 {
                _ if self.acts => "acts",
                1 if self.moves => "parks",
                2 if self.moves => "asks",
                3 if self.moves => "dies",
                _ => "",
            };
            let payload = format!("{{\"n\":{n},\"other\":{conflicting},\"does\":\"{does}\"}}");
            let key = format!("k{n}");
            let mut headers = Headers::default().with("idempotency-key", key.clone().into_bytes());
            if let Some(first) = sent.iter().find(|s| s.key == key) {
                // Whoever sends a copy may say of it what he likes.
                headers.push("tidegate-origin", first.origin.clone());
            }
            let output = Output {
                topic: Topic::new("tasks.copy"),
                // Copies may lie in any partition.
                key: Some(format!("{}", dice.random_range(0..100)).into()),
                value: Some(payload.clone().into()),
                headers,
                not_before: None,
            };
            let at = cluster.world.append(vec![output]).map_err(|e| e.to_string())?.remove(0);
            let origin = format!("{at}@{}", tidegate::task::Timestamp::now().0);
            sent.push(Sent { key, payload, at, origin, lost: false });
            if self.moves {
                people.look(cluster, dice);
            }
            if self.trims && cluster.world.happens("retention takes what is not complete", 0.02) {
                self.trim(cluster, dice, &mut sent);
            }
            if self.jumps && cluster.world.happens("the clock jumps", 0.02) {
                jump(dice.random_range(-3 * 3_600_000..3 * 3_600_000));
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(0..800))).await;
            if self.kills && cluster.world.happens("a process is killed", 0.05) {
                let all = cluster.processes();
                cluster.kill(all[dice.random_range(0..all.len())]);
                cluster.start();
            }
            if self.kills && cluster.world.happens("a process leaves", 0.03) {
                let all = cluster.processes();
                cluster.leave(all[dice.random_range(0..all.len())]).await;
                cluster.start();
            }
            if self.loses_offsets && cluster.world.happens("the offsets are lost", 0.02) {
                // Amnesia takes a group with nobody in it.
                for process in cluster.processes() {
                    cluster.leave(process).await;
                }
                tokio::time::sleep(Duration::from_secs(12)).await;
                // Limit 2: what was published and not yet closed may run again. Nothing else may.
                let open = cluster.open();
                excused.extend(self.published(cluster)?.into_keys().filter(|key| open.contains(key)));
                if dice.random_bool(0.5) {
                    cluster.world.forget_offsets("worker");
                } else {
                    // By a tool, to where they are: what lies beside them is lost all the same.
                    for at in cluster.world.partitions(&Topic::new("tasks.copy")) {
                        if let Some(offset) = cluster.world.offset("worker", &at) {
                            cluster.world.set_offset("worker", &at, offset, "by hand");
                        }
                    }
                }
                for _ in 0..3 {
                    cluster.start();
                }
            }
            self.check(cluster, &sent, excused)?;
        }
        Ok(sent)
    }

    /// Somewhere in a partition, past records that are being worked on or that nobody has read.
    fn trim(&self, cluster: &Cluster, dice: &mut StdRng, sent: &mut [Sent]) {
        let Some(to) = sent.get(dice.random_range(0..sent.len())).map(|s| s.at.clone()) else { return };
        let open = cluster.world.incomplete("worker", &to.at.topic);
        let gone = |s: &&mut Sent| s.at.at == to.at && s.at.offset < to.offset && open.contains(&s.at);
        sent.iter_mut().filter(gone).for_each(|s| s.lost = true);
        cluster.world.trim(&to.at, to.offset);
    }

    /// No task acts twice, and none while it is further on: while a person is asked, in particular.
    pub(super) fn acted(&self, effects: &BTreeMap<String, Vec<Effect>>) -> Result<(), String> {
        for (key, effects) in effects {
            if effects.len() > 1 || effects.iter().any(|e| e.known != e.hop) {
                return Err(format!("P4: {key} acted twice, or while it was further on: {effects:?}"));
            }
        }
        Ok(())
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
                let alive = !cluster.was_away(before.process, before.at, after.at);
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
        if let Some((item, _)) = cluster.items().first() {
            return Err(format!("P1: {} has its outcome, and a person is still asked", item.proposed.key));
        }
        if self.forgetful || self.loses_offsets || self.trims {
            return Ok(());
        }
        let mut buried: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let conflicts = cluster.committed("dead-letters").into_iter();
        let conflicts = conflicts.filter(|r| r.headers.text("tidegate-reason") == Some("TG-key-conflict"));
        for record in conflicts {
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
        let mut results = self.published(cluster)?;
        for (key, count) in &results {
            let Some(of_it) = payloads.get(key.as_str()) else {
                return Err(format!("a result of a key that nobody sent: {key}"));
            };
            let forgiven = excused.contains(key) || (self.forgetful && of_it.len() > 1);
            if *count > 1 && !forgiven {
                return Err(format!("P1: {key} has {count} results"));
            }
        }
        let mut died: BTreeSet<String> = BTreeSet::new();
        for letter in cluster.letters() {
            let key = header(&letter.record, "tidegate-key")?;
            let as_sent = match letter.reason {
                Some(Reason::Orphaned) => sent.iter().any(|s| s.key == key && s.lost),
                Some(Reason::TemplateFailed) => {
                    payloads.get(key.as_str()).is_some_and(|of| of[0].contains("dies"))
                }
                _ => false,
            };
            if !as_sent {
                return Err(format!("P2: {key} is in dead letters: {:?}", letter.reason));
            }
            let orphan = letter.reason == Some(Reason::Orphaned);
            if !died.insert(key.clone()) || (orphan && results.contains_key(&key)) {
                return Err(format!("P1: {key} has two outcomes: {:?}", letter.reason));
            }
            if orphan {
                results.insert(key, 1);
            }
        }
        let mut asked = BTreeSet::new();
        for (item, _) in cluster.items() {
            if !asked.insert(item.proposed.key.clone()) {
                return Err(format!("P1: two people are asked about {}", item.proposed.key));
            }
        }
        // One that comes back by amnesia is buried again, under the same coordinates.
        let mut conflicts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for record in cluster.committed("dead-letters") {
            let key = header(&record, "tidegate-key")?;
            let reason = header(&record, "tidegate-reason")?;
            if reason != "TG-key-conflict" {
                continue;
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
            if sources.len() >= of_it.len() && !self.forgetful && !self.trims {
                return Err(format!("P2: all {} records of {key} are in dead letters", of_it.len()));
            }
        }
        // One record that is left is enough: if it was silent for one that is lost, that one's task is buried.
        let left: BTreeSet<&str> = sent.iter().filter(|s| !s.lost).map(|s| s.key.as_str()).collect();
        let missing = payloads.keys().filter(|key| !results.contains_key(**key) && left.contains(**key));
        Ok(missing.map(|key| (*key).to_owned()).collect())
    }
}

fn header(record: &Record, name: &str) -> Result<String, String> {
    record.headers.text(name).map(str::to_owned).ok_or_else(|| format!("no `{name}` on {}", record.position))
}
