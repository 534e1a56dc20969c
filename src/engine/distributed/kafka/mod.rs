//! The client for a real broker: one member of a group as four threads over librdkafka, and the log.
//!
//! ```text
//!  order ─┬─► consumer   polls, carries out rebalances, seeks, pauses ─┐
//!         ├─► asking     stable offsets, ends, the group's own word ───┼─► heard
//!         └─► producer   transactions, one at a time ──────────────────┘
//!  Log ───┬─► append     a transactional producer of its own
//!         └─► read       committed records by their place
//! ```
//!
//! All of librdkafka blocks, calls back from within polls, and now and then does not return. So each
//! client has an OS thread, no runtime waits for one, and a watch says when a call has hung. It decides
//! nothing: what to do comes from the group's task, by orders.

mod append;
mod asking;
mod before;
mod consumer;
mod context;
mod described;
mod line;
mod log;
mod producer;
mod properties;
mod reaching;
mod reader;
mod record;
mod topics;
mod transaction;

pub use log::KafkaLog;
pub use properties::{Properties, Refused};
pub use topics::TopicAdmin;
pub use transaction::ENDS;

use super::client::{Broker, Heard, Member, Order};
use super::lock;
use super::topology::Found;
use crate::dedupe::Instance;
use crate::engine::{TOKENS, TopicSpec, Unavailable};
use crate::task::{Partition, Topic};
use asking::{Ask, AskingThread};
use consumer::ConsumerThread;
use context::Quiet;
use futures::future::BoxFuture;
use line::Line;
use producer::ProducerThread;
use rdkafka::consumer::BaseConsumer;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What a member may have heard before its group's task has taken it in; then the client waits. About one fetch,
/// so that a task that is merely busy stops nobody.
const HEARD: usize = 1_024;

/// One process's way to a Kafka cluster.
pub struct Kafka {
    properties: Properties,
    /// Random, so that no two processes fence each other.
    name: String,
    /// Begins the names of its groups.
    group: String,
    /// Which of its groups reads a topic, once it has joined.
    readers: Readers,
    members: Mutex<Vec<JoinHandle<()>>>,
}

/// By topic, the group that completes its records.
type Readers = Arc<Mutex<BTreeMap<Topic, String>>>;

impl Kafka {
    /// Connects to nothing yet. `group`: begins the names of its groups, a dot and what they are for follow.
    pub fn new(properties: Properties, instance: Instance, group: &str) -> Arc<Self> {
        let name = format!("tidegate-{:032x}", instance.0);
        let (group, readers, members) = (group.to_owned(), Readers::default(), Mutex::default());
        Arc::new(Kafka { properties, name, group, readers, members })
    }

    /// Waits for a first answer of the cluster: its id. Or why there is none.
    pub async fn reach(&self) -> Result<String, String> {
        let (properties, name) = (self.properties.clone(), self.name.clone());
        let asked = tokio::task::spawn_blocking(move || reaching::id(&properties, &name)).await;
        asked.unwrap_or_else(|lost| Err(lost.to_string()))
    }

    /// Whether any of these groups of its own has committed something on these topics.
    pub async fn has_committed(
        &self,
        groups: &[&str],
        topics: &BTreeMap<Topic, Found>,
    ) -> Result<bool, String> {
        let parts = topics.iter().flat_map(|(topic, found)| {
            (0..found.partitions).map(|index| Partition { topic: topic.clone(), index })
        });
        let (properties, name) = (self.properties.clone(), format!("{}-before", self.name));
        let groups: Vec<String> = groups.iter().map(|group| format!("{}.{group}", self.group)).collect();
        let parts: Vec<Partition> = parts.collect();
        let asked =
            tokio::task::spawn_blocking(move || before::has_committed(&properties, &name, &groups, &parts));
        match asked.await {
            Ok(answer) => {
                answer.map_err(|error| format!("what its groups have committed is not told: {error}"))
            }
            Err(lost) => Err(lost.to_string()),
        }
    }

    /// What is asked or done about topics.
    pub fn topics(&self) -> Result<TopicAdmin, String> {
        TopicAdmin::new(self.properties.clone())
    }

    /// The port's log.
    pub fn log(&self, topics: &[TopicSpec]) -> Result<Arc<KafkaLog>, Unavailable> {
        KafkaLog::open(&self.properties, &self.name, self.readers.clone(), topics)
    }

    /// Waits until every member that was told to has left its group, for so long at most.
    pub async fn left(&self, within: Duration) {
        let until = Instant::now() + within;
        while Instant::now() < until && !lock(&self.members).iter().all(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn member(&self, group: &str, topics: &[Topic], heard: mpsc::Sender<Heard>) -> Result<Threads, String> {
        let line = Arc::new(Line::new(heard));
        let name = |what: &str| format!("{}-{group}-{what}", self.name);
        let asker: BaseConsumer<Quiet> = self
            .properties
            .reader(&name("ask"), group)
            .create_with_context(Quiet)
            .map_err(|error| format!("the Kafka client cannot be made: {error}"))?;
        let consuming = ConsumerThread {
            line: line.clone(),
            properties: self.properties.clone(),
            name: name("consume"),
            group: group.to_owned(),
            topics: topics.to_vec(),
            of_tokens: group == format!("{}.{TOKENS}", self.group),
            clients: 0,
        };
        let asking = AskingThread {
            line: line.clone(),
            client: asker,
            group: group.to_owned(),
            topics: topics.to_vec(),
        };
        let producing = ProducerThread {
            line: line.clone(),
            properties: self.properties.clone(),
            name: name("produce"),
            id: name("produce"),
        };
        let (consume, consumed) = channel();
        let (ask, asked) = channel();
        let (produce, produced) = channel();
        let thread = |what: &str| std::thread::Builder::new().name(format!("kafka-{what}"));
        let cannot = |error: std::io::Error| format!("no thread for the Kafka client: {error}");
        thread("ask").spawn(move || asking.run(&asked)).map_err(cannot)?;
        thread("produce").spawn(move || producing.run(&produced)).map_err(cannot)?;
        let consumer = thread("consume").spawn(move || consuming.run(&consumed)).map_err(cannot)?;
        lock(&self.members).push(consumer);
        Ok(Threads { line, consume, ask, produce })
    }
}

impl Broker for Kafka {
    fn join(&self, name: &str, topics: &[Topic]) -> Box<dyn Member> {
        let (heard, hears) = mpsc::channel(HEARD);
        let group = format!("{}.{name}", self.group);
        lock(&self.readers).extend(topics.iter().map(|topic| (topic.clone(), group.clone())));
        match self.member(&group, topics, heard) {
            Ok(threads) => Box::new(KafkaMember { threads: Some(threads), failed: None, hears }),
            Err(why) => Box::new(KafkaMember { threads: None, failed: Some(why), hears }),
        }
    }
}

struct Threads {
    line: Arc<Line>,
    consume: Sender<Order>,
    ask: Sender<Ask>,
    produce: Sender<Order>,
}

/// Dropped, it leaves its group; its threads end by themselves.
struct KafkaMember {
    threads: Option<Threads>,
    /// Why there are none; to be heard once.
    failed: Option<String>,
    hears: mpsc::Receiver<Heard>,
}

impl Member for KafkaMember {
    fn order(&mut self, order: Order) {
        let Some(threads) = &self.threads else { return };
        // A thread that has ended has said so.
        match order {
            Order::Load(lease) => drop(threads.ask.send(Ask::Load(lease))),
            Order::Confirm => drop(threads.ask.send(Ask::Confirm)),
            Order::ReadBack(parts) => drop(threads.ask.send(Ask::ReadBack(parts))),
            Order::Commit(_) | Order::Renew => drop(threads.produce.send(order)),
            _ => drop(threads.consume.send(order)),
        }
    }

    fn heard(&mut self) -> BoxFuture<'_, Heard> {
        if let Some(threads) = &self.threads {
            threads.line.asked();
        }
        Box::pin(async move {
            if let Some(why) = self.failed.take() {
                return Heard::Gone(why);
            }
            match self.hears.recv().await {
                Some(heard) => heard,
                None => std::future::pending().await,
            }
        })
    }
}

/// What of the client panics on bytes of others that are no text; `None` then.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
