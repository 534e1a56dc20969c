//! Numbers and byte strings as they lie in a frame: LEB128 numbers, strings behind their length.
//!
//! Reading never trusts a length: what reaches past the end is an error, not a panic.

use bytes::Bytes;

#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) struct Short;

pub(in crate::engine) fn put_u64(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Small negative numbers stay small.
pub(in crate::engine) fn put_i64(out: &mut Vec<u8>, n: i64) {
    put_u64(out, ((n << 1) ^ (n >> 63)) as u64);
}

pub(in crate::engine) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Absent is 0, present is the length + 1.
pub(in crate::engine) fn put_option(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(b) => {
            put_u64(out, b.len() as u64 + 1);
            out.extend_from_slice(b);
        }
    }
}

/// Reads what the functions above wrote.
pub(in crate::engine) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(in crate::engine) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(in crate::engine) fn u8(&mut self) -> Result<u8, Short> {
        let (first, rest) = self.rest.split_first().ok_or(Short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(in crate::engine) fn u64(&mut self) -> Result<u64, Short> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Short)
    }

    pub(in crate::engine) fn u32(&mut self) -> Result<u32, Short> {
        u32::try_from(self.u64()?).map_err(|_| Short)
    }

    pub(in crate::engine) fn i64(&mut self) -> Result<i64, Short> {
        let n = self.u64()?;
        Ok(((n >> 1) as i64) ^ -((n & 1) as i64))
    }

    fn slice(&mut self, len: u64) -> Result<&'a [u8], Short> {
        let len = usize::try_from(len).map_err(|_| Short)?;
        if len > self.rest.len() {
            return Err(Short);
        }
        let (head, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(head)
    }

    pub(in crate::engine) fn slice_counted(&mut self) -> Result<&'a [u8], Short> {
        let len = self.u64()?;
        self.slice(len)
    }

    /// A copy: a record that is kept must not keep its whole frame.
    pub(in crate::engine) fn bytes(&mut self) -> Result<Bytes, Short> {
        Ok(Bytes::copy_from_slice(self.slice_counted()?))
    }

    pub(in crate::engine) fn text(&mut self) -> Result<&'a str, Short> {
        std::str::from_utf8(self.slice_counted()?).map_err(|_| Short)
    }

    pub(in crate::engine) fn option(&mut self) -> Result<Option<Bytes>, Short> {
        match self.u64()? {
            0 => Ok(None),
            n => Ok(Some(Bytes::copy_from_slice(self.slice(n - 1)?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_cut_ones_are_short() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_u64(&mut out, n);
            put_i64(&mut out, n as i64);
            let mut r = Reader::new(&out);
            assert_eq!((r.u64(), r.i64(), r.is_empty()), (Ok(n), Ok(n as i64), true));
        }
        assert_eq!(Reader::new(&[0x80]).u64(), Err(Short));
        assert_eq!(Reader::new(&[9, 1]).bytes(), Err(Short));
    }

    #[test]
    fn empty_and_absent_are_two_things() {
        let mut out = Vec::new();
        put_option(&mut out, None);
        put_option(&mut out, Some(b""));
        let mut r = Reader::new(&out);
        assert_eq!((r.option(), r.option()), (Ok(None), Ok(Some(Bytes::new()))));
    }
}
