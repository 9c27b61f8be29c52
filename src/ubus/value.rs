//! JSON and blobmsg, each as the other, the way libblobmsg_json has it.
//!
//! Whole numbers are 32-bit where they fit and 64-bit otherwise; one above `i64::MAX` becomes the nearest double, because
//! blobmsg has no unsigned type. `true` and `false` are 8-bit numbers, null is a value of no type.

use serde_json::{Map, Number, Value};
use ubus_zero::{BlobBuilder, BlobIter, BlobMsgTable, BlobValue};

/// How deep tables and arrays may be nested; nothing of ours comes near.
pub const MAX_DEPTH: usize = 32;

/// Why a value cannot be carried over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A message is a table.
    #[error("not a table of named values")]
    NotATable,
    /// Strings on the bus end at the first NUL.
    #[error("a name or string contains a NUL")]
    Nul,
    /// Its length does not fit into 16 bits.
    #[error("a name is longer than 65535 bytes")]
    LongName,
    /// Nested too deep.
    #[error("values are nested deeper than {MAX_DEPTH} levels")]
    Deep,
    /// It would take more bytes than allowed.
    #[error("larger than {0} bytes")]
    Large(usize),
    /// The bytes are no blobmsg, or hold what JSON has no word for.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// The table that holds the members of `value`, an object; null is an empty one.
///
/// # Errors
/// When blobmsg cannot say it, or not in `limit` bytes.
pub fn encode(value: &Value, limit: usize) -> Result<BlobMsgTable, ValueError> {
    let empty = Map::new();
    let members = match value {
        Value::Object(members) => members,
        Value::Null => &empty,
        _ => return Err(ValueError::NotATable),
    };
    // The builder panics on what is too long.
    let mut room = Room { left: limit, limit };
    for (name, value) in members {
        room.take(name, value, 1)?;
    }
    Ok(BlobMsgTable::build(|table| members.iter().for_each(|(name, value)| put(table, Some(name), value))))
}

/// Counts down the bytes that may still be written.
struct Room {
    left: usize,
    limit: usize,
}

impl Room {
    fn take(&mut self, name: &str, value: &Value, depth: usize) -> Result<(), ValueError> {
        if depth > MAX_DEPTH {
            return Err(ValueError::Deep);
        }
        if name.contains('\0') {
            return Err(ValueError::Nul);
        }
        if name.len() > usize::from(u16::MAX) {
            return Err(ValueError::LongName);
        }
        // Length, then the name with its own length and a NUL.
        self.bytes(4)?;
        self.bytes(name.len() + 3)?;
        match value {
            Value::Null => Ok(()),
            Value::Bool(_) => self.bytes(1),
            Value::Number(number) => self.bytes(if small(number).is_some() { 4 } else { 8 }),
            Value::String(text) if text.contains('\0') => Err(ValueError::Nul),
            Value::String(text) => self.bytes(text.len() + 1),
            Value::Array(values) => values.iter().try_for_each(|value| self.take("", value, depth + 1)),
            Value::Object(members) => members.iter().try_for_each(|(name, value)| self.take(name, value, depth + 1)),
        }
    }

    fn bytes(&mut self, count: usize) -> Result<(), ValueError> {
        let padded = count.next_multiple_of(4);
        self.left = self.left.checked_sub(padded).ok_or(ValueError::Large(self.limit))?;
        Ok(())
    }
}

fn small(number: &Number) -> Option<i32> {
    number.as_i64().and_then(|n| i32::try_from(n).ok())
}

fn put(out: &mut BlobBuilder, name: Option<&str>, value: &Value) {
    match value {
        Value::Null => out.put_null(name),
        Value::Bool(truth) => out.put_bool(name, *truth),
        Value::Number(number) => match (small(number), number.as_i64(), number.as_f64()) {
            (Some(n), ..) => out.put_i32(name, n),
            (_, Some(n), _) => out.put_i64(name, n),
            (.., Some(n)) => out.put_double(name, n),
            // Only numbers of arbitrary precision are none of these, and they are not compiled in.
            _ => out.put_null(name),
        },
        Value::String(text) => out.put_str(name, text),
        Value::Array(values) => {
            out.open_array(name);
            values.iter().for_each(|value| put(out, None, value));
            out.close_array();
        }
        Value::Object(members) => {
            out.open_table(name);
            members.iter().for_each(|(name, value)| put(out, Some(name), value));
            out.close_table();
        }
    }
}

/// The object that a table's contents hold. Of members with one name the last counts.
///
/// # Errors
/// When the bytes are no blobmsg, nested too deep, or hold what JSON cannot say.
pub fn decode(table: &[u8]) -> Result<Value, ValueError> {
    members(table, 1).map(Value::Object)
}

fn members(table: &[u8], depth: usize) -> Result<Map<String, Value>, ValueError> {
    let mut members = Map::new();
    each(table, depth, &mut |name, value| drop(members.insert(name.to_owned(), value)))?;
    Ok(members)
}

fn each(bytes: &[u8], depth: usize, found: &mut dyn FnMut(&str, Value)) -> Result<(), ValueError> {
    if depth > MAX_DEPTH + 1 {
        return Err(ValueError::Deep);
    }
    let mut rest = BlobIter::new(bytes);
    while let Some(attribute) = rest.try_next().map_err(malformed)? {
        let value = match attribute.value().map_err(malformed)? {
            BlobValue::String(text) => Value::from(text),
            BlobValue::Int8(n) => Value::Bool(n != 0),
            BlobValue::Int16(n) => Value::from(n),
            BlobValue::Int32(n) => Value::from(n),
            BlobValue::Int64(n) => Value::from(n),
            BlobValue::Double(n) => Value::Number(
                Number::from_f64(n).ok_or_else(|| ValueError::Malformed("a double that is no number".to_owned()))?,
            ),
            BlobValue::Table(inner) => Value::Object(members(inner, depth + 1)?),
            BlobValue::Array(inner) => {
                let mut values = Vec::new();
                each(inner, depth + 1, &mut |_, value| values.push(value))?;
                Value::Array(values)
            }
            BlobValue::Raw(_) => Value::Null,
        };
        found(attribute.name.unwrap_or_default(), value);
    }
    Ok(())
}

fn malformed(error: ubus_zero::UbusError) -> ValueError {
    ValueError::Malformed(error.to_string())
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
