//! The open review items: requests without a tombstone, kept by reading `review.requests`.
//!
//! Never decides whether an item is still open; the arbiter's admission does.

use crate::engine::follow::{Follower, From};
use crate::engine::{Ends, Engine, Log, Unavailable};
use crate::outcome::Status;
use crate::task::{Position, Record, Timestamp, Topic};
use crate::token;
use crate::write::record::{Envelope, MadeBy, ReviewItem, Usage, VERSION};
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait before the log is tried again.
const RETRY_MS: u64 = 200;
/// Of each sentence and field name in a list, bytes of JSON, where a control character takes six: more than a line of it is read with the whole item.
const TEXT_MAX: usize = 500;
/// Of all reasons of one item in a list, bytes of JSON. Fields may be named by what a model said, at any
/// length; everything else in a brief is bounded where it comes from. Ten thousand open items, each at
/// this bound, take some hundred megabytes.
const WHYS_MAX: usize = 4 * 1024;

/// How many items are remembered that left last: nobody decides more of them in the moment for which it
/// matters.
const LEFT_MAX: usize = 1_000;

/// What lists say of an open item. Payloads and answers stay in the log: a backlog of any length fits into
/// memory, at some hundred bytes each and a few KiB at most.
#[derive(Clone, PartialEq, Debug)]
pub struct Brief {
    pub at: Position,
    pub id: String,
    pub kind: String,
    pub key: String,
    pub tenant: Option<String>,
    pub origin: String,
    pub question: String,
    pub why: Vec<Value>,
    pub severity: String,
    pub team: Option<String>,
    pub opened_at: Timestamp,
    pub due_at: Option<Timestamp>,
}

impl Brief {
    /// Of a record with a value; also of one that this version cannot read.
    pub fn of(record: &Record, value: &Bytes) -> Brief {
        let ReviewItem { id, mut question, why, severity, team, opened_at, due_at, proposed, .. } =
            body(record, value);
        let Envelope { kind, key, tenant, origin, .. } = proposed;
        let at = record.position.clone();
        shorten(&mut question);
        let why = strongest(why);
        Brief { at, id, kind, key, tenant, origin, question, why, severity, team, opened_at, due_at }
    }
}

fn shorten(text: &mut String) {
    let mut room = TEXT_MAX;
    let end = text.char_indices().find_map(|(at, c)| match room.checked_sub(in_json(c)) {
        Some(left) => {
            room = left;
            None
        }
        None => Some(at),
    });
    if let Some(end) = end {
        *text = format!("{}…", &text[..end]);
    }
}

/// Bytes of a character in JSON.
fn in_json(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// As many reasons as fit, the strongest first, as they lie in the item, and that one always. All of them
/// are read with it.
fn strongest(why: Vec<Value>) -> Vec<Value> {
    let mut room = WHYS_MAX;
    let mut kept = Vec::new();
    for mut one in why {
        for part in one.as_object_mut().into_iter().flat_map(|parts| parts.values_mut()) {
            if let Value::String(text) = part {
                shorten(text);
            }
        }
        let size = one.to_string().len();
        if size > room && !kept.is_empty() {
            break;
        }
        room = room.saturating_sub(size);
        kept.push(one);
    }
    kept
}

/// An open item and the record that asks it.
#[derive(Clone, Debug)]
pub struct Item {
    pub at: Position,
    pub record: Arc<Record>,
    pub body: Arc<ReviewItem>,
}

/// An item that is not open any more. Its outcome is committed; readers may see it a moment later.
#[derive(Clone, Debug)]
pub struct Left {
    pub id: String,
    /// When its end was appended.
    pub at: Timestamp,
    /// When it was read; `None` where it lay there already when reading began.
    pub seen: Option<Instant>,
}

/// Open items by id. Clones share one list.
#[derive(Clone, Default)]
pub struct Queue {
    open: Arc<RwLock<BTreeMap<String, Arc<Brief>>>>,
    left: Arc<RwLock<VecDeque<Left>>>,
    reading: Arc<RwLock<Reading>>,
}

/// How much is read of what the log held when reading began. Until that is all, an item that is not in the
/// list may be open all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Reading {
    #[default]
    NotBegun,
    At {
        read: u64,
        of: u64,
    },
    Done,
}

impl Reading {
    /// `next`: where the reader of each partition stands. `nothing`: there was nothing more to read, which
    /// the offsets alone do not say where the last records of a partition are compacted away.
    fn of(ends: &[Ends], next: &[u64], nothing: bool) -> Reading {
        let of = ends.iter().map(|e| e.next - e.first).sum();
        let read = ends.iter().zip(next).map(|(e, next)| (*next).clamp(e.first, e.next) - e.first).sum();
        if nothing || read == of { Reading::Done } else { Reading::At { read, of } }
    }
}

impl Queue {
    /// Follows the requests until cancelled. Everything open is in memory, in brief.
    pub async fn follow(&self, log: Arc<dyn Log>, requests: Topic, cancel: CancellationToken) {
        let mut from = From::Start;
        let mut ends: Option<Vec<Ends>> = None;
        let mut said = None;
        while !cancel.is_cancelled() {
            let ended: Result<(), Unavailable> = async {
                let mut follower = Follower::new(log.clone(), requests.clone(), from.clone()).await?;
                let ends = match &mut ends {
                    Some(ends) => ends,
                    none => none.insert(log.ends(&requests).await?),
                };
                self.progress(ends, follower.offsets(), false);
                loop {
                    let found = async {
                        if self.unread().is_some() { follower.ready().await } else { follower.wait().await }
                    };
                    let records = tokio::select! {
                        found = found => found?,
                        () = cancel.cancelled() => return Ok(()),
                    };
                    let nothing = records.is_empty();
                    records.into_iter().for_each(|record| self.take(record));
                    from = From::Offsets(follower.offsets().to_vec());
                    self.progress(ends, follower.offsets(), nothing);
                }
            }
            .await;
            // Once for each reason, not five times a second.
            if let Err(e) = ended
                && said.as_ref() != Some(&e)
            {
                tracing::error!(error = %e, "the review queue cannot be read on; it is tried again");
                said = Some(e);
            }
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(RETRY_MS)) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    /// What was read once is read: a reader that begins anew after an error has not lost it.
    fn progress(&self, ends: &[Ends], next: &[u64], nothing: bool) {
        let mut reading = self.reading.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *reading != Reading::Done {
            *reading = Reading::of(ends, next, nothing);
        }
    }

    /// Why an item that is not in the list may be open all the same; `None` once all is read that the log
    /// held at the start.
    pub fn unread(&self) -> Option<String> {
        match *self.reading.read().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Reading::Done => None,
            Reading::NotBegun => Some("the review queue is still to be read".to_owned()),
            Reading::At { read, of } => Some(format!("the review queue is still being read: {read} of {of}")),
        }
    }

    fn take(&self, record: Record) {
        let Some(id) = record.key.as_ref().and_then(|k| std::str::from_utf8(k).ok()).map(str::to_owned)
        else {
            return;
        };
        let mut open = self.open.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(value) = &record.value else {
            open.remove(&id);
            let seen = self.unread().is_none().then(Instant::now);
            let mut left = self.left.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            left.push_back(Left { id, at: record.stamp, seen });
            let over = left.len().saturating_sub(LEFT_MAX);
            left.drain(..over);
            return;
        };
        open.insert(id, Arc::new(Brief::of(&record, value)));
    }

    /// Decided through this process: gone from the list before its record says so, so that nobody is shown
    /// what they have just decided.
    pub fn decided(&self, id: &str) {
        self.open.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(id);
    }

    /// Those that left last and whose id begins so.
    pub fn left(&self, beginning: &str) -> Vec<Left> {
        let left = self.left.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        left.iter().filter(|left| left.id.starts_with(beginning)).cloned().collect()
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<Arc<Brief>> {
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut items: Vec<Arc<Brief>> = open.values().cloned().collect();
        items.sort_by(|a, b| (a.opened_at, &a.id).cmp(&(b.opened_at, &b.id)));
        items
    }

    pub fn len(&self) -> usize {
        self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// By its whole id.
    pub fn get(&self, id: &str) -> Option<Arc<Brief>> {
        self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(id).cloned()
    }

    /// Up to `max` items whose id begins so.
    pub fn beginning(&self, id: &str, max: usize) -> Vec<Arc<Brief>> {
        let open = self.open.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fits = open.range(id.to_owned()..).take_while(|(k, _)| k.starts_with(id));
        fits.take(max).map(|(_, item)| item.clone()).collect()
    }
}

/// The item as it lies in the log. One that cannot be read is made of its headers: its task waits for a
/// person all the same, and somebody has to hear of it.
fn body(record: &Record, value: &Bytes) -> ReviewItem {
    serde_json::from_slice(value).unwrap_or_else(|e| {
        let id = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        tracing::error!(item = %id, at = %record.position, error = %e, "a review item cannot be read");
        unreadable(&id, record, value, &e)
    })
}

/// What a person is shown of an open item; `None` where the log does not hold it any more.
pub async fn whole_item(log: &dyn Log, open: &Brief) -> Result<Option<Item>, Unavailable> {
    let records = log.read(open.at.clone(), 1).await?;
    let found = records.into_iter().next().filter(|r| r.position == open.at);
    Ok(found.and_then(|record| {
        let body = body(&record, record.value.as_ref()?);
        Some(Item { at: record.position.clone(), record: Arc::new(record), body: Arc::new(body) })
    }))
}

/// What can be said of an item that is not as this version writes it: whose it is stands in its
/// headers. Nothing in it can be approved.
fn unreadable(id: &str, record: &Record, value: &Bytes, error: &serde_json::Error) -> ReviewItem {
    let known = token::decode(record, Bytes::new()).ok();
    let (token, carry) = known.unzip();
    let text = |name| record.headers.text(name).unwrap_or_default().to_owned();
    let accepted = carry.map_or(record.stamp, |c| c.accepted_at).rfc3339();
    ReviewItem {
        v: VERSION,
        id: id.to_owned(),
        question: format!(
            "this item (record {}) cannot be read ({error}): run the version of tidegate that wrote it",
            record.position
        ),
        why: Vec::new(),
        severity: "critical".to_owned(),
        team: None,
        opened_at: record.stamp,
        due_at: None,
        payload: serde_json::from_slice(value)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(value).into_owned())),
        record_key: None,
        proposed: Envelope {
            v: VERSION,
            key: text(token::KEY),
            kind: text(token::KIND),
            tenant: record.headers.text(token::TENANT).map(str::to_owned),
            generation: token.as_ref().map_or(0, |t| t.generation),
            origin: token.as_ref().map_or_else(String::new, |t| token::write_origin(&t.origin)),
            fingerprint: token.as_ref().map_or_else(String::new, |t| token::write_print(&t.print)),
            status: Status::Accepted,
            late: false,
            answer: Value::Null,
            confidence: Value::Null,
            made_by: MadeBy::default(),
            usage: Usage::default(),
            tries: Value::Array(Vec::new()),
            repairs: Value::Array(Vec::new()),
            effects: Vec::new(),
            reviewed: None,
            finished_at: accepted.clone(),
            accepted_at: accepted,
        },
        answer_text: Some(String::new()),
        findings: Value::Array(Vec::new()),
    }
}

/// The item at `at`, from the log: also one that is decided by now, as long as the log holds it.
pub(super) async fn read_item(engine: &Engine, at: &Position) -> Result<Option<Item>, Unavailable> {
    let records = engine.log.read(at.clone(), 1).await?;
    let found = records.into_iter().next().filter(|r| r.position == *at);
    Ok(found.and_then(|record| {
        let body: ReviewItem = serde_json::from_slice(record.value.as_ref()?).ok()?;
        Some(Item { at: record.position.clone(), record: Arc::new(record), body: Arc::new(body) })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Headers, Partition};
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    fn record(offset: u64, value: Option<&str>) -> Record {
        let at = Partition { topic: Topic::new("review.requests"), index: 0 };
        let headers = Headers::default()
            .with("tidegate-kind", "ticket")
            .with("tidegate-key", "T-1")
            .with("tidegate-tenant", "acme")
            .with("tidegate-generation", "2")
            .with("tidegate-hop", "1")
            .with("tidegate-print", format!("bytes:{}", "00".repeat(32)));
        Record {
            position: Position { at, offset },
            stamp: Timestamp(77),
            key: Some(Bytes::from("abc")),
            value: value.map(|v| Bytes::copy_from_slice(v.as_bytes())),
            headers,
            not_before: None,
        }
    }

    #[test]
    fn an_item_that_was_decided_here_is_gone_before_its_record_says_so() {
        let queue = Queue::default();
        queue.take(record(0, Some("{}")));
        let id = queue.list()[0].id.clone();
        queue.decided(&id);
        assert_eq!((queue.len(), queue.get(&id).is_some()), (0, false));
        queue.take(record(1, None));
        assert!(queue.is_empty());
    }

    #[test]
    fn the_queue_is_read_once_all_is_that_the_log_held_at_the_start() {
        let end = |index, first, next| {
            let at = Partition { topic: Topic::new("review.requests"), index };
            Ends { at, first, next, open: None }
        };
        let ends = [end(0, 10, 20), end(1, 0, 5)];
        assert_eq!(Reading::of(&ends, &[10, 0], false), Reading::At { read: 0, of: 15 });
        assert_eq!(Reading::of(&ends, &[18, 5], false), Reading::At { read: 13, of: 15 });
        // More may have come; and the last ones may be compacted away.
        assert_eq!(Reading::of(&ends, &[33, 7], false), Reading::Done);
        assert_eq!(Reading::of(&ends, &[18, 5], true), Reading::Done);
        assert_eq!(Reading::of(&[end(0, 3, 3)], &[3], false), Reading::Done, "an empty queue is read");
        let queue = Queue::default();
        assert_eq!(queue.unread().as_deref(), Some("the review queue is still to be read"));
        queue.progress(&ends, &[18, 5], false);
        assert_eq!(queue.unread().as_deref(), Some("the review queue is still being read: 13 of 15"));
        queue.progress(&ends, &[18, 5], true);
        assert_eq!(queue.unread(), None);
    }

    /// Two records, of which the second is compacted away.
    struct Compacted {
        fails: std::sync::atomic::AtomicBool,
        /// Reads that failed.
        failed: tokio::sync::Notify,
        news: tokio::sync::watch::Sender<u64>,
    }

    impl Log for Compacted {
        fn append(
            &self,
            _: Vec<crate::engine::Output>,
        ) -> BoxFuture<'static, Result<Vec<Position>, crate::engine::AppendError>> {
            std::future::pending().boxed()
        }

        fn read(&self, from: Position, _: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
            if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
                self.failed.notify_one();
                return async { Err(Unavailable("away".to_owned())) }.boxed();
            }
            let there = from.offset == 0;
            async move { Ok(there.then(|| record(0, Some("an item"))).into_iter().collect()) }.boxed()
        }

        fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
            let at = Partition { topic: topic.clone(), index: 0 };
            async move { Ok(vec![Ends { at, first: 0, next: 2, open: None }]) }.boxed()
        }

        fn since(&self, _: &Partition, _: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
            std::future::pending().boxed()
        }

        fn news(&self) -> tokio::sync::watch::Receiver<u64> {
            self.news.subscribe()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p5_a_queue_that_was_read_stays_read_when_the_log_is_away_later() {
        let log = Arc::new(Compacted {
            fails: false.into(),
            failed: tokio::sync::Notify::new(),
            news: tokio::sync::watch::Sender::new(0),
        });
        let (queue, cancel) = (Queue::default(), CancellationToken::new());
        let story = async {
            while queue.unread().is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            log.fails.store(true, std::sync::atomic::Ordering::SeqCst);
            log.news.send_modify(|n| *n += 1);
            // It has begun anew by the second one.
            for _ in 0..2 {
                log.failed.notified().await;
                assert_eq!((queue.unread(), queue.len()), (None, 1));
            }
            cancel.cancel();
        };
        tokio::join!(queue.follow(log.clone(), Topic::new("review.requests"), cancel.clone()), story);
    }

    #[test]
    fn p5_an_item_that_cannot_be_read_stays_open_and_says_what_can_be_said() {
        let queue = Queue::default();
        queue.take(record(3, Some(r#"{"v":9,"payload":{"text":"help"}}"#)));
        let items = queue.list();
        assert_eq!(items.len(), 1);
        let about = &items[0];
        assert_eq!((about.id.as_str(), about.opened_at, about.at.offset), ("abc", Timestamp(77), 3));
        let names = (about.kind.as_str(), about.key.as_str(), about.tenant.as_deref());
        assert_eq!(names, ("ticket", "T-1", Some("acme")));
        for part in ["cannot be read", "review.requests/0/3"] {
            assert!(about.question.contains(part), "{}", about.question);
        }
        assert!(!format!("{about:?}").contains("help"), "payloads stay in the log");
        // As it lies there, and never to be approved as it is.
        let there = record(3, Some(r#"{"v":9,"payload":{"text":"help"}}"#));
        let body = body(&there, there.value.as_ref().unwrap());
        assert_eq!((body.proposed.generation, &body.payload["payload"]["text"]), (2, &Value::from("help")));
        assert!(body.answer_text.is_some() && body.proposed.answer.is_null());
        queue.take(record(4, None));
        assert!(queue.is_empty());
        queue.take(record(5, Some("not JSON")));
        assert!(queue.list()[0].question.contains("cannot be read"));
    }

    #[test]
    fn an_open_item_takes_a_few_kilobytes_however_much_a_model_said_in_it() {
        let there = record(6, Some("not JSON"));
        let why = |n: usize| {
            let field = format!("list.f{n}-{}", "ü".repeat(50_000));
            serde_json::json!({ "reason": "TG-answer-invalid", "field": field, "detail": field, "severity": "major" })
        };
        let whole = ReviewItem {
            why: (0..50).map(why).collect(),
            question: format!("{} (and 49 more reasons)", "q".repeat(100_000)),
            payload: "p".repeat(1 << 20).into(),
            ..body(&there, there.value.as_ref().unwrap())
        };
        let text = serde_json::to_string(&whole).unwrap();
        let queue = Queue::default();
        queue.take(record(7, Some(&text)));
        let kept = &queue.list()[0];
        let bytes = format!("{kept:?}").len();
        assert!(bytes < 8 * 1024, "{bytes} bytes are kept");
        assert_eq!((kept.at.offset, kept.kind.as_str(), kept.key.as_str()), (7, "ticket", "T-1"));
        let fields: Vec<&str> = kept.why.iter().map(|w| w["field"].as_str().unwrap()).collect();
        assert!((2..50).contains(&fields.len()), "{} of the reasons", fields.len());
        for (n, field) in fields.iter().enumerate() {
            assert!(field.starts_with(&format!("list.f{n}-ü")) && field.ends_with('…'), "{field}");
        }
        assert!(kept.question.starts_with("qqq") && kept.question.len() < TEXT_MAX + 4);
    }

    #[test]
    fn of_an_item_whose_reasons_are_full_of_control_characters_the_first_one_is_kept() {
        let noise = "\u{1}\n\"".repeat(2_000);
        let why = serde_json::json!({ "reason": "TG-answer-invalid", "field": noise, "detail": noise });
        let kept = strongest(vec![why.clone(), why.clone(), why.clone(), why]);
        assert!(kept.len() >= 2, "{} of the reasons", kept.len());
        for one in &kept {
            let size = one.to_string().len();
            assert!((2 * TEXT_MAX..2 * TEXT_MAX + 100).contains(&size), "{size} bytes of JSON");
            assert!(one["field"].as_str().unwrap().starts_with("\u{1}\n\"\u{1}"), "{one}");
        }
        // However it is made.
        let odd = serde_json::json!({ "fields": vec!["x".repeat(100); 100] });
        assert_eq!(strongest(vec![odd.clone(), odd.clone()]), [odd]);
    }
}
