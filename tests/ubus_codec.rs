//! Bytes from a broker, stored and damaged ones, with the checks of the fuzz target.

#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "../fuzz/checks/ubus.rs"]
mod checks;

use std::fs;
use std::path::Path;

fn stored() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/ubus_message");
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    fs::read_dir(directory).unwrap().map(|entry| read(entry.unwrap())).collect()
}

#[test]
fn stored_messages_are_understood() {
    let stored = stored();
    assert!(stored.len() >= 11);
    for (name, bytes) in stored {
        assert!(checks::messages(&bytes), "{name}");
    }
}

#[test]
fn damaged_messages_hold_what_fuzzing_checks() {
    // xorshift: the same damage in every run.
    let mut state = 0x2545_f491_u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).unwrap() % below
    };
    for (_, bytes) in stored() {
        for cut in 0..bytes.len() {
            checks::messages(&bytes[..cut]);
        }
        for _ in 0..5000 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                damaged[at] = [0, 1, 4, 0x7f, 0x80, 0xff, damaged[at] ^ 1, damaged[at].wrapping_add(4)][random(8)];
            }
            checks::messages(&damaged);
        }
    }
}
