//! The server dies and comes back: what it acknowledged with `appendfsync always` is there.

use crate::rig::eventually;
use crate::rig::redis_server::{ALWAYS, Server};
use crate::rig::script::SOON;
use crate::stored::{admit, asked, close, store, token};
use std::sync::atomic::{AtomicUsize, Ordering};
use tidegate::dedupe::{Entry, SlotName, SlotState};
use tidegate::engine::distributed::client::{Broken, Store};
use tidegate::engine::distributed::redis::RedisConnection;
use tidegate::engine::distributed::redis::written::{self, Keys};

/// Tasks in flight when it happens.
const AT_ONCE: usize = 64;
/// Tasks begun when it happens.
const ENOUGH: usize = 10 * AT_ONCE;

/// How far a task has come: admitted, answer stored, closed.
fn depth(entry: Option<&Entry>) -> usize {
    match entry {
        None => 0,
        Some(e) if e.is_closed() => 3,
        Some(e) => match e.slots.get(&SlotName("ask".into())).map(|s| &s.state) {
            Some(SlotState::Stored { value }) if value.as_ref() == b"an answer" => 2,
            None => 1,
            other => panic!("nobody left it so: {other:?}"),
        },
    }
}

/// One task after the other, until the connection breaks; how many steps of each were acknowledged.
async fn works(
    connection: &RedisConnection,
    worker: usize,
    begun: &AtomicUsize,
) -> (Vec<(String, usize)>, Broken) {
    let mut told = Vec::new();
    for n in 0.. {
        begun.fetch_add(1, Ordering::SeqCst);
        let key = format!("{worker}/{n}");
        let token = token(&key);
        let steps = [admit(&token), store(&token, "ask", "an answer"), close(&token)];
        told.push((key, 0));
        for step in steps {
            match asked(connection, step).await {
                Ok(_) => told[n].1 += 1,
                Err(broken) => return (told, broken),
            }
        }
    }
    unreachable!("it works until the connection breaks")
}

#[tokio::test]
async fn p1_a_server_that_is_killed_forgets_nothing_it_has_acknowledged() {
    let Some(mut server) = Server::own(&ALWAYS) else { return };
    let reached = server.store("p");
    let mut told: Vec<(String, usize)> = Vec::new();
    for round in 0..3 {
        let connection = reached.reach().await.unwrap();
        let begun = AtomicUsize::new(0);
        let workers = (0..AT_ONCE).map(|n| works(&connection, round * AT_ONCE + n, &begun));
        let in_the_middle = || async { (begun.load(Ordering::SeqCst) > ENOUGH).then_some(()) };
        let dies = async {
            eventually("they work", SOON, in_the_middle).await;
            server.kill();
        };
        let (worked, ()) = futures::join!(futures::future::join_all(workers), dies);
        for (tasks, Broken(why)) in worked {
            assert!(why.contains("the connection to Redis is broken"), "{why}");
            told.extend(tasks);
        }
        let Broken(_) = asked(&connection, admit(&token("later"))).await.unwrap_err();
        assert!(reached.connect().await.is_err(), "nobody listens");

        server.start();
        asked(&connection, admit(&token("later"))).await.expect_err("the old connection stays broken");
        nothing_is_forgotten(&server, &told).await;
    }
    let connection = reached.connect().await.unwrap();
    let open = told.iter().filter(|(_, steps)| *steps < 3).count();
    let listed = connection.list(None, 10_000).await.unwrap().len();
    assert!(listed <= open, "{listed} are listed as open, {open} were not acknowledged as closed");
    println!("{} tasks through 3 kills, {open} of them not closed", told.len());
}

/// What was under way when the server died may have happened or not; nothing else is open to doubt.
async fn nothing_is_forgotten(server: &Server, told: &[(String, usize)]) {
    let (keys, mut plain) = (Keys::new("p").unwrap(), server.plain().await);
    for (key, steps) in told {
        let claim = keys.claim(&written::scope(&token(key).key));
        let mut command = redis::cmd("HGETALL");
        let fields: Vec<(Vec<u8>, Vec<u8>)> = command.arg(claim).query_async(&mut plain).await.unwrap();
        let entry = written::read(fields).unwrap();
        let found = depth(entry.as_ref());
        assert!(found == *steps || found == steps + 1, "{key}: {steps} steps acknowledged, {found} found");
    }
}
