//! What the port's traits hold of an open engine; when the last of them goes, its threads end.

use super::log::gone;
use super::queue::Command;
use super::retention;
use super::shared::{Shared, lock};
use super::weak::Weakness;
use crate::engine::{Commit, Commits, Completion, Health, Operation, StorageReport};
use crate::task::{Position, Timestamp};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) weak: Option<Arc<Weakness>>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.shut();
        self.shared.wake_readers();
    }
}

pub(super) struct EmbeddedCommits(pub(super) Arc<Handle>);

impl Commits for EmbeddedCommits {
    fn commit(&self, done: Completion) -> BoxFuture<'static, Commit> {
        let shared = self.0.shared.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            if shared.queue.push(Command::Commit { done, reply }).await.is_err() {
                return Commit::Void;
            }
            // Closed before it was answered: perhaps visible, as `Void` says.
            answer.await.unwrap_or(Commit::Void)
        })
    }

    fn is_complete(&self, position: &Position) -> bool {
        let shared = &self.0.shared;
        let Some(topic) = shared.topics.id(&position.at.topic) else { return false };
        let state = shared.state();
        state.part((topic, position.at.index)).is_some_and(|p| p.done.contains(position.offset))
    }
}

pub(super) struct EmbeddedOperation(pub(super) Arc<Handle>);

impl Operation for EmbeddedOperation {
    fn health(&self) -> watch::Receiver<Health> {
        self.0.shared.health.subscribe()
    }

    fn storage(&self) -> BoxFuture<'static, StorageReport> {
        let shared = self.0.shared.clone();
        Box::pin(async move {
            let report = tokio::task::spawn_blocking(move || report(&shared));
            report.await.unwrap_or_default()
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let handle = self.0.clone();
        Box::pin(async move {
            // A join that fails is a thread that panicked; there is nothing left to end then.
            let _ = tokio::task::spawn_blocking(move || end(&handle)).await;
        })
    }
}

fn end(handle: &Handle) {
    if let Some(weak) = &handle.weak {
        weak.send_owed();
    }
    handle.shared.queue.shut();
    handle.shared.wake_readers();
    for thread in lock(&handle.threads).drain(..) {
        let _ = thread.join();
    }
}

fn report(shared: &Shared) -> StorageReport {
    let dir = &shared.settings.directory;
    let listed = shared.files.list(dir).unwrap_or_default();
    let ledger = listed.iter().find(|(name, _)| name == "state.redb").map_or(0, |(_, bytes)| *bytes);
    let state = shared.state();
    StorageReport {
        log_bytes: state.segments.values().map(|s| s.bytes).sum(),
        ledger_bytes: ledger,
        free_bytes: shared.files.free(dir).unwrap_or(0),
        segments: state.segments.len() as u64,
        pinned: retention::pinned(shared, &state, Timestamp::now()),
    }
}

/// Asks the writer; for the engine's own threads, which may block.
pub(super) fn ask<T>(
    shared: &Shared,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, crate::engine::Unavailable> {
    let (reply, answer) = oneshot::channel();
    shared.queue.push_own(command(reply)).map_err(|_| gone())?;
    answer.blocking_recv().map_err(|_| gone())
}
