//! The lower seam: what the decisions have carried out, and what they are told.
//!
//! A broker's member carries out orders in their order and says what it hears; a store answers calls
//! over one connection. Two kinds of client stand behind it: simulated ones, as mean as real ones can
//! be, and those for a real broker and store. Nothing here decides anything.

use super::assignment::{Loaded, MemberId, Membership, Said};
use super::committer::{Ended, Transaction};
use super::topology::{Change, Found};
use crate::dedupe::{ClaimView, Instance};
use crate::engine::Lease;
use crate::engine::script::{LedgerCall, LedgerReply};
use crate::task::{Partition, Record, ScopedKey, Topic};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What a member of a group is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// Take over, paused.
    Assign(Vec<Partition>),
    Unassign(Vec<Partition>),
    /// Read offset, metadata and ends; stable, so it may take as long as an open transaction.
    Load(Lease),
    /// Deliver from this offset on, under this lease's name. What was fetched before is dropped.
    Serve {
        lease: Lease,
        from: u64,
    },
    Pause(Partition),
    /// From the record behind the last one that was heard.
    Resume(Partition),
    /// Ask the group whether it still counts this member, and with which partitions.
    Confirm,
    Commit(Transaction),
    Renew,
    ReadBack(Vec<Partition>),
    /// Leave the group at once, so that others take over without waiting for the session to end.
    Leave,
}

/// What a member hears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Heard {
    Said(Said, Membership),
    Loaded(Lease, Loaded),
    Fetched(Lease, Arc<Record>),
    Confirmed {
        /// Means something in this process alone: whoever passes this on tells it in another way.
        #[serde(skip, default = "Instant::now")]
        asked: Instant,
        member: MemberId,
        parts: Vec<Partition>,
    },
    Ended(Ended),
    Renewed,
    ReadBack(BTreeMap<Partition, Option<(u64, String)>>),
    /// The broker cannot be reached, or can again.
    Reachable(Result<(), String>),
    /// The client has ended for good.
    Gone(String),
}

/// One member of one group, with its transactional producer.
pub trait Member: Send {
    fn order(&mut self, order: Order);
    /// The next thing heard. Cancel-safe.
    fn heard(&mut self) -> BoxFuture<'_, Heard>;
}

/// Joins groups.
pub trait Broker: Send + Sync {
    fn join(&self, group: &str, topics: &[Topic]) -> Box<dyn Member>;
}

/// The connection is gone, or this call was never received over it. Nothing is known of what was sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Broken(pub String);

/// A call, and whether its process may judge others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    pub call: LedgerCall,
    pub settled: bool,
}

/// One connection to the store. Calls arrive in the order in which they are made; once it is broken
/// nothing arrives any more, and every later call is told so.
pub trait Connection: Send + Sync {
    /// Renews the heartbeat of the instance.
    fn beat(&self, instance: Instance) -> BoxFuture<'static, Result<(), Broken>>;
    fn call(&self, instance: Instance, sent: Sent) -> BoxFuture<'static, Result<LedgerReply, Broken>>;
    fn look(&self, keys: Vec<ScopedKey>) -> BoxFuture<'static, Result<Vec<Option<ClaimView>>, Broken>>;
    /// Open claims in key order behind `after`.
    fn list(
        &self,
        after: Option<ScopedKey>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<ClaimView>, Broken>>;
}

pub trait Store: Send + Sync {
    fn connect(&self) -> BoxFuture<'static, Result<Arc<dyn Connection>, Broken>>;
}

/// What is asked or done about topics.
pub trait Topics: Send + Sync {
    /// Those of `topics` that exist, with all their settings.
    fn describe<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<BTreeMap<Topic, Found>, String>>;
    /// `replication`: copies of a new topic; `None`: as many as the brokers make by default.
    fn carry_out<'a>(
        &'a self,
        topic: &'a Topic,
        change: &'a Change,
        replication: Option<u16>,
    ) -> BoxFuture<'a, Result<(), String>>;
}
