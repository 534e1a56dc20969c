//! What one request, one list and one web page may take.

use super::*;
use crate::serve::BODIES_MAX;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_large_batch_asks_the_ledger_once_and_each_task_hears_its_own_answer() {
    let server = Server::start().await;
    let known = token("copy", "k77", &position("tasks.copy/0/9"), r#"{"text":"x"}"#);
    server.memory.claim(claim(&known, 0, Phase::Open));
    let task = |n: usize| json!({ "kind": "copy", "key": format!("k{n}"), "payload": { "text": "x" } });
    let (status, told) = server.offer(&(0..300).map(task).collect()).await;
    assert_eq!((status, &told["accepted"], &told["known"]), (202, &json!(299), &json!(1)), "{told}");
    assert_eq!((&told["tasks"][77]["state"], &told["tasks"][77]["key"]), (&json!("running"), &json!("k77")));
    assert_eq!(server.memory.looked.load(Ordering::SeqCst), 1, "times the ledger was asked");
    server.end().await;
}

#[tokio::test]
async fn a_list_of_dead_letters_stops_at_its_limit_and_a_redrive_holds_one_batch_at_a_time() {
    let server = Server::start().await;
    // One key, so one partition.
    for n in 0..1_200 {
        let small = token("copy", "k", &position(&format!("tasks.copy/0/{n}")), "{}");
        server.memory.put(bury(&small, false, b"{}"));
    }
    let (_, list) = server.get("/v1/dead-letters?limit=500").await;
    let letters = list["dead_letters"].as_array().unwrap();
    assert_eq!((letters.len(), &list["more"], &list["read"]), (500, &json!(true), &json!(500)));
    assert_eq!(letters[0]["source"], "tasks.copy/0/1199", "the newest first");
    assert_eq!(letters[499]["source"], "tasks.copy/0/700");
    assert_eq!(letters[0]["bytes"], 2, "its size is told, its value is not kept");
    let (_, all) = server.get("/v1/dead-letters?limit=1200").await;
    assert_eq!((all["dead_letters"].as_array().unwrap().len(), &all["more"]), (1_200, &json!(false)));

    let large: &'static [u8] =
        Box::leak(format!("\"{}\"", "x".repeat(1 << 20)).into_bytes().into_boxed_slice());
    for n in 0..30 {
        let token = token("other", &format!("k{n}"), &position(&format!("tasks.other/0/{n}")), "{}");
        server.memory.put(bury(&token, false, large));
    }
    server.memory.largest.store(0, Ordering::SeqCst);
    let (_, told) = server.post("/v1/dead-letters/redrive", "application/json", r#"{"kind":"other"}"#).await;
    assert_eq!((&told["redriven"], &told["left"]), (&json!(30), &json!(0)), "{told}");
    assert!(told["dead_letters"].as_array().unwrap().iter().all(|l| l["sent_to"].is_string()), "{told}");
    let mut keys: Vec<_> =
        server.memory.all("resume").iter().map(|r| r.headers.text(token::KEY).unwrap().to_owned()).collect();
    keys.sort_unstable();
    let mut expected: Vec<_> = (0..30).map(|n| format!("k{n}")).collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let largest = server.memory.largest.load(Ordering::SeqCst);
    assert!(largest <= 9 << 20, "{largest} bytes were in memory at once");
    server.end().await;
}

#[tokio::test]
async fn a_web_page_of_another_site_neither_writes_nor_reads() {
    let server = Server::start().await;
    let task = json!({ "kind": "copy", "key": "k", "payload": { "text": "x" } }).to_string();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = server.client.post(format!("{}/v1/tasks", server.url)).body(task.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    for headers in
        [&[("origin", "https://evil.example")][..], &[("host", "evil.example")], &[("origin", "null")]]
    {
        let (status, told) = send(headers).await;
        assert_eq!((status, &told["error"]["code"]), (403, &json!("not-from-here")), "{headers:?}: {told}");
    }
    assert!(server.memory.all("tasks.copy").is_empty());
    assert_eq!(send(&[("origin", &server.url)]).await.0, 202, "our own page may");
    let rebound = server.client.get(format!("{}/v1/review", server.url)).header("host", "evil.example:80");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
    server.end().await;
}

/// A body that begins and does not end.
async fn half_a_body(server: &Server, path: &str) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let mut stream = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_on_every_route() {
    for path in ["/v1/records/tasks.copy", "/v1/review/x/approve", "/v1/dead-letters/redrive", "/v1/tasks"] {
        let server = Server::start().await;
        let mut held = Vec::new();
        for _ in 0..BODIES_MAX {
            held.push(half_a_body(&server, path).await);
        }
        // The seventeenth waits for a place, whatever its route.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let task = json!({ "kind": "copy", "key": "k", "payload": { "text": "x" } });
        let mut waits = Box::pin(server.offer(&task));
        let soon = tokio::time::timeout(Duration::from_millis(300), &mut waits).await;
        assert!(soon.is_err(), "{path} takes no place: {soon:?}");
        drop(held);
        assert_eq!(waits.as_mut().await.0, 202, "{path} gives its place back");
        drop(waits);
        server.end().await;
    }
}

#[tokio::test]
async fn on_a_place_of_the_reserve_a_process_is_not_ready_and_says_why() {
    let server = Server::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/readyz", listener.local_addr().unwrap());
    let few = crate::serve::few(server.app.clone());
    let mut owner = JoinSet::new();
    owner.spawn(async move { axum::serve(listener, few).await });
    let ask = async || {
        let answer = server.client.get(&url).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, told) = ask().await;
    assert_eq!((status, &told["ready"], &told["degraded"]), (503, &json!(false), &json!(false)), "{told}");
    assert_eq!(told["why"], "All connections are taken: who comes now is told to come back.");
    server.memory.health.send_replace(Health::Paused { why: "the disk is full".into() });
    assert_eq!(ask().await.1["why"], "Intake is paused, nothing is lost: the disk is full.");
    assert_eq!(server.get("/readyz").await.0, 503);
    server.end().await;
}
