//! Tokens, entries and observers for the tests of this folder.

use super::admission::{Admission, Ask, admit};
use super::entry::{Entry, Fence, Instance, Nonce, SlotState};
use super::slots::{Holder, Observer, Slot, SlotKind, SlotName, Started, start};
use crate::engine::Lease;
use crate::fingerprint;
use crate::task::{Origin, Partition, Position, PrintRule, ScopedKey, Timestamp, Token, Topic};
use bytes::Bytes;
use std::sync::LazyLock;

pub(super) const NOW: Timestamp = Timestamp(1_000_000);
pub(super) const UNTIL: Timestamp = Timestamp(1_070_000);
pub(super) const ME: Instance = Instance(1);
pub(super) const OTHER: Instance = Instance(2);

/// Granted by [`admitted`].
pub(super) const MINE: Holder = Holder { fence: Fence(11), nonce: Nonce(1), instance: ME };
/// Another delivery in another process.
pub(super) const THEIRS: Holder = Holder { fence: Fence(11), nonce: Nonce(2), instance: OTHER };

pub(super) static LEASE: LazyLock<Lease> =
    LazyLock::new(|| Lease { at: Partition { topic: Topic::new("tasks.ticket"), index: 0 }, epoch: 7 });

pub(super) fn place(offset: u64) -> Position {
    Position { at: Partition { topic: Topic::new("tasks.ticket"), index: 0 }, offset }
}

/// Hop 0 of the record at `offset`, generation 0.
pub(super) fn token(offset: u64, payload: &'static str) -> Token {
    Token {
        key: ScopedKey::new("", "ticket", "k"),
        generation: 0,
        origin: Origin { position: place(offset), stamp: Timestamp(5) },
        hop: 0,
        print: fingerprint::fingerprint(&PrintRule::Whole, payload.as_bytes()).unwrap(),
        proof: None,
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

pub(super) const PAYLOAD: &str = r#"{"text":"hello"}"#;
pub(super) const STRANGER: &str = r#"{"text":"good-bye"}"#;

pub(super) fn ask(token: &Token) -> Ask<'_> {
    Ask { token, lease: &LEASE, nonce: MINE.nonce, fence: Fence(12), decider: None, now: NOW }
}

/// The record at offset 1, admitted with the fence of [`MINE`].
pub(super) fn admitted() -> (Token, Option<Entry>) {
    let token = token(1, PAYLOAD);
    let mut entry = None;
    let admission = admit(&mut entry, false, &Ask { fence: MINE.fence, ..ask(&token) });
    assert!(matches!(admission, Admission::Fresh(_)), "{admission:?}");
    (token, entry)
}

pub(super) fn call() -> Slot {
    Slot { name: SlotName("edit.r0#0123abcd".into()), kind: SlotKind::Call }
}

pub(super) fn effect() -> Slot {
    Slot { name: SlotName("apply".into()), kind: SlotKind::Effect }
}

pub(super) fn state(entry: &Option<Entry>, slot: &Slot) -> SlotState {
    entry.as_ref().unwrap().slots.get(&slot.name).map_or(SlotState::Free, |s| s.state.clone())
}

pub(super) fn counts(entry: &Option<Entry>, slot: &Slot) -> (u32, u32) {
    entry.as_ref().unwrap().slots.get(&slot.name).map_or((0, 0), |s| (s.times, s.deaths))
}

/// Settled or not, and who has lapsed.
pub(super) struct Sees {
    pub(super) settled: bool,
    pub(super) lapsed: &'static [Instance],
}

pub(super) const NOBODY_LAPSED: Sees = Sees { settled: true, lapsed: &[] };
pub(super) const OTHER_LAPSED: Sees = Sees { settled: true, lapsed: &[OTHER] };

impl Observer for Sees {
    fn settled(&self) -> bool {
        self.settled
    }

    fn lapsed(&self, instance: Instance) -> bool {
        self.lapsed.contains(&instance)
    }
}

pub(super) const GO: Started = Started::Go { repeat: false, times: 0, deaths: 0 };

/// `theirs` starts the slot.
pub(super) fn started_by(entry: &mut Option<Entry>, by: &Holder, slot: &Slot) {
    assert_eq!(start(entry, by, slot, UNTIL, NOW, &NOBODY_LAPSED), GO);
}
