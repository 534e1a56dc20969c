//! What a model said, as it is kept in its slot: stored once, read back by whoever resumes the task.

use super::failure::Class;
use crate::outcome::Reason;
use crate::task::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Version of the stored structure.
const VERSION: u32 = 1;
/// Of one that is no answer: a program that knows only version 1 must not take it for one.
const VERSION_ENDED: u32 = 2;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Answer {
    pub(super) v: u32,
    pub text: String,
    /// As the provider reported it.
    pub model: String,
    /// As the configuration calls it.
    pub model_name: String,
    pub provider: String,
    pub endpoint: String,
    /// Index in the line-up; 0 is the preferred one.
    pub position: usize,
    /// Given while the model's breaker was half-open.
    #[serde(default)]
    pub probe: bool,
    pub usage: Usage,
    /// Every try for this slot, the failed ones too, in order.
    pub tries: Vec<TryNote>,
    pub received_at: Timestamp,
    /// How often this slot was granted again although an earlier request may have been answered, by
    /// every delivery so far.
    #[serde(default)]
    pub repeats: u32,
    /// No whole answer, and none will come: a person must look. `text` is what was said until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The ledger was away when it arrived: not stored yet, as far as its holder knows.
    #[serde(skip)]
    pub held: bool,
}

/// Why asking ended without an answer. Kept in the slot like one: it was paid for, and whoever resumes
/// the task must not ask again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ended {
    pub reason: Reason,
    pub detail: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Null where the price is unknown.
    pub cost: Option<f64>,
}

/// One request to one model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TryNote {
    pub model: String,
    pub at: Timestamp,
    pub ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// `ok`, or the class of the failure.
    pub class: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Waited before it, ms.
    #[serde(default)]
    pub wait_ms: u64,
    /// As far as the provider reported them, also for a try that failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub input_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_tokens: u64,
    /// Absent where the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// It failed, and not by the task's doing: the task's time is not charged for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl TryNote {
    /// Why there was no answer, in words that are never the provider's: those may quote the task.
    pub fn cause(&self) -> String {
        let class = Class::ALL.into_iter().find(|class| class.as_str() == self.class);
        let words = class.map_or(self.class.as_str(), |class| class.words(self.status));
        match (self.status, class) {
            (Some(status), _) => format!("{words} (HTTP {status})"),
            // Without a reply the cause is the connection's, or the limit that was reached.
            (None, Some(Class::Transient | Class::Timeout)) if !self.detail.is_empty() => {
                format!("{words}: {}", self.detail)
            }
            (None, _) => words.to_owned(),
        }
    }

    /// The answer broke off in the middle, or had no end within its time: what there was of it was bought.
    pub fn broke_off(&self) -> bool {
        let half = [Class::Malformed, Class::Timeout].map(Class::as_str);
        half.contains(&self.class.as_str()) && self.first_token_ms.is_some()
    }

    /// What the task's time is charged, ms.
    pub fn charged_ms(&self) -> u64 {
        if self.lost { 0 } else { self.ms }
    }
}

impl Usage {
    /// Of tries together. One unknown price makes the sum unknown, never smaller.
    pub fn of<'n>(tries: impl IntoIterator<Item = &'n TryNote>) -> Usage {
        let mut sum = Usage { cost: Some(0.0), ..Usage::default() };
        for note in tries {
            sum.input_tokens += note.input_tokens;
            sum.output_tokens += note.output_tokens;
            if note.class == "ok" || note.input_tokens + note.output_tokens > 0 {
                sum.cost = sum.cost.zip(note.cost).map(|(before, now)| before + now);
            }
        }
        sum
    }

    #[must_use]
    pub fn and(self, more: &Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens + more.input_tokens,
            output_tokens: self.output_tokens + more.output_tokens,
            cost: self.cost.zip(more.cost).map(|(a, b)| a + b),
        }
    }
}

impl Answer {
    pub(super) fn new(text: String, tries: Vec<TryNote>, received_at: Timestamp) -> Self {
        Answer {
            v: VERSION,
            text,
            model: String::new(),
            model_name: String::new(),
            provider: String::new(),
            endpoint: String::new(),
            position: 0,
            probe: false,
            usage: Usage::default(),
            tries,
            received_at,
            repeats: 0,
            ended: None,
            held: false,
        }
    }

    #[must_use]
    pub(super) fn without_answer(self, ended: Ended) -> Self {
        Answer { v: VERSION_ENDED, ended: Some(ended), ..self }
    }

    pub fn encode(&self) -> Bytes {
        // Text and numbers always serialise.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }

    /// `None`: of a version that this program does not know, or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Answer> {
        let known = |a: &Answer| [VERSION, VERSION_ENDED].contains(&a.v);
        serde_json::from_slice::<Answer>(bytes).ok().filter(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_answer_of_version_1_stays_readable() {
        let stored = br#"{"v":1,"text":"{}","model":"m-2","model_name":"main","provider":"openai","endpoint":"u","position":1,"usage":{"input_tokens":3,"output_tokens":4,"cost":null},"tries":[{"model":"main","at":5,"ms":6,"class":"ok"}],"received_at":7,"repeats":1}"#;
        let answer = Answer::decode(stored).expect("version 1");
        assert_eq!((answer.position, answer.repeats, answer.tries.len()), (1, 1, 1));
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        assert_eq!(Answer::decode(br#"{"v":3}"#), None, "a newer version is not guessed at");
        let newer = String::from_utf8(stored.to_vec()).unwrap().replace(r#""v":1"#, r#""v":3"#);
        assert_eq!(Answer::decode(newer.as_bytes()), None);
    }

    #[test]
    fn what_is_no_answer_is_stored_under_a_version_that_older_programs_do_not_take_for_one() {
        let ended = Ended { reason: Reason::ModelRefused, detail: "no".to_owned() };
        let refused = Answer::new("I can".to_owned(), vec![], Timestamp(1)).without_answer(ended.clone());
        let stored: serde_json::Value = serde_json::from_slice(&refused.encode()).unwrap();
        assert_eq!((&stored["v"], &stored["ended"]["reason"]), (&2.into(), &"TG-model-refused".into()));
        assert_eq!(Answer::decode(&refused.encode()).and_then(|a| a.ended), Some(ended));
        let whole: serde_json::Value =
            serde_json::from_slice(&Answer::new("{}".to_owned(), vec![], Timestamp(1)).encode()).unwrap();
        assert_eq!((&whole["v"], whole.get("ended")), (&1.into(), None), "and an answer as before");
    }
}
