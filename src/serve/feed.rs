//! One subscriber's event stream: records of some topics as server-sent events, without a gap,
//! resumable by the id of the last event.
//!
//! Nothing is kept for a slow client: the next chunk is made when the client has taken the last one,
//! and what the hub told meanwhile is read from the log.

use super::App;
use super::cursor::Cursor;
use super::error::ApiError;
use super::hub::{Begin, Behind, Hub, Told};
use super::tasks::known_kind;
use crate::engine::Unavailable;
use crate::task::Record;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
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
    if let Some(kind) = &wanted.kind {
        known_kind(app, kind)?;
    }
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
    // Who goes on where it stood has missed little, as long as no full page says otherwise.
    let far = begin == Begin::Start && after.is_none();
    let told = hub.subscribe();
    let mut cursor = hub.cursor(begin).await?;
    if let Some(after) = after {
        cursor.resume(&after, &hub.cursor(Begin::Now).await?);
    }
    let feed = Feed {
        hub: hub.clone(),
        told,
        writer: Writer { show, wanted: Arc::new(wanted), cursor, out: String::new() },
        behind: Some(if far { Behind::Much } else { Behind::Little }),
        round: None,
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
    behind: Option<Behind>,
    /// Under way. A sign of life is sent without it, and it keeps its place among those that wait.
    round: Option<BoxFuture<'static, Result<Round, Unavailable>>>,
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
            if let Some(behind) = self.behind {
                if let Err(Unavailable(_)) = self.read(behind).await {
                    tokio::time::sleep(RETRY).await;
                }
                continue;
            }
            match self.told.recv().await {
                Ok(told) => self.hear(&told),
                Err(RecvError::Lagged(_)) => self.behind = Some(Behind::Much),
                Err(RecvError::Closed) => return false,
            }
            while self.behind.is_none() && self.writer.out.len() < CHUNK {
                match self.told.try_recv() {
                    Ok(told) => self.hear(&told),
                    Err(TryRecvError::Lagged(_)) => self.behind = Some(Behind::Much),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        true
    }

    /// Only while it is level: after a record that was not told, the log is read in order.
    fn hear(&mut self, told: &Told) {
        match told {
            Told::Record(record) => self.writer.take(record),
            Told::Look => self.behind = Some(Behind::Little),
        }
    }

    async fn read(&mut self, behind: Behind) -> Result<(), Unavailable> {
        let begin =
            || Box::pin(round(self.hub.clone(), self.writer.clone(), behind)) as BoxFuture<'static, _>;
        let done = self.round.get_or_insert_with(begin).await;
        self.round = None;
        let Round { writer, most } = done?;
        self.writer = writer;
        self.behind = match most {
            0 => None,
            PAGE.. => Some(Behind::Much),
            _ => Some(behind),
        };
        Ok(())
    }

    /// An id without data: moves the place to go on from, and dispatches no event.
    fn mark(&self) -> String {
        format!("id: {}\n\n", self.writer.cursor.write())
    }
}

/// What one round over the partitions has made.
struct Round {
    writer: Writer,
    /// Records of the fullest page.
    most: usize,
}

/// A page of each partition, each in a turn of its own. Works on a copy: whoever is cut off has passed no
/// record.
async fn round(hub: Hub, mut writer: Writer, behind: Behind) -> Result<Round, Unavailable> {
    let mut most = 0;
    let places: Vec<_> = writer.cursor.partitions().collect();
    for from in places {
        let turn = hub.turn(behind).await;
        let records = hub.log().read(from, PAGE).await?;
        if records.is_empty() {
            continue;
        }
        most = most.max(records.len());
        writer = write(writer, records, turn).await?;
        if writer.out.len() >= CHUNK {
            break;
        }
    }
    Ok(Round { writer, most })
}

/// Beside the runtime's threads. There is work for as long as the client, or the system that buffers
/// for it, takes what is made: on those threads, a hundred such clients hold up all other requests,
/// for a thread that always has a task to run seldom looks for new ones.
async fn write(
    mut writer: Writer,
    records: Vec<Record>,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<Writer, Unavailable> {
    let written = tokio::task::spawn_blocking(move || {
        // Its own until the end: the work goes on also where nobody waits for it any more.
        let _turn = turn;
        records.iter().for_each(|record| writer.take(record));
        writer
    });
    match written.await {
        Ok(writer) => Ok(writer),
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(Unavailable("the process ends".to_owned())),
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
    use std::sync::Mutex;
    use tokio::sync::Semaphore;

    fn show(record: &Record) -> Option<Event> {
        let data = String::from_utf8(record.value.as_ref()?.to_vec()).ok()?;
        Some(Event { name: "result", data, ..Event::default() })
    }

    thread_local! {
        static RUNTIME: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    fn show_elsewhere(record: &Record) -> Option<Event> {
        assert!(!RUNTIME.get(), "made on the runtime's own thread");
        show(record)
    }

    const SOON: Duration = Duration::from_millis(100);

    fn put(memory: &Memory, topic: &Topic, key: &str, value: &str) {
        let (key, value) = (Some(Bytes::from(key.to_owned())), Some(Bytes::from(value.to_owned())));
        memory.put(Output {
            topic: topic.clone(),
            key,
            value,
            headers: Headers::default(),
            not_before: None,
        });
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
            behind: Some(Behind::Much),
            round: None,
            begun: true,
            leaving: CancellationToken::new(),
            _permit: Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap(),
        }
    }

    #[tokio::test]
    async fn who_reads_the_log_makes_its_events_beside_the_runtime_and_waits_for_its_turn() {
        let (memory, topic) = (Memory::new(), Topic::new("results"));
        (0..200).for_each(|n| put(&memory, &topic, "one partition", &n.to_string()));
        let hub = Hub::new(memory.engine().log, vec![topic]);
        let mut feed = behind(&hub).await;
        RUNTIME.set(true);
        feed.writer.show = show_elsewhere;
        let mut chunks = 0;
        let mut seen = 0;
        while seen < 200 {
            let chunk = feed.chunk().await.unwrap();
            seen += std::str::from_utf8(&chunk).unwrap().matches("event: result").count();
            chunks += 1;
        }
        assert_eq!((seen, chunks), (200, 200_usize.div_ceil(PAGE)));

        // Two others read: this one has to wait, and does read once one of them has its page.
        let turns = [hub.turn(Behind::Much).await, hub.turn(Behind::Much).await];
        let mut waits = behind(&hub).await;
        let soon = tokio::time::timeout(SOON, waits.chunk()).await;
        assert!(soon.is_err(), "a third one reads at the same time: {soon:?}");
        drop(turns);
        assert!(waits.chunk().await.is_some_and(|chunk| chunk.starts_with(b"id: ")));
    }

    #[tokio::test]
    async fn p5_who_is_level_does_not_wait_behind_those_that_catch_up() {
        let (memory, topic) = (Memory::new(), Topic::new("results"));
        let hub = Hub::new(memory.engine().log, vec![topic.clone()]);
        let _turns = [hub.turn(Behind::Much).await, hub.turn(Behind::Much).await];
        let mut live = behind(&hub).await;
        live.behind = None;
        // Too large to be told.
        put(&memory, &topic, "large", &"x".repeat(100_000));
        live.hear(&Told::Look);
        let chunk = tokio::time::timeout(Duration::from_secs(5), live.chunk()).await;
        assert!(chunk.expect("it waits for those that catch up").unwrap().len() > 100_000);
        // It has missed more than a page meanwhile: it catches up like the others.
        (0..=PAGE).for_each(|n| put(&memory, &topic, "large", &n.to_string()));
        assert!(live.chunk().await.unwrap().starts_with(b"id: "));
        assert!(
            tokio::time::timeout(SOON, live.chunk()).await.is_err(),
            "it reads in the turns of the live ones"
        );
    }

    #[tokio::test]
    async fn a_turn_is_given_back_after_each_page_and_is_not_lost_by_a_sign_of_life() {
        let (memory, topic) = (Memory::new(), Topic::new("results"));
        // Of both partitions.
        (0..20).for_each(|n| put(&memory, &topic, &n.to_string(), &n.to_string()));
        let hub = Hub::new(memory.engine().log, vec![topic]);
        let _other = hub.turn(Behind::Much).await;
        let (mut first, mut second) = (behind(&hub).await, behind(&hub).await);
        assert!(first.chunk().now_or_never().is_none() && second.chunk().now_or_never().is_none());
        let soon = tokio::time::timeout(SOON, first.chunk()).await;
        assert!(soon.is_err(), "it reads both partitions in one turn: {soon:?}");
        // The second one has the turn now, and the first one waits for its next.
        tokio::time::pause();
        assert!(first.chunk().await.unwrap().starts_with(b": alive"));
        tokio::time::resume();
        let mut third = behind(&hub).await;
        assert!(third.chunk().now_or_never().is_none());
        let soon = tokio::time::timeout(SOON, second.chunk()).await;
        assert!(soon.is_err(), "it reads both partitions in one turn: {soon:?}");
        let chunk = tokio::time::timeout(Duration::from_secs(5), first.chunk()).await;
        let chunk = chunk.expect("it has lost its place to the third one").unwrap();
        assert_eq!(std::str::from_utf8(&chunk).unwrap().matches("event: result").count(), 20);
    }

    /// Held while events must not be made.
    static GATE: Mutex<()> = Mutex::new(());

    fn show_slowly(record: &Record) -> Option<Event> {
        drop(GATE.lock().unwrap());
        show(record)
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "what waits for it is on a thread of its own")]
    async fn the_work_of_a_subscriber_that_is_gone_keeps_its_turn_until_it_is_done() {
        let (memory, topic) = (Memory::new(), Topic::new("results"));
        put(&memory, &topic, "key", "value");
        let hub = Hub::new(memory.engine().log, vec![topic]);
        let _other = hub.turn(Behind::Much).await;
        let mut gone = behind(&hub).await;
        gone.writer.show = show_slowly;
        let gate = GATE.lock().unwrap();
        assert!(tokio::time::timeout(SOON, gone.chunk()).await.is_err());
        drop(gone);
        let mut waits = behind(&hub).await;
        let soon = tokio::time::timeout(SOON, waits.chunk()).await;
        assert!(soon.is_err(), "three read at the same time: {soon:?}");
        drop(gate);
        assert!(waits.chunk().await.is_some_and(|chunk| chunk.starts_with(b"id: ")));
    }
}
