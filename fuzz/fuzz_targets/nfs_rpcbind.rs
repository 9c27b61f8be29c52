//! What the portmapper that was here first answers to a registration.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/nfs.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    checks::rpcbind_answer(input);
});
