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

#[cfg(test)]
mod tests {
    use super::super::entry::{Instance, Nonce, SlotState};
    use super::super::examples::{PAYLOAD, place, token};
    use super::*;
    use crate::outcome::OutcomeKind;
    use crate::task::{PrintRule, Timestamp};

    fn entry(rule: PrintRule, phase: Phase) -> Entry {
        let t = token(7, PAYLOAD);
        Entry {
            generation: 2,
            origin: t.origin,
            hop: 300,
            print: Fingerprint { rule, digest: [9; 32] },
            fence: Fence(1 << 100),
            decider: Some(place(70)),
            phase,
            slots: BTreeMap::new(),
            since: Timestamp(-5),
            changed: Timestamp(1_795_500_000_000),
        }
    }

    fn entries() -> Vec<Entry> {
        let fields = PrintRule::Fields(["a.b".to_owned(), "c".to_owned()].into());
        let closed = Phase::Closed { outcome: OutcomeKind::DeadLetter, at: place(90) };
        vec![
            entry(PrintRule::Bytes, Phase::Open),
            Entry { decider: None, ..entry(PrintRule::Whole, Phase::Waiting) },
            entry(fields, closed),
        ]
    }

    fn slots() -> Vec<SlotEntry> {
        let with = |state| SlotEntry { state, times: 3, deaths: 200 };
        let started = |doubt| SlotState::Started {
            instance: Instance(u128::MAX),
            nonce: Nonce(2),
            until: Timestamp(1_795_500_000_000),
            doubt,
        };
        vec![
            with(SlotState::Free),
            with(started(false)),
            with(started(true)),
            with(SlotState::Stored { value: "an answer".into() }),
            with(SlotState::Barred),
        ]
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    /// What version 1 wrote. These lines never change: add new ones for a new version.
    const HEADS_1: [&str; 3] = [
        "01020c7461736b732e7469636b657400070aac02000909090909090909090909090909090909090909090909090909090909090909808080808080808080808080808004010c7461736b732e7469636b657400460009808c9ec2c168",
        "01020c7461736b732e7469636b657400070aac02010909090909090909090909090909090909090909090909090909090909090909808080808080808080808080808004000109808c9ec2c168",
        "01020c7461736b732e7469636b657400070aac02020203612e6201630909090909090909090909090909090909090909090909090909090909090909808080808080808080808080808004010c7461736b732e7469636b6574004602010c7461736b732e7469636b6574005a09808c9ec2c168",
    ];
    const SLOTS_1: [&str; 5] = [
        "010003c801",
        "0101ffffffffffffffffffffffffffffffffffff0302808c9ec2c1680003c801",
        "0101ffffffffffffffffffffffffffffffffffff0302808c9ec2c1680103c801",
        "010209616e20616e7377657203c801",
        "010303c801",
    ];

    #[test]
    fn what_version_1_wrote_is_read_for_ever() {
        for (entry, stored) in entries().iter().zip(HEADS_1) {
            assert_eq!(Entry::decode_head(&bytes(stored)).as_ref(), Ok(entry));
        }
        for (slot, stored) in slots().iter().zip(SLOTS_1) {
            assert_eq!(SlotEntry::decode_slot(&bytes(stored)).as_ref(), Ok(slot));
        }
    }

    #[test]
    fn version_1_is_what_is_written() {
        assert_eq!(entries().iter().map(|e| hex(&e.encode_head())).collect::<Vec<_>>(), HEADS_1);
        assert_eq!(slots().iter().map(|s| hex(&s.encode_slot())).collect::<Vec<_>>(), SLOTS_1);
    }

    #[test]
    fn a_later_version_is_refused_by_name_and_damage_is_told() {
        let mut head = entries()[0].encode_head();
        head[0] = 2;
        let refused = Entry::decode_head(&head).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "stored claim has format version 2, this program reads up to 1: run a newer tidegate"
        );
        let slot = slots()[3].encode_slot();
        for damaged in [&slot[..4], &[], &[0, 1], &[slot.as_slice(), &[0]].concat()] {
            let found = SlotEntry::decode_slot(damaged);
            assert!(matches!(found, Err(StoredError::Damaged { what: "slot", .. })), "{found:?}");
        }
    }
}
