//! Any packet of a LAN: the built-in proxy answers Pis that want to boot, and nobody else.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/dhcp.rs"]
mod checks;

fuzz_target!(|packet: &[u8]| {
    checks::offer(packet);
});
