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

    /// What is there now, without waiting; empty at the end.
    pub async fn ready(&mut self) -> Result<Vec<Record>, Unavailable> {
        self.news.borrow_and_update();
        let mut found = Vec::new();
        for (index, next) in self.next.iter_mut().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let from = Position { at: Partition { topic: self.topic.clone(), index }, offset: *next };
            let records = self.log.read(from, BATCH).await?;
            if let Some(last) = records.last() {
                *next = last.position.offset + 1;
            }
            found.extend(records);
        }
        Ok(found)
    }

    /// Waits until something is there. Cancel-safe: what was not returned is read again.
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
