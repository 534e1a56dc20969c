//! P3, reckoned: repeats in the journals are the (slot, kill) pairs whose slot was started and not
//! stored, and the provider saw no other.

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
pub(crate) fn expected(pairs: &BTreeSet<Pair>) -> BTreeMap<SlotOf, u64> {
    let mut found = BTreeMap::new();
    for (name, generation, slot, _times) in pairs {
        *found.entry((name.clone(), *generation, slot.clone())).or_insert(0) += 1;
    }
    found
}

/// Slots whose published repeats are not what was noted at the kills: slot, published, noted.
pub(crate) fn differences(shelf: &Shelf, pairs: &BTreeSet<Pair>) -> Vec<(SlotOf, u64, u64)> {
    let (published, expected) = (published(shelf), expected(pairs));
    let slots: BTreeSet<&SlotOf> = published.keys().chain(expected.keys()).collect();
    let both = slots.into_iter().map(|slot| {
        let of = |map: &BTreeMap<SlotOf, u64>| map.get(slot).copied().unwrap_or(0);
        (slot.clone(), of(&published), of(&expected))
    });
    both.filter(|(_, published, noted)| published != noted).collect()
}

/// Requests that the provider got beyond the first, the retries of failed ones, and what the notes
/// explain: slot as the provider knows it, and how many too many.
pub(crate) fn unexplained(asked: &[Asked], shelf: &Shelf, pairs: &BTreeSet<Pair>) -> Vec<(String, u64)> {
    let mut noted: BTreeMap<String, u64> = BTreeMap::new();
    for ((name, generation, slot), times) in expected(pairs) {
        let (kind, key) = name.split_once('/').unwrap_or_default();
        noted.insert(format!("{}.g{generation}/{slot}", scope_of(kind, key)), times);
    }
    assert!(!shelf.results.is_empty(), "no results at all");
    let mut requests: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for request in asked {
        let (all, failed) = requests.entry(&request.slot).or_default();
        *all += 1;
        *failed += u64::from(request.failed);
    }
    let too_many = requests.into_iter().filter_map(|(slot, (all, failed))| {
        let explained = 1 + failed + noted.get(slot).copied().unwrap_or(0);
        (all > explained).then(|| (slot.to_owned(), all - explained))
    });
    too_many.collect()
}

/// As requests name it: 16 hex digits of BLAKE3 over the scoped key.
pub(crate) fn scope_of(kind: &str, key: &str) -> String {
    let scope = tidegate::task::ScopedKey::new("", kind, key);
    blake3::hash(&scope.to_bytes()).to_hex()[..16].to_owned()
}
