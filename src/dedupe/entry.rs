//! What the ledger knows of a key. Plain data; the rules that change it are beside this file.

use super::slots::SlotName;
use crate::outcome::OutcomeKind;
use crate::task::{Fingerprint, Origin, Position, ScopedKey, Timestamp, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Names one delivery in every slot it starts. Random, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Nonce(pub u128);

impl Nonce {
    /// Names no delivery. Random nonces never are 0.
    pub const NOBODY: Nonce = Nonce(0);
}

/// New at each admission; whoever holds an older one is stale. Random, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Fence(pub u128);

/// One start of one process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Instance(pub u128);

impl Instance {
    /// Never lives: owns what its owner gave up in doubt. Random instances never are 0.
    pub const NOBODY: Instance = Instance(0);
}

/// The phases of a task that has no outcome yet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OpenPhase {
    /// Being worked on, or parked.
    Open,
    /// For a person.
    Waiting,
}

/// Where a claim stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    Open,
    Waiting,
    Closed { outcome: OutcomeKind, at: Position },
}

/// The ledger's entry for one scope. Expires only once closed, a dedupe window after `changed`.
/// Stored as a head and one value per slot, see `stored.rs`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
    /// Last change of anything but the slots, by the ledger's clock.
    pub changed: Timestamp,
}

impl Entry {
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// The entry of this token's own chain.
    pub(super) fn same_chain(&self, token: &Token) -> bool {
        self.generation == token.generation && self.origin == token.origin
    }

    /// A new hop is a new question: nobody decides it yet, and what was barred is free again.
    pub(super) fn rise(&mut self, hop: u32) {
        self.hop = hop;
        self.decider = None;
        for slot in self.slots.values_mut().filter(|s| s.state == SlotState::Barred) {
            slot.state = SlotState::Free;
        }
        self.forget_blank();
    }

    /// A free slot that counts nothing says no more than no slot.
    pub(super) fn forget_blank(&mut self) {
        self.slots.retain(|_, s| *s != SlotEntry::default());
    }

    pub fn view(&self, key: ScopedKey) -> ClaimView {
        ClaimView {
            key,
            generation: self.generation,
            origin: self.origin.clone(),
            hop: self.hop,
            print: self.print.clone(),
            decider: self.decider.clone(),
            phase: self.phase.clone(),
            slots: self.slots.iter().map(|(name, slot)| slot.view(name)).collect(),
            since: self.since,
            changed: self.changed,
        }
    }
}

/// Whether what was closed or refused at `changed` is past its dedupe window.
pub fn window_over(changed: Timestamp, window: Duration, now: Timestamp) -> bool {
    changed.plus(window) <= now
}

/// Drops an entry whose window is over. Every script begins with this.
pub fn expire(entry: &mut Option<Entry>, window: Duration, now: Timestamp) {
    if entry.as_ref().is_some_and(|e| e.is_closed() && window_over(e.changed, window, now)) {
        *entry = None;
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SlotEntry {
    pub state: SlotState,
    /// How often it was granted again although an earlier grant may have been used.
    pub times: u32,
    /// How often its owner had died; never counts an `until` that passed.
    pub deaths: u32,
}

impl SlotEntry {
    fn view(&self, name: &SlotName) -> SlotView {
        let state = match self.state {
            SlotState::Free => "free",
            SlotState::Started { .. } => "started",
            SlotState::Stored { .. } => "stored",
            SlotState::Barred => "barred",
        };
        SlotView { name: name.0.to_string(), state: state.into(), times: self.times, deaths: self.deaths }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum SlotState {
    /// Was started once and given back unsent.
    #[default]
    Free,
    Started {
        instance: Instance,
        nonce: Nonce,
        until: Timestamp,
        /// Its owner was told `Unknown`: it looks, it does not run.
        doubt: bool,
    },
    Stored {
        value: Bytes,
    },
    /// The task ends, or asks a person, without it; nobody may start it at this hop.
    Barred,
}

/// A claim as look-ups and `status` show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotView {
    pub name: String,
    /// `free`, `started`, `stored` or `barred`.
    pub state: Cow<'static, str>,
    pub times: u32,
    pub deaths: u32,
}
