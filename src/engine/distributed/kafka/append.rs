//! The thread that appends for whoever asks: what waits together becomes visible in one transaction.
//!
//! All or nothing, as the port says, although records of one batch may lie in several partitions. The
//! broker writes the end of a transaction a moment after it has answered: only then are they read. What
//! became of a commit without an answer is found out by looking where its first record would lie.

use super::super::committer::Ended;
use super::line::Watch;
use super::properties::Properties;
use super::reader::Question;
use super::transaction::Transactor;
use crate::engine::{AppendError, Output, Unavailable};
use crate::task::{Position, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};

/// Bytes of one transaction, as in the commits of a group.
const BATCH_BYTES: usize = 4 << 20;
/// A batch that cannot be appended by then is given back; its caller sees to the rest.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);
/// How often it is looked whether the reader has answered: far below what it takes to answer.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct Append {
    pub(super) batch: Vec<Output>,
    pub(super) reply: oneshot::Sender<Result<Vec<Position>, AppendError>>,
}

impl Append {
    fn bytes(&self) -> usize {
        self.batch.iter().map(Output::size).sum()
    }
}

pub(super) struct AppendThread {
    pub(super) properties: Properties,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) watch: Arc<Watch>,
    pub(super) reader: SyncSender<Question>,
    pub(super) limits: BTreeMap<Topic, usize>,
    pub(super) news: watch::Sender<u64>,
}

impl AppendThread {
    /// Until nobody can ask any more.
    pub(super) fn run(self, appends: &Receiver<Append>) {
        let mut transactor = Transactor::new(&self.properties, &self.name, self.id.clone(), &self.watch);
        let mut left = None;
        while let Some(first) = left.take().or_else(|| appends.recv().ok()) {
            // Whoever has given up was told that it was perhaps not appended, and sends it again.
            if first.reply.is_closed() {
                continue;
            }
            let mut bytes = first.bytes();
            let mut batch = vec![first];
            while let Ok(next) = appends.try_recv() {
                bytes += next.bytes();
                if bytes > BATCH_BYTES {
                    left = Some(next);
                    break;
                }
                batch.push(next);
            }
            self.append(&mut transactor, batch);
        }
    }

    fn append(&self, transactor: &mut Transactor<'_>, mut batch: Vec<Append>) {
        let until = Instant::now() + PATIENCE;
        while !batch.is_empty() {
            let outputs: Vec<Output> = batch.iter().flat_map(|a| a.batch.iter().cloned()).collect();
            match self.once(transactor, &outputs, until) {
                Ok(positions) => {
                    self.news.send_modify(|n| *n += 1);
                    let mut rest = positions.as_slice();
                    for append in batch {
                        let (own, behind) = rest.split_at(append.batch.len().min(rest.len()));
                        rest = behind;
                        // Whoever asked may have gone; what was appended stays so.
                        let _ = append.reply.send(Ok(own.to_vec()));
                    }
                    return;
                }
                Err(Fault::TooLarge(output)) => self.without(&mut batch, output),
                Err(Fault::Again(why)) if Instant::now() >= until => return give_back(batch, &why),
                // Appended again it might lie there twice.
                Err(Fault::Unknown(why)) => return give_back(batch, &why),
                Err(Fault::Again(why)) => {
                    tracing::debug!(%why, "appended again");
                    std::thread::sleep(AGAIN);
                }
            }
        }
    }

    /// The broker takes less than we thought.
    fn without(&self, batch: &mut Vec<Append>, output: usize) {
        let mut first = 0;
        let found = batch.iter().position(|append| {
            let here = output < first + append.batch.len();
            first += if here { 0 } else { append.batch.len() };
            here
        });
        let Some(append) = found.map(|at| batch.remove(at)) else { return };
        let index = output - first;
        if let Some(large) = append.batch.get(index) {
            let limit = self.limits.get(&large.topic).copied().unwrap_or_default().min(large.size());
            let (bytes, topic) = (large.size(), large.topic.clone());
            let _ = append.reply.send(Err(AppendError::TooLarge { index, bytes, limit, topic }));
        }
    }

    fn once(
        &self,
        transactor: &mut Transactor<'_>,
        outputs: &[Output],
        until: Instant,
    ) -> Result<Vec<Position>, Fault> {
        if !transactor.is_ready() {
            transactor.renew().map_err(|error| Fault::Again(format!("Kafka does not answer: {error}")))?;
        }
        match transactor.make(outputs, None) {
            Ended::Visible(positions) => Ok(positions),
            Ended::TooLarge { output } => Err(Fault::TooLarge(output)),
            Ended::Aborted { why } => Err(Fault::Again(why)),
            Ended::Broken { why } => {
                self.renew(transactor, until);
                Err(Fault::Again(why))
            }
            Ended::Unknown { positions, why } => {
                let settled = self.renew(transactor, until);
                match positions.first().filter(|_| settled).map(|first| self.is_there(first, until)) {
                    Some(Some(true)) => Ok(positions),
                    Some(Some(false)) => Err(Fault::Again(why)),
                    _ => Err(Fault::Unknown(why)),
                }
            }
        }
    }

    /// Whether there is a new producer: before, nothing can be said of what was left.
    fn renew(&self, transactor: &mut Transactor<'_>, until: Instant) -> bool {
        while let Err(error) = transactor.renew() {
            tracing::debug!(id = %self.id, %error, "no transactional producer yet");
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(AGAIN);
        }
        true
    }

    /// Whether a committed record lies there; asked behind a new producer, which has settled it. `None`:
    /// nobody has said so in time.
    fn is_there(&self, position: &Position, until: Instant) -> Option<bool> {
        while Instant::now() < until {
            let (reply, mut answer) = oneshot::channel();
            match self.reader.try_send(Question::Read(position.clone(), 1, reply)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    std::thread::sleep(AGAIN);
                    continue;
                }
                Err(TrySendError::Disconnected(_)) => return None,
            }
            let answer = loop {
                match answer.try_recv() {
                    Err(TryRecvError::Empty) if Instant::now() >= until => return None,
                    Err(TryRecvError::Empty) => std::thread::sleep(LOOK),
                    Err(TryRecvError::Closed) => return None,
                    Ok(answer) => break answer,
                }
            };
            match answer {
                Ok(found) => return Some(found.first().is_some_and(|r| r.position == *position)),
                Err(Unavailable(_)) => std::thread::sleep(AGAIN),
            }
        }
        None
    }
}

/// Perhaps it lies there all the same: whoever sends it again sends a duplicate.
fn give_back(batch: Vec<Append>, why: &str) {
    for append in batch {
        // Whoever asked may have gone.
        let _ = append.reply.send(Err(Unavailable(why.to_owned()).into()));
    }
}

enum Fault {
    TooLarge(usize),
    /// Nothing of it is there.
    Again(String),
    /// Nobody can say whether it is there.
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Partition;
    use std::collections::BTreeMap;
    use std::sync::mpsc::sync_channel;

    fn thread(reader: SyncSender<Question>) -> AppendThread {
        AppendThread {
            properties: Properties::new(BTreeMap::new()).unwrap(),
            name: "a".to_owned(),
            id: "a".to_owned(),
            watch: Arc::new(Watch::default()),
            reader,
            limits: BTreeMap::new(),
            news: watch::Sender::new(0),
        }
    }

    #[test]
    fn who_never_hears_whether_a_batch_is_there_gives_it_back_in_time_and_appends_it_no_second_time() {
        let at = Position { at: Partition { topic: Topic::new("tasks.copy"), index: 0 }, offset: 7 };
        let soon = || Instant::now() + Duration::from_millis(300);
        // Nobody takes the question; then there is no place for another.
        let (reader, asked) = sync_channel(1);
        let appending = thread(reader);
        for _ in 0..2 {
            assert_eq!(appending.is_there(&at, soon()), None);
        }
        assert!(matches!(asked.try_recv(), Ok(Question::Read(_, 1, reply)) if reply.is_closed()));
        drop(asked);
        assert_eq!(appending.is_there(&at, soon()), None, "its reader has ended");
        // One that answers, the second time.
        let (reader, asked) = sync_channel(1);
        let answering = std::thread::spawn(move || {
            for found in [Err(Unavailable("not now".to_owned())), Ok(Vec::new())] {
                let Ok(Question::Read(_, _, reply)) = asked.recv() else { panic!("another question") };
                reply.send(found).unwrap();
            }
        });
        assert_eq!(thread(reader).is_there(&at, Instant::now() + Duration::from_secs(30)), Some(false));
        answering.join().unwrap();
    }
}
