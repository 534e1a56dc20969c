//! What kind of failure it was: the table of error classes, and what each means for the same model,
//! its breaker and its next wait. How a reply is sorted into it is `sorting.rs`.
//!
//! Never decides when to call again; says what each class means, once, for everybody.

use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// The task's content is what the provider refuses (400, 413, 422).
    BadRequest,
    /// Model retired, deployment missing, parameter not supported: a configuration fault.
    Misconfigured,
    /// By the token limit: the provider says so.
    Cut,
    /// More than any answer is read: a stream without end, a body of 10 MB. A fault of the model, and to
    /// ask it again would be to buy the same.
    Oversized,
    ContextTooLong,
    Refusal,
    /// 401, 403.
    Unauthorized,
    /// No credit, or a cap on what may be spent.
    SpendCap,
    RateLimited,
    Overloaded,
    /// 5xx, reset, DNS.
    Transient,
    /// First token, idle or total.
    Timeout,
    /// Ended without a finish signal, broken frames, an error inside the stream.
    Malformed,
}

/// What the breaker makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weight {
    Ignored,
    /// Counts in the ratio, not in the run.
    Soft,
    Hard,
}

/// Whether the same model may be tried again for this slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    No,
    Once,
    Yes,
}

impl Class {
    pub const ALL: [Class; 13] = [
        Class::BadRequest,
        Class::Misconfigured,
        Class::Cut,
        Class::Oversized,
        Class::ContextTooLong,
        Class::Refusal,
        Class::Unauthorized,
        Class::SpendCap,
        Class::RateLimited,
        Class::Overloaded,
        Class::Transient,
        Class::Timeout,
        Class::Malformed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::BadRequest => "bad-request",
            Class::Misconfigured => "misconfigured",
            Class::Cut => "cut",
            Class::Oversized => "oversized",
            Class::ContextTooLong => "context-too-long",
            Class::Refusal => "refusal",
            Class::Unauthorized => "unauthorized",
            Class::SpendCap => "spend-cap",
            Class::RateLimited => "rate-limited",
            Class::Overloaded => "overloaded",
            Class::Transient => "transient",
            Class::Timeout => "timeout",
            Class::Malformed => "malformed",
        }
    }

    /// For people, after a model's name. `status`: of the reply, where there was one.
    pub(super) fn words(self, status: Option<u16>) -> &'static str {
        match self {
            Class::BadRequest => "the request was refused",
            Class::Misconfigured => "it does not know the model, or a parameter",
            Class::Cut => "the answer was cut off",
            Class::Oversized => "the answer did not end",
            Class::ContextTooLong => "the task is too long for it",
            Class::Refusal => "it declined to answer",
            Class::Unauthorized => "the key was refused",
            Class::SpendCap => "there is no credit left",
            Class::RateLimited => "it asked to wait",
            Class::Overloaded => "it is overloaded",
            Class::Transient if status.is_none() => "it could not be reached",
            Class::Transient => "it failed",
            Class::Timeout => "it took too long",
            Class::Malformed => "the answer could not be read to its end",
        }
    }

    pub(super) fn again(self) -> Again {
        match self {
            Class::RateLimited | Class::Overloaded | Class::Transient => Again::Yes,
            Class::Malformed => Again::Once,
            _ => Again::No,
        }
    }

    fn weight(self, hinted: bool) -> Weight {
        match self {
            // The provider said when to come back: it is well.
            Class::RateLimited if hinted => Weight::Ignored,
            Class::RateLimited => Weight::Soft,
            Class::Overloaded | Class::Transient | Class::Timeout | Class::Malformed | Class::Oversized => {
                Weight::Hard
            }
            _ => Weight::Ignored,
        }
    }

    /// Nothing but a change outside this program helps: the model is blocked, and probed now and then.
    pub(super) fn blocks(self) -> bool {
        matches!(self, Class::Misconfigured | Class::Unauthorized | Class::SpendCap)
    }

    /// What to do about a model that is blocked for it; a configuration is read at the start.
    pub(super) fn remedy(self) -> Option<&'static str> {
        match self {
            Class::Misconfigured => {
                Some("check the model's name, address and `params`, then start the process again")
            }
            Class::Unauthorized => Some("check the model's `key`, then start the process again"),
            Class::SpendCap => Some("add credit or raise the cap at the provider"),
            _ => None,
        }
    }

    /// The model did its work, or could not have: what went wrong lies in the task.
    pub(super) fn of_the_task(self) -> bool {
        matches!(self, Class::BadRequest | Class::ContextTooLong | Class::Refusal | Class::Cut)
    }

    /// Waits of throttled tries start higher.
    pub(super) fn throttled(self) -> bool {
        matches!(self, Class::RateLimited | Class::Overloaded)
    }
}

/// One try that did not end in an answer.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) status: Option<u16>,
    pub(super) detail: String,
    /// When the provider wants to be asked again.
    pub(super) hint: Option<Duration>,
    /// The provider said that the same request will fail again (`x-should-retry: false`).
    pub(super) final_word: bool,
    /// The limit that ended it was the task's (deadline, allowance), not the model's.
    pub(super) ours: bool,
    /// What was said before it was cut off or refused.
    pub(super) partial: Option<String>,
    pub(super) first_token_ms: Option<u64>,
    /// What it cost although it failed: input and output tokens as far as reported.
    pub(super) tokens: (u64, u64),
}

/// A provider's words are kept up to here; they may quote the task.
const DETAIL_MAX: usize = 300;

impl Failure {
    /// `detail` is bounded, and made safe for a terminal.
    pub(super) fn new(class: Class, detail: impl AsRef<str>) -> Self {
        let calm = |c: char| if c.is_control() { ' ' } else { c };
        let mut kept = String::new();
        for c in detail.as_ref().chars().map(calm) {
            if kept.len() + c.len_utf8() > DETAIL_MAX {
                break;
            }
            kept.push(c);
        }
        Failure {
            class,
            status: None,
            detail: kept,
            hint: None,
            final_word: false,
            ours: false,
            partial: None,
            first_token_ms: None,
            tokens: (0, 0),
        }
    }

    /// Not the task's doing. A limit of the task that ends an answer under way is.
    pub(super) fn lost(&self) -> bool {
        !(self.class.of_the_task() || self.ours && self.first_token_ms.is_some())
    }

    /// What the model's breaker makes of it.
    pub(super) fn weight(&self) -> Weight {
        if self.ours { Weight::Ignored } else { self.class.weight(self.hint.is_some()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(class: Class, hint: Option<Duration>) -> Weight {
        Failure { hint, ..Failure::new(class, "") }.weight()
    }

    #[test]
    fn a_rate_limit_with_a_hint_does_not_count_against_the_model() {
        assert_eq!(weight(Class::RateLimited, Some(Duration::from_secs(1))), Weight::Ignored);
        assert_eq!(weight(Class::RateLimited, None), Weight::Soft);
    }

    #[test]
    fn never_answered_is_a_failure_unless_the_task_had_no_time_for_it() {
        let silent = Failure::new(Class::Timeout, "no first token");
        assert_eq!(silent.weight(), Weight::Hard);
        assert_eq!(silent.class.again(), Again::No, "a silent model is not asked again");
        assert_eq!(Failure { ours: true, ..silent }.weight(), Weight::Ignored);
    }

    #[test]
    fn an_answer_without_end_is_the_models_fault_and_not_charged_to_the_tasks_time() {
        let endless = Failure::new(Class::Oversized, "");
        assert_eq!((endless.weight(), endless.class.again()), (Weight::Hard, Again::No));
        assert!(endless.lost() && !endless.class.of_the_task() && !endless.class.blocks());
    }

    #[test]
    fn what_lies_in_the_task_never_counts_against_a_model_and_what_blocks_is_never_retried() {
        for class in Class::ALL {
            if class.of_the_task() || class.blocks() {
                assert_eq!(weight(class, None), Weight::Ignored, "{class:?}");
                assert_eq!(class.again(), Again::No, "{class:?}");
            }
        }
        let names: std::collections::BTreeSet<_> = Class::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), Class::ALL.len());
    }

    #[test]
    fn each_class_is_told_in_words_of_its_own_and_none_by_its_name() {
        let words: std::collections::BTreeSet<_> = Class::ALL.iter().map(|c| c.words(None)).collect();
        assert_eq!(words.len(), Class::ALL.len());
        assert!(Class::ALL.iter().all(|c| !words.contains(c.as_str())));
        assert_eq!(Class::Transient.words(Some(500)), "it failed");
    }

    #[test]
    fn a_providers_words_are_bounded_and_safe_for_a_terminal() {
        let f = Failure::new(Class::BadRequest, "\u{1b}[31mgr\u{fc}n\n".to_owned() + &"ü".repeat(500));
        assert!(f.detail.starts_with(" [31mgrün "), "{}", f.detail);
        assert!(f.detail.len() <= DETAIL_MAX);
    }
}
