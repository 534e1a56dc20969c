//! Folds what came since the last checkpoint into redb, in one transaction that also says how far
//! in the log it reaches.
//!
//! Runs beside the writer on a frozen layer; a crash before its commit costs only a longer replay.

use super::base::{
    BaseError, CLAIMS, EXPIRY, INDEX, LIVE, META, OPEN, PARTS, REFUSED, SEGMENTS, TOPICS, encode_claim,
};
use super::changes::{PartId, Swept, swept_tag};
use super::done::Done;
use super::state::{Layer, LogEnd, Part, SegmentInfo, State};
use super::topics::StoredTopic;
use crate::engine::codec::{Reader, Short, put_bytes, put_i64, put_u64};
use crate::task::{Timestamp, Topic};
use redb::{Database, WriteTransaction};
use std::sync::Arc;

/// One frozen layer with all that must be stored beside it.
#[derive(Debug)]
pub(super) struct Fold {
    layer: Arc<Layer>,
    topics: Vec<StoredTopic>,
    parts: Vec<(PartId, Vec<u8>)>,
    segments: Vec<(u64, Vec<u8>)>,
    meta: Vec<u8>,
    /// Where a replay begins once this is written.
    pub(super) segment: u64,
}

impl Fold {
    /// Freezes the newest layer. Only when no other is frozen.
    pub(super) fn freeze(state: &mut State) -> Fold {
        let layer = Arc::new(std::mem::take(&mut state.layer));
        let parts = layer.parts.iter().filter_map(|id| Some((*id, encode_part(state.parts.get(id)?))));
        let segments =
            layer.segments.iter().filter_map(|s| Some((*s, encode_segment(state.segments.get(s)?))));
        let fold = Fold {
            parts: parts.collect(),
            segments: segments.collect(),
            topics: state.topics.clone(),
            meta: encode_meta(state.end, state.stamp, state.forgot),
            segment: state.end.segment,
            layer: layer.clone(),
        };
        state.frozen = Some(layer);
        fold
    }

    pub(super) fn write(&self, db: &Database) -> Result<(), BaseError> {
        let mut write = db.begin_write()?;
        // So that opening after a crash does not walk the whole file.
        write.set_quick_repair(true);
        self.write_claims(&write)?;
        self.write_log(&write)?;
        write.open_table(META)?.insert("log", self.meta.as_slice())?;
        super::super::crash::crash_point("checkpoint.before-commit");
        write.commit()?;
        super::super::crash::crash_point("checkpoint.after-commit");
        Ok(())
    }

    fn write_claims(&self, write: &WriteTransaction) -> Result<(), BaseError> {
        let (mut claims, mut open) = (write.open_table(CLAIMS)?, write.open_table(OPEN)?);
        let (mut refused, mut expiry) = (write.open_table(REFUSED)?, write.open_table(EXPIRY)?);
        for (changed, what, key) in &self.layer.swept {
            expiry.remove((*changed, swept_tag(*what), key.as_ref()))?;
        }
        for (key, entry) in &self.layer.claims {
            let key = key.as_ref();
            match entry {
                Some(e) => claims.insert(key, encode_claim(e).as_slice())?.map(drop),
                None => claims.remove(key)?.map(drop),
            };
            match entry {
                Some(e) if !e.is_closed() => open.insert(key, ())?.map(drop),
                _ => open.remove(key)?.map(drop),
            };
            if let Some(e) = entry.as_ref().filter(|e| e.is_closed()) {
                expiry.insert((e.changed.0, swept_tag(Swept::Claim), key), ())?;
            }
        }
        for (key, changed) in &self.layer.refused {
            let key = key.as_ref();
            match changed {
                Some(changed) => {
                    refused.insert(key, changed.0)?;
                    expiry.insert((changed.0, swept_tag(Swept::Refused), key), ())?;
                }
                None => drop(refused.remove(key)?),
            }
        }
        Ok(())
    }

    fn write_log(&self, write: &WriteTransaction) -> Result<(), BaseError> {
        let (mut index, mut segments) = (write.open_table(INDEX)?, write.open_table(SEGMENTS)?);
        for (key, f) in &self.layer.index {
            index.insert(*key, (f.segment, f.at, f.len, f.count, f.stamp.0))?;
        }
        for (segment, info) in &self.segments {
            segments.insert(segment, info.as_slice())?;
        }
        for (segment, info) in &self.layer.dropped {
            for ((t, p), (first, last)) in &info.parts {
                index.retain_in((*t, *p, *first)..=(*t, *p, *last), |_, v| v.0 != *segment)?;
            }
            segments.remove(segment)?;
        }
        let (mut parts, mut topics) = (write.open_table(PARTS)?, write.open_table(TOPICS)?);
        for (id, part) in &self.parts {
            parts.insert(id, part.as_slice())?;
        }
        for topic in &self.topics {
            topics.insert(topic.id, encode_topic(topic).as_slice())?;
        }
        let mut live = write.open_table(LIVE)?;
        for (((t, p), key), offset) in &self.layer.live {
            match offset {
                Some(offset) => drop(live.insert((*t, *p, key.as_ref()), offset)?),
                None => drop(live.remove((*t, *p, key.as_ref()))?),
            }
        }
        Ok(())
    }
}

fn encode_part(part: &Part) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, part.next);
    part.done.encode(&mut out);
    out
}

pub(super) fn decode_part(bytes: &[u8]) -> Result<Part, Short> {
    let mut r = Reader::new(bytes);
    Ok(Part { next: r.u64()?, done: Done::decode(&mut r)?, ..Part::default() })
}

fn encode_segment(info: &SegmentInfo) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, info.bytes);
    put_i64(&mut out, info.newest.0);
    put_u64(&mut out, info.parts.len() as u64);
    for ((t, p), (first, last)) in &info.parts {
        [u64::from(*t), u64::from(*p), *first, *last].into_iter().for_each(|n| put_u64(&mut out, n));
    }
    out
}

pub(super) fn decode_segment(bytes: &[u8]) -> Result<SegmentInfo, Short> {
    let mut r = Reader::new(bytes);
    let mut info = SegmentInfo { bytes: r.u64()?, newest: Timestamp(r.i64()?), ..SegmentInfo::default() };
    for _ in 0..r.u64()? {
        info.parts.insert((r.u32()?, r.u32()?), (r.u64()?, r.u64()?));
    }
    Ok(info)
}

fn encode_topic(topic: &StoredTopic) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, topic.name.as_str().as_bytes());
    put_u64(&mut out, u64::from(topic.partitions));
    out.push(u8::from(topic.compacted));
    out.push(u8::from(topic.consumed));
    out
}

pub(super) fn decode_topic(id: u32, bytes: &[u8]) -> Result<StoredTopic, Short> {
    let mut r = Reader::new(bytes);
    let (name, partitions) = (Topic::new(r.text()?), r.u32()?);
    Ok(StoredTopic { id, name, partitions, compacted: r.u8()? == 1, consumed: r.u8()? == 1 })
}

fn encode_meta(end: LogEnd, stamp: Timestamp, forgot: u64) -> Vec<u8> {
    let mut out = Vec::new();
    [end.segment, end.at, end.sequence].into_iter().for_each(|n| put_u64(&mut out, n));
    put_i64(&mut out, stamp.0);
    put_u64(&mut out, forgot);
    out
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<(LogEnd, Timestamp, u64), Short> {
    let mut r = Reader::new(bytes);
    let end = LogEnd { segment: r.u64()?, at: r.u64()?, sequence: r.u64()? };
    Ok((end, Timestamp(r.i64()?), r.u64()?))
}
