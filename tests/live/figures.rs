//! Many calls under way on one connection: each is answered for what it asked. How fast that is, with many and
//! with one, is told and proves nothing: with `appendfsync always`, calls under way share the syncs of the disk.

use crate::rig::measured;
use crate::rig::redis_server::{ALWAYS, EVERYSEC, Server};
use crate::stored::{admitted, asked, close, token};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::time::Instant;
use tidegate::engine::distributed::client::Connection as _;
use tidegate::engine::distributed::redis::RedisConnection;

const IN_FLIGHT: usize = 256;

/// A task comes, and goes if it may.
async fn task(connection: &RedisConnection, key: String, goes: bool) {
    let token = token(&key);
    assert_eq!(admitted(connection, &token).await.token, token);
    if goes {
        asked(connection, close(&token)).await.unwrap();
    }
}

/// Every tenth stays. How many came a second?
async fn tasks(connection: &RedisConnection, name: &str, count: usize, in_flight: usize) -> f64 {
    let began = Instant::now();
    let all = futures::stream::iter(0..count)
        .map(|n| task(connection, format!("{name}{n}"), !n.is_multiple_of(10)));
    all.buffer_unordered(in_flight).collect::<Vec<()>>().await;
    count as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test]
async fn many_calls_under_way_are_each_answered_and_only_what_was_not_closed_is_open() {
    for (name, settings) in [("always", ALWAYS), ("everysec", EVERYSEC)] {
        let Some(server) = Server::own(&settings) else { return };
        let connection = server.store("p").reach().await.unwrap();
        let (few, many) = (200, 10_000);
        let alone = tasks(&connection, "alone", few, 1).await;
        let together = tasks(&connection, "together", many, IN_FLIGHT).await;
        measured(&format!(
            "appendfsync {name}: {together:.0} pairs of admit and close a second with {IN_FLIGHT} in flight, \
             {alone:.0} with one"
        ));
        let open = connection.list(None, many).await.unwrap();
        let open: BTreeSet<String> = open.into_iter().map(|view| view.key.key.to_string()).collect();
        let named = |name, count| (0..count).step_by(10).map(move |n| format!("{name}{n}"));
        assert_eq!(open, named("alone", few).chain(named("together", many)).collect());
    }
}
