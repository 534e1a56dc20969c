//! One transactional producer: makes transactions, and says for certain how each one ended, or that it
//! cannot know.
//!
//! ```text
//!  begin ─► send all ─► offsets ─► every record delivered ─► commit ─► Visible
//!    │         │           │               │                   └─ no clear answer: Unknown
//!    │         └───────────┴───────────────┴─ the producer is made anew ─► Aborted, TooLarge
//!    └─ the producer has failed, or cannot be made anew: Broken
//! ```
//!
//! ## Why no producer lives on after an abort
//!
//! An abort whose answer is late can meet the next transaction of the same producer. A new producer has a
//! new epoch: it settles what the old one has left, and fences what is still under way.
//!
//! It waits for its own records before it commits, in short sleeps: the client's own waiting takes a
//! tenth of a second each time.

use super::super::committer::Ended;
use super::super::lock;
use super::line::Watch;
use super::properties::{Properties, TRANSACTION};
use super::record;
use crate::engine::Output;
use crate::engine::crash::{crash_point, hang_point, is_wanted};
use crate::task::Position;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A commit is answered before the broker has written the end of the transaction everywhere. Whoever begins the
/// next one meanwhile is sent away, and librdkafka comes back 20 ms later (its backoff for
/// `CONCURRENT_TRANSACTIONS`). One broker that is not busy needs less than this in nine of ten commits; where it takes
/// longer, those 20 ms are the price.
pub const ENDS: Duration = Duration::from_millis(5);
/// One look at what was delivered.
const BEAT: Duration = Duration::from_millis(1);
/// For a commit that begins late: less would only make more of them unknown.
const COMMIT_LEAST: Duration = Duration::from_secs(2);
/// What is still under way when a transaction fails may say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// For one try to settle what an earlier producer of the same name has left.
const INIT: Duration = Duration::from_secs(10);

/// What became of each record of a transaction, by its number.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(usize, Result<Position, RDKafkaErrorCode>)>>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        super::context::say(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka producer reports an error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let delivered = match result {
            Ok(message) => record::position(message).ok_or(RDKafkaErrorCode::BadMessage),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        lock(&self.0).push((index, delivered));
    }
}

pub(super) struct Transactor<'a> {
    properties: &'a Properties,
    name: String,
    /// The transactional id: the same for every producer that follows.
    id: String,
    watch: &'a Watch,
    producer: Option<BaseProducer<Deliveries>>,
    /// Each record by itself: a broker refuses a whole batch for the size of one.
    careful: bool,
    /// When its last commit was answered.
    ended: Option<Instant>,
}

/// Offsets that belong to a transaction, and by whom.
pub(super) type Offsets<'a> = (&'a TopicPartitionList, &'a ConsumerGroupMetadata);

impl<'a> Transactor<'a> {
    pub(super) fn new(properties: &'a Properties, name: &str, id: String, watch: &'a Watch) -> Self {
        Transactor {
            properties,
            name: name.to_owned(),
            id,
            watch,
            producer: None,
            careful: false,
            ended: None,
        }
    }

    /// Makes the producer anew and settles what the one before has left. To be tried until it works.
    pub(super) fn renew(&mut self) -> KafkaResult<()> {
        if let Some(old) = self.producer.take() {
            // It waits for what is under way, and perhaps for ever.
            let closing = std::thread::Builder::new().name(format!("{}-close", self.name));
            if let Err(error) = closing.spawn(move || drop(old)) {
                tracing::warn!(%error, "no thread to close a Kafka client on");
            }
        }
        let config = self.properties.producer(&self.name, &self.id);
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
        self.watch.begin(Instant::now());
        let settled = producer.init_transactions(INIT);
        self.watch.end();
        producer.poll(Duration::ZERO);
        settled?;
        self.producer = Some(producer);
        Ok(())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.producer.is_some()
    }

    pub(super) fn make(&mut self, outputs: &[Output], offsets: Option<Offsets<'_>>) -> Ended {
        let Some(producer) = &self.producer else {
            return Ended::Broken { why: "there is no producer".to_owned() };
        };
        if let Some(ended) = self.ended.take() {
            std::thread::sleep(ENDS.saturating_sub(ended.elapsed()));
        }
        self.watch.begin(Instant::now());
        let making = Making { producer, until: Instant::now() + TRANSACTION, sent: 0, careful: self.careful };
        let made = making.run(outputs, offsets);
        self.watch.end();
        match made {
            Ok(ended) => {
                self.careful = false;
                self.ended = Some(Instant::now());
                ended
            }
            Err(fault) => self.give_up(fault),
        }
    }

    /// The next producer aborts what this one leaves open.
    fn give_up(&mut self, fault: Fault) -> Ended {
        let ended = match fault {
            Fault::Broken(why) => return Ended::Broken { why },
            Fault::Abort(why) => Ended::Aborted { why },
            Fault::TooLarge(output) => {
                self.careful = false;
                Ended::TooLarge { output }
            }
            Fault::SomeTooLarge => {
                self.careful = true;
                Ended::Aborted { why: "one record of several is too large".to_owned() }
            }
        };
        match self.renew() {
            Ok(()) => ended,
            Err(error) => Ended::Broken { why: format!("a transaction cannot be aborted: {error}") },
        }
    }
}

/// Why a transaction does not become visible.
enum Fault {
    /// The producer is done for.
    Broken(String),
    Abort(String),
    TooLarge(usize),
    /// One of several is too large, and it cannot be said which.
    SomeTooLarge,
}

struct Making<'a> {
    producer: &'a BaseProducer<Deliveries>,
    until: Instant,
    sent: usize,
    careful: bool,
}

impl Making<'_> {
    fn run(mut self, outputs: &[Output], offsets: Option<Offsets<'_>>) -> Result<Ended, Fault> {
        if let Err(error) = self.producer.begin_transaction() {
            return Err(Fault::Broken(format!("no transaction can be begun: {error}")));
        }
        lock(&self.producer.context().0).clear();
        let completes = offsets.is_some();
        match self.fill(outputs, offsets) {
            Ok(positions) => Ok(self.commit(positions, completes)),
            Err(fault) => Err(self.judge(fault)),
        }
    }

    fn fill(&mut self, outputs: &[Output], offsets: Option<Offsets<'_>>) -> Result<Vec<Position>, Fault> {
        // What only appends is no task's: nobody dies of it.
        let completes = offsets.is_some();
        if completes {
            crash_point("transaction.begun");
        }
        for (index, output) in outputs.iter().enumerate() {
            self.send(index, output)?;
            self.sent = index + 1;
            if self.careful {
                self.delivered()?;
            }
        }
        if completes && is_wanted("transaction.produced") {
            self.delivered()?;
            crash_point("transaction.produced");
        }
        if let Some((offsets, by)) = offsets {
            loop {
                match self.producer.send_offsets_to_transaction(offsets, by, self.left()) {
                    Ok(()) => break,
                    Err(error) if is_retriable(&error) && !self.left().is_zero() => {
                        self.producer.poll(Duration::ZERO);
                        std::thread::sleep(BEAT);
                    }
                    Err(error) => return Err(fault("the offsets were refused", &error)),
                }
            }
        }
        self.delivered()
    }

    fn send(&self, index: usize, output: &Output) -> Result<(), Fault> {
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(output.topic.as_str(), index).headers(record::headers(output));
        if let Some(key) = &output.key {
            record = record.key(key);
        }
        if let Some(value) = &output.value {
            record = record.payload(value);
        }
        loop {
            let error = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    record = back;
                    error
                }
            };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) if !self.left().is_zero() => {
                    self.producer.poll(Duration::ZERO);
                    std::thread::sleep(BEAT);
                }
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => return Err(Fault::TooLarge(index)),
                _ => return Err(fault(&format!("a record for `{}` was refused", output.topic), &error)),
            }
        }
    }

    /// Waits for all that was sent. Where each record lies, in their order.
    fn delivered(&self) -> Result<Vec<Position>, Fault> {
        while self.producer.in_flight_count() > 0 {
            if self.left().is_zero() {
                return Err(Fault::Abort("not every record was delivered in time".to_owned()));
            }
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() > 0 {
                std::thread::sleep(BEAT);
            }
        }
        if let Some(fault) = self.too_large() {
            return Err(fault);
        }
        let mut positions: Vec<Option<Position>> = vec![None; self.sent];
        for (index, delivered) in lock(&self.producer.context().0).iter() {
            match delivered {
                Ok(position) => {
                    if let Some(place) = positions.get_mut(*index) {
                        *place = Some(position.clone());
                    }
                }
                Err(code) => return Err(Fault::Abort(format!("a record was not delivered: {code}"))),
            }
        }
        let all: Option<Vec<Position>> = positions.into_iter().collect();
        all.ok_or_else(|| Fault::Abort("a record was not reported as delivered".to_owned()))
    }

    /// A record was refused for its size; then whatever came after it has failed as well.
    fn too_large(&self) -> Option<Fault> {
        let delivered = lock(&self.producer.context().0);
        let large = |(index, delivered): &(usize, Result<Position, RDKafkaErrorCode>)| {
            (*delivered == Err(RDKafkaErrorCode::MessageSizeTooLarge)).then_some(*index)
        };
        let mut large = delivered.iter().filter_map(large);
        match (large.next(), large.next()) {
            (Some(index), None) => Some(Fault::TooLarge(index)),
            (Some(_), Some(_)) => Some(Fault::SomeTooLarge),
            (None, _) => None,
        }
    }

    /// From here on only a clear answer counts.
    fn commit(&self, positions: Vec<Position>, completes: bool) -> Ended {
        if completes {
            crash_point("transaction.offsets");
        }
        hang_point(if completes { "transaction.hang" } else { "append.hang" });
        match self.producer.commit_transaction(self.left().max(COMMIT_LEAST)) {
            Ok(()) => {
                if completes {
                    crash_point("transaction.committed");
                }
                Ended::Visible(positions)
            }
            Err(error) => Ended::Unknown { positions, why: format!("no clear answer to a commit: {error}") },
        }
    }

    /// Waits a little for what is still under way: it may say that a record was too large.
    fn judge(&self, fault: Fault) -> Fault {
        if !matches!(fault, Fault::Abort(_)) {
            return fault;
        }
        let until = Instant::now() + LAST_WORDS;
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            self.producer.poll(Duration::ZERO);
            std::thread::sleep(BEAT);
        }
        self.too_large().unwrap_or(fault)
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error)
        if error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort())
}

fn fault(what: &str, error: &KafkaError) -> Fault {
    let why = format!("{what}: {error}");
    let fatal = match error {
        KafkaError::Transaction(error) => error.is_fatal(),
        other => matches!(
            other.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced | RDKafkaErrorCode::State)
        ),
    };
    if fatal { Fault::Broken(why) } else { Fault::Abort(why) }
}
