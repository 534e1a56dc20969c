//! An engine in memory, for the tests of the HTTP API: topics of two partitions and a ledger that
//! holds what a test puts there. Delivers nothing.

use crate::dedupe::{Admission, Bar, Claim, ClaimView, Kept, Nonce, Slot, Standing, Started};
use crate::engine::{
    AppendError, Commit, Commits, Completion, Delivery, Ends, Engine, Event, Group, Groups, Health, Journal,
    Ledger, Log, Operation, Output, StorageReport, Unavailable,
};
use crate::outcome::OutcomeKind;
use crate::task::{Partition, Position, Record, ScopedKey, Timestamp, Token, Topic};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

const PARTITIONS: u32 = 2;

#[derive(Default)]
struct Inside {
    records: BTreeMap<Partition, Vec<Record>>,
    complete: BTreeSet<Position>,
    claims: BTreeMap<ScopedKey, ClaimView>,
    repairs: Vec<(Token, OutcomeKind, Position)>,
}

#[derive(Clone)]
pub(super) struct Memory {
    inside: Arc<Mutex<Inside>>,
    news: Arc<watch::Sender<u64>>,
    pub(super) health: Arc<watch::Sender<Health>>,
    pub(super) limit: usize,
    /// Reads of this topic fail; all ends of topics fail.
    pub(super) blind: Arc<Mutex<Option<Topic>>>,
    pub(super) endless: Arc<AtomicBool>,
    /// The ledger is away.
    pub(super) forgetful: Arc<AtomicBool>,
    /// Bytes of the largest batch appended.
    pub(super) largest: Arc<AtomicUsize>,
    /// Look-ups under way, and the most there were.
    pub(super) looked: Arc<AtomicUsize>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let (news, health) = (watch::Sender::new(0), watch::Sender::new(Health::Well));
        Memory {
            inside: Arc::default(),
            news: Arc::new(news),
            health: Arc::new(health),
            limit: 1 << 20,
            blind: Arc::default(),
            endless: Arc::default(),
            forgetful: Arc::default(),
            largest: Arc::default(),
            looked: Arc::default(),
        }
    }

    pub(super) fn engine(&self) -> Engine {
        let me = Arc::new(self.clone());
        Engine {
            groups: me.clone(),
            commits: me.clone(),
            log: me.clone(),
            ledger: me.clone(),
            journal: me.clone(),
            operation: me,
        }
    }

    /// Appends and says where.
    pub(super) fn put(&self, output: Output) -> Position {
        let mut inside = self.inside.lock().unwrap();
        let hash = blake3::hash(output.key.as_deref().unwrap_or_default());
        let index = u32::from(hash.as_bytes()[0]) % PARTITIONS;
        let at = Partition { topic: output.topic.clone(), index };
        let records = inside.records.entry(at.clone()).or_default();
        let position = Position { at, offset: records.len() as u64 };
        records.push(Record {
            position: position.clone(),
            stamp: Timestamp::now(),
            key: output.key,
            value: output.value,
            headers: output.headers,
            not_before: output.not_before,
        });
        drop(inside);
        self.news.send_modify(|n| *n += 1);
        position
    }

    pub(super) fn complete(&self, at: &Position) {
        self.inside.lock().unwrap().complete.insert(at.clone());
    }

    pub(super) fn claim(&self, claim: ClaimView) {
        self.inside.lock().unwrap().claims.insert(claim.key.clone(), claim);
    }

    pub(super) fn repairs(&self) -> Vec<(Token, OutcomeKind, Position)> {
        self.inside.lock().unwrap().repairs.clone()
    }

    pub(super) fn all(&self, topic: &str) -> Vec<Record> {
        let inside = self.inside.lock().unwrap();
        let ours = inside.records.iter().filter(|(at, _)| at.topic.as_str() == topic);
        ours.flat_map(|(_, records)| records.clone()).collect()
    }
}

impl Log for Memory {
    fn append(&self, batch: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let size = |o: &Output| o.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        if let Some((index, output)) = batch.iter().enumerate().find(|(_, o)| size(o) > self.limit) {
            let (bytes, limit, topic) = (size(output), self.limit, output.topic.clone());
            return ready(Err(AppendError::TooLarge { index, bytes, limit, topic })).boxed();
        }
        let bytes = batch.iter().filter_map(|o| o.value.as_ref()).map(Bytes::len).sum();
        self.largest.fetch_max(bytes, Ordering::SeqCst);
        let positions = batch.into_iter().map(|output| self.put(output)).collect();
        ready(Ok(positions)).boxed()
    }

    fn read(&self, from: Position, max: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        if self.blind.lock().unwrap().as_ref() == Some(&from.at.topic) {
            return ready(Err(Unavailable("the log is away".into()))).boxed();
        }
        let inside = self.inside.lock().unwrap();
        let records = inside.records.get(&from.at);
        let found = records.into_iter().flatten().filter(|r| r.position.offset >= from.offset).take(max);
        ready(Ok(found.cloned().collect())).boxed()
    }

    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
        if self.endless.load(Ordering::SeqCst) {
            return ready(Err(Unavailable("the log is away".into()))).boxed();
        }
        let inside = self.inside.lock().unwrap();
        let ends = |index| {
            let at = Partition { topic: topic.clone(), index };
            let records = inside.records.get(&at).map_or(&[][..], Vec::as_slice);
            let open = records.iter().filter(|r| !inside.complete.contains(&r.position)).count();
            Ends { next: records.len() as u64, at, first: 0, open: Some(open as u64) }
        };
        ready(Ok((0..PARTITIONS).map(ends).collect())).boxed()
    }

    fn since(&self, at: &Partition, since: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
        let inside = self.inside.lock().unwrap();
        let records = inside.records.get(at).map_or(&[][..], Vec::as_slice);
        let before = records.iter().filter(|r| r.stamp < since).count();
        ready(Ok(before as u64)).boxed()
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

impl Ledger for Memory {
    fn admit(
        &self,
        _: &Delivery,
        _: &Token,
        _: Option<Position>,
    ) -> BoxFuture<'static, Result<Admission, Unavailable>> {
        ready(Err(Unavailable("nothing is admitted here".into()))).boxed()
    }

    fn refuse(&self, _: &Delivery, _: &Token) -> BoxFuture<'static, Result<Admission, Unavailable>> {
        ready(Err(Unavailable("nothing is admitted here".into()))).boxed()
    }

    fn look_all(
        &self,
        keys: Vec<ScopedKey>,
    ) -> BoxFuture<'static, Result<Vec<Option<ClaimView>>, Unavailable>> {
        self.looked.fetch_add(1, Ordering::SeqCst);
        if self.forgetful.load(Ordering::SeqCst) {
            return ready(Err(Unavailable("the ledger is away".into()))).boxed();
        }
        let claims = &self.inside.lock().unwrap().claims;
        let found = keys.iter().map(|key| claims.get(key).cloned()).collect();
        ready(Ok(found)).boxed()
    }

    fn list(
        &self,
        after: Option<ScopedKey>,
        max: usize,
    ) -> BoxFuture<'static, Result<Vec<ClaimView>, Unavailable>> {
        let inside = self.inside.lock().unwrap();
        let behind = inside.claims.iter().filter(|(key, _)| after.as_ref().is_none_or(|a| *key > a));
        ready(Ok(behind.take(max).map(|(_, claim)| claim.clone()).collect())).boxed()
    }

    fn repair(
        &self,
        token: &Token,
        outcome: OutcomeKind,
        at: Position,
    ) -> BoxFuture<'static, Result<(), Unavailable>> {
        self.inside.lock().unwrap().repairs.push((token.clone(), outcome, at));
        ready(Ok(())).boxed()
    }
}

impl Commits for Memory {
    fn commit(&self, _: Completion) -> BoxFuture<'static, Commit> {
        ready(Commit::Void).boxed()
    }

    fn is_complete(&self, position: &Position) -> bool {
        self.inside.lock().unwrap().complete.contains(position)
    }
}

impl Journal for Memory {
    fn start(&self, _: &Claim, _: &Slot, _: Duration) -> BoxFuture<'static, Result<Started, Unavailable>> {
        ready(Err(Unavailable("no journal".into()))).boxed()
    }

    fn bar(&self, _: &Claim, _: &Slot) -> BoxFuture<'static, Result<Bar, Unavailable>> {
        ready(Err(Unavailable("no journal".into()))).boxed()
    }

    fn store(
        &self,
        _: &Claim,
        _: &Slot,
        _: Bytes,
    ) -> BoxFuture<'static, Result<(Kept, Standing), Unavailable>> {
        ready(Err(Unavailable("no journal".into()))).boxed()
    }

    fn release(&self, _: Nonce, _: &ScopedKey, _: u32) -> BoxFuture<'static, Result<(), Unavailable>> {
        ready(Ok(())).boxed()
    }
}

impl Operation for Memory {
    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn storage(&self) -> BoxFuture<'static, StorageReport> {
        ready(StorageReport::default()).boxed()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}

impl Groups for Memory {
    fn join(&self, _: &str, _: &[Topic]) -> Box<dyn Group> {
        Box::new(Nobody)
    }
}

struct Nobody;

impl Group for Nobody {
    fn next(&mut self, _: bool) -> BoxFuture<'_, Event> {
        futures::future::pending().boxed()
    }

    fn hold(&self, _: &Topic, _: bool) {}

    fn drained(&self, _: crate::engine::Lease) {}

    fn orphaned(
        &self,
        _: crate::engine::Lease,
        _: &crate::engine::Gone,
        _: &std::collections::BTreeSet<u64>,
    ) {
    }
}
