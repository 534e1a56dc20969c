//! Brings a directory back to where it was: the state of the last checkpoint, and every whole frame
//! behind it.
//!
//! Cuts off a torn last frame, and nothing else: damage anywhere else is refused with its place.

use super::base::{
    self, Base, BaseError, CLAIMS, EXPIRY, INDEX, LIVE, META, OPEN, PARTS, REFUSED, SEGMENTS, TOPICS, damaged,
};
use super::changes::{Changes, ClaimChange, Names, PartId};
use super::checkpoint::{decode_meta, decode_part, decode_segment, decode_topic};
use super::error::{OpenError, OpenErrorKind};
use super::files::Files;
use super::folder::open_state;
use super::frame::{self, HEADER, Header};
use super::segment::{self, Found, Scan};
use super::state::{Layer, LogEnd, State};
use crate::task::Timestamp;
use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn state_path(dir: &Path) -> PathBuf {
    dir.join("state.redb")
}

/// Opens state and log; everything acknowledged is in what it answers.
pub(super) fn recover(files: &dyn Files, dir: &Path) -> Result<(Database, State), OpenError> {
    let mut segments = list(files, dir)?;
    let path = state_path(dir);
    let unreadable = |e: BaseError| OpenError::new(&path, OpenErrorKind::State(e.0));
    let mut opened = open_state(files, &path).and_then(|db| load(&db).map(|state| (db, state)));
    if opened.is_err() && segments.is_empty() {
        // Nothing was ever acknowledged here: the very first start was cut short.
        files.remove(&path).map_err(OpenError::io(&path, "remove"))?;
        opened = open_state(files, &path).and_then(|db| load(&db).map(|state| (db, state)));
    }
    let (db, mut state) = opened.map_err(unreadable)?;
    if segments.is_empty() && state.segments.is_empty() {
        let first = segment::path(dir, state.end.sequence);
        files.create(&first).map_err(OpenError::io(&first, "make"))?;
        files.sync_dir(dir).map_err(OpenError::io(dir, "flush"))?;
        segments.push(state.end.sequence);
    }
    replay(files, dir, &mut state, &segments)?;
    settle(files, dir, &state, &segments)?;
    Ok((db, state))
}

fn list(files: &dyn Files, dir: &Path) -> Result<Vec<u64>, OpenError> {
    let listed = files.list(dir).map_err(OpenError::io(dir, "read"))?;
    let mut found: Vec<u64> = listed.iter().filter_map(|(name, _)| segment::first_of(name)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Only now is it known which segments the log still has: those must be there, and files of which
/// it knows nothing are those it let go of before they could be unlinked.
fn settle(files: &dyn Files, dir: &Path, state: &State, segments: &[u64]) -> Result<(), OpenError> {
    if let Some((gone, _)) = state.segments.iter().find(|(s, _)| segments.binary_search(s).is_err()) {
        let detail = "the file is missing".to_owned();
        return Err(OpenError::new(&segment::path(dir, *gone), OpenErrorKind::Damaged { at: 0, detail }));
    }
    for first in segments.iter().filter(|s| **s < state.end.segment && !state.segments.contains_key(s)) {
        if let Err(e) = files.remove(&segment::path(dir, *first)) {
            tracing::warn!(segment = first, error = %e, "a segment that nothing needs could not be removed");
        }
    }
    Ok(())
}

/// The state of the last checkpoint.
fn load(db: &Database) -> Result<State, BaseError> {
    make_tables(db)?;
    let read = db.begin_read()?;
    let meta = read.open_table(META)?.get("log")?.map(|m| m.value().to_vec());
    let first = LogEnd { segment: 1, at: 0, sequence: 1 };
    let (end, stamp, forgot) = match meta {
        Some(meta) => decode_meta(&meta).map_err(|_| damaged("position"))?,
        None => (first, Timestamp(0), 0),
    };
    let mut topics = Vec::new();
    for found in read.open_table(TOPICS)?.iter()? {
        let (id, bytes) = found?;
        topics.push(decode_topic(id.value(), bytes.value()).map_err(|_| damaged("topic"))?);
    }
    let mut parts = BTreeMap::new();
    for found in read.open_table(PARTS)?.iter()? {
        let (id, bytes) = found?;
        parts.insert(id.value(), decode_part(bytes.value()).map_err(|_| damaged("partition"))?);
    }
    for found in read.open_table(LIVE)?.iter()? {
        let (key, offset) = found?;
        let (t, p, key) = key.value();
        let part: &mut super::state::Part = parts.entry((t, p)).or_default();
        part.live.insert(Bytes::copy_from_slice(key), offset.value());
        part.live_offsets.insert(offset.value());
    }
    let mut segments = BTreeMap::new();
    for found in read.open_table(SEGMENTS)?.iter()? {
        let (segment, bytes) = found?;
        segments.insert(segment.value(), decode_segment(bytes.value()).map_err(|_| damaged("segment"))?);
    }
    let base = Arc::new(Base::open(db)?);
    let (layer, frozen) = (Layer::default(), None);
    Ok(State { topics, parts, segments, layer, frozen, base, folded: end.segment, end, stamp, forgot })
}

/// All of them, in one transaction, the first time. Which format they have, the directory's own file
/// `format` says.
fn make_tables(db: &Database) -> Result<(), BaseError> {
    if db.begin_read()?.open_table(META).is_ok() {
        return Ok(());
    }
    let mut write = db.begin_write()?;
    write.set_quick_repair(true);
    write.open_table(META)?;
    write.open_table(TOPICS)?;
    write.open_table(PARTS)?;
    write.open_table(SEGMENTS)?;
    write.open_table(INDEX)?;
    write.open_table(CLAIMS)?;
    write.open_table(OPEN)?;
    write.open_table(REFUSED)?;
    write.open_table(EXPIRY)?;
    write.open_table(LIVE)?;
    Ok(write.commit()?)
}

fn replay(files: &dyn Files, dir: &Path, state: &mut State, segments: &[u64]) -> Result<(), OpenError> {
    let missing = |first: u64, detail: &str| {
        let detail = detail.to_owned();
        OpenError::new(&segment::path(dir, first), OpenErrorKind::Damaged { at: 0, detail })
    };
    let from = state.end;
    if segments.binary_search(&from.segment).is_err() {
        return Err(missing(from.segment, "the file is missing"));
    }
    let ahead: Vec<u64> = segments.iter().copied().filter(|s| *s >= from.segment).collect();
    for (i, first) in ahead.iter().enumerate() {
        let at = if *first == from.segment { from.at } else { 0 };
        if *first != from.segment && *first != state.end.sequence {
            return Err(missing(*first, "frames before it are missing"));
        }
        replay_segment(files, dir, state, *first, at, ahead.get(i + 1).copied())?;
    }
    Ok(())
}

/// `next`: the sequence with which the segment behind it begins. What lies at or behind that
/// sequence was left there by a failed flush and never acknowledged.
fn replay_segment(
    files: &dyn Files,
    dir: &Path,
    state: &mut State,
    first: u64,
    at: u64,
    next: Option<u64>,
) -> Result<(), OpenError> {
    let path = segment::path(dir, first);
    let file = files.open(&path).map_err(OpenError::io(&path, "open"))?;
    let mut scan = Scan::new(&*file, at).map_err(OpenError::io(&path, "read"))?;
    if scan.len() < at {
        let detail = format!(
            "the file ends there, and frames up to byte {at} were acknowledged: a disk that lost what it had flushed, or a copy that was cut short"
        );
        return Err(OpenError::new(&path, OpenErrorKind::Damaged { at: scan.len(), detail }));
    }
    state.end = LogEnd { segment: first, at, sequence: state.end.sequence };
    while next != Some(state.end.sequence) {
        let (sequence, at) = (state.end.sequence, scan.at);
        let damage = |detail: String| OpenError::new(&path, OpenErrorKind::Damaged { at, detail });
        match scan.next(sequence).map_err(OpenError::io(&path, "read"))? {
            Found::Frame(header) => merge(state, &header, &scan.bytes, first, at).map_err(damage)?,
            Found::End if next.is_none() => return Ok(()),
            Found::End => return Err(damage(format!("the segment ends before frame {sequence}"))),
            Found::Bad if next.is_some() => return Err(damage(format!("no frame {sequence} there"))),
            Found::Bad if scan.frame_behind(sequence).map_err(OpenError::io(&path, "read"))? => {
                return Err(damage(format!("no frame {sequence} there, but whole frames behind it")));
            }
            Found::Bad => {
                tracing::info!(file = %path.display(), at, "cut off a torn frame at the end of the log: nobody was told of it, unless the disk lost what it had flushed");
                file.set_len(at).map_err(OpenError::io(&path, "cut"))?;
                return file.sync().map_err(OpenError::io(&path, "flush"));
            }
        }
    }
    Ok(())
}

fn merge(state: &mut State, header: &Header, bytes: &[u8], segment: u64, at: u64) -> Result<(), String> {
    let body = frame::body(header, bytes).ok_or("its checksum does not fit")?;
    let names = Names::from_stored(&state.topics);
    let read = Changes::decode(body, header.stamp, &names).map_err(|_| "its body cannot be read")?;
    let mut changes = read.changes;
    for (key, diff) in read.diffs {
        let before = state.claim(&key).map_err(|e| e.to_string())?;
        let after = diff.resolve(before.as_deref()).map_err(|e| e.to_string())?.map(Arc::new);
        changes.claims.insert(key, ClaimChange { before, after });
    }
    let len = u32::try_from(HEADER + header.body).unwrap_or(u32::MAX);
    let frame = base::FrameRef { segment, at, len, count: 0, stamp: header.stamp };
    state.merge(changes, frame, header.sequence);
    Ok(())
}

/// Partitions of a topic by number.
pub(super) fn partitions(state: &State, topic: u32) -> impl Iterator<Item = PartId> + '_ {
    state.parts.range((topic, 0)..=(topic, u32::MAX)).map(|(id, _)| *id)
}
