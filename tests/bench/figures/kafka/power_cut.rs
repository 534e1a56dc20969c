//! What a power cut takes of a Redis that syncs once a second, and a kill -9 does not: the end of its log that
//! lay in the page cache. Looks ten times a second how long the log is, and cuts it back to what it was.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(100);
/// Redis puts a sync off for two seconds at most.
const KEPT: usize = 30;

type Seen = Arc<Mutex<VecDeque<(Instant, PathBuf, u64)>>>;

pub(super) struct PowerCut {
    seen: Seen,
    over: Arc<AtomicBool>,
}

impl PowerCut {
    pub(super) fn watch(place: &Path) -> Self {
        let cut = PowerCut { seen: Seen::default(), over: Arc::default() };
        let (seen, over, place) = (cut.seen.clone(), cut.over.clone(), place.join("appendonlydir"));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Some((path, bytes)) = newest(&place) {
                    let mut seen = seen.lock().unwrap();
                    seen.push_back((Instant::now(), path, bytes));
                    if seen.len() > KEPT {
                        seen.pop_front();
                    }
                }
                std::thread::sleep(LOOK);
            }
        });
        cut
    }

    /// Of a server that was killed just now: bytes that are gone. None where its log was made anew meanwhile.
    pub(super) fn takes(&self, lately: Duration) -> u64 {
        let seen = self.seen.lock().unwrap();
        let before = Instant::now().checked_sub(lately).unwrap();
        let Some((_, path, bytes)) = seen.iter().rev().find(|(at, ..)| *at <= before) else { return 0 };
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) else { return 0 };
        let gone = file.metadata().unwrap().len().saturating_sub(*bytes);
        file.set_len(*bytes).unwrap();
        gone
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// The part of the log that is written to.
fn newest(place: &Path) -> Option<(PathBuf, u64)> {
    let parts = std::fs::read_dir(place).ok()?.flatten();
    let parts = parts.filter(|part| part.file_name().to_string_lossy().ends_with(".incr.aof"));
    let newest = parts.max_by_key(|part| part.metadata().and_then(|m| m.modified()).ok())?;
    Some((newest.path(), newest.metadata().ok()?.len()))
}
