//! The records that the kill test sends: mostly tasks, and among them duplicates, conflicting
//! payloads, poison of every kind and tasks whose deadline has passed. All from one seed.

use crate::rig::Dice;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A record as its producer sends it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: &'static str,
    /// The record's own key: chooses the partition.
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Words in a payload that decide what a model says to it: an answer below the line, or none.
pub(crate) const DOUBTFUL: &str = "doubtful";
pub(crate) const UNWELCOME: &str = "unwelcome";

/// Share of each, in per mille of all records.
const DUPLICATES: u64 = 50;
const CONFLICTS: u64 = 20;
const POISON: u64 = 20;
const LATE: u64 = 10;
/// How many records back a duplicate or a conflict may look: near ones meet a task that runs,
/// far ones a closed claim.
const REACH: u64 = 600;

pub(crate) struct World {
    dice: Dice,
    made: u64,
    tasks: Vec<Sent>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        World { dice: Dice::new(seed), made: 0, tasks: Vec::new() }
    }

    pub(crate) fn chunk(&mut self, records: usize) -> Vec<Sent> {
        (0..records).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Sent {
        self.made += 1;
        let drawn = self.dice.pick(1000);
        let known = !self.tasks.is_empty();
        let (conflicts, poison) = (DUPLICATES + CONFLICTS, DUPLICATES + CONFLICTS + POISON);
        if known && drawn < DUPLICATES {
            return self.earlier();
        }
        if known && drawn < conflicts {
            let mut other = self.earlier();
            let mut payload: Value = serde_json::from_slice(&other.value).unwrap();
            payload["text"] = json!(format!("another text under this key, sent as record {}", self.made));
            other.value = payload.to_string().into_bytes();
            return other;
        }
        if drawn >= conflicts && drawn < poison {
            return self.poison();
        }
        let mut task = self.task();
        if drawn >= poison && drawn < poison + LATE {
            // Long ago, by any clock.
            task.headers.push(("deadline", "2001-01-01T00:00:00Z".to_owned()));
        } else {
            self.tasks.push(task.clone());
        }
        task
    }

    fn earlier(&mut self) -> Sent {
        let reach = REACH.min(self.tasks.len() as u64);
        let back = 1 + self.dice.pick(reach);
        self.tasks[self.tasks.len() - usize::try_from(back).unwrap()].clone()
    }

    fn task(&mut self) -> Sent {
        let kind = match self.dice.pick(10) {
            0..6 => "copy",
            6..9 => "ticket",
            _ => "frail",
        };
        let n = self.made;
        // By the scenario one answer in twenty of a model is doubtful, and one is refused: a person is asked.
        let doubt = match self.dice.pick(20) {
            0 => DOUBTFUL,
            1 => UNWELCOME,
            _ => "plain",
        };
        let payload = json!({ "n": n, "text": format!("a {doubt} request with number {n}") });
        let key = format!("{kind}-{n}");
        Sent {
            kind,
            key: key.clone().into_bytes(),
            value: payload.to_string().into_bytes(),
            headers: vec![("idempotency-key", key)],
        }
    }

    fn poison(&mut self) -> Sent {
        let Sent { kind, key, value, headers } = self.task();
        let n = self.made;
        match self.dice.pick(6) {
            0 => Sent { kind, key, value: format!("{{\"n\": {n}, not json").into_bytes(), headers },
            1 => Sent {
                kind,
                key,
                value: vec![0xff, 0x00, n.to_le_bytes()[0], n.to_le_bytes()[1]],
                headers: vec![],
            },
            2 => Sent { kind, key, value, headers: vec![] },
            3 => Sent { kind, key, value, headers: vec![("idempotency-key", "k".repeat(1025))] },
            4 => Sent { kind, key, value: format!("{{\"n\": \"{n}\", \"text\": 7}}").into_bytes(), headers },
            _ => {
                let mut headers = headers;
                headers.push(("deadline", "the day after tomorrow".to_owned()));
                Sent { kind, key, value, headers }
            }
        }
    }
}

/// What a record is, judged by its content alone, in the words of this test and not by the code
/// under test.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Nature {
    Poison,
    /// A task, or a copy of one, or another payload under its key.
    Valid {
        key: String,
        payload: Value,
        late: bool,
    },
}

pub(crate) fn nature(headers: &BTreeMap<String, String>, value: &[u8]) -> Nature {
    let Ok(payload) = serde_json::from_slice::<Value>(value) else { return Nature::Poison };
    let Some(key) = headers.get("idempotency-key").filter(|k| k.len() <= 1024) else { return Nature::Poison };
    if !payload["n"].is_u64() || !payload["text"].is_string() {
        return Nature::Poison;
    }
    match headers.get("deadline").map(String::as_str) {
        None => Nature::Valid { key: key.clone(), payload, late: false },
        Some("2001-01-01T00:00:00Z") => Nature::Valid { key: key.clone(), payload, late: true },
        Some(_) => Nature::Poison,
    }
}

#[test]
fn the_world_holds_what_the_kill_test_asks_for() {
    let sent = World::new(7).chunk(20_000);
    let natures: Vec<Nature> = sent
        .iter()
        .map(|s| nature(&s.headers.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect(), &s.value))
        .collect();
    let poison = natures.iter().filter(|n| **n == Nature::Poison).count();
    let late = natures.iter().filter(|n| matches!(n, Nature::Valid { late: true, .. })).count();
    let mut payloads: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for nature in &natures {
        if let Nature::Valid { key, payload, .. } = nature {
            payloads.entry(key).or_default().push(payload);
        }
    }
    let copies: usize = payloads.values().map(|p| p.iter().skip(1).filter(|x| ***x == *p[0]).count()).sum();
    let others: usize = payloads.values().map(|p| p.iter().filter(|x| ***x != *p[0]).count()).sum();
    for (what, found, per_mille) in [
        ("poison", poison, POISON),
        ("late", late, LATE),
        ("duplicates", copies, DUPLICATES),
        ("conflicts", others, CONFLICTS),
    ] {
        let expected = usize::try_from(per_mille * 20).unwrap();
        assert!(
            found * 10 > expected * 8 && found * 10 < expected * 12,
            "{what}: {found}, expected about {expected}"
        );
    }
}
