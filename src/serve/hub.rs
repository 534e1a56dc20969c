//! Reads the end of some topics once and tells every subscriber.
//!
//! Nothing is lost on the way: a subscriber that was told too little, or too late, reads the log
//! itself. The hub reads only while somebody subscribes, and never waits for a subscriber.

use super::cursor::Cursor;
use crate::engine::{Log, Unavailable};
use crate::task::{Position, Record, Topic};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

/// Records kept for subscribers that are a little behind; with `SHARED_MAX` at most 32 MiB a hub.
const KEPT: usize = 512;
/// Larger records are not kept: subscribers read them from the log.
const SHARED_MAX: usize = 64 * 1024;
/// Records read at once from one partition.
const PAGE: usize = 500;
/// Subscribers that catch up at the same time. Reading is work for a processor, not waiting for one: more
/// at once would be no faster, and all other requests would wait behind them.
const CATCHING_UP_MAX: usize = 2;
/// Beside them, subscribers that were level a moment ago: one page each, and a person may wait for it.
const LIVE_MAX: usize = 1;
/// How long to wait before the log is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What subscribers are told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Record(Arc<Record>),
    /// Something is there that was not told: read the log.
    Look,
}

#[derive(Clone)]
pub(super) struct Hub {
    log: Arc<dyn Log>,
    topics: Arc<[Topic]>,
    told: broadcast::Sender<Told>,
    wanted: Arc<Notify>,
    catching_up: Arc<Semaphore>,
    live: Arc<Semaphore>,
}

/// How much of the log a subscriber has to read, as far as it knows, and so with whom it takes turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Behind {
    /// It was level, and was told to look.
    Little,
    /// It has found a full page, was told too late, or begins at the start.
    Much,
}

/// Where a subscriber begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    Start,
    Now,
}

impl Hub {
    pub(super) fn new(log: Arc<dyn Log>, topics: Vec<Topic>) -> Self {
        let (told, _) = broadcast::channel(KEPT);
        let (catching_up, live) = (Semaphore::new(CATCHING_UP_MAX), Semaphore::new(LIVE_MAX));
        let (catching_up, live) = (Arc::new(catching_up), Arc::new(live));
        Hub { log, topics: topics.into(), told, wanted: Arc::default(), catching_up, live }
    }

    pub(super) fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// A subscriber's turn to read the log, in the order they ask: to be kept for one page of one
    /// partition, until its events are made. Who catches up never holds up who is level.
    pub(super) async fn turn(&self, behind: Behind) -> Option<OwnedSemaphorePermit> {
        let turns = match behind {
            Behind::Little => &self.live,
            Behind::Much => &self.catching_up,
        };
        // The semaphores are never closed.
        turns.clone().acquire_owned().await.ok()
    }

    /// Subscribe first and take the cursor then: what becomes visible between the two is told twice
    /// rather than never, and a cursor passes each record once.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Told> {
        let receiver = self.told.subscribe();
        self.wanted.notify_one();
        receiver
    }

    pub(super) async fn cursor(&self, begin: Begin) -> Result<Cursor, Unavailable> {
        let mut topics = Vec::with_capacity(self.topics.len());
        for topic in self.topics.iter() {
            let ends = self.log.ends(topic).await?;
            let next = ends.iter().map(|e| match begin {
                Begin::Start => e.first,
                Begin::Now => e.next,
            });
            topics.push((topic.clone(), next.collect()));
        }
        Ok(Cursor::new(topics))
    }

    /// Tells, until `stop`.
    pub(super) async fn pump(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if self.told.receiver_count() == 0 {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = stop.cancelled() => return,
                }
            }
            if let Err(away) = self.tell(&stop).await {
                tracing::debug!(%away, "events wait for the log");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Until nobody subscribes any more.
    async fn tell(&self, stop: &CancellationToken) -> Result<(), Unavailable> {
        let mut news = self.log.news();
        let mut cursor = self.cursor(Begin::Now).await?;
        // Whoever subscribed before this cursor was taken may have missed what lies below it.
        self.send(Told::Look);
        loop {
            news.borrow_and_update();
            while let Some(records) = self.more(&mut cursor).await? {
                records.into_iter().for_each(|record| self.pass_on(record));
            }
            if self.told.receiver_count() == 0 {
                return Ok(());
            }
            tokio::select! {
                changed = news.changed() => changed.map_err(|_| Unavailable("the log has ended".to_owned()))?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Everything new, one page of each partition that has some; `None` at the end.
    async fn more(&self, cursor: &mut Cursor) -> Result<Option<Vec<Record>>, Unavailable> {
        let ends = self.cursor(Begin::Now).await?;
        let behind: Vec<Position> = cursor
            .partitions()
            .zip(ends.partitions())
            .filter(|(mine, end)| mine.offset < end.offset)
            .map(|(mine, _)| mine)
            .collect();
        let mut found = Vec::new();
        for from in behind {
            let records = self.log.read(from, PAGE).await?;
            found.extend(records.into_iter().filter(|r| cursor.pass(&r.position)));
        }
        Ok((!found.is_empty()).then_some(found))
    }

    fn pass_on(&self, record: Record) {
        let size = record.value.as_ref().map_or(0, bytes::Bytes::len);
        let headers: usize = record.headers.0.iter().map(|(name, value)| name.len() + value.len()).sum();
        let small = size + headers <= SHARED_MAX;
        self.send(if small { Told::Record(Arc::new(record)) } else { Told::Look });
    }

    fn send(&self, told: Told) {
        // An error says that nobody listens, which is fine.
        let _: Result<usize, _> = self.told.send(told);
    }
}
