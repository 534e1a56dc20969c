//! Reads lines with a bound on each; a line that breaks it is told by its number and skipped.

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// What a processor takes in one body by default; a longer line cannot be sent.
const LINE_MAX: usize = 16 * 1024 * 1024;

pub(super) enum Line {
    Text(Vec<u8>),
    /// Why it cannot be sent.
    Bad(String),
}

pub(super) struct Lines {
    from: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    number: u64,
    bytes: u64,
    max: usize,
}

impl Lines {
    pub(super) fn new(from: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Lines { from: BufReader::with_capacity(256 * 1024, from), number: 0, bytes: 0, max: LINE_MAX }
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line that is not blank, with its number from 1.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<(u64, Line)>> {
        loop {
            let Some((line, whole)) = self.raw().await? else { return Ok(None) };
            self.number += 1;
            if !whole {
                return Ok(Some((
                    self.number,
                    Line::Bad(format!("the line is longer than {} bytes", self.max)),
                )));
            }
            let line = line
                .strip_prefix(b"\xef\xbb\xbf")
                .filter(|_| self.number == 1)
                .map(<[u8]>::to_vec)
                .unwrap_or(line);
            match std::str::from_utf8(&line) {
                Err(_) => return Ok(Some((self.number, Line::Bad("the line is not UTF-8".to_owned())))),
                Ok(text) if text.trim().is_empty() => {}
                // A lone carriage return would be a line break to others.
                Ok(text) => {
                    return Ok(Some((self.number, Line::Text(text.trim().replace('\r', " ").into_bytes()))));
                }
            }
        }
    }

    /// Up to the next line feed; false: it was too long, and what came after the bound is dropped.
    async fn raw(&mut self) -> std::io::Result<Option<(Vec<u8>, bool)>> {
        let (mut line, mut whole, mut any) = (Vec::new(), true, false);
        loop {
            let buffer = self.from.fill_buf().await?;
            if buffer.is_empty() {
                return Ok(any.then_some((line, whole)));
            }
            any = true;
            let end = buffer.iter().position(|b| *b == b'\n');
            let piece = &buffer[..end.unwrap_or(buffer.len())];
            if line.len() + piece.len() <= self.max {
                line.extend_from_slice(piece);
            } else {
                whole = false;
                line = Vec::new();
            }
            let used = piece.len() + usize::from(end.is_some());
            self.from.consume(used);
            self.bytes += used as u64;
            if end.is_some() {
                return Ok(Some((line, whole)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_line_keeps_its_number_and_a_bad_one_stops_nobody() {
        let text = b"\xef\xbb\xbf{\"a\":1}\r\n\n  {\"b\":\n\xff\n12345678901234567890\nlast";
        let mut lines = Lines::new(Box::new(&text[..]));
        lines.max = 16;
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().await.unwrap() {
            found.push(match line {
                Line::Text(text) => format!("{number} {}", String::from_utf8(text).unwrap()),
                Line::Bad(why) => format!("{number} bad: {why}"),
            });
        }
        let expected = [
            "1 {\"a\":1}",
            "3 {\"b\":",
            "4 bad: the line is not UTF-8",
            "5 bad: the line is longer than 16 bytes",
            "6 last",
        ];
        assert_eq!(found, expected);
        assert_eq!(lines.bytes(), text.len() as u64);
    }
}
