//! Calls that wait go to the store together, so that they share one sync of its disk.
//!
//! A store that syncs before it answers does so once for each piece that it reads of a connection, some
//! thirty calls; the calls of one transaction are run and synced at once, however long it is. So while two
//! batches are under way, what is asked gathers for the next one. A call that comes alone goes alone, and at
//! once. Their order is the order in which they were asked. It never asks anything twice.

use futures::stream::{FuturesUnordered, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Calls of one batch. The store serves nobody else meanwhile, some 15 ms; a sync may take as long.
const TOGETHER: usize = 512;
/// Bytes from which on a batch is full, for answers of a megabyte: the store keeps all of it until it is run.
const BYTES: usize = 1 << 20;
/// Batches under way: one that the store runs, and one that it reads next.
const UNDER_WAY: usize = 2;

pub(super) type Answer = RedisResult<Value>;

struct Asked {
    command: Cmd,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    fn bytes(&self) -> usize {
        let sizes = self.command.args_iter().map(|arg| match arg {
            Arg::Simple(text) => text.len(),
            _ => 0,
        });
        sizes.sum()
    }
}

/// Ends with its line.
pub(super) struct Batches {
    /// As many as callers are let in (see `CALLS`), and those who have gone since the last turn.
    queue: mpsc::UnboundedSender<Asked>,
    _running: JoinSet<()>,
}

impl Batches {
    pub(super) fn of(line: MultiplexedConnection) -> Self {
        let (queue, asked) = mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        running.spawn(run(line, asked));
        Batches { queue, _running: running }
    }

    /// In line at once. Nothing comes where the line ends first.
    pub(super) fn ask(&self, command: Cmd) -> oneshot::Receiver<Answer> {
        let (answer, hears) = oneshot::channel();
        // The queue ends with its line: then the answer's other end is dropped, which says so.
        let _ = self.queue.send(Asked { command, answer });
        hears
    }
}

async fn run(line: MultiplexedConnection, mut queue: mpsc::UnboundedReceiver<Asked>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // Begun in the order in which they are put in: each is polled here before the next is made.
            Some(()) = under_way.next() => {}
            first = queue.recv(), if under_way.len() < UNDER_WAY => {
                let Some(first) = first else { return };
                let batch = with_what_waits(first, &mut queue);
                if !batch.is_empty() {
                    under_way.push(send(line.clone(), batch));
                }
            }
        }
    }
}

/// Whoever has gone meanwhile is left out: what was never sent need not be taken back.
fn with_what_waits(first: Asked, queue: &mut mpsc::UnboundedReceiver<Asked>) -> Vec<Asked> {
    let (mut bytes, mut batch, mut next) = (0, Vec::new(), Some(first));
    while let Some(asked) = next {
        if !asked.answer.is_closed() {
            bytes += asked.bytes();
            batch.push(asked);
        }
        let full = batch.len() >= TOGETHER || bytes >= BYTES;
        next = if full { None } else { queue.try_recv().ok() };
    }
    batch
}

async fn send(mut line: MultiplexedConnection, mut batch: Vec<Asked>) {
    let told = if batch.len() == 1 {
        let command = std::mem::take(&mut batch[0].command);
        line.send_packed_command(&command).await.map(|value| vec![value])
    } else {
        let mut together = redis::pipe();
        together.atomic();
        for asked in &mut batch {
            together.add_command(std::mem::take(&mut asked.command));
        }
        line.send_packed_commands(&together, batch.len() + 1, 1)
            .await
            .and_then(|told| each(told, batch.len()))
    };
    match told {
        // Who asked may have gone.
        Ok(told) => batch.into_iter().zip(told).for_each(|(asked, value)| drop(asked.answer.send(Ok(value)))),
        Err(error) => batch.into_iter().for_each(|asked| drop(asked.answer.send(Err(error.clone())))),
    }
}

/// The answer of a transaction: as many values as calls, or why there are none.
fn each(told: Vec<Value>, calls: usize) -> RedisResult<Vec<Value>> {
    match told.into_iter().next() {
        Some(Value::Array(values)) if values.len() == calls => Ok(values),
        Some(Value::ServerError(error)) => Err(error.into()),
        _ => Err((redis::ErrorKind::UnexpectedReturnType, "a strange answer to a transaction").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_transaction_itself_is_refused_for_is_told_to_every_call_of_it() {
        let values = || vec![Value::Okay, Value::Int(1)];
        assert_eq!(each(vec![Value::Array(values())], 2).unwrap(), values());
        let refused = redis::parse_redis_value(b"-OOM command not allowed\r\n").unwrap();
        let told = each(vec![refused], 2).unwrap_err().to_string();
        assert!(told.contains("OOM") && told.contains("command not allowed"), "{told}");
        for strange in [vec![], vec![Value::Nil], vec![Value::Array(vec![Value::Okay])]] {
            assert!(each(strange, 2).unwrap_err().to_string().contains("strange answer"));
        }
    }
}
