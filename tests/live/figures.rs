//! How fast one connection is: many calls under way share the syncs of the disk.

use crate::rig::redis_server::{ALWAYS, EVERYSEC, Server};
use crate::stored::{admitted, asked, close, token};
use futures::StreamExt;
use std::time::{Duration, Instant};
use tidegate::engine::distributed::redis::RedisConnection;

const IN_FLIGHT: usize = 256;

/// A task comes and goes.
async fn pair(connection: &RedisConnection, key: String) {
    let token = token(&key);
    admitted(connection, &token).await;
    asked(connection, close(&token)).await.unwrap();
}

async fn pairs(connection: &RedisConnection, name: &str, count: usize, in_flight: usize) -> Duration {
    let began = Instant::now();
    let all = futures::stream::iter(0..count).map(|n| pair(connection, format!("{name}{n}")));
    all.buffer_unordered(in_flight).collect::<Vec<()>>().await;
    began.elapsed()
}

#[tokio::test]
async fn calls_under_way_share_the_syncs_of_the_disk() {
    for (name, settings) in [("always", ALWAYS), ("everysec", EVERYSEC)] {
        let Some(server) = Server::own(&settings) else { return };
        let connection = server.store("p").reach().await.unwrap();
        let (few, many) = (200, 10_000);
        let alone = pairs(&connection, "alone", few, 1).await.div_f64(few as f64);
        let took = pairs(&connection, "together", many, IN_FLIGHT).await;
        let together = took.div_f64(many as f64);
        println!(
            "appendfsync {name}: {:.0} pairs of admit and close a second with {IN_FLIGHT} in flight, {:.0} with one",
            1.0 / together.as_secs_f64(),
            1.0 / alone.as_secs_f64(),
        );
        if name == "always" {
            assert!(together < alone / 3, "{together:?} a pair together, {alone:?} alone");
        }
    }
}
