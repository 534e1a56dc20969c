//! The figures of the engine on Kafka and Redis: real servers on this machine, real fsync of Redis.
//!
//! What is compared is measured in one run: the machine, the broker and the records are the same.

pub(crate) mod bare;
pub(crate) mod chaos;
pub(crate) mod copy;
mod fleet;
pub(crate) mod latency;
mod power_cut;
pub(crate) mod rebalance;
mod reckoning;

use crate::rig::kafka_broker::Broker;
use crate::rig::place::Place;
use crate::rig::redis_server::Server;
use std::sync::Arc;
use tidegate::engine::Engine;
use tidegate::engine::distributed;
use tidegate::settings::Settings;

/// A broker and a Redis, empty at the start.
pub(crate) struct Cluster {
    pub(crate) broker: Broker,
    pub(crate) redis: Server,
    /// Where clients are told to go; a proxy, where there is one.
    pub(crate) kafka_at: String,
    pub(crate) redis_at: String,
}

impl Cluster {
    /// `sync`: how Redis keeps what it acknowledges.
    pub(crate) fn start(sync: &[&str]) -> Self {
        let broker = Broker::start();
        let redis = Server::own(sync).expect("a Redis of our own");
        let (kafka_at, redis_at) = (broker.address.clone(), redis.url());
        Cluster { broker, redis, kafka_at, redis_at }
    }

    /// A place whose configuration is `text` and, in `[engine]`, these servers and `engine`.
    pub(crate) fn place(&self, text: &str, engine: &str) -> Place {
        let (kafka, redis) = (&self.kafka_at, &self.redis_at);
        Place::new(&format!("{text}\n[engine]\nkafka = \"{kafka}\"\nredis = \"{redis}\"\n{engine}\n"))
    }

    /// Creates the topics of a place.
    pub(crate) fn apply(&self, place: &Place) {
        let (code, said, why) = place.tool(&["topics", "apply"]);
        assert_eq!(code, 0, "{said}{why}");
    }
}

/// The engine of a place, in this very process.
pub(crate) async fn opened(settings: &Settings) -> Engine {
    let cluster = settings.cluster().expect("a place on Kafka");
    distributed::connect(cluster).await.unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn load(place: &Place) -> Arc<Settings> {
    Arc::new(Settings::load(&place.config()).unwrap_or_else(|e| panic!("{e}")))
}
