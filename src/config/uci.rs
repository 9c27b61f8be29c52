//! The UCI text format, as libuci reads and `uci export` prints it.
//!
//! Pure: text in, sections with their byte ranges out, so that an edit can leave every other byte alone.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

/// A `config TYPE 'NAME'` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The word after `config`.
    pub kind: String,
    /// The section name, absent for anonymous sections.
    pub name: Option<String>,
    /// Options in file order; a list is one option with several values.
    pub options: Vec<Opt>,
    /// Where the block stands in the text: from its `config` to the end of its last option's line.
    pub span: Range<usize>,
}

/// An `option` or `list` of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opt {
    /// Option name.
    pub name: String,
    /// The value of an `option`, or the values of all `list` lines of that name.
    pub value: Value,
}

/// Value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `option NAME VALUE`
    One(String),
    /// `list NAME VALUE`, repeated
    List(Vec<String>),
}

/// The text is not UCI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Section {
    /// The last value given for `name` with `option`, as libuci lets the last one win.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.options.iter().rev().find(|o| o.name == name).map(|o| &o.value)
    }
}

impl Value {
    /// All values: one for an `option`, all of a `list`.
    #[must_use]
    pub fn values(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::List(values) => values,
        }
    }
}

/// Quotes a value the way `uci export` does; any reader of UCI gets it back byte for byte.
#[must_use]
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Whether `name` may be a section or option name: `[A-Za-z0-9_]+`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Reads a UCI file or the output of `uci export`.
///
/// # Errors
/// Names the first line that is not UCI.
pub fn parse(text: &str) -> Result<Vec<Section>, SyntaxError> {
    let mut reader = Reader { text, chars: text.char_indices().peekable() };
    let mut sections: Vec<Section> = Vec::new();
    while let Some((keyword, words, span, _)) = reader.statement()? {
        let start = span.start;
        statement(&mut sections, &keyword, words, span).map_err(|what| reader.error(start, what))?;
    }
    Ok(sections)
}

/// The places of the `option` and `list` statements of that name between two places in a text, without the comments behind
/// them.
///
/// # Errors
/// Names the first line that is not UCI.
pub(super) fn places_of(text: &str, within: &Range<usize>, name: &str) -> Result<Vec<Range<usize>>, SyntaxError> {
    let mut reader = Reader { text, chars: text.char_indices().peekable() };
    let mut places = Vec::new();
    while let Some((keyword, words, span, words_end)) = reader.statement()? {
        let is_meant = keyword != "config" && words.first().is_some_and(|word| word == name);
        if is_meant && within.contains(&span.start) {
            places.push(span.start..words_end);
        }
    }
    Ok(places)
}

/// Takes one statement's words into `sections`.
fn statement(sections: &mut Vec<Section>, keyword: &str, words: Vec<String>, span: Range<usize>) -> Result<(), String> {
    let count = words.len();
    let mut words = words.into_iter();
    match (keyword, count) {
        ("package", 1) => Ok(()),
        ("config", 1 | 2) => {
            let kind = words.next().unwrap_or_default();
            let name = words.next();
            if let Some(name) = &name
                && !is_name(name)
            {
                return Err(format!("'{name}' is not a section name (letters, digits and _ only)"));
            }
            sections.push(Section { kind, name, options: Vec::new(), span });
            Ok(())
        }
        ("option" | "list", 2) => {
            let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            if !is_name(&name) {
                return Err(format!("'{name}' is not an option name (letters, digits and _ only)"));
            }
            let Some(section) = sections.last_mut() else {
                return Err(format!("'{keyword} {name}' stands before any 'config' line"));
            };
            section.span.end = span.end;
            if keyword == "option" {
                section.options.push(Opt { name, value: Value::One(value) });
                return Ok(());
            }
            match section.options.iter_mut().find(|o| o.name == name) {
                Some(Opt { value: Value::List(values), .. }) => values.push(value),
                _ => section.options.push(Opt { name, value: Value::List(vec![value]) }),
            }
            Ok(())
        }
        ("package" | "config" | "option" | "list", _) => Err(format!("'{keyword}' with {count} values")),
        _ => Err(format!("'{keyword}' is none of package, config, option, list")),
    }
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Reader<'_> {
    fn position(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |&(at, _)| at)
    }

    fn error(&self, at: usize, what: String) -> SyntaxError {
        let line = self.text.as_bytes().iter().take(at).filter(|&&b| b == b'\n').count() + 1;
        SyntaxError { line, what }
    }

    /// The next statement: keyword, the words behind it, its place with a comment behind it, and the end of its last word.
    #[expect(clippy::type_complexity, reason = "two callers, a few lines away")]
    fn statement(&mut self) -> Result<Option<(String, Vec<String>, Range<usize>, usize)>, SyntaxError> {
        let start = self.skip_to_statement();
        let Some(keyword) = self.word()? else { return Ok(None) };
        let (mut words, mut words_end) = (Vec::new(), self.position());
        while let Some(word) = self.word()? {
            words.push(word);
            words_end = self.position();
        }
        Ok(Some((keyword, words, start..self.position(), words_end)))
    }

    /// Skips blanks, line ends, `;` and comments; returns where the next statement starts.
    fn skip_to_statement(&mut self) -> usize {
        while let Some(&(at, c)) = self.chars.peek() {
            match c {
                '#' => self.skip_comment(),
                c if c.is_whitespace() || c == ';' => {
                    self.chars.next();
                }
                _ => return at,
            }
        }
        self.text.len()
    }

    fn skip_comment(&mut self) {
        while self.chars.next_if(|&(_, c)| c != '\n').is_some() {}
    }

    /// The next word of the current statement, `None` at its end. Leaves the line end unread.
    fn word(&mut self) -> Result<Option<String>, SyntaxError> {
        while self.chars.next_if(|&(_, c)| c == ' ' || c == '\t' || c == '\r').is_some() {}
        match self.chars.peek() {
            None | Some((_, '\n' | ';')) => return Ok(None),
            Some((_, '#')) => {
                self.skip_comment();
                return Ok(None);
            }
            Some(_) => {}
        }
        let mut word = String::new();
        while let Some(&(at, c)) = self.chars.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' => break,
                '\'' | '"' => self.quoted(at, c, &mut word)?,
                '\\' => {
                    self.chars.next();
                    match self.chars.next() {
                        Some((_, escaped)) => word.push(escaped),
                        None => return Err(self.error(at, "the file ends in a backslash".to_owned())),
                    }
                }
                _ => {
                    self.chars.next();
                    word.push(c);
                }
            }
        }
        Ok(Some(word))
    }

    fn quoted(&mut self, start: usize, quote: char, word: &mut String) -> Result<(), SyntaxError> {
        self.chars.next();
        loop {
            match self.chars.next() {
                None => return Err(self.error(start, format!("the {quote} opened here is never closed"))),
                Some((_, c)) if c == quote => return Ok(()),
                Some((_, '\\')) if quote == '"' => word.extend(self.chars.next().map(|(_, escaped)| escaped)),
                Some((_, c)) => word.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(section: &Section, name: &str) -> String {
        section.get(name).unwrap().values().join("|")
    }

    #[test]
    fn reads_what_uci_export_prints() {
        let text = "package piboot\n\nconfig piboot 'main'\n\toption enabled '1'\n\tlist interface 'lan'\n\tlist interface 'guest'\n\nconfig device 'running_lion'\n\toption hostname 'it'\\''s'\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!((sections[0].kind.as_str(), sections[0].name.as_deref()), ("piboot", Some("main")));
        assert_eq!(one(&sections[0], "interface"), "lan|guest");
        assert_eq!(one(&sections[1], "hostname"), "it's");
        assert_eq!(&text[sections[1].span.clone()], "config device 'running_lion'\n\toption hostname 'it'\\''s'");
    }

    #[test]
    fn reads_hand_written_text() {
        let text = "# my router\nconfig  device lion # trailing\n option image \"raspios \\\"lite\\\"\"; option mac dc:a6:32:79:26:df\nlist ssh_key 'two\nlines'\n";
        let sections = parse(text).unwrap();
        assert_eq!(one(&sections[0], "image"), "raspios \"lite\"");
        assert_eq!(one(&sections[0], "mac"), "dc:a6:32:79:26:df");
        assert_eq!(one(&sections[0], "ssh_key"), "two\nlines");
    }

    #[test]
    fn the_last_option_wins_and_sections_may_be_anonymous() {
        let sections = parse("config device\n\toption a '1'\n\toption a '2'\n").unwrap();
        assert_eq!(sections[0].name, None);
        assert_eq!(one(&sections[0], "a"), "2");
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        for (text, line, what) in [
            ("option a 'b'\n", 1, "before any 'config'"),
            ("config a 'b'\n\n\toption c\n", 3, "'option' with 1 values"),
            ("config a 'b-c'\n", 1, "not a section name"),
            ("config a b\n\toption c 'd\n", 2, "never closed"),
            ("confg a b\n", 1, "none of package"),
            ("config a b\n\toption c d\\", 2, "ends in a backslash"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.what.contains(what), "{error}");
        }
    }

    #[test]
    fn quoting_survives_a_round_trip() {
        for value in ["", "plain", "it's", "a\nb", "\\", "\"", "''", "ü#;"] {
            let text = format!("config a b\n\toption c {}\n", quote(value));
            assert_eq!(one(&parse(&text).unwrap()[0], "c"), value);
        }
    }
}
