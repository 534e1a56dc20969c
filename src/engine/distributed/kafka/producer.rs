//! The thread that produces for one member: one transaction at a time, each sent as the group knew this
//! member when its offsets were taken.

use super::super::client::{Heard, Order};
use super::super::committer::{Ended, Transaction};
use super::line::Line;
use super::properties::Properties;
use super::transaction::Transactor;
use crate::task::Partition;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Between two tries to make a producer.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) struct ProducerThread {
    pub(super) line: Arc<Line>,
    pub(super) properties: Properties,
    pub(super) name: String,
    pub(super) id: String,
}

impl ProducerThread {
    /// Until its member is dropped.
    pub(super) fn run(self, orders: &Receiver<Order>) {
        let mut transactor = Transactor::new(&self.properties, &self.name, self.id.clone(), &self.line.watch);
        // At once, so that the first commit need not wait for it.
        self.renew(&mut transactor);
        while let Ok(order) = orders.recv() {
            let heard = match order {
                Order::Commit(transaction) => Heard::Ended(self.commit(&mut transactor, &transaction)),
                Order::Renew => {
                    self.renew(&mut transactor);
                    Heard::Renewed
                }
                _ => continue,
            };
            if !self.line.say(heard) {
                return;
            }
        }
    }

    /// Until it works, or nobody wants it any more.
    fn renew(&self, transactor: &mut Transactor<'_>) {
        while let Err(error) = transactor.renew() {
            if self.line.is_over() {
                return;
            }
            tracing::debug!(id = %self.id, %error, "no transactional producer yet");
            std::thread::sleep(AGAIN);
        }
    }

    fn commit(&self, transactor: &mut Transactor<'_>, transaction: &Transaction) -> Ended {
        let Some(by) = self.line.metadata(&transaction.by) else {
            // The broker would say the same, one trip later.
            return Ended::Aborted { why: "the group has moved on".to_owned() };
        };
        match offsets(&transaction.offsets) {
            Some(offsets) => transactor.make(&transaction.outputs, Some((&offsets, &by))),
            None => Ended::Aborted { why: "an offset beyond what Kafka can hold".to_owned() },
        }
    }
}

fn offsets(offsets: &[(Partition, u64, String)]) -> Option<TopicPartitionList> {
    let mut out = TopicPartitionList::with_capacity(offsets.len());
    for (at, offset, metadata) in offsets {
        let mut part = out.add_partition(at.topic.as_str(), i32::try_from(at.index).ok()?);
        part.set_offset(Offset::Offset(i64::try_from(*offset).ok()?)).ok()?;
        // Once only: what was set before would be leaked.
        part.set_metadata(metadata);
    }
    Some(out)
}
