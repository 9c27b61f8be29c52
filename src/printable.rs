//! Names that others chose, made fit for a terminal and a log.

use std::fmt::Write;

/// The name as text: bytes that are no UTF-8 are replaced, and characters that a terminal obeys (escape sequences,
/// line breaks, a change of the writing direction) are written as escapes.
pub(crate) fn printable(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(printable("größe 名.txt".as_bytes()), "größe 名.txt");
        assert_eq!(printable(b"a\x1b[2Jb\n\x7f\xff"), "a\\u{1b}[2Jb\\n\\u{7f}\u{fffd}");
        assert_eq!(printable("\u{202e}txt\u{9b}".as_bytes()), "\\u{202e}txt\\u{9b}");
    }
}
