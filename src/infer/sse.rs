//! Server-sent events from bytes that arrive in any pieces. Bounded; never waits.

/// The longest line that is kept, bytes: one chunk of any provider is far below.
const LINE_MAX: usize = 1024 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Event {
    /// The `event:` field; empty where there is none.
    pub(super) name: String,
    /// All `data:` lines, joined by newlines.
    pub(super) data: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a line of the stream is longer than {LINE_MAX} bytes")]
    TooLong,
    #[error("the stream is not UTF-8")]
    NotText,
}

/// Splits at CR, LF or CR LF, wherever the pieces break.
#[derive(Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    /// The last byte was a CR: a LF that follows belongs to it.
    after_cr: bool,
    event: Event,
    has_data: bool,
}

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Broken> {
        let mut out = Vec::new();
        for &byte in bytes {
            let skip = std::mem::take(&mut self.after_cr) && byte == b'\n';
            match byte {
                _ if skip => {}
                b'\r' | b'\n' => {
                    self.after_cr = byte == b'\r';
                    self.end_of_line(&mut out)?;
                }
                _ if self.line.len() >= LINE_MAX => return Err(Broken::TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(out)
    }

    fn end_of_line(&mut self, out: &mut Vec<Event>) -> Result<(), Broken> {
        let line = std::mem::take(&mut self.line);
        let line = std::str::from_utf8(&line).map_err(|_| Broken::NotText)?;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                out.push(event);
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            // Comments (an empty field), ids and retry times mean nothing here.
            _ => {}
        }
        if self.event.data.len() > LINE_MAX { Err(Broken::TooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn every_way_to_split_a_stream_gives_the_same_events() {
        let stream = "event: a\r\ndata: {\"t\":\"gr\u{fc}n \u{1f331}\"}\r\n\r\n: comment\ndata: one\rdata: two\r\r\ndata:[DONE]\n\n";
        let wanted =
            vec![event("a", "{\"t\":\"gr\u{fc}n \u{1f331}\"}"), event("", "one\ntwo"), event("", "[DONE]")];
        let bytes = stream.as_bytes();
        for i in 0..=bytes.len() {
            for j in i..=bytes.len() {
                let mut decoder = Decoder::default();
                let pieces = [&bytes[..i], &bytes[i..j], &bytes[j..]];
                let found: Vec<Event> =
                    pieces.iter().flat_map(|p| decoder.push(p).expect("well-formed")).collect();
                assert_eq!(found, wanted, "split at {i} and {j}");
            }
        }
    }

    #[test]
    fn a_line_without_end_and_bytes_that_are_not_text_are_refused() {
        let mut decoder = Decoder::default();
        let piece = vec![b'x'; LINE_MAX];
        assert_eq!(decoder.push(&piece), Ok(vec![]));
        assert_eq!(decoder.push(b"x"), Err(Broken::TooLong));
        assert_eq!(Decoder::default().push(b"data: \xff\xfe\n"), Err(Broken::NotText));
    }
}
