//! Partitions and transactions: what was appended, and what a read_committed reader sees of it.
//!
//! A transaction becomes visible partition by partition, when its marker is written there; a reader
//! never passes the first record of one that is still open.

use crate::engine::Output;
use crate::task::{Partition, Position, Record, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One transaction of one producer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Tx(pub(super) u64);

enum Slot {
    Record {
        record: Arc<Record>,
        tx: Option<Tx>,
    },
    /// Takes an offset and is never read.
    Marker,
}

#[derive(Default)]
pub(super) struct PartitionLog {
    slots: Vec<Slot>,
    /// What lies below is gone.
    first: usize,
    /// How each transaction ended here.
    ended: BTreeMap<Tx, bool>,
    /// Everything below can be read.
    stable: usize,
}

impl PartitionLog {
    pub(super) fn append(
        &mut self,
        at: &Partition,
        output: &Output,
        tx: Option<Tx>,
        stamp: Timestamp,
    ) -> Position {
        let position = Position { at: at.clone(), offset: self.slots.len() as u64 };
        let record = Record {
            position: position.clone(),
            stamp,
            key: output.key.clone(),
            value: output.value.clone(),
            headers: output.headers.clone(),
            not_before: output.not_before,
        };
        self.slots.push(Slot::Record { record: Arc::new(record), tx });
        self.advance();
        position
    }

    pub(super) fn end(&mut self, tx: Tx, committed: bool) {
        self.ended.insert(tx, committed);
        self.slots.push(Slot::Marker);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(slot) = self.slots.get(self.stable) {
            let open = matches!(slot, Slot::Record { tx: Some(tx), .. } if !self.ended.contains_key(tx));
            if open {
                return;
            }
            self.stable += 1;
        }
    }

    /// Up to `max` records from `from` on, and where to go on.
    pub(super) fn read(&self, from: u64, max: usize) -> (Vec<Arc<Record>>, u64) {
        let mut at = usize::try_from(from).unwrap_or(usize::MAX).max(self.first);
        let mut found = Vec::new();
        while at < self.stable && found.len() < max {
            if let Slot::Record { record, tx } = &self.slots[at]
                && tx.is_none_or(|tx| self.ended.get(&tx) == Some(&true))
            {
                found.push(record.clone());
            }
            at += 1;
        }
        (found, at.max(usize::try_from(from).unwrap_or(0)) as u64)
    }

    /// As retention does. Never past what a reader may see.
    pub(super) fn trim(&mut self, first: u64) {
        self.first = usize::try_from(first).unwrap_or(usize::MAX).clamp(self.first, self.stable);
    }

    /// What lies at `end` and above was never replicated.
    pub(super) fn cut_short(&mut self, end: u64) {
        self.slots.truncate(usize::try_from(end).unwrap_or(usize::MAX).max(self.first));
        self.stable = self.stable.min(self.slots.len());
    }

    pub(super) fn first(&self) -> u64 {
        self.first as u64
    }

    pub(super) fn end_offset(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Where a reader of committed records must stop.
    pub(super) fn stable(&self) -> u64 {
        self.stable as u64
    }
}
