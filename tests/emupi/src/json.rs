//! Just enough JSON to write a log line.

use std::fmt::Write;

/// One JSON object under construction, fields in the order they are added.
#[derive(Debug)]
pub struct Object(String);

impl Default for Object {
    fn default() -> Object {
        Object(String::from("{"))
    }
}

impl Object {
    /// Adds a text field.
    pub fn text(mut self, key: &str, value: &str) -> Object {
        self.key(key);
        quote(&mut self.0, value);
        self
    }

    /// Adds a field whose value's `Display` form is JSON already (numbers, booleans).
    pub fn raw(mut self, key: &str, value: impl std::fmt::Display) -> Object {
        self.key(key);
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{value}");
        self
    }

    /// The finished object.
    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(&mut self.0, key);
        self.0.push(':');
    }
}

/// RFC 8259 §7.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_control_characters_are_escaped() {
        let line = Object::default().text("why", "a \"b\" \\ \n").raw("ms", 1.5).raw("ok", true).end();
        assert_eq!(line, r#"{"why":"a \"b\" \\ \u000a","ms":1.5,"ok":true}"#);
    }
}
