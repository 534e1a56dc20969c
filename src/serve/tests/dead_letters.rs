//! What a list says became of dead letters, and which of them a redrive sends.

use super::*;

#[tokio::test]
async fn dead_letters_are_listed_shown_with_their_bytes_and_sent_again_once() {
    let server = Server::start().await;
    let one = token("copy", "k1", &position("tasks.copy/0/0"), "{}");
    let two = token("other", "k2", &position("tasks.other/1/0"), "{}");
    let at = server.memory.put(bury(&one, true, b"\xff\x00raw"));
    server.memory.put(bury(&two, true, b"{}"));
    server.memory.claim(claim(&one, 0, Phase::Closed { outcome: OutcomeKind::DeadLetter, at: at.clone() }));
    let mut again = claim(&two, 0, Phase::Open);
    again.generation = 1;
    server.memory.claim(again);

    let (_, all) = server.get("/v1/dead-letters").await;
    let marks = |id: &str| {
        let found = all["dead_letters"].as_array().unwrap().iter().find(|l| l["key"] == id).unwrap();
        (found["redriven"].clone(), found["left"].clone())
    };
    assert_eq!(marks("k1"), (json!(false), Value::Null), "{all}");
    assert_eq!(marks("k2"), (json!(true), json!("it was sent again before")), "{all}");
    let (_, status) = server.get("/v1/status").await;
    assert_eq!((&status["dead_letters"], &status["backlog"]), (&json!(2), &json!(0)), "{status}");
    let line = json!({ "topic": "dead-letters", "records": 2, "open": null });
    assert!(status["topics"].as_array().unwrap().contains(&line), "{status}");
    let (_, list) = server.get("/v1/dead-letters?reason=TG-payload-refused&kind=copy").await;
    assert_eq!(list["dead_letters"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(server.get("/v1/dead-letters?reason=nonsense").await.0, 400);
    let id = list["dead_letters"][0]["id"].as_str().unwrap().to_owned();
    let (_, letter) = server.get(&format!("/v1/dead-letters/{id}")).await;
    assert_eq!((&letter["value_hex"], &letter["key"]), (&json!("ff00726177"), &json!("k1")), "{letter}");
    assert_eq!(letter["headers"], json!([["x-own", "kept"]]));
    let raw = server.client.get(format!("{}/v1/dead-letters/{id}/value", server.url)).send().await.unwrap();
    assert_eq!(raw.bytes().await.unwrap(), &b"\xff\x00raw"[..]);
    assert_eq!(server.get("/v1/dead-letters/7-7").await.0, 404);
    assert_eq!(server.get("/v1/dead-letters/x").await.0, 404);

    let redrive = async |body: Value| {
        server.post("/v1/dead-letters/redrive", "application/json", body.to_string()).await
    };
    assert_eq!(redrive(json!({})).await.0, 400, "nothing says which");
    let (_, told) = redrive(json!({ "reason": "payload-refused", "dry_run": true })).await;
    assert_eq!((&told["would_redrive"], &told["left"]), (&json!(1), &json!(1)), "{told}");
    assert_eq!(told["left_because"], json!([{ "why": "it was sent again before", "count": 1 }]), "{told}");
    assert!(server.memory.all("resume").is_empty());
    let (status, told) = redrive(json!({ "reason": "payload-refused" })).await;
    assert_eq!((status, &told["redriven"]), (200, &json!(1)), "{told}");
    let sent = server.memory.all("resume");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].value.as_deref(), Some(&b"\xff\x00raw"[..]));
    let (next, _) = token::decode(&sent[0], Bytes::new()).unwrap();
    assert_eq!((next.generation, next.proof, next.hop), (1, Some(at), 0));
    assert_eq!(next.origin.position, sent[0].position, "it is its own origin");
    server.end().await;
}

#[tokio::test]
async fn while_the_ledger_is_away_letters_are_shown_without_marks_and_none_is_sent_again() {
    let server = Server::start().await;
    let one = token("copy", "k1", &position("tasks.copy/0/0"), "{}");
    let id = server.memory.put(bury(&one, true, b"raw"));
    let id = format!("{}-{}", id.at.index, id.offset);
    server.memory.forgetful.store(true, std::sync::atomic::Ordering::SeqCst);
    let (status, list) = server.get("/v1/dead-letters").await;
    assert_eq!((status, list["dead_letters"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
    let (status, letter) = server.get(&format!("/v1/dead-letters/{id}")).await;
    assert_eq!((status, &letter["value"]), (200, &json!("raw")), "{letter}");
    for seen in [&list["dead_letters"][0], &letter] {
        assert_eq!(
            (&seen["key"], &seen["redriven"], &seen["left"]),
            (&json!("k1"), &Value::Null, &Value::Null)
        );
        assert!(seen.as_object().unwrap().contains_key("redriven"), "{seen}");
    }
    let asked = json!({ "id": id }).to_string();
    let (status, told) = server.post("/v1/dead-letters/redrive", "application/json", asked).await;
    assert_eq!((status, &told["error"]["code"]), (503, &json!("unavailable")), "{told}");
    assert!(server.memory.all("resume").is_empty());
    server.end().await;
}

#[tokio::test]
async fn letters_that_never_owned_their_key_are_left_once_another_record_does() {
    let server = Server::start().await;
    let mine = |key: &str, n: u32, payload: &str| {
        token("other", key, &position(&format!("tasks.other/0/{n}")), payload)
    };
    let conflict = |token: &Token| {
        let mut output = bury(token, false, b"{}");
        output.headers.0.retain(|(name, _)| name != crate::write::record::REASON);
        output.headers = output.headers.with(crate::write::record::REASON, "TG-key-conflict");
        output
    };
    let (taken, other) = (mine("taken", 1, "{}"), mine("other", 2, "{}"));
    for output in
        [bury(&taken, false, b"{}"), bury(&other, false, b"{}"), bury(&mine("free", 3, "{}"), false, b"{}")]
    {
        server.memory.put(output);
    }
    // Redrives that were refused: the key is still at the life before, or lives this one.
    let redriven = |key: &str, n: u32, payload: &str| Token {
        generation: 1,
        proof: Some(position("dead-letters/0/0")),
        ..mine(key, n, payload)
    };
    for token in [redriven("later", 10, "{}"), redriven("lives", 11, "{}"), redriven("differs", 12, "{}")] {
        server.memory.put(bury(&token, false, b"{}"));
    }
    let closed = |key: &str, n: u32, payload: &str| {
        let at = position("dead-letters/0/0");
        claim(&mine(key, n, payload), 0, Phase::Closed { outcome: OutcomeKind::DeadLetter, at })
    };
    server.memory.claim(closed("later", 13, "{}"));
    server.memory.claim(claim(&redriven("lives", 14, "{}"), 0, Phase::Open));
    server.memory.claim(closed("differs", 15, r#"{"text":"y"}"#));
    let (conflicts, over) = (mine("conflicts", 4, "{}"), mine("over", 5, "{}"));
    server.memory.put(conflict(&conflicts));
    server.memory.put(conflict(&over));
    server.memory.claim(claim(&mine("taken", 7, "{}"), 0, Phase::Open));
    server.memory.claim(claim(&mine("other", 8, r#"{"text":"y"}"#), 0, Phase::Open));
    server.memory.claim(claim(&mine("conflicts", 9, r#"{"text":"y"}"#), 0, Phase::Open));

    let (_, list) = server.get("/v1/dead-letters").await;
    let mut marks: Vec<(&str, bool, bool)> = list["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| (l["key"].as_str().unwrap(), l["redriven"] == true, l["left"].is_string()))
        .collect();
    marks.sort_unstable();
    let expected = [
        ("conflicts", false, true),
        ("differs", false, true),
        ("free", false, false),
        ("later", false, false),
        ("lives", true, true),
        ("other", false, true),
        // The window of its key is over: it can be a task now.
        ("over", false, false),
        ("taken", true, true),
    ];
    assert_eq!(marks, expected, "{list}");
    let redrive = async |body: Value| {
        server.post("/v1/dead-letters/redrive", "application/json", body.to_string()).await.1
    };
    let help = "submit it under a new key (`on_conflict = \"ignore\"` is for the next ones)";
    let id = list["dead_letters"].as_array().unwrap().iter().find(|l| l["key"] == "conflicts").unwrap()["id"]
        .clone();
    for named in [json!({ "key": "conflicts" }), json!({ "id": id })] {
        let told = redrive(named).await;
        assert_eq!((&told["redriven"], &told["left"]), (&json!(0), &json!(1)), "{told}");
        assert!(told["left_because"][0]["why"].as_str().unwrap().ends_with(help), "{told}");
    }
    let told = redrive(json!({ "kind": "other" })).await;
    assert_eq!((&told["redriven"], &told["left"]), (&json!(3), &json!(5)), "{told}");
    let counts: Vec<u64> =
        told["left_because"].as_array().unwrap().iter().map(|b| b["count"].as_u64().unwrap()).collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (2, 5), "{told}");
    let mut sent: Vec<_> = server
        .memory
        .all("resume")
        .iter()
        .map(|r| {
            let (next, _) = token::decode(r, Bytes::new()).unwrap();
            (next.key.key.to_string(), next.generation, next.proof)
        })
        .collect();
    sent.sort_unstable();
    let proof = Some(position("dead-letters/0/0"));
    assert_eq!(
        sent,
        [("free".to_owned(), 0, None), ("later".to_owned(), 1, proof), ("over".to_owned(), 0, None)]
    );
    server.end().await;
}

#[tokio::test]
async fn a_letter_that_would_be_refused_again_is_left_however_it_is_named_and_however_often() {
    let server = Server::start().await;
    let broken = |reason: &str, source: &str, value: &'static [u8]| {
        let one = token("copy", "k", &position(source), "{}");
        let mut output = bury(&one, false, value);
        // Its key was not known.
        output.headers.0.retain(|(name, _)| name != token::KEY && name != crate::write::record::REASON);
        output.headers = output.headers.with(crate::write::record::REASON, reason.to_owned());
        output
    };
    let id = server.memory.put(broken("TG-malformed", "tasks.copy/0/0", b"{"));
    server.memory.put(broken("TG-malformed", "tasks.gone/0/0", b"{}"));
    let refused = token("copy", "r", &position("tasks.copy/0/2"), r#"{"text":7}"#);
    server.memory.put(bury(&refused, false, br#"{"text":7}"#));
    let id = format!("{}-{}", id.at.index, id.offset);
    let redrive = async |body: Value| {
        server.post("/v1/dead-letters/redrive", "application/json", body.to_string()).await.1
    };
    for body in [json!({ "reason": "malformed" }), json!({ "id": id }), json!({ "reason": "malformed" })] {
        let told = redrive(body).await;
        assert_eq!(told["redriven"], 0, "{told}");
        let left: Vec<&str> =
            told["dead_letters"].as_array().unwrap().iter().map(|l| l["left"].as_str().unwrap()).collect();
        assert!(left[0].starts_with("it would be refused again: not JSON: EOF"), "{told}");
        assert!(left[0].ends_with("; mend the kind or the record first"), "{told}");
        assert_eq!(told["left_because"][0], json!({ "why": left[0], "count": 1 }), "{told}");
    }
    let told = redrive(json!({ "key": "r", "dry_run": true })).await;
    assert_eq!((&told["would_redrive"], &told["left"]), (&json!(0), &json!(1)), "{told}");
    assert!(told["dead_letters"][0]["left"].as_str().unwrap().contains("text"), "{told}");
    let (_, list) = server.get("/v1/dead-letters").await;
    let letters = list["dead_letters"].as_array().unwrap();
    let whys: Vec<&str> = letters.iter().map(|l| l["left"].as_str().unwrap()).collect();
    assert!(whys.iter().any(|why| why.contains("no kind reads `tasks.gone`")), "{list}");
    assert!(letters.iter().all(|l| l["refused_again"] == true && l["redriven"] == false), "{list}");
    let (_, shown) = server.get(&format!("/v1/dead-letters/{id}")).await;
    assert!(shown["left"].as_str().unwrap().contains("not JSON"), "{shown}");
    assert!(server.memory.all("resume").is_empty() && server.memory.all("tasks.copy").is_empty());
    server.end().await;
}

#[tokio::test]
async fn a_filter_by_a_kind_that_the_configuration_does_not_have_is_an_error_everywhere() {
    let server = Server::start().await;
    for path in
        ["/v1/review", "/v1/dead-letters", "/v1/results", "/v1/dead-letters/events", "/v1/review/events"]
    {
        let (status, told) = server.get(&format!("{path}?kind=nope")).await;
        assert_eq!((status, &told["error"]["message"]), (404, &json!("no kind `nope`")), "{path}: {told}");
        assert_eq!(told["error"]["help"], "the configuration has: copy, other", "{told}");
    }
    let asked = json!({ "kind": "nope" }).to_string();
    let (status, told) = server.post("/v1/dead-letters/redrive", "application/json", asked).await;
    assert_eq!((status, &told["error"]["message"]), (404, &json!("no kind `nope`")), "{told}");
    server.end().await;
}
