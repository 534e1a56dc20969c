//! The vocabulary of work: records and where they lie, keys, fingerprints, tokens.
//!
//! Plain data with one way to be written down. Nothing here decides anything, reads a clock
//! (but for [`Timestamp::now`], the one place that does) or touches a disk.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

thread_local! {
    static CLOCK: Cell<Option<fn() -> Timestamp>> = const { Cell::new(None) };
}

impl Timestamp {
    /// Reads the wall clock. Policy never calls this: it takes `now`.
    pub fn now() -> Self {
        match CLOCK.get() {
            Some(clock) => clock(),
            None => Timestamp(jiff::Timestamp::now().as_millisecond()),
        }
    }

    /// From now on this thread's clock is another one, for good. For simulations alone, which move time by
    /// themselves on a thread of their own.
    pub fn simulate(clock: fn() -> Timestamp) {
        CLOCK.set(Some(clock));
    }

    #[must_use]
    pub fn plus(self, by: std::time::Duration) -> Self {
        Timestamp(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long from `self` to `later`; zero if `later` is earlier.
    pub fn until(self, later: Timestamp) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// RFC 3339, as published records and people see it.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(|_| self.0.to_string(), |t| t.to_string())
    }
}

/// The name of a topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Topic(Arc<str>);

impl Topic {
    pub fn new(name: impl AsRef<str>) -> Self {
        Topic(Arc::from(name.as_ref()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Partition {
    pub topic: Topic,
    pub index: u32,
}

/// Where a record lies in the log. Written `topic/partition/offset`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Position {
    pub at: Partition,
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.at.topic, self.at.index, self.offset)
    }
}

impl std::str::FromStr for Position {
    type Err = Malformed;

    fn from_str(s: &str) -> Result<Self, Malformed> {
        let mut parts = s.rsplitn(3, '/');
        let mut number = || parts.next().and_then(|p| p.parse::<u64>().ok());
        let (offset, index) = (number(), number());
        match (parts.next(), index.and_then(|i| u32::try_from(i).ok()), offset) {
            (Some(topic), Some(index), Some(offset)) if !topic.is_empty() => {
                Ok(Position { at: Partition { topic: Topic::new(topic), index }, offset })
            }
            _ => Err(Malformed("position, written topic/partition/offset")),
        }
    }
}

/// A text that is not what it should be; the field says what that is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
pub struct Malformed(pub &'static str);

/// The record of hop 0 of the one chain that may publish for a key and generation.
/// The record's own timestamp tells a recreated topic's offset 7 from the old one's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Origin {
    pub position: Position,
    pub stamp: Timestamp,
}

/// Headers in their order. Names are UTF-8; values are bytes and need not be.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Headers(pub Vec<(String, Bytes)>);

impl Headers {
    /// The last header of that name wins, as Kafka consumers expect.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_ref())
    }

    /// The header as text; `None` also where its bytes are not UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    pub fn push(&mut self, name: impl Into<String>, value: impl Into<Bytes>) {
        self.0.push((name.into(), value.into()));
    }

    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.push(name, value);
        self
    }
}

/// What the log stores.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    pub position: Position,
    /// When it was appended, or what its producer said.
    pub stamp: Timestamp,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// Not to be delivered before this time. No upper bound.
    pub not_before: Option<Timestamp>,
}

/// Tenant + kind + key: two tenants that use key `1` have two tasks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ScopedKey {
    /// Empty: the installation has no tenants, or the record names none.
    pub tenant: Arc<str>,
    pub kind: Arc<str>,
    pub key: Arc<str>,
}

impl ScopedKey {
    pub fn new(tenant: &str, kind: &str, key: &str) -> Self {
        ScopedKey { tenant: tenant.into(), kind: kind.into(), key: key.into() }
    }

    /// Unambiguous bytes, for stores and hashes: each part behind its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.tenant.len() + self.kind.len() + self.key.len() + 6);
        for part in [&self.tenant, &self.kind, &self.key] {
            // Keys are limited to 1 KiB at intake, so two bytes are enough; longer ones cannot get here.
            out.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }

    /// Reads what `to_bytes` wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut part = || {
            let (len, tail) = rest.split_first_chunk::<2>()?;
            let (text, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
            rest = tail;
            std::str::from_utf8(text).ok()
        };
        let (tenant, kind, key) = (part()?, part()?, part()?);
        Some(ScopedKey::new(tenant, kind, key))
    }
}

impl fmt::Display for ScopedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.tenant.is_empty() {
            write!(f, "{}:", self.tenant)?;
        }
        write!(f, "{}/{}", self.kind, self.key)
    }
}

/// What a fingerprint is taken of. Data, so that every program can apply another one's rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PrintRule {
    /// The bytes as they are: payloads that are not JSON.
    Bytes,
    /// The RFC 8785 form of the whole payload.
    Whole,
    /// The RFC 8785 form of these fields (dotted paths), in this order.
    Fields(Arc<[String]>),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Fingerprint {
    pub rule: PrintRule,
    /// BLAKE3 of what the rule names.
    pub digest: [u8; 32],
}

/// What carries a task through the log. `consume` makes it; only internal topics are believed
/// about anything but key and payload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    pub key: ScopedKey,
    pub generation: u32,
    pub origin: Origin,
    pub hop: u32,
    pub print: Fingerprint,
    /// Position of the outcome of the generation before; every token of a generation above 0 has it.
    pub proof: Option<Position>,
    /// The task's payload: a digest under another rule is made from it.
    pub payload: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_comes_back_from_its_bytes() {
        for key in [ScopedKey::new("", "ticket", "1"), ScopedKey::new("acme", "k", "a/b:ü")] {
            assert_eq!(ScopedKey::from_bytes(&key.to_bytes()), Some(key));
        }
        assert_eq!(ScopedKey::from_bytes(&[0, 9, 1]), None);
    }
}
