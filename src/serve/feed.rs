//! One subscriber's event stream: records of some topics as server-sent events, without a gap,
//! resumable by the id of the last event.
//!
//! Nothing is kept for a slow client: the next chunk is made when the client has taken the last one,
//! and what the hub told meanwhile is read from the log.

use super::App;
use super::cursor::Cursor;
use super::error::ApiError;
use super::hub::{Begin, Hub, Told};
use crate::engine::Unavailable;
use crate::task::Record;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

/// Records read at once from one partition while a subscriber is behind.
const PAGE: usize = 64;
/// Events are sent together up to about here.
const CHUNK: usize = 64 * 1024;
/// A silent stream shows that it lives; below the idle timeouts of common proxies (60 s).
const ALIVE: Duration = Duration::from_secs(15);
/// How long to wait before the log is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Where to begin and what to leave out; the query of every event route.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `start` or `now` (the default).
    from: Option<String>,
    /// As the header `Last-Event-ID`, for clients that cannot set it.
    after: Option<String>,
    kind: Option<String>,
    key: Option<String>,
    /// Of a result: `accepted`, `approved`, `edited`, `rejected`, `amended`.
    status: Option<String>,
    /// Of a dead letter, with or without `TG-`.
    reason: Option<String>,
}

/// A record as subscribers see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) kind: String,
    pub(super) key: String,
    /// Of a result, its status; of a dead letter, the code of its reason.
    pub(super) what: String,
    /// JSON.
    pub(super) data: String,
}

/// Makes an event of a record; `None`: not for subscribers.
pub(super) type Show = fn(&Record) -> Option<Event>;

impl Wanted {
    fn takes(&self, event: &Event) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let reason =
            self.reason.as_deref().map(|r| r.trim_start_matches("TG-").trim_start_matches("tg-").to_owned());
        same(&self.kind, &event.kind)
            && same(&self.key, &event.key)
            && same(&self.status, &event.what)
            && same(&reason, &event.what)
    }

    /// The id to go on after, and where a subscriber without one begins.
    fn place(&self, headers: &HeaderMap) -> Result<(Begin, Option<Cursor>), ApiError> {
        let begin = match self.from.as_deref() {
            None | Some("now") => Begin::Now,
            Some("start") => Begin::Start,
            Some(other) => {
                return Err(ApiError::bad(format!("`from` is `{other}`"), "give `from=start` or `from=now`"));
            }
        };
        let id = headers.get("last-event-id").and_then(|v| v.to_str().ok()).or(self.after.as_deref());
        match id.filter(|id| !id.is_empty()).map(Cursor::read) {
            None => Ok((begin, None)),
            // Topics that the id does not name begin at their start: nothing is passed over.
            Some(Some(cursor)) => Ok((Begin::Start, Some(cursor))),
            Some(None) => Err(ApiError::bad(
                "the id to go on after is not one of ours",
                "leave `Last-Event-ID` out, or give the id of an event as it came",
            )),
        }
    }
}

/// The response that streams `hub`'s records until the client goes.
pub(super) async fn stream(
    app: &App,
    hub: &Hub,
    show: Show,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let permit = app.streams.clone().try_acquire_owned().map_err(|_| {
        let help = "close some, or let one subscriber pass the events on";
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-many-streams",
            "too many event streams are open",
            help,
        )
    })?;
    let (begin, after) = wanted.place(headers)?;
    let told = hub.subscribe();
    let mut cursor = hub.cursor(begin).await?;
    if let Some(after) = after {
        cursor.resume(&after, &hub.cursor(Begin::Now).await?);
    }
    let feed = Feed {
        hub: hub.clone(),
        told,
        writer: Writer { show, wanted: Arc::new(wanted), cursor, out: String::new() },
        behind: true,
        begun: false,
        leaving: app.leaving.clone(),
        _permit: permit,
    };
    let body = futures::stream::unfold(feed, async |mut feed| {
        feed.chunk().await.map(|chunk| (Ok::<_, std::convert::Infallible>(chunk), feed))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would undo the low latency.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Feed {
    hub: Hub,
    told: Receiver<Told>,
    writer: Writer,
    /// The log may hold what was not told.
    behind: bool,
    begun: bool,
    leaving: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Makes events of records, each once.
#[derive(Clone)]
struct Writer {
    show: Show,
    wanted: Arc<Wanted>,
    cursor: Cursor,
    /// Not yet sent.
    out: String,
}

impl Feed {
    /// The next bytes for the client; `None` ends the stream. Never empty.
    async fn chunk(&mut self) -> Option<Bytes> {
        if !self.begun {
            // Sent at once: the client knows that it is subscribed, and from where.
            self.begun = true;
            return Some(Bytes::from(format!("retry: 1000\n{}", self.mark())));
        }
        let leaving = self.leaving.clone();
        let goes_on = tokio::select! {
            biased;
            () = leaving.cancelled() => false,
            goes_on = self.gather() => goes_on,
            () = tokio::time::sleep(ALIVE) => true,
        };
        match (goes_on, self.writer.out.is_empty()) {
            (false, _) => None,
            (true, false) => Some(Bytes::from(std::mem::take(&mut self.writer.out))),
            (true, true) => Some(Bytes::from(format!(": alive\n{}", self.mark()))),
        }
    }

    /// Until `out` holds something; false if the hub is gone. Cancel-safe: whatever the cursor has
    /// passed is in `out`.
    async fn gather(&mut self) -> bool {
        while self.writer.out.is_empty() {
            if self.behind {
                match self.read().await {
                    Ok(any) => self.behind = any,
                    Err(Unavailable(_)) => tokio::time::sleep(RETRY).await,
                }
                continue;
            }
            match self.told.recv().await {
                Ok(told) => self.hear(&told),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return false,
            }
            while !self.behind && self.writer.out.len() < CHUNK {
                match self.told.try_recv() {
                    Ok(told) => self.hear(&told),
                    Err(TryRecvError::Lagged(_)) => self.behind = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        true
    }

    fn hear(&mut self, told: &Told) {
        match told {
            // After a record that was not told, the log is read in order.
            Told::Record(record) if !self.behind => self.writer.take(record),
            Told::Record(_) => {}
            Told::Look => self.behind = true,
        }
    }

    /// One round over the partitions, when it is this subscriber's turn; false: nothing was left.
    async fn read(&mut self) -> Result<bool, Unavailable> {
        let mut any = false;
        let hub = self.hub.clone();
        let _turn = hub.turn().await;
        let places: Vec<_> = self.writer.cursor.partitions().collect();
        for from in places {
            let records = self.hub.log().read(from, PAGE).await?;
            if !records.is_empty() {
                any = true;
                self.write(records).await?;
            }
            if self.writer.out.len() >= CHUNK {
                break;
            }
        }
        Ok(any)
    }

    /// Beside the runtime's threads. There is work for as long as the client, or the system that buffers
    /// for it, takes what is made: on those threads, a hundred such clients hold up all other requests,
    /// for a thread that always has a task to run seldom looks for new ones.
    async fn write(&mut self, records: Vec<Record>) -> Result<(), Unavailable> {
        // A copy: whoever is cut off here has passed no record.
        let mut writer = self.writer.clone();
        let written = tokio::task::spawn_blocking(move || {
            records.iter().for_each(|record| writer.take(record));
            writer
        });
        match written.await {
            Ok(writer) => self.writer = writer,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => return Err(Unavailable("the process ends".to_owned())),
        }
        Ok(())
    }

    /// An id without data: moves the place to go on from, and dispatches no event.
    fn mark(&self) -> String {
        format!("id: {}\n\n", self.writer.cursor.write())
    }
}

impl Writer {
    fn take(&mut self, record: &Record) {
        if !self.cursor.pass(&record.position) {
            return;
        }
        let Some(event) = (self.show)(record).filter(|e| self.wanted.takes(e)) else { return };
        // Writing to a String cannot fail.
        let out = &mut self.out;
        let _ = writeln!(out, "id: {}\nevent: {}", self.cursor.write(), event.name);
        // What we write is one line, and both searches are quick; a break would end the event.
        if event.data.contains('\n') || event.data.contains('\r') {
            for line in event.data.split(['\n', '\r']) {
                let _ = writeln!(out, "data: {line}");
            }
        } else {
            let _ = writeln!(out, "data: {}", event.data);
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Output;
    use crate::serve::memory::Memory;
    use crate::task::{Headers, Topic};
    use futures::FutureExt as _;
    use tokio::sync::Semaphore;

    fn show(record: &Record) -> Option<Event> {
        let data = String::from_utf8(record.value.as_ref()?.to_vec()).ok()?;
        Some(Event { name: "result", data, ..Event::default() })
    }

    async fn behind(hub: &Hub) -> Feed {
        Feed {
            hub: hub.clone(),
            told: hub.subscribe(),
            writer: Writer {
                show,
                wanted: Arc::default(),
                cursor: hub.cursor(Begin::Start).await.unwrap(),
                out: String::new(),
            },
            behind: true,
            begun: true,
            leaving: CancellationToken::new(),
            _permit: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(),
        }
    }

    #[tokio::test]
    async fn who_reads_the_log_makes_its_events_beside_the_runtime_and_waits_for_its_turn() {
        let (memory, topic) = (Memory::new(), Topic::new("results"));
        for n in 0..200 {
            let (key, value) = (Some(Bytes::from("one partition")), Some(Bytes::from(format!("{n}"))));
            let headers = Headers::default();
            memory.put(Output { topic: topic.clone(), key, value, headers, not_before: None });
        }
        let hub = Hub::new(memory.engine().log, vec![topic]);
        let mut feed = behind(&hub).await;
        let mut chunks = 0;
        let mut seen = 0;
        while seen < 200 {
            assert!(feed.chunk().now_or_never().is_none(), "made on the runtime's own thread");
            let chunk = feed.chunk().await.unwrap();
            seen += std::str::from_utf8(&chunk).unwrap().matches("event: result").count();
            chunks += 1;
        }
        assert_eq!((seen, chunks), (200, 200_usize.div_ceil(PAGE)));

        // Two others read: this one has to wait, and does read once one of them has its chunk.
        let turns = [hub.turn().await, hub.turn().await];
        let mut waits = behind(&hub).await;
        let soon = tokio::time::timeout(Duration::from_millis(100), waits.chunk()).await;
        assert!(soon.is_err(), "a third one reads at the same time: {soon:?}");
        drop(turns);
        assert!(waits.chunk().await.is_some_and(|chunk| chunk.starts_with(b"id: ")));
    }
}
