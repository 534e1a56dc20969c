//! What was sent and what was promised for it, kept outside the log: every record appended with the
//! position it was given, every task answered with 202, every decision and redrive answered with 200.
//!
//! The log at rest is held against it. Pure; believes nothing that lies in the log.

use crate::books::{Part, Row, Shelf};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A decision that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) item: String,
    /// A name of its own for each decision.
    pub(crate) by: String,
    /// `approved`, `rejected`; none: it was only said to be written down.
    pub(crate) status: Option<String>,
}

/// A dead letter that was sent again, and where the answer said that it went.
#[derive(Clone, Debug)]
pub(crate) struct Redriven {
    pub(crate) letter: String,
    pub(crate) sent_to: String,
}

/// A task that was handed in by HTTP, whatever came of it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Offered {
    pub(crate) kind: String,
    pub(crate) payload: Value,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Promised {
    /// By the position that `append` returned.
    pub(crate) appended: BTreeMap<String, Row>,
    /// By key.
    pub(crate) offered: BTreeMap<String, Offered>,
    /// Keys answered with 202.
    pub(crate) accepted: BTreeSet<String>,
    pub(crate) decided: Vec<Decided>,
    pub(crate) redriven: Vec<Redriven>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Broken {
    /// Appended and not there, or not as it was sent.
    Record {
        at: String,
        why: &'static str,
    },
    Accepted {
        key: String,
    },
    Decision {
        item: String,
        by: String,
        why: &'static str,
    },
    Redrive {
        letter: String,
        sent_to: String,
        why: &'static str,
    },
    /// A record that nobody sent.
    Nobodys {
        at: String,
    },
}

impl Promised {
    /// Everything that was promised and is not in the log, and what lies there without having been sent.
    pub(crate) fn broken(&self, shelf: &Shelf) -> Vec<Broken> {
        let tasks: BTreeMap<&str, &Row> =
            shelf.tasks.values().flatten().chain(&shelf.resume).map(|row| (row.at.as_str(), row)).collect();
        let mut broken = self.lost_records(&tasks);
        broken.extend(self.lost_tasks(shelf));
        broken.extend(self.decided.iter().filter_map(|decided| lost_decision(decided, shelf)));
        broken.extend(self.redriven.iter().filter_map(|redriven| lost_redrive(redriven, shelf, &tasks)));
        broken.extend(self.nobodys(shelf));
        broken.sort();
        broken
    }

    fn lost_records(&self, tasks: &BTreeMap<&str, &Row>) -> Vec<Broken> {
        let wrong = |(at, sent): (&String, &Row)| {
            let why = match tasks.get(at.as_str()) {
                None => "it is not in the log",
                Some(row) if row.says() != sent.says() => "its bytes are not what was sent",
                Some(_) => return None,
            };
            Some(Broken::Record { at: at.clone(), why })
        };
        self.appended.iter().filter_map(wrong).collect()
    }

    fn lost_tasks(&self, shelf: &Shelf) -> Vec<Broken> {
        let kept: BTreeSet<(&str, &str)> = shelf
            .tasks
            .iter()
            .flat_map(|(kind, rows)| rows.iter().map(move |row| (kind, row)))
            .filter(|(kind, row)| self.is_offered(kind, row))
            .map(|(kind, row)| (kind.as_str(), row.header("idempotency-key")))
            .collect();
        let lost = |key: &&String| {
            let kind = self.offered.get(*key).map_or("", |o| o.kind.as_str());
            !kept.contains(&(kind, key.as_str()))
        };
        self.accepted.iter().filter(lost).map(|key| Broken::Accepted { key: key.clone() }).collect()
    }

    fn is_offered(&self, kind: &str, row: &Row) -> bool {
        let offered = self.offered.get(row.header("idempotency-key"));
        offered.is_some_and(|o| o.kind == kind && o.payload == row.json())
    }

    /// What was neither appended, nor offered, nor is a dead letter that was sent again.
    fn nobodys(&self, shelf: &Shelf) -> Vec<Broken> {
        let buried: BTreeSet<(&Part, &Part)> =
            shelf.dead_letters.iter().map(|l| (&l.key, &l.value)).collect();
        let is_again = |row: &Row| buried.contains(&(&row.key, &row.value));
        let sent = shelf.tasks.iter().flat_map(|(kind, rows)| rows.iter().map(move |row| (kind, row)));
        let of_tasks = sent
            .filter(|(kind, row)| {
                !self.appended.contains_key(&row.at) && !self.is_offered(kind, row) && !is_again(row)
            })
            .map(|(_, row)| row);
        let resumed = shelf.resume.iter().filter(|row| row.header("tidegate-origin").is_empty());
        let of_resume = resumed.filter(|row| !is_again(row));
        of_tasks.chain(of_resume).map(|row| Broken::Nobodys { at: row.at.clone() }).collect()
    }
}

/// A decision that counts is in the log under its sender's name, has one result, and is published as
/// the one that counts. One that was only written down is in the log.
fn lost_decision(decided: &Decided, shelf: &Shelf) -> Option<Broken> {
    let Decided { item, by, status } = decided;
    let broken = |why| Some(Broken::Decision { item: item.clone(), by: by.clone(), why });
    let is = |value: &Value, name: &str, text: &str| value[name] == text;
    let written = shelf.review_decisions.iter().any(|row| {
        let decision = row.json();
        is(&decision, "item", item) && is(&decision, "by", by)
    });
    if !written {
        return broken("it is not in the log");
    }
    let status = status.as_ref()?;
    let counts = shelf.review_outcomes.iter().any(|row| {
        let outcome = row.json();
        is(&outcome, "item", item) && is(&outcome, "decided_by", by) && is(&outcome, "verdict", "counts")
    });
    if !counts {
        return broken("no outcome says that it counts");
    }
    let published = shelf.results.iter().any(|row| {
        let result = row.json();
        is(&result["reviewed"], "item", item)
            && is(&result["reviewed"], "by", by)
            && is(&result, "status", status)
    });
    if published { None } else { broken("its result is not in the log") }
}

fn lost_redrive(redriven: &Redriven, shelf: &Shelf, tasks: &BTreeMap<&str, &Row>) -> Option<Broken> {
    let Redriven { letter, sent_to } = redriven;
    let broken = |why| Some(Broken::Redrive { letter: letter.clone(), sent_to: sent_to.clone(), why });
    let at = format!("dead-letters/{}", letter.replacen('-', "/", 1));
    let Some(original) = shelf.dead_letters.iter().find(|row| row.at == at) else {
        return broken("the dead letter itself is gone");
    };
    match tasks.get(sent_to.as_str()) {
        None => broken("it is not in the log"),
        Some(row) if (&row.key, &row.value) != (&original.key, &original.value) => {
            broken("what was sent is not what the dead letter holds")
        }
        Some(_) => None,
    }
}
