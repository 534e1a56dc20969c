//! Everything a task may still spend: time and money for the whole task, tries per slot.
//! One owner, so that retry, fallback, asking again and the sanitizer cannot each start afresh.
//!
//! Money is charged whoever is at fault. Time is charged for what is the task's own doing: answers,
//! refusals, answers cut short. Time lost to a provider that is down, silent, overloaded or breaks off
//! is bounded by the same limit, but only within one hop: then the task parks and starts the next hop
//! with what it had. An outage is not the task's fault, however long it lasts.

use std::time::Duration;

#[derive(Clone, PartialEq, Debug)]
pub struct Allowance {
    /// Time left for calls of this task.
    pub time: Duration,
    /// Money left, in the unit of the prices; `None`: no limit.
    pub money: Option<f64>,
    /// Tries per slot, over all models.
    pub tries: u32,
    /// Answers that may still break off in the middle, over all hops, before a person gets what was said.
    pub halves: u32,
}

/// What has run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spent {
    Time,
    Money,
    /// The time of this hop, to failures that are not the task's doing.
    Lost,
}

impl Spent {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Spent::Time => "the task's time for calls is spent",
            Spent::Money => "the task's money is spent",
            Spent::Lost => "the time of this round was lost to failures of its models",
        }
    }
}

/// Kept back of the time left: publishing (250 ms) and the review handoff (500 ms).
pub(super) const RESERVE: Duration = Duration::from_millis(750);

impl Allowance {
    /// How long one more try may take. `lost`: in this hop, to failures that are not the task's doing.
    pub(super) fn next_try(&self, most: Duration, lost: Duration) -> Result<Duration, Spent> {
        if self.money.is_some_and(|left| left <= 0.0) {
            return Err(Spent::Money);
        }
        let own = self.time.saturating_sub(RESERVE);
        let left = own.saturating_sub(lost);
        match (own.is_zero(), left.is_zero()) {
            (true, _) => Err(Spent::Time),
            (_, true) => Err(Spent::Lost),
            _ => Ok(most.min(left)),
        }
    }

    pub(super) fn spend(&mut self, time: Duration, money: Option<f64>) {
        self.time = self.time.saturating_sub(time);
        self.money = self.money.map(|left| left - money.unwrap_or(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowance_is_drawn_from_by_every_try() {
        let s = Duration::from_secs;
        let mut left = Allowance { time: s(10), money: Some(0.5), tries: 6, halves: 6 };
        assert_eq!(left.next_try(s(120), s(0)), Ok(Duration::from_millis(9_250)));
        left.spend(s(4), Some(0.2));
        assert_eq!(left.next_try(s(2), s(0)), Ok(s(2)));
        left.spend(s(1), Some(0.4));
        assert_eq!(left.next_try(s(2), s(0)), Err(Spent::Money));
        left.money = None;
        left.spend(s(60), None);
        assert_eq!(left.next_try(s(2), s(0)), Err(Spent::Time));
    }

    #[test]
    fn p7_time_that_others_lost_shortens_a_hop_and_is_told_apart_from_time_that_is_spent() {
        let s = Duration::from_secs;
        let left = Allowance { time: s(10), money: None, tries: 6, halves: 6 };
        assert_eq!(left.next_try(s(120), s(4)), Ok(Duration::from_millis(5_250)));
        assert_eq!(left.next_try(s(120), s(10)), Err(Spent::Lost));
    }
}
