//! The thread that appends for whoever asks: what waits together becomes visible in one transaction.
//!
//! All or nothing, as the port says, although records of one batch may lie in several partitions. The
//! broker writes the end of a transaction a moment after it has answered: only then are they read. What
//! became of a commit without an answer is found out by looking where its first record would lie.

use super::super::committer::Ended;
use super::line::Watch;
use super::properties::Properties;
use super::reader::{ANSWER, Question};
use super::transaction::Transactor;
use crate::engine::{AppendError, Output, Unavailable};
use crate::task::{Position, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Bytes of one transaction, as in the commits of a group.
const BATCH_BYTES: usize = 4 << 20;
/// A batch that cannot be appended by then is given back; its caller sees to the rest.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

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
    pub(super) reader: Sender<Question>,
    pub(super) limits: BTreeMap<Topic, usize>,
    pub(super) news: watch::Sender<u64>,
}

impl AppendThread {
    /// Until nobody can ask any more.
    pub(super) fn run(self, appends: &Receiver<Append>) {
        let mut transactor = Transactor::new(&self.properties, &self.name, self.id.clone(), &self.watch);
        let mut left = None;
        while let Some(first) = left.take().or_else(|| appends.recv().ok()) {
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
            match self.once(transactor, &outputs) {
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
                Err(Fault::Again(why)) if Instant::now() >= until => {
                    for append in batch {
                        let _ = append.reply.send(Err(Unavailable(why.clone()).into()));
                    }
                    return;
                }
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

    fn once(&self, transactor: &mut Transactor<'_>, outputs: &[Output]) -> Result<Vec<Position>, Fault> {
        if !transactor.is_ready() {
            transactor.renew().map_err(|error| Fault::Again(format!("Kafka does not answer: {error}")))?;
        }
        match transactor.make(outputs, None) {
            Ended::Visible(positions) => Ok(positions),
            Ended::TooLarge { output } => Err(Fault::TooLarge(output)),
            Ended::Aborted { why } => Err(Fault::Again(why)),
            Ended::Broken { why } => {
                self.renew(transactor);
                Err(Fault::Again(why))
            }
            Ended::Unknown { positions, why } => {
                self.renew(transactor);
                match positions.first() {
                    Some(first) if self.is_there(first) => Ok(positions),
                    _ => Err(Fault::Again(why)),
                }
            }
        }
    }

    /// Until it works: before, nothing can be said of what was left.
    fn renew(&self, transactor: &mut Transactor<'_>) {
        while let Err(error) = transactor.renew() {
            tracing::debug!(id = %self.id, %error, "no transactional producer yet");
            std::thread::sleep(AGAIN);
        }
    }

    /// Whether a committed record lies there; asked behind a new producer, which has settled it.
    fn is_there(&self, position: &Position) -> bool {
        loop {
            let (reply, answer) = oneshot::channel();
            if self.reader.send(Question::Read(position.clone(), 1, reply)).is_err() {
                return false;
            }
            match answer.blocking_recv() {
                Ok(Ok(found)) => return found.first().is_some_and(|r| r.position == *position),
                Ok(Err(_)) => std::thread::sleep(ANSWER / 10),
                Err(_) => return false,
            }
        }
    }
}

enum Fault {
    TooLarge(usize),
    Again(String),
}
