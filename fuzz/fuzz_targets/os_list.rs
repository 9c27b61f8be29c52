//! Any list of systems: what is read of it can be downloaded and shown, and filtering by a board leaves what fits it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use piboot::incoming::digest::Sum;
use piboot::incoming::os_list::parse;
use piboot::incoming::url::Url;

fuzz_target!(|bytes: &[u8]| {
    let Ok(list) = parse(bytes, &[]) else { return };
    for system in &list.systems {
        assert!(Url::parse(&system.url).is_ok());
        assert!(system.sha256.as_deref().is_none_or(|sum| Sum::parse(sum).is_ok()));
        assert!(!system.name.chars().chain(system.description.chars()).any(char::is_control));
    }
    for board in &list.boards {
        let found = list.board(&board.name);
        assert!(list.fitting(found).count() <= list.systems.len());
    }
});
