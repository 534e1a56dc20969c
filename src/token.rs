//! How a token is written in the headers of a record, and read back: one encoder, one decoder.
//!
//! Only records of Tidegate's internal topics are read through here: on a task topic these headers
//! are somebody's words and are ignored.

use crate::task::{Fingerprint, Headers, Origin, Position, PrintRule, Record, ScopedKey, Timestamp, Token};
use crate::trail::Trail;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Everything Tidegate writes into headers begins with this.
pub const PREFIX: &str = "tidegate-";

pub const KIND: &str = "tidegate-kind";
pub const TENANT: &str = "tidegate-tenant";
pub const KEY: &str = "tidegate-key";
pub const GENERATION: &str = "tidegate-generation";
pub const ORIGIN: &str = "tidegate-origin";
pub const HOP: &str = "tidegate-hop";
pub const PRINT: &str = "tidegate-print";
pub const PROOF: &str = "tidegate-proof";
pub const CARRY: &str = "tidegate-carry";

/// What a task takes along from hop to hop beside its token.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Carry {
    /// Version of this structure; 1.
    pub v: u32,
    /// When its first record was accepted.
    pub accepted_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Time charged in earlier hops, ms; as all that follows, only for tries whose slot holds no answer:
    /// what a slot holds is counted from there, at every hop anew.
    #[serde(default)]
    pub spent_ms: u64,
    /// Money, where prices are known.
    #[serde(default)]
    pub spent_cost: f64,
    /// Money was spent whose amount is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unpriced: bool,
    /// Input and output tokens.
    #[serde(default)]
    pub spent_tokens: (u64, u64),
    #[serde(default)]
    pub tries: u32,
    /// Answers that broke off in the middle.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub broken_off: u32,
    /// Answers received up to here are in the trail.
    #[serde(default)]
    pub told_until: Timestamp,
    #[serde(default)]
    pub trail: Trail,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Writes the token over whatever `headers` (the producer's own) already hold.
pub fn encode(token: &Token, carry: &Carry, headers: &Headers) -> Headers {
    let mut out = Headers(headers.0.iter().filter(|(n, _)| !n.starts_with(PREFIX)).cloned().collect());
    write_identity(token, &mut out);
    // A structure of numbers and strings cannot fail to serialise.
    out.push(CARRY, serde_json::to_vec(carry).unwrap_or_default());
    out
}

/// Key, generation, origin, hop, fingerprint and proof, without what the task carries.
pub fn write_identity(token: &Token, out: &mut Headers) {
    out.push(KIND, token.key.kind.as_bytes().to_vec());
    if !token.key.tenant.is_empty() {
        out.push(TENANT, token.key.tenant.as_bytes().to_vec());
    }
    out.push(KEY, token.key.key.as_bytes().to_vec());
    out.push(GENERATION, token.generation.to_string());
    out.push(ORIGIN, write_origin(&token.origin));
    out.push(HOP, token.hop.to_string());
    out.push(PRINT, write_print(&token.print));
    if let Some(proof) = &token.proof {
        out.push(PROOF, proof.to_string());
    }
}

/// What a token header lacks or has wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("header `{0}` is missing or malformed")]
pub struct Invalid(pub &'static str);

/// Reads the token of a record on an internal topic. A record without an origin header is its own
/// origin: a redrive, or a record sent again.
pub fn decode(record: &Record, payload: Bytes) -> Result<(Token, Carry), Invalid> {
    let h = &record.headers;
    let text = |name: &'static str| h.text(name).ok_or(Invalid(name));
    let number = |name: &'static str| text(name).and_then(|t| t.parse::<u32>().map_err(|_| Invalid(name)));
    let own = Origin { position: record.position.clone(), stamp: record.stamp };
    let origin = match h.text(ORIGIN) {
        Some(text) => read_origin(text).ok_or(Invalid(ORIGIN))?,
        None => own,
    };
    let proof = match h.text(PROOF) {
        Some(text) => Some(text.parse::<Position>().map_err(|_| Invalid(PROOF))?),
        None => None,
    };
    let token = Token {
        key: ScopedKey::new(h.text(TENANT).unwrap_or(""), text(KIND)?, text(KEY)?),
        generation: number(GENERATION)?,
        origin,
        hop: number(HOP)?,
        print: read_print(text(PRINT)?).ok_or(Invalid(PRINT))?,
        proof,
        payload,
    };
    let carry = match h.get(CARRY) {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| Invalid(CARRY))?,
        None => Carry { v: 1, accepted_at: record.stamp, ..Carry::default() },
    };
    Ok((token, carry))
}

/// `topic/partition/offset@stamp_ms`.
pub fn write_origin(origin: &Origin) -> String {
    format!("{}@{}", origin.position, origin.stamp.0)
}

pub fn read_origin(text: &str) -> Option<Origin> {
    let (position, stamp) = text.rsplit_once('@')?;
    Some(Origin { position: position.parse().ok()?, stamp: Timestamp(stamp.parse().ok()?) })
}

/// `bytes:HEX`, `whole:HEX`, or `fields["a","b.c"]:HEX`.
pub fn write_print(print: &Fingerprint) -> String {
    let digest = blake3::Hash::from_bytes(print.digest).to_hex();
    match &print.rule {
        PrintRule::Bytes => format!("bytes:{digest}"),
        PrintRule::Whole => format!("whole:{digest}"),
        PrintRule::Fields(fields) => {
            let names = serde_json::to_string(&fields[..]).unwrap_or_default();
            format!("fields{names}:{digest}")
        }
    }
}

pub fn read_print(text: &str) -> Option<Fingerprint> {
    let (rule, digest) = text.rsplit_once(':')?;
    let rule = match rule {
        "bytes" => PrintRule::Bytes,
        "whole" => PrintRule::Whole,
        _ => {
            let names: Vec<String> = serde_json::from_str(rule.strip_prefix("fields")?).ok()?;
            PrintRule::Fields(names.into())
        }
    };
    Some(Fingerprint { rule, digest: *blake3::Hash::from_hex(digest).ok()?.as_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Partition, Topic};

    fn token(rule: PrintRule) -> Token {
        let position =
            |topic: &str, offset| Position { at: Partition { topic: Topic::new(topic), index: 3 }, offset };
        Token {
            key: ScopedKey::new("north", "ticket", "a/b\u{e9}"),
            generation: 2,
            origin: Origin { position: position("tasks.ticket", 7), stamp: Timestamp(1_700_000_000_123) },
            hop: 5,
            print: Fingerprint { rule, digest: [9; 32] },
            proof: Some(position("results", 12)),
            payload: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn a_token_comes_back_as_it_was_written() {
        for rule in
            [PrintRule::Bytes, PrintRule::Whole, PrintRule::Fields(vec!["a:b".into(), "c.d".into()].into())]
        {
            let token = token(rule);
            let carry = Carry {
                v: 1,
                accepted_at: Timestamp(5),
                deadline: Some(Timestamp(9)),
                spent_ms: 3,
                spent_cost: 0.25,
                ..Carry::default()
            };
            let mine = Headers::default().with("traceparent", "00-x").with(KEY, "forged");
            let record = Record {
                position: Position { at: Partition { topic: Topic::new("retry.5s"), index: 0 }, offset: 1 },
                stamp: Timestamp(77),
                key: None,
                value: Some(token.payload.clone()),
                headers: encode(&token, &carry, &mine),
                not_before: None,
            };
            assert_eq!(decode(&record, token.payload.clone()), Ok((token, carry)));
            assert_eq!(
                record.headers.text("traceparent"),
                Some("00-x"),
                "the producer's headers travel along"
            );
        }
    }

    type Written = Vec<(&'static str, &'static str)>;

    /// What version 1 wrote: a parked token and a redrive, each with its headers. These lines never change: add
    /// new ones for a new version.
    fn version_1() -> Vec<(Token, Carry, Written)> {
        let mut trail = Trail::default();
        trail.note(Timestamp(6), "admitted", "");
        trail.note(Timestamp(7), "parked", "no model");
        let whole = Carry {
            v: 1,
            accepted_at: Timestamp(5),
            deadline: Some(Timestamp(9)),
            spent_ms: 3,
            spent_cost: 0.25,
            unpriced: true,
            spent_tokens: (10, 20),
            tries: 4,
            broken_off: 2,
            told_until: Timestamp(8),
            trail,
        };
        let fields = PrintRule::Fields(vec!["a:b".into(), "c.d".into()].into());
        let mut plain = token(PrintRule::Whole);
        plain.key = ScopedKey::new("", "ticket", "T 1");
        plain.proof = None;
        vec![
            (
                token(fields),
                whole,
                vec![
                    ("tidegate-kind", "ticket"),
                    ("tidegate-tenant", "north"),
                    ("tidegate-key", "a/b\u{e9}"),
                    ("tidegate-generation", "2"),
                    ("tidegate-origin", "tasks.ticket/3/7@1700000000123"),
                    ("tidegate-hop", "5"),
                    (
                        "tidegate-print",
                        "fields[\"a:b\",\"c.d\"]:0909090909090909090909090909090909090909090909090909090909090909",
                    ),
                    ("tidegate-proof", "results/3/12"),
                    (
                        "tidegate-carry",
                        "{\"v\":1,\"accepted_at\":5,\"deadline\":9,\"spent_ms\":3,\"spent_cost\":0.25,\
                         \"unpriced\":true,\"spent_tokens\":[10,20],\"tries\":4,\"broken_off\":2,\
                         \"told_until\":8,\"trail\":[{\"at\":6,\"what\":\"admitted\"},\
                         {\"at\":7,\"what\":\"parked\",\"detail\":\"no model\"}]}",
                    ),
                ],
            ),
            (
                plain,
                Carry { v: 1, ..Carry::default() },
                vec![
                    ("tidegate-kind", "ticket"),
                    ("tidegate-key", "T 1"),
                    ("tidegate-generation", "2"),
                    ("tidegate-origin", "tasks.ticket/3/7@1700000000123"),
                    ("tidegate-hop", "5"),
                    (
                        "tidegate-print",
                        "whole:0909090909090909090909090909090909090909090909090909090909090909",
                    ),
                    (
                        "tidegate-carry",
                        "{\"v\":1,\"accepted_at\":0,\"spent_ms\":0,\"spent_cost\":0.0,\
                         \"spent_tokens\":[0,0],\"tries\":0,\"told_until\":0,\"trail\":[]}",
                    ),
                ],
            ),
        ]
    }

    #[test]
    fn version_1_of_a_token_is_read_for_ever_and_is_what_is_written() {
        for (token, carry, headers) in version_1() {
            let headers =
                headers.into_iter().fold(Headers::default(), |all, (name, value)| all.with(name, value));
            assert_eq!(encode(&token, &carry, &Headers::default()), headers);
            let record = Record {
                position: Position { at: Partition { topic: Topic::new("retry.5s"), index: 0 }, offset: 1 },
                stamp: Timestamp(77),
                key: None,
                value: None,
                headers,
                not_before: None,
            };
            assert_eq!(decode(&record, token.payload.clone()), Ok((token, carry)));
        }
        let bytes = Fingerprint { rule: PrintRule::Bytes, digest: [9; 32] };
        assert_eq!(write_print(&bytes), format!("bytes:{}", "09".repeat(32)));
    }

    #[test]
    fn a_token_that_lacks_a_header_is_refused_by_name() {
        let token = token(PrintRule::Whole);
        let mut headers = encode(&token, &Carry::default(), &Headers::default());
        headers.0.retain(|(name, _)| name != PRINT);
        let record = Record {
            position: token.origin.position.clone(),
            stamp: Timestamp(1),
            key: None,
            value: None,
            headers,
            not_before: None,
        };
        assert_eq!(decode(&record, Bytes::new()), Err(Invalid(PRINT)));
    }
}
