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

impl Upkeep {
    /// For as long as the engine is open.
    pub(super) async fn run(self) {
        // The tie that was counted last.
        let mut counted = None;
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
                self.judge(looked, &mut counted, now);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn judge(&self, looked: Looked, counted: &mut Option<String>, now: Timestamp) {
        let mut whys: Vec<String> = looked.refused.into_iter().collect();
        match looked.keeps {
            Keeps::Ours(tie) => {
                let emptied = tie.emptied.is_some_and(|at| at.plus(self.window) > now);
                if emptied && counted.replace(tie.name.clone()).as_ref() != Some(&tie.name) {
                    metrics::counter!("tidegate_ledger_emptied_total").increment(1);
                }
                whys.extend(emptied.then(|| EMPTIED.to_owned()));
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
