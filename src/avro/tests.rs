//! What JSON becomes of a datum, and a datum of JSON; held against the library where it can be.

mod drawn;

use super::{Refused, Schema, frame, is_framed, unframe};
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value, json};

fn schema(of: &Value) -> Schema {
    Schema::parse(&of.to_string()).unwrap_or_else(|e| panic!("{of}: {e}"))
}

/// What the library reads in our datum, and writes again.
fn by_the_library(of: &Value, datum: &[u8]) -> Vec<u8> {
    let read = apache_avro::Schema::parse_str(&of.to_string()).unwrap();
    let value = GenericDatumReader::builder(&read).build().unwrap().read_value(&mut &datum[..]).unwrap();
    GenericDatumWriter::builder(&read).build().unwrap().write_value_to_vec(value).unwrap()
}

fn record(fields: &Value) -> Value {
    let fields = fields.as_object().unwrap().iter().map(|(name, of)| json!({ "name": name, "type": of }));
    json!({ "type": "record", "name": "R", "fields": fields.collect::<Vec<_>>() })
}

fn refusal<T: std::fmt::Debug>(told: Result<T, Refused>) -> String {
    told.unwrap_err().to_string()
}

#[test]
fn every_type_has_its_json_and_its_bytes() {
    let fixed = |name: &str, size: u32, logical: &str| json!({ "type": "fixed", "name": name, "size": size, "logicalType": logical });
    let logical = |base: &str, name: &str| json!({ "type": base, "logicalType": name });
    let decimal = json!({ "type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2 });
    let cases: Vec<(Value, Value, &[u8])> = vec![
        (json!("null"), json!(null), &[]),
        (json!("boolean"), json!(true), &[1]),
        (json!("int"), json!(-65), &[0x81, 0x01]),
        (json!("long"), json!(i64::MIN), &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        (json!("float"), json!(1.5), &[0, 0, 0xc0, 0x3f]),
        (json!("double"), json!(-0.25), &[0, 0, 0, 0, 0, 0, 0xd0, 0xbf]),
        (json!("string"), json!("h\u{e9}"), &[6, b'h', 0xc3, 0xa9]),
        (json!("bytes"), json!("AP8="), &[4, 0, 0xff]),
        (json!({ "type": "fixed", "name": "F", "size": 2 }), json!("AP8="), &[0, 0xff]),
        (json!({ "type": "enum", "name": "E", "symbols": ["a", "b"] }), json!("b"), &[2]),
        (json!({ "type": "array", "items": "int" }), json!([1, 2]), &[4, 2, 4, 0]),
        (json!({ "type": "map", "values": "int" }), json!({ "k": 3 }), &[2, 2, b'k', 6, 0]),
        (json!(["null", "string"]), json!("x"), &[2, 2, b'x']),
        (json!(["null", "string"]), json!(null), &[0]),
        (decimal.clone(), json!("-12.50"), &[4, 0xfb, 0x1e]),
        (decimal, json!("0.05"), &[2, 5]),
        (logical("int", "date"), json!("1969-12-31"), &[1]),
        (logical("int", "time-millis"), json!("00:00:01.007"), &[0xde, 0x0f]),
        (logical("long", "time-micros"), json!("00:00:00.000064"), &[0x80, 0x01]),
        (logical("long", "timestamp-millis"), json!("1970-01-01T00:00:00.064Z"), &[0x80, 0x01]),
        (logical("long", "timestamp-micros"), json!("1969-12-31T23:59:59.999999Z"), &[1]),
        (logical("long", "timestamp-nanos"), json!("1970-01-01T00:00:00.000000001Z"), &[2]),
        (logical("long", "local-timestamp-millis"), json!("1970-01-01T00:00:00.001"), &[2]),
        (
            fixed("D", 12, "duration"),
            json!({ "months": 1, "days": 2, "milliseconds": 3 }),
            &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
        ),
        (logical("string", "uuid"), json!("0193"), &[8, b'0', b'1', b'9', b'3']),
        (
            fixed("U", 16, "uuid"),
            json!("00010203-0405-0607-0809-0a0b0c0d0e0f"),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        ),
        (json!({ "type": "string", "logicalType": "nobody-knows-this" }), json!("x"), &[2, b'x']),
    ];
    for (of, value, datum) in cases {
        let schema = schema(&of);
        assert_eq!(schema.encode(&value), Ok(datum.to_vec()), "{of} of {value}");
        assert_eq!(schema.decode(datum), Ok(value), "{of}");
        if of["logicalType"] != "uuid" {
            assert_eq!(by_the_library(&of, datum), datum, "{of}");
        }
    }
}

#[test]
fn a_datum_that_ends_early_or_goes_on_is_refused_and_never_read_as_null() {
    for of in [json!("string"), json!("boolean"), json!(["null", "string"]), json!("int"), json!("double")] {
        assert_eq!(refusal(schema(&of).decode(b"")), "ends too early", "{of}");
    }
    let of = schema(&record(&json!({ "id": "string", "ok": "boolean", "more": ["null", "string"] })));
    let datum = of.encode(&json!({ "id": "a", "ok": true, "more": "b" })).unwrap();
    for end in 0..datum.len() {
        assert!(of.decode(&datum[..end]).is_err(), "{end} of {} bytes", datum.len());
    }
    let more = [&datum[..], &[0]].concat();
    assert_eq!(refusal(of.decode(&more)), "1 bytes are left over: written with another schema");
}

#[test]
fn what_no_json_can_say_is_refused_with_its_place() {
    let of = schema(&record(&json!({ "at": { "type": "array", "items": "double" } })));
    let datum = [&[4][..], &1.0_f64.to_le_bytes(), &f64::NAN.to_le_bytes(), &[0]].concat();
    assert_eq!(refusal(of.decode(&datum)), "`at.1`: is no number that JSON has");
    let stamp = schema(&json!({ "type": "long", "logicalType": "timestamp-millis" }));
    let for_ever = schema(&json!("long")).encode(&json!(i64::MAX)).unwrap();
    assert_eq!(refusal(stamp.decode(&for_ever)), "is a time that no calendar of four digits has");
    // Often written for "never".
    let last = json!("9999-12-31T23:59:59.999Z");
    assert_eq!(stamp.decode(&stamp.encode(&last).unwrap()), Ok(last));
    let decimal = schema(&json!({ "type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 1 }));
    assert_eq!(refusal(decimal.decode(&[2, 0x64])), "has more than the 2 digits of its type");
    let map = schema(&json!({ "type": "map", "values": "null" }));
    assert_eq!(refusal(map.decode(&[4, 2, b'k', 2, b'k', 0])), "has one key twice");
    assert_eq!(refusal(schema(&json!("string")).decode(&[2, 0xff])), "is not UTF-8");
    assert_eq!(refusal(schema(&json!("boolean")).decode(&[2])), "is neither true nor false");
    assert_eq!(
        refusal(schema(&json!("int")).decode(&[0xff, 0xff, 0xff, 0xff, 0x7f])),
        "has more than 32 bits"
    );
    assert_eq!(refusal(schema(&json!("long")).decode(&[0xff; 11])), "has more than 64 bits");
    assert_eq!(refusal(schema(&json!("bytes")).decode(&[1])), "has a negative length");
}

#[test]
fn branches_that_look_alike_carry_their_names() {
    let made = |name: &str| json!({ "type": "record", "name": name, "namespace": "shop", "fields": [{ "name": "id", "type": "int" }] });
    let of = schema(&json!(["null", made("Created"), made("Deleted")]));
    for value in [json!({ "shop.Created": { "id": 1 } }), json!({ "shop.Deleted": { "id": 1 } }), json!(null)]
    {
        let datum = of.encode(&value).unwrap();
        assert_eq!(of.decode(&datum), Ok(value), "else one event would be read as the other");
    }
    assert!(of.encode(&json!({ "id": 1 })).is_err());
    // Text, a day and bytes are all text in JSON; a long and a double are both numbers, and need no name.
    let day = json!({ "type": "int", "logicalType": "date" });
    let texts = schema(&json!(["string", day, "bytes"]));
    for value in
        [json!({ "string": "2026-11-26" }), json!({ "int": "2026-11-26" }), json!({ "bytes": "AA==" })]
    {
        assert_eq!(texts.decode(&texts.encode(&value).unwrap()), Ok(value));
    }
    let numbers = schema(&json!(["null", "int", "long", "double", "string"]));
    for (value, branch) in
        [(json!(5), 2), (json!(1_i64 << 40), 4), (json!(0.5), 6), (json!("x"), 8), (json!(null), 0)]
    {
        let datum = numbers.encode(&value).unwrap();
        assert_eq!((datum[0], numbers.decode(&datum)), (branch, Ok(value)));
    }
}

#[test]
fn nothing_is_dropped_or_invented_on_the_way_to_a_datum() {
    let text = json!({ "type": "record", "name": "R", "fields": [
        { "name": "id", "type": "int" },
        { "name": "note", "type": ["null", "string"] },
        { "name": "tags", "type": { "type": "array", "items": "string" }, "default": [] },
        { "name": "raw", "type": "bytes", "default": "\u{ff}" },
    ] });
    let of = schema(&text);
    let whole = of.encode(&json!({ "id": 1, "raw": "" })).unwrap();
    assert_eq!(of.decode(&whole), Ok(json!({ "id": 1, "note": null, "tags": [], "raw": "" })));
    for (value, why) in [
        (json!({ "id": 1, "raw": "", "ids": 2 }), "has a field that its schema does not have"),
        (json!({ "raw": "" }), "`id`: is missing"),
        (json!({ "id": 1 }), "`raw`: is missing"),
        (json!({ "id": 5_000_000_000_i64, "raw": "" }), "`id`: should be a whole number of 32 bits"),
        (json!({ "id": "1", "raw": "" }), "`id`: should be a whole number of 32 bits"),
        (json!({ "id": 1.5, "raw": "" }), "`id`: should be a whole number of 32 bits"),
        (json!({ "id": 1, "raw": "", "tags": ["a", 2] }), "`tags.1`: should be text"),
        (json!({ "id": 1, "raw": "no" }), "`raw`: should be bytes in base64"),
        (json!([1]), "should be an object"),
    ] {
        assert_eq!(refusal(of.encode(&value)), why, "{value}");
    }
    let double = schema(&json!("double"));
    assert!(double.encode(&json!(9_007_199_254_740_993_i64)).is_err(), "a double would be another number");
    assert_eq!(double.encode(&json!(5)), double.encode(&json!(5.0)));
    let decimal = schema(
        &json!({ "type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2 }),
    );
    for (value, datum) in [
        (json!("1.50"), Some([0, 150])),
        (json!(1.5), Some([0, 150])),
        (json!(-1), Some([0xff, 0x9c])),
        (json!("1.500"), Some([0, 150])),
        (json!("1.505"), None),
        (json!("100.00"), None),
        (json!("1e2"), None),
        (json!("."), None),
    ] {
        assert_eq!(decimal.encode(&value).ok(), datum.map(|d| d.to_vec()), "{value}");
    }
}

#[test]
fn names_are_found_in_their_spaces_and_in_other_texts() {
    let inner = json!({ "type": "record", "name": "Inner", "fields": [{ "name": "n", "type": "int" }] });
    let of = json!({ "type": "record", "name": "Outer", "namespace": "a.b", "fields": [
        { "name": "one", "type": inner },
        { "name": "two", "type": "Inner" },
        { "name": "three", "type": "a.b.Inner" },
    ] });
    let value = json!({ "one": { "n": 1 }, "two": { "n": 2 }, "three": { "n": 3 } });
    assert_eq!(schema(&of).encode(&value), Ok(vec![2, 4, 6]));
    let other = json!({ "type": "record", "name": "Money", "namespace": "shop", "fields": [{ "name": "cents", "type": "long" }] });
    let order = json!({ "type": "record", "name": "Order", "namespace": "shop", "fields": [
        { "name": "price", "type": "shop.Money" }, { "name": "tip", "type": ["null", "Money"] },
    ] });
    let of = Schema::parse_with(&order.to_string(), &[other.to_string()]).unwrap();
    let value = json!({ "price": { "cents": 1 }, "tip": { "cents": 2 } });
    assert_eq!(of.decode(&of.encode(&value).unwrap()), Ok(value));
    assert!(refusal(Schema::parse(&order.to_string())).contains("Money"));
    for wrong in ["", "{", "7", "\"strin\"", r#"{"type":"record","name":"R"}"#] {
        assert!(Schema::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Schema::parse(&format!("\"int\"{}", " ".repeat(2 << 20))).is_err(), "a text of 2 MiB");
    let deep = |n: usize| {
        (0..n).fold(json!("int"), |items, _| json!({ "type": "array", "items": items })).to_string()
    };
    assert!(Schema::parse(&deep(100)).is_ok(), "on a stack as small as a test's");
    assert!(Schema::parse(&deep(1_000)).is_err());
}

#[test]
fn hostile_bytes_cost_no_more_than_the_room_there_is() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for items in [
        json!("null"),
        json!({ "type": "record", "name": "E", "fields": [] }),
        json!({ "type": "fixed", "name": "F", "size": 0 }),
    ] {
        let of = schema(&json!({ "type": "array", "items": items }));
        assert_eq!(
            refusal(of.decode(&huge)).split_once(": ").map_or("", |(_, what)| what),
            "becomes more than 16 MiB",
            "{items}"
        );
        // Many blocks, each small.
        let blocks = [0x80, 0x80, 0x04].repeat(100_000);
        assert!(of.decode(&blocks).is_err());
    }
    for of in [json!("string"), json!("bytes"), json!({ "type": "map", "values": "int" })] {
        assert_eq!(refusal(schema(&of).decode(&huge)), "ends too early", "{of}");
    }
    // Itself, and nothing else: no byte is ever needed to go deeper.
    let endless = schema(&json!({ "type": "record", "name": "R", "fields": [{ "name": "r", "type": "R" }] }));
    assert!(refusal(endless.decode(b"")).ends_with("nests deeper than 120"));
    let list = schema(
        &json!({ "type": "record", "name": "L", "fields": [{ "name": "next", "type": ["null", "L"] }] }),
    );
    assert!(refusal(list.decode(&[2].repeat(1 << 20))).ends_with("nests deeper than 120"));
    let deep = (0..200).fold(json!({ "next": null }), |inner, _| json!({ "next": inner }));
    assert!(refusal(list.encode(&deep)).ends_with("nests deeper than 120"));
    let wide = (0..100).fold(json!({ "next": null }), |inner, _| json!({ "next": inner }));
    let back = list.decode(&list.encode(&wide).unwrap()).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&back.to_string()).unwrap(),
        wide,
        "JSON still reads what we build"
    );
    let long = schema(&json!({ "type": "bytes", "logicalType": "decimal", "precision": 1000, "scale": 0 }));
    let digits = [&[0x80, 0x80, 0x80, 0x01][..], &vec![0x7f; 1 << 20]].concat();
    assert_eq!(refusal(long.decode(&digits)), "is no decimal of 1000 digits");
}

#[test]
fn a_frame_is_read_as_it_was_written_and_is_no_json() {
    let value = frame(0x0102_0304, b"datum");
    assert_eq!(value, b"\0\x01\x02\x03\x04datum");
    assert!(is_framed(&value));
    assert_eq!(unframe(&value), Ok((0x0102_0304, &b"datum"[..])));
    for short in [&b""[..], b"\0", b"\0\0\0\0", b"{\"a\":1}", b"\x01\0\0\0\x07x"] {
        assert!(unframe(short).is_err(), "{short:?}");
    }
    for json in ["{}", " 1", "\"\"", "null", "[0]", "-1", "\n{}"] {
        assert!(!is_framed(json.as_bytes()), "{json}");
    }
}
