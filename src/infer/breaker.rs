//! Decides whether a model may be called right now.
//! The breaker never sleeps, spawns, or reads a clock: `now` and the random draw are arguments.
//!
//! ## Why two signals
//! The ratio needs a window of calls; a model that sees few calls, or has just begun to fail, trips by
//! a run of hard failures instead. The run counts only while the window is thin or nothing succeeds:
//! at 20 % errors and 100 calls a second a bare run of five comes every 39 s and would flap.

use super::failure::Weight;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Outcomes older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// The ratio is judged from this many calls on.
const CALLS_MIN: usize = 20;
/// The window never holds more: enough for an exact ratio, bounded memory.
const CALLS_MAX: usize = 2_000;
const RATIO_MAX: f64 = 0.5;
const RUN_MAX: u32 = 5;
/// "No success lately": twice the p99 of a healthy call, which is about this for chat models.
const NO_SUCCESS: Duration = Duration::from_secs(20);
const OPEN: Duration = Duration::from_secs(10);
/// So many openings in a row stay flat: a probe is one call, and doubling would delay the return.
const FLAT_OPENINGS: u32 = 8;
const OPEN_MAX: Duration = Duration::from_secs(120);
/// A probe that has not come back by then is lost, and does not hold the breaker half-open for ever.
const PROBE_MAX: Duration = Duration::from_secs(60);
/// Successes that close it again; one where the model sees less than a call per second.
const SUCCESSES: u32 = 3;
/// How often a blocked model is probed.
const BLOCKED_PROBE: Duration = Duration::from_secs(300);

#[derive(Clone, PartialEq, Debug)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        successes: u32,
        probe: Option<Instant>,
    },
    /// Nothing but a change of configuration or account helps; probed every five minutes.
    Blocked {
        until: Instant,
        why: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permit {
    Call {
        generation: u64,
    },
    /// The one call that finds out whether the model is back.
    Probe {
        generation: u64,
    },
    Refused {
        until: Instant,
    },
}

/// A state change that people want to hear of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Moved {
    pub(super) to: &'static str,
    pub(super) why: String,
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Rises with every change of state; results of an older one are ignored.
    generation: u64,
    since: Instant,
    calls: VecDeque<(Instant, bool)>,
    failed: usize,
    run: u32,
    last_success: Option<Instant>,
    openings: u32,
}

impl Breaker {
    pub(super) fn new(now: Instant) -> Self {
        Breaker {
            state: State::Closed,
            generation: 0,
            since: now,
            calls: VecDeque::new(),
            failed: 0,
            run: 0,
            last_success: None,
            openings: 0,
        }
    }

    /// Asks to make a call at `now`.
    pub(super) fn permit(&mut self, now: Instant) -> Permit {
        let wait = self.refused_until(now);
        if let Some(until) = wait {
            return Permit::Refused { until };
        }
        match &mut self.state {
            State::Closed => Permit::Call { generation: self.generation },
            State::HalfOpen { probe, .. } => {
                *probe = Some(now + PROBE_MAX);
                Permit::Probe { generation: self.generation }
            }
            State::Open { .. } | State::Blocked { .. } => {
                self.change(State::HalfOpen { successes: 0, probe: Some(now + PROBE_MAX) }, now);
                Permit::Probe { generation: self.generation }
            }
        }
    }

    /// When a call could be permitted, if not now.
    pub(super) fn refused_until(&self, now: Instant) -> Option<Instant> {
        let until = match &self.state {
            State::Closed | State::HalfOpen { probe: None, .. } => return None,
            State::Open { until }
            | State::Blocked { until, .. }
            | State::HalfOpen { probe: Some(until), .. } => *until,
        };
        (now < until).then_some(until)
    }

    pub(super) fn succeeded(&mut self, generation: u64, now: Instant) -> Option<Moved> {
        if generation != self.generation {
            return None;
        }
        self.run = 0;
        self.last_success = Some(now);
        self.count(now, false);
        let rare = self.calls.len() < usize::try_from(WINDOW.as_secs()).unwrap_or(usize::MAX);
        let State::HalfOpen { successes, probe } = &mut self.state else { return None };
        *probe = None;
        *successes += 1;
        if *successes < SUCCESSES && !rare {
            return None;
        }
        self.openings = 0;
        self.calls.clear();
        self.failed = 0;
        self.change(State::Closed, now);
        Some(Moved { to: "closed", why: "the probe was answered".to_owned() })
    }

    /// `hint`: when the provider wants to be asked again. `draw`: 0 ≤ draw < 1, for ±20 %.
    pub(super) fn failed(
        &mut self,
        generation: u64,
        weight: Weight,
        hint: Option<Duration>,
        draw: f64,
        now: Instant,
    ) -> Option<Moved> {
        if generation != self.generation {
            return None;
        }
        if let State::HalfOpen { probe, .. } = &mut self.state {
            *probe = None;
            // Any throttle fails a probe, counted or not.
            return (weight != Weight::Ignored || hint.is_some())
                .then(|| self.open("the probe failed".to_owned(), hint, draw, now));
        }
        if weight == Weight::Ignored || self.state != State::Closed {
            return None;
        }
        self.count(now, true);
        if weight == Weight::Hard {
            self.run += 1;
        }
        let why = self.tripped(now)?;
        Some(self.open(why, hint, draw, now))
    }

    /// The call was not made, or its end says nothing of the model: neither success nor failure.
    pub(super) fn returned(&mut self, generation: u64) {
        if let State::HalfOpen { probe, .. } = &mut self.state
            && generation == self.generation
        {
            *probe = None;
        }
    }

    /// A configuration or account fault. `until`: when the provider says it ends, if it does.
    pub(super) fn block(&mut self, why: &str, hint: Option<Duration>, now: Instant) -> Moved {
        let until = now + hint.unwrap_or(BLOCKED_PROBE).max(Duration::from_secs(1));
        self.change(State::Blocked { until, why: why.to_owned() }, now);
        Moved { to: "blocked", why: why.to_owned() }
    }

    /// `closed`, `open`, `half-open` or `blocked`, since when, and why if blocked.
    pub(super) fn view(&self) -> (&'static str, Instant, Option<&str>) {
        match &self.state {
            State::Closed => ("closed", self.since, None),
            State::Open { .. } => ("open", self.since, None),
            State::HalfOpen { .. } => ("half-open", self.since, None),
            State::Blocked { why, .. } => ("blocked", self.since, Some(why)),
        }
    }

    fn tripped(&self, now: Instant) -> Option<String> {
        let calls = self.calls.len();
        let silent = self.last_success.is_none_or(|at| now.duration_since(at) >= NO_SUCCESS);
        if self.run >= RUN_MAX && (calls < CALLS_MIN || silent) {
            return Some(format!("{} failures in a row", self.run));
        }
        #[expect(clippy::cast_precision_loss, reason = "at most CALLS_MAX")]
        let ratio = self.failed as f64 / calls.max(1) as f64;
        (calls >= CALLS_MIN && ratio >= RATIO_MAX).then(|| format!("{} of {calls} calls failed", self.failed))
    }

    fn open(&mut self, why: String, hint: Option<Duration>, draw: f64, now: Instant) -> Moved {
        self.openings += 1;
        let doublings = self.openings.saturating_sub(FLAT_OPENINGS).min(8);
        let length =
            (OPEN * (1 << doublings)).min(OPEN_MAX).mul_f64(0.8 + 0.4 * draw).max(hint.unwrap_or_default());
        self.run = 0;
        self.change(State::Open { until: now + length }, now);
        Moved { to: "open", why }
    }

    fn change(&mut self, to: State, now: Instant) {
        self.state = to;
        self.generation += 1;
        self.since = now;
    }

    fn count(&mut self, now: Instant, failed: bool) {
        let old = |at: &Instant| now.duration_since(*at) > WINDOW;
        while self.calls.len() >= CALLS_MAX || self.calls.front().is_some_and(|(at, _)| old(at)) {
            if let Some((_, true)) = self.calls.pop_front() {
                self.failed -= 1;
            }
        }
        self.calls.push_back((now, failed));
        self.failed += usize::from(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn generation(permit: Permit) -> u64 {
        match permit {
            Permit::Call { generation } | Permit::Probe { generation } => generation,
            Permit::Refused { .. } => panic!("refused"),
        }
    }

    fn fail(b: &mut Breaker, now: Instant) -> Option<Moved> {
        let g = generation(b.permit(now));
        b.failed(g, Weight::Hard, None, 0.5, now)
    }

    fn opened(now: Instant) -> Breaker {
        let mut b = Breaker::new(now);
        for _ in 0..4 {
            assert_eq!(fail(&mut b, now), None);
        }
        assert_eq!(fail(&mut b, now).map(|m| m.to), Some("open"));
        b
    }

    #[test]
    fn five_hard_failures_in_a_row_open_it_for_ten_seconds() {
        let now = Instant::now();
        let mut b = opened(now);
        assert_eq!(b.permit(now + S(9)), Permit::Refused { until: now + S(10) });
        assert!(matches!(b.permit(now + S(10)), Permit::Probe { .. }));
    }

    #[test]
    fn only_one_probe_is_out_at_a_time_and_a_lost_one_does_not_jam_it() {
        let now = Instant::now();
        let mut b = opened(now);
        assert!(matches!(b.permit(now + S(10)), Permit::Probe { .. }));
        for _ in 0..1_000 {
            assert!(matches!(b.permit(now + S(11)), Permit::Refused { .. }));
        }
        assert!(matches!(b.permit(now + S(70)), Permit::Probe { .. }), "the lost probe has expired");
    }

    #[test]
    fn a_returned_probe_lets_the_next_one_go() {
        let now = Instant::now();
        let mut b = opened(now);
        let g = generation(b.permit(now + S(10)));
        b.returned(g);
        assert!(matches!(b.permit(now + S(10)), Permit::Probe { .. }));
    }

    #[test]
    fn a_late_result_from_before_the_trip_changes_nothing() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        let early = generation(b.permit(now));
        for _ in 0..5 {
            fail(&mut b, now);
        }
        assert_eq!(b.succeeded(early, now + S(1)), None);
        assert_eq!(b.view().0, "open");
    }

    #[test]
    fn an_answered_probe_closes_it_and_a_failed_one_opens_it_again() {
        let now = Instant::now();
        let mut b = opened(now);
        let g = generation(b.permit(now + S(10)));
        assert_eq!(b.failed(g, Weight::Hard, None, 0.5, now + S(10)).map(|m| m.to), Some("open"));
        let g = generation(b.permit(now + S(20)));
        assert_eq!(b.succeeded(g, now + S(20)).map(|m| m.to), Some("closed"));
        assert!(matches!(b.permit(now + S(20)), Permit::Call { .. }));
    }

    #[test]
    fn it_stays_open_at_least_as_long_as_the_provider_asks() {
        let now = Instant::now();
        let mut b = opened(now);
        let g = generation(b.permit(now + S(10)));
        b.failed(g, Weight::Soft, Some(S(90)), 0.0, now + S(10));
        assert_eq!(b.permit(now + S(99)), Permit::Refused { until: now + S(100) });
    }

    #[test]
    fn half_of_twenty_calls_failing_opens_it_though_no_run_is_long() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        let mut moved = None;
        for i in 0..40 {
            let g = generation(b.permit(now));
            moved = if i % 2 == 0 { b.failed(g, Weight::Soft, None, 0.5, now) } else { b.succeeded(g, now) };
            if moved.is_some() {
                assert!(i >= 19, "not before the window has its minimum");
                break;
            }
        }
        assert_eq!(moved.map(|m| m.to), Some("open"));
    }

    #[test]
    fn a_few_errors_among_many_successes_do_not_trip_it() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        for i in 0..1_000u64 {
            let at = now + Duration::from_millis(i * 10);
            let g = generation(b.permit(at));
            let moved =
                if i % 5 == 0 { b.failed(g, Weight::Hard, None, 0.5, at) } else { b.succeeded(g, at) };
            assert_eq!(moved, None, "20 % errors at 100 calls a second");
        }
    }

    #[test]
    fn openings_in_a_row_stay_flat_and_then_double_to_the_cap() {
        let mut now = Instant::now();
        let mut b = opened(now);
        let mut lengths = vec![];
        for _ in 0..14 {
            let until = b.refused_until(now).expect("open");
            lengths.push(until.duration_since(now).as_secs());
            now = until;
            let g = generation(b.permit(now));
            b.failed(g, Weight::Hard, None, 0.5, now);
        }
        assert_eq!(lengths[..9], [10, 10, 10, 10, 10, 10, 10, 10, 20]);
        assert_eq!(lengths[13], 120);
    }

    #[test]
    fn p7_a_blocked_model_is_probed_every_five_minutes() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        b.block("model not found", None, now);
        assert_eq!(b.permit(now + S(299)), Permit::Refused { until: now + S(300) });
        assert!(matches!(b.permit(now + S(300)), Permit::Probe { .. }));
    }
}
