//! How claims are written down in the store: the names of keys, and the fields of an entry.
//!
//! An entry is one hash. Its head, each a text:
//!
//! ```text
//!  v  version, 1                     d   digest, hex                k   kind of outcome, once closed
//!  g  generation                     f   fence, hex                 at  position of the outcome
//!  o  origin: topic/partition/offset@stamp
//!  h  hop                            by  decider's position, if any s   since, ms
//!  r  rule: bytes, whole, or a list  p   open, waiting, closed      c   changed, ms
//! ```
//!
//! and a field for each slot, `#` and its name: version, state, times, deaths; then `instance nonce until
//! doubt` where it is started, or the answer where it is stored. The scripts write all this; here it is read,
//! and what goes into their arguments is written. What an earlier version wrote stays readable.

use crate::dedupe::{Entry, Fence, Instance, Nonce, Phase, SlotEntry, SlotName, SlotState};
use crate::outcome::OutcomeKind;
use crate::task::{Fingerprint, Origin, Position, PrintRule, ScopedKey, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Of heads and of slots, as in `entry.lua`.
const VERSION: &str = "1";

/// A prefix that is no plain word.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the prefix of ledger keys must be 1 to 64 letters, digits, `.`, `_` or `-`, not `{0}`")]
pub struct BadPrefix(String);

/// The names of keys. No text in a scope can act as a pattern, or make two scopes one: all but letters,
/// digits, `.`, `_`, `-` and `~` is written `%XX`.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Result<Self, BadPrefix> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(plain) {
            return Err(BadPrefix(prefix.to_owned()));
        }
        Ok(Keys { prefix: prefix.to_owned() })
    }

    /// What the key of every claim begins with; the scope's text follows.
    pub fn claims(&self) -> String {
        format!("{}:claim:", self.prefix)
    }

    pub fn claim(&self, scope: &str) -> String {
        format!("{}:claim:{scope}", self.prefix)
    }

    /// The mark of an origin that was refused under this scope.
    pub fn refused(&self, scope: &str, origin: &Origin) -> String {
        let Position { at, offset } = &origin.position;
        let (topic, index, stamp) = (escaped(at.topic.as_str()), at.index, origin.stamp.0);
        format!("{}:refused:{scope}/{topic}/{index}/{offset}/{stamp}", self.prefix)
    }

    /// The scopes of all open claims, in order.
    pub fn open(&self) -> String {
        format!("{}:open", self.prefix)
    }

    /// Which log the claims belong to.
    pub fn bound(&self) -> String {
        format!("{}:log", self.prefix)
    }

    /// Which tie to that log it is.
    pub fn tie(&self) -> String {
        format!("{}:tie", self.prefix)
    }

    /// What the server had dropped when somebody last looked.
    pub fn dropped(&self) -> String {
        format!("{}:dropped", self.prefix)
    }

    /// What the key of every heartbeat begins with; the instance follows.
    pub fn beats(&self) -> String {
        format!("{}:beat:", self.prefix)
    }

    pub fn beat(&self, instance: Instance) -> String {
        format!("{}:beat:{}", self.prefix, hex(instance.0))
    }
}

pub fn scope(key: &ScopedKey) -> String {
    [&key.tenant, &key.kind, &key.key].map(|part| escaped(part)).join("/")
}

pub(super) fn read_scope(text: &str) -> Option<ScopedKey> {
    let mut parts = text.split('/').map(unescaped);
    match (parts.next()??, parts.next()??, parts.next()??, parts.next()) {
        (tenant, kind, key, None) => Some(ScopedKey::new(&tenant, &kind, &key)),
        _ => None,
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

/// Of a nonce, a fence or an instance; always 32 digits, so that equal numbers are equal texts.
pub(super) fn hex(number: u128) -> String {
    format!("{number:032x}")
}

pub(super) fn digest(bytes: &[u8; 32]) -> String {
    blake3::Hash::from(*bytes).to_hex().to_string()
}

pub(super) fn origin(origin: &Origin) -> String {
    format!("{}@{}", origin.position, origin.stamp.0)
}

pub(super) fn rule(rule: &PrintRule) -> String {
    match rule {
        PrintRule::Bytes => "bytes".to_owned(),
        PrintRule::Whole => "whole".to_owned(),
        // Texts into memory: this cannot fail.
        PrintRule::Fields(fields) => serde_json::to_string(fields).unwrap_or_default(),
    }
}

pub(super) fn read_rule(text: &str) -> Option<PrintRule> {
    match text {
        "bytes" => Some(PrintRule::Bytes),
        "whole" => Some(PrintRule::Whole),
        list => serde_json::from_str::<Vec<String>>(list).ok().map(|f| PrintRule::Fields(f.into())),
    }
}

pub(super) fn outcome(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Result => "result",
        OutcomeKind::DeadLetter => "dead-letter",
    }
}

pub(super) fn read_outcome(text: &str) -> Option<OutcomeKind> {
    [OutcomeKind::Result, OutcomeKind::DeadLetter].into_iter().find(|k| outcome(*k) == text)
}

/// An entry that this program cannot read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "the stored {what} has format version {found}, this program reads up to {VERSION}: run a newer tidegate"
    )]
    Newer { what: String, found: String },
    #[error("the stored {0} is damaged")]
    Damaged(&'static str),
}

/// The fields of a hash, as the store gives them: names and values in turn.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads an entry; `None` where there is none.
pub fn read(fields: Fields) -> Result<Option<Entry>, Unreadable> {
    let mut head = BTreeMap::new();
    let mut slots = BTreeMap::new();
    for (name, value) in fields {
        let name = String::from_utf8(name).map_err(|_| Unreadable::Damaged("claim"))?;
        match name.strip_prefix('#') {
            Some(slot) => {
                slots.insert(SlotName(slot.into()), read_slot(value)?);
            }
            None => {
                let value = String::from_utf8(value).map_err(|_| Unreadable::Damaged("claim"))?;
                head.insert(name, value);
            }
        }
    }
    match head.get("v").map(String::as_str) {
        None if head.is_empty() && slots.is_empty() => Ok(None),
        Some(VERSION) => {
            let entry = read_head(&head).ok_or(Unreadable::Damaged("claim"))?;
            Ok(Some(Entry { slots, ..entry }))
        }
        Some(found) => Err(newer("claim", found)),
        None => Err(Unreadable::Damaged("claim")),
    }
}

/// A version that is no number is damage.
pub(super) fn newer(what: &str, found: &str) -> Unreadable {
    if found.parse::<u32>().is_ok() {
        Unreadable::Newer { what: what.to_owned(), found: found.to_owned() }
    } else {
        Unreadable::Damaged(if what == "slot" { "slot" } else { "claim" })
    }
}

fn read_head(head: &BTreeMap<String, String>) -> Option<Entry> {
    let field = |name: &str| head.get(name).map(String::as_str);
    let (position, stamp) = field("o")?.rsplit_once('@')?;
    let phase = match field("p")? {
        "open" => Phase::Open,
        "waiting" => Phase::Waiting,
        "closed" => Phase::Closed { outcome: read_outcome(field("k")?)?, at: field("at")?.parse().ok()? },
        _ => return None,
    };
    Some(Entry {
        generation: field("g")?.parse().ok()?,
        origin: Origin { position: position.parse().ok()?, stamp: Timestamp(stamp.parse().ok()?) },
        hop: field("h")?.parse().ok()?,
        print: Fingerprint {
            rule: read_rule(field("r")?)?,
            digest: *blake3::Hash::from_hex(field("d")?).ok()?.as_bytes(),
        },
        fence: Fence(read_hex(field("f")?)?),
        decider: match field("by") {
            Some(position) => Some(position.parse().ok()?),
            None => None,
        },
        phase,
        slots: BTreeMap::new(),
        since: Timestamp(field("s")?.parse().ok()?),
        changed: Timestamp(field("c")?.parse().ok()?),
    })
}

fn read_hex(text: &str) -> Option<u128> {
    u128::from_str_radix(text, 16).ok()
}

fn read_slot(written: Vec<u8>) -> Result<SlotEntry, Unreadable> {
    let version = written.split(|b| *b == b' ').next().unwrap_or_default();
    if version != VERSION.as_bytes() {
        return Err(newer("slot", &String::from_utf8_lossy(version)));
    }
    read_slot_1(Bytes::from(written)).ok_or(Unreadable::Damaged("slot"))
}

fn read_slot_1(written: Bytes) -> Option<SlotEntry> {
    let mut parts =
        written.splitn(5, |b| *b == b' ').map(|part| (part.len(), std::str::from_utf8(part).ok()));
    let mut text = || parts.next().and_then(|(_, text)| text);
    let (_, state, times, deaths) = (text()?, text()?, text()?.parse().ok()?, text()?.parse().ok()?);
    let rest = parts.next();
    let state = match (state, rest) {
        ("free", None) => SlotState::Free,
        ("barred", None) => SlotState::Barred,
        ("stored", Some((len, _))) => SlotState::Stored { value: written.slice(written.len() - len..) },
        ("started", Some((_, Some(rest)))) => {
            let mut parts = rest.split(' ');
            let (instance, nonce) = (read_hex(parts.next()?)?, read_hex(parts.next()?)?);
            let until = Timestamp(parts.next()?.parse().ok()?);
            let doubt = match (parts.next()?, parts.next()) {
                ("0", None) => false,
                ("1", None) => true,
                _ => return None,
            };
            SlotState::Started { instance: Instance(instance), nonce: Nonce(nonce), until, doubt }
        }
        _ => return None,
    };
    Some(SlotEntry { state, times, deaths })
}

#[cfg(test)]
mod tests;
