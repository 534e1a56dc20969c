//! How long to wait before the same model is tried again. Pure: the random draw is an argument.

use super::failure::Class;
use std::time::Duration;

/// Tries of one model for one slot.
pub(super) const TRIES_PER_MODEL: u32 = 3;
/// A longer wait than this is not waited out in place: another model, or a park.
pub(super) const WAIT_IN_PLACE_MAX: Duration = Duration::from_secs(5);
/// No computed wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(20);
const BASE: Duration = Duration::from_millis(500);
/// Throttled and overloaded models get more room.
const BASE_THROTTLED: Duration = Duration::from_secs(1);

/// Full jitter: uniform(0, min(20 s, base × 2^n)); with a hint r: r + uniform(0, min(1 s, r/10)).
/// `failed`: tries of this model so far, at least 1. `draw`: 0 ≤ draw < 1.
pub(super) fn wait(class: Class, failed: u32, hint: Option<Duration>, draw: f64) -> Duration {
    if let Some(hint) = hint {
        return hint + (hint / 10).min(Duration::from_secs(1)).mul_f64(draw);
    }
    let base = if class.throttled() { BASE_THROTTLED } else { BASE };
    // 2^16 is far above the cap already.
    let doubled = base.saturating_mul(1 << failed.saturating_sub(1).min(16));
    doubled.min(WAIT_MAX).mul_f64(draw)
}

/// How long a task is parked when no model can serve: until one may be asked, and longer with each
/// hop in a row, so that an outage of hours does not fill the log. 5 s doubling to 80 s.
pub(super) fn park(earliest: Duration, hop: u32) -> Duration {
    earliest.max(Duration::from_secs(5 << hop.min(4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_obeyed_and_never_undercut() {
        let hint = Some(Duration::from_secs(3));
        assert_eq!(wait(Class::RateLimited, 1, hint, 0.0), Duration::from_secs(3));
        assert!(wait(Class::RateLimited, 9, hint, 0.999) <= Duration::from_millis(3_300));
        let long = Some(Duration::from_secs(100));
        assert!(
            wait(Class::RateLimited, 1, long, 0.999) <= Duration::from_secs(101),
            "jitter is at most a second"
        );
    }

    #[test]
    fn waits_double_from_the_class_base_up_to_the_cap() {
        let most = |class, n| wait(class, n, None, 1.0);
        assert_eq!(most(Class::Transient, 1), Duration::from_millis(500));
        assert_eq!(most(Class::Transient, 3), Duration::from_secs(2));
        assert_eq!(most(Class::Overloaded, 1), Duration::from_secs(1));
        assert_eq!(most(Class::Overloaded, 40), WAIT_MAX);
        assert_eq!(wait(Class::Transient, 5, None, 0.0), Duration::ZERO);
    }

    #[test]
    fn p7_parks_grow_with_the_hops_and_reach_a_bound() {
        assert_eq!(park(Duration::ZERO, 0), Duration::from_secs(5));
        assert_eq!(park(Duration::ZERO, 99), Duration::from_secs(80));
        assert_eq!(park(Duration::from_secs(300), 0), Duration::from_secs(300));
    }
}
