//! The yardstick: consume, produce, commit with librdkafka and nothing in between, with the same settings and
//! the same way of waiting for deliveries as the engine. And what fills and reads topics for the others.

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers as _, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tidegate::engine::distributed::committer::{APART, BATCH_BYTES, BREATH};
use tidegate::engine::distributed::kafka::ENDS;

const WAIT: Duration = Duration::from_secs(30);

fn config(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("reconnect.backoff.max.ms", "1000");
    config
}

pub(crate) fn consumer(servers: &str, group: &str) -> BaseConsumer {
    config(servers)
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("queued.min.messages", "512")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "100")
        .create()
        .unwrap()
}

fn transactional(servers: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = config(servers)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "10000")
        .set("message.timeout.ms", "8000")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("retry.backoff.ms", "5")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("batch.size", (512 << 10).to_string())
        .create()
        .unwrap();
    producer.init_transactions(WAIT).unwrap();
    producer
}

/// Waits as the engine does: the client's own waiting takes a tenth of a second each time.
fn delivered(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::ZERO);
        if producer.in_flight_count() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What the broker has said of each record.
#[derive(Default)]
struct Told(Mutex<Vec<KafkaError>>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().push(error.clone());
        }
    }
}

/// Appends as any producer would, outside of transactions, and insists that the broker has each.
pub(crate) fn fill(servers: &str, topic: &str, records: impl Iterator<Item = (String, String)>) {
    send(servers, topic, "5", records);
}

/// The same, each record at once.
pub(crate) fn trickle(servers: &str, topic: &str, records: impl Iterator<Item = (String, String)>) {
    send(servers, topic, "0", records);
}

fn send(servers: &str, topic: &str, linger_ms: &str, records: impl Iterator<Item = (String, String)>) {
    use rdkafka::message::{Header, OwnedHeaders};
    let producer: BaseProducer<Told> = config(servers)
        .set("linger.ms", linger_ms)
        .set("enable.idempotence", "true")
        .create_with_context(Told::default())
        .unwrap();
    for (at, (key, value)) in records.enumerate() {
        let header = Header { key: "idempotency-key", value: Some(key.as_bytes()) };
        let headers = OwnedHeaders::new().insert(header);
        // Copies of a key lie in different partitions.
        let record_key = format!("{key}-{at}");
        let mut record = BaseRecord::to(topic).key(&record_key).payload(&value).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            assert!(
                error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull),
                "{error}"
            );
            record = back;
            producer.poll(Duration::from_millis(5));
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(300)).unwrap();
    let lost = producer.context().0.lock().unwrap();
    assert!(lost.is_empty(), "{} records were not taken: {:?}", lost.len(), lost.first());
}

/// When the next commit is due, as with the engine: a while after the last began; and where there is much to do
/// (`busy`), as long after it has ended as it took.
struct Pace {
    due: Instant,
    /// When the next one may be begun: who begins at once is sent away, and comes back later.
    open: Instant,
}

impl Pace {
    fn begin() -> Self {
        Pace { due: Instant::now(), open: Instant::now() }
    }

    fn wait_for_ends(&self) {
        std::thread::sleep(self.open.saturating_duration_since(Instant::now()));
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    fn around(&mut self, busy: bool, commit: impl FnOnce()) {
        let began = Instant::now();
        commit();
        let rest = if busy { began.elapsed().min(BREATH) } else { Duration::ZERO };
        self.due = (began + APART).max(Instant::now() + rest);
        self.open = Instant::now() + ENDS;
    }
}

/// Copies all that lies on `from`, `records` of them, to `to`, at most so many in a commit: seconds from the first record to the last commit.
pub(crate) fn copy(servers: &str, from: &str, to: &str, records: usize, most: usize) -> f64 {
    let consumer = consumer(servers, &format!("bare-{to}"));
    consumer.subscribe(&[from]).unwrap();
    let producer = transactional(servers, &format!("bare-{to}"));
    let mut begun = None;
    let (mut copied, mut held, mut bytes, mut pace) = (0, 0, 0, Pace::begin());
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut open = false;
    while copied < records {
        if let Some(message) = consumer.poll(Duration::from_millis(1)) {
            let message = message.unwrap();
            begun.get_or_insert_with(Instant::now);
            if !open {
                pace.wait_for_ends();
                producer.begin_transaction().unwrap();
                open = true;
            }
            let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(to).key(key).payload(value);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            bytes += key.len() + value.len();
            (copied, held) = (copied + 1, held + 1);
            next.insert(message.partition(), message.offset() + 1);
        }
        let full = copied == records || held >= most || bytes >= BATCH_BYTES;
        if open && (full || pace.is_due()) {
            pace.around(true, || commit(&producer, &consumer, from, &next));
            (open, held, bytes) = (false, 0, 0);
        }
    }
    begun.unwrap_or_else(Instant::now).elapsed().as_secs_f64()
}

fn commit(producer: &BaseProducer, consumer: &BaseConsumer, topic: &str, next: &BTreeMap<i32, i64>) {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    let group = consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&offsets, &group, WAIT).unwrap();
    delivered(producer);
    producer.commit_transaction(WAIT).unwrap();
}

/// Takes each record as it comes and publishes it, until `until` says so; for latencies.
pub(crate) fn pass_on(
    servers: &str,
    from: &str,
    to: &str,
    taken: &std::sync::Mutex<std::collections::HashMap<String, Instant>>,
    until: impl Fn() -> bool,
) {
    let consumer = consumer(servers, &format!("bare-{to}"));
    consumer.subscribe(&[from]).unwrap();
    let producer = transactional(servers, &format!("bare-{to}"));
    let mut pace = Pace::begin();
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut open = false;
    while !until() {
        // All that is there goes into one transaction.
        let mut there = consumer.poll(Duration::from_millis(1));
        while let Some(message) = there {
            let message = message.unwrap();
            let value = message.payload().unwrap_or_default();
            let name = name_of(&message);
            taken.lock().unwrap().insert(name.clone(), Instant::now());
            if !open {
                pace.wait_for_ends();
                producer.begin_transaction().unwrap();
                open = true;
            }
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(to).key(name.as_bytes()).payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            next.insert(message.partition(), message.offset() + 1);
            there = consumer.poll(Duration::ZERO);
        }
        if open && pace.is_due() {
            pace.around(false, || commit(&producer, &consumer, from, &next));
            open = false;
        }
    }
}

/// The key of a task's record.
pub(crate) fn name_of(message: &BorrowedMessage<'_>) -> String {
    let header = message.headers().and_then(|h| h.iter().find(|h| h.key == "idempotency-key"));
    String::from_utf8_lossy(header.and_then(|h| h.value).unwrap_or_default()).into_owned()
}

/// Every committed record of a topic from its beginning to its end of now: key, and headers by name.
pub(crate) fn read_all(servers: &str, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) {
    let client: BaseConsumer = config(servers)
        .set("group.id", "bare-reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(Some(topic), WAIT).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for index in 0..partitions {
        list.add_partition_offset(topic, i32::try_from(index).unwrap(), Offset::Beginning).unwrap();
    }
    client.assign(&list).unwrap();
    let (mut ended, until) = (std::collections::BTreeSet::new(), Instant::now() + Duration::from_secs(300));
    while ended.len() < partitions {
        assert!(Instant::now() < until, "{topic} is not read to its end in time");
        match client.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => each(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(error)) => eprintln!("reading {topic}: {error}"),
            None => {}
        }
    }
}
