//! The arguments of the MOUNT program.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/nfs.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    checks::mount_args(input);
});
