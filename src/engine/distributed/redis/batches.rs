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

/// Calls of one batch. The store serves nobody else meanwhile: a few milliseconds.
const TOGETHER: usize = 128;
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
    /// As long as callers are let in (see `CALLS`).
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
                under_way.push(send(line.clone(), with_what_waits(first, &mut queue)));
            }
        }
    }
}

fn with_what_waits(first: Asked, queue: &mut mpsc::UnboundedReceiver<Asked>) -> Vec<Asked> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while batch.len() < TOGETHER && bytes < BYTES {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.bytes();
        batch.push(next);
    }
    batch
}

/// Unconstrained: a task whose budget is used up would put off writing, and the next batch would overtake it.
async fn send(mut line: MultiplexedConnection, batch: Vec<Asked>) {
    let alone = batch.len() == 1;
    let mut together = redis::pipe();
    together.atomic();
    let (mut answers, mut commands) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for asked in batch {
        answers.push(asked.answer);
        commands.push(asked.command);
    }
    let told = if alone {
        let command = commands.pop().unwrap_or_default();
        tokio::task::unconstrained(line.send_packed_command(&command)).await.map(|value| vec![value])
    } else {
        let count = commands.len();
        for command in commands {
            together.add_command(command);
        }
        let told = tokio::task::unconstrained(line.send_packed_commands(&together, count + 1, 1)).await;
        told.map(|mut told| match told.pop() {
            Some(Value::Array(values)) => values,
            Some(other) => vec![other],
            None => Vec::new(),
        })
    };
    let mut told = told.map(Vec::into_iter);
    for answer in answers {
        let value = match &mut told {
            Ok(values) => values.next().map(Ok),
            Err(error) => Some(Err(error.clone())),
        };
        // An answer that is missing is dropped, which says that there is none. Who asked may have gone.
        let _ = value.map(|value| answer.send(value));
    }
}
