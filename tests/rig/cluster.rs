//! One Kafka broker and one Redis for all stories of a run: started by the first that needs them, ended
//! with the process, however it ends.
//!
//! `TIDEGATE_STORIES=kafka` puts every place on them. Each place has topics, groups and claims of its own:
//! its prefix keeps them apart.

use super::kafka_broker;
use super::place::scratch;
use super::process::afterwards;
use super::redis_server::{ALWAYS, Server};
use std::ffi::OsStr;
use std::process::ChildStdin;
use std::sync::OnceLock;
use tempfile::TempDir;

pub(crate) struct Shared {
    pub(crate) kafka: String,
    pub(crate) redis: String,
    _redis: Server,
    _dir: TempDir,
    /// Whoever reads its other end stops the servers when it closes: that is when this process ends.
    _held: ChildStdin,
}

pub(crate) fn servers() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(start)
}

/// The lines of an `[engine]` with this prefix. Sessions are short, so that a killed process is soon missed.
pub(crate) fn engine(kafka: &str, redis: &str, prefix: &str, partitions: u32) -> String {
    format!(
        "kafka = \"{kafka}\"\nredis = \"{redis}\"\nprefix = \"{prefix}\"\npartitions = {partitions}\n\
         properties = {{ \"session.timeout.ms\" = 6000, \"heartbeat.interval.ms\" = 500 }}\n"
    )
}

fn start() -> Shared {
    let dir = scratch();
    let redis = Server::start_own(&ALWAYS);
    // Before the broker: it stops what is there by then, also where the broker does not come up.
    let (id, down) = (redis.id().to_string(), kafka_broker::path("kafka-down"));
    let args = [OsStr::new(&id), down.as_ref(), dir.path().as_ref(), redis.place().as_ref()];
    let held = afterwards("kill $1; $2 $3; rm -rf $3 $4", &args);
    let kafka = kafka_broker::up(dir.path(), None);
    Shared { kafka, redis: redis.url(), _redis: redis, _dir: dir, _held: held }
}
