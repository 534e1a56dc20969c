//! Looks now and then whether what was made sure of at the start still holds: topics as they must be, a Redis
//! that keeps what it is told and still knows this installation. Tells what it finds, and stops nothing: work
//! that meets the trouble waits by itself.

use super::Parts;
use super::health::Part;
use super::kafka::TopicAdmin;
use super::opening::{names, sound};
use super::redis::{Keeps, Looked, RedisStore};
use crate::engine::TopicSpec;
use crate::task::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Soon enough for a person who has just changed something, for two connections and a question about each topic.
const LOOK_EVERY: Duration = Duration::from_secs(30);

const EMPTIED: &str = "Redis has lost what it knew of this installation (FLUSHALL, keys dropped to make room, or \
                       another server?): copies of what was done before get a second outcome until the dedupe window \
                       has passed, so stop whatever sends copies; told until then";

pub(super) struct Upkeep {
    pub(super) admin: TopicAdmin,
    pub(super) topics: Vec<TopicSpec>,
    pub(super) window: Duration,
    pub(super) store: Arc<RedisStore>,
    /// Whose claims the store keeps: the cluster's id, and the group.
    pub(super) log: String,
    pub(super) group: String,
    pub(super) parts: Arc<Parts>,
}

/// What was found the last time.
#[derive(Default)]
struct Seen {
    /// The tie that was counted.
    counted: Option<String>,
    /// A run of the server, and the keys that it had dropped.
    evicted: Option<(String, u64)>,
}

impl Seen {
    /// Whether the server has dropped keys that nobody knows of. `told`: that it has lost some is told already.
    fn has_dropped_more(&mut self, run: String, evicted: u64, told: bool) -> bool {
        match self.evicted.replace((run.clone(), evicted)) {
            Some((before, known)) if before == run => evicted > known,
            _ => evicted > 0 && !told,
        }
    }
}

impl Upkeep {
    /// For as long as the engine is open.
    pub(super) async fn run(self) {
        let mut seen = Seen::default();
        loop {
            // A server that does not answer is told by those who need it.
            if self.parts.reaches_broker()
                && let Ok(found) = self.admin.describe(&names(&self.topics)).await
            {
                let why = sound(&self.topics, &found, self.window).err();
                self.tell(Part::Topics, why.map(|why| why.to_string()));
            }
            let now = Timestamp::now();
            // One that does not answer is told by those who need it.
            if let Ok(looked) = self.store.look(&self.log, &self.group, now).await {
                self.judge(looked, &mut seen, now).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn judge(&self, looked: Looked, seen: &mut Seen, now: Timestamp) {
        let mut whys: Vec<String> = looked.refused.into_iter().collect();
        match looked.keeps {
            Keeps::Ours(tie) => {
                let emptied = tie.emptied.is_some_and(|at| at.plus(self.window) > now);
                let dropped = seen.has_dropped_more(looked.run, looked.evicted, emptied);
                if dropped {
                    // For everybody, and counted at the next look. A server that cannot be told now is away.
                    let _ = self.store.mark_emptied(now).await;
                } else if emptied && seen.counted.replace(tie.name.clone()).as_ref() != Some(&tie.name) {
                    metrics::counter!("tidegate_ledger_emptied_total").increment(1);
                }
                whys.extend((emptied || dropped).then(|| EMPTIED.to_owned()));
            }
            Keeps::Another(other) => whys.push(format!(
                "Redis now keeps the claims of another installation ({other}), so each publishes what the other \
                 publishes: stop one, and give it a Redis or an `[engine] prefix` of its own"
            )),
        }
        self.tell(Part::Store, (!whys.is_empty()).then(|| whys.join("; also: ")));
    }

    fn tell(&self, part: Part, why: Option<String>) {
        if !self.parts.trouble(part.clone(), why.clone()) {
            return;
        }
        match why {
            Some(why) => tracing::error!(%why, "not as it must be"),
            None => tracing::info!(?part, "as it must be again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_keys_that_the_server_drops_are_noticed_once_for_each_time_more_of_them_are_gone() {
        let mut seen = Seen::default();
        let mut more = |run: &str, evicted, told| seen.has_dropped_more(run.to_owned(), evicted, told);
        assert!(!more("a", 0, false) && more("a", 5, false) && !more("a", 5, true) && more("a", 6, true));
        assert!(!more("b", 0, true), "it was started again, and counts anew");
        assert!(more("b", 1, true));
        let mut seen = Seen::default();
        assert!(
            !seen.has_dropped_more("a".to_owned(), 5, true),
            "another process has told before this one began"
        );
        let mut seen = Seen::default();
        assert!(seen.has_dropped_more("a".to_owned(), 5, false), "or nobody has");
    }
}
