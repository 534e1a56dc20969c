//! How a record looks as a Kafka message, and how a message is read as a record.
//!
//! Kafka knows no time before which a message is not delivered: a header of ours carries it. Whatever
//! others have written is read as well as it can be, and never panics.

use super::guarded;
use crate::engine::Output;
use crate::task::{Headers, Partition, Position, Record, Timestamp, Topic};
use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};

/// Not to be delivered before: milliseconds since the epoch, in digits. Begins with `token::PREFIX`.
const NOT_BEFORE: &str = "tidegate-not-before";

/// The headers of a message.
pub(super) fn headers(output: &Output) -> OwnedHeaders {
    let count = output.headers.0.len() + usize::from(output.not_before.is_some());
    let mut headers = OwnedHeaders::new_with_capacity(count);
    for (name, value) in output.headers.0.iter().filter(|(name, _)| name != NOT_BEFORE) {
        headers = headers.insert(Header { key: name, value: Some(value.as_ref()) });
    }
    match output.not_before {
        Some(at) => headers.insert(Header { key: NOT_BEFORE, value: Some(&at.0.to_string()) }),
        None => headers,
    }
}

/// `None`: no offset, so it lies nowhere.
pub(super) fn read(message: &BorrowedMessage<'_>) -> Option<Record> {
    let mut headers = Headers::default();
    if let Some(found) = message.headers() {
        for index in 0..found.count() {
            // A name that is not UTF-8 panics in there; such a header is nobody's that we know.
            if let Some(Some(header)) = guarded(|| found.try_get(index)) {
                headers.push(header.key, Bytes::copy_from_slice(header.value.unwrap_or_default()));
            }
        }
    }
    let not_before = take_not_before(&mut headers);
    Some(Record {
        position: position(message)?,
        stamp: Timestamp(message.timestamp().to_millis().unwrap_or_default()),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
        not_before,
    })
}

pub(super) fn position(message: &BorrowedMessage<'_>) -> Option<Position> {
    let offset = u64::try_from(message.offset()).ok()?;
    let index = u32::try_from(message.partition()).ok()?;
    Some(Position { at: Partition { topic: Topic::new(message.topic()), index }, offset })
}

fn take_not_before(headers: &mut Headers) -> Option<Timestamp> {
    let at = headers.text(NOT_BEFORE).and_then(|text| text.parse().ok()).map(Timestamp);
    headers.0.retain(|(name, _)| name != NOT_BEFORE);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(output: &Output) -> Headers {
        let headers = headers(output);
        let pairs = headers.iter().map(|h| {
            let value: &[u8] = h.value.unwrap_or_default();
            (h.key.to_owned(), Bytes::copy_from_slice(value))
        });
        Headers(pairs.collect())
    }

    #[test]
    fn a_time_and_all_headers_come_back_in_their_order() {
        assert!(NOT_BEFORE.starts_with(crate::token::PREFIX));
        let headers = Headers::default().with("b", "1").with("a", vec![0, 255]).with("b", "2");
        let mut output = Output {
            topic: Topic::new("t"),
            key: None,
            value: None,
            headers: headers.clone(),
            not_before: Some(Timestamp(1_800_000_000_123)),
        };
        let mut read = written(&output);
        assert_eq!(take_not_before(&mut read), Some(Timestamp(1_800_000_000_123)));
        assert_eq!(read, headers);
        output.not_before = None;
        assert_eq!(written(&output), headers);
    }

    #[test]
    fn a_time_that_somebody_has_written_among_the_headers_is_not_carried_along() {
        let headers = Headers::default().with(NOT_BEFORE, "5").with("a", "1");
        let topic = Topic::new("t");
        let output = Output { topic, key: None, value: None, headers, not_before: None };
        assert_eq!(written(&output), Headers::default().with("a", "1"));
        let mut wrong = Headers::default().with(NOT_BEFORE, "soon");
        assert_eq!((take_not_before(&mut wrong), wrong), (None, Headers::default()));
    }
}
