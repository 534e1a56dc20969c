//! Segments of the log: their names, and reading one from a position on.
//!
//! A segment is named by the sequence of its first frame. Sealed segments are never written again.

use super::files::File;
use super::frame::{self, HEADER, Header};
use std::io;
use std::path::{Path, PathBuf};

pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

/// The first sequence, if the name is a segment's.
pub(super) fn first_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|n| n.len() == 20).and_then(|n| n.parse().ok())
}

/// What lies at a position.
#[derive(Debug)]
pub(super) enum Found {
    Frame(Header),
    /// The end of the file.
    End,
    /// Bytes that are no frame of this sequence.
    Bad,
}

/// Reads a segment frame by frame.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    file: &'a dyn File,
    len: u64,
    pub(super) at: u64,
    /// The last frame found, header and body.
    pub(super) bytes: Vec<u8>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(file: &'a dyn File, at: u64) -> io::Result<Self> {
        Ok(Scan { file, len: file.size()?, at, bytes: Vec::new() })
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Looks for the frame of `sequence` at the position; goes behind it if it is there.
    pub(super) fn next(&mut self, sequence: u64) -> io::Result<Found> {
        if self.at == self.len {
            return Ok(Found::End);
        }
        let Some(header) = self.read()?.filter(|h| h.sequence == sequence) else { return Ok(Found::Bad) };
        self.at += (HEADER + header.body) as u64;
        Ok(Found::Frame(header))
    }

    /// The frame at the position, if there is a whole one.
    fn read(&mut self) -> io::Result<Option<Header>> {
        let mut head = [0; HEADER];
        if self.len.saturating_sub(self.at) < HEADER as u64 {
            return Ok(None);
        }
        self.file.read_at(self.at, &mut head)?;
        let Some(header) = frame::header(&head) else { return Ok(None) };
        if self.len - self.at < (HEADER + header.body) as u64 {
            return Ok(None);
        }
        self.bytes.resize(HEADER + header.body, 0);
        self.file.read_at(self.at, &mut self.bytes)?;
        Ok(frame::body(&header, &self.bytes).is_some().then_some(header))
    }

    /// Whether a whole frame of `sequence` or later lies anywhere behind the position: then what
    /// lies at the position is no torn end but damage.
    pub(super) fn frame_behind(&mut self, sequence: u64) -> io::Result<bool> {
        let start = self.at;
        let mut rest = vec![0; usize::try_from(self.len.saturating_sub(start)).unwrap_or(0)];
        self.file.read_at(start, &mut rest)?;
        let mut from = 1;
        while let Some(i) = rest.get(from..).and_then(|r| r.windows(4).position(|w| w == frame::MAGIC)) {
            let bytes = &rest[from + i..];
            if frame::header(bytes)
                .is_some_and(|h| h.sequence >= sequence && frame::body(&h, bytes).is_some())
            {
                return Ok(true);
            }
            from += i + 1;
        }
        Ok(false)
    }
}
