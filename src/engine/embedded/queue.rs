//! What the writer is asked to do, and the bounded queue in front of it.

use crate::engine::script::{LedgerCall, LedgerReply};
use crate::engine::{AppendError, Commit, Completion, Output, Unavailable};
use crate::task::Position;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Requests that wait for the writer at most: a few frames' worth, so that callers feel a slow disk
/// and memory does not grow with it.
const WAITING_MAX: usize = 8192;

pub(super) type ReplyTo<T> = oneshot::Sender<T>;

#[derive(Debug)]
pub(super) enum Command {
    Append {
        batch: Vec<Output>,
        reply: ReplyTo<Result<Vec<Position>, AppendError>>,
    },
    Commit {
        done: Completion,
        reply: ReplyTo<Commit>,
    },
    Ledger {
        call: Sent,
        reply: ReplyTo<Result<LedgerReply, Unavailable>>,
    },
    /// These topics have a group from now on. Answered once all that was asked before is durable.
    Join {
        topics: Vec<u32>,
        reply: ReplyTo<()>,
    },
    /// The partition's lease becomes this epoch.
    Revoke {
        part: (u32, u32),
        epoch: u64,
        reply: ReplyTo<()>,
    },
    /// The log forgets these segments; their files can be unlinked once answered.
    Drop {
        segments: Vec<u64>,
        reply: ReplyTo<()>,
    },
    /// The ledger returns to where it was when it last began to remember (tests only).
    Forget {
        reply: ReplyTo<()>,
    },
    /// The ledger begins to remember anew.
    Remember,
}

/// A call to the ledger, and over which connection it was made.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) call: LedgerCall,
    pub(super) connection: u64,
    pub(super) settled: bool,
}

/// Many callers, one writer.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: VecDeque<Command>,
    shut: bool,
}

/// The engine has been closed.
#[derive(Debug)]
pub(super) struct Shut;

impl Queue {
    pub(super) fn new() -> Self {
        Queue { waiting: Mutex::default(), wake: Condvar::new(), room: Semaphore::new(WAITING_MAX) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held; if it did, a queue is whole between any two calls.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room.
    pub(super) async fn push(&self, command: Command) -> Result<(), Shut> {
        // The permit comes back when the writer takes the command.
        self.room.acquire().await.map_err(|_| Shut)?.forget();
        self.push_now(command)
    }

    /// From the engine's own threads, whose requests are few: takes no room, but gives it.
    pub(super) fn push_own(&self, command: Command) -> Result<(), Shut> {
        if let Ok(permit) = self.room.try_acquire() {
            permit.forget();
        }
        self.push_now(command)
    }

    fn push_now(&self, command: Command) -> Result<(), Shut> {
        let mut waiting = self.lock();
        if waiting.shut {
            return Err(Shut);
        }
        waiting.commands.push_back(command);
        drop(waiting);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes what waits, at most `max`; waits for something for at most `patience`.
    pub(super) fn take(&self, max: usize, patience: Duration) -> (Vec<Command>, bool) {
        let mut waiting = self.lock();
        if waiting.commands.is_empty() && !waiting.shut {
            let woken = self.wake.wait_timeout(waiting, patience);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = waiting.commands.len().min(max);
        let taken = waiting.commands.drain(..count).collect();
        let shut = waiting.shut;
        drop(waiting);
        self.room.add_permits(count.min(WAITING_MAX.saturating_sub(self.room.available_permits())));
        (taken, shut)
    }

    pub(super) fn is_shut(&self) -> bool {
        self.lock().shut
    }

    /// Takes nothing more, and what waits is never done: who waits for it hears that at once.
    pub(super) fn abandon(&self) {
        self.shut();
        let dropped = std::mem::take(&mut self.lock().commands);
        // Not while the queue is locked: whoever wakes may look into it.
        drop(dropped);
    }

    /// Takes nothing more; what waits is still done.
    pub(super) fn shut(&self) {
        self.lock().shut = true;
        self.room.close();
        self.wake.notify_all();
    }
}
