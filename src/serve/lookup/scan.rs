//! Reads a topic in search of one record, within a bound.

use crate::engine::{Ends, Log, Unavailable};
use crate::task::{Position, Record, Timestamp, Topic};

/// Records read at once.
const PAGE: usize = 500;
/// Records a look-up reads of one topic at most: a second's work. What lies deeper is not found, and the
/// look-up says what the ledger says.
const READ_MAX: usize = 200_000;
/// Records beside the open ones that are read of a queue: open records are not always its last ones.
const SLACK: u64 = 2_000;

pub(in crate::serve) struct Scan<'a> {
    log: &'a dyn Log,
    topic: &'a Topic,
    begin: Begin,
}

#[derive(Clone, Copy)]
enum Begin {
    /// At records appended since.
    Since(Timestamp),
    /// Where the incomplete ones probably lie.
    Open,
}

impl<'a> Scan<'a> {
    pub(in crate::serve) fn new(log: &'a dyn Log, topic: &'a Topic, since: Timestamp) -> Self {
        Scan { log, topic, begin: Begin::Since(since) }
    }

    pub(in crate::serve) fn open(log: &'a dyn Log, topic: &'a Topic) -> Self {
        Scan { log, topic, begin: Begin::Open }
    }

    /// The first record that `pick` takes; every partition is read, for which one a key goes to is the
    /// engine's to know.
    pub(in crate::serve) async fn first<T>(
        &self,
        mut pick: impl FnMut(&Record) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let mut budget = READ_MAX;
        for ends in self.log.ends(self.topic).await? {
            let mut next = self.begin(&ends).await?;
            while next < ends.next && budget > 0 {
                let records =
                    self.log.read(Position { at: ends.at.clone(), offset: next }, PAGE.min(budget)).await?;
                let Some(last) = records.last() else { break };
                next = last.position.offset + 1;
                budget -= records.len().min(budget);
                if let Some(found) = records.iter().find_map(&mut pick) {
                    return Ok(Some(found));
                }
                // What lies in the log's cache is read without ever waiting: others are to run meanwhile.
                tokio::task::yield_now().await;
            }
        }
        Ok(None)
    }

    async fn begin(&self, ends: &Ends) -> Result<u64, Unavailable> {
        Ok(match self.begin {
            Begin::Since(since) => self.log.since(&ends.at, since).await?,
            Begin::Open => match ends.open {
                Some(0) => ends.next,
                open => ends.next.saturating_sub(open.unwrap_or(0) + SLACK),
            },
        }
        .max(ends.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Output;
    use crate::serve::memory::Memory;
    use crate::task::Headers;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_long_search_lets_others_run_between_its_pages() {
        let (memory, topic) = (Memory::new(), Topic::new("results"));
        for _ in 0..2 * PAGE {
            let headers = Headers::default();
            memory.put(Output { topic: topic.clone(), key: None, value: None, headers, not_before: None });
        }
        let log = memory.engine().log;
        let scan = Scan::new(&*log, &topic, Timestamp(0));
        let mut looks =
            Box::pin(scan.first(|record| (record.position.offset == 2 * PAGE as u64 - 1).then_some(())));
        assert!((&mut looks).now_or_never().is_none(), "two pages at once");
        assert_eq!(looks.await, Ok(Some(())));
    }
}
