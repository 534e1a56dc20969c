//! Decides when a kind whose tasks die in numbers for one reason is not read any more, and how it is
//! tried again.
//!
//! Takes `now`; never reads a clock, never holds anything itself, never decides about one task: what
//! has been handed out ends as it would.
//!
//! ## What counts
//!
//! The kind's last 200 endings: results, tasks sent to a person, dead letters. More than 40 of them
//! (20 %) dead for the same reason, and the kind pauses; 41 are enough, however many others follow.
//! A prompt that no payload fits, or a provider that refuses them all, then costs some dozens of dead
//! letters instead of the whole backlog.
//!
//! Not counted, neither for nor against: parked tasks and duplicates, which have not ended here; and
//! records refused before they own a key (poison, conflicts). Those cost no call and lose nothing, and
//! whoever may write to the topic could stop everybody else's tasks with them; they are counted in
//! `tidegate_refused_total`. Not against: what an outage, a late producer or the log can cause, however
//! often ([`accuses`]): an outage never pauses a kind for longer than it lasts.
//!
//! ## How it goes on
//!
//! By itself: after 30 s tasks are tried one at a time. Five in a row that end well and all is read
//! again; one that dies of the same reason and it pauses for twice as long, at most 10 min. So a cause
//! that stays costs a handful of dead letters an hour. A restart starts afresh: whoever has mended the
//! configuration has restarted anyway. And whoever knows better, because what dies should die, says
//! `tidegate resume KIND`: for an hour all is read, whatever comes of it.

use crate::outcome::Reason;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Endings that are remembered of a kind.
const WINDOW: usize = 200;
/// More dead for one reason among them are a flood: 20 %.
const MOST: usize = WINDOW / 5;
/// Long enough for a person to see it, short enough not to be the outage itself.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Six tries an hour: what a cause that stays may cost in dead letters.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// With one task in five dying, as many as this in a row end well only one time in three.
const GOOD_IN_A_ROW: u32 = 5;
/// A task that was let through and is not heard of again does not hold the kind for ever. Longer than
/// a task takes.
const LOST_AFTER: Duration = Duration::from_secs(900);

/// Long enough for a burst of bad tasks to be over, too short for the word to be forgotten.
const RESUMED_FOR: Duration = Duration::from_secs(3_600);

/// The watch over one kind.
#[derive(Default)]
pub(super) struct Flood {
    /// The newest last; `None`: not dead, or of what does not accuse.
    recent: VecDeque<Option<Reason>>,
    state: State,
    /// Pauses since it was last well for a whole window.
    pauses: u32,
}

#[derive(Default)]
enum State {
    #[default]
    Reading,
    Paused {
        why: Why,
        until: Instant,
    },
    /// One task at a time. `out`: since when one is under way.
    Trying {
        why: Why,
        good: u32,
        out: Option<Instant>,
    },
    /// A person wants all to be read, whatever comes of it.
    Resumed {
        until: Instant,
    },
}

/// `dead` of the last `of` endings, for one reason.
#[derive(Clone, Copy)]
struct Why {
    reason: Reason,
    dead: usize,
    of: usize,
}

impl Flood {
    /// A task of the kind has ended: dead for a reason, or as a result, or with a person. `true`: the
    /// kind pauses from now on.
    pub(super) fn ended(&mut self, dead: Option<Reason>, now: Instant) -> bool {
        let dead = dead.filter(|reason| accuses(*reason));
        match &mut self.state {
            // It was under way before; or nobody judges.
            State::Paused { .. } | State::Resumed { .. } => false,
            State::Reading => self.read(dead, now),
            State::Trying { why, .. } if dead == Some(why.reason) => {
                let why = *why;
                self.pause(why, now);
                true
            }
            State::Trying { good, .. } => {
                *good += u32::from(dead.is_none());
                if *good >= GOOD_IN_A_ROW {
                    self.state = State::Reading;
                    self.recent.clear();
                }
                false
            }
        }
    }

    fn read(&mut self, dead: Option<Reason>, now: Instant) -> bool {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(dead);
        let same = self.recent.iter().filter(|past| dead.is_some() && **past == dead).count();
        if let Some(reason) = dead.filter(|_| same > MOST) {
            self.pause(Why { reason, dead: same, of: self.recent.len() }, now);
            return true;
        }
        if self.recent.len() == WINDOW {
            self.pauses = 0;
        }
        false
    }

    fn pause(&mut self, why: Why, now: Instant) {
        let pause = FIRST_PAUSE * (1 << self.pauses.min(8));
        self.pauses += 1;
        self.state = State::Paused { why, until: now + pause.min(LONGEST_PAUSE) };
    }

    /// A record of the kind's topic was handed out. `true`: no other one may be before it is back.
    pub(super) fn handed_out(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Trying { out, .. } => {
                *out = Some(now);
                true
            }
            _ => false,
        }
    }

    /// It is back, whatever it was: a task of this kind, of another on the topic, or none at all.
    /// `true`: the next one may be handed out.
    pub(super) fn back(&mut self) -> bool {
        match &mut self.state {
            State::Trying { out, .. } => out.take().is_some(),
            _ => false,
        }
    }

    /// A person says so. Nothing to resume where nothing is paused.
    pub(super) fn resume(&mut self, now: Instant) {
        if matches!(self.state, State::Paused { .. } | State::Trying { .. }) {
            *self = Flood { state: State::Resumed { until: now + RESUMED_FOR }, ..Flood::default() };
        }
    }

    /// Is the kind's topic not to be read now?
    pub(super) fn holds(&mut self, now: Instant) -> bool {
        match &self.state {
            State::Reading => false,
            State::Resumed { until } => {
                if now >= *until {
                    self.state = State::Reading;
                }
                false
            }
            State::Paused { until, .. } if now < *until => true,
            State::Paused { why, .. } => {
                self.state = State::Trying { why: *why, good: 0, out: None };
                false
            }
            State::Trying { out, .. } => out.is_some_and(|since| now.duration_since(since) < LOST_AFTER),
        }
    }

    /// Half a sentence for people; `None`: all is read.
    pub(super) fn why(&self, kind: &str, now: Instant) -> Option<String> {
        let (why, next) = match &self.state {
            State::Reading | State::Resumed { .. } => return None,
            State::Paused { why, until } => {
                let seconds = until.duration_since(now).as_secs() + 1;
                (why, format!("one task is tried again within {seconds} s"))
            }
            State::Trying { why, .. } => (why, "tasks are tried again one at a time".to_owned()),
        };
        let Why { reason, dead, of } = why;
        Some(format!(
            "{dead} of the last {of} outcomes of {kind} are dead letters for one reason, {reason}; {next}, \
             all of them after `tidegate resume {kind}`"
        ))
    }
}

/// Does this reason say that something is wrong with the kind, or with what it is sent?
fn accuses(reason: Reason) -> bool {
    !matches!(
        reason,
        // Time passes while models are away or slow, and while the kind is paused.
        Reason::DeadlinePassed | Reason::AllowanceSpent
        // The log has lost records, or one task at a time ends its process.
        | Reason::Orphaned | Reason::CrashesWorker
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: Reason = Reason::TemplateFailed;

    fn ends(flood: &mut Flood, times: usize, dead: Option<Reason>, now: Instant) -> bool {
        (0..times).any(|_| flood.ended(dead, now))
    }

    fn paused(now: Instant) -> Flood {
        let mut flood = Flood::default();
        assert!(ends(&mut flood, MOST + 1, Some(BROKEN), now));
        flood
    }

    #[test]
    fn a_kind_pauses_once_more_than_a_fifth_of_its_last_200_outcomes_died_of_one_reason() {
        let now = Instant::now();
        let mut flood = Flood::default();
        assert!(!ends(&mut flood, 1_000, None, now));
        for _ in 0..4 {
            assert!(!ends(&mut flood, MOST, Some(BROKEN), now));
            assert!(!ends(&mut flood, MOST, Some(Reason::PayloadRefused), now), "two reasons are two");
            assert!(
                !ends(&mut flood, WINDOW - MOST, None, now),
                "what is older than the window is forgotten"
            );
        }
        assert!(!ends(&mut flood, MOST, Some(BROKEN), now));
        assert!(!flood.holds(now) && flood.why("t", now).is_none());
        assert!(flood.ended(Some(BROKEN), now));
        assert!(flood.holds(now));
        let expected = "41 of the last 200 outcomes of t are dead letters for one reason, TG-template-failed; \
                        one task is tried again within 31 s, all of them after `tidegate resume t`";
        assert_eq!(flood.why("t", now).as_deref(), Some(expected));
    }

    #[test]
    fn p7_what_an_outage_can_cause_never_pauses_a_kind() {
        let now = Instant::now();
        for reason in
            [Reason::DeadlinePassed, Reason::AllowanceSpent, Reason::Orphaned, Reason::CrashesWorker]
        {
            let mut flood = Flood::default();
            assert!(!ends(&mut flood, 1_000, Some(reason), now), "{reason}");
            assert!(!flood.holds(now));
        }
    }

    #[test]
    fn a_paused_kind_is_tried_again_one_task_at_a_time_and_goes_on_after_five() {
        let began = Instant::now();
        let mut flood = paused(began);
        assert!(!flood.ended(Some(BROKEN), began), "it was under way before");
        assert!(flood.holds(began + FIRST_PAUSE - Duration::from_millis(1)));
        let now = began + FIRST_PAUSE;
        for _ in 0..GOOD_IN_A_ROW {
            assert!(!flood.holds(now), "the next one may come");
            assert!(flood.why("t", now).is_some_and(|why| why.contains("one at a time")));
            assert!(flood.handed_out(now) && flood.holds(now), "and no other one before it is back");
            assert!(flood.back());
            assert!(!flood.ended(None, now));
        }
        assert!(!flood.handed_out(now) && !flood.holds(now), "all is read");
        assert!(flood.why("t", now).is_none());
        assert!(!ends(&mut flood, MOST, Some(BROKEN), now), "and counted afresh");
    }

    #[test]
    fn one_that_dies_of_the_same_reason_doubles_the_pause_up_to_ten_minutes() {
        let mut now = Instant::now();
        let mut flood = paused(now);
        for expected in [30, 60, 120, 240, 480, 600, 600] {
            now += Duration::from_secs(expected);
            assert!(flood.holds(now - Duration::from_millis(1)) && !flood.holds(now), "after {expected} s");
            assert!(flood.handed_out(now) && flood.back());
            // A task that is of another kind, parked, or a copy: it says nothing.
            assert!(flood.handed_out(now) && flood.back());
            assert!(!flood.ended(Some(Reason::PayloadRefused), now), "neither good nor the same");
            assert!(!ends(&mut flood, 4, None, now), "four are not five");
            assert!(flood.ended(Some(BROKEN), now));
        }
    }

    #[test]
    fn a_kind_that_was_well_for_a_whole_window_pauses_briefly_again() {
        let mut now = Instant::now();
        let mut flood = paused(now);
        for pause in [30, 60] {
            now += Duration::from_secs(pause);
            assert!(!flood.holds(now));
            assert!(!ends(&mut flood, 5, None, now));
            assert!(ends(&mut flood, MOST + 1, Some(BROKEN), now), "it read again and dies again");
        }
        now += Duration::from_secs(120);
        assert!(flood.holds(now - Duration::from_millis(1)) && !flood.holds(now));
        assert!(!ends(&mut flood, 5 + WINDOW, None, now));
        assert!(ends(&mut flood, MOST + 1, Some(BROKEN), now));
        assert!(!flood.holds(now + FIRST_PAUSE));
    }

    #[test]
    fn a_kind_that_a_person_resumes_is_read_for_an_hour_whatever_comes_of_it() {
        let began = Instant::now();
        let mut flood = paused(began);
        flood.resume(began);
        assert!(!flood.holds(began) && flood.why("t", began).is_none());
        assert!(!ends(&mut flood, 1_000, Some(BROKEN), began));
        let now = began + RESUMED_FOR;
        assert!(!flood.holds(now));
        assert!(!ends(&mut flood, MOST, Some(BROKEN), now), "then it is judged afresh");
        assert!(flood.ended(Some(BROKEN), now));
        let mut well = Flood::default();
        well.resume(began);
        assert!(ends(&mut well, MOST + 1, Some(BROKEN), began), "nothing was paused, so nothing is resumed");
    }

    #[test]
    fn a_task_that_never_comes_back_does_not_hold_its_kind_for_ever() {
        let began = Instant::now();
        let mut flood = paused(began);
        let now = began + FIRST_PAUSE;
        assert!(!flood.holds(now) && flood.handed_out(now) && flood.holds(now));
        assert!(!flood.holds(now + LOST_AFTER));
    }
}
