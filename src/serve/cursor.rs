//! Where a reader of several topics stands: the next offset of each partition, and its one-line form
//! that travels as the id of an event.
//!
//! `v1;results~2s,0,1a;tickets.labelled~f`: topics in any order, offsets in base 36 by partition.
//! Topic names hold letters, digits, `.`, `_` and `-`, so the three separators cannot be part of one.

use crate::task::{Partition, Position, Topic};
use std::fmt::Write as _;

/// A cursor of 64 topics with 64 partitions of ten digits each is shorter than this.
const TEXT_MAX: usize = 64 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Cursor {
    /// By topic, in the order the reader follows them.
    topics: Vec<(Topic, Vec<u64>)>,
}

impl Cursor {
    pub(super) fn new(topics: Vec<(Topic, Vec<u64>)>) -> Self {
        Cursor { topics }
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = Position> + '_ {
        self.topics.iter().flat_map(|(topic, next)| {
            next.iter().enumerate().map(|(index, offset)| Position {
                at: Partition { topic: topic.clone(), index: u32::try_from(index).unwrap_or(u32::MAX) },
                offset: *offset,
            })
        })
    }

    /// Takes note of a record. False: it was seen before, or its topic is not followed.
    pub(super) fn pass(&mut self, at: &Position) -> bool {
        let Some((_, next)) = self.topics.iter_mut().find(|(topic, _)| *topic == at.at.topic) else {
            return false;
        };
        let index = at.at.index as usize;
        if index >= next.len() {
            // A topic that grew while it was followed: its new partitions begin at their start.
            next.resize(index + 1, 0);
        }
        let fresh = at.offset >= next[index];
        if fresh {
            next[index] = at.offset + 1;
        }
        fresh
    }

    /// Goes where `other` stands, for the partitions it names and this one follows. A place beyond `ends`,
    /// where the same partitions end now, is of another log: there this one stays where it is.
    pub(super) fn resume(&mut self, other: &Cursor, ends: &Cursor) {
        for ((topic, next), (_, ends)) in self.topics.iter_mut().zip(&ends.topics) {
            let Some((_, theirs)) = other.topics.iter().find(|(t, _)| t == topic) else { continue };
            for ((mine, theirs), end) in next.iter_mut().zip(theirs).zip(ends) {
                if theirs <= end {
                    *mine = *theirs;
                }
            }
        }
    }

    pub(super) fn write(&self) -> String {
        let mut out = String::from("v1");
        for (topic, next) in &self.topics {
            // Writing to a String cannot fail.
            let _ = write!(out, ";{topic}~");
            for (i, offset) in next.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                base36(&mut out, *offset);
            }
        }
        out
    }

    pub(super) fn read(text: &str) -> Option<Cursor> {
        let mut parts = text.trim().split(';');
        if text.len() > TEXT_MAX || parts.next() != Some("v1") {
            return None;
        }
        let topic = |part: &str| {
            let (name, offsets) = part.split_once('~')?;
            let offset = |o: &str| u64::from_str_radix(o, 36).ok();
            let next =
                offsets.split(',').filter(|o| !o.is_empty()).map(offset).collect::<Option<Vec<_>>>()?;
            (!name.is_empty()).then(|| (Topic::new(name), next))
        };
        parts.map(topic).collect::<Option<Vec<_>>>().map(Cursor::new)
    }
}

fn base36(out: &mut String, mut n: u64) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // u64::MAX has 13 digits.
    let mut digits = [0_u8; 13];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = DIGITS[(n % 36) as usize];
        n /= 36;
        if n == 0 {
            break;
        }
    }
    out.extend(digits[at..].iter().map(|d| char::from(*d)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, index: u32, offset: u64) -> Position {
        Position { at: Partition { topic: Topic::new(topic), index }, offset }
    }

    fn cursor() -> Cursor {
        Cursor::new(vec![
            (Topic::new("results"), vec![100, 0, u64::MAX]),
            (Topic::new("tickets.labelled"), vec![35]),
        ])
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_written() {
        assert_eq!(cursor().write(), "v1;results~2s,0,3w5e11264sgsf;tickets.labelled~z");
        assert_eq!(Cursor::read(&cursor().write()), Some(cursor()));
        assert_eq!(Cursor::read("v1"), Some(Cursor::default()));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "v2;results~1", "v1;results", "v1;results~1,!", "v1;~1", "17", "v1;r~zzzzzzzzzzzzzz"]
        {
            assert_eq!(Cursor::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_record_passes_once() {
        let mut cursor = cursor();
        assert!(cursor.pass(&at("results", 0, 100)));
        assert!(!cursor.pass(&at("results", 0, 100)));
        assert!(cursor.pass(&at("results", 0, 103)), "offsets may have gaps");
        assert!(!cursor.pass(&at("results", 0, 102)));
        assert!(!cursor.pass(&at("elsewhere", 0, 1)));
        assert!(cursor.pass(&at("results", 7, 0)), "a topic may grow");
    }

    #[test]
    fn a_reader_that_comes_back_goes_on_where_it_was_and_begins_new_topics_at_their_place() {
        let mut now =
            Cursor::new(vec![(Topic::new("new"), vec![5]), (Topic::new("results"), vec![9, 9, 9, 9])]);
        let ends = Cursor::new(vec![(Topic::new("new"), vec![9]), (Topic::new("results"), vec![9, 9, 9, 9])]);
        now.resume(&Cursor::read("v1;results~1,2,3;gone~4").unwrap(), &ends);
        let expected =
            Cursor::new(vec![(Topic::new("new"), vec![5]), (Topic::new("results"), vec![1, 2, 3, 9])]);
        assert_eq!(now, expected);
    }

    #[test]
    fn a_place_that_the_log_does_not_reach_is_not_waited_for() {
        let mut now = Cursor::new(vec![(Topic::new("results"), vec![0, 0])]);
        let ends = Cursor::new(vec![(Topic::new("results"), vec![3, 3])]);
        now.resume(&Cursor::read("v1;results~3,4").unwrap(), &ends);
        assert_eq!(
            now,
            Cursor::new(vec![(Topic::new("results"), vec![3, 0])]),
            "another log's: from its start"
        );
    }
}
