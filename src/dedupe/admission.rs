//! Decides who may work for a key.

use super::entry::{Entry, Fence, Nonce};
use super::slots::SlotName;
use crate::engine::Lease;
use crate::outcome::OutcomeKind;
use crate::task::{Position, Token};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What an admitted delivery holds.
#[derive(Clone, Debug)]
pub struct Claim {
    pub lease: Lease,
    pub nonce: Nonce,
    pub token: Token,
    pub fence: Fence,
}

/// The stored answers a resumed task finds.
pub type Slots = BTreeMap<SlotName, Bytes>;

/// Why a record completes without a trace but a count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Silence {
    /// Its own chain has its outcome.
    Done { outcome: OutcomeKind, at: Position },
    /// Its own chain is past this hop.
    Moved,
    /// Another record of the same payload owns the key.
    Duplicate,
    /// A later generation is under way.
    Older,
}

#[derive(Clone, Debug)]
pub enum Admission {
    Fresh(Claim),
    Resumed(Claim, Slots),
    Silent(Silence),
    /// The key belongs to another payload: dead letter under its own coordinates.
    Conflict,
    /// Refused before: dead letter under its own coordinates.
    Refused,
    /// Another decision decides the item.
    Told(Position),
    /// A generation above 0 without proof: malformed, dead letter `token-invalid`.
    Invalid,
}
