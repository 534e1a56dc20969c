//! Which offsets of a partition are complete: everything below a base, and ranges above it.
//!
//! A token that is parked for a month holds the base, and costs one range, not a month of offsets.

use crate::engine::codec::{Reader, Short, put_u64};
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Done {
    base: u64,
    /// First to one past the last, apart from each other and from the base.
    ranges: BTreeMap<u64, u64>,
}

impl Done {
    pub(super) fn contains(&self, offset: u64) -> bool {
        offset < self.base || self.ranges.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }

    /// `false`: it was complete already.
    pub(super) fn insert(&mut self, offset: u64) -> bool {
        if self.contains(offset) {
            return false;
        }
        let mut end = offset + 1;
        if let Some(next) = self.ranges.remove(&end) {
            end = next;
        }
        if offset == self.base {
            self.base = end;
            return true;
        }
        match self.ranges.range_mut(..offset).next_back() {
            Some((_, before)) if *before == offset => *before = end,
            _ => {
                self.ranges.insert(offset, end);
            }
        }
        true
    }

    /// The first offset from `first` to `last` that is not complete.
    pub(super) fn first_open(&self, first: u64, last: u64) -> Option<u64> {
        let mut at = first.max(self.base);
        while at <= last {
            match self.ranges.range(..=at).next_back() {
                Some((_, end)) if at < *end => at = *end,
                _ => return Some(at),
            }
        }
        None
    }

    /// How many offsets below `next` are not complete.
    pub(super) fn open_below(&self, next: u64) -> u64 {
        let above: u64 = self.ranges.iter().map(|(start, end)| end - start).sum();
        next.saturating_sub(self.base).saturating_sub(above)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.base);
        put_u64(out, self.ranges.len() as u64);
        for (start, end) in &self.ranges {
            put_u64(out, *start);
            put_u64(out, end - start);
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Done, Short> {
        let mut done = Done { base: r.u64()?, ranges: BTreeMap::new() };
        for _ in 0..r.u64()? {
            let start = r.u64()?;
            done.ranges.insert(start, start.checked_add(r.u64()?).ok_or(Short)?);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_the_set_that_was_put_in(offsets in prop::collection::vec(0u64..40, 0..60)) {
            let (mut done, mut set) = (Done::default(), BTreeSet::new());
            for o in offsets {
                prop_assert_eq!(done.insert(o), set.insert(o));
            }
            for o in 0..45 {
                prop_assert_eq!(done.contains(o), set.contains(&o));
                let open = (o..45).find(|x| !set.contains(x));
                prop_assert_eq!(done.first_open(o, 44), open);
            }
            prop_assert_eq!(done.open_below(45), 45 - set.len() as u64);
            let mut out = Vec::new();
            done.encode(&mut out);
            prop_assert_eq!(Done::decode(&mut Reader::new(&out)).unwrap(), done);
        }
    }

    #[test]
    fn a_parked_token_costs_one_range() {
        let mut done = Done::default();
        (1..100_000).for_each(|o| assert!(done.insert(o)));
        assert_eq!((done.base, done.ranges.len()), (0, 1));
        assert!(done.insert(0));
        assert_eq!((done.base, done.ranges.len()), (100_000, 0));
    }
}
