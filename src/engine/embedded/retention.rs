//! Decides which segments nobody needs any more, and gives their space back.
//!
//! A segment goes as a whole, once it is old enough and holds nothing incomplete and nothing live.
//! The log lets go of it first, in a frame of its own; its file is unlinked after that.

use super::super::crash::crash_point;
use super::handle::ask;
use super::queue::Command;
use super::segment;
use super::shared::Shared;
use super::state::{SegmentInfo, State};
use crate::task::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the thread looks whether the engine ends.
const STEP: Duration = Duration::from_millis(50);
/// Pins named in a report: a person reads them.
const NAMED_MAX: usize = 100;

/// The thread.
pub(super) fn run(shared: &Arc<Shared>) {
    let mut last = Instant::now();
    while !shared.queue.is_shut() {
        std::thread::sleep(STEP.min(shared.settings.retention_every));
        if last.elapsed() >= shared.settings.retention_every {
            last = Instant::now();
            let go = removable(shared, &shared.state(), Timestamp::now());
            if !go.is_empty() {
                remove(shared, &go);
            }
        }
    }
}

fn remove(shared: &Shared, segments: &[u64]) {
    let dropped = |reply| Command::Drop { segments: segments.to_vec(), reply };
    if ask(shared, dropped).is_err() {
        return;
    }
    crash_point("retention.before-unlink");
    for first in segments {
        shared.close_reader(*first);
        let path = segment::path(&shared.settings.directory, *first);
        // What stays is removed at the next start: the log knows nothing of it any more.
        if let Err(e) = shared.files.remove(&path) {
            tracing::warn!(file = %path.display(), error = %e, "an old segment could not be removed");
        }
    }
    crash_point("retention.after-unlink");
    tracing::info!(segments = segments.len(), "old segments were removed");
}

/// Segments that can go now.
pub(super) fn removable(shared: &Shared, state: &State, now: Timestamp) -> Vec<u64> {
    let old = state.segments.iter().filter(|(first, info)| {
        **first < state.folded && old_enough(shared, state, info, now) && pin(shared, state, info).is_none()
    });
    old.map(|(first, _)| *first).collect()
}

/// Old segments that cannot go, and why.
pub(super) fn pinned(shared: &Shared, state: &State, now: Timestamp) -> Vec<(String, String)> {
    let old = state.segments.iter();
    let old = old.filter(|(first, info)| **first < state.folded && old_enough(shared, state, info, now));
    let named = old.filter_map(|(first, info)| {
        let path = segment::path(&shared.settings.directory, *first);
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((name, pin(shared, state, info)?))
    });
    named.take(NAMED_MAX).collect()
}

/// Every topic in it has kept its records long enough. What a closed key's entry points at stays
/// as long as the entry, and a mark may be late by half a window.
fn old_enough(shared: &Shared, state: &State, info: &SegmentInfo, now: Timestamp) -> bool {
    let window = shared.settings.window;
    let outcomes = window + window / 2;
    let keep = info.parts.keys().map(|(topic, _)| {
        let wanted = shared.topics.get(*topic).and_then(|t| t.retention);
        let consumed = state.topics.iter().any(|t| t.id == *topic && t.consumed);
        if consumed { wanted.unwrap_or(window) } else { wanted.unwrap_or(window).max(outcomes) }
    });
    info.newest.plus(keep.max().unwrap_or_default()) <= now
}

/// What in the segment is still needed.
fn pin(shared: &Shared, state: &State, info: &SegmentInfo) -> Option<String> {
    for (id, (first, last)) in &info.parts {
        let Some(part) = state.part(*id) else { continue };
        let consumed = state.topics.iter().any(|t| t.id == id.0 && t.consumed);
        let name = shared.names.get(id.0).map_or("?", crate::task::Topic::as_str);
        if let (true, Some(open)) = (consumed, part.done.first_open(*first, *last)) {
            return Some(format!("record {name}/{}/{open} is not complete", id.1));
        }
        if let Some(live) = part.live_offsets.range(*first..=*last).next() {
            return Some(format!("record {name}/{}/{live} is the last of its key", id.1));
        }
    }
    None
}
