//! Reads what a group's coordinator says of one of its members: the partitions it was assigned.
//!
//! The bytes are Kafka's `ConsumerProtocolAssignment`; what is not that is no assignment, never a panic.

use crate::task::{Partition, Topic};

/// `None`: these bytes are no assignment.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Partition>> {
    let mut rest = bytes;
    // The version: later ones only add to the end.
    take::<2>(&mut rest)?;
    let topics = u32::from_be_bytes(take(&mut rest)?);
    let mut found = Vec::new();
    for _ in 0..topics {
        let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
        let (name, behind) = rest.split_at_checked(length)?;
        rest = behind;
        let topic = Topic::new(std::str::from_utf8(name).ok()?);
        let count = u32::from_be_bytes(take(&mut rest)?);
        for _ in 0..count {
            let index = u32::from_be_bytes(take(&mut rest)?);
            found.push(Partition { topic: topic.clone(), index });
        }
    }
    Some(found)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = &[
        0, 1, // version
        0, 0, 0, 2, // topics
        0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, // a: 0, 7
        0, 2, b'b', b'c', 0, 0, 0, 0, // bc: none
        255, 255, 255, 255, // no user data
    ];

    #[test]
    fn an_assignment_is_read() {
        let a = |index| Partition { topic: Topic::new("a"), index };
        assert_eq!(read(TWO), Some(vec![a(0), a(7)]));
    }

    #[test]
    fn whatever_is_cut_off_or_foreign_is_no_assignment() {
        for length in 0..TWO.len() - 4 {
            assert_eq!(read(&TWO[..length]), None, "{length}");
        }
        assert_eq!(read(&[0, 0, 255, 255, 255, 255, 0, 1]), None);
    }
}
