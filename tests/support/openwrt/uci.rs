//! OpenWrt's `uci`: the program, and the text of its `export` read back.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The real program, built when the first test of this process wants it.
pub fn program() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openwrt/uci.sh");
        let output = Command::new(script).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    };
    PATH.get_or_init(build).clone()
}

/// What an option holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    List(Vec<String>),
}

/// One section; unnamed ones have uci's name, for example `cfg01411c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub kind: String,
    pub name: String,
    pub options: Vec<(String, Value)>,
}

impl Section {
    fn value(&self, option: &str) -> Option<&Value> {
        self.options.iter().find(|(name, _)| name == option).map(|(_, value)| value)
    }

    /// What `config_get` of OpenWrt's functions.sh gives: the items of a list with blanks between them, and nothing for
    /// what is missing.
    pub fn get(&self, option: &str) -> String {
        match self.value(option) {
            Some(Value::Text(text)) => text.clone(),
            Some(Value::List(items)) => items.join(" "),
            None => String::new(),
        }
    }

    /// `config_get`, for what has to be there.
    pub fn some(&self, option: &str) -> Option<String> {
        Some(self.get(option)).filter(|value| !value.is_empty())
    }

    /// `config_get_bool`.
    pub fn is(&self, option: &str, default: bool) -> bool {
        match self.get(option).as_str() {
            "1" | "on" | "true" | "yes" | "enabled" => true,
            "0" | "off" | "false" | "no" | "disabled" => false,
            _ => default,
        }
    }

    /// What `config_list_foreach` goes through: a list's items as they are, and of an option, which it is not meant for,
    /// the words.
    pub fn items(&self, option: &str) -> Vec<String> {
        match self.value(option) {
            Some(Value::List(items)) => items.clone(),
            _ => self.words(option),
        }
    }

    /// What a shell's `for` makes of the value: its words.
    pub fn words(&self, option: &str) -> Vec<String> {
        self.get(option).split_whitespace().map(str::to_owned).collect()
    }
}

/// Reads what `uci -n export` printed.
pub fn parse(export: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for statement in statements(export) {
        let words: Vec<&str> = statement.iter().map(String::as_str).collect();
        match words[..] {
            ["package", _] => {}
            ["config", kind, name] => {
                sections.push(Section { kind: kind.to_owned(), name: name.to_owned(), options: Vec::new() });
            }
            ["option", name, value] => {
                sections.last_mut().unwrap().options.push((name.to_owned(), Value::Text(value.to_owned())));
            }
            ["list", name, value] => {
                let options = &mut sections.last_mut().unwrap().options;
                match options.iter_mut().find(|(known, _)| known == name) {
                    Some((_, Value::List(items))) => items.push(value.to_owned()),
                    _ => options.push((name.to_owned(), Value::List(vec![value.to_owned()]))),
                }
            }
            _ => panic!("not from uci's export: {words:?}"),
        }
    }
    sections
}

/// The words of each line. Only what `export` writes: single quotes, and `'\''` for one inside; a value may have several
/// lines.
fn statements(export: &str) -> Vec<Vec<String>> {
    let (mut statements, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quoted, mut rest) = (false, export.chars());
    while let Some(c) = rest.next() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            _ if quoted => word.get_or_insert_default().push(c),
            '\\' => word.get_or_insert_default().extend(rest.next()),
            ' ' | '\t' => words.extend(word.take()),
            '\n' => {
                words.extend(word.take());
                if !words.is_empty() {
                    statements.push(std::mem::take(&mut words));
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    statements
}
