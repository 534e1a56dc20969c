//! Between the compact ledger of a state and the product's own types.
//!
//! Everything the rules look at goes there and back; what they only carry (values, times of
//! admission, counts) is the same everywhere, so that states stay few.

use super::state::{self, NOBODY, Phase, Record, SlotState, UNKNOWN};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use tidegate::dedupe::{self, Fence, Instance, Nonce, OpenPhase, SlotEntry, SlotKind, SlotName};
use tidegate::engine::Lease;
use tidegate::outcome::OutcomeKind;
use tidegate::task::{
    Fingerprint, Origin, Partition, Position, PrintRule, ScopedKey, Timestamp, Token, Topic,
};

pub(crate) const NOW: Timestamp = Timestamp(1_000_000);
/// Of every slot that is started now.
pub(crate) const UNTIL: Timestamp = Timestamp(1_070_000);
const PASSED: Timestamp = Timestamp(999_999);
const SINCE: Timestamp = Timestamp(900_000);
/// An instance that lives no more.
pub(crate) const DEAD: Instance = Instance(999);

const ANSWER: Bytes = Bytes::from_static(b"an answer");
const PAYLOADS: [&[u8]; 2] = [br#"{"n":0}"#, br#"{"n":1}"#];

/// What is the same in every state, made once.
struct Fixed {
    key: ScopedKey,
    lease: Lease,
    origins: [Origin; 256],
    /// By version of the program and payload; the second version has another rule.
    prints: [[Fingerprint; 2]; 2],
    unknown: Fingerprint,
    call: dedupe::Slot,
    effect: dedupe::Slot,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let at = Partition { topic: Topic::new("tasks.k"), index: 0 };
    let rules = [PrintRule::Whole, PrintRule::Fields(["n".to_owned()].into())];
    let print =
        |rule, payload| tidegate::fingerprint::fingerprint(rule, payload).expect("the payloads are JSON");
    Fixed {
        key: ScopedKey::new("", "k", "1"),
        lease: Lease { at: at.clone(), epoch: 1 },
        origins: std::array::from_fn(|i| Origin {
            position: Position { at: at.clone(), offset: i as u64 },
            stamp: Timestamp(0),
        }),
        prints: std::array::from_fn(|v| std::array::from_fn(|p| print(&rules[v], PAYLOADS[p]))),
        unknown: Fingerprint { rule: PrintRule::Bytes, digest: [0; 32] },
        call: dedupe::Slot { name: SlotName("ask.r0#00000000".into()), kind: SlotKind::Call },
        effect: dedupe::Slot { name: SlotName("apply".into()), kind: SlotKind::Effect },
    }
});

pub(crate) fn lease() -> &'static Lease {
    &FIXED.lease
}

pub(crate) fn slot(effect: bool) -> &'static dedupe::Slot {
    if effect { &FIXED.effect } else { &FIXED.call }
}

pub(crate) fn answer() -> Bytes {
    ANSWER
}

pub(crate) fn position(record: u8) -> &'static Position {
    &FIXED.origins[record as usize].position
}

pub(crate) fn open_phase(phase: Phase) -> OpenPhase {
    if phase == Phase::Waiting { OpenPhase::Waiting } else { OpenPhase::Open }
}

/// The token as a process of that version makes it.
pub(crate) fn token(t: &Record, version: u8) -> Token {
    Token {
        key: FIXED.key.clone(),
        generation: t.generation.into(),
        origin: FIXED.origins[t.origin as usize].clone(),
        hop: t.hop.into(),
        print: FIXED.prints[version as usize][t.print as usize].clone(),
        proof: t.proof.then(|| position(0).clone()),
        payload: Bytes::from_static(PAYLOADS[t.print as usize]),
    }
}

pub(crate) fn instance(process: u8) -> Instance {
    Instance(u128::from(process) + 1)
}

pub(crate) fn process(instance: Instance) -> u8 {
    small(instance.0) - 1
}

pub(crate) fn there(e: &state::Entry) -> Option<dedupe::Entry> {
    let phase = match e.phase {
        Phase::Absent => return None,
        Phase::Open => dedupe::Phase::Open,
        Phase::Waiting => dedupe::Phase::Waiting,
        Phase::Closed => {
            dedupe::Phase::Closed { outcome: OutcomeKind::Result, at: position(e.origin).clone() }
        }
    };
    let mut slots = BTreeMap::new();
    for (effect, compact) in [(false, &e.call), (true, &e.effect)] {
        if *compact != state::Slot::default() {
            slots.insert(slot(effect).name.clone(), slot_there(compact));
        }
    }
    Some(dedupe::Entry {
        generation: e.generation.into(),
        origin: FIXED.origins[e.origin as usize].clone(),
        hop: e.hop.into(),
        print: print(e.print, e.version).clone(),
        fence: Fence(e.fence.into()),
        decider: e.decider.checked_sub(1).map(|d| position(d).clone()),
        phase,
        slots,
        since: SINCE,
        changed: SINCE,
    })
}

/// Who was admitted last is only for the checks: it stays with an open entry of the same chain.
pub(crate) fn back(entry: Option<&dedupe::Entry>, before: &state::Entry) -> state::Entry {
    let Some(e) = entry else { return state::Entry::default() };
    let (print, version) = print_back(&e.print);
    let mut after = state::Entry {
        phase: match e.phase {
            dedupe::Phase::Open => Phase::Open,
            dedupe::Phase::Waiting => Phase::Waiting,
            dedupe::Phase::Closed { .. } => Phase::Closed,
        },
        generation: small(e.generation.into()),
        origin: offset(&e.origin.position),
        hop: small(e.hop.into()),
        print,
        version,
        // Nobody can hold the fence of a closed entry.
        fence: if e.is_closed() { 0 } else { small(e.fence.0) },
        decider: e.decider.as_ref().map_or(0, |d| offset(d) + 1),
        call: slot_back(e, false),
        effect: slot_back(e, true),
        ..state::Entry::default()
    };
    if after.effect.state == SlotState::Barred {
        after.effect.barred_at = before.effect.barred_at;
    }
    let same_chain = (after.generation, after.origin) == (before.generation, before.origin);
    if before.phase != Phase::Absent && same_chain && !e.is_closed() {
        (after.holder, after.holder_process) = (before.holder, before.holder_process);
    }
    after
}

fn slot_there(slot: &state::Slot) -> SlotEntry {
    let owner = match (slot.dead, slot.process) {
        (true, NOBODY) => Instance::NOBODY,
        (true, _) => DEAD,
        (false, process) => instance(process),
    };
    let state = match slot.state {
        SlotState::Free => dedupe::SlotState::Free,
        SlotState::Stored => dedupe::SlotState::Stored { value: ANSWER },
        SlotState::Barred => dedupe::SlotState::Barred,
        SlotState::Started => dedupe::SlotState::Started {
            instance: owner,
            nonce: Nonce(slot.nonce.into()),
            until: if slot.until_passed { PASSED } else { UNTIL },
            doubt: slot.doubt,
        },
    };
    SlotEntry { state, times: slot.times.into(), deaths: 0 }
}

fn slot_back(e: &dedupe::Entry, effect: bool) -> state::Slot {
    let Some(found) = e.slots.get(&slot(effect).name) else { return state::Slot::default() };
    let with = |state| state::Slot { state, times: small(found.times.into()), ..state::Slot::default() };
    match &found.state {
        dedupe::SlotState::Free => with(SlotState::Free),
        dedupe::SlotState::Stored { .. } => with(SlotState::Stored),
        dedupe::SlotState::Barred => with(SlotState::Barred),
        dedupe::SlotState::Started { instance: DEAD, .. } => with(SlotState::Started).orphaned(),
        dedupe::SlotState::Started { instance: Instance::NOBODY, .. } => with(SlotState::Started).given_up(),
        dedupe::SlotState::Started { instance, nonce, until, doubt } => state::Slot {
            process: process(*instance),
            nonce: small(nonce.0),
            until_passed: *until <= NOW,
            doubt: *doubt,
            ..with(SlotState::Started)
        },
    }
}

/// Whether the script has counted a death; every entry goes there with none.
pub(crate) fn death_counted(entry: Option<&dedupe::Entry>) -> bool {
    entry.is_some_and(|e| e.slots.values().any(|s| s.deaths > 0))
}

fn print(print: u8, version: u8) -> &'static Fingerprint {
    if print == UNKNOWN { &FIXED.unknown } else { &FIXED.prints[version as usize][print as usize] }
}

fn print_back(found: &Fingerprint) -> (u8, u8) {
    let version = u8::from(matches!(found.rule, PrintRule::Fields(_)));
    let prints = &FIXED.prints[version as usize];
    let print = prints.iter().position(|p| p.digest == found.digest);
    (print.map_or(UNKNOWN, |p| p as u8), version)
}

fn offset(position: &Position) -> u8 {
    small(position.offset.into())
}

fn small(n: u128) -> u8 {
    u8::try_from(n).expect("everything was made from a byte")
}
