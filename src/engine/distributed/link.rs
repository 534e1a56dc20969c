//! Decides what this process may ask of the ledger, and in which order it comes back after a break.
//!
//! ```text
//!  Away ─connected─► heartbeat ─► answers that are held ─► marks that are owed ─► Up
//!   ▲                    │                                                         │
//!   └───── broken ───────┴─────────────────────────────────────────────────────────┘
//! ```
//!
//! Up, a question about a lease still waits until the group has confirmed that lease, asked since.
//!
//! A ledger that forgets breaks every connection, so a break is the only sign of it: what it may have
//! forgotten is told again before anything new is asked. It sends nothing and reads no clock.

use super::planted::{self, Bug};
pub use crate::engine::script::LEASE;
use std::time::{Duration, Instant};

/// Three chances before the lease ends.
pub const BEAT_EVERY: Duration = Duration::from_millis(3_300);
/// A heartbeat that was not acknowledged for this long means that the ledger may be stalled, and others
/// look lapsed only because of that.
const DOUBT: Duration = Duration::from_secs(5);

/// What comes next on the way back. Each is answered before the next begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    Beat,
    /// Store every answer that was not acknowledged.
    Answers,
    /// Send every mark that was not acknowledged.
    Marks,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Away,
    Returning {
        step: Step,
        since: Instant,
    },
    /// `ready`: since when all that was held and owed has been told.
    Up {
        since: Instant,
        ready: Instant,
    },
}

/// What is asked of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// `admit`, `refuse`, `start`, `bar`: of this lease, which must be confirmed.
    UnderLease,
    /// `store`: while away it is held, and stored first on return.
    Answer,
    /// `release`: it must not overtake an answer that is held.
    Release,
    /// `close`, `moved`: while away it is owed.
    Mark,
    /// Look-ups.
    Free,
}

#[derive(Debug)]
pub struct Link {
    state: State,
    beat: Option<Instant>,
}

impl Default for Link {
    fn default() -> Self {
        Link { state: State::Away, beat: None }
    }
}

impl Link {
    /// A new connection. The first thing that goes over it.
    #[must_use]
    pub fn connected(&mut self, now: Instant) -> Step {
        self.state = State::Returning { step: Step::Beat, since: now };
        Step::Beat
    }

    pub fn broken(&mut self) {
        self.state = State::Away;
        self.beat = None;
    }

    /// All of `step` has been answered over the connection of now; what comes next, if anything does.
    #[must_use]
    pub fn done(&mut self, step: Step, now: Instant) -> Option<Step> {
        let State::Returning { step: current, since } = self.state else { return None };
        if step != current {
            return None;
        }
        let next = match step {
            Step::Beat => Step::Answers,
            Step::Answers => Step::Marks,
            Step::Marks => {
                self.state = State::Up { since, ready: now };
                return None;
            }
        };
        self.state = State::Returning { step: next, since };
        Some(next)
    }

    /// A heartbeat that was sent at `sent` has been acknowledged.
    pub fn beaten(&mut self, sent: Instant) {
        self.beat = self.beat.max(Some(sent));
    }

    /// When the next heartbeat is due. `None`: away, or the first is under way.
    pub fn beat_due(&self) -> Option<Instant> {
        self.since()?;
        Some(self.beat? + BEAT_EVERY)
    }

    /// Since when the ledger is reached without a break.
    fn since(&self) -> Option<Instant> {
        match self.state {
            State::Away => None,
            State::Returning { since, .. } | State::Up { since, .. } => Some(since),
        }
    }

    /// Leases must be confirmed by an answer that was asked for at this moment or later. `None`: not yet.
    pub fn ready(&self) -> Option<Instant> {
        match self.state {
            State::Up { ready, .. } => Some(ready),
            State::Away | State::Returning { .. } => None,
        }
    }

    /// May judge that an instance has lapsed or that an `until` has passed: has reached the ledger for
    /// one lease without a break, and reaches it now.
    pub fn is_settled(&self, now: Instant) -> bool {
        if planted::is(Bug::JudgesAtOnce) {
            return true;
        }
        let unbroken = self.since().is_some_and(|since| now.saturating_duration_since(since) >= LEASE);
        unbroken && self.beat.is_some_and(|beat| now.saturating_duration_since(beat) < DOUBT)
    }

    /// Whether the question may be sent now. `confirmed`: what `Assignment::is_confirmed` says of its lease.
    pub fn may(&self, ask: Ask, confirmed: bool) -> bool {
        match (self.state, ask) {
            (State::Away, _) => false,
            (State::Up { .. }, Ask::UnderLease) => confirmed,
            (State::Up { .. }, _) => true,
            // Behind the heartbeat, so that a ledger that has forgotten us knows us first.
            (State::Returning { step, .. }, Ask::Free | Ask::Answer) => step > Step::Beat,
            (State::Returning { step, .. }, Ask::Mark | Ask::Release) => step > Step::Answers,
            (State::Returning { .. }, Ask::UnderLease) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Step; 3] = [Step::Beat, Step::Answers, Step::Marks];

    fn up(now: Instant) -> Link {
        let mut link = Link::default();
        let mut next = Some(link.connected(now));
        while let Some(step) = next {
            next = link.done(step, now);
        }
        link.beaten(now);
        link
    }

    #[test]
    fn p3_what_is_held_and_owed_goes_first_after_every_break() {
        let now = Instant::now();
        let mut link = up(now);
        for _ in 0..3 {
            link.broken();
            let mut order = vec![link.connected(now)];
            while let Some(step) = link.done(order[order.len() - 1], now) {
                assert!(!link.may(Ask::UnderLease, true), "not before {step:?} is done");
                order.push(step);
            }
            assert_eq!(order, ALL);
            assert!(link.may(Ask::UnderLease, true) && !link.may(Ask::UnderLease, false));
        }
    }

    #[test]
    fn a_break_on_the_way_back_begins_the_way_anew() {
        let now = Instant::now();
        for broken_at in ALL {
            let mut link = Link::default();
            let mut step = link.connected(now);
            while step != broken_at {
                step = link.done(step, now).unwrap();
            }
            link.broken();
            assert_eq!(link.done(step, now), None, "an answer over the old connection says nothing");
            assert_eq!(link.connected(now), Step::Beat);
            assert_eq!(link.done(Step::Marks, now), None);
            assert!(!link.may(Ask::UnderLease, true));
        }
    }

    #[test]
    fn only_one_lease_without_a_break_makes_a_judge() {
        let now = Instant::now();
        let mut link = up(now);
        assert!(
            !link.is_settled(now + LEASE),
            "the ledger may be stalled: nothing was acknowledged for long"
        );
        link.beaten(now + LEASE);
        assert!(!link.is_settled(now + LEASE - Duration::from_millis(1)));
        assert!(link.is_settled(now + LEASE));
        link.broken();
        assert!(!link.is_settled(now + 2 * LEASE));
        let _ = link.connected(now + 3 * LEASE);
        assert!(!link.is_settled(now + 3 * LEASE));
        assert!(!link.is_settled(now), "a clock that goes back makes nobody a judge");
    }

    #[test]
    fn while_away_nothing_is_asked() {
        let link = Link::default();
        for ask in [Ask::UnderLease, Ask::Answer, Ask::Release, Ask::Mark, Ask::Free] {
            assert!(!link.may(ask, true));
        }
        assert_eq!((link.since(), link.ready(), link.beat_due()), (None, None, None));
    }

    #[test]
    fn a_heartbeat_is_due_three_times_in_a_lease() {
        let now = Instant::now();
        let mut link = up(now);
        link.beaten(now);
        assert_eq!(link.beat_due(), Some(now + BEAT_EVERY));
        assert!(3 * BEAT_EVERY < LEASE);
        link.beaten(now - Duration::from_secs(1));
        assert_eq!(link.beat_due(), Some(now + BEAT_EVERY), "a late answer takes nothing back");
    }
}
