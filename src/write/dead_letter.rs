//! Dead letters: the original key and value byte for byte, and in headers all that a person and a
//! redrive need.

use super::json;
use super::record::{
    BURIED_AT, Burial, DETAIL, FIRST_ERROR, IS_OUTCOME, LAST_ERROR, ORIGINAL_BYTES, REASON, SOURCE, TRAIL,
    TRIES,
};
use crate::engine::Output;
use crate::outcome::Reason;
use crate::task::{Headers, Record, Timestamp, Topic};
use crate::token;
use crate::trail::Trail;
use bytes::Bytes;

/// Text in a header is cut here.
const TEXT_MAX: usize = 2_000;
/// What a dead letter that had to be made smaller keeps of the value.
const KEPT_BYTES: usize = 64 * 1024;

pub fn bury(topic: &Topic, record: &Record, burial: &Burial) -> Output {
    let mut headers =
        Headers(record.headers.0.iter().filter(|(n, _)| !n.starts_with(token::PREFIX)).cloned().collect());
    if let Some(token) = &burial.token {
        token::write_identity(token, &mut headers);
    }
    headers.push(REASON, burial.reason.to_string());
    headers.push(DETAIL, cut(&burial.detail));
    headers.push(SOURCE, burial.source.clone());
    headers.push(BURIED_AT, burial.at.0.to_string());
    headers.push(IS_OUTCOME, if burial.outcome { "yes" } else { "no" });
    headers.push(TRIES, burial.tries.to_string());
    for (name, text) in [(FIRST_ERROR, &burial.first_error), (LAST_ERROR, &burial.last_error)] {
        if let Some(text) = text {
            headers.push(name, cut(text));
        }
    }
    headers.push(TRAIL, json(&burial.trail));
    Output {
        topic: topic.clone(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
        not_before: None,
    }
}

/// A smaller dead letter for an outcome its topic did not take: what fits of the value, and where the rest lies.
pub fn shrink(topic: &Topic, record: &Record, burial: &Burial) -> Output {
    let mut small = bury(topic, record, &Burial { reason: Reason::OutcomeTooLarge, ..burial.clone() });
    small.value = record.value.as_ref().map(|value| value.slice(..value.len().min(KEPT_BYTES)));
    small.key = record.key.as_ref().map(|k| k.slice(..k.len().min(1024)));
    // Somebody else's headers may be what was too large, and ours say what it was.
    let all = small.headers.0.len();
    let mut theirs = 0;
    small.headers.0.retain(|(name, v)| {
        let fits = name.len() <= 256 && v.len() <= 256 && theirs < 64;
        let is_ours = name.starts_with(token::PREFIX);
        theirs += usize::from(fits && !is_ours);
        is_ours || fits
    });
    // What is whole can be sent again.
    if small.value != record.value || small.key != record.key || small.headers.0.len() < all {
        small.headers.push(ORIGINAL_BYTES, record.value.as_ref().map_or(0, Bytes::len).to_string());
    }
    small
}

/// A dead letter, read back.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub record: Record,
    pub reason: Option<Reason>,
    pub detail: String,
    pub source: String,
    pub at: Timestamp,
    pub outcome: bool,
    pub tries: u32,
    pub trail: Trail,
    /// The token it was buried with; `None` where its key was not known.
    pub token: Option<crate::task::Token>,
}

impl DeadLetter {
    pub fn read(record: Record) -> Self {
        let h = &record.headers;
        let text = |name| h.text(name).unwrap_or_default().to_owned();
        let value = record.value.clone().unwrap_or_default();
        DeadLetter {
            reason: h.text(REASON).and_then(Reason::parse),
            detail: text(DETAIL),
            source: text(SOURCE),
            at: Timestamp(h.text(BURIED_AT).and_then(|t| t.parse().ok()).unwrap_or(record.stamp.0)),
            outcome: h.text(IS_OUTCOME) == Some("yes"),
            tries: h.text(TRIES).and_then(|t| t.parse().ok()).unwrap_or(0),
            trail: h.get(TRAIL).and_then(|t| serde_json::from_slice(t).ok()).unwrap_or_default(),
            token: token::decode(&record, value).ok().map(|(token, _)| token),
            record,
        }
    }
}

fn cut(text: &str) -> Bytes {
    let end = (0..=text.len().min(TEXT_MAX)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    Bytes::from(text.as_bytes()[..end].to_vec())
}
