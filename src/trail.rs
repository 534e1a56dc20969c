//! Everything that happened to a task on the way: short notes that travel with it.
//!
//! Holds no payloads, prompts or answers; what a call did is in its tries.

use crate::task::Timestamp;
use serde::{Deserialize, Serialize};

/// Notes beyond this many replace the middle: the first ones say how it began, the last how it ended.
const NOTES_MAX: usize = 40;
/// A note's detail is cut here, so that a trail always fits a header (40 × ~250 bytes = 10 kB).
const DETAIL_MAX: usize = 200;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trail(Vec<Note>);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    pub at: Timestamp,
    /// A word or two: `admitted`, `parked`, `asked again`, `sent to a person`.
    pub what: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Trail {
    pub fn note(&mut self, at: Timestamp, what: &str, detail: impl Into<String>) {
        if self.0.len() >= NOTES_MAX {
            self.0.remove(NOTES_MAX / 2);
        }
        let mut detail: String = detail.into();
        if detail.len() > DETAIL_MAX {
            let cut = (0..=DETAIL_MAX).rev().find(|&i| detail.is_char_boundary(i)).unwrap_or(0);
            detail.truncate(cut);
        }
        self.0.push(Note { at, what: what.to_owned(), detail });
    }

    pub fn notes(&self) -> &[Note] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trail_keeps_its_beginning_and_its_end() {
        let mut trail = Trail::default();
        for i in 0..200 {
            trail.note(Timestamp(i), "step", "é".repeat(300));
        }
        assert_eq!(trail.notes().len(), NOTES_MAX);
        assert_eq!(trail.notes()[0].at, Timestamp(0));
        assert_eq!(trail.notes()[NOTES_MAX - 1].at, Timestamp(199));
        assert!(trail.notes().iter().all(|n| n.detail.len() <= DETAIL_MAX));
    }
}
