//! Single options of a device's section, set and taken away where they stand; every other byte stays as written.

use std::ops::Range;

use super::edit::{EditError, find};
use super::uci::{self, quote};

/// What an option is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// `option NAME VALUE`
    One(String),
    /// `list NAME VALUE`, one a value; none takes the option away.
    List(Vec<String>),
    /// Not there.
    Absent,
}

/// Returns `text` with these options of device `id` as they are to be. `None` if they are so already.
///
/// # Errors
/// When `text` is no UCI or has no such device.
pub fn set_options(text: &str, id: &str, settings: &[(&str, Setting)]) -> Result<Option<String>, EditError> {
    let mut edited = text.to_owned();
    for (name, setting) in settings {
        edited = set(&edited, id, name, setting)?;
    }
    Ok((edited != text).then_some(edited))
}

fn set(text: &str, id: &str, name: &str, setting: &Setting) -> Result<String, EditError> {
    let section = find(text, id)?.ok_or_else(|| EditError::NoDevice(id.to_owned()))?;
    let (keyword, values) = match setting {
        Setting::One(value) => ("option", std::slice::from_ref(value)),
        Setting::List(values) => ("list", values.as_slice()),
        Setting::Absent => ("option", &[][..]),
    };
    let is_so = match section.get(name) {
        Some(value) => value.values() == values && matches!(value, uci::Value::One(_)) == (keyword == "option"),
        None => values.is_empty(),
    };
    if is_so {
        return Ok(text.to_owned());
    }
    let lines: Vec<String> = values.iter().map(|value| format!("{keyword} {name} {}", quote(value))).collect();
    let lines = lines.join("\n\t");
    let mut places = uci::places_of(text, &section.span, name)?.into_iter();
    let mut edited = text.to_owned();
    let first = if lines.is_empty() { None } else { places.next() };
    // From the last one on, so that the places before it stay what they are.
    for place in places.rev() {
        edited.replace_range(line_of(&edited, place), "");
    }
    match first {
        Some(place) => edited.replace_range(place, &lines),
        None if lines.is_empty() => {}
        None => edited.insert_str(section.span.end, &format!("\n\t{lines}")),
    }
    Ok(edited)
}

/// The whole line of a statement that is alone on it, with what ends the line before it; else the statement itself. A
/// comment behind it was about it.
fn line_of(text: &str, place: Range<usize>) -> Range<usize> {
    let blank = |part: &str| part.chars().all(|c| c == ' ' || c == '\t');
    let start = text[..place.start].rfind('\n').filter(|at| blank(&text[at + 1..place.start]));
    let end = text[place.end..].find('\n').map_or(text.len(), |at| place.end + at);
    let rest = text[place.end..end].trim_start();
    match start {
        Some(start) if rest.is_empty() || rest.starts_with('#') => start..end,
        _ => place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\nconfig device 'a' # the first\n\toption mac 'dc:a6:32:79:26:df'\n\toption hostname \"old\" # its name\n\toption colour 'red'\n\tlist ssh_key 'one'\n\tlist colours 'x'\n\tlist ssh_key 'two' # second\n\noption hostname 'last'; option image 'x'\n\nconfig device 'b'\n\toption hostname 'old'\n";

    fn edit(settings: &[(&str, Setting)]) -> Option<String> {
        set_options(TEXT, "a", settings).unwrap()
    }

    #[test]
    fn an_option_is_set_where_it_stands_and_the_rest_stays_as_written() {
        let one = |value: &str| Setting::One(value.to_owned());
        let changed = edit(&[("colour", one("it's blue"))]).unwrap();
        assert_eq!(changed, TEXT.replace("'red'", r"'it'\''s blue'"));
        // The last one counts, so all have to go but one.
        let changed = edit(&[("hostname", one("new"))]).unwrap();
        assert_eq!(changed, TEXT.replace("\"old\" #", "'new' #").replace("option hostname 'last';", ";"));
        let changed = edit(&[("image", Setting::Absent)]).unwrap();
        assert_eq!(changed, TEXT.replace("; option image 'x'", "; "));
        let changed = edit(&[("ip", one("10.0.0.1")), ("colour", Setting::Absent)]).unwrap();
        let expected = TEXT
            .replace("\toption colour 'red'\n", "")
            .replace("option image 'x'\n", "option image 'x'\n\toption ip '10.0.0.1'\n");
        assert_eq!(changed, expected);
        assert_eq!(edit(&[("mac", one("dc:a6:32:79:26:df")), ("ip", Setting::Absent)]), None, "it is so");
    }

    #[test]
    fn a_list_is_replaced_as_a_whole() {
        let list = |values: &[&str]| Setting::List(values.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(edit(&[("ssh_key", list(&["one", "two"]))]), None);
        let changed = edit(&[("ssh_key", list(&["three", "four", "five"]))]).unwrap();
        let lines = "list ssh_key 'three'\n\tlist ssh_key 'four'\n\tlist ssh_key 'five'";
        assert_eq!(changed, TEXT.replace("list ssh_key 'one'", lines).replace("\n\tlist ssh_key 'two' # second", ""));
        let changed = edit(&[("ssh_key", list(&[]))]).unwrap();
        assert_eq!(changed, TEXT.replace("\n\tlist ssh_key 'one'", "").replace("\n\tlist ssh_key 'two' # second", ""));
        assert!(matches!(set_options(TEXT, "c", &[("x", Setting::Absent)]), Err(EditError::NoDevice(_))));
    }

    #[test]
    fn however_it_is_written_it_is_what_it_is_to_be_and_the_rest_too() {
        let keys = vec!["it's".to_owned(), "b # c".to_owned()];
        let settings = [
            ("hostname", Setting::One("x".to_owned())),
            ("ssh_key", Setting::List(keys.clone())),
            ("ip", Setting::Absent),
        ];
        for text in [
            "config device a",
            "config device a # end",
            "config device 'a'\r\n\toption hostname 'b'\r\n\toption ip '1'\r\n",
            "config device a;option ip 1;option hostname \"x\"; list ssh_key a",
            "config device a\n option hostname 'two\nlines' # and more\n  option ip 1 # x\n list ip 2\n\n\n",
            "config device a\noption hostname a\noption hostname b\nlist ssh_key c\noption ssh_key d\nlist ssh_key e",
            "config device a\n\toption ip '1'\n\toption ip '2'\n# between\n\toption ip '3'",
            "config x\n\toption hostname 'k'\nconfig device a\n\tlist hostname 'b'\nconfig device b\n\toption ip '1'\n",
        ] {
            let edited = set_options(text, "a", &settings).unwrap().unwrap_or_else(|| text.to_owned());
            let (before, after) = (uci::parse(text).unwrap(), uci::parse(&edited).unwrap());
            for (old, new) in before.iter().zip(&after) {
                let is_meant = new.name.as_deref() == Some("a");
                assert!(is_meant || old.options == new.options, "{text:?}: {edited:?}");
            }
            assert_eq!(before.len(), after.len(), "{text:?}: {edited:?}");
            let now = after.iter().find(|section| section.name.as_deref() == Some("a")).unwrap();
            assert_eq!(now.get("hostname"), Some(&uci::Value::One("x".to_owned())), "{text:?}: {edited:?}");
            assert_eq!(now.get("ssh_key"), Some(&uci::Value::List(keys.clone())), "{text:?}: {edited:?}");
            assert_eq!(now.get("ip"), None, "{text:?}: {edited:?}");
            assert_eq!(set_options(&edited, "a", &settings).unwrap(), None, "{text:?}: {edited:?}");
            let comments = |text: &str| text.matches("# between").count();
            assert_eq!(comments(text), comments(&edited));
        }
    }
}
