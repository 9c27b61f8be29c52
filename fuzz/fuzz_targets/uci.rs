//! Any configuration text: reading it must not panic, its sections lie in it, and an edit can be undone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::config::{Config, Device, RootKind, put_device, remove_device, replace_sections, uci};

fuzz_target!(|text: &str| {
    let Ok(sections) = uci::parse(text) else { return };
    for section in &sections {
        assert!(text.get(section.span.clone()).is_some_and(|block| !block.is_empty()));
    }
    // Neither does this, whatever it finds.
    let _ = Config::from_sections(&sections);
    let device = Device {
        id: "fuzzed".to_owned(),
        serial: None,
        mac: "02:00:00:00:00:01".parse().ok(),
        ip: None,
        hostname: "fuzzed".to_owned(),
        image: "x".to_owned(),
        root: RootKind::Copy,
        ssh_keys: Vec::new(),
        trim: true,
    };
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
