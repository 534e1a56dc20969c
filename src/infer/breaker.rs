//! Decides whether a model may be called right now.
//! The breaker never sleeps, spawns, or reads a clock: `now` and the random draw are arguments.
//!
//! ## Why two signals
//! The ratio needs a window of calls; a model that sees few calls, or has just begun to fail, trips by
//! a run of hard failures instead. The run counts only while the window is thin or nothing succeeds:
//! at 20 % errors and 100 calls a second a bare run of five comes every 39 s and would flap.
//!
//! ## Why generations
//! A call takes seconds; what it says of the model may be of a time before the trip, or before the
//! probe that is out now. Only results of the present generation change the state. A wait that a
//! provider asks for is obeyed whoever hears of it, and only ever lengthens the one that runs.

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
/// While a probe is out the others look again after this long: it may be answered any moment.
const PROBE_LOOK: Duration = Duration::from_secs(1);
/// Successes that close it again; one where the model sees less than a call per second.
const SUCCESSES: u32 = 3;
/// How often a blocked model is probed, unless its provider names a time.
const BLOCKED_PROBE: Duration = Duration::from_secs(300);

#[derive(Clone, PartialEq, Debug)]
enum State {
    /// `paused`: the provider is well, and wants to be left alone until then.
    Closed {
        paused: Option<Instant>,
    },
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
    /// One of a few words, for metrics.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) why: String,
}

#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// Rises with every change of state and every probe; results of an older one are ignored.
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
            state: State::Closed { paused: None },
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
    #[must_use]
    pub(super) fn permit(&mut self, now: Instant) -> Permit {
        if let Some(until) = self.refused_until(now) {
            return Permit::Refused { until };
        }
        let out = Some(now + PROBE_MAX);
        match &mut self.state {
            State::Closed { .. } => return Permit::Call { generation: self.generation },
            State::HalfOpen { probe, .. } => {
                *probe = out;
                // An earlier probe that expired is not this one: its late result means nothing.
                self.generation += 1;
            }
            State::Open { .. } | State::Blocked { .. } => {
                self.change(State::HalfOpen { successes: 0, probe: out }, now);
            }
        }
        Permit::Probe { generation: self.generation }
    }

    /// When a call could be permitted, if not now.
    pub(super) fn refused_until(&self, now: Instant) -> Option<Instant> {
        let until = match &self.state {
            State::Closed { paused } => (*paused)?,
            State::Open { until } | State::Blocked { until, .. } => *until,
            State::HalfOpen { probe, .. } => {
                let expires = (*probe)?;
                if now >= expires { expires } else { expires.min(now + PROBE_LOOK) }
            }
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
        self.change(State::Closed { paused: None }, now);
        Some(Moved { to: "closed", reason: "probe-answered", why: "the probe was answered".to_owned() })
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
        if let Some(hint) = hint {
            self.lengthen(now + hint);
        }
        if generation != self.generation {
            return None;
        }
        if let State::HalfOpen { probe, .. } = &mut self.state {
            *probe = None;
            // Any throttle fails a probe, counted or not.
            return (weight != Weight::Ignored || hint.is_some())
                .then(|| self.open("probe-failed", "the probe failed".to_owned(), hint, draw, now));
        }
        if weight == Weight::Ignored || !matches!(self.state, State::Closed { .. }) {
            return None;
        }
        self.count(now, true);
        if weight == Weight::Hard {
            self.run += 1;
        }
        let (reason, why) = self.tripped(now)?;
        Some(self.open(reason, why, hint, draw, now))
    }

    /// The call was not made, or its end says nothing of the model: neither success nor failure.
    pub(super) fn returned(&mut self, generation: u64) {
        if let State::HalfOpen { probe, .. } = &mut self.state
            && generation == self.generation
        {
            *probe = None;
        }
    }

    /// A configuration or account fault. `hint`: when the provider says it ends, if it does.
    pub(super) fn block(
        &mut self,
        generation: u64,
        reason: &'static str,
        why: &str,
        hint: Option<Duration>,
        now: Instant,
    ) -> Option<Moved> {
        if generation != self.generation {
            return None;
        }
        let until = now + hint.unwrap_or(BLOCKED_PROBE).max(Duration::from_secs(1));
        self.change(State::Blocked { until, why: why.to_owned() }, now);
        Some(Moved { to: "blocked", reason, why: why.to_owned() })
    }

    /// `closed`, `open`, `half-open` or `blocked`, since when, and why if the state knows.
    pub(super) fn view(&self, now: Instant) -> (&'static str, Instant, Option<&str>) {
        match &self.state {
            State::Closed { paused: Some(until) } if now < *until => {
                ("closed", self.since, Some("its provider asked to wait"))
            }
            State::Closed { .. } => ("closed", self.since, None),
            State::Open { .. } => ("open", self.since, None),
            State::HalfOpen { .. } => ("half-open", self.since, None),
            State::Blocked { why, .. } => ("blocked", self.since, Some(why)),
        }
    }

    /// The provider wants to be left alone until then. Never shortens what runs.
    fn lengthen(&mut self, to: Instant) {
        match &mut self.state {
            State::Closed { paused } => *paused = (*paused).max(Some(to)),
            State::Open { until } => *until = (*until).max(to),
            // The probe out now finds out; a block has its own time.
            State::HalfOpen { .. } | State::Blocked { .. } => {}
        }
    }

    fn tripped(&self, now: Instant) -> Option<(&'static str, String)> {
        let calls = self.calls.len();
        let silent = self.last_success.is_none_or(|at| now.duration_since(at) >= NO_SUCCESS);
        if self.run >= RUN_MAX && (calls < CALLS_MIN || silent) {
            return Some(("run", format!("{} failures in a row", self.run)));
        }
        #[expect(clippy::cast_precision_loss, reason = "at most CALLS_MAX")]
        let ratio = self.failed as f64 / calls.max(1) as f64;
        let why = || ("ratio", format!("{} of {calls} calls failed", self.failed));
        (calls >= CALLS_MIN && ratio >= RATIO_MAX).then(why)
    }

    fn open(
        &mut self,
        reason: &'static str,
        why: String,
        hint: Option<Duration>,
        draw: f64,
        now: Instant,
    ) -> Moved {
        self.openings += 1;
        let doublings = self.openings.saturating_sub(FLAT_OPENINGS).min(8);
        let length =
            (OPEN * (1 << doublings)).min(OPEN_MAX).mul_f64(0.8 + 0.4 * draw).max(hint.unwrap_or_default());
        let paused = match self.state {
            State::Closed { paused } => paused,
            _ => None,
        };
        self.run = 0;
        self.change(State::Open { until: (now + length).max(paused.unwrap_or(now)) }, now);
        Moved { to: "open", reason, why }
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
    fn half_open_admits_exactly_one_of_a_thousand_callers() {
        let now = Instant::now();
        let b = std::sync::Mutex::new(opened(now));
        let ask = || {
            (0..100).filter(|_| matches!(b.lock().unwrap().permit(now + S(11)), Permit::Probe { .. })).count()
        };
        let probes: usize = std::thread::scope(|s| {
            let callers: Vec<_> = (0..10).map(|_| s.spawn(ask)).collect();
            callers.into_iter().map(|c| c.join().unwrap()).sum()
        });
        assert_eq!(probes, 1);
    }

    #[test]
    fn a_lost_probe_does_not_hold_the_breaker_half_open_for_ever() {
        let now = Instant::now();
        let mut b = opened(now);
        let lost = generation(b.permit(now + S(10)));
        assert_eq!(
            b.permit(now + S(11)),
            Permit::Refused { until: now + S(12) },
            "it may come back any moment"
        );
        assert_eq!(b.permit(now + Duration::from_millis(69_900)), Permit::Refused { until: now + S(70) });
        let second = generation(b.permit(now + S(70)));
        assert_eq!(b.failed(lost, Weight::Hard, None, 0.5, now + S(71)), None, "of an older generation");
        b.returned(lost);
        assert!(matches!(b.permit(now + S(71)), Permit::Refused { .. }), "the second probe is still out");
        assert_eq!(b.succeeded(second, now + S(72)).map(|m| m.to), Some("closed"));
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
        assert_eq!(b.view(now + S(1)).0, "open");
        assert_eq!(b.block(early, "unauthorized", "key", None, now + S(1)), None);
        assert_eq!(b.view(now + S(1)).0, "open");
    }

    #[test]
    fn an_answered_probe_closes_it_and_a_failed_one_opens_it_again() {
        let now = Instant::now();
        let mut b = opened(now);
        let g = generation(b.permit(now + S(10)));
        assert_eq!(b.failed(g, Weight::Hard, None, 0.5, now + S(10)).map(|m| m.reason), Some("probe-failed"));
        let g = generation(b.permit(now + S(20)));
        assert_eq!(b.succeeded(g, now + S(20)).map(|m| m.to), Some("closed"));
        assert!(matches!(b.permit(now + S(20)), Permit::Call { .. }));
    }

    #[test]
    fn a_busy_model_needs_three_answered_probes() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        let early: Vec<u64> = (0..100).map(|_| generation(b.permit(now))).collect();
        for g in &early[..60] {
            b.succeeded(*g, now);
        }
        for _ in 0..61 {
            fail(&mut b, now);
            if b.view(now).0 == "open" {
                break;
            }
        }
        for (n, wanted) in [(1, "half-open"), (2, "half-open"), (3, "closed")] {
            let g = generation(b.permit(now + S(12)));
            b.succeeded(g, now + S(12));
            assert_eq!(b.view(now + S(12)).0, wanted, "after {n}");
        }
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
    fn a_late_hint_lengthens_an_opening_and_never_shortens_it() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        let late = generation(b.permit(now));
        for _ in 0..5 {
            fail(&mut b, now);
        }
        assert_eq!(b.failed(late, Weight::Soft, Some(S(30)), 0.5, now), None);
        assert_eq!(b.permit(now + S(29)), Permit::Refused { until: now + S(30) });
        assert_eq!(b.failed(late, Weight::Soft, Some(S(1)), 0.5, now + S(2)), None);
        assert_eq!(b.permit(now + S(29)), Permit::Refused { until: now + S(30) }, "the longer wait stays");
    }

    #[test]
    fn a_rate_limit_with_a_hint_pauses_everybody_and_is_no_failure() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        for _ in 0..50 {
            let g = b.generation;
            assert_eq!(b.failed(g, Weight::Ignored, Some(S(7)), 0.5, now), None);
        }
        let g = b.generation;
        b.failed(g, Weight::Ignored, Some(S(2)), 0.5, now + S(1));
        assert_eq!(b.permit(now + S(6)), Permit::Refused { until: now + S(7) }, "never shortened");
        assert_eq!(b.view(now + S(6)).0, "closed");
        assert_eq!(b.permit(now + S(7)), Permit::Call { generation: g });
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
        assert_eq!(moved.map(|m| (m.to, m.reason)), Some(("open", "ratio")));
    }

    #[test]
    fn throttles_alone_do_not_make_a_run() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        for _ in 0..CALLS_MIN - 1 {
            let g = generation(b.permit(now));
            assert_eq!(b.failed(g, Weight::Soft, None, 0.5, now), None);
        }
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
    fn p7_a_blocked_model_is_probed_every_five_minutes_and_told_of_once() {
        let now = Instant::now();
        let mut b = Breaker::new(now);
        let together: Vec<u64> = (0..50).map(|_| generation(b.permit(now))).collect();
        let told =
            together.iter().filter_map(|g| b.block(*g, "misconfigured", "no such model", None, now)).count();
        assert_eq!(told, 1, "fifty calls in flight hear of the same fault");
        assert_eq!(b.permit(now + S(299)), Permit::Refused { until: now + S(300) });
        assert!(matches!(b.permit(now + S(300)), Permit::Probe { .. }));
    }

    #[test]
    fn a_now_from_before_and_leaps_of_hours_shorten_no_wait_and_leave_none_without_end() {
        let begin = Instant::now() + S(50 * 3_600);
        let mut b = opened(begin);
        for back in [1, 60, 5 * 3_600] {
            assert_eq!(b.permit(begin - S(back)), Permit::Refused { until: begin + S(10) });
        }
        assert!(matches!(b.permit(begin + S(5 * 3_600)), Permit::Probe { .. }));
        // Whatever is heard in whatever order: at the end a call is let go within the longest wait there is.
        let weights = [Weight::Ignored, Weight::Soft, Weight::Hard];
        let mut draw = 7u64;
        let mut pick = |n: u64| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) % n
        };
        for _ in 0..200 {
            let mut b = Breaker::new(begin);
            for _ in 0..60 {
                let now = begin + S(pick(10 * 3_600)) - S(5 * 3_600);
                let (Permit::Call { generation } | Permit::Probe { generation }) = b.permit(now) else {
                    continue;
                };
                let heard = begin + S(pick(10 * 3_600)) - S(5 * 3_600);
                match pick(6) {
                    // Nothing is heard of it any more.
                    5 => false,
                    0 => b.succeeded(generation, heard).is_some(),
                    1 => b.block(generation, "misconfigured", "no such model", None, heard).is_some(),
                    n => {
                        let weight = weights[usize::try_from(n).unwrap() - 2];
                        b.failed(generation, weight, None, 0.999, heard).is_some()
                    }
                };
            }
            let longest = BLOCKED_PROBE.max(OPEN_MAX * 2);
            let last = begin + S(5 * 3_600);
            assert!(b.refused_until(last).is_none_or(|until| until <= last + longest), "{b:?}");
            assert!(!matches!(b.permit(last + longest), Permit::Refused { .. }), "{b:?}");
        }
    }
}
