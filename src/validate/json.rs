//! JSON as models write it, read strictly and with bounds: depth, duplicate names, exact numbers.
//!
//! What is not JSON is refused; nothing is repaired here.

use crate::finding::{self, Finding, quoted};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Lists and objects inside each other. Answers need five; the limit keeps the stack flat.
pub const DEPTH_MAX: usize = 64;
const TOO_DEEP: &str = "nested too deep";

/// Reads a text that is one JSON value.
pub fn parse(text: &str) -> Result<Value, Finding> {
    match prefix(text) {
        Ok((value, used)) if text[used..].trim().is_empty() => Ok(value),
        Ok((_, used)) => {
            let (line, column) = place(text, used);
            Err(broken(format!("there is more text after the value, at line {line} column {column}")))
        }
        Err(stop) => Err(stop.finding()),
    }
}

/// Where and why reading stopped.
pub(super) struct Stop {
    why: Why,
    /// Bytes from the start that still looked like JSON.
    pub(super) after: usize,
}

enum Why {
    Broken(serde_json::Error),
    Inexact(String),
}

/// Reads the JSON value at the start of the text, and how many bytes it takes.
pub(super) fn prefix(text: &str) -> Result<(Value, usize), Stop> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Level(0)
        .deserialize(&mut reader)
        .map_err(|e| Stop { after: offset(text, e.line(), e.column()), why: Why::Broken(e) })?;
    // The offset is the stream's; after a complete value it stands right behind it.
    let used = reader.into_iter::<serde::de::IgnoredAny>().byte_offset();
    match inexact(&text[..used]) {
        None => Ok((value, used)),
        Some(number) => Err(Stop { why: Why::Inexact(quoted(number)), after: used }),
    }
}

impl Stop {
    /// The words; made only when someone will read them.
    pub(super) fn finding(&self) -> Finding {
        let error = match &self.why {
            Why::Broken(error) => error,
            Why::Inexact(number) => {
                let what = format!("the number {number} has more digits than can be kept; give fewer");
                return Finding::new("", finding::NUMBER, what);
            }
        };
        let at = format!("at line {} column {}", error.line(), error.column());
        let words = error.to_string();
        let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(w, _)| w);
        if words == TOO_DEEP || words.starts_with("recursion limit") {
            Finding::new("", finding::SIZE, format!("the JSON is nested more than {DEPTH_MAX} deep, {at}"))
        } else if error.is_eof() {
            broken(format!("unexpected end {at}; the JSON is not complete"))
        } else {
            broken(format!("{} {at}", super::advice::shorten(words, 160)))
        }
    }
}

fn broken(what: String) -> Finding {
    Finding::new("", finding::JSON, format!("json: {what}"))
}

/// Line and column, from 1, of a byte.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..byte];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

/// The byte of a line and column as serde_json counts them.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (start + column).min(text.len())
}

/// The first number that would come back with other digits than it was written with.
fn inexact(json: &str) -> Option<&str> {
    let bytes = json.as_bytes();
    let (mut i, mut in_string) = (0, false);
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if in_string => i += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let more = bytes[i..]
                    .iter()
                    .take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                let end = i + more.count();
                // Up to fifteen digits every double holds; most numbers end here.
                if end - i > 15 && !comes_back(&json[i..end]) {
                    return Some(&json[i..end]);
                }
                i = end - 1;
            }
            _ => {}
        }
        i += 1;
    }
    None
}

fn comes_back(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    number.parse::<f64>().is_ok_and(|f| digits(&format!("{f:e}")) == digits(number))
}

/// The significant digits and the power of ten of the first of them.
fn digits(number: &str) -> (String, i64) {
    let number = number.trim_start_matches('-').to_ascii_lowercase();
    let (mantissa, exponent) = number.split_once('e').unwrap_or((&number, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{part}");
    let zeros = all.len() - all.trim_start_matches('0').len();
    let significant = all.trim_matches('0').to_owned();
    if significant.is_empty() {
        return (significant, 0);
    }
    let power = exponent.parse::<i64>().unwrap_or(0) + whole.len() as i64 - zeros as i64;
    (significant, power)
}

/// Builds a value, counting how deep it is and refusing names that come twice.
#[derive(Clone, Copy)]
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl Level {
    fn deeper<E: serde::de::Error>(self) -> Result<Level, E> {
        if self.0 >= DEPTH_MAX { Err(E::custom(TOO_DEEP)) } else { Ok(Level(self.0 + 1)) }
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::from(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::from(n))
    }

    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Value, E> {
        Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let next = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(next)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let next = self.deeper()?;
        let mut fields = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value_seed(next)?;
            // serde_json would keep the last and drop the first without a word.
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("the field {} is there twice", quoted(&name))));
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn broken_json_says_where_it_breaks() {
        let message = |text: &str| parse(text).unwrap_err().message;
        assert_eq!(
            message(r#"{"category": "billin"#),
            "json: unexpected end at line 1 column 20; the JSON is not complete"
        );
        assert_eq!(message("{\"a\": 1,}"), "json: trailing comma at line 1 column 9");
        assert_eq!(
            message("{\"a\": 1} and more"),
            "json: there is more text after the value, at line 1 column 9"
        );
        assert_eq!(
            message(r#"{"a": 1, "a": 2}"#),
            r#"json: the field "a" is there twice at line 1 column 16"#
        );
    }

    #[test]
    fn numbers_come_back_as_written_or_not_at_all() {
        for text in [
            "0.1",
            "5.0",
            "1e3",
            "-0.25",
            "18446744073709551615",
            "-9223372036854775808",
            "0.30000000000000004",
            "100000000000000000000",
            "1.50000000000000000000",
            "0.00000000000000000000001",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in [
            "18446744073709551617",
            "0.12345678901234567890",
            "[1, -123456789012345678901234567890]",
            "1e400",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("[1, 1.0]").unwrap().to_string(), "[1,1.0]");
        assert_eq!(parse(r#"["18446744073709551617"]"#).unwrap(), json!(["18446744073709551617"]));
    }

    #[test]
    fn depth_is_bounded_and_the_bound_itself_is_allowed() {
        let nest = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse(&nest(DEPTH_MAX)).is_ok());
        let refused = parse(&nest(DEPTH_MAX + 1)).unwrap_err();
        assert_eq!((refused.keyword.as_str(), refused.path.as_str()), (finding::SIZE, ""));
        assert_eq!(parse(&"[".repeat(1_000_000)).unwrap_err().keyword, finding::SIZE);
    }
}
