//! The log of the port as one process reads it: committed records only. And its operation, which has
//! nothing to report.

use super::super::lock;
use super::world::World;
use crate::engine::{AppendError, Ends, Health, Log, Operation, Output, StorageReport, Unavailable};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::watch;

pub struct SimulatedLog {
    world: Arc<World>,
    health: watch::Sender<Health>,
}

impl SimulatedLog {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(SimulatedLog { world, health: watch::Sender::new(Health::Well) })
    }
}

impl Log for SimulatedLog {
    fn append(&self, batch: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let world = self.world.clone();
        Box::pin(async move { world.append(batch) })
    }

    fn read(&self, from: Position, max: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        let world = self.world.clone();
        Box::pin(async move {
            let inner = lock(&world.inner);
            let found = inner.logs.get(&from.at).map(|log| log.read(from.offset, max).0).unwrap_or_default();
            Ok(found.into_iter().map(|r| (*r).clone()).collect())
        })
    }

    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
        let (world, topic) = (self.world.clone(), topic.clone());
        Box::pin(async move {
            let inner = lock(&world.inner);
            let parts = inner.logs.iter().filter(|(at, _)| at.topic == topic);
            Ok(parts
                .map(|(at, log)| Ends { at: at.clone(), first: log.first(), next: log.stable(), open: None })
                .collect())
        })
    }

    fn since(&self, at: &Partition, since: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
        let (world, at) = (self.world.clone(), at.clone());
        Box::pin(async move {
            let inner = lock(&world.inner);
            let found = inner.logs.get(&at).map(|log| log.read(0, usize::MAX).0).unwrap_or_default();
            let first = found.iter().find(|r| r.stamp >= since).map(|r| r.position.offset);
            Ok(first.unwrap_or_else(|| inner.logs.get(&at).map_or(0, super::log::PartitionLog::stable)))
        })
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.world.news()
    }
}

impl Operation for SimulatedLog {
    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn storage(&self) -> BoxFuture<'static, StorageReport> {
        Box::pin(async { StorageReport::default() })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
