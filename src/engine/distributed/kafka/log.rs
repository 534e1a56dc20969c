//! The log of the port over Kafka: intake, look-ups and pages. Committed records only.
//!
//! Two threads stand behind it, one that appends and one that reads. Everything that waits has a
//! deadline, and a bounded place; who finds none is told so at once.

use super::Readers;
use super::append::{Append, AppendThread, PATIENCE};
use super::context::Quiet;
use super::line::Watch;
use super::properties::Properties;
use super::reader::{ANSWER, Answer, Question, ReaderThread};
use crate::engine::{AppendError, Ends, Log, Output, TopicSpec, Unavailable};
use crate::task::{Partition, Position, Record, Timestamp, Topic};
use futures::future::BoxFuture;
use rdkafka::consumer::BaseConsumer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How often followers look for what others have appended: what a person takes for at once.
const NEWS: Duration = Duration::from_millis(200);
/// What a question may wait behind others, beside its own time.
const QUEUE: Duration = Duration::from_secs(10);
/// What may wait for either thread: what they get done within `QUEUE` while all goes well, at some
/// milliseconds each. Whoever came behind them would be gone before his turn.
const WAITING: usize = 1_024;

pub struct KafkaLog {
    appends: SyncSender<Append>,
    questions: SyncSender<Question>,
    limits: BTreeMap<Topic, usize>,
    news: watch::Sender<u64>,
    /// Over the client that appends.
    appending: Arc<Watch>,
}

impl KafkaLog {
    /// `name` is this process's, and used by no other.
    pub(super) fn open(
        properties: &Properties,
        name: &str,
        readers: Readers,
        topics: &[TopicSpec],
    ) -> Result<Arc<Self>, Unavailable> {
        let cannot = |what: &dyn std::fmt::Display| Unavailable(format!("the Kafka client: {what}"));
        let client: BaseConsumer<Quiet> = properties
            .reader(&format!("{name}-read"), name)
            .create_with_context(Quiet)
            .map_err(|error| cannot(&error))?;
        let (appends, appended) = sync_channel(WAITING);
        let (questions, asked) = sync_channel(WAITING);
        let news = watch::Sender::new(0);
        let limits: BTreeMap<Topic, usize> = topics.iter().map(|t| (t.topic.clone(), t.limit)).collect();
        let watched = Arc::new(Watch::default());
        let appending = AppendThread {
            properties: properties.clone(),
            name: format!("{name}-append"),
            id: format!("{name}-append"),
            watch: watched.clone(),
            reader: questions.clone(),
            limits: limits.clone(),
            news: news.clone(),
        };
        let thread = |what: &str| std::thread::Builder::new().name(format!("kafka-{what}"));
        thread("append").spawn(move || appending.run(&appended)).map_err(|e| cannot(&e))?;
        let reading = ReaderThread::new(client, properties.clone(), format!("{name}-read"), readers);
        thread("read").spawn(move || reading.run(&asked)).map_err(|e| cannot(&e))?;
        Ok(Arc::new(KafkaLog { appends, questions, limits, news, appending: watched }))
    }

    /// Tells followers now and then to look. Until the client that appends has hung: nothing is appended by this
    /// process any more. `is_reachable`: as whoever looks for brokers says it; without one nothing hangs.
    pub async fn look(&self, is_reachable: impl Fn() -> bool) {
        while !self.appending.hangs(is_reachable(), Instant::now()) {
            tokio::time::sleep(NEWS).await;
            self.news.send_modify(|n| *n += 1);
        }
    }

    /// Where each partition's first open record lies, if more than `more_than` records lie before it.
    pub fn done(
        &self,
        topic: &Topic,
        more_than: u64,
    ) -> BoxFuture<'static, Result<Vec<Position>, Unavailable>> {
        let topic = topic.clone();
        self.ask(|reply| Question::Done(topic, more_than, reply))
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Answer<T>) -> Question,
    ) -> BoxFuture<'static, Result<T, Unavailable>> {
        let (reply, answer) = oneshot::channel();
        if let Err(away) = hand_over(&self.questions, question(reply)) {
            return Box::pin(async { Err(away) });
        }
        Box::pin(async move {
            match tokio::time::timeout(QUEUE + ANSWER, answer).await {
                Ok(Ok(answer)) => answer,
                _ => Err(Unavailable("Kafka does not answer".to_owned())),
            }
        })
    }
}

/// To a thread that ends with us.
fn hand_over<T>(to: &SyncSender<T>, what: T) -> Result<(), Unavailable> {
    match to.try_send(what) {
        Err(TrySendError::Full(_)) => Err(Unavailable("too much is asked of Kafka at once".to_owned())),
        Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
    }
}

impl Log for KafkaLog {
    fn append(&self, batch: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        if let Some(error) = AppendError::of(&batch, &self.limits) {
            return Box::pin(async { Err(error) });
        }
        if batch.is_empty() {
            return Box::pin(async { Ok(Vec::new()) });
        }
        let (reply, answer) = oneshot::channel();
        if let Err(away) = hand_over(&self.appends, Append { batch, reply }) {
            return Box::pin(async { Err(away.into()) });
        }
        Box::pin(async move {
            match tokio::time::timeout(QUEUE + PATIENCE, answer).await {
                Ok(Ok(answer)) => answer,
                // Perhaps it is appended later: whoever sends it again sends a duplicate.
                _ => Err(Unavailable("Kafka does not answer".to_owned()).into()),
            }
        })
    }

    fn read(&self, from: Position, max: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        self.ask(|reply| Question::Read(from, max, reply))
    }

    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
        let topic = topic.clone();
        self.ask(|reply| Question::Ends(topic, reply))
    }

    fn since(&self, at: &Partition, since: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
        let at = at.clone();
        self.ask(|reply| Question::Since(at, since, reply))
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn who_asks_behind_more_than_can_be_answered_is_told_so_at_once() {
        let nobody = BTreeMap::from([("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned())]);
        let properties = Properties::new(nobody).unwrap();
        let log = KafkaLog::open(&properties, "test", Readers::default(), &[]).unwrap();
        let at = Position { at: Partition { topic: Topic::new("tasks.copy"), index: 0 }, offset: 0 };
        // One may have been taken to be answered.
        let mut asked: Vec<_> = (0..WAITING + 2).map(|_| log.read(at.clone(), 1)).collect();
        let last = asked.pop().and_then(|last| last.now_or_never());
        assert_eq!(last, Some(Err(Unavailable("too much is asked of Kafka at once".to_owned()))));
        assert_eq!(asked[0].as_mut().now_or_never(), None, "it waits for its turn");
    }

    #[tokio::test]
    async fn it_looks_until_the_client_that_appends_has_hung_and_not_while_no_broker_is_reached() {
        let properties = Properties::new(BTreeMap::new()).unwrap();
        let log = KafkaLog::open(&properties, "test", Readers::default(), &[]).unwrap();
        let began = Instant::now();
        let looked_for_a_minute = |is_reachable| {
            for s in 1..60 {
                let _ = log.appending.hangs(is_reachable, began + Duration::from_secs(s));
            }
        };
        let looks = async |is_reachable: bool| {
            let (soon, news) = (NEWS + Duration::from_millis(100), log.news());
            let looks = tokio::time::timeout(soon, log.look(|| is_reachable)).await.is_err();
            assert_eq!(news.has_changed().unwrap(), looks, "followers are told");
            looks
        };
        assert!(looks(true).await, "nothing runs");
        log.appending.begin(began);
        looked_for_a_minute(false);
        assert!(looks(true).await, "time without a broker does not count");
        log.appending.begin(began);
        looked_for_a_minute(true);
        assert!(!looks(true).await, "it has hung");
        log.appending.end();
        assert!(looks(true).await, "it has come back");
    }
}
