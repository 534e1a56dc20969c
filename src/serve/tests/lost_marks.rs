//! Outcomes that the ledger never heard of, and one of which it hears before the log shows it.

use super::*;
use crate::serve::lookup::Place;

#[tokio::test]
async fn p1_the_slow_pass_finds_every_outcome_whose_mark_was_lost_and_no_other() {
    let server = Server::start().await;
    let now = Timestamp::now();
    let origin = |n: u32| position(&format!("tasks.copy/0/{n}"));
    let mine = |key: &str, n: u32| token("copy", key, &origin(n), "{}");
    let (result, dead, own) = (mine("result", 1), mine("dead", 2), mine("own", 3));
    let (works, redriven, fresh) = (mine("works", 4), mine("redriven", 5), mine("fresh", 6));
    for n in [1, 2, 3, 5, 6] {
        server.memory.complete(&origin(n));
    }
    let open = |token: &Token| ClaimView { changed: now, ..claim(token, 0, Phase::Open) };
    for token in [&result, &dead, &own, &works] {
        server.memory.claim(open(token));
    }
    server.memory.claim(ClaimView { generation: 1, ..open(&redriven) });
    server.memory.claim(ClaimView { changed: now.plus(Duration::from_secs(1)), ..open(&fresh) });
    // More than one page, and what is looked for behind them.
    for n in 0..1_100 {
        server.publish(&mine(&format!("k{n}"), 100 + n), json!(n));
    }
    let at = server.publish(&result, json!("this"));
    server.publish(&redriven, json!("the generation before"));
    server.publish(&fresh, json!("its mark may be on the way"));
    let letter = server.memory.put(bury(&dead, true, b"{}"));
    server.memory.put(bury(&own, false, b"under its own coordinates"));
    let mut after = None;
    assert_eq!(server.lookup.pass(&mut after, now).await, Ok(2));
    assert_eq!(after, None, "all claims were seen");
    let told: Vec<_> = server
        .memory
        .repairs()
        .into_iter()
        .map(|(token, outcome, at)| (token.key.key.to_string(), outcome, at))
        .collect();
    let expected = [
        ("result".to_owned(), OutcomeKind::Result, at),
        ("dead".to_owned(), OutcomeKind::DeadLetter, letter),
    ];
    assert_eq!(told, expected);
    server.end().await;
}

#[tokio::test]
async fn an_outcome_that_the_log_does_not_show_yet_is_still_being_done_and_is_then_told_whole() {
    let server = Server::start().await;
    let origin = position("tasks.copy/0/1");
    let token = token("copy", "k", &origin, "{}");
    let probe = server.publish(&token, json!("before"));
    let at = Position { offset: probe.offset + 1, ..probe };
    let closed = Phase::Closed { outcome: OutcomeKind::Result, at };
    server.memory.claim(ClaimView { changed: Timestamp::now(), ..claim(&token, 0, closed.clone()) });
    let find = async || server.lookup.find(&token.key).await.unwrap().unwrap().place;
    assert!(matches!(find().await, Place::Running), "{:?}", find().await);
    server.publish(&token, json!("this"));
    assert!(matches!(find().await, Place::Result { .. }), "{:?}", find().await);
    // What has been missing for so long is not on its way.
    let far = Position { offset: 1_000, ..position("results/0/0") };
    let closed = Phase::Closed { outcome: OutcomeKind::Result, at: far };
    server.memory.claim(ClaimView { changed: Timestamp(1), ..claim(&token, 0, closed) });
    assert!(matches!(find().await, Place::Forgotten { .. }), "{:?}", find().await);
    server.end().await;
}
