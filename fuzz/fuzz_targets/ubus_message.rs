//! Messages from a ubus broker, and the tables in them.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/ubus.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    checks::messages(input);
});
