//! The thread that folds frozen layers into redb, and opens redb again after an error.
//!
//! It never holds up the writer: while it cannot fold, the layer stays in memory and is read there.

use super::base::{Backend, Base, BaseError};
use super::checkpoint::Fold;
use super::guard::Guard;
use super::shared::{Shared, lock};
use redb::Database;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long after a failed fold it is tried again.
const AGAIN: Duration = Duration::from_millis(300);

enum Job {
    Fold(Fold),
    Reopen,
}

/// The writer's end.
pub(super) struct Folding {
    shared: Arc<Shared>,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    ending: Arc<AtomicBool>,
    gave_up: Arc<AtomicBool>,
    failing: Arc<Mutex<Option<String>>>,
}

struct Folder {
    shared: Arc<Shared>,
    path: PathBuf,
    db: Option<Database>,
    ending: Arc<AtomicBool>,
    gave_up: Arc<AtomicBool>,
    /// Why the fold in hand has not come through yet.
    failing: Arc<Mutex<Option<String>>>,
}

impl Folding {
    pub(super) fn begin(shared: Arc<Shared>, path: PathBuf, db: Database) -> std::io::Result<Folding> {
        // One fold at a time, and at most one request to reopen behind it.
        let (jobs, todo) = sync_channel(2);
        let (ending, gave_up) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let failing = Arc::<Mutex<Option<String>>>::default();
        let folder = Folder {
            shared: shared.clone(),
            path,
            db: Some(db),
            ending: ending.clone(),
            gave_up: gave_up.clone(),
            failing: failing.clone(),
        };
        let guarded = shared.clone();
        let thread = std::thread::Builder::new().name("tidegate-fold".into()).spawn(move || {
            let _guard = Guard::new(&guarded, "tidegate-fold");
            folder.run(&todo);
        })?;
        Ok(Folding { shared, jobs: Some(jobs), thread: Some(thread), ending, gave_up, failing })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.shared.state().frozen.is_some()
    }

    /// Why the fold in hand has failed so far, if it has.
    pub(super) fn failing(&self) -> Option<String> {
        lock(&self.failing).clone()
    }

    /// Only when not busy.
    pub(super) fn start(&self, fold: Fold) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after this sender has gone.
            let _ = jobs.send(Job::Fold(fold));
        }
    }

    /// redb keeps an error until it is opened again.
    pub(super) fn reopen(&self) {
        if let Some(jobs) = &self.jobs {
            // Full: it has such a request already.
            let _ = jobs.try_send(Job::Reopen);
        }
    }

    /// At the end only: until it is free, or has given up (`false`; the next start replays more).
    pub(super) fn wait(&self) -> bool {
        self.ending.store(true, Ordering::Release);
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.is_busy() && !self.gave_up.load(Ordering::Acquire) && !ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.is_busy()
    }

    pub(super) fn finish(&mut self) {
        self.ending.store(true, Ordering::Release);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has logged what it had to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Folding {
    /// Also of a writer that panics: nobody waits for a fold that fails again and again.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
    }
}

impl Folder {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Fold(fold) => self.fold(&fold),
                Job::Reopen => self.reopen(),
            }
        }
    }

    fn fold(&mut self, fold: &Fold) {
        while let Err(e) = self.fold_once(fold) {
            tracing::error!(error = %e, "the state could not be folded; it stays in memory and is tried again");
            *lock(&self.failing) = Some(e.to_string());
            self.db = None;
            if self.ending.load(Ordering::Acquire) {
                return self.gave_up.store(true, Ordering::Release);
            }
            std::thread::sleep(AGAIN);
        }
        *lock(&self.failing) = None;
    }

    /// The same fold twice is the same as once.
    fn fold_once(&mut self, fold: &Fold) -> Result<(), BaseError> {
        let db = self.open()?;
        fold.write(db)?;
        let base = Arc::new(Base::open(db)?);
        let mut state = self.shared.state_mut();
        state.base = base;
        state.frozen = None;
        state.folded = fold.segment;
        Ok(())
    }

    fn reopen(&mut self) {
        self.db = None;
        let base = self.open().and_then(Base::open);
        match base {
            Ok(base) => self.shared.state_mut().base = Arc::new(base),
            Err(e) => tracing::error!(error = %e, "the state file could not be opened again"),
        }
    }

    fn open(&mut self) -> Result<&Database, BaseError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => open_state(&*self.shared.files, &self.path)?,
        };
        Ok(self.db.insert(db))
    }
}

/// Opens redb's file. The directory's own lock guards it, so redb takes none.
pub(super) fn open_state(
    files: &dyn super::files::Files,
    path: &std::path::Path,
) -> Result<Database, BaseError> {
    let file = files.create(path).map_err(|e| BaseError(e.to_string()))?;
    let mut builder = Database::builder();
    // A working set of hot pages; claims that matter now are in memory anyway.
    builder.set_cache_size(64 << 20);
    Ok(builder.create_with_backend(Backend(file))?)
}
