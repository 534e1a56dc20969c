//! Looks now and then whether what was made sure of at the start still holds: topics as they must be, a Redis
//! that keeps what it is told and still knows this installation. Tells what it finds, and stops nothing: work
//! that meets the trouble waits by itself.

use super::Parts;
use super::health::Part;
use super::kafka::TopicAdmin;
use super::opening::{names, sound};
use super::redis::{Looked, RedisStore, Tie};
use crate::engine::TopicSpec;
use std::sync::Arc;
use std::time::Duration;

/// Soon enough for a person who has just changed something, for two connections and a question about each topic.
const LOOK_EVERY: Duration = Duration::from_secs(30);

const EMPTIED: &str = "Redis has lost all that it knew of this installation (FLUSHALL, another server, an older \
                       file?): copies of what was done before get a second outcome until the dedupe window has \
                       passed, so stop whatever sends copies; told until this process starts anew";

pub(super) struct Upkeep {
    pub(super) admin: TopicAdmin,
    pub(super) topics: Vec<TopicSpec>,
    pub(super) window: Duration,
    pub(super) store: Arc<RedisStore>,
    /// As the start has found it.
    pub(super) tie: Tie,
    /// Whether the start has found a store that knew nothing beside groups that have worked before.
    pub(super) emptied: bool,
    /// Whose claims the store keeps: the cluster's id, and the group.
    pub(super) log: String,
    pub(super) group: String,
    pub(super) parts: Arc<Parts>,
}

impl Upkeep {
    /// For as long as the engine is open.
    pub(super) async fn run(mut self) {
        let mut emptied = None;
        if self.emptied {
            self.tell_emptied(&mut emptied);
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            // A server that does not answer is told by those who need it.
            if self.parts.reaches_broker()
                && let Ok(found) = self.admin.describe(&names(&self.topics)).await
            {
                let why = sound(&self.topics, &found, self.window).err();
                self.tell(Part::Topics, why.map(|why| why.to_string()));
            }
            match self.store.look(&self.log, &self.group, &self.tie).await {
                Ok(Looked::Well) => self.tell(Part::Store, emptied.clone()),
                Ok(Looked::Refused(why)) => self.tell(Part::Store, Some(why)),
                Ok(Looked::Another(other)) => self.tell(
                    Part::Store,
                    Some(format!(
                        "Redis now keeps the claims of another installation ({other}), so each publishes what the \
                         other publishes: stop one, and give it a Redis or an `[engine] prefix` of its own"
                    )),
                ),
                Ok(Looked::Emptied(tie)) => {
                    self.tie = tie;
                    self.tell_emptied(&mut emptied);
                }
                Err(_) => {}
            }
        }
    }

    fn tell_emptied(&self, emptied: &mut Option<String>) {
        metrics::counter!("tidegate_ledger_emptied_total").increment(1);
        *emptied = Some(EMPTIED.to_owned());
        self.tell(Part::Store, emptied.clone());
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
