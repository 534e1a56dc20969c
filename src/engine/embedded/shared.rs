//! What the writer, the readers and the groups of one open directory share.

use super::base::{BaseError, FrameRef};
use super::cache::{Cache, FrameRecords, by_partition};
use super::changes::{Changes, Names, PartId};
use super::files::{File, Files};
use super::frame::{self, HEADER};
use super::queue::Queue;
use super::segment;
use super::settings::EmbeddedSettings;
use super::state::State;
use super::topics::Topics;
use crate::dedupe::Instance;
use crate::engine::{Health, Unavailable};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;

pub(super) struct Shared {
    pub(super) settings: EmbeddedSettings,
    pub(super) files: Arc<dyn Files>,
    pub(super) topics: Topics,
    pub(super) names: Names,
    state: RwLock<State>,
    pub(super) queue: Queue,
    /// The epoch that is valid for each partition.
    leases: RwLock<HashMap<PartId, u64>>,
    epochs: AtomicU64,
    /// Rises with each loss of the (weak) ledger.
    pub(super) connection: AtomicU64,
    pub(super) instance: Instance,
    cache: Mutex<Cache>,
    readers: Mutex<HashMap<u64, Arc<dyn File>>>,
    pub(super) news: watch::Sender<u64>,
    pub(super) health: watch::Sender<Health>,
    /// Where the log is damaged, once that was found.
    damage: OnceLock<String>,
    /// Flushes of the log so far, for measuring.
    pub(super) flushes: AtomicU64,
    tick: Mutex<u64>,
    ticked: Condvar,
    /// The directory's lock, until the writer has ended.
    held: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

pub(super) use crate::engine::lock;

impl Shared {
    pub(super) fn new(
        settings: EmbeddedSettings,
        files: Arc<dyn Files>,
        topics: Topics,
        state: State,
        held: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Shared {
            cache: Mutex::new(Cache::new(settings.cache_bytes)),
            settings,
            files,
            names: Names::of(&topics),
            topics,
            state: RwLock::new(state),
            queue: Queue::new(),
            leases: RwLock::default(),
            epochs: AtomicU64::new(1),
            connection: AtomicU64::new(0),
            // 0 names nobody.
            instance: Instance(rand::random::<u128>() | 1),
            readers: Mutex::default(),
            news: watch::Sender::new(0),
            health: watch::Sender::new(Health::Well),
            damage: OnceLock::new(),
            flushes: AtomicU64::new(0),
            tick: Mutex::new(0),
            ticked: Condvar::new(),
            held: Mutex::new(Some(held)),
        }
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leases(&self) -> RwLockReadGuard<'_, HashMap<PartId, u64>> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_leases(&self, epochs: impl IntoIterator<Item = (PartId, u64)>) {
        self.leases.write().unwrap_or_else(PoisonError::into_inner).extend(epochs);
    }

    /// Never used before in this process.
    pub(super) fn new_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed)
    }

    /// Says that something new is visible, or that something else changed for the groups.
    pub(super) fn tell(&self) {
        self.news.send_modify(|n| *n += 1);
        self.wake_readers();
    }

    /// The groups' threads look again.
    pub(super) fn wake_readers(&self) {
        *lock(&self.tick) += 1;
        self.ticked.notify_all();
    }

    /// Waits until the readers were woken after it answered `seen`, for at most `patience`.
    pub(super) fn wait(&self, seen: u64, patience: Duration) -> u64 {
        let tick = lock(&self.tick);
        let waited = self.ticked.wait_timeout_while(tick, patience, |now| *now == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Nothing of this engine writes any more: another one may open the directory.
    pub(super) fn let_go(&self) {
        *lock(&self.held) = None;
    }

    /// Something that was acknowledged cannot be read any more, and no time mends that: work stops and
    /// says where. To go on without it would be to lose it in silence.
    fn damaged(&self, why: Unavailable) -> Unavailable {
        let first = self.damage.get_or_init(|| why.0.clone());
        self.set_health(Health::Paused { why: first.clone() });
        why
    }

    /// Changes the health; says so only if that is news. Who is gone stays so, for the first reason, and
    /// no log is well again once damage was found.
    pub(super) fn set_health(&self, health: Health) {
        let health = match (health, self.damage.get()) {
            (Health::Well, Some(why)) => Health::Paused { why: why.clone() },
            (health, _) => health,
        };
        let changed = self.health.send_if_modified(|now| {
            let changed = *now != health && !matches!(now, Health::Gone { .. });
            if changed {
                *now = health;
            }
            changed
        });
        if changed {
            match &*self.health.borrow() {
                Health::Well => tracing::info!("the embedded engine is well again"),
                Health::Partly { why } | Health::Paused { why } => {
                    tracing::warn!(why, "the embedded engine has paused");
                }
                // It only goes when it is told to.
                Health::Gone { why } => tracing::info!(why, "the embedded engine has ended"),
            }
            self.tell();
        }
    }

    /// Keeps the records of a frame that was just written.
    pub(super) fn keep(&self, frame: FrameRef, changes: &Changes) {
        if !changes.records.is_empty() {
            let records = Arc::new(by_partition(&changes.records));
            lock(&self.cache).put((frame.segment, frame.at), records);
        }
    }

    /// The records of a frame; reads the disk if it is not in memory. Blocks.
    pub(super) fn frame(&self, frame: FrameRef) -> Result<Arc<FrameRecords>, Unavailable> {
        if let Some(found) = self.cached(frame) {
            return Ok(found);
        }
        let path = segment::path(&self.settings.directory, frame.segment);
        let unreadable = |e: &dyn std::fmt::Display| {
            Unavailable(format!(
                "cannot read `{}` at byte {} ({e}): look at the disk",
                path.display(),
                frame.at
            ))
        };
        let damaged = |what: &str| {
            self.damaged(Unavailable(format!(
                "`{}` is damaged at byte {} ({what}): stop, and bring the directory back from a backup",
                path.display(),
                frame.at
            )))
        };
        let file = self.reader(frame.segment).map_err(|e| unreadable(&e))?;
        let mut bytes = vec![0; frame.len as usize];
        file.read_at(frame.at, &mut bytes).map_err(|e| unreadable(&e))?;
        let header = frame::header(&bytes).filter(|h| h.body + HEADER == bytes.len());
        let header = header.ok_or_else(|| damaged("no frame there"))?;
        let body = frame::body(&header, &bytes).ok_or_else(|| damaged("its checksum does not fit"))?;
        let read = Changes::decode(body, header.stamp, &self.names);
        let read = read.map_err(|_| damaged("its body cannot be read"))?;
        let records = Arc::new(by_partition(&read.changes.records));
        lock(&self.cache).put((frame.segment, frame.at), records.clone());
        Ok(records)
    }

    pub(super) fn cached(&self, frame: FrameRef) -> Option<Arc<FrameRecords>> {
        lock(&self.cache).get((frame.segment, frame.at))
    }

    fn reader(&self, segment: u64) -> std::io::Result<Arc<dyn File>> {
        let mut readers = lock(&self.readers);
        if let Some(file) = readers.get(&segment) {
            return Ok(file.clone());
        }
        // A log of 10 GB has 160 segments; so many open files are always allowed.
        if readers.len() >= 256 {
            readers.clear();
        }
        let file = self.files.open(&segment::path(&self.settings.directory, segment))?;
        readers.insert(segment, file.clone());
        Ok(file)
    }

    /// The segment is about to be unlinked.
    pub(super) fn close_reader(&self, segment: u64) {
        lock(&self.readers).remove(&segment);
    }
}

impl From<BaseError> for Unavailable {
    fn from(e: BaseError) -> Self {
        Unavailable(format!("the state file cannot be read ({e}); it is opened again by itself"))
    }
}
