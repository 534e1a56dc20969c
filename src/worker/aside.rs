//! Places for tokens that wait for a schema, and for records whose dead letter fits nowhere. Tokens of all kinds lie in the same topics, so one that waits
//! must not hold its topic, nor keep a place among the tasks that run.
//!
//! Decides only whether there is one more place; beyond the last one a token holds its topic, as a record
//! of a kind's own topic always does.

use crate::engine::Delivery;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of records that wait beside the tasks that run: as much as a few lanes hold.
const PLACES: usize = 16 << 10;
/// Each counts as so many at least, so that there are a thousand of them at most: few enough for their
/// offsets to be written down as not complete.
const LEAST: usize = 16;

#[derive(Clone)]
pub(super) struct Aside(Arc<Semaphore>);

impl Default for Aside {
    fn default() -> Self {
        Aside(Arc::new(Semaphore::new(PLACES)))
    }
}

impl Aside {
    /// Given back when it is dropped.
    pub(super) fn place(&self, delivery: &Delivery) -> Option<OwnedSemaphorePermit> {
        let bytes = delivery.record.value.as_ref().map_or(0, bytes::Bytes::len);
        let places = u32::try_from((bytes >> 10).max(LEAST)).ok()?;
        self.0.clone().try_acquire_many_owned(places).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::Nonce;
    use crate::engine::Lease;
    use crate::task::{Headers, Partition, Position, Record, Timestamp, Topic};

    fn token(bytes: usize) -> Delivery {
        let at = Partition { topic: Topic::new("resume"), index: 0 };
        let record = Record {
            position: Position { at: at.clone(), offset: 1 },
            stamp: Timestamp(1),
            key: None,
            value: Some(vec![b'x'; bytes].into()),
            headers: Headers::default(),
            not_before: None,
        };
        Delivery { lease: Lease { at, epoch: 1 }, record: Arc::new(record), nonce: Nonce(1) }
    }

    #[test]
    fn places_are_bounded_by_count_and_by_bytes_and_given_back() {
        for (bytes, most) in [(10, 1_024), (1 << 20, 16), (3 << 20, 5)] {
            let aside = Aside::default();
            let mut taken: Vec<_> = std::iter::from_fn(|| aside.place(&token(bytes))).collect();
            assert_eq!(taken.len(), most);
            taken.pop();
            assert!(aside.place(&token(bytes)).is_some());
        }
        assert!(Aside::default().place(&token(17 << 20)).is_none(), "it holds its topic");
    }
}
