//! Speaks HTTP/1 on every connection: how long a request's head may take, and who is answered when all
//! places are taken.
//!
//! Never decides what is answered: that is the router's. A connection without a request gives its place
//! back, whether it sends half a head or nothing.

use super::connection::{Bounded, Connection, Seat};
use super::error::ApiError;
use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// From a free connection to the whole head of its next request: a kept connection rests as long. Pools and
/// proxies keep theirs for up to 90 s, and a request sent just as we close is lost to them. The price: hyper
/// knows one time for rest and head, so half a head holds one of these places as long; never all of them.
pub(super) const HEAD: Duration = Duration::from_secs(120);
/// The same for the last quarter of the places: whoever comes then gets one again soon.
pub(super) const HEAD_SCARCE: Duration = Duration::from_secs(10);
/// The same for the few places beyond the last: whoever asks for health asks at once.
pub(super) const HEAD_RESERVED: Duration = Duration::from_secs(1);

/// How long a head may take, by seat.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) ordinary: Duration,
    pub(super) scarce: Duration,
    pub(super) reserved: Duration,
}

/// Serves until `stop`; then no connection is taken, and open ones end with the request they are at.
/// Dropped, it cuts them.
pub(super) async fn serve(
    mut listener: Bounded,
    all: Router,
    few: Router,
    heads: Heads,
    stop: CancellationToken,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            (connection, seat) = listener.accept() => match seat {
                Seat::Ordinary => open.spawn(speak(connection, all.clone(), heads.ordinary, true, stop.clone())),
                Seat::Scarce => open.spawn(speak(connection, all.clone(), heads.scarce, true, stop.clone())),
                Seat::Reserved => open.spawn(speak(connection, few.clone(), heads.reserved, false, stop.clone())),
            },
            Some(end) = open.join_next() => {
                ended(end);
                continue;
            }
            () = stop.cancelled() => break,
        };
    }
    // Whoever comes from now on is refused by the system, and does not wait for an answer.
    drop(listener);
    while let Some(end) = open.join_next().await {
        ended(end);
    }
}

/// How a connection ended is nobody's business, unless it is a mistake of ours: its client has no answer.
fn ended(end: Result<(), JoinError>) {
    if end.is_err_and(|e| e.is_panic()) {
        metrics::counter!("tidegate_panics_total", "part" => "http").increment(1);
        tracing::error!(
            "a request has panicked; its connection was closed: keep the panic's message for a bug report"
        );
    }
}

async fn speak(connection: Connection, router: Router, head: Duration, keep: bool, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head).keep_alive(keep);
    let spoken = http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    let mut spoken = std::pin::pin!(spoken);
    let ended = tokio::select! {
        ended = &mut spoken => ended,
        () = stop.cancelled() => {
            spoken.as_mut().graceful_shutdown();
            spoken.await
        }
    };
    if let Err(e) = ended {
        tracing::trace!(%e, "a connection has ended");
    }
}

/// What the reserve answers to everything but health: whoever waits knows less than one that is told.
pub(super) async fn full() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-connections",
        "all connections are taken",
        "nothing was done; close some, or send the same request again in a moment",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    const SOON: Duration = Duration::from_secs(5);

    /// A server of two places and one in reserve, with `head` to send a request's head.
    async fn served(head: Duration) -> (SocketAddr, CancellationToken, JoinSet<()>) {
        let all = Router::new().route("/", get(async || "all")).route("/healthz", get(async || "well"));
        serving(all, 2, head).await
    }

    async fn serving(
        all: Router,
        places: usize,
        head: Duration,
    ) -> (SocketAddr, CancellationToken, JoinSet<()>) {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = inner.local_addr().unwrap();
        let listener = Bounded::new(inner, places, 1, Duration::from_secs(30), Duration::from_secs(300));
        let few = Router::new().route("/healthz", get(async || "well")).fallback(full);
        let short = Duration::from_millis(300);
        let heads = Heads { ordinary: head, scarce: short, reserved: short };
        let (stop, mut owner) = (CancellationToken::new(), JoinSet::new());
        owner.spawn(serve(listener, all, few, heads, stop.clone()));
        (at, stop, owner)
    }

    /// Sends it, and reads what comes at once.
    async fn told(at: SocketAddr, sent: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let n = tokio::time::timeout(SOON, stream.read(&mut answer)).await.expect("no answer").unwrap();
        (stream, String::from_utf8_lossy(&answer[..n]).into_owned())
    }

    fn ask(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
    }

    #[tokio::test]
    async fn half_a_head_and_a_connection_at_rest_give_their_places_back() {
        let (at, _stop, _owner) = served(Duration::from_millis(400)).await;
        let began = Instant::now();
        let mut half = TcpStream::connect(at).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
        let (mut rests, answer) = told(at, &ask("/")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("all"), "{answer}");
        // Both places are taken now; one that dribbles is not at rest, and not done either.
        let dribbles = async {
            while half.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, dribbles).await.expect("half a head holds its place for ever");
        let closed = tokio::time::timeout(SOON, rests.read(&mut [0; 8])).await;
        assert_eq!(closed.expect("a connection at rest holds its place for ever").unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
        let (_kept, answer) = told(at, &ask("/")).await;
        assert!(answer.ends_with("all"), "{answer}");
    }

    #[tokio::test]
    async fn health_answers_when_all_places_are_taken_and_everybody_else_is_told_to_come_back() {
        let (at, _stop, _owner) = served(Duration::from_secs(60)).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(told(at, &ask("/")).await);
        }
        // One that asks for nothing holds the reserve for a moment only.
        let _silent = TcpStream::connect(at).await.unwrap();
        for _ in 0..3 {
            let (_, answer) = told(at, &ask("/healthz")).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("well"), "{answer}");
            let (_, answer) = told(at, &ask("/")).await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.contains("too-many-connections") && answer.contains("retry-after: 2"), "{answer}");
        }
        held.pop();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(told(at, &ask("/")).await.1.ends_with("all"), "a place is free again");
    }

    #[tokio::test]
    async fn a_connection_rests_long_while_there_are_places_and_briefly_when_they_run_out() {
        let all = Router::new().route("/", get(async || "all"));
        let (at, _stop, _owner) = serving(all, 8, Duration::from_secs(60)).await;
        let mut rest = Vec::new();
        for _ in 0..8 {
            let (stream, answer) = told(at, &ask("/")).await;
            assert!(answer.ends_with("all"), "{answer}");
            rest.push(stream);
        }
        // The last quarter of eight.
        for mut scarce in rest.drain(6..) {
            assert_eq!(tokio::time::timeout(SOON, scarce.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        for mut kept in rest {
            kept.write_all(ask("/").as_bytes()).await.unwrap();
            let mut answer = [0; 4_096];
            let n = tokio::time::timeout(SOON, kept.read(&mut answer)).await.unwrap().unwrap();
            assert!(String::from_utf8_lossy(&answer[..n]).ends_with("all"), "it was closed");
        }
    }

    #[tokio::test]
    async fn a_request_that_panics_is_counted_and_others_are_answered() {
        crate::telemetry::metrics();
        let all = Router::new().route("/", get(async || "all")).route(
            "/mistake",
            get(async || {
                if true {
                    panic!("a mistake of ours")
                }
            }),
        );
        let (at, _stop, _owner) = serving(all, 2, Duration::from_secs(60)).await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(ask("/mistake").as_bytes()).await.unwrap();
        assert_eq!(tokio::time::timeout(SOON, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        assert!(told(at, &ask("/")).await.1.ends_with("all"));
        let counted = async {
            while !crate::telemetry::metrics().render().contains("tidegate_panics_total{part=\"http\"} 1") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, counted).await.expect("it is not counted");
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_after_stop_and_a_connection_at_rest_ends() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (begun, go_on) = (begun.clone(), go_on.clone());
            async move || {
                begun.notify_one();
                go_on.notified().await;
                "the whole answer"
            }
        };
        let all = Router::new().route("/", get(async || "all")).route("/slow", get(slow));
        let (at, stop, mut owner) = serving(all, 2, Duration::from_secs(60)).await;
        let (mut rests, _) = told(at, &ask("/")).await;
        let mut under_way = TcpStream::connect(at).await.unwrap();
        under_way.write_all(ask("/slow").as_bytes()).await.unwrap();
        begun.notified().await;
        stop.cancel();
        assert_eq!(tokio::time::timeout(SOON, rests.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        go_on.notify_one();
        let mut answer = String::new();
        tokio::time::timeout(SOON, under_way.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("the whole answer"), "{answer}");
        tokio::time::timeout(SOON, owner.join_next()).await.expect("it does not end");
        assert!(TcpStream::connect(at).await.is_err(), "nobody is taken any more");
    }
}
