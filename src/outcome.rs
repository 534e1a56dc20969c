//! How a task can end, and why: statuses, reasons and their stable codes.
//!
//! What ends a task, or sends it to a person, is not an error but a [`Reason`].

use serde::{Deserialize, Serialize};

/// What readers of committed records see of a finished task.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutcomeKind {
    Result,
    DeadLetter,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Accepted,
    Approved,
    Edited,
    Rejected,
    Amended,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Accepted => "accepted",
            Status::Approved => "approved",
            Status::Edited => "edited",
            Status::Rejected => "rejected",
            Status::Amended => "amended",
        }
    }
}

macro_rules! reasons {
    ($($name:ident = $code:literal, $what:literal, $todo:literal;)*) => {
        /// Why a record or task is in dead letters, or why a person is asked.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Reason { $(#[doc = $what] $name,)* }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Stable; published records and `explain` use it behind `TG-`.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            /// What happened, one or two sentences.
            pub fn what(self) -> &'static str {
                match self { $(Reason::$name => $what,)* }
            }

            /// What to do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Reason::$name => $todo,)* }
            }
        }
    };
}

reasons! {
    Malformed = "malformed", "The record's bytes are not the format its kind declares.", "Look at the value with `tidegate dead-letters show`; mend the producer and send the record again.";
    SchemaUnknown = "schema-unknown", "The record's schema is not in the registry, or is none that can be used.", "The detail names its id. Register it, or give its file under `[registry]`; then redrive.";
    KeyMissing = "key-missing", "No idempotency key could be found in the record.", "Where the kind has a `key` rule, send what the rule reads; else send an `idempotency-key` header, or give the kind such a rule.";
    KeyTooLong = "key-too-long", "The idempotency key is longer than 1,024 bytes.", "Send a shorter key, a hash of the long one for instance.";
    KindUnknown = "kind-unknown", "No kind of the configuration takes this record.", "Add the kind, mend the `ce_type` header or the topic; then redrive.";
    InputRefused = "input-refused", "The payload does not satisfy the kind's input schema.", "The detail names the field. Mend the producer, or the schema and redrive.";
    RecordTooLarge = "record-too-large", "The record is larger than the limit.", "The original lies where the headers say. Send less, or raise `record_max`.";
    DeadlinePassed = "deadline-passed", "The task's deadline passed before it had an answer.", "Redrive it if the answer is still wanted.";
    KeyConflict = "key-conflict", "The key belongs to a task with another payload.", "Two different payloads were sent under one key. Give the second its own key; `on_conflict = \"ignore\"` lets later ones end silently.";
    RefusedBefore = "refused-before", "The record was refused before it owned its key, by another process or an earlier configuration.", "Redrive it if the rules have changed since.";
    TokenInvalid = "token-invalid", "A record on an internal topic does not carry what a token must.", "Something else writes to Tidegate's internal topics, or a version is too old; look at the headers.";
    PayloadRefused = "payload-refused", "The model's provider refused the request because of what the task contains.", "The detail holds the provider's words. Change the payload or the prompt, then redrive.";
    ContextTooLong = "context-too-long", "The task does not fit the context window of any model of its line-up.", "Shorten the payload, or add a model with a larger window; then redrive.";
    AllowanceSpent = "allowance-spent", "The task has spent what it may spend.", "Raise the kind's `allowance`, then redrive.";
    CrashesWorker = "crashes-worker", "Work on this task ended its process again and again, at last alone.", "Keep the record for a bug report; redrive after an upgrade.";
    Orphaned = "orphaned", "The record of an open task vanished from its topic before the task was done: the topic's retention removed it, or the topic was made anew.", "Its payload is lost with it, so it cannot be redriven: send the task again under a new key. Give the topic a longer retention than the longest time its tasks may wait.";
    OutcomeTooLarge = "outcome-too-large", "The outcome was larger than its topic allows.", "The original lies where the headers say. Raise the topic's limit, then redrive.";
    TemplateFailed = "template-failed", "The prompt could not be rendered from this payload.", "The detail names the line and what it misses. Mend the prompt or the payload, then redrive.";
    BelowLine = "below-line", "A field's confidence is below the line.", "Read the flagged fields against the source; approve, edit or reject.";
    AnswerInvalid = "answer-invalid", "No answer satisfied the schema, not even after asking again and the sanitizer.", "The findings name the fields. Edit the answer into shape, or reject.";
    AnswerCut = "answer-cut", "The answer is not whole: its token limit cut it off, it broke off in the middle, or it did not end where any should.", "The detail says which. Edit what is missing, or reject; raise the limit in `params` for the next ones, or use a model that ends.";
    ModelRefused = "model-refused", "The model refused to answer.", "Decide whether the task is proper; write the answer yourself, or reject.";
    RuleFailed = "rule-failed", "The answer breaks a rule of its kind.", "The finding holds the rule's message. Edit or reject.";
    AllReviewed = "all-reviewed", "This kind sends every answer to a person for now (`review.start = \"all\"`).", "Approve, edit or reject; set `review.start` once you trust it.";
    Sampled = "sampled", "Drawn by chance, so that the confidence can be checked against a person.", "Approve, edit or reject as you would any other.";
}

impl Reason {
    /// Accepts the code with or without `TG-`, in any case.
    pub fn parse(text: &str) -> Option<Reason> {
        let text = text.trim().to_ascii_lowercase();
        let code = text.strip_prefix("tg-").unwrap_or(&text);
        Reason::ALL.iter().copied().find(|r| r.code() == code)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TG-{}", self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Reason::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown reason `{text}`")))
    }
}
