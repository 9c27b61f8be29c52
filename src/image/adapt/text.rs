//! Text of unknown encoding: rules work on lines of [`str`], and what they leave alone comes back byte by byte. A name
//! in Latin-1 in /etc/passwd must not stop anything.

/// A byte that is no UTF-8 becomes the character this much above it, in a private area (U+F780 to U+F7FF).
const SHIFT: u32 = 0xf700;

/// The bytes as text.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_stand_in(c) {
                // It would come back as one byte: its own bytes stand in.
                let mut own = [0; 4];
                text.extend(c.encode_utf8(&mut own).bytes().filter_map(stand_in));
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(stand_in));
    }
    text
}

/// The text as the bytes it was made of.
pub(super) fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(u32::from(c).wrapping_sub(SHIFT)) {
            Ok(byte) if is_stand_in(c) => bytes.push(byte),
            _ => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}

fn is_stand_in(c: char) -> bool {
    matches!(c, '\u{f780}'..='\u{f7ff}')
}

/// Always one, since only bytes from 0x80 on are no UTF-8.
fn stand_in(byte: u8) -> Option<char> {
    char::from_u32(SHIFT + u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&all[..], b"plain", "größe \u{f7e4} 名".as_bytes(), b"M\xfcller \xc3", b"\xef\x9f", b""] {
            assert_eq!(encode(&decode(bytes)), bytes);
        }
        assert_eq!(decode("größe".as_bytes()), "größe");
        assert_eq!(decode(b"a\xff\nb").lines().count(), 2);
    }
}
