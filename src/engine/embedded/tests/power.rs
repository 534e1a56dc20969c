//! Nothing is acknowledged before it is durable: random work, and the power goes off at a random moment.

use super::super::simulated::Simulated;
use super::super::*;
use super::{done, next_record, output, quick, specs, token};
use crate::dedupe::{Admission, Slot, SlotKind, SlotName};
use crate::engine::Commit;
use crate::task::{Position, ScopedKey, Topic};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the engine has acknowledged.
#[derive(Default)]
pub(super) struct Promised {
    /// Says on the standard output what it learns, for a parent that outlives this process.
    loud: bool,
    appended: BTreeMap<Position, String>,
    complete: BTreeMap<Position, Position>,
    stored: BTreeSet<ScopedKey>,
    closed: BTreeSet<ScopedKey>,
}

impl Promised {
    pub(super) fn loud() -> Self {
        Promised { loud: true, ..Promised::default() }
    }

    fn appended(&mut self, at: Vec<Position>, keys: Vec<String>) {
        if self.loud {
            at.iter().for_each(|at| println!("appended {at}"));
        }
        self.appended.extend(at.into_iter().zip(keys));
    }

    fn completed(&mut self, at: &Position, result: &Position, key: ScopedKey) {
        if self.loud {
            println!("complete {at} {result}");
        }
        self.complete.insert(at.clone(), result.clone());
        self.closed.insert(key);
    }
}

/// Number of rounds and first seed, from the environment if it says so.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let first = number("TIDEGATE_SEED").unwrap_or_else(|| rand::random_range(0..1 << 40));
    first..first + number("TIDEGATE_CUTS").unwrap_or(25)
}

/// Works until the power is off; `promised` says what was acknowledged by then.
pub(super) async fn work(
    disk: Arc<dyn Files>,
    settings: EmbeddedSettings,
    promised: Arc<Mutex<Promised>>,
    life: u64,
) {
    let Ok(engine) = open(settings, specs(), disk) else { return };
    let feeder = {
        let (engine, promised) = (engine.clone(), promised.clone());
        async move {
            for n in 0.. {
                let keys: Vec<String> = (0..3).map(|i| format!("l{life}n{n}i{i}")).collect();
                let batch = keys.iter().map(|k| output("tasks", k, k)).collect();
                let Ok(at) = engine.log.append(batch).await else { return };
                promised.lock().unwrap().appended(at, keys);
            }
        }
    };
    let worker = async move {
        let mut group = engine.groups.join("worker", &[Topic::new("tasks")]);
        loop {
            let d = next_record(&mut group).await;
            let t = token(&d);
            let Ok(admission) = engine.ledger.admit(&d, &t, None).await else { return };
            if let Admission::Fresh(claim) = &admission {
                let slot = Slot { name: SlotName("ask".into()), kind: SlotKind::Call };
                let Ok(_) = engine.journal.start(claim, &slot, Duration::from_secs(1)).await else { return };
                let stored = engine.journal.store(claim, &slot, "answer".into()).await;
                let Ok(_) = stored else { return };
                promised.lock().unwrap().stored.insert(t.key.clone());
            }
            let outputs = vec![output("results", &t.key.key, &t.key.key)];
            match engine.commits.commit(done(&d, outputs)).await {
                Commit::Visible(at) => {
                    promised.lock().unwrap().completed(&d.record.position, &at[0], t.key);
                }
                _ => return,
            }
        }
    };
    // Appends fail at once when the power goes; what still waits then is never answered.
    tokio::select! {
        () = feeder => {}
        () = worker => {}
    }
}

/// Complaints about promises that the directory does not keep.
async fn broken(engine: &Engine, promised: &Promised) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, key) in &promised.appended {
        let found = engine.log.read(at.clone(), 1).await.unwrap();
        let same =
            found.first().is_some_and(|r| r.position == *at && r.key.as_deref() == Some(key.as_bytes()));
        if !same {
            complaints.push(format!("record {at} of `{key}` is gone"));
        }
    }
    for (at, result) in &promised.complete {
        if !engine.commits.is_complete(at) {
            complaints.push(format!("{at} is not complete"));
        }
        let found = engine.log.read(result.clone(), 1).await.unwrap();
        if found.first().is_none_or(|r| r.position != *result) {
            complaints.push(format!("result {result} is gone"));
        }
    }
    for key in &promised.stored {
        let claim = engine.ledger.look(key).await.unwrap();
        let kept = claim.is_some_and(|c| {
            matches!(c.phase, crate::dedupe::Phase::Closed { .. })
                || c.slots.iter().any(|s| s.state == "stored")
        });
        if !kept {
            complaints.push(format!("the answer of {key} is gone"));
        }
    }
    for key in &promised.closed {
        let claim = engine.ledger.look(key).await.unwrap();
        if !claim.is_some_and(|c| matches!(c.phase, crate::dedupe::Phase::Closed { .. })) {
            complaints.push(format!("{key} is not closed"));
        }
    }
    complaints
}

/// Completed records and results are pairs: never one without the other.
pub(super) async fn atomic(engine: &Engine) {
    let mut results = BTreeMap::<String, u32>::new();
    for index in 0..2 {
        for r in everything(engine, "results", index).await {
            *results.entry(String::from_utf8(r.key.unwrap().to_vec()).unwrap()).or_default() += 1;
        }
    }
    for index in 0..2 {
        for r in everything(engine, "tasks", index).await {
            let key = String::from_utf8(r.key.clone().unwrap().to_vec()).unwrap();
            let complete = engine.commits.is_complete(&r.position);
            assert_eq!(results.get(&key).copied().unwrap_or(0), u32::from(complete), "{key}");
        }
    }
}

async fn everything(engine: &Engine, topic: &str, index: u32) -> Vec<crate::task::Record> {
    let at = crate::task::Partition { topic: Topic::new(topic), index };
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let found = engine.log.read(Position { at: at.clone(), offset }, 1000).await.unwrap();
        let Some(last) = found.last() else { return all };
        offset = last.position.offset + 1;
        all.extend(found);
    }
}

/// Lives that end with a power cut each; the complaints after the last of them.
async fn lives(seed: u64, lies: bool) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = Simulated::new();
    let promised = Arc::new(Mutex::new(Promised::default()));
    for life in 0..3 {
        disk.faults.sync_lies.store(lies, Ordering::SeqCst);
        let mut working = tokio::task::JoinSet::new();
        working.spawn(work(disk.clone(), quick(1 << 14), promised.clone(), life));
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..60_000))).await;
        let back = disk.cut(rng.random());
        working.join_all().await;
        disk = back;
        match open(quick(1 << 14), specs(), disk.clone()) {
            Ok(engine) => {
                let so_far = std::mem::take(&mut *promised.lock().unwrap());
                let complaints = broken(&engine, &so_far).await;
                *promised.lock().unwrap() = so_far;
                if !complaints.is_empty() {
                    return complaints;
                }
                atomic(&engine).await;
                engine.operation.close().await;
            }
            Err(e) => return vec![e.to_string()],
        }
    }
    Vec::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_what_was_acknowledged_is_there_after_a_power_cut_at_any_moment() {
    for seed in seeds() {
        println!("TIDEGATE_SEED={seed}");
        assert_eq!(lives(seed, false).await, Vec::<String>::new(), "TIDEGATE_SEED={seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_a_disk_that_answers_a_flush_without_doing_it_is_found_out_by_the_test_above() {
    for seed in seeds() {
        // A state that was never on the disk may also make the store behind the log give up: found out.
        let mut alone = tokio::task::JoinSet::new();
        alone.spawn(async move { lives(seed, true).await });
        match alone.join_next().await {
            Some(Ok(lost)) if lost.is_empty() => {}
            _ => return,
        }
    }
    panic!("no cut lost anything although nothing was ever flushed");
}
