//! Any bytes taken for a tar archive.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/archive.rs"]
mod checks;

fuzz_target!(|bytes: &[u8]| {
    checks::archive(bytes);
});
