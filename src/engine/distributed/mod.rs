//! The engine for many processes: what it decides, and the tasks that carry it out over a client.
//!
//! "The ledger elects, the log decides": the ledger says which record may publish for a key, the
//! transaction alone says whether it has. A record's outputs and its completion are in the same
//! transaction, so a record that is not complete has never published, and one that is never will again.
//!
//! ```text
//!        port   Group, Commits                             Ledger, Journal
//!                     │ group: one task per group                 │ ledger: one task, one connection
//!  decisions   Assignment ─ Tracker ─ metadata              Link: the way back after a break
//!              Committer ─ one transaction at a time
//!              Lanes ─ what waits to be handed out
//!  ─────────────────── client seam: Member, Broker ─────────── Connection, Store ──────────────────────
//!              simulated: a broker and a store as mean as real ones; kafka, redis: real ones
//! ```
//!
//! The decisions take events and return what to do: no I/O, no waiting, no clock. The simulator drives
//! these very decisions and tasks, and the worker above them. That it behaves as real servers do is shown by
//! the stories of the whole program, which run over it as they run over Kafka and Redis.

pub mod assignment;
pub mod client;
pub mod committer;
mod group;
mod health;
#[cfg(feature = "kafka")]
pub mod kafka;
mod lanes;
mod ledger;
pub mod link;
pub mod metadata;
#[cfg(feature = "kafka")]
mod opening;
pub mod planted;
#[cfg(feature = "kafka")]
pub mod redis;
pub mod simulated;
pub mod topology;
pub mod tracker;
#[cfg(feature = "kafka")]
mod upkeep;

#[cfg(feature = "kafka")]
pub use opening::{Cluster, OpenError, connect};

use crate::dedupe::Instance;
use crate::engine::{Commits, Groups, Health, Journal, Ledger, lock};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// The parts of the port that stand on decisions; log and operation are the client's own.
pub struct Parts {
    pub groups: Arc<dyn Groups>,
    pub commits: Arc<dyn Commits>,
    pub ledger: Arc<dyn Ledger>,
    pub journal: Arc<dyn Journal>,
    running: Arc<group::Shared>,
}

/// What one process of the engine is told.
pub struct Start {
    /// Random, never used twice.
    pub instance: Instance,
    /// How long the ledger remembers what is closed.
    pub window: Duration,
    /// Read records without a committed offset although they are older than that.
    pub start_anyway: bool,
}

/// Opens the engine over a client. Must be called on a runtime: its tasks run there until `end`.
pub fn open(start: &Start, broker: Arc<dyn client::Broker>, store: Arc<dyn client::Store>) -> Parts {
    let condition = Arc::new(health::Condition::default());
    let contact = Arc::new(ledger::Contact::new(start.instance, start.window, condition.clone()));
    let mut tasks = JoinSet::new();
    let connecting = contact.clone();
    tasks.spawn(async move { connecting.run(store).await });
    let shared = Arc::new(group::Shared {
        instance: start.instance,
        window: start.window,
        start_anyway: start.start_anyway,
        broker,
        contact,
        condition,
        groups: Mutex::default(),
        tasks: Mutex::new(tasks),
    });
    let ledger = Arc::new(ledger::DistributedLedger(shared.clone()));
    Parts {
        groups: Arc::new(group::DistributedGroups(shared.clone())),
        commits: Arc::new(group::DistributedCommits(shared.clone())),
        ledger: ledger.clone(),
        journal: ledger,
        running: shared,
    }
}

/// How long an orderly end waits for the ledger to take what it is owed. Nothing depends on it: a mark that
/// is lost costs a look-up.
const FAREWELL: Duration = Duration::from_secs(5);

impl Parts {
    pub fn health(&self) -> tokio::sync::watch::Receiver<Health> {
        self.running.condition.told()
    }

    /// As far as the groups have heard.
    #[cfg(feature = "kafka")]
    fn reaches_broker(&self) -> bool {
        self.running.condition.reaches_broker()
    }

    /// `None`: it is well again. Whether that is news.
    #[cfg(feature = "kafka")]
    fn trouble(&self, part: health::Part, why: Option<String>) -> bool {
        self.running.condition.is(part, why)
    }

    /// For good; what is committed is committed.
    #[cfg(feature = "kafka")]
    fn gone(&self, why: &str) {
        self.running.condition.gone(why.to_owned());
    }

    /// Ends in order, once nothing is in flight any more: tells the ledger what it is owed, leaves the groups.
    pub async fn close(&self) {
        // Too late is as if the process had died.
        let _ = tokio::time::timeout(FAREWELL, self.running.contact.told_all()).await;
        self.running.leave();
        // The orders go out with the next turn of each group's task.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.end();
    }

    /// Ends the tasks. What was handed in and not answered is `Void`: perhaps visible.
    pub fn end(&self) {
        lock(&self.running.tasks).abort_all();
        self.running.end();
    }
}
