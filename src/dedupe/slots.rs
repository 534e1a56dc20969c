//! Decides whether an outside call or effect may be made now, by whom, and whether it was made before.
//!
//! `start`, `bar` and `store` look at no slot but the one they name, so a store may load just that
//! one beside the head; `release` looks at all. A `Stale` answer never ends a task: who hears it
//! asks for admission again.

use super::entry::{Entry, Fence, Instance, Nonce, SlotEntry, SlotState};
use crate::task::{Timestamp, Token};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Who is told `Busy` asks again after this long at most: the owner may die or give up long before
/// its `until`, and a waiting task should not sleep through that.
const BUSY_MAX: Duration = Duration::from_secs(1);

/// And not before this long: an `until` that has passed may not be judged by everybody.
const BUSY_MIN: Duration = Duration::from_millis(20);

/// A delivery that was admitted, as the scripts know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder {
    pub fence: Fence,
    /// Names the delivery, not the process.
    pub nonce: Nonce,
    pub instance: Instance,
}

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

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Slot {
    pub name: SlotName,
    pub kind: SlotKind,
}

/// The answer that a slot holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub value: Bytes,
    /// How often the call was granted again, with or without a part in this answer: whoever publishes it says so.
    pub times: u32,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Started {
    /// Make it, before the deadline. `repeat`: an earlier grant may have been used; `times`: how often
    /// that was so, this time included.
    Go {
        repeat: bool,
        times: u32,
        deaths: u32,
    },
    Done(Kept),
    Barred,
    /// Another delivery has it; start again after this long at most.
    Busy(Duration),
    /// An effect that may or may not have happened: look first.
    Unknown,
    /// Ask for admission again.
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Bar {
    Barred,
    /// Started or stored: settle it first.
    Busy,
    Stale,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

/// Asks to make a call or run an effect. `until`: deadline of the request + one lease; who has not
/// sent it by the deadline does not send it, and starts again.
#[must_use]
pub fn start(
    entry: &mut Option<Entry>,
    by: &Holder,
    slot: &Slot,
    until: Timestamp,
    now: Timestamp,
    observer: &dyn Observer,
) -> Started {
    let Some(e) = held(entry, by.fence) else { return Started::Stale };
    let mine = |doubt| SlotState::Started { instance: by.instance, nonce: by.nonce, until, doubt };
    let Some(found) = e.slots.get_mut(&slot.name) else {
        e.slots.insert(slot.name.clone(), SlotEntry { state: mine(false), times: 0, deaths: 0 });
        return Started::Go { repeat: false, times: 0, deaths: 0 };
    };
    match &found.state {
        SlotState::Stored { value } => Started::Done(Kept { value: value.clone(), times: found.times }),
        SlotState::Barred => Started::Barred,
        SlotState::Free => {
            found.state = mine(false);
            Started::Go { repeat: false, times: found.times, deaths: found.deaths }
        }
        // A lost reply. What was in doubt stays so.
        SlotState::Started { nonce, doubt, .. } if *nonce == by.nonce => {
            let doubt = *doubt;
            found.state = mine(doubt);
            if doubt {
                Started::Unknown
            } else {
                Started::Go { repeat: false, times: found.times, deaths: found.deaths }
            }
        }
        SlotState::Started { instance, until: theirs, .. } => {
            let (instance, theirs) = (*instance, *theirs);
            let lapsed =
                instance != by.instance && (instance == Instance::NOBODY || observer.lapsed(instance));
            if !observer.settled() || !(lapsed || theirs <= now) {
                return Started::Busy(now.until(theirs).clamp(BUSY_MIN, BUSY_MAX));
            }
            take_over(
                found,
                slot.kind,
                mine(slot.kind == SlotKind::Effect),
                lapsed && instance != Instance::NOBODY,
            )
        }
    }
}

/// The slot's owner will not answer for it any more.
fn take_over(found: &mut SlotEntry, kind: SlotKind, mine: SlotState, died: bool) -> Started {
    found.state = mine;
    found.deaths += u32::from(died);
    match kind {
        SlotKind::Call => {
            found.times += 1;
            Started::Go { repeat: true, times: found.times, deaths: found.deaths }
        }
        SlotKind::Effect => Started::Unknown,
    }
}

/// Asks to end, to be refused or to ask a person without this effect. `Barred`: from now on nobody
/// starts it at this hop.
#[must_use]
pub fn bar(entry: &mut Option<Entry>, by: &Holder, slot: &Slot) -> Bar {
    let Some(e) = held(entry, by.fence) else { return Bar::Stale };
    let found = e.slots.entry(slot.name.clone()).or_default();
    match &found.state {
        SlotState::Started { nonce, doubt: true, .. } if *nonce == by.nonce => {}
        SlotState::Free | SlotState::Barred => {}
        SlotState::Started { .. } | SlotState::Stored { .. } => return Bar::Busy,
    }
    found.state = SlotState::Barred;
    Bar::Barred
}

/// Stores an answer: the first writer wins, whatever its fence and whether or not its task was
/// handed in. Answers the winner, and whether the writer's token stands.
#[must_use]
pub fn store(entry: &mut Option<Entry>, token: &Token, slot: &Slot, value: Bytes) -> (Kept, Standing) {
    let Some(e) = entry.as_mut().filter(|e| !e.is_closed() && e.same_chain(token)) else {
        return (Kept { value, times: 0 }, Standing::Stale);
    };
    let standing = if e.hop <= token.hop { Standing::Stands } else { Standing::Stale };
    let found = e.slots.entry(slot.name.clone()).or_default();
    let times = found.times;
    if let SlotState::Stored { value: first } = &found.state {
        return (Kept { value: first.clone(), times }, standing);
    }
    found.state = SlotState::Stored { value: value.clone() };
    (Kept { value, times }, standing)
}

/// On every orderly exit: gives back what this nonce started and does not wait for, whatever the fence. `unheard`: requests
/// that were sent and whose end nobody has heard; they count as if they had been granted again. A slot in doubt is
/// left as if its owner had died, for the next one to look.
pub fn release(entry: &mut Option<Entry>, nonce: Nonce, unheard: u32) {
    let Some(e) = entry else { return };
    for slot in e.slots.values_mut() {
        match &mut slot.state {
            SlotState::Started { nonce: n, instance, doubt: true, .. } if *n == nonce => {
                (*instance, *n) = (Instance::NOBODY, Nonce::NOBODY);
            }
            SlotState::Started { nonce: n, .. } if *n == nonce => {
                slot.state = SlotState::Free;
                slot.times = slot.times.saturating_add(unheard);
            }
            _ => {}
        }
    }
    e.forget_blank();
}

/// The entry, if it is open and the fence is its own.
fn held(entry: &mut Option<Entry>, fence: Fence) -> Option<&mut Entry> {
    entry.as_mut().filter(|e| !e.is_closed() && e.fence == fence)
}

#[cfg(test)]
mod tests;
