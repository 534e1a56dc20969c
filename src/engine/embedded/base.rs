//! The state as of the last checkpoint, in redb; read through tables that are opened once for each.
//!
//! Reads only. `checkpoint.rs` is the one that writes here.

use super::changes::{ExpiryRow, PartId, swept_of, swept_tag};
use super::files::File;
use crate::dedupe::{Entry, SlotEntry, SlotName};
use crate::engine::codec::{Reader, Short, put_bytes, put_u64};
use crate::task::Timestamp;
use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// Where a frame with records of a partition lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameRef {
    /// First sequence of its segment.
    pub(super) segment: u64,
    pub(super) at: u64,
    /// Header and body, bytes.
    pub(super) len: u32,
    /// Records of this partition in it.
    pub(super) count: u32,
    pub(super) stamp: Timestamp,
}

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const TOPICS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("topics");
pub(super) const PARTS: TableDefinition<'_, PartId, &[u8]> = TableDefinition::new("partitions");
pub(super) const SEGMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("segments");
pub(super) type IndexKey = (u32, u32, u64);
pub(super) type IndexValue = (u64, u64, u32, u32, i64);
pub(super) const INDEX: TableDefinition<'_, IndexKey, IndexValue> = TableDefinition::new("index");
pub(super) const CLAIMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("claims");
/// Keys of the claims that have no outcome: few among many.
pub(super) const OPEN: TableDefinition<'_, &[u8], ()> = TableDefinition::new("open");
pub(super) const REFUSED: TableDefinition<'_, &[u8], i64> = TableDefinition::new("refused");
pub(super) const EXPIRY: TableDefinition<'_, (i64, u8, &[u8]), ()> = TableDefinition::new("expiry");
pub(super) const LIVE: TableDefinition<'_, (u32, u32, &[u8]), u64> = TableDefinition::new("live");

/// redb failed, or what it holds is not what was put in.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BaseError(pub(super) String);

impl<E: Into<redb::Error>> From<E> for BaseError {
    fn from(e: E) -> Self {
        BaseError(e.into().to_string())
    }
}

pub(super) fn damaged(what: &str) -> BaseError {
    BaseError(format!("a stored {what} cannot be read"))
}

/// redb's file, through our own file layer.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<dyn File>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// One checkpoint, open for reading.
pub(super) struct Base {
    claims: ReadOnlyTable<&'static [u8], &'static [u8]>,
    open: ReadOnlyTable<&'static [u8], ()>,
    refused: ReadOnlyTable<&'static [u8], i64>,
    index: ReadOnlyTable<IndexKey, IndexValue>,
    expiry: ReadOnlyTable<(i64, u8, &'static [u8]), ()>,
}

impl Base {
    /// All tables must be there.
    pub(super) fn open(db: &Database) -> Result<Base, BaseError> {
        let read = db.begin_read()?;
        Ok(Base {
            claims: read.open_table(CLAIMS)?,
            open: read.open_table(OPEN)?,
            refused: read.open_table(REFUSED)?,
            index: read.open_table(INDEX)?,
            expiry: read.open_table(EXPIRY)?,
        })
    }

    pub(super) fn claim(&self, key: &[u8]) -> Result<Option<Arc<Entry>>, BaseError> {
        let Some(found) = self.claims.get(key)? else { return Ok(None) };
        decode_claim(found.value()).map(|e| Some(Arc::new(e)))
    }

    pub(super) fn refused(&self, key: &[u8]) -> Result<Option<Timestamp>, BaseError> {
        Ok(self.refused.get(key)?.map(|found| Timestamp(found.value())))
    }

    /// The last entry of the partition at or below `offset`.
    pub(super) fn floor(&self, (t, p): PartId, offset: u64) -> Result<Option<(u64, FrameRef)>, BaseError> {
        let found = self.index.range((t, p, 0)..=(t, p, offset))?.next_back().transpose()?;
        Ok(found.map(|(key, value)| (key.value().2, frame_ref(value.value()))))
    }

    /// The first entry of the partition at or above `offset`.
    pub(super) fn ceiling(&self, (t, p): PartId, offset: u64) -> Result<Option<(u64, FrameRef)>, BaseError> {
        let found = self.index.range((t, p, offset)..=(t, p, u64::MAX))?.next().transpose()?;
        Ok(found.map(|(key, value)| (key.value().2, frame_ref(value.value()))))
    }

    /// Keys of open claims behind `after`, at most `max`.
    pub(super) fn open_keys(&self, after: &[u8], max: usize) -> Result<Vec<Bytes>, BaseError> {
        let mut keys = Vec::new();
        for found in self.open.range::<&[u8]>((Bound::Excluded(after), Bound::Unbounded))?.take(max) {
            keys.push(Bytes::copy_from_slice(found?.0.value()));
        }
        Ok(keys)
    }

    /// Rows of the expiry index behind `from`, with a change at or before `changed`; oldest first.
    pub(super) fn due(
        &self,
        from: &ExpiryRow,
        changed: Timestamp,
        max: usize,
    ) -> Result<Vec<ExpiryRow>, BaseError> {
        let none: &[u8] = &[];
        let from = (from.0, swept_tag(from.1), from.2.as_ref());
        let end = (changed.0.saturating_add(1), 0, none);
        let mut rows = Vec::new();
        if from >= end {
            return Ok(rows);
        }
        for found in self.expiry.range((Bound::Excluded(from), Bound::Excluded(end)))?.take(max) {
            let (row, _) = found?;
            let (changed, tag, key) = row.value();
            let what = swept_of(tag).map_err(|_| damaged("expiry"))?;
            rows.push((changed, what, Bytes::copy_from_slice(key)));
        }
        Ok(rows)
    }
}

fn frame_ref((segment, at, len, count, stamp): IndexValue) -> FrameRef {
    FrameRef { segment, at, len, count, stamp: Timestamp(stamp) }
}

/// A claim, head and slots together.
pub(super) fn encode_claim(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, &entry.encode_head());
    put_u64(&mut out, entry.slots.len() as u64);
    for (name, slot) in &entry.slots {
        put_bytes(&mut out, name.0.as_bytes());
        put_bytes(&mut out, &slot.encode_slot());
    }
    out
}

fn decode_claim(bytes: &[u8]) -> Result<Entry, BaseError> {
    let mut r = Reader::new(bytes);
    let short = |_: Short| damaged("claim");
    let mut entry =
        Entry::decode_head(r.slice_counted().map_err(short)?).map_err(|e| BaseError(e.to_string()))?;
    for _ in 0..r.u64().map_err(short)? {
        let name = SlotName(r.text().map_err(short)?.into());
        let slot = SlotEntry::decode_slot(r.slice_counted().map_err(short)?);
        entry.slots.insert(name, slot.map_err(|e| BaseError(e.to_string()))?);
    }
    Ok(entry)
}
