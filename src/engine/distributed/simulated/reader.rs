//! The log of the port as one process reads it: committed records only. And its operation, which has
//! nothing to report.

use super::super::lock;
use super::world::World;
use crate::engine::{AppendError, Ends, Health, Log, Operation, Output, StorageReport, Unavailable};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::watch;

/// Of one answer, as the port says.
const BYTES: usize = 8 << 20;

pub struct SimulatedLog {
    world: Arc<World>,
    health: watch::Sender<Health>,
}

impl SimulatedLog {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(SimulatedLog { world, health: watch::Sender::new(Health::Well) })
    }
}

fn weight(record: &Record) -> usize {
    let headers: usize = record.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    let length = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, bytes::Bytes::len);
    headers + length(&record.key) + length(&record.value)
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
            let mut bytes = 0;
            let fits = found.into_iter().enumerate().take_while(|(index, record)| {
                bytes += weight(record);
                *index == 0 || bytes <= BYTES
            });
            Ok(fits.map(|(_, record)| (*record).clone()).collect())
        })
    }

    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
        let (world, topic) = (self.world.clone(), topic.clone());
        Box::pin(async move {
            let inner = lock(&world.inner);
            let parts = inner.logs.iter().filter(|(at, _)| at.topic == topic);
            Ok(parts
                .map(|(at, log)| Ends {
                    at: at.clone(),
                    first: log.first(),
                    next: log.stable(),
                    open: inner.open(at, log),
                })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Headers;

    #[tokio::test]
    async fn an_answer_has_no_more_bytes_than_the_port_says_and_at_least_one_record() {
        let world = World::new(0, &[]);
        let topic = Topic::new("results");
        world.make(&topic, 1, std::collections::BTreeMap::new());
        let log = SimulatedLog::new(world);
        for size in [9 << 20, 3 << 20, 3 << 20, 3 << 20] {
            let value = Some(vec![0; size].into());
            let headers = Headers::default();
            let output = Output { topic: topic.clone(), key: None, value, headers, not_before: None };
            log.append(vec![output]).await.unwrap();
        }
        let at = Partition { topic, index: 0 };
        for (offset, count) in [(0, 1), (1, 2), (3, 1)] {
            let found = log.read(Position { at: at.clone(), offset }, 1_000).await.unwrap();
            assert_eq!(found.len(), count, "from {offset} on");
        }
    }
}
