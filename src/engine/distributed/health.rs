//! How the engine is, of all that can be wrong at once: decides which troubles are told, and the worst first.
//!
//! Knows nothing of how a trouble is found out or ends; whoever finds it says both.

use super::lock;
use crate::engine::Health;
use crate::task::Partition;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::sync::watch;

/// What may be in trouble; the first of those that are says how bad it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Part {
    /// The broker, as a group of this process sees it; by its place among them.
    Broker(usize),
    Ledger,
    Partition(Partition),
    /// Topics and Redis are not as a start would want them.
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "there are none to look after"))]
    Topics,
    #[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "there are none to look after"))]
    Store,
}

pub(super) struct Condition {
    /// As many as there are groups, and partitions that are not read.
    troubles: Mutex<BTreeMap<Part, String>>,
    told: watch::Sender<Health>,
}

impl Default for Condition {
    /// Until the ledger was reached, nothing can be done.
    fn default() -> Self {
        let why = "the ledger has not been reached yet".to_owned();
        let told = watch::Sender::new(Health::Paused { why: why.clone() });
        Condition { troubles: Mutex::new(BTreeMap::from([(Part::Ledger, why)])), told }
    }
}

impl Condition {
    pub(super) fn told(&self) -> watch::Receiver<Health> {
        self.told.subscribe()
    }

    /// `None`: it is well again. Whether that is news.
    pub(super) fn is(&self, part: Part, why: Option<String>) -> bool {
        let mut troubles = lock(&self.troubles);
        let changed = match why {
            Some(why) => troubles.insert(part, why.clone()).is_none_or(|before| before != why),
            None => troubles.remove(&part).is_some(),
        };
        let now = match troubles.keys().next() {
            // The others are read, and whoever asks is served.
            Some(Part::Partition(_) | Part::Store | Part::Topics) => Health::Partly { why: all(&troubles) },
            Some(_) => Health::Paused { why: all(&troubles) },
            None => Health::Well,
        };
        self.told.send_if_modified(|told| {
            let news = *told != now && !matches!(told, Health::Gone { .. });
            if news {
                *told = now;
            }
            news
        });
        changed
    }

    #[cfg(feature = "kafka")]
    pub(super) fn reaches_broker(&self) -> bool {
        !lock(&self.troubles).keys().any(|part| matches!(part, Part::Broker(_)))
    }

    /// For good.
    pub(super) fn gone(&self, why: String) {
        self.told.send_replace(Health::Gone { why });
    }
}

/// Troubles that one sentence names; of many partitions one tells enough.
const NAMED: usize = 3;

/// The worst first, each once.
fn all(troubles: &BTreeMap<Part, String>) -> String {
    let mut named: Vec<&str> = Vec::new();
    for why in troubles.values() {
        if !named.contains(&why.as_str()) {
            named.push(why);
        }
    }
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.join("; also: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Topic;

    #[test]
    fn the_worst_trouble_is_told_and_the_next_one_once_it_is_over() {
        let condition = Condition::default();
        let told = condition.told();
        let why = |health: &Health| match health {
            Health::Paused { why } | Health::Partly { why } => why.clone(),
            other => panic!("{other:?}"),
        };
        assert!(why(&told.borrow()).contains("not been reached yet"));
        let partition = Part::Partition(Partition { topic: Topic::new("t"), index: 3 });
        assert!(condition.is(partition.clone(), Some("not read".into())));
        assert!(condition.is(Part::Topics, Some("a topic is missing".into())));
        assert!(condition.is(Part::Ledger, Some("no Redis".into())));
        assert!(!condition.is(Part::Ledger, Some("no Redis".into())), "no news");
        assert!(condition.is(Part::Broker(1), Some("no Kafka".into())));
        assert_eq!(why(&told.borrow()), "no Kafka; also: no Redis; also: not read; and 1 more");
        assert!(condition.is(Part::Broker(1), None));
        assert!(condition.is(Part::Broker(7), Some("no Redis".into())));
        assert_eq!(why(&told.borrow()), "no Redis; also: not read; also: a topic is missing", "each once");
        assert!(condition.is(Part::Broker(7), None));
        assert!(condition.is(Part::Ledger, None));
        assert_eq!(
            *told.borrow(),
            Health::Partly { why: "not read; also: a topic is missing".into() },
            "the others are served"
        );
        assert!(condition.is(partition, None));
        assert_eq!(*told.borrow(), Health::Partly { why: "a topic is missing".into() });
        assert!(condition.is(Part::Topics, None));
        assert_eq!(*told.borrow(), Health::Well);
    }

    #[test]
    fn what_has_ended_for_good_never_looks_well_again() {
        let condition = Condition::default();
        let told = condition.told();
        condition.gone("it is over".into());
        condition.is(Part::Ledger, None);
        assert_eq!(*told.borrow(), Health::Gone { why: "it is over".into() });
    }
}
