//! Members of one group, each with the real worker, over a real broker; the ledger is in memory.

use crate::rig::kafka_broker::Broker;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::consume::Kinds;
use tidegate::dedupe::Instance;
use tidegate::engine::distributed::kafka::{Kafka, KafkaLog, Properties};
use tidegate::engine::distributed::simulated::{Process, Reached, SimulatedLog, SimulatedStore, World};
use tidegate::engine::distributed::{self, Parts, Start};
use tidegate::engine::{AppendError, Engine, Ledger, Log as _, Output};
use tidegate::infer::Models;
use tidegate::settings::{self, Settings};
use tidegate::task::{Headers, ScopedKey, Topic};
use tidegate::worker::Worker;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITIONS: i32 = 4;
const CONFIGURATION: &str = "[tasks.copy]\n[engine]\npartitions = 4\n[worker]\nin_flight = 16\n";

pub(crate) struct Cluster {
    pub(crate) broker: Broker,
    settings: Arc<Settings>,
    world: Arc<World>,
    store: Arc<SimulatedStore>,
    /// For whoever sends.
    log: Arc<KafkaLog>,
    /// The last member's.
    ledger: Option<Arc<dyn Ledger>>,
    next: u32,
    _nature: JoinSet<()>,
}

/// A process of its own, as far as one process can hold several.
pub(crate) struct Running {
    kafka: Arc<Kafka>,
    parts: Parts,
    stop: CancellationToken,
    work: JoinSet<()>,
}

impl Running {
    /// In the middle of whatever it does: nothing is handed in or ended any more.
    pub(crate) fn kill(mut self) {
        self.work.abort_all();
        self.parts.end();
    }

    pub(crate) async fn leave(mut self) {
        self.stop.cancel();
        while self.work.join_next().await.is_some() {}
        self.parts.close().await;
        self.kafka.left(Duration::from_secs(5)).await;
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let broker = Broker::start();
        if std::env::var("TIDEGATE_TRACE").is_ok() {
            let filter = tracing_subscriber::EnvFilter::new("tidegate=trace,librdkafka=trace");
            // Another test may have done so.
            let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        }
        let settings = Settings::parse(Path::new("live.toml"), CONFIGURATION, &|_| None);
        let settings = Arc::new(settings.unwrap_or_else(|e| panic!("{e}")));
        let specs = settings::topics(&settings);
        let topics: Vec<(&str, i32)> = specs.iter().map(|t| (t.topic.as_str(), PARTITIONS)).collect();
        broker.create(&topics, &[]).await;
        let world = World::new(1, &specs);
        let store = SimulatedStore::new(world.clone(), settings.engine.dedupe_window);
        let kafka = Kafka::new(properties(&broker), Instance(u128::MAX), "live");
        let log = kafka.log(&specs).unwrap();
        let mut nature = JoinSet::new();
        nature.spawn(store.clone().run());
        Cluster { broker, settings, world, store, log, ledger: None, next: 0, _nature: nature }
    }

    pub(crate) fn member(&mut self) -> Running {
        self.next += 1;
        let instance = Instance(rand::random());
        let start = Start { instance, window: self.settings.engine.dedupe_window, start_anyway: false };
        let kafka = Kafka::new(properties(&self.broker), instance, "live");
        let reached = Reached { store: self.store.clone(), process: Process(self.next) };
        let parts = distributed::open(&start, kafka.clone(), Arc::new(reached));
        self.ledger = Some(parts.ledger.clone());
        let operation = SimulatedLog::new(self.world.clone());
        let engine = Engine {
            groups: parts.groups.clone(),
            commits: parts.commits.clone(),
            log: self.log.clone(),
            ledger: parts.ledger.clone(),
            journal: parts.journal.clone(),
            operation,
        };
        let kinds = Arc::new(Kinds::new(&self.settings));
        let models = Arc::new(Models::new(&self.settings.models, 4 << 20).unwrap());
        let worker = Worker::new(engine, self.settings.clone(), kinds, models);
        let stop = CancellationToken::new();
        let until = stop.clone();
        let mut work = JoinSet::new();
        work.spawn(async move { worker.run(until).await });
        Running { kafka, parts, stop, work }
    }

    /// Keys `from..to`, every third one three times, in any partition. What was sent lies where?
    pub(crate) async fn send(&self, from: usize, to: usize) -> BTreeMap<String, Vec<(u32, u64)>> {
        self.sender().send(from, to).await
    }

    pub(crate) fn sender(&self) -> Sender {
        Sender(self.log.clone())
    }

    /// How many results each key has, as a reader of committed records finds them.
    pub(crate) fn results(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for (key, _) in read_all(&self.broker, "results", "tidegate-key") {
            *found.entry(key).or_default() += 1;
        }
        found
    }

    /// What is committed and what is open, for who looks for a fault.
    async fn standing(&self, missing: &[&String]) -> String {
        let keys: Vec<ScopedKey> = missing.iter().map(|key| ScopedKey::new("", "copy", key)).collect();
        let known = match &self.ledger {
            Some(ledger) => ledger.look_all(keys).await,
            None => Ok(Vec::new()),
        };
        let open: Vec<String> = self.store.open().iter().map(|claim| format!("{claim:?}")).collect();
        let asker: BaseConsumer = self.broker.config().set("group.id", "live.worker").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range("tasks.copy", 0, PARTITIONS - 1);
        let committed = asker.committed_offsets(list, Duration::from_secs(5));
        let ends: Vec<_> = (0..PARTITIONS)
            .map(|index| asker.fetch_watermarks("tasks.copy", index, Duration::from_secs(5)))
            .collect();
        format!("known: {known:?}; open: {open:?}; committed: {committed:?}; ends: {ends:?}")
    }

    /// Waits for a result of each key, and then for any that comes too much.
    pub(crate) async fn expect_one_each(&self, keys: &BTreeSet<String>, within: Duration) {
        let began = Instant::now();
        loop {
            let results = self.results();
            let missing: Vec<&String> = keys.iter().filter(|key| !results.contains_key(*key)).collect();
            if missing.is_empty() {
                break;
            }
            if began.elapsed() >= within {
                panic!("no result of {missing:?}; {}", self.standing(&missing).await);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let expected: BTreeMap<String, usize> = keys.iter().map(|key| (key.clone(), 1)).collect();
        assert_eq!(self.results(), expected, "every key has one result, and nothing else has");
        assert_eq!(read_all(&self.broker, "dead-letters", "tidegate-reason"), [], "nothing was buried");
    }
}

/// Sends while other things happen.
pub(crate) struct Sender(Arc<KafkaLog>);

impl Sender {
    pub(crate) async fn send(self, from: usize, to: usize) -> BTreeMap<String, Vec<(u32, u64)>> {
        let mut sent: BTreeMap<String, Vec<(u32, u64)>> = BTreeMap::new();
        for n in from..to {
            let key = format!("k{n}");
            let copies = if n % 3 == 0 { 3 } else { 1 };
            let copy = |copy| Output {
                topic: Topic::new("tasks.copy"),
                key: Some(format!("{n}-{copy}").into()),
                value: Some(format!("{{\"n\":{n}}}").into()),
                headers: Headers::default().with("idempotency-key", key.clone().into_bytes()),
                not_before: None,
            };
            // As whoever is told that it was perhaps not appended: again.
            let lies = loop {
                match self.0.append((0..copies).map(copy).collect()).await {
                    Ok(lies) => break lies,
                    Err(AppendError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            sent.insert(key, lies.into_iter().map(|p| (p.at.index, p.offset)).collect());
        }
        sent
    }
}

pub(crate) fn properties(broker: &Broker) -> Properties {
    let given = [
        ("bootstrap.servers", broker.address.as_str()),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
    ];
    Properties::new(given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()).unwrap()
}

/// A header and the value of every committed record, by a client that has nothing of ours.
pub(crate) fn read_all(broker: &Broker, topic: &str, header: &str) -> Vec<(String, String)> {
    let mut config = broker.config();
    config.set("group.id", "checks").set("isolation.level", "read_committed");
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    config.set("fetch.wait.max.ms", "10");
    let reader: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for index in 0..PARTITIONS {
        list.add_partition_offset(topic, index, Offset::Beginning).unwrap();
    }
    reader.assign(&list).unwrap();
    let (mut found, mut ended) = (Vec::new(), BTreeSet::new());
    let until = Instant::now() + Duration::from_secs(60);
    while ended.len() < PARTITIONS as usize {
        assert!(Instant::now() < until, "`{topic}` cannot be read to its end");
        match reader.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                let headers = message.headers().unwrap();
                let value =
                    headers.iter().find(|h| h.key == header).and_then(|h| h.value).unwrap_or_default();
                let payload = message.payload().unwrap_or_default();
                found.push((
                    String::from_utf8(value.to_vec()).unwrap(),
                    String::from_utf8(payload.to_vec()).unwrap(),
                ));
            }
            Some(Err(KafkaError::PartitionEOF(index))) => drop(ended.insert(index)),
            Some(Err(_)) | None => {}
        }
    }
    found
}
