//! The port: all that the pipeline, the worker and the review may rely on.
//!
//! `embedded` is for one process and its disk; `distributed` for many processes over Kafka and Redis, with
//! its simulator. What the ledger is asked, and how, is in `script`.
//!
//! Engines implement these traits and keep their promises; nothing above this line knows which
//! engine runs. Outputs and completion are atomic. The mark that tells the ledger of a commit is
//! *not* part of that on any engine: it may be late, and lost when the process dies.

mod codec;
pub mod crash;
pub mod distributed;
pub mod embedded;
pub mod follow;
pub mod script;

use crate::dedupe::{Admission, ClaimView, Nonce};
/// What the port says in the words of `dedupe`: stages that ask the journal take them from here.
pub use crate::dedupe::{Claim, Kept, Slot, Standing, Started};
use crate::task::{Headers, Partition, Position, Record, ScopedKey, Timestamp, Token, Topic};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A process's right to a partition. An epoch is never used twice in a process.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Lease {
    pub at: Partition,
    pub epoch: u64,
}

/// The log hands a record out. The nonce names this delivery in every slot it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    pub lease: Lease,
    pub record: Arc<Record>,
    pub nonce: Nonce,
}

#[derive(Debug)]
pub enum Event {
    /// Records that are already complete are never delivered.
    Assigned {
        lease: Lease,
    },
    Record(Delivery),
    /// Dispatch nothing more; hand in what is finished.
    Draining {
        lease: Lease,
        until: Instant,
    },
    /// Completions under this lease are void from now on.
    Revoked {
        lease: Lease,
    },
    /// Records that were not complete are no longer in the log. Whoever hears it looks for the open claims
    /// that they began, and answers with `Group::orphaned` or `Group::not_gone`; what was gone when the partition was assigned
    /// keeps it from being delivered until then.
    Vanished {
        lease: Lease,
        gone: Gone,
    },
    Health(Health),
}

/// Offsets of one partition that were not complete, and whose records the log does not hold any more.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Gone {
    /// As many as there was work in flight.
    pub each: BTreeSet<u64>,
    /// And all of these; most never began a task.
    pub span: Range<u64>,
}

impl Gone {
    pub fn is_empty(&self) -> bool {
        self.each.is_empty() && self.span.is_empty()
    }

    pub fn contains(&self, offset: u64) -> bool {
        self.each.contains(&offset) || self.span.contains(&offset)
    }
}

/// How the engine is, in one sentence where it is not well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    Well,
    /// Work goes on, with trouble: not on all of the log, or beside servers that are not as they must be.
    Partly {
        why: String,
    },
    /// Intake has stopped (disk full, ledger or broker away); it goes on by itself.
    Paused {
        why: String,
    },
    /// The engine has ended and will deliver nothing more.
    Gone {
        why: String,
    },
}

/// The ledger or the log cannot be reached, or cannot take writes. Nothing has been decided.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// One consumer group of this process: the worker, the arbiter.
pub trait Group: Send {
    /// The next thing that happens. Cancel-safe. Without `room` no record is handed out, and the rest is
    /// still told: who is full of tasks that wait must hear that their lease is void.
    fn next(&mut self, room: bool) -> BoxFuture<'_, Event>;
    /// Back-pressure: a held topic delivers nothing. Survives reassignment.
    fn hold(&self, topic: &Topic, held: bool);
    fn drained(&self, lease: Lease);
    /// Of what `Vanished` told, these offsets began tasks that are still open: each may be handed in, as if
    /// it had been delivered. The rest is over.
    fn orphaned(&self, lease: Lease, gone: &Gone, offsets: &BTreeSet<u64>);
    /// The other answer to `Vanished`: a record that it told of lies in the log. Nothing is concluded of any;
    /// the engine looks again. One that never tells of any has nothing to do.
    fn not_gone(&self, _: Lease) {}
}

/// What a process reads tasks, waiting tokens and decisions as.
pub const GROUPS: [&str; 3] = [WORKER, TOKENS, ARBITER];
pub const WORKER: &str = "worker";
pub const TOKENS: &str = "tokens";
pub const ARBITER: &str = "arbiter";

pub trait Groups: Send + Sync {
    /// Joins `name`. One per process and name; the records of `topics` belong to that group alone.
    fn join(&self, name: &str, topics: &[Topic]) -> Box<dyn Group>;
}

/// One record finished.
#[derive(Debug)]
pub struct Completion {
    pub lease: Lease,
    pub offset: u64,
    /// Result, dead letter, review item, next token, tombstone: visible in one commit with the completion.
    pub outputs: Vec<Output>,
    /// Flush now: review handoff.
    pub urgent: bool,
    /// Told to the ledger once visible, for half the dedupe window at most; may be lost.
    pub mark: Option<Mark>,
}

/// What the ledger is told after a commit. For `Close` the engine puts in the position of
/// `outputs[output]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Mark {
    Close { token: Token, outcome: crate::outcome::OutcomeKind, output: usize },
    Moved { token: Token, hop: u32, phase: crate::dedupe::OpenPhase },
}

impl Mark {
    /// Where the outcome lies that it tells of; `positions`: of the outputs of its completion.
    pub fn outcome_at(&self, positions: &[Position]) -> Option<Position> {
        match self {
            Mark::Close { output, .. } => positions.get(*output).cloned(),
            Mark::Moved { .. } => None,
        }
    }
}

/// A record to be appended. Its partition is chosen by key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Output {
    pub topic: Topic,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
    pub not_before: Option<Timestamp>,
}

impl Output {
    /// Key, value and headers in bytes, as limits count them.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Commit {
    /// Where each output lies.
    Visible(Vec<Position>),
    /// Not ours to report any more; perhaps visible.
    Void,
    /// This output is larger than its topic allows. Nothing was committed.
    TooLarge { output: usize },
}

pub trait Commits: Send + Sync {
    /// Waits out a full disk or a lost broker; the engine settles what is ambiguous before it answers.
    fn commit(&self, done: Completion) -> BoxFuture<'static, Commit>;
    /// Whether the record is complete; the owner of its partition knows.
    fn is_complete(&self, position: &Position) -> bool;
}

/// First and last of what a partition holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ends {
    pub at: Partition,
    /// Offset of the first record still there.
    pub first: u64,
    /// Offset that the next record will get.
    pub next: u64,
    /// Records not complete for their group, at most: ends of transactions may be among them. `None` where
    /// no group reads the topic.
    pub open: Option<u64>,
}

/// For intake, look-ups and pages. Reads see committed records only.
pub trait Log: Send + Sync {
    /// Durable once answered; all or nothing.
    fn append(&self, batch: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>>;
    /// Up to `max` records from `from` on, in order; fewer at the end, and where a response would pass 8 MiB.
    /// Starts at the first record that is still there.
    fn read(&self, from: Position, max: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>>;
    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>>;
    /// The first offset whose record was appended at or after `since` (or a little before it).
    fn since(&self, at: &Partition, since: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>>;
    /// Changes whenever something new became visible.
    fn news(&self) -> tokio::sync::watch::Receiver<u64>;
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum AppendError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("record {index} of the batch has {bytes} bytes; topic `{topic}` takes {limit}")]
    TooLarge { index: usize, bytes: usize, limit: usize, topic: Topic },
    #[error("no topic `{0}`")]
    NoSuchTopic(Topic),
}

impl AppendError {
    /// Of the first output that no topic takes, if there is one.
    fn of(batch: &[Output], limits: &BTreeMap<Topic, usize>) -> Option<Self> {
        batch.iter().enumerate().find_map(|(index, output)| {
            let topic = output.topic.clone();
            let Some(limit) = limits.get(&topic) else { return Some(AppendError::NoSuchTopic(topic)) };
            let (limit, bytes) = (*limit, output.size());
            (bytes > limit).then_some(AppendError::TooLarge { index, bytes, limit, topic })
        })
    }
}

/// Who owns a key, by `dedupe`. Heartbeats, the order after a reconnect and confirmed leases are the
/// engine's; until a lease is confirmed, calls under it wait or answer `Unavailable`.
pub trait Ledger: Send + Sync {
    /// `decider`: the position of the decision that asks on behalf of the review item's token.
    fn admit(
        &self,
        d: &Delivery,
        t: &Token,
        decider: Option<Position>,
    ) -> BoxFuture<'static, Result<Admission, Unavailable>>;
    /// A record that cannot be a task under the rules of today, but whose key is known.
    fn refuse(&self, d: &Delivery, t: &Token) -> BoxFuture<'static, Result<Admission, Unavailable>>;
    /// What is known of each key, in their order: a batch costs one trip.
    fn look_all(
        &self,
        keys: Vec<ScopedKey>,
    ) -> BoxFuture<'static, Result<Vec<Option<ClaimView>>, Unavailable>>;
    fn look(&self, key: &ScopedKey) -> BoxFuture<'static, Result<Option<ClaimView>, Unavailable>> {
        let found = self.look_all(vec![key.clone()]);
        Box::pin(async move { Ok(found.await?.pop().flatten()) })
    }
    /// Claims in key order: what is open, since when. `max` at most 1,000.
    fn list(
        &self,
        after: Option<ScopedKey>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<ClaimView>, Unavailable>>;
    /// A look-up found in the log that the chain of `token` has its outcome there (read repair).
    fn repair(
        &self,
        token: &Token,
        outcome: crate::outcome::OutcomeKind,
        at: Position,
    ) -> BoxFuture<'static, Result<(), Unavailable>>;
}

/// What a claim has asked of the outside world, each thing once.
pub trait Journal: Send + Sync {
    /// `deadline` is counted from now, by the ledger's clock.
    fn start(
        &self,
        c: &Claim,
        slot: &Slot,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Started, Unavailable>>;
    fn bar(&self, c: &Claim, slot: &Slot) -> BoxFuture<'static, Result<crate::dedupe::Bar, Unavailable>>;
    /// First wins: the winner's value, and whether the token stands. Unavailable: held, and stored first on return.
    fn store(
        &self,
        c: &Claim,
        slot: &Slot,
        value: Bytes,
    ) -> BoxFuture<'static, Result<(Kept, Standing), Unavailable>>;
    /// On every orderly exit: frees what this nonce started and does not wait for. `unheard`: requests that were sent,
    /// whose end nobody has heard; they are counted.
    fn release(
        &self,
        nonce: Nonce,
        key: &ScopedKey,
        unheard: u32,
    ) -> BoxFuture<'static, Result<(), Unavailable>>;
    /// The same by who never uses the nonce again, and does not wait: told once the ledger is reached.
    fn leave(&self, nonce: Nonce, key: &ScopedKey, unheard: u32) -> BoxFuture<'static, ()> {
        let released = self.release(nonce, key, unheard);
        Box::pin(async move {
            // What stays started is asked for again, and counted.
            let _ = released.await;
        })
    }
}

/// What a topic is; the files in `topics/` say it for each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSpec {
    pub topic: Topic,
    /// Raised later, a topic grows; a compacted one keeps the number it was made with.
    pub partitions: u32,
    /// Largest record (key + value + headers), bytes.
    pub limit: usize,
    /// Compacted: the last record of each key stays until a tombstone.
    pub compacted: bool,
    /// How long records stay that nothing needs any more. `None`: as long as the dedupe window.
    pub retention: Option<Duration>,
    /// Holds tokens or decisions: nothing of it may go before it is done, however old.
    pub internal: bool,
    /// Made by Tidegate and for it alone; else a kind names a topic that others may use too.
    pub own: bool,
    /// Tidegate publishes outcomes to it.
    pub written: bool,
}

/// What the engine says of its storage; `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct StorageReport {
    pub log_bytes: u64,
    pub ledger_bytes: u64,
    pub free_bytes: u64,
    pub segments: u64,
    /// Old segments that cannot go yet: file, and what pins it.
    pub pinned: Vec<(String, String)>,
}

/// One engine, opened: the port's traits over the same store.
#[derive(Clone)]
pub struct Engine {
    pub groups: Arc<dyn Groups>,
    pub commits: Arc<dyn Commits>,
    pub log: Arc<dyn Log>,
    pub ledger: Arc<dyn Ledger>,
    pub journal: Arc<dyn Journal>,
    pub operation: Arc<dyn Operation>,
}

/// Running the engine.
pub trait Operation: Send + Sync {
    fn health(&self) -> tokio::sync::watch::Receiver<Health>;
    fn storage(&self) -> BoxFuture<'static, StorageReport>;
    /// Ends in order; everything acknowledged is durable already, so this only saves time at the next start.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// A lock whose holder panicked: what it guards is changed in single steps, so it is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
