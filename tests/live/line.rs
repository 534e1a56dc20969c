//! One connection: the order of its calls, what breaks it, and that what it gave up arrives no more.

use crate::rig::redis_server::{ALWAYS, EVERYSEC, NOT, Server, prefix};
use crate::stored::{ME, admit, admitted, asked, close, slot, store, token};
use futures::FutureExt as _;
use redis::AsyncCommands;
use std::time::Duration;
use tidegate::dedupe::{SlotKind, Standing};
use tidegate::engine::distributed::client::{Broken, Connection, Sent};
use tidegate::engine::distributed::redis::checks::Durability;
use tidegate::engine::distributed::redis::written::{self, Keys};
use tidegate::engine::distributed::redis::{RedisConnection, RedisStore};
use tidegate::engine::script::{LedgerCall, LedgerReply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

fn winner(reply: Result<LedgerReply, Broken>) -> String {
    match reply.unwrap() {
        LedgerReply::Stored(kept, Standing::Stands) => String::from_utf8(kept.value.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// It is told so, and so is whoever asks for anything at all.
async fn is_broken(connection: &RedisConnection, because: &str) {
    let answers = [
        asked(connection, admit(&token("later"))).await.map(|_| ()),
        connection.beat(ME).await,
        connection.look(vec![token("k").key]).await.map(|_| ()),
        connection.list(None, 1).await.map(|_| ()),
    ];
    for answer in answers {
        let Broken(why) = answer.expect_err("told that it is broken");
        assert!(why.contains("is broken") && why.contains(because), "{why}");
    }
}

#[tokio::test]
async fn calls_arrive_in_the_order_in_which_they_are_made() {
    let server = Server::any();
    let connection = server.store(&prefix()).reach().await.unwrap();
    for round in 0..5 {
        let token = token(&format!("k{round}"));
        admitted(&connection, &token).await;
        // More than wait to be written, all at once, two for each slot: the first writer wins.
        let writer = |n: usize| if n.is_multiple_of(2) { "first" } else { "second" };
        let calls =
            (0..3_000).map(|n| asked(&connection, store(&token, &format!("slot {}", n / 2), writer(n))));
        let told: Vec<String> = futures::future::join_all(calls).await.into_iter().map(winner).collect();
        assert_eq!(told.iter().position(|value| value != "first"), None, "a call was overtaken by the next");
    }
}

#[tokio::test]
async fn p2_a_server_that_forgot_the_scripts_breaks_the_connection_and_the_next_one_is_whole() {
    let Some(server) = Server::own(&NOT) else { return };
    let store = server.store("p");
    let connection = store.reach().await.unwrap();
    admitted(&connection, &token("k")).await;
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut server.plain().await).await.unwrap();
    asked(&connection, close(&token("k"))).await.unwrap_err();
    is_broken(&connection, "NoScript").await;
    let next = store.reach().await.unwrap();
    asked(&next, close(&token("k"))).await.unwrap();
}

#[tokio::test]
async fn an_error_of_the_servers_breaks_the_connection_for_everybody() {
    let server = Server::any();
    let prefix = prefix();
    let connection = server.store(&prefix).reach().await.unwrap();
    let claim = Keys::new(&prefix).unwrap().claim(&written::scope(&token("k").key));
    let (): () = server.plain().await.set(&claim, "not a hash").await.unwrap();
    let (bad, good) = (token("k"), token("good"));
    let (bad, _) = futures::join!(asked(&connection, admit(&bad)), asked(&connection, admit(&good)));
    assert!(bad.unwrap_err().0.contains("WRONGTYPE"));
    is_broken(&connection, "WRONGTYPE").await;
}

#[tokio::test]
async fn p7_a_claim_that_a_newer_version_wrote_stops_nobody_else() {
    let server = Server::any();
    let prefix = prefix();
    let connection = server.store(&prefix).reach().await.unwrap();
    let keys = Keys::new(&prefix).unwrap();
    let mut plain = server.plain().await;
    for key in ["a", "newer", "slot", "z"] {
        admitted(&connection, &token(key)).await;
    }
    let key = |name| keys.claim(&written::scope(&token(name).key));
    let (): () = plain.hset(key("newer"), "v", 2).await.unwrap();
    let (): () = plain.hset(key("slot"), "#ask", "2 told otherwise").await.unwrap();
    for (name, what) in [("newer", "claim"), ("slot", "slot")] {
        let claim: Vec<(String, String)> = plain.hgetall(key(name)).await.unwrap();
        let release = LedgerCall::Release { nonce: crate::stored::NONCE, key: token(name).key, unheard: 0 };
        for call in [admit(&token(name)), store(&token(name), "ask", "x"), release] {
            let Broken(why) = asked(&connection, call.clone()).await.unwrap_err();
            assert!(why.contains(&format!("the stored {what} has format version 2")), "{call:?}: {why}");
        }
        assert_eq!(plain.hgetall::<_, Vec<(String, String)>>(key(name)).await.unwrap(), claim, "as it was");
        connection.look(vec![token(name).key]).await.unwrap_err();
    }
    admitted(&connection, &token("a")).await;
    let listed = connection.list(None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|view| &*view.key.key).collect::<Vec<_>>(), ["a", "z"]);
}

#[tokio::test]
async fn p3_a_server_that_does_not_answer_breaks_the_connection_within_the_limit() {
    let Some(server) = Server::own(&NOT) else { return };
    let connection = server.store("p").reach().await.unwrap();
    admitted(&connection, &token("k")).await;
    server.signal("STOP");
    let calls = (0..50).map(|n| asked(&connection, store(&token("k"), "ask", &n.to_string())));
    for told in futures::future::join_all(calls).await {
        assert!(told.unwrap_err().0.contains("no answer within 2 s"));
    }
    is_broken(&connection, "no answer within 2 s").now_or_never().expect("who asks later does not wait");
    server.signal("CONT");
    asked(&connection, close(&token("k"))).await.expect_err("it does not come back by itself");
}

/// Passes bytes on to a server; what the first connection says is kept back on demand.
struct Relay {
    address: String,
    hold: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hold = watch::Sender::new(false);
        let (server, held) = (server.to_owned(), hold.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut relays = JoinSet::new();
            let mut first = true;
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let held = std::mem::take(&mut first).then(|| held.clone());
                relays.spawn(relay(client, server, held));
            }
        });
        Relay { address, hold, _tasks: tasks }
    }
}

/// As the network does, it delivers what was sent although the sender has gone since.
async fn relay(client: TcpStream, server: TcpStream, held: Option<watch::Receiver<bool>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            if let Some(mut held) = held.clone() {
                held.wait_for(|hold| !hold).await.unwrap();
            }
            if to_server.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    let back = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            let _ = to_client.write_all(&buffer[..n]).await;
        }
    };
    futures::join!(there, back);
}

#[tokio::test]
async fn p1_what_a_broken_connection_had_sent_does_not_arrive_after_the_next_one_has_begun() {
    let server = Server::any();
    let relay = Relay::to(&server.address).await;
    let store_ =
        RedisStore::new(&format!("redis://{}", relay.address), &prefix(), crate::rig::redis_server::WINDOW)
            .unwrap();
    let first = store_.reach().await.unwrap();
    admitted(&first, &token("k")).await;
    relay.hold.send_replace(true);
    asked(&first, store(&token("k"), "ask", "late")).await.unwrap_err();
    is_broken(&first, "no answer within 2 s").await;

    let next = store_.reach().await.unwrap();
    assert!(connection_answers(&next).await);
    relay.hold.send_replace(false);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(winner(asked(&next, store(&token("k"), "ask", "new")).await), "new");
}

async fn connection_answers(connection: &RedisConnection) -> bool {
    connection.beat(ME).await.is_ok()
}

#[tokio::test]
async fn a_store_ends_its_own_connection_before_and_nobody_elses() {
    let server = Server::any();
    let prefix = prefix();
    let (mine, theirs) = (server.store(&prefix), server.store(&prefix));
    let (before, other) = (mine.reach().await.unwrap(), theirs.reach().await.unwrap());
    let next = mine.reach().await.unwrap();
    assert!(connection_answers(&next).await && connection_answers(&other).await);
    assert!(!connection_answers(&before).await);
}

#[tokio::test]
async fn p1_a_server_that_drops_keys_is_refused_and_what_a_crash_costs_is_told() {
    let kinds =
        [(&ALWAYS[..], Durability::Always), (&EVERYSEC, Durability::EverySecond), (&NOT, Durability::None)];
    for (settings, found) in kinds {
        let Some(server) = Server::own(settings) else { return };
        assert_eq!(server.store("p").check().await, Ok(found));
        let set = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"];
        let mut set_policy = redis::cmd(set[0]);
        set_policy.arg(&set[1..]);
        let _: () = set_policy.query_async(&mut server.plain().await).await.unwrap();
        for refused in [server.store("p").check().await.err(), server.store("p").reach().await.err()] {
            let Broken(why) = refused.expect("refused");
            assert!(
                why.contains("`allkeys-lru`") && why.contains("set `maxmemory-policy noeviction`"),
                "{why}"
            );
        }
    }
}

#[tokio::test]
async fn p1_an_instance_is_judged_by_its_heartbeat_alone() {
    let server = Server::any();
    let prefix = prefix();
    let connection = server.store(&prefix).reach().await.unwrap();
    let token = token("k");
    let claim = admitted(&connection, &token).await;
    connection.beat(ME).await.unwrap();
    let other = tidegate::dedupe::Instance(9);
    let start = |nonce| {
        let claim = tidegate::dedupe::Claim { nonce: tidegate::dedupe::Nonce(nonce), ..claim.clone() };
        LedgerCall::Start { claim, slot: slot("ask", SlotKind::Call), deadline: Duration::from_secs(60) }
    };
    asked(&connection, start(2)).await.unwrap();
    let ask = |settled| connection.call(other, Sent { call: start(3), settled });
    assert!(format!("{:?}", ask(true).await).contains("Busy"), "its heartbeat has not run out");
    let beat = Keys::new(&prefix).unwrap().beat(ME);
    let (): () = server.plain().await.del(beat).await.unwrap();
    assert!(format!("{:?}", ask(false).await).contains("Busy"), "who is not settled does not judge");
    assert!(format!("{:?}", ask(true).await).contains("Go { repeat: true, times: 1, deaths: 1 }"));
}

#[tokio::test]
async fn nothing_is_reached_where_nothing_listens() {
    let port = crate::rig::process::free_port();
    let store =
        RedisStore::new(&format!("redis://127.0.0.1:{port}"), "p", crate::rig::redis_server::WINDOW).unwrap();
    let Broken(why) = store.reach().await.err().unwrap();
    assert!(why.starts_with(&format!("no connection to Redis at 127.0.0.1:{port}: ")), "{why}");
    assert!(store.check().await.is_err());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let store = RedisStore::new(&url, "p", crate::rig::redis_server::WINDOW).unwrap();
    let Broken(why) = store.reach().await.err().unwrap();
    assert_eq!(why, format!("no connection to Redis at {} within 5 s", silent.local_addr().unwrap()));
}
