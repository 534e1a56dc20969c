//! Follows a topic as it grows: what `/v1/results`, the review queue and `tail` stand on.
//!
//! Reads committed records only, in order within each partition; keeps nothing but offsets.

use super::{Log, Unavailable};
use crate::task::{Partition, Position, Record, Topic};
use std::sync::Arc;
use tokio::sync::watch;

/// Records fetched at once from one partition: enough to keep up, small enough to stay responsive.
const BATCH: usize = 500;

/// Where a follower begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// The first record that is still there.
    Start,
    /// What is appended from now on.
    Now,
    /// The next offset of each partition, in order; missing ones begin at the start.
    Offsets(Vec<u64>),
}

pub struct Follower {
    log: Arc<dyn Log>,
    topic: Topic,
    next: Vec<u64>,
    news: watch::Receiver<u64>,
}

impl Follower {
    pub async fn new(log: Arc<dyn Log>, topic: Topic, from: From) -> Result<Self, Unavailable> {
        let news = log.news();
        let ends = log.ends(&topic).await?;
        let next = ends
            .iter()
            .enumerate()
            .map(|(i, ends)| match &from {
                From::Start => ends.first,
                From::Now => ends.next,
                From::Offsets(offsets) => offsets.get(i).copied().unwrap_or(0).max(ends.first),
            })
            .collect();
        Ok(Follower { log, topic, next, news })
    }

    /// The next offset of each partition: begin there to go on after everything seen so far.
    pub fn offsets(&self) -> &[u64] {
        &self.next
    }

    /// What is there now, without waiting; empty at the end. Cancel-safe: what was not returned is
    /// read again.
    pub async fn ready(&mut self) -> Result<Vec<Record>, Unavailable> {
        self.news.borrow_and_update();
        let mut found = Vec::new();
        // Aside until all is read: whoever is cut off between two partitions has seen neither.
        let mut seen = self.next.clone();
        for (index, next) in seen.iter_mut().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let from = Position { at: Partition { topic: self.topic.clone(), index }, offset: *next };
            let records = self.log.read(from, BATCH).await?;
            if let Some(last) = records.last() {
                *next = last.position.offset + 1;
            }
            found.extend(records);
        }
        self.next = seen;
        Ok(found)
    }

    /// Waits until something is there. Cancel-safe as well.
    pub async fn wait(&mut self) -> Result<Vec<Record>, Unavailable> {
        loop {
            let found = self.ready().await?;
            if !found.is_empty() {
                return Ok(found);
            }
            if self.news.changed().await.is_err() {
                return Err(Unavailable("the log has ended".to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{AppendError, Ends, Output};
    use crate::task::{Headers, Timestamp};
    use futures::future::{BoxFuture, FutureExt};
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Two partitions with one record each; the second cannot be read at first.
    struct Slow {
        /// 0: reading partition 1 hangs; 1: it fails; 2: it works.
        works: AtomicU32,
        news: watch::Sender<u64>,
    }

    impl Log for Slow {
        fn append(&self, _: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
            std::future::pending().boxed()
        }

        fn read(&self, from: Position, _: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
            match self.works.load(Ordering::SeqCst) {
                0 if from.at.index == 1 => return std::future::pending().boxed(),
                1 if from.at.index == 1 => {
                    return async { Err(Unavailable("away".to_owned())) }.boxed();
                }
                _ => {}
            }
            let (stamp, headers) = (Timestamp(0), Headers::default());
            let there = from.offset == 0;
            let record = Record { position: from, stamp, key: None, value: None, headers, not_before: None };
            async move { Ok(there.then_some(record).into_iter().collect()) }.boxed()
        }

        fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
            let end = |index| {
                let at = Partition { topic: topic.clone(), index };
                Ends { at, first: 0, next: 1, open: None }
            };
            let ends = vec![end(0), end(1)];
            async { Ok(ends) }.boxed()
        }

        fn since(&self, _: &Partition, _: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
            std::future::pending().boxed()
        }

        fn news(&self) -> watch::Receiver<u64> {
            self.news.subscribe()
        }
    }

    #[tokio::test]
    async fn what_a_wait_that_was_cut_off_or_failed_had_read_is_read_again() {
        let log = Arc::new(Slow { works: AtomicU32::new(0), news: watch::Sender::new(0) });
        let mut follower = Follower::new(log.clone(), Topic::new("t"), From::Start).await.unwrap();
        assert!(follower.wait().now_or_never().is_none());
        assert_eq!(follower.offsets(), [0, 0]);
        log.works.store(1, Ordering::SeqCst);
        assert_eq!(follower.wait().await, Err(Unavailable("away".to_owned())));
        log.works.store(2, Ordering::SeqCst);
        let found = follower.wait().await.unwrap();
        assert_eq!(found.iter().map(|r| r.position.at.index).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(follower.offsets(), [1, 1]);
    }
}
