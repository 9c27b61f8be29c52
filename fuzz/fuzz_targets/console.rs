//! Datagrams for the console port, from anybody.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/console.rs"]
mod checks;

fuzz_target!(|payload: &[u8]| {
    checks::datagram(payload);
});
