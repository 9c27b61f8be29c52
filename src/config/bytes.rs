//! Configuration files as text, whatever bytes are in them: libuci takes any, and a comment may be older than UTF-8.
//!
//! A byte that is no part of UTF-8 becomes a character of a private plane, and that byte again when the text is written.

/// Stands for byte 0; bytes from 0x80 on are used.
const ESCAPED: u32 = 0x10_ff00;

/// Text that [`encode`] turns into the same bytes again.
#[must_use]
pub(crate) fn decode(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).map_or_else(
        |error| decode_in_part(error.as_bytes()),
        |text| {
            if text.chars().any(|c| escaped(c).is_some()) { decode_in_part(text.as_bytes()) } else { text }
        },
    )
}

fn decode_in_part(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |byte: &u8| char::from_u32(ESCAPED | u32::from(*byte)).unwrap_or(char::REPLACEMENT_CHARACTER);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // One that is there already would become a single byte.
            match escaped(c) {
                Some(_) => text.extend(c.encode_utf8(&mut [0; 4]).as_bytes().iter().map(escape)),
                None => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(escape));
    }
    text
}

/// The bytes of a text, those among them that are no UTF-8 as they were.
#[must_use]
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match escaped(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The byte that a character stands for.
fn escaped(c: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(c).checked_sub(ESCAPED)?).ok()?;
    (byte >= 0x80).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_bytes_come_out_as_they_went_in() {
        let every: Vec<u8> = (0..=255).chain(0..=255).collect();
        let private = "a\u{10ffe4}\u{10ff41}\u{10ffff}z".as_bytes();
        for bytes in [&b""[..], "# Möbel €".as_bytes(), b"# M\xf6bel\nconfig a\n", b"\xc3", private, &every] {
            let text = decode(bytes.to_vec());
            assert_eq!(encode(&text), bytes, "{text:?}");
            assert_eq!(
                std::str::from_utf8(bytes).is_ok_and(|plain| plain == text),
                text.chars().all(|c| escaped(c).is_none())
            );
        }
        assert_eq!(decode(b"'\xf6' # x".to_vec()).chars().filter(char::is_ascii).collect::<String>(), "'' # x");
    }
}
