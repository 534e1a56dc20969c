//! What the ledger knows of a key. Plain data; the rules that change it are beside this file.

use super::slots::SlotName;
use crate::outcome::OutcomeKind;
use crate::task::{Fingerprint, Origin, Position, ScopedKey, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names one delivery in every slot it starts. Random, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Nonce(pub u128);

/// New at each admission; whoever holds an older one is stale. Random, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Fence(pub u128);

/// One start of one process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Instance(pub u128);

/// The phases of a task that has no outcome yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OpenPhase {
    /// Being worked on, or parked.
    Open,
    /// For a person.
    Waiting,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    Open,
    Waiting,
    Closed { outcome: OutcomeKind, at: Position },
}

/// The ledger's entry for one scope. Expires only once closed, a dedupe window after `changed`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub generation: u32,
    pub origin: Origin,
    pub hop: u32,
    /// As first admitted.
    pub print: Fingerprint,
    pub fence: Fence,
    /// Position of the decision that decides the item at this hop.
    pub decider: Option<Position>,
    pub phase: Phase,
    /// Empty once closed.
    pub slots: BTreeMap<SlotName, SlotEntry>,
    /// First admission of this generation, by the ledger's clock.
    pub since: Timestamp,
    pub changed: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SlotEntry {
    pub state: SlotState,
    /// How often it was granted again although an earlier grant may have been used.
    pub times: u32,
    /// How often its owner had died; never counts an `until` that passed.
    pub deaths: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum SlotState {
    /// Was started once and given back unsent.
    Free,
    Started {
        instance: Instance,
        nonce: Nonce,
        until: Timestamp,
        /// Its owner was told `Unknown`: it looks, it does not run.
        doubt: bool,
    },
    Stored { value: Bytes },
    /// The task ends, or asks a person, without it; nobody may start it at this hop.
    Barred,
}

/// A claim as look-ups and `status` show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimView {
    pub key: ScopedKey,
    pub generation: u32,
    pub origin: Origin,
    pub hop: u32,
    pub print: Fingerprint,
    pub decider: Option<Position>,
    pub phase: Phase,
    pub slots: Vec<SlotView>,
    pub since: Timestamp,
    pub changed: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SlotView {
    pub name: String,
    /// `free`, `started`, `stored` or `barred`.
    pub state: &'static str,
    pub times: u32,
    pub deaths: u32,
}
