//! The arguments of every NFSv3 procedure.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/nfs.rs"]
mod checks;

fuzz_target!(|input: &[u8]| {
    checks::nfs_args(input);
});
