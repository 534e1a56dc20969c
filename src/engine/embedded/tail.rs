//! The end of the log: appends frames, and cuts off what was not acknowledged.
//!
//! `append` has answered `Ok` only when the frame is durable. After any error nothing of the frame
//! counts: its bytes are cut off, and after a failed flush they are left behind in a segment that
//! is never written again, for nobody knows what of them the disk will show later.

use super::super::crash::{crash_point, is_wanted};
use super::files::{File, Files};
use super::segment;
use super::state::LogEnd;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Tail {
    files: Arc<dyn Files>,
    dir: PathBuf,
    segment_bytes: u64,
    file: Arc<dyn File>,
    end: LogEnd,
    /// A flush of this segment has failed: the next frame goes elsewhere.
    sick: bool,
}

/// Why a frame is not in the log.
#[derive(Debug)]
pub(super) enum Refused {
    /// The disk is full; the segment is as before.
    Full(io::Error),
    /// Anything else; the segment must be left.
    Failed(io::Error),
}

impl Tail {
    pub(super) fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        segment_bytes: u64,
        end: LogEnd,
    ) -> io::Result<Tail> {
        let file = files.open(&segment::path(dir, end.segment))?;
        Ok(Tail { files, dir: dir.to_owned(), segment_bytes, file, end, sick: false })
    }

    /// Where the next frame will lie if it has `len` bytes, and its sequence.
    pub(super) fn sequence(&self) -> u64 {
        self.end.sequence
    }

    /// Writes and flushes one frame; where it lies: segment, position.
    pub(super) fn append(&mut self, frame: &[u8]) -> Result<(u64, u64), Refused> {
        if self.sick || self.end.at >= self.segment_bytes {
            self.roll().map_err(refused)?;
        }
        crash_point("frame.before-write");
        if let Err(e) = self.write(frame) {
            // If even this fails the next write goes over the same bytes; recovery would cut them too.
            let cut = self.file.set_len(self.end.at);
            return Err(if cut.is_ok() { refused(e) } else { Refused::Failed(e) });
        }
        crash_point("frame.before-sync");
        self.file.sync().map_err(Refused::Failed)?;
        crash_point("frame.after-sync");
        let place = (self.end.segment, self.end.at);
        self.end.at += frame.len() as u64;
        self.end.sequence += 1;
        Ok(place)
    }

    fn write(&self, frame: &[u8]) -> io::Result<()> {
        if is_wanted("frame.half-written") {
            let (head, rest) = frame.split_at(frame.len() / 2);
            self.file.write_at(self.end.at, head)?;
            crash_point("frame.half-written");
            return self.file.write_at(self.end.at + head.len() as u64, rest);
        }
        self.file.write_at(self.end.at, frame)
    }

    /// Leaves a segment whose flush failed. What it holds behind the last acknowledged frame is
    /// told apart by its sequence, which the next segment begins with.
    pub(super) fn leave(&mut self) -> io::Result<()> {
        self.sick = true;
        // Fails on a sick disk; then the bytes stay, and recovery passes over them.
        let _ = self.file.set_len(self.end.at);
        self.roll()
    }

    /// Begins a new segment.
    fn roll(&mut self) -> io::Result<()> {
        let path = segment::path(&self.dir, self.end.sequence);
        // Nothing durable is in a file of that name: it would hold this very sequence.
        match self.files.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = self.files.create(&path)?;
        crash_point("segment.created");
        self.files.sync_dir(&self.dir)?;
        crash_point("segment.named");
        self.file = file;
        self.end.segment = self.end.sequence;
        self.end.at = 0;
        self.sick = false;
        Ok(())
    }
}

fn refused(e: io::Error) -> Refused {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::Full(e),
        _ => Refused::Failed(e),
    }
}
