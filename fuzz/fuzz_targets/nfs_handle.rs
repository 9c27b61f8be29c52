//! Handles from the wire.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/nfs.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    checks::handle(input);
});
