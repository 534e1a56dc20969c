//! Opens the engine over Kafka and Redis: makes sure of both, joins the parts, and ends them in order.
//!
//! What a server refuses, or does not answer at the start, is told at once and opens nothing; what happens
//! later is lived through. It decides nothing about tasks.

use super::kafka::{Kafka, KafkaLog, Properties, Refused, TopicAdmin};
use super::link::LEASE;
use super::redis::{BadAddress, Bound, RedisStore};
use super::topology::{Allow, Change, Difference, Found, differences, risks};
use super::upkeep::Upkeep;
use super::{Parts, Start, open};
use crate::dedupe::Instance;
use crate::engine::{
    Engine, GROUPS, Health, Log as _, Operation, StorageReport, TopicSpec, Unavailable, WORKER, lock,
};
use crate::task::{Position, Timestamp, Topic};
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the engine is opened with.
pub struct Cluster {
    /// Of librdkafka, the addresses with them.
    pub properties: BTreeMap<String, String>,
    pub redis: String,
    /// Begins the names of keys in Redis.
    pub prefix: String,
    /// Begins the names of the consumer groups.
    pub group: String,
    pub window: Duration,
    pub start_anyway: bool,
    /// Copies of each record that are asked for.
    pub replication: Option<u16>,
    pub topics: Vec<TopicSpec>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("Kafka: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Properties(Vec<Refused>),
    #[error(transparent)]
    Address(#[from] BadAddress),
    #[error("Kafka at {servers} cannot be used: {why}; start it, or mend `[engine] kafka` and `properties`")]
    Kafka { servers: String, why: String },
    #[error("Redis cannot be used: {0}; start or mend it, or mend `[engine] redis`")]
    Redis(String),
    #[error(
        "the topics on Kafka are not as they must be: {}; look with `tidegate topics plan`, make them so with \
         `tidegate topics apply{}`", .what.join("; "), Allow::flag(.needs.iter().copied())
    )]
    Topics { what: Vec<String>, needs: BTreeSet<Allow> },
    #[error(
        "this Redis keeps the claims of another Kafka cluster ({bound}; yours is {asked}): keys of one would be taken \
         for copies of the other's; give this one a Redis or a database of its own (redis://host:6379/1), or an `[engine] prefix`"
    )]
    OtherCluster { bound: String, asked: String },
    #[error(
        "processes of the group `{0}` work on this Redis, and two groups would each publish what the other publishes: \
         set `[engine] group` back, or stop them first; a second installation needs an `[engine] prefix` of its own"
    )]
    OtherGroup(String),
}

/// How long members of groups get to leave at an orderly end. Only one that ends in the middle of a rebalance needs
/// so long, where that waits for the session of a member that has died.
pub(super) const LEAVE: Duration = Duration::from_secs(13);

/// Makes sure of both servers and opens the engine. Must be called on a runtime.
pub async fn connect(cluster: Cluster) -> Result<Engine, OpenError> {
    let servers = cluster.properties.get("bootstrap.servers").cloned().unwrap_or_default();
    #[cfg(feature = "simulator")]
    if let Some(address) = super::simulated::address(&servers) {
        return super::simulated::connect(address, cluster).await;
    }
    let start = start(&cluster);
    let properties = Properties::new(cluster.properties).map_err(OpenError::Properties)?;
    let kafka = Kafka::new(properties, start.instance, &cluster.group);
    let broken = |why| OpenError::Kafka { servers: servers.clone(), why };
    let id = kafka.reach().await.map_err(broken)?;
    let store = RedisStore::new(&cluster.redis, &cluster.prefix, cluster.window)?;
    let durability = store.check().await.map_err(|broken| OpenError::Redis(broken.0))?;
    if durability.is_full() {
        tracing::info!("{}", durability.says());
    } else {
        tracing::warn!("{}", durability.says());
    }
    // Before anybody is told to create topics there.
    if let Some(bound) = store.is_of_another(&id).await.map_err(|broken| OpenError::Redis(broken.0))? {
        return Err(OpenError::OtherCluster { bound, asked: id });
    }
    let found = kafka.topics().map_err(broken)?.describe(&names(&cluster.topics)).await.map_err(broken)?;
    sound(&cluster.topics, &found, cluster.window)?;
    for Difference { topic, change, .. } in differences(&cluster.topics, &found, cluster.window) {
        tracing::warn!(%topic, ?change, "a topic differs from its plan");
    }
    for (topic, what) in risks(&cluster.topics, &found, cluster.window, cluster.replication) {
        tracing::warn!(%topic, "{what}");
    }
    // Last of all: a start that fails binds nothing.
    if bind(&store, &id, &cluster.group).await? {
        tell_if_emptied(&kafka, &store, &found).await;
    } else if matches!(kafka.has_committed(&[WORKER], &found).await, Ok(false)) {
        tracing::warn!(
            group = %format_args!("{}.{WORKER}", cluster.group),
            "this Redis knows the installation, and the group that reads tasks has committed nothing: unless it is new, its \
             offsets were lost, and topics are read from their beginning or wait for `[engine] start`; what Redis remembers as \
             done stays silent"
        );
    }
    let log = kafka.log(&cluster.topics).map_err(|away| broken(away.0))?;
    let store = Arc::new(store);
    let parts = Arc::new(open(&start, kafka.clone(), store.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn(watch_over(log.clone(), parts.clone()));
    let upkeep = Upkeep {
        admin: kafka.topics().map_err(broken)?,
        topics: cluster.topics.clone(),
        window: cluster.window,
        store,
        log: id,
        group: cluster.group,
        parts: parts.clone(),
    };
    tasks.spawn(upkeep.run());
    let kept = cluster.topics.iter().filter(|spec| spec.internal).map(|spec| spec.topic.clone()).collect();
    tasks.spawn(trim(kafka.topics().map_err(broken)?, log.clone(), kept, cluster.window));
    Ok(Engine {
        groups: parts.groups.clone(),
        commits: parts.commits.clone(),
        log,
        ledger: parts.ledger.clone(),
        journal: parts.journal.clone(),
        operation: Arc::new(Running { parts, kafka, tasks: Mutex::new(tasks) }),
    })
}

/// As long as the log's own client works. Without it nothing is taken in and no decision counts: a new process
/// may do better.
async fn watch_over(log: Arc<KafkaLog>, parts: Arc<Parts>) {
    log.look(|| parts.reaches_broker()).await;
    parts.gone("a call of the Kafka client that appends has not come back although a broker is reached");
}

pub(super) fn start(cluster: &Cluster) -> Start {
    // Random, so never used twice.
    let instance = Instance(rand::random::<u128>().max(1));
    Start { instance, window: cluster.window, start_anyway: cluster.start_anyway }
}

/// How often what is done is deleted from the topics that keep everything, and how many records must have
/// gathered in a partition: often enough that the disk does not notice, seldom enough that nobody does.
const TRIM_EVERY: Duration = Duration::from_secs(600);
const TRIM_MORE_THAN: u64 = 1_000;

/// Deletes tokens and decisions below the first one that is open, once the dedupe window has passed over them: a
/// dead letter may point at one until then. Whoever is first does it, and twice is as good as once: what a group
/// has committed stays committed.
async fn trim(admin: TopicAdmin, log: Arc<KafkaLog>, topics: Vec<Topic>, window: Duration) {
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        for topic in &topics {
            let trimmed = match old(&log, topic, window).await {
                Ok(old) if old.is_empty() => Ok(()),
                Ok(old) => admin.delete_before(&old).await,
                Err(away) => Err(away.0),
            };
            if let Err(why) = trimmed {
                tracing::warn!(%topic, %why, "what is done stays in the topic until the next try");
            }
        }
    }
}

async fn old(log: &KafkaLog, topic: &Topic, window: Duration) -> Result<Vec<Position>, Unavailable> {
    let since = Timestamp::now().0.saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
    let mut old = Vec::new();
    for done in log.done(topic, TRIM_MORE_THAN).await? {
        let young = log.since(&done.at, Timestamp(since)).await?;
        old.push(Position { offset: done.offset.min(young), ..done });
    }
    Ok(old)
}

pub(super) fn names(specs: &[TopicSpec]) -> Vec<Topic> {
    specs.iter().map(|spec| spec.topic.clone()).collect()
}

/// Refuses topics that would break a promise.
pub(super) fn sound(
    specs: &[TopicSpec],
    found: &BTreeMap<Topic, Found>,
    window: Duration,
) -> Result<(), OpenError> {
    let (mut missing, mut breaking, mut allows) = (Vec::new(), Vec::new(), BTreeSet::new());
    for Difference { topic, change, breaks, needs } in differences(specs, found, window) {
        allows.extend(needs.filter(|_| breaks.is_some()));
        match (breaks, change) {
            (Some(_), Change::Create { .. }) => missing.push(format!("`{topic}`")),
            (Some(why), Change::Set { name, from, .. }) => {
                breaking.push(format!("`{topic}` has {name}={from} ({why})"));
            }
            _ => {}
        }
    }
    if !missing.is_empty() {
        breaking.insert(0, format!("there is no {}", missing.join(", ")));
    }
    if breaking.is_empty() { Ok(()) } else { Err(OpenError::Topics { what: breaking, needs: allows }) }
}

/// A ledger that begins with its groups has lost nothing. What cannot be found out stops no start.
async fn tell_if_emptied(kafka: &Kafka, store: &RedisStore, found: &BTreeMap<Topic, Found>) {
    let told = match kafka.has_committed(&GROUPS, found).await {
        Ok(false) => return,
        Ok(true) => store.mark_emptied(Timestamp::now()).await.map_err(|broken| broken.0),
        Err(why) => Err(why),
    };
    if let Err(why) = told {
        tracing::warn!(%why, "whether this ledger is new or was emptied is not known");
    }
}

/// Whether the store kept nobody's claims before. A group that was renamed may follow once the last heartbeat of the
/// one before has run out.
async fn bind(store: &RedisStore, id: &str, group: &str) -> Result<bool, OpenError> {
    let until = Instant::now() + LEASE + Duration::from_secs(2);
    let mut told = false;
    loop {
        match store.bind(id, group).await.map_err(|broken| OpenError::Redis(broken.0))? {
            Bound::Here { new } => return Ok(new),
            Bound::Elsewhere(bound) => return Err(OpenError::OtherCluster { bound, asked: id.to_owned() }),
            Bound::OtherGroup(other) if Instant::now() >= until => return Err(OpenError::OtherGroup(other)),
            Bound::OtherGroup(other) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(group = %other, "another group was at work on this Redis a moment ago: waiting until its last heartbeat has run out");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

struct Running {
    parts: Arc<Parts>,
    kafka: Arc<Kafka>,
    tasks: Mutex<JoinSet<()>>,
}

impl Operation for Running {
    fn health(&self) -> watch::Receiver<Health> {
        self.parts.health()
    }

    /// What brokers and Redis take is theirs to tell.
    fn storage(&self) -> BoxFuture<'static, StorageReport> {
        Box::pin(async { StorageReport::default() })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        lock(&self.tasks).abort_all();
        let (parts, kafka) = (self.parts.clone(), self.kafka.clone());
        Box::pin(async move {
            parts.close().await;
            kafka.left(LEAVE).await;
        })
    }
}
