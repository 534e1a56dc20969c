//! Decides whether an outside call or effect may be made now, by whom, and whether it was made before.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use bytes::Bytes;
use crate::task::Timestamp;
use super::entry::{Entry, Instance, Nonce, Fence};

/// A slot's name: step, item, round and turn; for a call also a digest of what the step means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotName(pub Arc<str>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum SlotKind {
    /// May be made again, counted.
    Call,
    /// Changes the world: at most once.
    Effect,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot {
    pub name: SlotName,
    pub kind: SlotKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Started {
    /// Make it, before the deadline. `repeat`: an earlier grant may have been used (counted).
    Go { repeat: bool, deaths: u32 },
    Done(Bytes),
    Barred,
    /// Another delivery has it; start again after this long at most.
    Busy(Duration),
    /// An effect that may or may not have happened: look first.
    Unknown,
    /// Ask for admission again.
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bar {
    Barred,
    /// Started or stored: settle it first.
    Busy,
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Stands,
    /// Ask for admission again.
    Stale,
}

/// What the asking process may judge about others.
pub trait Observer {
    /// Has reached the ledger without a break for one lease.
    fn settled(&self) -> bool;
    /// The instance's heartbeat has run out, or it cannot be alive.
    fn lapsed(&self, instance: Instance) -> bool;
}
