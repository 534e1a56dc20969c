//! Appends and reads for intake, look-ups and pages.
//!
//! Reads see durable records only. What is in memory is answered at once, the rest from a thread
//! that may block.

use super::base::FrameRef;
use super::changes::PartId;
use super::handle::Handle;
use super::queue::Command;
use super::recovery::partitions;
use super::shared::Shared;
use crate::engine::{AppendError, Ends, Log, Output, Unavailable};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use futures::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// A response is cut where it would pass this many bytes.
const READ_BYTES_MAX: usize = 8 << 20;
/// One batch is one frame, and a frame must fit in memory several times over.
const APPEND_BYTES_MAX: usize = 64 << 20;

pub(super) struct EmbeddedLog(pub(super) Arc<Handle>);

pub(super) fn gone() -> Unavailable {
    Unavailable("the engine has been closed".to_owned())
}

impl Log for EmbeddedLog {
    fn append(&self, batch: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let shared = self.0.shared.clone();
        Box::pin(async move {
            let bytes: usize = batch.iter().map(Output::size).sum();
            if bytes > APPEND_BYTES_MAX {
                let why = format!("a batch of {bytes} bytes; send at most {APPEND_BYTES_MAX} at once");
                return Err(Unavailable(why).into());
            }
            let (reply, answer) = oneshot::channel();
            shared.queue.push(Command::Append { batch, reply }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }

    fn read(&self, from: Position, max: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        let shared = self.0.shared.clone();
        Box::pin(async move {
            let Some(topic) = shared.topics.id(&from.at.topic) else { return Ok(Vec::new()) };
            let id = (topic, from.at.index);
            match read_shown(&shared, id, from.offset, max, false)? {
                Some(found) => Ok(owned(found)),
                None => {
                    let blocking = move || read_shown(&shared, id, from.offset, max, true);
                    let found = tokio::task::spawn_blocking(blocking).await.map_err(|_| gone())??;
                    Ok(owned(found.unwrap_or_default()))
                }
            }
        })
    }

    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
        let (shared, topic) = (self.0.shared.clone(), topic.clone());
        Box::pin(async move {
            let Some(id) = shared.topics.id(&topic) else { return Ok(Vec::new()) };
            let state = shared.state();
            let consumed = state.topics.iter().any(|t| t.id == id && t.consumed);
            let ends = partitions(&state, id).map(|part| {
                let (first, found) = (state.first(part), state.part(part));
                let next = found.map_or(0, |p| p.next);
                let open = found.filter(|_| consumed).map(|p| p.done.open_below(next));
                Ends { at: Partition { topic: topic.clone(), index: part.1 }, first, next, open }
            });
            Ok(ends.collect())
        })
    }

    fn since(&self, at: &Partition, since: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
        let (shared, at) = (self.0.shared.clone(), at.clone());
        Box::pin(async move {
            let Some(topic) = shared.topics.id(&at.topic) else { return Ok(0) };
            let search = move || first_since(&shared, (topic, at.index), since);
            tokio::task::spawn_blocking(search).await.map_err(|_| gone())?
        })
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.0.shared.news.subscribe()
    }
}

fn owned(records: Vec<Arc<Record>>) -> Vec<Record> {
    records.iter().map(|r| Record::clone(r)).collect()
}

/// Records from `from` on. `None`: the disk would be needed, and may not block.
pub(super) fn read(
    shared: &Shared,
    id: PartId,
    from: u64,
    max: usize,
    may_block: bool,
) -> Result<Option<Vec<Arc<Record>>>, Unavailable> {
    select(shared, id, from, max, may_block, |_| true)
}

/// The same without what a compacted topic holds no more.
fn read_shown(
    shared: &Shared,
    id: PartId,
    from: u64,
    max: usize,
    may_block: bool,
) -> Result<Option<Vec<Arc<Record>>>, Unavailable> {
    let compacted = shared.topics.get(id.0).is_some_and(|t| t.stored.compacted);
    select(shared, id, from, max, may_block, |record| !compacted || shared.state().shows(id, record))
}

fn select(
    shared: &Shared,
    id: PartId,
    from: u64,
    max: usize,
    may_block: bool,
    wanted: impl Fn(&Record) -> bool,
) -> Result<Option<Vec<Arc<Record>>>, Unavailable> {
    let (mut found, mut bytes, mut offset) = (Vec::new(), 0, from);
    while found.len() < max {
        let Some((_, frame)) = find(shared, id, offset)? else { break };
        let records = match shared.cached(frame) {
            Some(records) => records,
            None if may_block => match shared.frame(frame) {
                Ok(records) => records,
                // Retention may have taken it since it was found.
                Err(_) if !shared.state().segments.contains_key(&frame.segment) => continue,
                Err(e) => return Err(e),
            },
            None => return Ok(None),
        };
        let here = records.get(&id).map_or(&[][..], |r| r);
        let Some(last) = here.last() else { break };
        let start = here.partition_point(|r| r.position.offset < offset);
        for record in here[start..].iter().filter(|r| wanted(r)) {
            bytes += record_bytes(record);
            if found.len() == max || (bytes > READ_BYTES_MAX && !found.is_empty()) {
                return Ok(Some(found));
            }
            found.push(record.clone());
        }
        offset = last.position.offset + 1;
    }
    Ok(Some(found))
}

/// Whatever can be read in memory is; a miss in the base may touch redb's file for one page.
fn find(shared: &Shared, id: PartId, offset: u64) -> Result<Option<(u64, FrameRef)>, Unavailable> {
    let state = shared.state();
    if state.part(id).is_none_or(|p| offset >= p.next) {
        return Ok(None);
    }
    Ok(state.find(id, offset)?)
}

fn record_bytes(record: &Record) -> usize {
    let headers: usize = record.headers.0.iter().map(|(n, v)| n.len() + v.len()).sum();
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers
}

/// Frames carry the stamp of all their records, and stamps never go back: a search by halves.
fn first_since(shared: &Shared, id: PartId, since: Timestamp) -> Result<u64, Unavailable> {
    let (mut low, mut high) = {
        let state = shared.state();
        (state.first(id), state.part(id).map_or(0, |p| p.next))
    };
    while low < high {
        let middle = low + (high - low) / 2;
        match find(shared, id, middle)? {
            Some((first, frame)) if frame.stamp < since => low = first + u64::from(frame.count),
            Some((first, _)) if first > middle => high = middle,
            Some((first, _)) => high = first.max(low),
            None => high = middle,
        }
    }
    Ok(low)
}
