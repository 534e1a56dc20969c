//! Decides what comes after a failed try, and what it means for the task when nobody can be asked.
//!
//! Never waits, calls or reads a clock; `call.rs` acts on what is decided here.

use super::answer::TryNote;
use super::failure::{Again, Class, Failure};
use super::retry;
use crate::outcome::Reason;
use std::time::Duration;

/// What to do after a failed try.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Next {
    /// Retry: the same model, after this long.
    Wait(Duration),
    FallBack,
    /// A refusal is not routed round.
    Person(Reason),
    Dead(Reason),
}

/// `failed`: tries of this model for this slot, this one included. `left`: what is left of the task's
/// time; a wait that does not fit is not waited. `draw`: 0 ≤ draw < 1.
pub(super) fn after(failure: &Failure, failed: u32, left: Duration, draw: f64) -> Next {
    match failure.class {
        Class::BadRequest => return Next::Dead(Reason::PayloadRefused),
        Class::Refusal => return Next::Person(Reason::ModelRefused),
        _ => {}
    }
    let again = !failure.final_word
        && match failure.class.again() {
            Again::No => false,
            Again::Once => failed < 2,
            Again::Yes => failed < retry::TRIES_PER_MODEL,
        };
    let wait = retry::wait(failure.class, failed, failure.hint, draw);
    if again && wait <= retry::WAIT_IN_PLACE_MAX && wait < left { Next::Wait(wait) } else { Next::FallBack }
}

/// Where the work on one slot stands.
pub(super) struct Progress {
    pub(super) tries: Vec<TryNote>,
    /// Failed tries of each model of the line-up.
    pub(super) failed: Vec<u32>,
    /// Models that are not asked again for this slot, and the failure that says why.
    pub(super) out: Vec<Option<Failure>>,
    /// The soonest that a model which was told to wait may be asked.
    pub(super) hinted: Option<Duration>,
    /// Time of tries that failed, and not by the task's doing.
    pub(super) lost: Duration,
    /// Tries whose request was sent, and whose end did not come or was no end: the model may have been paid for it.
    pub(super) unheard: u32,
    /// How often the slot was granted again, by this delivery and all before it.
    pub(super) repeats: u32,
    /// Waited since the last try.
    pub(super) waited: Duration,
    /// Waited in place because nobody could be asked, over the whole slot.
    pub(super) stood: Duration,
    /// The journal has said `Go`, so there is something to give back.
    pub(super) granted: bool,
}

impl Progress {
    pub(super) fn new(models: usize) -> Self {
        Progress {
            tries: vec![],
            failed: vec![0; models],
            out: vec![None; models],
            hinted: None,
            lost: Duration::ZERO,
            unheard: 0,
            repeats: 0,
            waited: Duration::ZERO,
            stood: Duration::ZERO,
            granted: false,
        }
    }

    /// This model is not asked again for this slot.
    pub(super) fn leave(&mut self, i: usize, failure: Failure) {
        if let Some(hint) = failure.hint.filter(|_| failure.class == Class::RateLimited) {
            self.hinted = Some(self.hinted.map_or(hint, |h| h.min(hint)));
        }
        self.out[i] = Some(failure);
    }

    fn all_left_for(&self, class: Class) -> bool {
        !self.out.is_empty() && self.out.iter().all(|f| f.as_ref().is_some_and(|f| f.class == class))
    }
}

/// What it means that nobody of the line-up can be asked now.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Nobody {
    /// In place: it is short, and some model has not been asked yet.
    Wait(Duration),
    Park {
        wait: Duration,
        why: String,
    },
    Dead {
        reason: Reason,
        detail: String,
    },
    /// With what this model of the line-up said until it was cut off.
    Person {
        model: usize,
        reason: Reason,
        detail: String,
        partial: Option<String>,
    },
}

/// `soonest`: until a model that is not left yet may be asked; `None` if there is none. `left`: of the
/// task's time. `halves`: answers that may still break off. `hop`: how often the task has moved on already.
pub(super) fn nobody(
    at: &Progress,
    soonest: Option<Duration>,
    left: Duration,
    halves: u32,
    hop: u32,
) -> Nobody {
    if at.all_left_for(Class::ContextTooLong) {
        let detail = "no model of the line-up has a window that fits".to_owned();
        return Nobody::Dead { reason: Reason::ContextTooLong, detail };
    }
    if let Some(wait) = soonest
        && at.stood + wait <= retry::WAIT_IN_PLACE_MAX
        && wait < left
    {
        return Nobody::Wait(wait);
    }
    // A later hop would begin anew and buy the same half answer again, for as long as the others are away.
    // What breaks off may be an outage, so it is bought a few times more.
    let broken = at.tries.iter().filter(|t| t.broke_off()).count();
    let ends_it = |f: &Failure| match f.class {
        Class::Cut | Class::Oversized => true,
        Class::Malformed | Class::Timeout => f.partial.is_some() && broken >= halves as usize,
        _ => false,
    };
    let mut left_for = at.out.iter().enumerate().filter_map(|(i, f)| Some((i, f.as_ref()?)));
    if let Some((model, f)) = left_for.find(|(_, f)| ends_it(f)) {
        return Nobody::Person {
            model,
            reason: Reason::AnswerCut,
            detail: f.detail.clone(),
            partial: f.partial.clone(),
        };
    }
    let why = match at.out.iter().flatten().last() {
        Some(f) => format!("no model can serve; last: {}: {}", f.class.words(f.status), f.detail),
        None => "no model can serve".to_owned(),
    };
    let earliest = [soonest, at.hinted].into_iter().flatten().min().unwrap_or_default();
    Nobody::Park { wait: retry::park(earliest, hop), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(60);

    fn failure(class: Class, hint_s: Option<u64>) -> Failure {
        Failure { hint: hint_s.map(Duration::from_secs), ..Failure::new(class, "x") }
    }

    fn left_for(classes: &[Option<Class>]) -> Progress {
        let mut at = Progress::new(classes.len());
        for (i, class) in classes.iter().enumerate() {
            at.out[i] = class.map(|c| failure(c, None));
        }
        at
    }

    #[test]
    fn the_same_model_is_tried_three_times_and_then_the_next() {
        let overloaded = failure(Class::Overloaded, None);
        assert!(matches!(after(&overloaded, 1, LEFT, 0.5), Next::Wait(_)));
        assert!(matches!(after(&overloaded, 2, LEFT, 0.5), Next::Wait(_)));
        assert_eq!(after(&overloaded, 3, LEFT, 0.5), Next::FallBack);
        assert!(matches!(after(&failure(Class::Malformed, None), 1, LEFT, 0.5), Next::Wait(_)));
        assert_eq!(after(&failure(Class::Malformed, None), 2, LEFT, 0.5), Next::FallBack, "malformed: once");
    }

    #[test]
    fn p7_a_fault_that_is_not_the_tasks_never_kills_it() {
        // What was received without end is bought once: see the half answers.
        for class in Class::ALL.into_iter().filter(|c| !c.of_the_task() && *c != Class::Oversized) {
            for failed in 1..4 {
                let next = after(&failure(class, Some(60)), failed, LEFT, 0.5);
                assert!(matches!(next, Next::Wait(_) | Next::FallBack), "{class:?}: {next:?}");
            }
            let at = left_for(&[Some(class), Some(class)]);
            assert!(matches!(nobody(&at, None, LEFT, 6, 0), Nobody::Park { .. }), "{class:?}");
        }
        assert_eq!(
            after(&failure(Class::BadRequest, None), 1, LEFT, 0.5),
            Next::Dead(Reason::PayloadRefused)
        );
    }

    #[test]
    fn a_wait_is_kept_in_place_only_if_it_is_short_and_fits_the_time_left() {
        let limited = |s| failure(Class::RateLimited, Some(s));
        assert_eq!(after(&limited(2), 1, LEFT, 0.0), Next::Wait(Duration::from_secs(2)));
        assert_eq!(after(&limited(6), 1, LEFT, 0.0), Next::FallBack);
        assert_eq!(after(&limited(2), 1, Duration::from_secs(2), 0.0), Next::FallBack);
    }

    #[test]
    fn a_silent_model_a_spend_cap_and_a_last_word_are_not_asked_again() {
        assert_eq!(after(&failure(Class::Timeout, None), 1, LEFT, 0.0), Next::FallBack);
        assert_eq!(after(&failure(Class::SpendCap, Some(1)), 1, LEFT, 0.0), Next::FallBack);
        let last_word = Failure { final_word: true, ..failure(Class::Transient, None) };
        assert_eq!(after(&last_word, 1, LEFT, 0.0), Next::FallBack);
    }

    #[test]
    fn a_refusal_goes_to_a_person_and_is_not_routed_round() {
        assert_eq!(after(&failure(Class::Refusal, None), 1, LEFT, 0.0), Next::Person(Reason::ModelRefused));
    }

    #[test]
    fn a_task_is_too_long_only_if_it_is_for_every_model() {
        let long = Some(Class::ContextTooLong);
        assert!(matches!(
            nobody(&left_for(&[long, long]), None, LEFT, 6, 0),
            Nobody::Dead { reason: Reason::ContextTooLong, .. }
        ));
        let soonest = Some(Duration::from_secs(40));
        assert!(matches!(nobody(&left_for(&[long, None]), soonest, LEFT, 6, 0), Nobody::Park { .. }));
        assert!(
            matches!(nobody(&left_for(&[]), None, LEFT, 6, 0), Nobody::Park { .. }),
            "an empty line-up is nobody's fault"
        );
    }

    #[test]
    fn p5_a_half_answer_goes_to_a_person_once_everybody_was_asked() {
        let (cut, down) = (Some(Class::Cut), Some(Class::Overloaded));
        assert!(matches!(
            nobody(&left_for(&[cut, down]), None, LEFT, 6, 0),
            Nobody::Person { reason: Reason::AnswerCut, .. }
        ));
    }

    #[test]
    fn p5_an_answer_without_end_falls_back_at_once_and_is_not_bought_again_in_a_later_hop() {
        let endless = Failure { partial: Some("{".to_owned()), ..failure(Class::Oversized, None) };
        assert_eq!(after(&endless, 1, LEFT, 0.0), Next::FallBack);
        for other in [Class::Overloaded, Class::Oversized] {
            let mut at = left_for(&[None, Some(other)]);
            at.leave(0, endless.clone());
            let decided = nobody(&at, None, LEFT, 6, 0);
            let Nobody::Person { model: 0, reason: Reason::AnswerCut, partial, .. } = decided else {
                panic!("{other:?}: {decided:?}")
            };
            assert_eq!(partial.as_deref(), Some("{"));
        }
    }

    #[test]
    fn p5_a_half_answer_goes_to_a_person_when_nobody_else_may_be_asked_for_long() {
        let at = left_for(&[Some(Class::Cut), None]);
        let s = Duration::from_secs;
        let Nobody::Person { model, reason, .. } = nobody(&at, Some(s(40)), LEFT, 6, 0) else {
            panic!("in the next hop it would be bought again")
        };
        assert_eq!((model, reason), (0, Reason::AnswerCut));
        assert_eq!(nobody(&at, Some(s(4)), LEFT, 6, 0), Nobody::Wait(s(4)), "but a short gap is waited out");
    }

    #[test]
    fn what_breaks_off_again_and_again_is_not_bought_for_ever() {
        let mut at = left_for(&[None]);
        for class in [Class::Malformed, Class::Timeout] {
            at.leave(0, Failure { partial: Some("{".to_owned()), ..failure(class, None) });
            let text =
                format!(r#"{{"model":"m","at":1,"ms":2,"first_token_ms":1,"class":"{}"}}"#, class.as_str());
            let tried: TryNote = serde_json::from_str(&text).unwrap();
            at.tries = vec![tried.clone(), tried.clone()];
            assert!(matches!(nobody(&at, None, LEFT, 3, 0), Nobody::Park { .. }), "it may be an outage");
            assert!(matches!(
                nobody(&at, None, LEFT, 2, 0),
                Nobody::Person { reason: Reason::AnswerCut, partial: Some(_), .. }
            ));
            // Silence before the first token bought nothing.
            let silent = TryNote { first_token_ms: None, ..tried };
            at.tries = vec![silent.clone(), silent];
            assert!(matches!(nobody(&at, None, LEFT, 2, 0), Nobody::Park { .. }));
        }
    }

    #[test]
    fn short_gaps_are_ridden_out_in_place_and_long_ones_in_the_log() {
        let s = Duration::from_secs;
        let mut at = left_for(&[None]);
        assert_eq!(nobody(&at, Some(s(4)), LEFT, 6, 0), Nobody::Wait(s(4)));
        at.stood = s(4);
        assert!(matches!(nobody(&at, Some(s(4)), LEFT, 6, 0), Nobody::Park { wait, .. } if wait == s(5)));
        at.stood = Duration::ZERO;
        assert!(matches!(nobody(&at, Some(s(60)), LEFT, 6, 0), Nobody::Park { wait, .. } if wait == s(60)));
        assert!(
            matches!(nobody(&at, Some(s(4)), s(3), 6, 0), Nobody::Park { .. }),
            "it would outlast the task's time"
        );
    }

    #[test]
    fn p7_a_park_lasts_at_least_as_long_as_the_soonest_provider_asks() {
        let mut at = Progress::new(2);
        at.leave(0, failure(Class::RateLimited, Some(90)));
        at.leave(1, failure(Class::RateLimited, Some(30)));
        let Nobody::Park { wait, why } = nobody(&at, None, LEFT, 6, 0) else { panic!("parks") };
        assert_eq!(wait, Duration::from_secs(30));
        assert!(why.contains("it asked to wait"), "{why}");
    }
}
