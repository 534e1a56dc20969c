//! The demo's books: every record that was sent and every place a task came to, by identity.
//!
//! Pure: told what was sent, answered and seen, and says whether the sums add up. It believes no
//! count of the processor's own.
//!
//! ## Why nothing is judged when it comes
//! Answers and outcomes are read from different connections: a copied task can be a result before its
//! sender has read that it was taken in. So everything is booked under its identity, in whatever order
//! it comes, and a stranger is what no answer has named by the time the sums are asked for.

use std::collections::{BTreeMap, BTreeSet};

/// Kind and key.
pub(super) type Id = (String, String);

/// How the processor answered one record that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// Taken in, and durable at this position.
    Taken { position: String },
    /// Its key is known, with the same payload.
    Known,
    /// Refused at the door, with the code of the reason.
    Refused { code: String },
}

/// What a record was meant to be when it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meant {
    Task,
    Copy,
    /// Another payload under a known key, or bytes that are no task: never to become a task.
    Bad,
}

/// Where a task came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Result,
    Waiting,
    Letter,
}

#[derive(Default, Debug)]
struct Task {
    /// An answer named it. Until then its outcome may be known, and it counts nowhere.
    answered: bool,
    /// Results and dead letters of each generation; one is right.
    outcomes: BTreeMap<u64, Vec<Place>>,
    /// Items that wait for a person.
    open: BTreeSet<String>,
}

impl Task {
    fn place(&self) -> Option<Place> {
        let last = self.outcomes.last_key_value().and_then(|(_, places)| places.last().copied());
        // A person is asked before there is an outcome; the two streams may be read in any order.
        last.or_else(|| (!self.open.is_empty()).then_some(Place::Waiting))
    }

    fn twice(&self) -> bool {
        self.open.len() > 1 || self.outcomes.values().any(|places| places.len() > 1)
    }
}

/// A call that was made again: its task, generation and slot.
pub(super) type Call = (Id, u64, String);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Repeat {
    pub(super) times: u64,
    /// Unix time, ms: when the task was accepted, and when the call was made again.
    pub(super) from: i64,
    pub(super) to: i64,
}

#[derive(Default, Debug)]
pub(super) struct Books {
    tasks: BTreeMap<Id, Task>,
    /// Item and its task.
    items: BTreeMap<String, Id>,
    records: u64,
    duplicates: u64,
    /// Refused at the door.
    turned_away: u64,
    /// Positions of records that were taken in and are never to be tasks.
    bad: BTreeSet<String>,
    /// Dead letters that are no task's outcome: position and key of the record that was buried.
    buried: BTreeMap<String, String>,
    /// Keys of bad records whose answer was lost: they may have been taken in unseen.
    unanswered: BTreeSet<String>,
    repeats: BTreeMap<Call, Repeat>,
    /// Unix times, ms.
    kills: Vec<i64>,
}

/// What the books say; every figure counts identities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sums {
    pub(super) records: u64,
    pub(super) tasks: u64,
    pub(super) duplicates: u64,
    pub(super) refused: u64,
    pub(super) results: u64,
    pub(super) waiting: u64,
    pub(super) letters: u64,
    /// Not in any place: under way, and missing once everything has come to rest.
    pub(super) nowhere: u64,
    pub(super) twice: u64,
    pub(super) repeats: u64,
    pub(super) explained: u64,
    /// In some place, and nobody sent them. Only once everything has come to rest.
    pub(super) strangers: u64,
    pub(super) kills: u64,
}

impl Sums {
    /// Whether everything adds up, once everything has come to rest.
    pub(super) fn hold(&self) -> bool {
        self.records == self.tasks + self.duplicates + self.refused
            && self.results + self.waiting + self.letters == self.tasks
            && self.nowhere == 0
            && self.twice == 0
            && self.repeats == self.explained
            && self.strangers == 0
    }
}

impl Books {
    pub(super) fn sent(&mut self, id: &Id, meant: Meant, answered: &Answered) {
        self.records += 1;
        match (meant, answered) {
            (_, Answered::Refused { .. }) => self.turned_away += 1,
            (Meant::Bad, Answered::Taken { position }) => {
                self.bad.insert(position.clone());
            }
            _ => {
                let task = self.tasks.entry(id.clone()).or_default();
                // The first answer about a key makes the task: the answer before may have been lost.
                self.duplicates += u64::from(task.answered);
                task.answered = true;
            }
        }
    }

    /// A bad record was sent and no answer came: it will be sent again.
    pub(super) fn unanswered(&mut self, id: &Id) {
        self.unanswered.insert(id.1.clone());
    }

    pub(super) fn result(&mut self, id: &Id, generation: u64) {
        self.outcome(id, generation, Place::Result);
    }

    /// `outcome`: whether it is the outcome of its key. Else the record at `source` never was a task.
    pub(super) fn letter(&mut self, id: &Id, generation: u64, outcome: bool, source: &str) {
        if outcome {
            return self.outcome(id, generation, Place::Letter);
        }
        self.buried.insert(source.to_owned(), id.1.clone());
    }

    fn outcome(&mut self, id: &Id, generation: u64, place: Place) {
        let task = self.tasks.entry(id.clone()).or_default();
        task.outcomes.entry(generation).or_default().push(place);
    }

    pub(super) fn review_opened(&mut self, id: &Id, item: &str) {
        self.tasks.entry(id.clone()).or_default().open.insert(item.to_owned());
        self.items.insert(item.to_owned(), id.clone());
    }

    pub(super) fn review_decided(&mut self, item: &str) {
        let task = self.items.get(item).and_then(|id| self.tasks.get_mut(id));
        if let Some(task) = task {
            task.open.remove(item);
        }
    }

    pub(super) fn repeated(&mut self, call: Call, repeat: Repeat) {
        self.repeats.insert(call, repeat);
    }

    pub(super) fn killed(&mut self, at: i64) {
        self.kills.push(at);
    }

    /// A call is repeated rightly where a kill fell between its task's acceptance and the repeat; each
    /// kill explains one time.
    fn explains(&self, repeat: &Repeat) -> u64 {
        let kills = self.kills.iter().filter(|at| (repeat.from..=repeat.to).contains(at)).count();
        repeat.times.min(kills as u64)
    }

    /// Tasks that an answer named.
    fn own(&self) -> impl Iterator<Item = (&Id, &Task)> {
        self.tasks.iter().filter(|(_, task)| task.answered)
    }

    /// Buried without an answer: position, and whether a record was sent whose answer was lost.
    fn unnamed(&self) -> impl Iterator<Item = (&String, bool)> {
        let unnamed = self.buried.iter().filter(|(at, _)| !self.bad.contains(*at));
        unnamed.map(|(at, key)| (at, self.unanswered.contains(key)))
    }

    fn unburied(&self) -> impl Iterator<Item = &String> {
        self.bad.iter().filter(|at| !self.buried.contains_key(*at))
    }

    pub(super) fn sums(&self) -> Sums {
        let at = |place| count(self.own().filter(|(_, t)| t.place() == place));
        // More records came in than were answered.
        let unseen = count(self.unnamed().filter(|(_, lost)| *lost));
        Sums {
            records: self.records + unseen,
            tasks: count(self.own()),
            duplicates: self.duplicates,
            refused: self.turned_away + self.bad.len() as u64 + unseen,
            results: at(Some(Place::Result)),
            waiting: at(Some(Place::Waiting)),
            letters: at(Some(Place::Letter)),
            nowhere: at(None) + count(self.unburied()),
            twice: count(self.own().filter(|(_, t)| t.twice())),
            repeats: self.repeats.values().map(|r| r.times).sum(),
            explained: self.repeats.values().map(|r| self.explains(r)).sum(),
            strangers: self.strangers().len() as u64,
            kills: self.kills.len() as u64,
        }
    }

    /// Tasks, and how many are in each place: results, waiting for a person, dead letters, under way.
    pub(super) fn of_kind(&self, kind: &str) -> [u64; 5] {
        let mut row = [0; 5];
        for (_, task) in self.own().filter(|((k, _), _)| k == kind) {
            row[0] += 1;
            let column = match task.place() {
                Some(Place::Result) => 1,
                Some(Place::Waiting) => 2,
                Some(Place::Letter) => 3,
                None => 4,
            };
            row[column] += 1;
        }
        row
    }

    /// Tasks and records that are in no place.
    pub(super) fn missing(&self) -> Vec<String> {
        let tasks = self.own().filter(|(_, t)| t.place().is_none()).map(|(id, _)| name(id));
        tasks.chain(self.unburied().map(|at| format!("the record at {at}"))).collect()
    }

    /// Tasks and records in some place that nobody sent.
    pub(super) fn strangers(&self) -> Vec<String> {
        let tasks = self.tasks.iter().filter(|(_, t)| !t.answered).map(|(id, _)| name(id));
        let records = self.unnamed().filter(|(_, lost)| !lost);
        tasks.chain(records.map(|(at, _)| format!("the record at {at}"))).collect()
    }

    pub(super) fn twice(&self) -> Vec<String> {
        self.own().filter(|(_, t)| t.twice()).map(|(id, _)| name(id)).collect()
    }

    pub(super) fn unexplained(&self) -> Vec<String> {
        let calls = self.repeats.iter().filter(|(_, r)| self.explains(r) < r.times);
        calls.map(|((id, _, slot), r)| format!("{} {slot}, {} times", name(id), r.times)).collect()
    }
}

fn name((kind, key): &Id) -> String {
    format!("{kind}/{key}")
}

fn count<T>(all: impl Iterator<Item = T>) -> u64 {
    all.count() as u64
}

#[cfg(test)]
mod tests;
