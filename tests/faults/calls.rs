//! P3, reckoned from two sides: repeats in the journals are the (slot, kill) pairs whose slot was
//! started and not stored; and the provider's own log holds each answer once, and beside it exactly the
//! requests of those pairs, as far as they had left their process.

use crate::books::{Row, Shelf, open_items};
use crate::campaign::Pair;
use crate::rig::script::Asked;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A slot of a task: `kind/key`, generation, name.
type SlotOf = (String, u32, String);

/// By slot: how often it was repeated, as published with the outcomes and open items.
pub(crate) fn published(shelf: &Shelf) -> BTreeMap<SlotOf, u64> {
    let mut found = BTreeMap::new();
    let json = |row: &Row| {
        row.value.as_ref().and_then(|v| serde_json::from_slice::<Value>(v).ok()).unwrap_or_default()
    };
    let results = shelf.results.iter().map(json);
    let open = open_items(&shelf.review_requests).into_iter().map(|row| json(row)["proposed"].clone());
    for envelope in results.chain(open) {
        let text = |field: &str| envelope[field].as_str().unwrap_or_default();
        let name = format!("{}/{}", text("kind"), text("key"));
        let generation = envelope["generation"].as_u64().and_then(|g| u32::try_from(g).ok()).unwrap_or(0);
        for note in envelope["tries"].as_array().into_iter().flatten() {
            let slot = note["slot"].as_str().unwrap_or_default().to_owned();
            *found.entry((name.clone(), generation, slot)).or_insert(0) +=
                note["repeats"].as_u64().unwrap_or(0);
        }
    }
    found
}

/// By slot: in how many lives it was started and not stored when the process ended.
pub(crate) fn expected(pairs: &BTreeMap<Pair, u64>) -> BTreeMap<SlotOf, u64> {
    let mut found = BTreeMap::new();
    for (name, generation, slot, _times) in pairs.keys() {
        *found.entry((name.clone(), *generation, slot.clone())).or_insert(0) += 1;
    }
    found
}

/// Slots whose published repeats are not what was noted at the kills: slot, published, noted.
pub(crate) fn differences(shelf: &Shelf, pairs: &BTreeMap<Pair, u64>) -> Vec<(SlotOf, u64, u64)> {
    let (published, expected) = (published(shelf), expected(pairs));
    let slots: BTreeSet<&SlotOf> = published.keys().chain(expected.keys()).collect();
    let both = slots.into_iter().map(|slot| {
        let of = |map: &BTreeMap<SlotOf, u64>| map.get(slot).copied().unwrap_or(0);
        (slot.clone(), of(&published), of(&expected))
    });
    both.filter(|(_, published, noted)| published != noted).collect()
}

/// The provider's log beside the journals.
#[derive(Default, Debug)]
pub(crate) struct Bought {
    /// Requests of a noted (slot, kill) pair that the provider has seen: bought, and bought again.
    pub(crate) again: u64,
    /// Pairs of which it has seen none: killed before the request left, or between two retries.
    pub(crate) unsent: u64,
    /// What does not add up: slot as the provider knows it, and what is wrong.
    pub(crate) wrong: Vec<(String, &'static str)>,
}

/// Each slot was bought once in a life at most. In one life it was answered for good; in every other it
/// was started and not stored when the process ended. Requests that failed bought nothing.
pub(crate) fn bought(asked: &[(u64, Asked)], shelf: &Shelf, pairs: &BTreeMap<Pair, u64>) -> Bought {
    let noted: BTreeSet<(String, u64)> = pairs
        .iter()
        .map(|((name, generation, slot, _), life)| (slot_id(name, *generation, slot), *life))
        .collect();
    let mut lives: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for (life, request) in asked.iter().filter(|(_, request)| !request.failed) {
        *lives.entry(&request.slot).or_default().entry(*life).or_insert(0) += 1;
    }
    let mut found = Bought::default();
    for (slot, lives) in &lives {
        let is_noted = |life: &u64| noted.contains(&((*slot).to_owned(), *life));
        found.again += lives.keys().filter(|life| is_noted(life)).count() as u64;
        if lives.values().any(|times| *times > 1) {
            found.wrong.push(((*slot).to_owned(), "bought twice in one life"));
        }
        if lives.keys().filter(|life| !is_noted(life)).count() > 1 {
            found.wrong.push(((*slot).to_owned(), "bought again, and no kill was noted for it"));
        }
    }
    for (name, generation, slot) in published(shelf).into_keys() {
        let slot = slot_id(&name, generation, &slot);
        let answered = lives
            .get(slot.as_str())
            .is_some_and(|lives| lives.keys().any(|life| !noted.contains(&(slot.clone(), *life))));
        if !answered && !slot.ends_with('/') {
            found.wrong.push((slot, "published, and the provider never gave its answer"));
        }
    }
    let seen = |(slot, life): &&(String, u64)| lives.get(slot.as_str()).is_some_and(|l| l.contains_key(life));
    found.unsent = noted.iter().filter(|pair| !seen(pair)).count() as u64;
    found
}

/// Requests that bought something beyond the first, and beyond what the published outcomes count: slot
/// as the provider knows it, `kind/key` where it has an outcome, and how many too many.
pub(crate) fn uncounted(
    asked: &[(u64, Asked)],
    counted: &BTreeMap<SlotOf, u64>,
) -> Vec<(String, String, u64)> {
    let mut known: BTreeMap<String, (&str, u64)> = BTreeMap::new();
    for ((name, generation, slot), times) in counted {
        known.insert(slot_id(name, *generation, slot), (name, *times));
    }
    let mut requests: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, request) in asked.iter().filter(|(_, request)| !request.failed) {
        *requests.entry(&request.slot).or_default() += 1;
    }
    let too_many = requests.into_iter().filter_map(|(slot, all)| {
        let (name, counted) = known.get(slot).copied().unwrap_or_default();
        (all > 1 + counted).then(|| (slot.to_owned(), name.to_owned(), all - 1 - counted))
    });
    too_many.collect()
}

/// As requests name it: 16 hex digits of BLAKE3 over the scoped key, generation, name.
fn slot_id(name: &str, generation: u32, slot: &str) -> String {
    let (kind, key) = name.split_once('/').unwrap_or_default();
    format!("{}.g{generation}/{slot}", scope_of(kind, key))
}

pub(crate) fn scope_of(kind: &str, key: &str) -> String {
    let scope = tidegate::task::ScopedKey::new("", kind, key);
    blake3::hash(&scope.to_bytes()).to_hex()[..16].to_owned()
}
