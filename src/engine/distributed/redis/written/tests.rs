//! The written form: what version 1 wrote is read for ever, and no two keys are one.

use super::*;
use crate::task::{Partition, Topic};

fn place(topic: &str, offset: u64) -> Position {
    Position { at: Partition { topic: Topic::new(topic), index: 3 }, offset }
}

/// What version 1 wrote. These lines never change: add new ones for a new version.
fn version_1() -> Vec<Vec<(&'static str, &'static str)>> {
    const DIGEST: &str = "0909090909090909090909090909090909090909090909090909090909090909";
    vec![
        vec![
            ("v", "1"),
            ("g", "2"),
            ("o", "tasks.ticket/3/18446744073709551615@-5"),
            ("h", "300"),
            ("r", "whole"),
            ("d", DIGEST),
            ("f", "00000010000000000000000000000000"),
            ("p", "waiting"),
            ("s", "1795500000000"),
            ("c", "1795500000001"),
            ("by", "review.decisions/3/70"),
            ("#apply", "1 barred 0 2"),
            ("#draft r0", "1 free 3 0"),
            ("#edit", "1 stored 3 200  an \u{fc}nswer\n"),
            ("#empty", "1 stored 0 0 "),
            (
                "#use",
                "1 started 3 0 ffffffffffffffffffffffffffffffff 00000000000000000000000000000002 1795500000000 1",
            ),
        ],
        vec![
            ("v", "1"),
            ("g", "0"),
            ("o", "a/b/0/7@1795500000000"),
            ("h", "0"),
            ("r", "[\"a.b\",\"odd \\\"name\\\"\"]"),
            ("d", DIGEST),
            ("f", "00000000000000000000000000000001"),
            ("p", "closed"),
            ("k", "dead-letter"),
            ("at", "dead-letters/3/90"),
            ("s", "0"),
            ("c", "5"),
        ],
    ]
}

fn entries() -> Vec<Entry> {
    let slot = |state, times, deaths| SlotEntry { state, times, deaths };
    let started = SlotState::Started {
        instance: Instance(u128::MAX),
        nonce: Nonce(2),
        until: Timestamp(1_795_500_000_000),
        doubt: true,
    };
    let stored = |value: &'static str| SlotState::Stored { value: value.into() };
    let slots = [
        ("apply", slot(SlotState::Barred, 0, 2)),
        ("draft r0", slot(SlotState::Free, 3, 0)),
        ("edit", slot(stored(" an \u{fc}nswer\n"), 3, 200)),
        ("empty", slot(stored(""), 0, 0)),
        ("use", slot(started, 3, 0)),
    ];
    let waiting = Entry {
        generation: 2,
        origin: Origin { position: place("tasks.ticket", u64::MAX), stamp: Timestamp(-5) },
        hop: 300,
        print: Fingerprint { rule: PrintRule::Whole, digest: [9; 32] },
        fence: Fence(1 << 100),
        decider: Some(place("review.decisions", 70)),
        phase: Phase::Waiting,
        slots: slots.map(|(name, slot)| (SlotName(name.into()), slot)).into(),
        since: Timestamp(1_795_500_000_000),
        changed: Timestamp(1_795_500_000_001),
    };
    let closed = Entry {
        generation: 0,
        origin: Origin { position: "a/b/0/7".parse().unwrap(), stamp: Timestamp(1_795_500_000_000) },
        hop: 0,
        print: Fingerprint {
            rule: PrintRule::Fields(["a.b".to_owned(), "odd \"name\"".to_owned()].into()),
            digest: [9; 32],
        },
        fence: Fence(1),
        decider: None,
        phase: Phase::Closed { outcome: OutcomeKind::DeadLetter, at: place("dead-letters", 90) },
        slots: BTreeMap::new(),
        since: Timestamp(0),
        changed: Timestamp(5),
    };
    vec![waiting, closed]
}

fn fields(written: &[(&str, &str)]) -> Fields {
    written.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn what_version_1_wrote_is_read_for_ever() {
    for (written, entry) in version_1().iter().zip(entries()) {
        assert_eq!(read(fields(written)), Ok(Some(entry)));
    }
    assert_eq!(read(Vec::new()), Ok(None));
}

#[test]
fn an_answer_need_not_be_text() {
    let mut written = fields(&version_1()[1]);
    written.push((b"#a".to_vec(), b"1 stored 0 0 \0 \xff 1".to_vec()));
    let entry = read(written).unwrap().unwrap();
    let stored = SlotState::Stored { value: Bytes::from_static(b"\0 \xff 1") };
    assert_eq!(entry.slots[&SlotName("a".into())].state, stored);
}

#[test]
fn a_later_version_is_refused_by_name_and_damage_is_told() {
    let with = |name: &str, value: &str| {
        let mut written = version_1()[0].clone();
        written.retain(|(n, _)| *n != name);
        written.push((name, value));
        read(fields(&written)).unwrap_err()
    };
    let told = "has format version 2, this program reads up to 1: run a newer tidegate";
    assert_eq!(with("v", "2").to_string(), format!("the stored claim {told}"));
    assert_eq!(with("#apply", "2 whatever").to_string(), format!("the stored slot {told}"));
    let damaged = [
        ("g", "-1"),
        ("o", "x/1@5"),
        ("r", "{"),
        ("d", "09"),
        ("f", "x"),
        ("p", "shut"),
        ("v", "one"),
        ("v", ""),
    ];
    for (name, value) in damaged {
        assert_eq!(with(name, value), Unreadable::Damaged("claim"), "{name} {value}");
    }
    for value in
        ["", "1", "1 free 0", "1 free 0 0 x", "1 stored 0 0", "1 started 0 0 1 2 3", "1 started 0 0 1 2 3 2"]
    {
        assert_eq!(with("#apply", value), Unreadable::Damaged("slot"), "{value}");
    }
    let mut headless = version_1()[0].clone();
    headless.remove(0);
    assert_eq!(read(fields(&headless)), Err(Unreadable::Damaged("claim")));
}

#[test]
fn p1_two_scopes_never_share_a_key_and_none_is_a_pattern() {
    let texts = ["", "a", "a/b", "a%2Fb", "%", "*", "k[a-z]?", "{a}", "\u{fc}", "\u{0}\n", "a:b", "~"];
    let mut seen = BTreeMap::new();
    for tenant in texts {
        for kind in texts {
            for key in texts {
                let scoped = ScopedKey::new(tenant, kind, key);
                let text = scope(&scoped);
                let plain = |c: char| c.is_ascii_alphanumeric() || "%/._-~".contains(c);
                assert!(text.chars().all(plain), "{text}");
                assert_eq!(read_scope(&text).as_ref(), Some(&scoped));
                assert_eq!(seen.insert(text, scoped), None);
            }
        }
    }
    for text in ["", "a/b", "a/b/c/d", "a/b/%2", "a/b/%zz", "a/b/%ff"] {
        assert_eq!(read_scope(text), None, "{text}");
    }
}

#[test]
fn every_kind_of_key_has_its_own_place_under_the_prefix() {
    let keys = Keys::new("tide.gate-1_a").unwrap();
    let scope = scope(&ScopedKey::new("", "ticket", "T 1"));
    let origin = Origin { position: place("a/*", 7), stamp: Timestamp(-5) };
    assert_eq!(keys.claim(&scope), "tide.gate-1_a:claim:/ticket/T%201");
    assert_eq!(keys.claim(&scope), keys.claims() + &scope);
    assert_eq!(keys.refused(&scope, &origin), "tide.gate-1_a:refused:/ticket/T%201/a%2F%2A/3/7/-5");
    assert_eq!(keys.open(), "tide.gate-1_a:open");
    assert_eq!(keys.beat(Instance(255)), keys.beats() + "000000000000000000000000000000ff");
    for bad in ["", "a:b", "a*", "\u{fc}", &"a".repeat(65)] {
        assert!(Keys::new(bad).is_err(), "{bad}");
    }
}
