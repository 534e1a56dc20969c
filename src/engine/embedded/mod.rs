//! The embedded engine: one process, one directory, a log of its own with redb behind it.
//!
//! ```text
//!  callers ──► queue ──► writer ──► frame, one flush ──► state (memory) ──► replies
//!                        (round)    segments, 64 MiB        │ every 64 MiB, beside it
//!  groups, reads ◄── cache ◄────────────┘                   └──► redb, with the place in the log
//! ```
//!
//! One commit is one frame is one flush. A frame holds all that it changes: records, completions,
//! claims with the slots that changed. Nobody is answered, and nothing is visible, before the flush.
//! In normal operation a mark is applied in the frame of its commit; with a weak ledger it is not,
//! and nothing above the port may notice.
//!
//! ## A crash between any two calls of the port
//!
//! | the process dies | on disk | what happens next | test |
//! |---|---|---|---|
//! | before the frame of an `append` is written | nothing of it | the caller has no answer; sends again, a copy at worst | `crashes`: `frame.before-write` |
//! | while a frame is written | a torn end | cut off at the next start; nobody was answered | `crashes`: `frame.half-written`; `disks`: `damage_is_refused…` |
//! | after the write, before the flush | all, part or nothing of the frame | whole: it counts, unknown to its callers; else cut off | `power`: `p2_what_was_acknowledged…`; `crashes`: `frame.before-sync` |
//! | after the flush, before the answer to `append` | the records | delivered; a repeated append is a copy, which the ledger finds out | `crashes`: `frame.after-sync`, `frame.merged`, `frame.half-answered`; `table`: `p1_after_append…` |
//! | after `append`, before the record is delivered or admitted | the record | delivered after the start | `p2_after_a_crash_exactly_the_incomplete…` |
//! | after `admit`, before `start` | the claim, open | delivered again, `Resumed` with a new fence | `table`: `p1_p3_after_admit…` |
//! | after `start`, before `store` | the slot, started by a process that is gone | `start` answers `Go { repeat }`, counted; an effect: `Unknown` | `p3_after_a_crash_a_started_call…` |
//! | after `store`, before `commit` | the answer | `Resumed` with the answer; nothing is bought again | `p3_after_a_crash_a_started_call…` |
//! | inside `commit` | outputs and completion, or neither | neither: delivered again | `crashes` and `power`: results and completions are pairs |
//! | after `commit`, before its mark (weak ledger only) | outputs and completion; the claim open | never delivered again; look-ups ask the log | `table`: `p1_after_commit…`; `stories`: `marks` |
//! | after the mark | the claim closed | copies are silent | `table`: `p1_after_the_mark…` |
//! | after a `release` or `bar` | as answered | as answered | `table`: `p3_p4_what_was_released…` |
//! | when a segment is begun | an empty file, or none | the log goes on in it, or begins it anew | `crashes`: `segment.created`, `segment.named` |
//! | while the state is folded | redb as of the fold before | a longer replay | `crashes`: `checkpoint.before-commit`, `checkpoint.after-commit` |
//! | while old segments are unlinked | segments of which the log knows nothing | removed at the start | `crashes`: `retention.before-unlink`, `retention.after-unlink`; `segments_that_the_log_let_go_of…` |
//! | after the ledger forgot (weak ledger only) | the earlier state, in a frame | as if it had always been so | `a_loss_goes_back_to_one_earlier_state…` |
//!
//! ## Why the lock is a file of its own
//!
//! redb keeps its first I/O error until its file is closed and opened again, and the directory must
//! stay ours meanwhile.
//!
//! ## Why a failed flush begins a new segment
//!
//! After a failed flush a kernel may show the bytes and never write them, and a second flush may
//! answer `Ok`. So the segment is never written again: its unacknowledged end is told apart by its
//! sequence, with which the next segment begins, and the same commands are decided again.

mod base;
mod cache;
mod changes;
mod checkpoint;
mod directory;
mod done;
mod error;
mod files;
mod folder;
mod frame;
mod group;
mod guard;
mod handle;
mod ledger;
mod log;
mod queue;
mod recovery;
mod remembered;
mod retention;
mod round;
mod segment;
mod settings;
mod shared;
#[cfg(test)]
mod simulated;
mod space;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod topics;
mod weak;
mod writer;

pub use directory::is_used;
pub use error::{OpenError, OpenErrorKind};
pub use files::{Disk, File, Files};
pub use settings::{EmbeddedSettings, Weak};

use super::{Engine, TopicSpec};
use changes::Changes;
use folder::Folding;
use guard::Guard;
use handle::{EmbeddedCommits, EmbeddedOperation, Handle};
use remembered::Remembered;
use shared::Shared;
use space::Space;
use std::sync::{Arc, Mutex};
use tail::Tail;
use topics::Topics;
use weak::Weakness;
use writer::Writer;

/// Opens the directory, or says why not. Blocks, for 2 s if another process holds it.
pub fn open(
    settings: EmbeddedSettings,
    specs: Vec<TopicSpec>,
    files: Arc<dyn Files>,
) -> Result<Engine, OpenError> {
    open_with_handle(settings, specs, files).map(|(engine, _)| engine)
}

fn open_with_handle(
    settings: EmbeddedSettings,
    specs: Vec<TopicSpec>,
    files: Arc<dyn Files>,
) -> Result<(Engine, Arc<Handle>), OpenError> {
    let settings = settings.within_budget();
    let dir = settings.directory.clone();
    let held = directory::take(&*files, &dir)?;
    let (db, state) = recovery::recover(&*files, &dir)?;
    let (topics, new) = Topics::new(state.topics.clone(), &specs);
    let tail = Tail::open(files.clone(), &dir, settings.segment_bytes, state.end);
    let tail = tail.map_err(OpenError::io(&dir, "open the log in"))?;
    let space = Space::new(files.clone(), &dir, settings.reserve_bytes, settings.budget_bytes);
    let shared = Arc::new(Shared::new(settings, files, topics, state, held));
    shared.set_health(space.health());
    let threads = OpenError::io(&dir, "start a thread for");
    let folding = Folding::begin(shared.clone(), recovery::state_path(&dir), db).map_err(threads)?;
    let weak = shared.settings.weak.clone().map(|w| Arc::new(Weakness::new(shared.clone(), w)));
    let forgets = shared.settings.weak.as_ref().is_some_and(|w| w.forgets);
    let mut writer = Writer {
        shared: shared.clone(),
        tail,
        space,
        folding,
        weak: weak.clone(),
        remembered: forgets.then(Remembered::default),
        buffer: Vec::new(),
        failed: false,
        swept: writer::first_row(),
    };
    let topics = Changes { topics: new, ..Changes::default() };
    writer.write_first(topics).map_err(|e| OpenError::io(&dir, "write to")(std::io::Error::other(e)))?;
    let handle = start(shared, weak, writer).map_err(OpenError::io(&dir, "start a thread for"))?;
    let ledger = Arc::new(ledger::EmbeddedLedger(handle.clone()));
    let engine = Engine {
        groups: Arc::new(group::EmbeddedGroups(handle.clone())),
        commits: Arc::new(EmbeddedCommits(handle.clone())),
        log: Arc::new(log::EmbeddedLog(handle.clone())),
        ledger: ledger.clone(),
        journal: ledger,
        operation: Arc::new(EmbeddedOperation(handle.clone())),
    };
    Ok((engine, handle))
}

fn start(shared: Arc<Shared>, weak: Option<Arc<Weakness>>, writer: Writer) -> std::io::Result<Arc<Handle>> {
    let mut threads = Vec::new();
    let mut thread = |name: &str, run: Box<dyn FnOnce() + Send>| -> std::io::Result<()> {
        let (shared, name) = (shared.clone(), format!("tidegate-{name}"));
        threads.push(std::thread::Builder::new().name(name.clone()).spawn(move || {
            let _guard = Guard::new(&shared, &name);
            run();
        })?);
        Ok(())
    };
    thread("writer", Box::new(move || writer.run()))?;
    let kept = shared.clone();
    thread("retention", Box::new(move || retention::run(&kept)))?;
    if let Some(weak) = weak.clone() {
        thread("weak", Box::new(move || weak.run()))?;
    }
    Ok(Arc::new(Handle { shared, weak, threads: Mutex::new(threads) }))
}
