//! Everything a task may still spend: time and money for the whole task, tries per slot.
//! One owner, so that retry, fallback, asking again and the sanitizer cannot each start afresh.

use std::time::Duration;

#[derive(Clone, PartialEq, Debug)]
pub struct Allowance {
    /// Time left for calls of this task.
    pub time: Duration,
    /// Money left, in the unit of the prices; `None`: no limit.
    pub money: Option<f64>,
    /// Tries per slot, over all models.
    pub tries: u32,
}

/// What has run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spent {
    Time,
    Money,
}

impl Spent {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Spent::Time => "the task's time for calls is spent",
            Spent::Money => "the task's money is spent",
        }
    }
}

/// Kept back of the time left: publishing (250 ms) and the review handoff (500 ms).
pub(super) const RESERVE: Duration = Duration::from_millis(750);

impl Allowance {
    /// How long one more try may take.
    pub(super) fn next_try(&self, most: Duration) -> Result<Duration, Spent> {
        if self.money.is_some_and(|left| left <= 0.0) {
            return Err(Spent::Money);
        }
        match self.time.checked_sub(RESERVE) {
            Some(left) if !left.is_zero() => Ok(most.min(left)),
            _ => Err(Spent::Time),
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
        let mut left = Allowance { time: s(10), money: Some(0.5), tries: 6 };
        assert_eq!(left.next_try(s(120)), Ok(Duration::from_millis(9_250)));
        left.spend(s(4), Some(0.2));
        assert_eq!(left.next_try(s(2)), Ok(s(2)));
        left.spend(s(1), Some(0.4));
        assert_eq!(left.next_try(s(2)), Err(Spent::Money));
        left.money = None;
        left.spend(s(60), None);
        assert_eq!(left.next_try(s(2)), Err(Spent::Time));
    }
}
