//! As much of TOML as Raspberry Pi Imager's `custom.toml` has: tables, strings of one line, booleans, whole numbers, lists of
//! strings. A file with anything else is not understood, rather than half understood.

/// `key = value`, and the table it stands in (empty before the first).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: Value,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number,
    Texts(Vec<String>),
}

/// More entries than that are no settings.
const MAX_ENTRIES: usize = 200;

/// The entries of a file, `None` if it holds something that is not understood.
pub(super) fn parse(text: &str) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut section = String::new();
    let mut rest = text;
    loop {
        rest = skip(rest);
        if rest.is_empty() {
            return Some(entries);
        }
        if let Some(head) = rest.strip_prefix('[') {
            let (name, after) = head.split_once(']')?;
            section = word(name.trim())?;
            rest = end_of_line(after)?;
            continue;
        }
        let (key, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start_matches(BLANK))?;
        entries.push(Entry { section: section.clone(), key: word(key.trim())?, value });
        rest = end_of_line(after)?;
        if entries.len() > MAX_ENTRIES {
            return None;
        }
    }
}

const BLANK: [char; 2] = [' ', '\t'];

/// A bare key.
fn word(text: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (!text.is_empty() && text.chars().all(is_plain)).then(|| text.to_owned())
}

/// What comes behind blanks, line ends and comments.
fn skip(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix('#') {
            Some(comment) => text = comment.find('\n').map_or("", |end| &comment[end..]),
            None => return text,
        }
    }
}

/// The next line, if there is nothing but a comment on the rest of this one.
fn end_of_line(text: &str) -> Option<&str> {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let line = line.trim();
    (line.is_empty() || line.starts_with('#')).then_some(after)
}

fn value(text: &str) -> Option<(Value, &str)> {
    for (word, flag) in [("true", true), ("false", false)] {
        if let Some(after) = text.strip_prefix(word) {
            return Some((Value::Flag(flag), after));
        }
    }
    if let Some(mut rest) = text.strip_prefix('[') {
        let mut texts = Vec::new();
        loop {
            rest = skip(rest);
            if let Some(after) = rest.strip_prefix(']') {
                return Some((Value::Texts(texts), after));
            }
            let (text, after) = string(rest)?;
            texts.push(text);
            rest = skip(after);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with(']') => {}
                None => return None,
            }
        }
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits > 0 {
        return Some((Value::Number, &text[digits..]));
    }
    string(text).map(|(text, after)| (Value::Text(text), after))
}

/// A basic or a literal string of one line.
fn string(text: &str) -> Option<(String, &str)> {
    if let Some(literal) = text.strip_prefix('\'') {
        let (inner, after) = literal.split_once('\'')?;
        return (!inner.contains('\n')).then(|| (inner.to_owned(), after));
    }
    let mut chars = text.strip_prefix('"')?.chars();
    let mut read = String::new();
    loop {
        match chars.next()? {
            '"' => return Some((read, chars.as_str())),
            '\n' => return None,
            '\\' => read.push(escaped(&mut chars)?),
            c => read.push(c),
        }
    }
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    match chars.next()? {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        c @ ('"' | '\\') => Some(c),
        'u' => code_point(chars, 4),
        'U' => code_point(chars, 8),
        _ => None,
    }
}

fn code_point(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let hex: String = chars.take(digits).collect();
    let is_whole = hex.len() == digits && hex.bytes().all(|b| b.is_ascii_hexdigit());
    char::from_u32(u32::from_str_radix(&hex, 16).ok().filter(|_| is_whole)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_understood_whole() {
        let text = "a = 1 # one\n[b]\r\nc = \"x \\\"y\\\" \\u00e4\"\nd = ['1', # first\n \"2\",]\ne=false";
        let entry = |section: &str, key: &str, value| Entry { section: section.to_owned(), key: key.to_owned(), value };
        let expected = [
            entry("", "a", Value::Number),
            entry("b", "c", Value::Text("x \"y\" ä".to_owned())),
            entry("b", "d", Value::Texts(vec!["1".to_owned(), "2".to_owned()])),
            entry("b", "e", Value::Flag(false)),
        ];
        assert_eq!(parse(text).unwrap(), expected);
        for bad in [
            "a",
            "a = ",
            "a = \"x",
            "a = [1]",
            "[b",
            "a.b = 1",
            "a = {b=1}",
            "a = 1 2",
            "a = \"\\q\"",
            "a = '''x\n'''",
            "a = \"\\u12\"",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"a=1\n".repeat(201)), None);
        assert_eq!(parse(""), Some(Vec::new()));
    }
}
