//! A few processes, of the real worker or of the stand-in, over one simulated cluster.

use super::caller::{Book, Caller};
use super::load::Load;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate::consume::Kinds;
use tidegate::dedupe::{ClaimView, Instance};
use tidegate::engine::distributed::simulated::{
    Faults, Process, Reached, SimulatedBroker, SimulatedLog, SimulatedStore, World,
};
use tidegate::engine::distributed::{self, Parts, Start};
use tidegate::engine::{Engine, Health, Ledger, Output};
use tidegate::infer::Models;
use tidegate::review::Arbiter;
use tidegate::settings::{self, Settings};
use tidegate::task::{Headers, Record, Timestamp, Topic};
use tidegate::worker::{View, Worker};
use tidegate::write::record::{Action, Decision, ReviewItem};
use tidegate::write::{DeadLetter, Redrive, redrive};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

thread_local! {
    static BEGAN: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    /// By how many milliseconds the wall clock has jumped.
    static JUMPED: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// The wall clock of all, the ledger's too, jumps; time itself goes on as before.
pub(super) fn jump(by_ms: i64) {
    JUMPED.set(JUMPED.get() + by_ms);
}

/// The wall clock of this thread is the runtime's, from a fixed day on.
pub(super) fn virtual_clock() {
    BEGAN.set(Some(Instant::now()));
    JUMPED.set(0);
    Timestamp::simulate(|| {
        let passed = BEGAN.get().map_or(Duration::ZERO, |began| began.elapsed());
        Timestamp(1_800_000_000_000 + JUMPED.get()).plus(passed)
    });
}

pub(super) struct Cluster {
    pub(super) world: Arc<World>,
    pub(super) store: Arc<SimulatedStore>,
    settings: Arc<Settings>,
    running: BTreeMap<Process, Running>,
    killed: BTreeMap<Process, Instant>,
    next: u32,
    /// Every process makes calls, which are written down here; else it copies.
    calls: Option<Book>,
    /// What stands between a worker and its ledger.
    pub(super) between: fn(Arc<dyn Ledger>) -> Arc<dyn Ledger>,
    /// Broker and store.
    _nature: JoinSet<()>,
}

struct Running {
    parts: Parts,
    /// Of the real worker.
    view: Option<View>,
    stop: CancellationToken,
    work: JoinSet<()>,
}

impl Cluster {
    pub(super) fn new(seed: u64, configuration: &str, calls: Option<Book>) -> Self {
        let settings = Settings::parse(Path::new("simulated.toml"), configuration, &|_| None);
        let settings = Arc::new(settings.unwrap_or_else(|e| panic!("{e}")));
        let world = World::new(seed, &settings::topics(&settings));
        let store = SimulatedStore::new(world.clone(), settings.engine.dedupe_window);
        let mut nature = JoinSet::new();
        nature.spawn(world.clone().run());
        nature.spawn(store.clone().run());
        Cluster {
            world,
            store,
            settings,
            running: BTreeMap::new(),
            killed: BTreeMap::new(),
            next: 0,
            calls,
            between: |ledger| ledger,
            _nature: nature,
        }
    }

    /// From now on processes are started with this configuration; those that run keep theirs.
    pub(super) fn upgrade(&mut self, configuration: &str) {
        let settings = Settings::parse(Path::new("simulated.toml"), configuration, &|_| None);
        self.settings = Arc::new(settings.unwrap_or_else(|e| panic!("{e}")));
    }

    pub(super) fn start(&mut self) -> Process {
        self.next += 1;
        let process = Process(self.next);
        let start = Start {
            instance: Instance(u128::from(self.next)),
            window: self.settings.engine.dedupe_window,
            start_anyway: false,
        };
        let broker = Arc::new(SimulatedBroker { world: self.world.clone(), process });
        let reached = Arc::new(Reached { store: self.store.clone(), process });
        let parts = distributed::open(&start, broker, reached);
        let log = SimulatedLog::new(self.world.clone());
        let engine = Engine {
            groups: parts.groups.clone(),
            commits: parts.commits.clone(),
            log: log.clone(),
            ledger: (self.between)(parts.ledger.clone()),
            journal: parts.journal.clone(),
            operation: log,
        };
        let kinds = Arc::new(Kinds::new(&self.settings));
        let stop = CancellationToken::new();
        let until = stop.clone();
        let (mut work, mut view) = (JoinSet::new(), None);
        if let Some(book) = self.calls.clone() {
            let arbiter = Arbiter::new(engine.clone(), self.settings.clone(), kinds.clone());
            let (world, store, settings) = (self.world.clone(), self.store.clone(), self.settings.clone());
            let alone = Arc::default();
            let caller = Caller { engine, settings, kinds, process, world, store, book, alone };
            work.spawn(caller.run(until.clone()));
            work.spawn(async move { arbiter.run(until).await });
        } else {
            let models = Arc::new(Models::new(&self.settings.models, 4 << 20).unwrap());
            let worker = Worker::new(engine, self.settings.clone(), kinds, models);
            view = Some(worker.view());
            work.spawn(async move { worker.run(until).await });
        }
        self.running.insert(process, Running { parts, view, stop, work });
        process
    }

    /// Whether the process was killed, or ended or went on without reaching the ledger, at some time between the two.
    pub(super) fn was_away(&self, process: Process, begin: Instant, end: Instant) -> bool {
        self.killed.get(&process).is_some_and(|killed| *killed <= end)
            || self.world.was_cut_off(process, begin, end)
    }

    pub(super) fn processes(&self) -> Vec<Process> {
        self.running.keys().copied().collect()
    }

    pub(super) fn health(&self, process: Process) -> Health {
        self.running[&process].parts.health().borrow().clone()
    }

    /// Why a partition of its worker waits that has lost records.
    pub(super) fn waits(&self, process: Process) -> Option<String> {
        self.running[&process].view.as_ref()?.waits()
    }

    /// Between two steps, whatever it is doing.
    pub(super) fn kill(&mut self, process: Process) {
        self.world.kill(process);
        self.killed.insert(process, Instant::now());
        if let Some(mut running) = self.running.remove(&process) {
            running.work.abort_all();
            running.parts.end();
        }
    }

    /// Who was caught in a trap does nothing more.
    pub(super) fn bury(&mut self) -> Vec<Process> {
        let dead: Vec<Process> = self.processes().into_iter().filter(|p| self.world.is_dead(*p)).collect();
        for process in &dead {
            self.killed.insert(*process, Instant::now());
            if let Some(mut running) = self.running.remove(process) {
                running.work.abort_all();
                running.parts.end();
            }
        }
        dead
    }

    /// In order, as at a deploy.
    pub(super) async fn leave(&mut self, process: Process) {
        if let Some(mut running) = self.running.remove(&process) {
            running.stop.cancel();
            while running.work.join_next().await.is_some() {}
            running.parts.close().await;
            self.world.kill(process);
            // What it could not store is gone with it, as if it had been killed.
            if self.store.is_away() {
                self.killed.insert(process, Instant::now());
            }
        }
    }

    /// As the program does: whose client has failed for good drains, and ends.
    pub(super) async fn end_those_gone(&mut self) -> Vec<Process> {
        let is_gone = |process: &Process| matches!(self.health(*process), Health::Gone { .. });
        let gone: Vec<Process> = self.processes().into_iter().filter(is_gone).collect();
        for process in &gone {
            // Whoever waits for a commit has been answered, else it would wait for ever.
            let leaves = tokio::time::timeout(Duration::from_secs(60), self.leave(*process)).await;
            assert!(leaves.is_ok(), "process {} never ends", process.0);
        }
        gone
    }

    pub(super) fn committed(&self, topic: &str) -> Vec<Record> {
        self.world.committed(&Topic::new(topic))
    }

    /// Items that wait for a person, each with the place where it lies.
    pub(super) fn items(&self) -> Vec<(ReviewItem, String)> {
        let mut open = BTreeMap::new();
        for record in self.world.committed(&self.settings.topics.review_requests) {
            let item = record.value.as_ref().map(|v| serde_json::from_slice::<ReviewItem>(v).unwrap());
            match item {
                Some(item) => open.insert(record.key, (item, record.position.to_string())),
                None => open.remove(&record.key),
            };
        }
        open.into_values().collect()
    }

    /// A person approves.
    pub(super) fn approve(&self, item: &ReviewItem, at: &str, by: &str) {
        let decision = Decision {
            v: 1,
            item: item.id.clone(),
            item_at: at.to_owned(),
            action: Action::Approve,
            by: by.to_owned(),
            reason: None,
            answer: None,
            nonce: by.to_owned(),
            at: Timestamp::now(),
        };
        let output = Output {
            topic: self.settings.topics.review_decisions.clone(),
            key: Some(item.id.clone().into()),
            value: Some(serde_json::to_vec(&decision).unwrap().into()),
            headers: Headers::default(),
            not_before: None,
        };
        self.world.append(vec![output]).unwrap();
    }

    /// Dead letters that are the outcome of their key.
    pub(super) fn letters(&self) -> Vec<DeadLetter> {
        let letters = self.world.committed(&self.settings.topics.dead_letters).into_iter();
        letters.map(DeadLetter::read).filter(|letter| letter.outcome).collect()
    }

    pub(super) fn redrive(&self, letter: &DeadLetter) {
        let Redrive::Send(output) = redrive(&self.settings.topics, letter) else {
            panic!("it cannot be redriven: {letter:?}")
        };
        self.world.append(vec![*output]).unwrap();
    }

    pub(super) async fn ledger_away_for(&self, pause: Duration) {
        self.store.away_for(pause).await;
    }

    /// How long the ledger was away at most.
    pub(super) fn longest_outage(&self) -> Duration {
        self.store.longest()
    }

    /// Keys of claims that the ledger calls open.
    pub(super) fn open(&self) -> BTreeSet<String> {
        self.store.open().into_iter().map(|claim| claim.key.key.to_string()).collect()
    }

    /// What the ledger has open of these keys.
    pub(super) fn claims(&self, keys: &[String]) -> Vec<ClaimView> {
        let mut open = self.store.open();
        open.retain(|claim| keys.iter().any(|key| **key == *claim.key.key));
        open
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.world.trace()
    }

    pub(super) async fn live(&mut self, load: &Load, faults: Faults) -> Result<String, String> {
        load.run(self, faults).await
    }
}
