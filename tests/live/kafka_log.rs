//! The port's log over a real broker: what is appended together is there together, and is read back as
//! it was.

use super::kafka_cluster::properties;
use crate::rig::kafka_broker::Broker;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::dedupe::Instance;
use tidegate::engine::distributed::kafka::{Kafka, KafkaLog};
use tidegate::engine::{AppendError, Log as _, Output, TopicSpec};
use tidegate::task::{Headers, Partition, Position, Timestamp, Topic};

const LIMIT: usize = 100_000;
const HANGS: Duration = Duration::from_secs(60);

fn output(topic: &str, key: &str, bytes: usize) -> Output {
    Output {
        topic: Topic::new(topic),
        key: Some(key.to_owned().into()),
        value: Some(vec![b'x'; bytes].into()),
        headers: Headers::default().with("a", "1"),
        not_before: None,
    }
}

async fn opened(broker: &Broker) -> Arc<KafkaLog> {
    // The broker takes less of `small` than we believe.
    broker.create(&[("wide", 3)], &[]).await;
    broker.create(&[("small", 1)], &[("max.message.bytes", "20000")]).await;
    let spec = |name: &str, partitions| TopicSpec {
        topic: Topic::new(name),
        partitions,
        limit: LIMIT,
        compacted: false,
        retention: None,
        internal: false,
        own: true,
        written: true,
    };
    let kafka = Kafka::new(properties(broker), Instance(7), "live");
    kafka.log(&[spec("wide", 3), spec("small", 1)]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_read_back_by_its_place() {
    let broker = Broker::start();
    let log = opened(&broker).await;
    let before = Timestamp::now();
    let mut news = log.news();
    news.borrow_and_update();
    let mut later = output("wide", "k", 5);
    later.not_before = Some(Timestamp(1_900_000_000_000));
    let batch = vec![output("wide", "a", 1), output("wide", "b", 2), output("wide", "c", 3), later.clone()];
    let lies = log.append(batch.clone()).await.unwrap();
    assert!(news.has_changed().unwrap());
    for (position, output) in lies.iter().zip(&batch) {
        // The broker writes the end of a transaction a moment after it has answered.
        let until = Instant::now() + HANGS;
        let mut found = log.read(position.clone(), 1).await.unwrap();
        while found.is_empty() && Instant::now() < until {
            found = log.read(position.clone(), 1).await.unwrap();
        }
        assert_eq!(found.len(), 1);
        let record = &found[0];
        assert_eq!((&record.position, &record.key, &record.value), (position, &output.key, &output.value));
        assert_eq!((&record.headers, record.not_before), (&output.headers, output.not_before));
        assert!(record.stamp >= before);
    }
    // To the end and no further, over the markers of transactions; then from the first of a time on.
    let ends = log.ends(&Topic::new("wide")).await.unwrap();
    assert_eq!(ends.len(), 3);
    let mut count = 0;
    for end in &ends {
        let from = Position { at: end.at.clone(), offset: 0 };
        let found = log.read(from, 100).await.unwrap();
        count += found.len();
        let past = Position { at: end.at.clone(), offset: end.next };
        assert_eq!(log.read(past, 100).await.unwrap(), []);
        assert_eq!(log.since(&end.at, before).await.unwrap(), end.first);
        assert_eq!(
            log.since(&end.at, Timestamp::now().plus(Duration::from_secs(60))).await.unwrap(),
            end.next
        );
    }
    assert_eq!(count, batch.len());
    assert_eq!(log.ends(&Topic::new("nowhere")).await.unwrap_or_default(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_a_record_that_is_too_large_is_not_there_at_all() {
    let broker = Broker::start();
    let log = opened(&broker).await;
    let too_large = |index, bytes| move |error: AppendError| matches!(error, AppendError::TooLarge { index: i, bytes: b, .. } if (i, b) == (index, bytes));
    // By our own count, and by the broker's, which stands behind two that fit.
    let ours = log.append(vec![output("wide", "a", 1), output("wide", "b", LIMIT)]).await.unwrap_err();
    assert!(too_large(1, LIMIT + 3)(ours));
    let theirs = vec![output("small", "a", 9_000), output("small", "b", 9_000), output("small", "c", 30_000)];
    let theirs = log.append(theirs).await.unwrap_err();
    assert!(too_large(2, 30_003)(theirs.clone()), "{theirs}");
    // Together they are larger than the broker takes at once, and each of them is not.
    let fits: Vec<Output> = ["a", "b", "c"].map(|key| output("small", key, 9_000)).into();
    assert_eq!(log.append(fits).await.unwrap().len(), 3);
    let nowhere = log.append(vec![output("nowhere", "a", 1)]).await.unwrap_err();
    assert_eq!(nowhere, AppendError::NoSuchTopic(Topic::new("nowhere")));
    let at = Partition { topic: Topic::new("small"), index: 0 };
    let there = log.read(Position { at, offset: 0 }, 100).await.unwrap();
    let keys: Vec<&[u8]> = there.iter().map(|r| r.key.as_deref().unwrap()).collect();
    assert_eq!(keys, [b"a", b"b", b"c"]);
}
