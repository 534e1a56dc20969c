//! Which records of one partition are being worked on, and what a commit would write of it.
//!
//! Offsets come in the order of the log and are not dense: a place where no record was found is
//! treated as complete, so only what is open is kept, and memory is bounded by the work in flight,
//! not by the span it covers. Everything that is counted is read from what is kept; there is no
//! counter beside it that could drift. It never waits, fetches or commits.

use super::metadata::Progress;
use crate::engine::Gone;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Handed out, or about to be.
    Open,
    /// In the commit that is under way: complete if it becomes visible.
    Committing,
}

/// What to do with a record that was fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Fetched {
    pub deliver: bool,
    /// Records that were not complete and are no longer in the log. They stay open, until it is known
    /// whether they had begun a task.
    pub vanished: BTreeSet<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracker {
    /// As it was read when the partition was assigned; holes below `next` have been fetched since.
    loaded: Progress,
    open: BTreeMap<u64, State>,
    /// One past the last offset that was fetched.
    next: u64,
    /// One past the highest offset that was completed here.
    done_end: u64,
}

impl Tracker {
    pub fn new(loaded: Progress) -> Self {
        let next = loaded.base;
        Tracker { loaded, open: BTreeMap::new(), next, done_end: 0 }
    }

    /// Where to fetch from: after assignment, and again after a pause has thrown away what was fetched ahead.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What was lost before this partition was read: the log begins at `first`.
    #[must_use]
    pub fn begins(&mut self, first: u64) -> Gone {
        if first <= self.next {
            return Gone::default();
        }
        let kept = self.loaded.holes.split_off(&first);
        let each = std::mem::replace(&mut self.loaded.holes, kept);
        self.next = first;
        Gone { each, span: self.loaded.end..first.max(self.loaded.end) }
    }

    /// The topic is another one of its name: what the old one held is gone as a whole, but for what was complete.
    pub fn ends(&self) -> Gone {
        Gone { each: self.loaded.holes.clone(), span: self.loaded.end..u64::MAX }
    }

    /// The old topic, once it is known what there is to do about it.
    pub fn ended(&mut self, orphans: &BTreeSet<u64>) {
        self.loaded.holes.clear();
        self.next = self.loaded.end.max(orphans.last().map_or(0, |last| last + 1));
    }

    /// Of what has vanished, these began tasks that are open: to be completed like any record. The rest
    /// counts as complete, as a place where no record was found.
    pub fn orphaned(&mut self, gone: &Gone, orphans: &BTreeSet<u64>) {
        self.open.retain(|offset, _| !gone.each.contains(offset) || orphans.contains(offset));
        for offset in orphans.iter().filter(|offset| **offset < self.next && gone.contains(**offset)) {
            self.open.entry(*offset).or_insert(State::Open);
        }
    }

    /// The next record of the log. One that was fetched before is not delivered again.
    pub fn fetched(&mut self, offset: u64) -> Fetched {
        if offset < self.next {
            return Fetched { deliver: false, vanished: BTreeSet::new() };
        }
        let known = self.loaded.is_done(offset);
        let mut passed = std::mem::take(&mut self.loaded.holes);
        self.loaded.holes = passed.split_off(&(offset + 1));
        passed.remove(&offset);
        self.next = offset + 1;
        self.open.extend(passed.iter().map(|gone| (*gone, State::Open)));
        if !known {
            self.open.insert(offset, State::Open);
        }
        Fetched { deliver: !known, vanished: passed }
    }

    /// Whether the record has been completed by a commit that is visible.
    pub fn is_complete(&self, offset: u64) -> bool {
        if offset >= self.next {
            return self.loaded.is_done(offset);
        }
        !self.open.contains_key(&offset)
    }

    /// Takes these into the commit that is about to be made. `false` for one that is not open here.
    #[must_use]
    pub fn take(&mut self, offset: u64) -> bool {
        match self.open.get_mut(&offset) {
            Some(state @ State::Open) => {
                *state = State::Committing;
                true
            }
            _ => false,
        }
    }

    /// Leaves one out again.
    pub fn put_back(&mut self, offset: u64) {
        if let Some(state) = self.open.get_mut(&offset) {
            *state = State::Open;
        }
    }

    /// What a commit of all that was taken writes: offset, end and holes of one moment.
    pub fn progress(&self) -> Progress {
        let taken = self.open.iter().rev().find(|(_, s)| **s == State::Committing).map_or(0, |(o, _)| o + 1);
        let end = self.loaded.end.max(self.done_end).max(taken);
        let open = self.open.iter().filter(|(_, s)| **s == State::Open).map(|(o, _)| *o);
        // What was loaded and is not fetched yet lies behind all that is.
        let mut holes = open.chain(self.loaded.holes.iter().copied());
        let Some(base) = holes.next() else { return Progress::at(end.max(self.next)) };
        if base >= end {
            return Progress::at(base);
        }
        let mut within: BTreeSet<u64> = holes.take_while(|o| *o < end).collect();
        within.insert(base);
        Progress { base, end, holes: within }
    }

    /// The commit has ended: visible, or not at all.
    pub fn settle(&mut self, visible: bool) {
        if !visible {
            self.open.values_mut().for_each(|s| *s = State::Open);
            return;
        }
        self.open.retain(|offset, state| {
            let done = *state == State::Committing;
            if done {
                self.done_end = self.done_end.max(offset + 1);
            }
            !done
        });
    }

    /// Records handed out that are not complete.
    pub fn in_flight(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metadata;
    use super::*;
    use crate::dedupe::Instance;
    use proptest::prelude::*;

    fn holes(p: &Progress) -> Vec<u64> {
        p.holes.iter().copied().collect()
    }

    fn fetch(t: &mut Tracker, offsets: impl IntoIterator<Item = u64>) -> Vec<u64> {
        offsets.into_iter().filter(|o| t.fetched(*o).deliver).collect()
    }

    fn commit(t: &mut Tracker, offsets: &[u64]) -> Progress {
        assert!(offsets.iter().all(|o| t.take(*o)));
        let progress = t.progress();
        t.settle(true);
        progress
    }

    #[test]
    fn what_ends_out_of_order_leaves_holes_behind_it() {
        let mut t = Tracker::new(Progress::at(10));
        assert_eq!(fetch(&mut t, [10, 11, 12, 13]), [10, 11, 12, 13]);
        let p = commit(&mut t, &[12]);
        assert_eq!((p.base, p.end, holes(&p)), (10, 13, vec![10, 11]));
        let p = commit(&mut t, &[10]);
        assert_eq!((p.base, p.end, holes(&p)), (11, 13, vec![11]));
        let p = commit(&mut t, &[11, 13]);
        assert_eq!((p.base, p.end, holes(&p)), (14, 14, vec![]));
    }

    #[test]
    fn a_commit_that_failed_leaves_everything_as_it_was() {
        let mut t = Tracker::new(Progress::at(0));
        fetch(&mut t, 0..5);
        let before = t.clone();
        assert!(t.take(1) && t.take(3));
        assert!(!t.is_complete(1), "not before it is visible");
        t.settle(false);
        assert_eq!(t, before);
        assert!(t.take(1));
        t.put_back(1);
        assert_eq!(t, before);
    }

    #[test]
    fn markers_and_compacted_records_are_no_holes() {
        let mut t = Tracker::new(Progress::at(0));
        // 1, 4 and 5 are markers of transactions.
        assert_eq!(fetch(&mut t, [0, 2, 3, 6]), [0, 2, 3, 6]);
        let p = commit(&mut t, &[0, 3]);
        assert_eq!((p.base, p.end, holes(&p)), (2, 4, vec![2]));
        let p = commit(&mut t, &[2, 6]);
        assert_eq!((p.base, p.end), (7, 7));
    }

    #[test]
    fn p1_what_was_complete_is_not_delivered_after_an_assignment() {
        let loaded = Progress { base: 5, end: 9, holes: BTreeSet::from([5, 7]) };
        let mut t = Tracker::new(loaded);
        assert!(t.is_complete(6) && !t.is_complete(7));
        assert_eq!(fetch(&mut t, 5..11), [5, 7, 9, 10]);
        assert!(t.is_complete(8) && !t.is_complete(9));
    }

    #[test]
    fn p2_a_commit_before_all_was_fetched_keeps_the_holes_that_were_loaded() {
        let loaded = Progress { base: 5, end: 9, holes: BTreeSet::from([5, 7]) };
        let mut t = Tracker::new(loaded);
        fetch(&mut t, [5]);
        let p = commit(&mut t, &[5]);
        assert_eq!((p.base, p.end, holes(&p)), (7, 9, vec![7]));
        // A compacted log: 7 has gone, and perhaps it had begun a task.
        assert_eq!(t.fetched(8), Fetched { deliver: false, vanished: BTreeSet::from([7]) });
        assert_eq!((t.progress().base, holes(&t.progress())), (7, vec![7]));
        let gone = Gone { each: BTreeSet::from([7]), ..Gone::default() };
        let mut orphan = t.clone();
        orphan.orphaned(&gone, &gone.each);
        assert_eq!(commit(&mut orphan, &[7]), Progress::at(9));
        t.orphaned(&gone, &BTreeSet::new());
        assert_eq!(t.progress(), Progress::at(9));
    }

    #[test]
    fn a_record_that_is_fetched_again_is_not_delivered_again() {
        let mut t = Tracker::new(Progress::at(0));
        fetch(&mut t, 0..4);
        commit(&mut t, &[2]);
        assert_eq!(fetch(&mut t, 0..6), [4, 5]);
        assert_eq!(t.next(), 6);
    }

    #[test]
    fn a_log_that_begins_later_says_what_it_lost() {
        let loaded = Progress { base: 5, end: 30, holes: BTreeSet::from([5, 7, 20]) };
        let mut t = Tracker::new(loaded);
        assert_eq!(t.begins(5), Gone::default());
        assert_eq!(t.begins(10), Gone { each: BTreeSet::from([5, 7]), span: 30..30 });
        assert_eq!(t.progress(), Progress { base: 20, end: 30, holes: BTreeSet::from([20]) });
        let gone = t.begins(40);
        assert_eq!(gone, Gone { each: BTreeSet::from([20]), span: 30..40 });
        assert_eq!(
            [20, 21, 29, 30, 39, 40].map(|o| gone.contains(o)),
            [true, false, false, true, true, false]
        );
        assert_eq!(t.progress(), Progress::at(40));
    }

    #[test]
    fn p1_p2_orphans_are_completed_one_by_one_and_what_is_left_of_them_is_a_hole() {
        let loaded = Progress { base: 5, end: 30, holes: BTreeSet::from([5, 7, 20]) };
        let mut t = Tracker::new(loaded.clone());
        let gone = t.begins(40);
        // 50 is still there: nobody may say that it is an orphan.
        t.orphaned(&gone, &BTreeSet::from([7, 20, 33, 50]));
        assert_eq!(fetch(&mut t, [40, 41]), [40, 41]);
        let p = commit(&mut t, &[20, 41]);
        assert_eq!((p.base, p.end, holes(&p)), (7, 42, vec![7, 33, 40]));
        assert_eq!(Tracker::new(p).begins(40).each, BTreeSet::from([7, 33]), "what the next owner finds");
        let p = commit(&mut t, &[7, 33, 40]);
        assert_eq!(p, Progress::at(42));
        // All of a topic that was made anew.
        let mut t = Tracker::new(loaded);
        let gone = t.ends();
        let orphans = BTreeSet::from([7, 90]);
        t.ended(&orphans);
        t.orphaned(&gone, &orphans);
        let p = commit(&mut t, &[7]);
        assert_eq!((p.base, p.end, holes(&p)), (90, 90, vec![]));
        assert_eq!(Tracker::new(p).ends(), Gone { each: BTreeSet::new(), span: 90..u64::MAX });
        assert_eq!((commit(&mut t, &[90]), t.in_flight()), (Progress::at(91), 0));
    }

    proptest! {
        /// Whatever was fetched, handed in, committed or aborted, and reloaded: nothing that is not
        /// complete is passed over, nothing complete comes back.
        #[test]
        fn p1_p2_what_is_open_is_delivered_and_what_is_complete_is_not(steps in prop::collection::vec((0u8..5, 0usize..8), 1..120)) {
            let mut log: Vec<u64> = Vec::new();
            let (mut at, mut done, mut out) = (0u64, BTreeSet::new(), BTreeSet::new());
            let mut t = Tracker::new(Progress::at(0));
            let (mut fetched_to, mut written) = (0usize, String::new());
            let by = metadata::Author { instance: Instance(1), sequence: 1 };
            let mut committed = Progress::at(0);
            for (what, n) in steps {
                match what {
                    // Records appear, with gaps between them.
                    0 => for i in 0..n { at += 1 + (i as u64 % 3); log.push(at); },
                    1 => {
                        for o in log.iter().copied().skip(fetched_to).take(n) {
                            let fetched = t.fetched(o);
                            prop_assert_eq!(fetched.deliver, !done.contains(&o), "{}", o);
                            prop_assert_eq!(fetched.vanished, BTreeSet::new());
                            if fetched.deliver { out.insert(o); }
                        }
                        fetched_to = (fetched_to + n).min(log.len());
                    }
                    2 | 3 => {
                        let take: Vec<u64> = out.iter().copied().skip(n % 3).step_by(2).take(n).collect();
                        for o in &take { prop_assert!(t.take(*o)); }
                        let p = t.progress();
                        t.settle(what == 2);
                        if what == 2 {
                            for o in take { out.remove(&o); done.insert(o); }
                            written = metadata::write(&p, by);
                            committed = p;
                        }
                    }
                    // Another owner, or the same again.
                    _ => {
                        let loaded = if written.is_empty() { Progress::at(0) } else { metadata::read(committed.base, &written).unwrap().0 };
                        t = Tracker::new(loaded);
                        out.clear();
                        fetched_to = log.iter().position(|o| *o >= t.next()).unwrap_or(log.len());
                    }
                }
                for o in &log {
                    prop_assert_eq!(t.is_complete(*o), done.contains(o), "{}", o);
                }
            }
        }
    }
}
