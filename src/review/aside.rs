//! Decisions that wait until the schema is known that their kind's results are written with, so that those
//! about other items need not.
//!
//! Decides only who comes next: of one item in the order of the log, whichever item first. It asks nobody
//! and rules on nothing.

use crate::avro::Need;
use crate::engine::{Delivery, Lease};
use std::collections::VecDeque;

/// Decisions that are set aside, at most: what a large team decides within a quarter of an hour, and few
/// enough for their offsets to be written down as not complete. Beyond them no decision is read.
const WAITING: usize = 500;
/// Bytes of them. An edit holds a whole answer.
const BYTES: usize = 16 << 20;

struct Waiting {
    item: String,
    need: Need,
    delivery: Delivery,
}

#[derive(Default)]
pub(super) struct Aside {
    waiting: VecDeque<Waiting>,
}

impl Aside {
    pub(super) fn has_room(&self) -> bool {
        let size = |w: &Waiting| w.delivery.record.value.as_ref().map_or(0, bytes::Bytes::len);
        self.waiting.len() < WAITING && self.waiting.iter().map(size).sum::<usize>() < BYTES
    }

    /// One that came to its turn and found no schema: of its item there is none before it.
    pub(super) fn put(&mut self, item: String, need: Need, delivery: Delivery) {
        self.waiting.push_front(Waiting { item, need, delivery });
    }

    /// One that is just read: behind those on the same item, if there are any. Otherwise it is given back.
    pub(super) fn queue(&mut self, item: &str, delivery: Delivery) -> Option<Delivery> {
        let Some(need) = self.waiting.iter().find(|w| w.item == item).map(|w| w.need.clone()) else {
            return Some(delivery);
        };
        self.waiting.push_back(Waiting { item: item.to_owned(), need, delivery });
        None
    }

    /// The next one that has what it waits for.
    pub(super) fn take(&mut self, known: impl Fn(&Need) -> bool) -> Option<Delivery> {
        let next = self.waiting.iter().position(|w| known(&w.need))?;
        Some(self.waiting.remove(next)?.delivery)
    }

    /// Whoever owns the partition now reads them again.
    pub(super) fn void(&mut self, lease: &Lease) {
        self.waiting.retain(|w| w.delivery.lease != *lease);
    }

    /// What they wait for, each once: as many as there are topics for results.
    pub(super) fn needs(&self) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        for waiting in &self.waiting {
            if !needs.contains(&waiting.need) {
                needs.push(waiting.need.clone());
            }
        }
        needs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedupe::Nonce;
    use crate::task::{Headers, Partition, Position, Record, Timestamp, Topic};
    use std::sync::Arc;

    fn delivery(index: u32, offset: u64, bytes: usize) -> Delivery {
        let at = Partition { topic: Topic::new("review.decisions"), index };
        let record = Record {
            position: Position { at: at.clone(), offset },
            stamp: Timestamp(1),
            key: None,
            value: Some(vec![b'x'; bytes].into()),
            headers: Headers::default(),
            not_before: None,
        };
        Delivery { lease: Lease { at, epoch: 1 }, record: Arc::new(record), nonce: Nonce(1) }
    }

    fn need(name: &str) -> Need {
        Need::Results(Topic::new(name))
    }

    fn taken(aside: &mut Aside, known: &Need) -> Option<u64> {
        aside.take(|need| need == known).map(|d| d.record.position.offset)
    }

    #[test]
    fn of_one_item_the_first_comes_first_and_those_of_another_kind_need_not_wait() {
        let mut aside = Aside::default();
        let (orders, tickets) = (need("orders"), need("tickets"));
        aside.put("a".into(), orders.clone(), delivery(0, 1, 1));
        aside.put("b".into(), tickets.clone(), delivery(0, 2, 1));
        assert!(aside.queue("a", delivery(0, 3, 1)).is_none());
        assert!(aside.queue("c", delivery(0, 4, 1)).is_some(), "nothing is known against it");
        assert_eq!(aside.needs(), [tickets.clone(), orders.clone()]);
        assert_eq!((taken(&mut aside, &tickets), taken(&mut aside, &tickets)), (Some(2), None));
        let first = aside.take(|_| true).unwrap();
        assert_eq!(first.record.position.offset, 1);
        // It had not come so far as it seemed.
        aside.put("a".into(), orders.clone(), first);
        assert_eq!([(); 3].map(|()| taken(&mut aside, &orders)), [Some(1), Some(3), None]);
    }

    #[test]
    fn what_is_set_aside_is_bounded_by_count_and_bytes_and_void_with_its_lease() {
        for (bytes, most) in [(1, WAITING), (1 << 20, 16)] {
            let mut aside = Aside::default();
            let mut put = 0;
            while aside.has_room() {
                put += 1;
                aside.put(format!("{put}"), need("orders"), delivery(put % 2, u64::from(put), bytes));
            }
            assert_eq!(put as usize, most);
            aside.void(&delivery(0, 0, 0).lease);
            assert!(aside.has_room());
            let left: Vec<u64> = std::iter::from_fn(|| taken(&mut aside, &need("orders"))).collect();
            assert!(left.len() == most / 2 && left.iter().all(|offset| offset % 2 == 1), "{left:?}");
        }
    }
}
