//! One commit on disk: a header of 36 bytes, then the body.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `TGF1` |
//! | 4..8 | format version |
//! | 8..12 | length of the body |
//! | 12..20 | sequence, one more than the frame before |
//! | 20..28 | stamp, milliseconds since 1970 |
//! | 28..32 | zero, for later |
//! | 32..36 | crc32c of the 32 bytes before it and the body |
//!
//! All numbers little-endian. A frame is whole or it is not there: nothing is read from a body
//! whose checksum does not fit.

use crate::task::Timestamp;

pub(super) const HEADER: usize = 36;
pub(super) const MAGIC: [u8; 4] = *b"TGF1";
pub(super) const VERSION: u32 = 1;
/// No writer makes a larger one; a larger length is damage. Small in tests, so that one meets it.
pub(super) const BODY_MAX: usize = if cfg!(test) { 32 << 20 } else { 512 << 20 };

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) body: usize,
    pub(super) sequence: u64,
    pub(super) stamp: Timestamp,
    crc: u32,
}

/// Starts a frame in `out`; the body follows, then [`seal`].
pub(super) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER, 0);
}

/// Writes the header over the space that [`begin`] left.
pub(super) fn seal(out: &mut [u8], sequence: u64, stamp: Timestamp) {
    let body = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
    out[0..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&VERSION.to_le_bytes());
    out[8..12].copy_from_slice(&body.to_le_bytes());
    out[12..20].copy_from_slice(&sequence.to_le_bytes());
    out[20..28].copy_from_slice(&stamp.0.to_le_bytes());
    let crc = checksum(&out[..32], &out[HEADER..]);
    out[32..36].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a header; `None` if it cannot be one of this version.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
    let u32_at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
    let body = u32_at(8) as usize;
    if bytes[..4] != MAGIC || u32_at(4) != VERSION || body > BODY_MAX {
        return None;
    }
    Some(Header { body, sequence: u64_at(12), stamp: Timestamp(u64_at(20) as i64), crc: u32_at(32) })
}

/// The body of the whole frame in `bytes`, if its checksum fits.
pub(super) fn body<'a>(header: &Header, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let body = bytes.get(HEADER..HEADER + header.body)?;
    (checksum(&bytes[..32], body) == header.crc).then_some(body)
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out);
        out.extend_from_slice(b"what a commit changes");
        seal(&mut out, 7, Timestamp(-3));
        out
    }

    #[test]
    fn a_frame_comes_back() {
        let bytes = frame();
        let h = header(&bytes).unwrap();
        assert_eq!((h.sequence, h.stamp), (7, Timestamp(-3)));
        assert_eq!(body(&h, &bytes), Some(&b"what a commit changes"[..]));
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_noticed() {
        let whole = frame();
        for i in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[i / 8] ^= 1 << (i % 8);
            assert!(header(&bytes).is_none_or(|h| body(&h, &bytes).is_none()), "bit {i}");
        }
        for len in 0..whole.len() {
            let cut = &whole[..len];
            assert!(header(cut).is_none_or(|h| body(&h, cut).is_none()));
        }
    }
}
