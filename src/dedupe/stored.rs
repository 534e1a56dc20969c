//! How entries lie in a store: a version byte, then postcard.
//!
//! Head and slots apart, each slot under its own key, so that a long journal is not written again
//! at each step. What an earlier version wrote stays readable; what a later one wrote is refused.

use super::entry::{Entry, Fence, Phase, SlotEntry};
use crate::task::{Fingerprint, Origin, Position, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of heads and of slots. Raise it with any change of what is stored, and keep reading the old one.
const VERSION: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoredError {
    #[error(
        "stored {what} has format version {found}, this program reads up to {VERSION}: run a newer tidegate"
    )]
    Newer { what: &'static str, found: u8 },
    #[error("stored {what} is damaged: {detail}")]
    Damaged { what: &'static str, detail: String },
}

/// Version 1 of a head, field by field in this order.
#[derive(Serialize, Deserialize)]
struct Head {
    generation: u32,
    origin: Origin,
    hop: u32,
    print: Fingerprint,
    fence: Fence,
    decider: Option<Position>,
    phase: Phase,
    since: Timestamp,
    changed: Timestamp,
}

impl Entry {
    /// Everything but the slots.
    pub fn encode_head(&self) -> Vec<u8> {
        let head = Head {
            generation: self.generation,
            origin: self.origin.clone(),
            hop: self.hop,
            print: self.print.clone(),
            fence: self.fence,
            decider: self.decider.clone(),
            phase: self.phase.clone(),
            since: self.since,
            changed: self.changed,
        };
        encode(&head)
    }

    /// An entry without its slots; the store adds those it has read.
    pub fn decode_head(bytes: &[u8]) -> Result<Entry, StoredError> {
        let head: Head = decode(bytes, "claim")?;
        Ok(Entry {
            generation: head.generation,
            origin: head.origin,
            hop: head.hop,
            print: head.print,
            fence: head.fence,
            decider: head.decider,
            phase: head.phase,
            slots: BTreeMap::new(),
            since: head.since,
            changed: head.changed,
        })
    }
}

impl SlotEntry {
    pub fn encode_slot(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode_slot(bytes: &[u8]) -> Result<SlotEntry, StoredError> {
        decode(bytes, "slot")
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // Writing plain data to a vector cannot fail: there is no I/O, and every length is known.
    postcard::to_extend(value, vec![VERSION]).expect("plain data into memory")
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StoredError> {
    let damaged = |detail: &dyn ToString| StoredError::Damaged { what, detail: detail.to_string() };
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(damaged(&"bytes behind its end")),
            Err(e) => Err(damaged(&e)),
        },
        Some((&found, _)) if found > VERSION => Err(StoredError::Newer { what, found }),
        Some(_) => Err(damaged(&"no such format version")),
        None => Err(damaged(&"empty")),
    }
}
