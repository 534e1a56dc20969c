//! What a commit writes beside a partition's offset: which records above it are not complete yet, and
//! which commit of which process said so.
//!
//! ```text
//!  offset: the first record that is not complete          base64 of
//!  metadata: version, instance, sequence, end, holes, crc32c
//! ```
//!
//! A hole is a record between the offset and `end` that is not complete. Offsets are not dense, so what
//! is no hole is complete or no record at all. The holes are as many as there is work in flight,
//! whatever span it covers, so they fit where Kafka takes 4,096 characters. What cannot be read is
//! foreign, never a panic: it is somebody else's, or damaged, and the caller says so.

use crate::dedupe::Instance;
use crate::engine::codec::{Reader, Short, put_u64};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::collections::BTreeSet;

/// Characters that a broker takes (`offset.metadata.max.bytes`, its default).
pub const TAKEN_MAX: usize = 4_096;
/// From here on a partition hands out nothing new, so that what is in flight can still be written down.
/// Far enough below the broker's limit for the largest holes of one more batch.
pub const CROWDED: usize = 3_500;

/// A list of holes, each as its distance from the one before.
const LIST: u8 = 1;
/// One bit for each offset from the base to `end`.
const BITMAP: u8 = 2;

/// As many bytes of bits as could be written at all; a longer bitmap is never the smaller form.
const BITMAP_MAX: u64 = TAKEN_MAX as u64;

/// Which commit wrote it: exact, so that "did commit n happen?" has an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Author {
    pub instance: Instance,
    /// Counts the commits of one instance and group; never goes back.
    pub sequence: u64,
}

/// How far a partition has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The first record that is not complete, or the one that comes next.
    pub base: u64,
    /// Nothing at or above it is complete. Equal to `base` where there are no holes.
    pub end: u64,
    /// From `base` (which is one, unless it equals `end`) to `end`.
    pub holes: BTreeSet<u64>,
}

impl Progress {
    pub fn at(base: u64) -> Self {
        Progress { base, end: base, holes: BTreeSet::new() }
    }

    /// Complete, or no record: never delivered.
    pub fn is_done(&self, offset: u64) -> bool {
        offset < self.base || (offset < self.end && !self.holes.contains(&offset))
    }
}

/// Metadata that is not ours, or damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Foreign {
    #[error("it is empty: another program, or a tool, has set the offset")]
    Empty,
    #[error("it was not written by this program")]
    NotOurs,
    #[error("it is version {0}, and this program reads version 1: a newer program has written it")]
    Version(u8),
    #[error("its checksum is wrong")]
    Damaged,
}

const VERSION: u8 = 1;

pub fn write(progress: &Progress, by: Author) -> String {
    let mut out = vec![VERSION];
    out.extend_from_slice(&by.instance.0.to_be_bytes());
    put_u64(&mut out, by.sequence);
    put_u64(&mut out, progress.end - progress.base);
    let list = list(progress);
    let span = progress.end - progress.base;
    if span.div_ceil(8) < (list.len() as u64).min(BITMAP_MAX) {
        out.push(BITMAP);
        out.extend_from_slice(&bitmap(progress));
    } else {
        out.push(LIST);
        out.extend_from_slice(&list);
    }
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    STANDARD_NO_PAD.encode(out)
}

fn list(progress: &Progress) -> Vec<u8> {
    let mut out = Vec::new();
    put_u64(&mut out, progress.holes.len() as u64);
    let mut before = progress.base;
    for hole in &progress.holes {
        put_u64(&mut out, hole - before);
        before = *hole;
    }
    out
}

fn bitmap(progress: &Progress) -> Vec<u8> {
    let bytes = (progress.end - progress.base).div_ceil(8);
    let mut out = vec![0u8; usize::try_from(bytes).unwrap_or(0)];
    for hole in &progress.holes {
        let at = hole - progress.base;
        if let Some(byte) = usize::try_from(at / 8).ok().and_then(|i| out.get_mut(i)) {
            *byte |= 1 << (at % 8);
        }
    }
    out
}

/// `base`: the offset that was committed with it.
pub fn read(base: u64, metadata: &str) -> Result<(Progress, Author), Foreign> {
    if metadata.is_empty() {
        return Err(Foreign::Empty);
    }
    if metadata.len() > TAKEN_MAX {
        return Err(Foreign::NotOurs);
    }
    let bytes = STANDARD_NO_PAD.decode(metadata).map_err(|_| Foreign::NotOurs)?;
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or(Foreign::NotOurs)?;
    let version = *body.first().ok_or(Foreign::NotOurs)?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
        return Err(if version == VERSION { Foreign::Damaged } else { Foreign::NotOurs });
    }
    if version != VERSION {
        return Err(Foreign::Version(version));
    }
    // What has the right checksum and still cannot be read was written by nobody.
    body_of(base, &body[1..]).map_err(|Short| Foreign::Damaged)
}

fn body_of(base: u64, bytes: &[u8]) -> Result<(Progress, Author), Short> {
    let (instance, rest) = bytes.split_first_chunk::<16>().ok_or(Short)?;
    let mut r = Reader::new(rest);
    let sequence = r.u64()?;
    let span = r.u64()?;
    let end = base.checked_add(span).ok_or(Short)?;
    let holes = match r.u8()? {
        LIST => holes_of_list(base, end, &mut r)?,
        BITMAP => holes_of_bitmap(base, span, &mut r)?,
        _ => return Err(Short),
    };
    // The base is the first hole, or there is none.
    if !r.is_empty() || holes.first().is_some_and(|first| *first != base) || (holes.is_empty() && span > 0) {
        return Err(Short);
    }
    let author = Author { instance: Instance(u128::from_be_bytes(*instance)), sequence };
    Ok((Progress { base, end, holes }, author))
}

fn holes_of_list(base: u64, end: u64, r: &mut Reader<'_>) -> Result<BTreeSet<u64>, Short> {
    let mut holes = BTreeSet::new();
    let mut at = base;
    for _ in 0..r.u64()? {
        at = at.checked_add(r.u64()?).ok_or(Short)?;
        if at >= end {
            return Err(Short);
        }
        holes.insert(at);
    }
    Ok(holes)
}

fn holes_of_bitmap(base: u64, span: u64, r: &mut Reader<'_>) -> Result<BTreeSet<u64>, Short> {
    if span.div_ceil(8) > BITMAP_MAX {
        return Err(Short);
    }
    let mut holes = BTreeSet::new();
    for byte in 0..span.div_ceil(8) {
        let bits = r.u8()?;
        let set = (0..8).filter(|bit| bits & (1 << bit) != 0).map(|bit| byte * 8 + bit);
        for at in set {
            if at >= span {
                return Err(Short);
            }
            holes.insert(base + at);
        }
    }
    Ok(holes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BY: Author = Author { instance: Instance(0x1234_5678_9abc_def0_1122_3344_5566_7788), sequence: 41 };

    fn progress(base: u64, end: u64, holes: &[u64]) -> Progress {
        Progress { base, end, holes: holes.iter().copied().collect() }
    }

    proptest! {
        #[test]
        fn what_was_written_comes_back(base in 0u64..1 << 40, gaps in prop::collection::vec(1u64..400, 0..300), beyond in 1u64..50) {
            let mut holes = BTreeSet::from_iter((!gaps.is_empty()).then_some(base));
            let mut at = base;
            for gap in gaps {
                at += gap;
                holes.insert(at);
            }
            let end = if holes.is_empty() { base } else { at + beyond };
            let progress = Progress { base, end, holes };
            prop_assert_eq!(read(base, &write(&progress, BY)), Ok((progress, BY)));
        }

        #[test]
        fn whatever_lies_there_is_read_or_called_foreign(text in "\\PC{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(7, &text);
            // Also what has a right checksum: a length in it may say anything.
            let mut body = vec![VERSION];
            body.extend(bytes);
            body.extend(crc32c::crc32c(&body).to_be_bytes());
            let _ = read(u64::MAX - 3, &STANDARD_NO_PAD.encode(body));
        }
    }

    #[test]
    fn one_wrong_character_is_found_out() {
        let text = write(&progress(100, 130, &[100, 117]), BY);
        for i in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[i] = if wrong[i] == b'A' { b'B' } else { b'A' };
            let found = read(100, std::str::from_utf8(&wrong).unwrap());
            assert!(found.is_err(), "character {i}: {found:?}");
        }
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        assert_eq!(read(5, ""), Err(Foreign::Empty));
        assert_eq!(read(5, "consumer-7"), Err(Foreign::NotOurs));
        assert_eq!(read(5, &"A".repeat(TAKEN_MAX + 1)), Err(Foreign::NotOurs));
        let mut newer = vec![2u8; 30];
        newer.extend(crc32c::crc32c(&newer).to_be_bytes());
        assert_eq!(read(5, &STANDARD_NO_PAD.encode(newer)), Err(Foreign::Version(2)));
    }

    #[test]
    fn dense_holes_are_bits_and_far_ones_a_list() {
        let dense = progress(0, 8_000, &(0..8_000).step_by(3).collect::<Vec<_>>());
        assert!(write(&dense, BY).len() < 1_400);
        // The worst that was measured for 1,024 in flight: spread over 84,892 offsets.
        let wide = progress(0, 84_893, &(0..1_024).map(|i| i * 82).collect::<Vec<_>>());
        assert!(write(&wide, BY).len() < 1_500);
        for p in [dense, wide] {
            assert_eq!(read(0, &write(&p, BY)).unwrap().0, p);
        }
    }

    #[test]
    fn version_1_stays_readable() {
        for (p, written) in [
            (progress(100, 130, &[100, 117]), LISTED),
            (progress(100, 130, &[100, 103, 104, 117, 118, 119, 129]), DENSE),
            (Progress::at(100), NONE),
        ] {
            assert_eq!(read(100, written), Ok((p.clone(), BY)));
            assert_eq!(write(&p, BY), written);
        }
    }

    /// Written by the first version of this file, in each of its forms. Never changed.
    const LISTED: &str = "ARI0VniavN7wESIzRFVmd4gpHgECABFTWK5f";
    const DENSE: &str = "ARI0VniavN7wESIzRFVmd4gpHgIZAA4gkChzvA";
    const NONE: &str = "ARI0VniavN7wESIzRFVmd4gpAAKBNF43";
}
