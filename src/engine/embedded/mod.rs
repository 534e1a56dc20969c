//! The embedded engine: one process, one directory, a log of its own with redb behind it.

mod base;
mod cache;
mod changes;
mod checkpoint;
mod codec;
mod directory;
mod done;
mod error;
mod files;
mod folder;
mod frame;
mod group;
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
mod space;
mod state;
mod tail;
#[cfg(test)]
mod tests;
mod topics;
mod weak;
mod writer;

pub use error::{OpenError, OpenErrorKind};
pub use files::{Disk, File, Files};
pub use settings::{EmbeddedSettings, Weak};

use super::{Engine, TopicSpec};
use changes::Changes;
use folder::Folding;
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
        swept: writer::first_row(),
    };
    let topics = Changes { topics: new, ..Changes::default() };
    writer.write_first(topics).map_err(|e| OpenError::io(&dir, "write to")(std::io::Error::other(e)))?;
    let handle = start(shared, weak, writer).map_err(OpenError::io(&dir, "start a thread for"))?;
    let ledger = Arc::new(ledger::EmbeddedLedger(handle.clone()));
    Ok(Engine {
        groups: Arc::new(group::EmbeddedGroups(handle.clone())),
        commits: Arc::new(EmbeddedCommits(handle.clone())),
        log: Arc::new(log::EmbeddedLog(handle.clone())),
        ledger: ledger.clone(),
        journal: ledger,
        operation: Arc::new(EmbeddedOperation(handle)),
    })
}

fn start(shared: Arc<Shared>, weak: Option<Arc<Weakness>>, writer: Writer) -> std::io::Result<Arc<Handle>> {
    let mut threads = Vec::new();
    let thread = |name: &str| std::thread::Builder::new().name(format!("tidegate-{name}"));
    threads.push(thread("writer").spawn(move || writer.run())?);
    let kept = shared.clone();
    threads.push(thread("retention").spawn(move || retention::run(&kept))?);
    if let Some(weak) = weak.clone() {
        threads.push(thread("weak").spawn(move || weak.run())?);
    }
    Ok(Arc::new(Handle { shared, weak, threads: Mutex::new(threads) }))
}
