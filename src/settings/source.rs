//! The text of a configuration: where a byte stands, and which bytes are never quoted.

use super::problems::Place;
use std::ops::Range;

pub(super) struct Source {
    /// As the file was named.
    pub(super) name: String,
    /// The text with secrets blanked; as long as the text itself, byte for byte.
    quotable: String,
}

impl Source {
    /// `secret`: the spans that are never quoted.
    pub(super) fn new(name: &str, text: &str, secret: &[Range<usize>]) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        for span in secret {
            for byte in &mut bytes[span.clone()] {
                // Line ends stay, so that lines keep their numbers.
                if *byte != b'\n' {
                    *byte = b'*';
                }
            }
        }
        // Spans lie on character boundaries, so this is UTF-8 again.
        Source { name: name.to_owned(), quotable: String::from_utf8_lossy(&bytes).into_owned() }
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let text = &self.quotable;
        let start = floor(text, span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, span.end.clamp(start, line_end));
        Place {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            quote: text[line_start..line_end].trim_end().to_owned(),
        }
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
