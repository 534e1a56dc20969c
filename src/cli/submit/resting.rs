//! Which of the submitted tasks have their resting place: a result, a review item or a dead letter.
//!
//! Pure: takes the processor's answers and events, and says what is still awaited. A line that repeats
//! an earlier one of the file is a duplicate and rests with it; one that says something else under the
//! same key will be a dead letter of its own, and is known by where its record lies.

use crate::cli::text::field;
use serde_json::Value;
use std::collections::HashMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sums {
    pub(super) results: u64,
    pub(super) reviews: u64,
    pub(super) dead_letters: u64,
    pub(super) duplicates: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Result,
    Review,
    DeadLetter,
}

pub(super) struct Resting {
    kind: String,
    tenant: String,
    /// Every key of the file, with the fingerprint first seen under it.
    seen: HashMap<String, String>,
    /// Keys without a place, with their line.
    awaited: HashMap<String, u64>,
    /// Records that will be buried for themselves, by position, with their line.
    strangers: HashMap<String, u64>,
    sums: Sums,
}

impl Resting {
    pub(super) fn new(kind: &str, tenant: Option<&str>) -> Self {
        Resting {
            kind: kind.to_owned(),
            tenant: tenant.unwrap_or_default().to_owned(),
            seen: HashMap::new(),
            awaited: HashMap::new(),
            strangers: HashMap::new(),
            sums: Sums::default(),
        }
    }

    /// A line that the processor has accepted, or knew.
    pub(super) fn expect(&mut self, line: u64, task: &Value) {
        let (key, print) = (field(task, "key").to_owned(), field(task, "fingerprint").to_owned());
        match self.seen.get(&key) {
            None => {
                self.seen.insert(key.clone(), print);
                self.awaited.insert(key, line);
            }
            Some(first) if *first == print || task["status"].as_u64() == Some(200) => {
                self.sums.duplicates += 1
            }
            Some(_) => {
                self.strangers.insert(field(task, "position").to_owned(), line);
            }
        }
    }

    pub(super) fn left(&self) -> usize {
        self.awaited.len() + self.strangers.len()
    }

    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    /// Some keys that are still awaited, the first lines first.
    pub(super) fn some(&self, max: usize) -> Vec<String> {
        let mut all: Vec<(&u64, &String)> = self.awaited.iter().map(|(key, line)| (line, key)).collect();
        all.sort_unstable();
        all.into_iter().take(max).map(|(_, key)| key.clone()).collect()
    }

    /// A place somebody came to; the line of the file that rests there, if one does.
    pub(super) fn arrive(&mut self, place: Place, about: &Value) -> Option<u64> {
        if field(about, "kind") != self.kind || field(about, "tenant") != self.tenant {
            return None;
        }
        let own_grave = place == Place::DeadLetter && about["outcome"].as_bool() == Some(false);
        let line = if own_grave {
            self.strangers.remove(field(about, "source"))
        } else {
            self.awaited.remove(field(about, "key"))
        };
        if line.is_some() {
            match place {
                Place::Result => self.sums.results += 1,
                Place::Review => self.sums.reviews += 1,
                Place::DeadLetter => self.sums.dead_letters += 1,
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn accepted(key: &str, print: &str, position: &str) -> Value {
        json!({ "status": 202, "key": key, "fingerprint": print, "position": position })
    }

    #[test]
    fn every_line_rests_once_and_the_sums_add_up() {
        let mut resting = Resting::new("t", None);
        for (line, (key, print, at)) in
            [("a", "1", "p1"), ("b", "2", "p2"), ("a", "1", "p3"), ("a", "9", "p4"), ("c", "3", "p5")]
                .iter()
                .enumerate()
        {
            resting.expect(line as u64 + 1, &accepted(key, print, at));
        }
        assert_eq!((resting.left(), resting.some(2)), (4, vec!["a".to_owned(), "b".to_owned()]));
        let about = |key: &str| json!({ "kind": "t", "key": key });
        assert_eq!(resting.arrive(Place::Result, &about("a")), Some(1));
        assert_eq!(resting.arrive(Place::Result, &about("a")), None, "a place is counted once");
        assert_eq!(resting.arrive(Place::Review, &about("b")), Some(2));
        assert_eq!(resting.arrive(Place::Result, &about("stranger")), None);
        assert_eq!(
            resting.arrive(Place::Result, &json!({ "kind": "t", "key": "c", "tenant": "north" })),
            None,
            "another tenant's"
        );
        let grave = |source: &str| json!({ "kind": "t", "key": "a", "outcome": false, "source": source });
        assert_eq!(resting.arrive(Place::DeadLetter, &grave("p1")), None);
        assert_eq!(resting.arrive(Place::DeadLetter, &grave("p4")), Some(4));
        let burial = json!({ "kind": "t", "key": "c", "outcome": true, "source": "p5" });
        assert_eq!(resting.arrive(Place::DeadLetter, &burial), Some(5));
        assert_eq!(resting.left(), 0);
        assert_eq!(resting.sums(), Sums { results: 1, reviews: 1, dead_letters: 2, duplicates: 1 });
    }

    #[test]
    fn a_known_line_waits_for_its_key_and_a_second_one_is_a_duplicate() {
        let mut resting = Resting::new("t", Some("north"));
        let known = json!({ "status": 200, "key": "a", "fingerprint": "1", "state": "done" });
        resting.expect(1, &known);
        resting.expect(2, &known);
        assert_eq!((resting.left(), resting.sums().duplicates), (1, 1));
        assert_eq!(
            resting.arrive(Place::Result, &json!({ "kind": "t", "key": "a", "tenant": "north" })),
            Some(1)
        );
    }
}
