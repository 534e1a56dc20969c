//! A disk in memory for tests: it loses and tears what was not synced, runs full, fails a flush.
//!
//! As mean as a real one may be: of what was not synced, any part may survive a power cut, in any
//! order; a new name that was not synced may be gone, a removed one may be back.

use super::files::{File, Files};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the disk does wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Answers a flush without doing it.
    pub(super) sync_lies: AtomicBool,
    /// So many flushes of log segments fail from now on, and drop what they should have written.
    pub(super) syncs_fail: AtomicU64,
    /// All reading and writing ends with an error.
    pub(super) off: AtomicBool,
    /// Bytes in all; 0: no limit.
    pub(super) capacity: AtomicU64,
    pub(super) syncs: AtomicU64,
    /// The largest write to a log segment so far that succeeded, bytes.
    pub(super) largest: AtomicU64,
    /// No segment can be made.
    pub(super) create_fails: AtomicBool,
    /// The state file takes no writes.
    pub(super) state_fails: AtomicBool,
    /// Whoever does this next panics, once: a mistake in the program.
    pub(super) trap: Mutex<Option<Trap>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trap {
    ReadLog,
    WriteLog,
    OpenState,
}

#[derive(Debug)]
pub(super) struct Simulated {
    names: Arc<Mutex<Names>>,
    pub(super) faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Names {
    now: BTreeMap<PathBuf, Arc<Content>>,
    durable: BTreeMap<PathBuf, Arc<Content>>,
    locked: bool,
}

#[derive(Debug, Default)]
struct Content(Mutex<Bytes>);

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Debug)]
struct Open {
    content: Arc<Content>,
    names: Arc<Mutex<Names>>,
    faults: Arc<Faults>,
    log: bool,
    state: bool,
}

struct Lock(Arc<Mutex<Names>>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.lock().unwrap().locked = false;
    }
}

impl Simulated {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Simulated { names: Arc::default(), faults: Arc::default() })
    }

    /// The power goes off: this disk is dead, and the answer is what is found when it comes back.
    pub(super) fn cut(&self, seed: u64) -> Arc<Self> {
        let names = self.names.lock().unwrap();
        self.faults.off.store(true, Ordering::SeqCst);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut after = BTreeMap::new();
        let paths: Vec<&PathBuf> = names.now.keys().chain(names.durable.keys()).collect();
        for path in paths {
            let (now, durable) = (names.now.get(path), names.durable.get(path));
            let same = matches!((now, durable), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
            let survivor = if same || rng.random_bool(0.5) { now } else { durable };
            if let Some(content) = survivor {
                after.insert(path.clone(), Arc::new(content.survives(&mut rng)));
            }
        }
        let names = Names { now: after.clone(), durable: after, locked: false };
        Arc::new(Simulated { names: Arc::new(Mutex::new(names)), faults: Arc::default() })
    }

    /// Changes bytes of a file, as a sick disk does.
    pub(super) fn damage(&self, path: &Path, at: usize) {
        let names = self.names.lock().unwrap();
        let mut bytes = names.now[path].0.lock().unwrap();
        bytes.now[at] ^= 0xff;
        bytes.durable[at] ^= 0xff;
    }

    pub(super) fn names(&self) -> Vec<(PathBuf, u64)> {
        let names = self.names.lock().unwrap();
        names.now.iter().map(|(p, c)| (p.clone(), c.0.lock().unwrap().now.len() as u64)).collect()
    }

    fn check(&self) -> io::Result<()> {
        check(&self.faults)
    }
}

fn check(faults: &Faults) -> io::Result<()> {
    if faults.off.load(Ordering::SeqCst) { Err(io::Error::other("the power is off")) } else { Ok(()) }
}

/// Before any lock is taken.
fn spring(faults: &Faults, trap: Trap) {
    let mut set = faults.trap.lock().unwrap();
    if *set == Some(trap) {
        *set = None;
        drop(set);
        panic!("a trap of the test: {trap:?}");
    }
}

impl Content {
    /// What is synced, and any part of what is not.
    fn survives(&self, rng: &mut StdRng) -> Content {
        let bytes = self.0.lock().unwrap();
        let mut kept = bytes.durable.clone();
        for change in &bytes.pending {
            match change {
                Change::Write(at, data) if rng.random_bool(0.7) => {
                    // Sectors reach the disk whole or not at all.
                    for (i, sector) in data.chunks(512).enumerate() {
                        if rng.random_bool(0.7) {
                            apply(&mut kept, &Change::Write(at + i as u64 * 512, sector.to_vec()));
                        }
                    }
                }
                Change::Len(_) if rng.random_bool(0.7) => apply(&mut kept, change),
                _ => {}
            }
        }
        Content(Mutex::new(Bytes { now: kept.clone(), durable: kept, pending: Vec::new() }))
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Len(len) => bytes.resize(*len as usize, 0),
        Change::Write(at, data) => {
            let (at, end) = (*at as usize, *at as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(data);
        }
    }
}

impl Files for Simulated {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.check()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.check()?;
        let here = self.names().into_iter().filter(|(p, _)| p.parent() == Some(dir));
        Ok(here.map(|(p, len)| (p.file_name().unwrap().to_string_lossy().into_owned(), len)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check()?;
        let names = self.names.lock().unwrap();
        let content = names.now.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        let is = |extension: &str| path.extension().is_some_and(|e| e == extension);
        let (log, state) = (is("log"), is("redb"));
        if state {
            drop(names);
            spring(&self.faults, Trap::OpenState);
        }
        Ok(Arc::new(Open { content, names: self.names.clone(), faults: self.faults.clone(), log, state }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check()?;
        if path.extension().is_some_and(|e| e == "log") && self.faults.create_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("no segment can be made"));
        }
        self.names.lock().unwrap().now.entry(path.to_owned()).or_default();
        self.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        let removed = self.names.lock().unwrap().now.remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.check()?;
        let mut names = self.names.lock().unwrap();
        self.check()?;
        names.durable = names.now.clone();
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.check()?;
        let mut names = self.names.lock().unwrap();
        let free = !std::mem::replace(&mut names.locked, true);
        Ok(free.then(|| Box::new(Lock(self.names.clone())) as Box<dyn Any + Send + Sync>))
    }

    fn free(&self, _dir: &Path) -> io::Result<u64> {
        self.check()?;
        Ok(u64::MAX)
    }
}

impl Open {
    fn change(&self, change: Change) -> io::Result<()> {
        if self.log && matches!(change, Change::Write(..)) {
            spring(&self.faults, Trap::WriteLog);
        }
        if self.state && self.faults.state_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the state file is broken"));
        }
        let names = self.names.lock().unwrap();
        check(&self.faults)?;
        let capacity = self.faults.capacity.load(Ordering::SeqCst);
        if capacity > 0 {
            let used: usize = names.now.values().map(|c| c.0.lock().unwrap().now.len()).sum();
            let mut bytes = self.content.0.lock().unwrap();
            let end = match &change {
                Change::Write(at, data) => *at + data.len() as u64,
                Change::Len(len) => *len,
            };
            let more = end.saturating_sub(bytes.now.len() as u64);
            let room = capacity.saturating_sub(used as u64);
            if more > room {
                // As real disks do: some of it is written all the same.
                if let Change::Write(at, data) = &change {
                    let fits = (data.len() as u64 - (more - room).min(data.len() as u64)) as usize;
                    let part = Change::Write(*at, data[..fits].to_vec());
                    apply(&mut bytes.now, &part);
                    bytes.pending.push(part);
                }
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        if let (true, Change::Write(_, data)) = (self.log, &change) {
            self.faults.largest.fetch_max(data.len() as u64, Ordering::SeqCst);
        }
        let mut bytes = self.content.0.lock().unwrap();
        apply(&mut bytes.now, &change);
        bytes.pending.push(change);
        Ok(())
    }
}

impl File for Open {
    fn size(&self) -> io::Result<u64> {
        check(&self.faults)?;
        Ok(self.content.0.lock().unwrap().now.len() as u64)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if self.log {
            spring(&self.faults, Trap::ReadLog);
        }
        check(&self.faults)?;
        let bytes = self.content.0.lock().unwrap();
        let found = bytes.now.get(at as usize..at as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(at, data.to_vec()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len))
    }

    fn sync(&self) -> io::Result<()> {
        // The names' lock orders flushes and power cuts: one of them is first.
        let _names = self.names.lock().unwrap();
        check(&self.faults)?;
        self.faults.syncs.fetch_add(u64::from(self.log), Ordering::SeqCst);
        if self.faults.sync_lies.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut bytes = self.content.0.lock().unwrap();
        let pending = std::mem::take(&mut bytes.pending);
        let fails = &self.faults.syncs_fail;
        if self.log && fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            // Marked clean although it is not on disk, as kernels do: a second flush would answer `Ok`.
            return Err(io::Error::other("input/output error"));
        }
        for change in &pending {
            apply(&mut bytes.durable, change);
        }
        Ok(())
    }
}
