//! The records that leave, one structure each: result envelope, review item, decision, review outcome.
//!
//! `schemas/` describes each to the world; tests hold the two together. What Tidegate reads back it
//! reads through the same structures.

use crate::outcome::{Reason, Status};
use crate::task::{ScopedKey, Timestamp, Token};
use crate::token;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the record structures in this file.
pub const VERSION: u32 = 1;

/// A result, in the shape `envelope`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    pub v: u32,
    pub key: String,
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tenant: Option<String>,
    pub generation: u32,
    /// `topic/partition/offset@stamp_ms` of hop 0.
    pub origin: String,
    /// `rule:digest`, as `token::write_print` writes it.
    pub fingerprint: String,
    pub status: Status,
    /// Finished after its deadline.
    pub late: bool,
    pub answer: Value,
    /// Per field and overall: value and basis. Null where nothing was weighed.
    pub confidence: Value,
    pub made_by: MadeBy,
    pub usage: Usage,
    pub tries: Value,
    pub repairs: Value,
    /// Effects with their read-backs; tools come later.
    pub effects: Vec<Value>,
    pub reviewed: Option<Reviewed>,
    /// RFC 3339.
    pub accepted_at: String,
    pub finished_at: String,
}

/// Who made the answer, and under which configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MadeBy {
    /// As the provider reported it; null where no model was asked.
    pub model: Option<String>,
    pub provider: Option<String>,
    pub endpoint: Option<String>,
    pub configuration: String,
    pub prompt: Option<String>,
    pub schema: Option<String>,
    pub tidegate: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// In the unit of the configured prices; null where a price is unknown.
    pub cost: Option<f64>,
}

/// What a person decided.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reviewed {
    pub by: String,
    /// RFC 3339.
    pub at: String,
    pub action: Action,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Position of the decision's record.
    pub decision: String,
    pub item: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Approve,
    Edit,
    Reject,
}

impl Action {
    pub fn status(self) -> Status {
        match self {
            Action::Approve => Status::Approved,
            Action::Edit => Status::Edited,
            Action::Reject => Status::Rejected,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Approve => "approve",
            Action::Edit => "edit",
            Action::Reject => "reject",
        }
    }
}

/// A question for a person. Immutable; the token of its hop is in the record's headers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReviewItem {
    pub v: u32,
    pub id: String,
    /// One sentence: why this is here.
    pub question: String,
    /// Every trigger, the strongest first.
    pub why: Vec<Value>,
    pub severity: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub team: Option<String>,
    pub opened_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_at: Option<Timestamp>,
    /// What the task asked, as JSON.
    pub payload: Value,
    /// The task's own record key, as hexadecimal digits: the result is published under it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub record_key: Option<String>,
    /// The result as it would be published if approved. With `answer_text`, its answer is only what came
    /// nearest to one (or null): it can be edited or rejected, not approved.
    pub proposed: Envelope,
    /// The model's words, where they could not be read as an answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer_text: Option<String>,
    pub findings: Value,
}

/// What a person submitted. Append-only; whether it counts, the arbiter says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Decision {
    pub v: u32,
    pub item: String,
    /// Position of the item's record.
    pub item_at: String,
    pub action: Action,
    pub by: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The edited answer, for `edit`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<Value>,
    /// Names this submission, so that its sender finds the outcome.
    pub nonce: String,
    pub at: Timestamp,
}

/// What became of a decision. Written only by the arbiter.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReviewOutcome {
    pub v: u32,
    pub item: String,
    pub nonce: String,
    pub verdict: Ruling,
    /// Who decided the item, where somebody has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decided_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decided_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<Action>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ruling {
    /// This decision counts.
    Counts,
    /// Another one does, or the task is past this item.
    Superseded,
    /// Judged invalid before it could claim the item.
    Invalid,
}

/// Names an item: key, generation, origin and hop of its token. Twenty hexadecimal digits.
pub fn item_id(token: &Token) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(&token.key.to_bytes());
    hash.update(&token.generation.to_be_bytes());
    hash.update(token::write_origin(&token.origin).as_bytes());
    hash.update(&token.hop.to_be_bytes());
    hash.finalize().to_hex()[..20].to_owned()
}

/// A dead letter's headers, beside the original key, value and headers.
#[derive(Clone, PartialEq, Debug)]
pub struct Burial {
    pub reason: Reason,
    pub detail: String,
    /// Where the buried record lies.
    pub source: String,
    pub at: Timestamp,
    /// Its token, where the key is known; `outcome` says whether this is the outcome of its key.
    pub token: Option<Token>,
    pub outcome: bool,
    pub tries: u32,
    pub first_error: Option<String>,
    pub last_error: Option<String>,
    pub trail: crate::trail::Trail,
}

pub const REASON: &str = "tidegate-reason";
pub const DETAIL: &str = "tidegate-detail";
pub const SOURCE: &str = "tidegate-source";
pub const BURIED_AT: &str = "tidegate-at";
pub const IS_OUTCOME: &str = "tidegate-is-outcome";
pub const TRIES: &str = "tidegate-tries";
pub const FIRST_ERROR: &str = "tidegate-first-error";
pub const LAST_ERROR: &str = "tidegate-last-error";
pub const TRAIL: &str = "tidegate-trail";
/// On a dead letter that had to be made smaller: how many bytes the original value has.
pub const ORIGINAL_BYTES: &str = "tidegate-original-bytes";

/// The part of an envelope that the token decides.
pub fn identity(key: &ScopedKey) -> (String, String, Option<String>) {
    let tenant = (!key.tenant.is_empty()).then(|| key.tenant.to_string());
    (key.key.to_string(), key.kind.to_string(), tenant)
}
