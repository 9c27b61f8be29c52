//! Tests of the conversion.

use serde_json::json;

use super::*;

const ENOUGH: usize = 1 << 20;

#[track_caller]
fn there_and_back(value: &Value) {
    let table = encode(value, ENOUGH).unwrap();
    assert_eq!(&decode(table.contents()).unwrap(), value);
    // The count is exact: not a byte less would do, and ubusd drops the sender of what is too long.
    assert_eq!(encode(value, table.contents().len()), Ok(table.clone()));
    if let Some(less) = table.contents().len().checked_sub(1) {
        assert_eq!(encode(value, less), Err(ValueError::Large(less)));
    }
}

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % n
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'ß', '"', '\\', '\n', '\u{1}', '🥧', ' ', 'Z'];
        (0..self.below(9)).map(|_| letters[usize::try_from(self.below(9)).unwrap()]).collect()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth < 5 { 9 } else { 7 }) {
            0 => Value::Null,
            1 => Value::Bool(self.below(2) == 1),
            2 => Value::from(i64::try_from(self.below(1 << 40)).unwrap() - (1 << 39)),
            3 => Value::from([i64::MIN, i64::MAX, -1, 0, 1 << 31, -(1 << 31), (1 << 31) - 1][self.below(7) as usize]),
            4 => Value::from(self.below(1 << 30) as f64 / 1024.0),
            5 | 6 => Value::from(self.text()),
            7 => (0..self.below(5)).map(|_| self.value(depth + 1)).collect(),
            _ => self.object(depth),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        Value::Object((0..self.below(6)).map(|_| (self.text(), self.value(depth + 1))).collect())
    }
}

#[test]
fn random_values_come_back_as_they_were() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    (0..3000).for_each(|_| there_and_back(&random.object(0)));
}

#[test]
fn what_is_easily_lost_comes_back() {
    there_and_back(&json!({}));
    there_and_back(&json!({ "": {}, "list": [], "nested": { "": [[], {}, null] }, "zero": 0.0, "float": 1.0 }));
    there_and_back(&json!({ "n": [i64::MIN, i64::MAX, i32::MIN, i32::MAX, f64::MAX, 5e-324, -0.0] }));
    assert_eq!(encode(&Value::Null, 0).unwrap().contents(), b"");
}

#[test]
fn an_unsigned_number_beyond_the_signed_becomes_the_nearest_double() {
    let table = encode(&json!({ "n": u64::MAX }), ENOUGH).unwrap();
    assert_eq!(decode(table.contents()).unwrap(), json!({ "n": 18_446_744_073_709_551_615.0_f64 }));
}

#[test]
fn bytes_are_libubox_s() {
    // Made by hand from the layout of blob.h and blobmsg.h: length with type, length of the name, name, padding, value.
    let expected = b"\x85\x00\x00\x0c\x00\x01n\0\x00\x00\x00\x02\x87\x00\x00\x09\x00\x01b\0\x01\0\0\0\x83\x00\x00\x0b\x00\x01s\0hi\0\0\x80\x00\x00\x08\x00\x01x\0\x81\x00\x00\x14\x00\x01l\0\x85\x00\x00\x0c\x00\x00\0\0\x00\x00\x00\x07";
    let mut expected = expected.to_vec();
    expected.extend(b"\x84\x00\x00\x10\x00\x01y\0\x00\x00\x00\x01\x00\x00\x00\x00");
    let members = [
        ("n", json!(2)),
        ("b", json!(true)),
        ("s", json!("hi")),
        ("x", Value::Null),
        ("l", json!([7])),
        ("y", json!(1_u64 << 32)),
    ];
    let bytes: Vec<u8> =
        members.iter().flat_map(|(n, v)| encode(&json!({ *n: v }), ENOUGH).unwrap().contents().to_vec()).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn what_the_bus_cannot_say_is_refused() {
    assert_eq!(encode(&json!([1]), ENOUGH), Err(ValueError::NotATable));
    assert_eq!(encode(&json!({ "a": "x\0y" }), ENOUGH), Err(ValueError::Nul));
    assert_eq!(encode(&json!({ "a\0": 1 }), ENOUGH), Err(ValueError::Nul));
    assert_eq!(encode(&json!({ "a": [{ "\0": 1 }] }), ENOUGH), Err(ValueError::Nul));
    assert_eq!(encode(&json!({ "n".repeat(1 << 16): 1 }), ENOUGH), Err(ValueError::LongName));
    let nested = |levels| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
    there_and_back(&nested(MAX_DEPTH + 1));
    assert_eq!(encode(&nested(MAX_DEPTH + 2), ENOUGH), Err(ValueError::Deep));
}

#[test]
fn foreign_bytes_are_refused_not_believed() {
    let malformed = |bytes: &[u8]| matches!(decode(bytes), Err(ValueError::Malformed(_)));
    let good = encode(&json!({ "s": "text", "t": { "a": [1] } }), ENOUGH).unwrap();
    let good = good.contents();
    for cut in 1..good.len() {
        // Between the two members is a place to stop, with or without the padding.
        assert_eq!(malformed(&good[..cut]), !(13..=16).contains(&cut), "{cut}");
    }
    assert!(malformed(b"\x03\x00\x00\x0c\x00\x01s\0hi\0\0"), "a plain attribute has no name");
    assert!(malformed(b"\x83\x00\x00\x0a\x00\x01s\0hi\0\0"), "no NUL");
    assert!(malformed(b"\x83\x00\x00\x0b\x00\x01s\0\xff\xfe\0\0"), "not UTF-8");
    assert!(malformed(b"\x88\x00\x00\x10\x00\x01d\0\x7f\xf8\0\0\0\0\0\0"), "not a number");
    let mut deep = Vec::new();
    for _ in 0..1000 {
        let length = u32::try_from(deep.len() + 8).unwrap();
        deep = [&(0x8200_0000 | length).to_be_bytes(), &[0; 4], &deep[..]].concat();
    }
    assert_eq!(decode(&deep), Err(ValueError::Deep), "a thousand levels");
}

#[test]
fn of_two_members_with_one_name_the_last_counts() {
    let twice: Vec<u8> =
        [1, 2].iter().flat_map(|n| encode(&json!({ "a": n }), ENOUGH).unwrap().contents().to_vec()).collect();
    assert_eq!(decode(&twice).unwrap(), json!({ "a": 2 }));
}
