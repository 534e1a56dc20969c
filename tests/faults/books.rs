//! The reckoning after the kills: every record of a task topic is found by its identity, in exactly one
//! place, and no doubt was published unseen. Pure: takes what lies in the log, and gives every complaint.
//!
//! Believes nothing that the process says of itself: no counter, no status, only published records.
//! That the topics hold what was sent, `promised.rs` says.

use crate::world::{DOUBTFUL, Nature, UNWELCOME, nature};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Key or value of a record.
pub(crate) type Part = Option<Vec<u8>>;

/// A record of the log, as plain as can be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// `topic/partition/offset`.
    pub(crate) at: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: BTreeMap<String, String>,
    /// When it was written.
    pub(crate) stamp_ms: i64,
}

impl Row {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        self.value.as_ref().and_then(|v| serde_json::from_slice(v).ok()).unwrap_or(Value::Null)
    }

    /// Everything its sender gave it.
    pub(crate) fn says(&self) -> (&Part, &Part, &BTreeMap<String, String>) {
        (&self.key, &self.value, &self.headers)
    }
}

/// Everything that lies in the log at rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    /// By kind: what its producers sent.
    pub(crate) tasks: BTreeMap<String, Vec<Row>>,
    /// Redriven records; what else lies on this topic carries an origin.
    pub(crate) resume: Vec<Row>,
    pub(crate) results: Vec<Row>,
    pub(crate) dead_letters: Vec<Row>,
    pub(crate) review_requests: Vec<Row>,
    pub(crate) review_decisions: Vec<Row>,
    pub(crate) review_outcomes: Vec<Row>,
}

/// One outcome or open question of a key and generation.
#[derive(Clone, Debug)]
struct Place {
    what: &'static str,
    at: String,
    /// Position of the record that owns the key.
    origin: String,
    answer: Value,
    stamp_ms: i64,
}

type Name = (String, String, u32); // kind, key, generation

#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    pub(crate) complaints: Vec<Complaint>,
    pub(crate) sums: Sums,
}

/// Sums for people to read; every check is by identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) records: usize,
    pub(crate) keys: usize,
    pub(crate) results: usize,
    pub(crate) open_reviews: usize,
    pub(crate) dead_outcomes: usize,
    pub(crate) buried: usize,
    pub(crate) silent: usize,
    /// Doubtful or refused answers that a person has decided, and that wait for one.
    pub(crate) doubts_decided: usize,
    pub(crate) doubts_open: usize,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Complaint {
    /// A key and generation that rests nowhere.
    Missing { name: Name, copies: usize },
    /// More than one resting place, from the first record of the key to the last place. With `copies` 1
    /// even a forgetful ledger is no excuse.
    Twice { name: Name, copies: usize, places: Vec<String>, from_ms: i64, to_ms: i64 },
    /// A record that must be in dead letters under its own coordinates, and is not, or more than once.
    /// `twin`: what it says has its place all the same, as an outcome of this key or as a dead letter.
    Buried { at: String, name: Option<Name>, why: &'static str, times: usize, twin: bool },
    /// A dead letter whose bytes are not the original's.
    Changed { at: String, letter: String },
    /// A record in dead letters that has no business there. `rival`: its key was used with another payload.
    Wrongly { at: String, name: Option<Name>, letter: String, reason: String, rival: bool },
    /// A doubtful or refused answer that was published, or lies there, without a person's having seen it.
    Unseen { at: String, why: &'static str },
    /// A result or item of nothing that was sent, or one that says something else than its origin.
    Stray { at: String, why: &'static str },
}

pub(crate) fn reckon(shelf: &Shelf) -> Books {
    let mut books = Books::default();
    let sources = sources(shelf);
    let places = places(shelf, &mut books);
    let letters = letters_by_source(shelf);
    let second_decisions = second_decisions(shelf);
    let mut expected_letters: BTreeSet<String> = BTreeSet::new();
    books.sums.records = sources.values().flatten().count();
    for source in sources.get(&None).into_iter().flatten() {
        expect_letter(source, None, "poison", false, &letters, &mut expected_letters, &mut books);
    }
    let named = sources.iter().filter_map(|(name, group)| Some((name.as_ref()?, group)));
    for (name, group) in named {
        books.sums.keys += 1;
        let found = places.get(name).map_or(&[][..], Vec::as_slice);
        let copies = group.len() + second_decisions.get(name).copied().unwrap_or(0);
        match found {
            [] => books.complaints.push(Complaint::Missing { name: name.clone(), copies }),
            [_] => {}
            many => books.complaints.push(Complaint::Twice {
                name: name.clone(),
                copies,
                places: many.iter().map(|p| format!("{} {}", p.what, p.at)).collect(),
                from_ms: group.iter().map(|s| s.row.stamp_ms).min().unwrap_or(0),
                to_ms: many.iter().map(|p| p.stamp_ms).max().unwrap_or(0),
            }),
        }
        let Some(place) = found.first() else { continue };
        judge_group(name, found, place, group, &letters, &mut expected_letters, &mut books);
    }
    doubts(shelf, &sources, &mut books);
    for name in places.keys().filter(|name| !sources.contains_key(&Some((*name).clone()))) {
        let at = places[name][0].at.clone();
        books
            .complaints
            .push(Complaint::Stray { at, why: "no record was sent under this key and generation" });
    }
    for (at, found) in letters.iter().filter(|(at, _)| !expected_letters.contains(*at)) {
        let sent_at = sent_at(found[0]);
        books.complaints.push(Complaint::Wrongly {
            at: at.clone(),
            name: name_of(&sources, sent_at),
            letter: found[0].at.clone(),
            reason: found[0].header("tidegate-reason").to_owned(),
            rival: has_rival(&sources, sent_at),
        });
    }
    books.complaints.sort();
    books
}

/// A record that was sent, with what it is.
struct Source<'a> {
    row: &'a Row,
    payload: Value,
    late: bool,
}

/// Records by the name they may own; `None` holds the poison.
fn sources(shelf: &Shelf) -> BTreeMap<Option<Name>, Vec<Source<'_>>> {
    let mut found: BTreeMap<Option<Name>, Vec<Source<'_>>> = BTreeMap::new();
    let sent = shelf.tasks.iter().flat_map(|(kind, rows)| rows.iter().map(move |row| (kind.clone(), 0, row)));
    let redriven = shelf.resume.iter().filter(|row| row.header("tidegate-origin").is_empty()).map(|row| {
        let generation = row.header("tidegate-generation").parse().unwrap_or(0);
        (row.header("tidegate-kind").to_owned(), generation, row)
    });
    for (kind, generation, row) in sent.chain(redriven) {
        let mut headers = row.headers.clone();
        if row.headers.contains_key("tidegate-generation") {
            // Whoever sends a task again wants its answer now: its deadline does not come along.
            headers.remove("deadline");
        }
        let (name, payload, late) = match nature(&headers, row.value.as_deref().unwrap_or_default()) {
            Nature::Poison => (None, Value::Null, false),
            Nature::Valid { key, payload, late } => (Some((kind, key, generation)), payload, late),
        };
        found.entry(name).or_default().push(Source { row, payload, late });
    }
    found
}

/// Where the record of a dead letter was sent to; what was parked lies elsewhere since.
fn sent_at(letter: &Row) -> &str {
    let source = letter.header("tidegate-source");
    if !source.starts_with("retry.") {
        return source;
    }
    letter.header("tidegate-origin").split('@').next().unwrap_or_default()
}

/// The key and generation that the record at this position may own.
fn name_of(sources: &BTreeMap<Option<Name>, Vec<Source<'_>>>, at: &str) -> Option<Name> {
    let found = sources.iter().find(|(_, group)| group.iter().any(|s| s.row.at == at));
    found.and_then(|(name, _)| name.clone())
}

/// Whether the key of the record at this position was used with another payload too.
fn has_rival(sources: &BTreeMap<Option<Name>, Vec<Source<'_>>>, at: &str) -> bool {
    let group = sources.iter().find(|(name, g)| name.is_some() && g.iter().any(|s| s.row.at == at));
    group.is_some_and(|(_, group)| group.iter().any(|s| s.payload != group[0].payload))
}

/// P5: what a model doubted or refused is published only as a person decided it, on an item that was
/// there to be seen; a refusal's item says that it is one.
fn doubts(shelf: &Shelf, sources: &BTreeMap<Option<Name>, Vec<Source<'_>>>, books: &mut Books) {
    let text: BTreeMap<&str, &str> = sources
        .values()
        .flatten()
        .filter(|s| !s.row.at.starts_with("tasks.copy/"))
        .filter_map(|s| Some((s.row.at.as_str(), s.payload["text"].as_str()?)))
        .collect();
    let doubt = |envelope: &Value| {
        let origin = envelope["origin"].as_str().unwrap_or_default().split('@').next().unwrap_or_default();
        let said = text.get(origin).filter(|_| envelope["kind"] != "copy");
        let is = |word: &str| said.is_some_and(|t| t.contains(&format!("{word} request")));
        (is(DOUBTFUL), is(UNWELCOME))
    };
    let items: BTreeMap<String, Value> = shelf
        .review_requests
        .iter()
        .filter(|row| row.value.is_some())
        .map(|row| (row.json()["id"].as_str().unwrap_or_default().to_owned(), row.json()))
        .collect();
    for row in &shelf.results {
        let result = row.json();
        if doubt(&result) == (false, false) {
            continue;
        }
        books.sums.doubts_decided += 1;
        let item = result["reviewed"]["item"].as_str().unwrap_or_default();
        let why = match () {
            () if result["status"] == "accepted" || result["reviewed"].is_null() => "published by no person",
            () if !items.contains_key(item) => "decided on an item that was never there",
            () => continue,
        };
        books.complaints.push(Complaint::Unseen { at: row.at.clone(), why });
    }
    for row in shelf.review_requests.iter().filter(|row| row.value.is_some()) {
        let item = row.json();
        let (doubtful, unwelcome) = doubt(&item["proposed"]);
        let says = |code: &str| item["why"].as_array().into_iter().flatten().any(|w| w["reason"] == code);
        if (doubtful && !says("TG-below-line")) || (unwelcome && !says("TG-model-refused")) {
            let why = "its item does not say why a person is asked";
            books.complaints.push(Complaint::Unseen { at: row.at.clone(), why });
        }
    }
    let open = open_items(&shelf.review_requests);
    let doubted = open.iter().filter(|row| doubt(&row.json()["proposed"]) != (false, false));
    books.sums.doubts_open = doubted.count();
}

/// Where each key and generation rests: results, dead letters that are outcomes, open review items.
fn places(shelf: &Shelf, books: &mut Books) -> BTreeMap<Name, Vec<Place>> {
    let mut found: BTreeMap<Name, Vec<Place>> = BTreeMap::new();
    let mut put = |value: &Value, what, row: &Row, origin: &str, answer: Value| {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let generation = value["generation"].as_u64().and_then(|g| u32::try_from(g).ok()).unwrap_or(u32::MAX);
        let origin = origin.split('@').next().unwrap_or_default().to_owned();
        let place = Place { what, at: row.at.clone(), origin, answer, stamp_ms: row.stamp_ms };
        found.entry((text("kind"), text("key"), generation)).or_default().push(place);
    };
    for row in &shelf.results {
        let value = row.json();
        put(&value, "result", row, value["origin"].as_str().unwrap_or_default(), value["answer"].clone());
        books.sums.results += 1;
    }
    for row in shelf.dead_letters.iter().filter(|r| r.header("tidegate-is-outcome") == "yes") {
        let value = serde_json::json!({
            "kind": row.header("tidegate-kind"),
            "key": row.header("tidegate-key"),
            "generation": row.header("tidegate-generation").parse::<u64>().ok(),
        });
        put(&value, "dead letter", row, row.header("tidegate-origin"), Value::Null);
        books.sums.dead_outcomes += 1;
    }
    for row in open_items(&shelf.review_requests) {
        let proposed = row.json()["proposed"].clone();
        put(&proposed, "review item", row, proposed["origin"].as_str().unwrap_or_default(), Value::Null);
        books.sums.open_reviews += 1;
    }
    found
}

/// Decisions beyond the first on an item: copies of a record too, to a ledger that forgets.
fn second_decisions(shelf: &Shelf) -> BTreeMap<Name, usize> {
    let mut by_item: BTreeMap<String, usize> = BTreeMap::new();
    for decision in &shelf.review_decisions {
        *by_item.entry(decision.json()["item"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let mut found = BTreeMap::new();
    for request in shelf.review_requests.iter().filter(|r| r.value.is_some()) {
        let item = request.json();
        let decided = by_item.get(item["id"].as_str().unwrap_or_default()).copied().unwrap_or(0);
        let text = |field: &str| item["proposed"][field].as_str().unwrap_or_default().to_owned();
        let generation =
            item["proposed"]["generation"].as_u64().and_then(|g| u32::try_from(g).ok()).unwrap_or(0);
        *found.entry((text("kind"), text("key"), generation)).or_insert(0) += decided.saturating_sub(1);
    }
    found
}

/// Requests without a tombstone behind them.
pub(crate) fn open_items(requests: &[Row]) -> Vec<&Row> {
    let mut open: BTreeMap<&[u8], &Row> = BTreeMap::new();
    for row in requests {
        let id = row.key.as_deref().unwrap_or_default();
        match row.value {
            Some(_) => open.insert(id, row),
            None => open.remove(id),
        };
    }
    open.into_values().collect()
}

fn letters_by_source(shelf: &Shelf) -> BTreeMap<String, Vec<&Row>> {
    let mut found: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in &shelf.dead_letters {
        found.entry(row.header("tidegate-source").to_owned()).or_default().push(row);
    }
    found
}

/// All records of one key and generation, against the place where it rests: the owner's payload is the
/// task's; copies of it leave no trace, other payloads are dead letters.
fn judge_group(
    name: &Name,
    places: &[Place],
    place: &Place,
    group: &[Source<'_>],
    letters: &BTreeMap<String, Vec<&Row>>,
    expected: &mut BTreeSet<String>,
    books: &mut Books,
) {
    let Some(owner) = group.iter().find(|s| s.row.at == place.origin) else {
        let why = "its origin is none of the records sent under its key";
        return books.complaints.push(Complaint::Stray { at: place.at.clone(), why });
    };
    let copied = place.what == "result" && place.at.starts_with("results");
    if copied && owner.row.at.starts_with("tasks.copy/") && place.answer != owner.payload {
        let why = "the copied payload is not its origin's";
        books.complaints.push(Complaint::Stray { at: place.at.clone(), why });
    }
    if (place.what == "dead letter") != owner.late {
        let why = "only tasks whose deadline had passed end as dead letters, and all of them do";
        books.complaints.push(Complaint::Stray { at: place.at.clone(), why });
    }
    for source in group {
        // Another record that says the same has its place: a silent copy of it, to a ledger that forgot.
        let twin = group.iter().filter(|other| other.payload == source.payload).any(|other| {
            places.iter().any(|p| p.origin == other.row.at)
                || (other.row.at != source.row.at && letters.contains_key(&other.row.at))
                || letters
                    .values()
                    .flatten()
                    .any(|l| l.header("tidegate-source") != other.row.at && sent_at(l) == other.row.at)
        });
        if source.row.at == owner.row.at {
            if owner.late {
                expect_letter(source, Some(name), "deadline passed", twin, letters, expected, books);
            }
        } else if source.payload == owner.payload {
            books.sums.silent += 1;
        } else {
            expect_letter(source, Some(name), "conflict", twin, letters, expected, books);
        }
    }
}

fn expect_letter(
    source: &Source<'_>,
    name: Option<&Name>,
    why: &'static str,
    twin: bool,
    letters: &BTreeMap<String, Vec<&Row>>,
    expected: &mut BTreeSet<String>,
    books: &mut Books,
) {
    let at = &source.row.at;
    expected.insert(at.clone());
    let found = letters.get(at).map_or(&[][..], Vec::as_slice);
    books.sums.buried += 1;
    if found.len() != 1 {
        books.complaints.push(Complaint::Buried {
            at: at.clone(),
            name: name.cloned(),
            why,
            times: found.len(),
            twin,
        });
    }
    for letter in found {
        let same_headers = source
            .row
            .headers
            .iter()
            .all(|(n, v)| n.starts_with("tidegate-") || letter.headers.get(n) == Some(v));
        if letter.value != source.row.value || letter.key != source.row.key || !same_headers {
            books.complaints.push(Complaint::Changed { at: at.clone(), letter: letter.at.clone() });
        }
    }
}
