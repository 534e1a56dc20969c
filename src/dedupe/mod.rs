//! Decides which record may publish for a key, and what of a task has been asked of the world.
//!
//! The rules are pure functions over one [`Entry`]: the embedded engine and the simulated store run
//! them, the Redis scripts are tested against them. Nothing here reads a clock, waits, or does I/O;
//! random numbers (fences) are arguments.

mod admission;
mod entry;
#[cfg(test)]
mod examples;
mod marks;
mod slots;
mod stored;

pub use admission::{Admission, Ask, Claim, Silence, Slots, admit, refuse};
pub use entry::{
    ClaimView, Entry, Fence, Instance, Nonce, OpenPhase, Phase, SlotEntry, SlotState, SlotView, expire,
    window_over,
};
pub use marks::{close, moved};
pub use slots::{
    Bar, Holder, Kept, Observer, Slot, SlotKind, SlotName, Standing, Started, bar, release, start, store,
};
pub use stored::StoredError;
