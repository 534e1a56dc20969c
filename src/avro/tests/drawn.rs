//! Schemas and values drawn at random: what is written is read back, by us and by the library, and no
//! bytes whatever do more than be refused.

use super::{by_the_library, schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
enum Shape {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    Fixed(u8),
    Enum(u8),
    Decimal(u8, u8),
    Date,
    Stamp,
    List(Box<Shape>),
    Map(Box<Shape>),
    Record(Vec<Shape>),
    Nullable(Box<Shape>),
    /// Two records that look alike.
    Either(Box<Shape>, Box<Shape>),
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Boolean),
        Just(Shape::Int),
        Just(Shape::Long),
        Just(Shape::Float),
        Just(Shape::Double),
        Just(Shape::Text),
        Just(Shape::Bytes),
        (0_u8..20).prop_map(Shape::Fixed),
        (1_u8..5).prop_map(Shape::Enum),
        (1_u8..38, 0_u8..38).prop_map(|(precision, scale)| Shape::Decimal(precision, scale.min(precision))),
        Just(Shape::Date),
        Just(Shape::Stamp),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            boxed().prop_map(Shape::List),
            boxed().prop_map(Shape::Map),
            prop::collection::vec(inner.clone(), 0..5).prop_map(Shape::Record),
            inner
                .clone()
                .prop_filter("a union in a union", |s| !matches!(s, Shape::Nullable(_) | Shape::Either(..)))
                .prop_map(|shape| Shape::Nullable(Box::new(shape))),
            (boxed(), boxed()).prop_map(|(a, b)| Shape::Either(a, b)),
        ]
    })
}

/// The schema as text; each named type by a number of its own.
fn written(shape: &Shape, n: &mut u32) -> Value {
    *n += 1;
    let name = format!("t{n}");
    match shape {
        Shape::Boolean => json!("boolean"),
        Shape::Int => json!("int"),
        Shape::Long => json!("long"),
        Shape::Float => json!("float"),
        Shape::Double => json!("double"),
        Shape::Text => json!("string"),
        Shape::Bytes => json!("bytes"),
        Shape::Fixed(size) => json!({ "type": "fixed", "name": name, "size": size }),
        Shape::Enum(symbols) => {
            let symbols: Vec<_> = (0..*symbols).map(|i| format!("s{i}")).collect();
            json!({ "type": "enum", "name": name, "symbols": symbols })
        }
        Shape::Decimal(precision, scale) => {
            json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
        }
        Shape::Date => json!({ "type": "int", "logicalType": "date" }),
        Shape::Stamp => json!({ "type": "long", "logicalType": "timestamp-micros" }),
        Shape::List(item) => json!({ "type": "array", "items": written(item, n) }),
        Shape::Map(item) => json!({ "type": "map", "values": written(item, n) }),
        Shape::Record(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .enumerate()
                .map(|(i, field)| json!({ "name": format!("f{i}"), "type": written(field, n) }))
                .collect();
            json!({ "type": "record", "name": name, "fields": fields })
        }
        Shape::Nullable(inner) => json!(["null", written(inner, n)]),
        Shape::Either(a, b) => {
            let of = |which: &str, of: Value| json!({ "type": "record", "name": format!("{name}{which}"), "fields": [{ "name": "x", "type": of }] });
            json!([of("a", written(a, n)), of("b", written(b, n))])
        }
    }
}

/// A value of the shape out of a stream of random bytes; `n` counts as `written` does.
fn value(shape: &Shape, n: &mut u32, dice: &mut impl FnMut() -> u64) -> Value {
    *n += 1;
    let name = format!("t{n}");
    match shape {
        Shape::Boolean => (dice() & 1 == 1).into(),
        Shape::Int => (dice() as i32).into(),
        Shape::Long => dice().cast_signed().into(),
        Shape::Float => json!(f64::from(f32::from_bits(dice() as u32 & 0xbf7f_ffff))),
        Shape::Double => json!(f64::from_bits(dice() & 0xbfef_ffff_ffff_ffff)),
        Shape::Text => {
            let chars = (0..dice() % 6).map(|_| char::from_u32(dice() as u32 % 0x11_0000).unwrap_or('\0'));
            chars.collect::<String>().into()
        }
        Shape::Bytes => STANDARD.encode(dice().to_le_bytes()).into(),
        Shape::Fixed(size) => STANDARD.encode((0..*size).map(|_| dice() as u8).collect::<Vec<_>>()).into(),
        Shape::Enum(symbols) => format!("s{}", dice() % u64::from(*symbols)).into(),
        Shape::Decimal(precision, scale) => {
            let mut digits: String =
                (0..*precision).map(|_| char::from(b'0' + (dice() % 10) as u8)).collect();
            let whole = usize::from(precision - scale);
            if *scale > 0 {
                digits.insert(whole, '.');
            }
            let bare = digits.trim_start_matches('0');
            let zero = if bare.is_empty() || bare.starts_with('.') { "0" } else { "" };
            let number = format!("{zero}{bare}");
            let nothing = number.chars().all(|c| matches!(c, '0' | '.'));
            format!("{}{number}", if dice() & 1 == 1 && !nothing { "-" } else { "" }).into()
        }
        Shape::Date => format!("{:04}-{:02}-{:02}", dice() % 10_000, dice() % 12 + 1, dice() % 28 + 1).into(),
        Shape::Stamp => {
            let (day, hour) = (dice() % 28 + 1, dice() % 24);
            format!("{:04}-01-{day:02}T{hour:02}:59:00.{:06}Z", dice() % 10_000, dice() % 1_000_000).into()
        }
        Shape::List(item) => {
            let from = *n;
            let items = (0..dice() % 4).map(|_| again(item, n, from, dice)).collect();
            skip(item, n, from);
            Value::Array(items)
        }
        Shape::Map(item) => {
            let from = *n;
            let items = (0..dice() % 4).map(|i| (format!("k{i}"), again(item, n, from, dice))).collect();
            skip(item, n, from);
            Value::Object(items)
        }
        Shape::Record(fields) => {
            let fields = fields.iter().enumerate().map(|(i, f)| (format!("f{i}"), value(f, n, dice)));
            Value::Object(fields.collect())
        }
        Shape::Nullable(inner) => {
            let inner = value(inner, n, dice);
            if dice() & 1 == 1 { Value::Null } else { inner }
        }
        Shape::Either(a, b) => {
            let (a, b) = (value(a, n, dice), value(b, n, dice));
            let (which, x) = if dice() & 1 == 1 { ("a", a) } else { ("b", b) };
            Value::Object(Map::from_iter([(format!("{name}{which}"), json!({ "x": x }))]))
        }
    }
}

/// Items of one list share the names of their types.
fn again(item: &Shape, n: &mut u32, from: u32, dice: &mut impl FnMut() -> u64) -> Value {
    *n = from;
    value(item, n, dice)
}

fn skip(item: &Shape, n: &mut u32, from: u32) {
    *n = from;
    let _ = written(item, n);
}

/// SplitMix64.
fn dice(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_by_us_and_by_the_library(shape in shapes(), seed: u64) {
        let of = written(&shape, &mut 0);
        let value = value(&shape, &mut 0, &mut dice(seed));
        let schema = schema(&of);
        let datum = schema.encode(&value).map_err(|e| TestCaseError::fail(format!("{of}\n{value}: {e}")))?;
        prop_assert_eq!(schema.decode(&datum), Ok(value.clone()), "{}", of);
        let theirs = by_the_library(&of, &datum);
        // Maps have no order there.
        prop_assert_eq!(schema.decode(&theirs), Ok(value), "{}", of);
        for end in 0..datum.len() {
            prop_assert!(schema.decode(&datum[..end]).is_err(), "{} of {} bytes of {}", end, datum.len(), of);
        }
    }

    #[test]
    fn no_bytes_do_more_than_be_refused(shape in shapes(), bytes in prop::collection::vec(any::<u8>(), 0..200), at: usize, flip: u8, seed: u64) {
        let of = written(&shape, &mut 0);
        let schema = schema(&of);
        if let Ok(value) = schema.decode(&bytes) {
            // What is taken for a value is one.
            let datum = schema.encode(&value).map_err(|e| TestCaseError::fail(format!("{of}\n{value}: {e}")))?;
            prop_assert_eq!(schema.decode(&datum), Ok(value));
        }
        let mut datum = schema.encode(&value(&shape, &mut 0, &mut dice(seed))).unwrap();
        if !datum.is_empty() {
            let at = at % datum.len();
            datum[at] ^= flip;
            let _ = schema.decode(&datum);
        }
    }

    #[test]
    fn no_text_does_more_than_be_no_schema(shape in shapes(), at: usize, with in "[\\[\\]{}\",:a-z0-9-]{0,6}") {
        let mut text = written(&shape, &mut 0).to_string();
        let at = at % text.len();
        if text.is_char_boundary(at) {
            text.replace_range(at..(at + 3).min(text.len()), &with);
        }
        let _ = super::Schema::parse(&text);
    }
}
