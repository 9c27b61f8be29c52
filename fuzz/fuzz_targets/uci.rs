//! Any configuration text: reading it must not panic, its sections lie in it, and an edit can be undone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::config::{Config, Setting, put_device, remove_device, replace_sections, set_options, uci};

fuzz_target!(|text: &str| {
    let Ok(sections) = uci::parse(text) else { return };
    for section in &sections {
        assert!(text.get(section.span.clone()).is_some_and(|block| !block.is_empty()));
    }
    // Neither does this, whatever it finds.
    let _ = Config::from_sections(&sections);
    edit_options(text, &sections);
    let section = "config device 'fuzzed'\n\toption mac '02:00:00:00:00:01'\n\toption image 'x'\n";
    let (mut config, _) = Config::from_sections(&uci::parse(section).expect("UCI"));
    let device = config.devices.pop().expect("a device");
    if sections.iter().any(|s| s.name.as_deref() == Some("fuzzed")) {
        return;
    }
    let Ok(with) = put_device(text, &device) else { return };
    let without = remove_device(&with, "fuzzed").expect("what was put can be removed");
    assert_eq!(without, text);
    let ours = |section: &uci::Section| section.name.as_deref() == Some("fuzzed");
    let wanted = uci::parse("config tag 'fuzzed'\n\toption force '1'\n").expect("UCI");
    let with = replace_sections(text, ours, &wanted).expect("read before").expect("it is not there");
    assert_eq!(replace_sections(&with, ours, &wanted).expect("UCI"), None);
    assert_eq!(replace_sections(&with, ours, &[]).expect("UCI").as_deref(), Some(text));
});

/// Options of the first device are what they are to be, and nothing else has changed.
fn edit_options(text: &str, sections: &[uci::Section]) {
    let Some(section) = sections.iter().find(|s| s.name.is_some()).filter(|s| s.kind == "device") else { return };
    let id = section.name.as_deref().unwrap_or_default();
    let keys = vec!["it's".to_owned(), "b # c".to_owned()];
    let settings =
        [("hostname", Setting::One("x".to_owned())), ("ssh_key", Setting::List(keys.clone())), ("ip", Setting::Absent)];
    let edited = set_options(text, id, &settings).expect("a device").unwrap_or_else(|| text.to_owned());
    let after = uci::parse(&edited).expect("UCI");
    assert_eq!(after.len(), sections.len());
    let now = after.iter().find(|s| s.name.as_deref() == Some(id)).expect("it is there");
    assert_eq!(now.get("hostname"), Some(&uci::Value::One("x".to_owned())));
    assert_eq!(now.get("ssh_key"), Some(&uci::Value::List(keys)));
    assert_eq!(now.get("ip"), None);
    assert_eq!(set_options(&edited, id, &settings).expect("a device"), None);
}
