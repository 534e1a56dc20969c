//! Which fault a request meets: first by what its payload says, then by the time. Pure: takes what has
//! passed and a draw; never waits and never words a reply.

use super::draw::Draws;
use super::written::{Share, Span};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What may go wrong with one request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 429; with `Retry-After` where the rule gives a `retry_after`, and always as Anthropic.
    RateLimited,
    /// 500.
    #[serde(alias = "500")]
    ServerError,
    /// 503.
    #[serde(alias = "503")]
    Unavailable,
    /// 529, as Anthropic says it.
    #[serde(alias = "529")]
    Overloaded,
    /// The request is taken and nothing follows, until the client leaves.
    Silence,
    /// A few characters at a time, `every` so often.
    SlowDrip,
    /// The connection breaks in the middle of the answer.
    Truncated,
    /// A whole answer whose JSON is broken.
    Malformed,
    /// JSON between sentences.
    Prose,
    /// The model says that it is not sure: 0.81.
    LowConfidence,
    Refusal,
    /// 429 that no waiting mends.
    SpendCap,
    /// 404: retired, or never there.
    ModelNotFound,
    /// 401.
    Unauthorized,
    /// The answer misses its last field.
    WrongSchema,
    /// The answer does not end where any should.
    LongAnswer,
    /// Stopped by the token limit, and says so.
    Cut,
}

/// A fault with its particulars.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Trouble {
    pub(super) fault: Fault,
    pub(super) retry_after: Option<Duration>,
    pub(super) every: Option<Duration>,
}

/// A stretch of a model's time in which requests meet a fault. The first that holds decides.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stretch {
    #[serde(default = "begin")]
    from: Span,
    /// Absent: for ever.
    to: Option<Span>,
    fault: Fault,
    /// Of the requests that meet it, 0.0 to 1.0.
    #[serde(default = "all")]
    share: Share,
    retry_after: Option<Span>,
    every: Option<Span>,
}

/// A fault directed at tasks by what their payload says. The first that holds decides.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    contains: String,
    fault: Fault,
    /// Only the first request of each task.
    #[serde(default)]
    once: bool,
    /// Absent: whichever model is asked.
    model: Option<String>,
    retry_after: Option<Span>,
    every: Option<Span>,
}

fn begin() -> Span {
    Span(Duration::ZERO)
}

fn all() -> Share {
    Share(1.0)
}

/// What a rule can see of a request.
pub(super) struct Seen<'a> {
    pub(super) model: &'a str,
    pub(super) payload: &'a str,
    pub(super) passed: Duration,
    pub(super) draws: &'a Draws,
}

/// `first_of_task(i)`: whether rule `i` has not met this task yet; asked only where that decides.
pub(super) fn meet(
    when: &[When],
    timeline: &[Stretch],
    seen: &Seen<'_>,
    mut first_of_task: impl FnMut(usize) -> bool,
) -> Option<Trouble> {
    for (i, rule) in when.iter().enumerate() {
        let holds = seen.payload.contains(&rule.contains)
            && rule.model.as_deref().is_none_or(|model| model == seen.model);
        if holds && (!rule.once || first_of_task(i)) {
            return Some(trouble(rule.fault, rule.retry_after, rule.every));
        }
    }
    let holds = |(i, s): &(usize, &Stretch)| {
        s.from.0 <= seen.passed
            && s.to.is_none_or(|to| seen.passed < to.0)
            && seen.draws.share(&format!("stretch {i}")) < s.share.0
    };
    timeline.iter().enumerate().find(holds).map(|(_, s)| trouble(s.fault, s.retry_after, s.every))
}

fn trouble(fault: Fault, retry_after: Option<Span>, every: Option<Span>) -> Trouble {
    Trouble { fault, retry_after: retry_after.map(|s| s.0), every: every.map(|s| s.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        when: Vec<When>,
        #[serde(default)]
        timeline: Vec<Stretch>,
    }

    fn met(text: &str, payload: &str, passed_ms: u64, slot: &str) -> Option<Fault> {
        let file: File = toml::from_str(text).expect("well-formed");
        let draws = Draws::new(1, "main", slot, 1);
        let seen = Seen { model: "main", payload, passed: Duration::from_millis(passed_ms), draws: &draws };
        meet(&file.when, &file.timeline, &seen, |_| slot == "new").map(|t| t.fault)
    }

    #[test]
    fn a_timeline_holds_from_its_first_moment_to_before_its_last() {
        let file = "timeline = [{ from = '6s', to = '16s', fault = 'overloaded' }]";
        let at = |ms| met(file, "", ms, "s");
        assert_eq!((at(5_999), at(6_000)), (None, Some(Fault::Overloaded)));
        assert_eq!((at(15_999), at(16_000)), (Some(Fault::Overloaded), None));
    }

    #[test]
    fn a_share_meets_that_share_of_the_requests() {
        let file = "timeline = [{ fault = '500', share = 0.25 }]";
        let hits = (0..2_000).filter(|i| met(file, "", 0, &format!("s{i}")).is_some()).count();
        assert!((440..560).contains(&hits), "{hits} of 2000");
    }

    #[test]
    fn what_the_payload_says_goes_before_the_timeline() {
        let file = "timeline = [{ fault = '503' }]\n[[when]]\ncontains = 'MARK'\nfault = 'refusal'\nonce = true\n\
                    [[when]]\ncontains = 'MARK'\nfault = 'prose'\nmodel = 'other'";
        assert_eq!(met(file, "a MARK", 0, "new"), Some(Fault::Refusal));
        assert_eq!(met(file, "a MARK", 0, "old"), Some(Fault::Unavailable), "once, and another model's");
        assert_eq!(met(file, "none", 0, "new"), Some(Fault::Unavailable));
    }
}
