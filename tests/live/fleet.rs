//! Processes of the real binary over a real broker and Redis: started, told to end, killed; and what is
//! found out from outside: which outcomes each key has, and how often a model was asked for it.

use crate::rig::api::Api;
use crate::rig::cluster;
use crate::rig::left_out;
use crate::rig::place::{self, Place, Rest};
use crate::rig::process::{Process, free_port, listening};
use crate::rig::script::{Asked, Provider, Reply};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub(crate) const PARTITIONS: u32 = 4;
/// Of the tasks' topic, once it has grown: enough for each of several processes to have many. Its group reads
/// no other topic: the tokens' have a group of their own.
pub(crate) const SHARED: i32 = 6 * PARTITIONS as i32;
/// Longer than a session, a heartbeat in the ledger, and a transaction that nobody ends any more, together.
pub(crate) const TAKEN_OVER: Duration = Duration::from_secs(90);
const UP: Duration = Duration::from_secs(60);
const ASKED: Duration = Duration::from_secs(60);

pub(crate) const KINDS: &str = "[tasks.ticket]\nmodels = [\"main\"]\nask = \"Classify this support ticket.\"\n\
     input = { text = \"string\" }\nanswer = { category = [\"bug\", \"other\"], confidence = \"number\" }\n\
     review = { start = \"line\" }\n";

pub(crate) fn good() -> Reply {
    Reply::json(json!({ "category": "bug", "confidence": 0.97 }))
}

/// Of a model, where the provider is to hear who asks.
const NAMED: &str = "headers = { x-asker = \"env:MEMBER\" }\n";

/// Several processes of one configuration.
pub(crate) struct Fleet {
    pub(crate) place: Place,
    pub(crate) provider: Provider,
    pub(crate) prefix: String,
    pub(crate) kafka: String,
    lives: u32,
}

pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) api: Api,
    /// What it is called where the fleet names its members.
    pub(crate) name: String,
}

/// A record, as a client that has nothing of ours finds it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Found {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default()).unwrap_or_default()
    }
}

impl Fleet {
    /// On the servers that live tests share.
    pub(crate) async fn new(rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let shared = cluster::servers();
        Fleet::on(&shared.kafka, &shared.redis, "", rule).await
    }

    /// `more`: other lines of `[engine]`.
    pub(crate) async fn on(
        kafka: &str,
        redis: &str,
        more: &str,
        rule: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let provider = Provider::start(rule).await;
        let prefix = place::prefix();
        let engine = cluster::engine(kafka, redis, &prefix, PARTITIONS) + more;
        let place =
            Place::on(prefix.clone(), engine, &format!("{KINDS}{}", provider.patient_model("main", 60)));
        Fleet { place, provider, prefix, kafka: kafka.to_owned(), lives: 0 }
    }

    /// From now on the provider hears who asks: `1` for the first process, `2` for the second.
    pub(crate) fn names_its_members(&self) {
        self.configure("timeouts = {", &format!("{NAMED}timeouts = {{"));
    }

    /// What its processes have left, once none runs.
    pub(crate) fn rest(&self) -> Rest {
        // Whoever only looks has no name.
        self.configure(NAMED, "");
        self.place.open()
    }

    pub(crate) fn configure(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.place.config()).unwrap();
        std::fs::write(self.place.config(), config.replace(from, to)).unwrap();
    }

    /// Started and ready.
    pub(crate) async fn start(&mut self) -> Member {
        self.start_with(&[]).await
    }

    pub(crate) async fn start_with(&mut self, told: &[(&str, &str)]) -> Member {
        self.lives += 1;
        let port = free_port();
        let mut command = self.place.command();
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).envs(told.iter().copied());
        command.env("MEMBER", self.lives.to_string());
        if std::env::var("TIDEGATE_TRACE").is_ok() {
            command.env("TIDEGATE_LOG", "tidegate=trace,librdkafka=debug");
        }
        self.place.apply(&command);
        let mut process = Process::start(command, &self.place.path(&format!("member-{}.log", self.lives)));
        listening(&mut process, port, UP).await;
        let (api, began) = (Api::new(port), Instant::now());
        while !api.is_ready().await {
            if began.elapsed() > UP {
                panic!("not ready: {:?}; {}", api.get("/readyz").await, self.said());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Member { process, api, name: self.lives.to_string() }
    }

    /// Does not come up: how it ended, and what it said.
    pub(crate) fn refused(&mut self, told: &[(&str, &str)]) -> (i32, String) {
        self.lives += 1;
        let mut command = self.place.command();
        command.arg("--listen").arg(format!("127.0.0.1:{}", free_port())).envs(told.iter().copied());
        let mut process = Process::start(command, &self.place.path(&format!("member-{}.log", self.lives)));
        let status = process.wait(UP).unwrap_or_else(|| panic!("it runs all the same: {}", process.words()));
        // As it would be read: without the breaks of lines.
        let words = process.words().split_whitespace().collect::<Vec<_>>().join(" ");
        (status.code().unwrap_or(-1), words)
    }

    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka);
        config
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// Gives the tasks' topic so many partitions in all.
    pub(crate) async fn grow(&self, partitions: usize) {
        let topic = self.topic("tasks.ticket");
        let more = [NewPartitions::new(&topic, partitions)];
        let grown = self.admin().create_partitions(&more, &AdminOptions::new()).await.unwrap();
        grown.into_iter().for_each(|made| drop(made.unwrap()));
    }

    /// Sets one thing of a topic's configuration, as an operator would.
    pub(crate) async fn alter(&self, name: &str, set: (&str, &str)) {
        let topic = self.topic(name);
        let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set(set.0, set.1);
        let altered = self.admin().alter_configs([&change], &AdminOptions::new()).await.unwrap();
        altered.into_iter().for_each(|done| drop(done.unwrap()));
    }

    /// One thing of a topic's configuration, as the broker has it.
    pub(crate) async fn setting(&self, name: &str, of: &str) -> String {
        let topic = self.topic(name);
        let asked = [ResourceSpecifier::Topic(&topic)];
        let found =
            self.admin().describe_configs(&asked, &AdminOptions::new()).await.unwrap().remove(0).unwrap();
        found.get(of).and_then(|entry| entry.value.clone()).unwrap_or_default()
    }

    pub(crate) fn sender(&self) -> Sender {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("message.max.bytes", "4000000");
        let producer = config.create().unwrap();
        Sender { producer, topic: self.topic("tasks.ticket") }
    }

    /// Tasks under these keys, durable on return.
    pub(crate) fn send(&self, keys: &[&str]) {
        let sender = self.sender();
        keys.iter().for_each(|key| sender.task(key, 0));
        sender.flush();
    }

    /// Every committed record of a topic.
    pub(crate) fn records(&self, name: &str) -> Vec<Found> {
        let mut config = self.config();
        config.set("group.id", "checks").set("isolation.level", "read_committed");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        config.set("fetch.wait.max.ms", "10");
        let reader: BaseConsumer = config.create().unwrap();
        let topic = self.topic(name);
        let metadata = reader.fetch_metadata(Some(&topic), ASKED).unwrap();
        let parts: Vec<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
        let mut list = TopicPartitionList::new();
        for index in &parts {
            list.add_partition_offset(&topic, *index, Offset::Beginning).unwrap();
        }
        reader.assign(&list).unwrap();
        let (mut found, mut ended) = (Vec::new(), BTreeSet::new());
        let until = Instant::now() + Duration::from_secs(60);
        while ended.len() < parts.len() {
            assert!(Instant::now() < until, "`{topic}` cannot be read to its end");
            match reader.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => found.push(read(&message)),
                Some(Err(KafkaError::PartitionEOF(index))) => drop(ended.insert(index)),
                Some(Err(_)) | None => {}
            }
        }
        found
    }

    /// What each key has come to: results by their status, dead letters by their reason.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for result in self.records("results") {
            let status = result.json()["status"].as_str().unwrap_or_default().to_owned();
            all.entry(result.header("tidegate-key").to_owned()).or_default().push(status);
        }
        for letter in self.records("dead-letters") {
            let reason = letter.header("tidegate-reason").to_owned();
            all.entry(letter.header("tidegate-key").to_owned()).or_default().push(reason);
        }
        all
    }

    /// Waits until each key has an outcome, and then for one that would be too much: each has one, an
    /// accepted result, and nobody else has any.
    pub(crate) async fn one_result_each(&self, keys: &BTreeSet<String>, within: Duration) {
        let began = Instant::now();
        loop {
            let outcomes = self.outcomes();
            let missing: Vec<&String> = keys.iter().filter(|key| !outcomes.contains_key(*key)).collect();
            if missing.is_empty() {
                break;
            }
            assert!(began.elapsed() < within, "no outcome of {missing:?} within {within:?}; {}", self.said());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let expected: BTreeMap<String, Vec<String>> =
            keys.iter().map(|key| (key.clone(), vec!["accepted".to_owned()])).collect();
        assert_eq!(self.outcomes(), expected, "one outcome each; {}", self.said());
    }

    /// How often a model was asked for each key.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for asked in self.provider.asked() {
            *calls.entry(key_of(&asked)).or_default() += 1;
        }
        calls
    }

    /// How many calls each key's result owns up to: its tries, and those that a death had repeated.
    pub(crate) fn told(&self) -> BTreeMap<String, usize> {
        let count = |result: &Found| {
            let tries = result.json()["tries"].as_array().cloned().unwrap_or_default();
            tries.iter().map(|t| 1 + t["repeats"].as_u64().unwrap_or(0)).sum::<u64>()
        };
        let results = self.records("results");
        results
            .iter()
            .map(|r| (r.header("tidegate-key").to_owned(), usize::try_from(count(r)).unwrap()))
            .collect()
    }

    /// What was complained of, for who looks for a fault.
    pub(crate) fn said(&self) -> String {
        let words = (1..=self.lives).map(|n| {
            let words = std::fs::read_to_string(self.place.path(&format!("member-{n}.log")));
            let words = words.unwrap_or_default();
            let from = words.len().saturating_sub(4_000);
            let from = (from..words.len()).find(|at| words.is_char_boundary(*at)).unwrap_or(from);
            format!("\n--- process {n}:\n{}", &words[from..])
        });
        words.collect()
    }

    /// Of each of its groups, the ids of its members.
    pub(crate) fn members(&self) -> BTreeMap<String, BTreeSet<String>> {
        let other: BaseConsumer = self.config().create().unwrap();
        let found = other.fetch_group_list(None, ASKED).unwrap();
        let ours = found.groups().iter().filter(|group| group.name().starts_with(&self.prefix));
        ours.map(|group| (group.name().to_owned(), keys(group.members().iter().map(|m| m.id())))).collect()
    }

    /// What is committed for the tasks' topic by the worker's group: partition, offset, what lies beside it.
    pub(crate) fn committed(&self, group: &str) -> Vec<(u32, i64, String)> {
        let group = format!("{}{group}.worker", self.prefix);
        let other: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.topic("tasks.ticket"), 0, PARTITIONS as i32 - 1);
        let found = other.committed_offsets(list, ASKED).unwrap();
        let of = |p: &TopicPartitionListElem<'_>| {
            let Offset::Offset(offset) = p.offset() else { return None };
            Some((u32::try_from(p.partition()).unwrap(), offset, p.metadata().to_owned()))
        };
        found.elements().iter().filter_map(of).collect()
    }

    /// Writes offsets of the worker's group as somebody else: partition, offset, what lies beside it.
    pub(crate) fn commit(&self, group: &str, offsets: &[(u32, i64, &str)]) {
        let group = format!("{}{group}.worker", self.prefix);
        let other: BaseConsumer = self.config().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        for (index, offset, beside) in offsets {
            let mut part = list.add_partition(&self.topic("tasks.ticket"), i32::try_from(*index).unwrap());
            part.set_offset(Offset::Offset(*offset)).unwrap();
            part.set_metadata(*beside);
        }
        // A member that has just left may be known for a moment longer.
        let began = Instant::now();
        while let Err(error) = other.commit(&list, CommitMode::Sync) {
            assert!(began.elapsed() < UP, "{error}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Sends while other things happen.
pub(crate) struct Sender {
    producer: BaseProducer,
    topic: String,
}

impl Sender {
    /// `copy`: another one of the same task, perhaps in another partition.
    pub(crate) fn task(&self, key: &str, copy: usize) {
        self.record(
            &format!("{key}-{copy}"),
            Some(task(key).as_bytes()),
            &[("idempotency-key", key.as_bytes())],
        );
    }

    pub(crate) fn task_in(&self, key: &str, partition: i32) {
        let (value, headers) = (task(key), [("idempotency-key", key.as_bytes())]);
        self.send(Some(partition), key, Some(value.as_bytes()), &headers);
    }

    /// A copy of the same task in each of so many partitions, one right after the other.
    pub(crate) fn task_in_each(&self, key: &str, partitions: i32) {
        (0..partitions).for_each(|at| self.task_in(key, at));
    }

    pub(crate) fn record(&self, under: &str, value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        self.send(None, under, value, headers);
    }

    fn send(&self, partition: Option<i32>, under: &str, value: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        let owned = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&self.topic).key(under).headers(owned);
        record.partition = partition;
        if let Some(value) = value {
            record = record.payload(value);
        }
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.poll(Duration::ZERO);
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }
}

/// The payload of a task, which says its key.
fn task(key: &str) -> String {
    json!({ "text": format!("number {key} .") }).to_string()
}

/// The key that a call was for: the payload says it.
pub(crate) fn key_of(asked: &Asked) -> String {
    let words = asked.words();
    let from = words.find("number ").map_or("", |at| &words[at + 7..]);
    from.split(" .").next().unwrap_or_default().to_owned()
}

pub(crate) fn keys(names: impl IntoIterator<Item = impl Into<String>>) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

/// The most memory that a process has used, in MiB. Linux says.
pub(crate) fn peak_mib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak.and_then(|kib| kib.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
    if kib == 0 {
        left_out("the peak of memory", "the system does not say");
    }
    kib / 1024
}

fn read(message: &impl Message) -> Found {
    let headers = message.headers().into_iter().flat_map(|all| {
        (0..all.count()).map(|n| {
            let header = all.get(n);
            (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
        })
    });
    Found {
        partition: message.partition(),
        offset: message.offset(),
        headers: headers.collect(),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
